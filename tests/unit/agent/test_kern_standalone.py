"""Standalone containers: on disk before they start, taken up by the next agent, kept until somebody removes them."""

from typing import Any

import pytest
from agent_driver import Driver, make_task

from corral.agent import effects as fx
from corral.agent.spec import (
    DiskMeasured,
    Exited,
    Fetched,
    KillFailed,
    ListContainers,
    RuntimeChecked,
    Sandbox,
    Scanned,
    Started,
    StartFailed,
    WaitFailed,
)
from corral.agent.standalone import MOST_ENDED
from corral.agent.standalone_spec import AwaitContainer, EndContainer, LaunchContainer, RemoveContainer
from corral.agent.standalone_state import Standalone
from corral.lib.errors import Conflict, Failed, Invalid, NotFound, Unavailable
from corral.model.container import ContainerInfo, ContainerKind, DockerInfo
from corral.model.execution import Exit, Found, Launched
from corral.model.ids import AgentId, ContainerId, FrameworkId, TaskId
from corral.model.resources import Disk, Identity, scalar
from corral.model.task import CommandInfo, TaskInfo, Uri
from corral.runtime.core import Asked, Refuse, Reply

C = ContainerId("c")
VOLUME = scalar("disk", 8, Identity(disk=Disk(persistence_id="v", container_path="data")))
DOCKER = ContainerInfo(kind=ContainerKind.DOCKER, docker=DockerInfo(image="busybox"))


def wanted(id: str = "c", **more: Any) -> TaskInfo:
    more.setdefault("command", CommandInfo(value="sleep 1"))
    more.setdefault("resources", ())
    return TaskInfo(task_id=TaskId(id), name=id, agent_id=AgentId(""), **more)


def ask(agent: Driver, command: Any, number: int = 7) -> Any:
    """What is replied at once; None when nothing is."""
    for effect in agent.tell(Asked(number, command)):
        match effect:
            case Reply(ask=at, value=value) if at == number:
                return True if value is None else value
            case Refuse(ask=at, error=error) if at == number:
                raise error
    return None


def launch(agent: Driver, id: str = "c", **more: Any) -> Standalone:
    assert ask(agent, LaunchContainer(wanted(id, **more))) is None
    return agent.core.state.standalone.found[ContainerId(id)]


def start(agent: Driver, id: str = "c", **more: Any) -> Standalone:
    one = launch(agent, id, **more)
    agent.tell(Started(Launched(container_id=one.inner, pid=77)))
    assert Reply(7, True) in agent.effects
    return one


def end(agent: Driver, one: Standalone, **how: Any) -> None:
    agent.tell(Exited(Exit(container_id=one.inner, at=agent.now, **how)))


def held(one: Standalone, exit: Exit | None = None, *, up: bool = True) -> Found:
    launched = Launched(container_id=one.inner, pid=77) if up and exit is None else None
    nobody = FrameworkId("")
    return Found(container_id=one.inner, task_id=TaskId("c"), framework_id=nobody, launched=launched, exit=exit)


def restart(agent: Driver, *found: Found) -> Standalone | None:
    agent.start()
    agent.recover(*found, runtime="process")
    return agent.core.state.standalone.found.get(C)


def test_a_launch_is_answered_when_it_runs_and_its_end_is_told_to_all_who_wait(agent: Driver) -> None:
    one = start(agent)
    assert agent.one(fx.Wait).container_id == one.inner
    assert ask(agent, AwaitContainer(C), 8) is None
    assert ask(agent, AwaitContainer(C), 9) is None
    end(agent, one, code=3)
    assert [(e.ask, e.value.code) for e in agent.all(Reply)] == [(8, 3), (9, 3)]
    assert agent.one(fx.Remove).container_id == one.inner
    assert ask(agent, AwaitContainer(C)).code == 3, "it is told again, until it is removed"
    assert ask(agent, RemoveContainer(C)) is True
    assert agent.one(fx.DeleteSandbox).path == one.sandbox
    assert not [key for key in agent.records if key.startswith("container")]
    with pytest.raises(NotFound):
        ask(agent, AwaitContainer(C))


def test_it_is_told_of_the_agent_and_not_of_frameworks_that_are_none(agent: Driver) -> None:
    launch(agent, command=CommandInfo(value="env", environment=(("MESOS_TASK_ID", "mine"),)))
    execution = agent.execution()
    assert execution.argv == ("/bin/sh", "-c", "env")
    names = dict(execution.environment)
    assert names["MESOS_TASK_ID"] == "mine"
    assert names["MESOS_SANDBOX"] == execution.sandbox
    assert names["CORRAL_HOST_IP"] == "10.0.0.1"
    assert not {"MESOS_FRAMEWORK_ID", "MESOS_EXECUTOR_ID", "CORRAL_TASK_ID", "MESOS_CHECKPOINT"} & names.keys()
    assert (execution.user, agent.one(fx.Start).owner) == (None, None)


def test_an_image_needs_no_command(agent: Driver) -> None:
    assert ask(agent, LaunchContainer(wanted(command=None, container=DOCKER))) is None
    execution = agent.execution()
    assert execution.docker is not None
    assert (execution.argv, execution.entrypoint_args, agent.one(fx.Start).runtime) == ((), True, "docker")


def test_a_name_is_taken_until_its_container_is_removed(agent: Driver) -> None:
    one = start(agent)
    assert ask(agent, LaunchContainer(wanted())) is False
    with pytest.raises(Conflict, match="still runs"):
        ask(agent, RemoveContainer(C))
    end(agent, one, code=0)
    assert ask(agent, LaunchContainer(wanted())) is False
    ask(agent, RemoveContainer(C))
    other = start(agent)
    assert other.inner != one.inner
    agent.run(make_task())
    assert ask(agent, LaunchContainer(wanted(agent.task().container_id))) is False


@pytest.mark.parametrize(
    ("info", "error"),
    [
        (wanted(command=None), Invalid),
        (wanted(command=CommandInfo(value="x", secrets=(("A", "b"),))), Invalid),
        (wanted(unsupported=("container.tty_info",)), Invalid),
        (wanted(container=ContainerInfo(kind=ContainerKind.DOCKER)), Invalid),
        (wanted(resources=(VOLUME,)), Invalid),
    ],
)
def test_what_cannot_be_carried_out_is_refused_and_leaves_nothing(agent: Driver, info: TaskInfo, error: Any) -> None:
    before = dict(agent.records)
    with pytest.raises(error, match="container"):
        ask(agent, LaunchContainer(info))
    assert (agent.records, ask(agent, ListContainers())) == (before, [])


def test_a_runtime_that_is_away_or_was_never_there_is_named(make_driver: Any) -> None:
    driver = make_driver(runtimes=("process",))
    driver.recover(runtime="process")
    with pytest.raises(Unavailable, match="not registered"):
        ask(driver, LaunchContainer(wanted()))
    driver.register()
    with pytest.raises(Invalid, match="docker runtime but agent node1 has only process"):
        ask(driver, LaunchContainer(wanted(container=DOCKER)))
    for _ in range(2):
        driver.tell(RuntimeChecked("process", "no room for processes"))
    with pytest.raises(Unavailable, match="no room"):
        ask(driver, LaunchContainer(wanted()))


def test_a_start_that_fails_is_told_and_the_name_is_free_again(agent: Driver) -> None:
    one = launch(agent)
    agent.tell(StartFailed(one.inner, "no such program"))
    (refused,) = agent.all(Refuse)
    assert isinstance(refused.error, Failed)
    assert "no such program" in refused.error.message
    with pytest.raises(NotFound):
        ask(agent, AwaitContainer(C))
    start(agent)


def test_uris_are_fetched_first(agent: Driver) -> None:
    command = CommandInfo(value="./x", uris=(Uri(value="/x"),))
    one = launch(agent, command=command)
    assert agent.one(fx.Fetch).sandbox == one.sandbox
    agent.tell(Fetched(one.inner))
    assert agent.execution().container_id == one.inner
    agent.tell(Started(Launched(container_id=one.inner, pid=1)))
    assert Reply(7, True) in agent.effects
    other = launch(agent, "d", command=command)
    agent.tell(Fetched(other.inner, "it is not there"))
    assert "it is not there" in agent.one(Refuse).error.message
    late = launch(agent, "e", command=command)
    agent.wait(agent.config.fetch_timeout_s + 1)
    assert agent.one(fx.CancelFetch).container_id == late.inner
    assert "too long" in agent.one(Refuse).error.message


def test_a_kill_reaches_it_at_every_stage(agent: Driver) -> None:
    one = start(agent)
    assert ask(agent, EndContainer(C)) is True
    assert (agent.one(fx.Kill).container_id, agent.one(fx.Kill).grace_s) == (one.inner, 0.0)
    agent.tell(KillFailed(one.inner, "not now"))
    assert [type(e) for e in agent.wait(agent.config.kill_retry_s + 1) if isinstance(e, fx.Kill)] == [fx.Kill]
    end(agent, one, signal=9)
    assert ask(agent, EndContainer(C)) is True, "it has ended, as was asked"
    fetching = launch(agent, "f", command=CommandInfo(value="x", uris=(Uri(value="/x"),)))
    ask(agent, EndContainer(fetching.id), 8)
    assert agent.one(fx.CancelFetch).container_id == fetching.inner
    starting = launch(agent, "s")
    ask(agent, EndContainer(starting.id), 8)
    assert agent.one(fx.Abort).container_id == starting.inner
    agent.tell(Started(Launched(container_id=starting.inner, pid=5)))
    assert agent.one(fx.Kill).container_id == starting.inner, "the start could not be taken back any more"
    with pytest.raises(NotFound):
        ask(agent, EndContainer(ContainerId("nobody")))


def test_a_start_that_hangs_is_given_up(agent: Driver) -> None:
    one = launch(agent)
    effects = agent.wait(agent.config.start_timeout_s + 1)
    assert {type(e) for e in effects} >= {fx.Abort, fx.Discard, Refuse}
    assert agent.tell(Started(Launched(container_id=one.inner, pid=1))) == []


def test_what_the_runtime_lost_sight_of_is_asked_for_again(agent: Driver) -> None:
    one = start(agent)
    agent.tell(WaitFailed(one.inner, "docker is away"))
    assert [e.container_id for e in agent.wait(6) if isinstance(e, fx.Wait)] == [one.inner]
    agent.tell(WaitFailed(one.inner, "unknown", gone=True))
    exit = ask(agent, AwaitContainer(C))
    assert (exit.code, exit.signal, exit.message) == (None, None, "unknown")


def test_it_runs_on_while_its_agent_restarts(agent: Driver) -> None:
    one = start(agent)
    again = restart(agent, held(one))
    assert again is not None
    assert agent.one(fx.Wait).container_id == one.inner
    assert agent.none(fx.Kill, fx.Discard)
    assert ask(agent, AwaitContainer(C)) is None
    end(agent, again, code=4)
    assert agent.one(Reply).value.code == 4


def test_an_end_while_no_agent_ran_is_told(agent: Driver) -> None:
    one = start(agent)
    restart(agent, held(one, Exit(container_id=one.inner, code=5)))
    assert agent.one(fx.Remove).container_id == one.inner
    assert ask(agent, AwaitContainer(C)).code == 5
    restart(agent, held(one, Exit(container_id=one.inner, code=5)))
    assert agent.one(fx.Remove).container_id == one.inner, "what was not removed yet is removed"
    assert ask(agent, AwaitContainer(C)).code == 5


def test_one_that_was_being_killed_is_killed_by_the_next_agent(agent: Driver) -> None:
    one = start(agent)
    ask(agent, EndContainer(C))
    restart(agent, held(one))
    assert agent.one(fx.Kill).container_id == one.inner


def test_one_that_came_up_while_no_agent_looked_runs(agent: Driver) -> None:
    one = launch(agent)
    again = restart(agent, held(one))
    assert again is not None
    assert (again.stage, agent.one(fx.Wait).container_id) == ("RUNNING", one.inner)


def test_one_that_had_not_come_up_is_forgotten_and_one_that_vanished_has_ended(agent: Driver) -> None:
    one = launch(agent)
    assert restart(agent) is None
    assert agent.none(fx.Remove)
    one = launch(agent)
    assert restart(agent, held(one, up=False)) is None
    assert agent.one(fx.Discard).container_id == one.inner
    agent.register()
    start(agent)
    restart(agent)
    assert "rebooted or somebody removed it" in ask(agent, AwaitContainer(C)).message


def test_the_sandbox_of_an_ended_one_is_collected_with_it(agent: Driver) -> None:
    one, other = start(agent), start(agent, "d")
    end(agent, one, code=0)
    agent.tell(Scanned((Sandbox(other.sandbox, other.inner, 0.0),)))
    agent.now += agent.config.gc_delay_s + 1
    agent.tell(DiskMeasured(0.0))
    assert agent.one(fx.DeleteSandbox).path == one.sandbox, "and not that of the one which runs"
    with pytest.raises(NotFound):
        ask(agent, AwaitContainer(C))


def test_the_oldest_of_too_many_that_have_ended_is_forgotten(agent: Driver) -> None:
    for number in range(MOST_ENDED + 1):
        one = start(agent, f"c{number}")
        end(agent, one, code=0)
    assert agent.one(fx.DeleteSandbox).path.startswith("/var/corral/containers/c0/")
    assert len(agent.core.state.standalone.found) == MOST_ENDED
    with pytest.raises(NotFound):
        ask(agent, AwaitContainer(ContainerId("c0")))


def test_only_those_that_live_are_listed(agent: Driver) -> None:
    one = start(agent)
    (view,) = ask(agent, ListContainers())
    assert (view.id, view.inner, view.standalone, view.runs) == (C, one.inner, True, True)
    assert view.status.executor_pid == 77
    end(agent, one, code=0)
    assert ask(agent, ListContainers()) == []
