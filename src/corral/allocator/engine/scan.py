"""The exact pass over all nodes by NumPy, for kernels that are not compiled: the same answer as `cells.find_exact`."""

import numpy as np

from corral.allocator.engine.columns import CELLS, FORBIDDEN, NODES, RESOURCES, SIGNATURES, Classes, Ints, Nodes


def find_exact(n: Nodes, k: Classes, meta: Ints, cls: int) -> int:
    """The best of all nodes by `rank_of`, the first of equals; -1 when the class fits nowhere."""
    resources, nodes, signatures = meta[RESOURCES], meta[NODES], meta[SIGNATURES]
    free = np.asarray(n.free).reshape(-1, resources)[:nodes]
    cells = np.asarray(n.cell)[:nodes]
    ask = k.shape[cls * (resources + 1) : cls * (resources + 1) + resources]
    rows = np.flatnonzero((cells >= 0) & (free[:, 0] >= ask[0]))
    for d in range(1, resources):
        if ask[d] > 0:
            rows = rows[free[rows, d] >= ask[d]]
    if len(rows) == 0:
        return -1
    tiers = np.asarray(k.tier)[cls * signatures : (cls + 1) * signatures][np.asarray(n.signature)[rows]]
    suits = cells[rows] if k.spread[cls] == 0 else CELLS - 1 - cells[rows]
    ranks = tiers * CELLS + suits
    best = int(ranks.argmin())
    return int(rows[best]) if ranks[best] < FORBIDDEN * CELLS else -1
