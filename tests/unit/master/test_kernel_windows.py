"""In its maintenance window an agent lends what is not reserved; what is reserved stays with its role."""

from master_stage import Agent, Framework, Stage, agent_info, bundle, task_info, told
from test_agents_maintenance import H1, plan, window
from test_reserve_loans import REVOCABLE, borrow, revocable
from test_reserve_master import reserved

from corral.model import calls, events
from corral.model.ledger import stripped
from corral.model.maintenance import DrainAgent, DrainState
from corral.model.operator import SetRole
from corral.model.orders import KillTask
from corral.model.resources import Reservation, add, normal, scalar
from corral.model.task import Reason, TaskState

KEPT = (reserved("cpus", 2, Reservation(role="web", static=True)),)


def opened(start_s: float = 10.0, duration_s: float = 20.0) -> tuple[Stage, Agent, Framework, Framework]:
    """An agent whose window opens in a while; one framework takes what is lent, one does not."""
    stage = Stage()
    agent = stage.agent(agent_info("h1"))
    plan(stage, window(H1, start_s=stage.now + start_s, duration_s=duration_s))
    plain = stage.framework(name="plain")
    return stage, agent, plain, stage.framework(name="borrower", capabilities=REVOCABLE)


def lending() -> tuple[Stage, Agent, Framework]:
    """An agent in its window, of which one framework is offered what is lent."""
    stage, agent, plain, borrower = opened()
    plain.call(calls.Suppress(framework_id=plain.id))
    borrower.offers()
    stage.run(10)
    return stage, agent, borrower


def test_before_its_window_an_agent_is_offered_as_ever_with_its_unavailability() -> None:
    _, agent, plain, _ = opened()
    (offer,) = plain.offers()
    assert offer.unavailability is not None
    assert stripped(offer.resources) == agent.info.resources


def test_when_the_window_opens_plain_offers_go_and_all_that_may_be_lent_is_offered_as_revocable() -> None:
    stage, _, plain, borrower = opened()
    (offer,) = plain.offers()
    stage.run(10)
    assert plain.rescinded() == [offer.id]
    (loan,) = borrower.offers()
    assert stripped(loan.resources) == revocable(4, 4096)
    assert loan.unavailability is not None
    assert plain.offers() == []


def test_a_stale_accept_learns_that_the_window_has_begun() -> None:
    stage, agent, plain, _ = opened()
    (offer,) = plain.offers()
    stage.run(10)
    plain.accept([offer], task_info("t", agent.id))
    (status,) = plain.updates()
    assert (status.state, status.reason) == (TaskState.LOST, Reason.INVALID_OFFERS)
    assert "maintenance window has begun" in status.message


def test_work_on_what_the_window_lends_runs_on_when_it_closes_and_the_rest_is_offered_for_good() -> None:
    stage, agent, borrower = lending()
    borrow(agent, borrower, "b1", 1.5)
    agent.update("b1", TaskState.RUNNING, borrower.id)
    (rest,) = borrower.offers()
    assert stripped(rest.resources) == revocable(2.5, 4032)
    stage.run(20)
    assert borrower.rescinded()[-1] == rest.id
    (after,) = borrower.offers()
    assert stripped(after.resources) == bundle(2.5, 4032, (31000, 31099))
    assert agent.take(KillTask) == []


def test_what_is_reserved_stays_with_its_role_in_the_window_and_is_lent_to_others_only_while_idle() -> None:
    stage = Stage()
    info = agent_info("h1")
    agent = stage.agent(type(info)(**{f: getattr(info, f) for f in info.__struct_fields__} | {
        "resources": add(info.resources, KEPT)
    }))  # fmt: skip
    plan(stage, window(H1, start_s=stage.now - 1))
    owner = stage.framework(name="owner", role="web")
    (mine,) = owner.offers()
    assert stripped(mine.resources) == KEPT
    borrower = stage.framework(name="borrower", role="batch", capabilities=REVOCABLE)
    (loan,) = borrower.offers()
    assert stripped(loan.resources) == revocable(4, 4096)
    owner.decline(mine, refuse_s=3600)
    assert [stripped(o.resources) for o in borrower.offers()] == [normal((revocable(2)[0],))]
    assert agent.entry().ineligible == "maintenance"


def test_a_guaranteed_role_takes_nothing_back_on_an_agent_in_its_window_and_does_once_that_is_over() -> None:
    stage, agent, borrower = lending()
    borrow(agent, borrower, "b1", 4)
    stage.ask(SetRole(role="prod", guarantee=normal((scalar("cpus", 3),))))
    owner = stage.framework(role="prod", name="owner")
    stage.run(5)
    assert agent.take(KillTask) == []
    assert owner.offers() == []
    stage.run(20)
    (kill,) = agent.take(KillTask)
    assert kill.reason is Reason.CONTAINER_PREEMPTED


def test_a_new_master_knows_the_open_window_and_lends_there() -> None:
    stage, agent, _, _ = opened(start_s=1)
    stage.run(2)
    fresh = stage.restart()
    back = Agent(fresh, agent.entry().info)
    back.connect()
    plain = fresh.framework(name="plain")
    borrower = fresh.framework(name="borrower", capabilities=REVOCABLE)
    assert plain.offers() == []
    assert [stripped(o.resources) for o in borrower.offers()] == [revocable(4, 4096)]


def test_a_drain_ends_lent_work_and_lends_nothing_until_it_is_over_also_when_the_agent_comes_anew() -> None:
    stage, agent, borrower = lending()
    info = borrow(agent, borrower, "b1", 1)
    uuid = agent.update("b1", TaskState.RUNNING, borrower.id)
    borrower.acknowledge(agent, "b1", uuid)
    (loan,) = borrower.offers()
    stage.ask(DrainAgent(agent_id=agent.id))
    assert loan.id in borrower.rescinded()
    assert [k.reason for k in agent.take(KillTask)] == [Reason.AGENT_DRAINING]
    agent.close()
    again = Agent(stage, agent.info)
    again.connect([told(info, borrower)], [borrower.info])
    stage.run(1)
    assert borrower.offers() == []
    assert again.entry().drain.state is DrainState.DRAINING
    last = again.update("b1", TaskState.KILLED, borrower.id)
    borrower.acknowledge(again, "b1", last)
    stage.run(1)
    assert again.entry().drain.state is DrainState.DRAINED
    assert borrower.offers() == []
    assert borrower.take(events.Rescind) == []
