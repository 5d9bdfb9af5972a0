"""The master's endpoints for clients of Mesos: the scheduler and operator APIs, and the older ones.

The order of checks on a scheduler call is Mesos': recovered (503), method (405), Content-Type present (400) and known
(415), readable (400), acceptable (406), and then what the core says. Errors are plain text.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from urllib.parse import parse_qs

from corral.lib.errors import Conflict, CorralError, Invalid, NotFound, Unavailable
from corral.lib.log import verbosity
from corral.lib.units import parse_duration_s
from corral.master import admit
from corral.master.shell import EventStream, MasterShell, WatchStream, prepare_views
from corral.master.spec import Attempt, GetCluster, GetMetrics, SchedulerCall
from corral.mesos import daemon, legacy, maintenance, operator, quota, recordio
from corral.mesos import operations as operation_forms
from corral.mesos.operator import OperatorCall
from corral.mesos.pieces import Plan, pieces, pieces_of
from corral.mesos.scheduler import ATTEMPT_HEADER, STREAM_ID_HEADER, read_call, write_event
from corral.mesos.snapshot import ClusterSnapshot
from corral.mesos.watch import Beat, write_subscribed
from corral.mesos.watch import write_event as write_watch_event
from corral.model import calls
from corral.model.ids import FrameworkId
from corral.model.maintenance import StartMaintenance, StopMaintenance
from corral.model.operator import Change, Operate, SetQuota, Teardown
from corral.net.answers import (
    NOT_ACCEPTABLE,
    PATIENCE_S,
    TEXT,
    Shared,
    accepts_json,
    answer_pieces,
    compress,
    dressed,
    in_turns,
    refuse_media,
)
from corral.net.forms import read_form
from corral.net.routes import RawRoute, Request, Response, Route, Stream, json_response
from corral.net.system import measure_system
from corral.net.verbosity import change_verbosity, check_operator, toggle_logging
from corral.runtime.loop import Loop

SCHEDULER_PATHS = (
    "/api/v1/scheduler", "/api/v1/scheduler/{rest*}", "/master/api/v1/scheduler", "/master/api/v1/scheduler/{rest*}",
)  # fmt: skip
# Mesos routes by the longest prefix, and pymesos' operator client relies on it: it posts to /api/v1/operator.
OPERATOR_PATHS = ("/api/v1", "/api/v1/{rest*}", "/master/api/v1", "/master/api/v1/{rest*}")
MOST_REQUEST_BYTES = 64 << 20
TAKE_OVER_S = 0.2
"""How long a SUBSCRIBE waits that would close another stream."""

Exchange = Callable[[Request], Awaitable[Response | Stream]]


def mesos_routes(doors: "MesosDoors") -> list[Route | RawRoute]:
    """Each of them, also below `/master`."""
    found: list[Route | RawRoute] = [
        *(_mesos("POST", path, doors.scheduler) for path in SCHEDULER_PATHS),
        *(_mesos("POST", path, doors.operator) for path in OPERATOR_PATHS),
    ]
    for path, exchange in doors.reads().items():
        for prefix in ("", "/master"):
            names = (prefix + path, f"{prefix}{path}.json")
            found += [_mesos("GET", name, dressed(exchange)) for name in names]
    for (method, path), exchange in doors.changes().items():
        found += [_mesos(method, prefix + path, exchange) for prefix in ("", "/master")]
    return found


def _read_attempt(text: str) -> Attempt | None:
    """Errors: `Invalid` when there is something and it is no attempt."""
    if not text:
        return None
    life, _, number = text.partition("/")
    if not (life and len(text) <= 100 and number.isascii() and number.isdigit()):
        raise Invalid(
            f"{ATTEMPT_HEADER} is {text[:100]!r}; it must be a process' own word and a growing number: a1b2/7"
        )
    return Attempt(life, int(number))


def _mesos(method: str, path: str, exchange: Exchange) -> Route:
    return Route(method=method, path=path, handler=exchange, errors=write_text, most_bytes=MOST_REQUEST_BYTES)


def write_text(error: CorralError, request: Request) -> Response:
    """Mesos' form of an error: its text alone."""
    headers = {"Retry-After": f"{error.retry_after_s:g}"} if error.retry_after_s is not None else {}
    return Response(status=error.status, body=error.message.encode(), content_type=TEXT, headers=headers)


def expect_recovered(loop: Loop) -> None:
    """Errors: `Unavailable` until the master has read its records."""
    if not loop.ready.is_set():
        raise Unavailable("the master is still reading its records; try again in a moment")


class MesosDoors:
    """Shapes: what is asked for while it is being written is shared by all who ask."""

    __slots__ = ("_loop", "_shared", "_shell")

    def __init__(self, loop: Loop, shell: MasterShell) -> None:
        self._loop = loop
        self._shell = shell
        self._shared: dict[str, Shared] = {}

    def reads(self) -> dict[str, Exchange]:
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
            "/system/stats": self.show_system,
            "/logging/toggle": self.toggle_logging,
            "/files/browse": self.find_file,
            "/files/read": self.find_file,
            "/files/download": self.find_file,
            "/files/debug": self.list_attached,
        }

    def changes(self) -> dict[tuple[str, str], Exchange]:
        return {
            ("POST", "/quota"): self.set_quota,
            ("DELETE", "/quota/{role*}"): self.remove_quota,
            ("PUT", "/weights"): self.update_weights,
            ("POST", "/maintenance/schedule"): self.update_schedule,
            ("POST", "/machine/down"): self.take_down,
            ("POST", "/machine/up"): self.bring_up,
            ("POST", "/teardown"): self.tear_down,
            ("POST", "/logging/toggle"): self.toggle_logging,
            **{("POST", path): self.operate_by_form for path in operation_forms.FORMS},
        }

    # The scheduler API.

    async def scheduler(self, request: Request) -> Response | Stream:
        expect_recovered(self._loop)
        if (refusal := refuse_media(request)) is not None:
            return refusal
        call = read_call(request.body)
        stream_id = request.headers.get(STREAM_ID_HEADER.lower())
        if not isinstance(call, calls.Subscribe):
            principal = admit.check_call(call, request.caller)
            await self._loop.ask(SchedulerCall(call=call, stream=stream_id, principal=principal))
            return Response(status=200 if isinstance(call, calls.UpdateFramework) else 202)
        if not accepts_json(request.headers.get("accept")):
            return _text(406, "the answer to SUBSCRIBE is a stream of application/json; Accept admits it not")
        call = admit.as_caller(call, request.caller)
        attempt = _read_attempt(request.headers.get(ATTEMPT_HEADER.lower(), ""))
        if call.info.id is not None and self._shell.is_subscribed(call.info.id):
            # A request that its sender has given up may arrive all the same, with the end of its connection right
            # behind it; then this handler is cancelled here and nobody's stream is closed for it.
            await asyncio.sleep(TAKE_OVER_S)
        stream = await self._shell.open_stream(call, given_stream=stream_id, attempt=attempt)
        return Stream(
            chunks=_write_records(stream),
            headers={STREAM_ID_HEADER: stream.id},
            close=lambda: self._shell.leave_stream(stream.id, "the connection was closed"),
        )

    # Mesos' reads, and what operators change.

    async def operator(self, request: Request) -> Response | Stream:
        expect_recovered(self._loop)
        if (refusal := refuse_media(request)) is not None:
            return refusal
        call = operator.read_call(request.body)
        if not accepts_json(request.headers.get("accept")):
            return _text(406, NOT_ACCEPTABLE)
        match call:
            case operator.Follow():
                return await self._follow_cluster()
            case OperatorCall():
                return compress(await self._read(call), request)
            case daemon.ListFiles() | daemon.ReadFile():
                raise NotFound(_no_files(call.path))
            case daemon.GetLoggingLevel():
                body = {"type": "GET_LOGGING_LEVEL", "get_logging_level": daemon.write_level(verbosity())}
                return json_response(body)
            case daemon.SetLoggingLevel():
                check_operator(request.caller)
                change_verbosity(call.level, call.duration_s)
                return Response()
            case _:
                return await self._change(call, request)

    async def _read(self, call: OperatorCall) -> Response | Stream:
        asked = _NEEDS.get(call, _NOTHING)
        if asked == _NOTHING:
            metrics = await self.metrics() if call is OperatorCall.GET_METRICS else None
            snapshot = await self._snapshot(asked)
            return Response(body=operator.write_response(call, snapshot, snapshot.master.version, metrics))
        return await self._share(call, asked, lambda s: pieces(operator.plan_response(call, s, s.master.version)))

    async def _follow_cluster(self) -> Stream:
        stream, snapshot = await self._shell.open_watch()
        return Stream(
            chunks=_write_watch(stream, snapshot),
            close=lambda: self._shell.leave_watch(stream.id),
            patience_s=PATIENCE_S,
        )

    async def _change(self, command: Change, request: Request) -> Response:
        """Mesos answers a change with an empty 200, and calls what clashes 400 except for SET_QUOTA."""
        expect_recovered(self._loop)
        admit.check_change(command, request.caller)
        try:
            await self._loop.ask(command)
        except Conflict as error:
            if isinstance(command, SetQuota | Operate):
                raise
            raise Invalid(error.message) from None
        return Response(status=202 if isinstance(command, Operate) else 200)

    async def operate_by_form(self, request: Request) -> Response:
        expect_recovered(self._loop)
        path = request.path.removeprefix("/master")
        fields = parse_qs(request.body.decode(errors="replace"), keep_blank_values=True)
        return await self._change(operation_forms.read_form(path, fields), request)

    async def _snapshot(self, asked: GetCluster) -> ClusterSnapshot:
        expect_recovered(self._loop)
        if asked.agents:
            await prepare_views(self._loop)
        found: ClusterSnapshot = await self._loop.ask(asked)
        return found

    async def _share(
        self, what: str, asked: GetCluster, write: Callable[[ClusterSnapshot], Iterator[bytes]]
    ) -> Response | Stream:
        """One moment of the cluster for all who ask, written in pieces while the loop goes on."""
        return await self._shared.setdefault(what, Shared()).answer(lambda: self._snapshot(asked), write)

    async def metrics(self) -> dict[str, float]:
        expect_recovered(self._loop)
        await prepare_views(self._loop)
        found: dict[str, float] = await self._loop.ask(GetMetrics())
        found.update(self._loop.commit_ms.read("registrar/state_store_ms"))
        return {**found, "master/event_queue_dispatches": float(self._loop.waiting), **measure_system()}

    async def show_version(self, request: Request) -> Response:
        snapshot = await self._snapshot(_NOTHING)
        return json_response(legacy.write_version(snapshot.master.version))

    async def redirect(self, request: Request) -> Response:
        snapshot = await self._snapshot(_NOTHING)
        if snapshot.leader is None:
            raise Unavailable("no master leads at the moment; try again")
        return Response(status=307, headers={"Location": legacy.write_redirect(snapshot.leader)})

    async def answer_health(self, request: Request) -> Response:
        return Response()

    async def show_flags(self, request: Request) -> Response:
        return json_response(legacy.write_flags((await self._snapshot(_NOTHING)).flags))

    async def show_state(self, request: Request) -> Response | Stream:
        return await self._share("/state", _ALL, lambda s: pieces(legacy.plan_state(s, s.master.version)))

    async def show_summary(self, request: Request) -> Response | Stream:
        return await self._share("/state-summary", _ALL, lambda s: pieces_of(legacy.plan_summary(s)))

    async def show_slaves(self, request: Request) -> Response | Stream:
        slave_id = request.first("slave_id")
        if slave_id:
            return await answer_pieces(pieces(legacy.plan_slaves(await self._snapshot(_AGENTS), slave_id)))
        return await self._share("/slaves", _AGENTS, lambda s: pieces(legacy.plan_slaves(s)))

    async def show_frameworks(self, request: Request) -> Response | Stream:
        framework_id = request.first("framework_id")
        if framework_id:
            return await answer_pieces(pieces(legacy.plan_frameworks(await self._snapshot(_TASKS), framework_id)))
        return await self._share("/frameworks", _TASKS, lambda s: pieces(legacy.plan_frameworks(s)))

    async def show_tasks(self, request: Request) -> Response | Stream:
        order = request.first("order")
        if order not in ("", "asc", "des"):
            raise Invalid(f"query parameter order={order!r} is neither asc nor des")
        plan: Plan = legacy.plan_tasks(
            await self._snapshot(_TASKS),
            limit=read_number(request, "limit", 100),
            offset=read_number(request, "offset", 0),
            ascending=order == "asc",
            framework_id=request.first("framework_id"),
            task_id=request.first("task_id"),
        )
        return await answer_pieces(pieces_of(plan))

    async def show_roles(self, request: Request) -> Response:
        return json_response(legacy.write_roles(await self._snapshot(_ROLES)))

    async def show_quota(self, request: Request) -> Response:
        return json_response(quota.write_quota_status(await self._snapshot(_ROLES)))

    async def set_quota(self, request: Request) -> Response:
        expect_recovered(self._loop)
        return await self._change(quota.read_quota_request(request.body), request)

    async def remove_quota(self, request: Request) -> Response:
        expect_recovered(self._loop)
        return await self._change(quota.read_remove_quota(request.params["role"]), request)

    async def show_weights(self, request: Request) -> Response:
        return json_response(quota.write_weights(await self._snapshot(_ROLES)))

    async def update_weights(self, request: Request) -> Response:
        expect_recovered(self._loop)
        return await self._change(quota.read_weights(request.body), request)

    async def show_schedule(self, request: Request) -> Response:
        return json_response(maintenance.write_schedule(await self._snapshot(_NOTHING)))

    async def update_schedule(self, request: Request) -> Response:
        expect_recovered(self._loop)
        return await self._change(maintenance.read_schedule(request.body), request)

    async def show_maintenance(self, request: Request) -> Response:
        return json_response(maintenance.write_status(await self._snapshot(_NOTHING)))

    async def take_down(self, request: Request) -> Response:
        expect_recovered(self._loop)
        return await self._change(StartMaintenance(machines=maintenance.read_machines(request.body)), request)

    async def bring_up(self, request: Request) -> Response:
        expect_recovered(self._loop)
        return await self._change(StopMaintenance(machines=maintenance.read_machines(request.body)), request)

    async def snapshot_metrics(self, request: Request) -> Response:
        if timeout := request.first("timeout"):
            parse_duration_s(timeout)
        return json_response(await self.metrics())

    async def show_system(self, request: Request) -> Response:
        return json_response({name.removeprefix("system/"): value for name, value in measure_system().items()})

    async def tear_down(self, request: Request) -> Response:
        """Shapes: the body is a form, `frameworkId=ID`."""
        framework_id = read_form(request).get("frameworkId", "")
        if not framework_id:
            raise Invalid("Missing 'frameworkId' in the request's body; send the form frameworkId=ID")
        return await self._change(Teardown(framework_id=FrameworkId(framework_id)), request)

    async def toggle_logging(self, request: Request) -> Response:
        return toggle_logging(request)

    async def find_file(self, request: Request) -> Response:
        path = request.first("path")
        if not path:
            raise Invalid("Expecting 'path=value' in query; name a file")
        raise NotFound(_no_files(path))

    async def list_attached(self, request: Request) -> Response:
        return json_response({})


_ALL = GetCluster(roles=False)
_TASKS = GetCluster(agents=False, roles=False)
_AGENTS = GetCluster(tasks=False, frameworks=False, roles=False)
_ROLES = GetCluster(tasks=False, frameworks=False, agents=False)
_NOTHING = GetCluster(tasks=False, frameworks=False, agents=False, roles=False)
_NEEDS = {
    OperatorCall.GET_STATE: _ALL,
    OperatorCall.GET_TASKS: _ALL,
    OperatorCall.GET_AGENTS: _AGENTS,
    OperatorCall.GET_FRAMEWORKS: GetCluster(tasks=False, agents=False, roles=False),
    OperatorCall.GET_EXECUTORS: _ALL,
    OperatorCall.GET_OPERATIONS: GetCluster(tasks=False, agents=False, roles=False),
    OperatorCall.GET_ROLES: _ROLES,
    OperatorCall.GET_WEIGHTS: _ROLES,
    OperatorCall.GET_QUOTA: _ROLES,
}
"""What of the cluster each read shows; those that are not named show nothing of it."""


def _no_files(path: str) -> str:
    return f"no file {path} here: a master writes its log to standard error; sandboxes are on agents, ask theirs"


async def _write_records(stream: EventStream) -> AsyncIterator[bytes]:
    """What waits leaves as one chunk, each event a record of its own."""
    while batch := await stream.batch():
        yield b"".join(recordio.encode(write_event(event, refinement=stream.refinement)) for event in batch)


async def _write_watch(stream: WatchStream, snapshot: ClusterSnapshot) -> AsyncIterator[bytes]:
    """The cluster as it is, a heartbeat, then what happens. Shapes: a record says first how long it is, so the snapshot
    is written twice: once to measure it.
    """
    size = 0
    async for part in in_turns(write_subscribed(snapshot)):
        size += len(part)
    yield str(size).encode() + b"\n"
    async for part in in_turns(write_subscribed(snapshot)):
        yield part
    yield recordio.encode(write_watch_event(Beat()))
    while records := await stream.batch():
        yield records


def _text(status: int, message: str) -> Response:
    return Response(status=status, body=message.encode(), content_type=TEXT)


_MOST_NUMBER = (1 << 62) - 1
"""Two of them still add up to what counts things."""


def read_number(request: Request, name: str, default: int) -> int:
    """How many, as the query says. Errors: `Invalid` when it is no whole number, below 0 or beyond `_MOST_NUMBER`."""
    text = request.first(name)
    if not text:
        return default
    try:
        found = int(text)
    except ValueError:
        raise Invalid(f"query parameter {name}={text!r} is not a whole number") from None
    if not 0 <= found <= _MOST_NUMBER:
        raise Invalid(f"query parameter {name}={text!r} is not within 0 and {_MOST_NUMBER}; give how many are meant")
    return found
