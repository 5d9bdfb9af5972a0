"""All instants at which something of a task falls due, behind one named timer.

A deadline is set, moved and cancelled in constant time; what is stale in the heap is skipped when it comes up.
"""

from enum import StrEnum
from heapq import heapify, heappop, heappush

from corral.model.ids import ContainerId
from corral.runtime.core import Effect, SetTimer

TIMER = "deadlines"
_NEVER = float("inf")


class Due(StrEnum):
    """What falls due: an update to be told again, a stage that takes too long, an executor that should listen..."""

    UPDATE = "update"
    STAGE = "stage"
    KILL = "kill"
    COMPLETION = "completion"
    WAIT = "wait"
    DISCARD = "discard"
    PROBE = "probe"
    REGISTER = "register"


class Deadlines:
    __slots__ = ("_heap", "_live", "_marks", "_timer_at")

    def __init__(self) -> None:
        self._marks: dict[ContainerId, dict[Due, float]] = {}
        self._heap: list[tuple[float, ContainerId, Due]] = []
        self._live = 0
        self._timer_at = _NEVER

    def __len__(self) -> int:
        return self._live

    def set(self, container_id: ContainerId, due: Due, at: float) -> None:
        """Let it fall due at `at` and at no other time."""
        marks = self._marks.get(container_id)
        if marks is None:
            marks = self._marks[container_id] = {}
        if due not in marks:
            self._live += 1
        marks[due] = at
        heappush(self._heap, (at, container_id, due))
        if len(self._heap) > 4 * self._live + 256:
            self._compact()

    def cancel(self, container_id: ContainerId, due: Due) -> None:
        marks = self._marks.get(container_id)
        if marks is not None and marks.pop(due, None) is not None:
            self._live -= 1
            if not marks:
                del self._marks[container_id]

    def forget(self, container_id: ContainerId) -> None:
        """Cancel all of this container's."""
        self._live -= len(self._marks.pop(container_id, ()))

    def at(self, container_id: ContainerId, due: Due) -> float | None:
        return self._marks.get(container_id, {}).get(due)

    def pop(self, now: float) -> list[tuple[ContainerId, Due]]:
        """What has fallen due, in the order of its instants; to be called when the timer goes off."""
        self._timer_at = _NEVER
        found: list[tuple[ContainerId, Due]] = []
        while self._heap and self._heap[0][0] <= now:
            at, container_id, due = heappop(self._heap)
            if self.at(container_id, due) == at:
                self.cancel(container_id, due)
                found.append((container_id, due))
        return found

    def arm(self, now: float) -> list[Effect]:
        """Set the timer when something falls due earlier than it would go off; to be called at the end of an input."""
        while self._heap and self.at(self._heap[0][1], self._heap[0][2]) != self._heap[0][0]:
            heappop(self._heap)
        if not self._heap or self._heap[0][0] >= self._timer_at:
            return []
        self._timer_at = self._heap[0][0]
        return [SetTimer(TIMER, max(0.0, self._timer_at - now))]

    def _compact(self) -> None:
        self._heap = [(at, c, due) for c, marks in self._marks.items() for due, at in marks.items()]
        heapify(self._heap)
