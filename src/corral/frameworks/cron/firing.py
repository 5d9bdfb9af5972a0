"""Brings every job that an input touched to where it should be.

What may be launched waits for resources, what is in the way ends, and the clock is set for the next look.

Every input ends in `settle`. What is too much for one input goes on in the next; what is half done after a crash is
done again from the records. Source: Chronos' contract, section 2.4.
"""

import heapq

from corral.frameworks.cron import admission, outcomes
from corral.frameworks.cron.admission import HELD
from corral.frameworks.cron.dags.commands import prune as prune_dags
from corral.frameworks.cron.dags.due import settle_dags
from corral.frameworks.cron.ending import end_run
from corral.frameworks.cron.keys import history_key, run_key
from corral.frameworks.cron.launch import make_want
from corral.frameworks.cron.outcomes import end_attempt, lose
from corral.frameworks.cron.plan import SET_BACK_S, deadline, plan_job
from corral.frameworks.cron.spec import Result, Run, RunState
from corral.frameworks.cron.state import Job, State, replace
from corral.frameworks.cron.waiting import list_waiting
from corral.runtime.core import Effect, Note, Persist, SetTimer
from corral.sdk.patience import LOOK_S

FIRE = "fire"
WORK = "work"
PRUNE = "prune"
WANTS = "wants"
PATIENCE = "patience"
LOOKS_AT_ONCE = 500
MOST_SLEEP_S = 60.0
"""The clock is looked at this often at least, as somebody may set it."""
PRUNE_S = 600.0


def settle(state: State, now: float) -> list[Effect]:
    """Look at what was touched, and set the timers for the rest."""
    effects: list[Effect] = []
    budget, looks = state.config.most_writes, LOOKS_AT_ONCE
    if now < state.seen_at - SET_BACK_S:
        # What sleeps until an instant may sleep much longer now than was meant.
        state.touch(state.jobs)
    state.seen_at = now
    while state.signals and budget > 0:
        found = outcomes.pass_on(state, next(iter(state.signals)), now)
        budget -= len(found)
        effects += found
    while state.dirty and budget > 0 and looks > 0:
        name = next(iter(state.dirty))
        del state.dirty[name]
        looks -= 1
        job = state.jobs.get(name)
        if job is not None and not job.record.leaving:
            found = _look_at(state, job, now)
            budget -= len(found)
            effects += found
    found = settle_dags(state, budget, now)
    budget -= len(found)
    effects += found
    while state.trash and budget > 0:
        effects.append(Persist(state.trash.pop(), None))
        budget -= 1
    return [*effects, *_set_timers(state, now)]


def _look_at(state: State, job: Job, now: float) -> list[Effect]:
    """Perform the job's plan."""
    effects = _give_up(state, job, now)
    plan = plan_job(job, int(now * 1000), state.config.unreachable_timeout_s)
    if plan.skipped is not None and plan.skipped > job.skipped:
        job.skipped = plan.skipped
        late_s = round(now - plan.skipped / 1000, 1)
        why = f"it is due since {late_s:g} s, at most {(job.most_late or 0) / 1000:g} s late it may start"
        effects.append(Note("firing skipped", why, "warning", {"job": job.name, "due": plan.skipped}))
    for end in plan.ends:
        effects += end_run(state, job, job.runs[end.run], end.why, now)
    if job.items:
        wanted = {item.what for item in plan.items}
        for what in [w for w in job.items if w not in wanted]:
            state.unqueue(job, what)
    for item in plan.items:
        if item.what not in job.items:
            since_at = now if item.since_at is None else min(item.since_at, now)
            state.enqueue(job, job.want or make_want(job.spec, state.config), item.what, since_at)
    state.wake(job, plan.wake_at)
    return effects


def _give_up(state: State, job: Job, now: float) -> list[Effect]:
    """End what has had its time."""
    if not job.runs:
        return []
    effects: list[Effect] = []
    unreachable_s = state.config.unreachable_timeout_s
    for run in job.live:
        run, found = _count_anew(state, job, run, now)
        effects += found
        at = deadline(job, run, unreachable_s)
        if run.state is RunState.REPORTING and not job.spec.is_async:
            effects += end_attempt(state, job, run, Result.SUCCESS, "the job is no longer asynchronous", now)
        elif at is not None and at <= now * 1000:
            if run.unreachable_at is not None:
                why = f"its agent has been silent for {now - run.unreachable_at:.0f} s, {unreachable_s:g} s are allowed"
                effects += lose(state, job, run, why, now)
            else:
                why = f"nobody reported its end within {job.spec.most_run_s} s"
                effects += end_attempt(state, job, run, Result.FAILURE, why, now)
    return effects


def _count_anew(state: State, job: Job, run: Run, now: float) -> tuple[Run, list[Effect]]:
    """Where the wall clock was set back to before the instant from which a run's time is counted, that is now."""
    if run.unreachable_at is not None and run.unreachable_at > now + SET_BACK_S:
        run = replace(run, unreachable_at=now)
    elif run.state is RunState.REPORTING and run.launched_at is not None and run.launched_at > now + SET_BACK_S:
        run = replace(run, launched_at=now)
    else:
        return run, []
    state.place(job, run)
    return run, [Persist(run_key(run), run)]


def _set_timers(state: State, now: float) -> list[Effect]:
    effects: list[Effect] = []
    dags = state.dags
    waits = state.dirty or state.signals or state.trash or state.backlog or state.leaving
    if waits or dags.busy or dags.closing:
        effects.append(SetTimer(WORK, 0.0, if_unset=True))
    wake_at = min((at for at in (state.next_wake(), dags.next_at) if at is not None), default=None)
    if wake_at is not None and wake_at != state.fire_at:
        state.fire_at = wake_at
        effects.append(SetTimer(FIRE, min(max(0.0, wake_at / 1000 - now), MOST_SLEEP_S)))
    if state.queues and not state.patience.is_set:
        state.patience.is_set = True
        effects.append(SetTimer(PATIENCE, LOOK_S))
    if state.held:
        effects.append(SetTimer(HELD, admission.LOOK_S, if_unset=True))
    if state.wants_changed and state.connected:
        # Gathered a little, as each saying costs the length of the whole list.
        effects.append(SetTimer(WANTS, 0.001 + 0.00002 * len(state.queues), if_unset=True))
    return effects


def look_for_waiting(state: State, now: float) -> list[Effect]:
    """Tell of what waits long, and note whether the master says anything of what waits."""
    slow_s = state.config.slow_start_s
    return state.patience.look(list_waiting(state), now, slow_s=slow_s, connected=state.connected)


def fire(state: State, now: float) -> list[Effect]:
    """The clock went off: look at every job whose instant has come."""
    state.fire_at = None
    found = 0
    while found < LOOKS_AT_ONCE and (at := state.next_wake()) is not None and at <= now * 1000:
        _, name = heapq.heappop(state.heap)
        state.jobs[name].wake_at = None
        state.dirty[name] = None
        found += 1
    return []


def prune(state: State, now: float) -> list[Effect]:
    """Forget history that is older than it is to be kept."""
    oldest_at = now - state.config.history_s
    for job in state.jobs.values():
        while job.history and job.history[0].ended_at < oldest_at:
            state.trash.append(history_key(job.history.popleft()))
    prune_dags(state, now)
    return [SetTimer(PRUNE, PRUNE_S)]
