"""Weights and quotas on Mesos' doors: what each body means, what is refused, and how what is set is shown."""

import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_mesos_legacy import cluster, shown
from test_mesos_operator import asked

from corral.lib.errors import Invalid
from corral.mesos import quota
from corral.mesos.operator import read_call
from corral.mesos.snapshot import RoleRow
from corral.model.operator import RemoveQuota, SetQuota, UpdateQuota, UpdateWeights
from corral.model.resources import scalar
from corral.model.role import Quota, RoleSettings

CPUS = {"name": "cpus", "type": "SCALAR", "scalar": {"value": 2}}
MEM = {"name": "mem", "type": "SCALAR", "scalar": {"value": 512.5}}


def call(kind, **body):
    return json.dumps({"type": kind, kind.lower(): body}).encode()


@pytest.mark.parametrize(
    ("body", "meaning"),
    [
        (
            call("UPDATE_WEIGHTS", weight_infos=[{"role": " ads/etl ", "weight": 2}, {"role": "*", "weight": "0.5"}]),
            UpdateWeights(weights=(("ads/etl", 2.0), ("*", 0.5))),
        ),
        (call("UPDATE_WEIGHTS"), UpdateWeights()),
        (call("UPDATE_WEIGHTS", weight_infos={"role": "ads", "weight": 1}), UpdateWeights(weights=(("ads", 1.0),))),
        (
            call(
                "UPDATE_QUOTA",
                force=True,
                quota_configs=[
                    {
                        "role": "ads",
                        "guarantees": {"mem": {"value": 512.5}, "cpus": {"value": 2}, "gpus": {"value": 0}},
                        "limits": {"cpus": {"value": 4}, "gpus": {"value": 0}, "disk": None},
                    },
                    {"role": "web"},
                ],
            ),
            UpdateQuota(
                quotas=(
                    Quota(
                        role="ads",
                        guarantee=(scalar("cpus", 2), scalar("mem", 512.5)),
                        limit=(scalar("cpus", 4), scalar("gpus", 0)),
                    ),
                    Quota(role="web"),
                ),
                force=True,
            ),
        ),
        (call("UPDATE_QUOTA", quota_configs=None), UpdateQuota()),
        (
            call("SET_QUOTA", quota_request={"role": "ads", "guarantee": [MEM, {**CPUS, "role": "*"}]}),
            SetQuota(
                quota=Quota(
                    role="ads",
                    guarantee=(scalar("cpus", 2), scalar("mem", 512.5)),
                    limit=(scalar("cpus", 2), scalar("mem", 512.5)),
                )
            ),
        ),
        (call("REMOVE_QUOTA", role="ads"), RemoveQuota(role="ads")),
    ],
)
def test_a_call_means_what_its_client_meant(body, meaning):
    assert read_call(body) == meaning


WRONG_AMOUNTS = [{"value": -1}, {"value": 1e13}, {"value": "Infinity"}, {"value": "NaN"}, {"value": "many"}, {}, 3]
WRONG_ROLES = ["", None, " ", "*", "ads/etl", "a//b", "-x", "..", "a b"]


@pytest.mark.parametrize("amount", WRONG_AMOUNTS)
@pytest.mark.parametrize("member", ["guarantees", "limits"])
def test_an_amount_that_cannot_be_is_refused(amount, member):
    fine = {"role": "fine", member: {"cpus": {"value": 1}}}
    with pytest.raises(Invalid, match=r"cpus|quota_configs"):
        read_call(call("UPDATE_QUOTA", quota_configs=[fine, {"role": "ads", member: {"cpus": amount}}]))


@pytest.mark.parametrize("role", WRONG_ROLES)
def test_a_role_that_mesos_gives_no_quota_is_refused_on_every_door(role):
    request = {"role": role, "guarantee": [CPUS]}
    for read, body in (
        (read_call, call("UPDATE_QUOTA", quota_configs=[{"role": role, "limits": {}}])),
        (read_call, call("SET_QUOTA", quota_request=request)),
        (read_call, call("REMOVE_QUOTA", role=role)),
        (quota.read_quota_request, json.dumps(request).encode()),
        (lambda name: quota.read_remove_quota(name or ""), role),
    ):
        with pytest.raises(Invalid, match="role"):
            read(body)


def test_a_role_has_one_quota():
    twice = [{"role": "ads", "limits": {"cpus": {"value": 1}}}, {"role": "web"}, {"role": "ads"}]
    with pytest.raises(Invalid, match="role ads is named more than once"):
        read_call(call("UPDATE_QUOTA", quota_configs=twice))


def test_the_refusal_of_a_nested_role_says_where_it_is_done():
    with pytest.raises(Invalid, match="PUT /corral/v1/roles/ads/etl or corral role set"):
        read_call(call("UPDATE_QUOTA", quota_configs=[{"role": "ads/etl"}]))


@pytest.mark.parametrize(
    "info", [{"role": "ads"}, {"weight": 1}, {"role": "", "weight": 1}, {"role": "a b", "weight": 1}, 7]
)
def test_a_weight_without_role_or_number_is_refused(info):
    for read, body in (
        (read_call, call("UPDATE_WEIGHTS", weight_infos=[{"role": "fine", "weight": 1}, info])),
        (quota.read_weights, json.dumps([{"role": "fine", "weight": 1}, info]).encode()),
    ):
        with pytest.raises(Invalid):
            read(body)


@pytest.mark.parametrize(
    "guarantee",
    [
        [],
        [{"name": "ports", "type": "RANGES", "ranges": {"range": [{"begin": 1, "end": 2}]}}],
        [{"name": "cpus", "type": "SCALAR"}],
        [{"name": "cpus", "type": "HEAP", "scalar": {"value": 1}}],
        [{**CPUS, "scalar": {"value": -1}}],
        [CPUS, CPUS],
        [{**CPUS, "role": "ads"}],
        [{**CPUS, "reservation": {"principal": "p"}}],
        [{**CPUS, "reservations": [{"type": "STATIC", "role": "ads"}]}],
        [{**CPUS, "revocable": {}}],
        [{**CPUS, "disk": {}}],
    ],
)
def test_a_guarantee_of_anything_but_plain_scalars_is_refused(guarantee):
    for read, body in (
        (read_call, call("SET_QUOTA", quota_request={"role": "ads", "guarantee": guarantee})),
        (quota.read_quota_request, json.dumps({"role": "ads", "guarantee": guarantee}).encode()),
    ):
        with pytest.raises(Invalid, match="ads"):
            read(body)


@pytest.mark.parametrize("kind", ["UPDATE_WEIGHTS", "UPDATE_QUOTA", "SET_QUOTA", "REMOVE_QUOTA"])
def test_a_call_without_its_member_is_refused(kind):
    for body in ({"type": kind}, {"type": kind, kind.lower(): None}, {"type": kind, "get_quota": {}}):
        with pytest.raises(Invalid, match=f"Expecting '{kind.lower()}' to be present"):
            read_call(json.dumps(body).encode())


@pytest.mark.parametrize("body", [b"", b"{}", b"{", b'"x"', b'[],"weight_infos":[]', b"[" * 100_000, b"[[]]", b"[1]"])
def test_only_an_array_updates_weights_by_the_older_door(body):
    with pytest.raises(Invalid):
        quota.read_weights(body)


def test_the_older_door_takes_a_bare_array():
    assert quota.read_weights(b'[{"role": "ads", "weight": 2.5}]') == UpdateWeights(weights=(("ads", 2.5),))
    assert quota.read_weights(b" [] ") == UpdateWeights()


ROLES = (
    RoleRow(name="ads", settings=RoleSettings(weight=2, guarantee=(scalar("cpus", 1),), limit=(scalar("gpus", 0),))),
    RoleRow(name="ads/etl", settings=RoleSettings(limit=(scalar("mem", 64),))),
    RoleRow(name="used"),
    RoleRow(name="web", settings=RoleSettings(priority=3)),
)


def test_weights_are_shown_of_roles_that_somebody_has_set():
    weights = [{"role": "ads", "weight": 2.0}, {"role": "ads/etl", "weight": 1.0}, {"role": "web", "weight": 1.0}]
    assert asked("GET_WEIGHTS", roles=ROLES) == {"weight_infos": weights}
    assert shown(quota.write_weights(cluster(roles=ROLES))) == weights
    assert asked("GET_WEIGHTS") == {}
    assert shown(quota.write_weights(cluster())) == []


def test_quotas_are_shown_in_both_forms():
    status = {
        "infos": [
            {
                "role": "ads",
                "guarantee": [{"name": "cpus", "type": "SCALAR", "scalar": {"value": 1.0}, "role": "*"}],
            }
        ],
        "configs": [
            {"role": "ads", "guarantees": {"cpus": {"value": 1.0}}, "limits": {"gpus": {"value": 0.0}}},
            {"role": "ads/etl", "limits": {"mem": {"value": 64.0}}},
        ],
    }
    assert asked("GET_QUOTA", roles=ROLES) == {"status": status}
    assert shown(quota.write_quota_status(cluster(roles=ROLES))) == status
    assert asked("GET_QUOTA") == {"status": {}}


scalars = st.dictionaries(st.sampled_from(["cpus", "mem", "disk", "bugs"]), st.integers(0, 10**9), max_size=3)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(scalars, scalars), max_size=3))
def test_what_is_shown_of_quotas_sets_the_same_quotas(found):
    quotas = tuple(
        Quota(
            role=f"r{number}",
            guarantee=tuple(scalar(n, v / 1000) for n, v in sorted(guarantee.items()) if v),
            limit=tuple(scalar(n, v / 1000) for n, v in sorted(limit.items())),
        )
        for number, (guarantee, limit) in enumerate(found)
    )
    rows = tuple(
        RoleRow(name=q.role, settings=RoleSettings(guarantee=q.guarantee, limit=q.limit)) for q in quotas
    )  # fmt: skip
    status = shown(quota.write_quota_status(cluster(roles=rows)))
    again = read_call(call("UPDATE_QUOTA", quota_configs=status.get("configs", [])))
    assert again == UpdateQuota(quotas=tuple(q for q in quotas if q.guarantee or q.limit))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(again), type=UpdateQuota) == again
