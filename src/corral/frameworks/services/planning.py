"""What apps would ask of the kernel, for a dry run of the allocator: their wants, in the form of a REQUEST.

An app that is there already asks for the instances it lacks; with another definition it asks for all of them anew.
"""

from typing import Any

import msgspec

from corral.frameworks.services.launch import make_want
from corral.frameworks.services.spec import AppRecord, AppSpec, PlanApps
from corral.frameworks.services.state import App, State
from corral.mesos.wants import write_wants
from corral.model.offer import Want

PLANNED = "planned"


def view_wants(state: State, command: PlanApps, now: float) -> dict[str, Any]:
    """The body that the kernel's own plan takes. Shapes: apps that lack nothing are left out."""
    wants = [want for spec in command.specs if (want := _want(state, spec, now)).count > 0]
    return {"framework_id": state.framework_id or "", "wants": msgspec.to_builtins(write_wants(wants))}


def _want(state: State, spec: AppSpec, now: float) -> Want:
    known = state.apps.get(spec.id)
    if known is not None and msgspec.structs.replace(known.spec, instances=spec.instances) == spec:
        return make_want(known, state.config, max(0, spec.instances - len(known.instances)))
    record = AppRecord(spec=spec, version=PLANNED, config=PLANNED, scaled_at=PLANNED, configured_at=PLANNED)
    return make_want(App(record, now), state.config, spec.instances)
