"""Many instants behind one timer."""

from hypothesis import given
from hypothesis import strategies as st

from corral.agent.deadlines import Deadlines, Due
from corral.model.ids import ContainerId
from corral.runtime.core import SetTimer

A, B = ContainerId("a"), ContainerId("b")


def test_the_timer_is_set_for_the_earliest_and_not_again() -> None:
    deadlines = Deadlines()
    deadlines.set(A, Due.STAGE, 20.0)
    assert deadlines.arm(10.0) == [SetTimer("deadlines", 10.0)]
    assert deadlines.arm(10.0) == []
    deadlines.set(B, Due.UPDATE, 30.0)
    assert deadlines.arm(10.0) == []
    deadlines.set(B, Due.KILL, 15.0)
    assert deadlines.arm(10.0) == [SetTimer("deadlines", 5.0)]


def test_what_is_moved_or_cancelled_does_not_fall_due() -> None:
    deadlines = Deadlines()
    deadlines.set(A, Due.UPDATE, 10.0)
    deadlines.set(A, Due.UPDATE, 20.0)
    deadlines.set(A, Due.KILL, 12.0)
    deadlines.cancel(A, Due.KILL)
    deadlines.set(B, Due.STAGE, 5.0)
    deadlines.forget(B)
    assert deadlines.pop(15.0) == []
    assert deadlines.pop(20.0) == [(A, Due.UPDATE)]
    assert len(deadlines) == 0


def test_after_the_timer_went_off_it_is_set_for_the_next() -> None:
    deadlines = Deadlines()
    deadlines.set(A, Due.UPDATE, 10.0)
    deadlines.set(B, Due.UPDATE, 20.0)
    deadlines.arm(0.0)
    assert deadlines.pop(10.0) == [(A, Due.UPDATE)]
    assert deadlines.arm(10.0) == [SetTimer("deadlines", 10.0)]


def test_what_is_overdue_falls_due_at_once() -> None:
    deadlines = Deadlines()
    deadlines.set(A, Due.UPDATE, 10.0)
    assert deadlines.arm(99.0) == [SetTimer("deadlines", 0.0)]


def test_a_long_life_leaves_no_heap_behind() -> None:
    deadlines = Deadlines()
    for n in range(10_000):
        deadlines.set(A, Due.UPDATE, float(n))
        deadlines.set(ContainerId(f"c{n}"), Due.STAGE, n + 300.0)
        deadlines.forget(ContainerId(f"c{n}"))
    assert len(deadlines) == 1
    assert len(deadlines._heap) <= 300


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["set", "cancel", "forget", "pop"]),
        st.sampled_from([A, B]),
        st.sampled_from([Due.UPDATE, Due.KILL]),
        st.integers(0, 30),
    ),
    max_size=40,
)


@given(STEPS)
def test_it_agrees_with_a_plain_table(steps: list[tuple[str, ContainerId, Due, int]]) -> None:
    deadlines, table = Deadlines(), dict[tuple[ContainerId, Due], float]()
    for what, container_id, due, at in steps:
        match what:
            case "set":
                deadlines.set(container_id, due, float(at))
                table[(container_id, due)] = float(at)
            case "cancel":
                deadlines.cancel(container_id, due)
                table.pop((container_id, due), None)
            case "forget":
                deadlines.forget(container_id)
                table = {k: v for k, v in table.items() if k[0] != container_id}
            case "pop":
                expected = sorted((v, k) for k, v in table.items() if v <= at)
                assert deadlines.pop(float(at)) == [k for _, k in expected]
                table = {k: v for k, v in table.items() if v > at}
        assert len(deadlines) == len(table)
        for key in ((A, Due.UPDATE), (B, Due.KILL)):
            assert deadlines.at(*key) == table.get(key)
