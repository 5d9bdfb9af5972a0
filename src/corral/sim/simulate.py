"""Drives the production allocator through a workload in virtual time.

Pure: no clock, no file. Things happen in the order of time; what happens at one instant is told to the allocator
together, then it decides. An instance that is placed runs for its own run time, wherever it is; one that is evicted
starts again from the beginning. Equal workloads and seeds give equal results.
"""

import heapq
from collections import deque
from collections.abc import Callable, MutableMapping
from functools import partial
from typing import Protocol

import msgspec

from corral.allocator.demands import group_of
from corral.allocator.view import AgentView, Allocation, FrameworkView, Hold, HoldKind, Settings, View, WantView
from corral.lib.errors import Failed
from corral.model.ids import AgentId, FrameworkId, WantId
from corral.model.offer import Want
from corral.model.resources import ResourceKind, Resources, add
from corral.model.role import RoleSettings
from corral.sim.books import Books
from corral.sim.metrics import (
    MOST_ROLES,
    Claim,
    Fragmentation,
    Look,
    Sampler,
    Series,
    dominant,
    fair_shares,
)
from corral.sim.results import Counts, Result, Tally, sum_up
from corral.sim.trace import AgentCame, AgentLeft, RoleSet, RoleUnset, SettingsSet
from corral.sim.workload import Batch, Fact, Fate, Workload

EVICTION_PAUSE_S = 60.0
"""How long after an eviction the allocator is asked again even if nothing happens: its rate of evictions is bounded."""

MOST_ROUNDS = 10_000
"""How often the allocator may say at one instant that it has more to do."""


class Deciding(Protocol):
    """What a simulation asks of the allocator."""

    def set_settings(self, settings: Settings) -> None: ...
    def set_agent(self, view: AgentView) -> None: ...
    def remove_agent(self, agent_id: AgentId) -> None: ...
    def set_role(self, name: str, role: RoleSettings) -> None: ...
    def remove_role(self, name: str) -> None: ...
    def set_framework(self, view: FrameworkView) -> None: ...
    def set_want(self, view: WantView) -> None: ...
    def remove_want(self, framework_id: FrameworkId, want_id: WantId) -> None: ...
    def hold(self, hold: Hold, instead_of: str | None = None) -> None: ...
    def release(self, key: str) -> None: ...
    def run(self, now: float, seed: int = 0, most: int = 0) -> Allocation: ...
    def view(self) -> View: ...
    def decision_hash(self) -> str: ...
    def invariants(self) -> None: ...


class Plan(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """How a workload is run. Shapes: `policy` is the strategy of every want, empty leaves each its own.

    `points` is how many looks are kept at most, `check_every` after how many instants everything is counted anew.
    """

    policy: str = ""
    seed: int = 0
    points: int = 400
    check_every: int = 500


class _Instance:
    """One instance of a want, waiting or running."""

    __slots__ = ("agent_id", "arrived_at", "done", "fate", "line", "task")

    def __init__(self, line: "_Line", fate: Fate, arrived_at: float) -> None:
        self.line = line
        self.fate = fate
        self.arrived_at = arrived_at
        self.task = ""
        self.agent_id = AgentId("")
        self.done = False


class _Line:
    """The instances of one want that wait, the next one first."""

    __slots__ = ("changed", "framework_id", "since_at", "told", "waiting", "want")

    def __init__(self, want: Want, framework_id: FrameworkId, now: float) -> None:
        self.want = want
        self.framework_id = framework_id
        self.waiting: deque[_Instance] = deque()
        self.since_at = now
        self.changed = False
        self.told = False


def simulate(
    workload: Workload, plan: Plan, allocator: Deciding, advance: Callable[[int], None] | None = None
) -> Result:
    """Run the whole workload. Shapes: `advance` is told how many instances have come to their end or been placed.

    Errors: `Failed` when the allocator breaks a law; whatever its own invariants raise.
    """
    return Simulation(workload, plan, allocator, advance).run()


class Simulation:
    """One run; `run` may be called once."""

    def __init__(
        self, workload: Workload, plan: Plan, allocator: Deciding, advance: Callable[[int], None] | None = None
    ) -> None:
        self._workload = workload
        self._plan = plan
        self._allocator = allocator
        self._advance = advance
        self._books = Books()
        self._planned: list[tuple[float, int, Callable[[float], None]]] = []
        self._sequence = 0
        self._lines: dict[tuple[FrameworkId, WantId], _Line] = {}
        self._changed: list[_Line] = []
        self._gangs: dict[tuple[FrameworkId, WantId], float] = {}
        self._running: dict[str, _Instance] = {}
        self._frameworks: set[FrameworkId] = set()
        self._weights: dict[str, float] = {}
        self._roles: dict[str, Tally] = {}
        self._waiting = 0
        self._serial = 0
        self._ended = self._withdrawn = self._evicted = self._lost = 0
        self._runs = self._checks = 0
        self._look_again_at: float | None = None
        self._fragmentation = Fragmentation(workload.batches)
        self._look: Look | None = None
        self._shown = self._follow_roles()

    def run(self) -> Result:
        # Facts first: what is there at an instant is there for what arrives at it.
        for fact in self._workload.facts:
            self._at(fact.at, partial(self._learn, fact))
        for batch in self._workload.batches:
            self._at(batch.at, partial(self._arrive, batch))
        arrivals = [batch.at for batch in self._workload.batches]
        first_at = arrivals[0] if arrivals else 0.0
        last_arrival_at = arrivals[-1] if arrivals else 0.0
        step_s = (last_arrival_at - first_at) / max(1, self._plan.points)
        sampler = Sampler(first_at, step_s, self._plan.points)
        now = first_at
        instants = 0
        while self._planned:
            now = self._planned[0][0]
            if sampler.due(now):
                sampler.add(now, self._see())
            while self._planned and self._planned[0][0] <= now:
                heapq.heappop(self._planned)[2](now)
            self._look = None
            self._allocate(now)
            instants += 1
            if instants % self._plan.check_every == 0:
                self._check()
        self._check()
        sampler.last(now, self._see())
        return self._sum_up(sampler.series(self._shown), (first_at, last_arrival_at, now))

    def _sum_up(self, series: Series, times: tuple[float, float, float]) -> Result:
        never: dict[str, int] = {}
        for line in self._lines.values():
            never[line.want.role] = never.get(line.want.role, 0) + len(line.waiting)
        return sum_up(
            self._plan.policy or "as asked",
            self._roles,
            never,
            series,
            times,
            Counts(
                ended=self._ended,
                withdrawn=self._withdrawn,
                evicted=self._evicted,
                lost=self._lost,
                runs=self._runs,
                checks=self._checks,
            ),
            self._allocator.decision_hash(),
        )

    def _at(self, at: float, action: Callable[[float], None]) -> None:
        self._sequence += 1
        heapq.heappush(self._planned, (at, self._sequence, action))

    # What happens.

    def _learn(self, fact: Fact, now: float) -> None:
        match fact:
            case AgentCame(agent=agent):
                self._books.set_agent(agent)
                self._allocator.set_agent(agent)
            case AgentLeft(agent_id=agent_id):
                if agent_id in self._books.rows:
                    self._lose(agent_id)
            case RoleSet(name=name, settings=settings):
                self._weights[name] = settings.weight
                self._allocator.set_role(name, settings)
            case RoleUnset(name=name):
                self._weights.pop(name, None)
                self._allocator.remove_role(name)
            case SettingsSet(settings=settings):
                self._allocator.set_settings(settings)

    def _lose(self, agent_id: AgentId) -> None:
        """What ran there ends; the trace itself says what of it is wanted again."""
        for task in self._books.remove_agent(agent_id):
            instance = self._running.pop(task)
            self._allocator.release(task)
            _count(self._claim(instance.line).held, instance.line.want, -1)
            self._settle(instance)
            self._lost += 1
        self._allocator.remove_agent(agent_id)

    def _arrive(self, batch: Batch, now: float) -> None:
        if batch.framework_id not in self._frameworks:
            self._frameworks.add(batch.framework_id)
            self._allocator.set_framework(FrameworkView(id=batch.framework_id, gpus=True))
        want = batch.want
        if self._plan.policy:
            want = msgspec.structs.replace(want, strategy=self._plan.policy)
        line = self._open_line(want, batch.framework_id, now)
        tally = self._role(line.want.role)
        tally.instances += len(batch.fates)
        for fate in batch.fates:
            instance = _Instance(line, fate, now)
            line.waiting.append(instance)
            if fate.withdrawn_at is not None:
                self._at(fate.withdrawn_at, partial(self._withdraw, instance))
        self._waiting += len(batch.fates)
        _count(tally.claim.waiting, line.want, len(batch.fates))
        self._touch(line)

    def _open_line(self, want: Want, framework_id: FrameworkId, now: float) -> _Line:
        """The line for more of this want; one that waits with another shape keeps its name, and this gets a new one."""
        want_id, number = want.id, 1
        while (known := self._lines.get((framework_id, want_id))) is not None:
            same = msgspec.structs.replace(known.want, id=want.id, count=want.count, group_size=want.group_size)
            if same == want:
                grown = len(known.waiting) + want.count
                known.want = msgspec.structs.replace(want, id=want_id, count=grown)
                return known
            number += 1
            want_id = WantId(f"{want.id}#{number}")
        line = _Line(msgspec.structs.replace(want, id=want_id), framework_id, now)
        self._lines[framework_id, want_id] = line
        return line

    def _withdraw(self, instance: _Instance, now: float) -> None:
        """Nobody wants it any more: it leaves its line, or ends if it was placed here."""
        if instance.done:
            return
        if instance.task:
            self._end(instance, instance.task, now)
            return
        line = instance.line
        line.waiting.remove(instance)
        self._waiting -= 1
        _count(self._claim(line).waiting, line.want, -1)
        self._withdrawn += 1
        self._touch(line)
        self._settle(instance)

    def _end(self, instance: _Instance, task: str, now: float) -> None:
        """It has run its time. Shapes: nothing when it was evicted meanwhile and is another task now."""
        if instance.task != task or instance.done:
            return
        del self._running[task]
        self._books.end(task, instance.agent_id)
        self._allocator.release(task)
        _count(self._claim(instance.line).held, instance.line.want, -1)
        self._ended += 1
        self._settle(instance)

    def _settle(self, instance: _Instance) -> None:
        instance.done = True
        if self._advance is not None:
            self._advance(1)

    def _touch(self, line: _Line) -> None:
        """Its number has changed and the allocator is to know."""
        if not line.changed:
            line.changed = True
            self._changed.append(line)

    # What is decided.

    def _allocate(self, now: float) -> None:
        for _ in range(MOST_ROUNDS):
            self._tell_wants()
            if not self._waiting:
                return
            self._runs += 1
            found = self._allocator.run(now, seed=self._plan.seed * 1_000_003 + self._runs)
            self._carry_out(found, now)
            if not found.more and not found.evictions:
                break
        else:
            raise Failed(f"the allocator has still more to do after {MOST_ROUNDS} runs at {now:g} s")
        self._tell_wants()
        self._plan_next_look(found, now)

    def _tell_wants(self) -> None:
        for line in self._changed:
            line.changed = False
            key = (line.framework_id, line.want.id)
            if line.waiting:
                view = WantView(
                    want=line.want,
                    framework_id=line.framework_id,
                    missing=len(line.waiting),
                    since_at=line.since_at,
                )
                self._allocator.set_want(view)
                line.told = True
                if line.want.gang > 1:
                    self._gangs[key] = line.want.gang_timeout_s
            else:
                if line.told:
                    self._allocator.remove_want(*key)
                del self._lines[key]
                self._gangs.pop(key, None)
        self._changed.clear()

    def _carry_out(self, found: Allocation, now: float) -> None:
        for grant in found.grants:
            line = self._lines.get((grant.framework_id, grant.want_id or WantId("")))
            if line is None or not line.waiting:
                raise Failed(f"the allocator gave {grant.agent_id} to want {grant.want_id}, which wants nothing")
            self._place(line.waiting.popleft(), grant.key, grant.agent_id, grant.resources, grant.devices, now)
            self._touch(line)
        for eviction in found.evictions:
            self._evict(eviction.key, now)

    def _place(
        self,
        instance: _Instance,
        grant_key: str,
        agent_id: AgentId,
        resources: Resources,
        devices: tuple[int, ...],
        now: float,
    ) -> None:
        line, want = instance.line, instance.line.want
        self._serial += 1
        task = f"task/{line.framework_id}/{self._serial}"
        self._books.start(task, want, agent_id, resources, devices)
        hold = Hold(
            key=task, framework_id=line.framework_id, role=want.role, agent_id=agent_id, resources=resources,
            kind=HoldKind.TASK, want_id=want.id, group=group_of(want), tags=want.tags, priority=want.priority,
            revocable=want.revocable, since_at=now, ends_at=None if want.run_s is None else now + want.run_s,
            devices=devices,
        )  # fmt: skip
        self._allocator.hold(hold, instead_of=grant_key)
        instance.task, instance.agent_id = task, agent_id
        self._running[task] = instance
        self._waiting -= 1
        tally = self._role(want.role)
        tally.waits.append(now - instance.arrived_at)
        _count(tally.claim.waiting, want, -1)
        _count(tally.claim.held, want, 1)
        if self._advance is not None:
            self._advance(1)
        if instance.fate.run_s is not None:
            self._at(now + instance.fate.run_s, partial(self._end, instance, task))

    def _evict(self, task: str, now: float) -> None:
        """It goes back to its line, in front, and will run its whole time."""
        instance = self._running.pop(task, None)
        if instance is None:
            raise Failed(f"the allocator evicts {task}, which does not run")
        self._books.end(task, instance.agent_id)
        self._allocator.release(task)
        self._evicted += 1
        line = instance.line
        tally = self._role(line.want.role)
        tally.evicted += 1
        _count(tally.claim.held, line.want, -1)
        _count(tally.claim.waiting, line.want, 1)
        instance.task = ""
        instance.line = self._open_line(msgspec.structs.replace(line.want, count=1), line.framework_id, now)
        instance.line.waiting.appendleft(instance)
        self._waiting += 1
        self._touch(instance.line)

    def _plan_next_look(self, found: Allocation, now: float) -> None:
        """Where time alone changes what the allocator would decide, it is asked again though nothing happens."""
        waits_s = list(self._gangs.values())
        if found.evictions:
            waits_s.append(EVICTION_PAUSE_S)
        if not waits_s or not self._planned:
            return
        at = now + min(waits_s)
        if self._look_again_at is None or self._look_again_at <= now or at < self._look_again_at:
            self._look_again_at = at
            self._at(at, _nothing)

    # What is measured.

    def _role(self, role: str) -> Tally:
        found = self._roles.get(role)
        if found is None:
            found = self._roles[role] = Tally()
        return found

    def _claim(self, line: _Line) -> Claim:
        return self._role(line.want.role).claim

    def _follow_roles(self) -> tuple[str, ...]:
        asked: dict[str, int] = {}
        for batch in self._workload.batches:
            asked[batch.want.role] = asked.get(batch.want.role, 0) + len(batch.fates)
        return tuple(sorted(sorted(asked, key=lambda role: (-asked[role], role))[:MOST_ROLES]))

    def _see(self) -> Look:
        if self._look is None:
            books = self._books
            wanted = {role: tally.claim.wanted for role, tally in self._roles.items()}
            fair = fair_shares(wanted, self._weights, books.total)
            self._look = Look(
                running=len(self._running),
                waiting=self._waiting,
                allocated={
                    name: round(books.used(name) / total, 6) for name, total in sorted(books.total.items()) if total
                },
                fragmentation=self._fragmentation.measure(books),
                shares={
                    role: (round(dominant(tally.claim.held, books.total), 6), round(fair[role], 6))
                    for role, tally in self._roles.items()
                },
            )
        return self._look

    def _check(self) -> None:
        self._checks += 1
        self._allocator.invariants()
        holds: dict[AgentId, list[Resources]] = {}
        for hold in self._allocator.view().holds:
            # What it keeps for gangs and for wants that evict is its own affair.
            if hold.kind is HoldKind.TASK:
                holds.setdefault(hold.agent_id, []).append(hold.resources)
        self._books.check({agent_id: add(*found) for agent_id, found in holds.items()})
        waiting = sum(len(line.waiting) for line in self._lines.values())
        if waiting != self._waiting or len(self._running) != sum(len(r.held) for r in self._books.rows.values()):
            raise Failed(f"{self._waiting} instances wait but {waiting} are in lines, {len(self._running)} run")


def _count(amounts: MutableMapping[str, int], want: Want, instances: int) -> None:
    for r in want.resources:
        if r.kind is ResourceKind.SCALAR:
            amounts[r.name] = amounts.get(r.name, 0) + r.milli * instances


def _nothing(now: float) -> None:
    """Only the time has come to ask the allocator again."""
