"""Keeps the list of executors that agents have, and carries words between frameworks and their executors.

Rules: an executor's resources are taken once, with its first task, and are free when its agent says that it has ended;
what an agent lists when it registers is what there is. Messages and shutdowns are best effort. Source: Mesos v1,
executors.
"""

from collections.abc import Iterable

import msgspec

from corral.master import claims, timers
from corral.master.agent_entry import AgentEntry
from corral.master.effects import SendEvent, SendOrder
from corral.master.entries import ExecutorEntry, FrameworkEntry
from corral.master.state import MasterState
from corral.model import events
from corral.model.calls import Message, Shutdown
from corral.model.ids import ExecutorId, FrameworkId
from corral.model.ledger import drawn, lent, owned, stripped
from corral.model.orders import AgentExecutor, ExecutorEnded, ExecutorMessage, MessageExecutor, ShutdownExecutor
from corral.model.resources import Resources
from corral.model.task import ExecutorInfo, ExecutorKind, Reason
from corral.runtime.core import Effect, Note


def normal_executor(info: ExecutorInfo, framework_id: FrameworkId) -> ExecutorInfo:
    """The executor as it is kept and compared: what may be left out is filled in."""
    return msgspec.structs.replace(
        info,
        framework_id=framework_id,
        resources=stripped(info.resources),
        kind=info.kind if info.kind is not None else ExecutorKind.CUSTOM,
    )


def lent_executor(
    info: ExecutorInfo, framework_id: FrameworkId, have: Resources, running: ExecutorEntry | None
) -> ExecutorInfo:  # fmt: skip
    """The same of one that is launched on a loan, of which it takes what it asks as revocable out of what is left.

    Shapes: one that runs already has what it needs: it is compared by what it asked then, lent or not.
    """
    found = normal_executor(info, framework_id)
    if running is None:
        return msgspec.structs.replace(found, resources=drawn(have, found.resources), lent=True)
    if not running.info.lent:
        return msgspec.structs.replace(found, resources=owned(found.resources))
    same = lent(found.resources) == lent(running.resources)
    return msgspec.structs.replace(found, resources=running.resources if same else found.resources, lent=True)


def enter(
    state: MasterState, framework_id: FrameworkId, agent: AgentEntry, role: str, info: ExecutorInfo, now: float
) -> bool:
    """Count the executor of a task that is launched; False when it is counted already. Shapes: `info` is normal."""
    key = framework_id, info.executor_id
    if key in agent.executors:
        return False
    entry = agent.executors[key] = ExecutorEntry(info, framework_id, agent.id, role)
    claims.hold_executor(state, entry, now)
    return True


def ended(state: MasterState, agent: AgentEntry, report: ExecutorEnded) -> list[Effect]:
    """Free what it held and tell its framework."""
    entry = agent.executors.pop((report.framework_id, report.executor_id), None)
    effects: list[Effect] = []
    if entry is not None:
        claims.release_executor(state, entry)
        effects += timers.ask_allocation(state)
    framework = state.frameworks.get(report.framework_id)
    if framework is not None and framework.stream is not None:
        failure = events.Failure(agent_id=agent.id, executor_id=report.executor_id, status=report.status)
        effects.append(SendEvent(framework.stream, failure))
    return effects


def merge(state: MasterState, agent: AgentEntry, told: Iterable[AgentExecutor], now: float) -> None:
    """Take over the list that the agent brings."""
    found = {(one.framework_id, one.info.executor_id): one for one in told}
    forget(state, agent, [key for key, entry in agent.executors.items() if _differs(entry, found.get(key))])
    for key, one in found.items():
        if key not in agent.executors:
            enter(state, one.framework_id, agent, one.role, normal_executor(one.info, one.framework_id), now)


def _differs(entry: ExecutorEntry, told: AgentExecutor | None) -> bool:
    return told is None or told.role != entry.role or stripped(told.info.resources) != entry.resources


def forget(state: MasterState, agent: AgentEntry, keys: Iterable[tuple[FrameworkId, ExecutorId]] | None = None) -> None:
    """They are gone, or with an agent that is not heard any more: all of them unless some are named."""
    for key in list(agent.executors) if keys is None else keys:
        claims.release_executor(state, agent.executors.pop(key))


def empty(state: MasterState, agent: AgentEntry) -> list[Effect]:
    """Have those ended that are left on an agent without tasks, which shall be empty."""
    if agent.session is None:
        return []
    return [
        SendOrder(agent.session, ShutdownExecutor(state.epoch, framework_id, executor_id))
        for framework_id, executor_id in agent.executors
    ]


def order_end(state: MasterState, agent: AgentEntry, entry: ExecutorEntry) -> list[Effect]:
    """Have an executor ended that makes room; [] without a link, for then it is ordered once there is one."""
    one = entry.preempted_by
    if one is None or agent.session is None:
        return []
    reason = Reason.CONTAINER_PREEMPTED
    return [
        SendOrder(
            agent.session,
            ShutdownExecutor(state.epoch, entry.framework_id, entry.info.executor_id, one.why, reason),
        )
    ]


def remind(state: MasterState, agent: AgentEntry) -> list[Effect]:
    """The agent is back: those that make room may not have heard of it."""
    return [effect for entry in agent.executors.values() for effect in order_end(state, agent, entry)]


def send_message(state: MasterState, framework: FrameworkEntry, call: Message) -> list[Effect]:
    """A framework's word for its executor."""
    agent = state.agents.get(call.agent_id)
    if agent is None or agent.session is None or (framework.id, call.executor_id) not in agent.executors:
        return _drop(framework, call, "message")
    return [SendOrder(agent.session, MessageExecutor(state.epoch, framework.id, call.executor_id, call.data))]


def shut_down(state: MasterState, framework: FrameworkEntry, call: Shutdown) -> list[Effect]:
    """A framework has its executor ended."""
    agent = state.agents.get(call.agent_id)
    if agent is None or agent.session is None or (framework.id, call.executor_id) not in agent.executors:
        return _drop(framework, call, "shutdown")
    return [SendOrder(agent.session, ShutdownExecutor(state.epoch, framework.id, call.executor_id))]


def _drop(framework: FrameworkEntry, call: Message | Shutdown, what: str) -> list[Effect]:
    facts = {"framework": framework.id, "agent": call.agent_id, "executor": call.executor_id}
    return [Note(f"{what} for an executor dropped", "no such executor is known there", "debug", facts)]


def pass_message(state: MasterState, agent: AgentEntry, report: ExecutorMessage) -> list[Effect]:
    """An executor's word for its framework; nothing when that does not listen."""
    framework = state.frameworks.get(report.framework_id)
    if framework is None or framework.stream is None:
        return []
    event = events.Message(agent_id=agent.id, executor_id=report.executor_id, data=report.data)
    return [SendEvent(framework.stream, event)]
