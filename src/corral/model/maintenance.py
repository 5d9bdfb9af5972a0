"""Machines that are taken out of service: windows, drains, and what operators ask about both.

A machine is whatever agents have its host name and its address. Source: Mesos v1, maintenance and agent draining.
"""

from enum import StrEnum

import msgspec

from corral.model.ids import AgentId, FrameworkId, InverseOfferId


class Machine(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """Shapes: `hostname` in lower case; what is empty is not said, and matches any. Its text is what the CLI takes."""

    hostname: str = ""
    ip: str = ""

    def holds(self, hostname: str, ip: str) -> bool:
        """Whether an agent of this name and address is on the machine."""
        return self.hostname in ("", hostname.lower()) and self.ip in ("", ip)

    def __str__(self) -> str:
        return "=".join(filter(None, (self.hostname, self.ip)))


class Unavailability(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """Units: nanoseconds, since 1970 UTC for `start_ns`. Shapes: without a duration it never ends by itself."""

    start_ns: int
    duration_ns: int | None = None

    @property
    def start_at(self) -> float:
        return self.start_ns / 1e9

    @property
    def end_at(self) -> float | None:
        return None if self.duration_ns is None else (self.start_ns + self.duration_ns) / 1e9

    def covers(self, at: float) -> bool:
        end_at = self.end_at
        return self.start_at <= at and (end_at is None or at < end_at)


class Window(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    machines: tuple[Machine, ...]
    unavailability: Unavailability


class InverseOffer(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """Asks a framework to leave an agent by the time of its unavailability."""

    id: InverseOfferId
    framework_id: FrameworkId
    agent_id: AgentId
    hostname: str
    ip: str
    port: int
    unavailability: Unavailability


class Answer(StrEnum):
    """What a framework has said to an inverse offer."""

    UNKNOWN = "UNKNOWN"
    ACCEPT = "ACCEPT"
    DECLINE = "DECLINE"


class AnswerRow(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """Shapes: `at` is when the answer came, or when the inverse offer was made while there is none."""

    framework_id: FrameworkId
    status: Answer
    at: float


class MachineRow(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """A machine that is scheduled and not down yet."""

    machine: Machine
    answers: tuple[AnswerRow, ...] = ()


class DrainState(StrEnum):
    DRAINING = "DRAINING"
    DRAINED = "DRAINED"


class Drain(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """An agent is being emptied, or is empty. Units: seconds; `max_grace_s` None leaves each task its own grace."""

    state: DrainState = DrainState.DRAINING
    max_grace_s: float | None = None
    mark_gone: bool = False
    started_at: float = 0.0


# Commands.


class UpdateSchedule(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag=True):
    """Replace the whole schedule. Errors: `Invalid` for a machine twice, and for one left out that is down."""

    windows: tuple[Window, ...] = ()


class StartMaintenance(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag=True):
    """Take scheduled machines down: their agents are removed and may not come back before the stop."""

    machines: tuple[Machine, ...] = ()


class StopMaintenance(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag=True):
    """Bring machines up that are down; they leave the schedule. Errors: `Invalid` for one that is not down."""

    machines: tuple[Machine, ...] = ()


class DrainAgent(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag=True):
    """End everything on an agent and give it nothing new. Errors: `Invalid` for one that is not known."""

    agent_id: AgentId
    max_grace_s: float | None = None
    mark_gone: bool = False


class DeactivateAgent(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag=True):
    """Give an agent nothing new; its tasks run on."""

    agent_id: AgentId


class ReactivateAgent(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag=True):
    """Errors: `Invalid` for an agent that is active, or still draining."""

    agent_id: AgentId


class MarkAgentGone(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag=True):
    """Declare an agent lost for ever. Errors: `NotFound` when it is not known."""

    agent_id: AgentId


MaintenanceChange = (
    UpdateSchedule | StartMaintenance | StopMaintenance | DrainAgent | DeactivateAgent | ReactivateAgent | MarkAgentGone
)
