"""Which indexes of nodes a class searches: one per kind of node, and one per signature of the attributes in use."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from corral.allocator.engine.catalog import Catalog, Demand, Node, Signature, admits
from corral.allocator.engine.columns import SIGNATURES, WASTEFUL, State
from corral.allocator.engine.modes import Kernels
from corral.allocator.engine.tables import Tables


class Index:
    """Shapes: `nodes` and `demands` are shared with the engine, by row; a demand of None is a spare row."""

    def __init__(
        self, tables: Tables, kernels: Kernels, catalog: Catalog, nodes: dict[int, Node], demands: list[Demand | None]
    ) -> None:
        self._tables = tables
        self._kernels = kernels
        self._catalog = catalog
        self._nodes = nodes
        self._demands = demands
        self._pools: dict[tuple[bool, ...], int] = {}
        self._marks: dict[int, int] = {}
        self._count = 0
        self.changed = False

    @property
    def _state(self) -> State:
        return self._tables.state

    def use(self, kernels: Kernels) -> None:
        """Go on with another form of the kernels."""
        self._kernels = kernels

    def enlist(self, row: int) -> None:
        """Number a node's signature and its indexes."""
        node = self._nodes[row]
        number, new = self._catalog.sign(node)
        if new:
            signature = list(self._catalog.signatures)[number]
            if self._tables.ask_width("signatures", number + 1):
                self._state.meta[SIGNATURES] = self._tables.widths["signatures"]
            for cls, demand in enumerate(self._demands):
                if demand is not None:
                    self._sort_in(demand, cls, signature, number)
            self.changed = True
        has = tuple(amount > 0 for amount in node.total)
        if has not in self._pools:
            self._pools[has] = self._add()
        mark = -1
        if self._catalog.fields:
            if number not in self._marks:
                self._marks[number] = self._add()
            mark = self._marks[number]
        columns = self._state.nodes
        columns.signature[row], columns.pool[row], columns.mark[row] = number, self._pools[has], mark

    def enlist_all(self) -> None:
        """Tell all nodes apart anew, by the fields that are used now."""
        opened = [row for row in self._nodes if self._state.nodes.cell[row] >= 0]
        for row in opened:
            self._kernels.open_node(self._tables.holder, row, -1)
        self._marks.clear()
        self._pools.clear()
        self._count = 0
        for row in self._nodes:
            self.enlist(row)
        for row in opened:
            self.open(row)

    def open(self, row: int) -> None:
        """Put a node where its free amounts belong."""
        resources = self._tables.widths["resources"]
        free = self._state.nodes.free
        cell = int(
            self._kernels.cell_of(self._tables.holder, int(free[row * resources]), int(free[row * resources + 1]))
        )
        self._kernels.open_node(self._tables.holder, row, cell)

    def add_class(self, demand: Demand, cls: int) -> None:
        """Let a class find its nodes."""
        if self._catalog.learn_fields(demand):
            self.enlist_all()
        for signature, number in self._catalog.signatures.items():
            self._sort_in(demand, cls, signature, number)
        self.changed = True

    def rebuild(self) -> None:
        """Write down which indexes (or nodes) each class searches."""
        found: list[int] = []
        classes = self._state.classes
        pools = {index: Signature(has, (None,) * len(self._catalog.fields)) for has, index in self._pools.items()}
        known: dict[object, tuple[int, int, int]] = {}
        for cls, demand in enumerate(self._demands):
            if demand is None:
                continue
            key = demand.searches
            place = known.get(key)
            if place is None:
                begin = len(found)
                split = begin + self._list(demand, cls, pools, found)
                place = known[key] = begin, split, len(found)
            classes.begin[cls], classes.split[cls], classes.end[cls] = place
        self._tables.ask_rows("listed", len(found))
        listed = np.zeros(self._tables.rows["listed"], dtype=np.int64)
        listed[: len(found)] = found
        self._tables.put("classes", "listed", listed)
        self.changed = False

    def _list(self, demand: Demand, cls: int, pools: dict[int, Signature], found: list[int]) -> int:
        """Append what a class searches; returns how many of it come first."""
        if demand.fine:
            rows = [
                row for row in sorted(self._nodes) if admits(demand, self._nodes[row]) and row not in demand.refused
            ]
            found += rows
            return len(rows)
        tiers: Any = self._state.classes.tier
        at = cls * self._tables.widths["signatures"]
        if demand.constraints:
            by_tier = [(tiers[at + number], index) for number, index in sorted(self._marks.items())]
        else:
            by_tier = [(self._catalog.tier(demand, signature), index) for index, signature in pools.items()]
        first = [index for tier, index in by_tier if tier == 0]
        found += first
        found += [index for tier, index in by_tier if tier == WASTEFUL]
        return len(first)

    def _add(self) -> int:
        self._tables.ask_rows("index", self._count + 1)
        self._count += 1
        self.changed = True
        return self._count - 1

    def _sort_in(self, demand: Demand, cls: int, signature: Signature, number: int) -> None:
        at = cls * self._tables.widths["signatures"] + number
        self._state.classes.tier[at] = self._catalog.tier(demand, signature)


def rows_admitted(demand: Demand, nodes: dict[int, Node], rows: Iterable[int]) -> Any:
    """Which of these nodes the constraints of a class admit, one flag each."""
    return np.array([row not in demand.refused and admits(demand, nodes[row]) for row in rows], dtype=bool)
