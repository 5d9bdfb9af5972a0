"""Every process dies once at every step of a life full of launches, and nothing is lost or doubled.

The steps are counted in a run without faults; then each run kills one process at one of them. A node's containers
outlive its agent, so each task may run once and no more, which the ledger of the simulated runtimes asserts by itself.
"""

from functools import lru_cache
from random import Random

import pytest

from corral.model.execution import Execution
from corral.model.framework import Capability, FrameworkInfo
from corral.model.ids import TaskId
from corral.runtime.core import Core
from corral.sdk.scheduler import Session
from corral.sim.cluster import Cluster
from corral.sim.containers import Behaviour
from corral.sim.keeper import Keep, KeeperCore, Restart

INFO = FrameworkInfo(
    user="root",
    name="keeper",
    failover_timeout_s=3600.0,
    roles=("*",),
    capabilities=(Capability.MULTI_ROLE, Capability.PARTITION_AWARE),
)
SETTLE_S = 240.0


def make_keeper(random: Random) -> Core:
    return Session(INFO, KeeperCore(), random)


def behave(execution: Execution) -> Behaviour:
    """Every fifth task fails after a while, every seventh does not even start."""
    number = int(execution.task_id.rpartition(".")[2])
    if number % 7 == 0:
        return Behaviour(fails="no such image")
    return Behaviour(run_s=1.0, code=1) if number % 5 == 0 else Behaviour()


def live(victim: str | None = None, point: int | None = None, seed: int = 7) -> Cluster:
    """The life: launch four, replace two, let some fail by themselves, shrink to three."""
    cluster = Cluster(seed, {"keeper": make_keeper}, agents=2, behave=behave)
    for process in cluster.processes:
        process.revive = True
    if victim is not None:
        cluster.world.processes[victim].crash_at = point
    cluster.start()
    assert cluster.ask("keeper", Keep(4)) == 4
    assert cluster.run(SETTLE_S, lambda: is_settled(cluster, 4))
    cluster.ask("keeper", Restart(tuple(TaskId(t) for t in cluster.running()[:2])))
    cluster.run(2.0)
    assert cluster.run(SETTLE_S, lambda: is_settled(cluster, 4))
    assert cluster.ask("keeper", Keep(3)) == 3
    assert cluster.run(SETTLE_S, lambda: is_settled(cluster, 3))
    return cluster


def is_settled(cluster: Cluster, count: int) -> bool:
    """Whether so many run, everybody agrees on which, and no end of a task is still untold."""
    if not all(process.up for process in cluster.processes):
        return False
    running = cluster.running()
    if len(running) != count:
        return False
    keeper = cluster.frameworks["keeper"].core._core  # type: ignore[attr-defined]
    kept = sorted(keeper.kept)
    told = sorted(
        task.info.task_id
        for agent in cluster.agents.values()
        for task in agent.core.state.tasks.values()  # type: ignore[attr-defined]
    )
    known = sorted(
        task_id
        for agent in cluster.master.core.state.agents.values()
        for _, task_id in agent.tasks  # type: ignore[attr-defined]
    )
    return running == kept == told == known and all(k.state == "TASK_RUNNING" for k in keeper.kept.values())


@lru_cache(maxsize=1)
def points() -> dict[str, int]:
    """How many steps each process passes in a life without faults."""
    return {process.name: process.points for process in live().processes}


def crash_everywhere(victim: str) -> None:
    many = points()[victim]
    assert many > 50
    for point in range(1, many + 1):
        cluster = live(victim, point)
        process = cluster.world.processes[victim]
        assert len(process.crashed_at) == 1, f"{victim} did not come to step {point}"
        assert process.incarnation == 2


@pytest.mark.parametrize("victim", ["master", "agent1", "agent2", "keeper"])
def test_a_crash_at_any_step_loses_no_task_and_no_exit_and_doubles_nothing(victim: str) -> None:
    crash_everywhere(victim)


def test_a_life_without_faults_runs_every_task_once_and_hears_every_end() -> None:
    cluster = live()
    assert len(cluster.running()) == 3
    ended = {task_id: (exit.code, exit.signal) for task_id, exit in cluster.ledger.exits().items()}
    assert len(ended) >= 3
    assert set(cluster.frameworks["keeper"].core._core.ended) >= set(ended)  # type: ignore[attr-defined]
