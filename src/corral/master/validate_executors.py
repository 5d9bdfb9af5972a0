"""Refuses executors and groups of tasks that break a rule, each with the words for its owner.

Nothing here changes anything. Source: Mesos v1 scheduler API, ACCEPT: task and task group validation.
"""

from collections.abc import Sequence

from corral.lib.errors import Invalid
from corral.master.agent_entry import AgentEntry
from corral.master.entries import FrameworkEntry
from corral.master.validate import check_alone, check_program, find_lack
from corral.model.calls import LaunchGroup
from corral.model.container import ContainerKind, has_network
from corral.model.health import CheckKind
from corral.model.ids import check_id
from corral.model.ledger import Pool
from corral.model.operations import unshared
from corral.model.resources import ResourceKind, Resources, total_milli
from corral.model.task import ExecutorInfo, TaskInfo

LEAST_CPUS_MILLI = 10
LEAST_MEM_MILLI = 32_000


def needed_by(framework: FrameworkEntry, agent: AgentEntry, executor: ExecutorInfo) -> Resources:
    """What the executor takes of the offers: nothing when it has it already."""
    return () if (framework.id, executor.executor_id) in agent.executors else executor.resources


def check_executor(
    framework: FrameworkEntry, agent: AgentEntry, role: str, info: TaskInfo, executor: ExecutorInfo,
    resources: Resources, left: Pool,
) -> str | None:  # fmt: skip
    """Why a task must not be launched on this executor of its framework's own, or None.

    Shapes: `executor` is normal, `resources` are the task's without allocation role, which `left` holds.
    """
    name = f"executor {executor.executor_id} of task {info.task_id}"
    if executor.is_default:
        return f"{name} is of type DEFAULT, which runs groups alone; use LAUNCH_GROUP, or command without an executor"
    return (
        _check_given(framework, role, name, info.executor or executor)
        or _check_running(framework, agent, name, executor)
        or _check_sum(framework, agent, name, executor, (resources,), left)
    )


def check_group(
    framework: FrameworkEntry, agent: AgentEntry, role: str, group: LaunchGroup, executor: ExecutorInfo,
    found: Sequence[Resources], left: Pool,
) -> str | None:  # fmt: skip
    """Why a group must not be launched, or None.

    Shapes: `executor` is normal, `found` are the tasks' resources without allocation role.
    """
    name = f"executor {executor.executor_id} of the group"
    if not group.tasks:
        return "the group has no tasks"
    why = (
        _check_kind(name, group.executor)
        or _check_given(framework, role, name, group.executor)
        or _check_overhead(name, executor)
        or _check_running(framework, agent, name, executor)
    )
    seen: set[str] = set()
    for info, resources in zip(group.tasks, found, strict=True):
        if info.task_id in seen:
            why = why or f"task {info.task_id} is in the group twice; give each its own id"
        seen.add(info.task_id)
        why = why or check_alone(framework, agent, role, info, resources, grouped=True)
        why = why or _check_member(group.executor, info)
    return why or _check_sum(framework, agent, name, executor, found, left)


def _check_given(framework: FrameworkEntry, role: str, name: str, executor: ExecutorInfo) -> str | None:
    """What holds of an executor by itself, as its framework gave it."""
    try:
        check_id(executor.executor_id, "executor id")
    except Invalid as error:
        return error.message
    if executor.framework_id is not None and executor.framework_id != framework.id:
        return f"{name} names framework {executor.framework_id}, but framework {framework.id} launches it"
    if executor.shutdown_grace_s is not None and executor.shutdown_grace_s < 0:
        return f"{name} has a negative shutdown_grace_period"
    for r in executor.resources:
        if r.kind is ResourceKind.SCALAR and r.milli <= 0:
            return f"{name} asks {r.milli / 1000:g} {r.name}; a scalar must be above 0"
        if r.identity.allocation_role not in (None, role):
            return f"{name} takes {r.name} for role {r.identity.allocation_role} but the offer is for role {role}"
    if executor.is_default:
        return None
    if executor.command is None:
        return f"{name} has no command; a custom executor is a program"
    return check_program(name, executor.command, executor.container)


def _check_kind(name: str, executor: ExecutorInfo) -> str | None:
    if executor.kind is None:
        return f"{name} has no type; set it to DEFAULT or CUSTOM"
    if not executor.is_default:
        return None
    if executor.command is not None:
        return f"{name} is of type DEFAULT and has a command; leave it out, or set the type to CUSTOM"
    container = executor.container
    if container is not None and (container.kind is not ContainerKind.MESOS or container.docker is not None):
        return f"{name} is of type DEFAULT and has a container of type {container.kind}; it may be of type MESOS alone"
    return None


def _check_overhead(name: str, executor: ExecutorInfo) -> str | None:
    cpus, mem = total_milli(executor.resources, "cpus"), total_milli(executor.resources, "mem")
    if cpus < LEAST_CPUS_MILLI:
        return f"{name} has {cpus / 1000:g} cpus; give it {LEAST_CPUS_MILLI / 1000:g} or more"
    if mem < LEAST_MEM_MILLI:
        return f"{name} has {mem / 1000:g} MB of mem; give it {LEAST_MEM_MILLI / 1000:g} or more"
    if not total_milli(executor.resources, "disk") and not executor.lent:  # disk is never lent
        return f"{name} has no disk; give it some"
    return None


def _check_running(framework: FrameworkEntry, agent: AgentEntry, name: str, executor: ExecutorInfo) -> str | None:
    running = agent.executors.get((framework.id, executor.executor_id))
    if running is None or running.info == executor:
        return None
    if running.info.lent and not executor.lent:
        return f"{name} runs on what is lent; launch its tasks from revocable offers, or choose a new id"
    return f"{name} differs from the executor of this id on agent {agent.id}; bring the same, or choose a new id"


def _check_member(executor: ExecutorInfo, info: TaskInfo) -> str | None:
    name = f"task {info.task_id}"
    if info.executor is not None and info.executor != executor:
        return f"{name} names an executor of its own, which differs from the group's; leave it out"
    container = info.container
    if container is not None and container.kind is ContainerKind.DOCKER:
        return (
            f"{name} has a container of type DOCKER, which no group can hold; use one of type MESOS, which may have an"
            " image, or LAUNCH"
        )
    own_network = has_network(container)
    in_image = container is not None and container.docker is not None
    if executor.is_default and has_network(executor.container) and not own_network and not in_image:
        return (
            f"{name} has no image, and a process of the node cannot join the network of executor"
            f" {executor.executor_id}; give it container.mesos.image, or leave out the executor's network"
        )
    checks = (*info.health_checks, *((info.check,) if info.check is not None else ()))
    if own_network and any(check.kind is not CheckKind.COMMAND for check in checks):
        return f"{name} has a check by network and a network of its own; use a check of type COMMAND"
    if info.limits and (container is None or container.share_cgroups):
        return f"{name} has limits; in a group they need container.linux_info.share_cgroups to be false"
    return None


def _check_sum(
    framework: FrameworkEntry, agent: AgentEntry, name: str, executor: ExecutorInfo, found: Sequence[Resources],
    left: Pool,
) -> str | None:  # fmt: skip
    """Whether the offers hold it all, each range and item once, and nothing is both lent and owned."""
    rest = Pool(left.bundle())
    for index, resources in enumerate((*found, needed_by(framework, agent, executor))):
        why = find_lack(name if index == len(found) else f"{name} with its tasks", agent, resources, rest)
        if why is not None:
            return why
        rest.take(unshared(resources))
    lent: dict[str, bool] = {}
    for r in (r for resources in (*found, executor.resources) for r in resources):
        if lent.setdefault(r.name, r.identity.revocable) is not r.identity.revocable:
            return f"{name} and its tasks take {r.name} both revocable and not; use one kind"
    return None
