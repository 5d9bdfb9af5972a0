"""What every daemon answers about itself as a process, and how it is told to be renewed."""

from collections.abc import Awaitable, Callable, Iterable, Sequence

import msgspec

from corral import __version__
from corral.lib.errors import CorralError
from corral.net.auth import ABDICATION, RENEW_PROCESS_PATH
from corral.net.routes import RawRoute, Request, Response, Route, json_response
from corral.runtime.election import Candidate
from corral.runtime.renewal import Renewal

PROCESS_PATH = "/corral/v1/process"
MASTERS_PATH = "/corral/v1/masters"

VIEWS = {
    "/corral/v1/nodes": "agents and what they have",
    "/corral/v1/roles": "roles and their shares",
    "/corral/v1/tasks": "tasks",
    "/corral/v1/explain": "why something waits",
    "/corral/v1/events": "what happened",
    "/v2/apps": "apps",
    "/v2/deployments": "deployments under way",
    "/v2/queue": "apps that wait",
    "/scheduler/jobs": "jobs",
    "/corral/v1/dags": "DAGs",
    "/v1/batch/jobs": "batch jobs",
    "/metrics": "numbers",
    "/health/ready": "health",
}
"""What the first page leads to, where it is served."""

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


def front_routes(others: Iterable[Route | RawRoute]) -> list[Route | RawRoute]:
    """What a browser finds at first: a page that leads on. Shapes: `others` are the routes beside these."""
    served = {route.path for route in others if route.method == "GET"}
    rows = "".join(f'<li><a href="{path}">{path}</a> {what}</li>' for path, what in VIEWS.items() if path in served)
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>corral</title><h1>corral {__version__}</h1>'
        f"<p>This is the API. On the command line, <code>corral --help</code> tells how to use it.</p>"
        f"<ul>{rows}</ul></html>"
    ).encode()

    async def show(request: Request) -> Response:
        return Response(body=page, content_type="text/html; charset=utf-8")

    async def lead(request: Request) -> Response:
        return Response(status=302, headers={"Location": "/ui/"})

    return [Route(method="GET", path="/", handler=lead), Route(method="GET", path="/ui", handler=show)]


def abdication_route(renewal: Renewal) -> Route:
    """Marathon's way to make the leader go: it hands over where others stand by, and is renewed in place."""

    async def abdicate(request: Request) -> Response:
        await renewal.renew()
        return json_response({"message": "Leadership abdicated"})

    method, path = ABDICATION
    return Route(method=method, path=path, handler=abdicate, errors=_write_message)


def _write_message(error: CorralError, request: Request) -> Response:
    """As Marathon writes it; unknown paths beside this one are answered so too."""
    return json_response({"message": error.message}, status=error.status)
