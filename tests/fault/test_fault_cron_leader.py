"""A leader that dies in the middle of a cron firing, at each step of it, and its frameworks with it; another leads.

The job fires once. Whatever the step: its occurrence comes to an end, an attempt never starts twice, and a job that
may run at most once has run at most once.
"""

from collections import Counter
from datetime import UTC
from functools import lru_cache
from random import Random

import pytest

from corral.frameworks.cron import Config, build
from corral.frameworks.cron.chronos import read_job
from corral.frameworks.cron.schedule import write_moment
from corral.frameworks.cron.spec import PutJob, Result
from corral.frameworks.cron.state import State
from corral.model.resources import add, scalar
from corral.runtime.core import Core
from corral.sdk.scheduler import Session
from corral.sim.cluster import NODE, Cluster
from corral.sim.containers import Behaviour
from corral.sim.world import Process

DELIVERIES = ("at-least-once", "at-most-once")
FIRES_S = 5.0


def make_cron(random: Random) -> Core:
    framework = build(Config(retry_delay_s=2.0, unreachable_timeout_s=30.0), random)
    return Session(framework.info, framework.core, random)


def state_of(cluster: Cluster) -> State:
    state: State = cluster.frameworks["cron"].core._core.state  # type: ignore[attr-defined]
    return state


def begin(delivery: str) -> Cluster:
    """A cluster of three masters with the job, a moment before it fires."""
    cluster = Cluster(
        11, {"cron": make_cron}, agents=2, masters=3, lease_ttl_s=2.0, behave=lambda execution: Behaviour(run_s=1.0),
        node=add(NODE, (scalar("disk", 4096.0),)),
    )  # fmt: skip
    cluster.frameworks["cron"].revive = True
    cluster.start()
    start = write_moment(int((cluster.world.now + FIRES_S) * 1000), UTC)
    body = {
        "name": "nightly", "command": "true", "cpus": 0.5, "mem": 64, "disk": 1, "delivery": delivery, "retries": 5,
        "schedule": f"R1/{start}/PT1H",
    }  # fmt: skip
    cluster.ask("cron", PutJob(spec=read_job(body).spec))
    cluster.run(FIRES_S - 0.1 - (cluster.world.now - 1_700_000_000.0))
    return cluster


def over(cluster: Cluster) -> bool:
    if not all(process.up for process in cluster.processes):
        return False
    job = state_of(cluster).jobs["nightly"]
    return not job.runs and not job.items and job.progress.left == 0 and not cluster.running()


def find_process(cluster: Cluster, victim: str) -> Process:
    return cluster.master if victim == "master" else cluster.frameworks[victim]


@lru_cache
def steps(delivery: str, victim: str) -> range:
    """The points of a process from the firing to the end of all, when nobody dies."""
    cluster = begin(delivery)
    process = find_process(cluster, victim)
    first = process.points + 1
    assert cluster.run(60.0, lambda: over(cluster))
    assert {e.result for e in state_of(cluster).jobs["nightly"].history if e.final} == {Result.SUCCESS}
    return range(first, process.points + 1)


def die_at(delivery: str, victim: str, point: int) -> None:
    cluster = begin(delivery)
    process = find_process(cluster, victim)
    other = cluster.frameworks["cron"] if victim == "master" else cluster.master
    process.crash_hooks.append(lambda: other.crash("with its leader"))
    process.crash_at = point
    assert cluster.run(600.0, lambda: over(cluster)), f"step {point}: {state_of(cluster).jobs['nightly'].runs}"
    assert len(process.crashed_at) == 1, f"step {point} was not reached"
    assert cluster.frameworks["cron"].incarnation == 2
    assert sum(master.incarnation for master in cluster.masters) == 2
    state_of(cluster).invariants()
    history = [e for e in state_of(cluster).jobs["nightly"].history if e.cause == "schedule"]
    final = [e for e in history if e.final]
    assert len(final) == 1, f"step {point}: the occurrence ended {len(final)} times"
    started = [task_id for _, task_id in cluster.ledger.runs]
    attempts = Counter(task_id.rpartition(":")[0] for task_id in started)
    if delivery == "at-least-once":
        assert final[0].result is Result.SUCCESS, f"step {point}: {final}"
    else:
        assert len(started) <= 1, f"step {point}: {attempts}"
        assert final[0].result is Result.SUCCESS or not started or final[0].result is Result.LOST, f"{point}: {final}"


@pytest.mark.parametrize("delivery", DELIVERIES)
@pytest.mark.parametrize("victim", ["cron", "master"])
def test_a_firing_survives_its_leader_at_each_of_its_steps(victim: str, delivery: str) -> None:
    found = steps(delivery, victim)
    assert len(found) > 15
    for point in found:
        die_at(delivery, victim, point)
