"""Wants: order, placement, ports, constraints. Small clusters, answers worked out by hand."""

from collections import Counter

import pytest

from corral.allocator.allocator import allocate
from corral.allocator.view import AgentView, Allocation, FrameworkView, View, WantView
from corral.model.constraints import HOSTNAME, Constraint, Operator
from corral.model.flags import parse_resources
from corral.model.ids import AgentId, FrameworkId, WantId
from corral.model.offer import Want
from corral.model.resources import Identity, Reservation, all_ranges, count_range, ports, scalar, total_milli

SMALL = parse_resources("cpus:1;mem:128")
BOX = "cpus:4;mem:4096;ports:[31000-31009]"


def agent(name: str, resources: str = BOX, **fields: object) -> AgentView:
    there = parse_resources(resources)
    given = {"total": there, "free": there, "hostname": name, "runtimes": ("docker", "process"), **fields}
    return AgentView(id=AgentId(name), **given)  # type: ignore[arg-type]


def want(
    name: str, count: int = 1, *, framework: str = "f", role: str = "r", since_at: float = 0.0, **fields: object
) -> WantView:
    stated = Want(id=WantId(name), role=role, count=count, **{"resources": SMALL, **fields})  # type: ignore[arg-type]
    return WantView(want=stated, framework_id=FrameworkId(framework), missing=count, since_at=since_at)


def places(allocation: Allocation, want_id: str | None = None) -> list[str]:
    return [g.agent_id for g in allocation.grants if want_id is None or g.want_id == want_id]


def test_a_want_gets_one_grant_per_missing_instance_with_exactly_its_shape() -> None:
    allocation = allocate(View(agents=[agent("a")], wants=[want("w", 3)]), 0.0)
    assert [g.resources for g in allocation.grants] == [SMALL] * 3
    assert {(g.framework_id, g.role, g.want_id) for g in allocation.grants} == {("f", "r", "w")}
    assert allocation.explanations == ()


def test_a_want_without_missing_instances_gets_nothing_and_needs_no_explanation() -> None:
    assert allocate(View(agents=[agent("a")], wants=[want("w", 0)]), 0.0) == Allocation()


def test_no_agents_leave_every_want_explained_but_not_hopeless() -> None:
    (explanation,) = allocate(View(agents=[], wants=[want("w", 2)]), 0.0).explanations
    assert (explanation.waiting, explanation.agents, explanation.never) == (2, 0, False)


def test_what_does_not_fit_any_more_waits_with_its_number() -> None:
    allocation = allocate(View(agents=[agent("a")], wants=[want("w", 6)]), 0.0)
    assert len(allocation.grants) == 4
    assert allocation.explanations[0].waiting == 2


def test_equal_roles_take_turns_when_both_ask_for_more_than_there_is() -> None:
    wants = [want("w1", 8, role="a"), want("w2", 8, role="b")]
    allocation = allocate(View(agents=[agent("x"), agent("y")], wants=wants), 0.0)
    assert [g.role for g in allocation.grants] == ["a", "b"] * 4


def test_a_role_of_twice_the_weight_gets_twice_as_much() -> None:
    wants = [want("w1", 9, role="a"), want("w2", 9, role="b")]
    view = View(agents=[agent("x", "cpus:9;mem:4096")], wants=wants, weights={"b": 2.0})
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
    view = View(
        agents=[agent("x", "cpus:8;mem:4096", free=parse_resources("cpus:4;mem:4096"))],
        wants=wants,
        allocated={"a": parse_resources("cpus:4")},
    )
    assert Counter(g.role for g in allocate(view, 0.0).grants) == {"b": 4}


def test_within_a_role_priority_goes_before_age_and_age_before_share() -> None:
    wants = [
        want("young", 2, framework="f1", since_at=3.0),
        want("old", 2, framework="f2", since_at=1.0),
        want("urgent", 1, framework="f2", since_at=9.0, priority=5),
    ]
    allocation = allocate(View(agents=[agent("x")], wants=wants), 0.0)
    assert [g.want_id for g in allocation.grants] == ["urgent", "old", "old", "young"]


def test_frameworks_of_one_role_that_came_together_take_turns() -> None:
    wants = [want("w1", 4, framework="f1"), want("w2", 4, framework="f2")]
    allocation = allocate(View(agents=[agent("x")], wants=wants), 0.0)
    assert [g.framework_id for g in allocation.grants] == ["f1", "f2", "f1", "f2"]


def test_a_want_too_large_to_fit_does_not_hold_up_the_next() -> None:
    wants = [want("big", resources=parse_resources("cpus:64"), since_at=1.0), want("small", since_at=2.0)]
    allocation = allocate(View(agents=[agent("x")], wants=wants), 0.0)
    assert [g.want_id for g in allocation.grants] == ["small"]
    assert [e.want_id for e in allocation.explanations] == ["big"]


def test_an_agent_that_takes_nothing_new_is_left_alone() -> None:
    view = View(agents=[agent("x", ineligible="draining"), agent("y")], wants=[want("w", 2)])
    assert places(allocate(view, 0.0)) == ["y", "y"]


def test_a_runtime_is_looked_for() -> None:
    view = View(agents=[agent("x", runtimes=("process",)), agent("y")], wants=[want("w", 2, runtime="docker")])
    assert places(allocate(view, 0.0)) == ["y", "y"]


def test_reserved_resources_are_not_given_to_a_want() -> None:
    reserved = scalar("cpus", 4, Identity(reservations=(Reservation(role="other"),)))
    view = View(agents=[agent("x", free=(*parse_resources("mem:4096"), reserved))], wants=[want("w")])
    assert allocate(view, 0.0).grants == ()


class TestStrategies:
    def test_spread_prefers_agents_without_siblings_then_with_few_tasks_then_with_room(self) -> None:
        agents = [
            agent("sibling", "cpus:8;mem:8192", tasks=1),
            agent("busy", "cpus:8;mem:8192", tasks=1),
            agent("tight", "cpus:2;mem:2048"),
            agent("roomy", "cpus:8;mem:8192"),
        ]
        siblings = {(FrameworkId("f"), "g"): [AgentId("sibling")]}
        view = View(agents=agents, wants=[want("w", 4, group="g")], siblings=siblings)
        assert places(allocate(view, 0.0)) == ["roomy", "tight", "busy", "sibling"]

    def test_spread_deals_instances_of_one_group_out_evenly(self) -> None:
        view = View(agents=[agent("x"), agent("y"), agent("z")], wants=[want("w", 6, group="g")])
        assert Counter(places(allocate(view, 0.0))) == {"x": 2, "y": 2, "z": 2}

    def test_binpack_fills_the_fullest_agent_first(self) -> None:
        agents = [agent("empty"), agent("used", free=parse_resources("cpus:2;mem:4096"))]
        view = View(agents=agents, wants=[want("w", 3, strategy="binpack")])
        assert places(allocate(view, 0.0)) == ["used", "used", "empty"]

    def test_least_tasks_looks_at_nothing_else(self) -> None:
        agents = [agent("x", tasks=3), agent("y", "cpus:2;mem:256", tasks=1)]
        view = View(agents=agents, wants=[want("w", 2, strategy="least-tasks")])
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
        allocation = allocate(
            View(agents=[agent("x", "cpus:9;mem:9000;ports:[1-2]")], wants=[want("w", 3, ports=1)]), 0
        )
        assert len(allocation.grants) == 2
        assert allocation.explanations[0].refusals[0].reason == "ports"

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
        siblings = {(FrameworkId("f"), "g"): [AgentId(p) for p in placed]}
        wants = [want("w", count, group="g", constraints=constraints, **fields)]
        return sorted(places(allocate(View(agents=self.racks, wants=wants, siblings=siblings), 0.0)))

    def test_equality_looks_at_attributes(self) -> None:
        assert set(self.place(Constraint(field="rack", operator=Operator.EQUAL, values=("r2",)))) == {"b1"}

    def test_an_agent_without_the_attribute_passes_only_negations(self) -> None:
        assert "n1" in self.place(Constraint(field="rack", operator=Operator.UNEQUAL, values=("r1",)))
        assert "n1" not in self.place(Constraint(field="rack", operator=Operator.MATCH, values=(".*",)))

    def test_unique_hostnames_give_every_agent_one(self) -> None:
        assert self.place(Constraint(field=HOSTNAME, operator=Operator.UNIQUE), count=9) == ["a1", "a2", "b1", "n1"]

    def test_unique_counts_what_is_placed_already(self) -> None:
        unique = Constraint(field=HOSTNAME, operator=Operator.UNIQUE)
        assert self.place(unique, count=9, placed=("a1", "n1", "unknown")) == ["a2", "b1"]

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
def test_the_order_in_which_wants_are_listed_changes_nothing(order: tuple[int, int, int]) -> None:
    wants = [want("w0", 3, role="a"), want("w1", 3, role="b", ports=1), want("w2", 3, role="a", priority=1)]
    agents = [agent("x"), agent("y")]
    expected = allocate(View(agents=agents, wants=wants), 0.0).grants
    assert allocate(View(agents=agents, wants=[wants[i] for i in order]), 0.0).grants == expected


def test_a_want_may_name_resources_of_the_agents_own_invention() -> None:
    agents = [agent("x"), agent("y", "cpus:4;mem:4096;licences:2;cards:{red,blue}")]
    stated = (*parse_resources("cpus:1;licences:1"), *parse_resources("cards:{red}"))
    allocation = allocate(View(agents=agents, wants=[want("w", 2, resources=stated)]), 0.0)
    assert places(allocation) == ["y"], "the red card is there only once"
    assert total_milli(allocation.grants[0].resources, "licences") == 1000


def test_ports_that_a_want_states_as_resources_count_as_fixed() -> None:
    stated = (*SMALL, ports((31001, 31002)))
    view = View(
        agents=[agent("x")], wants=[want("w", 2, resources=stated)], frameworks=[FrameworkView(id=FrameworkId("f"))]
    )
    (grant,) = allocate(view, 0.0).grants
    assert all_ranges(grant.resources, "ports") == ((31001, 31002),)


class TestBoundedRuns:
    def test_a_bounded_run_says_that_there_is_more_and_gives_nothing_coarse_meanwhile(self) -> None:
        coarse = FrameworkView(id=FrameworkId("c"), coarse_roles=("*",))
        view = View(agents=[agent("x")], wants=[want("w", 4)], frameworks=[coarse], most_grants=3)
        allocation = allocate(view, 0.0)
        assert (len(allocation.grants), allocation.more, allocation.explanations) == (3, True, ())
        assert all(g.want_id for g in allocation.grants)

    def test_a_run_that_ends_at_its_bound_has_no_more(self) -> None:
        allocation = allocate(View(agents=[agent("x")], wants=[want("w", 3)], most_grants=3), 0.0)
        assert (len(allocation.grants), allocation.more) == (3, False)

    def test_what_was_found_to_wait_before_the_bound_is_explained(self) -> None:
        wants = [want("big", resources=parse_resources("cpus:64"), since_at=1.0), want("small", 4, since_at=2.0)]
        allocation = allocate(View(agents=[agent("x")], wants=wants, most_grants=2), 0.0)
        assert [e.want_id for e in allocation.explanations] == ["big"]

    def test_a_bound_is_divided_fairly(self) -> None:
        wants = [want("w1", 4, role="a", since_at=1.0), want("w2", 4, role="b", since_at=2.0)]
        allocation = allocate(View(agents=[agent("x")], wants=wants, most_grants=2), 0.0)
        assert [g.role for g in allocation.grants] == ["a", "b"]
