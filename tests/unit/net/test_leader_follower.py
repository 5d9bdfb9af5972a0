"""What a process that does not lead does with a request."""

from collections.abc import Mapping

import pytest

from corral.net.follower import (
    FORWARDED,
    Way,
    choose_way,
    headers_back,
    headers_through,
    may_go_on,
    send_on,
    tell_doubt,
    waits_s,
)

LEADER, OWN = "http://10.0.0.1:4680", "http://10.0.0.2:4680"


@pytest.mark.parametrize(
    ("path", "query", "headers", "way"),
    [
        ("/v2/apps", "", {}, Way.THROUGH),
        ("/v2/deployments", "", {}, Way.THROUGH),
        ("/corral/v1/nodes", "", {}, Way.THROUGH),
        ("/state", "", {}, Way.THROUGH),
        ("/api/v1beta", "", {}, Way.THROUGH),
        ("/corral/v1/events", "", {}, Way.THROUGH),
        ("/corral/v1/events", "follower=1", {}, Way.THROUGH),
        ("/api/v1/scheduler", "", {}, Way.ON),
        ("/master/api/v1/scheduler", "", {}, Way.ON),
        ("/api/v1", "", {}, Way.ON),
        ("/v2/events", "event_type=x", {}, Way.ON),
        ("/v2/events/", "", {}, Way.ON),
        ("/corral/v1/events", "after=3&follow=true", {}, Way.ON),
        ("/corral/v1/events", "follow", {}, Way.ON),
        ("/corral/v1/agent/orders", "session=1", {}, Way.ON),
        ("/corral/v1/agent/reports", "session=1", {}, Way.ON),
        ("/anything", "", {"upgrade": "websocket"}, Way.ON),
        ("/anything", "", {"accept": "text/event-stream"}, Way.ON),
    ],
)
def test_what_has_no_end_is_sent_on_and_the_rest_is_passed_on(
    path: str, query: str, headers: Mapping[str, str], way: Way
) -> None:
    assert choose_way(path, query, headers, LEADER, OWN).way is way


@pytest.mark.parametrize("path", ["/v2/apps", "/api/v1/scheduler", "/v2/events", "/corral/v1/agent/orders"])
def test_what_was_passed_on_once_goes_nowhere_else(path: str) -> None:
    verdict = choose_way(path, "", {FORWARDED.lower(): "http://10.0.0.3:4680"}, LEADER, OWN)
    assert verdict.way is Way.REFUSED
    assert "10.0.0.3" in verdict.why


def test_without_a_leader_or_while_this_one_begins_to_lead_callers_are_refused() -> None:
    assert choose_way("/v2/apps", "", {}, None, OWN).way is Way.REFUSED
    assert choose_way("/v2/apps", "", {}, OWN, OWN).way is Way.REFUSED


def test_every_chain_of_followers_that_disagree_ends_after_one_hop() -> None:
    """Each believes that the next one leads; the request is refused by the second that gets it."""
    followers = [f"http://10.0.0.{n}:4680" for n in range(5)]
    for start in range(5):
        headers: dict[str, str] = {}
        seen = 0
        at = start
        while True:
            seen += 1
            believed = followers[(at + 1) % 5]
            verdict = choose_way("/v2/apps", "", {k.lower(): v for k, v in headers.items()}, believed, followers[at])
            if verdict.way is not Way.THROUGH:
                break
            headers = headers_through(headers, "192.0.2.1", followers[at])
            at = (at + 1) % 5
        assert seen == 2
        assert verdict.way is Way.REFUSED


def test_the_way_to_the_leader_keeps_path_and_query_and_names_no_scheme() -> None:
    answer = send_on(LEADER, "/api/v1/scheduler?x=%2F")
    assert (answer.status, answer.headers["Location"]) == (307, "//10.0.0.1:4680/api/v1/scheduler?x=%2F")


def test_headers_pass_except_those_of_the_connection() -> None:
    given = {
        "Host": "cluster", "Authorization": "Bearer x", "Connection": "keep-alive, X-Hop", "X-Hop": "1",
        "Transfer-Encoding": "chunked", "Content-Length": "3", "X-Forwarded-For": "192.0.2.9", "TE": "trailers",
    }  # fmt: skip
    assert headers_through(given, "192.0.2.1", OWN) == {
        "Host": "cluster", "Authorization": "Bearer x", "Content-Length": "3", FORWARDED: OWN,
        "X-Forwarded-For": "192.0.2.9, 192.0.2.1",
    }  # fmt: skip
    assert headers_back({"Keep-Alive": "5", "Content-Type": "text/plain", "Content-Encoding": "gzip"}) == [
        ("Content-Type", "text/plain"), ("Content-Encoding", "gzip"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("wait=20", 20.0), ("respond-async, wait=5", 5.0), ("wait=9999", 30.0), ("wait=x", 0.0), ("", 0.0)],
)
def test_how_long_a_caller_waits_is_what_he_says_within_bounds(text: str, seconds: float) -> None:
    assert waits_s("/x", {"prefer": text} if text else {}) == seconds


def test_a_caller_who_waits_is_not_sent_to_the_leader_he_has_lost_unless_it_leads_anew() -> None:
    lost = {"corral-lost": LEADER}
    assert not may_go_on(LEADER, OWN, lost, is_new=False)
    assert may_go_on(LEADER, OWN, lost, is_new=True)
    assert may_go_on(LEADER, OWN, {}, is_new=False)
    assert may_go_on("http://10.0.0.9:4680", OWN, lost, is_new=False)
    assert not may_go_on(OWN, OWN, {}, is_new=True)
    assert not may_go_on(None, OWN, {}, is_new=True)


def test_a_change_whose_fate_is_unknown_is_no_503_that_clients_repeat() -> None:
    assert tell_doubt("it broke off", "GET").headers["Retry-After"] == "1"
    answer = tell_doubt("it broke off", "POST")
    assert answer.status == 504
    assert "Retry-After" not in answer.headers
