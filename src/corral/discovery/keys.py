"""The registry as keys of etcd, in the layout that confd's users know. Pure: apps in, keys out.

    services/APP/INSTANCE          ADDRESS:PORT of the instance's first port
    services/APP-PORT/INSTANCE     the same of a further port, by its name or else its number
    apps/APP                       the app as JSON: id, labels, ports, weight, how many are ready

APP is the app's id with `_` for `/`, as in task ids: `shop_web`. Only ready instances have keys.
"""

from collections.abc import Mapping, Sequence

import msgspec

from corral.discovery.registry import App, Registry


def app_key(app_id: str) -> str:
    return app_id.strip("/").replace("/", "_")


def make_keys(apps: Registry, services: str = "services", about: str = "apps") -> dict[str, bytes]:
    """Shapes: an empty `about` leaves out what is told of apps; prefixes are without slashes around them."""
    found: dict[str, bytes] = {}
    for app in apps.values():
        if about:
            found[f"{about}/{app_key(app.id)}"] = msgspec.json.encode(_about(app))
        for port in app.ports:
            directory = f"{services}/{app_key(app.id)}" + (f"-{port.name or port.index}" if port.index else "")
            for instance in app.ready:
                if port.index < len(instance.endpoints) and instance.endpoints[port.index].port:
                    endpoint = instance.endpoints[port.index]
                    host = f"[{endpoint.address}]" if ":" in endpoint.address else endpoint.address
                    name = instance.id.rpartition("instance-")[2]
                    found[f"{directory}/{name}"] = f"{host}:{endpoint.port}".encode()
    return found


def _about(app: App) -> object:
    return {
        "id": app.id,
        "role": app.role,
        "version": app.version,
        "weight": app.weight,
        "labels": app.labels,
        "ports": [{"name": p.name, "servicePort": p.service_port, "protocol": p.protocol} for p in app.ports],
        "ready": len(app.ready),
    }


def differences(written: Mapping[str, bytes], wanted: Mapping[str, bytes]) -> dict[str, bytes | None]:
    """What has to be written, None for what has to go."""
    out: dict[str, bytes | None] = {key: value for key, value in wanted.items() if written.get(key) != value}
    out.update({key: None for key in written if key not in wanted})
    return out


def portions(
    changes: Mapping[str, bytes | None], most: int, most_bytes: int, weigh_one: int = 256
) -> Sequence[dict[str, bytes | None]]:
    """The changes in commits that a store takes."""
    found: list[dict[str, bytes | None]] = [{}]
    weight = 0
    for key, value in changes.items():
        own = len(key) * 2 + len(value or b"") * 2 + weigh_one
        if found[-1] and (len(found[-1]) >= most or weight + own > most_bytes):
            found.append({})
            weight = 0
        found[-1][key] = value
        weight += own
    return found if found[0] else []
