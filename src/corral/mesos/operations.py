"""Reads and writes operations on resources: in an ACCEPT, in operator calls, and in the forms of older endpoints.

What breaks an operation's form is refused here; whether it makes sense is for the master to say. Source: Mesos v1,
offer operations, operator API, and the legacy endpoints `/reserve`, `/unreserve`, `/create-volumes` and
`/destroy-volumes`.
"""

from collections.abc import Mapping, Sequence
from itertools import chain

import msgspec

from corral.lib.errors import Invalid
from corral.mesos import wire
from corral.mesos.lenient import LenientDecoder
from corral.mesos.resources import read_resource, read_resources, write_resource, write_resources
from corral.model import operations
from corral.model.ids import AgentId
from corral.model.operations import OperationState, OperationStatus, ResourceOperation
from corral.model.operator import Operate
from corral.model.resources import Resources, scalar


class WireReserve(wire.Wire):
    resources: tuple[wire.Resource, ...] = ()
    source: tuple[wire.Resource, ...] = ()


class WireUnreserve(wire.Wire):
    resources: tuple[wire.Resource, ...] = ()


class WireVolumes(wire.Wire):
    volumes: tuple[wire.Resource, ...] = ()


class WireGrow(wire.Wire):
    volume: wire.Resource
    addition: wire.Resource


class WireShrink(wire.Wire):
    volume: wire.Resource
    subtract: wire.Scalar


class WireOnAgent(wire.Wire):
    """The body of each of the operator's calls; every call needs its own of the fields."""

    agent_id: wire.Id
    resources: tuple[wire.Resource, ...] = ()
    source: tuple[wire.Resource, ...] = ()
    volumes: tuple[wire.Resource, ...] = ()
    volume: wire.Resource | None = None
    addition: wire.Resource | None = None
    subtract: wire.Scalar | None = None


class WireOperationStatus(wire.Wire):
    state: str
    operation_id: wire.Id | None = None
    message: str | None = None
    converted_resources: tuple[wire.Resource, ...] = ()
    uuid: wire.Uuid | None = None
    agent_id: wire.Id | None = None


class _Wrapped(wire.Wire):
    resources: tuple[wire.Resource, ...] = ()


CALLS = {
    "RESERVE_RESOURCES": "RESERVE",
    "UNRESERVE_RESOURCES": "UNRESERVE",
    "CREATE_VOLUMES": "CREATE",
    "DESTROY_VOLUMES": "DESTROY",
    "GROW_VOLUME": "GROW_VOLUME",
    "SHRINK_VOLUME": "SHRINK_VOLUME",
}
"""The operator's calls and the operation that each is."""

FORMS = {
    "/reserve": ("RESERVE", "resources"),
    "/unreserve": ("UNRESERVE", "resources"),
    "/create-volumes": ("CREATE", "volumes"),
    "/destroy-volumes": ("DESTROY", "volumes"),
}
"""The older endpoints: the operation and the field that holds its resources."""

_wrapped = LenientDecoder(_Wrapped, "resources")


# Reading.


def read_operation(kind: str, body: msgspec.Struct, at: str, operation_id: str | None = None) -> ResourceOperation:
    """Shapes: `body` is the wire's member of that kind. Errors: `Invalid` names the field that breaks the form."""
    match kind, body:
        case "RESERVE", WireReserve() | WireOnAgent():
            return operations.Reserve(
                resources=read_resources(body.resources, f"{at}.resources"),
                source=read_resources(body.source, f"{at}.source"), operation_id=operation_id,
            )  # fmt: skip
        case "UNRESERVE", WireUnreserve() | WireOnAgent():
            return operations.Unreserve(
                resources=read_resources(body.resources, f"{at}.resources"), operation_id=operation_id
            )
        case "CREATE", WireVolumes() | WireOnAgent():
            return operations.Create(
                volumes=_read_volumes(body.volumes, f"{at}.volumes"), operation_id=operation_id,
                unsupported=_unsupported(body.volumes),
            )  # fmt: skip
        case "DESTROY", WireVolumes() | WireOnAgent():
            return operations.Destroy(volumes=_read_volumes(body.volumes, f"{at}.volumes"), operation_id=operation_id)
        case "GROW_VOLUME", WireGrow() | WireOnAgent():
            if body.volume is None or body.addition is None:
                raise _missing(f"{at}.{'volume' if body.volume is None else 'addition'}")
            return operations.Grow(
                volume=read_resource(body.volume, f"{at}.volume"),
                addition=read_resource(body.addition, f"{at}.addition"), operation_id=operation_id,
            )  # fmt: skip
        case "SHRINK_VOLUME", WireShrink() | WireOnAgent():
            if body.volume is None or body.subtract is None:
                raise _missing(f"{at}.{'volume' if body.volume is None else 'subtract'}")
            return operations.Shrink(
                volume=read_resource(body.volume, f"{at}.volume"),
                less_milli=scalar("disk", body.subtract.value).milli, operation_id=operation_id,
            )  # fmt: skip
        case _:
            raise AssertionError(f"{kind} has no body of type {type(body).__name__}")


def _read_volumes(found: Sequence[wire.Resource], at: str) -> Resources:
    """Not merged: the same volume named twice is to be refused, not to become one of twice the size."""
    return tuple(read_resource(r, at) for r in found)


def _unsupported(volumes: Sequence[wire.Resource]) -> tuple[str, ...]:
    found = {}
    for volume in (r.disk.volume for r in volumes if r.disk is not None and r.disk.volume is not None):
        if volume.mode != "RW":
            found["disk.volume.mode other than RW"] = True
        if volume.host_path is not None:
            found["disk.volume.host_path"] = True
        if volume.image is not None or volume.source is not None:
            found["disk.volume.image or source"] = True
    return tuple(found)


def _missing(field: str) -> Invalid:
    return Invalid(f"Expecting '{field}' to be present")


def read_operate(call: str, body: WireOnAgent) -> Operate:
    """The command of an operator's call. Errors: `Invalid` as of `read_operation`, and for what is allocated."""
    given = (body.resources, body.source, body.volumes, (body.volume, body.addition))
    if any(r is not None and r.allocation_info is not None for r in chain.from_iterable(given)):
        raise Invalid(f"field '{call.lower()}': resources of operators have no allocation_info; leave it out")
    operation = read_operation(CALLS[call], body, call.lower())
    return Operate(agent_id=AgentId(body.agent_id.value), operation=operation)


def read_form(path: str, fields: Mapping[str, Sequence[str]]) -> Operate:
    """The command that the form of an older endpoint states: `slaveId=…&resources=[…]`.

    Errors: `Invalid` names the field that is missing or cannot be read.
    """
    kind, field = FORMS[path]
    values = {}
    for name in ("slaveId", field):
        values[name] = next(iter(fields.get(name, ())), "")
        if not values[name]:
            raise Invalid(f"Missing '{name}' query parameter in the body; send slaveId=ID&{field}=[...]")
    resources = _wrapped.decode(b'{"resources":' + values[field].encode() + b"}").resources
    on_agent = WireOnAgent(agent_id=wire.Id(value=values["slaveId"]), resources=resources, volumes=resources)
    return Operate(agent_id=AgentId(values["slaveId"]), operation=read_operation(kind, on_agent, path.strip("/")))


# Writing.


def write_operation(operation: ResourceOperation) -> msgspec.Struct:
    """The wire's member that `read_operation` reads as this operation."""
    match operation:
        case operations.Reserve(resources=resources, source=source):
            return WireReserve(_write(resources), _write(source))
        case operations.Unreserve(resources=resources):
            return WireUnreserve(_write(resources))
        case operations.Create(volumes=volumes) | operations.Destroy(volumes=volumes):
            return WireVolumes(_write(volumes))
        case operations.Grow(volume=volume, addition=addition):
            return WireGrow(write_resource(volume, refinement=True), write_resource(addition, refinement=True))
        case operations.Shrink(volume=volume, less_milli=less):
            return WireShrink(write_resource(volume, refinement=True), wire.Scalar(value=less / 1000))


def _write(resources: Resources) -> tuple[wire.Resource, ...]:
    return write_resources(resources, refinement=True)


def write_status(status: OperationStatus, *, refinement: bool) -> WireOperationStatus:
    return WireOperationStatus(
        state=status.state.value,
        operation_id=wire.Id(value=status.operation_id) if status.operation_id else None,
        message=status.message or None,
        converted_resources=write_resources(status.converted, refinement=refinement),
        uuid=wire.Uuid(value=status.uuid) if status.uuid is not None else None,
        agent_id=wire.Id(value=status.agent_id) if status.agent_id is not None else None,
    )


def read_status(found: WireOperationStatus) -> OperationStatus:
    """Shapes: a state that corral does not know is read as UNKNOWN."""
    known = {state.value: state for state in OperationState}
    return OperationStatus(
        operation_id=found.operation_id.value if found.operation_id is not None else "",
        state=known.get(found.state, OperationState.UNKNOWN),
        message=found.message or "",
        converted=read_resources(found.converted_resources, "status.converted_resources"),
        uuid=found.uuid.value if found.uuid is not None else None,
        agent_id=AgentId(found.agent_id.value) if found.agent_id is not None else None,
    )
