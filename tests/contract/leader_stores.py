"""A store that several processes share, of which one may be cut off, stopped or told that it is away."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence

from corral.store.base import Change, Guard, LeaseId, Record, Store, StoreFailed


class SlowStore:
    """One process' way to the store. Shapes: while `all` or `commits` is cleared these wait; `broken` fails all."""

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        self.most_writes = inner.most_writes
        self.most_bytes = inner.most_bytes
        self.fair_writes = inner.fair_writes
        self.fair_bytes = inner.fair_bytes
        self.commits, self.all = asyncio.Event(), asyncio.Event()
        self.commits.set()
        self.all.set()
        self.broken = False

    async def _pass(self) -> None:
        await self.all.wait()
        if self.broken:
            raise StoreFailed("the store is away")

    async def get(self, key: str) -> Record | None:
        await self._pass()
        return await self.inner.get(key)

    async def list(self, prefix: str) -> Sequence[Record]:
        await self._pass()
        return await self.inner.list(prefix)

    async def commit(
        self, writes: Mapping[str, bytes | None], guards: Sequence[Guard] = (), lease: LeaseId | None = None
    ) -> int:
        await self._pass()
        await self.commits.wait()
        return await self.inner.commit(writes, guards, lease)

    def watch(self, prefix: str, after: int) -> AsyncIterator[Change]:
        return self.inner.watch(prefix, after)

    async def grant(self, ttl_s: float) -> LeaseId:
        await self._pass()
        return await self.inner.grant(ttl_s)

    async def keep_alive(self, lease: LeaseId) -> None:
        await self._pass()
        await self.inner.keep_alive(lease)

    async def revoke(self, lease: LeaseId) -> None:
        await self.inner.revoke(lease)

    async def close(self) -> None: ...
