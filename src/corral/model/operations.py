"""Operations on resources: reservations and persistent volumes made, undone, grown and shrunk.

Every operation is a conversion: so much of an agent's resources vanishes, so much comes in its place. Nothing else of
the agent changes, and the amounts of each name stay what they were. Master and agent both work it out from here.
Resources are without allocation role. Source: Mesos v1, offer operations and resource algebra.
"""

from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple

import msgspec

from corral.lib.errors import Invalid
from corral.model.ids import AgentId, check_id
from corral.model.ledger import stripped
from corral.model.resources import (
    PLAIN,
    Disk,
    Identity,
    Reservation,
    Resource,
    ResourceKind,
    Resources,
    add,
    all_ranges,
    contains,
    normal,
    subtract,
    total_milli,
)


class OperationState(StrEnum):
    PENDING = "OPERATION_PENDING"
    FINISHED = "OPERATION_FINISHED"
    FAILED = "OPERATION_FAILED"
    ERROR = "OPERATION_ERROR"
    DROPPED = "OPERATION_DROPPED"
    UNKNOWN = "OPERATION_UNKNOWN"


class OperationStatus(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """Shapes: `uuid` None on an answer to a reconciliation, which nobody has to acknowledge."""

    operation_id: str
    state: OperationState
    message: str = ""
    converted: Resources = ()
    uuid: bytes | None = None
    agent_id: AgentId | None = None


class Reserve(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag="RESERVE"):
    """Shapes: `source` says what the resources are now; without it they are what lies below their last reservation."""

    resources: Resources
    source: Resources = ()
    operation_id: str | None = None
    unsupported: tuple[str, ...] = ()


class Unreserve(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag="UNRESERVE"):
    """Take the last reservation of each resource away."""

    resources: Resources
    operation_id: str | None = None
    unsupported: tuple[str, ...] = ()


class Create(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag="CREATE"):
    """Shapes: `unsupported` are fields of the volumes that no agent can honour."""

    volumes: Resources
    operation_id: str | None = None
    unsupported: tuple[str, ...] = ()


class Destroy(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag="DESTROY"):
    volumes: Resources
    operation_id: str | None = None
    unsupported: tuple[str, ...] = ()


class Grow(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag="GROW_VOLUME"):
    volume: Resource
    addition: Resource
    operation_id: str | None = None
    unsupported: tuple[str, ...] = ()


class Shrink(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag="SHRINK_VOLUME"):
    """Units: `less_milli` thousandths of MB."""

    volume: Resource
    less_milli: int
    operation_id: str | None = None
    unsupported: tuple[str, ...] = ()


ResourceOperation = Reserve | Unreserve | Create | Destroy | Grow | Shrink


class Conversion(NamedTuple):
    """What an operation takes away and what it puts there."""

    consumed: Resources
    converted: Resources


def kind_of(operation: ResourceOperation) -> str:
    """The operation's name on the wire."""
    return str(type(operation).__struct_config__.tag)


def conversion(operation: ResourceOperation) -> Conversion:
    """Shapes: the operation has been found well formed; nothing is checked here."""
    match operation:
        case Reserve(resources=resources, source=source):
            after = stripped(resources)
            return Conversion(stripped(source) if source else _each(after, _unreserved), after)
        case Unreserve(resources=resources):
            before = stripped(resources)
            return Conversion(before, _each(before, _unreserved))
        case Create(volumes=volumes):
            after = stripped(volumes)
            return Conversion(_each(after, _without_volume), after)
        case Destroy(volumes=volumes):
            before = stripped(volumes)
            return Conversion(before, _each(before, _without_volume))
        case Grow(volume=volume, addition=addition):
            (old,), (more,) = stripped((volume,)), stripped((addition,))
            return Conversion(normal((old, more)), (msgspec.structs.replace(old, milli=old.milli + more.milli),))
        case Shrink(volume=volume, less_milli=less):
            (old,) = stripped((volume,))
            rest = msgspec.structs.replace(old, milli=old.milli - less)
            free = msgspec.structs.replace(_without_volume(old), milli=less)
            return Conversion((old,), normal((rest, free)))


def convert(have: Resources, change: Conversion) -> Resources | None:
    """What there is after the change; None when not all that it takes is there, or of a volume only a part is taken."""
    if not contains(have, change.consumed) or any(is_volume(r) and r not in have for r in change.consumed):
        return None
    return add(subtract(have, change.consumed), change.converted)


def conserves(change: Conversion) -> bool:
    """Whether the amounts of each name are the same before and after."""
    names = {r.name for bundle in change for r in bundle}
    before, after = change
    return all(
        total_milli(before, name) == total_milli(after, name)
        and all_ranges(before, name) == all_ranges(after, name)
        and _items(before, name) == _items(after, name)
        for name in names
    )


def _items(bundle: Resources, name: str) -> set[str]:
    return {item for r in bundle if r.name == name for item in r.items}


# What an agent holds.


def is_volume(resource: Resource) -> bool:
    return resource.identity.disk is not None and resource.identity.disk.persistence_id is not None


def volume_key(resource: Resource) -> tuple[str, str]:
    """What a volume is told apart by on its agent: role and persistence id."""
    identity = resource.identity
    assert identity.disk is not None
    assert identity.disk.persistence_id is not None
    return identity.reservations[-1].role, identity.disk.persistence_id


def volume_keys(resources: Resources) -> set[tuple[str, str]]:
    return {volume_key(r) for r in resources if is_volume(r)}


def made(resources: Resources) -> Resources:
    """The part that operations have made: dynamic reservations and volumes."""
    return tuple(r for r in resources if is_volume(r) or any(not each.static for each in r.identity.reservations))


def plain_form(resources: Resources) -> Resources:
    """The same resources as the agent was configured to have them, before any operation."""
    return _each(resources, _as_configured)


def with_made(configured: Resources, held: Resources) -> Resources | None:
    """What an agent has by its configuration with what operations have made of it; None when that is not all there."""
    return convert(configured, Conversion(plain_form(held), held))


def unshared(resources: Resources) -> Resources:
    """The part that only one can have at a time; shared volumes are there for all."""
    for r in resources:
        if r.identity is not PLAIN and r.identity.shared:
            return tuple(r for r in resources if not r.identity.shared)
    return resources


def once_each(resources: Resources, more: Resources) -> Resources:
    """Both together, a shared volume that is in both once."""
    return add(resources, tuple(r for r in more if not (r.identity.shared and r in resources)))


def _each(resources: Resources, change: Callable[[Resource], Resource]) -> Resources:
    return normal(change(r) for r in resources)


def _with(resource: Resource, identity: Identity) -> Resource:
    return msgspec.structs.replace(resource, identity=PLAIN if identity == PLAIN else identity)


def _unreserved(resource: Resource) -> Resource:
    identity = resource.identity
    return _with(resource, msgspec.structs.replace(identity, reservations=identity.reservations[:-1]))


def _without_volume(resource: Resource) -> Resource:
    identity = resource.identity
    return _with(resource, msgspec.structs.replace(identity, disk=_bare(identity.disk), shared=False))


def _bare(disk: Disk | None) -> Disk | None:
    """The disk that a volume is on; None for the root disk."""
    if disk is None or disk.source_type is None:
        return None
    return Disk(source_type=disk.source_type, source_root=disk.source_root)


def _as_configured(resource: Resource) -> Resource:
    identity = _without_volume(resource).identity
    kept: tuple[Reservation, ...] = tuple(each for each in identity.reservations if each.static)
    return _with(resource, msgspec.structs.replace(identity, reservations=kept))


# What is wrong with an operation, whoever asks for it.


def find_fault(operation: ResourceOperation) -> str | None:
    """What no agent could carry out: words for whoever asked; None when it is well formed."""
    what = kind_of(operation)
    if operation.unsupported:
        return f"{what} sets {', '.join(operation.unsupported)}; leave it out"
    match operation:
        case Reserve(resources=resources, source=source):
            fault = _find_amount_fault(what, resources) or _first(what, resources, _reserve_fault)
            if fault is None and source and not _same_origin(source, resources):
                fault = f"{what}: source and resources are not the same amounts of the same resources"
            return fault
        case Unreserve(resources=resources):
            return _find_amount_fault(what, resources) or _first(what, resources, _unreserve_fault)
        case Create(volumes=volumes):
            keys = [volume_key(v) for v in volumes if is_volume(v) and v.identity.reservations]
            double = next((key for key in keys if keys.count(key) > 1), None)
            fault = _find_amount_fault(what, volumes) or _first(what, volumes, _volume_fault)
            return fault or (f"{what} makes the volume {double[1]} of role {double[0]} twice" if double else None)
        case Destroy(volumes=volumes):
            return _find_amount_fault(what, volumes) or _first(what, volumes, _volume_fault)
        case Grow(volume=volume, addition=addition):
            fault = _find_amount_fault(what, (volume, addition)) or _resize_fault(what, volume)
            if fault is None and stripped((_without_volume(volume),))[0].identity != stripped((addition,))[0].identity:
                fault = f"{what}: the addition is not free disk of the same reservation and source as the volume"
            return fault
        case Shrink(volume=volume, less_milli=less):
            fault = _find_amount_fault(what, (volume,)) or _resize_fault(what, volume)
            if fault is None and not 0 < less < volume.milli:
                fault = f"{what} takes {less / 1000:g} MB of a volume of {volume.milli / 1000:g}; take less than all"
            return fault


def _first(what: str, resources: Resources, find: Callable[[Resource], str | None]) -> str | None:
    fault = next(filter(None, map(find, resources)), None)
    return None if fault is None else f"{what}: {fault}"


def _find_amount_fault(what: str, resources: Resources) -> str | None:
    if not resources:
        return f"{what} names no resources; at least one is needed"
    for r in resources:
        if r.kind is ResourceKind.SCALAR and r.milli <= 0:
            return f"{what} names {r.milli / 1000:g} {r.name}; a scalar must be above 0"
        if r.identity.revocable:
            return f"{what}: {r.name} is revocable; only what is given for good can be reserved or hold a volume"
        if r.identity.provider is not None:
            return f"{what}: {r.name} is of resource provider {r.identity.provider}; agents here have none"
    return None


def _reserve_fault(r: Resource) -> str | None:
    if not r.identity.reservations:
        return f"{r.name} names no reservation; give it a role and a reservation"
    if r.identity.reservations[-1].static:
        return f"{r.name} names a static reservation, which only the agent's configuration makes; make it dynamic"
    if is_volume(r):
        return f"{r.name} is a persistent volume; reserve plain disk, then CREATE the volume"
    return None


def _unreserve_fault(r: Resource) -> str | None:
    if not r.identity.reservations:
        return f"{r.name} is not reserved"
    if r.identity.reservations[-1].static:
        return (
            f"{r.name} is reserved for {r.identity.reservations[-1].role} by the agent's configuration; change it there"
        )
    if is_volume(r):
        return f"{r.name} holds the persistent volume {volume_key(r)[1]}; DESTROY it first"
    return None


def _volume_fault(r: Resource) -> str | None:
    disk = r.identity.disk
    if r.name != "disk":
        return f"{r.name} is no disk; volumes are made of disk"
    if disk is None or disk.persistence_id is None:
        return "a volume needs disk.persistence with an id"
    if not r.identity.reservations:
        return f"volume {disk.persistence_id} is on disk that nobody has reserved; RESERVE it first"
    if disk.source_type not in (None, "PATH"):
        return f"volume {disk.persistence_id} is on a disk of type {disk.source_type}; root and PATH disks are known"
    if not disk.container_path:
        return f"volume {disk.persistence_id} needs disk.volume with a container_path"
    if ".." in disk.container_path.split("/"):
        return (
            f"volume {disk.persistence_id} has the container_path {disk.container_path!r}, which leaves its directory"
        )
    return _id_fault(disk.persistence_id)


def _id_fault(persistence_id: str) -> str | None:
    try:
        check_id(persistence_id, "persistence id")
    except Invalid as error:
        return error.message
    return None


def _resize_fault(what: str, volume: Resource) -> str | None:
    fault = _volume_fault(volume)
    if fault is None and volume.identity.shared:
        fault = f"volume {volume_key(volume)[1]} is shared; destroy it and create another"
    return None if fault is None else f"{what}: {fault}"


def _same_origin(source: Resources, resources: Resources) -> bool:
    return plain_form(stripped(source)) == plain_form(stripped(resources))
