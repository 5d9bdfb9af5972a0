"""From a change of apps to a deployment: checked whole, then taken on, then driven by `upkeep`.

One deployment holds the locks of all apps in its steps. Everything that may be refused is refused before anything
changes. Source: Marathon's contract, sections 7 and 8.
"""

from collections.abc import Iterable, Sequence

import msgspec

from corral.frameworks.services import backoff
from corral.frameworks.services.events import tell_cancelled, tell_group, tell_step
from corral.frameworks.services.health import tell_checks
from corral.frameworks.services.plan import AppChange, changed_fields, plan_deployment
from corral.frameworks.services.spec import (
    AppRecord,
    AppSpec,
    Deployment,
    GroupRecord,
    Original,
    Result,
    VersionRecord,
)
from corral.frameworks.services.state import App, Phase, State, replace, superseded
from corral.frameworks.services.upkeep import end_deployment, release_ports, take_ports
from corral.frameworks.services.validate import assign_service_ports, check_app, complete, parent_id
from corral.lib.errors import Conflict, Forbidden, NotFound
from corral.lib.ids import mint_uuid
from corral.runtime.core import Effect, Note, Persist


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What is to become of one app. Shapes: `spec` None deletes it; `config` names the definition when it is an old one
    coming back; `restart` replaces all instances even if nothing changed."""

    id: str
    spec: AppSpec | None
    restart: bool = False
    config: str | None = None


def deploy(
    state: State, changes: Sequence[Change], *, force: bool, why: str, now: float
) -> tuple[Result, list[Effect]]:
    """Take on the changes and start on their deployment.

    Shapes: nothing happens when nothing changes, and the result names the version that stays.
    Errors: `Unprocessable`, `Conflict` when another deployment holds an app, `Forbidden` at the cap of deployments.
    """
    changes = [_completed(state, change) for change in changes]
    steps = plan_deployment([_describe(state, c) for c in changes], _Graph(state, changes))
    affected = {action.app for step in steps for action in step}
    blockers = sorted({state.locks[a] for a in affected if a in state.locks})
    if blockers and not force:
        raise Conflict(
            "App is locked by one or more deployments. Override with the option 'force=true'; "
            "view details at '/v2/deployments/<DEPLOYMENT_ID>'",
            tuple(blockers),
        )
    if steps and len(state.deployments) - len(blockers) >= state.config.most_deployments:
        raise Forbidden(
            f"{len(state.deployments)} deployments are under way and {state.config.most_deployments} may be; "
            "wait for one to end or cancel one"
        )
    deployment_id = mint_uuid(state.random)
    if not steps:
        app = state.apps.get(changes[0].id) if changes else None
        version = app.record.version if app is not None else state.mint_version(now)
        return Result(version=version, deployment_id=deployment_id), []
    effects: list[Effect] = []
    for blocker in blockers:
        cancel(state, blocker, f"deployment {deployment_id} took its place by force", effects)
    version = state.mint_version(now)
    originals = tuple(_original(state, a) for a in sorted(affected))
    for change in changes:
        if change.id in affected:
            _take_on(state, change, version, effects, now)
    deployment = Deployment(id=deployment_id, version=version, steps=steps, originals=originals, step_at=now)
    state.deployments[deployment_id] = deployment
    state.done[deployment_id] = set()
    state.locks.update(dict.fromkeys(deployment.apps, deployment_id))
    state.touch(deployment.apps)
    effects.append(Persist(f"deployment/{deployment_id}", deployment))
    facts = {"deployment": deployment_id, "apps": list(deployment.apps), "steps": len(steps)}
    effects.append(Note("deployment started", why, facts=facts))
    tell_group(state, parent_id(changes[0].id) if len(changes) == 1 else "/", version)
    tell_step(state, deployment)
    return Result(version=version, deployment_id=deployment_id), effects


def _completed(state: State, change: Change) -> Change:
    if change.spec is None:
        return change
    check_app(change.spec, state.config)
    spec = complete(change.spec, state.config)
    check_app(spec, state.config)
    app = state.visible(change.id)
    spec = assign_service_ports(spec, app.spec if app is not None else None, state.service_ports, state.config)
    return replace(change, spec=spec)


def _describe(state: State, change: Change) -> AppChange:
    app = state.visible(change.id)
    there = state.apps.get(change.id)
    outdated = there is not None and any(
        bucket for phase, bucket in zip(Phase, there.outdated, strict=True) if phase is not Phase.LEAVING
    )
    if app is None and there is not None:
        # Instances of the deleted app of this name that still run are replaced like outdated ones.
        outdated = there.counted > 0
    return AppChange(
        id=change.id,
        old=app.spec if app is not None else None,
        new=change.spec,
        restart=change.restart,
        outdated=outdated,
    )


class _Graph:
    """Whom an app waits for, once the changes are made."""

    def __init__(self, state: State, changes: Sequence[Change]) -> None:
        self._state = state
        self._changed = {c.id: c.spec for c in changes}

    def _spec(self, app_id: str) -> AppSpec | None:
        if app_id in self._changed:
            return self._changed[app_id]
        app = self._state.visible(app_id)
        return app.spec if app is not None else None

    def __call__(self, app_id: str) -> Iterable[str]:
        spec = self._spec(app_id)
        found: dict[str, None] = {}
        for target in spec.dependencies if spec is not None else ():
            if self._spec(target) is not None:
                found[target] = None
                continue
            prefix = target.rstrip("/") + "/"
            candidates = {*self._state.apps, *self._changed}
            for other in sorted(candidates):
                if other.startswith(prefix) and other != app_id and self._spec(other) is not None:
                    found[other] = None
        return found


def _original(state: State, app_id: str) -> Original:
    app = state.visible(app_id)
    return Original(app=app_id, record=app.record if app is not None else None)


def _take_on(state: State, change: Change, version: str, effects: list[Effect], now: float) -> None:
    """Write the new wanted state of one app and keep the old one as a version."""
    app = state.apps.get(change.id)
    if change.spec is None:
        assert app is not None
        record = replace(app.record, stopping=True)
        app.adopt(record)
        backoff.forget(app)
        effects.append(Persist(f"app{change.id}", record))
        return
    spec = change.spec
    tell_checks(state, app.spec if app is not None else None, spec, version)
    if app is None or app.record.stopping:
        config = change.config or version
        record = AppRecord(spec=spec, version=version, config=config, scaled_at=version, configured_at=version)
    else:
        old = app.record
        scaling = changed_fields(old.spec, spec) <= {"instances"} and not change.restart
        record = AppRecord(
            spec=spec,
            version=version,
            config=old.config if scaling else change.config or version,
            scaled_at=version,
            configured_at=old.configured_at if scaling else version,
        )
        if change.restart and old.spec == spec:
            record = replace(record, scaled_at=old.scaled_at)
        _keep_version(state, superseded(old), effects)
    if app is None:
        app = state.apps[change.id] = App(record, now)
        _make_groups(state, parent_id(change.id), version, effects)
    else:
        release_ports(state, app)
        if record.config != app.record.config:
            backoff.forget(app)
        app.adopt(record)
    take_ports(state, app)
    state.restless[change.id] = None
    effects.append(Persist(f"app{change.id}", record))


def _keep_version(state: State, record: VersionRecord, effects: list[Effect]) -> None:
    app_id = record.spec.id
    kept = state.versions.setdefault(app_id, {})
    kept[record.version] = record
    effects.append(Persist(f"version{app_id}@{record.version}", record))
    while len(kept) >= state.config.most_versions:
        oldest = min(kept)
        del kept[oldest]
        effects.append(Persist(f"version{app_id}@{oldest}", None))


def _make_groups(state: State, group_id: str, version: str, effects: list[Effect]) -> None:
    while group_id != "/" and group_id not in state.groups:
        state.groups[group_id] = GroupRecord(id=group_id, version=version)
        effects.append(Persist(f"group{group_id}", state.groups[group_id]))
        group_id = parent_id(group_id)


def cancel(state: State, deployment_id: str, why: str, effects: list[Effect]) -> None:
    """Stop working on it; apps and tasks stay as they are."""
    deployment = state.deployments[deployment_id]
    tell_cancelled(state, deployment, why)
    end_deployment(state, deployment, effects)
    facts = {"deployment": deployment_id, "apps": list(deployment.apps), "step": deployment.step + 1}
    effects.append(Note("deployment cancelled", why, facts=facts))


def roll_back(state: State, deployment_id: str, now: float) -> tuple[Result, list[Effect]]:
    """Undo what this deployment alone changed, by a new one that takes its place.

    Errors: `NotFound`.
    """
    deployment = find_deployment(state, deployment_id)
    changes: list[Change] = []
    for original in deployment.originals:
        record = original.record
        if record is not None:
            changes.append(Change(id=original.app, spec=record.spec, config=record.config))
        elif state.visible(original.app) is not None:
            changes.append(Change(id=original.app, spec=None))
    result, effects = deploy(state, changes, force=True, why=f"undo deployment {deployment_id}", now=now)
    if deployment_id in state.deployments:
        # Nothing had changed yet that would have to change back.
        cancel(state, deployment_id, "it was asked to be undone", effects)
    return result, effects


def find_deployment(state: State, deployment_id: str) -> Deployment:
    """Errors: `NotFound`."""
    deployment = state.deployments.get(deployment_id)
    if deployment is None:
        raise NotFound(f"Deployment {deployment_id} does not exist; see /v2/deployments for those under way")
    return deployment
