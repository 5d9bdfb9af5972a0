"""What the master holds in memory, and what must be true of it after every turn.

What tasks and offers hold is counted once, by the allocator, which `claims.py` tells of every change. Entries change
only through the families; the small methods here keep sums and indexes in step.
"""

from collections import Counter, deque
from collections.abc import Iterator
from enum import StrEnum
from random import Random
from typing import NamedTuple

from corral.allocator.allocator import Allocator
from corral.allocator.start import choose_mode
from corral.allocator.view import Eviction, HoldKind, Settings
from corral.master.spec import AgentRecord, GetCluster, MasterConfig, SchedulerCall
from corral.mesos.snapshot import AgentRow, ClusterSnapshot, TaskRows
from corral.model.agent import AgentInfo
from corral.model.attributes import format_value
from corral.model.calls import ReconcileTask
from corral.model.events import MasterInfo
from corral.model.framework import Capability, FrameworkInfo
from corral.model.ids import AgentId, ExecutorId, FrameworkId, InverseOfferId, OfferId, TaskId, WantId
from corral.model.ledger import Pool, Tally
from corral.model.maintenance import Answer, Drain, DrainState, InverseOffer, Machine, Unavailability, Window
from corral.model.offer import Explanation, Offer, Want
from corral.model.offer_constraints import OfferConstraints
from corral.model.operations import OperationStatus, ResourceOperation, unshared
from corral.model.resources import PLAIN, Resources
from corral.model.role import RoleSettings
from corral.model.task import TERMINAL, ExecutorInfo, Reason, Task, TaskInfo, TaskState, TaskStatus


class AgentState(StrEnum):
    REACHABLE = "reachable"
    DISCONNECTED = "disconnected"  # the link broke, the time for its return runs
    UNREACHABLE = "unreachable"  # silent for too long
    RECOVERED = "recovered"  # known from the records, not yet seen by this master


class AgentEvent(StrEnum):
    REGISTER = "register"
    LINK_BROKE = "link broke"
    TIMED_OUT = "timed out"


AGENT_STATES = {
    (AgentState.RECOVERED, AgentEvent.REGISTER): AgentState.REACHABLE,
    (AgentState.DISCONNECTED, AgentEvent.REGISTER): AgentState.REACHABLE,
    (AgentState.UNREACHABLE, AgentEvent.REGISTER): AgentState.REACHABLE,
    (AgentState.REACHABLE, AgentEvent.REGISTER): AgentState.REACHABLE,
    (AgentState.REACHABLE, AgentEvent.LINK_BROKE): AgentState.DISCONNECTED,
    (AgentState.REACHABLE, AgentEvent.TIMED_OUT): AgentState.UNREACHABLE,
    (AgentState.DISCONNECTED, AgentEvent.TIMED_OUT): AgentState.UNREACHABLE,
    (AgentState.RECOVERED, AgentEvent.TIMED_OUT): AgentState.UNREACHABLE,
}


class _Statuses(dict[TaskState, TaskStatus]):
    """The last status of each state of a task, the newest last."""

    __slots__ = ("_task",)

    def __init__(self, task: "TaskEntry", first: TaskStatus | None) -> None:
        super().__init__({} if first is None else {first.state: first})
        self._task = task

    def __setitem__(self, state: TaskState, status: TaskStatus) -> None:
        super().__setitem__(state, status)
        self._task.show()


class TaskTable(dict[TaskId, "TaskEntry"]):
    """The tasks of a framework by id.

    Shapes: `lend` gives each as views show it, as they are now: what changes later changes a copy.
    """

    __slots__ = ("_is_lent", "rows")

    def __init__(self) -> None:
        super().__init__()
        self.rows: dict[TaskId, Task] = {}
        self._is_lent = False

    def __setitem__(self, task_id: TaskId, entry: "TaskEntry") -> None:
        super().__setitem__(task_id, entry)
        entry.table = self
        self.show(entry)

    def __delitem__(self, task_id: TaskId) -> None:
        self[task_id].table = None
        super().__delitem__(task_id)
        del self._own()[task_id]

    def show(self, entry: "TaskEntry") -> None:
        """Take what is new about one of them."""
        self._own()[entry.info.task_id] = entry.shown

    def lend(self) -> TaskRows:
        self._is_lent = True
        return TaskRows(self.rows)

    def _own(self) -> dict[TaskId, Task]:
        if self._is_lent:
            self.rows = self.rows.copy()
            self._is_lent = False
        return self.rows


class TaskEntry:
    """One task as the master knows it.

    Shapes: `shown` is the task as views show it, made anew with each change, so that a view of all tasks only has to
    gather what is there; `info`, framework and role of a task never change. `state` is the newest known, `forwarded`
    the last one told to the framework; `resources` are counted by the allocator, under `key`, while `holding`. `kill`
    is the grace of a kill that was asked and not yet seen to work, None inside for the task's own; `preempted_by` tells
    for whom it has to make room, if that is why. `at` is when the master first knew of it. `orphan` tells that its
    framework has been removed or has another task of this id: only its agent still has to say that it ended.
    """

    __slots__ = (
        "_state", "agent_id", "at", "forwarded", "forwarded_uuid", "framework_id", "group", "holding", "info",
        "key", "kill", "orphan", "preempted_by", "resources", "role", "shown", "statuses", "table", "unacknowledged",
    )  # fmt: skip

    def __init__(
        self, info: TaskInfo, framework_id: FrameworkId, role: str, resources: Resources, group: str | None, at: float,
        *, state: TaskState = TaskState.STAGING, status: TaskStatus | None = None,
    ) -> None:  # fmt: skip
        self.info = info
        self.at = at
        self.framework_id = framework_id
        self.agent_id = info.agent_id
        self.role = role
        self.resources = resources
        self.group = group
        self.table: TaskTable | None = None
        self.statuses: dict[TaskState, TaskStatus] = _Statuses(self, status)
        self._state = state
        self.forwarded = state if status is None else status.state
        self.forwarded_uuid: bytes | None = None
        self.unacknowledged: tuple[TaskStatus, ...] = ()
        self.holding = False
        self.key = f"task/{framework_id}/{info.task_id}"
        self.kill: tuple[float | None] | None = None
        self.orphan = False
        self.preempted_by: Eviction | None = None
        self.show()

    @property
    def state(self) -> TaskState:
        return self._state

    @state.setter
    def state(self, state: TaskState) -> None:
        self._state = state
        self.show()

    def show(self) -> None:
        """Make what views show of it anew."""
        self.shown = Task(
            info=self.info, framework_id=self.framework_id, role=self.role, state=self._state,
            statuses=tuple(self.statuses.values()),
        )  # fmt: skip
        if self.table is not None:
            self.table.show(self)

    @property
    def last_status(self) -> TaskStatus | None:
        return next(reversed(self.statuses.values()), None)


class ExecutorEntry:
    """One executor that an agent has: it comes with its first task and holds its resources until the agent says that it
    has ended.

    Shapes: `info` as it is compared with what later tasks bring; `resources` are counted by the allocator under `key`;
    `preempted_by` is set once it has been asked to make room.
    """

    __slots__ = ("agent_id", "framework_id", "info", "key", "preempted_by", "role")

    def __init__(self, info: ExecutorInfo, framework_id: FrameworkId, agent_id: AgentId, role: str) -> None:
        self.info = info
        self.framework_id = framework_id
        self.agent_id = agent_id
        self.role = role
        self.key = f"executor/{agent_id}/{framework_id}/{info.executor_id}"
        self.preempted_by: Eviction | None = None

    @property
    def resources(self) -> Resources:
        return self.info.resources


class OfferEntry:
    """An offer that is out. Shapes: `resources` as the allocator counts them; `offer` as the framework sees it.

    `revocable` when it is of what is lent.
    """

    __slots__ = ("expires_at", "made_at", "offer", "resources", "revocable", "want")

    def __init__(
        self, offer: Offer, resources: Resources, want: "WantEntry | None", made_at: float, *, revocable: bool = False
    ) -> None:
        self.revocable = revocable
        self.offer = offer
        self.resources = resources
        self.want = want
        self.made_at = made_at
        self.expires_at: float | None = None


class InverseEntry:
    """What a framework was asked about leaving an agent. Shapes: asked again from `again_at` on, never when None.

    `out` while it has not answered.
    """

    __slots__ = ("again_at", "answer", "at", "offer", "out")

    def __init__(self, offer: InverseOffer, at: float) -> None:
        self.offer = offer
        self.at = at
        self.answer = Answer.UNKNOWN
        self.out = True
        self.again_at: float | None = None


class WantEntry:
    """A standing want. Shapes: of `remaining` instances `offered` are out in offers; `told` is it to the allocator."""

    __slots__ = ("framework_id", "offered", "remaining", "since_at", "told", "want")

    def __init__(self, want: Want, framework_id: FrameworkId, since_at: float) -> None:
        self.want = self.told = want
        self.framework_id = framework_id
        self.remaining = want.count
        self.offered = 0
        self.since_at = since_at

    @property
    def missing(self) -> int:
        return max(self.remaining - self.offered, 0)


class OperationEntry:
    """An operation that was ordered and not yet answered. Shapes: `ask` is the operator's, who waits for it; `uuid` is
    empty until it is ordered."""

    __slots__ = ("agent_id", "ask", "framework_id", "operation", "uuid")

    def __init__(
        self, operation: ResourceOperation, agent_id: AgentId, framework_id: FrameworkId | None, ask: int | None = None
    ) -> None:
        self.operation = operation
        self.agent_id = agent_id
        self.framework_id = framework_id
        self.ask = ask
        self.uuid = b""


class ToldOperation(NamedTuple):
    """An operation whose end a framework was told and has not acknowledged. Shapes: `uuid` empty when it was never
    ordered of an agent."""

    operation: ResourceOperation
    status: OperationStatus
    uuid: bytes


class FrameworkEntry:
    """One framework, connected or not, or removed and kept to look at.

    Shapes: `offered` sums up what is out in its offers. `told` are the explanations that it heard last, `explanations`
    those of the last round by want. While it `explain_due`, a round is due or under way, in which `unexplained` wants
    have to be looked at still. `operations` are the last words on operations that it has not
    acknowledged.
    """

    __slots__ = (
        "completed", "constraints", "explain_due", "explained_at", "explaining", "explanations", "fed_at", "id",
        "info", "kills", "offered", "offers", "operations", "principal", "recovered", "registered_at",
        "reregistered_at", "starves", "stream", "suppressed", "tasks", "told", "unexplained", "unreachable",
        "unregistered_at", "uses_wants",
        "waiting", "wants",
    )  # fmt: skip

    def __init__(self, info: FrameworkInfo, id: FrameworkId, now: float, most_completed: int) -> None:
        self.id = id
        self.info = info
        self.principal = info.principal
        self.stream: str | None = None
        self.recovered = False
        self.registered_at = now
        self.reregistered_at: float | None = None
        self.unregistered_at: float | None = None
        self.tasks = TaskTable()
        self.unreachable: dict[TaskId, TaskEntry] = {}
        self.completed: deque[TaskEntry] = deque(maxlen=most_completed)
        self.kills: dict[TaskId, float | None] = {}
        self.offers: dict[OfferId, OfferEntry] = {}
        self.offered = Tally()
        self.operations: dict[str, ToldOperation] = {}
        self.suppressed: set[str] = set()
        self.constraints: OfferConstraints = ()
        self.fed_at = now
        self.starves = False
        self.uses_wants = False
        self.wants: dict[WantId, WantEntry] = {}
        self.waiting: dict[WantId, WantEntry] = {}
        self.explanations: dict[WantId, Explanation] = {}
        self.told: tuple[Explanation, ...] = ()
        self.explained_at = 0.0
        self.explain_due = False
        self.explaining: dict[WantId, Explanation] = {}
        self.unexplained: list[WantId] | None = None

    @property
    def connected(self) -> bool:
        return self.stream is not None

    @property
    def partition_aware(self) -> bool:
        return self.info.can(Capability.PARTITION_AWARE)

    def settle(self, want: WantEntry) -> None:
        """Keep `waiting` in step after a want's numbers have changed; nothing for one that was stated anew since."""
        if self.wants.get(want.want.id) is not want:
            return
        if want.remaining > want.offered:
            self.waiting[want.want.id] = want
        else:
            self.waiting.pop(want.want.id, None)


class Contact:
    """When an agent was last heard and spoken to; apart from the agent, as each message changes it and no view."""

    __slots__ = ("heard_at", "spoken_at")

    def __init__(self, now: float) -> None:
        self.heard_at = now
        self.spoken_at = now


class AgentEntry:
    """One agent.

    Shapes: `tasks` holds also those that ended and wait for the framework's acknowledgement. `unavailability` is set
    while its machine is scheduled for maintenance; `in_window` once that has begun. `inverse` holds what each framework
    was asked about it, `asked` what frameworks asked about its tasks before it came back to a new master. `shown` is
    the agent as views show it, None when something about it has changed since; `counted` is the row in the sums of all
    agents.
    """

    __slots__ = (
        "asked", "attributes", "awaits_removal", "contact", "counted", "deactivated", "drain", "executors", "id",
        "in_window", "info", "inverse", "offers", "registered_at", "reregistered_at", "session", "shown", "state",
        "tasks", "unavailability", "unreachable_at",
    )  # fmt: skip

    def __init__(self, id: AgentId, info: AgentInfo, now: float, state: AgentState) -> None:
        self.id = id
        self.state = state
        self.session: str | None = None
        self.shown: AgentRow | None = None
        self.counted: AgentRow | None = None
        self.registered_at = now
        self.reregistered_at: float | None = None
        self.unreachable_at: float | None = None
        self.contact = Contact(now)
        self.tasks: dict[tuple[FrameworkId, TaskId], TaskEntry] = {}
        self.executors: dict[tuple[FrameworkId, ExecutorId], ExecutorEntry] = {}
        self.offers: dict[OfferId, OfferEntry] = {}
        self.awaits_removal = False
        self.deactivated = False
        self.drain: Drain | None = None
        self.unavailability: Unavailability | None = None
        self.in_window = False
        self.inverse: dict[FrameworkId, InverseEntry] = {}
        self.asked: dict[tuple[FrameworkId, TaskId], ReconcileTask] = {}
        self.describe(info)

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, value)
        if name not in _UNSEEN:
            super().__setattr__("shown", None)

    def describe(self, info: AgentInfo) -> None:
        self.info = info
        self.attributes = {a.name: format_value(a) for a in info.attributes}

    @property
    def ineligible(self) -> str:
        """Why the agent takes nothing new, empty when it does."""
        if self.state is not AgentState.REACHABLE:
            return str(self.state)
        if self.drain is not None:
            return self.drain.state.lower()
        if self.deactivated:
            return "deactivated"
        return "maintenance" if self.in_window else ""

    @property
    def draining(self) -> bool:
        return self.drain is not None and self.drain.state is DrainState.DRAINING

    def record(self) -> AgentRecord:
        """All of it that a new master must know."""
        return AgentRecord(
            info=self.info, unreachable_at=self.unreachable_at, deactivated=self.deactivated, drain=self.drain
        )  # fmt: skip

    def move(self, event: AgentEvent) -> bool:
        """Take the transition; False when there is none from this state."""
        found = AGENT_STATES.get((self.state, event))
        if found is None:
            return False
        self.state = found
        return True


_UNSEEN = frozenset({"asked", "shown", "counted", "contact", "session"})
"""What of an agent no view shows."""


class SessionEntry:
    """An agent's link. Shapes: `agent_id` None until its first report."""

    __slots__ = ("agent_id", "peer")

    def __init__(self, peer: str) -> None:
        self.peer = peer
        self.agent_id: AgentId | None = None


class Lane:
    """The calls of one principal, or of all without a rate of their own. Shapes: `waiting` as asked, oldest first."""

    __slots__ = ("next_at", "waiting")

    def __init__(self) -> None:
        self.next_at = 0.0
        self.waiting: deque[tuple[int, SchedulerCall]] = deque()


class News(NamedTuple):
    """What those who follow the cluster are to be told of.

    Shapes: `about` is what the kind is about, as it is when the input has been decided; `status` of task updates alone.
    """

    kind: str
    about: "TaskEntry | AgentEntry | FrameworkEntry"
    status: TaskStatus | None = None


class MasterState:
    """Shapes: `offered` sums up by role what is out in offers. `roles` are those of which an operator has set
    something; `reserved` are the scalars that agents keep for each role and the roles below it, in thousandths; `mixed`
    are the agents that have more than plain resources; `waiting` are the wants that the last whole allocation left
    waiting; `watchers` are the streams of those who follow what happens, and `news` what they are yet to be told of the
    input at hand. Errors: `Unavailable` when the engine shall be compiled and cannot be.
    """

    __slots__ = (
        "agents", "allocation_due", "allocation_due_at", "allocation_runs", "allocator", "completed", "config",
        "constrained", "counts", "down", "draining", "ended", "epoch", "executors", "expiries", "explain_due_at",
        "filter_heap", "filters_due_at", "frameworks", "gone", "gone_offers", "inverse_offers", "lanes", "live",
        "loaded_at", "machines", "maintenance_due_at", "master_id", "mixed", "most_filter_ends", "news",
        "next_removal_at", "offered", "offers", "offers_due_at", "operations", "random", "removed_ids", "reserved",
        "roles", "sequence", "sessions", "shown", "streams", "sums", "to_review", "waiting", "watchers", "windows",
    )  # fmt: skip

    def __init__(self, config: MasterConfig, random: Random) -> None:
        self.config = config
        self.random = random
        settings = Settings(headroom=config.headroom, evictions_per_minute=config.evictions_per_minute)
        self.allocator = Allocator(settings, choose_mode(config.compiled))
        self.master_id = ""
        self.epoch = 0
        self.loaded_at = 0.0
        self.sequence: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self.agents: dict[AgentId, AgentEntry] = {}
        self.sessions: dict[str, SessionEntry] = {}
        self.frameworks: dict[FrameworkId, FrameworkEntry] = {}
        self.streams: dict[str, FrameworkId] = {}
        self.completed: dict[FrameworkId, FrameworkEntry] = {}
        self.removed_ids: dict[FrameworkId, None] = {}
        self.roles: dict[str, RoleSettings] = {}
        self.reserved: dict[str, Counter[str]] = {}
        self.offers: dict[OfferId, OfferEntry] = {}
        self.operations: dict[bytes, OperationEntry] = {}
        self.gone_offers: dict[OfferId, tuple[str, Reason]] = {}
        self.expiries: list[tuple[float, OfferId]] = []
        self.filter_heap: list[tuple[float, FrameworkId, str, AgentId]] = []
        self.most_filter_ends = 4096
        self.live: Counter[TaskState] = Counter()
        self.ended: Counter[TaskState] = Counter()
        self.offered: dict[str, Tally] = {}
        self.shown: dict[GetCluster, ClusterSnapshot] = {}
        self.sums: Counter[tuple[str, str]] = Counter()
        self.watchers: dict[str, None] = {}
        self.news: list[News] = []
        self.allocation_due = False
        self.allocation_due_at: float | None = None
        self.allocation_runs = 0
        self.waiting: tuple[tuple[FrameworkId, WantId], ...] = ()
        self.explain_due_at: float | None = None
        self.gone: dict[AgentId, float] = {}
        self.draining: dict[AgentId, None] = {}
        self.windows: tuple[Window, ...] = ()
        self.machines: dict[Machine, Unavailability] = {}
        self.down: dict[Machine, None] = {}
        self.executors: dict[str, ExecutorEntry] = {}
        self.mixed: dict[AgentId, AgentEntry] = {}
        self.inverse_offers: dict[InverseOfferId, AgentId] = {}
        self.to_review: dict[AgentId, None] = {}
        self.maintenance_due_at: float | None = None
        self.next_removal_at = 0.0
        self.lanes: dict[str, Lane] = {}
        self.constrained: dict[FrameworkId, OfferConstraints] = {}
        self.offers_due_at: float | None = None
        self.filters_due_at: float | None = None

    def is_remote(self, info: AgentInfo) -> bool:
        """Whether an agent stands in another region than the master."""
        home = self.config.domain
        return home is not None and info.domain is not None and info.domain.region != home.region

    def find_machine(self, info: AgentInfo) -> Machine | None:
        """The machine of the maintenance schedule that an agent is on."""
        if not self.machines:
            return None
        name = info.hostname.lower()
        said = (Machine(hostname=name, ip=info.ip), Machine(hostname=name), Machine(ip=info.ip))
        return next((one for one in said if one in self.machines), None)

    def number(self, kind: str) -> int:
        """The next number of its kind, from 0; ids made with it are unique because the master's own id is new."""
        found = self.sequence[kind]
        self.sequence[kind] = found + 1
        return found

    @property
    def master_info(self) -> MasterInfo:
        c = self.config
        return MasterInfo(
            id=self.master_id, hostname=c.hostname, ip=c.ip, port=c.port, version=c.version, domain=c.domain
        )

    @property
    def weights(self) -> dict[str, float]:
        """The weights that are not 1."""
        return {role: settings.weight for role, settings in self.roles.items() if settings.weight != 1.0}

    def owner(self, entry: TaskEntry) -> FrameworkEntry | None:
        """The framework that a task belongs to; None when it has none any more."""
        return None if entry.orphan else self.frameworks[entry.framework_id]

    def remember_gone(self, offer_id: OfferId, why: str, reason: Reason = Reason.INVALID_OFFERS) -> None:
        """Keep for a while why an offer is no more, so that a late ACCEPT learns it."""
        self.gone_offers[offer_id] = (why, reason)
        if len(self.gone_offers) > 4096:
            del self.gone_offers[next(iter(self.gone_offers))]

    def count(self, agent: AgentEntry, row: AgentRow | None) -> None:
        """Let the sums of all agents count an agent as this row shows it; None for one that is no more."""
        for sign, each in ((-1, agent.counted), (1, row)):
            if each is not None and each.connected:
                for kind, resources in (("total", each.info.resources), ("used", each.used)):
                    for r in resources:
                        if r.milli:
                            name = f"{r.name}_revocable" if r.identity.revocable else r.name
                            self.sums[kind, name] += sign * r.milli
        agent.counted = row

    def connected_frameworks(self) -> Iterator[FrameworkEntry]:
        return (f for f in self.frameworks.values() if f.stream is not None)

    # Laws.

    def invariants(self) -> None:
        """Assert that nothing is counted twice, lost or left pointing at what has gone."""
        self._check_offers()
        self._check_agents()
        self._check_frameworks()
        self._check_holds()
        mixed = {a.id for a in self.agents.values() if any(r.identity != PLAIN for r in a.info.resources)}
        assert mixed == set(self.mixed), f"agents {mixed} have more than plain resources, noted are {set(self.mixed)}"
        there = {e.key: e for agent in self.agents.values() for e in agent.executors.values()}
        assert there == self.executors, f"agents have the executors {list(there)}, known are {list(self.executors)}"

    def _check_offers(self) -> None:
        for offer_id, entry in self.offers.items():
            offer = entry.offer
            framework = self.frameworks.get(offer.framework_id)
            assert framework is not None, f"offer {offer_id} of an unknown framework"
            assert framework.connected, f"offer {offer_id} of a framework that does not listen"
            assert framework.offers.get(offer_id) is entry, f"offer {offer_id} is not with its framework"
            assert self.agents[offer.agent_id].offers.get(offer_id) is entry, f"offer {offer_id} is not with its agent"
            why = self.agents[offer.agent_id].ineligible
            assert why in ("", "maintenance"), f"offer {offer_id} of an agent that is {why}"
        offered: dict[str, Tally] = {}
        for entry in self.offers.values():
            offered.setdefault(entry.offer.role, Tally()).add(entry.resources)
        sums = {role: tally.bundle() for role, tally in self.offered.items() if tally.bundle()}
        assert sums == {role: tally.bundle() for role, tally in offered.items()}, "offers do not add up by role"
        for framework in self.frameworks.values():
            found = Tally()
            for entry in framework.offers.values():
                found.add(entry.resources)
            assert found.bundle() == framework.offered.bundle(), f"offers of {framework.id} do not add up"
        held = sum(len(f.offers) for f in self.frameworks.values()), sum(len(a.offers) for a in self.agents.values())
        assert held == (len(self.offers), len(self.offers)), "offers are held that the master does not know"

    def _check_agents(self) -> None:
        kept: dict[AgentId, list[Resources]] = {}
        for hold in self.allocator.kept():
            kept.setdefault(hold.agent_id, []).append(hold.resources)
        assert set(self.allocator.book.agents) == set(self.agents), "the allocator knows other agents"
        for agent in self.agents.values():
            assert (agent.state is AgentState.REACHABLE) == (agent.session is not None), (
                f"agent {agent.id} and its link"
            )
            view = self.allocator.book.agents[agent.id].view
            assert view.ineligible == agent.ineligible, f"agent {agent.id} open"
            assert (agent.id in self.draining) == agent.draining, f"agent {agent.id} drains"
            assert agent.id not in self.gone, f"agent {agent.id} is gone and here"
            for framework_id, asked in agent.inverse.items():
                here = self.inverse_offers.get(asked.offer.id) == agent.id
                assert here == asked.out, f"inverse offer {asked.offer.id} to {framework_id}"
            assert view.total == agent.info.resources, f"agent {agent.id} is not as the allocator was told"
            if agent.state in (AgentState.UNREACHABLE, AgentState.RECOVERED):
                assert not agent.tasks, f"agent {agent.id} is {agent.state} but has tasks"
                assert not agent.executors, f"agent {agent.id} is {agent.state} but has executors"
                continue
            total = Pool()
            total.add(self.allocator.book.agents[agent.id].free())
            for task in agent.tasks.values():
                assert not (task.holding and task.state in TERMINAL and not task.orphan), f"{task.info.task_id} holds"
                if task.holding:
                    total.add(unshared(task.resources))
            for executor in agent.executors.values():
                total.add(unshared(executor.resources))
            for offer in agent.offers.values():
                total.add(unshared(offer.resources))
            for resources in kept.get(agent.id, ()):
                total.add(resources)
            assert total.bundle() == agent.info.resources, f"agent {agent.id} does not add up to its resources"
        sums: Counter[tuple[str, str]] = Counter()
        for agent in self.agents.values():
            row = agent.counted
            if row is not None and row.connected:
                for r in row.info.resources:
                    if r.milli and not r.identity.revocable:
                        sums["total", r.name] += r.milli
        found = {key: n for key, n in self.sums.items() if n and key[0] == "total" and key in sums}
        assert found == dict(sums), f"agents have {dict(sums)} and are counted as {found}"
        for session, entry in self.sessions.items():
            assert entry.agent_id is None or self.agents[entry.agent_id].session == session, f"session {session}"

    def _check_frameworks(self) -> None:
        live: Counter[TaskState] = Counter()
        for framework in self.frameworks.values():
            assert framework.stream is None or self.streams[framework.stream] == framework.id, "stream of nobody"
            assert (framework.id in self.allocator.frameworks) == framework.connected, f"{framework.id} asks"
            for task_id, task in framework.tasks.items():
                live[task.state] += 1
                told = task.shown.state, task.shown.statuses, task.shown.info
                assert framework.tasks.rows[task_id] is task.shown, f"{task_id} is gathered as it was"
                assert told == (task.state, tuple(task.statuses.values()), task.info), f"{task_id} is shown as it was"
                agent = self.agents.get(task.agent_id)
                assert agent is not None, f"task {task_id} has no agent"
                assert agent.tasks.get((framework.id, task_id)) is task, f"task {task_id} is not with its agent"
            assert len(framework.tasks.rows) == len(framework.tasks), f"tasks are shown that {framework.id} has not"
            for want in framework.wants.values():
                assert want.offered == sum(1 for o in framework.offers.values() if o.want is want), "want miscounted"
                assert (want.want.id in framework.waiting) == (want.missing > 0), "waiting wants are out of step"
                line = self.allocator.lines.get(framework.id, want.want.id)
                assert line is not None, f"want {want.want.id} stands in no line"
                assert (line.view.want, line.view.missing) == (want.told, want.missing), f"want {want.want.id} differs"
            assert len(framework.wants) == len(self.allocator.lines.of(framework.id)), "a line of a want that has gone"
        assert len(self.streams) == sum(1 for _ in self.connected_frameworks()), "a stream without framework"
        assert +self.live == live, f"live tasks are counted as {self.live}, found {live}"
        for agent in self.agents.values():
            for (framework_id, task_id), task in agent.tasks.items():
                known = self.frameworks.get(framework_id)
                assert task.orphan or (known is not None and known.tasks.get(task_id) is task), f"{task_id} is unowned"

    def _check_holds(self) -> None:
        """The allocator holds what tasks and offers have and what it keeps itself, each as it is, and nothing else."""
        wanted: dict[str, tuple[str, FrameworkId, AgentId, Resources, HoldKind]] = {}
        for agent in self.agents.values():
            for task in agent.tasks.values():
                if task.holding:
                    assert task.key not in wanted, f"two tasks hold as {task.key}"
                    wanted[task.key] = task.role, task.framework_id, agent.id, task.resources, HoldKind.TASK
            for key, one in agent.executors.items():
                assert key == (one.framework_id, one.info.executor_id), f"executor {key}"
                if one.resources:
                    wanted[one.key] = one.role, one.framework_id, agent.id, one.resources, HoldKind.TASK
        for id, entry in self.offers.items():
            offer, kind = entry.offer, HoldKind.SHAPED if entry.want is not None else HoldKind.OFFER
            wanted[f"offer/{id}"] = offer.role, offer.framework_id, offer.agent_id, entry.resources, kind
        kept = {hold.key for hold in self.allocator.kept()}
        found = {
            key: (e.hold.role, e.hold.framework_id, e.hold.agent_id, e.hold.resources, e.hold.kind)
            for key, e in self.allocator.book.holds.items()
            if key not in kept
        }
        assert found == wanted, "the allocator holds something else than tasks and offers"
