"""Chronos' REST API, under both of its prefixes: each handler reads the dialect, asks the core, writes the dialect, and
decides nothing. Source: Chronos' contract, section 6.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from corral.frameworks.cron.check import CheckJobs
from corral.frameworks.cron.chronos import ReadJob, read_job, write_error
from corral.frameworks.cron.reader import Reader
from corral.frameworks.cron.spec import (
    AddElements,
    Command,
    DeleteJob,
    GetGraph,
    GetHistory,
    GetJob,
    GetJobs,
    GetLeader,
    GetLog,
    GetMetrics,
    GetNext,
    GetStat,
    GetStats,
    GetSummary,
    KillRuns,
    Kind,
    MarkSuccess,
    PurgeQueue,
    PutJob,
    ReportTask,
    RunJob,
    SearchJobs,
    StartBackfill,
    StopBackfill,
)
from corral.frameworks.cron.views import list_numbers
from corral.lib.errors import Invalid
from corral.lib.units import parse_timestamp
from corral.net.routes import Request, Response, Route, Stream, json_response
from corral.sdk.logs import pass_log
from corral.sdk.metrics import CONTENT_TYPE, write_metrics
from corral.sdk.reading import read_json

Ask = Callable[[Command | CheckJobs], Awaitable[Any]]
PREFIXES = ("/v1/scheduler", "/scheduler")
MOST_BODY_BYTES = 4 << 20
MOST_PLAN_BYTES = 64 << 20
"""Of all jobs of a Chronos at once: what hangs together is judged together."""
READ_AT_ONCE = 500
_PROMETHEUS = ("text/plain", "openmetrics")


def routes(ask: Ask, cacert: str = "") -> list[Route]:
    """The front door. Shapes: the longer paths stand before the shorter ones that would take them too; `cacert` is the
    CA of a cluster that speaks TLS."""
    door = _Door(ask, cacert)
    table: Sequence[tuple[str, str, Any]] = (
        ("GET", "/jobs", door.list_jobs),
        ("GET", "/jobs/search", door.search_jobs),
        ("GET", "/jobs/summary", door.summarise_jobs),
        ("POST", "/jobs/plan", door.plan_jobs),
        ("POST", "/iso8601", door.put_scheduled),
        ("PUT", "/iso8601", door.put_scheduled),
        ("POST", "/dependency", door.put_dependent),
        ("PUT", "/dependency", door.put_dependent),
        ("PUT", "/job/success/{name}", door.mark_success),
        ("GET", "/job/stat/{name}", door.get_stat),
        ("POST", "/job/{name}/task/{task*}/progress", door.add_elements),
        ("GET", "/job/{name}/next", door.list_next),
        ("GET", "/job/{name}/history", door.get_history),
        ("GET", "/job/{name}/log", door.get_log),
        ("POST", "/job/{name}/backfill", door.start_backfill),
        ("DELETE", "/job/{name}/backfill", door.stop_backfill),
        ("GET", "/job/{name}", door.get_job),
        ("PUT", "/job/{name}", door.run_job),
        ("DELETE", "/job/{name}", door.delete_job),
        ("DELETE", "/task/kill/{name}", door.kill_tasks),
        ("DELETE", "/task/all", door.purge_queue),
        ("PUT", "/task/{task*}", door.report_task),
        ("GET", "/graph/dot", door.get_dot),
        ("GET", "/graph/csv", door.get_csv),
        ("GET", "/stats/{which}", door.get_stats),
        ("GET", "/leader", door.get_leader),
        ("GET", "/metrics", door.get_metrics),
    )
    found = [(method, prefix + path, handler) for prefix in PREFIXES for method, path, handler in table]
    found += [("GET", "/leader", door.get_leader), ("GET", "/ping", door.ping), ("GET", "/metrics", door.get_metrics)]
    return [
        Route(
            method=method,
            path=path,
            handler=handler,
            errors=write_error,
            most_bytes=MOST_PLAN_BYTES if path.endswith("/jobs/plan") else MOST_BODY_BYTES,
        )
        for method, path, handler in found
    ]


class _Door:
    def __init__(self, ask: Ask, cacert: str) -> None:
        self._ask = ask
        self._cacert = cacert

    # Jobs.

    async def list_jobs(self, request: Request) -> Response:
        return json_response(await self._ask(GetJobs()))

    async def search_jobs(self, request: Request) -> Response:
        command = SearchJobs(
            name=request.first("name"),
            command=request.first("command"),
            any=request.first("any"),
            limit=request.whole("limit", 10),
            offset=request.whole("offset", 0),
        )
        return json_response(await self._ask(command))

    async def summarise_jobs(self, request: Request) -> Response:
        return json_response(await self._ask(GetSummary()))

    async def plan_jobs(self, request: Request) -> Response:
        found = read_json(request.body)
        jobs: list[tuple[str, ReadJob | str]] = []
        for number, one in enumerate(found if isinstance(found, list) else [found], start=1):
            if not number % READ_AT_ONCE:
                await asyncio.sleep(0)  # others have their turn
            name = str(one.get("name") or "") if isinstance(one, dict) else ""
            try:
                jobs.append((name, read_job(one)))
            except Invalid as error:
                jobs.append((name, error.message))
        return json_response({"jobs": await self._ask(CheckJobs(jobs=tuple(jobs), check=request.flag("check", True)))})

    async def put_scheduled(self, request: Request) -> Response:
        return await self._put(request, Kind.SCHEDULED)

    async def put_dependent(self, request: Request) -> Response:
        return await self._put(request, Kind.DEPENDENT)

    async def _put(self, request: Request, kind: Kind) -> Response:
        found = read_job(read_json(request.body), kind)
        command = PutJob(
            spec=found.spec, counters=found.counters, ignored=found.unknown, check=request.flag("check", True)
        )  # fmt: skip
        notice = await self._ask(command)
        headers: dict[str, str] = {}
        if found.unknown:
            shown = ", ".join(found.unknown[:10]).encode("ascii", "replace").decode()
            headers["Corral-Ignored-Fields"] = "".join(c if c.isprintable() else "?" for c in shown)[:1000]
        if notice:
            headers["Corral-Notice"] = notice
        return Response(status=204, headers=headers)

    async def get_job(self, request: Request) -> Response:
        return json_response(await self._ask(GetJob(name=request.params["name"])))

    async def delete_job(self, request: Request) -> Response:
        await self._ask(DeleteJob(name=request.params["name"]))
        return _NO_CONTENT

    async def list_next(self, request: Request) -> Response:
        after = request.first("after")
        command = GetNext(
            name=request.params["name"],
            count=request.whole("count", 10),
            after=round(parse_timestamp(after) * 1000) if after else None,
        )
        return json_response(await self._ask(command))

    # Runs.

    async def run_job(self, request: Request) -> Response:
        arguments, parameters = request.first("arguments"), {}
        if request.body.strip():
            reader = Reader(read_json(request.body))
            arguments = reader.text("arguments", arguments)
            parameters = _parameters(reader)
        await self._ask(RunJob(name=request.params["name"], arguments=arguments, parameters=parameters))
        return _NO_CONTENT

    async def mark_success(self, request: Request) -> Response:
        name = request.params["name"]
        done = await self._ask(MarkSuccess(name=name))
        text = f"marked job {name} as successful: {'true' if done else 'false'}"
        return Response(body=text.encode(), content_type="text/plain")

    async def kill_tasks(self, request: Request) -> Response:
        await self._ask(KillRuns(name=request.params["name"]))
        return _NO_CONTENT

    async def purge_queue(self, request: Request) -> Response:
        await self._ask(PurgeQueue())
        return _NO_CONTENT

    async def report_task(self, request: Request) -> Response:
        reader = Reader(read_json(request.body))
        if not reader.has("statusCode"):
            raise Invalid('the body must say how the task ended; send {"statusCode": 0} for success')
        await self._ask(ReportTask(task_id=request.params["task"], code=reader.code("statusCode")))
        return _NO_CONTENT

    async def add_elements(self, request: Request) -> Response:
        reader = Reader(read_json(request.body))
        if not reader.has("numAdditionalElementsProcessed"):
            raise Invalid("numAdditionalElementsProcessed must be given")
        count = reader.whole("numAdditionalElementsProcessed")
        await self._ask(AddElements(name=request.params["name"], task_id=request.params["task"], count=count))
        return _NO_CONTENT

    async def start_backfill(self, request: Request) -> Response:
        reader = Reader(read_json(request.body))
        command = StartBackfill(
            name=request.params["name"],
            start=_bound(reader, "from"),
            end=_bound(reader, "to"),
            parameters=_parameters(reader),
        )
        return json_response({"runs": await self._ask(command)}, status=202)

    async def stop_backfill(self, request: Request) -> Response:
        await self._ask(StopBackfill(name=request.params["name"]))
        return _NO_CONTENT

    # Views.

    async def get_stat(self, request: Request) -> Response:
        return json_response(await self._ask(GetStat(name=request.params["name"])))

    async def get_history(self, request: Request) -> Response:
        command = GetHistory(name=request.params["name"], limit=request.whole("limit", 100))
        return json_response(await self._ask(command))

    async def get_log(self, request: Request) -> Stream:
        task_id, url = await self._ask(GetLog(name=request.params["name"], task_id=request.first("task")))
        return await pass_log(request, url, task_id, self._cacert)

    async def get_dot(self, request: Request) -> Response:
        return Response(body=(await self._ask(GetGraph(form="dot"))).encode(), content_type="text/plain")

    async def get_csv(self, request: Request) -> Response:
        return Response(body=(await self._ask(GetGraph(form="csv"))).encode(), content_type="text/plain")

    async def get_stats(self, request: Request) -> Response:
        return json_response(await self._ask(GetStats(which=request.params["which"])))

    async def get_leader(self, request: Request) -> Response:
        return json_response(await self._ask(GetLeader()))

    async def get_metrics(self, request: Request) -> Response:
        found = await self._ask(GetMetrics())
        if any(kind in request.headers.get("accept", "") for kind in _PROMETHEUS):
            return Response(body=write_metrics(list_numbers(found)), content_type=CONTENT_TYPE)
        return json_response(found)

    async def ping(self, request: Request) -> Response:
        return Response(body=b"pong", content_type="text/plain")


_NO_CONTENT = Response(status=204)


def _bound(reader: Reader, field: str) -> int:
    """Units: ms. Errors: `Invalid` shows the form."""
    found = reader.instant(field)
    if found is None:
        raise Invalid(f"{field} must be given, as an instant such as 2026-01-31T12:00:00Z")
    return round(found * 1000)


def _parameters(reader: Reader) -> dict[str, str]:
    inner = reader.object("parameters")
    return {} if inner is None else {name: inner.text(name) for name in inner.fields}
