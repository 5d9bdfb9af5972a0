"""Health checks through a real cluster: probed by the agent, told by Marathon's API, ending what fails."""

import sys
from typing import Any

import pytest
from marathon import MarathonClient, MarathonHttpError
from marathon.models import MarathonApp
from marathon_site import Site

SERVE = f"exec {sys.executable} -m http.server --bind 0.0.0.0 $PORT0"
SOON = {"grace_period_seconds": 30, "interval_seconds": 1, "timeout_seconds": 5, "max_consecutive_failures": 2}
AT_ONCE = {**SOON, "grace_period_seconds": 0}


def app(cmd: str, *checks: dict[str, Any], **more: Any) -> MarathonApp:
    return MarathonApp(cmd=cmd, cpus=0.1, mem=64, health_checks=list(checks), **more)


def is_healthy(client: MarathonClient, app_id: str, count: int = 1) -> Any:
    found = client.get_app(app_id)
    return found if found.tasks_healthy == count and not found.deployments else None


@pytest.mark.parametrize(
    ("name", "cmd", "check"),
    [
        ("http", SERVE, {"protocol": "HTTP", "path": "/"}),
        ("tcp", SERVE, {"protocol": "TCP"}),
        ("mesos-http", SERVE, {"protocol": "MESOS_HTTP", "path": "/", "delaySeconds": 1}),
        ("command", "sleep 1000", {"protocol": "COMMAND", "command": "test -n $PORT0 -a -e stdout", "delaySeconds": 1}),
    ],
)
def test_a_task_that_passes_its_check_is_healthy_and_its_deployment_ends(
    site: Site, client: MarathonClient, name: str, cmd: str, check: dict[str, Any]
) -> None:
    client.create_app(f"/well/{name}", app(cmd, {**SOON, **check}))
    found = site.wait(lambda: is_healthy(client, f"/well/{name}"), "a healthy task")
    (task,) = found.tasks
    (result,) = task.health_check_results
    assert result.alive is True
    assert result.first_success is not None
    assert (found.tasks_running, found.tasks_unhealthy) == (1, 0)
    assert found.health_checks[0].protocol == check["protocol"]
    site.remove(f"/well/{name}")


def test_a_task_that_fails_is_killed_with_its_reason_and_replaced(site: Site, client: MarathonClient) -> None:
    check = {**AT_ONCE, "protocol": "HTTP", "path": "/none"}
    client.create_app("/ill", app(SERVE, check, backoff_seconds=1))
    found = site.wait(lambda: (a := client.get_app("/ill")).last_task_failure and a, "a failure")
    failure = found.last_task_failure
    assert failure.state == "TASK_KILLED"
    assert "at /none failed 2 times in a row" in failure.message
    assert "answered 404" in failure.message
    assert found.deployments, "what is not healthy is not deployed"

    def find_another() -> Any:
        return [t for t in client.get_app("/ill").tasks if t.id != failure.task_id]

    site.wait(find_another, "another task")
    site.remove("/ill")


def test_a_task_that_nobody_finds_is_shown_unhealthy_and_may_be_spared(site: Site, client: MarathonClient) -> None:
    check = {**AT_ONCE, "protocol": "TCP", "max_consecutive_failures": 0}
    client.create_app("/deaf", app("sleep 1000", check))
    found = site.wait(lambda: (a := client.get_app("/deaf")).tasks_unhealthy and a, "an unhealthy task")
    (result,) = found.tasks[0].health_check_results
    assert result.alive is False
    assert "Connection refused" in result.last_failure_cause
    assert found.last_task_failure is None
    site.remove("/deaf")


def test_a_restart_waits_for_the_health_of_the_new_tasks(site: Site, client: MarathonClient) -> None:
    check = {**AT_ONCE, "protocol": "COMMAND", "command": "test -e well", "delaySeconds": 0}
    client.create_app("/roll", app("touch well; sleep 1000", check))
    first = site.wait(lambda: is_healthy(client, "/roll"), "a healthy task").tasks[0].id
    client.update_app("/roll", app("sleep 1001", {**check, "max_consecutive_failures": 100}))

    def both_run() -> Any:
        found = client.get_app("/roll")
        return found if found.tasks_healthy == 1 and found.tasks_unhealthy == 1 else None

    found = site.wait(both_run, "the old task and an unhealthy new one")
    assert first in {t.id for t in found.tasks}
    assert found.deployments
    client.update_app("/roll", app("touch well; sleep 1002", check), force=True)
    found = site.wait(lambda: is_healthy(client, "/roll"), "the newest task, healthy")
    assert first not in {t.id for t in found.tasks}
    site.remove("/roll")


def test_a_check_that_makes_no_sense_is_refused_with_its_path(client: MarathonClient) -> None:
    with pytest.raises(MarathonHttpError) as caught:
        client.create_app("/odd", app("sleep 9", {"protocol": "TCP", "port_index": 3}))
    assert caught.value.status_code == 422
