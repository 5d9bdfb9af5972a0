"""The wall clock, behind a function type so that virtual time can take its place."""

import time
from collections.abc import Callable

Clock = Callable[[], float]
"""Returns float seconds UTC since the epoch."""


def system_clock() -> float:
    return time.time()


def steady_clock() -> float:
    """Seconds since this machine came up, its sleep among them: nobody sets it, and it begins anew with each boot."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def stopwatch() -> float:
    """Seconds since some instant, as exact as this machine has them: for how long something takes."""
    return time.perf_counter()


class FollowingClock:
    """The time of day as it goes on, whoever sets the wall clock meanwhile.

    It starts as the wall clock and follows it, at a rate that keeps the seconds between two readings nearly true. A
    wall clock that is set, by an hour or a year, would else end everybody's patience at once or stretch it by as much.

    Units: `rate` is how much faster or slower than a steady clock it may go while it follows.
    """

    def __init__(self, wall: Clock = system_clock, steady: Clock = steady_clock, rate: float = 0.1) -> None:
        self._wall = wall
        self._steady = steady
        self._rate = rate
        self._read_at = steady()
        self._now = wall()

    def __call__(self) -> float:
        read_at = self._steady()
        passed_s, self._read_at = max(0.0, read_at - self._read_at), read_at
        off_s = self._wall() - (self._now + passed_s)
        most_s = passed_s * self._rate
        self._now += passed_s + max(-most_s, min(most_s, off_s))
        return self._now


def read_boot_id() -> str:
    """What this boot of the machine is called; another after each."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()
