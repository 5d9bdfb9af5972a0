"""Who may change what: a caller that is bound to roles needs those of every app that a command would change.

Rules: an app belongs to the role it is launched in, both as it is and as it would be. A group belongs to the role of
the group at the top, and to whoever holds the framework's own roles. Whatever else can be changed belongs to these.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from corral.frameworks.services.app_spec import AppSpec
from corral.frameworks.services.command_spec import (
    Bound,
    CancelDeployment,
    Command,
    CreateApp,
    CreateGroup,
    DeleteApp,
    DeleteGroup,
    KillPod,
    KillTasks,
    PatchGroup,
    PauseDeployment,
    PromoteDeployment,
    ResetDelay,
    RestartApp,
    UpdateApps,
    UpdateGroup,
)
from corral.frameworks.services.commands import read_changes, read_victims
from corral.frameworks.services.deployments import Change, find_deployment, plan_changes
from corral.frameworks.services.groups import read_deletion, read_update
from corral.frameworks.services.role_spec import needed_roles, top_group
from corral.frameworks.services.roles import NO_GROUPS, Groups, differs
from corral.frameworks.services.scaling_spec import Push, Resize, SetScaling
from corral.frameworks.services.state import State
from corral.lib.errors import Forbidden
from corral.net.auth import Caller
from corral.sdk.rights import check_roles, holds


def check(state: State, asked: Bound) -> None:
    """Errors: `Forbidden` names what is of a role that the caller does not hold; else as the command itself."""
    caller, command = asked.caller, asked.command
    match command:
        case CreateApp() | UpdateApps():
            _check_changes(state, caller, read_changes(state, command), NO_GROUPS, force=command.force)
        case CreateGroup() | UpdateGroup():
            _check_changes(state, caller, *read_update(state, command), force=command.force)
        case DeleteGroup():
            _check_changes(state, caller, *read_deletion(state, command), force=command.force)
        case PatchGroup():
            _check_group(state, caller, command.id)
        case _:
            specs = _list_apps(state, command)
            if specs is None:
                check_roles(caller, state.own_roles, f"what {state.config.name} runs")
            for spec in specs or ():
                _check_app(state, caller, spec)


def _list_apps(state: State, command: Command) -> Iterator[AppSpec] | None:
    """The apps that the command is about; None when it is not about apps."""
    match command:
        case DeleteApp() | RestartApp() | Resize():
            return chain(_find(state, command.id), _list_blocked(state, [command.id]))
        case ResetDelay() | KillPod() | SetScaling() | Push():
            return _find(state, command.id)
        case KillTasks():
            specs = [app.spec for app, _ in read_victims(state, command)]
            return chain(specs, _list_blocked(state, [spec.id for spec in specs]) if command.scale else ())
        case PauseDeployment() | PromoteDeployment() | CancelDeployment():
            return _list_deployed(state, command.id)
        case _:
            return None


def _find(state: State, app_id: str) -> Iterator[AppSpec]:
    app = state.visible(app_id)
    return iter(()) if app is None else iter((app.spec,))


def _list_blocked(state: State, app_ids: Iterable[str]) -> Iterator[AppSpec]:
    """All that the deployments work on which have to end for a change of these apps."""
    for deployment_id in sorted({state.locks[app_id] for app_id in app_ids if app_id in state.locks}):
        yield from _list_deployed(state, deployment_id)


def _list_deployed(state: State, deployment_id: str) -> Iterator[AppSpec]:
    """What the deployment works on, as it is and as it would be once it is undone."""
    deployment = find_deployment(state, deployment_id)
    for app_id in deployment.apps:
        if (app := state.visible(app_id)) is not None:
            yield app.spec
    for original in deployment.originals:
        if original.record is not None:
            yield original.record.spec


def _check_changes(state: State, caller: Caller, changes: Sequence[Change], groups: Groups, *, force: bool) -> None:
    completed, steps = plan_changes(state, changes, groups, force=force)
    affected = {action.app for step in steps for action in step}
    for change in completed:
        app = state.visible(change.id)
        if app is not None and change.id in affected:
            _check_app(state, caller, app.spec)
        if change.spec is not None and change.id in affected:
            _check_app(state, caller, change.spec)
    for spec in _list_blocked(state, affected):
        _check_app(state, caller, spec)
    for group_id, record in groups.items():
        if differs(record, state.groups.get(group_id)):
            _check_group(state, caller, group_id)


def _check_app(state: State, caller: Caller, spec: AppSpec) -> None:
    check_roles(caller, needed_roles(spec, state.config), f"app {spec.id}")


def _check_group(state: State, caller: Caller, group_id: str) -> None:
    role = top_group(group_id)[1:]
    if not (role and holds(caller, role)) and not all(holds(caller, own) for own in state.own_roles):
        owners = " and ".join(dict.fromkeys(map(repr, state.own_roles)))
        raise Forbidden(
            f"{caller.name} is bound to {', '.join(caller.roles)}, and group {group_id} is for who holds the role "
            f"{f'{role!r}, or ' if role else ''}{owners}; use a token with that, or one without roles"
        )
