"""Empties agents, closes them to new work, opens them again, and declares them gone.

Rules: an agent is closed before its tasks are ended, and both are durable before anybody hears of it. It is drained
when its last task has ended and been acknowledged. One that is gone never comes back. Source: Mesos v1, draining.
"""

import msgspec

from corral.lib.errors import Invalid, NotFound
from corral.master import claims, evictions, executors, losses, offers, timers
from corral.master.agent_entry import AgentEntry, AgentState
from corral.master.spec import GoneRecord, agent_key, gone_key
from corral.master.state import MasterState
from corral.model.ids import AgentId
from corral.model.maintenance import DeactivateAgent, Drain, DrainAgent, DrainState, MarkAgentGone, ReactivateAgent
from corral.model.task import Reason, TaskState
from corral.runtime.core import Effect, Note, Persist

MOST_GONE = 100_000
"""Agents that are remembered as gone; the oldest are forgotten first."""


def drain(state: MasterState, command: DrainAgent, now: float) -> list[Effect]:
    """Close the agent and end what runs there; asked again, the newer word counts.

    Errors: `Invalid` for an agent that is not known, and for a negative grace.
    """
    agent = _find(state, command.agent_id)
    if command.max_grace_s is not None and command.max_grace_s < 0:
        raise Invalid(f"max_grace_period is {command.max_grace_s:g} s; it must be 0 or more")
    grace_s = command.max_grace_s
    agent.drain = Drain(max_grace_s=grace_s, mark_gone=command.mark_gone, started_at=now)
    state.draining[agent.id] = None
    why = "an operator drains it" + (f" within {grace_s:g} s" if grace_s is not None else "")
    effects = _close(state, agent, "its agent is drained", Reason.AGENT_DRAINING)
    return [*effects, Note("agent draining", why, "info", _facts(agent)), *evictions.empty(state, agent)]


def _close(state: MasterState, agent: AgentEntry, short: str, reason: Reason = Reason.INVALID_OFFERS) -> list[Effect]:
    agent.deactivated = True
    effects = offers.rescind(state, list(agent.offers.values()), short, reason)
    claims.tell_agent(state, agent)
    return [Persist(agent_key(agent.id), agent.record()), *effects, *timers.ask_allocation(state)]


def deactivate(state: MasterState, command: DeactivateAgent) -> list[Effect]:
    """Close the agent and let its tasks run on. Errors: `Invalid` for an agent that is not known."""
    agent = _find(state, command.agent_id)
    effects = _close(state, agent, "its agent was deactivated")
    return [*effects, Note("agent deactivated", "an operator wants nothing new there", "info", _facts(agent))]


def reactivate(state: MasterState, command: ReactivateAgent) -> list[Effect]:
    """Open a closed agent again. Errors: `Invalid` unless it is known, closed and not draining any more."""
    agent = _find(state, command.agent_id)
    if agent.draining:
        raise Invalid(f"agent {agent.id} is still draining; wait until it is drained")
    if not agent.deactivated:
        raise Invalid(f"agent {agent.id} is active already")
    agent.deactivated, agent.drain = False, None
    claims.tell_agent(state, agent)
    note = Note("agent reactivated", "an operator wants it to take new work", "info", _facts(agent))
    return [Persist(agent_key(agent.id), agent.record()), note, *timers.ask_allocation(state)]


def mark_gone(state: MasterState, command: MarkAgentGone, now: float) -> list[Effect]:
    """Declare an agent lost with all that it ran.

    Errors: `NotFound` when it is not known. Shapes: nothing happens to one that is gone already.
    """
    if command.agent_id in state.gone:
        return []
    agent = state.agents.get(command.agent_id)
    if agent is None:
        raise NotFound(f"agent {command.agent_id} is not known; `corral nodes -o wide` lists the ids")
    return _bury(state, agent, "an operator marked it gone", Reason.AGENT_REMOVED_BY_OPERATOR, now)


def _bury(state: MasterState, agent: AgentEntry, why: str, reason: Reason, now: float) -> list[Effect]:
    effects: list[Effect] = [Persist(gone_key(agent.id), GoneRecord(at=now))]
    effects += losses.expel(state, agent, why, now, TaskState.GONE_BY_OPERATOR, reason)
    state.gone[agent.id] = now
    while len(state.gone) > MOST_GONE:
        effects += _forget_oldest(state)
    return effects


def _forget_oldest(state: MasterState) -> list[Effect]:
    oldest = next(iter(state.gone))
    del state.gone[oldest]
    return [Persist(gone_key(oldest), None)]


def forget_gone(state: MasterState, now: float) -> list[Effect]:
    """Agents that have been gone for so long that nobody asks for them any more."""
    effects: list[Effect] = []
    while state.gone and now - next(iter(state.gone.values())) >= state.config.forget_agent_s:
        effects += _forget_oldest(state)
    return effects


def settle(state: MasterState, now: float) -> list[Effect]:
    """Find the drains that are done: the agent is here and has no task left, told or untold."""
    effects: list[Effect] = []
    for agent_id in list(state.draining):
        agent = state.agents[agent_id]
        if agent.tasks or agent.state is not AgentState.REACHABLE:
            continue
        assert agent.drain is not None
        agent.drain = msgspec.structs.replace(agent.drain, state=DrainState.DRAINED)
        del state.draining[agent_id]
        claims.tell_agent(state, agent)
        effects += [
            Persist(agent_key(agent.id), agent.record()),
            Note("agent drained", "its last task has ended and been acknowledged", "info", _facts(agent)),
            *executors.empty(state, agent),
        ]
        if agent.drain.mark_gone:
            effects += _bury(state, agent, "it is drained and was to be gone then", Reason.AGENT_DRAINING, now)
    return effects


def _find(state: MasterState, agent_id: AgentId) -> AgentEntry:
    agent = state.agents.get(agent_id)
    if agent is None:
        gone = " any more: it was marked gone" if agent_id in state.gone else ""
        raise Invalid(f"agent {agent_id} is not known{gone}; `corral nodes -o wide` lists the ids")
    return agent


def _facts(agent: AgentEntry) -> dict[str, str]:
    return {"agent": agent.id, "hostname": agent.info.hostname}
