"""What the services framework keeps: apps with their versions, groups, instances, deployments and how those ended.

An app is what somebody wants, an instance one running copy of it, a deployment the ordered way from one wanted state to
the next. Each record is one row under its own key; none grows with the size of the cluster. Source: Marathon's
contract, sections 5, 7, 8 and 9.
"""

from enum import StrEnum

import msgspec

from corral.frameworks.services.app_spec import AppSpec
from corral.model.health import CheckResult, CheckStatus
from corral.model.ids import AgentId
from corral.model.task import TaskState


class AppRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An app as it is wanted now. Shapes: versions are timestamps as text, `config` names the definition that running
    instances are compared with; `stopping` marks an app that was deleted and whose instances are still ending."""

    spec: AppSpec
    version: str
    config: str
    scaled_at: str
    configured_at: str
    stopping: bool = False


class VersionRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an app was before its present version."""

    spec: AppSpec
    version: str
    config: str
    scaled_at: str
    configured_at: str


class Condition(StrEnum):
    """What is known of an instance. Source: Marathon's contract, section 9."""

    SCHEDULED = "Scheduled"
    PROVISIONED = "Provisioned"
    STAGING = "Staging"
    STARTING = "Starting"
    RUNNING = "Running"
    KILLING = "Killing"
    UNREACHABLE = "Unreachable"
    INACTIVE = "UnreachableInactive"
    FINISHED = "Finished"
    FAILED = "Failed"
    KILLED = "Killed"
    ERROR = "Error"
    GONE = "Gone"
    DROPPED = "Dropped"
    UNKNOWN = "Unknown"


class Goal(StrEnum):
    """STOPPED is for instances with persistent volumes: their task ends, what they have reserved is kept."""

    RUNNING = "Running"
    STOPPED = "Stopped"
    DECOMMISSIONED = "Decommissioned"


class LocalVolume(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A persistent volume of one instance."""

    container_path: str
    persistence_id: str
    uuid: str


class ContainerState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is known of one container of a pod's instance. Units: instants in seconds UTC."""

    name: str
    state: TaskState = TaskState.STAGING
    since_at: float = 0.0
    message: str = ""
    healthy: bool | None = None
    container_id: str = ""


class EndedPod(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An instance of a pod that is no more."""

    id: str
    started_at: float
    ended_at: float
    hostname: str
    message: str
    containers: tuple[ContainerState, ...]


class Instance(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One copy of an app; persisted from its launch to its end.

    Shapes: `incarnation` counts its launches; `ports` are host ports in the order of the declared ones; `version` is
    the app's version it was launched with, `config` the definition; `group_value` is its agent's value of the field
    that the app groups by, `values` are those of all that it counts by, hostnames aside. With `checks`, the number of
    its health checks, it is `healthy` when all of them pass, None while that is not known; `health` is what each has
    shown, and after them its `readiness` check, if it has one; `checked` is what its plain check has shown. An instance
    of a pod has `containers`; `node` is its agent's `host:port`, `node_ip` its node's address. `inactive_at` is since
    when another may run in its place. A `single` one must not run beside another; its task has ended `fence_s` after
    its agent was declared unreachable, None when nobody ends it there. `leave_at` is set while it waits for balancers
    to let go of it, and says until when. `home` is the node it has failed on `tries` times in a row and would rather be
    started on again, empty for any. One with `volumes` has what it needs under the name `reservation` on one agent,
    surely so once it is `kept`.
    Units: instants in seconds UTC.
    """

    id: str
    app: str
    version: str
    config: str
    created_at: float
    incarnation: int = 1
    condition: Condition = Condition.SCHEDULED
    goal: Goal = Goal.RUNNING
    agent_id: AgentId | None = None
    hostname: str = ""
    role: str = ""
    ports: tuple[int, ...] = ()
    ips: tuple[str, ...] = ()
    staged_at: float | None = None
    started_at: float | None = None
    unreachable_at: float | None = None
    group_value: str = ""
    checks: int = 0
    healthy: bool | None = None
    health: tuple[CheckResult, ...] = ()
    readiness: bool = False
    checked: CheckStatus | None = None
    containers: tuple[ContainerState, ...] = ()
    node: str = ""

    inactive_at: float | None = None
    single: bool = False
    fence_s: float | None = None
    home: str = ""
    tries: int = 0
    node_ip: str = ""
    leave_at: float | None = None
    reservation: str = ""
    volumes: tuple[LocalVolume, ...] = ()
    kept: bool = False
    values: tuple[tuple[str, str], ...] = ()

    @property
    def leaves(self) -> bool:
        """Whether its task is to end."""
        return self.goal is not Goal.RUNNING

    @property
    def ready(self) -> bool:
        """Whether its readiness check has passed once, or there is none."""
        return not self.readiness or any(r.index >= self.checks and r.first_success_at is not None for r in self.health)


class FailureRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The last instance of an app that ended otherwise than wanted. Shapes: `repeats` counts equal ones in a row."""

    app: str
    task_id: str
    state: TaskState
    message: str
    hostname: str
    agent_id: AgentId | None
    version: str
    at: float
    repeats: int = 1


class GroupRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A group that exists even when no app is left in it.

    Shapes: every app below waits for what it depends on. One at the top may `enforce_role`: what is new below it has
    its name as its role.
    """

    id: str
    version: str
    dependencies: tuple[str, ...] = ()
    enforce_role: bool = False


class ActionKind(StrEnum):
    START = "StartApplication"
    STOP = "StopApplication"
    SCALE = "ScaleApplication"
    RESTART = "RestartApplication"


class Action(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    kind: ActionKind
    app: str
    pod: bool = False


class Original(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an app was before a deployment, for its way back. Shapes: `record` None when it did not exist."""

    app: str
    record: AppRecord | None


class OriginalGroup(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a group was before a deployment. Shapes: `record` None when it did not exist."""

    group: str
    record: GroupRecord | None


class HistoryRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the change that made a root version has replaced: enough to go back to the version before it."""

    version: str
    originals: tuple[Original, ...] = ()
    groups: tuple[OriginalGroup, ...] = ()


class Policy(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a deployment goes about its restarts, beyond what Marathon knows.

    Units: with `deadline_s` it has failed when it gets no further for so long, 0 is never; with `revert` it is then
    undone. Shapes: `canary` new instances are started and looked at first, as a number or a percentage such as `10%`;
    `blue_green` starts all new ones beside the old. Both then wait to be promoted. `paused` ones begin paused.
    """

    deadline_s: float = 0.0
    revert: bool = False
    canary: str = ""
    blue_green: bool = False
    paused: bool = False


class Outcome(StrEnum):
    """How a deployment ended."""

    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"
    REVERTED = "reverted"


class OutcomeRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A deployment that is over. Shapes: `successor` is the deployment that undoes it or took its place, or empty."""

    id: str
    version: str
    apps: tuple[str, ...]
    outcome: Outcome
    why: str
    ended_at: float
    successor: str = ""


class Deployment(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Steps one after the other, the actions of a step side by side.

    Shapes: `step` counts from 0. One that is not `promoted` goes no further than its policy's canary; `share` is the
    percentage of traffic that new instances get, None leaves it to their number. `undoes` names the deployment that
    failed and is taken back by this one.
    """

    id: str
    version: str
    steps: tuple[tuple[Action, ...], ...]
    originals: tuple[Original, ...]
    step: int = 0
    step_at: float = 0.0
    groups: tuple[OriginalGroup, ...] = ()
    policy: Policy = Policy()
    paused: bool = False
    promoted: bool = False
    share: int | None = None
    undoes: str = ""

    @property
    def apps(self) -> tuple[str, ...]:
        """All that it works on, pods too."""
        return tuple(sorted({action.app for step in self.steps for action in step}))

    @property
    def pods(self) -> frozenset[str]:
        return frozenset(action.app for step in self.steps for action in step if action.pod)
