"""What frameworks with and without PARTITION_AWARE are told as their agents go and come: every row of one table."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from master_stage import PARTITION_AWARE, Agent, Framework, Stage, agent_info, bundle, task_info, told
from test_agents_maintenance import window

from corral.master.spec import MasterConfig
from corral.model import calls, events
from corral.model.ids import AgentId, TaskId
from corral.model.maintenance import (
    DrainAgent,
    Machine,
    MarkAgentGone,
    StartMaintenance,
    UpdateSchedule,
)
from corral.model.orders import Leaving
from corral.model.task import Reason, Source, TaskInfo, TaskState

DROPPED, GONE, LOST, RUNNING = TaskState.DROPPED, TaskState.GONE, TaskState.LOST, TaskState.RUNNING
UNREACHABLE, UNKNOWN, BY_OPERATOR = TaskState.UNREACHABLE, TaskState.UNKNOWN, TaskState.GONE_BY_OPERATOR
Told = tuple[TaskState, Reason | None]


class World:
    """An agent with one running task of one framework, whose updates so far have been taken and acknowledged."""

    def __init__(self, *, aware: bool) -> None:
        self.stage = Stage(MasterConfig(least_refuse_s=0.0, forget_agent_s=600.0))
        self.framework: Framework = self.stage.framework(capabilities=PARTITION_AWARE if aware else ())
        self.agent: Agent = self.stage.agent(agent_info("h1"))
        self.info: TaskInfo = self.framework.launch(self.agent, "t1")
        uuid = self.agent.update("t1", RUNNING, self.framework.id)
        self.framework.acknowledge(self.agent, "t1", uuid)
        self.framework.events.clear()

    def fall_silent(self) -> None:
        self.agent.silence()
        self.stage.run(100)

    def come_back(self, *, with_task: bool = True, stage: Stage | None = None) -> None:
        self.agent = Agent(stage or self.stage, self.agent.info)
        there = [told(self.info, self.framework)] if with_task else []
        self.agent.connect(there, [self.framework.info])

    def hear(self) -> None:
        """Forget what was said so far."""
        self.framework.events.clear()

    def fail_over(self) -> Stage:
        """A new master, to which the framework has subscribed again and its agent has not yet."""
        self.stage = self.framework.stage = self.stage.restart()
        self.framework.subscribe()
        self.hear()
        return self.stage

    def ask(self, task: str = "t1", agent: str | None = "") -> None:
        """Reconcile, of the task's own agent unless another is named."""
        agent_id = AgentId(agent) if agent else self.agent.id if agent == "" else None
        asked = (calls.ReconcileTask(task_id=TaskId(task), agent_id=agent_id),)
        self.framework.call(calls.Reconcile(framework_id=self.framework.id, tasks=asked))


def link_breaks(world: World) -> None:
    world.agent.close()


def comes_back_in_time(world: World) -> None:
    world.agent.close()
    world.come_back()


def comes_back_without_it(world: World) -> None:
    world.agent.close()
    world.come_back(with_task=False)


def falls_silent(world: World) -> None:
    world.fall_silent()


def returns(world: World) -> None:
    world.fall_silent()
    world.hear()
    world.come_back()


def returns_without_it(world: World) -> None:
    world.fall_silent()
    world.hear()
    world.come_back(with_task=False)


def is_marked_gone(world: World) -> None:
    world.stage.ask(MarkAgentGone(agent_id=world.agent.id))


def is_marked_gone_while_unreachable(world: World) -> None:
    world.fall_silent()
    world.hear()
    world.stage.ask(MarkAgentGone(agent_id=world.agent.id))


def is_forgotten(world: World) -> None:
    world.fall_silent()
    world.hear()
    world.stage.run(600)


def leaves(world: World) -> None:
    world.agent.report(Leaving())


def machine_goes_down(world: World) -> None:
    machine = Machine(hostname="h1")
    world.stage.ask(UpdateSchedule(windows=(window(machine),)))
    world.stage.ask(StartMaintenance(machines=(machine,)))


def comes_anew_without_its_memory(world: World) -> None:
    world.agent.close()
    world.stage.agent(agent_info("h1"))


def drain_ends_with_the_agent_gone(world: World) -> None:
    """The drain is ordered while the agent is away; the task never came to an end of its own."""
    world.stage.ask(DrainAgent(agent_id=world.agent.id, mark_gone=True))
    world.fall_silent()
    world.hear()
    world.come_back(with_task=False)
    world.stage.run(1)


def new_master_gives_it_up(world: World) -> None:
    world.fail_over()
    world.stage.run(700)


def comes_to_a_new_master(world: World) -> None:
    stage = world.fail_over()
    world.come_back(stage=stage)


def comes_too_late_to_a_new_master(world: World) -> None:
    stage = world.fail_over()
    stage.run(700)
    world.come_back(stage=stage)


def accept_meets_a_broken_link(world: World) -> None:
    (offer,) = world.framework.offers()
    world.agent.close()
    world.framework.accept([offer], task_info("t2", world.agent.id, bundle(1)))


def accept_meets_a_silent_agent(world: World) -> None:
    (offer,) = world.framework.offers()
    world.fall_silent()
    world.hear()
    world.framework.accept([offer], task_info("t2", world.agent.id, bundle(1)))


def accept_meets_a_drain(world: World) -> None:
    (offer,) = world.framework.offers()
    world.stage.ask(DrainAgent(agent_id=world.agent.id))
    world.framework.accept([offer], task_info("t2", world.agent.id, bundle(1)))


def accept_of_nothing_known(world: World) -> None:
    (offer,) = world.framework.offers()
    world.framework.decline(offer)
    world.framework.accept([offer], task_info("t2", world.agent.id, bundle(1)))


def asks_of_a_running_task(world: World) -> None:
    world.ask()


def asks_of_a_task_its_agent_does_not_know(world: World) -> None:
    world.ask("other")


def asks_of_a_silent_agent(world: World) -> None:
    world.fall_silent()
    world.hear()
    world.ask()


def asks_of_another_task_of_a_silent_agent(world: World) -> None:
    world.fall_silent()
    world.hear()
    world.ask("other")


def asks_of_a_gone_agent(world: World) -> None:
    is_marked_gone(world)
    world.hear()
    world.ask()


def asks_of_an_unknown_agent(world: World) -> None:
    world.ask("other", "nobody")


def asks_without_an_agent(world: World) -> None:
    world.ask("other", None)


def asks_while_the_agent_is_awaited(world: World) -> None:
    world.fail_over()
    world.ask()


def asks_without_an_agent_while_one_is_awaited(world: World) -> None:
    world.fail_over()
    world.ask("t1", None)


def asks_of_everything_while_its_agent_is_silent(world: World) -> None:
    world.fall_silent()
    world.hear()
    world.framework.call(calls.Reconcile(framework_id=world.framework.id, tasks=()))


def kills_on_a_silent_agent(world: World) -> None:
    world.fall_silent()
    world.hear()
    world.framework.kill("t1")


@dataclass(frozen=True)
class Row:
    """Shapes: what a framework is told with and without the capability; None for nothing. `fails`: FAILURE comes too;
    `since`: the status says since when.
    """

    happens: Callable[[World], None]
    aware: Told | None
    other: Told | None
    fails: bool = False
    since: bool = False


AWAY, OPERATOR, DRAINING = Reason.AGENT_REMOVED, Reason.AGENT_REMOVED_BY_OPERATOR, Reason.AGENT_DRAINING
BACK, ASKED, STALE = Reason.AGENT_REREGISTERED, Reason.RECONCILIATION, Reason.INVALID_OFFERS
CUT = Reason.AGENT_DISCONNECTED

TABLE = (
    # The agent goes and comes.
    Row(link_breaks, None, None),
    Row(comes_back_in_time, None, None),
    Row(comes_back_without_it, (GONE, ASKED), (LOST, ASKED)),
    Row(falls_silent, (UNREACHABLE, AWAY), (LOST, AWAY), fails=True, since=True),
    Row(returns, (RUNNING, BACK), (RUNNING, BACK)),
    Row(returns_without_it, (GONE, AWAY), None),
    Row(leaves, (GONE, AWAY), (LOST, AWAY), fails=True),
    Row(comes_anew_without_its_memory, (GONE, AWAY), (LOST, AWAY), fails=True),
    Row(is_forgotten, (GONE, AWAY), None, fails=True),
    # Operators take it away.
    Row(is_marked_gone, (BY_OPERATOR, OPERATOR), (LOST, OPERATOR), fails=True),
    Row(is_marked_gone_while_unreachable, (BY_OPERATOR, OPERATOR), None, fails=True),
    Row(machine_goes_down, (GONE, AWAY), (LOST, AWAY), fails=True),
    Row(drain_ends_with_the_agent_gone, (GONE, AWAY), None, fails=True),
    # The master is another.
    Row(new_master_gives_it_up, None, None, fails=True),
    Row(comes_to_a_new_master, None, None),
    Row(comes_too_late_to_a_new_master, (RUNNING, BACK), (RUNNING, BACK), fails=True),
    # An ACCEPT crosses that.
    Row(accept_meets_a_broken_link, (DROPPED, CUT), (LOST, CUT)),
    Row(accept_meets_a_silent_agent, (DROPPED, AWAY), (LOST, AWAY)),
    Row(accept_meets_a_drain, (DROPPED, DRAINING), (LOST, DRAINING)),
    Row(accept_of_nothing_known, (DROPPED, STALE), (LOST, STALE)),
    # The framework asks.
    Row(asks_of_a_running_task, (RUNNING, ASKED), (RUNNING, ASKED)),
    Row(asks_of_a_task_its_agent_does_not_know, (GONE, ASKED), (LOST, ASKED)),
    Row(asks_of_a_silent_agent, (UNREACHABLE, ASKED), (LOST, ASKED), since=True),
    Row(asks_of_another_task_of_a_silent_agent, (UNREACHABLE, ASKED), (LOST, ASKED), since=True),
    Row(asks_of_a_gone_agent, (BY_OPERATOR, ASKED), (LOST, ASKED)),
    Row(asks_of_an_unknown_agent, (UNKNOWN, ASKED), (LOST, ASKED)),
    Row(asks_without_an_agent, (UNKNOWN, ASKED), (LOST, ASKED)),
    Row(asks_while_the_agent_is_awaited, None, None),
    Row(asks_without_an_agent_while_one_is_awaited, None, None),
    Row(asks_of_everything_while_its_agent_is_silent, (UNREACHABLE, ASKED), None, since=True),
    Row(kills_on_a_silent_agent, (UNREACHABLE, ASKED), (LOST, ASKED), since=True),
)  # fmt: skip


@pytest.mark.parametrize("aware", [True, False], ids=["partition-aware", "not"])
@pytest.mark.parametrize("row", TABLE, ids=[row.happens.__name__ for row in TABLE])
def test_a_framework_is_told_the_state_and_the_reason_of_the_table(row: Row, aware: bool) -> None:
    world = World(aware=aware)
    row.happens(world)
    statuses = world.framework.updates()
    expected = row.aware if aware else row.other
    assert [(s.state, s.reason) for s in statuses] == ([expected] if expected is not None else [])
    for status in statuses:
        assert status.source is Source.MASTER
        assert status.uuid is None, "what the master says itself is not acknowledged"
        assert (status.unreachable_at is not None) == row.since
    failures = [f for f in world.framework.take(events.Failure) if f.executor_id is None]
    assert bool(failures) == row.fails
