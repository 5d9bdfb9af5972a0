"""Runs a framework: its core in a session, on a loop, over a transport.

A framework is four things: what it introduces itself with, a core, its front door, and the prefix of its records.
Whatever else frameworks need (subscription, acknowledgement, reconciliation, reconnection, persistence) is here.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from random import Random
from typing import Any, Protocol

import msgspec

from corral.lib.clock import Clock, FollowingClock, system_clock
from corral.lib.errors import CorralError, Forbidden
from corral.model import calls
from corral.model.framework import Capability, FrameworkInfo
from corral.net.access import NO_ACCESS, Access
from corral.net.routes import RawRoute, Route
from corral.runtime.core import Effect
from corral.runtime.loop import Fence, Loop
from corral.runtime.notes import Notes
from corral.runtime.turn import Recorder
from corral.sdk.effects import Call, Connect, Disconnect, Measure, Notify, Publish, Signal
from corral.sdk.feed import Feed
from corral.sdk.measure import Measurer
from corral.sdk.notify import MailServer, Notifier
from corral.sdk.scheduler import CallFailed, Disconnected, FrameworkCore, Session
from corral.sdk.signals import Signaller
from corral.sdk.transport import PipelinedTransport, Transport
from corral.store.base import Store

CONNECT_TIMEOUT_S = 15.0


class Introduced(Protocol):
    """What the configuration of a first-party framework says of it."""

    @property
    def user(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def role(self) -> str: ...

    @property
    def hostname(self) -> str: ...

    @property
    def scheme(self) -> str: ...

    @property
    def address(self) -> str: ...

    @property
    def failover_timeout_s(self) -> float: ...


def introduce(config: Introduced) -> FrameworkInfo:
    """As what a first-party framework subscribes."""
    return FrameworkInfo(
        user=config.user,
        name=config.name,
        failover_timeout_s=config.failover_timeout_s,
        checkpoint=True,
        roles=(config.role,),
        hostname=config.hostname or None,
        webui_url=f"{config.scheme}://{config.address}/ui/",
        capabilities=(Capability.PARTITION_AWARE, Capability.TASK_KILLING_STATE, Capability.MULTI_ROLE),
    )


class Framework(msgspec.Struct, frozen=True, kw_only=True):
    """What a framework package's `build` returns.

    Shapes: `routes` is given a function that asks the core and returns the front door; `records` ends in a slash;
    `feed` takes what the core publishes; `mail` is where mails of `Notify` leave, None when there is no such place;
    with a `webhook_secret_file` its POSTs are signed.
    With `calendar` the core is told the time of day as the machine has it, though somebody sets it; else a clock that
    never jumps.
    """

    info: FrameworkInfo
    core: FrameworkCore
    records: str
    routes: "Callable[[Callable[[Any], Awaitable[Any]]], Sequence[Route | RawRoute]]" = lambda ask: ()
    feed: Feed | None = None
    mail: MailServer | None = None
    webhook_secret_file: str = ""
    calendar: bool = False


class FrameworkShell:
    """Performs what a framework's session asks for.

    Calls keep their order, except that an acknowledgement waits for nobody: each concerns one update of one task.
    """

    def __init__(
        self,
        transport: Transport,
        feed: Feed | None = None,
        mail: MailServer | None = None,
        access: Access = NO_ACCESS,
        webhook_secret_file: str = "",
    ) -> None:
        self._transport = transport
        self._feed = feed
        self._notifier = Notifier(mail, webhook_secret_file)
        self._measurer = Measurer(access)
        self._signaller = Signaller(access)
        self._tell: Callable[[Any], None] = _nobody
        self._connection = 0
        self._stream: asyncio.Task[Disconnected] | None = None
        self._pipeline = transport if isinstance(transport, PipelinedTransport) else None
        self._queue: asyncio.Queue[calls.Call] = asyncio.Queue()
        self._sender: asyncio.Task[None] | None = None

    def attach(self, tell: Callable[[Any], None]) -> None:
        """Where events go."""
        self._tell = tell

    def perform(self, effect: Effect) -> Awaitable[Any] | None:
        match effect:
            case Call(call=call):
                if self._pipeline is not None:
                    self._pipeline.send(call, partial(self._tell_failure, call, self._connection))
                    return None
                if isinstance(call, calls.Acknowledge):
                    return self._send(call, self._connection)
                self._queue.put_nowait(call)
                if self._sender is not None:
                    return None
                self._sender = asyncio.ensure_future(self._send_in_order(self._queue, self._connection))
                return self._sender
            case Connect():
                self._drop()
                self._connection = effect.connection
                self._stream = asyncio.ensure_future(self._follow(effect))
                return self._stream
            case Disconnect():
                self._drop()
                return None
            case Publish(kind=kind, body=body):
                if self._feed is not None:
                    self._feed.publish(kind, body)
                return None
            case Notify():
                return self._notifier.send(effect)
            case Measure():
                return self._measurer.measure(effect)
            case Signal():
                return self._signaller.send(effect)
        raise TypeError(f"no framework has the effect {type(effect).__name__}")

    def _tell_failure(self, call: calls.Call, connection: int, error: CorralError) -> None:
        self._tell(CallFailed(call, error.message, connection, isinstance(error, Forbidden)))

    def flush(self) -> None:
        """Nothing is gathered: calls leave one by one, as Mesos has them."""

    async def close(self) -> None:
        """Let go of the master; the framework stays known to it."""
        self._drop()
        if self._feed is not None:
            self._feed.close()
        await self._notifier.close()
        await self._measurer.close()
        closing = getattr(self._transport, "close", None)
        if closing is not None:
            await closing()

    def _drop(self) -> None:
        """What was still to be said belonged to the connection that is let go."""
        for task in (self._stream, self._sender):
            if task is not None:
                task.cancel()
        self._stream = self._sender = None
        self._queue = asyncio.Queue()

    async def _follow(self, effect: Connect) -> Disconnected:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await self._transport.call(effect.subscribe)
            async for event in self._transport.events():
                self._tell(event)
            why = "the master ended the event stream"
        except TimeoutError:
            why = f"no answer to SUBSCRIBE within {CONNECT_TIMEOUT_S:g} s"
        except CorralError as error:
            why = error.message
        return Disconnected(effect.connection, why)

    async def _send(self, call: calls.Call, connection: int) -> CallFailed | None:
        try:
            await self._transport.call(call)
        except CorralError as error:
            return CallFailed(call, error.message, connection, isinstance(error, Forbidden))
        return None

    async def _send_in_order(self, queue: "asyncio.Queue[calls.Call]", connection: int) -> None:
        while True:
            failed = await self._send(await queue.get(), connection)
            if failed is not None:
                self._tell(failed)


def _nobody(input: Any) -> None:
    raise RuntimeError("the shell is not attached to a loop yet")


class FrameworkService:
    """A framework at work: `loop` decides, `routes` is its front door, `run` lasts until it is stopped."""

    def __init__(
        self,
        framework: Framework,
        transport: Transport,
        store: Store,
        *,
        random: Random,
        clock: Clock | None = None,
        recorder: Recorder | None = None,
        notes: Notes | None = None,
        fence: Fence | None = None,
        access: Access = NO_ACCESS,
        check: bool = False,
    ) -> None:
        self.framework = framework
        self.session = Session(framework.info, framework.core, random)
        self.shell = FrameworkShell(transport, framework.feed, framework.mail, access, framework.webhook_secret_file)
        if clock is None:
            clock = system_clock if framework.calendar else FollowingClock()
        self.loop = Loop(
            self.session,
            self.shell,
            store,
            prefix=framework.records,
            clock=clock,
            recorder=recorder,
            notes=notes,
            fence=fence,
            asks_first=True,
            check=check,
        )
        self.name = self.loop.name
        self.shell.attach(self.loop.tell)
        if framework.feed is not None:
            framework.feed.attach(self.loop.tell)
        self.routes: Sequence[Route | RawRoute] = framework.routes(self.loop.ask)

    async def run(self) -> int:
        """Returns the exit code. Errors: `StoreFailed` when a record could not be written."""
        try:
            return await self.loop.run()
        finally:
            await self.shell.close()

    def stop(self, code: int = 0) -> None:
        """Finish the turn and end; tasks run on."""
        self.loop.stop(code)


async def run_framework(
    framework: Framework,
    transport: Transport,
    store: Store,
    *,
    random: Random,
    clock: Clock | None = None,
    recorder: Recorder | None = None,
) -> int:
    """Run a framework until it is stopped; returns its exit code. For a front door, make a `FrameworkService`.

    Errors: `StoreFailed` when a record could not be written.
    """
    service = FrameworkService(framework, transport, store, random=random, clock=clock, recorder=recorder)
    return await service.run()
