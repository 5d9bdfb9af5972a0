"""Many agents in one process of their own: real cores, loops, links and journal; only the executor is fake.

`python -m tests.bench.fake_agents --master URL --directory DIR --agents N [--hold SECONDS] [--resources TEXT]`, with
journal and log in the directory. Ends at the end of its standard input.
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random

import uvloop

from corral.agent.core import AgentCore
from corral.agent.link import Link
from corral.agent.runtimes import ExecSession
from corral.agent.shell import AgentShell
from corral.agent.spec import AgentConfig
from corral.lib.clock import system_clock
from corral.lib.errors import NotFound
from corral.lib.log import configure_log
from corral.model.execution import Execution, Exit, Found, Launched
from corral.model.flags import parse_resources
from corral.runtime.loop import Loop
from corral.runtime.service import relax_collector
from corral.store.sqlite import open_sqlite

RESOURCES = "cpus:64;mem:262144;ports:[31000-32000]"


FOR_EVER_S = 86400.0


class FakeRuntime:
    """Every task starts at once and ends well after `hold_s`. Nothing survives the process."""

    name = "process"

    def __init__(self, hold_s: float) -> None:
        self._hold_s = hold_s
        self._running: set[str] = set()

    async def ready(self) -> str | None:
        return None

    async def start(self, execution: Execution) -> Launched:
        self._running.add(execution.container_id)
        return Launched(container_id=execution.container_id, pid=1)

    async def wait(self, container_id: str) -> Exit:
        if container_id not in self._running:
            raise NotFound(f"container {container_id} is not known; it was removed or never started")
        if self._hold_s:
            await asyncio.sleep(min(self._hold_s, FOR_EVER_S))
        return Exit(container_id=container_id, code=0, at=system_clock())  # type: ignore[arg-type]

    async def resize(self, container_id: str, cpu_milli: int, mem_mb: int | None) -> None: ...

    async def kill(self, container_id: str, grace_s: float) -> None:
        self._running.discard(container_id)

    async def signal(self, container_id: str, number: int) -> None: ...

    async def recover(self) -> Sequence[Found]:
        return ()

    async def remove(self, container_id: str) -> None:
        self._running.discard(container_id)

    def is_elsewhere(self, container_id: str) -> bool:
        return True

    def exec(self, container_id: str, argv: Sequence[str], *, tty: bool) -> ExecSession:
        raise NotFound("a fake task runs no commands")

    async def close(self) -> None:
        pass


async def run_agents(master: str, directory: Path, count: int, hold_s: float, text: str) -> None:
    store = await open_sqlite(str(directory / "agents.db"))
    work: list[asyncio.Task[object]] = []
    resources = parse_resources(text)
    for number in range(count):
        random = Random(number)
        link = Link([master], random)
        config = AgentConfig(hostname=f"fake{number}", resources=resources, runtimes=("process",), work_dir="/nowhere")
        shell = AgentShell({"process": FakeRuntime(hold_s)}, link)
        loop = Loop(AgentCore(config, random), shell, store, prefix=f"agents/{number}/")
        link.tell = loop.tell
        work += [asyncio.create_task(loop.run()), asyncio.create_task(link.run())]
    ended = asyncio.create_task(asyncio.to_thread(sys.stdin.buffer.read))
    done, _ = await asyncio.wait([ended, *work], return_when=asyncio.FIRST_COMPLETED)
    for task in work:
        task.cancel()
    await asyncio.wait(work)
    await store.close()
    for task in done:
        task.result()


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.bench.fake_agents", description=__doc__)
    parser.add_argument("--master", required=True)
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--agents", type=int, default=100)
    parser.add_argument("--hold", type=float, default=0.0)
    parser.add_argument("--resources", default=RESOURCES)
    options = parser.parse_args()
    with (options.directory / "agents.log").open("w") as log:
        configure_log("json", "info", log)
        relax_collector()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run_agents(options.master, options.directory, options.agents, options.hold, options.resources))


if __name__ == "__main__":
    main()
