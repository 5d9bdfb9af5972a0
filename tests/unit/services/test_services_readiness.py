"""Readiness checks hold a deployment open and nothing else; plain checks are shown; limits go to the kernel."""

from typing import Any

from corral.frameworks.services.command_spec import GetDeployments
from corral.frameworks.services.marathon import read_app
from corral.frameworks.services.shown import write_app
from corral.model.health import CheckKind, CheckResult, CheckStatus
from corral.model.task import Reason, TaskState

PORTS: dict[str, Any] = {"portDefinitions": [{"port": 0, "name": "http-api"}]}
READY: dict[str, Any] = {"readinessChecks": [{"path": "/ready", "intervalSeconds": 5, "timeoutSeconds": 2}], **PORTS}
UPDATED = Reason.TASK_HEALTH_CHECK_STATUS_UPDATED


def tell(cluster: Any, task_id: Any, passed: bool, index: int = 0, cause: str = "", healthy: Any = None) -> None:
    found = CheckResult(index=index, alive=passed, first_success_at=1.0 if passed else None, cause=cause)
    cluster.update(
        task_id, TaskState.RUNNING, reason=UPDATED, healthy=passed if healthy is None else healthy, health=(found,)
    )


def test_the_check_is_probed_at_its_port_and_spares_the_task(cluster: Any) -> None:
    cluster.create(**READY, healthChecks=[{"protocol": "TCP"}])
    cluster.offer()
    ready = cluster.launched[-1].health_checks[-1]
    assert (ready.kind, ready.port, ready.path, ready.on_node) == (CheckKind.HTTP, 31000, "/ready", True)
    assert (ready.statuses, ready.spares, ready.grace_s) == ((200,), True, 0)
    assert len(cluster.launched[-1].health_checks) == 2


def test_a_deployment_waits_until_its_instances_are_ready(cluster: Any) -> None:
    cluster.create(**READY)
    (task_id,) = cluster.run()
    tell(cluster, task_id, False, cause="it answered 503, wanted is 200")
    (deployment,) = cluster.ask(GetDeployments())
    (result,) = deployment["currentActions"][0]["readinessCheckResults"]
    assert result == {"name": "readinessCheck", "taskId": task_id, "ready": False}
    tell(cluster, task_id, True)
    assert cluster.ask(GetDeployments()) == []
    assert cluster.show()["tasksRunning"] == 1
    assert cluster.show()["tasks"][0]["healthCheckResults"] == []


def test_a_rolling_restart_keeps_old_instances_until_new_ones_are_ready(cluster: Any) -> None:
    cluster.create(**READY, instances=2)
    for task_id in cluster.run():
        tell(cluster, task_id, True)
    cluster.update_app(cmd="sleep 9999")
    new = cluster.run()
    assert cluster.killed == []
    assert len(new) == 2
    tell(cluster, new[0], True)
    assert len(cluster.killed) == 1
    tell(cluster, new[1], True)
    assert len(cluster.killed) == 2


def test_the_last_response_is_shown_when_it_is_asked_for(cluster: Any) -> None:
    check = {**READY["readinessChecks"][0], "preserveLastResponse": True}
    cluster.create(readinessChecks=[check], **PORTS)
    (task_id,) = cluster.run()
    tell(cluster, task_id, False, cause="it answered 503, wanted is 200")
    (deployment,) = cluster.ask(GetDeployments())
    assert deployment["currentActions"][0]["readinessCheckResults"][0]["lastResponse"]["status"] == 503


def test_readiness_says_nothing_of_health(cluster: Any) -> None:
    cluster.create(**READY, healthChecks=[{"protocol": "TCP"}])
    (task_id,) = cluster.run()
    both = (
        CheckResult(index=0, alive=True, first_success_at=1.0),
        CheckResult(index=1, alive=False, cause="it answered 503, wanted is 200"),
    )
    cluster.update(task_id, TaskState.RUNNING, reason=UPDATED, healthy=False, health=both)
    shown = cluster.show()
    assert (shown["tasksHealthy"], shown["tasksUnhealthy"]) == (1, 0)
    assert [r["alive"] for r in shown["tasks"][0]["healthCheckResults"]] == [True]
    assert cluster.ask(GetDeployments()) != []


def test_an_instance_that_is_no_longer_ready_stays(cluster: Any) -> None:
    cluster.create(**READY)
    (task_id,) = cluster.run()
    tell(cluster, task_id, True)
    gone = CheckResult(index=0, alive=False, first_success_at=1.0, cause="it answered 500")
    cluster.update(task_id, TaskState.RUNNING, reason=UPDATED, healthy=False, health=(gone,))
    assert cluster.killed == []
    assert cluster.running()[0].ready


def test_an_update_without_readiness_checks_drops_them(cluster: Any) -> None:
    cluster.create(**READY)
    (task_id,) = cluster.run()
    tell(cluster, task_id, True)
    cluster.update_app(readinessChecks=[])
    cluster.work()
    assert cluster.show()["readinessChecks"] == []


def test_a_plain_check_is_probed_and_its_result_shown(cluster: Any) -> None:
    cluster.create(check={"exec": {"command": {"argv": ["test", "-e", "a b"]}}, "intervalSeconds": 7})
    (task_id,) = cluster.run()
    check = cluster.launched[-1].check
    assert (check.kind, check.command.value, check.interval_s) == (CheckKind.COMMAND, "exec test -e 'a b'", 7)
    assert "checkResult" not in cluster.show()["tasks"][0]
    instance = cluster.running()[0]
    assert instance.checked is None
    from corral.frameworks.services.health import take_health
    from corral.model.task import Source, TaskStatus

    status = TaskStatus(
        task_id=task_id, state=TaskState.RUNNING, at=0.0, source=Source.AGENT,
        check=CheckStatus(kind=CheckKind.COMMAND, code=1),
    )  # fmt: skip
    cluster.app().place(take_health(instance, status))
    assert cluster.show()["tasks"][0]["checkResult"] == {"command": {"exitCode": 1}}


def test_limits_are_told_the_kernel_in_thousandths(cluster: Any) -> None:
    cluster.create(resourceLimits={"cpus": 2.5, "mem": "unlimited"})
    cluster.offer()
    assert cluster.launched[-1].limits == (("cpus", 2500), ("mem", None))
    assert cluster.show()["resourceLimits"] == {"cpus": 2.5, "mem": "unlimited"}


def test_what_is_shown_reads_the_same_again() -> None:
    body = {
        "id": "/a", "cmd": "sleep 9", **READY, "check": {"http": {"path": "/x", "portIndex": 0}},
        "resourceLimits": {"cpus": "unlimited"}, "residency": {"taskLostBehavior": "WAIT_FOREVER"},
    }  # fmt: skip
    spec = read_app(body).spec
    assert read_app(write_app(spec)).spec == spec
