"""Whether an engine's columns agree with one another: what `Engine.invariants` asserts, for tests and long runs."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from corral.allocator.engine.catalog import Demand, Node, admits
from corral.allocator.engine.columns import (
    CELLS,
    DEAD,
    DEVICES,
    FREED,
    GPUS,
    HANDED,
    HINTS,
    ITEMS,
    LEVELS,
    LIVE,
    MAIN,
    NODES,
    OUT,
    OWED,
    PROMISED,
    RESOURCES,
    ROOT,
    RULES,
    RUNNING,
    SPARE_TASKS,
    STARVED,
    TOUCHED,
    State,
)
from corral.allocator.engine.fair import exceeds, share_key
from corral.allocator.engine.queues import check_queues
from corral.allocator.engine.rules import suits
from corral.allocator.engine.turn import cell_of


class Facts(NamedTuple):
    """What an engine knows beside its columns."""

    nodes: dict[int, Node]
    demands: Sequence[Demand | None]
    waiting: int
    current: bool
    bits: int
    queued: bool
    held: Sequence[tuple[int, int, tuple[int, ...], bool, int]] = ()


def check(s: State, facts: Facts) -> None:
    """Errors: `AssertionError` naming the first thing that does not add up."""
    _check_nodes(s, facts)
    _check_roles(s, facts)
    _check_lines(s, facts)
    _check_starved(s, facts.bits)
    if facts.queued:
        check_queues(s.heaps, s.meta[ITEMS])  # type: ignore[arg-type]
    else:
        _check_heaps(s)
    _check_cells(s, facts)
    _check_dead(s, facts)


def _taken(s: State, facts: Facts) -> Iterator[tuple[int, int, tuple[int, ...], bool, int]]:
    """All that is taken: role, node, amounts, whether it is revocable, and a bit for each GPU."""
    for task, node in enumerate(s.tasks.node):
        if node >= 0:
            demand = facts.demands[s.tasks.cls[task]]
            assert demand is not None, f"task {task} is of a class that has gone"
            yield s.tasks.role[task], node, demand.shape, demand.revocable, s.tasks.devices[task]
    yield from facts.held


def _check_nodes(s: State, facts: Facts) -> None:
    resources, width = s.meta[RESOURCES], s.meta[DEVICES]
    free = {row: list(node.total) for row, node in facts.nodes.items()}
    lent = {row: [0] * resources for row in facts.nodes}
    gpus = {row: [0] * width for row in facts.nodes}
    tasks = dict.fromkeys(facts.nodes, 0)
    running = s.meta[RUNNING]
    for _, node, amounts, revocable, devices in _taken(s, facts):
        tasks[node] += 1
        for d, ask in enumerate(amounts):
            free[node][d] -= ask
            lent[node][d] += ask if revocable else 0
        for d in range(width):
            if devices >> d & 1:
                gpus[node][d] += min(amounts[s.meta[GPUS]], 1000)
    spare = [0] * resources
    for row, left in free.items():
        assert min(left) >= 0 or facts.held, f"node {row} is given away twice: {left} left"
        assert list(s.nodes.lent[row * resources : (row + 1) * resources]) == lent[row], f"node {row} lends otherwise"
        if s.meta[GPUS] >= 0:
            there = facts.nodes[row].total[s.meta[GPUS]] // 1000
            for d, used in enumerate(gpus[row]):
                has = 1000 if d < there else 0
                assert used <= has or facts.held, f"GPU {d} of node {row} is given away twice"
                assert s.nodes.gpu[row * width + d] == has - used, f"GPU {d} of node {row} is miscounted"
        if s.nodes.cell[row] >= 0:
            spare = [all + max(0, here + soft) for all, here, soft in zip(spare, left, lent[row], strict=True)]
        assert list(s.nodes.free[row * resources : (row + 1) * resources]) == left, f"node {row} loses resources"
        assert s.nodes.tasks[row] == tasks[row], f"node {row} miscounts its tasks"
    assert list(s.roles.spare) == spare, "what is spare on open nodes is miscounted"
    assert running == sum(tasks.values()) - len(facts.held), "running tasks are miscounted"
    assert s.meta[SPARE_TASKS] == len(s.tasks.node) - running, "task rows are lost"


def _check_roles(s: State, facts: Facts) -> None:
    h, r = s.heaps, s.roles
    width = s.meta[RESOURCES] + 1
    held = [[0] * width for _ in range(s.meta[ITEMS])]
    lent = [[0] * (width - 1) for _ in range(s.meta[ITEMS])]
    for role, _, amounts, revocable, _ in _taken(s, facts):
        item = r.leaf[role]
        while item != ROOT:
            for d, ask in enumerate((*amounts, 1)):
                held[item][d] += ask
            for d, ask in enumerate(amounts if revocable else ()):
                lent[item][d] += ask
            item = h.parent[item]
    for item in range(2, s.meta[ITEMS]):
        if r.stands[item] >= 0:
            owed = _is_owed(s, r.stands[item])
            assert (h.side[item] != OUT) == owed, f"the shadow of role {r.stands[item]} is wrong: owed {owed}"
            continue
        assert list(r.held[item * width : (item + 1) * width]) == held[item], f"role {item} miscounts what it holds"
        assert list(r.lent[item * (width - 1) : (item + 1) * (width - 1)]) == lent[item], f"role {item} lends otherwise"
        if s.meta[PROMISED]:
            _check_unmet(s, item)
        if facts.current:
            assert h.key[item] == share_key(r, width - 1, item), f"role {item} stands at an old share"


def _check_unmet(s: State, item: int) -> None:
    h, r, resources = s.heaps, s.roles, s.meta[RESOURCES]
    kids = [each for each in range(2, s.meta[ITEMS]) if h.parent[each] == item and r.stands[each] < 0]
    for d in range(resources):
        below = sum(r.unmet[each * resources + d] for each in kids)
        own = item * resources + d
        lacks = r.guarantee[own] - r.held[item * (resources + 1) + d] + r.lent[own]
        assert r.under[own] == below, f"role {item} miscounts what its children lack"
        assert r.unmet[own] == max(0, lacks, below), f"role {item} miscounts what its guarantee lacks"


def _is_owed(s: State, item: int) -> bool:
    resources = s.meta[RESOURCES]
    goals = s.roles.guarantee[item * resources : (item + 1) * resources]
    held = s.roles.held[item * (resources + 1) : (item + 1) * (resources + 1)]
    lent = s.roles.lent[item * resources : (item + 1) * resources]
    firm = [have - soft for have, soft in zip(held, lent, strict=False)]
    below = all(have < goal for have, goal in zip(firm, goals, strict=True) if goal > 0)
    return bool(below and s.heaps.side[item] != OUT and any(goals))


def _check_lines(s: State, facts: Facts) -> None:
    h, r, lines = s.heaps, s.roles, s.lines
    waiting, blocked = 0, set()
    for item in range(2, s.meta[ITEMS]):
        line, order = r.first[item], []
        while line >= 0:
            assert lines.left[line] > 0, f"line {line} asks nothing"
            assert r.leaf[lines.role[line]] == item, f"line {line} stands in another role"
            waiting += lines.left[line]
            order.append(-lines.priority[line])
            if lines.blocked[line] >= 0:
                blocked.add((line, lines.blocked[line]))
                size = max(1, s.classes.gang[lines.cls[line]])
                # Headroom comes back anywhere; it is looked at again in the next tick.
                assert lines.blocked[line] == ROOT or exceeds(
                    r, s.classes, s.meta[RESOURCES], lines.blocked[line], lines.cls[line], size
                ), f"line {line} waits for a limit that it keeps"
            line = lines.next[line]
        assert order == sorted(order), f"the lines of role {item} are out of order"
        if r.stands[item] < 0:
            busy = r.first[item] >= 0 if r.kids[item] == 0 else h.size[item * 2] + h.size[item * 2 + 1] > 0
            assert (h.side[item] != OUT) == busy, (
                f"role {item} stands in line without asking, or does not though it asks"
            )
    held = set()
    for item in range(s.meta[ITEMS]):
        line = r.waiting[item]
        while line >= 0:
            held.add((line, item))
            line = lines.hold[line]
    assert held == blocked, "lines that wait for a limit are lost"
    assert waiting == facts.waiting, f"{waiting} instances stand in line, {facts.waiting} were asked"


def _check_starved(s: State, bits: int) -> None:
    h, r = s.heaps, s.roles
    for item in range(2, s.meta[ITEMS]):
        if h.side[item] != STARVED:
            continue
        source = item if r.stands[item] < 0 else r.stands[item]
        assert r.kids[source] == 0 or source != item or h.size[item * 2] == 0, f"item {item} starves in plenty"
        for w in range(len(h.live)):
            asked = h.bits[item * len(h.live) + w]
            assert _asked(s, source, w, bits) & ~asked == 0, f"item {item} is starved and forgets what it asks"


def _check_heaps(s: State) -> None:
    h = s.heaps
    words = len(h.live)
    for parent in range(s.meta[ITEMS]):
        for side in (MAIN, STARVED):
            base, size = h.at[parent] + side * h.room[parent], h.size[parent * 2 + side]
            assert size <= h.room[parent], f"the heap of item {parent} is full"
            for place in range(size):
                item = h.items[base + place]
                assert (h.parent[item], h.side[item], h.pos[item]) == (parent, side, place), f"item {item} is misplaced"
                above = h.items[base + ((place - 1) >> 1)] if place else item
                assert (h.key[above], above) <= (h.key[item], item), f"item {item} stands above its betters"
                if side == MAIN:
                    continue
                for w in range(words):
                    asked = h.bits[item * words + w]
                    for child in (2 * place + 1, 2 * place + 2):
                        asked |= h.below[(base + child) * words + w] if child < size else 0
                    assert h.below[(base + place) * words + w] == asked, f"item {item} forgets what is asked below it"


def _asked(s: State, item: int, word: int, bits: int) -> int:
    """The classes of a word that unblocked lines ask at or below an item."""
    found, line = 0, s.roles.first[item]
    while line >= 0:
        cls = s.lines.cls[line]
        if s.lines.blocked[line] < 0 and cls // bits == word:
            found |= 1 << (cls % bits)
        line = s.lines.next[line]
    for child in range(2, s.meta[ITEMS]):
        if s.heaps.parent[child] == item and item != OWED:
            found |= _asked(s, child, word, bits)
    return int(found)


def _check_cells(s: State, facts: Facts) -> None:
    c, n = s.cells, s.nodes
    resources = s.meta[RESOURCES]
    seen = set()
    for index in range(len(c.rows)):
        rows = 0
        for row in range(LEVELS):
            word = 0
            for col in range(LEVELS):
                head = c.head[index * CELLS + row * LEVELS + col]
                link = head
                while link >= 0:
                    node = link >> 1
                    assert (n.mark if link & 1 else n.pool)[node] == index, f"node {node} stands in a foreign index"
                    assert n.cell[node] == row * LEVELS + col, f"node {node} stands in another cell than it thinks"
                    assert c.prev[c.next[link]] == link, f"node {node} is linked one way"
                    assert link not in seen, f"node {node} is linked twice"
                    seen.add(link)
                    link = c.next[link] if c.next[link] != head else -1
                word |= (1 << col) if head >= 0 else 0
            assert c.row[index * LEVELS + row] == word, f"row {row} of index {index} has a wrong bitmap"
            rows |= (1 << row) if word else 0
        assert c.rows[index] == rows, f"index {index} has a wrong bitmap"
    for node in range(s.meta[NODES]):
        cell = n.cell[node]
        assert cell < 0 or node in facts.nodes, f"node {node} is gone but open"
        assert cell < 0 or cell == cell_of(s, n.free[node * resources], n.free[node * resources + 1]), (
            f"node {node} stands in the wrong cell"
        )
        assert (node * 2 in seen) == (cell >= 0), f"node {node} is open but not indexed, or the reverse"
        assert (node * 2 + 1 in seen) == (cell >= 0 and n.mark[node] >= 0), f"node {node} lacks its signature's index"


def _check_dead(s: State, facts: Facts) -> None:
    k, n = s.classes, s.nodes
    resources = s.meta[RESOURCES]
    freed = set(n.freed[: s.meta[FREED]])
    touched = set(s.tallies.queue[: s.meta[TOUCHED]])
    for cls, demand in enumerate(facts.demands):
        if demand is None:
            continue
        alive = s.heaps.live[cls // facts.bits] >> (cls % facts.bits) & 1
        assert alive == (k.state[cls] != DEAD), f"class {cls} is dead and alive"
        if k.state[cls] == LIVE:
            continue
        if k.gang[cls] > 1 or _reads(s, cls) & touched or k.scored[cls] == HANDED:
            continue
        known = freed | set(k.hint[cls * HINTS : cls * HINTS + k.hints[cls]])
        for row, node in facts.nodes.items():
            free = n.free[row * resources : (row + 1) * resources]
            room = all(max(0, have) >= ask for have, ask in zip(free, demand.shape, strict=True))
            room = room and row not in demand.refused and suits(n, s.tallies, k, s.meta, row, cls, 1 << 40)
            assert row in known or n.cell[row] < 0 or not room or not admits(demand, node), (
                f"class {cls} is thought to fit nowhere but fits on node {row}"
            )


def _reads(s: State, cls: int) -> set[int]:
    """The tallies that may bring a class to life."""
    return {s.classes.rule[(cls * RULES + i) * 4 + 1] for i in range(s.classes.rules[cls])}
