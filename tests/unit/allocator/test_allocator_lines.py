"""Wants in line: whose an instance is that was placed, and what is counted when wants and tasks go at one time."""

from corral.allocator.allocator import Allocator
from corral.allocator.view import AgentView, FrameworkView, Hold, HoldKind, WantView
from corral.model.constraints import Constraint, Operator
from corral.model.ids import AgentId, FrameworkId, WantId
from corral.model.offer import Want
from corral.model.resources import Resources, scalar

F = FrameworkId("f")
UNIQUE = (Constraint(field="@hostname", operator=Operator.UNIQUE),)


def cluster(cpus: float) -> Allocator:
    found = Allocator()
    for name in ("a1", "a2"):
        found.set_agent(AgentView(id=AgentId(name), hostname=name, total=(scalar("cpus", cpus),)))
    found.set_framework(FrameworkView(id=F))
    return found


def want(name: str, missing: int, constraints: tuple[Constraint, ...] = (), since_at: float = 0.0) -> WantView:
    one: Resources = (scalar("cpus", 1.0),)
    stated = Want(id=WantId(name), role="r", count=2, resources=one, constraints=constraints, group="g")
    return WantView(want=stated, framework_id=F, missing=missing, since_at=since_at)


def test_a_want_that_lacks_nothing_any_more_leaves_its_place_to_the_next() -> None:
    allocator = cluster(0.5)
    allocator.set_want(want("first", 1))
    allocator.set_want(want("second", 1, since_at=1.0))
    assert allocator.run(2.0).grants == ()
    allocator.set_want(want("first", 0))
    allocator.set_agent(AgentView(id=AgentId("a1"), hostname="a1", total=(scalar("cpus", 4.0),)))
    assert [grant.want_id for grant in allocator.run(3.0).grants] == ["second"]
    allocator.invariants()


def test_a_task_may_go_together_with_the_last_want_that_counted_it() -> None:
    allocator = cluster(4.0)
    allocator.set_want(want("w", 2, UNIQUE))
    grants = allocator.run(1.0).grants
    assert sorted(grant.agent_id for grant in grants) == ["a1", "a2"]
    for number, grant in enumerate(grants):
        task = Hold(
            key=f"task/{number}", framework_id=F, role="r", agent_id=grant.agent_id, resources=grant.resources,
            kind=HoldKind.TASK, want_id=grant.want_id, group="g",
        )  # fmt: skip
        allocator.hold(task, instead_of=grant.key)
    allocator.remove_want(F, WantId("w"))
    allocator.release("task/0")
    assert allocator.run(2.0).grants == ()
    # Whoever counts them from now on counts the one that is left.
    allocator.set_want(want("w2", 2, UNIQUE))
    assert [grant.agent_id for grant in allocator.run(3.0).grants] == [grants[0].agent_id]
    allocator.invariants()


def test_a_task_may_go_while_its_tally_goes_and_comes_again() -> None:
    allocator = cluster(4.0)
    allocator.set_want(want("w", 2, UNIQUE))
    grants = allocator.run(1.0).grants
    allocator.remove_want(F, WantId("w"))
    allocator.release(grants[0].key)
    allocator.set_want(want("w2", 2, UNIQUE))
    assert [grant.agent_id for grant in allocator.run(2.0).grants] == [grants[0].agent_id]
    allocator.invariants()
