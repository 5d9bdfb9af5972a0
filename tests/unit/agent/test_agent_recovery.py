"""A restarted agent takes up its tasks: none lost, none doubled, no exit untold."""

import pytest
from agent_driver import FRAMEWORK, Driver, make_task

from corral.agent import effects as fx
from corral.agent.spec import Fetched, Recovered, Stage
from corral.model.execution import Exit, Found, Launched
from corral.model.ids import ContainerId, FrameworkId, TaskId
from corral.model.orders import Register
from corral.model.task import CommandInfo, Reason, TaskState, Uri
from corral.runtime.core import SetTimer, persists

WITH_URI = CommandInfo(value="./run", uris=(Uri(value="http://x/run.tgz"),))


def restart(agent: Driver, *found: Found) -> None:
    agent.start()
    agent.recover(*found, runtime="process")


def finish(agent: Driver) -> None:
    agent.recover(runtime="docker")
    agent.register()


def orphan(exit: Exit | None = None) -> Found:
    container_id = ContainerId("stranger")
    return Found(
        container_id=container_id,
        task_id=TaskId("x"),
        framework_id=FrameworkId("y"),
        launched=Launched(container_id=container_id, pid=9),
        exit=exit,
    )


def test_a_running_task_runs_on_and_its_end_is_told(agent: Driver) -> None:
    agent.run(make_task())
    found = agent.found()
    restart(agent, found)
    assert agent.one(fx.Wait).container_id == found.container_id
    assert agent.none(fx.Kill, fx.Start, fx.Discard)
    finish(agent)
    agent.exit(code=4)
    assert agent.status().message == "Command exited with status 4"


def test_no_master_is_dialled_before_every_runtime_has_answered(agent: Driver) -> None:
    agent.start()
    assert {e.runtime for e in agent.all(fx.Recover)} == {"process", "docker"}
    assert agent.none(fx.Connect)
    agent.recover(runtime="process")
    assert agent.none(fx.Connect)
    agent.tell(Recovered("docker", (), "Docker does not answer"))
    assert agent.one(fx.Connect), "an answer without good news is an answer"


def test_an_exit_while_no_agent_ran_is_told(agent: Driver) -> None:
    agent.run(make_task())
    found = agent.found(exit=Exit(container_id=agent.task().container_id, code=0))
    restart(agent, found)
    assert agent.one(fx.Remove).container_id == found.container_id
    finish(agent)
    assert agent.status().state is TaskState.FINISHED


def test_an_exit_while_a_killing_agent_was_away_is_told_as_killed(agent: Driver) -> None:
    agent.run(make_task())
    agent.kill()
    restart(agent, agent.found(exit=Exit(container_id=agent.task().container_id, signal=15)))
    finish(agent)
    assert agent.status().state is TaskState.KILLED


def test_a_task_that_was_being_killed_is_killed_with_the_rest_of_its_grace(agent: Driver) -> None:
    agent.run(make_task())
    agent.kill(grace_s=30.0)
    agent.now += 10
    restart(agent, agent.found())
    assert agent.one(fx.Kill).grace_s == 20.0
    agent.now += 100
    restart(agent, agent.found())
    assert agent.one(fx.Kill).grace_s == 0.0


def test_a_start_that_came_up_while_no_agent_ran_is_told_as_running(agent: Driver) -> None:
    agent.launch(make_task())
    restart(agent, agent.found())
    assert agent.one(fx.Wait)
    finish(agent)
    assert [s.state for s in agent.statuses()] == [TaskState.STARTING, TaskState.RUNNING]


def test_a_start_that_came_up_and_ended_while_no_agent_ran_is_told_by_its_exit(agent: Driver) -> None:
    agent.launch(make_task())
    restart(agent, agent.found(exit=Exit(container_id=agent.task().container_id, code=3)))
    finish(agent)
    assert agent.statuses()[-1].message == "Command exited with status 3"


@pytest.mark.parametrize(("aware", "state"), [(True, TaskState.DROPPED), (False, TaskState.LOST)])
def test_a_task_that_was_never_started_is_told_as_dropped(agent: Driver, aware: bool, state: TaskState) -> None:
    agent.launch(make_task("t1"), aware=aware)
    agent.acknowledge("t1")
    agent.launch(make_task("t2", command=WITH_URI), aware=aware)
    restart(agent)
    assert agent.none(fx.Start)
    finish(agent)
    assert [(s.task_id, s.state, s.reason) for s in agent.statuses()] == [
        ("t1", state, Reason.AGENT_RESTARTED),
        ("t2", state, Reason.AGENT_RESTARTED),
    ]


def test_a_half_started_container_is_taken_away_and_its_task_dropped(agent: Driver) -> None:
    agent.launch(make_task())
    restart(agent, agent.found(up=False))
    assert agent.one(fx.Discard).container_id == agent.task().container_id
    assert agent.task().state is TaskState.LOST


def test_a_running_task_whose_container_is_gone_has_failed(agent: Driver) -> None:
    agent.run(make_task())
    restart(agent)
    finish(agent)
    assert (agent.status().state, agent.status().reason) == (TaskState.FAILED, Reason.EXECUTOR_TERMINATED)


def test_a_killed_task_whose_container_is_gone_was_killed(agent: Driver) -> None:
    agent.run(make_task())
    agent.kill()
    restart(agent)
    assert agent.task().state is TaskState.KILLED


def test_a_container_without_a_record_is_ended(agent: Driver) -> None:
    restart(agent, orphan())
    assert agent.one(fx.Discard).container_id == "stranger"
    assert "orphan ended" in agent.notes()
    restart(agent, orphan(Exit(container_id=ContainerId("stranger"), code=0)))
    assert agent.one(fx.Remove).container_id == "stranger"


def test_the_container_of_a_task_whose_end_is_on_disk_is_only_removed(agent: Driver) -> None:
    agent.run(make_task())
    found = agent.found(exit=Exit(container_id=agent.task().container_id, code=0))
    agent.exit(code=0)
    restart(agent, found)
    assert agent.one(fx.Remove).container_id == found.container_id
    finish(agent)
    assert agent.status().state is TaskState.FINISHED
    assert len(agent.task().pending) == 1


def test_while_a_runtime_does_not_answer_its_tasks_stand_as_they_were(agent: Driver) -> None:
    agent.run(make_task())
    found = agent.found()
    agent.start()
    agent.tell(Recovered("process", (), "no such thing"))
    assert agent.task().state is TaskState.RUNNING
    assert SetTimer("recover/process", 1.0) in agent.effects
    agent.tell(Recovered("docker"))
    agent.register()
    agent.open()
    report = agent.one(fx.Send).report
    assert isinstance(report, Register)
    assert (report.info.runtimes, len(report.tasks)) == (("docker",), 1)
    agent.wait(1.0)
    assert agent.one(fx.Recover).runtime == "process"
    agent.recover(found, runtime="process")
    assert agent.one(fx.Wait)
    assert agent.one(fx.Reconnect), "the master learns that the runtime is back"


def test_a_runtime_that_stays_away_is_asked_ever_more_seldom(agent: Driver) -> None:
    agent.start()
    delays = []
    for _ in range(6):
        agent.tell(Recovered("docker", (), "away"))
        delays += [e.delay_s for e in agent.all(SetTimer) if e.name == "recover/docker"]
    assert delays == [1.0, 2.0, 4.0, 8.0, 15.0, 15.0]
    assert agent.notes() == [], "the reason is noted once"


def test_unacknowledged_updates_survive_in_their_order(agent: Driver) -> None:
    agent.launch(make_task())
    agent.started()
    before = list(agent.task().pending)
    restart(agent, agent.found())
    finish(agent)
    assert list(agent.task().pending) == before
    assert agent.statuses() == before


def test_a_max_completion_time_goes_on_from_the_first_start(agent: Driver) -> None:
    agent.run(make_task(max_completion_s=100.0))
    agent.now += 60
    restart(agent, agent.found())
    agent.wait(39.0)
    assert agent.none(fx.Kill)
    agent.wait(1.0)
    assert agent.one(fx.Kill)


def test_a_task_of_a_runtime_that_is_no_longer_enabled_is_not_touched(agent: Driver) -> None:
    import msgspec

    agent.run(make_task())
    agent.config = msgspec.structs.replace(agent.config, runtimes=("docker",))
    agent.start()
    assert "task out of sight" in agent.notes()
    agent.recover(runtime="docker")
    assert agent.task().state is TaskState.RUNNING


def test_ports_are_held_again_after_a_restart(agent: Driver) -> None:
    agent.run(make_task("t1", "ports:[31000-31000]"))
    restart(agent, agent.found("t1"))
    finish(agent)
    agent.launch(make_task("t2", "ports:[31000-31000]"))
    assert agent.none(fx.Start)


def test_frameworks_without_tasks_are_forgotten_at_the_next_start(agent: Driver) -> None:
    agent.run(make_task())
    agent.exit(code=0)
    agent.acknowledge()
    assert f"frameworks/{FRAMEWORK}" in agent.records
    agent.start()
    assert [e.key for e in persists(agent.effects)] == [f"frameworks/{FRAMEWORK}"]
    assert f"frameworks/{FRAMEWORK}" not in agent.records


def test_a_kill_that_reaches_a_start_of_an_earlier_process_is_given_up_in_time(agent: Driver) -> None:
    agent.launch(make_task())
    agent.acknowledge()
    agent.start()
    agent.tell(Recovered("process", (), "away"))
    agent.recover(runtime="docker")
    agent.register()
    agent.kill()
    assert agent.one(fx.Abort)
    agent.wait(agent.config.kill_retry_s)
    assert agent.task().state is TaskState.KILLED
    assert agent.all(fx.Discard)


def test_a_late_fetch_of_an_earlier_stage_is_ignored(agent: Driver) -> None:
    agent.launch(make_task(command=WITH_URI))
    container_id = agent.task().container_id
    restart(agent)
    agent.tell(Fetched(container_id))
    assert agent.effects == []
    assert agent.task().stage is Stage.ENDED


def test_what_still_runs_of_a_task_that_was_given_up_before_the_restart_is_ended(agent: Driver) -> None:
    agent.launch(make_task())
    agent.kill()
    agent.wait(agent.config.kill_retry_s)
    assert agent.task().stage is Stage.ENDED
    found = agent.found()
    agent.start()
    agent.recover(found)
    assert agent.one(fx.Discard).container_id == found.container_id
    assert agent.none(fx.Remove)
