"""Marathon's JSON in both directions, total: every field is read, refused by name, or reported as unknown.

`read_app` and `read_update` make an `AppSpec` of what clients send, old forms included (`ports`, `uris`,
`docker.network`, `docker.portMappings`, `ipAddress`); `write_app` emits exactly the keys that known clients accept.
Source: Marathon's contract, sections 1 to 4, 17 and 19.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from corral.frameworks.services.spec import (
    AppRecord,
    AppSpec,
    AppUpdate,
    Container,
    Docker,
    Fetch,
    HostVolume,
    Network,
    NetworkSpec,
    PortDefinition,
    PortMapping,
    Unreachable,
    Upgrade,
    VersionRecord,
)
from corral.frameworks.services.validate import canonical_id, parent_id
from corral.lib.errors import Conflict, CorralError, Invalid, Unprocessable
from corral.lib.units import format_timestamp, parse_timestamp
from corral.net.routes import Request, Response, json_response

Json = Any
NOT_VALID = "Object is not valid"
INVALID_JSON = "Invalid JSON"

_ARCHIVES = (".tgz", ".tar.gz", ".tbz2", ".tar.bz2", ".txz", ".tar.xz", ".zip", ".tar")
_SHOWN_ONLY = frozenset(
    {
        "tasks", "tasksStaged", "tasksRunning", "tasksHealthy", "tasksUnhealthy", "deployments", "lastTaskFailure",
        "readinessCheckResults", "taskStats", "versionInfo", "versions",
    }
)  # fmt: skip
"""What a GET adds to an app; a body that was fetched can be sent back, so these are passed over."""


class Reader:
    """Reads one object, remembering every error with its path and every field nobody asked for."""

    __slots__ = ("_asked", "errors", "fields", "path", "refused", "unknown")

    def __init__(
        self,
        value: Json,
        path: str = "",
        errors: dict[str, list[str]] | None = None,
        unknown: list[str] | None = None,
        refused: dict[str, list[str]] | None = None,
    ) -> None:
        self.errors = {} if errors is None else errors
        self.refused = {} if refused is None else refused
        self.unknown = [] if unknown is None else unknown
        self.path = path
        self._asked: set[str] = set()
        self.fields: dict[str, Json] = {}
        if isinstance(value, dict):
            self.fields = {k: v for k, v in value.items() if v is not None}
        else:
            self.wrong("", "an object", value)

    def wrong(self, field: str, wanted: str, found: Json) -> None:
        """The type is wrong."""
        self.errors.setdefault(self._at(field), []).append(f"must be {wanted}, got {_kind(found)}")

    def refuse(self, field: str, text: str) -> None:
        """The type is right and the value is not."""
        self.refused.setdefault(self._at(field), []).append(text)

    def _at(self, field: str) -> str:
        return f"{self.path}/{field}" if field else self.path or "/"

    def has(self, field: str) -> bool:
        self._asked.add(field)
        return field in self.fields

    def any(self, field: str) -> Json:
        self._asked.add(field)
        return self.fields.get(field)

    def text(self, field: str, default: str) -> str:
        value = self.any(field)
        if value is None:
            return default
        if isinstance(value, str):
            return value
        self.wrong(field, "a string", value)
        return default

    def text_or_none(self, field: str) -> str | None:
        return self.text(field, "") if self.has(field) else None

    def choice(self, field: str, default: str, choices: Sequence[str]) -> str:
        value = self.text(field, default)
        if value not in choices:
            self.wrong(field, f"one of {', '.join(choices)}", value)
            return default
        return value

    def whole(self, field: str, default: int) -> int:
        value = self.any(field)
        if value is None:
            return default
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            self.wrong(field, "a whole number", value)
            return default
        if not -(2**31) <= value < 2**31:
            self.wrong(field, "a number of 32 bits", value)
            return default
        return value

    def number(self, field: str, default: float) -> float:
        value = self.any(field)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            self.wrong(field, "a number", value)
            return default
        return float(value)

    def flag(self, field: str, default: bool) -> bool:
        value = self.any(field)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.wrong(field, "true or false", value)
            return default
        return value

    def texts(self, field: str) -> tuple[str, ...]:
        found = []
        for index, value in enumerate(self.list(field)):
            if isinstance(value, str):
                found.append(value)
            else:
                self.wrong(f"{field}({index})", "a string", value)
        return tuple(found)

    def text_map(self, field: str) -> dict[str, str]:
        value = self.any(field)
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.wrong(field, "an object of strings", value)
            return {}
        found = {}
        for key, text in value.items():
            if text is None:
                continue
            if isinstance(text, str):
                found[key] = text
            else:
                self.wrong(f"{field}/{key}", "a string", text)
        return found

    def list(self, field: str) -> Sequence[Json]:
        value = self.any(field)
        if value is None:
            return ()
        if not isinstance(value, list):
            self.wrong(field, "a list", value)
            return ()
        return value

    def object(self, field: str) -> "Reader | None":
        value = self.any(field)
        return None if value is None else self._below(field, value)

    def objects(self, field: str) -> "Iterable[Reader]":
        return [self._below(f"{field}({index})", value) for index, value in enumerate(self.list(field))]

    def _below(self, field: str, value: Json) -> "Reader":
        return Reader(value, self._at(field), self.errors, self.unknown, self.refused)

    def done(self) -> None:
        """Report what nobody asked for."""
        self.unknown.extend(self._at(f) for f in self.fields if f not in self._asked)

    def finish(self) -> None:
        """Errors: `Unprocessable`, for wrong types first, as nothing else can be said then."""
        if self.errors:
            raise Unprocessable(INVALID_JSON, self.errors)
        if self.refused:
            raise Unprocessable(NOT_VALID, self.refused)


def _kind(value: Json) -> str:
    if isinstance(value, str):
        return f"the string {value[:60]!r}"
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "null"
    return f"the number {value:g}" if isinstance(value, (int, float)) else f"a {_JSON_NAMES.get(type(value), 'value')}"


_JSON_NAMES: dict[type, str] = {dict: "object", list: "list"}


def read_json(body: bytes) -> Json:
    """Errors: `Invalid` when the body is no JSON, with the place of the fault."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise Invalid(f"Invalid JSON: {error}") from None


# Apps, inward.


class ReadApp(msgspec.Struct, frozen=True, kw_only=True):
    """Shapes: `given` are the fields of `spec` that the body set; `unknown` the paths that nobody knows."""

    spec: AppSpec
    given: tuple[str, ...]
    unknown: tuple[str, ...] = ()
    to_version: str | None = None


def read_app(value: Json, base: str = "/") -> ReadApp:
    """A whole app. Shapes: a relative id is below `base`.

    Errors: `Unprocessable` with all faults by path; a missing id is one of them.
    """
    reader = Reader(value)
    if not reader.has("id"):
        reader.refuse("id", "id must be given")
    found = _read(reader, base, None)
    reader.finish()
    return found


def read_update(value: Json, app_id: str, *, any_id: bool = False) -> ReadApp:
    """Some fields of the app `app_id`, whose id in the body must be the same unless `any_id`.

    Errors: `Unprocessable` with all faults by path; `version` beside other fields is one of them.
    """
    reader = Reader(value)
    if any_id:
        reader.fields.pop("id", None)
    found = _read(reader, "/", app_id)
    if reader.has("version"):
        others = sorted(set(reader.fields) - {"version", "id"} - _SHOWN_ONLY)
        if others:
            reader.refuse(
                "version",
                f"version goes back to an older definition and must stand alone, found beside it: {', '.join(others)}",
            )
    reader.finish()
    return found


def read_updates(value: Json) -> tuple[tuple[AppUpdate, ...], tuple[str, ...]]:
    """The list of a PUT or PATCH of /v2/apps, and the unknown fields in it."""
    if not isinstance(value, list):
        raise Unprocessable(INVALID_JSON, {"/": [f"must be a list of apps, got {_kind(value)}"]})
    updates: list[AppUpdate] = []
    unknown: list[str] = []
    details: dict[str, list[str]] = {}
    for index, item in enumerate(value):
        try:
            found = read_app(item)
        except Unprocessable as error:
            details.update({f"({index}){path}": texts for path, texts in error.details.items()})
            continue
        unknown += [f"({index}){path}" for path in found.unknown]
        updates.append(AppUpdate(id=found.spec.id, spec=found.spec, given=found.given))
    if details:
        raise Unprocessable(NOT_VALID, details)
    if len({u.id for u in updates}) < len(updates):
        raise Unprocessable(NOT_VALID, {"/": ["an app is named twice in the list"]})
    return tuple(updates), tuple(unknown)


def _read(reader: Reader, base: str, app_id: str | None) -> ReadApp:
    given: dict[str, Any] = {}
    if app_id is None:
        app_id = canonical_id(reader.text("id", ""), base)
    elif reader.has("id"):
        own = reader.text("id", app_id)
        if canonical_id(own, parent_id(app_id)) != app_id and canonical_id(own) != app_id:
            reader.refuse("id", f"id {own!r} differs from {app_id!r} of the path; an app cannot be renamed")
    for field, (name, read) in _SIMPLE.items():
        if reader.has(field):
            given[name] = read(reader, field)
    if reader.has("dependencies"):
        parent = parent_id(app_id)
        paths = dict.fromkeys(canonical_id(d, parent) for d in reader.texts("dependencies"))
        given["dependencies"] = tuple(paths)
    _read_fetch(reader, given)
    _read_container(reader, given)
    _read_networks(reader, given)
    _read_ports(reader, given)
    _read_unsupported(reader)
    for field in _SHOWN_ONLY | {"version", "id"}:
        reader.has(field)
    reader.done()
    spec = AppSpec(id=app_id, **given)
    version = reader.text_or_none("version")
    return ReadApp(spec=spec, given=tuple(sorted(given)), unknown=tuple(reader.unknown), to_version=version)


def _read_constraints(reader: Reader, field: str) -> tuple[tuple[str, ...], ...]:
    found: list[tuple[str, ...]] = []
    for index, item in enumerate(reader.list(field)):
        if not isinstance(item, list) or not all(isinstance(t, (str, int)) for t in item):
            reader.wrong(f"{field}({index})", "a list of two or three strings", item)
            continue
        texts = [str(t) for t in item]
        if len(texts) > 1:
            texts[1] = texts[1].upper()
        found.append(tuple(texts))
    return tuple(found)


def _read_env(reader: Reader, field: str) -> dict[str, str]:
    value = reader.any(field)
    if isinstance(value, dict):
        for name, text in value.items():
            if isinstance(text, dict):
                reader.refuse(
                    f"{field}/{name}", "secrets are not supported by this release; give the value as a string"
                )
                return {}
            if not name:
                reader.refuse(field, "names of variables must not be empty")
    return reader.text_map(field)


def _read_upgrade(reader: Reader, field: str) -> Upgrade:
    inner = reader.object(field)
    assert inner is not None
    found = Upgrade(
        minimum_health_capacity=inner.number("minimumHealthCapacity", 1.0),
        maximum_over_capacity=inner.number("maximumOverCapacity", 1.0),
    )
    inner.done()
    return found


def _read_unreachable(reader: Reader, field: str) -> Unreachable | None:
    value = reader.any(field)
    if value == "disabled":
        return None
    if not isinstance(value, dict):
        reader.wrong(field, '"disabled" or an object', value)
        return Unreachable()
    inner = reader.object(field)
    assert inner is not None
    inactive = inner.whole("unreachableInactiveAfterSeconds", 0)
    expunge = inner.whole("unreachableExpungeAfterSeconds", 0)
    found = Unreachable(
        inactive_after_s=inner.whole("inactiveAfterSeconds", inactive),
        expunge_after_s=inner.whole("expungeAfterSeconds", expunge),
    )
    inner.done()
    return found


def _read_kill_selection(reader: Reader, field: str) -> str:
    return reader.choice(field, "YOUNGEST_FIRST", ("YOUNGEST_FIRST", "OLDEST_FIRST"))


def _read_roles(reader: Reader, field: str) -> tuple[str, ...]:
    roles = reader.texts(field)
    if not roles:
        reader.refuse(field, "must not be empty")
    return roles


def _read_executor(reader: Reader, field: str) -> str:
    value = reader.text(field, "")
    if value not in ("", "//cmd"):
        reader.refuse(field, f"custom executors are not supported by this release, got {value!r}; leave executor out")
    return value


_Read = Callable[[Reader, str], Any]

_SIMPLE: Mapping[str, tuple[str, _Read]] = {
    "cmd": ("cmd", lambda r, f: r.text(f, "")),
    "args": ("args", Reader.texts),
    "user": ("user", lambda r, f: r.text(f, "")),
    "env": ("env", _read_env),
    "instances": ("instances", lambda r, f: r.whole(f, 1)),
    "cpus": ("cpus", lambda r, f: r.number(f, 1.0)),
    "mem": ("mem_mb", lambda r, f: r.number(f, 128.0)),
    "disk": ("disk_mb", lambda r, f: r.number(f, 0.0)),
    "executor": ("executor", _read_executor),
    "constraints": ("constraints", _read_constraints),
    "labels": ("labels", Reader.text_map),
    "requirePorts": ("require_ports", lambda r, f: r.flag(f, False)),
    "upgradeStrategy": ("upgrade", _read_upgrade),
    "backoffSeconds": ("backoff_s", lambda r, f: r.whole(f, 1)),
    "backoffFactor": ("backoff_factor", lambda r, f: r.number(f, 1.15)),
    "maxLaunchDelaySeconds": ("most_backoff_s", lambda r, f: r.whole(f, 300)),
    "taskKillGracePeriodSeconds": ("kill_grace_s", lambda r, f: r.whole(f, 0)),
    "killSelection": ("kill_selection", _read_kill_selection),
    "unreachableStrategy": ("unreachable", _read_unreachable),
    "acceptedResourceRoles": ("accepted_resource_roles", _read_roles),
    "role": ("role", lambda r, f: r.text(f, "")),
}


def _read_fetch(reader: Reader, given: dict[str, Any]) -> None:
    if reader.has("fetch"):
        given["fetch"] = tuple(_read_artifact(item) for item in reader.objects("fetch"))
    if reader.has("uris"):
        uris = reader.texts("uris")
        if reader.fields.get("fetch") and uris:
            reader.refuse("uris", "uris and fetch say the same; give one of them")
        elif uris or "fetch" not in given:
            given["fetch"] = tuple(Fetch(uri=u, extract=u.lower().endswith(_ARCHIVES)) for u in uris)
    for index, artifact in enumerate(given.get("fetch", ())):
        if not 1 <= len(artifact.uri) <= 1024 or re.search(r"\s", artifact.uri):
            reader.refuse(f"fetch({index})/uri", f"{artifact.uri[:60]!r} is no URI of 1 to 1024 characters")


def _read_artifact(item: Reader) -> Fetch:
    if not item.has("uri"):
        item.refuse("uri", "uri must be given")
    found = Fetch(
        uri=item.text("uri", ""),
        extract=item.flag("extract", True),
        executable=item.flag("executable", False),
        cache=item.flag("cache", False),
        dest_path=item.text_or_none("destPath"),
    )
    item.done()
    return found


def _read_container(reader: Reader, given: dict[str, Any]) -> None:
    outer = reader.object("container")
    if outer is None:
        return
    kind = outer.choice("type", "DOCKER", ("DOCKER", "MESOS"))
    docker, old_mappings = _read_docker(outer)
    mappings: tuple[PortMapping, ...] | None = None
    if outer.has("portMappings"):
        mappings = tuple(_read_mapping(m) for m in outer.objects("portMappings"))
        if old_mappings:
            outer.refuse(
                "docker/portMappings", "portMappings stand in container and in container.docker; keep the first"
            )
    elif old_mappings is not None:
        mappings = old_mappings or None
    if outer.has("linuxInfo"):
        outer.refuse("linuxInfo", "linuxInfo is not supported by this release; leave it out")
    volumes = tuple(v for item in outer.objects("volumes") if (v := _read_volume(item)) is not None)
    outer.done()
    given["container"] = Container(kind=kind, docker=docker, volumes=volumes, port_mappings=mappings)


def _read_docker(outer: Reader) -> tuple[Docker | None, tuple[PortMapping, ...] | None]:
    inner = outer.object("docker")
    if inner is None:
        return None, None
    image = inner.text("image", "")
    if not image:
        inner.refuse("image", "image must be given")
    for field in ("credential", "pullConfig"):
        if inner.has(field):
            inner.refuse(field, f"{field} is not supported by this release; log the agent's Engine in instead")
    inner.has("network")
    parameters = []
    for item in inner.objects("parameters"):
        key = item.text("key", "")
        if not key:
            item.refuse("key", "key must not be empty")
        parameters.append((key, item.text("value", "")))
        item.done()
    mappings = tuple(_read_mapping(m) for m in inner.objects("portMappings")) if inner.has("portMappings") else None
    docker = Docker(
        image=image,
        force_pull_image=inner.flag("forcePullImage", False),
        privileged=inner.flag("privileged", False),
        parameters=tuple(parameters),
    )
    inner.done()
    return docker, mappings


def _read_mapping(item: Reader) -> PortMapping:
    found = PortMapping(
        container_port=item.whole("containerPort", 0),
        host_port=item.whole("hostPort", 0) if item.has("hostPort") else None,
        service_port=item.whole("servicePort", 0),
        protocol=item.text("protocol", "tcp"),
        name=item.text_or_none("name"),
        labels=item.text_map("labels"),
        network_names=item.texts("networkNames"),
    )
    item.done()
    return found


def _read_volume(item: Reader) -> HostVolume | None:
    kinds = [k for k in ("hostPath", "persistent", "external", "secret") if item.has(k)]
    path = item.text("containerPath", "")
    if not path:
        item.refuse("containerPath", "containerPath must be given")
    for kind in kinds:
        if kind != "hostPath":
            item.refuse(kind, f"{kind} volumes are not supported by this release; use a hostPath volume")
            return None
    if kinds != ["hostPath"]:
        item.refuse("", "a volume must be of one kind; give hostPath")
        return None
    if not item.has("mode"):
        item.refuse("mode", "mode must be given: RO or RW")
    found = HostVolume(
        container_path=path, host_path=item.text("hostPath", ""), mode=item.choice("mode", "RW", ("RO", "RW"))
    )
    if not found.host_path:
        item.refuse("hostPath", "hostPath must not be empty")
    item.done()
    return found


_OLD_NETWORKS = {"HOST": Network.HOST, "BRIDGE": Network.BRIDGE, "USER": Network.CONTAINER}


def _read_networks(reader: Reader, given: dict[str, Any]) -> None:
    """`networks`, or what older forms said instead: `docker.network`, `ipAddress`."""
    old = _old_network(reader)
    address = reader.object("ipAddress")
    name = None
    if address is not None:
        name = address.text_or_none("networkName")
        address.has("groups")
        labels = address.text_map("labels")
        discovery = address.object("discovery")
        if discovery is not None and discovery.list("ports"):
            _move_discovery(discovery, given)
        address.done()
    if reader.has("networks"):
        if old is not None or address is not None:
            reader.refuse(
                "networks", "networks stands beside docker.network or ipAddress, its older forms; keep networks"
            )
        given["networks"] = tuple(_read_network(n) for n in reader.objects("networks")) or (NetworkSpec(),)
    elif address is not None:
        given["networks"] = (NetworkSpec(mode=Network.CONTAINER, name=name, labels=labels),)
    elif old is not None:
        given["networks"] = (NetworkSpec(mode=old),)


def _old_network(reader: Reader) -> Network | None:
    container = reader.fields.get("container")
    docker = container.get("docker") if isinstance(container, dict) else None
    value = docker.get("network") if isinstance(docker, dict) else None
    if value is None:
        return None
    if value not in _OLD_NETWORKS:
        reader.refuse("container/docker/network", f"got {value!r}, must be HOST, BRIDGE or USER")
        return None
    return _OLD_NETWORKS[value]


def _move_discovery(discovery: Reader, given: dict[str, Any]) -> None:
    """The ports of `ipAddress.discovery` become mappings of the container."""
    mappings = []
    for item in discovery.objects("ports"):
        mappings.append(
            PortMapping(
                container_port=item.whole("number", 0),
                protocol=item.text("protocol", "tcp"),
                name=item.text_or_none("name"),
                labels=item.text_map("labels"),
            )
        )
        item.done()
    discovery.done()
    container = given.get("container")
    if container is not None and container.port_mappings is None:
        given["container"] = msgspec.structs.replace(container, port_mappings=tuple(mappings))


def _read_network(item: Reader) -> NetworkSpec:
    found = NetworkSpec(
        mode=Network(item.choice("mode", Network.CONTAINER, [str(m) for m in Network])),
        name=item.text_or_none("name"),
        labels=item.text_map("labels"),
    )
    item.done()
    return found


def _read_ports(reader: Reader, given: dict[str, Any]) -> None:
    """`portDefinitions`, or the older `ports`; both only when they say the same."""
    if reader.has("portDefinitions"):
        given["port_definitions"] = tuple(_read_definition(p) for p in reader.objects("portDefinitions"))
    if not reader.has("ports"):
        return
    numbers = []
    for index, value in enumerate(reader.list("ports")):
        if isinstance(value, bool) or not isinstance(value, int):
            reader.wrong(f"ports({index})", "a whole number", value)
        else:
            numbers.append(value)
    definitions = given.get("port_definitions")
    if definitions is None:
        given["port_definitions"] = tuple(PortDefinition(port=n) for n in numbers)
    elif numbers and [d.port for d in definitions] != numbers:
        reader.refuse("ports", "ports differ from portDefinitions; drop ports, the older form")


def _read_definition(item: Reader) -> PortDefinition:
    found = PortDefinition(
        port=item.whole("port", 0),
        protocol=item.text("protocol", "tcp"),
        name=item.text_or_none("name"),
        labels=item.text_map("labels"),
    )
    item.done()
    return found


_UNSUPPORTED = {
    "healthChecks": "health checks",
    "readinessChecks": "readiness checks",
    "check": "checks",
    "secrets": "secrets",
    "residency": "residency (persistent volumes)",
    "gpus": "GPUs",
    "executorResources": "resources of custom executors",
    "resourceLimits": "resource limits",
    "tty": "terminals of tasks",
    "taskRateLimit": "task rate limits",
    "storeUrls": "store URLs",
}


def _read_unsupported(reader: Reader) -> None:
    """What a later release will do: said now, never taken and passed over. Empty forms ask for nothing."""
    for field, words in _UNSUPPORTED.items():
        if reader.any(field) not in (None, [], {}, 0, False, ""):
            reader.refuse(field, f"{words} are not supported by this release; leave {field} out")


# Apps, outward.


def number(value: float) -> float | int:
    """Whole numbers without a fraction, as they were written."""
    return int(value) if value == int(value) else value


def write_app(spec: AppSpec) -> dict[str, Json]:
    """The definition alone; optional fields that are unset are left out."""
    out: dict[str, Json] = {
        "id": spec.id,
        "backoffFactor": number(spec.backoff_factor),
        "backoffSeconds": spec.backoff_s,
        "constraints": [list(c) for c in spec.constraints],
        "cpus": number(spec.cpus),
        "dependencies": list(spec.dependencies),
        "disk": number(spec.disk_mb),
        "env": spec.env,
        "executor": spec.executor,
        "fetch": [_write_fetch(f) for f in spec.fetch],
        "gpus": 0,
        "healthChecks": [],
        "instances": spec.instances,
        "killSelection": spec.kill_selection,
        "labels": spec.labels,
        "maxLaunchDelaySeconds": spec.most_backoff_s,
        "mem": number(spec.mem_mb),
        "networks": [_write_network(n) for n in spec.networks],
        "readinessChecks": [],
        "requirePorts": spec.require_ports,
        "unreachableStrategy": _write_unreachable(spec.unreachable),
        "upgradeStrategy": {
            "minimumHealthCapacity": number(spec.upgrade.minimum_health_capacity),
            "maximumOverCapacity": number(spec.upgrade.maximum_over_capacity),
        },
    }
    if spec.cmd is not None:
        out["cmd"] = spec.cmd
    if spec.args:
        out["args"] = list(spec.args)
    if spec.user is not None:
        out["user"] = spec.user
    if spec.container is not None:
        out["container"] = _write_container(spec.container)
    if spec.network is Network.HOST:
        out["portDefinitions"] = [_write_definition(p) for p in spec.port_definitions or ()]
    if spec.kill_grace_s is not None:
        out["taskKillGracePeriodSeconds"] = spec.kill_grace_s
    if spec.accepted_resource_roles:
        out["acceptedResourceRoles"] = list(spec.accepted_resource_roles)
    if spec.role is not None:
        out["role"] = spec.role
    return out


def write_versioned(record: AppRecord | VersionRecord) -> dict[str, Json]:
    """The definition with its version, as every answer shows it."""
    out = write_app(record.spec)
    out["version"] = record.version
    out["versionInfo"] = {"lastScalingAt": record.scaled_at, "lastConfigChangeAt": record.configured_at}
    return out


def _write_fetch(fetch: Fetch) -> Json:
    out: dict[str, Json] = {
        "uri": fetch.uri,
        "extract": fetch.extract,
        "executable": fetch.executable,
        "cache": fetch.cache,
    }
    return out if fetch.dest_path is None else {**out, "destPath": fetch.dest_path}


def _write_network(network: NetworkSpec) -> Json:
    out: dict[str, Json] = {"mode": str(network.mode)}
    if network.name is not None:
        out["name"] = network.name
    if network.labels:
        out["labels"] = network.labels
    return out


def _write_unreachable(strategy: Unreachable | None) -> Json:
    if strategy is None:
        return "disabled"
    return {
        "inactiveAfterSeconds": strategy.inactive_after_s,
        "expungeAfterSeconds": strategy.expunge_after_s,
    }


def _write_definition(port: PortDefinition) -> Json:
    out: dict[str, Json] = {"port": port.port, "protocol": port.protocol, "labels": port.labels}
    return out if port.name is None else {**out, "name": port.name}


def _write_mapping(port: PortMapping) -> Json:
    out: dict[str, Json] = {
        "containerPort": port.container_port,
        "servicePort": port.service_port,
        "protocol": port.protocol,
        "labels": port.labels,
    }
    if port.host_port is not None:
        out["hostPort"] = port.host_port
    if port.name is not None:
        out["name"] = port.name
    if port.network_names:
        out["networkNames"] = list(port.network_names)
    return out


def _write_container(container: Container) -> Json:
    out: dict[str, Json] = {
        "type": container.kind,
        "volumes": [
            {"containerPath": v.container_path, "hostPath": v.host_path, "mode": v.mode} for v in container.volumes
        ],
    }
    if container.docker is not None:
        out["docker"] = {
            "image": container.docker.image,
            "forcePullImage": container.docker.force_pull_image,
            "privileged": container.docker.privileged,
            "parameters": [{"key": k, "value": v} for k, v in container.docker.parameters],
        }
    if container.port_mappings is not None:
        out["portMappings"] = [_write_mapping(m) for m in container.port_mappings]
    return out


# Other bodies.


def read_version(text: str) -> str:
    """A version as it is kept. Errors: `Unprocessable` when it is no timestamp."""
    try:
        return format_timestamp(parse_timestamp(text))
    except (Invalid, OverflowError, OSError):
        raise Unprocessable(f"version {text!r} is not a timestamp of the form 2026-01-31T12:00:00.000Z") from None


_TASK_ID = re.compile(
    r"(?P<instance>(?P<app>.+)\.(?:instance-|marathon-)(?P<uuid>[^.]+))(?:\._?[a-z][a-z0-9-]*)?(?:\.(?P<incarnation>\d+))?"
)
_OLD_TASK_ID = re.compile(r"(?P<app>.+)[._](?P<uuid>[0-9a-f]{8}-[0-9a-f-]{27})(?:\.\d+)?")


class TaskName(msgspec.Struct, frozen=True):
    """Shapes: `incarnation` None when the id names an instance, or is of an older form."""

    app: str
    instance: str
    incarnation: int | None = None


def read_task_id(text: str) -> TaskName | None:
    """What a task or instance id names; None when it is of no known form."""
    match = _TASK_ID.fullmatch(text)
    if match is not None:
        incarnation = match["incarnation"]
        return TaskName(
            "/" + match["app"].replace("_", "/"), match["instance"], int(incarnation) if incarnation else None
        )
    old = _OLD_TASK_ID.fullmatch(text)
    return None if old is None else TaskName("/" + old["app"].replace("_", "/"), text)


def read_task_ids(value: Json) -> tuple[TaskName, ...]:
    """The body of POST /v2/tasks/delete. Errors: `Invalid` naming the id that is malformed."""
    reader = Reader(value)
    ids = reader.texts("ids")
    reader.finish()
    found = []
    for text in ids:
        name = read_task_id(text)
        if name is None:
            raise Invalid(f"task id {text!r} is malformed; ids look like web.instance-UUID._app.1")
        found.append(name)
    return tuple(found)


# Errors.


def write_error(error: CorralError, request: Request) -> Response:
    """Marathon's form: a message, the faults by path, the deployments that hold a lock."""
    body: dict[str, Json] = {"message": error.message}
    if isinstance(error, Unprocessable) and error.details:
        body["details"] = [{"path": path, "errors": texts} for path, texts in error.details.items()]
    if isinstance(error, Conflict) and error.blockers:
        body["deployments"] = [{"id": blocker} for blocker in error.blockers]
    return json_response(body, status=error.status)


# Label selectors.

_LABEL_TEXT = r"(?:[-A-Za-z0-9_.]|\\.)+"
_SELECTOR = re.compile(
    rf"\s*(?P<key>{_LABEL_TEXT})\s*"
    rf"(?:(?P<op>==|!=)\s*(?P<value>{_LABEL_TEXT})"
    rf"|(?P<set>in|notin)\s*\(\s*(?P<values>{_LABEL_TEXT}(?:\s*,\s*{_LABEL_TEXT})*)\s*\))?\s*"
)


def read_selector(text: str) -> Callable[[Mapping[str, str]], bool]:
    """A predicate over labels. Errors: `Unprocessable` with the place where the selector stops making sense."""
    tests: list[Callable[[Mapping[str, str]], bool]] = []
    at = 0
    while True:
        match = _SELECTOR.match(text, at)
        if match is None or (match.end() < len(text) and text[match.end()] != ","):
            end = at if match is None else match.end()
            raise Unprocessable(
                f"label selector {text!r} makes no sense at character {end}; "
                "write key, key==value, key!=value, key in (a,b) or key notin (a,b), joined by commas"
            )
        tests.append(_selector_test(match))
        if match.end() >= len(text):
            return lambda labels: all(test(labels) for test in tests)
        at = match.end() + 1


def _selector_test(match: re.Match[str]) -> Callable[[Mapping[str, str]], bool]:
    key = _unescape(match["key"])
    if match["op"] is not None:
        value = _unescape(match["value"])
        if match["op"] == "==":
            return lambda labels: labels.get(key) == value
        return lambda labels: key in labels and labels[key] != value
    if match["set"] is not None:
        values = {_unescape(v.strip()) for v in re.split(r"(?<!\\),", match["values"])}
        if match["set"] == "in":
            return lambda labels: labels.get(key) in values
        return lambda labels: key in labels and labels[key] not in values
    return lambda labels: key in labels


def _unescape(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)
