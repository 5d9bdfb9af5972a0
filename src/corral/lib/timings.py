"""How long something has taken lately: the newest durations, and what monitoring asks of them.

Source: the timers of Mesos' metrics: the last duration under the plain name, the rest below it.
"""

from collections import deque
from collections.abc import Mapping

MOST_KEPT = 1000

_PARTS = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p999": 0.999, "p9999": 0.9999}


class Timings:
    """Units: milliseconds; the newest `MOST_KEPT` count."""

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: deque[float] = deque(maxlen=MOST_KEPT)

    def add(self, duration_s: float) -> None:
        self._kept.append(duration_s * 1000)

    def read(self, name: str) -> Mapping[str, float]:
        """The numbers under their names. Shapes: all are 0 while nothing was measured."""
        found = sorted(self._kept) or [0.0]
        numbers = {
            name: self._kept[-1] if self._kept else 0.0,
            f"{name}/count": float(len(self._kept)),
            f"{name}/min": found[0],
            f"{name}/max": found[-1],
        }
        for part, quantile in _PARTS.items():
            numbers[f"{name}/{part}"] = _interpolate(found, quantile)
        return numbers


def _interpolate(found: list[float], quantile: float) -> float:
    at = quantile * (len(found) - 1)
    low = int(at)
    high = min(low + 1, len(found) - 1)
    return found[low] + (found[high] - found[low]) * (at - low)
