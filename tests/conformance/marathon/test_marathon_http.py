"""Marathon's REST API as raw HTTP: bodies, status codes and headers that clients in other languages depend on."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import requests
from marathon_site import Daemon, Site

TALK = (
    '{"container":{"type":"DOCKER","docker":{"image":"libmesos/ubuntu"},"volumes":[{"containerPath":"/etc/a",'
    '"hostPath":"/var/data/a","mode":"RO"},{"containerPath":"/etc/b","hostPath":"/var/data/b","mode":"RW"}]},'
    '"id":"ubuntu","instances":1,"cpus":0.5,"mem":512,"cmd":"while sleep 10; do date -u +%T; done"}'
)


def test_the_app_file_of_the_mesos_talk_is_accepted_unchanged(site: Site) -> None:
    answer = requests.post(f"{site.url}/v2/apps", data=TALK, headers={"Content-Type": "application/json"}, timeout=10)
    assert answer.status_code == 201
    body = answer.json()
    assert body["id"] == "/ubuntu"
    assert body["container"]["docker"]["image"] == "libmesos/ubuntu"
    assert body["container"]["volumes"] == json.loads(TALK)["container"]["volumes"]
    assert answer.headers["Location"] == "/ubuntu"
    assert answer.headers["Marathon-Deployment-Id"] == body["deployments"][0]["id"]
    site.remove("/ubuntu")


def test_a_body_that_is_no_json_is_refused_in_json(site: Site) -> None:
    for body in (b"", b"{", b"nonsense", b'{"id":"/a"', b"\xff\xfe"):
        answer = requests.post(f"{site.url}/v2/apps", data=body, timeout=10)
        assert answer.status_code == 400, body
        assert answer.headers["Content-Type"].startswith("application/json")
        assert answer.json()["message"].startswith("Invalid JSON")


def test_a_body_of_wrong_types_is_refused_by_field(site: Site) -> None:
    answer = requests.post(f"{site.url}/v2/apps", json={"id": "/a", "cpus": "many", "args": 3}, timeout=10)
    assert answer.status_code == 422
    assert answer.json()["message"] == "Invalid JSON"
    assert {d["path"] for d in answer.json()["details"]} == {"/cpus", "/args"}


def test_a_body_that_is_too_large_is_refused(site: Site) -> None:
    body = {"id": "/a", "cmd": "x" * (9 << 20)}
    answer = requests.post(f"{site.url}/v2/apps", json=body, timeout=10)
    assert answer.status_code == 413
    assert "message" in answer.json()


def test_unknown_paths_and_apps_are_answered_in_the_dialect(site: Site) -> None:
    for method, path in (
        ("GET", "/v2/apps/none"), ("GET", "/v2/apps/none/tasks"), ("GET", "/v2/apps/none/versions"),
        ("DELETE", "/v2/apps/none"), ("POST", "/v2/apps/none/restart"), ("PATCH", "/v2/apps/none"),
        ("DELETE", "/v2/deployments/none"), ("DELETE", "/v2/queue/none/delay"), ("GET", "/v2/groups/none"),
        ("GET", "/v2/pods/none"), ("GET", "/v2/plugins/none"), ("GET", "/v2/groups/none/apps"),
        ("GET", "/v2/deployments/none"), ("POST", "/v2/deployments/none/pause"), ("DELETE", "/v2/groups/none"),
    ):  # fmt: skip
        answer = requests.request(method, site.url + path, data="{}", timeout=10)
        assert answer.status_code == 404, path
        assert answer.json()["message"], path


def test_a_wrong_method_is_told_the_right_ones(site: Site) -> None:
    for method, path, allowed in (
        ("POST", "/v2/apps/none", "DELETE, GET, PATCH, PUT"), ("DELETE", "/v2/apps", "GET, PATCH, POST, PUT"),
        ("GET", "/v2/apps/none/restart", "POST"), ("GET", "/v2/tasks/delete", "POST"), ("PUT", "/v2/queue", "GET"),
        ("GET", "/v2/queue/none/delay", "DELETE"), ("POST", "/v2/info", "GET"),
        ("PATCH", "/v2/pods/none", "DELETE, GET, PUT"),
        ("PUT", "/v2/leader", "DELETE, GET"), ("POST", "/ping", "GET"), ("POST", "/v2/deployments", "GET"),
    ):  # fmt: skip
        answer = requests.request(method, site.url + path, data="{}", timeout=10)
        assert (answer.status_code, answer.headers.get("Allow")) == (405, allowed), path
        assert answer.json()["message"] == f"{path} takes {allowed}, not {method}"


def test_endpoints_of_no_release_are_unknown(site: Site) -> None:
    for path in ("/v2/artifacts", "/v2/schemas/app", "/v2/plugins/none/x", "/v2/app"):
        for method in ("GET", "POST", "DELETE"):
            answer = requests.request(method, site.url + path, timeout=10)
            assert answer.status_code == 404, path
            assert answer.json() == {"message": f"there is no {path} here"}


def test_the_framework_tells_its_numbers_its_setup_and_its_log(site: Site) -> None:
    gauges = requests.get(f"{site.url}/v2/metrics", timeout=10).json()["gauges"]
    assert gauges["marathon.apps.active.gauge"]["value"] >= 0
    text = requests.get(f"{site.url}/v2/metrics", headers={"Accept": "text/plain"}, timeout=10)
    assert "# TYPE marathon_instances_running gauge" in text.text
    prometheus = requests.get(f"{site.url}/metrics/prometheus", timeout=10)
    assert prometheus.headers["Content-Type"].startswith("text/plain")
    assert ("corral_master_elected 1.0" if site.url == site.master else "marathon_apps_active ") in prometheus.text
    assert requests.get(f"{site.url}/config", timeout=10).json()["name"] == "services"
    assert requests.get(f"{site.url}/logging", timeout=10).json() == {"ROOT": "INFO"}
    changed = requests.post(f"{site.url}/logging", json={"level": "DEBUG", "durationSeconds": 1}, timeout=10)
    assert changed.json() == {"ROOT": "DEBUG"}
    site.wait(lambda: requests.get(f"{site.url}/logging", timeout=10).json() == {"ROOT": "INFO"}, "the level as before")
    assert requests.post(f"{site.url}/logging", json={"level": "LOUD"}, timeout=10).status_code == 422


def test_every_answer_names_the_leader_and_is_kept_by_no_cache(site: Site) -> None:
    for method, path, status in (
        ("GET", "/v2/apps", 200), ("GET", "/v2/pods", 200), ("GET", "/v2/apps/none", 404), ("POST", "/v2/info", 405),
        ("POST", "/v2/apps", 400), ("GET", "/ping", 200), ("GET", "/v2/nowhere", 404),
    ):  # fmt: skip
        answer = requests.request(method, site.url + path, timeout=10)
        assert (answer.status_code, answer.headers["X-Marathon-Leader"]) == (status, site.url), path
        assert "no-store" in answer.headers["Cache-Control"], path


def test_large_answers_are_compressed_for_those_who_take_it(site: Site) -> None:
    label = {"text": "word " * 4000}
    body = {"id": "/large", "cmd": "sleep 9", "instances": 0, "labels": label}
    assert requests.post(f"{site.url}/v2/apps", json=body, timeout=10).status_code == 201
    for accepted, encoding in (("gzip, deflate", "gzip"), ("identity", None), ("gzip;q=0", None)):
        answer = requests.get(f"{site.url}/v2/apps/large", headers={"Accept-Encoding": accepted}, timeout=10)
        assert answer.headers.get("Content-Encoding") == encoding
        assert answer.json()["app"]["labels"] == label
    site.remove("/large")


def test_a_browser_finds_a_page_that_leads_on(site: Site) -> None:
    first = requests.get(f"{site.url}/", allow_redirects=False, timeout=10)
    assert (first.status_code, first.headers["Location"]) == (302, "/ui/")
    page = requests.get(f"{site.url}/", timeout=10)
    assert page.headers["Content-Type"].startswith("text/html")
    assert 'href="/v2/apps"' in page.text
    assert ('href="/scheduler/jobs"' in page.text) == (site.url == site.master)


def test_unknown_fields_are_reported_and_do_no_harm(site: Site) -> None:
    body = {"id": "/odd", "cmd": "sleep 9", "instances": 0, "colour": "red", "container": {"type": "MESOS", "size": 1}}
    answer = requests.post(f"{site.url}/v2/apps", json=body, timeout=10)
    assert answer.status_code == 201
    assert answer.headers["Corral-Ignored-Fields"] == "/container/size, /colour"
    site.remove("/odd")


def test_put_creates_what_is_not_there_and_patch_does_not(site: Site) -> None:
    body = {"cmd": "sleep 99", "instances": 0}
    assert requests.patch(f"{site.url}/v2/apps/put", json=body, timeout=10).status_code == 404
    answer = requests.put(f"{site.url}/v2/apps//put", json=body, timeout=10)
    assert answer.status_code == 201
    assert answer.headers["Location"] == "/put"
    assert requests.put(f"{site.url}/v2/apps/put", json={"cpus": 0.5}, timeout=10).status_code == 200
    shown = requests.get(f"{site.url}/v2/apps/put", timeout=10).json()["app"]
    assert (shown["cmd"], shown["cpus"]) == ("sleep 99", 0.5)
    replaced = {"cmd": "sleep 98", "instances": 0}
    requests.put(f"{site.url}/v2/apps/put?partialUpdate=False", json=replaced, timeout=10)
    assert requests.get(f"{site.url}/v2/apps/put", timeout=10).json()["app"]["cpus"] == 1
    assert requests.put(f"{site.url}/v2/apps/put", json={"version": "soon"}, timeout=10).status_code == 422
    site.remove("/put")


def test_apps_and_tasks_below_a_group_are_listed_with_a_star(site: Site) -> None:
    requests.post(f"{site.url}/v2/apps", json={"id": "/star/a/one", "cmd": "sleep 99", "instances": 0}, timeout=10)
    requests.post(f"{site.url}/v2/apps", json={"id": "/star/two", "cmd": "sleep 99", "instances": 0}, timeout=10)
    below = requests.get(f"{site.url}/v2/apps/star/*", timeout=10).json()
    assert [a["id"] for a in below["*"]] == ["/star/a/one", "/star/two"]
    assert requests.get(f"{site.url}/v2/apps/star/*/tasks", timeout=10).json() == {"tasks": []}
    site.remove("/star/a/one")
    site.remove("/star/two")


def test_nothing_is_below_a_group_that_is_not_there(site: Site) -> None:
    for path in ("/v2/apps/nowhere/*", "/v2/apps/nowhere/*/tasks", "/v2/groups/nowhere", "/v2/groups/nowhere/apps"):
        answer = requests.get(site.url + path, timeout=10)
        assert (answer.status_code, answer.json()["message"]) == (404, "Group '/nowhere' does not exist"), path
    assert requests.get(f"{site.url}/v2/apps/*", timeout=10).status_code == 200


def test_several_embeds_may_stand_in_one_parameter(site: Site) -> None:
    requests.post(f"{site.url}/v2/apps", json={"id": "/embeds", "cmd": "sleep 1000", "instances": 0}, timeout=10)
    for query in ("embed=apps.tasks&embed=apps.taskStats&embed=bogus", "embed=app.tasks,group.apps.taskStats,bogus"):
        (app,) = requests.get(f"{site.url}/v2/apps?id=EMBEDS&{query}", timeout=10).json()["apps"]
        assert {"tasks", "taskStats", "deployments"} <= set(app), query
    requests.delete(f"{site.url}/v2/apps/embeds", timeout=10)


def test_tasks_come_as_lines_for_the_first_haproxy_bridge(site: Site) -> None:
    body = {"id": "/lines", "cmd": "sleep 99", "cpus": 0.1, "mem": 16, "ports": [18080]}
    requests.post(f"{site.url}/v2/apps", json=body, timeout=10)
    app = site.wait_running("/lines", 1)
    answer = requests.get(f"{site.url}/v2/apps/lines/tasks", headers={"Accept": "text/plain"}, timeout=10)
    task = app.tasks[0]
    assert answer.text == f"lines\t18080\t{task.host}:{task.ports[0]}\t\n"
    site.remove("/lines")


def test_a_task_sees_the_environment_that_marathon_gives(site: Site, tmp_path: Path) -> None:
    found = tmp_path / "environment"
    body = {
        "id": "/env/web", "cmd": f"env > {found}.part && mv {found}.part {found} && sleep 99", "cpus": 0.1, "mem": 16,
        "portDefinitions": [{"port": 0, "name": "http"}, {"port": 18081}], "env": {"OWN": "value"},
        "labels": {"tier.one": "front"},
    }  # fmt: skip
    requests.post(f"{site.url}/v2/apps", json=body, timeout=10)
    app = site.wait_running("/env/web", 1)
    site.wait(found.exists, "the task's environment")
    seen = dict(line.split("=", 1) for line in found.read_text().splitlines() if "=" in line)
    task = app.tasks[0]
    assert seen["MARATHON_APP_ID"] == "/env/web"
    assert seen["MARATHON_APP_VERSION"] == app.version
    assert seen["MARATHON_APP_RESOURCE_CPUS"] == "0.1"
    assert seen["MARATHON_APP_LABEL_TIER_ONE"] == "front"
    assert seen["MESOS_TASK_ID"] == task.id
    assert seen["HOST"] == task.host
    assert [seen["PORT0"], seen["PORT1"]] == [str(p) for p in task.ports]
    assert seen["PORT"] == seen["PORT0"] == seen["PORT_HTTP"]
    assert seen["PORT_18081"] == seen["PORT1"]
    assert seen["PORTS"] == f"{seen['PORT0']},{seen['PORT1']}"
    assert seen["OWN"] == "value"
    site.remove("/env/web")


def test_a_killed_framework_goes_on_where_it_was(lonely: "tuple[Daemon, Path, Callable[[], Daemon]]") -> None:
    dev, _, start = lonely
    services = start()
    site = Site(services.url, dev.url)
    body = {"id": "/kept", "cmd": "sleep 999", "cpus": 0.1, "mem": 16, "instances": 3}
    assert requests.post(f"{site.url}/v2/apps", json=body, timeout=10).status_code == 201
    services.kill()
    services = start()
    site = Site(services.url, dev.url)
    before = {t.id for t in site.wait_running("/kept", 3).tasks}
    framework = site.client.get_info().framework_id
    services.kill()
    time.sleep(0.2)
    services = start()
    site = Site(services.url, dev.url)
    assert {t.id for t in site.wait_running("/kept", 3).tasks} == before
    assert site.wait(lambda: site.client.get_info().framework_id, "the subscription") == framework
    tasks = requests.get(f"{dev.url}/corral/v1/tasks", timeout=10).json()["tasks"]
    assert {t["id"] for t in tasks if t["state"] == "TASK_RUNNING"} == before
    site.remove("/kept")
    services.stop()
