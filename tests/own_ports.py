"""Ports that belong to this process of the tests alone, whatever other processes run beside it.

A daemon that others must know before it runs needs its port in advance, and a task binds the port that its agent gave
it out of a list that is fixed. Ports the kernel chooses serve neither: between their choice and their use another
process, or any connection out, may have got them. So each process claims a range below those that the kernel chooses
from, by holding its first port for as long as it lives.
"""

import socket
from collections.abc import Iterator
from functools import cache
from itertools import islice

FIRST, AFTER_LAST = 20_000, 30_800
RANGE = 400
DAEMONS = 100
"""How much of a range is for daemons, its first port among them; the rest is for tasks."""


def free_ports(count: int) -> list[int]:
    """So many ports for daemons. None is given a second time before all of the range have been.

    Errors: `RuntimeError` when the range holds fewer that are free.
    """
    found = list(islice(filter(is_free, islice(_claimed().turns, DAEMONS - 1)), count))
    if len(found) < count:
        raise RuntimeError(f"{count} ports are asked for and {len(found)} of {DAEMONS - 1} are free; end daemons first")
    return found


def task_ports() -> range:
    """What agents of this process may give to their tasks."""
    return range(_claimed().first + DAEMONS, _claimed().first + RANGE)


def write_task_ports() -> str:
    """As `--resources` takes them."""
    ports = task_ports()
    return f"ports:[{ports.start}-{ports.stop - 1}]"


def is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


class Claim:
    """A range that is ours. Shapes: `turns` yields the ports for daemons over and over."""

    def __init__(self, first: int, guard: socket.socket) -> None:
        self.first = first
        self.guard = guard
        self.turns = self._turn()

    def _turn(self) -> Iterator[int]:
        while True:
            yield from range(self.first + 1, self.first + DAEMONS)


def claim() -> Claim:
    """The first range nobody holds. Errors: `RuntimeError` when all are held."""
    for first in range(FIRST, AFTER_LAST, RANGE):
        try:
            return Claim(first, socket.create_server(("127.0.0.1", first)))
        except OSError:
            continue
    raise RuntimeError(f"every range of ports from {FIRST} to {AFTER_LAST - 1} is held: end other runs of the tests")


@cache
def _claimed() -> Claim:
    return claim()
