"""Carries out operations on agents' resources, reservations and volumes, and tells frameworks what came of theirs.

Rules: an operation is checked whole before anything changes. What it makes is counted at once, so that the next one of
the same ACCEPT can build on it; the agent makes it durable and says so, and only then is it told as done. What an agent
brings at its registration is the truth, whatever was ordered before. Source: Mesos v1, offer operations and feedback.
"""

from collections.abc import Iterable

import msgspec

from corral.lib.errors import Conflict
from corral.lib.ids import mint_uuid_bytes
from corral.master import claims
from corral.master.agent_entry import AgentEntry
from corral.master.effects import SendEvent, SendOrder
from corral.master.entries import FrameworkEntry, OfferEntry, OperationEntry, ToldOperation
from corral.master.spec import agent_key
from corral.master.state import MasterState
from corral.mesos.snapshot import OperationRow
from corral.model import events
from corral.model.calls import AcknowledgeOperation, ReconcileOperations, Unsupported
from corral.model.framework import Capability
from corral.model.ids import AgentId
from corral.model.ledger import Pool
from corral.model.operations import (
    Create,
    Destroy,
    Grow,
    OperationState,
    OperationStatus,
    Reserve,
    ResourceOperation,
    Shrink,
    conserves,
    conversion,
    convert,
    find_fault,
    kind_of,
    volume_keys,
)
from corral.model.orders import ApplyOperation, OperationDone
from corral.model.resources import Resources, contains, describe
from corral.runtime.core import Effect, Note, Persist, Refuse, Reply

_MOST_REMEMBERED = 10_000

# By frameworks.


def carry_out(
    state: MasterState, framework: FrameworkEntry, agent: AgentEntry, role: str, operation: ResourceOperation,
    left: Pool,
) -> list[Effect]:  # fmt: skip
    """One operation of an ACCEPT, on what its offers still hold; one that breaks a rule changes nothing."""
    why = find_refusal(framework, agent, role, operation, left)
    if why is not None:
        return refuse(state, framework, agent, operation, why)
    change = conversion(operation)
    left.take(change.consumed)
    left.add(change.converted)
    return order(state, agent, OperationEntry(operation, agent.id, framework.id))


def refuse(
    state: MasterState, framework: FrameworkEntry, agent: AgentEntry, operation: ResourceOperation, why: str
) -> list[Effect]:
    """Say why an operation is not carried out."""
    note = Note("operation refused", why, "warning", {"framework": framework.id, "agent": agent.id})
    return [note, *_tell_end(state, framework, operation, OperationState.ERROR, why, agent.id)]


def refuse_unknown(
    state: MasterState, framework: FrameworkEntry, agent_id: AgentId | None, operation: Unsupported,
    to: OperationState, why: str,
) -> list[Effect]:  # fmt: skip
    """The same of an operation that nobody carries out."""
    note = Note("operation dropped", why, "warning", {"framework": framework.id})
    if operation.operation_id is None:
        return [note]
    status = OperationStatus(
        operation_id=operation.operation_id, state=to, message=why, agent_id=agent_id or AgentId("")
    )
    return [note, *_send(framework, (status,))]


def find_refusal(
    framework: FrameworkEntry, agent: AgentEntry, role: str, operation: ResourceOperation, left: Pool
) -> str | None:
    """Why a framework must not do this with what its offers hold; None when it may."""
    fault = find_fault(operation) or _find_role_fault(framework, role, operation)
    if fault is not None:
        return fault
    change = conversion(operation)
    lack = left.lacks(change.consumed)
    if lack is not None:
        form = "reserved" if lack.identity.reservations else "unreserved"
        have = describe(tuple(r for r in left.bundle() if r.name == lack.name))
        return f"{kind_of(operation)} takes {describe((lack,))} ({form} as it says), more than the offer holds: {have}"
    return find_agent_fault(agent, operation)


def _find_role_fault(framework: FrameworkEntry, role: str, operation: ResourceOperation) -> str | None:
    what = kind_of(operation)
    resources = _named(operation)
    for r in resources:
        if r.identity.allocation_role not in (None, role):
            return f"{what}: {r.name} is for role {r.identity.allocation_role} but the offer is for role {role}"
        if len(r.identity.reservations) > 1 and not framework.info.can(Capability.RESERVATION_REFINEMENT):
            return f"{what}: {r.name} has a refined reservation; that needs the capability RESERVATION_REFINEMENT"
        if r.identity.shared and not framework.info.can(Capability.SHARED_RESOURCES):
            return f"{what}: {r.name} is shared; that needs the capability SHARED_RESOURCES"
    if isinstance(operation, Reserve):
        if operation.source:
            return f"{what} names a source; only operators may move a reservation"
        for r in resources:
            wanted = r.identity.reservations[-1].role
            if wanted != role:
                return f"{what} is for role {wanted} but the offer is for role {role}"
    return find_principal_fault(framework.principal, operation)


def find_principal_fault(principal: str | None, operation: ResourceOperation) -> str | None:
    """Who is known by a principal reserves and creates under that name and no other."""
    if principal is None or not isinstance(operation, Reserve | Create):
        return None
    for r in _named(operation):
        if isinstance(operation, Reserve):
            named = r.identity.reservations[-1].principal
        else:
            named = r.identity.disk.principal if r.identity.disk is not None else None
        if named != principal:
            return f"{kind_of(operation)} of {r.name} names principal {named or 'none'}, but comes from {principal}"
    return None


def find_agent_fault(agent: AgentEntry, operation: ResourceOperation) -> str | None:
    change = conversion(operation)
    if not conserves(change):
        return f"{kind_of(operation)} would change how much there is of a resource"
    before, after = volume_keys(change.consumed), volume_keys(change.converted)
    there = volume_keys(agent.info.resources)
    if both := sorted((after - before) & there):
        return f"agent {agent.id} has a volume {both[0][1]} of role {both[0][0]} already; choose another id"
    if isinstance(operation, Destroy | Grow | Shrink):
        for task in agent.tasks.values():
            if task.holding and volume_keys(task.resources) & before:
                return f"task {task.info.task_id} of framework {task.framework_id} uses the volume; end it first"
        for executor in agent.executors.values():
            if volume_keys(executor.resources) & before:
                return f"executor {executor.info.executor_id} of framework {executor.framework_id} uses the volume"
    if convert(agent.info.resources, change) is None:
        return f"agent {agent.id} does not have {describe(change.consumed)} in this form"
    return None


def _named(operation: ResourceOperation) -> Resources:
    match operation:
        case Create(volumes=volumes) | Destroy(volumes=volumes):
            return volumes
        case Grow(volume=volume, addition=addition):
            return (volume, addition)
        case Shrink(volume=volume):
            return (volume,)
        case _:
            return operation.resources


def sharers(agent: AgentEntry, operation: ResourceOperation) -> list[OfferEntry]:
    """The offers that hold a shared volume which the operation destroys."""
    if not isinstance(operation, Destroy):
        return []
    shared = volume_keys(tuple(r for r in operation.volumes if r.identity.shared))
    return [e for e in agent.offers.values() if volume_keys(e.resources) & shared]


# On the way to the agent and back.


def order(state: MasterState, agent: AgentEntry, entry: OperationEntry) -> list[Effect]:
    """Count what the operation makes, and order the agent to make it."""
    after = convert(agent.info.resources, conversion(entry.operation))
    assert after is not None, "it was seen to be possible"
    assert agent.session is not None, "offers exist only of agents with a link"
    agent.describe(msgspec.structs.replace(agent.info, resources=after))
    claims.tell_agent(state, agent)
    uuid = entry.uuid = mint_uuid_bytes(state.random)
    state.operations[uuid] = entry
    facts = {"agent": agent.id, "framework": entry.framework_id or "", "operation": kind_of(entry.operation)}
    return [
        SendOrder(agent.session, ApplyOperation(state.epoch, uuid, entry.operation)),
        Note("operation ordered", describe(conversion(entry.operation).converted), "info", facts),
    ]


def done(state: MasterState, agent: AgentEntry, told: OperationDone) -> list[Effect]:
    """The agent has it on its disk, or could not; in that case it will register anew."""
    entry = state.operations.pop(told.uuid, None)
    if entry is None:
        return []
    if told.why is not None:
        return _settle(state, entry, OperationState.FAILED, told.why)
    record = Persist(agent_key(agent.id), agent.record())
    return [record, *_settle(state, entry, OperationState.FINISHED, "")]


def lose_sight(state: MasterState, agent: AgentEntry) -> list[Effect]:
    """The agent's link broke: operators wait no longer for what nobody can tell them now."""
    effects: list[Effect] = []
    for entry in state.operations.values():
        if entry.agent_id == agent.id and entry.ask is not None:
            why = f"agent {agent.id} went away before it answered; see /slaves, once it is back, whether it was done"
            effects.append(Refuse(entry.ask, Conflict(why)))
            entry.ask = None
    return effects


def drop_pending(state: MasterState, agent_id: AgentId, have: Resources) -> list[Effect]:
    """The agent has registered anew or gone: what it has, or nothing, says what became of what was under way."""
    effects: list[Effect] = []
    for uuid, entry in list(state.operations.items()):
        if entry.agent_id != agent_id:
            continue
        del state.operations[uuid]
        if contains(have, conversion(entry.operation).converted):
            effects += _settle(state, entry, OperationState.FINISHED, "")
        else:
            why = f"agent {agent_id} was away before it had carried the operation out"
            effects += _settle(state, entry, OperationState.DROPPED, why)
    return effects


def _settle(state: MasterState, entry: OperationEntry, to: OperationState, why: str) -> list[Effect]:
    effects: list[Effect] = []
    if why:
        facts = {"agent": entry.agent_id, "operation": kind_of(entry.operation)}
        effects.append(Note("operation not carried out", why, "warning", facts))
    if entry.ask is not None:
        effects.append(Reply(entry.ask) if to is OperationState.FINISHED else Refuse(entry.ask, Conflict(why)))
    framework = state.frameworks.get(entry.framework_id) if entry.framework_id is not None else None
    if framework is not None:
        effects += _tell_end(state, framework, entry.operation, to, why, entry.agent_id, entry.uuid)
    return effects


# Feedback.


def _tell_end(
    state: MasterState, framework: FrameworkEntry, operation: ResourceOperation, to: OperationState, why: str,
    agent_id: AgentId, uuid: bytes = b"",
) -> list[Effect]:  # fmt: skip
    """What became of an operation that was given an id; kept until the framework acknowledges it.

    Shapes: `uuid` is what it was ordered by.
    """
    if operation.operation_id is None:
        return []
    status = OperationStatus(
        operation_id=operation.operation_id, state=to, message=why, agent_id=agent_id,
        converted=conversion(operation).converted if to is OperationState.FINISHED else (),
        uuid=mint_uuid_bytes(state.random),
    )  # fmt: skip
    framework.operations[operation.operation_id] = ToldOperation(operation, status, uuid)
    while len(framework.operations) > _MOST_REMEMBERED:
        del framework.operations[next(iter(framework.operations))]
    return _send(framework, (status,))


def tell_unacknowledged(framework: FrameworkEntry) -> list[Effect]:
    """What a framework that has come back has not acknowledged."""
    return _send(framework, [told.status for told in framework.operations.values()])


def drop_all(
    state: MasterState, framework: FrameworkEntry, operation: ResourceOperation, why: str, agent_id: AgentId | None
) -> list[Effect]:
    """An operation of an ACCEPT whose offers do not stand."""
    facts = {"framework": framework.id}
    note = Note("operation dropped", f"operation {kind_of(operation)} was dropped: {why}", "warning", facts)
    told = _tell_end(state, framework, operation, OperationState.DROPPED, why, agent_id or AgentId(""))
    return [note, *told]


def acknowledge(framework: FrameworkEntry, call: AcknowledgeOperation) -> list[Effect]:
    """The framework knows what became of it; what is not the newest word is ignored."""
    told = framework.operations.get(call.operation_id)
    if told is not None and told.status.uuid == call.uuid:
        del framework.operations[call.operation_id]
    return []


def reconcile(state: MasterState, framework: FrameworkEntry, call: ReconcileOperations) -> list[Effect]:
    """Answer for those named, or for all that are under way or not acknowledged."""
    under_way = {
        entry.operation.operation_id: entry.agent_id
        for entry in state.operations.values()
        if entry.framework_id == framework.id and entry.operation.operation_id is not None
    }
    asked = call.operations or tuple((id, None) for id in (*under_way, *framework.operations))
    found = []
    for operation_id, agent_id in asked:
        last = framework.operations.get(operation_id)
        if operation_id in under_way:
            to, message, agent_id = OperationState.PENDING, "", under_way[operation_id]
        elif last is not None:
            to, message, agent_id = last.status.state, last.status.message, last.status.agent_id
        else:
            to, message = OperationState.UNKNOWN, "Reconciliation: Operation is unknown"
        found.append(OperationStatus(operation_id=operation_id, state=to, message=message, agent_id=agent_id))
    return _send(framework, found)


def rows(state: MasterState) -> tuple[OperationRow, ...]:
    """The operations that agents have not answered, and those whose end was told and is not acknowledged."""
    found = [
        OperationRow(
            operation=entry.operation, uuid=uuid, framework_id=entry.framework_id, agent_id=entry.agent_id,
            status=OperationStatus(
                operation_id=entry.operation.operation_id or "", state=OperationState.PENDING, agent_id=entry.agent_id
            ),
        )
        for uuid, entry in state.operations.items()
    ]  # fmt: skip
    found += [
        OperationRow(
            operation=told.operation, uuid=told.uuid or told.status.uuid or b"", framework_id=framework.id,
            agent_id=told.status.agent_id or None, status=told.status,
        )
        for framework in state.frameworks.values()
        for told in framework.operations.values()
    ]  # fmt: skip
    return tuple(found)


def _send(framework: FrameworkEntry, statuses: Iterable[OperationStatus]) -> list[Effect]:
    stream = framework.stream
    return [] if stream is None else [SendEvent(stream, events.UpdateOperation(status=s)) for s in statuses]
