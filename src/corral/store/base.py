"""The contract of every store: records with revisions, guarded commits, watches and leases.

Modelled on etcd v3: one revision counter for the whole store, each record remembers the revision that last wrote it,
a commit is all or nothing.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import NewType, Protocol

import msgspec

LeaseId = NewType("LeaseId", int)


class Record(msgspec.Struct, frozen=True):
    """Shapes: `revision` is the commit that last wrote the record."""

    key: str
    value: bytes
    revision: int


class Guard(msgspec.Struct, frozen=True):
    """The commit happens only if `key` was last written at `revision`; 0 means the key must not exist."""

    key: str
    revision: int


class Change(msgspec.Struct, frozen=True):
    """Shapes: `value` None means the key was deleted."""

    key: str
    value: bytes | None
    revision: int


class GuardFailed(Exception):
    """Nothing was written: a guard did not hold. `key` is the first one that failed."""

    def __init__(self, key: str) -> None:
        super().__init__(f"guard on {key} does not hold")
        self.key = key


class Compacted(Exception):
    """The changes after the revision asked for are no longer all remembered: list anew and watch from there."""

    def __init__(self, after: int, oldest: int) -> None:
        super().__init__(f"changes after revision {after} are forgotten, the oldest kept is {oldest}; list again")
        self.after = after
        self.oldest = oldest


class StoreFailed(Exception):
    """The outcome of a write is unknown or a failure: the process has to end and recover on its next start."""


RECORD_BYTES = 64
"""What a write weighs beside its key and value."""


def weigh(writes: Mapping[str, bytes | None]) -> int:
    """About how many bytes a commit has on its way to a store, never too few."""
    keys = sum(len(key) if key.isascii() else len(key.encode()) for key in writes)
    return keys + RECORD_BYTES * len(writes) + sum(len(value) for value in writes.values() if value is not None)


class Store(Protocol):
    most_writes: int
    """How many keys one commit may write."""
    most_bytes: int
    """How much one commit may weigh, by `weigh`."""
    fair_writes: int
    """How many keys are well written at once: a commit of more is all or nothing too, but slow."""
    fair_bytes: int
    """How much a commit well weighs."""

    async def get(self, key: str) -> Record | None: ...

    async def list(self, prefix: str) -> Sequence[Record]:
        """All records whose key starts with `prefix`, in key order, of one revision."""

    async def commit(
        self,
        writes: Mapping[str, bytes | None],
        guards: Sequence[Guard] = (),
        lease: LeaseId | None = None,
    ) -> int:
        """Write all (None deletes) or nothing; returns the new revision. Durable when it returns.

        Shapes: with `lease` the written keys vanish when the lease ends. A commit above what is fair may have several
        revisions, of which the last is returned; nobody who lists sees a part of it.
        Errors: `GuardFailed`, nothing written; `StoreFailed`, nobody knows.
        """

    def watch(self, prefix: str, after: int) -> AsyncIterator[Change]:
        """Every change below `prefix` with a revision greater than `after`, in order, without gaps.

        Shapes: changes of one commit follow each other. Errors: `Compacted`; `StoreFailed` when the store ends.
        """

    async def grant(self, ttl_s: float) -> LeaseId: ...

    async def keep_alive(self, lease: LeaseId) -> None:
        """Errors: `GuardFailed` when the lease has ended."""

    async def revoke(self, lease: LeaseId) -> None:
        """End the lease and delete its keys; nothing happens when it is gone."""

    async def close(self) -> None: ...
