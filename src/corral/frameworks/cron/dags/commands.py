"""What people ask of DAGs. Each function checks everything before it changes anything."""

from collections.abc import Mapping

from corral.frameworks.cron.dags.due import resume, start
from corral.frameworks.cron.dags.spec import (
    DagProgress,
    DagRun,
    DagSpec,
    DagState,
    DeleteDag,
    KillDag,
    PlanDag,
    PutDag,
    Resume,
    ResumeDag,
    StartDag,
)
from corral.frameworks.cron.dags.state import pack
from corral.frameworks.cron.dags.steps import check_values, close, run_record_key
from corral.frameworks.cron.dags.walk import check_graph, find_waves
from corral.frameworks.cron.launch import read_constraint
from corral.frameworks.cron.schedule import Repeat, fill_start, read_schedule
from corral.frameworks.cron.state import State, replace
from corral.lib.errors import Conflict, Invalid, NotFound
from corral.runtime.core import Effect, Note, Persist, Reply

MOST_KEY = 256
_WHOLE_FIELDS = {
    "schedule": "schedule", "time_zone": "scheduleTimeZone", "concurrency": "concurrencyPolicy",
    "parameters": "parameters", "owner": "owner", "webhook": "webhook", "description": "description",
    "disabled": "disabled",
}  # fmt: skip


def need_dag(state: State, name: str) -> DagSpec:
    spec = state.dags.current(name)
    if spec is None:
        raise NotFound(f"there is no DAG {name!r}; corral dag ls lists them")
    return spec


def need_run(state: State, run_id: str) -> DagRun:
    run = state.dags.find_run(run_id)
    if run is None:
        raise NotFound(
            f"there is no run {run_id!r} of a DAG, or it is no longer kept; corral dag status NAME lists them"
        )
    return run


def version_key(name: str, version: int) -> str:
    return f"dag/{name}/{version}"


def put(state: State, ask: int, command: PutDag, now: float, notice: str = "") -> list[Effect]:
    """Create a DAG or replace it. Shapes: answers whether it is new, and the notice.

    Errors: `Invalid`, naming the step.
    """
    spec = check(command.spec, now)
    dags = state.dags
    old, before = dags.current(spec.name), dags.progress.get(spec.name)
    if old is not None and before is not None and _same(old, command.spec, spec):
        return [Reply(ask, (False, ""))]
    version = _next_version(state, spec.name)
    record = pack(spec, version, now)
    if before is not None and old is not None and (old.schedule, old.time_zone) == (spec.schedule, spec.time_zone):
        progress = replace(before, version=version)
    else:
        progress = replace(_first_progress(spec, now), version=version)
    dags.adopt(spec, progress)
    dags.wake(spec.name, 0 if spec.name in dags.grids else None)
    forget_versions(state)
    return [
        Persist(version_key(spec.name, version), record),
        Persist(f"dagnow/{spec.name}", progress),
        Note("dag created" if old is None else "dag changed", "somebody asked for it", facts={"dag": spec.name}),
        Reply(ask, (old is None, notice)),
    ]


def _next_version(state: State, name: str) -> int:
    """One of which nothing is left from an earlier DAG of this name."""
    known = [version for dag, version in state.dags.specs if dag == name]
    refs = [job.record.step for job in state.jobs.values()]
    known += [ref.version for ref in refs if ref is not None and ref.dag == name]
    return max(known, default=0) + 1


def _same(old: DagSpec, given: DagSpec, filled: DagSpec) -> bool:
    """Whether a definition says what there is already. Shapes: one without a start of its own starts anew each time."""
    return old == filled or (given.schedule is None and old == given)


def _first_progress(spec: DagSpec, now: float) -> DagProgress:
    grid = None if spec.schedule is None else read_schedule(spec.schedule, spec.time_zone)
    if isinstance(grid, Repeat):
        return DagProgress(version=0, cursor=grid.first - 1, left=grid.count)
    return DagProgress(version=0, cursor=int(now * 1000))


def check(spec: DagSpec, now: float) -> DagSpec:
    """The definition with its start filled in. Errors: `Invalid`."""
    check_graph(spec.steps)
    for step in spec.steps:
        try:
            for constraint in step.job.constraints:
                read_constraint(constraint)
        except Invalid as error:
            raise Invalid(f"step {step.name!r}: {error.message}") from None
    if spec.schedule is None:
        return spec
    spec = replace(spec, schedule=fill_start(spec.schedule, spec.time_zone, now))
    read_schedule(spec.schedule or "", spec.time_zone)
    return spec


def plan(state: State, command: PlanDag, now: float) -> dict[str, object]:
    """What there would be, wave by wave, and what that changes."""
    spec = check(command.spec, now)
    pack(spec, 0, now)
    old = state.dags.current(spec.name)
    before = {} if old is None else {step.name: step for step in old.steps}
    after = {step.name: step for step in spec.steps}
    return {
        "name": spec.name,
        "new": old is None,
        "steps": len(spec.steps),
        "waves": find_waves(spec.steps),
        "added": [name for name in after if name not in before],
        "changed": [name for name in after if name in before and before[name] != after[name]],
        "removed": [name for name in before if name not in after],
        "fields": [] if old is None or _same(old, command.spec, spec) else _changed_fields(old, spec),
    }


def _changed_fields(old: DagSpec, new: DagSpec) -> list[str]:
    """What differs of the DAG as a whole, by the names that people write."""
    pairs = {name: (getattr(old, field), getattr(new, field)) for field, name in _WHOLE_FIELDS.items()}
    return [name for name, (was, will) in pairs.items() if was != will]


def delete(state: State, ask: int, command: DeleteDag, now: float) -> list[Effect]:
    """Forget a DAG and its runs. Errors: `Conflict` while one is under way, unless `force` ends it."""
    need_dag(state, command.name)
    dags = state.dags
    works = dags.under_way(command.name)
    if works and not command.force:
        raise Conflict(
            f"DAG {command.name!r} has {len(works)} run(s) under way; wait for their end or delete it with force=true"
        )
    effects: list[Effect] = []
    for work in works:
        effects += close(state, work, DagState.KILLED, "its DAG was deleted", now)
    del dags.progress[command.name]
    dags.grids.pop(command.name, None)
    dags.wake(command.name, None)
    for run in list(dags.runs[command.name].values()):
        forget_run(state, run)
    del dags.runs[command.name]
    forget_versions(state)
    note = Note("dag deleted", "somebody asked for it", facts={"dag": command.name})
    return [*effects, Persist(f"dagnow/{command.name}", None), note, Reply(ask)]


def forget_run(state: State, run: DagRun) -> None:
    """Its records go bit by bit; those of its ends first, as they mean nothing without it."""
    ends = state.dags.ends.get(run.id, {})
    state.trash.append(run_record_key(run))
    state.trash += [f"dagend/{run.id}/{step}/{index}" for step, found in ends.items() for index in found]
    state.dags.drop_run(run)


def forget_versions(state: State) -> None:
    """Versions of which nothing is left, and the jobs of their steps once these have ended."""
    for name, version in state.dags.unused_versions():
        del state.dags.specs[name, version]
        state.trash.append(version_key(name, version))


def start_run(state: State, ask: int, command: StartDag, now: float) -> list[Effect]:
    """Start a run. Shapes: answers (its id, whether it is new). Errors: `Invalid` for parameters, `Conflict`."""
    spec = need_dag(state, command.name)
    dags = state.dags
    if len(command.key) > MOST_KEY:
        raise Invalid(
            f"key {command.key[:40]!r}… has {len(command.key)} characters, {MOST_KEY} are the most; shorten it"
        )
    if command.key and (known := dags.keys.get((command.name, command.key))) is not None:
        if dags.runs[command.name][known].parameters != command.parameters:
            raise Conflict(f"key {command.key!r} has started run {known} with other parameters; take another key")
        return [Reply(ask, (known, False))]
    check_parameters(spec, command.parameters)
    if spec.disabled:
        raise Conflict(f"DAG {command.name!r} is disabled; enable it first")
    run = DagRun(
        id=state.mint_run_id(), dag=spec.name, version=dags.progress[spec.name].version, cause="request",
        due=int(now * 1000), started_at=now, parameters=dict(command.parameters), key=command.key,
    )  # fmt: skip
    return [*start(state, run, now), Reply(ask, (run.id, True))]


def check_parameters(spec: DagSpec, given: Mapping[str, str]) -> None:
    known = {p.name: p for p in spec.parameters}
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise Invalid(f"DAG {spec.name!r} has no parameter {', '.join(unknown)}; it has {', '.join(known) or 'none'}")
    missing = [name for name, p in known.items() if p.default is None and name not in given]
    if missing:
        raise Invalid(f"DAG {spec.name!r} needs a value for {', '.join(missing)}; give it in parameters")
    check_values(given)


def resume_run(state: State, ask: int, command: ResumeDag, now: float) -> list[Effect]:
    """Do anew what of a run did not succeed, or a step and all that comes after it.

    Errors: `Conflict` for one that is under way or has nothing to do anew; `Invalid` for a step it does not have.
    """
    run = need_run(state, command.run)
    spec = state.dags.specs[run.dag, run.version]
    if run.state is DagState.RUNNING:
        raise Conflict(f"run {run.id} is under way; wait for its end or kill it first")
    if command.step and all(step.name != command.step for step in spec.steps):
        raise Invalid(f"run {run.id} has no step {command.step!r}; corral dag status {run.id} lists its steps")
    if not command.step and run.state is DagState.SUCCEEDED:
        raise Conflict(f"run {run.id} succeeded, so nothing is to be resumed; name a step to do anew")
    if any(each.round == run.id for job in state.jobs.values() if job.record.step for each in job.runs.values()):
        raise Conflict(f"run {run.id} still has tasks that are being ended; try again in a moment")
    run = replace(run, resumes=(*run.resumes, Resume(step=command.step, at=now)))
    return [*resume(state, run, now), Reply(ask)]


def kill_run(state: State, ask: int, command: KillDag, now: float) -> list[Effect]:
    """End a run with all that runs of it; nothing happens when it is over."""
    run = need_run(state, command.run)
    work = state.dags.works.get(run.id)
    if work is None:
        return [Reply(ask)]
    return [*close(state, work, DagState.KILLED, "somebody asked for its end", now), Reply(ask)]


def prune(state: State, now: float) -> None:
    """Forget runs that ended longer ago than history is kept, and the oldest of too many."""
    oldest_at = now - state.config.history_s
    for runs in state.dags.runs.values():
        over = sorted((r for r in runs.values() if r.ended_at is not None), key=lambda r: (r.ended_at or 0.0, r.id))
        surplus = max(0, len(over) - state.config.most_history)
        for index, run in enumerate(over):
            if index < surplus or (run.ended_at or 0.0) < oldest_at:
                forget_run(state, run)
    forget_versions(state)
    for job in [job for job in state.jobs.values() if job.record.step is not None]:
        ref = job.record.step
        if not job.runs and not job.history and ref is not None and (ref.dag, ref.version) not in state.dags.specs:
            state.drop_job(job)
