"""Operator reads: envelopes, names, and which calls are refused how."""

import json

import pytest
from test_mesos_legacy import agent, cluster, framework, task

from corral.lib.errors import Invalid, Unimplemented
from corral.mesos import daemon
from corral.mesos.operator import CHANGES, KNOWN, OperatorCall, read_call, write_response
from corral.mesos.snapshot import RoleRow
from corral.model.flags import parse_resources
from corral.model.role import RoleSettings
from corral.model.task import TaskState


def asked(kind, **fields):
    call = read_call(json.dumps({"type": kind}).encode())
    answer = json.loads(write_response(call, cluster(**fields), "1.11.0", {"master/uptime_secs": 3}))
    assert answer["type"] == kind
    assert answer.keys() == {"type", kind.lower()}
    return answer[kind.lower()]


@pytest.mark.parametrize("kind", sorted(KNOWN - {*OperatorCall, *CHANGES, *daemon.CALLS, "SUBSCRIBE"}))
def test_calls_that_change_the_cluster_are_not_implemented(kind):
    with pytest.raises(Unimplemented, match=kind):
        read_call(json.dumps({"type": kind}).encode())


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b'{"type":"GET_RICH"}', b'{"type":3}'])
def test_what_is_no_operator_call_is_refused(body):
    with pytest.raises(Invalid):
        read_call(body)


def test_a_fresh_cluster_answers_with_empty_objects():
    assert asked("GET_HEALTH") == {"healthy": True}
    assert asked("GET_TASKS") == {}
    assert asked("GET_AGENTS") == {}
    assert asked("GET_FRAMEWORKS") == {}
    assert asked("GET_EXECUTORS") == {}
    assert asked("GET_ROLES") == {}
    assert asked("GET_STATE") == {"get_tasks": {}, "get_executors": {}, "get_frameworks": {}, "get_agents": {}}


def test_the_small_reads_have_their_fields():
    assert asked("GET_VERSION")["version_info"]["version"] == "1.11.0"
    assert asked("GET_FLAGS") == {"flags": [{"name": "port", "value": "4680"}]}
    assert asked("GET_METRICS") == {"metrics": [{"name": "master/uptime_secs", "value": 3.0}]}
    master = asked("GET_MASTER")
    assert (master["master_info"]["id"], master["start_time"], master["elected_time"]) == ("m", 90.0, 91.0)


def test_agents_are_shown_with_totals_and_instants():
    rows = (agent("a1", used=parse_resources("cpus:1")), agent("a2", recovered=True), agent("a3", unreachable_at=3.0))
    found = asked("GET_AGENTS", agents=rows)
    (first,) = found["agents"]
    assert first["agent_info"]["id"] == {"value": "a1"}
    assert (first["active"], first["deactivated"], first["version"]) == (True, False, "1.11.0")
    assert first["registered_time"] == {"nanoseconds": 100_000_000_000}
    assert first["allocated_resources"] == [{"name": "cpus", "type": "SCALAR", "scalar": {"value": 1.0}, "role": "*"}]
    assert [r["id"] for r in found["recovered_agents"]] == [{"value": "a2"}]


def test_frameworks_and_tasks_are_shown_by_their_state():
    row = framework(
        tasks=(task(),),
        unreachable_tasks=(task("t2", TaskState.UNREACHABLE),),
        completed_tasks=(task("t3", TaskState.FINISHED),),
    )
    gone = framework("f0", unregistered_at=5.0, completed_tasks=(task("t0", TaskState.KILLED),))
    fields = {"frameworks": (row,), "completed_frameworks": (gone,)}
    found = asked("GET_FRAMEWORKS", **fields)
    assert found["frameworks"][0]["framework_info"]["id"] == {"value": "f1"}
    assert found["completed_frameworks"][0]["unregistered_time"] == {"nanoseconds": 5_000_000_000}
    tasks = asked("GET_TASKS", **fields)
    kinds = ("tasks", "unreachable_tasks", "completed_tasks")
    assert [[t["task_id"]["value"] for t in tasks[kind]] for kind in kinds] == [["t1"], ["t2"], ["t3", "t0"]]
    assert tasks["tasks"][0]["state"] == tasks["tasks"][0]["status_update_state"] == "TASK_RUNNING"
    assert tasks["tasks"][0]["resources"][0]["allocation_info"] == {"role": "*"}
    state = asked("GET_STATE", **fields)
    assert state["get_tasks"] == tasks
    assert state["get_frameworks"] == found


def test_roles_and_weights_are_listed():
    roles = (
        RoleRow(name="ads", settings=RoleSettings(weight=2), frameworks=("f1",), allocated=parse_resources("cpus:3")),
    )
    (role,) = asked("GET_ROLES", roles=roles)["roles"]
    assert (role["name"], role["weight"], role["frameworks"]) == ("ads", 2.0, [{"value": "f1"}])
    assert asked("GET_WEIGHTS", roles=roles) == {"weight_infos": [{"role": "ads", "weight": 2.0}]}
