"""Many agents that already run tasks, in a process of their own: the real link over real sockets, nothing behind it.

`python -m tests.bench.known_agents --masters URLS --agents N --tasks N`. Each agent tells what it runs as soon as a
master takes its session. A line goes to standard output when all have dialled, and one when all are registered. Ends at
the end of its standard input.
"""

import argparse
import asyncio
import sys
from random import Random
from typing import Any

import uvloop

from corral.agent.link import Link
from corral.agent.spec import Connected, Ordered
from corral.lib.log import configure_log
from corral.model.agent import AgentInfo
from corral.model.flags import parse_resources
from corral.model.framework import Capability, FrameworkInfo
from corral.model.ids import AgentId, FrameworkId, TaskId
from corral.model.orders import AgentTask, Register, Registered
from corral.model.task import CommandInfo, Source, TaskInfo, TaskState, TaskStatus
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


async def run_agents(masters: list[str], agents: int, tasks: int) -> None:
    registered = 0
    work: list[asyncio.Task[None]] = []

    def make(number: int) -> Link:
        link = Link(masters, Random(number))

        def tell(input: Any) -> None:
            nonlocal registered
            match input:
                case Connected():
                    link.send([register(number, tasks)])
                case Ordered(order=Registered()):
                    registered += 1
                    if registered == agents:
                        print("registered", flush=True)

        link.tell = tell
        link.connect()
        return link

    for number in range(agents):
        work.append(asyncio.create_task(make(number).run()))
        if number % 100 == 99:
            await asyncio.sleep(0.02)
    print("dialled", flush=True)
    ended = asyncio.create_task(asyncio.to_thread(sys.stdin.buffer.read))
    done, _ = await asyncio.wait([ended, *work], return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()
    for task in work:
        task.cancel()
    await asyncio.wait(work)


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.bench.known_agents", description=__doc__)
    parser.add_argument("--masters", required=True)
    parser.add_argument("--agents", type=int, default=100)
    parser.add_argument("--tasks", type=int, default=10)
    options = parser.parse_args()
    configure_log("text", "warning")
    raise_open_files()
    relax_collector()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run_agents(options.masters.split(","), options.agents, options.tasks))


if __name__ == "__main__":
    main()
