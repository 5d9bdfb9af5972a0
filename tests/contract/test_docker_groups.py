"""Containers of a group that share a network, on a real Engine and on the fake one."""

import asyncio
import contextlib
import os
import socket
import subprocess
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from corral.docker.containers import container_name, holder_body
from corral.docker.engine import DockerEngine, Engine, Json
from corral.docker.fake_engine import FakeEngine
from corral.docker.pause import make_program
from corral.docker.runtime import DockerRuntime
from corral.lib.errors import CorralError, Failed, NotFound, Unavailable
from corral.model.container import DockerInfo, NetworkMode, PortMapping
from corral.model.execution import Execution, SharedNetwork
from corral.model.ids import ContainerId, FrameworkId, TaskId

REAL = pytest.param("docker", marks=pytest.mark.docker)


class World:
    """An Engine that outlives the agents looking at it."""

    def __init__(self, root: Path, engine: Engine | None, url: str) -> None:
        self.root = root
        self.said: list[str] = []
        self._fake = engine
        self._url = url
        self._started: list[str] = []
        self.runtime = self._make()

    def _make(self) -> DockerRuntime:
        engine = self._fake or DockerEngine(self._url)
        return DockerRuntime(engine, owner=str(self.root), say=self.said.append, patience_s=3.0)

    async def restart(self) -> DockerRuntime:
        await self.runtime.close()
        self.runtime = self._make()
        return self.runtime

    def execution(self, shared: SharedNetwork | None, script: str = "sleep 600", **changes: object) -> Execution:
        container_id = ContainerId(str(uuid.uuid4()))
        self._started.append(container_id)
        sandbox = self.root / container_id
        sandbox.mkdir()
        wanted: dict[str, object] = {
            "container_id": container_id, "task_id": TaskId(container_id[:8]), "framework_id": FrameworkId("f"),
            "sandbox": str(sandbox), "argv": ("/bin/sh", "-c", script),
            "docker": DockerInfo(image="busybox:latest"), "shared": shared,
        }  # fmt: skip
        return Execution(**{**wanted, **changes})  # type: ignore[arg-type]

    async def holds(self, shared: SharedNetwork) -> bool:
        with contextlib.suppress(NotFound):
            return bool((await self.runtime.engine.inspect(container_name(shared.id)))["State"]["Running"])
        return False

    async def end(self, *executions: Execution) -> None:
        for execution in executions:
            await self.runtime.kill(execution.container_id, 0.0)
            await self.runtime.wait(execution.container_id)
            await self.runtime.remove(execution.container_id)

    async def until_let_go(self, shared: SharedNetwork) -> None:
        async with asyncio.timeout(20):
            while await self.holds(shared):
                await asyncio.sleep(0.02)

    async def close(self) -> None:
        for container_id in self._started:
            with contextlib.suppress(CorralError):
                await self.runtime.kill(container_id, 0.0)
                await self.runtime.wait(container_id)
            with contextlib.suppress(CorralError):
                await self.runtime.remove(container_id)
        await self.until_gone()
        await self.runtime.close()

    async def until_gone(self) -> None:
        async with asyncio.timeout(20):
            while await self.runtime.engine.list_labelled("corral.agent", str(self.root)):
                await asyncio.sleep(0.02)


@pytest.fixture(params=["fake", REAL])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    real = request.param == "docker"
    made = World(
        tmp_path, None if real else FakeEngine(), str(request.getfixturevalue("engine_socket")) if real else ""
    )
    yield made
    await made.close()


@pytest.fixture
async def real(tmp_path: Path, engine_socket: str) -> AsyncIterator[World]:
    made = World(tmp_path, None, engine_socket)
    yield made
    await made.close()


def network(*mappings: PortMapping, **changes: object) -> SharedNetwork:
    wanted = {"id": ContainerId(str(uuid.uuid4())), "networks": ("bridge",), "port_mappings": mappings}
    return SharedNetwork(**{**wanted, **changes})  # type: ignore[arg-type]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("0.0.0.0", 0))
        return int(probe.getsockname()[1])


async def test_containers_of_a_group_have_one_address_which_goes_with_the_last_of_them(world: World) -> None:
    shared = network()
    first, second = world.execution(shared), world.execution(shared)
    one, two = await asyncio.gather(*map(world.runtime.start, (first, second)))
    assert one.ip is not None
    assert one.ip == two.ip
    await world.end(first)
    assert await world.holds(shared), "it is not the first one's"
    await world.end(second)
    await world.until_let_go(shared)


async def test_a_container_has_an_address_in_each_of_its_networks(world: World) -> None:
    engine = world.runtime.engine
    names = [f"corral-{uuid.uuid4().hex[:12]}" for _ in range(2)]
    if isinstance(engine, FakeEngine):
        engine.networks |= set(names)
    else:
        for name in names:
            await engine._call("POST", "networks/create", 10.0, None, {"Name": name})  # type: ignore[attr-defined]
    try:
        alone = world.execution(None, docker=DockerInfo(image="busybox:latest", network=NetworkMode.USER),
                                network=names[0], more_networks=(names[1],))  # fmt: skip
        member = world.execution(network(networks=tuple(names)))
        for execution in (alone, member):
            launched = await world.runtime.start(execution)
            assert launched.ip is not None
            ((other, address),) = launched.more_ips
            assert other == names[1]
            assert address != launched.ip
        await world.end(alone, member)
    finally:
        await world.until_gone()
        if isinstance(engine, DockerEngine):
            for name in names:
                await engine._call("DELETE", f"networks/{name}", 10.0)


async def test_another_group_has_another_address(world: World) -> None:
    first, second = world.execution(network()), world.execution(network())
    one, two = await asyncio.gather(*map(world.runtime.start, (first, second)))
    assert one.ip != two.ip


async def test_a_restarted_agent_finds_the_address_again_and_lets_the_network_go_in_the_end(world: World) -> None:
    shared = network()
    execution = world.execution(shared)
    launched = await world.runtime.start(execution)
    runtime = await world.restart()
    (found,) = await runtime.recover()
    assert found.launched is not None
    assert (found.container_id, found.launched.ip) == (execution.container_id, launched.ip)
    await world.end(execution)
    await world.until_let_go(shared)


async def test_a_network_that_nobody_is_left_in_goes_when_the_agent_comes_back(world: World) -> None:
    shared = network()
    execution = world.execution(shared)
    await world.runtime.start(execution)
    await world.runtime.close()
    world.runtime = world._make()
    await world.runtime.engine.remove(container_name(execution.container_id), force=True)
    assert list(await world.runtime.recover()) == []
    await world.until_let_go(shared)


async def test_containers_that_lose_their_network_are_ended_and_say_so(world: World) -> None:
    shared = network()
    stays = world.execution(network())
    members = [world.execution(shared), world.execution(shared)]
    for execution in (*members, stays):
        await world.runtime.start(execution)
    await world.runtime.engine.remove(container_name(shared.id), force=True)
    for execution in members:
        exit = await asyncio.wait_for(world.runtime.wait(execution.container_id), 20)
        assert (exit.signal, exit.message) == (9, "the container that holds the network of its group has ended")
    assert any("network of its group" in words for words in world.said)
    assert world.runtime._runs[stays.container_id].has_ended() is False


async def test_a_network_lost_while_no_agent_looked_ends_what_is_left_in_it(world: World) -> None:
    shared = network()
    execution = world.execution(shared)
    await world.runtime.start(execution)
    await world.runtime.close()
    world.runtime = world._make()
    await world.runtime.engine.remove(container_name(shared.id), force=True)
    await world.runtime.recover()
    exit = await asyncio.wait_for(world.runtime.wait(execution.container_id), 20)
    assert "network of its group" in exit.message


async def test_what_has_ended_with_its_network_has_not_ended_for_it(world: World) -> None:
    shared = network()
    execution = world.execution(shared, "exit 7")
    await world.runtime.start(execution)
    assert (await world.runtime.wait(execution.container_id)).code == 7
    await world.runtime.close()
    world.runtime = world._make()
    await world.runtime.engine.remove(container_name(shared.id), force=True)
    (found,) = await world.runtime.recover()
    assert found.exit is not None
    assert (found.exit.code, found.exit.message) == (7, "")
    exit = await world.runtime.wait(execution.container_id)
    assert (exit.code, exit.message) == (7, "")


async def test_a_holder_that_was_never_started_goes_when_the_agent_comes_back(world: World) -> None:
    shared = network()
    execution = world.execution(network())
    await world.runtime.start(execution)  # so that the image is there
    await world.end(execution)
    await world.runtime.engine.create(container_name(shared.id), holder_body(shared, str(world.root)))
    await world.runtime.recover()
    await world.until_gone()


async def test_a_start_over_an_outage_finds_its_network_again(tmp_path: Path) -> None:
    engine = FakeEngine()
    world = World(tmp_path, engine, "")
    execution = world.execution(network())
    create, outages = engine.create, iter([True, False])

    async def go_away_once(name: str, body: Json) -> str:
        if name == container_name(execution.container_id) and next(outages, False):
            raise Unavailable("the Engine was restarted amid this")
        return await create(name, body)

    engine.create = go_away_once  # type: ignore[method-assign]
    assert (await world.runtime.start(execution)).ip is not None
    assert sum(call.startswith("create") for call in engine.calls) == 3, (
        "the holder, without and with its image, and it"
    )
    await world.close()


async def test_a_port_is_published_once_and_a_refused_group_leaves_nothing(world: World) -> None:
    port = free_port()
    there = world.execution(network(PortMapping(container_port=8080, host_port=port)))
    await world.runtime.start(there)
    shared = network(PortMapping(container_port=80, host_port=port))
    with pytest.raises(Failed, match=f"port {port} on this host is taken"):
        await world.runtime.start(world.execution(shared))
    await world.until_let_go(shared)
    assert [found.container_id for found in await world.runtime.recover()] == [there.container_id]


async def test_a_network_that_is_not_there_is_refused_by_name(world: World) -> None:
    with pytest.raises(Failed, match="network nowhere not found"):
        await world.runtime.start(world.execution(network(networks=("nowhere",))))


async def test_a_container_that_does_not_start_takes_its_network_along(world: World) -> None:
    shared = network()
    with pytest.raises(Failed, match="no-such-program"):
        await world.runtime.start(world.execution(shared, argv=("no-such-program",)))
    await world.until_let_go(shared)


async def test_a_container_starts_at_home_unless_its_image_says_where(world: World) -> None:
    elsewhere = world.execution(None)
    at_home = world.execution(None, at_home=True)
    for execution, directory in ((elsewhere, ""), (at_home, "/mnt/mesos/sandbox")):
        await world.runtime.start(execution)
        engine = world.runtime.engine
        if isinstance(engine, FakeEngine):
            body = engine._get(container_name(execution.container_id)).body
            assert body.get("WorkingDir", "") == directory
        else:
            inspected = await engine.inspect(container_name(execution.container_id))
            assert inspected["Config"]["WorkingDir"] == directory


async def test_an_image_that_says_where_is_left_to_it(tmp_path: Path) -> None:
    engine = FakeEngine()
    engine.directories["busybox:latest"] = "/srv"
    world = World(tmp_path, engine, "")
    execution = world.execution(None, at_home=True)
    await world.runtime.start(execution)
    assert "WorkingDir" not in engine._get(container_name(execution.container_id)).body
    await world.close()


@pytest.mark.docker
async def test_neighbours_reach_each_other_by_loopback_and_others_by_the_published_port(real: World) -> None:
    port = free_port()
    shared = network(PortMapping(container_port=8080, host_port=port), hostname="duo")
    server = real.execution(shared, "echo word > /tmp/index.html; exec httpd -f -p 8080 -h /tmp")
    client = real.execution(shared, "until wget -q -O - http://127.0.0.1:8080/; do usleep 50000; done; hostname")
    await real.runtime.start(server)
    await real.runtime.start(client)
    assert (await asyncio.wait_for(real.runtime.wait(client.container_id), 30)).code == 0
    assert (Path(client.sandbox) / "stdout").read_text() == "word\nduo\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.0\r\n\r\n")
    assert (await reader.read()).endswith(b"word\n")
    writer.close()


@pytest.mark.docker
async def test_a_neighbour_that_has_ended_takes_no_network_along(real: World) -> None:
    shared = network()
    first = real.execution(shared, "true")
    server = real.execution(shared, "echo here > /tmp/index.html; exec httpd -f -p 8080 -h /tmp")
    await real.runtime.start(first)
    launched = await real.runtime.start(server)
    await real.runtime.wait(first.container_id)
    await real.runtime.remove(first.container_id)
    assert launched.ip is not None
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection(launched.ip, 8080)
                break
            await asyncio.sleep(0.05)
    writer.write(b"GET / HTTP/1.0\r\n\r\n")
    assert (await reader.read()).endswith(b"here\n")
    writer.close()


def test_the_program_that_waits_runs_on_this_machine_and_ends_by_a_signal(tmp_path: Path) -> None:
    path = tmp_path / "hold"
    path.write_bytes(make_program(os.uname().machine))
    path.chmod(0o755)
    process = subprocess.Popen([path])
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.3)
    process.terminate()
    assert process.wait(10) == -15


def test_a_machine_without_such_a_program_is_told(tmp_path: Path) -> None:
    with pytest.raises(Failed, match=r"machine of type riscv64; use the host's network"):
        make_program("riscv64")
