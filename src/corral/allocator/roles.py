"""Whose turn it is: the role with the smallest share, and in it the want that comes first.

Within a role: higher priority, then longer waiting, then the framework with the smaller share. One instance at a time
(progressive filling), so that equal roles that both wait never differ by more than one instance.
"""

import heapq
from collections.abc import Iterable

from corral.allocator.shapes import Placement
from corral.allocator.share import Shares
from corral.allocator.view import WantView


class Line:
    """A want standing in line. Shapes: `left` instances are still to be placed."""

    __slots__ = ("left", "placement", "view")

    def __init__(self, view: WantView, placement: Placement) -> None:
        self.view = view
        self.left = view.missing
        self.placement = placement


_RoleKey = tuple[float, int, str]
_LineKey = tuple[int, float, float, int, str, str, Line]


class FairQueue:
    """All lines in fair order. Shares are compared only where there are two to compare."""

    __slots__ = ("_alone", "_lines", "_roles", "_shares")

    def __init__(self, lines: Iterable[Line], shares: Shares) -> None:
        self._shares = shares
        by_role: dict[str, list[Line]] = {}
        for line in lines:
            by_role.setdefault(line.view.want.role, []).append(line)
        self._alone = {role: len({line.view.framework_id for line in each}) == 1 for role, each in by_role.items()}
        self._lines: dict[str, list[_LineKey]] = {
            role: [self._line_key(line) for line in each] for role, each in by_role.items()
        }
        for heap in self._lines.values():
            heapq.heapify(heap)
        self._roles: list[_RoleKey] = [self._role_key(role) for role in self._lines]
        heapq.heapify(self._roles)

    def head(self) -> Line | None:
        """The line whose turn it is; `leave` or `step` tells what became of it."""
        if not self._roles:
            return None
        heap = self._lines[self._roles[0][2]]
        while True:
            line = heap[0][-1]
            current = self._line_key(line)
            # A share that grew since the line was put in place moves it back.
            if current[2:4] == heap[0][2:4]:
                return line
            heapq.heapreplace(heap, current)

    def leave(self) -> None:
        """Nothing fits the head: it goes, its role keeps its place."""
        heap = self._lines[self._roles[0][2]]
        heapq.heappop(heap)
        if not heap:
            heapq.heappop(self._roles)

    def step(self) -> None:
        """The head was given one instance and its role was charged; it goes when it has no more to ask."""
        role = self._roles[0][2]
        heap = self._lines[role]
        if heap[0][-1].left == 0:
            heapq.heappop(heap)
        if heap:
            heapq.heapreplace(self._roles, self._role_key(role))
        else:
            heapq.heappop(self._roles)

    def enter(self, line: Line) -> None:
        """A line that left comes back."""
        role = line.view.want.role
        heap = self._lines[role]
        if not heap:
            heapq.heappush(self._roles, self._role_key(role))
        heapq.heappush(heap, self._line_key(line))

    def _role_key(self, role: str) -> _RoleKey:
        share, count = self._shares.of_role(role) if len(self._lines) > 1 else (0.0, 0)
        return share, count, role

    def _line_key(self, line: Line) -> _LineKey:
        view = line.view
        want = view.want
        share, count = (0.0, 0) if self._alone[want.role] else self._shares.of_framework(want.role, view.framework_id)
        return -want.priority, view.since_at, share, count, view.framework_id, want.id, line
