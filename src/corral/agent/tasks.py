"""The life of a task on this agent: ordered, fetched, started, killed, ended. Each step is on disk before it is taken.

Source: Mesos v1 task states and reasons; a task that was asked to end is KILLED however it ends, one that ends by
itself is FINISHED at code 0 and FAILED otherwise.
"""

from corral.agent import health, operations, updates
from corral.agent.deadlines import Due
from corral.agent.effects import Abort, CancelFetch, Discard, Fetch, Kill, Remove, Start, Wait
from corral.agent.execution import check_order, choose_runtime, plan_execution, sandbox_path
from corral.agent.plan import Do, Step, steps
from corral.agent.spec import (
    DiscardFailed,
    Ending,
    Event,
    Exited,
    Fetched,
    KillFailed,
    Probed,
    Sandbox,
    Stage,
    Started,
    StartFailed,
    TaskRecord,
    WaitFailed,
)
from corral.agent.state import AgentState, Task, framework_path, save_framework, task_path
from corral.lib.errors import Failed, Invalid
from corral.lib.ids import mint_uuid
from corral.model.execution import Exit, Launched
from corral.model.framework import Capability, FrameworkInfo
from corral.model.ids import AgentId, ContainerId, FrameworkId
from corral.model.ledger import stripped
from corral.model.orders import KillTask, RunTask
from corral.model.resources import Resources, describe, scalar
from corral.model.task import Reason, Source, TaskState, result_of, seen_state
from corral.runtime.core import Effect, Note, Persist

WAIT_RETRY_S = 5.0
DISCARD_RETRY_S = 30.0

SIGNAL_NAMES = {
    1: "Hangup", 2: "Interrupt", 3: "Quit", 4: "Illegal instruction", 5: "Trace/breakpoint trap", 6: "Aborted",
    7: "Bus error", 8: "Floating point exception", 9: "Killed", 10: "User defined signal 1",
    11: "Segmentation fault", 12: "User defined signal 2", 13: "Broken pipe", 14: "Alarm clock", 15: "Terminated",
    24: "CPU time limit exceeded", 25: "File size limit exceeded", 31: "Bad system call",
}  # fmt: skip
"""What Linux calls the signals that end processes."""


def run(state: AgentState, order: RunTask, now: float) -> list[Effect]:
    """Take the task on, or refuse it by a terminal update of its own; a repeated order changes nothing."""
    framework, info = order.framework, order.info
    framework_id = framework.id
    if framework_id is None:
        return [Note("order ignored", f"task {info.task_id} comes without its framework's id", "error")]
    if (framework_id, info.task_id) in state.tasks:
        return [Note("order ignored", "the task is here already", "warning", _facts(framework_id, info.task_id))]
    container_id = ContainerId(mint_uuid(state.random))
    agent_id = state.identity.agent_id or AgentId("")
    task = Task(
        TaskRecord(
            framework_id=framework_id,
            role=order.role,
            info=info,
            container_id=container_id,
            runtime=choose_runtime(info),
            sandbox=sandbox_path(state.config.work_dir, agent_id, framework_id, info.task_id, container_id),
        )
    )
    effects = save_framework(state, framework)
    effects.append(Persist(task_path(task.key), task.record()))
    problem = find_problem(state, task, framework)
    if problem is not None:
        to, reason, why = problem
        task.ports = ()  # they are not its own
        state.add(task)
        state.counters["launch_errors"] += 1
        effects += updates.enqueue(state, task, to, now, source=Source.AGENT, message=why, reason=reason)
        effects.append(Note("task refused", why, "warning", _facts(*task.key)))
        return effects
    state.add(task)
    if task.stop_after_s is not None:
        # It starts once a master has answered, so that no order of one who is long gone brings it up.
        return [*effects, state.save_run(task)]
    effects += advance(state, task, now)
    return effects


def find_problem(state: AgentState, task: Task, framework: FrameworkInfo) -> tuple[TaskState, Reason, str] | None:
    """What keeps the task from running: as what its end is told, and why."""
    info = task.info
    try:
        check_order(info, state.identity.agent_id)
        plan(state, task, framework)
    except Invalid as error:
        return TaskState.ERROR, Reason.TASK_INVALID, error.message
    return find_place_problem(state, task, framework)


def plan(state: AgentState, task: Task, framework: FrameworkInfo, parent: ContainerId | None = None) -> None:
    """Settle what the runtime will be given. Shapes: `parent` is the container of its executor.

    Errors: `Invalid` when the task cannot be meant as it is.
    """
    task.plan = plan_execution(state.config, state.identity.agent_id, framework, task.record(), parent)


def find_place_problem(state: AgentState, task: Task, framework: FrameworkInfo) -> tuple[TaskState, Reason, str] | None:
    """What keeps the task from running here and now: as what its end is told, and why."""
    try:
        _check_runtime(state, task)
    except Failed as error:
        return TaskState.FAILED, Reason.CONTAINER_LAUNCH_FAILED, error.message
    info = task.info
    for port in task.ports:
        holder = state.ports.get(port)
        if holder is not None:
            dropped = seen_state(TaskState.DROPPED, framework.can(Capability.PARTITION_AWARE))
            why = f"task {info.task_id} asks for port {port}, which task {holder.info.task_id} of framework"
            return dropped, Reason.RESOURCES_UNKNOWN, f"{why} {holder.framework_id} holds; launch it from a new offer"
    return _find_volume_problem(state, task, framework)


def _find_volume_problem(
    state: AgentState, task: Task, framework: FrameworkInfo
) -> tuple[TaskState, Reason, str] | None:
    """A task that was launched on what this agent never got or another has taken."""
    dropped = seen_state(TaskState.DROPPED, framework.can(Capability.PARTITION_AWARE))
    resources = stripped(task.info.resources)
    lack = operations.find_lack(state, resources)
    if lack is not None:
        why = f"task {task.info.task_id} takes {describe((lack,))} as it was reserved, which this agent does not have"
        return dropped, Reason.RESOURCES_UNKNOWN, f"{why}; launch it from a new offer"
    holder = operations.find_holder(state, resources)
    if holder is not None:
        why = f"task {task.info.task_id} takes a persistent volume that task {holder} has"
        return dropped, Reason.RESOURCES_UNKNOWN, f"{why}; launch it from a new offer"
    return None


def _check_runtime(state: AgentState, task: Task) -> None:
    runtime = state.runtimes.get(task.runtime)
    host = state.config.hostname
    if runtime is None:
        raise Failed(
            f"task {task.info.task_id} needs the {task.runtime} runtime but agent {host} has only"
            f" {', '.join(state.runtimes) or 'none'}; start the agent with --runtime {task.runtime} or launch elsewhere"
        )
    if runtime.why is not None:
        raise Failed(f"task {task.info.task_id} needs the {task.runtime} runtime of agent {host}: {runtime.why}")


def advance(state: AgentState, task: Task, now: float, *, fetched: bool = False) -> list[Effect]:
    """Take the task's next steps."""
    effects: list[Effect] = []
    for step in steps(task, fetched=fetched):
        effects += _take(state, task, step, now)
    return effects


def _take(state: AgentState, task: Task, step: Step, now: float) -> list[Effect]:
    match step.do:
        case Do.FETCH:
            return _fetch(state, task, step.why, now)
        case Do.START:
            return _start(state, task, step.why, now)
        case Do.KILL:
            return _kill(state, task, step.why, now)
        case Do.CANCEL_FETCH:
            return [CancelFetch(task.container_id, step.why)]
        case Do.ABORT:
            state.deadlines.set(task.container_id, Due.STAGE, now + state.config.kill_retry_s)
            return [state.save_run(task), Abort(task.container_id, step.why)]
        case Do.END:
            return end_during_launch(state, task, now)


def _fetch(state: AgentState, task: Task, why: str, now: float) -> list[Effect]:
    task.move(Event.FETCH)
    state.deadlines.set(task.container_id, Due.STAGE, now + state.config.fetch_timeout_s)
    command, planned = task.info.command, task.plan
    assert command is not None
    assert planned is not None
    return [
        state.save_run(task),
        Fetch(task.container_id, task.sandbox, command.uris, planned.owner, why),
    ]


def _start(state: AgentState, task: Task, why: str, now: float) -> list[Effect]:
    task.move(Event.START)
    state.deadlines.set(task.container_id, Due.STAGE, now + state.config.start_timeout_s)
    state.counters["launched"] += 1
    planned, task.plan = task.plan, None
    assert planned is not None
    task.boot = state.config.boot_id
    # One that is started again has said so already, with the reason.
    silent = task.info.omits_starting or task.state is TaskState.STARTING
    return [
        *([state.save_run(task)] if silent else updates.enqueue(state, task, TaskState.STARTING, now)),
        Start(task.runtime, planned.execution, planned.directories, planned.owner, why, planned.volumes),
    ]


def _kill(state: AgentState, task: Task, why: str, now: float) -> list[Effect]:
    ending = task.ending
    assert ending is not None
    left_s = max(0.0, ending.by - now)
    state.deadlines.cancel(task.container_id, Due.COMPLETION)
    state.deadlines.cancel(task.container_id, Due.PROBE)
    state.deadlines.set(task.container_id, Due.KILL, ending.by + state.config.kill_retry_s)
    framework = state.frameworks[task.framework_id]
    effects: list[Effect]
    if framework.can(Capability.TASK_KILLING_STATE) and task.state is not TaskState.KILLING:
        effects = updates.enqueue(state, task, TaskState.KILLING, now, message=why or None, reason=ending.reason)
    else:
        effects = [state.save_run(task)]
    return [*effects, Kill(task.runtime, task.container_id, left_s, why)]


def fetched(state: AgentState, input: Fetched, now: float) -> list[Effect]:
    task = state.by_container.get(input.container_id)
    if task is None or task.stage is not Stage.FETCHING:
        return []
    state.deadlines.cancel(task.container_id, Due.STAGE)
    if input.why is not None:
        return _fail_launch(state, task, input.why, now)
    return advance(state, task, now, fetched=True)


def started(state: AgentState, input: Started, now: float) -> list[Effect]:
    """The task's own process runs. What came up after its task was given up is taken down again."""
    container_id = input.launched.container_id
    task = state.by_container.get(container_id)
    if task is None:
        return []  # given up and acknowledged: the shell that was told to abort has taken it down
    if not task.move(Event.STARTED):
        return [] if task.live else [Discard(task.runtime, container_id, "it came up after its task had been given up")]
    return settle_running(state, task, input.launched, now)


def started_before(state: AgentState, task: Task, launched: Launched, now: float) -> list[Effect]:
    """It came up while no agent was looking."""
    task.move(Event.STARTED)
    return settle_running(state, task, launched, now)


def settle_running(state: AgentState, task: Task, launched: Launched, now: float) -> list[Effect]:
    """Tell that it runs, wait for its end, and take up an end that was asked for meanwhile."""
    task.launched = launched
    task.started_at = now
    state.deadlines.cancel(task.container_id, Due.STAGE)
    if task.info.max_completion_s is not None:
        state.deadlines.set(task.container_id, Due.COMPLETION, now + task.info.max_completion_s)
    health.watch(state, task, now)
    return [
        *updates.enqueue(state, task, TaskState.RUNNING, now),
        Note("task running", facts=_facts(*task.key)),
        wait_for(task),
        *advance(state, task, now),
    ]


def start_failed(state: AgentState, input: StartFailed, now: float) -> list[Effect]:
    task = state.by_container.get(input.container_id)
    if task is None or task.stage is not Stage.STARTING:
        return []
    if task.ending is not None:
        return end_during_launch(state, task, now)
    return _fail_launch(state, task, input.why, now)


def _fail_launch(state: AgentState, task: Task, why: str, now: float) -> list[Effect]:
    state.counters["launch_errors"] += 1
    return end(
        state, task, TaskState.FAILED, now, source=Source.AGENT, message=why, reason=Reason.CONTAINER_LAUNCH_FAILED
    )


def end_during_launch(state: AgentState, task: Task, now: float) -> list[Effect]:
    """It was asked to end before it ran."""
    ending = task.ending
    reason = Reason.TASK_KILLED_DURING_LAUNCH
    why = (ending.why if ending is not None else "") or "killed before it ran"
    if ending is not None and ending.reason is not None:
        return end(state, task, ending.state, now, source=Source.AGENT, message=why, reason=ending.reason)
    return end(state, task, TaskState.KILLED, now, source=Source.AGENT, message=why, reason=reason)


def end(
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
    """The task has ended: its last update, its ports free, its container forgotten by the runtime."""
    had_container = task.stage in (Stage.STARTING, Stage.RUNNING)
    for due in (Due.STAGE, Due.KILL, Due.COMPLETION, Due.WAIT, Due.PROBE):
        state.deadlines.cancel(task.container_id, due)
    state.free_ports(task)
    task.unsettled = False
    if task.info.executor is None:
        state.ended.append(Sandbox(task.sandbox, task.container_id, now))
    elif not task.custom:
        state.fates.append(task)
    effects = updates.enqueue(
        state, task, to, now, source=source, message=message, reason=reason, limitation=limitation, data=data
    )
    level = "info" if to in (TaskState.FINISHED, TaskState.KILLED) else "warning"
    effects.append(Note("task ended", message or "", level, {**_facts(*task.key), "state": to.value}))
    if had_container and not task.custom:
        effects.append(Remove(task.runtime, task.container_id))
    return effects


def kill(state: AgentState, order: KillTask, now: float) -> list[Effect]:
    """End the task with grace; a second order may only shorten the grace of the first."""
    task = state.tasks.get((order.framework_id, order.task_id))
    if task is None:
        why = "the task is not here; it has ended and its end is acknowledged, or it never came"
        return [Note("kill ignored", why, facts=_facts(order.framework_id, order.task_id))]
    given_s = order.grace_s if order.grace_s is not None else grace_s(state, task)
    return request_end(state, task, Ending(now + max(0.0, given_s), reason=order.reason, why=order.why), now)


def grace_s(state: AgentState, task: Task) -> float:
    """Units: seconds between SIGTERM and SIGKILL, the task's own or the agent's."""
    return state.config.kill_grace_s if task.info.kill_grace_s is None else task.info.kill_grace_s


def request_end(state: AgentState, task: Task, ending: Ending, now: float) -> list[Effect]:
    """Have the task end by an instant. Of two requests the first says as what and why, the earlier until when."""
    if not task.live:
        return []
    before = task.ending
    if before is not None:
        if ending.by >= before.by:
            return []
        ending = Ending(ending.by, before.state, before.reason, before.why, before.unhealthy)
    task.ending = ending
    if before is not None and task.stage is Stage.STARTING:
        return [state.save_run(task)]  # the start is being taken back already
    return advance(state, task, now)


def shut_down(state: AgentState, framework_id: FrameworkId, now: float) -> list[Effect]:
    """End all tasks of a framework that is no more."""
    effects: list[Effect] = []
    found = [task for task in state.tasks.values() if task.framework_id == framework_id and not task.custom]
    why = f"framework {framework_id} was removed"
    for task in sorted(found, key=lambda t: t.key):
        ending = Ending(now + grace_s(state, task), reason=Reason.FRAMEWORK_REMOVED, why=why)
        effects += request_end(state, task, ending, now)
    if not state.uses(framework_id) and state.frameworks.pop(framework_id, None) is not None:
        effects.append(Persist(framework_path(framework_id), None))
    return [*effects, Note("framework shut down", why, facts={"framework": framework_id, "tasks": len(found)})]


def exited(state: AgentState, input: Exited, now: float) -> list[Effect]:
    task = state.by_container.get(input.exit.container_id)
    if task is None or not task.live:
        return []
    return settle_exit(state, task, input.exit, now, result=input.result, why=input.why)


def wait_for(task: Task) -> Wait:
    """Wait for the end of a task's container, and for what it leaves as its result."""
    return Wait(task.runtime, task.container_id, task.sandbox, result_of(task.info) or "")


def settle_exit(
    state: AgentState, task: Task, exit: Exit, now: float, *, result: bytes | None = None, why: str = ""
) -> list[Effect]:
    """Say as what the task has ended, from how its process has ended and whether it was asked to."""
    message = describe_exit(exit)
    ending = task.ending
    if ending is not None:
        told = f"{ending.why}: {message}" if ending.why else message
        return end(state, task, ending.state, now, message=told, reason=ending.reason)
    if exit.fenced:
        told = f"{exit.message}: {describe_exit(exit)}"
        return end(state, task, TaskState.KILLED, now, message=told, reason=Reason.AGENT_DISCONNECTED)
    if exit.oom:
        mem = tuple(r for r in task.info.resources if r.name == "mem") or (scalar("mem", 0),)
        return end(
            state, task, TaskState.FAILED, now, source=Source.AGENT, message=_describe_oom(task, exit),
            reason=Reason.CONTAINER_LIMITATION_MEMORY, limitation=mem,
        )  # fmt: skip
    if exit.code == 0:
        told = f"{message}; {why}" if why else message
        return end(state, task, TaskState.FINISHED, now, message=told, data=result)
    if exit.code is None and exit.signal is None:
        return end(
            state, task, TaskState.FAILED, now, source=Source.AGENT, message=message, reason=Reason.EXECUTOR_TERMINATED
        )
    return end(state, task, TaskState.FAILED, now, message=message)


def describe_exit(exit: Exit) -> str:
    if exit.code is not None:
        return f"Command exited with status {exit.code}"
    if exit.signal is not None:
        return f"Command terminated with signal {SIGNAL_NAMES.get(exit.signal, exit.signal)}"
    return exit.message or "Nobody saw how the command ended"


def _describe_oom(task: Task, exit: Exit) -> str:
    limit = sum(r.milli for r in task.info.resources if r.name == "mem") // 1000
    return (
        exit.message or f"Memory limit exceeded: the kernel ended the command, which had {limit} MB; give it more mem"
    )


def wait_failed(state: AgentState, input: WaitFailed, now: float) -> list[Effect]:
    """The runtime lost sight of a task: ask again, unless nobody will ever know."""
    task = state.by_container.get(input.container_id)
    if task is None or not task.live:
        return []
    if input.gone:
        return settle_exit(state, task, Exit(container_id=input.container_id, message=input.why), now)
    state.deadlines.set(task.container_id, Due.WAIT, now + WAIT_RETRY_S)
    return [Note("task out of sight", f"{input.why}; it is asked for again", "warning", _facts(*task.key))]


def probed(state: AgentState, input: Probed, now: float) -> list[Effect]:
    """A health check was probed: tell what has changed, and end a task that has failed too often."""
    found = health.find(state, input.container_id, input.index)
    if found is None:
        return []
    task, each = found
    if each is task.check:
        return health.checked(state, task, each, input, now)
    effects, why = health.probed(state, task, each, input, now)
    if not why:
        return effects
    note = Note("task is ended for its health", why, "warning", _facts(*task.key))
    ending = Ending(now + grace_s(state, task), why=why, unhealthy=True)
    return [*effects, note, *request_end(state, task, ending, now)]


def kill_failed(state: AgentState, input: KillFailed, now: float) -> list[Effect]:
    """The deadline of the kill tries again."""
    task = state.by_container.get(input.container_id)
    if task is None or not task.live:
        return []
    return [Note("kill failed", f"{input.why}; it is tried again", "warning", _facts(*task.key))]


def discard_failed(state: AgentState, input: DiscardFailed, now: float) -> list[Effect]:
    state.discards[input.container_id] = input.runtime
    state.deadlines.set(input.container_id, Due.DISCARD, now + DISCARD_RETRY_S)
    facts = {"container": input.container_id, "runtime": input.runtime}
    return [Note("container not removed", f"{input.why}; it is tried again", "warning", facts)]


def fall_due(state: AgentState, container_id: ContainerId, due: Due, now: float) -> list[Effect]:
    """An instant that was set for the task has come."""
    if due is Due.UPDATE:
        return updates.retry(state, container_id, now)
    if due is Due.DISCARD:
        return _discard_again(state, container_id)
    task = state.by_container.get(container_id)
    if task is None or not task.live:
        return []
    match due:
        case Due.STAGE:
            return _give_up_stage(state, task, now)
        case Due.KILL:
            return _kill_again(state, task, now)
        case Due.COMPLETION:
            limit_s = task.info.max_completion_s or 0.0
            why = f"Task ran longer than its max completion time of {limit_s:g} s"
            reason = Reason.MAX_COMPLETION_TIME_REACHED
            return request_end(state, task, Ending(now + grace_s(state, task), TaskState.FAILED, reason, why), now)
        case Due.PROBE:
            return health.probe(state, task, now)
        case Due.WAIT:
            return [wait_for(task)]
        case Due.REGISTER:
            return []  # of executors alone


def _discard_again(state: AgentState, container_id: ContainerId) -> list[Effect]:
    runtime = state.discards.pop(container_id, None)
    return [] if runtime is None else [Discard(runtime, container_id, "an earlier try failed")]


def _give_up_stage(state: AgentState, task: Task, now: float) -> list[Effect]:
    if task.stage is Stage.FETCHING:
        limit_s = state.config.fetch_timeout_s
        why = (
            f"fetching uris took longer than {limit_s:g} s; look whether their servers answer or raise fetch_timeout_s"
        )
        return [CancelFetch(task.container_id, why), *_fail_launch(state, task, why, now)]
    if task.ending is not None:
        why = f"{task.runtime} did not take the start back"
        effects: list[Effect] = end_during_launch(state, task, now)
    else:
        limit_s = state.config.start_timeout_s
        why = (
            f"start by {task.runtime} took longer than {limit_s:g} s; look whether it answers or raise start_timeout_s"
        )
        effects = [Abort(task.container_id, why), *_fail_launch(state, task, why, now)]
    return [e for e in effects if not isinstance(e, Remove)] + [Discard(task.runtime, task.container_id, why)]


def _kill_again(state: AgentState, task: Task, now: float) -> list[Effect]:
    state.deadlines.set(task.container_id, Due.KILL, now + state.config.kill_retry_s)
    why = "it outlived its kill"
    return [
        Kill(task.runtime, task.container_id, 0.0, why),
        Note("task outlives its kill", "its grace is over; it is killed again", "warning", _facts(*task.key)),
    ]


def _facts(framework_id: FrameworkId, task_id: str) -> dict[str, str]:
    return {"task": task_id, "framework": framework_id}
