"""What only a store behind a network can get wrong: lost answers, members that die or hang, rights, pages, limits."""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web
from tests.own_ports import free_ports

from corral.store.base import Change, Compacted, Guard, GuardFailed, Record, StoreFailed
from corral.store.etcd import EtcdStore, Settings, open_etcd
from etcd_servers import Etcd, ask

Answer = Callable[[web.Request, Callable[[], Awaitable[web.Response]]], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[EtcdStore]:
    store = await open_etcd(settings)
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
def settings(etcd: Etcd, tmp_path: Path) -> Settings:
    return Settings(endpoints=etcd.endpoints, root=f"/{tmp_path.name}/", timeout_s=5.0)


@asynccontextmanager
async def between(etcd: Etcd, answer: Answer) -> AsyncIterator[str]:
    """A member as a network shows it: `answer` may lose, delay or double what goes to etcd and back."""
    async with aiohttp.ClientSession() as session:

        async def serve(request: web.Request) -> web.StreamResponse:
            body = await request.read()

            async def forward() -> web.Response:
                async with session.post(etcd.endpoints[0] + request.path, data=body) as found:
                    return web.Response(status=found.status, body=await found.read(), content_type="application/json")

            return await answer(request, forward)

        runner = web.ServerRunner(web.Server(serve))
        await runner.setup()
        port = free_ports(1)[0]
        await web.TCPSite(runner, "127.0.0.1", port).start()
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            await runner.cleanup()


@asynccontextmanager
async def through(etcd: Etcd, settings: Settings, answer: Answer) -> AsyncIterator[EtcdStore]:
    """A store that reaches etcd over such a network."""
    async with between(etcd, answer) as url, opened(msgspec.structs.replace(settings, endpoints=(url,))) as store:
        yield store


def losing(lost: list[str], *, carried_out: bool) -> Answer:
    """The first transactions named in `lost` get no answer."""

    async def answer(request: web.Request, forward: Callable[[], Awaitable[web.Response]]) -> web.StreamResponse:
        if request.path == "/v3/kv/txn" and lost:
            lost.pop()
            if carried_out:
                await forward()
            assert request.transport is not None
            request.transport.abort()
        return await forward()

    return answer


@pytest.mark.parametrize("carried_out", [True, False])
async def test_a_commit_whose_answer_is_lost_happens_exactly_once(
    etcd: Etcd, settings: Settings, carried_out: bool
) -> None:
    async with opened(settings) as plain:
        first = await plain.commit({"a": b"0"})
        lost = ["one", "two"]
        async with through(etcd, settings, losing(lost, carried_out=carried_out)) as store:
            revision = await store.commit({"a": b"1", "b": b"1"}, [Guard("a", first)])
        assert lost == []
        assert await plain.get("a") == Record("a", b"1", revision)
        async with aclosing(plain.watch("", first)) as changes:
            assert [await anext(changes), await anext(changes)] == [
                Change("a", b"1", revision),
                Change("b", b"1", revision),
            ]
            last = await plain.commit({"c": b"1"})
            assert await anext(changes) == Change("c", b"1", last)


async def test_a_straggler_of_a_commit_whose_guard_failed_never_happens(etcd: Etcd, settings: Settings) -> None:
    held: list[Callable[[], Awaitable[web.Response]]] = []

    async def answer(request: web.Request, forward: Callable[[], Awaitable[web.Response]]) -> web.StreamResponse:
        if request.path == "/v3/kv/txn" and not held:
            held.append(forward)
            assert request.transport is not None
            request.transport.abort()
        return await forward()

    async with opened(settings) as plain:
        await plain.commit({"leader": b"other"})
        async with through(etcd, settings, answer) as store:
            with pytest.raises(GuardFailed) as caught:
                await store.commit({"leader": b"me", "b": b"1"}, [Guard("leader", 0)])
            assert caught.value.key == "leader"
            await plain.commit({"leader": None})
            # Only now, when its guard would hold, does the first attempt reach etcd.
            await held[0]()
            assert await plain.get("leader") is None
            assert await plain.get("b") is None
            assert await store.commit({"leader": b"me"}, [Guard("leader", 0)])


async def test_a_commit_that_nobody_answers_fails_with_what_is_known(etcd: Etcd, settings: Settings) -> None:
    impatient = msgspec.structs.replace(settings, timeout_s=1.0)
    async with through(etcd, impatient, losing(["lost"] * 1000, carried_out=False)) as store:
        with pytest.raises(StoreFailed, match="whether the commit happened is unknown"):
            await store.commit({"a": b"1"})
    nowhere = f"http://127.0.0.1:{free_ports(1)[0]}"
    with pytest.raises(StoreFailed, match="cannot be reached"):
        await open_etcd(msgspec.structs.replace(settings, endpoints=(nowhere,), timeout_s=0.5))


async def test_a_member_that_is_away_is_passed_over(etcd: Etcd, settings: Settings) -> None:
    dead = f"http://127.0.0.1:{free_ports(1)[0]}"
    async with opened(msgspec.structs.replace(settings, endpoints=(dead, *etcd.endpoints))) as store:
        revision = await store.commit({"a": b"1"})
        assert [r.revision for r in await store.list("")] == [revision]


async def test_what_is_no_etcd_is_no_store(settings: Settings, etcd: Etcd) -> None:
    async def answer(request: web.Request, forward: Callable[[], Awaitable[web.Response]]) -> web.StreamResponse:
        return web.Response(text="<html>hello</html>")

    async with between(etcd, answer) as url:
        with pytest.raises(StoreFailed, match="what etcd does not say"):
            await open_etcd(msgspec.structs.replace(settings, endpoints=(url,), timeout_s=0.5))


async def test_a_list_of_many_pages_is_of_one_revision(settings: Settings) -> None:
    async with opened(settings) as store:
        for page in range(3):
            await store.commit({f"k/{page}/{n:04}": b"0" for n in range(1000)})
        listing = asyncio.create_task(store.list("k/"))
        for turn in range(20):
            await store.commit({f"k/{page}/0500": str(turn).encode() for page in range(3)})
        records = await listing
        assert len(records) == 3000
        assert [r.key for r in records] == sorted(r.key for r in records)
        assert len({r.value for r in records if r.key.endswith("/0500")}) == 1


async def test_large_records_are_listed_in_pages_that_pass(settings: Settings) -> None:
    async with opened(settings) as store:
        for n in range(12):
            await store.commit({f"big/{n:02}": bytes([n]) * 1_000_000})
        assert [r.value[:1] for r in await store.list("big/")] == [bytes([n]) for n in range(12)]
        async with aclosing(store.watch("big/", (await store.list("big/"))[0].revision)) as changes:
            assert [(await anext(changes)).key for _ in range(11)] == [f"big/{n:02}" for n in range(1, 12)]


async def test_as_many_keys_as_is_fair_fit_into_one_transaction(settings: Settings) -> None:
    async with opened(settings) as store:
        assert store.fair_writes > 4000
        revision = await store.commit({f"k{n}": b"1" for n in range(store.fair_writes)}, [Guard("g", 0)])
        found = await store.list("k")
        assert len(found) == store.fair_writes
        assert {r.revision for r in found} == {revision}


async def test_what_a_member_does_not_take_is_refused_with_what_to_do(settings: Settings) -> None:
    async with opened(settings) as store:
        most = store.fair_bytes
        await store.commit({"fits": bytes(most - 100)})
        with pytest.raises(StoreFailed, match=r"raise its --max-request-bytes and store.max_request_bytes"):
            await store.commit({"more": bytes(most)})
    async with opened(msgspec.structs.replace(settings, max_request_bytes=1 << 22)) as store:
        with pytest.raises(StoreFailed, match=r"too large|larger than max"):
            await store.commit({"more": bytes(1 << 21)})
        assert await store.get("more") is None
    async with opened(msgspec.structs.replace(settings, max_txn_ops=1000)) as store:
        with pytest.raises(StoreFailed, match=r"lower store.max_txn_ops"):
            await store.commit({f"more{n}": b"" for n in range(900)})
        assert list(await store.list("more")) == []


SMALL = {"max_txn_ops": 16, "max_request_bytes": 65_536}
"""With these a few records are many already."""


async def held(store: EtcdStore) -> dict[str, bytes]:
    return {record.key: record.value for record in await store.list("")}


async def test_a_commit_of_any_size_is_whole_and_leaves_nothing_behind(etcd: Etcd, settings: Settings) -> None:
    parts = msgspec.structs.replace(settings, root=settings.root.rstrip("/") + ".large/")
    async with opened(settings) as store, opened(parts) as beside:
        writes = {f"k{n:05}": bytes([n % 256]) * 400 for n in range(9000)}
        first = await store.commit({"k00000": b"old"})
        with pytest.raises(GuardFailed) as caught:
            await store.commit(writes, [Guard("k00000", first), Guard("other", 7)])
        assert caught.value.key == "other"
        assert await held(store) == {"k00000": b"old"}
        revision = await store.commit(writes, [Guard("k00000", first)])
        assert await held(store) == writes
        assert max(r.revision for r in await store.list("")) < revision
        await store.commit(dict.fromkeys(writes))
        assert await held(store) == {}
        assert await held(beside) == {}


class Dying:
    """Lanes of a process that dies before its `at`-th transaction."""

    def __init__(self, lanes: Any, at: int) -> None:
        self.lanes = lanes
        self.left = at

    async def commit(self, work: Any) -> int:
        self.left -= 1
        if self.left <= 0:
            raise StoreFailed("dead")
        revision: int = await self.lanes.commit(work)
        return revision


@pytest.mark.parametrize("at", range(1, 10))
async def test_a_large_commit_whose_process_dies_is_done_by_whoever_lists_next_or_not_at_all(
    settings: Settings, at: int
) -> None:
    small = msgspec.structs.replace(settings, **SMALL)
    writes = {f"k{n:03}": b"1" for n in range(100)}
    async with opened(small) as dying, opened(small) as other:
        await other.commit({"k000": b"0"})
        dying._large._lanes = Dying(dying._lanes, at)  # type: ignore[assignment]
        with pytest.raises(StoreFailed, match="dead"):
            await dying.commit(writes)
        found = await held(other)
        # Four parts are laid down and the fifth transaction decides.
        assert found == (writes if at > 5 else {"k000": b"0"})
        # What the dead one had still under way comes too late.
        await other.commit({"k000": b"2", "k099": b"2"})
        dying._large._lanes = dying._lanes
        await dying._large.finish()
        assert (await held(other)) == {**found, "k000": b"2", "k099": b"2"}


async def test_a_straggler_of_a_large_commit_overwrites_nothing(settings: Settings) -> None:
    small = msgspec.structs.replace(settings, **SMALL)
    writes = {f"k{n:03}": b"1" for n in range(100)}
    async with opened(small) as late, opened(small) as other:
        late._large._lanes = Dying(late._lanes, 6)  # type: ignore[assignment]
        carry_out, seen = late._large._carry_out, []

        async def remember(*arguments: Any) -> int:
            seen.append(arguments)
            return await carry_out(*arguments)

        late._large._carry_out = remember  # type: ignore[method-assign]
        with pytest.raises(StoreFailed, match="dead"):
            await late.commit(writes)
        assert await held(other) == writes
        await other.commit({"k000": b"2"})
        late._large._lanes = late._lanes
        await carry_out(*seen[0])
        assert (await held(other))["k000"] == b"2"


async def test_nobody_lists_a_part_of_a_large_commit(settings: Settings) -> None:
    small = msgspec.structs.replace(settings, **SMALL)
    async with opened(small) as store, opened(small) as other:
        working = asyncio.create_task(store.commit({f"k{n:03}": b"1" for n in range(400)}))
        seen = set()
        while not working.done():
            seen.add(len(await other.list("k")))
        await working
        seen.add(len(await other.list("k")))
        assert seen <= {0, 400}
        assert 400 in seen


async def test_a_watch_of_compacted_changes_is_told_to_list_again(etcd: Etcd, settings: Settings) -> None:
    async with opened(settings) as store:
        first = await store.commit({"a": b"1"})
        await store.commit({"a": b"2"})
        last = await store.commit({"a": b"3"})
        ask(etcd.endpoints[0], "/v3/kv/compaction", {"revision": str(last), "physical": True})
        with pytest.raises(Compacted) as caught:
            await anext(store.watch("", first))
        assert caught.value.oldest == last
        async with aclosing(store.watch("a", last)) as changes:
            four = await store.commit({"a": b"4"})
            assert await anext(changes) == Change("a", b"4", four)


async def test_stores_of_two_roots_know_nothing_of_each_other(settings: Settings) -> None:
    other = msgspec.structs.replace(settings, root=settings.root.rstrip("/") + "-two/")
    async with opened(settings) as one, opened(other) as two:
        start = await two.commit({"a": b"2"})
        await one.commit({"a": b"1"})
        assert [r.value for r in await two.list("")] == [b"2"]
        async with aclosing(two.watch("", start)) as changes:
            await one.commit({"b": b"1"})
            last = await two.commit({"c": b"2"})
            assert await anext(changes) == Change("c", b"2", last)


async def test_a_closed_store_leaves_no_marker_behind(etcd: Etcd, settings: Settings) -> None:
    root = settings.root.rstrip("/") + ".commits/"
    async with opened(msgspec.structs.replace(settings, root=root)) as markers, opened(settings) as store:
        await asyncio.gather(*(store.commit({f"k{n}": b""}) for n in range(20)))
        assert 1 <= len(await markers.list("")) <= 8
        await store.close()
        assert list(await markers.list("")) == []


async def test_markers_of_long_ago_are_swept_when_a_store_opens(settings: Settings) -> None:
    root = settings.root.rstrip("/") + ".commits/"
    async with opened(msgspec.structs.replace(settings, root=root)) as markers:
        await markers.commit({"old": b"7 1000000000", "new": b"7 9000000000", "odd": b"x"})
        async with opened(settings):
            assert [r.key for r in await markers.list("")] == ["new", "odd"]


async def test_a_commit_goes_on_in_another_lane_when_its_marker_was_taken_away(settings: Settings) -> None:
    root = settings.root.rstrip("/") + ".commits/"
    async with opened(msgspec.structs.replace(settings, root=root)) as markers, opened(settings) as store:
        await store.commit({"a": b"1"})
        await markers.commit({record.key: None for record in await markers.list("")})
        revision = await store.commit({"a": b"2"})
        assert await store.get("a") == Record("a", b"2", revision)


async def test_what_is_guarded_by_a_leaders_key_ends_with_it(settings: Settings) -> None:
    async with opened(settings) as store:
        revision = await store.commit({"leader": b"one"}, [Guard("leader", 0)], await store.grant(60))
        fence = Guard("leader", revision)
        await store.commit({f"k{n}": b"1" for n in range(300)}, [fence, Guard("k0", 0)])
        with pytest.raises(GuardFailed, match="k0"):
            await store.commit({"k0": b"2"}, [fence, Guard("k0", 0)])
        await store.commit({"leader": b"two"})
        with pytest.raises(GuardFailed, match="leader"):
            await store.commit({"k0": b"2"}, [fence])
        found = await store.get("k0")
        assert found is not None
        assert found.value == b"1"


async def take(changes: AsyncIterator[Change], count: int) -> list[str]:
    found = []
    async with asyncio.timeout(30):
        while len(found) < count:
            found.append((await anext(changes)).key)
    return found


async def test_a_cluster_that_loses_members_loses_no_commit_and_no_change(tmp_path: Path) -> None:
    cluster = Etcd(tmp_path, 3)
    try:
        cluster.start()
        async with opened(Settings(endpoints=cluster.endpoints, root="/t/", timeout_s=4.0)) as store:
            lease = await store.grant(60)
            start = await store.commit({"k/0": b""}, lease=lease)
            async with aclosing(store.watch("k/", start)) as changes:
                told = asyncio.create_task(take(changes, 5))
                cluster.members[0].signal(signal.SIGSTOP)
                await store.commit({"k/1": b""})
                cluster.members[0].kill()
                await store.commit({"k/2": b""})
                await store.keep_alive(lease)
                cluster.members[1].kill()
                with pytest.raises(StoreFailed, match="see to it that most of its members run"):
                    await store.commit({"lost": b""})
                cluster.members[0].start()
                cluster.members[1].start()
                for n in range(3, 6):
                    for _ in range(3):
                        try:
                            await store.commit({f"k/{n}": b""}, [Guard(f"k/{n}", 0)])
                            break
                        except StoreFailed:
                            continue
                assert await told == [f"k/{n}" for n in range(1, 6)]
                await store.keep_alive(lease)
                assert len(await store.list("k/")) == 6
    finally:
        cluster.stop()
