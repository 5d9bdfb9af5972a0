"""Why a want still waits: for each reason how many agents it holds for, and what alone would let one instance fit.

An agent that fails for several reasons counts under each, but one that takes nothing new only under the word for that;
only an agent that fails for one reason alone gives a hint. Reasons that are of no agent (a role's limit, the headroom
for guarantees, a gang's size) count for all.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import numpy.typing as npt

from corral.allocator.book import PORT_TAG
from corral.allocator.bundles import GPUS, PORTS, amounts_of, plain
from corral.allocator.demands import shape_of
from corral.allocator.engine import Rule
from corral.allocator.engine.catalog import Demand
from corral.allocator.lines import Line
from corral.model import constraints
from corral.model.constraints import Constraint, Operator
from corral.model.offer import Explanation, Refusal
from corral.model.resources import all_ranges, format_milli
from corral.model.role import line_of

if TYPE_CHECKING:
    from corral.allocator.allocator import Allocator

Mask = npt.NDArray[np.bool_]
Column = npt.NDArray[np.int64]

MOST_REFUSALS = 16
MOST_HINTS = 8


class _Cause(msgspec.Struct):
    """Shapes: `mask` the agents that fail for it, `detail` a sentence; `hint(at)` would make that agent pass.

    `room` ranks the failing agents, most room first; None when none is nearer than another. `of_agent` tells that the
    agent takes nothing new at all; `of_all` that it is no matter of agents.
    """

    reason: str
    mask: Mask
    detail: Callable[[int], str]
    hint: Callable[[int], str]
    room: Column | None = None
    of_agent: bool = False
    of_all: bool = False


class _Board:
    """The agents as the engine sees them, in the order of their rows. Shapes: `at` counts agents, not rows."""

    def __init__(self, allocator: "Allocator", line: Line) -> None:
        self.allocator = allocator
        self.line = line
        self.want = line.view.want
        self.demand: Demand = allocator.engine.demand(line.cls)
        self.roster = allocator.roster()
        self.rows, self.agents, self.eligible = self.roster.rows, self.roster.agents, self.roster.eligible
        columns = allocator.engine.columns()
        names = allocator.engine.resources
        self.free = {name: columns.free[self.rows, d] for d, name in enumerate(names)}
        self.gpu = columns.gpu[self.rows]

    def __len__(self) -> int:
        return len(self.agents)

    def name(self, at: int) -> str:
        return self.agents[at].view.hostname

    def passing(self, rule: Rule) -> Mask:
        return np.asarray(self.allocator.engine.passing(rule)[self.rows])


def explain(allocator: "Allocator", line: Line) -> Explanation:
    """Shapes: at most MOST_REFUSALS refusals, the most frequent first, and MOST_HINTS hints."""
    view = line.view
    found = Explanation(
        want_id=view.want.id,
        framework_id=view.framework_id,
        role=view.want.role,
        waiting=max(0, view.missing),
        since_at=view.since_at,
        agents=len(allocator.book.agents),
    )
    if line.cls < 0 or not allocator.book.agents:
        return found
    board = _Board(allocator, line)
    causes = [each for each in _causes(board) if each.mask.any()]
    fails = np.zeros(len(board), dtype=np.int64)
    for cause in causes:
        fails += cause.mask
    refusals, hints = [], []
    for cause in causes:
        shown = cause.mask if cause.of_agent or cause.of_all else cause.mask & board.eligible
        if not shown.any():
            continue
        best = _nearest(shown, fails, cause.room)
        refusals.append(
            Refusal(
                reason=cause.reason,
                detail=cause.detail(best),
                agents=int(shown.sum()),
                best=None if cause.of_all else board.name(best),
            )
        )
        if fails[best] == 1:
            hints.append(cause.hint(best))
    refusals.sort(key=lambda each: -each.agents)
    refusals[:0] = _under_way(board)
    return msgspec.structs.replace(
        found,
        refusals=tuple(refusals[:MOST_REFUSALS]),
        fits_if=tuple(hint for hint in hints if hint)[:MOST_HINTS],
        never=not _could_hold(board).any(),
    )


def _nearest(mask: Mask, fails: Column, room: Column | None) -> int:
    """The failing agent with the fewest other reasons, then the most room."""
    rows = np.flatnonzero(mask)
    rows = rows[fails[rows] == fails[rows].min()]
    return int(rows[0] if room is None else rows[room[rows].argmax()])


def _causes(board: _Board) -> Iterator[_Cause]:
    yield from _of_role(board)
    yield from _missing_scalars(board)
    yield from _missing_devices(board)
    yield from _taken_ports(board)
    yield from _broken_constraints(board)
    yield from _missing_runtime(board)
    yield from _filtered(board)
    yield from _ineligible(board)


def _under_way(board: _Board) -> list[Refusal]:
    """What is being done for the want already."""
    allocator, line = board.allocator, board.line
    found = []
    offered = allocator.rescinding.get(line.key, ())
    if offered:
        hosts = sorted({allocator.book.agents[each].view.hostname for each in offered if each in allocator.book.agents})
        if hosts:
            detail = f"fits on {hosts[0]} once offers that others hold are back; they are being rescinded"
            found.append(Refusal(reason="offered", detail=detail, agents=len(offered), best=hosts[0]))
    for agent, victims in allocator.clearing(line.key):
        detail = f"room is being made on {agent.view.hostname}: {len(victims)} tasks of less claim are ending"
        found.append(Refusal(reason="clearing", detail=detail, agents=1, best=agent.view.hostname))
    gathered = allocator.gathered(line.key)
    if gathered is not None:
        have, size = gathered
        detail = f"wants {size} instances at once and keeps room for {have} so far"
        found.append(Refusal(reason="gang", detail=detail, agents=len(board)))
    return found


def _of_role(board: _Board) -> Iterator[_Cause]:
    """What no agent can help: limits of the role and those above it, headroom for guarantees, the size of a gang."""
    engine, want = board.allocator.engine, board.want
    everywhere = np.ones(len(board), dtype=bool)
    size = max(1, want.gang)
    asked = {name: n * size for name, n in shape_of(want).items()}
    for name in line_of(want.role):
        settings, row = board.allocator.roles.get(name), engine.find_role(name)
        if settings is None or row is None:
            continue
        held = engine.held(row)
        for resource, most in amounts_of(settings.limit).items():
            ask = asked.get(resource, 0)
            if ask and held[resource] + ask > most:
                text = (
                    f"role {name} may have {resource} {format_milli(most)} and has {format_milli(held[resource])}; "
                    f"one more takes {format_milli(ask)}"
                )
                hint = f"role-limit {resource} ≥ {format_milli(held[resource] + ask)}"
                yield _Cause("limit", everywhere, _saying(text), _saying(hint), of_all=True)
        tasks = engine.tasks_held(row)
        if settings.max_tasks is not None and tasks + size > settings.max_tasks:
            text = f"role {name} may have {settings.max_tasks} tasks and has {tasks}"
            yield _Cause("limit", everywhere, _saying(text), _saying(f"max-tasks ≥ {tasks + size}"), of_all=True)
    # What is larger than all there is waits for no guarantee.
    total = engine.total
    if all(total[name] >= n for name, n in asked.items()) and not (
        want.revocable or engine.keeps_headroom(board.line.claimant, board.line.cls)
    ):
        lacking = {name: n for name, n in engine.unmet().items() if n and asked.get(name)}
        text = "what is free is kept for guarantees: " + ", ".join(
            f"{name} {format_milli(n)}" for name, n in sorted(lacking.items())
        )
        yield _Cause("guarantees", everywhere, _saying(text), _saying("it is revocable"), of_all=True)
    if size > 1:
        single = _fitting(board)
        if 0 < single < size:
            text = f"wants {size} instances at once, there is room for {single}"
            yield _Cause("gang", everywhere, _saying(text), _saying(f"gang ≤ {single}"), of_all=True)


def _fitting(board: _Board) -> int:
    """How many instances fit at the same time, by resources alone."""
    able = np.asarray(board.allocator.engine.could_take(board.line.cls)[board.rows])
    counts = np.full(len(board), 1 << 30, dtype=np.int64)
    for name, n in shape_of(board.want).items():
        counts = np.minimum(counts, np.maximum(board.free[name], 0) // n)
    return int(counts[able].sum())


def _saying(text: str) -> Callable[[int], str]:
    return lambda at: text


def _ineligible(board: _Board) -> Iterator[_Cause]:
    for word, mask in board.roster.words():

        def detail(at: int, word: str = word) -> str:
            return f"{board.name(at)} takes nothing new: {word}"

        def hint(at: int, word: str = word) -> str:
            return f"{board.name(at)} is no longer {word}"

        yield _Cause(word, mask, detail, hint, of_agent=True)


def _most_allowed(board: _Board) -> dict[str, int]:
    """The most that guarantees leave for one instance, of what it asks too much; empty when they leave all it asks."""
    engine, headroom = board.allocator.engine, board.allocator.settings.headroom
    if board.want.revocable or engine.keeps_headroom(board.line.claimant, board.line.cls):
        return {}
    reserve = None if headroom is None else amounts_of(headroom)
    spare = engine.spare
    left = {
        name: max(0, spare[name] - (n if reserve is None else min(n, reserve.get(name, 0))))
        for name, n in engine.unmet().items()
        if n
    }
    return {name: left[name] for name, n in shape_of(board.want).items() if name in left and n > left[name]}


def _is_refused(board: _Board, at: int, name: str, most: int) -> bool:
    """Whether the framework refused of an agent what an instance would ask with so much of a resource."""
    want, view = board.want, board.agents[at].view
    asked = tuple(msgspec.structs.replace(r, milli=most) if r.name == name else r for r in want.resources)
    return view.id in board.allocator.filters.refused_agents(board.line.view.framework_id, want.role, asked)


def _missing_scalars(board: _Board) -> Iterator[_Cause]:
    allowed = _most_allowed(board)
    for name, asked in shape_of(board.want).items():
        column = board.free[name]

        def detail(at: int, name: str = name, asked: int = asked, column: Column = column) -> str:
            wanted, most = format_milli(asked), format_milli(max(0, int(column[at])))
            if name == PORTS:
                return f"wants {wanted} ports, the most free are {most} on {board.name(at)}"
            return f"wants {name} {wanted}, the most free is {most} on {board.name(at)}"

        def hint(at: int, name: str = name, column: Column = column) -> str:
            if name == PORTS and column[at] // 1000 <= len(set(board.want.fixed_ports)):
                return ""
            most = _most_gpus(board, at) if name == GPUS else int(column[at])
            most = min(most, allowed.get(name, most))
            if set(allowed) - {name} or _is_refused(board, at, name, most):
                return ""
            return f"{name} ≤ {format_milli(most)}" if most > 0 else ""

        yield _Cause(name, column < asked, detail, hint, column)


def _most_gpus(board: _Board, at: int) -> int:
    """What an instance could have of an agent's GPUs now: whole ones, else the largest part of one."""
    whole = int((board.gpu[at] >= 1000).sum())
    return 1000 * whole if whole else int(board.gpu[at].max(initial=0))


def _missing_devices(board: _Board) -> Iterator[_Cause]:
    """GPUs that are free in sum, but not on single devices."""
    asked = shape_of(board.want).get(GPUS, 0)
    if not asked:
        return
    count, part = (asked // 1000, 1000) if asked % 1000 == 0 else (1, asked)
    enough = (board.gpu >= part).sum(axis=1) >= count
    mask = ~enough & (board.free[GPUS] >= asked)

    def detail(at: int) -> str:
        most = format_milli(int(board.gpu[at].max(initial=0)))
        each = format_milli(part)
        return f"wants {count} GPUs with {each} free each, the most free of one is {most} on {board.name(at)}"

    yield _Cause("gpu slices", mask, detail, lambda at: f"gpus ≤ {format_milli(_most_gpus(board, at))}")


def _taken_ports(board: _Board) -> Iterator[_Cause]:
    fixed = sorted(set(board.want.fixed_ports))
    if not fixed:
        return
    rules = [each for each in board.demand.rules if each.tally.tag.startswith(PORT_TAG)]
    mask = np.zeros(len(board), dtype=bool)
    for rule in rules:
        mask |= ~board.passing(rule)

    def lacking(at: int) -> str:
        free = all_ranges(plain(board.agents[at].free()), PORTS)
        return "port " + ",".join(str(p) for p in fixed if not any(low <= p <= high for low, high in free))

    yield _Cause(
        "port taken",
        mask,
        lambda at: f"wants {lacking(at)}, which {board.name(at)} does not have free",
        lambda at: f"{lacking(at)} is free on {board.name(at)}",
    )


def _broken_constraints(board: _Board) -> Iterator[_Cause]:
    for constraint, mask in _constraint_masks(board):
        text = constraints.describe(constraint)

        def detail(at: int, text: str = text, field: str = constraint.field) -> str:
            view = board.agents[at].view
            found = constraints.field_value(field, view.hostname, view.attributes)
            return f"constraint {text}; {board.name(at)} has {'no such attribute' if found is None else found}"

        yield _Cause("constraint", mask, detail, _saying(f"without the constraint {text}"))


def _missing_runtime(board: _Board) -> Iterator[_Cause]:
    runtime = board.want.runtime
    if not runtime:
        return

    def listed(at: int, words: str) -> str:
        return words.join(board.agents[at].view.runtimes)

    def detail(at: int) -> str:
        unready = f", and {runtime} is there but not ready" if runtime in board.agents[at].view.unready_runtimes else ""
        return f"wants the runtime {runtime}, {board.name(at)} runs {listed(at, ', ') or 'nothing'}{unready}"

    def hint(at: int) -> str:
        return f"runtime {listed(at, ' or ')}" if listed(at, "") else ""

    yield _Cause("runtime", ~board.roster.has_runtime(runtime), detail, hint)


def _constraint_masks(board: _Board) -> Iterator[tuple[Constraint, Mask]]:
    """Each hard constraint of the want with the agents that break it."""
    counting = iter(each for each in board.demand.rules if not each.weight and not each.tally.tag.startswith(PORT_TAG))
    for constraint in board.want.constraints:
        if constraint.weight or constraint.operator is Operator.SPREAD:
            continue
        if constraints.is_counting(constraint) or constraints.looks_at_tasks(constraint):
            yield constraint, ~board.passing(next(counting))
            continue
        yield constraint, ~board.roster.matching(constraint.field, partial(_allows, constraint))


def _allows(constraint: Constraint, value: str | None) -> bool:
    return constraints.allows(constraint, value, (), 0, 0)


def _filtered(board: _Board) -> Iterator[_Cause]:
    if board.demand.refused:
        mask = np.isin(board.rows, list(board.demand.refused))
        yield _Cause(
            "filtered",
            mask,
            lambda at: f"the framework refused such an offer of {board.name(at)} a while ago",
            lambda at: f"the filter on {board.name(at)} expires",
        )


def _could_hold(board: _Board) -> Mask:
    """The agents that would hold one instance if they were empty and took work."""
    want = board.want
    mask = np.ones(len(board), dtype=bool)
    for name, n in shape_of(want).items():
        mask &= board.roster.total(name) >= n
    if want.runtime:
        mask &= board.roster.has_runtime(want.runtime, ready=False)
    for constraint, broken in _constraint_masks(board):
        if not (constraints.is_counting(constraint) or constraints.looks_at_tasks(constraint)):
            mask &= ~broken
    if want.fixed_ports:
        for at in np.flatnonzero(mask):
            have = all_ranges(plain(board.agents[int(at)].view.total), PORTS)
            mask[at] = all(any(low <= p <= high for low, high in have) for p in want.fixed_ports)
    return mask
