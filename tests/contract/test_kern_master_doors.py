"""What a master serves over HTTP: how long its work took, and queries of tasks."""

from collections.abc import AsyncIterator
from random import Random

import aiohttp
import pytest
from agent_master import running

from corral.master.core import MasterCore
from corral.master.routes import routes
from corral.master.shell import MasterShell
from corral.master.spec import MasterConfig
from corral.net.server import Server, bind
from corral.runtime.loop import Loop
from corral.store.memory import MemoryStore


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    shell = MasterShell()
    loop = Loop(MasterCore(MasterConfig(compiled="no"), Random(1)), shell, MemoryStore(), prefix="master/", check=True)
    shell.attach(loop)
    server = Server(routes(loop, shell), bind("127.0.0.1", 0))
    await server.start()
    async with running(loop.run()), aiohttp.ClientSession(server.url) as session:
        await loop.ready.wait()
        yield session
        loop.stop()
    await server.close()


async def test_what_a_run_and_a_transaction_took_is_told(client: aiohttp.ClientSession) -> None:
    async with client.put("/corral/v1/roles/a", json={"weight": 2}) as answer:
        assert answer.status == 200
    async with client.get("/metrics/snapshot") as answer:
        found = await answer.json()
    assert found["registrar/state_store_ms/count"] >= 1
    assert 0 < found["registrar/state_store_ms/min"] <= found["registrar/state_store_ms/p9999"]
    assert found["allocator/mesos/allocation_run_ms/count"] == 0, "nobody has asked for anything"


@pytest.mark.parametrize(
    "query",
    [
        "limit=99999999999999999999",
        "offset=99999999999999999999",
        "limit=x",
        "order=up",
        "limit=-1",
        "offset=-1",
        "limit=1.5",
    ],
)
async def test_a_query_of_tasks_that_cannot_be_meant_is_refused(client: aiohttp.ClientSession, query: str) -> None:
    async with client.get(f"/tasks?{query}") as answer:
        assert answer.status == 400
        assert query.partition("=")[0] in await answer.text()


async def test_the_largest_numbers_that_are_taken_show_nothing(client: aiohttp.ClientSession) -> None:
    most = (1 << 62) - 1
    async with client.get(f"/tasks?limit={most}&offset={most}") as answer:
        assert (answer.status, await answer.json()) == (200, {"tasks": []})
