"""Views: what operators and Mesos tools are shown of one and the same state."""

from typing import Any

import msgspec
import pytest
from master_stage import PARTITION_AWARE, Agent, Framework, Stage, agent_info, bundle, want

from corral.master.spec import (
    GetCluster,
    GetFrameworks,
    GetMetrics,
    GetNodes,
    GetRoles,
    GetTasks,
)
from corral.mesos import legacy, operator
from corral.model import calls
from corral.model.operator import SetRole
from corral.model.task import TaskState


@pytest.fixture
def cluster() -> tuple[Stage, Agent, Framework]:
    """One agent, one framework with a running and an ended task and an offer out, one agent that is away."""
    stage = Stage()
    agent = stage.agent(agent_info("h1"))
    framework = stage.framework(name="shop", role="web", failover_timeout_s=1e6, capabilities=PARTITION_AWARE)
    framework.launch(agent, "t1", group="/shop", resources=bundle(1, 512, (31000, 31000)))
    agent.update("t1", TaskState.RUNNING, framework.id, healthy=True, message="up")
    framework.launch(agent, "t2")
    uuid = agent.update("t2", TaskState.FAILED, framework.id, message="Command exited with status 3")
    framework.acknowledge(agent, "t2", uuid)
    framework.offers()
    away = stage.agent(agent_info("h2"))
    away.close()
    return stage, agent, framework


def test_nodes_show_what_each_agent_has_uses_and_offers(cluster: tuple[Stage, Agent, Framework]) -> None:
    stage, agent, _ = cluster
    first, second = stage.ask(GetNodes())["nodes"]
    assert first == {
        "id": agent.id,
        "hostname": "h1",
        "state": "reachable",
        "why": "",
        "url": "http://127.0.0.1:4681",
        "resources": {"cpus": 4.0, "mem": 4096.0, "ports": "[31000-31099]"},
        "used": {"cpus": 1.0, "mem": 512.0, "ports": "[31000-31000]"},
        "offered": {"cpus": 3.0, "mem": 3584.0, "ports": "[31001-31099]"},
        "attributes": {"rack": "rack-h1"},
        "domain": None,
        "tasks": 1,
        "runtimes": ["process"],
    }
    assert (second["state"], "link broke" in second["why"]) == ("disconnected", True)


def test_tasks_are_found_by_each_filter(cluster: tuple[Stage, Agent, Framework]) -> None:
    stage, agent, framework = cluster

    def ids(**asked: str) -> list[str]:
        return sorted(t["id"] for t in stage.ask(GetTasks(**asked))["tasks"])

    assert ids() == ["t1", "t2"]
    assert ids(framework=framework.id) == ids(framework="shop") == ["t1", "t2"]
    assert ids(framework="other") == []
    assert ids(agent=agent.id) == ["t1", "t2"]
    assert ids(agent="other") == []
    assert ids(group="/shop") == ["t1"]
    assert ids(task="t2") == ["t2"]
    assert ids(task="t2", group="/shop") == []


def test_a_task_is_shown_with_where_it_is_and_what_it_last_said(cluster: tuple[Stage, Agent, Framework]) -> None:
    stage, agent, framework = cluster
    (shown,) = stage.ask(GetTasks(task="t1"))["tasks"]
    assert shown == {
        "id": "t1", "name": "t1", "group": "/shop", "framework": framework.id, "role": "web", "agent": agent.id,
        "hostname": "h1", "agent_url": "http://127.0.0.1:4681", "state": "TASK_RUNNING", "message": "up",
        "preempted_by": None,
        "reason": None,
        "healthy": True, "at": shown["at"], "resources": {"cpus": 1.0, "mem": 512.0, "ports": "[31000-31000]"},
    }  # fmt: skip


def test_unreachable_tasks_are_shown_too(cluster: tuple[Stage, Agent, Framework]) -> None:
    stage, agent, _ = cluster
    agent.silence()
    stage.run(100)
    assert [t["state"] for t in stage.ask(GetTasks(task="t1"))["tasks"]] == ["TASK_UNREACHABLE"]


def test_roles_show_weight_share_and_members(cluster: tuple[Stage, Agent, Framework]) -> None:
    stage, _, framework = cluster
    stage.ask(SetRole(role="idle", weight=2.0))
    idle, web = stage.ask(GetRoles())["roles"]
    assert (idle["name"], idle["weight"], idle["frameworks"], idle["share"]) == ("idle", 2.0, [], 0.0)
    assert web["frameworks"] == [framework.id]
    assert web["allocated"] == {"cpus": 4.0, "mem": 4096.0}
    assert web["offered"] == {"cpus": 3.0, "mem": 3584.0}
    assert web["share"] == 0.5, "the agent that is away for a moment counts"


def test_frameworks_show_their_standing() -> None:
    stage = Stage()
    names = ("up", "away", "gone")
    up, away, gone = (stage.framework(name=n, failover_timeout_s=60.0) for n in names)
    away.close()
    gone.call(calls.Teardown(framework_id=gone.id))
    up.want(want("w1", 3))
    shown = {f["name"]: f for f in stage.ask(GetFrameworks())["frameworks"]}
    assert [shown[n]["state"] for n in names] == ["connected", "disconnected", "removed"]
    assert shown["up"]["wants"] == [{"id": "w1", "role": "*", "remaining": 3, "offered": 0}]
    later = stage.restart()
    assert {f["name"]: f["state"] for f in later.ask(GetFrameworks())["frameworks"]} == {
        "up": "recovered",
        "away": "recovered",
    }


def test_the_snapshot_speaks_mesos(cluster: tuple[Stage, Agent, Framework]) -> None:
    stage, agent, framework = cluster
    snapshot = stage.ask(GetCluster())
    state: Any = msgspec.json.decode(msgspec.json.encode(legacy.write_state(snapshot, "1.11.0")))
    (shown,) = [s for s in state["slaves"] if s["id"] == agent.id]
    assert shown["used_resources"]["cpus"] == 1.0
    (listed,) = state["frameworks"]
    assert (listed["id"], listed["used_resources"]["cpus"], listed["offered_resources"]["cpus"]) == (
        framework.id,
        1.0,
        3.0,
    )
    assert [t["id"] for t in listed["tasks"]] == ["t1"]
    assert [(t["id"], t["state"]) for t in listed["completed_tasks"]] == [("t2", "TASK_FAILED")]
    call = operator.read_call(b'{"type": "GET_STATE"}')
    answer = msgspec.json.decode(operator.write_response(call, snapshot, "1.11.0"))
    assert len(answer["get_state"]["get_tasks"]["tasks"]) == 1
    bare = stage.ask(GetCluster(tasks=False))
    assert bare.frameworks[0].tasks == ()


def test_the_numbers_agree_with_the_views(cluster: tuple[Stage, Agent, Framework]) -> None:
    stage, _, _ = cluster
    found = stage.ask(GetMetrics())
    assert found["master/slaves_active"] == 1
    assert found["master/slaves_disconnected"] == 1
    assert found["master/tasks_running"] == 1
    assert found["master/tasks_failed"] == 1
    assert found["master/cpus_total"] == 4
    assert found["master/cpus_used"] == 1
    assert found["master/cpus_percent"] == 0.25
    assert found["master/outstanding_offers"] == 1
    assert found["master/frameworks_connected"] == 1
    assert all(isinstance(value, float) for value in found.values())


def test_views_of_an_empty_master_are_empty() -> None:
    stage = Stage()
    assert stage.ask(GetNodes()) == {"nodes": []}
    assert stage.ask(GetTasks()) == {"tasks": []}
    assert stage.ask(GetRoles()) == {"roles": []}
    assert stage.ask(GetFrameworks()) == {"frameworks": []}
