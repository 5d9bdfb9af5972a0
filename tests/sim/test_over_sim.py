"""Oversubscription through the simulated wire: estimated, offered, used, and ended when it turns out to be too much."""

from collections.abc import Iterable, Sequence
from random import Random
from typing import Any

from corral.agent.spec import AgentConfig
from corral.model import calls, events
from corral.model.execution import Execution
from corral.model.framework import Capability, FrameworkInfo
from corral.model.ids import TaskId
from corral.model.offer import Filters, Offer
from corral.model.resources import ResourceKind
from corral.model.task import CommandInfo, Reason, TaskInfo, TaskState, TaskStatus
from corral.runtime.core import Core, Effect
from corral.sdk.effects import Call
from corral.sdk.scheduler import Session
from corral.sim.cluster import Cluster
from corral.sim.containers import Behaviour


class Taker:
    """Runs one task on the first offer that it gets, all of its scalars, and then looks on."""

    def __init__(self, task_id: str) -> None:
        self.task_id = TaskId(task_id)
        self.heard: list[TaskStatus] = []
        self.offered: list[Offer] = []
        self._id: Any = None

    def handle(self, input: Any, now: float) -> Sequence[Effect]:
        match input:
            case events.Subscribed():
                self._id = input.framework_id
            case events.Offers():
                return [self._answer(offer) for offer in input.offers]
            case events.Update():
                self.heard.append(input.status)
        return []

    def _answer(self, offer: Offer) -> Effect:
        first = not self.offered
        self.offered.append(offer)
        if not first:
            return Call(calls.Decline(framework_id=self._id, offer_ids=(offer.id,), filters=Filters(refuse_s=0.5)))
        scalars = tuple(r for r in offer.resources if r.kind is ResourceKind.SCALAR)
        info = TaskInfo(
            task_id=self.task_id, name=self.task_id, agent_id=offer.agent_id, resources=scalars,
            command=CommandInfo(value="work"),
        )  # fmt: skip
        launch = calls.Launch(tasks=(info,))
        return Call(calls.Accept(framework_id=self._id, offer_ids=(offer.id,), operations=(launch,)))

    def invariants(self) -> None:
        assert len({s.uuid for s in self.heard}) == len(self.heard)

    def live_tasks(self) -> Iterable[calls.ReconcileTask]:
        return []

    def is_live(self, task_id: TaskId) -> bool:
        return True


def behave(execution: Execution) -> Behaviour:
    """The owner needs one cpu for five minutes, then nearly all of its four; what runs beside it needs two."""
    if execution.task_id == "firm":
        return Behaviour(cpus=1.0, busy_after_s=300.0, busy_cpus=3.7, mem_mb=500.0)
    return Behaviour(cpus=2.0, mem_mb=100.0)


def is_revocable(offer: Offer) -> bool:
    return any(r.identity.revocable for r in offer.resources)


def test_what_a_task_leaves_unused_runs_others_until_it_needs_it() -> None:
    firm, lent, plain = Taker("firm"), Taker("lent"), Taker("plain")

    def make(core: Taker, *capabilities: Capability) -> Any:
        info = FrameworkInfo(
            user="root", name=core.task_id, roles=(core.task_id,), failover_timeout_s=3600.0,
            capabilities=(Capability.MULTI_ROLE, *capabilities),
        )  # fmt: skip

        def build(random: Random) -> Core:
            return Session(info, core, random, coarse=True)

        return build

    frameworks = {
        "firm": make(firm),
        "lent": make(lent, Capability.REVOCABLE_RESOURCES),
        "plain": make(plain),
    }
    agent = AgentConfig(hostname="", oversubscribe=True)
    cluster = Cluster(11, frameworks, agents=1, behave=behave, agent=agent)
    cluster.master.start()
    cluster.agents["agent1"].start()
    cluster.frameworks["firm"].start()
    assert cluster.run(60.0, lambda: cluster.running() == ["firm"])
    for name in ("lent", "plain"):
        cluster.frameworks[name].start()
    cluster.run(50.0)
    assert cluster.running() == ["firm"], "a task is watched for a minute first"
    assert cluster.run(60.0, lambda: cluster.running() == ["firm", "lent"])
    took = lent.offered[0]
    assert is_revocable(took)
    cpus = sum(r.milli for r in took.resources if r.name == "cpus")
    assert 2400 <= cpus <= 2600, "four, less the one that is used, less a tenth of what is held"
    cluster.run(120.0)
    assert cluster.running() == ["firm", "lent"], "three of four cpus are no pressure"
    assert cluster.run(200.0, lambda: cluster.running() == ["firm"])
    cluster.run(60.0)
    last = lent.heard[-1]
    assert (last.state, last.reason) == (TaskState.KILLED, Reason.CONTAINER_PREEMPTED)
    assert cluster.running() == ["firm"]
    assert [s.state for s in firm.heard if s.state is not TaskState.STARTING] == [TaskState.RUNNING]
    assert not any(is_revocable(offer) for offer in (*firm.offered, *plain.offered))
    assert not any(r.name == "cpus" for offer in plain.offered for r in offer.resources)
    state = cluster.master.core.state  # type: ignore[attr-defined]
    (entry,) = state.agents.values()
    assert not any(r.name == "cpus" and r.identity.revocable for r in entry.info.resources), "nothing is left to lend"
