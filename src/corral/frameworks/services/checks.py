"""Marathon's health checks: read, shown, refused where they make no sense, and given to the agents that probe them.

Source: Marathon's contract, sections 4 and 12.

Deviates: every check is probed by the agent of its task, also those that Marathon probes from its leader; several
COMMAND checks are allowed; a MESOS_* check that has no port is refused instead of never being probed.
"""

from collections.abc import Iterator
from typing import Any

from msgspec.structs import replace

from corral.frameworks.services.app_spec import AppSpec, HealthCheck, Network, PortDefinition, Protocol
from corral.frameworks.services.reader import Reader
from corral.frameworks.services.record_spec import Instance
from corral.lib.units import format_timestamp
from corral.model import health
from corral.model.command import CommandInfo

Json = Any

_HTTP = frozenset({Protocol.HTTP, Protocol.HTTPS, Protocol.MESOS_HTTP, Protocol.MESOS_HTTPS})
_TLS = frozenset({Protocol.HTTPS, Protocol.MESOS_HTTPS})
_FROM_THE_NODE = frozenset({Protocol.HTTP, Protocol.HTTPS, Protocol.TCP})
"""Those that Marathon itself would probe, which sees a task from outside."""
_MESOS = frozenset({Protocol.MESOS_HTTP, Protocol.MESOS_HTTPS, Protocol.MESOS_TCP})
_MOST_DELAY_S = 5.0


# In and out.


def read_health_checks(reader: Reader, field: str) -> tuple[HealthCheck, ...]:
    return tuple(_read_check(item) for item in reader.objects(field))


def _read_check(item: Reader) -> HealthCheck:
    protocol = Protocol(item.choice("protocol", Protocol.HTTP, [str(p) for p in Protocol]))
    command = _read_command(item)
    port = item.whole("port", 0) if item.has("port") else None
    index = item.whole("portIndex", 0) if item.has("portIndex") else None
    if port is None and index is None and protocol is not Protocol.COMMAND:
        index = 0
    if item.choice("ipProtocol", "IPv4", ("IPv4", "IPv6")) == "IPv6":
        if protocol in _MESOS:
            item.refuse("ipProtocol", "IPv6 is not supported by this release; leave ipProtocol out")
        else:
            item.refuse("ipProtocol", f"IPv6 can be had for protocols MESOS_* only, got {protocol}")
    found = HealthCheck(
        protocol=protocol,
        path=item.text("path", "/"),
        port=port,
        port_index=index,
        command=command,
        grace_s=item.whole("gracePeriodSeconds", 300),
        interval_s=item.whole("intervalSeconds", 60),
        timeout_s=item.whole("timeoutSeconds", 20),
        most_failures=item.whole("maxConsecutiveFailures", 3),
        ignore_1xx=item.flag("ignoreHttp1xx", False),
        delay_s=item.whole("delaySeconds", 15),
    )
    item.done()
    return found


def _read_command(item: Reader) -> str | None:
    """A plain text is the older form."""
    if not isinstance(item.any("command"), dict):
        return item.text_or_none("command")
    inner = item.object("command")
    assert inner is not None
    value = inner.text_or_none("value")
    inner.done()
    return value


def write_health_check(check: HealthCheck) -> dict[str, Json]:
    out: dict[str, Json] = {
        "protocol": str(check.protocol),
        "gracePeriodSeconds": check.grace_s,
        "intervalSeconds": check.interval_s,
        "timeoutSeconds": check.timeout_s,
        "maxConsecutiveFailures": check.most_failures,
        "delaySeconds": check.delay_s,
        "ignoreHttp1xx": check.ignore_1xx,
    }
    if check.protocol in _HTTP or check.path != "/":
        out["path"] = check.path
    if check.port is not None:
        out["port"] = check.port
    if check.port_index is not None:
        out["portIndex"] = check.port_index
    if check.command is not None:
        out["command"] = {"value": check.command}
    if check.protocol is not Protocol.COMMAND:
        out["ipProtocol"] = "IPv4"
    return out


def write_results(instance: Instance) -> list[Json]:
    """What each check has shown, in the keys that clients accept; nothing of checks that were not probed yet."""
    return [
        {
            "alive": result.alive,
            "consecutiveFailures": result.consecutive_failures,
            "firstSuccess": _write_instant(result.first_success_at),
            "lastSuccess": _write_instant(result.last_success_at),
            "lastFailure": _write_instant(result.last_failure_at),
            "lastFailureCause": result.cause or None,
            "instanceId": instance.id,
        }
        for result in instance.health
        if result.index < instance.checks
    ]


def _write_instant(at: float | None) -> str | None:
    return None if at is None else format_timestamp(at)


# What is refused.


def find_faults(spec: AppSpec) -> Iterator[tuple[str, str]]:
    """Paths and words of what is wrong with the app's health checks."""
    for index, check in enumerate(spec.health_checks):
        path = f"/healthChecks({index})"
        yield from ((path + below, text) for below, text in _check_faults(spec, check))
    mesos = [str(c.protocol) for c in spec.health_checks if c.protocol in _MESOS]
    if len(mesos) > 1:
        yield "/healthChecks", f"there may be one check of a protocol MESOS_*, got {', '.join(mesos)}"


def _check_faults(spec: AppSpec, check: HealthCheck) -> Iterator[tuple[str, str]]:
    for field, value in (
        ("gracePeriodSeconds", check.grace_s),
        ("intervalSeconds", check.interval_s),
        ("timeoutSeconds", check.timeout_s),
        ("maxConsecutiveFailures", check.most_failures),
        ("delaySeconds", check.delay_s),
    ):
        if value < 0:
            yield f"/{field}", f"got {value}, must be 0 or more"
    if check.protocol is Protocol.COMMAND:
        if not check.command:
            yield "/command", "a check of protocol COMMAND needs a command"
        elif "\0" in check.command:
            yield "/command", "the command has a NUL byte"
        return
    if check.command is not None:
        yield "/command", f"command is for protocol COMMAND, this check is of {check.protocol}"
    if check.port is not None:
        if not 0 < check.port < 65536:
            yield "/port", f"got {check.port}, must be between 1 and 65535"
        return
    count = _count_ports(spec)
    if not 0 <= (check.port_index or 0) < count:
        yield "/portIndex", f"got {check.port_index}, but the app declares {count} ports; indices start from 0"


def _count_ports(spec: AppSpec) -> int:
    """As many as there are once the app is completed: what names no port gets one."""
    if spec.network is Network.HOST:
        return 1 if spec.port_definitions is None else len(spec.port_definitions)
    mappings = spec.container.port_mappings if spec.container is not None else None
    return 1 if mappings is None else len(mappings)


# To the agent.


def make_checks(spec: AppSpec, host_ports: tuple[int, ...]) -> tuple[health.HealthCheck, ...]:
    """The app's checks for a task that got these host ports, in the same order."""
    return tuple(_make_check(spec, check, host_ports) for check in spec.health_checks)


def _make_check(spec: AppSpec, check: HealthCheck, host_ports: tuple[int, ...]) -> health.HealthCheck:
    on_agent = check.protocol not in _FROM_THE_NODE
    common = health.HealthCheck(
        grace_s=float(check.grace_s),
        interval_s=float(check.interval_s),
        timeout_s=float(check.timeout_s),
        delay_s=float(check.delay_s) if on_agent else min(float(check.interval_s), _MOST_DELAY_S),
        consecutive_failures=check.most_failures,
        # Marathon never kills for its own checks when no failure is allowed, and at the first one for those of Mesos.
        spares=check.most_failures == 0 and not on_agent,
    )
    if check.protocol is Protocol.COMMAND:
        return replace(common, kind=health.CheckKind.COMMAND, command=CommandInfo(value=check.command))
    port, on_node = _find_port(spec, check, host_ports)
    is_http = check.protocol in _HTTP
    return replace(
        common,
        kind=health.CheckKind.HTTP if is_http else health.CheckKind.TCP,
        port=port,
        scheme="https" if check.protocol in _TLS else "http",
        path="/" + check.path.removeprefix("/") if is_http else "/",
        on_node=on_node,
        keeps_redirects=not on_agent,
        ignore_1xx=check.ignore_1xx,
    )


def _find_port(spec: AppSpec, check: HealthCheck, host_ports: tuple[int, ...]) -> tuple[int, bool]:
    """The port's number, and whether it is one of the node's instead of the task's own network."""
    from_the_node = check.protocol in _FROM_THE_NODE
    if check.port is not None:
        return check.port, from_the_node and spec.network is not Network.CONTAINER
    index = check.port_index or 0
    declared, host_port = spec.ports[index], host_ports[index]
    if isinstance(declared, PortDefinition):
        return host_port, from_the_node
    if from_the_node and host_port:
        return host_port, True
    return declared.container_port or host_port, False
