"""A real master and a real agent with a link that breaks: both count the same executors, and all room comes back."""

from collections import deque
from random import Random
from typing import Any

import pytest
from master_stage import Stage, bundle, task_info

from corral.agent import effects as fx
from corral.agent.core import AgentCore
from corral.agent.spec import (
    AgentConfig,
    Connected,
    Disconnected,
    Exited,
    Ordered,
    Recovered,
    Started,
    StartFailed,
)
from corral.agent.spec import (
    Stage as RunStage,
)
from corral.master.spec import AgentClosed, AgentOpened, AgentReported
from corral.model import calls
from corral.model.execution import Exit, Launched
from corral.model.ids import ContainerId, ExecutorId
from corral.model.offer import Filters
from corral.model.orders import Order, Report
from corral.model.resources import normal, scalar
from corral.model.task import CommandInfo, ExecutorInfo, TaskInfo
from corral.runtime.core import Loaded, SetTimer, Tick

TOTAL = normal([*bundle(8, 4096), scalar("disk", 1000)])
CUSTOM = ExecutorInfo(
    executor_id=ExecutorId("e"), kind="CUSTOM", command=CommandInfo(value="x"), resources=bundle(1, 1)
)
POD = ExecutorInfo(
    executor_id=ExecutorId("pod"), kind="DEFAULT", resources=normal([*bundle(0.5, 32), scalar("disk", 1)])
)


class World:
    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.stage = Stage()
        self.agent = AgentCore(AgentConfig(hostname="h", resources=TOTAL, runtimes=("process",)), Random(seed))
        self.up: deque[Report] = deque()
        self.timers: dict[str, float] = {}
        self.session = ""
        self.sessions = 0
        self.launches = 0
        self.tell(Loaded())
        self.tell(Recovered("process"))
        self.connect()
        self.framework = self.stage.framework(failover_timeout_s=1e6)

    # The link.

    def tell(self, input: Any) -> None:
        for effect in self.agent.handle(input, self.stage.now):
            if isinstance(effect, fx.Send):
                self.up.append(effect.report)
            elif isinstance(effect, SetTimer):
                self.timers[effect.name] = self.stage.now + effect.delay_s
        self.agent.invariants()

    def connect(self) -> None:
        if not self.session:
            self.sessions += 1
            self.session = f"link-{self.sessions}"
            self.stage.give(AgentOpened(self.session))
            self.tell(Connected(self.session))
            self.deliver_up(all=True)
            self.deliver_down(all=True)

    def cut(self) -> None:
        """What is on its way in either direction is lost."""
        if self.session:
            session, self.session = self.session, ""
            self.up.clear()
            self.stage.orders.pop(session, None)
            self.stage.give(AgentClosed(session, "cut"))
            self.tell(Disconnected(session, "cut"))
            self.up.clear()

    def deliver_up(self, *, all: bool = False) -> None:
        while self.session and self.up:
            self.stage.give(AgentReported(self.session, (self.up.popleft(),)))
            if not all:
                return

    def deliver_down(self, *, all: bool = False) -> None:
        orders: list[Order] = self.stage.orders.get(self.session, [])
        while self.session and orders:
            self.tell(Ordered(self.session, orders.pop(0)))
            if not all:
                return

    def pass_time(self) -> None:
        self.stage.run(self.random.choice((0.01, 1.0, 8.0)))
        for name in [name for name, at in self.timers.items() if at <= self.stage.now]:
            del self.timers[name]
            self.tell(Tick(name))

    # The framework.

    def launch(self) -> None:
        offers = self.framework.offers()
        if not offers:
            return
        offer, executor = self.random.choice(offers), self.random.choice((CUSTOM, POD, None))
        infos = tuple(self._task(offer.agent_id, executor) for _ in range(self.random.randint(1, 3)))
        operation = calls.LaunchGroup(executor=POD, tasks=infos) if executor is POD else calls.Launch(tasks=infos)
        self.framework.call(
            calls.Accept(
                framework_id=self.framework.id, offer_ids=tuple(o.id for o in offers), operations=(operation,),
                filters=Filters(refuse_s=0),
            )
        )  # fmt: skip

    def _task(self, agent_id: str, executor: ExecutorInfo | None) -> TaskInfo:
        self.launches += 1
        own: dict[str, Any] = {"command": None, "executor": executor} if executor is CUSTOM else {}
        return task_info(f"t{self.launches}", agent_id, bundle(0.5, 16), **own)

    def acknowledge(self) -> None:
        for status in self.framework.updates():
            if status.uuid is not None and status.agent_id is not None:
                call = calls.Acknowledge(
                    framework_id=self.framework.id, agent_id=status.agent_id, task_id=status.task_id, uuid=status.uuid
                )
                self.framework.call(call)

    def kill(self) -> None:
        tasks = list(self.stage.core.state.frameworks[self.framework.id].tasks)
        if tasks:
            self.framework.call(calls.Kill(framework_id=self.framework.id, task_id=self.random.choice(tasks)))

    def shut_down(self) -> None:
        for agent in list(self.stage.core.state.agents):
            ids = {"framework_id": self.framework.id, "agent_id": agent}
            self.framework.call(calls.Shutdown(**ids, executor_id=self.random.choice(("e", "pod"))))  # type: ignore[arg-type]

    # The node.

    def containers(self, stage: RunStage) -> list[ContainerId]:
        state = self.agent.state
        found = [t.container_id for t in state.tasks.values() if t.stage is stage and not t.custom]
        return found + [e.container_id for e in state.executors.values() if e.stage is stage and not e.is_default]

    def start(self) -> None:
        for container_id in self.containers(RunStage.STARTING):
            if self.random.random() < 0.2:
                self.tell(StartFailed(container_id, "no such command"))
            else:
                self.tell(Started(Launched(container_id=container_id, pid=7)))

    def exit(self) -> None:
        running = self.containers(RunStage.RUNNING)
        if running:
            self.tell(Exited(Exit(container_id=self.random.choice(running), code=self.random.choice((0, 1)))))

    # All of it.

    def walk(self, steps: int) -> None:
        weighted = [
            *[self.launch] * 4, *[self.acknowledge] * 4, self.kill, self.shut_down, *[self.start] * 3,
            *[self.exit] * 3, *[self.deliver_up] * 8, *[self.deliver_down] * 8, self.cut, *[self.connect] * 2,
            self.pass_time,
        ]  # fmt: skip
        for _ in range(steps):
            self.random.choice(weighted)()

    def rest(self) -> None:
        """Everything that is under way arrives."""
        self.connect()
        for _ in range(50):
            self.deliver_up(all=True)
            self.deliver_down(all=True)
            self.acknowledge()
            if not self.up and not self.stage.orders.get(self.session):
                return
        raise AssertionError("master and agent never come to rest")

    def counted(self) -> set[str]:
        (agent,) = self.stage.core.state.agents.values()
        return {executor_id for _, executor_id in agent.executors}


@pytest.mark.parametrize("seed", [0, 1, 2, 3, 17, 27, 29, 31])
def test_master_and_agent_count_the_same_executors_whatever_is_lost_between_them(seed: int) -> None:
    world = World(seed)
    for _ in range(3):
        world.walk(50)
        world.rest()
        assert world.counted() == {e.info.executor_id for e in world.agent.state.executors.values()}
    for container_id in world.containers(RunStage.STARTING):
        world.tell(StartFailed(container_id, "taken back"))
    for _ in range(12):
        for container_id in world.containers(RunStage.RUNNING):
            world.tell(Exited(Exit(container_id=container_id, code=0)))
        world.rest()
    assert world.counted() == set()
    assert not world.agent.state.tasks
    (agent,) = world.stage.core.state.agents.values()
    offered = [offer.resources for offer in agent.offers.values()]
    free = world.stage.core.state.allocator.book.agents[agent.id].free()
    assert normal([*free, *(r for resources in offered for r in resources)]) == TOTAL


def test_the_walk_reaches_what_it_is_about() -> None:
    """A walk that launches nothing would prove nothing."""
    world = World(3)
    kinds = set()
    for _ in range(300):
        world.walk(1)
        kinds |= {type(o).__name__ for orders in world.stage.orders.values() for o in orders}
        kinds |= {type(r).__name__ for r in world.up}
    assert {"RunGroup", "RunTask", "ExecutorEnded", "ShutdownExecutor", "KillTask"} <= kinds
