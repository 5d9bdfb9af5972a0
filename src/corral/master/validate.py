"""Refuses what must not be: frameworks, wants, offers and tasks that break a rule, each with the words for its owner.

Nothing here changes anything. Source: Mesos v1 scheduler API, SUBSCRIBE and ACCEPT validation.
"""

from collections.abc import Sequence

from corral.allocator.demands import check_want
from corral.allocator.strategies import STRATEGIES
from corral.lib.errors import Invalid
from corral.master.agent_entry import AgentEntry
from corral.master.entries import FrameworkEntry, OfferEntry
from corral.master.state import MasterState
from corral.model.command import CommandInfo
from corral.model.container import ContainerInfo, ContainerKind, NetworkMode
from corral.model.health import CheckKind, HealthCheck, find_check_fault, find_faults
from corral.model.ids import OfferId, check_id
from corral.model.ledger import Pool
from corral.model.offer import Want, find_want_fault
from corral.model.operations import is_volume, volume_key
from corral.model.resources import Resource, ResourceKind, Resources, describe, total_milli
from corral.model.task import ExecutorInfo, Reason, TaskInfo


def check_wants(framework: FrameworkEntry, wants: Sequence[Want]) -> None:
    """Errors: `Invalid` names the want and the rule it breaks."""
    seen: set[str] = set()
    for want in wants:
        if want.id in seen:
            raise Invalid(f"want {want.id} is stated twice in one REQUEST; give each its own id")
        seen.add(want.id)
        if not want.id:
            raise Invalid("want without an id; give it one")
        if want.role not in framework.info.subscribed_roles:
            roles = ", ".join(framework.info.subscribed_roles) or "none"
            raise Invalid(f"want {want.id} is for role {want.role!r} but the framework subscribed to {roles}")
        check_rules(want)


def check_rules(want: Want) -> None:
    """What holds of a want whoever states it. Errors: `Invalid` names the want and the rule it breaks."""
    if want.count < 0 or want.ports < 0:
        raise Invalid(f"want {want.id} has a count below 0")
    if not any(r.milli > 0 for r in want.resources) or any(r.milli < 0 for r in want.resources):
        raise Invalid(f"want {want.id} asks {describe(want.resources)}; ask more than 0 of at least one scalar")
    if any(r.kind is not ResourceKind.SCALAR for r in want.resources):
        raise Invalid(f"want {want.id} lists ports or sets among its resources; use ports and fixed_ports")
    if want.strategy not in ("", *STRATEGIES):
        raise Invalid(f"want {want.id} names the strategy {want.strategy!r}; there are {', '.join(STRATEGIES)}")
    fault = find_want_fault(want)
    if fault is not None:
        raise Invalid(f"want {want.id}: {fault[0]}: {fault[1]}")
    check_want(want)


class BadOffers(Exception):
    """An ACCEPT whose offers do not stand. Shapes: `valid` are those that do, and have to be given back."""

    def __init__(self, message: str, reason: Reason, valid: Sequence[OfferEntry]) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.valid = tuple(valid)


def check_accept(
    state: MasterState, framework: FrameworkEntry, offer_ids: Sequence[OfferId]
) -> tuple[AgentEntry, list[OfferEntry]]:
    """The agent and the offers of an ACCEPT.

    Errors: `BadOffers` unless they all exist, are this framework's, of one agent and one role, all revocable or none,
    and none is named twice.
    """
    found: dict[OfferId, OfferEntry] = {}
    why: str | None = None
    reason = Reason.INVALID_OFFERS
    for offer_id in offer_ids:
        entry = framework.offers.get(offer_id)
        if offer_id in found:
            why = why or f"offer {offer_id} is listed twice"
        elif entry is None:
            if why is None:
                why, reason = _absent(state, offer_id)
        else:
            found[offer_id] = entry
    entries = list(found.values())
    if not offer_ids:
        raise BadOffers("no offer is listed", reason, ())
    if why is None and len({e.offer.agent_id for e in entries}) > 1:
        why = f"offers {', '.join(found)} are of different agents"
    if why is None and len({e.offer.role for e in entries}) > 1:
        why = f"offers {', '.join(found)} are of different roles"
    if why is None and len({e.revocable for e in entries}) > 1:
        why = f"offers {', '.join(found)} are revocable in part"
    if why is not None:
        raise BadOffers(why, reason, entries)
    return state.agents[entries[0].offer.agent_id], entries


def _absent(state: MasterState, offer_id: OfferId) -> tuple[str, Reason]:
    gone = state.gone_offers.get(offer_id)
    if gone is not None:
        return f"offer {offer_id} is no longer valid: {gone[0]}", gone[1]
    if offer_id in state.offers:
        return f"offer {offer_id} was made to another framework", Reason.INVALID_OFFERS
    return f"offer {offer_id} is not known; it may be from before a failover", Reason.INVALID_OFFERS


def check_task(
    framework: FrameworkEntry,
    agent: AgentEntry,
    role: str,
    info: TaskInfo,
    resources: Resources,
    left: Pool,
) -> str | None:
    """Why the task must not be launched, or None.

    Shapes: `resources` are the task's without allocation role; `left` is what the accepted offers still hold.
    """
    return check_alone(framework, agent, role, info, resources) or _check_enough(agent, info, resources, left)


def check_alone(
    framework: FrameworkEntry, agent: AgentEntry, role: str, info: TaskInfo, resources: Resources, *,
    grouped: bool = False,
) -> str | None:  # fmt: skip
    """The same, but for whether the offers hold enough. Shapes: a task that is `grouped` has a command in any case."""
    return (
        _check_identity(framework, agent, info)
        or _check_body(info, grouped)
        or _check_resources(role, info, resources)
        or _check_limits(info, resources)
    )


def check_loan(info: TaskInfo) -> str | None:
    """Why a task must not run on what is lent: it has to know that it may be ended at any time."""
    return _find_firm(f"task {info.task_id}", info.resources)


def check_executor_loan(executor: ExecutorInfo) -> str | None:
    """The same of an executor as its framework gave it, which does not run yet."""
    return _find_firm(f"executor {executor.executor_id}", executor.resources)


def _find_firm(name: str, resources: Resources) -> str | None:
    for r in resources:
        if r.kind is ResourceKind.SCALAR and not r.identity.revocable:
            return f"{name} takes {r.name} for good, but the offer is revocable; ask it as revocable"
    return None


def _check_identity(framework: FrameworkEntry, agent: AgentEntry, info: TaskInfo) -> str | None:
    try:
        check_id(info.task_id, "task id")
    except Invalid as error:
        return error.message
    in_use = info.task_id in framework.tasks or info.task_id in framework.unreachable
    if in_use or (framework.id, info.task_id) in agent.tasks:
        return f"task id {info.task_id} is in use by another task of this framework; choose a new one"
    if info.agent_id != agent.id:
        return f"task {info.task_id} names agent {info.agent_id} but the offer is of agent {agent.id}"
    return None


def _check_body(info: TaskInfo, grouped: bool) -> str | None:
    name = f"task {info.task_id}"
    if not grouped and (info.command is None) == (info.executor is None):
        return f"{name} must have exactly one of command and executor"
    if grouped and info.command is None and (info.executor is None or info.executor.is_default):
        return f"{name} has no command; a task of the default executor needs one"
    if info.unsupported:
        return f"{name} sets {', '.join(info.unsupported)}, which this release cannot honour; leave it out"
    if info.health_checks and (fault := _find_health_fault(info)) is not None:
        return f"{name} {fault}"
    if info.check is not None and (fault := _find_check_fault(info, info.check)) is not None:
        return f"{name} {fault}"
    if info.kill_grace_s is not None and info.kill_grace_s < 0:
        return f"{name} has a negative kill grace period"
    if info.max_completion_s is not None and info.max_completion_s < 0:
        return f"{name} has a negative max_completion_time"
    return check_program(name, info.command, info.container)


def check_program(name: str, command: CommandInfo | None, container: ContainerInfo | None) -> str | None:
    """What keeps a command and its container from being run; `name` is whose they are."""
    if container is not None and container.kind is ContainerKind.DOCKER and container.docker is None:
        return f"{name} has a container of type DOCKER without docker.image"
    if "\0" in "".join(_texts(command, container)):
        return f"{name} has a NUL byte in its command, environment, URIs, user or volumes; no system takes that"
    if command is not None and any(not key or "=" in key for key, _ in command.environment):
        return f"{name} has an environment variable without a name, or with = in its name"
    has_image = container is not None and container.docker is not None
    if command is not None and not command.value and (command.shell or not has_image):
        # With an image, a command that is no shell command may leave all to the image's own entrypoint.
        return f"{name} has a command without value"
    return None


def _texts(command: CommandInfo | None, container: ContainerInfo | None) -> list[str]:
    """Every text that reaches the operating system."""
    found: list[str] = []
    if command is not None:
        found += (command.value or "", command.user or "", *command.arguments)
        for pair in command.environment:
            found += pair
        for uri in command.uris:
            found += (uri.value, uri.output_file or "")
    if container is not None:
        found.append(container.hostname or "")
        for volume in container.volumes:
            found += (volume.container_path, volume.host_path or "")
        if container.docker is not None:
            found.append(container.docker.image)
            for parameter in container.docker.parameters:
                found += (parameter.key, parameter.value)
    return found


def _find_health_fault(info: TaskInfo) -> str | None:
    docker = info.container.docker if info.container is not None else None
    unreachable = docker is not None and docker.network is NetworkMode.NONE
    if unreachable and any(c.kind is not CheckKind.COMMAND for c in info.health_checks):
        return "has a health check by network but a container without any; use a check of type COMMAND"
    return find_faults(info.health_checks)


def _find_check_fault(info: TaskInfo, check: HealthCheck) -> str | None:
    docker = info.container.docker if info.container is not None else None
    if docker is not None and docker.network is NetworkMode.NONE and check.kind is not CheckKind.COMMAND:
        return "has a check by network but a container without any; use a check of type COMMAND"
    return find_check_fault(check)


def _check_resources(role: str, info: TaskInfo, resources: Resources) -> str | None:
    name = f"task {info.task_id}"
    for r in info.resources:
        if r.kind is ResourceKind.SCALAR and r.milli <= 0:
            return f"{name} asks {r.milli / 1000:g} {r.name}; a scalar must be above 0"
        if r.identity.allocation_role not in (None, role):
            return f"{name} takes {r.name} for role {r.identity.allocation_role} but the offer is for role {role}"
    if not resources:
        return f"{name} asks no resources; at least one is needed"
    return None


def _check_enough(agent: AgentEntry, info: TaskInfo, resources: Resources, left: Pool) -> str | None:
    return find_lack(f"task {info.task_id}", agent, resources, left)


def find_lack(name: str, agent: AgentEntry, resources: Resources, left: Pool) -> str | None:
    """What of the resources the offers do not hold, in words."""
    for r in filter(is_volume, resources):
        if r not in left.bundle():
            return f"{name} takes volume {volume_key(r)[1]}, which the offer does not hold in this size; take it whole"
    lack = left.lacks(resources)
    if lack is None:
        return None
    return f"{name} asks {_asked(lack)} on agent {agent.id}, more than available: the offer holds {_held(lack, left)}"


def _asked(resource: Resource) -> str:
    return describe((resource,))


def _held(lack: Resource, left: Pool) -> str:
    return describe(tuple(r for r in left.bundle() if r.name == lack.name)).removeprefix(f"{lack.name} ")


def _check_limits(info: TaskInfo, resources: Resources) -> str | None:
    for name, milli in info.limits:
        if name not in ("cpus", "mem"):
            return f"task {info.task_id} sets a limit for {name}; only cpus and mem have limits"
        if milli is not None and milli < total_milli(resources, name):
            return f"task {info.task_id} sets a limit for {name} below what it asks"
    return None
