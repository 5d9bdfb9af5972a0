"""The services framework through a crash of anybody at every step: no app that was acknowledged is lost or doubled.

The person who asks repeats a command until it is answered; that the app exists already is then as good as an answer.
"""

from functools import lru_cache
from random import Random
from typing import Any

import pytest

from corral.frameworks.services import Config, build
from corral.frameworks.services.app_spec import AppSpec
from corral.frameworks.services.command_spec import AppUpdate, CreateApp, RestartApp, UpdateApps
from corral.frameworks.services.state import task_id_of
from corral.lib.errors import Conflict
from corral.model.execution import Execution
from corral.runtime.core import Core
from corral.sdk.scheduler import Session
from corral.sim.cluster import Cluster
from corral.sim.containers import Behaviour

SETTLE_S = 600.0


def make_services(random: Random) -> Core:
    framework = build(Config(), random)
    return Session(framework.info, framework.core, random)


class Nth:
    """Containers that run for ever, but for the second one of all, which fails after a while."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, execution: Execution) -> Behaviour:
        self.count += 1
        return Behaviour(run_s=2.0, code=3) if self.count == 2 else Behaviour()


def app(instances: int) -> AppSpec:
    return AppSpec(id="/web", cmd="serve", instances=instances, cpus=0.5, mem_mb=64.0)


def persist(cluster: Cluster, command: Any) -> None:
    """Ask until it is answered; after a crash, that it is there already is an answer too."""
    try:
        cluster.ask("services", command)
    except Conflict:
        if not cluster.frameworks["services"].crashed_at:
            raise


def live(victim: str | None = None, point: int | None = None) -> Cluster:
    """The life: create with three, one of which fails; scale to four; restart all; scale to two."""
    cluster = Cluster(11, {"services": make_services}, agents=2, behave=Nth())
    for process in cluster.processes:
        process.revive = True
    if victim is not None:
        cluster.world.processes[victim].crash_at = point
    cluster.start()
    persist(cluster, CreateApp(spec=app(3)))
    cluster.run(3.0)
    settle(cluster, 3)
    persist(cluster, scale(4))
    settle(cluster, 4)
    before = set(cluster.running())
    persist(cluster, RestartApp(id="/web", force=True))
    settle(cluster, 4)
    if cluster.world.processes["services"].crashed_at == []:
        assert not before & set(cluster.running())
    persist(cluster, scale(2))
    settle(cluster, 2)
    return cluster


def scale(instances: int) -> UpdateApps:
    return UpdateApps(
        updates=(AppUpdate(id="/web", spec=app(instances), given=("instances",)),), force=True, single=True
    )


def settle(cluster: Cluster, count: int) -> None:
    assert cluster.run(SETTLE_S, lambda: not unsettled(cluster, count)), unsettled(cluster, count)


def unsettled(cluster: Cluster, count: int) -> str:
    """What is not yet as wanted; empty when all is."""
    if not all(process.up for process in cluster.processes):
        return "somebody is down"
    state = cluster.frameworks["services"].core._core.state  # type: ignore[attr-defined]
    if "/web" not in state.apps:
        return "the app is lost"
    running = cluster.running()
    instances = sorted(task_id_of(i) for i in state.apps["/web"].instances.values())
    agents = [agent.core.state for agent in cluster.agents.values()]  # type: ignore[attr-defined]
    told = sorted(task.info.task_id for one in agents for task in one.tasks.values())
    entries = [a.tasks for a in cluster.master.core.state.agents.values()]  # type: ignore[attr-defined]
    known = sorted(task_id for tasks in entries for _, task_id in tasks)
    if not running == instances == told == known:
        return f"running {running}, framework {instances}, agents {told}, master {known}"
    if len(running) != count:
        return f"{count} wanted, {len(running)} run"
    conditions = {str(i.condition) for i in state.apps["/web"].instances.values()}
    if conditions != {"Running"}:
        return f"conditions {conditions}"
    return f"deployments {sorted(state.deployments)}" if state.deployments else ""


@lru_cache(maxsize=1)
def points() -> dict[str, int]:
    return {process.name: process.points for process in live().processes}


@pytest.mark.parametrize("victim", ["master", "agent1", "agent2", "services"])
def test_a_crash_at_any_step_loses_no_app_and_doubles_no_instance(victim: str) -> None:
    many = points()[victim]
    assert many > 50
    for point in range(1, many + 1):
        cluster = live(victim, point)
        assert len(cluster.world.processes[victim].crashed_at) == 1, f"{victim} did not come to step {point}"


def test_a_life_without_faults_replaces_what_fails_and_what_is_restarted() -> None:
    cluster = live()
    assert len(cluster.running()) == 2
    codes = [exit.code for exit in cluster.ledger.exits().values()]
    assert codes.count(3) == 1
