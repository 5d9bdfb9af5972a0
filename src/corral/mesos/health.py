"""Reads and writes health checks and what they have shown.

A check that does not say its type has the one whose member it brings; a member of another type is passed over.
Source: Mesos v1 HealthCheck. Deviates: `statuses`, which Mesos describes and does not look at, are honoured.
"""

from corral.mesos import wire
from corral.mesos.commands import read_command, write_command
from corral.mesos.common import read_optional_enum
from corral.model.health import CheckKind, CheckResult, CheckStatus, HealthCheck

_PLAIN = HealthCheck()


def read_health_checks(found: wire.TaskInfo) -> tuple[HealthCheck, ...]:
    """Whether they make sense is for the master to check."""
    if found.health_checks:
        return tuple(_read_check(c) for c in found.health_checks)
    return (_read_check(found.health_check),) if found.health_check is not None else ()


def _read_check(found: wire.HealthCheck) -> HealthCheck:
    kind = _read_kind(found)
    http = found.http if kind is CheckKind.HTTP else None
    tcp = found.tcp if kind is CheckKind.TCP else None
    command = found.command if kind is CheckKind.COMMAND else None
    ports = http or tcp
    return HealthCheck(
        kind=kind,
        port=ports.port if ports is not None else 0,
        scheme=(http.scheme if http is not None else None) or "http",
        path=(http.path if http is not None else None) or "/",
        statuses=http.statuses if http is not None else (),
        command=read_command(command) if command is not None else None,
        delay_s=_or(found.delay_seconds, _PLAIN.delay_s),
        interval_s=_or(found.interval_seconds, _PLAIN.interval_s),
        timeout_s=_or(found.timeout_seconds, _PLAIN.timeout_s),
        consecutive_failures=int(_or(found.consecutive_failures, _PLAIN.consecutive_failures)),
        grace_s=_or(found.grace_period_seconds, _PLAIN.grace_s),
        spares=bool(found.spares),
        on_node=bool(found.on_node),
        keeps_redirects=bool(found.keeps_redirects),
        ignore_1xx=bool(found.ignore_1xx),
    )


def _read_kind(found: wire.HealthCheck) -> CheckKind:
    if found.type is not None:
        return read_optional_enum(CheckKind, found.type) or CheckKind.UNKNOWN
    members = {CheckKind.HTTP: found.http, CheckKind.TCP: found.tcp, CheckKind.COMMAND: found.command}
    return next((kind for kind, member in members.items() if member is not None), CheckKind.UNKNOWN)


def read_check(found: wire.CheckInfo) -> HealthCheck:
    """A check that interprets nothing. Source: Mesos v1 CheckInfo."""
    members = {CheckKind.HTTP: found.http, CheckKind.TCP: found.tcp, CheckKind.COMMAND: found.command}
    kind = next((kind for kind, member in members.items() if member is not None), CheckKind.UNKNOWN)
    if found.type is not None:
        kind = read_optional_enum(CheckKind, found.type) or CheckKind.UNKNOWN
    http = found.http if kind is CheckKind.HTTP else None
    ports = http or (found.tcp if kind is CheckKind.TCP else None)
    command = found.command.command if kind is CheckKind.COMMAND and found.command is not None else None
    return HealthCheck(
        kind=kind,
        port=ports.port if ports is not None else 0,
        path=(http.path if http is not None else None) or "/",
        command=read_command(command) if command is not None else None,
        delay_s=_or(found.delay_seconds, _PLAIN.delay_s),
        interval_s=_or(found.interval_seconds, _PLAIN.interval_s),
        timeout_s=_or(found.timeout_seconds, _PLAIN.timeout_s),
    )


def write_check(check: HealthCheck) -> wire.CheckInfo:
    made = wire.CheckInfo(
        type=check.kind.value,
        delay_seconds=float(check.delay_s),
        interval_seconds=float(check.interval_s),
        timeout_seconds=float(check.timeout_s),
    )
    match check.kind:
        case CheckKind.HTTP:
            made.http = wire.HttpCheck(port=check.port, path=check.path)
        case CheckKind.TCP:
            made.tcp = wire.TcpCheck(port=check.port)
        case CheckKind.COMMAND:
            command = write_command(check.command) if check.command is not None else None
            made.command = wire.CheckCommand(command=command)
    return made


def read_check_status(found: wire.CheckStatusInfo) -> CheckStatus:
    kind = read_optional_enum(CheckKind, found.type) or CheckKind.UNKNOWN
    match kind:
        case CheckKind.COMMAND:
            return CheckStatus(kind=kind, code=found.command.exit_code if found.command is not None else None)
        case CheckKind.HTTP:
            return CheckStatus(kind=kind, code=found.http.status_code if found.http is not None else None)
        case CheckKind.TCP:
            return CheckStatus(kind=kind, succeeded=found.tcp.succeeded if found.tcp is not None else None)
    return CheckStatus(kind=kind)


def write_check_status(status: CheckStatus) -> wire.CheckStatusInfo:
    """The member of the check's kind is there also before the first probe, and empty then."""
    made = wire.CheckStatusInfo(type=status.kind.value)
    match status.kind:
        case CheckKind.COMMAND:
            made.command = wire.CheckedCommand(exit_code=status.code)
        case CheckKind.HTTP:
            made.http = wire.CheckedHttp(status_code=status.code)
        case CheckKind.TCP:
            made.tcp = wire.CheckedTcp(succeeded=status.succeeded)
    return made


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def find_unsupported(found: wire.TaskInfo) -> list[str]:
    """The fields of health checks that would change what is probed, and that no agent carries out."""
    checks = {"health_check": found.health_check} if found.health_check is not None else {}
    checks |= {f"corral_health_checks[{i}]": check for i, check in enumerate(found.health_checks)}
    paths: list[str] = []
    for at, check in checks.items():
        members = {"http": check.http, "tcp": check.tcp}
        paths += [f"{at}.{name}.protocol" for name, m in members.items() if m is not None and m.protocol == "IPV6"]
        variables = check.command.environment.variables if check.command and check.command.environment else ()
        if any(v.type == "SECRET" or v.secret is not None for v in variables):
            paths.append(f"{at}.command.environment.variables.secret")
        if check.command is not None and (check.command.uris or check.command.user is not None):
            paths.append(f"{at}.command.{'uris' if check.command.uris else 'user'}")
    if found.check is not None and found.check.command is not None and found.check.command.command is not None:
        paths += _unsupported_command(found.check.command.command, "check.command.command")
    return paths


def _unsupported_command(found: wire.CommandInfo, at: str) -> list[str]:
    variables = found.environment.variables if found.environment is not None else ()
    if any(v.type == "SECRET" or v.secret is not None for v in variables):
        return [f"{at}.environment.variables.secret"]
    if found.uris or found.user is not None:
        return [f"{at}.{'uris' if found.uris else 'user'}"]
    return []


def write_health_check(check: HealthCheck) -> wire.HealthCheck:
    made = wire.HealthCheck(
        type=check.kind.value,
        delay_seconds=float(check.delay_s),
        interval_seconds=float(check.interval_s),
        timeout_seconds=float(check.timeout_s),
        consecutive_failures=check.consecutive_failures,
        grace_period_seconds=float(check.grace_s),
        spares=check.spares or None,
        on_node=check.on_node or None,
        keeps_redirects=check.keeps_redirects or None,
        ignore_1xx=check.ignore_1xx or None,
    )
    match check.kind:
        case CheckKind.HTTP:
            made.http = wire.HttpCheck(port=check.port, scheme=check.scheme, path=check.path, statuses=check.statuses)
        case CheckKind.TCP:
            made.tcp = wire.TcpCheck(port=check.port)
        case CheckKind.COMMAND:
            made.command = write_command(check.command) if check.command is not None else None
    return made


def write_health_checks(checks: tuple[HealthCheck, ...], made: wire.TaskInfo) -> None:
    """Put them where clients of Mesos look; where there are several, also where corral looks."""
    if checks:
        made.health_check = write_health_check(checks[0])
    if len(checks) > 1:
        made.health_checks = tuple(write_health_check(c) for c in checks)


def read_result(found: wire.CheckResult) -> CheckResult:
    return CheckResult(
        index=found.index,
        alive=found.alive,
        consecutive_failures=found.consecutive_failures,
        first_success_at=found.first_success,
        last_success_at=found.last_success,
        last_failure_at=found.last_failure,
        cause=found.cause or "",
    )


def write_result(result: CheckResult) -> wire.CheckResult:
    return wire.CheckResult(
        index=result.index,
        alive=result.alive,
        consecutive_failures=result.consecutive_failures,
        first_success=result.first_success_at,
        last_success=result.last_success_at,
        last_failure=result.last_failure_at,
        cause=result.cause or None,
    )
