"""Draining and maintenance over the real operator API: which status answers what, and that refusals change nothing."""

from typing import Any

import mesos_client
import pytest

NOBODY = {"agent_id": {"value": "nobody"}}
MACHINE = [{"hostname": "no-such-host"}]
START = {"start": {"nanoseconds": 1}}


def operate(cluster: Any, kind: str, body: Any = None) -> mesos_client.Answer:
    call = {"type": kind, **({kind.lower(): body} if body is not None else {})}
    return mesos_client.request(cluster.url, "POST", "/api/v1", call)


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("DRAIN_AGENT", NOBODY, 400),
        ("DRAIN_AGENT", {**NOBODY, "max_grace_period": {"seconds": -1}}, 400),
        ("DEACTIVATE_AGENT", NOBODY, 400),
        ("REACTIVATE_AGENT", NOBODY, 400),
        ("MARK_AGENT_GONE", NOBODY, 404),
        ("MARK_AGENT_GONE", None, 400),
        ("START_MAINTENANCE", {"machines": MACHINE}, 400),
        ("STOP_MAINTENANCE", {"machines": []}, 400),
        ("UPDATE_MAINTENANCE_SCHEDULE", {"schedule": {"windows": [{"unavailability": START}]}}, 400),
    ],
)
def test_what_cannot_be_is_refused_with_its_status_and_changes_nothing(
    cluster: Any, kind: str, body: Any, status: int
) -> None:
    before = [operate(cluster, read).json for read in ("GET_AGENTS", "GET_MAINTENANCE_STATUS")]
    answer = operate(cluster, kind, body)
    assert (answer.status, bool(answer.text)) == (status, True)
    assert [operate(cluster, read).json for read in ("GET_AGENTS", "GET_MAINTENANCE_STATUS")] == before


def test_a_deactivated_agent_is_offered_to_nobody_until_it_is_opened(
    cluster: Any, scheduler: mesos_client.Subscription
) -> None:
    (offer, *_) = scheduler.next("OFFERS")["offers"]["offers"]
    agent = {"agent_id": offer["agent_id"]}
    assert operate(cluster, "DEACTIVATE_AGENT", agent).status == 200
    try:
        assert scheduler.next("RESCIND")["rescind"]["offer_id"] == offer["id"]
        (shown,) = operate(cluster, "GET_AGENTS").json["get_agents"]["agents"]
        assert (shown["active"], shown["deactivated"]) == (False, True)
    finally:
        assert operate(cluster, "REACTIVATE_AGENT", agent).status == 200
    assert scheduler.next("OFFERS")["offers"]["offers"][0]["agent_id"] == offer["agent_id"]


def test_a_schedule_comes_back_as_it_was_written_and_is_seen_on_offers(
    cluster: Any, scheduler: mesos_client.Subscription
) -> None:
    (offer, *_) = scheduler.next("OFFERS")["offers"]["offers"]
    window = {
        "machine_ids": [{"hostname": offer["hostname"]}],
        "unavailability": {"start": {"nanoseconds": 4_000_000_000_123_456_789}, "duration": {"nanoseconds": 7}},
    }
    schedule = {"windows": [window]}
    try:
        assert operate(cluster, "UPDATE_MAINTENANCE_SCHEDULE", {"schedule": schedule}).status == 200
        found = operate(cluster, "GET_MAINTENANCE_SCHEDULE").json["get_maintenance_schedule"]["schedule"]
        assert found == cluster.get("/maintenance/schedule").json == schedule
        (again, *_) = scheduler.next("OFFERS")["offers"]["offers"]
        assert again["unavailability"] == window["unavailability"]
    finally:
        assert mesos_client.request(cluster.url, "POST", "/maintenance/schedule", {}).status == 200
    assert "unavailability" not in scheduler.next("OFFERS")["offers"]["offers"][0]
