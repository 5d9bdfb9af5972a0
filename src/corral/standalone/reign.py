"""Runs what only one process of a cluster may run: stands for election, follows meanwhile, and leads once elected."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import msgspec

from corral.lib.errors import Unavailable
from corral.net.proxy import Follower
from corral.net.routes import RawRoute, Route
from corral.net.server import Server
from corral.runtime.election import Candidate
from corral.runtime.leader import Election, Tenure
from corral.runtime.loop import Loop
from corral.runtime.renewal import Renewal
from corral.runtime.routes import routes as process_routes
from corral.runtime.service import Background, Service, run_services
from corral.store.base import StoreFailed


class Leading(msgspec.Struct, frozen=True):
    """What the leading process runs. Shapes: `loops` are among the `services`, which stand in starting order."""

    services: Sequence[Service]
    loops: Sequence[Loop]
    routes: Sequence[Route | RawRoute]


class Reign:
    """A service: `begin` makes what leads, once this process may. `alone`: no other process can open the store.

    Shapes: `server` serves a follower's routes until everything that leads has read its records.
    """

    name = "reign"

    def __init__(
        self, election: Election, begin: Callable[[Tenure], Leading], server: Server, renewal: Renewal, *, alone: bool
    ) -> None:
        self.serves = False
        self._election = election
        self._begin = begin
        self._server = server
        self._alone = alone
        self._stopping = asyncio.Event()
        self._follower = Follower(election.own.url, self, server.serve, lambda: self.serves)
        self._own_routes = process_routes(renewal, self._members)
        server.switch([*self._own_routes, *self._follower.routes()])

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
            tenure = await self._campaign()
            return None if tenure is None else await self._lead(tenure)
        finally:
            await self._election.withdraw()
            await self._follower.close()

    def stop(self) -> None:
        self._stopping.set()

    async def _campaign(self) -> Tenure | None:
        """None when it is stopped before it leads."""
        if self._alone:
            return await self._election.claim()
        campaign = asyncio.ensure_future(self._election.campaign())
        stop = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait((campaign, stop), return_when=asyncio.FIRST_COMPLETED)
            return campaign.result() if campaign.done() else None
        finally:
            for task in (campaign, stop):
                task.cancel()
            await asyncio.wait((campaign, stop))

    async def _lead(self, tenure: Tenure) -> int:
        leading = self._begin(tenure)
        tenure.attend(*leading.loops)
        serve = Background("accession", lambda: self._serve(leading))
        # The tenure is listed first: it stops last, so that nobody leads before the last turn here has ended.
        services: list[Service] = [tenure, *leading.services, serve, Background("abdication", self._abdicate)]
        return await run_services(services, signals=False)

    async def _abdicate(self) -> int | None:
        await self._stopping.wait()
        return None

    async def _serve(self, leading: Leading) -> int | None:
        for loop in leading.loops:
            await loop.ready.wait()
        self._server.switch([*self._own_routes, *leading.routes])
        self.serves = True
        self._election.news.tell()
        await asyncio.Event().wait()
        return None

    async def _members(self) -> Sequence[tuple[Candidate, bool]]:
        try:
            async with asyncio.timeout(5.0):
                found = await self._election.members()
        except (StoreFailed, TimeoutError) as error:
            raise Unavailable(f"the store does not say who else stands: {error}; try again") from None
        leader = self._election.leader
        return [(one, leader is not None and one.id == leader.id) for one in found]
