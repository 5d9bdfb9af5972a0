"""Tasks for executors: taken on, handed over, killed; and the fate that tasks of a group share.

Rules: an executor comes up with its first task; a group is taken on whole or not at all; a task is handed over once,
when its executor listens. Source: Mesos v1 executor API and default executor.
"""

from collections.abc import Sequence

from corral.agent import executor_life as life
from corral.agent import tasks, updates
from corral.agent.deadlines import Due
from corral.agent.effects import TellExecutor
from corral.agent.execution import check_order, choose_runtime, plan_executor, sandbox_path, task_sandbox
from corral.agent.executor_state import Executor
from corral.agent.spec import Ending, Event, ExecutorRecord, Stage, TaskRecord
from corral.agent.state import AgentState, Task, save_framework, task_path
from corral.lib.errors import Invalid
from corral.lib.ids import mint_uuid
from corral.model import executor as api
from corral.model.framework import Capability, FrameworkInfo
from corral.model.ids import AgentId, ContainerId, TaskId
from corral.model.orders import KillTask, RunGroup, RunTask
from corral.model.task import ExecutorInfo, Reason, Source, TaskInfo, TaskState, seen_state
from corral.runtime.core import Effect, Note, Persist

_Problem = tuple[TaskState, Reason, str]


def run(state: AgentState, order: RunTask | RunGroup, now: float) -> list[Effect]:
    """Take tasks on for their executor, which comes up with the first of them; those of a group all or none."""
    framework = order.framework
    infos = order.infos if isinstance(order, RunGroup) else (order.info,)
    if framework.id is None or not infos or infos[0].executor is None:
        return [Note("order ignored", "it comes without its framework's id, a task or an executor", "error")]
    known = [info.task_id for info in infos if (framework.id, info.task_id) in state.tasks]
    if known:
        facts = {"task": known[0], "framework": framework.id}
        return [Note("order ignored", "the task is here already", "warning", facts)]
    effects = save_framework(state, framework)
    info = infos[0].executor
    executor = state.executors.get((framework.id, info.executor_id))
    fresh = executor is None
    if executor is None:
        executor = _make(state, framework, order.role, info)
    group = infos[0].task_id if isinstance(order, RunGroup) else ""
    found = [_make_task(state, executor, order.role, each, group) for each in infos]
    problem = _find_problem(state, framework, executor, found, fresh and not order.starts_executor)
    if problem is not None:
        effects += _refuse(state, found, problem, now)
        if fresh and order.starts_executor:
            effects += life.tell_ended(state, executor, None, now)
        return effects
    if fresh:
        state.add_executor(executor)
        effects.append(Note("executor starts", f"task {infos[0].task_id} needs it", facts=life.describe(executor)))
    for task in found:
        state.add(task)
        effects.append(Persist(task_path(task.key), task.record()))
    if executor.is_default:
        effects += executor.save() if fresh else []
        for task in found:
            effects += tasks.advance(state, task, now)
        return effects
    effects += [state.save_run(task) for task in found]
    if fresh:
        effects += executor.save()
        effects += life.bring_up(state, executor, now)
    return [*effects, *life.fit(executor), *hand_over(state, executor)]


def _make(state: AgentState, framework: FrameworkInfo, role: str, info: ExecutorInfo) -> Executor:
    assert framework.id is not None
    container_id = ContainerId(mint_uuid(state.random))
    agent_id = state.identity.agent_id or AgentId("")
    sandbox = sandbox_path(state.config.work_dir, agent_id, framework.id, TaskId(info.executor_id), container_id)
    runtime = "" if info.is_default else choose_runtime_of(info)
    executor = Executor(ExecutorRecord(framework.id, role, info, container_id, runtime, sandbox))
    if info.is_default:
        executor.stage = Stage.RUNNING
    return executor


def choose_runtime_of(info: ExecutorInfo) -> str:
    """The name of the runtime that a custom executor asks for."""
    return choose_runtime(
        TaskInfo(
            task_id=TaskId(info.executor_id), name="", agent_id=AgentId(""), resources=(), container=info.container
        )
    )


def _make_task(state: AgentState, executor: Executor, role: str, info: TaskInfo, group: str) -> Task:
    own = executor.is_default
    return Task(
        TaskRecord(
            framework_id=executor.framework_id,
            role=role,
            info=info,
            container_id=ContainerId(mint_uuid(state.random)),
            runtime=choose_runtime(info) if own else executor.runtime,
            sandbox=task_sandbox(executor.sandbox, info.task_id) if own else executor.sandbox,
            group=group,
        )
    )


def _find_problem(
    state: AgentState, framework: FrameworkInfo, executor: Executor, found: Sequence[Task], missing: bool
) -> _Problem | None:
    dropped = seen_state(TaskState.DROPPED, framework.can(Capability.PARTITION_AWARE))
    name = executor.info.executor_id
    if missing or executor.ending is not None:
        why = f"executor {name}, on which the task was launched, has ended or is about to; launch it from a new offer"
        return dropped, Reason.EXECUTOR_TERMINATED, why
    invalid = Reason.TASK_GROUP_INVALID if found[0].group else Reason.TASK_INVALID
    held: dict[int, Task] = {}
    try:
        for task in found:
            check_order(task.info, state.identity.agent_id)
            if executor.is_default:
                tasks.plan(state, task, framework, executor.container_id)
        if executor.stage is Stage.STAGING and not executor.is_default:
            executor.plan = plan_executor(
                state.config, state.identity.agent_id, framework, _record(executor), [task.info for task in found]
            )
    except Invalid as error:
        return TaskState.ERROR, invalid, error.message
    for task in found:
        problem = tasks.find_place_problem(state, task, framework)
        if problem is not None:
            return problem
        twin = next((held[port] for port in task.ports if port in held), None)
        if twin is not None:
            why = f"tasks {twin.info.task_id} and {task.info.task_id} ask for the same port; give each its own"
            return TaskState.ERROR, invalid, why
        held.update(dict.fromkeys(task.ports, task))
    return None


def _record(executor: Executor) -> ExecutorRecord:
    return ExecutorRecord(
        executor.framework_id, executor.role, executor.info, executor.container_id, executor.runtime, executor.sandbox
    )


def _refuse(state: AgentState, found: Sequence[Task], problem: _Problem, now: float) -> list[Effect]:
    """The tasks never come to their executor; nothing else of them is left than their end."""
    to, reason, why = problem
    effects: list[Effect] = []
    for task in found:
        task.ports = ()  # they are not its own
        state.add(task)
        if task.executor is not None:
            del task.executor.tasks[task.info.task_id]
            task.executor = None
        state.counters["launch_errors"] += 1
        effects.append(Persist(task_path(task.key), task.record()))
        effects += updates.enqueue(state, task, to, now, source=Source.AGENT, message=why, reason=reason)
        effects.append(Note("task refused", why, "warning", describe_task(task)))
    return effects


def hand_over(state: AgentState, executor: Executor) -> list[Effect]:
    """Launch what waits for the executor, if it listens."""
    if executor.stream is None or executor.ending is not None:
        return []
    effects: list[Effect] = []
    groups: dict[str, list[Task]] = {}
    for task in executor.tasks.values():
        if task.stage is Stage.STAGING and task.live:
            groups.setdefault(task.group or f"/{task.info.task_id}", []).append(task)
    for found in groups.values():
        for task in found:
            task.move(Event.START)
            state.counters["launched"] += 1
            effects.append(state.save_run(task))
        infos = tuple(task.info for task in found)
        event: api.Event = api.LaunchGroup(tasks=infos) if found[0].group else api.Launch(task=infos[0])
        effects.append(TellExecutor(executor.stream, event))
    return effects


def kill(state: AgentState, order: KillTask, now: float) -> list[Effect]:
    """End a task of an executor: one that waits at once, with its whole group; else it is the executor's to do."""
    task = state.tasks[order.framework_id, order.task_id]
    executor = task.executor
    if executor is None or not task.live:
        return []
    why = order.why or "killed before it ran"
    if task.stage is Stage.STAGING:
        effects: list[Effect] = []
        for each in _group_of(task):
            reason = order.reason or Reason.TASK_KILLED_DURING_LAUNCH
            effects += tasks.end(state, each, TaskState.KILLED, now, source=Source.AGENT, message=why, reason=reason)
        return effects + _end_idle(state, executor, now)
    grace_s = order.grace_s if order.grace_s is not None else task.info.kill_grace_s
    task.ending = Ending(now + (grace_s or 0.0), reason=order.reason, why=order.why)
    insist(state, task, now)
    effects = [state.save_run(task)]
    if executor.stream is not None:
        effects.append(TellExecutor(executor.stream, api.Kill(task_id=task.info.task_id, grace_s=order.grace_s)))
    return effects


def insist(state: AgentState, task: Task, now: float) -> None:
    """A framework may leave the end of its task to its executor; whoever needs the room must not wait for ever."""
    if task.ending is not None and task.ending.reason is not None:
        at = max(now, task.ending.by) + state.config.kill_retry_s
        state.deadlines.set(task.container_id, Due.KILL, at)


def outlive(state: AgentState, task: Task, now: float) -> list[Effect]:
    """The executor has not ended a task that has to go: the executor goes, with all that it runs."""
    executor, ending = task.executor, task.ending
    if executor is None or ending is None or not task.live:
        return []
    why = f"executor {executor.info.executor_id} did not end task {task.info.task_id}, which had to go: {ending.why}"
    note = Note("task outlives its kill", why, "warning", describe_task(task))
    by = now + life.shutdown_grace_s(state, executor)
    return [note, *life.shut_down(state, executor, Ending(by, TaskState.FAILED, ending.reason, why), now)]


def _group_of(task: Task) -> list[Task]:
    if not task.group or task.executor is None:
        return [task]
    return [each for each in task.executor.live_tasks if each.group == task.group]


def _end_idle(state: AgentState, executor: Executor, now: float) -> list[Effect]:
    """An executor that has lost all its tasks before it listened is of no use."""
    if executor.live_tasks or executor.subscribed:
        return []
    return life.shut_down(state, executor, Ending(now, why="its tasks were killed before it subscribed"), now)


def settle_fate(state: AgentState, task: Task, now: float) -> list[Effect]:
    """A task of a group has ended: unless it has finished, the others of its group go with it; the last takes the
    executor along. Source: Mesos v1, default executor.
    """
    executor = task.executor
    if executor is None or state.executors.get(executor.key) is not executor:
        return []
    effects: list[Effect] = []
    if task.state is not TaskState.FINISHED:
        why = f"task {task.info.task_id} of its group ended as {task.state}"
        for each in _group_of(task):
            effects += tasks.request_end(state, each, Ending(now + tasks.grace_s(state, each), why=why), now)
    if not executor.live_tasks and state.executors.get(executor.key) is executor:
        effects += life.bury(state, executor, now, 0, "all its tasks have ended")
    return effects


def describe_task(task: Task) -> dict[str, str]:
    return {"task": task.info.task_id, "framework": task.framework_id}
