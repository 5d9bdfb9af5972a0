"""Text forms of durations, sizes and instants, turned into numbers whose names carry the unit.

Durations follow the suffixes Mesos flags use (`ns us ms secs mins hrs days weeks`) and the short ones people type.
"""

import math
import re
from datetime import UTC, datetime

from corral.lib.errors import Invalid

_SECONDS = {
    "ns": 1e-9, "us": 1e-6, "ms": 1e-3,
    "s": 1.0, "sec": 1.0, "secs": 1.0,
    "m": 60.0, "min": 60.0, "mins": 60.0,
    "h": 3600.0, "hr": 3600.0, "hrs": 3600.0,
    "d": 86400.0, "day": 86400.0, "days": 86400.0,
    "w": 604800.0, "week": 604800.0, "weeks": 604800.0,
}  # fmt: skip
_PIECE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([a-z]+)")


def parse_duration_s(text: str) -> float:
    """Read `15mins`, `1h30m`, `250ms`; a bare number counts as seconds.

    Errors: `Invalid` names the text and the suffixes that are understood.
    """
    clean = text.strip().lower()
    try:
        number = float(clean)
    except ValueError:
        pass
    else:
        if math.isfinite(number):
            return number
    total, end = 0.0, 0
    for match in _PIECE.finditer(clean):
        if clean[end : match.start()].strip() or match[2] not in _SECONDS:
            break
        total += float(match[1]) * _SECONDS[match[2]]
        end = match.end()
    if end == 0 or end != len(clean):
        raise Invalid(f"duration {text!r} is not a number with one of {', '.join(_SECONDS)}; write for example 1h30m")
    return total


def format_duration(seconds: float) -> str:
    """Write seconds in the Mesos form, the largest unit that keeps the number whole: `15mins`, `2secs`, `250ms`."""
    nanos = round(seconds * 1e9)
    for unit in ("weeks", "days", "hrs", "mins", "secs", "ms", "us"):
        size = round(_SECONDS[unit] * 1e9)
        if nanos >= size and nanos % size == 0:
            return f"{nanos // size}{unit}"
    return f"{nanos}ns" if nanos else "0secs"


_BYTES = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def parse_bytes(text: str) -> int:
    """Read `512m`, `2g`, `1048576`; powers of 1024 as Docker does.

    Errors: `Invalid` names the text and the suffixes that are understood.
    """
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([bkmgt]?)(?:i?b)?", text.strip().lower())
    if match is None:
        raise Invalid(f"size {text!r} is not a number with one of b, k, m, g, t; write for example 512m")
    return int(float(match[1]) * _BYTES[match[2]])


_LAST_YEAR = 9998
"""What is rounded up, or read in another zone, is then still in the calendar."""


def format_timestamp(at: float) -> str:
    """Write an instant as `2026-01-31T12:00:00.000Z`, the form Marathon and Chronos clients parse."""
    # Rounded as a whole number first: formatting the fraction alone would turn .9996 into 1000 ms.
    millis = round(at * 1000)
    whole = datetime.fromtimestamp(millis // 1000, UTC)
    return f"{whole:%Y-%m-%dT%H:%M:%S}.{millis % 1000:03d}Z"


def parse_timestamp(text: str) -> float:
    """Read an ISO 8601 instant; without a zone it is UTC.

    Errors: `Invalid` shows the form that is wanted.
    """
    try:
        moment = datetime.fromisoformat(text.strip())
        # An offset may carry it out of the calendar, where it could be kept but never be written again.
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise Invalid(f"timestamp {text[:60]!r} is not of the form 2026-01-31T12:00:00.000Z") from None
    if moment.year > _LAST_YEAR:
        raise Invalid(f"timestamp {text[:60]!r} lies beyond the year {_LAST_YEAR}; give one before it ends")
    return moment.timestamp()


def write_instant(at: float) -> str:
    """An instant in UTC to the second, such as `2026-05-04T10:00:00Z`; the number itself when no calendar has it."""
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return f"{at:g}"
