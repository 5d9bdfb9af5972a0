"""Takes agents in and listens to them.

Rules: an agent's id is durable before it is told; a link that breaks costs only its offers. Source: Mesos v1, agents.
"""

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from corral.master import (
    claims,
    evictions,
    executors,
    frameworks,
    inverse,
    news,
    offers,
    operations,
    slack,
    tasks,
    timers,
)
from corral.master.agent_entry import AgentEntry, AgentEvent, AgentState, SessionEntry
from corral.master.effects import CloseSession, SendOrder
from corral.master.losses import disconnect, end_unreachable, facts_of, leave, remove
from corral.master.reconcile import answer_returned, merge_agent
from corral.master.spec import AgentOpened, AgentReported, Attempt, agent_key
from corral.master.state import MasterState
from corral.model.agent import AgentInfo
from corral.model.framework import FrameworkInfo
from corral.model.ids import AgentId, FrameworkId, TaskId
from corral.model.ledger import Pool, stripped
from corral.model.orders import (
    AgentExecutor,
    AgentTask,
    ExecutorEnded,
    ExecutorMessage,
    Heard,
    Leaving,
    OperationDone,
    Pong,
    Refused,
    Register,
    Registered,
    Slack,
    UpdateTask,
)
from corral.model.resources import Resource, Resources, contains, describe, is_well_formed
from corral.model.task import TERMINAL
from corral.runtime.core import CancelTimer, Effect, Note, Persist, SetTimer

_Told = dict[tuple[FrameworkId, TaskId], AgentTask]


def open_session(state: MasterState, input: AgentOpened) -> list[Effect]:
    """A link is there; its agent has to register soon."""
    state.sessions[input.session] = SessionEntry(input.peer)
    return [SetTimer(timers.session_timer(input.session), state.config.session_timeout_s)]


def time_out_session(state: MasterState, session: str) -> list[Effect]:
    """Nobody has registered on the link in time."""
    entry = state.sessions.get(session)
    if entry is None or entry.agent_id is not None:
        return []
    del state.sessions[session]
    why = f"no registration within {state.config.session_timeout_s:g} s"
    return [CloseSession(session, why), Note("agent link closed", why, "warning", {"peer": entry.peer})]


def close_session(state: MasterState, session: str, why: str, now: float) -> list[Effect]:
    """The link broke; nothing when it had been replaced already."""
    entry = state.sessions.pop(session, None)
    if entry is None:
        return []
    if entry.agent_id is None:
        return [CancelTimer(timers.session_timer(session))]
    return disconnect(state, state.agents[entry.agent_id], why or "its link broke")


def report(state: MasterState, input: AgentReported, now: float) -> list[Effect]:
    """What an agent says, in the order it said it; what comes over a link that was replaced is ignored."""
    effects: list[Effect] = []
    for one in input.reports:
        session = state.sessions.get(input.session)
        if session is None:
            break
        if session.agent_id is None:
            if not isinstance(one, Register):
                del state.sessions[input.session]
                why = f"the first report is {type(one).__name__}, not Register"
                return [*effects, CloseSession(input.session, why), Note("agent link closed", why, "warning")]
            effects += register(state, input.session, session, one, now)
            continue
        agent = state.agents[session.agent_id]
        agent.contact.heard_at = now
        match one:
            case UpdateTask():
                effects += tasks.update(state, agent, one, now)
            case ExecutorEnded():
                effects += executors.ended(state, agent, one)
            case ExecutorMessage():
                effects += executors.pass_message(state, agent, one)
            case OperationDone():
                effects += operations.done(state, agent, one)
            case Slack():
                effects += slack.report(state, agent, one)
            case Pong(at):
                if at is not None:
                    effects.append(SendOrder(input.session, Heard(state.epoch, at)))
            case Leaving():
                effects += leave(state, agent, now)
            case Register():
                effects += register(state, input.session, session, one, now)
    return effects


def register(state: MasterState, session_id: str, session: SessionEntry, told: Register, now: float) -> list[Effect]:
    """Admit an agent, new or known, and bring both lists of tasks together.

    Shapes: what is wrong with the agent is told as `Refused`, after which the link is closed.
    """
    info = _canonical(told.info)
    tasks_told: _Told = {(t.framework_id, t.info.task_id): t for t in told.tasks}
    why = _refusal(state, info, tasks_told, told.executors)
    if session.agent_id not in (None, info.id):
        why = f"the link of agent {session.agent_id} brings a registration of {info.id or 'a new agent'}; dial anew"
    if why is not None:
        return _refuse(state, session_id, session, info, why)
    banned = _ban(state, info)
    if banned is not None:
        return _refuse(state, session_id, session, info, banned, end_tasks=True)
    agent = state.agents.get(info.id) if info.id is not None else None
    attempt = Attempt(told.life, told.number) if told.life else None
    if agent is not None and _is_late(agent, session_id, attempt):
        return _drop_late(state, session_id, agent)
    effects: list[Effect] = [CancelTimer(timers.session_timer(session_id))]
    effects += _replace_lost_twin(state, info, now)
    is_new = agent is None
    if agent is None:
        agent = _enter(state, info, now)
        note = Note("agent registered", "it is new here", "info", facts_of(agent))
    else:
        effects += _replace_session(state, agent, session_id)
        note = Note("agent registered", f"it was {agent.state}", "info", facts_of(agent))
        agent.reregistered_at = now
        state.counts["reregistrations"] += 1
    returned = agent.state is AgentState.UNREACHABLE
    if returned or agent.state is AgentState.RECOVERED:
        news.tell_agent(state, agent, news.AGENT_ADDED)
    effects += operations.drop_pending(state, agent.id, info.resources)
    if info.id != agent.id:
        info = msgspec.structs.replace(info, id=agent.id)
    changed = is_new or returned or agent.info != info
    state.agents.describe(agent, info)
    agent.move(AgentEvent.REGISTER)
    agent.unreachable_at = None
    agent.awaits_removal = False
    inverse.place(state, agent, now)
    agent.session, session.agent_id = session_id, agent.id
    agent.attempts.note(attempt)
    state.counts["registrations"] += 1
    agent.contact.heard_at = agent.contact.spoken_at = now
    claims.tell_agent(state, agent)
    if changed:
        offers.drop_filters_of(state, agent.id)
        effects.append(Persist(agent_key(agent.id), agent.record()))
    unwanted, adopted = _know_frameworks(state, told.frameworks, tasks_told, now)
    effects += adopted
    known = {key: one for key, one in tasks_told.items() if key[0] in state.frameworks or key[0] in unwanted}
    registered = Registered(state.epoch, agent.id, state.config.ping_s, tuple(unwanted), True)
    effects += [SendOrder(session_id, registered), note]
    executors.merge(state, agent, told.executors, now)
    effects += merge_agent(state, agent, known, returned, now)
    effects += answer_returned(state, agent, now)
    effects += [*evictions.empty(state, agent), *executors.remind(state, agent)]
    if returned:
        # What it has brought back is known again; what is left was never started or ended unseen.
        for framework in state.frameworks.values():
            effects += end_unreachable(state, framework, agent, f"agent {agent.id} came back without it", now)
    return [*effects, *timers.ask_allocation(state)]


def _canonical(info: AgentInfo) -> AgentInfo:
    resources = stripped(info.resources)
    return info if resources is info.resources else msgspec.structs.replace(info, resources=resources)


def _refusal(state: MasterState, info: AgentInfo, told: _Told, executors_told: Sequence[AgentExecutor]) -> str | None:
    ours = state.config.agent_version
    if ours and info.version and info.version.split(".")[0] != ours.split(".")[0]:
        return (
            f"agent on {info.hostname} is of version {info.version} but this master of {ours}; "
            "run the same release on both"
        )
    if info.domain is not None and state.config.domain is None:
        return (
            f"agent on {info.hostname} has a fault domain but this master has none; give the master one, or the agent "
            "none"
        )
    if info.resources and any(r.milli < 0 for r in info.resources):
        return f"agent on {info.hostname} brings {describe(info.resources)}; an amount must not be below 0"
    for resource in info.resources:
        if not is_well_formed(resource):
            return (
                f"agent on {info.hostname} brings {resource.name} with values of more than one kind, or ranges out of "
                f"order; {resource.kind} was said"
            )
    held = [stripped(one.info.resources) for one in told.values() if one.state not in TERMINAL]
    held += [stripped(executor.info.resources) for executor in executors_told]
    needed = Pool()
    needed.add_all(_volumes_once(held))
    # What is lent of what others leave unused is not the agent's own.
    if not contains(info.resources, tuple(r for r in needed.bundle() if not r.identity.revocable)):
        return (
            f"agent {info.id or info.hostname} brings {describe(info.resources)} but its tasks hold "
            f"{describe(needed.bundle())}; start it with at least these --resources or end those tasks first"
        )
    return None


def _volumes_once(bundles: Iterable[Resources]) -> Iterator[Resources]:
    """A shared volume is needed once, however many tasks have it."""
    seen: dict[Resource, None] = {}
    for bundle in bundles:
        for r in bundle:
            if r.identity.shared:
                yield tuple(each for each in bundle if each not in seen)
                seen.update(dict.fromkeys(each for each in bundle if each.identity.shared))
                break
        else:
            yield bundle


def _ban(state: MasterState, info: AgentInfo) -> str | None:
    """Why an operator wants to see nothing of this agent, whose frameworks were told that its tasks are over."""
    if info.id is not None and info.id in state.gone:
        return f"agent {info.id} was marked gone by an operator; stop it and empty its work directory"
    machine = state.find_machine(info)
    if machine is not None and machine in state.down:
        return f"machine {machine} is down for maintenance; bring it up with `corral maintenance up {machine}`"
    return None


def _refuse(
    state: MasterState, session_id: str, session: SessionEntry, info: AgentInfo, why: str, *, end_tasks: bool = False
) -> list[Effect]:
    effects: list[Effect] = []
    if session.agent_id is not None:
        effects += disconnect(state, state.agents[session.agent_id], why)
    del state.sessions[session_id]
    return [
        *effects,
        CancelTimer(timers.session_timer(session_id)),
        SendOrder(session_id, Refused(state.epoch, why, end_tasks)),
        CloseSession(session_id, why),
        Note("agent refused", why, "error", {"agent": info.id or info.hostname}),
    ]


def _enter(state: MasterState, info: AgentInfo, now: float) -> AgentEntry:
    id = info.id or AgentId(f"{state.master_id}-S{state.number('agent')}")
    agent = AgentEntry(id, msgspec.structs.replace(info, id=id), now, AgentState.RECOVERED)
    state.agents[id] = agent
    return agent


def _is_late(agent: AgentEntry, session_id: str, attempt: Attempt | None) -> bool:
    """Whether the agent has come by a newer link since it sent this. What it told then is not so any more."""
    if agent.session == session_id:
        return False
    attempts = agent.attempts
    return attempts.is_overtaken(attempt) or (agent.session is not None and attempts.is_followed(attempt))


def _drop_late(state: MasterState, session_id: str, agent: AgentEntry) -> list[Effect]:
    del state.sessions[session_id]
    why = "the agent has come by a newer link since it sent this registration"
    return [
        CancelTimer(timers.session_timer(session_id)),
        CloseSession(session_id, why),
        Note("agent link closed", why, "info", facts_of(agent)),
    ]


def _replace_session(state: MasterState, agent: AgentEntry, session_id: str) -> list[Effect]:
    """The agent has a newer link than the one it is known by."""
    old = agent.session
    if old is None:
        return []
    effects = disconnect(state, agent, "it opened a new link")
    if old != session_id:
        state.sessions.pop(old, None)
        effects.append(CloseSession(old, "the agent opened a new link"))
    return effects


def _replace_lost_twin(state: MasterState, info: AgentInfo, now: float) -> list[Effect]:
    """An agent without an id at the address of one that is away: its work directory was wiped, the old one is gone."""
    if info.id is not None:
        return []
    effects: list[Effect] = []
    for twin in state.agents.at(info):
        if twin.state is not AgentState.REACHABLE:
            why = f"a new agent without its memory registered at {info.hostname}:{info.port}"
            effects += remove(state, twin, why, now)
    return effects


def _know_frameworks(
    state: MasterState, infos: Sequence[FrameworkInfo], told: _Told, now: float
) -> tuple[dict[FrameworkId, None], list[Effect]]:
    """Which of the tasks' frameworks are not wanted, after taking in those that only the agent remembers."""
    by_id = {info.id: info for info in infos if info.id is not None}
    unwanted: dict[FrameworkId, None] = {}
    effects: list[Effect] = []
    for framework_id in dict.fromkeys([*(key[0] for key in told), *by_id]):
        if framework_id in state.frameworks:
            continue
        info = by_id.get(framework_id)
        if framework_id in state.removed_ids or info is None:
            unwanted[framework_id] = None
        else:
            effects += frameworks.adopt(state, info, now)
    return unwanted, effects
