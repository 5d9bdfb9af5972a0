"""Which waiting instance takes which offer."""

from hypothesis import given
from hypothesis import strategies as st

from corral.model.attributes import Attribute
from corral.model.constraints import Constraint, Operator
from corral.model.ids import AgentId, FrameworkId, OfferId, WantId
from corral.model.offer import Offer, Want
from corral.model.resources import Identity, Resources, all_ranges, contains, normal, ports, scalar, total_milli
from corral.sdk.match import match


def offer(name: str = "O1", *, want: str | None = None, cpus: float = 4, span: tuple[int, int] | None = None) -> Offer:
    resources = [scalar("cpus", cpus), scalar("mem", 1024)]
    if span is not None:
        resources.append(ports(span))
    return Offer(
        id=OfferId(name),
        framework_id=FrameworkId("F"),
        agent_id=AgentId("A"),
        hostname="one",
        ip="10.0.0.1",
        port=4681,
        role="*",
        resources=normal(resources),
        attributes=(Attribute(name="rack", text="r1"),),
        want_id=WantId(want) if want is not None else None,
    )


def want(name: str = "W", count: int = 1, *, cpus: float = 1, **more: object) -> Want:
    resources = normal((scalar("cpus", cpus), scalar("mem", 64)))
    return Want(id=WantId(name), role="*", count=count, resources=resources, **more)  # type: ignore[arg-type]


def test_a_shaped_offer_serves_its_own_want_and_no_other() -> None:
    found = match([offer(want="W"), offer("O2", want="gone")], [want("V", 5), want("W")])
    assert [(p.offer.id, p.want_id) for p in found.placements] == [("O1", "W")]
    assert [o.id for o in found.unused] == ["O2"]


def test_no_more_instances_are_placed_than_wait() -> None:
    found = match([offer("O1", want="W"), offer("O2", want="W")], [want("W", 1)])
    assert len(found.placements) == 1
    assert len(found.unused) == 1


def test_a_shaped_offer_that_is_too_small_by_now_is_not_used() -> None:
    assert match([offer(want="W", cpus=1)], [want("W", cpus=2)]).placements == ()


def test_a_coarse_offer_is_filled_in_the_order_in_which_wants_wait() -> None:
    found = match([offer(cpus=4)], [want("A", 2), want("B", 9)])
    assert [p.want_id for p in found.placements] == ["A", "A", "B", "B"]


def test_coarse_offers_respect_constraints_that_look_at_the_agent() -> None:
    here = Constraint(field="rack", operator=Operator.EQUAL, values=("r1",))
    there = Constraint(field="rack", operator=Operator.EQUAL, values=("r2",))
    assert len(match([offer()], [want(constraints=(here,))]).placements) == 1
    assert match([offer()], [want(constraints=(there,))]).placements == ()


def test_constraints_that_count_siblings_are_left_to_the_master() -> None:
    unique = Constraint(field="@hostname", operator=Operator.UNIQUE)
    assert match([offer()], [want(constraints=(unique,))]).placements == ()
    assert len(match([offer(want="W")], [want("W", constraints=(unique,))]).placements) == 1


def test_only_the_master_knows_what_is_near_so_coarse_offers_serve_such_wants_only_where_it_is_a_wish() -> None:
    for operator in (Operator.NEAR, Operator.APART):
        hard = Constraint(field="rack", operator=operator, values=("task:db",))
        soft = Constraint(field="rack", operator=operator, values=("task:db",), weight=5)
        assert match([offer()], [want(constraints=(hard,))]).placements == ()
        assert len(match([offer()], [want(constraints=(soft,))]).placements) == 1
        assert len(match([offer(want="W")], [want("W", constraints=(hard,))]).placements) == 1
    elsewhere = Constraint(field="rack", operator=Operator.EQUAL, values=("r9",), weight=5)
    shares = Constraint(field="rack", operator=Operator.SPREAD, values=("r9=100",))
    assert len(match([offer()], [want(constraints=(elsewhere, shares))]).placements) == 1


def test_ports_are_chosen_lowest_first_and_fixed_ones_are_left_out() -> None:
    (placed,) = match([offer(span=(31000, 31010))], [want(ports=2, fixed_ports=(31000,))]).placements
    assert placed.ports == (31001, 31002)
    assert all_ranges(placed.resources, "ports") == ((31000, 31002),)


def test_a_fixed_port_that_is_not_offered_does_not_fit() -> None:
    assert match([offer(span=(31000, 31010))], [want(fixed_ports=(80,))]).placements == ()
    assert match([offer(span=(31000, 31000))], [want(ports=2)]).placements == ()


def test_two_instances_on_one_offer_share_no_port() -> None:
    found = match([offer(span=(31000, 31003))], [want(count=9, ports=2)])
    assert [p.ports for p in found.placements] == [(31000, 31001), (31002, 31003)]


def test_what_is_launched_keeps_the_identity_of_what_was_offered() -> None:
    lent = Identity(allocation_role="*", revocable=True)
    made = offer(want="W")
    resources: Resources = normal((scalar("cpus", 2, lent), scalar("mem", 64, lent)))
    shaped = Offer(**{f: getattr(made, f) for f in made.__struct_fields__ if f != "resources"}, resources=resources)
    (placed,) = match([shaped], [want("W")]).placements
    assert {r.identity for r in placed.resources} == {lent}


def test_another_roles_offer_is_not_filled() -> None:
    made = offer()
    other = Offer(**{f: getattr(made, f) for f in made.__struct_fields__ if f != "role"}, role="dev")
    assert match([other], [want()]).placements == ()


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6), st.sampled_from([None, "W0", "W1", "none"])), max_size=6),
    st.lists(st.tuples(st.integers(0, 4), st.integers(1, 3), st.integers(0, 3)), max_size=3),
)
def test_every_offer_is_used_or_returned_and_never_overdrawn(
    offered: list[tuple[int, int, str | None]], waiting: list[tuple[int, int, int]]
) -> None:
    offers = [offer(f"O{i}", want=w, cpus=cpus, span=(31000, 31000 + n)) for i, (cpus, n, w) in enumerate(offered)]
    wants = [want(f"W{i}", count, cpus=cpus, ports=n) for i, (count, cpus, n) in enumerate(waiting)]
    found = match(offers, wants)
    used = {p.offer.id for p in found.placements}
    assert used | {o.id for o in found.unused} == {o.id for o in offers}
    assert not used & {o.id for o in found.unused}
    for made in offers:
        mine = [p for p in found.placements if p.offer.id == made.id]
        assert contains(made.resources, normal(r for p in mine for r in p.resources))
        assert sum(total_milli(p.resources, "cpus") for p in mine) <= total_milli(made.resources, "cpus")
        taken = [port for p in mine for port in p.ports]
        assert len(taken) == len(set(taken))
    for one in wants:
        assert sum(p.want_id == one.id for p in found.placements) <= one.count
