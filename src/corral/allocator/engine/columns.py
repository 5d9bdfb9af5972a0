"""The engine's state as flat columns of numbers, grouped by subject: what the kernels read and write.

A column is indexed by row number, or by `row * width + place`. Plain, it is a list or a memoryview; compiled, a NumPy
array: kernels use nothing but subscripts and whole numbers, so that both decide bit for bit alike. Rows are never
moved; -1 stands for none.
"""

from typing import NamedTuple, TypeAlias

Ints: TypeAlias = list[int]
Floats: TypeAlias = list[float]

ROOT = 0
"""The item above all top-level roles."""

OWED = 1
"""The item above the shadows of roles that are below their guarantee."""

OUT, MAIN, STARVED = -1, 0, 1
"""Where an item stands: in no heap, among those that may be served, among those whose classes fit nowhere."""

LIVE, HINTED, DEAD = 0, 1, 2
"""What is known of a class: may fit anywhere, fits at most on its hinted nodes, fits nowhere."""

HINTS = 8
RULES = 64
"""How many rules a class may have, hard and soft ones each, and how many tallies it may feed."""

LEVELS = 64
CELLS = LEVELS * LEVELS
STEPS = 1 << 14
"""Free amounts, in quarters of a unit, whose level stands in a table."""

BITS = 62
"""Bits used of a word, so that it never turns negative. Plain kernels use longer words, which cost them nothing."""

UNLIMITED = 1 << 62
WASTEFUL, FORBIDDEN = 1, 2
"""Tiers of a signature for a class: fits but for others' sake last, or never. 0 is welcome."""

SHARE_STEPS = 1 << 40
"""How finely shares are told apart: parts of the whole cluster."""

MOST_SHARE = (1 << 52) - 1
MOST_PRIORITY = 1023

BELOW, CLEAR, EVEN, NEAR, TABLE, TARGET = range(6)
"""Kinds of rules, by what a tally says of a node's domain: less than the bound, none, no more than evens out, some (or,
with bound 1, none anywhere), not marked, and (soft alone) how full it is compared with its target."""

BINPACK, SPREAD, RANDOM, LEAST_TASKS, ALIGNED, HANDED = range(6)
"""Ways to choose among nodes that fit. HANDED ones are chosen outside."""

ABSENT = 0
"""The domain of nodes that lack a field; others count from 1."""

SCRATCH = 0
"""The class whose shape is written anew for each hold that came from outside."""

NOT_HANDED = -2

# Places in `Meta`.
RESOURCES, NODES, SIGNATURES, FREE_LINE, SPARE_TASKS, FREED, DEAD_ROWS, REMEMBER, WALK, RETEST, RUNNING = range(11)
SCANS, DEATHS, WALKED, ITEMS, FREE_LINES, FIELDS, DEVICES, GPUS, TOUCHED = range(11, 20)
HANDED_LINE, HANDED_NODE, HANDED_DEVICES, SEED, MOST_FIRST, MOST_SECOND, PROMISED, UNDONE, REMEMBERS = range(20, 29)
META = 29


class Heaps(NamedTuple):
    """Items (roles, and shadows of guaranteed roles) in fair order, each in one of its parent's two heaps.

    Shapes: the children of an item stand in `items` from `at`, MAIN first and STARVED after `room` places; `size` is
    indexed by `item * 2 + side`. `bits` and `below` are words of class bits per item and per place: what a starved item
    asks, and what all below that place ask. `live` are the classes that are not dead.
    """

    key: Ints
    pos: Ints
    side: Ints
    parent: Ints
    at: Ints
    room: Ints
    size: Ints
    items: Ints
    bits: Ints
    below: Ints
    live: Ints
    stack: Ints


class Roles(NamedTuple):
    """What roles hold and may hold. Widths: `held` and `limit` have one place per resource and one for tasks.

    `shadow` is the item that stands for a guaranteed role under OWED, `stands` the way back. `leaf` is where a role's
    own lines are: itself, or a child of its own when it has children. Of `held`, `lent` is revocable; `past` is what
    was held before, decayed. `unmet` is what guarantees at or below an item still lack, `under` that of its children.
    `spare` is what is free or lent on open nodes that have any, `reserve` bounds what is kept of it for guarantees.
    """

    held: Ints
    lent: Ints
    past: Ints
    unmet: Ints
    under: Ints
    spare: Ints
    reserve: Ints
    limit: Ints
    limited: Ints
    guarantee: Ints
    shadow: Ints
    stands: Ints
    base: Ints
    scale: Floats
    first: Ints
    kids: Ints
    leaf: Ints
    waiting: Ints
    inverse: Floats


class Lines(NamedTuple):
    """Demands: `left` instances of a class for a role. A role's lines are linked by priority, then age.

    `blocked` names the item whose limit a line would exceed; such lines are linked from that item's `waiting`.
    """

    role: Ints
    cls: Ints
    priority: Ints
    left: Ints
    next: Ints
    blocked: Ints
    hold: Ints


class Nodes(NamedTuple):
    """What is free where. `cell` is -1 while a node takes nothing new; `pool` and `mark` number its two indexes.

    Widths: `domain` has one place per field, `gpu` one per device. `version` counts the changes of a node.
    """

    free: Ints
    lent: Ints
    gpu: Ints
    domain: Ints
    version: Ints
    cell: Ints
    signature: Ints
    pool: Ints
    mark: Ints
    tasks: Ints
    freed: Ints
    dirty: Ints


class Cells(NamedTuple):
    """Indexes of nodes by free amount of the first two resources. A link is `node * 2`, plus 1 in a signature's index.

    Shapes: `head` per index and cell, `row` and `rows` bitmaps of the cells and rows that are not empty.
    """

    head: Ints
    row: Ints
    rows: Ints
    next: Ints
    prev: Ints
    level: Ints
    low: Ints
    unit: Ints


class Classes(NamedTuple):
    """Demand classes. Widths: `shape` has one place per resource and a 1 for the task; `tier` one per signature.

    `listed` from `begin` to `split` are the indexes to search first, from there to `end` the wasteful ones; a class
    with `fine` names its nodes one by one there instead. `gpus` devices with `part` free on each are asked. `extra`
    tells that more than resources decides; `rule` has four numbers per rule: kind, tally, bound, weight; so has `soft`.
    `siblings` is the tally that spreading looks at, `level` how many of them a walk puts up with. A class is `fickle`
    when more than a freed node can bring it back to life.
    """

    shape: Ints
    gpus: Ints
    part: Ints
    gang: Ints
    revocable: Ints
    extra: Ints
    fickle: Ints
    rules: Ints
    rule: Ints
    heard: Ints
    softs: Ints
    soft: Ints
    feeds: Ints
    feed: Ints
    siblings: Ints
    level: Ints
    scored: Ints
    row: Ints
    col: Ints
    last: Ints
    state: Ints
    spread: Ints
    hint: Ints
    hints: Ints
    begin: Ints
    split: Ints
    end: Ints
    fine: Ints
    listed: Ints
    tier: Ints
    next: Ints
    prev: Ints
    dead: Ints


class Tallies(NamedTuple):
    """How many instances with some tag each domain of a field has: `counts` from `at`, one place per domain.

    `used` domains have any and `fuller` more than `share`; `groups` and `rest` say how many of them may. `first` is the
    first place in `Classes.heard` of the classes that read a tally; `ups` and `downs` tell what brings them to life.
    """

    field: Ints
    at: Ints
    total: Ints
    used: Ints
    groups: Ints
    share: Ints
    rest: Ints
    fuller: Ints
    first: Ints
    ups: Ints
    downs: Ints
    touched: Ints
    queue: Ints
    counts: Ints


class Tasks(NamedTuple):
    """What runs: `node` is -1 in a row without a task; `devices` has a bit per GPU; `spare` is a stack of free rows."""

    role: Ints
    cls: Ints
    node: Ints
    devices: Ints
    spare: Ints


class State(NamedTuple):
    """All columns together."""

    heaps: Heaps
    roles: Roles
    lines: Lines
    nodes: Nodes
    cells: Cells
    classes: Classes
    tallies: Tallies
    tasks: Tasks
    meta: Ints
