"""A hundred thousand jobs that are due at one instant, and how long a DAG of ten thousand steps takes to be planned.

The firing goes through the real master over the real wire to 1,000 agents that are only voices, records on
disk. A job is late by what lies between the instant at which it is due and the commit of its launch.
"""

import asyncio
import tempfile
import time
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import numpy as np
import uvloop
from tests.bench.bench_control_plane import light_agents, until_registered
from tests.bench.report import Measure

from corral.frameworks.cron import Config, build
from corral.frameworks.cron.chronos import read_job
from corral.frameworks.cron.dags.dialect import read_dag
from corral.frameworks.cron.dags.spec import PlanDag
from corral.frameworks.cron.spec import PutJob, Result
from corral.frameworks.cron.state import State
from corral.lib.log import configure_log
from corral.lib.units import format_timestamp
from corral.master.core import MasterCore
from corral.master.routes import routes
from corral.master.shell import MasterShell
from corral.master.spec import MasterConfig
from corral.net.server import Server, bind
from corral.runtime.loop import Loop
from corral.runtime.service import relax_collector
from corral.sdk.framework import FrameworkService
from corral.sdk.local import LocalTransport
from corral.store.memory import MemoryStore
from corral.store.sqlite import open_sqlite

AGENTS, JOBS, STEPS = 1000, 100_000, 10_000
GIVE_UP_S = 900.0
AT_ONCE = 500


def measure(*, short: bool) -> list[Measure]:
    agents, jobs, steps = (20, 500, 500) if short else (AGENTS, JOBS, STEPS)
    with (
        tempfile.TemporaryDirectory(prefix="corral-bench-") as directory,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        late_s, over_s = runner.run(_fire(Path(directory), agents, jobs))
        planned_s = runner.run(_plan(steps))
    note = f"{jobs:,} jobs due at one instant, all launched once and ended well after {over_s:.1f} s; median "
    note += f"{np.median(late_s):.1f} s; {agents:,} agents that are only voices; records durable"
    return [
        Measure(name="lateness of a firing, p99", unit="s", runs=(float(np.percentile(late_s, 99)),), note=note),
        Measure(
            name=f"a DAG of {steps:,} steps is read, checked and planned", unit="s", runs=planned_s,
            budget=None if short else 1.0, note="three edges to each step; processor time of the thread",
        ),
    ]  # fmt: skip


async def _fire(directory: Path, agents: int, jobs: int) -> tuple[list[float], float]:
    relax_collector()
    with (directory / "master.log").open("w") as log:
        configure_log("json", "error", log)
        try:
            return await _with_cluster(directory, agents, jobs)
        finally:
            configure_log("text", "warning")


async def _with_cluster(directory: Path, agents: int, jobs: int) -> tuple[list[float], float]:
    store = await open_sqlite(str(directory / "master.db"))
    shell = MasterShell()
    master = Loop(MasterCore(MasterConfig(), Random(1)), shell, store, prefix="master/")
    shell.attach(master)
    server = Server(routes(master, shell), bind("127.0.0.1", 0))
    framework = build(Config(), Random(2))
    cron = FrameworkService(framework, LocalTransport(shell), store, random=Random(2))
    work: list[asyncio.Task[Any]] = [asyncio.create_task(master.run())]
    try:
        await master.ready.wait()
        await server.start()
        async with light_agents(server.url, agents, "--resources", "cpus:400;mem:1048576;disk:1048576"):
            await until_registered(master, agents, work)
            work.append(asyncio.create_task(cron.run()))
            await cron.loop.ready.wait()
            begun = time.time()
            due = await _put(cron.loop, jobs, begun)
            state: State = framework.core.state  # type: ignore[attr-defined]
            await _until_over(state, jobs, due)
            over_s = time.time() - due
    finally:
        for task in work:
            task.cancel()
        await asyncio.wait(work)
        await server.close()
        await store.close()
    ends = [entry for job in state.jobs.values() for entry in job.history]
    assert len(ends) == jobs, f"{len(ends)} attempts for {jobs} jobs"
    assert all(entry.result is Result.SUCCESS for entry in ends), "an attempt failed"
    return [(entry.launched_at or 0.0) - entry.due / 1000 for entry in ends], over_s


async def _put(loop: Loop, jobs: int, begun: float) -> float:
    """Create all jobs well before they are due; returns the instant."""
    due = begun + 5.0 + jobs / 1000
    schedule = f"R1/{format_timestamp(due)}/P1D"
    due = round(due, 3)
    for first in range(0, jobs, AT_ONCE):
        bodies = (
            {"name": f"job{n}", "command": "true", "schedule": schedule, "cpus": 0.1, "mem": 32, "disk": 1}
            for n in range(first, min(jobs, first + AT_ONCE))
        )
        await asyncio.gather(*(loop.ask(PutJob(spec=read_job(body).spec)) for body in bodies))
    assert time.time() < due, f"creating {jobs:,} jobs took longer than until they were due"
    return due


async def _until_over(state: State, jobs: int, due: float) -> None:
    while sum(job.progress.successes for job in state.jobs.values()) < jobs:
        assert time.time() < due + GIVE_UP_S, f"not over {GIVE_UP_S:g} s after they were due"
        await asyncio.sleep(0.5)


async def _plan(steps: int) -> tuple[float, ...]:
    body = msgspec.json.encode({
        "name": "large",
        "steps": [
            {
                "name": f"s{n}", "command": f"work --part {n} --to part-{n}.parquet", "cpus": 0.5, "mem": 128,
                "after": [f"s{n - back}" for back in (100, 107, 114) if n >= back],
            }
            for n in range(steps)
        ],
    })  # fmt: skip
    framework = build(Config(), Random(3))
    loop = Loop(framework.core, _NoShell(), MemoryStore(), prefix="cron/")
    running = asyncio.create_task(loop.run())
    await loop.ready.wait()
    took = []
    for _ in range(5):
        begun = time.thread_time()
        found = await loop.ask(PlanDag(spec=read_dag(msgspec.json.decode(body))))
        took.append(time.thread_time() - begun)
        assert sum(len(wave) for wave in found["waves"]) == steps
    loop.stop()
    await running
    return tuple(took)


class _NoShell:
    """For a core that has nothing to do but answer."""

    def perform(self, effect: Any) -> None:
        raise AssertionError(f"unexpected effect {effect}")

    def flush(self) -> None: ...
