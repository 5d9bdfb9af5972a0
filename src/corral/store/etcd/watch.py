"""Follows the changes of a prefix over broken streams and members that come and go.

What was told is remembered by its revision: the next stream begins right after it, so nothing is missed or told twice.
While a stream is silent its member is asked something now and then; one that cannot answer is left.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping

import msgspec

from corral.store.base import Change, Compacted, StoreFailed
from corral.store.etcd import wire
from corral.store.etcd.gateway import Doubt, Gateway, Refused

WATCH = "/v3/watch"
RANGE = "/v3/kv/range"
SILENCE_S = 5.0
_PAUSE_S = 0.2


async def follow(
    gateway: Gateway, root: bytes, prefix: bytes, after: int, closed: asyncio.Event
) -> AsyncGenerator[Change, None]:
    """Every change below `root + prefix` after the revision, in order, until the store is closed.

    Errors: `Compacted`; `StoreFailed` once `closed`, or when the user may not read this.
    """
    if after < 0:
        raise Compacted(after, 0)
    cut = len(root)
    while True:
        endpoint = gateway.endpoint
        try:
            async with contextlib.aclosing(_listen(gateway, endpoint, root + prefix, after, closed)) as answers:
                async for revision, events in answers:
                    after = max(after, revision)
                    for event in events:
                        yield _change(event, cut)
        except Doubt:
            if closed.is_set():
                raise StoreFailed("the etcd store was closed while it was being watched") from None
            gateway.move_on(endpoint)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(closed.wait(), _PAUSE_S)


def _change(event: wire.Event, cut: int) -> Change:
    key = event.kv.key[cut:].decode("utf-8", "surrogateescape")
    return Change(key, None if event.type == "DELETE" else event.kv.value, event.kv.mod_revision)


async def _listen(
    gateway: Gateway, endpoint: str, prefix: bytes, after: int, closed: asyncio.Event
) -> AsyncGenerator[tuple[int, tuple[wire.Event, ...]], None]:
    """One stream: whole revisions with the revision up to which everything has been told.

    Errors: `Doubt` when it breaks; `Compacted`; `StoreFailed`.
    """
    body = {"create_request": {
        **wire.range_of(prefix), "start_revision": str(after + 1), "progress_notify": True, "fragment": True,
    }}  # fmt: skip
    pieces: tuple[wire.Event, ...] = ()
    async with contextlib.aclosing(_lines(gateway, endpoint, body, closed)) as lines:
        async for line in lines:
            try:
                told = wire.decode(line, wire.StreamAnswer)
                answer = wire.decode(told.result, wire.WatchAnswer) if told.error is None else wire.WatchAnswer()
            except msgspec.DecodeError:
                raise Doubt(f"{endpoint} streams what etcd does not say", sent=True) from None
            if told.error is not None:
                _judge(gateway, told.error, endpoint)
            if answer.compact_revision:
                raise Compacted(after, answer.compact_revision)
            if answer.canceled:
                _judge(gateway, wire.Trouble(message=answer.cancel_reason, code=wire.UNAVAILABLE), endpoint)
            pieces += answer.events
            if answer.fragment or answer.created:
                continue
            yield (pieces[-1].kv.mod_revision if pieces else answer.header.revision), pieces
            pieces = ()


def _judge(gateway: Gateway, trouble: wire.Trouble, endpoint: str) -> None:
    if "permission denied" in trouble.text:
        trouble = wire.Trouble(message=trouble.text, code=wire.PERMISSION_DENIED)
    if gateway.is_stale(trouble):
        gateway.forget_token()
        raise Doubt(f"{endpoint} wants a new token", sent=False)
    try:
        gateway.judge(trouble, endpoint)
    except Refused as refused:
        raise StoreFailed(f"etcd at {endpoint} ended a watch: {refused.text}") from None


async def _lines(
    gateway: Gateway, endpoint: str, body: Mapping[str, object], closed: asyncio.Event
) -> AsyncGenerator[bytes, None]:
    """The stream's lines; it ends with `Doubt` also when the store is closed or its member is found to be no use."""
    lines = gateway.stream(WATCH, body, endpoint)
    ending = asyncio.ensure_future(closed.wait())
    step: asyncio.Future[bytes] | None = None
    try:
        while True:
            step = step or asyncio.ensure_future(anext(lines))
            await asyncio.wait((step, ending), timeout=SILENCE_S, return_when=asyncio.FIRST_COMPLETED)
            if step.done():
                line, step = step.result(), None
                yield line
            elif ending.done():
                raise Doubt("the store is closed", sent=True)
            else:
                await gateway.probe(endpoint)
    finally:
        ending.cancel()
        if step is not None:
            step.cancel()
            with contextlib.suppress(asyncio.CancelledError, Doubt, StoreFailed):
                await step
        await lines.aclose()
