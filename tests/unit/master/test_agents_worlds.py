"""Random worlds with an operator in them: nothing new on a closed agent, nothing counted twice, nothing lost."""

from random import Random

import pytest
from master_stage import PARTITION_AWARE, Framework, Stage, task_info, want
from test_master_worlds import FakeNode, _come_to_rest, _settle

from corral.lib.errors import CorralError
from corral.master.spec import Command, MasterConfig
from corral.model import calls, events
from corral.model.ids import InverseOfferId
from corral.model.maintenance import (
    DeactivateAgent,
    DrainAgent,
    Machine,
    MarkAgentGone,
    ReactivateAgent,
    StartMaintenance,
    StopMaintenance,
    Unavailability,
    UpdateSchedule,
    Window,
)
from corral.model.orders import Refused
from corral.model.task import TERMINAL, TaskState

HOSTS = 4


def draw_command(random: Random, stage: Stage) -> Command:
    machine = Machine(hostname=f"h{random.randrange(HOSTS)}")
    agent_id = random.choice(list(stage.core.state.agents))
    match random.randrange(10):
        case 0 | 1:
            grace_s = random.choice([None, 0.0, 5.0])
            return DrainAgent(agent_id=agent_id, max_grace_s=grace_s, mark_gone=random.random() < 0.3)
        case 2:
            return DeactivateAgent(agent_id=agent_id)
        case 3 | 8 | 9:
            return ReactivateAgent(agent_id=agent_id)
        case 4 if random.random() < 0.3:
            return MarkAgentGone(agent_id=agent_id)
        case 5:
            return StartMaintenance(machines=(machine,))
        case 6:
            return StopMaintenance(machines=(machine,))
        case _:
            start_ns = int((stage.now + random.randrange(-5, 20)) * 1e9)
            unavailability = Unavailability(start_ns=start_ns, duration_ns=random.choice([None, 10**10]))
            machines = tuple(Machine(hostname=f"h{i}") for i in range(HOSTS) if random.random() < 0.4)
            return UpdateSchedule(
                windows=(Window(machines=machines, unavailability=unavailability),) if machines else ()
            )


def answer(random: Random, framework: Framework) -> None:
    asked = [one.id for event in framework.take(events.InverseOffers) for one in event.inverse_offers]
    ids: tuple[InverseOfferId, ...] = (*asked, InverseOfferId("of nobody"))
    kind = random.choice([calls.AcceptInverseOffers, calls.DeclineInverseOffers])
    framework.call(kind(framework_id=framework.id, inverse_offer_ids=ids))


@pytest.mark.parametrize("seed", range(4))
def test_a_world_with_an_operator_keeps_its_laws_and_comes_to_rest(seed: int) -> None:
    random = Random(seed)
    stage = Stage(MasterConfig(agent_timeout_s=20, ping_s=4, want_offer_timeout_s=5), seed=seed)
    nodes = [FakeNode(stage, f"h{i}") for i in range(HOSTS)]
    known: dict[str, Framework] = {}
    for name, capabilities in (("old", ()), ("new", PARTITION_AWARE)):
        framework = stage.framework(name=name, capabilities=capabilities, failover_timeout_s=1e6)
        known[framework.id] = framework
    counter = launched = taken = refused = 0
    for _ in range(1000):
        framework = random.choice(list(known.values()))
        node = random.choice(nodes)
        match random.randrange(8):
            case 0 if not node.up:
                node.connect()
            case 1 if stage.core.state.agents:
                try:
                    stage.ask(draw_command(random, stage))
                    taken += 1
                except CorralError:
                    refused += 1
            case 2:
                framework.want(want(count=random.randrange(3)))
            case 3 | 4:
                for offer in framework.offers():
                    counter += 1
                    framework.accept([offer], task_info(f"t{counter}", offer.agent_id, offer.resources), refuse_s=1)
                    if f"t{counter}" in framework.entry().tasks:
                        assert stage.core.state.agents[offer.agent_id].ineligible in ("", "maintenance")
                        launched += 1
            case 5 if node.up and node.tasks:
                key = random.choice(list(node.tasks))
                if node.tasks[key][3] not in TERMINAL:
                    node.tell(key, random.choice([TaskState.RUNNING, TaskState.FINISHED]))
            case 6:
                answer(random, framework)
            case _:
                stage.run(random.random() * 4)
        settle(nodes, known, stage)
    assert taken > 15
    assert refused > 5
    assert launched > 40
    open_all(stage)
    settle(nodes, known, stage)
    _come_to_rest(stage, nodes, known)


def settle(nodes: list[FakeNode], known: dict[str, Framework], stage: Stage) -> None:
    """What is ordered is done; an agent that is sent away ends all it runs, and a gone one begins anew."""
    for node in nodes:
        for order in node.agent.take(Refused):
            assert order.end_tasks
            node.up = False
            node.tasks.clear()
            node.unacked.clear()
            if "gone" in order.why:
                node.agent = FakeNode(stage, node.agent.info.hostname).agent
    _settle(nodes, known, stage)


def open_all(stage: Stage) -> None:
    down = tuple(stage.core.state.down)
    if down:
        stage.ask(StopMaintenance(machines=down))
    stage.ask(UpdateSchedule())
    stage.run(30)
    for agent in list(stage.core.state.agents.values()):
        if agent.deactivated and not agent.draining:
            stage.ask(ReactivateAgent(agent_id=agent.id))
