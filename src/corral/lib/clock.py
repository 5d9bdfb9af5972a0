"""The wall clock, behind a function type so that virtual time can take its place."""

import time
from collections.abc import Callable

Clock = Callable[[], float]
"""Returns float seconds UTC since the epoch."""


def system_clock() -> float:
    return time.time()
