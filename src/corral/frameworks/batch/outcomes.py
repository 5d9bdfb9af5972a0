"""What becomes of a job: every change of its state, and all that follows from one.

Rules: a change is written before anybody hears of it; an end is final. A failed attempt is made again as often as
`retries` says; one whose agent was lost is made again without that up to five times; an attempt whose fate nobody knows
is made again under at-least-once and never under at-most-once, unless it is certain that nobody started it.
Source: the batch contract, states and rules.
"""

import heapq

import msgspec

from corral.frameworks.batch import queue
from corral.frameworks.batch.spec import (
    ACTIVE,
    JOB_STATES,
    Delivery,
    JobEvent,
    JobState,
    Progress,
)
from corral.frameworks.batch.state import WAIT, ArrayEntry, BundleEntry, Job, State, cost_of, name_task
from corral.frameworks.batch.views import view_job, view_waiter
from corral.lib.backoff import grow_delay_s
from corral.runtime.core import CancelTimer, Effect, Note, Persist, Reply
from corral.sdk.effects import Publish
from corral.sdk.notices import Notice, is_full, send

replace = msgspec.structs.replace

FREE_LOSSES = 5
MOST_DELAY_S = 3600.0
FIRST_LOSS_S = 1.0
MOST_LOSS_S = 60.0
JOB = "job/"


def job_key(job: Job) -> str:
    return f"{JOB}{job.id}"


def bundle_key(bundle: BundleEntry) -> str:
    return f"bundle/{bundle.seq:012x}"


def move(state: State, job: Job, event: JobEvent, run: Progress, job_id: str = "") -> list[Effect]:
    """Take the step in memory, count it, and say what has to be written and who is to hear of it.

    Shapes: `run` is the job's progress without its new state; `job_id` spares making it once more.
    """
    job_id = job_id or job.id
    before = job.state
    after = JOB_STATES[before, event]
    run = job.run = replace(run, state=after)
    owner, array = state.owner(job.spec.owner), job.array
    state.counts[before] -= 1
    state.counts[after] += 1
    if before is JobState.QUEUED:
        state.queued -= 1
        owner.queued -= 1
    elif after is JobState.QUEUED:
        state.queued += 1
        owner.queued += 1
    if before in ACTIVE and after not in ACTIVE:
        del state.active[name_task(job_id, run.attempt)]
        state.endings.pop(job, None)
        owner.active -= 1
        owner.cost -= cost_of(job.spec)
        if owner.active == 0:
            owner.cost = 0.0
        if owner.record.max_running:
            state.wants_changed = True
        if array is not None:
            array.active -= 1
    elif before not in ACTIVE and after in ACTIVE:
        state.active[name_task(job_id, run.attempt)] = job
        owner.active += 1
        owner.cost += cost_of(job.spec)
        if array is not None:
            array.active += 1
    if array is not None:
        array.counts[before] -= 1
        array.counts[after] += 1
    effects: list[Effect] = [] if event is JobEvent.START else [Persist(JOB + job_id, run)]
    if state.followed:
        effects.append(Publish(kind=str(after), body=event_body(job, run)))
    return effects


def event_body(job: Job, run: Progress) -> dict[str, object]:
    return {
        "id": job.id, "owner": job.spec.owner, "name": job.spec.name, "state": str(run.state), "attempt": run.attempt,
        "exit_code": run.exit_code, "reason": run.reason, "agent": run.agent_id or None,
    }  # fmt: skip


def end(
    state: State, job: Job, event: JobEvent, reason: str, now: float, exit_code: int | None = None, job_id: str = ""
) -> list[Effect]:  # fmt: skip
    """The job is over for good."""
    before = job.run or Progress(state=JobState.QUEUED)
    if job.state is JobState.QUEUED:
        queue.leave(state, job)
    run = replace(before, finished_at=now, exit_code=exit_code, reason=reason[:1000], ready_at=0.0, evicted="")
    effects = move(state, job, event, run, job_id)
    state.finished.add(now)
    array = job.array
    if array is None:
        effects += _conclude(state, job, now)
        return effects
    array.ended += 1
    effects += _wake(state, job)
    if array.ended == array.count:
        return [*effects, *end_array(state, array, now)]
    queue.unpark(state, array)
    return effects


def end_array(state: State, array: ArrayEntry, now: float) -> list[Effect]:
    """The last element is over, and with it the array."""
    parent, counts = array.parent, array.counts
    good = counts[JobState.SUCCEEDED] == array.count
    order = (JobState.FAILED, JobState.TIMEOUT, JobState.EXPIRED, JobState.KILLED)
    after = JobState.SUCCEEDED if good else next((s for s in order if counts[s]), JobState.KILLED)
    reason = array.ending or ", ".join(f"{counts[s]} {s}" for s in JobState if counts[s])
    parent.run = replace(
        parent.run or Progress(state=JobState.QUEUED), state=after, finished_at=now, reason=reason
    )  # fmt: skip
    queue.leave(state, parent)
    effects: list[Effect] = [Persist(job_key(parent), parent.run)]
    if state.followed:
        effects.append(Publish(kind=str(after), body=event_body(parent, parent.run)))
    return [*effects, *_conclude(state, parent, now)]


def _conclude(state: State, job: Job, now: float) -> list[Effect]:
    """Tell those who wait, and keep the record as long as it is to be kept."""
    effects = _wake(state, job)
    if job.spec.callback and not is_full(state.outbox):
        body = msgspec.json.encode(view_job(state, job, now)).decode()
        notice = Notice(id=job.id, subject=f"job {job.id} {job.state}", body=body, url=job.spec.callback)
        effects += send(state.outbox, notice)
    retain(state, job, now)
    return effects


def _wake(state: State, job: Job) -> list[Effect]:
    if not state.waiters:
        return []
    effects: list[Effect] = []
    job_id = job.id
    for waiter in state.waiters.pop(job_id, ()):
        waiter.pending.discard(job_id)
        if waiter.ask in state.waiting and (waiter.any or not waiter.pending):
            del state.waiting[waiter.ask]
            effects += (Reply(waiter.ask, view_waiter(waiter)), CancelTimer(f"{WAIT}{waiter.ask}"))
    return effects


def retain(state: State, job: Job, now: float) -> None:
    """Remember an ended job for its time."""
    run = job.run
    assert run is not None
    finished_at = now if run.finished_at is None else run.finished_at
    heapq.heappush(state.ended, (finished_at + job.spec.ttl, job.bundle.seq, job.place))
    state.kept += 1


def forget(state: State, job: Job) -> None:
    """The job's time is up: nobody knows it any more.

    Its records stay as long as its bundle's: a job of a bundle that has none is one that waits for its first launch.
    """
    bundle, array = job.bundle, job.array
    if job.run is not None:
        bundle.gone.append(job_key(job))
    if array is not None:
        bundle.gone.extend(job_key(each) for each in array.elements.values())
        for state_of, count in array.counts.items():
            state.counts[state_of] -= count
    else:
        state.counts[job.state] -= 1
    if job.spec.key and state.keys.get((job.spec.owner, job.spec.key)) is job:
        del state.keys[job.spec.owner, job.spec.key]
    bundle.jobs[job.place] = None
    bundle.left -= 1
    state.kept -= 1
    if bundle.left == 0:
        drop_bundle(state, bundle)


def forget_old(state: State, now: float) -> None:
    """What was forgotten in the last life, and whatever else had its time since."""
    while state.ended and state.ended[0][0] <= now:
        _, seq, place = heapq.heappop(state.ended)
        bundle = state.bundles.get(seq)
        job = None if bundle is None else bundle.jobs[place]
        if job is not None:
            forget(state, job)


def drop_bundle(state: State, bundle: BundleEntry) -> None:
    """Nothing of the bundle is left to know. Shapes: its own record goes first, what it leaves is nobody's job then."""
    del state.bundles[bundle.seq]
    state.trash.append(bundle_key(bundle))
    state.trash.extend(bundle.gone)
    if bundle.request:
        state.requests.pop(bundle.request, None)


# Ends of attempts.


def end_attempt(
    state: State, job: Job, event: JobEvent, reason: str, now: float, *, exit_code: int | None = None,
    may_retry: bool = True, job_id: str = "",
) -> list[Effect]:  # fmt: skip
    """The attempt is over; another follows, or the job is over too."""
    run = job.run
    assert run is not None
    if run.ending and event is not JobEvent.SUCCEED:
        return end(state, job, JobEvent.KILL, run.ending, now, exit_code)
    failed = event in (JobEvent.FAIL, JobEvent.RUN_OUT)
    if not failed or not may_retry or run.failures >= job.spec.retries or _is_ending(job):
        effects = end(state, job, event, reason, now, exit_code, job_id)
        if failed:
            effects.append(Note("job ended", reason, "info", {**_facts(job), "state": str(job.state)}))
        return effects
    delay_s = 0.0
    if job.spec.retry_delay > 0:
        most_s = max(MOST_DELAY_S, job.spec.retry_delay)
        delay_s = grow_delay_s(run.failures + 1, first_s=job.spec.retry_delay, factor=2.0, most_s=most_s)
    run = replace(run, failures=run.failures + 1, exit_code=exit_code)
    effects = put_back(state, job, run, reason, now, delay_s=delay_s)
    effects.append(Note("attempt failed", reason, "info", {**_facts(job), "retry_s": delay_s}))
    return effects


def _is_ending(job: Job) -> bool:
    return job.array is not None and bool(job.array.ending)


def put_back(
    state: State, job: Job, run: Progress, reason: str, now: float, *, delay_s: float = 0.0, front: bool = False
) -> list[Effect]:
    """The job waits once more, for its next attempt."""
    run = replace(
        run, queued_at=run.queued_at if front else now, ready_at=now + delay_s if delay_s > 0 else 0.0, agent_id="",
        hostname="", launched_at=0.0, started_at=None, unreachable_at=None, reason=reason[:1000], ending="", evicted="",
    )  # fmt: skip
    effects = move(state, job, JobEvent.AGAIN, run)
    if delay_s > 0:
        state.look_again(now + delay_s, "ready", job)
    else:
        queue.join(state, job, front=front)
    if job.spec.queue_timeout > 0:
        state.look_again(now + job.spec.queue_timeout, "expire", job)
    if job.array is not None:
        queue.unpark(state, job.array)
    return effects


def lose(state: State, job: Job, reason: str, now: float, *, surely_unstarted: bool = False) -> list[Effect]:
    """Nobody can tell any more what becomes of the task, or it is certain that there never was one."""
    run = job.run
    assert run is not None
    if run.ending or _is_ending(job):
        return end(state, job, JobEvent.KILL, run.ending or reason, now)
    if surely_unstarted:
        return put_back(state, job, run, reason, now, front=True)
    if job.spec.delivery is Delivery.AT_MOST_ONCE:
        why = f"lost, and it is run at most once: {reason}"
        return end_attempt(state, job, JobEvent.FAIL, why, now, may_retry=False)
    if run.losses >= FREE_LOSSES:
        return end_attempt(state, job, JobEvent.FAIL, f"lost {run.losses + 1} times: {reason}", now)
    delay_s = 0.0
    if run.losses:
        delay_s = grow_delay_s(run.losses, first_s=FIRST_LOSS_S, factor=2.0, most_s=MOST_LOSS_S)
    effects = put_back(state, job, replace(run, losses=run.losses + 1), reason, now, delay_s=delay_s, front=True)
    return [*effects, Note("attempt is made again", reason, "info", _facts(job))]


def make_room(state: State, job: Job, reason: str, now: float) -> list[Effect]:
    """The attempt has ended for the sake of others: the job is the next of its line, and no retry is used up."""
    run = job.run
    assert run is not None
    if run.ending or _is_ending(job):
        return end(state, job, JobEvent.KILL, run.ending or reason, now)
    if job.spec.delivery is Delivery.AT_MOST_ONCE:
        return end(state, job, JobEvent.KILL, f"ended for others, and it is run at most once: {reason}", now)
    state.evicted += 1
    run = replace(run, preemptions=run.preemptions + 1)
    return put_back(state, job, run, run.evicted or reason, now, front=True)


def _facts(job: Job) -> dict[str, object]:
    run = job.run
    return {
        "job": job.id, "owner": job.spec.owner, "attempt": 0 if run is None else run.attempt,
        "agent": "" if run is None else run.agent_id,
    }  # fmt: skip
