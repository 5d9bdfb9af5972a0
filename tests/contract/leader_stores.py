"""A store that several processes share, of which one may be cut off, stopped or told that it is away."""

import asyncio
from collections.abc import Mapping, Sequence

from corral.store.base import Guard, LeaseId, Record, Store, StoreFailed
from corral.store.wrapped import WrappedStore


class SlowStore(WrappedStore):
    """One process' way to the store. Shapes: while `all` or `commits` is cleared these wait; `broken` fails all."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
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

    async def grant(self, ttl_s: float) -> LeaseId:
        await self._pass()
        return await self.inner.grant(ttl_s)

    async def keep_alive(self, lease: LeaseId) -> None:
        await self._pass()
        await self.inner.keep_alive(lease)

    async def close(self) -> None: ...
