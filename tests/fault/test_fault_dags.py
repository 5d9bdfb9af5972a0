"""Runs of DAGs through a crash of anybody at every step: each step succeeds once, nothing is left behind."""

from collections import Counter
from functools import lru_cache
from random import Random

import pytest

from corral.frameworks.cron import Config, build
from corral.frameworks.cron.dags.dialect import read_dag
from corral.frameworks.cron.dags.spec import DagState, Outcome, PutDag, StartDag
from corral.frameworks.cron.state import State
from corral.model.execution import Execution
from corral.model.resources import add, scalar
from corral.runtime.core import Core
from corral.sdk.scheduler import Session
from corral.sim.cluster import NODE as PLAIN_NODE
from corral.sim.cluster import Cluster
from corral.sim.containers import Behaviour

NODE = add(PLAIN_NODE, (scalar("disk", 4096.0),))
SETTLE_S = 900.0
WORK = {"cpus": 0.5, "mem": 64, "disk": 1, "retries": 1}
STEPS = [
    {"name": "list", "command": "list", "result": True, **WORK},
    {"name": "each", "command": "each", "after": ["list"], "array": {"from": "list", "maxRunning": 2}, **WORK},
    {"name": "join", "command": "join", "after": ["each"], **WORK},
    {"name": "alarm", "command": "alarm", "after": ["each"], "when": "failure", **WORK},
]


def make_cron(random: Random) -> Core:
    framework = build(Config(retry_delay_s=2.0, unreachable_timeout_s=60.0), random)
    return Session(framework.info, framework.core, random)


def behave(execution: Execution) -> Behaviour:
    return Behaviour(run_s=1.0, result=b'["x", "y", "z"]' if ".list@" in execution.task_id else None)


def state_of(cluster: Cluster) -> State:
    state: State = cluster.frameworks["cron"].core._core.state  # type: ignore[attr-defined]
    return state


def live(victim: str | None = None, point: int | None = None) -> Cluster:
    """The life: one run of a list, an array over what it lists, a join, and an alarm that never rings."""
    cluster = Cluster(11, {"cron": make_cron}, agents=2, behave=behave, node=NODE)
    for process in cluster.processes:
        process.revive = True
    if victim is not None:
        cluster.world.processes[victim].crash_at = point
    cluster.start()
    cluster.ask("cron", PutDag(spec=read_dag({"name": "etl", "steps": STEPS})))
    cluster.ask("cron", StartDag(name="etl", key="once"))
    assert cluster.run(SETTLE_S, lambda: is_over(cluster)), "the run does not come to its end"
    state = state_of(cluster)
    state.invariants()
    (run,) = state.dags.runs["etl"].values()
    assert run.state is DagState.SUCCEEDED, run.why
    ends = state.dags.ends[run.id]
    counted = {step: Counter(end.outcome for end in found.values()) for step, found in ends.items()}
    once = Counter({Outcome.SUCCEEDED: 1})
    assert counted == {"list": once, "each": Counter({Outcome.SUCCEEDED: 3}), "join": once}
    assert not cluster.running()
    return cluster


def is_over(cluster: Cluster) -> bool:
    if not all(process.up for process in cluster.processes):
        return False
    state = state_of(cluster)
    unfinished = any(job.runs for job in state.jobs.values())
    return "etl" in state.dags.runs and not state.dags.works and not unfinished


@lru_cache(maxsize=1)
def points() -> dict[str, int]:
    return {process.name: process.points for process in live().processes}


@pytest.mark.parametrize("victim", ["master", "agent1", pytest.param("agent2", marks=pytest.mark.slow), "cron"])
def test_a_crash_at_any_step_of_a_dag_loses_no_step_and_repeats_no_success(victim: str) -> None:
    many = points()[victim]
    assert many > 30
    for point in range(1, many + 1):
        cluster = live(victim, point)
        assert len(cluster.world.processes[victim].crashed_at) == 1, f"{victim} did not come to step {point}"
