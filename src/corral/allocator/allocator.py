"""Who gets what: the one allocator behind the live master, the simulator and every what-if question.

It is told what comes and goes, and decides when it is run: wants first in fair order, then coarse offers of the rest.
Deterministic: equal calls give equal decisions, down to the ports, with and without the compiled engine. Source:
section 4 of the design, and 17 of the Mesos contract.
"""

from collections.abc import Iterable, Sequence

import msgspec

from corral.allocator.book import Book
from corral.allocator.bundles import GPUS, PORTS, amounts_of, plain
from corral.allocator.coarse import offer_rest
from corral.allocator.demands import check_want, group_of, mark
from corral.allocator.engine import Engine, Mode, Placements, Tuning
from corral.allocator.entries import AgentEntry, HoldEntry, devices_of
from corral.allocator.explain import explain
from corral.allocator.filters import Filters
from corral.allocator.gangs import SLOT, Gangs
from corral.allocator.gpus import GpuChooser
from corral.allocator.history import History
from corral.allocator.lines import Claimants, Key, Line, Lines
from corral.allocator.ports import choose_ports, start_offset
from corral.allocator.preempt import KEPT, Evictor
from corral.allocator.reclaim import reclaim, reclaim_kept
from corral.allocator.rescind import recall
from corral.allocator.roster import Roster
from corral.allocator.view import (
    AgentView,
    Allocation,
    Eviction,
    Filter,
    FrameworkView,
    Grant,
    Hold,
    HoldKind,
    Settings,
    View,
    WantView,
)
from corral.lib.errors import NotFound
from corral.model.ids import AgentId, FrameworkId, OfferId, WantId
from corral.model.offer import Explanation
from corral.model.resources import Resources, all_ranges, count_range, cut_ranges, normal, ports, subtract
from corral.model.role import RoleSettings

BASIC = ("cpus", "mem", "disk", GPUS, PORTS)
"""The resources that every allocator knows; others are learned from agents, roles and wants."""

GRANTED = "grant"
"""What the keys of grants begin with."""

OWN_KEYS = (KEPT, SLOT)
"""What the keys of holds begin with that no grant has named yet."""


class Allocator:
    """Shapes: agents, frameworks, wants and holds are known by their ids; roles by their names."""

    def __init__(
        self,
        settings: Settings = Settings(),  # noqa: B008 - a constant
        mode: Mode = Mode.PLAIN,
        tuning: Tuning = Tuning(),  # noqa: B008
    ) -> None:
        self.settings = settings
        self.mode = mode
        self._tuning = tuning
        self._names: tuple[str, ...] = BASIC
        self._roles: dict[str, RoleSettings] = {}
        self._frameworks: dict[FrameworkId, FrameworkView] = {}
        self._filters = Filters()
        self._grants = 0
        self._evictor = Evictor(settings)
        self._gangs = Gangs()
        self._history = History()
        self._gpus = GpuChooser()
        self.rescinding: dict[Key, tuple[AgentId, ...]] = {}
        self._build()

    @classmethod
    def of(cls, view: View, mode: Mode = Mode.PLAIN) -> "Allocator":
        """An allocator that knows all that a view describes."""
        found = cls(view.settings, mode)
        found.learn(name for agent in view.agents for name in amounts_of(agent.total))
        for name, role in view.roles.items():
            found.set_role(name, role)
        for agent in view.agents:
            found.set_agent(agent)
        for framework in view.frameworks:
            found.set_framework(framework)
        for hold in view.holds:
            found.hold(hold)
            name, _, number = hold.key.partition("/")
            if name == GRANTED and number.isdigit():
                found._grants = max(found._grants, int(number))
        for want in view.wants:
            found.set_want(want)
        for each in view.filters:
            same = [
                f
                for f in view.filters
                if (f.framework_id, f.role, f.agent_id) == (each.framework_id, each.role, each.agent_id)
            ]
            found.set_filters(each.framework_id, each.role, each.agent_id, same)
        if view.usual:
            found._gpus.usual = view.usual
        return found

    def view(self, seed: int = 0) -> View:
        """All that this allocator was told and has granted, in words; what it keeps for wants it would keep again."""
        return View(
            agents=tuple(entry.view for entry in self._book.agents.values()),
            roles=dict(self._roles),
            frameworks=tuple(self._frameworks.values()),
            wants=tuple(line.view for line in self._lines),
            holds=tuple(each.hold for key, each in self._book.holds.items() if not key.startswith(OWN_KEYS)),
            filters=tuple(self._filters),
            settings=self.settings,
            seed=seed,
            usual=self._gpus.usual,
        )

    # What it is told.

    def use(self, mode: Mode) -> None:
        """Go on with another form of the engine; decisions are equal. Errors: `Unavailable` without Numba."""
        self._engine.use(mode)
        self.mode = mode

    def set_settings(self, settings: Settings) -> None:
        """Take what operators decided anew for the whole cluster."""
        self.settings = settings
        self._evictor.settings = settings
        self._reserve()

    def set_agent(self, view: AgentView) -> None:
        """Take an agent, or what is new about it."""
        before = self._book.agents.get(view.id)
        if before is None or before.view.total != view.total:
            self.learn(amounts_of(view.total))
        self._book.set_agent(view)

    def remove_agent(self, agent_id: AgentId) -> None:
        """Forget an agent with all that is held there."""
        self._book.remove_agent(agent_id)

    def set_role(self, name: str, role: RoleSettings) -> None:
        """Take what an operator set for a role. Errors: `Invalid`."""
        self.learn(each.name for each in (*role.guarantee, *role.limit))
        self._engine.add_role(
            name,
            weight=role.weight,
            guarantee=amounts_of(role.guarantee),
            limit=amounts_of(role.limit) if role.limit else None,
            max_tasks=role.max_tasks,
            priority=role.priority,
        )
        before = self._roles.get(name)
        self._roles[name] = role
        self._history.set(name, role.half_life_s)
        if before is None or before.strategy != role.strategy:
            self._lines.renew(name)

    def remove_role(self, name: str) -> None:
        """Let a role be as one that nobody said anything of."""
        if name in self._roles:
            self.set_role(name, RoleSettings())
            del self._roles[name]

    def set_framework(self, view: FrameworkView) -> None:
        """Take a framework, or which roles it takes plain offers for now."""
        self._frameworks[view.id] = view

    def remove_framework(self, framework_id: FrameworkId) -> None:
        """Forget a framework with its wants and filters; what its tasks hold stays until it is released.

        Shapes: once that is so, forget it again, and nothing is left of it.
        """
        self._frameworks.pop(framework_id, None)
        for line in self._lines.of(framework_id):
            self.remove_want(framework_id, line.view.want.id)
        self._filters.forget(framework_id)
        # Rows that seem to hold something would stay this framework's for good.
        self._book.flush()
        self._claimants.forget(framework_id)

    def set_want(self, view: WantView) -> None:
        """Take a want, or its numbers anew. Errors: `Invalid` for one that could never be decided."""
        line = self._lines.get(view.framework_id, view.want.id)
        if line is None or line.view.want != view.want:
            check_want(view.want)
            self.learn(each.name for each in view.want.resources)
            line = self._lines.get(view.framework_id, view.want.id)
        self._gpus.learn(view, line.view if line is not None else None)
        if line is not None and line.view.want != view.want:
            self._gangs.give_up(self, line.key)
        self._lines.state(view)

    def remove_want(self, framework_id: FrameworkId, want_id: WantId) -> None:
        """Forget a want, and what is being cleared for it."""
        self._gangs.give_up(self, (framework_id, want_id))
        self._evictor.give_up(self, (framework_id, want_id))
        self._lines.remove(framework_id, want_id)
        self._gpus.forget(framework_id, want_id)

    def set_filters(self, framework_id: FrameworkId, role: str, agent_id: AgentId, filters: Iterable[Filter]) -> None:
        """Take what a framework refuses of an agent for a role; nothing lifts it."""
        if self._filters.replace(framework_id, role, agent_id, filters):
            self._renew_lines(framework_id, role)

    def hold(self, hold: Hold, instead_of: str | None = None) -> None:
        """Count what a task or an offer takes, in the place of another hold when one is named.

        Errors: `Conflict` when the key is taken, `NotFound` when the agent is not known.
        """
        if instead_of is not None:
            if self._book.replace(instead_of, hold) is not None:
                return
            self._book.release(instead_of)
        self.hold_all(hold.agent_id, (hold,))

    def hold_all(self, agent_id: AgentId, holds: Sequence[Hold]) -> None:
        """Count at once what many tasks take of one agent, as after the agent has registered.

        Errors: `Conflict` when a key is taken, `NotFound` when the agent is not known; then nothing is counted.
        """
        amounts = [amounts_of(each.resources) for each in holds]
        self.learn(set[str]().union(*amounts))
        self._book.check_new(agent_id, holds)
        rows: dict[tuple[str, FrameworkId, int], int] = {}
        leaves = []
        for each in holds:
            by = each.role, each.framework_id, each.priority
            if by not in rows:
                rows[by] = self._claimants.row(*by)
            leaves.append(rows[by])
        self._book.hold_all(agent_id, holds, leaves, amounts)

    def release(self, key: str) -> None:
        """Give back what is held by a key; nothing when nothing is."""
        entry = self._book.release(key)
        if entry is not None:
            self._gpus.give_back(entry.hold)

    def learn(self, names: Iterable[str]) -> None:
        """Know these resources too. A new one makes everything be counted anew."""
        new = sorted(set(names).difference(self._names))
        if new:
            view = self.view()
            self._names = (*self._names, *new)
            self._build()
            for name, role in view.roles.items():
                self.set_role(name, role)
            for agent in view.agents:
                self._book.set_agent(agent)
            for hold in view.holds:
                self.hold(hold)
            for want in view.wants:
                self._lines.state(want)
            self._gangs.restart()
            self._evictor.follow(self)

    # What it decides.

    def run(self, now: float, seed: int = 0, most: int = 0) -> Allocation:
        """Grant what fits, name the offers and tasks that must come back for wants, tell which wants still wait.

        Units: `now` float seconds UTC. Shapes: `most` bounds what one run gives to wants, 0 does not; grants come in
        the order they were decided.
        """
        self._prepare(now, seed)
        grants = self._evictor.settle(self, now)
        self._gangs.collect(self, now)
        placements = self._engine.tick(most if most else 1 << 40, self._gpus.choose)
        grants += self._granted(placements, now, seed)
        self._book.mark_ports()
        more = bool(most) and len(placements) >= most
        if not more:
            grants += self._gangs.run(self, now)
        self.rescinding = {}
        waiting = [line for line in self._lines if line.view.missing > 0]
        rescinded: list[OfferId] = []
        returned: list[OfferId] = []
        evictions: list[Eviction] = []
        kept: set[AgentId] = set()
        if waiting and not more:
            rescinded, self.rescinding = recall(self, waiting)
            kept = {each for agents in self.rescinding.values() for each in agents}
            evictions = self._evictor.run(self, waiting, now)
        owed = False
        if not more:
            back, ended, owed = reclaim(self, self._evictor.left(now))
            self._evictor.spend(now, len(ended))
            returned += back
            evictions += ended
            grants += self._offer_rest(kept, now, seed)
            back, ended, short = reclaim_kept(self, kept, self._evictor.left(now))
            self._evictor.spend(now, len(ended))
            returned += [each for each in back if each not in rescinded]
            evictions += ended
            owed = owed or short
        return Allocation(
            grants=tuple(grants),
            rescind=(*rescinded, *returned),
            returned=tuple(returned),
            evictions=tuple(evictions),
            waiting=tuple(line.key for line in waiting if line.view.missing > 0),
            more=more,
            due_at=None if more else self._due_at(now, waiting, owed=owed),
        )

    def explain(self, framework_id: FrameworkId, want_id: WantId) -> Explanation:
        """Why a want waits, agent by agent. Errors: `NotFound` for a want that is not known."""
        line = self._lines.get(framework_id, want_id)
        if line is None:
            raise NotFound(f"framework {framework_id} has no want {want_id}; name one that it stated")
        self._prepare_lines()
        return explain(self, line)

    def decision_hash(self) -> str:
        """A digest of all decisions on wants so far."""
        return self._engine.decision_hash()

    def invariants(self) -> None:
        """Takes long: for tests. Errors: `AssertionError` when something is counted twice or lost."""
        self._book.flush()
        self._book.invariants()
        self._engine.invariants(list(self._book.held()))

    def clearing(self, key: Key) -> list[tuple[AgentEntry, tuple[str, ...]]]:
        """Where room is being made for a want, and what has to end there."""
        return self._evictor.clearing(key)

    def gathered(self, key: Key) -> tuple[int, int] | None:
        """How many instances a gang keeps room for, and of how many; None when it does not gather."""
        gathering = self._gangs.gathering
        if gathering is None or gathering.key != key:
            return None
        return len(gathering.slots), gathering.size

    def kept(self) -> list[Hold]:
        """What is held for no task or offer: the room of a gang that gathers, and of wants for which room is made."""
        gathering = self._gangs.gathering
        keys = [*(gathering.slots if gathering is not None else ()), *self._evictor.kept]
        return [self._book.holds[key].hold for key in keys if key in self._book.holds]

    def asked(self, line: Line) -> tuple[Line, int, int]:
        """The line in which a want stands, how many of its instances lack room, and how many must find it together."""
        gathering = self._gangs.gathering
        if gathering is not None and gathering.key == line.key:
            return gathering.single, gathering.single.view.missing, max(1, gathering.single.view.missing)
        return line, line.view.missing - line.apart, max(1, line.view.want.gang)

    def refused(self, line: Line) -> list[AgentId]:
        """The agents of which a framework refused an instance of a want."""
        want = line.view.want
        return self._filters.refused_agents(line.view.framework_id, want.role, want.resources)

    # What its parts share.

    @property
    def engine(self) -> Engine:
        return self._engine

    @property
    def book(self) -> Book:
        return self._book

    @property
    def lines(self) -> Lines:
        return self._lines

    @property
    def claimants(self) -> Claimants:
        return self._claimants

    @property
    def filters(self) -> Filters:
        return self._filters

    @property
    def gpus(self) -> GpuChooser:
        return self._gpus

    @property
    def roles(self) -> dict[str, RoleSettings]:
        return self._roles

    @property
    def frameworks(self) -> dict[FrameworkId, FrameworkView]:
        return self._frameworks

    def grant(self, line: Line, agent: AgentEntry, mask: int, chosen: Resources, now: float) -> Grant:
        """One instance of a want on an agent, which the engine placed and counts already."""
        hold = self.describe(line, agent, mask, chosen, now, self._next_key())
        self._book.adopt(hold, line.claimant, agent, mask, line.feeds)
        return _grant_of(hold)

    def describe(self, line: Line, agent: AgentEntry, mask: int, chosen: Resources, now: float, key: str) -> Hold:
        """The hold of one instance of a want."""
        want = line.view.want
        ends_at = now + want.run_s if want.run_s is not None else None
        return Hold(
            key=key, framework_id=line.view.framework_id, role=want.role, agent_id=agent.view.id, resources=chosen,
            kind=HoldKind.GRANT, want_id=want.id, group=group_of(want), tags=want.tags, priority=want.priority,
            revocable=want.revocable, since_at=now, ends_at=ends_at, devices=devices_of(mask),
        )  # fmt: skip

    def may_give(self, line: Line, agent: AgentEntry) -> bool:
        """Whether one instance of a want fits there now, within all limits."""
        self._book.flush()
        self._book.mark_ports()
        return (
            line.view.missing > 0
            and line.cls >= 0
            and self._engine.fits(agent.row, line.cls)
            and self._engine.may_have(line.claimant, line.cls)
        )

    def give(self, line: Line, agent: AgentEntry, now: float) -> Grant:
        """Grant one instance there, out of turn; it has been seen to fit."""
        return _grant_of(self.take(line, agent, now, self._next_key()))

    def take(self, line: Line, agent: AgentEntry, now: float, key: str) -> Hold:
        """Hold one instance there, out of turn; it has been seen to fit."""
        line.view = msgspec.structs.replace(line.view, missing=line.view.missing - 1)
        bundle = self.bundle(line, agent, agent.free(), self._grants)
        hold = self.describe(line, agent, 0, bundle, now, key)
        (entry,) = self._book.hold_all(agent.view.id, (hold,), (line.claimant,), (amounts_of(bundle),))
        self._book.flush()
        entry.hold = msgspec.structs.replace(entry.hold, devices=devices_of(entry.held.devices))
        self._book.mark_ports()
        self._lines.settle(line)
        return entry.hold

    def hand_over(self, line: Line, entry: HoldEntry, now: float) -> Grant:
        """Grant what was kept for one instance."""
        hold = msgspec.structs.replace(entry.hold, key=self._next_key(), since_at=now)
        self._book.replace(entry.hold.key, hold)
        return _grant_of(hold)

    def _next_key(self) -> str:
        self._grants += 1
        return f"{GRANTED}/{self._grants}"

    def bundle(self, line: Line, agent: AgentEntry, free: Resources, offset: int) -> Resources:
        """The resources of one instance there, its ports chosen from what is free."""
        want = line.view.want
        fixed = ports(*((p, p) for p in want.fixed_ports)) if want.fixed_ports else None
        found = [*want.resources, *([fixed] if fixed is not None else [])]
        if want.ports:
            left = all_ranges(plain(free), PORTS)
            if fixed is not None:
                left = cut_ranges(left, fixed.ranges)
            chosen = choose_ports(left, want.ports, start_offset(offset, self._grants, count_range(left)))
            found.append(ports(*chosen))
        return normal(found)

    # How.

    def _build(self) -> None:
        self._engine = Engine(self._names, mode=self.mode, tuning=self._tuning, mark=mark, cache=True)
        self._claimants = Claimants(self._engine)
        self._book = Book(self._engine)
        self._roster = Roster(self._book)
        self._gpus.attach(self._engine)
        self._lines = Lines(self._engine, self._book, self._claimants, self._filters, self._roles)
        self._reserve()

    def roster(self) -> Roster:
        """What the agents are, whatever runs there."""
        if self._roster.changes != self._book.changes:
            self._roster = Roster(self._book)
        return self._roster

    def _reserve(self) -> None:
        headroom = self.settings.headroom
        self._engine.set_reserve(None if headroom is None else amounts_of(headroom))

    def _due_at(self, now: float, waiting: list[Line], *, owed: bool = False) -> float | None:
        """Shapes: `owed` when reservations could not be taken back because no more evictions are allowed."""
        dues = [self._gangs.due_at(now)]
        if owed or any(line.view.missing > line.apart and not line.view.want.revocable for line in waiting):
            dues.append(self._evictor.due_at(now))
        return min((each for each in dues if each is not None), default=None)

    def _prepare(self, now: float, seed: int) -> None:
        for framework_id, role in sorted(self._filters.end(now)):
            self._renew_lines(framework_id, role)
        self._prepare_lines()
        self._history.catch_up(self._engine, now)
        self._engine.seed(seed % (1 << 31))

    def _prepare_lines(self) -> None:
        """Let the engine know all that was said."""
        self._book.flush()
        self._lines.catch_up()
        self._book.mark_ports()

    def _renew_lines(self, framework_id: FrameworkId, role: str) -> None:
        self._lines.renew(role, framework_id)

    def _granted(self, placements: Placements, now: float, seed: int) -> list[Grant]:
        """What the engine placed, as grants; fixed ports are set aside before others are chosen."""
        self._engine.forget(placements.task)
        grants: list[Grant] = []
        found = []
        free: dict[AgentId, Resources] = {}
        for claimant, cls, node, mask in zip(
            placements.role.tolist(), placements.cls.tolist(), placements.node.tolist(), placements.devices.tolist(),
            strict=True,
        ):  # fmt: skip
            line = self._lines.placed(claimant, cls)
            agent = self._book.rows[node]
            want = line.view.want
            if want.fixed_ports:
                self._book.ports_given(node, want.fixed_ports)
                there = free.get(agent.view.id)
                fixed = (ports(*((p, p) for p in want.fixed_ports)),)
                free[agent.view.id] = subtract(agent.free() if there is None else there, fixed)
            found.append((line, agent, mask))
        for line, agent, mask in found:
            chosen: Resources
            if line.view.want.ports:
                there = free.get(agent.view.id)
                there = agent.free() if there is None else there
                chosen = self.bundle(line, agent, there, seed)
                free[agent.view.id] = subtract(there, tuple(r for r in chosen if r.name == PORTS))
            else:
                chosen = self.bundle(line, agent, (), seed)
            if line.gathers:
                self._gangs.keep(self, line, agent, mask, chosen, now)
            else:
                grants.append(self.grant(line, agent, mask, chosen, now))
        for line, _, _ in found:
            self._lines.done(line)
        return grants

    def _offer_rest(self, kept: set[AgentId], now: float, seed: int) -> list[Grant]:
        grants = []
        for leaf, agent, resources, amounts, revocable in offer_rest(self, kept, seed):
            assert leaf.framework_id is not None, "claims are of frameworks"
            if leaf.row < 0:
                leaf.row = self._claimants.row(leaf.name, leaf.framework_id, 0)
            hold = Hold(
                key=self._next_key(), framework_id=leaf.framework_id, role=leaf.name, agent_id=agent.view.id,
                resources=resources, kind=HoldKind.GRANT, since_at=now, revocable=revocable,
            )  # fmt: skip
            # What an agent has is known: nothing is to be learned of it.
            self._book.grant(hold, leaf.row, agent, amounts)
            grants.append(_grant_of(hold))
        return grants


def _grant_of(hold: Hold) -> Grant:
    return Grant(
        key=hold.key, framework_id=hold.framework_id, role=hold.role, agent_id=hold.agent_id, resources=hold.resources,
        want_id=hold.want_id, devices=hold.devices, revocable=hold.revocable,
    )  # fmt: skip


def allocate(view: View, now: float, mode: Mode = Mode.PLAIN) -> Allocation:
    """What an allocator that knows a view decides first."""
    return Allocator.of(view, mode).run(now, view.seed)
