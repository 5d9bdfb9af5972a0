"""What the agent is told, remembers and is asked: configuration, records, commands and inputs.

A task is two records: what was ordered, written once, and how far it has come, written at each step. Together they are
all that a restarted agent needs to take up its tasks, and so are the two of an executor. Keys: `identity`,
`frameworks/F`, `tasks/F/T`, `runs/F/T`, `executors/F/E`, `executor-runs/F/E`, `resources`, `contact`; standalone
containers have theirs in `standalone_spec.py`.
"""

from enum import StrEnum

import msgspec

from corral.mesos.snapshot import AgentSnapshot
from corral.model import executor
from corral.model.attributes import Attribute
from corral.model.domain import Domain
from corral.model.execution import Exit, Found, Launched
from corral.model.framework import FrameworkInfo
from corral.model.ids import AgentId, ContainerId, ExecutorId, FrameworkId, TaskId
from corral.model.orders import Order
from corral.model.resources import Resources
from corral.model.task import ContainerStatus, ExecutorInfo, Reason, TaskInfo, TaskState, TaskStatus

SANDBOX_IN_IMAGE = "/mnt/mesos/sandbox"
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class AgentConfig(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Shapes: `runtimes` in the order they are looked at; `work_dir` is absolute. `switch_user` runs a process task as
    its own user, which needs root.

    An executor has `executor_register_timeout_s` to subscribe first, `executor_reregister_timeout_s` after a restart of
    the agent and `executor_recovery_timeout_s` after its stream broke.

    `boot_id` is another after each boot of the node; with `start_after_reboot` tasks that say so are started again
    then.

    With `oversubscribe` it tells what tasks do not use, as `oversubscription.py` says.

    Units: `*_s` seconds; `oversubscribe_margin` is a fraction of what tasks were allocated, `oversubscribe_pressure` of
    what the agent has; `gc_headroom` and the disk usage it is compared with are fractions of the disk.
    """

    hostname: str
    ip: str = "127.0.0.1"
    port: int = 4681
    resources: Resources = ()
    attributes: tuple[Attribute, ...] = ()
    domain: Domain | None = None
    runtimes: tuple[str, ...] = ("process",)
    work_dir: str = "/var/lib/corral/agent"
    version: str = ""
    switch_user: bool = False
    kill_grace_s: float = 3.0
    fetch_timeout_s: float = 900.0
    start_timeout_s: float = 300.0
    kill_retry_s: float = 15.0
    executor_register_timeout_s: float = 60.0
    executor_reregister_timeout_s: float = 15.0
    executor_recovery_timeout_s: float = 900.0
    executor_shutdown_grace_s: float = 5.0
    register_timeout_s: float = 15.0
    runtime_check_s: float = 15.0
    gc_delay_s: float = 604_800.0
    gc_headroom: float = 0.1
    gc_check_s: float = 60.0
    oversubscribe: bool = False
    oversubscribe_margin: float = 0.1
    oversubscribe_window_s: float = 60.0
    oversubscribe_pressure: float = 0.95
    oversubscribe_pressure_s: float = 15.0
    start_after_reboot: bool = True
    boot_id: str = ""


class Stage(StrEnum):
    """How far a run has come on this agent; the state that the framework sees follows from it."""

    STAGING = "STAGING"
    FETCHING = "FETCHING"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    ENDED = "ENDED"


class Event(StrEnum):
    FETCH = "FETCH"
    START = "START"
    STARTED = "STARTED"
    END = "END"


STAGES: dict[tuple[Stage, Event], Stage] = {
    (Stage.STAGING, Event.FETCH): Stage.FETCHING,
    (Stage.STAGING, Event.START): Stage.STARTING,
    (Stage.FETCHING, Event.START): Stage.STARTING,
    (Stage.STARTING, Event.STARTED): Stage.RUNNING,
    (Stage.STAGING, Event.END): Stage.ENDED,
    (Stage.FETCHING, Event.END): Stage.ENDED,
    (Stage.STARTING, Event.END): Stage.ENDED,
    (Stage.RUNNING, Event.END): Stage.ENDED,
}
"""A pair that is missing is illegal. (ENDED, STARTED) is illegal but acted on: what came up too late is discarded."""


# Records.


class Identity(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Shapes: `agent_id` None before the first registration; `epoch` is the highest that any master has spoken with."""

    agent_id: AgentId | None = None
    epoch: int = 0


class FrameworkRecord(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A framework that has or had tasks here, so that a new master may learn it from its agents."""

    info: FrameworkInfo


class ResourcesRecord(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What operations have made of the configured resources: dynamic reservations and persistent volumes.

    Shapes: `doomed` are the directories of destroyed volumes whose data is not yet deleted.
    """

    made: Resources = ()
    doomed: tuple[str, ...] = ()


class ContactRecord(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """The last sign of life that a master is known to have got; there only while a task counts from it.

    Units: `at` by the steady clock of the boot `boot`.
    """

    boot: str
    at: float


class TaskRecord(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What was ordered.

    Shapes: `sandbox` is absolute; `runtime` is empty for a task that was refused. `group` names what was ordered with
    it in one group. A task of a custom executor has runtime and sandbox of that, and a container's id that none bears.
    """

    framework_id: FrameworkId
    role: str
    info: TaskInfo
    container_id: ContainerId
    runtime: str
    sandbox: str
    group: str = ""


class ExecutorRecord(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """An executor that holds its resources here. Shapes: `runtime` is empty for the default one."""

    framework_id: FrameworkId
    role: str
    info: ExecutorInfo
    container_id: ContainerId
    runtime: str
    sandbox: str


class Ending(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Why and until when a task is being ended, and as what its end is told.

    Shapes: `by` is an instant; `unhealthy` when its health checks are the reason.
    """

    by: float
    state: TaskState = TaskState.KILLED
    reason: Reason | None = None
    why: str = ""
    unhealthy: bool = False


class RunRecord(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """How far the task has come.

    Shapes: `pending` are the updates not yet acknowledged, oldest first; `latest` is the newest status when it is not
    the last of them. `acknowledged` are the uuids of the newest updates that an executor may not know to be told.
    `boot` is the boot of the node in which it was started, empty when that is not known.
    """

    stage: Stage
    pending: tuple[TaskStatus, ...] = ()
    latest: TaskStatus | None = None
    launched: Launched | None = None
    started_at: float | None = None
    ending: Ending | None = None
    acknowledged: tuple[bytes, ...] = ()
    boot: str = ""


class ExecutorRun(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """How far the executor has come.

    Shapes: `subscribed` once it has been. `cpu_milli` and `mem_mb` are what its container has, as in `Execution`.
    """

    stage: Stage
    launched: Launched | None = None
    ending: Ending | None = None
    subscribed: bool = False
    cpu_milli: int = 0
    mem_mb: int | None = None


# Commands.


class ListTasks(msgspec.Struct, frozen=True, gc=False, tag=True):
    """All tasks, with those that ended lately when `completed`; answered by a list of `TaskView`."""

    completed: bool = True


class FindTask(msgspec.Struct, frozen=True, gc=False, tag=True):
    """The newest run of a task id; answered by a `TaskView`. Shapes: an empty `framework_id` looks in all.

    Errors: `NotFound`; `Conflict` when several frameworks have a live task of this id.
    """

    task_id: TaskId
    framework_id: str = ""


class ReadState(msgspec.Struct, frozen=True, gc=False, tag=True):
    """Everything that the agent's legacy endpoints show; answered by an `AgentView`."""


class ListContainers(msgspec.Struct, frozen=True, gc=False, tag=True):
    """The containers of live tasks and executors; answered by a list of `ContainerView`."""


class SubscribeExecutor(msgspec.Struct, frozen=True, gc=False, tag=True):
    """Open the event stream `stream`, whose name the shell has minted, for the executor of the call.

    Errors: `Invalid` for an unknown framework or executor.
    """

    stream: str
    call: executor.Subscribe


class TakeCall(msgspec.Struct, frozen=True, gc=False, tag=True):
    """Any call of an executor but SUBSCRIBE.

    Errors: `Invalid` for an unknown framework or executor; `Forbidden` when it is not subscribed.
    """

    call: executor.Update | executor.Message | executor.Heartbeat


class FindSecretFiles(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The sources of a task's files of secrets, in their order; asked when these files are to be written anew."""

    task_id: TaskId
    framework_id: str


Command = ListTasks | FindTask | FindSecretFiles | ReadState | ListContainers | SubscribeExecutor | TakeCall


class TaskView(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A task as the agent's API shows it. Shapes: `ports` are host ports; instants are float seconds UTC or None."""

    id: TaskId
    name: str
    group: str | None
    framework: FrameworkId
    role: str
    agent: AgentId | None
    hostname: str
    state: TaskState
    message: str | None
    reason: Reason | None
    healthy: bool | None
    at: float
    container: ContainerId
    runtime: str
    sandbox: str
    pid: int | None
    ip: str | None
    ports: tuple[int, ...]
    started_at: float | None
    unacknowledged: int


class ContainerView(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Shapes: `parent` is the executor's container, of a task in a group; `runtime` is empty for the default executor,
    which is no process. `resources` are those of the executor and of all its tasks, or of the task. `inner` is the id
    by which its runtime knows it. `role` is empty for a standalone container, which is of none. `limits` are those
    that differ from the resources, as of a task.
    """

    id: ContainerId
    inner: ContainerId
    parent: ContainerId | None
    framework: FrameworkId
    executor: ExecutorId
    name: str
    runtime: str
    sandbox: str
    runs: bool
    status: ContainerStatus
    resources: Resources
    limits: tuple[tuple[str, int | None], ...] = ()
    source: str = ""
    role: str = ""
    standalone: bool = False


class RuntimeView(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Shapes: `why` says what keeps it from starting tasks, None when it is ready."""

    name: str
    why: str | None


class AgentView(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Shapes: `registered` while a master has this agent in its list; `live` counts the tasks that have not ended,
    `executors` those of frameworks by how far they are: `registering`, `running`, `terminating`; `overhead`
    is what those hold besides their tasks, `lendable` what the master may lend besides. Units: thousandths.
    """

    snapshot: AgentSnapshot
    epoch: int
    registered: bool
    runtimes: tuple[RuntimeView, ...]
    live: int
    unacknowledged: int
    uptime_s: float
    disk_usage: float
    counters: dict[str, int]
    executors: dict[str, int] = {}
    overhead: Resources = ()
    lendable: dict[str, int] = {}


# Inputs, besides `Loaded`, `Tick` and `Asked`.


class Connected(msgspec.Struct, frozen=True, gc=False, tag=True):
    """A master answered; what it says comes under this session's name. Shapes: `master` is a URL."""

    session: str
    master: str = ""


class Disconnected(msgspec.Struct, frozen=True, gc=False, tag=True):
    session: str
    why: str


class Ordered(msgspec.Struct, frozen=True, gc=False, tag=True):
    session: str
    order: Order


class Recovered(msgspec.Struct, frozen=True, gc=False, tag=True):
    """What a runtime holds after the agent's start. Shapes: `why` is set instead when it could not tell."""

    runtime: str
    found: tuple[Found, ...] = ()
    why: str | None = None


class RuntimeChecked(msgspec.Struct, frozen=True, gc=False, tag=True):
    """Shapes: `why` None when tasks can be started."""

    runtime: str
    why: str | None = None


class Fetched(msgspec.Struct, frozen=True, gc=False, tag=True):
    """The sandbox is there with all that was to fetch, or `why` not."""

    container_id: ContainerId
    why: str | None = None


class Started(msgspec.Struct, frozen=True, gc=False, tag=True):
    launched: Launched


class StartFailed(msgspec.Struct, frozen=True, gc=False, tag=True):
    """Nothing runs. Shapes: `aborted` when the start was taken back on request."""

    container_id: ContainerId
    why: str
    aborted: bool = False


class Exited(msgspec.Struct, frozen=True, gc=False, tag=True):
    """Shapes: `result` is what the task left in its result file, None when there is none or `why` it was not read."""

    exit: Exit
    result: bytes | None = None
    why: str = ""


class ClockRead(msgspec.Struct, frozen=True, gc=False, tag=True):
    """Units: `at` seconds by the steady clock, which runs only within one `boot` of the node."""

    at: float
    boot: str


class ExecutorClosed(msgspec.Struct, frozen=True, gc=False, tag=True):
    """The event stream of an executor broke."""

    stream: str
    why: str = ""


class WaitFailed(msgspec.Struct, frozen=True, gc=False, tag=True):
    """Shapes: `gone` when nobody knows of the container any more; otherwise it is to be asked again."""

    container_id: ContainerId
    why: str
    gone: bool = False


class KillFailed(msgspec.Struct, frozen=True, gc=False, tag=True):
    container_id: ContainerId
    why: str


class Probed(msgspec.Struct, frozen=True, gc=False, tag=True):
    """What came of probing the health check at `index` of a task.

    Shapes: `code` is the status of an HTTP answer or of a command's exit, `said` the command's last line; `why` is set
    instead when there was no answer. `void` when the probe could not be made, which says nothing about the task.
    """

    container_id: ContainerId
    index: int
    code: int | None = None
    said: str = ""
    why: str | None = None
    void: bool = False


class DiscardFailed(msgspec.Struct, frozen=True, gc=False, tag=True):
    runtime: str
    container_id: ContainerId
    why: str


class Sandbox(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Shapes: `at` is when the directory was last changed."""

    path: str
    container_id: ContainerId
    at: float


class Scanned(msgspec.Struct, frozen=True, gc=False, tag=True):
    """The sandboxes that earlier runs of the agent left."""

    sandboxes: tuple[Sandbox, ...] = ()


class VolumeDeleted(msgspec.Struct, frozen=True, gc=False, tag=True):
    """The data of a destroyed volume is gone, or `why` not."""

    path: str
    why: str | None = None


class MeasuredTask(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Units: seconds of processor time since the start of the task's processes; MB that are resident."""

    container_id: ContainerId
    cpu_s: float
    mem_mb: float


class UsageMeasured(msgspec.Struct, frozen=True, gc=False, tag=True):
    """What tasks have used; those that could not be measured are missing."""

    found: tuple[MeasuredTask, ...] = ()


class DiskMeasured(msgspec.Struct, frozen=True, gc=False, tag=True):
    """Units: `usage` is the used fraction of the disk that holds the sandboxes."""

    usage: float
