"""A day of a batch cluster, made short: jobs by the hundred, some failing first, a leader that dies again and again.

`CORRAL_BATCH_JOBS=3000000` runs a whole day of a large video site, which takes long. A failing seed runs alone with
`CORRAL_SEED=N`.
"""

import os
from collections import Counter
from random import Random

import pytest

from corral.frameworks.batch import Config, build
from corral.frameworks.batch.spec import TERMINAL, Delivery, JobSpec, JobState, Submit
from corral.frameworks.batch.state import State
from corral.model.execution import Execution
from corral.runtime.core import Core
from corral.sdk.scheduler import Session
from corral.sim.cluster import Cluster
from corral.sim.containers import Behaviour

SEED = int(os.environ.get("CORRAL_SEED", "1"))
JOBS = int(os.environ.get("CORRAL_BATCH_JOBS", "240"))
DEATHS = 4
SETTLE_S = 3600.0


def make_batch(random: Random) -> Core:
    framework = build(Config(unreachable_timeout_s=60.0), random)
    return Session(framework.info, framework.core, random)


def behave(execution: Execution) -> Behaviour:
    """One in twenty fails at its first attempt."""
    job_id, _, attempt = execution.task_id.rpartition(".")
    fails = attempt == "1" and sum(map(ord, job_id)) % 20 == 0
    return Behaviour(run_s=1.0 + sum(map(ord, job_id)) % 7, code=1 if fails else 0)


def state_of(cluster: Cluster) -> State:
    state: State = cluster.frameworks["batch"].core._core.state  # type: ignore[attr-defined]
    return state


def start_ended(cluster: Cluster) -> None:
    """As a service manager does: a process that ends, since another seemed to have taken over, comes back."""
    for process in cluster.processes:
        if process.exit_code is not None:
            process.start()


@pytest.mark.parametrize("delivery", list(Delivery))
def test_no_job_is_lost_and_none_is_doubled_though_leaders_die(delivery: Delivery) -> None:
    cluster = Cluster(SEED, {"batch": make_batch}, agents=4, behave=behave)
    for process in cluster.processes:
        process.revive = True
    cluster.start()
    ids: list[str] = []
    for part in range(DEATHS + 1):
        spec = JobSpec(command="true", cpus=0.2, mem=16.0, retries=2, delivery=delivery, ttl=7 * 86_400)
        count = JOBS // (DEATHS + 1)
        command = Submit(jobs=(spec,) * count, key=f"part {part}", digest=str(part), check=False)
        start_ended(cluster)
        ids += cluster.ask("batch", command).ids
        # The middle of the part's work is when its leader dies: master and framework die together.
        cluster.run(6.0)
        if part < DEATHS:
            for name in ("master", "batch"):
                victim = cluster.world.processes[name]
                victim.crash_at = victim.points + 1 + part * 7
        cluster.run(60.0)

    def over() -> bool:
        if not all(process.up for process in cluster.processes):
            return False
        jobs = [state_of(cluster).find(job_id) for job_id in ids]
        return all(job is not None and job.state in TERMINAL for job in jobs)

    start_ended(cluster)
    assert cluster.run(SETTLE_S, over), state_of(cluster).counts
    state = state_of(cluster)
    state.invariants()
    assert len(set(ids)) == len(ids)
    assert sum(len(cluster.world.processes[name].crashed_at) for name in ("master", "batch")) >= DEATHS
    ran = [task_id for _, task_id in cluster.ledger.runs]
    assert len(ran) == len(set(ran)), "one attempt was started twice"
    found = Counter(job.state for job in state.all_jobs())
    if delivery is Delivery.AT_LEAST_ONCE:
        assert found == {JobState.SUCCEEDED: len(ids)}
        return
    for job in state.all_jobs():
        assert job.run is not None
        if job.state is not JobState.SUCCEEDED:
            assert "at most once" in job.run.reason, job.run
