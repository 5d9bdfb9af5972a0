"""Follows the registry of the leading master, and keeps what it said last for the time in which no master answers.

The masters are tried in turn, with a growing delay; a redirect is followed. Without a word for a while, keep-alives
included, the connection counts as broken. What is known can be kept in a file, so that it outlives this process too.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import aiohttp

from corral.discovery.files import write_whole
from corral.discovery.registry import App, apply, read_change, write_apps
from corral.lib.backoff import grow_delay_s
from corral.lib.errors import CorralError, Invalid, Unavailable
from corral.lib.log import get_logger
from corral.net.access import NO_ACCESS, Access, complete_url
from corral.net.client import open_session

log = get_logger("discovery")

WATCH_PATH = "/corral/v1/registry/watch"
SILENT_S = 35.0
KEEP_DELAY_S = 1.0
CONNECT_TIMEOUT_S = 5.0
CALL_TIMEOUT_S = 10.0
FIRST_DELAY_S = 0.1
MOST_DELAY_S = 5.0
MOST_LINE_BYTES = 64 << 20

Changed = Callable[[frozenset[str]], None]


class RegistryFollower:
    """Shapes: `apps` is always the last that was known; `changed` is told the ids of apps that are others now.

    With `groups` it follows as a balancer, and instances that are to end wait until it has drained them.
    """

    def __init__(
        self,
        masters: Sequence[str],
        changed: Changed,
        random: Random,
        *,
        keep: Path | None = None,
        balancer: str = "",
        groups: Sequence[str] = (),
        access: Access = NO_ACCESS,
    ) -> None:
        if not masters:
            raise Invalid("the registry is a master's; name one, for example http://127.0.0.1:4680")
        self._access = access
        self._masters = [complete_url(master, access) for master in masters]
        self._changed = changed
        self._random = random
        self._keep = keep
        self._query = [("balancer", balancer), *(("group", g) for g in groups)] if balancer else []
        self._session: aiohttp.ClientSession | None = None
        self._keeping: asyncio.TimerHandle | None = None
        self._url = ""
        self.apps: dict[str, App] = {}
        self.connection = ""
        self.synced = asyncio.Event()
        self.why = "not connected yet"

    async def run(self) -> None:
        """Follow until cancelled."""
        self._recall()
        tries = 0
        async with open_session(self._access, read_bufsize=1 << 20) as session:
            self._session = session
            while True:
                master = self._masters[tries % len(self._masters)]
                try:
                    async for _ in self._follow(master):
                        tries = 0
                    self.why = f"master {master} ended the stream"
                except (aiohttp.ClientError, OSError, TimeoutError, ValueError, CorralError) as error:
                    self.why = f"master {master}: {error or type(error).__name__}"
                if self.synced.is_set() or tries < 1:
                    log.warning("registry not followed", why=self.why)
                self.synced.clear()
                self._url = ""
                tries += 1
                delay_s = grow_delay_s(tries, first_s=FIRST_DELAY_S, factor=2.0, most_s=MOST_DELAY_S)
                await asyncio.sleep(delay_s * self._random.uniform(0.5, 1.0))

    async def once(self) -> None:
        """Take in what the registry is now, and end.

        Errors: `Unavailable` when no master answers.
        """
        tried = []
        async with open_session(self._access, read_bufsize=1 << 20) as session:
            self._session = session
            for master in self._masters:
                try:
                    async for _ in self._follow(master):
                        return
                except (aiohttp.ClientError, OSError, TimeoutError, ValueError, CorralError) as error:
                    tried.append(f"master {master}: {error or type(error).__name__}")
        raise Unavailable("; ".join(tried) or "no master answers")

    async def _follow(self, master: str) -> AsyncIterator[None]:
        assert self._session is not None
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=SILENT_S)
        async with self._session.get(master + WATCH_PATH, params=self._query, timeout=timeout) as answer:
            if answer.status != 200:
                text = (await answer.text())[:300]
                raise Unavailable(f"the registry was answered {answer.status} {answer.reason}: {text}")
            self._url = str(answer.url.origin())
            async for line in _lines(answer.content):
                change = read_change(line)
                touched = apply(self.apps, change)
                if change.snapshot:
                    self.connection = change.balancer
                    log.info("registry followed", master=self._url, apps=len(self.apps))
                if touched:
                    self._remember()
                if touched or change.snapshot:
                    self.synced.set()
                    self._changed(touched)
                yield

    async def post(self, path: str, body: Any) -> None:
        """Tell the master something beside the stream. Errors: `Unavailable` when it is not taken."""
        if self._session is None or not self._url:
            raise Unavailable(self.why)
        timeout = aiohttp.ClientTimeout(total=CALL_TIMEOUT_S)
        try:
            async with self._session.post(self._url + path, json=body, timeout=timeout) as answer:
                if answer.status >= 300:
                    raise Unavailable(f"{path} was answered {answer.status}: {(await answer.text())[:300]}")
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Unavailable(f"{self._url}{path}: {error or type(error).__name__}") from None

    # What outlives this process.

    def _recall(self) -> None:
        if self._keep is None or not self._keep.exists():
            return
        try:
            touched = apply(self.apps, read_change(self._keep.read_bytes()))
        except (OSError, Invalid) as error:
            log.warning("registry file not read", path=str(self._keep), why=str(error))
            return
        log.info("registry recalled", path=str(self._keep), apps=len(self.apps))
        self._changed(touched)

    def _remember(self) -> None:
        """Soon: a burst of changes is written once."""
        if self._keep is not None and self._keeping is None:
            self._keeping = asyncio.get_running_loop().call_later(KEEP_DELAY_S, self._write)

    def _write(self) -> None:
        self._keeping = None
        assert self._keep is not None
        try:
            write_whole(self._keep, write_apps(self.apps))
        except OSError as error:
            log.warning("registry not kept", path=str(self._keep), why=error.strerror or str(error))


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Lines of any length up to a bound. Errors: `Invalid` for one that is longer."""
    buffer = bytearray()
    async for chunk in content.iter_any():
        buffer += chunk
        while (end := buffer.find(b"\n")) >= 0:
            line = bytes(buffer[:end])
            del buffer[: end + 1]
            yield line
        if len(buffer) > MOST_LINE_BYTES:
            raise Invalid(f"the registry sent a line of more than {MOST_LINE_BYTES} bytes")
