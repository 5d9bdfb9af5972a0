"""Marathon's groups inward: a tree of groups and apps, read whole, with every fault told by its place.

What stands in a group is complete: an app is a whole definition, a list names all there shall be.
Source: Marathon's contract, sections 1, 5 and 16.
"""

import msgspec

from corral.frameworks.services.app_spec import AppSpec
from corral.frameworks.services.command_spec import GroupUpdate
from corral.frameworks.services.marathon import read_app_in
from corral.frameworks.services.pod_dialect import read_pod_in
from corral.frameworks.services.reader import Json, Reader
from corral.frameworks.services.roles import NOT_AT_THE_TOP, is_top
from corral.frameworks.services.validate import canonical_id, check_path, parent_id


class ReadGroup(msgspec.Struct, frozen=True, kw_only=True):
    """Shapes: with `scale_by` or `to_version` nothing else was given; `unknown` are the paths that nobody knows."""

    update: GroupUpdate
    scale_by: float | None = None
    to_version: str | None = None
    unknown: tuple[str, ...] = ()


def read_group(value: Json, path_id: str) -> ReadGroup:
    """The body of a POST or PUT at the group `path_id`; an id in it is relative to that group, or its own.

    Errors: `Unprocessable` with all faults by path.
    """
    reader = Reader(value)
    group_id = _top_id(reader, path_id)
    scale_by = None
    to_version = None
    if reader.has("version"):
        to_version = reader.text("version", "")
        others = sorted(set(reader.fields) & {"apps", "groups", "pods", "dependencies", "enforceRole", "scaleBy"})
        if others:
            reader.refuse("version", f"version goes back and must stand alone, found beside it: {', '.join(others)}")
    if reader.has("scaleBy"):
        scale_by = reader.number("scaleBy", 1.0)
        if not 0 <= scale_by < 1e6:
            reader.refuse("scaleBy", f"got {scale_by:g}, must be 0 or more and finite")
        others = sorted(set(reader.fields) & {"apps", "groups", "dependencies", "enforceRole"})
        if others:
            reader.refuse("scaleBy", f"scaleBy must stand alone, found beside it: {', '.join(others)}")
    update = _read(reader, group_id)
    reader.finish()
    return ReadGroup(update=update, scale_by=scale_by, to_version=to_version, unknown=tuple(reader.unknown))


def read_group_patch(value: Json) -> bool:
    """The body of a PATCH, which has nothing but `enforceRole`: that. Errors: `Unprocessable`."""
    reader = Reader(value)
    if not reader.has("enforceRole"):
        reader.refuse("enforceRole", "a group is patched with enforceRole alone; change the rest with PUT")
    enforce_role = reader.flag("enforceRole", False)
    for field in sorted(set(reader.fields) & {"apps", "pods", "groups", "dependencies", "version", "scaleBy"}):
        reader.refuse(field, f"{field} cannot be patched; change it with PUT")
    reader.finish()
    return enforce_role


def _read_enforced(reader: Reader, group_id: str) -> bool | None:
    if not reader.has("enforceRole"):
        return None
    enforced = reader.flag("enforceRole", False)
    if enforced and not is_top(group_id):
        reader.refuse("enforceRole", NOT_AT_THE_TOP)
    return enforced


def _top_id(reader: Reader, path_id: str) -> str:
    if not reader.has("id"):
        return path_id
    own = reader.text("id", path_id)
    if path_id in (canonical_id(own), canonical_id(own, parent_id(path_id))):
        return path_id
    group_id = canonical_id(own, path_id)
    if not group_id.startswith(path_id.rstrip("/") + "/"):
        reader.refuse("id", f"id {own!r} is not below {path_id!r} of the path; a group cannot be moved")
    return group_id


def _read(reader: Reader, group_id: str) -> GroupUpdate:
    if group_id != "/" and (wrong := check_path(group_id)) is not None:
        reader.refuse("id", wrong)
    apps = _read_apps(reader, group_id) if reader.has("apps") else None
    groups = _read_groups(reader, group_id) if reader.has("groups") else None
    dependencies: tuple[str, ...] | None = None
    if reader.has("dependencies"):
        dependencies = tuple(dict.fromkeys(canonical_id(d, group_id) for d in reader.texts("dependencies")))
        for index, target in enumerate(dependencies):
            if target != "/" and (wrong := check_path(target)) is not None:
                reader.refuse(f"dependencies({index})", wrong)
        if group_id == "/" and dependencies:
            reader.refuse("dependencies", "the root group holds everything, so there is nothing it could wait for")
    pods = _read_pods(reader, group_id) if reader.has("pods") else None
    enforce_role = _read_enforced(reader, group_id)
    for field in ("id", "version", "scaleBy"):
        reader.has(field)
    reader.done()
    return GroupUpdate(
        id=group_id, apps=apps, pods=pods, groups=groups, dependencies=dependencies, enforce_role=enforce_role
    )


def _read_apps(reader: Reader, group_id: str) -> tuple[AppSpec, ...]:
    found: dict[str, AppSpec] = {}
    for item in reader.objects("apps"):
        spec = read_app_in(item, group_id).spec
        if parent_id(spec.id) != group_id:
            item.refuse("id", f"app {spec.id} is not in the group {group_id} it is written in; use a relative id")
        if spec.id in found:
            item.refuse("id", f"app {spec.id} is named twice")
        found[spec.id] = spec
    return tuple(found.values())


def _read_pods(reader: Reader, group_id: str) -> tuple[AppSpec, ...]:
    found: dict[str, AppSpec] = {}
    for item in reader.objects("pods"):
        spec = read_pod_in(item, group_id)
        if parent_id(spec.id) != group_id:
            item.refuse("id", f"pod {spec.id} is not in the group {group_id} it is written in; use a relative id")
        if spec.id in found:
            item.refuse("id", f"pod {spec.id} is named twice")
        found[spec.id] = spec
    return tuple(found.values())


def _read_groups(reader: Reader, group_id: str) -> tuple[GroupUpdate, ...]:
    found: dict[str, GroupUpdate] = {}
    for item in reader.objects("groups"):
        if not item.has("id"):
            item.refuse("id", "id must be given")
            continue
        own_id = canonical_id(item.text("id", ""), group_id)
        if own_id == "/" or parent_id(own_id) != group_id:
            item.refuse("id", f"group {own_id} is not in the group {group_id} it is written in; use a relative id")
            continue
        if own_id in found:
            item.refuse("id", f"group {own_id} is named twice")
        found[own_id] = _read(item, own_id)
    return tuple(found.values())
