"""A store that can be opened anew behind the same object, after it has failed or was away.

Who holds it keeps holding it; what was opened before is closed. It counts as open only once it has taken a write.
"""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

from corral.store.base import Change, Guard, LeaseId, Record, Store, StoreFailed

PROBE = "election/probe"
"""Written and deleted to find out whether the store takes writes; below what no snapshot holds."""
PROBE_BYTES = 65_536

Open = Callable[[], Awaitable[Store]]


class LastingStore:
    """Shapes: `inner` is the store of this moment, `open` makes another of the same records; `path` names its file."""

    def __init__(self, inner: Store, open: Open) -> None:
        self.inner = inner
        self._open = open
        self.path: str = getattr(inner, "path", "")
        self.most_writes = inner.most_writes
        self.most_bytes = inner.most_bytes
        self.fair_writes = inner.fair_writes
        self.fair_bytes = inner.fair_bytes

    async def reopen(self) -> None:
        """Errors: `StoreFailed` while it cannot be opened or written."""
        with contextlib.suppress(StoreFailed):
            await self.inner.close()
        self.inner = await self._open()
        await self.inner.commit({PROBE: bytes(PROBE_BYTES)})
        await self.inner.commit({PROBE: None})

    async def get(self, key: str) -> Record | None:
        return await self.inner.get(key)

    async def list(self, prefix: str) -> Sequence[Record]:
        return await self.inner.list(prefix)

    async def commit(
        self, writes: Mapping[str, bytes | None], guards: Sequence[Guard] = (), lease: LeaseId | None = None
    ) -> int:
        return await self.inner.commit(writes, guards, lease)

    def watch(self, prefix: str, after: int) -> AsyncIterator[Change]:
        return self.inner.watch(prefix, after)

    async def grant(self, ttl_s: float) -> LeaseId:
        return await self.inner.grant(ttl_s)

    async def keep_alive(self, lease: LeaseId) -> None:
        await self.inner.keep_alive(lease)

    async def revoke(self, lease: LeaseId) -> None:
        await self.inner.revoke(lease)

    async def close(self) -> None:
        await self.inner.close()
