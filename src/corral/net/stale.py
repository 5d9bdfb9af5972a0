"""Marks what a component that cannot write its records still answers: as of when it is, and that it may be out of date.

Source: RFC 7234, 5.5.1, `Warning: 110`, and `Age`; corral's own `Corral-Stale` has the seconds with a fraction.
"""

from collections.abc import Callable, Sequence

import msgspec

from corral.lib.clock import steady_clock
from corral.lib.errors import Unavailable
from corral.net.routes import Handler, RawRoute, Request, Response, Route, Stream

STALE = "Corral-Stale"
RETRY_AFTER_S = 5

Since = Callable[[], float | None]
"""Since when nothing is taken, by the steady clock; None while all is well."""


def marked(routes: Sequence[Route | RawRoute], since: Since) -> list[Route | RawRoute]:
    """The same routes, whose answers say how old they are; what needs the connection itself is refused then."""
    return [_raw(route, since) if isinstance(route, RawRoute) else _plain(route, since) for route in routes]


def _plain(route: Route, since: Since) -> Route:
    async def answer(request: Request) -> Response | Stream:
        found = await route.handler(request)
        at = since()
        if at is None:
            return found
        return mark(found, at)

    def errors(error: Exception, request: Request) -> Response:
        found = route.errors(error, request)  # type: ignore[arg-type]
        return found if since() is None or found.status != 503 else _ask_again(found)

    handler: Handler = answer
    return msgspec.structs.replace(route, handler=handler, errors=errors)


def _raw(route: RawRoute, since: Since) -> RawRoute:
    async def handle(raw: object) -> object:
        if since() is not None:
            raise Unavailable("the records cannot be written now; come again when the store is back", RETRY_AFTER_S)
        return await route.handler(raw)

    return msgspec.structs.replace(route, handler=handle)


def mark(answer: Response | Stream, at: float) -> Response | Stream:
    """The answer with its age. Units: `at` by the steady clock."""
    age_s = max(0.0, steady_clock() - at)
    told = {STALE: f"{age_s:.1f}", "Age": f"{age_s:.0f}", "Warning": '110 corral "Response is Stale"'}
    return msgspec.structs.replace(answer, headers={**answer.headers, **told})


def _ask_again(answer: Response) -> Response:
    return msgspec.structs.replace(answer, headers={"Retry-After": str(RETRY_AFTER_S), **answer.headers})
