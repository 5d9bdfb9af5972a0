"""Which tasks make room for a want that waits: the least costly ones that are allowed to go.

Victims are tasks of lower priority in the want's own role, or revocable ones of anybody; never of equal or higher
priority, never what is not revocable of another role. What the victims leave is kept for the want until it fits.
"""

from collections import Counter, deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from corral.allocator.book import is_port_rule
from corral.allocator.bundles import GPUS, PORTS, amounts_of
from corral.allocator.demands import shape_of
from corral.allocator.engine.rules import WHOLE
from corral.allocator.entries import AgentEntry, HoldEntry, devices_of
from corral.allocator.lines import Key, Line
from corral.allocator.view import Eviction, Grant, Hold, HoldKind, Settings
from corral.model.resources import Resource, all_ranges, normal, ports
from corral.model.role import line_of

if TYPE_CHECKING:
    from corral.allocator.allocator import Allocator

KEPT = "kept/"
"""What the keys of holds begin with that keep room for a want while its victims leave."""

MOST_WANTS = 16
"""Wants that victims are looked for in one run; the others have their turn later."""

MOST_AGENTS = 256
"""Agents looked at for one instance."""

MOST_TRIALS = 8
"""Agents, the cheapest first, of which it is tried whether an instance would fit there once its victims have gone."""

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
        self._turn = 0

    def run(self, allocator: "Allocator", waiting: Iterable[Line], now: float) -> list[Eviction]:
        """Choose victims for wants that wait, in the order they are served, as many as the operator allows."""
        left = self.left(now)
        lines = [each for each in waiting if each.cls >= 0 and not each.view.want.revocable]
        lines.sort(key=lambda each: (-each.view.want.priority, each.view.since_at, each.key))
        found: list[Eviction] = []
        if left <= 0 or not lines:
            return found
        # Wants for which nothing can be done do not keep the others from being looked at.
        begin = self._turn % len(lines) if len(lines) > MOST_WANTS else 0
        for line in (lines[begin:] + lines[:begin])[:MOST_WANTS]:
            if line.view.want.gang > 1:
                continue
            while line.view.missing - line.apart > 0:
                chosen = _choose(allocator, line, left)
                if chosen is None:
                    break
                agent, victims = chosen
                left -= len(victims)
                self._recent.extend([now] * len(victims))
                found += [_evict(allocator, line, victim) for victim in victims]
                self._begin(allocator, line, agent, victims, now)
        self._turn = 0 if found else self._turn + MOST_WANTS
        return found

    def left(self, now: float) -> int:
        """How many tasks may be evicted now."""
        while self._recent and self._recent[0] <= now - MINUTE_S:
            self._recent.popleft()
        return self.settings.evictions_per_minute - len(self._recent)

    def spend(self, now: float, count: int) -> None:
        """So many have been evicted."""
        self._recent.extend([now] * count)

    def settle(self, allocator: "Allocator", now: float) -> list[Grant]:
        """Give the wants what was cleared for them, where all victims have gone; keep for them what the others left."""
        grants: list[Grant] = []
        clearings, self._clearings = self._clearings, []
        # Who has all it waited for is served first: none that still waits may keep what others have cleared.
        waiting = []
        for each in clearings:
            if _may_go_on(allocator, each) and any(key in allocator.book.holds for key in each.victims):
                waiting.append(each)
                continue
            line = self._finish(allocator, each)
            if line is not None and _may_go_on(allocator, each) and allocator.may_give(line, each.agent):
                grants.append(allocator.give(line, each.agent, now))
        under_way: Counter[Key] = Counter()
        for each in waiting:
            line = allocator.lines.get(*each.key)
            if line is None or line.view.missing <= under_way[each.key]:
                self._finish(allocator, each)
                continue
            under_way[each.key] += 1
            allocator.release(each.kept)
            self._clearings.append(each._replace(kept=self._keep(allocator, line, each.agent, each.victims, now)))
        return grants

    def _finish(self, allocator: "Allocator", clearing: Clearing) -> Line | None:
        """What was kept is free, and the engine may place the instance anywhere again."""
        allocator.release(clearing.kept)
        line = allocator.lines.get(*clearing.key)
        if line is not None:
            line.apart -= 1
            allocator.lines.settle(line)
            allocator.lines.catch_up()
            allocator.book.flush()
        return line

    def clearing(self, key: Key) -> list[tuple[AgentEntry, tuple[str, ...]]]:
        """Where room is being made for a want, and what has to end there."""
        return [(each.agent, each.victims) for each in self._clearings if each.key == key]

    def due_at(self, now: float) -> float | None:
        """When the operator allows evictions again; None while he does."""
        if not self._recent or len(self._recent) < self.settings.evictions_per_minute:
            return None
        return max(now, self._recent[0] + MINUTE_S)

    @property
    def kept(self) -> list[str]:
        """The keys of what is kept where room is being made."""
        return [each.kept for each in self._clearings]

    def give_up(self, allocator: "Allocator", key: Key) -> None:
        """A want has gone: what was kept for it is free again."""
        for each in [one for one in self._clearings if one.key == key]:
            self._clearings.remove(each)
            allocator.release(each.kept)

    def _begin(
        self, allocator: "Allocator", line: Line, agent: AgentEntry, victims: list[HoldEntry], now: float
    ) -> None:
        """Keep what is free for the instance, and ask no other place for it meanwhile."""
        keys = tuple(each.hold.key for each in victims)
        self._clearings.append(Clearing(line.key, agent, self._keep(allocator, line, agent, keys, now), keys))
        line.apart += 1
        allocator.lines.settle(line)
        for each in victims:
            allocator.book.mark(each.hold.key)

    def _keep(self, allocator: "Allocator", line: Line, agent: AgentEntry, victims: Iterable[str], now: float) -> str:
        """Hold as much of one instance as its victims will not leave, is free there and within limits.

        Shapes: returns the key of the hold, empty for nothing.
        """
        want = line.view.want
        allocator.book.flush()
        *most, tasks = _over_limits(allocator, line).tolist()
        over = dict(zip(allocator.engine.resources, most, strict=True))
        free = allocator.engine.free(agent.row)
        there = [allocator.book.holds[key].held.amounts for key in victims if key in allocator.book.holds]
        coming = {name: sum(each[at] for each in there) for at, name in enumerate(allocator.engine.resources)}
        kept = {
            name: min(free[name], n - over[name], n - coming[name])
            for name, n in shape_of(want).items()
            if name != PORTS
        }
        found = [Resource(name=name, milli=n) for name, n in kept.items() if n > 0]
        if not found or tasks > 0:
            return ""
        spans = agent.free_ports()
        fixed = [(p, p) for p in want.fixed_ports if any(low <= p <= high for low, high in spans)]
        hold = Hold(
            key=f"{KEPT}{self._count}", framework_id=line.view.framework_id, role=want.role, agent_id=agent.view.id,
            resources=normal([*found, ports(*fixed)]), kind=HoldKind.GRANT, priority=want.priority, since_at=now,
        )  # fmt: skip
        self._count += 1
        allocator.hold(hold)
        allocator.book.flush()
        return hold.key

    def follow(self, allocator: "Allocator") -> None:
        """The allocator counts everything anew: what was kept is kept again in the next run."""
        clearings, self._clearings = self._clearings, []
        for each in clearings:
            line, agent = allocator.lines.get(*each.key), allocator.book.agents.get(each.agent.view.id)
            if line is not None and agent is not None:
                line.apart += 1
                self._clearings.append(each._replace(agent=agent, kept=""))


def _may_go_on(allocator: "Allocator", clearing: Clearing) -> bool:
    """Whether the agent is still there and takes something new, and somebody still wants it."""
    agent = clearing.agent.view
    there = allocator.book.agents.get(agent.id) is clearing.agent and not agent.ineligible
    return there and allocator.lines.get(*clearing.key) is not None


def _choose(allocator: "Allocator", line: Line, most: int) -> tuple[AgentEntry, list[HoldEntry]] | None:
    """The agent whose victims cost least, and these; None when no allowed set of at most `most` makes room."""
    want = line.view.want
    by_row: dict[int, dict[str, HoldEntry]] = {}
    for entry in allocator.book.evictable(want.role, want.priority if want.preempts else None):
        if not entry.hold.leaving and not entry.agent.view.ineligible:
            by_row.setdefault(entry.agent.row, {})[entry.hold.key] = entry
    if not by_row:
        return None
    suits = allocator.engine.could_take(line.cls, is_port_rule)
    over = _over_limits(allocator, line)
    found: list[tuple[tuple[object, ...], int, list[HoldEntry]]] = []
    for row in sorted(each for each in by_row if suits[each])[:MOST_AGENTS]:
        victims = _victims(by_row[row].values(), _Lack(allocator, line, row, over))
        if victims is not None and len(victims) <= most:
            found.append(((*_cost(victims), row), row, victims))
    for _, row, victims in sorted(found, key=lambda each: each[0])[:MOST_TRIALS]:
        with allocator.book.without(victims):
            helps = allocator.engine.fits(row, line.cls) and allocator.engine.may_have(line.claimant, line.cls)
        if helps:
            return allocator.book.rows[row], victims
    return None


def _over_limits(allocator: "Allocator", line: Line) -> "np.ndarray":
    """By how much one instance more would exceed limits of the role and those above it, and their number of tasks."""
    engine = allocator.engine
    over = np.zeros(len(engine.resources) + 1, dtype=np.int64)
    shape = shape_of(line.view.want)
    for name in line_of(line.view.want.role):
        settings, row = allocator.roles.get(name), engine.find_role(name)
        if settings is None or row is None:
            continue
        held = engine.held(row)
        for resource, n in amounts_of(settings.limit).items():
            if shape.get(resource):
                at = engine.resources.index(resource)
                over[at] = max(over[at], held[resource] + shape[resource] - n)
        if settings.max_tasks is not None:
            over[-1] = max(over[-1], engine.tasks_held(row) + 1 - settings.max_tasks)
    return over


class _Lack:
    """What an agent lacks for one instance of a want: amounts, whole enough GPUs, fixed ports, room within limits."""

    def __init__(self, allocator: "Allocator", line: Line, row: int, over: "np.ndarray") -> None:
        columns = allocator.engine.columns()
        self._role = line.view.want.role
        shape = np.array(allocator.engine.demand(line.cls).shape, dtype=np.int64)
        self._amounts = np.where(shape > 0, shape - columns.free[row], 0)
        self._over = over.copy()
        self._gpus = columns.gpu[row].copy()
        asked = shape_of(line.view.want).get(GPUS, 0)
        self._gpu_at = allocator.engine.resources.index(GPUS)
        self._part = min(asked, WHOLE)
        self._count = -(-asked // WHOLE)
        self._ports = set(line.view.want.fixed_ports)
        if self._ports:
            free = allocator.book.rows[row].free_ports()
            self._ports = {p for p in self._ports if not any(low <= p <= high for low, high in free)}
        self._given: set[int] = set()

    @property
    def met(self) -> bool:
        return (
            bool((self._amounts <= 0).all() and (self._over <= 0).all())
            and self._ports <= self._given
            and int((self._gpus >= self._part).sum()) >= self._count
        )

    def helped_by(self, entry: HoldEntry) -> bool:
        amounts = np.array(entry.held.amounts, dtype=np.int64)
        if ((amounts > 0) & (self._amounts > 0)).any() or (self._ports - self._given) & self._ports_of(entry):
            return True
        if entry.hold.role == self._role and ((np.append(amounts, 1) > 0) & (self._over > 0)).any():
            return True
        return any(self._gpus[d] < self._part for d in devices_of(entry.held.devices))

    def count(self, entry: HoldEntry, sign: int) -> None:
        """The hold goes, or with -1 stays after all."""
        amounts = np.array(entry.held.amounts, dtype=np.int64)
        self._amounts = self._amounts - sign * amounts
        if entry.hold.role == self._role:
            self._over = self._over - sign * np.append(amounts, 1)
        devices = devices_of(entry.held.devices)
        for d in devices:
            self._gpus[d] += sign * (entry.held.amounts[self._gpu_at] // len(devices))
        given = self._ports_of(entry)
        self._given = self._given | given if sign > 0 else self._given - given

    def _ports_of(self, entry: HoldEntry) -> set[int]:
        if not self._ports:
            return set()
        spans = all_ranges(entry.hold.resources, PORTS)
        return {p for p in self._ports if any(low <= p <= high for low, high in spans)}


def _victims(entries: Iterable[HoldEntry], lack: _Lack) -> list[HoldEntry] | None:
    """The cheapest first until nothing is lacking, then without those that turn out not to be needed."""
    chosen: list[HoldEntry] = []
    for entry in sorted(entries, key=_worth):
        if lack.met:
            break
        if lack.helped_by(entry):
            chosen.append(entry)
            lack.count(entry, 1)
    if not lack.met or not chosen:
        return None
    for entry in sorted(chosen, key=_worth, reverse=True):
        lack.count(entry, -1)
        if lack.met and len(chosen) > 1:
            chosen.remove(entry)
        else:
            lack.count(entry, 1)
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
