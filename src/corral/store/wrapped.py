"""A store around another one: everything passes through, for those to inherit that change a part of it."""

from collections.abc import AsyncIterator, Mapping, Sequence

from corral.store.base import Change, Guard, LeaseId, Record, Store


class WrappedStore:
    """Shapes: `inner` does what is asked, within its own bounds."""

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        self.most_writes = inner.most_writes
        self.most_bytes = inner.most_bytes
        self.fair_writes = inner.fair_writes
        self.fair_bytes = inner.fair_bytes

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
