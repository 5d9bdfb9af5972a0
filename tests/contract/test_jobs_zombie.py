"""A leader that lost its session and does not know it: jobs are not queued for ever, and none runs twice.

What a large video site told of Chronos: such a leader stayed registered, the next one got no offers, and a restart by
hand was the cure. Source: Chronos' contract, section 7, faults 1 and 2.
"""

import asyncio
from collections import Counter
from random import Random
from typing import Any

import aiohttp
import pytest
from test_leader_masters import TTL_S, Master, masters, until

from corral.agent.link import Link
from corral.agent.spec import Connected, Disconnected, Ordered
from corral.lib.ids import mint_uuid_bytes
from corral.model.agent import AgentInfo
from corral.model.flags import parse_resources
from corral.model.ids import AgentId
from corral.model.orders import AcknowledgeUpdate, Ping, Pong, Register, Registered, RunTask, UpdateTask
from corral.model.task import Source, TaskState, TaskStatus
from corral.runtime.election import LEADERSHIP_LOST
from corral.standalone.daemons import STORE_FAILED

pytestmark = pytest.mark.paced

MARKED = {"Corral-Forwarded": "http://another:1"}


class Agent:
    """One that runs nothing and says of each task that it ran and ended well. Shapes: `ran` are task ids in order."""

    def __init__(self, urls: list[str]) -> None:
        self.random = Random(1)
        self.id: AgentId | None = None
        self.ran: list[str] = []
        self.epochs: list[int] = []
        self.unacknowledged: dict[tuple[str, bytes], UpdateTask] = {}
        self.link = Link(urls, self.random, self.tell)
        self.link.connect()
        self.task = asyncio.create_task(self.link.run())

    def tell(self, input: Connected | Disconnected | Ordered) -> None:
        match input:
            case Connected():
                info = AgentInfo(
                    id=self.id, hostname="n", port=1, ip="127.0.0.1", runtimes=("process",),
                    resources=parse_resources("cpus:4;mem:4096;disk:4096"),
                )  # fmt: skip
                self.link.send([Register(info)])
            case Ordered(_, Registered() as order):
                self.id = order.agent_id
                self.epochs.append(order.epoch)
                self.link.send(list(self.unacknowledged.values()))
            case Ordered(_, RunTask() as order):
                self.ran.append(order.info.task_id)
                for state in (TaskState.RUNNING, TaskState.FINISHED):
                    self.report(order, state)
            case Ordered(_, AcknowledgeUpdate() as order):
                self.unacknowledged.pop((order.task_id, order.uuid), None)
            case Ordered(_, Ping()):
                self.link.send([Pong()])
            case _:
                pass

    def report(self, order: RunTask, state: TaskState) -> None:
        uuid = mint_uuid_bytes(self.random)
        status = TaskStatus(
            task_id=order.info.task_id, state=state, at=0.0, source=Source.EXECUTOR, agent_id=self.id, uuid=uuid
        )
        assert order.framework.id is not None
        update = UpdateTask(order.framework.id, status, TaskState.FINISHED)
        self.unacknowledged[order.info.task_id, uuid] = update
        self.link.send([update])

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])


async def ask(http: aiohttp.ClientSession, method: str, url: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    async with http.request(method, url, json=body, headers=headers) as answer:
        return answer.status, await answer.json() if answer.status != 204 else None


async def successes(http: aiohttp.ClientSession, leader: Master, name: str) -> int:
    status, found = await ask(http, "GET", f"{leader.url}/v1/scheduler/job/{name}")
    return int(found["successCount"]) if status == 200 else -1


async def count_to(http: aiohttp.ClientSession, leader: Master, name: str, count: int) -> None:
    async with asyncio.timeout(20.0):
        while await successes(http, leader, name) < count:
            await asyncio.sleep(0.05)


async def test_jobs_go_on_under_the_next_leader_while_the_zombie_believes_it_leads_and_after_it_wakes() -> None:
    async with aiohttp.ClientSession() as http, masters(3) as all_of_them:
        zombie, *others = all_of_them
        agent = Agent([one.url for one in all_of_them])
        try:
            body = {"name": "tick", "command": "true", "cpus": 0.1, "mem": 16, "disk": 1, "schedule": "R//PT1S"}
            assert (await ask(http, "POST", f"{zombie.url}/v1/scheduler/iso8601", body))[0] == 204
            await count_to(http, zombie, "tick", 2)
            zombie.freeze()
            await until(lambda: any(one.reign.serves for one in others), TTL_S + 8.0)
            (leader,) = [one for one in others if one.reign.serves]
            before = await successes(http, leader, "tick")
            assert before >= 2, "what the zombie had recorded is known"
            # Nobody has restarted anything: the new leader has offers, and the job is no longer queued.
            await count_to(http, leader, "tick", before + 2)
            rows = (await ask(http, "GET", f"{leader.url}/corral/v1/frameworks"))[1]["frameworks"]
            assert Counter(row["name"] for row in rows) == {"services": 1, "cron": 1}
            # Whether it looks at its lease or writes first: it ends, and nothing of it is written.
            assert await zombie.wake() in (LEADERSHIP_LOST, STORE_FAILED)
            await count_to(http, leader, "tick", before + 4)
        finally:
            await agent.stop()
        assert len(set(agent.ran)) == len(agent.ran), "an attempt was started twice"
        dues = Counter(task_id.split(":")[1] for task_id in agent.ran)
        assert max(dues.values()) == 1, f"a firing was run twice: {dues}"
        assert agent.epochs == sorted(agent.epochs)


@pytest.mark.parametrize("prefix", ["/scheduler", "/v1/scheduler"])
async def test_requests_about_jobs_never_go_in_circles(prefix: str) -> None:
    """Two that take each other for the leader answer at once, to reads and to writes; a marked request goes nowhere."""
    body = {"name": "x", "command": "true", "schedule": "R/2040-01-01T00:00:00Z/P1D"}
    async with aiohttp.ClientSession() as http, masters(3) as (first, second, third):
        for one, other in ((second, third), (third, second)):
            one.reign.url = lambda other=other: other.url  # type: ignore[method-assign,misc]
        async with asyncio.timeout(3.0):
            for method, path, sent in (("GET", "/jobs", None), ("POST", "/iso8601", body), ("DELETE", "/job/x", None)):
                status, said = await ask(http, method, second.url + prefix + path, sent)
                assert status == 503, path
                assert third.url in str(said)
            assert (await ask(http, "GET", f"{third.url}{prefix}/jobs", None, **MARKED))[0] == 503
        assert (await ask(http, "GET", f"{first.url}{prefix}/jobs"))[1] == [], "nothing came through"
