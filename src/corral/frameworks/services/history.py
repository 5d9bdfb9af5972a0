"""The root versions: every change of what is wanted makes one, and any of those kept can be looked at and gone back to.

What is kept is what each change replaced, so a version costs as much as its change and not as much as the whole tree.
Source: Marathon's contract, sections 5 and 7.
"""

from typing import Any

import msgspec

from corral.frameworks.services.pod_dialect import write_pod
from corral.frameworks.services.record_spec import AppRecord, GroupRecord, HistoryRecord, Original, OriginalGroup
from corral.frameworks.services.shown import write_rule, write_versioned
from corral.frameworks.services.state import State
from corral.lib.errors import NotFound
from corral.lib.units import format_timestamp
from corral.runtime.core import Effect, Persist

Json = Any


class Tree(msgspec.Struct, frozen=True, kw_only=True):
    """All that was wanted at one time."""

    apps: dict[str, AppRecord]
    groups: dict[str, GroupRecord]


def remember(
    state: State, version: str, originals: tuple[Original, ...], groups: tuple[OriginalGroup, ...],
    effects: list[Effect],
) -> None:  # fmt: skip
    """Keep what the change that makes `version` replaces; the oldest goes when there are too many."""
    record = HistoryRecord(version=version, originals=originals, groups=groups)
    state.history[version] = record
    effects.append(Persist(f"history/{version}", record))
    while len(state.history) > state.config.most_versions:
        oldest = min(state.history)
        del state.history[oldest]
        effects.append(Persist(f"history/{oldest}", None))


def tree_at(state: State, version: str) -> Tree | None:
    """What was wanted at that root version; None when it is not kept."""
    if version not in state.history:
        return None
    apps = {app.spec.id: app.record for app in state.visible_apps()}
    groups = dict(state.groups)
    for later in sorted((v for v in state.history if v > version), reverse=True):
        record = state.history[later]
        for original in record.originals:
            if original.record is None:
                apps.pop(original.app, None)
            else:
                apps[original.app] = original.record
        for group in record.groups:
            if group.record is None:
                groups.pop(group.group, None)
            else:
                groups[group.group] = group.record
    return Tree(apps=apps, groups=groups)


def root_version(state: State, now: float) -> str:
    return max(state.history, default=format_timestamp(now))


def view_group_versions(state: State, group_id: str, now: float) -> list[str]:
    """Newest first. Errors: `NotFound`."""
    if group_id != "/" and group_id not in state.groups:
        raise NotFound(f"Group '{group_id}' does not exist")
    return sorted(state.history, reverse=True) or [root_version(state, now)]


def view_group_version(state: State, group_id: str, version: str, now: float) -> Json:
    """The tree below a group as it was. Errors: `NotFound`."""
    tree = tree_at(state, version)
    if tree is None and not state.history:
        tree = Tree(apps={}, groups=dict(state.groups))
    if tree is None or (group_id != "/" and group_id not in tree.groups):
        raise NotFound(f"Group '{group_id}' has no version {version}; see /v2/groups/versions")
    prefix = group_id.rstrip("/") + "/"
    nodes: dict[str, dict[str, Json]] = {}
    for below in sorted({group_id, *(g for g in tree.groups if g.startswith(prefix))}):
        record = tree.groups.get(below)
        nodes[below] = {
            "id": below, "apps": [], "pods": [], "groups": [],
            "dependencies": list(record.dependencies) if record is not None else [], "version": version,
            **write_rule(record),
        }  # fmt: skip
        if below != group_id:
            nodes[below.rpartition("/")[0] or "/"]["groups"].append(nodes[below])
    for app_id, app in sorted(tree.apps.items()):
        if app_id.startswith(prefix):
            home = nodes[app_id.rpartition("/")[0] or "/"]
            if app.spec.pod is None:
                home["apps"].append(write_versioned(app))
            else:
                home["pods"].append(write_pod(app))
    return nodes[group_id]
