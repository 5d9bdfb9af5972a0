"""The task that an app becomes: environment, ports, container, constraints."""

from typing import Any

import msgspec
import pytest

from corral.frameworks.services.app_spec import PortDefinition
from corral.frameworks.services.launch import dns_id, port_variables, read_constraint, safe_id
from corral.model.attributes import Attribute
from corral.model.constraints import Constraint, Operator
from corral.model.container import ContainerKind, NetworkMode, PortMapping, VolumeMode
from corral.model.offer import find_want_fault
from corral.model.resources import total_milli
from corral.model.task import TaskInfo

DOCKER = {"type": "DOCKER", "docker": {"image": "nginx"}}


def launch(cluster: Any, **fields: Any) -> TaskInfo:
    cluster.create(**fields)
    cluster.offer()
    task: TaskInfo = cluster.launched[-1]
    return task


def environment(task: TaskInfo) -> dict[str, str]:
    assert task.command is not None
    found = dict(task.command.environment)
    assert len(found) == len(task.command.environment), "a variable is set twice"
    return found


def test_ids_take_the_forms_of_tasks_and_of_hosts() -> None:
    assert safe_id("/prod/eu/web") == "prod_eu_web"
    assert dns_id("/prod/eu/web") == "web.eu.prod"


def test_a_task_knows_its_app(cluster: Any) -> None:
    task = launch(cluster, id="/prod/web", cpus=0.5, mem=512, labels={"tier.one": "front", "b": "2"})
    seen = environment(task)
    assert seen["MARATHON_APP_ID"] == "/prod/web"
    assert seen["MARATHON_APP_VERSION"] == cluster.app("/prod/web").record.version
    assert seen["MARATHON_APP_RESOURCE_CPUS"] == "0.5"
    assert seen["MARATHON_APP_RESOURCE_MEM"] == "512.0"
    assert seen["MARATHON_APP_RESOURCE_DISK"] == "0.0"
    assert seen["MARATHON_APP_RESOURCE_GPUS"] == "0"
    assert seen["MARATHON_APP_LABELS"] == "B TIER_ONE"
    assert seen["MARATHON_APP_LABEL_TIER_ONE"] == "front"
    assert seen["MESOS_TASK_ID"] == task.task_id
    assert seen["HOST"].startswith("host")
    assert "MARATHON_APP_DOCKER_IMAGE" not in seen
    assert task.name == "web.prod"
    assert (task.labels[0].key, task.labels[0].value) == ("corral.group", "/prod/web")


def test_labels_that_are_too_long_are_not_exported(cluster: Any) -> None:
    seen = environment(launch(cluster, labels={"a" * 493: "x", "b": "y" * 512, "c": "ok"}))
    assert seen["MARATHON_APP_LABELS"] == "C"


def test_the_apps_own_environment_has_the_last_word(cluster: Any) -> None:
    seen = environment(launch(cluster, env={"PORT0": "mine", "MARATHON_APP_ID": "other", "X": ""}))
    assert seen["PORT0"] == "mine"
    assert seen["MARATHON_APP_ID"] == "other"
    assert seen["X"] == ""


def test_ports_are_told_in_every_form(cluster: Any) -> None:
    ports = [{"port": 8080, "name": "http-api"}, {"port": 0}, {"port": 9090, "protocol": "udp,tcp"}]
    seen = environment(launch(cluster, portDefinitions=ports))
    assert [seen[f"PORT{n}"] for n in range(3)] == ["31000", "31001", "31002"]
    assert seen["PORT"] == "31000"
    assert seen["PORTS"] == "31000,31001,31002"
    assert seen["PORT_8080"] == "31000"
    assert seen["PORT_10000"] == "31001"
    assert seen["PORT_HTTP-API"] == seen["PORT_HTTP_API"] == "31000"


def test_without_ports_there_are_no_port_variables(cluster: Any) -> None:
    seen = environment(launch(cluster, portDefinitions=[]))
    assert not [name for name in seen if name.startswith("PORT")]


def test_an_operators_prefix_goes_before_host_and_ports(cluster: Any) -> None:
    cluster.create()
    spec = msgspec.structs.replace(cluster.app().spec, port_definitions=(PortDefinition(port=80),))
    assert dict(port_variables(spec, (31000,), "h", "X_")) == {
        "X_HOST": "h", "X_PORT0": "31000", "X_PORT_80": "31000", "X_PORT": "31000", "X_PORTS": "31000"
    }  # fmt: skip


def test_required_ports_are_wanted_as_they_are(cluster: Any) -> None:
    cluster.create(ports=[31500, 31501], requirePorts=True)
    (want,) = cluster.wants.values()
    assert (want.fixed_ports, want.ports) == ((31500, 31501), 0)
    cluster.offer()
    assert environment(cluster.launched[-1])["PORTS"] == "31500,31501"


def test_a_shell_command_is_given_to_the_shell(cluster: Any) -> None:
    command = launch(cluster, cmd="echo $HOST", user="nobody").command
    assert command is not None
    assert (command.shell, command.value, command.user) == (True, "echo $HOST", "nobody")


def test_arguments_without_an_image_are_a_command_of_their_own(cluster: Any) -> None:
    command = launch(cluster, cmd=None, args=["/bin/sleep", "100"]).command
    assert command is not None
    assert (command.shell, command.value, command.arguments) == (False, "/bin/sleep", ("/bin/sleep", "100"))


def test_arguments_with_an_image_go_to_its_entrypoint(cluster: Any) -> None:
    command = launch(cluster, cmd=None, args=["-g", "daemon off;"], container=DOCKER).command
    assert command is not None
    assert (command.shell, command.value, command.arguments) == (False, None, ("-g", "daemon off;"))


def test_an_image_without_command_runs_its_own(cluster: Any) -> None:
    task = launch(cluster, cmd=None, container=DOCKER)
    assert task.command is not None
    assert (task.command.shell, task.command.value, task.command.arguments) == (False, None, ())
    assert environment(task)["MARATHON_APP_DOCKER_IMAGE"] == "nginx"


def test_a_container_is_handed_on_whole(cluster: Any) -> None:
    docker = {
        "image": "nginx:1.27", "forcePullImage": True, "privileged": True,
        "parameters": [{"key": "hostname", "value": "a"}],
    }  # fmt: skip
    volumes = [{"containerPath": "/data", "hostPath": "/srv", "mode": "RO"}]
    task = launch(cluster, container={"type": "DOCKER", "docker": docker, "volumes": volumes})
    assert task.container is not None
    assert task.container.kind is ContainerKind.DOCKER
    assert task.container.docker is not None
    assert task.container.docker.image == "nginx:1.27"
    assert task.container.docker.force_pull_image
    assert task.container.docker.privileged
    assert [(p.key, p.value) for p in task.container.docker.parameters] == [("hostname", "a")]
    assert task.container.docker.network is NetworkMode.HOST
    (volume,) = task.container.volumes
    assert (volume.container_path, volume.host_path, volume.mode) == ("/data", "/srv", VolumeMode.RO)


def test_a_bridge_maps_container_ports_to_free_or_named_host_ports(cluster: Any) -> None:
    mappings = [
        {"containerPort": 80, "name": "http"},
        {"containerPort": 53, "hostPort": 31053, "protocol": "udp,tcp"},
        {"containerPort": 0},
    ]
    cluster.create(container={**DOCKER, "portMappings": mappings}, networks=[{"mode": "container/bridge"}])
    (want,) = cluster.wants.values()
    assert (want.fixed_ports, want.ports) == ((31053,), 2)
    cluster.offer()
    task = cluster.launched[-1]
    assert task.container.docker.network is NetworkMode.BRIDGE
    assert task.container.docker.port_mappings == (
        PortMapping(container_port=80, host_port=31000),
        PortMapping(container_port=53, host_port=31053, protocol="udp"),
        PortMapping(container_port=53, host_port=31053, protocol="tcp"),
        PortMapping(container_port=31001, host_port=31001),
    )
    seen = environment(task)
    assert seen["PORT0"] == seen["PORT_80"] == seen["PORT_HTTP"] == "31000"
    assert seen["PORT1"] == seen["PORT_53"] == "31053"
    assert cluster.app().spec.service_ports == (10000, 10001, 10002)


def test_a_container_network_needs_no_host_port(cluster: Any) -> None:
    container = {**DOCKER, "portMappings": [{"containerPort": 80}]}
    task = launch(cluster, container=container, networks=[{"name": "blue"}])
    assert task.container is not None
    assert task.container.docker is not None
    assert task.container.docker.network is NetworkMode.USER
    assert task.container.docker.port_mappings == ()
    assert [n.name for n in task.container.network_infos] == ["blue"]
    assert environment(task)["PORT0"] == "80"
    assert cluster.show()["tasks"][0]["ports"] == []


def test_artifacts_grace_and_discovery_are_handed_on(cluster: Any) -> None:
    task = launch(
        cluster, fetch=[{"uri": "http://x/a", "executable": True, "destPath": "bin/a"}],
        taskKillGracePeriodSeconds=7, portDefinitions=[{"port": 80, "name": "http", "labels": {"v": "1"}}],
    )  # fmt: skip
    assert task.command is not None
    (uri,) = task.command.uris
    assert (uri.value, uri.executable, uri.output_file) == ("http://x/a", True, "bin/a")
    assert task.kill_grace_s == 7.0
    assert task.discovery is not None
    assert [(p.number, p.name, p.protocol) for p in task.discovery.ports] == [(31000, "http", "tcp")]


def test_kills_carry_the_apps_grace(cluster: Any) -> None:
    cluster.create(taskKillGracePeriodSeconds=7)
    cluster.run()
    cluster.update_app(instances=0)
    assert cluster.calls[-1].grace_s == 7.0


def test_a_want_states_where_instances_may_go_and_what_runs_them(cluster: Any) -> None:
    cluster.create(constraints=[["hostname", "UNIQUE"]], container=DOCKER, instances=3)
    (want,) = cluster.wants.values()
    assert want.constraints == (Constraint(field="@hostname", operator=Operator.UNIQUE),)
    assert (want.group, want.group_size, want.count, want.runtime) == ("/web", 3, 3, "docker")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (("hostname", "UNIQUE"), Constraint(field="@hostname", operator=Operator.UNIQUE)),
        (("@hostname", "UNIQUE"), Constraint(field="@hostname", operator=Operator.UNIQUE)),
        (("rack", "CLUSTER"), Constraint(field="rack", operator=Operator.CLUSTER)),
        (("rack", "CLUSTER", "r1"), Constraint(field="rack", operator=Operator.EQUAL, values=("r1",))),
        (("rack", "GROUP_BY"), Constraint(field="rack", operator=Operator.GROUP_BY)),
        (("rack", "GROUP_BY", "3"), Constraint(field="rack", operator=Operator.GROUP_BY, count=3)),
        (("rack", "MAX_PER", "2"), Constraint(field="rack", operator=Operator.MAX_PER, count=2)),
        (("rack", "LIKE", "r[12]"), Constraint(field="rack", operator=Operator.MATCH, values=("r[12]",))),
        (("rack", "UNLIKE", "r1"), Constraint(field="rack", operator=Operator.MISMATCH, values=("r1",))),
        (("level", "IS", "2.50"), Constraint(field="level", operator=Operator.EQUAL, values=("2.5",))),
        (("hostname", "NEAR", "task:db"), Constraint(field="@hostname", operator=Operator.NEAR, values=("task:db",))),
        (("zone", "APART", "label:a=b"), Constraint(field="zone", operator=Operator.APART, values=("label:a=b",))),
        (("level", "IS", "100"), Constraint(field="level", operator=Operator.EQUAL, values=("100",))),
    ],
)
def test_marathons_operators_mean_the_kernels(written: tuple[str, ...], meant: Constraint) -> None:
    assert read_constraint(written) == meant


def test_an_instance_remembers_the_group_it_was_placed_in(cluster: Any) -> None:
    from corral.model import events

    cluster.create(constraints=[["rack", "GROUP_BY"]])
    (offer,) = cluster.make_offers()
    offer = msgspec.structs.replace(offer, attributes=(Attribute(name="rack", text="r7"),))
    cluster.send(events.Offers(offers=(offer,)))
    (instance,) = cluster.app().instances.values()
    assert instance.group_value == "r7"


def test_the_want_of_an_app_carries_the_tags_that_other_apps_find_it_by(cluster: Any) -> None:
    cluster.create(id="/prod/db", labels={"tier": "db", "a": ""}, container=DOCKER | {"docker": {"image": "pg:16.1"}})
    (want,) = cluster.wants.values()
    assert want.tags == ("image:pg:16.1", "image:pg", "label:a=", "label:tier=db", "task:prod/db")
    assert find_want_fault(want) is None


def test_a_process_has_no_image_among_its_tags_and_labels_that_are_too_long_are_none(cluster: Any) -> None:
    cluster.create(id="/web", labels={"long": "x" * 300, **{f"l{n:02}": "x" for n in range(40)}})
    (want,) = cluster.wants.values()
    assert want.tags == (*(f"label:l{n:02}=x" for n in range(32)), "task:web")


def test_an_app_is_placed_near_another(cluster: Any) -> None:
    cluster.create(id="/db", labels={"tier": "db"})
    cluster.create(id="/web", constraints=[["hostname", "NEAR", "label:tier=db"]])
    db, web = sorted(cluster.wants.values(), key=lambda want: want.group)
    (constraint,) = web.constraints
    assert set(constraint.values) <= set(db.tags)
    assert not set(constraint.values) & set(web.tags)


def test_an_image_in_a_container_of_type_mesos_runs_by_the_engine_and_gpus_on_the_node(cluster: Any) -> None:
    cluster.create(container={"type": "MESOS", "docker": {"image": "nginx:1"}})
    cluster.create(id="/gpu", gpus=2)
    wants = {w.group: w for w in cluster.wants.values()}
    assert (wants["/web"].runtime, wants["/gpu"].runtime) == ("docker", "process")
    assert total_milli(wants["/gpu"].resources, "gpus") == 2000
    cluster.run()
    tasks = {t.name: t for t in cluster.launched}
    assert tasks["web"].container.docker.image == "nginx:1"
    assert dict(tasks["gpu"].command.environment)["MARATHON_APP_RESOURCE_GPUS"] == "2"
    assert cluster.show()["container"]["type"] == "MESOS"
