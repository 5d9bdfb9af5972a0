"""The life of a task on an agent: what is written, told and done at each step."""

from collections.abc import Callable

import msgspec
import pytest
from agent_driver import AGENT, FRAMEWORK, Driver, make_framework, make_task

from corral.agent import effects as fx
from corral.agent.spec import (
    DiscardFailed,
    Fetched,
    KillFailed,
    Recovered,
    RunRecord,
    Stage,
    Started,
    StartFailed,
    WaitFailed,
)
from corral.model.container import ContainerInfo, ContainerKind, DockerInfo, PortMapping
from corral.model.execution import Launched
from corral.model.ids import AgentId, ContainerId, FrameworkId
from corral.model.orders import KillTask, RunTask, ShutdownFramework, UpdateTask
from corral.model.resources import total_milli
from corral.model.task import CommandInfo, Reason, Source, TaskState, Uri
from corral.runtime.core import Persist, persists

DOCKER = ContainerInfo(kind=ContainerKind.DOCKER, docker=DockerInfo(image="busybox"))
WITH_URI = CommandInfo(value="./run", uris=(Uri(value="http://x/run.tgz"),))


def test_a_task_is_on_disk_before_it_is_told_and_started(agent: Driver) -> None:
    agent.launch(make_task())
    kinds = [type(e) for e in agent.effects]
    assert kinds.index(fx.Start) > max(i for i, k in enumerate(kinds) if k is Persist)
    assert {e.key for e in persists(agent.effects)} == {
        f"frameworks/{FRAMEWORK}",
        f"tasks/{FRAMEWORK}/t1",
        f"runs/{FRAMEWORK}/t1",
    }
    assert agent.status().state is TaskState.STARTING
    assert agent.status().agent_id == AGENT
    assert len(agent.status().uuid or b"") == 16


def test_a_task_runs_and_finishes_with_every_step_told_as_it_happens(agent: Driver) -> None:
    agent.launch(make_task())
    agent.started(pid=42)
    assert agent.one(fx.Wait).container_id == agent.task().container_id
    status = agent.status()
    assert status.state is TaskState.RUNNING
    assert status.source is Source.EXECUTOR
    assert status.container_status is not None
    assert status.container_status.executor_pid == 42
    assert status.container_status.network_infos[0].ip_addresses == ("10.0.0.1",)
    agent.exit(code=0)
    status = agent.status()
    assert (status.state, status.message, status.reason) == (
        TaskState.FINISHED,
        "Command exited with status 0",
        None,
    )
    for _ in range(3):
        agent.acknowledge()
        assert agent.statuses() == [], "all has been told"
    assert agent.core.state.tasks == {}
    assert set(agent.records) == {"identity", f"frameworks/{FRAMEWORK}"}


def test_a_task_may_go_without_the_word_that_it_starts_but_is_on_disk_before_it_does(agent: Driver) -> None:
    agent.launch(make_task(omits_starting=True))
    kinds = [type(e) for e in agent.effects]
    assert kinds.index(fx.Start) > max(i for i, k in enumerate(kinds) if k is Persist)
    record = next(e.record for e in persists(agent.effects) if e.key.startswith("runs/"))
    assert isinstance(record, RunRecord)
    assert record.stage is Stage.STARTING
    assert agent.statuses() == []
    agent.started()
    assert [s.state for s in agent.statuses()] == [TaskState.RUNNING]
    agent.exit(code=0)
    assert agent.status().state is TaskState.FINISHED
    agent.acknowledge()
    agent.acknowledge()
    assert agent.core.state.tasks == {}


def test_a_task_without_that_word_whose_start_fails_says_so_alone(agent: Driver) -> None:
    agent.launch(make_task(omits_starting=True))
    agent.tell(StartFailed(agent.task().container_id, "no such image"))
    assert [(s.state, s.reason) for s in agent.statuses()] == [(TaskState.FAILED, Reason.CONTAINER_LAUNCH_FAILED)]


def test_a_container_with_an_address_of_its_own_is_told_by_it(agent: Driver) -> None:
    agent.launch(make_task(container=DOCKER))
    agent.started(ip="172.17.0.2")
    status = agent.status().container_status
    assert status is not None
    assert status.network_infos[0].ip_addresses == ("172.17.0.2",)


@pytest.mark.parametrize(
    ("how", "state", "message", "reason"),
    [
        ({"code": 0}, TaskState.FINISHED, "Command exited with status 0", None),
        ({"code": 3}, TaskState.FAILED, "Command exited with status 3", None),
        ({"signal": 9}, TaskState.FAILED, "Command terminated with signal Killed", None),
        ({"signal": 15}, TaskState.FAILED, "Command terminated with signal Terminated", None),
        ({"signal": 40}, TaskState.FAILED, "Command terminated with signal 40", None),
        ({"message": "nobody saw"}, TaskState.FAILED, "nobody saw", Reason.EXECUTOR_TERMINATED),
        ({}, TaskState.FAILED, "Nobody saw how the command ended", Reason.EXECUTOR_TERMINATED),
    ],
)  # fmt: skip
def test_how_a_command_ends_says_the_state(
    agent: Driver, how: dict[str, object], state: TaskState, message: str, reason: Reason | None
) -> None:
    agent.run(make_task())
    agent.exit(**how)
    status = agent.status()
    assert (status.state, status.message, status.reason) == (state, message, reason)
    assert agent.one(fx.Remove).container_id == status.container_status.container_id  # type: ignore[union-attr]


def test_a_task_ended_for_memory_says_the_limit(agent: Driver) -> None:
    agent.run(make_task(resources="cpus:1;mem:64"))
    agent.exit(signal=9, oom=True)
    status = agent.status()
    assert status.state is TaskState.FAILED
    assert status.reason is Reason.CONTAINER_LIMITATION_MEMORY
    assert status.source is Source.AGENT
    assert total_milli(status.limitation, "mem") == 64_000
    assert "64 MB" in (status.message or "")


def test_a_repeated_order_starts_nothing(agent: Driver) -> None:
    agent.run(make_task())
    agent.launch(make_task())
    assert agent.none(fx.Start, Persist, fx.Send)
    assert agent.notes() == ["order ignored"]


def test_a_task_id_may_be_used_again_after_its_end_is_acknowledged(agent: Driver) -> None:
    agent.run(make_task())
    first = agent.task().container_id
    agent.exit(code=0)
    agent.acknowledge_all()
    agent.launch(make_task())
    assert agent.one(fx.Start).execution.container_id != first


def test_uris_are_fetched_before_the_start(agent: Driver) -> None:
    agent.launch(make_task(command=WITH_URI))
    fetch = agent.one(fx.Fetch)
    assert fetch.uris == WITH_URI.uris
    assert agent.none(fx.Start, fx.Send)
    agent.tell(Fetched(fetch.container_id))
    assert agent.one(fx.Start).execution.container_id == fetch.container_id
    assert agent.status().state is TaskState.STARTING


def test_a_failed_fetch_fails_the_task_with_the_fetchers_words(agent: Driver) -> None:
    agent.launch(make_task(command=WITH_URI))
    agent.tell(Fetched(agent.task().container_id, "cannot fetch http://x/run.tgz: status 404"))
    status = agent.status()
    assert (status.state, status.reason) == (TaskState.FAILED, Reason.CONTAINER_LAUNCH_FAILED)
    assert status.message == "cannot fetch http://x/run.tgz: status 404"
    assert agent.none(fx.Start, fx.Remove)


def test_a_failed_start_fails_the_task_with_the_runtimes_words(agent: Driver) -> None:
    agent.launch(make_task(container=DOCKER))
    agent.tell(StartFailed(agent.task().container_id, "image busybox: not found"))
    status = agent.status()
    assert (status.state, status.reason, status.source) == (
        TaskState.FAILED,
        Reason.CONTAINER_LAUNCH_FAILED,
        Source.AGENT,
    )
    assert status.message == "image busybox: not found"


# Refusals.


def test_a_task_for_docker_on_an_agent_without_it_is_refused_with_the_next_step(
    make_driver: Callable[..., Driver],
) -> None:
    agent = make_driver(runtimes=("process",))
    agent.recover(runtime="process")
    agent.register()
    agent.launch(make_task(container=DOCKER))
    status = agent.status()
    assert (status.state, status.reason) == (TaskState.FAILED, Reason.CONTAINER_LAUNCH_FAILED)
    assert "has only process; start the agent with --runtime docker" in (status.message or "")
    assert agent.none(fx.Start)


def test_a_task_for_a_runtime_that_is_not_ready_is_refused_with_its_reason(
    make_driver: Callable[..., Driver],
) -> None:
    agent = make_driver()
    agent.recover(runtime="process")
    agent.tell(Recovered("docker", (), "Docker does not answer at /run/docker.sock"))
    agent.register()
    agent.launch(make_task(container=DOCKER))
    assert "Docker does not answer" in (agent.status().message or "")
    agent.launch(make_task("t2"))
    assert agent.one(fx.Start).runtime == "process"


def test_a_port_that_another_task_holds_is_refused(agent: Driver) -> None:
    agent.run(make_task("t1", "cpus:1;ports:[31000-31001]"))
    agent.launch(make_task("t2", "cpus:1;ports:[31001-31001]"))
    status = agent.status()
    assert (status.state, status.reason) == (TaskState.LOST, Reason.RESOURCES_UNKNOWN)
    assert "port 31001, which task t1" in (status.message or "")
    agent.acknowledge_all("t2")
    agent.exit("t1", code=0)
    agent.launch(make_task("t3", "cpus:1;ports:[31000-31001]"))
    assert agent.one(fx.Start), "the ports of an ended task are free before its end is acknowledged"


def test_a_partition_aware_framework_is_told_dropped(agent: Driver) -> None:
    agent.launch(make_task("t1", "ports:[31000-31000]"), aware=True)
    agent.launch(make_task("t2", "ports:[31000-31000]"), aware=True)
    assert agent.status().state is TaskState.DROPPED


def test_mapped_host_ports_count_as_ports(agent: Driver) -> None:
    docker = DockerInfo(image="x", port_mappings=(PortMapping(container_port=80, host_port=31005),))
    agent.launch(make_task("t1", container=ContainerInfo(kind=ContainerKind.DOCKER, docker=docker)))
    assert agent.task().ports == (31005,)
    agent.launch(make_task("t2", "ports:[31005-31005]"))
    assert agent.none(fx.Start)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"agent_id": AgentId("other")}, "is for agent other"),
        ({"command": None}, "neither a command nor an executor"),
        ({"unsupported": ("container.mesos.image",)}, "container.mesos.image"),
        ({"command": CommandInfo(value=None)}, "set command.value"),
        ({"command": CommandInfo(shell=False)}, "names no program"),
        ({"container": ContainerInfo(kind=ContainerKind.DOCKER)}, "set docker.image"),
    ],
)
def test_what_cannot_be_run_as_ordered_is_an_error(agent: Driver, change: dict[str, object], words: str) -> None:
    agent.launch(msgspec.structs.replace(make_task(), **change))
    status = agent.status()
    assert (status.state, status.reason) == (TaskState.ERROR, Reason.TASK_INVALID)
    assert words in (status.message or "")
    assert agent.none(fx.Start)
    agent.acknowledge()
    assert agent.core.state.tasks == {}


# Kills.


def test_a_kill_gives_the_tasks_own_grace_and_its_end_is_told_as_killed(agent: Driver) -> None:
    agent.run(make_task(kill_grace_s=7.0))
    agent.kill()
    assert agent.one(fx.Kill).grace_s == 7.0
    agent.exit(code=0)
    status = agent.status()
    assert status.state is TaskState.KILLED, "also when the command ends with 0"
    assert status.message == "scaled down: Command exited with status 0"


def test_the_reason_of_a_kill_is_told_with_the_tasks_end(agent: Driver) -> None:
    agent.run(make_task())
    agent.kill(why="it made room for w1", reason=Reason.CONTAINER_PREEMPTED)
    agent.exit(signal=15)
    status = agent.status()
    assert (status.state, status.reason) == (TaskState.KILLED, Reason.CONTAINER_PREEMPTED)
    assert status.message is not None
    assert status.message.startswith("it made room for w1: ")


def test_without_a_grace_of_its_own_it_is_three_seconds_and_an_order_may_say_otherwise(agent: Driver) -> None:
    agent.run(make_task("t1"))
    agent.kill("t1")
    assert agent.one(fx.Kill).grace_s == 3.0
    agent.run(make_task("t2"))
    agent.kill("t2", grace_s=0.0)
    assert agent.one(fx.Kill).grace_s == 0.0


def test_a_second_kill_may_only_shorten_the_grace(agent: Driver) -> None:
    agent.run(make_task())
    agent.kill(grace_s=30.0)
    agent.kill(grace_s=60.0)
    assert agent.none(fx.Kill)
    agent.now += 2
    agent.kill(grace_s=5.0)
    assert agent.one(fx.Kill).grace_s == 5.0
    agent.kill(grace_s=29.0)
    assert agent.none(fx.Kill)


def test_killing_is_told_to_frameworks_that_know_the_state(agent: Driver) -> None:
    agent.run(make_task(), killing=True)
    agent.kill()
    assert agent.status().state is TaskState.KILLING
    agent.kill(grace_s=0.0)
    assert agent.statuses() == [], "once"
    assert agent.one(fx.Kill).grace_s == 0.0
    agent.exit(signal=15)
    assert agent.status().state is TaskState.KILLED


def test_a_kill_while_fetching_ends_the_task_at_once_and_for_good(agent: Driver) -> None:
    agent.launch(make_task(command=WITH_URI))
    container_id = agent.task().container_id
    agent.kill()
    assert agent.one(fx.CancelFetch).container_id == container_id
    status = agent.status()
    assert (status.state, status.reason) == (TaskState.KILLED, Reason.TASK_KILLED_DURING_LAUNCH)
    agent.tell(Fetched(container_id))
    assert agent.effects == []


def test_a_kill_during_the_start_takes_the_start_back(agent: Driver) -> None:
    agent.launch(make_task())
    agent.acknowledge()
    agent.kill()
    container_id = agent.one(fx.Abort).container_id
    assert agent.statuses() == []
    agent.tell(StartFailed(container_id, "taken back", aborted=True))
    status = agent.status()
    assert (status.state, status.reason) == (TaskState.KILLED, Reason.TASK_KILLED_DURING_LAUNCH)
    assert agent.one(fx.Remove).container_id == container_id


def test_a_start_that_ends_just_before_it_is_taken_back_is_killed_with_the_rest_of_the_grace(agent: Driver) -> None:
    agent.launch(make_task())
    agent.kill(grace_s=5.0)
    agent.now += 2
    agent.started()
    assert agent.one(fx.Kill).grace_s == 3.0
    agent.exit(signal=15)
    agent.acknowledge_all()
    assert agent.core.state.completed[-1].state is TaskState.KILLED


def test_a_start_that_is_not_taken_back_in_time_is_given_up_and_discarded(agent: Driver) -> None:
    agent.launch(make_task())
    agent.acknowledge()
    agent.kill()
    agent.wait(agent.config.kill_retry_s)
    assert agent.status().state is TaskState.KILLED
    assert agent.one(fx.Discard)
    container_id = agent.task().container_id
    agent.tell(Started(Launched(container_id=container_id, pid=5)))
    assert agent.one(fx.Discard).container_id == container_id


def test_a_task_that_outlives_its_kill_is_killed_again_without_grace(agent: Driver) -> None:
    agent.run(make_task())
    agent.kill(grace_s=4.0)
    agent.tell(KillFailed(agent.task().container_id, "Docker does not answer"))
    assert agent.notes() == ["kill failed"]
    agent.wait(4.0 + agent.config.kill_retry_s)
    assert agent.one(fx.Kill).grace_s == 0.0
    agent.wait(agent.config.kill_retry_s)
    assert agent.one(fx.Kill).grace_s == 0.0
    agent.exit(signal=9)
    agent.wait(1000)
    assert agent.none(fx.Kill)


def test_a_kill_of_an_unknown_task_only_leaves_a_note(agent: Driver) -> None:
    agent.order(KillTask(agent.epoch, FRAMEWORK, "nope"))  # type: ignore[arg-type]
    assert agent.notes() == ["kill ignored"]
    assert agent.none(fx.Send, Persist)


def test_a_task_over_its_max_completion_time_fails_with_that_reason(agent: Driver) -> None:
    agent.run(make_task(max_completion_s=60.0, kill_grace_s=2.0))
    agent.wait(59.9)
    assert agent.none(fx.Kill)
    agent.wait(0.1)
    assert agent.one(fx.Kill).grace_s == 2.0
    agent.exit(signal=15)
    status = agent.status()
    assert (status.state, status.reason) == (TaskState.FAILED, Reason.MAX_COMPLETION_TIME_REACHED)


def test_a_kill_that_comes_after_the_max_completion_time_only_shortens(agent: Driver) -> None:
    agent.run(make_task(max_completion_s=10.0, kill_grace_s=20.0))
    agent.wait(10.0)
    agent.kill(grace_s=1.0)
    assert agent.one(fx.Kill).grace_s == 1.0
    agent.exit(signal=9)
    assert agent.status().reason is Reason.MAX_COMPLETION_TIME_REACHED


def test_a_removed_framework_has_all_its_tasks_ended(agent: Driver) -> None:
    agent.run(make_task("t1"))
    agent.launch(make_task("t2", command=WITH_URI))
    agent.order(ShutdownFramework(agent.epoch, FRAMEWORK))
    assert [e.container_id for e in agent.all(fx.Kill)] == [agent.task("t1").container_id]
    assert agent.status().reason is Reason.FRAMEWORK_REMOVED
    agent.exit("t1", signal=15)
    assert (agent.status().state, agent.status().reason) == (TaskState.KILLED, Reason.FRAMEWORK_REMOVED)
    agent.acknowledge_all("t1")
    agent.acknowledge_all("t2")
    agent.order(ShutdownFramework(agent.epoch, FRAMEWORK))
    assert f"frameworks/{FRAMEWORK}" not in agent.records


# Watchdogs.


def test_a_fetch_that_never_ends_fails_the_task_naming_the_stage(agent: Driver) -> None:
    agent.launch(make_task(command=WITH_URI))
    agent.wait(agent.config.fetch_timeout_s)
    assert agent.one(fx.CancelFetch)
    assert (agent.status().state, agent.status().reason) == (TaskState.FAILED, Reason.CONTAINER_LAUNCH_FAILED)
    assert "fetching uris took longer than 900 s" in (agent.status().message or "")


def test_a_start_that_never_ends_fails_the_task_naming_the_stage_and_leaves_nothing(agent: Driver) -> None:
    agent.launch(make_task(container=DOCKER))
    agent.acknowledge()
    agent.wait(agent.config.start_timeout_s)
    assert "start by docker took longer than 300 s" in (agent.status().message or "")
    assert agent.one(fx.Abort)
    assert agent.one(fx.Discard).runtime == "docker"
    container_id = agent.task().container_id
    agent.acknowledge()
    agent.tell(DiscardFailed("docker", container_id, "Docker does not answer"))
    agent.wait(30.0)
    assert agent.one(fx.Discard).container_id == container_id


def test_a_runtime_that_loses_sight_of_a_task_is_asked_again(agent: Driver) -> None:
    agent.run(make_task())
    container_id = agent.task().container_id
    agent.tell(WaitFailed(container_id, "Docker does not answer"))
    assert agent.task().stage is Stage.RUNNING
    agent.wait(5.0)
    assert agent.one(fx.Wait).container_id == container_id


def test_a_task_that_nobody_knows_any_more_has_failed(agent: Driver) -> None:
    agent.run(make_task())
    agent.tell(WaitFailed(agent.task().container_id, "container x is not known", gone=True))
    assert (agent.status().state, agent.status().reason) == (TaskState.FAILED, Reason.EXECUTOR_TERMINATED)


def test_inputs_of_unknown_containers_change_nothing(agent: Driver) -> None:
    nobody = ContainerId("nobody")
    for input in (Fetched(nobody), StartFailed(nobody, "x"), WaitFailed(nobody, "x"), KillFailed(nobody, "x")):
        agent.tell(input)
        assert agent.effects == []
    agent.tell(Started(Launched(container_id=nobody)))
    assert agent.effects == []


def test_tasks_of_one_id_and_two_frameworks_do_not_meet(agent: Driver) -> None:
    agent.run(make_task())
    other = msgspec.structs.replace(make_framework(), id=FrameworkId("m-0001"))
    agent.order(RunTask(agent.epoch, other, "web", make_task()))
    assert agent.one(fx.Start)
    agent.kill()
    assert agent.one(fx.Abort if agent.all(fx.Abort) else fx.Kill).container_id == agent.task().container_id


def test_a_launch_writes_two_records_and_each_later_step_one(agent: Driver) -> None:
    agent.launch(make_task("t0"))
    agent.launch(make_task("t1"))
    assert len(persists(agent.effects)) == 2, "the framework is known: the order and the run"
    agent.started("t1")
    (only,) = persists(agent.effects)
    assert isinstance(only.record, RunRecord)
    assert [s.state for s in only.record.pending] == [TaskState.STARTING, TaskState.RUNNING]


def test_the_latest_state_is_told_beside_the_oldest_update(agent: Driver) -> None:
    agent.launch(make_task())
    agent.started()
    agent.wait(10.0)
    (sent,) = agent.all(fx.Send)
    assert isinstance(sent.report, UpdateTask)
    assert (sent.report.status.state, sent.report.latest) == (TaskState.STARTING, TaskState.RUNNING)
