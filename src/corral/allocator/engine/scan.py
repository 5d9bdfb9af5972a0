"""What kernels do otherwise when they are not compiled: the same answers as in `search`, `fair` and `cells`, by means
that cost Python less (NumPy over all nodes).
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from corral.allocator.engine.columns import (
    ABSENT,
    ALIGNED,
    BELOW,
    BINPACK,
    CELLS,
    CLEAR,
    DEVICES,
    FIELDS,
    FORBIDDEN,
    LEAST_TASKS,
    MOST_FIRST,
    MOST_SECOND,
    NEAR,
    NODES,
    RANDOM,
    RESOURCES,
    RULES,
    SEED,
    SIGNATURES,
    TABLE,
    TARGET,
    WASTEFUL,
    Classes,
    Heaps,
    Ints,
    Lines,
    Nodes,
    Roles,
    Tallies,
)
from corral.allocator.engine.rules import BROKEN, MOST_FILL
from corral.allocator.engine.search import (
    ALIKE,
    CHANCES,
    COST,
    MOST_SIBLINGS,
    MOST_TASKS,
    PARTS,
    PRIME,
    TIER,
    WASTE,
)

Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


class Columns(NamedTuple):
    """The nodes as NumPy sees them. Shapes: a row per node."""

    free: Rows
    cell: Rows
    signature: Rows
    domain: Rows
    gpu: Rows
    tasks: Rows
    version: Rows


def columns_of(n: Nodes, meta: Ints) -> Columns:
    """The columns of all node rows, those of nodes that left included."""
    nodes = meta[NODES]
    return Columns(
        np.asarray(n.free).reshape(-1, meta[RESOURCES])[:nodes],
        np.asarray(n.cell)[:nodes],
        np.asarray(n.signature)[:nodes],
        np.asarray(n.domain).reshape(-1, meta[FIELDS])[:nodes],
        np.asarray(n.gpu).reshape(-1, meta[DEVICES])[:nodes],
        np.asarray(n.tasks)[:nodes],
        np.asarray(n.version)[:nodes],
    )


def counts_of(t: Tallies, domains: Rows, tally: int) -> tuple[Rows, Rows]:
    """What a tally says of each row, and the row's domain."""
    there = domains[:, t.field[tally]]
    return np.asarray(t.counts)[t.at[tally] + there], there


def passing(t: Tallies, domains: Rows, kind: int, tally: int, bound: int) -> Mask:
    """Which rows a rule allows; as `rules.passes`."""
    counts, there = counts_of(t, domains, tally)
    found: Mask
    if kind == TABLE:
        found = counts == 0
    elif kind == CLEAR:
        found = (there == ABSENT) | (counts == 0)
    elif kind == BELOW:
        found = (there != ABSENT) & (counts < bound)
    elif kind == NEAR:
        found = (there != ABSENT) & ((counts > 0) | (bound != 0 and t.total[tally] == 0))
    else:
        share = t.share[tally]
        evens = (counts < share) | ((counts == share) & (t.fuller[tally] < t.rest[tally]))
        found = (there != ABSENT) & np.where(counts == 0, t.used[tally] < t.groups[tally], evens)
    return found


def having_room(all: Columns, k: Classes, meta: Ints, cls: int) -> Rows:
    """The rows that are open and have the amounts free."""
    resources = meta[RESOURCES]
    ask = k.shape[cls * (resources + 1) : cls * (resources + 1) + resources]
    rows = np.flatnonzero(all.cell >= 0 if ask[0] <= 0 else (all.cell >= 0) & (all.free[:, 0] >= ask[0]))
    for d in range(1, resources):
        if ask[d] > 0:
            rows = rows[all.free[rows, d] >= ask[d]]
    return rows


def fitting(all: Columns, t: Tallies, k: Classes, meta: Ints, cls: int) -> Rows:
    """The rows that one instance fits on, whatever their tier."""
    rows = having_room(all, k, meta, cls)
    if k.gpus[cls] > 0:
        rows = rows[(all.gpu[rows] >= k.part[cls]).sum(axis=1) >= k.gpus[cls]]
    for i in range(cls * RULES, cls * RULES + k.rules[cls]):
        if len(rows) == 0:
            break
        rows = rows[passing(t, all.domain[rows], k.rule[i * 4], k.rule[i * 4 + 1], k.rule[i * 4 + 2])]
    return rows


def tiers_of(all: Columns, k: Classes, meta: Ints, rows: Rows, cls: int) -> Rows:
    signatures = meta[SIGNATURES]
    found: Rows = np.asarray(k.tier)[cls * signatures : (cls + 1) * signatures][all.signature[rows]]
    return found & WASTEFUL if k.fine[cls] != 0 else found


def find_exact(n: Nodes, t: Tallies, k: Classes, meta: Ints, cls: int) -> int:
    """The best of all nodes by `rank_of`, the first of equals; -1 when the class fits nowhere."""
    all = columns_of(n, meta)
    rows = fitting(all, t, k, meta, cls)
    if len(rows) == 0:
        return -1
    tiers = tiers_of(all, k, meta, rows, cls)
    cells = all.cell[rows]
    ranks = tiers * TIER + (cells if k.spread[cls] == 0 else CELLS - 1 - cells)
    if k.siblings[cls] >= 0:
        ranks = ranks + counts_of(t, all.domain[rows], k.siblings[cls])[0] * CELLS
    ranks = np.where(tiers >= FORBIDDEN, np.iinfo(np.int64).max, ranks)
    best = int(ranks.argmin())
    return int(rows[best]) if tiers[best] < FORBIDDEN else -1


def find_scored(n: Nodes, t: Tallies, k: Classes, meta: Ints, cls: int) -> int:
    """The best of all nodes by `score_of`, the first of equals; -1 when the class fits nowhere."""
    all = columns_of(n, meta)
    rows = fitting(all, t, k, meta, cls)
    if k.fine[cls] != 0:
        rows = np.intersect1d(rows, k.listed[k.begin[cls] : k.end[cls]], assume_unique=True)
    if len(rows) == 0:
        return -1
    tiers = tiers_of(all, k, meta, rows, cls)
    scores = tiers * WASTE + costs_of(all, t, k, rows, cls) * COST + bases_of(all, t, k, meta, rows, cls)
    scores = np.where(tiers >= FORBIDDEN, np.iinfo(np.int64).max, scores)
    best = int(scores.argmin())
    return int(rows[best]) if tiers[best] < FORBIDDEN else -1


def costs_of(all: Columns, t: Tallies, k: Classes, rows: Rows, cls: int) -> Rows:
    """As `rules.soft_cost`, for each row."""
    costs = np.zeros(len(rows), dtype=np.int64)
    for i in range(cls * RULES, cls * RULES + k.softs[cls]):
        kind, tally, bound, weight = k.soft[i * 4 : i * 4 + 4]
        if kind == TARGET:
            counts, there = counts_of(t, all.domain[rows], tally)
            targets = np.asarray(t.counts)[t.at[bound] + there]
            fill = np.minimum(counts * 1000 // np.maximum(targets, 1), MOST_FILL)
            costs += weight * np.where(targets > 0, fill, MOST_FILL)
        else:
            costs += weight * BROKEN * ~passing(t, all.domain[rows], kind, tally, bound)
    return costs


def bases_of(all: Columns, t: Tallies, k: Classes, meta: Ints, rows: Rows, cls: int) -> Rows:
    """The part of `score_of` that follows from the strategy, for each row."""
    strategy = k.scored[cls]
    if strategy == RANDOM:
        chance = (rows * 48271 + meta[SEED] * 69621 + 12345) % PRIME
        return np.asarray((chance * 16807 % PRIME * 48271 % PRIME) % CHANCES)
    if strategy == LEAST_TASKS:
        return np.minimum(all.tasks[rows], MOST_TASKS)
    free = all.free[rows]
    if strategy == ALIGNED:
        found = np.full(len(rows), MOST_TASKS, dtype=np.int64)
        for d, most in ((0, meta[MOST_FIRST]), (1, meta[MOST_SECOND])):
            found -= (k.shape[cls * (meta[RESOURCES] + 1) + d] * ALIKE // most) * (free[:, d] * ALIKE // most)
        return found
    parts = (
        np.maximum(free[:, 0], 0) * PARTS // meta[MOST_FIRST] + np.maximum(free[:, 1], 0) * PARTS // meta[MOST_SECOND]
    )
    if strategy == BINPACK:
        return np.asarray(parts)
    near = np.zeros(len(rows), dtype=np.int64)
    if k.siblings[cls] >= 0:
        near = np.minimum(counts_of(t, all.domain[rows], k.siblings[cls])[0], MOST_SIBLINGS)
    return np.asarray(near * 4 * PARTS + 2 * PARTS - parts)


def collect_bits(h: Heaps, r: Roles, lines: Lines, leaf: int) -> None:
    """As `fair.collect_bits`, with one word for all classes."""
    word, line = 0, r.first[leaf]
    while line >= 0:
        if lines.blocked[line] < 0:
            word |= 1 << lines.cls[line]
        line = lines.next[line]
    h.bits[leaf] = word
