"""RecordIO: records may come in any pieces; what is no record is refused for good."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corral.lib.errors import Invalid
from corral.mesos.recordio import RecordReader, encode


def test_a_record_is_its_length_a_newline_and_the_bytes():
    assert encode(b'{"type":"HEARTBEAT"}') == b'20\n{"type":"HEARTBEAT"}'
    assert encode("ü".encode()) == b"2\n\xc3\xbc"


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(max_size=30), max_size=6), st.lists(st.integers(1, 9), min_size=1))
def test_records_come_out_whole_however_the_bytes_are_cut(records, cuts):
    stream = b"".join(encode(r) for r in records)
    reader, found, at, turn = RecordReader(), [], 0, 0
    while at < len(stream):
        step = cuts[turn % len(cuts)]
        found += reader.feed(stream[at : at + step])
        at, turn = at + step, turn + 1
    assert found == records
    assert reader.is_idle


def test_a_stream_that_ends_within_a_record_is_not_idle():
    reader = RecordReader()
    assert reader.feed(b"5\nab") == []
    assert not reader.is_idle
    assert reader.feed(b"cde1") == [b"abcde"]
    assert not reader.is_idle


@pytest.mark.parametrize("start", [b"x\n", b"-1\n", b"+3\nabc", b" 3\nabc", b"1_0\n", b"\n", b"{", b"9" * 21])
def test_what_does_not_start_with_a_length_is_refused(start):
    reader = RecordReader()
    with pytest.raises(Invalid, match="does not speak RecordIO"):
        reader.feed(start)
    with pytest.raises(Invalid, match="does not speak RecordIO"):
        reader.feed(b"1\na")


def test_a_record_above_the_limit_is_refused_before_it_is_gathered():
    reader = RecordReader(most_bytes=10)
    assert reader.feed(b"10\n0123456789") == [b"0123456789"]
    with pytest.raises(Invalid, match="11 bytes is larger than 10"):
        reader.feed(b"11\n")


def test_records_before_a_broken_one_in_the_same_bytes_are_lost_with_the_stream():
    reader = RecordReader()
    assert reader.feed(b"1\na") == [b"a"]
    with pytest.raises(Invalid):
        reader.feed(b"1\nbBAD\n")
