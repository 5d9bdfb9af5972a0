"""Decides on which agent, and on which of its GPUs, a task is packed so that as many GPUs as possible stay usable.

CPU, memory and the thousandths of each single GPU are hard capacities; among the agents that fit a strategy names
costs, and the lowest wins. Costs are kept per demand and renewed only for agents that changed since, so that
thousands of placements among thousands of agents take seconds. Source: Weng et al., "Beware of Fragmentation",
USENIX ATC'23, for the problem; equivalence classes as in Verma et al., "Large-scale cluster management at Google
with Borg", EuroSys'15.
"""

from collections.abc import Callable, Iterable, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from corral.lib.errors import Conflict, Invalid

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

WHOLE = 1000
"""Thousandths of one GPU."""

MOST_TOUCHES = 1 << 16
"""How many changes of agents are remembered; then all costs are computed anew instead."""

MOST_KEPT = 1 << 24
"""How many costs are kept at a time, of all demands together."""


class Supply(msgspec.Struct, frozen=True, kw_only=True):
    """What an empty agent has. Shapes: `model` names the kind of all its GPUs."""

    cpu_milli: int
    mem_mb: int
    gpus: int = 0
    model: str = ""


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """What one task asks. Shapes: `gpus` GPUs with `gpu_milli` free on each; `models` that will do, empty for any."""

    cpu_milli: int
    mem_mb: int
    gpus: int = 0
    gpu_milli: int = 0
    models: tuple[str, ...] = ()

    @property
    def asked_milli(self) -> int:
        """Thousandths of GPUs in all."""
        return self.gpus * self.gpu_milli


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """Where a task went. Shapes: `agent` is a row of the cluster, `gpus` the GPUs of that agent, in order."""

    demand: Demand
    agent: int
    gpus: tuple[int, ...] = ()


def check_demand(demand: Demand) -> None:
    """Refuse what no agent could ever mean.

    Errors: `Invalid` names the field.
    """
    for name in ("cpu_milli", "mem_mb", "gpus", "gpu_milli"):
        value = getattr(demand, name)
        if value < 0:
            raise Invalid(f"a demand needs {name} of at least 0 but has {value}; give 0 when it needs none")
    if demand.gpus == 0 and demand.gpu_milli != 0:
        raise Invalid(f"a demand without GPUs asks gpu_milli {demand.gpu_milli}; give 0 or name how many GPUs")
    if demand.gpus and not 1 <= demand.gpu_milli <= WHOLE:
        raise Invalid(f"a demand for GPUs needs gpu_milli from 1 to {WHOLE} but has {demand.gpu_milli}; ask more gpus")


class Cluster:
    """The agents as flat columns. Shapes: N agents by G GPUs; a GPU that an agent does not have has nothing free.

    `kinds[agent, k]` counts tasks by what they hold: 0 no GPU, 1 a slice, 1 + n that many whole GPUs.
    """

    __slots__ = (
        "cpu", "cpu_free", "gpu_free", "gpus", "kinds", "mem", "mem_free", "model", "models", "present",
    )  # fmt: skip

    def __init__(self, supplies: Sequence[Supply]) -> None:
        self.cpu: Ints = np.array([s.cpu_milli for s in supplies], dtype=np.int64)
        self.mem: Ints = np.array([s.mem_mb for s in supplies], dtype=np.int64)
        self.gpus: Ints = np.array([s.gpus for s in supplies], dtype=np.int64)
        self.models = tuple(sorted({s.model for s in supplies}))
        self.model: Ints = np.array([self.models.index(s.model) for s in supplies], dtype=np.int64)
        width = max(1, int(self.gpus.max(initial=0)))
        self.present: Mask = np.arange(width) < self.gpus[:, None]
        self.cpu_free, self.mem_free = self.cpu.copy(), self.mem.copy()
        self.gpu_free: Ints = np.where(self.present, WHOLE, 0).astype(np.int64)
        self.kinds: Ints = np.zeros((len(supplies), width + 2), dtype=np.int64)

    def __len__(self) -> int:
        return len(self.cpu)

    @property
    def gpu_milli(self) -> int:
        """Thousandths of all GPUs, used or not."""
        return int(self.gpus.sum()) * WHOLE

    def take(self, placement: Placement) -> None:
        """Book a task.

        Errors: `Conflict` when it does not fit there, with nothing booked.
        """
        demand, row = placement.demand, placement.agent
        fits = self.cpu_free[row] >= demand.cpu_milli and self.mem_free[row] >= demand.mem_mb
        chosen = placement.gpus
        fits = fits and len(set(chosen)) == len(chosen) == demand.gpus and self._allows(demand, row)
        if not fits or any(self.gpu_free[row, gpu] < demand.gpu_milli for gpu in chosen):
            raise Conflict(f"{demand} does not fit on agent {row} at GPUs {chosen}; choose among those that do")
        self._book(placement, 1)

    def give_back(self, placement: Placement) -> None:
        """Free what a task held.

        Errors: `Conflict` when that much is not in use there.
        """
        demand, row = placement.demand, placement.agent
        fits = self.cpu_free[row] + demand.cpu_milli <= self.cpu[row]
        fits = fits and self.mem_free[row] + demand.mem_mb <= self.mem[row] and self.kinds[row, self._kind(demand)] > 0
        if not fits or any(self.gpu_free[row, gpu] + demand.gpu_milli > WHOLE for gpu in placement.gpus):
            raise Conflict(f"{demand} is not in use on agent {row} at GPUs {placement.gpus}; give back each task once")
        self._book(placement, -1)

    def describe(self, row: int, supply: Supply) -> bool:
        """Let another, empty agent stand in a row; returns False when there is no room for its GPUs or model."""
        if supply.gpus > self.present.shape[1] or supply.model not in self.models:
            return False
        self.cpu[row], self.mem[row], self.gpus[row] = supply.cpu_milli, supply.mem_mb, supply.gpus
        self.model[row] = self.models.index(supply.model)
        self.present[row] = np.arange(self.present.shape[1]) < supply.gpus
        self.cpu_free[row], self.mem_free[row] = supply.cpu_milli, supply.mem_mb
        self.gpu_free[row] = np.where(self.present[row], WHOLE, 0)
        self.kinds[row] = 0
        return True

    def invariants(self) -> None:
        """Nothing is below zero or above what the agent has."""
        assert ((self.cpu_free >= 0) & (self.cpu_free <= self.cpu)).all(), "cpu out of bounds"
        assert ((self.mem_free >= 0) & (self.mem_free <= self.mem)).all(), "mem out of bounds"
        assert (self.gpu_free >= 0).all(), "a GPU is given away twice"
        assert (self.gpu_free <= np.where(self.present, WHOLE, 0)).all(), "a GPU appeared"
        assert (self.kinds >= 0).all(), "a task left twice"

    def allowed(self, demand: Demand) -> Mask:
        """Which models will do, one flag per entry of `models`."""
        return np.array([not demand.models or model in demand.models for model in self.models], dtype=bool)

    def _allows(self, demand: Demand, row: int) -> bool:
        return not demand.gpus or not demand.models or self.models[self.model[row]] in demand.models

    def _kind(self, demand: Demand) -> int:
        return int(min(self.kinds.shape[1] - 1, demand.gpus + (demand.gpu_milli == WHOLE)))

    def _book(self, placement: Placement, times: int) -> None:
        demand, row = placement.demand, placement.agent
        self.cpu_free[row] -= demand.cpu_milli * times
        self.mem_free[row] -= demand.mem_mb * times
        for gpu in placement.gpus:
            self.gpu_free[row, gpu] -= demand.gpu_milli * times
        self.kinds[row, self._kind(demand)] += times


class Rows(msgspec.Struct, frozen=True):
    """Some agents of a cluster as they are, or as they would be. Shapes: M agents, `gpu` M by G."""

    agents: Ints
    cpu: Ints
    mem: Ints
    gpu: Ints
    model: Ints


def rows_of(cluster: Cluster, agents: Ints) -> Rows:
    """These agents as they are now."""
    return Rows(
        agents, cluster.cpu_free[agents], cluster.mem_free[agents], cluster.gpu_free[agents], cluster.model[agents]
    )


def part_of(rows: Rows, chosen: slice) -> Rows:
    """Some of the rows, by their places among them."""
    return Rows(rows.agents[chosen], rows.cpu[chosen], rows.mem[chosen], rows.gpu[chosen], rows.model[chosen])


def feasible(cluster: Cluster, demand: Demand, agents: Ints) -> Mask:
    """Which of these agents the task fits on now."""
    fits: Mask = (cluster.cpu_free[agents] >= demand.cpu_milli) & (cluster.mem_free[agents] >= demand.mem_mb)
    if not demand.gpus:
        return fits
    fits &= (cluster.gpu_free[agents] >= demand.gpu_milli).sum(axis=1) >= demand.gpus
    return fits & cluster.allowed(demand)[cluster.model[agents]] if demand.models else fits


def tightest(gpu: Ints, demand: Demand) -> Ints:
    """The GPUs of each row with the least free that still do, the first of equals; M by `demand.gpus`.

    Shapes: every row fits.
    """
    suits = np.where(gpu >= demand.gpu_milli, gpu, WHOLE + 1)
    if demand.gpus == 1:
        return np.asarray(suits.argmin(axis=1)[:, None])
    return np.argsort(suits, axis=1, kind="stable")[:, : demand.gpus]


def after(rows: Rows, demand: Demand, gpus: Ints) -> Rows:
    """The same agents with the task on these GPUs of each; `gpus` is M by `demand.gpus`."""
    gpu = rows.gpu.copy()
    if demand.gpus:
        gpu[np.arange(len(gpu))[:, None], gpus] -= demand.gpu_milli
    return Rows(rows.agents, rows.cpu - demand.cpu_milli, rows.mem - demand.mem_mb, gpu, rows.model)


class Strategy:
    """How little each agent suits; by itself first fit, for which all are equal.

    Costs of a demand hold for an agent until the agent changes or `epoch` does.
    """

    def __init__(self) -> None:
        self.epoch = 0

    def arrived(self, demand: Demand, count: int = 1) -> None:
        """So many tasks came that ask this, placed or not."""

    def changed(self, agent: int) -> None:
        """Something was booked on this agent, or given back."""

    def costs(self, cluster: Cluster, demand: Demand, rows: Rows) -> Floats:
        """One cost for each of these rows, on all of which the task fits; the lowest wins."""
        return np.zeros(len(rows.agents))

    def choose(self, cluster: Cluster, demand: Demand, rows: Rows) -> Ints:
        """Which GPUs the task gets on each row; M by `demand.gpus`."""
        return tightest(rows.gpu, demand)


class Plain(Strategy):
    """A strategy that is one function of cluster, demand and rows, all of which the task fits on."""

    def __init__(self, score: Callable[[Cluster, Demand, Rows], Floats]) -> None:
        super().__init__()
        self._score = score

    def costs(self, cluster: Cluster, demand: Demand, rows: Rows) -> Floats:
        return self._score(cluster, demand, rows)


class _Costs:
    """Costs of one demand; infinite where it does not fit. `seen` counts the touches they already reflect."""

    __slots__ = ("column", "epoch", "seen")

    def __init__(self, agents: int) -> None:
        self.column: Floats = np.full(agents, np.inf)
        self.epoch = -1
        self.seen = 0


class Ranking:
    """What demands cost by a strategy on each agent of a cluster, kept and renewed where something changed.

    Shapes: after `most_touches` changes all costs are renewed.
    """

    def __init__(self, cluster: Cluster, strategy: Strategy, *, most_touches: int = MOST_TOUCHES) -> None:
        self.cluster = cluster
        self.strategy = strategy
        self._most_touches = most_touches
        self._most_demands = max(1, MOST_KEPT // max(1, len(cluster)))
        self._kept: dict[Demand, _Costs] = {}
        self._touched: list[int] = []
        self._all: Ints = np.arange(len(cluster), dtype=np.int64)

    def costs(self, demand: Demand) -> Floats:
        """What the task would cost on each agent now, infinite where it does not fit; not to be written to."""
        kept = self._kept.get(demand)
        if kept is None:
            if len(self._kept) >= self._most_demands:
                self._kept.clear()
            kept = self._kept[demand] = _Costs(len(self.cluster))
        if kept.epoch != self.strategy.epoch:
            kept.epoch = self.strategy.epoch
            self._renew(kept, demand, self._all)
        elif kept.seen < len(self._touched):
            self._renew(kept, demand, np.array(unique(self._touched[kept.seen :]), dtype=np.int64))
        kept.seen = len(self._touched)
        return kept.column

    def devices(self, demand: Demand, agent: int) -> list[int]:
        """Which GPUs of an agent the task would get, in order; it fits there."""
        if not demand.gpus:
            return []
        chosen = self.strategy.choose(self.cluster, demand, rows_of(self.cluster, self._all[agent : agent + 1]))
        return sorted(chosen[0].tolist())

    def note(self, agents: Iterable[int]) -> None:
        """These agents have changed."""
        for agent in agents:
            self.strategy.changed(agent)
            self._touched.append(agent)
        if len(self._touched) > self._most_touches:
            self._touched.clear()
            self._kept.clear()

    def _renew(self, kept: _Costs, demand: Demand, agents: Ints) -> None:
        fits = feasible(self.cluster, demand, agents)
        kept.column[agents[~fits]] = np.inf
        agents = agents[fits]
        if len(agents):
            kept.column[agents] = self.strategy.costs(self.cluster, demand, rows_of(self.cluster, agents))


class Packer:
    """Places tasks one by one on a cluster by a strategy; of agents that cost the same the first wins.

    It alone may book on its cluster. Shapes: as `Ranking`.
    """

    def __init__(self, cluster: Cluster, strategy: Strategy, *, most_touches: int = MOST_TOUCHES) -> None:
        self.cluster = cluster
        self.strategy = strategy
        self._ranking = Ranking(cluster, strategy, most_touches=most_touches)
        self._checked: set[Demand] = set()

    def place(self, demand: Demand) -> Placement | None:
        """Book the task on the agent that costs least; None when it fits nowhere.

        Errors: `Invalid` when the demand makes no sense.
        """
        if demand not in self._checked:
            check_demand(demand)
            self._checked.add(demand)
        self.strategy.arrived(demand)
        column = self._ranking.costs(demand)
        if not len(column):
            return None
        agent = int(column.argmin())
        if column[agent] == np.inf:
            return None
        placement = Placement(demand=demand, agent=agent, gpus=tuple(self._ranking.devices(demand, agent)))
        self.cluster.take(placement)
        self._ranking.note((agent,))
        return placement

    def release(self, placement: Placement) -> None:
        """Free what a task held.

        Errors: `Conflict` when it is not there.
        """
        self.cluster.give_back(placement)
        self._ranking.note((placement.agent,))

    def costs(self, demand: Demand) -> Floats:
        """As `Ranking.costs`."""
        return self._ranking.costs(demand)

    @property
    def gpu_milli(self) -> int:
        """Thousandths of all GPUs, used or not."""
        return self.cluster.gpu_milli

    def invariants(self) -> None:
        """Errors: `AssertionError` when the cluster contradicts itself."""
        self.cluster.invariants()


def unique(agents: Iterable[int]) -> list[int]:
    """Each once, in ascending order."""
    return sorted(set(agents))
