"""One call per tick: demands and ends of tasks come in as arrays, decisions go out as an array of task rows."""

from corral.allocator.engine.cells import bury, find_node, give, level_of, move, note_freed, retest, revive, take_back
from corral.allocator.engine.columns import (
    BITS,
    DEAD,
    DEATHS,
    FREE_LINE,
    FREE_LINES,
    FREED,
    ITEMS,
    LEVELS,
    OWED,
    RESOURCES,
    RETEST,
    ROOT,
    RUNNING,
    SPARE_TASKS,
    Classes,
    Heaps,
    Ints,
    Lines,
    Roles,
    State,
)
from corral.allocator.engine.fair import (
    charge,
    collect_bits,
    find_limit,
    reopen,
    retire,
    settle_shadow,
    share_key,
    wake,
)
from corral.allocator.engine.heaps import find_leaf, rekey, reorder


def drop_line(h: Heaps, r: Roles, lines: Lines, meta: Ints, leaf: int, line: int) -> None:
    """Take a line out of its role for good; `retire` or `wake` the role afterwards."""
    before, at = -1, r.first[leaf]
    while at != line:
        before, at = at, lines.next[at]
    if before < 0:
        r.first[leaf] = lines.next[line]
    else:
        lines.next[before] = lines.next[line]
    item = lines.blocked[line]
    if item >= 0:
        before, at = -1, r.waiting[item]
        while at != line:
            before, at = at, lines.hold[at]
        if before < 0:
            r.waiting[item] = lines.hold[line]
        else:
            lines.hold[before] = lines.hold[line]
        lines.blocked[line] = -1
        lines.hold[line] = -1
    lines.left[line] = 0
    lines.next[line] = meta[FREE_LINE]
    meta[FREE_LINE] = line
    meta[FREE_LINES] += 1
    collect_bits(h, r, lines, leaf)


def submit(s: State, roles: Ints, classes: Ints, counts: Ints, priorities: Ints) -> None:
    """Add demands, each to the line of its role, class and priority."""
    h, r, lines, meta = s.heaps, s.roles, s.lines, s.meta
    words = len(h.live)
    for i in range(len(roles)):
        role, cls, priority = roles[i], classes[i], priorities[i]
        leaf = r.leaf[role]
        before, line = -1, r.first[leaf]
        while line >= 0 and lines.priority[line] >= priority:
            if lines.cls[line] == cls and lines.priority[line] == priority:
                break
            before, line = line, lines.next[line]
        if line >= 0 and lines.cls[line] == cls and lines.priority[line] == priority:
            lines.left[line] += counts[i]
            continue
        new = meta[FREE_LINE]
        meta[FREE_LINE] = lines.next[new]
        meta[FREE_LINES] -= 1
        lines.role[new], lines.cls[new], lines.priority[new], lines.left[new] = role, cls, priority, counts[i]
        lines.next[new], lines.blocked[new], lines.hold[new] = line, -1, -1
        if before < 0:
            r.first[leaf] = new
        else:
            lines.next[before] = new
        h.bits[leaf * words + cls // BITS] |= 1 << (cls % BITS)
        wake(h, r, meta[RESOURCES], leaf)


def withdraw(s: State, role: int, cls: int, count: int, priority: int) -> int:
    """Take demands back; returns how many there were to take."""
    h, r, lines, meta = s.heaps, s.roles, s.lines, s.meta
    leaf = r.leaf[role]
    line = r.first[leaf]
    while line >= 0:
        if lines.cls[line] == cls and lines.priority[line] == priority:
            break
        line = lines.next[line]
    if line < 0:
        return 0
    taken = min(count, lines.left[line])
    lines.left[line] -= taken
    if lines.left[line] == 0:
        drop_line(h, r, lines, meta, leaf, line)
        wake(h, r, meta[RESOURCES], leaf)
        if r.first[leaf] < 0:
            retire(h, r, meta[RESOURCES], leaf)
    return taken


def release(s: State, tasks: Ints) -> None:
    """End these tasks: their nodes and roles have their resources again."""
    h, r, c, n, k, t, meta = s.heaps, s.roles, s.cells, s.nodes, s.classes, s.tasks, s.meta
    resources = meta[RESOURCES]
    for i in range(len(tasks)):
        task = tasks[i]
        node, cls = t.node[task], t.cls[task]
        leaf = r.leaf[t.role[task]]
        t.node[task] = -1
        t.spare[meta[SPARE_TASKS]] = task
        meta[SPARE_TASKS] += 1
        meta[RUNNING] -= 1
        take_back(c, n, k, meta, node, cls)
        charge(h, r, k.shape, resources, leaf, cls, -1)
        item = leaf
        while item != ROOT:
            if r.waiting[item] >= 0:
                reopen(h, r, k, s.lines, resources, item)
            item = h.parent[item]


def pick_line(h: Heaps, r: Roles, k: Classes, lines: Lines, resources: int, leaf: int) -> int:
    """The first line of a role that may be served; those that would break a limit are set aside, -1 if all are."""
    line = r.first[leaf]
    while line >= 0:
        cls = lines.cls[line]
        if lines.blocked[line] < 0 and k.state[cls] != DEAD:
            item = find_limit(h, r, k, resources, leaf, cls)
            if item < 0:
                return line
            lines.blocked[line] = item
            lines.hold[line] = r.waiting[item]
            r.waiting[item] = line
            wake(h, r, resources, leaf)
            collect_bits(h, r, lines, leaf)
        line = lines.next[line]
    return -1


def retest_freed(s: State) -> None:
    """Try dead classes on the nodes freed since the last tick."""
    n, k, meta = s.nodes, s.classes, s.meta
    for i in range(meta[FREED]):
        node = n.freed[i]
        n.dirty[node] = 0
        if meta[RETEST] != 0:
            retest(s.heaps, s.cells, n, k, meta, node)
    if meta[RETEST] == 0 and meta[FREED] > 0:
        for row in range(LEVELS):
            while k.dead[row] >= 0:
                revive(s.heaps, k, meta, k.dead[row])
    meta[FREED] = 0


def serve(s: State, most: int, out: Ints) -> int:
    """Place up to `most` instances in fair order; writes their task rows to `out` and returns how many there are."""
    h, r, k, lines, t, meta = s.heaps, s.roles, s.classes, s.lines, s.tasks, s.meta
    resources = meta[RESOURCES]
    retest_freed(s)
    placed = 0
    while placed < most:
        leaf = -1
        if h.size[OWED * 2] + h.size[OWED * 2 + 1] > 0:
            leaf = find_leaf(h, r, OWED)
        if leaf < 0:
            leaf = find_leaf(h, r, ROOT)
        if leaf < 0:
            break
        line = pick_line(h, r, k, lines, resources, leaf)
        if line < 0:
            continue
        cls = lines.cls[line]
        node = find_node(s.cells, s.nodes, k, meta, cls)
        if node < 0:
            bury(h, k, meta, cls)
            meta[DEATHS] += 1
            continue
        role = lines.role[line]
        give(s.cells, s.nodes, k, resources, node, cls)
        charge(h, r, k.shape, resources, leaf, cls, 1)
        lines.left[line] -= 1
        if lines.left[line] == 0:
            drop_line(h, r, lines, meta, leaf, line)
            if r.first[leaf] < 0:
                retire(h, r, resources, leaf)
        meta[SPARE_TASKS] -= 1
        task = t.spare[meta[SPARE_TASKS]]
        t.role[task], t.cls[task], t.node[task] = role, cls, node
        out[placed] = task
        placed += 1
        meta[RUNNING] += 1
    return placed


def settle_role(s: State, item: int) -> None:
    """Follow a change of a role's weight, priority, guarantee or limit."""
    h, r, meta = s.heaps, s.roles, s.meta
    rekey(h, item, share_key(r, meta[RESOURCES], item))
    if r.shadow[item] >= 0:
        settle_shadow(h, r, meta[RESOURCES], item)
    if r.waiting[item] >= 0:
        reopen(h, r, s.classes, s.lines, meta[RESOURCES], item)


def refresh(s: State) -> None:
    """Follow a change of what the cluster has: all shares are other parts now."""
    h, r, meta = s.heaps, s.roles, s.meta
    for item in range(meta[ITEMS]):
        if r.stands[item] < 0:
            h.key[item] = share_key(r, meta[RESOURCES], item)
    for item in range(meta[ITEMS]):
        if r.kids[item] > 0 and item != OWED:
            reorder(h, item)


def hand_down(s: State, role: int, own: int) -> None:
    """Move a role's lines to the child that stands for it itself."""
    h, r = s.heaps, s.roles
    r.first[own] = r.first[role]
    r.first[role] = -1
    r.leaf[role] = own
    h.key[own] = share_key(r, s.meta[RESOURCES], own)
    collect_bits(h, r, s.lines, own)
    if r.first[own] >= 0:
        wake(h, r, s.meta[RESOURCES], own)


def cell_of(s: State, first: int, second: int) -> int:
    """The cell of these free amounts."""
    return level_of(s.cells, 0, first) * LEVELS + level_of(s.cells, 1, second)


def open_node(s: State, node: int, cell: int) -> None:
    """Let a node take work (put it in this cell), or with -1 nothing new."""
    if s.nodes.cell[node] != cell:
        move(s.cells, s.nodes, node, cell)
        if cell >= 0:
            note_freed(s.nodes, s.meta, node)
