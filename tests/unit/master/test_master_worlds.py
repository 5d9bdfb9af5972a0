"""Random worlds: whatever agents and frameworks do, nothing is counted twice and nothing is lost."""

from random import Random

import pytest
from master_stage import PARTITION_AWARE, Agent, Framework, Stage, agent_info, bundle, task_info, told, want

from corral.lib.errors import CorralError
from corral.master import claims
from corral.master.spec import MasterConfig
from corral.model import calls
from corral.model.orders import AcknowledgeUpdate, KillTask, RunTask, ShutdownFramework
from corral.model.task import TERMINAL, TaskInfo, TaskState


class FakeNode:
    """An agent that runs what it is ordered to and ends it as the dice fall."""

    def __init__(self, stage: Stage, name: str) -> None:
        self.agent = Agent(stage, agent_info(name))
        self.up = False
        self.tasks: dict[tuple[str, str], tuple[TaskInfo, Framework, str, TaskState]] = {}
        self.unacked: dict[tuple[str, str], bytes] = {}

    def connect(self) -> None:
        found = [told(i, f, s, role=role) for (i, f, role, s) in self.tasks.values()]
        infos = {f.id: f.info for _, f, _, _ in self.tasks.values()}
        self.agent.connect(found, tuple(infos.values()))
        self.up = True

    def obey(self, frameworks: dict[str, Framework]) -> None:
        for run in self.agent.take(RunTask):
            assert run.framework.id is not None
            key = (run.framework.id, run.info.task_id)
            self.tasks[key] = (run.info, frameworks[run.framework.id], run.role, TaskState.STAGING)
        for kill in self.agent.take(KillTask):
            self.end((kill.framework_id, kill.task_id), TaskState.KILLED)
        for down in self.agent.take(ShutdownFramework):
            for key in [k for k in self.tasks if k[0] == down.framework_id]:
                self.end(key, TaskState.KILLED)
        for ack in self.agent.take(AcknowledgeUpdate):
            key = (ack.framework_id, ack.task_id)
            if self.unacked.get(key) == ack.uuid:
                del self.unacked[key]
                if self.tasks[key][3] in TERMINAL:
                    del self.tasks[key]

    def end(self, key: tuple[str, str], state: TaskState) -> None:
        if key in self.tasks and self.tasks[key][3] not in TERMINAL:
            self.tell(key, state)

    def tell(self, key: tuple[str, str], state: TaskState) -> None:
        info, framework, role, _ = self.tasks[key]
        self.tasks[key] = (info, framework, role, state)
        if self.up:
            self.unacked[key] = self.agent.update(key[1], state, key[0])


@pytest.mark.parametrize("seed", range(10))
def test_a_random_world_keeps_its_laws_and_comes_to_rest(seed: int) -> None:
    random = Random(seed)
    config = MasterConfig(agent_timeout_s=20, ping_s=4, want_offer_timeout_s=5, recovery_grace_s=10)
    stage = Stage(config, seed=seed)
    nodes = [FakeNode(stage, f"h{i}") for i in range(4)]
    known: dict[str, Framework] = {}
    counter = 0
    for _ in range(1200):
        node = random.choice(nodes)
        live = [f for f in known.values() if f.stream not in stage.ended and f.stream in stage.core.state.streams]
        removed = stage.core.state.removed_ids
        match random.randrange(14):
            case 0 if not node.up:
                node.connect()
            case 1 if node.up and random.random() < 0.2:
                node.agent.close()
                node.up = False
            case 2 if len(live) < 4:
                capabilities = PARTITION_AWARE if random.random() < 0.5 else ()
                fresh = stage.framework(
                    name=f"f{len(known)}", failover_timeout_s=random.choice([0.0, 30.0]), capabilities=capabilities
                )
                known[fresh.id] = fresh
            case 3 if live and random.random() < 0.3:
                random.choice(live).close()
            case 4 if away := [f for f in known.values() if f not in live and f.id not in removed]:
                random.choice(away if random.random() < 0.9 else list(known.values())).subscribe()
            case 5 if live:
                random.choice(live).want(
                    *(want(f"w{i}", random.randrange(4), ports=1) for i in range(random.randrange(3)))
                )
            case 6 | 7 | 8 if live:
                framework = random.choice(live)
                for offer in framework.offers():
                    counter += 1
                    if random.random() < 0.8:
                        resources = offer.resources if offer.want_id else bundle(random.choice([1, 9]), 64)
                        framework.accept([offer], task_info(f"t{counter}", offer.agent_id, resources), refuse_s=1)
                    elif random.random() < 0.5:
                        framework.decline(offer, refuse_s=random.choice([0, 3]))
            case 9 if node.up and node.tasks:
                key = random.choice(list(node.tasks))
                if node.tasks[key][3] not in TERMINAL:
                    node.tell(key, random.choice([TaskState.RUNNING, TaskState.FINISHED, TaskState.FAILED]))
            case 10 if live:
                framework = random.choice(live)
                tasks = list(framework.entry().tasks)
                if tasks:
                    framework.kill(random.choice(tasks))
            case 11 if live and random.random() < 0.1:
                gone = random.choice(live)
                gone.call(calls.Teardown(framework_id=gone.id))
            case 12 if random.random() < 0.1:
                stage = _restart(stage, nodes, known, random)
            case _:
                stage.run(random.random() * 3)
        _settle(nodes, known, stage)
    assert counter > 40, "a world in which little happens proves little"
    _come_to_rest(stage, nodes, known)


def _restart(stage: Stage, nodes: list[FakeNode], known: dict[str, Framework], random: Random) -> Stage:
    later = stage.restart(seed=random.randrange(1000))
    for node in nodes:
        node.agent.stage = later
        node.up = False
        node.unacked.clear()
    for framework in known.values():
        framework.stage = later
    return later


def _settle(nodes: list[FakeNode], known: dict[str, Framework], stage: Stage) -> None:
    for node in nodes:
        if node.up and node.agent.session in stage.ended:
            node.up = False
        if node.up:
            node.obey(known)
    for framework in known.values():
        for status in framework.updates():
            if status.uuid is not None and status.agent_id is not None and framework.stream in stage.core.state.streams:
                call = calls.Acknowledge(
                    framework_id=framework.id, agent_id=status.agent_id, task_id=status.task_id, uuid=status.uuid
                )
                framework.call(call)
    for node in nodes:
        if node.up:
            node.obey(known)


def _come_to_rest(stage: Stage, nodes: list[FakeNode], known: dict[str, Framework]) -> None:
    """All agents back, all frameworks gone: everything must be free again."""
    for node in nodes:
        if not node.up:
            node.connect()
    _settle(nodes, known, stage)
    for framework in known.values():
        if framework.stream not in stage.core.state.streams:
            framework.subscribe()
        try:
            framework.call(calls.Teardown(framework_id=framework.id))
        except CorralError:
            assert framework.id in stage.core.state.removed_ids
    for _ in range(5):
        _settle(nodes, known, stage)
        for node in nodes:
            for key, (_, _, _, state) in list(node.tasks.items()):
                if node.up and (state in TERMINAL or key[0] in stage.core.state.removed_ids):
                    node.tell(key, TaskState.KILLED)
    stage.run(60)
    state = stage.core.state
    assert not state.offers
    for agent in state.agents.values():
        if agent.session is not None:
            free = state.allocator.book.agents[agent.id].free()
            assert free == agent.info.resources, f"agent {agent.id} has something left in use"
    assert not claims.held(state), "a role has something left"
