"""An agent as the master keeps it, with its states and its link.

What changes it are the families; the small methods here keep what is shown of it in step.
"""

from collections.abc import Iterable
from enum import StrEnum

from corral.master.attempts import Attempts
from corral.master.entries import ExecutorEntry, InverseEntry, OfferEntry, TaskEntry
from corral.master.spec import AgentRecord
from corral.mesos.snapshot import AgentRow
from corral.model.agent import AgentInfo
from corral.model.attributes import format_value
from corral.model.calls import ReconcileTask
from corral.model.ids import AgentId, ExecutorId, FrameworkId, OfferId, TaskId
from corral.model.maintenance import Drain, DrainState, Unavailability


class AgentState(StrEnum):
    REACHABLE = "reachable"
    DISCONNECTED = "disconnected"  # the link broke, the time for its return runs
    UNREACHABLE = "unreachable"  # silent for too long
    RECOVERED = "recovered"  # known from the records, not yet seen by this master


class AgentEvent(StrEnum):
    REGISTER = "register"
    LINK_BROKE = "link broke"
    TIMED_OUT = "timed out"


AGENT_STATES = {
    (AgentState.RECOVERED, AgentEvent.REGISTER): AgentState.REACHABLE,
    (AgentState.DISCONNECTED, AgentEvent.REGISTER): AgentState.REACHABLE,
    (AgentState.UNREACHABLE, AgentEvent.REGISTER): AgentState.REACHABLE,
    (AgentState.REACHABLE, AgentEvent.REGISTER): AgentState.REACHABLE,
    (AgentState.REACHABLE, AgentEvent.LINK_BROKE): AgentState.DISCONNECTED,
    (AgentState.REACHABLE, AgentEvent.TIMED_OUT): AgentState.UNREACHABLE,
    (AgentState.DISCONNECTED, AgentEvent.TIMED_OUT): AgentState.UNREACHABLE,
    (AgentState.RECOVERED, AgentEvent.TIMED_OUT): AgentState.UNREACHABLE,
}


class Contact:
    """When an agent was last heard and spoken to; apart from the agent, as each message changes it and no view."""

    __slots__ = ("heard_at", "spoken_at")

    def __init__(self, now: float) -> None:
        self.heard_at = now
        self.spoken_at = now


class AgentEntry:
    """One agent.

    Shapes: `tasks` holds also those that ended and wait for the framework's acknowledgement. `unavailability` is set
    while its machine is scheduled for maintenance; `in_window` once that has begun. `inverse` holds what each framework
    was asked about it, `asked` what frameworks asked about its tasks before it came back to a new master. `shown` is
    the agent as views show it, None when something about it has changed since; `counted` is the row in the sums of all
    agents.
    """

    __slots__ = (
        "asked", "attempts", "attributes", "awaits_removal", "contact", "counted", "deactivated", "drain", "executors",
        "id", "in_window", "info", "inverse", "offers", "registered_at", "reregistered_at", "session", "shown", "state",
        "tasks", "unavailability", "unreachable_at",
    )  # fmt: skip

    def __init__(self, id: AgentId, info: AgentInfo, now: float, state: AgentState) -> None:
        self.shown: AgentRow | None = None
        self.id = id
        self.state = state
        self.session: str | None = None
        self.attempts = Attempts()
        self.counted: AgentRow | None = None
        self.registered_at = now
        self.reregistered_at: float | None = None
        self.unreachable_at: float | None = None
        self.contact = Contact(now)
        self.tasks: dict[tuple[FrameworkId, TaskId], TaskEntry] = {}
        self.executors: dict[tuple[FrameworkId, ExecutorId], ExecutorEntry] = {}
        self.offers: dict[OfferId, OfferEntry] = {}
        self.awaits_removal = False
        self.deactivated = False
        self.drain: Drain | None = None
        self.unavailability: Unavailability | None = None
        self.in_window = False
        self.inverse: dict[FrameworkId, InverseEntry] = {}
        self.asked: dict[tuple[FrameworkId, TaskId], ReconcileTask] = {}
        self.describe(info)

    def __setattr__(self, name: str, value: object) -> None:
        _set(self, name, value)
        if name not in _UNSEEN and self.shown is not None:
            _set(self, "shown", None)

    def describe(self, info: AgentInfo) -> None:
        self.info = info
        self.attributes = {a.name: format_value(a) for a in info.attributes}

    @property
    def ineligible(self) -> str:
        """Why the agent takes nothing new, empty when it does."""
        if self.state is not AgentState.REACHABLE:
            return str(self.state)
        if self.drain is not None:
            return self.drain.state.lower()
        if self.deactivated:
            return "deactivated"
        return "maintenance" if self.in_window else ""

    @property
    def draining(self) -> bool:
        return self.drain is not None and self.drain.state is DrainState.DRAINING

    def record(self) -> AgentRecord:
        """All of it that a new master must know."""
        return AgentRecord(
            info=self.info, unreachable_at=self.unreachable_at, deactivated=self.deactivated, drain=self.drain
        )  # fmt: skip

    def move(self, event: AgentEvent) -> bool:
        """Take the transition; False when there is none from this state."""
        found = AGENT_STATES.get((self.state, event))
        if found is None:
            return False
        self.state = found
        return True


class AgentTable(dict[AgentId, AgentEntry]):
    """All agents by id, and by the place where they serve: two may claim the same, as a wiped one comes again anew."""

    __slots__ = ("_places",)

    def __init__(self) -> None:
        super().__init__()
        self._places: dict[tuple[str, int], dict[AgentId, AgentEntry]] = {}

    def __setitem__(self, id: AgentId, agent: AgentEntry) -> None:
        super().__setitem__(id, agent)
        self._places.setdefault(place_of(agent.info), {})[id] = agent

    def __delitem__(self, id: AgentId) -> None:
        self._leave_place(self[id])
        super().__delitem__(id)

    def at(self, info: AgentInfo) -> Iterable[AgentEntry]:
        """Those known to serve where this one does, itself among them."""
        return tuple(self._places.get(place_of(info), {}).values())

    def describe(self, agent: AgentEntry, info: AgentInfo) -> None:
        """An agent of the table has come back, perhaps at another place."""
        self._leave_place(agent)
        agent.describe(info)
        self[agent.id] = agent

    def _leave_place(self, agent: AgentEntry) -> None:
        place = place_of(agent.info)
        there = self._places[place]
        del there[agent.id]
        if not there:
            del self._places[place]

    def invariants(self) -> None:
        """Assert that each agent is found at its place, and nobody else."""
        found = sorted(id for there in self._places.values() for id in there)
        assert found == sorted(self), f"agents {list(self)} serve somewhere, noted are {found}"
        for agent in self.values():
            assert agent in self.at(agent.info), f"agent {agent.id} is not noted at {place_of(agent.info)}"


def place_of(info: AgentInfo) -> tuple[str, int]:
    """Where an agent serves: no two can at the same time."""
    return info.hostname, info.port


_set = object.__setattr__
_UNSEEN = frozenset({"asked", "shown", "counted", "contact", "session"})
"""What of an agent no view shows."""


class SessionEntry:
    """An agent's link. Shapes: `agent_id` None until its first report."""

    __slots__ = ("agent_id", "peer")

    def __init__(self, peer: str) -> None:
        self.peer = peer
        self.agent_id: AgentId | None = None
