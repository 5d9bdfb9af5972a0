"""What one turn takes from the queue, writes and leaves for acting."""

from collections import deque
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.lib.errors import Conflict
from corral.runtime.core import Asked, Effect, Loaded, Persist, Refuse, Stop, Stored
from corral.runtime.turn import LOOK, Decider, Recorders, load
from corral.store.base import Record, StoreFailed, weigh


class Row(msgspec.Struct, frozen=True):
    n: int


class Say(Effect, frozen=True):
    n: int


class Echo:
    """A core whose inputs are the effects it returns."""

    def handle(self, input: Any, now: float) -> Sequence[Effect]:
        if isinstance(input, Exception):
            raise input
        if isinstance(input, Asked):
            raise input.command
        return list(input)

    def invariants(self) -> None: ...


class Witness:
    """A recorder that keeps what it is given."""

    def __init__(self) -> None:
        self.seen: list[tuple[Any, float, Any]] = []

    def record(self, input: Any, now: float, effects: Sequence[Effect] | None) -> None:
        self.seen.append((input, now, effects))

    def flush(self) -> str | None:
        return None

    def close(self) -> None: ...


def decider(*, drain: int = 100, most_writes: int = 100, recorder: Any = None) -> Decider:
    return Decider(Echo(), prefix="p/", drain=drain, most_writes=most_writes, recorder=recorder)


def row(n: int) -> bytes:
    return msgspec.msgpack.encode(Row(n))


def test_records_are_encoded_under_the_prefix_and_none_deletes() -> None:
    turn = decider().take(deque([[Persist("a", Row(1)), Say(1), Persist("b", None)]]), 0.0)
    assert turn.writes == {"p/a": row(1), "p/b": None}
    assert turn.acts == [Say(1)]
    assert turn.inputs == 1


def test_a_later_write_of_a_key_replaces_an_earlier_one() -> None:
    turn = decider().take(deque([[Persist("a", Row(1))], [Persist("a", None)], [Persist("a", Row(3))]]), 0.0)
    assert turn.writes == {"p/a": row(3)}


def test_the_drain_bounds_the_inputs_of_a_turn() -> None:
    queue: deque[Any] = deque([[Say(n)] for n in range(5)])
    turns = decider(drain=2)
    assert [turns.take(queue, 0.0).acts for _ in range(3)] == [[Say(0), Say(1)], [Say(2), Say(3)], [Say(4)]]


def test_a_turn_that_has_lasted_long_enough_leaves_the_rest_to_the_next() -> None:
    queue: deque[Any] = deque([Say(n)] for n in range(100))
    looks = iter([False, True])
    turn = decider().take(queue, 1.0, lambda: next(looks))
    assert (turn.inputs, len(queue)) == (2 * LOOK, 100 - 2 * LOOK)
    assert decider().take(queue, 1.0).inputs == 100 - 2 * LOOK


def test_an_input_that_no_longer_fits_opens_the_next_turn_with_all_its_effects() -> None:
    queue: deque[Any] = deque(
        [[Persist("a", Row(1)), Say(1)], [Say(2), Persist("b", Row(2)), Persist("c", Row(2))], [Say(3)]]
    )
    turns = decider(most_writes=2)
    first = turns.take(queue, 0.0)
    assert (first.writes, first.acts, turns.carries) == ({"p/a": row(1)}, [Say(1)], True)
    second = turns.take(queue, 0.0)
    assert (second.writes, second.acts, turns.carries) == ({"p/b": row(2), "p/c": row(2)}, [Say(2), Say(3)], False)


def test_writing_the_same_keys_again_takes_no_room() -> None:
    queue: deque[Any] = deque([[Persist("a", Row(n)), Persist("b", Row(n))] for n in range(10)])
    turns = decider(most_writes=2)
    assert turns.take(queue, 0.0).writes == {"p/a": row(9), "p/b": row(9)}
    assert not turns.carries


def test_an_input_that_writes_more_than_the_store_takes_fails_the_store() -> None:
    with pytest.raises(StoreFailed, match="writes 3 records at once but the store takes 2"):
        decider(most_writes=2).take(deque([[Persist(str(n), Row(n)) for n in range(3)]]), 0.0)


def test_an_input_that_weighs_too_much_opens_the_next_turn_and_one_that_always_does_fails_the_store() -> None:
    one = weigh({"p/0": row(0)})
    turns = Decider(Echo(), prefix="p/", drain=100, most_writes=100, most_bytes=2 * one)
    queue: deque[Any] = deque([[Persist(str(n), Row(n))] for n in range(5)])
    taken = []
    while queue or turns.carries:
        taken.append(turns.take(queue, 0.0).writes)
    assert [len(writes) for writes in taken] == [2, 2, 1]
    with pytest.raises(StoreFailed, match=f"writes {3 * one} bytes at once but the store takes {2 * one}"):
        turns.take(deque([[Persist(str(n), Row(n)) for n in range(3)]]), 0.0)


def test_an_input_that_writes_more_than_is_fair_has_a_turn_of_its_own() -> None:
    turns = Decider(Echo(), prefix="p/", drain=100, most_writes=100, fair_writes=2)
    queue: deque[Any] = deque([[Persist("a", Row(1))], [Persist(str(n), Row(n)) for n in range(5)], [Say(1)],
                               [Persist("b", Row(1))]])  # fmt: skip
    taken = []
    while queue or turns.carries:
        taken.append(turns.take(queue, 0.0))
    assert [(len(turn.writes), len(turn.acts)) for turn in taken] == [(1, 0), (5, 1), (1, 0)]


def test_nothing_is_decided_after_a_stop() -> None:
    queue: deque[Any] = deque([[Say(1), Stop("enough", 0), Say(2)], [Say(3)]])
    turn = decider().take(queue, 0.0)
    assert turn.acts == [Say(1), Stop("enough", 0), Say(2)]
    assert len(queue) == 1


def test_a_refused_command_leaves_only_its_refusal() -> None:
    error = Conflict("no")
    turn = decider().take(deque([Asked(7, error), [Say(1)]]), 0.0)
    assert turn.acts == [Refuse(7, error), Say(1)]


def test_each_input_is_recorded_with_its_time_and_effects() -> None:
    witness = Witness()
    decider(recorder=witness).take(deque([[Say(1)], [Say(2)]]), 5.0)
    assert witness.seen == [([Say(1)], 5.0, [Say(1)]), ([Say(2)], 5.0, [Say(2)])]


def test_the_input_on_which_a_core_fails_is_recorded_as_such() -> None:
    witness, bug = Witness(), KeyError("bug")
    with pytest.raises(KeyError):
        decider(recorder=witness).take(deque([bug]), 5.0)
    assert witness.seen == [(bug, 5.0, None)]


def test_loading_cuts_the_prefix_off_the_keys() -> None:
    assert load([Record("p/a", b"1", 3), Record("p/b/c", b"2", 4)], "p/") == Loaded(
        (Stored("a", b"1"), Stored("b/c", b"2"))
    )


writes = st.lists(st.tuples(st.sampled_from("abcdefgh"), st.one_of(st.none(), st.integers(0, 9))), max_size=4)


@given(st.lists(writes, max_size=20), st.integers(4, 8), st.integers(1, 6))
def test_turns_of_any_size_write_what_one_by_one_would_and_never_split_an_input(
    inputs: list[list[tuple[str, int | None]]], most_writes: int, drain: int
) -> None:
    effects = [[*(Persist(k, None if n is None else Row(n)) for k, n in w), Say(i)] for i, w in enumerate(inputs)]
    queue: deque[Any] = deque(effects)
    turns = decider(drain=drain, most_writes=most_writes)
    stored: dict[str, bytes | None] = {}
    said: list[Any] = []
    while queue or turns.carries:
        turn = turns.take(queue, 0.0)
        assert len(turn.writes) <= most_writes
        assert len(turn.acts) == turn.inputs <= drain
        stored.update(turn.writes)
        said += turn.acts
        # All that has been acted on is durable, whatever comes after.
        expected = {f"p/{k}": None if n is None else row(n) for w in inputs[: len(said)] for k, n in w}
        assert stored == expected
    assert said == [Say(i) for i in range(len(inputs))]


def test_several_recorders_are_told_the_same_and_each_may_end_by_itself() -> None:
    class Ending(Witness):
        """Ends with a reason, once."""

        def __init__(self, why: str | None) -> None:
            super().__init__()
            self.why, self.closed = why, False

        def flush(self) -> str | None:
            why, self.why = self.why, None
            return why

        def close(self) -> None:
            self.closed = True

    both = Ending("the disk is full"), Ending("it is too long")
    recorders = Recorders(*both)
    recorders.record("input", 1.0, [])
    recorders.record("bad", 2.0, None)
    assert both[0].seen == both[1].seen == [("input", 1.0, []), ("bad", 2.0, None)]
    assert recorders.flush() == "the disk is full; it is too long"
    assert recorders.flush() is None
    recorders.close()
    assert both[0].closed
    assert both[1].closed
