"""What is shown of DAGs and of their runs, step by step, with the reason of whatever waits."""

from datetime import UTC
from typing import Any

from corral.frameworks.cron.chronos import write_instant
from corral.frameworks.cron.dags.commands import need_dag, need_run
from corral.frameworks.cron.dags.dialect import write_dag
from corral.frameworks.cron.dags.due import due_now
from corral.frameworks.cron.dags.spec import DagRun, ElementEnd, GetDagRuns, Outcome, Step
from corral.frameworks.cron.dags.state import Elements, Work, take_walk
from corral.frameworks.cron.dags.steps import job_name
from corral.frameworks.cron.schedule import write_moment
from corral.frameworks.cron.spec import LIVE, Run
from corral.frameworks.cron.state import State
from corral.frameworks.cron.waiting import reason_of

Json = Any
_SHOWN_ELEMENTS = 1000
_NAMED = 10


def view_dags(state: State, now: float) -> dict[str, Json]:
    return {"dags": [_dag_row(state, name, now) for name in sorted(state.dags.progress)]}


def _dag_row(state: State, name: str, now: float) -> dict[str, Json]:
    spec = need_dag(state, name)
    runs = sorted(state.dags.runs[name].values(), key=lambda r: r.started_at)
    following = due_now(state, name, int(now * 1000)).next
    return {
        "name": name,
        "steps": len(spec.steps),
        "schedule": spec.schedule,
        "disabled": spec.disabled,
        "underWay": sum(run.ended_at is None for run in runs),
        "lastRun": _run_row(runs[-1]) if runs else None,
        "next": None if following is None else write_moment(following, UTC),
    }


def view_dag(state: State, name: str, now: float) -> dict[str, Json]:
    spec = need_dag(state, name)
    return {**_dag_row(state, name, now), **write_dag(spec, state.config)}


def view_runs(state: State, command: GetDagRuns) -> dict[str, Json]:
    """Newest first."""
    need_dag(state, command.name)
    runs = sorted(state.dags.runs[command.name].values(), key=lambda r: (-r.started_at, r.id))
    return {"runs": [_run_row(run) for run in runs[: max(0, command.limit)]]}


def _run_row(run: DagRun) -> dict[str, Json]:
    return {
        "id": run.id,
        "dag": run.dag,
        "version": run.version,
        "state": str(run.state),
        "cause": run.cause,
        "due": write_moment(run.due, UTC),
        "startedAt": write_instant(run.started_at),
        "endedAt": write_instant(run.ended_at),
        "parameters": run.parameters,
        "resumes": len(run.resumes),
        "why": run.why,
    }


def view_run(state: State, run_id: str, now: float) -> dict[str, Json]:
    run = need_run(state, run_id)
    spec = state.dags.specs[run.dag, run.version]
    work = state.dags.works.get(run.id) or take_walk(state.dags, run)
    standing = state.dags.standing_ends(run, spec)
    return {
        **_run_row(run),
        "steps": [_step_row(state, work, step, standing.get(step.name, {}), now) for step in spec.steps],
    }


def _step_row(state: State, work: Work, step: Step, ends: dict[int, ElementEnd], now: float) -> dict[str, Json]:
    """Shapes: `ends` are those that still count after all resumes."""
    fate = work.walk.fates.get(step.name)
    elements = work.begun.get(step.name)
    if fate is not None and fate.outcome is Outcome.SKIPPED:
        ends = {}
    shown: dict[str, Json] = {"name": step.name, "after": list(step.after), "state": "waiting", "why": ""}
    if fate is not None:
        shown |= {"state": str(fate.outcome), "why": fate.why, "result": fate.value}
    elif elements is not None:
        shown |= _open_row(state, work, elements, now)
    else:
        shown["why"] = f"it comes after {_name_some([b for b in step.after if b not in work.walk.fates])}"
    rows = [_end_row(end) for _, end in sorted(ends.items())[:_SHOWN_ELEMENTS]]
    if step.array is None:
        return {**shown, **(rows[0] if rows and fate is not None else {}), "state": shown["state"]}
    count = elements.count if elements is not None else len(ends)
    counts = {str(outcome): sum(end.outcome is outcome for end in ends.values()) for outcome in Outcome}
    return {**shown, "count": count, "counts": counts, "elements": rows}


def _name_some(names: list[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names) if more <= 1 else f"{', '.join(names[:_NAMED])} and {more} more"


def _end_row(end: ElementEnd) -> dict[str, Json]:
    return {
        "index": end.index,
        "state": str(end.outcome),
        "why": end.why,
        "result": end.value,
        "taskId": end.task_id,
        "attempt": end.attempt,
        "host": end.hostname,
        "startedAt": write_instant(end.started_at),
        "endedAt": write_instant(end.ended_at),
    }


def _open_row(state: State, work: Work, elements: Elements, now: float) -> dict[str, Json]:
    """The step is under way: as what its elements stand, and why they wait if they do."""
    job = state.jobs.get(job_name(work.run, elements.step.name))
    runs = [] if job is None else [run for run in job.runs.values() if run.round == work.run.id]
    first: Run | None = max(runs, key=lambda run: run.token, default=None)
    shown: dict[str, Json] = {"state": "queued" if first is None else str(first.state), "running": len(runs)}
    if first is not None:
        shown |= {
            "taskId": first.task_id, "attempt": first.attempt, "host": first.hostname,
            "startedAt": write_instant(first.started_at),
        }  # fmt: skip
    if job is not None and len(runs) > len([run for run in runs if run.state in LIVE]):
        shown["why"] = reason_of(state, job, now)
        if first is not None and first.attempt and elements.step.array is None:
            failed = next((each for each in reversed(job.history) if each.round == work.run.id), None)
            if failed is not None and failed.attempt < first.attempt:
                shown["why"] += f"; attempt {failed.attempt + 1} failed: {failed.message}"
    return shown
