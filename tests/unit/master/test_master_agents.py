"""Agents: registration, links that break, silence, return, removal; and both lists of tasks brought together."""

import msgspec
import pytest
from master_stage import PARTITION_AWARE, Agent, Framework, Stage, agent_info, bundle, states, task_info, told

from corral.master.agent_entry import AGENT_STATES, AgentEvent, AgentState
from corral.master.effects import SendOrder
from corral.master.entries import TaskEntry
from corral.master.spec import AgentOpened, AgentReported, MasterConfig
from corral.model import calls, events
from corral.model.framework import FrameworkInfo
from corral.model.ids import AgentId, FrameworkId, TaskId
from corral.model.offer import Offer
from corral.model.orders import (
    AcknowledgeUpdate,
    KillTask,
    Leaving,
    Ping,
    Pong,
    Refused,
    Register,
    Registered,
    RunTask,
    ShutdownFramework,
)
from corral.model.resources import Resource, ResourceKind, normal, scalar
from corral.model.task import Reason, Source, TaskInfo, TaskState, TaskStatus
from corral.runtime.core import Persist


def test_a_new_agent_gets_an_id_that_is_durable_before_it_is_told() -> None:
    stage = Stage()
    stage.give(AgentOpened("s"))
    effects = stage.give(AgentReported("s", (Register(agent_info()),)))
    persists = [e for e in effects if isinstance(e, Persist)]
    (registered,) = [e.order for e in effects if isinstance(e, SendOrder)]
    assert isinstance(registered, Registered)
    assert registered.agent_id == f"{stage.core.state.master_id}-S0"
    assert [p.key for p in persists] == [f"agents/{registered.agent_id}"]
    assert (registered.epoch, registered.ping_s) == (1, 15.0)


def test_an_unchanged_agent_that_comes_back_writes_nothing() -> None:
    stage = Stage()
    agent = stage.agent()
    agent.close()
    before = dict(stage.store)
    stage.store.clear()
    agent.connect()
    assert stage.store == {}
    stage.store = before


def test_an_agent_with_other_resources_is_remembered_anew() -> None:
    stage = Stage()
    agent = stage.agent()
    framework = stage.framework()
    framework.decline(*framework.offers(), refuse_s=3600)
    agent.close()
    agent.info = msgspec.structs.replace(agent.info, resources=bundle(8, 8192))
    agent.connect()
    assert stage.core.state.agents[agent.id].info.resources == bundle(8, 8192)
    assert len(framework.offers()) == 1, "what was refused of the old agent says nothing of the new one"


def test_a_link_without_registration_is_closed() -> None:
    stage = Stage()
    stage.give(AgentOpened("s"))
    stage.run(31)
    assert "s" in stage.ended
    assert not stage.core.state.sessions


def test_a_link_that_begins_with_anything_but_a_registration_is_closed() -> None:
    stage = Stage()
    stage.give(AgentOpened("s"))
    stage.give(AgentReported("s", (Pong(),)))
    assert "s" in stage.ended


def test_reports_over_a_link_that_is_gone_are_ignored() -> None:
    stage = Stage()
    assert stage.give(AgentReported("nobody", (Pong(),))) == []


def test_a_broken_link_costs_the_agents_offers_and_nothing_else() -> None:
    stage = Stage()
    agent = stage.agent()
    framework = stage.framework()
    framework.launch(agent)
    (offer,) = framework.offers()
    agent.close()
    assert framework.rescinded() == [offer.id]
    assert framework.updates() == []
    assert "t1" in framework.entry().tasks
    assert stage.core.state.agents[agent.id].state is AgentState.DISCONNECTED
    assert framework.offers() == []


def test_a_newer_link_replaces_the_older_one() -> None:
    stage = Stage()
    agent = stage.agent()
    old = agent.session
    agent.connect()
    assert old in stage.ended
    assert stage.core.state.agents[agent.id].session == agent.session
    stage.give(AgentReported(old, (Leaving(),)))
    assert agent.id in stage.core.state.agents


def test_a_registration_of_another_agent_on_the_same_link_is_refused() -> None:
    stage = Stage()
    agent = stage.agent()
    agent.report(Register(agent_info("h2")))
    (refused,) = agent.take(Refused)
    assert agent.id in refused.why
    assert agent.entry().state is AgentState.DISCONNECTED


def test_a_task_whose_id_runs_elsewhere_by_now_is_ended_where_it_comes_back() -> None:
    stage = Stage()
    first, second = stage.agent(agent_info("h1")), stage.agent(agent_info("h2"))
    framework = stage.framework()

    offers: dict[str, Offer] = {}

    def launch(agent: Agent) -> TaskInfo:
        offers.update({o.agent_id: o for o in framework.offers()})
        framework.accept([offers[agent.id]], task_info("t1", agent.id))
        return agent.take(RunTask)[-1].info

    late = launch(first)
    first.close()
    first.connect()
    assert [s.state for s in framework.updates()] == [TaskState.LOST]
    launch(second)
    first.close()
    first.connect([told(late, framework)])
    assert [o.task_id for o in first.take(KillTask)] == ["t1"]
    assert framework.entry().tasks["t1"].agent_id == second.id
    free = first.free()
    uuid = first.update("t1", TaskState.KILLED, framework.id)
    assert [o.uuid for o in first.take(AcknowledgeUpdate)] == [uuid]
    assert first.free() != free
    assert framework.updates() == []
    framework.kill("t1")
    assert len(second.take(KillTask)) == 1


def test_a_task_id_whose_double_still_runs_on_an_agent_is_in_use_there() -> None:
    stage = Stage()
    agent = stage.agent()
    framework = stage.framework()
    stage.core.state.agents[agent.id].tasks[framework.id, TaskId("t1")] = TaskEntry(
        task_info("t1", agent.id), framework.id, "*", (), None, 0.0
    )
    stage.core.state.agents[agent.id].tasks[framework.id, TaskId("t1")].orphan = True
    framework.accept(framework.offers(), task_info("t1", agent.id))
    assert "in use" in (framework.updates()[0].message or "")


def test_a_second_registration_on_one_link_is_taken_like_the_first() -> None:
    stage = Stage()
    agent = stage.agent()
    agent.report(Register(agent.info))
    assert len(agent.take(Registered)) == 2
    assert agent.entry().state is AgentState.REACHABLE


def lost(stage: Stage, agent: Agent) -> None:
    """The agent falls silent until it is given up."""
    agent.silence()
    stage.run(100)


@pytest.mark.parametrize("aware", [True, False])
def test_a_silent_agent_is_unreachable_after_its_timeout_and_its_tasks_are_told(aware: bool) -> None:
    stage = Stage()
    agent = stage.agent()
    framework = stage.framework(capabilities=PARTITION_AWARE if aware else (), failover_timeout_s=1e6)
    framework.launch(agent)
    agent.silence()
    stage.run(70)
    assert framework.updates() == []
    stage.run(20)
    (status,) = framework.updates()
    assert status.state is (TaskState.UNREACHABLE if aware else TaskState.LOST)
    assert (status.reason, status.source, status.uuid) == (Reason.AGENT_REMOVED, Source.MASTER, None)
    assert status.unreachable_at is not None
    assert [e.agent_id for e in framework.take(events.Failure)] == [agent.id]
    assert agent.session in stage.ended
    assert "t1" in framework.entry().unreachable
    assert "t1" not in framework.entry().tasks


def test_an_agent_is_pinged_only_when_nothing_else_was_said_to_it() -> None:
    stage = Stage()
    agent = stage.agent()
    agent.silence()
    stage.run(31)
    assert len(agent.take(Ping)) == 2


def test_an_agent_that_answers_its_pings_stays() -> None:
    stage = Stage()
    agent = stage.agent()
    stage.run(1000)
    assert agent.entry().state is AgentState.REACHABLE


@pytest.mark.parametrize("aware", [True, False])
def test_an_unreachable_agent_comes_back_with_its_tasks_and_their_frameworks_hear_of_it(aware: bool) -> None:
    stage = Stage()
    agent = stage.agent()
    framework = stage.framework(capabilities=PARTITION_AWARE if aware else (), failover_timeout_s=1e6)
    info = framework.launch(agent)
    agent.update("t1", TaskState.RUNNING, framework.id, healthy=True)
    lost(stage, agent)
    framework.updates()
    agent.connect([told(info, framework)])
    (status,) = framework.updates()
    assert (status.state, status.reason, status.uuid) == (TaskState.RUNNING, Reason.AGENT_REREGISTERED, None)
    assert "t1" in framework.entry().tasks
    assert not framework.entry().unreachable
    assert stage.core.state.agents[agent.id].unreachable_at is None
    assert "unreachable_at" not in msgspec.msgpack.decode(stage.store[f"agents/{agent.id}"])


def test_a_kill_of_an_unreachable_task_is_answered_and_ordered_at_its_return() -> None:
    stage = Stage()
    agent = stage.agent()
    framework = stage.framework(capabilities=PARTITION_AWARE, failover_timeout_s=1e6)
    info = framework.launch(agent)
    lost(stage, agent)
    framework.updates()
    framework.kill("t1", grace_s=4.0)
    assert [s.state for s in framework.updates()] == [TaskState.UNREACHABLE]
    agent.connect([told(info, framework)])
    assert [(o.task_id, o.grace_s) for o in agent.take(KillTask)] == [("t1", 4.0)]


@pytest.mark.parametrize("named", [True, False])
def test_a_new_master_keeps_a_kill_for_the_tasks_of_an_agent_that_the_old_one_gave_up(named: bool) -> None:
    stage = Stage()
    agent = stage.agent()
    framework = stage.framework(capabilities=PARTITION_AWARE, failover_timeout_s=1e6)
    info = framework.launch(agent)
    lost(stage, agent)
    framework.stage = agent.stage = stage.restart()
    framework.subscribe()
    framework.kill("t1", agent_id=agent.id if named else None)
    framework.updates()
    agent.connect([told(info, framework)])
    assert [o.task_id for o in agent.take(KillTask)] == ["t1"]


def test_a_kept_kill_spares_a_younger_task_of_the_same_id() -> None:
    stage = Stage()
    away, agent = stage.agent(agent_info("h1")), stage.agent(agent_info("h2"))
    framework = stage.framework(failover_timeout_s=1e6)
    lost(stage, away)
    framework.kill("t1", agent_id=away.id)
    mine = [o for o in framework.offers() if o.agent_id == agent.id]
    info = task_info("t1", agent.id, bundle(1, 128))
    framework.accept(mine, info)
    agent.close()
    agent.connect([told(info, framework)])
    assert agent.take(KillTask) == []


@pytest.mark.parametrize("aware", [True, False])
def test_a_task_that_the_agent_does_not_know_any_more_is_gone(aware: bool) -> None:
    stage = Stage()
    agent = stage.agent()
    framework = stage.framework(capabilities=PARTITION_AWARE if aware else ())
    framework.launch(agent)
    agent.close()
    agent.connect()
    gone = TaskState.GONE if aware else TaskState.LOST
    assert states(framework.updates()) == [("t1", gone, Reason.RECONCILIATION)]
    assert agent.free() == agent.info.resources


def test_an_ended_task_that_the_agent_has_forgotten_was_acknowledged() -> None:
    stage = Stage()
    agent = stage.agent()
    framework = stage.framework()
    framework.launch(agent)
    agent.update("t1", TaskState.FINISHED, framework.id)
    framework.updates()
    agent.close()
    agent.connect()
    assert framework.updates() == []
    assert [e.info.task_id for e in framework.entry().completed] == ["t1"]


def test_a_task_that_only_the_agent_knows_is_learned_with_what_it_holds() -> None:
    stage = Stage()
    agent = stage.agent()
    framework = stage.framework(failover_timeout_s=1e6)
    info = framework.launch(agent, resources=bundle(3, 1024, (31000, 31000)))
    later = stage.restart()
    agent.stage = framework.stage = later
    agent.connect([told(info, framework)], [framework.info])
    framework.subscribe()
    (offer,) = framework.offers()
    assert offer.resources[0].milli == 1000
    found = framework.reconcile()
    assert [(s.task_id, s.state) for s in found] == [("t1", TaskState.RUNNING)]


def test_a_framework_that_only_an_agent_remembers_is_taken_in() -> None:
    stage = Stage()
    info = FrameworkInfo(user="u", name="old", id=FrameworkId("old-1"), failover_timeout_s=500.0)
    framework = Framework(stage, info)
    agent = Agent(stage, agent_info(id=AgentId("a-1")))
    agent.connect([told(task_info("t1", "a-1"), framework)], [info])
    assert stage.core.state.frameworks[FrameworkId("old-1")].recovered
    assert "frameworks/old-1" in stage.store
    framework.subscribe()
    assert [s.task_id for s in framework.reconcile()] == ["t1"]


def test_tasks_of_a_removed_framework_are_not_wanted_and_hold_their_resources_until_they_end() -> None:
    stage = Stage()
    agent = stage.agent()
    framework = stage.framework()
    info = framework.launch(agent, resources=bundle(4, 128))
    agent.close()
    framework.call(calls.Teardown(framework_id=framework.id))
    agent.connect([told(info, framework)], [framework.info])
    assert agent.take(Registered)[-1].framework_ids == (framework.id,)
    assert agent.free() != agent.info.resources
    agent.update("t1", TaskState.KILLED, framework.id)
    assert agent.free() == agent.info.resources
    assert agent.take(ShutdownFramework) == []


def test_an_agent_that_brings_less_than_its_tasks_hold_is_refused_with_the_way_out() -> None:
    stage = Stage()
    agent = stage.agent()
    framework = stage.framework()
    info = framework.launch(agent, resources=bundle(3, 128))
    agent.close()
    agent.info = msgspec.structs.replace(agent.info, resources=bundle(2, 4096))
    agent.connect([told(info, framework)])
    (refused,) = agent.take(Refused)
    assert "cpus 3" in refused.why
    assert "--resources" in refused.why
    assert agent.session in stage.ended
    assert stage.core.state.agents[agent.id].state is AgentState.DISCONNECTED


def test_an_agent_of_another_release_is_refused() -> None:
    stage = Stage(MasterConfig(agent_version="1.2.0"))
    agent = Agent(stage, agent_info(version="2.0.0"))
    agent.connect()
    (refused,) = agent.take(Refused)
    assert "2.0.0" in refused.why
    assert not stage.core.state.agents


def test_an_agent_with_a_negative_amount_is_refused() -> None:
    stage = Stage()
    agent = Agent(stage, msgspec.structs.replace(agent_info(), resources=normal([scalar("cpus", -1)])))
    agent.connect()
    assert "below 0" in agent.take(Refused)[0].why


def test_an_agent_that_lost_its_memory_takes_the_place_of_the_one_that_is_away() -> None:
    stage = Stage()
    agent = stage.agent()
    framework = stage.framework(capabilities=PARTITION_AWARE)
    framework.launch(agent)
    agent.close()
    fresh = stage.agent(agent_info())
    assert fresh.id != agent.id
    assert agent.id not in stage.core.state.agents
    assert states(framework.updates()) == [("t1", TaskState.GONE, Reason.AGENT_REMOVED)]


def test_two_agents_at_one_address_may_both_be_there() -> None:
    stage = Stage()
    assert stage.agent().id != stage.agent().id
    assert len(stage.core.state.agents) == 2


@pytest.mark.parametrize("aware", [True, False])
def test_an_agent_that_leaves_takes_its_tasks_along(aware: bool) -> None:
    stage = Stage()
    agent = stage.agent()
    framework = stage.framework(capabilities=PARTITION_AWARE if aware else ())
    framework.launch(agent)
    agent.report(Leaving())
    gone = TaskState.GONE if aware else TaskState.LOST
    assert states(framework.updates()) == [("t1", gone, Reason.AGENT_REMOVED)]
    assert len(framework.take(events.Failure)) == 1
    assert agent.id not in stage.core.state.agents
    assert f"agents/{agent.id}" not in stage.store


def test_an_agent_that_does_not_return_to_a_new_master_is_unreachable_after_its_window() -> None:
    stage = Stage()
    agent = stage.agent()
    later = stage.restart()
    assert later.core.state.agents[agent.id].state is AgentState.RECOVERED
    later.run(590)
    assert later.core.state.agents[agent.id].state is AgentState.RECOVERED
    later.run(30)
    assert later.core.state.agents[agent.id].state is AgentState.UNREACHABLE
    once_more = later.restart()
    assert once_more.core.state.agents[agent.id].state is AgentState.UNREACHABLE


def test_an_agent_that_stays_away_for_weeks_is_forgotten() -> None:
    stage = Stage(MasterConfig(forget_agent_s=600.0, ping_s=15.0))
    agent = stage.agent()
    framework = stage.framework(capabilities=PARTITION_AWARE, failover_timeout_s=1e6)
    framework.launch(agent)
    lost(stage, agent)
    framework.updates()
    stage.run(700)
    assert agent.id not in stage.core.state.agents
    assert states(framework.updates()) == [("t1", TaskState.GONE, Reason.AGENT_REMOVED)]
    assert not framework.entry().unreachable


def test_every_reign_has_a_higher_epoch_and_a_new_master_id() -> None:
    stage = Stage()
    later = stage.restart()
    assert later.core.state.epoch == stage.core.state.epoch + 1
    assert later.core.state.master_id != stage.core.state.master_id


def test_the_status_an_agent_tells_of_a_learned_task_is_what_reconciliation_answers() -> None:
    stage = Stage()
    agent = Agent(stage, agent_info(id=AgentId("a-1")))
    info = FrameworkInfo(user="u", name="old", id=FrameworkId("old-1"), failover_timeout_s=500.0)
    framework = Framework(stage, info)
    status = TaskStatus(task_id=TaskId("t1"), state=TaskState.RUNNING, at=5.0, source=Source.EXECUTOR, healthy=True)
    agent.connect([told(task_info("t1", "a-1"), framework, status=status)], [info])
    framework.subscribe()
    (answer,) = framework.reconcile(("t1", None))
    assert (answer.state, answer.healthy) == (TaskState.RUNNING, True)


def test_the_states_of_an_agent_are_the_table() -> None:
    assert {(s, e) for s, e in AGENT_STATES} == {
        *((s, AgentEvent.REGISTER) for s in AgentState),
        (AgentState.REACHABLE, AgentEvent.LINK_BROKE),
        *((s, AgentEvent.TIMED_OUT) for s in AgentState if s is not AgentState.UNREACHABLE),
    }


@pytest.mark.parametrize(
    "resource",
    [
        Resource(name="ports", kind=ResourceKind.RANGES, milli=1000, ranges=((1, 2),)),
        Resource(name="ports", kind=ResourceKind.RANGES, ranges=((5, 2),)),
        Resource(name="ports", kind=ResourceKind.RANGES, ranges=((5, 6), (1, 2))),
        Resource(name="bugs", kind=ResourceKind.SET, items=("b", "a")),
        Resource(name="cpus", ranges=((1, 2),)),
    ],
)
def test_an_agent_whose_resources_have_no_sense_is_refused(resource: Resource) -> None:
    stage = Stage()
    agent = stage.agent()
    agent.close()
    agent.info = msgspec.structs.replace(agent.info, resources=(resource,))
    agent.connect()
    (refused,) = agent.take(Refused)
    assert f"brings {resource.name} with" in refused.why
