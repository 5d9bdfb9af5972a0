"""Which coarse offers come back, because a want that waits would fit with them.

An offer is a promise to nobody: a want that fits as soon as some are back is served in the next run. Until then nothing
of the agents concerned is handed out coarsely.
"""

from collections.abc import Iterable

from corral.allocator.nodes import PORTS, Mask, Nodes, plain
from corral.allocator.ports import choose_ports
from corral.allocator.roles import Line
from corral.allocator.shapes import Shape, counting_mask, static_mask
from corral.allocator.view import HeldOffer
from corral.model.ids import OfferId
from corral.model.resources import Resources, add, all_ranges, contains, count_range, cut_ranges, ports, subtract

MOST_LOOKS = 10_000
"""Agents looked at in one run; the wants left over are looked at in the next."""


class Recall:
    """The offers to take back. Shapes: `kept` are the rows they are taken back on."""

    def __init__(self, nodes: Nodes, held: Iterable[HeldOffer]) -> None:
        self.offers: list[OfferId] = []
        self.kept: set[int] = set()
        self._nodes = nodes
        self._looks = MOST_LOOKS
        self._hopeless: set[int] = set()
        self._static: dict[int, Mask] = {}
        self._held: dict[int, list[HeldOffer]] = {}
        for offer in held:
            row = nodes.rows.get(offer.agent_id)
            if row is not None:
                self._held.setdefault(row, []).append(offer)
        for offers in self._held.values():
            # Taken from the end: the offer that has been out longest had its chance.
            offers.sort(key=lambda offer: (-offer.made_at, offer.id))
        self._free: dict[int, Resources] = {}

    def serve(self, line: Line) -> list[int]:
        """Take back what the line's instances need; returns a row for each that will fit then."""
        rows: list[int] = []
        while len(rows) < line.left:
            found = self._find(line)
            if found is None:
                break
            row, offers = found
            there = self._there(row)
            for _ in range(offers):
                offer = self._held[row].pop()
                self.offers.append(offer.id)
                there = add(there, plain(offer.resources))
            self._free[row] = _without(there, line.placement.shape)
            self.kept.add(row)
            line.placement.group.add(row)
            rows.append(row)
        return rows

    def _find(self, line: Line) -> tuple[int, int] | None:
        """The row that needs the fewest offers back, and how many."""
        placement = line.placement
        shape = placement.shape
        if id(shape) in self._hopeless:
            return None
        if id(shape) not in self._static:
            self._static[id(shape)] = static_mask(self._nodes, shape.key)
        mask = self._static[id(shape)]
        if placement.refused:
            mask = mask & ~placement.refused_mask()
        for constraint in placement.counting:
            mask = mask & counting_mask(self._nodes, constraint, placement.group, placement.group_size)
        best: tuple[int, int] | None = None
        for row in (*sorted(self.kept), *sorted(self._held.keys() - self.kept)):
            if self._looks <= 0 or (best is not None and best[1] <= 1):
                break
            if mask[row]:
                self._looks -= 1
                offers = self._offers_needed(row, shape)
                if offers is not None and (best is None or offers < best[1]):
                    best = row, offers
        if best is None and not placement.refused and not placement.counting:
            self._hopeless.add(id(shape))
        return best

    def _offers_needed(self, row: int, shape: Shape) -> int | None:
        there = self._there(row)
        if _holds(there, shape):
            return 0
        for offers, offer in enumerate(reversed(self._held.get(row, ())), start=1):
            there = add(there, plain(offer.resources))
            if _holds(there, shape):
                return offers
        return None

    def _there(self, row: int) -> Resources:
        return self._free[row] if row in self._free else plain(self._nodes.rest(row))


def _holds(there: Resources, shape: Shape) -> bool:
    return (
        contains(there, shape.scalars)
        and contains(there, shape.others)
        and count_range(all_ranges(there, PORTS)) >= shape.port_count
    )


def _without(there: Resources, shape: Shape) -> Resources:
    left = subtract(subtract(there, shape.scalars), shape.others)
    if shape.key.ports:
        free = cut_ranges(all_ranges(there, PORTS), shape.fixed_ports)
        left = subtract(left, (ports(*choose_ports(free, shape.key.ports, 0)),))
    return left
