"""The shell: bounded streams and links, one write per turn, and the endpoint for frameworks in this process."""

import asyncio
from typing import Any

import pytest
from master_stage import agent_info

from corral.lib.errors import Conflict, Invalid
from corral.master.effects import CloseSession, CloseStream, SendEvent, SendOrder
from corral.master.shell import EventStream, MasterShell
from corral.master.spec import AgentClosed, SchedulerCall, SchedulerClosed, SubscribeStream
from corral.model import calls, events
from corral.model.framework import Capability, FrameworkInfo
from corral.model.ids import FrameworkId, TaskId
from corral.model.orders import AcknowledgeUpdate, Order, Ping, Register
from corral.net.stream import FrameReader


class FakeLoop:
    """Remembers what it is told, and answers what it is asked with what the test has laid out."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.asked: list[Any] = []
        self.answer: Any = None

    def tell(self, input: Any) -> None:
        self.told.append(input)

    async def ask(self, command: Any, timeout_s: float | None = None) -> Any:
        self.asked.append(command)
        if isinstance(self.answer, BaseException):
            raise self.answer
        if callable(self.answer):
            self.answer(command)
        return None


@pytest.fixture
def loop() -> FakeLoop:
    return FakeLoop()


@pytest.fixture
def shell(loop: FakeLoop) -> MasterShell:
    made = MasterShell()
    made.attach(loop)
    return made


SUBSCRIBE = calls.Subscribe(info=FrameworkInfo(user="u", name="f"))


async def test_events_reach_the_reader_of_their_stream_and_no_other(shell: MasterShell) -> None:
    one, two = await shell.open_stream(SUBSCRIBE), await shell.open_stream(SUBSCRIBE)
    shell.perform(SendEvent(one.id, events.Heartbeat()))
    shell.perform(SendEvent(one.id, events.Error(message="x")))
    shell.perform(SendEvent("nobody", events.Heartbeat()))
    assert await one.batch() == [events.Heartbeat(), events.Error(message="x")]
    waiting = asyncio.ensure_future(two.batch())
    await asyncio.sleep(0)
    assert not waiting.done()
    shell.perform(SendEvent(two.id, events.Heartbeat()))
    assert await waiting == [events.Heartbeat()]


async def test_a_closed_stream_gives_what_it_holds_and_then_ends(shell: MasterShell, loop: FakeLoop) -> None:
    stream = await shell.open_stream(SUBSCRIBE)
    shell.perform(SendEvent(stream.id, events.Error(message="last")))
    shell.perform(CloseStream(stream.id))
    assert await stream.batch() == [events.Error(message="last")]
    assert await stream.batch() == []
    shell.leave_stream(stream.id, "closed")
    assert loop.told == [], "the core closed it and needs no word of it"


async def test_a_reader_that_leaves_is_told_to_the_core_once(shell: MasterShell, loop: FakeLoop) -> None:
    stream = await shell.open_stream(SUBSCRIBE)
    shell.leave_stream(stream.id, "gone")
    shell.leave_stream(stream.id, "gone")
    assert loop.told == [SchedulerClosed(stream.id, "gone")]


async def test_a_slow_reader_is_cut_off_with_an_error(loop: FakeLoop) -> None:
    shell = MasterShell(most_events=3)
    shell.attach(loop)
    stream = await shell.open_stream(SUBSCRIBE)
    for _ in range(5):
        shell.perform(SendEvent(stream.id, events.Heartbeat()))
    (error,) = await stream.batch()
    assert isinstance(error, events.Error)
    assert "not read" in error.message
    assert await stream.batch() == []
    assert [type(t) for t in loop.told] == [SchedulerClosed]


async def test_a_refused_subscription_leaves_no_stream_behind(shell: MasterShell, loop: FakeLoop) -> None:
    loop.answer = Invalid("no")
    with pytest.raises(Invalid):
        await shell.open_stream(SUBSCRIBE, given_stream="old")
    (asked,) = loop.asked
    assert isinstance(asked, SubscribeStream)
    assert asked.given_stream == "old"
    assert loop.told == [SchedulerClosed(asked.stream, "the request was given up")]


async def test_a_stream_knows_whether_its_framework_understands_refined_reservations(shell: MasterShell) -> None:
    info = FrameworkInfo(user="u", name="f", capabilities=(Capability.RESERVATION_REFINEMENT,))
    assert (await shell.open_stream(calls.Subscribe(info=info))).refinement
    assert not (await shell.open_stream(SUBSCRIBE)).refinement


class FakeSink:
    """Shapes: `writes` are the orders of each write; `left` counts the bytes that nobody reads."""

    def __init__(self, *, reads: bool = True) -> None:
        self.writes: list[list[Order]] = []
        self._reader: FrameReader[Order] = FrameReader(Order)
        self._reads = reads
        self._left = 0

    def write(self, data: bytes) -> int:
        self.writes.append(self._reader.feed(data))
        self._left += 0 if self._reads else len(data)
        return self._left


async def hold(shell: MasterShell, session: str, sink: FakeSink) -> "asyncio.Task[bool]":
    task = asyncio.ensure_future(shell.open_link(session).hold(sink))
    await asyncio.sleep(0)
    return task


async def test_what_a_turn_orders_leaves_as_one_write(shell: MasterShell) -> None:
    sink = FakeSink()
    held = await hold(shell, "s", sink)
    shell.perform(SendOrder("s", Ping(1)))
    shell.perform(SendOrder("s", Ping(2)))
    shell.perform(SendOrder("nobody", Ping(3)))
    assert sink.writes == [], "nothing leaves before the end of the turn"
    shell.flush()
    assert sink.writes == [[Ping(1), Ping(2)]]
    shell.close()
    assert await held


async def test_an_order_that_comes_before_the_answer_has_begun_is_its_first(shell: MasterShell) -> None:
    sink = FakeSink()
    link = shell.open_link("s")
    shell.perform(SendOrder("s", Ping(1)))
    shell.flush()
    held = asyncio.ensure_future(link.hold(sink))
    await asyncio.sleep(0)
    assert sink.writes == [[Ping(1)]]
    link.close()
    assert await held


async def test_acknowledgements_wait_a_little_for_an_order_to_go_with(
    shell: MasterShell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("corral.master.shell.LATE_S", 0.02)
    one, two = FakeSink(), FakeSink()
    held = [await hold(shell, "one", one), await hold(shell, "two", two)]
    done = AcknowledgeUpdate(1, FrameworkId("f"), TaskId("t"), bytes(16))
    for session in ("one", "two"):
        shell.perform(SendOrder(session, done))
    shell.flush()
    assert one.writes == two.writes == []
    shell.perform(SendOrder("one", Ping(1)))
    shell.flush()
    assert one.writes == [[done, Ping(1)]]
    await asyncio.sleep(0.05)
    assert (len(one.writes), two.writes) == (1, [[done]])
    shell.close()
    assert await asyncio.gather(*held) == [True, True]


async def test_the_last_order_before_a_close_is_still_sent(shell: MasterShell, loop: FakeLoop) -> None:
    sink = FakeSink()
    held = await hold(shell, "s", sink)
    shell.perform(SendOrder("s", Ping(1)))
    shell.perform(CloseSession("s"))
    shell.flush()
    assert sink.writes == [[Ping(1)]]
    assert await held
    shell.end_link("s", "both halves ended")
    assert loop.told == []


async def test_an_agent_that_does_not_read_is_cut_off(loop: FakeLoop) -> None:
    shell = MasterShell(most_order_bytes=20)
    shell.attach(loop)
    held = await hold(shell, "s", FakeSink(reads=False))
    for _ in range(5):
        shell.perform(SendOrder("s", Ping(1)))
        shell.flush()
    assert not await held
    assert loop.told == [AgentClosed("s", "the agent read its orders too slowly")]


def test_a_session_is_opened_once(shell: MasterShell) -> None:
    shell.open_link("s")
    with pytest.raises(Invalid, match="open already"):
        shell.open_link("s")


def test_an_effect_of_another_component_is_a_bug(shell: MasterShell) -> None:
    with pytest.raises(TypeError, match="cannot perform"):
        shell.perform(Register(agent_info()))


async def test_the_endpoint_gives_a_stream_and_takes_calls_with_its_id(shell: MasterShell, loop: FakeLoop) -> None:
    stream_id, read = await shell.subscribe(SUBSCRIBE)
    shell.perform(SendEvent(stream_id, events.Heartbeat()))
    assert await anext(read) == events.Heartbeat()
    call = calls.Revive(framework_id=FrameworkId("f"))
    await shell.call(call, stream_id)
    assert loop.asked[-1] == SchedulerCall(call=call, stream=stream_id)
    await read.aclose()  # type: ignore[attr-defined]
    assert loop.told == [SchedulerClosed(stream_id, "the framework stopped reading")]


async def test_the_endpoint_passes_on_how_the_core_refuses(shell: MasterShell, loop: FakeLoop) -> None:
    loop.answer = Conflict("busy")
    with pytest.raises(Conflict):
        await shell.call(calls.Revive(framework_id=FrameworkId("f")), "s")
    with pytest.raises(Invalid):
        await shell.call(SUBSCRIBE, "s")
    with pytest.raises(Invalid):
        await shell.subscribe(calls.Revive(framework_id=FrameworkId("f")))


async def test_streams_can_be_read_by_one_waiter_after_another() -> None:
    stream = EventStream("x", refinement=False)
    for _ in range(3):
        first = asyncio.ensure_future(stream.batch())
        await asyncio.sleep(0)
        stream.put(events.Heartbeat())
        assert len(await first) == 1
