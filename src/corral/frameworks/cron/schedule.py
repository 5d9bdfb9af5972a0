"""When a job is due: ISO 8601 repeats and cron lines to instants, in the job's own time zone.

Rule: occurrence k of a repeat is `anchor + k * period`, counted from the submitted anchor and never from an earlier
result. Years, months, weeks and days move the calendar in the zone; hours, minutes and seconds are elapsed time. A
local time that a clock change skips moves forward by the gap, that day only; one that comes twice counts once, the
first time.
Source: Chronos' contract, section 2; Debian's cron for lines of five fields.
"""

import re
from calendar import monthrange
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo

import isodate
import msgspec
from cronsim import CronSim, CronSimError

from corral.frameworks.cron.clock_changes import offset_at, span_at
from corral.lib.errors import Invalid

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLI = timedelta(milliseconds=1)
MOST_COUNT = 2**63 - 1
LEAST_PERIOD_S = 0.1
MOST_TEXT = 1000
"""No schedule that is meant is longer, and numbers of thousands of digits are more than anything here can read."""
_DAY_US = 86_400_000_000
_PLAIN_EPOCH = datetime(1970, 1, 1)
_MOST_LOOK_MS = 50 * 366 * 86_400_000
_MONTH_US = round(30.436875 * _DAY_US)
_EDGE_MS = 4 * 3_600_000
"""No zone in use moves its clock by more than this at once."""

_REPEAT = re.compile(r"R([0-9]*)/(.*)/(P.*)", re.ASCII)
_START = re.compile(r"[0-9]{4}-?[0-9W][0-9-]*(T[0-9:.,]+(Z|[+-][0-9:]+)?)?", re.ASCII)
_DATE_PART = re.compile(r"P(?:[0-9]+Y)?(?:[0-9]+M)?(?:[0-9]+W)?(?:[0-9]+D)?", re.ASCII)
_TIME_PART = re.compile(r"PT(?:[0-9]+H)?(?:[0-9]+M)?(?:[0-9]+(?:[.,][0-9]+)?S)?", re.ASCII)

_OLD_ZONES = {
    "PST": "America/Los_Angeles", "CST": "America/Chicago", "EST": "Etc/GMT+5", "MST": "Etc/GMT+7", "HST": "Etc/GMT+10",
    "PNT": "America/Phoenix", "IET": "America/Indiana/Indianapolis", "AST": "America/Anchorage",
    "CNT": "America/St_Johns", "PRT": "America/Puerto_Rico", "BET": "America/Sao_Paulo",
    "AGT": "America/Argentina/Buenos_Aires", "ECT": "Europe/Paris", "ART": "Africa/Cairo", "EAT": "Africa/Addis_Ababa",
    "CAT": "Africa/Harare", "IST": "Asia/Kolkata", "PLT": "Asia/Karachi", "BST": "Asia/Dhaka", "NET": "Asia/Yerevan",
    "CTT": "Asia/Shanghai", "VST": "Asia/Ho_Chi_Minh", "JST": "Asia/Tokyo", "ACT": "Australia/Darwin",
    "AET": "Australia/Sydney", "SST": "Pacific/Guadalcanal", "NST": "Pacific/Auckland", "MIT": "Pacific/Apia",
}  # fmt: skip
"""The three letters that Java programs use."""
_JAVA_OFFSET = re.compile(r"GMT([+-])([01]?[0-9]|2[0-3])(?::?([0-5][0-9]))?", re.ASCII)

_RANGE_OF_ONE = re.compile(r"(?<![^\s,])(\w+)-\1/0*[1-9]\d*(?![^\s,])", re.IGNORECASE)
_ALIASES = {
    "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *", "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@hourly": "0 * * * *",
}  # fmt: skip


def to_ms(moment: datetime) -> int:
    """Units: whole milliseconds UTC, rounded down."""
    return (moment - EPOCH) // MILLI


@lru_cache(maxsize=1024)
def read_zone(name: str) -> tzinfo:
    """A zone of the tz database, one of Java's three-letter names, or an offset as Java writes it, such as `GMT+8`.

    Errors: `Invalid` for an unknown name.
    """
    if (found := _JAVA_OFFSET.fullmatch(name)) is not None:
        offset = timedelta(hours=int(found[2]), minutes=int(found[3] or 0))
        return timezone(-offset if found[1] == "-" else offset)
    try:
        return ZoneInfo(_OLD_ZONES.get(name, name))
    except (LookupError, ValueError, OSError):
        raise Invalid(
            f"time zone {name[:60]!r} is not in this machine's tz database; give an IANA name such as America/New_York"
        ) from None


def _check_length(what: str, text: str) -> None:
    if len(text) > MOST_TEXT:
        raise Invalid(f"{what} {text[:40]!r}… is longer than {MOST_TEXT} characters; shorten it")


class Period(msgspec.Struct, frozen=True, kw_only=True):
    """Units: `months` and `days` move the calendar, `micros` is elapsed time."""

    months: int = 0
    days: int = 0
    micros: int = 0

    @property
    def is_zero(self) -> bool:
        return not (self.months or self.days or self.micros)

    @property
    def mean_us(self) -> int:
        return self.months * _MONTH_US + self.days * _DAY_US + self.micros


@lru_cache(maxsize=4096)
def read_period(text: str) -> Period:
    """An ISO 8601 duration; a bare `P` is none at all.

    Errors: `Invalid` shows the form.
    """
    _check_length("duration", text)
    date, mark, time = text.partition("T")
    if not _DATE_PART.fullmatch(date) or (mark and not _TIME_PART.fullmatch("PT" + time)):
        raise Invalid(f"{text!r} is no ISO 8601 duration; write for example PT15M, P1D, P1M or P1Y2M3DT4H5M6.7S")
    try:
        # In two pieces: the library makes one length of P1D and PT24H, which are not the same when clocks change.
        whole = isodate.parse_duration(date, as_timedelta_if_possible=False) if date != "P" else isodate.Duration()
        rest = isodate.parse_duration("PT" + time) if time else timedelta()
        months = int(whole.years) * 12 + int(whole.months)
        return Period(months=months, days=whole.tdelta.days, micros=rest // timedelta(microseconds=1))
    except OverflowError:
        raise Invalid(f"duration {text!r} is longer than a calendar can count") from None


def period_s(text: str) -> float:
    """The seconds of a duration that is used as a bound, a month counted as its mean. Errors: as `read_period`."""
    return read_period(text).mean_us / 1e6


class Repeat:
    """`R[n]/start/period`. Shapes: `count` None repeats for ever; `start` is local to `zone` and has no zone itself."""

    __slots__ = ("_first", "count", "period", "period_text", "start", "zone")

    def __init__(self, count: int | None, start: datetime, zone: tzinfo, period_text: str) -> None:
        self.count = count
        self.start = start
        self.zone = zone
        self.period_text = period_text
        self.period = read_period(period_text)
        first = self.at(0)
        assert first is not None
        self._first = first

    @property
    def first(self) -> int:
        """The anchor in milliseconds."""
        return self._first

    def at(self, k: int) -> int | None:
        """Occurrence `k` in milliseconds; None beyond the calendar's end."""
        period, local = self.period, self.start
        try:
            if period.months and k:
                year, month = divmod(local.year * 12 + local.month - 1 + k * period.months, 12)
                last = monthrange(year, month + 1)[1]
                local = local.replace(year=year, month=month + 1, day=min(local.day, last))
            if period.days and k:
                local += timedelta(days=k * period.days)
            # Without fold, a skipped time has the offset of before the gap, so it falls as long after it.
            base = local.replace(tzinfo=self.zone) - EPOCH
            if period.micros and k:
                base += timedelta(microseconds=k * period.micros)
                if EPOCH + base >= _END:
                    return None
        except (OverflowError, ValueError):
            return None
        return base // MILLI

    def after(self, ms: int) -> int | None:
        """The first occurrence later than an instant."""
        k = self._index_after(ms)
        return None if k is None else self.at(k)

    def latest(self, ms: int) -> int | None:
        """The last occurrence up to and with an instant."""
        k = self._index_after(ms)
        if k is None:
            return self._first
        return self.at(k - 1) if k > 0 else None

    def _index_after(self, ms: int) -> int | None:
        """The smallest index whose occurrence is later, or lies beyond the calendar; None when there is no such."""
        if self._first > ms:
            return 0
        if self.period.is_zero:
            return None
        low = max(0, (ms - self._first) * 1000 // self.period.mean_us - 1)
        step = 1
        while low > 0 and self._is_later(low, ms):
            low, step = max(0, low - step), step * 2
        high, step = low + 1, 1
        while not self._is_later(high, ms):
            low, high, step = high, high + step, step * 2
        while high - low > 1:
            middle = (low + high) // 2
            if self._is_later(middle, ms):
                high = middle
            else:
                low = middle
        return high

    def _is_later(self, k: int, ms: int) -> bool:
        found = self.at(k)
        return found is None or found > ms

    def write(self, left: int | None, next_ms: int | None) -> str:
        """The form that is shown: what is left of the count, the next occurrence, the period."""
        start_ms = self._first if next_ms is None else next_ms
        number = "" if left is None else str(left)
        return f"R{number}/{write_moment(start_ms, self.zone)}/{self.period_text}"


class CronLine:
    """Minute, hour, day of month, month, day of week. Shapes: `count` is None, a line has no end."""

    __slots__ = ("line", "zone")
    count: int | None = None

    def __init__(self, line: str, zone: tzinfo) -> None:
        self.line = line
        self.zone = zone

    def after(self, ms: int) -> int | None:
        """The first occurrence later than an instant; None when none comes within 50 years."""
        return next(self._from(ms), None)

    def latest(self, ms: int) -> int | None:
        """The last occurrence up to and with an instant."""
        try:
            return self._latest_as_time_passes(ms) if self._goes_with_time else self._latest_by_the_clock(ms)
        except (OverflowError, ValueError):
            return None

    @property
    def _goes_with_time(self) -> bool:
        """Whether it goes with time as it passes, or else with the clock on the wall."""
        minute, hour = self.line.split()[:2]
        return minute.startswith("*") or hour.startswith("*")

    def _from(self, ms: int) -> Iterator[int]:
        """All occurrences later than an instant, as far as the calendar goes."""
        try:
            yield from self._as_time_passes(ms) if self._goes_with_time else self._by_the_clock(ms)
        except (OverflowError, ValueError):
            return

    def _by_the_clock(self, ms: int) -> Iterator[int]:
        moment = (EPOCH + timedelta(milliseconds=ms)).astimezone(self.zone)
        for found in CronSim(self.line, moment):
            # A line of fixed times forgets which of two equal hours it starts in, and so may look back.
            if to_ms(found) > ms:
                ms = to_ms(found)
                yield ms

    def _latest_by_the_clock(self, ms: int) -> int | None:
        moment = (EPOCH + timedelta(milliseconds=ms)).astimezone(self.zone) + timedelta(seconds=1)
        back = CronSim(self.line, moment, reverse=True)
        near = next((found for found in map(to_ms, back) if found <= ms), None)
        if near is None:
            return None
        # Backwards, the neighbourhood of a clock change may be seen otherwise: only what lies ahead of here counts.
        latest = None
        for found in self._from(near - _EDGE_MS):
            if found > ms:
                break
            latest = found
        return latest

    # Between two changes of clocks the parser is given plain times: going by whole hours over a change, it loses what
    # is left of an hour where clocks move by a part of one, and may go in circles.

    def _as_time_passes(self, ms: int) -> Iterator[int]:
        begin = after = ms
        looked_until = ms + _MOST_LOOK_MS
        while begin < looked_until:
            offset, (_, end) = offset_at(self.zone, begin), span_at(self.zone, begin)
            for found in CronSim(self.line, _PLAIN_EPOCH + timedelta(milliseconds=after // 1000 * 1000) + offset):
                at = (found - offset - _PLAIN_EPOCH) // MILLI
                if at >= end:
                    break
                looked_until = at + _MOST_LOOK_MS
                yield at
            begin, after = end, end - 1000

    def _latest_as_time_passes(self, ms: int) -> int | None:
        before = ms
        while before > ms - _MOST_LOOK_MS:
            offset, (begin, _) = offset_at(self.zone, before), span_at(self.zone, before)
            plain = _PLAIN_EPOCH + timedelta(milliseconds=before // 1000 * 1000 + 1000) + offset
            found = next(CronSim(self.line, plain, reverse=True), None)
            if found is not None and (at := (found - offset - _PLAIN_EPOCH) // MILLI) >= begin:
                return at
            before = begin - 1
        return None

    def write(self, left: int | None, next_ms: int | None) -> str:
        return self.line


Grid = Repeat | CronLine
_END = datetime(9999, 12, 30, tzinfo=UTC)
_START_OF_TIME_MS = 1000


def write_moment(ms: int, zone: tzinfo) -> str:
    """`2026-01-31T09:00:00.000-05:00`, with `Z` for UTC."""
    moment = (EPOCH + timedelta(milliseconds=ms)).astimezone(zone)
    text = moment.isoformat(timespec="milliseconds")
    return text.removesuffix("+00:00") + "Z" if text.endswith("+00:00") else text


def fill_start(text: str, zone_name: str, now: float) -> str:
    """The schedule with its empty start, if it is empty, taken to be now. Errors: `Invalid` for an unknown zone."""
    found = _REPEAT.fullmatch(text)
    if found is None or found[2]:
        return text
    zone = read_zone(zone_name) if zone_name else UTC
    return f"R{found[1]}/{write_moment(int(now * 1000), zone)}/{found[3]}"


@lru_cache(maxsize=65536)
def read_schedule(text: str, zone_name: str = "") -> Grid:
    """What stands in a job's `schedule`, with its start filled in.

    Shapes: with `zone_name` the start is local to that zone and an offset written behind it counts for nothing; without
    one it is UTC unless it says otherwise. Errors: `Invalid` says what is wrong and shows a form that is right.
    """
    _check_length("schedule", text)
    found = _REPEAT.fullmatch(text)
    if found is None:
        return _read_line(text, zone_name)
    count = int(found[1]) if found[1] else None
    if count is not None and count > MOST_COUNT:
        raise Invalid(f"schedule {text!r} repeats more often than 64 bits can count; leave the number out for ever")
    start, offset = _read_start(found[2], text)
    zone = read_zone(zone_name) if zone_name else offset or UTC
    period = read_period(found[3])
    if period.is_zero and (count is None or count > 1):
        raise Invalid(f"schedule {text!r} repeats without a period; give one such as PT1H, or R1 to run once")
    if not period.is_zero and period.mean_us < LEAST_PERIOD_S * 1e6:
        raise Invalid(f"schedule {text!r} repeats more often than every {LEAST_PERIOD_S:g} s; give a longer period")
    grid = Repeat(count, start, zone, found[3])
    if grid.first < _START_OF_TIME_MS:
        raise Invalid(f"schedule {text!r} starts before 1970-01-01T00:00:01Z; give a later start")
    return grid


def _read_start(text: str, schedule: str) -> tuple[datetime, tzinfo | None]:
    wrong = Invalid(
        f"schedule {schedule!r} starts at {text!r}, which is no ISO 8601 date and time; "
        f"write for example 2026-01-31T09:00:00Z"
    )
    if _START.fullmatch(text) is None:
        raise wrong
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise wrong from None
    if not 1969 <= moment.year <= 9000:
        raise Invalid(f"schedule {schedule!r} starts in the year {moment.year}; give one from 1970 to 9000")
    offset = moment.utcoffset()
    return moment.replace(tzinfo=None), None if offset is None else timezone(offset)


def _read_line(text: str, zone_name: str) -> CronLine:
    # One value written as a range is that value, which the parser takes for "from there on" when a step follows.
    line = _RANGE_OF_ONE.sub(r"\1", _ALIASES.get(text.strip().lower(), text))
    fields = line.split()
    if len(fields) != 5:
        raise Invalid(
            f"schedule {text!r} is neither R[n]/start/period, such as R/2026-01-31T09:00:00Z/P1D, "
            f"nor a cron line of five fields, such as 0 9 * * MON-FRI"
        )
    zone = read_zone(zone_name) if zone_name else UTC
    try:
        sim = CronSim(line, datetime(2000, 1, 1, tzinfo=UTC))
        comes = next(sim, None) is not None
    except CronSimError as error:
        form = "minute 0-59, hour 0-23, day of month 1-31, month 1-12, day of week 0-7"
        raise Invalid(f"cron line {text!r} cannot be read: {error}; its fields are {form}") from None
    if not comes:
        raise Invalid(f"cron line {text!r} names a day that never comes")
    return CronLine(" ".join(fields), zone)


class Due(msgspec.Struct, frozen=True, kw_only=True):
    """What a schedule asks for now. Units: milliseconds.

    Shapes: `due` None when nothing is to be started; `next` is when to look again, None never; `skipped` is the last of
    the occurrences that came too late to be started, if there are any.
    """

    due: int | None = None
    next: int | None = None
    skipped: int | None = None


def find_due(grid: Grid, cursor: int, now: int, *, each: bool, most_late: int | None) -> Due:
    """Which occurrence after `cursor` is to be started now.

    Shapes: with `each` all missed ones come one by one, in order; without, the latest of them stands for all. With
    `most_late`, what is older than so many milliseconds is not started any more.
    """
    first = grid.after(cursor)
    if first is None or first > now:
        return Due(next=first)
    if each:
        return _find_each(grid, first, now, most_late)
    following = grid.after(first)
    latest = first if following is None or following > now else grid.latest(now)
    assert latest is not None
    if most_late is not None and now - latest > most_late:
        return Due(next=grid.after(now), skipped=latest)
    return Due(due=latest, next=None if most_late is None else latest + most_late + 1)


def _find_each(grid: Grid, first: int, now: int, most_late: int | None) -> Due:
    if most_late is None or now - first <= most_late:
        return Due(due=first, next=None if most_late is None else first + most_late + 1)
    skipped = grid.latest(now - most_late - 1)
    following = grid.after(now - most_late - 1)
    if following is None or following > now:
        return Due(next=following, skipped=skipped)
    return Due(due=following, next=following + most_late + 1, skipped=skipped)


def list_between(grid: Grid, start: int, end: int, most: int) -> list[int]:
    """The occurrences from `start` up to but without `end`, `most` of them at most."""
    found: list[int] = []
    following = grid.after(start - 1)
    while following is not None and following < end and len(found) < most:
        found.append(following)
        following = grid.after(following)
    return found
