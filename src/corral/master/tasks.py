"""Launches, follows, kills and buries tasks.

Rules: a task's resources are free again the moment its end is known; the task itself stays until the framework has
acknowledged that end. What the master says itself carries no uuid and is never acknowledged.
Source: Mesos v1 scheduler API, status updates.
"""

from collections.abc import Sequence

import msgspec

from corral.master import claims, executors, news, timers
from corral.master.agent_entry import AgentEntry, AgentState
from corral.master.effects import SendEvent, SendOrder
from corral.master.entries import FrameworkEntry, OfferEntry, TaskEntry
from corral.master.state import MasterState
from corral.model import events
from corral.model.calls import Acknowledge, Kill
from corral.model.ids import AgentId, TaskId
from corral.model.ledger import stripped
from corral.model.orders import AcknowledgeUpdate, KillTask, RunGroup, RunTask, ShutdownFramework, UpdateTask
from corral.model.resources import Resources, describe
from corral.model.task import TERMINAL, Reason, Source, TaskInfo, TaskState, TaskStatus, group_of, seen_state
from corral.runtime.core import Effect, Note

_MOST_KILLS = 10_000
_AWAY = (AgentState.RECOVERED, AgentState.UNREACHABLE)


def launch(
    state: MasterState, framework: FrameworkEntry, agent: AgentEntry, role: str, info: TaskInfo, resources: Resources,
    offer: OfferEntry | None, now: float,
) -> list[Effect]:  # fmt: skip
    """Record the task and order its agent to run it; its resources have been taken from the accepted offers.

    Shapes: `resources` without allocation role. The task takes the place of `offer`, which is over.
    """
    note = enter(state, framework, agent, role, info, resources, offer, now)
    assert agent.session is not None, "offers exist only of agents with a link"
    agent.contact.spoken_at = now
    starts = info.executor is not None and executors.enter(state, framework.id, agent, role, info.executor, now)
    return [SendOrder(agent.session, RunTask(state.epoch, framework.info, role, info, starts)), note]


def launch_group(
    state: MasterState, framework: FrameworkEntry, agent: AgentEntry, role: str, infos: Sequence[TaskInfo],
    offer: OfferEntry | None, now: float,
) -> list[Effect]:  # fmt: skip
    """The same for tasks that start together. Shapes: each has resources as charged and names the same executor."""
    executor = infos[0].executor
    assert executor is not None, "a group has an executor"
    notes: list[Effect] = []
    for index, info in enumerate(infos):
        instead_of = offer if index == 0 else None
        notes.append(enter(state, framework, agent, role, info, stripped(info.resources), instead_of, now))
    assert agent.session is not None, "offers exist only of agents with a link"
    agent.contact.spoken_at = now
    starts = executors.enter(state, framework.id, agent, role, executor, now)
    return [SendOrder(agent.session, RunGroup(state.epoch, framework.info, role, tuple(infos), starts)), *notes]


def enter(
    state: MasterState, framework: FrameworkEntry, agent: AgentEntry, role: str, info: TaskInfo, resources: Resources,
    offer: OfferEntry | None, now: float,
) -> Note:  # fmt: skip
    """Record a task that is launched and what it holds."""
    entry = add_task(state, framework, agent, info, role, resources, now)
    if framework.kills:
        # A kill that waits for a task of this id is meant for an older one.
        framework.kills.pop(info.task_id, None)
    claims.hold_task(state, entry, now, offer)
    return Note("task launched", f"offer of {describe(resources)} accepted", "info", _facts(entry))


def add_task(
    state: MasterState,
    framework: FrameworkEntry,
    agent: AgentEntry,
    info: TaskInfo,
    role: str,
    resources: Resources,
    now: float,
    task_state: TaskState = TaskState.STAGING,
    status: TaskStatus | None = None,
) -> TaskEntry:
    """Enter a task on its agent and with its framework; nothing is accounted yet."""
    entry = TaskEntry(info, framework.id, role, resources, group_of(info), now, state=task_state, status=status)
    framework.tasks[info.task_id] = entry
    agent.tasks[framework.id, info.task_id] = entry
    if agent.unavailability is not None:
        state.to_review[agent.id] = None
    state.live[task_state] += 1
    news.add_task(state, entry)
    return entry


def update(state: MasterState, agent: AgentEntry, report: UpdateTask, now: float) -> list[Effect]:
    """A status update from an agent: remember it and pass it on to the framework if that is listening.

    Shapes: a framework that is away gets nothing now but when it is back, and one that has not acknowledged the update
    before gets this one when it has; the agent repeats the oldest until it is acknowledged.
    """
    status = report.status
    state.counts["updates"] += 1
    framework = state.frameworks.get(report.framework_id)
    entry = agent.tasks.get((report.framework_id, status.task_id))
    if framework is None or (entry is not None and entry.orphan):
        return _update_of_nobody(state, agent, entry, report)
    if status.agent_id is None:
        status = msgspec.structs.replace(status, agent_id=agent.id)
    if entry is None:
        return _update_of_unknown(state, framework, agent, status)
    effects: list[Effect] = []
    if entry.state not in TERMINAL and report.latest is not entry.state:
        effects = _advance(state, entry, report.latest, status, now)
    before = entry.statuses.get(status.state)
    entry.add_status(status)
    if before is None or before.uuid != status.uuid:
        news.update_task(state, entry, status)
    if entry.unacknowledged and status.uuid != entry.unacknowledged[0].uuid:
        if status.uuid is not None and all(each.uuid != status.uuid for each in entry.unacknowledged):
            entry.unacknowledged += (status,)
        return effects
    if not entry.unacknowledged and status.uuid is not None:
        entry.unacknowledged = (status,)
    if framework.stream is not None:
        effects.append(_forward(framework, entry, status))
    if status.uuid is None and status.state in TERMINAL:
        _bury(state, framework, agent, entry)
    return effects


def _forward(framework: FrameworkEntry, entry: TaskEntry, status: TaskStatus) -> Effect:
    entry.forwarded = status.state
    entry.forwarded_uuid = status.uuid
    return tell(framework, status)


def tell_pending(framework: FrameworkEntry) -> list[Effect]:
    """What a framework that has just come back has not acknowledged, without waiting for the agents to repeat it."""
    return [
        _forward(framework, entry, entry.unacknowledged[0])
        for entry in framework.tasks.values()
        if entry.unacknowledged
    ]


def _advance(
    state: MasterState, entry: TaskEntry, latest: TaskState,
    status: TaskStatus, now: float,
) -> list[Effect]:  # fmt: skip
    set_state(state, entry, latest)
    if latest not in TERMINAL:
        claim = entry.info.claim
        if latest is TaskState.RUNNING and claim is not None and claim.run_s is not None:
            claims.hold_anew(state, entry, now)
        return []
    claims.release_task(state, entry)
    level = "info" if latest in (TaskState.FINISHED, TaskState.KILLED) else "warning"
    why = status.message if status.state is latest else None
    note = Note("task ended", why or str(latest), level, {**_facts(entry), "state": str(latest)})
    return [note, *timers.ask_allocation(state)]


def set_state(state: MasterState, entry: TaskEntry, new: TaskState) -> None:
    """Move a task that is with its framework to another state, and the counts with it."""
    state.live[entry.state] -= 1
    state.live[new] += 1
    entry.state = new
    if new in TERMINAL:
        state.ended[new] += 1


def _bury(state: MasterState, framework: FrameworkEntry, agent: AgentEntry, entry: TaskEntry) -> None:
    """The last of an ended task: from now on it is only looked at."""
    state.live[entry.state] -= 1
    del framework.tasks[entry.info.task_id]
    agent.tasks.pop((framework.id, entry.info.task_id), None)
    framework.kills.pop(entry.info.task_id, None)
    framework.completed.append(entry)


def _update_of_nobody(
    state: MasterState, agent: AgentEntry, entry: TaskEntry | None, report: UpdateTask
) -> list[Effect]:
    """No framework owns the task, so the master acknowledges its updates and frees what it held when it ends."""
    assert agent.session is not None
    status = report.status
    effects: list[Effect] = []
    if entry is not None and report.latest in TERMINAL:
        drop_orphan(state, agent, entry)
        effects += timers.ask_allocation(state)
    if entry is None and report.latest not in TERMINAL:
        effects.append(SendOrder(agent.session, ShutdownFramework(state.epoch, report.framework_id)))
    if status.uuid is not None:
        order = AcknowledgeUpdate(state.epoch, report.framework_id, status.task_id, status.uuid)
        effects.append(SendOrder(agent.session, order))
    return effects


def drop_orphan(state: MasterState, agent: AgentEntry, entry: TaskEntry) -> None:
    """Free what a task that nobody owns held on its agent."""
    agent.tasks.pop((entry.framework_id, entry.info.task_id), None)
    claims.release_task(state, entry)


def _update_of_unknown(
    state: MasterState, framework: FrameworkEntry, agent: AgentEntry, status: TaskStatus
) -> list[Effect]:
    """A task that the master holds for ended or never heard of: pass it on, and end it if it still runs."""
    assert agent.session is not None
    state.counts["strange updates"] += 1
    effects: list[Effect] = []
    if framework.stream is not None:
        effects.append(tell(framework, status))
    elif status.state in TERMINAL:
        return []
    if status.state not in TERMINAL:
        why = "the master does not know this task; its framework was told that it ended"
        effects.append(SendOrder(agent.session, KillTask(state.epoch, framework.id, status.task_id, None, why)))
        facts = {"task": status.task_id, "agent": agent.id, "framework": framework.id}
        effects.append(Note("unknown task ordered to end", why, "warning", facts))
    return effects


def tell(framework: FrameworkEntry, status: TaskStatus) -> Effect:
    """The UPDATE event, in the states this framework knows; it must be connected."""
    seen = seen_state(status.state, framework.partition_aware)
    if seen is not status.state:
        status = msgspec.structs.replace(status, state=seen)
    assert framework.stream is not None
    return SendEvent(framework.stream, events.Update(status=status))


def make_status(
    task_id: TaskId,
    task_state: TaskState,
    reason: Reason,
    message: str,
    now: float,
    *,
    agent_id: AgentId | None = None,
    unreachable_at: float | None = None,
) -> TaskStatus:
    """A status of the master's own making, which nobody has to acknowledge."""
    return TaskStatus(
        task_id=task_id, state=task_state, at=now, source=Source.MASTER, message=message, reason=reason,
        agent_id=agent_id, unreachable_at=unreachable_at,
    )  # fmt: skip


def reject(
    framework: FrameworkEntry, infos: Sequence[TaskInfo], task_state: TaskState, reason: Reason, why: str, now: float
) -> list[Effect]:
    """Tell that these tasks never ran; the master does not remember them."""
    effects: list[Effect] = []
    for info in infos:
        status = make_status(info.task_id, task_state, reason, why, now, agent_id=info.agent_id)
        effects.append(tell(framework, status))
        facts = {"task": info.task_id, "agent": info.agent_id, "framework": framework.id}
        effects.append(Note("task not launched", why, "warning", facts))
    return effects


def end(
    state: MasterState, framework: FrameworkEntry, agent: AgentEntry, entry: TaskEntry, status: TaskStatus
) -> list[Effect]:
    """Declare a task ended by the master's own word and bury it at once."""
    if entry.state not in TERMINAL:
        set_state(state, entry, status.state)
    claims.release_task(state, entry)
    entry.add_status(status)
    news.update_task(state, entry, status)
    _bury(state, framework, agent, entry)
    effects: list[Effect] = [
        Note("task ended", status.message or "", "warning", {**_facts(entry), "state": str(status.state)})
    ]
    if framework.stream is not None:
        effects.append(tell(framework, status))
    return effects


def forget_ended(state: MasterState, framework: FrameworkEntry, agent: AgentEntry, entry: TaskEntry) -> None:
    """An ended task whose acknowledgement has reached the agent by another way."""
    _bury(state, framework, agent, entry)


def end_missing(
    state: MasterState, agent: AgentEntry, entry: TaskEntry, over: TaskState, reason: Reason, text: str, now: float
) -> list[Effect]:
    """A task is not on its agent any more. Shapes: `over` is what frameworks hear that know more than lost ones."""
    framework = state.owner(entry)
    if framework is None:
        drop_orphan(state, agent, entry)
        return []
    if entry.state in TERMINAL:
        forget_ended(state, framework, agent, entry)
        return []
    ended = over if framework.partition_aware else TaskState.LOST
    status = make_status(entry.info.task_id, ended, reason, text, now, agent_id=agent.id)
    return end(state, framework, agent, entry, status)


def acknowledge(state: MasterState, framework: FrameworkEntry, call: Acknowledge, now: float) -> list[Effect]:
    """Hand the acknowledgement down to the agent; one for an agent that is away is dropped, for it will ask again."""
    agent = state.agents.get(call.agent_id)
    if agent is None or agent.session is None:
        return []
    entry = agent.tasks.get((framework.id, call.task_id))
    effects: list[Effect] = []
    if entry is not None:
        if entry.forwarded_uuid is None:
            return []
        if entry.unacknowledged and entry.unacknowledged[0].uuid == call.uuid:
            entry.unacknowledged = entry.unacknowledged[1:]
        if entry.forwarded_uuid == call.uuid:
            if entry.forwarded in TERMINAL:
                _bury(state, framework, agent, entry)
            elif entry.unacknowledged and framework.stream is not None:
                effects.append(_forward(framework, entry, entry.unacknowledged[0]))
    agent.contact.spoken_at = now
    order = AcknowledgeUpdate(state.epoch, framework.id, call.task_id, call.uuid)
    return [SendOrder(agent.session, order), *effects]


def kill(state: MasterState, framework: FrameworkEntry, call: Kill) -> list[Effect] | None:
    """Order the task's end; an order that cannot be delivered now is given when the agent is back.

    Shapes: None when the task is unknown: then the caller answers as for a reconciliation. A wrong agent id is ignored.
    """
    entry = framework.tasks.get(call.task_id)
    if entry is None:
        if call.task_id in framework.unreachable or _may_return(state, call.agent_id):
            framework.kills.pop(call.task_id, None)
            framework.kills[call.task_id] = call.grace_s
            if len(framework.kills) > _MOST_KILLS:
                del framework.kills[next(iter(framework.kills))]
        return None
    if call.agent_id is not None and call.agent_id != entry.agent_id:
        return []
    if entry.state in TERMINAL:
        return []
    entry.kill = (call.grace_s,)
    agent = state.agents[entry.agent_id]
    if agent.session is None:
        return [Note("kill kept for later", f"agent {agent.id} is {agent.state}", "info", _facts(entry))]
    return [order_kill(state, agent, entry, f"framework {framework.id} asked for it")]


def _may_return(state: MasterState, agent_id: AgentId | None) -> bool:
    """Whether an agent that is away might bring a task that this master has never heard of."""
    if agent_id is not None:
        agent = state.agents.get(agent_id)
        return agent is not None and agent.state in _AWAY
    return any(a.state in _AWAY for a in state.agents.values())


def order_kill(state: MasterState, agent: AgentEntry, entry: TaskEntry, why: str) -> Effect:
    """The order itself; the agent must have a link and the entry a kill. An eviction stays what the end is told as."""
    assert agent.session is not None
    assert entry.kill is not None
    reason = None
    if entry.preempted_by is not None:
        why, reason = entry.preempted_by.why, Reason.CONTAINER_PREEMPTED
    elif agent.drain is not None:
        reason = Reason.AGENT_DRAINING
    order = KillTask(state.epoch, entry.framework_id, entry.info.task_id, entry.kill[0], why, reason)
    return SendOrder(agent.session, order)


def _facts(entry: TaskEntry) -> dict[str, str]:
    return {"task": entry.info.task_id, "agent": entry.agent_id, "framework": entry.framework_id, "role": entry.role}
