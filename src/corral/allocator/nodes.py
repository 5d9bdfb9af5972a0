"""The agents as flat columns: what is free, and how it shrinks while one allocation run gives it away.

A row is an agent's place in the view. Only unreserved, non-revocable resources count here.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from corral.allocator.strategies import FREE_STEPS, MOST_TASKS, SPARE_GPU, Column, mix, score
from corral.allocator.view import AgentView
from corral.model.constraints import field_value
from corral.model.ids import AgentId
from corral.model.resources import (
    PLAIN,
    ResourceKind,
    Resources,
    add,
    all_ranges,
    count_range,
    cut_ranges,
    subtract,
)

Mask = npt.NDArray[np.bool_]
Ranges = tuple[tuple[int, int], ...]

CPUS, MEM, GPUS, PORTS = "cpus", "mem", "gpus", "ports"


def plain(resources: Resources) -> Resources:
    """What anybody may be given for good: not reserved, not revocable, no volume."""
    return tuple(r for r in resources if r.identity is PLAIN or r.identity == PLAIN)


def _columns(
    agents: Sequence[AgentView], bundle: Callable[[AgentView], Resources], names: Iterable[str]
) -> dict[str, Column]:
    """Plain scalars in thousandths, and `ports` as a count."""
    found = {name: [0] * len(agents) for name in names}
    for row, agent in enumerate(agents):
        for r in bundle(agent):
            column = found.get(r.name)
            if column is None or not (r.identity is PLAIN or r.identity == PLAIN):
                continue
            column[row] = r.milli if r.kind is ResourceKind.SCALAR else count_range(r.ranges)
    return {name: np.array(column, dtype=np.int64) for name, column in found.items()}


class Nodes:
    """Shapes: `free` has a column for each name that some want asks; `touched` lists rows in the order they shrank."""

    def __init__(self, agents: Sequence[AgentView], names: Iterable[str], seed: int) -> None:
        self.agents = agents
        self.names = sorted({*names, CPUS, MEM, GPUS})
        self.free = _columns(agents, lambda agent: agent.free, self.names)
        self.eligible: Mask = np.array([not agent.ineligible for agent in agents], dtype=bool)
        self.tasks: Column = np.array([min(agent.tasks, MOST_TASKS) for agent in agents], dtype=np.int64)
        self.touched: list[int] = []
        self.spare_gpus = self.free[GPUS] > 0
        self.gpu_penalty: Column | None = self.spare_gpus * SPARE_GPU if self.spare_gpus.any() else None
        self._seed = seed
        self._most_cpus = max(1, int(self.free[CPUS].max(initial=0)))
        self._most_mem = max(1, int(self.free[MEM].max(initial=0)))
        self._scores: dict[str, Column] = {}
        self._spent: dict[int, list[Resources]] = {}
        self._ports: dict[int, Ranges] = {}
        self._values: dict[str, tuple[Column, list[str]]] = {}

    def __len__(self) -> int:
        return len(self.agents)

    @cached_property
    def rows(self) -> dict[AgentId, int]:
        return {agent.id: row for row, agent in enumerate(self.agents)}

    @cached_property
    def total(self) -> dict[str, Column]:
        return _columns(self.agents, lambda agent: agent.total, self.names)

    def rest(self, row: int) -> Resources:
        """All that is free on an agent now, whatever its kind."""
        spent = self._spent.get(row)
        free = self.agents[row].free
        return subtract(free, add(*spent)) if spent else free

    def ports(self, row: int) -> Ranges:
        """The agent's free ports."""
        found = self._ports.get(row)
        if found is None:
            found = self._ports[row] = all_ranges(plain(self.agents[row].free), PORTS)
        return found

    def take(self, row: int, bundle: Resources) -> None:
        """Give these away, as one task more."""
        for r in bundle:
            column = self.free.get(r.name)
            if r.name == PORTS:
                self._ports[row] = cut_ranges(self.ports(row), r.ranges)
            if column is not None:
                column[row] -= r.milli if r.kind is ResourceKind.SCALAR else count_range(r.ranges)
        self._spent.setdefault(row, []).append(bundle)
        self.tasks[row] = min(int(self.tasks[row]) + 1, MOST_TASKS)
        self.touched.append(row)
        for strategy, column in self._scores.items():
            column[row] = self._score(strategy, row)

    def scores(self, strategy: str) -> Column:
        """One score per row, the lowest wins; kept up to date by `take`."""
        found = self._scores.get(strategy)
        if found is None:
            found = self._scores[strategy] = self._score_all(strategy)
        return found

    def values(self, field: str) -> tuple[Column, list[str]]:
        """The number of each row's value of a constraint field (-1 without), and the texts by number."""
        found = self._values.get(field)
        if found is None:
            numbers: dict[str, int] = {}
            column = []
            for agent in self.agents:
                value = field_value(field, agent.hostname, agent.attributes)
                column.append(-1 if value is None else numbers.setdefault(value, len(numbers)))
            found = self._values[field] = (np.array(column, dtype=np.int64), list(numbers))
        return found

    def _score_all(self, strategy: str) -> Column:
        if strategy == "random":
            chance = np.array([mix(self._seed * len(self) + row) for row in range(len(self))], dtype=np.int64)
        else:
            chance = np.zeros(len(self), dtype=np.int64)
        parts = self.free[CPUS] / self._most_cpus + self.free[MEM] / self._most_mem
        free = np.maximum(0, (parts * (FREE_STEPS / 2)).astype(np.int64))
        return score(strategy, self.tasks, free, chance)

    def _score(self, strategy: str, row: int) -> int:
        """As `_score_all`; the chance is drawn anew, so that the row may be drawn again."""
        chance = mix((self._seed + len(self.touched)) * len(self) + row)
        part = int(self.free[CPUS][row]) / self._most_cpus + int(self.free[MEM][row]) / self._most_mem
        return score(strategy, int(self.tasks[row]), max(0, int(part * (FREE_STEPS / 2))), chance)
