"""Spans of time in which the clocks of a zone run on without a change. Pure.

A span also ends with a year, so that a zone without changes needs no look into the distance.
"""

from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY = timedelta(days=1)


def offset_at(zone: tzinfo, ms: int) -> timedelta:
    """What clocks in the zone are ahead of UTC at an instant."""
    return _offset(zone, _moment(ms))


def span_at(zone: tzinfo, ms: int) -> tuple[int, int]:
    """The instants from and up to which, in ms, clocks run on around one."""
    ends = _bounds(zone, _moment(ms).year)
    end = next(bound for bound in ends if bound > ms)
    return max(bound for bound in ends if bound <= ms), end


@lru_cache(maxsize=4096)
def _bounds(zone: tzinfo, year: int) -> tuple[int, ...]:
    """The beginning of a year, its changes of clocks, the beginning of the next."""
    first, last = datetime(year, 1, 1, tzinfo=UTC), datetime(year + 1, 1, 1, tzinfo=UTC)
    found = [_ms(first)]
    day = first
    while day < last:
        if _offset(zone, day) != _offset(zone, day + _DAY):
            low, high = 0, 24 * 60
            while high - low > 1:
                middle = (low + high) // 2
                same = _offset(zone, day + timedelta(minutes=middle)) == _offset(zone, day)
                low, high = (middle, high) if same else (low, middle)
            found.append(_ms(day + timedelta(minutes=high)))
        day += _DAY
    return (*found, _ms(last))


def _moment(ms: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=ms)


def _ms(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def _offset(zone: tzinfo, moment: datetime) -> timedelta:
    return moment.astimezone(zone).utcoffset() or timedelta()
