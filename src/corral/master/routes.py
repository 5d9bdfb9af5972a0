"""The master's endpoints: corral's own API here, beside those for clients of Mesos and for agents."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from prometheus_client.core import CollectorRegistry, CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from corral.master import admit, role_form, trials
from corral.master.link_routes import LinkDoors
from corral.master.mesos_routes import (
    MOST_REQUEST_BYTES,
    Exchange,
    MesosDoors,
    expect_recovered,
    mesos_routes,
    read_number,
)
from corral.master.numbers import OF_FRAMEWORKS
from corral.master.shell import MasterShell
from corral.master.spec import GetExplanations, GetFrameworks, GetNodes, GetRoles, GetTasks, GetTrial
from corral.model.operator import RemoveRole
from corral.net.answers import prefers_json, write_gauges
from corral.net.routes import RawRoute, Request, Response, Route, Stream, json_response
from corral.net.stream import ORDERS_PATH, REPORTS_PATH
from corral.runtime.loop import Loop

ROLE_PATH = "/corral/v1/roles/{role*}"

_COUNTERS = frozenset(
    {
        "master/slave_registrations", "master/slave_removals", "master/slave_unreachable_scheduled",
        "master/slave_reregistrations", "master/slave_removals/reason_unregistered", "master/invalid_status_updates",
        "master/calls_throttled", "master/calls_dropped", "master/tasks_evicted", "master/valid_status_updates",
        "allocator/mesos/allocation_runs", "master/tasks_finished", "master/tasks_failed", "master/tasks_killed",
        "master/tasks_error", "master/tasks_lost", "master/tasks_dropped", "master/tasks_gone",
        "master/tasks_gone_by_operator",
    }
)  # fmt: skip


def routes(loop: Loop, shell: MasterShell) -> list[Route | RawRoute]:
    """All endpoints of one master over its loop. The shell must be attached to it."""
    links, mesos = LinkDoors(loop, shell), MesosDoors(loop, shell)
    doors = _Doors(loop, mesos)
    found: list[Route | RawRoute] = [
        RawRoute(method="GET", path=ORDERS_PATH, handler=links.hold_orders),
        RawRoute(method="POST", path=REPORTS_PATH, handler=links.take_reports),
        *mesos_routes(mesos),
    ]
    found += [Route(method="GET", path=path, handler=exchange) for path, exchange in doors.native().items()]
    found.append(Route(method="PUT", path=ROLE_PATH, handler=doors.set_role))
    found.append(Route(method="DELETE", path=ROLE_PATH, handler=doors.remove_role))
    found.append(Route(method="POST", path="/corral/v1/plan", handler=doors.plan, most_bytes=MOST_REQUEST_BYTES))
    return found


class _Doors:
    __slots__ = ("_loop", "_mesos")

    def __init__(self, loop: Loop, mesos: MesosDoors) -> None:
        self._loop = loop
        self._mesos = mesos

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
            "/metrics/prometheus": self.write_prometheus,
            "/health/live": self.answer_live,
            "/health/ready": self.answer_ready,
            "/health/leader": self.answer_leader,
        }

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
        most = read_number(request, "most", 10)
        trial = await self._loop.ask(GetTrial())
        return json_response(await asyncio.to_thread(trials.try_moves, trial, most))

    async def show_role(self, request: Request) -> Response:
        return json_response(await self._loop.ask(GetRoles(role=request.params["role"])))

    async def set_role(self, request: Request) -> Response:
        role = request.params["role"]
        command = role_form.read_set_role(role, request.body, force=request.flag("force"))
        admit.check_change(command, request.caller)
        await self._loop.ask(command)
        return json_response(await self._loop.ask(GetRoles(role=role)))

    async def remove_role(self, request: Request) -> Response:
        command = RemoveRole(role=request.params["role"])
        admit.check_change(command, request.caller)
        await self._loop.ask(command)
        return Response(status=204)

    async def tell_events(self, request: Request) -> Response | Stream:
        after = read_number(request, "after", 0)
        if request.flag("follow"):
            return Stream(chunks=self._follow(after), content_type="application/x-ndjson")
        lines = [msgspec.json.encode(line) + b"\n" for line in self._loop.notes.since(after)]
        return Response(body=b"".join(lines), content_type="application/x-ndjson")

    async def _follow(self, after: int) -> AsyncIterator[bytes]:
        async for line in self._loop.notes.follow(after):
            yield msgspec.json.encode(line) + b"\n"

    async def write_metrics(self, request: Request) -> Response:
        if prefers_json(request.headers.get("accept")):
            return json_response(write_gauges(await self._mesos.metrics()))
        return await self.write_prometheus(request)

    async def write_prometheus(self, request: Request) -> Response:
        found = await self._mesos.metrics()
        registry = CollectorRegistry(auto_describe=False)
        # What has a role in its name is for the snapshot alone: names that come and go are no names of Prometheus.
        found = {name: value for name, value in found.items() if "/roles/" not in name}
        registry.register(_Numbers({**found, "loop/turns": self._loop.turns, "loop/inputs": self._loop.inputs}))
        return Response(body=generate_latest(registry), content_type=CONTENT_TYPE_LATEST)

    async def answer_live(self, request: Request) -> Response:
        return json_response({"live": True})

    async def answer_ready(self, request: Request) -> Response:
        expect_recovered(self._loop)
        return json_response({"ready": True})

    async def answer_leader(self, request: Request) -> Response:
        expect_recovered(self._loop)
        return json_response({"leads": True})


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
            kind = (
                CounterMetricFamily
                if name in _COUNTERS or name.startswith(("loop/", "master/messages_"))
                else GaugeMetricFamily
            )
            made.append(kind(plain, f"{name} as in /metrics/snapshot", value=value))
        return [*made, waits]
