"""The batch framework through a crash of anybody at every step of submitting, launching, retrying and ending.

Whatever crashes, and wherever: what was answered for is there and ends; a repeated request makes nothing twice; under
at-least-once every job ends well; under at-most-once no attempt is started twice; no two launches share a token.
The person who asks repeats a request until it is answered, under one key.
"""

from collections import Counter
from functools import lru_cache
from random import Random

import msgspec
import pytest

from corral.frameworks.batch import Config, build
from corral.frameworks.batch.spec import TERMINAL, Delivery, JobSpec, JobState, Submit
from corral.frameworks.batch.state import Job, State
from corral.model.execution import Execution
from corral.runtime.core import Core
from corral.sdk.scheduler import Session
from corral.sim.cluster import Cluster
from corral.sim.containers import Behaviour

SETTLE_S = 900.0
DELIVERIES = (Delivery.AT_LEAST_ONCE, Delivery.AT_MOST_ONCE)


def make_batch(random: Random) -> Core:
    framework = build(Config(unreachable_timeout_s=60.0, bundle=3), random)
    return Session(framework.info, framework.core, random)


class Flaky:
    """Runs end well after a moment, but for the first attempt of one job, which fails."""

    def __init__(self) -> None:
        self.failed = False

    def __call__(self, execution: Execution) -> Behaviour:
        if "fails first" in str(execution.argv) and not self.failed:
            self.failed = True
            return Behaviour(run_s=0.5, code=3)
        return Behaviour(run_s=1.0)


def jobs_of(delivery: Delivery) -> tuple[JobSpec, ...]:
    """Plain jobs, one that is retried, an array of two at once."""
    shared = {"cpus": 0.5, "mem": 64.0, "delivery": delivery}
    return msgspec.convert(
        [
            {"command": "one", **shared},
            {"command": "fails first", "retries": 1, **shared},
            {"command": "urgent", "priority": 60, **shared},
            {"command": "many", "array": {"count": 3, "max_running": 2}, **shared},
        ],
        tuple[JobSpec, ...],
    )


def live(delivery: Delivery, victim: str | None = None, point: int | None = None) -> Cluster:
    cluster = Cluster(7, {"batch": make_batch}, agents=2, behave=Flaky())
    for process in cluster.processes:
        process.revive = True
    if victim is not None:
        cluster.world.processes[victim].crash_at = point
    cluster.start()
    command = Submit(jobs=jobs_of(delivery), key="the request", digest="d", check=False)
    found = cluster.ask("batch", command)
    again = cluster.ask("batch", command)
    assert again.ids == found.ids, "a repeated request made something new"
    assert cluster.run(SETTLE_S, lambda: not unsettled(cluster, found.ids)), unsettled(cluster, found.ids)
    check(cluster, delivery, found.ids, crashed=victim is not None)
    return cluster


def state_of(cluster: Cluster) -> State:
    state: State = cluster.frameworks["batch"].core._core.state  # type: ignore[attr-defined]
    return state


def unsettled(cluster: Cluster, ids: tuple[str, ...]) -> str:
    """What is not yet over; empty when all is."""
    if not all(process.up for process in cluster.processes):
        return "somebody is down"
    state = state_of(cluster)
    for job_id in ids:
        job = state.find(job_id)
        if job is None:
            return f"job {job_id} is lost"
        if job.state not in TERMINAL:
            return f"job {job_id} is {job.state}: {job.run}"
    return "tasks still run" if cluster.running() else ""


def check(cluster: Cluster, delivery: Delivery, ids: tuple[str, ...], *, crashed: bool) -> None:
    state = state_of(cluster)
    state.invariants()
    assert len([job for job in state.all_jobs() if job.element is None]) == len(ids)
    ran = [task_id for _, task_id in cluster.ledger.runs]
    if delivery is Delivery.AT_LEAST_ONCE or not crashed:
        assert all(job.state is JobState.SUCCEEDED for job in state.all_jobs()), [str(j.run) for j in state.all_jobs()]
    else:
        starts = Counter(task_id.rpartition(".")[0] for task_id in ran)
        retried = ids[1]
        assert starts.pop(retried, 0) <= 2, "more attempts than one retry allows"
        assert max(starts.values()) == 1, f"something was started twice: {starts}"
    assert len(set(ran)) == len(ran), "one attempt was started twice"
    for job in state.all_jobs():
        assert_tokens_grow(job)
    assert state.counts[JobState.QUEUED] == 0
    if not crashed:
        assert len(ran) == 7


def assert_tokens_grow(job: Job) -> None:
    run = job.run
    if run is not None and run.attempt:
        assert run.token >= run.attempt, "a token was used twice"


@lru_cache(maxsize=2)
def points(delivery: Delivery) -> dict[str, int]:
    return {process.name: process.points for process in live(delivery).processes}


ALWAYS = (
    ("batch", Delivery.AT_LEAST_ONCE), ("batch", Delivery.AT_MOST_ONCE), ("master", Delivery.AT_LEAST_ONCE),
    ("agent1", Delivery.AT_MOST_ONCE),
)  # fmt: skip
AT_LEISURE = (
    ("master", Delivery.AT_MOST_ONCE), ("agent1", Delivery.AT_LEAST_ONCE), ("agent2", Delivery.AT_LEAST_ONCE),
    ("agent2", Delivery.AT_MOST_ONCE),
)  # fmt: skip


@pytest.mark.parametrize(
    ("victim", "delivery"), [*ALWAYS, *(pytest.param(*pair, marks=pytest.mark.slow) for pair in AT_LEISURE)]
)
def test_a_crash_at_any_step_of_submitting_launching_and_ending_keeps_the_rules(
    victim: str, delivery: Delivery
) -> None:  # fmt: skip
    many = points(delivery)[victim]
    assert many > 20
    for point in range(1, many + 1):
        cluster = live(delivery, victim, point)
        crashes = len(cluster.world.processes[victim].crashed_at)
        assert crashes == 1, f"{victim} did not come to step {point}"


@pytest.mark.parametrize("delivery", DELIVERIES)
def test_a_batch_without_faults_runs_every_job_as_often_as_it_should(delivery: Delivery) -> None:
    live(delivery)
