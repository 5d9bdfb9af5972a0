"""One agent and one hold of the book: what is free there, what it takes and under which tags it counts.

Only plain resources count in amounts: neither reserved nor revocable ones, nor volumes; what is free holds all kinds.
"""

from collections.abc import Collection, Sequence

import msgspec

from corral.allocator.bundles import GPUS, PORTS, Rest, amounts_of, plain
from corral.allocator.engine import Held
from corral.allocator.view import AgentView, Hold
from corral.model.ids import FrameworkId
from corral.model.ledger import Pool
from corral.model.operations import unshared
from corral.model.resources import (
    ResourceKind,
    Resources,
    all_ranges,
    cut_ranges,
    total_milli,
)


def group_tag(framework_id: FrameworkId, group: str) -> str:
    """The tag of the instances that counting constraints of a group look at."""
    return f"group:{framework_id}/{group}"


def devices_of(mask: int) -> tuple[int, ...]:
    return tuple(i for i in range(mask.bit_length()) if mask >> i & 1)


def mask_of(devices: Collection[int]) -> int:
    return 0 if not devices else sum(1 << i for i in set(devices))


def within(resources: Resources, total: Resources) -> Resources:
    """The ports and items that an agent has; scalars may be more, for they stand for a difference."""
    there = {(r.name, r.identity): r for r in total}
    found = []
    for r in resources:
        of = there.get((r.name, r.identity))
        if r.kind is ResourceKind.RANGES:
            gone = cut_ranges(r.ranges, of.ranges if of is not None else ())
            r = msgspec.structs.replace(r, ranges=cut_ranges(r.ranges, gone))
        elif r.kind is ResourceKind.SET:
            r = msgspec.structs.replace(r, items=tuple(i for i in r.items if of is not None and i in of.items))
        found.append(r)
    return tuple(found)


def has_ranges(total: Resources, resources: Resources) -> bool:
    """Whether an agent has all of these ranges."""
    for r in resources:
        if r.ranges:
            for of in total:
                if of.name == r.name and of.identity == r.identity:
                    if of.ranges != r.ranges and not _lie_in(r.ranges, of.ranges):
                        return False
                    break
            else:
                return False
    return True


def _lie_in(ranges: tuple[tuple[int, int], ...], there: tuple[tuple[int, int], ...]) -> bool:
    for low, high in ranges:
        for least, most in there:
            if least <= low and high <= most:
                break
        else:
            return False
    return True


class AgentEntry:
    """One agent. Shapes: `row` is the engine's; `amounts` what it has that is plain, in thousandths; `holds` by key,
    those that are noted but not carried out included; `has_gpus` whatever their reservation."""

    __slots__ = ("_pool", "_rest", "amounts", "has_gpus", "holds", "row", "view")

    def __init__(self, view: AgentView, row: int) -> None:
        self.view = view
        self.amounts = amounts_of(view.total)
        self.has_gpus = total_milli(view.total, GPUS) > 0
        self.row = row
        self.holds: dict[str, HoldEntry] = {}
        self._pool = Pool(view.total)
        self._rest = Rest((), {})

    def describe(self, view: AgentView) -> None:
        """Take what is new about the agent."""
        if view.total != self.view.total:
            self.amounts = amounts_of(view.total)
            self.has_gpus = total_milli(view.total, GPUS) > 0
            self._pool = Pool(view.total)
            for each in self.holds.values():
                self._pool.take(unshared(each.hold.resources), overdraw=True)
        self.view = view

    def take(self, resources: Resources, sign: int) -> None:
        """Let less be free, or with -1 more: of ports and named items no more than the agent still has.

        Shapes: a shared volume stays free whoever holds it.
        """
        resources = unshared(resources)
        if sign > 0:
            self._pool.take(resources, overdraw=True)
        else:
            is_there = not any(r.items for r in resources) and has_ranges(self.view.total, resources)
            self._pool.add(resources if is_there else within(resources, self.view.total))

    def take_all(self, bundles: Sequence[Resources]) -> None:
        """Let less be free, by many bundles at once."""
        if len(bundles) == 1:
            self.take(bundles[0], 1)
        else:
            self._pool.take_all([unshared(each) for each in bundles])

    def free_ports(self) -> tuple[tuple[int, int], ...]:
        return all_ranges(plain(self.free()), PORTS)

    def free(self) -> Resources:
        """All that is free, whatever its kind."""
        return self._pool.bundle()

    def rest(self) -> Rest:
        """All that is free, looked at once: an offer that is declined is made again of the same bundle."""
        free = self._pool.bundle()
        if self._rest.free is not free:
            self._rest = Rest(free, self.amounts if free == self.view.total else amounts_of(free))
        return self._rest


class HoldEntry:
    """One hold. Shapes: `held` is what the engine counts, `tags` what tallies count it under."""

    __slots__ = ("agent", "counted", "held", "hold", "tags")

    def __init__(self, hold: Hold, agent: AgentEntry, held: Held) -> None:
        self.hold = hold
        self.agent = agent
        self.held = held
        self.tags = tags_of(hold) if hold.group else hold.tags
        self.counted = False


def tags_of(hold: Hold) -> tuple[str, ...]:
    if not hold.group:
        return hold.tags
    return (group_tag(hold.framework_id, hold.group), *hold.tags)
