"""One call per tick: demands and ends of tasks come in as arrays, decisions go out as an array of task rows."""

from corral.allocator.engine.cells import give, level_of, move, note_freed, take_back
from corral.allocator.engine.columns import (
    BITS,
    DEAD,
    DEATHS,
    DEVICES,
    FREE_LINE,
    FREE_LINES,
    FREED,
    HANDED,
    HANDED_DEVICES,
    HANDED_LINE,
    HANDED_NODE,
    ITEMS,
    LEVELS,
    NOT_HANDED,
    OWED,
    RESOURCES,
    RETEST,
    ROOT,
    RUNNING,
    SCRATCH,
    SPARE_TASKS,
    TOUCHED,
    UNDONE,
    Heaps,
    Ints,
    Lines,
    Roles,
    State,
    Tasks,
)
from corral.allocator.engine.fair import (
    charge,
    collect_bits,
    find_limit,
    reopen,
    retire,
    settle_shadow,
    settle_unmet,
    share_key,
    wake,
)
from corral.allocator.engine.heaps import find_leaf, rekey, reorder
from corral.allocator.engine.rules import count_all, count_one, mark_devices, split_gpus, take_devices
from corral.allocator.engine.search import bury, find_node, hear, retest, revive


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


def give_back(s: State, leaf: int, node: int, cls: int, devices: int) -> None:
    """A node and a role have one instance less, and those who wait for it are let on."""
    h, r, n, k, meta = s.heaps, s.roles, s.nodes, s.classes, s.meta
    take_back(s.cells, n, k, r, meta, node, cls)
    if n.cell[node] >= 0:
        note_freed(n, meta, node)
    if devices != 0:
        mark_devices(n, meta[DEVICES], node, devices, -k.part[cls])
    charge(h, r, k, meta, leaf, cls, -1)
    item = leaf
    while item != ROOT:
        if r.waiting[item] >= 0:
            reopen(h, r, k, s.lines, meta, item)
        item = h.parent[item]


def release(s: State, tasks: Ints) -> None:
    """End these tasks: their nodes and roles have their resources again."""
    k, t, meta = s.classes, s.tasks, s.meta
    for i in range(len(tasks)):
        task = tasks[i]
        node, cls = t.node[task], t.cls[task]
        count_all(s.nodes, s.tallies, k, meta, node, cls, -1)
        give_back(s, s.roles.leaf[t.role[task]], node, cls, t.devices[task])
        drop_task(t, meta, task)


def drop_task(t: Tasks, meta: Ints, task: int) -> None:
    """Forget a task's row; what it holds is another matter."""
    t.node[task] = -1
    t.spare[meta[SPARE_TASKS]] = task
    meta[SPARE_TASKS] += 1
    meta[RUNNING] -= 1


def forget(s: State, tasks: Ints) -> None:
    """Forget the rows of tasks that go on holding what they hold; `hold` with -1 takes it back."""
    for i in range(len(tasks)):
        drop_task(s.tasks, s.meta, tasks[i])


def hold(s: State, leaves: Ints, nodes: Ints, amounts: Ints, signs: Ints, lends: Ints, devices: Ints) -> None:
    """Charge nodes and roles with amounts that no class describes, or with -1 take that back.

    `devices` says which GPUs; 0 lets them be chosen, and they are written there.
    """
    h, n, k, r, meta = s.heaps, s.nodes, s.classes, s.roles, s.meta
    resources = meta[RESOURCES]
    for i in range(len(leaves)):
        leaf, node = leaves[i], nodes[i]
        for d in range(resources):
            k.shape[SCRATCH * (resources + 1) + d] = amounts[i * resources + d]
        split_gpus(k, meta, SCRATCH)
        k.revocable[SCRATCH] = lends[i]
        if signs[i] < 0:
            give_back(s, leaf, node, SCRATCH, devices[i])
            continue
        if devices[i] != 0:
            mark_devices(n, meta[DEVICES], node, devices[i], k.part[SCRATCH])
        elif k.gpus[SCRATCH] > 0:
            devices[i] = take_devices(n, k, meta[DEVICES], node, SCRATCH)
        give(s.cells, n, k, r, meta, node, SCRATCH)
        charge(h, r, k, meta, leaf, SCRATCH, 1)


def recount(s: State, tallies: Ints, nodes: Ints, signs: Ints) -> None:
    """Count instances that came from outside in tallies, or with -1 uncount them."""
    for i in range(len(tallies)):
        count_one(s.nodes, s.tallies, s.meta, tallies[i], nodes[i], signs[i])


def pick_line(s: State, leaf: int) -> int:
    """The first line of a role that may be served; those that would break a limit are set aside, -1 if all are."""
    h, r, k, lines, meta = s.heaps, s.roles, s.classes, s.lines, s.meta
    line = r.first[leaf]
    while line >= 0:
        cls = lines.cls[line]
        if lines.blocked[line] < 0 and k.state[cls] != DEAD:
            item = find_limit(h, r, k, meta, leaf, cls, max(1, k.gang[cls]))
            if item < 0:
                return line
            lines.blocked[line] = item
            lines.hold[line] = r.waiting[item]
            r.waiting[item] = line
            wake(h, r, meta[RESOURCES], leaf)
            collect_bits(h, r, lines, leaf)
        line = lines.next[line]
    return -1


def retest_freed(s: State) -> None:
    """Try dead classes on the nodes freed since the last tick, and lines that lacked headroom."""
    n, k, meta = s.nodes, s.classes, s.meta
    for i in range(meta[FREED]):
        node = n.freed[i]
        n.dirty[node] = 0
        if meta[RETEST] != 0:
            retest(s.heaps, s.cells, n, s.tallies, k, meta, node)
    if meta[RETEST] == 0 and meta[FREED] > 0:
        for row in range(LEVELS):
            while k.dead[row] >= 0:
                revive(s.heaps, k, meta, k.dead[row])
    meta[FREED] = 0
    hear(s.heaps, s.tallies, k, meta)
    if s.roles.waiting[ROOT] >= 0:
        reopen(s.heaps, s.roles, k, s.lines, meta, ROOT)


def place(s: State, leaf: int, role: int, cls: int, node: int, devices: int) -> int:
    """Put one instance there; returns its task row."""
    n, k, t, meta = s.nodes, s.classes, s.tasks, s.meta
    if k.gpus[cls] > 0:
        if devices != 0:
            mark_devices(n, meta[DEVICES], node, devices, k.part[cls])
        else:
            devices = take_devices(n, k, meta[DEVICES], node, cls)
    give(s.cells, n, k, s.roles, meta, node, cls)
    charge(s.heaps, s.roles, k, meta, leaf, cls, 1)
    if k.feeds[cls] > 0:
        count_all(n, s.tallies, k, meta, node, cls, 1)
    meta[SPARE_TASKS] -= 1
    task = t.spare[meta[SPARE_TASKS]]
    t.role[task], t.cls[task], t.node[task], t.devices[task] = role, cls, node, devices
    meta[RUNNING] += 1
    return task


def undo(s: State, leaf: int, tasks: Ints, begin: int, end: int) -> None:
    """Take back the part of a gang that found room, as if it had never been placed."""
    n, k, t, meta = s.nodes, s.classes, s.tasks, s.meta
    for at in range(end - 1, begin - 1, -1):
        task = tasks[at]
        node, cls = t.node[task], t.cls[task]
        count_all(n, s.tallies, k, meta, node, cls, -1)
        take_back(s.cells, n, k, s.roles, meta, node, cls)
        if t.devices[task] != 0:
            mark_devices(n, meta[DEVICES], node, t.devices[task], -k.part[cls])
        charge(s.heaps, s.roles, k, meta, leaf, cls, -1)
        drop_task(t, meta, task)
        meta[UNDONE] += 1


def find_next(s: State) -> int:
    """The role to serve next, guarantees first, or -1; classes whose tallies have changed are given another chance."""
    h, r = s.heaps, s.roles
    while True:
        leaf = -1
        if h.size[OWED * 2] + h.size[OWED * 2 + 1] > 0:
            leaf = find_leaf(h, r, OWED)
        if leaf < 0:
            leaf = find_leaf(h, r, ROOT)
        if leaf >= 0 or hear(h, s.tallies, s.classes, s.meta) == 0:
            return leaf


def serve_line(s: State, leaf: int, line: int, placed: int, out: Ints) -> int:
    """Place one instance of a line, or a gang whole, as in `serve`; returns how many are placed then."""
    h, r, k, lines, meta = s.heaps, s.roles, s.classes, s.lines, s.meta
    room = len(out) // 5
    cls, role = lines.cls[line], lines.role[line]
    size, begin, touched = max(1, k.gang[cls]), placed, meta[TOUCHED]
    while placed < begin + size:
        devices = 0
        if k.scored[cls] == HANDED:
            if meta[HANDED_NODE] == NOT_HANDED:
                meta[HANDED_LINE] = line
                return placed
            node, devices = meta[HANDED_NODE], meta[HANDED_DEVICES]
            meta[HANDED_NODE] = NOT_HANDED
        else:
            node = find_node(s.cells, s.nodes, s.tallies, k, meta, cls)
        if node < 0:
            break
        task = place(s, leaf, role, cls, node, devices)
        out[placed], out[room + placed], out[2 * room + placed] = task, role, cls
        out[3 * room + placed], out[4 * room + placed] = node, s.tasks.devices[task]
        placed += 1
    if placed < begin + size:
        undo(s, leaf, out, begin, placed)
        while meta[TOUCHED] > touched:
            meta[TOUCHED] -= 1
            s.tallies.touched[s.tallies.queue[meta[TOUCHED]]] = 0
        bury(h, k, meta, cls)
        meta[DEATHS] += 1
        return begin
    lines.left[line] -= size
    if lines.left[line] <= 0:
        drop_line(h, r, lines, meta, leaf, line)
        if r.first[leaf] < 0:
            retire(h, r, meta[RESOURCES], leaf)
    return placed


def serve(s: State, most: int, placed: int, out: Ints) -> int:
    """Place up to `most` instances in fair order, and a gang whole; writes them to `out` from `placed` on.

    Shapes: `out` has five parts of equal length: task rows, and what the tasks' columns say of each (role, class, node,
    devices). Returns how many there are. Comes back early with HANDED_LINE set for a line whose node is chosen outside:
    call again with the choice in HANDED_NODE, -1 when there is none.
    """
    if s.meta[HANDED_NODE] == NOT_HANDED:
        retest_freed(s)
    while placed < most:
        leaf = find_next(s)
        if leaf < 0:
            break
        line = pick_line(s, leaf)
        if line >= 0:
            placed = serve_line(s, leaf, line, placed, out)
            if s.meta[HANDED_LINE] >= 0:
                break
    return placed


def settle_role(s: State, item: int) -> None:
    """Follow a change of a role's weight, priority, guarantee or limit."""
    h, r, meta = s.heaps, s.roles, s.meta
    rekey(h, item, share_key(r, meta[RESOURCES], item))
    if r.shadow[item] >= 0:
        settle_shadow(h, r, meta[RESOURCES], item)
    above = item
    while above != ROOT:
        settle_unmet(h, r, meta[RESOURCES], above)
        above = h.parent[above]
    if r.waiting[item] >= 0:
        reopen(h, r, s.classes, s.lines, meta, item)


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
    n, meta = s.nodes, s.meta
    old = n.cell[node]
    if old == cell:
        return
    move(s.cells, n, node, cell)
    if cell >= 0:
        note_freed(n, meta, node)
    if old < 0 or cell < 0:
        sign = 1 if cell >= 0 else -1
        for d in range(meta[RESOURCES]):
            at = node * meta[RESOURCES] + d
            s.roles.spare[d] += sign * max(0, n.free[at] + n.lent[at])
