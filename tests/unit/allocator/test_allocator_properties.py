"""What holds for every cluster and every life: nothing is given twice, nobody waits who fits, hints can be believed.

`World` checks all of that after each answer; here it lives many short lives, by chance and by Hypothesis. Long lives
are in tests/sim.
"""

from collections import Counter
from random import Random

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from tests.unit.allocator.words import agent, bundle, launch, role, told, want
from tests.unit.allocator.world import World

from corral.model.ids import FrameworkId, WantId


@pytest.mark.parametrize("seed", range(8))
def test_no_random_life_breaks_a_rule(seed: int) -> None:
    world = World(seed)
    for _ in range(3):
        world.live(10)
        world.settle()


@pytest.mark.parametrize("seed", range(2))
def test_equal_lives_are_answered_alike(seed: int) -> None:
    one, two = World(seed), World(seed)
    one.live(15)
    two.live(15)
    assert one.log == two.log


class Life(RuleBasedStateMachine):
    """Hypothesis chooses what happens, and makes a failure short."""

    @initialize(seed=st.integers(0, 1 << 16))
    def begin(self, seed: int) -> None:
        self.world = World(seed)
        self.world.state_want()

    @rule(at=st.integers(0, len(World.events) - 1))
    def happen(self, at: int) -> None:
        World.events[at](self.world)

    @rule(passes=st.sampled_from((0.0, 1.0, 30.0)), most=st.sampled_from((0, 0, 1, 3)))
    def decide(self, passes: float, most: int) -> None:
        self.world.now += passes
        self.world.run(most)

    @rule()
    def settle(self) -> None:
        self.world.settle()


Life.TestCase.settings = settings(
    max_examples=8, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck)
)
test_no_life_that_hypothesis_finds_breaks_a_rule = Life.TestCase


shapes = st.sampled_from(("cpus:1;mem:64", "cpus:2;mem:32", "cpus:0.5;mem:512"))


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 4), st.integers(1, 30), st.integers(1, 4), shapes)
def test_backlogged_equal_roles_differ_by_one_task_at_most(roles: int, slots: int, boxes: int, shape: str) -> None:
    one = bundle(shape)
    total = "cpus:{};mem:{}".format(*(r.milli / 1000 * slots for r in one))
    allocator = told(
        *(agent(f"a{i}", total) for i in range(boxes)), *(want(f"w{i}", 999, shape, role=f"r{i}") for i in range(roles))
    )
    got = Counter(g.role for g in allocator.run(0.0).grants)
    assert sum(got.values()) == slots * boxes
    assert max(got.values()) - min(got[f"r{i}"] for i in range(roles)) <= 1


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1 << 16), st.integers(2, 4), shapes)
def test_backlogged_siblings_stay_within_a_task_of_each_other_through_coming_and_going(
    seed: int, roles: int, shape: str
) -> None:
    """Whoever is behind catches up before anybody gets ahead, at both levels of a tree."""
    random = Random(seed)
    names = [f"top/{i}" for i in range(roles)] + ["side"]
    allocator = told(
        *(agent(f"a{i}", "cpus:8;mem:4096") for i in range(4)),
        *(want(f"w {name}", 999, shape, role=name) for name in names),
    )
    running: list[str] = []
    holds = {}
    for now in range(12):
        running += launch(allocator, allocator.run(float(now)))
        holds = {each.key: each for each in allocator.view().holds}
        got = Counter(holds[key].role for key in running)
        top = sum(n for name, n in got.items() if name != "side")
        if now == 0:
            assert abs(top - got["side"]) <= 1
        before = Counter(got)
        random.shuffle(running)
        ended = [running.pop() for _ in range(random.randrange(6))]
        for key in ended:
            before[holds[key].role] -= 1
            allocator.release(key)
        running_now = launch(allocator, allocator.run(now + 0.5))
        running += running_now
        holds = {each.key: each for each in allocator.view().holds}
        got = Counter(holds[key].role for key in running)
        # Who was given something is no more than one ahead of a sibling that could have had it.
        given_to = {holds[key].role for key in running_now}
        siblings = [name for name in names if name != "side"]
        for ahead in given_to & set(siblings):
            assert all(got[ahead] - got[other] <= 1 for other in siblings), (before, got)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=3, max_size=3), st.integers(4, 16), st.integers(0, 1 << 16))
def test_firm_work_never_takes_what_guarantees_lack(guarantees: list[int], cpus: int, seed: int) -> None:
    """What fulfils a guarantee lessens what is spare and what is lacking alike; nothing else leaves less than lacks."""
    random = Random(seed)
    names = ["g0", "g1", "g1/x"]
    allocator = told(agent("a", f"cpus:{cpus};mem:9999"))
    for name, n in zip(names, guarantees, strict=True):
        allocator.set_role(name, role(guarantee=f"cpus:{n}"))
    for turn in range(12):
        name = random.choice([*names, "other", "other"])
        lent = random.choice((False, False, True))
        allocator.set_want(want(f"w{turn}", random.randrange(1, 4), "cpus:1", role=name, revocable=lent))
        before = allocator.engine.spare["cpus"] - allocator.engine.unmet()["cpus"]
        launch(allocator, allocator.run(float(turn)))
        assert allocator.engine.spare["cpus"] - allocator.engine.unmet()["cpus"] >= min(before, 0)
        for hold in allocator.view().holds:
            if random.random() < 0.2:
                allocator.release(hold.key)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1 << 16))
@example(137)  # parts of several GPUs are no larger part of one
@example(54)  # the last want of a fixed port is served in a run that frees other ports
def test_a_want_that_nothing_keeps_back_is_placed_and_each_hint_places_one_that_waits(seed: int) -> None:
    world = World(seed)
    for _ in range(6):
        world.state_want()
    for _ in range(3):
        world.add_agent()
        world.set_role()
    world.settle()
    for key, view in world.wants.items():
        found = world.allocator.explain(*key)
        assert bool(found.refusals) == (view.missing > 0)


def test_an_explanation_of_what_was_never_run_says_what_would_hold_it_back() -> None:
    allocator = told(agent("a", "cpus:1"), want("w", 1, "cpus:2"))
    assert allocator.explain(FrameworkId("f"), WantId("w")).fits_if == ("cpus ≤ 1",)
