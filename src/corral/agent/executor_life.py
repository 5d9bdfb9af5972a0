"""The life of an executor's container on this agent: brought up for its first task, watched, shut down, ended.

Rules: each step is on disk before it is taken; an executor that is silent for too long is ended; when it ends, so do
its tasks, each for the reason of that end. Source: Mesos v1 executor API.
"""

from corral.agent import tasks
from corral.agent.deadlines import Due
from corral.agent.effects import (
    Abort,
    CancelFetch,
    CloseExecutor,
    Discard,
    Fetch,
    Kill,
    Remove,
    Resize,
    Send,
    Start,
    TellExecutor,
    Wait,
)
from corral.agent.execution import size_executor
from corral.agent.executor_state import Executor
from corral.agent.spec import (
    Ending,
    Event,
    Exited,
    Fetched,
    KillFailed,
    Sandbox,
    Stage,
    Started,
    StartFailed,
    WaitFailed,
)
from corral.agent.state import AgentState
from corral.model import executor as api
from corral.model.execution import Exit, Launched
from corral.model.framework import Capability
from corral.model.ids import ContainerId, FrameworkId
from corral.model.orders import ExecutorEnded, ShutdownExecutor
from corral.model.task import Reason, Source, TaskState, seen_state
from corral.runtime.core import Effect, Note


def bring_up(state: AgentState, executor: Executor, now: float) -> list[Effect]:
    command, plan = executor.info.command, executor.plan
    if command is not None and command.uris and plan is not None:
        executor.move(Event.FETCH)
        state.deadlines.set(executor.container_id, Due.STAGE, now + state.config.fetch_timeout_s)
        why = f"{len(command.uris)} uris come before the start"
        return [
            executor.save_run(),
            Fetch(executor.container_id, executor.sandbox, command.uris, plan.owner, why),
        ]
    return _start(state, executor, now)


def _start(state: AgentState, executor: Executor, now: float) -> list[Effect]:
    plan, executor.plan = executor.plan, None
    assert plan is not None
    executor.cpu_milli, executor.mem_mb = plan.execution.cpu_milli, plan.execution.mem_mb
    executor.move(Event.START)
    state.deadlines.set(executor.container_id, Due.STAGE, now + state.config.start_timeout_s)
    why = "its first task waits"
    return [
        executor.save_run(),
        Start(executor.runtime, plan.execution, plan.directories, plan.owner, why, plan.volumes),
    ]


def fetched(state: AgentState, input: Fetched, now: float) -> list[Effect]:
    executor = state.executor_containers[input.container_id]
    if executor.stage is not Stage.FETCHING:
        return []
    state.deadlines.cancel(executor.container_id, Due.STAGE)
    if input.why is not None:
        return _fail_launch(state, executor, input.why, now)
    return _start(state, executor, now)


def started(state: AgentState, input: Started, now: float) -> list[Effect]:
    executor = state.executor_containers[input.launched.container_id]
    if not executor.move(Event.STARTED):
        return []
    return settle_running(state, executor, input.launched, now)


def settle_running(state: AgentState, executor: Executor, launched: Launched, now: float) -> list[Effect]:
    """Its process runs: wait for its end, and for it to subscribe."""
    executor.launched = launched
    state.deadlines.cancel(executor.container_id, Due.STAGE)
    effects: list[Effect] = [
        executor.save_run(),
        Note("executor runs", facts=describe(executor)),
        Wait(executor.runtime, executor.container_id),
        *fit(executor),
    ]
    if executor.ending is not None:
        return effects + _kill(state, executor, now, executor.ending.why)
    if executor.stream is None:
        state.deadlines.set(executor.container_id, Due.REGISTER, now + state.config.executor_register_timeout_s)
    return effects


def fit(executor: Executor) -> list[Effect]:
    """Let the executor's container have room for its tasks. Memory is not taken back from it: it may be in use."""
    if executor.stage is not Stage.RUNNING or executor.is_default:
        return []
    cpu_milli, mem_mb = size_executor(executor.info, [task.info for task in executor.live_tasks])
    more = mem_mb is not None and executor.mem_mb is not None and mem_mb > executor.mem_mb
    if cpu_milli == executor.cpu_milli and not more:
        return []
    executor.cpu_milli = cpu_milli
    executor.mem_mb = mem_mb if more else executor.mem_mb
    why = f"it holds {len(executor.live_tasks)} tasks"
    size = Resize(executor.runtime, executor.container_id, cpu_milli, executor.mem_mb, why)
    return [executor.save_run(), size]


def start_failed(state: AgentState, input: StartFailed, now: float) -> list[Effect]:
    executor = state.executor_containers[input.container_id]
    if executor.stage is not Stage.STARTING:
        return []
    if executor.ending is not None:
        return bury(state, executor, now, None, executor.ending.why)
    return _fail_launch(state, executor, input.why, now)


def _fail_launch(state: AgentState, executor: Executor, why: str, now: float) -> list[Effect]:
    state.counters["launch_errors"] += 1
    executor.ending = Ending(now, TaskState.FAILED, Reason.CONTAINER_LAUNCH_FAILED, why)
    return bury(state, executor, now, None, why)


def exited(state: AgentState, input: Exited, now: float) -> list[Effect]:
    executor = state.executor_containers[input.exit.container_id]
    return settle_exit(state, executor, input.exit, now)


def settle_exit(state: AgentState, executor: Executor, exit: Exit, now: float) -> list[Effect]:
    """Its process has ended, whether it was asked to or not."""
    why = tasks.describe_exit(exit).replace("Command", "Executor", 1)
    if executor.ending is None and exit.oom:
        why = exit.message or "Memory limit exceeded: the kernel ended the executor; give it more mem"
        executor.ending = Ending(now, TaskState.FAILED, Reason.CONTAINER_LIMITATION_MEMORY, why)
    elif executor.ending is not None and executor.ending.why:
        why = f"{executor.ending.why}: {why}"
    return bury(state, executor, now, _wait_status(exit), why)


def _wait_status(exit: Exit) -> int | None:
    """As wait(2) gives it."""
    if exit.code is not None:
        return exit.code << 8
    return exit.signal


def bury(
    state: AgentState, executor: Executor, now: float, status: int | None, why: str, *, removes: bool = True
) -> list[Effect]:
    """The executor is over: its tasks end with it, its stream is closed, the master hears of it."""
    ending = executor.ending or Ending(now, TaskState.FAILED, Reason.EXECUTOR_TERMINATED)
    to = TaskState.KILLED if ending.state is TaskState.KILLED else TaskState.FAILED
    framework = state.frameworks[executor.framework_id]
    effects: list[Effect] = []
    for task in executor.live_tasks:
        if ending.reason is Reason.AGENT_RESTARTED:
            to = seen_state(TaskState.DROPPED, framework.can(Capability.PARTITION_AWARE))
        reason = ending.reason or Reason.EXECUTOR_TERMINATED
        effects += tasks.end(state, task, to, now, source=Source.AGENT, message=why, reason=reason)
    if executor.stream is not None:
        effects.append(CloseExecutor(executor.stream, why))
        executor.stream = None
    state.ended.append(Sandbox(executor.sandbox, executor.container_id, now))
    effects += state.forget_executor(executor)
    state.counters["executors_ended"] += 1
    if removes and executor.runtime and executor.stage in (Stage.STARTING, Stage.RUNNING):
        effects.append(Remove(executor.runtime, executor.container_id))
    effects += tell_ended(state, executor, status, now)
    effects.append(Note("executor ended", why, facts=describe(executor)))
    return effects


def tell_ended(state: AgentState, executor: Executor, status: int | None, now: float) -> list[Effect]:
    """Without a master nothing: the next registration tells which executors there are."""
    if not state.registered:
        return []
    state.spoke_at = now
    return [Send(ExecutorEnded(executor.framework_id, executor.info.executor_id, status))]


# Ending it.


def shut_down(state: AgentState, executor: Executor, ending: Ending, now: float) -> list[Effect]:
    """Ask the executor to end, and end it when it has not by then; of two requests the first says why."""
    if executor.is_default:
        effects: list[Effect] = []
        for task in executor.live_tasks:
            of_task = Ending(ending.by, TaskState.KILLED, ending.reason, ending.why)
            effects += tasks.request_end(state, task, of_task, now)
        return effects
    if executor.ending is not None:
        return []
    executor.ending = ending
    effects = [executor.save_run(), Note("executor shut down", ending.why, facts=describe(executor))]
    match executor.stage:
        case Stage.STAGING:
            return effects + bury(state, executor, now, None, ending.why)
        case Stage.FETCHING:
            return [*effects, CancelFetch(executor.container_id, ending.why),
                    *bury(state, executor, now, None, ending.why)]  # fmt: skip
        case Stage.STARTING:
            state.deadlines.set(executor.container_id, Due.STAGE, now + state.config.kill_retry_s)
            return [*effects, Abort(executor.container_id, ending.why)]
        case _:
            return effects + _end_running(state, executor, now)


def _end_running(state: AgentState, executor: Executor, now: float) -> list[Effect]:
    ending = executor.ending
    assert ending is not None
    state.deadlines.cancel(executor.container_id, Due.REGISTER)
    if executor.stream is None:
        return _kill(state, executor, now, ending.why)
    state.deadlines.set(executor.container_id, Due.KILL, max(now, ending.by))
    return [TellExecutor(executor.stream, api.Shutdown())]


def _kill(state: AgentState, executor: Executor, now: float, why: str) -> list[Effect]:
    ending = executor.ending
    grace_s = max(0.0, ending.by - now) if ending is not None else 0.0
    state.deadlines.cancel(executor.container_id, Due.REGISTER)
    state.deadlines.set(executor.container_id, Due.KILL, now + grace_s + state.config.kill_retry_s)
    return [Kill(executor.runtime, executor.container_id, grace_s, why)]


def shutdown_grace_s(state: AgentState, executor: Executor) -> float:
    own = executor.info.shutdown_grace_s
    return state.config.executor_shutdown_grace_s if own is None else own


def shut_down_one(state: AgentState, order: ShutdownExecutor, now: float) -> list[Effect]:
    """Its framework asked for it, or it has to make room."""
    executor = state.executors.get((order.framework_id, order.executor_id))
    if executor is None:
        return [Note("shutdown ignored", "the executor is not here", facts={"executor": order.executor_id})]
    by = now + shutdown_grace_s(state, executor)
    if order.reason is not None:
        return shut_down(state, executor, Ending(by, TaskState.KILLED, order.reason, order.why), now)
    why = f"framework {order.framework_id} shut executor {order.executor_id} down"
    return shut_down(state, executor, Ending(by, TaskState.FAILED, Reason.EXECUTOR_TERMINATED, why), now)


def shut_down_all(state: AgentState, framework_id: FrameworkId, now: float) -> list[Effect]:
    """End the custom executors of a framework that is no more."""
    effects: list[Effect] = []
    for key in sorted(key for key in state.executors if key[0] == framework_id):
        executor = state.executors.get(key)
        if executor is not None and not executor.is_default:
            by = now + shutdown_grace_s(state, executor)
            why = f"framework {framework_id} was removed"
            effects += shut_down(state, executor, Ending(by, TaskState.KILLED, Reason.FRAMEWORK_REMOVED, why), now)
    return effects


def kill_failed(state: AgentState, input: KillFailed) -> list[Effect]:
    """The deadline of the kill tries again."""
    executor = state.executor_containers[input.container_id]
    return [Note("kill failed", f"{input.why}; it is tried again", "warning", describe(executor))]


def wait_failed(state: AgentState, input: WaitFailed, now: float) -> list[Effect]:
    """The runtime lost sight of the executor: ask again, unless nobody will ever know."""
    executor = state.executor_containers[input.container_id]
    if input.gone:
        return settle_exit(state, executor, Exit(container_id=input.container_id, message=input.why), now)
    state.deadlines.set(executor.container_id, Due.WAIT, now + tasks.WAIT_RETRY_S)
    return [Note("executor out of sight", f"{input.why}; it is asked for again", "warning", describe(executor))]


def fall_due(state: AgentState, container_id: ContainerId, due: Due, now: float) -> list[Effect]:
    """An instant that was set for the executor has come."""
    executor = state.executor_containers[container_id]
    match due:
        case Due.REGISTER:
            return _give_up(state, executor, now)
        case Due.STAGE:
            return _give_up_stage(state, executor, now)
        case Due.KILL:
            return _kill(state, executor, now, "its grace is over")
        case Due.WAIT:
            return [Wait(executor.runtime, executor.container_id)]
        case _:
            return []


def _give_up(state: AgentState, executor: Executor, now: float) -> list[Effect]:
    """It does not subscribe: it is ended, and its tasks fail for that."""
    if executor.subscribed:
        reason, what = Reason.EXECUTOR_REREGISTRATION_TIMEOUT, "did not subscribe again in time"
    else:
        limit_s = state.config.executor_register_timeout_s
        reason, what = Reason.EXECUTOR_REGISTRATION_TIMEOUT, f"did not subscribe within {limit_s:g} s of its start"
    why = f"executor {executor.info.executor_id} {what}"
    executor.ending = Ending(now, TaskState.FAILED, reason, why)
    note = Note("executor given up", why, "warning", describe(executor))
    return [executor.save_run(), note, *_kill(state, executor, now, why)]


def _give_up_stage(state: AgentState, executor: Executor, now: float) -> list[Effect]:
    was = executor.stage
    if was is Stage.FETCHING:
        why = f"fetching the executor's uris took longer than {state.config.fetch_timeout_s:g} s; raise fetch_timeout_s"
        return [CancelFetch(executor.container_id, why), *_fail_launch(state, executor, why, now)]
    why = f"start of the executor by {executor.runtime} took longer than {state.config.start_timeout_s:g} s"
    clear = Discard(executor.runtime, executor.container_id, why)
    if executor.ending is not None:
        return [*bury(state, executor, now, None, executor.ending.why, removes=False), clear]
    state.counters["launch_errors"] += 1
    executor.ending = Ending(now, TaskState.FAILED, Reason.CONTAINER_LAUNCH_FAILED, why)
    abort = Abort(executor.container_id, why)
    return [abort, *bury(state, executor, now, None, why, removes=False), clear]


# After a restart of the agent.


def settle_found(
    state: AgentState, executor: Executor, launched: Launched | None, exit: Exit | None, now: float
) -> list[Effect]:
    """The runtime knows the executor: go on from what it says."""
    executor.unsettled = False
    if exit is not None:
        return settle_exit(state, executor, exit, now)
    if executor.stage is Stage.STARTING and launched is not None:
        executor.move(Event.STARTED)
        return settle_running(state, executor, launched, now)
    if executor.stage is not Stage.RUNNING:
        clear = Discard(executor.runtime, executor.container_id, "it was half started")
        return [*settle_missing(state, executor, now), clear]
    effects: list[Effect] = [Wait(executor.runtime, executor.container_id)]
    if executor.ending is not None:
        return effects + _kill(state, executor, now, f"asked for before the restart: {executor.ending.why}")
    if executor.stream is None:
        limit_s = state.config.executor_reregister_timeout_s
        if not executor.subscribed:
            limit_s = max(limit_s, state.config.executor_register_timeout_s)
        state.deadlines.set(executor.container_id, Due.REGISTER, now + limit_s)
    return effects


def settle_missing(state: AgentState, executor: Executor, now: float) -> list[Effect]:
    """The runtime does not know the executor."""
    executor.unsettled = False
    if executor.stage is Stage.RUNNING:
        why = (
            f"the {executor.runtime} runtime knows its container no more; the node was rebooted or somebody removed it"
        )
    else:
        why = "the agent was restarted before the executor ran"
        executor.ending = executor.ending or Ending(now, TaskState.LOST, Reason.AGENT_RESTARTED, why)
    return bury(state, executor, now, None, why)


def describe(executor: Executor) -> dict[str, str]:
    return {"executor": executor.info.executor_id, "framework": executor.framework_id}
