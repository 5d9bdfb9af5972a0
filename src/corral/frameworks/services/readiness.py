"""Readiness checks and plain checks: read, shown, refused where they make no sense, and given to agents.

A readiness check holds a deployment open until an instance has passed it once; it never ends a task. A plain check is
looked at and shown. Source: Marathon's contract, sections 2, 4 and 12.

Deviates: both are probed by the agent of the task, as health checks are, and on after the deployment; of a readiness
check's last answer the status and the words of the probe are kept, not the body.
"""

import re
import shlex
from collections.abc import Iterator
from typing import Any

from msgspec.structs import replace

from corral.frameworks.services.app_spec import (
    AppSpec,
    Network,
    PlainCheck,
    PortDefinition,
    ReadinessCheck,
    Residency,
    TaskLost,
)
from corral.frameworks.services.reader import Reader
from corral.frameworks.services.record_spec import Instance
from corral.frameworks.services.state import App, Phase, task_id_of
from corral.model import health
from corral.model.command import CommandInfo

Json = Any

_SCHEMES = ("HTTP", "HTTPS")


# In and out.


def read_readiness_checks(reader: Reader, field: str) -> ReadinessCheck | None:
    items = list(reader.objects(field))
    if len(items) > 1:
        reader.refuse(field, f"there may be one readiness check, got {len(items)}")
    found = [_read_readiness_check(item) for item in items]
    return found[0] if found else None


def _read_readiness_check(item: Reader) -> ReadinessCheck:
    codes: list[int] = []
    for index, code in enumerate(item.list("httpStatusCodesForReady")):
        if isinstance(code, bool) or not isinstance(code, int):
            item.wrong(f"httpStatusCodesForReady({index})", "a whole number", code)
        else:
            codes.append(code)
    if item.has("httpStatusCodesForReady") and not codes:
        item.refuse("httpStatusCodesForReady", "must name at least one status code")
    found = ReadinessCheck(
        name=item.text("name", "readinessCheck"),
        protocol=item.choice("protocol", "HTTP", _SCHEMES),
        path=item.text("path", "/"),
        port_name=item.text("portName", "http-api"),
        interval_s=item.whole("intervalSeconds", 30),
        timeout_s=item.whole("timeoutSeconds", 10),
        statuses=tuple(dict.fromkeys(codes)) or (200,),
        keeps_last=item.flag("preserveLastResponse", False),
    )
    item.done()
    return found


def write_readiness_check(check: ReadinessCheck) -> dict[str, Json]:
    return {
        "name": check.name,
        "protocol": check.protocol,
        "path": check.path,
        "portName": check.port_name,
        "intervalSeconds": check.interval_s,
        "timeoutSeconds": check.timeout_s,
        "httpStatusCodesForReady": list(check.statuses),
        "preserveLastResponse": check.keeps_last,
    }


def read_check(reader: Reader, field: str) -> PlainCheck | None:
    inner = reader.object(field)
    if inner is None or not inner.fields:
        return None
    kinds = [kind for kind in ("http", "tcp", "exec") if inner.has(kind)]
    if len(kinds) != 1:
        inner.refuse("", f"a check is one of http, tcp and exec, got {', '.join(kinds) or 'none'}")
    values: dict[str, Any] = {}
    for kind in kinds[:1]:
        part = inner.object(kind)
        if part is None:
            continue
        values = _read_exec(part) if kind == "exec" else _read_target(part, kind)
        part.done()
    found = PlainCheck(
        interval_s=inner.whole("intervalSeconds", 60),
        timeout_s=inner.whole("timeoutSeconds", 20),
        delay_s=inner.whole("delaySeconds", 15),
        **values,
    )
    inner.done()
    return found


def _read_exec(part: Reader) -> dict[str, Any]:
    command = part.object("command")
    if command is None:
        part.refuse("command", 'command must be given, as {"shell": "..."} or {"argv": [...]}')
        return {}
    words = command.texts("argv")
    shell = command.text("shell", command.text("value", ""))
    command.done()
    if bool(shell) == bool(words):
        command.refuse("", "a command is given by shell or by argv, not by both or none")
    if words:
        shell = "exec " + shlex.join(words)
    return {"command": shell}


def _read_target(part: Reader, kind: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if part.has("port"):
        values["port"] = part.whole("port", 0)
    else:
        values["port_index"] = part.whole("portIndex", 0)
    if kind == "http":
        values["path"] = part.text("path", "/")
        values["scheme"] = part.choice("scheme", "http", ("http", "https", "HTTP", "HTTPS")).lower()
    return values


def write_check(check: PlainCheck) -> dict[str, Json]:
    out: dict[str, Json] = {
        "intervalSeconds": check.interval_s, "timeoutSeconds": check.timeout_s, "delaySeconds": check.delay_s
    }  # fmt: skip
    if check.command is not None:
        return {"exec": {"command": {"shell": check.command}}, **out}
    at: dict[str, Json] = {"port": check.port} if check.port is not None else {"portIndex": check.port_index or 0}
    if check.path is None:
        return {"tcp": at, **out}
    return {"http": {**at, "path": check.path, "scheme": check.scheme}, **out}


def write_check_result(found: health.CheckStatus) -> dict[str, Json]:
    match found.kind:
        case health.CheckKind.COMMAND:
            return {"command": {} if found.code is None else {"exitCode": found.code}}
        case health.CheckKind.HTTP:
            return {"http": {} if found.code is None else {"statusCode": found.code}}
        case _:
            return {"tcp": {} if found.succeeded is None else {"succeeded": found.succeeded}}


def read_limits(reader: Reader, field: str) -> tuple[tuple[str, float | None], ...]:
    inner = reader.object(field)
    if inner is None:
        return ()
    found: list[tuple[str, float | None]] = []
    for name in ("cpus", "mem"):
        if inner.any(name) == "unlimited":
            found.append((name, None))
        elif inner.has(name):
            found.append((name, inner.number(name, 0.0)))
    inner.done()
    return tuple(found)


def read_residency(reader: Reader, field: str) -> Residency:
    """What makes an app resident is a persistent volume; this says what its loss leads to."""
    inner = reader.object(field)
    assert inner is not None, "it is read when it is there"
    after_s = inner.whole("relaunchEscalationTimeoutSeconds", 3600)
    behaviour = inner.choice("taskLostBehavior", TaskLost.WAIT_FOREVER, list(TaskLost))
    inner.done()
    return Residency(relaunch_after_s=after_s, task_lost=TaskLost(behaviour))


# What is refused.


def find_readiness_faults(spec: AppSpec) -> Iterator[tuple[str, str]]:
    """Paths and words of what is wrong with the app's readiness check, its plain check and its limits."""
    if spec.readiness is not None:
        yield from (("/readinessChecks(0)" + path, text) for path, text in _readiness_faults(spec, spec.readiness))
    if spec.check is not None:
        yield from (("/check" + path, text) for path, text in _check_faults(spec, spec.check))
    for name, value in spec.limits:
        least = spec.cpus if name == "cpus" else spec.mem_mb
        if value is not None and not least <= value < 1e12:
            yield f"/resourceLimits/{name}", f"got {value:g}, must not be below what the app asks for, {least:g}"


def _readiness_faults(spec: AppSpec, check: ReadinessCheck) -> Iterator[tuple[str, str]]:
    names = [port.name for port in spec.ports if port.name is not None]
    if check.port_name not in names:
        yield "/portName", f"no port of the app is named {check.port_name!r}; it has {', '.join(names) or 'no names'}"
    if not check.name:
        yield "/name", "must not be empty"
    if check.interval_s < 1:
        yield "/intervalSeconds", f"got {check.interval_s}, must be 1 or more"
    if not 1 <= check.timeout_s < max(check.interval_s, 2):
        yield "/timeoutSeconds", f"got {check.timeout_s}, must be 1 or more and below the interval, {check.interval_s}"
    for index, status in enumerate(check.statuses):
        if not 100 <= status <= 999:
            yield f"/httpStatusCodesForReady({index})", f"got {status}, must be between 100 and 999"


def _check_faults(spec: AppSpec, check: PlainCheck) -> Iterator[tuple[str, str]]:
    if spec.image is not None:
        yield "", "checks are not for containers with an image; use healthChecks"
    for field, value in (
        ("intervalSeconds", check.interval_s), ("timeoutSeconds", check.timeout_s), ("delaySeconds", check.delay_s)
    ):  # fmt: skip
        if value < 0:
            yield f"/{field}", f"got {value}, must be 0 or more"
    if check.command is not None:
        if "\0" in check.command:
            yield "/exec/command", "the command has a NUL byte"
        return
    kind = "tcp" if check.path is None else "http"
    if check.port is not None and not 0 < check.port < 65536:
        yield f"/{kind}/port", f"got {check.port}, must be between 1 and 65535"
    count = 1 if spec.network is Network.HOST and spec.port_definitions is None else len(spec.ports)
    if check.port is None and not 0 <= (check.port_index or 0) < count:
        yield f"/{kind}/portIndex", f"got {check.port_index}, but the app declares {count} ports; indices start from 0"


# To the agent.


def make_readiness_check(spec: AppSpec, check: ReadinessCheck, host_ports: tuple[int, ...]) -> health.HealthCheck:
    index = next(i for i, port in enumerate(spec.ports) if port.name == check.port_name)
    declared, host_port = spec.ports[index], host_ports[index]
    on_node = bool(host_port) or isinstance(declared, PortDefinition)
    return health.HealthCheck(
        kind=health.CheckKind.HTTP,
        port=host_port if on_node or isinstance(declared, PortDefinition) else declared.container_port,
        scheme=check.protocol.lower(),
        path="/" + check.path.removeprefix("/"),
        statuses=check.statuses,
        delay_s=0.0,
        interval_s=float(check.interval_s),
        timeout_s=float(check.timeout_s),
        grace_s=0.0,
        spares=True,
        on_node=on_node,
        keeps_redirects=True,
    )


def make_check(spec: AppSpec, host_ports: tuple[int, ...]) -> health.HealthCheck | None:
    check = spec.check
    if check is None:
        return None
    common = health.HealthCheck(
        delay_s=float(check.delay_s), interval_s=float(check.interval_s), timeout_s=float(check.timeout_s)
    )
    if check.command is not None:
        return replace(common, kind=health.CheckKind.COMMAND, command=CommandInfo(value=check.command))
    port = check.port if check.port is not None else host_ports[check.port_index or 0]
    if check.path is None:
        return replace(common, kind=health.CheckKind.TCP, port=port)
    path = "/" + check.path.removeprefix("/")
    return replace(common, kind=health.CheckKind.HTTP, port=port, scheme=check.scheme, path=path)


# Shown.


def view_readiness(app: App) -> list[Json]:
    """What the readiness check has shown of each instance that runs the present definition."""
    check = app.spec.readiness
    if check is None:
        return []
    members = [*app.up_to_date[Phase.UNHEALTHY].values(), *app.up_to_date[Phase.RUNNING].values()]
    return [_view_result(check, instance) for instance in members if instance.readiness]


def _view_result(check: ReadinessCheck, instance: Instance) -> Json:
    out: dict[str, Json] = {"name": check.name, "taskId": task_id_of(instance), "ready": instance.ready}
    last = next((r for r in instance.health if r.index >= instance.checks), None)
    if check.keeps_last and last is not None:
        told = re.search(r"it answered (\d+)", last.cause)
        status = check.statuses[0] if last.alive else int(told[1]) if told is not None else None
        if status is not None:
            body = "" if last.alive else last.cause
            out["lastResponse"] = {"status": status, "contentType": "text/plain", "body": body}
    return out
