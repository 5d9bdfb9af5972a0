"""Which tasks make room for a want that waits: the least costly ones that are allowed to go.

Victims are tasks of lower priority in the want's own role, or revocable ones of anybody; never of equal or higher
priority, never what is not revocable of another role. What the victims leave is kept for the want until it fits.
"""

from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from corral.allocator.book import PORTS, AgentEntry, Book, HoldEntry
from corral.allocator.demands import shape_of
from corral.allocator.lines import Key, Line
from corral.allocator.view import Eviction, Grant, Hold, HoldKind, Settings
from corral.model.resources import Resource, normal

if TYPE_CHECKING:
    from corral.allocator.allocator import Allocator

MOST_WANTS = 16
"""Wants that victims are looked for in one run; the others have their turn later."""

MOST_AGENTS = 256
"""Agents looked at for one instance."""

MINUTE_S = 60.0


class Clearing(NamedTuple):
    """Room being made for one instance. Shapes: `kept` is the hold on what was free already."""

    key: Key
    agent: AgentEntry
    kept: str
    victims: tuple[str, ...]


class Evictor:
    """Shapes: `clearings` in the order they were begun; `recent` the instants of evictions in the last minute."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._clearings: list[Clearing] = []
        self._recent: deque[float] = deque()
        self._count = 0

    def run(self, allocator: "Allocator", waiting: Iterable[Line], now: float) -> list[Eviction]:
        """Choose victims for wants that wait, in the order they are served, as many as the operator allows."""
        while self._recent and self._recent[0] <= now - MINUTE_S:
            self._recent.popleft()
        left = self.settings.evictions_per_minute - len(self._recent)
        lines = [each for each in waiting if each.cls >= 0 and not each.view.want.revocable]
        lines.sort(key=lambda each: (-each.view.want.priority, each.view.since_at, each.key))
        found: list[Eviction] = []
        if left <= 0 or not lines:
            return found
        candidates = _candidates(allocator.book)
        if not candidates:
            return found
        for line in lines[:MOST_WANTS]:
            if line.view.want.gang > 1:
                continue
            while line.view.missing - line.apart > 0:
                chosen = _choose(allocator, line, candidates, left)
                if chosen is None:
                    break
                agent, victims = chosen
                left -= len(victims)
                self._recent.extend([now] * len(victims))
                found += [_evict(allocator, line, victim) for victim in victims]
                self._begin(allocator, line, agent, victims, now)
        return found

    def settle(self, allocator: "Allocator", now: float) -> list[Grant]:
        """Give the wants what was cleared for them, where all victims have gone."""
        grants: list[Grant] = []
        clearings, self._clearings = self._clearings, []
        for each in clearings:
            line = allocator.lines.get(*each.key)
            there = allocator.book.agents.get(each.agent.view.id) is each.agent and not each.agent.view.ineligible
            if line is not None and there and any(key in allocator.book.holds for key in each.victims):
                self._clearings.append(each)
                continue
            allocator.release(each.kept)
            allocator.book.flush()
            if line is None:
                continue
            line.apart -= 1
            allocator.lines.settle(line)
            allocator.lines.catch_up()
            if there and allocator.may_give(line, each.agent):
                grants.append(allocator.give(line, each.agent, now))
        return grants

    def clearing(self, key: Key) -> list[tuple[AgentEntry, tuple[str, ...]]]:
        """Where room is being made for a want, and what has to end there."""
        return [(each.agent, each.victims) for each in self._clearings if each.key == key]

    def give_up(self, allocator: "Allocator", key: Key) -> None:
        """A want has gone: what was kept for it is free again."""
        for each in [one for one in self._clearings if one.key == key]:
            self._clearings.remove(each)
            allocator.release(each.kept)

    def _begin(
        self, allocator: "Allocator", line: Line, agent: AgentEntry, victims: list[HoldEntry], now: float
    ) -> None:
        """Keep what is free for the instance, and ask no other place for it meanwhile."""
        want = line.view.want
        free = allocator.engine.free(agent.row)
        kept = {name: min(free[name], n) for name, n in shape_of(want).items() if name != PORTS}
        if not allocator.engine.may_have(line.claimant, line.cls):
            # What the victims give back is all that the role may have.
            kept = {}
        hold = Hold(
            key=f"kept/{self._count}", framework_id=line.view.framework_id, role=want.role, agent_id=agent.view.id,
            resources=normal(Resource(name=name, milli=n) for name, n in kept.items() if n > 0), kind=HoldKind.GRANT,
            priority=want.priority, since_at=now,
        )  # fmt: skip
        self._count += 1
        allocator.hold(hold)
        self._clearings.append(Clearing(line.key, agent, hold.key, tuple(each.hold.key for each in victims)))
        line.apart += 1
        allocator.lines.settle(line)
        for each in victims:
            allocator.book.mark(each.hold.key)


def _candidates(book: Book) -> dict[str, list[HoldEntry]]:
    """Tasks that may have to go, by role; revocable ones also under the empty name."""
    found: dict[str, list[HoldEntry]] = {}
    for entry in book.holds.values():
        hold = entry.hold
        if hold.kind is not HoldKind.TASK or hold.leaving or entry.agent.view.ineligible:
            continue
        found.setdefault(hold.role, []).append(entry)
        if hold.revocable:
            found.setdefault("", []).append(entry)
    return found


def _choose(
    allocator: "Allocator", line: Line, candidates: dict[str, list[HoldEntry]], most: int
) -> tuple[AgentEntry, list[HoldEntry]] | None:
    """The agent whose victims cost least, and these; None when no allowed set of at most `most` makes room."""
    want = line.view.want
    engine = allocator.engine
    within = engine.may_have(line.claimant, line.cls)
    by_row: dict[int, dict[str, HoldEntry]] = {}
    for entry in candidates.get("", ()) if within else ():
        if not entry.hold.leaving:
            by_row.setdefault(entry.agent.row, {})[entry.hold.key] = entry
    for entry in candidates.get(want.role, ()) if want.preempts else ():
        if entry.hold.priority < want.priority and not entry.hold.leaving and (within or not entry.hold.revocable):
            by_row.setdefault(entry.agent.row, {})[entry.hold.key] = entry
    if not by_row:
        return None
    suits = engine.could_take(line.cls)
    shape = np.array(engine.demand(line.cls).shape, dtype=np.int64)
    # A role at its limit gets no more than its own victims give back, whatever is free.
    free = engine.columns().free if within else np.zeros_like(engine.columns().free)
    best: tuple[tuple[object, ...], AgentEntry, list[HoldEntry]] | None = None
    for row in sorted(each for each in by_row if suits[each])[:MOST_AGENTS]:
        victims = _victims(by_row[row].values(), shape - free[row])
        if victims is None or len(victims) > most:
            continue
        cost = (*_cost(victims), row)
        if best is None or cost < best[0]:
            best = cost, allocator.book.rows[row], victims
    return (best[1], best[2]) if best is not None else None


def _victims(entries: Iterable[HoldEntry], lacking: "np.ndarray") -> list[HoldEntry] | None:
    """The cheapest first until what is lacking is there, then without those that turn out not to be needed."""
    order = sorted(entries, key=_worth)
    chosen: list[HoldEntry] = []
    left = lacking.copy()
    for entry in order:
        if (left <= 0).all():
            break
        amounts = np.array(entry.held.amounts, dtype=np.int64)
        if ((amounts > 0) & (left > 0)).any():
            chosen.append(entry)
            left = left - amounts
    if not (left <= 0).all() or not chosen:
        return None
    for entry in sorted(chosen, key=_worth, reverse=True):
        amounts = np.array(entry.held.amounts, dtype=np.int64)
        if len(chosen) > 1 and (left + amounts <= 0).all():
            chosen.remove(entry)
            left = left + amounts
    return chosen


def _worth(entry: HoldEntry) -> tuple[object, ...]:
    """Sorts tasks by what is lost with them: revocable before others, low priority first, the youngest first."""
    hold = entry.hold
    return not hold.revocable, hold.priority, -hold.since_at, hold.key


def _cost(victims: list[HoldEntry]) -> tuple[object, ...]:
    """Sorts sets of victims: those without firm work first, then by the highest priority among them, number and age."""
    firm = [each.hold.priority for each in victims if not each.hold.revocable]
    return len(firm), max(firm, default=-(1 << 30)), len(victims), -max(each.hold.since_at for each in victims)


def _evict(allocator: "Allocator", line: Line, victim: HoldEntry) -> Eviction:
    want, hold = line.view.want, victim.hold
    if hold.revocable:
        why = f"it ran on lent resources, which role {want.role} takes back for {want.id} of {line.view.framework_id}"
    else:
        why = (
            f"priority {hold.priority} made room for priority {want.priority} of the same role: {want.id} of "
            f"{line.view.framework_id}"
        )
    return Eviction(
        key=hold.key, framework_id=hold.framework_id, role=hold.role, agent_id=hold.agent_id, want_id=want.id,
        for_framework_id=line.view.framework_id, for_role=want.role, why=why,
    )  # fmt: skip
