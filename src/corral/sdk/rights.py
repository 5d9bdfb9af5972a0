"""Who may change what a framework runs: those whose roles hold the roles it launches in.

Rules: a caller that is bound to no role, or was not asked who they are, may do all of it; reads are for every caller.
Whoever is bound to roles needs each role that the framework uses, one's own or one below it, for whatever changes
anything. As everything of a framework is launched in its roles, it all belongs to them.
"""

from collections.abc import Awaitable, Collection, Sequence

import msgspec

from corral.lib.errors import Forbidden
from corral.model.role import is_within
from corral.net.auth import Caller
from corral.net.routes import Handler, Request, Response, Route, Stream

READS = frozenset({"GET", "HEAD", "OPTIONS"})


def holds(caller: Caller, role: str) -> bool:
    """Whether the caller may act in the role."""
    return not caller.roles or any(is_within(role, own) for own in caller.roles)


def check_roles(caller: Caller, roles: Sequence[str], what: str) -> None:
    """Errors: `Forbidden` names the role that the caller is not bound to, and what would do."""
    for role in roles:
        if not holds(caller, role):
            raise Forbidden(
                f"{caller.name} is bound to {', '.join(caller.roles)}, and {what} is of role {role!r}; "
                f"use a token with that role, or one without roles"
            )


def guard(routes: Sequence[Route], framework: str, roles: Sequence[str], free: Collection[str] = ()) -> list[Route]:
    """The routes with every change behind `check_roles`. Shapes: `free` are paths, as routes have them, that change
    nothing that the framework runs, whatever their method is.
    """
    needed = tuple(dict.fromkeys(roles))
    return [
        route if route.method in READS or route.path in free else _guarded(route, framework, needed) for route in routes
    ]


def _guarded(route: Route, framework: str, roles: Sequence[str]) -> Route:
    handler: Handler = route.handler

    def handle(request: Request) -> Awaitable[Response | Stream]:
        check_roles(request.caller, roles, f"what {framework} runs")
        return handler(request)

    return msgspec.structs.replace(route, handler=handle)
