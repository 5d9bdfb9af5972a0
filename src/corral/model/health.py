"""How the health of a running task is probed, and what its probes have shown.

Source: Mesos v1 HealthCheck. Deviates: a task may have several checks, and a check may spare the task, look at the
node's side of a port or leave redirects alone, which Marathon's checks need.
"""

from collections.abc import Sequence
from enum import StrEnum

import msgspec

from corral.model.command import CommandInfo


class CheckKind(StrEnum):
    """Shapes: UNKNOWN is a check that does not say what it is; no task is run with it."""

    UNKNOWN = "UNKNOWN"
    HTTP = "HTTP"
    TCP = "TCP"
    COMMAND = "COMMAND"


class HealthCheck(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """One check, probed again and again while its task runs.

    Units: `*_s` seconds; a `timeout_s` of 0 waits for ever. Shapes: `port` is one of the task's own network, or of the
    node when `on_node`; an HTTP check with `statuses` passes with these and no others, else with 200 to 399.
    `consecutive_failures` in a row end the task, 0 like 1, unless it `spares` the task. With `ignore_1xx` such an
    answer counts as nothing.
    """

    kind: CheckKind = CheckKind.UNKNOWN
    port: int = 0
    scheme: str = "http"
    path: str = "/"
    statuses: tuple[int, ...] = ()
    command: CommandInfo | None = None
    delay_s: float = 15.0
    interval_s: float = 10.0
    timeout_s: float = 20.0
    consecutive_failures: int = 3
    grace_s: float = 10.0
    spares: bool = False
    on_node: bool = False
    keeps_redirects: bool = False
    ignore_1xx: bool = False


class CheckResult(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """What the probes of one check have shown. Shapes: `index` is the check's place in its task's `health_checks`.

    Units: instants are float seconds UTC, None when there was none.
    """

    index: int
    alive: bool
    consecutive_failures: int = 0
    first_success_at: float | None = None
    last_success_at: float | None = None
    last_failure_at: float | None = None
    cause: str = ""


class CheckStatus(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """What the last probe of a task's check has shown, which nobody interprets.

    Shapes: `code` is the exit code of a command or the status of an HTTP answer, `succeeded` whether a TCP connection
    was made; both None before the first probe, and when there was no answer.
    """

    kind: CheckKind
    code: int | None = None
    succeeded: bool | None = None


def describe_check(check: HealthCheck) -> str:
    """The check in a few words: `HTTP check of port 8080 at /health`."""
    if check.kind is CheckKind.HTTP:
        return f"{check.scheme.upper()} check of port {check.port} at {check.path}"
    if check.kind is CheckKind.TCP:
        return f"TCP check of port {check.port}"
    command = check.command
    words = () if command is None else (command.value or "", *(() if command.shell else command.arguments[1:]))
    return f"check by command {' '.join(words)[:80]!r}"


def find_faults(checks: Sequence[HealthCheck]) -> str | None:
    """What keeps these checks from being run, in words that go on after the task's name; None when nothing does."""
    for check in checks:
        fault = _find_fault(check)
        if fault is not None:
            return f"has a health check {fault}"
    return None


def find_check_fault(check: HealthCheck) -> str | None:
    """The same for a check that interprets nothing."""
    fault = _find_fault(check)
    return None if fault is None else f"has a check {fault}"


def _find_fault(check: HealthCheck) -> str | None:
    match check.kind:
        case CheckKind.UNKNOWN:
            return "without a type; set it to HTTP, TCP or COMMAND"
        case CheckKind.COMMAND:
            if check.command is None or not check.command.value:
                return "of type COMMAND without command.value"
            if "\0" in "".join((check.command.value, *check.command.arguments)):
                return "whose command has a NUL byte"
        case CheckKind.HTTP | CheckKind.TCP:
            if not 0 < check.port < 65536:
                return f"of port {check.port}; name one from 1 to 65535"
    if check.kind is CheckKind.HTTP:
        if check.scheme not in ("http", "https"):
            return f"with the scheme {check.scheme!r}; use http or https"
        if not check.path.startswith("/"):
            return f"with the path {check.path!r}; a path starts with /"
        if any(not 100 <= status < 600 for status in check.statuses):
            return f"that expects a status outside of 100 to 599: {', '.join(map(str, check.statuses))}"
    times = {"delay": check.delay_s, "interval": check.interval_s, "timeout": check.timeout_s, "grace": check.grace_s}
    for name, value in times.items():
        if not 0 <= value < 1e9:
            return f"whose {name} is {value:g} s; it must be 0 or more"
    if check.consecutive_failures < 0:
        return f"that allows {check.consecutive_failures} failures; it must be 0 or more"
    return None
