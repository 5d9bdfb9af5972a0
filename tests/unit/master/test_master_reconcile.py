"""Reconciliation: the table of answers, and when silence is the answer."""

import pytest
from master_stage import PARTITION_AWARE, Agent, Framework, Stage, agent_info, states, told

from corral.model.ids import AgentId
from corral.model.task import Reason, Source, TaskState


def stage_of(aware: bool) -> tuple[Stage, Agent, Framework]:
    stage = Stage()
    agent = stage.agent()
    capabilities = PARTITION_AWARE if aware else ()
    return stage, agent, stage.framework(capabilities=capabilities, failover_timeout_s=1e6)


@pytest.mark.parametrize("aware", [True, False])
def test_a_known_task_is_answered_with_the_state_last_told(aware: bool) -> None:
    _, agent, framework = stage_of(aware)
    framework.launch(agent)
    assert states(framework.reconcile(("t1", agent.id))) == [("t1", TaskState.STAGING, Reason.RECONCILIATION)]
    agent.update("t1", TaskState.RUNNING, framework.id, healthy=True, data=b"d")
    (status,) = framework.reconcile(("t1", None))
    assert (status.state, status.healthy, status.data) == (TaskState.RUNNING, True, b"d")
    assert (status.source, status.uuid, status.agent_id) == (Source.MASTER, None, agent.id)


@pytest.mark.parametrize(("aware", "wanted"), [(True, TaskState.GONE), (False, TaskState.LOST)])
def test_a_task_unknown_to_its_registered_agent_is_gone(aware: bool, wanted: TaskState) -> None:
    _, agent, framework = stage_of(aware)
    assert states(framework.reconcile(("x", agent.id))) == [("x", wanted, Reason.RECONCILIATION)]
    agent.close()
    assert states(framework.reconcile(("x", agent.id))) == [("x", wanted, Reason.RECONCILIATION)]


@pytest.mark.parametrize(("aware", "wanted"), [(True, TaskState.UNREACHABLE), (False, TaskState.LOST)])
def test_a_task_of_an_unreachable_agent_is_unreachable_known_or_not(aware: bool, wanted: TaskState) -> None:
    stage, agent, framework = stage_of(aware)
    framework.launch(agent)
    agent.silence()
    stage.run(100)
    found = framework.reconcile(("t1", agent.id), ("x", agent.id))
    assert [(s.task_id, s.state) for s in found] == [("t1", wanted), ("x", wanted)]
    assert all(s.unreachable_at is not None for s in found)


@pytest.mark.parametrize(("aware", "wanted"), [(True, TaskState.UNKNOWN), (False, TaskState.LOST)])
@pytest.mark.parametrize("agent_id", [None, "nobody"])
def test_a_task_of_nobody_is_unknown(aware: bool, wanted: TaskState, agent_id: str | None) -> None:
    _, _, framework = stage_of(aware)
    assert states(framework.reconcile(("x", agent_id))) == [("x", wanted, Reason.RECONCILIATION)]


def test_nothing_is_said_while_an_agent_that_may_know_has_not_come_back() -> None:
    stage, agent, framework = stage_of(True)
    info = framework.launch(agent)
    other = stage.agent(agent_info("h2"))
    later = stage.restart()
    framework.stage = agent.stage = other.stage = later
    framework.subscribe()
    assert framework.reconcile(("t1", agent.id), ("t1", None)) == []
    assert [s.state for s in framework.reconcile(("t1", "nobody"))] == [TaskState.UNKNOWN]
    agent.connect([told(info, framework)])
    assert [s.state for s in framework.reconcile(("t1", agent.id), ("t1", None))] == [TaskState.RUNNING] * 2
    assert framework.reconcile(("x", None)) == [], "the other agent is still expected"
    other.connect()
    assert [s.state for s in framework.reconcile(("x", None))] == [TaskState.UNKNOWN]


def test_implicit_reconciliation_tells_every_task_that_is_not_over() -> None:
    stage, agent, framework = stage_of(True)
    for name in ("a", "b", "c"):
        framework.launch(agent, name)
    agent.update("b", TaskState.RUNNING, framework.id)
    uuid = agent.update("c", TaskState.FINISHED, framework.id)
    assert {(s.task_id, s.state) for s in framework.reconcile()} == {
        ("a", TaskState.STAGING), ("b", TaskState.RUNNING), ("c", TaskState.FINISHED),
    }  # fmt: skip
    framework.acknowledge(agent, "c", uuid)
    assert {s.task_id for s in framework.reconcile()} == {"a", "b"}
    assert stage.framework(name="other").reconcile() == []


def test_implicit_reconciliation_of_a_partition_aware_framework_covers_the_unreachable() -> None:
    for aware, wanted in ((True, ["t1"]), (False, [])):
        stage, agent, framework = stage_of(aware)
        framework.launch(agent)
        agent.silence()
        stage.run(100)
        assert [s.task_id for s in framework.reconcile()] == wanted
        assert AgentId(agent.id) in stage.core.state.agents


def test_what_was_asked_before_an_agent_came_back_is_answered_when_it_has() -> None:
    stage, agent, framework = stage_of(True)
    info = framework.launch(agent)
    agent.update("t1", TaskState.RUNNING, framework.id)
    later = stage.restart()
    framework.stage = agent.stage = later
    framework.subscribe()
    assert framework.reconcile(("t1", agent.id), ("lost", agent.id)) == []
    known = told(info, framework)
    agent.connect([known])
    assert states(framework.updates()) == [
        ("t1", TaskState.RUNNING, Reason.RECONCILIATION),
        ("lost", TaskState.GONE, Reason.RECONCILIATION),
    ]
    agent.close()
    agent.connect([known])
    assert framework.updates() == []
