"""Places demands on nodes in fair order, keeping all it knows between calls: the engine behind the allocator.

Deterministic: equal calls in equal order give equal decisions and an equal hash, in every mode. Ties go to the role,
class or node that came first.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from corral.allocator.engine.catalog import Catalog, Demand, Node, admits
from corral.allocator.engine.check import Facts, check
from corral.allocator.engine.classes import Classes
from corral.allocator.engine.columns import (
    DEATHS,
    DEVICES,
    FIELDS,
    FREE_LINE,
    FREE_LINES,
    GPUS,
    HANDED_DEVICES,
    HANDED_LINE,
    HANDED_NODE,
    HINTS,
    LEVELS,
    MOST_FIRST,
    MOST_PRIORITY,
    MOST_SECOND,
    NODES,
    NOT_HANDED,
    PROMISED,
    REMEMBER,
    REMEMBERS,
    RESOURCES,
    RETEST,
    ROOT,
    RUNNING,
    SCANS,
    SCRATCH,
    SEED,
    SHARE_STEPS,
    SIGNATURES,
    SPARE_TASKS,
    STEPS,
    UNDONE,
    UNLIMITED,
    WALK,
    WALKED,
    State,
)
from corral.allocator.engine.index import Index, rows_admitted
from corral.allocator.engine.modes import Mode, load_kernels
from corral.allocator.engine.rules import WHOLE
from corral.allocator.engine.scan import Columns, columns_of, costs_of, passing
from corral.allocator.engine.tables import Tables
from corral.allocator.engine.tallying import Rule, Tally, Tallying
from corral.allocator.engine.tree import BARE, Tree
from corral.lib.errors import Conflict, Invalid, NotFound
from corral.model.constraints import Constraint

Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Amounts = Mapping[str, int]
Choose = Callable[[int], tuple[int, int]]
"""Given a class, the node for one instance (-1 for none) and a bit for each of its GPUs."""

MOST_DEVICES = 62
"""GPUs of one node that are told apart."""


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


class Reasons(NamedTuple):
    """Why a class fits where it fits. Shapes: node counts; a node may count under several resources in `short`."""

    nodes: int
    fits: int
    closed: int
    constraint: int
    short: dict[str, int]


class Held(NamedTuple):
    """Amounts that no class describes. Shapes: `devices` has a bit for each GPU, 0 lets them be chosen."""

    role: int
    node: int
    amounts: tuple[int, ...]
    revocable: bool = False
    devices: int = 0


class Counts(NamedTuple):
    """How the engine came by its decisions so far."""

    exact_passes: int
    found_dead: int
    walked: int
    undone: int


def _no_mark(marks: object, value: str | None) -> int:
    raise Invalid(f"the engine was not told how to mark values by {marks}; give it a function")


def _numbers(*columns: Any) -> list[Rows]:
    found = np.broadcast_arrays(*(np.atleast_1d(np.asarray(each, dtype=np.int64)) for each in columns))
    return [np.array(each) for each in found]


class Engine:
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

    # What there is.

    def add_node(self, total: Amounts, hostname: str = "", attributes: Mapping[str, str] | None = None) -> int:
        """Add an empty node, open to work; returns its row.

        Errors: `Invalid` for a resource the engine does not know.
        """
        node = Node(self._amounts(total), hostname, attributes or {})
        row = self._spare_nodes.pop() if self._spare_nodes else self._node_rows
        if row == self._node_rows:
            self._tables.ask_rows("node", row + 1)
            self._node_rows += 1
            self._state.meta[NODES] = self._node_rows
        self._describe(row, node, (0,) * len(self.resources))
        self._index.open(row)
        return row

    def change_node(
        self, row: int, total: Amounts, hostname: str = "", attributes: Mapping[str, str] | None = None
    ) -> None:
        """Let a node have other amounts or attributes; what runs there goes on, even if that leaves less than nothing.

        Shapes: nothing is counted in tallies for the node meanwhile. Errors: `Invalid`, `NotFound`.
        """
        old = self._node(row)
        node = Node(self._amounts(total), hostname, attributes or {})
        opened = self._state.nodes.cell[row] >= 0
        if opened:
            self._kernels.open_node(self._tables.holder, row, -1)
        self._describe(row, node, old.total)
        if opened:
            self._index.open(row)

    def remove_node(self, row: int) -> None:
        """Forget a node.

        Errors: `Conflict` while tasks run there: release them first.
        """
        node = self._node(row)
        if self._state.nodes.tasks[row]:
            raise Conflict(f"node {row} cannot go with {self._state.nodes.tasks[row]} tasks on it; release them before")
        self._kernels.open_node(self._tables.holder, row, -1)
        classes = self._state.classes
        for cls in range(len(self._demands)):
            if classes.last[cls] == row:
                classes.last[cls] = -1
            kept = [each for each in self._hints(cls) if each != row]
            classes.hints[cls] = len(kept)
            for i, each in enumerate(kept):
                classes.hint[cls * HINTS + i] = each
        self._describe(row, Node((0,) * len(self.resources), "", {}), node.total)
        self._tallying.leave(row)
        del self._nodes[row]
        self._spare_nodes.append(row)
        self._index.changed = True

    def set_eligible(self, row: int, eligible: bool) -> None:
        """Let a node take new work, or not; what runs there is not touched."""
        self._node(row)
        if eligible:
            if self._state.nodes.cell[row] < 0:
                self._index.open(row)
        else:
            self._kernels.open_node(self._tables.holder, row, -1)

    def _describe(self, row: int, node: Node, before: tuple[int, ...]) -> None:
        """Write a closed node down, whose amounts were others before."""
        self._nodes[row] = node
        columns, width = self._state.nodes, len(self.resources)
        columns.version[row] += 1
        for d, amount in enumerate(node.total):
            columns.free[row * width + d] += amount - before[d]
            self._total[d] += amount - before[d]
        self._describe_devices(row, node, before)
        self._tallying.place(row, node.hostname, node.attributes)
        self._index.enlist(row)
        meta = self._state.meta
        meta[MOST_FIRST], meta[MOST_SECOND] = (
            max(meta[MOST_FIRST], node.total[0]),
            max(meta[MOST_SECOND], node.total[1]),
        )
        self._total_changed = True
        self._index.changed = self._index.changed or any(each is not None and each.fine for each in self._demands)

    def _describe_devices(self, row: int, node: Node, before: tuple[int, ...]) -> None:
        meta = self._state.meta
        if meta[GPUS] < 0:
            return
        had, has = before[meta[GPUS]] // WHOLE, min(node.total[meta[GPUS]] // WHOLE, MOST_DEVICES)
        if self._tables.ask_width("devices", max(has, 1)):
            meta[DEVICES] = self._tables.widths["devices"]
        at = row * meta[DEVICES]
        gpu = self._state.nodes.gpu
        for d in range(meta[DEVICES]):
            gpu[at + d] += (WHOLE if d < has else 0) - (WHOLE if d < min(had, MOST_DEVICES) else 0)

    # Who may have how much.

    def add_role(
        self,
        name: str,
        *,
        weight: float = 1.0,
        guarantee: Amounts | None = None,
        limit: Amounts | None = None,
        max_tasks: int | None = None,
        priority: int = 0,
    ) -> int:
        """Add a role, or change one; `ads/etl` stands below `ads`, which is added when missing. Returns its row.

        Shapes: `weight` above 0, `priority` 0 to 1023, the higher the earlier; what `guarantee` and `limit` leave out
        is not guaranteed, not limited. Errors: `Invalid`.
        """
        if not name or not all(name.split("/")):
            raise Invalid(f"{name!r} names no role; write a name, with '/' between levels")
        if not weight > 0:
            raise Invalid(f"role {name} has the weight {weight}; it must be above 0")
        if not 0 <= priority <= MOST_PRIORITY:
            raise Invalid(f"role {name} has the priority {priority}; it must be within 0 and {MOST_PRIORITY}")
        promised = self._amounts(guarantee or {})
        most = [UNLIMITED if limit is None or each not in limit else limit[each] for each in self.resources]
        self._amounts(limit or {})
        item = self._tree.add_role(name)
        width = len(self.resources)
        r = self._state.roles
        r.base[item] = (MOST_PRIORITY - priority) << 52
        r.scale[item] = SHARE_STEPS / weight
        for d in range(width):
            r.guarantee[item * width + d] = promised[d]
            r.limit[item * (width + 1) + d] = most[d]
        r.limit[item * (width + 1) + width] = UNLIMITED if max_tasks is None else max_tasks
        r.limited[item] = int(max_tasks is not None or bool(limit))
        if any(promised):
            if r.shadow[item] < 0:
                self._tree.add_shadow(item)
            if not self._state.meta[PROMISED]:
                self._state.meta[PROMISED] = 1
                self._sum_promises()
        self._kernels.settle_role(self._tables.holder, item)
        return item

    def add_claimant(self, role: int, priority: int) -> int:
        """A row below a role for one framework's demands of one priority.

        Among a role's claimants the higher priority is served first, then the smaller share. Errors: `Invalid`.
        """
        if not 0 <= priority <= MOST_PRIORITY:
            raise Invalid(f"a claimant has the priority {priority}; it must be within 0 and {MOST_PRIORITY}")
        return self._tree.add_claimant(role, priority)

    def set_claimant(self, item: int, priority: int) -> None:
        """Let a claimant that holds and asks nothing have another priority."""
        self._tree.set_priority(item, priority)

    def set_reserve(self, amounts: Amounts | None) -> None:
        """Keep no more than this free for guarantees that lack something, all together; None keeps all they lack."""
        for d, name in enumerate(self.resources):
            self._state.roles.reserve[d] = UNLIMITED if amounts is None else amounts.get(name, 0)

    def set_past(self, item: int, amounts: Sequence[int]) -> None:
        """What a role held before, decayed; it counts where it is more than what the role holds now."""
        width = len(self.resources)
        self._state.meta[REMEMBERS] = 1
        for d, amount in enumerate(amounts):
            self._state.roles.past[item * width + d] = amount
        self._kernels.settle_role(self._tables.holder, item)

    def role(self, name: str) -> int:
        """The row of a role. Errors: `NotFound`."""
        return self._tree.row(name)

    def find_role(self, name: str) -> int | None:
        """The row of a role, None when it is not known."""
        return self._tree.find(name)

    def role_name(self, row: int) -> str:
        """The name of a role's row."""
        return self._tree.name(row)

    def _sum_promises(self) -> None:
        """Work out what all guarantees lack, from the deepest role up; parents are told by their children."""
        parents = self._state.heaps.parent
        depth: dict[int, int] = {ROOT: 0}
        rows = [row for row in range(2, self._tree.size) if self._state.roles.stands[row] < 0]
        for row in rows:
            at, steps = row, 0
            while at != ROOT:
                at, steps = parents[at], steps + 1
            depth[row] = steps
        for row in sorted(rows, key=lambda each: (-depth[each], each)):
            self._kernels.settle_unmet(self._tables.holder, len(self.resources), row)

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
        rows = out.reshape(5, needed)[:, :placed]
        self._hash.update(np.ascontiguousarray(rows[1:]).data)
        return Placements(*rows)

    # What is known.

    def decision_hash(self) -> str:
        """A digest of all decisions so far: roles, classes, nodes and GPUs in the order decided."""
        return self._hash.hexdigest()

    @property
    def waiting(self) -> int:
        """Instances asked for and not placed."""
        return self._waiting

    @property
    def running(self) -> int:
        return int(self._state.meta[RUNNING])

    @property
    def counts(self) -> Counts:
        meta = self._state.meta
        return Counts(int(meta[SCANS]), int(meta[DEATHS]), int(meta[WALKED]), int(meta[UNDONE]))

    @property
    def total(self) -> dict[str, int]:
        """What all nodes have, whether they take work or not."""
        return dict(zip(self.resources, self._total, strict=True))

    @property
    def spare(self) -> dict[str, int]:
        """What is free or lent on open nodes."""
        return {name: int(self._state.roles.spare[d]) for d, name in enumerate(self.resources)}

    def unmet(self, role: int = ROOT) -> dict[str, int]:
        """What guarantees at or below a role lack; of ROOT all together."""
        roles = self._state.roles
        column = roles.under if role == ROOT else roles.unmet
        return {name: int(column[role * len(self.resources) + d]) for d, name in enumerate(self.resources)}

    def held(self, role: int) -> dict[str, int]:
        """What a role and all below it hold."""
        width = len(self.resources) + 1
        return {name: int(self._state.roles.held[role * width + d]) for d, name in enumerate(self.resources)}

    def lent(self, role: int) -> dict[str, int]:
        """What of it is revocable."""
        width = len(self.resources)
        return {name: int(self._state.roles.lent[role * width + d]) for d, name in enumerate(self.resources)}

    def tasks_held(self, role: int) -> int:
        """How many tasks and offers a role and all below it have."""
        width = len(self.resources) + 1
        return int(self._state.roles.held[role * width + width - 1])

    def free(self, row: int) -> dict[str, int]:
        """What is free on a node."""
        width = len(self.resources)
        return {name: int(self._state.nodes.free[row * width + d]) for d, name in enumerate(self.resources)}

    def total_of(self, row: int) -> dict[str, int]:
        """What a node has, free or not."""
        return dict(zip(self.resources, self._node(row).total, strict=True))

    def free_by_node(self) -> Rows:
        """Free amounts per node row and resource; rows without a node are 0. A copy."""
        found: Rows = self._tables.array("nodes", "free")[: self._node_rows].copy()
        return found

    def columns(self) -> Columns:
        """The nodes as NumPy columns, a row each; not to be written to."""
        nodes = self._state.nodes
        parts = nodes.free, nodes.cell, nodes.signature, nodes.domain, nodes.gpu, nodes.tasks, self._node_rows
        if self._seen is None or any(a is not b for a, b in zip(parts, self._seen[0], strict=True)):
            self._seen = parts, columns_of(nodes, self._state.meta)
        return self._seen[1]

    def versions(self) -> Rows:
        """A number per node row that grows whenever the node or its free amounts change; not to be written to."""
        return self.columns().version

    def node(self, row: int) -> Node | None:
        """The node of a row in words, another one each time it is described; None for a row without a node."""
        return self._nodes.get(row)

    def soft_costs(self, cls: int, rows: Rows) -> Rows:
        """What the soft rules of a class hold against each of these nodes."""
        return costs_of(self.columns(), self._state.tallies, self._state.classes, rows, cls)

    def passing(self, rule: Rule) -> Mask:
        """The node rows that a rule of a class in use allows now."""
        row = self._tallying.row_in_use(rule.tally)
        return passing(self._state.tallies, self.columns().domain, rule.kind, row, rule.bound)

    def fits(self, row: int, cls: int) -> bool:
        """Whether one instance fits on a node now, its strategy aside."""
        if not self._kernels.fits(self._tables.holder, row, cls, 1 << 40):
            return False
        return bool(rows_admitted(self._classes.demand(cls), self._nodes, [row])[0])

    def keeps_headroom(self, item: int, cls: int) -> bool:
        """Whether one more instance (or gang) of a firm class leaves enough free for all guarantees."""
        s = self._state
        if not s.meta[PROMISED]:
            return True
        size = max(1, self._classes.demand(cls).gang)
        leaf = s.roles.leaf[item]
        return bool(self._kernels.keeps_headroom(self._tables.holder, leaf, cls, size))

    def may_have(self, item: int, cls: int) -> bool:
        """Whether one more instance (or gang) of a class keeps all limits and the headroom for guarantees."""
        s = self._state
        size, leaf = max(1, self._classes.demand(cls).gang), s.roles.leaf[item]
        return int(self._kernels.find_limit(self._tables.holder, leaf, cls, size)) < 0

    def demand(self, cls: int) -> Demand:
        """A class in words. Errors: `Invalid` when there is no such class."""
        return self._classes.demand(cls)

    def admitted(self, cls: int) -> Mask:
        """The node rows that the constraints of a class admit; rows without a node are not."""
        demand = self._classes.demand(cls)
        found = np.zeros(self._node_rows, dtype=bool)
        rows = sorted(self._nodes)
        if demand.fine:
            found[rows] = rows_admitted(demand, self._nodes, rows)
            return found
        numbers, first, of_row = np.unique(
            np.asarray(self._state.nodes.signature)[rows], return_index=True, return_inverse=True
        )
        answers = np.array([admits(demand, self._nodes[rows[at]]) for at in first.tolist()], dtype=bool)
        if len(numbers):
            found[rows] = answers[of_row]
        return found

    def could_take(self, cls: int, aside: Callable[[Rule], bool] = lambda rule: False) -> Mask:
        """The node rows that would take an instance of a class if they had room: open, admitted, within all rules.

        Shapes: rules of which `aside` is true are left out.
        """
        found = (self.columns().cell >= 0) & self.admitted(cls)
        for rule in self._classes.demand(cls).rules:
            if not rule.weight and not aside(rule):
                found &= self.passing(rule)
        return found

    def explain(self, cls: int) -> Reasons:
        """Count why nodes cannot take an instance of a class now.

        Errors: `Invalid` when there is no such class.
        """
        demand = self._classes.demand(cls)
        rows = np.array(sorted(self._nodes), dtype=np.int64)
        all = self.columns()
        closed = all.cell[rows] < 0
        candidates = self.could_take(cls)[rows]
        allowed = candidates | closed
        lacks = np.maximum(all.free[rows], 0) < np.array(demand.shape, dtype=np.int64)
        short = lacks[candidates].sum(axis=0)
        return Reasons(
            nodes=len(rows),
            fits=int((candidates & ~lacks.any(axis=1)).sum()),
            closed=int(closed.sum()),
            constraint=int((~closed & ~allowed).sum()),
            short={name: int(n) for name, n in zip(self.resources, short, strict=True) if n},
        )

    def invariants(self, held: Sequence[Held] = ()) -> None:
        """Takes long: for tests. Shapes: `held` is all that came from outside.

        Errors: `AssertionError` when the engine contradicts itself.
        """
        current = not (self._total_changed or self._index.changed)
        check(
            self._state,
            Facts(self._nodes, self._demands, self._waiting, current, self._bits, self._tables.has_queues, held),
        )

    # How it is done.

    @property
    def _state(self) -> State:
        return self._tables.state

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

    def _amounts(self, amounts: Amounts) -> tuple[int, ...]:
        unknown = sorted(set(amounts) - set(self.resources))
        if unknown:
            raise Invalid(f"the engine knows {', '.join(self.resources)}, not {', '.join(unknown)}; leave it out")
        found = tuple(int(amounts.get(name, 0)) for name in self.resources)
        if min(found) < 0:
            raise Invalid(f"amounts must be 0 or more, found {dict(amounts)}; correct them")
        return found

    def _node(self, row: int) -> Node:
        if row not in self._nodes:
            raise NotFound(f"node {row} is not known to the engine; add it first")
        return self._nodes[row]

    def _handed(self, rows: Rows) -> Any:
        """Numbers as the kernels of this mode take them."""
        return rows.tolist() if self.mode is Mode.PLAIN else rows

    def _hints(self, cls: int) -> list[int]:
        classes = self._state.classes
        return [int(classes.hint[cls * HINTS + i]) for i in range(classes.hints[cls])]

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
