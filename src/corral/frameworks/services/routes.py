"""Marathon's REST API: each handler reads the dialect, asks the core, writes the dialect, and decides nothing.

Here are apps and tasks; the other tables are in the `..._routes.py` beside it.
Source: Marathon's contract, section 16.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import msgspec

from corral.frameworks.services.answers import (
    NO_CACHE,
    Ask,
    Table,
    app_id_of,
    embed_of,
    for_callers,
    headers_of,
    write_json,
    write_result,
)
from corral.frameworks.services.app_spec import AppSpec
from corral.frameworks.services.command_spec import (
    AppUpdate,
    Command,
    CreateApp,
    DeleteApp,
    GetApp,
    GetApps,
    GetTasks,
    GetVersion,
    GetVersions,
    GroupUpdate,
    KillTasks,
    PlanApps,
    RestartApp,
    Result,
    UpdateApps,
)
from corral.frameworks.services.deployment_routes import deployment_table
from corral.frameworks.services.event_routes import event_table
from corral.frameworks.services.group_routes import group_table
from corral.frameworks.services.marathon import ReadApp, read_app, read_update, read_updates, write_error
from corral.frameworks.services.names import TaskName, read_task_id, read_task_ids, read_version
from corral.frameworks.services.pace import read_policy, read_seen
from corral.frameworks.services.pod_routes import pod_table
from corral.frameworks.services.reader import read_json
from corral.frameworks.services.registry_routes import registry_routes
from corral.frameworks.services.scaling_routes import scaling_table
from corral.frameworks.services.side_routes import side_table
from corral.frameworks.services.tree import read_group
from corral.frameworks.services.validate import canonical_id
from corral.lib.errors import CorralError, Invalid, NotFound
from corral.net.answers import accepts_gzip, compress
from corral.net.routes import Request, Response, Route, Stream
from corral.sdk.feed import Feed

MOST_BODY_BYTES = 8 << 20
COMPRESSED_ASIDE_BYTES = 128 << 10
"""What is longer is compressed beside the loop, which answers others meanwhile."""


def routes(ask_core: Callable[[Command], Awaitable[Any]], feed: Feed | None = None, leader: str = "") -> list[Route]:
    """The front door. Shapes: `leader` is the URL that every answer names, if any.

    Shapes: the longer paths stand before the shorter ones that would take them too. No app or pod may be called by
    what such a longer path ends in, so that a method which none of its routes has is a 405, not an unknown app.
    """
    feed = Feed() if feed is None else feed
    ask = for_callers(ask_core)
    door = _Door(ask)
    table: Table = (
        ("GET", "/v2/apps", door.list_apps),
        ("POST", "/v2/apps", door.create_app),
        ("PUT", "/v2/apps", door.update_apps),
        ("PATCH", "/v2/apps", door.update_apps),
        ("GET", "/v2/apps/*/tasks", door.list_tasks_below),
        ("GET", "/v2/apps/{group*}/*/tasks", door.list_tasks_below),
        ("GET", "/v2/apps/*", door.list_apps_below),
        ("GET", "/v2/apps/{group*}/*", door.list_apps_below),
        ("DELETE", "/v2/apps/{id*}/tasks/{task}", door.kill_task),
        ("GET", "/v2/apps/{id*}/tasks", door.list_app_tasks),
        ("DELETE", "/v2/apps/{id*}/tasks", door.kill_app_tasks),
        ("POST", "/v2/apps/{id*}/restart", door.restart_app),
        ("GET", "/v2/apps/{id*}/versions/{version}", door.get_version),
        ("GET", "/v2/apps/{id*}/versions", door.list_versions),
        ("GET", "/v2/apps/{id*}", door.get_app),
        ("PUT", "/v2/apps/{id*}", door.update_app),
        ("PATCH", "/v2/apps/{id*}", door.update_app),
        ("DELETE", "/v2/apps/{id*}", door.delete_app),
        ("GET", "/v2/tasks", door.list_tasks),
        ("POST", "/v2/tasks/delete", door.kill_tasks),
        ("POST", "/v2/plan", door.plan),
    )
    tables = (
        pod_table(ask),
        scaling_table(ask),
        table,
        deployment_table(ask),
        group_table(ask),
        event_table(ask, feed),
    )
    plain = [
        Route(
            method=method,
            path=path,
            handler=handler,
            errors=write_error,
            most_bytes=MOST_BODY_BYTES,
            exclusive=path.startswith("/v2/") and not path.startswith("/v2/groups"),
        )
        for method, path, handler in (row for rows in (*tables, side_table(ask)) for row in rows)
    ]
    return [*(_dress(route, leader) for route in plain), *registry_routes(ask_core, feed)]


def _dress(route: Route, leader: str) -> Route:
    """The route with what all of Marathon's answers have: who leads, nothing for caches, gzip for those who take it."""
    handler, errors = route.handler, route.errors
    own = {**NO_CACHE, **({"X-Marathon-Leader": leader} if leader else {})}

    async def answer(request: Request) -> Response | Stream:
        found = await handler(request)
        if isinstance(found, Response) and accepts_gzip(request.headers.get("accept-encoding", "")):
            large = len(found.body) >= COMPRESSED_ASIDE_BYTES
            found = await asyncio.to_thread(compress, found, request) if large else compress(found, request)
        return msgspec.structs.replace(found, headers={**own, **found.headers})

    def refuse(error: CorralError, request: Request) -> Response:
        found = errors(error, request)
        return msgspec.structs.replace(found, headers={**own, **found.headers})

    return msgspec.structs.replace(route, handler=answer, errors=refuse)


class _Door:
    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    # Apps.

    async def list_apps(self, request: Request) -> Response:
        command = GetApps(
            cmd=request.first("cmd") or None,
            id=request.first("id") or None,
            label=request.first("label") or None,
            embed=embed_of(request),
        )
        return write_json({"apps": await self._ask(request, command)})

    async def list_apps_below(self, request: Request) -> Response:
        return write_json({"*": await self._ask(request, GetApps(below=_group(request), embed=embed_of(request)))})

    async def create_app(self, request: Request) -> Response:
        found = read_app(read_json(request.body))
        result, value = await self._ask(request, _create(request, found))
        return write_json(value, status=201, headers=headers_of(result, found.spec.id, found.unknown))

    async def get_app(self, request: Request) -> Response:
        app = await self._ask(request, GetApp(id=app_id_of(request), embed=embed_of(request)))
        return write_json({"app": app}, headers={"ETag": f'"{app["version"]}"'})

    async def update_app(self, request: Request) -> Response:
        app_id = app_id_of(request)
        found = read_update(read_json(request.body), app_id, any_id=request.method == "PATCH")
        version = None if found.to_version is None else read_version(found.to_version)
        update = AppUpdate(id=app_id, spec=found.spec, given=found.given, to_version=version)
        command = UpdateApps(
            updates=(update,),
            partial=request.method == "PATCH" or request.flag("partialUpdate", True),
            create=request.method != "PATCH",
            force=request.flag("force"),
            policy=read_policy(request.query),
            seen=read_seen(request.headers.get("if-match")),
            dry_run=request.flag("dryRun"),
            single=True,
            ignored=found.unknown,
            client=request.peer,
            uri=request.path,
        )
        result = await self._ask(request, command)
        return write_json(result) if command.dry_run else write_result(result, found.unknown)

    async def update_apps(self, request: Request) -> Response:
        updates, unknown = read_updates(read_json(request.body))
        command = UpdateApps(
            updates=updates,
            partial=request.method == "PATCH" or request.flag("partialUpdate", True),
            create=request.method != "PATCH",
            force=request.flag("force"),
            policy=read_policy(request.query),
            dry_run=request.flag("dryRun"),
            ignored=unknown,
            client=request.peer,
            uri=request.path,
        )
        result = await self._ask(request, command)
        return write_json(result) if command.dry_run else write_result(result, unknown)

    async def delete_app(self, request: Request) -> Response:
        seen = read_seen(request.headers.get("if-match"))
        return write_result(
            await self._ask(request, DeleteApp(id=app_id_of(request), force=request.flag("force", True), seen=seen))
        )

    async def restart_app(self, request: Request) -> Response:
        command = RestartApp(
            id=app_id_of(request),
            force=request.flag("force"),
            policy=read_policy(request.query),
            seen=read_seen(request.headers.get("if-match")),
        )
        return write_result(await self._ask(request, command))

    async def list_versions(self, request: Request) -> Response:
        return write_json({"versions": await self._ask(request, GetVersions(id=app_id_of(request)))})

    async def get_version(self, request: Request) -> Response:
        version = read_version(request.params["version"])
        return write_json(await self._ask(request, GetVersion(id=app_id_of(request), version=version)))

    # Tasks.

    async def list_tasks(self, request: Request) -> Response:
        states = tuple(s for key in ("status", "status[]") for text in request.query.get(key, ()) for s in [text])
        return await self._tasks(request, GetTasks(states=states, as_text=_wants_text(request)))

    async def list_tasks_below(self, request: Request) -> Response:
        return await self._tasks(request, GetTasks(below=_group(request), as_text=_wants_text(request)))

    async def list_app_tasks(self, request: Request) -> Response:
        return await self._tasks(request, GetTasks(app=app_id_of(request), as_text=_wants_text(request)))

    async def _tasks(self, request: Request, command: GetTasks) -> Response:
        found = await self._ask(request, command)
        if command.as_text:
            return Response(body=found.encode(), content_type="text/plain", headers=NO_CACHE)
        return write_json({"tasks": found})

    async def kill_task(self, request: Request) -> Response:
        app_id, text = app_id_of(request), request.params["task"]
        name = read_task_id(text)
        if name is None:
            raise Invalid(f"task id {text!r} is malformed; ids look like web.instance-UUID._app.1")
        found = await self._ask(
            request,
            KillTasks(
                app=app_id,
                instances=(name.instance,),
                incarnations=_incarnations([name]),
                scale=request.flag("scale"),
                wipe=request.flag("wipe"),
                force=request.flag("force"),
                strict=True,
            ),
        )
        if isinstance(found, Result):
            return write_result(found)
        if not found:
            raise NotFound(f"Task '{text}' does not exist")
        return write_json({"task": found[0]})

    async def kill_app_tasks(self, request: Request) -> Response:
        return await self._kill(
            request,
            KillTasks(
                app=app_id_of(request),
                host=request.first("host") or None,
                scale=request.flag("scale"),
                wipe=request.flag("wipe"),
                force=request.flag("force"),
            ),
        )

    async def kill_tasks(self, request: Request) -> Response:
        names = read_task_ids(read_json(request.body))
        return await self._kill(
            request,
            KillTasks(
                instances=tuple(n.instance for n in names),
                incarnations=_incarnations(names),
                scale=request.flag("scale"),
                wipe=request.flag("wipe"),
                force=request.flag("force"),
            ),
        )

    async def _kill(self, request: Request, command: KillTasks) -> Response:
        found = await self._ask(request, command)
        return write_result(found) if isinstance(found, Result) else write_json({"tasks": found})

    # What would be.

    async def plan(self, request: Request) -> Response:
        found = read_json(request.body)
        if isinstance(found, dict) and ("apps" in found or "groups" in found):
            group = read_group(found, "/")
            command = PlanApps(specs=tuple(_apps_in(group.update)), unknown=group.unknown)
        elif isinstance(found, list):
            updates, unknown = read_updates(found)
            command = PlanApps(specs=tuple(each.spec for each in updates), unknown=unknown)
        else:
            app = read_app(found)
            command = PlanApps(specs=(app.spec,), unknown=app.unknown)
        return write_json(await self._ask(request, command))


def _create(request: Request, found: ReadApp) -> CreateApp:
    return CreateApp(
        spec=found.spec,
        force=request.flag("force"),
        policy=read_policy(request.query),
        ignored=found.unknown,
        client=request.peer,
        uri=request.path,
    )


def _apps_in(group: GroupUpdate) -> Iterator[AppSpec]:
    yield from group.apps or ()
    for below in group.groups or ():
        yield from _apps_in(below)


def _group(request: Request) -> str:
    return canonical_id("/" + request.params.get("group", ""))


def _incarnations(names: Sequence[TaskName]) -> dict[str, int]:
    return {n.instance: n.incarnation for n in names if n.incarnation is not None}


def _wants_text(request: Request) -> bool:
    accept = request.headers.get("accept", "")
    return "text/plain" in accept and "json" not in accept
