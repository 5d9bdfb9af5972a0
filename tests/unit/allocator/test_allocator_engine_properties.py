"""The engine under random life: it never contradicts itself, serves in fair order, refuses only what fits nowhere."""

from collections.abc import Mapping
from random import Random

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from corral.allocator.engine import Engine, Mode, Placements, Tuning
from corral.lib.errors import Conflict
from corral.model.constraints import HOSTNAME, Constraint, Operator, allows, field_value

RESOURCES = ("cpus", "mem", "disk", "gpus")
ZONES = ("a", "b", "c")
UNITS = (125, 64_000)

SHAPES = [
    {"cpus": 500, "mem": 512_000},
    {"cpus": 1000, "mem": 1_024_000},
    {"cpus": 700, "mem": 3_000_000, "disk": 1000},
    {"cpus": 4000, "mem": 1_000_000},
    {"cpus": 1000, "mem": 256_000, "gpus": 1000},
    {"cpus": 250, "mem": 8_192_000},
    {"cpus": 99_000, "mem": 1},
]
CONSTRAINTS = [
    (),
    (),
    (Constraint(field="zone", operator=Operator.EQUAL, values=("a",)),),
    (Constraint(field="zone", operator=Operator.UNEQUAL, values=("b",)),),
    (Constraint(field="disk", operator=Operator.GLOB, values=("s*",)),),
    (Constraint(field=HOSTNAME, operator=Operator.MATCH, values=("h[0-2]",)),),
]
ROLES = ("a", "b/x", "b/y", "b", "c/p/q", "c/p/r", "c", "d")

amounts = st.fixed_dictionaries(
    {}, optional={"cpus": st.integers(0, 12).map(lambda n: n * 500), "mem": st.just(9_000_000)}
)


class World:
    """An engine beside a plain account of what it should know."""

    def __init__(self, mode: Mode = Mode.PLAIN, tuning: Tuning = Tuning()) -> None:  # noqa: B008
        self.engine = Engine(RESOURCES, unshared=(), units=UNITS, mode=mode, tuning=tuning)
        self.engine.set_reserve({})
        self.nodes: dict[int, tuple[str, Mapping[str, str], dict[str, int]]] = {}
        self.closed: set[int] = set()
        self.classes: dict[int, tuple[dict[str, int], tuple[Constraint, ...]]] = {}
        self.roles: dict[str, dict[str, object]] = {}
        self.waiting: dict[tuple[int, int, int], int] = {}
        self.tasks: dict[int, tuple[int, int, int]] = {}
        self.names = 0

    def add_node(self, cpus: int, mem: int, gpus: int, zone: str) -> None:
        total = {"cpus": cpus * 1000, "mem": mem * 1_024_000, "disk": 5000}
        if gpus:
            total["gpus"] = gpus * 1000
        hostname, attributes = f"h{self.names}", {"zone": zone, "disk": "ssd" if cpus % 2 else "hdd"}
        self.names += 1
        row = self.engine.add_node(total, hostname, attributes)
        self.nodes[row] = (hostname, attributes, total)
        self.closed.discard(row)

    def add_role(self, name: str, **options: object) -> int:
        row = self.engine.add_role(name, **options)  # type: ignore[arg-type]
        while name:
            known = self.roles.setdefault(name, {"weight": 1.0})
            if options:
                known.clear()
                known.update({"weight": 1.0} | options)
                options = {}
            name = name.rpartition("/")[0]
        return row

    def submit(self, role: int, cls: int, count: int, priority: int) -> None:
        self.engine.submit(role, cls, count, priority)
        key = (role, cls, priority)
        self.waiting[key] = self.waiting.get(key, 0) + count

    def free(self, row: int) -> dict[str, int]:
        free = {name: self.nodes[row][2].get(name, 0) for name in RESOURCES}
        for _, cls, node in self.tasks.values():
            if node == row:
                for name, ask in self.classes[cls][0].items():
                    free[name] -= ask
        return free

    def allowed(self, row: int, cls: int) -> bool:
        hostname, attributes, _ = self.nodes[row]
        return all(allows(c, field_value(c.field, hostname, attributes), (), 0, 0) for c in self.classes[cls][1])

    def fits(self, row: int, cls: int) -> bool:
        free = self.free(row)
        return (
            row not in self.closed
            and self.allowed(row, cls)
            and all(free[name] >= ask for name, ask in self.classes[cls][0].items())
        )

    def fits_anywhere(self, cls: int) -> bool:
        return any(self.fits(row, cls) for row in self.nodes)

    def held(self, name: str) -> dict[str, int]:
        held = dict.fromkeys((*RESOURCES, "tasks"), 0)
        for role, cls, _ in self.tasks.values():
            its = self.engine.role_name(role)
            if its == name or its.startswith(name + "/"):
                held["tasks"] += 1
                for resource, ask in self.classes[cls][0].items():
                    held[resource] += ask
        return held

    def path(self, name: str) -> list[str]:
        words = name.split("/")
        return ["/".join(words[:n]) for n in range(1, len(words) + 1)]

    def within_limits(self, name: str, cls: int) -> bool:
        asks = {**self.classes[cls][0], "tasks": 1}
        for each in self.path(name):
            options = self.roles[each]
            limit = dict(options.get("limit") or {})  # type: ignore[call-overload]
            if options.get("max_tasks") is not None:
                limit["tasks"] = options["max_tasks"]
            held = self.held(each)
            if any(ask > 0 and name in limit and held[name] + ask > limit[name] for name, ask in asks.items()):
                return False
        return True

    def servable(self) -> dict[str, set[int]]:
        """Classes by role that fit somewhere within all limits."""
        found: dict[str, set[int]] = {}
        for (role, cls, _), count in self.waiting.items():
            name = self.engine.role_name(role)
            if count and self.within_limits(name, cls) and self.fits_anywhere(cls):
                found.setdefault(name, set()).add(cls)
        return found

    def owed(self, name: str) -> bool:
        goal = {r: n for r, n in dict(self.roles[name].get("guarantee") or {}).items() if n}  # type: ignore[call-overload]
        held = self.held(name)
        return bool(goal) and all(held[r] < n for r, n in goal.items())

    def share(self, name: str) -> float:
        """Weighted dominant share; `name/.` is what a role that has children holds by itself."""
        own = name.endswith("/.")
        name = name.removesuffix("/.")
        held = self.held(name)
        if own:
            for other in self.roles:
                if other.rpartition("/")[0] == name:
                    held = {r: n - self.held(other)[r] for r, n in held.items()}
        total = {r: sum(each[2].get(r, 0) for each in self.nodes.values()) for r in RESOURCES}
        most = max((held[r] / total[r] for r in RESOURCES if total[r]), default=0.0)
        return most if own else most / float(self.roles[name]["weight"])  # type: ignore[arg-type]

    def branch(self, name: str, depth: int) -> str:
        """The sibling at this depth through which a role stands in line."""
        words = name.split("/")
        if depth < len(words):
            return "/".join(words[: depth + 1])
        return name + "/."

    def has_children(self, name: str) -> bool:
        return any(other.startswith(name + "/") for other in self.roles)

    def check_order(self, winner: str, servable: dict[str, set[int]]) -> None:
        """That nobody stood before the one that was served."""
        owed = [n for n in self.roles if self.owed(n) and any(s == n or s.startswith(n + "/") for s in servable)]
        scope = ""
        if owed:
            mine = [n for n in owed if winner == n or winner.startswith(n + "/")]
            assert mine, f"{winner} was served before {owed}, which are below their guarantees"
            parts = {n: (-self.priority(n), self.guarantee_part(n)) for n in owed}
            best = min(parts[n] for n in mine)
            for n in owed:
                ahead = parts[n][0] < best[0] or (parts[n][0] == best[0] and parts[n][1] < best[1] - 1e-9)
                assert not ahead, f"{winner} was served before {n}, which is further below its guarantee"
            return
        names = {n: n + "/." if self.has_children(n) else n for n in servable}
        depth = 0
        path = self.path(winner) + ([winner + "/."] if self.has_children(winner) else [])
        while depth < len(path):
            mine_at = path[depth]
            rivals = {
                [*self.path(n), names[n]][min(depth, len(self.path(n)))]
                for n in servable
                if depth == 0 or (n + "/").startswith(scope + "/")
            }
            for rival in rivals - {mine_at, scope}:
                if self.priority(rival) > self.priority(mine_at):
                    raise AssertionError(f"{mine_at} was served before {rival}, which has priority")
                if self.priority(rival) == self.priority(mine_at):
                    assert self.share(mine_at) <= self.share(rival) + 1e-9, f"{mine_at} was served before {rival}"
            scope = mine_at
            depth += 1

    def priority(self, name: str) -> int:
        return 0 if name.endswith("/.") else int(self.roles[name].get("priority", 0))  # type: ignore[call-overload]

    def guarantee_part(self, name: str) -> float:
        goal = {r: n for r, n in dict(self.roles[name].get("guarantee") or {}).items() if n}  # type: ignore[call-overload]
        held = self.held(name)
        return max(held[r] / n for r, n in goal.items())

    def tick(self, most: int) -> None:
        """One instance at a time, so that each decision can be judged."""
        for _ in range(most):
            servable = self.servable()
            placements = self.engine.tick(1)
            if not len(placements):
                assert not servable, f"{servable} could have been served"
                return
            self.account(placements, servable)

    def account(self, placements: Placements, servable: dict[str, set[int]]) -> None:
        for task, role, cls, node in zip(*(column.tolist() for column in placements[:4]), strict=True):
            name = self.engine.role_name(role)
            assert cls in servable[name], f"{name} was given class {cls}, which it may not have"
            assert self.fits(node, cls), f"class {cls} was placed on node {node}, where it does not fit"
            most = max(p for (r, c, p), n in self.waiting.items() if r == role and n and c in servable[name])
            here = max(p for (r, c, p), n in self.waiting.items() if r == role and n and c == cls)
            assert here == most, f"{name} had something of higher priority"
            self.check_order(name, servable)
            assert task not in self.tasks, f"task row {task} is in use"
            self.waiting[role, cls, here] -= 1
            self.tasks[task] = (role, cls, node)


class Life(RuleBasedStateMachine):
    """Everything that can happen to an engine, judged against the plain account."""

    @initialize(nodes=st.integers(1, 4))
    def begin(self, nodes: int) -> None:
        self.world = World()
        for i in range(nodes):
            self.world.add_node(4 + 2 * i, 8, i % 2, ZONES[i % 3])
        self.world.add_role("a")
        self.intern(SHAPES[0], (), "binpack")

    @rule(cpus=st.integers(1, 9), mem=st.integers(1, 24), gpus=st.integers(0, 2), zone=st.sampled_from(ZONES))
    def add_node(self, cpus: int, mem: int, gpus: int, zone: str) -> None:
        self.world.add_node(cpus, mem, gpus, zone)

    @rule(data=st.data())
    def remove_node(self, data: st.DataObject) -> None:
        row = data.draw(st.sampled_from(sorted(self.world.nodes)))
        if any(node == row for _, _, node in self.world.tasks.values()):
            with pytest.raises(Conflict):
                self.world.engine.remove_node(row)
        elif len(self.world.nodes) > 1:
            self.world.engine.remove_node(row)
            del self.world.nodes[row]
            self.world.closed.discard(row)

    @rule(data=st.data(), eligible=st.booleans())
    def set_eligible(self, data: st.DataObject, eligible: bool) -> None:
        row = data.draw(st.sampled_from(sorted(self.world.nodes)))
        self.world.engine.set_eligible(row, eligible)
        (self.world.closed.discard if eligible else self.world.closed.add)(row)

    @rule(
        name=st.sampled_from(ROLES),
        weight=st.sampled_from([0.5, 1.0, 3.0]),
        guarantee=st.one_of(st.none(), amounts),
        limit=st.one_of(st.none(), amounts),
        max_tasks=st.sampled_from([None, None, 1, 5]),
        priority=st.sampled_from([0, 0, 0, 3]),
    )
    def add_role(self, name: str, **options: object) -> None:
        self.world.add_role(name, **options)

    @rule(
        shape=st.sampled_from(SHAPES),
        constraints=st.sampled_from(CONSTRAINTS),
        strategy=st.sampled_from(["binpack", "spread"]),
    )
    def intern(self, shape: dict[str, int], constraints: tuple[Constraint, ...], strategy: str) -> None:
        cls = self.world.engine.intern_class(shape, constraints, strategy)
        assert self.world.classes.setdefault(cls, (shape, constraints)) == (shape, constraints)

    @rule(data=st.data(), count=st.integers(1, 6), priority=st.sampled_from([0, 0, -1, 7]))
    def submit(self, data: st.DataObject, count: int, priority: int) -> None:
        role = self.world.engine.role(data.draw(st.sampled_from(sorted(self.world.roles))))
        self.world.submit(role, data.draw(st.sampled_from(sorted(self.world.classes))), count, priority)

    @precondition(lambda self: any(self.world.waiting.values()))
    @rule(data=st.data(), count=st.integers(1, 4))
    def withdraw(self, data: st.DataObject, count: int) -> None:
        key = data.draw(st.sampled_from(sorted(key for key, left in self.world.waiting.items() if left)))
        taken = self.world.engine.withdraw(key[0], key[1], count, key[2])
        assert taken == min(count, self.world.waiting[key])
        self.world.waiting[key] -= taken

    @rule(most=st.integers(1, 12))
    def tick(self, most: int) -> None:
        self.world.tick(most)

    @precondition(lambda self: self.world.tasks)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        tasks = data.draw(st.lists(st.sampled_from(sorted(self.world.tasks)), min_size=1, max_size=4, unique=True))
        self.world.engine.release(np.array(tasks))
        for task in tasks:
            del self.world.tasks[task]

    @rule(data=st.data())
    def explain(self, data: st.DataObject) -> None:
        cls = data.draw(st.sampled_from(sorted(self.world.classes)))
        reasons = self.world.engine.explain(cls)
        assert reasons.fits == sum(self.world.fits(row, cls) for row in self.world.nodes)
        assert reasons.nodes == len(self.world.nodes)
        assert reasons.closed == len(self.world.closed)

    @invariant()
    def adds_up(self) -> None:
        self.world.engine.invariants()
        assert self.world.engine.waiting == sum(self.world.waiting.values())


Life.TestCase.settings = settings(
    max_examples=20, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
test_no_random_life_breaks_a_rule = Life.TestCase


def live(seed: int, turns: int, mode: Mode = Mode.PLAIN, tuning: Tuning = Tuning()) -> World:  # noqa: B008
    """A full cluster with a backlog that never ends, where tasks come and go."""
    random = Random(seed)
    world = World(mode, tuning)
    for i in range(random.randint(1, 6)):
        world.add_node(random.choice([2, 4, 7]), random.choice([4, 8, 16]), random.choice([0, 0, 2]), ZONES[i % 3])
    guaranteed = {"cpus": random.randint(1, 8) * 500}
    for name in random.sample(ROLES, random.randint(2, len(ROLES))):
        world.add_role(
            name,
            weight=random.choice([0.5, 1.0, 2.0]),
            priority=random.choice([0, 0, 0, 0, 2]),
            guarantee=random.choice([None, None, guaranteed]),
            limit=random.choice([None, None, None, {"cpus": 3000}]),
            max_tasks=random.choice([None, None, None, 3]),
        )
    for shape in random.sample(SHAPES, 4):
        for constraints in random.sample(CONSTRAINTS, 2):
            cls = world.engine.intern_class(shape, constraints, random.choice(["binpack", "binpack", "spread"]))
            world.classes[cls] = (shape, constraints)
    roles = [world.engine.role(name) for name in sorted(world.roles)]
    for turn in range(turns):
        for _ in range(random.choice([0, 1, 4])):
            world.submit(random.choice(roles), random.choice(sorted(world.classes)), random.choice([1, 2, 9]), 0)
        world.tick(random.choice([1, 3, 20]))
        ended = random.sample(sorted(world.tasks), min(len(world.tasks), random.choice([0, 1, 1, 2, 9])))
        if ended:
            world.engine.release(ended)
            for task in ended:
                del world.tasks[task]
        if random.random() < 0.1:
            row = random.choice(sorted(world.nodes))
            (world.closed.discard if row in world.closed else world.closed.add)(row)
            world.engine.set_eligible(row, row not in world.closed)
        if random.random() < 0.05 and len(world.nodes) < 9:
            world.add_node(4, 8, 0, random.choice(ZONES))
        if turn % 5 == 0:
            world.engine.invariants()
            assert world.engine.waiting == sum(world.waiting.values())
    return world


@pytest.mark.parametrize("seed", range(12))
def test_a_full_cluster_serves_whoever_is_next_and_fits(seed: int) -> None:
    world = live(seed, turns=60)
    assert world.engine.counts.found_dead


@pytest.mark.parametrize("tuning", [Tuning(remember=False), Tuning(walk=0), Tuning(retest=False), Tuning(walk=1)])
def test_what_makes_it_fast_changes_nothing_that_is_promised(tuning: Tuning) -> None:
    for seed in range(100, 104):
        live(seed, turns=40, tuning=tuning)
