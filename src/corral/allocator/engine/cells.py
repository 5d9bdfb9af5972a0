"""Where an instance goes: nodes in cells of free amounts, so that the tightest that fits is found in a few steps.

A bounded walk from the tightest cell (or the roomiest, to spread), then an exact pass over all nodes before a class is
said to fit nowhere. From then on it is tried only on nodes that were freed since.
"""

from corral.allocator.engine.columns import (
    BITS,
    CELLS,
    DEAD,
    DEAD_ROWS,
    FORBIDDEN,
    FREED,
    HINTED,
    HINTS,
    LEVELS,
    LIVE,
    NODES,
    REMEMBER,
    RESOURCES,
    SCANS,
    SIGNATURES,
    WALK,
    WALKED,
    Cells,
    Classes,
    Heaps,
    Ints,
    Nodes,
)

IN_CELL = 8
"""How many nodes of one cell a walk tries."""

WORST = 1 << 40
CUT = -2
"""A walk's answer when it left nodes untried."""


def level_of(c: Cells, axis: int, amount: int) -> int:
    """The level of a free amount: four to each doubling."""
    step = amount * 4 // c.unit[axis]
    if step < 1024:
        return c.level[step]
    return min(c.level[min(step >> 8, 1023)] + 32, 61)


def top_bit(word: int) -> int:
    """The highest bit of a word that has one, alone."""
    word |= word >> 1
    word |= word >> 2
    word |= word >> 4
    word |= word >> 8
    word |= word >> 16
    word |= word >> 32
    return word - (word >> 1)


def link(c: Cells, index: int, cell: int, at: int) -> None:
    """Put a node first in a cell."""
    place = index * CELLS + cell
    head = c.head[place]
    if head < 0:
        c.next[at] = at
        c.prev[at] = at
        row = index * LEVELS + (cell >> 6)
        c.row[row] |= 1 << (cell & 63)
        c.rows[index] |= 1 << (cell >> 6)
    else:
        tail = c.prev[head]
        c.next[at] = head
        c.prev[at] = tail
        c.next[tail] = at
        c.prev[head] = at
    c.head[place] = at


def unlink(c: Cells, index: int, cell: int, at: int) -> None:
    """Take a node out of a cell."""
    place = index * CELLS + cell
    after = c.next[at]
    if after == at:
        c.head[place] = -1
        row = index * LEVELS + (cell >> 6)
        c.row[row] ^= 1 << (cell & 63)
        if c.row[row] == 0:
            c.rows[index] ^= 1 << (cell >> 6)
        return
    before = c.prev[at]
    c.next[before] = after
    c.prev[after] = before
    if c.head[place] == at:
        c.head[place] = after


def move(c: Cells, n: Nodes, node: int, cell: int) -> None:
    """Put a node into another cell of its indexes; -1 takes it out."""
    old = n.cell[node]
    pool, mark = n.pool[node], n.mark[node]
    if old >= 0:
        unlink(c, pool, old, node * 2)
        if mark >= 0:
            unlink(c, mark, old, node * 2 + 1)
    n.cell[node] = cell
    if cell >= 0:
        link(c, pool, cell, node * 2)
        if mark >= 0:
            link(c, mark, cell, node * 2 + 1)


def find_cell(c: Cells, n: Nodes, resources: int, node: int) -> int:
    """The cell that a node's free amounts belong to."""
    at = node * resources
    first, second = n.free[at] * 4 // c.unit[0], n.free[at + 1] * 4 // c.unit[1]
    if first < 1024 and second < 1024:
        return c.level[first] * LEVELS + c.level[second]
    return level_of(c, 0, n.free[at]) * LEVELS + level_of(c, 1, n.free[at + 1])


def give(c: Cells, n: Nodes, k: Classes, resources: int, node: int, cls: int) -> None:
    """Take one instance's resources from a node."""
    at, ask = node * resources, cls * (resources + 1)
    free, shape = n.free, k.shape
    for d in range(resources):
        free[at + d] -= shape[ask + d]
    n.tasks[node] += 1
    cell = find_cell(c, n, resources, node)
    if cell != n.cell[node] or k.spread[cls] != 0:
        move(c, n, node, cell)


def take_back(c: Cells, n: Nodes, k: Classes, meta: Ints, node: int, cls: int) -> None:
    """Give a node one instance's resources back, and note that it was freed."""
    resources = meta[RESOURCES]
    at, ask = node * resources, cls * (resources + 1)
    free, shape = n.free, k.shape
    for d in range(resources):
        free[at + d] += shape[ask + d]
    n.tasks[node] -= 1
    if n.cell[node] >= 0:
        cell = find_cell(c, n, resources, node)
        if cell != n.cell[node]:
            move(c, n, node, cell)
        note_freed(n, meta, node)


def note_freed(n: Nodes, meta: Ints, node: int) -> None:
    """Remember that dead classes are to be tried here."""
    if n.dirty[node] == 0:
        n.dirty[node] = 1
        n.freed[meta[FREED]] = node
        meta[FREED] += 1


def fits(n: Nodes, k: Classes, resources: int, node: int, cls: int) -> bool:
    """Whether an eligible node has room for one instance."""
    if n.cell[node] < 0:
        return False
    at, ask = node * resources, cls * (resources + 1)
    free, shape = n.free, k.shape
    for d in range(resources):  # noqa: SIM110 - a generator is nothing to compile
        if free[at + d] < shape[ask + d]:
            return False
    return True


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


def rank_of(n: Nodes, k: Classes, signatures: int, node: int, cls: int) -> int:
    """How little a node suits a class; the lowest wins."""
    cell = n.cell[node]
    if k.spread[cls] != 0:
        cell = CELLS - 1 - cell
    if k.fine[cls] != 0:
        return cell
    return k.tier[cls * signatures + n.signature[node]] * CELLS + cell


def walk(c: Cells, n: Nodes, k: Classes, meta: Ints, cls: int, begin: int, end: int) -> int:
    """A node of the tightest cell found in these indexes; -1 when none fits, CUT when some were left untried."""
    resources, most = meta[RESOURCES], meta[WALK]
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
                    if fits(n, k, resources, node_at >> 1, cls):
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


def find_exact(n: Nodes, k: Classes, meta: Ints, cls: int) -> int:
    """The best of all nodes by `rank_of`, the first of equals; -1 when the class fits nowhere."""
    resources, signatures = meta[RESOURCES], meta[SIGNATURES]
    found, found_rank = -1, WORST
    for node in range(meta[NODES]):
        if not fits(n, k, resources, node, cls):
            continue
        rank = rank_of(n, k, signatures, node, cls)
        if rank < found_rank and rank < FORBIDDEN * CELLS:
            found, found_rank = node, rank
    return found


def find_named(n: Nodes, k: Classes, meta: Ints, cls: int) -> int:
    """The best of the nodes that the class names."""
    resources, signatures = meta[RESOURCES], meta[SIGNATURES]
    found, found_rank = -1, WORST
    for at in range(k.begin[cls], k.end[cls]):
        node = k.listed[at]
        if fits(n, k, resources, node, cls):
            rank = rank_of(n, k, signatures, node, cls)
            if rank < found_rank:
                found, found_rank = node, rank
    return found


def find_hinted(n: Nodes, k: Classes, meta: Ints, cls: int) -> int:
    """The best of the nodes freed since the class was dead; those it fits no more are forgotten."""
    resources, signatures = meta[RESOURCES], meta[SIGNATURES]
    found, found_rank = -1, WORST
    base = cls * HINTS
    kept = 0
    for i in range(k.hints[cls]):
        node = k.hint[base + i]
        if fits(n, k, resources, node, cls):
            k.hint[base + kept] = node
            kept += 1
            rank = rank_of(n, k, signatures, node, cls)
            if rank < found_rank or (rank == found_rank and node < found):
                found, found_rank = node, rank
    k.hints[cls] = kept
    return found


def find_node(c: Cells, n: Nodes, k: Classes, meta: Ints, cls: int) -> int:
    """The node for one instance, or -1 when it fits nowhere."""
    if k.state[cls] == HINTED:
        return find_hinted(n, k, meta, cls)
    if k.fine[cls] != 0:
        return find_named(n, k, meta, cls)
    if meta[REMEMBER] != 0 and k.spread[cls] == 0:
        last = k.last[cls]
        if last >= 0 and fits(n, k, meta[RESOURCES], last, cls):
            return last
    if meta[WALK] > 0:
        node = walk(c, n, k, meta, cls, k.begin[cls], k.split[cls])
        if node >= 0:
            k.last[cls] = node
            return node
        if node != CUT:
            k.last[cls] = -1
            node = walk(c, n, k, meta, cls, k.split[cls], k.end[cls])
            if node != CUT:
                return node
    meta[SCANS] += 1
    node = find_exact(n, k, meta, cls)
    if node >= 0 and k.tier[cls * meta[SIGNATURES] + n.signature[node]] == 0:
        k.last[cls] = node
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


def retest(h: Heaps, c: Cells, n: Nodes, k: Classes, meta: Ints, node: int) -> None:
    """Try the dead classes on a node that was freed."""
    if n.cell[node] < 0:
        return
    resources, signatures = meta[RESOURCES], meta[SIGNATURES]
    rows = meta[DEAD_ROWS] & ((2 << (n.cell[node] >> 6)) - 1)
    while rows != 0:
        bit = rows & -rows
        rows ^= bit
        cls = k.dead[c.low[bit % 67]]
        while cls >= 0:
            after = k.next[cls]
            if fits(n, k, resources, node, cls):
                if k.fine[cls] != 0:
                    if names(k, node, cls):
                        hint(h, k, meta, cls, node)
                elif k.tier[cls * signatures + n.signature[node]] < FORBIDDEN:
                    hint(h, k, meta, cls, node)
            cls = after
