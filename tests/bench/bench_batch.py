"""Batch jobs per second through HTTP, durable, each a record of its own, with many agents that are only voices.

Three processes: master and batch framework with one SQLite store, full synchronisation; the agents, which speak the
real wire and have nothing behind it; and who submits. Every job is one task with three updates, each acknowledged; it
is placed where the allocator spreads it. The limit of the same run is what the same frames and records allow with
nothing decided. The short run is for continuous integration and has no budget.
"""

import asyncio
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import numpy as np
import uvloop
from tests.bench.bench_control_plane import until_registered
from tests.bench.processes import spawn
from tests.bench.report import Measure
from tests.bench.undecided import pass_on

from corral.allocator.start import choose_mode, warm
from corral.frameworks.batch import BatchCore, Config, build
from corral.frameworks.batch.spec import GetStats, JobSpec, Submit
from corral.lib.log import configure_log
from corral.master.core import MasterCore
from corral.master.routes import routes
from corral.master.shell import MasterShell
from corral.master.spec import MasterConfig
from corral.model import calls
from corral.net.server import Server, bind
from corral.runtime.core import Asked, Loaded
from corral.runtime.loop import Loop
from corral.runtime.service import relax_collector
from corral.sdk.framework import FrameworkService
from corral.sdk.local import LocalTransport
from corral.store.sqlite import open_sqlite

AGENTS = 1000
BUDGET_RATE, BUDGET_MS, BUDGET_BYTES = 10_000.0, 25.0, 1024.0
GIVE_UP_S = 900.0


class Watched(LocalTransport):
    """Notes when each job's launch left, which costs as much as many a step of a job: not where rates are measured.

    Shapes: `launched` by job id, in seconds of the wall clock.
    """

    def __init__(self, endpoint: Any) -> None:
        super().__init__(endpoint)
        self.launched: dict[str, float] = {}

    def send(self, call: calls.Call, failed: Any) -> None:
        if isinstance(call, calls.Accept):
            now = time.time()
            for operation in call.operations:
                for task in operation.tasks:  # type: ignore[union-attr]
                    self.launched[task.task_id.rpartition(".")[0]] = now
        super().send(call, failed)


class Outcome(msgspec.Struct):
    took_s: float = 0.0
    jobs: int = 0
    delays_s: list[float] = []
    cpu_s: float = 0.0
    agents: dict[str, float] = {}
    load_cpu_s: float = 0.0
    most_mb: float = 0.0


def measure(*, short: bool) -> list[Measure]:
    jobs, agents = (2000, 50) if short else (int(os.environ.get("BATCH_JOBS", "150000")), AGENTS)
    compiled = "no" if short else "auto"
    warm(choose_mode(compiled))
    full = run_once(jobs, agents, compiled=compiled)
    rate = full.jobs / full.took_s
    calm = run_once(min(jobs, 20_000), agents, rate=rate / 2, compiled=compiled)
    limit, passing = pass_undecided(min(jobs, 60_000), agents)
    frames = (full.agents["orders"] + full.agents["reports"]) / full.took_s
    note = f"{jobs:,} jobs on {agents:,} agents that are only voices; {frames:,.0f} frames/s over the wire; "
    note += f"{frames / rate:.1f} a job; at most {full.most_mb:,.0f} MB"
    cost = full.cpu_s / full.jobs * 1e6
    late = 1000 * float(np.percentile(np.array(calm.delays_s), 99))
    middle = 1000 * float(np.median(np.array(calm.delays_s)))
    budget = None if short else BUDGET_RATE
    return [
        Measure(name="batch jobs completed", unit="jobs/s", runs=(rate,), budget=budget, at_least=True, note=note),
        Measure(name="processor time of master and framework", unit="µs a job", runs=(cost,)),
        Measure(
            name="batch jobs completed, of what frames and records alone allow", unit="parts", runs=(rate / limit,),
            note=f"{limit:,.0f} jobs/s with nothing decided, {passing:,.0f} µs a job",
        ),
        Measure(name="processor time of the agents", unit="µs a job", runs=(full.agents["cpu_s"] / jobs * 1e6,)),
        Measure(
            name="from the request to its jobs' launch, p99", unit="ms", runs=(late,),
            budget=None if short else BUDGET_MS, note=f"at half of that rate, 20 a request; median {middle:.1f} ms",
        ),
        Measure(
            name="memory of a queued job", unit="bytes", runs=(weigh_queued(20_000 if short else 200_000),),
            budget=BUDGET_BYTES, note="with a command, a name and a label of its own",
        ),
    ]  # fmt: skip


def weigh_queued(jobs: int) -> float:
    """Resident bytes that one job takes while it waits, all that belongs to it."""
    code = f"from tests.bench.bench_batch import _weigh; print(_weigh({jobs}))"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return float(found.stdout)


def _weigh(jobs: int) -> float:
    core = BatchCore(Config(bundle=500), Random(1))
    core.handle(Loaded(), 0.0)
    decoder = msgspec.json.Decoder(tuple[JobSpec, ...])

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    before = resident()
    for start in range(0, jobs, 1000):
        body = msgspec.json.encode(
            [
                {"command": f"/usr/bin/transcode --in s3://bucket/{start + k}.ts --out s3://out/{start + k}.mp4",
                 "name": f"transcode-{start + k}", "labels": {"batch": str(start)}, "cpus": 1.5, "mem": 512}
                for k in range(1000)
            ]
        )  # fmt: skip
        core.handle(Asked(1, Submit(jobs=decoder.decode(body), check=False)), 1.0 + start)
    return (resident() - before) / jobs


def run_once(jobs: int, agents: int, *, rate: float = 0.0, compiled: str = "no") -> Outcome:
    with (
        tempfile.TemporaryDirectory(prefix="corral-bench-") as directory,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        return runner.run(_run(Path(directory), jobs, agents, rate, compiled))


def pass_undecided(jobs: int, agents: int) -> tuple[float, float]:
    with (
        tempfile.TemporaryDirectory(prefix="corral-bench-") as directory,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        return runner.run(pass_on(Path(directory), jobs, agents))


async def _run(directory: Path, jobs: int, agents: int, rate: float, compiled: str) -> Outcome:
    relax_collector()
    with (directory / "master.log").open("w") as log:
        configure_log("json", "info", log)
        try:
            return await _with_cluster(directory, jobs, agents, rate, compiled)
        finally:
            configure_log("text", "warning")


async def _with_cluster(directory: Path, jobs: int, agents: int, rate: float, compiled: str) -> Outcome:
    store = await open_sqlite(str(directory / "master.db"))
    shell = MasterShell()
    master = Loop(MasterCore(MasterConfig(compiled=compiled), Random(1)), shell, store, prefix="master/")
    shell.attach(master)
    watched = Watched(shell) if rate else None
    transport = watched or LocalTransport(shell)
    framework = build(Config(), Random(2))
    assert isinstance(framework.core, BatchCore)
    batch = framework.core.state
    service = FrameworkService(framework, transport, store, random=Random(2))
    server = Server([*routes(master, shell), *service.routes], bind("127.0.0.1", 0))
    work: list[asyncio.Task[Any]] = [asyncio.create_task(master.run())]
    voices = None
    found = Outcome(jobs=jobs)
    try:
        await master.ready.wait()
        await server.start()
        voices = spawn("tests.bench.light_agents", "--master", server.url, "--agents", str(agents))
        await until_registered(master, agents, work)
        work.append(asyncio.create_task(service.run()))
        await service.loop.ready.wait()
        while not service.session.connected:
            await asyncio.sleep(0.01)
        used, answers = time.process_time(), directory / "answers.json"
        load = spawn(
            "tests.bench.batch_load",
            "--url",
            server.url,
            "--jobs",
            str(jobs),
            "--rate",
            str(rate),
            "--at-once",
            str(20 if rate else 500),
            "--out",
            str(answers),
        )
        begun = None
        give_up_at = time.monotonic() + GIVE_UP_S
        while batch.finished.total < jobs:
            if begun is None and batch.submitted.total:
                begun = time.perf_counter()
            assert time.monotonic() < give_up_at, batch.counts
            await asyncio.sleep(0.02)
        # Answered when the last end is durable.
        stats = await service.loop.ask(GetStats())
        assert begun is not None
        found.took_s = time.perf_counter() - begun
        found.cpu_s = time.process_time() - used
        assert stats["states"]["SUCCEEDED"] == jobs, stats
        code = await asyncio.to_thread(load.wait, 60)
        assert code == 0, f"who submits ended with {code}"
        sent = msgspec.json.decode(answers.read_bytes())
        found.load_cpu_s = sent["cpu_s"]
        if watched is not None:
            found.delays_s = [watched.launched[job] - at for at, ids in sent["sent"] for job in ids]
        found.most_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    finally:
        if voices is not None:
            out, _ = await asyncio.to_thread(voices.communicate, "")
            found.agents = msgspec.json.decode(out.splitlines()[-1]) if out else {}
        for task in work:
            task.cancel()
        await asyncio.wait(work)
        await server.close()
        await store.close()
    return found
