"""Takes frameworks in, keeps their streams, lets them fail over and removes them.

Rules: a framework is known by its id, a connection by its stream id; a newer subscription wins. What is newer is told
by the order in which they come, as in Mesos, and better by who says it: a request may have been under way while its
sender gave it up and subscribed again. A framework whose stream breaks loses its offers, filters and wants at once and
its tasks only when its failover timeout has passed.
Source: Mesos v1 scheduler API, SUBSCRIBE and framework failover.
"""

from collections.abc import Sequence

import msgspec

from corral.lib.errors import Conflict, Forbidden, Invalid
from corral.master import claims, executors, inverse, news, offers, operations, tasks, timers, watchdog
from corral.master.effects import CloseStream, SendEvent, SendOrder
from corral.master.entries import FrameworkEntry, TaskEntry
from corral.master.spec import Attempt, FrameworkRecord, RemovedRecord, SchedulerCall, SubscribeStream, framework_key
from corral.master.state import MasterState
from corral.mesos.scheduler import check_framework, check_resubscribe
from corral.model import events
from corral.model.calls import Revive, Subscribe, Suppress, UpdateFramework
from corral.model.framework import FrameworkInfo
from corral.model.ids import AgentId, FrameworkId
from corral.model.offer_constraints import find_fault
from corral.model.operator import Teardown
from corral.model.orders import AcknowledgeUpdate, ShutdownFramework
from corral.model.task import TERMINAL, Reason, TaskState
from corral.runtime.core import CancelTimer, Effect, Note, Persist, SetTimer


def find(state: MasterState, framework_id: FrameworkId, command: SchedulerCall) -> FrameworkEntry:
    """The framework a call comes from, if the call may come in this way.

    Errors: `Invalid` for an unknown framework, another principal, a stream id that is missing or not the newest;
    `Forbidden` when the framework is not subscribed. Checked in the order of Mesos v1.
    """
    framework = state.frameworks.get(framework_id)
    if framework is None:
        raise Invalid(f"framework {framework_id} cannot be found; subscribe first")
    if command.principal is not None and framework.principal is not None and command.principal != framework.principal:
        raise Invalid(f"principal {command.principal} is not the {framework.principal} of framework {framework_id}")
    if framework.stream is None:
        raise Forbidden(f"framework {framework_id} is not subscribed; subscribe again with this id")
    if command.stream is None:
        raise Invalid("the call carries no Mesos-Stream-Id header; send the one that SUBSCRIBE was answered with")
    if command.stream != framework.stream:
        raise Invalid(f"Mesos-Stream-Id {command.stream} is not the newest of framework {framework_id}; use that one")
    return framework


def subscribe(state: MasterState, command: SubscribeStream, now: float) -> list[Effect]:
    """Open a stream for a new framework, or for one that comes back.

    Shapes: what is wrong with the framework itself is told on the stream, which is then closed.
    Errors: `Invalid` when the request carries a stream id or names two framework ids; `Conflict` when a newer one than
    this has been taken.
    """
    if command.given_stream is not None:
        raise Invalid("SUBSCRIBE must not carry a Mesos-Stream-Id header; a new one is given in the answer")
    call = command.call
    _expect_newest(state, call, command.attempt)
    why = _refusal(state, call, command.principal)
    if why is not None:
        facts = {"framework": call.info.id or call.info.name}
        return [
            SendEvent(command.stream, events.Error(message=why)),
            CloseStream(command.stream, why),
            Note("framework refused", why, "warning", facts),
        ]
    effects: list[Effect] = []
    known = state.frameworks.get(call.info.id) if call.info.id is not None else None
    if known is None:
        framework = _enter(state, call, command.principal, now)
        note = Note("framework subscribed", "it is new here", "info", _facts(framework))
    else:
        framework = known
        effects += _fail_over(state, framework, call, now)
        note = Note("framework subscribed", "it has come back under its id", "info", _facts(framework))
    framework.stream = command.stream
    framework.attempts.note(command.attempt)
    framework.suppressed = set(call.suppressed_roles)
    framework.constraints = call.offer_constraints
    state.streams[command.stream] = framework.id
    news.tell_framework(state, framework, news.FRAMEWORK_ADDED if known is None else news.FRAMEWORK_UPDATED)
    claims.tell_framework(state, framework)
    inverse.review(state, framework)
    watchdog.feed(framework, now)
    subscribed = events.Subscribed(
        framework_id=framework.id, heartbeat_interval_s=state.config.heartbeat_s, master=state.master_info
    )
    return [
        *effects,
        _persist(framework),
        note,
        SendEvent(command.stream, subscribed),
        SendEvent(command.stream, events.Heartbeat()),
        *tasks.tell_pending(framework),
        *operations.tell_unacknowledged(framework),
        SetTimer(timers.heartbeat_timer(command.stream), state.config.heartbeat_s),
        *timers.ask_allocation(state),
    ]


def _expect_newest(state: MasterState, call: Subscribe, attempt: Attempt | None) -> None:
    """Errors: `Conflict` for a request that came late."""
    framework = state.frameworks.get(call.info.id) if call.info.id is not None else None
    if framework is None:
        return
    if framework.attempts.is_overtaken(attempt):
        raise Conflict(f"framework {framework.id} has subscribed anew since it sent this; close this request")
    if framework.stream is not None and framework.attempts.is_followed(attempt):
        raise Conflict(f"another process of framework {framework.id} has subscribed since this one had; end this one")


def _refusal(state: MasterState, call: Subscribe, principal: str | None) -> str | None:
    info = call.info
    why = check_framework(info, call.suppressed_roles) or find_fault(call.offer_constraints, info.subscribed_roles)
    if why is not None:
        return why
    if principal is not None and info.principal is not None and principal != info.principal:
        return f"framework principal {info.principal} is not the authenticated principal {principal}; use that one"
    if info.id is None:
        return None
    if info.id in state.removed_ids:
        return f"Framework has been removed: {info.id} cannot subscribe again; subscribe without an id"
    known = state.frameworks.get(info.id)
    if known is None:
        return None
    return check_resubscribe(known.info, msgspec.structs.replace(info, principal=info.principal or principal))


def _enter(state: MasterState, call: Subscribe, principal: str | None, now: float) -> FrameworkEntry:
    id = call.info.id or FrameworkId(f"{state.master_id}-{state.number('framework'):04d}")
    info = msgspec.structs.replace(call.info, id=id, principal=call.info.principal or principal)
    framework = FrameworkEntry(info, id, now, state.config.most_completed_tasks)
    state.frameworks[id] = framework
    return framework


def _fail_over(state: MasterState, framework: FrameworkEntry, call: Subscribe, now: float) -> list[Effect]:
    effects: list[Effect] = [CancelTimer(timers.failover_timer(framework.id))]
    if framework.stream is not None:
        old = framework.stream
        effects += [
            SendEvent(old, events.Error(message="Framework failed over")),
            *_detach(state, framework, "the framework failed over", "framework failed over"),
            CloseStream(old, "framework failed over"),
        ]
    # The user and checkpointing of a framework stay what they were, silently, as in Mesos.
    framework.info = msgspec.structs.replace(
        call.info,
        user=framework.info.user,
        checkpoint=framework.info.checkpoint,
        principal=framework.principal or call.info.principal,
    )
    framework.principal = framework.info.principal
    framework.recovered = False
    framework.reregistered_at = now
    framework.unregistered_at = None
    return effects


def _detach(state: MasterState, framework: FrameworkEntry, why: str, short: str) -> list[Effect]:
    """Take the framework off its stream: offers, filters, wants and suppression go with it."""
    stream = framework.stream
    assert stream is not None
    for entry in list(framework.offers.values()):
        offers.withdraw(state, entry, short)
    claims.forget_framework(state, framework.id)
    inverse.fall_silent(state, framework)
    framework.wants.clear()
    framework.waiting.clear()
    framework.explanations.clear()
    framework.told = ()
    framework.uses_wants = False
    framework.explain_due, framework.unexplained = False, None
    framework.suppressed.clear()
    framework.stream = None
    del state.streams[stream]
    return [CancelTimer(timers.heartbeat_timer(stream)), *timers.ask_allocation(state)]


def disconnect(state: MasterState, stream: str, why: str, now: float) -> list[Effect]:
    """The framework's stream broke; nothing when it was an older one."""
    framework_id = state.streams.get(stream)
    if framework_id is None:
        return []
    framework = state.frameworks[framework_id]
    effects = _detach(state, framework, why, "the framework disconnected")
    framework.unregistered_at = now
    timeout_s = framework.info.failover_timeout_s
    facts = {**_facts(framework), "failover_timeout_s": timeout_s}
    effects.append(Note("framework disconnected", why or "its stream ended", "warning", facts))
    # Deviates: Mesos does not tell that a framework is away.
    news.tell_framework(state, framework, news.FRAMEWORK_UPDATED)
    if timeout_s <= 0:
        return effects + remove(state, framework, "its stream broke and its failover timeout is 0", now)
    effects.append(SetTimer(timers.failover_timer(framework_id), min(timeout_s, timers.MOST_DELAY_S)))
    return effects


def recover(state: MasterState, id: FrameworkId, record: FrameworkRecord, now: float) -> list[Effect]:
    """Enter a framework from the records or from an agent's word; it has to subscribe before its time is up.

    Deviates: also a failover timeout of 0 gets the recovery grace, because here the master was away, not the framework.
    """
    framework = FrameworkEntry(
        msgspec.structs.replace(record.info, id=id), id, record.registered_at, state.config.most_completed_tasks
    )
    framework.principal = record.principal
    framework.recovered = True
    framework.unregistered_at = now
    state.frameworks[id] = framework
    news.tell_framework(state, framework, news.FRAMEWORK_ADDED)
    return [SetTimer(timers.failover_timer(id), min(_grace_s(state, framework), timers.MOST_DELAY_S))]


def _grace_s(state: MasterState, framework: FrameworkEntry) -> float:
    timeout_s = framework.info.failover_timeout_s
    return max(timeout_s, state.config.recovery_grace_s) if framework.recovered else timeout_s


def fail_over_late(state: MasterState, framework_id: FrameworkId, now: float) -> list[Effect]:
    """The failover timer went off: remove the framework if its time is really up."""
    framework = state.frameworks.get(framework_id)
    if framework is None or framework.stream is not None:
        return []
    grace_s = _grace_s(state, framework)
    left_s = (framework.unregistered_at or now) + grace_s - now
    if left_s > 0.001:
        return [SetTimer(timers.failover_timer(framework_id), min(left_s, timers.MOST_DELAY_S))]
    return remove(state, framework, f"it did not come back within its failover timeout of {grace_s:g} s", now)


def teardown(state: MasterState, framework: FrameworkEntry, now: float) -> list[Effect]:
    return _tear_down(state, framework, "it asked for its teardown", now)


def tear_down(state: MasterState, command: Teardown, now: float) -> list[Effect]:
    """An operator ends a framework, which is told so if it listens. Errors: `Invalid` when nobody knows it."""
    framework = state.frameworks.get(command.framework_id)
    if framework is None:
        known = "it was removed before" if command.framework_id in state.removed_ids else "GET_FRAMEWORKS lists them"
        raise Invalid(f"framework {command.framework_id} cannot be found; {known}")
    told: list[Effect] = []
    if framework.stream is not None:
        told.append(SendEvent(framework.stream, events.Error(message="Framework was torn down by an operator")))
    return told + _tear_down(state, framework, "an operator asked for its teardown", now)


def _tear_down(state: MasterState, framework: FrameworkEntry, why: str, now: float) -> list[Effect]:
    stream = framework.stream
    effects = _detach(state, framework, "torn down", "the framework was torn down") if stream is not None else []
    effects += remove(state, framework, why, now)
    if stream is not None:
        effects.append(CloseStream(stream, "framework torn down"))
    return effects


def remove(state: MasterState, framework: FrameworkEntry, why: str, now: float) -> list[Effect]:
    """End a disconnected framework for good: its id never subscribes again, its tasks are to end.

    Shapes: what its tasks hold stays taken until the agents say that they ended, or the time for that is up.
    Deviates: Mesos gives it away at once, while the tasks still sit on their ports.
    """
    assert framework.stream is None
    assert not framework.offers
    effects: list[Effect] = [CancelTimer(timers.failover_timer(framework.id))]
    left = [e for e in state.executors.values() if e.framework_id == framework.id]
    agents = sorted({e.agent_id for e in framework.tasks.values()} | {e.agent_id for e in left})
    grace_s = max([state.config.default_kill_grace_s, *(e.info.shutdown_grace_s or 0.0 for e in left)])
    for entry in list(framework.tasks.values()):
        grace_s = max(grace_s, entry.info.kill_grace_s or 0.0)
        effects += _acknowledge_for(state, entry)
        _orphan(state, framework, entry, why, now)
    for agent_id in agents:
        session = state.agents[agent_id].session
        if session is not None:
            effects.append(SendOrder(session, ShutdownFramework(state.epoch, framework.id)))
    framework.unreachable.clear()
    framework.kills.clear()
    framework.unregistered_at = now
    del state.frameworks[framework.id]
    news.tell_framework(state, framework, news.FRAMEWORK_REMOVED)
    _remember_removed(state, framework)
    effects += [
        Persist(framework_key(framework.id), None),
        Persist("removed", RemovedRecord(tuple(state.removed_ids))),
        Note("framework removed", why, "info", _facts(framework)),
        SetTimer(timers.shutdown_timer(framework.id), grace_s + state.config.shutdown_margin_s),
    ]
    return effects


def _acknowledge_for(state: MasterState, entry: TaskEntry) -> list[Effect]:
    """Let the updates that the framework may not have acknowledged stand in nobody's way."""
    session = state.agents[entry.agent_id].session
    if session is None:
        return []
    uuids = dict.fromkeys((entry.forwarded_uuid, *(status.uuid for status in entry.unacknowledged)))
    return [
        SendOrder(session, AcknowledgeUpdate(state.epoch, entry.framework_id, entry.info.task_id, uuid))
        for uuid in uuids
        if uuid is not None
    ]


def _orphan(state: MasterState, framework: FrameworkEntry, entry: TaskEntry, why: str, now: float) -> None:
    """The task of a removed framework: killed for those who look, still held by its agent."""
    agent = state.agents[entry.agent_id]
    was_over = entry.state in TERMINAL
    state.live[entry.state] -= 1
    del framework.tasks[entry.info.task_id]
    if was_over:
        agent.tasks.pop((framework.id, entry.info.task_id), None)
    else:
        state.ended[TaskState.KILLED] += 1
        status = tasks.make_status(
            entry.info.task_id, TaskState.KILLED, Reason.FRAMEWORK_REMOVED, f"framework removed: {why}", now,
            agent_id=agent.id,
        )  # fmt: skip
        entry.add_status(status)
        entry.state = entry.forwarded = TaskState.KILLED
        entry.orphan = True
        agent.shown = None
        news.update_task(state, entry, status)
    framework.completed.append(entry)


def _remember_removed(state: MasterState, framework: FrameworkEntry) -> None:
    state.completed[framework.id] = framework
    state.removed_ids[framework.id] = None
    while len(state.completed) > state.config.most_completed_frameworks:
        del state.completed[next(iter(state.completed))]
    while len(state.removed_ids) > state.config.most_removed_ids:
        del state.removed_ids[next(iter(state.removed_ids))]


def give_up_orphans(state: MasterState, framework_id: FrameworkId) -> list[Effect]:
    """Time is up for the agents to say that a removed framework's tasks ended: free what they hold."""
    effects: list[Effect] = []
    for agent in state.agents.values():
        left = [e for (owner, _), e in agent.tasks.items() if owner == framework_id and e.orphan]
        for entry in left:
            tasks.drop_orphan(state, agent, entry)
        executors.forget(state, agent, [key for key in agent.executors if key[0] == framework_id])
        if left:
            why = f"agent {agent.id} has not said that {len(left)} tasks of the removed framework ended"
            facts = {"agent": agent.id, "framework": framework_id}
            effects.append(Note("resources freed without word from the agent", why, "warning", facts))
    claims.forget_framework(state, framework_id)
    return effects + timers.ask_allocation(state) if effects else []


def beat(state: MasterState, stream: str) -> list[Effect]:
    """The next heartbeat of a stream."""
    if stream not in state.streams:
        return []
    timer = SetTimer(timers.heartbeat_timer(stream), state.config.heartbeat_s)
    return [SendEvent(stream, events.Heartbeat()), timer]


def suppress(state: MasterState, framework: FrameworkEntry, call: Suppress) -> list[Effect]:
    """Offer nothing more for these roles; offers that are out stay valid.

    Errors: `Invalid` names a role that is not the framework's.
    """
    framework.suppressed |= _own_roles(framework, call.roles)
    claims.tell_framework(state, framework)
    return []


def revive(state: MasterState, framework: FrameworkEntry, call: Revive) -> list[Effect]:
    """Offer for these roles again, and at once: their filters are forgotten.

    Errors: `Invalid` names a role that is not the framework's.
    """
    roles = _own_roles(framework, call.roles)
    framework.suppressed -= roles
    claims.tell_framework(state, framework)
    claims.drop_filters_of(state, framework, roles)
    return timers.ask_allocation(state)


def _own_roles(framework: FrameworkEntry, roles: Sequence[str]) -> set[str]:
    own = set(framework.info.subscribed_roles)
    strange = sorted(set(roles) - own)
    if strange:
        raise Invalid(
            f"role {strange[0]!r} is not among the roles of framework {framework.id}: {', '.join(sorted(own))}"
        )
    return set(roles) or own


def update_framework(state: MasterState, framework: FrameworkEntry, call: UpdateFramework, now: float) -> list[Effect]:
    """Change what a subscribed framework said of itself; offers for roles it has left come back.

    Errors: `Invalid` when the new description would be refused; then nothing changes.
    """
    info = msgspec.structs.replace(call.info, principal=call.info.principal or framework.principal)
    why = (
        check_framework(info, call.suppressed_roles)
        or find_fault(call.offer_constraints, info.subscribed_roles)
        or check_resubscribe(framework.info, info)
    )
    if why is None and (call.info.user, call.info.checkpoint) != (framework.info.user, framework.info.checkpoint):
        why = f"framework {framework.id} cannot change its user or checkpoint"
    if why is not None:
        raise Invalid(why)
    framework.info = msgspec.structs.replace(info, id=framework.id)
    news.tell_framework(state, framework, news.FRAMEWORK_UPDATED)
    framework.suppressed = set(call.suppressed_roles)
    framework.constraints = call.offer_constraints
    roles = set(framework.info.subscribed_roles)
    left = [entry for entry in framework.offers.values() if entry.offer.role not in roles]
    effects = offers.rescind(state, left, "the framework has left the role")
    unwanted = [e for e in framework.offers.values() if e.want is None and not claims.admits(state, framework, e)]
    effects += offers.rescind(state, unwanted, "the framework's offer constraints exclude its agent")
    for want in [w for w in framework.wants.values() if w.want.role not in roles]:
        del framework.wants[want.want.id]
        framework.waiting.pop(want.want.id, None)
        claims.forget_want(state, framework, want.want.id)
    for entry in framework.wants.values():
        claims.tell_want(state, framework, entry)
    claims.tell_framework(state, framework)
    return [_persist(framework), *effects, *timers.ask_allocation(state)]


def tell_failure(state: MasterState, agent_id: AgentId) -> list[Effect]:
    """FAILURE of a whole agent, to every framework that listens."""
    found = events.Failure(agent_id=agent_id)
    return [SendEvent(f.stream, found) for f in state.connected_frameworks() if f.stream is not None]


def _persist(framework: FrameworkEntry) -> Effect:
    record = FrameworkRecord(info=framework.info, principal=framework.principal, registered_at=framework.registered_at)
    return Persist(framework_key(framework.id), record)


def adopt(state: MasterState, info: FrameworkInfo, now: float) -> list[Effect]:
    """A framework that only an agent remembers; its id must be set."""
    assert info.id is not None
    effects = recover(state, info.id, FrameworkRecord(info=info, principal=info.principal, registered_at=now), now)
    return [*effects, _persist(state.frameworks[info.id])]


def _facts(framework: FrameworkEntry) -> dict[str, object]:
    return {"framework": framework.id, "name": framework.info.name, "roles": list(framework.info.subscribed_roles)}
