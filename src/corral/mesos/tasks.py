"""Reads and writes what a task asks for and what is told of it: commands, containers, tasks, statuses.

Reading refuses only what breaks a message's form. Fields that would change what runs, and that no agent carries out,
are listed in `TaskInfo.unsupported`, so that such a task is refused with its reason rather than run as something else.
Source: Mesos v1, core messages and JSON mapping.
"""

from math import isfinite
from typing import Any

import msgspec

from corral.lib.errors import Invalid
from corral.mesos import wire
from corral.mesos.commands import SECRET, read_command, read_reference, write_command, write_reference
from corral.mesos.common import (
    read_enum,
    read_labels,
    read_optional_enum,
    read_seconds,
    write_id,
    write_labels,
    write_seconds,
)
from corral.mesos.health import (
    find_unsupported,
    read_check,
    read_check_status,
    read_health_checks,
    read_result,
    write_check,
    write_check_status,
    write_health_checks,
    write_result,
)
from corral.mesos.resources import read_resources, write_resources
from corral.model.container import (
    ContainerInfo,
    ContainerKind,
    DockerInfo,
    NetworkInfo,
    NetworkMode,
    Parameter,
    PortMapping,
    Volume,
    VolumeMode,
    make_image,
)
from corral.model.ids import AgentId, ContainerId, ExecutorId, FrameworkId, TaskId
from corral.model.ledger import lent
from corral.model.resources import Resources
from corral.model.task import (
    ContainerStatus,
    DiscoveryInfo,
    DiscoveryPort,
    ExecutorInfo,
    ExecutorKind,
    Reason,
    Source,
    TaskInfo,
    TaskState,
    TaskStatus,
)

_VISIBILITIES = ("FRAMEWORK", "CLUSTER", "EXTERNAL")
_UUID_BYTES = 16

NEEDED = ("cpus", "mem")
"""What no task can ask none of, once it names it; of other resources none is as good as not named."""


# Containers.


def read_container(found: wire.ContainerInfo, at: str) -> ContainerInfo:
    """Errors: `Invalid` for an unknown container type or volume mode."""
    kind = read_enum(ContainerKind, found.type, f"{at}.type")
    networks = tuple(read_network(n) for n in found.network_infos)
    return ContainerInfo(
        kind=kind,
        docker=_read_docker(found.docker) if kind is ContainerKind.DOCKER else _read_image(found.mesos, networks),
        volumes=tuple(
            Volume(
                container_path=v.container_path,
                mode=read_enum(VolumeMode, v.mode, f"{at}.volumes.mode"),
                **_read_source(v),
            )
            for v in found.volumes
        ),
        hostname=found.hostname,
        network_infos=networks,
        share_cgroups=found.linux_info is None or found.linux_info.share_cgroups is not False,
    )


def _read_source(found: wire.Volume) -> dict[str, Any]:
    """Shapes: a path in the task's own sandbox is the same as a relative host path."""
    if found.source is not None and found.source.type == SECRET:
        return {"host_path": found.host_path, "secret": read_reference(found.source.secret)}
    path = _sandbox_path(found.source)
    if path is None:
        return {"host_path": found.host_path}
    return {"host_path": path.path, "of_executor": path.type == "PARENT"}


def _read_image(found: wire.MesosInfo | None, networks: tuple[NetworkInfo, ...]) -> DockerInfo | None:
    """The image of a container of type MESOS. Shapes: None without one, and for one that is refused for its kind."""
    image = found.image if found is not None else None
    if image is None or image.docker is None:
        return None
    return make_image(
        image.docker.name, networks, force_pull=image.cached is False, pull_config=read_reference(image.docker.config)
    )


def _is_image(image: wire.Image | None) -> bool:
    """Whether agents carry it out: one of Docker's, by credentials that are named and not brought."""
    if image is None:
        return True
    return image.type == "DOCKER" and image.docker is not None and not _brings_value(image.docker.config)


def _write_image(docker: DockerInfo) -> wire.MesosInfo:
    config = write_reference(docker.pull_config) if docker.pull_config else None
    image = wire.Image(
        type="DOCKER", docker=wire.DockerImage(name=docker.image, config=config),
        cached=False if docker.force_pull_image else None,
    )  # fmt: skip
    return wire.MesosInfo(image=image)


def _sandbox_path(source: wire.VolumeSource | None) -> wire.SandboxPath | None:
    """The one source of a volume that agents carry out."""
    return source.sandbox_path if source is not None and source.type == "SANDBOX_PATH" else None


def _is_source(source: wire.VolumeSource) -> bool:
    """Whether agents carry it out."""
    is_secret = source.type == SECRET and read_reference(source.secret) is not None
    return is_secret or _sandbox_path(source) is not None


def write_container(container: ContainerInfo) -> wire.ContainerInfo:
    docker, in_mesos = container.docker, container.kind is ContainerKind.MESOS
    return wire.ContainerInfo(
        type=container.kind.value,
        volumes=tuple(
            wire.Volume(container_path=v.container_path, mode=v.mode.value, **_write_source(v))
            for v in container.volumes
        ),
        hostname=container.hostname,
        docker=_write_docker(docker) if docker is not None and not in_mesos else None,
        mesos=_write_image(docker) if docker is not None and in_mesos else None,
        network_infos=tuple(write_network(n) for n in container.network_infos),
        linux_info=None if container.share_cgroups else wire.LinuxInfo(share_cgroups=False),
    )


def _write_source(volume: Volume) -> dict[str, Any]:
    if volume.secret is not None:
        return {"source": wire.VolumeSource(type=SECRET, secret=write_reference(volume.secret))}
    if not volume.of_executor:
        return {"host_path": volume.host_path}
    shared = wire.SandboxPath(type="PARENT", path=volume.host_path or "")
    return {"source": wire.VolumeSource(type="SANDBOX_PATH", sandbox_path=shared)}


def _read_docker(found: wire.DockerInfo | None) -> DockerInfo | None:
    if found is None:
        return None
    return DockerInfo(
        image=found.image,
        network=read_optional_enum(NetworkMode, found.network) or NetworkMode.HOST,
        port_mappings=_read_mappings(found.port_mappings),
        privileged=bool(found.privileged),
        parameters=tuple(Parameter(key=p.key, value=p.value) for p in found.parameters),
        force_pull_image=bool(found.force_pull_image),
        pull_config=read_reference(found.config),
    )


def _write_docker(docker: DockerInfo) -> wire.DockerInfo:
    return wire.DockerInfo(
        image=docker.image,
        network=docker.network.value,
        port_mappings=_write_mappings(docker.port_mappings),
        privileged=docker.privileged,
        parameters=tuple(wire.Parameter(key=p.key, value=p.value) for p in docker.parameters),
        force_pull_image=docker.force_pull_image or None,
        config=write_reference(docker.pull_config) if docker.pull_config else None,
    )


def read_network(found: wire.NetworkInfo) -> NetworkInfo:
    return NetworkInfo(
        name=found.name,
        ip_addresses=tuple(a.ip_address for a in found.ip_addresses if a.ip_address is not None),
        port_mappings=_read_mappings(found.port_mappings),
        labels=tuple((x.key, x.value) for x in found.labels.labels) if found.labels is not None else (),
    )


def write_network(network: NetworkInfo) -> wire.NetworkInfo:
    labels = tuple(wire.Label(key=key, value=value) for key, value in network.labels)
    return wire.NetworkInfo(
        ip_addresses=tuple(
            wire.IpAddress(protocol="IPv6" if ":" in ip else "IPv4", ip_address=ip) for ip in network.ip_addresses
        ),
        name=network.name,
        labels=wire.Labels(labels=labels) if labels else None,
        port_mappings=_write_mappings(network.port_mappings),
    )


def _read_mappings(found: tuple[wire.PortMapping, ...]) -> tuple[PortMapping, ...]:
    return tuple(
        PortMapping(container_port=m.container_port, host_port=m.host_port, protocol=m.protocol or "tcp") for m in found
    )


def _write_mappings(mappings: tuple[PortMapping, ...]) -> tuple[wire.PortMapping, ...]:
    return tuple(
        wire.PortMapping(host_port=m.host_port, container_port=m.container_port, protocol=m.protocol) for m in mappings
    )


# Tasks.


def read_executor(found: wire.ExecutorInfo, at: str) -> ExecutorInfo:
    return ExecutorInfo(
        executor_id=ExecutorId(found.executor_id.value),
        framework_id=FrameworkId(found.framework_id.value) if found.framework_id is not None else None,
        command=read_command(found.command) if found.command is not None else None,
        container=read_container(found.container, f"{at}.container") if found.container is not None else None,
        resources=read_resources(found.resources, f"{at}.resources"),
        name=found.name,
        data=found.data,
        kind=read_optional_enum(ExecutorKind, found.type),
        source=found.source,
        discovery=_read_discovery(found.discovery, f"{at}.discovery") if found.discovery is not None else None,
        shutdown_grace_s=read_seconds(found.shutdown_grace_period) if found.shutdown_grace_period is not None else None,
        labels=read_labels(found.labels),
    )


def write_executor(
    executor: ExecutorInfo, *, refinement: bool, allocation: str | None = None, both: bool = False
) -> wire.ExecutorInfo:  # fmt: skip
    grace_s = executor.shutdown_grace_s
    return wire.ExecutorInfo(
        type=executor.kind,
        executor_id=wire.Id(value=executor.executor_id),
        framework_id=write_id(executor.framework_id),
        command=write_command(executor.command) if executor.command is not None else None,
        container=write_container(executor.container) if executor.container is not None else None,
        resources=write_resources(executor.resources, refinement=refinement, allocation=allocation, both=both),
        name=executor.name,
        data=executor.data,
        source=executor.source,
        discovery=write_discovery(executor.discovery) if executor.discovery is not None else None,
        shutdown_grace_period=write_seconds(grace_s) if grace_s is not None else None,
        labels=write_labels(executor.labels),
    )


def seen_resources(info: TaskInfo) -> Resources:
    """What a task has as people and frameworks see it: what it holds on loan, of whomever, is revocable."""
    return lent(info.resources) if info.claim is not None and info.claim.revocable else info.resources


def seen_executor(executor: ExecutorInfo) -> ExecutorInfo:
    """An executor as people see it: one on a loan has resources that are revocable."""
    if not executor.lent:
        return executor
    return msgspec.structs.replace(executor, resources=lent(executor.resources))


def read_task_info(found: wire.TaskInfo, at: str) -> TaskInfo:
    """`at` is the field's path for error messages.

    Errors: `Invalid` only for what breaks the message's form; whether the task makes sense is for the master to check.
    """
    grace = found.kill_policy.grace_period if found.kill_policy is not None else None
    return TaskInfo(
        task_id=TaskId(found.task_id.value),
        name=found.name,
        agent_id=AgentId(found.agent_id.value),
        resources=read_resources(found.resources, at + ".resources", needed=NEEDED),
        command=read_command(found.command) if found.command is not None else None,
        executor=read_executor(found.executor, at + ".executor") if found.executor is not None else None,
        container=read_container(found.container, at + ".container") if found.container is not None else None,
        kill_grace_s=read_seconds(grace) if grace is not None else None,
        max_completion_s=read_seconds(found.max_completion_time) if found.max_completion_time is not None else None,
        data=found.data,
        labels=read_labels(found.labels),
        discovery=_read_discovery(found.discovery, at + ".discovery") if found.discovery is not None else None,
        health_checks=read_health_checks(found),
        check=read_check(found.check) if found.check is not None else None,
        limits=_read_limits(found.limits, at + ".limits") if found.limits else (),
        unsupported=_unsupported(found),
        omits_starting=bool(found.omits_starting),
    )


def write_task_info(info: TaskInfo, *, refinement: bool) -> wire.TaskInfo:
    made = wire.TaskInfo(
        name=info.name,
        task_id=wire.Id(value=info.task_id),
        agent_id=wire.Id(value=info.agent_id),
        resources=write_resources(info.resources, refinement=refinement),
        executor=write_executor(info.executor, refinement=refinement) if info.executor is not None else None,
        command=write_command(info.command) if info.command is not None else None,
        container=write_container(info.container) if info.container is not None else None,
        data=info.data,
        labels=write_labels(info.labels),
        discovery=write_discovery(info.discovery) if info.discovery is not None else None,
        max_completion_time=write_seconds(info.max_completion_s) if info.max_completion_s is not None else None,
        limits=write_limits(info.limits),
        omits_starting=info.omits_starting or None,
    )
    if info.kill_grace_s is not None:
        made.kill_policy = wire.KillPolicy(grace_period=write_seconds(info.kill_grace_s))
    write_health_checks(info.health_checks, made)
    if info.check is not None:
        made.check = write_check(info.check)
    return made


def _read_limits(found: dict[str, wire.Limit], at: str) -> tuple[tuple[str, int | None], ...]:
    limits: list[tuple[str, int | None]] = []
    for name, limit in sorted(found.items()):
        try:
            value = float(limit.value)
        except ValueError:
            raise Invalid(f"field '{at}.{name}': {limit.value!r} is neither a number nor \"Infinity\"") from None
        if value == float("inf"):
            limits.append((name, None))
        elif isfinite(value) and abs(value) < 1e15:
            limits.append((name, round(value * 1000)))
        else:
            raise Invalid(f"field '{at}.{name}': {limit.value} is neither a finite number nor \"Infinity\"")
    return tuple(limits)


def write_limits(limits: tuple[tuple[str, int | None], ...]) -> dict[str, wire.Limit] | None:
    made = {name: wire.Limit(value="Infinity" if milli is None else milli / 1000) for name, milli in limits}
    return made or None


def _read_discovery(found: wire.DiscoveryInfo, at: str) -> DiscoveryInfo:
    if found.visibility not in _VISIBILITIES:
        raise Invalid(f"field '{at}.visibility': {found.visibility!r} is none of {', '.join(_VISIBILITIES)}")
    return DiscoveryInfo(
        visibility=found.visibility,
        name=found.name,
        environment=found.environment,
        location=found.location,
        version=found.version,
        ports=tuple(
            DiscoveryPort(
                number=p.number,
                name=p.name,
                protocol=p.protocol,
                visibility=p.visibility if p.visibility in _VISIBILITIES else None,
                labels=read_labels(p.labels),
            )
            for p in (found.ports.ports if found.ports is not None else ())
        ),
        labels=read_labels(found.labels),
    )


def write_discovery(discovery: DiscoveryInfo) -> wire.DiscoveryInfo:
    ports = tuple(
        wire.Port(
            number=p.number,
            name=p.name,
            protocol=p.protocol,
            visibility=p.visibility,
            labels=write_labels(p.labels),
        )
        for p in discovery.ports
    )
    return wire.DiscoveryInfo(
        visibility=discovery.visibility,
        name=discovery.name,
        environment=discovery.environment,
        location=discovery.location,
        version=discovery.version,
        ports=wire.Ports(ports=ports) if ports else None,
        labels=write_labels(discovery.labels),
    )


def _unsupported(found: wire.TaskInfo) -> tuple[str, ...]:
    """The fields that would change what runs, and that no agent carries out."""
    paths: list[str] = []
    if found.command is not None:
        paths += _unsupported_command(found.command, "command")
    if found.container is not None:
        paths += _unsupported_container(found.container, "container")
    if found.executor is not None:
        paths += find_unsupported_executor(found.executor, "executor")
    if found.health_check is not None or found.health_checks or found.check is not None:
        paths += find_unsupported(found)
    return tuple(paths)


def find_unsupported_executor(found: wire.ExecutorInfo, at: str) -> tuple[str, ...]:
    """The same of an executor."""
    paths: list[str] = []
    if found.command is not None:
        paths += _unsupported_command(found.command, f"{at}.command")
    if found.container is not None:
        paths += _unsupported_container(found.container, f"{at}.container")
    return tuple(paths)


def _unsupported_command(found: wire.CommandInfo, at: str) -> list[str]:
    variables = found.environment.variables if found.environment is not None else ()
    secret = any((v.type == SECRET or v.secret is not None) and read_reference(v.secret) is None for v in variables)
    return [f"{at}.environment.variables.secret"] if secret else []


def _unsupported_container(found: wire.ContainerInfo, at: str) -> list[str]:
    given = {
        "mesos.image": None if found.mesos is None or _is_image(found.mesos.image) else found.mesos.image,
        "docker": found.docker if found.type == ContainerKind.MESOS else None,
        "docker.volume_driver": found.docker.volume_driver if found.docker is not None else None,
        "docker.config": found.docker.config
        if found.docker is not None and _brings_value(found.docker.config)
        else None,
        "linux_info": None if _shares_alone(found.linux_info) else found.linux_info,
        "rlimit_info": found.rlimit_info,
        "tty_info": found.tty_info,
        "volumes.image": next((v.image for v in found.volumes if v.image is not None), None),
        "volumes.source": next((v.source for v in found.volumes if v.source and not _is_source(v.source)), None),
    }
    return [f"{at}.{path}" for path, value in given.items() if value is not None]


def _brings_value(secret: dict[str, Any] | None) -> bool:
    """A secret is known by its name here; one that brings its value would stand in records and views."""
    return secret is not None and read_reference(secret) is None


def _shares_alone(linux_info: wire.LinuxInfo | None) -> bool:
    """Whether something is said, and nothing else than what agents carry out."""
    return linux_info in (wire.LinuxInfo(share_cgroups=True), wire.LinuxInfo(share_cgroups=False))


# Statuses.


def read_task_status(found: wire.TaskStatus, at: str) -> TaskStatus:
    """Shapes: the source is the master when the status names none.

    Errors: `Invalid` for an unknown state or an uuid that is not 16 bytes.
    """
    if found.uuid is not None:
        check_uuid(found.uuid, at + ".uuid")
    return TaskStatus(
        task_id=TaskId(found.task_id.value),
        state=read_enum(TaskState, found.state, at + ".state"),
        at=found.timestamp or 0.0,
        source=read_optional_enum(Source, found.source) or Source.MASTER,
        message=found.message,
        reason=read_optional_enum(Reason, found.reason),
        agent_id=AgentId(found.agent_id.value) if found.agent_id is not None else None,
        executor_id=ExecutorId(found.executor_id.value) if found.executor_id is not None else None,
        uuid=found.uuid,
        data=found.data,
        healthy=found.healthy,
        labels=read_labels(found.labels),
        container_status=_read_container_status(found.container_status) if found.container_status is not None else None,
        unreachable_at=read_seconds(found.unreachable_time) if found.unreachable_time is not None else None,
        limitation=read_resources(found.limitation.resources, at + ".limitation") if found.limitation else (),
        health=tuple(read_result(r) for r in found.health) if found.health else (),
        check=read_check_status(found.check_status) if found.check_status is not None else None,
    )


def write_task_status(status: TaskStatus) -> wire.TaskStatus:
    made = wire.TaskStatus(
        task_id=wire.Id(value=status.task_id),
        state=status.state.value,
        message=status.message,
        source=status.source.value,
        reason=status.reason.value if status.reason is not None else None,
        data=status.data,
        agent_id=write_id(status.agent_id),
        executor_id=write_id(status.executor_id),
        timestamp=float(status.at),
        uuid=status.uuid,
        healthy=status.healthy,
        labels=write_labels(status.labels),
    )
    if status.container_status is not None:
        made.container_status = write_container_status(status.container_status)
    if status.unreachable_at is not None:
        made.unreachable_time = write_seconds(status.unreachable_at)
    if status.limitation:
        made.limitation = wire.Limitation(resources=write_resources(status.limitation, refinement=True))
    if status.check is not None:
        made.check_status = write_check_status(status.check)
    if status.health:
        made.health = tuple(write_result(r) for r in status.health)
    return made


def check_uuid(uuid: bytes, at: str) -> None:
    """Errors: `Invalid` unless it has 16 bytes."""
    if len(uuid) != _UUID_BYTES:
        raise Invalid(f"field '{at}': Not a valid UUID; expected 16 bytes in base64 and found {len(uuid)}")


def _read_container_status(found: wire.ContainerStatus) -> ContainerStatus:
    own = found.container_id
    return ContainerStatus(
        container_id=ContainerId(own.value) if own is not None else None,
        parent=ContainerId(own.parent.value) if own is not None and own.parent is not None else None,
        network_infos=tuple(read_network(n) for n in found.network_infos),
        executor_pid=found.executor_pid,
    )


def write_container_id(container_id: str | None, parent: str | None = None) -> wire.ContainerId | None:
    """Shapes: with `parent` the name of a container inside of that one."""
    if container_id is None:
        return None
    return wire.ContainerId(value=container_id, parent=wire.ContainerId(value=parent) if parent is not None else None)


def write_container_status(status: ContainerStatus) -> wire.ContainerStatus:
    return wire.ContainerStatus(
        container_id=write_container_id(status.container_id, status.parent),
        network_infos=tuple(write_network(n) for n in status.network_infos),
        executor_pid=status.executor_pid,
    )
