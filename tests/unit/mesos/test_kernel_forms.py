"""In which form operators see resources, what they must not bring, and what frameworks say of offers."""

import json

import msgspec
import pytest
from test_mesos_legacy import VERSION, agent, cluster

from corral.lib.errors import Invalid
from corral.mesos.common import write_framework_info
from corral.mesos.flat import write_full
from corral.mesos.operator import OperatorCall, read_call, write_response
from corral.mesos.scheduler import check_framework
from corral.mesos.scheduler import read_call as read_scheduler_call
from corral.model.calls import Subscribe
from corral.model.framework import OfferFilter
from corral.model.resources import Identity, Reservation, scalar

DYNAMIC = Reservation(role="ads", principal="ops")
REFINED = (DYNAMIC, Reservation(role="ads/etl", principal="ops"))


def shown(*resources: object) -> list[dict[str, object]]:
    row = agent("a1")
    row = msgspec.structs.replace(row, info=msgspec.structs.replace(row.info, resources=resources))
    (found,) = json.loads(write_response(OperatorCall.GET_AGENTS, cluster(agents=(row,)), VERSION))["get_agents"][
        "agents"
    ]
    totals = sorted(found["total_resources"], key=lambda r: r["scalar"]["value"])
    assert found["agent_info"]["resources"] == totals == json.loads(msgspec.json.encode(write_full(resources)))
    return totals


def test_operators_see_both_forms_of_a_resource_where_the_older_one_can_say_it() -> None:
    plain, reserved, refined = shown(
        scalar("cpus", 1), scalar("cpus", 2, Identity(reservations=(DYNAMIC,))),
        scalar("cpus", 3, Identity(reservations=REFINED)),
    )  # fmt: skip
    assert (plain["role"], "reservations" in plain) == ("*", False)
    assert (reserved["role"], reserved["reservation"]) == ("ads", {"principal": "ops"})
    assert reserved["reservations"] == [{"type": "DYNAMIC", "role": "ads", "principal": "ops"}]
    assert "role" not in refined
    assert [r["role"] for r in refined["reservations"]] == ["ads", "ads/etl"]


@pytest.mark.parametrize(("call", "field"), [
    ("RESERVE_RESOURCES", "resources"), ("RESERVE_RESOURCES", "source"), ("UNRESERVE_RESOURCES", "resources"),
    ("CREATE_VOLUMES", "volumes"), ("GROW_VOLUME", "addition"),
])  # fmt: skip
def test_what_an_operator_brings_is_allocated_to_nobody(call: str, field: str) -> None:
    disk = {"name": "disk", "type": "SCALAR", "scalar": {"value": 1}, "role": "ads", "reservation": {}}
    member = {"agent_id": {"value": "a1"}, "resources": [disk], "volumes": [disk], "volume": disk, "addition": disk}
    charged = {**disk, "allocation_info": {"role": "ads"}}
    member[field] = charged if field == "addition" else [charged]
    with pytest.raises(Invalid, match="no allocation_info"):
        read_call(json.dumps({"type": call, call.lower(): member}).encode())


def subscribe(filters: object) -> Subscribe:
    info = {"user": "u", "name": "n", "role": "ads", "offer_filters": filters}
    call = read_scheduler_call(json.dumps({"type": "SUBSCRIBE", "subscribe": {"framework_info": info}}).encode())
    assert isinstance(call, Subscribe)
    return call


def least(*quantities: dict[str, float]) -> dict[str, object]:
    found = [{"quantities": {name: {"value": n} for name, n in each.items()}} for each in quantities]
    return {"min_allocatable_resources": {"quantities": found}}


def test_offer_filters_are_read_and_shown_as_they_were_given() -> None:
    given = {"ads": least({"cpus": 1.5, "mem": 64.0}, {"gpus": 1.0})}
    info = subscribe(given).info
    assert info.offer_filters == (
        OfferFilter(role="ads", least=((("cpus", 1500), ("mem", 64_000)), (("gpus", 1000),))),
    )
    assert json.loads(msgspec.json.encode(write_framework_info(info)))["offer_filters"] == given
    assert check_framework(info) is None
    assert subscribe({"ads": {}}).info.offer_filters == ()
    assert subscribe({"ads": least()}).info.offer_filters == (OfferFilter(role="ads"),)


def test_offer_filters_that_make_no_sense_are_an_error() -> None:
    assert "subscribed to ads" in (check_framework(subscribe({"web": least({"cpus": 1})}).info) or "")
    assert "name no resource" in (check_framework(subscribe({"ads": least({})}).info) or "")
    for amount in (0, -1, "Infinity", 1e16):
        with pytest.raises(Invalid, match=r"offer_filters\.ads.*cpus is not above 0"):
            subscribe({"ads": least({"cpus": amount})})  # type: ignore[dict-item]
