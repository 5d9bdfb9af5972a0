"""The records of the last life made into state again; recovery is nothing but this.

A bundle is there whole, so every job that was answered for is found; one without progress has only waited. What was
launched is reconciled with the master by the session as soon as it is subscribed.
"""

from corral.frameworks.batch import queue
from corral.frameworks.batch.admission import enter
from corral.frameworks.batch.commands import load_order
from corral.frameworks.batch.outcomes import end_array, forget_old, retain
from corral.frameworks.batch.spec import ACTIVE, TERMINAL, Bundle, JobState, KillOrder, Owner, Progress
from corral.frameworks.batch.state import Job, State, cost_of, end_of_fresh, make_element, name_task
from corral.frameworks.batch.updates import order_end
from corral.runtime.core import Effect, Loaded, Note, decode_records
from corral.sdk import notices, tokens


def load(state: State, loaded: Loaded, now: float) -> list[Effect]:
    """Errors: `msgspec.ValidationError` when a record is not of its kind; the process must not go on then."""
    for reserved in decode_records(loaded, tokens.RECORD, tokens.Tokens).values():
        state.tokens.load(reserved)
    for name, owner in decode_records(loaded, "owner/", Owner).items():
        state.owner(name).record = owner
    progress = decode_records(loaded, "job/", Progress)
    _load_bundles(state, decode_records(loaded, "bundle/", Bundle), progress)
    effects: list[Effect] = state.node_memory.load(loaded, now)
    arrays: list[Job] = []
    for bundle in list(state.bundles.values()):
        for job in list(bundle.jobs):
            if job is not None and job.is_array:
                arrays.append(job)
            elif job is not None:
                _place(state, job, now)
    elements: dict[str, dict[int, Progress]] = {}
    for key in [key for key in progress if key.endswith("]")]:
        job_id, _, element = key[:-1].partition("[")
        elements.setdefault(job_id, {})[int(element)] = progress.pop(key)
    for job in arrays:
        effects += _load_array(state, job, elements.pop(job.id, {}), now)
    forget_old(state, now)
    state.trash += [f"job/{key}" for key in progress]
    state.trash += [f"job/{key}[{k}]" for key, found in elements.items() for k in found]
    for number, order in decode_records(loaded, "kill/", KillOrder).items():
        load_order(state, int(number), order)
    effects += notices.take_up(state.outbox, loaded)
    for job in state.active.values():
        assert job.run is not None
        if job.run.ending or job.run.evicted:
            effects += order_end(state, job)
    if state.bundles:
        facts = {"jobs": sum(state.counts.values()), "waiting": state.queued, "active": len(state.active)}
        effects.append(Note("batch recovered", "records of the last life", facts=facts))
    return effects


def _load_bundles(state: State, bundles: dict[str, Bundle], progress: dict[str, Progress]) -> None:
    """Shapes: what is taken in leaves `progress`; what stays there belongs to jobs that are forgotten."""
    for key, record in sorted(bundles.items()):
        seq = int(key, 16)
        state.seq = max(state.seq, seq)
        bundle = state.add_bundle(seq, record)
        bundle.digest, bundle.duplicates = record.digest, record.duplicates
        for job in bundle.jobs:
            assert job is not None
            job.run = progress.pop(job.id, None)
    for key, record in bundles.items():
        first = int(key, 16)
        seqs = tuple(range(first, first + record.parts))
        if record.request and all(seq in state.bundles for seq in seqs):
            state.add_request(record.request, seqs)


def _place(state: State, job: Job, now: float) -> None:
    """One job, where its record says it is."""
    run, owner = job.run, state.owner(job.spec.owner)
    if run is None:
        enter(state, job)
        return
    state.counts[run.state] += 1
    if run.state in TERMINAL:
        if job.array is None:
            retain(state, job, now)
        return
    if run.state in ACTIVE:
        state.active[name_task(job.id, run.attempt)] = job
        owner.active += 1
        owner.cost += cost_of(job.spec)
        return
    state.queued += 1
    owner.queued += 1
    if run.ready_at > now:
        state.look_again(run.ready_at, "ready", job)
    else:
        queue.join(state, job)
    if job.spec.queue_timeout > 0:
        state.look_again(job.queued_at + job.spec.queue_timeout, "expire", job)


def _load_array(state: State, job: Job, found: dict[int, Progress], now: float) -> list[Effect]:
    array = job.array
    assert array is not None
    launched = [k for k, run in found.items() if run.attempt]
    array.next = max(launched, default=-1) + 1
    for k, run in sorted(found.items()):
        element = array.elements[k] = make_element(job, k)
        element.run = run
        _place(state, element, now)
        array.counts[run.state] += 1
        array.active += run.state in ACTIVE
        array.ended += run.state in TERMINAL
        if k >= array.next:
            array.skipped.add(k)
    fresh = array.fresh
    over = job.state in TERMINAL
    if over or (job.run is not None and job.run.ending):
        array.ending = (job.run.ending if job.run is not None else "") or "over"
        array.skipped = set()
        after = end_of_fresh(job)
        array.counts[after] += fresh
        array.ended += fresh
        state.counts[after] += fresh
        if over:
            retain(state, job, now)
        elif array.ended == array.count:
            return end_array(state, array, now)
        return []
    array.counts[JobState.QUEUED] += fresh
    state.counts[JobState.QUEUED] += fresh
    state.queued += fresh
    state.owner(job.spec.owner).queued += fresh
    if array.ended == array.count:
        return end_array(state, array, now)
    if fresh:
        if array.is_full():
            array.parked = True
        else:
            queue.join(state, job)
    if job.spec.queue_timeout > 0:
        state.look_again(job.bundle.at + job.spec.queue_timeout, "expire", job)
    return []
