"""Tasks: what a framework asks to run, the states it passes through, and what is told of it.

Source: Mesos v1 TaskInfo and TaskStatus; the names of states, reasons and sources are the wire's.
"""

from enum import StrEnum

import msgspec

from corral.model.command import CommandInfo as CommandInfo
from corral.model.command import Uri as Uri
from corral.model.container import ContainerInfo, NetworkInfo
from corral.model.health import CheckResult, CheckStatus, HealthCheck
from corral.model.ids import AgentId, ContainerId, ExecutorId, FrameworkId, TaskId, WantId
from corral.model.resources import Resources

RESULT_LABEL = "corral.result"
"""The label that names a file of the task's sandbox. What it holds is told as `data` with the task's success."""

MOST_RESULT_BYTES = 4096
"""A file with more is told of in the message alone."""

GROUP_LABEL = "corral.group"
"""The label whose value says which siblings a want's `unique`, `max-per` and `group-by` constraints count."""


INSTANCE_LABEL = "corral.instance"
"""The label that names the instance which a task is one run of; tasks see it as CORRAL_INSTANCE_ID."""


class TaskState(StrEnum):
    STAGING = "TASK_STAGING"
    STARTING = "TASK_STARTING"
    RUNNING = "TASK_RUNNING"
    KILLING = "TASK_KILLING"
    FINISHED = "TASK_FINISHED"
    FAILED = "TASK_FAILED"
    KILLED = "TASK_KILLED"
    ERROR = "TASK_ERROR"
    LOST = "TASK_LOST"
    DROPPED = "TASK_DROPPED"
    UNREACHABLE = "TASK_UNREACHABLE"
    GONE = "TASK_GONE"
    GONE_BY_OPERATOR = "TASK_GONE_BY_OPERATOR"
    UNKNOWN = "TASK_UNKNOWN"


TERMINAL = frozenset(
    {
        TaskState.FINISHED, TaskState.FAILED, TaskState.KILLED, TaskState.ERROR, TaskState.LOST, TaskState.DROPPED,
        TaskState.GONE, TaskState.GONE_BY_OPERATOR,
    }
)  # fmt: skip

PARTITION_AWARE_ONLY = frozenset(
    {TaskState.DROPPED, TaskState.UNREACHABLE, TaskState.GONE, TaskState.GONE_BY_OPERATOR, TaskState.UNKNOWN}
)
"""States that a framework without PARTITION_AWARE sees as TASK_LOST."""


class Source(StrEnum):
    MASTER = "SOURCE_MASTER"
    AGENT = "SOURCE_AGENT"
    EXECUTOR = "SOURCE_EXECUTOR"


class Reason(StrEnum):
    """Why a task is in its state; on the wire as written here."""

    AGENT_DISCONNECTED = "REASON_AGENT_DISCONNECTED"
    AGENT_DRAINING = "REASON_AGENT_DRAINING"
    AGENT_REMOVED = "REASON_AGENT_REMOVED"
    AGENT_REMOVED_BY_OPERATOR = "REASON_AGENT_REMOVED_BY_OPERATOR"
    AGENT_REREGISTERED = "REASON_AGENT_REREGISTERED"
    AGENT_RESTARTED = "REASON_AGENT_RESTARTED"
    CONTAINER_LAUNCH_FAILED = "REASON_CONTAINER_LAUNCH_FAILED"
    CONTAINER_LIMITATION = "REASON_CONTAINER_LIMITATION"
    CONTAINER_LIMITATION_DISK = "REASON_CONTAINER_LIMITATION_DISK"
    CONTAINER_LIMITATION_MEMORY = "REASON_CONTAINER_LIMITATION_MEMORY"
    CONTAINER_PREEMPTED = "REASON_CONTAINER_PREEMPTED"
    EXECUTOR_REGISTRATION_TIMEOUT = "REASON_EXECUTOR_REGISTRATION_TIMEOUT"
    EXECUTOR_REREGISTRATION_TIMEOUT = "REASON_EXECUTOR_REREGISTRATION_TIMEOUT"
    EXECUTOR_TERMINATED = "REASON_EXECUTOR_TERMINATED"
    FRAMEWORK_REMOVED = "REASON_FRAMEWORK_REMOVED"
    INVALID_OFFERS = "REASON_INVALID_OFFERS"
    MAX_COMPLETION_TIME_REACHED = "REASON_MAX_COMPLETION_TIME_REACHED"
    RECONCILIATION = "REASON_RECONCILIATION"
    RESOURCES_UNKNOWN = "REASON_RESOURCES_UNKNOWN"
    TASK_CHECK_STATUS_UPDATED = "REASON_TASK_CHECK_STATUS_UPDATED"
    TASK_GROUP_INVALID = "REASON_TASK_GROUP_INVALID"
    TASK_HEALTH_CHECK_STATUS_UPDATED = "REASON_TASK_HEALTH_CHECK_STATUS_UPDATED"
    TASK_INVALID = "REASON_TASK_INVALID"
    TASK_KILLED_DURING_LAUNCH = "REASON_TASK_KILLED_DURING_LAUNCH"


class Label(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    key: str
    value: str | None = None


class DiscoveryPort(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    number: int
    name: str | None = None
    protocol: str | None = None
    visibility: str | None = None
    labels: tuple[Label, ...] = ()


class DiscoveryInfo(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    visibility: str
    name: str | None = None
    environment: str | None = None
    location: str | None = None
    version: str | None = None
    ports: tuple[DiscoveryPort, ...] = ()
    labels: tuple[Label, ...] = ()


class ExecutorKind(StrEnum):
    """Shapes: DEFAULT is the agent's own, which runs groups; CUSTOM one that the framework brings."""

    DEFAULT = "DEFAULT"
    CUSTOM = "CUSTOM"


class ExecutorInfo(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """A task-running half: the framework's own, or the agent's default one for groups of tasks.

    Units: `shutdown_grace_s` seconds, None for the agent's default. Shapes: `kind` is a name of `ExecutorKind`, None
    when it was not said, which means CUSTOM; `source` is shown and nothing more. `lent` is the master's word for one
    that may have to give its resources back.
    """

    executor_id: ExecutorId
    framework_id: FrameworkId | None = None
    command: CommandInfo | None = None
    container: ContainerInfo | None = None
    resources: Resources = ()
    name: str | None = None
    data: bytes | None = None
    kind: str | None = None
    source: str | None = None
    discovery: DiscoveryInfo | None = None
    shutdown_grace_s: float | None = None
    labels: tuple[Label, ...] = ()
    lent: bool = False

    @property
    def is_default(self) -> bool:
        return self.kind == ExecutorKind.DEFAULT


class Claim(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """By what standing a task holds its resources, told with it so that every later master knows.

    Units: `run_s` seconds. Shapes: as in the want `want_id`; `devices` are the numbers of the GPUs it was given.
    """

    priority: int = 0
    revocable: bool = False
    group: str = ""
    tags: tuple[str, ...] = ()
    run_s: float | None = None
    devices: tuple[int, ...] = ()
    want_id: WantId | None = None


class TaskInfo(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """Shapes: one of `command` and `executor`, in groups both. Units: `kill_grace_s`, `max_completion_s` seconds.

    `check` interprets nothing: only how, where and when to look counts of it. `limits` maps `cpus` or `mem` to
    thousandths, or to None for no limit at all. `unsupported` are paths of fields that were given and cannot be
    honoured, such as `container.mesos.image`: a task that has any is refused rather than run as something else. `claim`
    is set by the master for tasks that were launched from an offer for a want. With `omits_starting` its framework
    hears of it first when it runs or has ended: a task of a second has a third less to tell.
    """

    task_id: TaskId
    name: str
    agent_id: AgentId
    resources: Resources
    command: CommandInfo | None = None
    executor: ExecutorInfo | None = None
    container: ContainerInfo | None = None
    kill_grace_s: float | None = None
    max_completion_s: float | None = None
    data: bytes | None = None
    labels: tuple[Label, ...] = ()
    discovery: DiscoveryInfo | None = None
    health_checks: tuple[HealthCheck, ...] = ()
    check: HealthCheck | None = None
    limits: tuple[tuple[str, int | None], ...] = ()
    unsupported: tuple[str, ...] = ()
    claim: Claim | None = None
    omits_starting: bool = False


class ContainerStatus(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """Shapes: `parent` is the executor's container, of a task in a group."""

    container_id: ContainerId | None = None
    parent: ContainerId | None = None
    network_infos: tuple[NetworkInfo, ...] = ()
    executor_pid: int | None = None


class TaskStatus(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """Shapes: with `uuid` (16 bytes) it must be acknowledged and is retried until then; without, never.

    `healthy` is True when all of the task's checks pass, False when one fails, None when it is not known yet; `health`
    holds what each check that was probed has shown, in their order. `check` is set for a task that has a check.
    """

    task_id: TaskId
    state: TaskState
    at: float
    source: Source
    message: str | None = None
    reason: Reason | None = None
    agent_id: AgentId | None = None
    executor_id: ExecutorId | None = None
    uuid: bytes | None = None
    data: bytes | None = None
    healthy: bool | None = None
    labels: tuple[Label, ...] = ()
    container_status: ContainerStatus | None = None
    unreachable_at: float | None = None
    limitation: Resources = ()
    health: tuple[CheckResult, ...] = ()
    check: CheckStatus | None = None


class Task(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """A task as views show it: what was asked and what became of it. Shapes: `statuses` holds the last per state."""

    info: TaskInfo
    framework_id: FrameworkId
    role: str
    state: TaskState
    statuses: tuple[TaskStatus, ...] = ()


def sources_of(info: TaskInfo) -> tuple[str, ...]:
    """The configs and secrets that the task names, each once."""
    named = [source for _, source in info.command.secrets] if info.command is not None else []
    named += [v.secret for v in info.container.volumes if v.secret] if info.container is not None else []
    docker = info.container.docker if info.container is not None else None
    named += [docker.pull_config] if docker is not None and docker.pull_config else []
    return tuple(dict.fromkeys(named))


def group_of(info: TaskInfo) -> str | None:
    """The value of the task's group label."""
    return _label(info, GROUP_LABEL)


def result_of(info: TaskInfo) -> str | None:
    """The value of the task's result label."""
    return _label(info, RESULT_LABEL)


def _label(info: TaskInfo, key: str) -> str | None:
    for label in info.labels:
        if label.key == key:
            return label.value
    return None


def seen_state(state: TaskState, partition_aware: bool) -> TaskState:
    """The state as a framework of these capabilities is told it."""
    return TaskState.LOST if state in PARTITION_AWARE_ONLY and not partition_aware else state
