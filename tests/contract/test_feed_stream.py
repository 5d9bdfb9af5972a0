"""A feed behind a real server: readers that read, readers that do not, readers that leave."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from corral.frameworks.services.routes import routes
from corral.net.routes import Request, Response, Route, Stream
from corral.net.server import Server, bind
from corral.sdk.feed import Feed

ACCEPT = {"accept": "text/event-stream"}


async def ask_nobody(command: Any) -> Any:
    raise AssertionError("listening asks the core nothing")


def events_route(feed: Feed) -> Route:
    (route,) = [r for r in routes(ask_nobody, feed) if r.path == "/v2/events"]
    return route


async def listen(feed: Feed, headers: dict[str, str] | None = None, **query: list[str]) -> AsyncIterator[bytes]:
    request = Request(method="GET", path="/v2/events", query=query, headers={**ACCEPT, **(headers or {})}, peer="::1")
    answer = await events_route(feed).handler(request)
    assert isinstance(answer, Stream)
    return answer.chunks


async def test_a_request_without_the_header_is_405() -> None:
    answer = await events_route(Feed()).handler(Request(method="GET", path="/v2/events"))
    assert isinstance(answer, Response)
    assert (answer.status, answer.headers["Allow"]) == (405, "GET")


async def test_what_is_not_wanted_still_opens_the_stream() -> None:
    feed = Feed()
    chunks = await listen(feed, event_type=["deployment_info,api_post_event"])
    assert await anext(chunks) == b":\n\n"
    feed.publish("status_update_event", {})
    feed.publish("api_post_event", {"uri": "/v2/apps"})
    assert b"event: api_post_event" in await anext(chunks)
    await chunks.aclose()  # type: ignore[attr-defined]


async def test_one_who_comes_back_too_late_is_told_before_anything_else() -> None:
    feed = Feed()
    chunks = await listen(feed, {"last-event-id": "1-1"})
    assert b"no longer kept" in await anext(chunks)
    assert b"event: event_stream_attached" in await anext(chunks)
    await chunks.aclose()  # type: ignore[attr-defined]


async def test_a_slow_listener_is_told_so_and_let_go() -> None:
    feed = Feed(patience_s=0.0)
    chunks = await listen(feed)
    assert b"event_stream_attached" in await anext(chunks)
    for number in range(1100):
        feed.publish("number", {"n": number})
    rest = [chunk async for chunk in chunks]
    assert rest == [b": too slow: too much waits to be sent; come back with Last-Event-ID\n\n"]


@pytest.fixture
async def door() -> AsyncIterator[tuple[Server, list[bool]]]:
    closed: list[bool] = []

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 100_000

    async def handler(request: Request) -> Stream:
        return Stream(chunks=endless(), patience_s=0.2, close=lambda: closed.append(True))

    server = Server([Route(method="GET", path="/endless", handler=handler)], bind("127.0.0.1", 0))
    await server.start()
    yield server, closed
    await server.close()


def _read_out(client: socket.socket) -> None:
    """Read to the end, beside the loop that the server closes the connection on."""
    with contextlib.suppress(ConnectionResetError):
        while client.recv(1 << 20):
            pass


async def test_a_client_that_never_reads_is_cut_off(door: tuple[Server, list[bool]]) -> None:
    server, closed = door
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
        end = time.monotonic() + 10
        while not closed and time.monotonic() < end:
            await asyncio.sleep(0.05)
        assert closed == [True]
        client.settimeout(5)
        await asyncio.to_thread(_read_out, client)
