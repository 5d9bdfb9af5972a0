"""What roles are promised and denied: guarantees with their headroom, limits, priority, weight, and past use."""

from collections import Counter

import pytest
from tests.unit.allocator.words import agent, bundle, end, granted, launch, role, run, task, told, want

from corral.allocator.view import Settings
from corral.lib.errors import Invalid
from corral.model.ids import FrameworkId, WantId
from corral.model.resources import scalar

F = FrameworkId("f")


def by_role(*allocations: object) -> Counter[str]:
    return Counter(g.role for each in allocations for g in each.grants)  # type: ignore[attr-defined]


class TestGuarantees:
    def test_a_role_below_its_guarantee_goes_before_a_smaller_share_and_a_higher_priority(self) -> None:
        allocator = told(
            agent("a"), task("t", "a", "cpus:2", role="r"),
            want("w", 9, "cpus:1"), want("v", 9, "cpus:1", role="s", framework="g"),
            r=role(guarantee="cpus:3"), s=role(priority=1023, weight=100.0),
        )  # fmt: skip
        assert [g.role for g in run(allocator).grants] == ["r", "s"]

    def test_what_a_role_holds_below_counts_for_its_guarantee(self) -> None:
        allocator = told(
            agent("a"), task("t", "a", "cpus:2", role="r/x"),
            want("w", 9, "cpus:1", role="r/y"), want("v", 9, "cpus:1", role="s", framework="g"),
            r=role(guarantee="cpus:3"),
        )  # fmt: skip
        assert by_role(run(allocator)) == {"r/y": 1, "s": 1}

    def test_lent_resources_fulfil_no_guarantee(self) -> None:
        allocator = told(
            agent("a"), task("t", "a", "cpus:2", role="r", revocable=True),
            want("w", 9, "cpus:1"), want("v", 9, "cpus:1", role="s", framework="g"),
            r=role(guarantee="cpus:2"),
        )  # fmt: skip
        assert by_role(run(allocator)) == {"r": 2}

    def test_guarantees_are_filled_evenly_by_the_part_that_is_there(self) -> None:
        allocator = told(
            agent("a", "cpus:6;mem:4096"), want("w", 9, "cpus:1"), want("v", 9, "cpus:1", role="s", framework="g"),
            r=role(guarantee="cpus:4"), s=role(guarantee="cpus:8"),
        )  # fmt: skip
        assert by_role(run(allocator)) == {"r": 2, "s": 4}


class TestHeadroom:
    def test_what_unmet_guarantees_lack_stays_free_of_firm_work_of_others(self) -> None:
        allocator = told(
            agent("a", "cpus:10;mem:4096"), task("t", "a", "cpus:1", role="g"), want("w", 99, "cpus:1"),
            g=role(guarantee="cpus:4"), h=role(guarantee="cpus:2"),
        )  # fmt: skip
        assert len(run(allocator).grants) == 4
        allocator.set_want(want("v", 9, "cpus:1", role="h", framework="h"))
        assert by_role(run(allocator, 1.0)) == {"h": 2}

    def test_one_reserve_for_the_cluster_keeps_no_more_than_itself(self) -> None:
        for reserve, expected in (("cpus:0", 10), ("cpus:3", 7), ("cpus:5", 5), ("cpus:99", 4), ("mem:64", 10)):
            allocator = told(
                agent("a", "cpus:10;mem:4096"), want("w", 99, "cpus:1"),
                g=role(guarantee="cpus:4"), h=role(guarantee="cpus:2"),
            )  # fmt: skip
            allocator.set_settings(Settings(headroom=bundle(reserve)))
            assert len(run(allocator).grants) == expected

    def test_a_guarantee_of_one_resource_keeps_none_of_the_others(self) -> None:
        allocator = told(agent("a", "cpus:4;mem:1024"), want("w", 9, "mem:256"), g=role(guarantee="cpus:4"))
        assert len(run(allocator).grants) == 4

    def test_revocable_work_may_have_what_is_kept(self) -> None:
        allocator = told(agent("a"), want("w", 9, "cpus:1", revocable=True), g=role(guarantee="cpus:4"))
        assert len(run(allocator).grants) == 4

    def test_headroom_that_is_lent_counts_as_kept(self) -> None:
        allocator = told(
            agent("a", "cpus:8;mem:64"), task("lent", "a", "cpus:4", role="s", revocable=True), want("w", 9, "cpus:1"),
            g=role(guarantee="cpus:4"),
        )  # fmt: skip
        allocation = run(allocator)
        assert (len(allocation.grants), allocation.evictions) == (4, ())

    def test_what_fulfils_a_guarantee_may_use_the_headroom_and_what_goes_beyond_may_not(self) -> None:
        allocator = told(
            agent("a"), want("w", 9, "cpus:1", role="g"), g=role(guarantee="cpus:2"), h=role(guarantee="cpus:2")
        )
        assert len(run(allocator).grants) == 2

    def test_a_guarantee_below_another_is_not_kept_twice(self) -> None:
        allocator = told(agent("a"), want("w", 9, "cpus:1"), g=role(guarantee="cpus:3"), g__x=role(guarantee="cpus:2"))
        assert len(run(allocator).grants) == 1

    def test_waiting_wants_go_on_when_a_guarantee_is_met_lowered_or_taken_back(self) -> None:
        for change in ("met", "lowered", "taken back"):
            allocator = told(agent("a", "cpus:6;mem:64"), want("w", 9, "cpus:1"), g=role(guarantee="cpus:4"))
            assert len(run(allocator).grants) == 2
            if change == "met":
                allocator.hold(task("t", "a", "cpus:2", role="g"))
                allocator.set_role("g", role(guarantee="cpus:2"))
            elif change == "lowered":
                allocator.set_role("g", role(guarantee="cpus:2"))
            else:
                allocator.remove_role("g")
            assert len(run(allocator, 1.0).grants) == {"met": 2, "lowered": 2, "taken back": 4}[change], change

    def test_work_that_ends_opens_the_headroom_for_others(self) -> None:
        allocator = told(
            agent("a"), want("w", 9, "cpus:1"), task("t", "a", "cpus:2", role="s"), g=role(guarantee="cpus:2")
        )
        assert run(allocator).grants == ()
        end(allocator, ["t"])
        assert len(run(allocator, 1.0).grants) == 2

    def test_agents_that_take_nothing_new_are_no_headroom(self) -> None:
        allocator = told(
            agent("a"), agent("b", ineligible="draining"), want("w", 9, "cpus:1"), g=role(guarantee="cpus:4")
        )
        assert run(allocator).grants == ()

    def test_an_explanation_names_what_is_kept(self) -> None:
        allocator = told(agent("a"), want("w", 9, "cpus:1"), g=role(guarantee="cpus:4"))
        run(allocator)
        explanation = allocator.explain(F, WantId("w"))
        (refusal,) = explanation.refusals
        assert (refusal.reason, refusal.detail) == ("guarantees", "what is free is kept for guarantees: cpus 4")
        assert explanation.fits_if == ("it is revocable",)


class TestLimits:
    def test_a_role_gets_no_more_than_its_limit_whatever_it_held_before(self) -> None:
        allocator = told(agent("a"), task("t", "a", "cpus:1.5"), want("w", 9, "cpus:1"), r=role(limit="cpus:3;mem:64"))
        assert len(run(allocator).grants) == 1

    def test_a_limit_is_of_the_role_with_all_roles_below_it(self) -> None:
        allocator = told(
            agent("a"), agent("b"), want("w", 9, "cpus:1", role="r/x/y"), want("v", 9, "cpus:1", role="r/z"),
            want("u", 9, "cpus:1", role="r"), r=role(limit="cpus:5"), r__x=role(limit="cpus:1"),
        )  # fmt: skip
        assert by_role(run(allocator)) == {"r/x/y": 1, "r/z": 2, "r": 2}

    def test_a_limit_of_nothing_leaves_nothing(self) -> None:
        allocator = told(agent("a"), want("w", 1, "cpus:1"), want("m", 1, "mem:32"), r=role(limit=(scalar("cpus", 0),)))
        assert granted(run(allocator)) == ["m"]

    def test_tasks_are_bounded_by_number_and_offers_count_among_them(self) -> None:
        allocator = told(agent("a"), task("t", "a", "cpus:0.1"), want("w", 9, "cpus:0.1"), r=role(max_tasks=3))
        assert len(allocator.run(0.0).grants) == 2
        assert allocator.run(1.0).grants == ()
        allocator.release("t")
        assert len(allocator.run(2.0).grants) == 1

    def test_most_tasks_of_a_role_above_bound_all_below_it(self) -> None:
        allocator = told(
            agent("a"), want("w", 9, "cpus:0.1", role="r/x"), want("v", 9, "cpus:0.1", role="r/y"), r=role(max_tasks=3)
        )
        assert sum(by_role(run(allocator)).values()) == 3

    def test_a_limit_that_is_raised_lets_wants_go_on(self) -> None:
        allocator = told(agent("a"), want("w", 9, "cpus:1"), r=role(limit="cpus:1"))
        assert len(run(allocator).grants) == 1
        allocator.set_role("r", role(limit="cpus:3"))
        assert len(run(allocator, 1.0).grants) == 2
        allocator.remove_role("r")
        assert len(run(allocator, 2.0).grants) == 1

    def test_another_want_within_the_limit_is_not_held_up(self) -> None:
        allocator = told(
            agent("a"), want("large", 1, "cpus:3", priority=5), want("small", 9, "cpus:1"), r=role(limit="cpus:2")
        )
        assert granted(run(allocator)) == ["small", "small"]

    def test_an_explanation_names_the_role_whose_limit_it_is(self) -> None:
        allocator = told(agent("a"), want("w", 9, "cpus:1", role="r/x"), r=role(limit="cpus:2", max_tasks=2))
        run(allocator)
        explanation = allocator.explain(F, WantId("w"))
        assert [each.detail for each in explanation.refusals] == [
            "role r may have cpus 2 and has 2; one more takes 1",
            "role r may have 2 tasks and has 2",
        ]


class TestOrderOfRoles:
    def test_the_higher_priority_is_served_first_among_siblings_alone(self) -> None:
        allocator = told(
            agent("a"), want("low", 9, "cpus:1", role="r/x"), want("high", 9, "cpus:1", role="r/y"),
            want("other", 9, "cpus:1", role="s"), r__y=role(priority=5),
        )  # fmt: skip
        assert by_role(run(allocator)) == {"r/y": 2, "s": 2}

    def test_a_priority_out_of_range_is_refused(self) -> None:
        for priority in (-1, 1024):
            with pytest.raises(Invalid, match="priority"):
                told(r=role(priority=priority))

    def test_each_level_divides_what_the_one_above_got(self) -> None:
        allocator = told(
            agent("a", "cpus:12;mem:64"), want("x", 99, "cpus:1", role="r/x"), want("y", 99, "cpus:1", role="r/y"),
            want("s", 99, "cpus:1", role="s"), r=role(weight=2.0), r__x=role(weight=3.0),
        )  # fmt: skip
        assert by_role(run(allocator)) == {"r/x": 6, "r/y": 2, "s": 4}

    def test_frameworks_of_one_role_share_evenly_whatever_they_ask(self) -> None:
        allocator = told(
            agent("a", "cpus:12;mem:64"), want("w", 99, "cpus:1"), want("v", 99, "cpus:1", framework="g"),
            want("u", 99, "cpus:2", framework="h"),
        )  # fmt: skip
        found = Counter(g.framework_id for g in run(allocator).grants)
        assert found == {"f": 4, "g": 4, "h": 2}

    @pytest.mark.parametrize("first", ["the role", "the roles below"])
    def test_frameworks_of_a_role_together_share_with_the_roles_below_it(self, first: str) -> None:
        own = [want(f"own{i}", 9, "cpus:1", framework=f"f{i}") for i in range(2)]
        below = [want("x", 9, "cpus:1", role="r/x"), want("y", 9, "cpus:1", role="r/y")]
        wants = [*own, *below] if first == "the role" else [*below, *own]
        allocator = told(agent("a", "cpus:3;mem:64"), task("t", "a", "cpus:0.5"), wants[0], wants[1])
        run(allocator, 0.0, most=1)
        for each in wants[2:]:
            allocator.set_want(each)
        allocator.set_agent(agent("a", "cpus:12;mem:64"))
        found = by_role(run(allocator, 1.0))
        found.update(g.role for g in allocator.view().holds if g.key in ("task/1", "t"))
        assert found == {"r": 3 + 1, "r/x": 4, "r/y": 4}
        allocator.remove_framework(FrameworkId("f0"))
        allocator.invariants()

    def test_ever_so_many_frameworks_of_a_role_make_way_for_a_role_below_it(self) -> None:
        wants = [want(f"w{i}", 9, "cpus:1", framework=f"f{i}") for i in range(40)]
        allocator = told(agent("a", "cpus:80;mem:64"), *wants)
        run(allocator, 0.0, most=40)
        allocator.set_want(want("x", 99, "cpus:1", role="r/x"))
        assert by_role(run(allocator, 1.0)) == {"r/x": 40}

    def test_what_a_framework_that_is_gone_still_holds_counts_for_its_role(self) -> None:
        allocator = told(agent("a"), want("w", 2, "cpus:1", framework="gone"))
        run(allocator)
        allocator.remove_framework(FrameworkId("gone"))
        allocator.set_want(want("v", 9, "cpus:1", framework="new"))
        allocator.set_want(want("u", 9, "cpus:1", framework="f", role="s"))
        assert by_role(run(allocator, 1.0)) == {"s": 2}


class TestPastUse:
    HOUR = 3600.0

    def lately(self, half_life_s: float | None, away_s: float) -> Counter[str]:
        """What both roles get of eight cpus when `a` had them all for ten hours, until `away_s` ago."""
        allocator = told(
            agent("x", "cpus:8;mem:64"), want("before", 8, "cpus:1", role="a"),
            a=role(half_life_s=half_life_s), b=role(half_life_s=half_life_s),
        )  # fmt: skip
        keys = launch(allocator, allocator.run(0.0))
        for hour in range(1, 11):
            allocator.run(hour * self.HOUR)
        end(allocator, keys)
        now = 10 * self.HOUR + away_s
        allocator.run(now)
        allocator.set_want(want("a", 9, "cpus:1", role="a"))
        allocator.set_want(want("b", 9, "cpus:1", role="b"))
        return by_role(run(allocator, now))

    def test_a_role_that_used_much_lately_stays_behind_its_siblings(self) -> None:
        assert self.lately(self.HOUR, 1.0) == {"b": 8}

    def test_it_catches_up_as_its_past_fades(self) -> None:
        assert self.lately(self.HOUR, self.HOUR) == {"a": 4, "b": 4}
        assert self.lately(self.HOUR, self.HOUR / 2) == {"a": 2, "b": 6}
        assert self.lately(self.HOUR, 20 * self.HOUR) == {"a": 4, "b": 4}

    def test_without_a_half_life_nothing_of_the_past_counts(self) -> None:
        assert self.lately(None, 1.0) == {"a": 4, "b": 4}

    def test_a_half_life_that_is_taken_back_forgets_the_past(self) -> None:
        allocator = told(agent("x", "cpus:8;mem:64"), want("before", 8, "cpus:1", role="a"), a=role(half_life_s=60.0))
        keys = launch(allocator, allocator.run(0.0))
        allocator.run(600.0)
        end(allocator, keys)
        allocator.set_role("a", role())
        allocator.set_want(want("a", 9, "cpus:1", role="a"))
        allocator.set_want(want("b", 9, "cpus:1", role="b"))
        assert by_role(run(allocator, 601.0)) == {"a": 4, "b": 4}
