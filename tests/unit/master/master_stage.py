"""A master's core on a stage: inputs go in, effects are put where they belong, time stands still until it is moved."""

from collections.abc import Sequence
from random import Random
from typing import Any, TypeVar

import msgspec

from corral.lib.errors import CorralError
from corral.master.core import MasterCore
from corral.master.effects import CloseSession, CloseStream, SendEvent, SendOrder, TellWatchers
from corral.master.spec import (
    AgentClosed,
    AgentOpened,
    AgentReported,
    Attempt,
    Command,
    Input,
    MasterConfig,
    SchedulerCall,
    SchedulerClosed,
    SubscribeStream,
)
from corral.mesos.watch import ClusterEvent
from corral.model import calls, events
from corral.model.agent import AgentInfo
from corral.model.attributes import Attribute
from corral.model.framework import Capability, FrameworkInfo
from corral.model.ids import AgentId, FrameworkId, OfferId, TaskId, WantId
from corral.model.offer import Filters, Offer, Want
from corral.model.orders import AgentTask, Order, Ping, Pong, Register, Registered, Report, RunTask, UpdateTask
from corral.model.resources import Resources, normal, ports, scalar
from corral.model.task import (
    GROUP_LABEL,
    CommandInfo,
    Label,
    Reason,
    Source,
    TaskInfo,
    TaskState,
    TaskStatus,
)
from corral.runtime.core import (
    Asked,
    CancelTimer,
    Effect,
    Loaded,
    Note,
    Persist,
    Refuse,
    Reply,
    SetTimer,
    Stored,
    Tick,
    decide,
    encode_record,
)

T = TypeVar("T")
PARTITION_AWARE = (Capability.PARTITION_AWARE,)


def bundle(cpus: float, mem: float = 0, *ranges: tuple[int, int]) -> Resources:
    return normal([scalar("cpus", cpus), scalar("mem", mem), *([ports(*ranges)] if ranges else [])])


def agent_info(name: str = "h1", cpus: float = 4, mem: float = 4096, **more: Any) -> AgentInfo:
    rack = (Attribute(name="rack", text=f"rack-{name}"),)
    resources = bundle(cpus, mem, (31000, 31099))
    return AgentInfo(
        hostname=name, port=4681, resources=resources, attributes=rack, runtimes=("process",), **more
    )  # fmt: skip


def task_info(id: str, agent_id: str, resources: Resources | None = None, **more: Any) -> TaskInfo:
    group = more.pop("group", None)
    labels = (Label(key=GROUP_LABEL, value=group),) if group else ()
    return TaskInfo(
        task_id=TaskId(id), name=id, agent_id=AgentId(agent_id), labels=labels,
        resources=bundle(1, 128) if resources is None else resources,
        command=more.pop("command", CommandInfo(value="true")), **more,
    )  # fmt: skip


class Stage:
    """Shapes: `events` per stream, `orders` per session and `told` hold everything sent; `take_*` empties them."""

    def __init__(self, config: MasterConfig | None = None, records: Sequence[Stored] = (), seed: int = 1) -> None:
        self.config = config or MasterConfig(least_refuse_s=0.0)
        self.core = MasterCore(self.config, Random(seed))
        self.now = 1000.0
        self.timers: dict[str, float] = {}
        self.events: dict[str, list[events.Event]] = {}
        self.orders: dict[str, list[Order]] = {}
        self.ended: set[str] = set()
        self.notes: list[Note] = []
        self.told: list[ClusterEvent] = []
        self.store: dict[str, bytes] = {r.key: r.value for r in records}
        self.streams = 0
        self.sessions = 0
        self.asks = 0
        self.uuids = 0
        self.answering: set[str] = set()
        self.answers: dict[int, Reply | Refuse] = {}
        self.give(Loaded(tuple(records)))

    # Turning the crank.

    def give(self, input: Input) -> list[Effect]:
        """One input, its effects, and the laws after it; every input must survive the journal."""
        again = msgspec.msgpack.decode(msgspec.msgpack.encode(input), type=Input)
        effects = list(decide(self.core, again, self.now))
        for effect in effects:
            self._perform(effect)
        self.core.invariants()
        return effects

    def _perform(self, effect: Effect) -> None:
        match effect:
            case SendEvent(stream, event):
                assert stream not in self.ended, "an event was sent on a closed stream"
                self.events.setdefault(stream, []).append(event)
            case TellWatchers(event):
                self.told.append(event)
            case SendOrder(session, order):
                assert session not in self.ended, "an order was sent on a closed session"
                self.orders.setdefault(session, []).append(order)
            case CloseStream(stream, _):
                self.ended.add(stream)
            case CloseSession(session, _):
                self.ended.add(session)
            case SetTimer(name, delay_s, if_unset):
                if not (if_unset and name in self.timers):
                    self.timers[name] = self.now + delay_s
            case CancelTimer(name):
                self.timers.pop(name, None)
            case Persist(key, record):
                if record is None:
                    self.store.pop(key, None)
                else:
                    self.store[key] = encode_record(record)
            case Note():
                self.notes.append(effect)
            case Reply() | Refuse():
                self.answers[effect.ask] = effect
            case _:
                raise AssertionError(f"the master made an effect of another kind: {effect}")

    def run(self, seconds: float = 0.01) -> None:
        """Let time pass, timer by timer; agents answer pings unless they have been silenced."""
        until = self.now + seconds
        for _ in range(10_000):
            due = [(at, name) for name, at in self.timers.items() if at <= until]
            if not due:
                self.now = until
                return
            at, name = min(due)
            self.now = max(self.now, at)
            del self.timers[name]
            self.give(Tick(name))
            for session in sorted(self.answering):
                if any(isinstance(o, Ping) for o in self.orders.get(session, [])):
                    self.orders[session] = [o for o in self.orders[session] if not isinstance(o, Ping)]
                    self.give(AgentReported(session, (Pong(),)))
        raise AssertionError("timers never come to rest")

    def ask(self, command: Command) -> Any:
        """The reply, or the error that refuses the command, raised."""
        self.asks += 1
        effects = self.give(Asked(self.asks, command))
        answers = [e for e in effects if isinstance(e, Reply | Refuse)]
        assert len(answers) == 1, "a command has exactly one answer"
        if isinstance(answers[0], Refuse):
            error = answers[0].error
            assert isinstance(error, CorralError)
            raise error
        return answers[0].value

    def ask_later(self, command: Command) -> int:
        """Put a command whose answer comes with a later input; returns its number."""
        self.asks += 1
        self.give(Asked(self.asks, command))
        assert self.asks not in self.answers, "it was answered at once"
        return self.asks

    def answer(self, ask: int) -> Reply | Refuse | None:
        return self.answers.get(ask)

    def error(self, ask: int) -> Exception:
        found = self.answers[ask]
        assert isinstance(found, Refuse)
        return found.error

    def restart(self, seed: int = 2) -> "Stage":
        """A new master over the same records, at the same instant."""
        fresh = Stage.__new__(Stage)
        records = tuple(Stored(key, value) for key, value in sorted(self.store.items()))
        fresh.__dict__.update(self.__dict__)
        fresh.core = MasterCore(self.config, Random(seed))
        fresh.timers, fresh.events, fresh.orders, fresh.ended, fresh.notes = {}, {}, {}, set(), []
        fresh.answering = set()
        fresh.give(Loaded(records))
        return fresh

    def what(self) -> list[str]:
        return [note.what for note in self.notes]

    # Agents.

    def agent(self, info: AgentInfo | None = None, tasks: Sequence[AgentTask] = (), **more: Any) -> "Agent":
        agent = Agent(self, info or agent_info(**more))
        agent.connect(tasks)
        return agent

    # Frameworks.

    def framework(self, **more: Any) -> "Framework":
        suppressed = more.pop("suppressed_roles", ())
        principal = more.pop("as_principal", None)
        info = FrameworkInfo(user="u", name=more.pop("name", "f"), **more)
        framework = Framework(self, info)
        framework.subscribe(suppressed, principal)
        return framework


class Agent:
    """An agent's end of the wire."""

    def __init__(self, stage: Stage, info: AgentInfo) -> None:
        self.stage = stage
        self.info = info
        self.session = ""

    def connect(
        self, tasks: Sequence[AgentTask] = (), frameworks: Sequence[FrameworkInfo] = (), life: str = "", number: int = 0
    ) -> None:
        stage = self.stage
        stage.sessions += 1
        self.session = f"session-{stage.sessions}"
        stage.give(AgentOpened(self.session))
        stage.answering.add(self.session)
        self.report(Register(self.info, tuple(tasks), tuple(frameworks), (), life, number))
        registered = [o for o in self.orders if isinstance(o, Registered)]
        if registered:
            self.info = msgspec.structs.replace(self.info, id=registered[-1].agent_id)

    @property
    def id(self) -> AgentId:
        assert self.info.id is not None
        return self.info.id

    @property
    def orders(self) -> list[Order]:
        return self.stage.orders.get(self.session, [])

    def take(self, kind: type[T]) -> list[T]:
        found = [o for o in self.orders if isinstance(o, kind)]
        self.stage.orders[self.session] = [o for o in self.orders if not isinstance(o, kind)]
        return found

    def report(self, *reports: Report) -> None:
        self.stage.give(AgentReported(self.session, reports))

    def close(self) -> None:
        self.stage.give(AgentClosed(self.session, "cut"))
        self.silence()

    def silence(self) -> None:
        """Leave pings without answer."""
        self.stage.answering.discard(self.session)

    def update(
        self, task_id: str, state: TaskState, framework_id: str, *, latest: TaskState | None = None, **more: Any
    ) -> bytes:
        """Tell a status; returns its uuid."""
        self.stage.uuids += 1
        uuid = more.pop("uuid", self.stage.uuids.to_bytes(16, "big"))
        status = TaskStatus(
            task_id=TaskId(task_id), state=state, at=self.stage.now, source=Source.EXECUTOR, agent_id=self.id,
            uuid=uuid, **more,
        )  # fmt: skip
        self.report(UpdateTask(FrameworkId(framework_id), status, latest or state))
        return bytes(uuid)

    def entry(self) -> Any:
        return self.stage.core.state.agents[self.id]

    def free(self) -> Resources:
        """What neither tasks nor offers hold of it."""
        return self.stage.core.state.allocator.book.agents[self.id].free()


class Framework:
    """A framework's end of the wire."""

    def __init__(self, stage: Stage, info: FrameworkInfo) -> None:
        self.stage = stage
        self.info = info
        self.stream = ""

    def subscribe(
        self, suppressed: Sequence[str] = (), principal: str | None = None, attempt: Attempt | None = None
    ) -> None:
        stage = self.stage
        stage.streams += 1
        before, self.stream = self.stream, f"stream-{stage.streams}"
        call = calls.Subscribe(info=self.info, suppressed_roles=tuple(suppressed))
        try:
            stage.ask(SubscribeStream(stream=self.stream, call=call, principal=principal, attempt=attempt))
        except CorralError:
            self.stream = before
            raise
        found = self.take(events.Subscribed)
        if found:
            self.info = msgspec.structs.replace(self.info, id=found[0].framework_id)

    @property
    def id(self) -> FrameworkId:
        assert self.info.id is not None
        return self.info.id

    @property
    def events(self) -> list[events.Event]:
        return self.stage.events.get(self.stream, [])

    def take(self, kind: type[T]) -> list[T]:
        found = [e for e in self.events if isinstance(e, kind)]
        self.stage.events[self.stream] = [e for e in self.events if not isinstance(e, kind)]
        return found

    def offers(self) -> list[Offer]:
        """The offers that have come since the last look, after a moment for the allocator."""
        self.stage.run()
        return [offer for event in self.take(events.Offers) for offer in event.offers]

    def updates(self) -> list[TaskStatus]:
        return [event.status for event in self.take(events.Update)]

    def rescinded(self) -> list[OfferId]:
        return [event.offer_id for event in self.take(events.Rescind)]

    def call(self, call: calls.Call, stream: str | None = "") -> None:
        self.stage.ask(SchedulerCall(call=call, stream=self.stream if stream == "" else stream))

    def accept(self, offers: Sequence[Offer], *tasks: TaskInfo, refuse_s: float = 5.0) -> None:
        operations = (calls.Launch(tasks=tasks),) if tasks else ()
        ids = tuple(offer.id for offer in offers)
        filters = Filters(refuse_s=refuse_s)
        self.call(calls.Accept(framework_id=self.id, offer_ids=ids, operations=operations, filters=filters))

    def decline(self, *offers: Offer, refuse_s: float = 5.0) -> None:
        ids = tuple(offer.id for offer in offers)
        self.call(calls.Decline(framework_id=self.id, offer_ids=ids, filters=Filters(refuse_s=refuse_s)))

    def acknowledge(self, agent: Agent, task_id: str, uuid: bytes) -> None:
        self.call(calls.Acknowledge(framework_id=self.id, agent_id=agent.id, task_id=TaskId(task_id), uuid=uuid))

    def want(self, *wants: Want) -> None:
        self.call(calls.Request(framework_id=self.id, wants=wants))

    def reconcile(self, *tasks: tuple[str, str | None]) -> list[TaskStatus]:
        self.updates()
        asked = tuple(
            calls.ReconcileTask(task_id=TaskId(t), agent_id=AgentId(a) if a is not None else None) for t, a in tasks
        )
        self.call(calls.Reconcile(framework_id=self.id, tasks=asked))
        return self.updates()

    def kill(self, task_id: str, **more: Any) -> None:
        self.call(calls.Kill(framework_id=self.id, task_id=TaskId(task_id), **more))

    def close(self) -> None:
        self.stage.give(SchedulerClosed(self.stream, "cut"))

    def launch(self, agent: Agent, task_id: str = "t1", **more: Any) -> TaskInfo:
        """Launch one task on the agent through whatever offer it gets there, and see the order go out."""
        offers = [offer for offer in self.offers() if offer.agent_id == agent.id]
        assert offers, "no offer came"
        info = task_info(task_id, agent.id, **more)
        self.accept(offers, info, refuse_s=0)
        runs = agent.take(RunTask)
        assert [run.info.task_id for run in runs] == [task_id]
        return runs[0].info

    def entry(self) -> Any:
        return self.stage.core.state.frameworks[self.id]


def want(id: str = "w1", count: int = 1, **more: Any) -> Want:
    return Want(
        id=WantId(id), role=more.pop("role", "*"), count=count, resources=more.pop("resources", bundle(1, 128)), **more
    )


def told(info: TaskInfo, framework: Framework, state: TaskState = TaskState.RUNNING, **more: Any) -> AgentTask:
    """A task as its agent tells it at registration."""
    return AgentTask(info, framework.id, more.pop("role", "*"), state, more.pop("status", None))


def states(statuses: Sequence[TaskStatus]) -> list[tuple[str, TaskState, Reason | None]]:
    return [(s.task_id, s.state, s.reason) for s in statuses]
