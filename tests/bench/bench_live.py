"""How soon the live master decides, with many agents and tasks: from a want that is stated to its offer.

The real master over the real wire with 1,000 agents (only their executors are fake) that run 300,000 tasks; a framework
in its process states one want after another, launches what it is offered, and lets the oldest of its tasks go.
"""

import asyncio
import resource
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import numpy as np
import uvloop
from tests.bench.bench_control_plane import fake_agents, until_registered
from tests.bench.flood import FloodCore, ReadProgress, Start
from tests.bench.report import Measure

from corral.lib.log import configure_log
from corral.master.core import MasterCore
from corral.master.routes import routes
from corral.master.shell import MasterShell
from corral.master.spec import MasterConfig
from corral.model import calls, events
from corral.model.flags import parse_resources
from corral.model.framework import Capability, FrameworkInfo
from corral.model.ids import FrameworkId, TaskId, WantId
from corral.model.offer import Want
from corral.model.task import CommandInfo, TaskInfo
from corral.net.server import Server, bind
from corral.runtime.core import Asked, Effect, Reply
from corral.runtime.loop import Loop
from corral.runtime.service import relax_collector
from corral.sdk.effects import Call
from corral.sdk.framework import Framework, FrameworkService
from corral.sdk.local import LocalTransport
from corral.store.sqlite import open_sqlite

AGENTS, TASKS, PROBES = 1000, 300_000, 2000
SHAPE = parse_resources("cpus:0.5;mem:128")
PACE_S = 0.01
BUDGET_MS = 25.0


class Probe(msgspec.Struct, frozen=True, tag=True):
    """State one want more."""


class ReadDelays(msgspec.Struct, frozen=True, tag=True):
    pass


class ProbeCore:
    """Shapes: `delays_s` from the turn that stated a want to the one in which its offer came."""

    def __init__(self) -> None:
        self.framework_id: FrameworkId | None = None
        self.delays_s: list[float] = []
        self._asked: dict[WantId, float] = {}
        self._count = 0

    def handle(self, input: Any, now: float) -> Sequence[Effect]:
        match input:
            case events.Subscribed():
                self.framework_id = input.framework_id
                return []
            case Asked(ask, Probe()):
                self._count += 1
                self._asked[WantId(f"w{self._count}")] = time.perf_counter()
                return [*self._state_wants(), Reply(ask)]
            case Asked(ask, ReadDelays()):
                return [Reply(ask, list(self.delays_s))]
            case events.Offers():
                return self._launch(input)
            case _:
                return []

    def invariants(self) -> None:
        assert len(self.delays_s) + len(self._asked) == self._count

    def live_tasks(self) -> Sequence[calls.ReconcileTask]:
        return ()

    def is_live(self, task_id: TaskId) -> bool:
        return False

    def _state_wants(self) -> list[Effect]:
        assert self.framework_id is not None
        wants = tuple(Want(id=want, role="probe", count=1, resources=SHAPE) for want in self._asked)
        return [Call(calls.Request(framework_id=self.framework_id, wants=wants))]

    def _launch(self, event: events.Offers) -> list[Effect]:
        assert self.framework_id is not None
        effects: list[Effect] = []
        now = time.perf_counter()
        for offer in event.offers:
            if offer.want_id is None or offer.want_id not in self._asked:
                continue
            self.delays_s.append(now - self._asked.pop(offer.want_id))
            task = TaskInfo(
                task_id=TaskId(f"probe.{offer.want_id}"), name="probe", agent_id=offer.agent_id,
                resources=offer.resources, command=CommandInfo(value="true"),
            )  # fmt: skip
            effects.append(
                Call(
                    calls.Accept(
                        framework_id=self.framework_id, offer_ids=(offer.id,), operations=(calls.Launch(tasks=(task,)),)
                    )
                )
            )
        return effects


def measure(*, short: bool) -> list[Measure]:
    agents, tasks, probes = (20, 400, 50) if short else (AGENTS, TASKS, PROBES)
    with (
        tempfile.TemporaryDirectory(prefix="corral-bench-") as directory,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        delays, filled_s = runner.run(_run(Path(directory), agents, tasks, probes))
    parts = [1000 * float(np.percentile(each, 99)) for each in np.array_split(np.array(delays), 5)]
    middle = 1000 * float(np.median(delays))
    used_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    note = f"{agents:,} agents (executors simulated), {tasks:,} tasks running; median {middle:.1f} ms; "
    note += f"filled in {filled_s:.0f} s; the process of master and frameworks at most {used_mb:,.0f} MB"
    return [
        Measure(
            name="a want until its offer is sent, p99", unit="ms", runs=tuple(parts),
            budget=None if short else BUDGET_MS, note=note,
        )
    ]  # fmt: skip


async def _run(directory: Path, agents: int, tasks: int, probes: int) -> tuple[list[float], float]:
    relax_collector()
    with (directory / "master.log").open("w") as log:
        configure_log("json", "warning", log)
        try:
            return await _with_cluster(directory, agents, tasks, probes)
        finally:
            configure_log("text", "warning")


async def _with_cluster(directory: Path, agents: int, tasks: int, probes: int) -> tuple[list[float], float]:
    store = await open_sqlite(str(directory / "master.db"))
    shell = MasterShell()
    master = Loop(MasterCore(MasterConfig(), Random(1)), shell, store, prefix="master/")
    shell.attach(master)
    server = Server(routes(master, shell), bind("127.0.0.1", 0))
    flood = FrameworkService(_framework("flood", FloodCore()), LocalTransport(shell), store, random=Random(2))
    probe = FrameworkService(_framework("probe", ProbeCore()), LocalTransport(shell), store, random=Random(3))
    work: list[asyncio.Task[Any]] = [asyncio.create_task(master.run())]
    room = "cpus:400;mem:1048576;ports:[31000-32000]"
    try:
        await master.ready.wait()
        await server.start()
        async with fake_agents(directory, server.url, agents, "--hold", "1e9", "--resources", room):
            await until_registered(master, agents, work)
            work += [asyncio.create_task(flood.run()), asyncio.create_task(probe.run())]
            await flood.loop.ready.wait()
            await probe.loop.ready.wait()
            begun = time.perf_counter()
            await flood.loop.ask(Start(tasks))
            while (await flood.loop.ask(ReadProgress())).running < tasks:
                await asyncio.sleep(0.2)
            filled_s = time.perf_counter() - begun
            for _ in range(probes):
                await asyncio.gather(probe.loop.ask(Probe()), asyncio.sleep(PACE_S))
            while len(delays := await probe.loop.ask(ReadDelays())) < probes:
                await asyncio.sleep(0.05)
    finally:
        for task in work:
            task.cancel()
        await asyncio.wait(work)
        await server.close()
        await store.close()
    return delays, filled_s


def _framework(name: str, core: Any) -> Framework:
    info = FrameworkInfo(
        user="bench", name=name, roles=(name,), capabilities=(Capability.MULTI_ROLE, Capability.PARTITION_AWARE)
    )
    return Framework(info=info, core=core, records=f"frameworks/{name}/")
