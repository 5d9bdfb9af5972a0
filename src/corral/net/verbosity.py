"""Lets operators have everything logged for a while. The log is the process' own, whoever asked for it."""

import asyncio

from corral.lib.errors import Forbidden, Invalid
from corral.lib.log import least_level, set_least, verbosity
from corral.lib.units import parse_duration_s
from corral.net.auth import Caller
from corral.net.routes import Request, Response

_back: asyncio.TimerHandle | None = None

LEVELS = {
    "TRACE": "debug", "ALL": "debug", "DEBUG": "debug", "INFO": "info", "WARN": "warning", "WARNING": "warning",
    "ERROR": "error", "FATAL": "error", "INHERIT": None,
}  # fmt: skip
"""The names that loggers of the JVM have for what we write; None is as configured."""

_WRITTEN = {"debug": "DEBUG", "info": "INFO", "warning": "WARN", "error": "ERROR"}


def check_operator(caller: Caller) -> None:
    """Errors: `Forbidden` for one who is bound to roles, as the log is that of all who are in this process."""
    if caller.roles:
        raise Forbidden(
            f"{caller.name} is bound to {', '.join(caller.roles)} and may not change what is logged; "
            f"take a token without roles"
        )


def change_verbosity(level: int, duration_s: float) -> None:
    """Log at this level, and as configured again when the time is over; what was asked last counts.

    Units: `duration_s` seconds.
    """
    change_least("debug" if level > 0 else None, duration_s)


def change_least(level: str | None, duration_s: float | None = None) -> None:
    """Log this level and those above. Shapes: `level` None is as configured. Units: seconds, None until told again."""
    global _back
    if _back is not None:
        _back.cancel()
        _back = None
    set_least(level)
    if level is not None and duration_s is not None:
        _back = asyncio.get_running_loop().call_later(duration_s, set_least, None)


def write_levels() -> dict[str, str]:
    """What is logged, as Marathon tells it: there is one logger here, that of the process."""
    return {"ROOT": _WRITTEN[least_level()]}


def toggle_logging(request: Request) -> Response:
    """Mesos' `/logging/toggle`: the level now, or `?level=&duration=` for a while.

    Errors: `Invalid` without one of the two, or when it is no number or no duration; `Forbidden` for a change by one
    who is bound to roles.
    """
    level, duration = request.first("level"), request.first("duration")
    if not level and not duration:
        return Response(body=f"{verbosity()}\n".encode(), content_type="text/plain; charset=utf-8")
    if not level or not duration:
        missing = "duration" if level else "level"
        raise Invalid(f"Expecting '{missing}=value' in query; give both level and duration, such as 15mins")
    if not level.isdecimal() or len(level) > 9:
        raise Invalid(f"Invalid level {level!r}; give 0 for as configured, 1 or more for everything")
    check_operator(request.caller)
    change_verbosity(int(level), parse_duration_s(duration))
    return Response()
