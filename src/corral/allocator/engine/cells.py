"""Nodes in cells of free amounts, so that the tightest that fits is found in a few steps; and what a node has free.

An index has a cell for each pair of levels of the first two resources, and bitmaps of those that are not empty.
"""

from corral.allocator.engine.columns import (
    CELLS,
    FREED,
    LEVELS,
    RESOURCES,
    STEPS,
    Cells,
    Classes,
    Ints,
    Nodes,
    Roles,
)


def level_of(c: Cells, axis: int, amount: int) -> int:
    """The level of a free amount: four to each doubling."""
    step = max(0, amount) * 4 // c.unit[axis]
    if step < STEPS:
        return c.level[step]
    return min(c.level[min(step >> 8, STEPS - 1)] + 32, 61)


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
    if 0 <= first < STEPS and 0 <= second < STEPS:
        return c.level[first] * LEVELS + c.level[second]
    return level_of(c, 0, n.free[at]) * LEVELS + level_of(c, 1, n.free[at + 1])


def take(n: Nodes, k: Classes, r: Roles, resources: int, node: int, cls: int, sign: int, open_: bool) -> None:
    """Subtract one instance from what is free on a node and, unless it is revocable, from what is spare in all."""
    at, ask = node * resources, cls * (resources + 1)
    free, shape, spare, lends = n.free, k.shape, r.spare, k.revocable[cls] != 0
    for d in range(resources):
        asked = shape[ask + d]
        if asked != 0:
            asked *= sign
            free[at + d] -= asked
            if lends:
                n.lent[at + d] += asked
            elif open_:
                now = free[at + d] + n.lent[at + d]
                # A node that gave out more than it has lessens nothing of what others have.
                spare[d] += max(0, now) - max(0, now + asked)


def give(c: Cells, n: Nodes, k: Classes, r: Roles, meta: Ints, node: int, cls: int) -> None:
    """Take one instance's resources from a node; its GPUs are another matter."""
    resources = meta[RESOURCES]
    open_ = n.cell[node] >= 0
    take(n, k, r, resources, node, cls, 1, open_)
    n.tasks[node] += 1
    n.version[node] += 1
    if open_:
        cell = find_cell(c, n, resources, node)
        if cell != n.cell[node] or k.spread[cls] != 0:
            move(c, n, node, cell)


def take_back(c: Cells, n: Nodes, k: Classes, r: Roles, meta: Ints, node: int, cls: int) -> None:
    """Give a node one instance's resources back."""
    resources = meta[RESOURCES]
    open_ = n.cell[node] >= 0
    take(n, k, r, resources, node, cls, -1, open_)
    n.tasks[node] -= 1
    n.version[node] += 1
    if open_:
        cell = find_cell(c, n, resources, node)
        if cell != n.cell[node]:
            move(c, n, node, cell)


def note_freed(n: Nodes, meta: Ints, node: int) -> None:
    """Remember that dead classes are to be tried here."""
    if n.dirty[node] == 0:
        n.dirty[node] = 1
        n.freed[meta[FREED]] = node
        meta[FREED] += 1
