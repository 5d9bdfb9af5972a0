"""Why what waits of a job does so, and since when: nothing waits without a reason. Pure."""

from collections.abc import Iterator

from corral.frameworks.cron.plan import due_now
from corral.frameworks.cron.state import Job, Queue, State
from corral.lib.units import format_timestamp
from corral.sdk.answers import describe
from corral.sdk.patience import Waiting

_NAMED = 10


def reason_of(state: State, job: Job, now: float) -> str:
    """Shapes: empty when nothing of the job waits to be launched."""
    if job.items and job.want is not None:
        return reason_of_queue(state, state.queues[job.want.id])
    queued = job.queued
    later = min((run for run in queued if run.ready_at > now), key=lambda run: run.ready_at, default=None)
    if later is not None:
        return f"its attempt {later.attempt + 1} is made at {format_timestamp(later.ready_at)}"
    live = job.live
    if live and (queued or due_now(job, int(now * 1000)).due is not None):
        first = min(live, key=lambda run: run.token)
        return f"its run {first.task_id} is not over, and its runs do not overlap ({job.spec.concurrency})"
    return "it is looked at next" if queued else ""


def reason_of_queue(state: State, queue: Queue) -> str:
    """Why nothing of a queue is launched just now."""
    if not state.connected:
        return "the framework is not connected to a master"
    explanation = state.explanations.get(queue.want.id)
    if explanation is None:
        return f"it waits for its turn among {len(queue.items)}"
    return describe(explanation)


def list_waiting(state: State) -> Iterator[Waiting]:
    """Every queue, as patience looks at it."""
    for want_id, queue in state.queues.items():
        names = list(dict.fromkeys(item.job for item, _ in zip(queue.items, range(_NAMED), strict=False)))
        yield Waiting(
            want_id, since(state, queue), len(queue.items), ", ".join(names), reason_of_queue(state, queue),
            want_id in state.explanations,
        )  # fmt: skip


def oldest_s(state: State, now: float) -> float:
    """How long what waits longest has waited; 0 when nothing does."""
    return max((now - since(state, queue) for queue in state.queues.values()), default=0.0)


def since(state: State, queue: Queue) -> float:
    """When the first of a queue began to wait. What is put back for a retry waits anew, at the end of its queue."""
    return queue.items[next(iter(queue.items))]
