"""Reads an SQLite store beside the process that writes it, for a back-up of a running master."""

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from corral.store.base import Record, StoreFailed
from corral.store.sqlite import APPLICATION_ID, FORMAT


async def read_sqlite(path: str) -> Sequence[Record]:
    """All records of one moment, in key order; nothing is locked and nothing written.

    Errors: `StoreFailed` when there is no such store, or none that this corral reads.
    """
    return await asyncio.to_thread(_read, path)


def _read(path: str) -> Sequence[Record]:
    if not os.path.exists(path):
        raise StoreFailed(f"there is no store {path}; name the one that is meant with --store or --work-dir")
    try:
        uri = f"{Path(path).absolute().as_uri()}?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=5.0)) as db:
            application, version = (
                db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
            )
            if application != APPLICATION_ID or version > FORMAT:
                raise StoreFailed(f"{path} is no store that this corral reads; run the corral that wrote it")
            return [Record(*row) for row in db.execute("SELECT key, value, revision FROM records ORDER BY key")]
    except sqlite3.Error as error:
        raise StoreFailed(f"store {path} could not be read: {error}; see the cause") from error
