"""Which processes belong to a task."""

from hypothesis import given
from hypothesis import strategies as st

from corral.process.tree import Stat, descendants, is_same, kill_until_gone, parse_stat, session_members

LINE = b"%d (%s) %s 7 8 9 0 -1 4194560 1 0 0 0 2 3 0 0 20 0 %d 0 5151 1000 5 18446744073709551615 1\n"


def stat(pid: int, parent: int, session: int = 0, start: int = 100) -> Stat:
    return Stat(pid, parent, session, session, start, "S", 1)


def test_a_name_with_spaces_and_brackets_does_not_confuse() -> None:
    found = parse_stat(LINE % (42, b"my ) S (evil) name", b"R", 3))
    assert found == Stat(42, 7, 8, 9, 5151, "R", 3)


def test_a_first_thread_that_ended_before_the_others_is_no_dead_process() -> None:
    assert parse_stat(LINE % (42, b"a", b"Z", 1)).dead
    assert not parse_stat(LINE % (42, b"a", b"Z", 2)).dead
    assert not parse_stat(LINE % (42, b"a", b"S", 1)).dead


def test_descendants_are_all_below_but_not_oneself() -> None:
    processes = {s.pid: s for s in [stat(1, 0), stat(5, 1), stat(7, 5), stat(8, 7), stat(9, 1), stat(6, 5)]}
    assert [s.pid for s in descendants(5, processes)] == [6, 7, 8]
    assert descendants(8, processes) == []


@given(st.lists(st.integers(0, 30), max_size=30))
def test_every_descendant_has_its_parent_before_it(parents: list[int]) -> None:
    processes = {pid: stat(pid, parent % pid) for pid, parent in enumerate(parents, start=1)}
    seen = {0}
    for found in descendants(0, processes):
        assert found.parent in seen
        seen.add(found.pid)
    assert seen == {0, *processes}


def test_a_loop_of_parents_ends() -> None:
    assert [s.pid for s in descendants(1, {1: stat(1, 2), 2: stat(2, 1)})] == [2, 1]


def test_a_session_has_no_members_older_than_its_leader() -> None:
    processes = {s.pid: s for s in [stat(5, 1, session=5, start=100), stat(6, 1, session=5, start=99), stat(7, 1, 7)]}
    assert [s.pid for s in session_members(5, 100, processes)] == [5]


def test_a_pid_is_only_the_same_with_its_start() -> None:
    assert not is_same(1, -1)


def test_killing_ends_when_nothing_is_found() -> None:
    assert kill_until_gone(lambda: [])
