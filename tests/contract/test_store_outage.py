"""A loop whose store fails, and a store that is opened anew."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from corral.lib.errors import Doubtful, NotFound, Unavailable
from corral.runtime.core import Asked, Effect, Loaded, Persist, Reply
from corral.runtime.loop import Loop
from corral.store.base import StoreFailed
from corral.store.faulty import Fail, FaultyStore, fault_at
from corral.store.lasting import LastingStore
from corral.store.memory import MemoryStore
from corral.store.sqlite import open_sqlite


class Row(msgspec.Struct, frozen=True):
    n: int


class Set(msgspec.Struct, frozen=True):
    n: int


class Look(msgspec.Struct, frozen=True):
    missing: bool = False


class Keeper:
    """Keeps one number."""

    reads = (Look,)

    def __init__(self) -> None:
        self.n = 0

    def handle(self, input: Any, now: float) -> list[Effect]:
        match input:
            case Asked(ask=ask, command=Set(n=n)):
                self.n = n
                return [Persist("n", Row(n)), Reply(ask, n)]
            case Asked(command=Look(missing=True)):
                raise NotFound("nothing of that name")
            case Asked(ask=ask, command=Look()):
                return [Reply(ask, self.n)]
            case Loaded(records=records) if records:
                self.n = msgspec.msgpack.decode(records[0].value, type=Row).n
        return []

    def invariants(self) -> None: ...


class Still:
    def perform(self, effect: Any) -> None: ...
    def flush(self) -> None: ...


@pytest.mark.parametrize("fail", [Fail.BEFORE, Fail.AFTER])
async def test_a_loop_that_ended_with_its_store_still_reads_and_refuses_the_rest(fail: Fail) -> None:
    inner = MemoryStore()
    store = FaultyStore(inner, fault_at(2, fail))
    loop = Loop(Keeper(), Still(), store, prefix="k/")
    running = asyncio.ensure_future(loop.run())
    assert await loop.ask(Set(1)) == 1
    assert loop.ended_at is None
    asked = [asyncio.ensure_future(loop.ask(command)) for command in (Set(2), Look())]
    with pytest.raises(Doubtful, match=r"made to .*; look whether it was done"):
        await asked[0]
    assert await asked[1] in (1, 2), "a question may be asked again"
    with pytest.raises(StoreFailed):
        await running
    assert loop.ended_at is not None
    assert await loop.ask(Look()) in (1, 2)
    with pytest.raises(NotFound):
        await loop.ask(Look(missing=True))
    for _ in range(2):
        with pytest.raises(Unavailable, match=r"takes nothing now, as .*made to .*try again when it is back"):
            await loop.ask(Set(3))
    answers: list[Any] = []
    loop.post(Set(4), lambda value, error: answers.append(error))
    assert isinstance(answers[0], Unavailable)
    # The next reign begins with what was written, and nothing of what was refused.
    again = Loop(Keeper(), Still(), inner, prefix="k/")
    running = asyncio.ensure_future(again.run())
    assert await again.ask(Look()) == (2 if fail is Fail.AFTER else 1)
    again.stop()
    await running


async def test_what_no_turn_had_begun_with_when_the_store_failed_is_surely_not_done() -> None:
    """Another server may be asked for it; the one that was under way may have been done, and must not be repeated."""
    inner = MemoryStore()
    store = FaultyStore(inner, fault_at(2, Fail.AFTER))
    loop = Loop(Keeper(), Still(), store, prefix="k/", drain=1)
    running = asyncio.ensure_future(loop.run())
    assert await loop.ask(Set(1)) == 1
    posted: list[Any] = []
    asked = [asyncio.ensure_future(loop.ask(Set(n))) for n in (2, 3, 4)]
    await asyncio.sleep(0)
    loop.post(Set(5), lambda value, error: posted.append(error))
    found = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(each) for each in (*found, *posted)] == [Doubtful, Unavailable, Unavailable, Unavailable]
    assert [each.status for each in found] == [504, 503, 503]
    with pytest.raises(StoreFailed):
        await running
    assert msgspec.msgpack.decode((await inner.list("k/"))[0].value, type=Row).n == 2


async def test_a_loop_that_never_read_its_records_answers_nothing() -> None:
    store = MemoryStore()
    await store.commit({"k/n": b"\xc1"})
    loop = Loop(Keeper(), Still(), store, prefix="k/")
    with pytest.raises(msgspec.DecodeError):
        await loop.run()
    with pytest.raises(Unavailable):
        await loop.ask(Look())


async def test_a_store_counts_as_open_again_once_it_takes_a_write(tmp_path: Path) -> None:
    path = str(tmp_path / "r.db")
    lasting = LastingStore(await open_sqlite(path), lambda: open_sqlite(path))
    await lasting.commit({"a": b"1"})
    before = lasting.inner
    await lasting.reopen()
    assert lasting.inner is not before
    assert [r.key for r in await lasting.list("")] == ["a"]
    failing = MemoryStore()
    reopened = LastingStore(failing, lambda: _faulty(failing))
    with pytest.raises(StoreFailed):
        await reopened.reopen()
    await lasting.close()


async def _faulty(inner: MemoryStore) -> FaultyStore:
    return FaultyStore(MemoryStore(), fault_at(1, Fail.BEFORE))
