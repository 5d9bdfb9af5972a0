"""What the master tells of tasks, brought into the runs.

An update is settled in the records before the session acknowledges it. A task that no run knows is killed: it belongs
to a deleted job or to a launch that was given up. Source: Chronos' contract, sections 4, 5 and 7.
"""

from corral.frameworks.cron.ending import kill_again
from corral.frameworks.cron.keys import run_key
from corral.frameworks.cron.outcomes import displace, end_attempt, lose
from corral.frameworks.cron.spec import Delivery, Result, Run, RunState
from corral.frameworks.cron.state import Job, State, replace
from corral.model import events
from corral.model.task import Reason, TaskState, TaskStatus
from corral.runtime.core import Effect, Note, Persist
from corral.sdk.answers import kill_unknown

UNKNOWN = "no run knows this task: it was given up or belongs to a deleted job"

_STARTED = (TaskState.STARTING, TaskState.RUNNING)
_ALIVE = (TaskState.STAGING, TaskState.STARTING, TaskState.RUNNING, TaskState.KILLING)
_MAY_COME_BACK = (Reason.AGENT_DISCONNECTED, Reason.AGENT_REMOVED, Reason.RECONCILIATION)
_GONE = (
    TaskState.LOST, TaskState.DROPPED, TaskState.GONE, TaskState.GONE_BY_OPERATOR, TaskState.UNKNOWN,
)  # fmt: skip
_NEVER_STARTED = (Reason.INVALID_OFFERS, Reason.RESOURCES_UNKNOWN)
"""Why a task is dropped before anybody could have started it."""


def update(state: State, event: events.Update, now: float) -> list[Effect]:
    """One status update."""
    status = event.status
    found = state.find(status.task_id)
    if found is None:
        return kill_unknown(state.framework_id, status, UNKNOWN)
    job, run = found
    if run.state is RunState.REPORTING:
        return []
    if status.state in _ALIVE:
        return _alive(state, job, run, status)
    unreachable = status.state is TaskState.UNREACHABLE
    if unreachable or (status.state is TaskState.LOST and status.reason in _MAY_COME_BACK):
        return _unreachable(state, job, run, status, now)
    message = status.message or str(status.reason or status.state)
    if status.state in _GONE or status.reason is Reason.EXECUTOR_TERMINATED:
        unstarted = status.state is TaskState.DROPPED and status.reason in _NEVER_STARTED
        begun = status.state is TaskState.FAILED
        return lose(state, job, run, message, now, surely_unstarted=unstarted, surely_begun=begun)
    if status.state is TaskState.FINISHED:
        return _finished(state, job, run, message, status.data, now)
    if status.state is TaskState.KILLED and not run.ending:
        at_least_once = job.spec.delivery is not Delivery.AT_MOST_ONCE
        if status.reason is Reason.AGENT_DRAINING and at_least_once and not job.spec.disabled:
            return displace(state, job, run, message, now)
        # Nobody asked cron for it, so the firing is still to be done.
        return end_attempt(state, job, run, Result.FAILURE, f"killed by somebody else: {message}", now)
    # An ERROR says that the task cannot be run as it is, which a further try would not change.
    may_retry = status.state is not TaskState.ERROR
    return end_attempt(state, job, run, Result.FAILURE, message, now, may_retry=may_retry, ended_at=status.at)


def _alive(state: State, job: Job, run: Run, status: TaskStatus) -> list[Effect]:
    started = status.state in _STARTED or (status.state is TaskState.KILLING and run.started_at is not None)
    returned = run.unreachable_at is not None
    begins = started and run.started_at is None
    runs = run.state is RunState.RUNNING or status.state is TaskState.RUNNING
    then = RunState.RUNNING if runs or run.started_at is not None else RunState.LAUNCHED
    if then is run.state and not begins and not returned:
        return []
    run = replace(
        run, state=then, started_at=status.at if begins else run.started_at, unreachable_at=None,
        agent_id=run.agent_id or status.agent_id,
    )  # fmt: skip
    # It was live and stays so: nothing else can be launched or given up for it, unless its agent was silent.
    state.place(job, run, look=returned)
    if not begins and not returned:
        # That it has begun is written already, and no more than this counts after a crash.
        return []
    effects: list[Effect] = [Persist(run_key(run), run)]
    facts = {"job": job.name, "task": run.task_id, "agent": run.agent_id}
    if returned:
        effects.append(Note("run is back", status.message or "its agent answers again", facts=facts))
    elif begins:
        effects.append(Note("run is started", status.message or "", "debug", facts))
    return effects


def _unreachable(state: State, job: Job, run: Run, status: TaskStatus, now: float) -> list[Effect]:
    if run.ending:
        return end_attempt(state, job, run, Result.KILLED, run.ending, now)
    if run.unreachable_at is not None:
        return []
    run = replace(run, state=RunState.UNREACHABLE, unreachable_at=min(status.unreachable_at or now, now))
    state.place(job, run)
    facts = {"job": job.name, "task": run.task_id, "agent": run.agent_id}
    return [
        Persist(run_key(run), run),
        Note("run is unreachable", status.message or "its agent is silent", "warning", facts),
    ]


def _finished(state: State, job: Job, run: Run, message: str, data: bytes | None, now: float) -> list[Effect]:
    if not job.spec.is_async:
        return end_attempt(state, job, run, Result.SUCCESS, message, now, data=data)
    if run.reported is not None:
        return end_reported(state, job, run, run.reported, now)
    run = replace(run, state=RunState.REPORTING, unreachable_at=None, started_at=run.started_at or now)
    state.place(job, run)
    facts = {"job": job.name, "task": run.task_id}
    return [Persist(run_key(run), run), Note("run awaits its report", "the job is asynchronous", facts=facts)]


def end_reported(state: State, job: Job, run: Run, code: int, now: float) -> list[Effect]:
    """The end of an asynchronous run, as it was reported."""
    result = Result.SUCCESS if code == 0 else Result.FAILURE
    return end_attempt(state, job, run, result, f"reported with the code {code}", now)


def subscribed(state: State, event: events.Subscribed) -> list[Effect]:
    """Say again all that the master may not have heard."""
    state.subscribe(event)
    state.patience.heard()
    state.explanations = {}
    return kill_again(state)
