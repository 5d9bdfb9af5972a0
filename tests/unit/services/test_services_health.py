"""Health checks of apps: what agents are asked to probe, and what their answers do to instances and deployments."""

from typing import Any

import msgspec
import pytest

from corral.frameworks.services.command_spec import DeleteApp, GetDeployments, GetTasks
from corral.model.health import CheckKind, CheckResult, HealthCheck
from corral.model.task import Reason, TaskState

UPDATED = Reason.TASK_HEALTH_CHECK_STATUS_UPDATED
DOCKER = {"type": "DOCKER", "docker": {"image": "nginx"}}
WEB = {"protocol": "HTTP", "path": "/up"}


def result(alive: bool, failures: int = 0, index: int = 0, cause: str = "") -> CheckResult:
    return CheckResult(
        index=index, alive=alive, consecutive_failures=failures, cause=cause,
        first_success_at=1_700_000_001.0 if alive else None, last_success_at=1_700_000_001.0 if alive else None,
        last_failure_at=1_700_000_002.0 if failures else None,
    )  # fmt: skip


def tell_health(cluster: Any, task_id: Any, healthy: bool | None, *health: CheckResult) -> None:
    cluster.update(
        task_id, TaskState.RUNNING, reason=UPDATED, healthy=healthy, health=health or (result(bool(healthy)),)
    )


def checks(cluster: Any, *given: dict[str, Any], **fields: Any) -> tuple[HealthCheck, ...]:
    """What the task's agent is asked to probe; its host ports are 31000 and so on."""
    cluster.create(healthChecks=list(given), **fields)
    cluster.offer()
    found: tuple[HealthCheck, ...] = cluster.launched[-1].health_checks
    return found


def test_an_app_without_checks_asks_for_none_and_is_healthy_by_running(cluster: Any) -> None:
    assert checks(cluster) == ()
    cluster.work()
    shown = cluster.show()
    assert (shown["tasksRunning"], shown["tasksHealthy"], shown["tasksUnhealthy"]) == (1, 0, 0)
    assert cluster.ask(GetDeployments()) == []


def test_a_check_of_marathons_own_is_probed_from_the_node_without_following_redirects(cluster: Any) -> None:
    (check,) = checks(
        cluster, {**WEB, "intervalSeconds": 30, "timeoutSeconds": 7, "gracePeriodSeconds": 100, "ignoreHttp1xx": True}
    )
    assert check == HealthCheck(
        kind=CheckKind.HTTP, port=31000, path="/up", delay_s=5, interval_s=30, timeout_s=7, grace_s=100,
        consecutive_failures=3, on_node=True, keeps_redirects=True, ignore_1xx=True,
    )  # fmt: skip


def test_the_first_probe_of_a_short_interval_comes_after_that(cluster: Any) -> None:
    assert checks(cluster, {"intervalSeconds": 2})[0].delay_s == 2


def test_a_check_of_mesos_is_probed_in_the_tasks_network_after_its_own_delay(cluster: Any) -> None:
    (check,) = checks(cluster, {"protocol": "MESOS_HTTPS", "delaySeconds": 9, "path": "relative"})
    assert (check.delay_s, check.on_node, check.keeps_redirects) == (9, False, False)
    assert (check.kind, check.scheme, check.path, check.port) == (CheckKind.HTTP, "https", "/relative", 31000)


@pytest.mark.parametrize(
    ("protocol", "kind", "spares"),
    [
        ("HTTP", CheckKind.HTTP, True),
        ("HTTPS", CheckKind.HTTP, True),
        ("TCP", CheckKind.TCP, True),
        ("MESOS_HTTP", CheckKind.HTTP, False),
        ("MESOS_TCP", CheckKind.TCP, False),
        ("COMMAND", CheckKind.COMMAND, False),
    ],
)
def test_no_failure_allowed_spares_the_task_or_kills_it_at_the_first_by_protocol(
    cluster: Any, protocol: str, kind: CheckKind, spares: bool
) -> None:
    command = {"command": {"value": "true"}} if protocol == "COMMAND" else {}
    (check,) = checks(cluster, {"protocol": protocol, "maxConsecutiveFailures": 0, **command})
    assert (check.kind, check.consecutive_failures, check.spares) == (kind, 0, spares)


def test_a_command_is_run_by_a_shell(cluster: Any) -> None:
    (check,) = checks(cluster, {"protocol": "COMMAND", "command": {"value": "test -e $MESOS_SANDBOX/ok"}})
    assert check.command is not None
    assert (check.command.value, check.command.shell) == ("test -e $MESOS_SANDBOX/ok", True)


BRIDGE: dict[str, Any] = {
    "networks": [{"mode": "container/bridge"}],
    "container": {**DOCKER, "portMappings": [{"containerPort": 80}, {"containerPort": 0}]},
}
OVERLAY: dict[str, Any] = {
    "networks": [{"mode": "container", "name": "blue"}],
    "container": {**DOCKER, "portMappings": [{"containerPort": 80}, {"containerPort": 81, "hostPort": 0}]},
}
HOST: dict[str, Any] = {"portDefinitions": [{"port": 0}, {"port": 0}]}


@pytest.mark.parametrize(
    ("fields", "check", "port", "on_node"),
    [
        (HOST, {"protocol": "TCP", "portIndex": 1}, 31001, True),
        (HOST, {"protocol": "TCP", "port": 9000, "portIndex": 1}, 9000, True),
        (HOST, {"protocol": "MESOS_TCP", "portIndex": 1}, 31001, False),
        (BRIDGE, {"protocol": "TCP"}, 31000, True),
        (BRIDGE, {"protocol": "TCP", "port": 31007}, 31007, True),
        (BRIDGE, {"protocol": "MESOS_TCP"}, 80, False),
        (BRIDGE, {"protocol": "MESOS_TCP", "portIndex": 1}, 31001, False),
        (BRIDGE, {"protocol": "MESOS_TCP", "port": 8080}, 8080, False),
        (OVERLAY, {"protocol": "TCP"}, 80, False),
        (OVERLAY, {"protocol": "TCP", "portIndex": 1}, 31000, True),
        (OVERLAY, {"protocol": "TCP", "port": 8080}, 8080, False),
        (OVERLAY, {"protocol": "MESOS_TCP", "portIndex": 1}, 81, False),
    ],
)
def test_a_check_looks_at_the_port_it_names_in_whichever_network(
    cluster: Any, fields: dict[str, Any], check: dict[str, Any], port: int, on_node: bool
) -> None:
    (found,) = checks(cluster, check, **fields)
    assert (found.port, found.on_node) == (port, on_node)


def test_a_new_app_is_deployed_once_its_instances_are_healthy(cluster: Any) -> None:
    cluster.create(healthChecks=[WEB], instances=2)
    first, second = cluster.run()
    cluster.advance(60)
    assert len(cluster.ask(GetDeployments())) == 1
    tell_health(cluster, first, True)
    assert len(cluster.ask(GetDeployments())) == 1
    assert cluster.show()["tasksHealthy"] == 1
    tell_health(cluster, second, False, result(False, 1))
    shown = cluster.show()
    assert (shown["tasksRunning"], shown["tasksHealthy"], shown["tasksUnhealthy"]) == (2, 1, 1)
    tell_health(cluster, second, True)
    assert cluster.ask(GetDeployments()) == []
    assert cluster.show()["tasksHealthy"] == 2


def test_what_depends_on_an_app_waits_for_its_health(cluster: Any) -> None:
    cluster.create(id="/db", healthChecks=[WEB])
    cluster.create(id="/web", dependencies=["/db"])
    (db,) = [t for t in cluster.run() if t.startswith("db")]
    tell_health(cluster, db, True)
    assert cluster.ask(GetDeployments()) == []


def test_a_rolling_restart_keeps_the_old_ones_until_the_new_ones_are_healthy(cluster: Any) -> None:
    cluster.create(healthChecks=[WEB], instances=2, upgradeStrategy={"minimumHealthCapacity": 1.0})
    old = cluster.run()
    for task_id in old:
        tell_health(cluster, task_id, True)
    cluster.update_app(cmd="sleep 2000")
    new = cluster.run()
    assert len(new) == 2
    assert cluster.killed == []
    tell_health(cluster, new[0], True)
    assert len(cluster.killed) == 1
    tell_health(cluster, new[1], False, result(False, 1))
    assert len(cluster.killed) == 1
    tell_health(cluster, new[1], True)
    cluster.bury()
    assert sorted(set(cluster.killed)) == sorted(old)
    assert cluster.ask(GetDeployments()) == []


def test_the_results_of_each_check_are_shown_as_clients_know_them(cluster: Any) -> None:
    cluster.create(healthChecks=[WEB, {"protocol": "TCP"}])
    (task_id,) = cluster.run()
    assert cluster.show()["tasks"][0]["healthCheckResults"] == []
    tell_health(cluster, task_id, False, result(True), result(False, 2, 1, "refused"))
    (task,) = cluster.ask(GetTasks())
    alive, dead = task["healthCheckResults"]
    assert alive == {
        "alive": True, "consecutiveFailures": 0, "firstSuccess": "2023-11-14T22:13:21.000Z",
        "lastSuccess": "2023-11-14T22:13:21.000Z", "lastFailure": None, "lastFailureCause": None,
        "instanceId": task_id.removesuffix("._app.1"),
    }  # fmt: skip
    assert (dead["alive"], dead["consecutiveFailures"], dead["lastFailureCause"]) == (False, 2, "refused")
    assert dead["firstSuccess"] is None
    assert cluster.show()["healthChecks"][1]["protocol"] == "TCP"


def test_a_task_with_one_check_that_is_not_known_yet_counts_in_neither_number(cluster: Any) -> None:
    cluster.create(healthChecks=[WEB, {"protocol": "TCP"}])
    (task_id,) = cluster.run()
    tell_health(cluster, task_id, None, result(True))
    shown = cluster.show()
    assert (shown["tasksHealthy"], shown["tasksUnhealthy"]) == (0, 0)
    assert len(shown["tasks"][0]["healthCheckResults"]) == 1
    assert len(cluster.ask(GetDeployments())) == 1


def test_a_task_that_was_killed_for_its_health_is_replaced_remembered_and_charged(cluster: Any) -> None:
    cluster.create(healthChecks=[WEB], backoffSeconds=10)
    (task_id,) = cluster.run()
    tell_health(cluster, task_id, False, result(False, 2))
    cluster.update(task_id, TaskState.KILLED, message="HTTP check of port 31000 at /up failed", healthy=False)
    failure = cluster.show()["lastTaskFailure"]
    assert (failure["state"], failure["taskId"]) == ("TASK_KILLED", task_id)
    assert failure["message"] == "HTTP check of port 31000 at /up failed"
    assert cluster.run() == [], "it is held back for a while"
    cluster.advance(10.1)
    (again,) = cluster.run()
    assert again != task_id
    (task,) = cluster.show()["tasks"]
    assert task["healthCheckResults"] == [], "the new task has to show its health anew"


def test_a_task_that_somebody_kills_is_no_failure_however_ill_it_was(cluster: Any) -> None:
    cluster.create(healthChecks=[WEB], backoffSeconds=10)
    (task_id,) = cluster.run()
    tell_health(cluster, task_id, False, result(False, 1))
    cluster.update(task_id, TaskState.KILLED)
    assert "lastTaskFailure" not in cluster.show()
    assert len(cluster.run()) == 1


def test_health_is_known_after_a_crash_until_something_new_is_told(cluster: Any) -> None:
    cluster.create(healthChecks=[WEB])
    (task_id,) = cluster.run()
    tell_health(cluster, task_id, True)
    cluster.crash()
    cluster.subscribe()
    cluster.reconcile()
    assert cluster.show()["tasksHealthy"] == 1
    assert cluster.ask(GetDeployments()) == []
    tell_health(cluster, task_id, False, result(False, 1))
    assert cluster.show()["tasksUnhealthy"] == 1


def test_a_deployment_that_waits_for_health_goes_on_after_a_crash(cluster: Any) -> None:
    cluster.create(healthChecks=[WEB])
    (task_id,) = cluster.run()
    cluster.crash()
    cluster.subscribe()
    cluster.reconcile()
    assert len(cluster.ask(GetDeployments())) == 1
    tell_health(cluster, task_id, True)
    assert cluster.ask(GetDeployments()) == []


def test_a_task_that_comes_back_is_as_healthy_as_it_was(cluster: Any) -> None:
    cluster.create(healthChecks=[WEB], unreachableStrategy={"inactiveAfterSeconds": 60, "expungeAfterSeconds": 120})
    (task_id,) = cluster.run()
    tell_health(cluster, task_id, True)
    cluster.update(task_id, TaskState.UNREACHABLE)
    assert cluster.show()["tasksHealthy"] == 0
    cluster.update(task_id, TaskState.RUNNING)
    assert cluster.show()["tasksHealthy"] == 1


def test_an_update_of_health_that_says_nothing_new_writes_nothing(cluster: Any) -> None:
    cluster.create(healthChecks=[WEB])
    (task_id,) = cluster.run()
    tell_health(cluster, task_id, True)
    before = dict(cluster.records)
    notes = len(cluster.notes)
    tell_health(cluster, task_id, True)
    assert cluster.records == before
    assert len(cluster.notes) == notes


def test_a_change_of_checks_replaces_the_instances(cluster: Any) -> None:
    cluster.create(healthChecks=[WEB])
    (old,) = cluster.run()
    tell_health(cluster, old, True)
    cluster.update_app(healthChecks=[])
    (new,) = cluster.run()
    assert cluster.launched[-1].health_checks == ()
    cluster.bury()
    assert old in cluster.killed
    assert new not in cluster.killed
    assert cluster.ask(GetDeployments()) == []


def test_an_app_record_of_before_there_were_checks_still_loads(cluster: Any) -> None:
    cluster.create()
    cluster.run()
    for key, record in cluster.records.items():
        tree = msgspec.msgpack.decode(record)
        body = tree.get("spec", tree) if isinstance(tree, dict) else {}
        for field in ("health_checks", "checks", "healthy", "health"):
            body.pop(field, None)
        cluster.records[key] = msgspec.msgpack.encode(tree)
    cluster.crash()
    cluster.subscribe()
    cluster.reconcile()
    assert cluster.show()["tasksRunning"] == 1


# Events.


def test_what_changes_of_health_is_told_to_those_who_listen(cluster: Any) -> None:
    cluster.listen()
    cluster.create(healthChecks=[WEB])
    (added,) = cluster.heard("add_health_check_event")
    assert added["appId"] == "/web"
    assert added["healthCheck"]["path"] == "/up"
    (task_id,) = cluster.run()
    cluster.heard()
    tell_health(cluster, task_id, True)
    found = {e["eventType"]: e for e in cluster.heard()}
    assert found["instance_health_changed_event"]["healthy"] is True
    changed = found["health_status_changed_event"]
    assert (changed["appId"], changed["alive"]) == ("/web", True)
    assert "instance_changed_event" not in found
    tell_health(cluster, task_id, False, result(False, 1))
    found = {e["eventType"]: e for e in cluster.heard()}
    assert found["failed_health_check_event"]["healthCheck"]["path"] == "/up"
    assert found["health_status_changed_event"]["alive"] is False
    tell_health(cluster, task_id, False, result(False, 2))
    assert {e["eventType"] for e in cluster.heard()} == {"failed_health_check_event", "status_update_event"}
    cluster.update(task_id, TaskState.KILLED, message="too ill", healthy=False)
    (killed,) = cluster.heard("unhealthy_instance_kill_event")
    assert (killed["taskId"], killed["reason"], killed["host"]) == (task_id, "too ill", "host1")
    cluster.update_app(healthChecks=[])
    (removed,) = cluster.heard("remove_health_check_event")
    assert removed["appId"] == "/web"


def test_the_checks_of_an_app_that_is_deleted_are_removed_with_it(cluster: Any) -> None:
    cluster.create(healthChecks=[WEB])
    cluster.run()
    cluster.listen()
    cluster.ask(DeleteApp(id="/web", force=True))
    assert [event["appId"] for event in cluster.heard("remove_health_check_event")] == ["/web"]
    cluster.create(force=True, healthChecks=[WEB])
    assert len(cluster.heard("add_health_check_event")) == 1
