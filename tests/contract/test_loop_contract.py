"""One suite for both runners of a core: the asyncio loop and a process of the simulated world.

Each behaviour is told once, against a `Rig` that hides which of the two it is.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Protocol

import msgspec
import pytest

from corral.lib.errors import Conflict, Failed, Unavailable
from corral.runtime.core import (
    Asked,
    CancelTimer,
    Effect,
    Loaded,
    Persist,
    Refuse,
    Reply,
    SetTimer,
    Stop,
    Tick,
)
from corral.runtime.loop import Loop
from corral.runtime.turn import DRAIN
from corral.sim.world import World
from corral.store.memory import MemoryStore


class Row(msgspec.Struct, frozen=True):
    n: int


class Do(msgspec.Struct, frozen=True, tag=True):
    """An input, or a command, that asks for exactly these effects."""

    effects: tuple[Any, ...]


class Answered(msgspec.Struct, frozen=True, tag=True):
    """An input, or a command, whose effects come from what the core has seen so far."""

    key: str


class Raises(msgspec.Struct, frozen=True, tag=True):
    error: Any


class Result(msgspec.Struct, frozen=True, tag=True):
    n: int


class Say(Effect, frozen=True):
    n: int


class Slow(Effect, frozen=True):
    """Comes back as `Result` later."""

    n: int


class Script:
    """A core that does what its inputs say, and remembers them."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.checked = 0

    def handle(self, input: Any, now: float) -> Sequence[Effect]:
        if isinstance(input, Asked) and isinstance(input.command, Raises):
            raise input.command.error
        if isinstance(input, Raises):
            raise input.error
        self.seen.append(input)
        match input:
            case Asked(ask=ask, command=Do(effects=effects)):
                return [*effects, Reply(ask, len(self.seen))]
            case Asked(command=Answered()):
                return []
            case Do(effects=effects):
                return list(effects)
        return []

    def invariants(self) -> None:
        self.checked += 1


class Rig(Protocol):
    core: Script
    done: list[Any]
    store: MemoryStore

    async def start(self, *early: Any) -> None: ...
    async def rest(self) -> None:
        """Let everything happen that needs no more than a moment."""

    async def wait_s(self, seconds: float) -> None: ...
    def tell(self, input: Any) -> None: ...
    async def ask(self, command: Any) -> Any: ...
    def begin(self, command: Any) -> tuple[Callable[[], bool], Callable[[], Awaitable[Any]]]:
        """Ask without waiting: whether there is an answer, and how to get it."""

    async def end(self) -> int | None:
        """The exit code, once it has ended by itself."""


class AsyncRig:
    """The asyncio loop with a shell that writes down what it is told to do."""

    def __init__(self) -> None:
        self.core = Script()
        self.done: list[Any] = []
        self.store = MemoryStore()
        self.most_writes = 1 << 20

    async def start(self, *early: Any) -> None:
        self.store.most_writes = self.most_writes
        self.loop = Loop(self.core, self, self.store, prefix="c/", check=True)
        for input in early:
            self.loop.tell(input)
        self.task = asyncio.create_task(self.loop.run())
        ready = asyncio.create_task(self.loop.ready.wait())
        await asyncio.wait([self.task, ready], return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()

    async def rest(self) -> None:
        for _ in range(50):
            await asyncio.sleep(0)

    async def wait_s(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def tell(self, input: Any) -> None:
        self.loop.tell(input)

    async def ask(self, command: Any) -> Any:
        return await self.loop.ask(command)

    def begin(self, command: Any) -> tuple[Callable[[], bool], Callable[[], Awaitable[Any]]]:
        task = asyncio.create_task(self.loop.ask(command))

        async def get() -> Any:
            return await task

        return task.done, get

    async def end(self) -> int | None:
        return await self.task

    async def close(self) -> None:
        self.loop.stop()
        await asyncio.gather(self.task, return_exceptions=True)

    def perform(self, effect: Any) -> Awaitable[Any] | None:
        self.done.append(effect)
        if isinstance(effect, Slow):
            return self._slowly(effect.n)
        return None

    async def _slowly(self, n: int) -> Result:
        await asyncio.sleep(0)
        return Result(n)

    def flush(self) -> None:
        self.done.append("flush")


class SimRig:
    """A process of the simulated world with the like shell."""

    def __init__(self) -> None:
        self.done: list[Any] = []
        self.world = World(seed=1)
        self.store = MemoryStore(clock=self.world.clock)
        self.most_writes = 1 << 20
        self.core = Script()
        self.process = self.world.add("c", lambda process: (self.core, self), prefix="c/", store=self.store)

    async def start(self, *early: Any) -> None:
        self.store.most_writes = self.most_writes
        self.process.start()
        for input in early:
            self.tell(input)
        await self.rest()

    async def rest(self) -> None:
        self.world.run(0.008)

    async def wait_s(self, seconds: float) -> None:
        self.world.run(seconds)

    def tell(self, input: Any) -> None:
        self.process.tell(input)

    async def ask(self, command: Any) -> Any:
        answer = self.process.ask(command)
        self.world.run(60.0, lambda: answer.done)
        return answer.get()

    def begin(self, command: Any) -> tuple[Callable[[], bool], Callable[[], Awaitable[Any]]]:
        answer = self.process.ask(command)

        async def get() -> Any:
            return answer.get()

        return lambda: answer.done, get

    async def end(self) -> int | None:
        self.world.run(60.0, lambda: not self.process.up)
        return self.process.exit_code

    async def close(self) -> None: ...

    def perform(self, effect: Any) -> Awaitable[Any] | None:
        self.done.append(effect)
        if isinstance(effect, Slow):
            self.process.tell_after(0.0, Result(effect.n))
        return None

    def flush(self) -> None:
        self.done.append("flush")


@pytest.fixture(params=[AsyncRig, SimRig], ids=["asyncio", "sim"])
async def rig(request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    made = request.param()
    yield made
    await made.close()


def said(rig: Any) -> list[int]:
    return [effect.n for effect in rig.done if isinstance(effect, Say)]


async def stored(rig: Any) -> dict[str, int]:
    return {r.key: msgspec.msgpack.decode(r.value, type=Row).n for r in await rig.store.list("")}


async def test_the_first_input_is_what_the_store_holds_below_the_prefix(rig: Any) -> None:
    row = msgspec.msgpack.encode(Row(1))
    await rig.store.commit({"c/b": row, "c/a": row, "d/x": row})
    await rig.start()
    assert [type(i) for i in rig.core.seen] == [Loaded]
    assert [(s.key, s.value) for s in rig.core.seen[0].records] == [("a", row), ("b", row)]


async def test_inputs_told_before_the_records_are_loaded_come_after_them(rig: Any) -> None:
    await rig.start(Do(()))
    await rig.rest()
    assert [type(i) for i in rig.core.seen] == [Loaded, Do]


async def test_effects_are_performed_in_order_and_the_turn_ends_with_a_flush(rig: Any) -> None:
    await rig.start()
    rig.done.clear()
    rig.tell(Do((Say(1), Say(2))))
    rig.tell(Do((Say(3),)))
    await rig.rest()
    assert rig.done == [Say(1), Say(2), Say(3), "flush"]


async def test_records_are_durable_before_anything_leaves(rig: Any) -> None:
    found: list[dict[str, bytes]] = []
    rig_perform = rig.perform

    def perform(effect: Any) -> Any:
        found.append({key: record.value for key, record in rig.store._records.items()})
        return rig_perform(effect)

    rig.perform = perform
    await rig.start()
    rig.tell(Do((Say(1), Persist("x", Row(7)))))
    await rig.rest()
    assert found == [{"c/x": msgspec.msgpack.encode(Row(7))}]


async def test_the_last_write_of_a_key_in_a_turn_counts(rig: Any) -> None:
    await rig.start()
    rig.tell(Do((Persist("x", Row(1)), Persist("y", Row(1)))))
    rig.tell(Do((Persist("x", Row(2)), Persist("y", None))))
    await rig.rest()
    assert await stored(rig) == {"c/x": 2}


async def test_a_turn_of_many_inputs_is_one_commit(rig: Any) -> None:
    await rig.start()
    before = rig.store._revision
    for n in range(20):
        rig.tell(Do((Persist(str(n), Row(n)),)))
    await rig.rest()
    assert len(await stored(rig)) == 20
    assert rig.store._revision == before + 1


async def test_writes_beyond_what_the_store_takes_spread_over_turns_without_splitting_an_input(rig: Any) -> None:
    rig.most_writes = 3
    await rig.start()
    before = rig.store._revision
    for n in range(4):
        rig.tell(Do((Persist(f"{n}a", Row(n)), Persist(f"{n}b", Row(n)), Say(n))))
    await rig.rest()
    await rig.wait_s(0.05)
    assert said(rig) == [0, 1, 2, 3]
    assert len(await stored(rig)) == 8
    assert rig.store._revision == before + 4
    by_revision: dict[int, set[str]] = {}
    for record in await rig.store.list(""):
        by_revision.setdefault(record.revision, set()).add(record.key)
    assert sorted(map(sorted, by_revision.values())) == [[f"c/{n}a", f"c/{n}b"] for n in range(4)]


async def test_a_command_is_answered_by_its_reply(rig: Any) -> None:
    await rig.start()
    assert await rig.ask(Do(())) == 2


async def test_an_error_raised_on_a_command_is_its_refusal(rig: Any) -> None:
    await rig.start()
    with pytest.raises(Conflict, match="in the way"):
        await rig.ask(Raises(Conflict("x is in the way")))
    assert await rig.ask(Do(())) == 2


async def test_a_command_may_be_answered_or_refused_in_a_later_turn(rig: Any) -> None:
    await rig.start()

    async def later(make: Callable[[int], Effect]) -> Any:
        is_done, get = rig.begin(Answered("x"))
        await rig.rest()
        assert not is_done()
        rig.tell(Do((make(rig.core.seen[-1].ask),)))
        await rig.rest()
        return await get()

    assert await later(lambda ask: Reply(ask, "late")) == "late"
    with pytest.raises(Failed):
        await later(lambda ask: Refuse(ask, Failed("no")))


async def test_a_reply_to_nobody_is_forgotten(rig: Any) -> None:
    await rig.start()
    rig.tell(Do((Reply(99, 1), Refuse(98, Failed("x")), Say(1))))
    await rig.rest()
    assert said(rig) == [1]


async def test_an_error_raised_on_any_other_input_ends_the_process(rig: Any) -> None:
    await rig.start()
    rig.tell(Raises(KeyError("bug")))
    with pytest.raises(KeyError):
        await rig.end()


async def test_a_timer_goes_off_once(rig: Any) -> None:
    await rig.start()
    rig.tell(Do((SetTimer("t", 0.01),)))
    await rig.rest()
    assert Tick("t") not in rig.core.seen
    await rig.wait_s(0.05)
    await rig.wait_s(0.05)
    assert rig.core.seen.count(Tick("t")) == 1


async def test_a_timer_set_again_moves(rig: Any) -> None:
    await rig.start()
    rig.tell(Do((SetTimer("t", 0.01),)))
    rig.tell(Do((SetTimer("t", 5.0),)))
    await rig.wait_s(0.05)
    assert Tick("t") not in rig.core.seen


async def test_a_timer_that_stands_is_left_alone_with_if_unset(rig: Any) -> None:
    await rig.start()
    rig.tell(Do((SetTimer("t", 0.01), SetTimer("t", 5.0, if_unset=True), SetTimer("u", 0.01, if_unset=True))))
    await rig.wait_s(0.05)
    assert Tick("t") in rig.core.seen
    assert Tick("u") in rig.core.seen


async def test_a_cancelled_timer_is_silent_and_cancelling_none_is_no_harm(rig: Any) -> None:
    await rig.start()
    rig.tell(Do((SetTimer("t", 0.01), CancelTimer("t"), CancelTimer("never"))))
    await rig.wait_s(0.05)
    assert Tick("t") not in rig.core.seen


async def test_timers_go_off_in_the_order_of_their_times(rig: Any) -> None:
    await rig.start()
    rig.tell(Do((SetTimer("late", 0.03), SetTimer("early", 0.01))))
    await rig.wait_s(0.1)
    assert [i.name for i in rig.core.seen if isinstance(i, Tick)] == ["early", "late"]


async def test_the_result_of_slow_work_becomes_an_input(rig: Any) -> None:
    await rig.start()
    rig.tell(Do((Slow(5),)))
    await rig.wait_s(0.05)
    assert Result(5) in rig.core.seen


async def test_stop_ends_the_process_after_its_turn_and_nothing_is_decided_after_it(rig: Any) -> None:
    await rig.start()
    rig.tell(Do((Persist("x", Row(1)), Stop("enough", 3), Say(1))))
    rig.tell(Do((Say(2),)))
    assert await rig.end() == 3
    assert said(rig) == [1]
    assert await stored(rig) == {"c/x": 1}


async def test_a_process_that_has_ended_answers_nobody(rig: Any) -> None:
    await rig.start()
    rig.tell(Do((Stop("enough", 0),)))
    await rig.end()
    rig.tell(Do((Say(1),)))
    with pytest.raises(Unavailable):
        await rig.ask(Do(()))
    assert said(rig) == []


async def test_who_waits_for_an_answer_when_it_ends_is_told(rig: Any) -> None:
    await rig.start()
    _, get = rig.begin(Answered("x"))
    await rig.rest()
    rig.tell(Do((Stop("enough", 0),)))
    await rig.end()
    with pytest.raises(Unavailable):
        await get()


async def test_invariants_are_checked_in_every_turn(rig: Any) -> None:
    await rig.start()
    before = rig.core.checked
    rig.tell(Do(()))
    await rig.rest()
    assert rig.core.checked == before + 1


async def test_a_turn_takes_no_more_inputs_than_the_drain(rig: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("corral.runtime.loop.TURN_S", 60.0)
    await rig.start()
    rig.done.clear()
    for n in range(DRAIN + 50):
        rig.tell(Do((Say(n),)))
    await rig.wait_s(0.05)
    assert said(rig) == list(range(DRAIN + 50))
    assert rig.done[DRAIN] == "flush"
