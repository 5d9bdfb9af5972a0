"""Agents that are drained, closed, opened again and declared gone."""

from typing import Any

import pytest
from master_stage import PARTITION_AWARE, Agent, Framework, Stage, agent_info, states, task_info, told

from corral.lib.errors import CorralError, Invalid, NotFound
from corral.master.spec import Command, GetCluster, MasterConfig
from corral.model import calls, events
from corral.model.ids import AgentId
from corral.model.maintenance import DeactivateAgent, DrainAgent, DrainState, MarkAgentGone, ReactivateAgent
from corral.model.orders import KillTask, Refused
from corral.model.task import Reason, TaskState

NOBODY = AgentId("nobody")


def running(stage: Stage, agent: Agent, framework: Framework, task_id: str = "t1", **more: Any) -> None:
    framework.launch(agent, task_id, **more)
    framework.acknowledge(agent, task_id, agent.update(task_id, TaskState.RUNNING, framework.id))
    framework.updates()


def everything(stage: Stage) -> Any:
    """What operators see and what is written."""
    return stage.ask(GetCluster()), dict(stage.store)


def test_a_drain_takes_back_the_offers_and_ends_every_task_within_its_grace() -> None:
    stage = Stage()
    agent, framework = stage.agent(), stage.framework()
    running(stage, agent, framework, "slow", kill_grace_s=60.0)
    running(stage, agent, framework, "quick", kill_grace_s=1.0)
    running(stage, agent, framework, "plain")
    (offer,) = framework.offers()
    stage.ask(DrainAgent(agent_id=agent.id, max_grace_s=10.0))
    assert framework.rescinded() == [offer.id]
    kills = {o.task_id: (o.grace_s, o.reason) for o in agent.take(KillTask)}
    draining = Reason.AGENT_DRAINING
    assert kills == {"slow": (10.0, draining), "quick": (1.0, draining), "plain": (3.0, draining)}
    assert framework.offers() == [], "nothing new is given to an agent that drains"


def test_without_a_limit_each_task_keeps_its_own_grace_and_a_newer_limit_shortens_it() -> None:
    stage = Stage()
    agent, framework = stage.agent(), stage.framework()
    running(stage, agent, framework, kill_grace_s=60.0)
    stage.ask(DrainAgent(agent_id=agent.id))
    assert [o.grace_s for o in agent.take(KillTask)] == [None]
    stage.ask(DrainAgent(agent_id=agent.id, max_grace_s=2.0))
    assert [o.grace_s for o in agent.take(KillTask)] == [2.0]


def test_an_agent_is_drained_when_its_last_task_has_ended_and_been_acknowledged() -> None:
    stage = Stage()
    agent, framework = stage.agent(), stage.framework()
    running(stage, agent, framework)
    stage.ask(DrainAgent(agent_id=agent.id))
    uuid = agent.update("t1", TaskState.KILLED, framework.id, reason=Reason.AGENT_DRAINING)
    assert states(framework.updates()) == [("t1", TaskState.KILLED, Reason.AGENT_DRAINING)]
    assert agent.entry().drain.state is DrainState.DRAINING
    framework.acknowledge(agent, "t1", uuid)
    assert agent.entry().drain.state is DrainState.DRAINED
    assert "agent drained" in stage.what()
    assert framework.offers() == []
    stage.ask(ReactivateAgent(agent_id=agent.id))
    assert len(framework.offers()) == 1
    assert agent.entry().drain is None


def test_an_empty_agent_is_drained_at_once() -> None:
    stage = Stage()
    agent = stage.agent()
    stage.ask(DrainAgent(agent_id=agent.id))
    assert agent.entry().drain.state is DrainState.DRAINED
    (row,) = stage.ask(GetCluster()).agents
    assert (row.active, row.deactivated, row.drain.state) == (False, True, DrainState.DRAINED)


def test_an_accept_that_crosses_the_drain_is_told_why_its_task_was_dropped() -> None:
    stage = Stage()
    agent, framework = stage.agent(), stage.framework(capabilities=PARTITION_AWARE)
    (offer,) = framework.offers()
    stage.ask(DrainAgent(agent_id=agent.id))
    framework.accept([offer], task_info("t1", agent.id))
    assert states(framework.updates()) == [("t1", TaskState.DROPPED, Reason.AGENT_DRAINING)]


def test_a_drain_outlives_the_master_and_is_begun_on_an_agent_that_is_away() -> None:
    stage = Stage()
    agent, framework = stage.agent(), stage.framework(failover_timeout_s=3600.0)
    info = framework.launch(agent)
    agent.close()
    stage.ask(DrainAgent(agent_id=agent.id, max_grace_s=2.0))
    assert agent.entry().drain.state is DrainState.DRAINING
    fresh = stage.restart()
    again = Agent(fresh, agent.info)
    again.connect([told(info, framework)], [framework.info])
    assert [(o.grace_s, o.reason) for o in again.take(KillTask)] == [(2.0, Reason.AGENT_DRAINING)]
    back = Framework(fresh, framework.info)
    back.subscribe()
    back.acknowledge(again, "t1", again.update("t1", TaskState.KILLED, framework.id))
    assert again.entry().drain.state is DrainState.DRAINED
    assert back.offers() == []


def test_a_drain_that_ends_with_the_agent_gone_makes_it_gone() -> None:
    stage = Stage()
    agent, framework = stage.agent(), stage.framework()
    running(stage, agent, framework)
    stage.ask(DrainAgent(agent_id=agent.id, mark_gone=True))
    framework.acknowledge(agent, "t1", agent.update("t1", TaskState.KILLED, framework.id))
    assert agent.id not in stage.core.state.agents
    assert framework.take(events.Failure) == [events.Failure(agent_id=agent.id)]
    assert f"gone/{agent.id}" in stage.store
    assert f"agents/{agent.id}" not in stage.store


def test_a_deactivated_agent_keeps_its_tasks_and_gets_nothing_new_until_it_is_opened() -> None:
    stage = Stage()
    agent, framework = stage.agent(), stage.framework(failover_timeout_s=60.0)
    running(stage, agent, framework)
    (offer,) = framework.offers()
    stage.ask(DeactivateAgent(agent_id=agent.id))
    assert framework.rescinded() == [offer.id]
    assert framework.offers() == []
    assert agent.take(KillTask) == []
    assert stage.restart().core.state.agents[agent.id].deactivated
    agent.close()
    agent.connect([told(framework.entry().tasks["t1"].info, framework)])
    assert framework.offers() == []
    stage.ask(ReactivateAgent(agent_id=agent.id))
    assert len(framework.offers()) == 1


@pytest.mark.parametrize("aware", [True, False])
@pytest.mark.parametrize("away", [True, False])
def test_an_agent_marked_gone_takes_its_tasks_along_and_never_returns(aware: bool, away: bool) -> None:
    stage = Stage(MasterConfig(least_refuse_s=0.0, agent_timeout_s=30))
    agent = stage.agent()
    framework = stage.framework(capabilities=PARTITION_AWARE if aware else (), failover_timeout_s=60.0)
    running(stage, agent, framework)
    if away:
        agent.close()
        stage.run(40)
        framework.updates()
        framework.take(events.Failure)
    stage.ask(MarkAgentGone(agent_id=agent.id))
    over = TaskState.GONE_BY_OPERATOR if aware else TaskState.LOST
    if aware or not away:
        assert states(framework.updates()) == [("t1", over, Reason.AGENT_REMOVED_BY_OPERATOR)]
    assert framework.take(events.Failure) == [events.Failure(agent_id=agent.id)]
    if not away:
        assert [o.end_tasks for o in agent.take(Refused)] == [True]
    assert [s.state for s in framework.reconcile(("t1", agent.id))] == [over]
    before = everything(stage)
    stage.ask(MarkAgentGone(agent_id=agent.id))
    assert everything(stage) == before, "once is enough"
    late = Agent(stage, agent.info)
    late.connect()
    (refused,) = late.take(Refused)
    assert refused.end_tasks
    assert "marked gone" in refused.why
    fresh = Agent(stage.restart(), agent.info)
    fresh.connect()
    assert fresh.take(Refused)[0].end_tasks


def test_gone_agents_are_forgotten_in_the_end() -> None:
    stage = Stage(MasterConfig(least_refuse_s=0.0, forget_agent_s=100.0))
    agent = stage.agent()
    stage.ask(MarkAgentGone(agent_id=agent.id))
    stage.run(120)
    assert stage.core.state.gone == {}
    assert f"gone/{agent.id}" not in stage.store


CALLS: dict[str, tuple[Command, type[CorralError], str]] = {
    "drain of nobody": (DrainAgent(agent_id=NOBODY), Invalid, "nobody is not known"),
    "drain of one that is gone": (DrainAgent(agent_id=AgentId("GONE")), Invalid, "marked gone"),
    "negative grace": (DrainAgent(agent_id=AgentId("ACTIVE"), max_grace_s=-1.0), Invalid, "0 or more"),
    "deactivation of nobody": (DeactivateAgent(agent_id=NOBODY), Invalid, "not known"),
    "reactivation of nobody": (ReactivateAgent(agent_id=NOBODY), Invalid, "not known"),
    "reactivation of an active one": (ReactivateAgent(agent_id=AgentId("ACTIVE")), Invalid, "active already"),
    "reactivation of a draining one": (ReactivateAgent(agent_id=AgentId("DRAINING")), Invalid, "still draining"),
    "end of nobody": (MarkAgentGone(agent_id=NOBODY), NotFound, "not known"),
}


@pytest.fixture(scope="module")
def cluster() -> Stage:
    stage = Stage()
    named = [stage.agent(agent_info(name, id=AgentId(name))) for name in ("ACTIVE", "DRAINING", "GONE")]
    framework = stage.framework()
    framework.launch(named[1])
    stage.ask(DrainAgent(agent_id=named[1].id))
    stage.ask(MarkAgentGone(agent_id=named[2].id))
    return stage


@pytest.mark.parametrize("name", CALLS)
def test_what_an_operator_must_not_ask_of_agents_is_refused_and_changes_nothing(cluster: Stage, name: str) -> None:
    command, error, text = CALLS[name]
    before = everything(cluster)
    with pytest.raises(error, match=text):
        cluster.ask(command)
    assert everything(cluster) == before


def test_a_kill_by_its_framework_is_still_passed_on_while_the_agent_drains() -> None:
    stage = Stage()
    agent, framework = stage.agent(), stage.framework()
    running(stage, agent, framework)
    stage.ask(DrainAgent(agent_id=agent.id))
    agent.take(KillTask)
    framework.call(calls.Kill(framework_id=framework.id, task_id=framework.entry().tasks["t1"].info.task_id, grace_s=0))
    assert [o.grace_s for o in agent.take(KillTask)] == [0]
