"""The registry over HTTP: what it is now, what changes, what balancers have drained and measured.

One reader of the framework's feed serves all who follow: it asks the core for the apps that changed, a little after the
first change so that a burst is one question, and whoever follows gets whole apps, never pieces of them.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from itertools import count
from typing import Any

import msgspec

from corral.frameworks.services.discovery_spec import (
    Drained,
    GetRegistry,
    GetTraffic,
    ReportTraffic,
    WatchBalancer,
)
from corral.frameworks.services.reader import read_json
from corral.frameworks.services.registry import CHANGED
from corral.lib.errors import CorralError, Invalid
from corral.net.routes import Request, Response, Route, Stream, json_response
from corral.sdk.feed import Feed, Followed, Follower

Ask = Callable[[Any], Awaitable[Any]]

QUIET_S = 10.0
GATHER_S = 0.02
PATIENCE_S = 30.0
LINGER_S = 5.0
MOST_BODY_BYTES = 8 << 20


def registry_routes(ask: Ask, feed: Feed) -> list[Route]:
    """The registry's part of the front door."""
    door = _Registry(ask, feed)
    table: Sequence[tuple[str, str, Any]] = (
        ("GET", "/corral/v1/registry", door.get_registry),
        ("GET", "/corral/v1/registry/watch", door.watch),
        ("POST", "/corral/v1/registry/drained", door.take_drained),
        ("GET", "/corral/v1/registry/traffic", door.get_traffic),
        ("POST", "/corral/v1/registry/traffic", door.take_traffic),
    )
    return [
        Route(method=method, path=path, handler=handler, most_bytes=MOST_BODY_BYTES) for method, path, handler in table
    ]


class _Registry:
    def __init__(self, ask: Ask, feed: Feed) -> None:
        self._ask = ask
        self._source = feed
        self._changes = Feed(linger_s=LINGER_S)
        self._changes.attach(self._followed)
        self._pump: asyncio.Task[None] | None = None
        self._names = count(1)

    async def get_registry(self, request: Request) -> Response:
        apps = tuple(request.query.get("app", ())) or None
        return json_response({"apps": await self._ask(GetRegistry(apps=apps))})

    async def watch(self, request: Request) -> Stream:
        groups = tuple(g.strip() for text in request.query.get("group", ()) for g in text.split(",") if g.strip())
        name = f"{request.first('balancer')}#{next(self._names)}" if request.first("balancer") else ""
        follower = self._changes.follow()
        return Stream(
            chunks=self._lines(follower, name, groups),
            content_type="application/x-ndjson",
            headers={"Cache-Control": "no-cache"},
            close=follower.close,
            patience_s=PATIENCE_S,
        )

    async def _lines(self, follower: Follower, name: str, groups: tuple[str, ...]) -> AsyncIterator[bytes]:
        try:
            if name:
                await self._ask(WatchBalancer(name=name, groups=groups))
            yield _line({"snapshot": True, "balancer": name, "apps": await self._ask(GetRegistry())})
            async for batch in follower.batches(QUIET_S):
                yield b"".join(event.data + b"\n" for event in batch) or b"{}\n"
        finally:
            if name:
                await asyncio.shield(asyncio.ensure_future(self._leave(name)))

    async def _leave(self, name: str) -> None:
        try:
            await self._ask(WatchBalancer(name=name, present=False))
        except CorralError:
            return  # The framework ends too: nobody is known to its next life.

    def _followed(self, input: Any) -> None:
        """Read the framework's feed for as long as somebody follows the registry."""
        if isinstance(input, Followed) and input.by_anybody and self._pump is None:
            self._pump = asyncio.ensure_future(self._read())
        elif self._pump is not None:
            self._pump.cancel()
            self._pump = None

    async def _read(self) -> None:
        while True:
            follower = self._source.follow()
            try:
                await self._publish(None)  # whatever was missed before
                async for batch in follower.batches(QUIET_S):
                    named = {msgspec.json.decode(e.data)["appId"] for e in batch if e.kind == CHANGED}
                    if named:
                        await self._publish(named)
                        await asyncio.sleep(GATHER_S)
            except CorralError:
                return
            finally:
                follower.close()

    async def _publish(self, named: set[str] | None) -> None:
        apps = await self._ask(GetRegistry(apps=None if named is None else tuple(named)))
        gone = [] if named is None else sorted(named - {app["id"] for app in apps})
        self._changes.publish("registry", {"apps": apps, "gone": gone})

    async def take_drained(self, request: Request) -> Response:
        body = _read(request.body, _DrainedBody)
        await self._ask(Drained(balancer=body.balancer, instances=body.instances))
        return json_response({})

    async def take_traffic(self, request: Request) -> Response:
        body = _read(request.body, _TrafficBody)
        await self._ask(ReportTraffic(balancer=body.balancer, apps=body.apps, queues=body.queues))
        return json_response({})

    async def get_traffic(self, request: Request) -> Response:
        return json_response({"apps": await self._ask(GetTraffic())})


class _DrainedBody(msgspec.Struct, frozen=True):
    balancer: str
    instances: tuple[str, ...]


class _TrafficBody(msgspec.Struct, frozen=True):
    balancer: str
    apps: dict[str, float]
    queues: dict[str, float] = {}


def _read(body: bytes, kind: Any) -> Any:
    try:
        return msgspec.convert(read_json(body), kind)
    except msgspec.ValidationError as error:
        raise Invalid(f"the body is not what this path takes: {error}; docs/api/routes.md shows its form") from None


def _line(value: Any) -> bytes:
    return msgspec.json.encode(value) + b"\n"
