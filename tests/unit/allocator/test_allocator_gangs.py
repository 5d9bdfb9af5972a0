"""Instances that start together or not at all: when they have room, gather it, lend it, and give up."""

from collections import Counter

import msgspec
from tests.unit.allocator.words import agent, end, granted, launch, places, role, run, task, told, want

from corral.allocator.allocator import Allocator
from corral.model.constraints import HOSTNAME, Constraint, Operator
from corral.model.ids import AgentId, FrameworkId, WantId

F = FrameworkId("f")


def gang(name: str, size: int, resources: str = "cpus:1", count: int = 0, **fields: object):  # type: ignore[no-untyped-def]
    return want(name, count or size, resources, gang=size, **fields)  # type: ignore[arg-type]


class TestAllOrNothing:
    def test_a_gang_that_fits_starts_at_once(self) -> None:
        allocation = run(told(agent("a"), agent("b"), gang("w", 8)))
        assert Counter(places(allocation)) == {"a": 4, "b": 4}
        assert allocation.waiting == ()

    def test_a_gang_that_lacks_one_place_gets_none(self) -> None:
        allocator = told(agent("a"), agent("b"), gang("w", 9))
        for now in range(5):
            assert granted(run(allocator, float(now))) == []
        refusals = {r.reason: r for r in allocator.explain(F, WantId("w")).refusals}
        assert refusals["gang"].detail == "wants 9 instances at once and keeps room for 8 so far"

    def test_of_several_gangs_of_a_want_as_many_start_as_are_whole(self) -> None:
        allocator = told(agent("a"), agent("b"), gang("w", 3, count=9))
        assert len(run(allocator).grants) == 6

    def test_a_count_beyond_whole_gangs_waits(self) -> None:
        allocator = told(agent("a"), gang("w", 3, count=4))
        assert len(run(allocator).grants) == 3
        assert run(allocator, 1.0).grants == ()

    def test_a_gang_keeps_its_constraints_among_its_own_instances(self) -> None:
        unique = (Constraint(field=HOSTNAME, operator=Operator.UNIQUE),)
        allocator = told(agent("a"), agent("b"), gang("w", 2, constraints=unique), gang("v", 3, constraints=unique))
        assert sorted(places(run(allocator), "w")) == ["a", "b"]
        assert places(run(allocator, 1.0)) == []

    def test_a_gang_counts_as_a_whole_against_a_limit(self) -> None:
        for settings in (role(limit="cpus:3"), role(max_tasks=3)):
            allocator = told(agent("a"), gang("w", 4), r=settings)
            for now in range(4):
                assert granted(run(allocator, float(now))) == []
        assert len(run(told(agent("a"), gang("w", 4), r=role(limit="cpus:4", max_tasks=4))).grants) == 4

    def test_what_a_gang_found_in_vain_is_free_for_others_in_the_same_run(self) -> None:
        allocator = told(agent("a"), gang("w", 5, priority=9), want("single", 4, "cpus:1"))
        assert granted(run(allocator)) == ["single"] * 4


class TestGathering:
    def full(self, *wants: object) -> Allocator:
        """Two agents of four cpus, all taken one by one by short tasks of somebody else."""
        allocator = told(agent("a"), agent("b"), *wants)  # type: ignore[arg-type]
        for at in "ab":
            for i in range(4):
                allocator.hold(task(f"{at}{i}", at, "cpus:1", role="s", framework="g"))
        return allocator

    def test_a_gang_keeps_what_comes_free_until_it_is_whole(self) -> None:
        allocator = self.full(gang("w", 4))
        allocator.set_want(want("greedy", 99, "cpus:1", framework="h", since_at=9.0))
        run(allocator, 0.0)
        got: list[str | None] = []
        for now, key in enumerate(["a0", "b0", "a1", "b1", "a2", "b2", "a3", "b3"], start=1):
            end(allocator, [key])
            got += granted(run(allocator, float(now)))
        assert got.count("w") == 4
        assert [each for each in got if each == "greedy"] == ["greedy"] * 4

    def test_a_gang_lets_go_when_its_time_is_up(self) -> None:
        allocator = self.full(gang("w", 4, gang_timeout_s=60.0))
        run(allocator, 0.0)
        end(allocator, ["a0", "a1"])
        assert granted(run(allocator, 1.0)) == []
        allocator.set_want(want("small", 2, "cpus:1", framework="h"))
        assert granted(run(allocator, 59.0)) == []
        assert granted(run(allocator, 60.0)) + granted(run(allocator, 61.0)) == ["small", "small"]

    def test_a_gang_alone_gathers_again_after_its_time_was_up(self) -> None:
        allocator = self.full(gang("w", 4, gang_timeout_s=60.0))
        for now in (0.0, 60.0, 61.0):
            run(allocator, now)
        end(allocator, ["a0", "a1", "b0", "b1"])
        assert granted(run(allocator, 62.0)) + granted(run(allocator, 63.0)) == ["w"] * 4

    def test_two_gangs_never_hold_each_other_up(self) -> None:
        allocator = told(
            agent("a"), agent("b"),
            gang("w1", 6, framework="f1", gang_timeout_s=10.0), gang("w2", 6, framework="f2", gang_timeout_s=10.0),
        )  # fmt: skip
        for i in range(3):
            allocator.hold(task(f"t{i}", "a", "cpus:1", role="s", framework="g"))
        for now in range(30):
            assert granted(run(allocator, float(now))) == []
        end(allocator, ["t0", "t1", "t2"])
        first = [granted(run(allocator, now)) for now in (30.0, 31.0, 42.0, 43.0)]
        (one,) = [each for each in first if each]
        assert len(one) == 6
        assert len(set(one)) == 1

    def test_gangs_that_cannot_be_whole_take_turns_and_so_the_one_that_can_has_its_own(self) -> None:
        allocator = told(agent("a"), agent("b"), gang("huge", 9, framework="f1", priority=5, gang_timeout_s=10.0))
        run(allocator, 0.0)
        assert allocator.gathered((FrameworkId("f1"), WantId("huge"))) is not None
        allocator.set_want(gang("fits", 8, framework="f2", gang_timeout_s=10.0))
        got = [granted(run(allocator, now)) for now in (5.0, 10.0, 11.0)]
        assert [each for found in got for each in found] == ["fits"] * 8

    def test_a_slot_on_an_agent_that_drains_is_replaced(self) -> None:
        allocator = self.full(gang("w", 3))
        run(allocator, 0.0)
        end(allocator, ["a0", "b0"])
        run(allocator, 1.0)
        assert allocator.gathered((F, WantId("w"))) == (2, 3)
        allocator.set_agent(agent("a", ineligible="draining"))
        run(allocator, 2.0)
        end(allocator, ["b1", "b2"])
        found = [*run(allocator, 3.0).grants, *run(allocator, 4.0).grants]
        assert [g.agent_id for g in found] == ["b", "b", "b"]

    def test_a_slot_on_an_agent_that_is_gone_is_replaced(self) -> None:
        allocator = self.full(gang("w", 3))
        run(allocator, 0.0)
        end(allocator, ["a0", "b0"])
        run(allocator, 1.0)
        allocator.remove_agent(AgentId("a"))
        run(allocator, 2.0)
        end(allocator, ["b1", "b2"])
        found = [*run(allocator, 3.0).grants, *run(allocator, 4.0).grants]
        assert [g.agent_id for g in found] == ["b", "b", "b"]

    def test_a_gang_withdrawn_frees_what_it_gathered(self) -> None:
        allocator = self.full(gang("w", 4))
        run(allocator, 0.0)
        end(allocator, ["a0", "b0"])
        run(allocator, 1.0)
        allocator.remove_want(F, WantId("w"))
        allocator.set_want(want("other", 9, "cpus:1", framework="h"))
        assert granted(run(allocator, 2.0)) == ["other", "other"]

    def test_a_gang_stated_otherwise_gathers_anew(self) -> None:
        allocator = self.full(gang("w", 4))
        run(allocator, 0.0)
        end(allocator, ["a0", "b0"])
        run(allocator, 1.0)
        allocator.set_want(gang("w", 2, "cpus:1"))
        found = [*granted(run(allocator, 2.0)), *granted(run(allocator, 3.0))]
        assert found == ["w", "w"]

    def test_a_resource_learned_meanwhile_lets_the_gang_gather_anew(self) -> None:
        allocator = self.full(gang("w", 4))
        run(allocator, 0.0)
        end(allocator, ["a0", "b0"])
        run(allocator, 1.0)
        allocator.set_agent(agent("c", "licences:1"))
        run(allocator, 2.0)
        end(allocator, ["a1", "b1"])
        found = [granted(run(allocator, now)) for now in (3.0, 4.0, 5.0)]
        assert sorted(len(each) for each in found) == [0, 0, 4]

    def test_a_gang_that_lacks_nothing_any_more_gathers_nothing(self) -> None:
        allocator = self.full(gang("w", 4))
        run(allocator, 0.0)
        end(allocator, ["a0"])
        run(allocator, 1.0)
        allocator.set_want(msgspec.structs.replace(gang("w", 4), missing=0))
        allocator.set_want(want("other", 9, "cpus:1", framework="h"))
        assert granted(run(allocator, 2.0)) == ["other"]

    def test_a_gang_that_is_whole_and_lacks_nothing_any_more_is_not_started(self) -> None:
        allocator = self.full(gang("w", 2))
        run(allocator, 0.0)
        end(allocator, ["a0", "a1"])
        allocator.set_want(msgspec.structs.replace(gang("w", 2), missing=0))
        assert granted(run(allocator, 1.0)) == []
        allocator.set_want(want("other", 9, "cpus:1", framework="h"))
        assert granted(run(allocator, 2.0)) == ["other", "other"]

    def test_ports_that_a_gang_keeps_are_distinct(self) -> None:
        allocator = self.full(gang("w", 4, ports=2))
        run(allocator, 0.0)
        for now, key in enumerate(["a0", "a1", "a2", "a3"], start=1):
            end(allocator, [key])
            run(allocator, float(now))
        holds = [each for each in allocator.view().holds if each.want_id == "w"]
        assert len(holds) == 4
        spans = [span for each in holds for r in each.resources if r.name == "ports" for span in r.ranges]
        numbers = [p for low, high in spans for p in range(low, high + 1)]
        assert (len(numbers), len(set(numbers))) == (8, 8)


class TestLending:
    def gathering(self, timeout_s: float = 100.0) -> Allocator:
        """A gang of four has three of its places until then; one task of somebody else is in its way."""
        allocator = told(agent("a"), task("long", "a", "cpus:1", role="s", framework="g"))
        allocator.set_want(gang("w", 4, gang_timeout_s=timeout_s))
        run(allocator, 0.0)
        run(allocator, 1.0)
        assert allocator.gathered((F, WantId("w"))) == (3, 4)
        return allocator

    def test_work_that_ends_in_time_may_use_the_places_meanwhile(self) -> None:
        allocator = self.gathering()
        allocator.set_want(want("short", 2, "cpus:1", framework="h", run_s=50.0))
        assert granted(run(allocator, 10.0)) == ["short", "short"]

    def test_work_that_would_end_too_late_may_not(self) -> None:
        allocator = self.gathering()
        allocator.set_want(want("late", 2, "cpus:1", framework="h", run_s=91.0))
        allocator.set_want(want("unknown", 2, "cpus:1", framework="h"))
        assert granted(run(allocator, 10.0)) == []

    def test_the_gang_gets_back_what_was_lent(self) -> None:
        allocator = self.gathering()
        allocator.set_want(want("short", 3, "cpus:1", framework="h", run_s=50.0))
        allocation = allocator.run(10.0)
        keys = launch(allocator, allocation)
        assert granted(allocation) == ["short"] * 3
        end(allocator, keys)
        allocator.set_want(want("greedy", 99, "cpus:1", framework="i", priority=9, preempts=False))
        assert granted(run(allocator, 60.0)) == []
        assert allocator.gathered((F, WantId("w"))) == (3, 4)

    def test_a_gang_starts_elsewhere_while_its_places_are_lent(self) -> None:
        allocator = self.gathering()
        allocator.set_want(want("short", 3, "cpus:1", framework="h", run_s=50.0))
        run(allocator, 10.0)
        allocator.set_agent(agent("b"))
        found = [*run(allocator, 11.0).grants, *run(allocator, 12.0).grants]
        assert Counter(g.agent_id for g in found) == {"b": 4}

    def test_what_is_lent_keeps_limits(self) -> None:
        allocator = self.gathering()
        allocator.set_role("t", role(limit="cpus:1"))
        allocator.set_want(want("short", 3, "cpus:1", framework="h", role="t", run_s=50.0))
        assert granted(run(allocator, 10.0)) == ["short"]
