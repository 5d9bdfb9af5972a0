"""Decides by what a placement spoils: GPU that usual tasks could have used, models that others ask for by name.

Three terms, all in thousandths of a GPU: what usual tasks could have filled and no longer can (idle GPUs that lose
their CPU, slack too small for a slice), the chance that a task comes that can do with no other model, and a light
preference for agents that keep much CPU per free GPU. What is usual is learned from the arrivals so far; nothing is
known beforehand. Own work, measured against Weng et al., "Beware of Fragmentation", USENIX ATC'23.
"""

from collections.abc import Mapping

import numpy as np

from corral.allocator.packing import Cluster, Demand, Floats, Ints, Rows, Strategy, after, rows_of, tightest, unique
from corral.allocator.packing_mix import Usual

EASE_MILLI = 50.0
"""What e times the CPU per free GPU is worth."""

FIRST_LOOKS, GROWTH = 4, 1.25
"""Arrivals between two looks at what is usual: at least so many, then a quarter of as many as there were before."""

FORGET = 1 << 16
"""After so many arrivals each earlier one counts half, so that a new fashion is noticed."""

FINE = 1024.0
"""Parts of a thousandth to which the preference is rounded, so that equal agents cost the same."""


class Balance(Strategy):
    """The strategy `balance`. It is bound to one cluster at a time, whose models and agents it remembers.

    Shapes: only tasks that ask GPUs count as arrivals.
    """

    def __init__(self, cluster: Cluster) -> None:
        super().__init__()
        self._counts: dict[Demand, int] = {}
        self._arrivals = 0
        self._next = 1.0
        self.bind(cluster)

    def bind(self, cluster: Cluster) -> None:
        """Go on with another cluster; what is usual is remembered."""
        self._cluster = cluster
        self._before: Floats = np.zeros(len(cluster))
        self._stale: list[int] = []
        self._due = True
        self.epoch += 1

    @property
    def usual(self) -> dict[Demand, int]:
        """How often each demand came, as far as it is remembered."""
        return dict(self._counts)

    @usual.setter
    def usual(self, counts: Mapping[Demand, int]) -> None:
        self._counts = dict(counts)
        self._arrivals = sum(counts.values())
        self._look_later()

    def arrived(self, demand: Demand, count: int = 1) -> None:
        if not demand.gpus or count < 1:
            return
        self._counts[demand] = self._counts.get(demand, 0) + count
        self._arrivals += count
        if self._arrivals < self._next:
            return
        while self._arrivals >= FORGET:
            self._counts = {demand: count // 2 for demand, count in self._counts.items() if count > 1}
            self._arrivals = sum(self._counts.values())
        self._look_later()

    def changed(self, agent: int) -> None:
        self._stale.append(agent)

    def costs(self, cluster: Cluster, demand: Demand, rows: Rows) -> Floats:
        self._refresh()
        then = after(rows, demand, tightest(rows.gpu, demand))
        spoilt = (self._before[rows.agents] - self._usual.usable(then)) / max(1, self._usual.total)
        spoilt += self._wanted[rows.model] * demand.asked_milli
        per_gpu = then.cpu / (then.gpu.sum(axis=1) + 1000)
        return np.asarray(spoilt - np.rint(np.log1p(per_gpu) * (EASE_MILLI * FINE)) / FINE)

    def _look_later(self) -> None:
        self._next = self._arrivals + max(FIRST_LOOKS, self._arrivals * (GROWTH - 1))
        self._due = True
        self.epoch += 1

    def _look(self) -> None:
        self._usual = Usual(self._cluster, self._counts)
        self._wanted = wanted_by_name(self._cluster, self._counts)
        self._stale = list(range(len(self._cluster)))
        self._due = False

    def _refresh(self) -> None:
        """Bring what is usual, and what each agent could be used for, up to date."""
        if self._due:
            self._look()
        if self._stale:
            agents = np.array(unique(self._stale), dtype=np.int64)
            self._before[agents] = self._usual.usable(rows_of(self._cluster, agents))
            self._stale.clear()


def wanted_by_name(cluster: Cluster, counts: dict[Demand, int]) -> Floats:
    """Which part of each model's GPUs tasks that name their models would fill, if usual tasks filled the cluster.

    A task that names several spreads over them by size. Shapes: one number per model, above 1 when too many want it.
    """
    sizes = np.bincount(cluster.model, weights=cluster.gpus, minlength=len(cluster.models))
    everything = sizes.sum()
    asked = sum(count * demand.asked_milli for demand, count in counts.items())
    wanted = np.zeros(len(cluster.models))
    for demand, count in sorted(counts.items(), key=lambda item: sort_key(item[0])):
        named: Ints = np.flatnonzero(cluster.allowed(demand))
        held = sizes[named].sum()
        if 0 < held < everything:
            wanted[named] += count * demand.asked_milli / asked * everything / held
    return wanted


def sort_key(demand: Demand) -> tuple[int, int, int, int, tuple[str, ...]]:
    """An order of demands that does not depend on when they came."""
    return (demand.cpu_milli, demand.mem_mb, demand.gpus, demand.gpu_milli, demand.models)
