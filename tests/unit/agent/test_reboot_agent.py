"""After a boot of the node, what should run is started again by the agent alone; every other end is told once."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from agent_driver import Driver, make_task

from corral.agent import effects as fx
from corral.agent.spec import Fetched, Recovered, RunRecord, Stage, Started
from corral.model.boot import AFTER_REBOOT_LABEL
from corral.model.container import ContainerInfo, ContainerKind, DockerInfo
from corral.model.execution import Exit, Found, Launched
from corral.model.ids import TaskId
from corral.model.partition import STOP_AFTER_LABEL
from corral.model.task import CommandInfo, Label, Reason, Source, TaskInfo, TaskState, Uri
from corral.runtime.core import encode_record

AGAIN = (Label(key=AFTER_REBOOT_LABEL, value="start"),)


@pytest.fixture
def agent(make_driver: Callable[..., Driver]) -> Driver:
    return make_driver(boot_id="boot-1").ready()


def service(task_id: str = "t1", **more: Any) -> TaskInfo:
    return make_task(task_id, labels=AGAIN, **more)


def reboot(agent: Driver, *found: Found, boot_id: str = "boot-2", **changes: Any) -> None:
    """The node comes up again, and the process runtime tells what it has of earlier; no master is there yet."""
    agent.config = msgspec.structs.replace(agent.config, boot_id=boot_id, **changes)
    agent.start()
    agent.recover(*found)


def unseen(agent: Driver, task_id: str = "t1") -> Found:
    exit = Exit(container_id=agent.task(task_id).container_id, message="nobody saw how it ended")
    return agent.found(task_id, exit)


def test_a_service_is_started_again_before_any_master_is_there(agent: Driver) -> None:
    agent.run(service())
    old = agent.task().container_id
    reboot(agent, unseen(agent))
    start = agent.one(fx.Start)
    assert start.execution.task_id == "t1"
    assert start.execution.container_id == agent.task().container_id != old
    assert agent.one(fx.Remove).container_id == old
    assert agent.none(fx.Connect, fx.Send)
    assert [s.path for s in agent.core.state.ended] == [f"{start.execution.sandbox.rpartition('/')[0]}/{old}"]


def test_its_framework_hears_once_why_it_starts_and_then_that_it_runs(agent: Driver) -> None:
    agent.run(service())
    reboot(agent, unseen(agent))
    agent.started()
    agent.recover(runtime="docker")
    agent.register()
    told, then = agent.statuses()
    assert (told.state, told.reason, told.source) == (TaskState.STARTING, Reason.AGENT_RESTARTED, Source.AGENT)
    assert told.message is not None
    assert "the node was started again while the task ran (nobody saw how it ended)" in told.message
    assert then.state is TaskState.RUNNING
    agent.acknowledge_all()
    assert agent.none(fx.Send)


def test_what_was_not_told_yet_is_told_first(agent: Driver) -> None:
    agent.launch(service())
    agent.started()
    reboot(agent)
    agent.recover(runtime="docker")
    agent.register()
    assert [s.state for s in agent.statuses()] == [TaskState.STARTING, TaskState.RUNNING, TaskState.STARTING]


def test_a_service_of_which_nothing_is_left_or_that_was_just_starting_is_started_too(agent: Driver) -> None:
    agent.run(service())
    agent.launch(service("t2"))
    reboot(agent)
    assert {start.execution.task_id for start in agent.all(fx.Start)} == {"t1", "t2"}


def test_uris_are_fetched_anew_into_the_new_sandbox(agent: Driver) -> None:
    agent.launch(service(command=CommandInfo(value="./run", uris=(Uri(value="http://x/run.tgz"),))))
    agent.tell(Fetched(agent.task().container_id))
    agent.started()
    reboot(agent)
    assert agent.one(fx.Fetch).sandbox == agent.task().sandbox
    agent.tell(Fetched(agent.task().container_id))
    assert agent.one(fx.Start)


@pytest.mark.parametrize(
    ("labels", "changes"),
    [
        ((), {}),
        ((Label(key=AFTER_REBOOT_LABEL, value="leave"),), {}),
        ((*AGAIN, Label(key=STOP_AFTER_LABEL, value="90s")), {}),
        (AGAIN, {"start_after_reboot": False}),
    ],
)
def test_what_is_not_to_be_started_again_has_failed_and_that_is_told_once(
    agent: Driver, labels: tuple[Label, ...], changes: dict[str, bool]
) -> None:
    agent.run(make_task(labels=labels))
    reboot(agent, unseen(agent), **changes)
    assert agent.none(fx.Start)
    agent.recover(runtime="docker")
    agent.register()
    assert (agent.status().state, agent.status().reason) == (TaskState.FAILED, Reason.EXECUTOR_TERMINATED)
    agent.acknowledge()
    assert agent.core.state.tasks == {}


def test_a_service_that_was_being_ended_stays_ended(agent: Driver) -> None:
    agent.run(service())
    agent.kill()
    reboot(agent, unseen(agent))
    assert agent.none(fx.Start)
    assert agent.task().state is TaskState.KILLED


def test_an_end_that_was_known_before_the_boot_is_told_as_it_was(agent: Driver) -> None:
    agent.run(service())
    agent.exit(code=3)
    reboot(agent)
    assert agent.none(fx.Start)
    agent.recover(runtime="docker")
    agent.register()
    assert agent.status().message == "Command exited with status 3"


def test_a_restart_of_the_agent_alone_starts_nothing_again(agent: Driver) -> None:
    agent.run(service())
    reboot(agent, agent.found(exit=Exit(container_id=agent.task().container_id, code=3)), boot_id="boot-1")
    assert agent.none(fx.Start)
    assert agent.task().state is TaskState.FAILED


def test_a_service_is_started_once_per_boot_however_often_the_agent_restarts(agent: Driver) -> None:
    agent.run(service())
    reboot(agent, unseen(agent))
    (started,) = agent.all(fx.Start)
    found = Launched(container_id=started.execution.container_id, pid=5)
    agent.start()
    agent.recover(
        Found(container_id=found.container_id, task_id=TaskId("t1"), framework_id=agent.task().framework_id,
              launched=found)
    )  # fmt: skip
    assert agent.none(fx.Start)
    assert agent.task().stage is Stage.RUNNING
    reboot(agent, unseen(agent), boot_id="boot-3")
    assert agent.one(fx.Start).execution.container_id != found.container_id


def test_an_agent_that_dies_before_the_start_tells_of_it_as_of_any_other(agent: Driver) -> None:
    agent.run(service())
    reboot(agent, unseen(agent))
    agent.start()
    agent.recover()
    agent.recover(runtime="docker")
    agent.register()
    first, last = agent.statuses()
    assert first.state is TaskState.STARTING
    assert (last.state, last.reason) == (TaskState.LOST, Reason.AGENT_RESTARTED)


def test_a_service_waits_for_a_docker_that_comes_up_after_the_agent(agent: Driver) -> None:
    image = ContainerInfo(kind=ContainerKind.DOCKER, docker=DockerInfo(image="busybox"))
    agent.run(service(container=image))
    reboot(agent)
    agent.tell(Recovered("docker", (), "Docker does not answer"))
    assert agent.one(fx.Connect), "the master may come while Docker is away"
    agent.register()
    agent.recover(runtime="docker")
    assert agent.one(fx.Start).runtime == "docker"
    assert agent.status().state is TaskState.STARTING


def test_a_service_whose_runtime_is_not_enabled_any_more_stays_out_of_sight(agent: Driver) -> None:
    agent.run(service())
    agent.config = msgspec.structs.replace(agent.config, boot_id="boot-2", runtimes=("docker",))
    agent.start()
    agent.recover(runtime="docker")
    agent.register()
    assert agent.none(fx.Start)
    assert agent.task().live


def test_a_record_without_a_boot_is_of_this_one(agent: Driver) -> None:
    agent.run(service())
    (key,) = [key for key in agent.records if key.startswith("runs/")]
    run = msgspec.msgpack.decode(agent.records[key], type=RunRecord)
    agent.records[key] = encode_record(msgspec.structs.replace(run, boot=""))
    reboot(agent, unseen(agent))
    assert agent.none(fx.Start)


def test_a_label_that_cannot_be_read_refuses_the_task(agent: Driver) -> None:
    agent.launch(make_task(labels=(Label(key=AFTER_REBOOT_LABEL, value="maybe"),)))
    assert agent.status().state is TaskState.ERROR
    assert agent.status().message == "label corral.after-reboot is 'maybe'; it may be start or leave"


def test_a_start_that_fails_after_the_boot_is_told_as_a_failure(agent: Driver) -> None:
    agent.run(service())
    reboot(agent, unseen(agent))
    agent.tell(Started(Launched(container_id=agent.task().container_id, pid=9)))
    agent.exit(code=1)
    assert agent.task().state is TaskState.FAILED
