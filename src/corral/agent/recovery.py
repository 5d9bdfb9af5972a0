"""Takes up the tasks of an earlier agent process: what still runs is waited for, what ended meanwhile is told.

Rules: the records say what shall be, the runtimes say what is. A task that is in the records and was never started is
told as dropped; a container that no record knows is ended. A runtime that does not answer is asked again, and until it
answers its tasks stand as they were. No master is dialled before each runtime has answered once.
"""

from corral.agent import cutoff, executor_life, gc, health, operations, reboot, session, slack, standalone, tasks
from corral.agent.deadlines import Due
from corral.agent.effects import CheckRuntime, Connect, Discard, Kill, Reconnect, Recover, Remove, ScanSandboxes
from corral.agent.executor_state import Executor
from corral.agent.spec import (
    ExecutorRecord,
    ExecutorRun,
    FrameworkRecord,
    Identity,
    Recovered,
    RunRecord,
    RuntimeChecked,
    Stage,
    TaskRecord,
)
from corral.agent.state import AgentState, Runtime, Task, framework_path
from corral.lib.backoff import grow_delay_s
from corral.model.execution import Found
from corral.model.framework import Capability
from corral.model.ids import FrameworkId
from corral.model.task import Reason, Source, TaskState, result_of, seen_state
from corral.runtime.core import Effect, Loaded, Note, Persist, SetTimer, Stop, decode_records

RECOVER_TIMER = "recover/"
CHECK_TIMER = "check/"
FAILURES_TO_BELIEVE = 2
"""How many checks in a row must fail before a runtime counts as gone: its daemon may just be restarting."""


def load(state: AgentState, input: Loaded, now: float) -> list[Effect]:
    """Fill the memory from the records and ask the runtimes what they hold."""
    state.loaded_at = now
    begun = operations.load(state, input)
    if any(isinstance(effect, Stop) for effect in begun):
        return begun
    state.identity = decode_records(input, "identity", Identity).get("", Identity())
    for name, framework in decode_records(input, "frameworks/", FrameworkRecord).items():
        state.frameworks[FrameworkId(name)] = framework.info
    executor_runs = decode_records(input, "executor-runs/", ExecutorRun)
    for path, of_executor in decode_records(input, "executors/", ExecutorRecord).items():
        executor = Executor(of_executor)
        executor.take_up(executor_runs[path])
        state.add_executor(executor)
    runs = decode_records(input, "runs/", RunRecord)
    for path, record in decode_records(input, "tasks/", TaskRecord).items():
        task = Task(record)
        task.take_up(runs[path])
        state.add(task)
    standalone.load(state, input)
    in_use = {key[0] for key in (*state.tasks, *state.executors)}
    effects: list[Effect] = begun
    for framework_id in sorted(set(state.frameworks) - in_use):
        del state.frameworks[framework_id]
        effects.append(Persist(framework_path(framework_id), None))
    if state.tasks:
        effects.append(Note("tasks taken up", f"the records hold {len(state.tasks)} tasks of an earlier run"))
    effects += _note_strangers(state)
    effects.append(ScanSandboxes())
    effects += [Recover(name, "the agent has started") for name in state.runtimes]
    effects += cutoff.load(state, input)
    return effects + gc.watch(state) + slack.watch(state) + _connect_when_ready(state)


def _note_strangers(state: AgentState) -> list[Effect]:
    """A task whose runtime this agent no longer has runs on, unseen."""
    return [
        Note(
            "task out of sight",
            f"the {task.runtime} runtime that started it is not enabled; start the agent with --runtime {task.runtime}",
            "error",
            {"task": task.info.task_id, "framework": task.framework_id},
        )
        for _, task in sorted(state.tasks.items())
        if task.live and task.runtime not in state.runtimes
    ]


def recovered(state: AgentState, input: Recovered, now: float) -> list[Effect]:
    """Compare what the runtime holds with what the records say."""
    runtime = state.runtimes[input.runtime]
    effects: list[Effect] = []
    if input.why is not None:
        runtime.failures += 1
        if runtime.why != input.why:
            effects.append(_note_not_ready(input.runtime, input.why))
        runtime.why = input.why
        delay_s = grow_delay_s(runtime.failures, first_s=1.0, factor=2.0, most_s=state.config.runtime_check_s)
        effects.append(SetTimer(RECOVER_TIMER + input.runtime, delay_s))
    else:
        effects += _compare(state, input.runtime, runtime, input.found, now)
        effects.append(SetTimer(CHECK_TIMER + input.runtime, state.config.runtime_check_s))
        if state.connecting:
            effects.append(Reconnect(f"the {input.runtime} runtime is ready now"))
    runtime.answered = True
    effects += cutoff.look(state)
    return effects + _connect_when_ready(state)


def _note_not_ready(name: str, why: str) -> Note:
    return Note("runtime not ready", why, "warning", {"runtime": name})


def _connect_when_ready(state: AgentState) -> list[Effect]:
    if state.connecting or not all(runtime.answered for runtime in state.runtimes.values()):
        return []
    state.connecting = True
    return [Connect()]


def _compare(state: AgentState, name: str, runtime: Runtime, found: tuple[Found, ...], now: float) -> list[Effect]:
    runtime.why, runtime.failures = None, 0
    effects: list[Effect] = []
    seen = set()
    for one in found:
        seen.add(one.container_id)
        task = state.by_container.get(one.container_id)
        executor = state.executor_containers.get(one.container_id)
        alone = state.standalone.by_inner.get(one.container_id)
        if alone is not None and alone.live:
            if alone.unsettled:
                effects += standalone.settle_found(state, alone, one, now)
        elif executor is not None:
            if executor.unsettled:
                effects += executor_life.settle_found(state, executor, one.launched, one.exit, now)
        elif task is None:
            effects += _clear_away(name, one, "no record of this agent knows it")
        elif task.stage is Stage.ENDED:
            effects += _clear_away(name, one, "its task was given up before the restart")
        elif task.unsettled:
            effects += _settle(state, task, one, now)
    for _, task in sorted(state.tasks.items()):
        if task.unsettled and task.runtime == name and task.container_id not in seen:
            effects += _settle_missing(state, task, now)
    for _, executor in sorted(state.executors.items()):
        if executor.unsettled and executor.runtime == name and executor.container_id not in seen:
            effects += executor_life.settle_missing(state, executor, now)
    return effects + standalone.recover(state, name, seen, now)


def _clear_away(name: str, one: Found, why: str) -> list[Effect]:
    """What has ended is removed; what still runs was to be ended by an agent that did not come to it."""
    if one.exit is not None:
        return [Remove(name, one.container_id)]
    facts = {"task": one.task_id, "framework": one.framework_id, "container": one.container_id}
    return [Note("orphan ended", why, "warning", facts), Discard(name, one.container_id, why)]


def _settle(state: AgentState, task: Task, one: Found, now: float) -> list[Effect]:
    """The runtime knows the task: go on from what it says."""
    if reboot.may_start_again(state, task, one):
        return reboot.start_again(state, task, now, one)
    task.unsettled = False
    if one.exit is not None:
        # Its end is waited for once more where something is to be read at it.
        reads = task.stage is Stage.RUNNING and bool(result_of(task.info))
        return [tasks.wait_for(task)] if reads else tasks.settle_exit(state, task, one.exit, now)
    if task.stage is Stage.STARTING and one.launched is not None:
        return tasks.started_before(state, task, one.launched, now)
    if task.stage is not Stage.RUNNING:
        # The runtime holds something that it had not brought up when the agent ended.
        return [*_settle_missing(state, task, now), Discard(task.runtime, task.container_id, "it was half started")]
    if task.info.max_completion_s is not None and task.started_at is not None and task.ending is None:
        state.deadlines.set(task.container_id, Due.COMPLETION, task.started_at + task.info.max_completion_s)
    effects: list[Effect] = [tasks.wait_for(task)]
    if task.ending is None:
        health.watch(state, task, now)
    else:
        state.deadlines.set(task.container_id, Due.KILL, max(now, task.ending.by) + state.config.kill_retry_s)
        grace_s = max(0.0, task.ending.by - now)
        effects.append(
            Kill(task.runtime, task.container_id, grace_s, f"asked for before the restart: {task.ending.why}")
        )
    return effects


def _settle_missing(state: AgentState, task: Task, now: float) -> list[Effect]:
    """The runtime does not know the task."""
    if reboot.may_start_again(state, task, None):
        return reboot.start_again(state, task, now, None)
    task.unsettled = False
    if task.stage is Stage.RUNNING:
        why = f"the {task.runtime} runtime knows its container no more; the node was rebooted or somebody removed it"
        if task.ending is not None:
            return tasks.end(state, task, task.ending.state, now, message=why, reason=task.ending.reason)
        return tasks.end(
            state, task, TaskState.FAILED, now, source=Source.AGENT, message=why, reason=Reason.EXECUTOR_TERMINATED
        )
    if task.ending is not None:
        return tasks.end_during_launch(state, task, now)
    why = "the agent was restarted before the task ran"
    framework = state.frameworks[task.framework_id]
    dropped = seen_state(TaskState.DROPPED, framework.can(Capability.PARTITION_AWARE))
    return tasks.end(state, task, dropped, now, source=Source.AGENT, message=why, reason=Reason.AGENT_RESTARTED)


def check_again(state: AgentState, name: str) -> list[Effect]:
    return [CheckRuntime(name)] if name in state.runtimes else []


def recover_again(state: AgentState, name: str) -> list[Effect]:
    return [Recover(name, "it did not answer before")] if name in state.runtimes else []


def checked(state: AgentState, input: RuntimeChecked, now: float) -> list[Effect]:
    """Tell the master when a runtime has come or gone; its tasks run on either way."""
    runtime = state.runtimes[input.runtime]
    effects: list[Effect] = [SetTimer(CHECK_TIMER + input.runtime, state.config.runtime_check_s)]
    if input.why is None:
        runtime.failures = 0
        if runtime.why is None:
            return effects
        runtime.why = None
        what = f"the {input.runtime} runtime is ready again"
        return [*effects, Note("runtime ready", what, facts={"runtime": input.runtime}), *session.renew(state, what)]
    runtime.failures += 1
    if runtime.why is not None or runtime.failures < FAILURES_TO_BELIEVE:
        return effects
    runtime.why = input.why
    return [*effects, _note_not_ready(input.runtime, input.why), *session.renew(state, input.why)]
