"""Decides by the rules that the literature compares with: random, dotprod, gpu-clustering, gpu-packing, bestfit, fgd.

Scores of 0 to 100 are cut to whole numbers where the published experiments do, for how often agents tie matters.
Source: Weng et al., "Beware of Fragmentation", USENIX ATC'23, and the simulator that its authors published.
"""

from collections.abc import Mapping
from random import Random

import numpy as np

from corral.allocator.packing import WHOLE, Cluster, Demand, Floats, Ints, Rows, Strategy, after, tightest
from corral.allocator.packing_mix import Usual

TYPICAL = 0.95
"""Which part of the arrivals, the most frequent first, FGD calls typical."""


def bestfit(cluster: Cluster, demand: Demand, rows: Rows) -> Floats:
    """What would be left, cpu and GPUs alike, as parts of the largest agent."""
    cpu = (rows.cpu - demand.cpu_milli) / max(1, int(cluster.cpu.max()))
    gpu = (rows.gpu.sum(axis=1) - demand.asked_milli) / max(1, int(cluster.gpus.max()) * WHOLE)
    return np.asarray(0.5 * cpu + 0.5 * gpu)


def gpu_packing(cluster: Cluster, demand: Demand, rows: Rows) -> Floats:
    """Shared GPUs before idle GPUs of agents in use before idle agents."""
    if not demand.gpus:
        return np.zeros(len(rows.agents))
    idle = (rows.gpu == WHOLE).sum(axis=1)
    chosen = np.take_along_axis(rows.gpu, tightest(rows.gpu, demand), axis=1)
    fresh = (chosen == WHOLE).sum(axis=1)
    shared = 100 - (chosen * 100 // WHOLE).sum(axis=1) // 10
    score = np.where(fresh > 0, np.maximum(50 - fresh, 33), np.maximum(shared, 50))
    score = np.where(idle == cluster.gpus[rows.agents], np.maximum(33 - idle, idle), score)
    return np.asarray(-score, dtype=np.float64)


def gpu_clustering(cluster: Cluster, demand: Demand, rows: Rows) -> Floats:
    """Agents that run only tasks holding as many GPUs, then some, then idle agents, then the others; fuller first."""
    if not demand.gpus:
        return np.zeros(len(rows.agents))
    kinds = cluster.kinds[rows.agents, 1:] > 0
    same = kinds[:, min(kinds.shape[1], demand.gpus + (demand.gpu_milli == WHOLE)) - 1]
    others = kinds.sum(axis=1)
    rank = np.where(same, np.where(others == 1, 75, 50), np.where(others == 0, 25, 0))
    largest = max(1, int(cluster.gpus.max()) * WHOLE)
    return np.asarray(-(25 * (largest - rows.gpu.sum(axis=1)) // largest + rank), dtype=np.float64)


class Shuffled(Strategy):
    """The strategy `random`: every agent that fits is as good."""

    def __init__(self, random: Random) -> None:
        super().__init__()
        self._random = random

    def arrived(self, demand: Demand, count: int = 1) -> None:
        self.epoch += 1

    def costs(self, cluster: Cluster, demand: Demand, rows: Rows) -> Floats:
        return np.array([self._random.random() for _ in range(len(rows.agents))])


class DotProduct(Strategy):
    """The strategy `dotprod`: the least product of what is asked and what is free, a shared GPU counting for itself."""

    def costs(self, cluster: Cluster, demand: Demand, rows: Rows) -> Floats:
        products = self._products(cluster, demand, rows).min(axis=1)
        return np.asarray(-np.floor(100 * (1 - products)))

    def choose(self, cluster: Cluster, demand: Demand, rows: Rows) -> Ints:
        if demand.gpus != 1:
            return tightest(rows.gpu, demand)
        return np.asarray(self._products(cluster, demand, rows).argmin(axis=1)[:, None])

    def _products(self, cluster: Cluster, demand: Demand, rows: Rows) -> Floats:
        """One product per GPU that does, M by G; by one per agent without GPUs, or with several."""
        largest_cpu = max(1, int(cluster.cpu.max()))
        largest_gpu = max(1, int(cluster.gpus.max()) * WHOLE)
        cpu = (rows.cpu / largest_cpu * (demand.cpu_milli / largest_cpu))[:, None]
        idle = (rows.gpu == WHOLE).sum(axis=1)[:, None] * WHOLE
        if demand.gpus != 1:
            return np.asarray((cpu + idle / largest_gpu * (demand.asked_milli / largest_gpu)) / 2)
        free = np.where(rows.gpu == WHOLE, idle, rows.gpu)
        products = (cpu + free / largest_gpu * (demand.asked_milli / largest_gpu)) / 2
        return np.where(rows.gpu >= demand.gpu_milli, products, np.inf)


class Fgd(Strategy):
    """The strategy `fgd`: fragmentation gradient descent over typical tasks that are known beforehand."""

    def __init__(self, cluster: Cluster, counts: Mapping[Demand, int]) -> None:
        super().__init__()
        self._usual = Usual(cluster, typical(counts))

    def costs(self, cluster: Cluster, demand: Demand, rows: Rows) -> Floats:
        return np.asarray(-self._scores(demand, rows).max(axis=1))

    def choose(self, cluster: Cluster, demand: Demand, rows: Rows) -> Ints:
        if demand.gpus != 1:
            return tightest(rows.gpu, demand)
        return np.asarray(self._scores(demand, rows).argmax(axis=1)[:, None])

    def _scores(self, demand: Demand, rows: Rows) -> Floats:
        """How much less is spoilt afterwards, 0 to 100: one column per GPU, or one in all without a choice."""
        before = self._usual.unusable(rows)
        if demand.gpus != 1:
            return self._score(before, after(rows, demand, tightest(rows.gpu, demand)))[:, None]
        scores = np.full(rows.gpu.shape, -1.0)
        for gpu in range(rows.gpu.shape[1]):
            first = ~(rows.gpu[:, :gpu] == rows.gpu[:, gpu : gpu + 1]).any(axis=1)
            picked = np.flatnonzero(first & (rows.gpu[:, gpu] >= demand.gpu_milli))
            if len(picked):
                part = Rows(
                    rows.agents[picked], rows.cpu[picked], rows.mem[picked], rows.gpu[picked], rows.model[picked]
                )
                then = after(part, demand, np.full((len(picked), 1), gpu))
                scores[picked, gpu] = self._score(before[picked], then)
        return scores

    def _score(self, before: Floats, then: Rows) -> Floats:
        gained = (before - self._usual.unusable(then)) / (max(1, self._usual.total) * WHOLE)
        return np.asarray(np.floor(100 / (1 + np.exp(-gained))))


def typical(counts: Mapping[Demand, int]) -> dict[Demand, int]:
    """The most frequent demands that together make up the typical part, in order."""
    enough = TYPICAL * sum(counts.values())
    chosen: dict[Demand, int] = {}
    reached = 0
    for demand, count in sorted(counts.items(), key=lambda item: -item[1]):
        if reached >= enough:
            break
        chosen[demand] = count
        reached += count
    return chosen
