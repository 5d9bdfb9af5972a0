"""Random worlds of reservations: links break, masters restart, operations are lost, and no amount changes."""

from random import Random
from typing import Any

import msgspec
import pytest
from master_stage import Framework, Stage, bundle, task_info
from test_master_worlds import FakeNode
from test_reserve_master import operate, reserved, volume, with_disk

from corral.master.spec import MasterConfig
from corral.model import calls
from corral.model.framework import Capability
from corral.model.ledger import stripped
from corral.model.operations import Create, Destroy, Grow, Reserve, Shrink, Unreserve, conversion, convert, is_volume
from corral.model.operator import Operate
from corral.model.orders import ApplyOperation, OperationDone, RunTask
from corral.model.resources import Resource, Resources, normal, scalar
from corral.model.task import TERMINAL, TaskState
from corral.runtime.core import Asked

CAPABILITIES = (Capability.SHARED_RESOURCES, Capability.REVOCABLE_RESOURCES, Capability.PARTITION_AWARE)


class KeepingNode(FakeNode):
    """An agent that keeps what it is ordered to reserve, as the real one does."""

    def __init__(self, stage: Stage, name: str) -> None:
        super().__init__(stage, name)
        self.agent.info = with_disk(name)
        self.have: Resources = self.agent.info.resources

    def connect(self) -> None:
        self.agent.info = msgspec.structs.replace(self.agent.info, resources=self.have)
        super().connect()

    def obey_all(self, frameworks: dict[str, Framework]) -> None:
        for order in list(self.agent.orders):
            match order:
                case ApplyOperation():
                    after = convert(self.have, conversion(order.operation))
                    assert after is not None, "the master orders only what can be"
                    self.have = after
                    self.agent.report(OperationDone(order.uuid))
                case RunTask():
                    volumes = [r for r in stripped(order.info.resources) if is_volume(r)]
                    assert all(v in self.have for v in volumes), "a task comes after the volumes it was launched on"
        self.agent.take(ApplyOperation)
        self.obey(frameworks)


def amounts(have: Resources) -> dict[str, int]:
    return {name: sum(r.milli for r in have if r.name == name) for name in ("cpus", "mem", "disk")}


def some_operation(random: Random, have: Resources, number: int) -> Any:
    """Something that may be possible with these resources."""
    kept = [r for r in have if r.identity.reservations and not r.identity.revocable]
    volumes = [r for r in kept if is_volume(r)]
    disks = [r for r in kept if r.name == "disk" and not is_volume(r)]
    match random.randrange(7):
        case 0 | 1:
            name, most = random.choice([("cpus", 1.5), ("mem", 500), ("disk", 900)])
            return Reserve(resources=(reserved(name, round(random.random() * most, 3) + 0.1),))
        case 2 if disks:
            return Create(volumes=(volume(f"v{number}", disks[0].milli / 2000, shared=random.random() < 0.5),))
        case 3 if volumes:
            return Destroy(volumes=(random.choice(volumes),))
        case 4 if volumes and disks:
            half = Resource(name="disk", milli=disks[0].milli // 2 + 1, identity=disks[0].identity)
            return Grow(volume=random.choice(volumes), addition=half)
        case 5 if volumes:
            one = random.choice(volumes)
            return Shrink(volume=one, less_milli=one.milli // 3 + 1)
        case _:
            return Unreserve(resources=(random.choice(kept),)) if kept else Unreserve(resources=(reserved("cpus", 1),))


def some_task(random: Random, id: str, agent_id: str, have: Resources) -> Any:
    """A task on some of what was offered, volumes whole."""
    lent = any(r.identity.revocable for r in have)
    if lent:
        return task_info(id, agent_id, tuple(r for r in have if r.identity.revocable and r.milli > 0))
    chosen = [r for r in have if r.identity.reservations and random.random() < 0.6]
    return task_info(id, agent_id, normal((*chosen, scalar("cpus", 0.1))) if chosen else bundle(0.5, 32))


@pytest.mark.parametrize("seed", range(4))
def test_a_random_world_of_reservations_keeps_its_laws(seed: int) -> None:
    random = Random(seed)
    stage = Stage(MasterConfig(agent_timeout_s=20, ping_s=4, recovery_grace_s=10, least_refuse_s=0.0), seed=seed)
    nodes = [KeepingNode(stage, f"h{i}") for i in range(2)]
    whole = amounts(nodes[0].have)
    known: dict[str, Framework] = {}
    made = run = 0
    for name, role in (("a", "web"), ("b", "web"), ("c", "batch")):
        fresh = stage.framework(name=name, role=role, failover_timeout_s=1e6, capabilities=CAPABILITIES)
        known[fresh.id] = fresh
    for step in range(300):
        node, framework = random.choice(nodes), random.choice(list(known.values()))
        listens = framework.stream in stage.core.state.streams
        match random.randrange(10):
            case 0 | 1 if not node.up:
                node.connect()
            case 0 if random.random() < 0.3:
                node.agent.close()
                node.up = False
            case 1 if random.random() < 0.1:
                stage = stage.restart(seed=random.randrange(1000))
                for each in nodes:
                    each.agent.stage, each.up = stage, False
                    each.unacked.clear()
                for one in known.values():
                    one.stage = stage
            case 2 if node.up:
                operation = some_operation(random, node.have, step)
                stage.asks += 1
                stage.give(Asked(stage.asks, Operate(agent_id=node.agent.id, operation=operation)))
            case 3 if not listens:
                framework.subscribe()
            case 3 if random.random() < 0.1:
                framework.close()
            case 4 | 5 | 6 if listens:
                for offer in framework.offers():
                    have = stripped(offer.resources)
                    operations = [some_operation(random, have, step) for _ in range(random.randrange(3))]
                    tasks = (some_task(random, f"t{step}-{made}", offer.agent_id, have),)
                    operate(framework, [offer], *operations, calls.Launch(tasks=tasks), refuse_s=random.choice([0, 3]))
            case 7 | 8 if node.tasks:
                key = random.choice(list(node.tasks))
                node.end(key, random.choice([TaskState.FINISHED, TaskState.FAILED]))
            case _:
                stage.run(random.random() * 3)
        for each in nodes:
            if each.up and random.random() < 0.7:
                before = each.have
                each.obey_all(known)
                made += each.have != before
                run += len(each.tasks)
            assert amounts(each.have) == whole
        for one in known.values():
            _acknowledge(stage, one)
    assert made > 5, "a world in which nothing is reserved proves little"
    assert run > 5, "a world in which nothing runs proves little"
    _come_to_rest(stage, nodes, known)


def _acknowledge(stage: Stage, framework: Framework) -> None:
    for status in framework.updates():
        if status.uuid is not None and status.agent_id is not None and framework.stream in stage.core.state.streams:
            framework.call(calls.Acknowledge(
                framework_id=framework.id, agent_id=status.agent_id, task_id=status.task_id, uuid=status.uuid
            ))  # fmt: skip


def _come_to_rest(stage: Stage, nodes: list[KeepingNode], known: dict[str, Framework]) -> None:
    """With every agent back and no framework there, all is free in the form that the agents have it."""
    for node in nodes:
        if not node.up or node.agent.session in stage.ended:
            node.connect()
    for framework in known.values():
        if framework.stream not in stage.core.state.streams:
            framework.subscribe()
        framework.call(calls.Teardown(framework_id=framework.id))
    for _ in range(4):
        for node in nodes:
            node.obey_all(known)
            for key, (_, _, _, state) in list(node.tasks.items()):
                if state in TERMINAL:
                    node.tell(key, state)
    for node in nodes:
        assert node.agent.entry().info.resources == node.have
        assert node.agent.free() == node.have
    assert not stage.core.state.operations
