"""The front door of DAGs: `/corral/v1/dags` and `/corral/v1/dag-runs`. Decides nothing."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from corral.frameworks.cron.dags.dialect import read_dag
from corral.frameworks.cron.dags.spec import (
    DagCommand,
    DeleteDag,
    GetDag,
    GetDagRun,
    GetDagRuns,
    GetDags,
    KillDag,
    PlanDag,
    PutDag,
    ResumeDag,
    StartDag,
)
from corral.frameworks.cron.reader import Reader
from corral.lib.errors import Invalid
from corral.net.routes import Request, Response, Route, json_response
from corral.sdk.reading import read_json

Ask = Callable[[DagCommand], Awaitable[Any]]
MOST_BODY_BYTES = 16 << 20
PREFIX = "/corral/v1"


def dag_routes(ask: Ask) -> list[Route]:
    door = _Door(ask)
    table: Sequence[tuple[str, str, Any]] = (
        ("GET", "/dags", door.list_dags),
        ("POST", "/dags/plan", door.plan_dag),
        ("GET", "/dags/{name}", door.get_dag),
        ("PUT", "/dags/{name}", door.put_dag),
        ("DELETE", "/dags/{name}", door.delete_dag),
        ("GET", "/dags/{name}/runs", door.list_runs),
        ("POST", "/dags/{name}/runs", door.start_run),
        ("GET", "/dag-runs/{run}", door.get_run),
        ("DELETE", "/dag-runs/{run}", door.kill_run),
        ("POST", "/dag-runs/{run}/resume", door.resume_run),
    )
    return [
        Route(method=method, path=PREFIX + path, handler=handler, most_bytes=MOST_BODY_BYTES)
        for method, path, handler in table
    ]


class _Door:
    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    async def list_dags(self, request: Request) -> Response:
        return json_response(await self._ask(GetDags()))

    async def plan_dag(self, request: Request) -> Response:
        command = PlanDag(spec=read_dag(read_json(request.body)), check=request.flag("check", True))
        return json_response(await self._ask(command))

    async def get_dag(self, request: Request) -> Response:
        return json_response(await self._ask(GetDag(name=request.params["name"])))

    async def put_dag(self, request: Request) -> Response:
        spec = read_dag(read_json(request.body))
        if spec.name != request.params["name"]:
            raise Invalid(f"the path names DAG {request.params['name']!r} and the body {spec.name!r}; name one of them")
        is_new, notice = await self._ask(PutDag(spec=spec, check=request.flag("check", True)))
        answer = {"name": spec.name, "steps": len(spec.steps), **({"notice": notice} if notice else {})}
        return json_response(answer, status=201 if is_new else 200)

    async def delete_dag(self, request: Request) -> Response:
        await self._ask(DeleteDag(name=request.params["name"], force=request.flag("force", False)))
        return Response(status=204)

    async def list_runs(self, request: Request) -> Response:
        text = request.first("limit") or "100"
        if not text.isdecimal() or len(text) > 6:
            raise Invalid(f"query parameter limit={text!r} must be a whole number")
        return json_response(await self._ask(GetDagRuns(name=request.params["name"], limit=int(text))))

    async def start_run(self, request: Request) -> Response:
        reader = _body(request)
        inner = reader.object("parameters")
        parameters = {} if inner is None else {name: inner.text(name) for name in inner.fields}
        command = StartDag(name=request.params["name"], parameters=parameters, key=reader.text("key"))
        _refuse_unknown(reader)
        run_id, is_new = await self._ask(command)
        return json_response({"id": run_id}, status=201 if is_new else 200)

    async def get_run(self, request: Request) -> Response:
        return json_response(await self._ask(GetDagRun(run=request.params["run"])))

    async def kill_run(self, request: Request) -> Response:
        await self._ask(KillDag(run=request.params["run"]))
        return Response(status=204)

    async def resume_run(self, request: Request) -> Response:
        reader = _body(request)
        command = ResumeDag(run=request.params["run"], step=reader.text("from"))
        _refuse_unknown(reader)
        await self._ask(command)
        return Response(status=202)


def _body(request: Request) -> Reader:
    return Reader(read_json(request.body) if request.body.strip() else {})


def _refuse_unknown(reader: Reader) -> None:
    reader.done()
    if reader.unknown:
        raise Invalid(f"the body has fields that nobody knows: {', '.join(reader.unknown)}; take them out")
