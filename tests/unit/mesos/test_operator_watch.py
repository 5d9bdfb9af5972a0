"""The events that followers of the cluster get, by their exact JSON."""

import json

import pytest
from test_mesos_legacy import agent, cluster, framework, task

from corral.mesos import watch
from corral.mesos.operator import OperatorCall, write_response
from corral.model.framework import FrameworkInfo
from corral.model.task import Source, TaskState, TaskStatus

STATUS = TaskStatus(task_id="t1", state=TaskState.RUNNING, at=200.0, source=Source.EXECUTOR, agent_id="a1")
STATUS_JSON = {
    "task_id": {"value": "t1"}, "state": "TASK_RUNNING", "timestamp": 200.0, "source": "SOURCE_EXECUTOR",
    "agent_id": {"value": "a1"},
}  # fmt: skip
TASK_JSON = {
    "name": "T1", "task_id": {"value": "t1"}, "framework_id": {"value": "f1"}, "agent_id": {"value": "a1"},
    "state": "TASK_RUNNING", "status_update_state": "TASK_RUNNING",
    "resources": [
        {"name": "cpus", "type": "SCALAR", "scalar": {"value": 0.5}, "allocation_info": {"role": "*"}, "role": "*"},
        {"name": "mem", "type": "SCALAR", "scalar": {"value": 32.0}, "allocation_info": {"role": "*"}, "role": "*"},
    ],
    "statuses": [{k: v for k, v in STATUS_JSON.items() if k != "agent_id"}],
}  # fmt: skip
FRAMEWORK_JSON = {
    "framework_info": {"user": "u", "name": "n", "id": {"value": "f1"}, "failover_timeout": 60.0, "checkpoint": False},
    "active": True, "connected": True, "recovered": False, "registered_time": {"nanoseconds": 150_000_000_000},
}  # fmt: skip


def written(event):
    return json.loads(watch.write_event(event))


@pytest.mark.parametrize(
    ("event", "wanted"),
    [
        (watch.Beat(), {"type": "HEARTBEAT"}),
        (watch.TaskAdded(task()), {"type": "TASK_ADDED", "task_added": {"task": TASK_JSON}}),
        (
            watch.TaskUpdated("f1", STATUS, TaskState.FINISHED),
            {
                "type": "TASK_UPDATED",
                "task_updated": {"framework_id": {"value": "f1"}, "status": STATUS_JSON, "state": "TASK_FINISHED"},
            },
        ),
        (
            watch.AgentRemoved("a1"),
            {"type": "AGENT_REMOVED", "agent_removed": {"agent_id": {"value": "a1"}}},
        ),
        (
            watch.FrameworkAdded(framework()),
            {"type": "FRAMEWORK_ADDED", "framework_added": {"framework": FRAMEWORK_JSON}},
        ),
        (
            watch.FrameworkUpdated(framework()),
            {"type": "FRAMEWORK_UPDATED", "framework_updated": {"framework": FRAMEWORK_JSON}},
        ),
        (
            watch.FrameworkRemoved(FrameworkInfo(user="u", name="n", id="f1")),
            {
                "type": "FRAMEWORK_REMOVED",
                "framework_removed": {
                    "framework_info": {
                        "user": "u", "name": "n", "id": {"value": "f1"}, "failover_timeout": 0.0, "checkpoint": False,
                    }
                },
            },
        ),
    ],
)  # fmt: skip
def test_each_event_has_its_member_by_its_name(event, wanted):
    assert written(event) == wanted


def test_an_agent_is_told_as_it_is_read():
    (read,) = json.loads(write_response(OperatorCall.GET_AGENTS, cluster(agents=(agent(),)), "1"))["get_agents"][
        "agents"
    ]
    assert written(watch.AgentAdded(agent())) == {"type": "AGENT_ADDED", "agent_added": {"agent": read}}
    assert {"type": "MULTI_ROLE"} in read["capabilities"]


def test_a_stream_begins_with_the_whole_state():
    whole = cluster(agents=(agent(),), frameworks=(framework(tasks=(task(),)),), heartbeat_s=3.0)
    found = json.loads(b"".join(watch.write_subscribed(whole)))
    state = json.loads(write_response(OperatorCall.GET_STATE, whole, "1"))["get_state"]
    assert found == {"type": "SUBSCRIBED", "subscribed": {"get_state": state, "heartbeat_interval_seconds": 3.0}}
