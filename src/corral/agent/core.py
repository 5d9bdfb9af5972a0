"""The deciding half of the agent: what happened goes to its family, effects come back.

Sources: the families' own; the rules of the whole are that a step is on disk before it is taken, and that neither a
silent master nor an ended agent ends a task.
"""

from random import Random

from corral.agent import gc, recovery, session, tasks, updates, views
from corral.agent.deadlines import TIMER as DEADLINES_TIMER
from corral.agent.spec import (
    AgentConfig,
    Command,
    Connected,
    DiscardFailed,
    Disconnected,
    DiskMeasured,
    Exited,
    Fetched,
    FindTask,
    KillFailed,
    ListTasks,
    Ordered,
    Probed,
    ReadState,
    Recovered,
    RuntimeChecked,
    Scanned,
    Started,
    StartFailed,
    WaitFailed,
)
from corral.agent.state import AgentState
from corral.model.orders import (
    AcknowledgeUpdate,
    KillTask,
    Ping,
    Refused,
    Registered,
    RunTask,
    ShutdownFramework,
)
from corral.runtime.core import Asked, Effect, Loaded, Reply, Tick

Input = (
    Loaded | Tick | Asked[Command] | Connected | Disconnected | Ordered | Recovered | RuntimeChecked | Fetched | Started
    | StartFailed | Exited | Probed | WaitFailed | KillFailed | DiscardFailed | Scanned | DiskMeasured
)  # fmt: skip
"""Everything that an agent may be told."""


class AgentCore:
    """Decides for one agent. Shapes: `random` makes container ids and the uuids of updates."""

    __slots__ = ("state",)

    def __init__(self, config: AgentConfig, random: Random) -> None:
        self.state = AgentState(config, random)

    def handle(self, input: Input, now: float) -> list[Effect]:
        effects = self._decide(input, now)
        armed = self.state.deadlines.arm(now)
        return effects + armed if armed else effects

    def invariants(self) -> None:
        self.state.invariants()

    def _decide(self, input: Input, now: float) -> list[Effect]:
        state = self.state
        match input:
            case Ordered():
                return self._obey(input, now)
            case Started():
                return tasks.started(state, input, now)
            case Exited():
                return tasks.exited(state, input, now)
            case Tick(name):
                return self._tick(name, now)
            case Probed():
                return tasks.probed(state, input, now)
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
            case DiskMeasured():
                return gc.measured(state, input, now)
            case Loaded():
                return recovery.load(state, input, now)
            case Asked(ask, command):
                return [Reply(ask, self._answer(command, now))]

    def _obey(self, input: Ordered, now: float) -> list[Effect]:
        state, order = self.state, input.order
        registering = isinstance(order, Registered | Refused)
        if not session.listens(state, input.session, order.epoch, registering=registering):
            return session.overrule(state, input.session, order.epoch, type(order).__name__)
        state.heard_at = now
        match order:
            case RunTask():
                return tasks.run(state, order, now)
            case AcknowledgeUpdate():
                return updates.acknowledge(state, order, now)
            case KillTask():
                return tasks.kill(state, order, now)
            case Ping():
                return session.answer(state, order, now)
            case ShutdownFramework():
                return tasks.shut_down(state, order.framework_id, now)
            case Refused():
                return session.refuse(state, order, now)
            case Registered():
                effects = session.register(state, order, now)
                for framework_id in order.framework_ids:
                    effects += tasks.shut_down(state, framework_id, now)
                return effects

    def _tick(self, name: str, now: float) -> list[Effect]:
        state = self.state
        if name == DEADLINES_TIMER:
            effects: list[Effect] = []
            for container_id, due in state.deadlines.pop(now):
                effects += tasks.fall_due(state, container_id, due, now)
            return effects
        if name == session.PULSE_TIMER:
            return session.pulse(state, now)
        if name == session.REGISTER_TIMER:
            return session.time_out(state)
        if name == gc.TIMER:
            return gc.check(state)
        if name.startswith(recovery.CHECK_TIMER):
            return recovery.check_again(state, name.removeprefix(recovery.CHECK_TIMER))
        return recovery.recover_again(state, name.removeprefix(recovery.RECOVER_TIMER))

    def _answer(self, command: Command, now: float) -> object:
        match command:
            case ListTasks():
                return views.list_tasks(self.state, command)
            case FindTask():
                return views.find_task(self.state, command)
            case ReadState():
                return views.read_state(self.state, now)
