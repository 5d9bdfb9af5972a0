"""Carries the master's words: event streams to frameworks and operators, links to agents, the endpoint for frameworks
inside.

Rule: nobody who reads slowly makes the master hold more than a bounded amount for him; he is cut off and told so.
"""

import asyncio
import uuid
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

from corral.lib.errors import CorralError, Invalid
from corral.master.effects import CloseSession, CloseStream, SendEvent, SendOrder, TellWatchers
from corral.master.spec import (
    AgentClosed,
    Attempt,
    PrepareViews,
    SchedulerCall,
    SchedulerClosed,
    SubscribeStream,
    WatchCluster,
    WatcherClosed,
)
from corral.mesos import recordio
from corral.mesos.snapshot import ClusterSnapshot
from corral.mesos.watch import write_event
from corral.model import calls, events
from corral.model.framework import Capability
from corral.model.ids import FrameworkId
from corral.model.orders import AcknowledgeUpdate, Order
from corral.net.stream import pack

MOST_EVENTS = 100_000
MOST_ORDER_BYTES = 64 << 20
MOST_WATCHERS = 1000
MOST_WATCH_BYTES = 32 << 20
LATE_S = 0.25
"""How long acknowledgements wait for an order that takes them along: no task waits for them."""
_MOST_PREPARATIONS = 250


class LoopHandle(Protocol):
    """What the shell needs of the loop that performs with it."""

    def tell(self, input: Any) -> None: ...
    async def ask(self, command: Any, timeout_s: float | None = None) -> Any: ...
    def post(self, command: Any, answer: Callable[[Any, CorralError | None], None]) -> None: ...


class _Outlet:
    """What waits here for one reader, who is woken when there is more or when it has ended."""

    __slots__ = ("_closed", "_news")

    def __init__(self) -> None:
        self._news: asyncio.Future[None] | None = None
        self._closed = False

    def close(self) -> None:
        """What is queued is still read, then the stream ends."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        news = self._news
        if news is not None:
            self._news = None
            if not news.done():
                news.set_result(None)

    async def _wait(self) -> None:
        if self._news is None:
            self._news = asyncio.get_running_loop().create_future()
        await self._news


class EventStream(_Outlet):
    """The events of one subscription, for one reader."""

    __slots__ = ("_events", "_most", "framework_id", "id", "refinement")

    def __init__(self, id: str, *, refinement: bool, most: int = MOST_EVENTS) -> None:
        super().__init__()
        self.id = id
        self.framework_id: FrameworkId | None = None
        self.refinement = refinement
        self._most = most
        self._events: deque[events.Event] = deque()

    def put(self, event: events.Event) -> bool:
        """Queue an event; False when the reader is too far behind, and then the stream is over."""
        if self._closed:
            return True
        if isinstance(event, events.Subscribed):
            self.framework_id = event.framework_id
        if len(self._events) >= self._most:
            self._events.clear()
            self._events.append(events.Error(message=f"more than {self._most} events were not read; subscribe again"))
            self.close()
            return False
        self._events.append(event)
        self._wake()
        return True

    async def batch(self) -> list[events.Event]:
        """All events that wait, at least one; empty when the stream has ended."""
        while not self._events and not self._closed:
            await self._wait()
        found = list(self._events)
        self._events.clear()
        return found


class WatchStream(_Outlet):
    """What one who follows the cluster is yet to be sent, as records."""

    __slots__ = ("_bytes", "_most", "_records", "id")

    def __init__(self, id: str, *, most: int = MOST_WATCH_BYTES) -> None:
        super().__init__()
        self.id = id
        self._most = most
        self._bytes = 0
        self._records: list[bytes] = []

    def put(self, record: bytes) -> bool:
        """Queue a record; False when the reader is too far behind, and then the stream is over at once."""
        if self._closed:
            return True
        self._bytes += len(record)
        if self._bytes > self._most:
            self._records.clear()
            self.close()
            return False
        self._records.append(record)
        self._wake()
        return True

    async def batch(self) -> bytes:
        """All records that wait, at least one; empty when the stream has ended."""
        while not self._records and not self._closed:
            await self._wait()
        found = b"".join(self._records)
        self._records.clear()
        self._bytes = 0
        return found


class Sink(Protocol):
    """Where a link's bytes go."""

    def write(self, data: bytes) -> int:
        """Send the data, never waiting; returns how many bytes have not left yet."""


class AgentLink:
    """The orders half of an agent's session: what a turn sends leaves as one write.

    Shapes: `most` bounds the bytes that wait for the agent to read them.
    """

    __slots__ = ("_closed", "_ended", "_keeps_up", "_most", "_orders", "_sink", "session")

    def __init__(self, session: str, *, most: int = MOST_ORDER_BYTES) -> None:
        self.session = session
        self._most = most
        self._orders: list[Order] = []
        self._sink: Sink | None = None
        self._ended: asyncio.Future[None] | None = None
        self._closed = False
        self._keeps_up = True

    def put(self, order: Order) -> None:
        self._orders.append(order)

    def flush(self) -> bool:
        """Send what was put; False when the agent is too far behind."""
        if self._orders and self._sink is not None:
            self._keeps_up = self._sink.write(pack(self._orders)) <= self._most
            self._orders.clear()
        return self._keeps_up

    @property
    def closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        """What was put is still sent, then the link ends."""
        if self._closed:
            return
        self.flush()
        self._closed = True
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)

    async def hold(self, sink: Sink) -> bool:
        """Send to `sink` from now on, what was put before too; returns when the link has ended, whether all was read
        in time."""
        self._sink = sink
        self.flush()
        if not self._closed:
            self._ended = asyncio.get_running_loop().create_future()
            await self._ended
        return self._keeps_up


async def prepare_views(loop: LoopHandle) -> None:
    """Have made, a little in each turn, what a view of all agents needs; what changes meanwhile is little."""
    for _ in range(_MOST_PREPARATIONS):
        if not await loop.ask(PrepareViews()):
            return


class MasterShell:
    """Performs the master's effects, and is the endpoint of frameworks in this process. `attach` comes before use.

    Shapes: `most_events`, `most_order_bytes` and `most_watch_bytes` bound what waits for one reader.
    """

    def __init__(
        self,
        *,
        most_events: int = MOST_EVENTS,
        most_order_bytes: int = MOST_ORDER_BYTES,
        most_watch_bytes: int = MOST_WATCH_BYTES,
        most_watchers: int = MOST_WATCHERS,
    ) -> None:
        self._most_events = most_events
        self._most_watch_bytes = most_watch_bytes
        self._most_watchers = most_watchers
        self._most_order_bytes = most_order_bytes
        self._loop: LoopHandle | None = None
        self._streams: dict[str, EventStream] = {}
        self._watches: dict[str, WatchStream] = {}
        self._links: dict[str, AgentLink] = {}
        self._touched: dict[str, AgentLink] = {}
        self._late: dict[str, AgentLink] = {}
        self._late_timer: asyncio.TimerHandle | None = None

    def attach(self, loop: LoopHandle) -> None:
        self._loop = loop

    @property
    def loop(self) -> LoopHandle:
        assert self._loop is not None, "attach() gives the shell its loop before anything is served"
        return self._loop

    # Effects.

    def perform(self, effect: Any) -> None:
        match effect:
            case SendEvent(stream, event):
                found = self._streams.get(stream)
                if found is not None and not found.put(event):
                    self._end_stream(stream, "it read too slowly")
            case TellWatchers(told):
                record = recordio.encode(write_event(told))
                for watch in [each for each in self._watches.values() if not each.put(record)]:
                    self.leave_watch(watch.id)
            case SendOrder(session, order):
                link = self._links.get(session)
                if link is not None:
                    link.put(order)
                    (self._late if order.__class__ is AcknowledgeUpdate else self._touched)[session] = link
            case CloseStream(stream, _):
                ended = self._streams.pop(stream, None)
                if ended is not None:
                    ended.close()
            case CloseSession(session, _):
                closed = self._links.pop(session, None)
                self._touched.pop(session, None)
                self._late.pop(session, None)
                if closed is not None:
                    closed.close()
            case _:
                raise TypeError(f"the master's shell cannot perform {type(effect).__name__}")

    def flush(self) -> None:
        for session, link in self._touched.items():
            self._late.pop(session, None)
            self._flush(link)
        self._touched.clear()
        if self._late and self._late_timer is None:
            self._late_timer = asyncio.get_running_loop().call_later(LATE_S, self._flush_late)

    def _flush_late(self) -> None:
        self._late_timer = None
        for link in self._late.values():
            self._flush(link)
        self._late.clear()

    def _flush(self, link: AgentLink) -> None:
        if not link.flush():
            self.end_link(link.session, "the agent read its orders too slowly")

    def close(self) -> None:
        """The loop has ended: whoever listens here has to come again."""
        for outlet in (*self._streams.values(), *self._watches.values()):
            outlet.close()
        for link in self._links.values():
            link.close()
        self._streams.clear()
        self._watches.clear()
        self._links.clear()
        self._touched.clear()
        self._late.clear()
        if self._late_timer is not None:
            self._late_timer.cancel()

    # Event streams.

    def is_subscribed(self, framework_id: FrameworkId) -> bool:
        """Whether somebody reads the events of this framework."""
        return any(stream.framework_id == framework_id for stream in self._streams.values())

    async def open_stream(
        self,
        call: calls.Subscribe,
        *,
        principal: str | None = None,
        given_stream: str | None = None,
        attempt: Attempt | None = None,
    ) -> EventStream:
        """Subscribe; the caller reads the stream and calls `leave_stream` when its reader is gone.

        Errors: `CorralError` as the core refuses the call.
        """
        refinement = call.info.can(Capability.RESERVATION_REFINEMENT)
        stream = EventStream(str(uuid.uuid4()), refinement=refinement, most=self._most_events)
        self._streams[stream.id] = stream
        command = SubscribeStream(
            stream=stream.id, call=call, principal=principal, given_stream=given_stream, attempt=attempt
        )
        accepted = False
        try:
            await self.loop.ask(command)
            accepted = True
        finally:
            if not accepted:
                # Whoever gave the request up may have left before the core saw it: then it must not stay subscribed.
                self.leave_stream(stream.id, "the request was given up")
        return stream

    def leave_stream(self, stream_id: str, why: str) -> None:
        """The reader is gone; nothing happens when the stream had ended."""
        stream = self._streams.pop(stream_id, None)
        if stream is not None:
            stream.close()
            self.loop.tell(SchedulerClosed(stream_id, why))

    def _end_stream(self, stream_id: str, why: str) -> None:
        del self._streams[stream_id]
        self.loop.tell(SchedulerClosed(stream_id, why))

    # Those who follow the cluster.

    async def open_watch(self) -> tuple[WatchStream, ClusterSnapshot]:
        """Follow the cluster: what it is now, and what happens from then on. The caller calls `leave_watch` at its end.

        Shapes: when too many follow, whoever does so for longest is let go.
        """
        await prepare_views(self.loop)
        while len(self._watches) >= self._most_watchers:
            self.leave_watch(next(iter(self._watches)))
        stream = WatchStream(str(uuid.uuid4()), most=self._most_watch_bytes)
        self._watches[stream.id] = stream
        accepted = False
        try:
            snapshot = await self.loop.ask(WatchCluster(stream.id))
            accepted = True
        finally:
            if not accepted:
                self.leave_watch(stream.id)
        return stream, snapshot

    def leave_watch(self, stream_id: str) -> None:
        """One who followed is gone, or shall be; nothing happens when he is already."""
        stream = self._watches.pop(stream_id, None)
        if stream is not None:
            stream.close()
            self.loop.tell(WatcherClosed(stream_id))

    # Agent links.

    def open_link(self, session: str) -> AgentLink:
        """Errors: `Invalid` when a link of that session is open."""
        if session in self._links:
            raise Invalid(f"session {session} is open already; dial with a new session id")
        link = self._links[session] = AgentLink(session, most=self._most_order_bytes)
        return link

    def link(self, session: str) -> AgentLink | None:
        return self._links.get(session)

    def end_link(self, session: str, why: str) -> None:
        """One half broke; both end. Nothing happens when the link had ended."""
        link = self._links.pop(session, None)
        if link is not None:
            link.close()
            self.loop.tell(AgentClosed(session, why))

    # The endpoint for frameworks in this process (`sdk.transport.Endpoint`).

    async def subscribe(self, call: calls.Call) -> tuple[str, AsyncIterator[events.Event]]:
        """Open a stream; leaving the iterator ends it.

        Errors: `Invalid` when the call is no SUBSCRIBE.
        """
        if not isinstance(call, calls.Subscribe):
            raise Invalid("the call that opens a stream must be SUBSCRIBE")
        stream = await self.open_stream(call)
        return stream.id, self._read(stream)

    async def _read(self, stream: EventStream) -> AsyncIterator[events.Event]:
        try:
            while batch := await stream.batch():
                for event in batch:
                    yield event
        finally:
            self.leave_stream(stream.id, "the framework stopped reading")

    async def call(self, call: calls.Call, stream_id: str) -> None:
        """Errors: `CorralError` as over HTTP."""
        if isinstance(call, calls.Subscribe):
            raise Invalid("SUBSCRIBE opens a stream; call subscribe")
        await self.loop.ask(SchedulerCall(call=call, stream=stream_id))

    def send(self, call: calls.Call, stream_id: str, failed: Callable[[CorralError], None]) -> None:
        """As `call`, but nobody waits: `failed` is called with the error if there is one."""

        def answer(_: Any, error: CorralError | None) -> None:
            if error is not None:
                failed(error)

        self.loop.post(SchedulerCall(call=call, stream=stream_id), answer)
