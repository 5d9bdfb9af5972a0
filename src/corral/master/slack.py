"""Adds to an agent, as revocable, what its tasks hold and do not use.

Rule: when there is less of it than before, the offers that hold any are taken back; what runs on it is the agent's to
end, and only when it is in need. Source: Mesos v1, oversubscription.
"""

import msgspec

from corral.master import claims, offers, timers
from corral.master.agent_entry import AgentEntry
from corral.master.state import MasterState
from corral.model.orders import Slack
from corral.model.resources import Identity, Resource, ResourceKind, Resources, contains, normal
from corral.runtime.core import Effect

_SLACK = Identity(revocable=True)


def report(state: MasterState, agent: AgentEntry, told: Slack) -> list[Effect]:
    """Take what the agent estimates from now on."""
    have = agent.info.resources
    slack = normal(
        Resource(name=r.name, milli=r.milli, identity=_SLACK)
        for r in told.resources
        if r.kind is ResourceKind.SCALAR and r.milli > 0
    )
    before = _revocable(have)
    if slack == before:
        return []
    firm = tuple(r for r in have if not r.identity.revocable)
    agent.describe(msgspec.structs.replace(agent.info, resources=normal((*firm, *slack))))
    claims.tell_agent(state, agent)
    effects: list[Effect] = []
    if not contains(slack, before):
        held = [entry for entry in agent.offers.values() if _revocable(entry.resources)]
        effects = offers.rescind(state, held, f"tasks of agent {agent.id} use more of what they hold")
    return effects or timers.ask_allocation(state)


def _revocable(resources: Resources) -> Resources:
    return tuple(r for r in resources if r.identity.revocable)
