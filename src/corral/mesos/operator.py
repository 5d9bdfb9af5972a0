"""Reads operator calls and writes their answers: the reads of the Mesos v1 operator API, and weights and quota.

What else changes the cluster is not carried out by this release and says so. Empty lists are left out of answers, as
Mesos does. Source: Mesos v1, master operator API.
"""

from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from itertools import chain
from typing import Any

import msgspec

from corral import MESOS_VERSION
from corral.lib.errors import Invalid, Unimplemented
from corral.mesos import daemon, maintenance, quota, wire
from corral.mesos.common import (
    write_agent_info,
    write_framework_info,
    write_id,
    write_labels,
    write_offer,
    write_seconds,
)
from corral.mesos.daemon import DaemonCall
from corral.mesos.envelopes import WireOperation
from corral.mesos.events import write_master_info
from corral.mesos.health import write_health_check
from corral.mesos.lenient import LenientDecoder
from corral.mesos.offer_constraints import WireOfferConstraints, write_offer_constraints
from corral.mesos.operations import CALLS as OPERATIONS
from corral.mesos.operations import WireOnAgent, WireOperationStatus, read_operate, write_status
from corral.mesos.pieces import Rows, Tree, pieces
from corral.mesos.resources import write_resources
from corral.mesos.scheduler import write_resource_operation
from corral.mesos.snapshot import AgentRow, ClusterSnapshot, ExecutorRow, FrameworkRow, OperationRow
from corral.mesos.tasks import (
    seen_executor,
    seen_resources,
    write_container,
    write_discovery,
    write_executor,
    write_limits,
    write_task_status,
)
from corral.model.framework import Capability
from corral.model.ids import FrameworkId
from corral.model.operations import OperationState
from corral.model.operator import Change, Teardown
from corral.model.resources import add, with_allocation
from corral.model.task import Task

AGENT_CAPABILITIES = (
    "MULTI_ROLE", "HIERARCHICAL_ROLE", "RESERVATION_REFINEMENT", "RESIZE_VOLUME", "AGENT_OPERATION_FEEDBACK",
    "AGENT_DRAINING", "TASK_RESOURCE_LIMITS",
)  # fmt: skip
"""What every agent of corral can do of what agents of Mesos can."""

PATHS = ("/api/v1", "/api/v1/{rest*}", "/master/api/v1", "/master/api/v1/{rest*}")
"""Mesos matches routes by their longest prefix; clients do post to `/api/v1/operator`."""


class OperatorCall(StrEnum):
    """The calls that read."""

    GET_HEALTH = "GET_HEALTH"
    GET_FLAGS = "GET_FLAGS"
    GET_VERSION = "GET_VERSION"
    GET_METRICS = "GET_METRICS"
    GET_STATE = "GET_STATE"
    GET_AGENTS = "GET_AGENTS"
    GET_FRAMEWORKS = "GET_FRAMEWORKS"
    GET_EXECUTORS = "GET_EXECUTORS"
    GET_TASKS = "GET_TASKS"
    GET_ROLES = "GET_ROLES"
    GET_WEIGHTS = "GET_WEIGHTS"
    GET_QUOTA = "GET_QUOTA"
    GET_MASTER = "GET_MASTER"
    GET_MAINTENANCE_STATUS = "GET_MAINTENANCE_STATUS"
    GET_MAINTENANCE_SCHEDULE = "GET_MAINTENANCE_SCHEDULE"
    GET_OPERATIONS = "GET_OPERATIONS"


class Follow(msgspec.Struct, frozen=True):
    """SUBSCRIBE: the cluster as it is, then all that happens."""


class WireOperatorCall(daemon.WireDaemonCall):
    update_weights: quota.WireUpdateWeights | None = None
    update_quota: quota.WireUpdateQuota | None = None
    set_quota: quota.WireSetQuota | None = None
    remove_quota: quota.WireRemoveQuota | None = None
    teardown: "WireTeardown | None" = None
    reserve_resources: WireOnAgent | None = None
    unreserve_resources: WireOnAgent | None = None
    create_volumes: WireOnAgent | None = None
    destroy_volumes: WireOnAgent | None = None
    grow_volume: WireOnAgent | None = None
    shrink_volume: WireOnAgent | None = None


class WireTeardown(wire.Wire):
    framework_id: wire.Id


CHANGES = ("UPDATE_WEIGHTS", "UPDATE_QUOTA", "SET_QUOTA", "REMOVE_QUOTA", "TEARDOWN", *maintenance.CHANGES, *OPERATIONS)
"""The calls that change something."""

KNOWN = frozenset(
    {
        *OperatorCall, *daemon.CALLS, *CHANGES, "UNKNOWN", "SUBSCRIBE",
    }
)  # fmt: skip
"""All calls of the API, answered or not."""


class Named(wire.Wire):
    name: str
    value: float | str


class VersionInfo(wire.Wire):
    version: str
    build_date: str | None = None
    build_time: float | None = None
    build_user: str | None = None


class Agent(wire.Wire):
    agent_info: wire.AgentInfo
    active: bool
    deactivated: bool
    version: str
    pid: str
    registered_time: wire.Nanoseconds | None = None
    reregistered_time: wire.Nanoseconds | None = None
    capabilities: tuple[wire.CapabilityInfo, ...] = ()
    total_resources: tuple[wire.Resource, ...] = ()
    allocated_resources: tuple[wire.Resource, ...] = ()
    offered_resources: tuple[wire.Resource, ...] = ()
    drain_info: maintenance.WireDrainInfo | None = None
    estimated_drain_start_time: wire.Nanoseconds | None = None


class Operation(wire.Wire):
    info: WireOperation
    latest_status: WireOperationStatus
    uuid: wire.Uuid
    framework_id: wire.Id | None = None
    agent_id: wire.Id | None = None
    statuses: tuple[WireOperationStatus, ...] = ()


class Framework(wire.Wire):
    framework_info: wire.FrameworkInfo
    active: bool
    connected: bool
    recovered: bool
    registered_time: wire.Nanoseconds | None = None
    reregistered_time: wire.Nanoseconds | None = None
    unregistered_time: wire.Nanoseconds | None = None
    allocated_resources: tuple[wire.Resource, ...] = ()
    offered_resources: tuple[wire.Resource, ...] = ()
    offer_constraints: WireOfferConstraints | None = None
    inverse_offers: tuple[wire.InverseOffer, ...] = ()


class TaskEntry(wire.Wire):
    name: str
    task_id: wire.Id
    framework_id: wire.Id
    agent_id: wire.Id
    state: str
    executor_id: wire.Id | None = None
    resources: tuple[wire.Resource, ...] = ()
    statuses: tuple[wire.TaskStatus, ...] = ()
    status_update_state: str | None = None
    status_update_uuid: bytes | None = None
    labels: wire.Labels | None = None
    discovery: wire.DiscoveryInfo | None = None
    container: wire.ContainerInfo | None = None
    health_check: wire.HealthCheck | None = None
    kill_policy: wire.KillPolicy | None = None
    user: str | None = None
    limits: dict[str, wire.Limit] | None = None


class Executor(wire.Wire):
    agent_id: wire.Id
    executor_info: wire.ExecutorInfo


class Role(wire.Wire):
    name: str
    weight: float
    frameworks: tuple[wire.Id, ...] = ()
    resources: tuple[wire.Resource, ...] = ()


_calls = LenientDecoder(WireOperatorCall, "master::Call")
_encode = msgspec.json.Encoder().encode


def read_call(body: bytes) -> OperatorCall | Follow | DaemonCall | Change:
    """A read by its name, what is asked of the daemon itself, or the command that a change is.

    Errors: `Invalid` without a known type or without its member; `Unimplemented` for what this release does not do.
    """
    call = _calls.decode(body)
    kind = call.type
    if kind is None or kind not in KNOWN:
        given = f"; found {kind!r}, which is no call" if kind is not None else ""
        raise Invalid(f"Failed to validate master::Call: Expecting 'type' to be present{given}")
    if kind == "SUBSCRIBE":
        return Follow()
    if kind in CHANGES or kind in daemon.CALLS:
        if kind in maintenance.CHANGES:
            found: Change | DaemonCall | None = maintenance.read_change(kind, body)
        else:
            found = _read_change(call) or daemon.read_call(call)
        if found is None:
            raise Invalid(f"Failed to validate master::Call: Expecting '{kind.lower()}' to be present")
        return found
    try:
        return OperatorCall(kind)
    except ValueError:
        raise Unimplemented(
            f"operator call {kind} is not part of this release; {', '.join((*OperatorCall, *CHANGES))} are"
        ) from None


def _read_change(call: WireOperatorCall) -> Change | None:
    """None when the member that belongs to the type is missing."""
    match call:
        case WireOperatorCall(type="UPDATE_WEIGHTS", update_weights=quota.WireUpdateWeights() as found):
            return quota.read_update_weights(found)
        case WireOperatorCall(type="UPDATE_QUOTA", update_quota=quota.WireUpdateQuota() as found):
            return quota.read_update_quota(found)
        case WireOperatorCall(type="SET_QUOTA", set_quota=quota.WireSetQuota() as found):
            return quota.read_set_quota(found.quota_request)
        case WireOperatorCall(type="TEARDOWN", teardown=WireTeardown() as found):
            return Teardown(framework_id=FrameworkId(found.framework_id.value))
        case WireOperatorCall(type="REMOVE_QUOTA", remove_quota=quota.WireRemoveQuota() as found):
            return quota.read_remove_quota(found.role)
        case _:
            body = getattr(call, (call.type or "").lower()) if call.type in OPERATIONS else None
            return None if body is None or call.type is None else read_operate(call.type, body)


def write_response(
    call: OperatorCall, snapshot: ClusterSnapshot, version: str, metrics: Mapping[str, float] | None = None
) -> bytes:
    """The answer's JSON body: `{"type": T, "<t>": {...}}`.

    Shapes: `metrics` are needed for GET_METRICS alone.
    """
    return b"".join(pieces(plan_response(call, snapshot, version, metrics)))


def plan_response(
    call: OperatorCall, snapshot: ClusterSnapshot, version: str, metrics: Mapping[str, float] | None = None
) -> Tree:
    """The same as a tree, to be written in pieces."""
    return {"type": call.value, call.value.lower(): _write_body(call, snapshot, version, metrics or {})}


def _write_body(call: OperatorCall, snapshot: ClusterSnapshot, version: str, metrics: Mapping[str, float]) -> Tree:
    match call:
        case OperatorCall.GET_HEALTH:
            return {"healthy": True}
        case OperatorCall.GET_FLAGS:
            return write_flags(snapshot.flags)
        case OperatorCall.GET_VERSION:
            return write_version(version)
        case OperatorCall.GET_METRICS:
            return write_metrics(metrics)
        case OperatorCall.GET_STATE:
            return write_state(snapshot)
        case OperatorCall.GET_AGENTS:
            return write_agents(snapshot)
        case OperatorCall.GET_FRAMEWORKS:
            return write_frameworks(snapshot)
        case OperatorCall.GET_EXECUTORS:
            return write_executors(snapshot)
        case OperatorCall.GET_OPERATIONS:
            return _rows(operations=(snapshot.operations, _write_operation))
        case OperatorCall.GET_TASKS:
            return write_tasks(snapshot)
        case OperatorCall.GET_ROLES:
            return _lists(roles=_write_roles(snapshot))
        case OperatorCall.GET_WEIGHTS:
            return _lists(weight_infos=[*quota.write_weights(snapshot)])
        case OperatorCall.GET_QUOTA:
            return {"status": quota.write_quota_status(snapshot)}
        case OperatorCall.GET_MASTER:
            return _write_master(snapshot)
        case OperatorCall.GET_MAINTENANCE_STATUS:
            return {"status": maintenance.write_status(snapshot)}
        case OperatorCall.GET_MAINTENANCE_SCHEDULE:
            return {"schedule": maintenance.write_schedule(snapshot)}


def write_flags(flags: Iterable[tuple[str, str]]) -> Tree:
    return _lists(flags=[Named(name=name, value=value) for name, value in flags])


def write_version(version: str) -> Tree:
    return {"version_info": VersionInfo(version=version, build_date="", build_time=0.0, build_user="corral")}


def write_metrics(metrics: Mapping[str, float]) -> Tree:
    return _lists(metrics=[Named(name=name, value=float(value)) for name, value in sorted(metrics.items())])


def write_state(snapshot: ClusterSnapshot) -> Tree:
    """What GET_STATE and the first event of a stream show."""
    return {
        "get_tasks": write_tasks(snapshot),
        "get_executors": write_executors(snapshot),
        "get_frameworks": write_frameworks(snapshot),
        "get_agents": write_agents(snapshot),
    }


def _lists(**lists: list[object]) -> dict[str, list[object]]:
    return {name: items for name, items in lists.items() if items}


def _rows(**lists: tuple[Iterable[Any], Callable[[Any], object]]) -> Tree:
    """Lists of rows, the empty ones left out. Shapes: each of what there is and how one is written."""
    found = {}
    for name, (items, write) in lists.items():
        iterator = iter(items)
        for first in iterator:
            found[name] = Rows(chain((first,), iterator), write)
            break
    return found


def write_agents(snapshot: ClusterSnapshot) -> Tree:
    known = [a for a in snapshot.agents if a.unreachable_at is None]
    return _rows(
        agents=([a for a in known if not a.recovered], write_agent),
        recovered_agents=([a.info for a in known if a.recovered], write_agent_info),
    )


def write_agent(row: AgentRow) -> Agent:
    info = row.info
    return Agent(
        agent_info=write_agent_info(info),
        active=row.active,
        deactivated=row.deactivated,
        version=MESOS_VERSION,
        pid=f"slave(1)@{info.ip}:{info.port}",
        registered_time=write_seconds(row.registered_at),
        reregistered_time=write_seconds(row.reregistered_at) if row.reregistered_at is not None else None,
        capabilities=tuple(wire.CapabilityInfo(type=name) for name in AGENT_CAPABILITIES),
        total_resources=write_resources(with_allocation(info.resources, None), refinement=True, both=True),
        allocated_resources=write_resources(row.used, refinement=True, both=True),
        offered_resources=write_resources(row.offered, refinement=True, both=True),
        drain_info=maintenance.write_drain_info(row.drain) if row.drain is not None else None,
        estimated_drain_start_time=write_seconds(row.drain.started_at) if row.drain is not None else None,
    )


def write_frameworks(snapshot: ClusterSnapshot) -> Tree:
    return _rows(
        frameworks=(snapshot.frameworks, write_framework),
        completed_frameworks=(snapshot.completed_frameworks, write_framework),
    )


def write_framework(row: FrameworkRow) -> Tree:
    """Shapes: a row of offers inside when there are many."""
    refinement = row.info.can(Capability.RESERVATION_REFINEMENT)
    made: Tree = msgspec.structs.asdict(
        Framework(
            framework_info=write_framework_info(row.info),
            active=row.active,
            connected=row.connected,
            recovered=row.recovered,
            registered_time=write_seconds(row.registered_at),
            reregistered_time=write_seconds(row.reregistered_at) if row.reregistered_at is not None else None,
            unregistered_time=write_seconds(row.unregistered_at) if row.unregistered_at is not None else None,
            allocated_resources=write_resources(row.used, refinement=True, both=True),
            offered_resources=write_resources(row.offered, refinement=True, both=True),
            offer_constraints=write_offer_constraints(row.offer_constraints),
            inverse_offers=tuple(maintenance.write_inverse_offer(o) for o in row.inverse_offers),
        )
    )
    offers = _rows(offers=(row.offers, lambda offer: write_offer(offer, refinement=refinement)))
    return {**{name: value for name, value in made.items() if value not in (None, ())}, **offers}


def write_tasks(snapshot: ClusterSnapshot) -> Tree:
    """Shapes: those of a framework that is no more are completed, whatever their agents still have to say of them."""
    every = (*snapshot.frameworks, *snapshot.completed_frameworks)
    return _rows(
        tasks=(_tasks(f.tasks for f in snapshot.frameworks), write_task),
        unreachable_tasks=(_tasks(f.unreachable_tasks for f in snapshot.frameworks), write_task),
        completed_tasks=(_tasks(f.completed_tasks for f in every), write_task),
        orphan_tasks=(_tasks(a.orphans for a in snapshot.agents), write_task),
    )


def write_executors(snapshot: ClusterSnapshot) -> Tree:
    return _rows(executors=(snapshot.executors, _write_executor))


def _write_executor(row: ExecutorRow) -> Executor:
    info = write_executor(seen_executor(row.info), refinement=True, allocation=row.role, both=True)
    return Executor(agent_id=wire.Id(value=row.agent_id), executor_info=info)


def _write_operation(row: OperationRow) -> Operation:
    status = write_status(row.status, refinement=True)
    return Operation(
        framework_id=wire.Id(value=row.framework_id) if row.framework_id is not None else None,
        agent_id=wire.Id(value=row.agent_id) if row.agent_id is not None else None,
        info=write_resource_operation(row.operation),
        latest_status=status,
        # Nothing has been told of one that is under way.
        statuses=() if row.status.state is OperationState.PENDING else (status,),
        uuid=wire.Uuid(value=row.uuid),
    )


def _tasks(found: Iterable[Iterable[Task]]) -> Iterable[Task]:
    return chain.from_iterable(found)


def write_task(task: Task) -> TaskEntry:
    info = task.info
    last = task.statuses[-1] if task.statuses else None
    made = TaskEntry(
        name=info.name,
        task_id=wire.Id(value=info.task_id),
        framework_id=wire.Id(value=task.framework_id),
        agent_id=wire.Id(value=info.agent_id),
        state=task.state.value,
        executor_id=write_id(info.executor.executor_id) if info.executor is not None else None,
        resources=write_resources(seen_resources(info), refinement=True, allocation=task.role, both=True),
        statuses=tuple(write_task_status(s) for s in task.statuses),
        status_update_state=last.state.value if last is not None else None,
        status_update_uuid=last.uuid if last is not None else None,
        labels=write_labels(info.labels),
        discovery=write_discovery(info.discovery) if info.discovery is not None else None,
        container=write_container(info.container) if info.container is not None else None,
        user=info.command.user if info.command is not None else None,
        limits=write_limits(info.limits),
    )
    if info.health_checks:
        made.health_check = write_health_check(info.health_checks[0])
    if info.kill_grace_s is not None:
        made.kill_policy = wire.KillPolicy(grace_period=write_seconds(info.kill_grace_s))
    return made


def _write_roles(snapshot: ClusterSnapshot) -> list[object]:
    return [
        Role(
            name=r.name,
            weight=float(r.weight),
            frameworks=tuple(wire.Id(value=f) for f in r.frameworks),
            resources=write_resources(with_allocation(add(r.allocated), None), refinement=True, both=True),
        )
        for r in snapshot.roles
    ]


def _write_master(snapshot: ClusterSnapshot) -> dict[str, object]:
    master: dict[str, object] = {"master_info": write_master_info(snapshot.master), "start_time": snapshot.start_at}
    if snapshot.elected_at is not None:
        master["elected_time"] = snapshot.elected_at
    return master
