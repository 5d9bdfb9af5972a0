"""The deciding half of the agent: what happened goes to its family, effects come back.

Sources: the families' own; the rules of the whole are that a step is on disk before it is taken, and that neither a
silent master nor an ended agent ends a task.
"""

from random import Random

from corral.agent import (
    cutoff,
    executor_life,
    executor_words,
    executors,
    gc,
    operations,
    recovery,
    session,
    slack,
    standalone,
    tasks,
    updates,
    views,
)
from corral.agent.deadlines import TIMER as DEADLINES_TIMER
from corral.agent.deadlines import Due
from corral.agent.spec import (
    AgentConfig,
    ClockRead,
    Command,
    Connected,
    DiscardFailed,
    Disconnected,
    DiskMeasured,
    ExecutorClosed,
    Exited,
    Fetched,
    FindSecretFiles,
    FindTask,
    KillFailed,
    ListContainers,
    ListTasks,
    Ordered,
    Probed,
    ReadState,
    Recovered,
    RuntimeChecked,
    Scanned,
    Started,
    StartFailed,
    SubscribeExecutor,
    TakeCall,
    UsageMeasured,
    VolumeDeleted,
    WaitFailed,
)
from corral.agent.standalone_spec import (
    AwaitContainer,
    EndContainer,
    LaunchContainer,
    RemoveContainer,
    StandaloneCommand,
)
from corral.agent.state import AgentState
from corral.model.ids import ContainerId, FrameworkId
from corral.model.orders import (
    AcknowledgeUpdate,
    ApplyOperation,
    Heard,
    KillTask,
    MessageExecutor,
    Ping,
    Refused,
    Registered,
    RunGroup,
    RunTask,
    ShutdownExecutor,
    ShutdownFramework,
)
from corral.runtime.core import Asked, Effect, Loaded, Reply, Tick

Input = (
    Loaded | Tick | Asked[Command | StandaloneCommand] | Connected | Disconnected | Ordered | Recovered
    | RuntimeChecked | Fetched | Started | StartFailed | Exited | Probed | WaitFailed | KillFailed | DiscardFailed
    | ExecutorClosed | Scanned | DiskMeasured | VolumeDeleted | UsageMeasured | ClockRead
)  # fmt: skip
"""Everything that an agent may be told."""


class AgentCore:
    """Decides for one agent. Shapes: `random` makes container ids and the uuids of updates."""

    __slots__ = ("state",)

    def __init__(self, config: AgentConfig, random: Random) -> None:
        self.state = AgentState(config, random)

    def handle(self, input: Input, now: float) -> list[Effect]:
        effects = self._decide(input, now)
        while self.state.fates:
            effects += executors.settle_fate(self.state, self.state.fates.popleft(), now)
        armed = self.state.deadlines.arm(now)
        return effects + armed if armed else effects

    def invariants(self) -> None:
        self.state.invariants()

    def _decide(self, input: Input, now: float) -> list[Effect]:
        state = self.state
        match input:
            case Ordered():
                return self._obey(input, now)
            case Started() if input.launched.container_id in state.standalone.by_inner:
                return standalone.started(state, input, now)
            case Exited() if input.exit.container_id in state.standalone.by_inner:
                return standalone.exited(state, input, now)
            case Started() if input.launched.container_id in state.executor_containers:
                return executor_life.started(state, input, now)
            case Started():
                return tasks.started(state, input, now)
            case Exited() if input.exit.container_id in state.executor_containers:
                return executor_life.exited(state, input, now)
            case Exited():
                return tasks.exited(state, input, now)
            case Tick(name):
                return self._tick(name, now)
            case Probed():
                return tasks.probed(state, input, now)
            case Fetched() | StartFailed() | WaitFailed() | KillFailed() if (
                input.container_id in state.executor_containers
            ):
                return self._of_executor(input, now)
            case Fetched() | StartFailed() | WaitFailed() | KillFailed() if (
                input.container_id in state.standalone.by_inner
            ):
                return self._of_standalone(input, now)
            case ExecutorClosed():
                return executor_words.close(state, input, now)
            case Fetched():
                return tasks.fetched(state, input, now)
            case StartFailed():
                return tasks.start_failed(state, input, now)
            case WaitFailed():
                return tasks.wait_failed(state, input, now)
            case KillFailed():
                return tasks.kill_failed(state, input, now)
            case DiscardFailed():
                return tasks.discard_failed(state, input, now)
            case Connected():
                return session.connect(state, input, now)
            case Disconnected():
                return session.disconnect(state, input, now)
            case RuntimeChecked():
                return recovery.checked(state, input, now)
            case Recovered():
                return recovery.recovered(state, input, now)
            case Scanned():
                return gc.scanned(state, input, now)
            case VolumeDeleted():
                return operations.deleted(state, input)
            case DiskMeasured():
                return gc.measured(state, input, now)
            case UsageMeasured():
                return slack.measured(state, input, now)
            case ClockRead():
                return cutoff.read(state, input, now)
            case Loaded():
                return recovery.load(state, input, now)
            case Asked(ask, command):
                return self._answer(ask, command, now)

    def _of_executor(self, input: Fetched | StartFailed | WaitFailed | KillFailed, now: float) -> list[Effect]:
        match input:
            case Fetched():
                return executor_life.fetched(self.state, input, now)
            case StartFailed():
                return executor_life.start_failed(self.state, input, now)
            case WaitFailed():
                return executor_life.wait_failed(self.state, input, now)
            case KillFailed():
                return executor_life.kill_failed(self.state, input)

    def _of_standalone(self, input: Fetched | StartFailed | WaitFailed | KillFailed, now: float) -> list[Effect]:
        match input:
            case Fetched():
                return standalone.fetched(self.state, input, now)
            case StartFailed():
                return standalone.start_failed(self.state, input, now)
            case WaitFailed():
                return standalone.wait_failed(self.state, input, now)
            case KillFailed():
                return standalone.kill_failed(self.state, input)

    def _obey(self, input: Ordered, now: float) -> list[Effect]:
        state, order = self.state, input.order
        registering = isinstance(order, Registered | Refused)
        if not session.listens(state, input.session, order.epoch, registering=registering):
            return session.overrule(state, input.session, order.epoch, type(order).__name__)
        state.heard_at = now
        match order:
            case RunTask(info=info) if info.executor is not None:
                return [*executors.run(state, order, now), *_take_on(state, order)]
            case RunTask():
                return [*tasks.run(state, order, now), *_take_on(state, order)]
            case RunGroup():
                return [*executors.run(state, order, now), *_take_on(state, order)]
            case AcknowledgeUpdate():
                return updates.acknowledge(state, order, now)
            case KillTask():
                task = state.tasks.get((order.framework_id, order.task_id))
                if task is not None and task.custom:
                    return executors.kill(state, order, now)
                return tasks.kill(state, order, now)
            case ShutdownExecutor():
                return executor_life.shut_down_one(state, order, now)
            case MessageExecutor():
                return executor_words.message(state, order)
            case ApplyOperation():
                return operations.apply(state, order, now)
            case Ping():
                return session.answer(state, order, now)
            case ShutdownFramework():
                return _shut_down(state, order.framework_id, now)
            case Heard():
                return cutoff.heard(state, order, now)
            case Refused():
                return session.refuse(state, order, now)
            case Registered():
                effects = session.register(state, order, now) + slack.tell_again(state) + cutoff.look(state)
                for framework_id in order.framework_ids:
                    effects += _shut_down(state, framework_id, now)
                return effects

    def _tick(self, name: str, now: float) -> list[Effect]:
        state = self.state
        if name == DEADLINES_TIMER:
            effects: list[Effect] = []
            for container_id, due in state.deadlines.pop(now):
                effects += self._fall_due(container_id, due, now)
            return effects
        if name == session.PULSE_TIMER:
            return session.pulse(state, now)
        if name == session.REGISTER_TIMER:
            return session.time_out(state)
        if name == cutoff.TIMER:
            return cutoff.look(state)
        if name == gc.TIMER:
            return gc.check(state)
        if name == slack.TIMER:
            return slack.check(state)
        if name.startswith(recovery.CHECK_TIMER):
            return recovery.check_again(state, name.removeprefix(recovery.CHECK_TIMER))
        return recovery.recover_again(state, name.removeprefix(recovery.RECOVER_TIMER))

    def _fall_due(self, container_id: ContainerId, due: Due, now: float) -> list[Effect]:
        state = self.state
        if container_id in state.executor_containers:
            return executor_life.fall_due(state, container_id, due, now)
        if container_id in state.standalone.by_inner:
            return standalone.fall_due(state, container_id, due, now)
        task = state.by_container.get(container_id)
        if task is not None and task.custom and due is Due.KILL:
            return executors.outlive(state, task, now)
        return tasks.fall_due(state, container_id, due, now)

    def _answer(self, ask: int, command: Command | StandaloneCommand, now: float) -> list[Effect]:
        state = self.state
        match command:
            case SubscribeExecutor():
                return [Reply(ask), *executor_words.subscribe(state, command, now)]
            case TakeCall():
                return [Reply(ask), *executor_words.take(state, command, now)]
            case ListTasks():
                return [Reply(ask, views.list_tasks(state, command))]
            case FindTask():
                return [Reply(ask, views.find_task(state, command))]
            case FindSecretFiles():
                return [Reply(ask, views.find_secret_files(state, command))]
            case ReadState():
                return [Reply(ask, views.read_state(state, now))]
            case ListContainers():
                return [Reply(ask, views.list_containers(state))]
            case LaunchContainer() | EndContainer() | AwaitContainer() | RemoveContainer():
                return standalone.answer(state, ask, command, now)


def _take_on(state: AgentState, order: RunTask | RunGroup) -> list[Effect]:
    """Let what was ordered just now count from now on, if it has a bound."""
    effects: list[Effect] = []
    for info in order.infos if isinstance(order, RunGroup) else (order.info,):
        task = state.tasks.get((order.framework.id or FrameworkId(""), info.task_id))
        if task is not None and task.live and task.container_id not in state.cutoff.tasks:
            effects += cutoff.take_on(state, task, hold=task.info.executor is None)
    return effects


def _shut_down(state: AgentState, framework_id: FrameworkId, now: float) -> list[Effect]:
    """End all that is left of a framework that is no more."""
    return [*executor_life.shut_down_all(state, framework_id, now), *tasks.shut_down(state, framework_id, now)]
