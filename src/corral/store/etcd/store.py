"""The records in etcd: the Store contract on its transactions, ranges, watches and leases.

Keys lie below `root`, the markers of commits (see lanes.py) below the same name with `.commits/`. A commit is one
transaction; more operations than a server takes in a row are nested, which it takes. Leases are whole seconds and, as
etcd has it, at least about two. What does not fit into one request is done in several, see large.py.
Source: etcd v3.4 API reference.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Mapping, MutableSequence, Sequence

from corral.store.base import Change, Guard, GuardFailed, LeaseId, Record, StoreFailed, weigh
from corral.store.etcd import wire
from corral.store.etcd.gateway import Gateway, Refused, Settings
from corral.store.etcd.lanes import RANGE, TXN, Lanes, Work
from corral.store.etcd.large import LargeCommits
from corral.store.etcd.watch import follow

_PAGE = 1000
MOST_BYTES = 1 << 27
"""More is not to be written to etcd at once: its quota is two gigabytes unless told."""


async def open_etcd(settings: Settings) -> "EtcdStore":
    """A store that has reached a member with a quorum.

    Errors: `StoreFailed` when none is reached in time, or the user may not read and write below the root.
    """
    store = EtcdStore(settings)
    try:
        await store.begin()
    except BaseException:
        await store.close()
        raise
    return store


class EtcdStore:
    """Made by `open_etcd`. Shapes: at most `most_writes` keys and `most_bytes` bytes per commit."""

    def __init__(self, settings: Settings) -> None:
        self.most_writes = 1 << 20
        self.most_bytes = MOST_BYTES
        self.fair_writes = wire.most_writes(settings.max_txn_ops)
        # Room for the guards, the marker and the envelope.
        self.fair_bytes = max(settings.max_request_bytes - 8192, settings.max_request_bytes // 2)
        self._settings = settings
        self._root = settings.root.encode()
        self._gateway = Gateway(settings)
        self._lanes = Lanes(self._gateway, settings.root.rstrip("/").encode() + b".commits/")
        self._large = LargeCommits(
            self._gateway,
            self._lanes,
            settings.root.rstrip("/").encode() + b".large/",
            writes=self.fair_writes,
            size=self.fair_bytes * 3 // 4,
        )
        self._closed = asyncio.Event()

    async def begin(self) -> None:
        """Find out whether anybody is there who lets us in, and tidy up after processes long gone."""
        try:
            await self._lanes.sweep()
            await self._large.finish()
        except Refused as refused:
            raise StoreFailed(f"{refused}; see the cause") from None

    async def get(self, key: str) -> Record | None:
        found = await self._range({"key": self._root + key.encode()})
        return self._record(found.kvs[0]) if found.kvs else None

    async def list(self, prefix: str) -> Sequence[Record]:
        while True:
            try:
                found = await self._list(self._root + prefix.encode())
                if found is not None and not await self._large.is_pending(found[1]):
                    return found[0]
                if found is not None:
                    await self._large.finish()
            except Refused as refused:
                if refused.code != wire.OUT_OF_RANGE:
                    raise StoreFailed(f"{refused}; the records below {prefix or 'the root'} cannot be read") from None

    async def _list(self, prefix: bytes) -> tuple[Sequence[Record], int] | None:
        """All pages of one revision, and which; None when that revision was compacted away meanwhile."""
        records: MutableSequence[Record] = []
        start, revision, limit = prefix or b"\0", 0, _PAGE
        while True:
            body = {"key": start, "range_end": wire.range_end(prefix), "limit": str(limit), "revision": str(revision)}
            try:
                found = await self._gateway.ask(RANGE, body, wire.RangeAnswer)
            except Refused as refused:
                if refused.code == wire.OUT_OF_RANGE and revision:
                    return None
                if refused.code == wire.RESOURCE_EXHAUSTED and limit > 1:
                    # The page has more bytes than the gateway passes on.
                    limit = max(1, limit // 4)
                    continue
                raise StoreFailed(f"{refused}; the records below {prefix.decode()} cannot be read") from None
            records += [self._record(kv) for kv in found.kvs]
            revision = revision or found.header.revision
            if not found.more or not found.kvs:
                return records, revision
            start = found.kvs[-1].key + b"\0"

    async def commit(
        self, writes: Mapping[str, bytes | None], guards: Sequence[Guard] = (), lease: LeaseId | None = None
    ) -> int:
        self._check(writes)
        root, most = self._root, self._settings.max_txn_ops
        keys = [root + guard.key.encode() for guard in guards]
        if not writes:
            return await self._look(guards, keys, lease)
        ops = [
            wire.delete(root + key.encode()) if value is None else wire.put(root + key.encode(), value, lease)
            for key, value in writes.items()
        ]
        if len(writes) > self.fair_writes or weigh(writes) > self.fair_bytes:
            if lease is not None:
                raise StoreFailed(f"a commit of {len(writes)} keys with a lease is more than one transaction takes")
            return await self._large.commit({root + key.encode(): v for key, v in writes.items()}, guards, keys)
        if lease is not None and all(value is None for value in writes.values()):
            await self.keep_alive(lease)
        return await self._lanes.commit(Work(wire.nest(ops, most, len(guards) + 1), guards, keys, lease))

    async def _look(self, guards: Sequence[Guard], keys: Sequence[bytes], lease: LeaseId | None) -> int:
        """Whether the guards hold, in a transaction that writes nothing; the revision there is."""
        if lease is not None:
            await self.keep_alive(lease)
        body = {
            "compare": [wire.compare(key, guard.revision) for key, guard in zip(keys, guards, strict=True)],
            "failure": [{"request_range": {"key": key, "keys_only": True}} for key in keys],
        }
        answer = await self._gateway.ask(TXN, body, wire.TxnAnswer)
        if not answer.succeeded:
            raise GuardFailed(wire.first_broken(guards, answer.responses))
        return answer.header.revision

    async def watch(self, prefix: str, after: int) -> AsyncIterator[Change]:
        async for change in follow(self._gateway, self._root, prefix.encode(), after, self._closed):
            yield change

    async def grant(self, ttl_s: float) -> LeaseId:
        answer = await self._lease("/v3/lease/grant", {"TTL": str(max(1, math.ceil(ttl_s)))})
        return LeaseId(answer.id)

    async def keep_alive(self, lease: LeaseId) -> None:
        answer = await self._lease("/v3/lease/keepalive", {"ID": str(lease)}, stream=True)
        if not answer.ttl_s:
            raise GuardFailed(f"lease {lease}")

    async def revoke(self, lease: LeaseId) -> None:
        try:
            await self._gateway.ask("/v3/lease/revoke", {"ID": str(lease)}, wire.LeaseAnswer)
        except Refused as refused:
            if refused.code != wire.NOT_FOUND:
                raise StoreFailed(f"lease {lease} could not be revoked: {refused}") from None

    async def close(self) -> None:
        if self._closed.is_set():
            return
        self._closed.set()
        await self._lanes.close()
        await self._gateway.close()

    async def _lease(self, path: str, body: Mapping[str, str], *, stream: bool = False) -> wire.LeaseAnswer:
        try:
            return await self._gateway.ask(path, body, wire.LeaseAnswer, stream=stream)
        except Refused as refused:
            if refused.code == wire.NOT_FOUND:
                return wire.LeaseAnswer()
            raise StoreFailed(f"{path} failed: {refused}; see the cause") from None

    async def _range(self, body: Mapping[str, object]) -> wire.RangeAnswer:
        try:
            return await self._gateway.ask(RANGE, body, wire.RangeAnswer)
        except Refused as refused:
            raise StoreFailed(f"a record could not be read: {refused}; see the cause") from None

    def _record(self, kv: wire.KeyValue) -> Record:
        return Record(kv.key[len(self._root) :].decode("utf-8", "surrogateescape"), kv.value, kv.mod_revision)

    def _check(self, writes: Mapping[str, bytes | None]) -> None:
        if self._closed.is_set():
            raise StoreFailed("the etcd store is closed")
        if len(writes) > self.most_writes:
            raise StoreFailed(f"a commit of {len(writes)} keys is more than the {self.most_writes} this store takes")
        size = weigh(writes)
        if size > self.most_bytes:
            raise StoreFailed(f"a commit of {size} bytes is more than the {self.most_bytes} this store takes")
