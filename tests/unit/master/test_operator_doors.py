"""The operator API and the older endpoints over a real loop, without a socket: what is asked, what comes back."""

import asyncio
import gzip
import json
import logging
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import pytest
from master_stage import agent_info, task_info
from test_master_routes import JSON, Door, Subscription, text

from corral.lib import log
from corral.lib.errors import CorralError
from corral.master.core import MasterCore
from corral.master.mesos_routes import write_text
from corral.master.routes import routes
from corral.master.shell import MasterShell
from corral.master.spec import AgentOpened, AgentReported, MasterConfig
from corral.model.framework import FrameworkInfo
from corral.model.ids import AgentId, FrameworkId
from corral.model.orders import AgentTask, Register
from corral.model.task import TaskState
from corral.net.routes import Request, Response, Stream
from corral.net.server import Router
from corral.runtime.loop import Loop
from corral.store.memory import MemoryStore

FORM = {"content-type": "application/x-www-form-urlencoded"}


@pytest.fixture
async def door(request: pytest.FixtureRequest) -> AsyncIterator[Door]:
    limits = getattr(request, "param", {})
    core, shell = MasterCore(MasterConfig(), Random(1)), MasterShell(**limits)
    loop = Loop(core, shell, MemoryStore(), prefix="master/", check=True)
    shell.attach(loop)
    running = asyncio.create_task(loop.run())
    await loop.ready.wait()
    yield Door(loop, shell)
    loop.stop()
    await running


async def operate(door: Door, kind: str, **more: Any) -> Response | Stream:
    return await door.send("POST", "/api/v1/operator", json.dumps({"type": kind, **more}).encode())


async def ask(door: Door, kind: str, **more: Any) -> Any:
    answer = await operate(door, kind, **more)
    assert isinstance(answer, Response)
    assert answer.status == 200, answer.body
    return json.loads(answer.body)[kind.lower()] if answer.body else None


def populate(door: Door, agents: int = 1, tasks: int = 3) -> None:
    """Agents whose tasks belong to a framework that only they know."""
    info = FrameworkInfo(user="u", name="f", id=FrameworkId("F"), failover_timeout_s=1e6)
    for n in range(agents):
        told = [task_info(f"t{n}-{k}", f"S{n}", resources=()) for k in range(tasks)]
        of_agent = agent_info(f"h{n}", id=AgentId(f"S{n}"))
        rows = tuple(AgentTask(t, FrameworkId("F"), "*", TaskState.RUNNING, None) for t in told)
        door.loop.tell(AgentOpened(f"s{n}"))
        door.loop.tell(AgentReported(f"s{n}", (Register(of_agent, rows, (info,)),)))


# What clients may ask in which way.


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status", "word"),
    [
        ("POST", "/teardown", b"", FORM, 400, "frameworkId"),
        ("POST", "/teardown", b"frameworkId=", FORM, 400, "frameworkId"),
        ("POST", "/teardown", b"nonsense", FORM, 400, "form"),
        ("POST", "/teardown", b"\xff\xfe=1", FORM, 400, "form"),
        ("POST", "/master/teardown", b"frameworkId=nobody", FORM, 400, "nobody"),
        ("POST", "/api/v1", b'{"type":"TEARDOWN"}', JSON, 400, "teardown"),
        ("POST", "/api/v1", b'{"type":"TEARDOWN","teardown":{}}', JSON, 400, "framework_id"),
        ("POST", "/api/v1", b'{"type":"TEARDOWN","teardown":{"framework_id":{"value":"x"}}}', JSON, 400, "x"),
        ("POST", "/api/v1", b'{"type":"LIST_FILES","list_files":{"path":"/master/log"}}', JSON, 404, "/master/log"),
        ("POST", "/api/v1", b'{"type":"READ_FILE","read_file":{"path":"/a","offset":0}}', JSON, 404, "/a"),
        ("POST", "/api/v1", b'{"type":"READ_FILE","read_file":{"path":"/a","offset":-1}}', JSON, 400, "offset"),
        ("POST", "/api/v1", b"\x08\x01", {"content-type": "application/x-protobuf"}, 415, "JSON only"),
        ("GET", "/files/browse", b"", JSON, 400, "path"),
        ("GET", "/files/read.json?", b"", JSON, 404, ""),
    ],
)
async def test_what_is_wrong_is_refused_with_its_status(
    door: Door, method: str, path: str, body: bytes, headers: dict[str, str], status: int, word: str
) -> None:
    found, message = text(await door.send(method, path, body, headers))
    assert found == status
    assert word in message


@pytest.mark.parametrize(
    ("path", "query", "status", "word"),
    [
        ("/files/browse", {"path": "/master/log"}, 404, "sandboxes are on agents"),
        ("/files/download", {"path": "/x"}, 404, "/x"),
        ("/tasks", {"order": "up"}, 400, "asc"),
        ("/tasks", {"limit": "many"}, 400, "many"),
        ("/tasks", {"offset": "x"}, 400, "offset"),
        ("/state", {"jsonp": "alert(1)"}, 400, "jsonp"),
        ("/slaves", {"jsonp": "a.1"}, 400, "jsonp"),
        ("/logging/toggle", {"level": "1"}, 400, "duration"),
        ("/logging/toggle", {"duration": "1secs"}, 400, "level"),
        ("/logging/toggle", {"level": "-1", "duration": "1secs"}, 400, "level"),
        ("/logging/toggle", {"level": "1", "duration": "soon"}, 400, "soon"),
        ("/metrics/snapshot", {"timeout": "soon"}, 400, "soon"),
    ],
)
async def test_what_is_wrong_with_a_query_is_refused(
    door: Door, path: str, query: dict[str, str], status: int, word: str
) -> None:
    served, params, _ = door.router.find("GET", path)
    assert served is not None
    asked = Request(method="GET", path=path, params=params, query={k: [v] for k, v in query.items()})
    try:
        answer = await served.route.handler(asked)
    except CorralError as error:
        answer = write_text(error, asked)
    found, message = text(answer)
    assert (found, word in message) == (status, True), message


async def test_a_framework_is_torn_down_by_form_and_by_call(door: Door) -> None:
    for tear_down in (
        lambda id: door.send("POST", "/teardown", f"frameworkId={id}".encode(), FORM),
        lambda id: operate(door, "TEARDOWN", teardown={"framework_id": {"value": id}}),
    ):
        subscription = await door.subscribe(failover_timeout_s=60.0)
        framework_id = (await subscription.next("SUBSCRIBED"))["subscribed"]["framework_id"]["value"]
        assert text(await tear_down(framework_id)) == (200, "")
        assert "operator" in (await subscription.next("ERROR"))["error"]["message"]
        with pytest.raises(StopAsyncIteration):
            await anext(subscription.chunks)
        rows = await ask(door, "GET_FRAMEWORKS")
        assert framework_id in [f["framework_info"]["id"]["value"] for f in rows["completed_frameworks"]]


async def test_pages_of_tasks_come_in_both_orders(door: Door) -> None:
    populate(door)

    async def ids(**query: str) -> list[str]:
        return [t["id"] for t in (await door.get("/tasks", **query))["tasks"]]

    assert await ids() == await ids(order="des") == ["t0-2", "t0-1", "t0-0"]
    assert await ids(order="asc") == ["t0-0", "t0-1", "t0-2"]
    assert await ids(order="asc", offset="1", limit="1") == ["t0-1"]
    assert await ids(task_id="t0-2", framework_id="F") == ["t0-2"]
    assert await ids(framework_id="other") == []


# How answers are dressed.


@pytest.mark.parametrize("path", ["/state", "/slaves", "/tasks", "/metrics/snapshot", "/flags", "/version"])
async def test_a_script_gets_its_answer_wrapped(door: Door, path: str) -> None:
    answer = await door.send("GET", path, jsonp="jQuery.cb_1")
    assert isinstance(answer, Response)
    assert answer.content_type == "text/javascript"
    body = answer.body.decode()
    assert (body[:12], body[-2:]) == ("jQuery.cb_1(", ");")
    assert json.loads(body[12:-2])


async def read(answer: Response | Stream) -> bytes:
    return answer.body if isinstance(answer, Response) else b"".join([chunk async for chunk in answer.chunks])


@pytest.mark.parametrize(("tasks", "kind"), [(150, Response), (1500, Stream)])
async def test_what_is_large_is_compressed_for_those_who_take_it(door: Door, tasks: int, kind: type[Any]) -> None:
    populate(door, tasks=tasks)
    plain = await door.send("GET", "/state")
    assert isinstance(plain, kind)
    found = await door.send("GET", "/state", headers={**JSON, "accept-encoding": "gzip, deflate"})
    assert found.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(await read(found)) == await read(plain)
    for header in ("identity", "gzip;q=0", "br"):
        assert "Content-Encoding" not in (await door.send("GET", "/state", headers={"accept-encoding": header})).headers
    small = await door.send("GET", "/version", headers={"accept-encoding": "gzip"})
    assert "Content-Encoding" not in small.headers
    wrapped = await read(await door.send("GET", "/state", jsonp="cb"))
    assert wrapped == b"cb(" + await read(await door.send("GET", "/state")) + b");"


async def test_readers_at_different_speeds_each_get_one_whole_moment(door: Door) -> None:
    populate(door, tasks=2500)
    slow = await operate(door, "GET_TASKS")
    assert isinstance(slow, Stream)
    chunks = aiter(slow.chunks)
    begun = await anext(chunks)
    subscription = await door.subscribe(failover_timeout_s=60.0)
    await subscription.next("SUBSCRIBED")
    others = await asyncio.gather(*(operate(door, "GET_TASKS") for _ in range(5)))
    bodies = [await read(other) for other in others]
    assert [len(json.loads(body)["get_tasks"]["tasks"]) for body in bodies] == [2500] * 5
    rest = b"".join([chunk async for chunk in chunks])
    assert len(json.loads(begun + rest)["get_tasks"]["tasks"]) == 2500


async def test_the_numbers_are_json_for_those_who_ask_for_it(door: Door) -> None:
    populate(door)
    answer = await door.send("GET", "/metrics", headers={"accept": "application/json"})
    assert isinstance(answer, Response)
    found = json.loads(answer.body)
    snapshot = await door.get("/metrics/snapshot")
    assert found["gauges"]["master/tasks_running"] == {"value": 3.0}
    assert found["gauges"].keys() == snapshot.keys()
    for accept in ("text/plain", "text/plain;version=0.0.4, application/json;q=0.1", "*/*", ""):
        told = await door.send("GET", "/metrics", headers={"accept": accept})
        assert isinstance(told, Response)
        assert told.body.startswith(b"# HELP")


async def test_dashboards_find_messages_shares_and_the_node(door: Door) -> None:
    populate(door)
    subscription = await door.subscribe(failover_timeout_s=60.0, role="ads")
    await subscription.next("SUBSCRIBED")
    quota = {"quota_configs": [{"role": "ads", "limits": {"cpus": {"value": 2}}}]}
    assert await ask(door, "UPDATE_QUOTA", update_quota=quota) is None
    found = await door.get("/metrics/snapshot")
    assert found["master/messages_register_framework"] == 1.0
    assert found["master/messages_register_slave"] == 1.0
    assert found["master/slave_registrations"] == 1.0
    assert found["master/cpus_revocable_total"] == 0.0
    assert found["system/cpus_total"] >= 1.0
    assert found["allocator/mesos/quota/roles/ads/resources/cpus/limit"] == 2.0
    assert 0.0 <= found["allocator/mesos/roles/ads/shares/dominant"] <= 1.0
    assert (await door.get("/system/stats"))["cpus_total"] >= 1.0


# The log.


@pytest.fixture
def logged() -> Any:
    before = log._form, logging.getLogger().handlers[:]
    log.configure_log("text", "info", open("/dev/null", "w"))  # noqa: SIM115 - closed with the process
    yield
    log._form = before[0]
    logging.getLogger().handlers[:] = before[1]
    log.structlog.reset_defaults()


async def test_the_log_tells_more_for_a_while(door: Door, logged: None) -> None:
    async def level() -> int:
        found: int = (await ask(door, "GET_LOGGING_LEVEL"))["level"]
        assert text(await door.send("GET", "/logging/toggle")) == (200, f"{found}\n")
        return found

    assert await level() == 0
    asked = {"level": 2, "duration": {"nanoseconds": 20_000_000}}
    assert await ask(door, "SET_LOGGING_LEVEL", set_logging_level=asked) is None
    assert await level() == 1
    await asyncio.sleep(0.03)
    assert await level() == 0
    assert text(await door.send("POST", "/logging/toggle", level="1", duration="10secs")) == (200, "")
    assert await level() == 1
    assert text(await door.send("GET", "/logging/toggle", level="0", duration="1secs")) == (200, "")
    assert await level() == 0


# The stream of events.


async def follow(door: Door) -> "Watching":
    answer = await operate(door, "SUBSCRIBE")
    assert isinstance(answer, Stream)
    assert answer.content_type == "application/json"
    return Watching(answer)


class Watching(Subscription):
    def __init__(self, stream: Stream) -> None:
        super().__init__(Stream(chunks=stream.chunks, headers={"Mesos-Stream-Id": ""}))
        self.close = stream.close


async def test_a_follower_gets_the_state_a_heartbeat_and_what_happens(door: Door) -> None:
    populate(door, tasks=600)
    watching = await follow(door)
    first = await watching.next("SUBSCRIBED")
    assert len(first["subscribed"]["get_state"]["get_tasks"]["tasks"]) == 600
    assert first["subscribed"]["heartbeat_interval_seconds"] == 15.0
    assert await watching.next("HEARTBEAT") == {"type": "HEARTBEAT"}
    subscription = await door.subscribe(failover_timeout_s=60.0)
    framework_id = (await subscription.next("SUBSCRIBED"))["subscribed"]["framework_id"]
    added = await watching.next("FRAMEWORK_ADDED")
    assert added["framework_added"]["framework"]["framework_info"]["id"] == framework_id
    assert watching.close is not None
    watching.close()
    with pytest.raises(StopAsyncIteration):
        await anext(watching.chunks)
    await door.get("/version")
    assert door.loop.core.state.watchers == {}  # type: ignore[attr-defined]


@pytest.mark.parametrize("door", [{"most_watchers": 2}], indirect=True)
async def test_of_too_many_followers_the_oldest_is_let_go(door: Door) -> None:
    first, second, third = await follow(door), await follow(door), await follow(door)
    for watching in (first, second, third):
        await watching.next("HEARTBEAT")
    with pytest.raises(StopAsyncIteration):
        await anext(first.chunks)
    populate(door)
    for watching in (second, third):
        assert (await watching.next("TASK_ADDED"))["task_added"]["task"]["name"] == "t0-0"


@pytest.mark.parametrize("door", [{"most_watch_bytes": 4000}], indirect=True)
async def test_a_slow_follower_is_cut_off_and_the_others_go_on(door: Door) -> None:
    slow, quick = await follow(door), await follow(door)
    for watching in (slow, quick):
        await watching.next("HEARTBEAT")
    seen = 0
    for n in range(20):
        populate(door, agents=n + 1, tasks=0)
        await quick.next("AGENT_ADDED")
        seen += 1
    assert seen == 20
    with pytest.raises(StopAsyncIteration):
        await anext(slow.chunks)
    assert len(door.loop.core.state.watchers) == 1  # type: ignore[attr-defined]


async def test_nobody_follows_whose_request_was_given_up(door: Door) -> None:
    router = Router(routes(door.loop, door.shell))
    served, _, _ = router.find("POST", "/api/v1")
    assert served is not None
    request = Request(method="POST", path="/api/v1", headers=JSON, body=b'{"type": "SUBSCRIBE"}')
    asking = asyncio.create_task(served.route.handler(request))
    for _ in range(3):
        await asyncio.sleep(0)
    asking.cancel()
    await asyncio.wait([asking])
    await door.get("/version")
    assert door.loop.core.state.watchers == {}  # type: ignore[attr-defined]
