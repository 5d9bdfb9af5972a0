"""Reads and writes maintenance: schedules, machines, inverse offers, and the calls that drain and close agents.

Used by the operator API and the older endpoints alike. Source: Mesos v1, maintenance primitives and agent draining.
"""

import ipaddress
from collections.abc import Sequence
from typing import Any

import msgspec

from corral.lib.errors import Invalid
from corral.mesos import wire
from corral.mesos.common import AGENT_PATH, read_unavailability, write_seconds, write_unavailability
from corral.mesos.lenient import LenientDecoder
from corral.mesos.snapshot import AgentRow, ClusterSnapshot
from corral.model.ids import AgentId, FrameworkId, InverseOfferId
from corral.model.maintenance import (
    Answer,
    DeactivateAgent,
    Drain,
    DrainAgent,
    InverseOffer,
    Machine,
    MaintenanceChange,
    MarkAgentGone,
    ReactivateAgent,
    StartMaintenance,
    StopMaintenance,
    UpdateSchedule,
    Window,
)

READS = ("GET_MAINTENANCE_STATUS", "GET_MAINTENANCE_SCHEDULE")
CHANGES = (
    "UPDATE_MAINTENANCE_SCHEDULE", "START_MAINTENANCE", "STOP_MAINTENANCE", "DRAIN_AGENT", "DEACTIVATE_AGENT",
    "REACTIVATE_AGENT", "MARK_AGENT_GONE",
)  # fmt: skip


_MOST_NS = 2**63 - 1
_MOST_SECONDS = 315_576_000_000
"""What a google.protobuf.Duration may hold."""


class WireMachine(wire.Wire):
    hostname: str | None = None
    ip: str | None = None


class WireWindow(wire.Wire):
    unavailability: wire.Unavailability
    machine_ids: tuple[WireMachine, ...] = ()


class WireSchedule(wire.Wire):
    windows: tuple[WireWindow, ...] = ()


class WireUpdateSchedule(wire.Wire):
    schedule: WireSchedule


class WireMachines(wire.Wire):
    machines: tuple[WireMachine, ...] = ()


class WireDuration(wire.Wire):
    """google.protobuf.Duration."""

    seconds: int = 0
    nanos: int = 0


class WireDrainAgent(wire.Wire):
    agent_id: wire.Id
    max_grace_period: WireDuration | None = None
    mark_gone: bool = False


class WireAgentCall(wire.Wire):
    agent_id: wire.Id


class WireMaintenanceCall(wire.Wire):
    """The members of those operator calls that belong here."""

    update_maintenance_schedule: WireUpdateSchedule | None = None
    start_maintenance: WireMachines | None = None
    stop_maintenance: WireMachines | None = None
    drain_agent: WireDrainAgent | None = None
    deactivate_agent: WireAgentCall | None = None
    reactivate_agent: WireAgentCall | None = None
    mark_agent_gone: WireAgentCall | None = None


class WireAnswer(wire.Wire):
    status: str
    framework_id: wire.Id
    timestamp: wire.Nanoseconds


class WireDrainingMachine(wire.Wire):
    id: WireMachine
    statuses: tuple[WireAnswer, ...] = ()


class WireStatus(wire.Wire):
    draining_machines: tuple[WireDrainingMachine, ...] = ()
    down_machines: tuple[WireMachine, ...] = ()


class WireDrainConfig(wire.Wire):
    max_grace_period: WireDuration | None = None
    mark_gone: bool | None = None


class WireDrainInfo(wire.Wire):
    state: str
    config: WireDrainConfig


_calls = LenientDecoder(WireMaintenanceCall, "master::Call")
_schedules = LenientDecoder(WireSchedule, "maintenance::Schedule")
_machines = LenientDecoder(WireMachines, "MachineID")
_arrays = msgspec.json.Decoder(tuple[msgspec.Raw, ...])


# Reading.


def read_change(kind: str, body: bytes) -> MaintenanceChange | None:
    """The command of an operator call whose type is one of `CHANGES`; None when its member is missing.

    Errors: `Invalid` names what the call breaks.
    """
    found = getattr(_calls.decode(body), kind.lower())
    match kind, found:
        case _, None:
            return None
        case _, WireUpdateSchedule(schedule=schedule):
            return _read_schedule(schedule)
        case "START_MAINTENANCE", WireMachines(machines=machines):
            return StartMaintenance(machines=_read_machines(machines))
        case _, WireMachines(machines=machines):
            return StopMaintenance(machines=_read_machines(machines))
        case _, WireDrainAgent():
            return _read_drain(found)
    agent_id = AgentId(found.agent_id.value)
    match kind:
        case "DEACTIVATE_AGENT":
            return DeactivateAgent(agent_id=agent_id)
        case "REACTIVATE_AGENT":
            return ReactivateAgent(agent_id=agent_id)
        case _:
            return MarkAgentGone(agent_id=agent_id)


def _read_drain(found: WireDrainAgent) -> DrainAgent:
    grace = found.max_grace_period
    if grace is not None and not (0 <= grace.seconds <= _MOST_SECONDS and 0 <= grace.nanos < 1_000_000_000):
        said = f"{grace.seconds} s and {grace.nanos} ns"
        raise Invalid(f"field 'drain_agent.max_grace_period': {said}; give 0 s or more, at most {_MOST_SECONDS}")
    return DrainAgent(
        agent_id=AgentId(found.agent_id.value),
        max_grace_s=grace.seconds + grace.nanos / 1e9 if grace is not None else None,
        mark_gone=found.mark_gone,
    )


def read_schedule(body: bytes) -> UpdateSchedule:
    """The bare schedule that `POST /maintenance/schedule` takes. Errors: `Invalid` names what it breaks."""
    return _read_schedule(_schedules.decode(body))


def _read_schedule(found: WireSchedule) -> UpdateSchedule:
    return UpdateSchedule(windows=tuple(_read_window(w, i) for i, w in enumerate(found.windows)))


def _read_window(found: WireWindow, index: int) -> Window:
    at = f"windows[{index}]"
    if not found.machine_ids:
        raise Invalid(f"field '{at}.machine_ids': the list is empty; name at least one machine")
    start, duration = found.unavailability.start, found.unavailability.duration
    if abs(start.nanoseconds) > _MOST_NS:
        raise Invalid(f"field '{at}.unavailability.start': {start.nanoseconds} is no instant; give nanoseconds")
    if duration is not None and not 0 <= duration.nanoseconds <= _MOST_NS:
        raise Invalid(
            f"field '{at}.unavailability.duration': {duration.nanoseconds} is not 0 or more and at most {_MOST_NS}"
        )
    return Window(
        machines=_read_machines(found.machine_ids), unavailability=read_unavailability(found.unavailability)
    )  # fmt: skip


def read_machines(body: bytes) -> tuple[Machine, ...]:
    """The bare array that `/machine/down` and `/machine/up` take. Errors: `Invalid` for anything else."""
    try:
        array = _arrays.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Invalid(f"Failed to parse machines JSON: {error}; send an array of hostname and ip") from None
    return _read_machines(_machines.decode(b'{"machines":[' + b",".join(array) + b"]}").machines)


def _read_machines(found: Sequence[WireMachine]) -> tuple[Machine, ...]:
    return tuple(_read_machine(each) for each in found)


def _read_machine(found: WireMachine) -> Machine:
    if not found.hostname and not found.ip:
        raise Invalid("a machine has neither hostname nor ip; give at least one")
    ip = found.ip or ""
    if ip:
        try:
            ip = str(ipaddress.ip_address(ip))
        except ValueError:
            raise Invalid(f"machine ip {ip!r} is no address; write for example 10.0.0.7") from None
    return Machine(hostname=(found.hostname or "").lower(), ip=ip)


def read_inverse_offer(found: wire.InverseOffer) -> InverseOffer:
    address = found.url.address if found.url is not None else None
    return InverseOffer(
        id=InverseOfferId(found.id.value),
        framework_id=FrameworkId(found.framework_id.value),
        agent_id=AgentId(found.agent_id.value if found.agent_id is not None else ""),
        hostname=(address.hostname if address is not None else None) or "",
        ip=(address.ip if address is not None else None) or "",
        port=address.port if address is not None else 0,
        unavailability=read_unavailability(found.unavailability),
    )


# Writing.


def write_inverse_offer(offer: InverseOffer) -> wire.InverseOffer:
    return wire.InverseOffer(
        id=wire.Id(value=offer.id),
        url=wire.Url(
            scheme="http",
            address=wire.Address(hostname=offer.hostname, ip=offer.ip, port=offer.port),
            path=AGENT_PATH,
        ),
        framework_id=wire.Id(value=offer.framework_id),
        agent_id=wire.Id(value=offer.agent_id),
        unavailability=write_unavailability(offer.unavailability),
    )


def write_machine(machine: Machine) -> WireMachine:
    return WireMachine(hostname=machine.hostname or None, ip=machine.ip or None)


def write_schedule(snapshot: ClusterSnapshot) -> WireSchedule:
    windows = (
        WireWindow(
            machine_ids=tuple(write_machine(m) for m in window.machines),
            unavailability=write_unavailability(window.unavailability),
        )
        for window in snapshot.windows
    )
    return WireSchedule(windows=tuple(windows))


def write_status(snapshot: ClusterSnapshot) -> WireStatus:
    draining = (
        WireDrainingMachine(
            id=write_machine(row.machine),
            statuses=tuple(
                WireAnswer(
                    status=Answer(one.status).value,
                    framework_id=wire.Id(value=one.framework_id),
                    timestamp=write_seconds(one.at),
                )
                for one in row.answers
            ),
        )
        for row in snapshot.machines
    )
    return WireStatus(draining_machines=tuple(draining), down_machines=tuple(write_machine(m) for m in snapshot.down))


def write_drain_info(drain: Drain) -> WireDrainInfo:
    grace_s = drain.max_grace_s
    grace = None
    if grace_s is not None:
        grace = WireDuration(seconds=int(grace_s), nanos=round((grace_s - int(grace_s)) * 1e9))
    return WireDrainInfo(
        state=drain.state.value, config=WireDrainConfig(max_grace_period=grace, mark_gone=drain.mark_gone)
    )  # fmt: skip


def flat_drain(row: AgentRow) -> dict[str, Any]:
    """What the older endpoints tell of an agent's drain."""
    if row.drain is None:
        return {}
    return {"drain_info": write_drain_info(row.drain), "estimated_drain_start_time_seconds": row.drain.started_at}
