"""Tasks that are ended when their agent is cut off for too long, by a clock that nobody sets."""

from collections.abc import Callable

import pytest
from agent_driver import AGENT, FRAMEWORK, Driver, make_framework, make_task
from hypothesis import given
from hypothesis import strategies as st

from corral.agent import effects as fx
from corral.agent.spec import ClockRead, ContactRecord, Disconnected
from corral.lib.errors import Invalid
from corral.model.ids import TaskId
from corral.model.orders import Heard, Pong, Registered, RunTask
from corral.model.partition import read_stop_after_s, replace_after_s, stop_after_s
from corral.model.task import Label, Reason, TaskInfo, TaskState
from corral.runtime.core import persists

BOOT = "b1"


def bound(text: str = "60s", task_id: str = "t1") -> TaskInfo:
    return make_task(task_id, labels=(Label(key="corral.stop-after", value=text),), kill_grace_s=2.0)


def clock(agent: Driver, at: float, boot: str = BOOT) -> list[object]:
    return list(agent.tell(ClockRead(at, boot)))


def pongs(agent: Driver) -> list[float | None]:
    return [e.report.at for e in agent.all(fx.Send) if isinstance(e.report, Pong)]


@pytest.fixture
def agent(make_driver: Callable[..., Driver]) -> Driver:
    driver = make_driver()
    driver.recover(runtime="process")
    driver.recover(runtime="docker")
    driver.open()
    driver.order(Registered(1, AGENT, 15.0, (), True))
    return driver


def run(agent: Driver, at: float = 100.0, info: TaskInfo | None = None) -> None:
    """A task with a bound, running, its agent in contact as of `at`."""
    info = info or bound()
    agent.launch(info)
    clock(agent, at)
    agent.order(Heard(1, at))
    agent.started(info.task_id)
    agent.acknowledge_all(info.task_id)


def test_it_starts_only_once_a_master_has_answered(agent: Driver) -> None:
    agent.launch(bound())
    assert agent.none(fx.Start)
    assert agent.one(fx.ReadClock)
    clock(agent, 100.0)
    assert pongs(agent) == [100.0]
    agent.order(Heard(1, 99.5))
    assert agent.none(fx.Start), "an answer to what was said before the order says nothing about it"
    (saved,) = [p.record for p in persists(agent.effects) if p.key == "contact"]
    assert saved == ContactRecord(BOOT, 99.5)
    agent.order(Heard(1, 100.0))
    assert agent.one(fx.Start)


def test_a_stale_order_never_brings_it_up(agent: Driver) -> None:
    agent.launch(bound())
    clock(agent, 100.0)
    agent.tell(Disconnected("s1", "the link had been dead for long"))
    clock(agent, 161.0)
    assert agent.task().state is TaskState.KILLED
    assert agent.none(fx.Start)


def test_it_ends_after_its_bound_without_a_master_and_not_before(agent: Driver) -> None:
    run(agent)
    agent.tell(Disconnected("s1", "cut"))
    clock(agent, 159.9)
    assert agent.none(fx.Kill)
    clock(agent, 160.0)
    kill = agent.one(fx.Kill)
    assert kill.grace_s == 2.0
    agent.exit(signal=15)
    agent.open()
    agent.order(Registered(1, AGENT, 15.0, (), True))
    status = agent.status()
    assert (status.state, status.reason) == (TaskState.KILLED, Reason.AGENT_DISCONNECTED)
    assert "corral.stop-after" in (status.message or "")


def test_a_task_without_a_bound_runs_on_for_ever(agent: Driver) -> None:
    agent.run(make_task("t2"))
    run(agent)
    agent.tell(Disconnected("s1", "cut"))
    clock(agent, 1e9)
    assert [e.container_id for e in agent.all(fx.Kill)] == [agent.task("t1").container_id]


def test_orders_that_arrive_are_no_contact_without_an_answer(agent: Driver) -> None:
    """The way to the master may be cut while the way from it is not."""
    run(agent)
    for at in range(110, 160, 10):
        agent.launch(make_task(f"other{at}"))
        clock(agent, float(at))
    assert agent.none(fx.Kill)
    clock(agent, 160.0)
    assert agent.one(fx.Kill)


def test_contact_counts_from_what_was_said_and_not_from_its_answer(agent: Driver) -> None:
    run(agent)
    clock(agent, 115.0)
    clock(agent, 158.0)
    agent.order(Heard(1, 115.0))
    clock(agent, 174.9)
    assert agent.none(fx.Kill)
    clock(agent, 175.0)
    assert agent.one(fx.Kill)


def test_a_restarted_agent_counts_from_the_contact_before(agent: Driver) -> None:
    run(agent)
    found = agent.found()
    agent.start()
    assert agent.one(fx.ReadClock)
    clock(agent, 130.0)
    agent.recover(found)
    agent.recover(runtime="docker")
    clock(agent, 159.0)
    assert agent.none(fx.Kill)
    clock(agent, 160.0)
    assert agent.one(fx.Kill)


def test_an_agent_that_was_away_for_too_long_ends_it_before_it_looks_for_a_master(agent: Driver) -> None:
    run(agent)
    found = agent.found()
    agent.start()
    clock(agent, 500.0)
    assert agent.none(fx.Kill), "no runtime has said yet what runs"
    agent.recover(found)
    assert agent.one(fx.ReadClock)
    clock(agent, 500.1)
    assert agent.one(fx.Kill)


def test_nothing_is_known_of_the_contact_before_a_boot(agent: Driver) -> None:
    run(agent)
    found = agent.found()
    agent.start()
    agent.recover(found)
    clock(agent, 101.0, boot="b2")
    assert agent.one(fx.Kill)


def test_a_clock_that_is_set_changes_nothing(agent: Driver) -> None:
    run(agent)
    agent.tell(Disconnected("s1", "cut"))
    agent.now += 86_400.0
    clock(agent, 150.0)
    assert agent.none(fx.Kill)
    agent.now -= 10 * 86_400.0
    clock(agent, 160.0)
    assert agent.one(fx.Kill).grace_s == 2.0


def test_contact_is_forgotten_with_the_last_such_task(agent: Driver) -> None:
    run(agent)
    agent.exit(code=0)
    agent.acknowledge_all()
    clock(agent, 120.0)
    assert [p.key for p in persists(agent.effects) if p.record is None] == ["contact"]
    assert "contact" not in agent.records
    assert "cutoff" not in {e.name for e in agent.effects if hasattr(e, "name")}


def test_a_master_of_the_release_before_counts_as_contact_while_it_is_there(make_driver: Callable[..., Driver]) -> None:
    agent = make_driver().ready()
    agent.launch(bound())
    clock(agent, 100.0)
    assert agent.one(fx.Start)
    assert pongs(agent) == []
    agent.started()
    clock(agent, 400.0)
    assert agent.none(fx.Kill)
    agent.tell(Disconnected("s1", "cut"))
    clock(agent, 460.0)
    assert agent.one(fx.Kill)


def test_a_bound_that_cannot_be_read_refuses_the_task(agent: Driver) -> None:
    agent.order(RunTask(1, make_framework(aware=True), "web", bound("soon")))
    status = agent.status()
    assert status.state is TaskState.ERROR
    assert "corral.stop-after" in (status.message or "")
    assert "soon" in (status.message or "")


@pytest.mark.parametrize("text", ["", "0", "-5", "nan", "1y", "31days", "999ms"])
def test_what_is_no_bound_is_said(text: str) -> None:
    with pytest.raises(Invalid, match=r"corral\.stop-after"):
        read_stop_after_s(text)


def test_the_label_is_read_as_durations_are() -> None:
    assert [read_stop_after_s(t) for t in ("60", "90s", "1m30s", "1h")] == [60.0, 90.0, 90.0, 3600.0]
    assert stop_after_s(make_task()) is None


@given(
    stop_s=st.floats(1.0, 1e5), grace_s=st.floats(0.0, 600.0), fast=st.floats(0.99, 1.01),
    said=st.lists(st.floats(0.0, 1e4), min_size=1),
)  # fmt: skip
def test_the_agent_has_ended_it_before_anybody_may_replace_it(
    stop_s: float, grace_s: float, fast: float, said: list[float]
) -> None:
    """Whatever the agent said last that a master answered was said before that master gave it up."""
    last_said = max(said)
    ended_at = last_said + (stop_s + grace_s) * fast
    assert ended_at < last_said + replace_after_s(stop_s, grace_s)


def test_tasks_with_a_bound_are_kept_apart_by_their_ids(agent: Driver) -> None:
    run(agent, info=bound("60s", "t1"))
    run(agent, at=110.0, info=bound("20s", "t2"))
    agent.tell(Disconnected("s1", "cut"))
    clock(agent, 130.0)
    assert [e.container_id for e in agent.all(fx.Kill)] == [agent.task("t2").container_id]
    assert agent.core.state.tasks[FRAMEWORK, TaskId("t1")].ending is None
    clock(agent, 170.0)
    assert [e.container_id for e in agent.all(fx.Kill)] == [agent.task("t1").container_id]


# For those who end it when this agent cannot.


def kept(agent: Driver) -> list[tuple[str, float]]:
    return [(e.boot, e.at) for e in agent.all(fx.KeepContact)]


def test_the_contact_is_kept_for_others_before_anything_starts_on_it(agent: Driver) -> None:
    agent.launch(bound())
    clock(agent, 100.0)
    effects = list(agent.order(Heard(1, 100.0)))
    kinds = [type(effect) for effect in effects]
    assert kinds.index(fx.KeepContact) < kinds.index(fx.Start)
    assert kept(agent)[-1] == (BOOT, 100.0)
    limit = agent.one(fx.Start).execution.bound
    assert limit is not None
    assert (limit.stop_after_s, limit.grace_s, limit.strict) == (60.0, 2.0, True)
    assert limit.contact == f"{agent.core.state.config.work_dir}/contact"


def test_every_answer_moves_the_contact_and_none_moves_it_back(agent: Driver) -> None:
    run(agent)
    clock(agent, 115.0)
    agent.order(Heard(1, 115.0))
    assert kept(agent) == [(BOOT, 115.0)]
    agent.order(Heard(1, 110.0))
    assert kept(agent) == [(BOOT, 115.0)]


def test_a_task_without_a_bound_has_nobody_who_ends_it(agent: Driver) -> None:
    agent.launch(make_task("t2"))
    assert agent.one(fx.Start).execution.bound is None
    assert not agent.all(fx.KeepContact)


def test_an_end_that_others_brought_about_is_told_as_the_agents_own_would_be(agent: Driver) -> None:
    run(agent)
    agent.exit(signal=9, fenced=True, message="no master has heard of the agent for 60 s")
    status = agent.status()
    assert (status.state, status.reason) == (TaskState.KILLED, Reason.AGENT_DISCONNECTED)
    assert status.message == "no master has heard of the agent for 60 s: Command terminated with signal Killed"
