"""What a change would do, for those who ask before they do it: its steps, and per app what becomes of what."""

from collections.abc import Sequence
from typing import Any

from corral.frameworks.services.app_spec import AppSpec
from corral.frameworks.services.deployments import Change, plan_changes
from corral.frameworks.services.plan import is_upgrade
from corral.frameworks.services.pod_dialect import write_pod
from corral.frameworks.services.record_spec import AppRecord
from corral.frameworks.services.roles import Groups
from corral.frameworks.services.shown import write_app
from corral.frameworks.services.state import State
from corral.frameworks.services.views import view_action

Json = Any


def view_plan(
    state: State, changes: Sequence[Change], groups: Groups, ignored: Sequence[str], *, force: bool = False
) -> dict[str, Json]:
    """Shapes: `what` is new, removed, scaled, upgraded or same; `before` and `after` are whole definitions or None.

    Errors: as for the change itself.
    """
    completed, steps = plan_changes(state, changes, groups, force=force)
    return {
        "steps": [{"actions": [view_action(action) for action in step]} for step in steps],
        "apps": [_view_change(state, change) for change in sorted(completed, key=lambda c: c.id)],
        "ignored": list(ignored),
    }


def _view_change(state: State, change: Change) -> Json:
    app = state.visible(change.id)
    before, after = (app.spec if app is not None else None), change.spec
    return {
        "id": change.id,
        "what": _name_change(before, after),
        "before": None if before is None else _write(before),
        "after": None if after is None else _write(after),
    }


def _name_change(before: AppSpec | None, after: AppSpec | None) -> str:
    if before is None or after is None:
        return "new" if before is None else "removed"
    if before == after:
        return "same"
    return "upgraded" if is_upgrade(before, after) else "scaled"


def _write(spec: AppSpec) -> dict[str, Json]:
    if spec.pod is None:
        return write_app(spec)
    shown = write_pod(AppRecord(spec=spec, version="", config="", scaled_at="", configured_at=""))
    del shown["version"]
    return shown
