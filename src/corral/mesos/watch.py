"""What those who follow the cluster are told, and its JSON: the events of the Mesos v1 operator API.

The name of a field is the event's in lower case. An event is written once, whoever follows. Source: Mesos v1, master
operator API, SUBSCRIBE.
"""

from collections.abc import Iterator

import msgspec

from corral.mesos import operator, wire
from corral.mesos.common import write_framework_info
from corral.mesos.pieces import Tree, pieces
from corral.mesos.snapshot import AgentRow, ClusterSnapshot, FrameworkRow
from corral.mesos.tasks import write_task_status
from corral.model.framework import FrameworkInfo
from corral.model.ids import AgentId, FrameworkId
from corral.model.task import Task, TaskState, TaskStatus


class TaskAdded(msgspec.Struct, frozen=True, gc=False, tag="TASK_ADDED"):
    task: Task


class TaskUpdated(msgspec.Struct, frozen=True, gc=False, tag="TASK_UPDATED"):
    """Shapes: `state` is the newest that is known, and may be ahead of `status`."""

    framework_id: FrameworkId
    status: TaskStatus
    state: TaskState


class AgentAdded(msgspec.Struct, frozen=True, gc=False, tag="AGENT_ADDED"):
    agent: AgentRow


class AgentRemoved(msgspec.Struct, frozen=True, gc=False, tag="AGENT_REMOVED"):
    agent_id: AgentId


class FrameworkAdded(msgspec.Struct, frozen=True, gc=False, tag="FRAMEWORK_ADDED"):
    """Shapes: as in the updates, the row has no tasks."""

    framework: FrameworkRow


class FrameworkUpdated(msgspec.Struct, frozen=True, gc=False, tag="FRAMEWORK_UPDATED"):
    framework: FrameworkRow


class FrameworkRemoved(msgspec.Struct, frozen=True, gc=False, tag="FRAMEWORK_REMOVED"):
    info: FrameworkInfo


class Beat(msgspec.Struct, frozen=True, gc=False, tag="HEARTBEAT"):
    pass


ClusterEvent = (
    TaskAdded | TaskUpdated | AgentAdded | AgentRemoved | FrameworkAdded | FrameworkUpdated | FrameworkRemoved | Beat
)


def write_subscribed(snapshot: ClusterSnapshot) -> Iterator[bytes]:
    """The first event of a stream, in pieces."""
    return pieces(
        {
            "type": "SUBSCRIBED",
            "subscribed": {
                "get_state": operator.write_state(snapshot),
                "heartbeat_interval_seconds": float(snapshot.heartbeat_s),
            },
        }
    )


def write_event(event: ClusterEvent) -> bytes:
    """One event as JSON, without its RecordIO frame."""
    kind, body = _write(event)
    made = {"type": kind} if body is None else {"type": kind, kind.lower(): body}
    return b"".join(pieces(made))


def _write(event: ClusterEvent) -> tuple[str, Tree]:
    match event:
        case TaskAdded(task):
            return "TASK_ADDED", {"task": operator.write_task(task)}
        case TaskUpdated(framework_id, status, state):
            body = {"framework_id": wire.Id(value=framework_id), "status": write_task_status(status), "state": state}
            return "TASK_UPDATED", body
        case AgentAdded(agent):
            return "AGENT_ADDED", {"agent": operator.write_agent(agent)}
        case AgentRemoved(agent_id):
            return "AGENT_REMOVED", {"agent_id": wire.Id(value=agent_id)}
        case FrameworkAdded(framework):
            return "FRAMEWORK_ADDED", {"framework": operator.write_framework(framework)}
        case FrameworkUpdated(framework):
            return "FRAMEWORK_UPDATED", {"framework": operator.write_framework(framework)}
        case FrameworkRemoved(info):
            return "FRAMEWORK_REMOVED", {"framework_info": write_framework_info(info)}
        case Beat():
            return "HEARTBEAT", None
