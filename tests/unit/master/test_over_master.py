"""What an agent's tasks leave unused is offered as revocable to who can have it, and taken back when there is less."""

import msgspec
from master_stage import Agent, Framework, Stage, agent_info, bundle, task_info, told
from test_reserve_loans import REVOCABLE, STATIC, revocable
from test_reserve_master import reserved

from corral.model.ledger import stripped
from corral.model.orders import KillTask, RunTask, Slack
from corral.model.resources import add, scalar
from corral.model.task import TaskState


def fill() -> tuple[Stage, Agent, Framework, Framework]:
    """An agent whose cpus and memory are all held by one framework; another may borrow."""
    stage = Stage()
    agent = stage.agent()
    firm = stage.framework(role="firm", name="firm")
    firm.accept(firm.offers(), task_info("all", agent.id, agent.info.resources), refuse_s=0)
    agent.take(RunTask)
    return stage, agent, firm, stage.framework(role="batch", name="borrower", capabilities=REVOCABLE)


def lend(agent: Agent, cpus: float, mem: float = 512) -> None:
    agent.report(Slack(tuple(r for r in (scalar("cpus", cpus), scalar("mem", mem)) if r.milli)))
    agent.stage.run(1)


def test_slack_is_offered_as_revocable_to_those_who_know_that_it_may_go() -> None:
    stage, agent, firm, borrower = fill()
    plain = stage.framework(role="batch", name="plain")
    lend(agent, 2)
    (offer,) = borrower.offers()
    assert stripped(offer.resources) == revocable(2, 512)
    assert plain.offers() == firm.offers() == []
    borrower.accept([offer], task_info("b1", agent.id, revocable(1.5)), refuse_s=0)
    (run,) = agent.take(RunTask)
    assert stripped(run.info.resources) == revocable(1.5)
    assert run.info.claim is not None
    assert run.info.claim.revocable
    (rest,) = borrower.offers()
    assert stripped(rest.resources) == revocable(0.5, 448)


def test_less_slack_takes_back_what_is_offered_and_ends_nothing() -> None:
    stage, agent, _, borrower = fill()
    lend(agent, 2)
    borrower.accept(borrower.offers(), task_info("b1", agent.id, revocable(1.5)), refuse_s=0)
    assert len(borrower.offers()) == 1
    lend(agent, 1)
    assert len(borrower.rescinded()) == 1
    assert [stripped(o.resources) for o in borrower.offers()] == [revocable(0, 448)], "memory is left, no cpus are"
    assert agent.take(KillTask) == []
    lend(agent, 2.5)
    assert [stripped(o.resources) for o in borrower.offers()] == [revocable(1, 0)]
    stage.core.state.invariants()


def test_an_accept_of_what_was_taken_back_is_told_so() -> None:
    _, agent, _, borrower = fill()
    lend(agent, 2)
    offers = borrower.offers()
    lend(agent, 0, 0)
    borrower.accept(offers, task_info("b1", agent.id, revocable(1.5)), refuse_s=0)
    (status,) = borrower.updates()
    assert "use more of what they hold" in status.message
    assert agent.take(RunTask) == []


def test_one_offer_holds_what_is_reserved_for_others_and_what_is_left_unused() -> None:
    stage = Stage()
    info = agent_info()
    kept = (reserved("cpus", 2, STATIC), reserved("mem", 512, STATIC))
    agent = stage.agent(msgspec.structs.replace(info, resources=add(info.resources, kept)))
    firm = stage.framework(role="firm", name="firm")
    firm.accept(firm.offers(), task_info("all", agent.id, info.resources), refuse_s=0)
    agent.take(RunTask)
    lend(agent, 1, 256)
    borrower = stage.framework(role="batch", name="borrower", capabilities=REVOCABLE)
    (offer,) = borrower.offers()
    assert stripped(offer.resources) == revocable(3, 768)
    borrower.accept([offer], task_info("b1", agent.id, revocable(2.5)), refuse_s=0)
    assert len(agent.take(RunTask)) == 1
    (rest,) = borrower.offers()
    assert stripped(rest.resources) == revocable(0.5, 704)


def test_what_is_lent_beyond_the_slack_keeps_nobody_from_what_is_free_for_good() -> None:
    stage, agent, firm, borrower = fill()
    lend(agent, 4, 4096)
    borrower.accept(borrower.offers(), task_info("b1", agent.id, revocable(4, 4096)), refuse_s=0)
    lend(agent, 0, 0)
    uuid = agent.update("all", TaskState.FINISHED, firm.id)
    firm.acknowledge(agent, "all", uuid)
    stage.run(1)
    found = [r for f in (firm, borrower) for o in f.offers() for r in stripped(o.resources) if r.name != "ports"]
    assert tuple(found) == bundle(4, 4096)
    stage.core.state.invariants()


def test_an_agent_may_come_back_with_work_on_slack_before_it_has_estimated_any() -> None:
    stage, agent, firm, borrower = fill()
    lend(agent, 2)
    borrower.accept(borrower.offers(), task_info("b1", agent.id, revocable(1.5)), refuse_s=0)
    runs = {run.info.task_id: run.info for run in agent.take(RunTask)}
    assert list(runs) == ["b1"]
    whole = firm.entry().tasks["all"].info
    fresh = stage.restart()
    back = Agent(fresh, msgspec.structs.replace(agent.info, id=agent.id))
    back.connect([told(runs["b1"], borrower, role="batch"), told(whole, firm, role="firm")], [borrower.info, firm.info])
    assert back.entry().session is not None, "it was not refused"
    assert agent.stage is not fresh
    lend(back, 2)
    fresh.core.state.invariants()
    assert fresh.core.state.allocator.book.agents[agent.id].free() == revocable(0.5, 448)


def test_only_revocable_resources_change_with_a_report() -> None:
    _, agent, _, _ = fill()
    before = agent.entry().info.resources
    lend(agent, 2)
    assert agent.entry().info.resources == add(before, revocable(2, 512))
    lend(agent, 0, 0)
    assert agent.entry().info.resources == before
    assert bundle(4, 4096, (31000, 31099)) == before
