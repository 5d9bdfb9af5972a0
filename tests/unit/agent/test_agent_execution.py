"""From what a framework ordered to what a runtime is given."""

import msgspec
import pytest
from agent_driver import AGENT, CONFIG, FRAMEWORK, make_framework, make_task

from corral.agent.execution import Plan, choose_runtime, plan_execution, sandbox_path
from corral.agent.spec import AgentConfig, TaskRecord
from corral.lib.errors import Invalid
from corral.model.container import (
    ContainerInfo,
    ContainerKind,
    DockerInfo,
    NetworkInfo,
    NetworkMode,
    PortMapping,
    Volume,
    VolumeMode,
)
from corral.model.execution import Mount
from corral.model.ids import ContainerId, TaskId
from corral.model.task import CommandInfo, Label, TaskInfo

CONTAINER = ContainerId("c1")
SANDBOX = sandbox_path("/var/corral", AGENT, FRAMEWORK, TaskId("t1"), CONTAINER)


def plan(info: TaskInfo, config: AgentConfig = CONFIG, **framework: object) -> Plan:
    record = TaskRecord(FRAMEWORK, "web", info, CONTAINER, choose_runtime(info), SANDBOX)
    return plan_execution(config, AGENT, make_framework(**framework), record)  # type: ignore[arg-type]


def docker(*volumes: Volume, **more: object) -> ContainerInfo:
    return ContainerInfo(
        kind=ContainerKind.DOCKER,
        docker=DockerInfo(image="busybox", **more),  # type: ignore[arg-type]
        volumes=volumes,
    )


def test_the_sandbox_is_where_mesos_tools_look_for_it() -> None:
    assert SANDBOX == "/var/corral/slaves/m-S0/frameworks/m-0000/executors/t1/runs/c1"


@pytest.mark.parametrize(
    ("command", "container", "argv", "entrypoint_args"),
    [
        (CommandInfo(value="echo $HOME"), None, ("/bin/sh", "-c", "echo $HOME"), False),
        (CommandInfo(value="echo", arguments=("ignored",)), None, ("/bin/sh", "-c", "echo"), False),
        (CommandInfo(shell=False, value="sleep", arguments=("sleep", "5")), None, ("sleep", "5"), False),
        (CommandInfo(shell=False, value="/bin/true"), None, ("/bin/true",), False),
        (CommandInfo(value="echo hi"), docker(), ("/bin/sh", "-c", "echo hi"), False),
        (CommandInfo(shell=False), docker(), (), True),
        (CommandInfo(shell=False, arguments=("-p", "80")), docker(), ("-p", "80"), True),
        (CommandInfo(shell=False, value="httpd", arguments=("-f",)), docker(), ("httpd", "-f"), True),
    ],
)
def test_commands_become_argv(
    command: CommandInfo, container: ContainerInfo | None, argv: tuple[str, ...], entrypoint_args: bool
) -> None:
    execution = plan(make_task(command=command, container=container)).execution
    assert (execution.argv, execution.entrypoint_args) == (argv, entrypoint_args)


def test_a_user_network_is_the_first_that_has_a_name() -> None:
    networks = (NetworkInfo(), NetworkInfo(name="overlay"), NetworkInfo(name="second"))
    named = msgspec.structs.replace(docker(network=NetworkMode.USER), network_infos=networks)
    execution = plan(make_task(container=named)).execution
    assert (execution.network, execution.more_networks) == ("overlay", ("second",))
    assert plan(make_task(container=docker())).execution.network is None


def test_only_an_image_needs_docker() -> None:
    assert choose_runtime(make_task()) == "process"
    assert choose_runtime(make_task(container=ContainerInfo(kind=ContainerKind.MESOS))) == "process"
    assert choose_runtime(make_task(container=docker())) == "docker"
    assert choose_runtime(make_task(container=ContainerInfo(kind=ContainerKind.DOCKER))) == "docker"


def test_a_process_is_given_the_environment_of_a_mesos_agent_and_corrals_own() -> None:
    found = dict(plan(make_task(), checkpoint=True).execution.environment)
    assert found == {
        "MESOS_AGENT_ENDPOINT": "10.0.0.1:4681",
        "MESOS_ALLOCATION_ROLE": "web",
        "MESOS_CHECKPOINT": "1",
        "MESOS_DIRECTORY": SANDBOX,
        "MESOS_EXECUTOR_ID": "t1",
        "MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD": "5secs",
        "MESOS_FRAMEWORK_ID": "m-0000",
        "MESOS_HTTP_COMMAND_EXECUTOR": "1",
        "MESOS_RECOVERY_TIMEOUT": "15mins",
        "MESOS_SANDBOX": SANDBOX,
        "MESOS_SLAVE_ID": "m-S0",
        "MESOS_SLAVE_PID": "slave(1)@10.0.0.1:4681",
        "MESOS_SUBSCRIPTION_BACKOFF_MAX": "2secs",
        "MESOS_TASK_ID": "t1",
        "CORRAL_HOST_IP": "10.0.0.1",
        "CORRAL_INSTANCE_ID": "t1",
        "CORRAL_TASK_ID": "t1",
        "CORRAL_ROLE": "web",
        "CORRAL_PORT_MAPPING": "",
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    }


def test_in_an_image_the_sandbox_is_at_its_mount_and_the_path_is_the_images() -> None:
    mapping = PortMapping(container_port=80, host_port=31005)
    execution = plan(make_task(container=docker(port_mappings=(mapping,)))).execution
    found = dict(execution.environment)
    assert found["MESOS_SANDBOX"] == "/mnt/mesos/sandbox"
    assert found["MESOS_DIRECTORY"] == SANDBOX
    assert found["MESOS_CONTAINER_NAME"] == "corral-c1"
    assert found["CORRAL_PORT_MAPPING"] == "80:31005/tcp"
    assert found["MESOS_CHECKPOINT"] == "0"
    assert "PATH" not in found
    assert "MESOS_RECOVERY_TIMEOUT" not in found
    assert execution.port_mappings == (mapping,)
    assert execution.mounts == (Mount(source=SANDBOX, target="/mnt/mesos/sandbox"),)


def test_what_the_command_sets_wins() -> None:
    command = CommandInfo(value="x", environment=(("PATH", "/opt"), ("MESOS_TASK_ID", "mine"), ("A", "1")))
    found = dict(plan(make_task(command=command)).execution.environment)
    assert (found["PATH"], found["MESOS_TASK_ID"], found["A"]) == ("/opt", "mine", "1")


def test_an_instance_is_named_by_its_label() -> None:
    info = make_task(labels=(Label(key="corral.instance", value="web.3"), Label(key="corral.group", value="/web")))
    execution = plan(info).execution
    assert dict(execution.environment)["CORRAL_INSTANCE_ID"] == "web.3"
    assert dict(execution.labels)["corral.group"] == "/web"


@pytest.mark.parametrize(
    ("volume", "mount", "made"),
    [
        (Volume(container_path="/etc/a", host_path="/data/a", mode=VolumeMode.RO), ("/data/a", "/etc/a", True), None),
        (Volume(container_path="/etc/b", host_path="/data/b"), ("/data/b", "/etc/b", False), None),
        (Volume(container_path="/etc/c", host_path="own"), ("SANDBOX/own", "/etc/c", False), "SANDBOX/own"),
        (Volume(container_path="/etc/d"), ("SANDBOX/etc/d", "/etc/d", False), "SANDBOX/etc/d"),
        (Volume(container_path="e", host_path="/data/e"), ("/data/e", "/mnt/mesos/sandbox/e", False), None),
        (Volume(container_path="f/g"), None, "SANDBOX/f/g"),
    ],
)
def test_volumes_of_an_image_become_mounts(
    volume: Volume, mount: tuple[str, str, bool] | None, made: str | None
) -> None:
    found = plan(make_task(container=docker(volume)))
    expected = ()
    if mount is not None:
        source, target, read_only = mount
        expected = (Mount(source=source.replace("SANDBOX", SANDBOX), target=target, read_only=read_only),)
    assert found.execution.mounts[1:] == expected
    assert found.directories == ((made.replace("SANDBOX", SANDBOX),) if made else ())


def test_without_an_image_a_relative_target_stays_relative() -> None:
    container = ContainerInfo(
        kind=ContainerKind.MESOS,
        volumes=(Volume(container_path="./data/", host_path="/srv/data"), Volume(container_path="/x", host_path="y")),
    )
    found = plan(make_task(container=container))
    assert found.execution.mounts == (
        Mount(source="/srv/data", target="data"),
        Mount(source=f"{SANDBOX}/y", target="/x"),
    )
    assert found.directories == (f"{SANDBOX}/y",)


@pytest.mark.parametrize(
    "volume",
    [
        Volume(container_path="/x", host_path="../../etc"),
        Volume(container_path="/x", host_path="a/../.."),
        Volume(container_path="../x", host_path="/srv"),
        Volume(container_path=""),
        Volume(container_path=".", host_path="/srv"),
    ],
)
def test_volumes_that_leave_the_sandbox_are_refused(volume: Volume) -> None:
    with pytest.raises(Invalid, match=r"leaves the sandbox|no container path"):
        plan(make_task(container=docker(volume)))


def test_resources_become_limits() -> None:
    execution = plan(make_task(resources="cpus:0.5;mem:512")).execution
    assert (execution.cpu_milli, execution.cpu_limit_milli, execution.mem_mb) == (500, None, 512)
    assert plan(make_task(resources="cpus:0.1;mem:4")).execution.mem_mb == 32
    assert plan(make_task(resources="cpus:0.1")).execution.mem_mb is None


def test_limits_of_their_own_win_over_resources() -> None:
    execution = plan(make_task(limits=(("cpus", 2000), ("mem", 1_024_000)))).execution
    assert (execution.cpu_milli, execution.cpu_limit_milli, execution.mem_mb) == (1000, 2000, 1024)
    unbounded = plan(make_task(limits=(("cpus", None), ("mem", None)))).execution
    assert (unbounded.cpu_limit_milli, unbounded.mem_mb) == (None, None)


def test_the_user_is_the_commands_or_the_frameworks_where_users_are_switched() -> None:
    switching = msgspec.structs.replace(CONFIG, switch_user=True)
    named = make_task(command=CommandInfo(value="x", user="web"))
    assert plan(make_task(), switching, user="ada").execution.user == "ada"
    assert plan(named, switching).execution.user == "web"
    assert plan(named).execution.user is None
    assert plan(make_task(container=docker()), switching).execution.user is None, "the image's own"
    imaged = make_task(command=CommandInfo(value="x", user="web"), container=docker())
    assert plan(imaged, switching).execution.user == "web"
    assert plan(named, switching).owner == "web"
    assert plan(imaged, switching).owner is None
