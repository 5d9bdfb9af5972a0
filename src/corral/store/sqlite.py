"""The embedded store: one SQLite file, one connection, one thread that owns it.

Commits that arrive while one is being written go to disk together with the next (group commit): each keeps its own
guards, revision and all-or-nothing, but they share one transaction and one sync. The first failure ends the store, for
the outcome of a write that failed is not known. Source: SQLite, "Write-Ahead Logging", "PRAGMA synchronous".
"""

import asyncio
import contextlib
import fcntl
import functools
import os
import queue
import sqlite3
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import msgspec

from corral.store.base import Change, Guard, GuardFailed, LeaseId, Record, StoreFailed
from corral.store.history import History

_SWITCH_S = 0.00005
"""A busy event loop must hand the interpreter to the store's thread this soon. With Python's 5 ms a loop whose turns
take about as long hardly ever does: measured, a commit of 0.4 ms then takes seconds."""
APPLICATION_ID = 0x636F7272  # "corr"
FORMAT = 1
_SCHEMA = """
CREATE TABLE records (key TEXT PRIMARY KEY NOT NULL, value BLOB NOT NULL, revision INTEGER NOT NULL, lease INTEGER);
CREATE INDEX leased ON records (lease) WHERE lease IS NOT NULL;
CREATE TABLE leases (id INTEGER PRIMARY KEY AUTOINCREMENT, ttl_s REAL NOT NULL);
CREATE TABLE revision (last INTEGER NOT NULL);
INSERT INTO revision VALUES (0);
"""
_MOST_ROWS = 64
"""Each statement lets go of the interpreter and has to get it back from a busy loop, so one is for many rows."""


@functools.cache
def _put(rows: int) -> str:
    return "INSERT OR REPLACE INTO records VALUES " + ",".join(["(?,?,?,?)"] * rows)  # noqa: S608


@functools.cache
def _delete(rows: int) -> str:
    return f"DELETE FROM records WHERE key IN ({','.join('?' * rows)}) RETURNING key"  # noqa: S608


class _Commit(msgspec.Struct):
    writes: Mapping[str, bytes | None]
    guards: Sequence[Guard]
    lease: LeaseId | None
    future: asyncio.Future[int]


class _Work(msgspec.Struct):
    """Anything else that the thread shall do with its connection."""

    run: Callable[[], Any]
    future: asyncio.Future[Any]


class _Close(msgspec.Struct):
    future: asyncio.Future[None]


Outcome = tuple[asyncio.Future[Any], Any, BaseException | None]


async def open_sqlite(path: str, *, clock: Callable[[], float] = time.monotonic) -> "SqliteStore":
    """Open the store, creating file and directory when missing.

    Errors: `StoreFailed` says what is wrong with the file: in use, damaged, of a newer corral, not writable.
    """
    sys.setswitchinterval(min(sys.getswitchinterval(), _SWITCH_S))
    store = SqliteStore(path, asyncio.get_running_loop(), clock)
    try:
        store.history = History(await store.opened)
    except BaseException:
        store.join()
        raise
    return store


class SqliteStore:
    """Made by `open_sqlite`. Shapes: at most `most_writes` keys per commit."""

    most_writes = fair_writes = 1 << 20
    most_bytes = fair_bytes = 1 << 40

    def __init__(self, path: str, loop: asyncio.AbstractEventLoop, clock: Callable[[], float]) -> None:
        self.path = path
        self.opened: asyncio.Future[int] = loop.create_future()
        self.history = History(0)
        self._loop = loop
        self._worker = _Worker(path, clock, loop, self._publish)
        self._closed = False
        self._thread = threading.Thread(target=self._worker.run, args=(self.opened,), name="store", daemon=True)
        self._thread.start()

    async def get(self, key: str) -> Record | None:
        found: Record | None = await self._ask(lambda: self._worker.get(key))
        return found

    async def list(self, prefix: str) -> Sequence[Record]:
        found: Sequence[Record] = await self._ask(lambda: self._worker.list(prefix))
        return found

    async def commit(
        self, writes: Mapping[str, bytes | None], guards: Sequence[Guard] = (), lease: LeaseId | None = None
    ) -> int:
        if len(writes) > self.most_writes:
            raise StoreFailed(f"a commit of {len(writes)} keys is more than the {self.most_writes} this store takes")
        self._check_open()
        future: asyncio.Future[int] = self._loop.create_future()
        self._worker.queue.put(_Commit(writes, guards, lease, future))
        return await future

    async def watch(self, prefix: str, after: int) -> AsyncIterator[Change]:
        async for change in self.history.follow(prefix, after):
            yield change

    async def grant(self, ttl_s: float) -> LeaseId:
        return LeaseId(await self._ask(lambda: self._worker.grant(ttl_s)))

    async def keep_alive(self, lease: LeaseId) -> None:
        await self._ask(lambda: self._worker.keep_alive(lease))

    async def revoke(self, lease: LeaseId) -> None:
        await self._ask(lambda: self._worker.revoke(lease))

    async def close(self) -> None:
        """Finish what is queued, fold the log into the file and let go of it."""
        if self._closed:
            return
        self._closed = True
        future: asyncio.Future[None] = self._loop.create_future()
        self._worker.queue.put(_Close(future))
        try:
            await future
        finally:
            self.history.close()
            self.join()

    def join(self) -> None:
        self._thread.join()

    async def _ask(self, run: Callable[[], Any]) -> Any:
        self._check_open()
        future: asyncio.Future[Any] = self._loop.create_future()
        self._worker.queue.put(_Work(run, future))
        return await future

    def _check_open(self) -> None:
        if self._closed:
            raise StoreFailed(f"store {self.path} is closed")

    def _publish(self, groups: Sequence[tuple[int, Sequence[Change]]], done: Sequence[Outcome]) -> None:
        """Called on the loop after a transaction: first the watchers' news, then the answers."""
        for number, changes in groups:
            self.history.add(number, changes)
        for future, value, error in done:
            if future.done():
                continue
            if error is None:
                future.set_result(value)
            else:
                future.set_exception(error)


class _Worker:
    """Everything that happens on the store's own thread."""

    def __init__(
        self, path: str, clock: Callable[[], float], loop: asyncio.AbstractEventLoop, publish: Callable[..., None]
    ) -> None:
        self.queue: queue.SimpleQueue[_Commit | _Work | _Close] = queue.SimpleQueue()
        self._path = path
        self._clock = clock
        self._loop = loop
        self._publish = publish
        self._failure: StoreFailed | None = None
        self._revision = 0
        self._ends_at: dict[int, tuple[float, float]] = {}
        self._groups: list[tuple[int, Sequence[Change]]] = []

    def run(self, opened: asyncio.Future[int]) -> None:
        try:
            lock = _lock(self._path)
        except StoreFailed as error:
            self._tell([(opened, None, error)])
            return
        try:
            try:
                self._db = _connect(self._path)
                self._begin()
            except Exception as error:
                self._tell([(opened, None, _explain(self._path, "opened", error))])
                return
            try:
                self._tell([(opened, self._revision, None)])
                self._serve()
            finally:
                with contextlib.suppress(sqlite3.Error):
                    self._db.close()
        finally:
            os.close(lock)

    def _begin(self) -> None:
        self._revision = self._db.execute("SELECT last FROM revision").fetchone()[0]
        now = self._clock()
        # A lease is good for its whole time again, as after a change of leader in etcd: nobody could renew it.
        for lease, ttl_s in self._db.execute("SELECT id, ttl_s FROM leases").fetchall():
            self._ends_at[lease] = (now + ttl_s, ttl_s)

    def _tell(self, done: Sequence[Outcome]) -> None:
        groups, self._groups = self._groups, []
        # The loop may be gone when a process dies with work under way; then nobody is left to tell.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._publish, groups, done)

    def _serve(self) -> None:
        while True:
            batch = self._collect()
            closes = [item.future for item in batch if isinstance(item, _Close)]
            done = self._do([item for item in batch if not isinstance(item, _Close)])
            if closes:
                self._close()
                done += [(future, None, self._failure) for future in closes]
            if done or self._groups:
                self._tell(done)
            if closes:
                return

    def _collect(self) -> list[_Commit | _Work | _Close]:
        """All that is queued; waits for the first, at most until a lease ends."""
        wait_s = None
        if self._ends_at:
            wait_s = max(0.0, min(ends_at for ends_at, _ in self._ends_at.values()) - self._clock())
        batch: list[_Commit | _Work | _Close] = []
        with contextlib.suppress(queue.Empty):
            batch.append(self.queue.get(timeout=wait_s))
            while True:
                batch.append(self.queue.get_nowait())
        return batch

    def _do(self, batch: Sequence[_Commit | _Work]) -> list[Outcome]:
        """The whole batch in one transaction, in the order it came."""
        if self._failure is not None:
            return [(item.future, None, self._failure) for item in batch]
        done: list[Outcome] = []
        try:
            self._db.execute("BEGIN IMMEDIATE")
            before = self._revision
            self._expire()
            for item in batch:
                try:
                    value = self._commit(item) if isinstance(item, _Commit) else item.run()
                    done.append((item.future, value, None))
                except GuardFailed as error:
                    done.append((item.future, None, error))
            if self._revision != before:
                self._db.execute("UPDATE revision SET last = ?", (self._revision,))
            self._db.execute("COMMIT")
        except Exception as error:
            self._failure = _explain(self._path, "written", error)
            self._groups = []
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            return [(item.future, None, self._failure) for item in batch]
        return done

    def _commit(self, item: _Commit) -> int:
        for guard in item.guards:
            row = self._db.execute("SELECT revision FROM records WHERE key = ?", (guard.key,)).fetchone()
            if (row[0] if row is not None else 0) != guard.revision:
                raise GuardFailed(guard.key)
        if item.lease is not None and item.lease not in self._ends_at:
            raise GuardFailed(f"lease {item.lease}")
        if item.writes:
            self._write(item.writes, item.lease)
        return self._revision

    def _write(self, writes: Mapping[str, bytes | None], lease: int | None) -> None:
        self._revision = revision = self._revision + 1
        puts: list[Any] = []
        deletes: list[Any] = []
        for key, value in writes.items():
            if value is None:
                deletes.append(key)
            else:
                puts += (key, value, revision, lease)
        _in_chunks(self._db, _put, puts, 4)
        gone = {row[0] for row in _in_chunks(self._db, _delete, deletes, 1)}
        changes = [Change(k, value, revision) for k, value in writes.items() if value is not None or k in gone]
        self._groups.append((revision, changes))

    def _expire(self) -> None:
        now = self._clock()
        for lease in [lease for lease, (ends_at, _) in self._ends_at.items() if ends_at <= now]:
            self.revoke(lease)

    def get(self, key: str) -> Record | None:
        row = self._db.execute("SELECT key, value, revision FROM records WHERE key = ?", (key,)).fetchone()
        return None if row is None else Record(*row)

    def list(self, prefix: str) -> Sequence[Record]:
        end = _after_prefix(prefix)
        query = "SELECT key, value, revision FROM records WHERE key >= ?"
        rows = (
            self._db.execute(query + " ORDER BY key", (prefix,))
            if end is None
            else self._db.execute(query + " AND key < ? ORDER BY key", (prefix, end))
        )
        return [Record(*row) for row in rows]

    def grant(self, ttl_s: float) -> int:
        lease = self._db.execute("INSERT INTO leases (ttl_s) VALUES (?)", (ttl_s,)).lastrowid
        assert lease is not None
        self._ends_at[lease] = (self._clock() + ttl_s, ttl_s)
        return lease

    def keep_alive(self, lease: int) -> None:
        found = self._ends_at.get(lease)
        if found is None:
            raise GuardFailed(f"lease {lease}")
        self._ends_at[lease] = (self._clock() + found[1], found[1])

    def revoke(self, lease: int) -> None:
        if self._ends_at.pop(lease, None) is None:
            return
        keys = [row[0] for row in self._db.execute("SELECT key FROM records WHERE lease = ? ORDER BY key", (lease,))]
        if keys:
            self._write(dict.fromkeys(keys), None)
        self._db.execute("DELETE FROM leases WHERE id = ?", (lease,))

    def _close(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _in_chunks(db: sqlite3.Connection, statement: Callable[[int], str], values: list[Any], width: int) -> list[Any]:
    """Run the statement over all values, `width` of them per row; returns the rows it gives back."""
    most, given = _MOST_ROWS * width, []
    for start in range(0, len(values), most):
        part = values[start : start + most]
        given += db.execute(statement(len(part) // width), part).fetchall()
    return given


def _after_prefix(prefix: str) -> str | None:
    """The least key that is greater than all keys with the prefix; None when there is none."""
    while prefix:
        last = ord(prefix[-1])
        if last < 0x10FFFF:
            # Surrogates are no characters: SQLite could not take them as UTF-8.
            return prefix[:-1] + chr(0xE000 if last == 0xD7FF else last + 1)
        prefix = prefix[:-1]
    return None


def _lock(path: str) -> int:
    """Hold PATH.lock, so that no second process writes; the operating system lets go of it when this one dies."""
    try:
        os.makedirs(os.path.dirname(os.path.abspath(path)), mode=0o700, exist_ok=True)
        lock = os.open(path + ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _explain(path, "opened", error) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.pread(lock, 32, 0).decode(errors="replace").strip()
        os.close(lock)
        raise StoreFailed(
            f"store {path} is in use by process {holder or 'unknown'}; stop it first or choose another file"
        ) from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock


def _connect(path: str) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, timeout=5.0, cached_statements=3 * _MOST_ROWS)
    try:
        os.chmod(path, 0o600)
        application, version = (
            db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
        )
        empty = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
        if not empty and application != APPLICATION_ID:
            raise StoreFailed(f"store {path} is an SQLite file of another program; choose another file")
        if version > FORMAT:
            raise StoreFailed(
                f"store {path} has format {version} but this corral knows {FORMAT}; run the newer corral that wrote it"
            )
        if not empty:
            _check_whole(db, path)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA journal_size_limit = 67108864")
        if empty:
            db.executescript(
                f"BEGIN; {_SCHEMA} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORMAT}; COMMIT;"
            )
    except BaseException:
        db.close()
        raise
    return db


def _check_whole(db: sqlite3.Connection, path: str) -> None:
    found = [row[0] for row in db.execute("PRAGMA integrity_check(1)")]
    if found != ["ok"]:
        what = found[0].splitlines()[-1]
        raise StoreFailed(
            f"store {path} is damaged: {what}; restore it from a snapshot, or move it away to start empty"
        )


def _explain(path: str, wanted: str, error: Exception) -> StoreFailed:
    if isinstance(error, StoreFailed):
        return error
    text = str(error)
    advice = "see the cause"
    if "full" in text or getattr(error, "errno", None) == 28:
        advice = "free space on its disk"
    elif "locked" in text or "busy" in text:
        advice = "another program holds it open; close that"
    elif "malformed" in text or "not a database" in text:
        advice = "it is damaged: restore it from a snapshot, or move it away to start empty"
    elif isinstance(error, OSError) or "readonly" in text or "unable to open" in text:
        advice = "check that its directory exists and may be written"
    failed = StoreFailed(f"store {path} could not be {wanted}: {text or type(error).__name__}; {advice}")
    failed.__cause__ = error
    return failed
