"""What a task holds on loan is shown as revocable, in the operator's and in the older form."""

import msgspec

from corral.mesos import legacy, operator
from corral.model.ids import AgentId, FrameworkId, TaskId
from corral.model.resources import Identity, Reservation, scalar
from corral.model.task import Claim, CommandInfo, Task, TaskInfo, TaskState

KEPT = Identity(reservations=(Reservation(role="ads"),))


def make(claim: Claim | None) -> Task:
    info = TaskInfo(
        task_id=TaskId("t"), name="t", agent_id=AgentId("a"), command=CommandInfo(value="x"), claim=claim,
        resources=(scalar("cpus", 1, KEPT), scalar("cpus", 0.5), scalar("mem", 64)),
    )  # fmt: skip
    return Task(info=info, framework_id=FrameworkId("f"), role="web", state=TaskState.RUNNING, statuses=())


def test_what_is_held_on_loan_bears_the_mark_and_not_whose_it_is() -> None:
    shown = msgspec.to_builtins(operator.write_task(make(Claim(revocable=True))))["resources"]
    assert {(r["name"], r["scalar"]["value"], "revocable" in r, "reservations" in r) for r in shown} == {
        ("cpus", 1.5, True, False), ("mem", 64.0, True, False),
    }  # fmt: skip
    assert {r["allocation_info"]["role"] for r in shown} == {"web"}
    flat = legacy.write_task(make(Claim(revocable=True)))["resources"]
    assert (flat["cpus"], flat["cpus_revocable"], flat["mem_revocable"]) == (0, 1.5, 64.0)


def test_what_is_the_role_s_own_bears_none() -> None:
    for claim in (None, Claim(priority=3)):
        shown = msgspec.to_builtins(operator.write_task(make(claim)))["resources"]
        assert not [r for r in shown if "revocable" in r]
        assert len([r for r in shown if r.get("reservations")]) == 1
        assert legacy.write_task(make(claim))["resources"]["cpus"] == 1.5
