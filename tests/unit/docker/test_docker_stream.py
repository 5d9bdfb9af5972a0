"""The Engine's log stream, taken apart and taken up again."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corral.docker.stream import (
    STDERR,
    STDOUT,
    LogReader,
    Place,
    Position,
    as_seconds,
    is_whole,
    order,
    since_of,
    write_stamp,
)
from corral.lib.errors import Failed

LATE = b"9999-01-01T00:00:00.000000000Z"
Entry = tuple[int, str, bytes]


def stamp(nanos: int) -> str:
    seconds, rest = divmod(nanos, 1_000_000_000)
    return f"2026-01-01T00:{seconds // 60:02d}:{seconds % 60:02d}.{rest:09d}Z"


def frame(kind: int, at: str, content: bytes) -> bytes:
    entry = at.encode() + b" " + content
    return bytes((kind, 0, 0, 0)) + len(entry).to_bytes(4, "big") + entry


def frames(entries: Sequence[Entry]) -> bytes:
    return b"".join(frame(*entry) for entry in entries)


def text(entries: Sequence[Entry], kind: int) -> bytes:
    return b"".join(content for its, _, content in entries if its == kind)


def position_of(reader: LogReader) -> Position:
    return Position(out=reader.place(STDOUT), err=reader.place(STDERR))


@st.composite
def logs(draw: st.DrawFn) -> list[Entry]:
    """A log as the Engine keeps it: times grow within a kind, a little out of order across the two, some equal."""
    clock = {STDOUT: 0, STDERR: 0}
    now = 0
    entries: list[Entry] = []
    for number in range(draw(st.integers(0, 25))):
        kind = draw(st.sampled_from((STDOUT, STDERR)))
        now += draw(st.sampled_from((0, 0, 1, 7, 3_000_000_000)))
        clock[kind] = max(clock[kind], now - draw(st.sampled_from((0, 0, 1, 500_000))))
        entries.append((kind, stamp(max(0, clock[kind])), b"%d-%d\n" % (kind, number)))
    return entries


def served(entries: Sequence[Entry], since: str | None) -> list[Entry]:
    """What the Engine sends of its log for this `since`."""
    return [e for e in entries if since is None or order(as_seconds(e[1])) >= order(since)]


def test_both_kinds_come_apart_without_their_times() -> None:
    reader = LogReader(Position())
    data = frame(STDOUT, stamp(1), b"out\n") + frame(STDERR, stamp(2), b"err\n") + frame(STDOUT, stamp(3), b"more")
    assert reader.feed(data, LATE) == (b"out\nmore", b"err\n")
    assert reader.place(STDOUT) == Place(stamp(3), 1)
    assert reader.place(STDERR) == Place(stamp(2), 1)


@given(logs(), st.lists(st.integers(1, 60), max_size=40))
def test_it_does_not_matter_how_the_bytes_are_cut(entries: list[Entry], cuts: list[int]) -> None:
    data, reader, out, err = frames(entries), LogReader(Position()), b"", b""
    at = 0
    for size in [*cuts, len(data)]:
        more_out, more_err = reader.feed(data[at : at + size], LATE)
        out, err, at = out + more_out, err + more_err, at + size
    assert (out, err) == (text(entries, STDOUT), text(entries, STDERR))


@settings(max_examples=50)
@given(logs(), st.data())
def test_reading_goes_on_after_any_entry_with_nothing_twice_and_nothing_lost(
    entries: list[Entry], data: st.DataObject
) -> None:
    out = err = b""
    position, there = Position(), 0
    while there < len(entries) or not (out or err or not entries):
        # Each time the log has grown, some of it is read, and the connection breaks.
        there = data.draw(st.integers(there, len(entries)))
        sent = served(entries[:there], since_of(position))
        read = data.draw(st.integers(0, len(sent)))
        reader = LogReader(position)
        more_out, more_err = reader.feed(frames(sent[:read]), LATE)
        out, err, position = out + more_out, err + more_err, position_of(reader)
        if there == len(entries):
            break
    reader = LogReader(position)
    last_out, last_err = reader.feed(frames(served(entries, since_of(position))), LATE)
    assert (out + last_out, err + last_err) == (text(entries, STDOUT), text(entries, STDERR))


@given(logs(), st.data())
def test_a_log_told_again_from_its_beginning_adds_only_what_is_new(entries: list[Entry], data: st.DataObject) -> None:
    told = data.draw(st.integers(0, len(entries)))
    reader = LogReader(Position())
    out, err = reader.feed(frames(entries[:told]), LATE)
    # Within one connection only a step back in time gives a repetition away.
    for kind in (STDOUT, STDERR):
        stamps = {entry[1] for entry in entries[:told] if entry[0] == kind}
        if len(stamps) == 1:
            return
    more_out, more_err = reader.feed(frames(entries), LATE)
    assert (out + more_out, err + more_err) == (text(entries, STDOUT), text(entries, STDERR))


def test_a_file_that_was_turned_over_and_is_told_again_is_known() -> None:
    entries: list[Entry] = [(STDOUT, stamp(n), b"%d\n" % n) for n in range(1, 9)]
    reader = LogReader(Position())
    first = reader.feed(frames(entries[:6]), LATE)[0]
    second = reader.feed(frames(entries[2:]), LATE)[0]
    assert first + second == b"".join(b"%d\n" % n for n in range(1, 9))


def test_output_is_not_withheld_when_the_clock_was_set_back() -> None:
    reader = LogReader(Position())
    reader.feed(frame(STDOUT, stamp(3_600_000_000_000), b"before\n"), LATE)
    now = stamp(5).encode()
    assert reader.feed(frame(STDOUT, stamp(4), b"after\n"), now) == (b"after\n", b"")
    assert reader.feed(frame(STDOUT, stamp(6), b"more\n"), now) == (b"more\n", b"")


def test_pieces_of_one_long_line_bear_one_time_and_are_counted() -> None:
    pieces: list[Entry] = [(STDOUT, stamp(1), bytes([65 + n])) for n in range(6)]
    reader = LogReader(Position())
    assert reader.feed(frames(pieces[:4]), LATE)[0] == b"ABCD"
    position = position_of(reader)
    assert position.out == Place(stamp(1), 4)
    assert LogReader(position).feed(frames(served(pieces, since_of(position))), LATE)[0] == b"EF"


def test_what_is_no_log_stream_is_refused() -> None:
    with pytest.raises(Failed, match="speaks another form"):
        LogReader(Position()).feed(b"HTTP/1.1 200 OK\r\n", LATE)


def test_the_beginning_is_asked_for_without_a_since() -> None:
    assert since_of(Position()) is None


def test_a_since_keeps_all_nine_digits() -> None:
    assert as_seconds("2026-01-01T00:00:01.123456789Z") == "1767225601.123456789"
    assert as_seconds("2026-01-01T00:00:01Z") == "1767225601.000000000"
    assert as_seconds("2026-01-01T00:00:01.5Z", back_s=1) == "1767225600.500000000"


def test_a_long_silent_kind_does_not_make_everything_be_read_again() -> None:
    position = Position(out=Place(stamp(0), 1), err=Place(stamp(1_800_000_000_000), 1))
    assert since_of(position) == as_seconds(stamp(1_790_000_000_000))


def test_an_instant_is_written_as_the_engine_writes_it() -> None:
    assert write_stamp(1767225601.25) == b"2026-01-01T00:00:01.250000000Z"


@pytest.mark.parametrize(
    ("last", "line_ended", "whole"),
    [
        (b"", False, True),
        (frame(STDOUT, stamp(5), b"end\n"), True, True),
        (frame(STDOUT, stamp(6), b"end\n"), True, False),
        (frame(STDERR, stamp(5), b"end\n"), True, False),
        (frame(STDOUT, stamp(5), b"piece"), True, False),
        (frame(STDOUT, stamp(5), b"end\n"), False, False),
    ],
)
def test_a_copy_is_whole_when_it_ends_with_the_logs_last_entry(last: bytes, line_ended: bool, whole: bool) -> None:
    position = Position(out=Place(stamp(5), 1), err=Place(stamp(4), 1))
    assert is_whole(position, last, (False, line_ended, line_ended)) is whole
