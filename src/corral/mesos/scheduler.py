"""Reads what frameworks say to the master, and writes it for frameworks: the calls of the Mesos v1 scheduler API.

Here everything is refused that breaks a call's form; the HTTP answer is 400 then. What only makes no sense (a role, a
capability, an offer that is gone) passes: the master tells it later, in an ERROR event or as a task's status. The
texts of those ERROR events about a framework are decided here too. Source: Mesos v1 scheduler API.
"""

import msgspec

from corral.lib.errors import Invalid, Unimplemented
from corral.mesos import wire
from corral.mesos.common import (
    read_framework_info,
    read_seconds,
    write_framework_info,
    write_id,
    write_seconds,
)
from corral.mesos.envelopes import (
    WireAccept,
    WireAcknowledge,
    WireAcknowledgeOperation,
    WireAnswerInverse,
    WireCall,
    WireFilters,
    WireKill,
    WireLaunch,
    WireLaunchGroup,
    WireMessage,
    WireOperation,
    WireReconcile,
    WireReconcileOperation,
    WireReconcileOperations,
    WireReconcileTask,
    WireRequest,
    WireRoles,
    WireShutdown,
    WireSubscribe,
    WireTaskGroup,
)
from corral.mesos.events import read_event, write_event
from corral.mesos.lenient import LenientDecoder
from corral.mesos.offer_constraints import read_offer_constraints, write_offer_constraints
from corral.mesos.operations import read_operation, write_operation
from corral.mesos.tasks import (
    check_uuid,
    find_unsupported_executor,
    read_executor,
    read_task_info,
    write_executor,
    write_task_info,
)
from corral.mesos.wants import read_wants, write_wants
from corral.model import calls
from corral.model.framework import Capability, FrameworkInfo
from corral.model.ids import AgentId, ExecutorId, FrameworkId, InverseOfferId, OfferId, TaskId, check_id, check_role
from corral.model.offer import Filters
from corral.model.operations import ResourceOperation, kind_of
from corral.model.task import TaskInfo

__all__ = [
    "CONTENT_TYPE",
    "PATH",
    "STREAM_ID_HEADER",
    "check_framework",
    "check_resubscribe",
    "read_call",
    "read_event",
    "write_call",
    "write_event",
]

PATH = "/api/v1/scheduler"
CONTENT_TYPE = "application/json"
STREAM_ID_HEADER = "Mesos-Stream-Id"
ATTEMPT_HEADER = "Corral-Attempt"
"""corral's own: tells which of two SUBSCRIBE requests is the newer one, whichever comes first."""
MOST_REFUSE_S = 365 * 86400.0
MOST_TIMEOUT_S = (1 << 63) // 10**9
"""What a count of nanoseconds in 64 bits can hold, as in Mesos."""

_DEFAULT_FILTERS = Filters()

_calls = LenientDecoder(WireCall, "scheduler::Call")
_encode = msgspec.json.Encoder().encode


def read_call(body: bytes) -> calls.Call:
    """The call that a request's JSON body states.

    Errors: `Invalid` names the field; `Unimplemented` when the type is UNKNOWN.
    """
    found = _calls.decode(body)
    if found.type == "UNKNOWN":
        raise Unimplemented("call type UNKNOWN asks for nothing; name the call that is meant")
    reader = _READERS.get(found.type or "")
    if reader is None:
        given = f"; found {found.type!r}, which is no call" if found.type is not None else ""
        raise Invalid(f"Failed to validate scheduler::Call: Expecting 'type' to be present{given}")
    if found.type == "SUBSCRIBE":
        return reader(found, FrameworkId(""))
    if found.framework_id is None or not found.framework_id.value:
        raise Invalid("Failed to validate scheduler::Call: Expecting 'framework_id' to be present")
    return reader(found, FrameworkId(found.framework_id.value))


def _missing(member: str) -> Invalid:
    return Invalid(f"Failed to validate scheduler::Call: Expecting '{member}' to be present")


def _read_subscribe(found: WireCall, _: FrameworkId) -> calls.Call:
    if found.subscribe is None:
        raise _missing("subscribe")
    info = read_framework_info(found.subscribe.framework_info)
    envelope = found.framework_id.value if found.framework_id is not None else ""
    if envelope != (info.id or ""):
        raise Invalid(
            "Failed to validate scheduler::Call: 'framework_id' differs from 'subscribe.framework_info.id'; found "
            f"{envelope!r} and {info.id or ''!r}"
        )
    return calls.Subscribe(
        info=info,
        suppressed_roles=found.subscribe.suppressed_roles,
        offer_constraints=read_offer_constraints(found.subscribe.offer_constraints),
    )


def _read_update_framework(found: WireCall, framework_id: FrameworkId) -> calls.Call:
    if found.update_framework is None:
        raise _missing("update_framework")
    info = read_framework_info(found.update_framework.framework_info)
    if info.id != framework_id:
        raise Invalid(
            "Failed to validate scheduler::Call: 'framework_id' differs from 'update_framework.framework_info.id'; "
            f"found {framework_id!r} and {info.id or ''!r}"
        )
    return calls.UpdateFramework(
        info=info,
        suppressed_roles=found.update_framework.suppressed_roles,
        offer_constraints=read_offer_constraints(found.update_framework.offer_constraints),
    )


def _read_teardown(_: WireCall, framework_id: FrameworkId) -> calls.Call:
    return calls.Teardown(framework_id=framework_id)


def _read_accept(found: WireCall, framework_id: FrameworkId) -> calls.Call:
    if found.accept is None:
        raise _missing("accept")
    return calls.Accept(
        framework_id=framework_id,
        offer_ids=tuple(OfferId(o.value) for o in found.accept.offer_ids),
        operations=tuple(_read_operation(o, i) for i, o in enumerate(found.accept.operations)),
        filters=_read_filters(found.accept.filters),
    )


def _read_decline(found: WireCall, framework_id: FrameworkId) -> calls.Call:
    if found.decline is None:
        raise _missing("decline")
    offer_ids = tuple(OfferId(o.value) for o in found.decline.offer_ids)
    return calls.Decline(framework_id=framework_id, offer_ids=offer_ids, filters=_read_filters(found.decline.filters))


def _read_answer_inverse(found: WireCall, framework_id: FrameworkId) -> calls.Call:
    accepts = found.type == "ACCEPT_INVERSE_OFFERS"
    body = found.accept_inverse_offers if accepts else found.decline_inverse_offers
    if body is None:
        raise _missing((found.type or "").lower())
    kind = calls.AcceptInverseOffers if accepts else calls.DeclineInverseOffers
    ids = tuple(InverseOfferId(o.value) for o in body.inverse_offer_ids)
    return kind(framework_id=framework_id, inverse_offer_ids=ids, filters=_read_filters(body.filters))


def _read_filters(found: WireFilters | None) -> Filters:
    """Source: Mesos v1: 5 seconds when nothing or nonsense is said, at most a year."""
    if found is None or found.refuse_seconds is None:
        return _DEFAULT_FILTERS
    if not found.refuse_seconds >= 0:  # also what is not a number at all
        return _DEFAULT_FILTERS
    return Filters(refuse_s=min(found.refuse_seconds, MOST_REFUSE_S))


def _read_operation(found: WireOperation, index: int) -> calls.Operation:
    at = f"accept.operations[{index}]"
    match found.type:
        case "LAUNCH":
            if found.launch is None:
                raise _missing(f"{at}.launch")
            infos = enumerate(found.launch.task_infos)
            tasks = tuple(read_task_info(t, f"{at}.launch.task_infos[{i}]") for i, t in infos)
            return calls.Launch(tasks=_without_feedback(found, tasks))
        case "LAUNCH_GROUP":
            if found.launch_group is None:
                raise _missing(f"{at}.launch_group")
            infos = enumerate(found.launch_group.task_group.tasks)
            tasks = tuple(read_task_info(t, f"{at}.launch_group.task_group.tasks[{i}]") for i, t in infos)
            executor = read_executor(found.launch_group.executor, f"{at}.launch_group.executor")
            strange = find_unsupported_executor(found.launch_group.executor, "launch_group.executor")
            tasks = tuple(msgspec.structs.replace(t, unsupported=(*t.unsupported, *strange)) for t in tasks)
            return calls.LaunchGroup(executor=executor, tasks=_without_feedback(found, tasks))
        case "RESERVE" | "UNRESERVE" | "CREATE" | "DESTROY" | "GROW_VOLUME" | "SHRINK_VOLUME" as kind:
            body: msgspec.Struct | None = getattr(found, kind.lower())
            if body is None:
                raise _missing(f"{at}.{kind.lower()}")
            operation_id = found.id.value if found.id is not None else None
            return read_operation(kind, body, f"{at}.{kind.lower()}", operation_id)
        case kind:
            operation_id = found.id.value if found.id is not None else None
            return calls.Unsupported(kind=kind or "UNKNOWN", operation_id=operation_id)


def _without_feedback(found: WireOperation, tasks: tuple[TaskInfo, ...]) -> tuple[TaskInfo, ...]:
    """Operation feedback does not exist for launches: asked for, it is what makes their tasks errors."""
    if found.id is None:
        return tasks
    return tuple(msgspec.structs.replace(t, unsupported=(*t.unsupported, "operation.id")) for t in tasks)


def _read_revive(found: WireCall, framework_id: FrameworkId) -> calls.Call:
    return calls.Revive(framework_id=framework_id, roles=found.revive.roles if found.revive is not None else ())


def _read_suppress(found: WireCall, framework_id: FrameworkId) -> calls.Call:
    return calls.Suppress(framework_id=framework_id, roles=found.suppress.roles if found.suppress is not None else ())


def _read_kill(found: WireCall, framework_id: FrameworkId) -> calls.Call:
    if found.kill is None:
        raise _missing("kill")
    grace = found.kill.kill_policy.grace_period if found.kill.kill_policy is not None else None
    if grace is not None and grace.nanoseconds < 0:
        raise Invalid(f"field 'kill.kill_policy.grace_period': {grace.nanoseconds} is negative; give 0 or more")
    return calls.Kill(
        framework_id=framework_id,
        task_id=TaskId(found.kill.task_id.value),
        agent_id=AgentId(found.kill.agent_id.value) if found.kill.agent_id is not None else None,
        grace_s=read_seconds(grace) if grace is not None else None,
    )


def _read_shutdown(found: WireCall, framework_id: FrameworkId) -> calls.Call:
    if found.shutdown is None:
        raise _missing("shutdown")
    return calls.Shutdown(
        framework_id=framework_id,
        executor_id=ExecutorId(found.shutdown.executor_id.value),
        agent_id=AgentId(found.shutdown.agent_id.value),
    )


def _read_acknowledge(found: WireCall, framework_id: FrameworkId) -> calls.Call:
    acknowledge = found.acknowledge
    if acknowledge is None:
        raise _missing("acknowledge")
    check_uuid(acknowledge.uuid, "acknowledge.uuid")
    return calls.Acknowledge(
        framework_id=framework_id,
        agent_id=AgentId(acknowledge.agent_id.value),
        task_id=TaskId(acknowledge.task_id.value),
        uuid=acknowledge.uuid,
    )


def _read_acknowledge_operation(found: WireCall, framework_id: FrameworkId) -> calls.Call:
    body = found.acknowledge_operation_status
    if body is None:
        raise _missing("acknowledge_operation_status")
    check_uuid(body.uuid, "acknowledge_operation_status.uuid")
    return calls.AcknowledgeOperation(
        framework_id=framework_id, operation_id=body.operation_id.value, uuid=body.uuid,
        agent_id=AgentId(body.agent_id.value) if body.agent_id is not None else None,
    )  # fmt: skip


def _read_reconcile_operations(found: WireCall, framework_id: FrameworkId) -> calls.Call:
    if found.reconcile_operations is None:
        raise _missing("reconcile_operations")
    asked = tuple(
        (o.operation_id.value, AgentId(o.agent_id.value) if o.agent_id is not None else None)
        for o in found.reconcile_operations.operations
    )
    return calls.ReconcileOperations(framework_id=framework_id, operations=asked)


def _read_reconcile(found: WireCall, framework_id: FrameworkId) -> calls.Call:
    if found.reconcile is None:
        raise _missing("reconcile")
    tasks = tuple(
        calls.ReconcileTask(
            task_id=TaskId(t.task_id.value), agent_id=AgentId(t.agent_id.value) if t.agent_id is not None else None
        )
        for t in found.reconcile.tasks
    )
    return calls.Reconcile(framework_id=framework_id, tasks=tasks)


def _read_message(found: WireCall, framework_id: FrameworkId) -> calls.Call:
    if found.message is None:
        raise _missing("message")
    return calls.Message(
        framework_id=framework_id,
        agent_id=AgentId(found.message.agent_id.value),
        executor_id=ExecutorId(found.message.executor_id.value),
        data=found.message.data,
    )


def _read_request(found: WireCall, framework_id: FrameworkId) -> calls.Call:
    if found.request is None:
        raise _missing("request")
    wants = read_wants(found.request.wants) if found.request.wants is not None else None
    return calls.Request(framework_id=framework_id, wants=wants)


_READERS = {
    "SUBSCRIBE": _read_subscribe,
    "TEARDOWN": _read_teardown,
    "ACCEPT": _read_accept,
    "DECLINE": _read_decline,
    "ACCEPT_INVERSE_OFFERS": _read_answer_inverse,
    "DECLINE_INVERSE_OFFERS": _read_answer_inverse,
    "REVIVE": _read_revive,
    "SUPPRESS": _read_suppress,
    "KILL": _read_kill,
    "SHUTDOWN": _read_shutdown,
    "ACKNOWLEDGE": _read_acknowledge,
    "ACKNOWLEDGE_OPERATION_STATUS": _read_acknowledge_operation,
    "RECONCILE": _read_reconcile,
    "RECONCILE_OPERATIONS": _read_reconcile_operations,
    "MESSAGE": _read_message,
    "REQUEST": _read_request,
    "UPDATE_FRAMEWORK": _read_update_framework,
}


def write_call(call: calls.Call) -> bytes:
    """The JSON body that `read_call` reads as this call."""
    return _encode(_written(call))


def _written(call: calls.Call) -> WireCall:
    match call:
        case calls.Subscribe(info=info):
            return WireCall(type="SUBSCRIBE", framework_id=write_id(info.id), subscribe=_write_subscribe(call))
        case calls.UpdateFramework(info=info):
            body = _write_subscribe(call)
            return WireCall(type="UPDATE_FRAMEWORK", framework_id=write_id(info.id), update_framework=body)
    made = WireCall(framework_id=wire.Id(value=call.framework_id))
    match call:
        case calls.Teardown():
            made.type = "TEARDOWN"
        case calls.Accept():
            made.type, made.accept = "ACCEPT", _write_accept(call)
        case calls.Decline():
            made.type, made.decline = "DECLINE", _write_accept(call)
        case calls.AcceptInverseOffers():
            made.type, made.accept_inverse_offers = "ACCEPT_INVERSE_OFFERS", _write_answer_inverse(call)
        case calls.DeclineInverseOffers():
            made.type, made.decline_inverse_offers = "DECLINE_INVERSE_OFFERS", _write_answer_inverse(call)
        case calls.Revive(roles=roles):
            made.type, made.revive = "REVIVE", WireRoles(roles=roles)
        case calls.Suppress(roles=roles):
            made.type, made.suppress = "SUPPRESS", WireRoles(roles=roles)
        case calls.Kill():
            made.type, made.kill = "KILL", _write_kill(call)
        case calls.Shutdown():
            executor_id, agent_id = wire.Id(value=call.executor_id), wire.Id(value=call.agent_id)
            made.type, made.shutdown = "SHUTDOWN", WireShutdown(executor_id=executor_id, agent_id=agent_id)
        case calls.Acknowledge():
            agent_id, task_id = wire.Id(value=call.agent_id), wire.Id(value=call.task_id)
            acknowledge = WireAcknowledge(agent_id=agent_id, task_id=task_id, uuid=call.uuid)
            made.type, made.acknowledge = "ACKNOWLEDGE", acknowledge
        case calls.Reconcile(tasks=tasks):
            asked = tuple(WireReconcileTask(wire.Id(value=t.task_id), write_id(t.agent_id)) for t in tasks)
            made.type, made.reconcile = "RECONCILE", WireReconcile(tasks=asked)
        case calls.AcknowledgeOperation():
            made.type = "ACKNOWLEDGE_OPERATION_STATUS"
            made.acknowledge_operation_status = WireAcknowledgeOperation(
                wire.Id(value=call.operation_id), call.uuid, write_id(call.agent_id)
            )
        case calls.ReconcileOperations(operations=named):
            rows = tuple(WireReconcileOperation(wire.Id(value=o), write_id(a)) for o, a in named)
            made.type, made.reconcile_operations = "RECONCILE_OPERATIONS", WireReconcileOperations(rows)
        case calls.Message():
            agent_id, executor_id = wire.Id(value=call.agent_id), wire.Id(value=call.executor_id)
            made.type, made.message = "MESSAGE", WireMessage(agent_id, executor_id, call.data)
        case calls.Request(wants=wants):
            made.type = "REQUEST"
            made.request = WireRequest(wants=write_wants(wants) if wants is not None else None)
    return made


def _write_subscribe(call: calls.Subscribe | calls.UpdateFramework) -> WireSubscribe:
    return WireSubscribe(
        framework_info=write_framework_info(call.info),
        suppressed_roles=call.suppressed_roles,
        offer_constraints=write_offer_constraints(call.offer_constraints),
    )


def _write_answer_inverse(call: calls.AcceptInverseOffers | calls.DeclineInverseOffers) -> WireAnswerInverse:
    return WireAnswerInverse(
        inverse_offer_ids=tuple(wire.Id(value=o) for o in call.inverse_offer_ids),
        filters=WireFilters(refuse_seconds=float(call.filters.refuse_s)),
    )


def _write_accept(call: calls.Accept | calls.Decline) -> WireAccept:
    operations = call.operations if isinstance(call, calls.Accept) else ()
    return WireAccept(
        offer_ids=tuple(wire.Id(value=o) for o in call.offer_ids),
        operations=tuple(_write_operation(o) for o in operations),
        filters=WireFilters(refuse_seconds=float(call.filters.refuse_s)),
    )


def _write_operation(operation: calls.Operation) -> WireOperation:
    match operation:
        case calls.Launch(tasks=tasks):
            infos = tuple(write_task_info(t, refinement=True) for t in tasks)
            return WireOperation(type="LAUNCH", launch=WireLaunch(task_infos=infos))
        case calls.LaunchGroup(executor=executor, tasks=tasks):
            group = WireTaskGroup(tasks=tuple(write_task_info(t, refinement=True) for t in tasks))
            launch_group = WireLaunchGroup(write_executor(executor, refinement=True), group)
            return WireOperation(type="LAUNCH_GROUP", launch_group=launch_group)
        case calls.Unsupported():
            return WireOperation(type=operation.kind, id=write_id(operation.operation_id))
        case _:
            return write_resource_operation(operation)


def write_resource_operation(operation: ResourceOperation) -> WireOperation:
    """An operation as it stands in an ACCEPT."""
    kind = kind_of(operation)
    written = WireOperation(type=kind, id=write_id(operation.operation_id))
    setattr(written, kind.lower(), write_operation(operation))
    return written


def _write_kill(call: calls.Kill) -> WireKill:
    policy = wire.KillPolicy(grace_period=write_seconds(call.grace_s)) if call.grace_s is not None else None
    return WireKill(task_id=wire.Id(value=call.task_id), agent_id=write_id(call.agent_id), kill_policy=policy)


def check_framework(info: FrameworkInfo, suppressed_roles: tuple[str, ...] = ()) -> str | None:
    """What is wrong with a framework's introduction: the text of its ERROR event, or None.

    Source: Mesos v1, SUBSCRIBE: roles and the MULTI_ROLE capability, failover timeout, suppressed roles.
    """
    if info.can(Capability.MULTI_ROLE):
        if info.role is not None:
            return "'FrameworkInfo.role' must not be set with the MULTI_ROLE capability; name the roles in 'roles'"
        twice = sorted({role for role in info.roles if info.roles.count(role) > 1})
        if twice:
            return f"'FrameworkInfo.roles' must not have duplicates; found {', '.join(twice)} more than once"
    elif info.roles:
        return "'FrameworkInfo.roles' must not be set without the MULTI_ROLE capability; add it or set 'role' instead"
    if not 0 <= info.failover_timeout_s <= MOST_TIMEOUT_S:
        return (
            f"'FrameworkInfo.failover_timeout' is {info.failover_timeout_s}; it must be seconds, 0 or more and at most "
            f"{MOST_TIMEOUT_S}"
        )
    try:
        if info.id is not None:
            check_id(info.id, "'FrameworkInfo.id'")
        for role in info.subscribed_roles:
            check_role(role)
    except Invalid as error:
        return error.message
    strange = sorted(set(suppressed_roles) - set(info.subscribed_roles))
    if strange:
        return f"suppressed roles {', '.join(strange)} are not among the framework's roles; suppress only those"
    return _find_filter_fault(info)


def _find_filter_fault(info: FrameworkInfo) -> str | None:
    for one in info.offer_filters:
        if one.role not in info.subscribed_roles:
            roles = ", ".join(info.subscribed_roles) or "none"
            return f"'FrameworkInfo.offer_filters' of role {one.role!r}: the framework subscribed to {roles}"
        if not all(one.least):
            return f"'FrameworkInfo.offer_filters' of role {one.role!r}: quantities name no resource; leave them out"
    return None


def check_resubscribe(known: FrameworkInfo, info: FrameworkInfo) -> str | None:
    """What forbids that a known framework comes back as this: the text of its ERROR event, or None.

    Source: Mesos v1, SUBSCRIBE: the principal never changes; user and checkpoint silently keep their old values.
    """
    old, new = known.principal or "", info.principal or ""
    if old != new:
        return f"framework {known.id} changes its principal from {old!r} to {new!r}; keep the old one, or drop the id"
    return None
