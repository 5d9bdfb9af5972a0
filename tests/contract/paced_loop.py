"""An event loop whose time stands still while the machine gives its processor to others.

Tests of leases wait in real time, and a machine that runs much else lets a process wait for longer than a short lease
lasts. By this loop's time nothing is late: what it waits for counts as long as it wanted to wait, what it works as one
short step. Leases and clocks that are handed its `time` can then only end by what the test does.
"""

import asyncio
import selectors
import time
from collections.abc import Callable
from typing import Any

STEP_S = 0.005
"""What a round of the loop counts for at most, however long its work has taken."""

UNASKED_S = 0.1
"""What a wait counts for at most when no timer is set."""


class PacedSelector(selectors.DefaultSelector):
    """Shapes: `now` in seconds that never run faster than the real ones."""

    def __init__(self) -> None:
        super().__init__()
        self.now = time.monotonic()
        self._looked_at = self.now

    def select(self, timeout: float | None = None) -> list[Any]:
        begun = time.monotonic()
        found = super().select(timeout)
        ended = time.monotonic()
        self.now += min(begun - self._looked_at, STEP_S)
        self.now += min(ended - begun, UNASKED_S if timeout is None else max(0.0, timeout))
        self._looked_at = ended
        return found


class PacedLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._pace = PacedSelector()
        super().__init__(self._pace)

    def time(self) -> float:
        return self._pace.now


def paced_clock() -> Callable[[], float]:
    """What tells the time of the loop that runs, in other threads too."""
    return asyncio.get_running_loop().time
