"""Jobs from the batch API to agents and back with nothing decided on their way: what frames and records alone cost.

The same doors, loop, store and agents as in `bench_batch`: a request's jobs are a record, each job's launch and end are
one each, an order leaves for each, and each update is acknowledged. No queue, no offer, no account: the next job is for
the next agent. What corral does in this time beside it is decide.
"""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.bench.processes import spawn

from corral.frameworks.batch.admission import Admitted
from corral.frameworks.batch.ids import write_head, write_id
from corral.frameworks.batch.routes import routes as batch_routes
from corral.frameworks.batch.spec import Bundle, Config, JobSpec, JobState, Progress, Submit
from corral.master.effects import SendOrder
from corral.master.link_routes import LinkDoors
from corral.master.shell import MasterShell
from corral.master.spec import AgentReported
from corral.model.framework import FrameworkInfo
from corral.model.ids import AgentId, FrameworkId, TaskId
from corral.model.ledger import charged
from corral.model.orders import AcknowledgeUpdate, Register, Registered, RunTask, UpdateTask
from corral.model.resources import scalar
from corral.model.task import TERMINAL, CommandInfo, Label, TaskInfo
from corral.net.routes import RawRoute
from corral.net.server import Server, bind
from corral.net.stream import ORDERS_PATH, REPORTS_PATH
from corral.runtime.core import Asked, Effect, Persist, Reply
from corral.runtime.loop import Loop
from corral.sdk.feed import Feed
from corral.store.sqlite import open_sqlite

GIVE_UP_S = 300.0
ROLE = "batch"
FRAMEWORK = FrameworkInfo(user="root", name="batch", id=FrameworkId("undecided"), roles=(ROLE,))
RESOURCES = charged((scalar("cpus", 0.1), scalar("mem", 64.0)), ROLE)


class Undecided:
    """A core that passes jobs on to the agents in turn."""

    def __init__(self) -> None:
        self.sessions: list[str] = []
        self.submitted = self.ended = self._requests = 0

    def invariants(self) -> None: ...

    def handle(self, input: Any, now: float) -> Sequence[Effect]:
        match input:
            case Asked(ask, Submit(jobs=jobs)):
                return self._submit(ask, jobs, now)
            case AgentReported(session, reports):
                return [effect for each in reports for effect in self._report(session, each, now)]
        return []

    def _submit(self, ask: int, jobs: tuple[JobSpec, ...], now: float) -> list[Effect]:
        self._requests += 1
        head = write_head(now, self._requests)
        ids = [write_id(head, place, "000000") for place in range(len(jobs))]
        effects: list[Effect] = [Persist(f"bundle/{self._requests:012x}", Bundle(at=now, salt=0, jobs=jobs))]
        effects.append(
            Reply(ask, Admitted(ids=tuple(ids), states=(JobState.QUEUED,) * len(ids), duplicates=frozenset()))
        )
        for job_id, spec in zip(ids, jobs, strict=True):
            self.submitted += 1
            effects.append(Persist(f"job/{job_id}", _progress(JobState.STARTING, now)))
            session = self.sessions[self.submitted % len(self.sessions)]
            effects.append(SendOrder(session, RunTask(1, FRAMEWORK, ROLE, _task(job_id, spec))))
        return effects

    def _report(self, session: str, report: Any, now: float) -> list[Effect]:
        match report:
            case Register():
                self.sessions.append(session)
                return [SendOrder(session, Registered(1, AgentId(session), 15.0))]
            case UpdateTask(framework_id, status):
                order = AcknowledgeUpdate(1, framework_id, status.task_id, status.uuid or b"")
                effects: list[Effect] = [SendOrder(session, order)]
                if status.state in TERMINAL:
                    self.ended += 1
                    job_id = status.task_id.rpartition(".")[0]
                    effects.append(Persist(f"job/{job_id}", _progress(JobState.SUCCEEDED, now)))
                return effects
        return []


def _progress(state: JobState, now: float) -> Progress:
    return Progress(
        state=state, attempt=1, token=1, agent_id="undecided-S1", hostname="light1", address="127.0.0.1:1",
        queued_at=now, launched_at=now,
    )  # fmt: skip


def _task(job_id: str, spec: JobSpec) -> TaskInfo:
    task_id = TaskId(f"{job_id}.1")
    environment = (
        ("CORRAL_JOB_ID", job_id), ("CORRAL_ATTEMPT", "1"), ("CORRAL_OWNER", spec.owner),
        ("CORRAL_FENCING_TOKEN", "1"), ("MESOS_TASK_ID", task_id), ("HOST", "light1"),
    )  # fmt: skip
    return TaskInfo(
        task_id=task_id, name="batch", agent_id=AgentId("undecided-S1"), resources=RESOURCES,
        command=CommandInfo(value=spec.command, environment=environment),
        labels=(Label(key="corral.job", value=job_id),), omits_starting=True,
    )  # fmt: skip


async def pass_on(directory: Path, jobs: int, agents: int) -> tuple[float, float]:
    """Jobs a second from the first request to the last durable end, and processor time of the master's process.

    Units: jobs/s, microseconds a job.
    """
    store = await open_sqlite(str(directory / "undecided.db"))
    core, shell = Undecided(), MasterShell()
    loop = Loop(core, shell, store, prefix="undecided/")
    shell.attach(loop)
    links = LinkDoors(loop, shell)
    doors = [
        RawRoute(method="GET", path=ORDERS_PATH, handler=links.hold_orders),
        RawRoute(method="POST", path=REPORTS_PATH, handler=links.take_reports),
        *batch_routes(Config(), Feed(), loop.ask),
    ]
    server = Server(doors, bind("127.0.0.1", 0))
    work = asyncio.create_task(loop.run())
    voices = None
    try:
        await loop.ready.wait()
        await server.start()
        voices = spawn("tests.bench.light_agents", "--master", server.url, "--agents", str(agents))
        async with asyncio.timeout(GIVE_UP_S):
            while len(core.sessions) < agents:
                await asyncio.sleep(0.05)
            used = time.process_time()
            answers = str(directory / "undecided.json")
            load = spawn("tests.bench.batch_load", "--url", server.url, "--jobs", str(jobs), "--out", answers)
            while not core.submitted:
                await asyncio.sleep(0.001)
            begun = time.perf_counter()
            while core.ended < jobs:
                await asyncio.sleep(0.02)
        took_s, cpu_s = time.perf_counter() - begun, time.process_time() - used
        assert await asyncio.to_thread(load.wait, 60) == 0, "who submits has failed"
    finally:
        if voices is not None:
            await asyncio.to_thread(voices.communicate, "")
        work.cancel()
        await asyncio.wait([work])
        await server.close()
        await store.close()
    return jobs / took_s, cpu_s / jobs * 1e6
