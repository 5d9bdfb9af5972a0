"""One ordered stream of updates per task, told until it is acknowledged."""

from agent_driver import FRAMEWORK, Driver, make_task

from corral.agent import effects as fx
from corral.agent.spec import Disconnected
from corral.model.ids import TaskId
from corral.model.orders import AcknowledgeUpdate, UpdateTask
from corral.model.task import TaskState
from corral.runtime.core import Persist, persists


def told_at(agent: Driver, seconds: float, step: float = 1.0) -> list[float]:
    """When updates are told within the time to come."""
    start, found = agent.now, []
    while agent.now < start + seconds:
        agent.wait(step)
        found += [agent.now - start for status in agent.statuses() if status.state is TaskState.STARTING]
    return found


def test_an_update_is_told_again_after_10_s_doubling_up_to_10_min(agent: Driver) -> None:
    agent.launch(make_task())
    assert told_at(agent, 2000.0, 10.0) == [10.0, 30.0, 70.0, 150.0, 310.0, 630.0, 1230.0, 1830.0]


def test_a_retried_update_is_the_same_update(agent: Driver) -> None:
    agent.launch(make_task())
    first = agent.status()
    agent.wait(10.0)
    assert agent.status() == first


def test_an_update_is_on_disk_before_it_is_told(agent: Driver) -> None:
    agent.launch(make_task())
    agent.started()
    kinds = [type(e) for e in agent.effects]
    assert kinds.index(Persist) < kinds.index(fx.Send)
    (saved,) = persists(agent.effects)
    assert [s.state for s in saved.record.pending] == [TaskState.STARTING, TaskState.RUNNING]  # type: ignore[union-attr]
    agent.acknowledge()
    (saved,) = persists(agent.effects)
    assert [s.state for s in saved.record.pending] == [TaskState.RUNNING]  # type: ignore[union-attr]


def test_only_the_oldest_update_is_told_again(agent: Driver) -> None:
    agent.launch(make_task())
    agent.started()
    agent.wait(10.0)
    assert agent.status().state is TaskState.STARTING


def test_the_retry_starts_anew_with_the_next_update(agent: Driver) -> None:
    agent.launch(make_task())
    agent.started()
    agent.wait(35.0)
    agent.acknowledge()
    agent.wait(9.0)
    assert agent.statuses() == []
    agent.wait(1.0)
    assert agent.status().state is TaskState.RUNNING


def test_an_acknowledgement_of_anything_but_the_head_changes_nothing(agent: Driver) -> None:
    agent.launch(make_task())
    agent.started()
    later = agent.task().pending[1].uuid
    assert later is not None
    for uuid in (later, b"0" * 16):
        agent.order(AcknowledgeUpdate(agent.epoch, FRAMEWORK, TaskId("t1"), uuid))
        assert agent.effects == []
    first = agent.task().pending[0].uuid
    assert first is not None
    agent.order(AcknowledgeUpdate(agent.epoch, FRAMEWORK, TaskId("t1"), first))
    agent.order(AcknowledgeUpdate(agent.epoch, FRAMEWORK, TaskId("t1"), first))
    assert agent.effects == []
    agent.order(AcknowledgeUpdate(agent.epoch, FRAMEWORK, TaskId("gone"), first))
    assert agent.effects == []


def test_without_a_master_updates_are_kept_and_told_at_once_when_it_is_back(agent: Driver) -> None:
    agent.run(make_task("t1"))
    agent.run(make_task("t2"))
    agent.tell(Disconnected("s1", "the master was stopped"))
    agent.exit("t1", code=0)
    agent.exit("t2", code=1)
    assert agent.none(fx.Send)
    agent.wait(3600.0)
    assert agent.none(fx.Send)
    agent.register()
    assert [(s.task_id, s.state) for s in agent.statuses()] == [("t1", TaskState.FINISHED), ("t2", TaskState.FAILED)]


def test_every_update_has_a_uuid_of_its_own(agent: Driver) -> None:
    seen = set()
    for n in range(20):
        agent.launch(make_task(f"t{n}"))
        agent.started(f"t{n}")
        agent.exit(f"t{n}", code=0)
        seen |= {s.uuid for s in agent.task(f"t{n}").pending}
    assert len(seen) == 60


def test_nothing_follows_a_terminal_update(agent: Driver) -> None:
    agent.run(make_task())
    agent.exit(code=0)
    for again in (lambda: agent.exit(code=1), agent.started, agent.kill):
        again()
        assert agent.none(fx.Send, Persist)
    assert [s.state for s in agent.task().pending] == [TaskState.FINISHED]


def test_reports_of_updates_name_the_framework(agent: Driver) -> None:
    agent.launch(make_task())
    report = agent.one(fx.Send).report
    assert isinstance(report, UpdateTask)
    assert report.framework_id == FRAMEWORK
