"""Places demands on nodes in fair order, keeping all it knows between calls: the engine behind the allocator.

Deterministic: equal calls in equal order give equal decisions and an equal hash, in every mode. Ties go to the role,
class or node that came first.
"""

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from corral.allocator.engine.catalog import Catalog, Demand, Node, Signature, admits, check_demand
from corral.allocator.engine.check import Facts, check
from corral.allocator.engine.columns import (
    DEATHS,
    FREE_LINE,
    FREE_LINES,
    HINTS,
    ITEMS,
    LEVELS,
    MOST_PRIORITY,
    NODES,
    OWED,
    REMEMBER,
    RESOURCES,
    RETEST,
    ROOT,
    RUNNING,
    SCANS,
    SHARE_STEPS,
    SIGNATURES,
    SPARE_TASKS,
    UNLIMITED,
    WALK,
    WALKED,
    WASTEFUL,
    State,
)
from corral.allocator.engine.modes import Mode, load_kernels
from corral.allocator.engine.tables import Tables
from corral.lib.errors import Conflict, Invalid, NotFound
from corral.model.constraints import Constraint, allows

Rows = npt.NDArray[np.int64]
Amounts = Mapping[str, int]


class Placements(NamedTuple):
    """What a tick decided, one row per instance in the order decided; `task` is what `release` takes back."""

    task: Rows
    role: Rows
    cls: Rows
    node: Rows

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


class Counts(NamedTuple):
    """How the engine came by its decisions so far."""

    exact_passes: int
    found_dead: int
    walked: int


_ROLE, _BARE = 1, 2
"""Kinds of items that may be asked for: a role with lines of its own, and one that has had none beside children."""


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
    ) -> None:
        if len(resources) < 2:
            raise Invalid(f"the engine indexes nodes by two resources and got {list(resources)}; name two or more")
        self.resources = tuple(resources)
        self.mode = mode
        self._unshared = [name in set(unshared) for name in resources]
        self._tables = Tables(mode, len(resources))
        self._kernels = load_kernels(mode, cache=cache)
        self._bits = self._kernels.bits
        self._catalog = Catalog(resources, scarce)
        self._roles: dict[str, int] = {}
        self._names: dict[int, str] = {}
        self._items = 0
        self._places = 0
        self._nodes: dict[int, Node] = {}
        self._spare_nodes: list[int] = []
        self._node_rows = 0
        self._demands: dict[Demand, int] = {}
        self._pools: dict[tuple[bool, ...], int] = {}
        self._marks: dict[int, int] = {}
        self._indexes = 0
        self._waiting = 0
        self._kind = np.zeros(16, dtype=np.int8)
        self._total = [0] * len(resources)
        self._total_changed = self._index_changed = False
        self._hash = blake2b(digest_size=16)
        self._start(units, tuning)

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
        self._nodes[row] = node
        columns = self._state.nodes
        at = row * len(self.resources)
        for d, amount in enumerate(node.total):
            columns.free[at + d] = amount
            self._total[d] += amount
        self._enlist(row)
        self._total_changed = True
        self._index_changed = self._index_changed or any(demand.fine for demand in self._demands)
        self._open(row)
        return row

    def remove_node(self, row: int) -> None:
        """Forget a node.

        Errors: `Conflict` while tasks run there: release them first.
        """
        node = self._node(row)
        if self._state.nodes.tasks[row]:
            raise Conflict(f"node {row} cannot go with {self._state.nodes.tasks[row]} tasks on it; release them before")
        self._kernels.open_node(self._state, row, -1)
        classes = self._state.classes
        for cls in range(len(self._demands)):
            if classes.last[cls] == row:
                classes.last[cls] = -1
            kept = [each for each in self._hints(cls) if each != row]
            classes.hints[cls] = len(kept)
            for i, each in enumerate(kept):
                classes.hint[cls * HINTS + i] = each
        for d, amount in enumerate(node.total):
            self._total[d] -= amount
        del self._nodes[row]
        self._spare_nodes.append(row)
        self._total_changed = self._index_changed = True

    def set_eligible(self, row: int, eligible: bool) -> None:
        """Let a node take new work, or not; what runs there is not touched."""
        self._node(row)
        if eligible:
            if self._state.nodes.cell[row] < 0:
                self._open(row)
        else:
            self._kernels.open_node(self._state, row, -1)

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
        item = self._roles.get(name)
        if item is None:
            above = name.rpartition("/")[0]
            parent = ROOT if not above else self._roles.get(above) or self.add_role(above)
            item = self._roles[name] = self._add_item(parent, name)
        width = len(self.resources)
        r = self._state.roles
        r.base[item] = (MOST_PRIORITY - priority) << 52
        r.scale[item] = SHARE_STEPS / weight
        for d in range(width):
            r.guarantee[item * width + d] = promised[d]
            r.limit[item * (width + 1) + d] = most[d]
        r.limit[item * (width + 1) + width] = UNLIMITED if max_tasks is None else max_tasks
        r.limited[item] = int(max_tasks is not None or bool(limit))
        if any(promised) and r.shadow[item] < 0:
            self._add_shadow(item)
        self._kernels.settle_role(self._state, item)
        return item

    def role(self, name: str) -> int:
        """The row of a role. Errors: `NotFound`."""
        if name not in self._roles:
            raise NotFound(f"role {name} is not known to the engine; add it first")
        return self._roles[name]

    def role_name(self, row: int) -> str:
        """The name of a role's row."""
        return self._names[row]

    def intern_class(self, shape: Amounts, constraints: Sequence[Constraint] = (), strategy: str = "binpack") -> int:
        """The row of a demand class; equal demands are one class.

        Errors: `Invalid` for a constraint that counts siblings, which no class can hold.
        """
        demand = Demand(self._amounts(shape), tuple(constraints), strategy)
        known = self._demands.get(demand)
        if known is not None:
            return known
        check_demand(demand)
        cls = len(self._demands)
        self._demands[demand] = cls
        self._tables.ask_rows("class", cls + 1)
        self._tables.ask_width("words", cls // self._bits + 1)
        if self._catalog.learn_fields(demand):
            self._enlist_all()
        s = self._state
        width = len(self.resources)
        for d, amount in enumerate(demand.shape):
            s.classes.shape[cls * (width + 1) + d] = amount
        s.classes.shape[cls * (width + 1) + width] = 1
        cell = int(self._kernels.cell_of(s, demand.shape[0], demand.shape[1]))
        s.classes.row[cls], s.classes.col[cls] = cell // LEVELS, cell % LEVELS
        s.classes.spread[cls] = int(strategy == "spread")
        s.classes.fine[cls] = int(demand.fine)
        s.heaps.live[cls // self._bits] |= 1 << (cls % self._bits)
        for signature, number in self._catalog.signatures.items():
            self._sort_in(demand, cls, signature, number)
        self._index_changed = True
        return cls

    # What is wanted and what runs.

    def submit(self, role: Any, cls: Any, count: Any = 1, priority: Any = 0) -> None:
        """Ask for instances; each argument a number or an array of them. Higher `priority` goes first within a role.

        Errors: `Invalid` for rows that do not exist or a count below 1.
        """
        roles, classes, counts, priorities = _numbers(role, cls, count, priority)
        if len(roles) == 0:
            return
        if roles.min() < 0 or roles.max() >= self._items or not self._kind[roles].all():
            raise Invalid("demands name a role that the engine does not have; add it first")
        if classes.min() < 0 or classes.max() >= len(self._demands) or counts.min() < 1:
            raise Invalid("demands name a class that the engine does not have, or ask less than one; intern it first")
        for item in sorted({int(each) for each in roles[self._kind[roles] == _BARE]}):
            self._add_own_leaf(item)
        self._ask_lines(len(roles))
        self._waiting += int(counts.sum())
        self._kernels.submit(self._state, *(self._handed(each) for each in (roles, classes, counts, priorities)))

    def withdraw(self, role: int, cls: int, count: int = 1, priority: int = 0) -> int:
        """Take demands back that still wait; returns how many there were to take.

        Errors: `Invalid` for rows that do not exist or a count below 1.
        """
        if not 0 <= role < self._items or not self._kind[role] or not 0 <= cls < len(self._demands) or count < 1:
            raise Invalid(f"cannot take back {count} of class {cls} from role {role}; name rows the engine has")
        taken = int(self._kernels.withdraw(self._state, role, cls, count, priority))
        self._waiting -= taken
        return taken

    def release(self, tasks: Any) -> None:
        """End tasks: a number, or an array of what `Placements.task` held.

        Errors: `Conflict` when one of them does not run, or is named twice; then nothing is released.
        """
        rows = _numbers(tasks)[0]
        if len(rows) == 0:
            return
        known = np.asarray(self._state.tasks.node)
        if rows.min() < 0 or rows.max() >= len(known) or known[rows].min() < 0:
            raise Conflict("a task to release does not run; name each running task once")
        if len(rows) > 1 and len(np.unique(rows)) != len(rows):
            raise Conflict("a task to release is named twice; name each running task once")
        self._kernels.release(self._state, self._handed(rows))

    def tick(self, most: int = 1 << 40) -> Placements:
        """Place what fits, at most so many instances, in fair order."""
        self._catch_up()
        needed = min(most, self._waiting)
        self._ask_tasks(needed)
        out = np.zeros(needed, dtype=np.int64)
        handed: Any = out.data if self.mode is Mode.PLAIN else out
        placed = int(self._kernels.serve(self._state, needed, handed))
        self._waiting -= placed
        task = out[:placed]
        tasks = self._state.tasks
        placements = Placements(task, *(np.asarray(each)[task] for each in (tasks.role, tasks.cls, tasks.node)))
        for column in placements[1:]:
            self._hash.update(column.data)
        return placements

    # What is known.

    def decision_hash(self) -> str:
        """A digest of all decisions so far: roles, classes and nodes in the order decided."""
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
        return Counts(int(meta[SCANS]), int(meta[DEATHS]), int(meta[WALKED]))

    @property
    def total(self) -> dict[str, int]:
        """What all nodes have, whether they take work or not."""
        return dict(zip(self.resources, self._total, strict=True))

    def held(self, role: int) -> dict[str, int]:
        """What a role and all below it hold."""
        width = len(self.resources) + 1
        return {name: int(self._state.roles.held[role * width + d]) for d, name in enumerate(self.resources)}

    def free(self, row: int) -> dict[str, int]:
        """What is free on a node."""
        width = len(self.resources)
        return {name: int(self._state.nodes.free[row * width + d]) for d, name in enumerate(self.resources)}

    def free_by_node(self) -> Rows:
        """Free amounts per node row and resource; rows without a node are 0. A copy."""
        found: Rows = self._tables.array("nodes", "free")[: self._node_rows].copy()
        return found

    def explain(self, cls: int) -> Reasons:
        """Count why nodes cannot take an instance of a class now.

        Errors: `Invalid` when there is no such class.
        """
        if not 0 <= cls < len(self._demands):
            raise Invalid(f"class {cls} is not known to the engine; intern it first")
        demand = list(self._demands)[cls]
        rows = np.array(sorted(self._nodes), dtype=np.int64)
        free = self._tables.array("nodes", "free")[rows]
        closed = self._tables.array("nodes", "cell")[rows, 0] < 0
        if demand.fine:
            allowed = np.array([admits(demand, self._nodes[int(row)]) for row in rows], dtype=bool)
        else:
            by_signature = {number: self._admits(demand, each) for each, number in self._catalog.signatures.items()}
            numbers = self._tables.array("nodes", "signature")[rows, 0]
            allowed = np.array([by_signature[int(number)] for number in numbers], dtype=bool)
        lacks = free < np.array(demand.shape, dtype=np.int64)
        candidates = ~closed & allowed
        short = lacks[candidates].sum(axis=0)
        return Reasons(
            nodes=len(rows),
            fits=int((candidates & ~lacks.any(axis=1)).sum()),
            closed=int(closed.sum()),
            constraint=int((~closed & ~allowed).sum()),
            short={name: int(n) for name, n in zip(self.resources, short, strict=True) if n},
        )

    def invariants(self) -> None:
        """Errors: `AssertionError` when the engine contradicts itself. Takes long: for tests."""
        current = not (self._total_changed or self._index_changed)
        check(self._state, Facts(self._nodes, tuple(self._demands), self._waiting, current, self._bits))

    # How it is done.

    @property
    def _state(self) -> State:
        return self._tables.state

    def _start(self, units: tuple[int, int], tuning: Tuning) -> None:
        tables = self._tables
        level = [v if v < 4 else 4 * (v.bit_length() - 3) + (v >> (v.bit_length() - 3)) for v in range(1024)]
        low = [0] * 67
        for bit in range(LEVELS - 2):
            low[(1 << bit) % 67] = bit
        tables.put("cells", "level", np.array(level, dtype=np.int64))
        tables.put("cells", "low", np.array(low, dtype=np.int64))
        tables.put("cells", "unit", np.array(units, dtype=np.int64))
        meta = self._state.meta
        meta[RESOURCES] = len(self.resources)
        meta[SIGNATURES] = tables.widths["signatures"]
        meta[REMEMBER], meta[WALK], meta[RETEST] = int(tuning.remember), tuning.walk, int(tuning.retest)
        meta[FREE_LINE] = -1
        self._chain_lines(0)
        self._stack_tasks(0)
        self._add_item(-1, "")
        self._add_item(-1, "")
        self._kind[:2] = 0

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

    # Nodes and their indexes.

    def _enlist(self, row: int) -> None:
        """Number a node's signature and its indexes."""
        node = self._nodes[row]
        number, new = self._catalog.sign(node)
        if new:
            signature = list(self._catalog.signatures)[number]
            if self._tables.ask_width("signatures", number + 1):
                self._state.meta[SIGNATURES] = self._tables.widths["signatures"]
            for demand, cls in self._demands.items():
                self._sort_in(demand, cls, signature, number)
            self._index_changed = True
        has = tuple(amount > 0 for amount in node.total)
        if has not in self._pools:
            self._pools[has] = self._add_index()
        mark = -1
        if self._catalog.fields:
            if number not in self._marks:
                self._marks[number] = self._add_index()
            mark = self._marks[number]
        columns = self._state.nodes
        columns.signature[row], columns.pool[row], columns.mark[row] = number, self._pools[has], mark

    def _enlist_all(self) -> None:
        """Tell all nodes apart anew, by the fields that are used now."""
        opened = [row for row in self._nodes if self._state.nodes.cell[row] >= 0]
        for row in opened:
            self._kernels.open_node(self._state, row, -1)
        self._marks.clear()
        self._pools.clear()
        self._indexes = 0
        for row in self._nodes:
            self._enlist(row)
        for row in opened:
            self._open(row)

    def _add_index(self) -> int:
        self._tables.ask_rows("index", self._indexes + 1)
        self._indexes += 1
        self._index_changed = True
        return self._indexes - 1

    def _open(self, row: int) -> None:
        at = row * len(self.resources)
        free = self._state.nodes.free
        cell = int(self._kernels.cell_of(self._state, int(free[at]), int(free[at + 1])))
        self._kernels.open_node(self._state, row, cell)

    def _sort_in(self, demand: Demand, cls: int, signature: Signature, number: int) -> None:
        at = cls * self._tables.widths["signatures"] + number
        self._state.classes.tier[at] = self._catalog.tier(demand, signature)

    def _admits(self, demand: Demand, signature: Signature) -> bool:
        values = dict(zip(self._catalog.fields, signature.values, strict=True))
        return all(allows(c, values[c.field], (), 0, 0) for c in demand.constraints)

    def _rebuild_index(self) -> None:
        """Write down which indexes (or nodes) each class searches."""
        found: list[int] = []
        marks: list[tuple[int, int, int]] = []
        pools = {index: Signature(has, (None,) * len(self._catalog.fields)) for has, index in self._pools.items()}
        stride = self._tables.widths["signatures"]
        tiers = self._state.classes.tier
        for demand, cls in self._demands.items():
            begin = len(found)
            if demand.fine:
                found += [row for row in sorted(self._nodes) if admits(demand, self._nodes[row])]
                marks.append((begin, len(found), len(found)))
                continue
            if demand.constraints:
                by_tier = [(tiers[cls * stride + number], index) for number, index in sorted(self._marks.items())]
            else:
                by_tier = [(self._catalog.tier(demand, signature), index) for index, signature in pools.items()]
            found += [index for tier, index in by_tier if tier == 0]
            split = len(found)
            found += [index for tier, index in by_tier if tier == WASTEFUL]
            marks.append((begin, split, len(found)))
        self._tables.ask_rows("listed", len(found))
        listed = np.zeros(self._tables.rows["listed"], dtype=np.int64)
        listed[: len(found)] = found
        self._tables.put("classes", "listed", listed)
        classes = self._state.classes
        for cls, (begin, split, end) in enumerate(marks):
            classes.begin[cls], classes.split[cls], classes.end[cls] = begin, split, end

    def _catch_up(self) -> None:
        """Bring shares and searches up to date with nodes and classes that came or went."""
        if self._total_changed:
            shares = [
                0.0 if unshared or total <= 0 else 1.0 / total
                for total, unshared in zip(self._total, self._unshared, strict=True)
            ]
            self._tables.put("roles", "inverse", np.array(shares, dtype=np.float64))
            self._kernels.refresh(self._state)
            self._total_changed = False
        if self._index_changed:
            self._rebuild_index()
            self._index_changed = False

    # Rooms.

    def _add_item(self, parent: int, name: str) -> int:
        """A new role, or with an empty name an item of the engine's own."""
        item = self._items
        self._tables.ask_rows("item", item + 1)
        if item >= len(self._kind):
            self._kind = np.concatenate((self._kind, np.zeros(len(self._kind), dtype=np.int8)))
        self._items += 1
        self._state.meta[ITEMS] = self._items
        r = self._state.roles
        r.leaf[item], r.base[item], r.scale[item] = item, MOST_PRIORITY << 52, float(SHARE_STEPS)
        if name:
            self._names[item] = name
            self._kind[item] = _ROLE
        if parent >= 0:
            self._adopt(parent, item)
        return item

    def _adopt(self, parent: int, item: int) -> None:
        r = self._state.roles
        if parent > OWED and r.kids[parent] == 0:
            width = len(self.resources) + 1
            self._kind[parent] = _BARE
            if r.first[parent] >= 0 or r.held[parent * width + width - 1]:
                r.kids[parent] = 1
                self._add_own_leaf(parent, inherits=True)
                r = self._state.roles
                r.kids[parent] -= 1
        self._state.heaps.parent[item] = parent
        r.kids[parent] += 1
        self._ask_room(parent, r.kids[parent])

    def _add_own_leaf(self, item: int, *, inherits: bool = False) -> None:
        """Give a role that has children a child for lines of its own; what it held before the others goes there."""
        own = self._add_item(item, "")
        self._kind[item] = _ROLE
        s = self._state
        width = len(self.resources) + 1
        for d in range(width if inherits else 0):
            s.roles.held[own * width + d] = s.roles.held[item * width + d]
        self._kernels.hand_down(s, item, own)

    def _add_shadow(self, item: int) -> None:
        shadow = self._add_item(OWED, "")
        self._state.roles.shadow[item] = shadow
        self._state.roles.stands[shadow] = item

    def _ask_room(self, parent: int, needed: int) -> None:
        """See that a parent's two heaps have room for so many children, in a new stretch if need be."""
        h = self._state.heaps
        room = h.room[parent]
        if needed <= room:
            return
        larger, begin = max(4, 2 * room), self._places
        self._places += 2 * larger
        self._tables.ask_rows("place", self._places)
        h = self._state.heaps
        words = self._tables.widths["words"]
        for side in range(2):
            old, new = h.at[parent] + side * room, begin + side * larger
            for place in range(h.size[parent * 2 + side]):
                h.items[new + place] = h.items[old + place]
                for w in range(words):
                    h.below[(new + place) * words + w] = h.below[(old + place) * words + w]
        h.at[parent], h.room[parent] = begin, larger

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
