"""The DNS server of one node: UDP and TCP on one address, from the registry as it is known here.

Foreign names are handed to the node's resolvers when that is configured, else refused. What can be answered is answered
whether or not a master does.
"""

import asyncio
import socket
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

from dnslib import RCODE, DNSRecord

from corral.discovery.dns import Foreign, answer, read_query, refusal
from corral.discovery.names import Zone, make_zone
from corral.discovery.registry import Registry
from corral.lib.errors import Invalid
from corral.lib.log import get_logger

log = get_logger("dns")

FORWARD_TIMEOUT_S = 2.0
MOST_FORWARDED = 256
TCP_IDLE_S = 30.0
MOST_TCP = 128
DNS_PORT = 53
GATHER_S = 0.05
BIND_TRIES = 20

Address = tuple[str, int]


class DnsServer:
    """Shapes: `registry` gives the apps as they are known; `forward` are resolvers, asked one after the other.

    `changed` has to be called when the registry is another one; names are made anew a little later.
    """

    name = "dns"

    def __init__(
        self,
        registry: Callable[[], Registry],
        random: Random,
        *,
        listen: Address,
        corral: str,
        mesos: str,
        ttl_s: int,
        forward: Sequence[Address] = (),
    ) -> None:
        self._registry = registry
        self._random = random
        self._listen = listen
        self._domains = (corral, mesos)
        self._ttl_s = ttl_s
        self._forward = tuple(forward)
        self._zone = make_zone({}, corral, mesos)
        self._serial = 1
        self._making: asyncio.TimerHandle | None = None
        self._asking: set[asyncio.Task[None]] = set()
        self._tcp = 0
        self._ended = asyncio.Event()
        self.address: Address = listen
        self.ready = asyncio.Event()

    @property
    def zone(self) -> Zone:
        return self._zone

    def changed(self) -> None:
        if self._making is None:
            self._making = asyncio.get_running_loop().call_later(GATHER_S, self._make)

    def _make(self) -> None:
        self._making = None
        self._zone = make_zone(self._registry(), *self._domains)
        self._serial += 1

    async def run(self) -> None:
        """Serve until stopped. Errors: `Invalid` when the address cannot be listened on."""
        loop = asyncio.get_running_loop()
        udp, tcp = self._bind()
        transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self), sock=udp)
        server = await asyncio.start_server(self._serve_tcp, sock=tcp)
        log.info(
            "dns served", address=f"{self.address[0]}:{self.address[1]}", domains=" ".join(filter(None, self._domains))
        )
        self.ready.set()
        try:
            await self._ended.wait()
        finally:
            transport.close()
            server.close()
            if self._making is not None:
                self._making.cancel()
            for task in list(self._asking):
                task.cancel()

    def stop(self) -> None:
        self._ended.set()

    def _bind(self) -> tuple[socket.socket, socket.socket]:
        """Both sockets on one port. Shapes: for port 0, one that is free for both."""
        host, port = self._listen
        for tries in range(1, BIND_TRIES + 1):
            try:
                return self._bind_once(host, port)
            except OSError as error:
                if port == 0 and tries < BIND_TRIES:
                    continue  # free for datagrams, but not for connections
                low = (
                    "; ports below 1024 need root or CAP_NET_BIND_SERVICE" if isinstance(error, PermissionError) else ""
                )
                raise Invalid(f"dns.listen {host}:{port} cannot be listened on: {error.strerror}{low}") from None
        raise AssertionError("the last try returns or raises")

    def _bind_once(self, host: str, port: int) -> tuple[socket.socket, socket.socket]:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        udp = socket.socket(family, socket.SOCK_DGRAM)
        tcp = socket.socket(family, socket.SOCK_STREAM)
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            udp.bind((host, port))
            self.address = (host, udp.getsockname()[1])
            tcp.bind(self.address)
        except OSError:
            udp.close()
            tcp.close()
            raise
        for each in (udp, tcp):
            each.setblocking(False)
        return udp, tcp

    # Answering.

    def take(self, data: bytes, reply: Callable[[bytes], None], *, tcp: bool) -> None:
        """Answer one query now, or have the resolvers answer it."""
        query = read_query(data)
        if query is None:
            return
        found = answer(self._zone, query, self._random, ttl_s=self._ttl_s, tcp=tcp, serial=self._serial)
        if not isinstance(found, Foreign):
            reply(found)
        elif not self._forward:
            reply(refusal(query, RCODE.REFUSED))
        elif len(self._asking) >= MOST_FORWARDED:
            reply(refusal(query, RCODE.SERVFAIL))
        else:
            task = asyncio.ensure_future(self._forward_query(data, query, reply, tcp))
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)

    async def _forward_query(self, data: bytes, query: DNSRecord, reply: Callable[[bytes], None], tcp: bool) -> None:
        ask = _ask_tcp if tcp else _ask_udp
        for resolver in self._forward:
            try:
                async with asyncio.timeout(FORWARD_TIMEOUT_S):
                    reply(await ask(resolver, data))
                    return
            except (OSError, TimeoutError, asyncio.IncompleteReadError):
                continue
        reply(refusal(query, RCODE.SERVFAIL))

    async def _serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def reply(data: bytes) -> None:
            if not writer.is_closing():
                writer.write(struct.pack("!H", len(data)) + data)

        if self._tcp >= MOST_TCP:
            writer.close()
            return
        self._tcp += 1
        try:
            while True:
                async with asyncio.timeout(TCP_IDLE_S):
                    (length,) = struct.unpack("!H", await reader.readexactly(2))
                    self.take(await reader.readexactly(length), reply, tcp=True)
                    await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            return
        finally:
            self._tcp -= 1
            writer.close()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: DnsServer) -> None:
        self._server = server
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        transport = self._transport
        assert transport is not None
        self._server.take(data, lambda found: transport.sendto(found, addr), tcp=False)


class _Once(asyncio.DatagramProtocol):
    """Waits for the answer with the query's id."""

    def __init__(self, query: bytes) -> None:
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._id = query[:2]

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if data[:2] == self._id and not self.answer.done():
            self.answer.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(exc)


async def _ask_udp(resolver: Address, data: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    transport, waiting = await loop.create_datagram_endpoint(lambda: _Once(data), remote_addr=resolver)
    try:
        transport.sendto(data)
        return await waiting.answer
    finally:
        transport.close()


async def _ask_tcp(resolver: Address, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(*resolver)
    try:
        writer.write(struct.pack("!H", len(data)) + data)
        (length,) = struct.unpack("!H", await reader.readexactly(2))
        return await reader.readexactly(length)
    finally:
        writer.close()


def read_resolvers(text: Sequence[str], *, own: Address, file: Path = Path("/etc/resolv.conf")) -> list[Address]:
    """Whom foreign names are asked of. Shapes: `system` stands for the node's own resolvers, without this server.

    Errors: `Invalid` for what is no address.
    """
    found: list[Address] = []
    for each in text:
        if each == "system":
            found += [(host, DNS_PORT) for host in _nameservers(file)]
            continue
        host, port = each, str(DNS_PORT)
        if each.count(":") == 1 or "]:" in each:
            host, _, port = each.rpartition(":")
        if not port.isdigit() or not 0 < int(port) < 65536 or not host:
            raise Invalid(f"dns.forward names {each!r}; write ADDRESS, ADDRESS:PORT or system")
        found.append((host.strip("[]"), int(port)))
    return [each for each in dict.fromkeys(found) if each != own]


def _nameservers(file: Path) -> list[str]:
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    words = (line.split() for line in lines)
    return [each[1] for each in words if len(each) > 1 and each[0] == "nameserver"]
