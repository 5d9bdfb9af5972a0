"""Deployments steered by people and by the clock: paused, promoted, given up or undone when they get no further.

A deployment with a deadline that gets no further is over: it is undone when its policy says so, and else it just ends,
so that no app stays locked. One that is paused, or waits to be promoted, has all the time it needs.
"""

from typing import Any

from corral.frameworks.services import accepted, views
from corral.frameworks.services.command_spec import PauseDeployment, PromoteDeployment
from corral.frameworks.services.deployments import cancel, find_deployment, roll_back
from corral.frameworks.services.pace import DEADLINE, pace_of
from corral.frameworks.services.plan import FULL, plan_app
from corral.frameworks.services.record_spec import ActionKind, Deployment, Outcome, OutcomeRecord
from corral.frameworks.services.state import COUNTED, App, Phase, State, replace
from corral.frameworks.services.upkeep import current_action
from corral.lib.errors import Conflict, CorralError
from corral.lib.units import format_timestamp
from corral.runtime.core import CancelTimer, Effect, Note, Persist, Reply, SetTimer

Json = Any


def pause(state: State, ask: int, command: PauseDeployment) -> list[Effect]:
    """Stop where it is, or go on. Errors: `NotFound`."""
    deployment = find_deployment(state, command.id)
    if deployment.paused is command.paused:
        return [Reply(ask, view_deployment(state, command.id))]
    effects = _keep(state, replace(deployment, paused=command.paused))
    what = "deployment paused" if command.paused else "deployment resumed"
    effects.append(Note(what, "somebody asked for it", facts={"deployment": deployment.id}))
    if deployment.policy.deadline_s:
        timer = DEADLINE + deployment.id
        effects.append(CancelTimer(timer) if command.paused else SetTimer(timer, deployment.policy.deadline_s))
    return [*effects, Reply(ask, view_deployment(state, command.id))]


def promote(state: State, ask: int, command: PromoteDeployment) -> list[Effect]:
    """Go on beyond the canary, or move so much traffic to it.

    Errors: `NotFound`; `Conflict` when there is nothing to be promoted, or it is not ready to be.
    """
    deployment = find_deployment(state, command.id)
    if deployment.promoted or not (deployment.policy.canary or deployment.policy.blue_green):
        raise Conflict(f"Deployment {command.id} waits for no promotion; it goes on by itself")
    if command.share < 100:
        effects = _keep(state, replace(deployment, share=command.share))
        why = f"somebody gave its new instances {command.share} percent"
        effects.append(Note("deployment moves traffic", why, facts={"deployment": deployment.id}))
        return [*effects, Reply(ask, view_deployment(state, command.id))]
    if not is_held(state, deployment):
        raise Conflict(
            f"Deployment {command.id} cannot be promoted yet, as its first instances are not all ready; "
            f"GET /v2/deployments/{command.id} shows how far it is"
        )
    effects = _keep(state, replace(deployment, promoted=True, share=None if deployment.share is None else 100))
    effects.append(Note("deployment promoted", "somebody asked for it", facts={"deployment": deployment.id}))
    if deployment.policy.deadline_s:
        effects.append(SetTimer(DEADLINE + deployment.id, deployment.policy.deadline_s))
    return [*effects, Reply(ask, view_deployment(state, command.id))]


def _keep(state: State, deployment: Deployment) -> list[Effect]:
    state.deployments[deployment.id] = deployment
    state.touch(deployment.apps)
    return [Persist(f"deployment/{deployment.id}", deployment)]


def is_held(state: State, deployment: Deployment) -> bool:
    """Whether all that is left of its step waits to be promoted."""
    left = [a for a in deployment.steps[deployment.step] if a.app not in state.done[deployment.id]]
    for action in left:
        app = state.apps.get(action.app)
        if app is None or action.kind is not ActionKind.RESTART:
            return False
        pace = pace_of(deployment, app.spec)
        if pace is FULL or not plan_app(app, action.kind, deployment.step_at, 1, pace).held:
            return False
    return bool(left)


def deadline_tick(state: State, deployment_id: str, now: float) -> list[Effect]:
    """It got no further for as long as its deadline allows."""
    deployment = state.deployments.get(deployment_id)
    if deployment is None or deployment.paused:
        return []
    if is_held(state, deployment):
        return []
    why = f"it got no further for {deployment.policy.deadline_s:g} s; {_find_cause(state, deployment)}"
    effects: list[Effect] = [Note("deployment failed", why, "warning", {"deployment": deployment_id})]
    if deployment.policy.revert:
        try:
            _, undone = roll_back(state, deployment_id, now, failed=why)
        except CorralError as error:
            why += f"; and it cannot be undone: {error.message}"
        else:
            return [*effects, *undone]
    cancel(state, deployment_id, why, effects, now, outcome=Outcome.FAILED)
    return effects


def _find_cause(state: State, deployment: Deployment) -> str:
    for action in deployment.steps[deployment.step]:
        app = state.apps.get(action.app)
        if app is None or action.app in state.done[deployment.id]:
            continue
        cause = find_cause(state, app)
        if cause:
            return f"app {action.app}: {cause}"
    return "see GET /v2/queue for what waits"


def find_cause(state: State, app: App) -> str:
    """Why the app is not what it is wanted to be; empty when nobody knows, or all is well."""
    failure = state.failures.get(app.spec.id)
    if failure is not None and failure.version >= app.record.configured_at:
        times = f" ({failure.repeats} times)" if failure.repeats > 1 else ""
        return f"{failure.state} on {failure.hostname}: {failure.message}{times}"
    explanation = accepted.explain(state, app)
    if explanation is not None and explanation.refusals:
        return "; ".join(r.detail for r in explanation.refusals[:3])
    unhealthy = app.up_to_date[Phase.UNHEALTHY]
    if unhealthy:
        causes = [r.cause for i in unhealthy.values() for r in i.health if r.cause and not r.alive]
        return causes[0] if causes else _say_unhealthy(len(unhealthy))
    return ""


def _say_unhealthy(count: int) -> str:
    return (
        f"{count} instances have not passed their checks yet"
        if count > 1
        else "1 instance has not passed its checks yet"
    )


# Shown.


def view_deployment(state: State, deployment_id: str) -> Json:
    """A deployment with where it stands. Errors: `NotFound`."""
    ended = state.outcomes.get(deployment_id)
    if deployment_id not in state.deployments and ended is not None:
        return view_outcome(ended)
    deployment = find_deployment(state, deployment_id)
    policy = deployment.policy
    return {
        **views.view_deployment(state, deployment),
        "state": state_of(state, deployment),
        "policy": {
            "deadline": policy.deadline_s, "revert": policy.revert, "canary": policy.canary or None,
            "blueGreen": policy.blue_green,
        },
        "promoted": deployment.promoted,
        "weight": deployment.share,
        "undoes": deployment.undoes or None,
        "progress": [_view_progress(state, state.apps[a]) for a in deployment.apps if a in state.apps],
    }  # fmt: skip


def state_of(state: State, deployment: Deployment) -> str:
    if deployment.paused:
        return "paused"
    return "waits for promotion" if is_held(state, deployment) else "running"


def _view_progress(state: State, app: App) -> Json:
    _, action = current_action(state, app.spec.id)
    return {
        "app": app.spec.id,
        "action": None if action is None else str(action),
        "wanted": 0 if app.record.stopping else app.spec.instances,
        "new": sum(len(app.up_to_date[p]) for p in COUNTED),
        "newHealthy": len(app.up_to_date[Phase.RUNNING]),
        "old": sum(len(app.outdated[p]) for p in COUNTED),
        "leaving": app.count(Phase.LEAVING),
        "reason": find_cause(state, app),
    }


def view_outcome(record: OutcomeRecord) -> Json:
    return {
        "id": record.id,
        "version": record.version,
        "affectedApps": list(record.apps),
        "state": str(record.outcome),
        "why": record.why,
        "endedAt": format_timestamp(record.ended_at),
        "successor": record.successor or None,
    }
