"""Ends runs: kills their tasks, again until it has an effect, or drops those that have none."""

from corral.frameworks.cron import outcomes
from corral.frameworks.cron.keys import run_key
from corral.frameworks.cron.outcomes import end_attempt
from corral.frameworks.cron.spec import Result, Run, RunState
from corral.frameworks.cron.state import Job, State, replace
from corral.model import calls
from corral.runtime.core import Effect, Note, Persist, SetTimer
from corral.sdk.effects import Call

SWEEP = "sweep"


def end_run(state: State, job: Job, run: Run, why: str, now: float) -> list[Effect]:
    """Kill the run's task, or drop the run when there is nothing to kill."""
    if run.state in (RunState.QUEUED, RunState.WAITING):
        state.drop_run(job, run)
        note = Note("run dropped", why, facts={"job": job.name, "due": run.due})
        return [Persist(run_key(run), None), note, *outcomes.exhaust(state, job, run, now)]
    if run.ending:
        return []
    run = replace(run, ending=why)
    state.place(job, run)
    if run.state in (RunState.REPORTING, RunState.UNREACHABLE):
        # No task is left, or nobody would hear the kill; should its agent come back, the task is unknown and killed.
        return end_attempt(state, job, run, Result.KILLED, why, now)
    facts = {"job": job.name, "task": run.task_id, "agent": run.agent_id}
    return [Persist(run_key(run), run), Note("run is ended", why, facts=facts), *kill(state, run)]


def kill(state: State, run: Run) -> list[Effect]:
    """Ask the master to end the task; without a connection it is asked after the next subscription."""
    if not state.connected or state.framework_id is None or run.task_id is None:
        return []
    return [
        Call(calls.Kill(framework_id=state.framework_id, task_id=run.task_id, agent_id=run.agent_id)),
        SetTimer(SWEEP, state.config.kill_retry_s, if_unset=True),
    ]


def kill_again(state: State) -> list[Effect]:
    """Repeat every kill that has had no effect yet."""
    effects: list[Effect] = []
    for task_id in list(state.endings):
        found = state.find(task_id)
        if found is not None:
            effects += kill(state, found[1])
    return effects
