"""Reads the container calls of an agent's operator API and writes their answers; a process's I/O in both directions.

A nested container is named by its own id and those of the containers around it. Source: Mesos v1, agent operator API.
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import Any

import msgspec

from corral.lib.errors import Invalid
from corral.mesos import wire
from corral.mesos.commands import read_command
from corral.mesos.common import write_id
from corral.mesos.flat import Json
from corral.mesos.lenient import LenientDecoder
from corral.mesos.resources import write_resources
from corral.mesos.statistics import Measured, write_usage
from corral.mesos.tasks import read_task_info, write_container_id, write_container_status
from corral.model.command import CommandInfo
from corral.model.execution import Exit
from corral.model.ids import ContainerId, check_id
from corral.model.resources import Resources
from corral.model.task import Reason, TaskInfo, TaskState

MOST_ID_LENGTH = 242
MOST_SIGNAL = 64
HEARTBEAT_S = 30.0


class ContainerCall(StrEnum):
    GET_CONTAINERS = "GET_CONTAINERS"
    LAUNCH_NESTED_CONTAINER = "LAUNCH_NESTED_CONTAINER"
    LAUNCH_NESTED_CONTAINER_SESSION = "LAUNCH_NESTED_CONTAINER_SESSION"
    LAUNCH_CONTAINER = "LAUNCH_CONTAINER"
    WAIT_NESTED_CONTAINER = "WAIT_NESTED_CONTAINER"
    WAIT_CONTAINER = "WAIT_CONTAINER"
    KILL_NESTED_CONTAINER = "KILL_NESTED_CONTAINER"
    KILL_CONTAINER = "KILL_CONTAINER"
    REMOVE_NESTED_CONTAINER = "REMOVE_NESTED_CONTAINER"
    REMOVE_CONTAINER = "REMOVE_CONTAINER"
    ATTACH_CONTAINER_OUTPUT = "ATTACH_CONTAINER_OUTPUT"
    ATTACH_CONTAINER_INPUT = "ATTACH_CONTAINER_INPUT"


LAUNCHES = frozenset(
    {
        ContainerCall.LAUNCH_NESTED_CONTAINER, ContainerCall.LAUNCH_NESTED_CONTAINER_SESSION,
        ContainerCall.LAUNCH_CONTAINER,
    }
)  # fmt: skip


NESTED = frozenset(
    {
        ContainerCall.LAUNCH_NESTED_CONTAINER, ContainerCall.LAUNCH_NESTED_CONTAINER_SESSION,
        ContainerCall.WAIT_NESTED_CONTAINER, ContainerCall.KILL_NESTED_CONTAINER,
        ContainerCall.REMOVE_NESTED_CONTAINER,
    }
)  # fmt: skip
"""What is only of containers in others."""


class WireTarget(wire.Wire):
    """The member of every call about one container."""

    container_id: wire.ContainerId | None = None
    command: wire.CommandInfo | None = None
    container: wire.ContainerInfo | None = None
    resources: tuple[wire.Resource, ...] = ()
    limits: dict[str, wire.Limit] | None = None
    signal: int | None = None
    show_nested: bool | None = None
    show_standalone: bool | None = None


class WireCall(wire.Wire):
    """The members are named after the calls."""

    type: str | None = None
    get_containers: WireTarget | None = None
    launch_nested_container: WireTarget | None = None
    launch_nested_container_session: WireTarget | None = None
    launch_container: WireTarget | None = None
    wait_nested_container: WireTarget | None = None
    wait_container: WireTarget | None = None
    kill_nested_container: WireTarget | None = None
    kill_container: WireTarget | None = None
    remove_nested_container: WireTarget | None = None
    remove_container: WireTarget | None = None
    attach_container_output: WireTarget | None = None
    attach_container_input: WireTarget | None = None


class WireProcessData(wire.Wire):
    type: str | None = None
    data: bytes = b""


class WireWindow(wire.Wire):
    rows: wire.UInt
    columns: wire.UInt


class WireTtyInfo(wire.Wire):
    window_size: WireWindow | None = None


class WireHeartbeat(wire.Wire):
    interval: wire.Nanoseconds | None = None


class WireControl(wire.Wire):
    type: str | None = None
    tty_info: WireTtyInfo | None = None
    heartbeat: WireHeartbeat | None = None


class WireProcessIo(wire.Wire):
    type: str | None = None
    data: WireProcessData | None = None
    control: WireControl | None = None


class WireInput(wire.Wire):
    type: str | None = None
    container_id: wire.ContainerId | None = None
    process_io: WireProcessIo | None = None


class WireInputCall(wire.Wire):
    type: str | None = None
    attach_container_input: WireInput | None = None


class WireKind(wire.Wire):
    type: str | None = None


class ContainerRow(wire.Wire):
    """A standalone container has neither framework nor executor."""

    framework_id: wire.Id | None = None
    executor_id: wire.Id | None = None
    executor_name: str | None = None
    container_id: wire.ContainerId | None = None
    container_status: wire.ContainerStatus | None = None
    resource_statistics: Json | None = None


class Target(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What a call is about.

    Shapes: `id` is the container's own; `parents` those around it, the nearest first. `command` of a launch below
    another is set, `info` of a launch of a standalone one: then it bears the container's id.
    """

    kind: ContainerCall
    id: ContainerId = ContainerId("")
    parents: tuple[ContainerId, ...] = ()
    command: CommandInfo | None = None
    info: TaskInfo | None = None
    tty: bool = False
    window: tuple[int, int] | None = None
    signal: int = 9
    show_nested: bool = False
    show_standalone: bool = False

    @property
    def path(self) -> tuple[ContainerId, ...]:
        return (self.id, *self.parents)


class Input(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One record of a client's input. Shapes: `data` empty ends the input; `window` is rows and columns."""

    data: bytes | None = None
    window: tuple[int, int] | None = None


_calls = LenientDecoder(WireCall, "agent::Call")
_kinds = LenientDecoder(WireKind, "agent::Call")
_inputs = LenientDecoder(WireInputCall, "agent::Call")
_encode = msgspec.json.Encoder().encode


def find_kind(body: bytes) -> str | None:
    """The type that a call names, of this dialect or not. Errors: `Invalid` when it is no call at all."""
    return _kinds.decode(body).type


def read_call(body: bytes) -> Target:
    """Errors: `Invalid` names what breaks the call's form, or what cannot be carried out."""
    kind = ContainerCall(find_kind(body) or "")
    member = kind.value.lower()
    found: WireTarget | None = getattr(_calls.decode(body), member)
    if found is None and kind is ContainerCall.GET_CONTAINERS:
        return Target(kind=kind)
    if found is None:
        raise _missing(member)
    if kind is ContainerCall.GET_CONTAINERS:
        return Target(kind=kind, show_nested=bool(found.show_nested), show_standalone=bool(found.show_standalone))
    id, parents = _read_id(found.container_id, f"{member}.container_id")
    if kind in NESTED and not parents:
        raise _missing(f"{member}.container_id.parent")
    if kind in LAUNCHES and not parents:
        return Target(kind=kind, id=id, info=_read_standalone(id, found, member))
    command = read_command(found.command) if found.command is not None else None
    if kind in LAUNCHES:
        _check_launch(found, command, member)
    signal = 9 if found.signal is None else found.signal
    if not 1 <= signal <= MOST_SIGNAL:
        raise Invalid(f"field '{member}.signal': {signal} is no signal; give 1 to {MOST_SIGNAL}")
    tty = found.container.tty_info if found.container is not None else None
    return Target(
        kind=kind, id=id, parents=parents, command=command, tty=tty is not None, window=_read_window(tty),
        signal=signal,
    )  # fmt: skip


def _missing(member: str) -> Invalid:
    return Invalid(f"Failed to validate agent::Call: Expecting '{member}' to be present")


def _read_id(found: wire.ContainerId | None, at: str) -> tuple[ContainerId, tuple[ContainerId, ...]]:
    path: list[ContainerId] = []
    while found is not None:
        check_id(found.value, f"field '{at}': container id")
        if "." in found.value or len(found.value) > MOST_ID_LENGTH:
            raise Invalid(
                f"field '{at}': {found.value[:40]!r} must hold no dot and at most {MOST_ID_LENGTH} characters"
            )
        path.append(ContainerId(found.value))
        found = found.parent
    if not path:
        raise _missing(at)
    return path[0], tuple(path[1:])


def _read_standalone(id: ContainerId, found: WireTarget, member: str) -> TaskInfo:
    """Errors: `Invalid` for what breaks the form; whether it can be carried out is for the agent to say."""
    if found.command is not None:
        _check_texts(read_command(found.command), member)
    return read_task_info(
        wire.TaskInfo(
            name=id, task_id=wire.Id(value=id), agent_id=wire.Id(value=""), resources=found.resources,
            command=found.command, container=found.container, limits=found.limits,
        ),
        member,
    )  # fmt: skip


def _check_texts(command: CommandInfo, member: str) -> None:
    texts = (command.value or "", *command.arguments, *(word for pair in command.environment for word in pair))
    if any("\0" in text for text in texts):
        raise Invalid(f"field '{member}.command': holds a NUL byte")
    if not all(name for name, _ in command.environment):
        raise Invalid(f"field '{member}.command': has a variable without a name")


def _check_launch(found: WireTarget, command: CommandInfo | None, member: str) -> None:
    if command is None or not command.value:
        raise Invalid(f"field '{member}.command': a nested container needs command.value")
    if command.uris or command.user is not None:
        raise Invalid(
            f"field '{member}.command': uris and user cannot be honoured in a nested container; leave them out"
        )
    _check_texts(command, member)
    container = found.container
    strange = container is not None and (
        container.type != "MESOS" or container.docker is not None or container.volumes or container.network_infos
        or (container.mesos is not None and container.mesos.image is not None)
        or container.linux_info or container.rlimit_info
    )  # fmt: skip
    if strange:
        raise Invalid(f"field '{member}.container': a nested container shares its parent's; give a tty_info at most")


def _read_window(tty: object) -> tuple[int, int] | None:
    window = tty.get("window_size") if isinstance(tty, dict) else None
    if not isinstance(window, dict) or not all(isinstance(window.get(k), int) for k in ("rows", "columns")):
        return None
    return window["rows"], window["columns"]


def read_input_target(record: bytes) -> Target:
    """The first record of a client's input. Errors: `Invalid` when it does not name a container."""
    found = _read_input(record)
    if found.type != "CONTAINER_ID":
        raise Invalid("the first record of ATTACH_CONTAINER_INPUT must be of type CONTAINER_ID")
    id, parents = _read_id(found.container_id, "attach_container_input.container_id")
    return Target(kind=ContainerCall.ATTACH_CONTAINER_INPUT, id=id, parents=parents)


def read_input(record: bytes) -> Input:
    """A further record. Shapes: a heartbeat is an input without anything. Errors: `Invalid` when it is none."""
    found = _read_input(record)
    io = found.process_io
    if found.type != "PROCESS_IO" or io is None:
        raise Invalid("a record of ATTACH_CONTAINER_INPUT after the first must be of type PROCESS_IO")
    if io.type == "DATA" and io.data is not None:
        if io.data.type != "STDIN":
            raise Invalid(f"field 'process_io.data.type': {io.data.type!r} is not STDIN, which clients send")
        return Input(data=io.data.data)
    if io.type == "CONTROL" and io.control is not None:
        window = io.control.tty_info.window_size if io.control.tty_info is not None else None
        return Input(window=(window.rows, window.columns) if window is not None else None)
    raise Invalid("field 'process_io': neither DATA nor CONTROL with its member")


def _read_input(record: bytes) -> WireInput:
    found = _inputs.decode(record)
    if found.type != "ATTACH_CONTAINER_INPUT" or found.attach_container_input is None:
        raise Invalid("Failed to validate agent::Call: Expecting 'attach_container_input' to be present")
    return found.attach_container_input


def write_output(stream: str, data: bytes) -> bytes:
    """One piece of output as a ProcessIO message. Shapes: `stream` is `stdout` or `stderr`."""
    return _encode(WireProcessIo(type="DATA", data=WireProcessData(type=stream.upper(), data=data)))


def write_heartbeat() -> bytes:
    interval = wire.Nanoseconds(nanoseconds=int(HEARTBEAT_S * 1e9))
    return _encode(
        WireProcessIo(type="CONTROL", control=WireControl(type="HEARTBEAT", heartbeat=WireHeartbeat(interval=interval)))
    )


def write_wait(kind: ContainerCall, exit: Exit, resources: Resources = ()) -> bytes:
    """How a container ended. Shapes: `exit_status` is a raw wait status, missing when nobody saw the end; `resources`
    are those that it had.
    """
    found: dict[str, Any] = {}
    if exit.code is not None:
        found["exit_status"] = exit.code << 8
    elif exit.signal is not None:
        found["exit_status"] = exit.signal
    if exit.message:
        found["message"] = exit.message
    if exit.oom:
        mem = tuple(resource for resource in resources if resource.name == "mem")
        found |= {"state": TaskState.FAILED, "reason": Reason.CONTAINER_LIMITATION_MEMORY}
        found["limitation"] = {"resources": write_resources(mem, refinement=False)}
    return _encode({"type": kind.value, kind.value.lower(): found})


def write_row(found: Measured, at: float) -> ContainerRow:
    """Units: `at` float seconds UTC. Shapes: a further command in a container has no status of its own."""
    path, status = found.path, found.status
    return ContainerRow(
        framework_id=write_id(found.framework or None),
        executor_id=write_id(found.executor or None),
        executor_name=found.name if found.executor else None,
        container_id=write_container_id(path[0], path[1] if len(path) > 1 else None),
        container_status=write_container_status(status) if status is not None else None,
        resource_statistics=write_usage(found, at) if status is not None else None,
    )


def write_containers(rows: Iterable[ContainerRow]) -> bytes:
    found = list(rows)
    return _encode({"type": "GET_CONTAINERS", "get_containers": {"containers": found} if found else {}})
