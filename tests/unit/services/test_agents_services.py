"""Apps on nodes that are taken out of service: what ends there starts elsewhere at once, and nobody is blamed."""

from typing import Any

import pytest

from corral.model import calls, events
from corral.model.ids import AgentId, FrameworkId, InverseOfferId
from corral.model.maintenance import InverseOffer, Unavailability
from corral.model.task import Reason, TaskState


@pytest.mark.parametrize(
    ("ended_as", "reason"),
    [
        (TaskState.KILLED, Reason.AGENT_DRAINING),
        (TaskState.GONE_BY_OPERATOR, Reason.AGENT_REMOVED_BY_OPERATOR),
        (TaskState.GONE_BY_OPERATOR, Reason.AGENT_DRAINING),
        (TaskState.GONE, Reason.AGENT_REMOVED),
    ],
)
def test_an_instance_whose_node_is_drained_or_gone_is_wanted_again_without_a_backoff(
    cluster: Any, ended_as: TaskState, reason: Reason
) -> None:
    cluster.create(id="/web", cmd="sleep 1000", cpus=0.1, mem=32, instances=2)
    cluster.work()
    first, second = cluster.task_ids()
    cluster.update(first, ended_as, reason=reason, message="its agent is drained")
    (want,) = cluster.wants.values()
    assert want.count == 1, "wanted at once"
    cluster.work()
    assert second in cluster.task_ids()
    assert len(cluster.running()) == 2


def test_another_instance_starts_while_the_one_on_a_drained_node_still_has_its_grace(cluster: Any) -> None:
    cluster.create(id="/web", cmd="sleep 1000", cpus=0.1, mem=32, instances=1)
    cluster.work()
    (first,) = cluster.task_ids()
    cluster.update(first, TaskState.KILLING, reason=Reason.AGENT_DRAINING)
    (second,) = cluster.run()
    assert {i.condition for i in cluster.app().instances.values()} == {"Killing", "Running"}
    cluster.update(first, TaskState.KILLED, reason=Reason.AGENT_DRAINING)
    assert cluster.task_ids() == [second]
    assert not cluster.wants


def test_an_inverse_offer_is_accepted(cluster: Any) -> None:
    cluster.calls.clear()
    offer = InverseOffer(
        id=InverseOfferId("I1"), framework_id=FrameworkId("F"), agent_id=AgentId("a"), hostname="h", ip="127.0.0.1",
        port=1, unavailability=Unavailability(start_ns=1),
    )  # fmt: skip
    cluster.send(events.InverseOffers(inverse_offers=(offer,)))
    assert cluster.calls == [calls.AcceptInverseOffers(framework_id=FrameworkId("F"), inverse_offer_ids=(offer.id,))]


@pytest.mark.parametrize("told", [[], [Reason.AGENT_DRAINING], [None, Reason.AGENT_DRAINING]])
def test_a_drain_that_a_new_leader_tells_of_by_reconciliation_alone_moves_the_instance_at_once(
    cluster: Any, told: list[Reason | None]
) -> None:
    cluster.create(id="/web", cmd="sleep 1000", cpus=0.1, mem=32, instances=1)
    cluster.work()
    (first,) = cluster.task_ids()
    cluster.crash()
    cluster.subscribe()
    for reason in [*told, Reason.RECONCILIATION]:
        cluster.update(first, TaskState.KILLING, reason=reason)
    (second,) = cluster.run()
    assert {i.condition for i in cluster.app().instances.values()} == {"Killing", "Running"}
    cluster.update(first, TaskState.KILLED, reason=Reason.AGENT_DRAINING)
    assert cluster.task_ids() == [second]


def test_an_instance_that_was_known_to_be_ending_moves_when_its_agent_says_that_it_is_drained(cluster: Any) -> None:
    cluster.create(id="/web", cmd="sleep 1000", cpus=0.1, mem=32, instances=1)
    cluster.work()
    (first,) = cluster.task_ids()
    cluster.update(first, TaskState.KILLING, message="its node ends it")
    assert not cluster.wants, "it may end for reasons of its own"
    cluster.update(first, TaskState.KILLING, reason=Reason.AGENT_DRAINING)
    assert len(cluster.run()) == 1
