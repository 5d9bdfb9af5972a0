"""What the master tells of tasks, brought into the jobs.

An end is in the records before the session acknowledges it. A task that is no job's present attempt is ended: it
belongs to a job that is over, or to a launch that was given up. Source: the batch contract, rules.
"""

import re
from bisect import bisect_left

import msgspec

from corral.frameworks.batch import nodes
from corral.frameworks.batch.outcomes import end_attempt, lose, make_room, move
from corral.frameworks.batch.spec import ACTIVE, JobEvent, JobState, Progress
from corral.frameworks.batch.state import BUCKETS_S, Job, State, name_task
from corral.model import calls, events
from corral.model.ids import AgentId
from corral.model.task import Reason, TaskState, TaskStatus
from corral.runtime.core import Effect, Note, SetTimer
from corral.sdk.answers import kill_unknown
from corral.sdk.effects import Call

replace = msgspec.structs.replace

UNKNOWN = "no job has this attempt: it is over or was given up"
SWEEP = "sweep"
_ALIVE = (TaskState.STAGING, TaskState.STARTING, TaskState.RUNNING, TaskState.KILLING)
_MAY_COME_BACK = (Reason.AGENT_DISCONNECTED, Reason.AGENT_REMOVED, Reason.RECONCILIATION)
_GONE = (
    TaskState.LOST, TaskState.DROPPED, TaskState.GONE, TaskState.GONE_BY_OPERATOR, TaskState.UNKNOWN,
)  # fmt: skip
_NEVER_STARTED = (Reason.INVALID_OFFERS, Reason.RESOURCES_UNKNOWN)
_MOVED_ON = (Reason.CONTAINER_PREEMPTED, Reason.AGENT_DRAINING)
_STATUS = re.compile(r"exited with status (\d+)")


def update(state: State, event: events.Update, now: float) -> list[Effect]:
    """One status update."""
    status = event.status
    job = state.find_task(status.task_id)
    if job is None:
        return kill_unknown(state.framework_id, status, UNKNOWN)
    run = job.run
    assert run is not None
    if status.state is TaskState.FINISHED:
        effects = [] if run.started_at is not None else _start(state, job, run, status, now)
        job_id = status.task_id.rpartition(".")[0]
        effects += end_attempt(state, job, JobEvent.SUCCEED, "", now, exit_code=0, job_id=job_id)
        nodes.succeeded(state, job, run, now)
        return effects
    if status.state in _ALIVE:
        return _alive(state, job, run, status, now)
    message = status.message or str(status.reason or status.state)
    if status.state is TaskState.UNREACHABLE or (
        status.state is TaskState.LOST and status.reason in _MAY_COME_BACK
    ):  # fmt: skip
        return _unreachable(state, job, run, status, message, now)
    if status.state in _GONE or status.reason is Reason.EXECUTOR_TERMINATED:
        unstarted = status.state is TaskState.DROPPED and status.reason in _NEVER_STARTED
        return lose(state, job, message, now, surely_unstarted=unstarted)
    if run.evicted or status.reason in _MOVED_ON:
        return make_room(state, job, message, now)
    code = _exit_code(message)
    if status.reason is Reason.MAX_COMPLETION_TIME_REACHED:
        return end_attempt(state, job, JobEvent.RUN_OUT, f"it ran for {job.spec.timeout:g} s", now, exit_code=code)
    if status.state is TaskState.KILLED and not run.ending:
        message = f"killed by somebody else: {message}"
        return end_attempt(state, job, JobEvent.KILL, message, now, exit_code=code)
    # An ERROR says that the task cannot be run as it is, which a further try would not change.
    may_retry = status.state is not TaskState.ERROR
    blamed = nodes.failed(state, job, run, status, now)
    return [*end_attempt(state, job, JobEvent.FAIL, message, now, exit_code=code, may_retry=may_retry), *blamed]


def _exit_code(message: str) -> int | None:
    found = _STATUS.search(message)
    return None if found is None else int(found[1])


def _start(state: State, job: Job, run: Progress, status: TaskStatus, now: float) -> list[Effect]:
    waited_s = max(0.0, run.launched_at - run.queued_at) if run.queued_at else max(0.0, now - job.bundle.at)
    state.start_buckets[bisect_left(BUCKETS_S, waited_s)] += 1
    state.start_sum += waited_s
    state.started.add(now)
    run = replace(run, started_at=status.at, unreachable_at=None, agent_id=run.agent_id or status.agent_id or "")
    return move(state, job, JobEvent.START, run, status.task_id.rpartition(".")[0])


def _alive(state: State, job: Job, run: Progress, status: TaskStatus, now: float) -> list[Effect]:
    effects: list[Effect] = []
    if run.state is JobState.STARTING and status.state is TaskState.RUNNING:
        effects += _start(state, job, run, status, now)
    elif run.unreachable_at is not None:
        job.run = replace(run, unreachable_at=None)
        facts = {"job": job.id, "agent": run.agent_id}
        effects.append(Note("job is back", status.message or "its agent answers again", facts=facts))
    return effects


def _unreachable(
    state: State, job: Job, run: Progress, status: TaskStatus, message: str, now: float
) -> list[Effect]:  # fmt: skip
    """Wait whether the agent comes back, for as long as is set; a job that was to end has ended."""
    if run.ending:
        return end_attempt(state, job, JobEvent.KILL, run.ending, now)
    if run.unreachable_at is not None:
        return []
    job.run = replace(run, unreachable_at=min(status.unreachable_at or now, now))
    state.look_again(now + state.config.unreachable_timeout_s, "silent", job)
    return [Note("job is unreachable", message, "warning", {"job": job.id, "agent": run.agent_id})]


def silent(state: State, job: Job, now: float) -> list[Effect]:
    """The time in which an agent could have come back may be over."""
    run = job.run
    if run is None or run.unreachable_at is None or run.state not in ACTIVE:
        return []
    waited_s = now - run.unreachable_at
    if waited_s < state.config.unreachable_timeout_s:
        state.look_again(run.unreachable_at + state.config.unreachable_timeout_s, "silent", job)
        return []
    return lose(state, job, f"agent {run.agent_id} has been silent for {waited_s:.0f} s", now)


def order_end(state: State, job: Job, *, again: bool = False) -> list[Effect]:
    """Ask the master to end the task; without a connection it is asked after the next subscription."""
    run = job.run
    assert run is not None
    state.endings[job] = None
    if not state.connected or state.framework_id is None:
        return []
    kill = calls.Kill(
        framework_id=state.framework_id,
        task_id=name_task(job.id, run.attempt),
        agent_id=AgentId(run.agent_id) if run.agent_id else None,
    )
    timer = SetTimer(SWEEP, state.config.kill_retry_s, if_unset=True)
    return [Call(kill)] if again else [Call(kill), timer]


def end_again(state: State) -> list[Effect]:
    """Repeat every order to end that has had no effect yet."""
    effects = [effect for job in list(state.endings) for effect in order_end(state, job, again=True)]
    if effects:
        effects.append(SetTimer(SWEEP, state.config.kill_retry_s))
    return effects


def subscribed(state: State, event: events.Subscribed) -> list[Effect]:
    """Say again all that the master may not have heard."""
    state.subscribe(event)
    state.patience.heard()
    for shape in state.shapes.values():
        # Said by another master, or of wants that this one does not know.
        shape.explanation, shape.blocked, shape.never_at = None, False, None
    return end_again(state)
