"""The field tables of Mesos v1 messages: each struct lists the fields of one protobuf message as JSON names them.

Only what corral reads or writes is listed; readers ignore other keys, as Mesos does, because clients are older and
newer than the master. A field without default is required. Enumerations are plain text here: whether an unknown name
counts as unset or is refused is decided where it is read. Source: Mesos v1 protobufs.
"""

from typing import Annotated, Any

import msgspec

UInt = Annotated[int, msgspec.Meta(ge=0, le=0xFFFFFFFF)]
ULong = Annotated[int, msgspec.Meta(ge=0, le=0x7FFFFFFFFFFFFFFF)]


class Wire(msgspec.Struct, omit_defaults=True, gc=False):
    """Base of all messages. Unset fields are left out, as Mesos leaves out what has no proto default."""


class Id(Wire):
    value: str


class Text(Wire):
    value: str


class Scalar(Wire):
    value: float


class Limit(Wire):
    """A scalar that may be the text `Infinity`."""

    value: float | str


class Range(Wire):
    begin: ULong
    end: ULong


class Ranges(Wire):
    range: tuple[Range, ...] = ()


class Items(Wire):
    item: tuple[str, ...] = ()


class Empty(Wire):
    """A message whose presence alone says something, such as `revocable`."""


class Label(Wire):
    key: str
    value: str | None = None


class Labels(Wire):
    labels: tuple[Label, ...] = ()


class Nanoseconds(Wire):
    """DurationInfo and TimeInfo."""

    nanoseconds: int


class Unavailability(Wire):
    start: Nanoseconds
    duration: Nanoseconds | None = None


class Named(Wire):
    name: str


class FaultDomain(Wire):
    region: Named
    zone: Named


class DomainInfo(Wire):
    fault_domain: FaultDomain | None = None


class Address(Wire):
    port: UInt
    hostname: str | None = None
    ip: str | None = None


class Url(Wire):
    scheme: str
    address: Address
    path: str | None = None


# Resources and attributes.


class Reservation(Wire):
    type: str | None = None
    role: str | None = None
    principal: str | None = None
    labels: Labels | None = None


class AllocationInfo(Wire):
    role: str | None = None


class Uuid(Wire):
    value: bytes


class Root(Wire):
    root: str | None = None


class DiskSource(Wire):
    type: str
    path: Root | None = None
    mount: Root | None = None


class Persistence(Wire):
    id: str
    principal: str | None = None


class SandboxPath(Wire):
    path: str
    type: str | None = None


class VolumeSource(Wire):
    """Of the other members only the presence counts."""

    type: str | None = None
    sandbox_path: SandboxPath | None = None
    secret: dict[str, Any] | None = None


class Volume(Wire):
    container_path: str
    mode: str
    host_path: str | None = None
    image: dict[str, Any] | None = None
    source: VolumeSource | None = None


class Disk(Wire):
    persistence: Persistence | None = None
    volume: Volume | None = None
    source: DiskSource | None = None


class Resource(Wire):
    name: str
    type: str
    scalar: Scalar | None = None
    ranges: Ranges | None = None
    items: Items | None = msgspec.field(name="set", default=None)
    role: str | None = None
    reservation: Reservation | None = None
    reservations: tuple[Reservation, ...] = ()
    allocation_info: AllocationInfo | None = None
    provider_id: Id | None = None
    disk: Disk | None = None
    revocable: Empty | None = None
    shared: Empty | None = None


class Attribute(Wire):
    name: str
    type: str
    scalar: Scalar | None = None
    ranges: Ranges | None = None
    items: Items | None = msgspec.field(name="set", default=None)
    text: Text | None = None


# Tasks.


class Variable(Wire):
    name: str
    type: str | None = None
    value: str | None = None
    secret: dict[str, Any] | None = None


class Environment(Wire):
    variables: tuple[Variable, ...] = ()


class Uri(Wire):
    """`checksum` is corral's extension."""

    value: str
    executable: bool | None = None
    extract: bool | None = None
    cache: bool | None = None
    output_file: str | None = None
    checksum: str | None = None


class CommandInfo(Wire):
    uris: tuple[Uri, ...] = ()
    environment: Environment | None = None
    shell: bool | None = None
    value: str | None = None
    arguments: tuple[str, ...] = ()
    user: str | None = None


class PortMapping(Wire):
    host_port: UInt
    container_port: UInt
    protocol: str | None = None


class Parameter(Wire):
    key: str
    value: str


class DockerInfo(Wire):
    image: str
    network: str | None = None
    port_mappings: tuple[PortMapping, ...] = ()
    privileged: bool | None = None
    parameters: tuple[Parameter, ...] = ()
    force_pull_image: bool | None = None
    volume_driver: str | None = None
    config: dict[str, Any] | None = None


class DockerImage(Wire):
    name: str
    config: dict[str, Any] | None = None


class Image(Wire):
    type: str | None = None
    docker: DockerImage | None = None
    appc: dict[str, Any] | None = None
    cached: bool | None = None


class MesosInfo(Wire):
    image: Image | None = None


class IpAddress(Wire):
    protocol: str | None = None
    ip_address: str | None = None


class NetworkInfo(Wire):
    ip_addresses: tuple[IpAddress, ...] = ()
    name: str | None = None
    groups: tuple[str, ...] = ()
    labels: Labels | None = None
    port_mappings: tuple[PortMapping, ...] = ()


class LinuxInfo(Wire):
    """Of all but the last only the presence counts."""

    capability_info: dict[str, Any] | None = None
    bounding_capabilities: dict[str, Any] | None = None
    effective_capabilities: dict[str, Any] | None = None
    share_pid_namespace: bool | None = None
    seccomp: dict[str, Any] | None = None
    ipc_mode: str | None = None
    shm_size: UInt | None = None
    share_cgroups: bool | None = None


class ContainerInfo(Wire):
    type: str
    volumes: tuple[Volume, ...] = ()
    hostname: str | None = None
    docker: DockerInfo | None = None
    mesos: MesosInfo | None = None
    network_infos: tuple[NetworkInfo, ...] = ()
    linux_info: LinuxInfo | None = None
    rlimit_info: dict[str, Any] | None = None
    tty_info: dict[str, Any] | None = None


class Port(Wire):
    number: UInt
    name: str | None = None
    protocol: str | None = None
    visibility: str | None = None
    labels: Labels | None = None


class Ports(Wire):
    ports: tuple[Port, ...] = ()


class DiscoveryInfo(Wire):
    visibility: str
    name: str | None = None
    environment: str | None = None
    location: str | None = None
    version: str | None = None
    ports: Ports | None = None
    labels: Labels | None = None


class ExecutorInfo(Wire):
    executor_id: Id
    type: str | None = None
    framework_id: Id | None = None
    command: CommandInfo | None = None
    container: ContainerInfo | None = None
    resources: tuple[Resource, ...] = ()
    name: str | None = None
    source: str | None = None
    data: bytes | None = None
    discovery: DiscoveryInfo | None = None
    shutdown_grace_period: Nanoseconds | None = None
    labels: Labels | None = None


class HttpCheck(Wire):
    port: UInt
    protocol: str | None = None
    scheme: str | None = None
    path: str | None = None
    statuses: tuple[UInt, ...] = ()


class TcpCheck(Wire):
    port: UInt
    protocol: str | None = None


class HealthCheck(Wire):
    """The last four fields are corral's extension."""

    type: str | None = None
    command: CommandInfo | None = None
    http: HttpCheck | None = None
    tcp: TcpCheck | None = None
    delay_seconds: float | None = None
    interval_seconds: float | None = None
    timeout_seconds: float | None = None
    consecutive_failures: UInt | None = None
    grace_period_seconds: float | None = None
    spares: bool | None = msgspec.field(name="corral_spares", default=None)
    on_node: bool | None = msgspec.field(name="corral_on_node", default=None)
    keeps_redirects: bool | None = msgspec.field(name="corral_keeps_redirects", default=None)
    ignore_1xx: bool | None = msgspec.field(name="corral_ignore_1xx", default=None)


class CheckCommand(Wire):
    command: CommandInfo | None = None


class CheckInfo(Wire):
    """A check that interprets nothing."""

    type: str | None = None
    command: CheckCommand | None = None
    http: HttpCheck | None = None
    tcp: TcpCheck | None = None
    delay_seconds: float | None = None
    interval_seconds: float | None = None
    timeout_seconds: float | None = None


class CheckedCommand(Wire):
    exit_code: int | None = None


class CheckedHttp(Wire):
    status_code: UInt | None = None


class CheckedTcp(Wire):
    succeeded: bool | None = None


class CheckStatusInfo(Wire):
    type: str | None = None
    command: CheckedCommand | None = None
    http: CheckedHttp | None = None
    tcp: CheckedTcp | None = None


class CheckResult(Wire):
    """Corral's extension: what the probes of one of a task's health checks have shown."""

    index: UInt
    alive: bool
    consecutive_failures: UInt = 0
    first_success: float | None = None
    last_success: float | None = None
    last_failure: float | None = None
    cause: str | None = None


class KillPolicy(Wire):
    grace_period: Nanoseconds | None = None


class TaskInfo(Wire):
    """`health_checks` and `omits_starting` are corral's extension; of several checks `health_check` is the first."""

    name: str
    task_id: Id
    agent_id: Id
    resources: tuple[Resource, ...] = ()
    executor: ExecutorInfo | None = None
    command: CommandInfo | None = None
    container: ContainerInfo | None = None
    health_check: HealthCheck | None = None
    check: CheckInfo | None = None
    kill_policy: KillPolicy | None = None
    data: bytes | None = None
    labels: Labels | None = None
    discovery: DiscoveryInfo | None = None
    max_completion_time: Nanoseconds | None = None
    limits: dict[str, Limit] | None = None
    health_checks: tuple[HealthCheck, ...] = msgspec.field(name="corral_health_checks", default=())
    omits_starting: bool | None = msgspec.field(name="corral_omits_starting", default=None)


class ContainerId(Wire):
    value: str
    parent: "ContainerId | None" = None


class ContainerStatus(Wire):
    container_id: ContainerId | None = None
    network_infos: tuple[NetworkInfo, ...] = ()
    executor_pid: UInt | None = None


class Limitation(Wire):
    resources: tuple[Resource, ...] = ()


class TaskStatus(Wire):
    """`health` is corral's extension: what each health check has shown."""

    task_id: Id
    state: str
    message: str | None = None
    source: str | None = None
    reason: str | None = None
    data: bytes | None = None
    agent_id: Id | None = None
    executor_id: Id | None = None
    timestamp: float | None = None
    uuid: bytes | None = None
    healthy: bool | None = None
    check_status: CheckStatusInfo | None = None
    labels: Labels | None = None
    container_status: ContainerStatus | None = None
    unreachable_time: Nanoseconds | None = None
    limitation: Limitation | None = None
    health: tuple[CheckResult, ...] = msgspec.field(name="corral_health", default=())


# Frameworks, agents, offers.


class CapabilityInfo(Wire):
    type: str | None = None


class Quantities(Wire):
    quantities: dict[str, Scalar] = {}


class LeastResources(Wire):
    quantities: tuple[Quantities, ...] = ()


class OfferFilters(Wire):
    min_allocatable_resources: LeastResources | None = None


class FrameworkInfo(Wire):
    user: str
    name: str
    id: Id | None = None
    failover_timeout: float | None = None
    checkpoint: bool | None = None
    role: str | None = None
    roles: tuple[str, ...] = ()
    hostname: str | None = None
    principal: str | None = None
    webui_url: str | None = None
    capabilities: tuple[CapabilityInfo, ...] = ()
    labels: Labels | None = None
    offer_filters: dict[str, OfferFilters] = {}


class AgentInfo(Wire):
    """`runtimes` is corral's extension."""

    hostname: str
    id: Id | None = None
    port: UInt | None = None
    resources: tuple[Resource, ...] = ()
    attributes: tuple[Attribute, ...] = ()
    runtimes: tuple[str, ...] = msgspec.field(name="corral_runtimes", default=())
    domain: DomainInfo | None = None


class Offer(Wire):
    """`want_id` is corral's extension: the want that this offer is shaped for."""

    id: Id
    framework_id: Id
    agent_id: Id
    hostname: str
    url: Url | None = None
    resources: tuple[Resource, ...] = ()
    attributes: tuple[Attribute, ...] = ()
    executor_ids: tuple[Id, ...] = ()
    allocation_info: AllocationInfo | None = None
    want_id: str | None = msgspec.field(name="corral_want_id", default=None)
    domain: DomainInfo | None = None
    unavailability: Unavailability | None = None


class InverseOffer(Wire):
    """Shapes: no resources means all of them."""

    id: Id
    framework_id: Id
    unavailability: Unavailability
    url: Url | None = None
    agent_id: Id | None = None
    resources: tuple[Resource, ...] = ()


class MasterInfo(Wire):
    """`ip` is the address as a 32 bit number in network byte order, as an x86 machine reads it."""

    id: str
    ip: UInt = 0
    port: UInt = 5050
    pid: str | None = None
    hostname: str | None = None
    version: str | None = None
    address: Address | None = None
    capabilities: tuple[CapabilityInfo, ...] = ()
    domain: DomainInfo | None = None
