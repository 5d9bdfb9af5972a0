"""Marathon's REST API: each handler reads the dialect, asks the core, writes the dialect, and decides nothing.

Source: Marathon's contract, sections 16 to 18.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

from corral.frameworks.services import events
from corral.frameworks.services.app_spec import AppSpec
from corral.frameworks.services.command_spec import (
    AppUpdate,
    CancelDeployment,
    CheckGroup,
    Command,
    CreateApp,
    CreateGroup,
    DeleteApp,
    DeleteGroup,
    GetApp,
    GetApps,
    GetAvoided,
    GetDeployment,
    GetDeployments,
    GetEnded,
    GetGroup,
    GetGroupVersion,
    GetGroupVersions,
    GetInfo,
    GetLeader,
    GetQueue,
    GetTasks,
    GetVersion,
    GetVersions,
    GroupUpdate,
    KillTasks,
    PauseDeployment,
    PlanApps,
    PromoteDeployment,
    ResetDelay,
    RestartApp,
    Result,
    UpdateApps,
    UpdateGroup,
)
from corral.frameworks.services.marathon import ReadApp, read_app, read_update, read_updates, write_error
from corral.frameworks.services.names import TaskName, read_task_id, read_task_ids, read_version
from corral.frameworks.services.pace import read_policy, read_seen, read_share
from corral.frameworks.services.pod_routes import pod_table
from corral.frameworks.services.reader import read_json
from corral.frameworks.services.registry_routes import registry_routes
from corral.frameworks.services.scaling_routes import scaling_table
from corral.frameworks.services.tree import read_group, read_group_patch
from corral.frameworks.services.validate import canonical_id
from corral.frameworks.services.webhook_spec import AddWebhook, GetWebhooks, RemoveWebhook
from corral.lib.clock import system_clock
from corral.lib.errors import Invalid, NotFound, Unprocessable
from corral.net.routes import Request, Response, Route, Stream, json_response
from corral.sdk.feed import Feed, Follower

Ask = Callable[[Command], Awaitable[Any]]
MOST_BODY_BYTES = 8 << 20
NO_CACHE = {"Cache-Control": "no-cache, no-store, must-revalidate", "Pragma": "no-cache", "Expires": "0"}


def routes(ask: Ask, feed: Feed | None = None) -> list[Route]:
    """The front door. Shapes: the longer paths stand before the shorter ones that would take them too."""
    feed = Feed() if feed is None else feed
    door = _Door(ask, feed)
    table: Sequence[tuple[str, str, Any]] = (
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
        ("GET", "/v2/deployments", door.list_deployments),
        ("GET", "/v2/deployments/ended", door.list_ended),
        ("GET", "/v2/deployments/{id}", door.get_deployment),
        ("POST", "/v2/deployments/{id}/pause", door.pause_deployment),
        ("POST", "/v2/deployments/{id}/resume", door.resume_deployment),
        ("POST", "/v2/deployments/{id}/promote", door.promote_deployment),
        ("DELETE", "/v2/deployments/{id}", door.cancel_deployment),
        ("GET", "/v2/queue", door.list_queue),
        ("DELETE", "/v2/queue/{id*}/delay", door.reset_delay),
        ("GET", "/v2/groups", door.get_group),
        ("POST", "/v2/groups", door.create_group),
        ("PUT", "/v2/groups", door.update_group),
        ("DELETE", "/v2/groups", door.delete_group),
        ("GET", "/v2/groups/versions/{version}", door.get_group_version),
        ("GET", "/v2/groups/versions", door.list_group_versions),
        ("GET", "/v2/groups/apps", door.list_group_apps),
        ("GET", "/v2/groups/{id*}/versions/{version}", door.get_group_version),
        ("PUT", "/v2/groups/{id*}/versions/{version}", door.roll_back_group),
        ("GET", "/v2/groups/{id*}/versions", door.list_group_versions),
        ("GET", "/v2/groups/{id*}/apps", door.list_group_apps),
        ("PATCH", "/v2/groups", door.patch_group),
        ("PATCH", "/v2/groups/{id*}", door.patch_group),
        ("GET", "/v2/groups/{id*}", door.get_group),
        ("POST", "/v2/groups/{id*}", door.create_group),
        ("PUT", "/v2/groups/{id*}", door.update_group),
        ("DELETE", "/v2/groups/{id*}", door.delete_group),
        ("POST", "/v2/plan", door.plan),
        ("GET", "/v2/avoided", door.list_avoided),
        ("GET", "/v2/events", door.list_events),
        ("GET", "/v2/info", door.get_info),
        ("GET", "/v2/leader", door.get_leader),
        ("GET", "/v2/eventSubscriptions", door.list_webhooks),
        ("POST", "/v2/eventSubscriptions", door.add_webhook),
        ("DELETE", "/v2/eventSubscriptions", door.remove_webhook),
        ("GET", "/v2/plugins", door.list_plugins),
        ("GET", "/ping", door.ping),
        ("*", "/v2/{rest*}", door.unknown),
    )
    return [
        Route(method=method, path=path, handler=handler, errors=write_error, most_bytes=MOST_BODY_BYTES)
        for method, path, handler in (*pod_table(ask), *scaling_table(ask), *table)
    ] + registry_routes(ask, feed)


class _Door:
    def __init__(self, ask: Ask, feed: Feed) -> None:
        self._ask = ask
        self._feed = feed

    # Apps.

    async def list_apps(self, request: Request) -> Response:
        command = GetApps(
            cmd=request.first("cmd") or None,
            id=request.first("id") or None,
            label=request.first("label") or None,
            embed=_embed(request),
        )
        return _json({"apps": await self._ask(command)})

    async def list_apps_below(self, request: Request) -> Response:
        return _json({"*": await self._ask(GetApps(below=_group(request), embed=_embed(request)))})

    async def create_app(self, request: Request) -> Response:
        found = read_app(read_json(request.body))
        result, value = await self._ask(_create(request, found))
        return _json(value, status=201, headers=_deployed(result, found.spec.id, found.unknown))

    async def get_app(self, request: Request) -> Response:
        app = await self._ask(GetApp(id=_id(request), embed=_embed(request)))
        return _json({"app": app}, headers={"ETag": f'"{app["version"]}"'})

    async def update_app(self, request: Request) -> Response:
        app_id = _id(request)
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
        result = await self._ask(command)
        return _json(result) if command.dry_run else _result(result, found.unknown)

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
        result = await self._ask(command)
        return _json(result) if command.dry_run else _result(result, unknown)

    async def delete_app(self, request: Request) -> Response:
        seen = read_seen(request.headers.get("if-match"))
        return _result(await self._ask(DeleteApp(id=_id(request), force=request.flag("force", True), seen=seen)))

    async def restart_app(self, request: Request) -> Response:
        command = RestartApp(
            id=_id(request),
            force=request.flag("force"),
            policy=read_policy(request.query),
            seen=read_seen(request.headers.get("if-match")),
        )
        return _result(await self._ask(command))

    async def list_versions(self, request: Request) -> Response:
        return _json({"versions": await self._ask(GetVersions(id=_id(request)))})

    async def get_version(self, request: Request) -> Response:
        version = read_version(request.params["version"])
        return _json(await self._ask(GetVersion(id=_id(request), version=version)))

    async def list_avoided(self, request: Request) -> Response:
        return _json({"avoided": await self._ask(GetAvoided())})

    # Tasks.

    async def list_tasks(self, request: Request) -> Response:
        states = tuple(s for key in ("status", "status[]") for text in request.query.get(key, ()) for s in [text])
        return await self._tasks(request, GetTasks(states=states, as_text=_wants_text(request)))

    async def list_tasks_below(self, request: Request) -> Response:
        return await self._tasks(request, GetTasks(below=_group(request), as_text=_wants_text(request)))

    async def list_app_tasks(self, request: Request) -> Response:
        return await self._tasks(request, GetTasks(app=_id(request), as_text=_wants_text(request)))

    async def _tasks(self, request: Request, command: GetTasks) -> Response:
        found = await self._ask(command)
        if command.as_text:
            return Response(body=found.encode(), content_type="text/plain", headers=NO_CACHE)
        return _json({"tasks": found})

    async def kill_task(self, request: Request) -> Response:
        app_id, text = _id(request), request.params["task"]
        name = read_task_id(text)
        if name is None:
            raise Invalid(f"task id {text!r} is malformed; ids look like web.instance-UUID._app.1")
        found = await self._ask(
            KillTasks(
                app=app_id,
                instances=(name.instance,),
                incarnations=_incarnations([name]),
                scale=request.flag("scale"),
                wipe=request.flag("wipe"),
                force=request.flag("force"),
                strict=True,
            )
        )
        if isinstance(found, Result):
            return _result(found)
        if not found:
            raise NotFound(f"Task '{text}' does not exist")
        return _json({"task": found[0]})

    async def kill_app_tasks(self, request: Request) -> Response:
        return await self._kill(
            KillTasks(
                app=_id(request),
                host=request.first("host") or None,
                scale=request.flag("scale"),
                wipe=request.flag("wipe"),
                force=request.flag("force"),
            )
        )

    async def kill_tasks(self, request: Request) -> Response:
        names = read_task_ids(read_json(request.body))
        return await self._kill(
            KillTasks(
                instances=tuple(n.instance for n in names),
                incarnations=_incarnations(names),
                scale=request.flag("scale"),
                wipe=request.flag("wipe"),
                force=request.flag("force"),
            )
        )

    async def _kill(self, command: KillTasks) -> Response:
        found = await self._ask(command)
        return _result(found) if isinstance(found, Result) else _json({"tasks": found})

    # Deployments, queue, groups.

    async def list_deployments(self, request: Request) -> Response:
        return _json(await self._ask(GetDeployments()))

    async def list_ended(self, request: Request) -> Response:
        return _json(await self._ask(GetEnded()))

    async def get_deployment(self, request: Request) -> Response:
        return _json(await self._ask(GetDeployment(id=request.params["id"])))

    async def pause_deployment(self, request: Request) -> Response:
        return _json(await self._ask(PauseDeployment(id=request.params["id"])))

    async def resume_deployment(self, request: Request) -> Response:
        return _json(await self._ask(PauseDeployment(id=request.params["id"], paused=False)))

    async def promote_deployment(self, request: Request) -> Response:
        command = PromoteDeployment(id=request.params["id"], share=read_share(request.first("weight", "100")))
        return _json(await self._ask(command))

    async def cancel_deployment(self, request: Request) -> Response:
        result = await self._ask(CancelDeployment(id=request.params["id"], force=request.flag("force")))
        return Response(status=202, headers=NO_CACHE) if result is None else _result(result)

    async def list_queue(self, request: Request) -> Response:
        return _json({"queue": await self._ask(GetQueue(embed=_embed(request)))})

    async def reset_delay(self, request: Request) -> Response:
        await self._ask(ResetDelay(id=_id(request)))
        return Response(status=204, headers=NO_CACHE)

    async def get_group(self, request: Request) -> Response:
        return _json(await self._ask(GetGroup(id=_group_id(request), embed=_embed(request))))

    async def list_group_apps(self, request: Request) -> Response:
        await self._ask(GetGroup(id=_group_id(request), embed=("group.groups",)))
        return _json(await self._ask(GetApps(below=_group_id(request), embed=_embed(request))))

    async def list_group_versions(self, request: Request) -> Response:
        return _json(await self._ask(GetGroupVersions(id=_group_id(request))))

    async def get_group_version(self, request: Request) -> Response:
        version = read_version(request.params["version"])
        return _json(await self._ask(GetGroupVersion(id=_group_id(request), version=version)))

    async def roll_back_group(self, request: Request) -> Response:
        version = read_version(request.params["version"])
        update = GroupUpdate(id=_group_id(request))
        return _result(await self._ask(UpdateGroup(update=update, to_version=version, force=request.flag("force"))))

    async def patch_group(self, request: Request) -> Response:
        read_group_patch(read_json(request.body))
        return _result(await self._ask(CheckGroup(id=_group_id(request))))

    async def create_group(self, request: Request) -> Response:
        group_id = _group_id(request)
        found = read_group(read_json(request.body), group_id)
        for field, given in (("scaleBy", found.scale_by), ("version", found.to_version)):
            if given is not None:
                text = f"{field} changes a group that is there; use PUT"
                raise Unprocessable("Object is not valid", {f"/{field}": [text]})
        command = CreateGroup(
            update=found.update,
            force=request.flag("force"),
            policy=read_policy(request.query),
            ignored=found.unknown,
        )
        result = await self._ask(command)
        headers = {**_deployed(result, None, found.unknown), "Location": f"/v2/groups{found.update.id}"}
        return _json({"version": result.version, "deploymentId": result.deployment_id}, status=201, headers=headers)

    async def update_group(self, request: Request) -> Response:
        group_id = _group_id(request)
        found = read_group(read_json(request.body), group_id)
        answer = await self._ask(
            UpdateGroup(
                update=found.update,
                scale_by=found.scale_by,
                to_version=None if found.to_version is None else read_version(found.to_version),
                dry_run=request.flag("dryRun"),
                diff=request.flag("diff"),
                force=request.flag("force"),
                policy=read_policy(request.query),
                ignored=found.unknown,
            )
        )
        return _result(answer, found.unknown) if isinstance(answer, Result) else _json(answer)

    async def delete_group(self, request: Request) -> Response:
        return _result(await self._ask(DeleteGroup(id=_group_id(request), force=request.flag("force"))))

    # Events.

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
        return _json(await self._ask(command))

    async def list_events(self, request: Request) -> Response | Stream:
        if not events.accepts(request.headers.get("accept", "")):
            message = "events come as a stream; ask with the header Accept: text/event-stream"
            return _json({"message": message}, status=405, headers={"Allow": "GET"})
        feed, remote = self._feed, request.peer
        follower = feed.follow(request.headers.get("last-event-id", ""))
        feed.publish(events.ATTACHED, events.write_attached(events.ATTACHED, remote, system_clock()))

        def leave() -> None:
            follower.close()
            feed.publish(events.DETACHED, events.write_attached(events.DETACHED, remote, system_clock()))

        kinds = events.read_kinds(request.query.get("event_type", ()))
        chunks = self._frames(follower, kinds)
        return Stream(
            chunks=chunks,
            content_type="text/event-stream",
            headers=NO_CACHE,
            close=leave,
            patience_s=2 * events.KEEP_ALIVE_S,
        )

    async def list_webhooks(self, request: Request) -> Response:
        return _json(await self._ask(GetWebhooks()))

    async def add_webhook(self, request: Request) -> Response:
        return _json(await self._ask(AddWebhook(url=request.first("callbackUrl"), client_ip=request.peer)))

    async def remove_webhook(self, request: Request) -> Response:
        return _json(await self._ask(RemoveWebhook(url=request.first("callbackUrl"), client_ip=request.peer)))

    async def _frames(self, follower: Follower, kinds: frozenset[str]) -> AsyncIterator[bytes]:
        if follower.lost:
            yield events.write_comment("what happened after that id is no longer kept; get the present state")
        async for batch in follower.batches(events.KEEP_ALIVE_S):
            wanted = [
                events.write_frame(self._feed.id_of(event), event.kind, event.data)
                for event in batch
                if events.is_wanted(event.kind, kinds)
            ]
            # A word even when nothing of it was wanted: a client waits for the first bytes of its answer.
            yield b"".join(wanted) or events.KEEP_ALIVE
        yield events.write_comment("too slow: too much waits to be sent; come back with Last-Event-ID")

    # The framework itself.

    async def get_info(self, request: Request) -> Response:
        return _json(await self._ask(GetInfo()))

    async def get_leader(self, request: Request) -> Response:
        return _json(await self._ask(GetLeader()))

    async def list_plugins(self, request: Request) -> Response:
        return _json({"plugins": []})

    async def ping(self, request: Request) -> Response:
        if request.headers.get("accept", "") == "application/json":
            return _json("pong")
        return Response(body=b"pong", content_type="text/plain", headers=NO_CACHE)

    async def unknown(self, request: Request) -> Response:
        raise _unknown(request)


def _unknown(request: Request) -> NotFound:
    return NotFound(f"{request.method} {request.path} is not part of this release; GET /v2/info tells its version")


def _group_id(request: Request) -> str:
    return canonical_id(request.params.get("id", ""))


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


def _id(request: Request) -> str:
    return canonical_id("/" + request.params["id"])


def _group(request: Request) -> str:
    return canonical_id("/" + request.params.get("group", ""))


def _incarnations(names: Sequence[TaskName]) -> dict[str, int]:
    return {n.instance: n.incarnation for n in names if n.incarnation is not None}


def _embed(request: Request) -> tuple[str, ...]:
    return tuple(part for text in request.query.get("embed", ()) for part in text.split(","))


def _wants_text(request: Request) -> bool:
    accept = request.headers.get("accept", "")
    return "text/plain" in accept and "json" not in accept


def _json(value: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return json_response(value, status=status, headers={**NO_CACHE, **(headers or {})})


def _deployed(result: Result, app_id: str | None, unknown: Sequence[str]) -> dict[str, str]:
    """What was not understood is reported beside the answer, as bodies have no place for it."""
    headers = {"Marathon-Deployment-Id": result.deployment_id}
    if app_id is not None:
        headers["Location"] = app_id
    if unknown:
        shown = ", ".join(unknown[:10]).encode("ascii", "replace").decode()
        headers["Corral-Ignored-Fields"] = "".join(c if c.isprintable() else "?" for c in shown)[:1000]
    return headers


def _result(result: Result, unknown: Sequence[str] = ()) -> Response:
    return _json(
        {"version": result.version, "deploymentId": result.deployment_id},
        status=201 if result.created else 200,
        headers=_deployed(result, result.id if result.created else None, unknown),
    )
