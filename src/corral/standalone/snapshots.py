"""Saves, restores and inspects snapshots of the store that a configuration names."""

import asyncio
import contextlib
import os
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from corral import __version__
from corral.lib.clock import system_clock
from corral.lib.errors import Failed, Invalid
from corral.standalone.config import Config, parse_store, read_config
from corral.standalone.parts import choose_work_dir, open_raw_store
from corral.store.base import StoreFailed
from corral.store.snapshot import (
    Snapshot,
    read_snapshot,
    restore_snapshot,
    snapshot_of,
    write_snapshot,
)
from corral.store.sqlite_reader import read_sqlite


def save(file: Path, config_file: str | None, sets: Sequence[str]) -> str:
    """Write the store's records to `file`, whole or not at all; returns what to tell.

    Errors: `Failed` when the store cannot be read; `Invalid` when the file cannot be written.
    """
    config, _ = read_config(config_file, sets)
    try:
        snapshot = asyncio.run(_take(config))
    except StoreFailed as error:
        raise Failed(str(error)) from None
    fresh = file.with_name(file.name + ".new")
    try:
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
            write_snapshot(snapshot, out)
            out.flush()
            os.fsync(out.fileno())
        fresh.replace(file)
    except OSError as error:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise Invalid(f"{file} cannot be written: {error.strerror or error}; name another file") from None
    return f"{file}: {snapshot.header.records} records of {snapshot.header.store}"


def restore(file: Path, config_file: str | None, sets: Sequence[str], *, overwrite: bool) -> str:
    """Make the store hold the file's records; returns what to tell.

    Errors: `Invalid` when the file is no whole snapshot; `Conflict` when the store is in use, or not empty and nobody
    said that it may be overwritten; `Failed` when it cannot be opened or written.
    """
    config, _ = read_config(config_file, sets)
    if parse_store(config.master.store)[0] == "memory":
        raise Invalid("memory: keeps nothing after a process has ended; restore into sqlite: or etcd:")
    snapshot = _read(file)
    try:
        before = asyncio.run(_restore(config, snapshot, overwrite))
    except StoreFailed as error:
        raise Failed(str(error)) from None
    lost = f", in place of {before}" if before else ""
    return f"{snapshot.header.records} records of {file} restored{lost}"


def inspect(file: Path, *, keys: bool = False) -> list[str]:
    """What a snapshot holds, line by line. Errors: `Invalid` when it is no whole snapshot."""
    snapshot = _read(file)
    header = snapshot.header
    taken = datetime.fromtimestamp(header.taken_at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    lines = [f"taken {taken} by corral {header.version} of {header.store}", f"{header.records} records, checksum fits"]
    if keys:
        return [*lines, *(f"{kept.key} {len(kept.value)}" for kept in snapshot.records)]
    kinds = Counter("/".join(kept.key.split("/")[:2]) for kept in snapshot.records)
    return [*lines, *(f"{kind} {count}" for kind, count in sorted(kinds.items()))]


async def _take(config: Config) -> Snapshot:
    kind, rest = parse_store(config.master.store)
    if kind == "memory":
        raise Invalid("memory: is known to its own process alone; only sqlite: and etcd: can be saved")
    now, version = system_clock(), __version__
    if kind == "sqlite":
        path = rest or str(choose_work_dir(config.master.work_dir, "master") / "master.db")
        return snapshot_of(await read_sqlite(path), now=now, version=version, name=f"sqlite:{path}")
    store = await open_raw_store(config.master.store, Path(), "master", config.store)
    try:
        return snapshot_of(await store.list(""), now=now, version=version, name=config.master.store)
    finally:
        await store.close()


async def _restore(config: Config, snapshot: Snapshot, overwrite: bool) -> int:
    work_dir = choose_work_dir(config.master.work_dir, "master")
    store = await open_raw_store(config.master.store, work_dir, "master", config.store)
    try:
        shared = parse_store(config.master.store)[0] == "etcd"
        return await restore_snapshot(store, snapshot, overwrite=overwrite, shared=shared)
    finally:
        await store.close()


def _read(file: Path) -> Snapshot:
    try:
        with file.open("rb") as source:
            return read_snapshot(source, str(file))
    except OSError as error:
        raise Invalid(f"{file} cannot be read: {error.strerror or error}; name a snapshot") from None
