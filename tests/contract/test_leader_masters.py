"""Several masters over one store, in one process, over real sockets: what clients, agents, frameworks see of them."""

import asyncio
import contextlib
import gzip
import json
from collections.abc import AsyncIterator, Callable
from random import Random
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web
from leader_stores import SlowStore
from paced_loop import paced_clock

from corral.agent.core import AgentCore
from corral.agent.link import Link
from corral.agent.shell import AgentShell
from corral.agent.spec import AgentConfig
from corral.lib.errors import Unavailable
from corral.model import calls, events
from corral.model.flags import parse_resources
from corral.model.framework import FrameworkInfo
from corral.net.routes import RawRoute
from corral.net.server import Server, bind
from corral.runtime.election import LEADERSHIP_LOST, Candidate
from corral.runtime.leader import Election, Tenure
from corral.runtime.loop import Loop
from corral.runtime.notes import Notes
from corral.runtime.renewal import Renewal
from corral.runtime.service import run_services
from corral.sdk.http import HttpTransport
from corral.sdk.local import LocalTransport
from corral.standalone.config import Config, KernelSection
from corral.standalone.frameworks import make_framework
from corral.standalone.parts import MasterPart, Recording
from corral.standalone.reign import Leading, Reign
from corral.store.base import Store
from corral.store.memory import MemoryStore

pytestmark = pytest.mark.paced

TTL_S = 0.6
FRAMEWORKS = ("services", "cron")
CONFIG = Config(kernel=KernelSection(compiled="no", lease_ttl_s=TTL_S))


class Master:
    """One master as `corral master` makes it, but over a store that it shares."""

    def __init__(self, name: str, shared: Store) -> None:
        self.store = store = SlowStore(shared)
        bound = bind("127.0.0.1", 0)
        self.server = Server([], bound)
        self.url = self.server.url
        self.part: MasterPart | None = None
        own = Candidate(id=name, url=self.url)
        self.election = Election(store, "master", own, TTL_S, Random(name), clock=paced_clock())

        def begin(fence: Tenure) -> Leading:
            notes, recording = Notes(), Recording(None)
            self.part = part = MasterPart(CONFIG, store, bound, notes, recording, None, fence)
            made = [
                make_framework(
                    name, CONFIG, self.server.address, LocalTransport(part.shell), store, notes, recording, fence
                )
                for name in FRAMEWORKS
            ]
            loops = [part.loop, *(framework.loop for framework in made)]
            return Leading(
                [part.loop, *made], loops, [*part.routes, *(r for framework in made for r in framework.routes)]
            )

        renewal = Renewal("master", name, leads=lambda: self.reign.serves, arguments=())
        self.reign = Reign(self.election, begin, self.server, renewal, alone=False)
        self.task = asyncio.create_task(run_services([self.reign, self.server], grace_s=3.0, signals=False))

    async def stop(self) -> None:
        self.reign.stop()
        await asyncio.wait_for(self.task, 10.0)

    def freeze(self) -> None:
        """As SIGSTOP: it keeps its connections, and neither answers nor renews."""

        async def never(raw: web.BaseRequest) -> web.StreamResponse:
            await asyncio.Event().wait()
            raise AssertionError

        self.store.all.clear()
        self.server.switch([RawRoute(method="*", path="/{path*}", handler=never)])

    async def wake(self) -> int:
        self.store.all.set()
        return await asyncio.wait_for(self.task, 10.0)


@contextlib.asynccontextmanager
async def masters(count: int) -> AsyncIterator[list[Master]]:
    """Shapes: the first one leads."""
    store = MemoryStore(clock=paced_clock())
    first = Master("m0", store)
    await until(lambda: first.reign.serves)
    made = [first, *(Master(f"m{n}", store) for n in range(1, count))]
    try:
        for one in made:
            await asyncio.wait_for(one.reign.settled(), 5.0)
        yield made
    finally:
        for one in made:
            if not one.task.done():
                await one.stop()


async def until(look: Callable[[], Any], timeout_s: float = 8.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not look():
            await asyncio.sleep(0.01)


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


APP = {"id": "/web", "cmd": "sleep 1000", "cpus": 0.1, "mem": 16, "instances": 1}


async def test_any_master_takes_a_write_and_shows_what_the_leader_knows(http: aiohttp.ClientSession) -> None:
    async with masters(3) as (_, second, third):
        async with http.post(f"{second.url}/v2/apps", json=APP) as answer:
            assert answer.status == 201
        async with http.get(f"{third.url}/v2/apps//web?embed=app.tasks") as answer:
            assert answer.status == 200
            assert (await answer.json())["app"]["id"] == "/web"
        async with http.post(f"{second.url}/v2/apps", json=APP) as answer:
            assert answer.status == 409
        async with http.get(f"{second.url}/corral/v1/masters") as answer:
            found = (await answer.json())["masters"]
            assert sorted((one["id"], one["leads"]) for one in found) == [("m0", True), ("m1", False), ("m2", False)]


@pytest.mark.parametrize("how", ["compressed", "asked", "both", "broken"])
async def test_a_body_passes_a_follower_however_it_is_sent(how: str) -> None:
    """Compressed; by a client that asks before it sends; and one that is not what its headers say."""
    body = json.dumps(APP).encode()
    headers = [b"Content-Type: application/json"]
    if how in ("compressed", "both"):
        body = gzip.compress(body)
    if how != "asked":
        headers.append(b"Content-Encoding: gzip")
    if how in ("asked", "both"):
        headers.append(b"Expect: 100-continue")
    async with masters(2) as (_, second), asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", second.server.port)
        head = [b"POST /v2/apps HTTP/1.1", b"Host: x", *headers, b"Content-Length: %d" % len(body)]
        writer.write(b"\r\n".join(head) + b"\r\n\r\n")
        if how in ("asked", "both"):
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body)
        answer = await reader.readline()
        assert answer.split()[1] == (b"400" if how == "broken" else b"201"), answer
        writer.close()


async def test_a_load_balancer_learns_who_is_alive_ready_and_leading(http: aiohttp.ClientSession) -> None:
    async with masters(2) as (first, second):
        told = {}
        for name, one in (("leader", first), ("standby", second)):
            for path in ("/health", "/health/live", "/health/ready", "/health/leader"):
                async with http.get(one.url + path) as answer:
                    told[name, path] = answer.status
        assert {key for key, status in told.items() if status != 200} == {("standby", "/health/leader")}
        assert told["standby", "/health/leader"] == 503
        async with http.get(second.url + "/metrics") as answer:
            assert "corral_master_elected 0.0" in await answer.text()
        async with http.get(first.url + "/metrics") as answer:
            assert "corral_master_elected 1.0" in await answer.text()


async def test_never_do_two_masters_say_at_a_time_that_they_lead(http: aiohttp.ClientSession) -> None:
    """One that is cut off from the store, and not from its clients, stops saying so before another begins."""
    async with masters(2) as (first, second):

        async def leads(one: Master) -> bool:
            async with http.get(one.url + "/health/leader") as answer:
                return answer.status == 200

        assert await leads(first)
        first.store.all.clear()
        told = []
        async with asyncio.timeout(8.0):
            while not await leads(second):
                told.append(await leads(first))
                await asyncio.sleep(0.01)
        assert not await leads(first)
        assert sorted(told, reverse=True) == told
        assert not told[-1], "it knew before another led"
        assert await first.wake() == LEADERSHIP_LOST


async def test_mesos_clients_are_led_to_the_leader_as_by_mesos(http: aiohttp.ClientSession) -> None:
    async with masters(2) as (first, second):
        place = first.url.removeprefix("http:")
        for method, path in (
            ("POST", "/api/v1/scheduler"), ("POST", "/master/api/v1/scheduler?x=1"), ("POST", "/api/v1"),
            ("GET", "/v2/events"), ("GET", "/corral/v1/events?follow=true"),
        ):  # fmt: skip
            async with http.request(method, second.url + path, allow_redirects=False) as answer:
                assert (answer.status, answer.headers["Location"]) == (307, place + path)
        for path in ("/redirect", "/master/redirect"):
            for one in (first, second):
                async with http.get(one.url + path, allow_redirects=False) as answer:
                    assert (answer.status, answer.headers["Location"]) == (307, place)


async def test_a_request_that_was_passed_on_is_not_passed_on_again(http: aiohttp.ClientSession) -> None:
    headers = {"Corral-Forwarded": "http://other:1"}
    async with masters(2) as (_, second), http.get(f"{second.url}/v2/apps", headers=headers) as answer:
        assert answer.status == 503
        assert answer.headers["Retry-After"] == "1"


async def test_two_followers_that_take_each_other_for_the_leader_answer_at_once(http: aiohttp.ClientSession) -> None:
    """Whatever they believe, there is no loop, neither of requests nor of redirects that hold a connection."""
    async with masters(3) as (first, second, third):
        for one, other in ((second, third), (third, second)):
            one.reign.url = lambda other=other: other.url  # type: ignore[method-assign,misc]
        async with asyncio.timeout(2.0):
            async with http.get(f"{second.url}/v2/apps") as answer:
                assert answer.status == 503
                assert third.url in (await answer.json())["error"]["message"]
                assert second.url in (await answer.json())["error"]["message"]
        assert first.reign.serves


async def test_a_write_is_taken_soon_after_the_leader_has_gone_silent(http: aiohttp.ClientSession) -> None:
    async with masters(3) as (first, second, third):
        async with http.post(f"{second.url}/v2/apps", json=APP) as answer:
            assert answer.status == 201
        first.freeze()
        statuses = []
        async with asyncio.timeout(TTL_S + 3.0):
            while 201 not in statuses:
                async with http.post(f"{second.url}/v2/apps", json={**APP, "id": "/next"}) as answer:
                    statuses.append(answer.status)
                await asyncio.sleep(0.05)
        assert set(statuses) <= {201, 503, 504}
        assert {second.reign.serves, third.reign.serves} == {True, False}
        async with http.get(f"{second.url}/v2/apps") as answer:
            assert [app["id"] for app in (await answer.json())["apps"]] == ["/next", "/web"]
        assert await first.wake() == LEADERSHIP_LOST


async def test_agents_find_the_leader_and_the_next_one_and_obey_only_the_newest_epoch() -> None:
    async with masters(2) as (first, second):
        random = Random(1)
        link = Link([second.url, first.url], random)
        config = AgentConfig(hostname="n", resources=parse_resources("cpus:1;mem:64"), work_dir="/nowhere")
        core = AgentCore(config, random)
        loop = Loop(core, AgentShell({}, link), MemoryStore(), prefix="agent/")
        link.tell = loop.tell
        work = [asyncio.create_task(loop.run()), asyncio.create_task(link.run())]
        try:
            await until(lambda: core.state.registered)
            id, epoch = core.state.identity.agent_id, core.state.identity.epoch
            await first.stop()
            await until(lambda: core.state.identity.epoch > epoch and core.state.registered)
            assert core.state.identity.agent_id == id
            assert second.part is not None
            master: Any = second.part.loop.core
            assert list(master.state.agents) == [id]
        finally:
            for task in work:
                task.cancel()
            await asyncio.wait(work)


async def test_a_framework_elsewhere_follows_the_leadership_with_its_id() -> None:
    async with masters(2) as (first, second):
        transport = HttpTransport(second.url, first.url)
        info = FrameworkInfo(user="u", name="far", failover_timeout_s=60.0)
        await transport.call(calls.Subscribe(info=info))
        subscribed = await anext(transport.events())
        assert isinstance(subscribed, events.Subscribed)
        await first.stop()
        again = calls.Subscribe(info=msgspec.structs.replace(info, id=subscribed.framework_id))
        async with asyncio.timeout(8.0):
            while True:
                try:
                    await transport.call(again)
                    break
                except Unavailable:
                    await asyncio.sleep(0.05)
        found = await anext(transport.events())
        assert isinstance(found, events.Subscribed)
        assert found.framework_id == subscribed.framework_id
        await transport.close()


async def test_who_waits_for_a_leader_is_answered_when_there_is_one(http: aiohttp.ClientSession) -> None:
    """As agents do: the new leader keeps those who waited at it, the other followers send theirs on."""
    async with masters(3) as (first, second, third):
        headers = {"Prefer": "wait=10", "Corral-Lost": first.url}

        async def dial(one: Master) -> tuple[int, str]:
            async with http.get(one.url + "/corral/v1/masters2", headers=headers, allow_redirects=False) as answer:
                return answer.status, answer.headers.get("Location", "")

        waits = [asyncio.create_task(dial(one)) for one in (second, third)]
        await asyncio.sleep(0.1)
        assert not any(task.done() for task in waits)
        await first.stop()
        answers = await asyncio.gather(*waits)
        assert {status for status, _ in answers} <= {404, 503}
        assert 404 in {status for status, _ in answers}
