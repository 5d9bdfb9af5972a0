"""One suite for both ways to the master: in its own process, and over HTTP. The master is the real one."""

import asyncio
from collections.abc import AsyncIterator, Callable
from random import Random
from typing import Any, TypeVar

import pytest

from corral.lib.errors import CorralError, Invalid, Unavailable
from corral.master.core import MasterCore
from corral.master.mesos_routes import TAKE_OVER_S
from corral.master.routes import routes
from corral.master.shell import MasterShell
from corral.master.spec import MasterConfig
from corral.mesos.scheduler import write_call
from corral.model import calls, events
from corral.model.framework import Capability, FrameworkInfo
from corral.model.ids import AgentId, FrameworkId, OfferId, TaskId, WantId
from corral.model.offer import Want
from corral.model.resources import normal, scalar
from corral.model.task import CommandInfo, TaskInfo, TaskState
from corral.net.routes import Request, Response, Route
from corral.net.server import Server, bind
from corral.runtime.loop import Loop
from corral.sdk.http import HttpTransport
from corral.sdk.local import LocalTransport
from corral.store.memory import MemoryStore

E = TypeVar("E")
Open = Callable[[], LocalTransport | HttpTransport]


class Master:
    """A kernel without agents, served over HTTP and in process."""

    def __init__(self) -> None:
        self.bound = bind("127.0.0.1", 0)
        config = MasterConfig(port=self.bound.getsockname()[1], heartbeat_s=0.1, explain_s=0.01)
        self.shell = MasterShell()
        self.loop = Loop(MasterCore(config, Random(1)), self.shell, MemoryStore(), prefix="master/", check=True)
        self.shell.attach(self.loop)
        self.server = Server(routes(self.loop, self.shell), self.bound)
        self.url = f"http://127.0.0.1:{config.port}"


@pytest.fixture
async def master() -> AsyncIterator[Master]:
    made = Master()
    running = asyncio.ensure_future(made.loop.run())
    await made.loop.ready.wait()
    await made.server.start()
    yield made
    await made.server.close()
    made.loop.stop()
    assert await running == 0


@pytest.fixture(params=["local", "http"])
async def open_transport(request: pytest.FixtureRequest, master: Master) -> AsyncIterator[Open]:
    opened: list[LocalTransport | HttpTransport] = []

    def make() -> LocalTransport | HttpTransport:
        opened.append(LocalTransport(master.shell) if request.param == "local" else HttpTransport(master.url))
        return opened[-1]

    yield make
    for transport in opened:
        if isinstance(transport, HttpTransport):
            await transport.close()


def subscribe(framework_id: str | None = None, **more: object) -> calls.Subscribe:
    info = FrameworkInfo(
        user="root",
        name="contract",
        id=FrameworkId(framework_id) if framework_id else None,
        failover_timeout_s=60.0,
        roles=("*",),
        capabilities=(Capability.MULTI_ROLE, Capability.PARTITION_AWARE),
        **more,  # type: ignore[arg-type]
    )
    return calls.Subscribe(info=info, suppressed_roles=("*",))


async def expect(stream: AsyncIterator[events.Event], kind: type[E]) -> E:
    """The next event of this kind."""
    async with asyncio.timeout(10):
        async for event in stream:
            if isinstance(event, kind):
                return event
    raise AssertionError(f"the stream ended without a {kind.__name__}")


async def test_the_first_event_says_who_one_is(open_transport: Open) -> None:
    transport = open_transport()
    await transport.call(subscribe())
    stream = aiter(transport.events())
    first = await anext(stream)
    assert isinstance(first, events.Subscribed)
    assert first.framework_id
    assert first.heartbeat_interval_s == pytest.approx(0.1)
    await expect(stream, events.Heartbeat)
    await expect(stream, events.Heartbeat)


async def test_no_call_is_taken_before_subscribing(open_transport: Open) -> None:
    with pytest.raises(Unavailable):
        await open_transport().call(calls.Revive(framework_id=FrameworkId("F")))


async def test_a_refused_call_raises_and_the_stream_goes_on(open_transport: Open) -> None:
    transport = open_transport()
    await transport.call(subscribe())
    stream = aiter(transport.events())
    await expect(stream, events.Subscribed)
    with pytest.raises(Invalid):
        await transport.call(calls.Revive(framework_id=FrameworkId("somebody-else")))
    await expect(stream, events.Heartbeat)


async def test_what_is_asked_is_answered_on_the_stream(open_transport: Open) -> None:
    transport = open_transport()
    await transport.call(subscribe())
    stream = aiter(transport.events())
    framework_id = (await expect(stream, events.Subscribed)).framework_id
    tasks = (calls.ReconcileTask(task_id=TaskId("nobody-knows"), agent_id=AgentId("gone")),)
    await transport.call(calls.Reconcile(framework_id=framework_id, tasks=tasks))
    update = await expect(stream, events.Update)
    assert update.status.task_id == "nobody-knows"
    assert update.status.state is TaskState.UNKNOWN


async def test_calls_keep_their_order(open_transport: Open) -> None:
    transport = open_transport()
    await transport.call(subscribe())
    stream = aiter(transport.events())
    framework_id = (await expect(stream, events.Subscribed)).framework_id
    for number in range(20):
        tasks = (calls.ReconcileTask(task_id=TaskId(f"t{number}"), agent_id=AgentId("gone")),)
        await transport.call(calls.Reconcile(framework_id=framework_id, tasks=tasks))
    seen = [(await expect(stream, events.Update)).status.task_id for _ in range(20)]
    assert seen == [f"t{number}" for number in range(20)]


async def test_wants_arrive_and_are_explained(open_transport: Open) -> None:
    transport = open_transport()
    await transport.call(subscribe())
    stream = aiter(transport.events())
    framework_id = (await expect(stream, events.Subscribed)).framework_id
    want = Want(id=WantId("web@1"), role="*", count=3, resources=normal((scalar("cpus", 0.5), scalar("mem", 32))))
    await transport.call(calls.Request(framework_id=framework_id, wants=(want,)))
    (explanation,) = (await expect(stream, events.Explanations)).explanations
    assert (explanation.want_id, explanation.waiting, explanation.agents) == ("web@1", 3, 0)


async def test_a_launch_on_an_offer_that_is_gone_is_told_as_a_lost_task(open_transport: Open) -> None:
    transport = open_transport()
    await transport.call(subscribe())
    stream = aiter(transport.events())
    framework_id = (await expect(stream, events.Subscribed)).framework_id
    task = TaskInfo(
        task_id=TaskId("t"),
        name="t",
        agent_id=AgentId("A"),
        resources=(scalar("cpus", 1),),
        command=CommandInfo(value="sleep 9", environment=(("A", "b"),)),
    )
    launch = calls.Launch(tasks=(task,))
    await transport.call(calls.Accept(framework_id=framework_id, offer_ids=(OfferId("none"),), operations=(launch,)))
    update = await expect(stream, events.Update)
    assert update.status.state is TaskState.DROPPED
    assert update.status.uuid is None


async def test_another_subscription_of_the_same_framework_ends_the_older_one(open_transport: Open) -> None:
    first = open_transport()
    await first.call(subscribe())
    stream = aiter(first.events())
    framework_id = (await expect(stream, events.Subscribed)).framework_id
    second = open_transport()
    await second.call(subscribe(framework_id))
    again = aiter(second.events())
    assert (await expect(again, events.Subscribed)).framework_id == framework_id
    error = await expect(stream, events.Error)
    assert "failed over" in error.message.lower()
    async with asyncio.timeout(10):
        assert [e async for e in stream if not isinstance(e, events.Heartbeat)] == []
    with pytest.raises(CorralError):
        await first.call(calls.Revive(framework_id=framework_id))
    await second.call(calls.Revive(framework_id=framework_id))


async def test_a_framework_that_leaves_is_taken_for_disconnected_and_may_return(
    open_transport: Open, master: Master
) -> None:
    transport = open_transport()
    await transport.call(subscribe())
    events_of = transport.events()
    framework_id = (await expect(aiter(events_of), events.Subscribed)).framework_id
    await events_of.aclose()  # type: ignore[attr-defined]
    frameworks = master.loop.core.state.frameworks  # type: ignore[attr-defined]
    async with asyncio.timeout(10):
        while frameworks[framework_id].stream is not None:
            await asyncio.sleep(0.01)
    await transport.call(subscribe(framework_id))
    assert (await expect(aiter(transport.events()), events.Subscribed)).framework_id == framework_id


async def open_late(master: Master, call: calls.Subscribe, **headers: str) -> tuple[Any, Any]:
    """A SUBSCRIBE of a client that is about to give it up."""
    body = write_call(call)
    reader, writer = await asyncio.open_connection("127.0.0.1", master.bound.getsockname()[1])
    lines = {"Host": "x", "Content-Type": "application/json", "Content-Length": str(len(body)), **headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    writer.write(f"POST /api/v1/scheduler HTTP/1.1\r\n{head}\r\n".encode() + body)
    return reader, writer


async def test_a_subscribe_whose_sender_has_gone_takes_over_from_nobody(master: Master, open_transport: Open) -> None:
    transport = open_transport()
    await transport.call(subscribe())
    stream = aiter(transport.events())
    framework_id = (await expect(stream, events.Subscribed)).framework_id
    for rests_s in (0.0, TAKE_OVER_S / 4):
        _, writer = await open_late(master, subscribe(framework_id))
        await asyncio.sleep(rests_s)
        writer.close()
    await asyncio.sleep(2 * TAKE_OVER_S)
    await transport.call(calls.Revive(framework_id=framework_id))
    await expect(stream, events.Heartbeat)


async def test_one_who_has_not_gone_takes_over_as_in_mesos(master: Master, open_transport: Open) -> None:
    transport = open_transport()
    await transport.call(subscribe())
    stream = aiter(transport.events())
    framework_id = (await expect(stream, events.Subscribed)).framework_id
    reader, writer = await open_late(master, subscribe(framework_id))
    assert (await expect(stream, events.Error)).message == "Framework failed over"
    assert b" 200 " in await reader.readline()
    writer.close()


async def test_an_http_transport_says_which_of_its_subscriptions_is_the_newest(master: Master) -> None:
    transport = HttpTransport(master.url)
    await transport.call(subscribe())
    framework_id = (await expect(aiter(transport.events()), events.Subscribed)).framework_id
    await transport.call(subscribe(framework_id))
    stream = aiter(transport.events())
    await expect(stream, events.Subscribed)
    life = transport._life
    for late in (f"{life}/1", f"{life}/2"):
        reader, writer = await open_late(master, subscribe(framework_id), **{"Corral-Attempt": late})
        assert b" 409 " in await reader.readline()
        writer.close()
    for wrong in ("7", "/7", "a/-1", "a/x"):
        reader, writer = await open_late(master, subscribe(framework_id), **{"Corral-Attempt": wrong})
        assert b" 400 " in await reader.readline()
        writer.close()
    await transport.call(calls.Revive(framework_id=framework_id))
    await expect(stream, events.Heartbeat)
    await transport.close()


async def test_a_wrong_subscription_is_told_on_the_stream(open_transport: Open) -> None:
    transport = open_transport()
    info = FrameworkInfo(user="root", name="contract", role="not a role")
    await transport.call(calls.Subscribe(info=info))
    error = await expect(aiter(transport.events()), events.Error)
    assert error.message


async def test_nobody_at_the_masters_address_is_unavailable() -> None:
    bound = bind("127.0.0.1", 0)
    port = bound.getsockname()[1]
    bound.close()
    transport = HttpTransport(f"http://127.0.0.1:{port}")
    with pytest.raises(Unavailable, match=str(port)):
        await transport.call(subscribe())
    await transport.close()


async def test_the_way_to_the_leader_is_followed(master: Master) -> None:
    async def send_on(request: Request) -> Response:
        return Response(status=307, headers={"Location": f"//127.0.0.1:{master.server.port}/api/v1/scheduler"})

    standby = Server([Route(method="POST", path="/api/v1/scheduler", handler=send_on)], bind("127.0.0.1", 0))
    await standby.start()
    transport = HttpTransport(f"127.0.0.1:{standby.port}")
    await transport.call(subscribe())
    stream = aiter(transport.events())
    framework_id = (await expect(stream, events.Subscribed)).framework_id
    await transport.call(calls.Revive(framework_id=framework_id))
    await transport.close()
    await standby.close()


async def test_masters_that_send_each_others_callers_on_are_given_up() -> None:
    async def send_on(request: Request) -> Response:
        return Response(status=307, headers={"Location": f"http://127.0.0.1:{standby.port}/api/v1/scheduler"})

    standby = Server([Route(method="POST", path="/api/v1/scheduler", handler=send_on)], bind("127.0.0.1", 0))
    await standby.start()
    transport = HttpTransport(f"127.0.0.1:{standby.port}")
    with pytest.raises(Unavailable, match="no leader"):
        await transport.call(subscribe())
    await transport.close()
    await standby.close()


async def test_the_second_master_is_asked_when_the_first_is_away(master: Master) -> None:
    bound = bind("127.0.0.1", 0)
    port = bound.getsockname()[1]
    bound.close()
    transport = HttpTransport(f"http://127.0.0.1:{port}", master.url)
    await transport.call(subscribe())
    await expect(aiter(transport.events()), events.Subscribed)
    await transport.close()


def test_an_http_transport_needs_a_master() -> None:
    with pytest.raises(Invalid):
        HttpTransport()


async def test_calls_that_nobody_waits_for_keep_their_order_and_tell_their_failures(master: Master) -> None:
    transport, failures = LocalTransport(master.shell), list[CorralError]()
    revive = calls.Revive(framework_id=FrameworkId("F"))
    transport.send(revive, failures.append)
    assert [type(f) for f in failures] == [Unavailable]
    await transport.call(subscribe())
    stream = aiter(transport.events())
    id = (await expect(stream, events.Subscribed)).framework_id
    transport.send(revive, failures.append)
    transport.send(calls.Suppress(framework_id=id), failures.append)
    transport.send(calls.Teardown(framework_id=id), failures.append)
    transport.send(calls.Revive(framework_id=id), failures.append)
    assert [event async for event in stream if isinstance(event, events.Error)] == []
    assert [type(f) for f in failures[1:]] == [Invalid, Invalid]
    assert "F cannot be found" in failures[1].message
