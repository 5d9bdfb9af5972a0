"""Groups and executors with resources of their own on what is lent: launched there, and gone when it is needed."""

from collections.abc import Sequence

import msgspec
import pytest
from master_stage import Agent, Framework, Stage, bundle, states, task_info
from test_executors_master import CUSTOM, DEFAULT, of_executor
from test_lend_guarantees import keep
from test_over_master import fill
from test_over_master import lend as tell_slack
from test_reserve_loans import lend, revocable

from corral.master.spec import AgentOpened
from corral.model import calls
from corral.model.ids import ExecutorId
from corral.model.ledger import lent, stripped
from corral.model.offer import Filters, Offer
from corral.model.orders import (
    AgentExecutor,
    AgentTask,
    ExecutorEnded,
    KillTask,
    Register,
    RunGroup,
    RunTask,
    ShutdownExecutor,
)
from corral.model.resources import Identity, scalar
from corral.model.task import ExecutorInfo, Reason, TaskInfo, TaskState

SMALL = msgspec.structs.replace(CUSTOM, resources=lent(bundle(0.5, 64)))
POD = msgspec.structs.replace(DEFAULT, resources=lent(bundle(0.1, 32)))


def group(borrower: Framework, agent: Agent, *infos: TaskInfo, executor: ExecutorInfo = POD) -> list[RunGroup]:
    ids = tuple(offer.id for offer in borrower.offers())
    launch = calls.LaunchGroup(executor=executor, tasks=infos)
    borrower.call(
        calls.Accept(framework_id=borrower.id, offer_ids=ids, operations=(launch,), filters=Filters(refuse_s=0))
    )
    return agent.take(RunGroup)


def pods(agent: Agent) -> tuple[TaskInfo, TaskInfo]:
    return task_info("a", agent.id, revocable(0.5)), task_info("b", agent.id, revocable(0.5))


def cpus(offers: Sequence[Offer]) -> int:
    return sum(r.milli for o in offers for r in o.resources if r.name == "cpus" and not r.identity.revocable)


def come_back(stage: Stage, agent: Agent, run: RunTask, borrower: Framework) -> Agent:
    """The agent opens a new link and brings the task with its executor."""
    back = Agent(stage, agent.info)
    stage.sessions += 1
    back.session = f"session-{stage.sessions}"
    stage.give(AgentOpened(back.session))
    assert run.info.executor is not None
    there = AgentTask(run.info, borrower.id, "batch", TaskState.RUNNING)
    executors = (AgentExecutor(run.info.executor, borrower.id, "batch"),)
    back.report(Register(agent.info, (there,), (borrower.info,), executors))
    return back


@pytest.mark.parametrize("loan", ["reservation", "guarantee"])
def test_a_group_on_a_loan_goes_with_its_executor_when_its_owner_comes(loan: str) -> None:
    stage, agent, greedy, borrower = lend() if loan == "reservation" else keep()
    (order,) = group(borrower, agent, *pods(agent))
    assert all(info.claim is not None and info.claim.revocable for info in order.infos)
    executor = order.infos[0].executor
    assert executor is not None
    assert executor.lent
    owner = stage.framework(role="web" if loan == "reservation" else "prod", name="owner")
    stage.run(1)
    assert {k.task_id for k in agent.take(KillTask)} == {"a", "b"}
    (shutdown,) = agent.take(ShutdownExecutor)
    assert (shutdown.executor_id, shutdown.reason) == ("pod", Reason.CONTAINER_PREEMPTED)
    assert "takes back" in shutdown.why
    for id in ("a", "b"):
        agent.update(id, TaskState.KILLED, borrower.id)
    agent.report(ExecutorEnded(borrower.id, ExecutorId("pod"), 0))
    assert cpus(owner.offers()) == (2000 if loan == "reservation" else 3000)
    assert greedy.updates() == []
    stage.core.state.allocator.invariants()


def test_an_executor_takes_its_own_from_what_others_leave_unused() -> None:
    _, agent, _, borrower = fill()
    tell_slack(agent, 2)
    borrower.accept(borrower.offers(), of_executor("t1", agent, SMALL, resources=revocable(1)), refuse_s=0)
    (run,) = agent.take(RunTask)
    assert run.info.executor is not None
    assert run.info.executor.resources == lent(bundle(0.5, 64))
    (rest,) = borrower.offers()
    assert stripped(rest.resources) == revocable(0.5, 512 - 64 - 64)


def test_further_tasks_use_the_executor_that_runs_on_a_loan_and_need_no_room_for_it() -> None:
    stage, agent, _, borrower = lend()
    borrower.accept(borrower.offers(), of_executor("t1", agent, SMALL, resources=revocable(0.5)), refuse_s=0)
    borrower.accept(borrower.offers(), of_executor("t2", agent, SMALL, resources=revocable(1)), refuse_s=0)
    first, second = agent.take(RunTask)
    assert (first.starts_executor, second.starts_executor) == (True, False)
    assert first.info.executor == second.info.executor
    assert borrower.updates() == []
    stage.core.state.invariants()


def test_what_must_not_be_launched_on_a_loan_is_told_why() -> None:
    stage, agent, _, borrower = lend()
    firm = msgspec.structs.replace(CUSTOM, resources=bundle(0.5, 64))
    more = msgspec.structs.replace(CUSTOM, resources=lent(bundle(0.75, 64)))
    much = msgspec.structs.replace(CUSTOM, resources=lent(bundle(1.75, 64)))
    borrower.accept(borrower.offers(), of_executor("t1", agent, firm, resources=revocable(0.5)), refuse_s=0)
    borrower.accept(borrower.offers(), of_executor("t2", agent, much, resources=revocable(0.5)), refuse_s=0)
    assert group(borrower, agent, *pods(agent), executor=DEFAULT) == []
    assert group(borrower, agent, pods(agent)[0], task_info("b", agent.id, bundle(0.5, 64))) == []
    found = [(s.task_id, s.reason, s.message) for s in borrower.updates()]
    assert [(id, reason) for id, reason, _ in found] == [
        ("t1", Reason.TASK_INVALID), ("t2", Reason.TASK_INVALID),
        *((id, Reason.TASK_GROUP_INVALID) for id in ("a", "b", "a", "b")),
    ]  # fmt: skip
    words = [message for *_, message in found]
    assert [word in text for word, text in zip(
        ("more than available", "more than available", "more than available", "", "", ""), words, strict=True
    )] == [True] * 6  # fmt: skip
    borrower.accept(borrower.offers(), of_executor("t3", agent, SMALL, resources=revocable(0.5)), refuse_s=0)
    assert len(agent.take(RunTask)) == 1
    borrower.accept(borrower.offers(), of_executor("t4", agent, more, resources=revocable(0.5)), refuse_s=0)
    (status,) = borrower.updates()
    assert "differs from the executor of this id" in status.message
    assert agent.take(RunTask) == []
    stage.core.state.invariants()


def test_an_executor_on_a_loan_takes_no_task_for_good() -> None:
    stage, agent, greedy, borrower = lend()
    borrower.accept(borrower.offers(), of_executor("t1", agent, SMALL, resources=revocable(0.5)), refuse_s=0)
    agent.take(RunTask)
    agent.update("all", TaskState.FINISHED, greedy.id)
    greedy.close()
    stage.run(1)
    offers = [o for o in borrower.offers() if not any(r.identity.revocable for r in o.resources)]
    plain = msgspec.structs.replace(CUSTOM, resources=bundle(0.5, 64))
    borrower.accept(offers, of_executor("t2", agent, plain), refuse_s=0)
    (status,) = borrower.updates()
    assert "runs on what is lent" in status.message
    stage.core.state.invariants()


def test_an_executor_that_makes_room_is_asked_again_when_its_agent_comes_back() -> None:
    stage, agent, _, borrower = lend()
    borrower.accept(borrower.offers(), of_executor("t1", agent, SMALL, resources=revocable(0.5)), refuse_s=0)
    (run,) = agent.take(RunTask)
    stage.framework(role="web", name="owner")
    stage.run(1)
    assert len(agent.take(ShutdownExecutor)) == 1
    agent.close()
    again = come_back(stage, agent, run, borrower)
    stage.run(1)
    assert [o.executor_id for o in again.take(ShutdownExecutor)] == ["e"]
    assert states(borrower.updates()) == []


def test_a_new_master_knows_that_an_executor_runs_on_a_loan() -> None:
    stage, agent, _, borrower = lend()
    borrower.accept(borrower.offers(), of_executor("t1", agent, SMALL, resources=revocable(0.5)), refuse_s=0)
    (run,) = agent.take(RunTask)
    info = agent.entry().info
    fresh = stage.restart()
    agent.info = info
    back = come_back(fresh, agent, run, borrower)
    fresh.framework(role="web", name="owner")
    fresh.run(1)
    assert [o.reason for o in back.take(ShutdownExecutor)] == [Reason.CONTAINER_PREEMPTED]
    assert [k.task_id for k in back.take(KillTask)] == ["t1"]


def test_disk_is_never_lent_so_a_group_on_a_loan_asks_none() -> None:
    _, agent, _, borrower = lend()
    with_disk = msgspec.structs.replace(POD, resources=(*POD.resources, scalar("disk", 10, Identity(revocable=True))))
    assert group(borrower, agent, *pods(agent), executor=with_disk) == []
    assert "disk" in borrower.updates()[0].message
    assert len(group(borrower, agent, *pods(agent))) == 1
