"""What one placement and one end of a task change, as plain Python does it: the same answers as in `fair`, `cells`,
`search` and `turn`, with what they call written out, and of a class only what it asks.
"""

from collections.abc import Iterable
from operator import add, mul, sub

import numpy as np

from corral.allocator.engine.cells import find_cell, note_freed
from corral.allocator.engine.columns import (
    CELLS,
    DEAD,
    DEAD_ROWS,
    DEATHS,
    DEVICES,
    FREED,
    GPUS,
    HANDED,
    HANDED_LINE,
    HANDED_NODE,
    LEVELS,
    MAIN,
    MOST_SHARE,
    NOT_HANDED,
    PROMISED,
    REMEMBERS,
    RESOURCES,
    RETEST,
    ROOT,
    RUNNING,
    SPARE_TASKS,
    STARVED,
    WALK,
    WALKED,
    Cells,
    Classes,
    Heaps,
    Ints,
    Nodes,
    Roles,
    State,
    Tallies,
    Tasks,
)
from corral.allocator.engine.fair import find_limit, reopen, retire, settle_shadow, settle_unmet
from corral.allocator.engine.heaps import admit, insert, rekey, remove, starve
from corral.allocator.engine.rules import WHOLE, count_all, mark_devices, suits, take_devices
from corral.allocator.engine.search import CUT, IN_CELL, WORST, bury, find_node, hear, retest, revive
from corral.allocator.engine.turn import drop_line, drop_task, find_next, give_back, pick_line, serve_line

FEW = 16
"""Tasks for which NumPy is not worth the asking."""


class Known(Classes):
    """Classes, and by their rows what each asks: the places of its resources with the amounts, none of them 0."""

    asks: dict[int, tuple[tuple[int, int], ...]]


def split_gpus(k: Known, meta: Ints, cls: int) -> None:
    """As `rules.split_gpus`; and note what the class asks."""
    width = meta[RESOURCES] + 1
    shape = k.shape[cls * width : cls * width + width - 1]
    k.asks[cls] = tuple([each for each in enumerate(shape) if each[1]])
    k.gpus[cls], k.part[cls] = 0, 0
    asked = shape[meta[GPUS]] if meta[GPUS] >= 0 else 0
    if asked >= WHOLE and asked % WHOLE == 0:
        k.gpus[cls], k.part[cls] = asked // WHOLE, WHOLE
    elif 0 < asked < WHOLE:
        k.gpus[cls], k.part[cls] = 1, asked


def move(c: Cells, n: Nodes, node: int, cell: int) -> None:
    """As `cells.move`."""
    old = n.cell[node]
    heads, after, before = c.head, c.next, c.prev
    at = node * 2
    for index in (n.pool[node], n.mark[node]):
        if index >= 0:
            if old >= 0:
                place, follows = index * CELLS + old, after[at]
                if follows == at:
                    heads[place] = -1
                    row = index * LEVELS + (old >> 6)
                    c.row[row] ^= 1 << (old & 63)
                    if not c.row[row]:
                        c.rows[index] ^= 1 << (old >> 6)
                else:
                    precedes = before[at]
                    after[precedes] = follows
                    before[follows] = precedes
                    if heads[place] == at:
                        heads[place] = follows
            if cell >= 0:
                place = index * CELLS + cell
                head = heads[place]
                if head < 0:
                    after[at] = before[at] = at
                    c.row[index * LEVELS + (cell >> 6)] |= 1 << (cell & 63)
                    c.rows[index] |= 1 << (cell >> 6)
                else:
                    tail = before[head]
                    after[at], before[at] = head, tail
                    after[tail] = before[head] = at
                heads[place] = at
        at += 1
    n.cell[node] = cell


def take(n: Nodes, k: Known, r: Roles, resources: int, node: int, cls: int, sign: int, open_: bool) -> None:
    """As `cells.take`."""
    at = node * resources
    free, lent, spare, lends = n.free, n.lent, r.spare, k.revocable[cls] != 0
    for d, asked in k.asks[cls]:
        change = asked * sign
        now = free[at + d] - change
        free[at + d] = now
        if lends:
            lent[at + d] += change
        elif open_:
            now += lent[at + d]
            spare[d] -= change if 0 <= now >= -change else max(0, now + change) - max(0, now)


def fits(n: Nodes, t: Tallies, k: Known, meta: Ints, node: int, cls: int, level: int) -> bool:
    """As `search.fits`."""
    if n.cell[node] < 0:
        return False
    free, at = n.free, node * meta[RESOURCES]
    for d, asked in k.asks[cls]:
        if asked > free[at + d] and asked > 0:
            return False
    return k.extra[cls] == 0 or suits(n, t, k, meta, node, cls, level)


def walk(c: Cells, n: Nodes, t: Tallies, k: Known, meta: Ints, cls: int, begin: int, end: int) -> int:
    """As `search.walk`."""
    if k.spread[cls]:
        return walk_down(c, n, t, k, meta, cls, begin, end)
    most, level, extra, asks = meta[WALK], k.level[cls], k.extra[cls] != 0, k.asks[cls]
    first_row, first_col = k.row[cls], k.col[cls]
    heads, after, free, resources = c.head, c.next, n.free, meta[RESOURCES]
    found, found_cell, cut = -1, WORST, False
    for index in k.listed[begin:end]:
        left = most
        rows = (c.rows[index] >> first_row) << first_row
        while rows:
            bit = rows & -rows
            rows ^= bit
            row = bit.bit_length() - 1
            if row * LEVELS + first_col >= found_cell:
                break
            cols = (c.row[index * LEVELS + row] >> first_col) << first_col
            while cols:
                bit = cols & -cols
                cols ^= bit
                cell = row * LEVELS + bit.bit_length() - 1
                if cell >= found_cell:
                    rows = 0
                    break
                link = stop = heads[index * CELLS + cell]
                tried = 0
                while True:
                    at = (link >> 1) * resources
                    for d, asked in asks:
                        if asked > free[at + d]:
                            break
                    else:
                        if not extra or suits(n, t, k, meta, link >> 1, cls, level):
                            found, found_cell = link >> 1, cell
                            break
                    tried += 1
                    link = after[link]
                    if link == stop:
                        break
                    if tried >= IN_CELL:
                        cut = True
                        break
                left -= tried
                if found_cell == cell:
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


def walk_down(c: Cells, n: Nodes, t: Tallies, k: Known, meta: Ints, cls: int, begin: int, end: int) -> int:
    """As `search.walk` of a class that is spread out: from the roomiest cell down."""
    most, level = meta[WALK], k.level[cls]
    first_row, first_col = k.row[cls], k.col[cls]
    found, found_cell, cut = -1, -1, False
    for index in k.listed[begin:end]:
        left = most
        rows = (c.rows[index] >> first_row) << first_row
        while rows:
            row = rows.bit_length() - 1
            rows ^= 1 << row
            if row * LEVELS + LEVELS - 1 <= found_cell:
                break
            cols = (c.row[index * LEVELS + row] >> first_col) << first_col
            while cols:
                col = cols.bit_length() - 1
                cols ^= 1 << col
                cell = row * LEVELS + col
                if cell <= found_cell:
                    rows = 0
                    break
                link = stop = c.prev[c.head[index * CELLS + cell]]
                tried = 0
                while True:
                    if fits(n, t, k, meta, link >> 1, cls, level):
                        found, found_cell = link >> 1, cell
                        break
                    tried += 1
                    link = c.prev[link]
                    if link == stop:
                        break
                    if tried >= IN_CELL:
                        cut = True
                        break
                left -= tried
                if found_cell == cell:
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


def charge(h: Heaps, r: Roles, k: Classes, meta: Ints, leaf: int, cls: int, sign: int) -> None:
    """As `fair.charge`."""
    width = meta[RESOURCES] + 1
    shape = k.shape[cls * width : cls * width + width]
    if sign < 0:
        shape = [-each for each in shape]
    lends = k.revocable[cls] != 0
    item = leaf
    while item != ROOT:
        if sign > 0 and h.side[item] == STARVED:
            remove(h, item)
            insert(h, item, MAIN)
        settle(h, r, meta, item, shape, lends)
        shadow = r.shadow[item]
        if shadow >= 0 and sign > 0 and h.side[shadow] == STARVED:
            admit(h, shadow)
        item = h.parent[item]


def settle(h: Heaps, r: Roles, meta: Ints, item: int, amounts: list[int], lends: bool) -> None:
    """Add to what a role holds, tasks last, and put it where it belongs now."""
    resources = meta[RESOURCES]
    width = resources + 1
    at, before, held = item * width, item * resources, r.held
    held[at : at + width] = row = list(map(add, held[at : at + width], amounts))
    if lends:
        r.lent[before : before + resources] = map(add, r.lent[before : before + resources], amounts[:resources])
    if meta[PROMISED]:
        settle_unmet(h, r, resources, item)
    if meta[REMEMBERS]:
        row = list(map(max, row, r.past[before : before + resources]))
    share = int(max(map(mul, row, r.inverse)) * r.scale[item])
    key = r.base[item] + (share if 0 <= share <= MOST_SHARE else MOST_SHARE if share > 0 else 0)
    if h.key[item] != key:
        rekey(h, item, key)
    if r.shadow[item] >= 0:
        settle_shadow(h, r, resources, item)


def grow(h: Heaps, r: Roles, k: Known, meta: Ints, leaf: int, cls: int) -> None:
    """As `charge` of one instance more: only what it asks can have become the dominant share."""
    if meta[PROMISED] or meta[REMEMBERS] or k.revocable[cls]:
        charge(h, r, k, meta, leaf, cls, 1)
        return
    asks, width = k.asks[cls], meta[RESOURCES] + 1
    held, inverse, keys, parents, side = r.held, r.inverse, h.key, h.parent, h.side
    item = leaf
    while item != ROOT:
        at = item * width
        most = 0.0
        for d, asked in asks:
            now = held[at + d] + asked
            held[at + d] = now
            part = now * inverse[d]
            if part > most:
                most = part
        held[at + width - 1] += 1
        share = int(most * r.scale[item])
        key = r.base[item] + (share if share <= MOST_SHARE else MOST_SHARE)
        if side[item] == STARVED:
            remove(h, item)
            if key > keys[item]:
                keys[item] = key
            insert(h, item, MAIN)
        elif key > keys[item]:
            rekey(h, item, key)
        item = parents[item]


def put(s: State, leaf: int, cls: int, node: int) -> None:
    """Take one instance's resources from a node, and count them to a role; its GPUs are another matter."""
    c, n, k, meta = s.cells, s.nodes, s.classes, s.meta
    old, resources = n.cell[node], meta[RESOURCES]
    take(n, k, s.roles, resources, node, cls, 1, old >= 0)  # type: ignore[arg-type]
    n.tasks[node] += 1
    n.version[node] += 1
    if old >= 0:
        cell = find_cell(c, n, resources, node)
        if cell != old or k.spread[cls]:
            move(c, n, node, cell)
    grow(s.heaps, s.roles, k, meta, leaf, cls)  # type: ignore[arg-type]
    if k.feeds[cls]:
        count_all(n, s.tallies, k, meta, node, cls, 1)


def place(s: State, leaf: int, role: int, cls: int, node: int, devices: int) -> int:
    """As `turn.place`."""
    n, k, t, meta = s.nodes, s.classes, s.tasks, s.meta
    if k.gpus[cls]:
        if devices:
            mark_devices(n, meta[DEVICES], node, devices, k.part[cls])
        else:
            devices = take_devices(n, k, meta[DEVICES], node, cls)
    put(s, leaf, cls, node)
    spare = meta[SPARE_TASKS] = meta[SPARE_TASKS] - 1
    task = t.spare[spare]
    t.role[task], t.cls[task], t.node[task], t.devices[task] = role, cls, node, devices
    meta[RUNNING] += 1
    return task


def serve(s: State, most: int, placed: int, out: Ints) -> int:
    """As `turn.serve`. Single instances without GPUs go a shorter way, and their tasks are written down together."""
    h, r, n, k, lines, meta = s.heaps, s.roles, s.nodes, s.classes, s.lines, s.meta
    spare, blocked, state, left = s.tasks.spare, lines.blocked, k.state, lines.left
    found: list[tuple[int, int, int, int]] = []
    if meta[HANDED_NODE] == NOT_HANDED:
        retest_freed(s)
    while placed + len(found) < most:
        leaf = find_next(s)
        if leaf < 0:
            break
        line = r.first[leaf]
        cls = lines.cls[line]
        if blocked[line] >= 0 or state[cls] == DEAD or find_limit(h, r, k, meta, leaf, cls, max(1, k.gang[cls])) >= 0:
            line = pick_line(s, leaf)
            if line < 0:
                continue
            cls = lines.cls[line]
        if k.gang[cls] > 1 or k.scored[cls] == HANDED or k.gpus[cls]:
            placed = write_tasks(s.tasks, out, placed, found)
            found.clear()
            placed = serve_line(s, leaf, line, placed, out)
            if meta[HANDED_LINE] >= 0:
                break
            continue
        node = find_node(s.cells, n, s.tallies, k, meta, cls)
        if node < 0:
            bury(h, k, meta, cls)
            meta[DEATHS] += 1
            continue
        put(s, leaf, cls, node)
        meta[SPARE_TASKS] -= 1
        meta[RUNNING] += 1
        found.append((spare[meta[SPARE_TASKS]], lines.role[line], cls, node))
        left[line] -= 1
        if left[line] <= 0:
            drop_line(h, r, lines, meta, leaf, line)
            if r.first[leaf] < 0:
                retire(h, r, meta[RESOURCES], leaf)
            elif not h.bits[leaf] & h.live[0]:
                # What it asks else fits nowhere: it would be set aside when it is first the next time.
                starve(h, leaf, leaf, True)
    return write_tasks(s.tasks, out, placed, found)


def write_tasks(t: Tasks, out: Ints, placed: int, found: list[tuple[int, int, int, int]]) -> int:
    """Let `out` and the tasks' columns say what was found, without GPUs; returns how many are placed then."""
    if not found:
        return placed
    task, *told = np.array(found, dtype=np.int64).T
    there = np.asarray(out).reshape(5, -1)[:, placed : placed + len(found)]
    for at, values in enumerate((task, *told, 0)):
        there[at] = values
    for column, values in zip((t.role, t.cls, t.node, t.devices), (*told, 0), strict=True):
        np.asarray(column)[task] = values
    return placed + len(found)


def retest_freed(s: State) -> None:
    """As `turn.retest_freed`."""
    n, k, meta = s.nodes, s.classes, s.meta
    for node in n.freed[: meta[FREED]]:
        n.dirty[node] = 0
        # Dead classes stand by the least they ask: most nodes that were freed have room for none.
        if meta[RETEST] and n.cell[node] >= 0 and meta[DEAD_ROWS] & ((2 << (n.cell[node] >> 6)) - 1):
            retest(s.heaps, s.cells, n, s.tallies, k, meta, node)
    if not meta[RETEST] and meta[FREED]:
        for row in range(LEVELS):
            while k.dead[row] >= 0:
                revive(s.heaps, k, meta, k.dead[row])
    meta[FREED] = 0
    hear(s.heaps, s.tallies, k, meta)
    if s.roles.waiting[ROOT] >= 0:
        reopen(s.heaps, s.roles, k, s.lines, meta, ROOT)


def release(s: State, tasks: Ints) -> None:
    """As `turn.release`, but each role is settled once."""
    h, r, c, n, k, t, meta = s.heaps, s.roles, s.cells, s.nodes, s.classes, s.tasks, s.meta
    if meta[PROMISED]:
        # Whether headroom is kept in between decides who goes on, so ends count one by one.
        for task in tasks:
            node, cls = t.node[task], t.cls[task]
            count_all(n, s.tallies, k, meta, node, cls, -1)
            give_back(s, r.leaf[t.role[task]], node, cls, t.devices[task])
            drop_task(t, meta, task)
        return
    resources = meta[RESOURCES]
    width = resources + 1
    freed: dict[tuple[int, int], list[int]] = {}
    for role, cls, node, devices in read_tasks(t, tasks):
        if k.feeds[cls]:
            count_all(n, s.tallies, k, meta, node, cls, -1)
        old = n.cell[node]
        take(n, k, r, resources, node, cls, -1, old >= 0)  # type: ignore[arg-type]
        n.tasks[node] -= 1
        n.version[node] += 1
        if old >= 0:
            cell = find_cell(c, n, resources, node)
            if cell != old:
                move(c, n, node, cell)
            if not n.dirty[node]:
                note_freed(n, meta, node)
        if devices:
            mark_devices(n, meta[DEVICES], node, devices, -k.part[cls])
        at = r.leaf[role], k.revocable[cls]
        shape = k.shape[cls * width : cls * width + width]
        freed[at] = list(map(sub, freed[at], shape)) if at in freed else [-each for each in shape]
    drop_tasks(t, meta, tasks)
    while freed:
        above: dict[tuple[int, int], list[int]] = {}
        for (item, lends), amounts in freed.items():
            settle(h, r, meta, item, amounts, lends != 0)
            at = h.parent[item], lends
            if at[0] != ROOT:
                above[at] = list(map(add, above[at], amounts)) if at in above else amounts
        for item, _ in freed:
            if r.waiting[item] >= 0:
                reopen(h, r, k, s.lines, meta, item)
        freed = above


def read_tasks(t: Tasks, tasks: Ints) -> Iterable[tuple[int, int, int, int]]:
    """Role, class, node and devices of each."""
    if len(tasks) < FEW:
        return [(t.role[each], t.cls[each], t.node[each], t.devices[each]) for each in tasks]
    return zip(*(np.asarray(each)[tasks].tolist() for each in (t.role, t.cls, t.node, t.devices)), strict=True)


def drop_tasks(t: Tasks, meta: Ints, tasks: Ints) -> None:
    """As `turn.drop_task` of one after the other."""
    if len(tasks) < FEW:
        for task in tasks:
            drop_task(t, meta, task)
        return
    at, count = meta[SPARE_TASKS], len(tasks)
    np.asarray(t.node)[tasks] = -1
    np.asarray(t.spare)[at : at + count] = tasks
    meta[SPARE_TASKS] = at + count
    meta[RUNNING] -= count
