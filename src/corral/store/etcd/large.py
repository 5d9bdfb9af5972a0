"""Commits that are larger than one request: all or nothing for whoever lists, in several transactions.

The writes are first laid down in parts, out of the way. One transaction with the guards decides, by writing a key `go`;
from then on the commit has happened, and each part is carried out by a transaction that takes it away and holds only
while `go` stands. Whoever comes upon a `go` finishes the work, so that a process may die in the middle of it; and once
it is finished, no straggler can do any of it again.
"""

import secrets
import time
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from corral.lib.clock import Clock
from corral.store.base import RECORD_BYTES, Guard, GuardFailed, StoreFailed
from corral.store.etcd import wire
from corral.store.etcd.gateway import Gateway
from corral.store.etcd.lanes import OLD_S, RANGE, Lanes, Work

GO = b"go"


class Part(msgspec.Struct, frozen=True, array_like=True):
    """Shapes: a value None deletes."""

    writes: tuple[tuple[bytes, bytes | None], ...]


class LargeCommits:
    """Shapes: parts lie below `prefix`, each commit's below a name of its own; a part has half of `writes` at most."""

    def __init__(
        self, gateway: Gateway, lanes: Lanes, prefix: bytes, *, writes: int, size: int, clock: Clock = time.time
    ) -> None:
        self._gateway = gateway
        self._lanes = lanes
        self._prefix = prefix
        self._writes = max(1, writes // 2)
        self._bytes = size
        self._max_ops = gateway.settings.max_txn_ops
        self._clock = clock

    async def commit(self, writes: Mapping[bytes, bytes | None], guards: Sequence[Guard], keys: Sequence[bytes]) -> int:
        """Returns the revision of the last write. Errors: as every commit; what was laid down is taken away then."""
        base = self._prefix + b"%d-%s/" % (self._clock(), secrets.token_hex(8).encode())
        parts = list(self._split(writes))
        for number, part in enumerate(parts):
            await self._lanes.commit(Work([wire.put(_name(base, number), msgspec.msgpack.encode(part))]))
        try:
            go = await self._lanes.commit(Work([wire.put(base + GO, b"")], guards, keys))
        except GuardFailed:
            await self._lanes.commit(Work([wire.delete_below(base)]))
            raise
        return await self._carry_out(base, go, [(_name(base, number), part) for number, part in enumerate(parts)])

    async def is_pending(self, revision: int) -> bool:
        """Whether a commit had happened and was not carried out to its end, at that revision."""
        body = {**wire.range_of(self._prefix), "revision": str(revision), "keys_only": True}
        found = await self._gateway.ask(RANGE, body, wire.RangeAnswer)
        return any(kv.key.endswith(b"/" + GO) for kv in found.kvs)

    async def finish(self) -> None:
        """Carry out what others have begun and decided, and take away what was laid down long ago in vain."""
        found = await self._gateway.ask(RANGE, {**wire.range_of(self._prefix), "keys_only": True}, wire.RangeAnswer)
        bases: dict[bytes, list[wire.KeyValue]] = {}
        for kv in found.kvs:
            bases.setdefault(kv.key[: kv.key.rindex(b"/") + 1], []).append(kv)
        for base, kvs in bases.items():
            go = next((kv.mod_revision for kv in kvs if kv.key == base + GO), None)
            if go is not None:
                names = [kv.key for kv in kvs if kv.key != base + GO]
                await self._carry_out(base, go, [(name, None) for name in names])
            elif self._is_old(base):
                await self._lanes.commit(Work([wire.delete_below(base)]))

    async def _carry_out(self, base: bytes, go: int, parts: Sequence[tuple[bytes, Part | None]]) -> int:
        """Shapes: a part None is read first. When somebody else has finished, that is as good."""
        guard, revision = Guard(GO.decode(), go), go
        try:
            for name, part in parts:
                if part is None:
                    part = await self._read(name)
                    if part is None:
                        continue
                ops = [wire.delete(key) if value is None else wire.put(key, value) for key, value in part.writes]
                ops.append(wire.delete(name))
                revision = await self._lanes.commit(Work(wire.nest(ops, self._max_ops, 2), [guard], [base + GO]))
            return await self._lanes.commit(Work([wire.delete(base + GO)], [guard], [base + GO]))
        except GuardFailed:
            found = await self._gateway.ask(RANGE, {"key": base + GO}, wire.RangeAnswer)
            return max(revision, found.header.revision)

    async def _read(self, name: bytes) -> Part | None:
        found = await self._gateway.ask(RANGE, {"key": name}, wire.RangeAnswer)
        return msgspec.msgpack.decode(found.kvs[0].value, type=Part) if found.kvs else None

    def _split(self, writes: Mapping[bytes, bytes | None]) -> Iterator[Part]:
        part: list[tuple[bytes, bytes | None]] = []
        size = 0
        for key, value in writes.items():
            weight = len(key) + len(value or b"") + RECORD_BYTES
            if weight > self._bytes:
                raise StoreFailed(
                    f"a record of {weight} bytes is more than the {self._bytes} this etcd takes at once; "
                    f"raise its --max-request-bytes and store.max_request_bytes alike"
                )
            if part and (len(part) >= self._writes or size + weight > self._bytes):
                yield Part(tuple(part))
                part, size = [], 0
            part.append((key, value))
            size += weight
        if part:
            yield Part(tuple(part))

    def _is_old(self, base: bytes) -> bool:
        begun_at = base.removeprefix(self._prefix).partition(b"-")[0]
        return begun_at.isdigit() and int(begun_at) < self._clock() - OLD_S


def _name(base: bytes, number: int) -> bytes:
    return base + b"%06d" % number
