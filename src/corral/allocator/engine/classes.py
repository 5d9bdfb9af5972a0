"""Demand classes: equal demands are one class, written down as numbers for the kernels while anyone uses it."""

from collections.abc import Iterator

from corral.allocator.engine.catalog import BY_CELLS, STRATEGIES, Demand, Node, check_demand
from corral.allocator.engine.columns import BELOW, CLEAR, EVEN, LEVELS, NEAR, RESOURCES, RULES, State
from corral.allocator.engine.index import Index
from corral.allocator.engine.modes import Kernels
from corral.allocator.engine.tables import Tables
from corral.allocator.engine.tallying import SIBLINGS_PLACE, Rule, Tally, Tallying
from corral.lib.errors import Invalid

MOST_VALUES = 256
"""An attribute with more values than this tells single nodes apart, so classes that look at it name their nodes."""


class Classes:
    """Shapes: `nodes` and `demands` are shared with the engine, by row; a demand of None is a spare row."""

    def __init__(
        self,
        tables: Tables,
        kernels: Kernels,
        index: Index,
        tallying: Tallying,
        nodes: dict[int, Node],
        demands: list[Demand | None],
    ) -> None:
        self._tables = tables
        self._kernels = kernels
        self._index = index
        self._tallying = tallying
        self._nodes = nodes
        self._demands = demands
        self._rows: dict[Demand, int] = {}
        self._uses: dict[int, int] = {}
        self._spare: list[int] = []
        self.largest_gang = 1

    @property
    def _state(self) -> State:
        return self._tables.state

    def use(self, kernels: Kernels) -> None:
        """Go on with another form of the kernels."""
        self._kernels = kernels

    def demand(self, cls: int) -> Demand:
        """A class in words. Errors: `Invalid` when there is no such class."""
        demand = self._demands[cls] if 0 <= cls < len(self._demands) else None
        if demand is None:
            raise Invalid(f"class {cls} is not known to the engine; intern it first")
        return demand

    def intern(self, demand: Demand) -> int:
        """The row of a demand's class, with one user more. Errors: `Invalid`."""
        check_demand(demand)
        if any(self._tells_single_nodes(each.field) for each in demand.constraints):
            demand = demand._replace(named=True)
        cls = self._rows.get(demand)
        if cls is None:
            cls = self._add(demand)
        self._uses[cls] = self._uses.get(cls, 0) + 1
        return cls

    def drop(self, cls: int) -> None:
        """One user of a class less; the last takes the class along. Nothing of it may wait or run then."""
        self._uses[cls] -= 1
        if self._uses[cls]:
            return
        demand = self.demand(cls)
        self._kernels.revive(self._tables.holder, cls)
        for at, rule in enumerate(each for each in demand.rules if not each.weight):
            self._tallying.forget(self._tallying.row_in_use(rule.tally), cls * RULES + at, *_wakes(rule))
        if demand.siblings is not None:
            self._tallying.forget(self._tallying.row_in_use(demand.siblings), cls * RULES + SIBLINGS_PLACE, False, True)
        for tally in _tallies_of(demand):
            self._tallying.drop(tally)
        self._state.heaps.live[cls // self._kernels.bits] &= ~(1 << (cls % self._kernels.bits))
        del self._rows[demand], self._uses[cls]
        self._demands[cls] = None
        self._spare.append(cls)

    def _tells_single_nodes(self, field: str) -> bool:
        return len({node.attributes.get(field) for node in self._nodes.values()}) > MOST_VALUES

    def _add(self, demand: Demand) -> int:
        cls = self._spare.pop() if self._spare else len(self._demands)
        if cls == len(self._demands):
            self._demands.append(None)
            self._tables.ask_rows("class", cls + 1)
            self._tables.ask_width("words", cls // self._kernels.bits + 1)
        self._rows[demand], self._demands[cls] = cls, demand
        self._index.add_class(demand, cls)
        for tally in _tallies_of(demand):
            nodes = ((row, node.hostname, node.attributes) for row, node in self._nodes.items())
            self._tallying.learn_field(tally.field, nodes)
            self._tallying.use(tally)
        k, width = self._state.classes, self._state.meta[RESOURCES]
        for d, amount in enumerate(demand.shape):
            k.shape[cls * (width + 1) + d] = amount
        k.shape[cls * (width + 1) + width] = 1
        cell = int(self._kernels.cell_of(self._tables.holder, demand.shape[0], demand.shape[1]))
        k.row[cls], k.col[cls] = cell // LEVELS, cell % LEVELS
        k.spread[cls] = int(demand.strategy == "spread")
        k.fine[cls], k.gang[cls], k.revocable[cls] = int(demand.fine), demand.gang, int(demand.revocable)
        k.last[cls], k.level[cls], k.hints[cls] = -1, 0, 0
        self._kernels.split_gpus(self._tables.holder, cls)
        soft = self._write_rules(demand, cls)
        k.scored[cls] = -1 if demand.strategy in BY_CELLS and not soft else STRATEGIES[demand.strategy]
        k.extra[cls] = int(k.gpus[cls] > 0 or k.rules[cls] > 0 or k.siblings[cls] >= 0)
        fickle = k.rules[cls] > 0 or k.siblings[cls] >= 0 or k.scored[cls] >= 0 or demand.gang > 1
        k.fickle[cls] = int(fickle)
        self.largest_gang = max(self.largest_gang, demand.gang)
        self._state.heaps.live[cls // self._kernels.bits] |= 1 << (cls % self._kernels.bits)
        return cls

    def _write_rules(self, demand: Demand, cls: int) -> bool:
        """Put a class's rules into numbers; returns whether some are soft."""
        k = self._state.classes
        hard = soft = 0
        for rule in demand.rules:
            row = self._tallying.row_in_use(rule.tally)
            bound = rule.bound if rule.target is None else self._tallying.row_in_use(rule.target)
            column, at = (k.soft, cls * RULES + soft) if rule.weight else (k.rule, cls * RULES + hard)
            for i, number in enumerate((rule.kind, row, bound, rule.weight)):
                column[at * 4 + i] = number
            if rule.weight:
                soft += 1
            else:
                self._tallying.listen(row, at, *_wakes(rule))
                hard += 1
        k.rules[cls], k.softs[cls], k.feeds[cls] = hard, soft, len(demand.feeds)
        for i, tally in enumerate(demand.feeds):
            k.feed[cls * RULES + i] = self._tallying.row_in_use(tally)
        k.siblings[cls] = -1
        if demand.siblings is not None:
            row = self._tallying.row_in_use(demand.siblings)
            k.siblings[cls] = row
            self._tallying.listen(row, cls * RULES + SIBLINGS_PLACE, False, True)
        return soft > 0


def _wakes(rule: Rule) -> tuple[bool, bool]:
    """Whether a class that a rule keeps from everywhere may come to life when its tally grows, when it shrinks."""
    return rule.kind in (NEAR, EVEN), rule.kind in (BELOW, CLEAR, EVEN, NEAR)


def _tallies_of(demand: Demand) -> Iterator[Tally]:
    """Each use that a class makes of a tally."""
    for rule in demand.rules:
        yield rule.tally
        if rule.target is not None:
            yield rule.target
    yield from demand.feeds
    if demand.siblings is not None:
        yield demand.siblings
