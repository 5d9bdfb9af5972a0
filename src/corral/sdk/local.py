"""The transport of a framework in the master's own process: calls and events as they are, nothing encoded."""

from collections.abc import AsyncIterator

from corral.lib.errors import Unavailable
from corral.model.calls import Call, Subscribe
from corral.model.events import Event
from corral.sdk.transport import Endpoint


class LocalTransport:
    """Passes what a framework says to an endpoint, which keeps the order of calls that are started side by side."""

    pipelined = True

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

    async def events(self) -> AsyncIterator[Event]:
        """The events since SUBSCRIBE, once."""
        events, self._events = self._events, None
        if events is None:
            return
        async for event in events:
            yield event
