"""Nodes taken out of service in a whole cluster in virtual time, with a master that crashes in the midst of it."""

from pathlib import Path
from random import Random
from typing import Any

import pytest

from corral.frameworks.services import Config, build
from corral.frameworks.services.app_spec import AppSpec
from corral.frameworks.services.command_spec import CreateApp
from corral.master.spec import GetNodes
from corral.model.ids import AgentId
from corral.model.maintenance import (
    DrainAgent,
    Machine,
    ReactivateAgent,
    StartMaintenance,
    StopMaintenance,
    Unavailability,
    UpdateSchedule,
    Window,
)
from corral.runtime.core import Core
from corral.sdk.scheduler import Session
from corral.sim.cluster import Cluster
from corral.sim.record import TraceRecorder
from corral.sim.trace import AgentCame, AgentLeft, read_trace

COUNT = 4


def make_services(random: Random) -> Core:
    framework = build(Config(), random)
    return Session(framework.info, framework.core, random)


def start(**more: Any) -> Cluster:
    return Cluster(11, {"services": make_services}, **more)


def fill(cluster: Cluster) -> None:
    cluster.start()
    cluster.run(5.0)
    spec = AppSpec(id="/web", cmd="serve", instances=COUNT, cpus=0.5, mem_mb=32.0)
    cluster.ask("services", CreateApp(spec=spec))
    assert cluster.run(20.0, until=lambda: len(cluster.running()) == COUNT)
    cluster.run(2.0)


def nodes(cluster: Cluster) -> dict[str, dict[str, Any]]:
    return {node["hostname"]: node for node in cluster.ask("master", GetNodes())["nodes"]}


def on(cluster: Cluster, name: str) -> int:
    return sum(1 for runs in cluster.ledger.runs.values() for node, one in runs if node == name and one.runs)


@pytest.mark.parametrize("crash_s", [None, 0.0, 0.01, 0.1, 1.0, 3.1])
def test_what_ran_on_a_drained_node_runs_elsewhere_whenever_the_master_crashes(crash_s: float | None) -> None:
    cluster = start(agents=3)
    fill(cluster)
    before = nodes(cluster)["agent1"]
    assert before["tasks"] > 0
    cluster.ask("master", DrainAgent(agent_id=AgentId(before["id"]), max_grace_s=2.0))
    if crash_s is not None:
        cluster.run(crash_s)
        cluster.master.crash("in the midst of a drain")
        cluster.run(0.5)
        cluster.master.start()
    cluster.run(60.0)
    assert (nodes(cluster)["agent1"]["state"], on(cluster, "agent1")) == ("drained", 0)
    assert len(cluster.running()) == COUNT
    cluster.ask("master", ReactivateAgent(agent_id=AgentId(before["id"])))
    assert nodes(cluster)["agent1"]["state"] == "reachable"


def test_a_machine_that_is_down_runs_nothing_and_its_agent_comes_back_clean() -> None:
    cluster = start(agents=2)
    fill(cluster)
    machine = Machine(hostname="agent1")
    window = Window(machines=(machine,), unavailability=Unavailability(start_ns=0))
    cluster.ask("master", UpdateSchedule(windows=(window,)))
    assert nodes(cluster)["agent1"]["state"] == "maintenance"
    cluster.ask("master", StartMaintenance(machines=(machine,)))
    cluster.run(90.0)
    assert on(cluster, "agent1") == 0, "its agent was told to end all"
    assert (list(nodes(cluster)), len(cluster.running())) == (["agent2"], COUNT)
    cluster.ask("master", StopMaintenance(machines=(machine,)))
    cluster.run(90.0)
    found = nodes(cluster)["agent1"]
    assert (found["state"], found["tasks"]) == ("reachable", 0)


def test_a_recording_tells_when_an_agent_was_closed_and_opened(tmp_path: Path) -> None:
    cluster = start(agents=2)
    cluster.master.record = lambda process: TraceRecorder(tmp_path / "life.trace")
    fill(cluster)
    agent_id = AgentId(nodes(cluster)["agent1"]["id"])
    cluster.ask("master", DrainAgent(agent_id=agent_id))
    cluster.run(30.0)
    cluster.ask("master", ReactivateAgent(agent_id=agent_id))
    cluster.run(5.0)
    for process in cluster.processes:
        process.crash("at the end")
    found = list(read_trace(tmp_path / "life.trace"))
    came = [e.agent.ineligible for e in found if isinstance(e, AgentCame) and e.agent.id == agent_id]
    assert came == ["", "draining", "drained", ""]
    assert not any(isinstance(e, AgentLeft) for e in found)
