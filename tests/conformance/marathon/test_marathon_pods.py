"""Pods, versions and steered deployments over a real cluster, by plain HTTP."""

from typing import Any

import requests
from marathon_site import Site

SERVER = (
    "exec python3 -c 'import http.server, os; "
    'http.server.HTTPServer(("", int(os.environ["{port}"])), http.server.SimpleHTTPRequestHandler).serve_forever()\''
)
POD: dict[str, Any] = {
    "id": "/duo",
    "volumes": [{"name": "scratch"}],
    "containers": [
        {
            "name": "web",
            "exec": {"command": {"shell": "echo shared > common/word; " + SERVER.format(port="EP_HOST_HTTP")}},
            "resources": {"cpus": 0.1, "mem": 32},
            "endpoints": [{"name": "http"}],
            "healthCheck": {"http": {"endpoint": "http"}, "intervalSeconds": 1, "delaySeconds": 0},
            "volumeMounts": [{"name": "scratch", "mountPath": "common"}],
        },
        {
            "name": "side",
            "exec": {"command": {"shell": "until cat files/word; do sleep 0.1; done; exec sleep 1000"}},
            "resources": {"cpus": 0.1, "mem": 32},
            "volumeMounts": [{"name": "scratch", "mountPath": "files"}],
        },
    ],
    "scaling": {"kind": "fixed", "instances": 1},
}


def wait_status(site: Site, status: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        found: dict[str, Any] = requests.get(f"{site.url}/v2/pods/duo::status", timeout=10).json()
        return found if found.get("status") == status and len(found["instances"]) == 1 else None

    found = site.wait(look, f"pod to be {status}")
    assert found is not None
    return found


def test_a_pod_lives_from_create_to_delete(site: Site) -> None:
    assert requests.head(f"{site.url}/v2/pods", timeout=10).status_code == 200
    answer = requests.post(f"{site.url}/v2/pods", json=POD, timeout=10)
    assert (answer.status_code, answer.headers["Location"]) == (201, "/v2/pods/duo")
    assert answer.headers["Marathon-Deployment-Id"]
    assert answer.json()["id"] == "/duo"
    assert requests.post(f"{site.url}/v2/pods", json=POD, timeout=10).status_code == 409
    first = wait_status(site, "STABLE")
    (instance,) = first["instances"]
    (port,) = (e["allocatedHostPort"] for c in instance["containers"] for e in c["endpoints"])
    assert requests.get(f"http://127.0.0.1:{port}/common/word", timeout=10).text == "shared\n"
    assert [c["status"] for c in instance["containers"]] == ["TASK_RUNNING", "TASK_RUNNING"]
    gone = requests.delete(f"{site.url}/v2/pods/duo::instances/{instance['id']}", timeout=10)
    assert gone.json()["id"] == instance["id"]

    def replaced() -> bool:
        found = requests.get(f"{site.url}/v2/pods/duo::status", timeout=10).json()
        return found["status"] == "STABLE" and instance["id"] not in [i["id"] for i in found["instances"]]

    site.wait(replaced, "another instance")
    body = requests.get(f"{site.url}/v2/pods/duo", timeout=10).json()
    body["labels"] = {"tier": "back"}
    changed = requests.put(f"{site.url}/v2/pods/duo", json=body, timeout=10)
    assert (changed.status_code, changed.json()["labels"]) == (200, {"tier": "back"})
    versions = requests.get(f"{site.url}/v2/pods/duo::versions", timeout=10).json()
    assert len(versions) == 2
    old = requests.get(f"{site.url}/v2/pods/duo::versions/{versions[1]}", timeout=10).json()
    assert old["labels"] == {}
    renamed = requests.put(f"{site.url}/v2/pods/duo", json={**body, "id": "/other"}, timeout=10)
    assert renamed.status_code == 400
    ended = requests.delete(f"{site.url}/v2/pods/duo", params={"force": "true"}, timeout=10)
    assert (ended.status_code, ended.content) == (202, b"")
    assert requests.get(f"{site.url}/v2/pods/duo::status", timeout=10).status_code == 404
    site.wait(lambda: not requests.get(f"{site.url}/v2/deployments", timeout=10).json(), "the end")


def test_a_canary_is_promoted_and_a_failing_upgrade_is_undone(site: Site) -> None:
    app = {"id": "/canary", "cmd": "sleep 1000", "cpus": 0.1, "mem": 16, "instances": 3}
    requests.post(f"{site.url}/v2/apps", json=app, timeout=10)
    site.wait_running("/canary", 3)

    def put(fields: dict[str, Any], **query: Any) -> str:
        answer = requests.put(f"{site.url}/v2/apps/canary", json=fields, params=query, timeout=10)
        assert answer.status_code == 200, answer.text
        deployment: str = answer.json()["deploymentId"]
        return deployment

    def state(deployment: str) -> str:
        found: str = requests.get(f"{site.url}/v2/deployments/{deployment}", timeout=10).json()["state"]
        return found

    deployment = put({"cmd": "sleep 2000"}, canary=1)
    site.wait(lambda: state(deployment) == "waits for promotion", "the canary")
    promoted = requests.post(f"{site.url}/v2/deployments/{deployment}/promote", timeout=10)
    assert promoted.json()["promoted"] is True
    site.wait(lambda: state(deployment) == "done", "all of it")
    failing = put({"fetch": [{"uri": "file:///nowhere/at/all"}], "backoffSeconds": 0}, deadline=1.5, revert="true")
    site.wait(lambda: state(failing) == "reverted", "the way back")
    ended = requests.get(f"{site.url}/v2/deployments/{failing}", timeout=10).json()
    assert "/nowhere/at/all" in ended["why"]
    site.wait(lambda: state(ended["successor"]) == "done", "the old definition")
    assert site.client.get_app("/canary").cmd == "sleep 2000"
    version = requests.get(f"{site.url}/v2/apps/canary", timeout=10).headers["ETag"]
    stale = {"If-Match": '"2001-01-01T00:00:00.000Z"'}
    assert requests.delete(f"{site.url}/v2/apps/canary", headers=stale, timeout=10).status_code == 412
    assert requests.delete(f"{site.url}/v2/apps/canary", headers={"If-Match": version}, timeout=10).status_code == 200


def test_an_app_is_measured_and_grows_by_rules_and_by_its_own_wish(site: Site) -> None:
    command = "while :; do :; done"
    app = {"id": "/elastic", "cmd": command, "cpus": 0.1, "mem": 16, "instances": 1}
    requests.post(f"{site.url}/v2/apps", json=app, timeout=10)
    site.wait_running("/elastic", 1)
    usage = f"{site.url}/corral/v1/usage/elastic"

    def busy() -> bool:
        found = requests.get(usage, timeout=10).json()
        return any(sample["cpus"] for i in found["instances"] for sample in i["history"] if sample["memBytes"])

    site.wait(busy, "two samples", timeout_s=40)
    rules = f"{site.url}/corral/v1/scaling/elastic"
    assert requests.get(rules, timeout=10).status_code == 404
    assert requests.put(rules, json={"min": 1, "max": 3, "target": {}}, timeout=10).status_code == 422
    assert requests.put(rules, json={"min": 1, "max": 2, "targets": {"cpu": 20}}, timeout=10).status_code == 200
    site.wait_running("/elastic", 2)
    (moved,) = requests.get(rules, timeout=10).json()["history"]
    assert moved["by"] == "auto"
    assert "cpu is" in moved["why"]
    too_many = requests.post(f"{rules}/expand", json={"by": 5}, timeout=10)
    assert too_many.status_code == 422
    assert "outside of 1 to 2" in too_many.text
    stranger = {"Authorization": "Bearer scaling-of-somebody-else"}
    assert requests.post(f"{rules}/shrink", headers=stranger, timeout=10).status_code == 403
    site.remove("/elastic")
    assert requests.get(rules, timeout=10).status_code == 404
