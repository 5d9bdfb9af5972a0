"""What frameworks themselves think worth an offer."""

import pytest
from tests.unit.allocator.words import agent, run, told

from corral.allocator.view import FrameworkView
from corral.model.ids import FrameworkId

BIG = ({"cpus": 4000}, {"cpus": 1000, "mem": 2_000_000})


def picky(name: str, least: tuple[dict[str, int], ...] | None) -> FrameworkView:
    said = {"*": least} if least is not None else {}
    return FrameworkView(id=FrameworkId(name), coarse_roles=("*",), least=said)


@pytest.mark.parametrize(("there", "least", "offered"), [
    ("cpus:4;mem:64", BIG, True),
    ("cpus:1;mem:2000", BIG, True),
    ("cpus:3;mem:1999", BIG, False),
    ("mem:99999", BIG, False),
    ("cpus:0.001;mem:1", None, False),
    ("cpus:0.01", None, True),
    ("cpus:0.001;mem:1", (), True),
    ("cpus:0.001;mem:1", ({"mem": 1000},), True),
    ("disk:100", ({"disk": 100_000},), True),
    ("disk:100", None, False),
    ("ports:[1-9]", (), False),
])  # fmt: skip
def test_an_offer_is_worth_it_as_its_framework_says(
    there: str, least: tuple[dict[str, int], ...] | None, offered: bool
) -> None:
    assert bool(run(told(agent("a", there), picky("f", least))).grants) is offered


def test_what_is_too_little_for_one_goes_to_another() -> None:
    allocator = told(agent("a", "cpus:2;mem:64"), agent("b", "cpus:8;mem:64"), picky("f", BIG), picky("g", None))
    assert {g.agent_id: g.framework_id for g in run(allocator).grants} == {"a": "g", "b": "f"}


def test_what_is_too_little_for_everybody_else_is_offered_to_who_wants_it_and_to_nobody_else() -> None:
    allocator = told(agent("a", "cpus:0.001"), picky("g", None), picky("h", ({"cpus": 1},)))
    assert [g.framework_id for g in run(allocator).grants] == ["h"]
