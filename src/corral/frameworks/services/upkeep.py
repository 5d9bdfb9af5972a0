"""Brings what is there towards what is wanted: performs plans, repeats what went unanswered, drives deployments on.

Every input ends in `settle`, which looks at the apps that the input touched and at no others.
Source: Marathon's contract, sections 8, 13 and 14.

Deviates: kills and launches are not throttled here; the kernel and its agents take them as fast as they can.
"""

from itertools import islice

from corral.frameworks.services import draining, offers, partition, residency
from corral.frameworks.services.events import tell, tell_deployed, tell_instance, tell_step, tell_step_done
from corral.frameworks.services.launch import safe_id
from corral.frameworks.services.pace import DEADLINE, pace_of, score_of
from corral.frameworks.services.plan import FULL, Start, Stop, plan_app
from corral.frameworks.services.pod_tasks import bury
from corral.frameworks.services.record_spec import (
    ActionKind,
    Condition,
    Deployment,
    Goal,
    Instance,
    Outcome,
    OutcomeRecord,
)
from corral.frameworks.services.registry import CHANGED
from corral.frameworks.services.roles import take_part
from corral.frameworks.services.state import App, Phase, State, replace, task_id_of, task_ids_of
from corral.lib.ids import mint_time_uuid
from corral.model import calls
from corral.model.task import TaskState
from corral.runtime.core import CancelTimer, Effect, Note, Persist, SetTimer
from corral.sdk.effects import Call

WORK = "work"
SWEEP = "sweep"
SWEEP_S = 5.0
UNREACHABLE = "unreachable/"
FENCE = "fence/"


def settle(state: State, now: float) -> list[Effect]:
    """Look at what was touched; what is too much for one input goes on in the next."""
    effects: list[Effect] = []
    budget = state.config.most_writes
    while state.sentenced and budget > 0:
        # They go first: a plan made before they are counted out might end others in their place.
        instance_id = next(iter(state.sentenced))
        why = state.sentenced.pop(instance_id)
        budget -= _execute(state, instance_id, why, effects, now)
        state.wiped.discard(instance_id)
    while state.dirty and budget > 0:
        app_id = next(iter(state.dirty))
        del state.dirty[app_id]
        app = state.apps.get(app_id)
        if app is not None:
            budget -= _look_at(state, app, budget, effects, now)
    if state.dirty or state.backlog or state.sentenced:
        effects.append(SetTimer(WORK, 0.0, if_unset=True))
    effects.extend(offers.state_wants(state, now))
    effects.extend(take_part(state))
    if state.watched:
        effects.append(SetTimer(SWEEP, SWEEP_S, if_unset=True))
    return effects + state.node_memory.settle()


def _execute(state: State, instance_id: str, why: str, effects: list[Effect], now: float) -> int:
    app = state.apps.get(app_of_instance(instance_id))
    instance = app.instances.get(instance_id) if app is not None else None
    if app is None or instance is None:
        return 0
    state.dirty[app.spec.id] = None
    return decommission(state, app, instance, why, effects, now, wipe=instance_id in state.wiped)


def _look_at(state: State, app: App, budget: int, effects: list[Effect], now: float) -> int:
    """Perform the app's plan; returns how many records that wrote."""
    tell(state, CHANGED, appId=app.spec.id)
    deployment, action = current_action(state, app.spec.id)
    if action is None and app.record.stopping:
        action = ActionKind.STOP
    if deployment is not None and deployment.paused:
        return 1
    pace = FULL if deployment is None else pace_of(deployment, app.spec)
    plan = plan_app(app, action, deployment.step_at if deployment is not None else 0.0, budget, pace)
    if deployment is not None and deployment.policy.deadline_s:
        _measure(state, deployment, app, effects)
    written = 0
    for step in plan.steps:
        match step:
            case Start():
                written += schedule(state, app, step.count, effects, now)
            case Stop():
                for instance_id in step.instances:
                    written += decommission(state, app, app.instances[instance_id], step.why, effects, now)
    state.restless[app.spec.id] = None
    if plan.more or (plan.steps and not plan.done):
        # The plan was made before its own steps: the next look tells whether they were all.
        state.dirty[app.spec.id] = None
    if plan.done and deployment is not None:
        _finish_action(state, deployment, app.spec.id, effects, now)
    if app.record.stopping and not app.instances and app.spec.id not in state.locks:
        forget_app(state, app, effects)
    return max(written, 1)


def _measure(state: State, deployment: Deployment, app: App, effects: list[Effect]) -> None:
    """Whoever gets further has all the time of the deadline again."""
    best = state.progress.setdefault(deployment.id, {})
    score = score_of(app)
    before = best.get(app.spec.id)
    if before is None or score > before:
        best[app.spec.id] = score
        effects.append(SetTimer(DEADLINE + deployment.id, deployment.policy.deadline_s))


def current_action(state: State, app_id: str) -> tuple[Deployment | None, ActionKind | None]:
    """The deployment that works on the app and what its present step does to it; None when it is not its turn."""
    lock = state.locks.get(app_id)
    if lock is None:
        return None, None
    deployment = state.deployments[lock]
    for action in deployment.steps[deployment.step]:
        if action.app == app_id:
            return deployment, action.kind
    return deployment, ActionKind.START


def schedule(state: State, app: App, count: int, effects: list[Effect], now: float) -> int:
    """Put instances into the queue: first those that were stopped and have volumes, then new ones, which are remembered
    once they are launched. Returns how many records that wrote.
    """
    stem = safe_id(app.spec.id)
    if not app.count(Phase.SCHEDULED):
        app.since_at = now
    parked = list(islice(app.in_phase(Phase.STOPPED), count))
    for instance in parked:
        instance = replace(
            instance, goal=Goal.RUNNING, version=app.record.version, config=app.record.config, created_at=now
        )
        app.place(instance)
        effects.append(Persist(f"instance/{instance.id}", instance))
        tell_instance(state, instance)
    for _ in range(count - len(parked)):
        instance = Instance(
            id=f"{stem}.instance-{mint_time_uuid(state.random, now)}",
            app=app.spec.id,
            version=app.record.version,
            config=app.record.config,
            created_at=now,
        )
        app.place(instance)
        tell_instance(state, instance)
    return len(parked)


def decommission(
    state: State, app: App, instance: Instance, why: str, effects: list[Effect], now: float, wipe: bool = False
) -> int:
    """End an instance for good, but for its volumes unless its app goes or with `wipe`; returns how many records that
    wrote.
    """
    stops = instance.kept and not wipe and not app.record.stopping
    goal = Goal.STOPPED if stops else Goal.DECOMMISSIONED
    if instance.condition is Condition.SCHEDULED:
        if instance.kept:
            if not residency.is_parked(instance) or not stops:
                give_up(state, app, replace(instance, goal=goal), why, effects)
            return 1
        app.drop(instance.id)
        return 0
    if instance.goal is goal or instance.goal is Goal.DECOMMISSIONED:
        return 0
    if instance.unreachable_at is not None and instance.single:
        # It may run where nobody hears the kill: until it has surely ended, or is back, nothing takes its place.
        app.place(replace(instance, goal=goal))
        effects.append(Persist(f"instance/{instance.id}", app.instances[instance.id]))
        effects.append(Note("instance is to end", why, facts={"app": app.spec.id, "task": task_id_of(instance)}))
        return 1
    if instance.condition in (Condition.UNREACHABLE, Condition.INACTIVE):
        # Nobody would hear the kill; should the agent come back, the task is unknown and killed then.
        tell_instance(state, instance, Condition.GONE)
        give_up(state, app, replace(instance, goal=goal), why, effects)
        return 1
    if instance.leaves:
        # Its task is ending already: what changes is that nothing of it is kept.
        app.place(replace(instance, goal=goal))
        effects.append(Persist(f"instance/{instance.id}", app.instances[instance.id]))
        return 1
    leave_s = draining.leave_s(state, app, instance)
    instance = replace(instance, goal=goal, leave_at=now + leave_s if leave_s else None)
    app.place(instance)
    effects.append(Persist(f"instance/{instance.id}", instance))
    effects.append(Note("instance is ended", why, facts={"app": app.spec.id, "task": task_id_of(instance)}))
    state.watched[instance.id] = now + state.config.kill_retry_s
    if leave_s:
        effects.append(SetTimer(draining.LEAVE + instance.id, leave_s))
    effects.extend(kill(state, instance, app))
    return 1


def kill(state: State, instance: Instance, app: App | None) -> list[Effect]:
    """Ask the master to end the task; without a connection it is asked after the next subscription."""
    if not state.connected or state.framework_id is None or instance.leave_at is not None:
        # One that is leaving is killed when its connections are done, or its time is over.
        return []
    grace_s = partition.grace_s(app.spec) if app is not None else None
    return [
        Call(
            calls.Kill(
                framework_id=state.framework_id,
                task_id=task_id,
                agent_id=instance.agent_id,
                grace_s=grace_s,
            )
        )
        for task_id in task_ids_of(instance)
    ]


def give_up(state: State, app: App, instance: Instance, why: str, effects: list[Effect], stop: bool = False) -> None:
    """Forget an instance that has a record, but for its volumes if it is only stopped.

    Shapes: with `stop` it is treated as one that was to stop.
    """
    stops = instance.kept and (stop or instance.goal is Goal.STOPPED) and not app.record.stopping
    if not stops:
        remove_instance(state, app, instance, why, effects)
        return
    if instance.unreachable_at is not None:
        effects.append(CancelTimer(silence_timer(instance)))
    parked = residency.park(instance)
    app.place(parked)
    state.watched.pop(instance.id, None)
    state.discovery.drained.pop(instance.id, None)
    effects.append(Persist(f"instance/{instance.id}", parked))
    effects.append(Note("instance has stopped", why, facts={"app": app.spec.id, "task": task_id_of(instance)}))
    state.dirty[app.spec.id] = None


def remove_instance(state: State, app: App, instance: Instance, why: str, effects: list[Effect]) -> None:
    """Forget an instance that has a record."""
    if instance.containers:
        bury(app, instance, why, instance.started_at or instance.created_at)
    app.drop(instance.id)
    if instance.reservation:
        # What it had reserved is freed when it is offered.
        state.revived.discard(instance.reservation)
        effects.append(SetTimer(offers.RESERVED, 0.01, if_unset=True))
    state.watched.pop(instance.id, None)
    state.discovery.drained.pop(instance.id, None)
    effects.append(Persist(f"instance/{instance.id}", None))
    if instance.unreachable_at is not None:
        effects.append(CancelTimer(silence_timer(instance)))
    effects.append(Note("instance has gone", why, "debug", {"app": app.spec.id, "task": task_id_of(instance)}))
    state.dirty[app.spec.id] = None


def forget_app(state: State, app: App, effects: list[Effect]) -> None:
    """The last instance of a deleted app is gone: nothing of it remains."""
    app_id = app.spec.id
    del state.apps[app_id]
    state.restless[app_id] = None
    effects.append(Persist(f"app{app_id}", None))
    for version in state.versions.pop(app_id, {}):
        effects.append(Persist(f"version{app_id}@{version}", None))
    if state.failures.pop(app_id, None) is not None:
        effects.append(Persist(f"failure{app_id}", None))
    if state.signalling.pop(app_id, None) is not None:
        effects.append(Persist(f"signal{app_id}", None))
    if state.elastic.forget(app_id):
        effects.append(Persist(f"scaling{app_id}", None))
    count_out(state, app)
    tell(state, "app_terminated_event", appId=app_id)
    tell(state, CHANGED, appId=app_id)
    effects.append(Note("app has gone", "it was deleted and its last instance ended", facts={"app": app_id}))


def count_out(state: State, app: App) -> None:
    """The app no longer has its service ports and its role."""
    state.roles.leave(app.spec, state.config)
    for port in app.spec.service_ports:
        if port:
            state.service_ports[port] -= 1
            if state.service_ports[port] <= 0:
                del state.service_ports[port]


def count_in(state: State, app: App) -> None:
    """The app has its service ports and its role."""
    state.roles.enter(app.spec, state.config)
    for port in app.spec.service_ports:
        if port:
            state.service_ports[port] += 1


# Deployments, onward.


def _finish_action(state: State, deployment: Deployment, app_id: str, effects: list[Effect], now: float) -> None:
    """Remember that the app's part of the step is done; with the last part the next step begins."""
    step = deployment.steps[deployment.step]
    if all(action.app != app_id for action in step):
        return
    done = state.done[deployment.id]
    done.add(app_id)
    if not all(action.app in done for action in step):
        return
    tell_step_done(state, deployment)
    if deployment.step + 1 < len(deployment.steps):
        following = replace(deployment, step=deployment.step + 1, step_at=now)
        state.progress.pop(deployment.id, None)
        state.deployments[deployment.id] = following
        done.clear()
        tell_step(state, following)
        effects.append(Persist(f"deployment/{deployment.id}", following))
        state.touch(action.app for action in following.steps[following.step])
        return
    tell_deployed(state, deployment)
    why = f"all {len(deployment.steps)} steps are done"
    end_deployment(state, deployment, effects, Outcome.DONE, why, now)
    effects.append(Note("deployment done", why, facts={"deployment": deployment.id, "apps": list(deployment.apps)}))


def end_deployment(
    state: State, deployment: Deployment, effects: list[Effect], outcome: Outcome, why: str, now: float,
    successor: str = "",
) -> None:  # fmt: skip
    """Release its locks and keep no more than how it ended."""
    record = OutcomeRecord(
        id=deployment.id, version=deployment.version, apps=deployment.apps, outcome=outcome, why=why, ended_at=now,
        successor=successor,
    )  # fmt: skip
    state.outcomes[deployment.id] = record
    effects.append(Persist(f"outcome/{deployment.id}", record))
    while len(state.outcomes) > state.config.most_outcomes:
        oldest = next(iter(state.outcomes))
        del state.outcomes[oldest]
        effects.append(Persist(f"outcome/{oldest}", None))
    if deployment.policy.deadline_s:
        effects.append(CancelTimer(DEADLINE + deployment.id))
    state.progress.pop(deployment.id, None)
    del state.deployments[deployment.id]
    del state.done[deployment.id]
    for app_id in deployment.apps:
        del state.locks[app_id]
    state.touch(deployment.apps)
    effects.append(Persist(f"deployment/{deployment.id}", None))


# Timers.


def sweep(state: State, now: float) -> list[Effect]:
    """Repeat kills that nobody answered; end launches that take too long."""
    effects: list[Effect] = []
    for instance_id in [i for i, due_at in state.watched.items() if due_at <= now]:
        app = state.apps.get(app_of_instance(instance_id))
        instance = app.instances.get(instance_id) if app is not None else None
        if app is None or instance is None or residency.is_parked(instance):
            del state.watched[instance_id]
        elif instance.leaves:
            state.watched[instance_id] = now + state.config.kill_retry_s
            effects.extend(kill(state, instance, app))
        elif instance.condition is Condition.RUNNING:
            del state.watched[instance_id]
        else:
            why = f"{instance.condition} for more than {state.config.launch_timeout_s:g} s"
            decommission(state, app, instance, why, effects, now)
            state.dirty[app.spec.id] = None
    return effects


def app_of_instance(instance_id: str) -> str:
    """The app of an instance whose id is made by `schedule`."""
    return "/" + instance_id.rpartition(".instance-")[0].replace("_", "/")


def unreachable_tick(state: State, instance_id: str, now: float) -> list[Effect]:
    """The instance has been silent for as long as its app's strategy allows; there are two such instants."""
    app = state.apps.get(app_of_instance(instance_id))
    instance = app.instances.get(instance_id) if app is not None else None
    if app is None or instance is None or instance.unreachable_at is None:
        return []
    return apply_strategy(state, app, instance, now)


def apply_strategy(state: State, app: App, instance: Instance, now: float) -> list[Effect]:
    """What the app's unreachable strategy asks for at this instant, and a timer for what it asks for later."""
    if instance.single:
        delay_s = instance.fence_s
        return (
            [] if delay_s is None or instance.unreachable_at is None else [SetTimer(silence_timer(instance), delay_s)]
        )
    strategy = residency.strategy_of(app.spec)
    if strategy is None or instance.unreachable_at is None:
        return []
    effects: list[Effect] = []
    silent_s = now - instance.unreachable_at
    facts = {"app": app.spec.id, "task": task_id_of(instance), "agent": instance.agent_id}
    # A millisecond early counts: timers are not finer than that.
    if silent_s + 0.001 >= strategy.expunge_after_s:
        why = f"unreachable for {silent_s:.0f} s, {strategy.expunge_after_s} s are allowed"
        effects.append(Note("instance is given up", why, facts=facts))
        tell_instance(state, instance, Condition.GONE)
        remove_instance(state, app, instance, why, effects)
        return effects
    next_s = strategy.expunge_after_s - silent_s
    if silent_s + 0.001 >= strategy.inactive_after_s:
        if instance.condition is not Condition.INACTIVE:
            instance = replace(instance, condition=Condition.INACTIVE, inactive_at=now)
            app.place(instance)
            tell_instance(state, instance)
            why = f"unreachable for {silent_s:.0f} s, replaced after {strategy.inactive_after_s} s"
            effects.append(Persist(f"instance/{instance.id}", instance))
            effects.append(Note("instance is replaced", why, facts=facts))
            state.dirty[app.spec.id] = None
    else:
        next_s = strategy.inactive_after_s - silent_s
    effects.append(SetTimer(silence_timer(instance), max(next_s, 0.001)))
    return effects


def silence_timer(instance: Instance) -> str:
    """For an only one the name holds since when it is unreachable: a timer of an earlier silence must not count."""
    if instance.single:
        return f"{FENCE}{instance.id}@{instance.unreachable_at!r}"
    return UNREACHABLE + instance.id


def fence_tick(state: State, name: str, now: float) -> list[Effect]:
    """Counted from this process's own word of it, by no clock that anybody sets: the only instance has ended by now."""
    instance_id = name.rpartition("@")[0].removeprefix(FENCE)
    app = state.apps.get(app_of_instance(instance_id))
    instance = app.instances.get(instance_id) if app is not None else None
    if app is None or instance is None or silence_timer(instance) != name:
        return []
    effects: list[Effect] = []
    why = f"its agent was to end it by now: it has been unreachable for {instance.fence_s or 0.0:.0f} s at least"
    facts = {"app": app.spec.id, "task": task_id_of(instance), "agent": instance.agent_id}
    effects.append(Note("only instance may be replaced", why, facts=facts))
    tell_instance(state, instance, Condition.GONE)
    remove_instance(state, app, instance, why, effects)
    return effects


def settle_return(state: State, app: App, returned: Instance, since_at: float) -> list[Effect]:
    """An instance is back while others run in its place: who goes is as the app says."""
    _, action = current_action(state, app.spec.id)
    if action not in (None, ActionKind.SCALE) or app.record.stopping:
        return []
    chosen = partition.choose_leaver(app, returned, since_at)
    if chosen is None:
        return []
    leaver, why = chosen
    state.sentenced[leaver.id] = why
    facts = {"app": app.spec.id, "task": task_id_of(returned), "leaves": leaver.id}
    return [Note("surplus of a return settled", why, facts=facts)]


FAILURES = frozenset(
    {TaskState.FAILED, TaskState.ERROR, TaskState.DROPPED, TaskState.GONE, TaskState.GONE_BY_OPERATOR,
     TaskState.LOST, TaskState.UNKNOWN}
)  # fmt: skip
"""The ends that are kept as an app's last failure."""
