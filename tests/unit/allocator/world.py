"""A random cluster beside an allocator: it tells what happens, and checks each answer from the plain facts.

Nothing of the engine is used to judge it: what is free, held, promised, allowed and where is counted anew from agents
and holds. A `World` of one seed lives the same life in every form of the engine.
"""

import re
from collections import Counter, deque
from collections.abc import Iterable
from random import Random

import msgspec

from corral.allocator.allocator import OWN_KEYS, Allocator
from corral.allocator.bundles import amounts_of
from corral.allocator.engine import Mode
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
from corral.model.constraints import (
    HOSTNAME,
    Constraint,
    Operator,
    allows,
    describe,
    field_value,
    is_counting,
    looks_at_tasks,
)
from corral.model.ids import AgentId, FrameworkId, OfferId, WantId
from corral.model.offer import Want
from corral.model.resources import (
    Resources,
    add,
    all_ranges,
    contains,
    count_range,
    normal,
    ports,
    scalar,
    subtract,
    total_milli,
)
from corral.model.role import RoleSettings, is_within, line_of

WHOLE = 1000
FRAMEWORKS = ("f", "g", "h")
ROLES = ("a", "b", "b/x", "b/y", "c/p/q", "c")
TAGS = ("label:db", "label:web", "image:x")
STRATEGIES = ("spread", "spread", "binpack", "random", "least-tasks", "aligned", "gpu", "")
MINUTE_S = 60.0

Key = tuple[FrameworkId, WantId]


def scalars(resources: Resources) -> Counter[str]:
    """Thousandths, ports as a count of thousandths, as limits and guarantees see them."""
    return Counter(amounts_of(resources))


def tag_of_group(framework_id: FrameworkId, group: str) -> str:
    return f"{framework_id}: {group}"


class World:
    """Shapes: `holds` are what the allocator was told of, and grants; `log` is what it answered, to compare forms."""

    def __init__(self, seed: int, mode: Mode = Mode.PLAIN, *, most_agents: int = 6) -> None:
        self.random = Random(seed)
        self.allocator = Allocator(mode=mode)
        self.most_agents = most_agents
        self.now = 0.0
        self.turn = 0
        self.names = 0
        self.agents: dict[AgentId, AgentView] = {}
        self.roles: dict[str, RoleSettings] = {}
        self.frameworks: dict[FrameworkId, FrameworkView] = {}
        self.wants: dict[Key, WantView] = {}
        self.holds: dict[str, Hold] = {}
        self.filters: dict[tuple[FrameworkId, str, AgentId], list[Filter]] = {}
        self.settings = Settings()
        self.evicted: deque[float] = deque()
        self.stricter = False
        self.log: list[object] = []
        for name in FRAMEWORKS:
            self.set_framework(FrameworkId(name))
        for _ in range(3):
            self.add_agent()

    # What happens.

    def name(self, what: str) -> str:
        self.names += 1
        return f"{what}{self.names}"

    def live(self, steps: int) -> None:
        for _ in range(steps):
            self.step()

    def step(self) -> None:
        """Something happens, and the allocator is run."""
        for _ in range(self.random.choice((1, 1, 2, 4))):
            self.random.choice(self.events)(self)
        self.now += self.random.choice((0.0, 0.1, 1.0, 7.0, 40.0))
        self.run()

    def add_agent(self) -> None:
        if len(self.agents) < self.most_agents:
            name = AgentId(self.name("n"))
            self.tell_agent(self.describe_agent(name))

    def describe_agent(self, name: AgentId) -> AgentView:
        pick = self.random.choice
        total = [scalar("cpus", pick((1, 2, 4, 8, 16))), scalar("mem", pick((256, 1024, 4096)))]
        if pick((True, True, False)):
            total.append(ports((1, pick((3, 8, 20)))))
        if pick((True, False, False)):
            total.append(scalar("gpus", pick((1, 2, 4))))
        if pick((True, False, False, False)):
            total.append(scalar("tokens", pick((1, 5))))
        attributes = {"zone": pick("xyz"), "level": pick(("1", "5", "9"))} if pick((True, True, True, False)) else {}
        return AgentView(
            id=name, hostname=f"h-{name}", total=normal(total), attributes=attributes,
            runtimes=pick((("docker",), ("docker", "process"))), ineligible=pick(("", "", "", "", "draining")),
        )  # fmt: skip

    def tell_agent(self, view: AgentView) -> None:
        self.agents[view.id] = view
        self.allocator.set_agent(view)

    def change_agent(self) -> None:
        if self.agents:
            name = self.random.choice(sorted(self.agents))
            self.tell_agent(self.describe_agent(name))

    def turn_agent(self) -> None:
        if self.agents:
            view = self.agents[self.random.choice(sorted(self.agents))]
            self.tell_agent(msgspec.structs.replace(view, ineligible="" if view.ineligible else "draining"))

    def remove_agent(self) -> None:
        if len(self.agents) > 1:
            name = self.random.choice(sorted(self.agents))
            self.allocator.remove_agent(name)
            del self.agents[name]
            self.holds = {key: each for key, each in self.holds.items() if each.agent_id != name}

    def set_role(self) -> None:
        pick = self.random.choice
        settings = RoleSettings(
            weight=pick((0.5, 1.0, 1.0, 3.0)),
            guarantee=(scalar("cpus", pick((1, 4, 8))),) if pick((True, False, False)) else (),
            limit=normal([scalar("cpus", pick((2, 6))), scalar("mem", 2048)]) if pick((True, False, False)) else (),
            max_tasks=pick((None, None, None, 3, 8)),
            priority=pick((0, 0, 7)),
            half_life_s=pick((None, None, 30.0)),
            strategy=pick(("", "binpack")),
        )
        name = pick(ROLES)
        self.stricter = True
        self.roles[name] = settings
        self.allocator.set_role(name, settings)

    def remove_role(self) -> None:
        name = self.random.choice(ROLES)
        self.roles.pop(name, None)
        self.allocator.remove_role(name)

    def set_settings(self) -> None:
        pick = self.random.choice
        headroom = pick((None, None, (), (scalar("cpus", 2),)))
        self.settings = Settings(headroom=headroom, evictions_per_minute=pick((0, 2, 10, 60)))
        self.allocator.set_settings(self.settings)

    def set_framework(self, framework_id: FrameworkId | None = None) -> None:
        pick = self.random.choice
        view = FrameworkView(
            id=framework_id or FrameworkId(pick(FRAMEWORKS)),
            coarse_roles=(pick(ROLES),) if pick((True, False, False, False)) else (),
            gpus=pick((True, False)),
        )
        self.frameworks[view.id] = view
        self.allocator.set_framework(view)

    def remove_framework(self) -> None:
        name = FrameworkId(self.random.choice(FRAMEWORKS))
        self.allocator.remove_framework(name)
        self.frameworks.pop(name, None)
        self.wants = {key: each for key, each in self.wants.items() if key[0] != name}
        self.filters = {key: each for key, each in self.filters.items() if key[0] != name}
        self.set_framework(name)

    def describe_constraints(self) -> tuple[Constraint, ...]:
        pick = self.random.choice
        where, zone, level = pick((HOSTNAME, "zone")), "zone", "level"
        two = tuple(self.random.sample(TAGS, 2))
        made: tuple[tuple[str, Operator, tuple[str, ...], int | None], ...] = (
            (zone, Operator.EQUAL, (pick("xyz"),), None),
            (zone, Operator.UNEQUAL, (pick("xyz"),), None),
            (level, Operator.RANGE, ("4-6", "9"), None),
            (HOSTNAME, Operator.GLOB, ("h-n?", "h-n1?"), None),
            (where, Operator.UNIQUE, (), None),
            (zone, Operator.MAX_PER, (), pick((1, 2))),
            (zone, Operator.GROUP_BY, (), pick((None, 2))),
            (HOSTNAME, Operator.CLUSTER, (), None),
            (zone, Operator.NEAR, (pick(TAGS),), None),
            (where, Operator.APART, two, None),
            (zone, Operator.SPREAD, ("x=60", "*=20"), None),
        )
        return tuple(
            Constraint(
                field=field,
                operator=operator,
                values=values,
                count=count,
                weight=0 if operator is Operator.SPREAD else pick((0, 0, 0, 5, 100)),
            )
            for field, operator, values, count in self.random.sample(made, pick((0, 0, 1, 1, 2)))
        )

    def state_want(self) -> None:
        pick = self.random.choice
        if len(self.wants) > 12:
            return
        gang = pick((0, 0, 0, 0, 2, 3))
        count = pick((1, 2, 5)) * max(1, gang)
        resources = [scalar("cpus", pick((0.5, 1, 2, 4)))]
        if pick((True, False)):
            resources.append(scalar("mem", pick((64, 512))))
        if pick((True, False, False, False, False)):
            resources.append(scalar("gpus", pick((0.4, 0.5, 1, 2))))
        if pick((True, *[False] * 9)):
            resources.append(scalar("tokens", 1))
        unique = Constraint(field=HOSTNAME, operator=Operator.UNIQUE)
        name = self.name("w")
        want = Want(
            id=WantId(name), role=pick(ROLES), count=count, resources=normal(resources), ports=pick((0, 0, 0, 1, 2)),
            fixed_ports=pick(((), (), (), (), (2,), (2, 3))),
            constraints=pick(((), (unique,))) if gang else self.describe_constraints(),
            strategy=pick(STRATEGIES), priority=pick((-5, 0, 0, 0, 9)),
            group=name if gang else pick(("", "", "web", "db")), group_size=pick((4, 6)),
            runtime=pick(("", "", "process")), gang=gang, gang_timeout_s=20.0, run_s=pick((None, None, 5.0)),
            revocable=pick((False, False, False, True)), preempts=pick((True, True, False)),
            tags=() if gang else pick(((), (), (pick(TAGS),), TAGS[:2])),
        )  # fmt: skip
        framework_id = FrameworkId(pick(FRAMEWORKS))
        self.tell_want(WantView(want=want, framework_id=framework_id, missing=count, since_at=self.now))

    def tell_want(self, view: WantView) -> None:
        self.wants[view.framework_id, view.want.id] = view
        self.allocator.set_want(view)

    def change_want(self) -> None:
        if self.wants:
            view = self.wants[self.random.choice(sorted(self.wants))]
            missing = self.random.choice((0, 1, 2, 4)) * max(1, view.want.gang)
            want = view.want
            if self.random.choice((True, False, False)) and not want.gang:
                want = msgspec.structs.replace(want, constraints=self.describe_constraints())
            self.tell_want(msgspec.structs.replace(view, missing=missing, want=want))

    def remove_want(self) -> None:
        if self.wants:
            key = self.random.choice(sorted(self.wants))
            self.allocator.remove_want(*key)
            del self.wants[key]

    def end_tasks(self) -> None:
        keys = sorted(self.holds)
        share = self.random.choice((0.1, 0.3, 1.0))
        for key in keys:
            hold = self.holds[key]
            if self.random.random() < share and (hold.kind is not HoldKind.OFFER or self.random.random() < 0.5):
                self.release(key)

    def end_victims(self) -> None:
        for key in sorted(self.holds):
            if self.holds[key].leaving and self.random.random() < 0.7:
                self.release(key)

    def release(self, key: str) -> None:
        del self.holds[key]
        self.allocator.release(key)

    def refuse(self) -> None:
        """An offer is declined, for a while."""
        offers = [each for each in self.holds.values() if each.kind in (HoldKind.OFFER, HoldKind.SHAPED)]
        if offers:
            hold = self.random.choice(offers)
            key = hold.framework_id, hold.role, hold.agent_id
            one = Filter(
                framework_id=key[0], role=key[1], agent_id=key[2], resources=hold.resources, until_at=self.now + 9.0
            )
            self.release(hold.key)
            there = [each for each in self.filters.get(key, []) if each.until_at > self.now]
            self.filters[key] = [*there, one]
            self.allocator.set_filters(*key, self.filters[key])

    def accept(self) -> None:
        """Offers become tasks: those for a want whole, coarse ones in part."""
        for key in sorted(self.holds):
            hold = self.holds[key]
            if hold.kind is HoldKind.SHAPED and self.random.random() < 0.8:
                self.replace(hold, key=self.name("task/"), kind=HoldKind.TASK)
            elif hold.kind is HoldKind.OFFER and self.random.random() < 0.2:
                part = tuple(r for r in hold.resources if r.name in ("cpus", "ports"))
                self.replace(
                    hold, key=self.name("task/"), kind=HoldKind.TASK, resources=part, offer_id=None, devices=()
                )

    def replace(self, hold: Hold, **fields: object) -> None:
        new = msgspec.structs.replace(hold, **fields)  # type: ignore[arg-type]
        del self.holds[hold.key]
        self.holds[new.key] = new
        self.allocator.hold(new, instead_of=hold.key)

    def start_task(self) -> None:
        """A task that the allocator did not place itself, as of an agent that comes back."""
        if self.agents:
            view = self.agents[self.random.choice(sorted(self.agents))]
            free = self.free(view)
            if total_milli(free, "cpus") >= 500:
                hold = Hold(
                    key=self.name("task/"), framework_id=FrameworkId(self.random.choice(FRAMEWORKS)),
                    role=self.random.choice(ROLES), agent_id=view.id, resources=(scalar("cpus", 0.5),),
                    group=self.random.choice(("", "web")), tags=self.random.choice(((), TAGS[:1])),
                    revocable=self.random.choice((True, False)), since_at=self.now,
                )  # fmt: skip
                self.holds[hold.key] = hold
                self.allocator.hold(hold)

    events = (
        add_agent, change_agent, turn_agent, turn_agent, remove_agent, set_role, remove_role, set_settings,
        set_framework, remove_framework, *[state_want] * 9, change_want, remove_want, remove_want, *[end_tasks] * 3,
        *[end_victims] * 5, refuse, *[accept] * 5, start_task,
    )  # fmt: skip

    # What is so.

    def taken(self, agent_id: AgentId, *, own: bool = False) -> list[Hold]:
        """What is held of an agent; with `own` also what the allocator keeps for wants, which nobody was told of."""
        if own:
            return [each.hold for each in self.allocator.book.agents[agent_id].holds.values()]
        return [each for each in self.holds.values() if each.agent_id == agent_id]

    def free(self, view: AgentView, *, own: bool = False) -> Resources:
        """The total without what is held; ports that are held but not the agent's any more count for nothing."""
        return subtract(view.total, add(*(each.resources for each in self.taken(view.id, own=own)), ()))

    def counted(self, hold: Hold, view: AgentView) -> Counter[str]:
        """What a hold takes; ports that the agent has not do not count."""
        found = scalars(hold.resources)
        taken, there = all_ranges(hold.resources, "ports"), all_ranges(view.total, "ports")
        found["ports"] = WHOLE * sum(1 for low, high in taken for p in range(low, high + 1) if _is_in(p, there))
        return found

    def free_gpus(self, view: AgentView, *, own: bool = False) -> list[int]:
        found = [WHOLE] * (total_milli(view.total, "gpus") // WHOLE)
        for hold in self.taken(view.id, own=own):
            for device in hold.devices:
                if device < len(found):
                    found[device] -= total_milli(hold.resources, "gpus") // len(hold.devices)
        return found

    def held(self, role: str, *, own: bool = False, firm: bool = False) -> Counter[str]:
        """What a role and all below it hold; the tasks' number under `tasks`."""
        found: Counter[str] = Counter()
        for hold in self.everything(own=own):
            if is_within(hold.role, role) and not (firm and hold.revocable):
                found.update(scalars(hold.resources))
                found["tasks"] += 1
        return found

    def everything(self, *, own: bool = False) -> Iterable[Hold]:
        if own:
            return (each.hold for each in self.allocator.book.holds.values())
        return self.holds.values()

    def unmet(self, *, own: bool = False) -> Counter[str]:
        """What all guarantees lack together, none counted twice for a role above and one below."""

        def lacking(role: str, below: Counter[str]) -> Counter[str]:
            settings = self.roles.get(role)
            found = Counter(below)
            if settings is not None:
                held = self.held(role, own=own, firm=True)
                for name, n in scalars(settings.guarantee).items():
                    found[name] = max(found[name], n - held[name])
            return found

        names = {each for role in (*self.roles, *ROLES) for each in line_of(role)}
        total: dict[str, Counter[str]] = {}
        for role in sorted(names, key=lambda each: (-each.count("/"), each)):
            found = lacking(role, total.pop(role, Counter()))
            above = total.setdefault(role.rpartition("/")[0], Counter())
            above.update(found)
        return total.get("", Counter())

    def spare(self, *, own: bool = False) -> Counter[str]:
        """What is free, or lent, on agents that take work."""
        found: Counter[str] = Counter()
        for view in self.agents.values():
            if view.ineligible:
                continue
            there = scalars(view.total)
            for hold in self.taken(view.id, own=own):
                if not hold.revocable:
                    there.subtract(self.counted(hold, view))
            found.update(+there)
        return found

    def group_size(self, view: WantView) -> int:
        return view.want.group_size

    def carrying(self, tags: Iterable[str], *, own: bool) -> list[Hold]:
        wanted = set(tags)
        return [each for each in self.everything(own=own) if not wanted.isdisjoint(each.tags)]

    def siblings(self, view: WantView, *, own: bool) -> list[Hold]:
        group = view.want.group or f"={view.want.id}"
        return [
            each for each in self.everything(own=own) if (each.framework_id, each.group) == (view.framework_id, group)
        ]

    def value(self, field: str, agent_id: AgentId) -> str | None:
        view = self.agents[agent_id]
        return field_value(field, view.hostname, view.attributes)

    def keeps(self, constraint: Constraint, view: WantView, agent: AgentView, *, own: bool = False) -> bool:
        """Whether one more instance on an agent keeps a hard constraint."""
        value = field_value(constraint.field, agent.hostname, agent.attributes)
        if is_counting(constraint):
            values = [self.value(constraint.field, each.agent_id) for each in self.siblings(view, own=own)]
            known = {self.value(constraint.field, each) for each in self.agents} - {None}
            if constraint.operator is Operator.CLUSTER:
                return not values or value in values
            return allows(constraint, value, values, len(known), self.group_size(view))
        if looks_at_tasks(constraint):
            there = self.carrying(constraint.values, own=own)
            near = any(self.value(constraint.field, each.agent_id) == value for each in there)
            if constraint.operator is Operator.NEAR:
                alone = not there and not set(constraint.values).isdisjoint(view.want.tags)
                return value is not None and (near or alone)
            return constraint.operator is Operator.SPREAD or value is None or not near
        return allows(constraint, value, (), 0, 0)

    def suits(self, view: WantView, agent: AgentView, *, own: bool = False) -> bool:
        """Whether all that is no matter of amounts lets an instance go there."""
        want = view.want
        if agent.ineligible or (want.runtime and want.runtime not in agent.runtimes):
            return False
        asked = normal(want.resources)
        key = view.framework_id, want.role, agent.id
        if any(f.until_at > self.now and contains(f.resources, asked) for f in self.filters.get(key, ())):
            return False
        return all(self.keeps(each, view, agent, own=own) for each in want.constraints if not each.weight)

    def has_room(self, want: Want, free: Resources, gpus: list[int]) -> bool:
        fixed = (ports(*((p, p) for p in want.fixed_ports)),) if want.fixed_ports else ()
        if not contains(free, add(want.resources, fixed)):
            return False
        if count_range(all_ranges(free, "ports")) < want.ports + len(want.fixed_ports):
            return False
        asked = total_milli(want.resources, "gpus")
        part, count = min(asked, WHOLE), -(-asked // WHOLE)
        return sum(1 for each in gpus if each >= part) >= count

    def over_limit(self, want: Want, times: int, *, own: bool) -> str | None:
        """The role whose limit so many instances more would break."""
        asked = scalars(want.resources)
        asked["ports"] += WHOLE * (want.ports + len(want.fixed_ports))
        asked["tasks"] = 1
        for name in line_of(want.role):
            settings = self.roles.get(name)
            if settings is None:
                continue
            held = self.held(name, own=own)
            most = dict(scalars(settings.limit))
            if settings.max_tasks is not None:
                most["tasks"] = settings.max_tasks
            for resource, n in most.items():
                if asked[resource] > 0 and held[resource] + times * asked[resource] > n:
                    return name
        return None

    def breaks_headroom(self, want: Want, *, own: bool) -> str | None:
        """The resource of which one instance more would leave less than guarantees lack."""
        if want.revocable or not any(each.guarantee for each in self.roles.values()):
            return None
        before, spare = self.unmet(own=own), self.spare(own=own)
        probe = Hold(
            key="probe", framework_id=FrameworkId("probe"), role=want.role, agent_id=AgentId("nowhere"),
            resources=want.resources,
        )  # fmt: skip
        reserve = None if self.settings.headroom is None else scalars(self.settings.headroom)
        after = self.unmet_with(probe, own=own)
        for name, n in scalars(want.resources).items():
            if before[name] - after[name] < n:
                kept = after[name] if reserve is None else min(after[name], reserve[name])
                if spare[name] - n < kept:
                    return name
        return None

    def unmet_with(self, probe: Hold, *, own: bool) -> Counter[str]:
        everything = self.everything
        self.everything = lambda own=False: [*everything(own=own), probe]  # type: ignore[method-assign]
        try:
            return self.unmet(own=own)
        finally:
            del self.everything  # type: ignore[method-assign]

    # What is answered.

    def run(self, most: int = 0) -> Allocation:
        self.turn += 1
        while self.evicted and self.evicted[0] <= self.now - MINUTE_S:
            self.evicted.popleft()
        allocation = self.allocator.run(self.now, self.turn, most)
        self.log.append(allocation)
        self.log.append(self.allocator.decision_hash())
        self.check(allocation)
        for offer_id in allocation.rescind:
            self.release(f"offer/{offer_id}")
        return allocation

    def check(self, allocation: Allocation) -> None:
        gangs: Counter[Key] = Counter()
        for grant in allocation.grants:
            if grant.want_id is None:
                self.take_coarse(grant)
            else:
                key = grant.framework_id, grant.want_id
                self.take(grant, self.wants[key])
                if self.wants[key].want.gang > 1:
                    gangs[key] += 1
        for key, count in gangs.items():
            assert count % self.wants[key].want.gang == 0, f"{key} was started in part: {count}"
        for eviction in allocation.evictions:
            self.check_eviction(eviction, allocation)
        for offer_id in allocation.rescind:
            assert self.holds[f"offer/{offer_id}"].kind is HoldKind.OFFER, f"{offer_id} is no coarse offer"
        if not allocation.more:
            waiting = {key for key, view in self.wants.items() if view.missing > 0}
            assert set(allocation.waiting) == waiting, "who waits is told wrongly"
        self.check_facts()

    def check_facts(self) -> None:
        """The allocator knows what it was told, no more and no less, and its parts agree."""
        self.allocator.invariants()
        view = self.allocator.view()
        assert {each.key: each for each in view.holds} == self.holds
        assert {(each.framework_id, each.want.id): each.missing for each in view.wants} == {
            key: each.missing for key, each in self.wants.items()
        }
        for name, agent in self.agents.items():
            entry = self.allocator.book.agents[name]
            assert entry.free() == self.free(agent, own=True), f"{name} has something else free"
            exact = self.allocator.engine.free(entry.row)
            gpus = exact.pop("gpus")
            mine = scalars(agent.total)
            for each in self.taken(name, own=True):
                mine.subtract(self.counted(each, agent))
            assert all(exact[each] == mine[each] for each in exact), f"the engine miscounts {name}"
            assert gpus == mine["gpus"]
        spare, unmet = self.spare(own=True), self.unmet(own=True)
        assert all(n == spare[each] for each, n in self.allocator.engine.spare.items()), "what is spare is miscounted"
        assert all(n == unmet[each] for each, n in self.allocator.engine.unmet().items()), "guarantees lack otherwise"
        for hold in self.allocator.book.holds.values():
            assert hold.hold.key in self.holds or hold.hold.key.startswith(OWN_KEYS)

    def take(self, grant: Grant, view: WantView) -> None:
        want = view.want
        assert view.missing > 0, f"{want.id} got more than it lacks"
        assert grant.role == want.role
        agent = self.agents[grant.agent_id]
        free, gpus = self.free(agent), self.free_gpus(agent)
        assert contains(free, grant.resources), f"{grant.resources} of {agent.id} are not free"
        fixed = (ports(*((p, p) for p in want.fixed_ports)),) if want.fixed_ports else ()
        assert [r for r in grant.resources if r.name != "ports"] == [r for r in want.resources if r.milli]
        given = all_ranges(grant.resources, "ports")
        assert count_range(given) == want.ports + len(want.fixed_ports)
        assert contains(grant.resources, fixed)
        asked = total_milli(want.resources, "gpus")
        assert len(set(grant.devices)) == len(grant.devices) == -(-asked // WHOLE)
        assert all(gpus[device] >= min(asked, WHOLE) for device in grant.devices), f"GPUs of {agent.id} given twice"
        assert not agent.ineligible, f"{agent.id} takes nothing new"
        assert self.suits(view, agent), f"{want.id} may not go to {agent.id}: {want.constraints}"
        if want.gang <= 1:
            over = self.over_limit(want, 1, own=False)
            assert over is None, f"{want.id} breaks a limit of {over}"
            assert self.breaks_headroom(want, own=False) is None, f"{want.id} takes what is kept for guarantees"
        elif not self.stricter:
            assert self.over_limit(want, 1, own=False) is None
        hold = Hold(
            key=grant.key, framework_id=grant.framework_id, role=grant.role, agent_id=grant.agent_id,
            resources=grant.resources, kind=HoldKind.GRANT, want_id=grant.want_id,
            group=want.group or f"={want.id}", tags=want.tags, priority=want.priority, revocable=want.revocable,
            since_at=self.now, ends_at=self.now + want.run_s if want.run_s is not None else None, devices=grant.devices,
        )  # fmt: skip
        self.holds[grant.key] = hold
        self.wants[view.framework_id, want.id] = msgspec.structs.replace(view, missing=view.missing - 1)
        self.offered.append(hold)

    def take_coarse(self, grant: Grant) -> None:
        agent = self.agents[grant.agent_id]
        framework = self.frameworks[grant.framework_id]
        assert contains(self.free(agent), grant.resources), f"{grant.resources} of {agent.id} are not free"
        assert not agent.ineligible
        assert grant.role in framework.coarse_roles
        assert framework.gpus or not total_milli(agent.total, "gpus")
        for one in self.filters.get((grant.framework_id, grant.role, grant.agent_id), ()):
            assert one.until_at <= self.now or not contains(one.resources, grant.resources), "offered what was refused"
        whole = Want(id=WantId("coarse"), role=grant.role, count=1, resources=tuple(
            r for r in grant.resources if r.name != "ports"
        ))  # fmt: skip
        assert self.over_limit(whole, 1, own=False) is None, "an offer breaks a limit"
        self.holds[grant.key] = hold = Hold(
            key=grant.key, framework_id=grant.framework_id, role=grant.role, agent_id=grant.agent_id,
            resources=grant.resources, kind=HoldKind.GRANT, since_at=self.now,
        )  # fmt: skip
        self.offered.append(hold)

    def check_eviction(self, eviction: Eviction, allocation: Allocation) -> None:
        victim = self.holds[eviction.key]
        view = self.wants[eviction.for_framework_id, eviction.want_id]
        assert victim.kind is HoldKind.TASK
        assert not victim.leaving, "told to go twice"
        assert not view.want.revocable, "nothing goes for revocable work"
        assert view.want.gang <= 1
        lower = view.want.preempts and victim.role == view.want.role and victim.priority < view.want.priority
        assert victim.revocable or lower, f"{victim.key} may not be moved out for {view.want.id}"
        self.evicted.append(self.now)
        assert len(self.evicted) <= self.settings.evictions_per_minute, "too fast"
        self.holds[eviction.key] = msgspec.structs.replace(victim, leaving=True)

    @property
    def offered(self) -> "_Offers":
        return _Offers(self)

    # What must be.

    def settle(self) -> None:
        """Run until nothing moves any more; then nobody waits who could be served, and explanations can be believed."""
        for view in list(self.frameworks.values()):
            if view.coarse_roles:
                self.frameworks[view.id] = msgspec.structs.replace(view, coarse_roles=())
                self.allocator.set_framework(self.frameworks[view.id])
        for _ in range(12):
            before = self.now
            if not self.run().grants and not self.allocator.rescinding:
                break
            assert self.now == before
        else:
            raise AssertionError("it never settles")
        for key, view in sorted(self.wants.items()):
            if view.missing > 0:
                self.check_waiting(key, view)

    def check_waiting(self, key: Key, view: WantView) -> None:
        want = view.want
        explanation = self.allocator.explain(*key)
        assert explanation.waiting == view.missing
        under_way = {"clearing", "offered", "gang"}
        if want.gang > 1 or under_way & {each.reason for each in explanation.refusals}:
            return
        for agent in self.agents.values():
            could = (
                self.has_room(want, self.free(agent, own=True), self.free_gpus(agent, own=True))
                and self.suits(view, agent, own=True)
                and self.over_limit(want, 1, own=True) is None
                and self.breaks_headroom(want, own=True) is None
            )
            assert not could, f"{want.id} waits though {agent.id} could take it"
        assert explanation.refusals, f"nothing says why {want.id} waits"
        for hint in explanation.fits_if:
            self.follow(hint, view)

    def follow(self, hint: str, view: WantView) -> None:
        """Do what a hint says, and see an instance placed."""
        known = self.allocator.view(self.turn)
        altered = follow(hint, msgspec.structs.replace(view, missing=1), known, self.now)
        copy = Allocator.of(altered)
        allocation = copy.run(self.now, self.turn)
        found = copy.explain(view.framework_id, view.want.id).refusals if not allocation.grants else ()
        assert not found, f"{hint} does not help {view.want.id}: {[each.detail for each in found]}"
        assert [each.want_id for each in allocation.grants] == [view.want.id], f"{hint} does not help {view.want.id}"


def _is_in(port: int, spans: Iterable[tuple[int, int]]) -> bool:
    return any(low <= port <= high for low, high in spans)


class _Offers:
    """Makes an offer of a grant at once, as a master does."""

    def __init__(self, world: World) -> None:
        self.world = world

    def append(self, hold: Hold) -> None:
        name = self.world.name("o")
        if hold.want_id is None:
            self.later(hold, key=f"offer/{name}", kind=HoldKind.OFFER, offer_id=OfferId(name))
        else:
            self.later(hold, key=f"offer/{name}", kind=HoldKind.SHAPED, offer_id=OfferId(name))

    def later(self, hold: Hold, **fields: object) -> None:
        self.world.replace(hold, **fields)


def follow(hint: str, view: WantView, known: View, now: float) -> View:
    """A view that a hint leads to, with this want alone."""
    replace = msgspec.structs.replace
    want, agents, filters, holds, roles = (
        view.want,
        list(known.agents),
        list(known.filters),
        list(known.holds),
        dict(known.roles),
    )
    if found := re.fullmatch(r"ports ≤ (\d+)", hint):
        want = replace(want, ports=int(found[1]) - len(want.fixed_ports))
    elif found := re.fullmatch(r"(\w+) ≤ ([\d.]+)", hint):
        want = replace(
            want, resources=tuple(scalar(r.name, float(found[2])) if r.name == found[1] else r for r in want.resources)
        )
    elif found := re.fullmatch(r"without the constraint (.+)", hint):
        want = replace(want, constraints=tuple(c for c in want.constraints if c.weight or describe(c) != found[1]))
    elif found := re.fullmatch(r"runtime (.+)", hint):
        want = replace(want, runtime=found[1].split(" or ")[0])
    elif found := re.fullmatch(r"h-(\w+) is no longer draining", hint):
        agents = [replace(each, ineligible="") if each.id == found[1] else each for each in agents]
    elif found := re.fullmatch(r"the filter on h-(\w+) expires", hint):
        filters = [each for each in filters if each.agent_id != found[1]]
    elif found := re.fullmatch(r"port ([\d,]+) is free on h-(\w+)", hint):
        freed = ports(*((int(p), int(p)) for p in found[1].split(",")))
        agents = [replace(each, total=add(each.total, (freed,))) if each.id == found[2] else each for each in agents]
        holds = [
            replace(each, resources=_without_ports(each.resources, freed)) if each.agent_id == found[2] else each
            for each in holds
        ]
    elif found := re.fullmatch(r"role-limit (\w+) ≥ ([\d.]+)", hint):
        for name in line_of(want.role):
            if name in roles:
                limit = [
                    scalar(r.name, max(r.milli / WHOLE, float(found[2]))) if r.name == found[1] else r
                    for r in roles[name].limit
                ]
                roles[name] = replace(roles[name], limit=tuple(limit))
    elif found := re.fullmatch(r"max-tasks ≥ (\d+)", hint):
        for name in line_of(want.role):
            if name in roles and roles[name].max_tasks is not None:
                roles[name] = replace(roles[name], max_tasks=max(roles[name].max_tasks or 0, int(found[1])))
    elif hint == "it is revocable":
        want = replace(want, revocable=True)
    else:
        raise AssertionError(f"a hint of an unknown form: {hint}")
    return replace(
        known, agents=agents, filters=filters, holds=holds, roles=roles, frameworks=(), wants=[replace(view, want=want)]
    )


def _without_ports(resources: Resources, freed: object) -> Resources:
    have = tuple(r for r in resources if r.name == "ports")
    return normal([*(r for r in resources if r.name != "ports"), *subtract(have, (freed,))]) if have else resources  # type: ignore[arg-type]
