"""Groups changed as a whole: which apps and groups one request makes, changes and removes, in one deployment.

A list that is given is complete, one that is missing stays as it is. Source: Marathon's contract, sections 5 and 8.
"""

import math
from collections.abc import Iterator

from corral.frameworks.services.app_spec import AppSpec
from corral.frameworks.services.command_spec import CreateGroup, DeleteGroup, GroupUpdate, PatchGroup, UpdateGroup
from corral.frameworks.services.commands import note_ignored
from corral.frameworks.services.deployments import Change, deploy
from corral.frameworks.services.difference import view_plan
from corral.frameworks.services.history import tree_at
from corral.frameworks.services.record_spec import GroupRecord
from corral.frameworks.services.roles import NOT_AT_THE_TOP, Groups, is_top, make_group
from corral.frameworks.services.state import State, replace
from corral.frameworks.services.validate import parent_id
from corral.lib.errors import Conflict, NotFound, TooLarge, Unprocessable
from corral.runtime.core import Effect, Note, Reply


class _Tree:
    """What a request makes of the tree. Shapes: `groups` maps to None what is removed."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.changes: dict[str, Change] = {}
        self.groups: dict[str, GroupRecord | None] = {}

    def take(self, update: GroupUpdate) -> None:
        """Make the group what the update says, all below it included."""
        state, group_id = self._state, update.id
        if group_id != "/":
            self.groups[group_id] = _described(state, update)
        for given, are_pods in ((update.apps, False), (update.pods, True)):
            if given is None:
                continue
            named = {spec.id for spec in given}
            for app in state.visible_apps(group_id):
                ours = parent_id(app.spec.id) == group_id and (app.spec.pod is not None) is are_pods
                if ours and app.spec.id not in named:
                    self.changes[app.spec.id] = Change(id=app.spec.id, spec=None)
            for spec in given:
                self._take_spec(spec)
        if update.groups is not None:
            kept = {below.id for below in update.groups}
            for other in [g for g in state.groups if g != "/" and parent_id(g) == group_id and g not in kept]:
                self.remove(other)
            for below in update.groups:
                self.take(below)

    def _take_spec(self, spec: AppSpec) -> None:
        """Errors: `Unprocessable` when an app would become a pod, or the other way round."""
        was = self._state.visible(spec.id)
        other = self.changes.get(spec.id)
        clash = was is not None and (was.spec.pod is None) is not (spec.pod is None)
        if clash or (other is not None and other.spec is not None):
            text = f"an app and a pod may not share the id {spec.id}; choose another"
            raise Unprocessable("Object is not valid", {"/id": [text]})
        self.changes[spec.id] = Change(id=spec.id, spec=spec)

    def remove(self, group_id: str) -> None:
        """The group goes with all below it."""
        prefix = group_id.rstrip("/") + "/"
        for app in self._state.visible_apps(group_id):
            self.changes[app.spec.id] = Change(id=app.spec.id, spec=None)
        for other in self._state.groups:
            if other == group_id or other.startswith(prefix):
                self.groups[other] = None

    def check_names(self, top: str) -> None:
        """An app and a group may not share an id, and nothing is below an app; an empty group makes room for one.

        Errors: `Unprocessable`.
        """
        state = self._state
        for group_id in [*_above(top), *(g for g, kept in self.groups.items() if kept is not None)]:
            if self._is_app(group_id):
                raise Unprocessable(
                    "Object is not valid", {"/id": [f"{group_id} is an app, so it can be no group; choose another id"]}
                )
        for app_id in [c.id for c in self.changes.values() if c.spec is not None and c.id in state.groups]:
            if any(self._is_app(app.spec.id) for app in state.visible_apps(app_id)):
                raise Unprocessable(
                    "Object is not valid", {"/id": [f"{app_id} is a group with apps in it; choose another id"]}
                )
            self.remove(app_id)

    def _is_app(self, app_id: str) -> bool:
        """Whether there is an app of this id once the changes are made."""
        change = self.changes.get(app_id)
        return change.spec is not None if change is not None else self._state.visible(app_id) is not None


def _described(state: State, update: GroupUpdate) -> GroupRecord:
    """The group as it is to be. Errors: `Unprocessable` when what runs in it would change together with its rule."""
    known = state.groups.get(update.id)
    record = known or make_group(state, update.id)
    if update.dependencies is not None:
        record = replace(record, dependencies=update.dependencies)
    if update.enforce_role is None or update.enforce_role == record.enforce_role:
        return record
    if known is not None and any(given is not None for given in (update.apps, update.pods, update.groups)):
        text = "enforceRole cannot change together with what is in the group; change it by itself first"
        raise Unprocessable("Object is not valid", {"/enforceRole": [text]})
    return replace(record, enforce_role=update.enforce_role)


def _above(group_id: str) -> Iterator[str]:
    while group_id != "/":
        group_id = parent_id(group_id)
        yield group_id


def read_update(state: State, command: CreateGroup | UpdateGroup) -> tuple[list[Change], Groups]:
    """What is to become of apps and groups. Errors: `Unprocessable`, `NotFound`, `TooLarge`."""
    if isinstance(command, UpdateGroup) and command.scale_by is not None:
        tree = _scaled(state, command.update.id, command.scale_by)
    elif isinstance(command, UpdateGroup) and command.to_version is not None:
        tree = _back_to(state, command.update.id, command.to_version)
    else:
        tree = _read_tree(state, command.update)
    return list(tree.changes.values()), tree.groups


def read_deletion(state: State, command: DeleteGroup) -> tuple[list[Change], Groups]:
    """As `read_update`. Errors: `NotFound`."""
    _need_group(state, command.id)
    tree = _Tree(state)
    tree.remove(command.id)
    return list(tree.changes.values()), tree.groups


def create_group(state: State, ask: int, command: CreateGroup, now: float) -> list[Effect]:
    """A new group with all in it. Errors: `Conflict` when it is there, or an app of its name; as `update_group`."""
    group_id = command.update.id
    if group_id == "/" or group_id in state.groups:
        raise Conflict(f"Group {group_id} is already created. Use PUT to change this group.")
    if state.visible(group_id) is not None:
        raise Conflict(f"An app with the path {group_id} already exists.")
    changes, groups = read_update(state, command)
    result, effects = deploy(
        state, changes, force=command.force, why=f"create group {group_id}", now=now, groups=groups, at=group_id,
        policy=command.policy,
    )  # fmt: skip
    return [*effects, *note_ignored(group_id, command.ignored), Reply(ask, result)]


def update_group(state: State, ask: int, command: UpdateGroup, now: float) -> list[Effect]:
    """Change a group, make it, or scale all in it. Shapes: a dry run answers with the steps and changes nothing.

    Errors: as `deploy`; `NotFound` when what is to be scaled is not there.
    """
    group_id = command.update.id
    changes, groups = read_update(state, command)
    if command.dry_run:
        found = view_plan(state, changes, groups, command.ignored, force=command.force)
        return [Reply(ask, found if command.diff else {"steps": found["steps"]})]
    if command.scale_by is not None:
        why = f"scale group {group_id} by {command.scale_by:g}"
    elif command.to_version is not None:
        why = f"take group {group_id} back to version {command.to_version}"
    else:
        why = f"update group {group_id}"
    result, effects = deploy(
        state, changes, force=command.force, why=why, now=now, groups=groups, at=group_id, policy=command.policy
    )  # fmt: skip
    return [*effects, *note_ignored(group_id, command.ignored), Reply(ask, result)]


def patch_group(state: State, ask: int, command: PatchGroup, now: float) -> list[Effect]:
    """From now on the group enforces its role, or does so no more; apps that are there stay as they are.

    Errors: `NotFound`; `Unprocessable` for a group that is not at the top.
    """
    group_id = command.id
    if not is_top(group_id):
        raise Unprocessable("Object is not valid", {"/enforceRole": [NOT_AT_THE_TOP]})
    _need_group(state, group_id)
    group = replace(state.groups[group_id], enforce_role=command.enforce_role)
    why = f"patch group {group_id}"
    result, effects = deploy(state, [], force=False, why=why, now=now, groups={group_id: group}, at=group_id)
    facts = {"group": group_id, "enforced": command.enforce_role}
    return [*effects, Note("group patched", "somebody asked for it", facts=facts), Reply(ask, result)]


def delete_group(state: State, ask: int, command: DeleteGroup, now: float) -> list[Effect]:
    """All apps below end, in one deployment; the groups are gone at once. Errors: `NotFound`; as `deploy`."""
    changes, groups = read_deletion(state, command)
    result, effects = deploy(
        state, changes, force=command.force, why=f"delete group {command.id}", now=now, groups=groups, at=command.id
    )  # fmt: skip
    return [*effects, Reply(ask, result)]


def _need_group(state: State, group_id: str) -> None:
    if group_id != "/" and group_id not in state.groups:
        raise NotFound(f"Group '{group_id}' does not exist")


def _read_tree(state: State, update: GroupUpdate) -> _Tree:
    named, most = _count_apps(update), state.config.most_apps_per_request
    if named > most:
        raise TooLarge(f"{named} apps in one request, at most {most} are taken; send the groups below one by one")
    tree = _Tree(state)
    tree.take(update)
    tree.check_names(update.id)
    return tree


def _back_to(state: State, group_id: str, version: str) -> _Tree:
    """What was below the group at that root version is there again, and nothing else. Errors: `Unprocessable`."""
    was = tree_at(state, version)
    if was is None or (group_id != "/" and group_id not in was.groups):
        text = f"group {group_id} has no version {version}; see /v2/groups/versions"
        raise Unprocessable("Object is not valid", {"/version": [text]})
    tree = _Tree(state)
    tree.remove(group_id)
    prefix = group_id.rstrip("/") + "/"
    for app_id, record in was.apps.items():
        if app_id.startswith(prefix):
            tree.changes[app_id] = Change(id=app_id, spec=record.spec, config=record.config)
    for below, group in was.groups.items():
        if below == group_id or below.startswith(prefix):
            tree.groups[below] = group
    tree.check_names(group_id)
    return tree


def _count_apps(update: GroupUpdate) -> int:
    return len(update.apps or ()) + len(update.pods or ()) + sum(_count_apps(below) for below in update.groups or ())


def _scaled(state: State, group_id: str, factor: float) -> _Tree:
    _need_group(state, group_id)
    tree = _Tree(state)
    for app in state.visible_apps(group_id):
        # Rounded first, or 10 times 1.1 would be 12.
        instances = math.ceil(round(app.spec.instances * factor, 9))
        tree.changes[app.spec.id] = Change(id=app.spec.id, spec=replace(app.spec, instances=instances))
    return tree
