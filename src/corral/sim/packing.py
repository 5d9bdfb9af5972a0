"""Repeats the published packing experiment: tasks arrive on an empty cluster until more GPU is asked than there is.

No task ends, none is moved and none is tried again, so that what is left over is the strategy's doing alone.
Source: Weng et al., "Beware of Fragmentation", USENIX ATC'23, section 6.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import Protocol

import msgspec

from corral.allocator.allocator import Allocator
from corral.allocator.engine import Mode
from corral.allocator.gpus import MODEL
from corral.allocator.packing import WHOLE, Cluster, Demand, Packer, Plain, Strategy, Supply
from corral.allocator.packing_balance import Balance
from corral.allocator.packing_published import DotProduct, Fgd, Shuffled, bestfit, gpu_clustering, gpu_packing
from corral.allocator.view import AgentView, Grant, Settings, WantView
from corral.lib.errors import Invalid, NotFound
from corral.model.constraints import Constraint, Operator
from corral.model.ids import AgentId, FrameworkId, WantId
from corral.model.offer import Want
from corral.model.resources import Resource, Resources
from corral.model.role import RoleSettings

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

LIVE = "gpu"
"""What the allocator of the live master decides, of wants that come one by one in a role with this strategy."""

NAMES = (*PUBLISHED, *OWN, LIVE)

ROLE, FRAMEWORK = "packing", FrameworkId("packing")


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


class Places(Protocol):
    """What places tasks one by one."""

    @property
    def gpu_milli(self) -> int:
        """Thousandths of all GPUs, used or not."""

    def place(self, demand: Demand) -> object | None:
        """Where the task went, None when it fits nowhere."""

    def invariants(self) -> None:
        """Errors: `AssertionError` when something is counted twice or lost."""


class LivePacker:
    """Places tasks by the production allocator: each is a want of one instance, taken back when it is not granted.

    Nothing is evicted for them.
    """

    def __init__(self, supplies: Iterable[Supply], mode: Mode = Mode.PLAIN) -> None:
        self.allocator = Allocator(Settings(evictions_per_minute=0), mode)
        self.allocator.set_role(ROLE, RoleSettings(strategy=LIVE))
        self.gpu_milli = 0
        self._arrivals = 0
        for i, supply in enumerate(supplies):
            self.gpu_milli += supply.gpus * WHOLE
            total = _bundle(supply.cpu_milli, supply.mem_mb, supply.gpus * WHOLE)
            attributes = {MODEL: supply.model} if supply.model else {}
            self.allocator.set_agent(
                AgentView(id=AgentId(f"agent-{i}"), hostname=f"agent-{i}", total=total, attributes=attributes)
            )

    def place(self, demand: Demand) -> Grant | None:
        """The grant, None when the task fits nowhere."""
        self._arrivals += 1
        now = float(self._arrivals)
        want = _want(demand, WantId(f"task-{self._arrivals}"))
        self.allocator.set_want(WantView(want=want, framework_id=FRAMEWORK, missing=1, since_at=now))
        grants = self.allocator.run(now, seed=self._arrivals).grants
        self.allocator.remove_want(FRAMEWORK, want.id)
        return grants[0] if grants else None

    def release(self, grant: Grant) -> None:
        """Free what a task held."""
        self.allocator.release(grant.key)

    def invariants(self) -> None:
        """Errors: `AssertionError` when the allocator contradicts itself."""
        self.allocator.invariants()


def _bundle(cpu_milli: int, mem_mb: int, gpu_milli: int) -> Resources:
    amounts = {"cpus": cpu_milli, "gpus": gpu_milli, "mem": mem_mb * 1000}
    return tuple(Resource(name=name, milli=milli) for name, milli in amounts.items() if milli)


def _want(demand: Demand, want_id: WantId) -> Want:
    constraints = (Constraint(field=MODEL, operator=Operator.IN, values=demand.models),) if demand.models else ()
    resources = _bundle(demand.cpu_milli, demand.mem_mb, demand.asked_milli)
    return Want(id=want_id, role=ROLE, count=1, resources=resources, constraints=constraints)


def build_packer(name: str, supplies: Iterable[Supply], demands: Sequence[Demand], random: Random) -> Places:
    """An empty cluster with the strategy of this name. Shapes: `demands` are what strategies may know beforehand.

    Errors: `NotFound` lists the names.
    """
    if name == LIVE:
        return LivePacker(supplies)
    build = OWN.get(name) or PUBLISHED.get(name)
    if build is None:
        raise NotFound(f"no packing strategy is called {name}; there are {', '.join(NAMES)}")
    cluster = Cluster(list(supplies))
    return Packer(cluster, build(cluster, demands, random))


def run_packing(packer: Places, arrivals: Iterable[Demand]) -> Run:
    """Place the tasks in this order and tell how the allocation grew."""
    everything = packer.gpu_milli
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
    packer.invariants()
    return run
