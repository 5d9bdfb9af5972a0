"""What the clock brings: retries that are due, waits that ran out, records whose time is up; and the timers for it.

Each look takes only as much as one transaction holds; the rest is taken by the next.
"""

import heapq

from corral.frameworks.batch import commands, offers, queue
from corral.frameworks.batch.outcomes import end, forget
from corral.frameworks.batch.spec import JobEvent, JobState
from corral.frameworks.batch.state import Job, State
from corral.frameworks.batch.updates import silent
from corral.runtime.core import Effect, Persist, SetTimer
from corral.sdk.patience import LOOK_S

DUE, WORK, WANTS, AGE, HELD, PREEMPT = "due", "work", "wants", "age", "held", "preempt"
PATIENCE = "patience"
AGE_EVERY_S = 30.0
PREEMPT_EVERY_S = 1.0
LEAST_SLEEP_S, MOST_SLEEP_S = 0.001, 3600.0
LOOKS_AT_ONCE = 64
PRUNE_PAUSE_S = 0.5


def settle(state: State, now: float) -> list[Effect]:
    """After every input: what has to be done soon, and when to wake for the rest."""
    effects: list[Effect] = []
    if state.wants_changed and state.connected:
        # Gathered a little, as each saying costs as much as there are owners and shapes.
        effects.append(SetTimer(WANTS, 0.001 + 0.00002 * len(state.shapes), if_unset=True))
        if state.held or len(state.owners) > 0:
            effects.append(SetTimer(AGE, AGE_EVERY_S, if_unset=True))
    if state.backlog or state.kills or len(state.trash) >= state.config.most_writes:
        effects.append(SetTimer(WORK, 0.0, if_unset=True))
    if state.held:
        effects.append(SetTimer(HELD, 0.25, if_unset=True))
    if state.queued and not state.patience.is_set:
        state.patience.is_set = True
        effects.append(SetTimer(PATIENCE, LOOK_S))
    if state.urgent:
        effects.append(SetTimer(PREEMPT, PREEMPT_EVERY_S, if_unset=True))
    wake_at = _next_wake(state)
    if wake_at is not None and (state.due_at is None or wake_at < state.due_at):
        state.due_at = wake_at
        effects.append(SetTimer(DUE, min(max(LEAST_SLEEP_S, wake_at - now), MOST_SLEEP_S)))
    return effects + state.node_memory.settle()


def _next_wake(state: State) -> float | None:
    at = state.due[0][0] if state.due else None
    if state.kept > state.config.most_kept:
        return 0.0
    if state.ended or state.trash:
        # Pruned now and then, many at once.
        ends_at = state.ended[0][0] + PRUNE_PAUSE_S if state.ended else 0.0
        at = ends_at if at is None else min(at, ends_at)
    return at


def look(state: State, now: float) -> list[Effect]:
    """The clock went off: look at every job whose instant has come, and forget what is to be forgotten."""
    state.due_at = None
    effects: list[Effect] = []
    looks = 0
    while state.due and state.due[0][0] <= now and looks < LOOKS_AT_ONCE:
        _, _, what, job = heapq.heappop(state.due)
        looks += 1
        effects += _look_at(state, what, job, now)
    return [*effects, *prune(state, now)]


def _look_at(state: State, what: str, job: Job, now: float) -> list[Effect]:
    if what == "silent":
        return silent(state, job, now)
    if job.state is not JobState.QUEUED:
        return []
    if what == "ready":
        if job.line is None and (job.run is None or job.run.ready_at <= now + 0.0005):
            queue.join(state, job)
        return []
    waits_until = job.queued_at + job.spec.queue_timeout
    if waits_until > now + 0.0005:
        return []
    why = f"it waited for {job.spec.queue_timeout:g} s"
    if job.is_array:
        array = job.array
        return commands.expire_array(state, array, why, now) if array is not None and array.next == 0 else []
    return end(state, job, JobEvent.EXPIRE, why, now)


def prune(state: State, now: float) -> list[Effect]:
    """Forget ended jobs whose time is up, the oldest too when more are kept than may be."""
    room = state.config.most_writes - len(state.trash)
    while state.ended and room > 0 and (state.ended[0][0] <= now or state.kept > state.config.most_kept):
        _, seq, place = heapq.heappop(state.ended)
        bundle = state.bundles.get(seq)
        job = None if bundle is None else bundle.jobs[place]
        if job is not None:
            forget(state, job)
            room -= 1
    state.forget_owners()
    return take_out(state)


def take_out(state: State) -> list[Effect]:
    """Delete the records of what is forgotten, as many as one transaction holds."""
    most = state.config.most_writes
    keys, state.trash = state.trash[:most], state.trash[most:]
    return [Persist(key, None) for key in keys]


def work(state: State, now: float) -> list[Effect]:
    """Whatever was too much for one input."""
    if state.backlog:
        return offers.work_off(state, now)
    if state.kills:
        return commands.work_off_kills(state, now)
    return take_out(state)
