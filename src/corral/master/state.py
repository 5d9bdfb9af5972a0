"""What the master holds in memory, and what must be true of it after every turn.

What tasks and offers hold is counted once, by the allocator, which `claims.py` tells of every change. Entries change
only through the families; the small methods here keep sums and indexes in step.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from random import Random
from typing import NamedTuple

from corral.allocator.allocator import Allocator
from corral.allocator.start import choose_mode
from corral.allocator.view import HoldKind, Settings
from corral.lib.timings import Timings
from corral.master.agent_entry import AgentEntry, AgentState, AgentTable, SessionEntry
from corral.master.entries import ExecutorEntry, FrameworkEntry, Lane, OfferEntry, OperationEntry, TaskEntry
from corral.master.spec import GetCluster, MasterConfig
from corral.mesos.snapshot import AgentRow, ClusterSnapshot
from corral.model.agent import AgentInfo
from corral.model.events import MasterInfo
from corral.model.ids import AgentId, FrameworkId, InverseOfferId, OfferId, WantId
from corral.model.ledger import Pool, Tally
from corral.model.maintenance import Machine, Unavailability, Window
from corral.model.offer_constraints import OfferConstraints
from corral.model.operations import unshared
from corral.model.resources import PLAIN, Resources
from corral.model.role import RoleSettings
from corral.model.task import TERMINAL, Reason, TaskState, TaskStatus


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
    input at hand. `stopwatch` is read for `allocation_ms` alone, which is shown and decides nothing.
    Errors: `Unavailable` when the engine shall be compiled and cannot be.
    """

    __slots__ = (
        "agents", "allocation_due", "allocation_due_at", "allocation_ms", "allocation_runs", "allocator", "completed",
        "config", "constrained", "counts", "down", "draining", "ended", "epoch", "executors", "expiries",
        "explain_due_at", "filter_heap", "filters_due_at", "frameworks", "gone", "gone_offers", "inverse_offers",
        "lanes", "live", "loaded_at", "machines", "maintenance_due_at", "master_id", "mixed", "most_filter_ends",
        "news", "next_removal_at", "offered", "offers", "offers_due_at", "operations", "random", "removed_ids",
        "reserved", "roles", "sequence", "sessions", "shown", "stopwatch", "streams", "sums", "to_review", "waiting",
        "watchers", "windows",
    )  # fmt: skip

    def __init__(self, config: MasterConfig, random: Random, stopwatch: Callable[[], float] | None = None) -> None:
        self.config = config
        self.random = random
        settings = Settings(headroom=config.headroom, evictions_per_minute=config.evictions_per_minute)
        self.allocator = Allocator(settings, choose_mode(config.compiled))
        self.master_id = ""
        self.epoch = 0
        self.loaded_at = 0.0
        self.sequence: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self.agents = AgentTable()
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
        self.allocation_ms = Timings()
        self.stopwatch = stopwatch
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
        self.agents.invariants()
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
