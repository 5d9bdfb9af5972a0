"""What a master or an agent hands over for its Mesos views: plain values of one moment, made after a commit.

The builders in `legacy` and `operator` turn them into JSON; nothing here is a wire shape.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import overload

import msgspec

from corral.model.agent import AgentInfo
from corral.model.events import MasterInfo
from corral.model.framework import FrameworkInfo
from corral.model.ids import AgentId, ContainerId, FrameworkId, TaskId
from corral.model.maintenance import Drain, InverseOffer, Machine, MachineRow, Window
from corral.model.offer import Offer
from corral.model.offer_constraints import OfferConstraints
from corral.model.operations import OperationStatus, ResourceOperation
from corral.model.resources import Resources
from corral.model.role import RoleSettings
from corral.model.task import TERMINAL, ExecutorInfo, Task


class AgentRow(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Shapes: `info.id` is set. `active` agents take new tasks; `recovered` ones are remembered and not yet back.

    `used` is what tasks hold, `offered` what is out in offers; both may carry allocation roles. `orphans` run here for
    no framework any more. Units: instants are float seconds UTC.
    """

    info: AgentInfo
    active: bool = True
    connected: bool = True
    deactivated: bool = False
    recovered: bool = False
    registered_at: float = 0.0
    reregistered_at: float | None = None
    unreachable_at: float | None = None
    used: Resources = ()
    offered: Resources = ()
    drain: Drain | None = None
    orphans: tuple[Task, ...] = ()

    @property
    def id(self) -> AgentId:
        return self.info.id or AgentId("")


class TaskRows(Sequence[Task]):
    """Tasks of one moment, in the dictionary that holds them: it is lent, and no more changed.

    Shapes: the garbage collector passes over a dictionary that holds nothing but tasks, where it would look through a
    list of all of them.
    """

    __slots__ = ("_rows",)

    def __init__(self, rows: Mapping[TaskId, Task]) -> None:
        self._rows = rows

    def __iter__(self) -> Iterator[Task]:
        return iter(self._rows.values())

    def __len__(self) -> int:
        return len(self._rows)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    __hash__ = None  # type: ignore[assignment]

    @overload
    def __getitem__(self, at: int) -> Task: ...
    @overload
    def __getitem__(self, at: slice) -> tuple[Task, ...]: ...
    def __getitem__(self, at: int | slice) -> Task | tuple[Task, ...]:
        return tuple(self._rows.values())[at]


class FrameworkRow(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Shapes: `info.id` is set. `tasks` are those of reachable agents, ended and unacknowledged ones included."""

    info: FrameworkInfo
    active: bool = True
    connected: bool = True
    recovered: bool = False
    registered_at: float = 0.0
    reregistered_at: float | None = None
    unregistered_at: float | None = None
    tasks: Sequence[Task] = ()
    unreachable_tasks: tuple[Task, ...] = ()
    completed_tasks: tuple[Task, ...] = ()
    offers: tuple[Offer, ...] = ()
    used: Resources = ()
    offered: Resources = ()
    offer_constraints: OfferConstraints = ()
    inverse_offers: tuple[InverseOffer, ...] = ()

    @property
    def id(self) -> FrameworkId:
        return self.info.id or FrameworkId("")


class RoleRow(msgspec.Struct, frozen=True, kw_only=True):
    """Shapes: `settings` are what operators have set of it, None for nothing.

    `allocated` counts tasks and offers of the role itself, `offered` offers alone, both by name, what is revocable by
    itself apart; `reserved` is what agents keep for it and the roles below it, `consumed` all of it with all roles
    below it. A role comes after the one above it.
    """

    name: str
    settings: RoleSettings | None = None
    frameworks: tuple[FrameworkId, ...] = ()
    allocated: Resources = ()
    offered: Resources = ()
    consumed: Resources = ()
    reserved: Resources = ()

    @property
    def weight(self) -> float:
        return self.settings.weight if self.settings is not None else 1.0

    @property
    def guarantee(self) -> Resources:
        return self.settings.guarantee if self.settings is not None else ()

    @property
    def limit(self) -> Resources:
        return self.settings.limit if self.settings is not None else ()


class ExecutorRow(msgspec.Struct, frozen=True, kw_only=True):
    """An executor that an agent has."""

    info: ExecutorInfo
    framework_id: FrameworkId
    agent_id: AgentId
    role: str


class OperationRow(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """An operation on an agent's resources that is under way, or over and not acknowledged.

    Shapes: `framework_id` None when an operator asked for it; `agent_id` None when it named no agent that is known.
    """

    operation: ResourceOperation
    uuid: bytes
    status: OperationStatus
    framework_id: FrameworkId | None = None
    agent_id: AgentId | None = None


class ClusterSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The whole cluster. Units: `heartbeat_s` seconds between the heartbeats of a stream.

    Shapes: `leader` is None where nobody leads; `flags` are the configuration as texts.

    `agents` are the registered ones, connected or not, the recovered and the unreachable ones too, told apart by their
    fields. `windows` are scheduled for maintenance; of their machines `down` are down and `machines` are not yet.
    """

    master: MasterInfo
    start_at: float = 0.0
    elected_at: float | None = None
    heartbeat_s: float = 15.0
    leader: MasterInfo | None = None
    cluster: str | None = None
    agents: tuple[AgentRow, ...] = ()
    frameworks: tuple[FrameworkRow, ...] = ()
    completed_frameworks: tuple[FrameworkRow, ...] = ()
    executors: tuple[ExecutorRow, ...] = ()
    operations: tuple[OperationRow, ...] = ()
    roles: tuple[RoleRow, ...] = ()
    flags: tuple[tuple[str, str], ...] = ()
    windows: tuple[Window, ...] = ()
    machines: tuple[MachineRow, ...] = ()
    down: tuple[Machine, ...] = ()


class RunRow(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a task on its agent.

    Shapes: `directory` is its sandbox; `queued` until it has been started; `is_forgotten` when its end has been
    acknowledged. With an `executor`, container and directory are those of the executor, which may have other tasks as
    well.
    """

    task: Task
    container_id: ContainerId
    directory: str
    queued: bool = False
    executor: ExecutorInfo | None = None
    is_forgotten: bool = False

    @property
    def is_completed(self) -> bool:
        return self.task.state in TERMINAL


class AgentFrameworkRow(msgspec.Struct, frozen=True, kw_only=True):
    info: FrameworkInfo
    runs: tuple[RunRow, ...] = ()


class AgentSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """One agent as it sees itself. Shapes: `master_hostname` is empty while it has no master."""

    info: AgentInfo
    start_at: float = 0.0
    master_hostname: str = ""
    flags: tuple[tuple[str, str], ...] = ()
    frameworks: tuple[AgentFrameworkRow, ...] = ()
    completed_frameworks: tuple[AgentFrameworkRow, ...] = ()

    def by_life(self) -> tuple[list[AgentFrameworkRow], list[AgentFrameworkRow]]:
        """The frameworks of which something lives here, and those whose runs here have all ended."""
        live = [f for f in self.frameworks if any(not r.is_completed for r in f.runs)]
        return live, [*self.completed_frameworks, *(f for f in self.frameworks if f not in live)]
