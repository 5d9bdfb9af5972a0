"""The commands of discovery: who follows the registry, what they have drained, what traffic they measured.

An instance that is leaving is killed when every balancer that serves its app has drained it, or its time is over.
"""

from corral.frameworks.services import signals
from corral.frameworks.services.deployments import Change, deploy
from corral.frameworks.services.discovery_spec import (
    DiscoveryCommand,
    Drained,
    GetRegistry,
    GetTraffic,
    ReportTraffic,
    SecretChanged,
    WatchBalancer,
)
from corral.frameworks.services.draining import LEAVE, is_drained
from corral.frameworks.services.record_spec import Instance
from corral.frameworks.services.registry import view_registry
from corral.frameworks.services.secrets import Reaction, reaction_to
from corral.frameworks.services.state import App, State, replace, task_id_of
from corral.frameworks.services.upkeep import app_of_instance, kill
from corral.runtime.core import CancelTimer, Effect, Note, Persist, Reply

MOST_TRAFFIC_APPS = 100_000


def command(state: State, ask: int, command: DiscoveryCommand, now: float) -> list[Effect]:
    """Answer one of discovery's commands."""
    match command:
        case GetRegistry(apps=apps):
            return [Reply(ask, view_registry(state, apps))]
        case WatchBalancer():
            return [Reply(ask), *_watch(state, command, now)]
        case Drained(balancer=balancer, instances=instances):
            return [Reply(ask), *_drain(state, balancer, instances, now)]
        case ReportTraffic(balancer=balancer, apps=apps, queues=queues):
            state.discovery.traffic[balancer] = {k: v for k, v in apps.items() if k in state.apps and v >= 0}
            state.discovery.queues[balancer] = {k: v for k, v in queues.items() if k in state.apps and v >= 0}
            return [Reply(ask)]
        case GetTraffic():
            return [Reply(ask, view_traffic(state))]
        case SecretChanged(source=source):
            return [Reply(ask), *_react(state, source, now)]


def view_traffic(state: State) -> dict[str, float]:
    """Units: requests a second. Shapes: apps that no balancer serves are not in it."""
    total: dict[str, float] = {}
    for measured in state.discovery.traffic.values():
        for app_id, rate in measured.items():
            total[app_id] = round(total.get(app_id, 0.0) + rate, 3)
    return dict(sorted(total.items()))


def _react(state: State, source: str, now: float) -> list[Effect]:
    """Replace the instances of apps that want to be when this value changes, and signal those of others."""
    effects: list[Effect] = []
    for app in state.visible_apps():
        reaction, signal = reaction_to(app.spec, source)
        if reaction is Reaction.SIGNAL:
            effects += signals.begin(state, app, signal, source, now)
        if reaction is not Reaction.RESTART:
            continue
        if app.spec.id in state.locks:
            why = f"{source} has changed while it is being deployed; restart it when that is done"
            effects.append(Note("app not restarted", why, "warning", {"app": app.spec.id}))
            continue
        change = Change(id=app.spec.id, spec=app.spec, restart=True)
        _, more = deploy(state, [change], force=False, why=f"{source} has changed", now=now)
        effects += more
    return effects


def _watch(state: State, command: WatchBalancer, now: float) -> list[Effect]:
    known = state.discovery
    if command.present:
        known.balancers[command.name] = command.groups
        why = f"it serves the groups {', '.join(command.groups) or 'none'}"
        return [Note("balancer follows", why, facts={"balancer": command.name})]
    known.balancers.pop(command.name, None)
    known.traffic.pop(command.name, None)
    known.queues.pop(command.name, None)
    effects: list[Effect] = [Note("balancer has left", "its connection ended", facts={"balancer": command.name})]
    # Nobody waits for one that is gone.
    for app in state.apps.values():
        for instance in [i for i in app.instances.values() if i.leave_at is not None]:
            effects += _release(state, app, instance, now)
    return effects


def _drain(state: State, balancer: str, instances: tuple[str, ...], now: float) -> list[Effect]:
    effects: list[Effect] = []
    for instance_id in instances:
        app = state.apps.get(app_of_instance(instance_id))
        instance = app.instances.get(instance_id) if app is not None else None
        if app is not None and instance is not None and instance.leave_at is not None:
            state.discovery.drained.setdefault(instance_id, set()).add(balancer)
            effects += _release(state, app, instance, now)
    return effects


def _release(state: State, app: App, instance: Instance, now: float) -> list[Effect]:
    return (
        end(state, app, instance, "no balancer has connections to it", now) if is_drained(state, app, instance) else []
    )


def leave_tick(state: State, instance_id: str, now: float) -> list[Effect]:
    """The time that the instance had for its connections is over."""
    app = state.apps.get(app_of_instance(instance_id))
    instance = app.instances.get(instance_id) if app is not None else None
    if app is None or instance is None or instance.leave_at is None:
        return []
    return end(state, app, instance, "its time to drain is over", now)


def end(state: State, app: App, instance: Instance, why: str, now: float) -> list[Effect]:
    """Kill an instance that was leaving."""
    assert instance.leaves
    state.discovery.drained.pop(instance.id, None)
    instance = replace(instance, leave_at=None)
    app.place(instance)
    state.watched[instance.id] = now + state.config.kill_retry_s
    facts = {"app": app.spec.id, "task": task_id_of(instance)}
    return [
        CancelTimer(LEAVE + instance.id),
        Persist(f"instance/{instance.id}", instance),
        Note("instance is drained", why, facts=facts),
        *kill(state, instance, app),
    ]
