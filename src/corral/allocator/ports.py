"""Which dynamic ports an instance gets.

The start moves from run to run by the golden ratio of the free list, so that a port just given back is not the next to
be given out: clients that still remember the old listener would reach the new one.
"""

from corral.model.resources import Ranges, coalesce, count_range

_GOLDEN = 0x9E3779B97F4A7C15  # the golden ratio and the root of one half, as fractions of 2**64
_ROOT = 0xB504F333F9DE6484
_MASK = (1 << 64) - 1


def start_offset(seed: int, turn: int, count: int) -> int:
    """Where in a free list of `count` ports the choice begins, evenly spread over seeds and over turns."""
    return (((seed * _GOLDEN + turn * _ROOT) & _MASK) * count) >> 64


def choose_ports(free: Ranges, wanted: int, offset: int) -> Ranges:
    """Take `wanted` free ports, counting on from the `offset`th and round at the end.

    Shapes: `free` is coalesced and holds at least `wanted` ports; so is the result, and it holds exactly `wanted`.
    """
    if wanted <= 0:
        return ()
    count = count_range(free)
    offset %= count
    return coalesce(_cut(free, offset, wanted) + _cut(free, 0, wanted - (count - offset)))


def _cut(free: Ranges, skip: int, take: int) -> list[tuple[int, int]]:
    """The ports of ranks `skip` to `skip + take`, as far as there are."""
    found: list[tuple[int, int]] = []
    for low, high in free:
        if take <= 0:
            break
        size = high - low + 1
        if skip >= size:
            skip -= size
            continue
        first = low + skip
        last = min(high, first + take - 1)
        found.append((first, last))
        take -= last - first + 1
        skip = 0
    return found
