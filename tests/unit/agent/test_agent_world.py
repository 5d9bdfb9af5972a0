"""Whatever happens in whatever order, and wherever the agent is killed: no task lost, none doubled, no exit untold.

The world is a list of things that happen; a runtime that keeps its containers when the agent dies, and a master that
acknowledges when it likes. At the end everything is let go its way and the books must balance.
"""

from collections import Counter

from agent_driver import AGENT, FRAMEWORK, Driver, make_task
from hypothesis import given, settings
from hypothesis import strategies as st

from corral.agent import effects as fx
from corral.agent.spec import Disconnected, Exited, Fetched, Started, StartFailed, WaitFailed
from corral.model.execution import Exit, Found, Launched
from corral.model.ids import ContainerId, TaskId
from corral.model.orders import AcknowledgeUpdate, KillTask, Registered, UpdateTask
from corral.model.task import TERMINAL, CommandInfo, TaskState, Uri
from corral.runtime.core import Effect

WITH_URI = CommandInfo(value="x", uris=(Uri(value="http://x/y"),))


class World:
    """Shapes: `containers` maps to None while it runs, else to its exit."""

    def __init__(self) -> None:
        self.agent = Driver()
        self.containers: dict[ContainerId, Exit | None] = {}
        self.tasks_of: dict[ContainerId, TaskId] = {}
        self.fetching: list[ContainerId] = []
        self.starting: list[ContainerId] = []
        self.aborted: list[ContainerId] = []
        self.waited: set[ContainerId] = set()
        self.doomed: list[ContainerId] = []
        self.came_up: Counter[TaskId] = Counter()
        self.ended_by_itself: dict[TaskId, int] = {}
        self.asked_to_end: set[TaskId] = set()
        self.launched: list[TaskId] = []
        self.told: dict[TaskId, list[bytes]] = {}
        self.heard: set[bytes] = set()
        self.states: dict[TaskId, list[TaskState]] = {}
        self.connected = False
        self.perform(self.agent.effects)
        self.settle_start()

    # The agent's effects.

    def perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case fx.Fetch(container_id=c):
                    self.fetching.append(c)
                case fx.CancelFetch(container_id=c):
                    self.fetching = [f for f in self.fetching if f != c]
                case fx.Start(execution=execution):
                    self.starting.append(execution.container_id)
                    self.tasks_of[execution.container_id] = execution.task_id
                case fx.Abort(container_id=c):
                    if c in self.starting:
                        self.starting.remove(c)
                        self.aborted.append(c)
                case fx.Wait(container_id=c):
                    self.waited.add(c)
                case fx.Kill(container_id=c):
                    if c in self.containers and self.containers[c] is None:
                        self.doomed.append(c)
                case fx.Remove(container_id=c):
                    assert self.containers.get(c, Exit(container_id=c)) is not None, "what runs is not removed"
                    self.containers.pop(c, None)
                case fx.Discard(container_id=c):
                    self.containers.pop(c, None)
                case fx.Send(report=UpdateTask(status=status)):
                    assert self.connected
                    assert status.uuid is not None
                    told = self.told.setdefault(status.task_id, [])
                    if status.uuid not in self.heard:
                        self.heard.add(status.uuid)
                        self.states.setdefault(status.task_id, []).append(status.state)
                    if status.uuid not in told:
                        told.append(status.uuid)

    def tell(self, input: object) -> None:
        self.perform(self.agent.tell(input))

    # What happens.

    def settle_start(self) -> None:
        found = [
            Found(
                container_id=c, task_id=self.tasks_of[c], framework_id=FRAMEWORK,
                launched=Launched(container_id=c, pid=1), exit=exit,
            )
            for c, exit in sorted(self.containers.items())
        ]  # fmt: skip
        self.perform(self.agent.recover(*found, runtime="process"))
        self.perform(self.agent.recover(runtime="docker"))
        self.connect()

    def connect(self) -> None:
        if not self.connected:
            self.connected = True
            self.agent.open()
            self.perform(self.agent.order(Registered(1, AGENT, 15.0)))

    def disconnect(self) -> None:
        if self.connected:
            self.connected = False
            self.tell(Disconnected(f"s{self.agent.session}", "cut"))

    def launch(self, uris: bool) -> None:
        if self.connected:
            info = make_task(f"t{len(self.launched)}", **({"command": WITH_URI} if uris else {}))
            self.launched.append(info.task_id)
            self.perform(self.agent.launch(info))

    def fetch(self, n: int, ok: bool) -> None:
        if self.fetching:
            container_id = self.fetching.pop(n % len(self.fetching))
            self.tell(Fetched(container_id, None if ok else "status 404"))

    def come_up(self, container_id: ContainerId) -> None:
        self.containers[container_id] = None
        self.came_up[self.tasks_of[container_id]] += 1

    def start(self, n: int, ok: bool) -> None:
        if self.starting:
            container_id = self.starting.pop(n % len(self.starting))
            if ok:
                self.come_up(container_id)
                self.tell(Started(Launched(container_id=container_id, pid=1)))
            else:
                self.tell(StartFailed(container_id, "no such image"))

    def take_back(self, n: int) -> None:
        if self.aborted:
            container_id = self.aborted.pop(n % len(self.aborted))
            self.tell(StartFailed(container_id, "taken back", aborted=True))

    def end(self, n: int, code: int, of: list[ContainerId]) -> None:
        running = [c for c in of if c in self.containers and self.containers[c] is None]
        if running:
            container_id = running[n % len(running)]
            self.containers[container_id] = Exit(container_id=container_id, code=code)
            self.ended_by_itself[self.tasks_of[container_id]] = code
            self.see_ends()

    def see_ends(self) -> None:
        for container_id in sorted(self.waited):
            if container_id not in self.containers:
                self.waited.discard(container_id)
                self.tell(WaitFailed(container_id, "not known", gone=True))
            elif (exit := self.containers[container_id]) is not None:
                self.waited.discard(container_id)
                self.tell(Exited(exit))

    def kill(self, n: int, grace_s: float) -> None:
        if self.connected and self.launched:
            task_id = self.launched[n % len(self.launched)]
            self.asked_to_end.add(task_id)
            self.perform(self.agent.order(KillTask(1, FRAMEWORK, task_id, grace_s)))

    def acknowledge(self, n: int) -> None:
        if self.connected and self.told:
            task_id = sorted(self.told)[n % len(self.told)]
            uuid = self.told[task_id].pop(0)
            if not self.told[task_id]:
                del self.told[task_id]
            self.perform(self.agent.order(AcknowledgeUpdate(1, FRAMEWORK, task_id, uuid)))

    def crash(self, n: int) -> None:
        """The agent's process ends; starts under way come up or do not, the runtime keeps what it has."""
        for index, container_id in enumerate(self.starting + self.aborted):
            if (n >> index) & 1:
                self.come_up(container_id)
        self.fetching, self.starting, self.aborted, self.doomed = [], [], [], []
        self.waited.clear()
        self.connected = False
        self.agent.now += 1
        self.perform(self.agent.start())
        self.settle_start()

    def crash_before_acting(self, what: str, n: int) -> None:
        """As `crash`, just after an input's records were written and before anything came of them."""
        perform, self.perform = self.perform, lambda effects: None  # type: ignore[method-assign, assignment]
        self.step(what, n)
        self.perform = perform  # type: ignore[method-assign]
        self.crash(n)

    def step(self, what: str, n: int) -> None:
        match what:
            case "launch":
                self.launch(n % 2 == 1)
            case "fetch":
                self.fetch(n, n % 4 != 3)
            case "start":
                self.start(n, n % 4 != 3)
            case "take back":
                self.take_back(n)
            case "exit":
                self.end(n, n % 3, sorted(self.containers))
            case "die":
                self.end(n, 0, self.doomed)
            case "kill":
                self.kill(n, float(n % 3))
            case "acknowledge":
                self.acknowledge(n)
            case "disconnect":
                self.disconnect()
            case "connect":
                self.connect()
            case "wait":
                self.perform(self.agent.wait(float(n)))
            case "crash":
                self.crash(n)

    # The end.

    def finish(self) -> None:
        for _ in range(200):
            self.connect()
            while self.fetching:
                self.fetch(0, True)
            while self.starting:
                self.start(0, True)
            while self.aborted:
                self.take_back(0)
            self.end(0, 0, sorted(self.containers))
            self.see_ends()
            for n in range(len(self.told)):
                self.acknowledge(n)
            if not self.agent.core.state.tasks and not self.containers:
                return
        raise AssertionError("the agent does not come to rest")


WHAT = ["launch", "fetch", "start", "take back", "exit", "die", "kill", "acknowledge", "disconnect", "connect", "wait", "crash"]  # fmt: skip  # noqa: E501
STEPS = st.lists(st.tuples(st.sampled_from(WHAT), st.integers(0, 40), st.booleans()), max_size=40)


@settings(max_examples=300, deadline=None)
@given(STEPS)
def test_no_task_is_lost_or_doubled_and_no_exit_is_untold(steps: list[tuple[str, int, bool]]) -> None:
    world = World()
    for what, n, dies in steps:
        if dies and what != "crash" and n % 5 == 0:
            world.crash_before_acting(what, n)
        else:
            world.step(what, n)
    world.finish()
    assert set(world.agent.records) <= {"identity", f"frameworks/{FRAMEWORK}"}
    for task_id in world.launched:
        states = world.states[task_id]
        assert states[-1] in TERMINAL, f"{task_id} has an end"
        assert not any(s in TERMINAL for s in states[:-1]), f"{task_id} ends once: {states}"
        assert world.came_up[task_id] <= 1, f"{task_id} is doubled"
        order = [TaskState.STARTING, TaskState.RUNNING]
        assert [s for s in states[:-1] if s in order] == order[: len(states) - 1], states
        if task_id in world.asked_to_end:
            continue
        code = world.ended_by_itself.get(task_id)
        if code is not None:
            assert states[-1] is (TaskState.FINISHED if code == 0 else TaskState.FAILED), f"{task_id} ended with {code}"
        else:
            assert states[-1] in (TaskState.FAILED, TaskState.LOST)
