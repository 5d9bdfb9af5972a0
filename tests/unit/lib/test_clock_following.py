"""A clock that somebody sets makes nothing due at once and nothing wait: the time that is counted by goes on."""

from pathlib import Path

import pytest

from corral.lib.clock import FollowingClock, LastingClock


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


def lasting(clocks: Clocks, path: Path, boot: str = "b1") -> LastingClock:
    return LastingClock(str(path), boot, lambda: clocks.wall, lambda: clocks.steady)


@pytest.mark.parametrize("jump_s", [3600.0, -3600.0])
def test_a_clock_set_while_the_process_was_away_moves_no_instant_of_its_records(tmp_path: Path, jump_s: float) -> None:
    clocks = Clocks()
    due_at = lasting(clocks, tmp_path / "clock")() + 30.0
    clocks.pass_time(10.0)
    clocks.wall += jump_s
    assert due_at - lasting(clocks, tmp_path / "clock")() == pytest.approx(20.0, abs=1.0)


def test_what_it_has_caught_up_before_is_kept(tmp_path: Path) -> None:
    clocks = Clocks()
    first = lasting(clocks, tmp_path / "clock")
    first()
    clocks.wall += 60.0
    for _ in range(700):
        clocks.pass_time(1.0)
        now = first()
    assert now == pytest.approx(clocks.wall, abs=1e-6)
    clocks.wall += 1e6
    assert lasting(clocks, tmp_path / "clock")() == pytest.approx(now, abs=1.0)


def test_another_boot_begins_by_the_wall_clock_and_so_does_who_finds_nonsense(tmp_path: Path) -> None:
    clocks = Clocks()
    lasting(clocks, tmp_path / "clock")()
    clocks.steady, clocks.wall = 1.0, 5.0
    assert lasting(clocks, tmp_path / "clock", boot="b2")() == 5.0
    for text in ("", "b1", "b1 x\n", "b1 nan\n", "b1 1.0 2.0\n", "\x00" * 96):
        (tmp_path / "clock").write_text(text)
        assert lasting(clocks, tmp_path / "clock")() == 5.0
    assert lasting(clocks, tmp_path / "no" / "such")() == 5.0


def test_it_writes_only_when_the_wall_clock_goes_its_own_way(tmp_path: Path) -> None:
    clocks, path = Clocks(), tmp_path / "clock"
    clock = lasting(clocks, path)
    clock()
    path.unlink()
    for _ in range(1000):
        clocks.pass_time(60.0)
        clock()
    assert not path.exists()
    clocks.wall += 60.0
    clocks.pass_time(60.0)
    clock()
    assert path.exists()
