"""What outages of a node's parts cost with many containers on it: a Docker daemon killed, an agent started again.

A whole cluster of one host in a lab, with a real Engine; needs root. Exits are by the tasks' own doing and restarts are
counted by what they write themselves.
"""

import os
import time
from pathlib import Path

from tests.bench.report import Measure
from tests.fault.real.cluster import Cluster, wait_for
from tests.fault.real.scene import LOOP, Scene

from corral.lab.lab import Lab

ROOT = Path("/tmp/corral-labs")
RECOVER_BUDGET_S = 2.0
AWAY_S = 3.0


def measure(*, short: bool) -> list[Measure]:
    many, exits, restarts = (10, 5, 1) if short else (100, 25, 3)
    with Cluster(Lab(f"b{os.getpid()}", ROOT), 1, masters=1, members=0) as cluster:
        scene = Scene(cluster)
        scene.deploy("many", "docker", many, per_host=many, cpus=0.01, cmd=_calm(scene))
        recovered, busy_s = zip(*(_restart_agent(cluster, many) for _ in range(restarts)), strict=True)
        missed, again, learned_s = _kill_dockerd(scene, exits)
    return [
        Measure(
            name=f"agent with {many} containers killed and started: known to the master again", unit="s",
            runs=recovered, budget=RECOVER_BUDGET_S, note="from the start of the process, Python's own included",
        ),
        Measure(name="the same: processor time of the agent until then", unit="s", runs=busy_s),
        Measure(
            name=f"Docker daemon killed with {2 * exits} containers, {exits} of which exit meanwhile: exits missed",
            unit="exits", runs=(float(missed),), budget=0.0,
        ),
        Measure(name="the same: containers restarted", unit="containers", runs=(float(again),), budget=0.0),
        Measure(
            name="the same: all exits known after the daemon was back", unit="s", runs=(learned_s,),
            note=f"it was away for {AWAY_S:g} s",
        ),
    ]  # fmt: skip


def _calm(scene: Scene) -> str:
    """Tasks that leave the machine to what is measured."""
    return LOOP.replace("{diary}", str(scene.diary.directory)).replace("sleep 0.5", "sleep 2")


def _restart_agent(cluster: Cluster, many: int) -> tuple[float, float]:
    """Seconds until the master knows the agent again, and what the agent has worked for that."""
    with cluster.down("h1", "agent"):
        wait_for(lambda: cluster.nodes()["h1"] != "reachable", "the agent's absence")
        begun = time.monotonic()
        cluster.lab.start_again("h1", "agent")
        wait_for(lambda: cluster.nodes()["h1"] == "reachable", "the agent", pause_s=0.01)
        took_s = time.monotonic() - begun
        pid = cluster.lab.status()[0]["daemons"]["agent"]
        ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        busy_s = sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
    (node,) = cluster.get("/corral/v1/nodes")["nodes"]
    assert node["tasks"] == many, node
    return took_s, busy_s


def _kill_dockerd(scene: Scene, exits: int) -> tuple[int, int, float]:
    """Exits that were not learned with their code, tasks that were started again, and how long learning took."""
    scene.deploy("many", "docker", 2 * exits, per_host=2 * exits, cpus=0.01, cmd=_calm(scene))
    tasks = scene.tasks_of("many")
    before = scene.diary.starts()
    ended = tasks[:exits]
    with scene.cluster.down("h1", "dockerd"):
        for task in ended:
            scene.diary.end(task, 7)
        time.sleep(AWAY_S)
    back_at = time.monotonic()
    until = back_at + 60.0
    left = list(ended)
    while left and time.monotonic() < until:
        left = [task for task in left if not scene.learned(task, 7)]
    took_s = time.monotonic() - back_at
    after = scene.diary.starts()
    again = sum(after[task] != before[task] for task in tasks)
    gone = set(tasks) - set(ended) - set(scene.tasks_of("many"))
    return len(left), again + len(gone), took_s
