"""What can be asked of an engine: what is free, held and waiting, and why a class fits where it fits.

Nothing in here changes what is decided.
"""

from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from corral.allocator.engine.catalog import Demand, Node, admits
from corral.allocator.engine.check import Facts, check
from corral.allocator.engine.classes import Classes
from corral.allocator.engine.columns import DEATHS, PROMISED, ROOT, RUNNING, SCANS, UNDONE, WALKED, State
from corral.allocator.engine.index import Index, rows_admitted
from corral.allocator.engine.modes import Kernels
from corral.allocator.engine.scan import Columns, columns_of, costs_of, passing
from corral.allocator.engine.tables import Tables
from corral.allocator.engine.tallying import Rule, Tallying
from corral.allocator.engine.tree import Tree
from corral.lib.errors import NotFound

Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


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


class Readings:
    """Of an engine, which has all that is named here."""

    resources: tuple[str, ...]
    _tables: Tables
    _kernels: Kernels
    _bits: int
    _nodes: dict[int, Node]
    _demands: list[Demand | None]
    _node_rows: int
    _waiting: int
    _total: list[int]
    _total_changed: bool
    _seen: tuple[tuple[Any, ...], Columns] | None
    _hash: blake2b
    _tree: Tree
    _index: Index
    _tallying: Tallying
    _classes: Classes

    @property
    def _state(self) -> State:
        return self._tables.state

    def _node(self, row: int) -> Node:
        if row not in self._nodes:
            raise NotFound(f"node {row} is not known to the engine; add it first")
        return self._nodes[row]

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
