"""Tells how much of an agent's free GPU the usual tasks could use: the table of usual demands and two measures of it.

All sums are of whole numbers below 2**53, so that they are equal however the rows are batched.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from corral.allocator.packing import WHOLE, Cluster, Demand, Floats, Ints, Mask, Rows, part_of

MOST_USUAL = 256
"""How many demands of different shape are looked at; rarer ones weigh next to nothing."""

AT_ONCE = 12_288
"""How many numbers one step of `usable` works on: larger arrays are new memory each time, which costs more."""

PLENTY = float(1 << 40)
"""How many thousandths of GPU unlimited cpu or memory would feed."""


class Usual:
    """The demands for GPUs that usually come, as flat columns. Shapes: T shapes, R models, C ways to ask GPUs.

    `weights` (R by T) counts the arrivals of a shape that would run on a model; `total` counts all, with GPUs or not.
    """

    __slots__ = ("by_cpu", "by_mem", "column", "cpu", "gpus", "idle", "lacking", "milli", "slots", "total", "weights")

    def __init__(self, cluster: Cluster, counts: Mapping[Demand, int]) -> None:
        shapes: dict[tuple[int, int, int, int], Ints] = {}
        self.total = 0
        for demand, count in counts.items():
            self.total += count
            if demand.gpus:
                shape = (demand.cpu_milli, demand.mem_mb, demand.gpus, demand.gpu_milli)
                zeros = np.zeros(len(cluster.models), dtype=np.int64)
                shapes[shape] = shapes.get(shape, zeros) + count * cluster.allowed(demand)
        often = sorted(shapes, key=lambda s: (-int(shapes[s].max(initial=0)), s))[:MOST_USUAL]
        self.weights: Floats = np.zeros((len(cluster.models), len(often)))
        for i, shape in enumerate(often):
            self.weights[:, i] = shapes[shape]
        self.cpu, self.gpus = _column(often, 0), _column(often, 2)
        self.milli: Ints = self.gpus * _column(often, 3)
        self.by_cpu = _per(self.milli, self.cpu)
        self.by_mem = _per(self.milli, _column(often, 1))
        ways = sorted({(shape[2], shape[3]) for shape in often})
        self.column: Ints = np.array([ways.index((s[2], s[3])) for s in often], dtype=np.int64)
        self._tabulate(ways)

    def usable(self, rows: Rows) -> Floats:
        """Thousandths of free GPU that copies of one usual demand could fill, summed over arrivals of all of them.

        An idle GPU whose agent has no CPU or memory left to go with it does not count, nor what a slice leaves over.
        """
        step = max(1, AT_ONCE // max(1, len(self.column)))
        if len(rows.agents) <= step:
            return self._usable(rows)
        parts = (slice(at, at + step) for at in range(0, len(rows.agents), step))
        return np.concatenate([self._usable(part_of(rows, part)) for part in parts])

    def _usable(self, rows: Rows) -> Floats:
        slots = self.slots[rows.gpu.T].sum(axis=0)
        placed = (slots // self.idle[:, 0] * self.idle[:, 1]).astype(np.float64)[:, self.column]
        fed = np.multiply.outer(rows.cpu, self.by_cpu)
        np.minimum(fed, np.multiply.outer(rows.mem, self.by_mem), out=fed)
        filled = np.minimum(placed, np.floor(fed, out=fed), out=fed)
        filled *= self.weights[rows.model]
        return np.asarray(filled.sum(axis=1))

    def unusable(self, rows: Rows) -> Floats:
        """Thousandths of free GPU that one more task could not use, summed over arrivals: FGD's fragmentation.

        Memory is left out and tasks without GPUs can use none, as in the source.
        Source: Weng et al., USENIX ATC'23, section 4.
        """
        free = rows.gpu.sum(axis=1).astype(np.float64)
        enough: Mask = (self.slots[rows.gpu] > 0).sum(axis=1)[:, self.column] >= self.gpus
        enough &= rows.cpu[:, None] >= self.cpu
        lacking = self.lacking[rows.gpu].sum(axis=1)[:, self.column]
        usable = np.where(enough, free[:, None] - lacking, 0.0) * self.weights[rows.model]
        return np.asarray(free * self.total - usable.sum(axis=1))

    def _tabulate(self, ways: Sequence[tuple[int, int]]) -> None:
        """Per way to ask and per free thousandths of a GPU: places on it, and what is too little for one.

        `idle` holds, per way, how many places make one task and what such a task takes.
        """
        free = np.arange(WHOLE + 1)[:, None]
        milli = np.array([way[1] for way in ways], dtype=np.int64)
        gpus = np.array([way[0] for way in ways], dtype=np.int64)
        places = free // np.maximum(milli, 1)
        self.slots: Ints = np.where(gpus > 1, np.minimum(places, 1), places)
        self.lacking: Ints = np.where(free < milli, free, 0)
        self.idle: Ints = np.stack([gpus, gpus * milli], axis=1)


def _column(shapes: Sequence[tuple[int, int, int, int]], field: int) -> Ints:
    return np.array([shape[field] for shape in shapes], dtype=np.int64)


def _per(milli: Ints, other: Ints) -> Floats:
    """How many thousandths of GPU go with one unit of the other resource."""
    return np.where(other > 0, milli / np.maximum(other, 1), PLENTY)
