"""Places demands on nodes in fair order, keeping all it knows between calls: the engine behind the allocator.

Deterministic: equal calls in equal order give equal decisions and an equal hash, in every mode. Ties go to the role,
class or node that came first.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from corral.allocator.engine.catalog import Catalog, Demand, Node
from corral.allocator.engine.classes import Classes
from corral.allocator.engine.cluster import Amounts, Cluster
from corral.allocator.engine.columns import (
    DEVICES,
    FIELDS,
    FREE_LINE,
    FREE_LINES,
    GPUS,
    HANDED_DEVICES,
    HANDED_LINE,
    HANDED_NODE,
    LEVELS,
    MOST_FIRST,
    MOST_SECOND,
    NOT_HANDED,
    REMEMBER,
    RESOURCES,
    RETEST,
    SCRATCH,
    SEED,
    SIGNATURES,
    SPARE_TASKS,
    STEPS,
    WALK,
)
from corral.allocator.engine.index import Index
from corral.allocator.engine.modes import Mode, load_kernels
from corral.allocator.engine.readings import Held
from corral.allocator.engine.scan import Columns
from corral.allocator.engine.switch import switch
from corral.allocator.engine.tables import Tables
from corral.allocator.engine.tallying import Rule, Tally, Tallying
from corral.allocator.engine.tree import BARE, Tree
from corral.lib.errors import Conflict, Invalid
from corral.model.constraints import Constraint

Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Choose = Callable[[int], tuple[int, int]]
"""Given a class, the node for one instance (-1 for none) and a bit for each of its GPUs."""


class Placements(NamedTuple):
    """What a tick decided, one row per instance in the order decided; `task` is what `release` takes back."""

    task: Rows
    role: Rows
    cls: Rows
    node: Rows
    devices: Rows

    def __len__(self) -> int:
        return len(self.task)


class Tuning(NamedTuple):
    """What makes the engine fast, each to be turned off for comparison; decisions change with it.

    Shapes: `remember` tries the node that a class used last; `walk` bounds the nodes tried in cells before the exact
    pass, 0 goes straight to it; `retest` tries dead classes on freed nodes alone.
    """

    remember: bool = True
    walk: int = 32
    retest: bool = True


def _no_mark(marks: object, value: str | None) -> int:
    raise Invalid(f"the engine was not told how to mark values by {marks}; give it a function")


def _numbers(*columns: Any) -> list[Rows]:
    found = np.broadcast_arrays(*(np.atleast_1d(np.asarray(each, dtype=np.int64)) for each in columns))
    return [np.array(each) for each in found]


class Engine(Cluster):
    """Units: all amounts in thousandths. Shapes: roles, classes, nodes and tasks are known by their row numbers.

    The first two of `resources` are what nodes are indexed by. `unshared` ones count for no share; `scarce` ones are
    kept for those who ask them, as long as anything else fits.
    """

    def __init__(
        self,
        resources: Sequence[str] = ("cpus", "mem", "disk", "gpus", "ports"),
        *,
        unshared: Sequence[str] = ("ports",),
        scarce: Sequence[str] = ("gpus",),
        units: tuple[int, int] = (125, 64_000),
        mode: Mode = Mode.PLAIN,
        cache: bool = False,
        tuning: Tuning = Tuning(),  # noqa: B008 - a constant
        mark: Callable[[object, str | None], int] = _no_mark,
    ) -> None:
        if len(resources) < 2:
            raise Invalid(f"the engine indexes nodes by two resources and got {list(resources)}; name two or more")
        self.resources = tuple(resources)
        self.mode = mode
        self._unshared = [name in set(unshared) for name in resources]
        self._cache = cache
        self._kernels = load_kernels(mode, cache=cache)
        self._tables = Tables(mode, len(resources))
        self._bits = self._kernels.bits
        self._nodes: dict[int, Node] = {}
        self._spare_nodes: list[int] = []
        self._node_rows = 0
        self._demands: list[Demand | None] = []
        self._waiting = 0
        self._total = [0] * len(resources)
        self._total_changed = False
        self._seen: tuple[tuple[Any, ...], Columns] | None = None
        self._hash = blake2b(digest_size=16)
        self._prepare(units, tuning)
        self._tree = Tree(self._tables, self._kernels, len(resources))
        self._catalog = Catalog(resources, scarce)
        self._index = Index(self._tables, self._kernels, self._catalog, self._nodes, self._demands)
        self._tallying = Tallying(self._tables, mark)
        self._classes = Classes(self._tables, self._kernels, self._index, self._tallying, self._nodes, self._demands)
        # The class of holds that come from outside; each is one task.
        self._demands.append(None)
        self._state.classes.shape[SCRATCH * (len(resources) + 1) + len(resources)] = 1

    def use(self, mode: Mode) -> None:
        """Go on in another form, with equal decisions. Errors: `Invalid` unless it was plain; `Unavailable`."""
        if mode is self.mode:
            return
        if self.mode is not Mode.PLAIN:
            raise Invalid(f"the engine is {self.mode} and cannot become {mode}; make another")
        kernels = load_kernels(mode, cache=self._cache)
        switch(self._tables, self._tree, mode, len(self._demands))
        self.mode, self._kernels, self._bits, self._seen = mode, kernels, kernels.bits, None
        for part in (self._tree, self._index, self._classes):
            part.use(kernels)

    # What may be asked.

    def intern_class(
        self,
        shape: Amounts,
        constraints: Sequence[Constraint] = (),
        strategy: str = "binpack",
        *,
        rules: Sequence[Rule] = (),
        feeds: Sequence[Tally] = (),
        siblings: Tally | None = None,
        gang: int = 1,
        revocable: bool = False,
        refused: frozenset[int] = frozenset(),
    ) -> int:
        """The row of a demand class; equal demands are one class. Each call is to be matched by a `drop_class`.

        Shapes: `rules` may look at tallies, which the class also counts in where `feeds` names them; `siblings` is what
        `spread` keeps apart; a `gang` is placed whole or not at all; `refused` nodes are left out. Tallies made for it
        are listed in `fresh_tallies`: count what is there. Errors: `Invalid`.
        """
        demand = Demand(
            self._amounts(shape), tuple(constraints), strategy, tuple(rules), tuple(feeds), siblings, gang, revocable,
            refused,
        )  # fmt: skip
        return self._classes.intern(demand)

    def drop_class(self, cls: int) -> None:
        """One user of a class less; the last takes the class along. Nothing of it may wait or run then."""
        self._classes.drop(cls)

    def fresh_tallies(self) -> list[Tally]:
        """Tallies made since the last call and still in use, in which nothing is counted yet."""
        return self._tallying.take_fresh()

    def gone_tallies(self) -> list[Tally]:
        """Tallies that went out of use since the last call, though they may be in use again."""
        return self._tallying.take_gone()

    # What is wanted and what runs.

    def submit(self, role: Any, cls: Any, count: Any = 1, priority: Any = 0) -> None:
        """Ask for instances; each argument a number or an array of them. Higher `priority` goes first within a role.

        Errors: `Invalid` for rows that do not exist, a count below 1, or part of a gang.
        """
        roles, classes, counts, priorities = _numbers(role, cls, count, priority)
        if len(roles) == 0:
            return
        kind = self._tree.kind
        if roles.min() < 0 or roles.max() >= self._tree.size or not kind[roles].all():
            raise Invalid("demands name a role that the engine does not have; add it first")
        known = classes.min() > SCRATCH and classes.max() < len(self._demands)
        if not known or any(self._demands[each] is None for each in set(classes.tolist())) or counts.min() < 1:
            raise Invalid("demands name a class that the engine does not have, or ask less than one; intern it first")
        if self._classes.largest_gang > 1 and any(
            each % self._classes.demand(one).gang for one, each in zip(classes.tolist(), counts.tolist(), strict=True)
        ):
            raise Invalid("a gang is asked in part; ask for whole gangs")
        for item in sorted({int(each) for each in roles[kind[roles] == BARE]}):
            self._tree.add_own_leaf(item)
        self._ask_lines(len(roles))
        self._waiting += int(counts.sum())
        self._kernels.submit(
            self._tables.holder, *(self._handed(each) for each in (roles, classes, counts, priorities))
        )

    def withdraw(self, role: int, cls: int, count: int = 1, priority: int = 0) -> int:
        """Take demands back that still wait; returns how many there were to take.

        Errors: `Invalid` for rows that do not exist or a count below 1.
        """
        known = 0 <= role < self._tree.size and self._tree.kind[role] and SCRATCH < cls < len(self._demands)
        if not known or count < 1:
            raise Invalid(f"cannot take back {count} of class {cls} from role {role}; name rows the engine has")
        taken = int(self._kernels.withdraw(self._tables.holder, role, cls, count, priority))
        self._waiting -= taken
        return taken

    def release(self, tasks: Any) -> None:
        """End tasks: a number, or an array of what `Placements.task` held.

        Errors: `Conflict` when one of them does not run, or is named twice; then nothing is released.
        """
        self._kernels.release(self._tables.holder, self._handed(self._running_rows(tasks)))

    def forget(self, tasks: Any) -> None:
        """Forget the rows of tasks that go on holding what they hold; `hold` takes it back. Errors: as `release`."""
        self._kernels.forget(self._tables.holder, self._handed(self._running_rows(tasks)))

    def _running_rows(self, tasks: Any) -> Rows:
        rows = _numbers(tasks)[0]
        if len(rows) == 0:
            return rows
        known = np.asarray(self._state.tasks.node)
        if rows.min() < 0 or rows.max() >= len(known) or known[rows].min() < 0:
            raise Conflict("a task to release does not run; name each running task once")
        if len(rows) > 1 and len(np.unique(rows)) != len(rows):
            raise Conflict("a task to release is named twice; name each running task once")
        return rows

    def hold(self, rows: Sequence[Held], signs: Sequence[int]) -> list[int]:
        """Charge nodes and roles with amounts from outside, or with -1 take that back; returns the GPUs of each.

        Errors: `Invalid` for a role that has no row to be charged by itself.
        """
        if not rows:
            return []
        kind = self._tree.kind
        for item in sorted({each.role for each in rows if kind[each.role] == BARE}):
            self._tree.add_own_leaf(item)
        leaf = self._state.roles.leaf
        columns = [
            np.array(each, dtype=np.int64)
            for each in (
                [leaf[each.role] for each in rows],
                [each.node for each in rows],
                [amount for each in rows for amount in each.amounts],
                signs,
                [int(each.revocable) for each in rows],
                [each.devices for each in rows],
            )
        ]
        handed = [self._handed(each) for each in columns]
        self._kernels.hold(self._tables.holder, *handed)
        return [int(each) for each in handed[-1]]

    def count(self, tallies: Sequence[Tally], nodes: Sequence[int], signs: Sequence[int]) -> None:
        """Count instances in tallies in use, or with -1 uncount them."""
        if tallies:
            rows = [self._tallying.row_in_use(each) for each in tallies]
            columns = [np.array(each, dtype=np.int64) for each in (rows, nodes, signs)]
            self._kernels.recount(self._tables.holder, *(self._handed(each) for each in columns))

    def seed(self, number: int) -> None:
        """Let what chance decides follow this number. Shapes: 0 to 2**31 - 1."""
        self._state.meta[SEED] = number

    def tick(self, most: int = 1 << 40, choose: Choose | None = None) -> Placements:
        """Place what fits, at most so many instances (and the rest of a gang), in fair order.

        Shapes: `choose` is asked for the node of each instance whose strategy is `gpu`; without it nothing fits those.
        """
        self._catch_up()
        needed = min(most + self._classes.largest_gang, self._waiting)
        self._ask_tasks(needed)
        out = np.empty(5 * needed, dtype=np.int64)
        handed: Any = out.data if self.mode is Mode.PLAIN else out
        serve, holder, meta = self._kernels.serve, self._tables.holder, self._state.meta
        most, placed = min(most, needed), 0
        while True:
            meta[HANDED_LINE] = -1
            placed = int(serve(holder, most, placed, handed))
            if meta[HANDED_LINE] < 0:
                break
            cls = int(self._state.lines.cls[meta[HANDED_LINE]])
            meta[HANDED_NODE], meta[HANDED_DEVICES] = choose(cls) if choose is not None else (-1, 0)
        self._waiting -= placed
        task, *told = (out[at : at + placed] for at in range(0, 5 * needed, needed)) if needed else (out,) * 5
        for column in told:
            self._hash.update(column.data)
        return Placements(task, *told)

    # How it is done.

    def _prepare(self, units: tuple[int, int], tuning: Tuning) -> None:
        tables = self._tables
        low = [0] * 67
        for bit in range(LEVELS - 2):
            low[(1 << bit) % 67] = bit
        tables.put("cells", "level", _levels())
        tables.put("cells", "low", np.array(low, dtype=np.int64))
        tables.put("cells", "unit", np.array(units, dtype=np.int64))
        meta = self._state.meta
        meta[RESOURCES] = len(self.resources)
        meta[SIGNATURES], meta[FIELDS] = tables.widths["signatures"], tables.widths["fields"]
        meta[DEVICES] = tables.widths["devices"]
        meta[GPUS] = self.resources.index("gpus") if "gpus" in self.resources else -1
        meta[MOST_FIRST] = meta[MOST_SECOND] = 1
        meta[HANDED_LINE], meta[HANDED_NODE] = -1, NOT_HANDED
        meta[REMEMBER], meta[WALK], meta[RETEST] = int(tuning.remember), tuning.walk, int(tuning.retest)
        meta[FREE_LINE] = -1
        self._chain_lines(0)
        self._stack_tasks(0)

    def _handed(self, rows: Rows) -> Any:
        """Numbers as the kernels of this mode take them."""
        return rows.tolist() if self.mode is Mode.PLAIN else rows

    def _catch_up(self) -> None:
        """Bring shares and searches up to date with nodes and classes that came or went."""
        if self._total_changed:
            shares = [
                0.0 if unshared or total <= 0 else 1.0 / total
                for total, unshared in zip(self._total, self._unshared, strict=True)
            ]
            self._tables.put("roles", "inverse", np.array(shares, dtype=np.float64))
            self._kernels.refresh(self._tables.holder)
            self._total_changed = False
        if self._index.changed:
            self._index.rebuild()

    # Rooms.

    def _ask_lines(self, needed: int) -> None:
        free = self._state.meta[FREE_LINES]
        if free >= needed:
            return
        before = self._tables.rows["line"]
        self._tables.ask_rows("line", before + needed - free)
        self._chain_lines(before)

    def _chain_lines(self, begin: int) -> None:
        end = self._tables.rows["line"]
        columns, meta = self._state.lines, self._state.meta
        for row in range(end - 1, begin - 1, -1):
            columns.next[row] = meta[FREE_LINE]
            meta[FREE_LINE] = row
        meta[FREE_LINES] += end - begin

    def _ask_tasks(self, needed: int) -> None:
        spare = self._state.meta[SPARE_TASKS]
        if spare >= needed:
            return
        before = self._tables.rows["task"]
        self._tables.ask_rows("task", before + needed - spare)
        self._stack_tasks(before)

    def _stack_tasks(self, begin: int) -> None:
        end = self._tables.rows["task"]
        meta = self._state.meta
        count = meta[SPARE_TASKS]
        spare = np.asarray(self._state.tasks.spare)
        # Tasks below, so that the lowest row is taken first.
        spare[count : count + end - begin] = np.arange(end - 1, begin - 1, -1)
        meta[SPARE_TASKS] += end - begin


@lru_cache(maxsize=1)
def _levels() -> Rows:
    """The level of each number of steps: within a doubling there are four."""
    found = [v if v < 4 else 4 * (v.bit_length() - 3) + (v >> (v.bit_length() - 3)) for v in range(STEPS)]
    return np.array(found, dtype=np.int64)
