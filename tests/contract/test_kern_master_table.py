"""The statuses of a master's Mesos API, row by row: what is asked wrongly is refused, says why, and changes nothing."""

import gzip
import json
from typing import Any

import aiohttp
import pytest
from test_kern_master_doors import client

__all__ = ["client"]

JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
A = {"value": "nobody"}
OPS = {"name": "cpus", "type": "SCALAR", "scalar": {"value": 1}, "reservations": [{"type": "DYNAMIC", "role": "ops"}]}
CPUS = {"name": "cpus", "type": "SCALAR", "scalar": {"value": 1}}
WINDOW: dict[str, Any] = {"machine_ids": [{"hostname": "h"}], "unavailability": {"start": {"nanoseconds": 1}}}

MEMBERS = [
    "UPDATE_WEIGHTS", "UPDATE_QUOTA", "SET_QUOTA", "REMOVE_QUOTA", "RESERVE_RESOURCES", "UNRESERVE_RESOURCES",
    "CREATE_VOLUMES", "DESTROY_VOLUMES", "GROW_VOLUME", "SHRINK_VOLUME", "UPDATE_MAINTENANCE_SCHEDULE",
    "START_MAINTENANCE", "STOP_MAINTENANCE", "DRAIN_AGENT", "DEACTIVATE_AGENT", "REACTIVATE_AGENT", "MARK_AGENT_GONE",
    "TEARDOWN", "LIST_FILES", "READ_FILE", "SET_LOGGING_LEVEL",
]  # fmt: skip

OPERATOR: list[tuple[str, Any, int]] = [
    *((kind, wrong, 400) for kind in MEMBERS for wrong in (None, [], "x", 7)),
    *((kind, {"agent_id": A}, 400) for kind in ("DRAIN_AGENT", "DEACTIVATE_AGENT", "REACTIVATE_AGENT")),
    ("MARK_AGENT_GONE", {"agent_id": A}, 404),
    ("DRAIN_AGENT", {"agent_id": A, "max_grace_period": {"seconds": -1}}, 400),
    ("DRAIN_AGENT", {"agent_id": A, "mark_gone": "maybe"}, 400),
    ("TEARDOWN", {"framework_id": A}, 400),
    ("REMOVE_QUOTA", {"role": "none"}, 400),
    ("UPDATE_WEIGHTS", {"weight_infos": [{"role": "a"}]}, 400),
    ("UPDATE_WEIGHTS", {"weight_infos": [{"role": "a", "weight": "NaN"}]}, 400),
    ("UPDATE_WEIGHTS", {"weight_infos": [{"role": "a", "weight": 0}]}, 400),
    ("UPDATE_QUOTA", {"quota_configs": [{"role": "a/b"}]}, 400),
    ("UPDATE_QUOTA", {"quota_configs": [{"role": "a", "limits": {"cpus": 1}}]}, 400),
    ("UPDATE_QUOTA", {"quota_configs": [{"role": "a"}, {"role": "a"}]}, 400),
    ("UPDATE_QUOTA", {"quota_configs": [{"role": "a", "guarantees": {"cpus": {"value": 1}}}]}, 400),
    ("SET_QUOTA", {"quota_request": {"role": "a", "guarantee": [CPUS]}}, 409),
    ("SET_QUOTA", {"quota_request": {"role": "a", "guarantee": [OPS], "force": True}}, 400),
    ("RESERVE_RESOURCES", {"agent_id": A, "resources": [OPS]}, 400),
    ("RESERVE_RESOURCES", {"agent_id": A, "resources": [{**OPS, "scalar": {"value": "Infinity"}}]}, 400),
    ("RESERVE_RESOURCES", {"agent_id": A, "resources": [{**OPS, "role": "ops"}]}, 400),
    ("RESERVE_RESOURCES", {"agent_id": A, "resources": [{**OPS, "type": "BOGUS"}]}, 400),
    ("UPDATE_MAINTENANCE_SCHEDULE", {"schedule": {"windows": [{**WINDOW, "machine_ids": []}]}}, 400),
    ("UPDATE_MAINTENANCE_SCHEDULE", {"schedule": {"windows": [{**WINDOW, "machine_ids": [{"ip": "x"}]}]}}, 400),
    ("UPDATE_MAINTENANCE_SCHEDULE", {"schedule": {"windows": [WINDOW, WINDOW]}}, 400),
    ("START_MAINTENANCE", {"machines": []}, 400),
    ("START_MAINTENANCE", {"machines": [{"hostname": "h"}]}, 400),
    ("STOP_MAINTENANCE", {"machines": [{"hostname": "h"}]}, 400),
    ("LIST_FILES", {"path": "/master/log"}, 404),
    ("READ_FILE", {"path": "/master/log", "offset": 0}, 404),
    ("READ_FILE", {"path": "/master/log", "offset": -1}, 400),
    ("UNKNOWN", None, 501),
    ("PRUNE_IMAGES", None, 400),
    ("BOGUS", None, 400),
]  # fmt: skip


async def told(client: aiohttp.ClientSession) -> list[Any]:
    found = []
    for path in ("/weights", "/quota", "/maintenance/schedule", "/maintenance/status", "/frameworks", "/slaves"):
        async with client.get(path) as answer:
            assert answer.status == 200
            found.append(await answer.json())
    return found


async def test_a_call_that_cannot_be_meant_is_refused_and_changes_nothing(client: aiohttp.ClientSession) -> None:
    before = await told(client)
    for kind, member, status in OPERATOR:
        body = {"type": kind} if member is None else {"type": kind, kind.lower(): member}
        async with client.post("/api/v1", data=json.dumps(body), headers=JSON) as answer:
            why = await answer.text()
            assert (answer.status, answer.content_type) == (status, "text/plain"), (body, why)
            assert len(why) > 10
    assert await told(client) == before


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/redirect", "", 307),
        ("GET", "/redirect/extra", "", 404),
        ("GET", "/master/redirect/extra", "", 404),
        ("POST", "/redirect", "", 405),
        ("GET", "/api/v1", "", 405),
        ("GET", "/api/v1/scheduler", "", 405),
        ("POST", "/state", "", 405),
        ("GET", "/teardown", "", 405),
        ("POST", "/teardown", "", 400),
        ("POST", "/master/teardown", "frameworkId=nobody", 400),
        ("POST", "/reserve", "", 400),
        ("POST", "/reserve", "slaveId=nobody", 400),
        ("POST", "/reserve", "slaveId=nobody&resources=x", 400),
        ("POST", "/master/unreserve", "slaveId=nobody&resources=[]", 400),
        ("POST", "/create-volumes", "slaveId=nobody&volumes=[]", 400),
        ("POST", "/destroy-volumes", "slaveId=nobody&resources=[]", 400),
        ("POST", "/quota", "{}", 400),
        ("PUT", "/quota", "{}", 405),
        ("DELETE", "/quota/none", "", 400),
        ("DELETE", "/quota", "", 405),
        ("PUT", "/weights", "{}", 400),
        ("POST", "/weights", "[]", 405),
        ("POST", "/maintenance/schedule", "[]", 400),
        ("POST", "/machine/down", "[]", 400),
        ("POST", "/machine/up", "{}", 400),
        ("GET", "/machine/up", "", 405),
        ("GET", "/metrics/snapshot?timeout=soon", "", 400),
        ("GET", "/logging/toggle?level=1", "", 400),
        ("GET", "/state?jsonp=1x", "", 400),
        ("GET", "/files/read", "", 400),
        ("GET", "/files/browse?path=/master/log", "", 404),
        ("GET", "/tasks?limit=-1", "", 400),
        ("GET", "/master/tasks.json?offset=-1", "", 400),
        ("GET", "/slaves?slave_id=nobody", "", 200),
        ("GET", "/frameworks?framework_id=nobody", "", 200),
        ("GET", "/tasks?framework_id=nobody&task_id=nothing", "", 200),
    ],
)
async def test_an_older_endpoint_answers_as_mesos_does(
    client: aiohttp.ClientSession, method: str, path: str, body: str, status: int
) -> None:
    async with client.request(method, path, data=body, headers=FORM, allow_redirects=False) as answer:
        text = await answer.text()
        assert answer.status == status, text
        if status in (400, 404):
            assert len(text) > 10
        if status == 405:
            assert method not in answer.headers["Allow"].split(", ")


@pytest.mark.parametrize("path", ["/api/v1", "/api/v1/operator", "/master/api/v1"])
@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        (JSON, b'{"type":"GET_HEALTH"}', 200),
        ({"Content-Type": "Application/JSON; charset=utf-8"}, b'{"type":"GET_HEALTH"}', 200),
        ({**JSON, "Content-Encoding": "gzip"}, gzip.compress(b'{"type":"GET_HEALTH"}', mtime=0), 200),
        ({**JSON, "Content-Encoding": "gzip"}, b'{"type":"GET_HEALTH"}', 400),
        ({**JSON, "Accept": "application/json;q=0"}, b'{"type":"GET_HEALTH"}', 406),
        ({**JSON, "Accept": "application/x-protobuf"}, b'{"type":"GET_HEALTH"}', 406),
        ({**JSON, "Accept": "application/x-protobuf, */*;q=0.1"}, b'{"type":"GET_HEALTH"}', 200),
        ({**JSON, "Accept": "text/html"}, b'{"type":"BOGUS"}', 400),
        ({"Content-Type": "application/x-protobuf"}, b"", 415),
        ({"Content-Type": "text/plain"}, b'{"type":"GET_HEALTH"}', 415),
        (JSON, b"", 400),
        (JSON, b"[]", 400),
        (JSON, b"\xff\xfe", 400),
    ],
)
async def test_bodies_and_answers_have_the_media_types_that_are_said(
    client: aiohttp.ClientSession, path: str, headers: dict[str, str], body: bytes, status: int
) -> None:
    async with client.post(path, data=body, headers=headers) as answer:
        assert answer.status == status, await answer.text()


async def test_a_call_without_media_type_is_refused(client: aiohttp.ClientSession) -> None:
    async with client.post("/api/v1", data=b'{"type":"GET_HEALTH"}', skip_auto_headers=["Content-Type"]) as answer:
        assert (answer.status, await answer.text()) == (
            400, "Expecting 'Content-Type' to be present; send application/json",
        )  # fmt: skip
