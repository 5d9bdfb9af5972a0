"""What every daemon answers about itself as a process, and how it is told to be renewed."""

from collections.abc import Awaitable, Callable, Sequence

import msgspec

from corral.net.auth import ABDICATION, RENEW_PROCESS_PATH
from corral.net.routes import RawRoute, Request, Response, Route, json_response
from corral.runtime.election import Candidate
from corral.runtime.renewal import Renewal

PROCESS_PATH = "/corral/v1/process"
MASTERS_PATH = "/corral/v1/masters"

Members = Callable[[], Awaitable[Sequence[tuple[Candidate, bool]]]]
"""All candidates of an election, each with whether it leads."""


def routes(renewal: Renewal, members: Members | None = None) -> list[Route | RawRoute]:
    """Shapes: `members` of the election in which this process stands, None when it stands in none."""

    async def show(request: Request) -> Response:
        return json_response(msgspec.to_builtins(renewal.view()))

    async def renew(request: Request) -> Response:
        await renewal.renew()
        return json_response(msgspec.to_builtins(renewal.view()), status=202)

    async def list_masters(request: Request) -> Response:
        assert members is not None
        found = [{**msgspec.to_builtins(one), "leads": leads} for one, leads in await members()]
        return json_response({"masters": sorted(found, key=lambda one: (one["url"], one["id"]))})

    made: list[Route | RawRoute] = [
        Route(method="GET", path=PROCESS_PATH, handler=show),
        Route(method="POST", path=RENEW_PROCESS_PATH, handler=renew),
    ]
    if members is not None:
        made.append(Route(method="GET", path=MASTERS_PATH, handler=list_masters))
    return made


def abdication_route(renewal: Renewal) -> Route:
    """Marathon's way to make the leader go: it hands over where others stand by, and is renewed in place."""

    async def abdicate(request: Request) -> Response:
        await renewal.renew()
        return json_response({"message": "Leadership abdicated"})

    method, path = ABDICATION
    return Route(method=method, path=path, handler=abdicate)
