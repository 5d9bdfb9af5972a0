"""Whatever a real core was told in a troubled life, it decides the same when its journal is run again."""

from pathlib import Path
from random import Random

import pytest

from corral.agent.core import AgentCore
from corral.agent.core import Input as AgentInput
from corral.agent.spec import AgentConfig
from corral.frameworks.services import Config, build
from corral.frameworks.services import Input as ServicesInput
from corral.frameworks.services.app_spec import AppSpec
from corral.frameworks.services.command_spec import CreateApp, KillTasks
from corral.master.core import MasterCore
from corral.master.spec import Input as MasterInput
from corral.runtime.core import Core
from corral.runtime.journal import Header, Journal, Replayable, replay
from corral.sdk.scheduler import Session
from corral.sim.chaos import trouble
from corral.sim.cluster import MASTER, NODE, Cluster
from corral.sim.world import Process


def make_services(random: Random) -> Core:
    framework = build(Config(), random)
    return Session(framework.info, framework.core, random)


AGENT = AgentConfig(hostname="agent1", port=4681, resources=NODE, runtimes=("process",), work_dir="/sim/agent1")
KNOWN = {
    "master": Replayable(MasterInput, lambda header: MasterCore(MASTER, Random(header.seed))),
    "agent1": Replayable(AgentInput, lambda header: AgentCore(AGENT, Random(header.seed))),
    "services": Replayable(ServicesInput, lambda header: make_services(Random(header.seed))),
}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_journal_of_a_troubled_life_is_decided_as_recorded(seed: int, tmp_path: Path) -> None:
    cluster = Cluster(seed, {"services": make_services}, agents=2)

    def record(process: Process) -> Journal:
        path = tmp_path / f"{process.name}.{process.incarnation}"
        return Journal(str(path), Header(component=process.name, seed=process.seed, drain=256))

    for name in KNOWN:
        cluster.world.processes[name].record = record
    cluster.start()
    for name in ("/a", "/b"):
        cluster.ask("services", CreateApp(spec=AppSpec(id=name, cmd="serve", instances=3, cpus=0.3, mem_mb=32.0)))
    trouble(cluster, 120.0, lambda: cluster.frameworks["services"].ask(KillTasks(app="/a")) and None)
    for process in cluster.processes:
        process.crash("at the end")
    journals = sorted(tmp_path.iterdir())
    assert len(journals) > len(KNOWN)
    results = [replay(str(path), KNOWN) for path in journals]
    assert [str(result.divergence) for result in results if result.divergence is not None] == []
    assert sum(result.inputs for result in results) > 500
