"""Tells the allocator what there is and what is taken of it; no other module of the master does.

Rule: an offer or a task is one hold. From grant to offer to task it is handed on, so that nothing is free in between
and a launch changes no sum. What is free on an agent, and what a role holds, is asked of the allocator.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence

import msgspec

from corral.allocator.bundles import PORTS, plain
from corral.allocator.view import AgentView, Filter, FrameworkView, Grant, Hold, HoldKind, WantView
from corral.master.agent_entry import AgentEntry
from corral.master.entries import ExecutorEntry, FrameworkEntry, OfferEntry, TaskEntry, WantEntry
from corral.master.state import MasterState
from corral.model import offer_constraints as constraints
from corral.model.constraints import Constraint, Operator
from corral.model.domain import REGION, ZONE
from corral.model.framework import Capability
from corral.model.ids import AgentId, FrameworkId, OfferId, WantId
from corral.model.ledger import Tally
from corral.model.offer import MOST_PRIORITY, Want
from corral.model.offer_constraints import OfferConstraints
from corral.model.resources import Resources
from corral.model.role import RoleSettings, line_of
from corral.model.task import Claim

_REMOTE = "@remote"
"""Set where an agent stands in another region than the master."""
_AT_HOME = Constraint(field=_REMOTE, operator=Operator.UNEQUAL, values=("yes",))

# What there is.


def tell_agent(state: MasterState, agent: AgentEntry) -> None:
    """The agent is new, or something about it."""
    why = agent.ineligible
    view = AgentView(
        id=agent.id, hostname=agent.info.hostname, total=agent.info.resources, attributes=_fields(state, agent),
        runtimes=agent.info.runtimes, unready_runtimes=agent.info.unready_runtimes, ineligible=why,
        still_offered=why == "maintenance", remote=state.is_remote(agent.info), barred=_barred(state, agent),
    )  # fmt: skip
    before = state.allocator.book.agents.get(agent.id)
    was = before.view.total if before is not None else ()
    state.allocator.set_agent(view)
    agent.shown = None
    if plain(view.total) != view.total:
        state.mixed[agent.id] = agent
    else:
        state.mixed.pop(agent.id, None)
    _count_reserved(state, was, view.total)


def _fields(state: MasterState, agent: AgentEntry) -> dict[str, str]:
    """What constraints may look at."""
    domain = agent.info.domain
    if domain is None:
        return agent.attributes
    found = {**agent.attributes, REGION: domain.region, ZONE: domain.zone}
    return {**found, _REMOTE: "yes"} if state.is_remote(agent.info) else found


def _barred(state: MasterState, agent: AgentEntry) -> frozenset[tuple[FrameworkId, str]]:
    """Who does not want plain offers of the agent, and for which roles."""
    return frozenset(
        (framework_id, one.role)
        for framework_id, found in state.constrained.items()
        for one in found
        if not constraints.admits(one.groups, agent.info)
    )


def admits(state: MasterState, framework: FrameworkEntry, entry: OfferEntry) -> bool:
    """Whether the framework wants plain offers such as this one."""
    info = state.agents[entry.offer.agent_id].info
    if state.is_remote(info) and not framework.info.can(Capability.REGION_AWARE):
        return False
    return all(constraints.admits(c.groups, info) for c in framework.constraints if c.role == entry.offer.role)


def forget_agent(state: MasterState, agent: AgentEntry) -> None:
    was = state.allocator.book.agents[agent.id].view.total
    state.count(agent, None)
    state.allocator.remove_agent(agent.id)
    state.mixed.pop(agent.id, None)
    _count_reserved(state, was, ())


def _count_reserved(state: MasterState, before: Resources, after: Resources) -> None:
    """Keep what is reserved for roles in step, and with it what is left of their quotas."""
    if before == after:
        return
    changed = reserved_for(after)
    for role, part in reserved_for(before).items():
        changed.setdefault(role, Counter()).subtract(part)
    for role, part in changed.items():
        if any(part.values()):
            there = state.reserved.setdefault(role, Counter())
            there.update(part)
            if not any(there.values()):
                del state.reserved[role]
            if role in state.roles:
                tell_role(state, role)


def reserved_for(resources: Resources) -> dict[str, Counter[str]]:
    """The scalars of a bundle by the roles they are reserved for, and the roles above those."""
    found: dict[str, Counter[str]] = {}
    for r in resources:
        if r.identity.reservations and r.milli:
            for role in line_of(r.identity.reservations[-1].role):
                found.setdefault(role, Counter())[r.name] += r.milli
    return found


def free(state: MasterState, agent_id: AgentId) -> Resources:
    """What neither tasks nor offers hold of an agent."""
    return state.allocator.book.agents[agent_id].free()


def tell_role(state: MasterState, role: str) -> None:
    """What is set of a role has changed."""
    settings = state.roles.get(role)
    if settings is None:
        state.allocator.remove_role(role)
    else:
        state.allocator.set_role(role, _without_reserved(settings, state.reserved.get(role)))


def _without_reserved(settings: RoleSettings, reserved: Counter[str] | None) -> RoleSettings:
    """What is left of a role's quota, of which its reservations are a part. Source: Mesos v1, quota."""
    if not reserved or not (settings.guarantee or settings.limit):
        return settings
    guarantee = _lower(settings.guarantee, reserved)
    return msgspec.structs.replace(
        settings, guarantee=tuple(r for r in guarantee if r.milli), limit=_lower(settings.limit, reserved)
    )


def _lower(quota: Resources, reserved: Counter[str]) -> Resources:
    """Shapes: a limit of nothing is kept, for without it there would be none."""
    return tuple(msgspec.structs.replace(r, milli=max(r.milli - reserved[r.name], 0)) for r in quota)


def held(state: MasterState) -> dict[tuple[str, FrameworkId], dict[str, int]]:
    """Thousandths of what tasks, offers and rooms that are kept hold, by role and framework."""
    state.allocator.book.flush()
    return {key: _scalars(found) for key, found in state.allocator.claimants.sums().items()}


def kept(state: MasterState) -> dict[tuple[str, FrameworkId], Resources]:
    """What is kept for gangs and wants for which room is being made, by role and framework."""
    found: dict[tuple[str, FrameworkId], Resources] = {}
    for hold in state.allocator.kept():
        key = hold.role, hold.framework_id
        found[key] = (*found.get(key, ()), *hold.resources)
    return found


def _scalars(found: dict[str, int]) -> dict[str, int]:
    return {name: milli for name, milli in found.items() if milli and name != PORTS}


# Who asks.


def tell_framework(state: MasterState, framework: FrameworkEntry) -> None:
    """The framework listens, or listens for other roles than before."""
    info = framework.info
    coarse = (r for r in info.subscribed_roles if r not in framework.suppressed)
    view = FrameworkView(
        id=framework.id, coarse_roles=tuple(coarse), gpus=info.can(Capability.GPU_RESOURCES),
        regions=info.can(Capability.REGION_AWARE), refined=info.can(Capability.RESERVATION_REFINEMENT),
        shared=info.can(Capability.SHARED_RESOURCES), revocable=info.can(Capability.REVOCABLE_RESOURCES),
        least={one.role: tuple(map(dict, one.least)) for one in info.offer_filters},
        only_reserved=framework.uses_wants,
    )  # fmt: skip
    _constrain(state, framework.id, framework.constraints)
    if state.allocator.frameworks.get(framework.id) != view:
        state.allocator.set_framework(view)


def _constrain(state: MasterState, framework_id: FrameworkId, found: OfferConstraints) -> None:
    """What a framework says about agents is new; nothing when it has said so before."""
    if state.constrained.get(framework_id, ()) == found:
        return
    state.constrained[framework_id] = found
    if not found:
        del state.constrained[framework_id]
    for agent in state.agents.values():
        if state.allocator.book.agents[agent.id].view.barred != _barred(state, agent):
            tell_agent(state, agent)


def forget_framework(state: MasterState, framework_id: FrameworkId) -> None:
    """The framework does not listen any more; its wants and filters go with it."""
    state.allocator.remove_framework(framework_id)
    _constrain(state, framework_id, ())


def tell_want(state: MasterState, framework: FrameworkEntry, entry: WantEntry) -> None:
    """A want is new or its numbers have changed; nothing for one that was stated anew since."""
    if framework.wants.get(entry.want.id) is not entry:
        return
    framework.settle(entry)
    line = state.allocator.lines.get(framework.id, entry.want.id)
    stays = _stays_home(state, framework, entry.want)
    if (entry.told is entry.want) is stays:
        entry.told = entry.want
        if stays:
            entry.told = msgspec.structs.replace(entry.want, constraints=(*entry.want.constraints, _AT_HOME))
    if line is None or line.view.missing != entry.missing or line.view.want is not entry.told:
        view = WantView(
            want=entry.told, framework_id=framework.id, missing=entry.missing, since_at=entry.since_at
        )  # fmt: skip
        state.allocator.set_want(view)


def _stays_home(state: MasterState, framework: FrameworkEntry, want: Want) -> bool:
    """Whether a want is to be served in the master's region alone; one that names regions knows what it asks."""
    if state.config.domain is None or framework.info.can(Capability.REGION_AWARE):
        return False
    return not any(each.field == REGION for each in want.constraints)


def forget_want(state: MasterState, framework: FrameworkEntry, want_id: WantId) -> None:
    state.allocator.remove_want(framework.id, want_id)


def filters(state: MasterState, framework: FrameworkEntry, role: str, agent_id: AgentId) -> list[Filter]:
    """What the framework refuses of an agent for a role."""
    return state.allocator.filters.of(framework.id, role, agent_id)


def tell_filters(
    state: MasterState, framework: FrameworkEntry, role: str, agent_id: AgentId, found: Iterable[Filter]
) -> None:
    state.allocator.set_filters(framework.id, role, agent_id, found)


def drop_filters_of(state: MasterState, framework: FrameworkEntry, roles: Collection[str]) -> None:
    """Forget what the framework refused for these roles."""
    _drop_filters(state, lambda one: one.framework_id == framework.id and one.role in roles)


def drop_filters_on(state: MasterState, agent_id: AgentId) -> None:
    """Forget what anybody refused of an agent."""
    _drop_filters(state, lambda one: one.agent_id == agent_id)


def _drop_filters(state: MasterState, meant: Callable[[Filter], bool]) -> None:
    keys = {(one.framework_id, one.role, one.agent_id): None for one in state.allocator.filters if meant(one)}
    for framework_id, role, agent_id in keys:
        state.allocator.set_filters(framework_id, role, agent_id, ())


# What is taken.


def hold_offer(state: MasterState, entry: OfferEntry, grant: Grant) -> None:
    """The offer takes the place of what was granted."""
    granted = state.allocator.book.holds[grant.key].hold
    offer = entry.offer
    kind = HoldKind.OFFER if offer.want_id is None else HoldKind.SHAPED
    hold = msgspec.structs.replace(granted, key=_offer_key(offer.id), kind=kind, offer_id=offer.id)
    state.allocator.hold(hold, instead_of=grant.key)
    _change(state, offer.agent_id)
    state.frameworks[offer.framework_id].offered.add(entry.resources)
    state.offered.setdefault(offer.role, Tally()).add(entry.resources)


def release_offer(state: MasterState, entry: OfferEntry) -> None:
    state.allocator.release(_offer_key(entry.offer.id))
    _count_out(state, entry)


def _count_out(state: MasterState, entry: OfferEntry) -> None:
    offer = entry.offer
    _change(state, offer.agent_id)
    state.frameworks[offer.framework_id].offered.take(entry.resources)
    state.offered[offer.role].take(entry.resources)


def _change(state: MasterState, agent_id: AgentId) -> None:
    """What is held of an agent is no more as it was shown."""
    agent = state.agents.get(agent_id)
    if agent is not None:
        agent.shown = None


def _offer_key(offer_id: OfferId) -> str:
    return f"offer/{offer_id}"


def claim(want: Want, devices: tuple[int, ...]) -> Claim:
    """What a task launched for a want is told of its standing."""
    return Claim(
        priority=want.priority, revocable=want.revocable, group=want.group, tags=want.tags, run_s=want.run_s,
        devices=devices, want_id=want.id,
    )  # fmt: skip


def hold_task(state: MasterState, entry: TaskEntry, since_at: float, offer: OfferEntry | None = None) -> None:
    """Count what a task holds, in the place of the offer that it was launched from."""
    entry.holding = True
    state.allocator.hold(
        _task_hold(entry, since_at), instead_of=_offer_key(offer.offer.id) if offer is not None else None
    )
    _change(state, entry.agent_id)
    if offer is not None:
        _count_out(state, offer)


def hold_tasks(state: MasterState, agent_id: AgentId, fresh: Sequence[tuple[TaskEntry, float]]) -> None:
    """Count what tasks hold that an agent has just told of, each with when it began."""
    if fresh:
        for entry, _ in fresh:
            entry.holding = True
        state.allocator.hold_all(agent_id, [_task_hold(entry, since_at) for entry, since_at in fresh])
        _change(state, agent_id)


def hold_anew(state: MasterState, entry: TaskEntry, since_at: float) -> None:
    """The task has begun to run: its stated run time counts from now on."""
    if entry.holding:
        state.allocator.hold(_task_hold(entry, since_at), instead_of=entry.key)


def _task_hold(entry: TaskEntry, since_at: float) -> Hold:
    found = entry.info.claim
    if found is None:
        return Hold(
            key=entry.key, framework_id=entry.framework_id, role=entry.role, agent_id=entry.agent_id,
            resources=entry.resources, group=entry.group or "", since_at=since_at,
        )  # fmt: skip
    return Hold(
        key=entry.key, framework_id=entry.framework_id, role=entry.role, agent_id=entry.agent_id,
        resources=entry.resources, want_id=found.want_id, group=_siblings(found), tags=found.tags,
        priority=found.priority, revocable=found.revocable, since_at=since_at,
        ends_at=since_at + found.run_s if found.run_s is not None else None, devices=found.devices,
        leaving=entry.preempted_by is not None,
    )  # fmt: skip


def _siblings(found: Claim) -> str:
    return found.group or (f"={found.want_id}" if found.want_id is not None else "")


def hold_executor(state: MasterState, entry: ExecutorEntry, since_at: float) -> None:
    """Count what an executor holds besides its tasks. Unless it is lent, no want makes it go: its tasks go, and it goes
    with them.
    """
    if entry.resources:
        hold = Hold(
            key=entry.key, framework_id=entry.framework_id, role=entry.role, agent_id=entry.agent_id,
            resources=entry.resources, priority=MOST_PRIORITY, revocable=entry.info.lent, since_at=since_at,
            leaving=entry.preempted_by is not None,
        )  # fmt: skip
        state.allocator.hold(hold)
    state.executors[entry.key] = entry
    _change(state, entry.agent_id)


def release_executor(state: MasterState, entry: ExecutorEntry) -> None:
    del state.executors[entry.key]
    if entry.resources:
        state.allocator.release(entry.key)
    _change(state, entry.agent_id)


def release_task(state: MasterState, entry: TaskEntry) -> None:
    """Give back what a task holds; nothing when it holds nothing any more."""
    if entry.holding:
        entry.holding = False
        state.allocator.release(entry.key)
        _change(state, entry.agent_id)
