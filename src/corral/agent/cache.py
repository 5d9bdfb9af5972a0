"""Keeps fetched files for the next task that wants the same, up to a bound; who comes second waits for the first.

Source: Mesos v1, the fetcher's cache: key is user and URI, the least recently used unused file goes first.
"""

import asyncio
import contextlib
import hashlib
import os
import shutil
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable


class CacheTrouble(Exception):
    """The cache itself cannot hold the file; fetch without it."""


class _Entry:
    __slots__ = ("loading", "path", "size", "users")

    def __init__(self, path: str, loading: "asyncio.Task[None]") -> None:
        self.path = path
        self.loading = loading
        self.size = 0
        self.users = 0


class Cache:
    """Units: `most_bytes` of all files together; more only while they are in use.

    Shapes: the directory belongs to this cache alone and is emptied at its start.
    """

    __slots__ = ("_directory", "_entries", "_most_bytes")

    def __init__(self, directory: str, most_bytes: int) -> None:
        self._directory = directory
        self._most_bytes = most_bytes
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        shutil.rmtree(directory, ignore_errors=True)

    @contextlib.asynccontextmanager
    async def use(self, uri: str, user: str | None, load: Callable[[str], Awaitable[None]]) -> AsyncIterator[str]:
        """The path of the cached file, which stays as long as the context lasts; `load` writes it when it is missing.

        Errors: what `load` raises, to all who waited for it; `CacheTrouble` when the cache cannot hold it.
        """
        key = hashlib.sha256(f"{user or ''}\0{uri}".encode()).hexdigest()
        entry = self._entries.get(key)
        if entry is None:
            path = os.path.join(self._directory, key)
            entry = _Entry(path, asyncio.get_running_loop().create_task(self._load(path, load)))
            self._entries[key] = entry
        entry.users += 1
        try:
            # Shielded: the others still want it when one of them is cancelled.
            await asyncio.shield(entry.loading)
            entry.size = os.stat(entry.path).st_size
            yield entry.path
        finally:
            entry.users -= 1
            self._release(key, entry)

    async def _load(self, path: str, load: Callable[[str], Awaitable[None]]) -> None:
        try:
            os.makedirs(self._directory, mode=0o700, exist_ok=True)
            await load(path)
        except OSError as error:
            raise CacheTrouble(str(error)) from None

    def _release(self, key: str, entry: _Entry) -> None:
        if entry.users == 0 and not entry.loading.done():
            entry.loading.cancel()
        failed = not entry.loading.done() or entry.loading.cancelled() or entry.loading.exception() is not None
        if failed and self._entries.get(key) is entry:
            del self._entries[key]
        if failed:
            self._delete(entry)
        elif self._entries.get(key) is entry:
            self._entries.move_to_end(key)
        self._evict()

    def drop(self, path: str) -> None:
        """Let go of a file whose content is not what was wanted."""
        key = os.path.basename(path)
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._delete(entry)

    def _evict(self) -> None:
        total = sum(entry.size for entry in self._entries.values())
        for key, entry in list(self._entries.items()):
            if total <= self._most_bytes:
                return
            if entry.users == 0:
                total -= entry.size
                del self._entries[key]
                self._delete(entry)

    def _delete(self, entry: _Entry) -> None:
        with contextlib.suppress(OSError):
            os.unlink(entry.path)

    async def close(self) -> None:
        loading = [entry.loading for entry in self._entries.values() if not entry.loading.done()]
        for task in loading:
            task.cancel()
        await asyncio.gather(*loading, return_exceptions=True)
        self._entries.clear()
