"""The fetcher against a real server that does what servers do on bad days."""

import asyncio
import base64
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from corral.agent.fetcher import Fetcher
from corral.lib.errors import Failed
from corral.model.task import Uri


class Server:
    """Serves a few paths on the loopback address, and counts."""

    def __init__(self) -> None:
        self.hits: list[str] = []
        self.url = ""
        self.release = asyncio.Event()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.hits.append(request.path)
        match request.path:
            case "/file.txt":
                return web.Response(body=b"content", headers={"Content-Encoding": "gzip"})
            case "/slow.txt":
                await self.release.wait()
                return web.Response(body=b"slow")
            case "/moved.txt":
                raise web.HTTPFound("/file.txt")
            case "/round.txt":
                raise web.HTTPFound("/round.txt")
            case "/private.txt":
                wanted = "Basic " + base64.b64encode(b"me:secret").decode()
                return web.Response(body=b"mine", status=200 if request.headers.get("Authorization") == wanted else 401)
            case "/big.bin" | "/endless.bin" | "/short.bin" | "/stalled.bin":
                return await self._stream(request)
        return web.Response(status=404)

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        if request.path != "/endless.bin":
            response.content_length = 2_000_000
        await response.prepare(request)
        if request.path == "/endless.bin":
            for _ in range(100):
                await response.write(b"x" * 65536)
            return response
        await response.write(b"x" * 1000)
        if request.path == "/stalled.bin":
            await self.release.wait()
        assert request.transport is not None
        request.transport.close()
        return response


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    made = Server()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", made.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    made.release.set()
    await runner.cleanup()


@pytest.fixture
async def fetcher(tmp_path: Path) -> AsyncIterator[Fetcher]:
    made = Fetcher(str(tmp_path / "cache"), most_bytes=1_000_000, stall_s=0.5)
    yield made
    await made.close()


@pytest.fixture
def sandbox(tmp_path: Path) -> Path:
    (tmp_path / "sandbox").mkdir()
    return tmp_path / "sandbox"


async def test_a_file_arrives_as_it_is_stored(fetcher: Fetcher, server: Server, sandbox: Path) -> None:
    await fetcher.fetch([Uri(value=f"{server.url}/file.txt?version=2")], str(sandbox))
    assert (sandbox / "file.txt").read_bytes() == b"content"
    assert os.listdir(sandbox) == ["file.txt"]


async def test_a_redirection_is_followed(fetcher: Fetcher, server: Server, sandbox: Path) -> None:
    await fetcher.fetch([Uri(value=f"{server.url}/moved.txt")], str(sandbox))
    assert (sandbox / "moved.txt").read_bytes() == b"content"


async def test_a_password_is_used_and_not_shown(fetcher: Fetcher, server: Server, sandbox: Path) -> None:
    url = server.url.replace("//", "//me:secret@")
    await fetcher.fetch([Uri(value=f"{url}/private.txt")], str(sandbox))
    assert (sandbox / "private.txt").read_bytes() == b"mine"
    with pytest.raises(Failed) as caught:
        await fetcher.fetch([Uri(value=f"{url}/nothing.txt")], str(sandbox))
    assert "secret" not in caught.value.message


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/nothing.txt", "the server answered 404"),
        ("/private.txt", "the server answered 401"),
        ("/big.bin", "larger than 1000000 bytes"),
        ("/endless.bin", "larger than 1000000 bytes"),
        ("/stalled.bin", "larger than|nothing came for 0.5 s"),
        ("/slow.txt", "nothing came for 0.5 s"),
        ("/round.txt", "too many redirects"),
    ],
)
async def test_a_download_that_fails_says_why(
    fetcher: Fetcher, server: Server, sandbox: Path, path: str, words: str
) -> None:
    with pytest.raises(Failed, match=words) as caught:
        await fetcher.fetch([Uri(value=server.url + path)], str(sandbox))
    assert server.url + path in caught.value.message
    assert os.listdir(sandbox) == []


@pytest.mark.parametrize(("path", "words"), [("/short.bin", "payload|closed|reset"), ("/stalled.bin", "nothing came")])
async def test_a_download_that_breaks_off_leaves_nothing(
    server: Server, sandbox: Path, tmp_path: Path, path: str, words: str
) -> None:
    fetcher = Fetcher(str(tmp_path / "cache"), stall_s=0.5)
    for cache in (False, True):
        with pytest.raises(Failed, match=f"(?i){words}"):
            await fetcher.fetch([Uri(value=server.url + path, cache=cache)], str(sandbox))
    assert os.listdir(sandbox) == os.listdir(tmp_path / "cache") == []
    await fetcher.close()


async def test_a_server_that_is_not_there_is_named(fetcher: Fetcher, sandbox: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/x"
        with pytest.raises(Failed, match="Cannot connect"):
            await fetcher.fetch([Uri(value=url)], str(sandbox))


async def test_many_tasks_share_one_cached_download(fetcher: Fetcher, server: Server, tmp_path: Path) -> None:
    boxes = [tmp_path / f"s{n}" for n in range(5)]
    for box in boxes:
        box.mkdir()
    uri = Uri(value=f"{server.url}/file.txt", cache=True)
    await asyncio.gather(*(fetcher.fetch([uri], str(box)) for box in boxes))
    assert [(box / "file.txt").read_bytes() for box in boxes] == [b"content"] * 5
    assert server.hits == ["/file.txt"]
    (boxes[0] / "file.txt").write_text("changed by its task")
    (boxes[1] / "file.txt").unlink()
    await fetcher.fetch([uri], str(boxes[1]))
    assert (boxes[1] / "file.txt").read_bytes() == b"content"


async def test_without_cache_each_fetches_for_itself(fetcher: Fetcher, server: Server, sandbox: Path) -> None:
    for _ in range(2):
        await fetcher.fetch([Uri(value=f"{server.url}/file.txt")], str(sandbox))
    assert server.hits == ["/file.txt"] * 2


async def test_what_is_cancelled_leaves_nothing(fetcher: Fetcher, server: Server, sandbox: Path) -> None:
    fetching = asyncio.ensure_future(fetcher.fetch([Uri(value=f"{server.url}/slow.txt", cache=True)], str(sandbox)))
    await asyncio.wait([fetching], timeout=0.1)
    fetching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fetching
    assert os.listdir(sandbox) == []
