"""Wins and keeps the leadership over the store: an `Election` makes a `Tenure`, which fences every loop of the process.

Rules: the lease is renewed only after each loop has shown that it takes turns, so that progress is liveness; a process
that is stopped, or a loop that never ends its turn, loses it. Every commit is guarded by the leader's key. A process
that lost its lease exits, and one that hangs is ended by a thread that does nothing else.
"""

import asyncio
import contextlib
import faulthandler
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from random import Random
from typing import Any, Literal, Protocol

import msgspec

from corral.lib.backoff import grow_delay_s
from corral.lib.clock import Clock, steady_clock
from corral.lib.log import get_logger
from corral.runtime.election import (
    LEADERSHIP_LOST,
    Candidate,
    LeadershipLost,
    Move,
    Sight,
    acts_until,
    beat_s,
    choose_move,
    fence,
    leader_key,
    member_prefix,
    read_candidate,
    see,
    trusts,
)
from corral.store.base import Change, Compacted, Guard, GuardFailed, LeaseId, Store, StoreFailed

log = get_logger("leader")

RETRY_FIRST_S = 0.1
RETRY_MOST_S = 2.0
HANG_LEASES = 2.0
"""A process whose event loop stands still for so many leases is ended."""


class Turning(Protocol):
    """What a tenure needs of a loop."""

    async def prove(self) -> None:
        """Returns when a turn that had not begun has been taken, or when there was none to take."""


class Tenure:
    """The time in which this process leads: the fence of its loops, and a service that keeps the lease.

    Shapes: without a lease the store belongs to this process alone, and nobody else can lead. As a service it is listed
    before the loops, so that it stops last and others take over only when all turns have ended.
    """

    def __init__(
        self,
        store: Store,
        name: str,
        revision: int,
        *,
        lease: LeaseId | None = None,
        ttl_s: float = 0.0,
        asked_at: float = 0.0,
        clock: Clock = steady_clock,
        end_process: Callable[[int], Any] = os._exit,
    ) -> None:
        self.name = "leader"
        self.guards: Sequence[Guard] = fence(name, revision)
        self._key = leader_key(name)
        self._revision = revision
        self._store = store
        self._lease = lease
        self._ttl_s = ttl_s
        self._clock = clock
        self._until = acts_until(asked_at, ttl_s)
        self._loops: list[Turning] = []
        self._stopping = asyncio.Event()
        self._news = asyncio.Event()
        self._lost: LeadershipLost | None = None
        self._away: StoreFailed | None = None
        self._end_process = end_process

    def attend(self, *loops: Turning) -> None:
        """These loops have to take turns for the lease to be renewed."""
        self._loops += loops

    @property
    def holds(self) -> bool:
        """Whether this process surely leads at this moment."""
        return self._lost is None and (self._lease is None or self._clock() < self._until)

    async def settle(self) -> None:
        """Return as soon as this process surely leads.

        Errors: `LeadershipLost` when it does not any more; `StoreFailed` when the store does not say.
        """
        while not self.holds:
            if self._lost is not None:
                raise self._lost
            if self._away is not None:
                raise self._away
            self._news.clear()
            await self._news.wait()

    def lose(self, why: str) -> LeadershipLost:
        """From now on nothing of this process acts; returns what to raise."""
        if self._lost is None:
            self._lost = LeadershipLost(why)
        self._news.set()
        return self._lost

    async def run(self) -> int | None:
        """Errors: `LeadershipLost`; `StoreFailed`."""
        if self._lease is None:
            await self._stopping.wait()
            return None
        with _watch_for_hang(self._clock, self._ttl_s * HANG_LEASES, self._end_process):
            while not self._stopping.is_set():
                if self._lost is not None:
                    raise self._lost
                await self._unless_stopped(self._renew(self._lease))
                await self._unless_stopped(asyncio.sleep(beat_s(self._ttl_s)))
        with contextlib.suppress(GuardFailed, StoreFailed, TimeoutError):
            async with asyncio.timeout(self._ttl_s):
                await self._store.revoke(self._lease)
        return None

    def stop(self) -> None:
        self._stopping.set()

    async def _unless_stopped(self, work: Coroutine[Any, Any, None]) -> None:
        """Loops that are stopping prove nothing any more: nobody waits for that."""
        task, stop = asyncio.ensure_future(work), asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait((task, stop), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
        finally:
            task.cancel()
            stop.cancel()
            await asyncio.wait((task, stop))

    async def _renew(self, lease: LeaseId) -> None:
        """One renewal, if every loop has taken a turn; else, when time is over, see what has become of the lease.

        Errors: `LeadershipLost` when it has ended; `StoreFailed` when the store does not say, so that nobody knows.
        """
        try:
            async with asyncio.timeout(max(beat_s(self._ttl_s), self._until - self._clock())):
                await asyncio.gather(*(loop.prove() for loop in self._loops))
                asked_at = self._clock()
                await self._store.keep_alive(lease)
            self._until = acts_until(asked_at, self._ttl_s)
            self._news.set()
        except GuardFailed:
            raise self.lose("the lease of this leader has ended; another may lead") from None
        except (StoreFailed, TimeoutError) as error:
            if self.holds:
                return
            log.warning("leadership in doubt", why=str(error) or "no turn has ended for the time of a lease")
            try:
                async with asyncio.timeout(self._ttl_s):
                    found = await self._store.get(self._key)
            except (StoreFailed, TimeoutError) as away:
                self._away = StoreFailed(f"the store does not say who leads: {str(away) or 'it does not answer'}")
                self._news.set()
                raise self._away from None
            if found is None or found.revision != self._revision:
                raise self.lose("the lease of this leader has ended, as it was not renewed in time") from None


class Election:
    """One candidate. `campaign` lasts until it leads; meanwhile `leader` says who does.

    Units: `ttl_s` seconds for which a lease stands that is not renewed. Shapes: `name` is what is led.
    """

    def __init__(
        self,
        store: Store,
        name: str,
        own: Candidate,
        ttl_s: float,
        random: Random,
        *,
        clock: Clock = steady_clock,
        end_process: Callable[[int], Any] = os._exit,
    ) -> None:
        self.own = own
        self.news = News()
        self._store = store
        self._name = name
        self._ttl_s = ttl_s
        self._random = random
        self._clock = clock
        self._end_process = end_process
        self._lease: LeaseId | None = None
        self._asked_at = 0.0
        self._sight = Sight()
        self._confirmed_at = -1e18
        self._leads = False

    @property
    def leader(self) -> Candidate | None:
        """Who leads, as far as that is known and not too old."""
        if self._leads:
            return self.own
        return self._sight.leader if trusts(self._confirmed_at, self._clock(), self._ttl_s) else None

    @property
    def term(self) -> int:
        """Which reign is known; another number whenever somebody has begun to lead."""
        return self._sight.revision

    async def campaign(self) -> Tenure:
        """Lead, or wait until that is possible. Trouble with the store is waited out."""
        tries = 0
        while True:
            try:
                tenure = await self._try()
                tries = 0
            except (StoreFailed, TimeoutError) as error:
                tries += 1
                delay_s = grow_delay_s(tries, first_s=RETRY_FIRST_S, factor=2.0, most_s=RETRY_MOST_S)
                log.warning("election without the store", why=str(error) or "it does not answer", tries=tries)
                await asyncio.sleep(delay_s * (0.5 + self._random.random() / 2))
                continue
            if tenure is not None:
                self._leads = True
                self.news.tell()
                return tenure

    async def claim(self) -> Tenure:
        """Lead over a store that no other process can open.

        Errors: `StoreFailed`.
        """
        found = await self._store.get(leader_key(self._name))
        guard = Guard(leader_key(self._name), 0 if found is None else found.revision)
        revision = await self._store.commit({guard.key: msgspec.msgpack.encode(self.own)}, [guard])
        self._sight = Sight(self.own, revision)
        self._leads = True
        self.news.tell()
        return Tenure(self._store, self._name, revision, end_process=self._end_process)

    def stand_again(self) -> None:
        """The reign has ended without another's having begun, as far as is known: `campaign` may be called anew."""
        self._leads = False

    async def members(self) -> list[Candidate]:
        """All candidates whose leases stand, this one included. Errors: `StoreFailed`."""
        found = [read_candidate(record) for record in await self._store.list(member_prefix(self._name))]
        return found if any(one.id == self.own.id for one in found) else [self.own, *found]

    async def withdraw(self) -> None:
        """Give the lease back, unless a tenure has it."""
        lease, self._lease = self._lease, None
        if lease is not None and not self._leads:
            with contextlib.suppress(GuardFailed, StoreFailed, TimeoutError):
                async with asyncio.timeout(self._ttl_s):
                    await self._store.revoke(lease)

    async def _try(self) -> Tenure | None:
        """One look at the store, and what follows from it. Errors: `StoreFailed`, `TimeoutError`."""
        async with asyncio.timeout(self._ttl_s):
            lease = await self._keep_lease()
            sight = await self._look()
            move = choose_move(sight, self.own.id)
            if move is Move.STAND:
                try:
                    writes = {leader_key(self._name): msgspec.msgpack.encode(self.own)}
                    revision = await self._store.commit(writes, [Guard(leader_key(self._name), 0)], lease)
                except GuardFailed:
                    return None  # somebody was faster, or the lease has ended
                return self._begin(revision, lease)
        if move is Move.LEAD:
            return self._begin(sight.revision, lease)
        await self._await_change(sight.revision)
        return None

    def _begin(self, revision: int, lease: LeaseId) -> Tenure:
        self._sight = Sight(self.own, revision)
        return Tenure(
            self._store, self._name, revision, lease=lease, ttl_s=self._ttl_s, asked_at=self._asked_at,
            clock=self._clock, end_process=self._end_process,
        )  # fmt: skip

    async def _keep_lease(self) -> LeaseId:
        """The lease of this candidate, renewed; a new one when it has ended."""
        self._asked_at = self._clock()
        if self._lease is not None:
            try:
                await self._store.keep_alive(self._lease)
                return self._lease
            except GuardFailed:
                log.warning("lease ended", why="this candidate was stopped or cut off for longer than it lasts")
                self._lease = None
        lease = await self._store.grant(self._ttl_s)
        key = member_prefix(self._name) + self.own.id
        with contextlib.suppress(GuardFailed):
            await self._store.commit({key: msgspec.msgpack.encode(self.own)}, (), lease)
        self._lease = lease
        return lease

    async def _look(self) -> Sight:
        asked_at = self._clock()
        sight = see(await self._store.get(leader_key(self._name)))
        known = self.leader is not None
        changed = sight != self._sight
        self._sight, self._confirmed_at = sight, asked_at
        if changed or not known:
            if changed and sight.leader is not None:
                log.info("following", leader=sight.leader.url, why="it holds the leader's key")
            self.news.tell()
        return sight

    async def _await_change(self, revision: int) -> None:
        """Return when the key has changed, or when it is time to look again."""
        changes = self._store.watch(leader_key(self._name), revision)
        try:
            async with asyncio.timeout(beat_s(self._ttl_s)):
                await anext(aiter(changes))
        except (TimeoutError, Compacted, StopAsyncIteration):
            pass
        finally:
            await _close(changes)


class News:
    """Wakes all who wait for the next change."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def tell(self) -> None:
        event, self._event = self._event, asyncio.Event()
        event.set()

    def next(self) -> Coroutine[Any, Any, Literal[True]]:
        """To be awaited: the first news after this call."""
        return self._event.wait()


async def _close(changes: AsyncIterator[Change]) -> None:
    close = getattr(changes, "aclose", None)
    if close is not None:
        await close()


@contextlib.contextmanager
def _watch_for_hang(clock: Clock, most_s: float, end_process: Callable[[int], Any]) -> Iterator[None]:
    """End the process when its event loop stands still for `most_s`.

    A loop that never ends its turn can be ended by nobody inside the event loop. What it hangs in is written to stderr.
    """
    aio = asyncio.get_running_loop()
    last = clock()
    over = threading.Event()
    timer: asyncio.TimerHandle | None = None

    def live() -> None:
        nonlocal last, timer
        last = clock()
        timer = aio.call_later(most_s / 8, live)

    def watch() -> None:
        while not over.wait(most_s / 8):
            if clock() - last > most_s:
                print(f"no turn has ended for {most_s:g} s; this process ends, for it cannot lead", file=sys.stderr)
                with contextlib.suppress(OSError, ValueError, RuntimeError):
                    faulthandler.dump_traceback()
                end_process(LEADERSHIP_LOST)
                return

    live()
    thread = threading.Thread(target=watch, name="leader watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        if timer is not None:
            timer.cancel()
        over.set()
        thread.join()
