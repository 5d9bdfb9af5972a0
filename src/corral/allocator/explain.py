"""Why a want still waits: for each reason how many agents it holds for, and what alone would let one instance fit.

An agent that fails for several reasons counts under each, but one that takes nothing new only under the word for that;
only an agent that fails for one reason alone gives a hint.
"""

from collections.abc import Callable, Iterator

import msgspec
import numpy as np

from corral.allocator.nodes import PORTS, Mask, Nodes
from corral.allocator.shapes import Placement, Shape, constraint_mask, counting_mask, runtime_mask
from corral.allocator.strategies import Column
from corral.allocator.view import WantView
from corral.model import constraints
from corral.model.offer import Explanation, Refusal
from corral.model.resources import Resource, contains, count_range, cut_ranges, describe, format_milli

MOST_REFUSALS = 16
MOST_HINTS = 8


class _Cause(msgspec.Struct):
    """Shapes: `mask` the agents that fail for it, `detail` a sentence; `hint(row)` would make that agent pass.

    `room` ranks the failing agents, most room first; None when none is nearer than another. `of_agent` tells that the
    agent takes nothing new at all.
    """

    reason: str
    mask: Mask
    detail: Callable[[int], str]
    hint: Callable[[int], str]
    room: Column | None = None
    of_agent: bool = False


def explain(nodes: Nodes, placement: Placement, view: WantView, waiting: int) -> Explanation:
    """Shapes: at most MOST_REFUSALS refusals, the most frequent first, and MOST_HINTS hints."""
    causes = [c for c in _causes(nodes, placement) if c.mask.any()]
    fails = np.zeros(len(nodes), dtype=np.int64)
    for cause in causes:
        fails += cause.mask
    refusals, hints = [], []
    for cause in causes:
        shown = cause.mask if cause.of_agent else cause.mask & nodes.eligible
        if not shown.any():
            continue
        best = _nearest(shown, fails, cause.room)
        refusals.append(
            Refusal(
                reason=cause.reason,
                detail=cause.detail(best),
                agents=int(shown.sum()),
                best=nodes.agents[best].hostname,
            )
        )
        if fails[best] == 1:
            hints.append(cause.hint(best))
    refusals.sort(key=lambda r: -r.agents)
    return Explanation(
        want_id=view.want.id,
        framework_id=view.framework_id,
        role=view.want.role,
        waiting=waiting,
        since_at=view.since_at,
        agents=len(nodes),
        refusals=tuple(refusals[:MOST_REFUSALS]),
        fits_if=tuple(hint for hint in hints if hint)[:MOST_HINTS],
        never=len(nodes) > 0 and not _could_hold(nodes, placement.shape).any(),
    )


def _nearest(mask: Mask, fails: Column, room: Column | None) -> int:
    """The failing agent with the fewest other reasons, then the most room."""
    rows = np.flatnonzero(mask)
    rows = rows[fails[rows] == fails[rows].min()]
    return int(rows[0] if room is None else rows[room[rows].argmax()])


def _causes(nodes: Nodes, placement: Placement) -> Iterator[_Cause]:
    shape = placement.shape
    yield from _missing_scalars(nodes, shape)
    yield from _missing_ports(nodes, shape)
    yield from _broken_constraints(nodes, placement)
    if shape.key.runtime:
        runtime = shape.key.runtime
        yield _Cause(
            "runtime",
            ~runtime_mask(nodes, runtime),
            lambda row: f"wants the runtime {runtime}, {_name(nodes, row)} runs {_listed(nodes.agents[row].runtimes)}",
            lambda row: f"runtime {' or '.join(nodes.agents[row].runtimes)}" if nodes.agents[row].runtimes else "",
        )
    if placement.refused:
        yield _Cause(
            "filtered",
            placement.refused_mask(),
            lambda row: f"the framework refused such an offer of {_name(nodes, row)} a while ago",
            lambda row: f"the filter on {_name(nodes, row)} expires",
        )
    yield from _ineligible(nodes)


def _ineligible(nodes: Nodes) -> Iterator[_Cause]:
    for word in sorted({agent.ineligible for agent in nodes.agents if agent.ineligible}):

        def detail(row: int, word: str = word) -> str:
            return f"{_name(nodes, row)} takes nothing new: {word}"

        def hint(row: int, word: str = word) -> str:
            return f"{_name(nodes, row)} is no longer {word}"

        mask = np.array([agent.ineligible == word for agent in nodes.agents], dtype=bool)
        yield _Cause(word, mask, detail, hint, of_agent=True)


def _missing_scalars(nodes: Nodes, shape: Shape) -> Iterator[_Cause]:
    for name, milli in shape.milli.items():
        column = nodes.free[name]

        def detail(row: int, name: str = name, milli: int = milli, column: Column = column) -> str:
            most = format_milli(int(column[row]))
            return f"wants {name} {format_milli(milli)}, the most free is {most} on {_name(nodes, row)}"

        def hint(row: int, name: str = name, column: Column = column) -> str:
            return f"{name} ≤ {format_milli(int(column[row]))}" if column[row] > 0 else ""

        yield _Cause(name, column < milli, detail, hint, column)


def _missing_ports(nodes: Nodes, shape: Shape) -> Iterator[_Cause]:
    if shape.port_count:
        counts = nodes.free[PORTS]
        fixed = count_range(shape.fixed_ports)
        yield _Cause(
            PORTS,
            counts < shape.port_count,
            lambda row: f"wants {shape.port_count} ports, the most free are {counts[row]} on {_name(nodes, row)}",
            lambda row: f"ports ≤ {counts[row]}" if counts[row] > fixed else "",
            counts,
        )
    for resource in shape.others:
        lacking = np.array([not contains(nodes.rest(row), (resource,)) for row in range(len(nodes))], dtype=bool)

        def detail(row: int, resource: Resource = resource) -> str:
            return f"wants {_lacking(nodes, row, resource)}, which {_name(nodes, row)} does not have free"

        def hint(row: int, resource: Resource = resource) -> str:
            return f"{_lacking(nodes, row, resource)} is free on {_name(nodes, row)}"

        yield _Cause("port taken" if resource.name == PORTS else resource.name, lacking, detail, hint)


def _lacking(nodes: Nodes, row: int, resource: Resource) -> str:
    """What of a range or set the agent has not free, as people write it."""
    if resource.name != PORTS:
        return describe((resource,))
    taken = cut_ranges(resource.ranges, nodes.ports(row))
    return "port " + ",".join(f"{a}-{b}" if a != b else str(a) for a, b in taken)


def _broken_constraints(nodes: Nodes, placement: Placement) -> Iterator[_Cause]:
    masks = [(each, constraint_mask(nodes, each)) for each in placement.shape.key.constraints]
    masks += [(each, counting_mask(nodes, each, placement.group, placement.group_size)) for each in placement.counting]
    for constraint, allowed in masks:
        text = constraints.describe(constraint)

        def detail(row: int, text: str = text, field: str = constraint.field) -> str:
            ids, texts = nodes.values(field)
            found = texts[ids[row]] if ids[row] >= 0 else "no such attribute"
            return f"constraint {text}; {_name(nodes, row)} has {found}"

        def hint(row: int, text: str = text) -> str:
            return f"without the constraint {text}"

        yield _Cause("constraint", ~allowed, detail, hint)


def _could_hold(nodes: Nodes, shape: Shape) -> Mask:
    """The agents that would hold one instance if they were empty and took work."""
    mask = np.ones(len(nodes), dtype=bool)
    for name, milli in shape.milli.items():
        mask &= nodes.total[name] >= milli
    if shape.port_count:
        mask &= nodes.total[PORTS] >= shape.port_count
    if shape.key.runtime:
        mask &= runtime_mask(nodes, shape.key.runtime)
    for constraint in shape.key.constraints:
        mask &= constraint_mask(nodes, constraint)
    if shape.others:
        for row in np.flatnonzero(mask):
            mask[row] = contains(nodes.agents[int(row)].total, shape.others)
    return mask


def _name(nodes: Nodes, row: int) -> str:
    return nodes.agents[row].hostname


def _listed(words: tuple[str, ...]) -> str:
    return ", ".join(words) or "nothing"
