"""Room for the columns: which row each belongs to, how wide it is, and how it grows without moving a row.

Plain, columns that NumPy also reads are memoryviews and all others lists; otherwise all are arrays.
"""

from typing import Any, NamedTuple, cast

import numpy as np

from corral.allocator.engine.columns import (
    CELLS,
    HINTS,
    LEVELS,
    META,
    RULES,
    STEPS,
    UNLIMITED,
    Cells,
    Classes,
    Heaps,
    Lines,
    Nodes,
    Roles,
    State,
    Tallies,
    Tasks,
)
from corral.allocator.engine.modes import Mode, load_holder


class Plan(NamedTuple):
    """One column. Shapes: `width` is a number or the name of a width that may grow; `shared` ones NumPy reads too."""

    rows: str
    width: int | str = 1
    fill: float = 0
    shared: bool = False


PLANS: dict[str, dict[str, Plan]] = {
    "heaps": {
        "key": Plan("item"),
        "pos": Plan("item"),
        "side": Plan("item", fill=-1),
        "parent": Plan("item", fill=-1),
        "at": Plan("item"),
        "room": Plan("item"),
        "size": Plan("item", 2),
        "items": Plan("place"),
        "bits": Plan("item", "words"),
        "below": Plan("place", "words"),
        "live": Plan("once", "words"),
        "stack": Plan("once", 256),
    },
    "roles": {
        "held": Plan("item", "asks"),
        "lent": Plan("item", "resources"),
        "past": Plan("item", "resources"),
        "unmet": Plan("item", "resources"),
        "under": Plan("item", "resources"),
        "spare": Plan("once", "resources"),
        "reserve": Plan("once", "resources", UNLIMITED),
        "limit": Plan("item", "asks", UNLIMITED),
        "limited": Plan("item"),
        "guarantee": Plan("item", "resources"),
        "shadow": Plan("item", fill=-1),
        "stands": Plan("item", fill=-1),
        "base": Plan("item"),
        "scale": Plan("item", fill=0.0),
        "first": Plan("item", fill=-1),
        "kids": Plan("item"),
        "leaf": Plan("item", fill=-1),
        "waiting": Plan("item", fill=-1),
        "inverse": Plan("once", "resources", 0.0),
    },
    "lines": {
        "role": Plan("line"),
        "cls": Plan("line"),
        "priority": Plan("line"),
        "left": Plan("line"),
        "next": Plan("line", fill=-1),
        "blocked": Plan("line", fill=-1),
        "hold": Plan("line", fill=-1),
    },
    "nodes": {
        "free": Plan("node", "resources", shared=True),
        "lent": Plan("node", "resources"),
        "gpu": Plan("node", "devices", shared=True),
        "domain": Plan("node", "fields", shared=True),
        "version": Plan("node", shared=True),
        "cell": Plan("node", fill=-1, shared=True),
        "signature": Plan("node", shared=True),
        "pool": Plan("node", fill=-1),
        "mark": Plan("node", fill=-1),
        "tasks": Plan("node", shared=True),
        "freed": Plan("node"),
        "dirty": Plan("node"),
    },
    "cells": {
        "head": Plan("index", CELLS, -1),
        "row": Plan("index", LEVELS),
        "rows": Plan("index"),
        "next": Plan("node", 2, -1),
        "prev": Plan("node", 2, -1),
        "level": Plan("once", STEPS),
        "low": Plan("once", 67),
        "unit": Plan("once", 2),
    },
    "classes": {
        "shape": Plan("class", "asks"),
        "gpus": Plan("class"),
        "part": Plan("class"),
        "gang": Plan("class"),
        "revocable": Plan("class"),
        "extra": Plan("class"),
        "fickle": Plan("class"),
        "rules": Plan("class"),
        "rule": Plan("class", RULES * 4),
        "heard": Plan("class", RULES, -1),
        "softs": Plan("class"),
        "soft": Plan("class", RULES * 4),
        "feeds": Plan("class"),
        "feed": Plan("class", RULES),
        "siblings": Plan("class", fill=-1),
        "level": Plan("class"),
        "scored": Plan("class"),
        "row": Plan("class"),
        "col": Plan("class"),
        "last": Plan("class", fill=-1),
        "state": Plan("class"),
        "spread": Plan("class"),
        "hint": Plan("class", HINTS),
        "hints": Plan("class"),
        "begin": Plan("class"),
        "split": Plan("class"),
        "end": Plan("class"),
        "fine": Plan("class"),
        "listed": Plan("listed"),
        "tier": Plan("class", "signatures", 2, shared=True),
        "next": Plan("class", fill=-1),
        "prev": Plan("class", fill=-1),
        "dead": Plan("once", LEVELS, -1),
    },
    "tallies": {
        "field": Plan("tally"),
        "at": Plan("tally"),
        "total": Plan("tally"),
        "used": Plan("tally"),
        "groups": Plan("tally"),
        "share": Plan("tally"),
        "rest": Plan("tally"),
        "fuller": Plan("tally"),
        "first": Plan("tally", fill=-1),
        "ups": Plan("tally"),
        "downs": Plan("tally"),
        "touched": Plan("tally"),
        "queue": Plan("tally"),
        "counts": Plan("count", shared=True),
    },
    "tasks": {
        "role": Plan("task", shared=True),
        "cls": Plan("task", shared=True),
        "node": Plan("task", fill=-1, shared=True),
        "devices": Plan("task", shared=True),
        "spare": Plan("task", shared=True),
    },
}
_GROUPS = {
    "heaps": Heaps,
    "roles": Roles,
    "lines": Lines,
    "nodes": Nodes,
    "cells": Cells,
    "classes": Classes,
    "tallies": Tallies,
    "tasks": Tasks,
}


class _Quick:
    """A group of columns as Python reads it fastest: by attributes of its own, not a tuple's."""

    def __init__(self, **columns: Any) -> None:
        self.__dict__.update(columns)


class Tables:
    """Shapes: `rows` and `widths` are capacities; `state` is replaced whenever one grows."""

    def __init__(self, mode: Mode, resources: int) -> None:
        self._plain = mode is Mode.PLAIN
        # What plain Python keeps beside the columns, and in their place: see `queues` and `steps`.
        self._queues: dict[str, Any] = {"main": {}, "starved": {}}
        self._known: dict[str, Any] = {"asks": {}}
        self._hold = load_holder() if mode is Mode.COMPILED else None
        self._held: Any = None
        self.rows = {"once": 1, "item": 16, "place": 32, "line": 32, "node": 16, "index": 4, "class": 16, "task": 64}
        self.rows |= {"listed": 64, "tally": 16, "count": 1024}
        self.widths = {"resources": resources, "asks": resources + 1, "words": 1, "signatures": 4}
        self.widths |= {"devices": 1, "fields": 1}
        self._columns = {
            (group, name): self._empty(plan) for group, plans in PLANS.items() for name, plan in plans.items()
        }
        self._meta: Any = self._column(np.zeros(META, dtype=np.int64), shared=False)
        self.state = self._assemble()

    @property
    def has_queues(self) -> bool:
        """Whether items stand in queues of Python's own, not in the columns of `Heaps`."""
        return self._plain

    @property
    def holder(self) -> Any:
        """What kernels are entered with: these tables, or for machine code a structure that holds the same columns."""
        if self._hold is None:
            return self
        if self._held is None:
            self._held = self._hold(self.state)
        return self._held

    def array(self, group: str, name: str) -> Any:
        """A column as NumPy sees it, by row; a copy unless shared."""
        plan = PLANS[group][name]
        return np.asarray(self._columns[group, name]).reshape(self.rows[plan.rows], -1)

    def put(self, group: str, name: str, values: Any) -> None:
        """Replace a column as a whole."""
        self._columns[group, name] = self._column(np.asarray(values).ravel(), PLANS[group][name].shared)
        self.state = self._assemble()

    def ask_rows(self, kind: str, needed: int) -> bool:
        """See that there is room for so many rows; returns whether it grew."""
        room = self.rows[kind]
        if needed <= room:
            return False
        self._resize(lambda plan: plan.rows == kind, lambda: self.rows.__setitem__(kind, max(needed, 2 * room)))
        return True

    def ask_width(self, name: str, needed: int) -> bool:
        """See that there are so many places per row; returns whether it grew."""
        room = self.widths[name]
        if needed <= room:
            return False
        self._resize(lambda plan: plan.width == name, lambda: self.widths.__setitem__(name, max(needed, 2 * room)))
        return True

    def _resize(self, concerns: Any, enlarge: Any) -> None:
        concerned = [
            (group, name, plan) for group, plans in PLANS.items() for name, plan in plans.items() if concerns(plan)
        ]
        old = {plan.rows: self.rows[plan.rows] for _, _, plan in concerned}
        enlarge()
        for group, name, plan in concerned:
            before, after = self._columns[group, name], self._empty(plan)
            narrow, wide = len(before) // old[plan.rows], len(after) // self.rows[plan.rows]
            if narrow == wide:
                after[: len(before)] = before
            else:
                for row in range(old[plan.rows]):
                    after[row * wide : row * wide + narrow] = before[row * narrow : (row + 1) * narrow]
            self._columns[group, name] = after
        self.state = self._assemble()

    def _filled(self, plan: Plan) -> Any:
        width = plan.width if isinstance(plan.width, int) else self.widths[plan.width]
        kind = np.float64 if isinstance(plan.fill, float) else np.int64
        return np.full(self.rows[plan.rows] * width, plan.fill, dtype=kind)

    def _empty(self, plan: Plan) -> Any:
        return self._column(self._filled(plan), plan.shared)

    def _column(self, array: Any, shared: bool) -> Any:
        array = np.ascontiguousarray(array)
        if not self._plain:
            return array
        return array.data if shared else array.tolist()

    def _assemble(self) -> State:
        groups = {
            group: kind(**{name: self._columns[group, name] for name in PLANS[group]})
            for group, kind in _GROUPS.items()
        }
        self._held = None
        if self._plain:
            more = {"heaps": self._queues, "classes": self._known}
            quick = {name: _Quick(**group._asdict(), **more.get(name, {})) for name, group in groups.items()}
            return cast(State, _Quick(**quick, meta=self._meta))
        return State(**groups, meta=self._meta)
