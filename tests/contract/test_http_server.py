"""The HTTP server against real sockets: bounded bodies, broken clients, streams, dialect errors."""

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator

import aiohttp
import pytest

from corral.lib.errors import CorralError, Invalid, NotFound
from corral.net.routes import Request, Response, Route, Stream, json_response
from corral.net.server import Server, bind


class Door:
    """A small front door that remembers what it saw."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()
        self.seen: list[Request] = []

    async def echo(self, request: Request) -> Response:
        self.seen.append(request)
        return json_response({"params": request.params, "size": len(request.body), "q": request.query})

    async def fail(self, request: Request) -> Response:
        raise NotFound("no such thing; look elsewhere")

    async def bug(self, request: Request) -> Response:
        raise ZeroDivisionError("secret detail")

    async def count(self, request: Request) -> Stream:
        async def chunks() -> AsyncIterator[bytes]:
            number = 0
            while True:
                yield b"%d\n" % number
                number += 1
                await asyncio.sleep(0.01)

        return Stream(chunks=chunks(), content_type="text/plain", close=self.closed.set)

    async def silence(self, request: Request) -> Stream:
        async def chunks() -> AsyncIterator[bytes]:
            yield b"first"
            await asyncio.Event().wait()

        return Stream(chunks=chunks(), close=self.closed.set)

    @staticmethod
    def write_error(error: CorralError, request: Request) -> Response:
        return json_response({"message": error.message}, status=error.status)

    def routes(self) -> list[Route]:
        return [
            Route(method="GET", path="/v2/apps/{id*}/tasks", handler=self.echo, errors=self.write_error),
            Route(method="*", path="/v2/apps/{id*}", handler=self.echo, errors=self.write_error, most_bytes=1000),
            Route(
                method="POST", path="/jobs/{id*}/restart", handler=self.echo, exclusive=True, errors=self.write_error
            ),
            Route(method="GET", path="/jobs/{id*}/restart", handler=self.echo, exclusive=True),
            Route(method="DELETE", path="/jobs/{id*}", handler=self.echo),
            Route(method="GET", path="/fail", handler=self.fail, errors=self.write_error),
            Route(method="GET", path="/bug", handler=self.bug),
            Route(method="GET", path="/count", handler=self.count),
            Route(method="GET", path="/silence", handler=self.silence),
        ]


@pytest.fixture
async def door() -> Door:
    return Door()


@pytest.fixture
async def server(door: Door) -> AsyncIterator[Server]:
    server = Server(door.routes(), bind("127.0.0.1", 0))
    await server.start()
    yield server
    await server.close()


@pytest.fixture
async def client(server: Server) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(server.url) as session:
        yield session


async def test_greedy_parameters_take_as_little_as_the_rest_allows(client: aiohttp.ClientSession) -> None:
    async with client.get("/v2/apps//group/app/tasks?embed=a&embed=b") as answer:
        assert await answer.json() == {"params": {"id": "group/app"}, "size": 0, "q": {"embed": ["a", "b"]}}
    async with client.get("/v2/apps/group/app/") as answer:
        assert (await answer.json())["params"] == {"id": "group/app"}


async def test_an_error_speaks_the_dialect_of_its_route(client: aiohttp.ClientSession) -> None:
    async with client.get("/fail") as answer:
        assert answer.status == 404
        assert await answer.json() == {"message": "no such thing; look elsewhere"}


async def test_an_unknown_path_speaks_the_dialect_of_its_neighbours(client: aiohttp.ClientSession) -> None:
    async with client.get("/v2/nothing") as answer:
        assert answer.status == 404
        assert await answer.json() == {"message": "there is no /v2/nothing here"}


async def test_a_wrong_method_is_told_the_right_one(client: aiohttp.ClientSession) -> None:
    async with client.post("/fail") as answer:
        assert answer.status == 405
        assert answer.headers["Allow"] == "GET"
        assert await answer.json() == {"message": "/fail takes GET, not POST"}


async def test_what_an_exclusive_path_takes_no_greedier_one_gets(client: aiohttp.ClientSession) -> None:
    async with client.delete("/jobs/nightly/restart") as answer:
        assert (answer.status, answer.headers["Allow"]) == (405, "GET, POST")
        assert (await answer.json())["message"].startswith("/jobs/nightly/restart takes GET, POST")
    for method, status in (("POST", 200), ("GET", 200), ("HEAD", 200)):
        async with client.request(method, "/jobs/nightly/restart") as answer:
            assert answer.status == status
    async with client.delete("/jobs/nightly/other") as answer:
        assert (answer.status, (await answer.json())["params"]) == (200, {"id": "nightly/other"})


async def test_a_bug_shows_no_inner_text(client: aiohttp.ClientSession) -> None:
    async with client.get("/bug") as answer:
        assert answer.status == 500
        assert "secret" not in await answer.text()


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_the_bound_is_refused(client: aiohttp.ClientSession, door: Door, chunked: bool) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"x" * 100

    async with client.put("/v2/apps/a", data=pieces() if chunked else b"x" * 2000) as answer:
        assert answer.status == 413
        assert "1000" in (await answer.json())["message"]
    assert door.seen == []


async def test_a_truncated_body_reaches_no_handler(server: Server, door: Door) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"PUT /v2/apps/a HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nonly this")
    await writer.drain()
    writer.write_eof()
    await reader.read()
    writer.close()
    assert door.seen == []


@pytest.mark.parametrize("compressed", [False, True])
async def test_a_client_that_asks_before_it_sends_is_told_to_go_on(
    server: Server, door: Door, compressed: bool
) -> None:
    body = gzip.compress(b"x" * 900) if compressed else b"x" * 900
    encoding = b"Content-Encoding: gzip\r\n" if compressed else b""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    head = b"PUT /v2/apps/a HTTP/1.1\r\nHost: x\r\n%bExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
    writer.write(head % (encoding, len(body)))
    async with asyncio.timeout(5):
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body)
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    writer.close()
    assert [len(request.body) for request in door.seen] == [900]


async def test_a_client_that_asks_for_too_much_is_refused_before_it_sends(server: Server, door: Door) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"PUT /v2/apps/a HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2000\r\n\r\n")
    async with asyncio.timeout(5):
        assert (await reader.readline()).startswith(b"HTTP/1.1 413")
    writer.close()
    assert door.seen == []


_WORDS = b"many words " * 50
_BARE = zlib.compressobj(wbits=-15)
_PLAIN_DEFLATE = _BARE.compress(_WORDS) + _BARE.flush()


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(_WORDS, mtime=0)),
        ("X-GZIP", gzip.compress(_WORDS, mtime=0)),
        ("deflate", zlib.compress(_WORDS)),
        ("deflate", _PLAIN_DEFLATE),
        ("identity", _WORDS),
    ],
    ids=["gzip", "x-gzip", "deflate", "bare", "identity"],
)
async def test_a_body_is_decoded_as_it_says(server: Server, door: Door, encoding: str, body: bytes) -> None:
    async with aiohttp.ClientSession() as http:
        headers = {"Content-Encoding": encoding}
        async with http.put(f"{server.url}/v2/apps/a", data=body, headers=headers) as answer:
            assert answer.status == 200, await answer.text()
    assert [request.body for request in door.seen] == [_WORDS]


@pytest.mark.parametrize(
    ("encoding", "body", "status"),
    [
        ("gzip", b"not at all", 400),
        ("deflate", b"not at all", 400),
        ("gzip", gzip.compress(_WORDS, mtime=0)[:-9], 400),
        ("gzip", gzip.compress(_WORDS, mtime=0) + b"more", 400),
        ("gzip", gzip.compress(bytes(1 << 20), 9, mtime=0)[:900], 413),
        ("zstd", b"whatever", 400),
    ],
    ids=["gzip", "deflate", "cut", "more", "bomb", "zstd"],
)
async def test_a_body_that_is_not_encoded_as_it_says_is_refused_and_no_line_in_the_log(
    server: Server, door: Door, encoding: str, body: bytes, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    head = f"PUT /v2/apps/a HTTP/1.1\r\nHost: x\r\nContent-Encoding: {encoding}\r\nContent-Length: {len(body)}\r\n\r\n"
    async with asyncio.timeout(5):
        for _ in range(2):
            writer.write(head.encode() + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            assert int(answer.split()[1]) == status, "and the connection goes on"
            length = int(answer.lower().partition(b"content-length: ")[2].split()[0])
            await reader.readexactly(length)
    writer.close()
    assert door.seen == []
    assert not caplog.records


@pytest.mark.parametrize("sent", [b"\x16\x03\x01 hello\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET\r\n\r\n"])
async def test_something_that_is_not_http_gets_400_and_no_line_in_the_log(
    server: Server, sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(sent)
    assert b"400" in (await reader.readline())
    writer.close()
    assert not caplog.records


@pytest.mark.parametrize("path", ["/count", "/silence"])
async def test_a_client_that_disconnects_ends_its_stream(
    client: aiohttp.ClientSession, door: Door, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    answer = await client.get(path)
    await answer.content.readany()
    answer.close()
    await asyncio.wait_for(door.closed.wait(), 5)
    assert not caplog.records, "a client that leaves is no error of ours"


async def test_a_stopping_server_ends_its_streams(server: Server, client: aiohttp.ClientSession, door: Door) -> None:
    answer = await client.get("/silence")
    assert await answer.content.readany() == b"first"
    await asyncio.wait_for(server.close(), 5)
    await asyncio.wait_for(door.closed.wait(), 5)
    answer.close()


async def test_a_taken_port_is_named_with_what_to_do(server: Server) -> None:
    with pytest.raises(Invalid, match=rf"cannot listen on 127\.0\.0\.1:{server.port}.*--listen"):
        bind("127.0.0.1", server.port)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"a": 18446744073709551616}', 400),
        (b"[-9223372036854775809]", 400),
        (b'{"a": 1}\n{"a": ' + b"9" * 900 + b"}", 400),
        (b'{"a": [18446744073709551615, -9223372036854775808, 0.00000000000000000000001, 1e19]}', 200),
        (b'{"a": "18446744073709551616, \\" 18446744073709551616"}', 200),
        (b"18446744073709551616 is no JSON", 200),
    ],
)
async def test_a_number_that_no_record_holds_is_refused_at_every_door(
    client: aiohttp.ClientSession, body: bytes, status: int
) -> None:
    async with client.put("/v2/apps/a", data=body) as answer:
        assert answer.status == status
        assert "64 bits" in (await answer.json())["message"] if status == 400 else True
