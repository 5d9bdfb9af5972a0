from hypothesis import given
from hypothesis import strategies as st

from corral.lib.backoff import grow_delay_s


def test_the_first_delay_comes_after_the_first_failure_and_then_it_grows() -> None:
    delays = [grow_delay_s(n, first_s=1.0, factor=1.15, most_s=300.0) for n in range(4)]
    assert delays == [0.0, 1.0, 1.15, 1.15**2]


def test_doubling_from_ten_seconds_ends_at_ten_minutes() -> None:
    delays = [grow_delay_s(n, first_s=10.0, factor=2.0, most_s=600.0) for n in range(1, 9)]
    assert delays == [10, 20, 40, 80, 160, 320, 600, 600]


@given(st.integers(-5, 10**9), st.floats(0.001, 100), st.floats(1, 10), st.floats(0.001, 1e6))
def test_a_delay_is_never_negative_nor_above_the_most(tries: int, first: float, factor: float, most: float) -> None:
    assert 0 <= grow_delay_s(tries, first_s=first, factor=factor, most_s=most) <= most


@given(st.integers(0, 200))
def test_delays_never_shrink(tries: int) -> None:
    before = grow_delay_s(tries, first_s=0.5, factor=2, most_s=60)
    assert grow_delay_s(tries + 1, first_s=0.5, factor=2, most_s=60) >= before
