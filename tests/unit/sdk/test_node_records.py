"""What is held against nodes outlives the process: few writes of bounded size, and nothing that has faded."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from corral.runtime.core import Effect, Loaded, Persist, SetTimer, Stored, encode_record
from corral.sdk.node_records import FADE, FADE_S, KEEP, KEEP_S, MOST_SUBJECTS, MOST_WRITES, RECORD, NodeMemory
from corral.sdk.nodes import HALF_LIFE_S, MOST_SHUN_S, SHUN_S


class Process:
    """A framework's memory of nodes with its timers and its store. Shapes: `writes` counts what was persisted."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now
        self.stored: dict[str, bytes] = {}
        self.writes = 0
        self.start()

    def start(self) -> None:
        self.timers: dict[str, float] = {}
        self.memory = NodeMemory()
        self.nodes = self.memory.scores
        self.perform(self.memory.load(Loaded(tuple(Stored(k, v) for k, v in sorted(self.stored.items()))), self.now))

    def perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Persist(key=key, record=None):
                    self.writes += 1
                    del self.stored[key]
                case Persist(key=key, record=record):
                    assert record is not None
                    self.writes += 1
                    self.stored[key] = encode_record(record)
                case SetTimer(name=name, delay_s=delay_s, if_unset=if_unset):
                    if not (if_unset and name in self.timers):
                        self.timers[name] = self.now + delay_s
                case _:
                    raise AssertionError(effect)

    def turn(self) -> None:
        """The end of a turn in which something may have been told to the scores."""
        self.perform(self.memory.settle())

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while self.timers and min(self.timers.values()) <= end:
            name, self.now = min(self.timers.items(), key=lambda timer: timer[1])
            del self.timers[name]
            self.perform(self.memory.tick(name, self.now))
            self.turn()
        self.now = end

    def fail(self, subject: str, hostname: str = "n1") -> None:
        self.nodes.fail(subject, hostname, 1.0, self.now)
        self.turn()


def fail_all(process: Process, hostname: str = "n1") -> None:
    for subject in ("/a", "/b", "/c") * 2:
        process.fail(subject, hostname)


def test_the_next_leader_avoids_the_same_nodes_for_the_same_reasons() -> None:
    process = Process()
    fail_all(process)
    until_at = process.nodes.shun("/a", "n2", "3 starts in a row failed there", process.now)
    process.turn()
    process.advance(KEEP_S)
    before = process.nodes.avoided(None, process.now)
    assert {(each.hostname, each.subject) for each in before} == {("n1", None), ("n2", "/a")}
    process.start()
    assert process.nodes.avoided(None, process.now) == before
    process.nodes.shun("/a", "n2", "again", process.now)
    again = [each for each in process.nodes.avoided("/a", process.now) if each.subject == "/a"]
    assert again[0].until_at == process.now + 2 * SHUN_S, "the second time in a row, as the first one is remembered"
    assert until_at < again[0].until_at


def test_a_node_where_all_fails_costs_one_write_in_a_while() -> None:
    process = Process()
    for n in range(1000):
        process.fail(f"/app{n % 200}")
        process.advance(0.01)
    assert process.writes <= 10.0 / KEEP_S + 1
    assert all(len(value) < 200 * MOST_SUBJECTS for value in process.stored.values())


def test_many_nodes_are_written_over_several_turns() -> None:
    process = Process()
    for n in range(3 * MOST_WRITES):
        process.nodes.fail("/a", f"n{n}", 1.0, process.now)
    process.turn()
    process.advance(KEEP_S)
    assert process.writes == MOST_WRITES
    process.advance(3 * KEEP_S)
    assert (process.writes, len(process.stored)) == (3 * MOST_WRITES, 3 * MOST_WRITES)


def test_success_and_time_leave_no_record_behind() -> None:
    process = Process()
    process.fail("/a")
    process.advance(KEEP_S)
    assert list(process.stored) == [f"{RECORD}n1"]
    process.nodes.last("/a", "n1", process.now)
    process.turn()
    process.advance(KEEP_S)
    assert process.stored == {}
    fail_all(process)
    process.nodes.shun("/a", "n1", "why", process.now)
    process.turn()
    process.advance(KEEP_S)
    process.start()
    process.advance(20 * HALF_LIFE_S)
    assert (process.stored, process.timers) == ({}, {})
    assert process.nodes.avoided(None, process.now) == ()


def test_a_subject_that_is_forgotten_is_forgotten_in_the_records_too() -> None:
    process = Process()
    process.nodes.shun("/a", "n1", "why", process.now)
    process.fail("/a", "n2")
    process.advance(KEEP_S)
    process.nodes.forget("/a")
    process.turn()
    process.advance(KEEP_S)
    assert process.stored == {}


def test_a_leader_whose_clock_was_ahead_holds_nothing_against_a_node_for_longer() -> None:
    process = Process(now=100_000.0)
    fail_all(process)
    process.nodes.shun("/a", "n2", "why", process.now)
    process.turn()
    process.advance(KEEP_S)
    process.now = 1000.0
    process.start()
    (shunned,) = (each for each in process.nodes.avoided("/a", process.now) if each.subject == "/a")
    assert shunned.until_at <= process.now + SHUN_S
    process.advance(20 * HALF_LIFE_S + MOST_SHUN_S)
    assert process.nodes.avoided(None, process.now) == ()


MOVES = st.lists(
    st.tuples(
        st.sampled_from(["fail", "last", "shun", "forget", "wait", "crash"]),
        st.sampled_from(["/a", "/b", "/c", "/d"]),
        st.sampled_from(["n1", "n2"]),
        st.floats(0.0, 400.0),
    ),
    max_size=40,
)


@given(MOVES)
def test_after_any_course_of_things_a_restart_changes_nothing_that_was_kept(
    moves: list[tuple[str, str, str, float]],
) -> None:
    process = Process()
    for move, subject, hostname, wait_s in moves:
        match move:
            case "fail":
                process.nodes.fail(subject, hostname, 1.0, process.now)
            case "last":
                process.nodes.last(subject, hostname, process.now)
            case "shun":
                process.nodes.shun(subject, hostname, "why", process.now)
            case "forget":
                process.nodes.forget(subject)
            case "wait":
                process.advance(wait_s)
            case "crash":
                process.advance(KEEP_S)
                before = process.nodes.avoided(None, process.now)
                process.start()
                assert process.nodes.avoided(None, process.now) == before
        process.turn()
    process.advance(KEEP_S)
    assert process.memory.kept == {
        key.removeprefix(RECORD): msgspec.msgpack.decode(
            value, type=type(process.memory.kept[key.removeprefix(RECORD)])
        )
        for key, value in process.stored.items()
    }
    process.advance(30 * HALF_LIFE_S + 3 * MOST_SHUN_S + 2 * FADE_S)
    assert process.stored == {}


def test_what_needs_no_timer_sets_none() -> None:
    process = Process()
    process.turn()
    assert process.timers == {}
    process.fail("/a")
    assert list(process.timers) == [KEEP]
    process.advance(KEEP_S)
    assert list(process.timers) == [FADE]
