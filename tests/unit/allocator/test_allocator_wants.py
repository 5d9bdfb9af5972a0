"""Wants: order, placement, ports, constraints. Small clusters, answers worked out by hand."""

import re
from collections import Counter

import pytest
from tests.unit.allocator.words import (
    SMALL,
    agent,
    framework,
    granted,
    places,
    role,
    run,
    taken,
    task,
    told,
    want,
)

from corral.allocator.allocator import allocate
from corral.allocator.view import Allocation, View
from corral.lib.errors import Invalid
from corral.model.constraints import HOSTNAME, Constraint, Operator
from corral.model.flags import parse_resources
from corral.model.ids import FrameworkId, WantId
from corral.model.resources import Identity, Reservation, all_ranges, count_range, ports, scalar, total_milli


def test_a_want_gets_one_grant_per_missing_instance_with_exactly_its_shape() -> None:
    allocation = allocate(View(agents=[agent("a")], wants=[want("w", 3)]), 0.0)
    assert [g.resources for g in allocation.grants] == [SMALL] * 3
    assert {(g.framework_id, g.role, g.want_id) for g in allocation.grants} == {("f", "r", "w")}
    assert allocation.waiting == ()


def test_a_want_without_missing_instances_gets_nothing_and_needs_no_explanation() -> None:
    assert allocate(View(agents=[agent("a")], wants=[want("w", 0)]), 0.0) == Allocation()


def test_no_agents_leave_every_want_explained_but_not_hopeless() -> None:
    allocator = told(want("w", 2))
    assert allocator.run(0.0).waiting == (("f", "w"),)
    explanation = allocator.explain(FrameworkId("f"), WantId("w"))
    assert (explanation.waiting, explanation.agents, explanation.never) == (2, 0, False)


def test_what_does_not_fit_any_more_waits_with_its_number() -> None:
    allocator = told(agent("a"), want("w", 6))
    assert len(allocator.run(0.0).grants) == 4
    assert allocator.explain(FrameworkId("f"), WantId("w")).waiting == 2


def test_equal_roles_take_turns_when_both_ask_for_more_than_there_is() -> None:
    wants = [want("w1", 8, role="a"), want("w2", 8, role="b")]
    allocation = allocate(View(agents=[agent("x"), agent("y")], wants=wants), 0.0)
    assert [g.role for g in allocation.grants] == ["a", "b"] * 4


def test_a_role_of_twice_the_weight_gets_twice_as_much() -> None:
    wants = [want("w1", 9, role="a"), want("w2", 9, role="b")]
    view = View(agents=[agent("x", "cpus:9;mem:4096")], wants=wants, roles={"b": role(weight=2.0)})
    assert Counter(g.role for g in allocate(view, 0.0).grants) == {"a": 3, "b": 6}


def test_the_dominant_resource_decides_the_share() -> None:
    """The textbook case: 9 cpus and 18 GB, tasks of <1 cpu, 4 GB> against <3 cpus, 1 GB>: three and two of them."""
    wants = [
        want("w1", 9, role="a", resources=parse_resources("cpus:1;mem:4096")),
        want("w2", 9, role="b", resources=parse_resources("cpus:3;mem:1024")),
    ]
    view = View(agents=[agent("x", "cpus:9;mem:18432")], wants=wants)
    assert Counter(g.role for g in allocate(view, 0.0).grants) == {"a": 3, "b": 2}


def test_what_a_role_holds_already_counts_against_it() -> None:
    wants = [want("w1", 4, role="a"), want("w2", 4, role="b")]
    view = View(agents=[agent("x", "cpus:8;mem:4096")], wants=wants, holds=[task("t", "x", "cpus:4", role="a")])
    assert Counter(g.role for g in allocate(view, 0.0).grants) == {"b": 4}


def test_within_a_role_priority_goes_first_and_frameworks_share_evenly_below_it() -> None:
    wants = [
        want("young", 2, framework="f1", since_at=3.0),
        want("old", 2, framework="f2", since_at=1.0),
        want("urgent", 1, framework="f2", since_at=9.0, priority=5),
    ]
    allocation = allocate(View(agents=[agent("x", "cpus:5;mem:4096")], wants=wants), 0.0)
    assert granted(allocation)[0] == "urgent"
    assert Counter(granted(allocation)[1:3]) == {"young": 1, "old": 1}
    assert Counter(granted(allocation)[3:]) == {"young": 1, "old": 1}


def test_the_older_of_a_frameworks_wants_goes_first() -> None:
    wants = [want("young", 2, since_at=3.0), want("old", 2, since_at=1.0), want("urgent", since_at=9.0, priority=5)]
    assert granted(allocate(View(agents=[agent("x")], wants=wants), 0.0)) == ["urgent", "old", "old", "young"]


def test_frameworks_of_one_role_take_turns() -> None:
    wants = [want("w1", 4, framework="f1"), want("w2", 4, framework="f2")]
    allocation = allocate(View(agents=[agent("x")], wants=wants), 0.0)
    assert [g.framework_id for g in allocation.grants] == ["f1", "f2", "f1", "f2"]


def test_a_want_too_large_to_fit_does_not_hold_up_the_next() -> None:
    wants = [want("big", resources=parse_resources("cpus:64"), since_at=1.0), want("small", since_at=2.0)]
    allocation = allocate(View(agents=[agent("x")], wants=wants), 0.0)
    assert [g.want_id for g in allocation.grants] == ["small"]
    assert allocation.waiting == (("f", "big"),)


def test_an_agent_that_takes_nothing_new_is_left_alone() -> None:
    view = View(agents=[agent("x", ineligible="draining"), agent("y")], wants=[want("w", 2)])
    assert places(allocate(view, 0.0)) == ["y", "y"]


def test_a_runtime_is_looked_for() -> None:
    view = View(agents=[agent("x", runtimes=("process",)), agent("y")], wants=[want("w", 2, runtime="docker")])
    assert places(allocate(view, 0.0)) == ["y", "y"]


def test_reserved_resources_are_not_given_to_a_want() -> None:
    reserved = scalar("cpus", 4, Identity(reservations=(Reservation(role="other"),)))
    view = View(agents=[agent("x", (*parse_resources("mem:4096"), reserved))], wants=[want("w")])
    assert allocate(view, 0.0).grants == ()


class TestStrategies:
    def test_spread_prefers_agents_with_the_fewest_siblings_then_those_with_most_room(self) -> None:
        agents = [
            agent("sibling", "cpus:8;mem:8192"),
            agent("tight", "cpus:2;mem:2048"),
            agent("busy", "cpus:8;mem:8192"),
            agent("roomy", "cpus:8;mem:8192"),
        ]
        holds = [task("s", "sibling", "cpus:0.01", group="g"), task("t", "busy", "cpus:4;mem:4096", role="other")]
        view = View(agents=agents, wants=[want("w", 4, group="g")], holds=holds)
        assert places(allocate(view, 0.0)) == ["roomy", "busy", "tight", "sibling"]

    def test_spread_deals_instances_of_one_group_out_evenly(self) -> None:
        view = View(agents=[agent("x"), agent("y"), agent("z")], wants=[want("w", 6, group="g")])
        assert Counter(places(allocate(view, 0.0))) == {"x": 2, "y": 2, "z": 2}

    def test_binpack_fills_the_fullest_agent_first(self) -> None:
        view = View(
            agents=[agent("empty"), agent("used")],
            wants=[want("w", 3, strategy="binpack")],
            holds=[taken(agent("used"), "cpus:2;mem:4096")],
        )
        assert places(allocate(view, 0.0)) == ["used", "used", "empty"]

    def test_least_tasks_looks_at_nothing_else(self) -> None:
        agents = [agent("x"), agent("y", "cpus:2.1;mem:300")]
        holds = [task(f"t{i}", each, "cpus:0.01", role="other") for i, each in enumerate("xxxy")]
        view = View(agents=agents, wants=[want("w", 2, strategy="least-tasks")], holds=holds)
        assert places(allocate(view, 0.0)) == ["y", "y"]

    def test_random_follows_the_seed_and_reaches_every_agent(self) -> None:
        agents = [agent(f"a{i}") for i in range(8)]
        view = View(agents=agents, wants=[want("w", 1, strategy="random")])
        seen = {places(allocate(View(agents=agents, wants=view.wants, seed=s), 0.0))[0] for s in range(100)}
        assert seen == {a.id for a in agents}
        assert allocate(view, 0.0) == allocate(view, 0.0)

    def test_instances_without_need_of_gpus_go_to_agents_with_gpus_last(self) -> None:
        agents = [agent("gpu", "cpus:8;mem:8192;gpus:2"), agent("plain", "cpus:1;mem:128")]
        view = View(agents=agents, wants=[want("w", 2)])
        assert places(allocate(view, 0.0)) == ["plain", "gpu"]

    def test_a_want_of_gpus_finds_them(self) -> None:
        agents = [agent("plain"), agent("gpu", "cpus:8;mem:8192;gpus:2")]
        view = View(agents=agents, wants=[want("w", 3, resources=parse_resources("cpus:1;gpus:1"))])
        assert places(allocate(view, 0.0)) == ["gpu", "gpu"]


class TestPorts:
    def test_dynamic_ports_are_free_distinct_and_as_many_as_wanted(self) -> None:
        allocation = allocate(View(agents=[agent("x")], wants=[want("w", 3, ports=3)]), 0.0)
        spans = [all_ranges(g.resources, "ports") for g in allocation.grants]
        assert [count_range(s) for s in spans] == [3, 3, 3]
        taken = [p for s in spans for low, high in s for p in range(low, high + 1)]
        assert len(set(taken)) == 9
        assert set(taken) <= set(range(31000, 31010))

    def test_the_last_port_of_an_agent_can_be_had_and_not_one_more(self) -> None:
        allocator = told(agent("x", "cpus:9;mem:9000;ports:[1-2]"), want("w", 3, ports=1))
        assert len(allocator.run(0.0).grants) == 2
        assert allocator.explain(FrameworkId("f"), WantId("w")).refusals[0].reason == "ports"

    def test_fixed_ports_are_given_as_asked_and_only_once_per_agent(self) -> None:
        view = View(agents=[agent("x"), agent("y")], wants=[want("w", 3, fixed_ports=(31005,))])
        allocation = allocate(view, 0.0)
        assert sorted(places(allocation)) == ["x", "y"]
        assert all(all_ranges(g.resources, "ports") == ((31005, 31005),) for g in allocation.grants)

    def test_dynamic_ports_beside_fixed_ones_never_take_the_fixed(self) -> None:
        for seed in range(20):
            view = View(agents=[agent("x")], wants=[want("w", fixed_ports=(31004, 31005), ports=8)], seed=seed)
            (grant,) = allocate(view, 0.0).grants
            assert all_ranges(grant.resources, "ports") == ((31000, 31009),)

    def test_a_port_just_given_back_is_not_the_next_to_be_given(self) -> None:
        agents = [agent("x", "cpus:4;mem:4096;ports:[31000-32000]")]
        given = [
            all_ranges(g.resources, "ports")[0][0]
            for seed in range(200)
            for g in allocate(View(agents=agents, wants=[want("w", ports=1)], seed=seed), 0.0).grants
        ]
        assert all(given[i] not in given[max(0, i - 50) : i] for i in range(len(given)))

    def test_an_agent_without_ports_takes_wants_without_ports(self) -> None:
        view = View(agents=[agent("x", "cpus:4;mem:4096")], wants=[want("w"), want("v", ports=1)])
        assert [g.want_id for g in allocate(view, 0.0).grants] == ["w"]


class TestConstraints:
    racks = [
        agent("a1", attributes={"rack": "r1"}),
        agent("a2", attributes={"rack": "r1"}),
        agent("b1", attributes={"rack": "r2"}),
        agent("n1"),
    ]

    def place(self, *constraints: Constraint, count: int = 4, placed: tuple[str, ...] = (), **fields: int) -> list[str]:
        holds = [task(f"t{i}", each, "cpus:0.1", group="g") for i, each in enumerate(placed)]
        wants = [want("w", count, group="g", constraints=constraints, **fields)]
        return sorted(places(allocate(View(agents=self.racks, wants=wants, holds=holds), 0.0)))

    def test_equality_looks_at_attributes(self) -> None:
        assert set(self.place(Constraint(field="rack", operator=Operator.EQUAL, values=("r2",)))) == {"b1"}

    def test_an_agent_without_the_attribute_passes_only_negations(self) -> None:
        assert "n1" in self.place(Constraint(field="rack", operator=Operator.UNEQUAL, values=("r1",)))
        assert "n1" not in self.place(Constraint(field="rack", operator=Operator.MATCH, values=(".*",)))

    def test_unique_hostnames_give_every_agent_one(self) -> None:
        assert self.place(Constraint(field=HOSTNAME, operator=Operator.UNIQUE), count=9) == ["a1", "a2", "b1", "n1"]

    def test_unique_counts_what_is_placed_already(self) -> None:
        unique = Constraint(field=HOSTNAME, operator=Operator.UNIQUE)
        assert self.place(unique, count=9, placed=("a1", "n1")) == ["a2", "b1"]

    def test_max_per_bounds_each_value(self) -> None:
        bound = Constraint(field="rack", operator=Operator.MAX_PER, count=2)
        assert Counter(p[0] for p in self.place(bound, count=9)) == {"a": 2, "b": 2}

    def test_cluster_stays_where_the_first_went(self) -> None:
        cluster = Constraint(field="rack", operator=Operator.CLUSTER)
        assert {p[0] for p in self.place(cluster, placed=("b1",))} == {"b"}
        assert len({p[0] for p in self.place(cluster)}) == 1

    def test_group_by_keeps_groups_even(self) -> None:
        even = Constraint(field="rack", operator=Operator.GROUP_BY)
        assert Counter(p[0] for p in self.place(even, count=4, group_size=4)) == {"a": 2, "b": 2}

    def test_constraints_are_all_needed(self) -> None:
        both = (
            Constraint(field="rack", operator=Operator.EQUAL, values=("r1",)),
            Constraint(field=HOSTNAME, operator=Operator.UNIQUE),
        )
        assert self.place(*both) == ["a1", "a2"]

    def test_a_group_that_had_its_part_opens_again_when_a_sibling_goes_elsewhere(self) -> None:
        even = (Constraint(field="rack", operator=Operator.GROUP_BY, count=2),)
        only_b = Constraint(field="rack", operator=Operator.EQUAL, values=("r2",))
        only_a = Constraint(field="rack", operator=Operator.EQUAL, values=("r1",))
        wants = [
            want("first", 2, group="g", group_size=4, constraints=(*even, only_a), since_at=1.0),
            want("second", 2, group="g", group_size=4, constraints=(*even, only_b), since_at=2.0),
        ]
        allocation = allocate(View(agents=self.racks, wants=wants), 0.0)
        assert len(allocation.grants) == 4

    def test_wants_of_other_groups_and_frameworks_are_no_siblings(self) -> None:
        unique = (Constraint(field=HOSTNAME, operator=Operator.UNIQUE),)
        wants = [
            want("w1", group="g", constraints=unique),
            want("w2", group="h", constraints=unique),
            want("w3", group="g", framework="other", constraints=unique),
        ]
        assert len(allocate(View(agents=self.racks[:1], wants=wants), 0.0).grants) == 3


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_the_order_in_which_wants_are_listed_decides_only_who_is_first_of_equals(order: tuple[int, int, int]) -> None:
    wants = [want("w0", 3, role="a"), want("w1", 3, role="b", ports=1), want("w2", 3, role="a", priority=1)]
    agents = [agent("x"), agent("y")]
    allocation = allocate(View(agents=agents, wants=[wants[i] for i in order]), 0.0)
    assert Counter(granted(allocation)) == {"w1": 3, "w2": 3, "w0": 2}


def test_a_want_may_name_resources_of_the_agents_own_invention() -> None:
    agents = [agent("x"), agent("y", "cpus:4;mem:4096;licences:1.5")]
    stated = parse_resources("cpus:1;licences:1")
    allocation = allocate(View(agents=agents, wants=[want("w", 2, resources=stated)]), 0.0)
    assert places(allocation) == ["y"]
    assert total_milli(allocation.grants[0].resources, "licences") == 1000


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"resources": (*SMALL, ports((31001, 31002)))}, "ports 31001-31002, which is no plain scalar"),
        ({"resources": parse_resources("cpus:1;cards:{red}")}, "cards {red}, which is no plain scalar"),
        ({"resources": (scalar("cpus", 1, Identity(revocable=True)),)}, "no plain scalar"),
        ({"resources": (scalar("cpus", -1),)}, "no plain scalar of 0 or more"),
        ({"fixed_ports": tuple(range(61))}, "61 fixed ports and constraints"),
        ({"constraints": (Constraint(field="zone", operator=Operator.MATCH, values=("(",)),)}, "regular expression"),
    ],
)
def test_a_want_that_could_never_be_decided_is_refused_when_it_is_told(fields: dict[str, object], words: str) -> None:
    allocator = told(agent("x"))
    with pytest.raises(Invalid, match=re.escape(words)):
        allocator.set_want(want("w", **fields))  # type: ignore[arg-type]
    assert allocator.run(0.0) == Allocation()


class TestBoundedRuns:
    def test_a_bounded_run_says_that_there_is_more_and_gives_nothing_coarse_meanwhile(self) -> None:
        allocator = told(agent("x"), want("w", 4), framework("c"))
        allocation = allocator.run(0.0, most=3)
        assert (len(allocation.grants), allocation.more) == (3, True)
        assert all(g.want_id for g in allocation.grants)

    def test_run_again_until_there_is_no_more_all_is_served_and_the_rest_offered(self) -> None:
        allocator = told(agent("x", "cpus:5;mem:4096"), want("w", 4), framework("c"))
        assert granted(allocator.run(0.0, most=3)) == ["w", "w", "w"]
        last = allocator.run(0.0, most=3)
        assert (granted(last), last.more) == (["w", None], False)

    def test_a_bound_is_divided_fairly(self) -> None:
        allocator = told(agent("x"), want("w1", 4, role="a", since_at=1.0), want("w2", 4, role="b", since_at=2.0))
        assert [g.role for g in allocator.run(0.0, most=2).grants] == ["a", "b"]

    def test_many_bounded_runs_decide_what_one_run_does(self) -> None:
        def fill(most: int) -> list[Allocation]:
            allocator = told(
                *(agent(f"a{i}", f"cpus:{3 + i};mem:2048") for i in range(5)),
                *(want(f"w{i}", 4, role=f"r{i % 3}", priority=i % 2) for i in range(8)),
            )
            return [run(allocator, most=most) for _ in range(100 // max(most, 1))]

        found = []
        for most in (0, 1, 3):
            found.append([(g.want_id, g.agent_id) for each in fill(most) for g in each.grants])
        assert found[0] == found[1] == found[2]
