"""What decides beside free amounts: rules over tallies of instances by domain, and the single GPUs of a node.

A tally counts the instances with some tag in each domain (value) of a field; a rule asks what it says of a node's
domain. So unique, max-per, group-by, affinity and taken ports are one mechanism.
"""

from corral.allocator.engine.columns import (
    ABSENT,
    BELOW,
    CLEAR,
    DEVICES,
    EVEN,
    FIELDS,
    GPUS,
    NEAR,
    RESOURCES,
    RULES,
    TABLE,
    TARGET,
    TOUCHED,
    Classes,
    Ints,
    Nodes,
    Tallies,
)

WHOLE = 1000
"""Thousandths of one GPU."""

MOST_FILL = 1 << 19
"""Where it no longer matters how far a domain is beyond its target."""

BROKEN = 1024
"""What one broken rule of weight 1 costs; a domain that holds as much as its target of a thousand instances costs the
same."""


def passes(n: Nodes, t: Tallies, fields: int, kind: int, tally: int, bound: int, node: int) -> bool:
    """Whether a rule allows one more instance on a node."""
    domain = n.domain[node * fields + t.field[tally]]
    count = t.counts[t.at[tally] + domain]
    if kind == TABLE:
        return count == 0
    if kind == CLEAR:
        return domain == ABSENT or count == 0
    if domain == ABSENT:
        return False
    if kind == BELOW:
        return count < bound
    if kind == NEAR:
        return count > 0 or (bound != 0 and t.total[tally] == 0)
    if kind == EVEN:
        if count == 0:
            return t.used[tally] < t.groups[tally]
        return count < t.share[tally] or (count == t.share[tally] and t.fuller[tally] < t.rest[tally])
    return True


def has_devices(n: Nodes, k: Classes, width: int, node: int, cls: int) -> bool:
    """Whether enough GPUs of a node have enough free each."""
    found, part = 0, k.part[cls]
    for d in range(node * width, node * width + width):
        if n.gpu[d] >= part:
            found += 1
    return found >= k.gpus[cls]


def suits(n: Nodes, t: Tallies, k: Classes, meta: Ints, node: int, cls: int, level: int) -> bool:
    """Whether a node with room keeps all hard rules of a class, and has at most `level` siblings of it."""
    if k.gpus[cls] > 0 and not has_devices(n, k, meta[DEVICES], node, cls):
        return False
    fields = meta[FIELDS]
    for i in range(cls * RULES, cls * RULES + k.rules[cls]):
        if not passes(n, t, fields, k.rule[i * 4], k.rule[i * 4 + 1], k.rule[i * 4 + 2], node):
            return False
    tally = k.siblings[cls]
    return tally < 0 or t.counts[t.at[tally] + n.domain[node * fields + t.field[tally]]] <= level


def soft_cost(n: Nodes, t: Tallies, k: Classes, fields: int, node: int, cls: int) -> int:
    """What the soft rules of a class hold against a node: the weights of those broken, and how full targets are."""
    cost = 0
    for i in range(cls * RULES, cls * RULES + k.softs[cls]):
        kind, tally, bound, weight = k.soft[i * 4], k.soft[i * 4 + 1], k.soft[i * 4 + 2], k.soft[i * 4 + 3]
        if kind == TARGET:
            domain = n.domain[node * fields + t.field[tally]]
            target = t.counts[t.at[bound] + domain]
            fill = MOST_FILL
            if target > 0:
                fill = min(fill, t.counts[t.at[tally] + domain] * 1000 // target)
            cost += weight * fill
        elif not passes(n, t, fields, kind, tally, bound, node):
            cost += weight * BROKEN
    return cost


def touch(t: Tallies, meta: Ints, tally: int) -> None:
    """Remember that classes which read a tally may fit again."""
    if t.touched[tally] == 0:
        t.touched[tally] = 1
        t.queue[meta[TOUCHED]] = tally
        meta[TOUCHED] += 1


def count_one(n: Nodes, t: Tallies, meta: Ints, tally: int, node: int, sign: int) -> None:
    """One instance more in a node's domain, or with -1 one less."""
    domain = n.domain[node * meta[FIELDS] + t.field[tally]]
    at = t.at[tally] + domain
    before = t.counts[at]
    now = before + sign
    t.counts[at] = now
    t.total[tally] += sign
    if domain != ABSENT:
        if before == 0:
            t.used[tally] += 1
        if now == 0:
            t.used[tally] -= 1
        if sign > 0 and before == t.share[tally]:
            t.fuller[tally] += 1
        if sign < 0 and now == t.share[tally]:
            t.fuller[tally] -= 1
    if (sign > 0 and t.ups[tally] != 0) or (sign < 0 and t.downs[tally] != 0):
        touch(t, meta, tally)


def count_all(n: Nodes, t: Tallies, k: Classes, meta: Ints, node: int, cls: int, sign: int) -> None:
    """Count an instance in all tallies that its class feeds."""
    for i in range(cls * RULES, cls * RULES + k.feeds[cls]):
        count_one(n, t, meta, k.feed[i], node, sign)


def take_devices(n: Nodes, k: Classes, width: int, node: int, cls: int) -> int:
    """Take a class's GPUs of a node, each the fullest that does; returns a bit for each, 0 when they are not there."""
    part = k.part[cls]
    mask = 0
    for _ in range(k.gpus[cls]):
        best, best_free = -1, WHOLE + 1
        for d in range(width):
            free = n.gpu[node * width + d]
            if part <= free < best_free and mask >> d & 1 == 0:
                best, best_free = d, free
        if best < 0:
            return 0
        mask |= 1 << best
    for d in range(width):
        if mask >> d & 1 != 0:
            n.gpu[node * width + d] -= part
    return mask


def mark_devices(n: Nodes, width: int, node: int, mask: int, part: int) -> None:
    """Take this much of these GPUs; below zero gives it back."""
    for d in range(width):
        if mask >> d & 1 != 0:
            n.gpu[node * width + d] -= part


def split_gpus(k: Classes, meta: Ints, cls: int) -> None:
    """Read from a class's shape how many devices it asks, and how much of each."""
    at = meta[GPUS]
    k.gpus[cls], k.part[cls] = 0, 0
    if at >= 0:
        asked = k.shape[cls * (meta[RESOURCES] + 1) + at]
        if asked >= WHOLE and asked % WHOLE == 0:
            k.gpus[cls], k.part[cls] = asked // WHOLE, WHOLE
        elif 0 < asked < WHOLE:
            k.gpus[cls], k.part[cls] = 1, asked
