"""From words to tallies: fields and their values as numbers, and the tables that rules read.

A tally is known by what it counts where, and shared by all classes that read or feed it; unused ones give their room
back. Some tables count nothing: they mark the values of a field that a soft constraint dislikes, or hold targets.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from corral.allocator.engine.columns import ABSENT, FIELDS, RULES, State
from corral.allocator.engine.tables import Tables
from corral.model.constraints import HOSTNAME

AGENT = "@agent"
"""The field in which every node is a value of its own."""

SIBLINGS_PLACE = RULES - 1
"""Where in `Classes.heard` the tally stands that spreading looks at."""


class Tally(NamedTuple):
    """What is counted: instances that carry `tag`, by the value of `field`.

    Shapes: `groups` and `size` are what evening out needs, groups 0 counts all known values. With `marks`, a name, the
    table is filled by a function of the value instead.
    """

    field: str
    tag: str = ""
    groups: int = 0
    size: int = 0
    marks: object = None


class Rule(NamedTuple):
    """One rule of a class. Shapes: `kind` as in columns; `target` is the table of targets; weight 0 must hold."""

    kind: int
    tally: Tally
    bound: int = 0
    weight: int = 0
    target: Tally | None = None


Mark = Callable[[object, str | None], int]


class Tallying:
    """Shapes: domains are numbered from 1 per field, 0 is a node without it."""

    def __init__(self, tables: Tables, mark: Mark) -> None:
        self._tables = tables
        self._mark = mark
        self.fields: dict[str, int] = {}
        self._values: list[dict[str, int]] = []
        self._present: list[dict[int, int]] = []
        self._rows: dict[Tally, int] = {}
        self._words: dict[int, Tally] = {}
        self._uses: dict[int, int] = {}
        self._spare_rows: list[int] = []
        self._spare_rooms: dict[int, list[int]] = {}
        self._rooms: dict[int, int] = {}
        self._by_field: dict[int, set[int]] = {}
        self._end = 0
        self._fresh: dict[Tally, None] = {}
        self._gone: dict[Tally, None] = {}

    @property
    def _state(self) -> State:
        return self._tables.state

    def row_in_use(self, tally: Tally) -> int:
        """The row of a tally that some class reads or feeds."""
        return self._rows[tally]

    def values(self, field: str) -> dict[str, int]:
        """The known values of a field, with their domains."""
        number = self.fields.get(field)
        return self._values[number] if number is not None else {}

    def learn_field(self, field: str, nodes: Iterator[tuple[int, str, Mapping[str, str]]]) -> int:
        """The number of a field; nodes are told their domains when it is new."""
        number = self.fields.get(field)
        if number is not None:
            return number
        number = self.fields[field] = len(self.fields)
        self._values.append({})
        self._present.append({})
        if self._tables.ask_width("fields", number + 1):
            self._state.meta[FIELDS] = self._tables.widths["fields"]
        for node, hostname, attributes in nodes:
            self._place(node, number, field, hostname, attributes)
        return number

    def place(self, node: int, hostname: str, attributes: Mapping[str, str]) -> None:
        """Write down a node's domain of each field; what is counted there is another matter."""
        for field, number in self.fields.items():
            self._place(node, number, field, hostname, attributes)

    def leave(self, node: int) -> None:
        """A node is in no domain any more."""
        for number in self.fields.values():
            self._put(node, number, ABSENT)

    def _place(self, node: int, number: int, field: str, hostname: str, attributes: Mapping[str, str]) -> None:
        if field == AGENT:
            value: str | None = str(node)
        else:
            value = hostname if field == HOSTNAME else attributes.get(field)
        domain = ABSENT
        if value is not None:
            values = self._values[number]
            domain = values.setdefault(value, len(values) + 1)
        self._put(node, number, domain)

    def _put(self, node: int, number: int, domain: int) -> None:
        at = node * self._tables.widths["fields"] + number
        domains, present = self._state.nodes.domain, self._present[number]
        before = domains[at]
        if before == domain:
            return
        domains[at] = domain
        if before != ABSENT:
            present[before] -= 1
            if not present[before]:
                del present[before]
        if domain != ABSENT:
            present[domain] = present.get(domain, 0) + 1
        if before not in present or present.get(domain, 0) == 1:
            self._follow(number)

    def _follow(self, number: int) -> None:
        """A field has other values than before: its tables need places for them."""
        needed = len(self._values[number]) + 1
        for row in sorted(self._by_field.get(number, ())):
            tally = self._words[row]
            if needed > self._rooms[row]:
                self._move(row, needed)
            if tally.marks is not None:
                self._fill(row, tally)
            elif tally.size and not tally.groups:
                self._even(row, tally)

    # Tallies.

    def take_fresh(self) -> list[Tally]:
        """Tallies made since the last call and still in use: nothing is counted in them yet."""
        found, self._fresh = list(self._fresh), {}
        return found

    def take_gone(self) -> list[Tally]:
        """Tallies that went out of use since the last call, though they may be in use again."""
        found, self._gone = list(self._gone), {}
        return found

    def use(self, tally: Tally) -> int:
        """The row of a tally, made when it is new; its field must be known."""
        row = self._rows.get(tally)
        if row is None:
            row = self._rows[tally] = self._spare_rows.pop() if self._spare_rows else len(self._rows)
            self._tables.ask_rows("tally", row + 1)
            self._words[row], self._uses[row] = tally, 0
            number = self.fields[tally.field]
            self._by_field.setdefault(number, set()).add(row)
            t = self._state.tallies
            t.field[row], t.total[row], t.used[row], t.fuller[row] = number, 0, 0, 0
            t.first[row], t.ups[row], t.downs[row] = -1, 0, 0
            t.groups[row] = t.share[row] = t.rest[row] = 0
            self._find_room(row, len(self._values[number]) + 1)
            if tally.marks is not None:
                self._fill(row, tally)
            else:
                self._even(row, tally)
                self._fresh[tally] = None
        self._uses[row] += 1
        return row

    def drop(self, tally: Tally) -> None:
        """One reader or feeder less; the last takes the tally along."""
        row = self._rows[tally]
        self._uses[row] -= 1
        if self._uses[row]:
            return
        del self._rows[tally], self._words[row], self._uses[row]
        self._by_field[self.fields[tally.field]].discard(row)
        self._spare_rows.append(row)
        room = self._rooms.pop(row)
        self._spare_rooms.setdefault(room, []).append(self._state.tallies.at[row])
        if tally in self._fresh:
            del self._fresh[tally]
        elif tally.marks is None:
            self._gone[tally] = None

    def _find_room(self, row: int, needed: int) -> None:
        room = 16
        while room < needed:
            room *= 2
        spare = self._spare_rooms.get(room)
        if spare:
            at = spare.pop()
        else:
            at = self._end
            self._end += room
            self._tables.ask_rows("count", self._end)
        t = self._state.tallies
        t.at[row] = at
        np.asarray(t.counts)[at : at + room] = 0
        self._rooms[row] = room

    def _move(self, row: int, needed: int) -> None:
        """A tally has outgrown its room."""
        t = self._state.tallies
        room, at = self._rooms[row], t.at[row]
        kept = np.asarray(t.counts)[at : at + room].copy()
        self._find_room(row, needed)
        self._spare_rooms.setdefault(room, []).append(at)
        t = self._state.tallies
        np.asarray(t.counts)[t.at[row] : t.at[row] + room] = kept

    def _fill(self, row: int, tally: Tally) -> None:
        t = self._state.tallies
        at = t.at[row]
        t.counts[at] = self._mark(tally.marks, None)
        for value, domain in self._values[self.fields[tally.field]].items():
            t.counts[at + domain] = self._mark(tally.marks, value)

    def _even(self, row: int, tally: Tally) -> None:
        """Work out how many instances each group may have, and how many groups have more already."""
        t = self._state.tallies
        groups = tally.groups or len(self._present[self.fields[tally.field]])
        t.groups[row] = groups
        t.share[row], t.rest[row] = divmod(tally.size, max(groups, 1))
        at = t.at[row]
        counts = np.asarray(t.counts)[at + 1 : at + self._rooms[row]]
        t.fuller[row] = int((counts > t.share[row]).sum())

    # Who listens.

    def listen(self, row: int, place: int, ups: bool, downs: bool) -> None:
        """Let the class of this place in `Classes.heard` come to life when the tally grows or shrinks."""
        t, k = self._state.tallies, self._state.classes
        k.heard[place] = t.first[row]
        t.first[row] = place
        t.ups[row] += int(ups)
        t.downs[row] += int(downs)

    def forget(self, row: int, place: int, ups: bool, downs: bool) -> None:
        t, k = self._state.tallies, self._state.classes
        at = t.first[row]
        if at == place:
            t.first[row] = k.heard[place]
        else:
            while k.heard[at] != place:
                at = k.heard[at]
            k.heard[at] = k.heard[place]
        k.heard[place] = -1
        t.ups[row] -= int(ups)
        t.downs[row] -= int(downs)
