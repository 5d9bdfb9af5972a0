"""Facts that come and go: agents, resources, holds; and views, from which equal allocators are made."""

import pytest
from tests.unit.allocator.words import (
    agent,
    bundle,
    end,
    framework,
    granted,
    launch,
    offer,
    places,
    role,
    run,
    task,
    told,
    want,
)

from corral.allocator.allocator import Allocator, allocate
from corral.allocator.view import Filter, Hold, HoldKind, Settings
from corral.lib.errors import Conflict, Invalid, NotFound
from corral.model.constraints import HOSTNAME, Constraint, Operator
from corral.model.ids import AgentId, FrameworkId, WantId
from corral.model.resources import all_ranges, count_range

F = FrameworkId("f")
UNIQUE = (Constraint(field=HOSTNAME, operator=Operator.UNIQUE),)


class TestAgents:
    def test_a_new_agent_takes_what_waits(self) -> None:
        allocator = told(want("w", 2))
        assert run(allocator).waiting == (("f", "w"),)
        allocator.set_agent(agent("a"))
        assert places(run(allocator, 1.0)) == ["a", "a"]

    def test_totals_that_shrink_under_load_leave_less_than_nothing_free(self) -> None:
        allocator = told(agent("a"), want("w", 4, "cpus:1"))
        keys = launch(allocator, allocator.run(0.0))
        allocator.set_agent(agent("a", "cpus:2;mem:4096"))
        allocator.set_want(want("v", 4, "cpus:1", framework="g"))
        for key in keys[:2]:
            allocator.release(key)
            assert run(allocator, 1.0).grants == ()
        allocator.release(keys[2])
        assert granted(run(allocator, 2.0)) == ["v"]

    def test_totals_that_grow_are_used(self) -> None:
        allocator = told(agent("a", "cpus:1"), want("w", 4, "cpus:1"))
        assert len(run(allocator).grants) == 1
        allocator.set_agent(agent("a", "cpus:3"))
        assert len(run(allocator, 1.0).grants) == 2

    def test_ports_that_an_agent_has_no_more_do_not_come_back_with_the_task_that_held_them(self) -> None:
        allocator = told(agent("a", "cpus:8;mem:512;ports:[1-10]"), task("t", "a", "cpus:1;ports:[1-6]"))
        allocator.set_agent(agent("a", "cpus:8;mem:512;ports:[5-12]"))
        end(allocator, ["t"])
        allocator.set_want(want("fixed", 1, fixed_ports=(3,)))
        allocator.set_want(want("dynamic", 1, ports=8))
        (grant,) = run(allocator).grants
        assert all_ranges(grant.resources, "ports") == ((5, 12),)

    def test_an_agent_that_goes_takes_its_holds_along(self) -> None:
        allocator = told(agent("a"), agent("b"), want("w", 8, "cpus:1", constraints=UNIQUE))
        assert len(run(allocator).grants) == 2
        allocator.remove_agent(AgentId("a"))
        assert len(allocator.view().holds) == 1
        allocator.set_agent(agent("a"))
        assert places(run(allocator, 1.0)) == ["a"]
        allocator.release("task/1")
        allocator.release("task/2")
        allocator.invariants()

    def test_an_agent_may_go_before_anything_held_there_was_counted(self) -> None:
        allocator = told(agent("a"), task("t", "a"), want("w"))
        allocator.remove_agent(AgentId("a"))
        assert run(allocator).grants == ()
        allocator.remove_agent(AgentId("a"))

    def test_attributes_that_change_move_what_is_counted(self) -> None:
        bound = (Constraint(field="zone", operator=Operator.MAX_PER, count=1),)
        agents = [agent("a", attributes={"zone": "x"}), agent("b", attributes={"zone": "x"})]
        allocator = told(*agents, want("w", 9, constraints=bound))
        assert len(run(allocator).grants) == 1
        allocator.set_agent(agent("b", attributes={"zone": "y"}))
        assert len(run(allocator, 1.0).grants) == 1
        allocator.set_agent(agent("b", attributes={}))
        allocator.set_agent(agent("c", attributes={"zone": "y"}))
        assert places(run(allocator, 2.0)) == ["c"]

    def test_an_attribute_with_very_many_values_chooses_among_single_agents(self) -> None:
        agents = [agent(f"a{i}", attributes={"serial": f"s{i}", "zone": f"z{i % 3}"}) for i in range(300)]
        zone = Constraint(field="zone", operator=Operator.EQUAL, values=("z2",))
        one = Constraint(field="serial", operator=Operator.EQUAL, values=("s271",))
        some = Constraint(field="serial", operator=Operator.GLOB, values=("s29?",))
        many = Constraint(field="serial", operator=Operator.UNEQUAL, values=("s0",))
        allocator = told(
            *agents,
            want("one", 9, "cpus:2", constraints=(one,)),
            want("some", 9, "cpus:4", constraints=(some, zone)),
            want("many", 2, "cpus:4", constraints=(many,)),
        )  # fmt: skip
        allocation = run(allocator)
        assert places(allocation, "one") == ["a271", "a271"]
        assert sorted(places(allocation, "some")) == ["a290", "a293", "a296", "a299"]
        assert len(places(allocation, "many")) == 2
        assert allocator.explain(F, WantId("one")).refusals[0].reason == "constraint"


class TestResources:
    def test_a_resource_nobody_named_before_is_learned_from_an_agent_a_want_and_a_role(self) -> None:
        allocator = told(agent("a"), want("w", 2), want("l", 3, "cpus:1;licences:1"))
        assert granted(run(allocator)) == ["w", "w"]
        allocator.set_agent(agent("b", "cpus:4;mem:512;licences:2"))
        assert granted(run(allocator, 1.0)) == ["l", "l"]
        allocator.set_role("r", role(limit="tokens:1"))
        allocator.set_want(want("t", 3, "tokens:1"))
        allocator.set_agent(agent("c", "cpus:1;tokens:9"))
        assert granted(run(allocator, 2.0)) == ["t"]
        assert allocator.explain(F, WantId("t")).refusals[0].reason == "limit"

    def test_what_was_counted_before_is_counted_after_a_resource_is_learned(self) -> None:
        allocator = told(
            agent("a", attributes={"zone": "x"}), agent("b", attributes={"zone": "x"}),
            want("w", 2, "cpus:2", constraints=(Constraint(field="zone", operator=Operator.MAX_PER, count=1),)),
            want("v", 2, "cpus:1", role="s", priority=3), s=role(limit="cpus:3"),
        )  # fmt: skip
        assert sorted(granted(run(allocator))) == ["v", "v", "w"]  # type: ignore[type-var]
        allocator.set_want(want("v", 9, "cpus:1;licences:0.001", role="s", priority=3))
        allocator.set_agent(agent("c", "licences:1;cpus:9"))
        assert granted(run(allocator, 1.0)) == ["w", "v"] or granted(allocator.run(1.0)) == []


class TestHolds:
    def test_a_key_is_taken_once(self) -> None:
        allocator = told(agent("a"), task("t", "a"))
        with pytest.raises(Conflict, match="hold t is there already; release it before"):
            allocator.hold(task("t", "a"))

    def test_a_hold_on_an_agent_nobody_knows_is_refused(self) -> None:
        with pytest.raises(NotFound, match="hold t is on agent b, which is not known"):
            told(agent("a"), task("t", "b"))

    def test_tasks_told_of_together_are_counted_as_if_told_one_by_one(self) -> None:
        tasks = [
            task("a", "x", "cpus:1;mem:64;ports:[31000-31001]", group="g", tags=("web",)),
            task("b", "x", "cpus:0.5;licences:2;ports:[31005-31005]", role="s/t", priority=3),
            task("c", "x", "cpus:0.5;ports:[99-99]", framework="g", revocable=True),
            task("d", "x", "mem:9999", role="s/t"),
        ]
        facts = (agent("x"), agent("y"), want("w", 9, group="g", constraints=UNIQUE), want("v", 3, role="s"))
        together, one_by_one = told(*facts), told(*facts)
        together.hold_all(AgentId("x"), tasks)
        for each in tasks:
            one_by_one.hold(each)
        assert together.view() == one_by_one.view()
        for now in (0.0, 1.0):
            assert run(together, now) == run(one_by_one, now)
        for allocator in (together, one_by_one):
            end(allocator, ("a", "b", "c", "d"))
        assert run(together, 2.0) == run(one_by_one, 2.0)

    def test_of_tasks_told_of_together_none_is_counted_when_one_is_refused(self) -> None:
        allocator = told(agent("x"), task("t", "x"))
        before = allocator.view()
        for keys in (("u", "t"), ("u", "u")):
            with pytest.raises(Conflict, match=f"hold {keys[1]} is there already"):
                allocator.hold_all(AgentId("x"), [task(key, "x") for key in keys])
        with pytest.raises(NotFound, match="hold u is on agent y, which is not known"):
            allocator.hold_all(AgentId("y"), [task("u", "y")])
        allocator.hold_all(AgentId("y"), ())
        assert allocator.view() == before

    def test_releasing_what_is_not_held_changes_nothing(self) -> None:
        allocator = told(agent("a"), task("t", "a", "cpus:4"), want("w"))
        allocator.release("other")
        assert run(allocator).grants == ()

    def test_a_grant_becomes_an_offer_and_the_offer_a_task_and_nothing_is_counted_twice(self) -> None:
        allocator = told(
            agent("a", "cpus:3;mem:512;ports:[1-9];gpus:1"), want("w", 1, "cpus:1;gpus:0.5", ports=2, group="g")
        )
        (grant,) = allocator.run(0.0).grants
        (held,) = allocator.view().holds
        assert (held.key, held.kind, held.resources, held.devices) == (
            grant.key, HoldKind.GRANT, grant.resources, grant.devices,
        )  # fmt: skip
        last = grant.key
        for key, kind in (("offer/1", HoldKind.SHAPED), ("task/1", HoldKind.TASK)):
            allocator.hold(
                Hold(
                    key=key, framework_id=F, role="r", agent_id=AgentId("a"), resources=grant.resources, kind=kind,
                    want_id=WantId("w"), group="g", devices=grant.devices,
                ),
                instead_of=last,
            )  # fmt: skip
            last = key
            allocator.run(1.0)
            allocator.invariants()
        assert [each.key for each in allocator.view().holds] == ["task/1"]
        allocator.release("task/1")
        allocator.set_want(want("all", 1, "cpus:3;gpus:1", ports=9))
        assert granted(run(allocator, 2.0)) == ["all"]

    def test_an_offer_may_become_smaller_tasks(self) -> None:
        allocator = told(agent("a"), framework("g"))
        (grant,) = allocator.run(0.0).grants
        allocator.hold(task("t1", "a", "cpus:1;ports:[31000-31000]", framework="g", role="*"), instead_of=grant.key)
        allocator.hold(task("t2", "a", "cpus:1", framework="g", role="*"))
        allocator.set_want(want("w", 9, "cpus:1", fixed_ports=(31000,)))
        allocator.set_want(want("v", 9, "cpus:1"))
        assert granted(run(allocator, 1.0))[:2] == ["v", "v"]

    def test_a_hold_may_move_to_another_role_framework_and_priority(self) -> None:
        allocator = told(agent("a"), offer("o", "a", "cpus:2"), s=role(limit="cpus:3"))
        allocator.hold(task("t", "a", "cpus:2", framework="g", role="s", priority=3), instead_of="offer/o")
        allocator.set_want(want("w", 9, "cpus:1", role="s"))
        assert len(run(allocator).grants) == 1

    def test_tasks_count_for_constraints_by_their_group_and_tags(self) -> None:
        apart = Constraint(field=HOSTNAME, operator=Operator.APART, values=("label:db",))
        allocator = told(
            agent("a"), agent("b"), agent("c"),
            task("t", "a", "cpus:0.1", group="g"), task("d", "b", "cpus:0.1", framework="h", tags=("label:db",)),
            want("w", 9, group="g", constraints=(*UNIQUE, apart)),
        )  # fmt: skip
        assert places(run(allocator)) == ["c"]
        end(allocator, ["t", "d"])
        assert sorted(places(run(allocator, 1.0))) == ["a", "b"]


class TestViews:
    def lively(self) -> Allocator:
        totals = [f"cpus:{i + 3};mem:4096;ports:[100-199];gpus:{i % 2}" for i in range(4)]
        allocator = told(
            *(agent(f"a{i}", total, attributes={"zone": f"z{i % 2}"}) for i, total in enumerate(totals)),
            framework("c", "*", gpus=True),
            task("t1", "a0", "cpus:2", group="g", priority=-3), task("t2", "a1", "cpus:1", role="s", revocable=True),
            offer("o", "a2", "cpus:2"),
            want("w", 3, "cpus:1;mem:64", ports=2, group="g", constraints=UNIQUE),
            want("v", 9, "cpus:2", role="s", framework="g", priority=3, run_s=50.0, tags=("x",)),
            want("u", 2, "cpus:1;gpus:0.5", role="r/x", framework="g"),
            r=role(guarantee="cpus:4"), s=role(limit="cpus:9", weight=2.0, max_tasks=7),
        )  # fmt: skip
        refused = Filter(
            framework_id=F, role="r", agent_id=AgentId("a3"), resources=bundle("cpus:9;mem:9999"), until_at=5.0
        )
        allocator.set_filters(F, "r", AgentId("a3"), [refused])
        allocator.set_settings(Settings(headroom=bundle("cpus:2"), evictions_per_minute=2))
        return allocator

    def test_an_allocator_made_of_a_view_knows_and_decides_the_same(self) -> None:
        allocator = self.lively()
        copy = Allocator.of(allocator.view(3))
        assert copy.view(3) == allocator.view(3)
        for now in range(8):
            here, there = allocator.run(float(now), now), copy.run(float(now), now)
            assert here == there
            assert launch(allocator, here) == launch(copy, there)
            allocator.invariants()
            copy.invariants()

    def test_a_view_from_amid_a_life_goes_on_alike(self) -> None:
        allocator = self.lively()
        run(allocator, 0.0)
        copy = Allocator.of(allocator.view())
        assert copy.view() == allocator.view()
        allocator.set_agent(agent("new", "cpus:9;mem:999;ports:[1-99]"))
        copy.set_agent(agent("new", "cpus:9;mem:999;ports:[1-99]"))
        here, there = run(allocator, 6.0, 6), run(copy, 6.0, 6)
        assert [(g.want_id, g.agent_id) for g in here.grants] == [(g.want_id, g.agent_id) for g in there.grants]
        assert here.grants

    def test_a_view_with_grants_under_way_may_be_gone_on_with(self) -> None:
        allocator = self.lively()
        first = allocator.run(0.0)
        copy = Allocator.of(allocator.view())
        copy.set_agent(agent("new", "cpus:9;mem:999;ports:[1-99]"))
        later = copy.run(1.0)
        assert later.grants
        assert {g.key for g in later.grants}.isdisjoint(g.key for g in first.grants)

    def test_deciding_on_a_view_leaves_it_and_its_allocator_alone(self) -> None:
        allocator = self.lively()
        view = allocator.view()
        assert allocate(view, 0.0) == allocate(view, 0.0)
        assert allocator.view() == view

    def test_equal_tellings_have_equal_digests(self) -> None:
        one, two = self.lively(), self.lively()
        for now in range(3):
            run(one, float(now))
            run(two, float(now))
        assert one.decision_hash() == two.decision_hash()
        two.set_want(want("more", 1, "cpus:1", framework="h", role="t"))
        for each in (one, two):
            each.set_agent(agent("z", "cpus:1"))
            run(each, 4.0)
        assert one.decision_hash() != two.decision_hash()

    def test_what_is_not_known_cannot_be_explained(self) -> None:
        with pytest.raises(NotFound, match="framework f has no want nothing; name one that it stated"):
            self.lively().explain(F, WantId("nothing"))

    def test_a_role_of_no_weight_is_refused(self) -> None:
        with pytest.raises(Invalid, match="must be above 0"):
            told(r=role(weight=0.0))


def test_ports_given_to_one_agents_instances_in_one_run_are_distinct_beside_fixed_ones() -> None:
    allocator = told(
        agent("a", "cpus:9;mem:9999;ports:[1-8]"),
        want("f1", fixed_ports=(2, 3)), want("f2", fixed_ports=(5,)), want("d", 2, ports=2, framework="g"),
    )  # fmt: skip
    spans = [all_ranges(g.resources, "ports") for g in run(allocator).grants]
    assert sorted(count_range(each) for each in spans) == [1, 2, 2, 2]
    numbers = [p for each in spans for low, high in each for p in range(low, high + 1)]
    assert len(set(numbers)) == 7
