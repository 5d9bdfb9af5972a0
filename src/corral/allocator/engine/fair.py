"""What a role holds, and the key that follows: weighted dominant share under a priority, for each role on the path.

What a role held before counts as held, decayed, where that is more. A role below its guarantee also stands in line
through its shadow, ordered by the part of the guarantee it has. It is below while every guaranteed resource is; so a
resource that it never asks cannot hold the others open. Only what is not revocable fulfils a guarantee.
Source: dominant resource fairness as in Mesos' sorter (section 17.2 of its contract), hierarchical.
"""

from corral.allocator.engine.columns import (
    BITS,
    MAIN,
    MOST_SHARE,
    OUT,
    PROMISED,
    RESOURCES,
    ROOT,
    SHARE_STEPS,
    STARVED,
    Classes,
    Heaps,
    Ints,
    Lines,
    Roles,
)
from corral.allocator.engine.heaps import admit, insert, rekey, remove


def share_key(r: Roles, resources: int, item: int) -> int:
    """The order of a role among its siblings, lowest first."""
    held, past, inverse = r.held, r.past, r.inverse
    at, before = item * (resources + 1), item * resources
    most = 0.0
    for d in range(resources):
        part = max(held[at + d], past[before + d]) * inverse[d]
        if part > most:
            most = part
    return r.base[item] + min(int(most * r.scale[item]), MOST_SHARE)


def settle_shadow(h: Heaps, r: Roles, resources: int, item: int) -> None:
    """Let a role's shadow stand in line while the role asks for something and is below its guarantee."""
    shadow = r.shadow[item]
    at, goal = item * (resources + 1), item * resources
    most = 0.0
    below, promises = h.side[item] != OUT, False
    for d in range(resources):
        promised = r.guarantee[goal + d]
        if promised > 0:
            promises = True
            part = (r.held[at + d] - r.lent[goal + d]) / promised
            if part >= 1.0:
                below = False
            if part > most:
                most = part
    if below and promises:
        key = r.base[item] + int(most * SHARE_STEPS)
        if h.side[shadow] == OUT:
            h.key[shadow] = key
            insert(h, shadow, MAIN)
        else:
            rekey(h, shadow, key)
    elif h.side[shadow] != OUT:
        remove(h, shadow)


def settle_unmet(h: Heaps, r: Roles, resources: int, item: int) -> None:
    """Sum up anew what guarantees at or below a role lack, and tell the role above."""
    at, own, above = item * (resources + 1), item * resources, h.parent[item] * resources
    for d in range(resources):
        lacks = max(0, r.guarantee[own + d] - r.held[at + d] + r.lent[own + d], r.under[own + d])
        r.under[above + d] += lacks - r.unmet[own + d]
        r.unmet[own + d] = lacks


def keeps_headroom(h: Heaps, r: Roles, k: Classes, meta: Ints, leaf: int, cls: int, size: int) -> bool:
    """Whether enough stays free or lent for all guarantees when a role is given `size` instances more."""
    resources = meta[RESOURCES]
    for d in range(resources):
        ask = k.shape[cls * (resources + 1) + d] * size
        if ask <= 0:
            continue
        change = 0
        item = leaf
        while item != ROOT:
            own = item * resources + d
            lacks = r.guarantee[own] - r.held[item * (resources + 1) + d] + r.lent[own] - ask
            change = max(0, lacks, r.under[own] + change) - r.unmet[own]
            item = h.parent[item]
        kept = min(r.under[ROOT * resources + d] + change, r.reserve[d])
        # What fulfils a guarantee takes nothing from others; whatever else is given must leave enough for all.
        if kept > 0 and -change < ask and r.spare[d] - ask < kept:
            return False
    return True


def charge(h: Heaps, r: Roles, k: Classes, meta: Ints, leaf: int, cls: int, sign: int) -> None:
    """Add one instance to a role and all above it, which were served and so are MAIN; or with -1 take it away."""
    held, past, inverse, base, scale, shadows, side = r.held, r.past, r.inverse, r.base, r.scale, r.shadow, h.side
    resources = meta[RESOURCES]
    width = resources + 1
    shape, ask, lends, promised = k.shape, cls * width, k.revocable[cls] != 0, meta[PROMISED] != 0
    item = leaf
    while item != ROOT:
        at, before = item * width, item * resources
        most = 0.0
        for d in range(resources):
            now = held[at + d]
            asked = shape[ask + d]
            if asked != 0:
                now += sign * asked
                held[at + d] = now
                if lends:
                    r.lent[before + d] += sign * asked
            if past[before + d] > now:
                now = past[before + d]
            part = now * inverse[d]
            if part > most:
                most = part
        held[at + resources] += sign
        if promised:
            settle_unmet(h, r, resources, item)
        key = base[item] + min(int(most * scale[item]), MOST_SHARE)
        if sign > 0 and side[item] == STARVED:
            remove(h, item)
            h.key[item] = key
            insert(h, item, MAIN)
        else:
            rekey(h, item, key)
        if shadows[item] >= 0:
            settle_shadow(h, r, resources, item)
            if sign > 0 and side[shadows[item]] == STARVED:
                admit(h, shadows[item])
        item = h.parent[item]


def wake(h: Heaps, r: Roles, resources: int, leaf: int) -> None:
    """Put a role and all above it where they may be served: what it asks has changed, or it was served."""
    item = leaf
    while item != ROOT:
        admit(h, item)
        if r.shadow[item] >= 0:
            settle_shadow(h, r, resources, item)
            if h.side[r.shadow[item]] == STARVED:
                admit(h, r.shadow[item])
        item = h.parent[item]


def retire(h: Heaps, r: Roles, resources: int, leaf: int) -> None:
    """Take a role out of line that asks for nothing more, and those above it of which that is true then."""
    item = leaf
    while item != ROOT:
        if h.side[item] != OUT:
            remove(h, item)
        if r.shadow[item] >= 0:
            settle_shadow(h, r, resources, item)
        item = h.parent[item]
        if h.size[item * 2] + h.size[item * 2 + 1] > 0:
            return


def collect_bits(h: Heaps, r: Roles, lines: Lines, leaf: int) -> None:
    """Sum up anew which classes a role asks within its limits."""
    words = len(h.live)
    for w in range(words):
        h.bits[leaf * words + w] = 0
    line = r.first[leaf]
    while line >= 0:
        if lines.blocked[line] < 0:
            cls = lines.cls[line]
            h.bits[leaf * words + cls // BITS] |= 1 << (cls % BITS)
        line = lines.next[line]


def exceeds(r: Roles, k: Classes, resources: int, item: int, cls: int, size: int) -> bool:
    """Whether `size` more instances would break a role's own limit."""
    width = resources + 1
    for d in range(width):
        ask = k.shape[cls * width + d] * size
        if ask > 0 and r.held[item * width + d] + ask > r.limit[item * width + d]:
            return True
    return False


def find_limit(h: Heaps, r: Roles, k: Classes, meta: Ints, leaf: int, cls: int, size: int) -> int:
    """The nearest role on the path whose limit `size` more instances would break, ROOT for lack of headroom, or -1."""
    item = leaf
    while item != ROOT:
        if r.limited[item] != 0 and exceeds(r, k, meta[RESOURCES], item, cls, size):
            return item
        item = h.parent[item]
    if meta[PROMISED] != 0 and k.revocable[cls] == 0 and not keeps_headroom(h, r, k, meta, leaf, cls, size):
        return ROOT
    return -1


def reopen(h: Heaps, r: Roles, k: Classes, lines: Lines, meta: Ints, item: int) -> None:
    """Let the lines go on that waited for this role's limit and keep it now; at ROOT, those that keep the headroom."""
    resources = meta[RESOURCES]
    before = -1
    line = r.waiting[item]
    while line >= 0:
        after = lines.hold[line]
        leaf, cls = r.leaf[lines.role[line]], lines.cls[line]
        size = max(1, k.gang[cls])
        if item == ROOT:
            waits = meta[PROMISED] != 0 and not keeps_headroom(h, r, k, meta, leaf, cls, size)
        else:
            waits = exceeds(r, k, resources, item, cls, size)
        if waits:
            before = line
        else:
            if before < 0:
                r.waiting[item] = after
            else:
                lines.hold[before] = after
            lines.hold[line] = -1
            lines.blocked[line] = -1
            collect_bits(h, r, lines, leaf)
            wake(h, r, resources, leaf)
        line = after
