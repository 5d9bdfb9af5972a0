"""Random walks of an agent with executors, groups and plain tasks: its laws hold at every step, and all ends."""

from random import Random

import pytest
from agent_driver import FRAMEWORK, Driver, make_framework, make_task

from corral.agent import effects as fx
from corral.agent.executor_state import Executor
from corral.agent.spec import (
    ExecutorClosed,
    Exited,
    Fetched,
    Stage,
    Started,
    StartFailed,
    SubscribeExecutor,
    TakeCall,
)
from corral.agent.state import Task
from corral.model import executor as api
from corral.model.execution import Exit, Found, Launched
from corral.model.flags import parse_resources
from corral.model.ids import ContainerId, ExecutorId, TaskId
from corral.model.orders import (
    AcknowledgeUpdate,
    ExecutorEnded,
    KillTask,
    RunGroup,
    RunTask,
    ShutdownExecutor,
    ShutdownFramework,
)
from corral.model.task import TERMINAL, CommandInfo, ExecutorInfo, Source, TaskInfo, TaskState, TaskStatus, Uri
from corral.runtime.core import Asked

CUSTOM = ExecutorInfo(executor_id=ExecutorId("e"), kind="CUSTOM", command=CommandInfo(value="run"))
FETCHED = ExecutorInfo(
    executor_id=ExecutorId("u"), kind="CUSTOM", command=CommandInfo(value="run", uris=(Uri(value="/run"),))
)
POD = ExecutorInfo(executor_id=ExecutorId("pod"), kind="DEFAULT", resources=parse_resources("cpus:0.1"))


class Walk:
    def __init__(self, agent: Driver, seed: int) -> None:
        self.agent = agent
        self.random = Random(seed)
        self.number = 0
        self.counted: set[str] = set()
        """The executors that a master would count on this agent."""
        agent.ready()

    # What is there.

    @property
    def executors(self) -> list[Executor]:
        return [e for _, e in sorted(self.agent.core.state.executors.items()) if not e.is_default]

    @property
    def tasks(self) -> list[Task]:
        return [task for _, task in sorted(self.agent.core.state.tasks.items())]

    def containers(self) -> dict[ContainerId, tuple[str, Stage]]:
        """Everything that may be a container, with its id for the runtime and its stage."""
        found: dict[ContainerId, tuple[str, Stage]] = {
            t.container_id: (t.info.task_id, t.stage) for t in self.tasks if not t.custom
        }
        return found | {e.container_id: (e.info.executor_id, e.stage) for e in self.executors}

    def at(self, *stages: Stage) -> list[ContainerId]:
        return [c for c, (_, stage) in self.containers().items() if stage in stages]

    # Steps.

    def tell(self, input: object) -> None:
        self.agent.tell(input)
        self._hear()

    def order(self, order: object) -> None:
        self.agent.order(order)  # type: ignore[arg-type]
        self._hear()

    def _hear(self) -> None:
        for effect in self.agent.all(fx.Send):
            if isinstance(effect.report, ExecutorEnded):
                assert effect.report.executor_id in self.counted, "ended what the master never counted"
                self.counted.discard(effect.report.executor_id)

    def launch(self) -> None:
        executor = self.random.choice((CUSTOM, FETCHED, POD, None))
        infos = tuple(self._info(executor) for _ in range(self.random.randint(1, 3)))
        grouped = executor is POD or (executor is not None and self.random.random() < 0.3)
        starts = executor is not None and executor.executor_id not in self.counted
        if executor is not None:
            self.counted.add(executor.executor_id)
        framework = make_framework(aware=True, checkpoint=True)
        if grouped:
            self.order(RunGroup(1, framework, "web", infos, starts))
        else:
            self.order(RunTask(1, framework, "web", infos[0], starts))

    def _info(self, executor: ExecutorInfo | None) -> TaskInfo:
        self.number += 1
        command = None if executor is not None and executor is not POD else CommandInfo(value="true")
        bad = ("x",) if self.random.random() < 0.05 else ()
        return make_task(f"t{self.number}", "cpus:0.1", executor=executor, command=command, unsupported=bad)

    def fetched(self) -> None:
        for container_id in self.at(Stage.FETCHING)[:1]:
            self.tell(Fetched(container_id, "404" if self.random.random() < 0.2 else None))

    def started(self) -> None:
        for container_id in self.at(Stage.STARTING)[:2]:
            if self.random.random() < 0.2:
                self.tell(StartFailed(container_id, "no such command"))
            else:
                self.tell(Started(Launched(container_id=container_id, pid=9)))

    def exited(self) -> None:
        running = self.at(Stage.RUNNING)
        if running:
            code = self.random.choice((0, 0, 1))
            self.tell(Exited(Exit(container_id=self.random.choice(running), code=code)))

    def subscribe(self) -> None:
        for executor in self.executors[:1]:
            self.number += 1
            known = tuple(t for t in sorted(executor.tasks) if self.random.random() < 0.8)
            call = api.Subscribe(
                framework_id=FRAMEWORK, executor_id=executor.info.executor_id, task_ids=known,
                updates=tuple(self._status(t) for t in known if self.random.random() < 0.3),
            )  # fmt: skip
            self.tell(Asked(1, SubscribeExecutor(f"s{self.number}", call)))

    def _status(self, task_id: TaskId) -> TaskStatus:
        self.number += 1
        state = self.random.choice((TaskState.RUNNING, TaskState.FINISHED, TaskState.KILLED, TaskState.FAILED))
        uuid = self.number.to_bytes(16, "big")
        return TaskStatus(task_id=task_id, state=state, at=1.0, source=Source.EXECUTOR, uuid=uuid)

    def update(self) -> None:
        listening = [e for e in self.executors if e.stream is not None and e.tasks]
        if listening:
            executor = self.random.choice(listening)
            status = self._status(self.random.choice(sorted(executor.tasks)))
            call = api.Update(framework_id=FRAMEWORK, executor_id=executor.info.executor_id, status=status)
            self.tell(Asked(1, TakeCall(call)))

    def cut(self) -> None:
        for executor in self.executors:
            if executor.stream is not None:
                self.tell(ExecutorClosed(executor.stream, "cut"))

    def kill(self) -> None:
        if self.tasks:
            self.order(KillTask(1, FRAMEWORK, self.random.choice(self.tasks).info.task_id, 1.0))

    def shut_down(self) -> None:
        name = self.random.choice(("e", "u", "pod"))
        self.order(ShutdownExecutor(1, FRAMEWORK, ExecutorId(name)))

    def acknowledge(self) -> None:
        waiting = [task for task in self.tasks if task.pending]
        for task in waiting[:3]:
            uuid = task.pending[0].uuid
            assert uuid is not None
            self.order(AcknowledgeUpdate(1, FRAMEWORK, task.info.task_id, uuid))

    def wait(self) -> None:
        self.agent.wait(self.random.choice((0.5, 6.0, 20.0, 70.0)))
        self._hear()

    def restart(self) -> None:
        found = [
            Found(
                container_id=container_id, task_id=TaskId(name), framework_id=FRAMEWORK,
                launched=Launched(container_id=container_id, pid=9) if self.random.random() < 0.8 else None,
                exit=Exit(container_id=container_id, code=1) if self.random.random() < 0.3 else None,
            )
            for container_id, (name, stage) in self.containers().items()
            if stage in (Stage.STARTING, Stage.RUNNING) and self.random.random() < 0.8
        ]  # fmt: skip
        self.agent.start()
        self.agent.recover(*found)
        self.agent.recover(runtime="docker")
        self.agent.register()
        self.counted = {e.info.executor_id for e in self.agent.core.state.executors.values()}

    def walk(self, steps: int) -> None:
        weighted = [
            *[self.launch] * 4, *[self.started] * 4, *[self.fetched] * 2, *[self.exited] * 2, *[self.subscribe] * 3,
            *[self.update] * 4, self.cut, *[self.kill] * 2, self.shut_down, *[self.acknowledge] * 4, self.wait,
            self.restart,
        ]  # fmt: skip
        for _ in range(steps):
            self.random.choice(weighted)()
            held = {e.info.executor_id for e in self.agent.core.state.executors.values()}
            assert held == self.counted, "agent and master count other executors"

    def finish(self) -> None:
        """The framework is removed; whatever still runs ends when it is told to."""
        self.order(ShutdownFramework(1, FRAMEWORK))
        for _ in range(200):
            self.fetched()
            for container_id in self.at(Stage.STARTING):
                self.tell(StartFailed(container_id, "taken back", aborted=True))
            for container_id in self.at(Stage.RUNNING):
                self.tell(Exited(Exit(container_id=container_id, signal=15)))
            self.acknowledge()
            if not self.tasks and not self.agent.core.state.executors:
                return
            self.agent.wait(30)
        raise AssertionError("something never ends")


@pytest.mark.parametrize("seed", range(40))
def test_whatever_happens_the_laws_hold_and_all_comes_to_an_end(agent: Driver, seed: int) -> None:
    walk = Walk(agent, seed)
    walk.walk(120)
    walk.finish()
    assert not walk.counted
    kept = [key for key in agent.records if not key.startswith(("identity", "frameworks/"))]
    assert kept == []
    assert all(task.state in TERMINAL for task in agent.core.state.completed)
