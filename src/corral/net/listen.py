"""Accepts connections for a server that speaks TLS, and looks at the first byte of each before anything else.

A client that begins in plain HTTP is not cut off without a word: it gets its connection as it is, and the server's
gate tells it what to do.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable

from corral.lib.log import get_logger

log = get_logger("server")

HANDSHAKE = b"\x16"
PATIENCE_S = 15.0
"""How long a client may take to say its first byte, and then for its handshake."""

MOST_BEGINNING = 1024
FULL_S = 0.2
QUIET_S = 1.0
"""The log tells of one failed handshake in this time; a crowd of them would fill it."""


class TlsListener:
    """A listening socket with its own accepting; the connections belong to the protocols that `factory` makes."""

    def __init__(self, bound: socket.socket, factory: Callable[[], asyncio.BaseProtocol], tls: ssl.SSLContext) -> None:
        self._bound = bound
        self._factory = factory
        self._tls = tls
        self._task: asyncio.Task[None] | None = None
        self._beginning: set[asyncio.Task[None]] = set()
        self._told_at = -QUIET_S
        self.failed = 0

    def start(self) -> None:
        self._bound.listen(1024)
        self._bound.setblocking(False)
        self._task = asyncio.get_running_loop().create_task(self._accept())

    def close(self) -> None:
        """Accept nothing new, and drop who has not yet begun."""
        for task in (self._task, *self._beginning):
            if task is not None:
                task.cancel()
        self._bound.close()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(self._bound)
            except OSError:
                # Out of files: those that are open will be closed some time.
                await asyncio.sleep(FULL_S)
                continue
            if len(self._beginning) >= MOST_BEGINNING:
                connection.close()
                continue
            task = loop.create_task(self._begin(connection))
            self._beginning.add(task)
            task.add_done_callback(self._beginning.discard)

    async def _begin(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        peer = "somebody"
        with contextlib.suppress(OSError):
            peer = str(connection.getpeername()[0])
        try:
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            async with asyncio.timeout(PATIENCE_S):
                first = await _peek(connection)
            if not first:
                connection.close()
                return
            tls = self._tls if first == HANDSHAKE else None
            patience_s = PATIENCE_S if tls is not None else None
            await loop.connect_accepted_socket(self._factory, connection, ssl=tls, ssl_handshake_timeout=patience_s)
        except (OSError, TimeoutError) as error:
            connection.close()
            self._tell(peer, error)
        except asyncio.CancelledError:
            connection.close()
            raise

    def _tell(self, peer: str, error: OSError) -> None:
        self.failed += 1
        now = asyncio.get_running_loop().time()
        if now - self._told_at >= QUIET_S:
            self._told_at = now
            log.info("handshake failed", peer=peer, why=_explain(error), failed=self.failed)


def _explain(error: OSError) -> str:
    if verdict := getattr(error, "verify_message", ""):
        return f"it shows a certificate that does not hold here ({verdict}); let that node join again"
    text = str(error) or type(error).__name__
    if "ALERT" in text.upper() and ("UNKNOWN_CA" in text.upper() or "CERTIFICATE" in text.upper()):
        return f"it does not take our certificate ({text}); give it this cluster's ca.pem"
    return text


async def _peek(connection: socket.socket) -> bytes:
    """The first byte, which stays where it is; empty when the client leaves."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(connection.fileno(), readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(connection.fileno())
    return connection.recv(1, socket.MSG_PEEK)
