"""The agent's side of a session with a master."""

from collections.abc import Callable

from agent_driver import AGENT, FRAMEWORK, Driver, make_framework, make_task

from corral.agent import effects as fx
from corral.agent.spec import Connected, Disconnected, Identity, Ordered, ReadState, RuntimeChecked
from corral.model.ids import AgentId
from corral.model.orders import Ping, Pong, Refused, Register, Registered, RunTask
from corral.model.task import TaskState
from corral.runtime.core import CancelTimer, Persist, SetTimer, persists


def test_the_first_registration_brings_an_id_that_is_kept(make_driver: Callable[..., Driver]) -> None:
    agent = make_driver()
    agent.recover(runtime="process")
    agent.recover(runtime="docker")
    assert agent.one(fx.Connect)
    agent.open()
    report = agent.one(fx.Send).report
    assert isinstance(report, Register)
    assert report.info.id is None
    assert (report.info.runtimes, report.info.unready_runtimes) == (("process", "docker"), ())
    agent.order(Registered(4, AGENT, 15.0))
    (saved,) = persists(agent.effects)
    assert saved.record == Identity(AGENT, 4)
    agent.start()
    agent.recover(runtime="process")
    agent.recover(runtime="docker")
    agent.open()
    report = agent.one(fx.Send).report
    assert isinstance(report, Register)
    assert report.info.id == AGENT


def test_a_registration_tells_every_task_and_its_framework(agent: Driver) -> None:
    agent.run(make_task("t1"))
    agent.launch(make_task("t2"))
    agent.tell(Disconnected("s1", "reset"))
    agent.open()
    report = agent.one(fx.Send).report
    assert isinstance(report, Register)
    assert [(t.info.task_id, t.state, t.role) for t in report.tasks] == [
        ("t1", TaskState.RUNNING, "web"),
        ("t2", TaskState.STARTING, "web"),
    ]
    assert report.tasks[0].status is not None
    assert report.frameworks == (make_framework(),)


def test_frameworks_that_the_master_does_not_want_are_shut_down(agent: Driver) -> None:
    agent.run(make_task())
    agent.open()
    agent.order(Registered(1, AGENT, 15.0, (FRAMEWORK,)))
    assert agent.one(fx.Kill).container_id == agent.task().container_id


def test_orders_of_a_lower_epoch_are_ignored_and_their_master_left(agent: Driver) -> None:
    agent.open()
    agent.order(Registered(7, AGENT, 15.0))
    agent.order(RunTask(6, make_framework(), "web", make_task()))
    assert agent.none(fx.Start, Persist)
    assert agent.one(fx.Reconnect).delay_s > 0
    agent.open()
    agent.order(Registered(6, AGENT, 15.0))
    assert agent.none(Persist)
    assert not agent.core.state.registered
    assert "stop the agent, end its tasks and empty its work directory" in agent.one(fx.Reconnect).why


def test_the_epoch_survives_a_restart(agent: Driver) -> None:
    agent.open()
    agent.order(Registered(7, AGENT, 15.0))
    agent.start()
    agent.recover(runtime="process")
    agent.recover(runtime="docker")
    agent.open()
    agent.order(Registered(6, AGENT, 15.0))
    assert not agent.core.state.registered


def test_orders_of_another_session_are_ignored(agent: Driver) -> None:
    agent.tell(Ordered("s0", RunTask(1, make_framework(), "web", make_task())))
    assert agent.effects == []


def test_orders_before_the_registration_is_answered_are_ignored(agent: Driver) -> None:
    agent.open()
    agent.order(RunTask(1, make_framework(), "web", make_task()))
    assert agent.none(fx.Start, Persist)
    assert agent.notes() == ["order ignored"]


def test_a_session_that_ended_before_a_newer_one_began_is_not_its_end(agent: Driver) -> None:
    agent.register()
    agent.tell(Disconnected("s1", "late"))
    assert agent.core.state.registered
    assert agent.effects == []


def test_a_refused_agent_stays_away_for_a_while_and_says_why(agent: Driver) -> None:
    agent.open()
    agent.order(Refused(1, "agent m-S0 was marked gone; empty its work directory"))
    effect = agent.one(fx.Reconnect)
    assert effect.delay_s == 60.0
    assert "marked gone" in effect.why
    assert agent.notes() == ["registration refused"]


def test_an_agent_whose_tasks_were_declared_over_ends_them_and_one_that_is_merely_refused_does_not(
    agent: Driver,
) -> None:
    agent.run(make_task("t1"))
    agent.open()
    agent.order(Refused(1, "this master is of another release"))
    assert agent.all(fx.Kill) == []
    agent.open()
    agent.order(Refused(1, "machine h1 is down for maintenance", True))
    assert [kill.grace_s for kill in agent.all(fx.Kill)] == [3.0]


def test_a_ping_is_answered(agent: Driver) -> None:
    agent.order(Ping(1))
    assert isinstance(agent.one(fx.Send).report, Pong)


def test_a_quiet_agent_shows_life_once_a_ping_and_a_busy_one_need_not(agent: Driver) -> None:
    pongs = 0
    for _ in range(60):
        agent.wait(1.0)
        pongs += len(agent.all(fx.Send))
    assert pongs == 4
    agent.wait(14.0)
    agent.launch(make_task())
    agent.wait(1.0)
    assert agent.none(fx.Send)


def test_a_master_that_falls_silent_is_left(agent: Driver) -> None:
    agent.wait(75.0)
    assert agent.none(fx.Reconnect)
    agent.wait(15.0)
    assert agent.one(fx.Reconnect)


def test_a_registration_without_an_answer_is_tried_again(agent: Driver) -> None:
    agent.open()
    assert SetTimer("register", 15.0) in agent.effects
    agent.wait(15.0)
    assert agent.one(fx.Reconnect)
    agent.register()
    assert CancelTimer("register") in agent.effects


def test_a_new_id_from_a_new_cluster_is_taken_and_the_tasks_run_on(agent: Driver) -> None:
    agent.run(make_task())
    agent.open()
    agent.order(Registered(2, AgentId("n-S3"), 15.0))
    assert agent.none(fx.Kill)
    agent.exit(code=0)
    assert agent.status().agent_id == "n-S3"


def test_a_runtime_that_is_gone_for_two_checks_is_told_by_a_new_registration(agent: Driver) -> None:
    agent.tell(RuntimeChecked("docker", "Docker does not answer"))
    assert agent.none(fx.Reconnect), "its daemon may just be restarting"
    agent.tell(RuntimeChecked("docker", "Docker does not answer"))
    assert agent.one(fx.Reconnect)
    agent.open()
    report = agent.one(fx.Send).report
    assert isinstance(report, Register)
    assert (report.info.runtimes, report.info.unready_runtimes) == (("process",), ("docker",))
    agent.tell(RuntimeChecked("docker"))
    assert agent.one(fx.Reconnect)
    agent.tell(RuntimeChecked("docker"))
    assert agent.none(fx.Reconnect)


def test_runtimes_are_checked_on_a_slow_clock(agent: Driver) -> None:
    agent.wait(15.0)
    assert {e.runtime for e in agent.all(fx.CheckRuntime)} == {"process", "docker"}


def test_the_view_tells_of_the_session(agent: Driver) -> None:
    view = agent.ask(ReadState())
    assert view.registered
    assert view.snapshot.master_hostname == "master"
    agent.tell(Connected("s9", "http://[::1]:4680"))
    assert not agent.ask(ReadState()).registered
