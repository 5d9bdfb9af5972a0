"""Many agents in one process that only speak: the real wire and its frames, no core and no journal behind it.

`python -m tests.bench.light_agents --master URL --agents N [--hold SECONDS] [--resources TEXT]`. Every task passes
STARTING (unless it asks to leave that out), RUNNING and, after `hold`, FINISHED; what follows at once leaves together.
At the end of its standard input it prints how many frames came and went, and ends.
"""

import argparse
import asyncio
import math
import sys
import time
from random import Random

import msgspec
import uvloop

from corral.agent.link import Link
from corral.agent.spec import Connected, Disconnected, Ordered
from corral.lib.ids import mint_uuid_bytes
from corral.lib.log import configure_log
from corral.model.agent import AgentInfo
from corral.model.flags import parse_resources
from corral.model.ids import AgentId
from corral.model.orders import (
    AcknowledgeUpdate,
    Ping,
    Pong,
    Refused,
    Register,
    Registered,
    Report,
    RunTask,
    UpdateTask,
)
from corral.model.task import Source, TaskState, TaskStatus
from corral.runtime.service import relax_collector

RESOURCES = "cpus:64;mem:262144;ports:[31000-32000]"
STEPS = (TaskState.STARTING, TaskState.RUNNING, TaskState.FINISHED)


class Counts(msgspec.Struct):
    orders: int = 0
    reports: int = 0
    acknowledged: int = 0


class LightAgent:
    def __init__(self, number: int, master: str, hold_s: float, resources: str, counts: Counts) -> None:
        self._random = Random(number)
        self._hold_s = hold_s
        self._counts = counts
        self._id: AgentId | None = None
        self._info = AgentInfo(
            hostname=f"light{number}", port=1, ip="127.0.0.1", resources=parse_resources(resources),
            runtimes=("process",),
        )  # fmt: skip
        self.link = Link([master], self._random, self.tell)
        self.link.connect()

    def tell(self, input: Connected | Disconnected | Ordered) -> None:
        match input:
            case Connected():
                info = msgspec.structs.replace(self._info, id=self._id)
                self.link.send([Register(info)])
            case Ordered(_, order):
                self._counts.orders += 1
                match order:
                    case Registered():
                        self._id = order.agent_id
                    case RunTask():
                        self._run(order)
                    case AcknowledgeUpdate():
                        self._counts.acknowledged += 1
                    case Ping():
                        self._send(Pong())
                    case Refused():
                        raise RuntimeError(order.why)
                    case _:
                        raise RuntimeError(f"unexpected order {order}")
            case _:
                pass

    def _run(self, order: RunTask) -> None:
        if not order.info.omits_starting:
            self._report(order, 0)
        self._report(order, 1)
        if self._hold_s == math.inf:
            return
        if self._hold_s:
            asyncio.get_running_loop().call_later(self._hold_s, self._report, order, 2)
        else:
            self._report(order, 2)

    def _report(self, order: RunTask, step: int) -> None:
        status = TaskStatus(
            task_id=order.info.task_id, state=STEPS[step], at=time.time(), source=Source.EXECUTOR, agent_id=self._id,
            uuid=mint_uuid_bytes(self._random),
        )  # fmt: skip
        assert order.framework.id is not None
        self._send(UpdateTask(order.framework.id, status, STEPS[step]))

    def _send(self, report: Report) -> None:
        self._counts.reports += 1
        self.link.send([report])


async def run_agents(options: argparse.Namespace) -> None:
    counts = Counts()
    agents = [LightAgent(n, options.master, options.hold, options.resources, counts) for n in range(options.agents)]
    work = [asyncio.create_task(agent.link.run()) for agent in agents]
    ended = asyncio.create_task(asyncio.to_thread(sys.stdin.buffer.read))
    done, _ = await asyncio.wait([ended, *work], return_when=asyncio.FIRST_COMPLETED)
    for task in work:
        task.cancel()
    await asyncio.wait(work)
    for task in done:
        task.result()
    times = time.process_time()
    print(msgspec.json.encode({**msgspec.structs.asdict(counts), "cpu_s": times}).decode(), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.bench.light_agents", description=__doc__)
    parser.add_argument("--master", required=True)
    parser.add_argument("--agents", type=int, default=100)
    parser.add_argument("--hold", type=float, default=0.0)
    parser.add_argument("--resources", default=RESOURCES)
    options = parser.parse_args()
    configure_log("text", "error")
    relax_collector()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run_agents(options))


if __name__ == "__main__":
    main()
