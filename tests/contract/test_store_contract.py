"""One suite for every store: records with revisions, guarded commits, watches and leases."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path

import pytest

from corral.store.base import Change, Compacted, Guard, GuardFailed, LeaseId, Record, Store, StoreFailed
from corral.store.etcd import Settings, open_etcd
from corral.store.faulty import FaultyStore
from corral.store.memory import MemoryStore
from corral.store.sqlite import open_sqlite
from etcd_servers import Etcd


async def make_memory(path: Path) -> Store:
    return MemoryStore()


async def make_sqlite(path: Path) -> Store:
    return await open_sqlite(str(path / "records.db"))


async def make_faulty(path: Path) -> Store:
    return FaultyStore(MemoryStore())


@pytest.fixture(params=["memory", "sqlite", "faulty", "etcd"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    if request.param == "etcd":
        etcd: Etcd = request.getfixturevalue("etcd")
        made: Store = await open_etcd(Settings(endpoints=etcd.endpoints, root=f"/{tmp_path.name}/"))
    else:
        make: Callable[[Path], Awaitable[Store]] = {
            "memory": make_memory, "sqlite": make_sqlite, "faulty": make_faulty,
        }[request.param]  # fmt: skip
        made = await make(tmp_path)
    yield made
    await made.close()


async def take(changes: AsyncIterator[Change], count: int) -> list[Change]:
    found: list[Change] = []
    async with asyncio.timeout(10):
        while len(found) < count:
            found.append(await anext(changes))
    return found


async def test_a_key_never_written_is_not_there(store: Store) -> None:
    assert await store.get("a") is None
    assert list(await store.list("")) == []


async def test_a_commit_writes_all_its_keys_at_one_revision(store: Store) -> None:
    revision = await store.commit({"a": b"1", "b": b"2"})
    assert await store.get("a") == Record("a", b"1", revision)
    assert await store.get("b") == Record("b", b"2", revision)


async def test_each_commit_has_a_greater_revision_and_leaves_the_others_alone(store: Store) -> None:
    first = await store.commit({"a": b"1", "b": b"2"})
    second = await store.commit({"b": b"3"})
    assert second > first
    assert await store.get("a") == Record("a", b"1", first)
    assert await store.get("b") == Record("b", b"3", second)


async def test_none_deletes_a_key(store: Store) -> None:
    await store.commit({"a": b"1", "b": b"2"})
    await store.commit({"a": None, "missing": None})
    assert [r.key for r in await store.list("")] == ["b"]


async def test_an_empty_value_is_a_value(store: Store) -> None:
    await store.commit({"a": b""})
    found = await store.get("a")
    assert found is not None
    assert found.value == b""


async def test_a_list_has_the_keys_of_the_prefix_in_order_and_no_others(store: Store) -> None:
    keys = ["a", "a/", "a/1", "a/10", "a/2", "a0", "a/é", "a/\U0001f600", "b/1", "a/\uffff"]
    await store.commit({key: key.encode() for key in keys})
    assert [r.key for r in await store.list("a/")] == sorted(k for k in keys if k.startswith("a/"))
    assert [r.key for r in await store.list("")] == sorted(keys)
    assert [r.key for r in await store.list("a/\uffff")] == ["a/\uffff"]


async def test_wildcards_of_a_database_are_plain_characters(store: Store) -> None:
    await store.commit({"a%b": b"1", "axb": b"2", "a_b": b"3"})
    assert [r.key for r in await store.list("a%")] == ["a%b"]
    assert [r.key for r in await store.list("a_")] == ["a_b"]


async def test_a_large_commit_is_whole(store: Store) -> None:
    revision = await store.commit({f"k{i:04}": bytes(100) for i in range(1000)})
    found = await store.list("k")
    assert len(found) == 1000
    assert {r.revision for r in found} == {revision}
    await store.commit({f"k{i:04}": None for i in range(999)})
    assert [r.key for r in await store.list("k")] == ["k0999"]


async def test_a_guard_that_holds_lets_the_commit_through(store: Store) -> None:
    first = await store.commit({"a": b"1"}, [Guard("a", 0)])
    await store.commit({"a": b"2"}, [Guard("a", first)])
    found = await store.get("a")
    assert found is not None
    assert found.value == b"2"


@pytest.mark.parametrize("wrong", [0, 10_000])
async def test_a_guard_that_fails_names_its_key_and_nothing_is_written(store: Store, wrong: int) -> None:
    await store.commit({"a": b"1"})
    with pytest.raises(GuardFailed) as caught:
        await store.commit({"a": b"2", "b": b"2"}, [Guard("b", 0), Guard("a", wrong)])
    assert caught.value.key == "a"
    assert await store.get("b") is None
    found = await store.get("a")
    assert found is not None
    assert found.value == b"1"


async def test_a_failed_guard_spoils_nobody_elses_commit(store: Store) -> None:
    results = await asyncio.gather(
        store.commit({"a": b"1"}),
        store.commit({"b": b"1"}, [Guard("b", 99)]),
        store.commit({"c": b"1"}),
        return_exceptions=True,
    )
    assert isinstance(results[1], GuardFailed)
    assert [r.key for r in await store.list("")] == ["a", "c"]


async def test_only_one_of_many_can_be_the_first_to_write_a_key(store: Store) -> None:
    results = await asyncio.gather(
        *(store.commit({"leader": str(n).encode()}, [Guard("leader", 0)]) for n in range(10)), return_exceptions=True
    )
    winners = [n for n, result in enumerate(results) if isinstance(result, int)]
    assert len(winners) == 1
    found = await store.get("leader")
    assert found is not None
    assert found.value == str(winners[0]).encode()


async def test_a_commit_of_nothing_still_checks_its_guards(store: Store) -> None:
    revision = await store.commit({"a": b"1"})
    assert await store.commit({}, [Guard("a", revision)]) == revision
    with pytest.raises(GuardFailed):
        await store.commit({}, [Guard("a", 0)])


async def test_commits_at_the_same_time_are_all_durable_with_revisions_of_their_own(store: Store) -> None:
    revisions = await asyncio.gather(*(store.commit({f"k{n}": b"x", "same": str(n).encode()}) for n in range(50)))
    assert len(set(revisions)) == 50
    last = revisions.index(max(revisions))
    found = await store.get("same")
    assert found == Record("same", str(last).encode(), max(revisions))


async def test_a_watch_gets_the_changes_of_its_prefix_in_order(store: Store) -> None:
    start = await store.commit({"a/0": b"old"})
    async with aclosing(store.watch("a/", start)) as changes:
        one = await store.commit({"a/1": b"1", "b/1": b"1"})
        two = await store.commit({"a/1": None})
        await store.commit({"b/2": b"1"})
        three = await store.commit({"a/2": b"2", "a/3": b"3"})
        assert await take(changes, 4) == [
            Change("a/1", b"1", one),
            Change("a/1", None, two),
            Change("a/2", b"2", three),
            Change("a/3", b"3", three),
        ]


async def test_a_watch_waits_for_what_comes(store: Store) -> None:
    start = await store.commit({"a": b"1"})
    async with aclosing(store.watch("", start)) as changes:
        waiting = asyncio.create_task(take(changes, 1))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        revision = await store.commit({"b": b"2"})
        assert await waiting == [Change("b", b"2", revision)]


async def test_a_watch_from_an_old_revision_misses_nothing(store: Store) -> None:
    first = await store.commit({"a": b"1"})
    revisions = [await store.commit({"a": str(n).encode()}) for n in range(5)]
    async with aclosing(store.watch("a", first)) as changes:
        assert [c.revision for c in await take(changes, 5)] == revisions


async def test_deleting_what_is_not_there_is_no_change(store: Store) -> None:
    start = await store.commit({"a": b"1"})
    await store.commit({"missing": None})
    revision = await store.commit({"b": b"1"})
    async with aclosing(store.watch("", start)) as changes:
        assert await take(changes, 1) == [Change("b", b"1", revision)]


async def test_a_watch_that_asks_for_forgotten_changes_is_told_to_list_again(store: Store) -> None:
    await store.commit({"a": b"1"})
    with pytest.raises(Compacted):
        await take(store.watch("", -1), 1)


async def test_a_watch_ends_with_the_store(store: Store) -> None:
    waiting = asyncio.create_task(take(store.watch("", 0), 1))
    await asyncio.sleep(0.01)
    await store.close()
    with pytest.raises(StoreFailed):
        await waiting


async def test_keys_of_a_lease_vanish_when_it_ends(store: Store) -> None:
    lease = await store.grant(0.05)
    await store.commit({"mine": b"1"}, lease=lease)
    start = await store.commit({"other": b"1"})
    changes = await take(store.watch("mine", start), 1) if await becomes_none(store, "mine") else []
    assert [(c.key, c.value) for c in changes] == [("mine", None)]
    assert await store.get("other") is not None


async def becomes_none(store: Store, key: str) -> bool:
    async with asyncio.timeout(10):
        while await store.get(key) is not None:
            await asyncio.sleep(0.01)
    return True


async def test_a_lease_that_is_kept_alive_does_not_end(store: Store) -> None:
    lease = await store.grant(0.3)
    await store.commit({"mine": b"1"}, lease=lease)
    for _ in range(6):
        await asyncio.sleep(0.1)
        await store.keep_alive(lease)
    assert await store.get("mine") is not None


async def test_an_ended_lease_can_neither_be_kept_alive_nor_written_with(store: Store) -> None:
    lease = await store.grant(60)
    await store.revoke(lease)
    with pytest.raises(GuardFailed):
        await store.keep_alive(lease)
    with pytest.raises(GuardFailed):
        await store.commit({"a": b"1"}, lease=lease)
    with pytest.raises(GuardFailed):
        await store.keep_alive(LeaseId(12345))
    assert await store.get("a") is None


async def test_revoking_a_lease_deletes_its_keys_at_once_and_twice_is_no_harm(store: Store) -> None:
    lease = await store.grant(60)
    await store.commit({"b": b"1", "a": b"1"}, lease=lease)
    await store.revoke(lease)
    await store.revoke(lease)
    assert list(await store.list("")) == []


async def test_a_key_written_again_without_the_lease_stays(store: Store) -> None:
    lease = await store.grant(60)
    await store.commit({"a": b"1", "b": b"1"}, lease=lease)
    await store.commit({"a": b"2"})
    await store.revoke(lease)
    assert [r.key for r in await store.list("")] == ["a"]


async def test_leases_have_different_names(store: Store) -> None:
    assert len({await store.grant(60) for _ in range(5)}) == 5


async def test_more_keys_than_the_store_takes_are_refused_whole(store: Store) -> None:
    inner = store.inner if isinstance(store, FaultyStore) else store
    inner.most_writes = 3
    with pytest.raises(StoreFailed, match="more than the 3"):
        await store.commit({str(n): b"" for n in range(4)})


async def test_a_closed_store_takes_nothing(store: Store) -> None:
    await store.close()
    with pytest.raises(StoreFailed):
        await store.commit({"a": b"1"})
