"""The transport of a framework in the master's own process: calls and events as they are, nothing encoded."""

from collections.abc import AsyncIterator, Callable

from corral.lib.errors import CorralError, Unavailable
from corral.model.calls import Call, Subscribe
from corral.model.events import Event
from corral.sdk.transport import Endpoint


class LocalTransport:
    """Passes what a framework says to an endpoint in the same process."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._stream_id: str | None = None
        self._events: AsyncIterator[Event] | None = None

    async def call(self, call: Call) -> None:
        """Errors: the `CorralError` of the master; `Unavailable` before SUBSCRIBE."""
        if isinstance(call, Subscribe):
            self._stream_id, self._events = await self._endpoint.subscribe(call)
            return
        if self._stream_id is None:
            raise Unavailable("not subscribed; SUBSCRIBE comes before every other call")
        await self._endpoint.call(call, self._stream_id)

    def send(self, call: Call, failed: Callable[[CorralError], None]) -> None:
        """Hand the call over without waiting; calls are taken in this order."""
        if self._stream_id is None:
            failed(Unavailable("not subscribed; SUBSCRIBE comes before every other call"))
            return
        self._endpoint.send(call, self._stream_id, failed)

    async def events(self) -> AsyncIterator[Event]:
        """The events since SUBSCRIBE, once."""
        events, self._events = self._events, None
        if events is None:
            return
        async for event in events:
            yield event
