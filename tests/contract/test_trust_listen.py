"""A server that speaks TLS, over real sockets: clients that say nothing, speak plainly, or break off."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from corral.lib.clock import system_clock
from corral.net.access import Access
from corral.net.auth import Caller, CallerKind, Knock
from corral.net.certificates import Authority, make_authority, make_key
from corral.net.client import open_session
from corral.net.keyring import Keyring
from corral.net.listen import TlsListener
from corral.net.routes import Request, Response, Route, json_response
from corral.net.server import Server, bind


def make_keys(authority: Authority, directory: Path, kind: str) -> Keyring:
    keys, key = Keyring(directory), make_key()
    pem = authority.issue(
        key.public_key(), name=f"a {kind}", kind=kind, names=("127.0.0.1",), now=system_clock(), life_s=600
    )
    keys.save(authority.pem, pem, key)
    return keys


class Open:
    """A gate that lets everybody in and remembers how they came."""

    def __init__(self) -> None:
        self.knocks: list[Knock] = []

    async def admit(self, knock: Knock) -> Caller:
        self.knocks.append(knock)
        kind, name = knock.certificate or ("anybody", "")
        return Caller(kind=CallerKind(kind), name=name)

    def challenge(self, path: str) -> str:
        return "Basic"


async def tell_caller(request: Request) -> Response:
    return json_response({"kind": request.caller.kind, "name": request.caller.name})


@asynccontextmanager
async def serving(keys: Keyring, gate: Open) -> AsyncIterator[Server]:
    route = Route(method="GET", path="/who", handler=tell_caller)
    server = Server([route], bind("127.0.0.1", 0), tls=keys.server(), gate=gate)
    await server.start()
    try:
        yield server
    finally:
        await server.close()


async def ask(session: aiohttp.ClientSession, url: str) -> dict[str, str]:
    async with session.get(f"{url}/who") as answer:
        found: dict[str, str] = await answer.json()
        return found


async def test_each_caller_is_known_by_what_it_shows_and_plain_ones_are_told_apart(tmp_path: Path) -> None:
    authority, gate = make_authority("test", system_clock()), Open()
    agent = make_keys(authority, tmp_path / "agent", "agent")
    async with serving(make_keys(authority, tmp_path / "master", "master"), gate) as server:
        assert server.url.startswith("https://")
        async with open_session(Access(keys=agent)) as session:
            assert await ask(session, server.url) == {"kind": "agent", "name": "a agent"}
        async with open_session(Access(keys=agent), show=False) as session:
            assert await ask(session, server.url) == {"kind": "anybody", "name": ""}
        async with aiohttp.ClientSession() as session:
            await ask(session, server.url.replace("https", "http"))
        assert [(k.secure, k.local) for k in gate.knocks] == [(True, True), (True, True), (False, True)]


async def test_an_agent_cannot_pass_for_a_master(tmp_path: Path) -> None:
    authority = make_authority("test", system_clock())
    agent = make_keys(authority, tmp_path / "agent", "agent")
    async with serving(make_keys(authority, tmp_path / "false", "agent"), Open()) as server:
        async with open_session(Access(keys=agent)) as session:
            with pytest.raises(aiohttp.ClientConnectorCertificateError, match="Hostname mismatch"):
                await ask(session, server.url)
        async with open_session(Access(keys=agent), to_master=False) as session:
            assert (await ask(session, server.url))["kind"] == "agent"


async def test_a_certificate_of_another_cluster_opens_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours, theirs = (make_authority(name, system_clock()) for name in ("ours", "theirs"))
    gate = Open()
    async with serving(make_keys(ours, tmp_path / "master", "master"), gate) as server:
        foreign = make_keys(theirs, tmp_path / "foreign", "agent")
        context = foreign.client()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:
            with pytest.raises(aiohttp.ClientError):
                await ask(session, server.url)
        async with open_session(Access(keys=Keyring(tmp_path / "foreign"))) as session:
            with pytest.raises(aiohttp.ClientConnectorCertificateError):
                await ask(session, server.url)
    assert gate.knocks == []
    said = capsys.readouterr()
    assert "it shows a certificate that does not hold here" in said.out + said.err


async def test_who_says_nothing_or_breaks_off_keeps_nobody_waiting(tmp_path: Path) -> None:
    authority = make_authority("test", system_clock())
    agent = make_keys(authority, tmp_path / "agent", "agent")
    async with serving(make_keys(authority, tmp_path / "master", "master"), Open()) as server:
        silent = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(5)]
        _, broken = await asyncio.open_connection("127.0.0.1", server.port)
        broken.write(b"\x16\x03\x01")
        await broken.drain()
        broken.transport.abort()
        async with open_session(Access(keys=agent)) as session, asyncio.timeout(5):
            assert (await ask(session, server.url))["kind"] == "agent"
        for _, writer in silent:
            writer.close()


async def test_a_crowd_of_failed_handshakes_does_not_fill_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    listener = TlsListener(bind("127.0.0.1", 0), asyncio.Protocol, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    listener.start()
    port = listener._bound.getsockname()[1]
    for _ in range(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"\x16nonsense" * 10)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(1000)
        writer.close()
    listener.close()
    assert listener.failed == 20
    said = capsys.readouterr()
    assert (said.out + said.err).count("handshake failed") <= 3
