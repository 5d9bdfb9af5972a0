"""Items in fair order as plain Python keeps them: the same answers as in `heaps`, by the queues of its own library.

A heap of `heapq` holds a number per item, its key above the item, and forgets nothing: who has moved or has another key
since is passed by when it comes first. Starved items stand in one heap per class that they ask.
"""

from collections.abc import Iterator
from heapq import heapify, heappop, heappush, heapreplace

from corral.allocator.engine.columns import MAIN, OUT, OWED, STARVED, Heaps, Ints, Roles

SHIFT = 32
ITEM = (1 << SHIFT) - 1
NOBODY = 1 << 128
"""More than any item's number."""

SPARE = 64
"""How many numbers out of date a heap may hold beside as many as it has items."""


class Queued(Heaps):
    """Columns with queues beside them. Shapes: `main` by parent; `starved` by parent and the class, as a bit.

    Of the columns `pos`, `at`, `room`, `items`, `below` and `stack` nothing is used.
    """

    main: dict[int, list[int]]
    starved: dict[int, dict[int, list[int]]]


def bits_of(word: int) -> Iterator[int]:
    while word:
        low = word & -word
        yield low
        word ^= low


def push_main(h: Queued, parent: int, entry: int) -> None:
    heap = h.main.get(parent)
    if heap is None:
        h.main[parent] = [entry]
        return
    heappush(heap, entry)
    if len(heap) > 2 * h.size[2 * parent + MAIN] + SPARE:
        key, side = h.key, h.side
        heap[:] = {e for e in heap if side[e & ITEM] == MAIN and key[e & ITEM] == e >> SHIFT}
        heapify(heap)


def push_starved(h: Queued, parent: int, entry: int) -> None:
    by_class = h.starved.get(parent)
    if by_class is None:
        by_class = h.starved[parent] = {}
    most = 2 * h.size[2 * parent + STARVED] + SPARE
    for low in bits_of(h.bits[entry & ITEM]):
        heap = by_class.get(low)
        if heap is None:
            by_class[low] = [entry]
            continue
        heappush(heap, entry)
        if len(heap) > most:
            heap[:] = {e for e in heap if stands(h, e, low)}
            heapify(heap)


def stands(h: Queued, entry: int, low: int) -> bool:
    """Whether an item is starved by a class, and has the key that it had."""
    item = entry & ITEM
    return h.side[item] == STARVED and h.bits[item] & low != 0 and h.key[item] == entry >> SHIFT


def insert(h: Queued, item: int, side: int) -> None:
    """As `heaps.insert`."""
    parent = h.parent[item]
    h.side[item] = side
    h.size[2 * parent + side] += 1
    if side == MAIN:
        push_main(h, parent, h.key[item] << SHIFT | item)
    else:
        push_starved(h, parent, h.key[item] << SHIFT | item)


def remove(h: Queued, item: int) -> None:
    """As `heaps.remove`."""
    parent, side = h.parent[item], h.side[item]
    h.side[item] = OUT
    at = 2 * parent + side
    left = h.size[at] = h.size[at] - 1
    if left == 0:
        # Whoever comes next may be someone else's child by then.
        if side == MAIN:
            h.main[parent].clear()
        elif parent in h.starved:
            h.starved[parent].clear()


def rekey(h: Queued, item: int, key: int) -> None:
    """As `heaps.rekey`."""
    if h.key[item] == key:
        return
    h.key[item] = key
    side = h.side[item]
    if side == MAIN:
        parent = h.parent[item]
        heap = h.main[parent]
        if heap and heap[0] & ITEM == item:
            heapreplace(heap, key << SHIFT | item)
        else:
            push_main(h, parent, key << SHIFT | item)
    elif side == STARVED:
        push_starved(h, h.parent[item], key << SHIFT | item)


def reorder(h: Queued, parent: int) -> None:
    """As `heaps.reorder`."""
    key, side = h.key, h.side
    heap = h.main.get(parent)
    if heap:
        heap[:] = {key[e & ITEM] << SHIFT | e & ITEM for e in heap if side[e & ITEM] == MAIN}
        heapify(heap)
    for low, each in h.starved.get(parent, {}).items():
        there = {e & ITEM for e in each}
        each[:] = [key[i] << SHIFT | i for i in there if side[i] == STARVED and h.bits[i] & low]
        heapify(each)


def admit(h: Queued, item: int) -> None:
    """As `heaps.admit`."""
    side = h.side[item]
    if side != MAIN:
        if side == STARVED:
            remove(h, item)
        insert(h, item, MAIN)


def asks(h: Queued, item: int) -> bool:
    """As `heaps.asks`."""
    return h.bits[item] & h.live[0] != 0


def first_starved(h: Queued, parent: int) -> int:
    """The number of the first starved child that asks for what may fit again, NOBODY when there is none."""
    live, best = h.live[0], NOBODY
    for low, heap in h.starved[parent].items():
        if low & live:
            while heap:
                if stands(h, heap[0], low):
                    if heap[0] < best:
                        best = heap[0]
                    break
                heappop(heap)
    return best


def find_child(h: Queued, parent: int) -> int:
    """As `heaps.find_child`."""
    best = NOBODY
    if h.size[2 * parent + STARVED]:
        live = h.live[0]
        for low in h.starved[parent]:
            if low & live:
                best = first_starved(h, parent)
                break
    if h.size[2 * parent + MAIN]:
        heap, key, side = h.main[parent], h.key, h.side
        while True:
            entry = heap[0]
            item = entry & ITEM
            if side[item] == MAIN and key[item] == entry >> SHIFT:
                return item if entry < best else best & ITEM
            heappop(heap)
    return best & ITEM if best < NOBODY else -1


def starve(h: Queued, item: int, source: int, leaf: bool) -> None:
    """As `heaps.starve`."""
    if leaf:
        h.bits[item] = h.bits[source]
    else:
        h.bits[item] = asked_below(h, source) if h.size[2 * source + STARVED] else 0
    if h.side[item] != OUT:
        remove(h, item)
    insert(h, item, STARVED)


def asked_below(h: Queued, parent: int) -> int:
    """The classes that starved children ask."""
    found = 0
    by_class = h.starved[parent]
    for low in list(by_class):
        heap = by_class[low]
        while heap and not stands(h, heap[0], low):
            heappop(heap)
        if heap:
            found |= low
        else:
            del by_class[low]
    return found


def find_leaf(h: Queued, r: Roles, start: int) -> int:
    """As `heaps.find_leaf`."""
    kids, stood_for, live = r.kids, r.stands, h.live[0]
    shadow = -1
    item = start
    while True:
        if stood_for[item] >= 0:
            shadow = item
            item = stood_for[item]
        leaf = kids[item] == 0 and item != OWED
        if leaf:
            if h.bits[item] & live:
                return item
        else:
            child = find_child(h, item)
            if child >= 0:
                item = child
                continue
        if item == start:
            return -1
        if shadow >= 0 and stood_for[shadow] == item:
            starve(h, shadow, item, leaf)
            shadow = -1
            item = OWED
        else:
            parent = h.parent[item]
            starve(h, item, item, leaf)
            item = parent


def check_queues(h: Queued, items: int) -> None:
    """Errors: `AssertionError` when an item is not found where it stands."""
    sizes: Ints = [0] * (2 * items)
    for item in range(2, items):
        side, parent, entry = h.side[item], h.parent[item], h.key[item] << SHIFT | item
        if side == OUT:
            continue
        sizes[2 * parent + side] += 1
        if side == MAIN:
            assert entry in h.main[parent], f"item {item} is lost among those that may be served"
        for low in bits_of(h.bits[item]) if side == STARVED else ():
            assert entry in h.starved[parent][low], f"item {item} is starved and lost"
    assert sizes == list(h.size[: 2 * items]), "children are miscounted"
    for heap in (*h.main.values(), *(each for by_class in h.starved.values() for each in by_class.values())):
        for place in range(1, len(heap)):
            assert heap[(place - 1) >> 1] <= heap[place], "an item stands above its betters"
