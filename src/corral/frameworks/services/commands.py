"""What people ask for: apps made, changed, restarted and deleted, tasks killed, deployments cancelled.

Each function checks everything before it changes anything, so that a refused command leaves no trace.
Source: Marathon's contract, sections 7, 8, 14 and 16.
"""

from collections import Counter
from collections.abc import Sequence

from corral.frameworks.services import backoff
from corral.frameworks.services.app_spec import SPEC_FIELDS, AppSpec, Network
from corral.frameworks.services.command_spec import (
    AppUpdate,
    CancelDeployment,
    CreateApp,
    DeleteApp,
    KillTasks,
    ResetDelay,
    RestartApp,
    UpdateApps,
)
from corral.frameworks.services.deployments import Change, cancel, deploy, find_deployment, roll_back
from corral.frameworks.services.difference import view_plan
from corral.frameworks.services.events import tell, tell_posted
from corral.frameworks.services.offers import DELAY
from corral.frameworks.services.record_spec import Goal, Instance
from corral.frameworks.services.state import App, Phase, State, replace
from corral.frameworks.services.validate import parent_id
from corral.frameworks.services.views import view_app, view_tasks
from corral.lib.errors import Conflict, Invalid, NotFound, Stale, TooLarge, Unprocessable
from corral.runtime.core import CancelTimer, Effect, Note, Reply


def need_app(state: State, app_id: str) -> App:
    """Errors: `NotFound`."""
    app = state.visible(app_id)
    if app is None or app.spec.pod is not None:
        raise NotFound(f"App '{app_id}' does not exist")
    return app


def need_group(state: State, group_id: str) -> None:
    """Errors: `NotFound` for a group that is not there, and has nothing below it."""
    if group_id != "/" and group_id not in state.groups and not state.visible_apps(group_id):
        raise NotFound(f"Group '{group_id}' does not exist")


def need_pod(state: State, pod_id: str) -> App:
    """Errors: `NotFound`."""
    app = state.visible(pod_id)
    if app is None or app.spec.pod is None:
        raise NotFound(f"Pod '{pod_id}' does not exist")
    return app


def check_seen(state: State, app_id: str, seen: str | None) -> bool:
    """Whether the request names the version that the app still has, and so may take the place of its deployment.

    Shapes: `seen` None names none, `*` any. Errors: `Stale` when the app has another version meanwhile.
    """
    if seen is None:
        return False
    app = state.visible(app_id)
    if app is None or (seen != "*" and seen != app.record.version):
        found = "does not exist" if app is None else f"has the version {app.record.version}"
        raise Stale(f"App '{app_id}' {found}, and If-Match names {seen}; read it again and decide anew")
    return True


def create(state: State, ask: int, command: CreateApp, now: float) -> list[Effect]:
    """A new app. Errors: as `deploy`; `Conflict` when there is one of this name."""
    app_id = command.spec.id
    if state.visible(app_id) is not None:
        what, where = ("An app", "apps") if state.apps[app_id].spec.pod is None else ("A pod", "pods")
        raise Conflict(f"{what} with id [{app_id}] already exists; change it with PUT /v2/{where}{app_id}")
    changes = read_changes(state, command)
    room = _make_room(state, app_id)
    result, effects = deploy(
        state, changes, force=command.force, why=f"create app {app_id}", now=now, groups=room, policy=command.policy
    )
    value = view_app(state, state.apps[app_id], ("tasks", "deployments", "counts"), now)
    if command.spec.pod is not None:
        tell(state, "pod_created_event", clientIp=command.client, uri=command.uri)
    else:
        tell_posted(state, state.apps[app_id], command.client, command.uri)
    return [*effects, *note_ignored(app_id, command.ignored), Reply(ask, (result, value))]


def note_ignored(app_id: str, ignored: Sequence[str]) -> list[Effect]:
    """Say which fields of the request nobody understood."""
    if not ignored:
        return []
    return [Note("fields ignored", f"nobody knows {', '.join(ignored[:10])}", facts={"app": app_id})]


def _make_room(state: State, app_id: str) -> dict[str, None]:
    """Whether an app may be where it wants to be, and the groups that go for it: an empty one of its name makes room.

    Errors: `Unprocessable` when a group or an app stands there.
    """
    above = parent_id(app_id)
    while above != "/":
        if state.visible(above) is not None:
            raise Unprocessable(
                "Object is not valid", {"/id": [f"{above} is an app, so nothing can be below it; choose another id"]}
            )
        above = parent_id(above)
    if app_id not in state.groups:
        return {}
    if state.visible_apps(app_id):
        raise Unprocessable("Object is not valid", {"/id": [f"{app_id} is a group with apps in it; choose another id"]})
    prefix = app_id + "/"
    return {g: None for g in state.groups if g == app_id or g.startswith(prefix)}


def read_changes(state: State, command: CreateApp | UpdateApps) -> list[Change]:
    """What is to become of each app. Errors: `NotFound`, `Conflict`."""
    if isinstance(command, CreateApp):
        return [Change(id=command.spec.id, spec=command.spec)]
    return [_change_of(state, u, command) for u in command.updates]


def update(state: State, ask: int, command: UpdateApps, now: float) -> list[Effect]:
    """One app or several, changed in one deployment.

    Errors: as `deploy`; `NotFound` for an unknown app that may not be made, or for an unknown version.
    """
    if len(command.updates) > state.config.most_apps_per_request:
        most = state.config.most_apps_per_request
        raise TooLarge(f"{len(command.updates)} apps in one request, at most {most} are taken; send them in parts")
    changes = read_changes(state, command)
    created = [c.id for c in changes if state.visible(c.id) is None]
    room: dict[str, None] = {}
    for app_id in created:
        room |= _make_room(state, app_id)
    _check_siblings(changes)
    if command.dry_run:
        return [Reply(ask, view_plan(state, changes, room, command.ignored, force=command.force))]
    why = f"update {', '.join(c.id for c in changes[:5])}"
    force = command.force or (len(changes) == 1 and check_seen(state, changes[0].id, command.seen))
    result, effects = deploy(state, changes, force=force, why=why, now=now, groups=room, policy=command.policy)
    for change in changes:
        if command.pod:
            tell(state, "pod_updated_event", clientIp=command.client, uri=command.uri)
        else:
            tell_posted(state, state.apps[change.id], command.client, command.uri)
    if command.single and created:
        result = replace(result, created=True, id=created[0])
    noted = note_ignored(", ".join(c.id for c in changes[:5]), command.ignored)
    return [*effects, *noted, Reply(ask, result)]


def _check_siblings(changes: Sequence[Change]) -> None:
    ids = {c.id for c in changes}
    for app_id in ids:
        above = parent_id(app_id)
        while above != "/":
            if above in ids:
                raise Unprocessable("Object is not valid", {"/id": [f"{app_id} would be below the app {above}"]})
            above = parent_id(above)


def _change_of(state: State, update: AppUpdate, command: UpdateApps) -> Change:
    app = state.visible(update.id)
    if app is not None and (app.spec.pod is not None) is not command.pod:
        is_pod = "an app" if command.pod else "a pod"
        raise Conflict(f"{update.id} is {is_pod} already; an app and a pod may not share one id, choose another")
    if update.to_version is not None:
        return _back_to(state, update.id, update.to_version)
    if app is None:
        if not command.create:
            raise NotFound(f"{'Pod' if command.pod else 'App'} '{update.id}' does not exist")
        return Change(id=update.id, spec=update.spec)
    spec = merge(app.spec, update) if command.partial else update.spec
    return Change(id=update.id, spec=spec)


def _back_to(state: State, app_id: str, version: str) -> Change:
    app = need_app(state, app_id)
    if version == app.record.version:
        return Change(id=app_id, spec=app.spec)
    old = state.versions.get(app_id, {}).get(version)
    if old is None:
        raise NotFound(f"App '{app_id}' has no version {version}; see /v2/apps{app_id}/versions")
    return Change(id=app_id, spec=old.spec, config=old.config)


def merge(spec: AppSpec, update: AppUpdate) -> AppSpec:
    """The app with the fields that the update gives; nested objects are replaced whole.

    When the network mode changes, ports of the other mode's form go unless they are given anew.
    """
    changes = {f: getattr(update.spec, f) for f in update.given if f in SPEC_FIELDS and f != "id"}
    merged: AppSpec = replace(spec, **changes)
    if merged.network is Network.HOST:
        container = merged.container
        if "container" not in changes and container is not None and container.port_mappings is not None:
            merged = replace(merged, container=replace(container, port_mappings=None))
    elif "port_definitions" not in changes and merged.port_definitions is not None:
        merged = replace(merged, port_definitions=None)
    return merged


def delete(state: State, ask: int, command: DeleteApp, now: float) -> list[Effect]:
    """The app is gone at once for everybody who asks; its instances end. Errors: `NotFound`, as `deploy`."""
    (need_pod if command.pod else need_app)(state, command.id)
    change = Change(id=command.id, spec=None)
    force = command.force | check_seen(state, command.id, command.seen)
    result, effects = deploy(state, [change], force=force, why=f"delete app {command.id}", now=now)
    if command.pod:
        tell(state, "pod_deleted_event", clientIp=command.client, uri=command.uri)
    return [*effects, Reply(ask, result)]


def restart(state: State, ask: int, command: RestartApp, now: float) -> list[Effect]:
    """Replace every instance within the app's upgrade strategy. Errors: `NotFound`, as `deploy`."""
    app = need_app(state, command.id)
    change = Change(id=command.id, spec=app.spec, restart=True)
    force = command.force | check_seen(state, command.id, command.seen)
    why = f"restart app {command.id}"
    result, effects = deploy(state, [change], force=force, why=why, now=now, policy=command.policy)
    return [*effects, Reply(ask, result)]


def kill_tasks(state: State, ask: int, command: KillTasks, now: float) -> list[Effect]:
    """End tasks; without `scale` they are replaced. The answer does not wait for their death.

    Errors: `Invalid` for scale with wipe; `NotFound` for an app, or with `strict` a task, that is not there.
    """
    if command.scale and command.wipe:
        raise Invalid("You cannot use scale and wipe at the same time; choose one")
    victims = read_victims(state, command)
    shown = view_tasks(state, victims)
    if command.scale:
        return _kill_and_scale(state, ask, command, victims, now)
    for _, instance in victims:
        state.sentenced[instance.id] = "somebody asked for its end" + (" and its volumes" if command.wipe else "")
        if command.wipe:
            state.wiped.add(instance.id)
    return [Reply(ask, shown)]


def read_victims(state: State, command: KillTasks) -> list[tuple[App, Instance]]:
    """The instances that the command means. Errors: `NotFound`."""
    if command.app is not None:
        app = need_app(state, command.app)
        chosen = list(app.instances.values())
        if command.instances is not None:
            chosen = [app.instances[i] for i in command.instances if i in app.instances]
            chosen = [i for i in chosen if _is_meant(i, command)]
            if command.strict and not chosen:
                raise NotFound(f"Task '{', '.join(command.instances)}' does not exist")
        if command.host is not None and command.host != "*":
            chosen = [i for i in chosen if i.hostname == command.host]
        return [(app, i) for i in chosen if _has_task(i)]
    found: list[tuple[App, Instance]] = []
    for instance_id in dict.fromkeys(command.instances or ()):
        owner = next((a for a in _candidates(state, instance_id) if instance_id in a.instances), None)
        if owner is not None:
            instance = owner.instances[instance_id]
            if _has_task(instance) and _is_meant(instance, command):
                found.append((owner, instance))
    return found


def _is_meant(instance: Instance, command: KillTasks) -> bool:
    """Whether the task that was named is the present launch of its instance, and not one that ended before."""
    return command.incarnations.get(instance.id, instance.incarnation) == instance.incarnation


def _candidates(state: State, instance_id: str) -> list[App]:
    app = state.visible("/" + instance_id.rpartition(".instance-")[0].replace("_", "/"))
    return [app] if app is not None else []


def _has_task(instance: Instance) -> bool:
    # One that waits for its volumes has no task and can be wiped all the same.
    return (instance.staged_at is not None or instance.kept) and instance.goal is Goal.RUNNING


def _kill_and_scale(
    state: State, ask: int, command: KillTasks, victims: list[tuple[App, Instance]], now: float
) -> list[Effect]:
    if not victims:
        raise NotFound("None of the tasks to kill is there; nothing was scaled")
    fewer: Counter[str] = Counter(app.spec.id for app, _ in victims)
    changes = [
        Change(
            id=app_id, spec=replace(state.apps[app_id].spec, instances=max(0, state.apps[app_id].spec.instances - n))
        )
        for app_id, n in sorted(fewer.items())
    ]
    why = f"kill {len(victims)} tasks and scale down by them"
    result, effects = deploy(state, changes, force=command.force, why=why, now=now)
    for _, instance in victims:
        state.sentenced[instance.id] = "it was killed with scale"
    return [*effects, Reply(ask, result)]


def reset_delay(state: State, ask: int, command: ResetDelay, now: float) -> list[Effect]:
    """Launch at once, whatever failed before. Errors: `NotFound` when nothing of the app waits."""
    app = state.visible(command.id)
    waits = app is not None and (app.count(Phase.SCHEDULED) > 0 or backoff.is_delayed(app, now))
    if app is None or not waits:
        raise NotFound(f"application {command.id} not found in tasks queue")
    backoff.forget(app)
    state.nodes.forget(app.spec.id)
    state.restless[command.id] = None
    return [CancelTimer(DELAY + command.id), Reply(ask, None)]


def cancel_deployment(state: State, ask: int, command: CancelDeployment, now: float) -> list[Effect]:
    """With force it just ends; without, what it changed is undone by a new one. Errors: `NotFound`."""
    find_deployment(state, command.id)
    if command.force:
        effects: list[Effect] = []
        cancel(state, command.id, "somebody cancelled it by force", effects, now)
        return [*effects, Reply(ask, None)]
    result, effects = roll_back(state, command.id, now)
    return [*effects, Reply(ask, result)]
