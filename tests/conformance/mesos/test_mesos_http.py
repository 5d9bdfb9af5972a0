"""The scheduler endpoint's answers to good and bad requests: status codes in the contract's order of checks."""

import json
import socket
from urllib.parse import urlsplit

import pytest
from mesos_client import MEDIA, SCHEDULER, Subscription, request, wait_until

TEARDOWN = {"type": "TEARDOWN", "framework_id": {"value": "nobody"}}


def subscribe_call(info):
    return {"type": "SUBSCRIBE", "subscribe": {"framework_info": info}}


@pytest.mark.parametrize("path", [SCHEDULER, "/master" + SCHEDULER])
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_only_post_is_allowed_and_the_answer_says_so(cluster, path, method):
    answer = request(cluster.url, method, path, headers={})
    assert answer.status == 405
    assert "POST" in answer.headers["Allow"]


def test_a_body_without_content_type_is_refused_before_it_is_read(cluster):
    answer = request(cluster.url, "POST", SCHEDULER, b"not json", headers={})
    assert answer.status == 400
    assert "Content-Type" in answer.text
    assert answer.headers["Content-Type"].startswith("text/plain")


@pytest.mark.parametrize("media", ["application/x-protobuf", "text/plain", "application/xml"])
def test_another_media_type_is_refused_before_the_body_is_read(cluster, media):
    answer = request(cluster.url, "POST", SCHEDULER, b"not json", headers={"Content-Type": media})
    assert answer.status == 415
    assert "application/json" in answer.text


@pytest.mark.parametrize("media", ["application/json; charset=utf-8", "Application/JSON"])
def test_letter_case_and_parameters_of_the_media_type_do_not_matter(cluster, media):
    answer = request(cluster.url, "POST", SCHEDULER, TEARDOWN, headers={"Content-Type": media})
    assert (answer.status, "nobody" in answer.text) == (400, True)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b'"x"', b"{}", b'{"type":"FLY"}', b'{"type":"ACCEPT"}'])
def test_a_body_that_is_no_call_is_refused_before_accept_is_looked_at(cluster, body):
    answer = request(cluster.url, "POST", SCHEDULER, body, {**MEDIA, "Accept": "text/html"})
    assert answer.status == 400
    assert answer.text


def test_a_subscription_that_accepts_nothing_we_write_is_not_acceptable(cluster, info):
    answer = request(cluster.url, "POST", SCHEDULER, subscribe_call(info), {**MEDIA, "Accept": "text/html"})
    assert answer.status == 406


@pytest.mark.parametrize("accept", ["*/*", "application/*", "application/json;q=0.5, text/html", None])
def test_a_subscription_that_accepts_json_somehow_gets_it(cluster, info, accept):
    with Subscription(cluster.url, info) as plain:
        assert plain.registered().framework_id
        plain.call("TEARDOWN")
    headers = {k: v for k, v in {**MEDIA, "Accept": accept}.items() if v is not None}
    bad = {**info, "roles": ["a"]}  # ends by itself with an ERROR event
    answer = request(cluster.url, "POST", SCHEDULER, subscribe_call(bad), headers)
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("application/json")


def test_the_explicit_unknown_type_is_not_implemented(cluster):
    answer = request(cluster.url, "POST", SCHEDULER, {"type": "UNKNOWN", "framework_id": {"value": "f"}})
    assert answer.status == 501


def test_a_framework_that_nobody_knows_is_a_bad_request(cluster):
    answer = request(cluster.url, "POST", SCHEDULER, TEARDOWN)
    assert answer.status == 400
    assert "nobody" in answer.text


def test_an_unknown_framework_comes_before_the_missing_stream_id(cluster):
    answer = request(cluster.url, "POST", SCHEDULER, TEARDOWN, {**MEDIA, "Mesos-Stream-Id": "x"})
    assert answer.status == 400
    assert "nobody" in answer.text


def test_a_call_needs_the_stream_id_of_its_subscription(cluster, scheduler):
    revive = {"type": "REVIVE", "framework_id": {"value": scheduler.framework_id}}
    missing = request(cluster.url, "POST", SCHEDULER, revive)
    assert missing.status == 400
    assert "Mesos-Stream-Id" in missing.text
    wrong = request(cluster.url, "POST", SCHEDULER, revive, {**MEDIA, "Mesos-Stream-Id": "another"})
    assert wrong.status == 400
    assert scheduler.call("REVIVE").status == 202


def test_a_subscription_must_not_bring_a_stream_id(cluster, info):
    answer = request(cluster.url, "POST", SCHEDULER, subscribe_call(info), {**MEDIA, "Mesos-Stream-Id": "x"})
    assert answer.status == 400


def test_a_framework_whose_stream_broke_is_forbidden(cluster, info):
    opened = Subscription(cluster.url, info).registered()
    opened.close()
    wait_until(lambda: opened.call("REVIVE").status == 403, "the notice that the stream broke")
    with Subscription(cluster.url, {**info, "id": {"value": opened.framework_id}}) as again:
        assert again.registered().framework_id == opened.framework_id
        assert opened.call("REVIVE").status == 400  # its stream id is of the old stream
        again.tell("TEARDOWN")


@pytest.mark.parametrize(
    ("envelope", "inner"), [("f1", "f2"), (None, "f2"), ("f1", None)], ids=["other", "missing", "surplus"]
)
def test_framework_ids_that_differ_are_a_bad_request(cluster, info, envelope, inner):
    call = subscribe_call({**info, **({"id": {"value": inner}} if inner else {})})
    if envelope:
        call["framework_id"] = {"value": envelope}
    assert request(cluster.url, "POST", SCHEDULER, call).status == 400


@pytest.mark.parametrize(
    "kind",
    [
        "REVIVE", "SUPPRESS", "DECLINE", "RECONCILE", "REQUEST", "MESSAGE", "SHUTDOWN", "KILL", "ACKNOWLEDGE",
        "ACCEPT_INVERSE_OFFERS", "DECLINE_INVERSE_OFFERS", "RECONCILE_OPERATIONS", "ACKNOWLEDGE_OPERATION_STATUS",
    ],
)  # fmt: skip
def test_calls_are_accepted_with_202_and_no_body(scheduler, kind):
    ids = {"agent_id": {"value": "a"}, "executor_id": {"value": "e"}, "task_id": {"value": "t"}}
    body = {**ids, "operation_id": {"value": "o"}, "data": "aGk=", "uuid": "AAECAwQFBgcICQoLDA0ODw=="}
    answer = scheduler.call(kind, body)
    assert (answer.status, answer.body) == (202, b"")


def test_updating_a_framework_answers_200(cluster, scheduler, info):
    changed = {**info, "id": {"value": scheduler.framework_id}, "name": "renamed"}
    assert scheduler.call("UPDATE_FRAMEWORK", {"framework_info": changed}).status == 200
    shown = cluster.get(f"/frameworks?framework_id={scheduler.framework_id}").json["frameworks"]
    assert [f["name"] for f in shown] == ["renamed"]


def test_many_calls_travel_on_one_connection(cluster, scheduler):
    from mesos_client import connect

    connection = connect(cluster.url)
    body = json.dumps({"type": "REVIVE", "framework_id": {"value": scheduler.framework_id}})
    for _ in range(50):
        connection.request("POST", SCHEDULER, body, {**MEDIA, "Mesos-Stream-Id": scheduler.stream_id})
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (202, b"")
    connection.close()


def test_an_endless_body_is_refused_and_a_cut_one_harms_nobody(cluster, info):
    parts = urlsplit(cluster.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=20) as large:
        large.sendall(
            f"POST {SCHEDULER} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            f"Content-Length: {10**12}\r\n\r\n".encode()
        )
        assert b" 413 " in large.recv(4096)
    with socket.create_connection((parts.hostname, parts.port), timeout=20) as cut:
        head = f"POST {SCHEDULER} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
        cut.sendall(head.encode() + b'{"type":')
    assert cluster.get("/health").status == 200
