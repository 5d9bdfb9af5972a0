"""Runs what only one process of a cluster may run: stands for election, follows meanwhile, and leads once elected."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

import msgspec

from corral.lib.clock import steady_clock, system_clock
from corral.lib.errors import Unavailable
from corral.lib.log import get_logger
from corral.net.access import NO_ACCESS, Access
from corral.net.auth import Gate
from corral.net.proxy import Follower
from corral.net.routes import RawRoute, Request, Response, Route, json_response
from corral.net.server import Server
from corral.net.stale import marked
from corral.runtime.core import Note
from corral.runtime.election import Candidate
from corral.runtime.leader import Election, Tenure
from corral.runtime.loop import Loop
from corral.runtime.notes import Notes
from corral.runtime.renewal import Renewal
from corral.runtime.routes import front_routes
from corral.runtime.routes import routes as process_routes
from corral.runtime.service import STORE_FAILED, Background, Service, collector_resting, run_services
from corral.store.base import StoreFailed

log = get_logger("reign")

RETRY_S = 1.0
TAKING_UP_S = 10.0
"""How long the agents of a new leader come back at their most."""


class Leading(msgspec.Struct, frozen=True):
    """What the leading process runs. Shapes: `loops` are among the `services`, which stand in starting order."""

    services: Sequence[Service]
    loops: Sequence[Loop]
    routes: Sequence[Route | RawRoute]
    gate: Gate | None = None


Reopen = Callable[[], Awaitable[None]]
"""Opens the store anew and finds out whether it takes writes. Errors: `StoreFailed`."""


def since(loops: Sequence[Loop]) -> float | None:
    """Since when these loops take no more inputs, by the steady clock; None while they do."""
    ended = [loop.ended_at for loop in loops if loop.ended_at is not None]
    return min(ended, default=None)


class Reign:
    """A service: `begin` makes what leads, once this process may. `alone`: no other process can open the store.

    Shapes: `server` serves a follower's routes until everything that leads has read its records, behind `gate`;
    `access` is how it reaches the leader.
    """

    name = "reign"

    def __init__(
        self,
        election: Election,
        begin: Callable[[Tenure], Leading],
        server: Server,
        renewal: Renewal,
        *,
        alone: bool,
        reopen: Reopen | None = None,
        access: Access = NO_ACCESS,
        gate: Gate | None = None,
    ) -> None:
        self.serves = False
        self._has_served = False
        self._notes: Notes | None = None
        self._tenure: Tenure | None = None
        self._reopen = reopen
        self._election = election
        self._begin = begin
        self._server = server
        self._alone = alone
        self._stopping = asyncio.Event()
        self._follower = Follower(election.own.url, self, server.serve, lambda: self.serves, access)
        self._own_routes = [
            *process_routes(renewal, self.members),
            Route(method="GET", path="/health/leader", handler=self._answer_leader),
        ]
        self._gate = gate
        server.switch([*self._own_routes, *self._follower.routes()], gate)

    # What the follower knows (`net.proxy.Knowledge`).

    def url(self) -> str | None:
        leader = self._election.leader
        return None if leader is None else leader.url

    def term(self) -> int:
        return self._election.term

    def next(self) -> Coroutine[Any, Any, Any]:
        return self._election.news.next()

    async def settled(self) -> None:
        """Return when this process leads and serves, or knows who else leads."""
        while not self.serves:
            news = self.next()
            if self.url() not in (None, self._election.own.url):
                news.close()
                return
            await news

    async def run(self) -> int | None:
        try:
            while True:
                code = await self._reign()
                if code != STORE_FAILED or self._reopen is None or not self._has_served or self._stopping.is_set():
                    return code
                if not await self._outlast(self._reopen):
                    return None
        finally:
            await self._election.withdraw()
            await self._follower.close()

    async def _reign(self) -> int | None:
        """Stand for election and lead; the exit code, `STORE_FAILED` when the store alone is what ended it."""
        try:
            tenure = await self._campaign()
        except StoreFailed as error:
            if not self._has_served:
                raise
            log.warning("election without the store", why=str(error))
            return STORE_FAILED
        if tenure is None:
            return None
        try:
            return await self._lead(tenure)
        finally:
            self.serves = False

    def stop(self) -> None:
        self._stopping.set()

    async def _outlast(self, reopen: Reopen) -> bool:
        """Wait until the store takes writes again; False when this process is stopped meanwhile.

        What has led stays as it is: it answers reads, marked as stale, and refuses the rest.
        """
        self._election.stand_again()
        self._tell("store away", "what runs goes on; until it is back, reads are stale and writes refused", "warning")
        away_at, tries = steady_clock(), 0
        while not self._stopping.is_set():
            try:
                await reopen()
            except StoreFailed as error:
                tries += 1
                tell = log.warning if tries in (1, 10) else log.debug
                tell("store still away", why=str(error), tries=tries)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), RETRY_S)
                continue
            self._tell("store back", "it takes writes again", away_s=round(steady_clock() - away_at, 1))
            return True
        return False

    def _tell(self, what: str, why: str, level: str = "info", **facts: float) -> None:
        """A line of the story, which the routes of the reign that has ended still show."""
        if self._notes is not None:
            self._notes.add("store", Note(what, why, level, facts), system_clock())

    async def _campaign(self) -> Tenure | None:
        """None when it is stopped before it leads."""
        if self._alone:
            return await self._election.claim()
        campaign = asyncio.ensure_future(self._election.campaign())
        stop = asyncio.ensure_future(self._stopping.wait())
        way = asyncio.ensure_future(self._give_way())
        try:
            await asyncio.wait((campaign, stop), return_when=asyncio.FIRST_COMPLETED)
            return campaign.result() if campaign.done() else None
        finally:
            for task in (campaign, stop, way):
                task.cancel()
            await asyncio.wait((campaign, stop, way))

    async def _give_way(self) -> None:
        """Another leads: what this process knew when it led is shown no longer."""
        await self.settled()
        if not self.serves:
            self._server.switch([*self._own_routes, *self._follower.routes()], self._gate)

    async def _lead(self, tenure: Tenure) -> int:
        leading = self._begin(tenure)
        self._tenure = tenure
        self._notes = leading.loops[0].notes
        tenure.attend(*leading.loops)
        serve = Background("accession", lambda: self._serve(leading))
        # The tenure is listed first: it stops last, so that nobody leads before the last turn here has ended.
        services: list[Service] = [tenure, *leading.services, serve, Background("abdication", self._abdicate)]
        with collector_resting(TAKING_UP_S):
            return await run_services(services, signals=False)

    async def _abdicate(self) -> int | None:
        await self._stopping.wait()
        return None

    async def _serve(self, leading: Leading) -> int | None:
        for loop in leading.loops:
            await loop.ready.wait()
        served = [*leading.routes, *_healthy()]
        routes = marked([*served, *front_routes(served)], lambda: since(leading.loops))
        self._server.switch([*self._own_routes, *routes], leading.gate)
        self.serves = self._has_served = True
        self._election.news.tell()
        await asyncio.Event().wait()
        return None

    async def _answer_leader(self, request: Request) -> Response:
        """Not what leads answers this: it goes on showing what it knew when it leads no more, as the store is away.

        Who cannot know whether its lease stands says no: another may lead already, and nothing is done here.
        """
        leads = self.serves and self._tenure is not None and self._tenure.holds
        return json_response({"leads": leads, "leader": self.url() or ""}, status=200 if leads else 503)

    async def members(self) -> Sequence[tuple[Candidate, bool]]:
        try:
            async with asyncio.timeout(5.0):
                found = await self._election.members()
        except (StoreFailed, TimeoutError) as error:
            raise Unavailable(f"the store does not say who else stands: {error}; try again") from None
        leader = self._election.leader
        return [(one, leader is not None and one.id == leader.id) for one in found]


def _healthy() -> list[Route | RawRoute]:
    """What a process that leads answers about its health, unless what leads there has its own answers."""

    async def live(request: Request) -> Response:
        return json_response({"live": True})

    async def ready(request: Request) -> Response:
        return json_response({"ready": True})

    answers = {"/health/live": live, "/health/ready": ready}
    return [Route(method="GET", path=path, handler=handler) for path, handler in answers.items()]
