"""Which sandboxes are deleted, and when."""

import pytest
from agent_driver import Driver, make_task

from corral.agent import effects as fx
from corral.agent.gc import allowed_age_s
from corral.agent.spec import DiskMeasured, Sandbox, Scanned
from corral.model.ids import ContainerId

WEEK = 604_800.0


def old(name: str, at: float) -> Sandbox:
    return Sandbox(f"/s/{name}", ContainerId(name), at)


def deleted(agent: Driver, usage: float) -> list[str]:
    agent.tell(DiskMeasured(usage))
    return [e.path for e in agent.all(fx.DeleteSandbox)]


@pytest.mark.parametrize(("usage", "age_s"), [(0.0, 0.9 * WEEK), (0.4, 0.5 * WEEK), (0.9, 0.0), (0.97, 0.0)])
def test_the_fuller_the_disk_the_shorter_sandboxes_are_kept(agent: Driver, usage: float, age_s: float) -> None:
    assert allowed_age_s(agent.core.state, usage) == pytest.approx(age_s)


def test_the_sandbox_of_an_ended_task_is_deleted_after_its_age(agent: Driver) -> None:
    agent.run(make_task())
    sandbox = agent.task().sandbox
    agent.exit(code=0)
    agent.acknowledge_all()
    agent.now += 0.8 * WEEK
    assert deleted(agent, 0.0) == []
    agent.now += 0.11 * WEEK
    assert deleted(agent, 0.0) == [sandbox]
    assert deleted(agent, 1.0) == []


def test_the_sandbox_of_a_live_task_is_never_deleted(agent: Driver) -> None:
    agent.run(make_task())
    task = agent.task()
    agent.tell(Scanned((Sandbox(task.sandbox, task.container_id, 1.0),)))
    agent.now += 10 * WEEK
    assert deleted(agent, 1.0) == []


def test_sandboxes_of_an_earlier_agent_go_oldest_first(agent: Driver) -> None:
    agent.run(make_task())
    agent.exit(code=0)
    agent.tell(Scanned((old("b", 20.0), old("a", 10.0), old("c", 30.0))))
    agent.now = 25.0 + WEEK
    assert deleted(agent, 0.0)[:2] == ["/s/a", "/s/b"]


def test_the_disk_is_looked_at_every_minute(agent: Driver) -> None:
    agent.wait(60.0)
    assert agent.one(fx.MeasureDisk)
    agent.tell(DiskMeasured(0.1))
    agent.wait(60.0)
    assert agent.one(fx.MeasureDisk)


def test_many_sandboxes_are_deleted_in_batches(agent: Driver) -> None:
    agent.tell(Scanned(tuple(old(f"{n:03}", float(n)) for n in range(250))))
    assert len(deleted(agent, 1.0)) == 100
    agent.wait(1.0)
    assert agent.one(fx.MeasureDisk)
    assert len(deleted(agent, 1.0)) == 100
    assert len(deleted(agent, 1.0)) == 50


def test_each_deletion_says_why(agent: Driver) -> None:
    agent.tell(Scanned((old("a", 0.0),)))
    agent.tell(DiskMeasured(0.95))
    assert agent.one(fx.DeleteSandbox).why == "its task ended 1000 s ago and the disk is 95% full"
