"""What the PyPI client can say and read at most: every field of its app, every error, every event, every odd call."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from marathon import MarathonClient
from marathon.exceptions import (
    ConflictError,
    InvalidChoiceError,
    MarathonError,
    MarathonHttpError,
    NoResponseError,
    NotFoundError,
)
from marathon.models import MarathonApp, MarathonConstraint, MarathonHealthCheck
from marathon.models.app import (
    MarathonUnreachableStrategy,
    MarathonUpgradeStrategy,
    PortDefinition,
    ReadinessCheck,
    Residency,
    Secret,
)
from marathon.models.container import (
    MarathonContainer,
    MarathonContainerPortMapping,
    MarathonContainerVolume,
    MarathonDockerContainer,
)
from marathon.models.events import EventFactory
from marathon_site import Daemon, Site

SMALL: dict[str, Any] = {"cpus": 0.1, "mem": 16, "instances": 0}
GONE = "whole_web.instance-6a8e4a2c-0000-11ee-8000-010203040506._app.1"


@pytest.fixture
def made(site: Site) -> Iterator[Callable[[str, MarathonApp], MarathonApp]]:
    """Creates apps and removes them at the end."""
    ids: list[str] = []

    def create(app_id: str, app: MarathonApp) -> MarathonApp:
        ids.append(app_id)
        return site.client.create_app(app_id, app)

    yield create
    for app_id in ids:
        site.client.delete_app(app_id, force=True)
    site.wait(lambda: not site.client.list_deployments(), "the end")


def command(**more: Any) -> MarathonApp:
    return MarathonApp(**{"cmd": "sleep 1000", **SMALL, **more})


def image(docker: dict[str, Any] | None = None, kind: str = "DOCKER", **more: Any) -> MarathonContainer:
    return MarathonContainer(type=kind, docker=MarathonDockerContainer(image="nginx", **(docker or {})), **more)


WHOLE: dict[str, Any] = {
    "user": "root",
    "disk": 1,
    "gpus": 0,
    "env": {"A": "b", "PASSWORD": {"secret": "pw"}},
    "secrets": {"pw": Secret(source="db/password")},
    "constraints": [MarathonConstraint("hostname", "UNIQUE"), MarathonConstraint("hostname", "LIKE", ".*")],
    "labels": {"tier": "front"},
    "accepted_resource_roles": ["*"],
    "role": "*",
    "backoff_factor": 1.2,
    "backoff_seconds": 2,
    "max_launch_delay_seconds": 100,
    "dependencies": ["/whole/other"],
    "kill_selection": "OLDEST_FIRST",
    "port_definitions": [PortDefinition(port=18090, protocol="tcp", name="http", labels={"VIP_0": "/web:80"})],
    "require_ports": False,
    "health_checks": [
        MarathonHealthCheck(protocol="HTTP", path="/health", port_index=0, grace_period_seconds=3, interval_seconds=4,
                            timeout_seconds=2, max_consecutive_failures=5, ignore_http1xx=True),
        MarathonHealthCheck(protocol="COMMAND", command="true", delay_seconds=1),
        MarathonHealthCheck(protocol="TCP", port=8080),
    ],
    "readiness_checks": [
        ReadinessCheck(name="up", protocol="HTTP", path="/ready", port_name="http", interval_seconds=5,
                       timeout_seconds=2, http_status_codes_for_ready=[200, 204], preserve_last_response=True)
    ],
    "upgrade_strategy": MarathonUpgradeStrategy(maximum_over_capacity=0.2, minimum_health_capacity=0.8),
    "unreachable_strategy": MarathonUnreachableStrategy(inactive_after_seconds=10, expunge_after_seconds=20),
    "task_kill_grace_period_seconds": 2,
    "fetch": [{"uri": "http://example.org/a.tgz", "extract": True, "executable": False, "cache": True}],
    "networks": [{"mode": "host"}],
}  # fmt: skip


def test_every_field_of_the_clients_app_comes_back(site: Site, client: MarathonClient, made: Any) -> None:
    created = made("/whole/web", command(**WHOLE))
    wanted = json.loads(command(**WHOLE).to_json(minimal=True))
    for app in (created, client.get_app("/whole/web"), client.get_version("/whole/web", created.version)):
        shown = json.loads(app.to_json(minimal=True))
        checks = shown.pop("healthChecks")
        assert {key: shown.get(key) for key in wanted if key != "healthChecks"} == {
            key: value for key, value in wanted.items() if key != "healthChecks"
        }
        for given, found in zip(wanted["healthChecks"], checks, strict=True):
            assert given.items() <= found.items()
    before = client.get_app("/whole/web").version
    for minimal in (True, False):
        client.update_app("/whole/web", client.get_app("/whole/web"), minimal=minimal)
    assert client.get_app("/whole/web").version == before


@pytest.mark.parametrize(
    "app",
    [
        MarathonApp(container=image({"network": "HOST"}), args=["-v"], **SMALL),
        MarathonApp(
            container=image(
                {
                    "network": "BRIDGE", "privileged": True, "force_pull_image": True,
                    "parameters": [{"key": "hostname", "value": "a"}],
                    "port_mappings": [
                        MarathonContainerPortMapping(container_port=80, host_port=0, service_port=18091, name="http",
                                                     protocol="tcp", labels={"a": "b"}),
                        MarathonContainerPortMapping(container_port=53, protocol="udp"),
                    ],
                },
                volumes=[MarathonContainerVolume("/data", "/srv", "RO")],
            ),
            **SMALL,
        ),
        MarathonApp(container=image(port_mappings=[MarathonContainerPortMapping(container_port=80)]),
                    networks=[{"mode": "container/bridge"}], **SMALL),
        MarathonApp(container=image(kind="MESOS"), networks=[{"mode": "container", "name": "dev"}], **SMALL),
        MarathonApp(container=image(), ip_address={"networkName": "dev", "labels": {"a": "b"}}, **SMALL),
        command(uris=["http://example.org/a.tgz"]),
        command(ports=[18092, 0], require_ports=True),
        command(constraints=[["rack", "GROUP_BY", "3"], ["hostname", "MAX_PER", "2"], ["rack", "CLUSTER"],
                             ["hostname", "UNLIKE", "x.*"], ["rack", "IS", "r1"]]),
        command(unreachable_strategy=MarathonUnreachableStrategy.from_json("disabled")),
        command(residency=Residency(10, "WAIT_FOREVER"), container=MarathonContainer(type="MESOS", volumes=[
            MarathonContainerVolume("data", mode="RW", persistent={"size": 10})])),
        MarathonApp(container=image(volumes=[MarathonContainerVolume("/data", mode="RW", external={
            "name": "vol", "provider": "dvdi", "options": {"dvdi/driver": "rexray"}})]), **SMALL),
        command(store_urls=["http://example.org/a"], task_rate_limit=1.0),
        command(executor="//cmd", upgrade_strategy={"maximumOverCapacity": 0, "minimumHealthCapacity": 0}),
    ],
)  # fmt: skip
def test_what_the_client_can_say_is_taken_shown_and_taken_again(
    client: MarathonClient, made: Any, app: MarathonApp
) -> None:
    version = made("/whole/form", app).version
    for minimal in (True, False):
        client.update_app("/whole/form", client.get_app("/whole/form"), minimal=minimal)
        shown = client.get_app("/whole/form")
        assert shown.version == version
        assert [c.to_json() for c in shown.constraints] == [c.to_json() for c in app.constraints]


def test_an_app_with_all_that_it_leaves_unsaid_is_taken_too(made: Any) -> None:
    created = MarathonApp(cmd="sleep 9", **SMALL)
    body = json.loads(created.to_json(minimal=False))
    assert body["container"] is None
    assert made("/whole/nulls", created).cmd == "sleep 9"


@pytest.mark.parametrize(
    ("ask", "kind", "status", "words"),
    [
        (lambda c: c.get_app("/whole/none"), NotFoundError, 404, "'/whole/none' does not exist"),
        (lambda c: c.list_tasks("/whole/none"), NotFoundError, 404, "does not exist"),
        (lambda c: c.list_versions("/whole/none"), NotFoundError, 404, "does not exist"),
        (lambda c: c.restart_app("/whole/none"), NotFoundError, 404, "does not exist"),
        (lambda c: c.delete_app("/whole/none"), NotFoundError, 404, "does not exist"),
        (lambda c: c.kill_tasks("/whole/none"), NotFoundError, 404, "does not exist"),
        (lambda c: c.kill_task("/whole/web", GONE), NotFoundError, 404, "does not exist"),
        (lambda c: c.kill_task("/whole/web", "nonsense"), MarathonHttpError, 400, "malformed"),
        (lambda c: c.kill_task("/whole/web", GONE, scale=True, wipe=True), MarathonHttpError, 400, "scale and wipe"),
        (lambda c: c.kill_given_tasks(["nonsense"]), MarathonHttpError, 400, "malformed"),
        (lambda c: c.get_version("/whole/web", "2000-01-01T00:00:00.000Z"), NotFoundError, 404, "no version"),
        (lambda c: c.get_version("/whole/web", "soon"), MarathonHttpError, 422, "no timestamp|not a timestamp"),
        (lambda c: c.rollback_app("/whole/web", "2000-01-01T00:00:00.000Z"), NotFoundError, 404, "no version"),
        (lambda c: c.delete_deployment("none"), NotFoundError, 404, "Deployment none does not exist"),
        (lambda c: c.delete_deployment("none", force=True), NotFoundError, 404, "does not exist"),
        (lambda c: c.reset_delay("/whole/none"), NotFoundError, 404, "queue"),
        (lambda c: c.delete_group("/whole/none"), NotFoundError, 404, "Group '/whole/none' does not exist"),
        (lambda c: c.list_apps(label="kind in ("), MarathonHttpError, 422, "selector|kind"),
        (lambda c: c.create_app("/whole/web", command()), ConflictError, 409, "already exists"),
        (lambda c: c.scale_group("/whole/none", 2), NotFoundError, 404, "does not exist"),
    ],
)  # fmt: skip
def test_errors_have_their_kind_status_and_words(
    client: MarathonClient, made: Any, ask: Callable[[MarathonClient], Any], kind: type[MarathonHttpError], status: int,
    words: str,
) -> None:  # fmt: skip
    made("/whole/web", command())
    with pytest.raises(kind, match=words) as caught:
        ask(client)
    assert caught.value.status_code == status
    assert caught.value.error_message


@pytest.mark.parametrize(
    ("app", "path"),
    [
        (command(cpus=-1), "/cpus"),
        (command(args=["a"]), "/"),
        (MarathonApp(**SMALL), "/"),
        (command(constraints=[["hostname", "LIKE", "("]]), "/constraints(0)"),
        (command(upgrade_strategy={"minimumHealthCapacity": 2}), "/upgradeStrategy/minimumHealthCapacity"),
        (command(health_checks=[MarathonHealthCheck(protocol="HTTP", port_index=3)]), "/healthChecks(0)/portIndex"),
        (command(port_definitions=[PortDefinition(name="a"), PortDefinition(name="a")]), "/portDefinitions"),
        (command(unreachable_strategy={"inactiveAfterSeconds": 9, "expungeAfterSeconds": 1}), "/unreachableStrategy"),
        (command(role="somebody-else"), "/role"),
        (command(accepted_resource_roles=["elsewhere"]), "/acceptedResourceRoles"),
        (command(networks=[{"mode": "satellite"}]), "/networks(0)/mode"),
        (command(fetch=[{"uri": ""}]), "/fetch(0)/uri"),
    ],
)  # fmt: skip
def test_a_faulty_app_is_refused_with_the_place_of_the_fault(
    client: MarathonClient, app: MarathonApp, path: str
) -> None:
    with pytest.raises(MarathonHttpError) as caught:
        client.create_app("/whole/faulty", app)
    assert caught.value.status_code == 422
    assert any(detail["path"].startswith(path) and detail["errors"] for detail in caught.value.error_details)


def test_what_the_client_refuses_by_itself_never_gets_here(client: MarathonClient) -> None:
    for build in (
        lambda: MarathonApp(kill_selection="RANDOM"),
        lambda: MarathonContainer(type="ROCKET"),
        lambda: MarathonDockerContainer(image="a", network="MESH"),
        lambda: MarathonContainerPortMapping(protocol="icmp"),
        lambda: MarathonContainerVolume(mode="WO"),
    ):
        with pytest.raises(InvalidChoiceError):
            build()
    with pytest.raises(ValueError, match="invalid path"):
        client.create_app("/Not/An_Id", command())


def test_a_server_that_is_not_there_is_passed_over(site: Site) -> None:
    assert MarathonClient(["http://127.0.0.1:9", site.url], timeout=10).ping() == b'"pong"'
    with pytest.raises(NoResponseError):
        MarathonClient("http://127.0.0.1:9", timeout=2).ping()


def test_scaling_what_is_not_there_says_so_without_an_error(client: MarathonClient) -> None:
    assert client.scale_app("/whole/none", instances=2) is None


def test_unknown_tasks_are_skipped_when_several_are_killed(client: MarathonClient) -> None:
    assert client.kill_given_tasks([GONE]) is True


def test_tasks_are_chosen_by_what_the_client_knows_of_them(site: Site, client: MarathonClient, made: Any) -> None:
    made("/whole/chosen", command(instances=2))
    app = site.wait_running("/whole/chosen", 2)
    host = app.tasks[0].host
    assert len(client.list_tasks("/whole/chosen", host=host)) == 2
    assert client.list_tasks("/whole/chosen", host="elsewhere") == []
    killed = client.kill_task("/whole/chosen", app.tasks[0].id, scale=True)
    assert set(killed) == {"version", "deploymentId"}
    assert site.wait_running("/whole/chosen", 1).instances == 1
    wiped = client.kill_tasks("/whole/chosen", wipe=True)
    assert [t.app_id for t in wiped] == ["/whole/chosen"]
    site.wait_running("/whole/chosen", 1)


def test_pods_beside_apps_disturb_no_call_of_the_client(site: Site, client: MarathonClient) -> None:
    container = {"name": "one", "exec": {"command": {"shell": "sleep 1000"}}, "resources": {"cpus": 0.1, "mem": 16}}
    pod = {"id": "/whole/pod", "containers": [{**container, "endpoints": [{"name": "http", "hostPort": 0}]}]}
    status = f"{site.url}/v2/pods/whole/pod::status"
    assert requests.post(f"{site.url}/v2/pods", json=pod, timeout=10).status_code == 201
    assert client.list_deployments()[0].affected_pods == ["/whole/pod"]
    site.wait(lambda: requests.get(status, timeout=10).json()["status"] == "STABLE", "the pod")
    assert "/whole/pod" not in {task.app_id for task in client.list_tasks()}
    assert "/whole/pod" not in {endpoint.app_id for endpoint in client.list_endpoints()}
    assert "/whole/pod" not in {app.id for app in client.list_apps()}
    assert client.get_group("/whole").pods == []
    requests.delete(f"{site.url}/v2/pods/whole/pod", timeout=10)
    site.wait(lambda: not client.list_deployments(), "the end")


class Hearer:
    """Follows the events as the client reads them. Shapes: `kinds` are the types seen, `fault` what ended it."""

    def __init__(self, client: MarathonClient) -> None:
        self.seen: list[Any] = []
        self.fault: Exception | None = None
        self._stream = client.event_stream()
        self.seen.append(next(self._stream))
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        try:
            for event in self._stream:
                self.seen.append(event)
        except MarathonError as fault:
            self.fault = fault
        except Exception:
            return

    @property
    def kinds(self) -> set[str]:
        return {event.event_type for event in list(self.seen)}


def test_every_event_is_one_that_the_client_can_read(site: Site, client: MarathonClient, tmp_path: Path) -> None:
    hearer = Hearer(client)
    requests.get(f"{site.url}/v2/events", headers={"Accept": "text/event-stream"}, stream=True, timeout=10).close()
    sick = tmp_path / "sick"
    check = MarathonHealthCheck(protocol="COMMAND", command=f"test ! -e {sick}", interval_seconds=1, timeout_seconds=1,
                                grace_period_seconds=0, max_consecutive_failures=2, delay_seconds=0)  # fmt: skip
    app = command(instances=1, health_checks=[check], backoff_seconds=0, backoff_factor=1)
    client.create_app("/heard/web", app)
    site.wait(lambda: client.get_app("/heard/web").tasks_healthy == 1, "health")
    sick.touch()
    site.wait(lambda: "unhealthy_instance_kill_event" in hearer.kinds, "the kill")
    sick.unlink()
    site.wait(lambda: client.get_app("/heard/web").tasks_healthy == 1, "health again")
    client.update_app("/heard/web", command(instances=1, cmd="sleep 1001", mem=1_000_000))
    client.update_app("/heard/web", command(instances=0, cmd="sleep 1001"), force=True)
    site.wait(lambda: not client.list_deployments(), "the end of all deployments")
    with pytest.raises(MarathonHttpError):
        client.rollback_group("/heard", "2001-01-01T00:00:00.000Z")
    client.delete_app("/heard/web", force=True)
    container = {"name": "one", "exec": {"command": {"shell": "sleep 1000"}}, "resources": {"cpus": 0.1, "mem": 16}}
    pod: dict[str, Any] = {"id": "/heard/pod", "containers": [container], "scaling": {"kind": "fixed", "instances": 0}}
    requests.post(f"{site.url}/v2/pods", json=pod, timeout=10)
    requests.put(f"{site.url}/v2/pods/heard/pod", json={**pod, "labels": {"a": "b"}}, timeout=10)
    requests.delete(f"{site.url}/v2/pods/heard/pod", timeout=10)
    wanted = set(EventFactory.event_to_class) - {
        # What tells of a stream's own webhooks, of executors of an app's own, and of tasks that nobody knows.
        "subscribe_event", "unsubscribe_event", "framework_message_event", "unknown_instance_terminated_event",
        # Marathon's own last release has the first no more, and the second only where a step gives up.
        "unhealthy_task_kill_event", "deployment_step_failure",
    }  # fmt: skip
    with contextlib.suppress(AssertionError):
        site.wait(lambda: hearer.fault is not None or wanted <= hearer.kinds, "all of them")
    assert hearer.fault is None
    assert wanted - hearer.kinds == set()
    for event in list(hearer.seen):
        assert event.timestamp.endswith("Z")
    by_kind = {event.event_type: event for event in list(hearer.seen)}
    assert by_kind["failed_health_check_event"].health_check.command == {"value": f"test ! -e {sick}"}
    assert by_kind["unhealthy_instance_kill_event"].app_id == "/heard/web"
    assert by_kind["deployment_info"].plan.steps
    assert by_kind["pod_updated_event"].uri == "/v2/pods/heard/pod"


def test_a_leader_that_is_to_go_hands_over_and_its_apps_run_on(
    lonely: "tuple[Daemon, Path, Callable[[], Daemon]]",
) -> None:
    dev, _, start = lonely
    services = start()
    site = Site(services.url, dev.url)
    site.client.create_app("/led", command(instances=1))
    before = {t.id for t in site.wait_running("/led", 1).tasks}
    instance = requests.get(f"{site.url}/corral/v1/process", timeout=10).json()["instance"]
    assert site.client.delete_leader() == {"message": "Leadership abdicated"}

    def renewed() -> bool:
        try:
            found = requests.get(f"{site.url}/corral/v1/process", timeout=10).json()
            leads = requests.get(f"{site.url}/v2/leader", timeout=10).status_code == 200
        except requests.RequestException:
            return False
        return leads and found.get("instance") not in (None, instance)

    site.wait(renewed, "another start of the process")
    assert {t.id for t in site.wait_running("/led", 1).tasks} == before
    site.remove("/led")
