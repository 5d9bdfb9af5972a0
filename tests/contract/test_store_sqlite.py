"""What only a file can get wrong: other processes, damage, a full disk, a killed writer."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from corral.store.base import Compacted, Guard, StoreFailed
from corral.store.sqlite import SqliteStore, open_sqlite


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "records.db")


async def test_records_and_revisions_outlive_the_process(path: str) -> None:
    store = await open_sqlite(path)
    await store.commit({"a": b"1"})
    revision = await store.commit({"b": b"2"})
    await store.close()
    again = await open_sqlite(path)
    found = await again.get("b")
    assert found is not None
    assert (found.value, found.revision) == (b"2", revision)
    assert await again.commit({"c": b"3"}, [Guard("b", revision)]) == revision + 1
    await again.close()


async def test_a_watch_from_before_the_opening_is_told_to_list_again(path: str) -> None:
    store = await open_sqlite(path)
    first = await store.commit({"a": b"1"})
    last = await store.commit({"a": b"2"})
    await store.close()
    again = await open_sqlite(path)
    with pytest.raises(Compacted):
        await anext(again.watch("", first))
    waiting = asyncio.ensure_future(anext(again.watch("", last)))
    revision = await again.commit({"a": b"3"})
    assert (await waiting).revision == revision
    await again.close()


async def test_a_lease_is_good_for_its_whole_time_after_a_restart_and_then_ends(path: str) -> None:
    store = await open_sqlite(path)
    lease = await store.grant(0.2)
    await store.commit({"leader": b"me"}, lease=lease)
    await store.close()
    await asyncio.sleep(0.25)
    again = await open_sqlite(path)
    assert await again.get("leader") is not None
    await again.keep_alive(lease)
    async with asyncio.timeout(10):
        while await again.get("leader") is not None:
            await asyncio.sleep(0.02)
    await again.close()


async def test_a_lease_ends_by_itself_while_nobody_calls(path: str) -> None:
    store = await open_sqlite(path)
    lease = await store.grant(0.05)
    start = await store.commit({"leader": b"me"}, lease=lease)
    async with asyncio.timeout(10):
        change = await anext(store.watch("", start))
    assert (change.key, change.value) == ("leader", None)
    await store.close()


async def test_a_second_opening_is_refused_and_names_the_process(path: str) -> None:
    store = await open_sqlite(path)
    with pytest.raises(StoreFailed, match=f"in use by process {os.getpid()}; stop it first"):
        await open_sqlite(path)
    await store.commit({"a": b"1"})
    await store.close()
    await (await open_sqlite(path)).close()


WRITER = """
import asyncio, sys
from corral.store.sqlite import open_sqlite

async def main():
    store = await open_sqlite(sys.argv[1])
    async def write(who):
        for n in range(100000):
            await store.commit({f"{who}/{i}": str(n).encode() for i in range(20)})
            print(who, n, flush=True)
    await asyncio.gather(*(write(who) for who in "abc"))

asyncio.run(main())
"""


async def test_a_killed_writer_has_lost_nothing_it_acknowledged_and_split_nothing(path: str) -> None:
    writer = subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    told: dict[str, int] = {}
    for _ in range(200):
        who, n = writer.stdout.readline().split()
        told[who] = int(n)
    with pytest.raises(StoreFailed, match=f"in use by process {writer.pid}"):
        await open_sqlite(path)
    writer.send_signal(signal.SIGKILL)
    rest, _ = writer.communicate()
    for line in rest.splitlines(keepends=True):
        if line.endswith("\n"):
            who, n = line.split()
            told[who] = int(n)
    store = await open_sqlite(path)
    for who, n in told.items():
        rows = await store.list(f"{who}/")
        assert len(rows) == 20
        assert len({row.value for row in rows}) == 1
        assert int(rows[0].value) >= n
    await store.close()


async def test_a_damaged_file_is_named_with_what_to_do(path: str) -> None:
    store = await open_sqlite(path)
    await store.commit({f"k{n}": os.urandom(500) for n in range(200)})
    await store.close()
    with open(path, "r+b") as file:
        file.seek(8192)
        file.write(b"\xff" * 40000)
    with pytest.raises(StoreFailed, match=r"damaged.*restore it from a snapshot"):
        await open_sqlite(path)


async def test_a_file_that_is_no_database_is_named_so(path: str) -> None:
    Path(path).write_bytes(b"just some text, long enough to be looked at" * 100)
    with pytest.raises(StoreFailed, match="not a database; it is damaged"):
        await open_sqlite(path)


async def test_a_database_of_another_program_is_left_alone(path: str) -> None:
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE theirs (x)")
    db.commit()
    db.close()
    with pytest.raises(StoreFailed, match="of another program; choose another file"):
        await open_sqlite(path)


async def test_a_file_of_a_newer_corral_is_refused(path: str) -> None:
    await (await open_sqlite(path)).close()
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(StoreFailed, match=r"format 99 .* run the newer corral"):
        await open_sqlite(path)


async def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreFailed, match="check that its directory exists and may be written"):
        await open_sqlite(str(tmp_path / "file" / "records.db"))


async def limit_pages(store: SqliteStore) -> None:
    await store._ask(lambda: store._worker._db.execute("PRAGMA max_page_count = 20").fetchone())


async def test_a_full_disk_fails_every_write_of_the_group_and_all_after_it(path: str) -> None:
    store = await open_sqlite(path)
    await store.commit({"kept": b"1"})
    await limit_pages(store)
    results = await asyncio.gather(
        store.commit({"small": b"1"}), store.commit({"big": bytes(200_000)}), return_exceptions=True
    )
    assert all(isinstance(r, StoreFailed) for r in results[1:])
    with pytest.raises(StoreFailed, match="full; free space on its disk"):
        await store.commit({"after": b"1"})
    with pytest.raises(StoreFailed):
        await store.get("kept")
    await asyncio.gather(store.close(), return_exceptions=True)
    again = await open_sqlite(path)
    keys = [r.key for r in await again.list("")]
    assert keys == (["kept", "small"] if isinstance(results[0], int) else ["kept"])
    await again.close()


async def test_the_file_is_for_its_owner_alone(path: str) -> None:
    store = await open_sqlite(path)
    await store.commit({"a": b"1"})
    assert {p.name: oct(p.stat().st_mode & 0o777) for p in Path(path).parent.iterdir()} == dict.fromkeys(
        ["records.db", "records.db-wal", "records.db-shm", "records.db.lock"], "0o600"
    )
    await store.close()


async def test_closing_finishes_what_is_queued_and_twice_is_no_harm(path: str) -> None:
    store = await open_sqlite(path)
    commits = [asyncio.ensure_future(store.commit({str(n): b"x"})) for n in range(20)]
    await asyncio.sleep(0)
    await store.close()
    await store.close()
    assert sorted(await asyncio.gather(*commits)) == list(range(1, 21))
    again = await open_sqlite(path)
    assert len(await again.list("")) == 20
    await again.close()


async def test_a_caller_that_goes_away_does_not_undo_its_write(path: str) -> None:
    store = await open_sqlite(path)
    commit = asyncio.ensure_future(store.commit({"a": b"1"}))
    await asyncio.sleep(0)
    commit.cancel()
    assert await store.get("a") is not None
    await store.close()


async def test_a_busy_event_loop_does_not_starve_the_writer(path: str) -> None:
    """With Python's own switch interval a loop that is busy in slices of 5 ms holds up a commit for seconds."""
    store = await open_sqlite(path)
    loop = asyncio.get_running_loop()
    commits = asyncio.ensure_future(asyncio.gather(*(store.commit({str(n): b"x"}) for n in range(5))))
    start = loop.time()
    while not commits.done():
        end = loop.time() + 0.005
        while loop.time() < end:
            pass
        await asyncio.sleep(0)
    assert loop.time() - start < 1.0
    await store.close()
