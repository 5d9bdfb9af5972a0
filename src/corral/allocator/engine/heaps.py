"""Who is next: items ordered by key in indexed heaps, and a search that passes by whoever asks only what fits nowhere.

An item found with dead classes alone moves from MAIN to STARVED and back when it is served. STARVED places know the
classes asked below them, so that a class coming to life finds who waits for it without waking the others.
"""

from corral.allocator.engine.columns import MAIN, OUT, OWED, STARVED, Heaps, Roles


def sift(h: Heaps, base: int, size: int, place: int) -> int:
    """Move the item at this place to where its key belongs; returns the deepest place that changed."""
    items, key, pos = h.items, h.key, h.pos
    item = items[base + place]
    mine = key[item]
    begun = place
    while place > 0:
        above = (place - 1) >> 1
        other = items[base + above]
        theirs = key[other]
        if theirs < mine or (theirs == mine and other < item):
            break
        items[base + place] = other
        pos[other] = place
        place = above
    if place != begun:
        items[base + place] = item
        pos[item] = place
        return begun
    while True:
        under = 2 * place + 1
        if under >= size:
            break
        other = items[base + under]
        theirs = key[other]
        if under + 1 < size:
            right = items[base + under + 1]
            if key[right] < theirs or (key[right] == theirs and right < other):
                under += 1
                other = right
                theirs = key[right]
        if mine < theirs or (mine == theirs and item < other):
            break
        items[base + place] = other
        pos[other] = place
        place = under
    if place != begun:
        items[base + place] = item
        pos[item] = place
    return place


def gather(h: Heaps, base: int, size: int, place: int, top: int) -> None:
    """Sum up anew what is asked at and below this place, up to `top`, and further for as long as it makes a change."""
    words = len(h.live)
    items, bits, below = h.items, h.bits, h.below
    while True:
        own, at = items[base + place] * words, (base + place) * words
        left = 2 * place + 1
        changed = False
        for w in range(words):
            word = bits[own + w]
            if left < size:
                word |= below[(base + left) * words + w]
                if left + 1 < size:
                    word |= below[(base + left + 1) * words + w]
            if below[at + w] != word:
                below[at + w] = word
                changed = True
        if place == 0 or (place <= top and not changed):
            return
        place = (place - 1) >> 1


def insert(h: Heaps, item: int, side: int) -> None:
    """Put an item that is OUT into one heap of its parent."""
    parent = h.parent[item]
    size = h.size[parent * 2 + side]
    base = h.at[parent] + side * h.room[parent]
    h.items[base + size] = item
    h.pos[item] = size
    h.side[item] = side
    h.size[parent * 2 + side] = size + 1
    sift(h, base, size + 1, size)
    if side == STARVED:
        # The last place is new, so what is above it has not heard of it even if its sum looks as it did long ago.
        gather(h, base, size + 1, size, min(h.pos[item], (size - 1) >> 1))


def remove(h: Heaps, item: int) -> None:
    """Take an item out of its heap."""
    parent, side, place = h.parent[item], h.side[item], h.pos[item]
    size = h.size[parent * 2 + side] - 1
    base = h.at[parent] + side * h.room[parent]
    h.size[parent * 2 + side] = size
    h.side[item] = OUT
    last = h.items[base + size]
    if last != item:
        h.items[base + place] = last
        h.pos[last] = place
        deepest = sift(h, base, size, place)
        if side == STARVED:
            gather(h, base, size, deepest, min(place, h.pos[last]))
    if side == STARVED and size > 0:
        above = (size - 1) >> 1
        gather(h, base, size, above, above)


def rekey(h: Heaps, item: int, key: int) -> None:
    """Give an item a new key and the place that goes with it."""
    if h.key[item] == key:
        return
    h.key[item] = key
    side = h.side[item]
    if side == OUT:
        return
    parent, place = h.parent[item], h.pos[item]
    base = h.at[parent] + side * h.room[parent]
    size = h.size[parent * 2 + side]
    deepest = sift(h, base, size, place)
    if side == STARVED and h.pos[item] != place:
        gather(h, base, size, deepest, min(place, h.pos[item]))


def reorder(h: Heaps, parent: int) -> None:
    """Put both heaps of a parent in order after many keys changed."""
    for side in range(2):
        base = h.at[parent] + side * h.room[parent]
        size = h.size[parent * 2 + side]
        for place in range(size // 2 - 1, -1, -1):
            sift(h, base, size, place)
        if side == STARVED:
            for place in range(size - 1, -1, -1):
                gather(h, base, size, place, place)


def admit(h: Heaps, item: int) -> None:
    """See that an item stands in its parent's MAIN heap."""
    if h.side[item] != MAIN:
        if h.side[item] == STARVED:
            remove(h, item)
        insert(h, item, MAIN)


def asks(h: Heaps, item: int) -> bool:
    """Whether an item asks for a class that may fit."""
    words = len(h.live)
    for w in range(words):  # noqa: SIM110 - a generator is nothing to compile
        if h.bits[item * words + w] & h.live[w] != 0:
            return True
    return False


def find_starved(h: Heaps, parent: int) -> int:
    """The first starved child that asks for what may fit again, or -1."""
    size = h.size[parent * 2 + STARVED]
    if size == 0:
        return -1
    live, below = h.live, h.below
    words = len(live)
    base = h.at[parent] + h.room[parent]
    wanted = False
    for w in range(words):
        if below[base * words + w] & live[w] != 0:
            wanted = True
    if not wanted:
        return -1
    stack = h.stack
    stack[0] = 0
    depth = 1
    best, best_key = -1, 0
    while depth > 0:
        depth -= 1
        place = stack[depth]
        wanted = False
        for w in range(words):
            if below[(base + place) * words + w] & live[w] != 0:
                wanted = True
                break
        if not wanted:
            continue
        item = h.items[base + place]
        key = h.key[item]
        if best >= 0 and (key > best_key or (key == best_key and item > best)):
            continue
        if asks(h, item):
            best, best_key = item, key
            continue
        if 2 * place + 2 < size:
            stack[depth] = 2 * place + 2
            depth += 1
        if 2 * place + 1 < size:
            stack[depth] = 2 * place + 1
            depth += 1
    return best


def find_child(h: Heaps, parent: int) -> int:
    """The child to try next, or -1."""
    starved = find_starved(h, parent)
    if h.size[parent * 2 + MAIN] == 0:
        return starved
    first = h.items[h.at[parent]]
    if starved >= 0:
        mine, theirs = h.key[first], h.key[starved]
        if theirs < mine or (theirs == mine and starved < first):
            return starved
    return first


def starve(h: Heaps, item: int, source: int, leaf: bool) -> None:
    """Set an item aside with what `source` and all below it ask."""
    words = len(h.live)
    top = h.at[source] + h.room[source]
    for w in range(words):
        if leaf:
            h.bits[item * words + w] = h.bits[source * words + w]
        elif h.size[source * 2 + STARVED] > 0:
            h.bits[item * words + w] = h.below[top * words + w]
        else:
            h.bits[item * words + w] = 0
    if h.side[item] != OUT:
        remove(h, item)
    insert(h, item, STARVED)


def find_leaf(h: Heaps, r: Roles, start: int) -> int:
    """The role to serve next under ROOT or OWED, by the order at each level, or -1 when none asks for what may fit."""
    shadow = -1
    item = start
    while True:
        if r.stands[item] >= 0:
            shadow = item
            item = r.stands[item]
        leaf = r.kids[item] == 0 and item != OWED
        if leaf:
            if asks(h, item):
                return item
        else:
            child = find_child(h, item)
            if child >= 0:
                item = child
                continue
        if item == start:
            return -1
        if shadow >= 0 and r.stands[shadow] == item:
            starve(h, shadow, item, leaf)
            shadow = -1
            item = OWED
        else:
            parent = h.parent[item]
            starve(h, item, item, leaf)
            item = parent
