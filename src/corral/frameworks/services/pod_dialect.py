"""Marathon's pods in and out: read whole, refused by name what no agent would run, shown as they were given.

Source: Marathon's contract, section 6.

A container with an image is one of the node's Docker Engine, the others are programs of the node; all are one group of
the agent's default executor.
"""

from collections import Counter
from collections.abc import Iterator, Set
from typing import Any

from msgspec.structs import replace

from corral.frameworks.services.app_spec import (
    AppSpec,
    Network,
    NetworkSpec,
    PodContainer,
    PodSpec,
    PortDefinition,
    Upgrade,
)
from corral.frameworks.services.marathon import read_roles, read_unreachable
from corral.frameworks.services.pod_containers import (
    NOT_HERE,
    read_container,
    read_environment,
    write_container,
    write_environment,
)
from corral.frameworks.services.pod_networks import (
    NAME,
    check_endpoints,
    find_network_faults,
    read_pod_networks,
    write_networks,
)
from corral.frameworks.services.reader import Json, Reader
from corral.frameworks.services.record_spec import AppRecord, VersionRecord
from corral.frameworks.services.secrets import find_secret_faults, read_secrets
from corral.frameworks.services.shown import number, write_unreachable
from corral.frameworks.services.spec import Config
from corral.frameworks.services.validate import canonical_id, check_app
from corral.lib.errors import Unprocessable

_SHOWN_ONLY = ("version", "versionInfo", "status", "instances")


def read_pod(value: Json, base: str = "/", pod_id: str | None = None) -> tuple[AppSpec, tuple[str, ...]]:
    """A pod and the paths in it that nobody knows. Shapes: `pod_id` is that of the path.

    Errors: `Unprocessable` with all faults by path.
    """
    reader = Reader(value)
    spec = read_pod_in(reader, base, pod_id)
    reader.finish()
    return spec, tuple(reader.unknown)


def read_pod_in(reader: Reader, base: str, pod_id: str | None = None) -> AppSpec:
    """A pod inside something larger, whose reader tells its faults."""
    if pod_id is None and not reader.has("id"):
        reader.refuse("id", "id must be given")
    own = canonical_id(reader.text("id", pod_id or ""), base)
    networks = read_pod_networks(reader)
    pod = _read_parts(reader, networks)
    if reader.any("linuxInfo"):
        reader.refuse("linuxInfo", f"linuxInfo {NOT_HERE}")
    shared: dict[str, Any] = {}
    read_secrets(reader, shared)
    for field in _SHOWN_ONLY:
        reader.has(field)
    containers = pod.containers
    on_node = networks[0].mode is Network.HOST
    endpoints = [endpoint for container in containers for endpoint in container.endpoints]
    spec = AppSpec(
        id=own,
        user=reader.text_or_none("user"),
        **read_environment(reader),
        **shared,
        labels=reader.text_map("labels"),
        cpus=round(pod.cpus + sum(c.cpus for c in containers), 3),
        mem_mb=pod.mem_mb + sum(c.mem_mb for c in containers),
        disk_mb=pod.disk_mb + sum(c.disk_mb for c in containers),
        networks=networks,
        port_definitions=tuple(PortDefinition(port=e.host_port or 0, name=e.name, labels=e.labels) for e in endpoints)
        if on_node
        else None,
        require_ports=on_node,
        role=reader.text_or_none("role"),
        pod=pod,
        **_read_scaling(reader),
        **_read_scheduling(reader),
    )
    reader.done()
    return spec


def _read_parts(reader: Reader, networks: tuple[NetworkSpec, ...]) -> PodSpec:
    on_node = networks[0].mode is Network.HOST
    containers = tuple(read_container(item, on_node) for item in reader.objects("containers"))
    if not containers:
        reader.refuse("containers", "a pod has at least one container")
    volumes: dict[str, str | None] = {}
    secret_volumes: dict[str, str] = {}
    for item in reader.objects("volumes"):
        _read_volume(item, volumes, secret_volumes)
    _check_names(reader, containers, {*volumes, *secret_volumes})
    check_endpoints(reader, networks, containers)
    kept = {"cpus": 0.1, "mem": 32.0, "disk": 10.0}
    overhead = reader.object("executorResources")
    if overhead is not None:
        kept = {name: overhead.number(name, default) for name, default in kept.items()}
        overhead.has("gpus")
        overhead.done()
    return PodSpec(
        containers=containers, volumes=volumes, secret_volumes=secret_volumes, cpus=kept["cpus"], mem_mb=kept["mem"],
        disk_mb=kept["disk"],
    )  # fmt: skip


def _read_scaling(reader: Reader) -> dict[str, Any]:
    inner = reader.object("scaling")
    if inner is None:
        return {}
    inner.choice("kind", "fixed", ("fixed",))
    instances = inner.whole("instances", 1)
    inner.done()
    return {"instances": instances}


def _read_scheduling(reader: Reader) -> dict[str, Any]:
    inner = reader.object("scheduling")
    if inner is None:
        return {}
    found: dict[str, Any] = {}
    if (backoff := inner.object("backoff")) is not None:
        found["backoff_s"] = round(backoff.number("backoff", 1))
        found["backoff_factor"] = backoff.number("backoffFactor", 1.15)
        found["most_backoff_s"] = round(backoff.number("maxLaunchDelay", 300))
        backoff.done()
    if (upgrade := inner.object("upgrade")) is not None:
        found["upgrade"] = Upgrade(
            minimum_health_capacity=upgrade.number("minimumHealthCapacity", 1.0),
            maximum_over_capacity=upgrade.number("maximumOverCapacity", 1.0),
        )
        upgrade.done()
    if (placement := inner.object("placement")) is not None:
        found["constraints"] = tuple(_read_constraint(c) for c in placement.objects("constraints"))
        if placement.list("acceptedResourceRoles"):
            found["accepted_resource_roles"] = read_roles(placement, "acceptedResourceRoles")
        placement.done()
    if inner.has("killSelection"):
        kinds = ("YOUNGEST_FIRST", "OLDEST_FIRST")
        found["kill_selection"] = inner.choice("killSelection", "YOUNGEST_FIRST", kinds)
    if inner.has("unreachableStrategy"):
        found["unreachable"] = read_unreachable(inner, "unreachableStrategy")
    inner.done()
    return found


def _read_constraint(item: Reader) -> tuple[str, ...]:
    value = item.text_or_none("value")
    found = (item.text("fieldName", ""), item.text("operator", "").upper())
    item.done()
    return found if value is None else (*found, value)


def _read_volume(item: Reader, volumes: dict[str, str | None], secret_volumes: dict[str, str]) -> None:
    name = item.text("name", "")
    if NAME.fullmatch(name) is None:
        item.refuse("name", f"got {name!r}, must be lower-case letters, digits and dashes")
    if item.any("persistent") is not None:
        item.refuse("persistent", f"a persistent volume {NOT_HERE}")
    host, secret = item.text_or_none("host"), item.text_or_none("secret")
    if host is not None and not host.startswith("/"):
        item.refuse("host", f"got {host!r}, must be an absolute path of the node")
    if host is not None and secret is not None:
        item.refuse("secret", "a volume is a path of the host or a secret, not both")
    if name in volumes or name in secret_volumes:
        item.refuse("name", f"volume {name!r} is there twice; names must be unique")
    if secret is not None:
        secret_volumes[name] = secret
    else:
        volumes[name] = host
    item.done()


def _check_names(reader: Reader, containers: tuple[PodContainer, ...], volumes: Set[str]) -> None:
    """What names something names what is there, and once."""
    endpoints = [e.name for c in containers for e in c.endpoints]
    for what, names in (("container", [c.name for c in containers]), ("endpoint", endpoints)):
        for name, times in Counter(names).items():
            if times > 1:
                reader.refuse("containers", f"{what} {name!r} is there {times} times; names must be unique")
    for index, container in enumerate(containers):
        path = f"containers({index})"
        for name, _, _ in container.mounts:
            if name not in volumes:
                reader.refuse(f"{path}/volumeMounts", f"volume {name!r} is not among the pod's volumes")
        check = container.check
        if (
            check is not None
            and check.endpoint is not None
            and check.endpoint not in [e.name for e in container.endpoints]
        ):
            reader.refuse(f"{path}/healthCheck", f"endpoint {check.endpoint!r} is not one of this container's")


def check_pod(spec: AppSpec, config: Config) -> None:
    """Errors: `Unprocessable` with every rule that the pod breaks, by field."""
    details: dict[str, list[str]] = {}
    assert spec.pod is not None, "this is asked of pods"
    for path, text in (*_find_faults(spec.pod), *find_network_faults(spec), *find_secret_faults(spec)):
        details.setdefault(path, []).append(text)
    try:
        # What a pod has in common with an app is checked as an app; it stands elsewhere in the pod's JSON.
        common = replace(spec, pod=None, args=("pod",), secrets={}, env_secrets={}, networks=(NetworkSpec(),))
        check_app(common, config)
    except Unprocessable as error:
        for path, texts in error.details.items():
            known = details.setdefault(_PATHS.get(path, path), [])
            known += [text for text in texts if text not in known]
    if details:
        raise Unprocessable("Object is not valid", details)


_PATHS = {
    "/instances": "/scaling/instances",
    "/upgradeStrategy/minimumHealthCapacity": "/scheduling/upgrade/minimumHealthCapacity",
    "/upgradeStrategy/maximumOverCapacity": "/scheduling/upgrade/maximumOverCapacity",
    "/backoffFactor": "/scheduling/backoff/backoffFactor",
    "/backoffSeconds": "/scheduling/backoff/backoff",
    "/maxLaunchDelaySeconds": "/scheduling/backoff/maxLaunchDelay",
    "/acceptedResourceRoles": "/scheduling/placement/acceptedResourceRoles",
    "/unreachableStrategy": "/scheduling/unreachableStrategy",
    "/portDefinitions": "/containers",
}


def _find_faults(pod: PodSpec) -> Iterator[tuple[str, str]]:
    for name, value, least in (("cpus", pod.cpus, 0.01), ("mem", pod.mem_mb, 32.0), ("disk", pod.disk_mb, 1.0)):
        if not least <= value < 1e12:
            yield f"/executorResources/{name}", f"got {value:g}, must be {least:g} or more"
    for index, container in enumerate(pod.containers):
        path = f"/containers({index})"
        for name, value in (("cpus", container.cpus), ("mem", container.mem_mb), ("disk", container.disk_mb)):
            if not 0 <= value < 1e12:
                yield f"{path}/resources/{name}", f"got {value:g}, must be 0 or more and finite"
        if container.cpus <= 0 and container.mem_mb <= 0:
            yield f"{path}/resources", "a container must ask for some cpus or mem"
        image = container.image.image if container.image is not None else ""
        for text in (container.command or "", *container.argv, *container.env.values(), container.user or "", image):
            if "\0" in text:
                yield path, "must not contain a NUL character"
        check = container.check
        if check is not None:
            numbers = (check.grace_s, check.interval_s, check.timeout_s, check.delay_s, check.most_failures)
            if any(not 0 <= value < 1e9 for value in numbers):
                yield f"{path}/healthCheck", "its numbers must be 0 or more"
        if not 0 <= (container.kill_grace_s or 0) < 1e9:
            yield f"{path}/lifecycle/killGracePeriodSeconds", "must be 0 or more"


# Out.


def write_pod(record: AppRecord | VersionRecord) -> dict[str, Json]:
    """The definition with its version."""
    spec = record.spec
    pod = spec.pod
    assert pod is not None, "this is asked of pods"
    out: dict[str, Json] = {
        "id": spec.id,
        "labels": spec.labels,
        "environment": write_environment(spec.env, spec.env_secrets),
        "containers": [write_container(c) for c in pod.containers],
        "secrets": {name: {"source": source} for name, source in spec.secrets.items()},
        "volumes": [
            *({"name": n} if h is None else {"name": n, "host": h} for n, h in pod.volumes.items()),
            *({"name": n, "secret": s} for n, s in pod.secret_volumes.items()),
        ],
        "networks": write_networks(spec.networks),
        "scaling": {"kind": "fixed", "instances": spec.instances},
        "scheduling": _write_scheduling(spec),
        "executorResources": {"cpus": number(pod.cpus), "mem": number(pod.mem_mb), "disk": number(pod.disk_mb)},
        "version": record.version,
    }
    if spec.user is not None:
        out["user"] = spec.user
    if spec.role is not None:
        out["role"] = spec.role
    return out


def _write_scheduling(spec: AppSpec) -> dict[str, Json]:
    return {
        "backoff": {
            "backoff": spec.backoff_s,
            "backoffFactor": number(spec.backoff_factor),
            "maxLaunchDelay": spec.most_backoff_s,
        },
        "upgrade": {
            "minimumHealthCapacity": number(spec.upgrade.minimum_health_capacity),
            "maximumOverCapacity": number(spec.upgrade.maximum_over_capacity),
        },
        "placement": {
            "constraints": [_write_constraint(c) for c in spec.constraints],
            "acceptedResourceRoles": list(spec.accepted_resource_roles),
        },
        "killSelection": spec.kill_selection,
        "unreachableStrategy": write_unreachable(spec.unreachable),
    }


def _write_constraint(constraint: tuple[str, ...]) -> dict[str, Json]:
    out = {"fieldName": constraint[0], "operator": constraint[1]}
    return out if len(constraint) < 3 else {**out, "value": constraint[2]}
