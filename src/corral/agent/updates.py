"""One ordered stream of status updates per task: each is told once it is on disk, the oldest again and again.

Retry after 10 s, doubling, at most every 10 min; an acknowledgement or a new registration starts anew. A task is
forgotten when its last one is acknowledged. Deviates: Mesos' status update manager tells the next update only when the
one before is acknowledged; here the master keeps it for that moment, and the way to the agent is spared.
"""

from itertools import islice

from msgspec import structs

from corral.agent.deadlines import Due
from corral.agent.effects import Send, TellExecutor
from corral.agent.spec import Event
from corral.agent.state import AgentState, Task
from corral.lib.backoff import grow_delay_s
from corral.lib.ids import mint_uuid_bytes
from corral.model.container import NetworkInfo
from corral.model.executor import Acknowledged
from corral.model.health import CheckResult
from corral.model.ids import ContainerId, ExecutorId
from corral.model.orders import AcknowledgeUpdate, UpdateTask
from corral.model.resources import Resources
from corral.model.task import TERMINAL, ContainerStatus, Reason, Source, TaskState, TaskStatus
from corral.runtime.core import Effect

FIRST_RETRY_S = 10.0
MOST_RETRY_S = 600.0
MOST_TOLD = 8
"""How many updates of a task are on their way before the oldest is acknowledged."""

_REPLACEABLE = (Reason.TASK_HEALTH_CHECK_STATUS_UPDATED, Reason.TASK_CHECK_STATUS_UPDATED)
"""An update for one of these that nobody was told yet says no more than what is past, once there is a newer one."""

COUNTER = {
    TaskState.FINISHED: "finished",
    TaskState.FAILED: "failed",
    TaskState.KILLED: "killed",
    TaskState.ERROR: "errors",
}
"""Terminal states that are not named count as lost."""


def enqueue(
    state: AgentState,
    task: Task,
    to: TaskState,
    now: float,
    *,
    source: Source = Source.EXECUTOR,
    message: str | None = None,
    reason: Reason | None = None,
    limitation: Resources = (),
    data: bytes | None = None,
) -> list[Effect]:
    """The task is in a new state, or in a new state of health: write it down, and tell it when nothing older waits.

    Shapes: returns [] when the task has ended already; nothing may follow a terminal update.
    """
    status = TaskStatus(
        task_id=task.info.task_id,
        state=to,
        at=now,
        source=source,
        message=message,
        reason=reason,
        agent_id=state.identity.agent_id,
        executor_id=executor_id(task),
        uuid=mint_uuid_bytes(state.random),
        data=data,
        container_status=container_status(state, task),
        limitation=limitation,
    )
    return append(state, task, status, now)


def append(state: AgentState, task: Task, status: TaskStatus, now: float) -> list[Effect]:
    """The newest status of the task, whoever made it; nothing may follow a terminal one."""
    if task.state in TERMINAL:
        return []
    to, reason = status.state, status.reason
    if task.checks:
        status = _with_health(task, status)
    if task.check_status is not None:
        status = structs.replace(status, check=task.check_status)
    if reason in _REPLACEABLE and len(task.pending) > task.told and task.pending[-1].reason is reason:
        task.pending.pop()
    task.pending.append(status)
    task.latest = status
    task.statuses[to] = status
    state.counters["updates"] += 1
    if to in TERMINAL:
        task.move(Event.END)
        state.counters[COUNTER.get(to, "lost")] += 1
    return [state.save_run(task), *tell(state, task, now)]


def _with_health(task: Task, status: TaskStatus) -> TaskStatus:
    """An end says nothing of health, unless that is its reason."""
    if status.state in TERMINAL:
        unhealthy = task.ending is not None and task.ending.unhealthy
        return structs.replace(status, healthy=False, health=_results(task)) if unhealthy else status
    return structs.replace(status, healthy=task.healthy, health=_results(task))


def _results(task: Task) -> tuple[CheckResult, ...]:
    return tuple(each.result(index) for index, each in enumerate(task.checks) if each.alive is not None)


def executor_id(task: Task) -> ExecutorId:
    """A command task is its own executor, by Mesos' rule."""
    return task.info.executor.executor_id if task.info.executor is not None else ExecutorId(task.info.task_id)


def container_status(state: AgentState, task: Task) -> ContainerStatus:
    executor = task.executor
    own = executor if executor is not None and task.custom else task
    parent = executor.container_id if executor is not None and not task.custom else None
    launched = own.launched
    if launched is None:
        return ContainerStatus(container_id=own.container_id, parent=parent)
    ip = launched.ip or state.config.ip  # without an address of its own it has the node's
    return ContainerStatus(
        container_id=own.container_id,
        parent=parent,
        network_infos=(
            NetworkInfo(ip_addresses=(ip,)),
            *(NetworkInfo(name=name, ip_addresses=(more,)) for name, more in launched.more_ips),
        ),
        executor_pid=launched.pid,
    )


def tell(state: AgentState, task: Task, now: float) -> list[Effect]:
    """Send what the master has not been sent of the task's stream; nothing without a master."""
    if not state.registered:
        return []
    fresh = list(islice(task.pending, task.told, MOST_TOLD))
    if not fresh:
        return []
    if task.told == 0:
        _wait_for_acknowledgement(state, task, now)
    task.told += len(fresh)
    state.spoke_at = now
    return [Send(UpdateTask(task.framework_id, status, task.state)) for status in fresh]


def _wait_for_acknowledgement(state: AgentState, task: Task, now: float) -> None:
    """The head is told, or has become the head: it is told again unless it is acknowledged in time."""
    task.tries += 1
    delay_s = grow_delay_s(task.tries, first_s=FIRST_RETRY_S, factor=2.0, most_s=MOST_RETRY_S)
    state.deadlines.set(task.container_id, Due.UPDATE, now + delay_s)


def retry(state: AgentState, container_id: ContainerId, now: float) -> list[Effect]:
    """No acknowledgement of the head came in time; what follows it waits at the master."""
    task = state.by_container.get(container_id)
    if task is None or not state.registered or not task.told:
        return []
    _wait_for_acknowledgement(state, task, now)
    state.spoke_at = now
    return [Send(UpdateTask(task.framework_id, task.pending[0], task.state))]


def acknowledge(state: AgentState, order: AcknowledgeUpdate, now: float) -> list[Effect]:
    """The framework has the update: the next one is the head, or the task is forgotten after its last.

    Shapes: returns [] for an acknowledgement of anything but the head; it is a repeated one.
    """
    task = state.tasks.get((order.framework_id, order.task_id))
    if task is None or not task.pending or task.pending[0].uuid != order.uuid:
        return []
    status = task.pending.popleft()
    task.told = max(task.told - 1, 0)
    task.tries = 0
    state.deadlines.cancel(task.container_id, Due.UPDATE)
    told = _tell_executor(task, status)
    if status.state in TERMINAL:
        return [*state.forget(task), *told]
    if task.told:
        _wait_for_acknowledgement(state, task, now)
    return [state.save_run(task), *told, *tell(state, task, now)]


def _tell_executor(task: Task, status: TaskStatus) -> list[Effect]:
    """Let the executor forget an update of its own."""
    if not task.custom or status.source is not Source.EXECUTOR or status.uuid is None:
        return []
    task.acknowledged.append(status.uuid)
    if task.executor is None or task.executor.stream is None:
        return []
    return [TellExecutor(task.executor.stream, Acknowledged(task_id=status.task_id, uuid=status.uuid))]


def tell_all(state: AgentState, now: float) -> list[Effect]:
    """After a registration every stream is told anew from its head."""
    effects: list[Effect] = []
    for key in sorted(state.tasks):
        task = state.tasks[key]
        task.tries = task.told = 0
        effects += tell(state, task, now)
    return effects


def hush(state: AgentState) -> None:
    """The master is gone: nothing is on its way any more."""
    for task in state.tasks.values():
        if task.told:
            task.told = 0
            state.deadlines.cancel(task.container_id, Due.UPDATE)
