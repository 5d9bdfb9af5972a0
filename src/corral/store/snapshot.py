"""All records of a store as one file, and back: for a back-up, and for moving from one kind of store to another.

Layout: a line of text; frames of MessagePack, each behind its length in four bytes, big end first: a header, the
records in key order, an empty frame; then the SHA-256 of everything before it. Revisions are not kept, as a store gives
its own.
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import msgspec

from corral.lib.errors import Conflict, Invalid
from corral.store.base import RECORD_BYTES, Guard, GuardFailed, Record, Store

MAGIC = b"corral snapshot 1\n"
_LENGTH = 4
_MOST_FRAME = 1 << 30
_AT_ONCE = 1000

LEADERS = "election/"
"""Below this lies who leads and who stands for it, kept by leases: it belongs to processes and not to a back-up."""


RESTORING = "restoring"
"""A record that stands while a restore is under way, or since one was interrupted."""


class SnapshotHeader(msgspec.Struct, frozen=True, kw_only=True):
    """Units: `taken_at` seconds UTC. Shapes: `store` says where it was taken, without secrets."""

    taken_at: float
    version: str
    store: str
    records: int


class Kept(msgspec.Struct, frozen=True, array_like=True):
    key: str
    value: bytes


class Snapshot(msgspec.Struct, frozen=True):
    header: SnapshotHeader
    records: Sequence[Kept]


def snapshot_of(records: Sequence[Record], *, now: float, version: str, name: str) -> Snapshot:
    """All that was found of a store but who leads. Errors: `Conflict` when a restore has not come to its end."""
    found = [Kept(r.key, r.value) for r in records if not r.key.startswith(LEADERS)]
    if any(kept.key == RESTORING for kept in found):
        raise Conflict("a restore into this store was interrupted; restore again before it is saved")
    return Snapshot(SnapshotHeader(taken_at=now, version=version, store=name, records=len(found)), found)


def write_snapshot(snapshot: Snapshot, file: BinaryIO) -> None:
    digest = hashlib.sha256()
    for part in _parts(snapshot):
        digest.update(part)
        file.write(part)
    file.write(digest.digest())


def _parts(snapshot: Snapshot) -> Iterator[bytes]:
    yield MAGIC
    encoder = msgspec.msgpack.Encoder()
    for value in (snapshot.header, *snapshot.records):
        frame = encoder.encode(value)
        yield len(frame).to_bytes(_LENGTH, "big") + frame
    yield bytes(_LENGTH)


def read_snapshot(file: BinaryIO, name: str) -> Snapshot:
    """Errors: `Invalid` when the file, called `name`, is no snapshot, is cut off or has been changed."""
    reader = _Reader(file, name)
    try:
        if reader.take(len(MAGIC)) != MAGIC:
            raise Invalid(f"{name} is no snapshot of corral; give a file that corral snapshot save wrote")
        header = msgspec.msgpack.decode(reader.frame(), type=SnapshotHeader)
        decoder, records = msgspec.msgpack.Decoder(Kept), []
        while frame := reader.frame():
            records.append(decoder.decode(frame))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Invalid(f"{name} is damaged: {error}; use another snapshot") from None
    expected = reader.digest.digest()
    if reader.take(len(expected)) != expected or file.read(1):
        raise Invalid(f"{name} is damaged: its checksum does not fit; use another snapshot")
    if len(records) != header.records:
        raise Invalid(f"{name} is damaged: it names {header.records} records and holds {len(records)}")
    return Snapshot(header, records)


class _Reader:
    def __init__(self, file: BinaryIO, name: str) -> None:
        self.digest = hashlib.sha256()
        self._file = file
        self._name = name

    def take(self, count: int) -> bytes:
        part = self._file.read(count)
        if len(part) < count:
            raise Invalid(f"{self._name} is no whole snapshot: it ends too soon; use another one")
        self.digest.update(part)
        return part

    def frame(self) -> bytes:
        length = int.from_bytes(self.take(_LENGTH), "big")
        if length > _MOST_FRAME:
            raise Invalid(f"{self._name} is damaged: a record of {length} bytes; use another snapshot")
        return self.take(length)


async def restore_snapshot(store: Store, snapshot: Snapshot, *, overwrite: bool, shared: bool) -> int:
    """Make the store hold these records and no others; returns how many it held before.

    Shapes: when all fit into one commit it is one, else a mark stands from the first to the last, and no daemon opens a
    store with the mark. In a `shared` store a leader's key stands only while somebody leads.
    Errors: `Conflict` unless the store is empty or may be overwritten, and when a master runs on it.
    """
    found = await store.list("")
    leader = next((r.key for r in found if r.key.startswith(LEADERS) and r.key.endswith("/leader")), None)
    if shared and leader is not None:
        raise Conflict(f"a master runs on this store, as {leader} says; stop all masters first")
    before = [r for r in found if not r.key.startswith(LEADERS) and r.key != RESTORING]
    mark = next((r.revision for r in found if r.key == RESTORING), 0)
    if before and not overwrite and not mark:
        raise Conflict(
            f"the store holds {len(before)} records, such as {before[0].key}; "
            f"restore into an empty one, or say --overwrite to lose them"
        )
    writes: dict[str, bytes | None] = {r.key: None for r in before}
    writes.update((kept.key, kept.value) for kept in snapshot.records)
    nobody_leads = [Guard(LEADERS + "master/leader", 0)] if shared else []
    try:
        batches = list(_batches(writes, store))
        if len(batches) > 1:
            mark = await store.commit({RESTORING: b""}, [Guard(RESTORING, mark), *nobody_leads])
        for batch in batches:
            await store.commit(batch, [Guard(RESTORING, mark), *nobody_leads])
        if mark:
            await store.commit({RESTORING: None}, [Guard(RESTORING, mark)])
    except GuardFailed as failed:
        raise Conflict(
            f"somebody wrote {failed.key} meanwhile; stop every master that runs on this store and restore again"
        ) from None
    return len(before)


def _batches(writes: dict[str, bytes | None], store: Store) -> Iterator[dict[str, bytes | None]]:
    batch: dict[str, bytes | None] = {}
    size = 0
    for key, value in writes.items():
        weight = len(key.encode()) + len(value or b"") + RECORD_BYTES
        if batch and (len(batch) >= min(store.fair_writes, 1 << 16) or size + weight > min(store.fair_bytes, 1 << 26)):
            yield batch
            batch, size = {}, 0
        batch[key] = value
        size += weight
    if batch:
        yield batch
