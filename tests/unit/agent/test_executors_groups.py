"""Groups of tasks on the agent's own executor: they start together and share a sandbox and their end."""

import msgspec
import pytest
from agent_driver import FRAMEWORK, Driver, make_framework, make_task

from corral.agent import effects as fx
from corral.agent.spec import Probed, StartFailed
from corral.model.container import ContainerInfo, ContainerKind, NetworkInfo, PortMapping, Volume, make_image
from corral.model.flags import parse_resources
from corral.model.health import CheckKind, HealthCheck
from corral.model.ids import ExecutorId, TaskId
from corral.model.orders import ExecutorEnded, RunGroup, ShutdownExecutor, ShutdownFramework
from corral.model.task import CommandInfo, ExecutorInfo, Reason, Source, TaskInfo, TaskState, Uri

POD = ExecutorInfo(
    executor_id=ExecutorId("pod"),
    framework_id=FRAMEWORK,
    resources=parse_resources("cpus:0.1;mem:32;disk:10"),
    kind="DEFAULT",
)
KEY = (FRAMEWORK, ExecutorId("pod"))


def member(task_id: str, **more: object) -> TaskInfo:
    return make_task(task_id, executor=POD, **more)


def launch(agent: Driver, *infos: TaskInfo, starts: bool = True, aware: bool = True) -> None:
    agent.order(RunGroup(agent.epoch, make_framework(aware=aware), "web", infos, starts))


def run(agent: Driver, *infos: TaskInfo) -> None:
    launch(agent, *infos)
    for info in infos:
        agent.started(info.task_id)
    for info in infos:
        agent.acknowledge_all(info.task_id)


def ended(agent: Driver) -> list[ExecutorEnded]:
    return [e.report for e in agent.all(fx.Send) if isinstance(e.report, ExecutorEnded)]


def test_the_tasks_of_a_group_start_together_each_in_a_directory_of_the_executors_sandbox(agent: Driver) -> None:
    launch(agent, member("a"), member("b"))
    first, second = (effect.execution for effect in agent.all(fx.Start))
    executor = agent.core.state.executors[KEY]
    assert first.sandbox == f"{executor.sandbox}/tasks/a"
    assert second.sandbox == f"{executor.sandbox}/tasks/b"
    environment = dict(first.environment)
    assert (environment["MESOS_EXECUTOR_ID"], environment["MESOS_TASK_ID"]) == ("pod", "a")
    assert environment["MESOS_CONTAINER_IP"] == "10.0.0.1"
    (status, _) = agent.statuses()
    assert (status.executor_id, status.state, status.source) == ("pod", TaskState.STARTING, Source.EXECUTOR)
    assert status.container_status is not None
    assert status.container_status.parent == executor.container_id
    assert status.container_status.container_id == agent.task("a").container_id


def test_a_directory_of_the_executor_is_shared(agent: Driver) -> None:
    shared = Volume(container_path="data", host_path="exchange", of_executor=True)
    info = member("a", container=ContainerInfo(kind=ContainerKind.MESOS, volumes=(shared,)))
    launch(agent, info)
    start = agent.one(fx.Start)
    source = f"{agent.core.state.executors[KEY].sandbox}/exchange"
    assert start.directories == (source,)
    (mount,) = start.execution.mounts
    assert (mount.source, mount.target) == (source, "data")


def boxed(**more: object) -> ContainerInfo:
    return ContainerInfo(kind=ContainerKind.MESOS, docker=make_image("busybox", ()), **more)


def networked(*networks: NetworkInfo) -> ExecutorInfo:
    return msgspec.structs.replace(POD, container=ContainerInfo(kind=ContainerKind.MESOS, network_infos=networks))


def test_a_task_of_a_group_may_have_an_image_beside_one_that_has_none(agent: Driver) -> None:
    shared = Volume(container_path="/data", host_path="exchange", of_executor=True)
    launch(agent, member("a", container=boxed(volumes=(shared,))), member("b"))
    first, second = agent.all(fx.Start)
    assert (first.runtime, second.runtime) == ("docker", "process")
    assert (first.execution.shared, first.execution.at_home) == (None, True)
    executor = agent.core.state.executors[KEY]
    mounts = [(mount.source, mount.target) for mount in first.execution.mounts]
    assert mounts == [(f"{executor.sandbox}/tasks/a", "/mnt/mesos/sandbox"), (f"{executor.sandbox}/exchange", "/data")]
    agent.started("b")
    agent.started("a")
    agent.exit("b", code=1)
    assert agent.one(fx.Kill).container_id == agent.task("a").container_id


@pytest.mark.parametrize(
    ("command", "argv", "appended"),
    [
        (CommandInfo(value="run it"), ("/bin/sh", "-c", "run it"), False),
        (CommandInfo(shell=False), (), True),
        (CommandInfo(shell=False, arguments=("-v", "x")), ("-v", "x"), True),
        (CommandInfo(shell=False, value="tail", arguments=("tail", "-f", "x")), ("tail", "-f", "x"), False),
    ],
)
def test_a_command_takes_the_place_of_the_images_own_or_is_handed_to_it(
    agent: Driver, command: CommandInfo, argv: tuple[str, ...], appended: bool
) -> None:
    launch(agent, member("a", container=boxed(), command=command))
    execution = agent.execution()
    assert (execution.argv, execution.entrypoint_args) == (argv, appended)


def test_tasks_of_a_group_share_the_network_of_their_executor(agent: Driver) -> None:
    mappings = (PortMapping(container_port=80, host_port=31000), PortMapping(container_port=53, host_port=31001))
    executor = networked(NetworkInfo(name="blue", port_mappings=mappings[:1]), NetworkInfo(),
                         NetworkInfo(name="red", port_mappings=mappings))  # fmt: skip
    own = (NetworkInfo(name="green"),)
    apart = ContainerInfo(kind=ContainerKind.MESOS, docker=make_image("busybox", own), network_infos=own)
    infos = [
        msgspec.structs.replace(member(name, container=container), executor=executor)
        for name, container in (("a", boxed()), ("b", boxed()), ("c", apart))
    ]
    launch(agent, *infos)
    first, second, third = (start.execution for start in agent.all(fx.Start))
    assert first.shared == second.shared
    assert first.shared is not None
    assert first.shared.id == agent.core.state.executors[KEY].container_id
    assert (first.shared.networks, first.shared.port_mappings) == (("blue", "red"), mappings)
    assert first.port_mappings == ()
    assert dict(first.environment)["CORRAL_PORT_MAPPING"] == "80:31000/tcp,53:31001/tcp"
    assert (third.shared, third.network) == (None, "green")
    agent.started("a", ip="172.17.0.2")
    (told,) = agent.statuses()
    assert told.container_status is not None
    assert told.container_status.network_infos[0].ip_addresses == ("172.17.0.2",)


@pytest.mark.parametrize(
    ("container", "network", "words"),
    [
        (None, "blue", "cannot join network blue of its executor"),
        (boxed(hostname="x"), "blue", "set hostname on the executor"),
        (boxed(), "host", "which is the node's"),
        (boxed(), "container:other", "no name of one"),
    ],
)
def test_a_task_that_cannot_share_its_executors_network_is_refused_with_its_group(
    agent: Driver, container: ContainerInfo | None, network: str, words: str
) -> None:
    executor = networked(NetworkInfo(name=network))
    launch(agent, msgspec.structs.replace(member("a", container=container), executor=executor))
    status = agent.status()
    assert (status.state, status.reason) == (TaskState.ERROR, Reason.TASK_GROUP_INVALID)
    assert words in (status.message or "")


@pytest.mark.parametrize("path", ["..", "", "../x", "/etc"])
def test_a_shared_directory_that_leaves_the_executors_sandbox_fails_the_group(agent: Driver, path: str) -> None:
    shared = Volume(container_path="data", host_path=path, of_executor=True)
    info = member("a", container=ContainerInfo(kind=ContainerKind.MESOS, volumes=(shared,)))
    launch(agent, info, member("b"))
    assert [(s.state, s.reason) for s in agent.statuses()] == [(TaskState.ERROR, Reason.TASK_GROUP_INVALID)] * 2


@pytest.mark.parametrize(
    ("how", "state"), [({"code": 1}, TaskState.FAILED), ({"signal": 9}, TaskState.FAILED)], ids=["code", "signal"]
)
def test_a_task_that_fails_takes_the_others_of_its_group_along(
    agent: Driver, how: dict[str, int], state: TaskState
) -> None:
    run(agent, member("a"), member("b"), member("c"))
    agent.exit("a", **how)
    assert agent.status().state is state
    assert {e.container_id for e in agent.all(fx.Kill)} == {agent.task(t).container_id for t in "bc"}
    agent.exit("b", signal=15)
    assert agent.status().state is TaskState.KILLED
    assert "task a of its group ended as TASK_FAILED" in (agent.status().message or "")
    assert ended(agent) == []
    agent.exit("c", signal=15)
    assert [(e.executor_id, e.status) for e in ended(agent)] == [("pod", 0)]


def test_a_task_that_finishes_leaves_the_others_alone(agent: Driver) -> None:
    run(agent, member("a"), member("b"))
    agent.exit("a", code=0)
    assert agent.none(fx.Kill)
    agent.exit("b", code=0)
    assert agent.status().state is TaskState.FINISHED
    assert len(ended(agent)) == 1


def test_killing_one_kills_its_group_and_no_other(agent: Driver) -> None:
    run(agent, member("a", kill_grace_s=9.0), member("b"))
    launch(agent, member("x"), member("y"), starts=False)
    agent.kill("b", grace_s=1.0)
    kills = {e.container_id: e.grace_s for e in agent.all(fx.Kill)}
    assert kills == {agent.task("b").container_id: 1.0}
    agent.exit("b", signal=15)
    kills = {e.container_id: e.grace_s for e in agent.all(fx.Kill)}
    assert kills == {agent.task("a").container_id: 9.0}
    agent.exit("a", signal=15)
    assert ended(agent) == []
    assert {t.info.task_id for t in agent.core.state.executors[KEY].live_tasks} == {"x", "y"}


def test_a_kill_while_uris_are_fetched_ends_all_before_they_ran(agent: Driver) -> None:
    fetching = CommandInfo(value="true", uris=(Uri(value="/x"),))
    launch(agent, member("a", command=fetching), member("b", command=fetching))
    agent.kill("a")
    assert [(s.task_id, s.state, s.reason) for s in agent.statuses()] == [
        (t, TaskState.KILLED, Reason.TASK_KILLED_DURING_LAUNCH) for t in ("a", "b")
    ]
    assert len(ended(agent)) == 1


def test_a_task_that_does_not_start_fails_its_group(agent: Driver) -> None:
    launch(agent, member("a"), member("b"))
    agent.started("b")
    agent.tell(StartFailed(agent.task("a").container_id, "no such command"))
    assert agent.status().reason is Reason.CONTAINER_LAUNCH_FAILED
    assert agent.task("b").ending is not None


@pytest.mark.parametrize(
    ("bad", "state", "reason"),
    [
        ({"unsupported": ("x",)}, TaskState.ERROR, Reason.TASK_GROUP_INVALID),
        ({"command": CommandInfo()}, TaskState.ERROR, Reason.TASK_GROUP_INVALID),
        ({"command": None}, TaskState.ERROR, Reason.TASK_GROUP_INVALID),
        ({"resources": parse_resources("ports:[31000-31000]")}, TaskState.DROPPED, Reason.RESOURCES_UNKNOWN),
        ({"resources": parse_resources("ports:[31001-31001]")}, TaskState.ERROR, Reason.TASK_GROUP_INVALID),
    ],
)
def test_one_task_that_cannot_be_taken_refuses_the_whole_group(
    agent: Driver, bad: dict[str, object], state: TaskState, reason: Reason
) -> None:
    agent.run(make_task("other", "ports:[31000-31000]"))
    launch(agent, member("a", resources="ports:[31001-31001]"), msgspec.structs.replace(member("b"), **bad))
    assert [(s.task_id, s.state, s.reason) for s in agent.statuses()] == [("a", state, reason), ("b", state, reason)]
    assert agent.none(fx.Start)
    assert len(ended(agent)) == 1
    agent.acknowledge_all("a")
    agent.acknowledge_all("b")
    launch(agent, member("a", resources="ports:[31001-31001]"))
    assert agent.one(fx.Start)


def test_a_group_for_an_executor_that_has_just_ended_is_dropped(agent: Driver) -> None:
    run(agent, member("a"))
    agent.exit("a", code=0)
    launch(agent, member("b"), starts=False)
    assert (agent.status().state, agent.status().reason) == (TaskState.DROPPED, Reason.EXECUTOR_TERMINATED)


def test_a_failed_health_check_in_a_group_ends_it_all(agent: Driver) -> None:
    check = HealthCheck(kind=CheckKind.TCP, port=80, delay_s=0.0, interval_s=1.0, grace_s=0.0, consecutive_failures=1)
    run(agent, member("a", health_checks=(check,)), member("b"))
    agent.wait(0.1)
    probe = agent.one(fx.Probe)
    agent.tell(Probed(probe.container_id, probe.index, why="refused"))
    agent.exit("a", signal=15)
    assert (agent.status().state, agent.status().healthy) == (TaskState.KILLED, False)
    assert agent.one(fx.Kill).container_id == agent.task("b").container_id


def test_shutting_the_executor_down_kills_its_groups(agent: Driver) -> None:
    run(agent, member("a"), member("b"))
    agent.order(ShutdownExecutor(1, FRAMEWORK, ExecutorId("pod")))
    assert len(agent.all(fx.Kill)) == 2
    agent.exit("a", signal=15)
    assert agent.status().state is TaskState.KILLED
    agent.exit("b", signal=15)
    assert len(ended(agent)) == 1


def test_a_removed_framework_ends_its_groups_for_that_reason(agent: Driver) -> None:
    run(agent, member("a"), member("b"))
    agent.order(ShutdownFramework(1, FRAMEWORK))
    for task_id in ("a", "b"):
        agent.exit(task_id, signal=15)
        assert agent.status().reason is Reason.FRAMEWORK_REMOVED


def test_after_a_restart_a_group_runs_on_and_still_shares_its_end(agent: Driver) -> None:
    run(agent, member("a"), member("b"))
    found = [agent.found("a"), agent.found("b")]
    agent.start()
    agent.recover(*found)
    agent.recover(runtime="docker")
    agent.register()
    assert KEY in agent.core.state.executors
    agent.exit("b", code=7)
    assert agent.one(fx.Kill).container_id == agent.task("a").container_id
    agent.exit("a", signal=15)
    assert len(ended(agent)) == 1


def test_a_task_lost_in_a_restart_takes_its_group_along(agent: Driver) -> None:
    run(agent, member("a"), member("b"))
    found = agent.found("a")
    agent.start()
    agent.recover(found)
    assert agent.task("b").state is TaskState.FAILED
    kill = agent.one(fx.Kill)
    assert kill.container_id == found.container_id
    assert TaskId("a") in agent.core.state.executors[KEY].tasks


def test_the_sandbox_of_the_whole_group_is_cleared_away_when_its_executor_has_ended(agent: Driver) -> None:
    run(agent, member("a"), member("b"))
    sandbox = agent.core.state.executors[KEY].sandbox
    agent.exit("a", code=0)
    assert not agent.core.state.ended
    agent.exit("b", code=0)
    assert [s.path for s in agent.core.state.ended] == [sandbox]
