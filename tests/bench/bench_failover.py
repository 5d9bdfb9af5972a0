"""How long a cluster is without its head, and how soon a new one knows everything again.

1. A standby becomes the leader while 10,000 agents with 100,000 tasks wait for it, until it knows all of them and a
   framework has been answered for each of its tasks: once with their frames handed over in its own process, as Mesos'
   figures were found, and once with each agent at its socket, from another process.
2. Three real masters on a real etcd: the leader is killed; until a write is taken by another.
3. An agent with 100 running tasks is killed and started again, until it has all of them.
"""

import asyncio
import http.client
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

import uvloop
from tests.bench.dev_cluster import CORRAL
from tests.bench.known_agents import FRAMEWORK, agent_id, agent_info, register, task_id
from tests.bench.report import Measure
from tests.etcd_servers import Etcd, free_ports

from corral.lib.log import configure_log
from corral.master.spec import AgentOpened, AgentRecord, AgentReported, FrameworkRecord
from corral.model import calls, events
from corral.model.ids import TaskId
from corral.model.orders import Report
from corral.model.task import TaskState
from corral.net.server import Server, bind
from corral.net.stream import FrameReader, pack
from corral.runtime.core import Effect, encode_record
from corral.runtime.election import Candidate, leader_key
from corral.runtime.leader import Election, Tenure
from corral.runtime.notes import Notes
from corral.runtime.renewal import Renewal
from corral.runtime.service import relax_collector, run_services
from corral.sdk.framework import Framework, FrameworkService
from corral.sdk.local import LocalTransport
from corral.standalone.config import Config, KernelSection
from corral.standalone.limits import raise_open_files
from corral.standalone.parts import MasterPart, Recording
from corral.standalone.reign import Leading, Reign
from corral.store.memory import MemoryStore
from corral.store.sqlite import open_sqlite

AGENTS, TASKS_EACH = 10_000, 10
KNOWN_BUDGET_S = 3.0
TTL_S = 3.0
WRITE_BUDGET_S = TTL_S + 3.0
RUNNING = 100
AGENT_BUDGET_S = 2.0


class KnowingCore:
    """A framework that has tasks from before. Shapes: `left` have not been answered for."""

    def __init__(self, agents: int, tasks: int) -> None:
        self.left = {task_id(n, i): agent_id(n) for n in range(agents) for i in range(tasks)}
        self._tasks = [calls.ReconcileTask(task_id=id, agent_id=agent) for id, agent in self.left.items()]

    def handle(self, input: Any, now: float) -> Sequence[Effect]:
        if isinstance(input, events.Update):
            self.left.pop(input.status.task_id, None)
        return []

    def invariants(self) -> None: ...

    def live_tasks(self) -> Iterable[calls.ReconcileTask]:
        return self._tasks

    def is_live(self, task_id: TaskId) -> bool:
        return True


def measure(*, short: bool) -> list[Measure]:
    return [_measure_known(short, links=False), _measure_known(short, links=True), *_measure_killed(short)]


def _measure_known(short: bool, *, links: bool) -> Measure:
    agents = 200 if short else AGENTS
    if links:
        # Each has two connections, whose other ends are files of another process.
        agents = min(agents, (resource.getrlimit(resource.RLIMIT_NOFILE)[1] - 1000) // 2)
    found = [_time_take_over(agents, links=links) for _ in range(1 if short or links else 3)]
    known_s, told_s = sorted(found, key=max)[len(found) // 2]
    how = "over a socket each" if links else "whose frames are handed over in memory"
    note = f"{agents:,} simulated agents {how} with {agents * TASKS_EACH:,} tasks, from the leadership on; "
    note += f"all registered after {known_s:.1f} s, a framework has been told of its last task after {told_s:.1f} s"
    return Measure(
        name="new leader until all is reconciled" + (", real links" if links else ""), unit="s",
        runs=tuple(map(max, found)), budget=None if short or links else KNOWN_BUDGET_S, note=note,
    )  # fmt: skip


def _time_take_over(agents: int, *, links: bool) -> tuple[float, float]:
    """Seconds until all agents are known, and until the framework is."""
    with (
        tempfile.TemporaryDirectory(prefix="corral-bench-") as directory,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        (Path(directory) / "master.log").open("w") as log,
    ):
        configure_log("json", "warning", log)
        try:
            return runner.run(_take_over(Path(directory), agents, links=links))
        finally:
            configure_log("text", "warning")


async def _take_over(directory: Path, agents: int, *, links: bool) -> tuple[float, float]:
    raise_open_files()
    relax_collector()
    shared = MemoryStore()
    records = {f"master/agents/{agent_id(n)}": encode_record(AgentRecord(info=agent_info(n))) for n in range(agents)}
    records["master/frameworks/known"] = encode_record(FrameworkRecord(info=FRAMEWORK))
    store = await open_sqlite(str(directory / "master.db"))
    await store.commit(records)
    await shared.commit({leader_key("master"): encode_record(Candidate(id="old", url="http://127.0.0.1:9"))})
    bound = bind("127.0.0.1", 0)
    server = Server([], bound)
    began_at, core = 0.0, KnowingCore(agents, TASKS_EACH)
    part: MasterPart | None = None
    config = Config(kernel=KernelSection(compiled="no"))

    def begin(fence: Tenure) -> Leading:
        nonlocal began_at, part
        began_at = time.perf_counter()
        part = MasterPart(config, store, bound, Notes(), Recording(None))
        framework = Framework(info=FRAMEWORK, core=core, records="known/")
        service = FrameworkService(framework, LocalTransport(part.shell), store, random=Random(1))
        return Leading([part.loop, service], [part.loop, service.loop], part.routes)

    election = Election(shared, "master", Candidate(id="new", url=server.url), 10.0, Random(1))
    renewal = Renewal("master", "new", arguments=())
    reign = Reign(election, begin, server, renewal, alone=False)
    work = asyncio.create_task(run_services([reign, server], signals=False))
    crowd = _linked(server.url, agents) if links else _handed_over(agents)
    try:
        async with crowd as come:
            await shared.commit({leader_key("master"): None})
            while part is None:
                await asyncio.sleep(0.001)
            come(part)
            known_s = told_s = 0.0
            while not (known_s and told_s):
                await asyncio.sleep(0.05)
                assert not work.done(), work
                if not known_s and _knows(part, agents):
                    known_s = time.perf_counter() - began_at
                if not told_s and not core.left:
                    told_s = time.perf_counter() - began_at
    finally:
        reign.stop()
        await work
        await store.close()
    return known_s, told_s


def _knows(part: MasterPart, agents: int) -> bool:
    """Whether all have come back. Looked up where it is kept: a view of it all would cost what is measured."""
    state = part.core.state
    return state.counts["reregistrations"] == agents and state.live[TaskState.RUNNING] == agents * TASKS_EACH


@asynccontextmanager
async def _linked(url: str, agents: int) -> AsyncIterator[Callable[[MasterPart], None]]:
    """Agents that wait at the socket in a process of their own, and come by themselves."""
    command = [sys.executable, "-m", "tests.bench.known_agents", "--master", url]
    process = await asyncio.create_subprocess_exec(
        *command, "--agents", str(agents), "--tasks", str(TASKS_EACH),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert await process.stdout.readline() == b"waiting\n"
        await asyncio.sleep(1.0)
        yield lambda part: None
    finally:
        process.stdin.close()
        await process.wait()


@asynccontextmanager
async def _handed_over(agents: int) -> AsyncIterator[Callable[[MasterPart], None]]:
    """Agents that all come in one go, their frames written down before."""
    frames = [pack([register(number, TASKS_EACH)]) for number in range(agents)]
    come: list[asyncio.Task[None]] = []
    try:
        yield lambda part: come.append(asyncio.create_task(_come(part, frames)))
    finally:
        for task in come:
            task.cancel()
        await asyncio.gather(*come, return_exceptions=True)


class _Unheard:
    """What is said to an agent that only speaks."""

    def write(self, data: bytes) -> int:
        return 0


async def _come(part: MasterPart, frames: list[bytes]) -> None:
    await part.loop.ready.wait()
    async with asyncio.TaskGroup() as links:
        for number, data in enumerate(frames):
            session = f"memory{number}"
            links.create_task(part.shell.open_link(session).hold(_Unheard()))
            part.loop.tell(AgentOpened(session, "127.0.0.1"))
            part.loop.tell(AgentReported(session, tuple(FrameReader[Report](Report).feed(data))))
            if number % 10 == 0:
                await asyncio.sleep(0)


class _Process:
    def __init__(self, directory: Path, *arguments: str) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("CORRAL_")}
        self.log = (directory / f"{time.monotonic_ns()}.log").open("w+")
        self.process = subprocess.Popen([CORRAL, *arguments], stdout=self.log, stderr=self.log, env=environment)

    def url(self) -> str:
        def look() -> str:
            assert self.process.poll() is None, Path(self.log.name).read_text()[-2000:]
            found = re.search(r"^ready url=(\S+)$", Path(self.log.name).read_text(), re.MULTILINE)
            return found[1] if found else ""

        return _until(look)

    def end(self, number: int = signal.SIGTERM) -> None:
        if self.process.poll() is None:
            self.process.send_signal(number)
        self.process.wait(30)
        self.log.close()


def _until(look: Callable[[], Any], timeout_s: float = 60.0) -> Any:
    ends_at = time.monotonic() + timeout_s
    while not (found := look()):
        assert time.monotonic() < ends_at, f"waited {timeout_s:g} s"
        time.sleep(0.02)
    return found


def _ask(url: str, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=10)
    try:
        content = None if body is None else json.dumps(body)
        connection.request(method, path, content, {"Content-Type": "application/json"} if content else {})
        answer = connection.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if text[:1] in (b"{", b"[") else text
    except (OSError, http.client.HTTPException):
        return 0, None
    finally:
        connection.close()


class _Cluster:
    """Three masters over three members of etcd and one agent. Shapes: `url` is that of any master."""

    def __init__(self, directory: Path, running: int) -> None:
        self._directory = directory
        self._running = running
        self._etcd = Etcd(directory, 3)
        self.listen = [f"127.0.0.1:{port}" for port in free_ports(3)]
        self.url = f"http://{self.listen[0]}"
        self._agent_listen = f"127.0.0.1:{free_ports(1)[0]}"
        self.masters: dict[str, _Process] = {}
        self.agent: _Process | None = None

    def __enter__(self) -> "_Cluster":
        try:
            self._etcd.start()
            for address in self.listen:
                self.start_master(address)
            for one in self.masters.values():
                one.url()
            self.start_agent()
            app = {"id": "/held", "cmd": "exec sleep 100000", "cpus": 0.1, "mem": 16, "instances": self._running}
            _until(lambda: _ask(self.url, "POST", "/v2/apps", app)[0] in (201, 409))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self.agent is not None:
                _until(lambda: _ask(self.url, "DELETE", "/v2/apps//held?force=true")[0] in (200, 404))
                _until(lambda: not self.tasks())
                self.agent.end()
        finally:
            for one in self.masters.values():
                one.end(signal.SIGKILL)
            self._etcd.stop()

    def start_master(self, address: str) -> None:
        self.masters[address] = _Process(
            self._directory, "master", "--listen", address, "--work-dir", str(self._directory / address),
            "--store", self._etcd.store, "--set", f"kernel.lease_ttl_s={TTL_S}", "--set", "kernel.compiled=no",
        )  # fmt: skip

    def start_agent(self) -> None:
        self.agent = _Process(
            self._directory, "agent", "--master", ",".join(self.listen), "--listen", self._agent_listen,
            "--runtime", "process", "--work-dir", str(self._directory / "agent"),
            "--resources", "cpus:64;mem:65536;disk:65536",
        )  # fmt: skip

    def leader(self) -> str:
        def look() -> str:
            return next((a for a in self.listen if _ask(f"http://{a}", "GET", "/health/leader")[0] == 200), "")

        return str(_until(look))

    def tasks(self) -> list[dict[str, Any]]:
        """As the kernel has them from the agent."""
        found = _ask(self.url, "GET", "/corral/v1/tasks?group=/held")[1]
        tasks: list[dict[str, Any]] = found["tasks"] if isinstance(found, dict) and "tasks" in found else []
        return [task for task in tasks if task["state"] in ("TASK_STAGING", "TASK_STARTING", "TASK_RUNNING")]

    def held(self) -> list[str]:
        """All tasks by id and start, once they run."""
        found = _ask(self.url, "GET", "/v2/apps//held")[1]
        tasks = found["app"]["tasks"] if isinstance(found, dict) and "app" in found else []
        whole = len(tasks) == self._running and all(task["state"] == "TASK_RUNNING" for task in tasks)
        return sorted(f"{task['id']} {task['startedAt']}" for task in tasks) if whole else []

    def kill_leader(self, number: int) -> float:
        """Seconds until another master has taken a write."""
        leader = self.leader()
        other = next(address for address in self.listen if address != leader)
        self.masters[leader].end(signal.SIGKILL)
        begun = time.perf_counter()
        write = {"id": f"/w{number}", "cmd": "true", "instances": 0}
        _until(lambda: _ask(f"http://{other}", "POST", "/v2/apps", write)[0] == 201)
        took_s = time.perf_counter() - begun
        self.start_master(leader)
        self.masters[leader].url()
        return took_s

    def kill_agent(self) -> float:
        """Seconds from the start of its process until the master has it back, with its tasks."""
        assert self.agent is not None
        self.agent.end(signal.SIGKILL)
        begun = time.perf_counter()
        self.start_agent()
        _until(lambda: _ask(f"http://{self._agent_listen}", "GET", "/health/ready")[0] == 200)
        return time.perf_counter() - begun


def _measure_killed(short: bool) -> list[Measure]:
    """The leader killed again and again, then the agent, with the same tasks running through all of it."""
    kills, running = (1, 10) if short else (5, RUNNING)
    with tempfile.TemporaryDirectory(prefix="corral-bench-") as name, _Cluster(Path(name), running) as cluster:
        before = _until(cluster.held)
        writes = [cluster.kill_leader(number) for number in range(kills)]
        assert _until(cluster.held) == before, "a task was started again"
        agents = [cluster.kill_agent() for _ in range(kills)]
        assert _until(cluster.held) == before, "a task was started again"
    note = f"3 masters, 3 members of etcd, lease {TTL_S:g} s, {running} tasks running, none started again"
    return [
        Measure(
            name="leader killed until a write is taken", unit="s", runs=tuple(writes), budget=WRITE_BUDGET_S, note=note
        ),
        Measure(
            name=f"agent started until it has its {running} tasks again", unit="s", runs=tuple(agents),
            budget=None if short else AGENT_BUDGET_S,
            note="process tasks; from the start of its process, Python's included, until the master has it back",
        ),
    ]  # fmt: skip
