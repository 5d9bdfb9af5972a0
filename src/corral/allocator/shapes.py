"""Where an instance fits: one mask of agents per shape, one pick per want.

Wants of equal shape share a mask. A row only ever leaves it during a run, because nothing is given back, so a shape
found to fit nowhere is settled for all of its wants.
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec
import numpy as np

from corral.allocator.filters import refuses
from corral.allocator.nodes import GPUS, PORTS, Mask, Nodes
from corral.allocator.ports import choose_ports, start_offset
from corral.allocator.strategies import SIBLING, STRATEGIES, Column
from corral.model.constraints import Constraint, Operator, allows, is_counting
from corral.model.ids import AgentId
from corral.model.offer import Want
from corral.model.resources import (
    PLAIN,
    Resource,
    ResourceKind,
    Resources,
    all_ranges,
    contains,
    count_range,
    cut_ranges,
    normal,
    ports,
)

NOWHERE = np.iinfo(np.int64).max
_MANY_ROWS = 48  # beyond this a whole column is compared faster than row by row


class ShapeKey(msgspec.Struct, frozen=True):
    """What makes two wants fit on the same agents."""

    resources: Resources
    ports: int
    fixed_ports: tuple[int, ...]
    runtime: str
    constraints: tuple[Constraint, ...]


def shape_key(want: Want) -> ShapeKey:
    fixed = tuple(c for c in want.constraints if not is_counting(c)) if want.constraints else ()
    return ShapeKey(want.resources, want.ports, want.fixed_ports, want.runtime, fixed)


class Shape:
    """One instance's demand, and the mask of agents that can hold it now.

    Shapes: `scalars` plain and canonical; `others` are ranges and sets that must be free as they are, fixed ports among
    them; `port_count` counts fixed and dynamic ports.
    """

    def __init__(self, nodes: Nodes, key: ShapeKey) -> None:
        self.key = key
        plain = normal(r if r.identity is PLAIN else msgspec.structs.replace(r, identity=PLAIN) for r in key.resources)
        fixed = (ports(*((p, p) for p in key.fixed_ports)),) if key.fixed_ports else ()
        self.scalars: tuple[Resource, ...] = tuple(r for r in plain if r.kind is ResourceKind.SCALAR)
        self.others: Resources = normal((*(r for r in plain if r.kind is not ResourceKind.SCALAR), *fixed))
        self.milli = {r.name: r.milli for r in self.scalars}
        self.fixed_ports = all_ranges(self.others, PORTS)
        self.port_count = key.ports + count_range(self.fixed_ports)
        self.wants_gpus = GPUS in self.milli
        self._nodes = nodes
        self._needs = [(nodes.free[name], milli) for name, milli in self.milli.items()]
        if self.port_count:
            self._needs.append((nodes.free[PORTS], self.port_count))
        self._seen = 0
        self._mask: Mask | None = None

    def mask(self) -> Mask:
        """The agents that can hold one instance now; counting constraints and filters are another matter."""
        touched = self._nodes.touched
        if self._mask is None or len(touched) - self._seen > _MANY_ROWS:
            before = static_mask(self._nodes, self.key) if self._mask is None else self._mask
            self._mask = self._compare(before)
        else:
            for row in touched[self._seen :]:
                if self._mask[row]:
                    self._mask[row] = self._holds(row)
        self._seen = len(touched)
        return self._mask

    def bundle(self, row: int, seed: int) -> Resources:
        """The resources of one instance on this agent, its ports chosen."""
        rest: tuple[Resource, ...] = self.others
        if self.key.ports:
            free = cut_ranges(self._nodes.ports(row), self.fixed_ports)
            offset = start_offset(seed, len(self._nodes.touched), count_range(free))
            chosen = choose_ports(free, self.key.ports, offset)
            rest = (*self.others, ports(*chosen))
        return normal((*self.scalars, *rest)) if rest else self.scalars

    def _compare(self, before: Mask) -> Mask:
        mask = before.copy()
        for column, least in self._needs:
            mask &= column >= least
        if self.others:
            for row in np.flatnonzero(mask):
                mask[row] = contains(self._nodes.rest(int(row)), self.others)
        return mask

    def _holds(self, row: int) -> bool:
        for column, least in self._needs:
            if column[row] < least:
                return False
        return not self.others or contains(self._nodes.rest(row), self.others)


def runtime_mask(nodes: Nodes, runtime: str) -> Mask:
    return np.array([not runtime or runtime in agent.runtimes for agent in nodes.agents], dtype=bool)


def constraint_mask(nodes: Nodes, constraint: Constraint) -> Mask:
    """The agents that a constraint allows which looks at the agent alone."""
    ids, texts = nodes.values(constraint.field)
    by_value = [allows(constraint, text, (), len(texts), 0) for text in texts]
    # Number -1, an agent without the field, finds the last entry.
    return np.array([*by_value, allows(constraint, None, (), len(texts), 0)], dtype=bool)[ids]


def static_mask(nodes: Nodes, key: ShapeKey) -> Mask:
    """The agents that could ever be asked: taking work, with the runtime, allowed by the constraints."""
    mask = nodes.eligible.copy()
    if key.runtime:
        mask &= runtime_mask(nodes, key.runtime)
    for constraint in key.constraints:
        mask &= constraint_mask(nodes, constraint)
    return mask


class Group:
    """The instances that counting constraints and `spread` look at, those given in this run included.

    Shapes: `rows` of the known agents in the order of placement.
    """

    def __init__(self, nodes: Nodes, placed: Iterable[AgentId]) -> None:
        self._nodes = nodes
        self.rows = [nodes.rows[agent_id] for agent_id in placed if agent_id in nodes.rows]
        self._weight: Column | None = None
        self._counts: dict[str, Column] = {}

    def add(self, row: int) -> None:
        self.rows.append(row)
        if self._weight is not None:
            self._weight[row] += SIBLING
        for field, counts in self._counts.items():
            number = self._nodes.values(field)[0][row]
            if number >= 0:
                counts[number] += 1

    def weight(self) -> Column | None:
        """What siblings add to each row's score; None as long as there are none."""
        if self._weight is None and self.rows:
            self._weight = np.bincount(self.rows, minlength=len(self._nodes)) * SIBLING
        return self._weight

    def counts(self, field: str) -> Column:
        """How many siblings each value of a field has, by the value's number."""
        found = self._counts.get(field)
        if found is None:
            ids, texts = self._nodes.values(field)
            there = ids[self.rows]
            found = self._counts[field] = np.bincount(there[there >= 0], minlength=len(texts))
        return found


def counting_mask(nodes: Nodes, constraint: Constraint, group: Group, group_size: int) -> Mask:
    """As `constraints.allows` says for each agent, for all agents at once."""
    ids, texts = nodes.values(constraint.field)
    counts = group.counts(constraint.field)
    match constraint.operator:
        case Operator.UNIQUE:
            allowed = counts == 0
        case Operator.MAX_PER:
            allowed = counts < (constraint.count or 0)
        case Operator.CLUSTER:
            wanted = constraint.values[0] if constraint.values else _first_value(ids, texts, group)
            allowed = np.array([wanted is None or text == wanted for text in texts], dtype=bool)
        case _:
            groups = constraint.count or len(texts)
            share, rest = divmod(group_size, max(groups, 1))
            fuller = int((counts > share).sum())
            evens_out = (counts < share) | ((counts == share) & (fuller < rest))
            is_open = int((counts > 0).sum()) < groups
            allowed = np.where(counts > 0, evens_out, is_open)
    return np.append(allowed, False)[ids]


def _first_value(ids: Column, texts: Sequence[str], group: Group) -> str | None:
    return next((texts[ids[row]] for row in group.rows if ids[row] >= 0), None)


class Placement:
    """A want in search of agents: its shape, its siblings, who asks and what that framework refused."""

    def __init__(
        self,
        nodes: Nodes,
        shape: Shape,
        group: Group,
        want: Want,
        missing: int,
        refused: Mapping[AgentId, list[Resources]],
    ) -> None:
        self.shape = shape
        self.group = group
        self.counting = tuple(c for c in want.constraints if is_counting(c)) if want.constraints else ()
        self.group_size = want.group_size or len(group.rows) + missing
        self.refused = refused
        self._nodes = nodes
        self._strategy = want.strategy if want.strategy in STRATEGIES else "spread"
        self._refused_mask: Mask | None = None

    def mask(self) -> Mask:
        """The agents that may take one instance now."""
        mask = self.shape.mask()
        if self.refused:
            mask = mask & ~self.refused_mask()
        for constraint in self.counting:
            mask = mask & counting_mask(self._nodes, constraint, self.group, self.group_size)
        return mask

    def refused_mask(self) -> Mask:
        if self._refused_mask is None:
            self._refused_mask = np.zeros(len(self._nodes), dtype=bool)
            for agent_id, bundles in self.refused.items():
                row = self._nodes.rows.get(agent_id)
                if row is not None:
                    self._refused_mask[row] = refuses(bundles, self.shape.scalars)
        return self._refused_mask

    def take(self, row: int, seed: int) -> Resources:
        """Place one instance there; returns its resources, the ports chosen."""
        bundle = self.shape.bundle(row, seed)
        self._nodes.take(row, bundle)
        self.group.add(row)
        return bundle

    def pick(self) -> int | None:
        """The row that suits best, None when nothing fits."""
        mask = self.mask()
        if not mask.any():
            return None
        scores = self._nodes.scores(self._strategy)
        if self._strategy == "spread":
            weight = self.group.weight()
            if weight is not None:
                scores = scores + weight
        if self._nodes.gpu_penalty is not None and not self.shape.wants_gpus:
            scores = scores + self._nodes.gpu_penalty
        return int(np.where(mask, scores, NOWHERE).argmin())
