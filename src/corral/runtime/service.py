"""Runs what a daemon is made of as one: together they start, and when one ends all end, in order.

Order: what is listed last stops first. A daemon lists its loops and then its server, so that nothing new is accepted,
the turns under way finish, the streams end, and then the process leaves with the first exit code that was given.
"""

import asyncio
import contextlib
import gc
import signal
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, Protocol

from corral.lib.errors import CorralError
from corral.lib.log import get_logger
from corral.runtime.election import LEADERSHIP_LOST, LeadershipLost
from corral.store.base import StoreFailed

_log = get_logger("service")

STORE_FAILED = 70
"""The exit code of a process whose records could not be read or written."""


class Service(Protocol):
    name: str

    async def run(self) -> int | None:
        """Work until `stop` is called or there is a reason to end; returns an exit code, None for 0.

        Errors: whatever makes going on pointless; it ends the process.
        """

    def stop(self) -> None:
        """Accept nothing new, finish what is begun and return from `run`."""


class Background:
    """A coroutine as a service: cancelled when it has to stop."""

    def __init__(self, name: str, work: Callable[[], Awaitable[int | None]]) -> None:
        self.name = name
        self._work = work
        self._task: asyncio.Future[int | None] | None = None
        self._stopped = False

    async def run(self) -> int | None:
        self._task = asyncio.ensure_future(self._work())
        if self._stopped:
            self._task.cancel()
        try:
            return await self._task
        except asyncio.CancelledError:
            if not self._stopped:
                raise
            return None
        finally:
            self._task.cancel()

    def stop(self) -> None:
        self._stopped = True
        if self._task is not None:
            self._task.cancel()


def relax_collector() -> None:
    """Let the garbage collector look less often, and never again at what starting has left.

    A busy daemon holds a hundred thousand small values, nearly all of them frozen and free of cycles; looking through
    them after every 700 new ones, Python's default, measured half of its time. Nor are the young left to gather for
    long: who asks waits while they are looked through, up to 190 ms for those of a million, 13 ms for those of 30,000,
    4 ms for these. With 0 every second look is at two portions of them.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000, 0, 12_000)


@contextlib.contextmanager
def collector_resting(most_s: float) -> Iterator[None]:
    """Collect no garbage for so long, nor ever look at what is there by then.

    A new leader takes up much and throws little away.
    Measured: what 10,000 agents tell of their tasks costs a tenth less time so.
    """

    def resume() -> None:
        gc.freeze()
        gc.enable()

    gc.disable()
    timer = asyncio.get_running_loop().call_later(most_s, resume)
    try:
        yield
    finally:
        timer.cancel()
        gc.enable()


async def run_services(services: Sequence[Service], *, grace_s: float = 10.0, signals: bool = True) -> int:
    """Run all until one ends or SIGTERM or SIGINT comes, then stop the others, the last listed first.

    Units: `grace_s` seconds for each to stop; then, or at a second signal, it is cancelled.
    Shapes: the exit code is that of the service that ended first, 0 after a signal, unless another failed meanwhile; an
    error is logged and gives the code of its `CorralError`, 70 when the store failed,
    75 when the leadership was lost, else 1.
    """
    relax_collector()
    leave, hurry = asyncio.Event(), asyncio.Event()
    with _signals(leave, hurry) if signals else contextlib.nullcontext():
        tasks = {service.name: asyncio.ensure_future(_guard(service)) for service in services}
        wake = asyncio.ensure_future(leave.wait())
        everything: list[asyncio.Future[Any]] = [wake, *tasks.values()]
        try:
            await asyncio.wait(everything, return_when=asyncio.FIRST_COMPLETED)
            first = [name for name, task in tasks.items() if task.done()]
            for service in reversed(services):
                await _stop(service, tasks[service.name], hurry, grace_s)
        finally:
            for each in everything:
                each.cancel()
            await asyncio.wait(everything)
    codes = {name: 0 if task.cancelled() else task.result() for name, task in tasks.items()}
    return max((codes[name] for name in first), default=0) or max(codes.values(), default=0)


async def _guard(service: Service) -> int:
    try:
        return await service.run() or 0
    except CorralError as error:
        _log.error("service failed", service=service.name, why=error.message)
        return error.exit_code
    except StoreFailed as error:
        _log.error("service failed", service=service.name, why=str(error))
        return STORE_FAILED
    except LeadershipLost as error:
        _log.error("leadership lost", service=service.name, why=str(error))
        return LEADERSHIP_LOST
    except Exception as error:
        _log.error("service failed", service=service.name, why=f"a bug: {error!r}", exc_info=error)
        return 1


async def _stop(service: Service, task: "asyncio.Future[int]", hurry: asyncio.Event, grace_s: float) -> None:
    if task.done():
        return
    service.stop()
    impatient: asyncio.Future[Any] = asyncio.ensure_future(hurry.wait())
    await asyncio.wait([task, impatient], timeout=grace_s, return_when=asyncio.FIRST_COMPLETED)
    impatient.cancel()
    if not task.done():
        _log.warning("service cancelled", service=service.name, why="it did not stop in time")
        task.cancel()
        await asyncio.wait([task])


@contextlib.contextmanager
def _signals(leave: asyncio.Event, hurry: asyncio.Event) -> Iterator[None]:
    loop = asyncio.get_running_loop()

    def come(number: int) -> None:
        if leave.is_set():
            hurry.set()
            return
        _log.info("stopping", why=signal.Signals(number).name)
        leave.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, come, number)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
