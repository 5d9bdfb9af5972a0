"""Reads and writes resources and attributes in every form that Mesos v1 knows.

Three forms of reservation exist. *Post* lists the stack in `reservations`; *pre* has `role` and at most one
`reservation`; frameworks see the one that their RESERVATION_REFINEMENT capability chooses. Both are read, but not mixed
in one object. Source: Mesos v1, resource algebra.
"""

from collections.abc import Collection, Iterable, Sequence
from math import isfinite
from typing import NoReturn

from corral.lib.errors import Invalid
from corral.mesos import wire
from corral.model.attributes import Attribute, AttributeKind
from corral.model.resources import (
    PLAIN,
    Disk,
    Identity,
    Reservation,
    Resource,
    ResourceKind,
    Resources,
    coalesce,
    items,
    normal,
    scalar,
)

ANY_ROLE = "*"
_EMPTY = wire.Empty()
MOST_SCALAR = 1e15


def read_resources(found: Sequence[wire.Resource], at: str, *, needed: Collection[str] = ()) -> Resources:
    """The canonical bundle; `at` is the field's path for error messages.

    Shapes: zeros vanish. A negative amount, and nothing of what is `needed`, are kept as they are, unmerged, for the
    task's validation to refuse. Errors: `Invalid` names the resource and what is wrong with its form.
    """
    resources = tuple(read_resource(r, at) for r in found)
    if any(r.milli < 0 for r in resources):
        return resources
    merged = normal(resources)
    if any(r.name in needed and not any(m.name == r.name for m in merged) for r in resources):
        return resources
    return merged


def write_resources(
    resources: Resources, *, refinement: bool, allocation: str | None = None, both: bool = False
) -> tuple[wire.Resource, ...]:
    """Shapes: `refinement` chooses the post form, `both` adds the other where it can say it, as operators are shown;
    `allocation` is the role to charge where none is set.
    """
    return tuple(write_resource(r, refinement=refinement, allocation=allocation, both=both) for r in resources)


def read_resource(found: wire.Resource, at: str) -> Resource:
    """Errors: `Invalid` for an unknown type, a missing or impossible value, mixed or impossible reservations."""
    identity = _read_identity(found, at) if _is_special(found) else PLAIN
    match found.type:
        case "SCALAR" if found.scalar is not None:
            return scalar(found.name, _amount(found.scalar.value, found.name, at), identity)
        case "RANGES" if found.ranges is not None:
            spans = read_ranges(found.ranges, found.name, at)
            return Resource(name=found.name, kind=ResourceKind.RANGES, ranges=spans, identity=identity)
        case "SET" if found.items is not None:
            values = items(found.name, found.items.item).items
            return Resource(name=found.name, kind=ResourceKind.SET, items=values, identity=identity)
        case kind:
            _refuse_type(kind, ("SCALAR", "RANGES", "SET"), f"{at} resource {found.name}")


def write_resource(
    resource: Resource, *, refinement: bool, allocation: str | None = None, both: bool = False
) -> wire.Resource:  # fmt: skip
    identity = resource.identity
    made = wire.Resource(name=resource.name, type=resource.kind.value)
    if resource.kind is ResourceKind.SCALAR:
        made.scalar = wire.Scalar(value=resource.milli / 1000)
    elif resource.kind is ResourceKind.RANGES:
        made.ranges = write_ranges(resource.ranges)
    else:
        made.items = wire.Items(item=resource.items)
    role = identity.allocation_role or allocation
    if role is not None:
        made.allocation_info = wire.AllocationInfo(role=role)
    is_older = (both or not refinement) and len(identity.reservations) <= 1
    if is_older:
        _write_pre(identity.reservations, made)
    if both or not is_older:
        made.reservations = tuple(_write_reservation(r) for r in identity.reservations)
    if identity is not PLAIN:
        made.revocable = _EMPTY if identity.revocable else None
        made.shared = _EMPTY if identity.shared else None
        made.disk = _write_disk(identity.disk) if identity.disk is not None else None
        made.provider_id = wire.Id(value=identity.provider) if identity.provider is not None else None
    return made


def read_ranges(found: wire.Ranges, name: str, at: str) -> tuple[tuple[int, int], ...]:
    """Errors: `Invalid` for a range that ends before it begins."""
    for span in found.range:
        if span.begin > span.end:
            raise Invalid(f"{at} resource {name}: range {span.begin}-{span.end} ends before it begins")
    return coalesce((span.begin, span.end) for span in found.range)


def write_ranges(ranges: Iterable[tuple[int, int]]) -> wire.Ranges:
    return wire.Ranges(range=tuple(wire.Range(begin=low, end=high) for low, high in ranges))


def _amount(value: float, name: str, at: str) -> float:
    if not isfinite(value) or abs(value) > MOST_SCALAR:
        raise Invalid(f"{at} resource {name}: scalar value {value} is not a finite number below {MOST_SCALAR:.0e}")
    return value


def _refuse_type(kind: str, known: tuple[str, ...], what: str) -> NoReturn:
    if kind in known:
        member = kind.lower()
        raise Invalid(f"{what}: type is {kind}, but '{member}' is missing; expecting '{member}' to be present")
    raise Invalid(f"{what}: type {kind!r} is none of {', '.join(known)}")


# Reservations.


def _is_special(found: wire.Resource) -> bool:
    return bool(
        found.reservations
        or found.allocation_info
        or (found.role is not None and found.role != ANY_ROLE)
        or found.reservation
        or found.disk
        or found.revocable
        or found.shared
        or found.provider_id
    )


def _read_identity(found: wire.Resource, at: str) -> Identity:
    identity = Identity(
        reservations=_read_stack(found, f"{at} resource {found.name}"),
        allocation_role=found.allocation_info.role if found.allocation_info is not None else None,
        revocable=found.revocable is not None,
        shared=found.shared is not None,
        disk=_read_disk(found.disk) if found.disk is not None else None,
        provider=found.provider_id.value if found.provider_id is not None else None,
    )
    return PLAIN if identity == PLAIN else identity


def _read_stack(found: wire.Resource, what: str) -> tuple[Reservation, ...]:
    if not found.reservations:
        return _read_pre(found, what)
    if found.role is not None or found.reservation is not None:
        raise Invalid(f"{what} mixes 'reservations' with 'role' or 'reservation'; use one form in one resource")
    stack: list[Reservation] = []
    for above, below in enumerate(found.reservations, -1):
        if below.type not in ("STATIC", "DYNAMIC"):
            raise Invalid(f"{what}: reservation type {below.type!r} is neither STATIC nor DYNAMIC")
        if not below.role or below.role == ANY_ROLE:
            raise Invalid(f"{what}: a reservation needs a role other than '*'; found {below.role!r}")
        if stack and below.type == "STATIC":
            raise Invalid(f"{what}: only the first reservation may be STATIC; found one at place {above + 2}")
        if stack and not below.role.startswith(stack[-1].role + "/"):
            raise Invalid(
                f"{what}: reservation for {below.role} does not refine {stack[-1].role}; name a role below it"
            )
        stack.append(_read_reservation(below, below.role, static=below.type == "STATIC"))
    return tuple(stack)


def _read_pre(found: wire.Resource, what: str) -> tuple[Reservation, ...]:
    role = found.role or ANY_ROLE
    if role == ANY_ROLE:
        if found.reservation is not None:
            raise Invalid(f"{what} is reserved to '*'; a dynamic reservation needs the role it is for")
        return ()
    if found.reservation is None:
        return (Reservation(role=role, static=True),)
    return (_read_reservation(found.reservation, role, static=False),)


def _read_reservation(found: wire.Reservation, role: str, *, static: bool) -> Reservation:
    labels = found.labels.labels if found.labels is not None else ()
    return Reservation(
        role=role,
        principal=found.principal,
        labels=tuple((label.key, label.value or "") for label in labels),
        static=static,
    )


def _write_pre(reservations: tuple[Reservation, ...], made: wire.Resource) -> None:
    if not reservations:
        made.role = ANY_ROLE
        return
    reservation = reservations[0]
    made.role = reservation.role
    if not reservation.static:
        made.reservation = wire.Reservation(principal=reservation.principal, labels=_write_labels(reservation.labels))


def _write_reservation(reservation: Reservation) -> wire.Reservation:
    return wire.Reservation(
        type="STATIC" if reservation.static else "DYNAMIC",
        role=reservation.role,
        principal=reservation.principal,
        labels=_write_labels(reservation.labels),
    )


def _write_labels(labels: tuple[tuple[str, str], ...]) -> wire.Labels | None:
    return wire.Labels(labels=tuple(wire.Label(key=key, value=value) for key, value in labels)) if labels else None


def _read_disk(found: wire.Disk) -> Disk:
    source = found.source
    root = (source.path or source.mount) if source is not None else None
    return Disk(
        persistence_id=found.persistence.id if found.persistence is not None else None,
        principal=found.persistence.principal if found.persistence is not None else None,
        container_path=found.volume.container_path if found.volume is not None else None,
        source_type=source.type if source is not None else None,
        source_root=root.root if root is not None else None,
    )


def _write_disk(disk: Disk) -> wire.Disk:
    made = wire.Disk()
    if disk.persistence_id is not None:
        made.persistence = wire.Persistence(id=disk.persistence_id, principal=disk.principal)
    if disk.container_path is not None:
        made.volume = wire.Volume(container_path=disk.container_path, mode="RW")
    if disk.source_type is not None:
        root = wire.Root(root=disk.source_root) if disk.source_root is not None else None
        member = {"mount": root} if disk.source_type == "MOUNT" else {"path": root}
        made.source = wire.DiskSource(type=disk.source_type, **member)
    return made


# Attributes.


def read_attribute(found: wire.Attribute) -> Attribute:
    """Errors: `Invalid` for an unknown type or a missing value."""
    what = "attribute"
    match found.type:
        case "TEXT" if found.text is not None:
            return Attribute(name=found.name, text=found.text.value)
        case "SCALAR" if found.scalar is not None:
            milli = scalar(found.name, _amount(found.scalar.value, found.name, what)).milli
            return Attribute(name=found.name, kind=AttributeKind.SCALAR, milli=milli)
        case "RANGES" if found.ranges is not None:
            spans = read_ranges(found.ranges, found.name, what)
            return Attribute(name=found.name, kind=AttributeKind.RANGES, ranges=spans)
        case "SET" if found.items is not None:
            return Attribute(name=found.name, kind=AttributeKind.SET, items=tuple(sorted(set(found.items.item))))
        case kind:
            _refuse_type(kind, ("TEXT", "SCALAR", "RANGES", "SET"), f"{what} {found.name}")


def write_attribute(attribute: Attribute) -> wire.Attribute:
    made = wire.Attribute(name=attribute.name, type=attribute.kind.value)
    match attribute.kind:
        case AttributeKind.TEXT:
            made.text = wire.Text(value=attribute.text)
        case AttributeKind.SCALAR:
            made.scalar = wire.Scalar(value=attribute.milli / 1000)
        case AttributeKind.RANGES:
            made.ranges = write_ranges(attribute.ranges)
        case AttributeKind.SET:
            made.items = wire.Items(item=attribute.items)
    return made
