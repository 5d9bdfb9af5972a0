"""The simulation's own count of who holds what, kept apart from the allocator's to find out where the two disagree.

What is placed must fit, GPU by GPU, on an agent that takes new work and that the want's constraints allow; whatever is
broken is an error of the allocator and ends the simulation. Units: thousandths of resources.
"""

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

from corral.allocator.packing import WHOLE
from corral.allocator.view import AgentView
from corral.lib.errors import Failed
from corral.model.constraints import Constraint, allows, describe, field_value, is_counting, looks_at_tasks
from corral.model.ids import AgentId
from corral.model.offer import Want
from corral.model.resources import (
    ResourceKind,
    Resources,
    all_ranges,
    contains,
    cut_ranges,
    format_milli,
    subtract,
    total_milli,
)
from corral.model.resources import add as together

GPUS = "gpus"

Ints = npt.NDArray[np.int64]


class Row:
    """One agent. Shapes: `gpus` is what is free of each GPU; `held` is told apart by task."""

    __slots__ = ("gpus", "held", "row", "shrunk", "view")

    def __init__(self, view: AgentView, row: int) -> None:
        self.view = view
        self.row = row
        self.held: dict[str, tuple[Resources, tuple[int, ...]]] = {}
        self.gpus = _whole_gpus(view)
        self.shrunk = False


def _whole_gpus(view: AgentView) -> list[int]:
    return [WHOLE] * (total_milli(view.total, GPUS) // WHOLE)


class Books:
    """Shapes: columns by row, one row per agent ever seen; `free` by resource, `gpus` free by GPU, `open` for new work.

    `total` is what all agents that are there have.
    """

    def __init__(self) -> None:
        self.rows: dict[AgentId, Row] = {}
        self.views: list[AgentView] = []
        self.free: dict[str, Ints] = {}
        self.total: dict[str, int] = {}
        self.gpus: Ints = np.zeros((0, 0), dtype=np.int64)
        self.open: npt.NDArray[np.bool_] = np.zeros(0, dtype=np.bool_)
        self.version = 0

    def set_agent(self, view: AgentView) -> None:
        known = self.rows.get(view.id)
        if known is None:
            known = self.rows[view.id] = Row(view, len(self.views))
            self.views.append(view)
        else:
            self._count_total(known.view, -1)
            known.shrunk = known.shrunk or not contains(view.total, known.view.total)
            known.view = self.views[known.row] = view
            known.gpus = _whole_gpus(view)
            for resources, devices in known.held.values():
                _take_gpus(known, resources, devices, -1)
        self._count_total(view, 1)
        self._show(known)
        self.version += 1

    def remove_agent(self, agent_id: AgentId) -> list[str]:
        """Shapes: returns the tasks that were there."""
        row = self.rows.pop(agent_id, None)
        if row is None:
            return []
        self._count_total(row.view, -1)
        for column in self.free.values():
            column[row.row] = 0
        self.gpus[row.row] = 0
        self.open[row.row] = False
        self.version += 1
        return list(row.held)

    def start(self, task: str, want: Want, agent_id: AgentId, resources: Resources, devices: tuple[int, ...]) -> None:
        """Errors: `Failed` names the law that this placement breaks."""
        row = self.rows.get(agent_id)
        if row is None:
            raise Failed(f"the allocator put {task} on agent {agent_id}, which is not there")
        view = row.view
        where = f"the allocator put {task} on agent {agent_id}"
        if view.ineligible:
            raise Failed(f"{where}, which takes nothing new: it is {view.ineligible}")
        broken = next((c for c in want.constraints if not may_hold(c, view)), None)
        if broken is not None:
            raise Failed(f"{where}, which {describe(broken)} forbids")
        self._check_amounts(where, row, want, resources)
        devices = devices or _choose_gpus(row, total_milli(resources, GPUS))
        _take_gpus(row, resources, devices, -1)
        if any(free < 0 for free in row.gpus):
            raise Failed(f"{where}, whose GPUs {devices} have not that much left")
        row.held[task] = (resources, devices)
        for r in resources:
            if r.kind is ResourceKind.SCALAR:
                self.free[r.name][row.row] -= r.milli
        if devices:
            self.gpus[row.row, : len(row.gpus)] = row.gpus

    def end(self, task: str, agent_id: AgentId) -> None:
        row = self.rows[agent_id]
        resources, devices = row.held.pop(task)
        _take_gpus(row, resources, devices, 1)
        for r in resources:
            if r.kind is ResourceKind.SCALAR:
                self.free[r.name][row.row] += r.milli
        if devices:
            self.gpus[row.row, : len(row.gpus)] = row.gpus

    def used(self, name: str) -> int:
        """What tasks hold of a resource on agents that are there."""
        return self.total.get(name, 0) - int(self.free[name].sum()) if name in self.free else 0

    def check(self, holds: Mapping[AgentId, Resources] | None = None) -> None:
        """Count everything anew. Shapes: `holds` is what the allocator says that tasks hold, by agent.

        Errors: `Failed` names the agent and both counts.
        """
        for agent_id, row in self.rows.items():
            held = together(*(resources for resources, _ in row.held.values()))
            for name, column in self.free.items():
                counted = total_milli(row.view.total, name) - total_milli(held, name)
                if counted != column[row.row]:
                    raise Failed(f"agent {agent_id} has {name} {counted} free but {column[row.row]} is in the columns")
            if not row.shrunk and not contains(row.view.total, held):
                raise Failed(f"agent {agent_id} has {row.view.total} but its tasks hold {held}")
            if holds is not None and holds.get(agent_id, ()) != held:
                raise Failed(f"tasks hold {held} on agent {agent_id} but the allocator counts {holds.get(agent_id)}")

    def _check_amounts(self, where: str, row: Row, want: Want, resources: Resources) -> None:
        for asked in want.resources:
            if total_milli(resources, asked.name) != asked.milli:
                found = format_milli(total_milli(resources, asked.name))
                raise Failed(f"{where} with {asked.name} {found} but {format_milli(asked.milli)} was asked")
        for r in resources:
            if r.kind is ResourceKind.SCALAR and self.free[r.name][row.row] < r.milli:
                free = format_milli(int(self.free[r.name][row.row]))
                raise Failed(f"{where} with {r.name} {format_milli(r.milli)} but only {free} is free")
        spans = all_ranges(resources, "ports")
        if spans:
            held = together(*(resources for resources, _ in row.held.values()))
            left = cut_ranges(all_ranges(row.view.total, "ports"), all_ranges(held, "ports"))
            if cut_ranges(spans, left):
                raise Failed(f"{where} with ports {spans} but only {left} are free")

    def _count_total(self, view: AgentView, sign: int) -> None:
        for r in view.total:
            if r.kind is ResourceKind.SCALAR:
                self.total[r.name] = self.total.get(r.name, 0) + sign * r.milli

    def _show(self, row: Row) -> None:
        """Write an agent into the columns, which grow as needed."""
        rows = len(self.views)
        if len(self.open) < rows:
            grown = max(rows, 2 * len(self.open))
            self.free = {name: _grow(column, grown) for name, column in self.free.items()}
            self.open = np.append(self.open, np.zeros(grown - len(self.open), dtype=np.bool_))
        for r in row.view.total:
            if r.kind is ResourceKind.SCALAR and r.name not in self.free:
                self.free[r.name] = np.zeros(len(self.open), dtype=np.int64)
        wide = max(self.gpus.shape[1], len(row.gpus))
        if self.gpus.shape[0] < len(self.open) or self.gpus.shape[1] < wide:
            gpus = np.zeros((len(self.open), wide), dtype=np.int64)
            gpus[: self.gpus.shape[0], : self.gpus.shape[1]] = self.gpus
            self.gpus = gpus
        held = together(*(resources for resources, _ in row.held.values()))
        left = subtract(row.view.total, held)
        for name, column in self.free.items():
            column[row.row] = total_milli(left, name)
        self.gpus[row.row] = 0
        self.gpus[row.row, : len(row.gpus)] = row.gpus
        self.open[row.row] = not row.view.ineligible


def _grow(column: Ints, rows: int) -> Ints:
    return np.append(column, np.zeros(max(0, rows - len(column)), dtype=np.int64))


def may_hold(constraint: Constraint, view: AgentView) -> bool:
    """Whether the agent may do by this constraint, wherever the siblings are."""
    if is_counting(constraint) or looks_at_tasks(constraint) or constraint.weight:
        return True
    return allows(constraint, field_value(constraint.field, view.hostname, view.attributes), (), 0, 0)


def _choose_gpus(row: Row, milli: int) -> tuple[int, ...]:
    """The fullest GPU that has it, or whole ones; none when the agent has none that do, which is an error then."""
    if milli == 0:
        return ()
    if milli < WHOLE:
        fitting = [(free, number) for number, free in enumerate(row.gpus) if free >= milli]
        return (min(fitting)[1] if fitting else 0,)
    whole = [number for number, free in enumerate(row.gpus) if free == WHOLE]
    return tuple(whole[: milli // WHOLE]) or (0,)


def _take_gpus(row: Row, resources: Resources, devices: Iterable[int], sign: int) -> None:
    devices = tuple(devices)
    if not devices:
        return
    each = total_milli(resources, GPUS) // len(devices)
    for number in devices:
        if number < len(row.gpus):
            row.gpus[number] += sign * each
