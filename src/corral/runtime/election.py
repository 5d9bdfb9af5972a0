"""Decides who leads: what a candidate does about what it finds in the store, and how long a leader may act.

Laws: one key names the leader, and only who wrote it when it was not there leads, for as long as that very write
stands. It stands while the leader's lease does. A leader that cannot know that its lease stands does not act; one whose
write is gone never acts again. Source: etcd's election recipe; fencing tokens as in Chubby's sequencers.
"""

from enum import StrEnum

import msgspec

from corral.store.base import Guard, Record

LEADERSHIP_LOST = 75
"""The exit code of a process that led and may not any more; started again it stands by."""

DRIFT = 0.05
"""How much faster than ours the store's clock may run."""

BEATS = 3
"""How often a lease is renewed within its time: two renewals may fail."""


class LeadershipLost(Exception):
    """Another may lead already: this process must do nothing more, and end."""


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A record. Shapes: `id` is new with every start of a process, `url` is where it serves, `pid` on its host."""

    id: str
    url: str = ""
    version: str = ""
    pid: int = 0


class Sight(msgspec.Struct, frozen=True):
    """What was last seen of the leader's key. Shapes: `revision` 0 when nobody leads."""

    leader: Candidate | None = None
    revision: int = 0


class Move(StrEnum):
    """STAND: try to become the leader; FOLLOW: wait until the key changes; LEAD: the key is this candidate's."""

    STAND = "stand"
    FOLLOW = "follow"
    LEAD = "lead"


def leader_key(name: str) -> str:
    return f"election/{name}/leader"


def member_prefix(name: str) -> str:
    return f"election/{name}/members/"


def read_candidate(record: Record) -> Candidate:
    """Shapes: a record that cannot be read still names a leader, one whom nobody reaches."""
    try:
        return msgspec.msgpack.decode(record.value, type=Candidate)
    except msgspec.DecodeError:
        return Candidate(id="")


def see(record: Record | None) -> Sight:
    return Sight() if record is None else Sight(read_candidate(record), record.revision)


def choose_move(sight: Sight, own_id: str) -> Move:
    """Shapes: LEAD is found by a candidate whose write went through though its answer was lost."""
    if sight.leader is None:
        return Move.STAND
    return Move.LEAD if sight.leader.id == own_id else Move.FOLLOW


def acts_until(asked_at: float, ttl_s: float) -> float:
    """Until when a renewal that was asked for at `asked_at`, and given, lets its leader act. Units: seconds."""
    return asked_at + ttl_s * (1.0 - DRIFT)


def beat_s(ttl_s: float) -> float:
    """How long after a renewal the next is asked for."""
    return ttl_s / BEATS


def trusts(confirmed_at: float, now: float, ttl_s: float) -> bool:
    """Whether what was seen of the leader may still be told to others: a follower cut off from the store forgets it."""
    return now - confirmed_at < ttl_s


def fence(name: str, revision: int) -> tuple[Guard, ...]:
    """What every commit of the leader's process is guarded by."""
    return (Guard(leader_key(name), revision),)
