"""Drives an agent core by hand: a `for` loop around `handle`, a dict for a store, a clock that the test moves."""

from random import Random
from typing import Any, TypeVar

from corral.agent import effects as fx
from corral.agent.core import AgentCore
from corral.agent.spec import AgentConfig, Connected, Exited, Ordered, Recovered, Started
from corral.agent.state import Task
from corral.model.execution import Execution, Exit, Found, Launched
from corral.model.flags import parse_resources
from corral.model.framework import Capability, FrameworkInfo
from corral.model.ids import AgentId, FrameworkId, TaskId
from corral.model.orders import AcknowledgeUpdate, KillTask, Order, Registered, RunTask, UpdateTask
from corral.model.task import CommandInfo, Reason, TaskInfo, TaskStatus
from corral.runtime.core import (
    Asked,
    Effect,
    Loaded,
    Note,
    Persist,
    Reply,
    SetTimer,
    Stored,
    Tick,
    decide,
    encode_record,
)

E = TypeVar("E", bound=Effect)

AGENT = AgentId("m-S0")
FRAMEWORK = FrameworkId("m-0000")
CONFIG = AgentConfig(
    hostname="node1",
    ip="10.0.0.1",
    resources=parse_resources("cpus:4;mem:4096;ports:[31000-31100]"),
    runtimes=("process", "docker"),
    work_dir="/var/corral",
    version="0.1.0",
)


class Driver:
    """One agent. Shapes: `effects` are those of the last input; `records` what a store would hold."""

    def __init__(self, config: AgentConfig = CONFIG) -> None:
        self.config = config
        self.now = 1000.0
        self.records: dict[str, bytes] = {}
        self.timers: dict[str, float] = {}
        self.seed = 1
        self.session = 0
        self.epoch = 1
        self.effects: list[Effect] = []
        self.start()

    def start(self) -> list[Effect]:
        """A new process over the same records."""
        self.core = AgentCore(self.config, Random(self.seed))
        self.seed += 1
        self.timers.clear()
        return self.tell(Loaded(tuple(Stored(key, self.records[key]) for key in sorted(self.records))))

    def tell(self, input: Any) -> list[Effect]:
        self.effects = list(decide(self.core, input, self.now))
        self.core.invariants()
        for effect in self.effects:
            match effect:
                case Persist(key, None):
                    self.records.pop(key, None)
                case Persist(key, record):
                    assert record is not None
                    self.records[key] = encode_record(record)
                case SetTimer(name, delay_s):
                    self.timers[name] = self.now + delay_s
        return self.effects

    def all(self, kind: type[E]) -> list[E]:
        return [e for e in self.effects if isinstance(e, kind)]

    def one(self, kind: type[E]) -> E:
        (found,) = self.all(kind)
        return found

    def none(self, *kinds: type[Effect]) -> bool:
        return not any(isinstance(e, kinds) for e in self.effects)

    def statuses(self) -> list[TaskStatus]:
        """The updates that the last input told."""
        return [e.report.status for e in self.all(fx.Send) if isinstance(e.report, UpdateTask)]

    def status(self) -> TaskStatus:
        (found,) = self.statuses()
        return found

    def notes(self) -> list[str]:
        return [e.what for e in self.all(Note)]

    def ask(self, command: Any) -> Any:
        self.tell(Asked(1, command))
        (effect,) = self.effects
        assert isinstance(effect, Reply), effect
        return effect.value

    def wait(self, seconds: float) -> list[Effect]:
        """Let time pass, timers going off in their order; the effects of all of them."""
        until, found = self.now + seconds, []
        while self.timers and (soonest := min(self.timers, key=lambda n: self.timers[n])):
            if self.timers[soonest] > until:
                break
            self.now = max(self.now, self.timers.pop(soonest))
            found += self.tell(Tick(soonest))
        self.now = until
        self.effects = found
        return found

    def recover(self, *found: Found, runtime: str = "process") -> list[Effect]:
        return self.tell(Recovered(runtime, tuple(found)))

    def open(self) -> list[Effect]:
        """A session is opened; not yet registered."""
        self.session += 1
        return self.tell(Connected(f"s{self.session}", "http://master:4680"))

    def order(self, order: Order) -> list[Effect]:
        return self.tell(Ordered(f"s{self.session}", order))

    def register(self) -> list[Effect]:
        self.open()
        return self.order(Registered(self.epoch, AGENT, 15.0))

    def ready(self) -> "Driver":
        """Runtimes asked, master found."""
        self.recover(runtime="process")
        self.recover(runtime="docker")
        self.register()
        return self

    def launch(self, info: TaskInfo, **options: Any) -> list[Effect]:
        return self.order(RunTask(self.epoch, make_framework(**options), "web", info))

    def task(self, task_id: str = "t1") -> Task:
        return self.core.state.tasks[(FRAMEWORK, TaskId(task_id))]

    def acknowledge(self, task_id: str = "t1") -> list[Effect]:
        uuid = self.task(task_id).pending[0].uuid
        assert uuid is not None
        return self.order(AcknowledgeUpdate(self.epoch, FRAMEWORK, TaskId(task_id), uuid))

    def acknowledge_all(self, task_id: str = "t1") -> list[Effect]:
        while (FRAMEWORK, TaskId(task_id)) in self.core.state.tasks and self.task(task_id).pending:
            self.acknowledge(task_id)
        return self.effects

    def started(self, task_id: str = "t1", pid: int = 77, ip: str | None = None) -> list[Effect]:
        return self.tell(Started(Launched(container_id=self.task(task_id).container_id, pid=pid, ip=ip)))

    def run(self, info: TaskInfo, **options: Any) -> list[Effect]:
        """Launched, started, and everything so far acknowledged."""
        self.launch(info, **options)
        self.started(info.task_id)
        return self.acknowledge_all(info.task_id)

    def exit(self, task_id: str = "t1", **how: Any) -> list[Effect]:
        return self.tell(Exited(Exit(container_id=self.task(task_id).container_id, at=self.now, **how)))

    def kill(
        self,
        task_id: str = "t1",
        grace_s: float | None = None,
        why: str = "scaled down",
        reason: Reason | None = None,
    ) -> list[Effect]:
        return self.order(KillTask(self.epoch, FRAMEWORK, TaskId(task_id), grace_s, why, reason))

    def found(self, task_id: str = "t1", exit: Exit | None = None, up: bool = True) -> Found:
        """What a runtime would say of the task now."""
        container_id = self.task(task_id).container_id
        launched = Launched(container_id=container_id, pid=77) if up else None
        return Found(
            container_id=container_id, task_id=TaskId(task_id), framework_id=FRAMEWORK, launched=launched, exit=exit
        )

    def execution(self) -> Execution:
        return self.one(fx.Start).execution


def make_framework(*, aware: bool = False, killing: bool = False, user: str = "nobody", **more: Any) -> FrameworkInfo:
    capabilities = [Capability.PARTITION_AWARE] if aware else []
    capabilities += [Capability.TASK_KILLING_STATE] if killing else []
    return FrameworkInfo(id=FRAMEWORK, user=user, name="fw", capabilities=tuple(capabilities), **more)


def make_task(task_id: str = "t1", resources: str = "cpus:1;mem:128", **more: Any) -> TaskInfo:
    more.setdefault("command", CommandInfo(value="sleep 1"))
    return TaskInfo(task_id=TaskId(task_id), name=task_id, agent_id=AGENT, resources=parse_resources(resources), **more)
