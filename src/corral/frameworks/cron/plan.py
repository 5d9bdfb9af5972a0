"""Decides what of one job may be launched now, what is in its way, and when to look again.

Rule: the plan is made anew from the records after every input that touched the job; interrupted anywhere, the next
plan is still right. A firing is used up by its launch and by nothing before.
Source: Chronos' contract, sections 2.4 and 2.5.
"""

from collections.abc import Sequence

import msgspec

from corral.frameworks.cron.schedule import Due, find_due
from corral.frameworks.cron.spec import LIVE, Concurrency, Misfire, Run, RunState
from corral.frameworks.cron.state import BACKFILLED, SCHEDULED, Job

SET_BACK_S = 1.0
"""By how much the wall clock has to go back for somebody to have set it; corrections of every day are smaller."""


class Launchable(msgspec.Struct, frozen=True):
    """Shapes: `what` as in `state.Item`. Units: it waits since `since_at`, None is since now."""

    what: str
    why: str
    since_at: float | None = None


class End(msgspec.Struct, frozen=True):
    """A run that has to make way: its task is killed, or it is dropped when it has none."""

    run: str
    why: str


class JobPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Shapes: `items` are launchable now, in order; `ends` have to make way first; `wake_at` (ms) is when to look again
    though nothing happened; `skipped` is the last occurrence that came too late."""

    items: tuple[Launchable, ...] = ()
    ends: tuple[End, ...] = ()
    wake_at: int | None = None
    skipped: int | None = None


def due_now(job: Job, now_ms: int) -> Due:
    """What the job's schedule asks for, as long as it is enabled and has firings left."""
    grid, progress = job.grid, job.progress
    if grid is None or job.spec.disabled or progress.left == 0:
        return Due()
    cursor = max(progress.cursor, job.skipped)
    return find_due(grid, cursor, now_ms, each=job.spec.misfire is Misfire.ALL, most_late=job.most_late)


def plan_job(job: Job, now_ms: int, unreachable_s: float) -> JobPlan:
    """What may be launched of this job, under its concurrency policy. Units: `unreachable_s` is how long a run whose
    agent is silent keeps its place."""
    due, spec = due_now(job, now_ms), job.spec
    live, ready, later = _sort(job, now_ms)
    wake_at = due.next
    for at in (*(deadline(job, run, unreachable_s) for run in live), *(round(run.ready_at * 1000) for run in later)):
        if at is not None and (wake_at is None or at < wake_at):
            wake_at = at
    if spec.disabled:
        ends = tuple(End(run.id, "the job is disabled") for run in job.queued)
        return JobPlan(ends=ends, wake_at=wake_at, skipped=due.skipped)
    if spec.concurrency is Concurrency.ALLOW:
        return JobPlan(items=_all(job, ready, due), wake_at=wake_at, skipped=due.skipped)
    if spec.concurrency is Concurrency.REPLACE and (fresh := _fresh(ready, due)) is not None:
        items = () if live else (fresh,)
        return JobPlan(items=items, ends=_in_the_way(job), wake_at=wake_at, skipped=due.skipped)
    first = _first(job, ready, due)
    busy = bool(live) or any(is_retry(run) for run in later)
    items = () if busy or first is None else (first,)
    return JobPlan(items=items, wake_at=wake_at, skipped=due.skipped)


def _sort(job: Job, now_ms: int) -> tuple[list[Run], list[Run], list[Run]]:
    """The runs that have a task, those that may be launched now, and the retries that are still ahead."""
    live: list[Run] = []
    ready: list[Run] = []
    later: list[Run] = []
    for run in job.runs.values():
        if run.state in LIVE:
            live.append(run)
        else:
            (ready if _is_ready(run, now_ms) else later).append(run)
    return live, ready, later


def _is_ready(run: Run, now_ms: int) -> bool:
    """Whether it has waited long enough. Where the wall clock was set back to before it began to wait, nobody can tell
    for how long it has, and its instant may be far away: it is tried now."""
    return run.ready_at * 1000 <= now_ms or run.queued_at * 1000 > now_ms + SET_BACK_S * 1000


def is_retry(run: Run) -> bool:
    """Whether it was launched before, so that its firing has begun."""
    return run.attempt > 0 or run.lost > 0


def deadline(job: Job, run: Run, unreachable_s: float) -> int | None:
    """When a live run is given up, in ms: its agent is silent for too long, or its report has not come in time."""
    if run.unreachable_at is not None:
        return round((run.unreachable_at + unreachable_s) * 1000)
    if run.state is RunState.REPORTING and job.spec.most_run_s > 0 and run.launched_at is not None:
        return round((run.launched_at + job.spec.most_run_s) * 1000)
    return None


def _fresh(ready: Sequence[Run], due: Due) -> Launchable | None:
    """A firing that has not begun; a backfill is none, as its firings would end one another."""
    promised = [run for run in ready if not is_retry(run)]
    if promised:
        return _launchable(min(promised, key=lambda r: (r.queued_at, r.due, r.id)))
    return None if due.due is None else _scheduled(due.due)


def _in_the_way(job: Job) -> tuple[End, ...]:
    why = "a newer firing replaces it"
    ends = [End(run.id, why) for run in job.live if not run.ending]
    return (*ends, *(End(run.id, why) for run in job.queued if is_retry(run)))


def _all(job: Job, ready: Sequence[Run], due: Due) -> tuple[Launchable, ...]:
    found = [_launchable(run) for run in ready]
    if due.due is not None:
        found.append(_scheduled(due.due))
    if job.backfill is not None:
        found.append(Launchable(BACKFILLED, "a backfill"))
    return tuple(found)


def _first(job: Job, ready: Sequence[Run], due: Due) -> Launchable | None:
    """Retries come first, then what was promised, then the schedule, then a backfill."""
    if ready:
        return _launchable(min(ready, key=lambda r: (not is_retry(r), r.queued_at, r.due, r.id)))
    if due.due is not None:
        return _scheduled(due.due)
    return Launchable(BACKFILLED, "a backfill") if job.backfill is not None else None


def _launchable(run: Run) -> Launchable:
    since_at = max(run.queued_at, run.ready_at)
    return Launchable(run.id, f"attempt {run.attempt + 1} of a firing by {run.cause}", since_at)


def _scheduled(due: int) -> Launchable:
    return Launchable(SCHEDULED, "its schedule", due / 1000)
