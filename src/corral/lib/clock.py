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


def read_boot_id() -> str:
    """What this boot of the machine is called; another after each."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()
