"""Events as clients get them: names, numbers and forms that real schedulers rely on."""

import json

import pytest

from corral.lib.errors import Invalid
from corral.mesos.scheduler import read_event, write_event
from corral.model import events
from corral.model.attributes import Attribute, AttributeKind
from corral.model.offer import Explanation, Offer, Refusal
from corral.model.resources import Identity, Reservation, normal, ports, scalar
from corral.model.task import ContainerStatus, Reason, Source, TaskState, TaskStatus

MASTER = events.MasterInfo(id="m", hostname="node", ip="127.0.0.1", port=4680, version="1.11.0")


def written(event, refinement=False):
    return json.loads(write_event(event, refinement=refinement))


def offer(*resources, **fields):
    return Offer(
        id="o", framework_id="f", agent_id="a", hostname="node", ip="10.0.0.7", port=4681, role="ads",
        resources=normal(resources), **fields,
    )  # fmt: skip


def test_subscribed_tells_the_heartbeat_and_the_master():
    assert written(events.Subscribed(framework_id="f", heartbeat_interval_s=15, master=MASTER)) == {
        "type": "SUBSCRIBED",
        "subscribed": {
            "framework_id": {"value": "f"},
            "heartbeat_interval_seconds": 15.0,
            "master_info": {
                "id": "m",
                "ip": 16777343,
                "port": 4680,
                "pid": "master@127.0.0.1:4680",
                "hostname": "node",
                "version": "1.11.0",
                "address": {"hostname": "node", "ip": "127.0.0.1", "port": 4680},
                "capabilities": [{"type": "QUOTA_V2"}],
            },
        },
    }


def test_an_offer_repeats_its_role_with_every_resource_and_names_the_agents_address():
    shaped = offer(
        scalar("cpus", 2), ports((31000, 31001)), want_id="w",
        attributes=(Attribute(name="rack", text="r1"), Attribute(name="level", kind=AttributeKind.SCALAR, milli=2500)),
    )  # fmt: skip
    (found,) = written(events.Offers(offers=(shaped,)))["offers"]["offers"]
    assert found == {
        "id": {"value": "o"},
        "framework_id": {"value": "f"},
        "agent_id": {"value": "a"},
        "hostname": "node",
        "url": {"scheme": "http", "address": {"hostname": "node", "ip": "10.0.0.7", "port": 4681}, "path": "/slave(1)"},
        "allocation_info": {"role": "ads"},
        "resources": [
            {
                "name": "cpus",
                "type": "SCALAR",
                "scalar": {"value": 2.0},
                "role": "*",
                "allocation_info": {"role": "ads"},
            },
            {
                "name": "ports",
                "type": "RANGES",
                "ranges": {"range": [{"begin": 31000, "end": 31001}]},
                "role": "*",
                "allocation_info": {"role": "ads"},
            },
        ],
        "attributes": [
            {"name": "rack", "type": "TEXT", "text": {"value": "r1"}},
            {"name": "level", "type": "SCALAR", "scalar": {"value": 2.5}},
        ],
        "corral_want_id": "w",
    }


def test_integral_doubles_are_written_as_doubles():
    assert b'{"value":2.0}' in write_event(events.Offers(offers=(offer(scalar("cpus", 2)),)), refinement=False)


@pytest.mark.parametrize(
    ("identity", "older", "newer"),
    [
        (Identity(), {"role": "*"}, {}),
        (
            Identity(reservations=(Reservation(role="ads", static=True),)),
            {"role": "ads"},
            {"reservations": [{"type": "STATIC", "role": "ads"}]},
        ),
        (
            Identity(reservations=(Reservation(role="ads", principal="p"),)),
            {"role": "ads", "reservation": {"principal": "p"}},
            {"reservations": [{"type": "DYNAMIC", "role": "ads", "principal": "p"}]},
        ),
    ],
)
def test_the_form_of_a_reservation_follows_the_frameworks_capability(identity, older, newer):
    event = events.Offers(offers=(offer(scalar("disk", 1, identity)),))
    plain = {"name": "disk", "type": "SCALAR", "scalar": {"value": 1.0}, "allocation_info": {"role": "ads"}}
    assert written(event)["offers"]["offers"][0]["resources"] == [{**plain, **older}]
    assert written(event, refinement=True)["offers"]["offers"][0]["resources"] == [{**plain, **newer}]


def test_an_update_says_whose_uuid_has_to_be_acknowledged():
    status = TaskStatus(
        task_id="t", state=TaskState.FAILED, at=1700000000.25, source=Source.AGENT, message="exit 3",
        reason=Reason.CONTAINER_LAUNCH_FAILED, agent_id="a", executor_id="t", uuid=bytes(range(16)), healthy=False,
        container_status=ContainerStatus(container_id="c"), unreachable_at=1700000000.5,
    )  # fmt: skip
    assert written(events.Update(status=status)) == {
        "type": "UPDATE",
        "update": {
            "status": {
                "task_id": {"value": "t"},
                "state": "TASK_FAILED",
                "message": "exit 3",
                "source": "SOURCE_AGENT",
                "reason": "REASON_CONTAINER_LAUNCH_FAILED",
                "agent_id": {"value": "a"},
                "executor_id": {"value": "t"},
                "timestamp": 1700000000.25,
                "uuid": "AAECAwQFBgcICQoLDA0ODw==",
                "healthy": False,
                "container_status": {"container_id": {"value": "c"}},
                "unreachable_time": {"nanoseconds": 1700000000500000000},
            }
        },
    }


def test_the_small_events_have_their_one_field():
    assert written(events.Heartbeat()) == {"type": "HEARTBEAT"}
    assert written(events.Error(message="no")) == {"type": "ERROR", "error": {"message": "no"}}
    assert written(events.Rescind(offer_id="o")) == {"type": "RESCIND", "rescind": {"offer_id": {"value": "o"}}}
    assert written(events.Failure(agent_id="a")) == {"type": "FAILURE", "failure": {"agent_id": {"value": "a"}}}
    message = events.Message(agent_id="a", executor_id="e", data=b"hi")
    assert written(message)["message"]["data"] == "aGk="


def test_explanations_say_why_a_want_waits():
    row = Explanation(
        want_id="w", framework_id="f", role="*", waiting=2, since_at=5.0, agents=3,
        refusals=(Refusal(reason="mem", detail="asks 1 TB", agents=3, best="a"),), fits_if=("mem 1024",), never=True,
    )  # fmt: skip
    assert written(events.Explanations(explanations=(row,))) == {
        "type": "EXPLANATIONS",
        "explanations": {
            "explanations": [
                {
                    "want_id": "w",
                    "framework_id": {"value": "f"},
                    "role": "*",
                    "waiting": 2,
                    "since_at": 5.0,
                    "agents": 3,
                    "refusals": [{"reason": "mem", "detail": "asks 1 TB", "agents": 3, "best": "a"}],
                    "fits_if": ["mem 1024"],
                    "never": True,
                }
            ]
        },
    }


@pytest.mark.parametrize("kind", ["SOMETHING_NEW", "DANCE"])
def test_events_of_no_use_are_signs_of_life(kind):
    assert read_event(json.dumps({"type": kind, kind.lower(): {"a": 1}}).encode()) == events.Heartbeat()


@pytest.mark.parametrize("kind", ["SUBSCRIBED", "OFFERS", "RESCIND", "UPDATE", "MESSAGE", "FAILURE", "ERROR"])
def test_an_event_without_its_body_is_refused(kind):
    with pytest.raises(Invalid, match=f"Expecting '{kind.lower()}'"):
        read_event(json.dumps({"type": kind}).encode())


def test_a_status_of_an_unknown_state_is_refused_and_of_an_unknown_reason_is_not():
    status = {"task_id": {"value": "t"}, "state": "TASK_RUNNING", "reason": "REASON_MOON_PHASE", "source": "SOURCE_X"}
    found = read_event(json.dumps({"type": "UPDATE", "update": {"status": status}}).encode()).status
    assert (found.reason, found.source) == (None, Source.MASTER)
    with pytest.raises(Invalid, match=r"update\.status\.state': 'TASK_DANCING'"):
        read_event(json.dumps({"type": "UPDATE", "update": {"status": {**status, "state": "TASK_DANCING"}}}).encode())


def test_an_address_that_is_no_ipv4_has_no_number():
    event = events.Subscribed(
        framework_id="f",
        heartbeat_interval_s=1,
        master=events.MasterInfo(id="m", hostname="h", ip="::1", port=1, version="1.11.0"),
    )
    assert "ip" not in written(event)["subscribed"]["master_info"]
    assert read_event(write_event(event, refinement=False)).master.ip == "::1"
