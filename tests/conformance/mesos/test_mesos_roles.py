"""Roles over the wire: Mesos' calls for weights and quota, its older endpoints, and corral's own paths."""

import json

import pytest
from mesos_client import MEDIA, forget_roles, request

from corral.mesos.operator import read_call
from corral.model.operator import SetQuota, UpdateQuota, UpdateWeights
from corral.model.resources import scalar
from corral.model.role import Quota

# The bodies that Mesos' own documentation and pymesos 0.3.15 send.
TRANSCRIPTS = [
    (
        '{"type": "UPDATE_WEIGHTS", "update_weights": {"weight_infos": [{"role": "role1", "weight": 4.0}]}}',
        UpdateWeights(weights=(("role1", 4.0),)),
    ),
    (
        '{"type": "UPDATE_QUOTA", "update_quota": {"force": false, "quota_configs": [{"role": "dev", "limits": '
        '{"cpus": {"value": 10}, "mem": {"value": 2048}, "disk": {"value": 4096}}}, {"role": "test", "limits": '
        '{"cpus": {"value": 1}, "mem": {"value": 256}, "disk": {"value": 512}}}]}}',
        UpdateQuota(
            quotas=(
                Quota(role="dev", limit=(scalar("cpus", 10), scalar("disk", 4096), scalar("mem", 2048))),
                Quota(role="test", limit=(scalar("cpus", 1), scalar("disk", 512), scalar("mem", 256))),
            )
        ),
    ),
    (
        '{"type": "SET_QUOTA", "set_quota": {"quota_request": {"force": true, "guarantee": [{"name": "cpus", "role": '
        '"*", "scalar": {"value": 1.0}, "type": "SCALAR"}, {"name": "mem", "role": "*", "scalar": {"value": 512.0}, '
        '"type": "SCALAR"}], "role": "role1"}}}',
        SetQuota(
            quota=Quota(
                role="role1",
                guarantee=(scalar("cpus", 1), scalar("mem", 512)),
                limit=(scalar("cpus", 1), scalar("mem", 512)),
            ),
            force=True,
        ),
    ),
]


@pytest.mark.parametrize(("body", "meaning"), TRANSCRIPTS)
def test_a_recorded_call_means_what_its_client_meant(body, meaning):
    assert read_call(body.encode()) == meaning


@pytest.fixture
def operate(cluster):
    """Posts an operator call; what it has set is forgotten afterwards."""

    def post(kind, path="/api/v1", **body):
        return request(cluster.url, "POST", path, {"type": kind, kind.lower(): body})

    yield post
    forget_roles(cluster.url)


def known(cluster):
    """All that is set of roles, as each door shows it."""
    paths = ("/quota", "/weights", "/corral/v1/roles")
    return [cluster.get(path).json for path in paths]


def cpus(value):
    return {"cpus": {"value": value}}


@pytest.mark.parametrize("path", ["/api/v1", "/api/v1/operator", "/master/api/v1"])
def test_a_change_answers_200_without_a_body_and_can_be_read_back(operate, path):
    config = {"role": "ads", "guarantees": cpus(1.0), "limits": {**cpus(2.5), "gpus": {"value": 0.0}}}
    answer = operate("UPDATE_QUOTA", path, quota_configs=[config])
    assert (answer.status, answer.body) == (200, b"")
    assert operate("UPDATE_WEIGHTS", path, weight_infos=[{"role": "ads", "weight": 2}]).status == 200
    assert operate("GET_QUOTA", path).json["get_quota"]["status"]["configs"] == [config]
    assert operate("GET_WEIGHTS", path).json["get_weights"] == {"weight_infos": [{"role": "ads", "weight": 2.0}]}
    roles = {r["name"]: r for r in operate("GET_ROLES", path).json["get_roles"]["roles"]}
    assert roles["ads"]["weight"] == 2.0
    cleared = operate("UPDATE_QUOTA", path, quota_configs=[{"role": "ads"}])
    assert cleared.status == 200
    assert operate("GET_QUOTA", path).json["get_quota"] == {"status": {}}


FINE = {"role": "fine", "limits": cpus(1)}
REQUEST = [{"name": "cpus", "type": "SCALAR", "scalar": {"value": 1}}]
REFUSED = [
    ("UPDATE_WEIGHTS", {"weight_infos": [{"role": "fine", "weight": 2}, {"role": "ads", "weight": 0}]}, 400),
    ("UPDATE_WEIGHTS", {"weight_infos": [{"role": "fine", "weight": 2}, {"role": "ads", "weight": -1}]}, 400),
    ("UPDATE_WEIGHTS", {"weight_infos": [{"role": "fine", "weight": 2}, {"role": "a b", "weight": 1}]}, 400),
    ("UPDATE_WEIGHTS", {"weight_infos": [{"role": "fine", "weight": 2}, {"weight": 1}]}, 400),
    ("UPDATE_WEIGHTS", {"weight_infos": [{"role": "fine", "weight": 2}, {"role": "ads"}]}, 400),
    ("UPDATE_QUOTA", {"quota_configs": [FINE, {"role": "ads/etl", "limits": cpus(1)}]}, 400),
    ("UPDATE_QUOTA", {"quota_configs": [FINE, {"role": "*", "limits": cpus(1)}]}, 400),
    ("UPDATE_QUOTA", {"quota_configs": [FINE, {"limits": cpus(1)}]}, 400),
    ("UPDATE_QUOTA", {"quota_configs": [FINE, {"role": "ads", "limits": cpus(-1)}]}, 400),
    ("UPDATE_QUOTA", {"quota_configs": [FINE, {"role": "ads", "limits": cpus("Infinity")}]}, 400),
    ("UPDATE_QUOTA", {"quota_configs": [FINE, {"role": "ads", "limits": {"cpus": {}}}]}, 400),
    ("UPDATE_QUOTA", {"quota_configs": [FINE, {"role": "ads", "limits": {"cpus": 1}}]}, 400),
    ("UPDATE_QUOTA", {"quota_configs": [FINE, {"role": "ads", "guarantees": cpus(2), "limits": cpus(1)}]}, 400),
    ("UPDATE_QUOTA", {"quota_configs": [FINE, {"role": "ads", "guarantees": cpus(100)}]}, 400),
    ("UPDATE_QUOTA", {"quota_configs": [FINE], "force": "perhaps"}, 400),
    ("SET_QUOTA", {}, 400),
    ("SET_QUOTA", {"quota_request": {"role": "ads"}}, 400),
    ("SET_QUOTA", {"quota_request": {"role": "ads/etl", "guarantee": REQUEST}}, 400),
    ("SET_QUOTA", {"quota_request": {"role": "ads", "guarantee": REQUEST * 2}}, 400),
    ("SET_QUOTA", {"quota_request": {"role": "ads", "guarantee": [{"name": "cpus", "type": "SCALAR"}]}}, 400),
    ("SET_QUOTA", {"quota_request": {"role": "ads", "guarantee": [{**REQUEST[0], "revocable": {}}]}}, 400),
    ("SET_QUOTA", {"quota_request": {"role": "ads", "guarantee": [{**REQUEST[0], "scalar": {"value": 99}}]}}, 409),
    ("REMOVE_QUOTA", {}, 400),
    ("REMOVE_QUOTA", {"role": "ads"}, 400),
]


@pytest.mark.parametrize(("kind", "body", "status"), REFUSED)
def test_what_breaks_a_rule_is_refused_with_its_status_and_changes_nothing(cluster, operate, kind, body, status):
    before = known(cluster)
    answer = operate(kind, **body)
    assert (answer.status, answer.headers["Content-Type"].partition(";")[0]) == (status, "text/plain")
    assert answer.text
    assert known(cluster) == before


@pytest.mark.parametrize("kind", ["UPDATE_WEIGHTS", "UPDATE_QUOTA", "SET_QUOTA", "REMOVE_QUOTA"])
def test_the_order_of_checks_is_that_of_every_operator_call(cluster, kind):
    def status(body, headers):
        return request(cluster.url, "POST", "/api/v1", body, headers).status

    body = json.dumps({"type": kind}).encode()
    assert status(body, {}) == 400
    assert status(body, {"Content-Type": "application/x-protobuf"}) == 415
    assert status(body, {**MEDIA, "Accept": "text/html"}) == 400
    whole = json.dumps({"type": "UPDATE_WEIGHTS", "update_weights": {}}).encode()
    assert status(whole, {**MEDIA, "Accept": "text/html"}) == 406


def test_force_guarantees_more_than_there_is(operate):
    config = {"role": "ads", "guarantees": cpus(100)}
    assert operate("UPDATE_QUOTA", quota_configs=[config]).status == 400
    assert operate("UPDATE_QUOTA", quota_configs=[config], force=True).status == 200
    more = {"role": "web", "guarantees": cpus(1)}
    assert operate("UPDATE_QUOTA", quota_configs=[more]).status == 400
    assert operate("UPDATE_QUOTA", quota_configs=[{"role": "ads", "guarantees": cpus(50)}]).status == 200


def test_a_limit_below_what_runs_needs_force_and_offers_are_taken_back(cluster, operate, info):
    from mesos_client import Subscription, task

    cluster.wait_until_idle()
    with Subscription(cluster.url, {**info, "role": "ads"}) as scheduler:
        scheduler.registered()
        offer = scheduler.offer()
        scheduler.launch(offer, task(offer, "held", "sleep 60", cpus=2))
        scheduler.update("TASK_RUNNING", task_id="held")
        rest = scheduler.offer()
        (role,) = [r for r in cluster.get("/roles").json["roles"] if r["name"] == "ads"]
        assert (role["quota"]["consumed"]["cpus"], role["offered"]["cpus"], role["allocated"]["cpus"]) == (
            4.0,
            2.0,
            2.0,
        )
        assert operate("UPDATE_QUOTA", quota_configs=[{"role": "ads", "limits": cpus(1)}]).status == 400
        assert operate("UPDATE_QUOTA", quota_configs=[{"role": "ads", "limits": cpus(2)}]).status == 200
        assert scheduler.next("RESCIND")["rescind"]["offer_id"] == rest["id"]
        assert operate("UPDATE_QUOTA", quota_configs=[{"role": "ads", "limits": cpus(1)}], force=True).status == 200
        states = [t["state"] for t in cluster.get(f"/tasks?framework_id={scheduler.framework_id}").json["tasks"]]
        assert states == ["TASK_RUNNING"], "no task is ended by a limit"
        forget_roles(cluster.url)
        scheduler.call("TEARDOWN")
    cluster.wait_until_idle()


@pytest.mark.parametrize("prefix", ["", "/master"])
def test_the_older_doors_set_show_and_remove(cluster, operate, prefix):
    def send(method, path, body=None):
        return request(cluster.url, method, prefix + path, body, {} if body is None else {"Content-Type": "text/plain"})

    assert send("POST", "/quota", {"role": "ads", "guarantee": REQUEST}).status == 200
    assert send("POST", "/quota", {"role": "ads", "guarantee": REQUEST, "force": True}).status == 400
    status = send("GET", "/quota").json
    assert status["infos"][0]["guarantee"][0]["scalar"] == {"value": 1.0}
    assert status["configs"] == [{"role": "ads", "guarantees": cpus(1.0), "limits": cpus(1.0)}]
    assert send("PUT", "/weights", [{"role": "ads/etl", "weight": 3}]).status == 200
    assert {"role": "ads/etl", "weight": 3.0} in send("GET", "/weights").json
    names = [r["name"] for r in send("GET", "/roles").json["roles"]]
    assert [n for n in names if n.startswith("ads")] == ["ads", "ads/etl"]
    for body in (b"{}", b"[", b'[{"role":"ads","weight":0}]', b'[{"role":"ads"}]', b'[],"x":[]', b"[7]"):
        before = known(cluster)
        assert send("PUT", "/weights", body).status == 400
        assert known(cluster) == before
    for body in (b"", b"[]", b"{}", b'{"role":"ads"}', b'{"role":"a/b","guarantee":[]}'):
        assert send("POST", "/quota", body).status == 400
    assert send("DELETE", "/quota/ads/etl").status == 400
    assert send("DELETE", "/quota/ads").status == 200
    assert send("DELETE", "/quota/ads").status == 400
    assert send("DELETE", "/quota").status == 405
    assert send("GET", "/quota").json == {}


# corral's own paths.


@pytest.mark.parametrize("path", ["ads/etl/nightly", "ads%2Fetl%2Fnightly", "ads%2fetl/nightly", "/ads//etl/nightly/"])
def test_a_nested_role_may_stand_in_a_path_in_any_form(cluster, operate, path):
    answer = request(cluster.url, "PUT", f"/corral/v1/roles/{path}", {"weight": 2, "limit": {"cpus": 1}})
    assert (answer.status, answer.json["name"], answer.json["parent"]) == (200, "ads/etl/nightly", "ads/etl")
    assert request(cluster.url, "GET", f"/corral/v1/roles/{path}").json == answer.json
    assert [r["name"] for r in cluster.get("/corral/v1/roles").json["roles"] if r["set"]] == ["ads/etl/nightly"]
    assert request(cluster.url, "DELETE", f"/corral/v1/roles/{path}").status == 204
    assert request(cluster.url, "DELETE", f"/corral/v1/roles/{path}").status == 404


def test_the_role_of_everybody_can_be_set_too(cluster, operate):
    answer = request(cluster.url, "PUT", "/corral/v1/roles/*", {"limit": {"cpus": 3}, "priority": 1})
    assert (answer.status, answer.json["name"]) == (200, "*")


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("a%20b", {}, 400),
        ("a%00b", {}, 400),
        ("%ff", {"weight": -1}, 400),
        ("%ED%A0%80", {"weight": -1}, 400),
        ("a%7Fb", {}, 400),
        ("-x", {}, 400),
        ("..%2Fx", {}, 400),
        ("a/*", {}, 400),
        ("a" * 256, {}, 400),
        ("ads", [], 400),
        ("ads", {"wieght": 2}, 400),
        ("ads", {"weight": 0}, 400),
        ("ads", {"weight": "2"}, 400),
        ("ads", {"priority": 1024}, 400),
        ("ads", {"max_tasks": -1}, 400),
        ("ads", {"half_life_s": 0}, 400),
        ("ads", {"strategy": "best"}, 400),
        ("ads", {"limit": {"cpus": -1}}, 400),
        ("ads", {"guarantee": {"cpus": 2}, "limit": {"cpus": 1}}, 400),
        ("ads", {"guarantee": {"cpus": 100}}, 409),
        ("ads?force=maybe", {"weight": 2}, 400),
    ],
)
def test_corrals_own_refusals_change_nothing(cluster, operate, path, body, status):
    before = known(cluster)
    answer = request(cluster.url, "PUT", f"/corral/v1/roles/{path}", body)
    assert (answer.status, answer.json["error"]["status"]) == (status, status)
    assert answer.json["error"]["message"]
    assert known(cluster) == before
