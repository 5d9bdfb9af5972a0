"""A store that forgets everything when its process ends: for tests, the simulated world and throw-away clusters.

Its methods never wait, so the simulated world can run them without asyncio. Time comes from an injected clock; a lease
ends at the next call after its time, or at `expire`.
"""

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

from corral.store.base import Change, Guard, GuardFailed, LeaseId, Record, StoreFailed
from corral.store.history import History


class _Lease:
    __slots__ = ("ends_at", "keys", "ttl_s")

    def __init__(self, ttl_s: float, ends_at: float) -> None:
        self.ttl_s = ttl_s
        self.ends_at = ends_at
        self.keys: set[str] = set()


class MemoryStore:
    """Shapes: `most_writes` keys per commit, as any store. Units: `clock` in seconds that never go back."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, most_writes: int = 1 << 20) -> None:
        self.most_writes = most_writes
        self.most_bytes = self.fair_bytes = 1 << 40
        self.fair_writes = most_writes
        self._clock = clock
        self._records: dict[str, Record] = {}
        self._leases: dict[LeaseId, _Lease] = {}
        self._leased: dict[str, _Lease] = {}
        self._revision = 0
        self._last_lease = 0
        self._history = History(0)

    async def get(self, key: str) -> Record | None:
        self.expire()
        return self._records.get(key)

    async def list(self, prefix: str) -> Sequence[Record]:
        self.expire()
        return [self._records[key] for key in sorted(k for k in self._records if k.startswith(prefix))]

    async def commit(
        self, writes: Mapping[str, bytes | None], guards: Sequence[Guard] = (), lease: LeaseId | None = None
    ) -> int:
        return self.commit_now(writes, guards, lease)

    def commit_now(
        self, writes: Mapping[str, bytes | None], guards: Sequence[Guard] = (), lease: LeaseId | None = None
    ) -> int:
        """The same as `commit`, for callers without an event loop."""
        self.expire()
        if self._history.closed:
            raise StoreFailed("the memory store is closed")
        if len(writes) > self.most_writes:
            raise StoreFailed(f"a commit of {len(writes)} keys is more than the {self.most_writes} this store takes")
        for guard in guards:
            found = self._records.get(guard.key)
            if (found.revision if found is not None else 0) != guard.revision:
                raise GuardFailed(guard.key)
        holder = None
        if lease is not None:
            holder = self._leases.get(lease)
            if holder is None:
                raise GuardFailed(f"lease {lease}")
        if writes:
            self._write(writes, holder)
        return self._revision

    def watch(self, prefix: str, after: int) -> AsyncIterator[Change]:
        return self._history.follow(prefix, after)

    async def grant(self, ttl_s: float) -> LeaseId:
        self._last_lease += 1
        lease = LeaseId(self._last_lease)
        self._leases[lease] = _Lease(ttl_s, self._clock() + ttl_s)
        return lease

    async def keep_alive(self, lease: LeaseId) -> None:
        self.expire()
        found = self._leases.get(lease)
        if found is None:
            raise GuardFailed(f"lease {lease}")
        found.ends_at = self._clock() + found.ttl_s

    async def revoke(self, lease: LeaseId) -> None:
        self.expire()
        self._end_lease(lease)

    async def close(self) -> None:
        self._history.close()

    def expire(self) -> None:
        """End the leases whose time is over and delete their keys."""
        if self._leases:
            now = self._clock()
            for lease in [lease for lease, found in self._leases.items() if found.ends_at <= now]:
                self._end_lease(lease)

    def _end_lease(self, lease: LeaseId) -> None:
        found = self._leases.pop(lease, None)
        if found is not None and found.keys:
            self._write(dict.fromkeys(sorted(found.keys)), None)

    def _write(self, writes: Mapping[str, bytes | None], holder: _Lease | None) -> None:
        self._revision = revision = self._revision + 1
        changes: list[Change] = []
        for key, value in writes.items():
            if self._leased:
                before = self._leased.pop(key, None)
                if before is not None:
                    before.keys.discard(key)
            if value is None:
                if self._records.pop(key, None) is None:
                    continue
            else:
                self._records[key] = Record(key, value, revision)
                if holder is not None:
                    holder.keys.add(key)
                    self._leased[key] = holder
            changes.append(Change(key, value, revision))
        self._history.add(revision, changes)
