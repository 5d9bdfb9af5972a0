"""Turns what a framework ordered into one run that a runtime can start: argv, environment, mounts, limits.

Source: Mesos v1 CommandInfo, ContainerInfo and the environment that a Mesos agent gives; `CORRAL_*` are corral's own.
What a command sets itself wins over what the agent sets.
"""

from collections.abc import Iterable
from posixpath import isabs, join, normpath

import msgspec

from corral.agent.spec import DEFAULT_PATH, SANDBOX_IN_IMAGE, AgentConfig, ExecutorRecord, TaskRecord
from corral.agent.standalone_spec import StandaloneRecord
from corral.lib.errors import Invalid
from corral.lib.units import format_duration
from corral.model.boot import starts_after_reboot
from corral.model.container import (
    ContainerInfo,
    ContainerKind,
    DockerInfo,
    PortMapping,
    Volume,
    VolumeMode,
    has_network,
)
from corral.model.execution import Bound, Execution, Mount, SharedNetwork
from corral.model.framework import FrameworkInfo
from corral.model.ids import AgentId, ContainerId, FrameworkId, TaskId
from corral.model.operations import is_volume, volume_key
from corral.model.partition import stop_after_s
from corral.model.resources import Resource, total_milli
from corral.model.task import INSTANCE_LABEL, CommandInfo, ExecutorInfo, TaskInfo, group_of

MOST_MEM_MB = 1 << 24
"""As good as no limit, where one has to be said."""

LEAST_MEM_MB = 32
"""A smaller limit kills even a shell; Mesos raises it likewise."""

_OF_TASKS = ("MESOS_TASK_ID", "CORRAL_TASK_ID", "CORRAL_INSTANCE_ID")
"""What an executor is not told, as it is none."""

_OF_FRAMEWORKS = (
    "MESOS_ALLOCATION_ROLE", "MESOS_CHECKPOINT", "MESOS_EXECUTOR_ID", "MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD",
    "MESOS_FRAMEWORK_ID", "MESOS_HTTP_COMMAND_EXECUTOR", "CORRAL_ROLE",
)  # fmt: skip
"""What a standalone container is not told either, as no framework stands behind it."""


class Plan(msgspec.Struct, frozen=True):
    """Shapes: `directories` are absolute, in the sandbox, and to be made before the start; `owner` gets the sandbox.

    `volumes` are the directories of persistent volumes, to be made when they are used first.
    """

    execution: Execution
    directories: tuple[str, ...] = ()
    owner: str | None = None
    volumes: tuple[str, ...] = ()


def sandbox_path(
    work_dir: str, agent_id: AgentId, framework_id: FrameworkId, task_id: TaskId, container_id: ContainerId
) -> str:
    """Where a run's files are. Source: the layout of a Mesos agent's work directory; a task is its own executor."""
    return f"{work_dir}/slaves/{agent_id}/frameworks/{framework_id}/executors/{task_id}/runs/{container_id}"


def standalone_path(work_dir: str, id: ContainerId, inner: ContainerId) -> str:
    """The same of a standalone container."""
    return f"{work_dir}/containers/{id}/runs/{inner}"


def choose_runtime(info: TaskInfo) -> str:
    """The name of the runtime that the task asks for: an image needs an Engine, everything else is a plain process."""
    container = info.container
    if container is not None and (container.kind is ContainerKind.DOCKER or container.docker is not None):
        return "docker"
    return "process"


def check_order(info: TaskInfo, agent_id: AgentId | None) -> None:
    """Refuse what this agent cannot run, whatever its state.

    Errors: `Invalid` names what was asked for.
    """
    if info.agent_id != agent_id:
        raise Invalid(
            f"task {info.task_id} is for agent {info.agent_id}, this is {agent_id}; launch it from a new offer"
        )
    if info.unsupported:
        raise Invalid(
            f"task {info.task_id} asks for {', '.join(info.unsupported)}, which agents cannot do; leave it out"
        )
    stop_after_s(info)
    starts_after_reboot(info)
    if info.command is None and (info.executor is None or info.executor.is_default):
        raise Invalid(f"task {info.task_id} has neither a command nor an executor of its own; give it a command")
    container = info.container
    if container is not None and container.kind is ContainerKind.DOCKER and container.docker is None:
        raise Invalid(f"task {info.task_id} asks for a Docker container without saying which image; set docker.image")


def plan_execution(
    config: AgentConfig,
    agent_id: AgentId | None,
    framework: FrameworkInfo,
    task: TaskRecord,
    parent: ContainerId | None = None,
) -> Plan:
    """Everything that the runtime needs for one run of the task. Shapes: `parent` is its executor's container.

    Errors: `Invalid` when the command, a volume or the network cannot be meant as it is.
    """
    info = task.info
    command = info.command or CommandInfo()
    docker = info.container.docker if info.container is not None else None
    mounts, directories = _plan_volumes(task, in_image=docker is not None)
    kept = _plan_persistent(config, info, in_image=docker is not None)
    argv, entrypoint_args = _argv(info, command)
    shared = _shared_network(info, parent)
    networks = _networks(info.task_id, info.container)
    own_user = (command.user or framework.user) if config.switch_user else None
    mappings = shared.port_mappings if shared is not None else _port_mappings(task, docker)
    execution = Execution(
        container_id=task.container_id,
        task_id=info.task_id,
        framework_id=task.framework_id,
        sandbox=task.sandbox,
        argv=argv,
        environment=_environment(config, agent_id, framework, task, mappings, in_image=docker is not None),
        user=command.user if docker is not None else own_user,
        docker=docker,
        entrypoint_args=entrypoint_args,
        hostname=info.container.hostname if info.container is not None else None,
        mounts=(*mounts, *kept),
        port_mappings=() if shared is not None else mappings,
        network=next(iter(networks), None),
        more_networks=networks[1:],
        labels=_labels(agent_id, task),
        cpu_milli=total_milli(info.resources, "cpus"),
        cpu_limit_milli=_limit(info, "cpus", None),
        mem_mb=_mem_limit_mb(info),
        secrets=command.secrets,
        secret_files=_secret_files(info, in_image=docker is not None),
        bound=_bound(config, info),
        shared=shared,
        at_home=docker is not None and info.container is not None and info.container.kind is ContainerKind.MESOS,
    )
    volumes = tuple(mount.source for mount in kept)
    return Plan(execution, directories, own_user if docker is None else None, volumes)


def _shared_network(info: TaskInfo, parent: ContainerId | None) -> SharedNetwork | None:
    """The network of its executor, which a task of a group has unless it names one of its own."""
    executor = info.executor
    if parent is None or executor is None or not has_network(executor.container) or has_network(info.container):
        return None
    container = info.container
    assert executor.container is not None
    infos = tuple(network for network in executor.container.network_infos if network.name)
    names = _networks(info.task_id, executor.container)
    if "host" in names:
        raise Invalid(f"task {info.task_id} shares network host, which is the node's; leave the name out")
    if container is None or container.docker is None:
        raise Invalid(
            f"task {info.task_id} has no image, and a process of the node cannot join network {names[0]} of its"
            " executor; give it an image, or leave out the executor's network"
        )
    if container.hostname is not None:
        raise Invalid(
            f"task {info.task_id} shares the network of its executor and the name of that; set hostname on the"
            " executor's container"
        )
    mappings = tuple(dict.fromkeys(mapping for network in infos for mapping in network.port_mappings))
    return SharedNetwork(id=parent, networks=names, port_mappings=mappings, hostname=executor.container.hostname)


def _bound(config: AgentConfig, info: TaskInfo) -> Bound | None:
    """What ends the task if this agent cannot; what is held for a master's answer counts from nothing else."""
    stop_s = stop_after_s(info)
    if stop_s is None:
        return None
    grace_s = config.kill_grace_s if info.kill_grace_s is None else info.kill_grace_s
    return Bound(
        contact=contact_path(config.work_dir), stop_after_s=stop_s, grace_s=grace_s, strict=info.executor is None
    )


def contact_path(work_dir: str) -> str:
    return join(work_dir, "contact")


def plan_executor(
    config: AgentConfig,
    agent_id: AgentId | None,
    framework: FrameworkInfo,
    record: ExecutorRecord,
    tasks: Iterable[TaskInfo],
) -> Plan:
    """The same for an executor that is a process of its own, and is to hold these tasks.

    Errors: `Invalid` when the command or a volume cannot be meant as it is.
    """
    info = record.info
    task = TaskInfo(
        task_id=TaskId(info.executor_id), name=info.name or info.executor_id, agent_id=agent_id or AgentId(""),
        resources=info.resources, command=info.command, container=info.container, labels=info.labels,
    )  # fmt: skip
    plan = plan_execution(
        config, agent_id, framework,
        TaskRecord(record.framework_id, record.role, task, record.container_id, record.runtime, record.sandbox),
    )  # fmt: skip
    cpu_milli, mem_mb = size_executor(info, tasks)
    environment = {key: value for key, value in plan.execution.environment if key not in _OF_TASKS}
    environment["MESOS_HTTP_COMMAND_EXECUTOR"] = "0"
    if info.shutdown_grace_s is not None:
        environment["MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD"] = format_duration(info.shutdown_grace_s)
    execution = msgspec.structs.replace(
        plan.execution, environment=tuple(environment.items()), cpu_milli=cpu_milli, mem_mb=mem_mb
    )
    return msgspec.structs.replace(plan, execution=execution)


def plan_standalone(config: AgentConfig, agent_id: AgentId | None, record: StandaloneRecord) -> Plan:
    """The same for a standalone container. Errors: `Invalid` when the command or a volume cannot be meant as it is."""
    info, nobody = record.info, FrameworkId("")
    docker = info.container.docker if info.container is not None else None
    if info.container is not None and info.container.kind is ContainerKind.DOCKER and docker is None:
        raise Invalid(f"container {info.task_id} is of type DOCKER and names no image; set container.docker.image")
    if docker is not None and info.command is None:
        info = msgspec.structs.replace(info, command=CommandInfo(shell=False))
    plan = plan_execution(
        config, agent_id, FrameworkInfo(id=nobody, user="", name=""),
        TaskRecord(nobody, "", info, record.inner, record.runtime, record.sandbox),
    )  # fmt: skip
    unsaid = {*_OF_TASKS, *_OF_FRAMEWORKS} - {name for name, _ in (info.command or CommandInfo()).environment}
    execution = msgspec.structs.replace(
        plan.execution,
        environment=tuple(pair for pair in plan.execution.environment if pair[0] not in unsaid),
        user=plan.execution.user or None,
    )
    return msgspec.structs.replace(plan, execution=execution, owner=plan.owner or None)


def size_executor(info: ExecutorInfo, tasks: Iterable[TaskInfo]) -> tuple[int, int | None]:
    """What a container gets that holds the executor and these tasks. Units: as `Execution`."""
    found = tuple(tasks)
    cpu_milli = total_milli(info.resources, "cpus") + sum(total_milli(t.resources, "cpus") for t in found)
    mem_milli = total_milli(info.resources, "mem")
    for task in found:
        own = _limit(task, "mem", total_milli(task.resources, "mem"))
        mem_milli += MOST_MEM_MB * 1000 if own is None else own
    return cpu_milli, max(LEAST_MEM_MB, mem_milli // 1000) if mem_milli else None


def _argv(info: TaskInfo, command: CommandInfo) -> tuple[tuple[str, ...], bool]:
    """The words to run, and whether they are arguments of the image's own program."""
    container = info.container
    in_image = container is not None and container.docker is not None
    if command.shell:
        if not command.value:
            raise Invalid(
                f"task {info.task_id} runs a shell without a command; set command.value or command.shell to false"
            )
        return ("/bin/sh", "-c", command.value), False
    if in_image and not command.value:
        return command.arguments, True
    if in_image and container is not None and container.kind is ContainerKind.DOCKER:
        return (command.value or "", *command.arguments), True
    if not command.value:
        raise Invalid(f"task {info.task_id} names no program to run; set command.value")
    # Deviates: argv[0] is always the program itself; a runtime looks it up by that name.
    return (command.value, *command.arguments[1:]), False


def _environment(
    config: AgentConfig,
    agent_id: AgentId | None,
    framework: FrameworkInfo,
    task: TaskRecord,
    mappings: Iterable[PortMapping],
    *,
    in_image: bool,
) -> tuple[tuple[str, str], ...]:
    info = task.info
    found = {
        "MESOS_AGENT_ENDPOINT": f"{config.ip}:{config.port}",
        "MESOS_ALLOCATION_ROLE": task.role,
        "MESOS_CHECKPOINT": "1" if framework.checkpoint else "0",
        "MESOS_DIRECTORY": task.sandbox,
        "MESOS_EXECUTOR_ID": str(info.executor.executor_id if info.executor is not None else info.task_id),
        "MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD": format_duration(config.executor_shutdown_grace_s),
        "MESOS_FRAMEWORK_ID": str(task.framework_id),
        "MESOS_HTTP_COMMAND_EXECUTOR": "1",
        "MESOS_SANDBOX": SANDBOX_IN_IMAGE if in_image else task.sandbox,
        "MESOS_SLAVE_ID": str(agent_id),
        "MESOS_SLAVE_PID": f"slave(1)@{config.ip}:{config.port}",
        "MESOS_TASK_ID": str(info.task_id),
        "CORRAL_HOST_IP": config.ip,
        "CORRAL_INSTANCE_ID": _instance(info),
        "CORRAL_TASK_ID": str(info.task_id),
        "CORRAL_ROLE": task.role,
        "CORRAL_PORT_MAPPING": ",".join(f"{m.container_port}:{m.host_port}/{m.protocol}" for m in mappings),
    }
    if framework.checkpoint:
        found["MESOS_RECOVERY_TIMEOUT"] = format_duration(config.executor_recovery_timeout_s)
        found["MESOS_SUBSCRIPTION_BACKOFF_MAX"] = "2secs"
    if info.executor is not None:
        found["MESOS_HTTP_COMMAND_EXECUTOR"] = "0"
        found["MESOS_CONTAINER_IP"] = config.ip
    if in_image:
        found["MESOS_CONTAINER_NAME"] = f"corral-{task.container_id}"
    else:
        found["PATH"] = DEFAULT_PATH
    if info.command is not None:
        found.update(info.command.environment)
    return tuple(found.items())


def _instance(info: TaskInfo) -> str:
    return next((label.value or "" for label in info.labels if label.key == INSTANCE_LABEL), str(info.task_id))


def _labels(agent_id: AgentId | None, task: TaskRecord) -> tuple[tuple[str, str], ...]:
    found = {"corral.agent": str(agent_id), "corral.role": task.role, "corral.name": task.info.name}
    group = group_of(task.info)
    if group is not None:
        found["corral.group"] = group
    return tuple(found.items())


def _port_mappings(task: TaskRecord, docker: DockerInfo | None) -> tuple[PortMapping, ...]:
    if docker is not None:
        return docker.port_mappings
    container = task.info.container
    return tuple(m for n in (container.network_infos if container is not None else ()) for m in n.port_mappings)


def _networks(task_id: TaskId, container: ContainerInfo | None) -> tuple[str, ...]:
    """The names of the container's networks, each once; a nameless one is the host's.

    Errors: `Invalid` for a name that an Engine takes for something else.
    """
    infos = container.network_infos if container is not None else ()
    names = tuple(dict.fromkeys(network.name for network in infos if network.name))
    for name in names:
        if ":" in name:
            raise Invalid(f"task {task_id} asks for network {name!r}, which is no name of one; leave out the colon")
    return names


def _plan_volumes(task: TaskRecord, *, in_image: bool) -> tuple[tuple[Mount, ...], tuple[str, ...]]:
    """The mounts and the directories they need. Shapes: without an image a target in the sandbox is relative."""
    container = task.info.container
    mounts = [Mount(source=task.sandbox, target=SANDBOX_IN_IMAGE)] if in_image else []
    directories: list[str] = []
    for volume in container.volumes if container is not None else ():
        if volume.secret is not None:
            continue
        source, made = _volume_source(task, volume)
        if made:
            directories.append(source)
        target = volume.container_path
        if not isabs(target):
            if _inside(task, target) == source:
                continue  # a fresh directory at its own place in the sandbox
            target = join(SANDBOX_IN_IMAGE, normpath(target)) if in_image else normpath(target)
        mounts.append(Mount(source=source, target=target, read_only=volume.mode is VolumeMode.RO))
    return tuple(mounts), tuple(directories)


def _secret_files(info: TaskInfo, *, in_image: bool) -> tuple[tuple[str, str], ...]:
    """Where files of secrets are mounted, with their sources. Shapes: as the targets of other volumes."""
    found = []
    for volume in info.container.volumes if info.container is not None else ():
        if volume.secret is not None:
            target = volume.container_path
            if not isabs(target):
                target = join(SANDBOX_IN_IMAGE, normpath(target)) if in_image else normpath(target)
            found.append((target, volume.secret))
    return tuple(found)


def _plan_persistent(config: AgentConfig, info: TaskInfo, *, in_image: bool) -> tuple[Mount, ...]:
    """The mounts of the persistent volumes among the task's resources."""
    mounts = []
    for volume in filter(is_volume, info.resources):
        target = volume.identity.disk.container_path if volume.identity.disk is not None else None
        if not target:
            raise Invalid(f"a persistent volume of task {info.task_id} has no container path")
        if not isabs(target):
            target = join(SANDBOX_IN_IMAGE, normpath(target)) if in_image else normpath(target)
        mounts.append(Mount(source=volume_path(config.work_dir, volume), target=target))
    return tuple(mounts)


def volume_path(work_dir: str, volume: Resource) -> str:
    """Where a volume's data is. Source: the layout of a Mesos agent; a slash in a role becomes a blank."""
    role, persistence_id = volume_key(volume)
    disk = volume.identity.disk
    root = disk.source_root if disk is not None and disk.source_root is not None else work_dir
    return join(work_dir, root, "volumes", "roles", role.replace("/", " "), persistence_id)


def _volume_source(task: TaskRecord, volume: Volume) -> tuple[str, bool]:
    """The directory on the host and whether it lies in the sandbox and has to be made."""
    if not volume.container_path:
        raise Invalid(f"a volume of task {task.info.task_id} has no container path; set container_path")
    if volume.of_executor:
        if task.info.executor is None or not task.group:
            raise Invalid(f"a volume of task {task.info.task_id} is of its executor's sandbox, which only groups share")
        return _inside(task, volume.host_path or "", of_executor=True), True
    if volume.host_path is None:
        return _inside(task, volume.container_path.lstrip("/") or "root"), True
    if isabs(volume.host_path):
        return volume.host_path, False
    return _inside(task, volume.host_path), True


def task_sandbox(executor_sandbox: str, task_id: TaskId) -> str:
    """Where the files of a task of a group are. Source: Mesos v1, default executor."""
    return f"{executor_sandbox}/tasks/{task_id}"


def _inside(task: TaskRecord, path: str, *, of_executor: bool = False) -> str:
    clean = normpath(path)
    if clean in (".", "..") or clean.startswith(("../", "/")):
        raise Invalid(
            f"a volume of task {task.info.task_id} has the path {path!r}, which leaves the sandbox; shorten it"
        )
    root = task.sandbox.removesuffix(f"/tasks/{task.info.task_id}") if of_executor else task.sandbox
    return join(root, clean)


def _limit(info: TaskInfo, name: str, default: int | None) -> int | None:
    return next((milli for key, milli in info.limits if key == name), default)


def _mem_limit_mb(info: TaskInfo) -> int | None:
    milli = _limit(info, "mem", total_milli(info.resources, "mem"))
    return None if not milli else max(LEAST_MEM_MB, milli // 1000)
