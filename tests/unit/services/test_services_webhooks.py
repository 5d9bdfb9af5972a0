"""URLs are told of every event: kept until it is taken, over crashes, and no longer than somebody wants it."""

import json
from typing import Any

import pytest
from tests.unit.services.conftest import Cluster

from corral.frameworks.services.webhook_spec import AddWebhook, GetWebhooks, RemoveWebhook
from corral.lib.errors import Invalid, NotFound, TooMany
from corral.sdk.effects import Notified, Notify

URL = "http://hooks.example/in"


def kinds(sent: list[Notify]) -> list[str]:
    return [json.loads(notice.body)["eventType"] for notice in sent]


def subscribe(cluster: Cluster, url: str = URL) -> Any:
    return cluster.ask(AddWebhook(url=url, client_ip="10.0.0.9"))


def test_a_url_is_told_of_what_happens(cluster: Cluster) -> None:
    assert subscribe(cluster) == {"clientIp": "10.0.0.9", "callbackUrl": URL, "eventType": "subscribe_event"}
    assert cluster.ask(GetWebhooks()) == {"callbackUrls": [URL]}
    cluster.create(id="/web", instances=1)
    sent = cluster.take_sent()
    assert {"deployment_info", "instance_changed_event"} <= set(kinds(sent))
    assert {notice.url for notice in sent} == {URL}
    assert cluster.published == [], "nobody follows the stream"


def test_an_event_is_kept_until_it_is_taken(cluster: Cluster) -> None:
    subscribe(cluster)
    cluster.create(id="/web", instances=1)
    first, *others = cluster.take_sent()
    cluster.send(Notified(first.id))
    cluster.send(Notified(others[0].id, "it answered 500"))
    cluster.crash()
    again = cluster.take_sent()
    assert sorted(notice.id for notice in again) == sorted(notice.id for notice in others)
    while again:
        cluster.send(Notified(again.pop().id))
        again += cluster.take_sent()
    assert [key for key in cluster.records if key.startswith("notice/")] == []
    assert cluster.ask(GetWebhooks()) == {"callbackUrls": [URL]}


def test_a_refused_event_is_tried_again(cluster: Cluster) -> None:
    subscribe(cluster)
    cluster.create(id="/web", instances=1)
    (first, *_) = cluster.take_sent()
    cluster.send(Notified(first.id, "it answered 500"))
    cluster.advance(6.0)
    assert first.id in {notice.id for notice in cluster.take_sent()}


def test_nothing_is_left_of_a_url_that_is_taken_out(cluster: Cluster) -> None:
    subscribe(cluster)
    cluster.create(id="/web", instances=1)
    cluster.take_sent()
    assert cluster.ask(RemoveWebhook(url=URL))["eventType"] == "unsubscribe_event"
    assert [key for key in cluster.records if key.startswith(("notice/", "webhook/"))] == []
    cluster.create(id="/more", instances=1)
    assert cluster.take_sent() == []


@pytest.mark.parametrize("url", ["", "ftp://x/y", "http://", "http:///path", "hooks", "http://a b"])
def test_what_is_no_web_address_is_refused(cluster: Cluster, url: str) -> None:
    with pytest.raises(Invalid, match="callbackUrl"):
        subscribe(cluster, url)
    assert cluster.ask(GetWebhooks()) == {"callbackUrls": []}


def test_only_so_many_urls_are_told(cluster: Cluster) -> None:
    for n in range(32):
        subscribe(cluster, f"{URL}{n}")
    subscribe(cluster, f"{URL}0")
    with pytest.raises(TooMany, match="32 URLs"):
        subscribe(cluster, f"{URL}32")
    with pytest.raises(NotFound, match="is not told of events"):
        cluster.ask(RemoveWebhook(url=f"{URL}32"))
