"""Marathon's JSON inward and outward: what is accepted, what is refused and where, what comes back."""

import contextlib
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.frameworks.services.app_spec import (
    AppSpec,
    Container,
    Docker,
    Fetch,
    HealthCheck,
    HostVolume,
    Network,
    NetworkSpec,
    PortDefinition,
    PortMapping,
    Protocol,
    Unreachable,
    Upgrade,
)
from corral.frameworks.services.checks import write_health_check
from corral.frameworks.services.marathon import read_app, read_update, read_updates, write_error
from corral.frameworks.services.names import read_selector, read_task_id, read_version
from corral.frameworks.services.reader import read_json
from corral.frameworks.services.shown import write_app
from corral.frameworks.services.spec import Config
from corral.frameworks.services.validate import canonical_id, check_app, complete
from corral.lib.errors import Conflict, Invalid, NotFound, Unprocessable
from corral.net.routes import Request

TALK = (
    '{"container":{"type":"DOCKER","docker":{"image":"libmesos/ubuntu"},"volumes":[{"containerPath":"/etc/a",'
    '"hostPath":"/var/data/a","mode":"RO"},{"containerPath":"/etc/b","hostPath":"/var/data/b","mode":"RW"}]},'
    '"id":"ubuntu","instances":1,"cpus":0.5,"mem":512,"cmd":"while sleep 10; do date -u +%T; done"}'
)
DOCKER = {"type": "DOCKER", "docker": {"image": "nginx"}}
BRIDGE = {"networks": [{"mode": "container/bridge"}], "container": DOCKER}


def accept(**fields: Any) -> AppSpec:
    """The app as the core takes it on."""
    spec = read_app({"id": "/a", "cmd": "sleep 9", **fields}).spec
    check_app(spec, Config())
    whole = complete(spec, Config())
    check_app(whole, Config())
    return whole


def refuse(**fields: Any) -> dict[str, list[str]]:
    with pytest.raises(Unprocessable) as caught:
        accept(**fields)
    return caught.value.details


def test_the_talks_file_is_read_whole() -> None:
    found = read_app(read_json(TALK.encode()))
    assert found.unknown == ()
    assert found.spec.id == "/ubuntu"
    assert found.spec.container == Container(
        docker=Docker(image="libmesos/ubuntu"),
        volumes=(
            HostVolume(container_path="/etc/a", host_path="/var/data/a", mode="RO"),
            HostVolume(container_path="/etc/b", host_path="/var/data/b", mode="RW"),
        ),
    )
    assert found.spec.network is Network.HOST


def test_what_is_not_said_takes_marathons_defaults() -> None:
    spec = accept()
    assert (spec.instances, spec.cpus, spec.mem_mb, spec.disk_mb) == (1, 1.0, 128.0, 0.0)
    assert (spec.backoff_s, spec.backoff_factor, spec.most_backoff_s) == (1, 1.15, 300)
    assert spec.upgrade == Upgrade(minimum_health_capacity=1.0, maximum_over_capacity=1.0)
    assert spec.unreachable == Unreachable(inactive_after_s=0, expunge_after_s=0)
    assert spec.port_definitions == (PortDefinition(port=0, protocol="tcp"),)
    assert spec.kill_selection == "YOUNGEST_FIRST"


def test_nulls_are_as_good_as_nothing() -> None:
    assert accept(user=None, container=None, labels={"a": None}, constraints=None) == accept()


def test_old_port_lists_become_definitions() -> None:
    assert accept(ports=[8080, 0]).port_definitions == (PortDefinition(port=8080), PortDefinition(port=0))
    assert accept(ports=[]).port_definitions == ()
    assert accept(ports=[80], portDefinitions=[{"port": 80}]).port_definitions == (PortDefinition(port=80),)
    assert "/ports" in refuse(ports=[81], portDefinitions=[{"port": 80}])
    assert accept(ports=[], portDefinitions=[{"port": 80}]).port_definitions == (PortDefinition(port=80),)


def test_old_uris_become_artifacts_that_are_extracted_by_their_suffix() -> None:
    assert accept(uris=["http://x/a.tgz", "http://x/b.bin"]).fetch == (
        Fetch(uri="http://x/a.tgz", extract=True),
        Fetch(uri="http://x/b.bin", extract=False),
    )
    assert accept(fetch=[{"uri": "http://x/a"}]).fetch == (Fetch(uri="http://x/a", extract=True),)
    assert "/uris" in refuse(uris=["http://x/a"], fetch=[{"uri": "http://x/b"}])
    assert "/fetch(0)/uri" in refuse(uris=["http://x/a b"])
    assert accept(uris=[], fetch=[{"uri": "http://x/b"}]).fetch == (Fetch(uri="http://x/b"),)


def test_old_docker_networks_become_networks() -> None:
    old = {**DOCKER, "docker": {"image": "nginx", "network": "BRIDGE", "portMappings": [{"containerPort": 80}]}}
    spec = accept(container=old)
    assert spec.networks == (NetworkSpec(mode=Network.BRIDGE),)
    assert spec.ports == (PortMapping(container_port=80, host_port=0),)
    assert accept(container={**DOCKER, "docker": {"image": "nginx", "network": "HOST"}}).network is Network.HOST
    assert "/container/docker/network" in refuse(container={"docker": {"image": "nginx", "network": "NONE"}})
    assert "/networks" in refuse(container=old, networks=[{"mode": "container/bridge"}])


def test_an_old_ip_address_becomes_a_network_with_its_name() -> None:
    ports = [{"number": 80, "name": "http", "protocol": "tcp"}]
    spec = accept(container=DOCKER, ipAddress={"networkName": "blue", "groups": ["g"], "discovery": {"ports": ports}})
    assert spec.networks == (NetworkSpec(mode=Network.CONTAINER, name="blue"),)
    assert spec.ports == (PortMapping(container_port=80, name="http"),)


def test_a_bridge_without_mappings_has_one_port_and_with_an_empty_list_none() -> None:
    assert accept(**BRIDGE).ports == (PortMapping(container_port=0, host_port=0),)
    none = {**DOCKER, "portMappings": []}
    assert accept(networks=[{"mode": "container/bridge"}], container=none).ports == ()


def test_a_mode_is_a_container_network_when_it_is_not_named() -> None:
    spec = accept(networks=[{"name": "blue"}], container={**DOCKER, "portMappings": [{"containerPort": 80}]})
    assert spec.network is Network.CONTAINER
    assert spec.ports == (PortMapping(container_port=80, host_port=None),)


def test_operators_of_constraints_are_taken_in_any_case() -> None:
    assert accept(constraints=[["rack", "group_by", "3"]]).constraints == (("rack", "GROUP_BY", "3"),)


def test_dependencies_are_read_from_where_the_app_is() -> None:
    spec = read_app({"id": "/prod/web", "cmd": "sleep 9", "dependencies": ["db", "../base", "/x/y"]}).spec
    assert spec.dependencies == ("/prod/db", "/base", "/x/y")


def test_an_unreachable_strategy_is_read_in_all_its_forms() -> None:
    assert accept(unreachableStrategy="disabled").unreachable is None
    both = {"inactiveAfterSeconds": 60, "expungeAfterSeconds": 120}
    assert accept(unreachableStrategy=both).unreachable == Unreachable(inactive_after_s=60, expunge_after_s=120)
    old = {"unreachableInactiveAfterSeconds": 60, "unreachableExpungeAfterSeconds": 120}
    assert accept(unreachableStrategy=old).unreachable == Unreachable(inactive_after_s=60, expunge_after_s=120)


def test_the_single_instance_label_stops_before_it_starts() -> None:
    label = {"MARATHON_SINGLE_INSTANCE_APP": "true"}
    none = {"minimumHealthCapacity": 0, "maximumOverCapacity": 0}
    assert accept(labels=label, upgradeStrategy=none).upgrade.maximum_over_capacity == 0
    assert accept(labels=label).upgrade.maximum_over_capacity == 0
    assert "/instances" in refuse(labels=label, upgradeStrategy=none, instances=2)
    assert "/upgradeStrategy" in refuse(labels=label, upgradeStrategy={"minimumHealthCapacity": 0.5})


WRONG: list[tuple[str, dict[str, Any]]] = [
    ("/cmd", {"cmd": "a\0b c"}),
    ("/user", {"user": "a\0"}),
    ("/env/A", {"env": {"A": "x\0"}}),
    ("/env", {"env": {"": "x"}}),
    ("/env", {"env": {"A=B": "x"}}),
    ("/fetch(0)/uri", {"fetch": [{"uri": "http://x/\0"}]}),
    (
        "/container/volumes(0)/hostPath",
        {"container": {"type": "MESOS", "volumes": [{"containerPath": "a", "hostPath": "/b\0", "mode": "RO"}]}},
    ),
    ("/cpus", {"cpus": -1}),
    ("/mem", {"mem": -1}),
    ("/disk", {"disk": -0.5}),
    ("/instances", {"instances": -1}),
    ("/instances", {"instances": 10_000_000}),
    ("/gpus", {"gpus": -1}),
    ("/gpus", {"gpus": 1, "container": {"type": "MESOS", "docker": {"image": "nginx"}}}),
    ("/id", {"id": "/"}),
    ("/id", {"id": "/Web"}),
    ("/id", {"id": "/web_one"}),
    ("/id", {"id": "/-web"}),
    ("/id", {"id": "/web/restart"}),
    ("/id", {"id": "/web/versions"}),
    ("/id", {"id": "/" + "a" * 300}),
    ("/", {"args": ["a"]}),
    ("/", {"cmd": None}),
    ("/", {"cmd": None, "container": {"type": "MESOS"}}),
    ("/cmd", {"cmd": "x"}),
    ("/container/docker", {"container": {"type": "DOCKER"}}),
    ("/container/docker/image", {"container": {"docker": {}}}),
    (
        "/container/docker/privileged",
        {"container": {"type": "MESOS", "docker": {"image": "nginx", "privileged": True}}},
    ),
    (
        "/container/docker/parameters",
        {"container": {"type": "MESOS", "docker": {"image": "nginx", "parameters": [{"key": "a", "value": "b"}]}}},
    ),
    ("/container/type", {"container": {"type": "RKT"}}),
    (
        "/container/linuxInfo/seccomp/profileName",
        {"container": {**DOCKER, "linuxInfo": {"seccomp": {"profileName": "../own.json"}}}},
    ),
    ("/container/docker/credential", {"container": {"docker": {"image": "a", "credential": {"principal": "p"}}}}),
    ("/container/docker/pullConfig/secret", {"container": {"docker": {"image": "a", "pullConfig": {"secret": "s"}}}}),
    ("/container/docker/pullConfig", {"container": {"docker": {"image": "a", "pullConfig": "s"}}}),
    ("/container/docker/parameters(0)/key", {"container": {"docker": {"image": "a", "parameters": [{"value": "v"}]}}}),
    ("/container/volumes(0)", {"container": {**DOCKER, "volumes": [{"containerPath": "/a", "mode": "RW"}]}}),
    ("/container/volumes(0)/mode", {"container": {**DOCKER, "volumes": [{"containerPath": "/a", "hostPath": "/b"}]}}),
    (
        "/container/volumes(0)/mode",
        {"container": {**DOCKER, "volumes": [{"containerPath": "/a", "hostPath": "/b", "mode": "WO"}]}},
    ),
    (
        "/container/volumes(0)/external/provider",
        {"container": {**DOCKER, "volumes": [{"containerPath": "/a", "mode": "RW", "external": {"name": "x"}}]}},
    ),
    ("/portDefinitions", {"portDefinitions": [{"port": 80, "name": "a"}, {"port": 81, "name": "a"}]}),
    ("/portDefinitions", {"portDefinitions": [{"port": 80}, {"port": 80}]}),
    ("/portDefinitions(0)/port", {"portDefinitions": [{"port": 65536}]}),
    ("/portDefinitions(0)/port", {"ports": [-1]}),
    ("/portDefinitions(0)/name", {"portDefinitions": [{"name": "Web"}]}),
    ("/portDefinitions(0)/protocol", {"portDefinitions": [{"protocol": "icmp"}]}),
    ("/portDefinitions", {**BRIDGE, "portDefinitions": [{"port": 80}]}),
    ("/container/portMappings", {"container": {**DOCKER, "portMappings": [{"containerPort": 80}]}}),
    ("/container/portMappings(0)/hostPort", {**BRIDGE, "container": {**DOCKER, "portMappings": [{"hostPort": 70000}]}}),
    ("/networks", {"container": DOCKER, "networks": [{"mode": "host"}, {"mode": "container/bridge"}]}),
    ("/networks", {"networks": [{"mode": "container/bridge"}]}),
    ("/networks(0)", {"networks": [{"mode": "host", "name": "blue"}]}),
    ("/networks(0)/name", {"container": DOCKER, "networks": [{"mode": "container/bridge", "name": "blue"}]}),
    ("/networks(0)/name", {"container": DOCKER, "networks": [{"mode": "container"}]}),
    ("/networks", {"container": DOCKER, "networks": [{"name": "a"}, {"name": "a"}]}),
    ("/networks(0)/mode", {"networks": [{"mode": "vpn"}]}),
    ("/constraints(0)", {"constraints": [["rack", "NEAR"]]}),
    ("/constraints(0)", {"constraints": [["rack"]]}),
    ("/constraints(0)", {"constraints": [["rack", "UNIQUE", "a", "b"]]}),
    ("/constraints(0)", {"constraints": [["rack", "UNIQUE", "a"]]}),
    ("/constraints(0)", {"constraints": [["rack", "MAX_PER"]]}),
    ("/constraints(0)", {"constraints": [["rack", "MAX_PER", "two"]]}),
    ("/constraints(0)", {"constraints": [["rack", "LIKE"]]}),
    ("/constraints(0)", {"constraints": [["rack", "UNLIKE", "("]]}),
    ("/constraints(0)", {"constraints": [["rack", "LIKE", "(a+)+"]]}),
    ("/constraints(0)", {"constraints": [["rack", "MAX_PER", "0"]]}),
    ("/constraints(0)", {"constraints": [["rack", "GROUP_BY", "0"]]}),
    ("/constraints(0)", {"constraints": [["rack", "APART", "port:80"]]}),
    ("/constraints", {"constraints": [["rack", "UNLIKE", f"r{n}"] for n in range(25)]}),
    (
        "/portDefinitions",
        {"requirePorts": True, "portDefinitions": [{"port": n, "name": f"p{n}"} for n in range(1, 34)]},
    ),
    ("/constraints(0)", {"constraints": [["rack", "GROUP_BY", "two"]]}),
    ("/constraints(0)", {"constraints": [["rack", "IS", "a b"]]}),
    ("/constraints", {"constraints": [["rack", "UNIQUE"], ["rack", "UNIQUE"]]}),
    ("/upgradeStrategy/minimumHealthCapacity", {"upgradeStrategy": {"minimumHealthCapacity": 1.1}}),
    ("/upgradeStrategy/maximumOverCapacity", {"upgradeStrategy": {"maximumOverCapacity": -0.1}}),
    ("/backoffFactor", {"backoffFactor": 0.5}),
    ("/backoffSeconds", {"backoffSeconds": -1}),
    ("/taskKillGracePeriodSeconds", {"taskKillGracePeriodSeconds": -1}),
    ("/unreachableStrategy", {"unreachableStrategy": {"inactiveAfterSeconds": 9, "expungeAfterSeconds": 1}}),
    ("/killSelection", {"killSelection": "RANDOM"}),
    ("/acceptedResourceRoles", {"acceptedResourceRoles": []}),
    ("/acceptedResourceRoles", {"acceptedResourceRoles": ["other"]}),
    ("/healthChecks(0)", {"healthChecks": ["HTTP"]}),
    ("/healthChecks(0)/protocol", {"healthChecks": [{"protocol": "UDP"}]}),
    ("/healthChecks(1)/portIndex", {"healthChecks": [{}, {"portIndex": 1}]}),
    ("/healthChecks(0)/portIndex", {"healthChecks": [{"portIndex": -1}]}),
    ("/healthChecks(0)/portIndex", {"portDefinitions": [], "healthChecks": [{"protocol": "TCP"}]}),
    ("/healthChecks(0)/portIndex", {"portDefinitions": [], "healthChecks": [{"protocol": "MESOS_TCP"}]}),
    ("/healthChecks(0)/portIndex", {**BRIDGE, "healthChecks": [{"portIndex": 1}]}),
    ("/healthChecks(0)/port", {"healthChecks": [{"port": 0}]}),
    ("/healthChecks(0)/port", {"healthChecks": [{"port": 65536}]}),
    ("/healthChecks(0)/command", {"healthChecks": [{"protocol": "COMMAND"}]}),
    ("/healthChecks(0)/command", {"healthChecks": [{"protocol": "COMMAND", "command": {"value": ""}}]}),
    ("/healthChecks(0)/command", {"healthChecks": [{"protocol": "COMMAND", "command": "a\0b"}]}),
    ("/healthChecks(0)/command", {"healthChecks": [{"protocol": "TCP", "command": "true"}]}),
    ("/healthChecks(0)/command", {"healthChecks": [{"protocol": "COMMAND", "command": 3}]}),
    ("/healthChecks(0)/gracePeriodSeconds", {"healthChecks": [{"gracePeriodSeconds": -1}]}),
    ("/healthChecks(0)/intervalSeconds", {"healthChecks": [{"intervalSeconds": "10"}]}),
    ("/healthChecks(0)/maxConsecutiveFailures", {"healthChecks": [{"maxConsecutiveFailures": -1}]}),
    ("/healthChecks(0)/ipProtocol", {"healthChecks": [{"ipProtocol": "IPv6"}]}),
    ("/healthChecks(0)/ipProtocol", {"healthChecks": [{"protocol": "MESOS_TCP", "ipProtocol": "IPv6"}]}),
    ("/healthChecks", {"healthChecks": [{"protocol": "MESOS_TCP"}, {"protocol": "MESOS_HTTP"}]}),
    ("/readinessChecks(0)/portName", {"readinessChecks": [{}]}),
    ("/readinessChecks", {"readinessChecks": [{}, {}]}),
    ("/readinessChecks(0)/protocol", {"readinessChecks": [{"protocol": "TCP"}]}),
    ("/readinessChecks(0)/timeoutSeconds", {"readinessChecks": [{"intervalSeconds": 5, "timeoutSeconds": 5}]}),
    ("/readinessChecks(0)/httpStatusCodesForReady", {"readinessChecks": [{"httpStatusCodesForReady": []}]}),
    ("/readinessChecks(0)/httpStatusCodesForReady(0)", {"readinessChecks": [{"httpStatusCodesForReady": [99]}]}),
    ("/check", {"check": {"tcp": {}, "http": {}}}),
    ("/check", {"check": {"intervalSeconds": 1}}),
    ("/check/tcp/portIndex", {"check": {"tcp": {"portIndex": 3}}}),
    ("/check", {"check": {"tcp": {}}, "container": {"docker": {"image": "nginx"}}}),
    ("/check/exec/command", {"check": {"exec": {}}}),
    ("/env/A", {"env": {"A": 1}}),
    ("/env", {"env": {"": "x"}}),
    ("/residency/taskLostBehavior", {"residency": {"taskLostBehavior": "PANIC"}}),
    ("/executor", {"executor": "/bin/mine"}),
    ("/executorResources/cpus", {"executorResources": {"cpus": 0.05}}),
    ("/executorResources/mem", {"executorResources": {"mem": "much"}}),
    ("/resourceLimits/cpus", {"cpus": 3, "resourceLimits": {"cpus": 2}}),
    ("/resourceLimits/mem", {"resourceLimits": {"mem": "much"}}),
    ("/tty", {"tty": True}),
    ("/cpus", {"cpus": "1"}),
    ("/cpus", {"cpus": True}),
    ("/instances", {"instances": 1.5}),
    ("/args", {"cmd": None, "args": "ls"}),
    ("/args(1)", {"cmd": None, "args": ["ls", 3]}),
    ("/labels", {"labels": ["a"]}),
    ("/labels/a", {"labels": {"a": 1}}),
    ("/container", {"container": "nginx"}),
    ("/ports(0)", {"ports": ["80"]}),
    ("/dependencies(0)", {"dependencies": ["/UPPER"]}),
    ("/requirePorts", {"requirePorts": "yes"}),
]


@pytest.mark.parametrize(("path", "fields"), WRONG, ids=[f"{p} {json.dumps(f)[:60]}" for p, f in WRONG])
def test_a_wrong_app_is_refused_at_the_right_place(path: str, fields: dict[str, Any]) -> None:
    assert path in refuse(**fields)


def test_a_health_check_takes_marathons_defaults() -> None:
    (check,) = accept(healthChecks=[{}]).health_checks
    assert check == HealthCheck(
        protocol=Protocol.HTTP, path="/", port=None, port_index=0, command=None, grace_s=300, interval_s=60,
        timeout_s=20, most_failures=3, ignore_1xx=False, delay_s=15,
    )  # fmt: skip


def test_the_command_of_a_health_check_may_be_a_plain_text() -> None:
    for command in ("true", {"value": "true"}):
        (check,) = accept(healthChecks=[{"protocol": "COMMAND", "command": command}]).health_checks
        assert check.command == "true"
        assert write_health_check(check)["command"] == {"value": "true"}


def test_a_health_check_may_look_at_the_port_that_an_app_gets_unasked() -> None:
    assert accept(healthChecks=[{"portIndex": 0}]).health_checks
    assert accept(**BRIDGE, healthChecks=[{"protocol": "MESOS_HTTP"}]).health_checks


def test_unknown_fields_of_health_checks_are_reported() -> None:
    found = read_app({"id": "/a", "cmd": "ls -l", "healthChecks": [{"protocol": "TCP", "colour": 1}]})
    assert found.unknown == ("/healthChecks(0)/colour",)


def test_all_faults_are_told_at_once() -> None:
    assert set(refuse(cpus=-1, mem=-1, constraints=[["a", "NEAR"]])) == {"/cpus", "/mem", "/constraints(0)"}


def test_an_app_needs_an_id() -> None:
    with pytest.raises(Unprocessable) as caught:
        read_app({"cmd": "sleep 9"})
    assert "/id" in caught.value.details


@pytest.mark.parametrize("value", [[], "text", 3, None, True])
def test_what_is_no_object_is_no_app(value: Any) -> None:
    with pytest.raises(Unprocessable):
        read_app(value)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000, b'{"a":1}}'])
def test_what_is_no_json_is_invalid(body: bytes) -> None:
    with pytest.raises(Invalid, match="Invalid JSON"):
        read_json(body)


def test_empty_forms_of_what_is_not_supported_ask_for_nothing() -> None:
    empty = {"healthChecks": [], "readinessChecks": [], "secrets": {}, "gpus": 0, "tty": False}
    assert accept(**empty) == accept()


def test_unknown_fields_are_reported_with_their_paths() -> None:
    found = read_app({"id": "/a", "cmd": "ls -l", "colour": 1, "container": {**DOCKER, "volumes": [], "x": 1}})
    assert set(found.unknown) == {"/colour", "/container/x"}
    shown = {"tasks": [], "tasksRunning": 1, "versionInfo": {}, "deployments": [], "lastTaskFailure": {}}
    assert read_app({"id": "/a", "cmd": "ls -l", **shown}).unknown == ()


def test_an_update_knows_which_fields_it_gives() -> None:
    found = read_update({"instances": 3, "ports": [80]}, "/a")
    assert found.given == ("instances", "port_definitions")
    assert found.spec.id == "/a"
    assert read_update({"id": "a"}, "/a").given == ()
    with pytest.raises(Unprocessable):
        read_update({"id": "/b"}, "/a")
    assert read_update({"id": "/b"}, "/a", any_id=True).spec.id == "/a"


def test_a_version_stands_alone() -> None:
    assert read_update({"version": "2026-01-31T12:00:00.000Z", "id": "/a"}, "/a").to_version
    with pytest.raises(Unprocessable) as caught:
        read_update({"version": "2026-01-31T12:00:00.000Z", "cpus": 1}, "/a")
    assert "/version" in caught.value.details


def test_a_list_of_updates_names_the_faulty_one() -> None:
    with pytest.raises(Unprocessable) as caught:
        read_updates([{"id": "/a"}, {"id": "/b", "cpus": "x"}])
    assert list(caught.value.details) == ["(1)/cpus"]
    with pytest.raises(Unprocessable):
        read_updates({"id": "/a"})
    with pytest.raises(Unprocessable):
        read_updates([{"id": "/a"}, {"id": "a"}])


@pytest.mark.parametrize(
    ("path", "base", "absolute"),
    [
        ("web", "/", "/web"),
        ("/web", "/x", "/web"),
        ("web", "/prod", "/prod/web"),
        ("../web", "/prod/a", "/prod/web"),
        ("./web", "/prod", "/prod/web"),
        ("//grp//web/", "/", "/grp/web"),
        ("../../..", "/a", "/"),
    ],
)
def test_ids_are_made_absolute(path: str, base: str, absolute: str) -> None:
    assert canonical_id(path, base) == absolute


@pytest.mark.parametrize(
    ("text", "app", "instance", "incarnation"),
    [
        ("grp_web.instance-6a8e4a2c-0000-11ee-8000-010203040506._app.3", "/grp/web",
         "grp_web.instance-6a8e4a2c-0000-11ee-8000-010203040506", 3),
        ("web.instance-6a8e4a2c-0000-11ee-8000-010203040506", "/web",
         "web.instance-6a8e4a2c-0000-11ee-8000-010203040506", None),
        ("web.marathon-6a8e4a2c-0000-11ee-8000-010203040506", "/web",
         "web.marathon-6a8e4a2c-0000-11ee-8000-010203040506", None),
        ("web.6a8e4a2c-0000-11ee-8000-010203040506", "/web", "web.6a8e4a2c-0000-11ee-8000-010203040506", None),
        ("a.b.instance-x._app.1", "/a.b", "a.b.instance-x", 1),
    ],
)  # fmt: skip
def test_task_ids_of_all_ages_are_read(text: str, app: str, instance: str, incarnation: int | None) -> None:
    found = read_task_id(text)
    assert found is not None
    assert (found.app, found.instance, found.incarnation) == (app, instance, incarnation)


def test_what_is_no_task_id_is_none() -> None:
    assert read_task_id("nonsense") is None
    assert read_task_id("") is None


@pytest.mark.parametrize(
    ("selector", "labels", "chosen"),
    [
        ("a", {"a": "1"}, True),
        ("a", {"b": "1"}, False),
        ("a==1", {"a": "1"}, True),
        ("a != 1", {"a": "2"}, True),
        ("a!=1", {"b": "2"}, False),
        ("a in (1, 2)", {"a": "2"}, True),
        ("a in (1,2)", {"a": "3"}, False),
        ("a notin (1,2)", {"a": "3"}, True),
        ("a notin (1,2)", {}, False),
        ("a==1, b", {"a": "1", "b": "x"}, True),
        ("a==1,b", {"a": "1"}, False),
        (r"a\/b == x\,y", {"a/b": "x,y"}, True),
        ("x.y-z_1==v.1", {"x.y-z_1": "v.1"}, True),
    ],
)
def test_label_selectors_choose(selector: str, labels: dict[str, str], chosen: bool) -> None:
    assert read_selector(selector)(labels) is chosen


@pytest.mark.parametrize("selector", ["a==", "a in (", "a in ()", ",", "a b", "==1", "a==1,,b"])
def test_broken_selectors_are_refused(selector: str) -> None:
    with pytest.raises(Unprocessable, match="label selector"):
        read_selector(selector)


def test_versions_are_read_as_they_are_written() -> None:
    assert read_version("2026-01-31T12:00:00.000Z") == "2026-01-31T12:00:00.000Z"
    assert read_version("2026-01-31T12:00:00Z") == "2026-01-31T12:00:00.000Z"
    with pytest.raises(Unprocessable):
        read_version("yesterday")


def test_errors_are_written_in_marathons_form() -> None:
    request = Request(method="GET", path="/v2/apps")
    answer = write_error(Conflict("App is locked", ("d1",)), request)
    assert answer.status == 409
    assert json.loads(answer.body) == {"message": "App is locked", "deployments": [{"id": "d1"}]}
    answer = write_error(Unprocessable("Object is not valid", {"/cpus": ["too few"]}), request)
    assert json.loads(answer.body)["details"] == [{"path": "/cpus", "errors": ["too few"]}]
    assert json.loads(write_error(NotFound("gone"), request).body) == {"message": "gone"}


def test_optional_fields_that_are_unset_are_left_out() -> None:
    shown = write_app(accept())
    for field in (
        "tty", "check", "executorResources", "resourceLimits", "user", "args", "container", "residency",
        "taskKillGracePeriodSeconds", "acceptedResourceRoles", "role", "secrets",
    ):  # fmt: skip
        assert field not in shown
    assert None not in shown.values()
    assert "networkNames" not in write_app(accept(**BRIDGE))["container"]["portMappings"][0]


names = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,6}[a-z0-9])?", fullmatch=True)
words = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=12)
maps = st.dictionaries(words.filter(bool), words, max_size=3)
thousandths = st.integers(0, 10**6).map(lambda n: n / 1000)
numbers = st.integers(0, 65535)

definitions = st.builds(
    PortDefinition, port=numbers, protocol=st.sampled_from(["tcp", "udp", "udp,tcp"]),
    name=st.none() | names, labels=maps,
)  # fmt: skip
mappings = st.builds(
    PortMapping, container_port=numbers, host_port=st.none() | numbers, service_port=numbers,
    protocol=st.sampled_from(["tcp", "udp"]), name=st.none() | names, labels=maps,
    network_names=st.lists(names, max_size=1).map(tuple),
)  # fmt: skip
dockers = st.builds(
    Docker, image=names, force_pull_image=st.booleans(), privileged=st.booleans(),
    parameters=st.lists(st.tuples(names, words), max_size=2).map(tuple),
)  # fmt: skip
volumes = st.builds(HostVolume, container_path=names, host_path=names, mode=st.sampled_from(["RO", "RW"]))
containers = st.builds(
    Container, kind=st.sampled_from(["DOCKER", "MESOS"]), docker=st.none() | dockers,
    volumes=st.lists(volumes, max_size=2).map(tuple),
    port_mappings=st.none() | st.lists(mappings, max_size=2).map(tuple),
)  # fmt: skip
_times = {f: st.integers(0, 1000) for f in ("grace_s", "interval_s", "timeout_s", "most_failures", "delay_s")}
checks = st.builds(
    HealthCheck, protocol=st.sampled_from([p for p in Protocol if p is not Protocol.COMMAND]), path=words,
    port=st.none() | st.integers(0, 9), port_index=st.integers(0, 9), ignore_1xx=st.booleans(), **_times,
) | st.builds(HealthCheck, protocol=st.just(Protocol.COMMAND), command=words, **_times)  # fmt: skip
networks = st.builds(NetworkSpec, mode=st.sampled_from(list(Network)), name=st.none() | names, labels=maps)
specs = st.builds(
    AppSpec,
    id=names.map(lambda n: "/" + n),
    cmd=st.none() | words, args=st.lists(words, max_size=3).map(tuple), user=st.none() | names, env=maps,
    instances=st.integers(0, 1000), cpus=thousandths, mem_mb=thousandths, disk_mb=thousandths,
    executor=st.sampled_from(["", "//cmd"]),
    constraints=st.lists(st.tuples(names, st.just("LIKE"), words), max_size=2).map(tuple), labels=maps,
    container=st.none() | containers,
    networks=st.lists(networks, min_size=1, max_size=2).map(tuple),
    require_ports=st.booleans(),
    fetch=st.lists(st.builds(Fetch, uri=names, extract=st.booleans(), executable=st.booleans(), cache=st.booleans(),
                             dest_path=st.none() | names), max_size=2).map(tuple),
    health_checks=st.lists(checks, max_size=3).map(tuple),
    dependencies=st.lists(names.map(lambda n: "/" + n), max_size=2, unique=True).map(tuple),
    upgrade=st.builds(Upgrade, minimum_health_capacity=thousandths, maximum_over_capacity=thousandths),
    backoff_s=numbers, backoff_factor=thousandths, most_backoff_s=numbers, kill_grace_s=st.none() | numbers,
    kill_selection=st.sampled_from(["YOUNGEST_FIRST", "OLDEST_FIRST"]),
    unreachable=st.none() | st.builds(Unreachable, inactive_after_s=numbers, expunge_after_s=numbers),
    accepted_resource_roles=st.lists(names, max_size=2).map(tuple), role=st.none() | names,
)  # fmt: skip


@given(specs, st.lists(definitions, max_size=2).map(tuple))
def test_what_is_written_is_read_as_the_same(spec: AppSpec, ports: tuple[PortDefinition, ...]) -> None:
    spec = msgspec.structs.replace(spec, port_definitions=ports if spec.network is Network.HOST else None)
    over_the_wire = read_json(msgspec.json.encode(write_app(spec)))
    found = read_app(over_the_wire)
    assert found.spec == spec
    assert found.unknown == ()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
fields = st.sampled_from(
    ["id", "cmd", "args", "env", "cpus", "instances", "constraints", "labels", "container", "networks", "ports",
     "portDefinitions", "fetch", "uris", "ipAddress", "upgradeStrategy", "unreachableStrategy", "dependencies",
     "version", "killSelection", "acceptedResourceRoles", "healthChecks"]
)  # fmt: skip


@given(st.dictionaries(fields, json_values, max_size=5))
def test_reading_never_fails_but_with_an_error_of_ours(value: dict[str, Any]) -> None:
    with contextlib.suppress(Unprocessable):
        check_app(complete(read_app(value).spec, Config()), Config())
