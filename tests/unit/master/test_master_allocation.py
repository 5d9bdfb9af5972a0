"""Allocation runs of the master: bounded, so that nobody waits long while a crowd is served."""

from master_stage import Stage, want

from corral.master.spec import GetExplanations, MasterConfig
from corral.master.timers import ALLOCATE
from corral.model import events
from corral.runtime.core import Tick


def test_a_crowd_is_served_in_several_runs_and_only_the_last_says_what_waits() -> None:
    stage = Stage(MasterConfig(least_refuse_s=0.0, most_grants=3))
    stage.agent(cpus=8)
    framework = stage.framework(suppressed_roles=("*",), failover_timeout_s=1e6)
    framework.want(want("w1", 10))
    sizes = []
    while ALLOCATE in stage.timers:
        del stage.timers[ALLOCATE]
        stage.give(Tick(ALLOCATE))
        sizes.append(sum(len(event.offers) for event in framework.take(events.Offers)))
        explained = stage.ask(GetExplanations())["explanations"]
        assert bool(explained) == (sum(sizes) == 8)
    assert sizes == [3, 3, 2]
    assert [each["waiting"] for each in explained] == [2]
