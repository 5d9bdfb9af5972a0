"""Pods whose containers have images, on the node's network and on others."""

from typing import Any

import pytest

from corral.frameworks.services.command_spec import CreateApp, GetPod
from corral.frameworks.services.pod_dialect import read_pod, write_pod
from corral.frameworks.services.spec import Config
from corral.frameworks.services.state import task_ids_of
from corral.model.container import ContainerKind, NetworkInfo, NetworkMode, PortMapping
from corral.model.health import CheckKind
from corral.model.task import ContainerStatus, TaskInfo, TaskState

WEB: dict[str, Any] = {
    "name": "web", "image": {"kind": "DOCKER", "id": "nginx:1", "forcePull": True},
    "resources": {"cpus": 0.2, "mem": 32},
    "endpoints": [
        {"name": "http", "containerPort": 80, "hostPort": 0, "protocol": ["tcp", "udp"], "labels": {"VIP": "x"}},
        {"name": "in-side", "containerPort": 9000},
    ],
    "healthCheck": {"http": {"endpoint": "http", "path": "/up"}},
}  # fmt: skip
SIDE: dict[str, Any] = {
    "name": "side", "image": {"kind": "DOCKER", "id": "busybox", "pullConfig": {"secret": "login"}},
    "exec": {"command": {"argv": ["tail", "-f", "x"]}, "overrideEntrypoint": True},
    "resources": {"cpus": 0.1, "mem": 16},
    "endpoints": [{"name": "admin", "containerPort": 0, "hostPort": 9000}],
    "healthCheck": {"exec": {"command": {"argv": ["test", "-e", "x"]}}},
    "volumeMounts": [{"name": "scratch", "mountPath": "/data"}],
}  # fmt: skip
POD: dict[str, Any] = {
    "id": "/duo", "containers": [WEB, SIDE], "volumes": [{"name": "scratch"}],
    "secrets": {"login": {"source": "docker/login"}}, "networks": [{"mode": "container/bridge"}],
}  # fmt: skip


def launch(cluster: Any, **more: Any) -> tuple[TaskInfo, ...]:
    cluster.ask(CreateApp(spec=read_pod({**POD, **more})[0], uri="/v2/pods"))
    cluster.settle()
    return tuple(cluster.tasks[task_id] for task_id in cluster.offer(most=1))


def group(cluster: Any) -> Any:
    return next(o for c in cluster.calls for o in getattr(c, "operations", ()))


def instance(cluster: Any) -> Any:
    (found,) = cluster.app("/duo").instances.values()
    return found


def shown(cluster: Any) -> Any:
    (found,) = cluster.ask(GetPod(id="/duo", what="status"))["instances"]
    return found


def test_images_run_in_containers_of_type_mesos_wherever_there_is_an_engine(cluster: Any) -> None:
    cluster.ask(CreateApp(spec=read_pod(POD)[0], uri="/v2/pods"))
    cluster.settle()
    (want,) = cluster.wants.values()
    web, side = (cluster.tasks[task_id] for task_id in cluster.offer())
    assert (want.runtime, want.ports, want.fixed_ports) == ("docker", 1, (9000,))
    assert web.container is not None
    assert side.container is not None
    assert (web.container.kind, side.container.kind) == (ContainerKind.MESOS, ContainerKind.MESOS)
    image = web.container.docker
    assert image is not None
    assert (image.image, image.force_pull_image, image.network) == ("nginx:1", True, NetworkMode.HOST)
    assert side.container.docker is not None
    assert side.container.docker.pull_config == "secret:docker/login"
    (volume,) = side.container.volumes
    assert (volume.container_path, volume.of_executor) == ("/data", True)


@pytest.mark.parametrize(
    ("exec", "value", "shell", "arguments"),
    [
        (None, None, False, ()),
        ({"command": {"shell": "run it"}}, "run it", True, ()),
        ({"command": {"argv": ["-v", "x"]}}, None, False, ("-v", "x")),
        ({"command": {"argv": ["tail", "-f"]}, "overrideEntrypoint": True}, "tail", False, ("tail", "-f")),
    ],
)
def test_a_command_is_handed_to_the_images_own_program_unless_it_takes_its_place(
    cluster: Any, exec: Any, value: str | None, shell: bool, arguments: tuple[str, ...]
) -> None:
    web, _ = launch(cluster, containers=[{**WEB, **({} if exec is None else {"exec": exec})}, SIDE])
    assert web.command is not None
    assert (web.command.value, web.command.shell, web.command.arguments) == (value, shell, arguments)


def test_the_executor_brings_the_network_with_the_ports_that_show_on_the_node(cluster: Any) -> None:
    launch(cluster)
    container = group(cluster).executor.container
    assert container.kind is ContainerKind.MESOS
    assert container.network_infos == (
        NetworkInfo(
            name="bridge",
            port_mappings=(
                PortMapping(container_port=80, host_port=31000),
                PortMapping(container_port=80, host_port=31000, protocol="udp"),
                PortMapping(container_port=9000, host_port=9000),
            ),
        ),
    )


def test_every_container_hears_where_each_endpoint_listens_and_shows(cluster: Any) -> None:
    web, side = launch(cluster)
    for info in (web, side):
        assert info.command is not None
        variables = dict(info.command.environment)
        assert (variables["ENDPOINT_HTTP"], variables["EP_CONTAINER_HTTP"], variables["EP_HOST_HTTP"]) == (
            "80", "80", "31000",
        )  # fmt: skip
        assert (variables["ENDPOINT_IN_SIDE"], variables["EP_CONTAINER_IN_SIDE"]) == ("9000", "9000")
        assert "EP_HOST_IN_SIDE" not in variables
        assert variables["EP_CONTAINER_ADMIN"] == "9000"
        assert variables["MARATHON_CONTAINER_ID"] == info.name
    assert web.command is not None
    assert dict(web.command.environment)["MARATHON_APP_DOCKER_IMAGE"] == "nginx:1"
    assert [(r.name, r.ranges) for r in web.resources if r.ranges] == [("ports", ((31000, 31000),))]
    assert web.discovery is not None
    assert [(p.name, p.number) for p in web.discovery.ports] == [("http", 31000), ("http", 31000), ("in-side", 9000)]


def test_checks_look_at_the_ports_within(cluster: Any) -> None:
    web, side = launch(cluster)
    (check,) = web.health_checks
    assert (check.kind, check.port, check.on_node) == (CheckKind.HTTP, 80, False)
    (command,) = side.health_checks
    assert command.command is not None
    assert (command.command.shell, command.command.arguments) == (False, ("test", "-e", "x"))


def test_on_the_nodes_network_images_and_programs_of_the_node_live_together(cluster: Any) -> None:
    web = {**WEB, "endpoints": [{"name": "http", "hostPort": 0}]}
    program = {"name": "side", "exec": {"command": {"shell": "run"}}}
    info, other = launch(cluster, networks=[{"mode": "host"}], containers=[web, program])
    assert group(cluster).executor.container is None
    assert (info.container is not None, other.container is None) == (True, True)
    assert info.command is not None
    variables = dict(info.command.environment)
    assert (variables["ENDPOINT_HTTP"], variables["EP_HOST_HTTP"]) == ("31000", "31000")
    (check,) = info.health_checks
    assert check.port == 31000


def test_several_networks_share_out_the_ports_by_their_names(cluster: Any) -> None:
    web = {**WEB, "endpoints": [{"name": "http", "containerPort": 80, "hostPort": 0, "networkNames": ["red"]}]}
    networks = [{"mode": "container", "name": "blue", "labels": {"a": "b"}}, {"mode": "container", "name": "red"}]
    launch(cluster, networks=networks, containers=[web])
    assert group(cluster).executor.container.network_infos == (
        NetworkInfo(name="blue", labels=(("a", "b"),)),
        NetworkInfo(name="red", port_mappings=(PortMapping(container_port=80, host_port=31000),)),
    )


def test_the_status_shows_the_address_in_each_network(cluster: Any) -> None:
    networks = [{"mode": "container", "name": name} for name in ("red", "green", "blue")]
    (web,) = launch(cluster, networks=networks, containers=[{**WEB, "endpoints": [], "healthCheck": None}])
    told = ("10.0.0.1", "10.0.1.1", "10.0.2.1")  # the first, and the others by their names
    where = ContainerStatus(network_infos=tuple(NetworkInfo(ip_addresses=(ip,)) for ip in told))
    cluster.update(web.task_id, TaskState.RUNNING, container_status=where)
    assert shown(cluster)["networks"] == [
        {"name": "red", "addresses": ["10.0.0.1"]},
        {"name": "blue", "addresses": ["10.0.1.1"]},
        {"name": "green", "addresses": ["10.0.2.1"]},
    ]


def test_the_status_shows_networks_with_addresses_and_endpoints_with_ports(cluster: Any) -> None:
    web, side = launch(cluster, networks=[{"mode": "container", "name": "blue"}])
    for info in (web, side):
        where = ContainerStatus(network_infos=(NetworkInfo(ip_addresses=("172.18.0.2",)),))
        cluster.update(info.task_id, TaskState.RUNNING, container_status=where)
    cluster.update(web.task_id, TaskState.RUNNING, healthy=True)
    found = shown(cluster)
    assert found["networks"] == [{"name": "blue", "addresses": ["172.18.0.2"]}]
    assert found["containers"][0]["endpoints"] == [
        {"name": "http", "allocatedHostPort": 31000, "healthy": True}, {"name": "in-side"},
    ]  # fmt: skip
    assert instance(cluster).ports == (31000, 0, 9000)
    assert len(task_ids_of(instance(cluster))) == 2


@pytest.mark.parametrize(
    "networks",
    [[{"mode": "container/bridge"}], [{"mode": "container", "name": "blue", "labels": {"a": "b"}}]],
)
def test_a_pod_with_images_reads_the_same_again(cluster: Any, networks: list[Any]) -> None:
    launch(cluster, networks=networks)
    given = cluster.ask(GetPod(id="/duo"))
    assert given["networks"] == networks
    assert given["containers"][0]["image"] == WEB["image"]
    assert "exec" not in given["containers"][0]
    assert given["containers"][1]["exec"] == SIDE["exec"]
    assert given["containers"][1]["healthCheck"]["exec"] == SIDE["healthCheck"]["exec"]
    spec, unknown = read_pod(given)
    assert (spec, unknown) == (cluster.app("/duo").spec, ())
    assert write_pod(cluster.app("/duo").record) == given


def test_a_network_without_a_name_is_the_default_one(make_cluster: Any) -> None:
    cluster = make_cluster(Config(default_network="blue"))
    cluster.subscribe()
    launch(cluster, networks=[{"mode": "container"}])
    (network,) = group(cluster).executor.container.network_infos
    assert network.name == "blue"
