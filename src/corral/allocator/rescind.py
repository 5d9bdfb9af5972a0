"""Which coarse offers come back, because a want that waits would fit with them.

An offer is a promise to nobody: a want that fits as soon as some are back is served in the next run. Until then nothing
of the agents concerned is handed out coarsely.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from corral.allocator.book import AgentEntry, HoldEntry
from corral.allocator.lines import Key, Line
from corral.model.ids import AgentId, OfferId

if TYPE_CHECKING:
    from corral.allocator.allocator import Allocator

MOST_LOOKS = 2000
"""Agents looked at in one run; the wants left over are looked at in the next."""


def recall(allocator: "Allocator", waiting: Iterable[Line]) -> tuple[list[OfferId], dict[Key, tuple[AgentId, ...]]]:
    """The offers to take back, and the agents they are taken back on for each want."""
    # Taken from the end: the offer that has been out longest had its chance.
    held: dict[int, list[HoldEntry]] = {
        row: sorted(offers.values(), key=lambda each: (-each.hold.since_at, each.hold.key))
        for row, offers in allocator.book.offered.items()
    }
    found: list[OfferId] = []
    kept: set[AgentId] = set()
    served: dict[Key, tuple[AgentId, ...]] = {}
    if not held:
        return found, served
    looks = MOST_LOOKS
    taken: dict[int, list[int]] = {}
    for line in waiting:
        if line.cls < 0:
            continue
        suits = allocator.engine.could_take(line.cls)
        shape = np.array(allocator.engine.demand(line.cls).shape, dtype=np.int64)
        for _ in range(line.view.missing):
            best: tuple[int, int] | None = None
            for row in sorted(held, key=lambda each: (allocator.book.rows[each].view.id not in kept, each)):
                if looks <= 0 or (best is not None and best[0] <= 1):
                    break
                if suits[row]:
                    looks -= 1
                    needed = _offers_needed(allocator.book.rows[row], held[row], taken.get(row, []), shape, allocator)
                    if needed is not None and (best is None or needed < best[0]):
                        best = needed, row
            if best is None:
                break
            count, row = best
            there = taken.setdefault(row, [0] * len(shape))
            for _ in range(count):
                entry = held[row].pop()
                assert entry.hold.offer_id is not None, "a coarse offer has an id"
                found.append(entry.hold.offer_id)
                taken[row] = there = [a - b for a, b in zip(there, entry.held.amounts, strict=True)]
            taken[row] = [a + int(b) for a, b in zip(there, shape, strict=True)]
            agent_id = allocator.book.rows[row].view.id
            kept.add(agent_id)
            served[line.key] = (*served.get(line.key, ()), agent_id)
    return found, served


def _offers_needed(
    agent: AgentEntry, offers: list[HoldEntry], taken: list[int], shape: np.ndarray, allocator: "Allocator"
) -> int | None:
    """How many of an agent's offers, the oldest first, make room for one instance; None when all of them do not."""
    free = allocator.engine.columns().free[agent.row]
    there = free - np.array(taken, dtype=np.int64) if taken else free.copy()
    for needed in range(len(offers) + 1):
        if needed:
            there = there + np.array(offers[-needed].held.amounts, dtype=np.int64)
        if bool((there >= shape).all()):
            return needed
    return None
