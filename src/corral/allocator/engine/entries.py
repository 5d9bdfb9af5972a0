"""Where the engine enters the kernels: each takes what holds the columns, and the rest as the kernel has it.

Compiled, that is a structure of Numba's own: a call that hands over all columns one by one would cost more than most
kernels do. Otherwise it is the `Tables`.
"""

from typing import Protocol

from corral.allocator.engine.columns import RESOURCES, Ints, State
from corral.allocator.engine.fair import find_limit, keeps_headroom, settle_unmet, wake
from corral.allocator.engine.heaps import remove
from corral.allocator.engine.rules import split_gpus
from corral.allocator.engine.search import fits, revive
from corral.allocator.engine.turn import (
    cell_of,
    forget,
    hand_down,
    hold,
    open_node,
    recount,
    refresh,
    release,
    serve,
    settle_role,
    submit,
    withdraw,
)


class Holder(Protocol):
    """What holds the columns."""

    @property
    def state(self) -> State: ...


def call_submit(holder: Holder, roles: Ints, classes: Ints, counts: Ints, priorities: Ints) -> None:
    submit(holder.state, roles, classes, counts, priorities)


def call_withdraw(holder: Holder, role: int, cls: int, count: int, priority: int) -> int:
    return withdraw(holder.state, role, cls, count, priority)


def call_release(holder: Holder, tasks: Ints) -> None:
    release(holder.state, tasks)


def call_forget(holder: Holder, tasks: Ints) -> None:
    forget(holder.state, tasks)


def call_hold(
    holder: Holder, leaves: Ints, nodes: Ints, amounts: Ints, signs: Ints, lends: Ints, devices: Ints
) -> None:
    hold(holder.state, leaves, nodes, amounts, signs, lends, devices)


def call_recount(holder: Holder, tallies: Ints, nodes: Ints, signs: Ints) -> None:
    recount(holder.state, tallies, nodes, signs)


def call_serve(holder: Holder, most: int, placed: int, out: Ints) -> int:
    return serve(holder.state, most, placed, out)


def call_fits(holder: Holder, node: int, cls: int, level: int) -> bool:
    s = holder.state
    return fits(s.nodes, s.tallies, s.classes, s.meta, node, cls, level)


def call_open_node(holder: Holder, node: int, cell: int) -> None:
    open_node(holder.state, node, cell)


def call_settle_role(holder: Holder, item: int) -> None:
    settle_role(holder.state, item)


def call_settle_unmet(holder: Holder, resources: int, item: int) -> None:
    s = holder.state
    settle_unmet(s.heaps, s.roles, resources, item)


def call_revive(holder: Holder, cls: int) -> None:
    s = holder.state
    revive(s.heaps, s.classes, s.meta, cls)


def call_split_gpus(holder: Holder, cls: int) -> None:
    s = holder.state
    split_gpus(s.classes, s.meta, cls)


def call_keeps_headroom(holder: Holder, leaf: int, cls: int, size: int) -> bool:
    s = holder.state
    return keeps_headroom(s.heaps, s.roles, s.classes, s.meta, leaf, cls, size)


def call_find_limit(holder: Holder, leaf: int, cls: int, size: int) -> int:
    s = holder.state
    return find_limit(s.heaps, s.roles, s.classes, s.meta, leaf, cls, size)


def call_refresh(holder: Holder) -> None:
    refresh(holder.state)


def call_hand_down(holder: Holder, role: int, own: int) -> None:
    hand_down(holder.state, role, own)


def call_cell_of(holder: Holder, first: int, second: int) -> int:
    return cell_of(holder.state, first, second)


def call_set_aside(holder: Holder, item: int) -> None:
    remove(holder.state.heaps, item)


def call_wake(holder: Holder, leaf: int) -> None:
    s = holder.state
    wake(s.heaps, s.roles, s.meta[RESOURCES], leaf)
