"""Who leads, and for how long it may act."""

import msgspec

from corral.runtime.election import (
    Candidate,
    Move,
    Sight,
    acts_until,
    beat_s,
    choose_move,
    fence,
    read_candidate,
    see,
    trusts,
)
from corral.store.base import Guard, Record

OWN = Candidate(id="own", url="http://a:1")


def record(candidate: Candidate, revision: int = 7) -> Record:
    return Record("election/master/leader", msgspec.msgpack.encode(candidate), revision)


def test_a_candidate_stands_only_where_nobody_leads() -> None:
    assert choose_move(see(None), "own") is Move.STAND
    assert choose_move(see(record(Candidate(id="other"))), "own") is Move.FOLLOW
    assert choose_move(see(record(OWN)), "own") is Move.LEAD


def test_what_is_seen_names_the_write_that_made_the_leader() -> None:
    assert see(record(OWN)) == Sight(OWN, 7)
    assert fence("master", 7) == (Guard("election/master/leader", 7),)


def test_a_record_that_cannot_be_read_still_means_that_somebody_leads() -> None:
    broken = Record("election/master/leader", b"\xc1", 3)
    assert read_candidate(broken) == Candidate(id="")
    assert choose_move(see(broken), "own") is Move.FOLLOW


def test_a_record_of_a_later_release_is_read_without_what_is_new_in_it() -> None:
    later = msgspec.msgpack.encode({"id": "x", "url": "http://x:1", "region": "eu"})
    assert read_candidate(Record("k", later, 1)) == Candidate(id="x", url="http://x:1")


def test_a_leader_stops_to_act_before_its_lease_can_have_ended() -> None:
    """From when the renewal was asked for, not from when it was answered, and with room for clocks that differ."""
    assert 100.0 < acts_until(100.0, 10.0) < 110.0
    assert beat_s(10.0) * 3 <= 10.0


def test_what_was_seen_of_the_leader_is_forgotten_after_the_time_of_a_lease() -> None:
    assert trusts(100.0, 109.9, 10.0)
    assert not trusts(100.0, 110.0, 10.0)
