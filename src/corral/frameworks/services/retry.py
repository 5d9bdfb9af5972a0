"""Where an instance that failed is tried next: on its node so many times, then elsewhere; pure rules over node scores.

Rules: a failure is retried where it happened, as caches and volumes are there; after `corral.local-retries` of them in
a row the instance moves, and its app shuns the node for a while. Nodes where the instances of several apps fail right
after their start are avoided by all. Both are wishes: where nothing else fits, the node is used. What is remembered of
nodes is kept in records of their own. corral's own, after Gaia's local retry and migration.
"""

from collections.abc import Iterator

from corral.frameworks.services.app_spec import AppSpec
from corral.frameworks.services.record_spec import Condition, Instance
from corral.frameworks.services.state import App, Phase, State, replace, task_id_of
from corral.lib.units import format_timestamp
from corral.model.task import TaskState, TaskStatus
from corral.runtime.core import Effect, Note
from corral.sdk.nodes import FAST_S, HALF_LIFE_S

RETRIES_LABEL = "corral.local-retries"
RETRIES = 2
MOST_RETRIES = 1000
QUIET_S = 600.0
"""After so long a life the next failure counts as the first one."""


def find_label_faults(spec: AppSpec) -> Iterator[tuple[str, str]]:
    """Paths and what is wrong there."""
    text = spec.labels.get(RETRIES_LABEL)
    if text is not None and not (text.isascii() and text.isdigit() and int(text[:9]) <= MOST_RETRIES):
        yield f"/labels/{RETRIES_LABEL}", f"got {text!r}, must be a whole number from 0 to {MOST_RETRIES}"


def retries(spec: AppSpec) -> int:
    """How often an instance that failed is started again on the same node before it moves."""
    text = spec.labels.get(RETRIES_LABEL)
    return RETRIES if text is None else int(text)


def is_fault(status: TaskStatus, *, ill: bool) -> bool:
    """Whether an end may be held against the node it happened on."""
    return ill or status.state is TaskState.FAILED


def place_again(
    state: State, app: App, ended: Instance, again: Instance, at: float, why: str, now: float
) -> tuple[Instance, list[Effect]]:
    """The next launch of an instance that failed, with where it would rather go.

    Units: `at` is when it ended, by the clock of its node, as the instant of its start is.
    """
    node, subject = ended.hostname, app.spec.id
    lived_s = at - ended.started_at if ended.started_at is not None else 0.0
    effects: list[Effect] = []
    if lived_s >= FAST_S:
        state.nodes.last(subject, node, now)
    elif state.nodes.fail(subject, node, lived_s, now):
        effects += _blame(state, node, now)
    tries = 1 + (ended.tries if ended.home == node and lived_s < QUIET_S else 0)
    facts = {"app": subject, "task": task_id_of(ended), "node": node}
    if tries <= retries(app.spec):
        return replace(again, home=node, tries=tries), effects
    until_at = state.nodes.shun(subject, node, f"{tries} starts of one instance in a row failed there: {why}", now)
    text = f"{tries} starts in a row failed on {node}, which the app avoids until {format_timestamp(until_at)}: {why}"
    return again, [*effects, Note("instance moves", text, "warning", facts)]


def _blame(state: State, node: str, now: float) -> list[Effect]:
    """A node where one thing after another fails, unless something has come to life there meanwhile."""
    since, until = now - 2 * HALF_LIFE_S, now - FAST_S
    for app in state.apps.values():
        for instance in app.instances.values():
            runs = instance.hostname == node and instance.condition is Condition.RUNNING
            # By the own clock: that of a node may go wrong.
            if runs and instance.staged_at is not None and since <= instance.staged_at <= until:
                state.nodes.last(app.spec.id, node, now)
                if node not in state.nodes.bad:
                    return []
    (why,) = (a.why for a in state.nodes.avoided(None, now) if a.hostname == node and a.subject is None)
    state.restless.update(dict.fromkeys(state.apps))
    return [Note("node is avoided", why, "error", {"node": node})]


def choose_waiting(app: App, hostname: str, *, homed: bool) -> Instance:
    """Which of the waiting instances an offer of this node serves; there is at least one.

    Shapes: never one that has volumes: those are on an agent already, in offers of another kind.
    """
    waiting = app.up_to_date[Phase.SCHEDULED]
    if app.spec.volumes:
        waiting = {i: each for i, each in waiting.items() if not each.kept}
    if not homed:
        return next((i for i in waiting.values() if not i.home), next(iter(waiting.values())))
    here = (i for i in (*_at(app, hostname), *app.homed) if i in waiting)
    return waiting[next(here, next(iter(waiting)))]


def _at(app: App, hostname: str) -> list[str]:
    return [instance_id for instance_id, home in app.homed.items() if home == hostname]
