"""What an execution becomes for the Engine, and what the Engine's words become for us."""

import contextlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.docker.containers import (
    LEAST_MEMORY_MB,
    container_name,
    create_body,
    explain_pull,
    explain_start,
    has_ended,
    holder_body,
    never_started,
    read_addresses,
    read_exit,
    read_found,
    read_launched,
)
from corral.docker.parameters import PARAMETERS, REFUSED
from corral.lib.errors import Failed
from corral.model.container import DockerInfo, NetworkMode, Parameter, PortMapping
from corral.model.execution import Execution, Launched, Mount, SharedNetwork
from corral.model.ids import ContainerId, FrameworkId, TaskId


def execution(
    *parameters: tuple[str, str],
    network: NetworkMode = NetworkMode.HOST,
    privileged: bool = False,
    **changes: Any,
) -> Execution:
    docker = DockerInfo(
        image="libmesos/ubuntu",
        network=network,
        privileged=privileged,
        parameters=tuple(Parameter(key=key, value=value) for key, value in parameters),
    )
    plain: dict[str, Any] = {
        "container_id": ContainerId("c-1"),
        "task_id": TaskId("web.1"),
        "framework_id": FrameworkId("f-1"),
        "sandbox": "/sandboxes/c-1",
        "argv": ("/bin/sh", "-c", "while sleep 10; do date -u +%T; done"),
        "docker": docker,
    }
    return Execution(**plain | changes)


def body_of(*parameters: tuple[str, str], **changes: Any) -> dict[str, Any]:
    return create_body(execution(*parameters, **changes), "agent-1")


def host_of(*parameters: tuple[str, str], **changes: Any) -> dict[str, Any]:
    host: dict[str, Any] = body_of(*parameters, **changes)["HostConfig"]
    return host


def test_a_shell_command_takes_the_place_of_the_images_entrypoint() -> None:
    body = body_of()
    assert body["Image"] == "libmesos/ubuntu"
    assert body["Entrypoint"] == ["/bin/sh"]
    assert body["Cmd"] == ["-c", "while sleep 10; do date -u +%T; done"]


def test_arguments_alone_leave_the_images_entrypoint() -> None:
    body = body_of(argv=("-v", "start"), entrypoint_args=True)
    assert body["Cmd"] == ["-v", "start"]
    assert "Entrypoint" not in body


def test_without_a_command_the_image_runs_its_own() -> None:
    body = body_of(argv=())
    assert "Cmd" not in body
    assert "Entrypoint" not in body


def test_a_flag_for_the_entrypoint_keeps_the_arguments_of_the_command() -> None:
    body = body_of(("entrypoint", "/bin/bash"))
    assert body["Entrypoint"] == ["/bin/bash"]
    assert body["Cmd"][0] == "-c"


def test_labels_let_an_agent_find_its_container_again() -> None:
    labels = body_of(labels=(("team", "a"),))["Labels"]
    assert labels == {
        "team": "a",
        "corral.container": "c-1",
        "corral.task": "web.1",
        "corral.framework": "f-1",
        "corral.agent": "agent-1",
        "corral.sandbox": "/sandboxes/c-1",
    }


def test_labels_of_a_task_cannot_pose_as_the_agents() -> None:
    assert body_of(labels=(("corral.agent", "other"),))["Labels"]["corral.agent"] == "agent-1"
    with pytest.raises(Failed, match="the agent's own"):
        body_of(("label", "corral.agent=other"))


def test_volumes_and_the_sandbox_are_bound() -> None:
    mounts = (
        Mount(source="/var/data/a", target="/etc/a", read_only=True),
        Mount(source="/var/data/b", target="/etc/b"),
    )
    assert host_of(mounts=mounts)["Binds"] == [
        "/sandboxes/c-1:/mnt/mesos/sandbox:rw",
        "/var/data/a:/etc/a:ro",
        "/var/data/b:/etc/b:rw",
    ]


def test_a_sandbox_that_the_agent_has_bound_is_not_bound_twice() -> None:
    mounts = (Mount(source="/elsewhere", target="/mnt/mesos/sandbox"),)
    assert host_of(mounts=mounts)["Binds"] == ["/elsewhere:/mnt/mesos/sandbox:rw"]


@pytest.mark.parametrize("mount", [("relative", "/t"), ("/s", "relative"), ("/s:x", "/t"), ("/s", "/t:ro")])
def test_a_volume_path_that_docker_would_misread_is_refused(mount: tuple[str, str]) -> None:
    with pytest.raises(Failed, match="must be absolute and hold no colon"):
        body_of(mounts=(Mount(source=mount[0], target=mount[1]),))


def test_limits_are_translated() -> None:
    host = host_of(cpu_milli=500, cpu_limit_milli=1250, mem_mb=512)
    assert (host["CpuShares"], host["NanoCpus"]) == (512, 1_250_000_000)
    assert (host["Memory"], host["MemorySwap"]) == (512 << 20, 512 << 20)


def test_no_limits_set_none() -> None:
    host = host_of()
    assert not {"CpuShares", "NanoCpus", "Memory", "MemorySwap"} & host.keys()


def test_a_little_is_raised_to_what_a_container_needs() -> None:
    host = host_of(cpu_milli=1, mem_mb=1)
    assert host["CpuShares"] == 2
    assert host["Memory"] == LEAST_MEMORY_MB << 20


def test_a_flag_may_allow_swap() -> None:
    host = host_of(("memory-swap", "-1"), mem_mb=64)
    assert (host["Memory"], host["MemorySwap"]) == (64 << 20, -1)


def test_ports_are_published_on_the_bridge() -> None:
    mappings = (
        PortMapping(container_port=80, host_port=31000),
        PortMapping(container_port=53, host_port=31001, protocol="udp,tcp"),
        PortMapping(container_port=9000),
    )
    body = body_of(network=NetworkMode.BRIDGE, port_mappings=mappings)
    assert body["HostConfig"]["NetworkMode"] == "bridge"
    assert body["ExposedPorts"] == {"80/tcp": {}, "53/udp": {}, "53/tcp": {}, "9000/tcp": {}}
    assert body["HostConfig"]["PortBindings"] == {
        "80/tcp": [{"HostPort": "31000"}],
        "53/udp": [{"HostPort": "31001"}],
        "53/tcp": [{"HostPort": "31001"}],
    }


def test_two_host_ports_may_lead_to_one_port_inside() -> None:
    mappings = (PortMapping(container_port=80, host_port=31000), PortMapping(container_port=80, host_port=31001))
    host = host_of(network=NetworkMode.BRIDGE, port_mappings=mappings)
    assert host["PortBindings"] == {"80/tcp": [{"HostPort": "31000"}, {"HostPort": "31001"}]}


@pytest.mark.parametrize("network", [NetworkMode.HOST, NetworkMode.NONE])
def test_ports_mean_nothing_where_nothing_is_mapped(network: NetworkMode) -> None:
    body = body_of(network=network, port_mappings=(PortMapping(container_port=80, host_port=31000),))
    assert "ExposedPorts" not in body
    assert "PortBindings" not in body["HostConfig"]


def on_network(name: str | None, *parameters: tuple[str, str]) -> dict[str, Any]:
    wanted = execution(*parameters, network=NetworkMode.USER)
    return create_body(msgspec.structs.replace(wanted, network=name), "agent-1")


def test_a_user_network_is_named_by_the_task() -> None:
    body = on_network("blue", ("net-alias", "db"), ("network-alias", "store"))
    assert body["HostConfig"]["NetworkMode"] == "blue"
    assert body["NetworkingConfig"] == {"EndpointsConfig": {"blue": {"Aliases": ["db", "store"]}}}


def test_a_user_network_without_a_name_is_refused() -> None:
    with pytest.raises(Failed, match="names none"):
        on_network(None)


def test_an_alias_outside_of_a_user_network_is_refused() -> None:
    with pytest.raises(Failed, match="needs a user network, not bridge"):
        body_of(("net-alias", "db"), network=NetworkMode.BRIDGE)


def test_flags_win_over_the_environment_of_the_task() -> None:
    body = body_of(("env", "A=flag"), ("e", "NEW=1"), ("env", "GONE"), environment=(("A", "task"), ("GONE", "x")))
    assert body["Env"] == ["MESOS_CONTAINER_NAME=corral-c-1", "A=flag", "NEW=1", "GONE"]


def test_a_task_without_an_image_is_refused() -> None:
    with pytest.raises(Failed, match="names no image"):
        body_of(docker=None)


@pytest.mark.parametrize(
    ("flag", "value", "field", "wanted"),
    [
        ("add-host", "db:10.0.0.1", "ExtraHosts", ["db:10.0.0.1"]),
        ("cap-add", "NET_ADMIN", "CapAdd", ["NET_ADMIN"]),
        ("cap-drop", "ALL", "CapDrop", ["ALL"]),
        ("cpuset-cpus", "0,1", "CpusetCpus", "0,1"),
        ("cpus", "1.5", "NanoCpus", 1_500_000_000),
        ("device", "/dev/fuse", "Devices",
         [{"PathOnHost": "/dev/fuse", "PathInContainer": "/dev/fuse", "CgroupPermissions": "rwm"}]),
        ("device", "/dev/a:/dev/b:r", "Devices",
         [{"PathOnHost": "/dev/a", "PathInContainer": "/dev/b", "CgroupPermissions": "r"}]),
        ("device", "/dev/a:r", "Devices",
         [{"PathOnHost": "/dev/a", "PathInContainer": "/dev/a", "CgroupPermissions": "r"}]),
        ("dns", "10.0.0.2", "Dns", ["10.0.0.2"]),
        ("init", "true", "Init", True),
        ("ipc", "host", "IpcMode", "host"),
        ("log-driver", "syslog", "LogConfig", {"Type": "syslog", "Config": {}}),
        ("oom-kill-disable", "false", "OomKillDisable", False),
        ("pid", "host", "PidMode", "host"),
        ("privileged", "", "Privileged", True),
        ("read-only", "1", "ReadonlyRootfs", True),
        ("security-opt", "seccomp=unconfined", "SecurityOpt", ["seccomp=unconfined"]),
        ("shm-size", "64m", "ShmSize", 64 << 20),
        ("sysctl", "net.core.somaxconn=1024", "Sysctls", {"net.core.somaxconn": "1024"}),
        ("tmpfs", "/run:size=1m", "Tmpfs", {"/run": "size=1m"}),
        ("ulimit", "nofile=10:20", "Ulimits", [{"Name": "nofile", "Soft": 10, "Hard": 20}]),
        ("ulimit", "core=0", "Ulimits", [{"Name": "core", "Soft": 0, "Hard": 0}]),
        ("m", "1g", "Memory", 1 << 30),
    ],
)  # fmt: skip
def test_a_flag_of_docker_run_sets_its_field(flag: str, value: str, field: str, wanted: object) -> None:
    assert host_of((flag, value))[field] == wanted


@pytest.mark.parametrize(
    ("flag", "value", "field", "wanted"),
    [
        ("hostname", "web", "Hostname", "web"),
        ("mac-address", "02:00:00:00:00:01", "MacAddress", "02:00:00:00:00:01"),
        ("stop-signal", "SIGQUIT", "StopSignal", "SIGQUIT"),
        ("stop-timeout", "30", "StopTimeout", 30),
        ("user", "1000:1000", "User", "1000:1000"),
        ("workdir", "/srv", "WorkingDir", "/srv"),
        ("volume", "/data", "Volumes", {"/data": {}}),
        ("no-healthcheck", "true", "Healthcheck", {"Test": ["NONE"]}),
    ],
)
def test_a_flag_may_set_the_container_itself(flag: str, value: str, field: str, wanted: object) -> None:
    assert body_of((flag, value))[field] == wanted


def test_a_flag_given_twice_adds_or_replaces() -> None:
    host = host_of(("dns", "10.0.0.1"), ("dns", "10.0.0.2"), ("ipc", "private"), ("ipc", "host"), ("v", "/a:/b"))
    assert host["Dns"] == ["10.0.0.1", "10.0.0.2"]
    assert host["IpcMode"] == "host"
    assert host["Binds"][-1] == "/a:/b"


def test_log_options_keep_the_default_drivers_others() -> None:
    config = host_of(("log-opt", "max-size=1m"))["LogConfig"]
    assert config["Type"] == "json-file"
    assert config["Config"]["max-size"] == "1m"
    assert "max-file" in config["Config"]


def test_an_unknown_flag_is_named() -> None:
    with pytest.raises(Failed, match="docker parameter 'frobnicate' is not one that this agent knows"):
        body_of(("frobnicate", "1"))


@pytest.mark.parametrize("flag", ["restart", "name", "p", "net", "rm", "cgroup-parent"])
def test_a_flag_that_would_take_the_container_from_the_agent_is_refused(flag: str) -> None:
    with pytest.raises(Failed, match=f"docker parameter '{flag}' is not allowed: "):
        body_of((flag, "x"))


@pytest.mark.parametrize(
    ("flag", "value"),
    [("ulimit", "nofile"), ("cpus", "many"), ("init", "perhaps"), ("shm-size", "big"), ("pids-limit", "x"),
     ("sysctl", "=1")],
)  # fmt: skip
def test_a_value_that_a_flag_does_not_take_is_named_with_it(flag: str, value: str) -> None:
    with pytest.raises(Failed, match=f"docker parameter {flag}='{value}': "):
        body_of((flag, value))


def test_no_flag_is_both_known_and_refused() -> None:
    assert not PARAMETERS.keys() & REFUSED.keys()


@given(st.sampled_from(sorted(PARAMETERS)), st.text(max_size=20))
def test_any_value_of_any_flag_is_taken_or_refused_in_words(flag: str, value: str) -> None:
    with contextlib.suppress(Failed):
        assert body_of((flag, value))["Image"] == "libmesos/ubuntu"


@given(st.text(min_size=1, max_size=40))
def test_names_of_containers_are_ones_that_docker_takes(container_id: str) -> None:
    name = container_name(container_id)
    assert name.startswith("corral-")
    assert all(c.isascii() and (c.isalnum() or c in "_.-") for c in name)


# What the Engine tells.


def inspected(**state: Any) -> dict[str, Any]:
    began = {"Status": "exited", "Running": False, "StartedAt": "2026-01-01T00:00:00.5Z"}
    return {
        "Id": "e" * 64,
        "Config": {"Labels": body_of()["Labels"]},
        "HostConfig": {"Memory": 64 << 20},
        "NetworkSettings": {"Networks": {"bridge": {"IPAddress": "172.17.0.2"}}},
        "State": began | state,
    }


def test_the_pid_and_address_of_what_runs_are_read() -> None:
    running = inspected(Status="running", Running=True, Pid=4711)
    assert read_launched(ContainerId("c-1"), running) == Launched(
        container_id=ContainerId("c-1"), pid=4711, ip="172.17.0.2"
    )
    assert not has_ended(running)


def test_a_container_on_the_hosts_network_has_no_address() -> None:
    assert read_addresses({"NetworkSettings": {"Networks": {"host": {"IPAddress": ""}}}}) == ()
    assert read_addresses({}) == ()


def test_an_exit_is_read_with_its_time() -> None:
    exit = read_exit(ContainerId("c-1"), inspected(ExitCode=3, FinishedAt="2026-01-01T00:00:01.250000123Z"), None)
    assert (exit.code, exit.signal, exit.oom, exit.at) == (3, None, False, 1767225601.25)


@pytest.mark.parametrize(("code", "signal"), [(137, 9), (143, 15), (139, 11)])
def test_a_code_beyond_128_is_a_death_by_signal(code: int, signal: int) -> None:
    exit = read_exit(ContainerId("c-1"), inspected(ExitCode=code), None)
    assert (exit.code, exit.signal) == (None, signal)


@pytest.mark.parametrize("code", [128, 200, 255])
def test_a_high_code_that_is_no_signal_stays_a_code(code: int) -> None:
    exit = read_exit(ContainerId("c-1"), inspected(ExitCode=code), None)
    assert (exit.code, exit.signal) == (code, None)


@pytest.mark.parametrize(
    ("engine_says", "counted", "code", "limited", "oom"),
    [
        (True, None, 137, True, True),
        (True, None, 137, False, False),  # without a limit of its own it was marked for another's trouble
        (True, 0, 137, True, False),
        (False, 1, 137, True, True),  # the Engine was away
        (True, 1, 0, True, False),  # something in it was killed, and it went on to its good end
        (False, None, 1, True, False),
    ],
)
def test_who_is_ended_for_memory_is_told_by_its_own_count(
    engine_says: bool, counted: int | None, code: int, limited: bool, oom: bool
) -> None:
    seen = inspected(ExitCode=code, OOMKilled=engine_says)
    if not limited:
        seen["HostConfig"] = {"Memory": 0}
    assert read_exit(ContainerId("c-1"), seen, counted).oom is oom


def test_what_was_never_started_has_not_ended() -> None:
    for state in ({"Status": "created"}, {"StartedAt": "0001-01-01T00:00:00Z", "ExitCode": 127}):
        assert never_started(inspected(**state))
        assert not has_ended(inspected(**state))


def test_what_an_agent_left_is_found_by_its_labels() -> None:
    running = read_found(inspected(Status="running", Running=True, Pid=7))
    assert running is not None
    assert (running.container_id, running.task_id, running.framework_id) == ("c-1", "web.1", "f-1")
    assert running.launched is not None
    assert running.exit is None
    ended = read_found(inspected(ExitCode=1))
    assert ended is not None
    assert ended.launched is None
    assert ended.exit is not None


def test_a_container_of_somebody_else_is_none_of_ours() -> None:
    assert read_found({"Config": {"Labels": {"team": "a"}}, "State": {}}) is None


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (
            "driver failed programming external connectivity on endpoint x (7b): Error starting userland proxy: "
            "listen tcp4 0.0.0.0:31999: bind: address already in use",
            "port 31999 on this host is taken",
        ),
        ("driver failed: Bind for 0.0.0.0:80 failed: port is already allocated", "port 80 on this host is taken"),
        (
            'OCI runtime create failed: exec: "nosuch": executable file not found in $PATH: unknown',
            "command 'nosuch' not found in image libmesos/ubuntu",
        ),
        (
            'unable to start container process: exec: "/no/such": stat /no/such: no such file or directory: unknown',
            "command '/no/such' not found in image libmesos/ubuntu",
        ),
        ('exec: "/etc/passwd": permission denied: unknown', "command '/etc/passwd' in image libmesos/ubuntu may not"),
        (
            "unable to find user nosuch: no matching entries.\n",
            "Docker did not start task web.1 .* no matching entries$",
        ),
    ],
)
def test_a_failed_start_says_what_to_do(words: str, wanted: str) -> None:
    with pytest.raises(Failed, match=wanted):
        raise explain_start(execution(), Failed(words))


def test_a_failed_pull_names_the_image_and_the_cause() -> None:
    words = explain_pull("a/b:1", Failed("Get https://a/: no such host")).message
    assert words.startswith("image a/b:1: not found on this node and pulling it failed: Get https://a/: no such host;")


def test_long_words_of_the_engine_are_cut() -> None:
    assert len(explain_start(execution(), Failed("x" * 5000)).message) < 800


def test_a_container_that_shares_a_network_has_neither_ports_nor_a_network_of_its_own() -> None:
    mapping = PortMapping(container_port=80, host_port=31000)
    shared = SharedNetwork(id=ContainerId("e1"), networks=("blue", "red"), port_mappings=(mapping,), hostname="duo")
    docker = DockerInfo(image="x", network=NetworkMode.HOST, port_mappings=(mapping,))
    body = create_body(execution(port_mappings=(), docker=docker, shared=shared), "owner")
    assert body["HostConfig"]["NetworkMode"] == "container:corral-e1"
    assert "PortBindings" not in body["HostConfig"]
    assert body["Labels"]["corral.network"] == "e1"
    holder = holder_body(shared, "owner")
    assert (holder["HostConfig"]["NetworkMode"], holder["Hostname"]) == ("blue", "duo")
    assert holder["HostConfig"]["PortBindings"] == {"80/tcp": [{"HostPort": "31000"}]}
    assert holder["Labels"] == {"corral.holder": "e1", "corral.agent": "owner"}
    assert read_found({"Config": {"Labels": holder["Labels"]}}) is None, "it is no task's"
