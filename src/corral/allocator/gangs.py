"""Instances that start together or not at all, when they do not find room at once.

One gang at a time keeps what it finds, instance by instance in fair order, until it is whole or its time is up; so two
gangs never wait for each other. Short work whose run time is stated may use the holes: what it takes will be back.
"""

from typing import TYPE_CHECKING

import msgspec

from corral.allocator.entries import AgentEntry, HoldEntry, devices_of
from corral.allocator.lines import Key, Line
from corral.allocator.view import Grant
from corral.model.ids import AgentId
from corral.model.resources import Resources, contains

if TYPE_CHECKING:
    from corral.allocator.allocator import Allocator

SLOT = "gang/"
"""What the keys of holds begin with that a gathering gang keeps."""

MOST_LENT = 64
"""Holes lent in one run."""


class Gathering:
    """A gang that gathers its instances. Units: `until_at` seconds UTC.

    Shapes: `single` asks for them one by one, `slots` are the keys of what is kept, `lent` who has what was kept.
    """

    __slots__ = ("key", "lent", "single", "size", "slots", "until_at")

    def __init__(self, key: Key, size: int, until_at: float, single: Line) -> None:
        self.key = key
        self.size = size
        self.until_at = until_at
        self.single = single
        self.slots: list[str] = []
        self.lent: list[HoldEntry] = []


class Gangs:
    """Shapes: `gathering` is the one gang that keeps what it finds; `turns` counts how often others gave up."""

    def __init__(self) -> None:
        self.gathering: Gathering | None = None
        self._turns: dict[Key, int] = {}
        self._kept = 0
        self._again = False

    def keep(
        self, allocator: "Allocator", line: Line, agent: AgentEntry, mask: int, chosen: Resources, now: float
    ) -> None:
        """Keep what the engine placed for one instance of the gathering gang."""
        assert self.gathering is not None, "only a gathering gang is asked one by one"
        key = self._next_key()
        hold = allocator.describe(line, agent, mask, chosen, now, key)
        allocator.book.adopt(hold, line.claimant, agent, mask, line.feeds)
        self.gathering.slots.append(key)

    def collect(self, allocator: "Allocator", now: float) -> None:
        """Keep again what was lent and is back, before anybody else is served; or let go when it is not wanted now."""
        gathering = self.gathering
        if gathering is None:
            return
        line = allocator.lines.get(*gathering.key)
        if line is None or line.view.missing < gathering.size:
            self._stop(allocator)
            allocator.lines.catch_up()
            allocator.book.flush()
            allocator.book.mark_ports()
            return
        lent, gathering.lent = gathering.lent, []
        for entry in lent:
            if allocator.book.holds.get(entry.hold.key) is entry:
                gathering.lent.append(entry)
            elif allocator.book.agents.get(entry.hold.agent_id) is entry.agent:
                single = gathering.single
                if single.view.missing > 0 and allocator.may_give(single, entry.agent):
                    hold = allocator.take(single, entry.agent, now, self._next_key())
                    gathering.slots.append(hold.key)

    def run(self, allocator: "Allocator", now: float) -> list[Grant]:
        """Start the gang that is whole, let go of one whose time is up, lend holes, and let the next one gather.

        What a gang lets go of is for anybody in one run before the next gang gathers.
        """
        before = self.gathering
        self._again = False
        grants = self._settle(allocator, now)
        if self.gathering is not None:
            return grants or self._lend(allocator, now)
        if before is None or grants:
            self._begin(allocator, now)
        # Whoever has begun wants a look of the engine, and who gave up makes way for the next to begin.
        self._again = self.gathering is not None or (before is not None and not grants)
        return grants

    def due_at(self, now: float) -> float | None:
        """When gangs have to be looked at again though nothing is told: at once, or when a time is up."""
        if self._again:
            return now
        return max(now, self.gathering.until_at) if self.gathering is not None else None

    def _next_key(self) -> str:
        self._kept += 1
        return f"{SLOT}{self._kept}"

    def restart(self) -> None:
        """The allocator counts everything anew: what was gathered is free, and whoever gathered may begin again."""
        self.gathering = None

    def give_up(self, allocator: "Allocator", key: Key) -> None:
        """Let go of what a gang has gathered, as it is to be asked otherwise or not at all."""
        if self.gathering is not None and self.gathering.key == key:
            self._stop(allocator)

    def _settle(self, allocator: "Allocator", now: float) -> list[Grant]:
        gathering = self.gathering
        if gathering is None:
            return []
        line = allocator.lines.get(*gathering.key)
        refused = set(allocator.refused(gathering.single))
        lost = [key for key in gathering.slots if self._lost(allocator, allocator.book.holds.get(key), refused)]
        for key in lost:
            allocator.release(key)
            gathering.slots.remove(key)
        if lost:
            allocator.lines.miss(gathering.single, len(lost))
        if line is None or now >= gathering.until_at:
            self._turns[gathering.key] = self._turns.get(gathering.key, 0) + 1
            self._stop(allocator)
            return []
        if len(gathering.slots) < gathering.size:
            return []
        grants = [allocator.hand_over(line, allocator.book.holds[key], now) for key in gathering.slots]
        gathering.slots.clear()
        line.view = msgspec.structs.replace(line.view, missing=line.view.missing - gathering.size)
        self._turns.pop(gathering.key, None)
        self._stop(allocator)
        return grants

    def _lost(self, allocator: "Allocator", entry: HoldEntry | None, refused: set[AgentId]) -> bool:
        """Whether a slot is not to be had any more: its agent has gone, is closed, refused, or not what it was."""
        if entry is None or entry.agent.view.ineligible or entry.hold.agent_id in refused:
            return True
        columns, row = allocator.engine.columns(), entry.agent.row
        short = any(amount > 0 > free for amount, free in zip(entry.held.amounts, columns.free[row], strict=True))
        split = any(columns.gpu[row, device] < 0 for device in devices_of(entry.held.devices))
        return short or split or not contains(entry.agent.view.total, entry.hold.resources)

    def _stop(self, allocator: "Allocator") -> None:
        gathering, self.gathering = self.gathering, None
        assert gathering is not None, "only what was begun is stopped"
        for key in gathering.slots:
            allocator.release(key)
        allocator.lines.retire(gathering.single)
        line = allocator.lines.get(*gathering.key)
        if line is not None:
            line.apart -= gathering.size
            allocator.lines.settle(line)

    def _begin(self, allocator: "Allocator", now: float) -> None:
        waiting = [
            each
            for each in allocator.lines
            if each.view.want.gang > 1 and each.cls >= 0 and each.view.missing - each.apart >= each.view.want.gang
        ]
        if not waiting:
            self._turns.clear()
            return
        line = min(
            waiting,
            key=lambda e: (self._turns.get(e.key, 0), -e.view.want.priority, e.view.since_at, e.key),
        )
        want = line.view.want
        line.apart += want.gang
        allocator.lines.settle(line)
        single = allocator.lines.stand(
            msgspec.structs.replace(
                line.view, want=msgspec.structs.replace(want, gang=0, count=want.gang), missing=want.gang
            )
        )
        self.gathering = Gathering(line.key, want.gang, now + want.gang_timeout_s, single)

    def _lend(self, allocator: "Allocator", now: float) -> list[Grant]:
        """Let short work have what is kept, where it will be back in time."""
        gathering = self.gathering
        assert gathering is not None, "holes are lent while a gang gathers"
        grants: list[Grant] = []
        for line in allocator.lines:
            run_s = line.view.want.run_s
            if run_s is None or line.view.want.gang > 1 or line.cls < 0 or now + run_s > gathering.until_at:
                continue
            may = allocator.engine.may_have(line.claimant, line.cls)
            while may and line.view.missing - line.apart > 0 and len(grants) < MOST_LENT:
                slot = next((key for key in gathering.slots if self._holds(allocator, key, line)), None)
                if slot is None:
                    break
                entry = allocator.book.holds[slot]
                allocator.release(slot)
                gathering.slots.remove(slot)
                allocator.book.flush()
                if allocator.may_give(line, entry.agent):
                    grants.append(allocator.give(line, entry.agent, now))
                    gathering.lent.append(allocator.book.holds[grants[-1].key])
                allocator.lines.miss(gathering.single, 1)
        return grants

    def _holds(self, allocator: "Allocator", key: str, line: Line) -> bool:
        """Whether an instance would fit where a slot is, were it free."""
        entry = allocator.book.holds[key]
        free = allocator.engine.columns().free[entry.agent.row].tolist()
        shape = allocator.engine.demand(line.cls).shape
        there = [a + b for a, b in zip(free, entry.held.amounts, strict=True)]
        if any(max(0, a) < b for a, b in zip(there, shape, strict=True)):
            return False
        return bool(allocator.engine.could_take(line.cls)[entry.agent.row])
