"""Chooses nodes and GPUs for the demands of strategy `gpu`, so that as many GPUs as possible stay usable.

Nodes with GPUs are kept as columns, brought up to date from the engine's before each choice, and ranked by what a
placement would spoil. Demands without GPUs go to nodes without GPUs first, the tightest that fits. What is usual is
learned from wants as they are stated. Source: decision 6.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from corral.allocator.bundles import CPUS, GPUS, MEM
from corral.allocator.demands import shape_of
from corral.allocator.engine import Engine
from corral.allocator.engine.catalog import Demand as ClassDemand
from corral.allocator.engine.catalog import Node
from corral.allocator.engine.cluster import MOST_DEVICES
from corral.allocator.engine.scan import Columns
from corral.allocator.packing import WHOLE, Cluster, Demand, Ranking, Supply
from corral.allocator.packing_balance import Balance
from corral.allocator.view import Hold, HoldKind, WantView
from corral.model.constraints import Constraint, Operator, allows, is_counting, looks_at_tasks
from corral.model.ids import FrameworkId, WantId

Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

MODEL = "gpu_model"
"""The attribute of an agent that names the model of its GPUs."""

NO_MODEL = ("\n",)
"""What a demand names whose constraints admit no model: something that no attribute can be."""

NAMING = frozenset({Operator.EQUAL, Operator.IN})

MOST_KEPT = 1 << 10
"""For how many different sets of constraints it is kept which nodes they admit."""

LEAST_ROOM = 16

EMPTY = Supply(cpu_milli=0, mem_mb=0)
"""What a place without a node has."""

NOWHERE = (-1, 0)


class Learned:
    """Tells arrivals from retries: an instance counts when it is stated, not when its offer comes back.

    Shapes: `back` counts, per want, granted instances that were given back and will be missing again.
    """

    def __init__(self) -> None:
        self.balance = Balance(Cluster(()))
        self._back: dict[tuple[FrameworkId, WantId], int] = {}

    def state(self, view: WantView, before: WantView | None) -> int:
        """How many instances of a want that is stated (anew) have not been stated before."""
        key = view.framework_id, view.want.id
        old = 0
        if before is not None and before.want.resources == view.want.resources:
            old = before.missing
        grown = max(0, view.missing - old)
        back = min(grown, self._back.get(key, 0))
        if back:
            self._back[key] -= back
        return grown - back

    def give_back(self, hold: Hold) -> None:
        """What was granted for a want is free again, and not used."""
        if hold.want_id is not None and hold.kind in (HoldKind.GRANT, HoldKind.SHAPED):
            key = hold.framework_id, hold.want_id
            self._back[key] = self._back.get(key, 0) + 1

    def forget(self, framework_id: FrameworkId, want_id: WantId) -> None:
        """A want has gone."""
        self._back.pop((framework_id, want_id), None)


class GpuChooser:
    """What `Engine.tick` asks for nodes; it goes on learning with another engine.

    Units: memory in thousandths of MB, as everywhere in the engine. Shapes: a place is a row of the cluster that
    mirrors the engine's nodes with GPUs; `_rows` has the engine's row for each, -1 for a place without a node.
    """

    def __init__(self) -> None:
        self._learned = Learned()

    def attach(self, engine: Engine) -> None:
        """Choose among another engine's nodes from now on."""
        self._engine = engine
        self._at = {name: engine.resources.index(name) for name in (CPUS, MEM, GPUS)}
        self._others = [d for d, name in enumerate(engine.resources) if name not in (CPUS, MEM)]
        self._seen: Rows = np.zeros(0, dtype=np.int64)
        self._place: Rows = np.zeros(0, dtype=np.int64)
        self._plain: Mask = np.zeros(0, dtype=bool)
        self._nodes: dict[int, Node] = {}
        self._admitted: dict[object, Mask] = {}
        self._asked: dict[tuple[object, ...], Demand] = {}
        self._supplies: list[Supply] = []
        self._spare: list[int] = []
        self._rows: Rows = np.zeros(0, dtype=np.int64)
        self._rebuild()

    # What is usual.

    def learn(self, view: WantView, before: WantView | None) -> None:
        """A want was stated; `before` is what was said of it last."""
        count = self._learned.state(view, before)
        shape = shape_of(view.want)
        if count and shape.get(GPUS):
            hard = [each for each in view.want.constraints if not each.weight]
            self._balance.arrived(demand_of(shape, hard, self._models), count)

    def give_back(self, hold: Hold) -> None:
        """A hold was released; if it was a grant, the same instance will be asked again."""
        self._learned.give_back(hold)

    def forget(self, framework_id: FrameworkId, want_id: WantId) -> None:
        """A want has gone."""
        self._learned.forget(framework_id, want_id)

    @property
    def usual(self) -> tuple[tuple[Demand, int], ...]:
        """Which demands for GPUs came, and how often."""
        return tuple(self._balance.usual.items())

    @usual.setter
    def usual(self, counts: Iterable[tuple[Demand, int]]) -> None:
        self._balance.usual = dict(counts)

    @property
    def _balance(self) -> Balance:
        return self._learned.balance

    # Choosing.

    def choose(self, cls: int) -> tuple[int, int]:
        """The row for one instance of a class, with a bit for each GPU it gets; (-1, 0) when it fits nowhere."""
        self._follow()
        demand = self._engine.demand(cls)
        asked = self._demand(demand)
        if not demand.shape[self._at[GPUS]]:
            row = self._choose_plain(cls, demand)
            if row >= 0:
                return row, 0
        return self._choose_packed(cls, demand, asked)

    def _choose_plain(self, cls: int, demand: ClassDemand) -> int:
        """The tightest node without GPUs, -1 when it fits on none."""
        engine, rows = self._engine, np.flatnonzero(self._plain)
        if not len(rows):
            return -1
        columns = engine.columns()
        rows = rows[(np.maximum(columns.free[rows], 0) >= np.array(demand.shape, dtype=np.int64)).all(axis=1)]
        rows = rows[self._allowed(cls, demand, columns, rows)]
        if not len(rows):
            return -1
        cpu, mem = (columns.free[rows, self._at[name]] for name in (CPUS, MEM))
        return self._first(cls, demand, rows, cpu / max(1, int(cpu.max())) + mem / max(1, int(mem.max())))

    def _choose_packed(self, cls: int, demand: ClassDemand, asked: Demand) -> tuple[int, int]:
        """The node with GPUs that costs least, with the GPUs."""
        costs = self._ranking.costs(asked)
        if not len(costs):
            return NOWHERE
        place = int(costs.argmin())
        if costs[place] == np.inf:
            return NOWHERE
        # Mostly the cheapest of all will do; then nothing needs to be known of the others.
        if not self._is_soft(demand) and self._rows[place] >= 0 and self._engine.fits(int(self._rows[place]), cls):
            return self._take(asked, place)
        columns = self._engine.columns()
        places = np.flatnonzero(costs < np.inf)
        rows = self._rows[places]
        suits = np.ones(len(places), dtype=bool)
        for d in self._others:
            if demand.shape[d]:
                suits &= columns.free[rows, d] >= demand.shape[d]
        suits &= self._allowed(cls, demand, columns, rows)
        places, rows = places[suits], rows[suits]
        row = self._first(cls, demand, rows, costs[places])
        return self._take(asked, int(self._place[row])) if row >= 0 else NOWHERE

    def _take(self, asked: Demand, place: int) -> tuple[int, int]:
        """The node of a place, and the GPUs there."""
        return int(self._rows[place]), sum(1 << gpu for gpu in self._ranking.devices(asked, place))

    @staticmethod
    def _is_soft(demand: ClassDemand) -> bool:
        return any(rule.weight for rule in demand.rules)

    def _first(self, cls: int, demand: ClassDemand, rows: Rows, costs: npt.NDArray[np.float64]) -> int:
        """The row that breaks least soft rules and then costs least, the first of equals; -1 when there is none."""
        if not len(rows):
            return -1
        if self._is_soft(demand):
            broken = self._engine.soft_costs(cls, rows)
            least = broken == broken.min()
            rows, costs = rows[least], costs[least]
        return int(rows[costs.argmin()])

    def _allowed(self, cls: int, demand: ClassDemand, columns: Columns, rows: Rows) -> Mask:
        """Which of these rows are open, admitted by the constraints of a class and within its rules."""
        found = columns.cell[rows] >= 0
        if demand.constraints or demand.refused:
            key = demand.constraints, demand.refused
            admitted = self._admitted.get(key)
            if admitted is None:
                if len(self._admitted) >= MOST_KEPT:
                    self._admitted.clear()
                admitted = self._admitted[key] = self._engine.admitted(cls)
            found &= admitted[rows]
        for rule in demand.rules:
            if not rule.weight:
                found &= self._engine.passing(rule)[rows]
        return found

    def _demand(self, demand: ClassDemand) -> Demand:
        key = demand.shape, demand.constraints
        asked = self._asked.get(key)
        if asked is None:
            if len(self._asked) >= MOST_KEPT:
                self._asked.clear()
            shape = dict(zip(self._engine.resources, demand.shape, strict=True))
            asked = self._asked[key] = demand_of(shape, demand.constraints, self._models)
        return asked

    # Keeping in step.

    def _follow(self) -> None:
        """Take over what has changed in the engine since the last choice."""
        versions = self._engine.versions()
        known = len(self._seen)
        if len(versions) > known:
            more = len(versions) - known
            self._seen = np.concatenate((self._seen, np.full(more, -1, dtype=np.int64)))
            self._place = np.concatenate((self._place, np.full(more, -1, dtype=np.int64)))
            self._plain = np.concatenate((self._plain, np.zeros(more, dtype=bool)))
        changed = np.flatnonzero(versions != self._seen)
        if not len(changed):
            return
        self._seen[changed] = versions[changed]
        strange = []
        for row in changed.tolist():
            node = self._engine.node(row)
            if node is not self._nodes.get(row):
                strange.append((row, node))
        if strange:
            self._describe(strange)
        places = self._place[changed]
        self._copy(changed[places >= 0], places[places >= 0])

    def _copy(self, rows: Rows, places: Rows) -> None:
        """Take over what is free on these nodes."""
        if not len(rows):
            return
        columns, cluster = self._engine.columns(), self._cluster
        width = min(columns.gpu.shape[1], cluster.gpu_free.shape[1])
        # One row by its number costs a third of what an array of one does.
        there, at = (rows, places) if len(rows) > 1 else (int(rows[0]), int(places[0]))
        free, gpu = columns.free[there], columns.gpu[there, :width]
        # What runs may exceed what a node has been changed to; then nothing of that is free.
        cluster.cpu_free[at] = np.maximum(free[..., self._at[CPUS]], 0)
        cluster.mem_free[at] = np.maximum(free[..., self._at[MEM]], 0)
        cluster.gpu_free[at, :width] = np.minimum(np.maximum(gpu, 0), WHOLE)
        self._ranking.note(places.tolist())

    def _describe(self, nodes: Sequence[tuple[int, Node | None]]) -> None:
        """Nodes came, went or are others than before."""
        self._admitted.clear()
        enough = True
        for row, node in nodes:
            if node is None:
                self._nodes.pop(row, None)
            else:
                self._nodes[row] = node
            has_gpus = node is not None and node.total[self._at[GPUS]] > 0
            self._plain[row] = node is not None and not has_gpus
            place = int(self._place[row])
            if has_gpus and node is not None:
                if place < 0:
                    place = self._take_place()
                    self._place[row] = place
                enough = self._put(place, row, self._supply(node)) and enough
            elif place >= 0:
                self._place[row] = -1
                self._spare.append(place)
                enough = self._put(place, -1, EMPTY) and enough
        if not enough:
            self._rebuild()

    def _take_place(self) -> int:
        if self._spare:
            return self._spare.pop()
        self._supplies.append(EMPTY)
        return len(self._supplies) - 1

    def _put(self, place: int, row: int, supply: Supply) -> bool:
        """Let a node stand in a place; returns False when the cluster has to be built anew for it."""
        self._supplies[place] = supply
        if place >= len(self._rows):
            more = max(LEAST_ROOM, len(self._rows))
            self._rows = np.concatenate((self._rows, np.full(more, -1, dtype=np.int64)))
        self._rows[place] = row
        if place >= len(self._cluster) or not self._cluster.describe(place, supply):
            return False
        self._ranking.note((place,))
        return True

    def _supply(self, node: Node) -> Supply:
        cpu, mem, gpus = (node.total[self._at[name]] for name in (CPUS, MEM, GPUS))
        model = node.attributes.get(MODEL, "")
        return Supply(cpu_milli=cpu, mem_mb=mem, gpus=min(gpus // WHOLE, MOST_DEVICES), model=model)

    def _rebuild(self) -> None:
        """Build the cluster anew, with all models and as many places as there is room for."""
        empty = [EMPTY] * (len(self._rows) - len(self._supplies))
        self._cluster = Cluster([*self._supplies, *empty])
        self._models = tuple(each for each in self._cluster.models if each)
        self._asked.clear()
        self._balance.bind(self._cluster)
        self._ranking = Ranking(self._cluster, self._balance)
        places = np.flatnonzero(self._rows >= 0)
        self._copy(self._rows[places], places)


def demand_of(shape: Mapping[str, int], constraints: Iterable[Constraint], models: Iterable[str]) -> Demand:
    """What one instance asks, as packing knows it. Shapes: `models` are those that there are."""
    asked = shape.get(GPUS, 0)
    gpus, milli = (asked // WHOLE, WHOLE) if asked >= WHOLE else (1, asked)
    if not asked or (asked > WHOLE and asked % WHOLE):
        gpus, milli = 0, 0
    named = models_named(constraints, models) if gpus else ()
    return Demand(cpu_milli=shape.get(CPUS, 0), mem_mb=shape.get(MEM, 0), gpus=gpus, gpu_milli=milli, models=named)


def models_named(constraints: Iterable[Constraint], models: Iterable[str]) -> tuple[str, ...]:
    """The models that constraints admit, of those named and those that there are; empty without such constraints."""
    about = [each for each in constraints if each.field == MODEL and not is_counting(each) and not looks_at_tasks(each)]
    if not about:
        return ()
    known = {*models, *(value for each in about if each.operator in NAMING for value in each.values)}
    found = tuple(model for model in sorted(known) if all(allows(each, model, (), 0, 0) for each in about))
    return found or NO_MODEL
