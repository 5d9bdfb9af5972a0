"""The endpoints over a real loop, without a socket: requests in, responses out, in the order of Mesos' checks."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import msgspec
import pytest
from master_stage import agent_info, task_info

from corral.lib.errors import CorralError, Unavailable
from corral.master.core import MasterCore
from corral.master.mesos_routes import OPERATOR_PATHS, SCHEDULER_PATHS
from corral.master.routes import routes
from corral.master.shell import MasterShell
from corral.master.spec import AgentOpened, AgentReported, MasterConfig
from corral.mesos.recordio import RecordReader
from corral.mesos.scheduler import write_call
from corral.model import calls
from corral.model.framework import FrameworkInfo
from corral.model.ids import FrameworkId, OfferId
from corral.model.orders import Order, Register, Registered, RunTask
from corral.net.routes import RawRoute, Request, Response, Route, Stream
from corral.net.server import Router
from corral.net.stream import FrameReader
from corral.runtime.loop import Loop
from corral.store.memory import MemoryStore

JSON = {"content-type": "application/json"}


class Door:
    """A master behind its routes."""

    def __init__(self, loop: Loop, shell: MasterShell) -> None:
        self.loop = loop
        self.shell = shell
        self.router = Router(routes(loop, shell))

    async def send(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None, **query: str
    ) -> Response | Stream:
        served, params, allowed = self.router.find(method, path)
        if served is None:
            return Response(status=405 if allowed else 404, headers={"Allow": ", ".join(allowed)})
        route = served.route
        assert isinstance(route, Route)
        request = Request(
            method=method, path=path, params=params, query={k: [v] for k, v in query.items()},
            headers=headers if headers is not None else JSON, body=body,
        )  # fmt: skip
        try:
            return await route.handler(request)
        except CorralError as error:
            return route.errors(error, request)

    async def get(self, path: str, **query: str) -> Any:
        answer = await self.send("GET", path, **query)
        assert isinstance(answer, Response)
        assert answer.status == 200, answer.body
        return json.loads(answer.body)

    async def call(self, call: calls.Call, stream: str | None = None, **more: Any) -> Response | Stream:
        headers = {**JSON, **({"mesos-stream-id": stream} if stream else {}), **more}
        return await self.send("POST", SCHEDULER_PATHS[0], write_call(call), headers)

    async def subscribe(self, **more: Any) -> "Subscription":
        call = calls.Subscribe(info=FrameworkInfo(user="u", name="f", **more))
        answer = await self.call(call)
        assert isinstance(answer, Stream)
        return Subscription(answer)


class Subscription:
    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.id = stream.headers["Mesos-Stream-Id"]
        self.reader = RecordReader()
        self.chunks = stream.chunks
        self.waiting: list[dict[str, Any]] = []

    async def next(self, kind: str) -> dict[str, Any]:
        """The next event of that kind; others are skipped."""
        while True:
            while self.waiting:
                event = self.waiting.pop(0)
                if event["type"] == kind:
                    return event
            self.waiting = [json.loads(r) for r in self.reader.feed(await anext(self.chunks))]


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    core, shell = MasterCore(MasterConfig(), Random(1)), MasterShell()
    loop = Loop(core, shell, MemoryStore(), prefix="master/", check=True)
    shell.attach(loop)
    running = asyncio.create_task(loop.run())
    await loop.ready.wait()
    yield Door(loop, shell)
    loop.stop()
    await running


def text(answer: Response | Stream) -> tuple[int, str]:
    assert isinstance(answer, Response)
    return answer.status, answer.body.decode()


async def test_a_subscription_is_a_stream_of_records_with_an_id(door: Door) -> None:
    found = await door.subscribe()
    assert found.stream.status == 200
    assert found.stream.content_type == "application/json"
    subscribed = await found.next("SUBSCRIBED")
    assert subscribed["subscribed"]["heartbeat_interval_seconds"] == 15.0
    await found.next("HEARTBEAT")


@pytest.mark.parametrize("path", SCHEDULER_PATHS)
@pytest.mark.parametrize(
    ("headers", "body", "status", "word"),
    [
        ({}, b"{", 400, "Content-Type"),
        ({"content-type": "text/xml"}, b"{", 415, "application/json"),
        ({"content-type": "application/x-protobuf"}, b"", 415, "application/json"),
        (JSON, b"{", 400, "JSON"),
        (JSON, b"[]", 400, ""),
        (JSON, b"{}", 400, "type"),
        (JSON, b'{"type": "UNKNOWN"}', 501, "UNKNOWN"),
        (JSON, b'{"type": "SUBSCRIBE"}', 400, "subscribe"),
        (JSON, b'{"type": "REVIVE", "framework_id": {"value": "x"}}', 400, "cannot be found"),
        ({"content-type": "Application/JSON; charset=utf-8"}, b"{", 400, "JSON"),
    ],
)
async def test_what_is_wrong_with_a_request_is_found_in_mesos_order(
    door: Door, path: str, headers: dict[str, str], body: bytes, status: int, word: str
) -> None:
    found_status, message = text(await door.send("POST", path, body, headers))
    assert found_status == status
    assert word in message


async def test_a_subscription_must_accept_json_and_other_calls_need_not(door: Door) -> None:
    call = calls.Subscribe(info=FrameworkInfo(user="u", name="f"))
    assert text(await door.call(call, accept="text/html"))[0] == 406
    for accept in ("*/*", "application/json", "text/html, application/*;q=0.5"):
        assert isinstance(await door.call(call, accept=accept), Stream)
    subscription = await door.subscribe()
    framework_id = FrameworkId((await subscription.next("SUBSCRIBED"))["subscribed"]["framework_id"]["value"])
    revive = calls.Revive(framework_id=framework_id)
    assert text(await door.call(revive, subscription.id, accept="text/html"))[0] == 202


async def test_calls_of_a_framework_are_202_and_its_update_200(door: Door) -> None:
    subscription = await door.subscribe(failover_timeout_s=60.0)
    framework_id = FrameworkId((await subscription.next("SUBSCRIBED"))["subscribed"]["framework_id"]["value"])
    revive = calls.Revive(framework_id=framework_id)
    assert text(await door.call(revive, subscription.id)) == (202, "")
    assert text(await door.call(revive))[0] == 400
    assert text(await door.call(revive, "other"))[0] == 400
    info = FrameworkInfo(user="u", name="renamed", id=framework_id, failover_timeout_s=60.0)
    assert text(await door.call(calls.UpdateFramework(info=info), subscription.id))[0] == 200
    assert subscription.stream.close is not None
    subscription.stream.close()
    assert text(await door.call(revive, subscription.id))[0] == 403


class Wire:
    """An agent's end of its link. Shapes: `orders` in the order they came."""

    def __init__(self) -> None:
        self.orders: list[Order] = []
        self._reader: FrameReader[Order] = FrameReader(Order)

    def write(self, data: bytes) -> int:
        self.orders += self._reader.feed(data)
        return 0


async def test_a_framework_runs_a_task_and_everybody_can_see_it(door: Door) -> None:
    agent = Wire()
    held = asyncio.ensure_future(door.shell.open_link("s").hold(agent))
    door.loop.tell(AgentOpened("s"))
    door.loop.tell(AgentReported("s", (Register(agent_info()),)))
    subscription = await door.subscribe()
    framework_id = FrameworkId((await subscription.next("SUBSCRIBED"))["subscribed"]["framework_id"]["value"])
    offer = (await subscription.next("OFFERS"))["offers"]["offers"][0]
    launch = calls.Launch(tasks=(task_info("t1", offer["agent_id"]["value"]),))
    accept = calls.Accept(
        framework_id=framework_id, offer_ids=(OfferId(offer["id"]["value"]),), operations=(launch,)
    )  # fmt: skip
    assert text(await door.call(accept, subscription.id))[0] == 202
    assert [type(order) for order in agent.orders] == [Registered, RunTask]
    assert (await door.get("/corral/v1/tasks"))["tasks"][0]["state"] == "TASK_STAGING"
    assert (await door.get("/corral/v1/nodes"))["nodes"][0]["tasks"] == 1
    assert (await door.get("/tasks", task_id="t1"))["tasks"][0]["id"] == "t1"
    assert (await door.get("/tasks", limit="0"))["tasks"] == []
    state = await door.get("/master/state.json")
    assert state["frameworks"][0]["tasks"][0]["state"] == "TASK_STAGING"
    assert (await door.get("/frameworks", framework_id="other"))["frameworks"] == []
    assert (await door.get("/slaves", slave_id="other"))["slaves"] == []
    assert (await door.get("/metrics/snapshot", timeout="5secs"))["master/tasks_staging"] == 1.0
    door.shell.close()
    assert await held


@pytest.mark.parametrize("path", ["/state", "/state-summary", "/frameworks"])
async def test_a_large_view_is_written_once_until_something_changes(door: Door, path: str) -> None:
    async def body() -> bytes:
        answer = await door.send("GET", path)
        assert isinstance(answer, Response)
        return answer.body

    first = await body()
    assert await body() is first
    await door.get("/corral/v1/tasks")
    assert await body() is first, "a read changes nothing"
    subscription = await door.subscribe()
    framework_id = (await subscription.next("SUBSCRIBED"))["subscribed"]["framework_id"]["value"]
    bodies = await asyncio.gather(*(body() for _ in range(20)))
    assert framework_id in bodies[0].decode()
    assert len({id(b) for b in bodies}) <= 2, "all who asked while the first was written share the next"


@pytest.mark.parametrize("prefix", ["", "/master"])
@pytest.mark.parametrize("suffix", ["", ".json"])
@pytest.mark.parametrize(
    "name",
    [
        "version",
        "flags",
        "state",
        "state-summary",
        "slaves",
        "frameworks",
        "tasks",
        "roles",
        "quota",
        "metrics/snapshot",
    ],
)
async def test_mesos_reads_answer_under_all_their_names(door: Door, prefix: str, name: str, suffix: str) -> None:
    assert isinstance(await door.get(f"{prefix}/{name}{suffix}"), dict)


async def test_health_and_redirect_and_version(door: Door) -> None:
    assert text(await door.send("GET", "/master/health")) == (200, "")
    redirect = await door.send("GET", "/redirect")
    assert redirect.status == 307
    assert redirect.headers["Location"] == "//127.0.0.1:4680"
    assert all(piece.isdigit() for piece in (await door.get("/version"))["version"].split("."))
    assert (await door.get("/health/ready"))["ready"] is True
    assert (await door.get("/health/live"))["live"] is True


@pytest.mark.parametrize("path", ["/api/v1", "/api/v1/", "/api/v1/operator", "/master/api/v1", "/master/api/v1/x/y"])
async def test_operator_reads_are_routed_by_the_longest_prefix(door: Door, path: str) -> None:
    answer = await door.send("POST", path, b'{"type": "GET_HEALTH"}')
    assert json.loads(text(answer)[1]) == {"type": "GET_HEALTH", "get_health": {"healthy": True}}
    assert len(OPERATOR_PATHS) == 4


async def test_operator_calls_are_checked_like_scheduler_calls(door: Door) -> None:
    assert text(await door.send("POST", "/api/v1", b"{", {}))[0] == 400
    assert text(await door.send("POST", "/api/v1", b"{", {"content-type": "text/xml"}))[0] == 415
    assert text(await door.send("POST", "/api/v1", b"{"))[0] == 400
    body = b'{"type": "GET_STATE"}'
    assert text(await door.send("POST", "/api/v1", body, {**JSON, "accept": "text/html"}))[0] == 406
    metrics = await door.send("POST", "/api/v1/operator", b'{"type": "GET_METRICS"}')
    assert "master/elected" in text(metrics)[1]


async def test_a_wrong_method_on_the_scheduler_api_names_the_right_one(door: Door) -> None:
    for path in SCHEDULER_PATHS:
        answer = await door.send("GET", path)
        assert answer.status == 405
        assert answer.headers["Allow"] == "POST"


async def test_bad_numbers_and_flags_in_queries_are_named(door: Door) -> None:
    assert "limit" in text(await door.send("GET", "/tasks", limit="x"))[1]
    assert text(await door.send("GET", "/corral/v1/events", follow="maybe"))[0] == 400
    assert text(await door.send("GET", "/metrics/snapshot", timeout="soon"))[0] == 400


async def test_a_role_is_set_shown_and_forgotten(door: Door) -> None:
    body = b'{"limit": {"cpus": 4}, "max_tasks": 7, "half_life_s": 60}'
    status, page = text(await door.send("PUT", "/corral/v1/roles/ads/etl/nightly", body))
    assert (status, json.loads(page)["limit"], json.loads(page)["parent"]) == (200, {"cpus": 4.0}, "ads/etl")
    assert (await door.get("/corral/v1/roles/ads/etl/nightly"))["max_tasks"] == 7
    assert (await door.get("/corral/v1/roles/ads"))["set"] is False
    assert text(await door.send("GET", "/corral/v1/roles/web"))[0] == 404
    assert text(await door.send("DELETE", "/corral/v1/roles/ads/etl/nightly")) == (204, "")
    assert text(await door.send("DELETE", "/corral/v1/roles/ads/etl/nightly"))[0] == 404
    assert await door.get("/corral/v1/roles") == {"roles": []}


async def test_what_clashes_with_the_cluster_is_a_conflict_unless_forced(door: Door) -> None:
    body = b'{"guarantee": {"cpus": 4}}'
    assert text(await door.send("PUT", "/corral/v1/roles/ads", body))[0] == 409
    assert text(await door.send("PUT", "/corral/v1/roles/ads", body, force="maybe"))[0] == 400
    assert await door.get("/corral/v1/roles") == {"roles": []}
    assert text(await door.send("PUT", "/corral/v1/roles/ads", body, force="true"))[0] == 200


def quota_call(kind: str, **body: Any) -> bytes:
    return json.dumps({"type": kind, kind.lower(): body}).encode()


GUARANTEE = {"cpus": {"value": 4}}
LISTED = [{"name": "cpus", "type": "SCALAR", "scalar": {"value": 4}}]


async def test_mesos_statuses_of_quota_and_weights(door: Door) -> None:
    async def post(kind: str, **body: Any) -> int:
        return text(await door.send("POST", "/api/v1/operator", quota_call(kind, **body)))[0]

    too_much = {"role": "ads", "guarantees": GUARANTEE}
    assert await post("UPDATE_QUOTA", quota_configs=[too_much]) == 400
    assert await post("SET_QUOTA", quota_request={"role": "ads", "guarantee": LISTED}) == 409
    assert await post("REMOVE_QUOTA", role="ads") == 400
    assert await post("UPDATE_WEIGHTS", weight_infos=[{"role": "ads", "weight": 0}]) == 400
    assert await door.get("/corral/v1/roles") == {"roles": []}
    assert await post("SET_QUOTA", quota_request={"role": "ads", "guarantee": LISTED, "force": True}) == 200
    assert await post("SET_QUOTA", quota_request={"role": "ads", "guarantee": LISTED, "force": True}) == 400
    assert await post("REMOVE_QUOTA", role="ads") == 200
    assert await post("UPDATE_QUOTA", quota_configs=[too_much], force=True) == 200
    assert await post("UPDATE_WEIGHTS", weight_infos=[{"role": "ads", "weight": 2}]) == 200
    answer = await door.send("POST", "/api/v1", b'{"type": "GET_QUOTA"}')
    assert json.loads(text(answer)[1])["get_quota"]["status"]["configs"] == [
        {"role": "ads", "guarantees": {"cpus": {"value": 4.0}}}
    ]


@pytest.mark.parametrize("prefix", ["", "/master"])
async def test_the_older_doors_of_quota_and_weights(door: Door, prefix: str) -> None:
    request = json.dumps({"role": "ads", "guarantee": LISTED}).encode()
    assert text(await door.send("POST", f"{prefix}/quota", request, {}))[0] == 409
    request = json.dumps({"role": "ads", "guarantee": LISTED, "force": True}).encode()
    assert text(await door.send("POST", f"{prefix}/quota", request, {})) == (200, "")
    assert text(await door.send("POST", f"{prefix}/quota", request, {}))[0] == 400
    assert text(await door.send("PUT", f"{prefix}/weights", b'[{"role": "ads", "weight": 2.5}]', {})) == (200, "")
    assert text(await door.send("PUT", f"{prefix}/weights", b'[{"role": "ads", "weight": 0}]', {}))[0] == 400
    assert await door.get(f"{prefix}/weights") == [{"role": "ads", "weight": 2.5}]
    (config,) = (await door.get(f"{prefix}/quota"))["configs"]
    assert config == {"role": "ads", "guarantees": {"cpus": {"value": 4.0}}, "limits": {"cpus": {"value": 4.0}}}
    (role,) = (await door.get(f"{prefix}/roles"))["roles"]
    assert (role["weight"], role["quota"]["guarantee"], role["quota"]["consumed"]) == (2.5, {"cpus": 4.0}, {})
    assert text(await door.send("DELETE", f"{prefix}/quota/ads")) == (200, "")
    assert text(await door.send("DELETE", f"{prefix}/quota/ads"))[0] == 400
    assert await door.get(f"{prefix}/quota") == {}


async def test_a_weight_is_set_and_shown(door: Door) -> None:
    answer = await door.send("PUT", "/corral/v1/roles/ads/etl", b'{"weight": 2.5}')
    assert answer.status == 200
    assert [(r["name"], r["weight"]) for r in (await door.get("/corral/v1/roles"))["roles"]] == [
        ("ads", 1.0),
        ("ads/etl", 2.5),
    ]
    assert text(await door.send("PUT", "/corral/v1/roles/x", b'{"weight": -1}'))[0] == 400


async def test_events_are_lines_and_can_be_followed(door: Door) -> None:
    answer = await door.send("GET", "/corral/v1/events")
    lines = [json.loads(line) for line in text(answer)[1].splitlines()]
    assert lines[0]["what"] == "master started"
    assert set(lines[0]) == {"seq", "at", "component", "level", "what", "why", "facts"}
    follow = await door.send("GET", "/corral/v1/events", follow="true", after=str(lines[-1]["seq"]))
    assert isinstance(follow, Stream)
    await door.subscribe()
    line = json.loads(await anext(follow.chunks))
    assert line["what"] == "framework subscribed"


async def test_prometheus_reads_the_same_numbers(door: Door) -> None:
    status, page = text(await door.send("GET", "/metrics"))
    assert status == 200
    assert "corral_master_tasks_running 0.0" in page
    assert "corral_master_slave_registrations_total 0.0" in page
    await door.subscribe()
    _, page = text(await door.send("GET", "/metrics"))
    assert 'corral_framework_seconds_since_offer{framework="' in page


async def test_nothing_is_answered_before_the_records_are_read() -> None:
    core, shell = MasterCore(MasterConfig(), Random(1)), MasterShell()
    loop = Loop(core, shell, MemoryStore(), prefix="master/")
    shell.attach(loop)
    door = Door(loop, shell)
    for method, path in (
        ("POST", SCHEDULER_PATHS[0]),
        ("POST", "/api/v1"),
        ("GET", "/state"),
        ("POST", "/quota"),
        ("DELETE", "/quota/ads"),
        ("PUT", "/weights"),
        ("GET", "/weights"),
        ("GET", "/health/ready"),
    ):
        answer = await door.send(method, path, b"", {})
        assert answer.status == 503, path
    raw = [r for r in routes(loop, shell) if isinstance(r, RawRoute)]
    assert len(raw) == 2
    with pytest.raises(Unavailable):
        await raw[0].handler(None)


async def test_a_slow_stream_that_is_left_frees_the_framework(door: Door) -> None:
    subscription = await door.subscribe()
    await subscription.next("SUBSCRIBED")
    assert subscription.stream.close is not None
    subscription.stream.close()
    with contextlib.suppress(StopAsyncIteration):
        await anext(subscription.chunks)
    shown = (await door.get("/corral/v1/frameworks"))["frameworks"]
    assert [f["state"] for f in shown] == ["removed"]
    assert msgspec.json.encode(shown)
