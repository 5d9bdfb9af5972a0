"""How long a run of the allocator takes is measured where somebody gave a stopwatch, and decides nothing."""

from itertools import count

from master_stage import Stage, agent_info, want

from corral.master.numbers import metrics

NAME = "allocator/mesos/allocation_run_ms"


def offered(stage: Stage) -> list[str]:
    stage.agent(agent_info("h", cpus=16))
    framework = stage.framework(suppressed_roles=("*",))
    framework.want(want("w", 3))
    return [offer.id for offer in framework.offers()]


def test_each_run_is_measured_and_offers_are_the_same() -> None:
    measured, plain = Stage(), Stage()
    ticks = count()
    measured.core.state.stopwatch = lambda: next(ticks) * 0.25
    assert offered(measured) == offered(plain)
    found = metrics(measured.core.state, measured.now)
    assert found[f"{NAME}/count"] == found["allocator/mesos/allocation_runs"] > 0
    assert (found[NAME], found[f"{NAME}/p99"]) == (250.0, 250.0)
    assert metrics(plain.core.state, plain.now)[f"{NAME}/count"] == 0
