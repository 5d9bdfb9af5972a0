"""What the master holds in memory, and what must be true of it after every turn.

Resources are counted once, by `Pool`s: an agent's `free` is what neither tasks nor offers hold, and a role is charged
for both. Entries change only through the families; the small methods here keep sums and indexes in step.
"""

from collections import Counter, deque
from collections.abc import Iterator
from enum import StrEnum
from random import Random

from corral.allocator.view import AgentView, Filter, HeldOffer
from corral.master.spec import MasterConfig
from corral.mesos.snapshot import ClusterSnapshot
from corral.model.agent import AgentInfo
from corral.model.attributes import format_value
from corral.model.events import MasterInfo
from corral.model.framework import Capability, FrameworkInfo
from corral.model.ids import AgentId, FrameworkId, OfferId, TaskId, WantId
from corral.model.ledger import Pool, Tally
from corral.model.offer import Explanation, Offer, Want
from corral.model.resources import Resources
from corral.model.role import RoleSettings
from corral.model.task import TERMINAL, Reason, TaskInfo, TaskState, TaskStatus


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


class TaskEntry:
    """One task as the master knows it.

    Shapes: `state` is the newest known, `forwarded` the last one told to the framework; `resources` are counted while
    `holding`. `kill` is the grace of a kill that was asked and not yet seen to work, None inside for the task's own.
    `at` is when the master first knew of it. `orphan` tells that its framework has been removed or has another task of
    this id: only its agent still has to say that it ended.
    """

    __slots__ = (
        "agent_id", "at", "forwarded", "forwarded_uuid", "framework_id", "group", "holding", "info", "kill", "orphan",
        "pending", "resources", "role", "state", "statuses",
    )  # fmt: skip

    def __init__(
        self, info: TaskInfo, framework_id: FrameworkId, role: str, resources: Resources, group: str | None, at: float
    ) -> None:
        self.info = info
        self.at = at
        self.framework_id = framework_id
        self.agent_id = info.agent_id
        self.role = role
        self.resources = resources
        self.group = group
        self.state = TaskState.STAGING
        self.forwarded = TaskState.STAGING
        self.forwarded_uuid: bytes | None = None
        self.pending: TaskStatus | None = None
        self.statuses: dict[TaskState, TaskStatus] = {}
        self.holding = False
        self.kill: tuple[float | None] | None = None
        self.orphan = False

    @property
    def last_status(self) -> TaskStatus | None:
        return next(reversed(self.statuses.values()), None)


class OfferEntry:
    """An offer that is out. Shapes: `resources` as pools count them; `offer` as the framework sees it."""

    __slots__ = ("expires_at", "made_at", "offer", "resources", "want")

    def __init__(self, offer: Offer, resources: Resources, want: "WantEntry | None", made_at: float) -> None:
        self.offer = offer
        self.resources = resources
        self.want = want
        self.made_at = made_at
        self.expires_at: float | None = None


class WantEntry:
    """A standing want. Shapes: of `remaining` instances `offered` are out in offers."""

    __slots__ = ("framework_id", "offered", "remaining", "since_at", "want")

    def __init__(self, want: Want, framework_id: FrameworkId, since_at: float) -> None:
        self.want = want
        self.framework_id = framework_id
        self.remaining = want.count
        self.offered = 0
        self.since_at = since_at

    @property
    def missing(self) -> int:
        return max(self.remaining - self.offered, 0)


class Group:
    """Where the siblings of one group are, in the order they were placed; offers count until they are answered."""

    __slots__ = ("_agents", "_listed")

    def __init__(self) -> None:
        self._agents: dict[tuple[str, str], AgentId] = {}
        self._listed: list[AgentId] | None = []

    def add(self, kind: str, id: str, agent_id: AgentId) -> None:
        self._agents[kind, id] = agent_id
        if self._listed is not None:
            self._listed.append(agent_id)

    def remove(self, kind: str, id: str) -> None:
        if self._agents.pop((kind, id), None) is not None:
            self._listed = None

    def agents(self) -> list[AgentId]:
        if self._listed is None:
            self._listed = list(self._agents.values())
        return self._listed

    def __len__(self) -> int:
        return len(self._agents)


class FrameworkEntry:
    """One framework, connected or not, or removed and kept to look at."""

    __slots__ = (
        "completed", "explain_due", "explained_at", "explanations", "filters", "groups", "id", "info", "kills",
        "offers", "principal", "recovered", "registered_at", "reregistered_at", "stream", "suppressed", "tasks",
        "told", "unreachable", "unregistered_at", "uses_wants", "waiting", "wants",
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
        self.tasks: dict[TaskId, TaskEntry] = {}
        self.unreachable: dict[TaskId, TaskEntry] = {}
        self.completed: deque[TaskEntry] = deque(maxlen=most_completed)
        self.kills: dict[TaskId, float | None] = {}
        self.offers: dict[OfferId, OfferEntry] = {}
        self.suppressed: set[str] = set()
        self.filters: dict[tuple[str, AgentId], list[Filter]] = {}
        self.groups: dict[str, Group] = {}
        self.uses_wants = False
        self.wants: dict[WantId, WantEntry] = {}
        self.waiting: dict[WantId, WantEntry] = {}
        self.explanations: dict[WantId, Explanation] = {}
        self.told: tuple[Explanation, ...] = ()
        self.explained_at = 0.0
        self.explain_due = False

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

    def group(self, name: str) -> Group:
        found = self.groups.get(name)
        if found is None:
            found = self.groups[name] = Group()
        return found

    def leave_group(self, name: str, kind: str, id: str) -> None:
        found = self.groups.get(name)
        if found is not None:
            found.remove(kind, id)
            if not found:
                del self.groups[name]


class AgentEntry:
    """One agent. Shapes: `tasks` holds also those that ended and wait for the framework's acknowledgement."""

    __slots__ = (
        "attributes", "free", "heard_at", "id", "info", "offers", "registered_at", "reregistered_at", "session",
        "spoken_at", "state", "tasks", "unreachable_at",
    )  # fmt: skip

    def __init__(self, id: AgentId, info: AgentInfo, now: float, state: AgentState) -> None:
        self.id = id
        self.state = state
        self.session: str | None = None
        self.registered_at = now
        self.reregistered_at: float | None = None
        self.unreachable_at: float | None = None
        self.heard_at = now
        self.spoken_at = now
        self.tasks: dict[tuple[FrameworkId, TaskId], TaskEntry] = {}
        self.offers: dict[OfferId, OfferEntry] = {}
        self.describe(info)
        self.free = Pool()

    def describe(self, info: AgentInfo) -> None:
        self.info = info
        self.attributes = {a.name: format_value(a) for a in info.attributes}

    def move(self, event: AgentEvent) -> bool:
        """Take the transition; False when there is none from this state."""
        found = AGENT_STATES.get((self.state, event))
        if found is None:
            return False
        self.state = found
        return True


class SessionEntry:
    """An agent's link. Shapes: `agent_id` None until its first report."""

    __slots__ = ("agent_id", "peer")

    def __init__(self, peer: str) -> None:
        self.peer = peer
        self.agent_id: AgentId | None = None


class MasterState:
    """Shapes: `roles` are those of which an operator has set something, `roles_changed` their names and those of roles
    forgotten since the allocator was last told.
    """

    __slots__ = (
        "agents", "agents_changed", "allocated", "allocated_by", "allocation_due", "allocation_runs", "coarse",
        "completed", "config", "counts", "ended", "epoch", "expiries", "explain_due", "filter_heap", "filters_due_at",
        "frameworks", "gone_offers", "live", "loaded_at", "master_id", "most_filter_ends", "offers", "offers_due_at",
        "random", "removed_ids", "roles", "roles_changed", "sequence", "sessions", "shown", "streams", "views",
    )  # fmt: skip

    def __init__(self, config: MasterConfig, random: Random) -> None:
        self.config = config
        self.random = random
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
        self.roles_changed: set[str] = set()
        self.offers: dict[OfferId, OfferEntry] = {}
        self.coarse: dict[OfferId, HeldOffer] = {}
        self.gone_offers: dict[OfferId, tuple[str, Reason]] = {}
        self.expiries: list[tuple[float, OfferId]] = []
        self.filter_heap: list[tuple[float, FrameworkId, str, AgentId]] = []
        self.most_filter_ends = 4096
        self.allocated: dict[str, Tally] = {}
        self.allocated_by: dict[tuple[str, FrameworkId], Tally] = {}
        self.live: Counter[TaskState] = Counter()
        self.ended: Counter[TaskState] = Counter()
        self.views: dict[AgentId, AgentView] = {}
        self.agents_changed: set[AgentId] = set()
        self.shown: dict[bool, ClusterSnapshot] = {}
        self.allocation_due = False
        self.allocation_runs = 0
        self.explain_due = False
        self.offers_due_at: float | None = None
        self.filters_due_at: float | None = None

    def number(self, kind: str) -> int:
        """The next number of its kind, from 0; ids made with it are unique because the master's own id is new."""
        found = self.sequence[kind]
        self.sequence[kind] = found + 1
        return found

    @property
    def master_info(self) -> MasterInfo:
        c = self.config
        return MasterInfo(id=self.master_id, hostname=c.hostname, ip=c.ip, port=c.port, version=c.version)

    @property
    def weights(self) -> dict[str, float]:
        """The weights that are not 1."""
        return {role: settings.weight for role, settings in self.roles.items() if settings.weight != 1.0}

    # Accounting.

    def charge(self, role: str, framework_id: FrameworkId, resources: Resources) -> None:
        """Count what an offer or a task holds against its role and framework."""
        for tally in self._tallies(role, framework_id):
            tally.add(resources)

    def discharge(self, role: str, framework_id: FrameworkId, resources: Resources) -> None:
        for tally in self._tallies(role, framework_id):
            tally.take(resources)

    def _tallies(self, role: str, framework_id: FrameworkId) -> tuple[Tally, Tally]:
        of_role = self.allocated.get(role)
        if of_role is None:
            of_role = self.allocated[role] = Tally()
        of_framework = self.allocated_by.get((role, framework_id))
        if of_framework is None:
            of_framework = self.allocated_by[role, framework_id] = Tally()
        return of_role, of_framework

    def owner(self, entry: TaskEntry) -> FrameworkEntry | None:
        """The framework that a task belongs to; None when it has none any more."""
        return None if entry.orphan else self.frameworks[entry.framework_id]

    def remember_gone(self, offer_id: OfferId, why: str, reason: Reason = Reason.INVALID_OFFERS) -> None:
        """Keep for a while why an offer is no more, so that a late ACCEPT learns it."""
        self.gone_offers[offer_id] = (why, reason)
        if len(self.gone_offers) > 4096:
            del self.gone_offers[next(iter(self.gone_offers))]

    def connected_frameworks(self) -> Iterator[FrameworkEntry]:
        return (f for f in self.frameworks.values() if f.stream is not None)

    # Laws.

    def invariants(self) -> None:
        """Assert that nothing is counted twice, lost or left pointing at what has gone."""
        self._check_offers()
        self._check_agents()
        self._check_frameworks()
        self._check_roles()

    def _check_offers(self) -> None:
        for offer_id, entry in self.offers.items():
            offer = entry.offer
            framework = self.frameworks.get(offer.framework_id)
            assert framework is not None, f"offer {offer_id} of an unknown framework"
            assert framework.connected, f"offer {offer_id} of a framework that does not listen"
            assert framework.offers.get(offer_id) is entry, f"offer {offer_id} is not with its framework"
            assert self.agents[offer.agent_id].offers.get(offer_id) is entry, f"offer {offer_id} is not with its agent"
            assert self.agents[offer.agent_id].state is AgentState.REACHABLE, f"offer {offer_id} of a silent agent"
            assert (offer_id in self.coarse) == (entry.want is None), f"offer {offer_id} is coarse and shaped"
        held = sum(len(f.offers) for f in self.frameworks.values()), sum(len(a.offers) for a in self.agents.values())
        assert held == (len(self.offers), len(self.offers)), "offers are held that the master does not know"

    def _check_agents(self) -> None:
        for agent in self.agents.values():
            assert (agent.state is AgentState.REACHABLE) == (agent.session is not None), (
                f"agent {agent.id} and its link"
            )
            if agent.state in (AgentState.UNREACHABLE, AgentState.RECOVERED):
                assert not agent.tasks, f"agent {agent.id} is {agent.state} but has tasks"
                continue
            total = Pool()
            total.add(agent.free.bundle())
            for task in agent.tasks.values():
                assert not (task.holding and task.state in TERMINAL and not task.orphan), f"{task.info.task_id} holds"
                if task.holding:
                    total.add(task.resources)
            for offer in agent.offers.values():
                total.add(offer.resources)
            assert total.bundle() == agent.info.resources, f"agent {agent.id} does not add up to its resources"
        for session, entry in self.sessions.items():
            assert entry.agent_id is None or self.agents[entry.agent_id].session == session, f"session {session}"

    def _check_frameworks(self) -> None:
        live: Counter[TaskState] = Counter()
        for framework in self.frameworks.values():
            assert framework.stream is None or self.streams[framework.stream] == framework.id, "stream of nobody"
            for task_id, task in framework.tasks.items():
                live[task.state] += 1
                agent = self.agents.get(task.agent_id)
                assert agent is not None, f"task {task_id} has no agent"
                assert agent.tasks.get((framework.id, task_id)) is task, f"task {task_id} is not with its agent"
            for want in framework.wants.values():
                assert want.offered == sum(1 for o in framework.offers.values() if o.want is want), "want miscounted"
                assert (want.want.id in framework.waiting) == (want.missing > 0), "waiting wants are out of step"
        assert len(self.streams) == sum(1 for _ in self.connected_frameworks()), "a stream without framework"
        assert +self.live == live, f"live tasks are counted as {self.live}, found {live}"
        for agent in self.agents.values():
            for (framework_id, task_id), task in agent.tasks.items():
                known = self.frameworks.get(framework_id)
                assert task.orphan or (known is not None and known.tasks.get(task_id) is task), f"{task_id} is unowned"

    def _check_roles(self) -> None:
        roles: dict[tuple[str, FrameworkId], Tally] = {}
        for agent in self.agents.values():
            for task in agent.tasks.values():
                if task.holding:
                    roles.setdefault((task.role, task.framework_id), Tally()).add(task.resources)
        for entry in self.offers.values():
            roles.setdefault((entry.offer.role, entry.offer.framework_id), Tally()).add(entry.resources)
        for key, tally in self.allocated_by.items():
            found = roles[key].bundle() if key in roles else ()
            assert tally.bundle() == found, f"role and framework {key} do not add up"
        for role, tally in self.allocated.items():
            both = Tally()
            for (name, _), of_framework in self.allocated_by.items():
                if name == role:
                    both.add(of_framework.bundle())
            assert tally.bundle() == both.bundle(), f"role {role} does not add up"
