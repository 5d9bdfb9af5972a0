"""Tasks per second through a real master over the real wire, with many agents of which only the executor is fake.

Two processes: the master with a framework in it (local transport), and the agents with one SQLite journal. Each task is
launched by its own ACCEPT, passes STARTING, RUNNING and FINISHED, and each of these updates is acknowledged; launches,
states and acknowledgements are on disk, in SQLite with full synchronisation, before they are told. Both run on uvloop,
as the daemons do with the extra `[speed]`.
"""

import asyncio
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from random import Random

import uvloop
from tests.bench.flood import ROLE, FloodCore, Progress, ReadProgress, Start
from tests.bench.report import Measure

from corral.lib.log import configure_log
from corral.master.core import MasterCore
from corral.master.routes import routes
from corral.master.shell import MasterShell
from corral.master.spec import GetMetrics, MasterConfig
from corral.model.framework import Capability, FrameworkInfo
from corral.net.server import Server, bind
from corral.runtime.loop import Loop
from corral.runtime.service import relax_collector
from corral.sdk.framework import Framework, FrameworkService
from corral.sdk.local import LocalTransport
from corral.store.sqlite import open_sqlite

AGENTS = 100
BUDGET = 2000.0
GIVE_UP_S = 300.0


def measure(*, short: bool) -> list[Measure]:
    runs, tasks, agents = (1, 2000, 20) if short else (5, 20_000, AGENTS)
    found = [run_once(tasks, agents) for _ in range(runs)]
    note = f"{tasks} tasks of three updates each on {agents} agents; executors are simulated"
    rates, masters, others = zip(*found, strict=True)
    return [
        Measure(name="control plane", unit="tasks/s", runs=rates, budget=BUDGET, at_least=True, note=note),
        Measure(name="processor time of master and framework", unit="µs a task", runs=masters),
        Measure(name="processor time of the agents", unit="µs a task", runs=others),
    ]


def run_once(tasks: int, agents: int) -> tuple[float, float, float]:
    """Tasks per second from the first want to the last durable end, and what a task costs both processes.

    Units: tasks/s, microseconds, microseconds; start and end of the processes count as costs.
    """
    before = _used_s(resource.RUSAGE_SELF), _used_s(resource.RUSAGE_CHILDREN)
    with (
        tempfile.TemporaryDirectory(prefix="corral-bench-") as directory,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        rate = runner.run(_flood(Path(directory), tasks, agents))
    after = _used_s(resource.RUSAGE_SELF), _used_s(resource.RUSAGE_CHILDREN)
    mine, theirs = ((now - then) / tasks * 1e6 for then, now in zip(before, after, strict=True))
    return rate, mine, theirs


def _used_s(who: int) -> float:
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


async def _flood(directory: Path, tasks: int, agents: int) -> float:
    relax_collector()
    with (directory / "master.log").open("w") as log:
        configure_log("json", "info", log)
        try:
            return await _run_cluster(directory, tasks, agents)
        finally:
            configure_log("text", "warning")


async def _run_cluster(directory: Path, tasks: int, agents: int) -> float:
    store = await open_sqlite(str(directory / "master.db"))
    shell = MasterShell()
    master = Loop(MasterCore(MasterConfig(), Random(1)), shell, store, prefix="master/")
    shell.attach(master)
    server = Server(routes(master, shell), bind("127.0.0.1", 0))
    service = FrameworkService(_framework(), LocalTransport(shell), store, random=Random(2))
    flood = service.loop
    work = [asyncio.create_task(master.run())]
    try:
        await master.ready.wait()
        await server.start()
        async with fake_agents(directory, server.url, agents):
            await until_registered(master, agents, work)
            work.append(asyncio.create_task(service.run()))
            await flood.ready.wait()
            started = time.perf_counter()
            await flood.ask(Start(tasks))
            progress = await _until_done(flood, tasks, work)
            await _until_acknowledged(directory / "agents.db")
            took_s = time.perf_counter() - started
    finally:
        for task in work:
            task.cancel()
        await asyncio.wait(work)
        await server.close()
        await store.close()
    assert progress.finished == progress.running == tasks, f"{progress}: every task must run and finish once"
    return tasks / took_s


def _framework() -> Framework:
    info = FrameworkInfo(
        user="bench", name="flood", roles=(ROLE,), capabilities=(Capability.MULTI_ROLE, Capability.PARTITION_AWARE)
    )
    return Framework(info=info, core=FloodCore(), records="frameworks/flood/")


@asynccontextmanager
async def fake_agents(directory: Path, master: str, count: int, *options: str) -> AsyncIterator[None]:
    """So many agents in a process of their own."""
    async with _agents("tests.bench.fake_agents", master, count, "--directory", str(directory), *options):
        yield


@asynccontextmanager
async def light_agents(master: str, count: int, *options: str) -> AsyncIterator[None]:
    """The same of agents that are only voices, which leave their process the time to be a thousand."""
    async with _agents("tests.bench.light_agents", master, count, *options):
        yield


@asynccontextmanager
async def _agents(module: str, master: str, count: int, *options: str) -> AsyncIterator[None]:
    command = [sys.executable, "-m", module, "--master", master, "--agents", str(count), *options]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        assert process.stdin is not None
        process.stdin.close()
        code = await asyncio.to_thread(process.wait, 60)
        assert code == 0, f"the agents' process ended with {code}"


async def until_registered(master: Loop, agents: int, work: list["asyncio.Task[int]"]) -> None:
    while True:
        _check(work)
        metrics = await master.ask(GetMetrics())
        if metrics["master/slaves_active"] == agents:
            return
        await asyncio.sleep(0.05)


async def _until_done(flood: Loop, tasks: int, work: list["asyncio.Task[int]"]) -> Progress:
    give_up_at = time.monotonic() + GIVE_UP_S
    while True:
        _check(work)
        progress: Progress = await flood.ask(ReadProgress())
        if progress.finished + progress.failed >= tasks:
            return progress
        assert time.monotonic() < give_up_at, f"{progress} after {GIVE_UP_S:g} s"
        await asyncio.sleep(0.01)


def _check(work: list["asyncio.Task[int]"]) -> None:
    for task in work:
        if task.done():
            task.result()


async def _until_acknowledged(store: Path) -> None:
    """An agent forgets a task when the acknowledgement of its last update is on disk."""
    give_up_at = time.monotonic() + 30.0
    with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as db:
        while db.execute("SELECT count(*) FROM records WHERE key GLOB 'agents/*/tasks/*'").fetchone()[0]:
            assert time.monotonic() < give_up_at, "acknowledgements did not reach the agents"
            await asyncio.sleep(0.005)
