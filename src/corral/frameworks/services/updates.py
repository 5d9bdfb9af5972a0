"""What the master tells of tasks and agents, brought into the instances.

An update is settled in the records before the session acknowledges it. A task that no instance knows is killed: it
belongs to one that was given up. Source: Marathon's contract, sections 9, 10 and 13.
"""

from corral.frameworks.services import backoff, residency, retry
from corral.frameworks.services.events import tell, tell_instance, tell_status, tell_unknown
from corral.frameworks.services.health import is_health_kill, take_health, tell_health, tell_health_kill
from corral.frameworks.services.names import read_task_id
from corral.frameworks.services.pod_tasks import bury, take_container
from corral.frameworks.services.record_spec import ActionKind, Condition, FailureRecord, Goal, Instance
from corral.frameworks.services.roles import revive_reserved, take_part
from corral.frameworks.services.state import App, State, replace, task_id_of
from corral.frameworks.services.upkeep import (
    FAILURES,
    apply_strategy,
    current_action,
    decommission,
    give_up,
    kill,
    settle_return,
    silence_timer,
)
from corral.model import calls, events
from corral.model.ids import TaskId
from corral.model.task import TERMINAL, Reason, TaskState, TaskStatus
from corral.runtime.core import CancelTimer, Effect, Note, Persist
from corral.sdk.effects import Call

_LIVE = {
    TaskState.STAGING: Condition.STAGING,
    TaskState.STARTING: Condition.STARTING,
    TaskState.RUNNING: Condition.RUNNING,
    TaskState.KILLING: Condition.KILLING,
}

_ORDER = (Condition.PROVISIONED, Condition.STAGING, Condition.STARTING, Condition.RUNNING)

_CHARGED = frozenset(
    {TaskState.FAILED, TaskState.ERROR, TaskState.DROPPED, TaskState.GONE, TaskState.FINISHED, TaskState.LOST}
)
_BLAMELESS = frozenset({Reason.INVALID_OFFERS, Reason.AGENT_DISCONNECTED, Reason.AGENT_REMOVED, Reason.RECONCILIATION})
"""Reasons that say nothing about the app, so that its backoff is not charged."""

_MAY_COME_BACK = frozenset({Reason.AGENT_DISCONNECTED, Reason.AGENT_REMOVED, Reason.RECONCILIATION})


def find(state: State, task_id: TaskId) -> tuple[App, Instance] | None:
    """The instance that this very task is a launch of."""
    name = read_task_id(task_id)
    app = state.apps.get(name.app) if name is not None else None
    instance = app.instances.get(name.instance) if app is not None and name is not None else None
    if app is None or instance is None or name is None or instance.condition is Condition.SCHEDULED:
        return None
    if name.container not in ({c.name for c in instance.containers} or {""}):
        return None
    return (app, instance) if name.incarnation == instance.incarnation else None


def update(state: State, event: events.Update, now: float) -> list[Effect]:
    """One status update."""
    status = event.status
    found = find(state, status.task_id)
    if found is None:
        return _unknown(state, status)
    app, instance = found
    if status.state is TaskState.UNREACHABLE or (status.state is TaskState.LOST and status.reason in _MAY_COME_BACK):
        return _unreachable(state, app, instance, status, now)
    if instance.fence_s is not None and _is_hearsay(status):
        return _unreachable(state, app, instance, status, now)
    if instance.containers:
        return _container(state, app, instance, status, now)
    if status.state in _LIVE:
        return _live(state, app, instance, status, now)
    return _ended(state, app, instance, status, now)


def _is_hearsay(status: TaskStatus) -> bool:
    """Whether nobody who could know has seen the end: the agent was given up for good, not heard."""
    removed = status.state is TaskState.GONE and status.reason is Reason.AGENT_REMOVED
    return removed or status.state in (TaskState.LOST, TaskState.UNKNOWN)


def _unknown(state: State, status: TaskStatus) -> list[Effect]:
    tell_unknown(state, status)
    gone = status.state in TERMINAL or status.state in (TaskState.UNKNOWN, TaskState.UNREACHABLE)
    if gone or state.framework_id is None:
        return []
    why = "no instance knows this task: it was given up or belongs to a deleted app"
    return [
        Call(calls.Kill(framework_id=state.framework_id, task_id=status.task_id, agent_id=status.agent_id)),
        Note("unknown task is killed", why, "warning", {"task": status.task_id, "agent": status.agent_id}),
    ]


def _container(state: State, app: App, instance: Instance, status: TaskStatus, now: float) -> list[Effect]:
    """One container of a pod; its instance stands as all of them together do, and ends with the first that ends."""
    name = read_task_id(status.task_id)
    assert name is not None, "the instance was found by this name"
    before, (instance, told) = instance, take_container(instance, name.container, status)
    if instance is before:
        return _leave(state, app, instance, now) if _is_leaving(instance, status) else []
    app.place(instance)
    state.dirty[app.spec.id] = None
    if told.state in TERMINAL:
        return _ended(state, app, instance, told, now)
    effects: list[Effect] = []
    if status.state in TERMINAL:
        effects += [Persist(f"instance/{instance.id}", instance), *kill(state, instance, app)]
    return effects + _live(state, app, instance, told, now)


def _live(state: State, app: App, instance: Instance, status: TaskStatus, now: float) -> list[Effect]:
    condition = _LIVE[status.state]
    ips = _addresses(status) or instance.ips
    before, instance = instance, take_health(instance, status)
    if condition is instance.condition and ips == instance.ips and instance is before:
        return _leave(state, app, instance, now) if _is_leaving(instance, status) else []
    again = status.reason is Reason.AGENT_RESTARTED
    if _goes_back(instance.condition, condition) and not again:
        return []
    effects: list[Effect] = []
    returned = instance.unreachable_at is not None
    started_at = None if again else instance.started_at
    if condition is Condition.RUNNING and started_at is None:
        started_at = status.at
    instance = replace(
        instance, condition=condition, ips=ips, started_at=started_at, unreachable_at=None,
        agent_id=instance.agent_id or status.agent_id, inactive_at=None,
        kept=instance.kept or (bool(instance.reservation) and condition is Condition.RUNNING),
    )  # fmt: skip
    app.place(instance)
    tell_status(state, instance, status)
    if condition is not before.condition:
        tell_instance(state, instance)
    if instance.checks or instance.readiness:
        effects.extend(_compare_health(state, app, before, instance, status, now))
    if returned:
        effects.append(CancelTimer(silence_timer(before)))
        effects.append(Note("instance is back", status.message or "its agent answers again", facts=_facts(instance)))
        if instance.leaves:
            state.watched[instance.id] = now + state.config.kill_retry_s
            effects.extend(kill(state, instance, app))
        elif before.inactive_at is not None:
            effects.extend(settle_return(state, app, instance, before.inactive_at))
    if condition is Condition.RUNNING and before.condition is not Condition.RUNNING:
        if instance.goal is Goal.RUNNING:
            state.watched.pop(instance.id, None)
        effects.append(Note("instance runs", status.message or "", facts=_facts(instance)))
    if condition is not Condition.KILLING and condition is not before.condition:
        backoff.advance(app, now)
    if _is_leaving(instance, status):
        return effects + _leave(state, app, instance, now)
    if condition is Condition.RUNNING or returned:
        # The steps before can be learned again from the master; what is shown of a running one cannot.
        effects.append(Persist(f"instance/{instance.id}", instance))
        state.dirty[app.spec.id] = None
    return effects


def _is_leaving(instance: Instance, status: TaskStatus) -> bool:
    """Whether the instance's node ends it though nobody here wants that: it is drained, as the agent says, or as may be
    concluded when a master that has just come to lead knows no more than that the task is being ended."""
    if status.state is not TaskState.KILLING or instance.goal is not Goal.RUNNING:
        return False
    return status.reason is Reason.AGENT_DRAINING or (
        status.reason is Reason.RECONCILIATION and not instance.containers
    )


def _leave(state: State, app: App, instance: Instance, now: float) -> list[Effect]:
    """Another may start elsewhere while this one still has its grace."""
    effects: list[Effect] = []
    decommission(state, app, instance, "its node is drained", effects, now)
    state.dirty[app.spec.id] = None
    return effects


def _compare_health(
    state: State, app: App, before: Instance, instance: Instance, status: TaskStatus, now: float
) -> list[Effect]:
    tell_health(state, app, before, instance)
    if instance.ready and not before.ready:
        return [Note("instance is ready", status.message or "its readiness check passes", facts=_facts(instance))]
    if instance.healthy is before.healthy or instance.healthy is None:
        return []
    if instance.healthy:
        state.nodes.last(app.spec.id, instance.hostname, now)
        return [Note("instance is healthy", status.message or "all its checks pass", facts=_facts(instance))]
    return [Note("instance is unhealthy", status.message or "a check fails", "warning", _facts(instance))]


def _goes_back(now: Condition, told: Condition) -> bool:
    """Whether an update is older than what is known, as answers to reconciliation may be."""
    if now is Condition.KILLING:
        return told in _ORDER
    return now in _ORDER and told in _ORDER and _ORDER.index(told) < _ORDER.index(now)


def _addresses(status: TaskStatus) -> tuple[str, ...]:
    if status.container_status is None:
        return ()
    return tuple(ip for network in status.container_status.network_infos for ip in network.ip_addresses)


def _facts(instance: Instance) -> dict[str, object]:
    return {"app": instance.app, "task": task_id_of(instance), "agent": instance.agent_id}


def _unreachable(state: State, app: App, instance: Instance, status: TaskStatus, now: float) -> list[Effect]:
    effects: list[Effect] = []
    if instance.leaves and not instance.single:
        tell_status(state, instance, status)
        tell_instance(state, instance, Condition.GONE)
        give_up(state, app, instance, "its agent is lost and it was to end anyway", effects)
        return effects
    if instance.unreachable_at is not None:
        return []
    instance = replace(instance, condition=Condition.UNREACHABLE, unreachable_at=min(status.unreachable_at or now, now))
    app.place(instance)
    tell_status(state, instance, status)
    tell_instance(state, instance)
    state.watched.pop(instance.id, None)
    state.dirty[app.spec.id] = None
    effects.append(Persist(f"instance/{instance.id}", instance))
    effects.append(
        Note("instance is unreachable", status.message or "its agent is silent", "warning", _facts(instance))
    )
    effects.extend(apply_strategy(state, app, instance, now))
    return effects


def _ended(state: State, app: App, instance: Instance, status: TaskStatus, now: float) -> list[Effect]:
    effects: list[Effect] = []
    message = status.message or ""
    tell_status(state, instance, status)
    if instance.leaves:
        give_up(state, app, instance, f"{status.state} {message}".strip(), effects)
        return effects
    ill = is_health_kill(instance, status)
    if ill:
        tell_health_kill(state, instance, status)
    failed = ill or status.state in FAILURES
    if failed:
        effects.append(_remember_failure(state, app, instance, status, now))
    charged = ill or (status.state in _CHARGED and status.reason not in _BLAMELESS)
    if charged and instance.config == app.record.config:
        backoff.charge(app, now)
    level = "warning" if failed else "info"
    why = message or str(status.reason or status.state)
    effects.append(Note("instance ended", why, level, {**_facts(instance), "state": str(status.state)}))
    deployment, action = current_action(state, app.spec.id)
    if deployment is not None and deployment.paused:
        action = None
    if app.record.stopping or (action is ActionKind.RESTART and instance.config != app.record.config):
        give_up(state, app, instance, "it ended while it was to be replaced", effects, stop=True)
        return effects
    if instance.unreachable_at is not None:
        effects.append(CancelTimer(silence_timer(instance)))
    state.watched.pop(instance.id, None)
    again = Instance(
        id=instance.id,
        app=instance.app,
        version=app.record.version,
        config=app.record.config,
        created_at=instance.created_at,
        incarnation=instance.incarnation + 1,
    )
    if instance.containers:
        bury(app, instance, why, now)
    if status.state is not TaskState.GONE_BY_OPERATOR:
        # An agent that was declared gone never comes back, and what was kept there neither.
        again = residency.come_back(instance, again)
    if retry.is_fault(status, ill=ill) and not again.kept:
        again, moved = retry.place_again(state, app, instance, again, status.at or now, why, now)
        effects.extend(moved)
    app.place(again)
    tell_instance(state, again)
    app.since_at = now
    # A waiting instance needs no record unless it has volumes; should this process end now, the app's number tells that
    # one is missing.
    effects.append(Persist(f"instance/{instance.id}", again if again.kept else None))
    state.dirty[app.spec.id] = None
    return effects


def _remember_failure(state: State, app: App, instance: Instance, status: TaskStatus, now: float) -> Effect:
    before = state.failures.get(app.spec.id)
    message = status.message or str(status.reason or "")
    same = before is not None and before.message == message and before.version == instance.version
    failure = FailureRecord(
        app=app.spec.id,
        task_id=task_id_of(instance),
        state=status.state,
        message=message,
        hostname=instance.hostname,
        agent_id=instance.agent_id,
        version=instance.version,
        at=status.at or now,
        repeats=before.repeats + 1 if before is not None and same else 1,
    )
    state.failures[app.spec.id] = failure
    return Persist(f"failure{app.spec.id}", failure)


def rescind(state: State, event: events.Rescind) -> list[Effect]:
    """The offer is no longer ours; if it was used already, the master says so about the task."""
    state.backlog = [o for o in state.backlog if o.id != event.offer_id]
    return []


def take_inverse_offers(event: events.InverseOffers) -> list[Effect]:
    """Agents are to be taken out of service: agreed, for what ends there is started elsewhere at once."""
    return [
        Call(calls.AcceptInverseOffers(framework_id=one.framework_id, inverse_offer_ids=(one.id,)))
        for one in event.inverse_offers
    ]


def subscribed(state: State, event: events.Subscribed) -> list[Effect]:
    """Say again all that the master may not have heard."""
    master = f"{event.master.hostname}:{event.master.port}"
    if state.framework_id is None:
        tell(state, "scheduler_registered_event", frameworkId=event.framework_id, master=master)
    else:
        tell(state, "scheduler_reregistered_event", master=master)
    state.framework_id = event.framework_id
    state.connected = True
    state.master = master
    state.wants.clear()
    state.wants_of.clear()
    state.wants_changed = True
    state.restless.update(dict.fromkeys(state.apps))
    state.revived.clear()
    effects: list[Effect] = []
    for app in state.apps.values():
        for instance in app.instances.values():
            if instance.leaves and instance.condition is not Condition.SCHEDULED:
                effects.extend(kill(state, instance, app))
    state.roles.begin(state.info.roles)
    return [*effects, *take_part(state), *revive_reserved(state)]


def disconnected(state: State) -> list[Effect]:
    """Nothing that was offered counts any more; tasks are not touched."""
    tell(state, "scheduler_disconnected_event")
    state.connected = False
    state.backlog.clear()
    return []
