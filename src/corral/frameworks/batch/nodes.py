"""Which nodes jobs would rather not run on, for what failed there.

Rules: a node where jobs of one owner fail at once, three in a row, while they do so nowhere else, is used last for jobs
of their shape; one where jobs of three owners do, for all. A success there ends it, and so does time. These are wishes:
where nothing else fits, the node is used. Jobs that fail everywhere have themselves to blame, and avoid no node.
"""

from corral.frameworks.batch import queue
from corral.frameworks.batch.spec import Progress
from corral.frameworks.batch.state import Job, State
from corral.model.task import TaskState, TaskStatus
from corral.runtime.core import Effect, Note
from corral.sdk.nodes import FAST_S


def succeeded(state: State, job: Job, run: Progress, now: float) -> None:
    """The node can do it."""
    if state.nodes.is_clean or not run.hostname:
        return
    state.nodes.last(job.spec.owner, run.hostname, now)
    state.nodes.accept(queue.shape_of(state, job.spec, job.priority).want.id, run.hostname)
    state.wants_changed = True


def failed(state: State, job: Job, run: Progress, status: TaskStatus, now: float) -> list[Effect]:
    """An attempt has ended badly by itself. Units: both instants of its life are by the clock of its node."""
    if status.state is not TaskState.FAILED or not run.hostname:
        return []
    node, owner, nodes = run.hostname, job.spec.owner, state.nodes
    lived_s = status.at - run.started_at if run.started_at is not None else 0.0
    effects: list[Effect] = []
    again = lived_s < FAST_S and nodes.stands_out(owner, node, now)
    if nodes.fail(owner, node, lived_s, now):
        (why,) = (each.why for each in nodes.avoided(None, now) if each.hostname == node and each.subject is None)
        effects.append(Note("node is avoided", why, "error", {"node": node}))
        state.wants_changed = True
    shape = queue.shape_of(state, job.spec, job.priority).want.id
    if again and not nodes.is_avoided(shape, node, now):
        why = f"jobs of {owner} fail there at once and nowhere else: {status.message or status.reason or status.state}"
        nodes.shun(shape, node, why, now)
        effects.append(Note("node is avoided", why, "warning", {"node": node, "owner": owner, "want": shape}))
        state.wants_changed = True
    return effects
