"""Schedules against an oracle that counts the slow way: years, leap days, both clock changes of many zones."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from schedule_oracle import line_instants, occurrence

from corral.frameworks.cron.schedule import (
    EPOCH,
    CronLine,
    Repeat,
    fill_start,
    find_due,
    list_between,
    read_period,
    read_schedule,
    read_zone,
    to_ms,
    write_moment,
)
from corral.lib.errors import Invalid

ZONES = (
    "UTC", "America/New_York", "America/Sao_Paulo", "America/St_Johns", "Europe/Berlin", "Europe/London",
    "Africa/Casablanca", "Asia/Tehran", "Asia/Kolkata", "Australia/Lord_Howe", "Australia/Sydney", "Pacific/Chatham",
    "Pacific/Auckland", "Asia/Gaza", "America/Havana", "Africa/Cairo",
)  # fmt: skip
"""Both hemispheres, half and quarter hours, changes at midnight, by half an hour, and around Ramadan."""

starts = st.datetimes(
    min_value=datetime(1975, 1, 1), max_value=datetime(2036, 12, 31), timezones=st.none()
).map(lambda at: at.replace(second=0, microsecond=0))  # fmt: skip


def text_of(months: int, days: int, minutes: int) -> str:
    date = f"{months}M" * bool(months) + f"{days}D" * bool(days)
    return f"P{date}" + (f"T{minutes}M" if minutes else "")


def at(grid: Repeat, k: int) -> datetime:
    found = grid.at(k)
    assert found is not None
    return EPOCH + timedelta(milliseconds=found)


@settings(max_examples=200, deadline=None)
@given(
    start=starts, zone=st.sampled_from(ZONES), months=st.integers(0, 30), days=st.integers(0, 40),
    minutes=st.sampled_from([0, 0, 15, 60, 1440, 1441]), k=st.integers(0, 60),
)  # fmt: skip
def test_an_occurrence_is_where_the_calendar_says(
    start: datetime, zone: str, months: int, days: int, minutes: int, k: int
) -> None:
    if not (months or days or minutes):
        return
    if start.year + (months * k) // 12 > 2090:
        k = 3
    grid = read_schedule(f"R/{start.isoformat()}/{text_of(months, days, minutes)}", zone)
    assert isinstance(grid, Repeat)
    assert at(grid, k) == occurrence(start, zone, months, days, timedelta(minutes=minutes), k)


def edges(zone: str, year: int) -> list[datetime]:
    """The local midnights of the days on which clocks change."""
    tz = read_zone(zone)
    found = []
    for day in range(366):
        midnight = datetime(year, 1, 1, tzinfo=UTC) + timedelta(days=day)
        before, after = midnight.astimezone(tz).utcoffset(), (midnight + timedelta(days=1)).astimezone(tz).utcoffset()
        if before != after:
            found.append(datetime(year, 1, 1) + timedelta(days=day))
    return found


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("period", ["P1D", "PT24H", "PT1H", "P1DT1H"])
def test_every_hour_around_both_clock_changes_is_right(zone: str, period: str) -> None:
    parsed = read_period(period)
    for edge in edges(zone, 2024) or [datetime(2024, 2, 28)]:
        for hour in range(24):
            start = edge - timedelta(days=2) + timedelta(hours=hour, minutes=30)
            grid = read_schedule(f"R/{start.isoformat()}/{period}", zone)
            assert isinstance(grid, Repeat)
            for k in range(5):
                elapsed = timedelta(microseconds=parsed.micros)
                assert at(grid, k) == occurrence(start, zone, parsed.months, parsed.days, elapsed, k)


days_of_change = st.tuples(
    st.sampled_from([z for z in ZONES if z not in ("UTC", "Asia/Kolkata")]), st.integers(1976, 2036)
)
times_of_day = st.tuples(st.integers(0, 23), st.sampled_from([0, 1, 15, 29, 30, 45, 59]))


@settings(max_examples=300, deadline=None)
@given(
    where=days_of_change, which=st.integers(0, 3), time=times_of_day, ahead=st.integers(0, 3),
    period=st.sampled_from(["P1D", "PT24H", "P1M", "P1W", "P1Y", "PT1H", "PT30M", "P1DT1H", "P1M1DT15M"]),
)  # fmt: skip
def test_both_clock_changes_of_any_year_are_passed_as_the_calendar_says(
    where: tuple[str, int], which: int, time: tuple[int, int], ahead: int, period: str
) -> None:
    """From some occurrences before the change on, over it."""
    zone, year = where
    found = edges(zone, year)
    if not found:
        return
    parsed = read_period(period)
    elapsed = timedelta(microseconds=parsed.micros)
    start = found[which % len(found)].replace(hour=time[0], minute=time[1])
    start -= ahead * (timedelta(days=30 * parsed.months + parsed.days) + elapsed)
    grid = read_schedule(f"R/{start.isoformat()}/{period}", zone)
    assert isinstance(grid, Repeat)
    for k in range(ahead + 3):
        assert at(grid, k) == occurrence(start, zone, parsed.months, parsed.days, elapsed, k)


def fields_of(low: int, high: int) -> st.SearchStrategy[str]:
    """One field of a cron line in each of its plain forms."""
    number = st.integers(low, high)
    spans = st.tuples(number, number).map(lambda ends: f"{min(ends)}-{max(ends)}")
    steps = st.tuples(st.just("*") | spans, st.integers(1, max(2, high // 2))).map(lambda pair: f"{pair[0]}/{pair[1]}")
    listed = st.lists(number.map(str) | spans, min_size=2, max_size=3, unique=True).map(",".join)
    return st.one_of(st.just("*"), number.map(str), spans, steps, listed)


@settings(max_examples=40, deadline=None)
@given(
    minute=fields_of(0, 59), hour=fields_of(0, 23), day=fields_of(1, 28), weekday=fields_of(0, 7),
    where=days_of_change, which=st.integers(0, 3),
)  # fmt: skip
def test_any_cron_line_agrees_with_looking_at_every_minute_around_a_clock_change(
    minute: str, hour: str, day: str, weekday: str, where: tuple[str, int], which: int
) -> None:
    zone, year = where
    found = edges(zone, year)
    if not found:
        return
    line = f"{minute} {hour} {day} * {weekday}"
    grid = read_schedule(line, zone)
    start = found[which % len(found)].replace(tzinfo=UTC) - timedelta(hours=20)
    end = start + timedelta(hours=56)
    wanted = [to_ms(moment) for moment in line_instants(line, zone, start, end)]
    assert list_between(grid, to_ms(start), to_ms(end), 10_000) == wanted


@pytest.mark.parametrize("years", [1, 4])
def test_leap_days_are_clamped_in_common_years_and_come_back(years: int) -> None:
    grid = read_schedule(f"R/2024-02-29T12:00:00Z/P{years}Y")
    assert isinstance(grid, Repeat)
    for k in range(80):
        found = at(grid, k)
        leap = found.year % 4 == 0 and (found.year % 100 != 0 or found.year % 400 == 0)
        assert (found.month, found.day) == (2, 29 if leap else 28)
        assert found.year == 2024 + years * k


@settings(max_examples=200, deadline=None)
@given(
    start=starts, zone=st.sampled_from(ZONES), months=st.integers(0, 13), days=st.integers(0, 35),
    minutes=st.sampled_from([0, 1, 45, 1439]), shift=st.integers(-10, 60_000_000),
)  # fmt: skip
def test_the_next_and_the_latest_occurrence_stand_on_either_side_of_any_instant(
    start: datetime, zone: str, months: int, days: int, minutes: int, shift: int
) -> None:
    if not (months or days or minutes):
        minutes = 7
    grid = read_schedule(f"R/{start.isoformat()}/{text_of(months, days, minutes)}", zone)
    assert isinstance(grid, Repeat)
    moment = grid.first + shift * 1000
    after, latest = grid.after(moment), grid.latest(moment)
    assert after is not None
    assert after > moment
    assert (latest is None) == (moment < grid.first)
    assert latest is None or latest <= moment
    if latest is not None:
        assert grid.after(latest) == after, "an occurrence lies between the two"


LINES = (
    "* * * * *", "*/15 * * * *", "0 * * * *", "30 2 * * *", "0 0 * * *", "15 1-3 * * *", "0,30 2 * * 0", "0 3 29 2 *",
    "0 12 1,15 * 1", "*/20 1 * * *", "5 4 * * 7", "59 23 31 12 *", "0 9-17/2 * * 1-5",
)  # fmt: skip


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Europe/Berlin", "Australia/Lord_Howe", "America/Havana"])
@pytest.mark.parametrize("line", LINES)
def test_a_cron_line_fires_at_every_minute_it_takes_and_at_no_other(line: str, zone: str) -> None:
    grid = read_schedule(line, zone)
    for edge in edges(zone, 2024)[:2] or [datetime(2024, 2, 29)]:
        start = edge.replace(tzinfo=UTC) - timedelta(hours=30)
        end = start + timedelta(hours=72)
        wanted = [to_ms(moment) for moment in line_instants(line, zone, start, end)]
        assert list_between(grid, to_ms(start), to_ms(end), 10_000) == wanted
        for n in range(0, len(wanted), max(1, len(wanted) // 12)):
            moment = wanted[n]
            assert grid.latest(moment) == moment
            if n:
                assert grid.latest(moment - 1) == wanted[n - 1]
                # A firing in the second of two equal hours must not find the first one again.
                assert grid.after(wanted[n - 1]) == moment


def test_a_cron_line_over_years_agrees_with_looking_at_every_day() -> None:
    grid = read_schedule("0 12 29 2 *", "Europe/Berlin")
    start, end = to_ms(datetime(2020, 1, 1, tzinfo=UTC)), to_ms(datetime(2034, 1, 1, tzinfo=UTC))
    found = [write_moment(ms, UTC)[:10] for ms in list_between(grid, start, end, 100)]
    assert found == ["2020-02-29", "2024-02-29", "2028-02-29", "2032-02-29"]


# The contract's own examples.


def moments(text: str, zone: str = "", count: int = 4) -> list[str]:
    grid = read_schedule(text, zone)
    assert isinstance(grid, Repeat)
    return [write_moment(ms, grid.zone) for ms in list_between(grid, grid.first, 10**15, count)]


def test_months_are_counted_from_the_anchor_and_do_not_drift() -> None:
    assert [m[:10] for m in moments("R/2026-01-31T00:00:00Z/P1M")] == [
        "2026-01-31", "2026-02-28", "2026-03-31", "2026-04-30",
    ]  # fmt: skip


def test_a_time_in_the_gap_moves_forward_that_day_only() -> None:
    assert moments("R/2026-03-07T02:30:00/P1D", "America/New_York", 3) == [
        "2026-03-07T02:30:00.000-05:00", "2026-03-08T03:30:00.000-04:00", "2026-03-09T02:30:00.000-04:00",
    ]  # fmt: skip


def test_a_time_that_comes_twice_is_the_first_one() -> None:
    assert moments("R/2026-10-31T01:30:00/P1D", "America/New_York", 3) == [
        "2026-10-31T01:30:00.000-04:00", "2026-11-01T01:30:00.000-04:00", "2026-11-02T01:30:00.000-05:00",
    ]  # fmt: skip


def test_a_day_keeps_the_wall_clock_and_24_hours_do_not() -> None:
    assert moments("R/2026-03-28T09:00:00/P1D", "Europe/Paris", 2)[1] == "2026-03-29T09:00:00.000+02:00"
    assert moments("R/2026-03-28T09:00:00/PT24H", "Europe/Paris", 2)[1] == "2026-03-29T10:00:00.000+02:00"
    assert moments("R/2026-03-28T09:00:00+01:00/P1D", "", 2)[1] == "2026-03-29T09:00:00.000+01:00"


def test_the_zone_wins_over_an_offset_and_old_names_work() -> None:
    assert moments("R/2026-01-01T18:32:00Z/P1D", "PST", 1) == ["2026-01-01T18:32:00.000-08:00"]
    assert moments("R/2026-07-01T12:00:00Z/P1D", "EST", 1) == ["2026-07-01T12:00:00.000-05:00"]
    assert moments("R/2026-07-01T12:00:00Z/P1D", "BST", 1) == ["2026-07-01T12:00:00.000+06:00"]
    assert moments("R/2026-07-01T12:00:00Z/P1D", "GMT+8", 1) == ["2026-07-01T12:00:00.000+08:00"]
    assert moments("R/2026-07-01T12:00:00Z/P1D", "GMT-03:30", 1) == ["2026-07-01T12:00:00.000-03:30"]
    with pytest.raises(Invalid, match="'Mars/Olympus' is not in this machine's tz database"):
        read_schedule("R/2026-01-01T00:00:00Z/P1D", "Mars/Olympus")
    for name in ("../etc/passwd", "GMT+25", "/UTC", "America"):
        with pytest.raises(Invalid, match="is not in this machine's tz database"):
            read_zone(name)


def test_a_day_that_a_zone_left_out_is_made_up_for_on_the_next() -> None:
    assert [m[:16] for m in moments("R/2011-12-29T09:00:00/P1D", "Pacific/Apia", 3)] == [
        "2011-12-29T09:00", "2011-12-31T09:00", "2012-01-01T09:00",
    ]  # fmt: skip


def test_an_empty_start_is_now_and_fractions_of_seconds_count() -> None:
    assert fill_start("R3//PT2S", "", 1_767_225_600.5) == "R3/2026-01-01T00:00:00.500Z/PT2S"
    assert fill_start("R//PT2S", "Asia/Kolkata", 1_767_225_600.0) == "R/2026-01-01T05:30:00.000+05:30/PT2S"
    assert [m[17:] for m in moments("R/2026-01-01T00:00:00.250Z/PT0.75S", "", 3)] == ["00.250Z", "01.000Z", "01.750Z"]


def test_a_period_of_nothing_is_for_jobs_that_run_once() -> None:
    grid = read_schedule("R1/2026-01-01T00:00:00Z/P")
    assert isinstance(grid, Repeat)
    assert grid.after(grid.first) is None
    assert grid.latest(grid.first + 10**12) == grid.first
    read_schedule("R0/2026-01-01T00:00:00Z/P")


def test_a_schedule_ends_with_the_calendar() -> None:
    grid = read_schedule("R/2026-01-01T00:00:00Z/P4000Y")
    assert isinstance(grid, Repeat)
    assert grid.after(grid.first) == to_ms(datetime(6026, 1, 1, tzinfo=UTC))
    assert grid.after(to_ms(datetime(6026, 1, 1, tzinfo=UTC))) is None
    assert grid.latest(to_ms(datetime(9998, 1, 1, tzinfo=UTC))) == to_ms(datetime(6026, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("R/x/PT1M", "starts at 'x'"),
        ("R/2026-13-01T00:00:00Z/P1D", "starts at '2026-13-01T00:00:00Z'"),
        ("R/2026-01-01 00:00:00/P1D", "no ISO 8601 date and time"),
        ("R/2026-01-01T00:00:00Z/1D", "neither R\\[n\\]/start/period"),
        ("r/2026-01-01T00:00:00Z/P1D", "neither R\\[n\\]/start/period"),
        ("R/2026-01-01T00:00:00Z/P1D/P1D", "no ISO 8601 date and time"),
        ("R/2026-01-01T00:00:00Z/P0.5D", "no ISO 8601 duration"),
        ("R/2026-01-01T00:00:00Z/P-1D", "no ISO 8601 duration"),
        ("R/2026-01-01T00:00:00Z/P", "without a period"),
        ("R2/2026-01-01T00:00:00Z/PT0S", "without a period"),
        ("R/2026-01-01T00:00:00Z/PT0.01S", "more often than every 0.1 s"),
        ("R99999999999999999999/2026-01-01T00:00:00Z/P1D", "64 bits"),
        ("R/1970-01-01T00:00:00Z/P1D", "before 1970-01-01T00:00:01Z"),
        ("R/0001-01-01T00:00:00Z/P1D", "from 1970"),
        ("* * * *", "neither"),
        ("0 * * * * *", "neither"),
        ("61 * * * *", "Bad minute"),
        ("0 0 31 2 *", "cannot be read"),
        (f"R{'9' * 5000}/2026-01-01T00:00:00Z/P1D", "longer than 1000 characters"),
        (f"R/2026-01-01T00:00:00Z/P{'9' * 5000}D", "longer than 1000 characters"),
        (f"{'9' * 5000} * * * *", "longer than 1000 characters"),
        ("", "neither"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_words(text: str, said: str) -> None:
    with pytest.raises(Invalid, match=said):
        read_schedule(text)


@pytest.mark.parametrize(
    ("line", "same"),
    [
        ("0 0 * * 0-0/1", "0 0 * * 0"), ("0 0 * * mon-MON/3", "0 0 * * 1"), ("3-3/9,30 5-5/2 * * *", "3,30 5 * * *"),
        ("0 0 1-1/5,9-11/2 * *", "0 0 1,9,11 * *"), ("0 1-11/5 * * *", "0 1,6,11 * * *"),
        ("0 11-15/5 * * *", "0 11 * * *"),
    ],
)  # fmt: skip
def test_a_range_of_one_with_a_step_is_that_one(line: str, same: str) -> None:
    start = to_ms(datetime(2026, 1, 1, tzinfo=UTC))
    found = list_between(read_schedule(line, ""), start, start + 60 * 86_400_000, 500)
    assert found == list_between(read_schedule(same, ""), start, start + 60 * 86_400_000, 500)
    assert found


@pytest.mark.parametrize(
    ("line", "zone", "fires"),
    [
        # Back by half an hour at 02:00: that hour is whole, and so is every later one.
        ("*/20 2 * * *", "Australia/Lord_Howe", ["2026-04-04T15:30", "2026-04-04T15:50", "2026-04-04T16:10"]),
        ("*/20 5 * * *", "Australia/Lord_Howe", ["2026-04-04T18:30", "2026-04-04T18:50", "2026-04-04T19:10"]),
        # Forward at 02:45 to 03:45: what is left of the hour three.
        ("*/5 3 * * *", "Pacific/Chatham", ["2026-09-26T14:00", "2026-09-26T14:05", "2026-09-26T14:10"]),
    ],
)
def test_a_change_within_an_hour_or_by_half_of_one_swallows_no_firing(line: str, zone: str, fires: list[str]) -> None:
    grid = read_schedule(line, zone)
    wanted = [to_ms(datetime.fromisoformat(at).replace(tzinfo=UTC)) for at in fires]
    start = wanted[0] - 6 * 3_600_000
    found = list(list_between(grid, start, wanted[-1] + 12 * 3_600_000, 100))
    assert found == wanted
    assert grid.latest(wanted[1]) == wanted[1]
    assert grid.latest(wanted[1] - 1) == wanted[0]


@pytest.mark.parametrize(
    ("line", "year"),
    [("34-59 */7 * * *", 2008), ("43 */5 * * *", 1998), ("6-25 */7 * * *", 2003), ("2,40 */6 * * *", 2008)],
)
def test_no_line_goes_in_circles_where_clocks_change_a_minute_after_midnight(line: str, year: int) -> None:
    """The parser alone never came back from these, and all of cron with it."""
    zone = "America/St_Johns"
    grid = read_schedule(line, zone)
    for edge in edges(zone, year):
        start = edge.replace(tzinfo=UTC) - timedelta(hours=30)
        end = start + timedelta(hours=72)
        wanted = [to_ms(moment) for moment in line_instants(line, zone, start, end)]
        assert list_between(grid, to_ms(start), to_ms(end), 10_000) == wanted
        assert [grid.latest(ms) for ms in wanted] == wanted


def test_a_range_of_one_with_a_step_of_nothing_is_refused() -> None:
    with pytest.raises(Invalid, match="cannot be read"):
        read_schedule("0 0 * * 1-1/0", "")


def test_aliases_of_cron_are_its_lines() -> None:
    grid = read_schedule("@daily")
    assert isinstance(grid, CronLine)
    assert grid.line == "0 0 * * *"


@settings(max_examples=200, deadline=None)
@given(
    late=st.integers(0, 100_000), most_late=st.none() | st.integers(0, 50_000), each=st.booleans(),
    cursor=st.integers(-1, 50),
)  # fmt: skip
def test_what_is_due_is_the_latest_or_the_first_of_what_is_young_enough(
    late: int, most_late: int | None, each: bool, cursor: int
) -> None:
    grid = read_schedule("R/2026-01-01T00:00:00Z/PT1S")
    assert isinstance(grid, Repeat)
    now, after = grid.first + late, grid.first + cursor * 1000
    passed = [ms for n in range(200) if after < (ms := grid.first + n * 1000) <= now]
    young = [ms for ms in passed if most_late is None or now - ms <= most_late]
    found = find_due(grid, after, now, each=each, most_late=most_late)
    assert found.due == ((young[0] if each else young[-1]) if young else None)
    if found.due is None:
        assert found.next is not None
        assert found.next > now
        assert found.skipped == (passed[-1] if passed else None)
