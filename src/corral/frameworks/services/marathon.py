"""Marathon's JSON inward, total: every field is read, refused by name, or reported as unknown.

`read_app` and `read_update` make an `AppSpec` of what clients send, old forms included (`uris`, `docker.portMappings`);
networks and ports are in `network_dialect.py`, the way back is `shown.py:write_app`.
Source: Marathon's contract, sections 1 to 4, 17 and 19.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from corral.frameworks.services.app_spec import (
    AppSpec,
    Container,
    Docker,
    ExternalVolume,
    Fetch,
    HostVolume,
    PersistentVolume,
    PortMapping,
    SecretVolume,
    Unreachable,
    Upgrade,
)
from corral.frameworks.services.checks import read_health_checks
from corral.frameworks.services.command_spec import AppUpdate
from corral.frameworks.services.external import read_external
from corral.frameworks.services.linux import read_linux
from corral.frameworks.services.network_dialect import read_networks, read_ports
from corral.frameworks.services.reader import INVALID_JSON, NOT_VALID, Json, Reader, kind_of
from corral.frameworks.services.readiness import read_check, read_limits, read_readiness_checks, read_residency
from corral.frameworks.services.secrets import read_env, read_secrets
from corral.frameworks.services.validate import LEAST_OF_EXECUTORS, canonical_id, parent_id
from corral.lib.errors import Conflict, CorralError, Unprocessable
from corral.net.routes import Request, Response, json_response

_ARCHIVES = (".tgz", ".tar.gz", ".tbz2", ".tar.bz2", ".txz", ".tar.xz", ".zip", ".tar")
_SHOWN_ONLY = frozenset(
    {
        "tasks", "tasksStaged", "tasksRunning", "tasksHealthy", "tasksUnhealthy", "deployments", "lastTaskFailure",
        "readinessCheckResults", "taskStats", "versionInfo", "versions",
    }
)  # fmt: skip
"""What a GET adds to an app; a body that was fetched can be sent back, so these are passed over."""


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
    found = read_app_in(reader, base)
    reader.finish()
    return found


def read_app_in(reader: Reader, base: str) -> ReadApp:
    """An app inside something larger, whose reader tells its faults."""
    if not reader.has("id"):
        reader.refuse("id", "id must be given")
    return _read(reader, base, None)


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
        raise Unprocessable(INVALID_JSON, {"/": [f"must be a list of apps, got {kind_of(value)}"]})
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
    read_env(reader, given)
    read_secrets(reader, given)
    _read_fetch(reader, given)
    _read_container(reader, given)
    read_networks(reader, given)
    read_ports(reader, given)
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


def _read_upgrade(reader: Reader, field: str) -> Upgrade:
    inner = reader.object(field)
    assert inner is not None
    found = Upgrade(
        minimum_health_capacity=inner.number("minimumHealthCapacity", 1.0),
        maximum_over_capacity=inner.number("maximumOverCapacity", 1.0),
    )
    inner.done()
    return found


def read_unreachable(reader: Reader, field: str) -> Unreachable | None:
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


_OLD_SELECTIONS = {"YoungestFirst": "YOUNGEST_FIRST", "OldestFirst": "OLDEST_FIRST"}
"""As the documentation of Marathon 1.4 has them."""


def _read_kill_selection(reader: Reader, field: str) -> str:
    value = reader.any(field)
    if isinstance(value, str) and value in _OLD_SELECTIONS:
        return _OLD_SELECTIONS[value]
    return reader.choice(field, "YOUNGEST_FIRST", ("YOUNGEST_FIRST", "OLDEST_FIRST"))


def read_roles(reader: Reader, field: str) -> tuple[str, ...]:
    roles = reader.texts(field)
    if not roles:
        reader.refuse(field, "must not be empty")
    return roles


def _read_executor(reader: Reader, field: str) -> str:
    value = reader.text(field, "")
    if value not in ("", "//cmd"):
        reader.refuse(field, f"custom executors are not supported by this release, got {value!r}; leave executor out")
    return value


def _read_executor_resources(reader: Reader, field: str) -> dict[str, float]:
    inner = reader.object(field)
    assert inner is not None, "it is read when it is there"
    found = {name: inner.number(name, least) for name, least in LEAST_OF_EXECUTORS.items() if inner.has(name)}
    inner.done()
    return found


_Read = Callable[[Reader, str], Any]

_SIMPLE: Mapping[str, tuple[str, _Read]] = {
    "cmd": ("cmd", lambda r, f: r.text(f, "")),
    "args": ("args", Reader.texts),
    "user": ("user", lambda r, f: r.text(f, "")),
    "instances": ("instances", lambda r, f: r.whole(f, 1)),
    "cpus": ("cpus", lambda r, f: r.number(f, 1.0)),
    "mem": ("mem_mb", lambda r, f: r.number(f, 128.0)),
    "disk": ("disk_mb", lambda r, f: r.number(f, 0.0)),
    "executor": ("executor", _read_executor),
    "constraints": ("constraints", _read_constraints),
    "healthChecks": ("health_checks", read_health_checks),
    "labels": ("labels", Reader.text_map),
    "requirePorts": ("require_ports", lambda r, f: r.flag(f, False)),
    "upgradeStrategy": ("upgrade", _read_upgrade),
    "backoffSeconds": ("backoff_s", lambda r, f: r.whole(f, 1)),
    "backoffFactor": ("backoff_factor", lambda r, f: r.number(f, 1.15)),
    "maxLaunchDelaySeconds": ("most_backoff_s", lambda r, f: r.whole(f, 300)),
    "taskKillGracePeriodSeconds": ("kill_grace_s", lambda r, f: r.whole(f, 0)),
    "killSelection": ("kill_selection", _read_kill_selection),
    "unreachableStrategy": ("unreachable", read_unreachable),
    "acceptedResourceRoles": ("accepted_resource_roles", read_roles),
    "role": ("role", lambda r, f: r.text(f, "")),
    "readinessChecks": ("readiness", read_readiness_checks),
    "check": ("check", read_check),
    "resourceLimits": ("limits", read_limits),
    "residency": ("residency", read_residency),
    "gpus": ("gpus", lambda r, f: r.whole(f, 0)),
    "executorResources": ("executor_resources", _read_executor_resources),
}


_READ_APART = {
    "id": "id",
    "container": "container",
    "networks": "networks",
    "portDefinitions": "port_definitions",
    "fetch": "fetch",
    "dependencies": "dependencies",
    "env": "env",
    "secrets": "secrets",
}

FIELDS: Mapping[str, str] = {
    "env_secrets": "env",
    **{name: field for field, name in _READ_APART.items()},
    **{name: field for field, (name, _) in _SIMPLE.items()},
}
"""Fields of an `AppSpec` to the fields of the JSON that set them."""


def _read_fetch(reader: Reader, given: dict[str, Any]) -> None:
    if reader.has("fetch"):
        given["fetch"] = tuple(read_artifact(item) for item in reader.objects("fetch"))
    if reader.has("uris"):
        uris = reader.texts("uris")
        if reader.fields.get("fetch") and uris:
            reader.refuse("uris", "uris and fetch say the same; give one of them")
        elif uris or "fetch" not in given:
            given["fetch"] = tuple(Fetch(uri=u, extract=u.lower().endswith(_ARCHIVES)) for u in uris)
    for index, artifact in enumerate(given.get("fetch", ())):
        if not 1 <= len(artifact.uri) <= 1024 or re.search(r"\s", artifact.uri):
            reader.refuse(f"fetch({index})/uri", f"{artifact.uri[:60]!r} is no URI of 1 to 1024 characters")


def read_artifact(item: Reader) -> Fetch:
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
    # Files that only name volumes leave the type out; those with an image mean Docker.
    kind = outer.choice("type", "DOCKER" if outer.has("docker") else "MESOS", ("DOCKER", "MESOS"))
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
    linux = read_linux(outer)
    found = [v for item in outer.objects("volumes") if (v := _read_volume(item)) is not None]
    outer.done()
    given["container"] = Container(
        kind=kind,
        docker=docker,
        volumes=tuple(v for v in found if isinstance(v, HostVolume)),
        secret_volumes=tuple(v for v in found if isinstance(v, SecretVolume)),
        persistent_volumes=tuple(v for v in found if isinstance(v, PersistentVolume)),
        external_volumes=tuple(v for v in found if isinstance(v, ExternalVolume)),
        port_mappings=mappings,
        linux=linux,
    )


def _read_docker(outer: Reader) -> tuple[Docker | None, tuple[PortMapping, ...] | None]:
    inner = outer.object("docker")
    if inner is None:
        return None, None
    image = inner.text("image", "")
    if not image:
        inner.refuse("image", "image must be given")
    if inner.has("credential"):
        inner.refuse(
            "credential", "credential is gone since Marathon 1.5; put the credentials into a secret, as pullConfig"
        )
    config = inner.object("pullConfig")
    pull_config = None
    if config is not None:
        pull_config = config.text("secret", "")
        config.done()
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
        pull_config=pull_config,
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


def _read_volume(item: Reader) -> HostVolume | SecretVolume | PersistentVolume | ExternalVolume | None:
    kinds = [k for k in ("hostPath", "persistent", "external", "secret") if item.has(k)]
    path = item.text("containerPath", "")
    if not path:
        item.refuse("containerPath", "containerPath must be given")
    if kinds == ["secret"]:
        secret = SecretVolume(container_path=path, secret=item.text("secret", ""))
        item.has("mode")
        item.done()
        return secret
    if kinds == ["persistent"]:
        return _read_persistent(item, path)
    if kinds == ["external"]:
        return read_external(item, path)
    if kinds != ["hostPath"]:
        item.refuse("", "a volume must be of one kind; give hostPath, persistent, external or secret")
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


def _read_persistent(item: Reader, path: str) -> PersistentVolume | None:
    inner = item.object("persistent")
    if item.text("mode", "RW") != "RW":
        item.refuse("mode", "a persistent volume is written to; mode must be RW")
    item.done()
    if inner is None:
        return None
    kind = inner.choice("type", "root", ("root", "path", "mount"))
    if not inner.has("size"):
        inner.refuse("size", "size must be given, in MiB")
    found = PersistentVolume(
        container_path=path,
        size_mb=inner.whole("size", 1),
        constraints=_read_constraints(inner, "constraints"),
        profile_name=inner.text_or_none("profileName"),
        kind=kind,
        most_mb=inner.whole("maxSize", 0) if inner.has("maxSize") else None,
    )
    inner.done()
    return found


_UNSUPPORTED = {"tty": "terminals of tasks"}


def _read_unsupported(reader: Reader) -> None:
    """What a later release will do: said now, never taken and passed over. Empty forms ask for nothing."""
    for field, words in _UNSUPPORTED.items():
        if reader.any(field) not in (None, [], {}, 0, False, ""):
            reader.refuse(field, f"{words} are not supported by this release; leave {field} out")


# Errors.


def write_error(error: CorralError, request: Request) -> Response:
    """Marathon's form: a message, the faults by path, the deployments that hold a lock."""
    body: dict[str, Json] = {"message": error.message}
    if isinstance(error, Unprocessable) and error.details:
        body["details"] = [{"path": path, "errors": texts} for path, texts in error.details.items()]
    if isinstance(error, Conflict) and error.blockers:
        body["deployments"] = [{"id": blocker} for blocker in error.blockers]
    return json_response(body, status=error.status)
