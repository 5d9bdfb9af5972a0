"""The reads that discovery, dashboards and operators' clients use, at all of their addresses."""

import json

import pytest
from mesos_client import MEDIA, request, task, wait_until

BOTH = ["", "/master"]


@pytest.mark.parametrize("prefix", BOTH)
def test_a_version_can_be_compared_by_its_numbers(cluster, prefix):
    version = cluster.get(f"{prefix}/version").json["version"]
    assert tuple(int(piece) for piece in version.split(".")) >= (1, 0, 0)


@pytest.mark.parametrize("prefix", BOTH)
def test_the_leader_redirects_to_itself(cluster, prefix):
    answer = cluster.get(f"{prefix}/redirect")
    assert answer.status == 307
    assert answer.headers["Location"].startswith("//")
    assert answer.headers["Location"].endswith(cluster.url.rpartition(":")[2])
    assert cluster.get(f"{prefix}/redirect/extra").status == 404


@pytest.mark.parametrize("path", ["/health", "/master/health"])
def test_health_is_an_empty_200(cluster, path):
    answer = cluster.get(path)
    assert (answer.status, answer.body) == (200, b"")


@pytest.mark.parametrize("path", ["/state", "/state.json", "/master/state", "/master/state.json"])
def test_the_state_has_what_dns_servers_read(cluster, path):
    state = cluster.get(path).json
    assert state["leader"] == state["pid"]
    assert state["leader_info"]["port"] == int(cluster.url.rpartition(":")[2])
    assert state["start_time"] > 1e9
    assert {"frameworks", "completed_frameworks", "slaves", "recovered_slaves", "orphan_tasks", "flags"} <= state.keys()
    (slave,) = state["slaves"]
    assert slave["resources"]["cpus"] == 4.0
    assert slave["resources"]["ports"] == "[31000-31099]"
    assert slave["attributes"] == {"rack": "r1", "level": 2.5}
    assert slave["pid"].startswith("slave(1)@")
    assert slave["active"] is True


@pytest.mark.parametrize("path", ["/slaves", "/frameworks", "/tasks", "/roles", "/flags", "/state-summary"])
@pytest.mark.parametrize("prefix", BOTH)
def test_the_other_reads_are_objects(cluster, prefix, path):
    answer = cluster.get(prefix + path)
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("application/json")
    assert isinstance(answer.json, dict)


@pytest.mark.parametrize("path", ["/metrics/snapshot", "/metrics/snapshot?timeout=5secs"])
def test_metrics_are_flat_numbers(cluster, path):
    metrics = cluster.get(path).json
    assert metrics["master/elected"] == 1
    assert metrics["master/slaves_active"] == 1
    assert metrics["master/cpus_total"] == 4
    assert {"master/uptime_secs", "master/tasks_running", "master/frameworks_active"} <= metrics.keys()
    assert all(isinstance(value, int | float) for value in metrics.values())


def test_a_task_is_shown_where_tools_look_for_it(cluster, scheduler):
    offer = scheduler.offer()
    labels = {"labels": {"labels": [{"key": "k", "value": "v"}]}}
    discovery = {"discovery": {"visibility": "CLUSTER", "name": "web"}}
    scheduler.launch(offer, task(offer, "shown", "sleep 30", cpus=0.5, **labels, **discovery))
    scheduler.update("TASK_RUNNING")
    framework = next(f for f in cluster.get("/state").json["frameworks"] if f["id"] == scheduler.framework_id)
    (found,) = framework["tasks"]
    assert (found["id"], found["state"], found["slave_id"]) == ("shown", "TASK_RUNNING", offer["agent_id"]["value"])
    assert found["resources"]["cpus"] == 0.5
    assert found["labels"] == [{"key": "k", "value": "v"}]
    assert found["discovery"]["name"] == "web"
    assert [s["state"] for s in found["statuses"]][-1] == "TASK_RUNNING"
    assert framework["used_resources"]["cpus"] == 0.5
    assert cluster.agent["used_resources"]["cpus"] >= 0.5
    (listed,) = cluster.get(f"/tasks?framework_id={scheduler.framework_id}").json["tasks"]
    assert listed["id"] == "shown"
    summary = next(f for f in cluster.get("/state-summary").json["frameworks"] if f["id"] == scheduler.framework_id)
    assert summary["TASK_RUNNING"] == 1
    scheduler.tell("KILL", {"task_id": {"value": "shown"}})
    scheduler.update("TASK_KILLED")

    def completed():
        rows = cluster.get(f"/frameworks?framework_id={scheduler.framework_id}").json["frameworks"]
        return [t["state"] for t in rows[0]["completed_tasks"]] == ["TASK_KILLED"] and not rows[0]["tasks"]

    wait_until(completed, "the task's move to the completed ones")


@pytest.mark.parametrize("path", ["/api/v1", "/api/v1/operator", "/master/api/v1"])
@pytest.mark.parametrize(
    "kind", ["GET_HEALTH", "GET_VERSION", "GET_STATE", "GET_AGENTS", "GET_FRAMEWORKS", "GET_TASKS", "GET_METRICS"]
)
def test_operators_read_at_every_address_clients_use(cluster, path, kind):
    answer = request(cluster.url, "POST", path, {"type": kind})
    assert answer.status == 200
    assert answer.json["type"] == kind
    assert kind.lower() in answer.json


def test_operators_see_agents_with_their_totals(cluster):
    (agent,) = request(cluster.url, "POST", "/api/v1", {"type": "GET_AGENTS"}).json["get_agents"]["agents"]
    assert agent["agent_info"]["id"]["value"] == cluster.agent["id"]
    assert agent["active"] is True
    totals = {r["name"]: r for r in agent["total_resources"]}
    assert totals["cpus"]["scalar"]["value"] == 4.0


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{}", {}, 400),
        (b"{}", {"Content-Type": "application/x-protobuf"}, 415),
        (b"{", MEDIA, 400),
        (b"{}", MEDIA, 400),
        (b'{"type":"GET_RICH"}', MEDIA, 400),
        (b'{"type":"UNKNOWN"}', MEDIA, 501),
        (b'{"type":"GET_HEALTH"}', {**MEDIA, "Accept": "text/html"}, 406),
        (b'{"type":"GET_HEALTH"}', {"Content-Type": "application/json"}, 200),
    ],
)
def test_operator_calls_are_checked_in_order(cluster, body, headers, status):
    assert request(cluster.url, "POST", "/api/v1", body, headers).status == status


@pytest.mark.parametrize(
    "path", ["/health", "/slave(1)/health", "/version", "/state", "/slave(1)/state", "/metrics/snapshot"]
)
def test_the_agent_answers_for_itself(cluster, path):
    answer = request(cluster.agent_url, "GET", path)
    assert answer.status == 200
    if "state" in path:
        assert answer.json["id"] == cluster.agent["id"]
    if "version" in path or "state" in path:
        assert json.loads(answer.body)["version"].startswith("1."), "clients expect a Mesos of today"


def test_what_does_not_exist_is_not_found(cluster):
    assert cluster.get("/no/such/place").status == 404
    assert request(cluster.url, "POST", "/version", {}).status == 405
