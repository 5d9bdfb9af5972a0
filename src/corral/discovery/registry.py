"""The registry as whoever follows it reads it: apps with their ports, labels and instances.

Source: `GET /corral/v1/registry` and its watch, docs/operate/discovery.md.
"""

from collections.abc import Iterable, Mapping

import msgspec

from corral.lib.errors import Invalid


class Port(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A declared port of an app. Shapes: `protocol` is `tcp`, `udp` or both with a comma."""

    index: int
    name: str | None = None
    protocol: str = "tcp"
    service_port: int = 0
    labels: dict[str, str] = {}


class Check(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    protocol: str
    path: str = "/"
    port_index: int = 0


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Where one port of an instance answers. Shapes: `port` 0 is no port."""

    address: str
    port: int


class Instance(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Shapes: `endpoints` are in the order of the app's ports; `ips` its own addresses, `node_ip` its node's.

    `weight` is a percentage of its app's weight, while a deployment moves traffic from old instances to new ones.
    """

    id: str
    task: str = ""
    host: str = ""
    node: str | None = None
    node_ip: str = ""
    ips: tuple[str, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    state: str = ""
    healthy: bool | None = None
    ready: bool = False
    draining: bool = False
    version: str = ""
    started_at: float | None = None
    weight: int = 100

    @property
    def address(self) -> str:
        """Where the instance as a whole is found."""
        return self.node_ip or next(iter(self.ips), "") or self.host


class App(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Shapes: `weight` is 0 to 256, relative to other apps behind the same name."""

    id: str
    role: str = "*"
    version: str = ""
    configured_at: str = ""
    network: str = "host"
    weight: int = 100
    labels: dict[str, str] = {}
    checks: tuple[Check, ...] = ()
    ports: tuple[Port, ...] = ()
    instances: tuple[Instance, ...] = ()

    @property
    def ready(self) -> tuple[Instance, ...]:
        return tuple(i for i in self.instances if i.ready)


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the watch. Shapes: with `snapshot` the apps are all there are; `gone` are ids."""

    apps: tuple[App, ...] = ()
    gone: tuple[str, ...] = ()
    snapshot: bool = False
    balancer: str = ""


Registry = Mapping[str, App]

_decoder = msgspec.json.Decoder(Change)


def read_change(line: bytes) -> Change:
    """Errors: `Invalid` when the line is not of the registry's form."""
    try:
        return _decoder.decode(line)
    except msgspec.DecodeError as error:
        raise Invalid(f"the registry's answer is not of its form: {error}; is this a corral master?") from None


def apply(apps: dict[str, App], change: Change) -> frozenset[str]:
    """Bring `apps` up to the change; returns the ids of those that are others now."""
    touched: set[str] = set()
    if change.snapshot:
        touched |= _drop(apps, [app_id for app_id in apps if app_id not in {a.id for a in change.apps}])
    for app in change.apps:
        if apps.get(app.id) != app:
            apps[app.id] = app
            touched.add(app.id)
    return frozenset(touched | _drop(apps, change.gone))


def _drop(apps: dict[str, App], ids: Iterable[str]) -> set[str]:
    return {app_id for app_id in ids if apps.pop(app_id, None) is not None}


def write_apps(apps: Registry) -> bytes:
    """All apps as a snapshot, in the form that `read_change` takes."""
    return msgspec.json.encode(Change(apps=tuple(apps[key] for key in sorted(apps)), snapshot=True))
