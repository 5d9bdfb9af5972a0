"""Which running tasks would better run elsewhere: to make room for wants that only scattered room keeps waiting, and
to even out what agents carry.

Only tasks whose owner allows it are moved, by the label `corral.rebalance=true`; who moves them sees to it that an app
never has fewer healthy instances than it must. A plan looks at resources and at where siblings are; where a moved task
really goes is decided as for any want, so what would only come back is not moved.
"""

from collections.abc import Iterable

import msgspec
import numpy as np
import numpy.typing as npt

from corral.allocator.allocator import Allocator
from corral.allocator.demands import shape_of
from corral.allocator.entries import AgentEntry, HoldEntry
from corral.allocator.lines import Line
from corral.allocator.view import HoldKind, View
from corral.model.ids import AgentId, FrameworkId

MOVABLE = "label:corral.rebalance=true"

WORTH_EVENING = 0.2
"""How much fuller one agent must be than another, as a part of itself, before evening out is worth a restart."""

Table = npt.NDArray[np.int64]


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """A task to be restarted elsewhere. Shapes: `key` of its hold."""

    key: str
    framework_id: FrameworkId
    from_agent: AgentId
    from_host: str
    to_agent: AgentId
    to_host: str
    why: str


class _Board:
    """The agents as they would be after the moves so far. Shapes: a row per agent, in the order of engine rows."""

    def __init__(self, allocator: Allocator) -> None:
        self.allocator = allocator
        self.agents: list[AgentEntry] = [allocator.book.rows[row] for row in sorted(allocator.book.rows)]
        rows = [agent.row for agent in self.agents]
        self.free: Table = allocator.engine.columns().free[rows].copy()
        totals = [n for agent in self.agents for n in _totals(allocator, agent)]
        self.total: Table = np.array(totals, dtype=np.int64).reshape(len(rows), len(allocator.engine.resources))
        self.open = np.array([not agent.view.ineligible for agent in self.agents], dtype=bool)
        self.at = {agent.row: i for i, agent in enumerate(self.agents)}
        self.moved: set[str] = set()
        self.groups: dict[tuple[FrameworkId, str], list[int]] = {}
        for entry in allocator.book.holds.values():
            if entry.hold.group:
                self.groups.setdefault((entry.hold.framework_id, entry.hold.group), []).append(self.at[entry.agent.row])

    def movable(self, at: int) -> list[HoldEntry]:
        """The tasks of an agent that may be moved and have not been."""
        return [
            entry
            for entry in self.agents[at].holds.values()
            if entry.hold.kind is HoldKind.TASK
            and MOVABLE in entry.hold.tags
            and not entry.hold.leaving
            and entry.hold.key not in self.moved
        ]

    def place_for(self, entry: HoldEntry, source: int) -> int | None:
        """Where a task would be placed anew while it still runs; None where it would come back, or join a sibling.

        A role without a strategy spreads: the fewest siblings, then the most room. Others are taken to pack tightly.
        """
        ask = np.array(entry.held.amounts, dtype=np.int64)
        rows = np.flatnonzero(self.open & (self.free >= ask).all(axis=1))
        if len(rows) == 0:
            return None
        siblings = self.groups.get((entry.hold.framework_id, entry.hold.group), []) if entry.hold.group else []
        left = ((self.free[rows] - ask)[:, :2] / np.maximum(self.total[rows][:, :2], 1)).sum(axis=1)
        role = self.allocator.roles.get(entry.hold.role)
        if role is not None and role.strategy not in ("", "spread"):
            target = int(rows[left.argmin()])
        else:
            beside = np.bincount(siblings, minlength=len(self.agents))[rows]
            target = int(rows[np.lexsort((-left, beside))[0]])
        if target == source or (target in siblings and siblings.count(source) <= 1):
            return None
        return target

    def shift(self, entry: HoldEntry, source: int, target: int) -> None:
        """Count a task elsewhere, or back."""
        ask = np.array(entry.held.amounts, dtype=np.int64)
        self.free[source] += ask
        self.free[target] -= ask
        there = self.groups.get((entry.hold.framework_id, entry.hold.group))
        if there is not None and source in there:
            there.remove(source)
            there.append(target)

    def move(self, entry: HoldEntry, source: int, target: int, why: str) -> Move:
        self.shift(entry, source, target)
        self.moved.add(entry.hold.key)
        old, new = self.agents[source].view, self.agents[target].view
        return Move(
            key=entry.hold.key, framework_id=entry.hold.framework_id, from_agent=old.id, from_host=old.hostname,
            to_agent=new.id, to_host=new.hostname, why=why,
        )  # fmt: skip


def rebalance(view: View, now: float, most: int = 10) -> tuple[Move, ...]:
    """At most so many moves, first those that let wants run, then those that even out; deterministic."""
    allocator = Allocator.of(msgspec.structs.replace(view, frameworks=()))
    waiting = set(allocator.run(now, view.seed).waiting)
    board = _Board(allocator)
    found: list[Move] = []
    lines = [each for each in allocator.lines if each.key in waiting and each.view.want.gang <= 1 and each.cls >= 0]
    for line in sorted(lines, key=lambda each: (-each.view.want.priority, each.view.since_at, each.key)):
        found += _make_room(board, line, most - len(found))
    found += _even_out(board, most - len(found))
    return tuple(found[:most])


def _make_room(board: _Board, line: Line, most: int) -> list[Move]:
    """Moves away from one agent, the fewest there are, after which an instance fits there."""
    shape = shape_of(line.view.want)
    ask = np.array([shape.get(name, 0) for name in board.allocator.engine.resources], dtype=np.int64)
    able = board.allocator.engine.could_take(line.cls)
    best: list[tuple[HoldEntry, int]] | None = None
    best_at = -1
    for at, agent in enumerate(board.agents):
        if not able[agent.row] or not board.open[at] or (board.total[at] < ask).any():
            continue
        chosen = _clear(board, at, ask - board.free[at])
        if chosen is not None and len(chosen) <= most and (best is None or len(chosen) < len(best)):
            best, best_at = chosen, at
    if best is None:
        return []
    want = line.view.want
    why = f"makes room on {board.agents[best_at].view.hostname} for {want.id} of {line.view.framework_id}"
    found = [board.move(entry, best_at, target, why) for entry, target in best]
    board.free[best_at] -= ask
    return found


def _clear(board: _Board, at: int, lacking: Table) -> list[tuple[HoldEntry, int]] | None:
    """Movable tasks of an agent, the largest first, with where they go, until what lacks is there."""
    found: list[tuple[HoldEntry, int]] = []
    left = lacking.copy()
    for entry in sorted(board.movable(at), key=lambda each: ([-n for n in each.held.amounts], each.hold.key)):
        if (left <= 0).all():
            break
        target = board.place_for(entry, at)
        if target is None:
            continue
        board.shift(entry, at, target)
        left -= np.array(entry.held.amounts, dtype=np.int64)
        found.append((entry, target))
    for entry, target in reversed(found):
        board.shift(entry, target, at)
    return found if found and bool((left <= 0).all()) else None


def _even_out(board: _Board, most: int) -> Iterable[Move]:
    """Moves from the fullest agent to the emptiest, while that makes them more alike."""
    found: list[Move] = []
    if not len(board.agents):
        return found
    sizes = np.maximum(board.total[:, :2], 1)
    while len(found) < most:
        used = (1 - board.free[:, :2] / sizes).max(axis=1)
        used[~board.open] = np.nan
        if np.isnan(used).all():
            break
        step = None
        for source in np.argsort(-np.nan_to_num(used, nan=-1.0), kind="stable")[:8].tolist():
            for entry in sorted(board.movable(source), key=lambda each: each.hold.key):
                ask = np.array(entry.held.amounts, dtype=np.int64)
                target = int(np.nanargmin(used))
                if used[source] - used[target] <= WORTH_EVENING or not (board.free[target] >= ask).all():
                    continue
                siblings = board.groups.get((entry.hold.framework_id, entry.hold.group), [])
                after = (1 - (board.free[target] - ask)[:2] / sizes[target]).max()
                if after < used[source] - 0.01 and (not entry.hold.group or target not in siblings):
                    step = entry, source, target
                    break
            if step is not None:
                break
        if step is None:
            break
        entry, source, target = step
        why = f"{board.agents[source].view.hostname} is {100 * used[source]:.0f}% used and "
        why += f"{board.agents[target].view.hostname} {100 * used[target]:.0f}%"
        found.append(board.move(entry, source, target, why))
    return found


def _totals(allocator: Allocator, agent: AgentEntry) -> list[int]:
    total = allocator.engine.total_of(agent.row)
    return [total[name] for name in allocator.engine.resources]
