"""One of each thing that the master keeps of frameworks: a task, an offer, a want, and what is noted of them.

What changes an entry are the families; the small methods here keep what is shown of it in step.
"""

from collections import deque
from typing import NamedTuple

from corral.allocator.view import Eviction
from corral.master.attempts import Attempts
from corral.master.spec import SchedulerCall
from corral.mesos.snapshot import TaskRows
from corral.model.framework import Capability, FrameworkInfo
from corral.model.ids import AgentId, FrameworkId, OfferId, TaskId, WantId
from corral.model.ledger import Tally
from corral.model.maintenance import Answer, InverseOffer
from corral.model.offer import Explanation, Offer, Want
from corral.model.offer_constraints import OfferConstraints
from corral.model.operations import OperationStatus, ResourceOperation
from corral.model.resources import Resources
from corral.model.task import ExecutorInfo, Task, TaskInfo, TaskState, TaskStatus


class TaskTable(dict[TaskId, "TaskEntry"]):
    """The tasks of a framework by id.

    Shapes: `lend` gives each as views show it, as they are now: what changes later changes a copy.
    """

    __slots__ = ("_is_lent", "rows")

    def __init__(self) -> None:
        super().__init__()
        self.rows: dict[TaskId, Task] = {}
        self._is_lent = False

    def __setitem__(self, task_id: TaskId, entry: "TaskEntry") -> None:
        super().__setitem__(task_id, entry)
        entry.table = self
        self.show(entry)

    def __delitem__(self, task_id: TaskId) -> None:
        self[task_id].table = None
        super().__delitem__(task_id)
        del self._own()[task_id]

    def show(self, entry: "TaskEntry") -> None:
        """Take what is new about one of them."""
        self._own()[entry.info.task_id] = entry.shown

    def lend(self) -> TaskRows:
        self._is_lent = True
        return TaskRows(self.rows)

    def _own(self) -> dict[TaskId, Task]:
        if self._is_lent:
            self.rows = self.rows.copy()
            self._is_lent = False
        return self.rows


class TaskEntry:
    """One task as the master knows it.

    Shapes: `shown` is the task as views show it, made anew with each change, so that a view of all tasks only has to
    gather what is there; `info`, framework and role of a task never change. `state` is the newest known, `statuses` has
    the last status of each state, the newest last (`add_status` is how one comes there), `forwarded`
    the last one told to the framework; `resources` are counted by the allocator, under `key`, while `holding`. `kill`
    is the grace of a kill that was asked and not yet seen to work, None inside for the task's own; `preempted_by` tells
    for whom it has to make room, if that is why. `at` is when the master first knew of it. `orphan` tells that its
    framework has been removed or has another task of this id: only its agent still has to say that it ended.
    """

    __slots__ = (
        "_state", "agent_id", "at", "forwarded", "forwarded_uuid", "framework_id", "group", "holding", "info",
        "key", "kill", "orphan", "preempted_by", "resources", "role", "shown", "statuses", "table", "unacknowledged",
    )  # fmt: skip

    def __init__(
        self, info: TaskInfo, framework_id: FrameworkId, role: str, resources: Resources, group: str | None, at: float,
        *, state: TaskState = TaskState.STAGING, status: TaskStatus | None = None,
    ) -> None:  # fmt: skip
        self.info = info
        self.at = at
        self.framework_id = framework_id
        self.agent_id = info.agent_id
        self.role = role
        self.resources = resources
        self.group = group
        self.table: TaskTable | None = None
        self.statuses: dict[TaskState, TaskStatus] = {} if status is None else {status.state: status}
        self._state = state
        self.forwarded = state if status is None else status.state
        self.forwarded_uuid: bytes | None = None
        self.unacknowledged: tuple[TaskStatus, ...] = ()
        self.holding = False
        self.key = f"task/{framework_id}/{info.task_id}"
        self.kill: tuple[float | None] | None = None
        self.orphan = False
        self.preempted_by: Eviction | None = None
        self.show()

    @property
    def state(self) -> TaskState:
        return self._state

    @state.setter
    def state(self, state: TaskState) -> None:
        self._state = state
        self.show()

    def add_status(self, status: TaskStatus) -> None:
        """Keep it as the newest of all, in the place of an earlier one of its state."""
        self.statuses.pop(status.state, None)
        self.statuses[status.state] = status
        self.show()

    def show(self) -> None:
        """Make what views show of it anew."""
        self.shown = Task(
            info=self.info, framework_id=self.framework_id, role=self.role, state=self._state,
            statuses=tuple(self.statuses.values()),
        )  # fmt: skip
        if self.table is not None:
            self.table.show(self)

    @property
    def last_status(self) -> TaskStatus | None:
        return next(reversed(self.statuses.values()), None)


class ExecutorEntry:
    """One executor that an agent has: it comes with its first task and holds its resources until the agent says that it
    has ended.

    Shapes: `info` as it is compared with what later tasks bring; `resources` are counted by the allocator under `key`;
    `preempted_by` is set once it has been asked to make room.
    """

    __slots__ = ("agent_id", "framework_id", "info", "key", "preempted_by", "role")

    def __init__(self, info: ExecutorInfo, framework_id: FrameworkId, agent_id: AgentId, role: str) -> None:
        self.info = info
        self.framework_id = framework_id
        self.agent_id = agent_id
        self.role = role
        self.key = f"executor/{agent_id}/{framework_id}/{info.executor_id}"
        self.preempted_by: Eviction | None = None

    @property
    def resources(self) -> Resources:
        return self.info.resources


class OfferEntry:
    """An offer that is out. Shapes: `resources` as the allocator counts them; `offer` as the framework sees it.

    `revocable` when it is of what is lent.
    """

    __slots__ = ("expires_at", "made_at", "offer", "resources", "revocable", "want")

    def __init__(
        self, offer: Offer, resources: Resources, want: "WantEntry | None", made_at: float, *, revocable: bool = False
    ) -> None:
        self.revocable = revocable
        self.offer = offer
        self.resources = resources
        self.want = want
        self.made_at = made_at
        self.expires_at: float | None = None


class InverseEntry:
    """What a framework was asked about leaving an agent. Shapes: asked again from `again_at` on, never when None.

    `out` while it has not answered.
    """

    __slots__ = ("again_at", "answer", "at", "offer", "out")

    def __init__(self, offer: InverseOffer, at: float) -> None:
        self.offer = offer
        self.at = at
        self.answer = Answer.UNKNOWN
        self.out = True
        self.again_at: float | None = None


class WantEntry:
    """A standing want. Shapes: of `remaining` instances `offered` are out in offers; `told` is it to the allocator."""

    __slots__ = ("framework_id", "offered", "remaining", "since_at", "told", "want")

    def __init__(self, want: Want, framework_id: FrameworkId, since_at: float) -> None:
        self.want = self.told = want
        self.framework_id = framework_id
        self.remaining = want.count
        self.offered = 0
        self.since_at = since_at

    @property
    def missing(self) -> int:
        return max(self.remaining - self.offered, 0)


class OperationEntry:
    """An operation that was ordered and not yet answered. Shapes: `ask` is the operator's, who waits for it; `uuid` is
    empty until it is ordered."""

    __slots__ = ("agent_id", "ask", "framework_id", "operation", "uuid")

    def __init__(
        self, operation: ResourceOperation, agent_id: AgentId, framework_id: FrameworkId | None, ask: int | None = None
    ) -> None:
        self.operation = operation
        self.agent_id = agent_id
        self.framework_id = framework_id
        self.ask = ask
        self.uuid = b""


class ToldOperation(NamedTuple):
    """An operation whose end a framework was told and has not acknowledged. Shapes: `uuid` empty when it was never
    ordered of an agent."""

    operation: ResourceOperation
    status: OperationStatus
    uuid: bytes


class FrameworkEntry:
    """One framework, connected or not, or removed and kept to look at.

    Shapes: `offered` sums up what is out in its offers. `told` are the explanations that it heard last, `explanations`
    those of the last round by want. While it `explain_due`, a round is due or under way, in which `unexplained` wants
    have to be looked at still. `operations` are the last words on operations that it has not
    acknowledged.
    """

    __slots__ = (
        "attempts", "completed", "constraints", "explain_due", "explained_at", "explaining", "explanations", "fed_at",
        "id", "info", "kills", "offered", "offers", "operations", "principal", "recovered",
        "registered_at",
        "reregistered_at", "starves", "stream", "suppressed", "tasks", "told", "unexplained", "unreachable",
        "unregistered_at", "uses_wants",
        "waiting", "wants",
    )  # fmt: skip

    def __init__(self, info: FrameworkInfo, id: FrameworkId, now: float, most_completed: int) -> None:
        self.id = id
        self.info = info
        self.principal = info.principal
        self.stream: str | None = None
        self.attempts = Attempts()
        self.recovered = False
        self.registered_at = now
        self.reregistered_at: float | None = None
        self.unregistered_at: float | None = None
        self.tasks = TaskTable()
        self.unreachable: dict[TaskId, TaskEntry] = {}
        self.completed: deque[TaskEntry] = deque(maxlen=most_completed)
        self.kills: dict[TaskId, float | None] = {}
        self.offers: dict[OfferId, OfferEntry] = {}
        self.offered = Tally()
        self.operations: dict[str, ToldOperation] = {}
        self.suppressed: set[str] = set()
        self.constraints: OfferConstraints = ()
        self.fed_at = now
        self.starves = False
        self.uses_wants = False
        self.wants: dict[WantId, WantEntry] = {}
        self.waiting: dict[WantId, WantEntry] = {}
        self.explanations: dict[WantId, Explanation] = {}
        self.told: tuple[Explanation, ...] = ()
        self.explained_at = 0.0
        self.explain_due = False
        self.explaining: dict[WantId, Explanation] = {}
        self.unexplained: list[WantId] | None = None

    @property
    def connected(self) -> bool:
        return self.stream is not None

    @property
    def partition_aware(self) -> bool:
        return self.info.can(Capability.PARTITION_AWARE)

    def settle(self, want: WantEntry) -> None:
        """Keep `waiting` in step after a want's numbers have changed; nothing for one that was stated anew since."""
        if self.wants.get(want.want.id) is not want:
            return
        if want.remaining > want.offered:
            self.waiting[want.want.id] = want
        else:
            self.waiting.pop(want.want.id, None)


class Lane:
    """The calls of one principal, or of all without a rate of their own. Shapes: `waiting` as asked, oldest first."""

    __slots__ = ("next_at", "waiting")

    def __init__(self) -> None:
        self.next_at = 0.0
        self.waiting: deque[tuple[int, SchedulerCall]] = deque()
