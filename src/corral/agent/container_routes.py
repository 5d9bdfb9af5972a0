"""The agent's endpoint for tools that look into containers: `POST /api/v1`, the container calls of Mesos' agent API.

A session and an attachment are streams of RecordIO records, each a ProcessIO message; input comes as a request whose
body is such a stream. What is not about containers goes to `others`. Errors are plain text. Source: Mesos v1, agent
operator API.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress

from aiohttp import web

from corral.agent.container_streams import (
    RECORDIO,
    finish,
    hand_on,
    refuse_stream,
    refuse_whole,
    stream_media,
    stream_output,
    text,
)
from corral.agent.executor_routes import JSON, TEXT, refuse_media
from corral.agent.nested import Nested, NestedContainers
from corral.agent.rights import check_role_of
from corral.agent.shell import AgentShell
from corral.agent.spec import ContainerView, ListContainers
from corral.agent.standalone_spec import AwaitContainer, EndContainer, LaunchContainer, RemoveContainer
from corral.agent.usage import measure_containers
from corral.lib.clock import system_clock
from corral.lib.errors import Conflict, CorralError, Invalid, NotFound, Unavailable, Unimplemented
from corral.mesos import containers
from corral.mesos.containers import ContainerCall, Target
from corral.mesos.recordio import RecordReader
from corral.mesos.statistics import Measured
from corral.model.execution import Exit
from corral.model.ids import ContainerId
from corral.model.resources import Resources
from corral.net.answers import accepts_json
from corral.net.auth import ANYBODY, Caller
from corral.net.bodies import read_body
from corral.net.routes import RawRoute, Request, Response, Stream
from corral.net.server import CALLER
from corral.runtime.loop import Loop

PATHS = ("/api/v1", "/slave(1)/api/v1")
MOST_BYTES = 16 << 20
OUTPUTS = ("stdout", "stderr")

_STREAMED = frozenset({ContainerCall.LAUNCH_NESTED_CONTAINER_SESSION, ContainerCall.ATTACH_CONTAINER_OUTPUT})
_OF_NO_ROLE = frozenset({ContainerCall.LAUNCH_CONTAINER, ContainerCall.KILL_CONTAINER, ContainerCall.REMOVE_CONTAINER})

Exchange = Callable[[Request], Awaitable[Response | Stream]]


def container_routes(
    loop: Loop, shell: AgentShell | None, others: Exchange | None = None, paths: Sequence[str] = PATHS
) -> list[RawRoute]:
    """Shapes: `others` answers the calls that are not about containers; without, they are refused with 501."""
    doors = Doors(loop, shell, others or _refuse)
    return [RawRoute(method="POST", path=path, handler=doors.serve) for path in paths]


async def _refuse(request: Request) -> Response:
    kind = containers.find_kind(request.body)
    if kind is None:
        raise Invalid("Failed to validate agent::Call: Expecting 'type' to be present")
    raise Unimplemented(f"agent call {kind} is not part of this release; {', '.join(ContainerCall)} are")


class Doors:
    __slots__ = ("_loop", "_others", "_shell")

    def __init__(self, loop: Loop, shell: AgentShell | None, others: Exchange) -> None:
        self._loop = loop
        self._shell = shell
        self._others = others

    async def serve(self, raw: web.Request) -> web.StreamResponse:
        try:
            return await self._serve(raw)
        except CorralError as error:
            return finish(Response(status=error.status, body=error.message.encode(), content_type=TEXT))

    async def _serve(self, raw: web.Request) -> web.StreamResponse:
        if not self._loop.ready.is_set():
            raise Unavailable("the agent is still reading its records; try again in a moment")
        given = raw.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if given == RECORDIO:
            return await self._take_input(raw)
        headers = {key.lower(): value for key, value in raw.headers.items()}
        request = Request(method="POST", path=raw.path, headers=headers, peer=raw.remote or "")
        if (refusal := refuse_media(request)) is not None:
            return finish(refusal)
        body = await read_body(raw, MOST_BYTES)
        kind = containers.find_kind(body)
        if kind not in ContainerCall._value2member_map_:
            answer = await self._others(
                Request(method="POST", path=raw.path, headers=headers, body=body, peer=raw.remote or "")
            )
            return await hand_on(raw, answer)
        target = containers.read_call(body)
        if target.kind not in _STREAMED and not accepts_json(raw.headers.get("Accept")):
            return refuse_whole()
        return await self._call(raw, target)

    async def _call(self, raw: web.Request, target: Target) -> web.StreamResponse:
        caller = raw.get(CALLER, ANYBODY)
        if not target.parents and target.kind in _OF_NO_ROLE:
            await self._check_standalone(caller, target)
        match target.kind:
            case ContainerCall.GET_CONTAINERS:
                return finish(Response(body=await self._list(target)))
            case ContainerCall.LAUNCH_CONTAINER if target.info is not None:
                made = await self._loop.ask(LaunchContainer(target.info))
                return finish(Response(status=200 if made else 202))
            case ContainerCall.LAUNCH_NESTED_CONTAINER | ContainerCall.LAUNCH_CONTAINER:
                nested = await self._launch(target, caller)
                return finish(Response(status=200 if nested is not None else 202))
            case ContainerCall.LAUNCH_NESTED_CONTAINER_SESSION:
                return await self._hold_session(raw, target, caller)
            case ContainerCall.WAIT_NESTED_CONTAINER | ContainerCall.WAIT_CONTAINER:
                exit, resources = await self._wait(target)
                return finish(Response(body=containers.write_wait(target.kind, exit, resources)))
            case ContainerCall.KILL_NESTED_CONTAINER | ContainerCall.KILL_CONTAINER:
                await self._kill(target, caller)
                return finish(Response())
            case ContainerCall.REMOVE_NESTED_CONTAINER | ContainerCall.REMOVE_CONTAINER:
                await self._remove(target, caller)
                return finish(Response())
            case ContainerCall.ATTACH_CONTAINER_OUTPUT:
                return await self._attach(raw, target, caller)
            case ContainerCall.ATTACH_CONTAINER_INPUT:
                return finish(text(415, f"ATTACH_CONTAINER_INPUT is a stream; send it with Content-Type {RECORDIO}"))

    @property
    def _nested(self) -> NestedContainers:
        return self._hands.nested

    @property
    def _hands(self) -> AgentShell:
        assert self._shell is not None, "routes without a shell are only looked at"
        return self._shell

    async def _views(self) -> list[ContainerView]:
        found: list[ContainerView] = await self._loop.ask(ListContainers())
        return found

    async def _find(self, container_id: ContainerId) -> ContainerView:
        """Errors: `NotFound` when it is not that of a live task or executor, nor a standalone one that lives."""
        view = await self._find_owned(container_id)
        if view is not None:
            return view
        raise NotFound(f"Container '{container_id}' cannot be found; it has ended, or is of another agent")

    async def _wait(self, target: Target) -> tuple[Exit, Resources]:
        """How a container ended, when it has, and what it had: a further command's, a standalone one, a task's own or
        an executor's.
        """
        if target.parents:
            code = await asyncio.shield(self._nested.get(target.path).code)
            return _exit_of(target.id, code), ()
        view = await self._find_owned(target.id)
        if view is None:
            return await self._loop.ask(AwaitContainer(target.id)), ()
        if view.standalone:
            return await self._loop.ask(AwaitContainer(target.id)), view.resources
        if not view.runtime:
            raise Invalid(f"container {view.id} is an executor without a process; wait for those of its tasks")
        return await self._hands.wait_for_exit(view.runtime, view.inner), view.resources

    async def _kill(self, target: Target, caller: Caller) -> None:
        if target.parents:
            return await self._get(target, caller, "kill").kill(target.signal)
        view = await self._find_owned(target.id)
        if view is not None and not view.standalone:
            raise Invalid(
                f"container {view.id} is that of {view.executor}, which its framework ends; a nested one can be killed"
            )
        if view is None or not view.runs:
            return await self._loop.ask(EndContainer(target.id))  # type: ignore[no-any-return]
        with suppress(NotFound):  # it has just ended
            await self._hands.signal_in(view.runtime, view.inner, target.signal)

    async def _remove(self, target: Target, caller: Caller) -> None:
        if target.parents:
            self._get(target, caller, "remove")
            return self._nested.remove(target.path)
        view = await self._find_owned(target.id)
        if view is not None and not view.standalone:
            raise Conflict(f"container {view.id} is that of {view.executor}, and goes with it")
        await self._loop.ask(RemoveContainer(target.id))
        self._nested.forget_in(target.id)

    def _get(self, target: Target, caller: Caller, what: str) -> Nested:
        """A further command that this caller may do that with. Errors: `NotFound`, `Forbidden`."""
        found = self._nested.get(target.path)
        check_role_of(caller, found.role, f"{what} container {target.id}")
        return found

    async def _check_standalone(self, caller: Caller, target: Target) -> None:
        """Errors: `Forbidden` for one who is bound to roles, as no role stands behind a standalone container."""
        if caller.roles and (target.info is not None or await self._stands_alone(target.id)):
            check_role_of(caller, "", f"launch or end container {target.id}")

    async def _stands_alone(self, container_id: ContainerId) -> bool:
        view = await self._find_owned(container_id)
        return view is None or view.standalone

    async def _find_owned(self, container_id: ContainerId) -> ContainerView | None:
        """None when no live task, executor or standalone container is this."""
        return next((view for view in await self._views() if view.id == container_id), None)

    # Launching.

    async def _launch(self, target: Target, caller: Caller) -> Nested | None:
        view = await self._find(target.parents[0])
        check_role_of(caller, view.role, f"launch in container {view.id}")
        if len(target.parents) > 1 and target.parents[1] != view.parent:
            raise Invalid(f"container {view.id} is not in container {target.parents[1]}")
        if not view.runtime:
            raise Invalid(
                f"container {view.id} is an executor without a process; name the container of one of its tasks"
            )
        session = self._hands.exec_in(view.runtime, view.inner, _argv(target), tty=target.tty)
        return await self._nested.launch(target.path, session, target.window, view.role)

    async def _hold_session(self, raw: web.Request, target: Target, caller: Caller) -> web.StreamResponse:
        if (media := stream_media(raw)) is None:
            return refuse_stream()
        nested = await self._launch(target, caller)
        if nested is None:
            raise Invalid(f"container {target.id} is there already; choose a new id")
        try:
            return await stream_output(raw, nested.output(), media)
        finally:
            await nested.close()

    # Input and output.

    async def _attach(self, raw: web.Request, target: Target, caller: Caller) -> web.StreamResponse:
        if (media := stream_media(raw)) is None:
            return refuse_stream()
        with suppress(NotFound):
            return await stream_output(raw, self._get(target, caller, "watch").output(), media)
        view = await self._find(target.id)
        # Before the answer begins: what is written after that is what the client waits for.
        ends = {name: await self._hands.sandboxes_or_fail().size(f"{view.sandbox}/{name}") for name in OUTPUTS}
        return await stream_output(raw, self._follow_logs(view, ends), media)

    async def _follow_logs(self, view: ContainerView, ends: Mapping[str, int]) -> AsyncIterator[tuple[str, bytes]]:
        """What a task or an executor writes from there on."""
        queue: asyncio.Queue[tuple[str, bytes] | None] = asyncio.Queue(64)

        async def follow(name: str) -> None:
            chunks = self._hands.sandboxes_or_fail().follow(
                f"{view.sandbox}/{name}",
                offset=ends[name],
                follow=True,
                ended=lambda: not self._hands.is_alive(view.inner),
            )
            with suppress(NotFound):
                async for chunk in chunks:
                    await queue.put((name, chunk))
            await queue.put(None)

        work = [asyncio.create_task(follow(name)) for name in ends]
        try:
            left = len(work)
            while left:
                piece = await queue.get()
                if piece is None:
                    left -= 1
                else:
                    yield piece
        finally:
            for task in work:
                task.cancel()

    async def _take_input(self, raw: web.Request) -> web.StreamResponse:
        """Feed what comes to the command, until the client ends."""
        if raw.headers.get("Content-Encoding"):
            raise Invalid("a stream of ATTACH_CONTAINER_INPUT must not be encoded; send its records as they are")
        inner = raw.headers.get("Message-Content-Type", JSON).partition(";")[0].strip().lower()
        if inner != JSON:
            return finish(text(415, f"Expecting 'Message-Content-Type' of {JSON}; found {inner}"))
        reader, nested = RecordReader(), None
        async for chunk in raw.content.iter_any():
            for record in reader.feed(chunk):
                if nested is None:
                    target = containers.read_input_target(record)
                    nested = await self._find_nested(target, raw.get(CALLER, ANYBODY))
                    continue
                given = containers.read_input(record)
                if given.window is not None:
                    await nested.resize(*given.window)
                if given.data is not None and nested.runs:
                    await nested.write(given.data)
        if nested is None:
            raise Invalid("the first record of ATTACH_CONTAINER_INPUT must be of type CONTAINER_ID")
        return finish(Response())

    async def _find_nested(self, target: Target, caller: Caller) -> Nested:
        try:
            return self._get(target, caller, "feed")
        except NotFound:
            await self._find(target.id)
            raise Invalid(f"container {target.id} takes no input; launch a nested container for that") from None

    # Looking.

    async def _list(self, target: Target) -> bytes:
        views = await self._views()
        parents = {v.id: v for v in views if target.show_standalone or not v.standalone}
        rows = [
            row
            for row, view in zip(await measure_containers(views), views, strict=True)
            if (target.show_nested or view.parent is None) and view.id in parents
        ]
        for nested in self._nested.all() if target.show_nested else ():
            parent = parents.get(nested.path[1])
            if parent is not None and nested.runs:
                rows.append(
                    Measured(path=nested.path, framework=parent.framework, executor=parent.executor, name=parent.name)
                )
        at = system_clock()
        return containers.write_containers(containers.write_row(row, at) for row in rows)


def _exit_of(id: ContainerId, code: int) -> Exit:
    """Shapes: `code` as shells tell it, 128 and more for a signal."""
    return Exit(container_id=id, code=code) if code <= 128 else Exit(container_id=id, signal=code - 128)


def _argv(target: Target) -> Sequence[str]:
    """The command; the environment that it adds goes before its parent's."""
    command = target.command
    assert command is not None, "the dialect refuses launches without"
    value = command.value or ""
    argv = ("/bin/sh", "-c", value) if command.shell else (value, *command.arguments[1:])
    if not command.environment:
        return argv
    return ("env", *(f"{name}={text}" for name, text in command.environment), *argv)
