"""Writes a transaction exactly once, although its answer may get lost: each one moves a marker of its lane.

A lane is a chain: transaction n happens only while the marker still stands as transaction n - 1 left it, and writes it
anew with a text of its own. So it may be sent again until an answer comes. If an earlier attempt was carried out, the
marker bears its text and the revision at which it happened; and once a later one has happened, no straggler of an
earlier attempt ever can. Several lanes let several commits be under way at once.
"""

import asyncio
import secrets
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from corral.lib.clock import Clock
from corral.store.base import Guard, GuardFailed, LeaseId, StoreFailed
from corral.store.etcd import wire
from corral.store.etcd.gateway import Doubt, Gateway, Patience, Refused

TXN = "/v3/kv/txn"
RANGE = "/v3/kv/range"
LANES = 8
OLD_S = 86_400.0
_SWEPT_AT_ONCE = 100


class Work(msgspec.Struct, frozen=True):
    """A transaction without its marker. Shapes: `keys` are the keys of the guards as etcd knows them."""

    ops: Sequence[dict[str, Any]]
    guards: Sequence[Guard] = ()
    keys: Sequence[bytes] = ()
    lease: LeaseId | None = None


class _Lane:
    """Shapes: `revision` is where the last transaction left the marker, 0 before the first."""

    __slots__ = ("key", "number", "revision", "text")

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.number = 0
        self.revision = 0
        self.text = b""

    def begin(self, now: float) -> None:
        self.number += 1
        self.text = b"%d %d" % (self.number, now)


class Lanes:
    """The lanes of one open store. Shapes: markers are keys below `prefix`, which holds those of all stores."""

    def __init__(self, gateway: Gateway, prefix: bytes, clock: Clock = time.time) -> None:
        self._gateway = gateway
        self._prefix = prefix
        self._clock = clock
        self._free: list[_Lane] = []
        self._room = asyncio.Semaphore(LANES)

    async def commit(self, work: Work) -> int:
        """Carry out the operations if all guards hold; returns the revision.

        Errors: `GuardFailed`; `StoreFailed` when it was refused, or when nobody answered for too long.
        """
        async with self._room:
            while True:
                lane = self._free.pop() if self._free else _Lane(self._prefix + secrets.token_hex(12).encode())
                revision = await self._send(lane, work)
                if revision is not None:
                    return revision

    async def sweep(self) -> None:
        """Take away markers that processes left which ended without a word a day ago or earlier."""
        body = {**wire.range_of(self._prefix), "limit": str(_SWEPT_AT_ONCE)}
        found = await self._gateway.ask(RANGE, body, wire.RangeAnswer)
        for marker in found.kvs:
            written_at = marker.value.partition(b" ")[2]
            if written_at.isdigit() and int(written_at) < self._clock() - OLD_S:
                await self._gateway.ask(TXN, _removal(marker.key, marker.mod_revision), wire.TxnAnswer)

    async def close(self) -> None:
        """Take the own markers away, as far as somebody answers."""
        lanes, self._free = self._free, []
        for lane in lanes:
            try:
                body = wire.encode(_removal(lane.key, lane.revision))
                await self._gateway.attempt(TXN, body, wire.TxnAnswer, within_s=0.5)
            except (Doubt, Refused, StoreFailed):
                return

    async def _send(self, lane: _Lane, work: Work) -> int | None:
        """The revision at which it happened; None when it surely has not and wants another lane.

        A lane that is left in any other way than by an answer is not used again.
        """
        lane.begin(self._clock())
        try:
            answer, doubts = await self._insist(_body(lane, work))
        except _RefusedAfter as refused:
            revision = await self._void(lane) if refused.doubts else None
            if revision is not None:
                return revision
            self._free.append(lane)
            raise _explain(refused.refused, work.lease, self._gateway) from None
        if answer.succeeded:
            return self._leave(lane, answer.header.revision)
        marker = _marker_of(answer)
        if marker.value == lane.text:
            return self._leave(lane, marker.mod_revision)
        if marker.mod_revision != lane.revision:
            # Somebody took the marker away, as is done with very old ones.
            if doubts:
                raise StoreFailed("the outcome of a commit is unknown: its marker in etcd has gone meanwhile")
            return None
        if doubts:
            # A straggler could still find its guards fulfilled one day: the chain moves on without it.
            revision = await self._void(lane)
            if revision is not None:
                return revision
        self._leave(lane, lane.revision)
        raise GuardFailed(wire.first_broken(work.guards, answer.responses[1:]))

    async def _void(self, lane: _Lane) -> int | None:
        """Make sure that the transaction sent last can happen no more; its revision when it has."""
        before = lane.text
        lane.begin(self._clock())
        try:
            answer, _ = await self._insist(_body(lane, Work(())))
        except _RefusedAfter as refused:
            raise _explain(refused.refused, None, self._gateway) from None
        if answer.succeeded:
            lane.revision = answer.header.revision
            return None
        marker = _marker_of(answer)
        if marker.value == before:
            return self._leave(lane, marker.mod_revision)
        if marker.value != lane.text:
            raise StoreFailed("the outcome of a commit is unknown: its marker in etcd has gone meanwhile")
        lane.revision = marker.mod_revision
        return None

    async def _insist(self, body: bytes) -> tuple[wire.TxnAnswer, int]:
        """Send it until it is answered; also how many earlier attempts may have been carried out.

        Errors: `_RefusedAfter`; `StoreFailed` when nobody answers for too long.
        """
        patience, doubts = Patience(self._gateway.settings.timeout_s), 0
        while True:
            try:
                return await self._gateway.attempt(TXN, body, wire.TxnAnswer, within_s=patience.left_s), doubts
            except Refused as refused:
                raise _RefusedAfter(refused, doubts) from None
            except Doubt as doubt:
                doubts += doubt.sent
                outcome = "whether the commit happened is unknown" if doubts else "the commit has not happened"
                await patience.pause(doubt, self._gateway.settings, outcome)

    def _leave(self, lane: _Lane, revision: int) -> int:
        lane.revision = revision
        self._free.append(lane)
        return revision


class _RefusedAfter(Exception):
    """A refusal, after so many attempts in doubt."""

    def __init__(self, refused: Refused, doubts: int) -> None:
        super().__init__(str(refused))
        self.refused = refused
        self.doubts = doubts


def _body(lane: _Lane, work: Work) -> bytes:
    compares = [wire.compare(key, guard.revision) for key, guard in zip(work.keys, work.guards, strict=True)]
    looks = [{"request_range": {"key": key, "keys_only": True}} for key in work.keys]
    return wire.encode({
        "compare": [*compares, wire.compare(lane.key, lane.revision)],
        "success": [wire.put(lane.key, lane.text), *work.ops],
        "failure": [{"request_range": {"key": lane.key}}, *looks],
    })  # fmt: skip


def _removal(key: bytes, revision: int) -> dict[str, Any]:
    return {"compare": [wire.compare(key, revision)], "success": [wire.delete(key)]}


def _marker_of(answer: wire.TxnAnswer) -> wire.KeyValue:
    """The marker as the transaction that did not happen found it; a marker of revision 0 when there is none."""
    found = answer.responses[0].response_range if answer.responses else None
    return found.kvs[0] if found is not None and found.kvs else wire.KeyValue()


def _explain(refused: Refused, lease: LeaseId | None, gateway: Gateway) -> Exception:
    """What a refusal of a commit means to its caller, with what to do."""
    text, settings = refused.text, gateway.settings
    if lease is not None and "lease not found" in text:
        return GuardFailed(f"lease {lease}")
    advice = "see the cause"
    if "database space exceeded" in text:
        advice = "compact and defragment it, then disarm its alarm, or give it a larger --quota-backend-bytes"
    elif "request is too large" in text:
        advice = f"start it with --max-request-bytes={settings.max_request_bytes} or lower store.max_request_bytes"
    elif "too many operations" in text:
        advice = f"start it with --max-txn-ops={settings.max_txn_ops} or lower store.max_txn_ops"
    return StoreFailed(f"etcd at {gateway.endpoint} refused a commit: {text}; {advice}")
