"""The event streams of executors: what the agent says waits here until the executor's connection takes it.

Rule: an executor that reads slowly makes the agent hold no more than a bounded amount; then its stream ends, and it has
to subscribe again.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

from corral.mesos.executor import write_event
from corral.mesos.recordio import encode
from corral.model.executor import Beat, Error, Event

HEARTBEAT_S = 1800.0
MOST_EVENTS = 10_000


class ExecutorStream:
    """The events of one subscription, for one connection. Shapes: `closed` is called once, with why it is over."""

    __slots__ = ("_closed", "_events", "_is_over", "_news", "name")

    def __init__(self, name: str, closed: Callable[[str, str], None]) -> None:
        self.name = name
        self._closed = closed
        self._events: deque[Event] = deque()
        self._news = asyncio.Event()
        self._is_over = False

    def put(self, event: Event) -> bool:
        """Queue an event; False when the reader is too far behind."""
        if self._is_over:
            return True
        if len(self._events) >= MOST_EVENTS:
            self._events.clear()
            self._events.append(Error(message=f"more than {MOST_EVENTS} events were not read; subscribe again"))
            self.close()
            return False
        self._events.append(event)
        self._news.set()
        return True

    def close(self) -> None:
        """What is queued is still read, then the stream ends."""
        self._is_over = True
        self._news.set()

    def leave(self) -> None:
        """The connection is gone."""
        self._closed(self.name, "its connection was closed")

    async def records(self) -> AsyncIterator[bytes]:
        """RecordIO records as they come, with a heartbeat where nothing does."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(HEARTBEAT_S):
                    await self._news.wait()
            self._news.clear()
            events = list(self._events) or ([] if self._is_over else [Beat()])
            self._events.clear()
            if events:
                yield b"".join(encode(write_event(event)) for event in events)
            if self._is_over and not self._events:
                return


class ExecutorStreams:
    """All that are open, by name. Shapes: `closed` hears of those that end from outside, once each."""

    __slots__ = ("_open", "closed")

    def __init__(self) -> None:
        self._open: dict[str, ExecutorStream] = {}
        self.closed: Callable[[str, str], None] | None = None

    def open(self, name: str) -> ExecutorStream:
        stream = self._open[name] = ExecutorStream(name, self.leave)
        return stream

    def tell(self, name: str, event: Event) -> None:
        stream = self._open.get(name)
        if stream is not None and not stream.put(event):
            self.leave(name, "it read too slowly")

    def close(self, name: str) -> None:
        """The core has ended it; nothing is told back."""
        stream = self._open.pop(name, None)
        if stream is not None:
            stream.close()

    def leave(self, name: str, why: str) -> None:
        """Nothing when the stream had ended."""
        stream = self._open.pop(name, None)
        if stream is not None:
            stream.close()
            if self.closed is not None:
                self.closed(name, why)
