"""In which form operators see resources, and what they must not bring."""

import json

import msgspec
import pytest
from test_mesos_legacy import VERSION, agent, cluster

from corral.lib.errors import Invalid
from corral.mesos.flat import write_full
from corral.mesos.operator import OperatorCall, read_call, write_response
from corral.model.resources import Identity, Reservation, scalar

DYNAMIC = Reservation(role="ads", principal="ops")
REFINED = (DYNAMIC, Reservation(role="ads/etl", principal="ops"))


def shown(*resources: object) -> list[dict[str, object]]:
    row = agent("a1")
    row = msgspec.structs.replace(row, info=msgspec.structs.replace(row.info, resources=resources))
    (found,) = json.loads(write_response(OperatorCall.GET_AGENTS, cluster(agents=(row,)), VERSION))["get_agents"][
        "agents"
    ]
    assert found["agent_info"]["resources"] == found["total_resources"]
    assert found["total_resources"] == json.loads(msgspec.json.encode(write_full(resources)))
    return list(found["total_resources"])


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
