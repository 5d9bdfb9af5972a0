"""What a calendar says, found the slow way: by counting months one by one and by trying every offset of a clock.

It shares no code with `frameworks/cron/schedule.py` and no idea either: local times are looked for among instants,
where the code under test turns local times into instants.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

QUARTER = timedelta(minutes=15)
MINUTE = timedelta(minutes=1)
MOST_OFFSET = 16 * 4


def local_of(moment: datetime, zone: str) -> datetime:
    return moment.astimezone(ZoneInfo(zone)).replace(tzinfo=None)


@lru_cache(maxsize=100_000)
def instants_of(local: datetime, zone: str) -> tuple[datetime, ...]:
    """Every instant at which clocks in the zone show this time, first to last."""
    base = local.replace(tzinfo=UTC)
    tried = (base + QUARTER * n for n in range(-MOST_OFFSET, MOST_OFFSET + 1))
    return tuple(moment for moment in tried if local_of(moment, zone) == local)


def gap_at(local: datetime, zone: str) -> tuple[datetime, datetime]:
    """The first instant after the gap that swallows this time, and what clocks show then."""
    base = local.replace(tzinfo=UTC, second=0, microsecond=0) - timedelta(hours=16)
    for minutes in range(32 * 60 + 1):
        moment = base + MINUTE * minutes
        if local_of(moment, zone) >= local.replace(second=0, microsecond=0):
            return moment, local_of(moment, zone)
    raise AssertionError(f"{local} never comes in {zone}")


def first_instant(local: datetime, zone: str) -> datetime:
    """The first time that it is so late; a time that is skipped comes as much later as the gap is wide."""
    found = instants_of(local, zone)
    if found:
        return found[0]
    moment, shown = gap_at(local, zone)
    wide = shown - local_of(moment - MINUTE, zone) - MINUTE
    return instants_of(local + wide, zone)[-1]


def next_month(year: int, month: int) -> tuple[int, int]:
    return (year + 1, 1) if month == 12 else (year, month + 1)


def with_day(local: datetime, year: int, month: int) -> datetime:
    """The same day of another month, or the last it has."""
    for day in range(local.day, 0, -1):
        try:
            return local.replace(year=year, month=month, day=day)
        except ValueError:
            continue
    raise AssertionError("a month without days")


def occurrence(start: datetime, zone: str, months: int, days: int, elapsed: timedelta, k: int) -> datetime:
    """Occurrence `k` of a repeat, from its anchor."""
    year, month = start.year, start.month
    for _ in range(months * k):
        year, month = next_month(year, month)
    local = with_day(start, year, month)
    for _ in range(k):
        local += timedelta(days=days)
    moment = first_instant(local, zone)
    for _ in range(k):
        moment += elapsed
    return moment


@lru_cache(maxsize=100_000)
def matches(field: str, value: int, low: int, high: int) -> bool:
    """Whether one field of a cron line, of the plain forms, takes a value."""
    for part in field.split(","):
        span, _, step = part.partition("/")
        if span == "*":
            first, last = low, high
        else:
            left, _, right = span.partition("-")
            first, last = int(left), int(right or left)
            if step and not right:
                last = high
        if first <= value <= last and (value - first) % int(step or 1) == 0:
            return True
    return False


def line_takes(line: str, local: datetime) -> bool:
    minute, hour, day, month, weekday = line.split()
    if not (
        matches(minute, local.minute, 0, 59) and matches(hour, local.hour, 0, 23) and matches(month, local.month, 1, 12)
    ):
        return False
    number = (local.weekday() + 1) % 7
    on_day = matches(day, local.day, 1, 31)
    on_weekday = matches(weekday, number, 0, 7) or (number == 0 and matches(weekday, 7, 0, 7))
    if day.startswith("*") or weekday.startswith("*"):
        return on_day and on_weekday
    return on_day or on_weekday


def line_instants(line: str, zone: str, start: datetime, end: datetime) -> Iterator[datetime]:
    """Every instant from `start` up to but without `end`, in order, by looking at each minute.

    A line with a star for minute or hour goes with time as it passes; one of fixed times with the clock on the wall:
    once for a time that comes twice, and as soon as clocks go again for one that is skipped.
    """
    minute, hour = line.split()[:2]
    if minute.startswith("*") or hour.startswith("*"):
        moment = start
        while moment < end:
            if line_takes(line, local_of(moment, zone)):
                yield moment
            moment += MINUTE
        return
    found = set()
    local = local_of(start, zone) - timedelta(days=1)
    while local < local_of(end, zone) + timedelta(days=1):
        if line_takes(line, local):
            instants = instants_of(local, zone)
            found.add(instants[0] if instants else gap_at(local, zone)[0])
        local += MINUTE
    yield from sorted(moment for moment in found if start <= moment < end)
