"""A store whose every commit carries one guard more: a leader writes with it and so cannot write after its reign.

The guard names the leader's key and the revision at which this leader wrote it. Whoever becomes leader later has
written the key anew, or it has gone with its lease: then no commit through this store happens any more.
"""

from collections.abc import AsyncIterator, Mapping, Sequence

from corral.store.base import Change, Guard, GuardFailed, LeaseId, Record, Store, StoreFailed


class FencedStore:
    """`inner` for as long as `fence` holds. Shapes: closing it leaves `inner` open."""

    def __init__(self, inner: Store, fence: Guard) -> None:
        self.inner = inner
        self.fence = fence
        self.most_writes = inner.most_writes
        self.most_bytes = inner.most_bytes

    async def get(self, key: str) -> Record | None:
        return await self.inner.get(key)

    async def list(self, prefix: str) -> Sequence[Record]:
        return await self.inner.list(prefix)

    async def commit(
        self, writes: Mapping[str, bytes | None], guards: Sequence[Guard] = (), lease: LeaseId | None = None
    ) -> int:
        """Errors: as every store; `StoreFailed` also when the fence does not hold, and nothing was written then."""
        try:
            return await self.inner.commit(writes, [self.fence, *guards], lease)
        except GuardFailed as failed:
            if failed.key != self.fence.key:
                raise
            raise StoreFailed(
                f"{self.fence.key} is no longer what this process wrote at revision {self.fence.revision}: "
                f"another one leads, so this one has to end"
            ) from None

    def watch(self, prefix: str, after: int) -> AsyncIterator[Change]:
        return self.inner.watch(prefix, after)

    async def grant(self, ttl_s: float) -> LeaseId:
        return await self.inner.grant(ttl_s)

    async def keep_alive(self, lease: LeaseId) -> None:
        await self.inner.keep_alive(lease)

    async def revoke(self, lease: LeaseId) -> None:
        await self.inner.revoke(lease)

    async def close(self) -> None:
        """Nothing: who opened the inner store closes it."""
