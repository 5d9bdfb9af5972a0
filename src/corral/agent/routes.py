"""The agent's public API: its tasks, their logs, commands inside them, and what tools of Mesos ask of an agent.

Native: `GET /corral/v1/tasks`, `/corral/v1/tasks/{task}`, `/corral/v1/tasks/{task}/logs?stream=&offset=&lines=&follow=`
and the WebSocket `/corral/v1/tasks/{task}/exec?argv=&argv=&tty=`; all take `framework=` where a task id is not enough.
A session's frames: binary from here, one byte of stream (1 stdout, 2 stderr) before the data; binary to here is
standard input, an empty one closes it; text is JSON: `{"exit": CODE}` or `{"error": TEXT}` from here,
`{"resize": [ROWS, COLUMNS]}` to here. Source of the rest: Mesos agent endpoints, also below `/slave(1)`.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import WSMsgType, web
from prometheus_client.core import CollectorRegistry, CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from corral import MESOS_VERSION
from corral.agent.container_routes import container_routes
from corral.agent.executor_routes import executor_routes
from corral.agent.rights import check_role_of
from corral.agent.runtimes import ExecSession
from corral.agent.sandbox import Sandboxes
from corral.agent.shell import AgentShell
from corral.agent.spec import (
    AgentView,
    ContainerView,
    FindSecretFiles,
    FindTask,
    ListContainers,
    ListTasks,
    ReadState,
    TaskView,
)
from corral.agent.usage import measure_containers
from corral.lib.clock import system_clock
from corral.lib.errors import CorralError, Invalid, NotFound
from corral.lib.log import verbosity
from corral.lib.units import parse_duration_s
from corral.mesos import agent_operator, daemon
from corral.mesos.agent_operator import PATHS
from corral.mesos.legacy import write_flags, write_version
from corral.mesos.legacy_agent import write_agent_state
from corral.mesos.pieces import pieces
from corral.mesos.statistics import write_containers, write_statistics
from corral.model.ids import TaskId
from corral.model.resources import Resources, total_milli
from corral.model.signals import read_signal
from corral.net.answers import (
    NOT_ACCEPTABLE,
    TEXT,
    accepts_json,
    answer_pieces,
    compress,
    dressed,
    prefers_json,
    refuse_media,
    write_gauges,
)
from corral.net.auth import ANYBODY
from corral.net.routes import RawRoute, Request, Response, Route, Stream, json_response
from corral.net.server import CALLER, PARAMS
from corral.net.system import measure_system
from corral.net.verbosity import change_verbosity, check_operator, toggle_logging
from corral.runtime.loop import Loop

STREAMS = ("stdout", "stderr")
MESOS_PREFIXES = ("", "/slave(1)")

Exchange = Callable[[Request], Awaitable[Response | Stream]]


def routes(loop: Loop, shell: AgentShell) -> list[Route | RawRoute]:
    """The agent's endpoints over its loop."""
    doors = _Doors(loop, shell)
    found: list[Route | RawRoute] = [
        Route(method="GET", path="/corral/v1/tasks", handler=doors.list_tasks),
        Route(method="GET", path="/corral/v1/tasks/{task}", handler=doors.show_task),
        Route(method="GET", path="/corral/v1/tasks/{task}/logs", handler=doors.read_log),
        Route(method="POST", path="/corral/v1/tasks/{task}/signal", handler=doors.signal),
        RawRoute(method="GET", path="/corral/v1/tasks/{task}/exec", handler=doors.open_session),
        Route(method="GET", path="/corral/v1/agent", handler=doors.show_agent),
        Route(method="GET", path="/health/live", handler=doors.answer_health),
        Route(method="GET", path="/health/ready", handler=doors.answer_ready),
        Route(method="GET", path="/metrics", handler=doors.write_metrics),
    ]
    found += executor_routes(loop, lambda: shell.executors, write_text_error)
    for prefix in MESOS_PREFIXES:
        for name, handler in doors.mesos().items():
            found.append(Route(method="GET", path=prefix + name, handler=dressed(handler), errors=write_text_error))
        toggle = Route(
            method="POST", path=f"{prefix}/logging/toggle", handler=doors.toggle_logging, errors=write_text_error
        )
        found.append(toggle)
    # Last: what has a longer path of its own comes first.
    return [*found, *container_routes(loop, shell, doors.operate, PATHS)]


def write_text_error(error: CorralError, request: Request) -> Response:
    """Mesos endpoints say in plain text what is wrong."""
    return Response(status=error.status, body=error.message.encode(), content_type="text/plain; charset=utf-8")


class _Signal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    signal: str
    renew: bool = False


class _Doors:
    __slots__ = ("_loop", "_shell")

    def __init__(self, loop: Loop, shell: AgentShell) -> None:
        self._loop = loop
        self._shell = shell

    def mesos(self) -> dict[str, Exchange]:
        return {
            "/health": self.answer_health,
            "/version": self.show_version,
            "/state": self.show_state,
            "/state.json": self.show_state,
            "/flags": self.show_flags,
            "/metrics/snapshot": self.snapshot_metrics,
            "/files/browse": self.browse_files,
            "/files/browse.json": self.browse_files,
            "/files/read": self.read_file,
            "/files/read.json": self.read_file,
            "/files/download": self.download_file,
            "/files/download.json": self.download_file,
            "/files/debug": self.list_attached,
            "/files/debug.json": self.list_attached,
            "/monitor/statistics": self.show_statistics,
            "/monitor/statistics.json": self.show_statistics,
            "/containers": self.list_containers,
            "/system/stats": self.show_system,
            "/system/stats.json": self.show_system,
            "/logging/toggle": self.toggle_logging,
        }

    # Mesos' operator API.

    async def operate(self, request: Request) -> Response | Stream:
        if (why := refuse_media(request)) is not None:
            return why
        call = agent_operator.read_call(request.body)
        if not accepts_json(request.headers.get("accept")):
            return Response(status=406, body=NOT_ACCEPTABLE.encode(), content_type=TEXT)
        match call:
            case daemon.GetLoggingLevel():
                return json_response(
                    {"type": "GET_LOGGING_LEVEL", "get_logging_level": daemon.write_level(verbosity())}
                )
            case daemon.SetLoggingLevel():
                check_operator(request.caller)
                change_verbosity(call.level, call.duration_s)
                return Response()
            case daemon.ListFiles():
                entries = await self._sandboxes().browse(call.path)
                return json_response({"type": "LIST_FILES", "list_files": daemon.write_files([*entries])})
            case daemon.ReadFile():
                data, _ = await self._sandboxes().read(call.path, call.offset, call.length)
                _, size = await self._sandboxes().read(call.path, -1)
                return json_response({"type": "READ_FILE", "read_file": daemon.write_file(data, size)})
        view = await self._view()
        tree = agent_operator.plan_response(call, view.snapshot, MESOS_VERSION, _numbers(view))
        return compress(await answer_pieces(pieces(tree)), request)

    # Tasks.

    async def list_tasks(self, request: Request) -> Response:
        completed = request.flag("completed", True)
        return json_response({"tasks": await self._loop.ask(ListTasks(completed))})

    async def show_task(self, request: Request) -> Response:
        return json_response(await self._find(request))

    async def _find(self, request: Request) -> TaskView:
        task_id = TaskId(request.params["task"])
        found: TaskView = await self._loop.ask(FindTask(task_id, request.first("framework")))
        return found

    async def read_log(self, request: Request) -> Response | Stream:
        """Plain bytes as the task wrote them; with `follow` until the task has ended."""
        stream = request.first("stream", "stdout")
        if stream not in STREAMS:
            raise Invalid(f"stream {stream!r} is none of {', '.join(STREAMS)}")
        offset = _number(request, "offset")
        lines = _number(request, "lines", least=0)
        follow = request.flag("follow")
        sandbox, container_id = await self._find_sandbox(request)
        if follow and lines == 0:  # from now on: noted before any header has left
            offset, lines = await self._sandboxes().size(f"{sandbox}/{stream}"), None
        chunks = self._sandboxes().follow(
            f"{sandbox}/{stream}",
            offset=offset,
            lines=lines,
            follow=follow,
            ended=lambda: not self._shell.is_alive(container_id),
        )
        if not follow:
            chunks = await _begun(chunks)  # what cannot be read is refused before any header has left
        return Stream(chunks=chunks, content_type="text/plain")

    async def _find_sandbox(self, request: Request) -> tuple[str, str]:
        """The sandbox of the task's newest run, also of one that was forgotten."""
        try:
            task = await self._find(request)
        except NotFound:
            view: AgentView = await self._loop.ask(ReadState())
            work_dir = dict(view.snapshot.flags)["work_dir"]
            path = await self._shell.find_sandbox(work_dir, request.params["task"], request.first("framework"))
            if path is None:
                raise
            return path, path.rsplit("/", 1)[-1]
        return task.sandbox, task.container

    def _sandboxes(self) -> Sandboxes:
        return self._shell.sandboxes_or_fail()

    async def open_session(self, raw: web.Request) -> web.StreamResponse:
        """A command beside the task's own, for as long as the WebSocket is open."""
        argv = raw.query.getall("argv", [])
        if not argv:
            raise Invalid("exec needs a command; give argv=WORD for each word of it")
        tty = raw.query.get("tty", "false").lower() in ("", "true", "1")
        params = raw[PARAMS]
        task: TaskView = await self._loop.ask(FindTask(TaskId(params["task"]), raw.query.get("framework", "")))
        check_role_of(raw.get(CALLER, ANYBODY), task.role, f"run a command in task {task.id}")
        session = self._shell.exec(task, argv, tty=tty)
        if raw.headers.get("Upgrade", "").lower() != "websocket":
            raise Invalid("exec is a WebSocket; ask with Upgrade: websocket")
        async with session:
            socket = web.WebSocketResponse(heartbeat=20.0, max_msg_size=16 << 20)
            await socket.prepare(raw)
            await _hold_session(socket, session)
        return socket

    async def signal(self, request: Request) -> Response:
        """A signal to the task's own process; with `renew` its files of secrets are written anew before."""
        try:
            body = msgspec.json.decode(request.body, type=_Signal)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Invalid(f'the body is not of the form {{"signal": "SIGHUP", "renew": true}}: {error}') from None
        number = read_signal(body.signal)
        task = await self._find(request)
        check_role_of(request.caller, task.role, f"signal task {task.id}")
        sources = None
        if body.renew:
            sources = await self._loop.ask(FindSecretFiles(task_id=task.id, framework_id=task.framework))
        await self._shell.signal(task, number, sources)
        return Response(status=204)

    # The agent itself.

    async def _view(self) -> AgentView:
        view: AgentView = await self._loop.ask(ReadState())
        return view

    async def show_agent(self, request: Request) -> Response:
        view = await self._view()
        info = view.snapshot.info
        return json_response(
            {
                "id": info.id,
                "hostname": info.hostname,
                "version": info.version,
                "registered": view.registered,
                "epoch": view.epoch,
                "runtimes": view.runtimes,
                "live": view.live,
                "unacknowledged": view.unacknowledged,
                "uptime_s": view.uptime_s,
                "disk_usage": view.disk_usage,
            }
        )

    async def answer_health(self, request: Request) -> Response:
        return Response(status=200)

    async def answer_ready(self, request: Request) -> Response:
        """Ready while a master has this agent in its list."""
        view = await self._view()
        return json_response({"ready": view.registered}, status=200 if view.registered else 503)

    async def show_version(self, request: Request) -> Response:
        return json_response(write_version(MESOS_VERSION))

    async def show_state(self, request: Request) -> Response:
        view = await self._view()
        return json_response(write_agent_state(view.snapshot, MESOS_VERSION))

    async def show_flags(self, request: Request) -> Response:
        view = await self._view()
        return json_response(write_flags(view.snapshot.flags))

    async def snapshot_metrics(self, request: Request) -> Response:
        if timeout := request.first("timeout"):
            parse_duration_s(timeout)
        return json_response(_numbers(await self._view()))

    async def show_system(self, request: Request) -> Response:
        return json_response({name.removeprefix("system/"): value for name, value in measure_system().items()})

    async def toggle_logging(self, request: Request) -> Response:
        return toggle_logging(request)

    async def show_statistics(self, request: Request) -> Response:
        rows = await measure_containers(await self._containers())
        return json_response(write_statistics(rows, system_clock()))

    async def list_containers(self, request: Request) -> Response:
        """Executors and command tasks, and with `show_nested=` and `show_standalone=` what GET_CONTAINERS then has."""
        nested, standalone = request.flag("show_nested"), request.flag("show_standalone")
        chosen = request.first("container_id")
        views = await self._containers()
        rows = [
            row
            for row, view in zip(await measure_containers(views), views, strict=True)
            if (nested or view.parent is None) and (standalone or not view.standalone) and chosen in ("", view.id)
        ]
        return json_response(write_containers(rows, system_clock()))

    async def _containers(self) -> list[ContainerView]:
        found: list[ContainerView] = await self._loop.ask(ListContainers())
        return found

    async def write_metrics(self, request: Request) -> Response:
        if prefers_json(request.headers.get("accept")):
            return json_response(write_gauges(_numbers(await self._view())))
        registry = CollectorRegistry()
        registry.register(_ViewCollector(await self._view()))
        return Response(body=generate_latest(registry), content_type=CONTENT_TYPE_LATEST)

    # Files.

    async def list_attached(self, request: Request) -> Response:
        """The directories that files may be asked of, each under its own name."""
        view = await self._view()
        runs = [run for framework in view.snapshot.frameworks for run in framework.runs]
        return json_response({run.directory: run.directory for run in runs})

    async def browse_files(self, request: Request) -> Response:
        return json_response(await self._sandboxes().browse(request.first("path")))

    async def read_file(self, request: Request) -> Response:
        offset, length = _number(request, "offset"), _number(request, "length")
        data, start = await self._sandboxes().read(request.first("path"), -1 if offset is None else offset, length)
        return json_response({"data": data.decode("utf-8", errors="replace"), "offset": start})

    async def download_file(self, request: Request) -> Stream:
        path = request.first("path")
        _, chunks = await self._sandboxes().download(path)
        name = path.rstrip("/").rsplit("/", 1)[-1].replace('"', "").encode("ascii", errors="replace").decode()
        headers = {"Content-Disposition": f'attachment; filename="{name}"'}
        return Stream(chunks=chunks, content_type="application/octet-stream", headers=headers)


def _number(request: Request, key: str, least: int | None = None) -> int | None:
    """Errors: `Invalid` when the query's value is no whole number or too small."""
    text = request.first(key)
    if not text:
        return None
    try:
        value = int(text)
    except ValueError:
        raise Invalid(f"query parameter {key}={text!r} is no whole number") from None
    if least is not None and value < least:
        raise Invalid(f"query parameter {key}={text!r} must be {least} or more")
    return value


async def _begun(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same chunks, the first of which has already been read."""
    first = await anext(chunks, None)

    async def go_on() -> AsyncIterator[bytes]:
        if first is not None:
            yield first
            async for chunk in chunks:
                yield chunk

    return go_on()


async def _hold_session(socket: web.WebSocketResponse, session: ExecSession) -> None:
    """Carry both directions until the command ends or the client goes away."""
    feed = asyncio.create_task(_feed(socket, session))
    show = asyncio.create_task(_show(socket, session))
    try:
        await asyncio.wait((feed, show), return_when=asyncio.FIRST_COMPLETED)
        if not show.done() and feed.exception() is None:
            return  # the client has closed
    finally:
        for task in (feed, show):
            task.cancel()
        await asyncio.wait((feed, show))
    for task in (show, feed):
        error = None if task.cancelled() else task.exception()
        if isinstance(error, CorralError) and not socket.closed:
            await socket.send_str(msgspec.json.encode({"error": error.message}).decode())
        elif error is not None and not isinstance(error, ConnectionError):
            raise error
    await socket.close()


async def _show(socket: web.WebSocketResponse, session: ExecSession) -> None:
    async for stream, data in session.output():
        await socket.send_bytes((b"\x02" if stream == "stderr" else b"\x01") + data)
    code = await session.exit_code()
    await socket.send_str(msgspec.json.encode({"exit": code}).decode())


async def _feed(socket: web.WebSocketResponse, session: ExecSession) -> None:
    """Returns when the client closes."""
    async for message in socket:
        if message.type is WSMsgType.BINARY:
            await session.write(message.data)
        elif message.type is WSMsgType.TEXT:
            rows, columns = _read_resize(message.data)
            await session.resize(rows, columns)


def _read_resize(text: str) -> tuple[int, int]:
    try:
        control: Any = msgspec.json.decode(text)
        rows, columns = control["resize"]
        return int(rows), int(columns)
    except (msgspec.DecodeError, KeyError, TypeError, ValueError):
        raise Invalid(f'control message {text[:80]!r} is not {{"resize": [ROWS, COLUMNS]}}') from None


# Metrics.


def _numbers(view: AgentView) -> dict[str, float]:
    return {**flatten_metrics(view), **measure_system()}


def flatten_metrics(view: AgentView) -> dict[str, float]:
    """The numbers that monitoring of Mesos agents looks for."""
    tasks = [run.task for framework in view.snapshot.frameworks for run in framework.runs if not run.is_completed]
    info = view.snapshot.info
    found: dict[str, float] = {
        "slave/uptime_secs": view.uptime_s,
        "slave/registered": 1.0 if view.registered else 0.0,
        "slave/frameworks_active": len({task.framework_id for task in tasks}),
        "slave/container_launch_errors": view.counters["launch_errors"],
        "slave/valid_status_updates": view.counters["updates"],
        "slave/recovery_errors": 0.0,
        "slave/disk_usage": view.disk_usage,
    }
    found["slave/executors_terminated"] = view.counters["executors_ended"]
    found["slave/executors_preempted"] = view.counters["preempted"]
    for stage, count in view.executors.items():
        found[f"slave/executors_{stage}"] = count
    for state in ("staging", "starting", "running", "killing"):
        found[f"slave/tasks_{state}"] = sum(1 for task in tasks if task.state == f"TASK_{state.upper()}")
    for state in ("finished", "failed", "killed", "lost"):
        found[f"slave/tasks_{state}"] = view.counters[state]
    for name in ("cpus", "mem", "disk", "gpus"):
        total = total_milli(info.resources, name)
        used = total_milli(view.overhead, name) + sum(_firm_milli(task.info.resources, name) for task in tasks)
        lent = sum(total_milli(task.info.resources, name) - _firm_milli(task.info.resources, name) for task in tasks)
        for kind, n, of in (("", used, total), ("_revocable", lent, view.lendable.get(name, 0))):
            found[f"slave/{name}{kind}_total"] = of / 1000
            found[f"slave/{name}{kind}_used"] = n / 1000
            found[f"slave/{name}{kind}_percent"] = n / of if of else 0.0
    return found


def _firm_milli(resources: Resources, name: str) -> int:
    """What counts against what the agent has: not what others leave unused."""
    return total_milli(tuple(r for r in resources if not r.identity.revocable), name)


class _ViewCollector(Collector):
    """One view as Prometheus metrics."""

    def __init__(self, view: AgentView) -> None:
        self._view = view

    def collect(self) -> list[Metric]:
        view = self._view
        tasks = GaugeMetricFamily("corral_agent_tasks", "Tasks that have not ended")
        tasks.add_metric([], view.live)
        waiting = GaugeMetricFamily("corral_agent_updates_unacknowledged", "Status updates that wait")
        waiting.add_metric([], view.unacknowledged)
        registered = GaugeMetricFamily("corral_agent_registered", "Whether a master has this agent in its list")
        registered.add_metric([], 1 if view.registered else 0)
        disk = GaugeMetricFamily("corral_agent_disk_usage_ratio", "Used fraction of the disk with the sandboxes")
        disk.add_metric([], view.disk_usage)
        ready = GaugeMetricFamily(
            "corral_agent_runtime_ready", "Whether the runtime can start tasks", labels=["runtime"]
        )
        for runtime in view.runtimes:
            ready.add_metric([runtime.name], 1 if runtime.why is None else 0)
        events = CounterMetricFamily("corral_agent_events", "What has happened since the start", labels=["event"])
        for name, count in sorted(view.counters.items()):
            events.add_metric([name], count)
        return [tasks, waiting, registered, disk, ready, events]
