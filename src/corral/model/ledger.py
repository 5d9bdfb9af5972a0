"""Exact, quick sums of resources: what is free on an agent, what a role holds.

A pool counts the same bundles as `model.resources` but changes in place, so that a task costs a few dictionary
operations instead of new bundles. Rule: everything in here is free of the allocation role; offers and tasks are charged
to a role only where they leave the master.
"""

from collections.abc import Iterable
from functools import lru_cache

import msgspec

from corral.model.resources import (
    PLAIN,
    Identity,
    Ranges,
    Resource,
    ResourceKind,
    Resources,
    coalesce,
    cut_ranges,
    join_ranges,
    normal,
)

_Key = str | tuple[str, Identity]


def _key(resource: Resource) -> _Key:
    identity = resource.identity
    # Nearly everything is plain; its name alone is a key that needs no hash of seven fields.
    return resource.name if identity is PLAIN or identity == PLAIN else (resource.name, identity)


def _sum_up(
    bundles: Iterable[Resources],
) -> tuple[dict[_Key, int], dict[_Key, list[tuple[int, int]]], dict[_Key, set[str]]]:
    """Scalars, ranges and items of many bundles. Shapes: the ranges as they came."""
    milli: dict[_Key, int] = {}
    ranges: dict[_Key, list[tuple[int, int]]] = {}
    items: dict[_Key, set[str]] = {}
    for bundle in bundles:
        for resource in bundle:
            key = resource.name if resource.identity is PLAIN else _key(resource)
            if resource.kind is ResourceKind.SCALAR:
                milli[key] = milli.get(key, 0) + resource.milli
            elif resource.kind is ResourceKind.RANGES:
                ranges.setdefault(key, []).extend(resource.ranges)
            else:
                items.setdefault(key, set()).update(resource.items)
    return milli, ranges, items


class Pool:
    """A bundle that grows and shrinks. Shapes: `_spent` is the bundle that was taken as a whole last."""

    __slots__ = ("_bundle", "_items", "_milli", "_ranges", "_spent")

    def __init__(self, bundle: Resources = ()) -> None:
        self._milli: dict[_Key, int] = {}
        self._ranges: dict[_Key, Ranges] = {}
        self._items: dict[_Key, tuple[str, ...]] = {}
        self._bundle: Resources | None = None
        self._spent: Resources | None = None
        self.add(bundle)

    def add(self, bundle: Resources) -> None:
        whole = bundle if bundle is self._spent and self._bundle == () else None
        for resource in bundle:
            key = resource.name if resource.identity is PLAIN else _key(resource)
            if resource.kind is ResourceKind.SCALAR:
                self._milli[key] = self._milli.get(key, 0) + resource.milli
            elif resource.kind is ResourceKind.RANGES:
                # What was taken as a whole comes back as it was, coalesced.
                there = self._ranges.get(key, ())
                self._ranges[key] = resource.ranges if whole is not None else join_ranges(there, resource.ranges)
            else:
                self._items[key] = tuple(sorted({*self._items.get(key, ()), *resource.items}))
        self._bundle = whole

    def take(self, bundle: Resources, *, overdraw: bool = False) -> None:
        """Errors: `ValueError` when a scalar would fall below zero: the caller has not checked `holds`.

        Shapes: `overdraw` lets it fall, for what is taken already whatever the sums say.
        """
        if bundle is self._bundle:
            self._milli.clear()
            self._ranges.clear()
            self._items.clear()
            self._bundle, self._spent = (), bundle
            return
        for resource in bundle:
            key = resource.name if resource.identity is PLAIN else _key(resource)
            if resource.kind is ResourceKind.SCALAR:
                left = self._milli.get(key, 0) - resource.milli
                if left < 0 and not overdraw:
                    raise ValueError(f"{resource.name} would fall to {left / 1000:g}")
                self._milli[key] = left
            elif resource.kind is ResourceKind.RANGES:
                self._ranges[key] = cut_ranges(self._ranges.get(key, ()), resource.ranges)
            else:
                self._items[key] = tuple(i for i in self._items.get(key, ()) if i not in resource.items)
        self._bundle = None

    def add_all(self, bundles: Iterable[Resources]) -> None:
        """As `add` of one after the other."""
        milli, ranges, items = _sum_up(bundles)
        for key, n in milli.items():
            self._milli[key] = self._milli.get(key, 0) + n
        for key, found in ranges.items():
            self._ranges[key] = coalesce((*self._ranges.get(key, ()), *found))
        for key, names in items.items():
            self._items[key] = tuple(sorted({*self._items.get(key, ()), *names}))
        self._bundle = None

    def take_all(self, bundles: Iterable[Resources]) -> None:
        """As `take` of one after the other, with `overdraw`."""
        milli, ranges, items = _sum_up(bundles)
        for key, n in milli.items():
            self._milli[key] = self._milli.get(key, 0) - n
        for key, found in ranges.items():
            self._ranges[key] = cut_ranges(self._ranges.get(key, ()), coalesce(found))
        for key, names in items.items():
            self._items[key] = tuple(i for i in self._items.get(key, ()) if i not in names)
        self._bundle = None

    def lacks(self, bundle: Resources) -> Resource | None:
        """The first resource of `bundle` that is not all in here; None when everything is."""
        for resource in bundle:
            key = _key(resource)
            if resource.kind is ResourceKind.SCALAR:
                if self._milli.get(key, 0) < resource.milli:
                    return resource
            elif resource.kind is ResourceKind.RANGES:
                if cut_ranges(resource.ranges, self._ranges.get(key, ())):
                    return resource
            elif not set(resource.items) <= set(self._items.get(key, ())):
                return resource
        return None

    def holds(self, bundle: Resources) -> bool:
        return self.lacks(bundle) is None

    def bundle(self) -> Resources:
        """The canonical bundle, kept until the next change."""
        if self._bundle is None:
            found = [
                Resource(name=k, milli=v) if isinstance(k, str) else Resource(name=k[0], milli=v, identity=k[1])
                for k, v in self._milli.items() if v
            ]  # fmt: skip
            found += [_of(k, ResourceKind.RANGES, ranges=v) for k, v in self._ranges.items() if v]
            if self._items:
                found += [_of(k, ResourceKind.SET, items=v) for k, v in self._items.items() if v]
            is_plain = True
            for r in found:
                is_plain = is_plain and r.identity is PLAIN
            if is_plain:
                found.sort(key=_name)
                self._bundle = tuple(found)
            else:
                self._bundle = normal(found)
        return self._bundle


class Tally:
    """Scalars by name alone, for shares: thousandths over all agents and identities, what is revocable apart."""

    __slots__ = ("_bundle", "_milli", "_revocable")

    def __init__(self) -> None:
        self._milli: dict[str, int] = {}
        self._revocable: dict[str, int] = {}
        self._bundle: Resources | None = None

    def add(self, bundle: Resources) -> None:
        milli = self._milli
        for r in bundle:
            if r.milli:
                into = milli if r.identity is PLAIN or not r.identity.revocable else self._revocable
                into[r.name] = into.get(r.name, 0) + r.milli
        self._bundle = None

    def take(self, bundle: Resources) -> None:
        milli = self._milli
        for r in bundle:
            if r.milli:
                into = milli if r.identity is PLAIN or not r.identity.revocable else self._revocable
                into[r.name] = into.get(r.name, 0) - r.milli
        self._bundle = None

    def bundle(self) -> Resources:
        if self._bundle is None:
            found = [Resource(name=k, milli=v) for k, v in sorted(self._milli.items()) if v]
            found += [Resource(name=k, milli=v, identity=_REVOCABLE) for k, v in sorted(self._revocable.items()) if v]
            self._bundle = normal(found) if self._revocable else tuple(found)
        return self._bundle


_REVOCABLE = Identity(revocable=True)


def _name(resource: Resource) -> str:
    return resource.name


def _of(key: _Key, kind: ResourceKind, *, ranges: Ranges = (), items: tuple[str, ...] = ()) -> Resource:
    name, identity = (key, PLAIN) if isinstance(key, str) else key
    return Resource(name=name, kind=kind, ranges=ranges, items=items, identity=identity)


@lru_cache(maxsize=4096)
def _allocated(identity: Identity, role: str | None) -> Identity:
    found = msgspec.structs.replace(identity, allocation_role=role)
    return PLAIN if found == PLAIN else found


def charged(resources: Resources, role: str) -> Resources:
    """The same bundle as a framework sees it: every resource says to which role it is allocated."""
    return tuple(
        Resource(
            name=r.name, kind=r.kind, milli=r.milli, ranges=r.ranges, items=r.items,
            identity=_allocated(r.identity, role),
        )
        for r in resources
    )  # fmt: skip


def lent(resources: Resources) -> Resources:
    """The same bundle as a framework sees it that may have it taken away at any time: its scalars are revocable.

    Shapes: of whom they are lent is not seen.
    """
    found = tuple(_lend(r, True) if r.kind is ResourceKind.SCALAR else r for r in resources)
    return normal(found) if any(r.identity.reservations for r in resources) else found


def drawn(have: Resources, asked: Resources) -> Resources:
    """What is asked as revocable in the form in which it is held, of whatever reservation; what is lacking stays plain.

    Shapes: both without allocation role.
    """
    found: list[Resource] = []
    for each in asked:
        if not each.identity.revocable:
            found.append(each)
            continue
        need = each.milli
        for r in have:
            if r.name == each.name and r.kind is ResourceKind.SCALAR and r.milli > 0 and need > 0:
                part = min(need, r.milli)
                found.append(msgspec.structs.replace(r, milli=part))
                need -= part
        if need:
            found.append(Resource(name=each.name, milli=need))
    return normal(found)


def owned(resources: Resources) -> Resources:
    """The same bundle without the mark that `lent` gives it."""
    if not any(r.identity.revocable for r in resources):
        return resources
    return tuple(_lend(r, False) if r.identity.revocable else r for r in resources)


def _lend(resource: Resource, revocable: bool) -> Resource:
    stack = () if revocable else resource.identity.reservations
    identity = msgspec.structs.replace(resource.identity, revocable=revocable, reservations=stack)
    return msgspec.structs.replace(resource, identity=PLAIN if identity == PLAIN else identity)


def stripped(resources: Resources) -> Resources:
    """The canonical bundle without allocation roles, as pools count it; the same one when it is that already."""
    for r in resources:
        if r.identity.allocation_role is not None:
            resources = tuple(_unallocated(each) for each in resources)
            break
    last = ""
    for r in resources:
        if r.name <= last or not (r.milli or r.ranges or r.items):
            return normal(resources)
        last = r.name
    return resources


def _unallocated(resource: Resource) -> Resource:
    if resource.identity.allocation_role is None:
        return resource
    return Resource(
        name=resource.name, kind=resource.kind, milli=resource.milli, ranges=resource.ranges, items=resource.items,
        identity=_allocated(resource.identity, None),
    )  # fmt: skip
