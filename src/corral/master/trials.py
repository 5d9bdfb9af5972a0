"""What-if questions over HTTP: reads them, asks a copy of the live allocator, writes the answers.

Everything here is a pure function of a `View` that the core gave out, so that it can be worked out beside the loop.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from corral.allocator.rebalance import rebalance
from corral.allocator.view import View
from corral.allocator.whatif import Plan, explain_if, plan
from corral.lib.errors import Invalid, NotFound
from corral.master.validate import check_rules
from corral.mesos.wants import WireWant, read_wants
from corral.model.ids import FrameworkId, WantId
from corral.model.offer import Explanation

Json = dict[str, Any]

MOST_MOVES = 1000


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """The live state as it was when the question came. Units: `now` seconds UTC."""

    view: View
    names: dict[FrameworkId, str]
    now: float


class _PlanForm(msgspec.Struct, forbid_unknown_fields=True):
    framework_id: str = ""
    wants: tuple[WireWant, ...] = ()


_decoder = msgspec.json.Decoder(_PlanForm)


def try_plan(trial: Trial, body: bytes) -> Json:
    """Where the wants of a body would go.

    Errors: `Invalid` for a body that is no plan, or a want that could not be decided.
    """
    try:
        form = _decoder.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Invalid(
            f"nothing can be planned from this body: {error}; send framework_id and wants as in a REQUEST"
        ) from None
    wants = read_wants(form.wants)
    for want in wants:
        check_rules(want)
    return _plan(trial, plan(trial.view, FrameworkId(form.framework_id), wants, trial.now))


def try_changes(trial: Trial, framework_id: str, want_id: str, changes: Sequence[str]) -> Json:
    """What would become of a want that waits with these changes, each `NAME=VALUE`.

    Shapes: without `framework_id` the first framework that has such a want is meant.
    Errors: `Invalid` for a change that is not understood, `NotFound` for a want that does not wait.
    """
    if not want_id:
        raise Invalid("no want is named; name one that waits with ?want=ID")
    pairs = []
    for change in changes:
        name, equals, value = change.partition("=")
        if not equals or not name:
            raise Invalid(f"{change!r} is no change; write NAME=VALUE, such as cpus=2 or role-limit=cpus:8")
        pairs.append((name.strip(), value.strip()))
    found = FrameworkId(framework_id)
    if not found:
        owners = [each.framework_id for each in trial.view.wants if each.want.id == want_id]
        if not owners:
            raise NotFound(f"no framework has a want {want_id} that waits; name one that does")
        found = owners[0]
    return _plan(trial, explain_if(trial.view, found, WantId(want_id), pairs, trial.now))


def try_moves(trial: Trial, most: int) -> Json:
    """Which tasks would better run elsewhere."""
    if not 1 <= most <= MOST_MOVES:
        raise Invalid(f"most={most} moves cannot be planned; ask 1 to {MOST_MOVES}")
    hosts = {each.id: each.hostname for each in trial.view.agents}
    return {
        "moves": [
            {
                "task_id": _task_id(move.key, move.framework_id),
                "framework_id": move.framework_id,
                "framework": trial.names.get(move.framework_id, ""),
                "from_agent": move.from_agent,
                "from_host": hosts[move.from_agent],
                "to_agent": move.to_agent,
                "to_host": hosts[move.to_agent],
                "why": move.why,
            }
            for move in rebalance(trial.view, trial.now, most)
        ]
    }


def _plan(trial: Trial, found: Plan) -> Json:
    return {
        "fits": found.fits,
        "placements": [
            {"want_id": p.want_id, "agent_id": p.agent_id, "hostname": p.hostname, "count": p.count}
            for p in found.placements
        ],
        "evictions": [
            {
                "task_id": _task_id(e.key, e.framework_id),
                "framework_id": e.framework_id,
                "framework": trial.names.get(e.framework_id, ""),
                "role": e.role,
                "hostname": e.hostname,
                "why": e.why,
            }
            for e in found.evictions
        ],
        "roles": [msgspec.to_builtins(effect) for effect in found.roles],
        "waiting": [write_explanation(one) for one in found.waiting],
    }


def write_explanation(one: Explanation) -> Json:
    """An explanation as corral's own API shows it."""
    return {
        "want_id": one.want_id,
        "framework_id": one.framework_id,
        "role": one.role,
        "waiting": one.waiting,
        "since_at": one.since_at,
        "agents": one.agents,
        "refusals": [
            {"reason": r.reason, "detail": r.detail, "agents": r.agents, "best": r.best} for r in one.refusals
        ],
        "fits_if": list(one.fits_if),
        "never": one.never,
    }


def _task_id(key: str, framework_id: FrameworkId) -> str:
    return key.removeprefix(f"task/{framework_id}/")
