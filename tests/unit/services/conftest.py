"""A services core with a pretended master beside it: what it persists, asks for and is answered, in virtual time."""

from collections.abc import Iterator
from random import Random
from typing import Any

import msgspec
import pytest

from corral.frameworks.services import Config, ServicesCore, build, residency
from corral.frameworks.services.command_spec import AppUpdate, CreateApp, GetApp, UpdateApps
from corral.frameworks.services.marathon import read_app, read_update
from corral.frameworks.services.record_spec import Instance
from corral.frameworks.services.registry import CHANGED
from corral.frameworks.services.state import App, State, task_id_of
from corral.lib.errors import CorralError
from corral.model import calls, events
from corral.model.attributes import Attribute
from corral.model.health import CheckResult
from corral.model.ids import AgentId, FrameworkId, OfferId, TaskId
from corral.model.maintenance import Unavailability
from corral.model.offer import Offer, Want
from corral.model.operations import conversion, find_fault
from corral.model.resources import Identity, Reservation, Resources, add, contains, normal, ports, scalar, subtract
from corral.model.task import ContainerStatus, Reason, Source, TaskInfo, TaskState, TaskStatus
from corral.runtime.core import (
    Asked,
    CancelTimer,
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
from corral.sdk.effects import Call, Measure, Notify, Publish, Signal
from corral.sdk.feed import Followed
from corral.sdk.scheduler import Disconnected

FRAMEWORK = FrameworkId("F")
MASTER = events.MasterInfo(id="m", hostname="master", ip="127.0.0.1", port=4680, version="1.9.0")

ALIVE = (TaskState.STAGING, TaskState.STARTING, TaskState.RUNNING, TaskState.KILLING, TaskState.UNREACHABLE)


def make_core(config: Config, random: Random) -> ServicesCore:
    core = build(config, random).core
    assert isinstance(core, ServicesCore)
    return core


class Cluster:
    """Shapes: `records` survive `crash`; `tasks` are those the pretended master runs, by id. `open` is by host what its
    agent has reserved for a role, with its attributes; `opened` are the roles for which such is offered; `leaves` is
    by host when it is out of service.
    """

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or Config()
        self.records: dict[str, bytes] = {}
        self.now = 1_700_000_000.0
        self.seed = 1
        self.core = make_core(self.config, Random(self.seed))
        self.timers: dict[str, float] = {}
        self.calls: list[calls.Call] = []
        self.notes: list[Note] = []
        self.published: list[dict[str, Any]] = []
        self.sent: list[Notify] = []
        self.wants: dict[str, Want] = {}
        self.tasks: dict[TaskId, TaskInfo] = {}
        self.launched: list[TaskInfo] = []
        self.killed: list[TaskId] = []
        self.declined: list[str] = []
        self.measured: list[tuple[str, ...]] = []
        self.signals: list[Signal] = []
        self.roles: tuple[str, ...] = (self.config.role,)
        self.suppressed: tuple[str, ...] = ()
        self.revived: list[tuple[str, ...]] = []
        self.opened: set[str] = set()
        self.reserved: dict[str, tuple[AgentId, Resources]] = {}
        self.open: dict[str, tuple[str, Resources, tuple[Attribute, ...]]] = {}
        self.leaves: dict[str, Unavailability] = {}
        self.replies: dict[int, Any] = {}
        self._asks = 0
        self._offers = 0
        self._ports = 31000
        self._offered: dict[str, Offer] = {}
        self.send(Loaded())

    # Turns.

    def send(self, input: Any) -> None:
        effects = decide(self.core, input, self.now)
        self.core.invariants()
        for effect in effects:
            self.perform(effect)

    def perform(self, effect: Any) -> None:
        match effect:
            case Persist(key=key, record=None):
                self.records.pop(key, None)
            case Persist(key=key, record=record):
                assert record is not None
                self.records[key] = encode_record(record)
            case Reply(ask=ask, value=value):
                self.replies[ask] = value
            case Refuse(ask=ask, error=error):
                self.replies[ask] = error
            case SetTimer(name=name, delay_s=delay_s, if_unset=if_unset):
                if not (if_unset and name in self.timers):
                    self.timers[name] = self.now + delay_s
            case CancelTimer(name=name):
                self.timers.pop(name, None)
            case Note():
                self.notes.append(effect)
            case Notify():
                self.sent.append(effect)
            case Publish(kind=kind, body=body):
                assert body["eventType"] == kind
                self.published.append(dict(msgspec.json.decode(msgspec.json.encode(body))))
            case Signal():
                self.signals.append(effect)
            case Measure(nodes=nodes):
                self.measured.append(nodes)
            case Call(call=call):
                self.calls.append(call)
                self._hear(call)
            case _:
                raise AssertionError(f"unexpected effect {effect}")

    def advance(self, seconds: float) -> None:
        """Let time pass, every timer going off at its instant."""
        end = self.now + seconds
        while self.timers:
            name, at = min(self.timers.items(), key=lambda pair: pair[1])
            if at > end:
                break
            del self.timers[name]
            self.now = max(self.now, at)
            self.send(Tick(name))
        self.now = end

    def settle(self) -> None:
        """Let everything happen that waits for less than a moment."""
        self.advance(0.05)

    def subscribe(self) -> None:
        self.roles = (self.config.role,)
        self.opened.clear()
        self.wants.clear()
        self.send(events.Subscribed(framework_id=FRAMEWORK, heartbeat_interval_s=15.0, master=MASTER))
        self.settle()

    def listen(self) -> None:
        self.send(Followed(True))

    def heard(self, *kinds: str) -> list[dict[str, Any]]:
        """The events of these types, or all, since the last call."""
        found = [e for e in self.published if e["eventType"] in (kinds or {e["eventType"]} - {CHANGED})]
        self.published.clear()
        return found

    def disconnect(self) -> None:
        self.send(Disconnected(1, "cut"))

    def crash(self) -> None:
        """The process dies and comes back with its records; timers and everything in memory are gone."""
        self.seed += 1
        self.timers.clear()
        self._offered.clear()
        self.core = make_core(self.config, Random(self.seed))
        self.send(Loaded(tuple(Stored(k, v) for k, v in sorted(self.records.items()))))

    def reconcile(self) -> None:
        """What the session does after a subscription."""
        for task in list(self.core.live_tasks()):
            if task.task_id in self.tasks:
                self.update(task.task_id, TaskState.RUNNING, reason=Reason.RECONCILIATION)
            else:
                self.update(task.task_id, TaskState.GONE, reason=Reason.RECONCILIATION)
        self.settle()

    # Commands.

    def ask(self, command: Any) -> Any:
        """Errors: as the core refuses."""
        self._asks += 1
        self.send(Asked(self._asks, command))
        found = self.replies.pop(self._asks)
        if isinstance(found, CorralError):
            raise found
        return found

    def take_sent(self) -> list[Notify]:
        """The notices sent since the last call."""
        sent, self.sent = self.sent, []
        return sent

    def create(self, force: bool = False, **fields: Any) -> Any:
        body = {"id": "/web", "cmd": "sleep 1000", "cpus": 0.1, "mem": 32, **fields}
        result, _ = self.ask(CreateApp(spec=read_app(body).spec, force=force))
        self.settle()
        return result

    def update_app(self, app_id: str = "/web", force: bool = False, partial: bool = True, **fields: Any) -> Any:
        found = read_update(fields, app_id)
        update = AppUpdate(id=app_id, spec=found.spec, given=found.given, to_version=found.to_version)
        result = self.ask(UpdateApps(updates=(update,), partial=partial, force=force, single=True))
        self.settle()
        return result

    # The pretended master.

    def _hear(self, call: calls.Call) -> None:
        match call:
            case calls.Request(wants=wants):
                assert wants is not None
                assert {w.role for w in wants} <= set(self.roles), "wants of other roles would be refused"
                self.wants = {w.id: w for w in wants}
            case calls.Accept(offer_ids=offer_ids, operations=operations):
                for offer_id in offer_ids:
                    offer = self._offered.pop(offer_id)
                    want = self.wants.get(offer.want_id or "")
                    if want is not None:
                        count = want.count - 1
                        self.wants.pop(want.id)
                        if count:
                            self.wants[want.id] = msgspec.structs.replace(want, count=count)
                for operation in operations:
                    self._operate(operation, offer.agent_id)
            case calls.Decline(offer_ids=offer_ids):
                for offer_id in offer_ids:
                    self._offered.pop(offer_id)
                    self.declined.append(offer_id)
            case calls.Kill(task_id=task_id):
                self.killed.append(task_id)
            case calls.AcceptInverseOffers():
                pass
            case calls.UpdateFramework(info=info, suppressed_roles=suppressed):
                self.roles, self.suppressed = info.roles, suppressed
                self.opened = set(info.roles) - set(suppressed)
            case calls.Revive(roles=roles):
                assert set(roles) <= set(self.roles), "it is in these roles"
                self.revived.append(roles)
                self.opened.update(roles)
            case calls.Suppress(roles=roles):
                assert roles, "the others may still be wanted"
                assert set(roles) <= self.opened
                self.opened.difference_update(roles)
            case _:
                raise AssertionError(f"unexpected call {call}")

    def _operate(self, operation: Any, agent_id: AgentId) -> None:
        if isinstance(operation, calls.Launch | calls.LaunchGroup):
            for task in operation.tasks:
                assert task.task_id not in self.tasks, f"{task.task_id} launched twice"
                self.tasks[task.task_id] = task
                self.launched.append(task)
                if any(each.labels for r in task.resources for each in r.identity.reservations):
                    (held,) = [h for h in self.reserved.values() if h[1] == task.resources]
                    assert held[0] == agent_id, "it is launched where its volumes are"
            return
        assert find_fault(operation) is None
        change = conversion(operation)
        labels = {
            value for r in (*change.converted, *change.consumed) for each in r.identity.reservations
            for key, value in each.labels if key == residency.NAME
        }  # fmt: skip
        (name,) = labels
        _, before = self.reserved.get(name, (agent_id, ()))
        after = subtract(before, tuple(r for r in change.consumed if r.identity.reservations))
        after = add(after, tuple(r for r in change.converted if r.identity.reservations))
        self.reserved[name] = (agent_id, after)
        if not after:
            del self.reserved[name]

    def offer_reserved(self) -> list[TaskId]:
        """Offer what is reserved and not held by a task; returns the tasks that were launched on it."""
        before = len(self.launched)
        for agent_id, resources in list(self.reserved.values()):
            if any(t.resources == resources for t in self.tasks.values()):
                continue
            self._offers += 1
            offer = Offer(
                id=OfferId(f"O{self._offers}"), framework_id=FRAMEWORK, agent_id=agent_id,
                hostname=agent_id.removeprefix("agent-"), ip="10.0.0.1", port=4681,
                role=resources[0].identity.reservations[-1].role, resources=resources,
            )  # fmt: skip
            self._offered[offer.id] = offer
            self.send(events.Offers(offers=(offer,)))
        self.settle()
        return [t.task_id for t in self.launched[before:]]

    def reserve(self, host: str, role: str, *, attributes: tuple[Attribute, ...] = (), **amounts: Any) -> None:
        """Let an agent have this reserved for a role. Shapes: `ports` are a pair of ends, all others numbers."""
        spans = (ports(amounts.pop("ports")),) if "ports" in amounts else ()
        identity = Identity(reservations=(Reservation(role=role, static=True),))
        made = [*(scalar(name, n) for name, n in amounts.items()), *spans]
        self.open[host] = role, normal(msgspec.structs.replace(r, identity=identity) for r in made), attributes

    def offer_open(self) -> list[TaskId]:
        """Offer what is reserved and free, to whom it is asked for, until all is refused; returns what was launched."""
        before = len(self.launched)
        launched = -1
        while launched != len(self.launched):
            launched = len(self.launched)
            made = tuple(offer for host in self.open if (offer := self._make_open(host)) is not None)
            if made:
                self.send(events.Offers(offers=made))
                self.settle()
        return [t.task_id for t in self.launched[before:]]

    def _make_open(self, host: str) -> Offer | None:
        role, free, attributes = self.open[host]
        for task in self.tasks.values():
            if task.agent_id == f"agent-{host}":
                assert contains(free, tuple(r for r in task.resources if r.identity.reservations)), "taken twice"
                free = subtract(free, tuple(r for r in task.resources if r.identity.reservations))
        if role not in self.opened or not free:
            return None
        self._offers += 1
        offer = Offer(
            id=OfferId(f"O{self._offers}"), framework_id=FRAMEWORK, agent_id=AgentId(f"agent-{host}"), hostname=host,
            ip="10.0.0.1", port=4681, role=role, resources=free, attributes=attributes,
            unavailability=self.leaves.get(host),
        )  # fmt: skip
        self._offered[offer.id] = offer
        return offer

    def make_offers(self, most: int | None = None, hosts: int = 3) -> tuple[Offer, ...]:
        """Shaped offers for all that is wanted."""
        made: list[Offer] = []
        for want in self.wants.values():
            for _ in range(want.count):
                if most is not None and len(made) >= most:
                    break
                made.append(self._shape(want, hosts))
        return tuple(made)

    def _shape(self, want: Want, hosts: int) -> Offer:
        self._offers += 1
        spans = [(p, p) for p in want.fixed_ports]
        for _ in range(want.ports):
            spans.append((self._ports, self._ports))
            self._ports += 1
        host = f"host{self._offers % hosts}"
        offer = Offer(
            id=OfferId(f"O{self._offers}"),
            framework_id=FRAMEWORK,
            agent_id=AgentId(f"agent-{host}"),
            hostname=host,
            ip="10.0.0.1",
            port=4681,
            role=want.role,
            resources=normal([*want.resources, ports(*spans)]),
            want_id=want.id,
        )
        self._offered[offer.id] = offer
        return offer

    def offer(self, most: int | None = None, hosts: int = 3) -> list[TaskId]:
        """Offer what is wanted; returns the tasks that were launched on it."""
        before = len(self.launched)
        self.send(events.Offers(offers=self.make_offers(most, hosts)))
        self.settle()
        return [t.task_id for t in self.launched[before:]]

    def update(
        self,
        task_id: TaskId,
        state: TaskState,
        *,
        reason: Reason | None = None,
        message: str = "",
        at: float | None = None,
        unreachable_at: float | None = None,
        healthy: bool | None = None,
        health: tuple[CheckResult, ...] = (),
        container_status: ContainerStatus | None = None,
    ) -> None:
        if state not in ALIVE:
            self.tasks.pop(task_id, None)
        status = TaskStatus(
            container_status=container_status,
            task_id=task_id,
            state=state,
            at=self.now if at is None else at,
            source=Source.EXECUTOR,
            reason=reason,
            message=message or None,
            agent_id=self.tasks[task_id].agent_id if task_id in self.tasks else AgentId("agent-host0"),
            unreachable_at=unreachable_at,
            healthy=healthy,
            health=health,
        )
        self.send(events.Update(status=status))
        self.settle()

    def run(self, most: int | None = None) -> list[TaskId]:
        """Launch what is wanted and let it run."""
        found = self.offer(most)
        for task_id in found:
            self.update(task_id, TaskState.RUNNING)
        return found

    def bury(self) -> None:
        """Let everything that was killed die."""
        for task_id in [t for t in self.killed if t in self.tasks]:
            self.update(task_id, TaskState.KILLED)

    def work(self, turns: int = 200) -> None:
        """Go on until nothing is left to launch, to start or to bury."""
        for _ in range(turns):
            self.settle()
            starting = [
                task_id_of(i)
                for app in self.state.apps.values()
                for i in app.instances.values()
                if i.condition in ("Provisioned", "Staging", "Starting") and task_id_of(i) in self.tasks
            ]
            for task_id in starting:
                self.update(task_id, TaskState.RUNNING)
            if not self.run() and not starting and not any(t in self.tasks for t in self.killed):
                return
            self.bury()
        raise AssertionError("the cluster does not come to rest")

    # Looking.

    @property
    def state(self) -> State:
        return self.core.state

    def app(self, app_id: str = "/web") -> App:
        return self.state.apps[app_id]

    def lasting(self) -> dict[str, bytes]:
        """The records, without those that only tell what was wanted before."""
        return {key: value for key, value in self.records.items() if not key.startswith(("history/", "outcome/"))}

    def show(self, app_id: str = "/web") -> Any:
        return self.ask(GetApp(id=app_id))

    def running(self, app_id: str = "/web") -> list[Instance]:
        return [i for i in self.app(app_id).instances.values() if i.condition == "Running"]

    def task_ids(self, app_id: str = "/web") -> list[TaskId]:
        return [task_id_of(i) for i in self.app(app_id).instances.values() if i.staged_at is not None]


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    made = Cluster()
    made.subscribe()
    yield made
    made.core.invariants()


@pytest.fixture
def make_cluster() -> Any:
    return Cluster
