"""What-if questions: answered on a copy, with the words of the real thing."""

import msgspec
import pytest

from corral.allocator.allocator import Allocator
from corral.allocator.view import AgentView, Hold, HoldKind, Settings, View, WantView
from corral.allocator.whatif import explain_if, plan
from corral.lib.errors import Invalid, NotFound
from corral.model.constraints import HOSTNAME, Constraint, Operator
from corral.model.ids import AgentId, FrameworkId, OfferId, WantId
from corral.model.offer import Want
from corral.model.resources import Resources, normal, scalar
from corral.model.role import RoleSettings

F = FrameworkId("f")


def bundle(cpus: float, mem: float = 512) -> Resources:
    return normal((scalar("cpus", cpus), scalar("mem", mem)))


def agents(*cpus: float) -> list[AgentView]:
    return [AgentView(id=AgentId(f"a{i}"), hostname=f"h{i}", total=bundle(n, 8192)) for i, n in enumerate(cpus)]


def want(count: int, cpus: float, id: str = "web", role: str = "r", **more: object) -> Want:
    return Want(id=WantId(id), role=role, count=count, resources=bundle(cpus), **more)  # type: ignore[arg-type]


def waiting(one: Want) -> WantView:
    return WantView(want=one, framework_id=F, missing=one.count, since_at=0.0)


def test_a_plan_tells_where_instances_would_go_and_what_would_still_wait() -> None:
    found = plan(View(agents=agents(4, 2)), F, [want(8, 1)], 1.0)
    assert {each.hostname: each.count for each in found.placements} == {"h0": 4, "h1": 2}
    assert not found.fits
    assert found.waiting[0].waiting == 2
    assert {each.reason for each in found.waiting[0].refusals} == {"cpus"}


def test_a_plan_tells_who_would_be_evicted_and_what_the_role_would_hold() -> None:
    low = Hold(key="task/f/low", framework_id=F, role="r", agent_id=AgentId("a0"), resources=bundle(3), priority=0)
    view = View(agents=agents(4), holds=[low], roles={"r": RoleSettings(limit=(scalar("cpus", 10),))})
    found = plan(view, F, [want(1, 4, priority=3)], 1.0)
    assert found.fits
    assert [each.key for each in found.evictions] == ["task/f/low"]
    effect = next(each for each in found.roles if each.resource == "cpus")
    assert (effect.before, effect.after, effect.limit) == (3.0, 4.0, 10.0)


def test_offers_that_others_hold_come_back_in_a_plan() -> None:
    out = Hold(
        key="offer/1", framework_id=FrameworkId("g"), role="q", agent_id=AgentId("a0"), resources=bundle(4, 8192),
        kind=HoldKind.OFFER, offer_id=OfferId("1"),
    )  # fmt: skip
    assert plan(View(agents=agents(4), holds=[out]), F, [want(2, 1)], 1.0).fits


@pytest.mark.parametrize(
    ("changes", "fits"),
    [
        ([("cpus", "2")], True),
        ([("cpus", "3")], False),
        ([("agents", "1"), ("cpus", "2")], True),
        ([("count", "1"), ("cpus", "2")], True),
        ([("revocable", "yes")], False),
    ],
)
def test_a_want_is_tried_with_other_numbers(changes: list[tuple[str, str]], fits: bool) -> None:
    view = View(agents=agents(2, 2), wants=[waiting(want(2, 8))])
    assert explain_if(view, F, WantId("web"), changes, 1.0).fits is fits


def test_limits_guarantees_and_constraints_are_tried() -> None:
    unique = Constraint(field=HOSTNAME, operator=Operator.UNIQUE)
    view = View(
        agents=agents(4), wants=[waiting(want(3, 1, constraints=(unique,)))],
        roles={"r": RoleSettings(limit=(scalar("cpus", 1),)), "other": RoleSettings(guarantee=(scalar("cpus", 2),))},
    )  # fmt: skip
    assert explain_if(view, F, WantId("web"), [], 1.0).waiting[0].waiting == 2
    only = explain_if(view, F, WantId("web"), [("without", "@hostname unique")], 1.0)
    assert {each.reason for each in only.waiting[0].refusals} >= {"limit"}
    both = [("without", "@hostname unique"), ("role-limit", "cpus:4")]
    assert explain_if(view, F, WantId("web"), both, 1.0).waiting[0].waiting == 1
    assert explain_if(view, F, WantId("web"), [*both, ("revocable", "yes")], 1.0).fits


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cpus", "many"), ("bananas", "2"), ("count", "1.5"), ("role-limit", "cpus"), ("weight", "0"),
        ("without", "zone == a"), ("mem", "-1"), ("cpus", "nan"), ("agents", "1001"), ("revocable", "perhaps"),
        ("priority", "512"), ("priority", "-513"), ("gang", "3"), ("count", "100001"),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_said(name: str, value: str) -> None:
    view = View(agents=agents(4), wants=[waiting(want(1, 8))])
    with pytest.raises(Invalid, match=r"give|write|has|refused"):
        explain_if(view, F, WantId("web"), [(name, value)], 1.0)


def test_an_unknown_want_is_not_found_and_the_live_allocator_is_not_touched() -> None:
    live = Allocator.of(View(agents=agents(2), wants=[waiting(want(3, 1))]))
    live.run(1.0)
    before = live.view()
    with pytest.raises(NotFound):
        explain_if(before, F, WantId("nobody"), [], 2.0)
    assert explain_if(before, F, WantId("web"), [("agents", "3")], 2.0).fits
    assert live.view() == before
    live.invariants()


def test_a_negative_priority_is_tried() -> None:
    view = View(agents=agents(4), wants=[waiting(want(1, 2))])
    assert explain_if(view, F, WantId("web"), [("priority", "-512")], 1.0).fits


def test_a_plan_with_more_instances_than_anybody_runs_is_refused() -> None:
    with pytest.raises(Invalid, match="at most 100000"):
        plan(View(agents=agents(4)), F, [want(60_000, 1), want(60_000, 1, "other")], 1.0)


def test_a_plan_evicts_all_that_has_to_go_though_the_master_would_take_minutes() -> None:
    low = [
        Hold(key=f"task/f/{i}", framework_id=F, role="r", agent_id=AgentId("a0"), resources=bundle(1, 10))
        for i in range(4)
    ]
    view = View(agents=agents(4), holds=low, settings=Settings(evictions_per_minute=1))
    found = plan(view, F, [want(4, 1, priority=1)], 1.0)
    assert found.fits
    assert len(found.evictions) == 4
    none = msgspec.structs.replace(view, settings=Settings(evictions_per_minute=0))
    assert not plan(none, F, [want(4, 1, priority=1)], 1.0).fits
