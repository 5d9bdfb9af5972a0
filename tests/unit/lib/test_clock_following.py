"""A clock that somebody sets makes nothing due at once and nothing wait: the time that is counted by goes on."""

import pytest

from corral.lib.clock import FollowingClock


class Clocks:
    """A machine whose wall clock can be set."""

    def __init__(self) -> None:
        self.steady = 50.0
        self.wall = 1_000_000.0
        self.following = FollowingClock(lambda: self.wall, lambda: self.steady)

    def pass_time(self, seconds: float) -> None:
        self.steady += seconds
        self.wall += seconds

    def elapsed(self, seconds: float) -> float:
        """What the following clock says has passed while so many seconds did."""
        before = self.following()
        self.pass_time(seconds)
        return self.following() - before


def test_it_is_the_wall_clock_as_long_as_nobody_sets_that() -> None:
    clocks = Clocks()
    for seconds in (0.001, 5.0, 3600.0):
        clocks.pass_time(seconds)
        assert clocks.following() == pytest.approx(clocks.wall, abs=1e-6)


@pytest.mark.parametrize("jump_s", [3600.0, -3600.0, 1e9])
def test_seconds_stay_nearly_seconds_when_the_wall_clock_is_set(jump_s: float) -> None:
    clocks = Clocks()
    clocks.wall += jump_s
    assert clocks.following() == pytest.approx(1_000_000.0)
    assert clocks.elapsed(10.0) == pytest.approx(11.0 if jump_s > 0 else 9.0)


def test_it_catches_up_and_then_is_right_again() -> None:
    clocks = Clocks()
    clocks.wall += 60.0
    for _ in range(700):
        clocks.pass_time(1.0)
        clocks.following()
    assert clocks.following() == pytest.approx(clocks.wall, abs=1e-6)


def test_it_never_goes_back_however_the_wall_clock_is_set() -> None:
    clocks, last = Clocks(), 0.0
    for jump_s in (5.0, -7200.0, 1e6, -1e6, 0.0):
        clocks.wall += jump_s
        for _ in range(5):
            clocks.pass_time(0.5)
            now = clocks.following()
            assert now > last
            last = now
