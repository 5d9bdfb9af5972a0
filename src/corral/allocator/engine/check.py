"""Whether an engine's columns agree with one another: what `Engine.invariants` asserts, for tests and long runs."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from corral.allocator.engine.catalog import Demand, Node, admits
from corral.allocator.engine.columns import (
    CELLS,
    DEAD,
    FREED,
    HINTS,
    ITEMS,
    LEVELS,
    LIVE,
    MAIN,
    NODES,
    OUT,
    OWED,
    RESOURCES,
    ROOT,
    RUNNING,
    SPARE_TASKS,
    STARVED,
    State,
)
from corral.allocator.engine.fair import exceeds, share_key
from corral.allocator.engine.turn import cell_of


class Facts(NamedTuple):
    """What an engine knows beside its columns."""

    nodes: dict[int, Node]
    demands: Sequence[Demand]
    waiting: int
    current: bool
    bits: int


def check(s: State, facts: Facts) -> None:
    """Errors: `AssertionError` naming the first thing that does not add up."""
    _check_nodes(s, facts)
    _check_roles(s, facts)
    _check_lines(s, facts)
    _check_heaps(s, facts.bits)
    _check_cells(s, facts)
    _check_dead(s, facts)


def _tasks(s: State) -> Iterator[tuple[int, int, int]]:
    for task, node in enumerate(s.tasks.node):
        if node >= 0:
            yield s.tasks.role[task], s.tasks.cls[task], node


def _check_nodes(s: State, facts: Facts) -> None:
    resources = s.meta[RESOURCES]
    free = {row: list(node.total) for row, node in facts.nodes.items()}
    tasks = dict.fromkeys(facts.nodes, 0)
    for _, cls, node in _tasks(s):
        tasks[node] += 1
        for d, ask in enumerate(facts.demands[cls].shape):
            free[node][d] -= ask
    for row, left in free.items():
        assert min(left) >= 0, f"node {row} is given away twice: {left} left"
        assert list(s.nodes.free[row * resources : (row + 1) * resources]) == left, f"node {row} loses resources"
        assert s.nodes.tasks[row] == tasks[row], f"node {row} miscounts its tasks"
    running = sum(tasks.values())
    assert s.meta[RUNNING] == running, "running tasks are miscounted"
    assert s.meta[SPARE_TASKS] == len(s.tasks.node) - running, "task rows are lost"


def _check_roles(s: State, facts: Facts) -> None:
    h, r = s.heaps, s.roles
    width = s.meta[RESOURCES] + 1
    held = [[0] * width for _ in range(s.meta[ITEMS])]
    for role, cls, _ in _tasks(s):
        item = r.leaf[role]
        while item != ROOT:
            for d, ask in enumerate((*facts.demands[cls].shape, 1)):
                held[item][d] += ask
            item = h.parent[item]
    for item in range(2, s.meta[ITEMS]):
        if r.stands[item] >= 0:
            owed = _is_owed(s, r.stands[item])
            assert (h.side[item] != OUT) == owed, f"the shadow of role {r.stands[item]} is wrong: owed {owed}"
            continue
        assert list(r.held[item * width : (item + 1) * width]) == held[item], f"role {item} miscounts what it holds"
        if facts.current:
            assert h.key[item] == share_key(r, width - 1, item), f"role {item} stands at an old share"


def _is_owed(s: State, item: int) -> bool:
    resources = s.meta[RESOURCES]
    goals = s.roles.guarantee[item * resources : (item + 1) * resources]
    held = s.roles.held[item * (resources + 1) : (item + 1) * (resources + 1)]
    below = all(have < goal for have, goal in zip(held, goals, strict=False) if goal > 0)
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
                assert exceeds(r, s.classes, s.meta[RESOURCES], lines.blocked[line], lines.cls[line]), (
                    f"line {line} waits for a limit that it keeps"
                )
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


def _check_heaps(s: State, bits: int) -> None:
    h, r = s.heaps, s.roles
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
                source = item if r.stands[item] < 0 else r.stands[item]
                assert r.kids[source] == 0 or source != item or h.size[item * 2] == 0, f"item {item} starves in plenty"
                for w in range(words):
                    asked = h.bits[item * words + w]
                    assert _asked(s, source, w, bits) & ~asked == 0, f"item {item} is starved and forgets what it asks"
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
    for cls, demand in enumerate(facts.demands):
        alive = s.heaps.live[cls // facts.bits] >> (cls % facts.bits) & 1
        assert alive == (k.state[cls] != DEAD), f"class {cls} is dead and alive"
        if k.state[cls] == LIVE:
            continue
        known = freed | set(k.hint[cls * HINTS : cls * HINTS + k.hints[cls]])
        for row, node in facts.nodes.items():
            free = n.free[row * resources : (row + 1) * resources]
            room = all(have >= ask for have, ask in zip(free, demand.shape, strict=True))
            assert row in known or n.cell[row] < 0 or not room or not admits(demand, node), (
                f"class {cls} is thought to fit nowhere but fits on node {row}"
            )
