"""Snapshots: from any store into any other, whole or not at all, beside a running master and never under one."""

import asyncio
import io
from pathlib import Path

import pytest
from click.testing import CliRunner

from corral.cli.main import cli
from corral.lib.errors import Conflict, CorralError, Invalid
from corral.standalone.config import StoreSection
from corral.standalone.parts import open_store
from corral.store.base import Store, StoreFailed
from corral.store.etcd import Settings, open_etcd
from corral.store.memory import MemoryStore
from corral.store.snapshot import (
    RESTORING,
    Snapshot,
    read_snapshot,
    restore_snapshot,
    snapshot_of,
    write_snapshot,
)
from corral.store.sqlite import open_sqlite
from corral.store.sqlite_reader import read_sqlite
from etcd_servers import Etcd


async def fill(store: Store, count: int = 30) -> dict[str, bytes]:
    records = {f"services/apps/{n:03}": bytes([n % 256]) * n for n in range(count)}
    records |= {"master/epoch": b"\x01", "é": b""}
    await store.commit(records)
    return records


async def held(store: Store) -> dict[str, bytes]:
    return {r.key: r.value for r in await store.list("")}


async def take(store: Store) -> Snapshot:
    return snapshot_of(await store.list(""), now=1e9, version="1", name="test")


def to_bytes(snapshot: Snapshot) -> bytes:
    file = io.BytesIO()
    write_snapshot(snapshot, file)
    return file.getvalue()


async def test_a_snapshot_brings_every_record_from_sqlite_to_etcd_and_back(etcd: Etcd, tmp_path: Path) -> None:
    path = str(tmp_path / "master.db")
    store = await open_sqlite(path)
    records = await fill(store)
    found = snapshot_of(await read_sqlite(path), now=1e9, version="1", name="x")
    await store.close()
    shared = await open_etcd(Settings(endpoints=etcd.endpoints, root=f"/{tmp_path.name}/"))
    assert await restore_snapshot(shared, found, overwrite=False, shared=True) == 0
    assert await held(shared) == records
    back = MemoryStore()
    await restore_snapshot(back, await take(shared), overwrite=False, shared=False)
    assert await held(back) == records
    await shared.close()


async def test_what_is_written_is_read_again_and_who_leads_is_left_out() -> None:
    store = MemoryStore()
    records = await fill(store)
    await store.commit({"election/master/leader": b"me"})
    found = read_snapshot(io.BytesIO(to_bytes(await take(store))), "f")
    assert {kept.key: kept.value for kept in found.records} == records
    assert (found.header.records, found.header.store) == (len(records), "test")


async def test_no_byte_of_a_snapshot_can_be_changed_or_lost_unseen() -> None:
    store = MemoryStore()
    await fill(store, 3)
    whole = to_bytes(await take(store))
    for at in range(len(whole)):
        with pytest.raises(Invalid):
            read_snapshot(io.BytesIO(whole[:at]), "f")
        with pytest.raises(Invalid):
            read_snapshot(io.BytesIO(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :]), "f")
    with pytest.raises(Invalid, match="checksum"):
        read_snapshot(io.BytesIO(whole + b"x"), "f")


async def test_a_store_that_is_not_empty_is_overwritten_only_when_told() -> None:
    source, target = MemoryStore(), MemoryStore()
    records = await fill(source)
    await target.commit({"old": b"1", "master/epoch": b"7"})
    with pytest.raises(Conflict, match=r"holds 2 records, such as master/epoch; .*--overwrite"):
        await restore_snapshot(target, await take(source), overwrite=False, shared=False)
    assert len(await held(target)) == 2
    assert await restore_snapshot(target, await take(source), overwrite=True, shared=False) == 2
    assert await held(target) == records


async def test_nothing_is_restored_under_a_master_that_leads() -> None:
    source, target = MemoryStore(), MemoryStore()
    await fill(source)
    await target.commit({"election/master/leader": b"me"})
    with pytest.raises(Conflict, match="stop all masters first"):
        await restore_snapshot(target, await take(source), overwrite=True, shared=True)


class Breaking(MemoryStore):
    """Fails at one commit, and takes few keys at once."""

    def __init__(self, fails_at: int) -> None:
        super().__init__(most_writes=10)
        self.fails_at = fails_at
        self.commits = 0

    async def commit(self, *arguments: object, **named: object) -> int:
        self.commits += 1
        if self.commits == self.fails_at:
            raise StoreFailed("made to fail")
        return await super().commit(*arguments, **named)  # type: ignore[arg-type]


@pytest.mark.parametrize("fails_at", range(1, 7))
async def test_a_restore_that_was_interrupted_is_marked_until_it_is_done_again(fails_at: int) -> None:
    source = MemoryStore()
    records = await fill(source)
    target = Breaking(fails_at)
    with pytest.raises(StoreFailed):
        await restore_snapshot(target, await take(source), overwrite=False, shared=False)
    if fails_at > 1:
        assert await target.get(RESTORING) is not None
        with pytest.raises(Conflict, match="restore again"):
            await take(target)
    await restore_snapshot(target, await take(source), overwrite=False, shared=False)
    assert await held(target) == records


async def test_a_daemon_does_not_open_a_store_with_half_a_snapshot(tmp_path: Path) -> None:
    store = await open_sqlite(str(tmp_path / "master.db"))
    await store.commit({RESTORING: b""})
    await store.close()
    for _ in range(2):
        with pytest.raises(StoreFailed, match="run corral snapshot restore again"):
            await open_store("", tmp_path, "master", StoreSection())


def run(*words: str) -> tuple[str, CorralError | None]:
    found = CliRunner().invoke(cli, ["snapshot", *words], catch_exceptions=True)
    if found.exception is not None and not isinstance(found.exception, CorralError | SystemExit):
        raise found.exception
    return found.output, found.exception if isinstance(found.exception, CorralError) else None


async def prepare(path: Path) -> None:
    store = await open_sqlite(str(path))
    await fill(store)
    await store.close()


def test_the_command_saves_inspects_and_restores(tmp_path: Path) -> None:
    asyncio.run(prepare(tmp_path / "one" / "master.db"))
    file, one, two = str(tmp_path / "snap"), str(tmp_path / "one"), str(tmp_path / "two")
    said, _ = run("save", file, "--work-dir", one)
    assert "32 records of sqlite:" in said
    assert (tmp_path / "snap").stat().st_mode & 0o777 == 0o600
    said, _ = run("inspect", file)
    assert "checksum fits" in said
    assert "services/apps 30" in said
    assert "services/apps/029 29" in run("inspect", file, "--keys")[0]
    said, _ = run("restore", file, "--work-dir", two)
    assert said.startswith("32 records")
    _, error = run("restore", file, "--work-dir", two)
    assert isinstance(error, Conflict)
    assert "in place of 32" in run("restore", file, "--work-dir", two, "--overwrite")[0]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("save", "f", "--work-dir", "none"), "there is no store"),
        (("save", "f", "--store", "memory:"), "only sqlite: and etcd: can be saved"),
        (("save", "no/such/f", "--work-dir", "full"), "cannot be written"),
        (("restore", "missing", "--work-dir", "w"), "cannot be read"),
        (("restore", "text", "--work-dir", "w"), "no whole snapshot"),
        (("inspect", "long"), "is no snapshot of corral"),
        (("restore", "text", "--store", "memory:"), "keeps nothing"),
        (("save", "f", "--store", "etcd://127.0.0.1:1", "--set", "store.timeout_s=1"), "has not answered"),
    ],
)
def test_what_cannot_be_done_is_told(
    words: tuple[str, ...], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text").write_text("hello")
    (tmp_path / "long").write_text("hello" * 100)
    asyncio.run(prepare(tmp_path / "full" / "master.db"))
    _, error = run(*words)
    assert error is not None
    assert says in error.message


async def test_a_running_store_is_saved_and_not_restored(tmp_path: Path) -> None:
    store = await open_sqlite(str(tmp_path / "master.db"))
    await fill(store)
    said, error = await asyncio.to_thread(run, "save", str(tmp_path / "f"), "--work-dir", str(tmp_path))
    assert error is None, said
    _, error = await asyncio.to_thread(run, "restore", str(tmp_path / "f"), "--work-dir", str(tmp_path), "--overwrite")
    assert error is not None
    assert "is in use by process" in error.message
    await store.close()
