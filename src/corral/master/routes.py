"""The master's endpoints: the Mesos scheduler and operator APIs, the agents' links, and corral's own API.

The order of checks on a scheduler call is Mesos': recovered (503), method (405), Content-Type present (400) and known
(415), readable (400), acceptable (406), and then what the core says. Errors of Mesos' endpoints are plain text.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web
from prometheus_client.core import CollectorRegistry, CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from corral.lib.errors import Conflict, CorralError, Invalid, NotFound, Unavailable
from corral.lib.units import parse_duration_s
from corral.master import role_form, trials
from corral.master.shell import EventStream, MasterShell
from corral.master.spec import (
    AgentOpened,
    AgentReported,
    GetCluster,
    GetExplanations,
    GetFrameworks,
    GetMetrics,
    GetNodes,
    GetRoles,
    GetTasks,
    GetTrial,
    SchedulerCall,
)
from corral.master.views import OF_FRAMEWORKS
from corral.mesos import legacy, maintenance, operator, quota, recordio
from corral.mesos.scheduler import STREAM_ID_HEADER, read_call, write_event
from corral.mesos.snapshot import ClusterSnapshot
from corral.model import calls
from corral.model.maintenance import StartMaintenance, StopMaintenance
from corral.model.operator import Change, RemoveRole, SetQuota
from corral.model.orders import Report
from corral.net.routes import RawRoute, Request, Response, Route, Stream, json_response
from corral.net.stream import CONTENT_TYPE, ORDERS_PATH, REPORTS_PATH, FrameReader
from corral.runtime.loop import Loop

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
SCHEDULER_PATHS = ("/api/v1/scheduler", "/master/api/v1/scheduler")
# Mesos routes by the longest prefix, and pymesos' operator client relies on it: it posts to /api/v1/operator.
OPERATOR_PATHS = ("/api/v1", "/api/v1/{rest*}", "/master/api/v1", "/master/api/v1/{rest*}")
ROLE_PATH = "/corral/v1/roles/{role*}"
MOST_REQUEST_BYTES = 64 << 20

_COUNTERS = frozenset(
    {
        "master/slave_registrations", "master/slave_removals", "master/slave_unreachable_scheduled",
        "master/calls_throttled", "master/calls_dropped", "master/tasks_evicted", "master/valid_status_updates",
        "allocator/mesos/allocation_runs", "master/tasks_finished", "master/tasks_failed", "master/tasks_killed",
        "master/tasks_error", "master/tasks_lost", "master/tasks_dropped", "master/tasks_gone",
        "master/tasks_gone_by_operator",
    }
)  # fmt: skip

Exchange = Callable[[Request], Awaitable[Response | Stream]]


def routes(loop: Loop, shell: MasterShell) -> list[Route | RawRoute]:
    """All endpoints of one master over its loop. The shell must be attached to it."""
    doors = _Doors(loop, shell)
    found: list[Route | RawRoute] = [
        RawRoute(method="GET", path=ORDERS_PATH, handler=doors.hold_orders),
        RawRoute(method="POST", path=REPORTS_PATH, handler=doors.take_reports),
        *(_mesos("POST", path, doors.scheduler) for path in SCHEDULER_PATHS),
        *(_mesos("POST", path, doors.operator) for path in OPERATOR_PATHS),
    ]
    for path, exchange in doors.mesos().items():
        for prefix in ("", "/master"):
            found += [_mesos("GET", prefix + path, exchange), _mesos("GET", f"{prefix}{path}.json", exchange)]
    for (method, path), exchange in doors.mesos_changes().items():
        found += [_mesos(method, prefix + path, exchange) for prefix in ("", "/master")]
    found += [Route(method="GET", path=path, handler=exchange) for path, exchange in doors.native().items()]
    found.append(Route(method="PUT", path=ROLE_PATH, handler=doors.set_role))
    found.append(Route(method="DELETE", path=ROLE_PATH, handler=doors.remove_role))
    found.append(Route(method="POST", path="/corral/v1/plan", handler=doors.plan, most_bytes=MOST_REQUEST_BYTES))
    return found


def _mesos(method: str, path: str, exchange: Exchange) -> Route:
    return Route(method=method, path=path, handler=exchange, errors=write_text, most_bytes=MOST_REQUEST_BYTES)


def write_text(error: CorralError, request: Request) -> Response:
    """Mesos' form of an error: its text alone."""
    headers = {"Retry-After": f"{error.retry_after_s:g}"} if isinstance(error, Unavailable) else {}
    return Response(status=error.status, body=error.message.encode(), content_type=TEXT, headers=headers)


class _Doors:
    __slots__ = ("_loop", "_shell", "_written")

    def __init__(self, loop: Loop, shell: MasterShell) -> None:
        self._loop = loop
        self._shell = shell
        self._written: dict[str, _Written] = {}

    def mesos(self) -> dict[str, Exchange]:
        return {
            "/version": self.show_version,
            "/redirect": self.redirect,
            "/health": self.answer_health,
            "/flags": self.show_flags,
            "/state": self.show_state,
            "/state-summary": self.show_summary,
            "/slaves": self.show_slaves,
            "/frameworks": self.show_frameworks,
            "/tasks": self.show_tasks,
            "/roles": self.show_roles,
            "/quota": self.show_quota,
            "/weights": self.show_weights,
            "/maintenance/schedule": self.show_schedule,
            "/maintenance/status": self.show_maintenance,
            "/metrics/snapshot": self.snapshot_metrics,
        }

    def mesos_changes(self) -> dict[tuple[str, str], Exchange]:
        return {
            ("POST", "/quota"): self.set_quota,
            ("DELETE", "/quota/{role*}"): self.remove_quota,
            ("PUT", "/weights"): self.update_weights,
            ("POST", "/maintenance/schedule"): self.update_schedule,
            ("POST", "/machine/down"): self.take_down,
            ("POST", "/machine/up"): self.bring_up,
        }

    def native(self) -> dict[str, Exchange]:
        return {
            "/corral/v1/nodes": self.list_nodes,
            "/corral/v1/roles": self.list_roles,
            ROLE_PATH: self.show_role,
            "/corral/v1/frameworks": self.list_frameworks,
            "/corral/v1/tasks": self.list_tasks,
            "/corral/v1/explain": self.explain,
            "/corral/v1/whatif": self.try_changes,
            "/corral/v1/rebalance": self.plan_moves,
            "/corral/v1/events": self.tell_events,
            "/metrics": self.write_metrics,
            "/health/live": self.answer_live,
            "/health/ready": self.answer_ready,
        }

    def _expect_recovered(self) -> None:
        if not self._loop.ready.is_set():
            raise Unavailable("the master is still reading its records; try again in a moment")

    # The scheduler API.

    async def scheduler(self, request: Request) -> Response | Stream:
        self._expect_recovered()
        if (refusal := _refuse_media(request)) is not None:
            return refusal
        call = read_call(request.body)
        stream_id = request.headers.get(STREAM_ID_HEADER.lower())
        if not isinstance(call, calls.Subscribe):
            await self._loop.ask(SchedulerCall(call=call, stream=stream_id))
            return Response(status=200 if isinstance(call, calls.UpdateFramework) else 202)
        if not _accepts_json(request):
            return _text(406, "the answer to SUBSCRIBE is a stream of application/json; Accept admits it not")
        stream = await self._shell.open_stream(call, given_stream=stream_id)
        return Stream(
            chunks=_write_records(stream),
            headers={STREAM_ID_HEADER: stream.id},
            close=lambda: self._shell.leave_stream(stream.id, "the connection was closed"),
        )

    # Mesos' reads, and what operators change.

    async def operator(self, request: Request) -> Response:
        self._expect_recovered()
        if (refusal := _refuse_media(request)) is not None:
            return refusal
        call = operator.read_call(request.body)
        if not _accepts_json(request):
            return _text(406, "answers are application/json; Accept admits it not")
        if not isinstance(call, operator.OperatorCall):
            return await self._change(call)
        if call in _LARGE:
            return await self._write(call.value, lambda s: operator.write_response(call, s, s.master.version))
        metrics = await self._metrics() if call is operator.OperatorCall.GET_METRICS else None
        snapshot = await self._snapshot(tasks=False)
        return Response(body=operator.write_response(call, snapshot, snapshot.master.version, metrics))

    async def _change(self, command: Change) -> Response:
        """Mesos answers a change with an empty 200, and calls what clashes 400 except for SET_QUOTA."""
        self._expect_recovered()
        try:
            await self._loop.ask(command)
        except Conflict as error:
            if isinstance(command, SetQuota):
                raise
            raise Invalid(error.message) from None
        return Response()

    async def _snapshot(self, *, tasks: bool = True) -> ClusterSnapshot:
        self._expect_recovered()
        found: ClusterSnapshot = await self._loop.ask(GetCluster(tasks=tasks))
        return found

    async def _write(self, what: str, write: Callable[[ClusterSnapshot], bytes]) -> Response:
        """Write what takes long beside the loop, once for all who asked before it was begun."""
        views = self._written.setdefault(what, _Written())
        asked = views.begun
        async with views.lock:
            if views.made <= asked:
                views.begun += 1
                begun, snapshot = views.begun, await self._snapshot()
                if views.snapshot is not snapshot:
                    views.body = await asyncio.to_thread(write, snapshot)
                    views.snapshot = snapshot
                views.made = begun
            return Response(body=views.body)

    async def _metrics(self) -> dict[str, float]:
        self._expect_recovered()
        found: dict[str, float] = await self._loop.ask(GetMetrics())
        return found

    async def show_version(self, request: Request) -> Response:
        snapshot = await self._snapshot(tasks=False)
        return json_response(legacy.write_version(snapshot.master.version))

    async def redirect(self, request: Request) -> Response:
        snapshot = await self._snapshot(tasks=False)
        if snapshot.leader is None:
            raise Unavailable("no master leads at the moment; try again")
        return Response(status=307, headers={"Location": legacy.write_redirect(snapshot.leader)})

    async def answer_health(self, request: Request) -> Response:
        return Response()

    async def show_flags(self, request: Request) -> Response:
        return json_response(legacy.write_flags((await self._snapshot(tasks=False)).flags))

    async def show_state(self, request: Request) -> Response:
        return await self._write("/state", lambda s: _encode(legacy.write_state(s, s.master.version)))

    async def show_summary(self, request: Request) -> Response:
        return await self._write("/state-summary", lambda s: _encode(legacy.write_summary(s)))

    async def show_slaves(self, request: Request) -> Response:
        return json_response(legacy.write_slaves(await self._snapshot(tasks=False), request.first("slave_id")))

    async def show_frameworks(self, request: Request) -> Response:
        if framework_id := request.first("framework_id"):
            return json_response(legacy.write_frameworks(await self._snapshot(), framework_id))
        return await self._write("/frameworks", lambda s: _encode(legacy.write_frameworks(s)))

    async def show_tasks(self, request: Request) -> Response:
        found = legacy.write_tasks(
            await self._snapshot(),
            limit=_number(request, "limit", 100),
            offset=_number(request, "offset", 0),
            ascending=request.first("order") == "asc",
            framework_id=request.first("framework_id"),
            task_id=request.first("task_id"),
        )
        return json_response(found)

    async def show_roles(self, request: Request) -> Response:
        return json_response(legacy.write_roles(await self._snapshot(tasks=False)))

    async def show_quota(self, request: Request) -> Response:
        return json_response(quota.write_quota_status(await self._snapshot(tasks=False)))

    async def set_quota(self, request: Request) -> Response:
        self._expect_recovered()
        return await self._change(quota.read_quota_request(request.body))

    async def remove_quota(self, request: Request) -> Response:
        self._expect_recovered()
        return await self._change(quota.read_remove_quota(request.params["role"]))

    async def show_weights(self, request: Request) -> Response:
        return json_response(quota.write_weights(await self._snapshot(tasks=False)))

    async def update_weights(self, request: Request) -> Response:
        self._expect_recovered()
        return await self._change(quota.read_weights(request.body))

    async def show_schedule(self, request: Request) -> Response:
        return json_response(maintenance.write_schedule(await self._snapshot(tasks=False)))

    async def update_schedule(self, request: Request) -> Response:
        self._expect_recovered()
        return await self._change(maintenance.read_schedule(request.body))

    async def show_maintenance(self, request: Request) -> Response:
        return json_response(maintenance.write_status(await self._snapshot(tasks=False)))

    async def take_down(self, request: Request) -> Response:
        self._expect_recovered()
        return await self._change(StartMaintenance(machines=maintenance.read_machines(request.body)))

    async def bring_up(self, request: Request) -> Response:
        self._expect_recovered()
        return await self._change(StopMaintenance(machines=maintenance.read_machines(request.body)))

    async def snapshot_metrics(self, request: Request) -> Response:
        if timeout := request.first("timeout"):
            parse_duration_s(timeout)
        return json_response(await self._metrics())

    # The native API.

    async def list_nodes(self, request: Request) -> Response:
        return json_response(await self._loop.ask(GetNodes()))

    async def list_roles(self, request: Request) -> Response:
        return json_response(await self._loop.ask(GetRoles()))

    async def list_frameworks(self, request: Request) -> Response:
        return json_response(await self._loop.ask(GetFrameworks()))

    async def list_tasks(self, request: Request) -> Response:
        first = request.first
        asked = GetTasks(framework=first("framework"), agent=first("agent"), group=first("group"), task=first("task"))
        return json_response(await self._loop.ask(asked))

    async def explain(self, request: Request) -> Response:
        asked = GetExplanations(want=request.first("want"), group=request.first("group"))
        return json_response(await self._loop.ask(asked))

    # A copy is decided on beside the loop, which goes on meanwhile.

    async def try_changes(self, request: Request) -> Response:
        trial = await self._loop.ask(GetTrial())
        asked = request.first("framework"), request.first("want"), list(request.query.get("if", ()))
        return json_response(await asyncio.to_thread(trials.try_changes, trial, *asked))

    async def plan(self, request: Request) -> Response:
        trial = await self._loop.ask(GetTrial())
        return json_response(await asyncio.to_thread(trials.try_plan, trial, request.body))

    async def plan_moves(self, request: Request) -> Response:
        most = _number(request, "most", 10)
        trial = await self._loop.ask(GetTrial())
        return json_response(await asyncio.to_thread(trials.try_moves, trial, most))

    async def show_role(self, request: Request) -> Response:
        return json_response(await self._loop.ask(GetRoles(role=request.params["role"])))

    async def set_role(self, request: Request) -> Response:
        role = request.params["role"]
        await self._loop.ask(role_form.read_set_role(role, request.body, force=request.flag("force")))
        return json_response(await self._loop.ask(GetRoles(role=role)))

    async def remove_role(self, request: Request) -> Response:
        await self._loop.ask(RemoveRole(role=request.params["role"]))
        return Response(status=204)

    async def tell_events(self, request: Request) -> Response | Stream:
        after = _number(request, "after", 0)
        if request.flag("follow"):
            return Stream(chunks=self._follow(after), content_type="application/x-ndjson")
        lines = [msgspec.json.encode(line) + b"\n" for line in self._loop.notes.since(after)]
        return Response(body=b"".join(lines), content_type="application/x-ndjson")

    async def _follow(self, after: int) -> AsyncIterator[bytes]:
        async for line in self._loop.notes.follow(after):
            yield msgspec.json.encode(line) + b"\n"

    async def write_metrics(self, request: Request) -> Response:
        found = await self._metrics()
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Numbers({**found, "loop/turns": self._loop.turns, "loop/inputs": self._loop.inputs}))
        return Response(body=generate_latest(registry), content_type=CONTENT_TYPE_LATEST)

    async def answer_live(self, request: Request) -> Response:
        return json_response({"live": True})

    async def answer_ready(self, request: Request) -> Response:
        self._expect_recovered()
        return json_response({"ready": True})

    # The agents' links.

    async def hold_orders(self, raw: web.BaseRequest) -> web.StreamResponse:
        """The orders half: held until either half ends."""
        self._expect_recovered()
        session = _session(raw)
        link = self._shell.open_link(session)
        why = "the agent closed its link"
        try:
            response = web.StreamResponse(headers={"Content-Type": CONTENT_TYPE, "Cache-Control": "no-store"})
            response.enable_chunked_encoding()
            await response.prepare(raw)
            self._loop.tell(AgentOpened(session, raw.remote or ""))
            while data := await link.batch():
                await response.write(data)
            await response.write_eof()
        except ConnectionError as error:
            why = f"its orders broke: {error or type(error).__name__}"
        finally:
            self._shell.end_link(session, why)
        return response

    async def take_reports(self, raw: web.BaseRequest) -> web.StreamResponse:
        """The reports half: read until the agent ends it."""
        session = _session(raw)
        link = self._shell.link(session)
        if link is None:
            raise NotFound(f"session {session} is not open; open {ORDERS_PATH} first")
        reader: FrameReader[Report] = FrameReader(Report)
        why = "the agent ended its reports"
        try:
            async for chunk in raw.content.iter_any():
                if link.closed:
                    break
                found = reader.feed(chunk)
                if found:
                    self._loop.tell(AgentReported(session, tuple(found)))
        except Invalid as error:
            why = error.message
            raise
        except ConnectionError as error:
            why = f"its reports broke: {error or type(error).__name__}"
        finally:
            self._shell.end_link(session, why)
        return web.Response()


_encode = msgspec.json.encode
_LARGE = frozenset({operator.OperatorCall.GET_STATE, operator.OperatorCall.GET_TASKS})


class _Written:
    """A large view as it was last written. Shapes: of `begun` ones, `made` is the number of the last that is done."""

    __slots__ = ("begun", "body", "lock", "made", "snapshot")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.begun = 0
        self.made = 0
        self.snapshot: ClusterSnapshot | None = None
        self.body = b""


class _Numbers(Collector):
    """The master's numbers for Prometheus, under names of its kind."""

    def __init__(self, found: dict[str, Any]) -> None:
        self._found = found

    def collect(self) -> list[Metric]:
        made: list[Metric] = []
        waits = GaugeMetricFamily(
            "corral_framework_seconds_since_offer",
            "seconds for which a framework has asked and got no offer",
            labels=["framework"],
        )
        for name, value in self._found.items():
            if name.startswith(OF_FRAMEWORKS):
                waits.add_metric([name.removeprefix(OF_FRAMEWORKS).rpartition("/")[0]], value)
                continue
            plain = "corral_" + re.sub(r"[^a-z0-9_]", "_", name.removeprefix("allocator/mesos/").lower())
            kind = CounterMetricFamily if name in _COUNTERS or name.startswith("loop/") else GaugeMetricFamily
            made.append(kind(plain, f"{name} as in /metrics/snapshot", value=value))
        return [*made, waits]


async def _write_records(stream: EventStream) -> AsyncIterator[bytes]:
    """What waits leaves as one chunk, each event a record of its own."""
    while batch := await stream.batch():
        yield b"".join(recordio.encode(write_event(event, refinement=stream.refinement)) for event in batch)


def _text(status: int, message: str) -> Response:
    return Response(status=status, body=message.encode(), content_type=TEXT)


def _refuse_media(request: Request) -> Response | None:
    """Deviates: Mesos compares the header's exact text; here letter case and parameters do not matter."""
    given = request.headers.get("content-type")
    if not given:
        return _text(400, f"Expecting 'Content-Type' to be present; send {JSON}")
    media = given.partition(";")[0].strip().lower()
    if media != JSON:
        return _text(415, f"Expecting 'Content-Type' of {JSON}, found {media}; this master speaks JSON only")
    return None


def _accepts_json(request: Request) -> bool:
    accept = request.headers.get("accept")
    if not accept:
        return True
    media = [part.partition(";")[0].strip().lower() for part in accept.split(",")]
    return any(m in (JSON, "application/*", "*/*") for m in media)


def _number(request: Request, name: str, default: int) -> int:
    text = request.first(name)
    if not text:
        return default
    try:
        return int(text)
    except ValueError:
        raise Invalid(f"query parameter {name}={text!r} is not a whole number") from None


def _session(raw: web.BaseRequest) -> str:
    session = raw.query.get("session", "")
    if not session or len(session) > 100:
        raise Invalid("the query has no session; dial with ?session=UUID")
    return session
