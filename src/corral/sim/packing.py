"""Repeats the published packing experiment: tasks arrive on an empty cluster until more GPU is asked than there is.

No task ends, none is moved and none is tried again, so that what is left over is the strategy's doing alone.
Source: Weng et al., "Beware of Fragmentation", USENIX ATC'23, section 6.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from random import Random

import msgspec

from corral.allocator.packing import WHOLE, Cluster, Demand, Packer, Plain, Strategy, Supply
from corral.allocator.packing_balance import Balance
from corral.allocator.packing_published import DotProduct, Fgd, Shuffled, bestfit, gpu_clustering, gpu_packing
from corral.lib.errors import Invalid, NotFound

ASKED_IN_ALL = 1.3
"""How many times the GPUs of the cluster are asked in a whole run."""

Build = Callable[[Cluster, Sequence[Demand], Random], Strategy]

PUBLISHED: dict[str, Build] = {
    "random": lambda cluster, demands, random: Shuffled(random),
    "dotprod": lambda cluster, demands, random: DotProduct(),
    "gpu-clustering": lambda cluster, demands, random: Plain(gpu_clustering),
    "gpu-packing": lambda cluster, demands, random: Plain(gpu_packing),
    "bestfit": lambda cluster, demands, random: Plain(bestfit),
    "fgd": lambda cluster, demands, random: Fgd(cluster, Counter(demands)),
}
"""Strategies of the literature; FGD is told the whole workload beforehand, as published."""

OWN: dict[str, Build] = {"balance": lambda cluster, demands, random: Balance(cluster)}
"""Strategies that know nothing beforehand."""


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """How much GPU was asked and placed by then, as parts of all there is."""

    arrived: float
    allocated: float


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """Shapes: one point per arrival, in order; `dropped` tasks fitted nowhere when they came."""

    points: tuple[Point, ...]
    dropped: int

    def allocated_at(self, arrived: float) -> float:
        """What was allocated, as a part, when this part of the cluster had been asked.

        Errors: `Invalid` when the run ended before.
        """
        for point in self.points:
            if point.arrived >= arrived:
                return point.allocated
        last = self.points[-1].arrived if self.points else 0.0
        raise Invalid(f"the run ends when {last:.0%} of the GPUs are asked, before {arrived:.0%}; inflate the workload")


def inflate(demands: Sequence[Demand], gpu_milli: int, random: Random) -> list[Demand]:
    """The workload with random draws of its own tasks added until it asks that much GPU, shuffled.

    Errors: `Invalid` when none of the tasks asks any GPU.
    """
    if not any(demand.gpus for demand in demands):
        raise Invalid(f"none of the {len(demands)} tasks asks a GPU, so no number of them fills a cluster; add some")
    chosen = list(demands)
    asked = sum(demand.asked_milli for demand in chosen)
    while asked < gpu_milli:
        chosen.append(demands[random.randrange(len(demands))])
        asked += chosen[-1].asked_milli
    random.shuffle(chosen)
    return chosen


def build_packer(name: str, supplies: Iterable[Supply], demands: Sequence[Demand], random: Random) -> Packer:
    """An empty cluster with the strategy of this name. Shapes: `demands` are what strategies may know beforehand.

    Errors: `NotFound` lists the names.
    """
    build = OWN.get(name) or PUBLISHED.get(name)
    if build is None:
        raise NotFound(f"no packing strategy is called {name}; there are {', '.join((*PUBLISHED, *OWN))}")
    cluster = Cluster(list(supplies))
    return Packer(cluster, build(cluster, demands, random))


def run_packing(packer: Packer, arrivals: Iterable[Demand]) -> Run:
    """Place the tasks in this order and tell how the allocation grew."""
    everything = packer.cluster.gpu_milli
    asked = placed = dropped = 0
    points = []
    for demand in arrivals:
        asked += demand.asked_milli
        if packer.place(demand) is None:
            dropped += 1
        else:
            placed += demand.asked_milli
        points.append(Point(arrived=asked / everything, allocated=placed / everything))
    return Run(points=tuple(points), dropped=dropped)


def repeat_experiment(strategy: str, supplies: Sequence[Supply], demands: Sequence[Demand], seed: int) -> Run:
    """One whole run of one strategy. Shapes: equal seeds give equal arrivals and agents to every strategy.

    Agents stand in an order drawn for, so that no strategy lives on how the inventory happens to be sorted.
    Errors: as `build_packer`, `inflate`.
    """
    random = Random(seed)
    everything = sum(supply.gpus for supply in supplies) * WHOLE
    arrivals = inflate(demands, round(everything * ASKED_IN_ALL), random)
    agents = random.sample(list(supplies), len(supplies))
    packer = build_packer(strategy, agents, arrivals, random)
    run = run_packing(packer, arrivals)
    packer.cluster.invariants()
    return run
