"""From plain Python's columns to those of machine code, amid a life: the same numbers, and everybody in the same order.

Words of bits are shorter there, and items stand in heaps of columns; in which heap exactly decides nothing.
"""

import numpy as np

from corral.allocator.engine.columns import BITS, OUT, STARVED
from corral.allocator.engine.heaps import gather
from corral.allocator.engine.modes import Mode
from corral.allocator.engine.tables import Tables
from corral.allocator.engine.tree import Tree


def switch(tables: Tables, tree: Tree, mode: Mode, classes: int) -> None:
    """Hold everything as another form takes it. Shapes: `classes` is how many rows of classes there are."""
    h = tables.state.heaps
    asked, live, size = list(h.bits), h.live[0], tree.size
    words = max(1, -(-classes // BITS))
    tables.use(mode, words)
    h = tables.state.heaps
    for row, word in (*enumerate(asked[:size]), (-1, live)):
        column, at = (h.bits, row * words) if row >= 0 else (h.live, 0)
        for w in range(words):
            column[at + w] = word >> (w * BITS) & ((1 << BITS) - 1)
    np.asarray(h.size)[:] = 0
    tree.make_rooms()
    h = tables.state.heaps
    children: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for item in range(2, size):
        if h.side[item] != OUT:
            children.setdefault((int(h.parent[item]), int(h.side[item])), []).append((int(h.key[item]), item))
    for (parent, side), found in children.items():
        base = int(h.at[parent]) + side * int(h.room[parent])
        h.size[parent * 2 + side] = len(found)
        for place, (_, item) in enumerate(sorted(found)):
            h.items[base + place], h.pos[item] = item, place
        for place in range(len(found) - 1, -1, -1) if side == STARVED else ():
            gather(h, base, len(found), place, place)
