"""Asks frameworks to leave agents that are scheduled for maintenance, and keeps what they answer.

Rules: one inverse offer at a time for each framework and agent; an answer is a word and binds nobody. Who declines is
asked again when its filter has ended, who accepts is not. Source: Mesos v1, maintenance.
"""

from collections.abc import Iterable

from corral.master import timers
from corral.master.agent_entry import AgentEntry
from corral.master.effects import SendEvent
from corral.master.entries import FrameworkEntry, InverseEntry
from corral.master.state import MasterState
from corral.model import events
from corral.model.calls import AcceptInverseOffers, DeclineInverseOffers
from corral.model.ids import FrameworkId, InverseOfferId
from corral.model.maintenance import Answer, InverseOffer
from corral.runtime.core import Effect, SetTimer


def place(state: MasterState, agent: AgentEntry, now: float) -> bool:
    """Look the agent up in the schedule; True when something is new about that."""
    machine = state.find_machine(agent.info)
    found = state.machines[machine] if machine is not None else None
    is_in = found is not None and found.covers(now)
    same = agent.unavailability == found
    if same and agent.in_window == is_in:
        return False
    if not same:
        agent.inverse = {id: e for id, e in agent.inverse.items() if e.out}
    agent.unavailability, agent.in_window = found, is_in
    if found is not None:
        state.to_review[agent.id] = None
    return True


def review(state: MasterState, framework: FrameworkEntry) -> None:
    """The framework listens now: it has not been asked yet about what it runs."""
    if state.machines:
        state.to_review.update(
            (e.agent_id, None) for e in framework.tasks.values()
            if state.agents[e.agent_id].unavailability is not None
        )  # fmt: skip


def ask(state: MasterState, now: float) -> list[Effect]:
    """Make the inverse offers that are missing on the agents to look at."""
    made: dict[str, list[InverseOffer]] = {}
    for agent_id in state.to_review:
        agent = state.agents.get(agent_id)
        if agent is None or agent.unavailability is None:
            continue
        for framework_id in sorted({e.framework_id for e in agent.tasks.values() if e.holding and not e.orphan}):
            framework = state.frameworks[framework_id]
            if framework.stream is not None and _is_due(agent.inverse.get(framework_id), now):
                made.setdefault(framework.stream, []).append(_make(state, agent, framework_id, now))
    state.to_review.clear()
    return [SendEvent(stream, events.InverseOffers(inverse_offers=tuple(found))) for stream, found in made.items()]


def _is_due(entry: InverseEntry | None, now: float) -> bool:
    return entry is None or (not entry.out and entry.again_at is not None and entry.again_at <= now)


def _make(state: MasterState, agent: AgentEntry, framework_id: FrameworkId, now: float) -> InverseOffer:
    assert agent.unavailability is not None
    offer = InverseOffer(
        id=InverseOfferId(f"{state.master_id}-I{state.number('inverse offer')}"), framework_id=framework_id,
        agent_id=agent.id, hostname=agent.info.hostname, ip=agent.info.ip, port=agent.info.port,
        unavailability=agent.unavailability,
    )  # fmt: skip
    entry = InverseEntry(offer, now)
    before = agent.inverse.get(framework_id)
    if before is not None:
        entry.answer, entry.at = before.answer, before.at
    agent.inverse[framework_id] = entry
    state.inverse_offers[offer.id] = agent.id
    return offer


def ask_timer(state: MasterState, now: float) -> list[Effect]:
    """Look again when a window begins or ends, or somebody is to be asked again."""
    instants = [at for one in state.machines.values() for at in (one.start_at, one.end_at) if at is not None]
    for agent in _scheduled(state):
        instants += [e.again_at for e in agent.inverse.values() if e.again_at is not None and not e.out]
    due_at = min((at for at in instants if at > now), default=None)
    state.maintenance_due_at = None
    return _ask_at(state, due_at, now)


def _ask_at(state: MasterState, at: float | None, now: float) -> list[Effect]:
    if at is None or (state.maintenance_due_at is not None and state.maintenance_due_at <= at):
        return []
    state.maintenance_due_at = at
    return [SetTimer(timers.MAINTENANCE, min(at - now, timers.MOST_DELAY_S))]


def _scheduled(state: MasterState) -> Iterable[AgentEntry]:
    return (agent for agent in state.agents.values() if agent.unavailability is not None) if state.machines else ()


def answer(
    state: MasterState, framework: FrameworkEntry, call: AcceptInverseOffers | DeclineInverseOffers, now: float
) -> list[Effect]:
    """Remember what a framework says; inverse offers that are not its own are ignored."""
    accepted = isinstance(call, AcceptInverseOffers)
    again_at = None if accepted else now + max(call.filters.refuse_s, state.config.least_refuse_s, 0.001)
    answered = False
    for id in call.inverse_offer_ids:
        agent_id = state.inverse_offers.get(id)
        entry = state.agents[agent_id].inverse.get(framework.id) if agent_id is not None else None
        if entry is None or entry.offer.id != id:
            continue
        del state.inverse_offers[id]
        entry.out = False
        entry.answer, entry.at = (Answer.ACCEPT if accepted else Answer.DECLINE), now
        entry.again_at = again_at
        answered = True
    return _ask_at(state, again_at, now) if answered else []


def withdraw(state: MasterState, agent: AgentEntry) -> list[Effect]:
    """Forget all that was asked about the agent, and say so where an answer is still awaited."""
    effects: list[Effect] = []
    for framework_id, entry in agent.inverse.items():
        if not entry.out:
            continue
        del state.inverse_offers[entry.offer.id]
        stream = state.frameworks[framework_id].stream
        if stream is not None:
            effects.append(SendEvent(stream, events.RescindInverseOffer(inverse_offer_id=entry.offer.id)))
    agent.inverse = {}
    return effects


def fall_silent(state: MasterState, framework: FrameworkEntry) -> None:
    """The framework does not listen any more: what it was asked and has not answered is void."""
    for agent in _scheduled(state):
        entry = agent.inverse.get(framework.id)
        if entry is not None and entry.out:
            del state.inverse_offers[entry.offer.id], agent.inverse[framework.id]
