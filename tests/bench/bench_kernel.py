"""The kernel at its full size: a coarse allocation pass, the memory of a large cluster, and reads that hold up nobody.

Agents and tasks are simulated: they are what a master's core has been told. The reads go through the real server to
readers in a process of their own, while a ticker on the master's own loop notes what has run between two of its turns.
Times are processor time of the one thread that works, so that other work on the machine does not count.
"""

import asyncio
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import uvloop
from tests.bench.report import Measure

from corral.allocator.allocator import Allocator
from corral.allocator.start import choose_mode, warm
from corral.allocator.view import AgentView, FrameworkView, Settings
from corral.lib.log import configure_log
from corral.master.core import MasterCore
from corral.master.routes import routes
from corral.master.shell import MasterShell, prepare_views
from corral.master.spec import AgentOpened, AgentReported, GetCluster, MasterConfig
from corral.model.agent import AgentInfo
from corral.model.attributes import Attribute
from corral.model.framework import Capability, FrameworkInfo
from corral.model.ids import AgentId, FrameworkId, TaskId
from corral.model.orders import AgentTask, Register
from corral.model.resources import Resources, normal, ports, scalar
from corral.model.task import CommandInfo, Label, Source, TaskInfo, TaskState, TaskStatus
from corral.net.server import Server, bind
from corral.runtime.loop import Loop
from corral.runtime.service import relax_collector
from corral.store.memory import MemoryStore

ALLOCATION_BUDGET_MS = 250.0
BLOCKED_BUDGET_MS = 20.0
MEMORY_BUDGET_MB = 600.0
TASKS_PER_AGENT = 10
FRAMEWORKS = 20
READS = (
    ("GET_TASKS", "POST", "/api/v1"),
    ("GET_STATE", "POST", "/api/v1"),
    ("SUBSCRIBE", "POST", "/api/v1"),
    ("/state", "GET", "/state"),
    ("/tasks", "GET", "/tasks?limit=100000"),
    ("/state-summary", "GET", "/state-summary"),
    ("/metrics/snapshot", "GET", "/metrics/snapshot"),
)


def measure(*, short: bool) -> list[Measure]:
    agents, claimants, runs = (500, 100, 2) if short else (10_000, 1_000, 5)
    # Compiling takes longer than a short run.
    compiled = "no" if short else "auto"
    # A master never has a compiler in it: on a new node a process beside it compiles.
    warm(choose_mode(compiled))
    found = [allocate(agents, claimants, runs, compiled)]
    command = [sys.executable, "-m", "tests.bench.bench_kernel", str(agents), compiled]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    told = json.loads(done.stdout.splitlines()[-1])
    what = f"{agents} agents and {agents * TASKS_PER_AGENT} tasks, simulated"
    found.append(
        Measure(name="memory of a master", unit="MB", runs=(told["memory_mb"],), budget=MEMORY_BUDGET_MB, note=what)
    )
    for name, _, _ in READS:
        late_ms, took_s, size_mb = told["reads"][name]
        note = f"{size_mb:.1f} MB in {took_s:.2f} s, with {what}"
        found.append(
            Measure(name=f"loop held up by {name}", unit="ms", runs=(late_ms,), budget=BLOCKED_BUDGET_MS, note=note)
        )
    return found


# The allocation pass.


def allocate(agents: int, claimants: int, runs: int, compiled: str) -> Measure:
    """A whole pass over an empty cluster: every agent is offered to somebody."""
    allocator = Allocator(Settings(), choose_mode(compiled))
    for n in range(agents):
        allocator.set_agent(
            AgentView(
                id=AgentId(f"S{n}"), hostname=f"h{n}", total=_bundle(8, 16384, (31000, 32000)),
                attributes={"rack": f"r{n % 50}"}, runtimes=("process",),
            )
        )  # fmt: skip
    for n in range(claimants):
        allocator.set_framework(FrameworkView(id=FrameworkId(f"F{n}"), coarse_roles=(f"role{n}",)))
    took: list[float] = []
    relax_collector()
    for n in range(runs + 1):
        began = time.thread_time()
        found = allocator.run(float(n), n, 1000)
        took.append((time.thread_time() - began) * 1000)
        assert len(found.grants) == agents, f"{len(found.grants)} of {agents} agents were offered"
        for grant in found.grants:
            allocator.release(grant.key)
        allocator.book.flush()
    note = f"{claimants} frameworks on as many roles, {agents} agents, simulated; without the first pass"
    return Measure(
        name="coarse allocation pass", unit="ms", runs=tuple(took[1:]), budget=ALLOCATION_BUDGET_MS, note=note
    )


def _bundle(cpus: float, mem: float, *ranges: tuple[int, int]) -> Resources:
    return normal([scalar("cpus", cpus), scalar("mem", mem), ports(*ranges)])


# The master of a large cluster, in a process of its own.


def registrations(agents: int) -> Iterator[tuple[str, Register]]:
    """Every agent with its tasks, as a new master hears of them."""
    frameworks = tuple(
        FrameworkInfo(
            user="bench", name=f"f{n}", id=FrameworkId(f"F{n}"), roles=(f"role{n}",), failover_timeout_s=1e6,
            capabilities=(Capability.MULTI_ROLE, Capability.PARTITION_AWARE),
        )
        for n in range(FRAMEWORKS)
    )  # fmt: skip
    for n in range(agents):
        agent_id = AgentId(f"S{n}")
        tasks = []
        for k in range(TASKS_PER_AGENT):
            framework = frameworks[(n + k) % FRAMEWORKS]
            info = TaskInfo(
                task_id=TaskId(f"web.{n}-{k}"), name=f"web-{k}", agent_id=agent_id,
                resources=_bundle(0.1, 128, (31000 + k, 31000 + k)),
                command=CommandInfo(value="exec python -m http.server $PORT0"),
                labels=(Label(key="app", value="web"),),
            )  # fmt: skip
            status = TaskStatus(
                task_id=info.task_id, state=TaskState.RUNNING, at=1000.0 + k, source=Source.EXECUTOR,
                agent_id=agent_id, uuid=(n * TASKS_PER_AGENT + k).to_bytes(16, "big"),
            )  # fmt: skip
            assert framework.id is not None
            tasks.append(AgentTask(info, framework.id, framework.roles[0], TaskState.RUNNING, status))
        info_of_agent = AgentInfo(
            id=agent_id, hostname=f"h{n}", port=4681, resources=_bundle(8, 16384, (31000, 32000)),
            attributes=(Attribute(name="rack", text=f"r{n % 100}"),), runtimes=("process",),
        )  # fmt: skip
        yield f"session-{n}", Register(info_of_agent, tuple(tasks), frameworks)


async def run_master(agents: int, compiled: str) -> dict[str, Any]:
    """What a master takes with so many agents, and how late its loop is while each view is read."""
    relax_collector()
    shell = MasterShell()
    core = MasterCore(MasterConfig(compiled=compiled, ping_s=600.0, agent_timeout_s=6000.0), Random(1))
    loop = Loop(core, shell, MemoryStore(), prefix="master/")
    shell.attach(loop)
    running = asyncio.create_task(loop.run())
    await loop.ready.wait()
    for session, register in registrations(agents):
        loop.tell(AgentOpened(session))
        loop.tell(AgentReported(session, (register,)))
        await asyncio.sleep(0)
    while loop.waiting:
        await asyncio.sleep(0.01)
    # What has been held is counted by the first allocation or view, once.
    await loop.ask(GetCluster())
    await prepare_views(loop)
    gc.collect()
    memory_mb = _memory_mb()
    server = Server(routes(loop, shell), bind("127.0.0.1", 0))
    await server.start()
    found = {name: await _read(server.port, name, method, path) for name, method, path in READS}
    await server.close()
    loop.stop()
    await running
    return {"memory_mb": memory_mb, "reads": found}


async def _read(port: int, name: str, method: str, path: str) -> tuple[float, float, float]:
    command = [sys.executable, "-m", "tests.bench.bench_kernel", "read", str(port), name, method, path]
    reader = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    assert reader.stdout is not None
    await reader.stdout.readline()  # it is connected
    latest, told = 0.0, asyncio.create_task(reader.stdout.readline())
    began = time.perf_counter()
    while not told.done():
        before = time.thread_time()
        await asyncio.sleep(0.001)
        latest = max(latest, time.thread_time() - before)
    took_s = time.perf_counter() - began
    await reader.wait()
    size = int(told.result())
    assert size > 0, f"{name} brought nothing"
    return latest * 1000, took_s, size / 1e6


def read_view(port: int, name: str, method: str, path: str) -> None:
    """Read one view to its end, or a stream to the end of its first record, and say how long it was."""
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    connection.connect()
    print("connected", flush=True)
    body = json.dumps({"type": name}) if method == "POST" else None
    connection.request(method, path, body, {"Content-Type": "application/json", "Accept": "application/json"})
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    if name == "SUBSCRIBE":
        size = int(answer.readline())
        left = size
        while left:
            left -= len(answer.read(min(left, 1 << 20)))
    else:
        size = 0
        while part := answer.read(1 << 20):
            size += len(part)
    print(size, flush=True)
    os._exit(0)


def _memory_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    if sys.argv[1] == "read":
        read_view(int(sys.argv[2]), *sys.argv[3:6])
    configure_log("text", "error")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(run_master(int(sys.argv[1]), sys.argv[2]))))
