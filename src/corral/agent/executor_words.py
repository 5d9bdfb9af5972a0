"""What an executor and its agent say to each other: subscriptions, updates, acknowledgements, messages.

Rules: what an executor tells is on disk before it is answered; an update is known by its uuid; a launch that may or may
not have arrived is told as lost. Source: Mesos v1 executor API.
"""

from msgspec import structs

from corral.agent import executor_life as life
from corral.agent import executors, tasks, updates
from corral.agent.deadlines import Due
from corral.agent.effects import CloseExecutor, Send, TellExecutor
from corral.agent.executor_state import Executor
from corral.agent.session import describe_agent
from corral.agent.spec import ExecutorClosed, Stage, SubscribeExecutor, TakeCall
from corral.agent.state import AgentState, Task
from corral.lib.errors import Forbidden, Invalid
from corral.model import executor as api
from corral.model.framework import Capability
from corral.model.ids import ExecutorId, FrameworkId, TaskId
from corral.model.orders import ExecutorMessage, MessageExecutor
from corral.model.task import TERMINAL, ContainerStatus, Reason, Source, TaskState, TaskStatus, seen_state
from corral.runtime.core import Effect, Note


def find(state: AgentState, framework_id: FrameworkId, executor_id: ExecutorId) -> Executor:
    """Errors: `Invalid` for an unknown framework or executor, or one that is no process of its own."""
    if framework_id not in state.frameworks:
        raise Invalid(f"framework {framework_id} cannot be found on this agent")
    executor = state.executors.get((framework_id, executor_id))
    if executor is None or executor.is_default:
        raise Invalid(f"executor {executor_id} of framework {framework_id} cannot be found on this agent")
    return executor


def subscribe(state: AgentState, command: SubscribeExecutor, now: float) -> list[Effect]:
    """The executor listens: bring together what it and this agent know, then hand over what waits.

    Errors: `Invalid` for an unknown framework or executor.
    """
    call = command.call
    executor = find(state, call.framework_id, call.executor_id)
    effects: list[Effect] = []
    if executor.stream is not None:
        effects.append(CloseExecutor(executor.stream, "the executor subscribed anew"))
    executor.stream = command.stream
    executor.subscribed = True
    state.deadlines.cancel(executor.container_id, Due.REGISTER)
    subscribed = api.Subscribed(
        executor=executor.info, framework=state.frameworks[executor.framework_id], agent=describe_agent(state),
        container_id=executor.container_id,
    )  # fmt: skip
    effects += [
        executor.save_run(),
        Note("executor subscribed", facts=life.describe(executor)),
        TellExecutor(command.stream, subscribed),
    ]
    for status in call.updates:
        effects += take_update(state, executor, status, now)
    effects += _settle_handed_over(state, executor, frozenset(call.task_ids), now)
    if executor.ending is not None:
        # It may have missed the order, and what is left of its grace still counts.
        return [*effects, TellExecutor(command.stream, api.Shutdown())]
    return effects + executors.hand_over(state, executor)


def _settle_handed_over(state: AgentState, executor: Executor, known: frozenset[TaskId], now: float) -> list[Effect]:
    """Of tasks that were handed over, those never arrived that it does not know and has said nothing of."""
    effects: list[Effect] = []
    framework = state.frameworks[executor.framework_id]
    for task in executor.live_tasks:
        if task.stage is Stage.STAGING:
            continue
        if task.latest is None and task.info.task_id not in known:
            dropped = seen_state(TaskState.DROPPED, framework.can(Capability.PARTITION_AWARE))
            why = "its launch did not reach the executor before the agent was restarted or the stream broke"
            effects += tasks.end(
                state, task, dropped, now, source=Source.AGENT, message=why, reason=Reason.AGENT_RESTARTED
            )
        elif task.ending is not None and executor.stream is not None:
            executors.insist(state, task, now)
            grace_s = max(0.0, task.ending.by - now)
            effects.append(TellExecutor(executor.stream, api.Kill(task_id=task.info.task_id, grace_s=grace_s)))
    return effects


def take(state: AgentState, command: TakeCall, now: float) -> list[Effect]:
    """Any other call.

    Errors: `Invalid` for an unknown framework or executor; `Forbidden` when it is not subscribed.
    """
    call = command.call
    executor = find(state, call.framework_id, call.executor_id)
    if isinstance(call, api.Heartbeat):
        return []
    if executor.stream is None:
        raise Forbidden(f"executor {call.executor_id} of framework {call.framework_id} is not subscribed")
    if isinstance(call, api.Update):
        return take_update(state, executor, call.status, now)
    if not state.registered:
        return []
    return [Send(ExecutorMessage(call.framework_id, call.executor_id, call.data))]


def take_update(state: AgentState, executor: Executor, status: TaskStatus, now: float) -> list[Effect]:
    """A status from the executor. One that is known waits for its acknowledgement; one that is of no use is told so."""
    task = executor.tasks.get(status.task_id)
    assert status.uuid is not None, "the dialect refuses updates without"
    if task is not None and any(each.uuid == status.uuid for each in task.pending):
        return []
    if task is None or status.uuid in task.acknowledged or task.state in TERMINAL:
        assert executor.stream is not None
        return [TellExecutor(executor.stream, api.Acknowledged(task_id=status.task_id, uuid=status.uuid))]
    found = structs.replace(
        status,
        at=status.at or now,
        agent_id=state.identity.agent_id,
        executor_id=executor.info.executor_id,
        container_status=_container_status(state, task, status),
        unreachable_at=None,
    )
    ending = task.ending
    if ending is not None and found.reason is None and found.state is TaskState.KILLED:
        found = structs.replace(found, reason=ending.reason, message=found.message or ending.why or None)
    effects = updates.append(state, task, found, now)
    if found.state in TERMINAL:
        state.free_ports(task)
        state.deadlines.cancel(task.container_id, Due.KILL)
        level = "info" if found.state in (TaskState.FINISHED, TaskState.KILLED) else "warning"
        facts = {**executors.describe_task(task), "state": found.state.value}
        effects += [Note("task ended", found.message or "", level, facts), *life.fit(executor)]
    return effects


def _container_status(state: AgentState, task: Task, status: TaskStatus) -> ContainerStatus:
    """What the executor did not say of its container."""
    own = updates.container_status(state, task)
    told = status.container_status
    if told is None:
        return own
    return structs.replace(
        told,
        container_id=told.container_id or own.container_id,
        network_infos=told.network_infos or own.network_infos,
        executor_pid=told.executor_pid or own.executor_pid,
    )


def message(state: AgentState, order: MessageExecutor) -> list[Effect]:
    """The framework's word to its executor; best effort by its contract."""
    executor = state.executors.get((order.framework_id, order.executor_id))
    if executor is None or executor.stream is None:
        facts = {"framework": order.framework_id, "executor": order.executor_id}
        return [Note("message dropped", "the executor does not listen", "debug", facts)]
    return [TellExecutor(executor.stream, api.Told(data=order.data))]


def close(state: AgentState, input: ExecutorClosed, now: float) -> list[Effect]:
    """Its stream broke: it may come back when its framework checkpoints, else it is expected to end."""
    executor = next((each for each in state.executors.values() if each.stream == input.stream), None)
    if executor is None:
        return []
    executor.stream = None
    if executor.ending is None and executor.stage is Stage.RUNNING:
        checkpoints = state.frameworks[executor.framework_id].checkpoint
        limit_s = state.config.executor_recovery_timeout_s if checkpoints else life.shutdown_grace_s(state, executor)
        state.deadlines.set(executor.container_id, Due.REGISTER, now + limit_s)
    return [Note("executor disconnected", input.why, "warning", life.describe(executor))]
