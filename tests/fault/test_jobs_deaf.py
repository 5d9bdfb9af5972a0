"""A master that has lost what a framework wants, and says nothing of it: jobs are not queued for ever.

So it was with leaders that came back as zombies: the framework was registered, its wants were not. The framework
notices that it hears neither yes nor why not, and subscribes anew. Source: Chronos' contract, section 7, fault 2.
"""

from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from corral.frameworks import batch, cron
from corral.frameworks.batch.spec import JobSpec, Submit
from corral.frameworks.cron.chronos import read_job
from corral.frameworks.cron.spec import PutJob
from corral.master.spec import SchedulerCall
from corral.model import calls
from corral.model.resources import add, scalar
from corral.runtime.core import Core, Reply
from corral.sdk.patience import LOOK_S
from corral.sdk.scheduler import LEAST_UNHEARD_S, Session
from corral.sim.cluster import NODE, Cluster
from corral.sim.containers import Behaviour

PATIENT_S = LOOK_S + LEAST_UNHEARD_S


def make(package: Any) -> Callable[[Random], Core]:
    def build(random: Random) -> Core:
        framework = package.build(package.Config(), random)
        return Session(framework.info, framework.core, random)

    return build


def lose_wants(cluster: Cluster) -> list[calls.Subscribe]:
    """The master no longer hears what is wanted, until it is subscribed to anew; returns the subscriptions since."""
    core = cluster.master.core
    handle = core.handle
    again: list[calls.Subscribe] = []

    class Deaf:
        def __getattr__(self, name: str) -> Any:
            return getattr(core, name)

        def handle(self, input: Any, now: float) -> Any:
            command = getattr(input, "command", None)
            call = getattr(command, "call", None)
            if isinstance(call, calls.Subscribe):
                again.append(call)
            if isinstance(command, SchedulerCall) and isinstance(call, calls.Request) and not again:
                return [Reply(input.ask)]
            return handle(input, now)

    cluster.master._decider.core = Deaf()  # type: ignore[attr-defined]
    return again


@pytest.mark.parametrize("name", ["cron", "batch"])
def test_what_a_master_says_nothing_of_runs_after_a_while_by_itself(name: str) -> None:
    package = {"cron": cron, "batch": batch}[name]
    cluster = Cluster(
        5, {name: make(package)}, agents=2, behave=lambda execution: Behaviour(run_s=1.0),
        node=add(NODE, (scalar("disk", 4096.0),)),
    )  # fmt: skip
    cluster.start()
    cluster.run(5.0)
    again = lose_wants(cluster)
    if name == "cron":
        body = {"name": "a", "command": "true", "cpus": 0.5, "mem": 64, "disk": 1, "schedule": "R1//PT1H"}
        cluster.ask(name, PutJob(spec=read_job(body).spec))
    else:
        cluster.ask(name, Submit(jobs=(JobSpec(command="true"),), check=False))
    cluster.run(PATIENT_S - 10.0)
    assert not again
    assert not cluster.ledger.runs, "the master is given time"
    assert cluster.run(30.0, lambda: bool(cluster.ledger.exits()))
    assert len(again) == 1
    assert again[0].info.id is not None, "it is the same framework as before"
    cluster.run(600.0)
    assert len(again) == 1, "what is heard of needs no further subscription"
    assert len(cluster.ledger.runs) == 1
