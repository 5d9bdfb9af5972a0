"""Resources and their exact arithmetic.

Scalars are integers of thousandths, so sums are exact. Two resources add up only when everything that tells them apart
(reservation, allocation, revocability, disk) is equal. Source: Mesos v1 resource algebra.

A bundle of resources is a plain tuple, kept in canonical form by the functions here: merged, without empties, sorted.
"""

from bisect import bisect_left
from collections.abc import Iterable
from enum import StrEnum

import msgspec

Ranges = tuple[tuple[int, int], ...]
"""Shapes: inclusive, rising, and none touches the next."""


class ResourceKind(StrEnum):
    SCALAR = "SCALAR"
    RANGES = "RANGES"
    SET = "SET"


class Reservation(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    role: str
    principal: str | None = None
    labels: tuple[tuple[str, str], ...] = ()
    static: bool = False


class Disk(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """A persistent volume on a disk, or the disk's own source."""

    persistence_id: str | None = None
    principal: str | None = None
    container_path: str | None = None
    source_type: str | None = None  # PATH, MOUNT, BLOCK; None is the agent's root disk
    source_root: str | None = None


class Identity(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """What must be equal for two resources of one name to merge."""

    reservations: tuple[Reservation, ...] = ()
    allocation_role: str | None = None
    revocable: bool = False
    shared: bool = False
    disk: Disk | None = None
    provider: str | None = None


PLAIN = Identity()


class Resource(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """Shapes: `milli` counts for SCALAR, `ranges` (inclusive, coalesced) for RANGES, `items` (sorted) for SET."""

    name: str
    kind: ResourceKind = ResourceKind.SCALAR
    milli: int = 0
    ranges: Ranges = ()
    items: tuple[str, ...] = ()
    identity: Identity = PLAIN


Resources = tuple[Resource, ...]


def scalar(name: str, value: float, identity: Identity = PLAIN) -> Resource:
    """Units: `value` in the resource's own unit (cpus, MB); kept to three decimals, halves away from zero."""
    milli = int(abs(value) * 1000 + 0.5)
    return Resource(name=name, milli=milli if value >= 0 else -milli, identity=identity)


def ports(*ranges: tuple[int, int]) -> Resource:
    return Resource(name="ports", kind=ResourceKind.RANGES, ranges=coalesce(ranges))


def items(name: str, values: Iterable[str]) -> Resource:
    return Resource(name=name, kind=ResourceKind.SET, items=tuple(sorted(set(values))))


def coalesce(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Merge overlapping and touching inclusive ranges."""
    merged: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], high))
        else:
            merged.append((low, high))
    return tuple(merged)


def join_ranges(have: Ranges, more: Ranges) -> Ranges:
    """All of both; both coalesced."""
    joined = list(have)
    for low, high in more:
        first = bisect_left(joined, (low,))
        if first and joined[first - 1][1] >= low - 1:
            first -= 1
        last = bisect_left(joined, (high + 2,), first)
        if first < last:
            low, high = min(low, joined[first][0]), max(high, joined[last - 1][1])
        joined[first:last] = [(low, high)]
    return tuple(joined)


def cut_ranges(have: Ranges, minus: Ranges) -> Ranges:
    """What is left of `have` without `minus`; both coalesced."""
    if have == minus:
        return ()
    left = list(have)
    for low, high in minus:
        first = bisect_left(left, (low,))
        if first and left[first - 1][1] >= low:
            first -= 1
        last = bisect_left(left, (high + 1,), first)
        if first < last:
            begin, end = left[first][0], left[last - 1][1]
            before = [(begin, low - 1)] if begin < low else []
            left[first:last] = [*before, (high + 1, end)] if end > high else before
    return tuple(left)


def is_empty(resource: Resource) -> bool:
    return resource.milli == 0 and not resource.ranges and not resource.items


def is_well_formed(resource: Resource) -> bool:
    """Whether it holds values of its own kind alone, in their canonical form; what comes from elsewhere may not."""
    match resource.kind:
        case ResourceKind.SCALAR:
            return not resource.ranges and not resource.items
        case ResourceKind.RANGES:
            spans = resource.ranges
            in_order = all(low <= high for low, high in spans) and coalesce(spans) == spans
            return in_order and resource.milli == 0 and not resource.items
        case ResourceKind.SET:
            in_order = resource.items == tuple(sorted(set(resource.items)))
            return in_order and resource.milli == 0 and not resource.ranges


def _merge(a: Resource, b: Resource) -> Resource:
    return Resource(
        name=a.name,
        kind=a.kind,
        milli=a.milli + b.milli,
        ranges=coalesce(a.ranges + b.ranges) if b.ranges else a.ranges,
        items=tuple(sorted({*a.items, *b.items})) if b.items else a.items,
        identity=a.identity,
    )


def _reduce(a: Resource, b: Resource) -> Resource:
    return Resource(
        name=a.name,
        kind=a.kind,
        milli=a.milli - b.milli,
        ranges=cut_ranges(a.ranges, b.ranges) if b.ranges else a.ranges,
        items=tuple(i for i in a.items if i not in b.items) if b.items else a.items,
        identity=a.identity,
    )


def _canonical(found: dict[tuple[str, Identity], Resource]) -> Resources:
    kept = [r for r in found.values() if not is_empty(r)]
    if len(kept) > 1:
        kept.sort(key=_sort_key)
    return tuple(kept)


def _sort_key(resource: Resource) -> tuple[str, str]:
    # Plain resources, nearly all there are, need no text form of their identity to sort by.
    return (resource.name, "" if resource.identity is PLAIN or resource.identity == PLAIN else repr(resource.identity))


def normal(resources: Iterable[Resource]) -> Resources:
    """The canonical bundle of these resources: merged, without empties, sorted."""
    found: dict[tuple[str, Identity], Resource] = {}
    for resource in resources:
        key = (resource.name, resource.identity)
        found[key] = _merge(found[key], resource) if key in found else resource
    return _canonical(found)


def add(*bundles: Resources) -> Resources:
    return normal(r for bundle in bundles for r in bundle)


def subtract(have: Resources, minus: Resources) -> Resources:
    """What is left; the caller has checked `contains`, a lack shows as a negative scalar."""
    found = {(r.name, r.identity): r for r in have}
    for resource in minus:
        key = (resource.name, resource.identity)
        there = found.get(key) or Resource(name=resource.name, kind=resource.kind, identity=resource.identity)
        found[key] = _reduce(there, resource)
    return _canonical(found)


def contains(have: Resources, want: Resources) -> bool:
    """Whether every resource of `want` is covered by one of equal identity in `have`; both canonical."""
    by_key = {(r.name, r.identity): r for r in have}
    for resource in want:
        there = by_key.get((resource.name, resource.identity))
        if there is None:
            if is_empty(resource):
                continue
            return False
        if there.milli < resource.milli:
            return False
        if resource.ranges and cut_ranges(resource.ranges, there.ranges):
            return False
        if resource.items and not set(resource.items) <= set(there.items):
            return False
    return True


def total_milli(resources: Resources, name: str) -> int:
    """Thousandths of a scalar over all identities; 0 when absent."""
    return sum(r.milli for r in resources if r.name == name)


def all_ranges(resources: Resources, name: str) -> Ranges:
    """The inclusive ranges of a resource over all identities; empty when absent."""
    found = [r.ranges for r in resources if r.name == name and r.ranges]
    return found[0] if len(found) == 1 else coalesce(span for ranges in found for span in ranges)


def count_range(ranges: Ranges) -> int:
    return sum([high - low for low, high in ranges]) + len(ranges)


def with_allocation(resources: Resources, role: str | None) -> Resources:
    """The same resources charged to `role`, or to nobody."""
    return normal(
        r if r.identity.allocation_role == role
        else msgspec.structs.replace(r, identity=msgspec.structs.replace(r.identity, allocation_role=role))
        for r in resources
    )  # fmt: skip


def format_milli(milli: int) -> str:
    """Thousandths as people write the number: `0.5`, `1048576`, never an exponent."""
    whole, part = divmod(abs(milli), 1000)
    text = f"{whole}.{part:03d}".rstrip("0").rstrip(".") if part else str(whole)
    return f"-{text}" if milli < 0 else text


def describe(resources: Resources) -> str:
    """One line for people: `cpus 2, mem 512, ports 31000-31005`."""
    parts = []
    for r in resources:
        if r.kind is ResourceKind.SCALAR:
            parts.append(f"{r.name} {format_milli(r.milli)}")
        elif r.kind is ResourceKind.RANGES:
            parts.append(f"{r.name} " + ",".join(f"{a}-{b}" if a != b else str(a) for a, b in r.ranges))
        else:
            parts.append(f"{r.name} {{{','.join(r.items)}}}")
    return ", ".join(parts) or "nothing"
