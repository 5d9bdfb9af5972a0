"""What the services framework keeps and what it can be told: apps, instances, deployments, commands.

An app is what somebody wants, an instance one running copy of it, a deployment the ordered way from one wanted state to
the next. Source: Marathon's contract, sections 2, 3, 7, 8 and 9.
"""

from enum import StrEnum

import msgspec

from corral.frameworks.services.discovery_spec import DiscoveryCommand, GetRegistry, GetTraffic
from corral.frameworks.services.scaling_spec import GetScaling, GetUsage, ScalingCommand
from corral.frameworks.services.webhook_spec import GetWebhooks, WebhookCommand
from corral.model.health import CheckResult, CheckStatus
from corral.model.ids import AgentId
from corral.model.task import TaskState

# What an app asks for.


class Network(StrEnum):
    """How an app's instances see the network; all networks of an app are of one mode."""

    HOST = "host"
    BRIDGE = "container/bridge"
    CONTAINER = "container"


class NetworkSpec(msgspec.Struct, frozen=True, kw_only=True):
    mode: Network = Network.HOST
    name: str | None = None
    labels: dict[str, str] = {}


class PortDefinition(msgspec.Struct, frozen=True, kw_only=True):
    """A port on the host's network. Shapes: `port` is the service port, and the host port too with `require_ports`."""

    port: int = 0
    protocol: str = "tcp"
    name: str | None = None
    labels: dict[str, str] = {}


class PortMapping(msgspec.Struct, frozen=True, kw_only=True):
    """A port of the container. Shapes: `host_port` 0 is any free one, None is none; `container_port` 0 equals it."""

    container_port: int = 0
    host_port: int | None = None
    service_port: int = 0
    protocol: str = "tcp"
    name: str | None = None
    labels: dict[str, str] = {}
    network_names: tuple[str, ...] = ()


class HostVolume(msgspec.Struct, frozen=True, kw_only=True):
    container_path: str
    host_path: str
    mode: str


class SecretVolume(msgspec.Struct, frozen=True, kw_only=True):
    """A file with the value of one of the app's secrets."""

    container_path: str
    secret: str


class PersistentVolume(msgspec.Struct, frozen=True, kw_only=True):
    """A directory of its own for each instance, on its node's root disk, that outlives its tasks. Units: MiB."""

    container_path: str
    size_mb: int
    constraints: tuple[tuple[str, ...], ...] = ()
    profile_name: str | None = None


class ExternalVolume(msgspec.Struct, frozen=True, kw_only=True):
    """A volume of a driver of the Docker Engine, which exists apart from any node. Units: GiB."""

    container_path: str
    name: str
    mode: str
    options: dict[str, str] = {}
    size_gb: int | None = None
    shared: bool = False

    @property
    def driver(self) -> str:
        return self.options.get("dvdi/driver", "")


class TaskLost(StrEnum):
    """Whether an instance whose agent is lost is waited for, or is started anew after a time."""

    WAIT_FOREVER = "WAIT_FOREVER"
    RELAUNCH_AFTER_TIMEOUT = "RELAUNCH_AFTER_TIMEOUT"


class Residency(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of an instance with persistent volumes whose agent is lost. Units: seconds since it was.

    Shapes: with RELAUNCH_AFTER_TIMEOUT it is given up after that time, and another one starts without its data.
    """

    relaunch_after_s: int = 3600
    task_lost: TaskLost = TaskLost.WAIT_FOREVER


class Docker(msgspec.Struct, frozen=True, kw_only=True):
    image: str
    force_pull_image: bool = False
    privileged: bool = False
    parameters: tuple[tuple[str, str], ...] = ()


class Container(msgspec.Struct, frozen=True, kw_only=True):
    """Shapes: `kind` is DOCKER or MESOS; `port_mappings` None when none were named, which is not the same as ()."""

    kind: str = "DOCKER"
    docker: Docker | None = None
    volumes: tuple[HostVolume, ...] = ()
    secret_volumes: tuple[SecretVolume, ...] = ()
    persistent_volumes: tuple[PersistentVolume, ...] = ()
    external_volumes: tuple[ExternalVolume, ...] = ()
    port_mappings: tuple[PortMapping, ...] | None = None


class Fetch(msgspec.Struct, frozen=True, kw_only=True):
    uri: str
    extract: bool = True
    executable: bool = False
    cache: bool = False
    dest_path: str | None = None


class Upgrade(msgspec.Struct, frozen=True, kw_only=True):
    """How many instances a rolling restart keeps healthy and how many more it may run, as fractions of `instances`."""

    minimum_health_capacity: float = 1.0
    maximum_over_capacity: float = 1.0


class Unreachable(msgspec.Struct, frozen=True, kw_only=True):
    """When a silent instance is replaced, and when forgotten. Units: seconds since its agent was lost."""

    inactive_after_s: int = 0
    expunge_after_s: int = 0


class Protocol(StrEnum):
    """How a health check is probed. Source: Marathon's contract, section 12."""

    HTTP = "HTTP"
    HTTPS = "HTTPS"
    TCP = "TCP"
    COMMAND = "COMMAND"
    MESOS_HTTP = "MESOS_HTTP"
    MESOS_HTTPS = "MESOS_HTTPS"
    MESOS_TCP = "MESOS_TCP"


class HealthCheck(msgspec.Struct, frozen=True, kw_only=True):
    """Units: `*_s` seconds. Shapes: `port` is a number and wins over `port_index`, a place among the app's ports;
    `command` is for COMMAND only; `most_failures` in a row end the task, 0 spares it or is as 1, by the protocol."""

    protocol: Protocol = Protocol.HTTP
    path: str = "/"
    port: int | None = None
    port_index: int | None = None
    command: str | None = None
    grace_s: int = 300
    interval_s: int = 60
    timeout_s: int = 20
    most_failures: int = 3
    ignore_1xx: bool = False
    delay_s: int = 15


class ReadinessCheck(msgspec.Struct, frozen=True, kw_only=True):
    """Whether an instance may take work; looked at while it is deployed. Units: `*_s` seconds.

    Shapes: `port_name` is the name of one of the app's ports; `statuses` are the answers that mean ready.
    """

    name: str = "readinessCheck"
    protocol: str = "HTTP"
    path: str = "/"
    port_name: str = "http-api"
    interval_s: int = 30
    timeout_s: int = 10
    statuses: tuple[int, ...] = (200,)
    keeps_last: bool = False


class PlainCheck(msgspec.Struct, frozen=True, kw_only=True):
    """What is looked at and shown, and never acted on. Units: `*_s` seconds.

    Shapes: one of `command`, or `port` or `port_index`; with `path` it is HTTP, else TCP.
    """

    command: str | None = None
    path: str | None = None
    port: int | None = None
    port_index: int | None = None
    scheme: str = "http"
    interval_s: int = 60
    timeout_s: int = 20
    delay_s: int = 15


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A port of a pod's container. Shapes: `host_port` 0 is any free one."""

    name: str
    host_port: int = 0
    protocols: tuple[str, ...] = ("tcp",)
    labels: dict[str, str] = {}


class PodCheck(msgspec.Struct, frozen=True, kw_only=True):
    """The health check of a pod's container. Shapes: `endpoint` names one of its own; with `path` it is HTTP."""

    endpoint: str | None = None
    path: str | None = None
    scheme: str = "http"
    command: str | None = None
    grace_s: int = 300
    interval_s: int = 60
    timeout_s: int = 20
    delay_s: int = 15
    most_failures: int = 3


class PodContainer(msgspec.Struct, frozen=True, kw_only=True):
    """One of the programs of a pod. Units: as in `AppSpec`. Shapes: `mounts` are (volume, path, read only)."""

    name: str
    command: str | None = None
    argv: tuple[str, ...] = ()
    cpus: float = 1.0
    mem_mb: float = 128.0
    disk_mb: float = 0.0
    user: str | None = None
    env: dict[str, str] = {}
    env_secrets: dict[str, str] = {}
    labels: dict[str, str] = {}
    endpoints: tuple[Endpoint, ...] = ()
    check: PodCheck | None = None
    mounts: tuple[tuple[str, str, bool], ...] = ()
    fetch: tuple[Fetch, ...] = ()
    kill_grace_s: float | None = None


class PodSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What makes an app a pod: several programs that live together on one agent.

    Shapes: `volumes` map a name to a path of the host, or to None for a directory that the containers share and that
    ends with them; `secret_volumes` map a name to one of the pod's secrets. Units: as in `AppSpec`, for what holds the
    containers together.
    """

    containers: tuple[PodContainer, ...]
    volumes: dict[str, str | None] = {}
    secret_volumes: dict[str, str] = {}
    cpus: float = 0.1
    mem_mb: float = 32.0
    disk_mb: float = 10.0


class AppSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The definition of an app, all that a person can say about it.

    Units: `cpus` cores, `mem_mb` and `disk_mb` MiB. Shapes: `unreachable` None waits for ever; `port_definitions` None
    when none were named; `constraints` as written, with operators in upper case; `limits` maps `cpus` or `mem` to what
    may be used, None for no bound.
    """

    id: str
    cmd: str | None = None
    args: tuple[str, ...] = ()
    user: str | None = None
    env: dict[str, str] = {}
    env_secrets: dict[str, str] = {}
    secrets: dict[str, str] = {}
    instances: int = 1
    cpus: float = 1.0
    mem_mb: float = 128.0
    disk_mb: float = 0.0
    executor: str = ""
    constraints: tuple[tuple[str, ...], ...] = ()
    labels: dict[str, str] = {}
    container: Container | None = None
    networks: tuple[NetworkSpec, ...] = (NetworkSpec(),)
    port_definitions: tuple[PortDefinition, ...] | None = None
    require_ports: bool = False
    fetch: tuple[Fetch, ...] = ()
    health_checks: tuple[HealthCheck, ...] = ()
    dependencies: tuple[str, ...] = ()
    upgrade: Upgrade = Upgrade()
    backoff_s: int = 1
    backoff_factor: float = 1.15
    most_backoff_s: int = 300
    kill_grace_s: int | None = None
    kill_selection: str = "YOUNGEST_FIRST"
    unreachable: Unreachable | None = Unreachable()
    accepted_resource_roles: tuple[str, ...] = ()
    role: str | None = None
    readiness: ReadinessCheck | None = None
    check: PlainCheck | None = None
    limits: tuple[tuple[str, float | None], ...] = ()
    gpus: int = 0
    executor_resources: dict[str, float] = {}
    residency: Residency | None = None
    pod: PodSpec | None = None

    @property
    def network(self) -> Network:
        return self.networks[0].mode if self.networks else Network.HOST

    @property
    def image(self) -> Docker | None:
        """The image it runs in; a container of type MESOS may have one too."""
        return self.container.docker if self.container is not None else None

    @property
    def volumes(self) -> tuple[PersistentVolume, ...]:
        """What outlives the tasks of an instance; an app that has any is resident."""
        return self.container.persistent_volumes if self.container is not None else ()

    @property
    def external_volumes(self) -> tuple[ExternalVolume, ...]:
        return self.container.external_volumes if self.container is not None else ()

    @property
    def ports(self) -> "tuple[PortDefinition | PortMapping, ...]":
        """The declared ports in order, of whichever form the network mode takes."""
        if self.network is Network.HOST:
            return self.port_definitions or ()
        return (self.container.port_mappings or ()) if self.container is not None else ()

    @property
    def service_ports(self) -> tuple[int, ...]:
        if self.pod is not None:
            return ()
        return tuple(p.port if isinstance(p, PortDefinition) else p.service_port for p in self.ports)


SPEC_FIELDS = AppSpec.__struct_fields__
SCALING_FIELDS = frozenset({"id", "instances"})
"""A change of these alone scales; a change of any other field is an upgrade and replaces every instance."""


# Records. Each is one row under its own key; none grows with the size of the cluster.


class AppRecord(msgspec.Struct, frozen=True, kw_only=True):
    """An app as it is wanted now. Shapes: versions are timestamps as text, `config` names the definition that running
    instances are compared with; `stopping` marks an app that was deleted and whose instances are still ending."""

    spec: AppSpec
    version: str
    config: str
    scaled_at: str
    configured_at: str
    stopping: bool = False


class VersionRecord(msgspec.Struct, frozen=True, kw_only=True):
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


class LocalVolume(msgspec.Struct, frozen=True, kw_only=True):
    """A persistent volume of one instance."""

    container_path: str
    persistence_id: str
    uuid: str


class ContainerState(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one container of a pod's instance. Units: instants in seconds UTC."""

    name: str
    state: TaskState = TaskState.STAGING
    since_at: float = 0.0
    message: str = ""
    healthy: bool | None = None
    container_id: str = ""


class EndedPod(msgspec.Struct, frozen=True, kw_only=True):
    """An instance of a pod that is no more."""

    id: str
    started_at: float
    ended_at: float
    hostname: str
    message: str
    containers: tuple[ContainerState, ...]


class Instance(msgspec.Struct, frozen=True, kw_only=True):
    """One copy of an app; persisted from its launch to its end.

    Shapes: `incarnation` counts its launches; `ports` are host ports in the order of the declared ones; `version` is
    the app's version it was launched with, `config` the definition; `group_value` is its agent's value of the field
    that the app groups by. With `checks`, the number of its health checks, it is `healthy` when all of them pass, None
    while that is not known; `health` is what each has shown, and after them its `readiness` check, if it has one;
    `checked` is what its plain check has shown. An instance of a pod has `containers`; `node` is its agent's
    `host:port`, `node_ip` its node's address. `inactive_at` is since when another may run in its place. A `single` one
    must not run beside another; its task has ended `fence_s` after its agent was declared unreachable, None when nobody
    ends it there. `leave_at` is set while it waits for balancers to let go of it, and says until when. `home` is the
    node it has failed on `tries` times in a row and would rather be started on again, empty for any. One with `volumes`
    has what it needs under the name `reservation` on one agent, surely so once it is `kept`.
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

    @property
    def leaves(self) -> bool:
        """Whether its task is to end."""
        return self.goal is not Goal.RUNNING

    @property
    def ready(self) -> bool:
        """Whether its readiness check has passed once, or there is none."""
        return not self.readiness or any(r.index >= self.checks and r.first_success_at is not None for r in self.health)


class FailureRecord(msgspec.Struct, frozen=True, kw_only=True):
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


class GroupRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A group that exists even when no app is left in it. Shapes: every app below waits for what it depends on."""

    id: str
    version: str
    dependencies: tuple[str, ...] = ()


class ActionKind(StrEnum):
    START = "StartApplication"
    STOP = "StopApplication"
    SCALE = "ScaleApplication"
    RESTART = "RestartApplication"


class Action(msgspec.Struct, frozen=True, kw_only=True):
    kind: ActionKind
    app: str
    pod: bool = False


class Original(msgspec.Struct, frozen=True, kw_only=True):
    """What an app was before a deployment, for its way back. Shapes: `record` None when it did not exist."""

    app: str
    record: AppRecord | None


class OriginalGroup(msgspec.Struct, frozen=True, kw_only=True):
    """What a group was before a deployment. Shapes: `record` None when it did not exist."""

    group: str
    record: GroupRecord | None


class HistoryRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What the change that made a root version has replaced: enough to go back to the version before it."""

    version: str
    originals: tuple[Original, ...] = ()
    groups: tuple[OriginalGroup, ...] = ()


class Policy(msgspec.Struct, frozen=True, kw_only=True):
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


class OutcomeRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A deployment that is over. Shapes: `successor` is the deployment that undoes it or took its place, or empty."""

    id: str
    version: str
    apps: tuple[str, ...]
    outcome: Outcome
    why: str
    ended_at: float
    successor: str = ""


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
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


# Commands.


class AppUpdate(msgspec.Struct, frozen=True, kw_only=True):
    """A change of one app. Shapes: only the fields named in `given` count; with `to_version` nothing else does."""

    id: str
    spec: AppSpec
    given: tuple[str, ...] = ()
    to_version: str | None = None


class GroupUpdate(msgspec.Struct, frozen=True, kw_only=True):
    """What a group is to hold. Shapes: None keeps what there is, a list names all there shall be."""

    id: str
    apps: tuple[AppSpec, ...] | None = None
    pods: tuple[AppSpec, ...] | None = None
    groups: "tuple[GroupUpdate, ...] | None" = None
    dependencies: tuple[str, ...] | None = None


class CreateApp(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Shapes: `ignored` are paths of the request that nobody understood; they are noted and do no harm.

    `client` and `uri` tell whose request it was, for those who listen to events.
    """

    spec: AppSpec
    force: bool = False
    policy: Policy | None = None
    ignored: tuple[str, ...] = ()
    client: str = ""
    uri: str = ""


class UpdateApps(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Shapes: with `partial` what is not given stays, else it takes its default; with `create` unknown apps are made.

    `single` says that one app was addressed by its path; a `dry_run` changes nothing. `ignored`, `client`, `uri` as in
    `CreateApp`.
    """

    updates: tuple[AppUpdate, ...]
    partial: bool = True
    create: bool = True
    force: bool = False
    policy: Policy | None = None
    seen: str | None = None
    single: bool = False
    pod: bool = False
    dry_run: bool = False
    ignored: tuple[str, ...] = ()
    client: str = ""
    uri: str = ""


class DeleteApp(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    id: str
    force: bool = True
    seen: str | None = None
    pod: bool = False
    client: str = ""
    uri: str = ""


class RestartApp(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    id: str
    force: bool = False
    policy: Policy | None = None
    seen: str | None = None


class CreateGroup(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Shapes: `ignored` as in `CreateApp`."""

    update: GroupUpdate
    force: bool = False
    policy: Policy | None = None
    ignored: tuple[str, ...] = ()


class UpdateGroup(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Shapes: with `scale_by` or `to_version` only the id of `update` counts; a `dry_run` changes nothing."""

    update: GroupUpdate
    scale_by: float | None = None
    to_version: str | None = None
    dry_run: bool = False
    diff: bool = False
    force: bool = False
    policy: Policy | None = None
    ignored: tuple[str, ...] = ()


class DeleteGroup(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    id: str
    force: bool = False


class KillTasks(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """End tasks, of one app or by their ids. Shapes: with `scale` they are not replaced; `host` None is any.

    `instances` None is all of the app; `incarnations` may name for some of them the only launch that is meant. With
    `strict` an unknown instance is an error.
    """

    app: str | None = None
    instances: tuple[str, ...] | None = None
    incarnations: dict[str, int] = {}
    host: str | None = None
    scale: bool = False
    wipe: bool = False
    force: bool = False
    strict: bool = False


class ResetDelay(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    id: str


class PauseDeployment(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Stop going on, or with `paused` false go on again."""

    id: str
    paused: bool = True


class PromoteDeployment(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Let a deployment go on beyond its canary. Shapes: with `share` below 100 only traffic is moved."""

    id: str
    share: int = 100


class GetDeployment(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """One deployment with what corral alone knows of it, under way or ended."""

    id: str


class GetEnded(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The deployments that ended last."""


class CancelDeployment(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    id: str
    force: bool = False


class GetApps(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Shapes: `below` is a group; `id` and `cmd` are parts of what is looked for."""

    below: str = "/"
    cmd: str | None = None
    id: str | None = None
    label: str | None = None
    embed: tuple[str, ...] = ()


class GetApp(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    id: str
    embed: tuple[str, ...] = ()


class GetVersions(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    id: str


class GetVersion(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    id: str
    version: str


class GetPods(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """All pods. Shapes: with `status` their state instead of their definition."""

    status: bool = False


class GetPod(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Shapes: `what` is `spec`, `status`, `versions` or `version`."""

    id: str
    what: str = "spec"
    version: str = ""


class KillPod(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """End instances of a pod; they are replaced. Shapes: with `strict` an unknown one is an error."""

    id: str
    instances: tuple[str, ...]
    strict: bool = False


class GetTasks(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Shapes: `app` or `below` or neither; `states` filter by `running`, `staging`; `as_text` gives the line form."""

    app: str | None = None
    below: str | None = None
    states: tuple[str, ...] = ()
    as_text: bool = False


class GetQueue(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    embed: tuple[str, ...] = ()


class GetAvoided(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The nodes that apps use only when nothing else fits. corral's own."""


class GetDeployments(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    pass


class GetGroup(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    id: str = "/"
    embed: tuple[str, ...] = ()


class GetGroupVersions(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    id: str = "/"


class GetGroupVersion(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    id: str
    version: str


class CheckGroup(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Ask for a group's present version, which is all that a change without effect answers with."""

    id: str


class GetInfo(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    pass


class GetLeader(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    pass


class PlanApps(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """What would be asked of the kernel if these apps were applied; nothing is changed. corral's own.

    Shapes: `unknown` are the paths of fields that nobody knows.
    """

    specs: tuple[AppSpec, ...]
    unknown: tuple[str, ...] = ()


Command = (
    CreateApp | UpdateApps | DeleteApp | RestartApp | CreateGroup | UpdateGroup | DeleteGroup | KillTasks | ResetDelay
    | CancelDeployment | GetApps | GetApp | GetVersions | GetVersion | GetTasks | GetQueue | GetDeployments | GetGroup
    | GetInfo | GetLeader | PlanApps | GetGroupVersions | GetGroupVersion | CheckGroup
    | GetPods | GetPod | KillPod | PauseDeployment | PromoteDeployment | GetDeployment | GetEnded | DiscoveryCommand
    | ScalingCommand | GetAvoided | WebhookCommand
)  # fmt: skip


READS = (
    GetApps, GetApp, GetVersions, GetVersion, GetTasks, GetQueue, GetDeployments, GetDeployment, GetGroup,
    GetGroupVersion, GetGroupVersions, GetPod, GetPods, GetEnded, GetRegistry, GetTraffic, GetInfo, GetLeader, PlanApps,
    GetScaling, GetUsage, GetAvoided, GetWebhooks,
)  # fmt: skip
"""The commands that change nothing."""


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """How the services framework works. Units: seconds.

    Shapes: `volume_role` is what persistent volumes are reserved for, empty for `role`, or `services` when that is `*`;
    `principal` is the name of the token that it shows to the master, if any, and reserves under;
    `address` is the `host:port` under which this API is reached; `env_prefix` goes before the names of port
    variables and HOST; `most_writes` bounds the records that one input may touch in bulk work.
    """

    name: str = "services"
    user: str = "root"
    role: str = "*"
    volume_role: str = ""
    principal: str = ""
    address: str = "127.0.0.1:4680"
    scheme: str = "http"
    hostname: str = ""
    failover_timeout_s: float = 604800.0
    first_service_port: int = 10000
    last_service_port: int = 20000
    env_prefix: str = ""
    webhook_secret_file: str = ""
    default_network: str | None = None
    most_deployments: int = 100
    most_versions: int = 50
    most_outcomes: int = 100
    most_apps_per_request: int = 500
    most_instances: int = 100_000
    most_writes: int = 64
    launch_timeout_s: float = 300.0
    single_stop_after_s: float = 300.0
    kill_retry_s: float = 30.0
    drain_s: float = 30.0

    @property
    def reserved_role(self) -> str:
        """Nothing can be reserved for everybody, so the role of what has volumes may be another one."""
        return self.volume_role or (self.role if self.role != "*" else "services")


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What a deploying command answers with. Shapes: `created` when the app did not exist before."""

    version: str
    deployment_id: str
    created: bool = False
    id: str = ""
