"""The wall clock, behind a function type so that virtual time can take its place."""

import contextlib
import math
import os
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

    def __init__(
        self, wall: Clock = system_clock, steady: Clock = steady_clock, rate: float = 0.1, ahead_s: float | None = None
    ) -> None:
        """Units: `ahead_s` is how far it starts ahead of the steady clock, None to start as the wall clock."""
        self._wall = wall
        self._steady = steady
        self._rate = rate
        self._read_at = steady()
        self._now = wall() if ahead_s is None else self._read_at + ahead_s

    def __call__(self) -> float:
        read_at = self._steady()
        passed_s, self._read_at = max(0.0, read_at - self._read_at), read_at
        off_s = self._wall() - (self._now + passed_s)
        most_s = passed_s * self._rate
        self._now += passed_s + max(-most_s, min(most_s, off_s))
        return self._now

    @property
    def ahead_s(self) -> float:
        """Of the steady clock, as it was last read."""
        return self._now - self._read_at


class LastingClock:
    """A following clock that goes on where the last process of this boot has left it, as instants in its records do.

    Shapes: `path` is the file it is kept in. One that cannot be read or written costs no more than that the next
    process starts by the wall clock.
    """

    def __init__(self, path: str, boot: str, wall: Clock = system_clock, steady: Clock = steady_clock) -> None:
        self._path = path
        self._boot = boot
        self._kept_s = _read_ahead(path, boot)
        self._clock = FollowingClock(wall, steady, ahead_s=self._kept_s)

    def __call__(self) -> float:
        now, ahead_s = self._clock(), self._clock.ahead_s
        if self._kept_s is None or abs(ahead_s - self._kept_s) > _KEPT_WITHIN_S:
            self._kept_s = ahead_s
            with contextlib.suppress(OSError):
                _write_ahead(self._path, self._boot, ahead_s)
        return now


_KEPT_WITHIN_S = 0.5
_SIZE = 96


def _read_ahead(path: str, boot: str) -> float | None:
    try:
        with open(path, encoding="ascii") as file:
            found, ahead_s = file.read(_SIZE).split()
            return float(ahead_s) if found == boot and math.isfinite(float(ahead_s)) else None
    except (OSError, ValueError):
        return None


def _write_ahead(path: str, boot: str, ahead_s: float) -> None:
    """Written over in place: a full disk has the room already."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.pwrite(handle, f"{boot} {ahead_s!r}".ljust(_SIZE - 1).encode() + b"\n", 0)
    finally:
        os.close(handle)


def read_boot_id() -> str:
    """What this boot of the machine is called; another after each."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()
