"""Wants standing in line: which engine class and claimant each has, and whose an instance is that the engine placed.

A role has a claimant per framework and priority, so that higher priority goes first and frameworks share evenly below
it; among a framework's wants of one priority the older goes first.
"""

from bisect import insort
from collections.abc import Iterator

import msgspec

from corral.allocator.book import Book
from corral.allocator.demands import Asked, Context, ask, own_tags
from corral.allocator.engine import Engine, Tally
from corral.allocator.engine.columns import MOST_PRIORITY
from corral.allocator.filters import Filters
from corral.allocator.view import WantView
from corral.model.ids import FrameworkId, WantId
from corral.model.role import RoleSettings

NEUTRAL = MOST_PRIORITY // 2 + 1
"""The claimant's priority that stands for a want's priority of 0."""

Key = tuple[FrameworkId, WantId]


def claimant_priority(priority: int) -> int:
    """Wants have priorities around 0, the engine from 0."""
    return max(0, min(MOST_PRIORITY, priority + NEUTRAL))


class Line:
    """A want in line. Shapes: `cls` -1 while it stands nowhere; of `missing` instances `submitted` are asked for.

    `age` sorts it among the lines of its claimant. `apart` instances are being placed by other means. A line that
    `gathers` asks for the instances of a gang one by one.
    """

    __slots__ = ("age", "apart", "asked", "claimant", "cls", "gathers", "submitted", "view")

    def __init__(self, view: WantView, claimant: int, *, gathers: bool = False) -> None:
        self.view = view
        self.gathers = gathers
        self.claimant = claimant
        self.cls = -1
        self.asked: Asked | None = None
        self.submitted = 0
        self.apart = 0
        self.age = -round(view.since_at * 1000)

    @property
    def feeds(self) -> tuple[Tally, ...]:
        """The tallies in which its class counts its instances."""
        return self.asked.feeds if self.asked is not None else ()

    @property
    def key(self) -> Key:
        return self.view.framework_id, self.view.want.id


class Claimants:
    """Rows of the engine for (role, framework, priority); those of frameworks that have gone serve others."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._rows: dict[tuple[str, FrameworkId, int], int] = {}
        self._spare: dict[str, list[int]] = {}

    def row(self, role: str, framework_id: FrameworkId, priority: int) -> int:
        key = (role, framework_id, claimant_priority(priority))
        found = self._rows.get(key)
        if found is None:
            above = self._engine.find_role(role)
            if above is None:
                above = self._engine.add_role(role)
            spare = self._spare.get(role)
            if spare:
                found = spare.pop()
                self._engine.set_claimant(found, key[2])
            else:
                found = self._engine.add_claimant(above, key[2])
            self._rows[key] = found
        return found

    def forget(self, framework_id: FrameworkId) -> None:
        """A framework that asks nothing has gone: its rows that hold nothing are free for others of the role."""
        for key, row in [each for each in self._rows.items() if each[0][1] == framework_id]:
            if not self._engine.tasks_held(row):
                del self._rows[key]
                self._spare.setdefault(key[0], []).append(row)

    def sums(self) -> dict[tuple[str, FrameworkId], dict[str, int]]:
        """What frameworks hold in their roles; those that hold nothing are left out."""
        found: dict[tuple[str, FrameworkId], dict[str, int]] = {}
        for (role, framework_id, _), row in self._rows.items():
            if self._engine.tasks_held(row):
                there = found.setdefault((role, framework_id), {})
                for resource, amount in self._engine.held(row).items():
                    there[resource] = there.get(resource, 0) + amount
        return found

    def held(self, role: str, framework_id: FrameworkId | None = None) -> dict[str, int]:
        """What a framework, or all of them, holds in a role itself, at all priorities."""
        found: dict[str, int] = {}
        for (name, of, _), row in self._rows.items():
            if name == role and framework_id in (of, None):
                for resource, amount in self._engine.held(row).items():
                    found[resource] = found.get(resource, 0) + amount
        return found


class Lines:
    """Shapes: `by_place` has the lines of a claimant and class, the oldest first."""

    def __init__(
        self, engine: Engine, book: Book, claimants: Claimants, filters: Filters, roles: dict[str, RoleSettings]
    ) -> None:
        self._engine = engine
        self._book = book
        self._claimants = claimants
        self._filters = filters
        self._roles = roles
        self._lines: dict[Key, Line] = {}
        self._by_place: dict[tuple[int, int], list[Line]] = {}
        self._by_framework: dict[FrameworkId, dict[Key, Line]] = {}
        self._by_tag: dict[str, dict[Line, None]] = {}
        self._gathering: dict[Line, None] = {}
        self._stale: dict[Line, None] = {}

    def __iter__(self) -> Iterator[Line]:
        return iter(self._lines.values())

    def of(self, framework_id: FrameworkId) -> list[Line]:
        """The lines of a framework."""
        return list(self._by_framework.get(framework_id, {}).values())

    def get(self, framework_id: FrameworkId, want_id: WantId) -> Line | None:
        return self._lines.get((framework_id, want_id))

    def state(self, view: WantView) -> None:
        """Take a want, or its numbers anew."""
        key = (view.framework_id, view.want.id)
        line = self._lines.get(key)
        if line is not None and line.view.want == view.want:
            line.view = view
            self.settle(line)
            return
        apart = 0
        if line is not None:
            apart = line.apart
            self.remove(*key)
        row = self._claimants.row(view.want.role, view.framework_id, view.want.priority)
        line = self._lines[key] = self._by_framework.setdefault(view.framework_id, {})[key] = Line(view, row)
        line.apart = apart
        self._tag(line)
        self._stale[line] = None

    def remove(self, framework_id: FrameworkId, want_id: WantId) -> None:
        """Forget a want; nothing when it is not known."""
        line = self._lines.pop((framework_id, want_id), None)
        if line is None:
            return
        there = self._by_framework[framework_id]
        del there[line.key]
        if not there:
            del self._by_framework[framework_id]
        self.retire(line)

    def renew(self, role: str, framework_id: FrameworkId | None = None) -> None:
        """What a role's wants ask (or those of one framework) has to be worked out anew."""
        lines = self._lines.values() if framework_id is None else self.of(framework_id)
        for line in (*lines, *self._gathering):
            if line.view.want.role == role and framework_id in (None, line.view.framework_id):
                self._stale[line] = None

    def catch_up(self) -> None:
        """Let every want stand where it belongs, until no new tally changes what others count in."""
        while self._stale:
            stale, self._stale = self._stale, {}
            for line in stale:
                self._enter(line)
            for tag in sorted(self._book.follow_tallies()):
                for line in self._by_tag.get(tag, {}):
                    if line.asked is not None and line.asked != self._ask(line):
                        self._stale[line] = None

    def settle(self, line: Line) -> None:
        """Ask the engine for as many instances as are missing and not placed by other means."""
        if line.cls < 0:
            if line.view.missing > line.apart:
                self._stale[line] = None
            return
        gang = max(1, line.view.want.gang)
        wanted = max(0, line.view.missing - line.apart) // gang * gang
        if wanted > line.submitted:
            self._engine.submit(line.claimant, line.cls, wanted - line.submitted, line.age)
        elif wanted < line.submitted:
            self._engine.withdraw(line.claimant, line.cls, line.submitted - wanted, line.age)
        line.submitted = wanted
        if wanted:
            self._list(line)
        else:
            self._unlist(line)
        if line.view.missing <= 0:
            self._leave(line)

    def placed(self, claimant: int, cls: int) -> Line:
        """Whose the next instance is that the engine placed for a claimant and class: the oldest's."""
        line = self._by_place[claimant, cls][0]
        line.submitted -= 1
        line.view = msgspec.structs.replace(line.view, missing=line.view.missing - 1)
        if not line.submitted:
            self._unlist(line)
        return line

    def done(self, line: Line) -> None:
        """Leave the line once nothing is missing any more."""
        if line.view.missing <= 0:
            self._leave(line)

    def stand(self, view: WantView) -> Line:
        """A line of its own for the instances of a gang, one by one."""
        row = self._claimants.row(view.want.role, view.framework_id, view.want.priority)
        line = Line(view, row, gathers=True)
        self._gathering[line] = None
        self._tag(line)
        self._stale[line] = None
        return line

    def miss(self, line: Line, count: int) -> None:
        """So many instances more are missing than before."""
        line.view = msgspec.structs.replace(line.view, missing=line.view.missing + count)
        self.settle(line)

    def retire(self, line: Line) -> None:
        """Take a line out for good."""
        self._leave(line)
        self._gathering.pop(line, None)
        self._stale.pop(line, None)
        for tag in own_tags(line.view.want, line.view.framework_id):
            tagged = self._by_tag[tag]
            del tagged[line]
            if not tagged:
                del self._by_tag[tag]

    def _tag(self, line: Line) -> None:
        for tag in own_tags(line.view.want, line.view.framework_id):
            self._by_tag.setdefault(tag, {})[line] = None

    def _enter(self, line: Line) -> None:
        self._leave(line)
        if line.view.missing <= line.apart and not line.apart:
            return
        line.asked = self._ask(line)
        line.cls = self._engine.intern_class(**line.asked._asdict())
        self.settle(line)

    def _ask(self, line: Line) -> Asked:
        view = line.view
        want = view.want
        size = want.group_size
        if not size:
            siblings = self._book.tagged(own_tags(want, view.framework_id)[0])
            size = sum(1 for _ in siblings) + view.missing
        role = self._roles.get(want.role)
        refused = self._filters.refused_agents(view.framework_id, want.role, want.resources)
        rows = frozenset(self._book.agents[each].row for each in refused if each in self._book.agents)
        context = Context(size, role.strategy if role is not None else "", rows, self._book.watching)
        return ask(want, view.framework_id, context)

    def _leave(self, line: Line) -> None:
        """Take a want out of line, and its class with it."""
        if line.cls < 0:
            return
        if line.submitted:
            self._engine.withdraw(line.claimant, line.cls, line.submitted, line.age)
            self._unlist(line)
            line.submitted = 0
        self._engine.drop_class(line.cls)
        line.cls = -1
        line.asked = None

    def _list(self, line: Line) -> None:
        there = self._by_place.setdefault((line.claimant, line.cls), [])
        if line not in there:
            insort(there, line, key=lambda each: -each.age)

    def _unlist(self, line: Line) -> None:
        there = self._by_place.get((line.claimant, line.cls), [])
        if line in there:
            there.remove(line)
        if not there:
            self._by_place.pop((line.claimant, line.cls), None)
