"""Who has to make room for whom, how much of it, how fast, and to whom the room goes then."""

from collections import Counter

from tests.unit.allocator.words import agent, end, granted, launch, places, role, run, task, told, want

from corral.allocator.allocator import Allocator
from corral.allocator.view import HoldKind, Settings
from corral.model.constraints import HOSTNAME, Constraint, Operator
from corral.model.ids import AgentId, FrameworkId, WantId

F = FrameworkId("f")
W = WantId("w")


def victims(allocator: Allocator, now: float = 0.0) -> list[str]:
    return [each.key for each in run(allocator, now).evictions]


class TestWhoMayGo:
    def test_work_of_lower_priority_in_the_same_role_makes_room(self) -> None:
        allocator = told(agent("a"), task("low", "a", "cpus:4", framework="g"), want("w", priority=1))
        (eviction,) = run(allocator).evictions
        assert (eviction.key, eviction.framework_id, eviction.role, eviction.agent_id) == ("low", "g", "r", "a")
        assert (eviction.want_id, eviction.for_framework_id, eviction.for_role) == ("w", "f", "r")
        assert eviction.why == "priority 0 made room for priority 1 of the same role: w of f"

    def test_work_of_equal_or_higher_priority_stays(self) -> None:
        for priority in (1, 2, 511):
            allocator = told(agent("a"), task("t", "a", "cpus:4", priority=priority), want("w", priority=1))
            assert victims(allocator) == []

    def test_firm_work_of_another_role_stays_whatever_its_priority(self) -> None:
        for other in ("s", "r/below", "r2"):
            allocator = told(
                agent("a"), task("t", "a", "cpus:4", role=other, priority=-512), want("w", priority=511),
                r=role(guarantee="cpus:4", weight=100.0),
            )  # fmt: skip
            assert victims(allocator) == []

    def test_revocable_work_of_anybody_makes_room_for_firm_work_of_any_priority(self) -> None:
        allocator = told(
            agent("a"), task("lent", "a", "cpus:4", role="s", revocable=True, priority=511), want("w", priority=-512)
        )
        (eviction,) = run(allocator).evictions
        assert (eviction.key, eviction.role) == ("lent", "s")
        assert eviction.why == "it ran on lent resources, which role r takes back for w of f"

    def test_nothing_makes_room_for_revocable_work(self) -> None:
        allocator = told(
            agent("a"),
            task("lent", "a", "cpus:2", revocable=True, priority=-1),
            task("low", "a", "cpus:2", priority=-1),
            want("w", revocable=True, priority=9),
        )
        assert victims(allocator) == []

    def test_a_want_that_does_not_preempt_still_takes_back_what_was_lent(self) -> None:
        low, lent = task("low", "a", "cpus:4"), task("lent", "b", "cpus:4", role="s", revocable=True)
        wants = want("w", 2, "cpus:3", priority=5, preempts=False)
        assert victims(told(agent("a"), agent("b"), low, lent, wants)) == ["lent"]

    def test_offers_are_not_evicted(self) -> None:
        for kind in (HoldKind.SHAPED, HoldKind.GRANT):
            assert victims(told(agent("a"), task("o", "a", "cpus:4", kind=kind), want("w", priority=5))) == []

    def test_work_that_is_leaving_already_is_not_told_twice(self) -> None:
        allocator = told(agent("a"), task("t", "a", "cpus:4", leaving=True), want("w", priority=5))
        assert victims(allocator) == []

    def test_work_on_an_agent_that_takes_nothing_new_stays(self) -> None:
        allocator = told(agent("a", ineligible="draining"), task("t", "a", "cpus:4"), want("w", priority=5))
        assert victims(allocator) == []

    def test_work_stays_where_a_constraint_forbids_the_want(self) -> None:
        elsewhere = (Constraint(field=HOSTNAME, operator=Operator.EQUAL, values=("b",)),)
        full = [task("a", "a", "cpus:4"), task("b", "b", "cpus:4")]
        wants = want("w", 1, priority=5, constraints=elsewhere)
        assert victims(told(agent("a"), agent("b"), *full, wants)) == ["b"]

    def test_nothing_goes_for_a_want_that_would_not_fit_even_then(self) -> None:
        assert victims(told(agent("a"), task("t", "a", "cpus:2"), want("w", 1, "cpus:5", priority=5))) == []
        firm = task("firm", "a", "cpus:2", role="s")
        assert victims(told(agent("a"), task("t", "a", "cpus:2"), firm, want("w", 1, "cpus:3", priority=5))) == []


class TestWhoGoes:
    def test_nothing_goes_where_the_want_fits_anyway(self) -> None:
        allocator = told(agent("a"), task("t", "a", "cpus:3"), want("w", priority=5))
        allocation = run(allocator)
        assert (granted(allocation), allocation.evictions) == (["w"], ())

    def test_lent_work_goes_before_firm_work(self) -> None:
        holds = [task("firm", "a", "cpus:2", priority=-9), task("lent", "a", "cpus:2", revocable=True, priority=9)]
        assert victims(told(agent("a"), *holds, want("w", 1, "cpus:1", priority=1))) == ["lent"]

    def test_the_lowest_priority_goes_first_and_the_youngest_of_equals(self) -> None:
        holds = [
            task("higher", "a", "cpus:1", priority=1, since_at=9.0),
            task("old", "a", "cpus:1", since_at=1.0),
            task("young", "a", "cpus:1", since_at=5.0),
            task("highest", "a", "cpus:1", priority=2),
        ]
        assert victims(told(agent("a"), *holds, want("w", 1, "cpus:1", priority=3))) == ["young"]
        assert victims(told(agent("a"), *holds, want("w", 1, "cpus:2", priority=3))) == ["young", "old"]
        assert victims(told(agent("a"), *holds, want("w", 1, "cpus:3", priority=3))) == ["young", "old", "higher"]

    def test_nobody_goes_who_is_not_needed(self) -> None:
        holds = [task("small", "a", "cpus:1", priority=-2), task("large", "a", "cpus:3", priority=-1)]
        assert victims(told(agent("a"), *holds, want("w", 1, "cpus:3"))) == ["large"]
        memory = task("memory", "b", "mem:64", priority=-5)
        holds = [memory, task("cpus", "b", "cpus:4", priority=-1)]
        assert victims(told(agent("b"), *holds, want("w", 1, "cpus:3;mem:512"))) == ["cpus"]

    def test_the_agent_is_chosen_whose_victims_cost_least(self) -> None:
        agents = [agent(each) for each in "abcd"]
        holds = [
            task("a", "a", "cpus:4", priority=2),
            task("b1", "b", "cpus:2", priority=1), task("b2", "b", "cpus:2", priority=1),
            task("c", "c", "cpus:4", priority=1, since_at=1.0),
            task("d", "d", "cpus:4", priority=1, since_at=2.0),
        ]  # fmt: skip
        stated = want("w", 4, "cpus:4", priority=3)
        assert victims(told(*agents, *holds, stated)) == ["d", "c", "a", "b1", "b2"]

    def test_one_agents_lent_work_is_dearer_than_none_and_cheaper_than_firm_work(self) -> None:
        holds = [
            task("firm", "a", "cpus:4", priority=-9),
            *(task(f"lent{i}", "b", "cpus:1", role="s", revocable=True) for i in range(4)),
        ]
        stated = want("w", 1, "cpus:4", priority=3)
        assert sorted(victims(told(agent("a"), agent("b"), *holds, stated))) == [f"lent{i}" for i in range(4)]

    def test_more_important_wants_choose_first(self) -> None:
        allocator = told(
            agent("a"), task("t", "a", "cpus:4"),
            want("low", 1, "cpus:4", priority=1, since_at=1.0), want("high", 1, "cpus:4", priority=2, since_at=2.0),
        )  # fmt: skip
        (eviction,) = run(allocator).evictions
        assert eviction.want_id == "high"

    def test_who_holds_the_fixed_port_goes(self) -> None:
        holds = [
            task("other", "a", "cpus:1;ports:[31001-31001]", priority=-9),
            task("holder", "a", "cpus:1;ports:[31000-31000]"),
        ]
        allocator = told(agent("a"), *holds, want("w", fixed_ports=(31000,), priority=1))
        assert victims(allocator) == ["holder"]
        end(allocator, ["holder"])
        assert granted(run(allocator, 1.0)) == ["w"]

    def test_nobody_goes_for_a_port_that_stays_taken(self) -> None:
        holds = [
            task("low", "a", "cpus:3;ports:[31001-31001]"),
            task("holder", "a", "cpus:1;ports:[31000-31000]", role="s"),
        ]
        assert victims(told(agent("a"), *holds, want("w", 1, "cpus:1", fixed_ports=(31000,), priority=1))) == []

    def test_a_whole_gpu_is_cleared_and_not_parts_of_several(self) -> None:
        holds = [
            task("half", "a", "cpus:1;gpus:0.5", priority=-1, devices=(0,)),
            task("firm", "a", "cpus:1;gpus:0.5", role="s", devices=(0,)),
            task("whole", "a", "cpus:1;gpus:1", devices=(1,)),
        ]
        there = agent("a", "cpus:8;mem:4096;gpus:2")
        allocator = told(there, *holds, want("w", 1, "cpus:1;gpus:1", priority=1))
        assert victims(allocator) == ["whole"]
        end(allocator, ["whole"])
        (grant,) = run(allocator, 1.0).grants
        assert grant.devices == (1,)

    def test_nobody_goes_for_a_gpu_that_stays_in_parts(self) -> None:
        holds = [
            *(task(f"firm{d}", "a", "cpus:1;gpus:0.4", role="s", devices=(d,)) for d in (0, 1)),
            *(task(f"low{d}", "a", "cpus:1;gpus:0.4", devices=(d,)) for d in (0, 1)),
        ]
        there = agent("a", "cpus:8;mem:4096;gpus:2")
        assert victims(told(there, *holds, want("w", 1, "cpus:1;gpus:1", priority=1))) == []


class TestLimits:
    def test_a_role_at_its_limit_makes_room_among_its_own(self) -> None:
        allocator = told(
            agent("a"), agent("b"), task("low", "a", "cpus:2"), want("w", 1, "cpus:1", priority=1),
            r=role(limit="cpus:2"),
        )  # fmt: skip
        assert victims(allocator) == ["low"]
        end(allocator, ["low"])
        assert granted(run(allocator, 1.0)) == ["w"]

    def test_a_role_at_its_most_tasks_makes_room_among_its_own(self) -> None:
        allocator = told(agent("a"), task("low", "a"), want("w", priority=1), r=role(max_tasks=1))
        assert victims(allocator) == ["low"]
        end(allocator, ["low"])
        assert granted(run(allocator, 1.0)) == ["w"]

    def test_lent_work_of_others_stays_when_the_role_is_at_its_limit(self) -> None:
        allocator = told(
            agent("a"), task("lent", "a", "cpus:2", role="s", revocable=True), task("own", "a", "cpus:2", priority=5),
            want("w", 1, "cpus:1", priority=1), r=role(limit="cpus:2"),
        )  # fmt: skip
        assert victims(allocator) == []

    def test_lent_work_stays_when_what_it_would_leave_is_kept_for_a_guarantee(self) -> None:
        allocator = told(
            agent("a"), task("lent", "a", "cpus:4", role="s", revocable=True), want("w", 1, "cpus:1"),
            g=role(guarantee="cpus:4"),
        )  # fmt: skip
        assert victims(allocator) == []


class TestPace:
    def test_no_more_work_is_moved_out_in_a_minute_than_the_operator_allows(self) -> None:
        allocator = told(
            *(agent(f"a{i}") for i in range(8)), *(task(f"t{i}", f"a{i}", "cpus:4") for i in range(8)),
            want("w", 8, "cpus:4", priority=1),
        )  # fmt: skip
        allocator.set_settings(Settings(evictions_per_minute=3))
        by_time: Counter[float] = Counter()
        for now in (0.0, 10.0, 30.0, 59.9, 60.0, 61.0, 119.0, 120.0):
            found = victims(allocator, now)
            by_time[now] = len(found)
            end(allocator, found)
        assert by_time == {0.0: 3, 10.0: 0, 30.0: 0, 59.9: 0, 60.0: 3, 61.0: 0, 119.0: 0, 120.0: 2}

    def test_a_set_of_victims_beyond_the_pace_is_not_begun_in_part(self) -> None:
        allocator = told(
            agent("a"), *(task(f"t{i}", "a", "cpus:1") for i in range(4)), want("w", 1, "cpus:3", priority=1)
        )
        allocator.set_settings(Settings(evictions_per_minute=2))
        assert victims(allocator) == []
        allocator.set_settings(Settings(evictions_per_minute=3))
        assert len(victims(allocator, 1.0)) == 3

    def test_with_a_pace_of_none_nobody_goes(self) -> None:
        allocator = told(agent("a"), task("t", "a", "cpus:4"), want("w", priority=1))
        allocator.set_settings(Settings(evictions_per_minute=0))
        assert victims(allocator) == []


class TestWhereTheRoomGoes:
    def clearing(self) -> Allocator:
        """Two tasks of one agent are leaving for `w`, which wants all of the agent."""
        allocator = told(
            agent("a"), task("t1", "a", "cpus:2"), task("t2", "a", "cpus:1"), want("w", 1, "cpus:4", priority=1)
        )
        assert sorted(victims(allocator)) == ["t1", "t2"]
        return allocator

    def test_the_want_has_the_room_as_soon_as_all_victims_have_gone(self) -> None:
        allocator = self.clearing()
        assert granted(run(allocator, 1.0)) == []
        end(allocator, ["t1"])
        assert granted(run(allocator, 2.0)) == []
        end(allocator, ["t2"])
        allocation = run(allocator, 3.0)
        assert (granted(allocation), places(allocation), allocation.waiting) == (["w"], ["a"], ())

    def test_nobody_else_gets_what_is_free_or_what_the_first_victims_leave(self) -> None:
        allocator = self.clearing()
        allocator.set_want(want("greedy", 9, "cpus:1", framework="g", priority=9))
        assert granted(run(allocator, 1.0)) == []
        end(allocator, ["t1"])
        assert granted(run(allocator, 2.0)) == []
        end(allocator, ["t2"])
        assert granted(run(allocator, 3.0)) == ["w"]

    def test_what_victims_leave_beyond_the_want_is_for_anybody(self) -> None:
        allocator = told(agent("a"), task("t", "a", "cpus:4"), want("w", 1, "cpus:1", priority=1))
        assert victims(allocator) == ["t"]
        allocator.set_want(want("next", 9, "cpus:1", framework="g", priority=-1))
        end(allocator, ["t"])
        assert granted(run(allocator, 1.0)) == ["w", "next", "next", "next"]

    def test_no_second_set_of_victims_is_chosen_while_the_first_is_leaving(self) -> None:
        allocator = told(
            agent("a"), agent("b"), task("t1", "a", "cpus:4"), task("t2", "b", "cpus:4"), want("w", 1, priority=1)
        )
        assert len(victims(allocator)) == 1
        assert victims(allocator, 1.0) == []
        assert allocator.run(2.0).waiting == (("f", "w"),)

    def test_room_that_turns_up_elsewhere_is_left_to_others_while_victims_leave(self) -> None:
        allocator = self.clearing()
        allocator.set_agent(agent("b"))
        assert granted(run(allocator, 1.0)) == []
        end(allocator, ["t1", "t2"])
        assert places(run(allocator, 2.0)) == ["a"]

    def test_a_want_withdrawn_meanwhile_frees_what_was_kept(self) -> None:
        allocator = self.clearing()
        end(allocator, ["t1"])
        run(allocator, 1.0)
        allocator.remove_want(F, W)
        allocator.set_want(want("other", 9, "cpus:1", framework="g"))
        assert granted(run(allocator, 2.0)) == ["other"] * 3

    def test_a_want_that_lacks_nothing_any_more_frees_what_was_kept(self) -> None:
        allocator = self.clearing()
        allocator.set_want(want("w", 0, "cpus:4", priority=1))
        allocator.set_want(want("other", 9, "cpus:1", framework="g"))
        assert granted(run(allocator, 2.0)) == ["other"]

    def test_a_framework_that_goes_frees_what_was_kept_for_it(self) -> None:
        allocator = self.clearing()
        allocator.remove_framework(F)
        allocator.set_want(want("other", 9, "cpus:1", framework="g"))
        assert granted(run(allocator, 2.0)) == ["other"]

    def test_an_agent_that_takes_nothing_new_any_more_leaves_the_want_to_look_elsewhere(self) -> None:
        allocator = self.clearing()
        allocator.set_agent(agent("a", ineligible="draining"))
        allocator.set_agent(agent("b"))
        assert places(run(allocator, 1.0)) == ["b"]

    def test_an_agent_that_is_gone_leaves_the_want_to_look_elsewhere(self) -> None:
        allocator = self.clearing()
        allocator.remove_agent(AgentId("a"))
        allocator.set_agent(agent("b"))
        assert places(run(allocator, 1.0)) == ["b"]

    def test_a_resource_learned_meanwhile_does_not_lose_the_room(self) -> None:
        allocator = self.clearing()
        allocator.set_agent(agent("b", "licences:3"))
        allocator.set_want(want("greedy", 9, "cpus:1", framework="g", priority=9))
        assert granted(run(allocator, 1.0)) == []
        end(allocator, ["t1", "t2"])
        assert granted(run(allocator, 2.0)) == ["w"]

    def test_an_explanation_says_that_room_is_being_made(self) -> None:
        allocator = self.clearing()
        first = allocator.explain(F, W).refusals[0]
        assert (first.reason, first.best) == ("clearing", "a")
        assert first.detail == "room is being made on a: 2 tasks of less claim are ending"

    def test_the_room_is_not_given_once_a_limit_forbids_it(self) -> None:
        allocator = self.clearing()
        allocator.set_role("r", role(limit="cpus:3"))
        end(allocator, ["t1", "t2"])
        assert granted(run(allocator, 1.0)) == []

    def test_several_instances_are_cleared_for_at_the_same_time(self) -> None:
        allocator = told(
            agent("a"), agent("b"), task("t1", "a", "cpus:4"), task("t2", "b", "cpus:4"),
            want("w", 2, "cpus:4", priority=1),
        )  # fmt: skip
        assert sorted(victims(allocator)) == ["t1", "t2"]
        end(allocator, ["t2"])
        assert places(run(allocator, 1.0)) == ["b"]
        end(allocator, ["t1"])
        assert places(run(allocator, 2.0)) == ["a"]

    def test_instances_cleared_for_on_one_agent_do_not_keep_each_others_room(self) -> None:
        for backwards in (False, True):
            tasks = [task(name, "a", "cpus:1", revocable=True, role="s") for name in ("t1", "t2", "t3", "t4")]
            allocator = told(agent("a"), *tasks, want("w", 2, "cpus:1"), r=role(guarantee="cpus:3"))
            gone = victims(allocator)
            assert len(gone) == 2
            for now, name in enumerate(gone[::-1] if backwards else gone, start=1):
                end(allocator, [name])
                found = run(allocator, float(now))
                assert places(found) == ["a"]
                assert found.evictions == ()
            allocator.invariants()

    def test_what_one_of_two_victims_has_left_is_not_kept_for_another_instance(self) -> None:
        tasks = [task(f"t{i}", "a", "cpus:1", revocable=True, role="s", since_at=float(i)) for i in range(4)]
        allocator = told(agent("a"), *tasks, want("w", 2, "cpus:2"))
        assert sorted(victims(allocator)) == ["t0", "t1", "t2", "t3"]
        for now, name in enumerate(["t1", "t3", "t0"], start=1):
            end(allocator, [name])
            found = run(allocator, float(now))
            assert found.evictions == ()
            assert places(found) == (["a"] if name == "t0" else [])
        end(allocator, ["t2"])
        assert places(run(allocator, 9.0)) == ["a"]
        allocator.invariants()


class TestReclaim:
    def test_lent_work_makes_room_for_a_guarantee_and_nothing_firm_does(self) -> None:
        allocator = told(
            agent("a"), agent("b"),
            task("firm", "a", "cpus:4", role="s"), task("lent", "b", "cpus:4", role="s", revocable=True),
            want("w", 8, "cpus:1"), r=role(guarantee="cpus:4"),
        )  # fmt: skip
        assert victims(allocator) == ["lent"]
        end(allocator, ["lent"])
        assert granted(run(allocator, 1.0)) == ["w"] * 4

    def test_a_guarantee_is_taken_back_in_pieces_as_wants_come(self) -> None:
        allocator = told(
            agent("a"), want("soft", 4, "cpus:1", role="s", framework="g", revocable=True), r=role(guarantee="cpus:4")
        )
        keys = launch(allocator, allocator.run(0.0))
        assert len(keys) == 4
        allocator.set_want(want("w", 1, "cpus:2"))
        gone = victims(allocator, 1.0)
        assert len(gone) == 2
        end(allocator, gone)
        assert granted(run(allocator, 2.0)) == ["w"]
        assert victims(allocator, 3.0) == []
