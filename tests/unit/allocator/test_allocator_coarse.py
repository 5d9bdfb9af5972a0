"""Coarse offers: fair order, filters, least bundle, GPUs, and how they give way to wants."""

from collections import Counter

from msgspec import structs
from tests.unit.allocator.words import agent, framework, granted, offer, role, run, taken, task, told, want

from corral.allocator.allocator import allocate
from corral.allocator.view import Filter, FrameworkView, View
from corral.model.constraints import HOSTNAME, Constraint, Operator
from corral.model.flags import parse_resources
from corral.model.ids import AgentId, FrameworkId, WantId
from corral.model.resources import Identity, Reservation, Resources, add, ports, scalar, subtract, with_allocation

BOX = parse_resources("cpus:4;mem:4096;ports:[31000-31009]")


def refusal(framework_id: str, agent_id: str, resources: Resources, until_at: float, role: str = "*") -> Filter:
    return Filter(
        framework_id=FrameworkId(framework_id),
        role=role,
        agent_id=AgentId(agent_id),
        resources=resources,
        until_at=until_at,
    )


class TestFairOrder:
    def test_an_agents_whole_free_bundle_goes_to_one_framework(self) -> None:
        (grant,) = allocate(View(agents=[agent("a")], frameworks=[framework("f"), framework("g")]), 0.0).grants
        assert (grant.resources, grant.want_id) == (BOX, None)

    def test_frameworks_of_one_role_take_turns(self) -> None:
        view = View(agents=[agent(f"a{i}") for i in range(6)], frameworks=[framework("f"), framework("g")])
        assert Counter(g.framework_id for g in allocate(view, 0.0).grants) == {"f": 3, "g": 3}

    def test_roles_are_served_by_weighted_share(self) -> None:
        agents = [agent(f"a{i}") for i in range(9)]
        view = View(agents=agents, frameworks=[framework("f", "a"), framework("g", "b")], roles={"b": role(weight=2.0)})
        assert Counter(g.role for g in allocate(view, 0.0).grants) == {"a": 3, "b": 6}

    def test_frameworks_of_a_role_together_share_with_the_roles_below_it(self) -> None:
        frameworks = [framework("f", "r"), framework("g", "r"), framework("h", "r/x"), framework("i", "r/y")]
        view = View(agents=[agent(f"a{i}") for i in range(12)], frameworks=frameworks)
        found = Counter(g.framework_id for g in allocate(view, 0.0).grants)
        assert found == {"f": 2, "g": 2, "h": 4, "i": 4}

    def test_who_holds_more_already_comes_later(self) -> None:
        frameworks = [framework("f"), framework("g")]
        holds = [task("t", "b", "cpus:1", framework="f", role="*")]
        view = View(agents=[agent("a"), agent("b", "cpus:1")], frameworks=frameworks, holds=holds)
        assert [g.framework_id for g in allocate(view, 0.0).grants] == ["g"]

    def test_a_framework_without_roles_that_take_offers_gets_none(self) -> None:
        view = View(agents=[agent("a")], frameworks=[FrameworkView(id=FrameworkId("f"))])
        assert allocate(view, 0.0).grants == ()

    def test_who_states_wants_is_offered_plainly_only_what_is_reserved_for_it(self) -> None:
        picky = structs.replace(framework("f", "r"), only_reserved=True)
        reserved = (scalar("cpus", 1, Identity(reservations=(Reservation(role="r"),))),)
        agents = [agent("a"), agent("b"), agent("c", add(BOX, reserved))]
        found = allocate(View(agents=agents, frameworks=[picky]), 0.0).grants
        assert [(g.agent_id, g.resources) for g in found] == [("c", reserved)]
        both = allocate(View(agents=agents, frameworks=[picky, framework("g", "s")]), 0.0).grants
        assert {g.agent_id for g in both if g.framework_id == "g"} >= {"a", "b"}
        assert all(g.resources == reserved for g in both if g.framework_id == "f")

    def test_agents_come_in_the_order_of_their_mixed_numbers(self) -> None:
        def mixed(value: int) -> int:
            value = (value + 0x9E3779B97F4A7C15) % (1 << 64)
            value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) % (1 << 64)
            value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) % (1 << 64)
            return (value ^ (value >> 31)) >> 24

        agents = [agent(f"a{i}") for i in range(300)]
        for seed in (0, 7, 1 << 62):
            view = View(agents=agents, frameworks=[framework("f")], seed=seed)
            numbers = [mixed(seed * 300 + i) for i in range(300)]
            order = [agents[i].id for i in sorted(range(300), key=numbers.__getitem__)]
            assert [g.agent_id for g in allocate(view, 0.0).grants] == order

    def test_what_is_declined_of_a_part_of_an_agent_is_counted_as_what_it_is(self) -> None:
        allocator = told(
            agent("a"), framework("f"), task("t", "a", "cpus:1;ports:[31000-31000]", framework="f", role="*")
        )
        for at in range(3):
            (grant,) = run(allocator, float(at)).grants
            assert grant.resources == parse_resources("cpus:3;mem:4096;ports:[31001-31009]")
            allocator.invariants()
            assert allocator.claimants.held("*")["cpus"] == 4000
            allocator.release(grant.key)
        allocator.release("t")
        (grant,) = run(allocator, 4.0).grants
        assert grant.resources == BOX
        allocator.invariants()
        assert allocator.claimants.held("*") == {"cpus": 4000, "mem": 4_096_000, "disk": 0, "gpus": 0, "ports": 10_000}

    def test_the_order_of_agents_changes_with_the_seed_only(self) -> None:
        agents = [agent(f"a{i}") for i in range(9)]
        orders = {
            tuple(g.agent_id for g in allocate(View(agents=agents, frameworks=[framework("f")], seed=seed), 0.0).grants)
            for seed in (1, 1, 2, 3)
        }
        assert len(orders) == 3


class TestWhatIsOffered:
    def test_crumbs_are_not_offered(self) -> None:
        agents = [
            agent("a", parse_resources("cpus:0.009;mem:31;disk:999")),
            agent("b", parse_resources("cpus:0.01")),
            agent("c", parse_resources("mem:32")),
        ]
        grants = allocate(View(agents=agents, frameworks=[framework("f")]), 0.0).grants
        assert {g.agent_id for g in grants} == {"b", "c"}

    def test_agents_that_take_nothing_new_are_not_offered(self) -> None:
        view = View(agents=[agent("a", ineligible="unreachable")], frameworks=[framework("f")])
        assert allocate(view, 0.0).grants == ()

    def test_agents_with_gpus_go_only_to_frameworks_that_know_them(self) -> None:
        there = parse_resources("cpus:4;gpus:1")
        view = View(agents=[agent("a", there)], frameworks=[framework("f"), framework("g", gpus=True)])
        assert [g.framework_id for g in allocate(view, 0.0).grants] == ["g"]
        assert allocate(View(agents=[agent("a", there)], frameworks=[framework("f")]), 0.0).grants == ()

    def test_resources_reserved_for_a_role_are_offered_to_it_and_below_it_only(self) -> None:
        mine = scalar("cpus", 2, Identity(reservations=(Reservation(role="a"),)))
        there = (*parse_resources("mem:64"), mine)
        for name, expected in (("a", there), ("a/b", there), ("ab", parse_resources("mem:64"))):
            (grant,) = allocate(View(agents=[agent("x", there)], frameworks=[framework("f", name)]), 0.0).grants
            assert add(grant.resources) == add(expected)

    def test_revocable_resources_are_not_offered(self) -> None:
        there = (*parse_resources("mem:64"), scalar("cpus", 2, Identity(revocable=True)))
        (grant,) = allocate(View(agents=[agent("x", there)], frameworks=[framework("f")]), 0.0).grants
        assert grant.resources == parse_resources("mem:64")


class TestFilters:
    def test_refused_resources_are_held_back_until_the_filter_ends(self) -> None:
        view = View(agents=[agent("a")], frameworks=[framework("f")], filters=[refusal("f", "a", BOX, 10.0)])
        assert allocate(view, 9.9).grants == ()
        assert len(allocate(view, 10.0).grants) == 1

    def test_more_than_what_was_refused_is_offered(self) -> None:
        less = parse_resources("cpus:2;mem:4096;ports:[31000-31009]")
        view = View(agents=[agent("a")], frameworks=[framework("f")], filters=[refusal("f", "a", less, 10.0)])
        assert len(allocate(view, 0.0).grants) == 1

    def test_the_next_in_order_gets_what_the_first_refused(self) -> None:
        filters = [refusal("f", "a", BOX, 10.0)]
        view = View(agents=[agent("a"), agent("b")], frameworks=[framework("f"), framework("g")], filters=filters)
        grants = {g.agent_id: g.framework_id for g in allocate(view, 0.0).grants}
        assert grants["a"] == "g"

    def test_a_filter_holds_for_its_role_only(self) -> None:
        filters = [refusal("f", "a", BOX, 10.0, role="x")]
        view = View(agents=[agent("a")], frameworks=[framework("f", "x", "y")], filters=filters)
        assert [g.role for g in allocate(view, 0.0).grants] == ["y"]

    def test_a_filter_does_not_care_for_whom_the_offer_was_charged(self) -> None:
        filters = [refusal("f", "a", with_allocation(BOX, "*"), 10.0)]
        view = View(agents=[agent("a")], frameworks=[framework("f")], filters=filters)
        assert allocate(view, 0.0).grants == ()

    def test_a_want_is_not_answered_with_what_its_framework_just_refused(self) -> None:
        shaped = add(parse_resources("cpus:1"), (ports((31007, 31007)),))
        allocator = told(agent("a"), want("w", 1, "cpus:1", ports=1))
        allocator.set_filters(FrameworkId("f"), "r", AgentId("a"), [refusal("f", "a", shaped, 10.0, role="r")])
        assert allocator.run(0.0).grants == ()
        assert allocator.explain(FrameworkId("f"), WantId("w")).refusals[0].reason == "filtered"
        assert allocator.run(9.9).grants == ()
        assert granted(allocator.run(10.0)) == ["w"]

    def test_a_want_gets_of_another_agent_what_was_refused_of_one(self) -> None:
        allocator = told(agent("a"), agent("b"), want("w", 3, "cpus:2"))
        allocator.set_filters(FrameworkId("f"), "r", AgentId("a"), [refusal("f", "a", BOX, 10.0, role="r")])
        assert [g.agent_id for g in run(allocator, 0.0).grants] == ["b", "b"]
        assert [g.agent_id for g in run(allocator, 10.0).grants] == ["a"]

    def test_lifted_filters_hold_nothing_back(self) -> None:
        allocator = told(agent("a"), framework("f"), want("w", 1, "cpus:1", framework="f", role="*"))
        allocator.set_filters(FrameworkId("f"), "*", AgentId("a"), [refusal("f", "a", BOX, 10.0)])
        assert allocator.run(0.0).grants == ()
        allocator.set_filters(FrameworkId("f"), "*", AgentId("a"), [])
        assert granted(allocator.run(0.0)) == ["w", None]

    def test_filters_go_with_their_framework(self) -> None:
        allocator = told(agent("a"), framework("f"))
        allocator.set_filters(FrameworkId("f"), "*", AgentId("a"), [refusal("f", "a", BOX, 10.0)])
        allocator.remove_framework(FrameworkId("f"))
        allocator.set_framework(framework("f"))
        assert granted(allocator.run(0.0)) == [None]


class TestQuotas:
    def test_an_offer_holds_no_more_than_a_roles_limit_leaves(self) -> None:
        allocator = told(
            agent("a"), framework("f", "x/y"), task("t", "a", "cpus:1", role="x/z"), x=role(limit="cpus:3;mem:1024")
        )
        (grant,) = allocator.run(0.0).grants
        assert grant.resources == parse_resources("cpus:2;mem:1024;ports:[31000-31009]")
        assert allocator.run(1.0).grants == ()

    def test_an_offer_leaves_what_guarantees_of_others_lack(self) -> None:
        allocator = told(agent("a"), framework("f", "x"), y=role(guarantee="cpus:3"))
        (grant,) = allocator.run(0.0).grants
        assert grant.resources == parse_resources("cpus:1;mem:4096;ports:[31000-31009]")

    def test_a_role_below_its_guarantee_is_offered_first_and_all(self) -> None:
        allocator = told(agent("a"), framework("f", "x"), framework("g", "y"), y=role(guarantee="cpus:3"))
        (grant,) = allocator.run(0.0).grants
        assert (grant.role, grant.resources) == ("y", BOX)

    def test_a_role_at_its_most_tasks_is_offered_nothing(self) -> None:
        allocator = told(agent("a"), framework("f", "x"), task("t", "a", role="x"), x=role(max_tasks=1))
        assert allocator.run(0.0).grants == ()
        allocator.set_role("x", role(max_tasks=2))
        assert granted(allocator.run(0.0)) == [None]


class TestWantsComeFirst:
    def test_coarse_offers_hold_only_what_wants_leave(self) -> None:
        view = View(agents=[agent("a")], wants=[want("w", 1, "cpus:1;mem:96", ports=2)], frameworks=[framework("f")])
        shaped, coarse = allocate(view, 0.0).grants
        assert (shaped.want_id, coarse.want_id) == ("w", None)
        assert coarse.resources == subtract(BOX, shaped.resources)

    def test_the_coarse_offer_that_blocks_a_want_is_rescinded_and_its_agent_kept(self) -> None:
        part = parse_resources("cpus:3")
        allocator = told(
            agent("a"), agent("b"), want("w", 1, "cpus:2"), framework("f"), offer("o", "a", part),
            taken(agent("b"), ""),
        )  # fmt: skip
        allocation = allocator.run(0.0)
        assert allocation.rescind == ("o",)
        assert allocation.grants == (), "the free cpu of a must wait for the want"
        assert allocator.explain(FrameworkId("f"), WantId("w")).refusals[0].reason == "offered"

    def test_no_more_offers_are_rescinded_than_the_missing_instances_need(self) -> None:
        offers = [offer(f"o{i}", f"a{i}", BOX, float(i)) for i in range(5)]
        agents = [agent(f"a{i}") for i in range(5)]
        view = View(agents=agents, wants=[want("w", 3, "cpus:2", ports=1)], holds=offers)
        assert len(allocate(view, 0.0).rescind) == 2, "one agent holds two instances"

    def test_the_agent_that_needs_the_fewest_offers_back_is_chosen(self) -> None:
        one = parse_resources("cpus:1")
        offers = [offer("o1", "a", one), offer("o2", "a", one), offer("o3", "b", parse_resources("cpus:2"))]
        agents = [agent("a", "cpus:2"), agent("b", "cpus:2")]
        assert allocate(View(agents=agents, wants=[want("w", 1, "cpus:2")], holds=offers), 0.0).rescind == ("o3",)

    def test_the_offer_that_has_been_out_longest_goes_first(self) -> None:
        one = parse_resources("cpus:1")
        offers = [offer("new", "a", one, 9.0), offer("old", "a", one, 1.0)]
        view = View(agents=[agent("a", "cpus:2")], wants=[want("w", 1, "cpus:1")], holds=offers)
        assert allocate(view, 0.0).rescind == ("old",)

    def test_offers_that_would_not_help_stay_out(self) -> None:
        view = View(agents=[agent("a")], wants=[want("w", 1, "cpus:8")], holds=[offer("o", "a", BOX)])
        assert allocate(view, 0.0).rescind == ()

    def test_offers_on_agents_that_a_constraint_forbids_stay_out(self) -> None:
        elsewhere = (Constraint(field=HOSTNAME, operator=Operator.EQUAL, values=("b",)),)
        unique = (Constraint(field=HOSTNAME, operator=Operator.UNIQUE),)
        agents = [agent("a")]
        for constraints, group in ((elsewhere, "h"), (unique, "g")):
            view = View(
                agents=agents,
                wants=[want("w", 1, "cpus:1", constraints=constraints, group=group)],
                holds=[task("t", "a", "cpus:1", group="g"), offer("o", "a", "cpus:3")],
            )
            assert allocate(view, 0.0).rescind == ()

    def test_offers_out_on_an_agent_that_takes_nothing_new_stay_out(self) -> None:
        view = View(
            agents=[agent("a", ineligible="draining")],
            wants=[want("w", 1, "cpus:1")],
            holds=[offer("o", "a", BOX)],
        )
        assert allocate(view, 0.0).rescind == ()

    def test_after_the_rescind_the_want_is_served(self) -> None:
        wants = [want("w", 1, "cpus:2", ports=1, fixed_ports=(31003,))]
        before = View(agents=[agent("a")], wants=wants, holds=[offer("o", "a", BOX)])
        assert allocate(before, 0.0).rescind == ("o",)
        after = View(agents=[agent("a")], wants=wants, frameworks=[framework("f")])
        assert allocate(after, 0.0).grants[0].want_id == "w"
