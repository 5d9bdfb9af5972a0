"""Lets operators have everything logged for a while. The log is the process' own, whoever asked for it."""

import asyncio

from corral.lib.errors import Invalid
from corral.lib.log import set_verbosity, verbosity
from corral.lib.units import parse_duration_s
from corral.net.routes import Request, Response

_back: asyncio.TimerHandle | None = None


def change_verbosity(level: int, duration_s: float) -> None:
    """Log at this level, and as configured again when the time is over; what was asked last counts.

    Units: `duration_s` seconds.
    """
    global _back
    if _back is not None:
        _back.cancel()
        _back = None
    set_verbosity(level)
    if level > 0:
        _back = asyncio.get_running_loop().call_later(duration_s, set_verbosity, 0)


def toggle_logging(request: Request) -> Response:
    """Mesos' `/logging/toggle`: the level now, or `?level=&duration=` for a while.

    Errors: `Invalid` without one of the two, or when it is no number or no duration.
    """
    level, duration = request.first("level"), request.first("duration")
    if not level and not duration:
        return Response(body=f"{verbosity()}\n".encode(), content_type="text/plain; charset=utf-8")
    if not level or not duration:
        missing = "duration" if level else "level"
        raise Invalid(f"Expecting '{missing}=value' in query; give both level and duration, such as 15mins")
    if not level.isdecimal() or len(level) > 9:
        raise Invalid(f"Invalid level {level!r}; give 0 for as configured, 1 or more for everything")
    change_verbosity(int(level), parse_duration_s(duration))
    return Response()
