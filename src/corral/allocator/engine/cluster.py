"""What an engine is told of the cluster: the nodes there are, and how much of them roles and claimants may have."""

from collections.abc import Mapping, Sequence

from corral.allocator.engine.catalog import Node
from corral.allocator.engine.columns import (
    DEVICES,
    GPUS,
    HINTS,
    MOST_FIRST,
    MOST_PRIORITY,
    MOST_SECOND,
    NODES,
    PROMISED,
    REMEMBERS,
    ROOT,
    SHARE_STEPS,
    UNLIMITED,
)
from corral.allocator.engine.readings import Readings
from corral.allocator.engine.rules import WHOLE
from corral.lib.errors import Conflict, Invalid

Amounts = Mapping[str, int]

MOST_DEVICES = 62
"""GPUs of one node that are told apart."""


class Cluster(Readings):
    """Of an engine, as `Readings`. Units: all amounts in thousandths."""

    _spare_nodes: list[int]

    # What there is.

    def add_node(
        self, total: Amounts, hostname: str = "", attributes: Mapping[str, str] | None = None, *, eligible: bool = True
    ) -> int:
        """Add an empty node, open to work if it is eligible; returns its row.

        Errors: `Invalid` for a resource the engine does not know.
        """
        node = Node(self._amounts(total), hostname, attributes or {})
        row = self._spare_nodes.pop() if self._spare_nodes else self._node_rows
        if row == self._node_rows:
            self._tables.ask_rows("node", row + 1)
            self._node_rows += 1
            self._state.meta[NODES] = self._node_rows
        self._describe(row, node, (0,) * len(self.resources))
        if eligible:
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

    def _amounts(self, amounts: Amounts) -> tuple[int, ...]:
        unknown = sorted(set(amounts) - set(self.resources))
        if unknown:
            raise Invalid(f"the engine knows {', '.join(self.resources)}, not {', '.join(unknown)}; leave it out")
        found = tuple(int(amounts.get(name, 0)) for name in self.resources)
        if min(found) < 0:
            raise Invalid(f"amounts must be 0 or more, found {dict(amounts)}; correct them")
        return found

    def _hints(self, cls: int) -> list[int]:
        classes = self._state.classes
        return [int(classes.hint[cls * HINTS + i]) for i in range(classes.hints[cls])]
