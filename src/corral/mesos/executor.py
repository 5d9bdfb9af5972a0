"""Reads what executors say to their agent, and writes what it says to them: the Mesos v1 executor API.

Everything that breaks a call's form is refused here, and so is an update that no executor may send. Source: Mesos v1
executor API.
"""

import msgspec

from corral.lib.errors import Invalid, Unimplemented
from corral.mesos import wire
from corral.mesos.common import write_agent_info, write_framework_info, write_seconds
from corral.mesos.lenient import LenientDecoder
from corral.mesos.tasks import read_task_status, write_container_id, write_executor, write_task_info
from corral.model import executor
from corral.model.framework import Capability, FrameworkInfo
from corral.model.ids import ExecutorId, FrameworkId, TaskId
from corral.model.task import Source, TaskState, TaskStatus

PATH = "/api/v1/executor"


class WireUpdate(wire.Wire):
    status: wire.TaskStatus


class WireNamed(wire.Wire):
    """A task of which nothing but the id is read."""

    task_id: wire.Id


class WireSubscribe(wire.Wire):
    unacknowledged_tasks: tuple[WireNamed, ...] = ()
    unacknowledged_updates: tuple[WireUpdate, ...] = ()


class WireMessage(wire.Wire):
    data: bytes


class WireCall(wire.Wire):
    type: str | None = None
    executor_id: wire.Id | None = None
    framework_id: wire.Id | None = None
    subscribe: WireSubscribe | None = None
    update: WireUpdate | None = None
    message: WireMessage | None = None


class WireSubscribed(wire.Wire):
    executor_info: wire.ExecutorInfo
    framework_info: wire.FrameworkInfo
    agent_info: wire.AgentInfo
    container_id: wire.ContainerId | None = None


class WireLaunch(wire.Wire):
    task: wire.TaskInfo


class WireGroup(wire.Wire):
    tasks: tuple[wire.TaskInfo, ...]


class WireLaunchGroup(wire.Wire):
    task_group: WireGroup


class WireKill(wire.Wire):
    task_id: wire.Id
    kill_policy: wire.KillPolicy | None = None


class WireAcknowledged(wire.Wire):
    task_id: wire.Id
    uuid: bytes


class WireError(wire.Wire):
    message: str


class WireEvent(wire.Wire):
    type: str
    subscribed: WireSubscribed | None = None
    launch: WireLaunch | None = None
    launch_group: WireLaunchGroup | None = None
    kill: WireKill | None = None
    acknowledged: WireAcknowledged | None = None
    message: WireMessage | None = None
    error: WireError | None = None


_calls = LenientDecoder(WireCall, "executor::Call")
_encode = msgspec.json.Encoder().encode


def read_call(body: bytes) -> executor.Call:
    """The call that a request's JSON body states.

    Errors: `Invalid` names the field; `Unimplemented` when the type is UNKNOWN.
    """
    found = _calls.decode(body)
    if found.type == "UNKNOWN":
        raise Unimplemented("call type UNKNOWN asks for nothing; name the call that is meant")
    if found.type not in ("SUBSCRIBE", "UPDATE", "MESSAGE", "HEARTBEAT"):
        given = f"; found {found.type!r}, which is no call" if found.type is not None else ""
        raise Invalid(f"Failed to validate executor::Call: Expecting 'type' to be present{given}")
    if found.executor_id is None or not found.executor_id.value:
        raise _missing("executor_id")
    if found.framework_id is None or not found.framework_id.value:
        raise _missing("framework_id")
    framework_id, executor_id = FrameworkId(found.framework_id.value), ExecutorId(found.executor_id.value)
    match found.type:
        case "SUBSCRIBE":
            if found.subscribe is None:
                raise _missing("subscribe")
            updates = enumerate(found.subscribe.unacknowledged_updates)
            return executor.Subscribe(
                framework_id=framework_id,
                executor_id=executor_id,
                task_ids=tuple(TaskId(t.task_id.value) for t in found.subscribe.unacknowledged_tasks),
                updates=tuple(
                    _read_update(u, executor_id, f"subscribe.unacknowledged_updates[{i}].status") for i, u in updates
                ),
            )
        case "UPDATE":
            if found.update is None:
                raise _missing("update")
            status = _read_update(found.update, executor_id, "update.status")
            return executor.Update(framework_id=framework_id, executor_id=executor_id, status=status)
        case "MESSAGE":
            if found.message is None:
                raise _missing("message")
            return executor.Message(framework_id=framework_id, executor_id=executor_id, data=found.message.data)
        case _:
            return executor.Heartbeat(framework_id=framework_id, executor_id=executor_id)


def _missing(member: str) -> Invalid:
    return Invalid(f"Failed to validate executor::Call: Expecting '{member}' to be present")


def _read_update(found: WireUpdate, executor_id: ExecutorId, at: str) -> TaskStatus:
    status = read_task_status(found.status, at)
    if status.uuid is None:
        raise _missing(f"{at}.uuid")
    if status.executor_id is not None and status.executor_id != executor_id:
        raise Invalid(f"field '{at}.executor_id': {status.executor_id} differs from the call's {executor_id}")
    if status.source is not Source.EXECUTOR:
        raise Invalid(f"field '{at}.source': {found.status.source} is not {Source.EXECUTOR}, which executors send")
    if status.state is TaskState.STAGING:
        raise Invalid(f"field '{at}.state': {status.state} is no state that an executor tells")
    return status


def write_event(event: executor.Event) -> bytes:
    """One event as JSON, without its RecordIO frame."""
    return _encode(_written(event))


def _written(event: executor.Event) -> WireEvent:
    match event:
        case executor.Subscribed():
            return WireEvent(type="SUBSCRIBED", subscribed=_write_subscribed(event))
        case executor.Launch(task=task):
            return WireEvent(type="LAUNCH", launch=WireLaunch(task=write_task_info(task, refinement=True)))
        case executor.LaunchGroup(tasks=tasks):
            group = WireGroup(tasks=tuple(write_task_info(task, refinement=True) for task in tasks))
            return WireEvent(type="LAUNCH_GROUP", launch_group=WireLaunchGroup(task_group=group))
        case executor.Kill(task_id=task_id, grace_s=grace_s):
            policy = wire.KillPolicy(grace_period=write_seconds(grace_s)) if grace_s is not None else None
            return WireEvent(type="KILL", kill=WireKill(task_id=wire.Id(value=task_id), kill_policy=policy))
        case executor.Acknowledged(task_id=task_id, uuid=uuid):
            found = WireAcknowledged(task_id=wire.Id(value=task_id), uuid=uuid)
            return WireEvent(type="ACKNOWLEDGED", acknowledged=found)
        case executor.Told(data=data):
            return WireEvent(type="MESSAGE", message=WireMessage(data=data))
        case executor.Shutdown():
            return WireEvent(type="SHUTDOWN")
        case executor.Error(message=message):
            return WireEvent(type="ERROR", error=WireError(message=message))
        case executor.Beat():
            return WireEvent(type="HEARTBEAT")


def _write_subscribed(event: executor.Subscribed) -> WireSubscribed:
    refinement = _refines(event.framework)
    return WireSubscribed(
        executor_info=write_executor(event.executor, refinement=refinement),
        framework_info=write_framework_info(event.framework),
        agent_info=write_agent_info(event.agent, refinement=refinement, both=False),
        container_id=write_container_id(event.container_id),
    )


def _refines(framework: FrameworkInfo) -> bool:
    return framework.can(Capability.RESERVATION_REFINEMENT)
