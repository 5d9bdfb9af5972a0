"""Maintenance on the wire: schedules, machines, drains; what is refused and how they are shown."""

import json

import msgspec
import pytest
from test_mesos_legacy import agent, cluster

from corral.lib.errors import Invalid
from corral.mesos.legacy import write_slaves
from corral.mesos.maintenance import CHANGES, read_change, read_machines, read_schedule
from corral.mesos.operator import read_call, write_response
from corral.model.maintenance import (
    Answer,
    AnswerRow,
    DeactivateAgent,
    Drain,
    DrainAgent,
    DrainState,
    Machine,
    MachineRow,
    MarkAgentGone,
    ReactivateAgent,
    StartMaintenance,
    StopMaintenance,
    Unavailability,
    UpdateSchedule,
    Window,
)

WINDOW = {"machine_ids": [{"hostname": "H1"}], "unavailability": {"start": {"nanoseconds": 5}}}
READ = Window(machines=(Machine(hostname="h1"),), unavailability=Unavailability(start_ns=5))


def asked(kind, **members):
    return read_call(json.dumps({"type": kind, **members}).encode())


def shown(kind, **fields):
    return json.loads(write_response(asked(kind), cluster(**fields), "1.11.0"))[kind.lower()]


@pytest.mark.parametrize(
    ("kind", "body", "wanted"),
    [
        ("UPDATE_MAINTENANCE_SCHEDULE", {"schedule": {"windows": [WINDOW]}}, UpdateSchedule(windows=(READ,))),
        ("UPDATE_MAINTENANCE_SCHEDULE", {"schedule": {}}, UpdateSchedule()),
        ("START_MAINTENANCE", {"machines": [{"ip": "::1"}]}, StartMaintenance(machines=(Machine(ip="::1"),))),
        ("STOP_MAINTENANCE", {"machines": [{"hostname": "a"}]}, StopMaintenance(machines=(Machine(hostname="a"),))),
        (
            "DRAIN_AGENT",
            {"agent_id": {"value": "a"}, "max_grace_period": {"seconds": 3, "nanos": 500_000_000}, "mark_gone": True},
            DrainAgent(agent_id="a", max_grace_s=3.5, mark_gone=True),
        ),
        ("DRAIN_AGENT", {"agent_id": {"value": "a"}}, DrainAgent(agent_id="a")),
        ("DEACTIVATE_AGENT", {"agent_id": {"value": "a"}}, DeactivateAgent(agent_id="a")),
        ("REACTIVATE_AGENT", {"agent_id": {"value": "a"}}, ReactivateAgent(agent_id="a")),
        ("MARK_AGENT_GONE", {"agent_id": {"value": "a"}}, MarkAgentGone(agent_id="a")),
    ],
)
def test_the_calls_of_maintenance_and_draining_are_read(kind, body, wanted):
    assert asked(kind, **{kind.lower(): body}) == wanted


@pytest.mark.parametrize("kind", CHANGES)
def test_a_call_without_its_member_is_refused(kind):
    assert read_change(kind, b"{}") is None
    with pytest.raises(Invalid, match=f"'{kind.lower()}' to be present"):
        asked(kind)


@pytest.mark.parametrize(
    ("window", "text"),
    [
        ({"unavailability": WINDOW["unavailability"]}, "machine_ids': the list is empty"),
        ({"machine_ids": [{}], "unavailability": WINDOW["unavailability"]}, "neither hostname nor ip"),
        ({"machine_ids": [{"ip": "h1"}], "unavailability": WINDOW["unavailability"]}, "'h1' is no address"),
        ({"machine_ids": [{"hostname": "a"}]}, "unavailability"),
        ({"machine_ids": [{"hostname": "a"}], "unavailability": {}}, "start"),
        (
            {"machine_ids": [{"hostname": "a"}], "unavailability": {"start": {"nanoseconds": 2**63}}},
            "start': 9223372036854775808 is no instant",
        ),
        *(
            (
                {
                    "machine_ids": [{"hostname": "a"}],
                    "unavailability": {"start": {"nanoseconds": 1}, "duration": {"nanoseconds": wrong}},
                },
                f"duration': {wrong} is not 0 or more",
            )
            for wrong in (-1, 2**63)
        ),
    ],
)
def test_a_window_that_cannot_be_is_refused_on_both_ways_in(window, text):
    with pytest.raises(Invalid, match=text):
        read_schedule(json.dumps({"windows": [window]}).encode())
    with pytest.raises(Invalid, match=text):
        asked("UPDATE_MAINTENANCE_SCHEDULE", update_maintenance_schedule={"schedule": {"windows": [window]}})


@pytest.mark.parametrize("grace", [{"seconds": -1}, {"nanos": -1}, {"nanos": 10**9}, {"seconds": 10**12}])
def test_a_grace_that_is_no_duration_is_refused(grace):
    with pytest.raises(Invalid, match="max_grace_period"):
        asked("DRAIN_AGENT", drain_agent={"agent_id": {"value": "a"}, "max_grace_period": grace})


@pytest.mark.parametrize("body", [b"", b"{}", b'{"machines":[]}', b"[1]", b"[{}]", b'[{"ip":"1.2.3"}]'])
def test_a_list_of_machines_that_is_none_is_refused(body):
    with pytest.raises(Invalid):
        read_machines(body)


def test_a_list_of_machines_is_a_bare_array():
    assert read_machines(b'[{"hostname":"Web-1","ip":"10.0.0.7"}]') == (Machine(hostname="web-1", ip="10.0.0.7"),)


def test_schedule_and_status_are_shown_as_they_were_told():
    rows = (
        MachineRow(machine=READ.machines[0], answers=(AnswerRow(framework_id="f", status=Answer.DECLINE, at=2.0),)),
    )
    fields = {"windows": (READ,), "machines": rows, "down": (Machine(ip="10.0.0.7"),)}
    small = {"machine_ids": [{"hostname": "h1"}], "unavailability": {"start": {"nanoseconds": 5}}}
    assert shown("GET_MAINTENANCE_SCHEDULE", **fields) == {"schedule": {"windows": [small]}}
    answer = {"status": "DECLINE", "framework_id": {"value": "f"}, "timestamp": {"nanoseconds": 2_000_000_000}}
    assert shown("GET_MAINTENANCE_STATUS", **fields) == {
        "status": {
            "draining_machines": [{"id": {"hostname": "h1"}, "statuses": [answer]}],
            "down_machines": [{"ip": "10.0.0.7"}],
        }
    }
    assert shown("GET_MAINTENANCE_STATUS") == {"status": {}}


def test_a_drain_is_shown_with_its_agent():
    drain = Drain(state=DrainState.DRAINED, max_grace_s=1.5, started_at=7.0)
    rows = (agent("a1", drain=drain, active=False, deactivated=True),)
    info = {
        "state": "DRAINED",
        "config": {"max_grace_period": {"seconds": 1, "nanos": 500_000_000}, "mark_gone": False},
    }
    (found,) = shown("GET_AGENTS", agents=rows)["agents"]
    assert (found["drain_info"], found["estimated_drain_start_time"]) == (info, {"nanoseconds": 7_000_000_000})
    assert (found["active"], found["deactivated"]) == (False, True)
    (slave,) = json.loads(msgspec.json.encode(write_slaves(cluster(agents=rows))))["slaves"]
    assert (slave["drain_info"], slave["estimated_drain_start_time_seconds"]) == (info, 7.0)
