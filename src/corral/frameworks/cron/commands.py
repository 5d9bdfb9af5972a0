"""What people ask for: jobs made, changed and deleted, runs started, ended, marked and reported.

Each function checks everything before it changes anything, so that a refused command leaves no trace.
Source: Chronos' contract, sections 1.2, 3, 5 and 6.
"""

import shlex
from collections.abc import Mapping

from corral.frameworks.cron import notices
from corral.frameworks.cron.ending import end_run, kill
from corral.frameworks.cron.graph import adopt_parents, check_parents, inherit
from corral.frameworks.cron.keys import history_key, run_key
from corral.frameworks.cron.launch import read_constraint
from corral.frameworks.cron.outcomes import succeed
from corral.frameworks.cron.plan import is_retry
from corral.frameworks.cron.schedule import Grid, Repeat, fill_start, list_between, period_s, read_schedule
from corral.frameworks.cron.spec import (
    AddElements,
    Backfill,
    Cause,
    Counters,
    DeleteJob,
    Edges,
    JobRecord,
    JobSpec,
    KillRuns,
    MarkSuccess,
    Progress,
    Purge,
    PutJob,
    ReportTask,
    Run,
    RunJob,
    RunState,
    StartBackfill,
    StopBackfill,
)
from corral.frameworks.cron.state import SCHEDULED, Job, State, replace
from corral.frameworks.cron.updates import end_reported
from corral.lib.errors import Conflict, Invalid
from corral.runtime.core import Effect, Note, Persist, Reply

CHILDREN_AT_ONCE = 16


def need_job(state: State, name: str) -> Job:
    """Errors: `Invalid`, as Chronos has it, for a job that does not exist."""
    job = state.visible(name)
    if job is None:
        raise Invalid(f"job {name!r} does not exist; GET /v1/scheduler/jobs lists the jobs")
    return job


# Definitions.


def put(state: State, ask: int, command: PutJob, now: float, notice: str = "") -> list[Effect]:
    """Create a job or replace its definition; answers with the notice. Errors: as `check`."""
    spec, grid = check(state, command, now)
    job = state.jobs.get(spec.name)
    if job is None:
        return [*_create(state, command, spec, grid, now), Reply(ask, notice)]
    return [*_change(state, command, job, spec, grid, now), Reply(ask, notice)]


def check(state: State, command: PutJob, now: float) -> tuple[JobSpec, Grid | None]:
    """The definition with its start filled in. Errors: `Invalid`, `Conflict` while one of its name still leaves."""
    given = command.spec
    if given.name in state.leaving:
        raise Conflict(f"job {given.name!r} was just deleted and its children do not all know it yet; try again")
    spec = given if given.schedule is None else replace(
        given, schedule=fill_start(given.schedule, given.time_zone, now)
    )  # fmt: skip
    return spec, _check(state, spec)


def _check(state: State, spec: JobSpec) -> Grid | None:
    """The job's schedule, if it has one. Errors: `Invalid`."""
    grid = None if spec.schedule is None else read_schedule(spec.schedule, spec.time_zone)
    if spec.epsilon is not None:
        period_s(spec.epsilon)
    for constraint in spec.constraints:
        read_constraint(constraint)
    if spec.parents:
        known: Mapping[str, tuple[str, ...]] = state.parents
        leaving = sorted(set(spec.parents) & set(state.leaving))
        if leaving:
            raise Invalid(f"job {spec.name!r} names the parents {', '.join(leaving)}, which are being deleted")
        check_parents(spec.name, spec.parents, known, has_children=spec.name in state.children)
    return grid


def _first_progress(grid: Grid | None, now: float) -> Progress:
    if isinstance(grid, Repeat):
        return Progress(cursor=grid.first - 1, left=grid.count)
    return Progress(cursor=int(now * 1000))


def _count(progress: Progress, counters: Counters) -> Progress:
    given = {f: v for f in counters.__struct_fields__ if (v := getattr(counters, f)) is not None}
    return replace(progress, **given)


def _create(state: State, command: PutJob, spec: JobSpec, grid: Grid | None, now: float) -> list[Effect]:
    record = JobRecord(spec=spec, given=command.spec.schedule or "", since_at=now)
    job = Job(record, _count(_first_progress(grid, now), command.counters))
    state.add_job(job)
    state.dirty[job.name] = None
    return [
        Persist(f"job/{job.name}", record),
        Persist(f"progress/{job.name}", job.progress),
        Note("job created", "somebody asked for it", facts={"job": job.name}),
        *_note_ignored(command),
    ]


def _change(state: State, command: PutJob, job: Job, spec: JobSpec, grid: Grid | None, now: float) -> list[Effect]:
    effects: list[Effect] = []
    given = command.spec.schedule or ""
    record = JobRecord(spec=spec, given=given, since_at=now)
    progress = job.progress
    if keeps_schedule(job, command.spec, grid):
        kept = replace(spec, schedule=job.spec.schedule)
        record = JobRecord(spec=kept, given=job.record.given, since_at=job.record.since_at)
    else:
        first = _first_progress(grid, now)
        progress = replace(progress, cursor=first.cursor, left=first.left)
        job.skipped = 0
        effects += _drop_backfill(job)
    before = job.edges
    job.edges = adopt_parents(job.edges, spec.parents)
    if job.edges != before:
        effects.append(Persist(f"edge/{job.name}", job.edges if spec.parents else None))
    job.progress = _count(progress, command.counters)
    state.adopt(job, record)
    state.dirty[job.name] = None
    return [
        *effects,
        Persist(f"job/{job.name}", record),
        Persist(f"progress/{job.name}", job.progress),
        Note("job changed", "somebody asked for it", facts={"job": job.name}),
        *_note_ignored(command),
    ]


def _note_ignored(command: PutJob) -> list[Effect]:
    """Say which fields of the request nobody understood."""
    if not command.ignored:
        return []
    why = f"nobody knows {', '.join(command.ignored[:10])}"
    return [Note("fields ignored", why, facts={"job": command.spec.name})]


def keeps_schedule(job: Job, spec: JobSpec, grid: Grid | None) -> bool:
    """Whether a definition says of the schedule what there is already: as it was submitted, or as it is shown now."""
    old = job.grid
    if old is None or grid is None:
        return False
    if spec.schedule == job.record.given and spec.time_zone == job.spec.time_zone:
        # "Now, once" that is said again after it was done means now again.
        return not ("//" in job.record.given and job.progress.left == 0)
    if isinstance(old, Repeat) and isinstance(grid, Repeat):
        if spec.time_zone != job.spec.time_zone or grid.period_text != old.period_text or grid.zone != old.zone:
            # An offset in the text says the same of a fixed zone only when it is the same offset.
            return False
        as_shown = grid.first == next_start(job) and grid.count == job.progress.left
        return as_shown or _was_shown(job, grid) or (grid.first == old.first and grid.count == old.count)
    return False


def _was_shown(job: Job, grid: Repeat) -> bool:
    """Whether it is the form of before the latest firing: who has read that could not know, and wants no second one."""
    left = job.progress.left
    return grid.first == job.progress.cursor and grid.count == (None if left is None else left + 1)


def next_start(job: Job) -> int | None:
    """The start that is shown: the next occurrence that is not yet dealt with; the anchor's own when none comes."""
    grid = job.grid
    if grid is None:
        return None
    found = grid.after(max(job.progress.cursor, job.skipped))
    if found is None and isinstance(grid, Repeat):
        return grid.latest(job.progress.cursor) or grid.first
    return found


def shown_schedule(job: Job) -> str:
    assert job.grid is not None
    return job.grid.write(job.progress.left, next_start(job))


# Deletion.


def delete(state: State, ask: int, command: DeleteJob, now: float) -> list[Effect]:
    """The job is gone at once for everybody who asks; its tasks end, its children find other parents."""
    job = need_job(state, command.name)
    # Should the kill go astray: the run is unknown from here on, and a task that no run knows is killed.
    effects = [effect for run in job.live if run.state is not RunState.REPORTING for effect in kill(state, run)]
    state.trash += [run_key(run) for run in job.runs.values()]
    state.unqueue_all(job)
    for run in list(job.runs.values()):
        state.drop_run(job, run)
    effects += notices.tell(state, job, "deleted", "somebody asked for it", now)
    effects.append(Note("job deleted", "somebody asked for it", facts={"job": job.name}))
    job.record = replace(job.record, leaving=True)
    state.leaving[job.name] = None
    step = leave(state, job.name, now)
    if job.name in state.leaving:
        step.append(Persist(f"job/{job.name}", job.record))
    return [*effects, *step, Reply(ask)]


def leave(state: State, name: str, now: float) -> list[Effect]:
    """Let the next few children of a deleted job know; with the last of them it is forgotten."""
    job = state.jobs[name]
    children = sorted(state.children.get(name, ()))
    effects: list[Effect] = []
    for child in children[:CHILDREN_AT_ONCE]:
        effects += _lose_parent(state, state.jobs[child], job)
    if len(children) <= CHILDREN_AT_ONCE:
        effects += _forget(state, job)
    return effects


def _lose_parent(state: State, child: Job, gone: Job) -> list[Effect]:
    parents = inherit(child.spec.parents, gone.name, gone.spec.parents)
    spec = replace(child.spec, parents=parents)
    record = replace(child.record, spec=spec)
    effects: list[Effect] = []
    if not parents:
        # Only the last parent's going makes a scheduled job of a child, and it goes on where that one was.
        spec = replace(spec, schedule=gone.spec.schedule, time_zone=gone.spec.time_zone, epsilon=gone.spec.epsilon)
        record = replace(child.record, spec=spec, given=gone.record.given, since_at=gone.record.since_at)
        child.progress = replace(child.progress, cursor=gone.progress.cursor, left=gone.progress.left)
        child.skipped = gone.skipped
        effects.append(Persist(f"progress/{child.name}", child.progress))
    child.edges = adopt_parents(child.edges, parents)
    state.adopt(child, record)
    state.dirty[child.name] = None
    why = f"its parent {gone.name} was deleted"
    return [
        *effects,
        Persist(f"job/{child.name}", record),
        Persist(f"edge/{child.name}", child.edges if parents else None),
        Note("job changed", why, facts={"job": child.name, "parents": list(parents)}),
    ]


def _forget(state: State, job: Job) -> list[Effect]:
    state.drop_job(job)
    state.leaving.pop(job.name, None)
    state.trash += [history_key(entry) for entry in job.history]
    effects: list[Effect] = [Persist(f"{kind}/{job.name}", None) for kind in ("job", "progress")]
    if job.edges != Edges():
        effects.append(Persist(f"edge/{job.name}", None))
    if job.backfill is not None:
        effects.append(Persist(f"backfill/{job.name}", None))
    for key in [k for k, s in state.signals.items() if s.parent == job.name]:
        del state.signals[key]
        effects.append(Persist(f"signal/{key}", None))
    return effects


# Runs.


def check_parameters(job: Job, given: Mapping[str, str]) -> None:
    """Errors: `Invalid` for a value that is missing, has no parameter of the job, or that no variable can hold."""
    known = {p.name: p for p in job.spec.parameters}
    unknown = sorted(set(given) - set(known))
    if unknown:
        has = ", ".join(known) or "none"
        raise Invalid(f"job {job.name!r} has no parameter {', '.join(unknown)}; it has {has}")
    missing = [name for name, p in known.items() if p.default is None and name not in given]
    if missing:
        raise Invalid(f"job {job.name!r} needs a value for {', '.join(missing)}; give it in parameters")
    if any("\0" in value for value in given.values()):
        raise Invalid(f"a value for job {job.name!r} has a NUL byte, which no variable can hold")


def run(state: State, ask: int, command: RunJob, now: float) -> list[Effect]:
    """Run now, in spite of schedule and parents; nothing happens when the job is disabled or waits to be run anyway.

    Deviates: a run that waits for its retry is tried at once, and one with other arguments is not passed over.
    """
    job = need_job(state, command.name)
    check_parameters(job, command.parameters)
    if "\0" in command.arguments:
        raise Invalid(f"the arguments for job {job.name!r} have a NUL byte, which no command line can hold")
    try:
        shlex.split(command.arguments)
    except ValueError as error:
        raise Invalid(f"arguments {command.arguments!r} cannot be split into words: {error}") from None
    if job.spec.disabled:
        why = "the job is disabled"
        return [Note("run passed over", why, facts={"job": job.name}), Reply(ask)]
    plain = not command.arguments and not command.parameters
    equal = [r for r in job.queued if r.arguments == command.arguments and r.parameters == command.parameters]
    retries = [r for r in equal if is_retry(r) and r.ready_at > now]
    effects: list[Effect] = []
    if retries:
        for retry in retries:
            moved = replace(retry, ready_at=now)
            state.place(job, moved)
            effects.append(Persist(run_key(moved), moved))
    elif not equal and not (plain and SCHEDULED in job.items):
        made = Run(
            id=state.mint_run_id(), job=job.name, due=int(now * 1000), cause=Cause.REQUEST, queued_at=now,
            round="", arguments=command.arguments, parameters=dict(command.parameters),
        )  # fmt: skip
        made = replace(made, round=_joined_round(state, job) or made.id)
        state.place(job, made)
        effects.append(Persist(run_key(made), made))
        effects.append(Note("run asked for", "somebody asked for it", facts={"job": job.name}))
    return [*effects, Reply(ask)]


def _joined_round(state: State, job: Job) -> str:
    """The round that a run by hand of a dependent job belongs to: the job's last one, else its root's."""
    if not job.spec.parents:
        return ""
    root = state.root_of_parents(job)
    return job.progress.round or (state.jobs[root].progress.round if root is not None else "")


def mark_success(state: State, ask: int, command: MarkSuccess, now: float) -> list[Effect]:
    """Count a success without a run; the children hear of it as of any other."""
    job = state.visible(command.name)
    if job is None:
        return [Reply(ask, False)]
    round = job.progress.round or _joined_round(state, job) or state.mint_run_id()
    effects = succeed(state, job, round, int(now * 1000), now)
    note = Note("job marked as succeeded", "somebody asked for it", facts={"job": job.name})
    return [*effects, note, Reply(ask, True)]


def kill_runs(state: State, ask: int, command: KillRuns, now: float) -> list[Effect]:
    """End all live tasks of a job, if there are any."""
    job = need_job(state, command.name)
    effects: list[Effect] = []
    for each in job.live:
        effects += end_run(state, job, each, "somebody asked for its end", now)
    return [*effects, Reply(ask)]


def purge(state: State, ask: int, now: float) -> list[Effect]:
    """Whatever waits to be launched is not launched: one record says so for all but backfills, which go one by one."""
    state.purged = int(now * 1000)
    dropped = 0
    effects: list[Effect] = []
    for job in state.visible_jobs():
        job.skipped = max(job.skipped, state.purged)
        effects += _drop_backfill(job)
        for each in job.queued:
            state.drop_run(job, each)
            state.trash.append(run_key(each))
            dropped += 1
    state.touch(state.jobs)
    note = Note("queue purged", "somebody asked for it", facts={"runs": dropped})
    return [Persist("purge", Purge(at=state.purged)), *effects, note, Reply(ask)]


def report(state: State, ask: int, command: ReportTask, now: float) -> list[Effect]:
    """The end of an asynchronous run. Errors: `Invalid` for a task that is not live or not asynchronous."""
    found = state.find(command.task_id)
    if found is None:
        raise Invalid(f"task {command.task_id!r} is not known or has ended; report a task that runs")
    job, each = found
    if not job.spec.is_async:
        raise Invalid(f"job {job.name!r} is not asynchronous, so the end of its task is its end; set async to true")
    if each.state is RunState.REPORTING:
        return [*end_reported(state, job, each, command.code, now), Reply(ask)]
    each = replace(each, reported=command.code)
    state.place(job, each)
    return [Persist(run_key(each), each), Reply(ask)]


def add_elements(state: State, ask: int, command: AddElements, now: float) -> list[Effect]:
    """Count what a task has processed. Errors: `Invalid` unless the job counts elements and the task is its own."""
    job = need_job(state, command.name)
    if not job.spec.counts_elements:
        raise Invalid(f"job {job.name!r} counts no elements; set dataProcessingJobType to true")
    found = state.find(command.task_id)
    if found is None or found[0] is not job:
        raise Invalid(f"task {command.task_id!r} is no live task of job {job.name!r}")
    each = replace(found[1], elements=found[1].elements + command.count)
    state.place(job, each)
    return [Persist(run_key(each), each), Reply(ask)]


def start_backfill(state: State, ask: int, command: StartBackfill, now: float) -> list[Effect]:
    """Run every occurrence of a range once more. Shapes: answers with their number.

    Errors: `Invalid` for a job without a schedule, an empty range or too long a one; `Conflict` beside another.
    """
    job = need_job(state, command.name)
    grid = job.grid
    if grid is None:
        raise Invalid(f"job {job.name!r} has parents and no schedule; backfill its root")
    if job.spec.disabled:
        raise Invalid(f"job {job.name!r} is disabled; enable it first")
    check_parameters(job, command.parameters)
    if job.backfill is not None:
        raise Conflict(f"job {job.name!r} has a backfill under way; wait for its end")
    most = state.config.most_backfill
    found = list_between(grid, command.start, command.end, most + 1)
    if not found:
        raise Invalid(f"job {job.name!r} has no occurrence in this range; look at GET job/{job.name}/next?after=")
    if len(found) > most:
        raise Invalid(f"job {job.name!r} has more than {most} occurrences in this range; take a shorter one")
    job.backfill = Backfill(
        job=job.name, cursor=found[0] - 1, end=found[-1] + 1, parameters=dict(command.parameters)
    )  # fmt: skip
    state.dirty[job.name] = None
    note = Note("backfill started", "somebody asked for it", facts={"job": job.name, "runs": len(found)})
    return [Persist(f"backfill/{job.name}", job.backfill), note, Reply(ask, len(found))]


def stop_backfill(state: State, ask: int, command: StopBackfill) -> list[Effect]:
    """Errors: `Invalid` when there is none to stop."""
    job = need_job(state, command.name)
    if job.backfill is None:
        raise Invalid(f"job {job.name!r} has no backfill under way")
    state.dirty[job.name] = None
    note = Note("backfill stopped", "somebody asked for it", facts={"job": job.name})
    return [*_drop_backfill(job), note, Reply(ask)]


def _drop_backfill(job: Job) -> list[Effect]:
    if job.backfill is None:
        return []
    job.backfill = None
    return [Persist(f"backfill/{job.name}", None)]


def let_go(state: State, now: float) -> list[Effect]:
    """Go on with a job that was deleted and whose children do not all know it yet."""
    return [effect for name in list(state.leaving)[:1] for effect in leave(state, name, now)]
