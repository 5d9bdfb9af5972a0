"""What all doors of Marathon's API share: how they read a request's path and query, and how they answer."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from corral.frameworks.services.command_spec import READS, Bound, Command, Result
from corral.frameworks.services.validate import canonical_id
from corral.net.routes import Request, Response, json_response

Ask = Callable[[Request, Command], Awaitable[Any]]
"""Asks the core for whoever sent the request."""
Table = Sequence[tuple[str, str, Any]]
"""Method, path and handler of each route of a door."""

NO_CACHE = {"Cache-Control": "no-cache, no-store, must-revalidate", "Pragma": "no-cache", "Expires": "0"}


def for_callers(ask: Callable[[Command], Awaitable[Any]]) -> Ask:
    """The core is told who wants a change when it is somebody who is bound to roles; reads are for everybody."""

    def ask_for(request: Request, command: Command) -> Awaitable[Any]:
        bound = request.caller.roles and not isinstance(command, READS)
        return ask(Bound(caller=request.caller, command=command) if bound else command)

    return ask_for


def app_id_of(request: Request) -> str:
    """The app or group that the path names."""
    return canonical_id("/" + request.params["id"])


def group_id_of(request: Request) -> str:
    """As `app_id_of`, or the root when the path names none."""
    return canonical_id(request.params.get("id", ""))


def embed_of(request: Request) -> tuple[str, ...]:
    """Shapes: several may stand in one parameter, with commas."""
    return tuple(part for text in request.query.get("embed", ()) for part in text.split(","))


def write_json(value: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return json_response(value, status=status, headers={**NO_CACHE, **(headers or {})})


def headers_of(result: Result, app_id: str | None, unknown: Sequence[str]) -> dict[str, str]:
    """The headers of what began a deployment. What was not understood is reported there, as bodies have no place."""
    headers = {"Marathon-Deployment-Id": result.deployment_id}
    if app_id is not None:
        headers["Location"] = app_id
    if unknown:
        shown = ", ".join(unknown[:10]).encode("ascii", "replace").decode()
        headers["Corral-Ignored-Fields"] = "".join(c if c.isprintable() else "?" for c in shown)[:1000]
    return headers


def write_result(result: Result, unknown: Sequence[str] = ()) -> Response:
    return write_json(
        {"version": result.version, "deploymentId": result.deployment_id},
        status=201 if result.created else 200,
        headers=headers_of(result, result.id if result.created else None, unknown),
    )
