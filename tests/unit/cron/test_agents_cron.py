"""Jobs on nodes that are taken out of service: the run is made again elsewhere, and its retries are not spent."""

from typing import Any

import pytest

from corral.model import calls, events
from corral.model.ids import AgentId, FrameworkId, InverseOfferId
from corral.model.maintenance import InverseOffer, Unavailability
from corral.model.task import Reason, TaskState

FAR = "R/2026-06-01T00:00:00Z/P1D"
DRAINED = "its agent is drained"


def test_a_run_whose_node_is_drained_is_made_again_elsewhere_without_spending_a_retry(cluster: Any) -> None:
    cluster.put("a", schedule=FAR, retries=0)
    cluster.run_now("a")
    (first,) = cluster.start()
    cluster.update(first, TaskState.KILLED, reason=Reason.AGENT_DRAINING, message=DRAINED)
    (attempt,) = cluster.history("a")["attempts"]
    assert (attempt["result"], attempt["final"], attempt["message"]) == ("killed", False, DRAINED)
    cluster.advance(2)
    (second,) = cluster.start()
    assert second != first
    cluster.update(second, TaskState.FINISHED)
    assert cluster.summary("a")[0] == "success"


@pytest.mark.parametrize("ending", [True, False])
def test_a_run_that_was_killed_anyway_or_may_run_only_once_is_not_made_again(cluster: Any, ending: bool) -> None:
    more = {} if ending else {"delivery": "at-most-once"}
    cluster.put("a", schedule=FAR, retries=0, **more)
    cluster.run_now("a")
    (first,) = cluster.start()
    if ending:
        cluster.kill("a")
    cluster.update(first, TaskState.KILLED, reason=Reason.AGENT_DRAINING, message=DRAINED)
    cluster.advance(600)
    assert cluster.wanted() == 0


def test_an_inverse_offer_is_accepted(cluster: Any) -> None:
    offer = InverseOffer(
        id=InverseOfferId("I1"), framework_id=FrameworkId("F"), agent_id=AgentId("a"), hostname="h", ip="127.0.0.1",
        port=1, unavailability=Unavailability(start_ns=1),
    )  # fmt: skip
    cluster.send(events.InverseOffers(inverse_offers=(offer,)))
    accepted = [c for c in cluster.calls if isinstance(c, calls.AcceptInverseOffers)]
    assert [call.inverse_offer_ids for call in accepted] == [(offer.id,)]
