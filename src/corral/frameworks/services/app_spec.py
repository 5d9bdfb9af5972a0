"""What an app asks for: all that a person can say about an app or a pod.

Source: Marathon's contract, sections 2, 3, 6 and 12.
"""

from enum import StrEnum

import msgspec


class Network(StrEnum):
    """How an app's instances see the network; all networks of an app are of one mode."""

    HOST = "host"
    BRIDGE = "container/bridge"
    CONTAINER = "container"


class NetworkSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    mode: Network = Network.HOST
    name: str | None = None
    labels: dict[str, str] = {}


class PortDefinition(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A port on the host's network. Shapes: `port` is the service port, and the host port too with `require_ports`."""

    port: int = 0
    protocol: str = "tcp"
    name: str | None = None
    labels: dict[str, str] = {}


class PortMapping(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A port of the container. Shapes: `host_port` 0 is any free one, None is none; `container_port` 0 equals it."""

    container_port: int = 0
    host_port: int | None = None
    service_port: int = 0
    protocol: str = "tcp"
    name: str | None = None
    labels: dict[str, str] = {}
    network_names: tuple[str, ...] = ()


class HostVolume(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    container_path: str
    host_path: str
    mode: str


class SecretVolume(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A file with the value of one of the app's secrets."""

    container_path: str
    secret: str


class PersistentVolume(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A directory of its own for each instance, on a disk of its node, that outlives its tasks. Units: MiB.

    Shapes: `kind` is root, path or mount; `constraints` say on which paths disks of the last two may be mounted.
    """

    container_path: str
    size_mb: int
    constraints: tuple[tuple[str, ...], ...] = ()
    profile_name: str | None = None
    kind: str = "root"
    most_mb: int | None = None


class ExternalVolume(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
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


class Residency(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What becomes of an instance with persistent volumes whose agent is lost. Units: seconds since it was.

    Shapes: with RELAUNCH_AFTER_TIMEOUT it is given up after that time, and another one starts without its data.
    """

    relaunch_after_s: int = 3600
    task_lost: TaskLost = TaskLost.WAIT_FOREVER


class Docker(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Shapes: `pull_config` is the name of one of the app's secrets."""

    image: str
    force_pull_image: bool = False
    privileged: bool = False
    parameters: tuple[tuple[str, str], ...] = ()
    pull_config: str | None = None


class LinuxInfo(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Shapes: `unconfined` and `profile` are about system calls; `ipc` is PRIVATE or SHARE_PARENT; None is what was
    not said.
    """

    unconfined: bool | None = None
    profile: str | None = None
    ipc: str | None = None
    shm_mb: int | None = None


class Container(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Shapes: `kind` is DOCKER or MESOS; `port_mappings` None when none were named, which is not the same as ()."""

    kind: str = "DOCKER"
    docker: Docker | None = None
    volumes: tuple[HostVolume, ...] = ()
    secret_volumes: tuple[SecretVolume, ...] = ()
    persistent_volumes: tuple[PersistentVolume, ...] = ()
    external_volumes: tuple[ExternalVolume, ...] = ()
    port_mappings: tuple[PortMapping, ...] | None = None
    linux: LinuxInfo | None = None


class Fetch(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    uri: str
    extract: bool = True
    executable: bool = False
    cache: bool = False
    dest_path: str | None = None


class Upgrade(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How many instances a rolling restart keeps healthy and how many more it may run, as fractions of `instances`."""

    minimum_health_capacity: float = 1.0
    maximum_over_capacity: float = 1.0


class Unreachable(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
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


class HealthCheck(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
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


class ReadinessCheck(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
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


class PlainCheck(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
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


class Endpoint(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A port of a pod's container.

    Shapes: `host_port` 0 is any free one, None is none, except on the node's network; `container_port` 0 equals it.
    """

    name: str
    host_port: int | None = 0
    protocols: tuple[str, ...] = ("tcp",)
    labels: dict[str, str] = {}
    container_port: int | None = None
    network_names: tuple[str, ...] = ()

    def inner_port(self, host_port: int) -> int:
        """Where its program listens. Shapes: `host_port` is the one it was given, 0 for none."""
        return self.container_port or host_port


class PodCheck(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The health check of a pod's container.

    Shapes: `endpoint` names one of its own; with `path` it is HTTP. Else `command` runs in a shell, or `argv` without.
    """

    endpoint: str | None = None
    path: str | None = None
    scheme: str = "http"
    command: str | None = None
    argv: tuple[str, ...] = ()
    grace_s: int = 300
    interval_s: int = 60
    timeout_s: int = 20
    delay_s: int = 15
    most_failures: int = 3


class PodContainer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One of the programs of a pod. Units: as in `AppSpec`. Shapes: `mounts` are (volume, path, read only).

    Without `image` it is a program of the node. In an image, `argv` is handed to the image's own program unless it
    `replaces` that; without any command the image's own runs.
    """

    name: str
    command: str | None = None
    argv: tuple[str, ...] = ()
    image: Docker | None = None
    replaces: bool = False
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


class PodSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
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


class AppSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
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
    def has_image(self) -> bool:
        """Whether any of it needs a Docker Engine."""
        return self.image is not None or (
            self.pod is not None and any(c.image is not None for c in self.pod.containers)
        )

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
        if self.pod is not None:
            return tuple(_map(e) for c in self.pod.containers for e in c.endpoints)
        return (self.container.port_mappings or ()) if self.container is not None else ()

    @property
    def service_ports(self) -> tuple[int, ...]:
        if self.pod is not None:
            return ()
        return tuple(p.port if isinstance(p, PortDefinition) else p.service_port for p in self.ports)


def _map(endpoint: Endpoint) -> PortMapping:
    return PortMapping(
        container_port=endpoint.container_port or 0, host_port=endpoint.host_port, name=endpoint.name,
        protocol=",".join(endpoint.protocols), labels=endpoint.labels, network_names=endpoint.network_names,
    )  # fmt: skip


SPEC_FIELDS = AppSpec.__struct_fields__


SCALING_FIELDS = frozenset({"id", "instances"})
"""A change of these alone scales; a change of any other field is an upgrade and replaces every instance."""
