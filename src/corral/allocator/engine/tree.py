"""The tree of roles as rows: who stands below whom, and room in everybody's heaps.

A role that has children and lines of its own gets a child that stands for it itself. A claimant is a nameless child of
a role: one framework's demands of one priority. Of a role that has roles below it, all claimants together stand below
one child, which takes part among those roles as if it were one of them.
"""

from typing import Any

import numpy as np

from corral.allocator.engine.columns import ITEMS, MOST_PRIORITY, OUT, OWED, ROOT, SHARE_STEPS, State
from corral.allocator.engine.modes import Kernels
from corral.allocator.engine.tables import Tables
from corral.lib.errors import NotFound

NAMED, BARE = 1, 2
"""Kinds of items that may be asked for: a role with lines of its own, and one that has had none beside children."""


class Tree:
    """Shapes: items are row numbers; `kind` is 0 for items of the engine's own.

    Roles with roles below them are in `_own`, with the item that their claimants stand below, once there is one.
    """

    def __init__(self, tables: Tables, kernels: Kernels, resources: int) -> None:
        self._tables = tables
        self._kernels = kernels
        self._resources = resources
        self._rows: dict[str, int] = {}
        self._names: dict[int, str] = {}
        self._claimants: dict[int, list[int]] = {}
        self._own: dict[int, int | None] = {}
        self._places = 0
        self.size = 0
        self.kind: Any = np.zeros(16, dtype=np.int8)
        self.add_item(-1, "")
        self.add_item(-1, "")
        self.kind[:2] = 0

    @property
    def _state(self) -> State:
        return self._tables.state

    def find(self, name: str) -> int | None:
        return self._rows.get(name)

    def row(self, name: str) -> int:
        """Errors: `NotFound`."""
        if name not in self._rows:
            raise NotFound(f"role {name} is not known to the engine; add it first")
        return self._rows[name]

    def name(self, row: int) -> str:
        return self._names[row]

    def add_role(self, name: str) -> int:
        """A role and those above it, found or made."""
        item = self._rows.get(name)
        if item is None:
            above = name.rpartition("/")[0]
            parent = ROOT if not above else self.add_role(above)
            if parent not in self._own:
                self._own[parent] = None
                self._gather(parent)
            item = self._rows[name] = self.add_item(parent, name)
            self._kernels.settle_role(self._tables.holder, item)
        return item

    def add_item(self, parent: int, name: str) -> int:
        """A new role, or with an empty name an item of the engine's own."""
        item = self.size
        self._tables.ask_rows("item", item + 1)
        if item >= len(self.kind):
            self.kind = np.concatenate((self.kind, np.zeros(len(self.kind), dtype=np.int8)))
        self.size += 1
        self._state.meta[ITEMS] = self.size
        r = self._state.roles
        r.leaf[item], r.base[item], r.scale[item] = item, MOST_PRIORITY << 52, float(SHARE_STEPS)
        if name:
            self._names[item] = name
            self.kind[item] = NAMED
        if parent >= 0:
            self._adopt(parent, item)
        return item

    def add_claimant(self, role: int, priority: int) -> int:
        """A child that demands for a role by a priority of its own; the higher is served first, then the smaller share.

        Shapes: `priority` 0 to MOST_PRIORITY.
        """
        if role in self._own:
            item = self.add_item(self._own_of(role), "")
        else:
            item = self.add_item(role, "")
            self._claimants.setdefault(role, []).append(item)
        self.kind[item] = NAMED
        self.set_priority(item, priority)
        return item

    def _own_of(self, role: int) -> int:
        found = self._own[role]
        if found is None:
            found = self._own[role] = self.add_item(role, "")
            self._kernels.settle_role(self._tables.holder, found)
        return found

    def _gather(self, role: int) -> None:
        """Let the claimants of a role stand below one child, as it is to have roles below it."""
        claimants = self._claimants.pop(role, [])
        if not claimants:
            return
        own = self._own_of(role)
        asking = [each for each in claimants if self._state.heaps.side[each] != OUT]
        for each in asking:
            self._kernels.set_aside(self._tables.holder, each)
        self._ask_room(own, len(claimants))
        h, r = self._state.heaps, self._state.roles
        self.kind[own] = BARE
        r.kids[role] -= len(claimants)
        r.kids[own] = len(claimants)
        for each in claimants:
            h.parent[each] = own
            for column, width in ((r.held, self._resources + 1), (r.lent, self._resources)):
                for d in range(width):
                    column[own * width + d] += column[each * width + d]
        self._kernels.settle_role(self._tables.holder, own)
        for each in asking:
            self._kernels.wake(self._tables.holder, each)

    def set_priority(self, item: int, priority: int) -> None:
        self._state.roles.base[item] = (MOST_PRIORITY - priority) << 52
        self._kernels.settle_role(self._tables.holder, item)

    def add_own_leaf(self, item: int, *, inherits: bool = False) -> None:
        """Give a role that has children a child for lines of its own; what it held before the others goes there."""
        own = self.add_item(item, "")
        self.kind[item] = NAMED
        s = self._state
        width = self._resources + 1
        for d in range(width if inherits else 0):
            s.roles.held[own * width + d] = s.roles.held[item * width + d]
        for d in range(self._resources if inherits else 0):
            s.roles.lent[own * self._resources + d] = s.roles.lent[item * self._resources + d]
        self._kernels.hand_down(self._tables.holder, item, own)

    def add_shadow(self, item: int) -> None:
        """Let a role stand in line for its guarantee too."""
        shadow = self.add_item(OWED, "")
        self._state.roles.shadow[item] = shadow
        self._state.roles.stands[shadow] = item

    def _adopt(self, parent: int, item: int) -> None:
        r = self._state.roles
        if parent > OWED and r.kids[parent] == 0:
            width = self._resources + 1
            self.kind[parent] = BARE
            if r.first[parent] >= 0 or r.held[parent * width + width - 1]:
                r.kids[parent] = 1
                self.add_own_leaf(parent, inherits=True)
                r = self._state.roles
                r.kids[parent] -= 1
        self._state.heaps.parent[item] = parent
        r.kids[parent] += 1
        self._ask_room(parent, r.kids[parent])

    def _ask_room(self, parent: int, needed: int) -> None:
        """See that a parent's two heaps have room for so many children, in a new stretch if need be."""
        if self._tables.has_queues:
            return
        h = self._state.heaps
        room = h.room[parent]
        if needed <= room:
            return
        larger, begin = max(4, 2 * room, needed), self._places
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
