"""A balancer over a real HAProxy: what changes without a reload, what a reload loses (nothing), what is refused."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from tests.own_ports import free_ports

from corral.discovery.balancer import Balancer, Choice, Told
from corral.discovery.haproxy import Settings
from corral.discovery.haproxy_process import HaproxyProcess
from corral.discovery.registry import App, Endpoint, Instance, Port
from haproxy_server import require_haproxy


class Source:
    """A registry that a test writes."""

    connection = "lb#1"

    def __init__(self) -> None:
        self.apps: dict[str, App] = {}
        self.posted: list[tuple[str, Any]] = []

    async def post(self, path: str, body: Any) -> None:
        self.posted.append((path, body))

    def measured(self) -> list[Any]:
        return [body for path, body in self.posted if path.endswith("traffic")]

    def queue(self, app_id: str) -> float | None:
        """What was told last."""
        told = self.measured()
        return told[-1]["queues"].get(app_id) if told else None

    def drained(self) -> set[str]:
        return {i for path, body in self.posted if path.endswith("drained") for i in body["instances"]}


class Servers:
    """Instances that answer with their name; `hold` lets requests for /slow wait."""

    def __init__(self) -> None:
        self.runners: dict[str, web.AppRunner] = {}
        self.ports: dict[str, int] = {}
        self.hold = asyncio.Event()

    async def start(self, name: str) -> int:
        async def answer(request: web.Request) -> web.Response:
            if request.path == "/slow":
                await self.hold.wait()
            return web.Response(text=name)

        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", answer)
        runner = self.runners[name] = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.ports[name] = runner.addresses[0][1]
        return self.ports[name]

    async def stop(self, name: str) -> None:
        await self.runners.pop(name).cleanup()


class World:
    def __init__(
        self, balancer: Balancer, source: Source, servers: Servers, process: HaproxyProcess, http: int
    ) -> None:
        self.balancer, self.source, self.servers, self.process, self.http = balancer, source, servers, process, http
        self.ports: dict[str, int] = {}

    def register(
        self, app_id: str, *names: str, leaving: tuple[str, ...] = (), labels: dict[str, str] | None = None
    ) -> None:
        port = self.ports.setdefault(app_id, free_ports(1)[0])
        instances = tuple(
            Instance(
                id=name,
                endpoints=(Endpoint(address="127.0.0.1", port=self.servers.ports[name]),),
                state="Running",
                ready=name not in leaving,
                draining=name in leaving,
            )
            for name in (*names, *leaving)
        )
        host = {"HAPROXY_GROUP": "external", "HAPROXY_0_VHOST": f"{app_id.strip('/')}.test"}
        self.source.apps[app_id] = App(
            id=app_id, ports=(Port(index=0, service_port=port),), labels=host | (labels or {}), instances=instances
        )
        self.balancer.changed()

    async def until(self, found: Callable[[], Any]) -> None:
        async with asyncio.timeout(15):
            while not found():
                await asyncio.sleep(0.02)

    async def settled(self, app_id: str, *names: str) -> None:
        await self.until(lambda: self.up(app_id) == set(names))

    def up(self, app_id: str) -> set[str]:
        view = self.balancer.view()
        return {s["instance"] for each in view["services"] if each["app"] == app_id for s in each["servers"] if s["up"]}


@asynccontextmanager
async def balanced(directory: Path, told: Told | None = None) -> AsyncIterator[World]:
    source, servers, http = Source(), Servers(), free_ports(1)[0]
    process = HaproxyProcess(directory, require_haproxy())
    settings = Settings(socket=process.socket, http=f"127.0.0.1:{http}", most_connections=200, threads=1)
    balancer = Balancer(source, process, settings, Choice(bind="127.0.0.1"), told or Told())
    work = asyncio.ensure_future(balancer.run())
    try:
        yield World(balancer, source, servers, process, http)
    finally:
        work.cancel()
        await asyncio.wait([work])
        servers.hold.set()
        await process.stop()
        for name in list(servers.runners):
            await servers.stop(name)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with balanced(tmp_path) as made:
        yield made


async def get(world: World, app: str = "web", path: str = "/") -> tuple[int, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{world.http}{path}", headers={"Host": f"{app}.test"}) as answer,
    ):
        return answer.status, await answer.text()


class Load:
    """Requests without a pause on connections that are kept; every one that fails is remembered."""

    def __init__(self, world: World, clients: int = 3) -> None:
        self.answers: list[str] = []
        self.failures: list[str] = []
        self._tasks = [asyncio.ensure_future(self._run(world)) for _ in range(clients)]

    async def _run(self, world: World) -> None:
        async with aiohttp.ClientSession() as session:
            while True:
                try:
                    async with session.post(f"http://127.0.0.1:{world.http}/", headers={"Host": "web.test"}) as answer:
                        text = await answer.text()
                        (self.answers if answer.status == 200 else self.failures).append(f"{answer.status} {text}")
                except aiohttp.ClientError as error:
                    self.failures.append(repr(error))
                await asyncio.sleep(0.002)

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)


async def test_changes_that_fit_the_slots_need_no_reload_and_lose_no_request(world: World) -> None:
    for name in ("a", "b", "c"):
        await world.servers.start(name)
    world.register("/web", "a", "b")
    await world.settled("/web", "a", "b")
    load = Load(world)
    for leaving, staying in (("a", ("b", "c")), ("b", ("c", "d"))):
        await world.servers.start("d") if "d" in staying else None
        world.register("/web", *staying, leaving=(leaving,))
        await world.until(lambda leaving=leaving: leaving in world.source.drained())
        await world.servers.stop(leaving)
        world.register("/web", *staying)
        await world.settled("/web", *staying)
    await asyncio.sleep(0.2)
    await load.end()
    assert load.failures == []
    assert {"200 a", "200 d"} <= set(load.answers)
    assert (world.process.reloads, world.balancer.error) == (0, "")


async def test_a_reload_loses_no_request_and_the_old_process_gets_nothing_to_what_leaves(world: World) -> None:
    for name in ("a", "b", "x"):
        await world.servers.start(name)
    world.register("/web", "a", "b")
    await world.settled("/web", "a", "b")
    load = Load(world)
    world.register("/other", "x")
    world.register("/web", "b", leaving=("a",))
    await world.settled("/other", "x")
    await world.until(lambda: "a" in world.source.drained())
    await world.servers.stop("a")
    await asyncio.sleep(0.3)
    await load.end()
    assert load.failures == []
    assert world.process.reloads == 1
    assert await get(world, "other") == (200, "x")


async def test_an_instance_is_drained_only_when_its_last_request_is_answered(world: World) -> None:
    await world.servers.start("a")
    await world.servers.start("b")
    world.register("/web", "a")
    await world.settled("/web", "a")
    slow = asyncio.ensure_future(get(world, path="/slow"))
    await asyncio.sleep(0.2)
    world.register("/web", "b", leaving=("a",))
    await world.settled("/web", "b")
    assert await get(world) == (200, "b")
    await asyncio.sleep(0.4)
    assert world.source.drained() == set()
    world.servers.hold.set()
    assert await slow == (200, "a")
    await world.until(lambda: world.source.drained() == {"a"})


async def test_what_haproxy_refuses_is_left_out_with_the_reason_and_comes_when_it_is_put_right(world: World) -> None:
    await world.servers.start("a")
    await world.servers.start("x")
    world.register("/web", "a")
    world.register("/bad", "x", labels={"HAPROXY_0_BACKEND_HEAD": "backend {backend}\n  mode http\n  nonsense here"})
    await world.settled("/web", "a")
    assert "nonsense" in world.balancer.view()["refused"]["/bad"]
    assert await get(world) == (200, "a")
    assert (await get(world, "bad"))[0] == 503
    world.register("/bad", "x")
    await world.settled("/bad", "x")
    assert world.balancer.view()["refused"] == {}
    assert await get(world, "bad") == (200, "x")


async def test_the_next_life_takes_over_the_running_haproxy(world: World, tmp_path: Path) -> None:
    await world.servers.start("a")
    world.register("/web", "a")
    await world.settled("/web", "a")
    again = HaproxyProcess(tmp_path, require_haproxy())
    assert await again.find_running()
    settings = Settings(socket=again.socket, http=f"127.0.0.1:{world.http}", most_connections=200, threads=1)
    second = Balancer(world.source, again, settings, Choice(bind="127.0.0.1"))
    await second.update()
    assert again.reloads == 1
    assert await get(world) == (200, "a")


async def test_traffic_is_measured_by_app(world: World) -> None:
    await world.servers.start("a")
    world.register("/web", "a")
    await world.settled("/web", "a")
    for _ in range(20):
        await get(world)
    await world.until(lambda: world.balancer.traffic.get("/web", 0) > 1)
    await world.until(lambda: any(path.endswith("traffic") for path, _ in world.source.posted))


async def test_what_waits_in_the_queue_of_an_app_is_told(world: World) -> None:
    await world.servers.start("a")
    server = "  server {serverName} {host}:{port} weight {weight}{otherOptions} maxconn 1"
    world.register("/web", "a", labels={"HAPROXY_0_BACKEND_SERVER_OPTIONS": server})
    await world.settled("/web", "a")
    asked = [asyncio.ensure_future(get(world, path="/slow")) for _ in range(4)]
    await world.until(lambda: world.source.queue("/web") == 3)
    world.servers.hold.set()
    assert await asyncio.gather(*asked) == [(200, "a")] * 4
    await world.until(lambda: world.source.queue("/web") == 0)


async def test_what_is_not_to_be_told_is_measured_and_kept(tmp_path: Path) -> None:
    async with balanced(tmp_path, Told(queue=False)) as world:
        await world.servers.start("a")
        world.register("/web", "a")
        await world.settled("/web", "a")
        await world.until(lambda: "/web" in world.balancer.queues)
        await world.until(lambda: world.source.measured())
        assert world.source.measured()[-1]["queues"] == {}
        assert "/web" in world.source.measured()[-1]["apps"]


async def test_a_configuration_that_cannot_be_started_leaves_the_old_one_at_work(world: World) -> None:
    await world.servers.start("a")
    world.register("/web", "a")
    await world.settled("/web", "a")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        world.ports["/late"] = taken.getsockname()[1]
        world.register("/late", "a")
        await world.until(lambda: "old one serves" in world.balancer.error)
        assert await get(world) == (200, "a")
    await world.settled("/late", "a")
    assert world.balancer.error == ""
