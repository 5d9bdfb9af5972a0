"""A role that borrows: no guarantee of its own is fulfilled by it, and what is lent comes back with its reason."""

from tests.unit.allocator.words import agent, framework, offer, role, run, task, told

from corral.allocator.view import FrameworkView
from corral.model.ids import FrameworkId, OfferId


def borrower(name: str, *roles: str) -> FrameworkView:
    return FrameworkView(id=FrameworkId(name), coarse_roles=roles, revocable=True)


def test_a_guaranteed_role_that_borrows_is_still_below_its_guarantee_for_plain_offers() -> None:
    allocator = told(
        agent("lent", "cpus:4;mem:4096"), agent("free", "cpus:2;mem:4096"),
        task("b", "lent", "cpus:4", framework="f", role="prod", revocable=True),
        framework("f", "prod"), framework("g", "other"),
        prod=role(guarantee="cpus:2"), other=role(),
    )  # fmt: skip
    # What the role holds, four cpus of six, is far beyond the other's share: only its guarantee puts it first.
    assert [(g.role, g.agent_id) for g in run(allocator).grants if g.agent_id == "free"] == [("prod", "free")]


def test_what_is_taken_back_of_a_loan_is_told_apart_from_what_blocks_a_want() -> None:
    allocator = told(
        agent("a", "cpus:4;mem:64"), offer("o", "a", "cpus:4;mem:64", framework="g", role="other", revocable=True),
        framework("f", "prod"), borrower("g", "other"),
        prod=role(guarantee="cpus:4"),
    )  # fmt: skip
    found = run(allocator)
    assert (found.rescind, found.returned) == ((OfferId("o"),), (OfferId("o"),))
