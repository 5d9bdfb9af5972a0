"""What people and programs ask of jobs that are there: ends, priorities, owners, waiting.

An end that is asked for is a record before it is answered, and so is not forgotten by a crash.
Source: the batch contract, API.
"""

from collections.abc import Iterator

import msgspec

from corral.frameworks.batch import queue
from corral.frameworks.batch.outcomes import end, end_array, job_key
from corral.frameworks.batch.spec import (
    ACTIVE,
    TERMINAL,
    JobEvent,
    JobState,
    KillJob,
    KillJobs,
    KillOrder,
    Owner,
    Progress,
    PutOwner,
    SetPriority,
    WaitJobs,
)
from corral.frameworks.batch.state import WAIT, ArrayEntry, Job, State, Waiter, matches
from corral.frameworks.batch.updates import order_end
from corral.frameworks.batch.views import shown_state, view_job, view_owner, view_waiter
from corral.lib.errors import Conflict, NotFound
from corral.runtime.core import Effect, Note, Persist, Reply, SetTimer

replace = msgspec.structs.replace

_ASKED = "somebody asked for it"


def need(state: State, job_id: str) -> Job:
    """Errors: `NotFound` for an id that is not known, or not any more."""
    job = state.find(job_id)
    if job is None:
        raise NotFound(f"there is no job {job_id!r}; ended ones are forgotten after their ttl")
    return job


def kill(state: State, ask: int, command: KillJob, now: float) -> list[Effect]:
    """Shapes: answered with whether there was anything left to end."""
    job = need(state, command.id)
    if job.state in TERMINAL:
        return [Reply(ask, False)]
    return [*end_job(state, job, _ASKED, now), Reply(ask, True)]


def end_job(state: State, job: Job, why: str, now: float) -> list[Effect]:
    """End one job, in whatever state it is; of an array all that has not ended."""
    if job.state in TERMINAL:
        return []
    if job.is_array:
        assert job.array is not None
        return _end_elements(state, job.array, why, now)
    if job.state in ACTIVE:
        assert job.run is not None
        if job.run.ending:
            return order_end(state, job)
        job.run = replace(job.run, ending=why, evicted="")
        return [Persist(job_key(job), job.run), *order_end(state, job)]
    array = job.array
    if array is not None and job.element is not None and job.element not in array.elements:
        # It was never launched: from here on it is one of those that were.
        return _end_fresh(state, job, array, why, now)
    return end(state, job, JobEvent.KILL, why, now)


def _end_fresh(state: State, job: Job, array: ArrayEntry, why: str, now: float) -> list[Effect]:
    """An element that was never launched is passed over when its turn comes."""
    assert job.element is not None
    parent = array.parent
    line = parent.line
    array.skipped.add(job.element)
    array.elements[job.element] = job
    state.wants_changed = True
    if line is not None:
        line.count -= 1
        if array.fresh == 0:
            queue.leave(state, parent, for_good=False)
    return end(state, job, JobEvent.KILL, why, now)


def expire_array(state: State, array: ArrayEntry, why: str, now: float) -> list[Effect]:
    """End an array of which nothing was launched in time."""
    return _end_elements(state, array, why, now, JobState.EXPIRED)


def _end_elements(
    state: State, array: ArrayEntry, why: str, now: float, after: JobState = JobState.KILLED
) -> list[Effect]:
    """Shapes: what was never launched ends as `after`."""
    parent = array.parent
    fresh = 0 if array.ending else array.fresh
    queue.leave(state, parent)
    array.ending, array.parked, array.skipped = why, False, set()
    parent.run = replace(parent.run or Progress(state=JobState.QUEUED), ending=why)
    effects: list[Effect] = [Persist(job_key(parent), parent.run)]
    owner = state.owner(parent.spec.owner)
    for counts in (array.counts, state.counts):
        counts[JobState.QUEUED] -= fresh
        counts[after] += fresh
    state.queued -= fresh
    owner.queued -= fresh
    array.ended += fresh
    state.finished.add(now, fresh)
    if array.ended == array.count:
        return [*effects, *end_array(state, array, now)]
    number = _order(state, KillOrder(ids=(parent.id,)), effects)
    state.kills[number] = state.kills[number][0], iter(list(array.elements.values()))
    return effects


def kill_many(state: State, ask: int, command: KillJobs, now: float) -> list[Effect]:
    """Shapes: answered with how many are to end; what is under way hears of it bit by bit."""
    order = KillOrder(
        ids=command.ids, owner=command.owner, label=command.label, state=command.state, before=state.seq + 1
    )
    count = sum(1 for _ in _victims(state, order))
    effects: list[Effect] = []
    if count:
        _order(state, order, effects)
        why = f"{count} jobs"
        facts = {"owner": command.owner, "label": command.label, "state": command.state}
        effects.append(Note("jobs are ended", why, facts={k: v for k, v in facts.items() if v}))
    return [*effects, Reply(ask, count)]


def _order(state: State, order: KillOrder, effects: list[Effect]) -> int:
    state.kill_number += 1
    number = state.kill_number
    effects.append(Persist(f"kill/{number}", order))
    state.kills[number] = order, _victims(state, order)
    return number


def load_order(state: State, number: int, order: KillOrder) -> None:
    state.kill_number = max(state.kill_number, number)
    state.kills[number] = order, _victims(state, order)


def _victims(state: State, order: KillOrder) -> Iterator[Job]:
    """What the order means and has not ended. Shapes: elements of an array are meant with it."""
    if order.ids:
        for job_id in order.ids:
            job = state.find(job_id)
            if job is not None and job.is_array and job.state not in TERMINAL and job.array and job.array.ending:
                yield from list(job.array.elements.values())
            elif job is not None and job.state not in TERMINAL:
                yield job
        return
    for seq in list(state.bundles):
        bundle = state.bundles.get(seq)
        if bundle is None or seq >= order.before:
            continue
        for job in list(bundle.jobs):
            if job is None or job.state in TERMINAL or not matches(job, order.owner, order.label, ""):
                continue
            if not order.state or shown_state(job) == order.state:
                yield job


def work_off_kills(state: State, now: float) -> list[Effect]:
    """End the next few of those that are to end."""
    effects: list[Effect] = []
    for number, (_, victims) in list(state.kills.items()):
        while len(effects) < state.config.most_writes // 2:
            job = next(victims, None)
            if job is None:
                del state.kills[number]
                effects.append(Persist(f"kill/{number}", None))
                break
            effects += end_job(state, job, _ASKED, now)
        else:
            return effects
    return effects


def set_priority(state: State, ask: int, command: SetPriority, now: float) -> list[Effect]:
    """Errors: `Conflict` unless the job waits."""
    job = need(state, command.id)
    if job.state is not JobState.QUEUED or (job.is_array and job.array is not None and job.array.ending):
        raise Conflict(f"job {job.id} is {job.state}; the priority of a job can be changed while it is QUEUED")
    if job.element is not None and job.array is not None and job.element not in job.array.elements:
        raise Conflict(f"element {job.id} waits with its array; change the priority of {job.array.parent.id}")
    in_line = job.line is not None
    if in_line:
        queue.leave(state, job, for_good=False)
    job.run = replace(job.run or Progress(state=JobState.QUEUED, queued_at=job.bundle.at), priority=command.priority)
    if in_line:
        queue.join(state, job)
    return [Persist(job_key(job), job.run), Reply(ask, view_job(state, job, now))]


def put_owner(state: State, ask: int, command: PutOwner) -> list[Effect]:
    owner = state.owner(command.owner)
    owner.record = command.record
    state.wants_changed = True
    effects: list[Effect] = [Reply(ask, view_owner(state, owner))]
    record: Owner | None = None if command.record == Owner() else command.record
    return [Persist(f"owner/{command.owner}", record), *effects]


# Waiting.


def wait(state: State, ask: int, command: WaitJobs) -> list[Effect]:
    """Answer when they are over, or when the time is. Shapes: what is not known is over."""
    pending = {job_id for job_id in command.ids if (job := state.find(job_id)) and job.state not in TERMINAL}
    waiter = Waiter(ask, command.ids, pending, command.any)
    over = len(pending) < len(set(command.ids)) if command.any else not pending
    if over or command.timeout <= 0:
        return [Reply(ask, view_waiter(waiter))]
    state.waiting[ask] = waiter
    for job_id in pending:
        state.waiters.setdefault(job_id, []).append(waiter)
    return [SetTimer(f"{WAIT}{ask}", command.timeout)]


def waited(state: State, name: str) -> list[Effect]:
    """The time of somebody who waits is up."""
    waiter = state.waiting.pop(int(name.removeprefix(WAIT)), None)
    if waiter is None:
        return []
    drop_waiter(state, waiter)
    return [Reply(waiter.ask, view_waiter(waiter))]


def drop_waiter(state: State, waiter: Waiter) -> None:
    for job_id in waiter.pending:
        others = state.waiters.get(job_id)
        if others is not None and waiter in others:
            others.remove(waiter)
            if not others:
                del state.waiters[job_id]
