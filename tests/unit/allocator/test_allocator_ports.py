from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from corral.allocator.ports import choose_ports, start_offset
from corral.model.resources import coalesce, count_range, cut_ranges

spans = st.tuples(st.integers(1, 60), st.integers(0, 9)).map(lambda t: (t[0], t[0] + t[1]))
free_lists = st.lists(spans, min_size=1, max_size=6).map(coalesce)


@given(free_lists, st.integers(0, 1000), st.integers(0, 80))
def test_chosen_ports_are_free_and_exactly_as_many_as_wanted(
    free: tuple[tuple[int, int], ...], offset: int, wanted: int
) -> None:
    wanted = min(wanted, count_range(free))
    chosen = choose_ports(free, wanted, offset)
    assert count_range(chosen) == wanted
    assert cut_ranges(chosen, free) == ()
    assert chosen == coalesce(chosen)


def test_ports_are_counted_from_the_offset_and_round_at_the_end() -> None:
    free = ((10, 12), (20, 21))
    assert choose_ports(free, 1, 0) == ((10, 10),)
    assert choose_ports(free, 2, 2) == ((12, 12), (20, 20))
    assert choose_ports(free, 3, 4) == ((10, 11), (21, 21))
    assert choose_ports(free, 0, 4) == ()


@given(st.integers(0, 1 << 64), st.integers(0, 10_000), st.integers(1, 60_000))
def test_an_offset_lies_within_the_free_list(seed: int, turn: int, count: int) -> None:
    assert 0 <= start_offset(seed, turn, count) < count


def test_offsets_of_consecutive_seeds_are_far_apart_and_reach_everywhere() -> None:
    offsets = [start_offset(seed, 0, 1000) for seed in range(500)]
    assert min(abs(a - b) for a, b in pairwise(offsets)) > 300
    assert len({o // 50 for o in offsets}) == 20
