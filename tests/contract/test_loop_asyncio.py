"""What only the asyncio loop has: slow work, waiting askers, group commit under way, notes to follow, stopping."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any

import msgspec
import pytest

from corral.lib.errors import Doubtful, Failed, Unavailable
from corral.runtime.core import Asked, Effect, Loaded, Note, Persist, Reply, SetTimer, Stop
from corral.runtime.journal import Header, Journal, Replayable, replay
from corral.runtime.loop import Loop
from corral.runtime.notes import Notes
from corral.store.base import Guard, LeaseId, StoreFailed
from corral.store.faulty import Fail, FaultyStore, fault_at
from corral.store.memory import MemoryStore


class Row(msgspec.Struct, frozen=True):
    n: int


class Work(Effect, frozen=True):
    """Awaits what `run` makes."""

    run: Callable[[], Awaitable[Any]]


class Say(Effect, frozen=True):
    n: int


class Echo:
    """Inputs are the effects to return; commands are functions from the ask's number to effects."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def handle(self, input: Any, now: float) -> Sequence[Effect]:
        self.seen.append(input)
        if isinstance(input, Asked):
            return list(input.command(input.ask))
        return input if isinstance(input, list) else []

    def invariants(self) -> None: ...


class Hands:
    """A shell that awaits `Work` and keeps the rest."""

    def __init__(self) -> None:
        self.done: list[Any] = []

    def perform(self, effect: Any) -> Awaitable[Any] | None:
        self.done.append(effect)
        return effect.run() if isinstance(effect, Work) else None

    def flush(self) -> None: ...


class SlowStore(MemoryStore):
    """Commits wait until `gate` is set, and are counted."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.commits: list[list[str]] = []

    async def commit(
        self, writes: Mapping[str, bytes | None], guards: Sequence[Guard] = (), lease: LeaseId | None = None
    ) -> int:
        self.commits.append(sorted(writes))
        await self.gate.wait()
        return await super().commit(writes, guards, lease)


async def started(loop: Loop) -> "asyncio.Task[int]":
    task = asyncio.create_task(loop.run())
    await loop.ready.wait()
    return task


async def rest() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_inputs_that_come_during_a_commit_share_the_next_one() -> None:
    store, hands = SlowStore(), Hands()
    loop = Loop(Echo(), hands, store, prefix="")
    task = await started(loop)
    loop.tell([Persist("a", Row(1)), Say(1)])
    await rest()
    for n in range(2, 5):
        loop.tell([Persist(f"b{n}", Row(n)), Say(n)])
    await rest()
    assert hands.done == []
    store.gate.set()
    await rest()
    assert store.commits == [["a"], ["b2", "b3", "b4"]]
    assert hands.done == [Say(1), Say(2), Say(3), Say(4)]
    loop.stop()
    assert await task == 0


async def test_a_turn_without_records_needs_no_commit() -> None:
    store = SlowStore()
    loop = Loop(Echo(), Hands(), store, prefix="")
    await started(loop)
    assert await loop.ask(lambda ask: [Reply(ask, "here")]) == "here"
    assert store.commits == []
    loop.stop()


@pytest.mark.parametrize("fail", [Fail.BEFORE, Fail.AFTER])
async def test_after_a_failed_write_nothing_leaves_and_who_waits_is_told(fail: Fail) -> None:
    hands = Hands()
    loop = Loop(Echo(), hands, FaultyStore(MemoryStore(), fault_at(2, fail)), prefix="p/", name="web")
    task = await started(loop)
    loop.tell([Persist("a", Row(1)), Say(1)])
    await rest()
    asking = asyncio.create_task(loop.ask(lambda ask: [Persist("a", Row(2)), Say(2), Reply(ask, 1)]))
    waiting = asyncio.create_task(loop.ask(lambda ask: []))
    with pytest.raises(StoreFailed, match="web could not write 1 records: commit 2"):
        await task
    for asker in (asking, waiting):
        with pytest.raises(Unavailable):
            await asker
    assert hands.done == [Say(1)]
    loop.tell([Say(3)])
    await rest()
    assert hands.done == [Say(1)]


async def test_any_error_of_a_commit_is_a_failed_write() -> None:
    class Broken(MemoryStore):
        async def commit(self, *args: Any, **more: Any) -> int:
            raise OSError("no such disk")

    loop = Loop(Echo(), Hands(), Broken(), prefix="p/")
    task = await started(loop)
    loop.tell([Persist("a", Row(1))])
    with pytest.raises(StoreFailed, match="no such disk"):
        await task


async def test_records_that_cannot_be_read_end_the_process_before_its_first_turn() -> None:
    class Broken(MemoryStore):
        async def list(self, prefix: str) -> Any:
            raise OSError("no such disk")

    core = Echo()
    with pytest.raises(StoreFailed, match="could not read its records: OSError: no such disk"):
        await Loop(core, Hands(), Broken(), prefix="p/").run()
    assert core.seen == []


async def test_results_of_slow_work_become_inputs_and_none_does_not() -> None:
    core = Echo()
    loop = Loop(core, Hands(), MemoryStore(), prefix="")

    async def give(value: Any) -> Any:
        await asyncio.sleep(0)
        return value

    await started(loop)
    loop.tell([Work(lambda: give("a")), Work(lambda: give(None)), Work(lambda: give("b"))])
    await rest()
    assert core.seen[2:] == ["a", "b"]
    loop.stop()


async def test_a_bug_in_slow_work_ends_the_process() -> None:
    async def fail() -> None:
        raise KeyError("bug")

    loop = Loop(Echo(), Hands(), MemoryStore(), prefix="")
    task = await started(loop)
    loop.tell([Work(fail)])
    with pytest.raises(KeyError):
        await task


async def test_a_known_error_of_an_effect_is_noted_and_the_work_goes_on() -> None:
    async def fail() -> None:
        raise Failed("the disk is read-only")

    loop = Loop(Echo(), Hands(), MemoryStore(), prefix="", name="c")
    await started(loop)
    loop.tell([Work(fail)])
    await rest()
    assert [(n.what, n.why, n.facts) for n in loop.notes.since()] == [
        ("effect failed", "the disk is read-only", {"effect": "Work"})
    ]
    assert await loop.ask(lambda ask: [Reply(ask, 1)]) == 1
    loop.stop()


async def test_slow_work_is_cancelled_at_the_end_and_waited_for() -> None:
    ended: list[str] = []

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append("tidied")

    loop = Loop(Echo(), Hands(), MemoryStore(), prefix="")
    task = await started(loop)
    loop.tell([Work(forever)])
    await rest()
    loop.stop(4)
    assert await task == 4
    assert ended == ["tidied"]


async def test_who_asks_waits_no_longer_than_it_wants() -> None:
    loop = Loop(Echo(), Hands(), MemoryStore(), prefix="", name="web")
    await started(loop)
    with pytest.raises(Unavailable, match="web gave no answer within"):
        await loop.ask(lambda ask: [], timeout_s=0.01)
    assert await loop.ask(lambda ask: [Reply(ask, 1)], timeout_s=10) == 1
    loop.stop()


async def test_who_does_not_wait_is_called_with_the_answer_in_order() -> None:
    loop = Loop(Echo(), Hands(), MemoryStore(), prefix="")
    running = await started(loop)
    answers: list[Any] = []

    def refuse(ask: int) -> list[Effect]:
        raise Failed("not today")

    loop.post(lambda ask: [Reply(ask, 1)], lambda value, error: answers.append(value))
    loop.post(refuse, lambda value, error: answers.append(error and error.message))
    loop.post(lambda ask: [], lambda value, error: answers.append(error))
    await rest()
    assert answers == [1, "not today"]
    loop.stop()
    await running
    loop.post(lambda ask: [Reply(ask, 1)], lambda value, error: answers.append(error))
    assert [type(a) for a in answers[2:]] == [Doubtful, Unavailable]


async def test_who_asks_goes_before_what_happens_meanwhile_in_half_of_a_turn_and_in_order() -> None:
    core, store = Echo(), SlowStore()
    loop = Loop(core, Hands(), store, prefix="", drain=4, asks_first=True)
    before = asyncio.create_task(loop.ask(lambda ask: [Reply(ask, "before")]))
    task = await started(loop)
    loop.tell([Persist("a", Row(1))])
    await rest()
    for n in range(4):
        loop.tell([Say(n)])
    asks = [asyncio.create_task(loop.ask(lambda ask, n=n: [Reply(ask, n)])) for n in range(3)]
    await rest()
    assert loop.waiting == 7
    store.gate.set()
    assert [await each for each in (before, *asks)] == ["before", 0, 1, 2]
    kinds = [type(input).__name__ for input in core.seen]
    assert kinds == ["Loaded", "Asked", "list", *["Asked"] * 2, *["list"] * 2, "Asked", *["list"] * 2]
    loop.stop()
    assert await task == 0


class Look(msgspec.Struct, frozen=True):
    """A command that changes nothing."""


class Counting(Echo):
    """Answers a look with how much it has seen."""

    reads = (Look,)

    def handle(self, input: Any, now: float) -> Any:
        if isinstance(input, Asked) and isinstance(input.command, Look):
            return [Say(7), Reply(input.ask, len(self.seen))]
        return super().handle(input, now)


async def test_a_look_between_two_turns_takes_no_turn() -> None:
    hands = Hands()
    loop = Loop(Counting(), hands, MemoryStore(), prefix="", asks_first=True)
    await started(loop)
    turns = loop.turns
    assert await loop.ask(Look()) == 1
    assert loop.turns == turns
    assert hands.done == [Say(7)], "what a look asks to be done is done as in any turn"
    loop.stop()


async def test_a_look_sees_nothing_that_is_not_durable_and_is_answered_before_the_next_turn() -> None:
    store = SlowStore()
    loop = Loop(Counting(), Hands(), store, prefix="", asks_first=True)
    await started(loop)
    loop.tell([Persist("a", Row(1))])
    await rest()
    looks = [asyncio.create_task(loop.ask(Look())) for _ in range(2)]
    loop.tell([Persist("b", Row(1))])
    await rest()
    assert not any(look.done() for look in looks)
    store.gate.set()
    assert [await look for look in looks] == [2, 2]
    loop.stop()


async def test_commands_that_a_full_transaction_left_behind_stay_before_newer_ones() -> None:
    store = SlowStore()
    store.most_writes = 1
    order: list[int] = []

    def command(n: int) -> Callable[[int], list[Effect]]:
        def effects(ask: int) -> list[Effect]:
            order.append(n)
            return [Persist(f"k{n}", Row(n)), Reply(ask, n)]

        return effects

    loop = Loop(Echo(), Hands(), store, prefix="", asks_first=True)
    task = await started(loop)
    first = [asyncio.create_task(loop.ask(command(n))) for n in range(4)]
    await rest()
    later = asyncio.create_task(loop.ask(command(4)))
    await rest()
    store.gate.set()
    await asyncio.gather(*first, later)
    assert order == [0, 1, 2, 3, 4]
    loop.stop()
    assert await task == 0


async def test_who_stops_asking_is_forgotten() -> None:
    loop = Loop(Echo(), Hands(), MemoryStore(), prefix="")
    await started(loop)
    asking = asyncio.create_task(loop.ask(lambda ask: []))
    await rest()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert loop._asks == {}
    loop.stop()


async def test_stopping_finishes_the_turn_under_way_and_leaves_the_rest() -> None:
    store, hands = SlowStore(), Hands()
    loop = Loop(Echo(), hands, store, prefix="")
    task = await started(loop)
    loop.tell([Persist("a", Row(1)), Say(1)])
    await rest()
    loop.tell([Say(2)])
    loop.stop()
    store.gate.set()
    assert await task == 0
    assert hands.done == [Say(1)]


async def test_a_loop_may_be_stopped_before_it_runs() -> None:
    core = Echo()
    loop = Loop(core, Hands(), MemoryStore(), prefix="")
    loop.stop(5)
    assert await loop.run() == 5
    assert core.seen == []


async def test_timers_of_an_ended_loop_are_silent() -> None:
    core = Echo()
    loop = Loop(core, Hands(), MemoryStore(), prefix="")
    task = await started(loop)
    loop.tell([SetTimer("t", 0.01), Stop("enough", 0)])
    await task
    await asyncio.sleep(0.03)
    assert len(core.seen) == 2


async def test_others_run_while_a_loop_is_never_idle() -> None:
    """A store that answers at once must not keep the event loop to itself."""

    class Endless(Echo):
        def handle(self, input: Any, now: float) -> Sequence[Effect]:
            return [Say(1)]

    loop = Loop(Endless(), Hands(), MemoryStore(), prefix="")
    task = asyncio.create_task(loop.run())
    loop._shell.perform = lambda effect: loop.tell("again")  # type: ignore[method-assign]
    async with asyncio.timeout(10):
        for _ in range(100):
            await asyncio.sleep(0)
    assert loop.turns > 10
    loop.stop()
    await task


async def test_notes_carry_numbers_and_may_be_followed_from_any_of_them() -> None:
    notes = Notes(most=3)
    loop = Loop(Echo(), Hands(), MemoryStore(), prefix="", name="web", notes=notes)
    await started(loop)
    loop.tell([Note(f"step {n}", "because", facts={"task": f"t{n}"}) for n in range(5)])
    loop.tell([Note("detail", level="debug")])
    await rest()
    kept = notes.since()
    assert [(n.seq, n.component, n.what) for n in kept] == [(n + 1, "web", f"step {n}") for n in (2, 3, 4)]
    assert [n.seq for n in notes.since(4)] == [5]
    assert notes.since(5) == []
    async with aclosing(notes.follow(4)) as following:
        assert (await anext(following)).seq == 5
        waiting = asyncio.ensure_future(anext(following))
        await rest()
        assert not waiting.done()
        loop.tell([Note("step 5")])
        assert (await waiting).what == "step 5"
    loop.stop()


async def test_a_loop_with_a_journal_can_be_replayed_and_tells_when_the_file_is_full(tmp_path: Any) -> None:
    class Add(msgspec.Struct, frozen=True, tag=True):
        n: int

    class Sum(Echo):
        def handle(self, input: Any, now: float) -> Sequence[Effect]:
            return [Persist("n", Row(input.n))] if isinstance(input, Add) else []

    path = str(tmp_path / "j")
    journal = Journal(path, Header(component="sum", seed=0, drain=8), most_bytes=400)
    loop = Loop(Sum(), Hands(), MemoryStore(), prefix="", recorder=journal, drain=8)
    task = await started(loop)
    for n in range(100):
        loop.tell(Add(n))
        await rest()
    assert [n.what for n in loop.notes.since()] == ["journal ended"]
    loop.stop()
    await task
    result = replay(path, {"sum": Replayable(Loaded | Add, lambda header: Sum())})
    assert result.divergence is None
    assert 0 < result.inputs < 101
