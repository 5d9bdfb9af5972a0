import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.lib.errors import Invalid
from corral.lib.units import format_duration, format_timestamp, parse_bytes, parse_duration_s, parse_timestamp


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("15mins", 900.0),
        ("1h30m", 5400.0),
        ("1 hrs 30 mins", 5400.0),
        ("250ms", 0.25),
        ("1.5secs", 1.5),
        ("2weeks", 1_209_600.0),
        ("10", 10.0),
        ("0.5", 0.5),
        (" 5SECS ", 5.0),
        ("100us", 0.0001),
    ],
)
def test_durations_are_read_in_mesos_and_in_short_units(text: str, seconds: float) -> None:
    assert parse_duration_s(text) == pytest.approx(seconds, abs=1e-12)


@pytest.mark.parametrize("text", ["", "abc", "5 parsecs", "1h x", "h", "1h30", "ms5", "nan", "inf", "1e999"])
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(Invalid, match="1h30m"):
        parse_duration_s(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(900, "15mins"), (2, "2secs"), (0.25, "250ms"), (5400, "90mins"), (604800, "1weeks"), (0, "0secs"), (1e-9, "1ns")],
)
def test_durations_are_written_in_the_largest_unit_that_keeps_them_whole(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@given(st.integers(0, 10**9).map(lambda ms: ms / 1000))
def test_a_written_duration_reads_as_it_was(seconds: float) -> None:
    assert parse_duration_s(format_duration(seconds)) == pytest.approx(seconds, abs=1e-9)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1048576", 1 << 20),
        ("512m", 512 << 20),
        ("512MB", 512 << 20),
        ("2g", 2 << 30),
        ("1.5k", 1536),
        ("3GiB", 3 << 30),
        ("7b", 7),
    ],
)
def test_sizes_are_powers_of_1024(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "m", "-1m", "1x", "1 2"])
def test_what_is_no_size_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(Invalid, match="512m"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("at", "text"),
    [(0.0, "1970-01-01T00:00:00.000Z"), (1.25, "1970-01-01T00:00:01.250Z"), (59.9996, "1970-01-01T00:01:00.000Z")],
)
def test_instants_are_written_with_milliseconds_in_utc(at: float, text: str) -> None:
    assert format_timestamp(at) == text


@given(st.integers(0, 4_000_000_000_000))
def test_a_written_instant_reads_as_it_was(millis: int) -> None:
    assert round(parse_timestamp(format_timestamp(millis / 1000)) * 1000) == millis


def test_an_instant_without_zone_is_utc_and_one_with_zone_keeps_it() -> None:
    assert parse_timestamp("1970-01-01T00:00:10") == 10.0
    assert parse_timestamp("1970-01-01T01:00:00+01:00") == 0.0
    with pytest.raises(Invalid, match="2026-01-31"):
        parse_timestamp("yesterday")


@pytest.mark.parametrize(
    "text", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00", "9999-12-31T23:59:59.9999Z"]
)
def test_an_instant_that_could_not_be_written_again_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="timestamp '"):
        parse_timestamp(text)
