"""Takes runs of DAGs from step to step: begins elements, hears of their ends, begins what follows.

Rule: only ends are recorded. What has begun is a run of the step's job, which is a record of its own and has the
element's name; so whatever is found after a crash is walked anew, and an element that has a run is not begun again.
"""

import re
from collections.abc import Mapping

from corral.frameworks.cron import notices
from corral.frameworks.cron.dags.spec import (
    MOST_VALUE_BYTES,
    DagRun,
    DagState,
    ElementEnd,
    Outcome,
    Step,
)
from corral.frameworks.cron.dags.state import Elements, Work, fate_of, take_walk, walk_on
from corral.frameworks.cron.keys import run_key
from corral.frameworks.cron.spec import Cause, JobRecord, Progress, Result, Run, StepRef
from corral.frameworks.cron.state import Job, State, replace
from corral.lib.errors import Invalid
from corral.runtime.core import Effect, Note, Persist

_OUTCOMES = {
    Result.SUCCESS: Outcome.SUCCEEDED, Result.FAILURE: Outcome.FAILED, Result.LOST: Outcome.FAILED,
    Result.KILLED: Outcome.KILLED,
}  # fmt: skip


def run_record_key(run: DagRun) -> str:
    return f"dagrun/{run.id}"


def end_key(end: ElementEnd) -> str:
    return f"dagend/{end.run}/{end.step}/{end.index}"


def job_name(run: DagRun, step: str) -> str:
    """The job that runs the elements of a step."""
    return name_job(run.dag, run.version, step)


def name_job(dag: str, version: int, step: str) -> str:
    return f"{dag}/{step}@{version}"


def need_job(state: State, dag: str, version: int, step: Step) -> Job:
    """The job that runs the elements of a step; it is made when the first of them begins, and is no record."""
    name = name_job(dag, version, step.name)
    job = state.jobs.get(name)
    if job is None:
        spec = replace(step.job, name=name)
        job = Job(JobRecord(spec=spec, step=StepRef(dag=dag, version=version, name=step.name)), Progress())
        state.add_job(job)
    return job


def take_up(state: State, run: DagRun) -> Work:
    """Bring a run under way: walked as far as its recorded ends go, with what already runs of it."""
    dags = state.dags
    work = dags.works[run.id] = take_walk(dags, run)
    for name, elements in work.begun.items():
        job = state.jobs.get(job_name(run, name))
        if job is not None:
            elements.live.update(each.index or 0 for each in job.runs.values() if each.round == run.id)
    dags.busy[run.id] = None
    return work


MOST_WRITTEN_BYTES = 8 << 20
"""What elements are told is written with each of them; with one input no more than about this."""


def work_off(state: State, budget: int) -> list[Effect]:
    """Begin elements, as many as one input may write about."""
    effects: list[Effect] = []
    dags = state.dags
    written = 0
    while dags.busy and len(effects) < budget and written < MOST_WRITTEN_BYTES:
        run_id = next(iter(dags.busy))
        work = dags.works[run_id]
        while work.ready and len(effects) < budget and written < MOST_WRITTEN_BYTES:
            elements = work.ready[0]
            index = elements.take_next()
            if index is None:
                work.ready.popleft()
            else:
                made = _begin(state, work, elements, index)
                written += sum(map(len, made.values.values()))
                effects.append(Persist(run_key(made), made))
        if not work.ready:
            del dags.busy[run_id]
    return effects


def _begin(state: State, work: Work, elements: Elements, index: int) -> Run:
    run, step = work.run, elements.step
    job = need_job(state, run.dag, run.version, step)
    made = Run(
        id=f"{run.id}-{len(run.resumes)}-{index}", job=job.name, due=run.due, cause=Cause.DAG, round=run.id,
        queued_at=run.due / 1000, index=index if step.array is not None else None,
        values=environment(work, elements, index),
    )  # fmt: skip
    state.place(job, made)
    return made


def environment(work: Work, elements: Elements, index: int) -> dict[str, str]:
    """What an element is told: the run's parameters, the results of the steps before it, its place in the array."""
    run, step = work.run, elements.step
    found = {p.name: run.parameters.get(p.name, p.default or "") for p in work.spec.parameters}
    for before in step.after:
        value = work.walk.fates[before].value
        if value is not None:
            found[result_variable(before)] = value
    found |= {"CORRAL_DAG": run.dag, "CORRAL_DAG_RUN": run.id, "CORRAL_DAG_STEP": step.name}
    if step.array is not None:
        found |= {"CORRAL_ARRAY_INDEX": str(index), "CORRAL_ARRAY_COUNT": str(elements.count)}
        if elements.items:
            found["CORRAL_ARRAY_ITEM"] = elements.items[index]
    return found


def check_values(parameters: Mapping[str, str]) -> None:
    """Errors: `Invalid` for what can be no variable of a task, or is too much to be told to each."""
    if nul := [name for name, value in parameters.items() if "\0" in value]:
        raise Invalid(f"parameter {nul[0]!r} has a NUL, which no variable of a task can hold; take it out")
    size = sum(len(value.encode()) for value in parameters.values())
    if size > MOST_VALUE_BYTES:
        raise Invalid(
            f"the parameters come to {size} bytes, {MOST_VALUE_BYTES} are the most; name a place where the rest is"
        )


def result_variable(step: str) -> str:
    return "CORRAL_RESULT_" + re.sub(r"[^A-Za-z0-9]", "_", step).upper()


def ended(
    state: State, job: Job, run: Run, result: Result, message: str, data: bytes | None, now: float
) -> list[Effect]:
    """An element is over for good: recorded, and what follows is begun."""
    work = state.dags.works.get(run.round)
    ref = job.record.step
    if work is None or ref is None or ref.name not in work.begun:
        return []
    elements = work.begun[ref.name]
    outcome, why, value = _judge(job, elements.step, result, message, data)
    end = ElementEnd(
        run=work.run.id, step=ref.name, index=run.index or 0, outcome=outcome, ended_at=now, started_at=run.started_at,
        value=value, why=why, task_id=run.task_id or "", attempt=run.attempt, hostname=run.hostname,
        resumed=len(work.run.resumes),
    )  # fmt: skip
    state.dags.ends[work.run.id].setdefault(end.step, {})[end.index] = end
    elements.live.discard(end.index)
    elements.ended[end.index] = end
    return [Persist(end_key(end), end), *_go_on(state, work, elements, now)]


def _judge(job: Job, step: Step, result: Result, message: str, data: bytes | None) -> tuple[Outcome, str, str | None]:
    outcome = _OUTCOMES[result]
    if outcome is Outcome.SUCCEEDED and step.job.result:
        if data is None:
            return Outcome.FAILED, f"it left no result in {step.job.result}: {message}", None
        try:
            return outcome, message, data.decode().rstrip("\n")
        except UnicodeDecodeError:
            return Outcome.FAILED, f"its result in {step.job.result} is no UTF-8 text", None
    if outcome is Outcome.FAILED and job.spec.soft_error:
        return Outcome.SUCCEEDED, f"it failed, which is no matter here: {message}", None
    return outcome, message, None


def _go_on(state: State, work: Work, elements: Elements, now: float) -> list[Effect]:
    dags = state.dags
    if not elements.is_over:
        if elements not in work.ready:
            work.ready.append(elements)
        dags.busy[work.run.id] = None
        return []
    name = elements.step.name
    del work.begun[name]
    work.walk.end(name, fate_of(elements))
    walk_on(work)
    if work.walk.is_over:
        return finish(state, work, now)
    if work.ready:
        dags.busy[work.run.id] = None
    return []


def finish(state: State, work: Work, now: float) -> list[Effect]:
    """The last step of a run is over."""
    failed = work.walk.failed()
    if not failed:
        return close(state, work, DagState.SUCCEEDED, "", now)
    why = f"step {failed[0]} failed: {work.walk.fates[failed[0]].why}"
    if len(failed) > 1:
        why += f"; {len(failed) - 1} more failed"
    return close(state, work, DagState.FAILED, why, now)


def close(state: State, work: Work, to: DagState, why: str, now: float) -> list[Effect]:
    """A run is over; whatever of it still runs is ended."""
    dags = state.dags
    run = replace(work.run, state=to, ended_at=now, why=why)
    dags.add_run(run)
    dags.works.pop(run.id)
    dags.busy.pop(run.id, None)
    for name in work.begun:
        dags.closing[job_name(run, name)] = None
    if run.dag in dags.grids:
        dags.wake(run.dag, 0)
    level = "info" if to is DagState.SUCCEEDED else "warning"
    effects: list[Effect] = [Persist(run_record_key(run), run)]
    effects.append(Note(f"dag run {to}", why, level, {"dag": run.dag, "run": run.id}))
    if to is DagState.FAILED:
        text = f"{why}; run {run.id}: corral dag status {run.id}"
        effects += notices.tell_about(
            state, ("dag", run.dag), "failed", text, owner=work.spec.owner, webhook=work.spec.webhook,
            facts={"dag": run.dag, "run": run.id}, now=now,
        )  # fmt: skip
    return effects
