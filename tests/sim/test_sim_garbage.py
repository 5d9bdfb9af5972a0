"""What ends is freed at once: nothing that a daemon does over and over may wait for the garbage collector.

A busy daemon hardly ever has it look at what is old (`runtime.service.relax_collector`), so whatever an ended task is a
cycle of would stay in memory for hours, as if it were needed.
"""

import gc
from collections import Counter
from collections.abc import Callable
from random import Random

import pytest

from corral.frameworks import batch, cron, services
from corral.frameworks.batch.spec import JobSpec, Submit
from corral.frameworks.cron.chronos import read_job
from corral.frameworks.cron.spec import PutJob
from corral.frameworks.services.app_spec import AppSpec
from corral.frameworks.services.command_spec import AppUpdate, RestartApp, UpdateApps
from corral.model.execution import Execution
from corral.model.resources import add, scalar
from corral.runtime.core import Core
from corral.sdk.framework import Framework
from corral.sdk.scheduler import Session
from corral.sim.cluster import NODE, Cluster
from corral.sim.containers import Behaviour


def submit_jobs(cluster: Cluster) -> None:
    jobs = tuple(JobSpec(command=f"work {n}", cpus=0.1, mem=16.0, retries=1) for n in range(20))
    cluster.ask("batch", Submit(jobs=jobs, check=False))


def put_jobs(cluster: Cluster) -> None:
    body = {"command": "true", "cpus": 0.1, "mem": 16, "disk": 1, "retries": 1, "retryDelay": 1}
    cluster.ask("cron", PutJob(spec=read_job({**body, "name": "root", "schedule": "R20//PT2S"}).spec))
    cluster.ask("cron", PutJob(spec=read_job({**body, "name": "child", "parents": ["root"]}).spec))


def change_apps(cluster: Cluster) -> None:
    spec = AppSpec(id="/a", cmd="serve", instances=5, cpus=0.1, mem_mb=16.0)
    update = AppUpdate(id="/a", spec=spec, given=("cmd", "instances", "cpus", "mem_mb"))
    cluster.ask("services", UpdateApps(updates=(update,), force=True, single=True))
    cluster.run(5.0)
    cluster.ask("services", RestartApp(id="/a", force=True))


@pytest.mark.parametrize(
    ("name", "build", "work"),
    [
        ("batch", lambda random: batch.build(batch.Config(), random), submit_jobs),
        ("cron", lambda random: cron.build(cron.Config(), random), put_jobs),
        ("services", lambda random: services.build(services.Config(), random), change_apps),
    ],
)
def test_what_has_ended_leaves_nothing_for_the_collector(
    name: str, build: Callable[[Random], Framework], work: Callable[[Cluster], None]
) -> None:
    ended: list[Execution] = []

    def behave(execution: Execution) -> Behaviour:
        ended.append(execution)
        return Behaviour(run_s=1.0, code=len(ended) % 5 == 0)

    def make(random: Random) -> Core:
        framework = build(random)
        return Session(framework.info, framework.core, random)

    node = add(NODE, (scalar("disk", 4096.0),))
    cluster = Cluster(1, {name: make}, agents=2, behave=behave, node=node)
    cluster.start()
    cluster.run(2.0)
    work(cluster)
    cluster.run(20.0)
    gc.collect()
    gc.disable()
    try:
        before = len(ended)
        work(cluster)
        cluster.run(20.0)
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        found = Counter(type(each).__qualname__ for each in gc.garbage)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert len(ended) > before + 4, "nothing has run meanwhile"
    assert not found, found.most_common(10)
