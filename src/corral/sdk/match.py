"""Which waiting instance takes which offer: pure, and the same for shaped and coarse offers.

A shaped offer (`want_id` set) is for one instance of that want and nothing else. A coarse offer is filled with as many
instances as fit, in the order they wait, provided no hard constraint looks at tasks: only the master sees all of those.
"""

from collections.abc import Iterable, Sequence

import msgspec

from corral.model import constraints
from corral.model.attributes import format_value
from corral.model.ids import WantId
from corral.model.offer import Offer, Want
from corral.model.resources import (
    Resource,
    ResourceKind,
    Resources,
    all_ranges,
    count_range,
    cut_ranges,
    subtract,
)


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """One instance of a want on one offer. Shapes: `resources` is what to launch with; `ports` its dynamic ports."""

    offer: Offer
    want_id: WantId
    resources: Resources
    ports: tuple[int, ...] = ()


class Matched(msgspec.Struct, frozen=True, kw_only=True):
    """Shapes: every offer is in `placements` or in `unused`, never in both."""

    placements: tuple[Placement, ...] = ()
    unused: tuple[Offer, ...] = ()


def match(offers: Iterable[Offer], waiting: Sequence[Want]) -> Matched:
    """Give offers to waiting wants, as many instances of each as its `count` says.

    Shapes: wants earlier in `waiting` are served first from coarse offers.
    """
    left = {want.id: want.count for want in waiting}
    by_id = {want.id: want for want in waiting}
    placements: list[Placement] = []
    unused: list[Offer] = []
    for offer in offers:
        found: list[Placement] = []
        if offer.want_id is not None:
            shaped = by_id.get(offer.want_id)
            if shaped is not None and left[shaped.id] > 0:
                taken = take(offer, offer.resources, shaped)
                if taken is not None:
                    found.append(taken)
                    left[shaped.id] -= 1
        else:
            found = _fill(offer, waiting, left)
        placements += found
        if not found:
            unused.append(offer)
    return Matched(placements=tuple(placements), unused=tuple(unused))


def _fill(offer: Offer, waiting: Sequence[Want], left: dict[WantId, int]) -> list[Placement]:
    free = offer.resources
    found: list[Placement] = []
    for want in waiting:
        if want.role != offer.role or left[want.id] <= 0 or not _suits(offer, want):
            continue
        while left[want.id] > 0:
            taken = take(offer, free, want)
            if taken is None:
                break
            found.append(taken)
            left[want.id] -= 1
            free = subtract(free, taken.resources)
    return found


def _suits(offer: Offer, want: Want) -> bool:
    """Whether a coarse offer keeps what the want insists on; what it merely prefers is the master's to weigh."""
    hard = [c for c in want.constraints if not c.weight and c.operator is not constraints.Operator.SPREAD]
    if any(constraints.is_counting(c) or constraints.looks_at_tasks(c) for c in hard):
        return False
    texts = {a.name: format_value(a) for a in offer.attributes}
    return all(
        constraints.allows(c, constraints.field_value(c.field, offer.hostname, texts), (), 1, want.group_size)
        for c in hard
    )


def take(offer: Offer, free: Resources, want: Want) -> Placement | None:
    """One instance's share of these free resources with its ports chosen, lowest first; None when it does not fit."""
    needed: list[Resource] = []
    for wanted in want.resources:
        shares = _scalar_shares(free, wanted)
        if shares is None:
            return None
        needed += shares
    dynamic: tuple[int, ...] = ()
    if want.ports or want.fixed_ports:
        ranges = all_ranges(free, "ports")
        fixed = tuple((p, p) for p in sorted(set(want.fixed_ports)))
        if cut_ranges(fixed, ranges):
            return None
        rest = cut_ranges(ranges, fixed)
        if count_range(rest) < want.ports:
            return None
        dynamic = _lowest(rest, want.ports)
        needed += _port_shares(free, sorted({*want.fixed_ports, *dynamic}))
    return Placement(offer=offer, want_id=want.id, resources=tuple(sorted(needed, key=lambda r: r.name)), ports=dynamic)


def _scalar_shares(free: Resources, wanted: Resource) -> list[Resource] | None:
    """The wanted amount of a scalar, drawn from what differs in identity, such as reserved and unreserved."""
    missing = wanted.milli
    shares: list[Resource] = []
    for resource in free:
        if missing <= 0:
            break
        if resource.name == wanted.name and resource.milli > 0 and resource.identity.disk is None:
            part = min(missing, resource.milli)
            shares.append(resource if part == resource.milli else msgspec.structs.replace(resource, milli=part))
            missing -= part
    return None if missing > 0 else shares


def _lowest(ranges: tuple[tuple[int, int], ...], count: int) -> tuple[int, ...]:
    found: list[int] = []
    for low, high in ranges:
        found.extend(range(low, min(high, low + count - len(found) - 1) + 1))
        if len(found) >= count:
            break
    return tuple(found)


def _port_shares(free: Resources, ports: list[int]) -> list[Resource]:
    shares: list[Resource] = []
    for resource in free:
        if resource.name != "ports" or resource.kind is not ResourceKind.RANGES:
            continue
        mine = [p for p in ports if any(low <= p <= high for low, high in resource.ranges)]
        if mine:
            ports = [p for p in ports if p not in mine]
            shares.append(msgspec.structs.replace(resource, ranges=_as_ranges(mine)))
    return shares


def _as_ranges(ports: list[int]) -> tuple[tuple[int, int], ...]:
    merged: list[tuple[int, int]] = []
    for port in ports:
        if merged and merged[-1][1] == port - 1:
            merged[-1] = (merged[-1][0], port)
        else:
            merged.append((port, port))
    return tuple(merged)
