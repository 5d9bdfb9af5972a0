"""Which coarse offers come back, because a want that waits would fit with them.

An offer is a promise to nobody: a want that fits as soon as some are back is served in the next run. Until then nothing
of the agents concerned is handed out coarsely.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from corral.allocator.book import is_port_rule
from corral.allocator.entries import HoldEntry
from corral.allocator.lines import Key, Line
from corral.model.ids import AgentId, OfferId

if TYPE_CHECKING:
    from corral.allocator.allocator import Allocator

MOST_LOOKS = 2000
"""Agents looked at in one run; the wants left over are looked at in the next."""


def recall(allocator: "Allocator", waiting: Iterable[Line]) -> tuple[list[OfferId], dict[Key, tuple[AgentId, ...]]]:
    """The offers to take back, and the agents they are taken back on for each want."""
    search = _Search(allocator)
    served: dict[Key, tuple[AgentId, ...]] = {}
    if not search.held:
        return search.found, served
    for line in waiting:
        if search.looks <= 0:
            break
        line, count, gang = allocator.asked(line)
        if count < gang or line.cls < 0 or not allocator.engine.may_have(line.claimant, line.cls):
            continue
        for _ in range(count // gang):
            rows = search.make_room(line, gang)
            if not rows:
                break
            served[line.key] = (*served.get(line.key, ()), *(allocator.book.rows[row].view.id for row in rows))
    return search.found, served


class _Search:
    """Shapes: `held` are the offers by row that may still be taken back, the next one last; `found` those that are.

    `taken` is, by row, what instances take there of what came back.
    """

    def __init__(self, allocator: "Allocator") -> None:
        self._allocator = allocator
        # Taken from the end: the offer that has been out longest had its chance.
        self.held = {
            row: sorted(offers, key=lambda each: (-each.hold.since_at, each.hold.key))
            for row, offers in allocator.book.offers().items()
        }
        self.found: list[OfferId] = []
        self.looks = MOST_LOOKS
        self._taken: dict[int, list[int]] = {}

    def make_room(self, line: Line, count: int) -> list[int]:
        """The rows for so many instances together; none when they are not all to be had.

        A want that fits without any offer back waits for something else than offers.
        """
        suits = self._allocator.engine.could_take(line.cls, is_port_rule)
        shape = self._allocator.engine.demand(line.cls).shape
        before = {row: list(each) for row, each in self._taken.items()}
        rows: list[int] = []
        back: list[tuple[int, HoldEntry]] = []
        for _ in range(count):
            best = self._cheapest(line, suits)
            if best is None:
                break
            needed, row = best
            there = self._taken.get(row, [0] * len(shape))
            for _ in range(needed):
                entry = self.held[row].pop()
                back.append((row, entry))
                there = [a - b for a, b in zip(there, entry.held.amounts, strict=True)]
            self._taken[row] = [a + b for a, b in zip(there, shape, strict=True)]
            rows.append(row)
        if len(rows) < count or not (back or any(row in before for row in rows)):
            for row, entry in reversed(back):
                self.held[row].append(entry)
            self._taken = before
            return []
        for _, entry in back:
            assert entry.hold.offer_id is not None, "a coarse offer has an id"
            self.found.append(entry.hold.offer_id)
        return rows

    def _cheapest(self, line: Line, suits: "np.ndarray") -> tuple[int, int] | None:
        """How many offers have to come back for one instance where it takes the fewest, and the row."""
        best: tuple[int, int] | None = None
        for row in sorted(self.held, key=lambda each: (each not in self._taken, each)):
            if self.looks <= 0 or (best is not None and best[0] <= 1):
                break
            if suits[row]:
                self.looks -= 1
                needed = _offers_needed(self._allocator, line, row, self.held[row], self._taken.get(row))
                if needed is not None and (best is None or needed < best[0]):
                    best = needed, row
        return best


def _offers_needed(
    allocator: "Allocator", line: Line, row: int, offers: list[HoldEntry], taken: list[int] | None
) -> int | None:
    """How many of an agent's offers, the oldest first, make room for one instance; None when all of them do not.

    Shapes: `taken` is what other instances take there of what came back; GPUs and ports are looked at for the first.
    """
    engine = allocator.engine
    shape = np.array(engine.demand(line.cls).shape, dtype=np.int64)
    there = engine.columns().free[row] - np.array(taken or [0] * len(shape), dtype=np.int64)
    if taken is not None and line.view.want.fixed_ports:
        return None
    for needed in range(len(offers) + 1):
        if needed:
            there = there + np.array(offers[-needed].held.amounts, dtype=np.int64)
        if not bool((np.maximum(there, 0) >= shape).all()):
            continue
        if taken is not None:
            return needed
        with allocator.book.without(offers[len(offers) - needed :]):
            fits = engine.fits(row, line.cls)
        if fits:
            return needed
    return None
