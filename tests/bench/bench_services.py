"""Many apps of many instances through the services framework: how long until all run, and what its API and memory cost.

Three processes: the master with the framework in it, agents that are only voices on the real wire, and a client that
creates the apps over HTTP and goes on reading while they are deployed. Memory is that of a framework alone.
"""

import asyncio
import gc
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from random import Random

import uvloop
from tests.bench.bench_control_plane import light_agents, until_registered
from tests.bench.report import Measure

from corral.allocator.start import choose_mode, warm
from corral.frameworks.services import Config, ServicesCore, build
from corral.frameworks.services.command_spec import CreateApp
from corral.frameworks.services.marathon import read_app
from corral.frameworks.services.record_spec import Condition
from corral.lib.log import configure_log
from corral.master.core import MasterCore
from corral.master.routes import routes
from corral.master.shell import MasterShell
from corral.master.spec import MasterConfig
from corral.model import calls, events
from corral.model.ids import AgentId, FrameworkId, OfferId
from corral.model.offer import Offer, Want
from corral.model.resources import normal, ports
from corral.model.task import Source, TaskInfo, TaskState, TaskStatus
from corral.net.server import Server, bind
from corral.runtime.core import Asked, Effect, Loaded, Tick
from corral.runtime.loop import Loop
from corral.runtime.service import relax_collector
from corral.sdk.effects import Call
from corral.sdk.framework import FrameworkService
from corral.sdk.local import LocalTransport
from corral.store.sqlite import open_sqlite

GIVE_UP_S = 400.0
AGENT_RESOURCES = "cpus:64;mem:262144;disk:100000;ports:[31000-32000]"


def measure(*, short: bool) -> list[Measure]:
    apps, instances, agents = (20, 20, 20) if short else (1000, 100, 1000)
    compiled = "no" if short else "auto"
    warm(choose_mode(compiled))
    took_s, latencies = _deploy(apps, instances, agents, compiled)
    note = f"{apps} apps of {instances} instances on {agents} agents that are only voices"
    p99 = latencies[min(len(latencies) - 1, round(len(latencies) * 0.99))]
    p50 = latencies[len(latencies) // 2]
    kept = _measure_memory(20 if short else 200, 100)
    of = f"of {len(latencies)} requests meanwhile: creations, single apps, deployments"
    return [
        Measure(name="deployment of all apps", unit="s", runs=(took_s,), budget=None if short else 60.0, note=note),
        Measure(name="services API, p99", unit="ms", runs=(p99 * 1000,), budget=None if short else 50.0, note=of),
        Measure(name="services API, median", unit="ms", runs=(p50 * 1000,)),
        Measure(name="memory of the framework", unit="bytes an instance", runs=(kept,), budget=2048.0),
    ]


# The deployment.


def _deploy(apps: int, instances: int, agents: int, compiled: str) -> tuple[float, list[float]]:
    with (
        tempfile.TemporaryDirectory(prefix="corral-bench-") as directory,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        return runner.run(_run(Path(directory), apps, instances, agents, compiled))


async def _run(directory: Path, apps: int, instances: int, agents: int, compiled: str) -> tuple[float, list[float]]:
    relax_collector()
    with (directory / "master.log").open("w") as log:
        configure_log("json", "info", log)
        try:
            return await _run_cluster(directory, apps, instances, agents, compiled)
        finally:
            configure_log("text", "warning")


async def _run_cluster(
    directory: Path, apps: int, instances: int, agents: int, compiled: str
) -> tuple[float, list[float]]:
    store = await open_sqlite(str(directory / "master.db"))
    shell = MasterShell()
    master = Loop(MasterCore(MasterConfig(compiled=compiled), Random(1)), shell, store, prefix="master/")
    shell.attach(master)
    service = FrameworkService(build(Config(), Random(2)), LocalTransport(shell), store, random=Random(3))
    server = Server([*service.routes, *routes(master, shell)], bind("127.0.0.1", 0))
    work = [asyncio.create_task(master.run())]
    try:
        await master.ready.wait()
        await server.start()
        async with light_agents(server.url, agents, "--hold", "inf", "--resources", AGENT_RESOURCES):
            await until_registered(master, agents, work)
            work.append(asyncio.create_task(service.run()))
            await service.loop.ready.wait()
            command = [sys.executable, "-m", "tests.bench.bench_services", server.url, str(apps), str(instances)]
            client = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
            out, _ = await asyncio.wait_for(client.communicate(), GIVE_UP_S)
            assert client.returncode == 0, "the client failed"
    finally:
        for task in work:
            task.cancel()
        await asyncio.wait(work)
        await server.close()
        await store.close()
    found = json.loads(out)
    return found["took_s"], sorted(found["latencies"])


# The client, in a process of its own.


async def _drive(url: str, apps: int, instances: int) -> None:
    import aiohttp

    latencies: list[float] = []
    created = 0
    async with aiohttp.ClientSession(url) as session:

        async def ask(method: str, path: str, body: object = None) -> object:
            began = time.perf_counter()
            async with session.request(method, path, json=body) as answer:
                found = await answer.json()
                assert answer.status < 300, (path, found)
            latencies.append(time.perf_counter() - began)
            return found

        async def create(numbers: range) -> None:
            nonlocal created
            for number in numbers:
                body = {"id": f"/bench/app{number}", "cmd": "sleep 1000", "cpus": 0.1, "mem": 32}
                await ask("POST", "/v2/apps", {**body, "instances": instances, "backoffSeconds": 0})
                created += 1

        async def look(until: asyncio.Event) -> None:
            random = Random(4)
            while not until.is_set():
                if created:
                    await ask("GET", f"/v2/apps/bench/app{random.randrange(created)}")
                await asyncio.sleep(0.05)

        started = time.perf_counter()
        done = asyncio.Event()
        watching = asyncio.create_task(look(done))
        # A deployment holds a place until it is done, and there are 100 of them.
        waiting = iter(range(apps))
        while True:
            under_way = await ask("GET", "/v2/deployments")
            assert isinstance(under_way, list)
            room = min(90 - len(under_way), 30)
            numbers = [n for _, n in zip(range(max(room, 0)), waiting, strict=False)]
            for number in numbers:
                await create(range(number, number + 1))
            if not numbers and not under_way and created == apps:
                break
            await asyncio.sleep(0.05)
        took_s = time.perf_counter() - started
        done.set()
        await watching
        counts = await ask("GET", "/v2/apps")
        assert isinstance(counts, dict)
        running = sum(app["tasksRunning"] for app in counts["apps"])
        assert running == apps * instances, f"{running} of {apps * instances} run"
        latencies.pop()
    print(json.dumps({"took_s": took_s, "latencies": latencies}))


# Memory.


def _measure_memory(apps: int, instances: int) -> float:
    """Bytes per running instance of a framework alone, by what its process has grown."""
    command = [sys.executable, "-m", "tests.bench.bench_services", "memory", str(apps), str(instances)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


class _Kernel:
    """Answers a framework's calls just well enough for its instances to run."""

    def __init__(self) -> None:
        self.core = ServicesCore(Config(most_deployments=100_000), Random(1))
        self.wants: dict[str, Want] = {}
        self.launched: list[TaskInfo] = []
        self.offers = 0

    def send(self, input: object) -> None:
        for effect in self.core.handle(input, 1_700_000_000.0):
            self._perform(effect)

    def _perform(self, effect: Effect) -> None:
        if not isinstance(effect, Call):
            return
        match effect.call:
            case calls.Request(wants=wants):
                self.wants = {want.id: want for want in wants or ()}
            case calls.Accept(operations=operations):
                self.launched += [t for o in operations if isinstance(o, calls.Launch) for t in o.tasks]

    def run(self) -> int:
        """One round of offers; how many it launched."""
        made: list[Offer] = []
        for want in self.wants.values():
            for _ in range(want.count):
                self.offers += 1
                port = 31000 + self.offers % 1000
                host = self.offers % 1000
                made.append(
                    Offer(
                        id=OfferId(f"O{self.offers}"), framework_id=FrameworkId("F"), agent_id=AgentId(f"agent-{host}"),
                        hostname=f"host{host}", ip="10.0.0.1", port=4681, role=want.role, want_id=want.id,
                        resources=normal([*want.resources, ports((port, port))]),
                    )
                )  # fmt: skip
        self.send(events.Offers(offers=tuple(made)))
        while self.core.state.backlog:
            self.send(Tick("work"))
        launched, self.launched = self.launched, []
        for task in launched:
            self.send(events.Update(status=_running(task)))
        return len(launched)


def _running(task: TaskInfo) -> TaskStatus:
    # Every status comes off the wire: its texts are its own.
    return TaskStatus(
        task_id=task.task_id, state=TaskState.RUNNING, at=1_700_000_001.0 + hash(task.task_id) % 1000 / 7,
        source=Source.EXECUTOR, agent_id=AgentId("".join(task.agent_id)),
    )  # fmt: skip


def _grow(apps: int, instances: int) -> None:
    kernel = _Kernel()
    kernel.send(Loaded())
    master = events.MasterInfo(id="m", hostname="master", ip="127.0.0.1", port=4680, version="1")
    kernel.send(events.Subscribed(framework_id=FrameworkId("F"), heartbeat_interval_s=15.0, master=master))
    _settle(kernel, 2, instances)
    gc.collect()
    before, had = _resident(), _count(kernel)
    _settle(kernel, apps, instances)
    gc.collect()
    print((_resident() - before) / (_count(kernel) - had))


def _settle(kernel: _Kernel, apps: int, instances: int) -> None:
    first = len(kernel.core.state.apps)
    for number in range(first, first + apps):
        body = {"id": f"/bench/app{number}", "cmd": "sleep 1000", "cpus": 0.1, "mem": 32, "instances": instances}
        kernel.send(Asked(number, CreateApp(spec=read_app(body).spec)))
        kernel.send(Tick("work"))
        kernel.send(Tick("wants"))
        kernel.run()


def _count(kernel: _Kernel) -> int:
    return sum(app.conditions[Condition.RUNNING] for app in kernel.core.state.apps.values())


def _resident() -> int:
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * 4096


if __name__ == "__main__":
    if sys.argv[1] == "memory":
        _grow(int(sys.argv[2]), int(sys.argv[3]))
    else:
        asyncio.run(_drive(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
