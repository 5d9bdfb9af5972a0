"""What apps would ask of the kernel, for a dry run of the allocator: their wants, in the form of a REQUEST.

An app that is there already asks for the instances it lacks; with another definition it asks for all of them anew. One
that takes only what is reserved for its role asks nothing of the kernel.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from corral.frameworks.services.accepted import takes_plain
from corral.frameworks.services.app_spec import AppSpec
from corral.frameworks.services.command_spec import PlanApps
from corral.frameworks.services.launch import make_want
from corral.frameworks.services.reader import NOT_VALID
from corral.frameworks.services.record_spec import AppRecord
from corral.frameworks.services.role_spec import own_role
from corral.frameworks.services.roles import NO_GROUPS, give_role
from corral.frameworks.services.state import App, State
from corral.frameworks.services.validate import assign_service_ports, check_app, complete
from corral.lib.errors import Unprocessable
from corral.mesos.wants import write_wants
from corral.model.offer import Want

PLANNED = "planned"


def view_wants(state: State, command: PlanApps, now: float) -> dict[str, Any]:
    """The body that the kernel's own plan takes. Shapes: apps that lack nothing are left out; `unplanned` are those of
    which no plan can tell, and is missing without any.

    Errors: `Unprocessable` for what a deployment would refuse, and for fields that it would pass over.
    """
    if command.unknown:
        text = "is known to nobody and would be ignored; correct it, or leave it out"
        raise Unprocessable(NOT_VALID, {path: [text] for path in command.unknown})
    if len(command.specs) > state.config.most_apps_per_request:
        most = state.config.most_apps_per_request
        raise Unprocessable(NOT_VALID, {"/": [f"{len(command.specs)} apps are given; {most} are the most"]})
    if len({spec.id for spec in command.specs}) < len(command.specs):
        raise Unprocessable(NOT_VALID, {"/": ["an app is named twice"]})
    specs = [_completed(state, spec) for spec in command.specs]
    wants = [want for spec in specs if takes_plain(spec) and (want := _want(state, spec, now)).count > 0]
    unplanned = [
        {"id": spec.id, "why": f"it takes only what is reserved for role {own_role(spec, state.config)}"}
        for spec in specs
        if not takes_plain(spec)
    ]
    return {
        "framework_id": state.framework_id or "",
        "wants": msgspec.to_builtins(write_wants(wants)),
        **({"unplanned": unplanned} if unplanned else {}),
    }


def _want(state: State, spec: AppSpec, now: float) -> Want:
    known = state.visible(spec.id)
    if known is not None and msgspec.structs.replace(known.spec, instances=spec.instances) == spec:
        # What runs is counted by the kernel; what is only waiting there is asked anew.
        want = make_want(known, state.config, max(0, spec.instances - known.present))
        return msgspec.structs.replace(want, group_size=spec.instances)
    record = AppRecord(spec=spec, version=PLANNED, config=PLANNED, scaled_at=PLANNED, configured_at=PLANNED)
    return make_want(App(record, now), state.config, spec.instances)


def _completed(state: State, spec: AppSpec) -> AppSpec:
    """The app as a deployment would take it on."""
    try:
        spec = give_role(state, spec, NO_GROUPS)
        check_app(spec, state.config)
        spec = complete(spec, state.config)
        check_app(spec, state.config)
    except Unprocessable as error:
        raise Unprocessable(error.message, _named(spec.id, error.details)) from None
    known = state.visible(spec.id)
    return assign_service_ports(spec, known.spec if known is not None else None, state.service_ports, state.config)


def _named(app_id: str, details: Mapping[str, list[str]]) -> dict[str, list[str]]:
    return {path: [f"app {app_id}: {text}" for text in texts] for path, texts in details.items()}
