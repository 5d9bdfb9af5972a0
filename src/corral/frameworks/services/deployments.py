"""From a change of apps to a deployment: checked whole, then taken on, then driven by `upkeep`.

One deployment holds the locks of all apps in its steps. Everything that may be refused is refused before anything
changes. Source: Marathon's contract, sections 7 and 8.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import msgspec

from corral.frameworks.services import backoff
from corral.frameworks.services.app_spec import AppSpec
from corral.frameworks.services.command_spec import Result
from corral.frameworks.services.events import tell_cancelled, tell_group, tell_step
from corral.frameworks.services.health import tell_checks
from corral.frameworks.services.history import remember
from corral.frameworks.services.pace import read_policy_labels
from corral.frameworks.services.plan import AppChange, chain_lengths, changed_fields, plan_deployment
from corral.frameworks.services.pod_dialect import check_pod
from corral.frameworks.services.pod_networks import name_networks
from corral.frameworks.services.record_spec import (
    Action,
    AppRecord,
    Deployment,
    GroupRecord,
    Original,
    OriginalGroup,
    Outcome,
    Policy,
    VersionRecord,
)
from corral.frameworks.services.residency import find_changed
from corral.frameworks.services.roles import NO_GROUPS, Groups, differs, give_role, make_group
from corral.frameworks.services.state import App, Phase, State, replace, superseded
from corral.frameworks.services.upkeep import count_in, count_out, end_deployment
from corral.frameworks.services.validate import assign_service_ports, check_app, complete, parent_id
from corral.lib.errors import Conflict, Forbidden, NotFound, Unprocessable
from corral.lib.ids import mint_uuid
from corral.runtime.core import Effect, Note, Persist


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What is to become of one app. Shapes: `spec` None deletes it; `config` names the definition when it is an old one
    coming back; `restart` replaces all instances even if nothing changed."""

    id: str
    spec: AppSpec | None
    restart: bool = False
    config: str | None = None


def plan_changes(
    state: State, changes: Sequence[Change], groups: Groups, *, force: bool = False
) -> tuple[list[Change], tuple[tuple[Action, ...], ...]]:
    """The changes with all that is filled in, and the steps they take.

    Shapes: with `force` the role of an app with volumes may change. Errors: `Unprocessable`.
    """
    taken = state.service_ports if len(changes) == 1 else Counter(state.service_ports)
    given = [_with_role(state, change, groups, several=len(changes) > 1) for change in changes]
    changes = [_completed(state, change, taken, several=len(changes) > 1, force=force) for change in given]
    graph = _Graph(state, changes, groups)
    if any(record is not None and record.dependencies for record in groups.values()):
        # Who waits for whom has changed for apps that themselves have not.
        chain_lengths(graph.apps(), graph)
    return changes, plan_deployment([_describe(state, c) for c in changes], graph)


def deploy(
    state: State,
    changes: Sequence[Change],
    *,
    force: bool,
    why: str,
    now: float,
    groups: Groups = NO_GROUPS,
    at: str | None = None,
    policy: Policy | None = None,
    undoes: str = "",
) -> tuple[Result, list[Effect]]:
    """Take on the changes and start on their deployment.

    Shapes: nothing happens when nothing changes, and the result names the version that stays; `groups` that differ
    from what they are change too, `at` is the group that was addressed.
    Errors: `Unprocessable`, `Conflict` when another deployment holds an app, `Forbidden` at the cap of deployments.
    """
    if at is None:
        at = parent_id(changes[0].id) if len(changes) == 1 else "/"
    changes, steps = plan_changes(state, changes, groups, force=force)
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
    effects: list[Effect] = []
    if not steps:
        return Result(
            version=_settle_groups(state, changes, groups, at, effects, now), deployment_id=deployment_id
        ), effects
    for blocker in blockers:
        taken = f"deployment {deployment_id} took its place by force"
        if blocker == undoes:
            taken = f"it failed and is undone by deployment {deployment_id}: {why}"
        outcome = Outcome.REVERTED if blocker == undoes else Outcome.CANCELLED
        cancel(state, blocker, taken, effects, now, outcome=outcome, successor=deployment_id)
    version = state.mint_version(now)
    originals = tuple(_original(state, a) for a in sorted(affected))
    if policy is None:
        policy = read_policy_labels([c.spec.labels for c in changes if c.spec is not None and c.id in affected])
    touched = _take_on_groups(state, groups, version, effects)
    for change in changes:
        if change.id in affected:
            _take_on(state, change, version, effects, touched, now)
    deployment = Deployment(
        id=deployment_id,
        version=version,
        steps=steps,
        originals=originals,
        step_at=now,
        groups=tuple(OriginalGroup(group=g, record=record) for g, record in sorted(touched.items())),
        policy=policy,
        paused=policy.paused,
        share=0 if policy.blue_green else None,
        undoes=undoes,
    )
    remember(state, version, originals, deployment.groups, effects)
    state.deployments[deployment_id] = deployment
    state.done[deployment_id] = set()
    state.locks.update(dict.fromkeys(deployment.apps, deployment_id))
    state.touch(deployment.apps)
    effects.append(Persist(f"deployment/{deployment_id}", deployment))
    facts = {"deployment": deployment_id, "apps": list(deployment.apps), "steps": len(steps)}
    effects.append(Note("deployment started", why, facts=facts))
    tell_group(state, at, version)
    tell_step(state, deployment)
    return Result(version=version, deployment_id=deployment_id), effects


def _with_role(state: State, change: Change, groups: Groups, *, several: bool) -> Change:
    """Shapes: an old definition that comes back comes in the role that it had."""
    if change.spec is None or change.config is not None:
        return change
    try:
        return replace(change, spec=give_role(state, change.spec, groups))
    except Unprocessable as error:
        raise _named(change, error) if several else error from None


def _named(change: Change, error: Unprocessable) -> Unprocessable:
    """The error with the app's id before each text."""
    named = {path: [f"app {change.id}: {text}" for text in texts] for path, texts in error.details.items()}
    return Unprocessable(error.message, named)


def _completed(state: State, change: Change, taken: Counter[int], *, several: bool, force: bool) -> Change:
    """Shapes: `taken` are the service ports of all apps, those of the changes before this one included."""
    if change.spec is None:
        return change
    if change.spec.pod is not None:
        spec = name_networks(change.spec, state.config)
        check_pod(spec, state.config)
        return replace(change, spec=spec)
    try:
        check_app(change.spec, state.config)
        spec = complete(change.spec, state.config)
        check_app(spec, state.config)
    except Unprocessable as error:
        raise _named(change, error) if several else error from None
    app = state.visible(change.id)
    changed = find_changed(app.spec, spec, force=force) if app is not None else {}
    changed |= _find_taken(state, spec)
    if changed:
        raise Unprocessable("Object is not valid", changed)
    spec = assign_service_ports(spec, app.spec if app is not None else None, taken, state.config)
    if several:
        taken.update(p for p in spec.service_ports if p)
    return replace(change, spec=spec)


def _find_taken(state: State, spec: AppSpec) -> dict[str, list[str]]:
    """External volumes that another app has for itself, by path."""
    own = {v.name: v.shared for v in spec.external_volumes}
    if not own:
        return {}
    found: dict[str, list[str]] = {}
    for app in state.visible_apps():
        for volume in app.spec.external_volumes if app.spec.id != spec.id else ():
            if volume.name in own and not (volume.shared and own[volume.name]):
                text = f"volume {volume.name} is that of app {app.spec.id}; choose another name, or share it in both"
                found.setdefault("/container/volumes", []).append(text)
    return found


def _describe(state: State, change: Change) -> AppChange:
    app = state.visible(change.id)
    there = state.apps.get(change.id)
    outdated = there is not None and any(
        bucket
        for phase, bucket in zip(Phase, there.outdated, strict=True)
        if phase not in (Phase.LEAVING, Phase.STOPPED)
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

    def __init__(self, state: State, changes: Sequence[Change], groups: Groups) -> None:
        self._state = state
        self._changed = {c.id: c.spec for c in changes}
        self._groups = groups
        self._apps: list[str] | None = None

    def apps(self) -> list[str]:
        """All apps there are once the changes are made, sorted."""
        if self._apps is None:
            self._apps = sorted(a for a in {*self._state.apps, *self._changed} if self._spec(a) is not None)
        return self._apps

    def _targets(self, app_id: str, spec: AppSpec) -> Iterator[str]:
        """What the app names itself, and what the groups above it name for all in them."""
        yield from spec.dependencies
        above = parent_id(app_id)
        while above != "/":
            record = self._groups[above] if above in self._groups else self._state.groups.get(above)
            yield from record.dependencies if record is not None else ()
            above = parent_id(above)

    def _spec(self, app_id: str) -> AppSpec | None:
        if app_id in self._changed:
            return self._changed[app_id]
        app = self._state.visible(app_id)
        return app.spec if app is not None else None

    def __call__(self, app_id: str) -> Iterable[str]:
        spec = self._spec(app_id)
        found: dict[str, None] = {}
        for target in self._targets(app_id, spec) if spec is not None else ():
            if self._spec(target) is not None:
                found[target] = None
                continue
            prefix = target.rstrip("/") + "/"
            apps = self.apps()
            for other in islice(apps, bisect_left(apps, prefix), None):
                if not other.startswith(prefix):
                    break
                if other != app_id:
                    found[other] = None
        return found


def _original(state: State, app_id: str) -> Original:
    app = state.visible(app_id)
    return Original(app=app_id, record=app.record if app is not None else None)


Touched = dict[str, GroupRecord | None]
"""Groups that were made, changed or removed, to what they were."""


def _settle_groups(
    state: State, changes: Sequence[Change], groups: Groups, at: str, effects: list[Effect], now: float
) -> str:
    """Change groups where no app has to change; returns the version that counts then."""
    last_version_at = state.last_version_at
    version = state.mint_version(now)
    touched = _take_on_groups(state, groups, version, effects)
    if touched:
        was = tuple(OriginalGroup(group=g, record=record) for g, record in sorted(touched.items()))
        remember(state, version, (), was, effects)
        tell_group(state, at, version)
        return version
    app = state.apps.get(changes[0].id) if changes else None
    group = state.groups.get(at)
    if app is None and group is None:
        return version
    state.last_version_at = last_version_at
    return app.record.version if app is not None else group.version if group is not None else version


def _take_on_groups(state: State, groups: Groups, version: str, effects: list[Effect]) -> Touched:
    touched: Touched = {}
    for group_id, record in groups.items():
        if not differs(record, state.groups.get(group_id)):
            continue
        new = None if record is None else replace(record, version=version)
        _put_group(state, group_id, new, touched, effects)
        if new is not None:
            _make_groups(state, parent_id(group_id), version, effects, touched)
    return touched


def _put_group(
    state: State, group_id: str, record: GroupRecord | None, touched: Touched, effects: list[Effect]
) -> None:
    touched.setdefault(group_id, state.groups.get(group_id))
    if record is None:
        state.groups.pop(group_id, None)
    else:
        state.groups[group_id] = record
    effects.append(Persist(f"group{group_id}", record))


def _take_on(state: State, change: Change, version: str, effects: list[Effect], touched: Touched, now: float) -> None:
    """Write the new wanted state of one app and keep the old one as a version."""
    app = state.apps.get(change.id)
    if change.spec is None:
        assert app is not None
        record = replace(app.record, stopping=True)
        app.adopt(record)
        tell_checks(state, app.spec, None, version)
        backoff.forget(app)
        state.nodes.forget(app.spec.id)
        effects.append(Persist(f"app{change.id}", record))
        return
    spec = change.spec
    tell_checks(state, app.spec if app is not None and not app.record.stopping else None, spec, version)
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
    _make_groups(state, parent_id(change.id), version, effects, touched)
    if app is None:
        app = state.apps[change.id] = App(record, now)
    else:
        count_out(state, app)
        if record.config != app.record.config:
            backoff.forget(app)
            state.nodes.forget(app.spec.id)
        app.adopt(record)
    count_in(state, app)
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


def _make_groups(state: State, group_id: str, version: str, effects: list[Effect], touched: Touched) -> None:
    while group_id != "/" and group_id not in state.groups:
        _put_group(state, group_id, make_group(state, group_id, version), touched, effects)
        group_id = parent_id(group_id)


def cancel(
    state: State, deployment_id: str, why: str, effects: list[Effect], now: float,
    outcome: Outcome = Outcome.CANCELLED, successor: str = "",
) -> None:  # fmt: skip
    """Stop working on it; apps and tasks stay as they are."""
    deployment = state.deployments[deployment_id]
    tell_cancelled(state, deployment, why)
    end_deployment(state, deployment, effects, outcome, why, now, successor)
    facts = {"deployment": deployment_id, "apps": list(deployment.apps), "step": deployment.step + 1}
    effects.append(Note("deployment cancelled", why, facts=facts))


def roll_back(state: State, deployment_id: str, now: float, failed: str = "") -> tuple[Result, list[Effect]]:
    """Undo what this deployment alone changed, by a new one that takes its place.

    Shapes: with `failed`, which says why, nobody asked for it. Errors: `NotFound`.
    """
    deployment = find_deployment(state, deployment_id)
    changes: list[Change] = []
    for original in deployment.originals:
        record = original.record
        if record is not None:
            changes.append(Change(id=original.app, spec=record.spec, config=record.config))
        elif state.visible(original.app) is not None:
            changes.append(Change(id=original.app, spec=None))
    groups = _groups_before(state, deployment, changes)
    why = failed or f"undo deployment {deployment_id}"
    # What failed once may fail again on its way back, and is not undone a second time.
    policy = Policy(deadline_s=deployment.policy.deadline_s if failed else 0.0)
    result, effects = deploy(
        state, changes, force=True, why=why, now=now, groups=groups, at="/", policy=policy,
        undoes=deployment_id if failed else "",
    )  # fmt: skip
    if deployment_id in state.deployments:
        # Nothing had changed yet that would have to change back.
        outcome = Outcome.FAILED if failed else Outcome.CANCELLED
        cancel(state, deployment_id, failed or "it was asked to be undone", effects, now, outcome=outcome)
    return result, effects


def _groups_before(state: State, deployment: Deployment, changes: Sequence[Change]) -> Groups:
    """The groups as they were; one that the deployment made goes only when nothing is left in it."""
    found: dict[str, GroupRecord | None] = {}
    leaving = {c.id for c in changes if c.spec is None}
    for original in sorted(deployment.groups, key=lambda o: -len(o.group)):
        group_id, record = original.group, original.record
        if record is not None:
            found[group_id] = record
            continue
        prefix = group_id + "/"
        below = [g for g in state.groups if g.startswith(prefix) and found.get(g, state.groups[g]) is not None]
        if not below and all(app.spec.id in leaving for app in state.visible_apps(group_id)):
            found[group_id] = None
    return found


def find_deployment(state: State, deployment_id: str) -> Deployment:
    """Errors: `NotFound`."""
    deployment = state.deployments.get(deployment_id)
    if deployment is None:
        raise NotFound(f"Deployment {deployment_id} does not exist; see /v2/deployments for those under way")
    return deployment
