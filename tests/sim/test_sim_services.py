"""The services framework through random trouble from many seeds: what was acknowledged last is what runs in the end.

A failing seed stands in the message with the end of the story; run it alone with `CORRAL_SEED=N`.
"""

import os
from random import Random
from typing import Any

import pytest

from corral.frameworks.services import Config, build
from corral.frameworks.services.app_spec import AppSpec
from corral.frameworks.services.command_spec import AppUpdate, DeleteApp, KillTasks, RestartApp, UpdateApps
from corral.frameworks.services.state import task_id_of
from corral.model.execution import Execution
from corral.runtime.core import Core
from corral.sdk.scheduler import Session
from corral.sim.chaos import Trouble, trouble
from corral.sim.cluster import Cluster
from corral.sim.containers import Behaviour
from corral.sim.world import Answer

SEEDS = [int(os.environ["CORRAL_SEED"])] if "CORRAL_SEED" in os.environ else list(range(1, 16))


def make_services(random: Random) -> Core:
    framework = build(Config(), random)
    return Session(framework.info, framework.core, random)


class Wishes:
    """A person who changes apps and remembers which wishes may count: the last answered one and all after it."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.possible: dict[str, list[int]] = {}

    def __call__(self) -> None:
        random, process = self.cluster.world.random, self.cluster.frameworks["services"]
        app = random.choice(["/a", "/b", "/c"])
        match random.choice(["put", "put", "put", "delete", "restart", "kill"]):
            case "put":
                self.wish(app, random.randint(0, 5))
            case "delete":
                self.wish(app, -1)
            case "restart":
                process.ask(RestartApp(id=app, force=True))
            case _:
                process.ask(KillTasks(app=app))

    def wish(self, app: str, count: int) -> None:
        wishes = self.possible.setdefault(app, [-1])
        wishes.append(count)

        def answered(answer: Answer) -> None:
            # An answer settles all wishes before it; silence leaves its wish possible.
            if answer.error is None and self.possible[app] is wishes and count in wishes:
                del wishes[: wishes.index(count)]

        command: Any = DeleteApp(id=app)
        if count >= 0:
            spec = AppSpec(id=app, cmd="serve", instances=count, cpus=0.3, mem_mb=32.0)
            update = AppUpdate(id=app, spec=spec, given=("cmd", "instances", "cpus", "mem_mb"))
            command = UpdateApps(updates=(update,), force=True, single=True)
        self.cluster.frameworks["services"].ask(command, answered)


def disagreement(cluster: Cluster) -> str:
    if not all(process.up for process in cluster.processes):
        return "somebody is down"
    state = cluster.frameworks["services"].core._core.state  # type: ignore[attr-defined]
    running = cluster.running()
    instances = sorted(task_id_of(i) for a in state.apps.values() for i in a.instances.values())
    agents = [agent.core.state for agent in cluster.agents.values()]  # type: ignore[attr-defined]
    told = sorted(task.info.task_id for one in agents for task in one.tasks.values())
    if not running == instances == told:
        return f"running {running}, framework {instances}, agents {told}"
    wrong = {
        name: (a.record.spec.instances, len(a.instances))
        for name, a in state.apps.items()
        if a.record.stopping or len(a.instances) != a.record.spec.instances
    }
    return f"wanted and there: {wrong}" if wrong else f"deployments {list(state.deployments)}" * bool(state.deployments)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_was_acknowledged_last_runs_in_the_end(seed: int) -> None:
    def behave(execution: Execution) -> Behaviour:
        return Behaviour(run_s=10.0, code=1) if cluster.world.random.random() < 0.1 else Behaviour(start_s=0.5)

    cluster = Cluster(seed, {"services": make_services}, agents=3, behave=behave)
    cluster.start()
    wishes = Wishes(cluster)
    cluster.run(2.0)
    trouble(cluster, 300.0, wishes, Trouble(errand=6.0))
    quiet = cluster.world.now
    settled = cluster.run(2400.0, lambda: not disagreement(cluster))
    assert settled, f"seed {seed}, quiet since {quiet:.1f}: {disagreement(cluster)}\n{cluster.world.tell_story(60)}"
    state = cluster.frameworks["services"].core._core.state  # type: ignore[attr-defined]
    for app, possible in wishes.possible.items():
        there = state.apps[app].record.spec.instances if app in state.apps else -1
        assert there in possible, f"seed {seed}: {app} has {there}, acknowledged or asked later were {possible}"
