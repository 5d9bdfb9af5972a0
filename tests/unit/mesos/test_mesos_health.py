"""Health checks on the wire: defaults, types that are not said, fields that nobody carries out, several of one task."""

import json
from typing import Any

import msgspec
import pytest

from corral.mesos import wire
from corral.mesos.tasks import read_task_info, write_task_info
from corral.model.command import CommandInfo
from corral.model.health import CheckKind, HealthCheck
from corral.model.task import TaskInfo


def read(**fields: Any) -> TaskInfo:
    body = {"name": "t", "task_id": {"value": "t"}, "agent_id": {"value": "a"}, **fields}
    return read_task_info(msgspec.json.decode(json.dumps(body).encode(), type=wire.TaskInfo), "task")


def check(**fields: Any) -> HealthCheck:
    (found,) = read(health_check=fields).health_checks
    return found


def test_what_is_not_said_of_a_check_is_as_with_mesos() -> None:
    assert check(type="HTTP", http={"port": 80}) == HealthCheck(
        kind=CheckKind.HTTP, port=80, scheme="http", path="/", delay_s=15, interval_s=10, timeout_s=20,
        consecutive_failures=3, grace_s=10,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"http": {"port": 1}}, CheckKind.HTTP),
        ({"tcp": {"port": 1}}, CheckKind.TCP),
        ({"command": {"value": "true"}}, CheckKind.COMMAND),
        ({"type": "TCP", "http": {"port": 1}, "tcp": {"port": 2}}, CheckKind.TCP),
        ({"type": "PING"}, CheckKind.UNKNOWN),
        ({}, CheckKind.UNKNOWN),
    ],
)
def test_a_check_without_a_type_has_that_of_its_member(fields: dict[str, Any], kind: CheckKind) -> None:
    assert check(**fields).kind is kind


def test_zero_is_a_value_and_not_the_default() -> None:
    found = check(tcp={"port": 1}, delay_seconds=0, interval_seconds=0.5, timeout_seconds=0, consecutive_failures=0)
    assert (found.delay_s, found.interval_s, found.timeout_s, found.consecutive_failures) == (0, 0.5, 0, 0)


def test_a_task_without_checks_has_none_and_writes_none() -> None:
    info = read()
    assert info.health_checks == ()
    assert b"health" not in msgspec.json.encode(write_task_info(info, refinement=True))


def test_mesos_clients_see_the_first_of_several_checks_and_corral_all() -> None:
    tcp = HealthCheck(kind=CheckKind.TCP, port=7)
    shell = HealthCheck(kind=CheckKind.COMMAND, command=CommandInfo(value="true"))
    info = msgspec.structs.replace(read(), health_checks=(tcp, shell))
    body = json.loads(msgspec.json.encode(write_task_info(info, refinement=True)))
    assert body["health_check"]["tcp"] == {"port": 7}
    assert [c["type"] for c in body["corral_health_checks"]] == ["TCP", "COMMAND"]
    assert read(**{k: body[k] for k in ("health_check", "corral_health_checks")}).health_checks == (tcp, shell)


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"http": {"port": 1, "protocol": "IPV6"}}, "health_check.http.protocol"),
        ({"command": {"value": "x", "user": "bob"}}, "health_check.command.user"),
        ({"command": {"value": "x", "uris": [{"value": "http://x"}]}}, "health_check.command.uris"),
        (
            {"command": {"value": "x", "environment": {"variables": [{"name": "A", "type": "SECRET"}]}}},
            "health_check.command.environment.variables.secret",
        ),
    ],
)
def test_what_nobody_carries_out_is_named(fields: dict[str, Any], path: str) -> None:
    assert read(health_check=fields).unsupported == (path,)
