"""What master and agent say to each other, as MessagePack frames.

Orders go down from the master, reports go up from the agent. Every order carries the master's epoch; an agent ignores
one that is lower than the highest it has seen. After any gap the agent's `Register` tells everything it has, and the
master's `Registered` says which of it is not wanted.
"""

import msgspec

from corral.model.agent import AgentInfo
from corral.model.framework import FrameworkInfo
from corral.model.ids import AgentId, ExecutorId, FrameworkId, TaskId
from corral.model.operations import ResourceOperation
from corral.model.resources import Resources
from corral.model.task import ExecutorInfo, Reason, TaskInfo, TaskState, TaskStatus


class AgentTask(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One task as the agent knows it. Shapes: `acked` when its terminal update has been acknowledged."""

    info: TaskInfo
    framework_id: FrameworkId
    role: str
    state: TaskState
    status: TaskStatus | None = None


class AgentExecutor(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One executor that has not ended: it holds its resources."""

    info: ExecutorInfo
    framework_id: FrameworkId
    role: str


# Orders, master to agent.


class Registered(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="registered"):
    """Units: `ping_s` seconds between two signs of life that the master expects.

    Shapes: `framework_ids` are those of the registered tasks' frameworks that are not wanted any more; they are to end
    as if `ShutdownFramework` named each. A master that `answers` says `Heard` to every `Pong` that has an instant.
    """

    epoch: int
    agent_id: AgentId
    ping_s: float
    framework_ids: tuple[FrameworkId, ...] = ()
    answers: bool = False


class Refused(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="refused"):
    """The agent may not join, or not stay; `why` says what to do about it.

    Shapes: with `end_tasks` its frameworks were told that its tasks are over, which it has to make true.
    """

    epoch: int
    why: str
    end_tasks: bool = False


class RunTask(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="run"):
    """Shapes: `starts_executor` tells that the task's executor does not run there yet and holds its resources from now
    on; a task for an executor that has ended meanwhile is dropped.
    """

    epoch: int
    framework: FrameworkInfo
    role: str
    info: TaskInfo
    starts_executor: bool = False


class RunGroup(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="run group"):
    """Tasks that start together or not at all. Shapes: each of `infos` names the same executor; else as `RunTask`."""

    epoch: int
    framework: FrameworkInfo
    role: str
    infos: tuple[TaskInfo, ...]
    starts_executor: bool = False


class KillTask(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="kill"):
    """Units: `grace_s` seconds; None keeps the task's own. `why` and `reason` are told with the task's end."""

    epoch: int
    framework_id: FrameworkId
    task_id: TaskId
    grace_s: float | None = None
    why: str = ""
    reason: Reason | None = None


class AcknowledgeUpdate(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="ack"):
    epoch: int
    framework_id: FrameworkId
    task_id: TaskId
    uuid: bytes


class ShutdownFramework(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="shutdown"):
    """Kill all tasks of the framework and forget it when they have ended.

    Shapes: their last updates are told as always; the master acknowledges them in the framework's stead.
    """

    epoch: int
    framework_id: FrameworkId


class ShutdownExecutor(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="shutdown executor"):
    """Ask an executor to end, and end it when it does not within its grace.

    Shapes: `why` and `reason` are told with the ends of its tasks; without, its framework asked for it.
    """

    epoch: int
    framework_id: FrameworkId
    executor_id: ExecutorId
    why: str = ""
    reason: Reason | None = None


class MessageExecutor(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="message executor"):
    """Hand a framework's message to its executor; lost when that does not listen."""

    epoch: int
    framework_id: FrameworkId
    executor_id: ExecutorId
    data: bytes


class ApplyOperation(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="operate"):
    """Change what the agent has: a reservation or a volume. Shapes: `uuid` names it in the answer."""

    epoch: int
    uuid: bytes
    operation: ResourceOperation


class Ping(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="ping"):
    epoch: int


class Heard(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="heard"):
    """The answer to a `Pong` with an instant: this master had the agent in its list when it got it."""

    epoch: int
    at: float


Order = (
    Registered | Refused | RunTask | RunGroup | KillTask | AcknowledgeUpdate | ShutdownFramework | ShutdownExecutor
    | MessageExecutor | ApplyOperation | Ping | Heard
)  # fmt: skip

# Reports, agent to master.


class Register(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="register"):
    """The first report of a session.

    Shapes: `info.id` None the first time ever; `frameworks` of all its tasks and executors. `life` is a word of the
    agent's process, `number` which of its sessions this is: one that comes late can be told from a newer one.
    """

    info: AgentInfo
    tasks: tuple[AgentTask, ...] = ()
    frameworks: tuple[FrameworkInfo, ...] = ()
    executors: tuple[AgentExecutor, ...] = ()
    life: str = ""
    number: int = 0


class UpdateTask(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="update"):
    """Shapes: `latest` is the newest state, which may be ahead of `status.state` when older updates wait for acks."""

    framework_id: FrameworkId
    status: TaskStatus
    latest: TaskState


class ExecutorEnded(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="executor ended"):
    """An executor holds its resources no more. Shapes: `status` is a raw wait status, None when nobody saw it."""

    framework_id: FrameworkId
    executor_id: ExecutorId
    status: int | None = None


class ExecutorMessage(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="executor message"):
    framework_id: FrameworkId
    executor_id: ExecutorId
    data: bytes


class OperationDone(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="operated"):
    """The operation is on the agent's disk; or, with `why`, it has changed nothing."""

    uuid: bytes
    why: str | None = None


class Slack(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="slack"):
    """How much of what tasks hold and do not use may be lent, all of it; a master that has just registered the agent
    takes it that there is none. Shapes: plain scalars.
    """

    resources: Resources


class Pong(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="pong"):
    """A sign of life. Units: `at` by the agent's own steady clock, which `Heard` brings back; None wants no answer."""

    at: float | None = None


class Leaving(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="leaving"):
    """The agent is being taken out of service for good."""


Report = Register | UpdateTask | ExecutorEnded | ExecutorMessage | OperationDone | Slack | Pong | Leaving
