"""Starts runs of DAGs whose schedule is due, and ends what still runs of those that are over."""

from corral.frameworks.cron.dags.spec import DagProgress, DagRun, DagState
from corral.frameworks.cron.dags.state import Work
from corral.frameworks.cron.dags.steps import close, finish, run_record_key, take_up, work_off
from corral.frameworks.cron.ending import end_run
from corral.frameworks.cron.schedule import Due, find_due
from corral.frameworks.cron.spec import Concurrency
from corral.frameworks.cron.state import State, replace
from corral.runtime.core import Effect, Note, Persist


def settle_dags(state: State, budget: int, now: float) -> list[Effect]:
    """Do what there is to do for DAGs, within so many records."""
    dags = state.dags
    effects: list[Effect] = []
    while dags.next_at is not None and dags.next_at <= now * 1000 and len(effects) < budget:
        name = min(dags.wakes, key=lambda each: (dags.wakes[each], each))
        effects += _look_at(state, name, now)
    while dags.closing and len(effects) < budget:
        effects += _end_next(state, next(iter(dags.closing)), budget - len(effects), now)
    return [*effects, *work_off(state, budget - len(effects))]


def _look_at(state: State, name: str, now: float) -> list[Effect]:
    """Start a run if the schedule asks for one and the run before allows it; set when to look again."""
    dags = state.dags
    due = due_now(state, name, int(now * 1000))
    dags.wake(name, due.next)
    if due.due is None:
        return []
    spec, effects = dags.current(name), list[Effect]()
    assert spec is not None, f"DAG {name} is due and has no version"
    before = dags.under_way(name)
    if before and spec.concurrency is Concurrency.FORBID:
        return []  # looked at again when that is over
    if before and spec.concurrency is Concurrency.REPLACE:
        for work in before:
            effects += close(state, work, DagState.KILLED, "a newer run replaces it", now)
    progress = dags.progress[name]
    left = None if progress.left is None else progress.left - 1
    moved = DagProgress(version=progress.version, cursor=due.due, left=left)
    dags.progress[name] = moved
    dags.wake(name, due_now(state, name, int(now * 1000)).next)
    run = DagRun(
        id=state.mint_run_id(), dag=name, version=moved.version, cause="schedule", due=due.due, started_at=now
    )  # fmt: skip
    return [*effects, Persist(f"dagnow/{name}", moved), *start(state, run, now)]


def due_now(state: State, name: str, now_ms: int) -> Due:
    """What the DAG's schedule asks for; occurrences that were missed are made good by one run."""
    dags = state.dags
    grid, progress, spec = dags.grids.get(name), dags.progress[name], dags.current(name)
    if grid is None or spec is None or spec.disabled or progress.left == 0:
        return Due()
    return find_due(grid, progress.cursor, now_ms, each=False, most_late=None)


def start(state: State, run: DagRun, now: float) -> list[Effect]:
    """A run begins."""
    state.dags.add_run(run)
    work = take_up(state, run)
    facts = {"dag": run.dag, "run": run.id, "steps": len(work.spec.steps)}
    effects: list[Effect] = [Persist(run_record_key(run), run), Note("dag run started", f"by {run.cause}", facts=facts)]
    return [*effects, *over_at_once(state, work, now)]


def over_at_once(state: State, work: Work, now: float) -> list[Effect]:
    """Finish a run in which nothing was left to be done."""
    return finish(state, work, now) if work.walk.is_over else []


def _end_next(state: State, name: str, budget: int, now: float) -> list[Effect]:
    """End runs of a step whose DAG's run is over."""
    dags = state.dags
    job = state.jobs.get(name)
    left = [] if job is None else [r for r in job.runs.values() if r.round not in dags.works and not r.ending]
    effects: list[Effect] = []
    for run in left:
        if len(effects) >= budget:
            return effects
        assert job is not None
        effects += end_run(state, job, run, "the run of its DAG is over", now)
    del dags.closing[name]
    return effects


def resume(state: State, run: DagRun, now: float) -> list[Effect]:
    """A run that was over goes on. Shapes: `run` has its new resume already."""
    run = replace(run, state=DagState.RUNNING, ended_at=None, why="")
    state.dags.add_run(run)
    work = take_up(state, run)
    note = Note("dag run resumed", "somebody asked for it", facts={"dag": run.dag, "run": run.id})
    return [Persist(run_record_key(run), run), note, *over_at_once(state, work, now)]
