"""Carries out the operations that operators ask for on an agent's resources.

Rules: what is refused changes nothing; offers that hold what it takes are taken back, but only when that is enough;
the answer waits for the agent. Source: Mesos v1 operator API, RESERVE_RESOURCES and its like.
"""

from corral.lib.errors import Conflict, Invalid
from corral.master import claims, offers, operations, timers
from corral.master.agent_entry import AgentEntry
from corral.master.entries import OfferEntry, OperationEntry
from corral.master.state import MasterState
from corral.model.operations import conversion, find_fault, once_each
from corral.model.operator import Operate
from corral.model.resources import Resources, contains, describe
from corral.runtime.core import Effect


def operate(state: MasterState, ask: int, command: Operate) -> list[Effect]:
    """Order the operation; the reply is not among the effects, it follows the agent's answer.

    Errors: `Invalid` for what breaks a rule; `Conflict` when the agent is away, or the resources are in use or missing.
    """
    operation = command.operation
    agent = state.agents.get(command.agent_id)
    if agent is None:
        raise Invalid(f"No agent found with specified ID {command.agent_id}; GET_AGENTS lists them")
    fault = find_fault(operation) or operations.find_principal_fault(command.principal, operation)
    if fault is not None:
        raise Invalid(fault)
    if agent.session is None:
        raise Conflict(f"agent {agent.id} is {agent.state}; try again when it is back")
    if (fault := operations.find_agent_fault(agent, operation)) is not None:
        raise Conflict(fault)
    effects = _make_room(state, agent, conversion(operation).consumed)
    effects += offers.rescind(state, operations.sharers(agent, operation), "its shared volume is destroyed")
    entry = OperationEntry(operation, agent.id, None, ask)
    return [*effects, *operations.order(state, agent, entry), *timers.ask_allocation(state)]


def _make_room(state: MasterState, agent: AgentEntry, consumed: Resources) -> list[Effect]:
    """Take back as many offers as it needs, plain ones first; none when even all of them would not do."""
    free = claims.free(state, agent.id)
    if contains(free, consumed):
        return []
    chosen: list[OfferEntry] = []
    for entry in sorted(agent.offers.values(), key=lambda e: (e.want is not None, e.made_at)):
        if any((r.name, r.identity) in {(c.name, c.identity) for c in consumed} for r in entry.resources):
            chosen.append(entry)
            free = once_each(free, entry.resources)
            if contains(free, consumed):
                return offers.rescind(state, chosen, "an operator takes its resources")
    raise Conflict(f"agent {agent.id} has {describe(free)} free, not all of {describe(consumed)}; end what uses it")
