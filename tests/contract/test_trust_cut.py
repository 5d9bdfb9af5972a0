"""Whoever is not trusted any more is cut off in the middle of what they do."""

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest

from corral.lib.errors import CorralError, Forbidden, Unavailable
from corral.net.auth import Caller, CallerKind, Knock
from corral.net.routes import Request, Response, Route, Stream, json_response
from corral.net.server import Server, bind


class Doorman:
    """Lets in whoever is not in `refused`."""

    def __init__(self) -> None:
        self.refused: dict[str, CorralError] = {}
        self.asked = 0

    async def admit(self, knock: Knock) -> Caller:
        self.asked += 1
        name = knock.headers.get("authorization", "")
        if name in self.refused:
            raise self.refused[name]
        return Caller(kind=CallerKind.TOKEN, name=name)

    def challenge(self, path: str) -> str:
        return "Basic"


async def follow(request: Request) -> Stream:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"begun\n"
        await asyncio.Event().wait()

    return Stream(chunks=chunks(), content_type="text/plain")


async def answer(request: Request) -> Response:
    return json_response({})


@pytest.fixture
async def doorman() -> Doorman:
    return Doorman()


@pytest.fixture
async def server(doorman: Doorman) -> AsyncIterator[Server]:
    routes = [
        Route(method="GET", path="/follow", handler=follow),
        Route(method="GET", path="/once", handler=answer),
    ]
    made = Server(routes, bind("127.0.0.1", 0), gate=doorman)
    await made.start()
    yield made
    await made.close()


async def test_only_those_who_are_refused_now_lose_their_streams(server: Server, doorman: Doorman) -> None:
    async with aiohttp.ClientSession(server.url) as session:
        streams = {name: await session.get("/follow", headers={"Authorization": name}) for name in ("good", "bad")}
        for stream in streams.values():
            assert await stream.content.readline() == b"begun\n"
        doorman.refused["bad"] = Forbidden("revoked")
        await server.recheck()
        with pytest.raises(aiohttp.ClientError):
            await asyncio.wait_for(streams["bad"].content.readline(), 5)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(streams["good"].content.readline(), 0.2)
        streams["good"].close()


async def test_nobody_is_cut_off_because_nobody_can_say(server: Server, doorman: Doorman) -> None:
    async with aiohttp.ClientSession(server.url) as session:
        stream = await session.get("/follow", headers={"Authorization": "good"})
        assert await stream.content.readline() == b"begun\n"
        doorman.refused["good"] = Unavailable("the store is away")
        await server.recheck()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(stream.content.readline(), 0.2)
        stream.close()


async def test_what_has_ended_is_asked_after_no_more(server: Server, doorman: Doorman) -> None:
    async with aiohttp.ClientSession(server.url) as session:
        for _ in range(3):
            async with session.get("/once", headers={"Authorization": "good"}) as got:
                assert got.status == 200
        before = doorman.asked
        await server.recheck()
        assert doorman.asked == before
