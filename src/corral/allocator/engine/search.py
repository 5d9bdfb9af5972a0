"""Which node an instance goes to: a bounded walk over cells, then an exact pass before a class is said to fit nowhere.

Walks go from the tightest cell, or the roomiest to spread. A class that fits nowhere is dead: it is tried again only on
nodes that were freed since, or when a tally it reads has changed.
"""

from corral.allocator.engine.cells import top_bit
from corral.allocator.engine.columns import (
    ALIGNED,
    BINPACK,
    BITS,
    CELLS,
    DEAD,
    DEAD_ROWS,
    FIELDS,
    FORBIDDEN,
    HINTED,
    HINTS,
    LEAST_TASKS,
    LEVELS,
    LIVE,
    MOST_FIRST,
    MOST_SECOND,
    NODES,
    RANDOM,
    REMEMBER,
    RESOURCES,
    RULES,
    SCANS,
    SEED,
    SIGNATURES,
    TOUCHED,
    WALK,
    WALKED,
    WASTEFUL,
    Cells,
    Classes,
    Heaps,
    Ints,
    Nodes,
    Tallies,
)
from corral.allocator.engine.rules import soft_cost, suits

IN_CELL = 8
"""How many nodes of one cell a walk tries."""

WORST = 1 << 62
CUT = -2
"""A walk's answer when it left nodes untried."""

ANY_LEVEL = 1 << 40
TIER = 1 << 40
"""What a wasteful node has in its rank: more than any number of siblings."""

PARTS = 1 << 19
"""How finely the free part of a node is told apart in scores."""

ALIKE = 1 << 10
MOST_TASKS = (1 << 26) - 1
MOST_SIBLINGS = 31
CHANCES = 1 << 26
PRIME = 2147483647
COST = 1 << 27
"""What a score counts more than free amounts: cost of soft rules."""

WASTE = 1 << 60


def fits(n: Nodes, t: Tallies, k: Classes, meta: Ints, node: int, cls: int, level: int) -> bool:
    """Whether an eligible node may take one instance, if it has at most `level` of its siblings."""
    if n.cell[node] < 0:
        return False
    resources = meta[RESOURCES]
    at, ask = node * resources, cls * (resources + 1)
    free, shape = n.free, k.shape
    for d in range(resources):
        asked = shape[ask + d]
        # A node may be short of what the instance does not ask.
        if asked > free[at + d] and asked > 0:
            return False
    return k.extra[cls] == 0 or suits(n, t, k, meta, node, cls, level)


def siblings_on(n: Nodes, t: Tallies, k: Classes, fields: int, node: int, cls: int) -> int:
    """How many instances that spreading keeps apart are there."""
    tally = k.siblings[cls]
    if tally < 0:
        return 0
    return t.counts[t.at[tally] + n.domain[node * fields + t.field[tally]]]


def names(k: Classes, node: int, cls: int) -> bool:
    """Whether a class that names its nodes one by one (in order) names this one."""
    low, high = k.begin[cls], k.end[cls]
    while low < high:
        middle = (low + high) >> 1
        if k.listed[middle] < node:
            low = middle + 1
        else:
            high = middle
    return low < k.end[cls] and k.listed[low] == node


def rank_of(n: Nodes, t: Tallies, k: Classes, meta: Ints, node: int, cls: int) -> int:
    """How little a node suits a class; the lowest wins, FORBIDDEN * CELLS and more never."""
    cell = n.cell[node]
    if k.spread[cls] != 0:
        cell = CELLS - 1 - cell
    tier = k.tier[cls * meta[SIGNATURES] + n.signature[node]]
    if k.fine[cls] != 0:
        tier = tier & WASTEFUL
    elif tier >= FORBIDDEN:
        return WORST
    return siblings_on(n, t, k, meta[FIELDS], node, cls) * CELLS + tier * TIER + cell


def free_part(n: Nodes, meta: Ints, node: int) -> int:
    """How much of the largest node this one has free, by its first two resources."""
    at = node * meta[RESOURCES]
    return max(0, n.free[at]) * PARTS // meta[MOST_FIRST] + max(0, n.free[at + 1]) * PARTS // meta[MOST_SECOND]


def score_of(n: Nodes, t: Tallies, k: Classes, meta: Ints, node: int, cls: int) -> int:
    """How little a node suits a class that is judged by more than its cell; WORST never."""
    tier = k.tier[cls * meta[SIGNATURES] + n.signature[node]]
    if k.fine[cls] != 0:
        tier = tier & WASTEFUL
    elif tier >= FORBIDDEN:
        return WORST
    score = tier * WASTE + soft_cost(n, t, k, meta[FIELDS], node, cls) * COST
    strategy = k.scored[cls]
    if strategy == RANDOM:
        chance = (node * 48271 + meta[SEED] * 69621 + 12345) % PRIME
        return score + (chance * 16807 % PRIME * 48271 % PRIME) % CHANCES
    if strategy == LEAST_TASKS:
        return score + min(n.tasks[node], MOST_TASKS)
    if strategy == ALIGNED:
        at, ask = node * meta[RESOURCES], cls * (meta[RESOURCES] + 1)
        first = (k.shape[ask] * ALIKE // meta[MOST_FIRST]) * (n.free[at] * ALIKE // meta[MOST_FIRST])
        second = (k.shape[ask + 1] * ALIKE // meta[MOST_SECOND]) * (n.free[at + 1] * ALIKE // meta[MOST_SECOND])
        return score + MOST_TASKS - first - second
    free = free_part(n, meta, node)
    if strategy == BINPACK:
        return score + free
    near = min(siblings_on(n, t, k, meta[FIELDS], node, cls), MOST_SIBLINGS)
    return score + near * 4 * PARTS + 2 * PARTS - free


def walk(c: Cells, n: Nodes, t: Tallies, k: Classes, meta: Ints, cls: int, begin: int, end: int) -> int:
    """A node of the tightest cell found in these indexes; -1 when none fits, CUT when some were left untried."""
    most, level = meta[WALK], k.level[cls]
    spread = k.spread[cls] != 0
    first_row, first_col = k.row[cls], k.col[cls]
    found, found_rank, cut = -1, WORST, False
    for at in range(begin, end):
        index = k.listed[at]
        left = most
        rows = (c.rows[index] >> first_row) << first_row
        while rows != 0:
            bit = top_bit(rows) if spread else rows & -rows
            rows ^= bit
            row = c.low[bit % 67]
            best_here = CELLS - 1 - (row * LEVELS + LEVELS - 1) if spread else row * LEVELS + first_col
            if best_here >= found_rank:
                break
            cols = (c.row[index * LEVELS + row] >> first_col) << first_col
            while cols != 0:
                bit = top_bit(cols) if spread else cols & -cols
                cols ^= bit
                cell = row * LEVELS + c.low[bit % 67]
                rank = CELLS - 1 - cell if spread else cell
                if rank >= found_rank:
                    rows = 0
                    break
                head = c.head[index * CELLS + cell]
                node_at = c.prev[head] if spread else head
                stop = node_at
                tried = 0
                while True:
                    if fits(n, t, k, meta, node_at >> 1, cls, level):
                        found, found_rank = node_at >> 1, rank
                        break
                    tried += 1
                    node_at = c.prev[node_at] if spread else c.next[node_at]
                    if node_at == stop:
                        break
                    if tried >= IN_CELL:
                        cut = True
                        break
                left -= tried
                if found_rank == rank:
                    rows = 0
                    break
                if left <= 0:
                    cut = True
                    rows = 0
                    break
        meta[WALKED] += most - left
    if found >= 0:
        return found
    return CUT if cut else -1


def find_exact(n: Nodes, t: Tallies, k: Classes, meta: Ints, cls: int) -> int:
    """The best of all nodes by `rank_of`, the first of equals; -1 when the class fits nowhere."""
    found, found_rank = -1, WORST
    for node in range(meta[NODES]):
        if fits(n, t, k, meta, node, cls, ANY_LEVEL):
            rank = rank_of(n, t, k, meta, node, cls)
            if rank < found_rank:
                found, found_rank = node, rank
    return found


def find_scored(n: Nodes, t: Tallies, k: Classes, meta: Ints, cls: int) -> int:
    """The best of all nodes by `score_of`, the first of equals; -1 when the class fits nowhere."""
    found, found_score = -1, WORST
    for node in range(meta[NODES]):
        if fits(n, t, k, meta, node, cls, ANY_LEVEL) and (k.fine[cls] == 0 or names(k, node, cls)):
            score = score_of(n, t, k, meta, node, cls)
            if score < found_score:
                found, found_score = node, score
    return found


def find_named(n: Nodes, t: Tallies, k: Classes, meta: Ints, cls: int) -> int:
    """The best of the nodes that the class names."""
    found, found_rank = -1, WORST
    for at in range(k.begin[cls], k.end[cls]):
        node = k.listed[at]
        if fits(n, t, k, meta, node, cls, ANY_LEVEL):
            rank = rank_of(n, t, k, meta, node, cls)
            if rank < found_rank:
                found, found_rank = node, rank
    return found


def find_hinted(n: Nodes, t: Tallies, k: Classes, meta: Ints, cls: int) -> int:
    """The best of the nodes freed since the class was dead; those it fits no more are forgotten."""
    found, found_rank = -1, WORST
    base = cls * HINTS
    kept = 0
    for i in range(k.hints[cls]):
        node = k.hint[base + i]
        if fits(n, t, k, meta, node, cls, ANY_LEVEL):
            k.hint[base + kept] = node
            kept += 1
            rank = rank_of(n, t, k, meta, node, cls)
            if rank < found_rank or (rank == found_rank and node < found):
                found, found_rank = node, rank
    k.hints[cls] = kept
    return found


def find_node(c: Cells, n: Nodes, t: Tallies, k: Classes, meta: Ints, cls: int) -> int:
    """The node for one instance, or -1 when it fits nowhere."""
    if k.state[cls] == HINTED:
        return find_hinted(n, t, k, meta, cls)
    if k.scored[cls] >= 0:
        meta[SEED] += 1
        return find_scored(n, t, k, meta, cls)
    if k.fine[cls] != 0:
        return find_named(n, t, k, meta, cls)
    if meta[REMEMBER] != 0 and k.spread[cls] == 0:
        last = k.last[cls]
        if last >= 0 and fits(n, t, k, meta, last, cls, ANY_LEVEL):
            return last
    if meta[WALK] > 0:
        node = walk(c, n, t, k, meta, cls, k.begin[cls], k.split[cls])
        if node >= 0:
            k.last[cls] = node
            return node
        # Nodes with more siblings than a walk puts up with count as untried.
        if node != CUT and k.siblings[cls] < 0:
            k.last[cls] = -1
            node = walk(c, n, t, k, meta, cls, k.split[cls], k.end[cls])
            if node != CUT:
                return node
    meta[SCANS] += 1
    node = find_exact(n, t, k, meta, cls)
    if node >= 0:
        if k.tier[cls * meta[SIGNATURES] + n.signature[node]] == 0:
            k.last[cls] = node
        k.level[cls] = siblings_on(n, t, k, meta[FIELDS], node, cls)
    return node


def bury(h: Heaps, k: Classes, meta: Ints, cls: int) -> None:
    """Note that a class fits nowhere."""
    if k.state[cls] == LIVE:
        row = k.row[cls]
        head = k.dead[row]
        k.next[cls] = head
        k.prev[cls] = -1
        if head >= 0:
            k.prev[head] = cls
        k.dead[row] = cls
        meta[DEAD_ROWS] |= 1 << row
    k.state[cls] = DEAD
    k.hints[cls] = 0
    h.live[cls // BITS] &= ~(1 << (cls % BITS))


def revive(h: Heaps, k: Classes, meta: Ints, cls: int) -> None:
    """Let a class be tried everywhere again."""
    if k.state[cls] != LIVE:
        before, after = k.prev[cls], k.next[cls]
        if before >= 0:
            k.next[before] = after
        else:
            k.dead[k.row[cls]] = after
            if after < 0:
                meta[DEAD_ROWS] ^= 1 << k.row[cls]
        if after >= 0:
            k.prev[after] = before
        k.state[cls] = LIVE
        k.hints[cls] = 0
        h.live[cls // BITS] |= 1 << (cls % BITS)


def hint(h: Heaps, k: Classes, meta: Ints, cls: int, node: int) -> None:
    """Tell a dead class of a node where it fits; with too many of them it is tried everywhere again."""
    count = k.hints[cls]
    for i in range(count):
        if k.hint[cls * HINTS + i] == node:
            return
    if count >= HINTS:
        revive(h, k, meta, cls)
        return
    k.hint[cls * HINTS + count] = node
    k.hints[cls] = count + 1
    k.state[cls] = HINTED
    h.live[cls // BITS] |= 1 << (cls % BITS)


def hear(h: Heaps, t: Tallies, k: Classes, meta: Ints) -> int:
    """Bring to life the dead classes that read a tally which has changed; returns how many."""
    woken = 0
    for i in range(meta[TOUCHED]):
        tally = t.queue[i]
        t.touched[tally] = 0
        place = t.first[tally]
        while place >= 0:
            if k.state[place // RULES] == DEAD:
                revive(h, k, meta, place // RULES)
                woken += 1
            k.level[place // RULES] = 0
            place = k.heard[place]
    meta[TOUCHED] = 0
    return woken


def retest(h: Heaps, c: Cells, n: Nodes, t: Tallies, k: Classes, meta: Ints, node: int) -> None:
    """Try the dead classes on a node that was freed."""
    if n.cell[node] < 0:
        return
    signatures = meta[SIGNATURES]
    rows = meta[DEAD_ROWS] & ((2 << (n.cell[node] >> 6)) - 1)
    while rows != 0:
        bit = rows & -rows
        rows ^= bit
        cls = k.dead[c.low[bit % 67]]
        while cls >= 0:
            after = k.next[cls]
            if fits(n, t, k, meta, node, cls, ANY_LEVEL):
                if k.fickle[cls] != 0:
                    revive(h, k, meta, cls)
                elif k.fine[cls] != 0:
                    if names(k, node, cls):
                        hint(h, k, meta, cls, node)
                elif k.tier[cls * signatures + n.signature[node]] < FORBIDDEN:
                    hint(h, k, meta, cls, node)
            cls = after
