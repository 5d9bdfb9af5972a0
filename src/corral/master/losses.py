"""Decides when an agent that is silent is given up, and what its tasks become then, or when it leaves or is expelled.

Rules: a link that breaks costs only the agent's offers; an agent that stays silent for the agent timeout is
unreachable, and may come back with all its tasks; one that is removed never does. Source: Mesos v1, partitions.
"""

from corral.master import (
    claims,
    executors,
    frameworks,
    inverse,
    news,
    offers,
    operations,
    tasks,
    timers,
)
from corral.master.agent_entry import AgentEntry, AgentEvent, AgentState
from corral.master.effects import CloseSession, SendOrder
from corral.master.entries import FrameworkEntry, TaskEntry
from corral.master.spec import agent_key
from corral.master.state import MasterState
from corral.model.orders import (
    Ping,
    Refused,
)
from corral.model.task import TERMINAL, Reason, TaskState
from corral.runtime.core import Effect, Note, Persist, SetTimer


def disconnect(
    state: MasterState, agent: AgentEntry, why: str, reason: Reason = Reason.AGENT_DISCONNECTED
) -> list[Effect]:  # fmt: skip
    """Take the agent off its link: its offers go, its tasks stay. Shapes: `reason` is what a late ACCEPT is told.

    Deviates: Mesos declares the tasks of frameworks without checkpointing lost here; ours outlive their agent anyway.
    """
    assert agent.session is not None
    agent.session = None
    agent.move(AgentEvent.LINK_BROKE)
    claims.tell_agent(state, agent)
    short = f"agent {agent.id} " + ("disconnected" if reason is Reason.AGENT_DISCONNECTED else "was removed")
    effects = offers.rescind(state, list(agent.offers.values()), short, reason)
    effects += operations.lose_sight(state, agent)
    return [*effects, Note("agent disconnected", why, "warning", facts_of(agent))]


def watch(state: MasterState, now: float) -> list[Effect]:
    """The agents' timer went off: ping those nobody spoke to, give up those that were silent for too long."""
    effects: list[Effect] = []
    config = state.config
    for agent in list(state.agents.values()):
        match agent.state:
            case AgentState.REACHABLE | AgentState.DISCONNECTED:
                if now - agent.contact.heard_at >= config.agent_timeout_s:
                    effects += _give_up_in_turn(
                        state, agent, f"nothing heard for {now - agent.contact.heard_at:.0f} s", now
                    )
                elif agent.session is not None and now - agent.contact.spoken_at >= watch_s(state) * 0.9:
                    agent.contact.spoken_at = now
                    effects.append(SendOrder(agent.session, Ping(state.epoch)))
            case AgentState.RECOVERED:
                if now - state.loaded_at >= config.reregister_timeout_s:
                    why = f"it has not come back within {config.reregister_timeout_s:g} s of this master's start"
                    effects += _give_up_in_turn(state, agent, why, now)
            case AgentState.UNREACHABLE:
                if now - (agent.unreachable_at or now) >= config.forget_agent_s:
                    effects += remove(state, agent, "unreachable for too long to be remembered", now)
    return [*effects, SetTimer(timers.AGENTS, watch_s(state))]


def _give_up_in_turn(state: MasterState, agent: AgentEntry, why: str, now: float) -> list[Effect]:
    """Give the agent up, or leave it as it is while others have been given up a moment ago; it may come back meanwhile.

    Source: Mesos v1, `--agent_removal_rate_limit`.
    """
    every_s = state.config.removal_every_s
    if every_s > 0 and now < state.next_removal_at:
        if agent.awaits_removal:
            return []
        agent.awaits_removal = True
        held = f"{why}; one agent becomes unreachable every {every_s:g} s at most"
        return [Note("agent awaits its removal", held, "warning", facts_of(agent))]
    agent.awaits_removal = False
    state.next_removal_at = now + every_s
    return give_up(state, agent, why, now)


def watch_s(state: MasterState) -> float:
    """Seconds between two looks at all agents: fine enough to keep the agent timeout."""
    return min(state.config.ping_s, state.config.agent_timeout_s / 5)


def give_up(state: MasterState, agent: AgentEntry, why: str, now: float) -> list[Effect]:
    """The agent is unreachable: its tasks may run on, and are told so. Source: Mesos v1, agent partitions.

    Shapes: one whose place another agent has taken is gone: it died between getting its id and writing it down.
    """
    effects: list[Effect] = []
    session = agent.session
    if session is not None:
        effects += disconnect(state, agent, why, Reason.AGENT_REMOVED)
        state.sessions.pop(session, None)
        effects.append(CloseSession(session, why))
    heir = _heir(state, agent)
    if heir is not None:
        place = f"{agent.info.hostname}:{agent.info.port}"
        return [*effects, *remove(state, agent, f"agent {heir.id} serves at {place} in its place", now)]
    agent.move(AgentEvent.TIMED_OUT)
    agent.unreachable_at = now
    state.counts["timeouts"] += 1
    news.tell_agent(state, agent, news.AGENT_REMOVED)
    for entry in list(agent.tasks.values()):
        framework = state.owner(entry)
        if framework is None:
            tasks.drop_orphan(state, agent, entry)
        else:
            effects += _lose(state, framework, agent, entry, now)
    executors.forget(state, agent)
    claims.tell_agent(state, agent)
    return [
        Persist(agent_key(agent.id), agent.record()),
        *effects,
        *frameworks.tell_failure(state, agent.id),
        Note("agent unreachable", why, "error", facts_of(agent)),
        *timers.ask_allocation(state),
    ]


def _heir(state: MasterState, agent: AgentEntry) -> AgentEntry | None:
    """A reachable agent at the very address of this one: two cannot serve there."""
    there = state.agents.at(agent.info)
    return next((a for a in there if a is not agent and a.state is AgentState.REACHABLE), None)


def _lose(
    state: MasterState, framework: FrameworkEntry, agent: AgentEntry, entry: TaskEntry, now: float
) -> list[Effect]:
    """Move a task to the unreachable ones; one that had ended and was not acknowledged counts as completed."""
    if entry.state in TERMINAL:
        tasks.forget_ended(state, framework, agent, entry)
        return []
    seen = TaskState.UNREACHABLE if framework.partition_aware else TaskState.LOST
    claims.release_task(state, entry)
    state.live[entry.state] -= 1
    entry.state = entry.forwarded = TaskState.UNREACHABLE
    entry.forwarded_uuid, entry.unacknowledged = None, ()
    if entry.kill is not None:
        framework.kills[entry.info.task_id] = entry.kill[0]
    del framework.tasks[entry.info.task_id]
    del agent.tasks[framework.id, entry.info.task_id]
    framework.unreachable[entry.info.task_id] = entry
    while len(framework.unreachable) > state.config.most_unreachable_tasks:
        del framework.unreachable[next(iter(framework.unreachable))]
    status = tasks.make_status(
        entry.info.task_id, seen, Reason.AGENT_REMOVED, f"agent {agent.id} is unreachable", now,
        agent_id=agent.id, unreachable_at=now,
    )  # fmt: skip
    entry.add_status(status)
    news.update_task(state, entry, status)
    return [tasks.tell(framework, status)] if framework.stream is not None else []


def leave(state: MasterState, agent: AgentEntry, now: float) -> list[Effect]:
    """The agent is taken out of service by its operator."""
    state.counts["leaves"] += 1
    session = agent.session
    assert session is not None
    effects = disconnect(state, agent, "it leaves the cluster", Reason.AGENT_REMOVED)
    state.sessions.pop(session, None)
    return [*effects, CloseSession(session, "goodbye"), *remove(state, agent, "it has left the cluster", now)]


def expel(
    state: MasterState, agent: AgentEntry, why: str, now: float, over: TaskState = TaskState.GONE,
    reason: Reason = Reason.AGENT_REMOVED,
) -> list[Effect]:  # fmt: skip
    """Remove an agent at an operator's word, and tell it to end what it runs if it hears."""
    effects: list[Effect] = []
    session = agent.session
    if session is not None:
        effects += disconnect(state, agent, why, Reason.AGENT_REMOVED)
        state.sessions.pop(session, None)
        effects += [SendOrder(session, Refused(state.epoch, why, True)), CloseSession(session, why)]
    return effects + remove(state, agent, why, now, over, reason)


def remove(
    state: MasterState, agent: AgentEntry, why: str, now: float, over: TaskState = TaskState.GONE,
    reason: Reason = Reason.AGENT_REMOVED,
) -> list[Effect]:  # fmt: skip
    """Forget the agent for good; its tasks have ended with it, as `over` for those who know more than lost ones."""
    effects: list[Effect] = []
    for entry in list(agent.tasks.values()):
        effects += tasks.end_missing(state, agent, entry, over, reason, f"agent {agent.id} was removed: {why}", now)
    for framework in state.frameworks.values():
        effects += end_unreachable(state, framework, agent, f"agent {agent.id} was removed: {why}", now, over, reason)
    if agent.state is not AgentState.UNREACHABLE:
        news.tell_agent(state, agent, news.AGENT_REMOVED)
    effects += inverse.withdraw(state, agent)
    effects += operations.drop_pending(state, agent.id, ())
    offers.drop_filters_of(state, agent.id)
    executors.forget(state, agent)
    state.counts["removals"] += 1
    del state.agents[agent.id]
    state.draining.pop(agent.id, None)
    claims.forget_agent(state, agent)
    return [
        Persist(agent_key(agent.id), None),
        *effects,
        *frameworks.tell_failure(state, agent.id),
        Note("agent removed", why, "warning", facts_of(agent)),
        *timers.ask_allocation(state),
    ]


def end_unreachable(
    state: MasterState, framework: FrameworkEntry, agent: AgentEntry, why: str, now: float,
    over: TaskState = TaskState.GONE, reason: Reason = Reason.AGENT_REMOVED,
) -> list[Effect]:  # fmt: skip
    """Tasks that are still unreachable with the agent are known to be over now."""
    effects: list[Effect] = []
    for task_id in [t for t, e in framework.unreachable.items() if e.agent_id == agent.id]:
        entry = framework.unreachable.pop(task_id)
        status = tasks.make_status(task_id, over, reason, why, now, agent_id=agent.id)
        entry.state = entry.forwarded = over
        entry.add_status(status)
        news.update_task(state, entry, status)
        framework.kills.pop(task_id, None)
        framework.completed.append(entry)
        # A framework that knows no unreachable tasks has been told of their loss already.
        if framework.stream is not None and framework.partition_aware:
            effects.append(tasks.tell(framework, status))
    return effects


def facts_of(agent: AgentEntry) -> dict[str, str]:
    return {"agent": agent.id, "hostname": agent.info.hostname}
