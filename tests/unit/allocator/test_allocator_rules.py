"""Where instances go beside room: soft constraints, affinity, shares over a field, and GPUs one by one."""

from collections import Counter

import pytest
from tests.unit.allocator.words import agent, end, granted, launch, places, run, task, told, want

from corral.allocator.allocator import Allocator
from corral.allocator.view import AgentView
from corral.lib.errors import Invalid
from corral.model.constraints import HOSTNAME, Constraint, Operator
from corral.model.ids import AgentId, FrameworkId, WantId

F = FrameworkId("f")


def rule(field: str, operator: Operator, *values: str, weight: int = 0, count: int | None = None) -> Constraint:
    return Constraint(field=field, operator=operator, values=values, weight=weight, count=count)


def zones(**sizes: int) -> list[AgentView]:
    """So many agents per zone, each named by its zone and a number."""
    return [
        agent(f"{zone}{i}", "cpus:16;mem:16384;ports:[1-99]", attributes={"zone": zone})
        for zone, size in sizes.items()
        for i in range(size)
    ]


def by_zone(names: list[str]) -> Counter[str]:
    return Counter(name[0] for name in names)


class TestSoftRules:
    def test_a_soft_rule_is_kept_where_it_can_be(self) -> None:
        allocator = told(
            *zones(x=1, y=1), want("w", 20, "cpus:1", constraints=(rule("zone", Operator.EQUAL, "y", weight=1),))
        )
        assert by_zone(places(run(allocator))) == {"y": 16, "x": 4}

    def test_a_hard_rule_is_never_broken_for_a_soft_one(self) -> None:
        rules = (rule("zone", Operator.EQUAL, "x"), rule("zone", Operator.EQUAL, "y", weight=1000))
        assert by_zone(places(run(told(*zones(x=1, y=1), want("w", 20, "cpus:1", constraints=rules))))) == {"x": 16}

    def test_the_sum_of_the_weights_that_are_broken_is_the_least(self) -> None:
        agents = [
            agent("none", attributes={}),
            agent("heavy", attributes={"disk": "ssd"}),
            agent("both", attributes={"zone": "x", "net": "fast"}),
        ]
        rules = (
            rule("disk", Operator.EQUAL, "ssd", weight=5),
            rule("zone", Operator.EQUAL, "x", weight=3),
            rule("net", Operator.EQUAL, "fast", weight=3),
        )
        allocation = run(told(*agents, want("w", 3, "cpus:4", constraints=rules)))
        assert places(allocation) == ["both", "heavy", "none"]

    @pytest.mark.parametrize("strategy", ["spread", "binpack", "random", "least-tasks", "aligned"])
    def test_soft_rules_come_before_every_strategy(self, strategy: str) -> None:
        rules = (rule("zone", Operator.EQUAL, "y", weight=1),)
        filler = [task(f"t{i}", "y0", "cpus:1", role="s") for i in range(9)]
        allocator = told(*zones(x=3, y=1), *filler, want("w", 7, "cpus:1", constraints=rules, strategy=strategy))
        assert by_zone(places(run(allocator))) == {"y": 7}

    def test_soft_counting_rules_count(self) -> None:
        rules = (rule("zone", Operator.MAX_PER, weight=10, count=2),)
        allocator = told(*zones(x=1, y=1), want("w", 4, "cpus:1", constraints=rules, strategy="binpack"))
        assert by_zone(places(run(allocator))) == {"x": 2, "y": 2}
        allocator.set_want(want("w", 2, "cpus:1", constraints=rules, strategy="binpack"))
        assert len(run(allocator, 1.0).grants) == 2

    def test_a_soft_unique_puts_a_second_one_only_where_nothing_else_is(self) -> None:
        rules = (rule(HOSTNAME, Operator.UNIQUE, weight=1),)
        allocation = run(told(*zones(x=3), want("w", 5, "cpus:1", constraints=rules, strategy="binpack")))
        assert sorted(Counter(places(allocation)).values()) == [1, 1, 3]
        assert len(set(places(allocation)[:3])) == 3

    def test_a_soft_rule_is_no_reason_to_wait(self) -> None:
        rules = (rule("zone", Operator.EQUAL, "nowhere", weight=1000),)
        allocator = told(agent("a"), want("w", 5, "cpus:1", constraints=rules))
        assert len(run(allocator).grants) == 4
        assert [each.reason for each in allocator.explain(F, WantId("w")).refusals] == ["cpus"]


class TestAffinity:
    def test_near_goes_where_what_it_names_runs(self) -> None:
        near = rule("zone", Operator.NEAR, "label:db")
        allocator = told(
            *zones(x=1, y=1), task("db", "y0", framework="h", tags=("label:db",)), want("w", 3, constraints=(near,))
        )
        assert by_zone(places(run(allocator))) == {"y": 3}

    def test_near_waits_until_what_it_names_runs_somewhere(self) -> None:
        near = rule("zone", Operator.NEAR, "label:db", "label:cache")
        allocator = told(*zones(x=1, y=1), want("w", 1, constraints=(near,)))
        assert run(allocator).grants == ()
        assert allocator.explain(F, WantId("w")).refusals[0].reason == "constraint"
        allocator.hold(task("cache", "x0", framework="h", tags=("label:cache",)))
        assert by_zone(places(run(allocator, 1.0))) == {"x": 1}

    def test_near_to_ones_own_kind_begins_anywhere_and_stays_together(self) -> None:
        near = rule("zone", Operator.NEAR, "label:web")
        allocator = told(*zones(x=2, y=2), want("w", 8, "cpus:1", constraints=(near,), tags=("label:web",)))
        assert sorted(by_zone(places(run(allocator))).values()) == [8]

    def test_near_follows_what_it_names_when_that_has_moved(self) -> None:
        near = rule(HOSTNAME, Operator.NEAR, "label:db")
        allocator = told(
            *zones(x=2), task("db", "x0", framework="h", tags=("label:db",)), want("w", 1, constraints=(near,))
        )
        assert places(run(allocator)) == ["x0"]
        end(allocator, ["db"])
        allocator.hold(task("db", "x1", framework="h", tags=("label:db",)))
        allocator.set_want(want("w", 1, constraints=(near,)))
        assert places(run(allocator, 1.0)) == ["x1"]

    def test_apart_keeps_away_from_what_it_names_whosever_it_is(self) -> None:
        apart = rule("zone", Operator.APART, "label:noisy")
        noisy = task("n", "x0", role="s", framework="h", tags=("label:noisy", "label:other"))
        allocator = told(*zones(x=2, y=1), agent("n1"), noisy, want("w", 4, constraints=(apart,)))
        assert "x" not in by_zone(places(run(allocator)))

    def test_apart_sees_what_is_placed_in_the_same_run(self) -> None:
        apart = rule(HOSTNAME, Operator.APART, "label:noisy")
        allocator = told(
            *zones(x=3),
            want("noisy", 2, "cpus:1", framework="h", priority=1, tags=("label:noisy",)),
            want("w", 9, "cpus:1", constraints=(apart,)),
        )  # fmt: skip
        allocation = run(allocator)
        assert set(places(allocation, "noisy")).isdisjoint(places(allocation, "w"))
        assert len(places(allocation, "w")) == 9

    def test_apart_of_ones_own_kind_is_unique(self) -> None:
        apart = rule("zone", Operator.APART, "label:web")
        allocator = told(*zones(x=2, y=2), want("w", 9, constraints=(apart,), tags=("label:web",)))
        keys = launch(allocator, allocator.run(0.0))
        assert len(keys) == 2
        end(allocator, keys[:1])
        assert len(run(allocator, 1.0).grants) == 1

    def test_a_want_comes_after_those_it_shall_be_apart_from_and_sees_them(self) -> None:
        allocator = told(*zones(x=2), want("noisy", 1, tags=("label:noisy",)))
        (noisy,) = places(run(allocator))
        allocator.set_want(want("w", 9, constraints=(rule(HOSTNAME, Operator.APART, "label:noisy"),), framework="g"))
        assert set(places(run(allocator, 1.0))) == {"x0", "x1"} - {noisy}

    def test_soft_affinity_leans_and_does_not_bind(self) -> None:
        near = rule(HOSTNAME, Operator.NEAR, "label:db", weight=5)
        db = task("db", "x1", "cpus:14", framework="h", tags=("label:db",))
        allocator = told(*zones(x=2), db, want("w", 3, "cpus:1", constraints=(near,)))
        assert Counter(places(run(allocator))) == {"x1": 2, "x0": 1}

    def test_ever_so_many_wants_may_look_at_one_tag(self) -> None:
        allocator = told(*zones(x=4))
        for i in range(80):
            apart = rule(HOSTNAME, Operator.APART, "label:noisy", f"label:{i}")
            allocator.set_want(want(f"w{i}", 1, "cpus:0.01", framework="g", constraints=(apart,), since_at=1.0))
            allocator.set_want(want(f"v{i}", 0, "cpus:0.01", framework="g", tags=(f"label:{i}",)))
        allocator.set_want(want("noisy", 2, "cpus:1", priority=9, tags=("label:noisy",)))
        noisy = places(run(allocator), "noisy")
        assert len(noisy) == 2
        allocator.set_want(want("noisy", 1, "cpus:1", priority=9, tags=("label:noisy", "label:other")))
        noisy += places(run(allocator, 1.0), "noisy")
        for i in range(80):
            apart = rule(HOSTNAME, Operator.APART, "label:noisy", f"label:{i}")
            allocator.set_want(want(f"w{i}", 1, "cpus:0.01", framework="g", constraints=(apart,), since_at=1.0))
        assert set(places(run(allocator, 2.0))) == {"x0", "x1", "x2", "x3"} - set(noisy)
        end(allocator, [each.key for each in allocator.view().holds if "label:noisy" in each.tags])
        run(allocator, 3.0)


class TestShares:
    def test_instances_spread_over_a_field_by_target_shares(self) -> None:
        spread = rule("zone", Operator.SPREAD, "x=60", "y=30", "z=10")
        allocator = told(*zones(x=4, y=4, z=4), want("w", 20, "cpus:1", constraints=(spread,)))
        assert by_zone(places(run(allocator))) == {"x": 12, "y": 6, "z": 2}

    def test_without_numbers_the_parts_are_equal(self) -> None:
        spread = rule("zone", Operator.SPREAD, "x", "y")
        allocator = told(*zones(x=1, y=5), want("w", 8, "cpus:1", constraints=(spread,)))
        assert by_zone(places(run(allocator))) == {"x": 4, "y": 4}

    def test_a_star_stands_for_all_the_others(self) -> None:
        spread = rule("zone", Operator.SPREAD, "x=50", "*=25")
        allocator = told(*zones(x=2, y=2, z=2), want("w", 8, "cpus:1", constraints=(spread,)))
        assert by_zone(places(run(allocator))) == {"x": 4, "y": 2, "z": 2}

    def test_values_without_a_target_come_last_and_do_take_what_fits_nowhere_else(self) -> None:
        spread = rule("zone", Operator.SPREAD, "x=100")
        allocator = told(*zones(x=1, y=1), want("w", 18, "cpus:1", constraints=(spread,)))
        assert by_zone(places(run(allocator))) == {"x": 16, "y": 2}

    def test_shares_heal_after_losses(self) -> None:
        spread = rule("zone", Operator.SPREAD, "x", "y")
        allocator = told(*zones(x=2, y=2), want("w", 8, "cpus:1", group="g", constraints=(spread,)))
        run(allocator)
        lost = [each.key for each in allocator.view().holds if each.agent_id.startswith("x")]
        end(allocator, lost)
        allocator.set_want(want("w", 4, "cpus:1", group="g", constraints=(spread,)))
        assert by_zone(places(run(allocator, 1.0))) == {"x": 4}


class TestGpus:
    THERE = "cpus:16;mem:16384;gpus:2"

    def test_two_halves_share_one_gpu(self) -> None:
        allocator = told(agent("a", self.THERE), want("w", 2, "cpus:1;gpus:0.5"))
        allocation = run(allocator)
        assert [g.devices for g in allocation.grants] == [(0,), (0,)]
        allocator.set_want(want("whole", 2, "cpus:1;gpus:1"))
        assert [g.devices for g in run(allocator, 1.0).grants] == [(1,)]

    def test_two_larger_parts_do_not(self) -> None:
        allocator = told(agent("a", self.THERE), want("w", 9, "cpus:1;gpus:0.6"))
        assert sorted(g.devices for g in run(allocator).grants) == [(0,), (1,)]
        refusals = [each.reason for each in allocator.explain(F, WantId("w")).refusals]
        assert refusals == ["gpu slices"]

    def test_the_rest_of_two_gpus_is_no_whole_one(self) -> None:
        held = [task(f"t{d}", "a", "gpus:0.5", devices=(d,)) for d in (0, 1)]
        allocator = told(agent("a", self.THERE), *held, want("w", 1, "cpus:1;gpus:1"), want("h", 2, "cpus:1;gpus:0.5"))
        allocation = run(allocator)
        assert granted(allocation) == ["h", "h"]
        assert sorted(g.devices for g in allocation.grants) == [(0,), (1,)]

    def test_several_whole_gpus_are_told_one_by_one_and_given_back_so(self) -> None:
        allocator = told(agent("a", "cpus:16;mem:64;gpus:4"), want("w", 1, "cpus:1;gpus:3"))
        keys = launch(allocator, allocator.run(0.0))
        (hold,) = allocator.view().holds
        assert len(hold.devices) == 3
        allocator.set_want(want("v", 1, "cpus:1;gpus:2"))
        assert run(allocator, 1.0).grants == ()
        end(allocator, keys)
        (grant,) = run(allocator, 2.0).grants
        assert len(grant.devices) == 2

    def test_a_told_hold_takes_the_gpus_it_names(self) -> None:
        allocator = told(agent("a", self.THERE), task("t", "a", "gpus:1", devices=(0,)), want("w", 1, "cpus:1;gpus:1"))
        assert [g.devices for g in run(allocator).grants] == [(1,)]

    def test_a_told_hold_that_names_none_is_given_some(self) -> None:
        allocator = told(agent("a", self.THERE), task("t", "a", "gpus:1"), want("w", 2, "cpus:1;gpus:1"))
        assert len(run(allocator).grants) == 1

    def test_more_than_one_and_not_whole_is_refused(self) -> None:
        with pytest.raises(Invalid, match=r"want w asks 1.5 gpus; ask whole ones, or a part of one"):
            told(agent("a", self.THERE), want("w", 1, "cpus:1;gpus:1.5"))

    @pytest.mark.parametrize("strategy", ["gpu", "spread", "binpack", "random", "least-tasks", "aligned", ""])
    def test_every_strategy_tells_gpus_apart(self, strategy: str) -> None:
        allocator = told(
            agent("a", self.THERE), agent("b", self.THERE), want("w", 9, "cpus:1;gpus:0.7", strategy=strategy)
        )
        found = [(g.agent_id, g.devices) for g in run(allocator).grants]
        assert sorted(found) == [("a", (0,)), ("a", (1,)), ("b", (0,)), ("b", (1,))]

    def test_a_hint_asks_no_more_of_a_gpu_than_one_has_free(self) -> None:
        held = [task(f"t{d}", "a", "gpus:0.8", devices=(d,)) for d in (0, 1)]
        allocator = told(agent("a", self.THERE), *held, want("w", 1, "cpus:1;gpus:1"))
        assert run(allocator).grants == ()
        assert allocator.explain(F, WantId("w")).fits_if == ("gpus ≤ 0.2",)
        allocator.set_want(want("w", 1, "cpus:1;gpus:0.2"))
        assert granted(run(allocator, 1.0)) == ["w"]

    def test_a_gang_is_given_gpus_one_by_one(self) -> None:
        allocator = told(
            agent("a", self.THERE), want("w", 4, "cpus:1;gpus:0.5", gang=4), want("v", 3, "cpus:1;gpus:0.6", gang=3)
        )
        assert Counter(g.devices for g in run(allocator).grants) == {(0,): 2, (1,): 2}


def test_an_allocator_forgets_what_nobody_looks_at_any_more() -> None:
    allocator = Allocator()
    for each in zones(x=3):
        allocator.set_agent(each)
    for turn in range(30):
        rules = (rule("zone", Operator.MAX_PER, count=turn % 5 + 1), rule(HOSTNAME, Operator.APART, f"label:{turn}"))
        allocator.set_want(want(f"w{turn}", 3, "cpus:0.1", constraints=rules, fixed_ports=(turn % 7 + 1,)))
        keys = launch(allocator, allocator.run(float(turn)))
        assert keys
        allocator.invariants()
        end(allocator, keys)
        allocator.remove_want(F, WantId(f"w{turn}"))
        allocator.run(turn + 0.5)
    allocator.remove_agent(AgentId("x0"))
    allocator.invariants()
    rows = allocator.engine._tables.rows
    assert (rows["tally"], rows["class"]) == (16, 16), "room was given back"
