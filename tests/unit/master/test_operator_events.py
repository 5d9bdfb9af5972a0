"""What those who follow the cluster are told: each change once, in its order, and nothing while nobody follows."""

import json
from random import Random
from typing import Any

import msgspec
import pytest
from master_stage import PARTITION_AWARE, Agent, Framework, Stage, agent_info, task_info, told

from corral.lib.errors import Invalid
from corral.master.spec import GetCluster, MasterConfig, WatchCluster, WatcherClosed
from corral.mesos import operator, watch
from corral.mesos.snapshot import ClusterSnapshot
from corral.model import calls, events
from corral.model.ids import FrameworkId
from corral.model.operator import Teardown
from corral.model.task import Reason, TaskState


def follow(stage: Stage, stream: str = "watch-1") -> ClusterSnapshot:
    found: ClusterSnapshot = stage.ask(WatchCluster(stream))
    return found


def take(stage: Stage) -> list[str]:
    """The events since the last look, without heartbeats, in words."""
    found, stage.told = stage.told, []
    return [words(event) for event in found if not isinstance(event, watch.Beat)]


def words(event: watch.ClusterEvent) -> str:
    match event:
        case watch.TaskAdded(task):
            return f"{task.info.task_id} added {task.state}"
        case watch.TaskUpdated(_, status, state):
            ahead = "" if status.state is state else f" but {state}"
            return f"{status.task_id} {status.state}{ahead}"
        case watch.AgentAdded(agent):
            return f"agent {agent.info.hostname} added"
        case watch.AgentRemoved(agent_id):
            return f"agent {agent_id.rpartition('-')[2]} removed"
        case watch.FrameworkAdded(framework):
            return f"framework {framework.info.name} added"
        case watch.FrameworkUpdated(framework):
            return f"framework {framework.info.name} updated, {'here' if framework.connected else 'away'}"
        case watch.FrameworkRemoved(info):
            return f"framework {info.name} removed"
        case _:
            return "heartbeat"


def shop(stage: Stage, **more: Any) -> Framework:
    return stage.framework(name="shop", failover_timeout_s=60.0, capabilities=PARTITION_AWARE, **more)


def test_nothing_is_told_while_nobody_follows() -> None:
    stage = Stage()
    framework = shop(stage)
    framework.launch(stage.agent())
    assert stage.told == []
    follow(stage)
    stage.give(WatcherClosed("watch-1"))
    framework.close()
    assert (stage.told, stage.core.state.news) == ([], [])


def test_the_life_of_a_task_is_told_step_by_step() -> None:
    stage = Stage()
    follow(stage)
    agent, framework = stage.agent(), shop(stage)
    assert take(stage) == ["agent h1 added", "framework shop added"]
    framework.launch(agent, "t1")
    assert take(stage) == ["t1 added TASK_STAGING"]
    agent.update("t1", TaskState.STARTING, framework.id, latest=TaskState.RUNNING)
    uuid = agent.update("t1", TaskState.RUNNING, framework.id)
    assert take(stage) == ["t1 TASK_STARTING but TASK_RUNNING", "t1 TASK_RUNNING"]
    agent.update("t1", TaskState.RUNNING, framework.id, uuid=uuid)
    assert take(stage) == [], "a repeated update is no news"
    agent.update("t1", TaskState.RUNNING, framework.id, healthy=True)
    uuid = agent.update("t1", TaskState.FINISHED, framework.id)
    framework.acknowledge(agent, "t1", uuid)
    assert take(stage) == ["t1 TASK_RUNNING", "t1 TASK_FINISHED"]


def test_the_life_of_a_framework_is_told() -> None:
    stage = Stage()
    follow(stage)
    framework = shop(stage)
    framework.close()
    framework.subscribe()
    changed = msgspec.structs.replace(framework.info, webui_url="http://shop")
    framework.call(calls.UpdateFramework(info=changed))
    assert stage.told[-1].framework.info.webui_url == "http://shop"  # type: ignore[union-attr]
    framework.call(calls.Teardown(framework_id=framework.id))
    assert take(stage) == [
        "framework shop added", "framework shop updated, away", "framework shop updated, here",
        "framework shop updated, here", "framework shop removed",
    ]  # fmt: skip


def test_a_framework_that_was_removed_takes_its_tasks_along() -> None:
    stage = Stage()
    agent, framework = stage.agent(), shop(stage)
    framework.launch(agent, "t1")
    agent.update("t1", TaskState.RUNNING, framework.id)
    follow(stage)
    framework.close()
    stage.run(61)
    assert take(stage) == ["framework shop updated, away", "t1 TASK_KILLED", "framework shop removed"]


def test_an_agent_that_is_lost_and_comes_back_is_told_with_its_tasks() -> None:
    stage = Stage()
    follow(stage)
    agent, framework = stage.agent(), shop(stage)
    info = framework.launch(agent, "t1")
    agent.update("t1", TaskState.RUNNING, framework.id)
    take(stage)
    agent.close()
    assert take(stage) == [], "a link that breaks is no loss yet"
    stage.run(100)
    assert take(stage) == ["agent S0 removed", "t1 TASK_UNREACHABLE"]
    agent.connect([told(info, framework)])
    assert take(stage) == ["agent h1 added", "t1 added TASK_RUNNING"]
    agent.connect([])
    assert take(stage) == ["t1 TASK_GONE"]


def test_an_agent_that_brings_a_framework_adds_both() -> None:
    stage = Stage()
    agent, framework = stage.agent(), shop(stage)
    info = framework.launch(agent, "t1")
    other = Stage()
    follow(other)
    fresh = Agent(other, agent.info)
    fresh.connect([told(info, framework)], [framework.info])
    assert take(other) == ["agent h1 added", "framework shop added", "t1 added TASK_RUNNING"]


def test_a_new_master_tells_of_the_agents_it_awaited() -> None:
    first = Stage()
    agent = first.agent()
    stage = first.restart()
    stage.told = []
    snapshot = follow(stage)
    assert [row.recovered for row in snapshot.agents] == [True]
    Agent(stage, agent.info).connect()
    assert take(stage) == ["agent h1 added"]


def test_heartbeats_go_on_while_somebody_follows() -> None:
    stage = Stage(MasterConfig(heartbeat_s=15.0))
    stage.run(40)
    assert stage.told == []
    follow(stage)
    follow(stage, "watch-2")
    stage.run(46)
    assert stage.told == [watch.Beat()] * 3
    stage.give(WatcherClosed("watch-1"))
    stage.run(15)
    assert len(stage.told) == 4
    stage.give(WatcherClosed("watch-2"))
    stage.run(60)
    assert len(stage.told) == 4
    assert "watch" not in stage.timers


def read(snapshot: ClusterSnapshot) -> Any:
    return json.loads(operator.write_response(operator.OperatorCall.GET_STATE, snapshot, "1"))["get_state"]


class Follower:
    """What one knows who has read the first event and applied all that came after it."""

    def __init__(self, snapshot: ClusterSnapshot) -> None:
        state = read(snapshot)
        self.tasks = {
            t["task_id"]["value"]: t["state"]
            for kind in ("tasks", "unreachable_tasks", "completed_tasks")
            for t in state["get_tasks"].get(kind, [])
        }
        self.agents = {a["agent_info"]["id"]["value"] for a in state["get_agents"].get("agents", [])}
        self.frameworks = {
            f["framework_info"]["id"]["value"]: f["connected"] for f in state["get_frameworks"].get("frameworks", [])
        }

    def apply(self, event: Any) -> None:
        kind = event["type"].lower()
        body = event.get(kind, {})
        match event["type"]:
            case "TASK_ADDED":
                self.tasks[body["task"]["task_id"]["value"]] = body["task"]["state"]
            case "TASK_UPDATED":
                self.tasks[body["status"]["task_id"]["value"]] = body["state"]
            case "AGENT_ADDED":
                self.agents.add(body["agent"]["agent_info"]["id"]["value"])
            case "AGENT_REMOVED":
                self.agents.remove(body["agent_id"]["value"])
            case "FRAMEWORK_ADDED" | "FRAMEWORK_UPDATED":
                row = body["framework"]
                self.frameworks[row["framework_info"]["id"]["value"]] = row["connected"]
            case "FRAMEWORK_REMOVED":
                del self.frameworks[body["framework_info"]["id"]["value"]]


@pytest.mark.parametrize("seed", range(6))
def test_who_has_followed_knows_what_who_looks_now_sees(seed: int) -> None:
    random = Random(seed)
    stage = Stage()
    agents = [stage.agent(agent_info(f"h{n}", cpus=16)) for n in range(3)]
    frameworks = [
        stage.framework(name="shop", failover_timeout_s=1e6, capabilities=PARTITION_AWARE),
        stage.framework(name="jobs", failover_timeout_s=1e6),
    ]
    tasks: list[tuple[Framework, Agent, str]] = []
    snapshot = follow(stage)
    follower = Follower(snapshot)
    for step in range(60):
        framework, agent = random.choice(frameworks), random.choice(agents)
        match random.randrange(7):
            case 0 | 1 | 2:
                if framework.entry().connected and agent.entry().session:
                    offers = [o for o in framework.offers() if o.agent_id == agent.id]
                    if offers:
                        framework.accept(offers, task_info(f"t{step}", agent.id), refuse_s=0)
                        tasks.append((framework, agent, f"t{step}"))
            case 3:
                if tasks:
                    owner, where, task_id = random.choice(tasks)
                    if where.entry().session:
                        state = random.choice([TaskState.STARTING, TaskState.RUNNING, TaskState.FAILED])
                        where.update(task_id, state, owner.id)
            case 4:
                if framework.entry().connected:
                    framework.close()
                else:
                    framework.subscribe()
            case 5:
                if random.random() < 0.3:
                    stage.ask(Teardown(framework_id=framework.id))
                    frameworks.remove(framework)
                    tasks = [one for one in tasks if one[0] is not framework]
                    frameworks.append(stage.framework(name=f"new-{step}", failover_timeout_s=1e6))
            case 6:
                if agent.entry().session:
                    agent.close()
                    stage.run(random.choice([1, 100]))
                else:
                    agent.connect()
        for event in stage.told:
            follower.apply(json.loads(watch.write_event(event)))
        stage.told = []
        now = Follower(stage.ask(GetCluster()))
        assert follower.agents == now.agents
        assert follower.frameworks == now.frameworks
        known = {task_id: state for task_id, state in follower.tasks.items() if task_id in now.tasks}
        assert known == now.tasks, f"step {step}"


def test_an_operator_ends_a_framework_which_is_told_so() -> None:
    stage = Stage()
    agent, framework = stage.agent(), shop(stage)
    framework.launch(agent, "t1")
    framework.take(events.Error)
    assert stage.ask(Teardown(framework_id=framework.id)) is None
    (error,) = framework.take(events.Error)
    assert "operator" in error.message
    assert framework.stream in stage.ended
    row = stage.ask(GetCluster()).completed_frameworks[0]
    assert [(t.info.task_id, t.state, t.statuses[-1].reason) for t in row.completed_tasks] == [
        ("t1", TaskState.KILLED, Reason.FRAMEWORK_REMOVED)
    ]
    before = msgspec.msgpack.encode(stage.store)
    for missing in (framework.id, FrameworkId("nobody")):
        with pytest.raises(Invalid, match="cannot be found"):
            stage.ask(Teardown(framework_id=missing))
    assert msgspec.msgpack.encode(stage.store) == before


def test_an_operator_ends_a_framework_that_is_away() -> None:
    stage = Stage()
    framework = shop(stage)
    framework.close()
    stage.ask(Teardown(framework_id=framework.id))
    assert [f.info.name for f in stage.ask(GetCluster()).completed_frameworks] == ["shop"]


def test_what_runs_for_no_framework_any_more_is_shown_as_an_orphan_until_it_ends() -> None:
    stage = Stage()
    agent, framework = stage.agent(), shop(stage)
    info = framework.launch(agent, "t1")
    agent.update("t1", TaskState.RUNNING, framework.id)

    def orphans() -> list[str]:
        return [task.info.task_id for row in stage.ask(GetCluster()).agents for task in row.orphans]

    assert orphans() == []
    stage.ask(Teardown(framework_id=framework.id))
    assert orphans() == ["t1"], "its agent has not said yet that it ended"
    agent.connect([told(info, framework)])
    assert orphans() == ["t1"]
    agent.update("t1", TaskState.KILLED, framework.id)
    assert orphans() == []
