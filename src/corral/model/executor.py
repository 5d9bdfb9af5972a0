"""What an executor and its agent say to each other. Source: Mesos v1 executor API."""

import msgspec

from corral.model.agent import AgentInfo
from corral.model.framework import FrameworkInfo
from corral.model.ids import ContainerId, ExecutorId, FrameworkId, TaskId
from corral.model.task import ExecutorInfo, TaskInfo, TaskStatus

# Calls, executor to agent.


class Subscribe(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag="SUBSCRIBE"):
    """Shapes: `task_ids` and `updates` are what the executor has had and has seen no acknowledgement of."""

    framework_id: FrameworkId
    executor_id: ExecutorId
    task_ids: tuple[TaskId, ...] = ()
    updates: tuple[TaskStatus, ...] = ()


class Update(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag="UPDATE"):
    framework_id: FrameworkId
    executor_id: ExecutorId
    status: TaskStatus


class Message(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag="MESSAGE"):
    framework_id: FrameworkId
    executor_id: ExecutorId
    data: bytes


class Heartbeat(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag="HEARTBEAT"):
    framework_id: FrameworkId
    executor_id: ExecutorId


Call = Subscribe | Update | Message | Heartbeat

# Events, agent to executor.


class Subscribed(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag="SUBSCRIBED"):
    executor: ExecutorInfo
    framework: FrameworkInfo
    agent: AgentInfo
    container_id: ContainerId


class Launch(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag="LAUNCH"):
    task: TaskInfo


class LaunchGroup(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag="LAUNCH_GROUP"):
    tasks: tuple[TaskInfo, ...]


class Kill(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag="KILL"):
    """Units: `grace_s` seconds; None leaves it to the executor."""

    task_id: TaskId
    grace_s: float | None = None


class Acknowledged(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag="ACKNOWLEDGED"):
    task_id: TaskId
    uuid: bytes


class Told(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag="MESSAGE"):
    """A message of the framework."""

    data: bytes


class Shutdown(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag="SHUTDOWN"):
    pass


class Error(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag="ERROR"):
    """The last event of a stream."""

    message: str


class Beat(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag="HEARTBEAT"):
    pass


Event = Subscribed | Launch | LaunchGroup | Kill | Acknowledged | Told | Shutdown | Error | Beat
