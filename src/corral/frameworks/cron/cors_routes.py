"""Lets pages of other sites use the API from a browser, as Chronos' own does, where it is configured.

Deviates: Chronos allows every site. Here none is allowed unless `cron.allow_origin` says so, as whoever may send a job
may run a command, and a browser inside reaches clusters that nobody outside can.
Source: the Fetch standard, CORS protocol.
"""

from collections.abc import Sequence
from typing import TypeVar

import msgspec

from corral.lib.errors import CorralError
from corral.net.routes import Request, Response, Route, Stream

T = TypeVar("T", Response, Stream, Response | Stream)
_HOUR_S = 3600


def allow_origin(routes: Sequence[Route], origin: str) -> list[Route]:
    """The routes with answers that a page of `origin` may read, and what browsers ask before they send anything.

    Shapes: `origin` is `*` or one such as `https://ui.example.org`; empty leaves all as it is.
    """
    if not origin:
        return list(routes)
    methods: dict[str, list[str]] = {}
    for route in routes:
        methods.setdefault(route.path, []).append(route.method)
    own = {"Access-Control-Allow-Origin": origin, **({} if origin == "*" else {"Vary": "Origin"})}
    asked = [_preflight(path, found, own) for path, found in methods.items()]
    return [*(_readable(route, own) for route in routes), *asked]


def _readable(route: Route, own: dict[str, str]) -> Route:
    handler, errors = route.handler, route.errors

    async def answer(request: Request) -> Response | Stream:
        return _with(await handler(request), own)

    def refuse(error: CorralError, request: Request) -> Response:
        return _with(errors(error, request), own)

    return msgspec.structs.replace(route, handler=answer, errors=refuse)


def _with(response: T, own: dict[str, str]) -> T:
    return msgspec.structs.replace(response, headers={**response.headers, **own})


def _preflight(path: str, methods: Sequence[str], own: dict[str, str]) -> Route:
    headers = {
        **own,
        "Access-Control-Allow-Methods": ", ".join(sorted({*methods, "OPTIONS"})),
        "Access-Control-Allow-Headers": "Authorization, Content-Type",
        "Access-Control-Max-Age": str(_HOUR_S),
    }

    async def answer(request: Request) -> Response:
        return Response(status=204, headers=headers)

    return Route(method="OPTIONS", path=path, handler=answer)
