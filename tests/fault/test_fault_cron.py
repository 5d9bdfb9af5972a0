"""The cron framework through a crash of anybody at every step of firing, retrying and joining.

Whatever crashes, and wherever: every scheduled firing that the count allows succeeds, no attempt is started twice
unless the job allows it, every complete round joins once, and nothing is left behind.
The person who asks repeats a command until it is answered.
"""

from collections import Counter
from datetime import UTC
from functools import lru_cache
from random import Random
from typing import Any

import pytest

from corral.frameworks.cron import Config, build
from corral.frameworks.cron.chronos import read_job
from corral.frameworks.cron.schedule import write_moment
from corral.frameworks.cron.spec import PutJob, Result
from corral.frameworks.cron.state import State
from corral.model.execution import Execution
from corral.model.resources import add, scalar
from corral.runtime.core import Core
from corral.sdk.scheduler import Session
from corral.sim.cluster import NODE as PLAIN_NODE
from corral.sim.cluster import Cluster
from corral.sim.containers import Behaviour

FIRINGS = 2
SETTLE_S = 900.0
NODE = add(PLAIN_NODE, (scalar("disk", 4096.0),))
DELIVERIES = ("at-least-once", "at-most-once")


def make_cron(random: Random) -> Core:
    framework = build(Config(retry_delay_s=2.0, unreachable_timeout_s=60.0), random)
    return Session(framework.info, framework.core, random)


class Flaky:
    """Runs end well after a moment, but for the very first one of the job `left`, which fails."""

    def __init__(self) -> None:
        self.failed = False

    def __call__(self, execution: Execution) -> Behaviour:
        if ":left:" in execution.task_id and not self.failed:
            self.failed = True
            return Behaviour(run_s=0.5, code=3)
        return Behaviour(run_s=1.0)


def live(delivery: str, victim: str | None = None, point: int | None = None) -> Cluster:
    """The life: a root that fires twice, two children of which one fails and is retried, and the join of both."""
    cluster = Cluster(7, {"cron": make_cron}, agents=2, behave=Flaky(), node=NODE)
    for process in cluster.processes:
        process.revive = True
    if victim is not None:
        cluster.world.processes[victim].crash_at = point
    cluster.start()
    start = write_moment(int((cluster.world.now + 4.0) * 1000), UTC)
    put(cluster, "root", delivery, schedule=f"R{FIRINGS}/{start}/PT30S")
    put(cluster, "left", delivery, parents=["root"])
    put(cluster, "right", delivery, parents=["root"])
    put(cluster, "join", delivery, parents=["left", "right"])
    assert cluster.run(SETTLE_S, lambda: not unsettled(cluster)), unsettled(cluster)
    check(cluster, delivery, crashed=victim is not None)
    return cluster


def put(cluster: Cluster, name: str, delivery: str, **fields: Any) -> None:
    body = {"name": name, "command": f"echo {name}", "delivery": delivery, "cpus": 0.5, "mem": 64, "disk": 1, **fields}
    cluster.ask("cron", PutJob(spec=read_job(body).spec))


def state_of(cluster: Cluster) -> State:
    state: State = cluster.frameworks["cron"].core._core.state  # type: ignore[attr-defined]
    return state


def unsettled(cluster: Cluster) -> str:
    """What is not yet over; empty when all is."""
    if not all(process.up for process in cluster.processes):
        return "somebody is down"
    state = state_of(cluster)
    missing = {"root", "left", "right", "join"} - set(state.jobs)
    if missing:
        return f"jobs {sorted(missing)} are lost"
    unfinished = [run for job in state.jobs.values() for run in job.runs.values()]
    if unfinished:
        return f"unfinished {unfinished}"
    if state.jobs["root"].progress.left:
        return f"{state.jobs['root'].progress.left} firings are left"
    if not state.jobs["root"].spec.disabled:
        return "the last firing is not yet over"
    waiting = [job.name for job in state.jobs.values() if job.items]
    return f"queued {waiting}" if waiting or state.signals else ""


def rounds(state: State, name: str) -> Counter[str]:
    """The rounds in which a job has succeeded, and how often."""
    return Counter(entry.round for entry in state.jobs[name].history if entry.result is Result.SUCCESS)


def check(cluster: Cluster, delivery: str, *, crashed: bool) -> None:
    state = state_of(cluster)
    state.invariants()
    root = state.jobs["root"]
    lost = [e for job in state.jobs.values() for e in job.history if e.result is Result.LOST]
    if delivery == "at-least-once":
        assert not [e for e in lost if e.final], "a firing was lost"
        assert root.progress.successes == FIRINGS
        assert sum(rounds(state, "left").values()) == sum(rounds(state, "right").values()) == FIRINGS
    else:
        starts = Counter(task_id.rpartition(":")[0] for _, task_id in cluster.ledger.runs)
        assert max(starts.values()) == 1, f"an attempt was started twice: {starts}"
        assert root.progress.successes + root.progress.errors == FIRINGS
        assert crashed or not lost
    both = {r for r in rounds(state, "left") if r in rounds(state, "right")}
    joined = rounds(state, "join")
    lost_joins = {e.round for e in lost if e.job == "join"}
    assert set(joined) | lost_joins == both, f"joined {joined} of {both}"
    assert not joined or max(joined.values()) == 1, f"a round was joined twice: {joined}"
    tokens = [int(task_id.rpartition(":")[2]) for _, task_id in cluster.ledger.runs]
    assert len(set(tokens)) == len(tokens), "two launches have one fencing token"
    assert not cluster.running()


@lru_cache(maxsize=2)
def points(delivery: str) -> dict[str, int]:
    return {process.name: process.points for process in live(delivery).processes}


AGENT2 = pytest.param("agent2", marks=pytest.mark.slow)  # as agent1, with the other half of the runs


@pytest.mark.timeout(300)
@pytest.mark.parametrize("delivery", DELIVERIES)
@pytest.mark.parametrize("victim", ["master", "agent1", AGENT2, "cron"])
def test_a_crash_at_any_step_of_firing_retrying_and_joining_keeps_the_rules(victim: str, delivery: str) -> None:
    many = points(delivery)[victim]
    assert many > 30
    for point in range(1, many + 1):
        cluster = live(delivery, victim, point)
        crashes = len(cluster.world.processes[victim].crashed_at)
        assert crashes == 1, f"{victim} did not come to step {point}"


@pytest.mark.parametrize("delivery", DELIVERIES)
def test_a_life_without_faults_fires_retries_and_joins_as_often_as_it_should(delivery: str) -> None:
    cluster = live(delivery)
    state = state_of(cluster)
    assert [job.progress.successes for _, job in sorted(state.jobs.items())] == [2, 2, 2, 2]
    assert len(cluster.ledger.runs) == 9
    assert [code.code for code in cluster.ledger.exits().values()].count(3) == 1


@pytest.mark.parametrize("delivery", DELIVERIES)
def test_a_node_that_loses_its_power_in_the_middle_of_a_run_is_made_good_or_left_as_promised(delivery: str) -> None:
    cluster = Cluster(3, {"cron": make_cron}, agents=1, behave=lambda execution: Behaviour(run_s=20.0), node=NODE)
    for process in cluster.processes:
        process.revive = True
    cluster.start()
    put(cluster, "root", delivery, schedule="R1//PT1H", retries=1)
    assert cluster.run(30.0, lambda: bool(cluster.running()))
    cluster.reset_node("agent1")
    assert cluster.run(SETTLE_S, lambda: state_of(cluster).jobs["root"].spec.disabled)
    progress = state_of(cluster).jobs["root"].progress
    expected = (1, 0) if delivery == "at-least-once" else (0, 1)
    assert (progress.successes, progress.errors) == expected
    assert len(cluster.ledger.runs) == expected[0] + 1


@pytest.mark.parametrize("delivery", DELIVERIES)
def test_behind_a_partition_a_run_is_doubled_only_where_that_is_allowed_and_with_a_higher_token(delivery: str) -> None:
    cluster = Cluster(5, {"cron": make_cron}, agents=2, behave=lambda execution: Behaviour(run_s=600.0), node=NODE)
    cluster.start()
    put(cluster, "root", delivery, schedule="R1//PT1H", retries=1)
    assert cluster.run(30.0, lambda: bool(cluster.running()))
    (first,) = cluster.running()
    node = next(
        name
        for name, one in cluster.runtimes.items()
        if any(c.runs for r in one.values() for c in r.containers.values())
    )
    cluster.disconnect_all(node)
    cluster.run(200.0)
    running = cluster.running()
    assert first in running, "nobody can have ended what nobody can reach"
    assert len(running) == (2 if delivery == "at-least-once" else 1)
    tokens = sorted(int(task_id.rpartition(":")[2]) for task_id in running)
    assert tokens[0] == int(first.rpartition(":")[2])
    cluster.network.heal()
    assert cluster.run(120.0, lambda: first not in cluster.running())
    assert len(cluster.running()) == len(running) - 1
