"""What is reserved and idle is lent as revocable, and taken back; what is not revocable is never ended for it."""

from master_stage import Agent, Framework, Stage, agent_info, states, task_info, told
from test_reserve_master import finish, operate, reserved

from corral.model import calls, events
from corral.model.framework import Capability
from corral.model.ledger import drawn, stripped
from corral.model.operations import OperationState, Unreserve
from corral.model.orders import KillTask, RunTask
from corral.model.resources import Identity, Reservation, Resources, add, normal, scalar
from corral.model.task import Reason, TaskInfo, TaskState

STATIC = Reservation(role="web", static=True)
LENT = Identity(revocable=True)
REVOCABLE = (Capability.REVOCABLE_RESOURCES,)


def revocable(cpus: float, mem: float = 64) -> Resources:
    return normal((scalar("cpus", cpus, LENT), scalar("mem", mem, LENT)))


def lend() -> tuple[Stage, Agent, Framework, Framework]:
    """An agent with four cpus free and two reserved; one framework has all that is free, another may borrow."""
    stage = Stage()
    info = agent_info()
    kept = (reserved("cpus", 2, STATIC), reserved("mem", 512, STATIC), reserved("disk", 100, STATIC))
    agent = stage.agent(type(info)(**{f: getattr(info, f) for f in info.__struct_fields__} | {
        "resources": add(info.resources, kept)
    }))  # fmt: skip
    greedy = stage.framework(role="greedy", name="greedy")
    greedy.accept(greedy.offers(), task_info("all", agent.id, info.resources), refuse_s=0)
    agent.take(RunTask)
    borrower = stage.framework(role="batch", name="borrower", capabilities=REVOCABLE)
    return stage, agent, greedy, borrower


def borrow(agent: Agent, borrower: Framework, id: str = "b1", cpus: float = 1.5) -> TaskInfo:
    (offer,) = borrower.offers()
    borrower.accept([offer], task_info(id, agent.id, revocable(cpus)), refuse_s=0)
    (run,) = agent.take(RunTask)
    return run.info


def test_an_idle_reservation_is_lent_to_who_knows_that_it_may_go() -> None:
    stage, agent, _, borrower = lend()
    plain = stage.framework(role="batch", name="plain")
    (offer,) = borrower.offers()
    assert stripped(offer.resources) == revocable(2, 512)
    assert plain.offers() == []
    borrower.accept([offer], task_info("b1", agent.id, revocable(1.5)), refuse_s=0)
    (run,) = agent.take(RunTask)
    assert run.info.claim is not None
    assert run.info.claim.revocable
    (rest,) = borrower.offers()
    assert stripped(rest.resources) == revocable(0.5, 448)


def test_the_owner_gets_its_reservation_back_and_only_revocable_work_ends_for_it() -> None:
    stage, agent, greedy, borrower = lend()
    borrow(agent, borrower)
    assert len(borrower.offers()) == 1
    owner = stage.framework(role="web", name="owner")
    stage.run()
    (kill,) = agent.take(KillTask)
    assert (kill.task_id, kill.reason) == ("b1", Reason.CONTAINER_PREEMPTED)
    assert "web" in kill.why
    (gone,) = borrower.rescinded()  # what is lent and not yet used comes back too
    assert "those for whom it is kept would take it" in stage.core.state.gone_offers[gone][0]
    stage.run(1)
    assert agent.take(KillTask) == [], "a task is asked once"
    agent.update("b1", TaskState.KILLED, borrower.id)
    found = [r for o in owner.offers() for r in stripped(o.resources)]
    assert (
        sum(r.milli for r in found if r.identity == reserved("cpus", 2, STATIC).identity and r.name == "cpus") == 2000
    )
    assert greedy.updates() == []
    assert borrower.offers() == []


def test_a_reservation_whose_owner_refuses_it_stays_lent_until_the_filter_ends() -> None:
    stage, agent, _, borrower = lend()
    borrower.decline(*borrower.offers(), refuse_s=0)
    owner = stage.framework(role="web", name="owner")
    for _ in range(3):
        for offer in owner.offers():
            owner.decline(offer, refuse_s=30)
        if offers := borrower.offers():
            break
    borrower.accept(offers, task_info("b1", agent.id, revocable(1.5)), refuse_s=60)
    agent.take(RunTask)
    stage.run(20)
    assert agent.take(KillTask) == []
    stage.run(20)
    assert [k.task_id for k in agent.take(KillTask)] == ["b1"]


def test_work_on_a_loan_has_to_say_so_and_nothing_else_is_done_with_it() -> None:
    _, agent, _, borrower = lend()
    offers = borrower.offers()
    operate(borrower, offers, Unreserve(resources=(reserved("cpus", 1, STATIC),), operation_id="op"))
    (heard,) = borrower.take(events.UpdateOperation)
    assert heard.status.state is OperationState.ERROR
    tasks = (
        task_info("plain", agent.id, normal((scalar("cpus", 1),))),
        task_info("owners", agent.id, (reserved("cpus", 1, STATIC),)),
        task_info("much", agent.id, revocable(3)),
    )
    operate(borrower, borrower.offers(), calls.Launch(tasks=tasks))
    wrong = (TaskState.ERROR, Reason.TASK_INVALID)
    assert states(borrower.updates()) == [("plain", *wrong), ("owners", *wrong), ("much", *wrong)]
    assert finish(agent) == []


def test_a_loan_is_known_as_such_to_a_new_master() -> None:
    stage, agent, _, borrower = lend()
    info = borrow(agent, borrower)
    fresh = stage.restart()
    agent.info = agent.entry().info
    back = Agent(fresh, agent.info)
    back.connect([told(info, borrower, role="batch")], [borrower.info])
    fresh.framework(role="web", name="owner")
    fresh.run()
    assert [k.task_id for k in back.take(KillTask)] == ["b1"]


def test_no_more_tasks_end_for_reservations_than_the_operator_allows() -> None:
    stage, agent, _, borrower = lend()
    borrow(agent, borrower, "b1", 0.5)
    borrow(agent, borrower, "b2", 0.5)
    settings = stage.core.state.allocator.settings
    stage.core.state.allocator.set_settings(type(settings)(headroom=None, evictions_per_minute=1))
    stage.framework(role="web", name="owner")
    stage.run()
    assert len(agent.take(KillTask)) == 1
    stage.run(50)
    assert agent.take(KillTask) == []
    stage.run(15)
    assert len(agent.take(KillTask)) == 1


def test_what_is_drawn_is_what_was_asked_in_the_form_it_is_held() -> None:
    have = normal((scalar("cpus", 1), reserved("cpus", 2, STATIC), scalar("mem", 64)))
    got = drawn(have, normal((scalar("cpus", 2.5, LENT), scalar("mem", 32))))
    assert sum(r.milli for r in got if r.name == "cpus") == 2500
    assert all(r.milli <= h.milli for r in got for h in have if (r.name, r.identity) == (h.name, h.identity))
    assert scalar("cpus", 4) in drawn((), (scalar("cpus", 4, LENT),)), "what is lacking is asked of nobody"
