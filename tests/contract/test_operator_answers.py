"""Long answers behind a real server: in pieces, compressed, to readers that read, that do not, or ask for the head."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator

import aiohttp
import pytest

from corral.net import answers
from corral.net.answers import Shared, Text, accepts_gzip, answer_pieces, dressed, prefers_json
from corral.net.routes import Request, Response, Route, Stream
from corral.net.server import Server, bind

ROWS = 40_000


def rows() -> Iterator[bytes]:
    """Two megabytes of JSON in many pieces, and places to pause."""
    yield b"["
    for n in range(ROWS):
        yield b"%s%s" % (b"," if n else b"", json.dumps({"n": n, "text": "x" * 30}).encode())
        if n % 100 == 0:
            yield b""
    yield b"]"


async def show(request: Request) -> Response | Stream:
    return await answer_pieces(rows() if request.first("size") != "small" else iter([b"[", b"1]"]))


@pytest.fixture
async def url() -> AsyncIterator[str]:
    server = Server([Route(method="GET", path="/rows", handler=dressed(show))], bind("127.0.0.1", 0))
    await server.start()
    yield server.url
    await server.close()


async def test_all_pieces_arrive_as_one_text(url: str) -> None:
    async with aiohttp.ClientSession() as client:
        async with client.get(f"{url}/rows") as answer:
            assert answer.headers["Content-Encoding"] == "gzip", "this client takes it"
            assert len(await answer.json()) == ROWS
        async with client.get(f"{url}/rows", headers={"Accept-Encoding": "identity"}) as answer:
            assert answer.headers["Transfer-Encoding"] == "chunked"
            assert (await answer.json())[-1]["n"] == ROWS - 1
        async with client.get(f"{url}/rows?size=small") as answer:
            assert (answer.headers["Content-Length"], await answer.text()) == ("3", "[1]")


async def test_who_asks_for_the_head_gets_no_more(url: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    writer.write(b"HEAD /rows HTTP/1.1\r\nHost: x\r\n\r\n")
    writer.write(b"GET /rows?size=small HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    found = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    head, second = found.split(b"HTTP/1.1 200 OK")[1:]
    assert b"application/json" in head
    assert head.endswith(b"\r\n\r\n")
    assert second.endswith(b"\r\n\r\n[1]")


async def test_the_loop_has_its_turn_while_a_long_text_is_made(url: str) -> None:
    turns: list[float] = []

    async def tick() -> None:
        while True:
            turns.append(time.thread_time())
            await asyncio.sleep(0)

    ticking = asyncio.create_task(tick())
    text = Text(rows())
    before = time.thread_time()
    await text.finish()
    spent = time.thread_time() - before
    ticking.cancel()
    assert spent > 0.02, "making it takes so long that it must pause"
    assert len([at for at in turns if at > before]) >= spent / 0.02
    assert json.loads(b"".join(text.parts))[-1]["n"] == ROWS - 1


async def test_a_reader_that_takes_nothing_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "PATIENCE_S", 0.1)
    megabyte, given = b"x" * (1 << 20), 0

    def much() -> Iterator[bytes]:
        nonlocal given
        for _ in range(200):
            given += 1
            yield megabyte

    async def show_much(request: Request) -> Response | Stream:
        return await answer_pieces(much())

    server = Server([Route(method="GET", path="/much", handler=show_much)], bind("127.0.0.1", 0))
    await server.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1 << 10)
    writer.write(b"GET /much HTTP/1.1\r\nHost: x\r\n\r\n")
    await asyncio.sleep(1.0)
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await reader.readexactly(200 << 20)
    assert given < 200
    writer.close()
    await server.close()


async def test_a_text_that_cannot_be_made_says_so_to_each_reader() -> None:
    def broken() -> Iterator[bytes]:
        yield b"["
        raise ZeroDivisionError

    text = Text(broken())
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            await text.answer()

    async def find() -> bool:
        return bool(tries)

    tries: list[bool] = []
    shared = Shared()
    with pytest.raises(ZeroDivisionError):
        await shared.answer(find, lambda found: broken())
    tries.append(True)
    answer = await shared.answer(find, lambda found: iter([b"[]"]))
    assert await read(answer) == b"[]", "whoever asks next is none the worse"


async def read(answer: Response | Stream) -> bytes:
    return answer.body if isinstance(answer, Response) else b"".join([chunk async for chunk in answer.chunks])


async def test_who_asks_while_a_view_is_made_shares_the_next_one() -> None:
    made: list[int] = []
    moment = 0

    async def find() -> int:
        await asyncio.sleep(0)
        return moment

    def write(found: int) -> Iterator[bytes]:
        made.append(found)
        yield b"%d" % found
        for _ in range(4):
            yield b"x" * 100_000

    shared = Shared()
    first = await shared.answer(find, write)
    assert isinstance(first, Stream)
    moment = 1
    later = await asyncio.gather(*(shared.answer(find, write) for _ in range(10)))
    bodies = [await read(answer) for answer in later]
    assert {body[:1] for body in bodies} == {b"1"}, "nobody is shown what was before he asked"
    assert len(made) <= 3
    assert (await read(first))[:1] == b"0"
    moment = 2
    assert (await read(await shared.answer(find, write)))[:1] == b"2"


@pytest.mark.parametrize(
    ("header", "taken"),
    [
        ("gzip", True), ("deflate, gzip;q=0.5", True), ("*", True), ("x-gzip", True), ("GZIP", True), ("", False),
        ("identity", False), ("gzip;q=0", False), ("gzip; q=0.00", False), ("gzip;q=1.0", True),
    ],
)  # fmt: skip
def test_gzip_is_sent_to_those_who_take_it(header: str, taken: bool) -> None:
    assert accepts_gzip(header) is taken


@pytest.mark.parametrize(
    ("header", "json_wanted"),
    [
        (None, False), ("", False), ("*/*", False), ("text/plain", False), ("application/json", True),
        ("application/json;q=0.9, text/plain", True), ("text/plain, application/json", False),
        ("application/openmetrics-text, application/json", False), ("text/html, application/json", True),
    ],
)  # fmt: skip
def test_numbers_are_json_for_those_who_name_it_first(header: str | None, json_wanted: bool) -> None:
    assert prefers_json(header) is json_wanted
