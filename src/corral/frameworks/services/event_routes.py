"""Events over HTTP: the stream of server-sent events, and the URLs that are told of each. Decides nothing.

Source: Marathon's contract, section 18.
"""

from collections.abc import AsyncIterator

from corral.frameworks.services import events
from corral.frameworks.services.answers import NO_CACHE, Ask, Table, write_json
from corral.frameworks.services.webhook_spec import AddWebhook, GetWebhooks, RemoveWebhook
from corral.lib.clock import system_clock
from corral.net.routes import Request, Response, Stream
from corral.sdk.feed import Feed, Follower


def event_table(ask: Ask, feed: Feed) -> Table:
    """The part of the front door that tells what happens."""
    door = _Events(ask, feed)
    return (
        ("GET", "/v2/events", door.list_events),
        ("GET", "/v2/eventSubscriptions", door.list_webhooks),
        ("POST", "/v2/eventSubscriptions", door.add_webhook),
        ("DELETE", "/v2/eventSubscriptions", door.remove_webhook),
    )


class _Events:
    def __init__(self, ask: Ask, feed: Feed) -> None:
        self._ask = ask
        self._feed = feed

    async def list_events(self, request: Request) -> Response | Stream:
        if not events.accepts(request.headers.get("accept", "")):
            message = "events come as a stream; ask with the header Accept: text/event-stream"
            return write_json({"message": message}, status=405, headers={"Allow": "GET"})
        feed, remote = self._feed, request.peer
        follower = feed.follow(request.headers.get("last-event-id", ""))
        feed.publish(events.ATTACHED, events.write_attached(events.ATTACHED, remote, system_clock()))

        def leave() -> None:
            follower.close()
            feed.publish(events.DETACHED, events.write_attached(events.DETACHED, remote, system_clock()))

        kinds = events.read_kinds(request.query.get("event_type", ()))
        chunks = self._frames(follower, kinds)
        return Stream(
            chunks=chunks,
            content_type="text/event-stream",
            headers=NO_CACHE,
            close=leave,
            patience_s=2 * events.KEEP_ALIVE_S,
        )

    async def list_webhooks(self, request: Request) -> Response:
        return write_json(await self._ask(request, GetWebhooks()))

    async def add_webhook(self, request: Request) -> Response:
        return write_json(
            await self._ask(request, AddWebhook(url=request.first("callbackUrl"), client_ip=request.peer))
        )

    async def remove_webhook(self, request: Request) -> Response:
        return write_json(
            await self._ask(request, RemoveWebhook(url=request.first("callbackUrl"), client_ip=request.peer))
        )

    async def _frames(self, follower: Follower, kinds: frozenset[str]) -> AsyncIterator[bytes]:
        if follower.lost:
            yield events.write_comment("what happened after that id is no longer kept; get the present state")
        async for batch in follower.batches(events.KEEP_ALIVE_S):
            wanted = [
                events.write_frame(self._feed.id_of(event), event.kind, event.data)
                for event in batch
                if events.is_wanted(event.kind, kinds)
            ]
            # A word even when nothing of it was wanted: a client waits for the first bytes of its answer.
            yield b"".join(wanted) or events.KEEP_ALIVE
        yield events.write_comment("too slow: too much waits to be sent; come back with Last-Event-ID")
