"""The PyPI client `marathon` 0.13.0 against the real server: every call that this release has."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests
from corral_daemons import wait_until
from marathon import MarathonClient
from marathon.exceptions import ConflictError, MarathonHttpError, NotFoundError
from marathon.models import MarathonApp, MarathonConstraint, MarathonGroup
from marathon.models.app import MarathonUpgradeStrategy
from marathon_site import Site


def sleeper(**more: object) -> MarathonApp:
    return MarathonApp(**{"cmd": "sleep 1000", "cpus": 0.1, "mem": 16, "instances": 1, **more})


def test_an_app_lives_from_create_to_delete(site: Site, client: MarathonClient) -> None:
    created = client.create_app("/life/web", sleeper(instances=2, labels={"tier": "front"}))
    assert created.id == "/life/web"
    assert created.tasks_running == 0
    assert len(created.deployments) == 1
    app = site.wait_running("/life/web", 2)
    assert app.cmd == "sleep 1000"
    assert app.labels == {"tier": "front"}
    assert all(t.state == "TASK_RUNNING" and t.host and len(t.ports) == 1 for t in app.tasks)
    assert all(t.staged_at and t.started_at and t.version == app.version for t in app.tasks)
    assert app.version_info.last_scaling_at == app.version_info.last_config_change_at
    site.remove("/life/web")
    with pytest.raises(NotFoundError):
        client.get_app("/life/web")


def test_apps_are_listed_and_chosen_by_id_command_and_label(site: Site, client: MarathonClient) -> None:
    client.create_app("/list/one", sleeper(cmd="sleep 1111", labels={"kind": "a"}))
    client.create_app("/list/two", sleeper(cmd="sleep 2222", labels={"kind": "b"}))
    assert {a.id for a in client.list_apps(app_id="list")} == {"/list/one", "/list/two"}
    assert [a.id for a in client.list_apps(cmd="2222")] == ["/list/two"]
    assert [a.id for a in client.list_apps(label="kind==a")] == ["/list/one"]
    site.wait_running("/list/one", 1)
    listed = client.list_apps(
        app_id="/list/one", embed_tasks=True, embed_counts=True, embed_deployments=True, embed_readiness=True,
        embed_last_task_failure=True, embed_failures=True, embed_task_stats=True,
    )  # fmt: skip
    assert len(listed[0].tasks) == 1
    assert listed[0].task_stats.total_summary.stats.counts.running == 1
    with pytest.raises(MarathonHttpError):
        client.list_apps(label="kind in (")
    site.remove("/list/one")
    site.remove("/list/two")


def test_an_app_is_scaled_up_and_down(site: Site, client: MarathonClient) -> None:
    client.create_app("/scale", sleeper())
    first = site.wait_running("/scale", 1)
    answer = client.scale_app("/scale", instances=3)
    assert set(answer) == {"version", "deploymentId"}
    assert {t.id for t in first.tasks} <= {t.id for t in site.wait_running("/scale", 3).tasks}
    client.scale_app("/scale", delta=-2)
    assert {t.id for t in site.wait_running("/scale", 1).tasks} == {t.id for t in first.tasks}
    site.remove("/scale")


def test_an_update_replaces_instances_and_makes_a_version_to_go_back_to(site: Site, client: MarathonClient) -> None:
    client.create_app("/update", sleeper(cmd="sleep 3001"))
    first = site.wait_running("/update", 1)
    app = client.get_app("/update")
    app.cmd = "sleep 3002"
    app.constraints = [MarathonConstraint("hostname", "LIKE", ".*")]
    client.update_app("/update", app)
    second = site.wait_running("/update", 1)
    assert second.cmd == "sleep 3002"
    assert second.tasks[0].id != first.tasks[0].id
    versions = client.list_versions("/update")
    assert versions == [second.version, first.version]
    assert client.get_version("/update", first.version).cmd == "sleep 3001"
    client.rollback_app("/update", first.version)
    assert site.wait_running("/update", 1).cmd == "sleep 3001"
    assert len(client.list_versions("/update")) == 3
    site.remove("/update")


def test_what_was_fetched_can_be_sent_back_in_every_form(site: Site, client: MarathonClient) -> None:
    client.create_app("/echo", sleeper(env={"A": "b"}, upgrade_strategy=MarathonUpgradeStrategy(0.5, 0.5)))
    before = site.wait_running("/echo", 1)
    for minimal in (True, False):
        client.update_app("/echo", client.get_app("/echo"), minimal=minimal)
        assert client.get_app("/echo").version == before.version
    site.remove("/echo")


def test_several_apps_are_updated_in_one_deployment(site: Site, client: MarathonClient) -> None:
    apps = [MarathonApp(id=f"/many/a{n}", cmd="sleep 1000", cpus=0.1, mem=16, instances=1) for n in range(3)]
    answer = client.update_apps(apps)
    assert set(answer) == {"version", "deploymentId"}
    for n in range(3):
        site.wait_running(f"/many/a{n}", 1)
    for n in range(3):
        site.remove(f"/many/a{n}")


def test_a_restart_replaces_every_task(site: Site, client: MarathonClient) -> None:
    client.create_app("/again", sleeper(instances=2))
    before = {t.id for t in site.wait_running("/again", 2).tasks}
    assert "deploymentId" in client.restart_app("/again")
    after = {t.id for t in site.wait_running("/again", 2).tasks}
    assert not before & after
    site.remove("/again")


def test_tasks_are_listed_and_killed_in_every_way(site: Site, client: MarathonClient) -> None:
    client.create_app("/kill", sleeper(instances=3))
    app = site.wait_running("/kill", 3)
    assert {t.id for t in client.list_tasks("/kill")} == {t.id for t in app.tasks}
    assert {t.id for t in app.tasks} <= {t.id for t in client.list_tasks()}
    assert [e.service_port for e in client.list_endpoints() if e.app_id == "/kill"] == [
        app.port_definitions[0].port
    ] * 3
    victim = app.tasks[0]
    assert client.kill_task("/kill", victim.id).id == victim.id
    site.wait(lambda: victim.id not in {t.id for t in client.list_tasks("/kill")}, "the task's end")
    app = site.wait_running("/kill", 3)
    assert len(client.kill_tasks("/kill", host=app.tasks[0].host)) == 3
    site.wait(lambda: not {t.id for t in app.tasks} & {t.id for t in client.list_tasks("/kill")}, "their end")
    app = site.wait_running("/kill", 3)
    assert client.kill_given_tasks([app.tasks[0].id], scale=True)
    assert site.wait_running("/kill", 2).instances == 2
    with pytest.raises(MarathonHttpError):
        client.kill_tasks("/kill", scale=True, wipe=True)
    with pytest.raises(NotFoundError):
        client.kill_task("/kill", app.tasks[0].id)
    site.remove("/kill")


def test_an_app_that_nothing_can_hold_waits_in_the_queue_with_its_reason(site: Site, client: MarathonClient) -> None:
    client.create_app("/huge", sleeper(mem=1_000_000))

    def explained() -> object:
        items = [i for i in client.list_queue(embed_last_unused_offers=True) if i.app.id == "/huge"]
        return items[0] if items and items[0].processed_offers_summary["processedOffersCount"] else None

    item = site.wait(explained, "an explanation")
    assert item.count == 1
    assert item.delay.overdue is True
    rows = {r["reason"]: r["declined"] for r in item.processed_offers_summary["rejectSummaryLastOffers"]}
    assert rows["InsufficientMemory"] == 1
    assert len(rows) == 10
    (deployment,) = [d for d in client.list_deployments() if "/huge" in d.affected_apps]
    assert (deployment.current_step, deployment.total_steps) == (2, 2)
    assert client.delete_deployment(deployment.id, force=True) == {}
    client.delete_app("/huge")


def test_a_failing_app_shows_its_failure_and_its_delay_can_be_reset(site: Site, client: MarathonClient) -> None:
    client.create_app("/fails", sleeper(cmd="exit 3", backoff_seconds=600, max_launch_delay_seconds=600))
    app = site.wait(lambda: (a := client.get_app("/fails")).last_task_failure is not None and a, "the failure")
    assert "status 3" in app.last_task_failure.message
    assert app.last_task_failure.state == "TASK_FAILED"
    (item,) = [i for i in client.list_queue() if i.app.id == "/fails"]
    assert item.delay.overdue is False
    assert 590 < item.delay.time_left_seconds <= 600
    first = app.last_task_failure.task_id
    client.reset_delay("/fails")
    site.wait(lambda: client.get_app("/fails").last_task_failure.task_id != first, "another try")
    site.remove("/fails")


def test_a_deployment_that_holds_an_app_is_named_when_it_is_in_the_way(site: Site, client: MarathonClient) -> None:
    client.create_app("/locked", sleeper(mem=1_000_000))
    with pytest.raises(ConflictError) as caught:
        client.scale_app("/locked", instances=2)
    (deployment,) = [d for d in client.list_deployments() if "/locked" in d.affected_apps]
    assert caught.value.error_message
    assert "force=true" in str(caught.value)
    answer = requests.put(f"{site.url}/v2/apps/locked", json={"instances": 2}, timeout=10)
    assert answer.json()["deployments"] == [{"id": deployment.id}]
    back = client.delete_deployment(deployment.id)
    assert set(back) == {"version", "deploymentId"}
    site.wait(lambda: not [a for a in client.list_apps() if a.id == "/locked"], "the app to be undone")


def test_the_same_name_twice_is_a_conflict(site: Site, client: MarathonClient) -> None:
    client.create_app("/twice", sleeper(instances=0))
    with pytest.raises(ConflictError):
        client.create_app("/twice", sleeper(instances=0))
    site.remove("/twice")


def test_the_framework_tells_of_itself(site: Site, client: MarathonClient) -> None:
    info = client.get_info()
    assert info.elected is True
    assert info.framework_id
    assert info.marathon_config.local_port_min == 10000
    assert info.zookeeper_config.zk_max_versions == 50
    assert info.http_config.http_port == int(site.url.rpartition(":")[2])
    assert client.get_leader() == {"leader": site.url.removeprefix("http://")}
    assert client.ping() == b'"pong"'
    assert requests.get(f"{site.url}/ping", timeout=10).text == "pong"


def test_the_client_reads_numbers(site: Site, client: MarathonClient) -> None:
    found = client.get_metrics()
    name = "master/elected" if site.url == site.master else "marathon.apps.active.gauge"
    assert found["version"] == "4.0.0"
    assert name in found["gauges"]


def test_groups_of_apps_are_shown(site: Site, client: MarathonClient) -> None:
    client.create_app("/family/child/one", sleeper(instances=0))
    group = client.get_group("/family")
    assert [g.id for g in group.groups] == ["/family/child"]
    assert [a.id for a in group.groups[0].apps] == ["/family/child/one"]
    assert "/family" in {g.id for g in client.list_groups()}
    with pytest.raises(NotFoundError):
        client.get_group("/nobody")
    site.remove("/family/child/one")


def test_groups_are_rolled_back_to_a_version_by_the_client(site: Site, client: MarathonClient) -> None:
    client.create_group(MarathonGroup(id="/rolled", apps=[sleeper(id="one", instances=0)]))
    (version, *_) = requests.get(f"{site.url}/v2/groups/rolled/versions", timeout=10).json()
    client.create_app("/rolled/two", sleeper(instances=0))
    with pytest.raises(MarathonHttpError) as caught:
        client.rollback_group("/rolled", "2001-01-01T00:00:00.000Z")
    assert caught.value.status_code == 422
    assert "deploymentId" in client.rollback_group("/rolled", version, force=True)
    assert [app.id for app in client.get_group("/rolled").apps] == ["/rolled/one"]


def test_a_readiness_check_without_its_port_is_refused_at_its_place(site: Site) -> None:
    body = {"id": "/x", "cmd": "sleep 9", "readinessChecks": [{}]}
    answer = requests.post(f"{site.url}/v2/apps", json=body, timeout=10)
    assert (answer.status_code, answer.json()["details"][0]["path"]) == (422, "/readinessChecks(0)/portName")


def test_a_url_is_told_of_events_for_as_long_as_the_client_wants(site: Site, client: MarathonClient) -> None:
    heard: list[dict[str, object]] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *words: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}/in"
    try:
        assert client.create_event_subscription(url)["callbackUrl"] == url
        assert client.list_event_subscriptions() == [url]
        client.create_app("/hooked", sleeper())
        site.wait_running("/hooked", 1)
        wait_until(lambda: any(event["eventType"] == "deployment_success" for event in heard), "the deployment's end")
        assert client.delete_event_subscription(url)["eventType"] == "unsubscribe_event"
        assert client.list_event_subscriptions() == []
    finally:
        server.shutdown()
        site.remove("/hooked")
    assert {"deployment_info", "status_update_event"} <= {event["eventType"] for event in heard}
