"""Answers what became of a task, and brings the master's and an agent's lists of tasks together.

Rule: what is answered is the state last told to the framework, so that no answer runs ahead of the updates; about an
agent that has not yet come back to a new master nothing is said until it has. Source: Mesos v1, reconciliation.
"""

import msgspec

from corral.master import claims, tasks
from corral.master.agent_entry import AgentEntry, AgentState
from corral.master.effects import SendOrder
from corral.master.entries import FrameworkEntry, TaskEntry
from corral.master.state import MasterState
from corral.model.calls import Kill, Reconcile, ReconcileTask
from corral.model.ids import FrameworkId, TaskId
from corral.model.ledger import stripped
from corral.model.orders import AgentTask, KillTask
from corral.model.task import TERMINAL, Reason, Source, TaskState, TaskStatus
from corral.runtime.core import Effect, Note

MOST_ASKED = 10_000
"""How many questions about one agent are remembered."""


def reconcile(state: MasterState, framework: FrameworkEntry, call: Reconcile, now: float) -> list[Effect]:
    """Explicit for the tasks named, implicit for all when none is."""
    if call.tasks:
        effects: list[Effect] = []
        for asked in call.tasks:
            status = answer(state, framework, asked, now)
            if status is not None:
                effects.append(tasks.tell(framework, status))
            else:
                _remember(state, framework, asked)
        return effects
    known = [*framework.tasks.values()]
    if framework.partition_aware:
        known += framework.unreachable.values()
    return [tasks.tell(framework, _known(state, entry, now)) for entry in known]


def _remember(state: MasterState, framework: FrameworkEntry, asked: ReconcileTask) -> None:
    """Until the agent is back: then this is answered, and nobody has to ask again."""
    agent = state.agents.get(asked.agent_id) if asked.agent_id is not None else None
    if agent is not None and agent.state is AgentState.RECOVERED and len(agent.asked) < MOST_ASKED:
        agent.asked[framework.id, asked.task_id] = asked


def answer_returned(state: MasterState, agent: AgentEntry, now: float) -> list[Effect]:
    """What frameworks have asked about an agent that has come back to a new master just now.

    Deviates: Mesos stays silent, and frameworks ask again with growing delays.
    """
    effects: list[Effect] = []
    asked, agent.asked = agent.asked, {}
    for (framework_id, _), one in asked.items():
        framework = state.frameworks.get(framework_id)
        if framework is not None and framework.stream is not None:
            entry = framework.tasks.get(one.task_id)
            if entry is not None and entry.state in TERMINAL:
                continue  # its agent tells of the end, in its own words, until that is acknowledged
            status = _known(state, entry, now) if entry is not None else answer(state, framework, one, now)
            if status is not None:
                effects.append(tasks.tell(framework, status))
    return effects


def answer(state: MasterState, framework: FrameworkEntry, asked: ReconcileTask, now: float) -> TaskStatus | None:
    """What the master can say of one task; None when an agent that may have it is still expected."""
    entry = framework.tasks.get(asked.task_id) or framework.unreachable.get(asked.task_id)
    if entry is not None:
        return _known(state, entry, now)
    agent = state.agents.get(asked.agent_id) if asked.agent_id is not None else None
    if agent is None:
        if asked.agent_id is not None and asked.agent_id in state.gone:
            text = f"Reconciliation: Task's agent {asked.agent_id} was marked gone"
            return _say(asked, TaskState.GONE_BY_OPERATOR, text, now)
        expected = asked.agent_id is None and any(a.state is AgentState.RECOVERED for a in state.agents.values())
        return None if expected else _say(asked, TaskState.UNKNOWN, "Reconciliation: Task is unknown", now)
    match agent.state:
        case AgentState.RECOVERED:
            return None
        case AgentState.UNREACHABLE:
            text = f"Reconciliation: Task's agent {agent.id} is unreachable"
            return _say(asked, TaskState.UNREACHABLE, text, now, agent.unreachable_at)
        case AgentState.REACHABLE | AgentState.DISCONNECTED:
            return _say(asked, TaskState.GONE, f"Reconciliation: Task is unknown to its agent {agent.id}", now)


def _say(
    asked: ReconcileTask, task_state: TaskState, message: str, now: float, unreachable_at: float | None = None
) -> TaskStatus:
    return tasks.make_status(
        asked.task_id, task_state, Reason.RECONCILIATION, message, now,
        agent_id=asked.agent_id, unreachable_at=unreachable_at,
    )  # fmt: skip


def _known(state: MasterState, entry: TaskEntry, now: float) -> TaskStatus:
    agent = state.agents.get(entry.agent_id)
    last = entry.statuses.get(entry.forwarded)
    return TaskStatus(
        task_id=entry.info.task_id,
        state=entry.forwarded,
        at=now,
        source=Source.MASTER,
        reason=Reason.RECONCILIATION,
        message="Reconciliation: Latest task state",
        agent_id=entry.agent_id,
        healthy=last.healthy if last is not None else None,
        health=last.health if last is not None else (),
        check=last.check if last is not None else None,
        data=last.data if last is not None else None,
        container_status=last.container_status if last is not None else None,
        unreachable_at=agent.unreachable_at if agent is not None and entry.forwarded is TaskState.UNREACHABLE else None,
    )


Fresh = list[tuple[TaskEntry, float]]
"""Tasks that an agent has told of first, with when they began: what they hold is counted at once, in the end."""


def merge_agent(
    state: MasterState, agent: AgentEntry, told: dict[tuple[FrameworkId, TaskId], AgentTask], returned: bool, now: float
) -> list[Effect]:
    """Bring the list an agent has sent together with what the master holds of it.

    Shapes: all frameworks in `told` are known or removed. `returned` when the agent had been given up: then every
    framework hears the present state of its tasks. Source: Mesos v1, agent re-registration.
    """
    effects: list[Effect] = []
    for key, entry in list(agent.tasks.items()):
        if key in told:
            continue
        text = f"task is not known to agent {agent.id}, which has registered again"
        effects += tasks.end_missing(state, agent, entry, TaskState.GONE, Reason.RECONCILIATION, text, now)
    for key, one in told.items():
        if one.state in TERMINAL and key in agent.tasks:
            _end_known(state, agent, agent.tasks[key], one.state)
    fresh: Fresh = []
    for key, one in told.items():
        framework = state.frameworks.get(key[0])
        if framework is None:
            _adopt_orphan(agent, one, fresh, now)
        elif _is_double(framework, agent, key):
            _adopt_orphan(agent, one, fresh, now)
            effects += _end_double(state, framework, agent, one)
        else:
            effects += _merge_task(state, framework, agent, one, returned, fresh, now)
    claims.hold_tasks(state, agent.id, fresh)
    return effects


def _is_double(framework: FrameworkEntry, agent: AgentEntry, key: tuple[FrameworkId, TaskId]) -> bool:
    """Whether the framework runs another task of this id elsewhere, since it was told that this one was lost."""
    other = framework.tasks.get(key[1])
    return other is not None and other.agent_id != agent.id


def _end_double(state: MasterState, framework: FrameworkEntry, agent: AgentEntry, one: AgentTask) -> list[Effect]:
    if one.state in TERMINAL or agent.session is None:
        return []
    other = framework.tasks[one.info.task_id]
    why = f"the framework was told that this task is lost and runs another of its id on agent {other.agent_id}"
    facts = {"task": one.info.task_id, "agent": agent.id, "framework": framework.id}
    order = KillTask(state.epoch, framework.id, one.info.task_id, None, why)
    return [SendOrder(agent.session, order), Note("double task ordered to end", why, "warning", facts)]


def _end_known(state: MasterState, agent: AgentEntry, entry: TaskEntry, ended_as: TaskState) -> None:
    framework = state.owner(entry)
    if framework is None:
        tasks.drop_orphan(state, agent, entry)
        return
    if entry.state not in TERMINAL:
        tasks.set_state(state, entry, ended_as)
    claims.release_task(state, entry)


def _merge_task(
    state: MasterState, framework: FrameworkEntry, agent: AgentEntry, one: AgentTask, returned: bool, fresh: Fresh,
    now: float,
) -> list[Effect]:  # fmt: skip
    task_id = one.info.task_id
    entry = agent.tasks.get((framework.id, task_id))
    if entry is None:
        entry = _learn(state, framework, agent, one, fresh, now)
    elif one.state is not entry.state and entry.state not in TERMINAL:
        tasks.set_state(state, entry, one.state)
    entry.unacknowledged = ()  # the agent is about to tell anew what is
    if one.status is not None and not entry.statuses:
        entry.add_status(one.status)
    effects: list[Effect] = []
    if task_id in framework.kills and entry.kill is None:
        entry.kill = (framework.kills.pop(task_id),)
    if entry.kill is not None and entry.state not in TERMINAL and agent.session is not None:
        effects.append(tasks.order_kill(state, agent, entry, "asked while the agent was away"))
    if returned and framework.stream is not None and entry.state not in TERMINAL:
        status = tasks.make_status(
            task_id, entry.state, Reason.AGENT_REREGISTERED, f"agent {agent.id} is reachable again", now,
            agent_id=agent.id,
        )  # fmt: skip
        last = entry.last_status
        if last is not None:
            status = msgspec.structs.replace(
                status,
                healthy=last.healthy,
                health=last.health,
                check=last.check,
                container_status=last.container_status,
                data=last.data,
            )
        effects.append(tasks.tell(framework, status))
    return effects


def _learn(
    state: MasterState, framework: FrameworkEntry, agent: AgentEntry, one: AgentTask, fresh: Fresh, now: float
) -> TaskEntry:  # fmt: skip
    """A task this master has not known: it or its agent was away."""
    info = one.info if one.info.agent_id == agent.id else msgspec.structs.replace(one.info, agent_id=agent.id)
    before = framework.unreachable.pop(info.task_id, None)
    held = stripped(info.resources)
    entry = tasks.add_task(state, framework, agent, info, one.role, held, now, one.state, one.status)
    if before is not None:
        entry.preempted_by = before.preempted_by
    if one.state not in TERMINAL:
        fresh.append((entry, _start_at(one, now)))
    return entry


def _start_at(one: AgentTask, now: float) -> float:
    """As near to the start of a task as its agent's word leads."""
    return one.status.at if one.status is not None and one.state is TaskState.RUNNING else now


def _adopt_orphan(agent: AgentEntry, one: AgentTask, fresh: Fresh, now: float) -> None:
    """A task that no framework owns: it holds its resources until the agent says that it ended."""
    key = (one.framework_id, one.info.task_id)
    if key in agent.tasks or one.state in TERMINAL:
        return
    info = msgspec.structs.replace(one.info, agent_id=agent.id)
    held = stripped(info.resources)
    entry = TaskEntry(info, one.framework_id, one.role, held, None, now, state=TaskState.KILLING)
    entry.orphan = True
    # Its framework may run another task of this id elsewhere.
    entry.key = f"orphan/{agent.id}/{one.framework_id}/{info.task_id}"
    agent.tasks[key] = entry
    fresh.append((entry, now))


def answer_kill(state: MasterState, framework: FrameworkEntry, call: Kill, now: float) -> list[Effect]:
    """What is said to a KILL of a task that the master cannot end: the same as to a reconciliation of it."""
    status = answer(state, framework, ReconcileTask(task_id=call.task_id, agent_id=call.agent_id), now)
    return [tasks.tell(framework, status)] if status is not None else []
