"""Apps and groups of every kind that Marathon's public documentation shows, old forms and new, are taken as they are.

The kinds are those of its pages on basics, Docker, networking and ports, health, readiness and plain checks,
constraints, volumes, secrets, groups, tasks and upgrades; the values are our own. `NOT_HERE` says which kinds are
refused, and where.
"""

import json
from typing import Any

import pytest
from tests.unit.services.conftest import FRAMEWORK, Cluster

from corral.frameworks.services.command_spec import CreateApp, CreateGroup, GetQueue
from corral.frameworks.services.launch import make_container
from corral.frameworks.services.marathon import read_app
from corral.frameworks.services.shown import write_app
from corral.frameworks.services.spec import Config
from corral.frameworks.services.tree import read_group
from corral.frameworks.services.validate import check_app, complete
from corral.lib.errors import Unprocessable
from corral.model import events
from corral.model.offer import Explanation, Refusal

SHELL: dict[str, Any] = {"cmd": "while true; do date; sleep 5; done", "cpus": 0.1, "mem": 10.0, "instances": 1}
SERVER: dict[str, Any] = {"cmd": "python3 -m http.server 8080", "cpus": 0.5, "mem": 64.0}
ONE_AT_A_TIME = {"minimumHealthCapacity": 0, "maximumOverCapacity": 0}
CHECK = {"gracePeriodSeconds": 5, "intervalSeconds": 10, "timeoutSeconds": 10, "maxConsecutiveFailures": 3}


def docker(image: str = "python:3", **more: Any) -> dict[str, Any]:
    return {"type": "DOCKER", "docker": {"image": image}, **more}


def old_docker(network: str, *mappings: dict[str, Any], **more: Any) -> dict[str, Any]:
    body: dict[str, Any] = {"image": "python:3", "network": network, **more}
    if mappings:
        body["portMappings"] = list(mappings)
    return {"type": "DOCKER", "docker": body}


def mesos(image: str = "example/inky", **more: Any) -> dict[str, Any]:
    return {"type": "MESOS", "docker": {"image": image}, **more}


HOST_VOLUMES = [
    {"containerPath": "/etc/one", "hostPath": "/srv/one", "mode": "RO"},
    {"containerPath": "/etc/two", "hostPath": "/srv/two", "mode": "RW"},
]
EXTERNAL = {"name": "tape", "provider": "dvdi", "options": {"dvdi/driver": "rexray"}}

FILES: dict[str, dict[str, Any]] = {
    # Basics: a shell, things to fetch.
    "a loop of the shell": SHELL,
    "a script to fetch": {**SHELL, "fetch": [{"uri": "https://example.org/run.sh", "executable": True}]},
    "an archive to fetch": {**SHELL, "fetch": [{"uri": "https://example.org/app.zip"}]},
    "a cached archive": {**SHELL, "fetch": [{"uri": "https://example.org/app.zip", "cache": True, "extract": False}]},
    "a place for what is fetched": {**SHELL, "fetch": [{"uri": "https://example.org/a.sh", "destPath": "run.sh"}]},
    "schemes of the fetcher": {**SHELL, "fetch": [{"uri": f"{s}://x/a"} for s in ("ftp", "hdfs", "s3", "s3a", "file")]},
    "old uris": {**SHELL, "uris": ["http://example.org/a.tgz", "http://example.org/b.jpg"]},
    "arguments": {**SHELL, "cmd": None, "args": ["/bin/sh", "-c", "env && sleep 300"]},
    "an executor unsaid": {**SHELL, "executor": ""},
    "an executor for commands": {**SHELL, "executor": "//cmd"},
    "a user": {**SHELL, "user": "root", "env": {"LD_LIBRARY_PATH": "/lib"}, "labels": {"environment": "staging"}},
    # Docker.
    "an image alone": {"container": {"docker": {"image": "busybox"}}, "cpus": 0.2, "mem": 32.0, "instances": 2},
    "an image with a command": {**SHELL, "container": {"docker": {"image": "busybox"}}},
    "an image with an entrypoint": {"container": docker("example/inky", volumes=[]), "args": ["hello"]},
    "an image with volumes": {"container": docker("group/image", volumes=HOST_VOLUMES), **SHELL},
    "an image pulled each time": {"container": {"docker": {"image": "group/image", "forcePullImage": True}}},
    "an image with flags": {
        "container": {
            "type": "DOCKER", "volumes": [],
            "docker": {"image": "example/inky", "privileged": True, "parameters": [
                {"key": "hostname", "value": "a.example.org"}, {"key": "volumes-from", "value": "another"},
                {"key": "lxc-conf", "value": "..."}]},
        },
        "args": ["hello"],
    },
    "credentials among the uris": {"container": old_docker("HOST"), "uris": ["file:///etc/docker.tar.gz"]},
    "an image without the Engine": {"container": mesos(), "args": ["hello"], "cpus": 0.2, "mem": 16.0},
    "credentials in a secret": {
        "container": {"type": "MESOS", "docker": {"image": "own/image", "pullConfig": {"secret": "c"}}},
        "secrets": {"c": {"source": "/docker/config"}}, "args": ["hello"], "cpus": 0.2, "mem": 16.0},
    # Networking and ports, new.
    "the host's network": {"container": mesos(), "networks": [{"mode": "host"}]},
    "named ports": {**SHELL, "portDefinitions": [{"port": 0, "name": n} for n in ("http", "https", "mon")]},
    "ports that are required": {**SHELL, "portDefinitions": [{"port": 2001}, {"port": 3000}], "requirePorts": True},
    "a port with a label": {**SHELL, "portDefinitions": [
        {"port": 0, "protocol": "tcp", "name": "http", "labels": {"VIP_0": "10.0.0.1:80"}}]},
    "no port at all": {**SHELL, "portDefinitions": []},
    "a bridge": {**SERVER, "networks": [{"mode": "container/bridge"}], "container": docker(portMappings=[
        {"containerPort": 8080, "hostPort": 0, "servicePort": 9000, "protocol": "tcp"},
        {"containerPort": 161, "hostPort": 0, "protocol": "udp"}])},
    "a bridge without the Engine": {"networks": [{"mode": "container/bridge"}], "container": mesos(portMappings=[
        {"containerPort": 80, "hostPort": 0, "name": "http"},
        {"containerPort": 4000, "protocol": "udp", "name": "mon"}])},
    "ports of the host's choice": {"networks": [{"mode": "container/bridge"}], "container": mesos(portMappings=[
        {"containerPort": 0, "hostPort": 0, "name": "http"}])},
    "a network of one's own": {"networks": [{"mode": "container", "name": "blue"}], "container": mesos()},
    "several networks": {"networks": [{"name": "blue"}, {"mode": "container", "name": "green"}], "container": mesos(
        portMappings=[{"containerPort": 80}, {"containerPort": 81, "hostPort": 0, "networkNames": ["green"]}])},
    "a mapping without a host port": {"networks": [{"name": "blue"}], "container": docker(portMappings=[
        {"containerPort": 80, "name": "http", "labels": {"VIP_0": "/web:80"}}])},
    # The same, old.
    "old ports": {**SHELL, "ports": [0, 0, 0]},
    "old service ports": {**SHELL, "ports": [2001, 2002, 3000], "requirePorts": True},
    "an old bridge": {**SERVER, "container": old_docker("BRIDGE", {"containerPort": 8080, "hostPort": 0})},
    "an old bridge with service ports": {"container": old_docker(
        "BRIDGE", {"containerPort": 80, "hostPort": 0, "protocol": "tcp", "servicePort": 2000},
        {"containerPort": 4000, "hostPort": 0, "protocol": "udp", "servicePort": 3000})},
    "an old bridge as a GET of 1.4 shows it": {
        "container": old_docker("BRIDGE", {"containerPort": 80, "servicePort": 10001, "protocol": "tcp"}),
        "ports": [10001], "portDefinitions": [{"port": 10001, "protocol": "tcp", "labels": {}}], "requirePorts": False},
    "an old network of users": {"container": old_docker("USER"), "ipAddress": {"networkName": "blue"}},
    "an address of its own": {"container": docker(), "ipAddress": {
        "networkName": "blue", "groups": ["production"], "labels": {"why": "ipam"},
        "discovery": {"ports": [{"number": 80, "name": "http", "protocol": "tcp"}]}}},
    "a registry that names ports twice": {
        "networks": [{"mode": "container/bridge"}], "ports": [0], "cpus": 0.5, "mem": 1024.0, "disk": 128,
        "container": {
            "docker": {"image": "registry:latest", "parameters": []},
            "portMappings": [{"containerPort": 5000, "hostPort": 0, "protocol": "tcp", "servicePort": 5000}],
            "volumes": [{"hostPath": "/srv/packages", "containerPath": "/storage", "mode": "RW"}],
        },
        "env": {"SETTINGS_FLAVOR": "local"}},
    # Checks.
    "HTTP": {**SHELL, "ports": [0], "healthChecks": [{"protocol": "HTTP", "path": "/health", "portIndex": 0, **CHECK}]},
    "TCP": {**SHELL, "healthChecks": [{"protocol": "TCP", "portIndex": 0, **CHECK, "maxConsecutiveFailures": 0}]},
    "a command": {**SHELL, "healthChecks": [
        {"protocol": "COMMAND", "command": {"value": "curl -f http://$HOST:$PORT0/"}, **CHECK}]},
    "HTTPS at a port": {**SHELL, "healthChecks": [
        {"protocol": "HTTPS", "path": "/m", "port": 3333, "ignoreHttp1xx": True}]},
    "by Mesos": {**SHELL, "healthChecks": [
        {"protocol": "MESOS_HTTP", "path": "/", "portIndex": 0, "delaySeconds": 15}]},
    "several": {**SHELL, "healthChecks": [{"path": "/health"}, {"protocol": "TCP"}, {"protocol": "COMMAND", "command": {
        "value": "true"}}]},
    "readiness": {**SHELL, "portDefinitions": [{"port": 0, "name": "http-api"}], "readinessChecks": [
        {"name": "readinessCheck", "protocol": "HTTP", "path": "/v1/plan", "portName": "http-api",
         "intervalSeconds": 30, "timeoutSeconds": 10, "httpStatusCodesForReady": [200],
         "preserveLastResponse": False}]},
    "a plain check": {**SHELL, "check": {
        "http": {"portIndex": 0, "path": "/"}, "intervalSeconds": 60, "timeoutSeconds": 20}},
    "a plain check by command": {**SHELL, "check": {"exec": {"command": {"shell": "ls"}}}},
    # Constraints.
    **{
        f"constraint {' '.join(c)}": {**SHELL, "instances": 3, "constraints": [c]}
        for c in (
            ["hostname", "UNIQUE"], ["rack_id", "CLUSTER", "rack-1"], ["rack_id", "CLUSTER"],
            ["hostname", "CLUSTER", "a.example.org"], ["rack_id", "GROUP_BY"], ["rack_id", "GROUP_BY", "3"],
            ["rack_id", "LIKE", "rack-[1-3]"], ["rack_id", "UNLIKE", "rack-[7-9]"], ["rack_id", "MAX_PER", "2"],
            ["@region", "IS", "us-west-2"], ["@zone", "GROUP_BY", "2"], ["@hostname", "UNIQUE"],
        )
    },
    # Volumes.
    "a volume that stays": {**SHELL, "residency": {"taskLostBehavior": "WAIT_FOREVER"}, "container": {
        "type": "MESOS", "volumes": [{"containerPath": "data", "mode": "RW", "persistent": {
            "type": "root", "size": 10, "constraints": []}}]}},
    "a database on a volume that stays": {
        "networks": [{"mode": "container/bridge"}], "cpus": 1, "mem": 512, "upgradeStrategy": ONE_AT_A_TIME,
        "container": docker("mysql", portMappings=[{"containerPort": 3306, "hostPort": 0}], volumes=[
            {"containerPath": "files", "mode": "RW", "persistent": {"type": "root", "size": 1000}},
            {"containerPath": "/var/lib/mysql", "hostPath": "files", "mode": "RW"}])},
    "a volume of a driver": {**SHELL, "upgradeStrategy": ONE_AT_A_TIME, "container": docker("alpine:3.1", volumes=[
        {"containerPath": "/data/tape", "external": EXTERNAL, "mode": "RW"},
        {"containerPath": "/var/log/own", "hostPath": "log", "mode": "RW"}])},
    "a database on a disk of its own": {
        "networks": [{"mode": "container/bridge"}], "cpus": 1, "mem": 512, "upgradeStrategy": ONE_AT_A_TIME,
        "residency": {"taskLostBehavior": "WAIT_FOREVER"},
        "container": docker("postgres", portMappings=[{"containerPort": 5432, "name": "postgres"}], volumes=[
            {"containerPath": "pgdata", "mode": "RW", "persistent": {
                "type": "mount", "size": 524288, "maxSize": 1048576,
                "constraints": [["path", "LIKE", "/mnt/ssd-.+"]]}}])},
    "a volume of a driver for a command": {**SHELL, "upgradeStrategy": ONE_AT_A_TIME, "container": {
        "type": "MESOS", "volumes": [{"containerPath": "tape", "external": {**EXTERNAL, "size": 100}, "mode": "RW"}]}},
    # Secrets.
    "a secret variable": {**SHELL, "env": {"PW": {"secret": "pw"}}, "secrets": {"pw": {"source": "db/password"}}},
    "a secret file": {**SHELL, "secrets": {"pw": {"source": "/db/password"}}, "container": {
        "volumes": [{"containerPath": "path/to/password", "secret": "pw"}]}},
    # Everything else.
    "a service for balancers": {**SERVER, "labels": {"HAPROXY_GROUP": "external", "HAPROXY_0_VHOST": "a.example.org"}},
    "one instance at most": {
        **SHELL, "labels": {"MARATHON_SINGLE_INSTANCE_APP": "true"}, "upgradeStrategy": ONE_AT_A_TIME},
    "an upgrade by halves": {**SHELL, "upgradeStrategy": {"minimumHealthCapacity": 0.5, "maximumOverCapacity": 0.2}},
    "backoff": {**SHELL, "backoffSeconds": 1, "backoffFactor": 1.15, "maxLaunchDelaySeconds": 3600},
    "unreachable": {**SHELL, "unreachableStrategy": {"inactiveAfterSeconds": 60, "expungeAfterSeconds": 120}},
    "unreachable as in 1.4": {**SHELL, "unreachableStrategy": {
        "unreachableInactiveAfterSeconds": 60, "unreachableExpungeAfterSeconds": 120}},
    "unreachable for ever": {**SHELL, "unreachableStrategy": "disabled"},
    "the oldest first": {**SHELL, "killSelection": "OLDEST_FIRST", "taskKillGracePeriodSeconds": 30},
    "the oldest first as in 1.4": {**SHELL, "killSelection": "OldestFirst"},
    "limits": {**SHELL, "cpus": 1, "mem": 4096, "resourceLimits": {"cpus": "unlimited", "mem": 8192}},
    "roles of resources": {**SHELL, "acceptedResourceRoles": ["*"]},
    "gpus": {**SHELL, "gpus": 1},
    "no profile of system calls": {**SHELL, "container": {
        "type": "MESOS", "linuxInfo": {"seccomp": {"unconfined": True}}}},
    "a profile of system calls": {**SHELL, "container": {
        "type": "MESOS", "linuxInfo": {"seccomp": {"profileName": "relaxed.json"}}}},
    "memory to share": {"container": mesos(linuxInfo={"ipcInfo": {"mode": "PRIVATE", "shmSize": 16}})},
    "dependencies": {**SHELL, "dependencies": ["/product/db/mongo", "/product/db", "../../db"]},
}  # fmt: skip

NOT_HERE: dict[str, tuple[str, dict[str, Any]]] = {
    "several networks of an Engine's container": ("/networks", {
        "networks": [{"name": "blue"}, {"name": "green"}], "container": docker()}),
    "the old credential": ("/container/docker/credential", {"container": {
        "type": "MESOS", "docker": {"image": "own/image", "credential": {"principal": "alice", "secret": "x"}}}}),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_taken_and_reads_the_same_when_it_is_shown(name: str, cluster: Cluster) -> None:
    found = read_app({"id": "/doc/app", **FILES[name]})
    assert found.unknown == ()
    check_app(complete(found.spec, Config()), Config())
    cluster.ask(CreateApp(spec=found.spec))
    shown = write_app(cluster.app("/doc/app").spec)
    again = read_app(json.loads(json.dumps(shown))).spec
    assert complete(again, Config()) == cluster.app("/doc/app").spec


@pytest.mark.parametrize("name", NOT_HERE)
def test_what_is_not_here_is_refused_by_its_place(name: str) -> None:
    place, fields = NOT_HERE[name]
    with pytest.raises(Unprocessable) as caught:
        check_app(complete(read_app({"id": "/doc/app", **fields}).spec, Config()), Config())
    assert place in caught.value.details


def test_a_group_of_groups_is_taken_with_its_order(cluster: Cluster) -> None:
    server = {"cpus": 0.1, "mem": 32, "ports": [0], "cmd": "python3 -m http.server $PORT0", "instances": 1}
    body = {
        "id": "department",
        "apps": [{"id": "common", **server}],
        "groups": [
            {"id": "db", "apps": [{"id": "mongo", **server}, {"id": "mysql", **server}]},
            {
                "id": "product",
                "dependencies": ["/department/db"],
                "apps": [
                    {"id": "back", **server, "dependencies": ["/department/common"]},
                    {"id": "front", **server, "dependencies": ["back", "/elsewhere/not-there"]},
                ],
            },
        ],
    }
    cluster.ask(CreateGroup(update=read_group(body, "/").update))
    (deployment,) = cluster.state.deployments.values()
    order = [sorted(action.app for action in step) for step in deployment.steps]
    assert order[1:] == [
        ["/department/common", "/department/db/mongo", "/department/db/mysql"],
        ["/department/product/back"],
        ["/department/product/front"],
    ]


def test_what_an_app_says_of_linux_is_said_to_the_engine() -> None:
    def flags(**linux: Any) -> list[tuple[str, str]]:
        spec = read_app({"id": "/a", "container": mesos(linuxInfo=linux)}).spec
        check_app(spec, Config())
        container = make_container(spec, ())
        assert container is not None
        assert container.docker is not None
        return [(p.key, p.value) for p in container.docker.parameters]

    assert flags(seccomp={"unconfined": True}) == [("security-opt", "seccomp=unconfined")]
    assert flags(seccomp={"unconfined": False}) == []
    assert flags(ipcInfo={"mode": "SHARE_PARENT"}) == [("ipc", "host")]
    assert flags(ipcInfo={"shmSize": 64}) == [("ipc", "private"), ("shm-size", "64m")]


@pytest.mark.parametrize(
    ("linux", "place"),
    [
        ({"ipcInfo": {"mode": "PRIVATE"}}, "/container/linuxInfo/ipcInfo/mode"),
        ({"seccomp": {}}, "/container/linuxInfo/seccomp"),
        ({"ipcInfo": {"mode": "SHARE_PARENT", "shmSize": 1}}, "/container/linuxInfo/ipcInfo/shmSize"),
        ({"ipcInfo": {"shmSize": 0}}, "/container/linuxInfo/ipcInfo/shmSize"),
    ],
)
def test_a_command_of_the_node_gets_no_linux_of_its_own(linux: dict[str, Any], place: str) -> None:
    spec = read_app({"id": "/a", "cmd": "sleep 9", "container": {"type": "MESOS", "linuxInfo": linux}}).spec
    with pytest.raises(Unprocessable) as caught:
        check_app(spec, Config())
    assert place in caught.value.details


def test_an_image_s_credentials_are_named_to_the_agent_and_must_be_declared() -> None:
    docker = {"type": "DOCKER", "docker": {"image": "own/app", "pullConfig": {"secret": "c"}}}
    spec = read_app({"id": "/a", "container": docker, "secrets": {"c": {"source": "/docker/config"}}}).spec
    container = make_container(spec, ())
    assert container is not None
    assert container.docker is not None
    assert container.docker.pull_config == "secret:docker/config"
    with pytest.raises(Unprocessable) as caught:
        check_app(read_app({"id": "/a", "container": docker}).spec, Config())
    assert "/container/docker/pullConfig/secret" in caught.value.details


@pytest.mark.parametrize(
    ("name", "wanted", "row"),
    [
        ("a database on a disk of its own", ("disk-mount", 524288.0), "InsufficientDisk"),
        ("a volume of a driver for a command", ("volume-driver-without-image", 1.0), "DeclinedScarceResources"),
        ("a profile of system calls", ("seccomp-profile:relaxed.json", 1.0), "DeclinedScarceResources"),
    ],
)
def test_what_no_agent_has_is_wanted_all_the_same_so_that_the_wait_is_explained(
    name: str, wanted: tuple[str, float], row: str, cluster: Cluster
) -> None:
    cluster.ask(CreateApp(spec=read_app({"id": "/doc/app", **FILES[name]}).spec))
    cluster.settle()
    (want,) = cluster.wants.values()
    assert wanted in [(r.name, r.milli / 1000) for r in want.resources]
    refusal = Refusal(reason=wanted[0], detail=f"wants {wanted[0]}", agents=2, best="host1")
    explanation = Explanation(
        want_id=want.id, framework_id=FRAMEWORK, role=want.role, waiting=1, since_at=cluster.now, agents=2,
        refusals=(refusal,), never=True,
    )  # fmt: skip
    cluster.send(events.Explanations(explanations=(explanation,)))
    (item,) = cluster.ask(GetQueue())
    rows = {r["reason"]: r["declined"] for r in item["processedOffersSummary"]["rejectSummaryLastOffers"]}
    assert rows[row] == 2
    assert item["processedOffersSummary"]["never"] is True


@pytest.mark.parametrize(
    ("volume", "place"),
    [
        ({"type": "root", "size": 10, "constraints": [["path", "LIKE", "/mnt"]]}, "constraints"),
        ({"type": "path", "size": 10, "constraints": [["path", "IS", "/mnt"]]}, "constraints"),
        ({"type": "path", "size": 10, "constraints": [["rack", "LIKE", "/mnt"]]}, "constraints"),
        ({"type": "path", "size": 10, "constraints": [["path", "LIKE", "("]]}, "constraints"),
        ({"type": "path", "size": 10, "maxSize": 20}, "maxSize"),
        ({"type": "mount", "size": 10, "maxSize": 9}, "maxSize"),
    ],
)
def test_a_disk_of_its_own_is_asked_for_in_marathons_terms(volume: dict[str, Any], place: str) -> None:
    body = {"type": "MESOS", "volumes": [{"containerPath": "d", "mode": "RW", "persistent": volume}]}
    with pytest.raises(Unprocessable) as caught:
        check_app(complete(read_app({"id": "/a", **SHELL, "container": body}).spec, Config()), Config())
    assert f"/container/volumes(0)/persistent/{place}" in caught.value.details


def test_all_networks_of_an_app_are_told_and_a_host_port_names_its_own() -> None:
    networks = [{"name": "blue"}, {"name": "green", "labels": {"a": "b"}}]

    def read(**mapping: Any) -> Any:
        body = {"id": "/a", "networks": networks, "container": mesos(portMappings=[{"containerPort": 80, **mapping}])}
        return read_app(body).spec

    container = make_container(read(), (0,))
    assert container is not None
    assert [n.name for n in container.network_infos] == ["blue", "green"]
    check_app(read(hostPort=0, networkNames=["green"]), Config())
    for names in ([], ["blue", "green"]):
        with pytest.raises(Unprocessable) as caught:
            check_app(read(hostPort=0, networkNames=names), Config())
        assert "/container/portMappings(0)/networkNames" in caught.value.details
