"""Many agents that already run tasks, in a process of their own: the wire of the link over real sockets, by hand.

`python -m tests.bench.known_agents --master URL --agents N --tasks N`. Each agent waits at the master with its first
half and opens the second, on which it tells what it runs, as soon as its session is taken; words and frames are those
of `agent/link.py`, written down before. A line goes to standard output when all wait, and one when all are registered.
Ends at the end of its standard input.
"""

import argparse
import asyncio
import contextlib
import sys
from collections.abc import Coroutine
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import uvloop

from corral.agent.link import FIRST_DELAY_S, MOST_DELAY_S, WAIT_S
from corral.lib.backoff import grow_delay_s
from corral.lib.log import configure_log
from corral.model.agent import AgentInfo
from corral.model.flags import parse_resources
from corral.model.framework import Capability, FrameworkInfo
from corral.model.ids import AgentId, FrameworkId, TaskId
from corral.model.orders import AgentTask, Register
from corral.model.task import CommandInfo, Source, TaskInfo, TaskState, TaskStatus
from corral.net.follower import WAIT
from corral.net.stream import CONTENT_TYPE, ORDERS_PATH, REPORTS_PATH, pack
from corral.runtime.service import relax_collector
from corral.standalone.limits import raise_open_files

FRAMEWORK = FrameworkInfo(
    user="bench", name="known", id=FrameworkId("known"), roles=("known",), failover_timeout_s=1e6, checkpoint=True,
    capabilities=(Capability.MULTI_ROLE, Capability.PARTITION_AWARE),
)  # fmt: skip
SHAPE = parse_resources("cpus:1;mem:256")
ROOM = parse_resources("cpus:64;mem:262144;ports:[31000-32000]")


def agent_info(number: int) -> AgentInfo:
    return AgentInfo(hostname=f"known{number}", port=5051, resources=ROOM, id=agent_id(number), runtimes=("process",))


def agent_id(number: int) -> AgentId:
    return AgentId(f"known-S{number}")


def task_id(number: int, index: int) -> TaskId:
    return TaskId(f"task.{number}.{index}")


def register(number: int, tasks: int) -> Register:
    found = []
    for index in range(tasks):
        id = task_id(number, index)
        info = TaskInfo(
            task_id=id, name="t", agent_id=agent_id(number), resources=SHAPE, command=CommandInfo(value="true")
        )
        status = TaskStatus(
            task_id=id, state=TaskState.RUNNING, agent_id=agent_id(number), at=1.0, source=Source.EXECUTOR
        )
        found.append(AgentTask(info, FrameworkId("known"), "known", TaskState.RUNNING, status))
    return Register(agent_info(number), tuple(found), (FRAMEWORK,))


class Crowd:
    """All agents of the process. Shapes: `connected` and `registered` count them."""

    def __init__(self, master: str, agents: int, tasks: int) -> None:
        parts = urlsplit(master)
        self.host, self.port = parts.hostname or "", parts.port or 80
        self.reports = [pack([register(number, tasks)]) for number in range(agents)]
        self.agents = agents
        self.connected = 0
        self.registered = 0

    async def dial(self, number: int, tries: int = 0) -> None:
        """Shapes: who was turned away waits as a link does before it dials again."""
        loop = asyncio.get_running_loop()
        while True:
            if tries:
                await asyncio.sleep(grow_delay_s(tries, first_s=FIRST_DELAY_S, factor=2.0, most_s=MOST_DELAY_S))
            with contextlib.suppress(OSError):
                await loop.create_connection(partial(Orders, self, number, tries), self.host, self.port)
                return
            tries += 1

    def head(self, method: str, path: str, session: str, *lines: str) -> bytes:
        host = f"Host: {self.host}:{self.port}"
        return "\r\n".join([f"{method} {path}?session={session} HTTP/1.1", host, *lines, "", ""]).encode()


class Orders(asyncio.Protocol):
    """The first half of one agent's session."""

    def __init__(self, crowd: Crowd, number: int, tries: int) -> None:
        self._crowd, self._number, self._tries = crowd, number, tries
        self._session = f"{number}-{tries}"
        self._got = b""
        self._is_taken = self._is_registered = False

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._crowd.connected += self._tries == 0
        transport.write(
            self._crowd.head("GET", ORDERS_PATH, self._session, f"Accept: {CONTENT_TYPE}", f"{WAIT}: wait={WAIT_S}")
        )

    def data_received(self, data: bytes) -> None:
        if not self._is_taken:
            self._got += data
            head, end, data = self._got.partition(b"\r\n\r\n")
            if not end:
                return
            if head[9:12] != b"200":
                self._transport.close()
                return
            self._is_taken = True
            self._tell()
        if data and not self._is_registered:
            self._is_registered = True
            self._crowd.registered += 1
            if self._crowd.registered == self._crowd.agents:
                print("registered", flush=True)

    def connection_lost(self, why: Exception | None) -> None:
        if not self._is_taken:
            keep(self._crowd.dial(self._number, self._tries + 1))

    def _tell(self) -> None:
        crowd, session, report = self._crowd, self._session, self._crowd.reports[self._number]

        class Reports(asyncio.Protocol):
            def connection_made(self, transport: Any) -> None:
                lines = (f"Content-Type: {CONTENT_TYPE}", "Transfer-Encoding: chunked")
                head = crowd.head("POST", REPORTS_PATH, session, *lines)
                transport.write(head + b"%x\r\n%b\r\n" % (len(report), report))

        keep(asyncio.get_running_loop().create_connection(Reports, crowd.host, crowd.port))


_kept: set["asyncio.Task[Any]"] = set()


def keep(work: Coroutine[Any, Any, Any]) -> None:
    """Let it be done aside."""
    task = asyncio.ensure_future(work)
    _kept.add(task)
    task.add_done_callback(_kept.discard)


async def run_agents(master: str, agents: int, tasks: int) -> None:
    crowd = Crowd(master, agents, tasks)
    for start in range(0, agents, 100):
        await asyncio.gather(*(crowd.dial(number) for number in range(start, min(start + 100, agents))))
    print("waiting", flush=True)
    await asyncio.to_thread(sys.stdin.buffer.read)


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.bench.known_agents", description=__doc__)
    parser.add_argument("--master", required=True)
    parser.add_argument("--agents", type=int, default=100)
    parser.add_argument("--tasks", type=int, default=10)
    options = parser.parse_args()
    configure_log("text", "warning")
    raise_open_files()
    relax_collector()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run_agents(options.master, options.agents, options.tasks))


if __name__ == "__main__":
    main()
