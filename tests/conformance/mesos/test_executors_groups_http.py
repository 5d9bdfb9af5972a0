"""Groups of tasks, checks and the executor endpoint over the real HTTP server, by a client that shares no code."""

import mesos_client
import pytest
from mesos_client import MEDIA, task, wait_until

EXECUTOR_API = "/api/v1/executor"


def scalars(**amounts):
    return [{"name": name, "type": "SCALAR", "scalar": {"value": value}} for name, value in amounts.items()]


def pod(**fields):
    return {
        "type": "DEFAULT",
        "executor_id": {"value": "pod"},
        "resources": scalars(cpus=0.1, mem=32, disk=32),
        **fields,
    }


def launch_group(scheduler, offer, executor, *tasks):
    group = {"executor": executor, "task_group": {"tasks": tasks}}
    operation = {"type": "LAUNCH_GROUP", "launch_group": group}
    body = {"offer_ids": [offer["id"]], "operations": [operation], "filters": {"refuse_seconds": 0}}
    scheduler.tell("ACCEPT", body)


def test_a_group_runs_shares_a_directory_and_ends_together(cluster, scheduler):
    offer = scheduler.offer()
    source = {"type": "SANDBOX_PATH", "sandbox_path": {"type": "PARENT", "path": "exchange"}}
    shared = {"type": "MESOS", "volumes": [{"container_path": "mail", "mode": "RW", "source": source}]}
    check = {"type": "COMMAND", "command": {"command": {"value": "test -e mail/letter"}}, "delay_seconds": 0,
             "interval_seconds": 0.2}  # fmt: skip
    launch_group(
        scheduler, offer, pod(),
        task(offer, "writer", "sleep 0.5; echo word > mail/letter; exec sleep 60", container=shared, check=check),
        task(offer, "waiter", "exec sleep 60", container=shared),
    )  # fmt: skip
    first = scheduler.update("TASK_STARTING", task_id="writer")
    assert first["executor_id"] == {"value": "pod"}
    assert first["container_status"]["container_id"]["parent"]["value"]
    assert first["check_status"] == {"type": "COMMAND", "command": {}}
    while (status := scheduler.update("TASK_RUNNING", task_id="writer")).get("check_status", {}).get("command") != {
        "exit_code": 0
    }:
        assert status["check_status"]["command"] in ({}, {"exit_code": 1})
    assert status["reason"] == "REASON_TASK_CHECK_STATUS_UPDATED"
    assert cluster.agent["used_resources"]["cpus"] == pytest.approx(0.3)
    (executor,) = cluster.operator("GET_EXECUTORS")["executors"]
    assert (executor["executor_info"]["type"], executor["agent_id"]) == ("DEFAULT", offer["agent_id"])
    state = mesos_client.request(cluster.agent_url, "GET", "/state").json
    ours = next(f for f in state["frameworks"] if f["id"] == scheduler.framework_id)
    (shown,) = ours["executors"]
    assert (shown["id"], sorted(t["id"] for t in shown["tasks"])) == ("pod", ["waiter", "writer"])

    scheduler.tell("KILL", {"task_id": {"value": "waiter"}})
    for _ in range(2):
        assert scheduler.update("TASK_KILLED")["task_id"]["value"] in ("waiter", "writer")
    failure = scheduler.next("FAILURE")["failure"]
    assert (failure["executor_id"], failure["status"]) == ({"value": "pod"}, 0)
    wait_until(lambda: cluster.agent["used_resources"]["cpus"] == 0, "the return of the group's resources")


def test_a_group_with_one_bad_task_is_an_error_as_a_whole(cluster, scheduler):
    offer = scheduler.offer()
    before = cluster.agent["used_resources"]
    docker = {"type": "DOCKER", "docker": {"image": "busybox"}}
    launch_group(scheduler, offer, pod(), task(offer, "good", "true"), task(offer, "bad", "true", container=docker))
    for _ in range(2):
        status = scheduler.update("TASK_ERROR")
        assert status["reason"] == "REASON_TASK_GROUP_INVALID"
        assert "task bad has a container of type DOCKER" in status["message"]
    assert cluster.agent["used_resources"] == before


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{}", {"Accept": "*/*"}, 400),
        (b"{}", {**MEDIA, "Content-Type": "application/x-protobuf"}, 415),
        (b"nonsense", MEDIA, 400),
        ({"type": "SUBSCRIBE"}, MEDIA, 400),
        ({"type": "NONSENSE"}, MEDIA, 400),
        ({"type": "UNKNOWN"}, MEDIA, 501),
        ({"type": "SUBSCRIBE", "subscribe": {}}, {**MEDIA, "Accept": "application/x-protobuf"}, 406),
        ({"type": "SUBSCRIBE", "subscribe": {}}, MEDIA, 400),
        ({"type": "MESSAGE", "message": {"data": "aGk="}}, MEDIA, 400),
        ({"type": "UPDATE", "update": {"status": {"task_id": {"value": "t"}, "state": "TASK_RUNNING"}}}, MEDIA, 400),
    ],
)
def test_calls_of_nobody_and_calls_that_are_none_are_refused(cluster, body, headers, status):
    ids = {"framework_id": {"value": "nobody"}, "executor_id": {"value": "e"}}
    given = {**ids, **body} if isinstance(body, dict) else body
    answer = mesos_client.request(cluster.agent_url, "POST", EXECUTOR_API, given, headers)
    assert answer.status == status, answer.text
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert mesos_client.request(cluster.agent_url, "GET", EXECUTOR_API).status == 405
