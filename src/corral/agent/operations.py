"""Carries out operations on what the agent has: reservations and persistent volumes, its own truth about both.

Rules: an operation is on disk before it is answered; one that cannot be carried out changes nothing, and the agent
registers anew so that the master sees what there really is. The data of a destroyed volume is remembered until it is
deleted, so that no restart leaves it behind. Source: Mesos v1, checkpointed resources and persistent volumes.
"""

from corral.agent import session
from corral.agent.effects import DeleteVolume, Send
from corral.agent.execution import volume_path
from corral.agent.spec import ResourcesRecord, VolumeDeleted
from corral.agent.state import AgentState
from corral.model.operations import (
    Destroy,
    Grow,
    ResourceOperation,
    Shrink,
    conserves,
    conversion,
    convert,
    find_fault,
    is_volume,
    kind_of,
    made,
    unshared,
    volume_key,
    volume_keys,
    with_made,
)
from corral.model.orders import ApplyOperation, OperationDone
from corral.model.resources import Resource, Resources, describe
from corral.runtime.core import Effect, Loaded, Note, Persist, Stop, decode_records

RECORD = "resources"
MISFIT_EXIT = 2


def load(state: AgentState, input: Loaded) -> list[Effect]:
    """Take up what operations have made of the configured resources, and delete on what is left of volumes.

    Shapes: an agent that is configured with less than that stops, for it would lose reservations or volumes.
    """
    record = decode_records(input, RECORD, ResourcesRecord).get("", ResourcesRecord())
    state.doomed = dict.fromkeys(record.doomed)
    found = with_made(state.config.resources, record.made)
    if found is None:
        why = (
            f"the agent is configured with {describe(state.config.resources)}, which no longer holds what is reserved "
            f"or kept in volumes here: {describe(record.made)}; configure at least that, or unreserve it first"
        )
        return [Stop(why, MISFIT_EXIT)]
    state.resources = found
    return [DeleteVolume(path, "it was destroyed before the restart") for path in state.doomed]


def apply(state: AgentState, order: ApplyOperation, now: float) -> list[Effect]:
    """Carry the operation out on disk and answer, or answer why not and let the master look anew."""
    operation = order.operation
    what = kind_of(operation)
    why = find_refusal(state, operation)
    if why is not None:
        facts = {"agent": state.identity.agent_id, "operation": what}
        return [
            Note("operation refused", why, "error", facts), Send(OperationDone(order.uuid, why)),
            *session.renew(state, f"{what} could not be carried out: {why}"),
        ]  # fmt: skip
    change = conversion(operation)
    after = convert(state.resources, change)
    assert after is not None
    state.resources = after
    effects: list[Effect] = []
    if isinstance(operation, Destroy):
        for path in (volume_path(state.config.work_dir, v) for v in operation.volumes):
            state.doomed[path] = None
            effects.append(DeleteVolume(path, "its volume was destroyed"))
    note = Note("resources changed", f"{what} {describe(change.converted)}", facts={"operation": what})
    return [_save(state), note, *effects, Send(OperationDone(order.uuid))]


def find_refusal(state: AgentState, operation: ResourceOperation) -> str | None:
    """Why the agent cannot carry it out now; None when it can."""
    fault = find_fault(operation)
    if fault is not None:
        return fault
    change = conversion(operation)
    if not conserves(change):
        return "it would change how much there is"
    if convert(state.resources, change) is None:
        return f"the agent has {describe(state.resources)}, not all of {describe(change.consumed)} in this form"
    there = volume_keys(state.resources)
    new = volume_keys(change.converted) - volume_keys(change.consumed)
    if both := sorted(there & new):
        return f"a volume {both[0][1]} of role {both[0][0]} is here already"
    if isinstance(operation, Destroy | Grow | Shrink):
        touched = volume_keys(change.consumed)
        for _, task in sorted(state.tasks.items()):
            if task.live and volume_keys(task.info.resources) & touched:
                return f"task {task.info.task_id} of framework {task.framework_id} uses the volume"
        for _, executor in sorted(state.executors.items()):
            if volume_keys(executor.info.resources) & touched:
                return f"executor {executor.info.executor_id} of framework {executor.framework_id} uses the volume"
    doomed = [v for v in change.converted if is_volume(v) and volume_key(v) in new]
    if any(volume_path(state.config.work_dir, v) in state.doomed for v in doomed):
        return "the data of an earlier volume of this id is still being deleted; try again in a moment"
    return None


def find_lack(state: AgentState, resources: Resources) -> Resource | None:
    """The reserved resource or volume of a task that the agent does not have; None when it has all."""
    have = {(r.name, r.identity): r for r in state.resources}
    for r in resources:
        if r.identity.reservations and ((r.name, r.identity) not in have or have[r.name, r.identity].milli < r.milli):
            return r
    return None


def find_holder(state: AgentState, resources: Resources) -> str | None:
    """The live task that has one of these volumes for itself."""
    wanted = volume_keys(unshared(resources))
    for _, task in sorted(state.tasks.items()) if wanted else ():
        if task.live and volume_keys(task.info.resources) & wanted:
            return str(task.info.task_id)
    return None


def deleted(state: AgentState, input: VolumeDeleted) -> list[Effect]:
    """The data of a volume is gone, or will be tried again at the next start."""
    if input.why is not None:
        facts = {"path": input.path}
        return [Note("volume not deleted", f"{input.why}; it is tried again at the agent's next start", "error", facts)]
    state.doomed.pop(input.path, None)
    return [_save(state)]


def _save(state: AgentState) -> Persist:
    held = made(state.resources)
    empty = not held and not state.doomed
    return Persist(RECORD, None if empty else ResourcesRecord(held, tuple(state.doomed)))
