"""What guarantees keep back is lent as revocable, and taken back for them; what is not revocable is never ended."""

from master_stage import Agent, Framework, Stage, agent_info, bundle, task_info, told
from test_reserve_loans import REVOCABLE, borrow, revocable

from corral.model.ids import WantId
from corral.model.ledger import stripped
from corral.model.offer import Want
from corral.model.operator import SetRole
from corral.model.orders import KillTask, RunTask
from corral.model.resources import Resources, normal, scalar
from corral.model.task import Reason, TaskState

KEPT = normal((scalar("cpus", 3), scalar("mem", 512)))


def keep(guarantee: Resources = KEPT) -> tuple[Stage, Agent, Framework, Framework]:
    """An agent of four cpus, three of them kept for `prod`; one framework has the fourth, another may borrow."""
    stage = Stage()
    agent = stage.agent(agent_info())
    stage.ask(SetRole(role="prod", guarantee=guarantee))
    greedy = stage.framework(role="greedy", name="greedy")
    (offer,) = greedy.offers()
    greedy.accept([offer], task_info("all", agent.id, stripped(offer.resources)), refuse_s=0)
    agent.take(RunTask)
    borrower = stage.framework(role="batch", name="borrower", capabilities=REVOCABLE)
    return stage, agent, greedy, borrower


def test_what_guarantees_keep_is_lent_to_who_knows_that_it_may_go() -> None:
    stage, agent, _, borrower = keep()
    plain = stage.framework(role="batch", name="plain")
    (offer,) = borrower.offers()
    assert stripped(offer.resources) == revocable(3, 512)
    assert plain.offers() == []
    borrower.accept([offer], task_info("b1", agent.id, revocable(2)), refuse_s=0)
    (run,) = agent.take(RunTask)
    assert run.info.claim is not None
    assert run.info.claim.revocable
    (rest,) = borrower.offers()
    assert stripped(rest.resources) == revocable(1, 448)


def test_what_is_lent_comes_back_to_the_guaranteed_role_and_only_revocable_work_ends_for_it() -> None:
    stage, agent, greedy, borrower = keep()
    borrow(agent, borrower, "b1", 2)
    assert len(borrower.offers()) == 1
    owner = stage.framework(role="prod", name="owner")
    stage.run()
    (kill,) = agent.take(KillTask)
    assert (kill.task_id, kill.reason) == ("b1", Reason.CONTAINER_PREEMPTED)
    assert "prod" in kill.why
    assert len(borrower.rescinded()) == 1
    stage.run(1)
    assert agent.take(KillTask) == [], "a task is asked once"
    agent.update("b1", TaskState.KILLED, borrower.id)
    found = [r for o in owner.offers() for r in stripped(o.resources) if r.name == "cpus"]
    assert sum(r.milli for r in found) == 3000
    assert not any(r.identity.revocable for r in found)
    assert greedy.updates() == []
    stage.core.state.allocator.invariants()


def test_no_more_is_taken_back_than_the_guarantee_lacks() -> None:
    stage, agent, _, borrower = keep()
    for id in ("b1", "b2", "b3"):
        borrow(agent, borrower, id, 1)
    stage.ask(SetRole(role="prod", guarantee=normal((scalar("cpus", 2),))))
    stage.framework(role="prod", name="owner")
    stage.run(1)
    assert len(agent.take(KillTask)) == 2


def test_what_is_free_is_given_before_anything_is_taken_back() -> None:
    stage, agent, _, borrower = keep()
    borrow(agent, borrower, "b1", 2)
    stage.agent(agent_info("h2"))
    owner = stage.framework(role="prod", name="owner")
    assert sum(r.milli for o in owner.offers() for r in o.resources if r.name == "cpus") >= 3000
    stage.run(1)
    assert agent.take(KillTask) == []


def test_a_want_of_the_guaranteed_role_takes_back_what_is_lent() -> None:
    stage, agent, greedy, borrower = keep()
    borrow(agent, borrower, "b1", 2)
    owner = stage.framework(role="prod", name="owner", suppressed_roles=("prod",))
    owner.want(Want(id=WantId("w"), role="prod", resources=bundle(3), count=1))
    stage.run()
    assert [k.task_id for k in agent.take(KillTask)] == ["b1"]
    agent.update("b1", TaskState.KILLED, borrower.id)
    assert [o.want_id for o in owner.offers() if o.want_id is not None] == ["w"]
    assert greedy.updates() == []


def test_no_more_tasks_end_for_guarantees_than_the_operator_allows() -> None:
    stage, agent, _, borrower = keep()
    for id in ("b1", "b2", "b3"):
        borrow(agent, borrower, id, 1)
    settings = stage.core.state.allocator.settings
    stage.core.state.allocator.set_settings(type(settings)(headroom=None, evictions_per_minute=1))
    stage.framework(role="prod", name="owner")
    stage.run()
    assert len(agent.take(KillTask)) == 1
    stage.run(50)
    assert agent.take(KillTask) == []
    stage.run(15)
    assert len(agent.take(KillTask)) == 1


def test_what_is_lent_of_a_guarantee_is_known_as_such_to_a_new_master() -> None:
    stage, agent, _, borrower = keep()
    info = borrow(agent, borrower, "b1", 2)
    fresh = stage.restart()
    agent.info = agent.entry().info
    back = Agent(fresh, agent.info)
    back.connect([told(info, borrower, role="batch")], [borrower.info])
    greedy = fresh.framework(role="greedy", name="greedy")
    assert sum(r.milli for o in greedy.offers() for r in o.resources if r.name == "cpus") == 1000
    fresh.framework(role="prod", name="owner")
    fresh.run()
    assert [k.task_id for k in back.take(KillTask)] == ["b1"]
