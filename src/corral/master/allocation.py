"""Shows the allocator what there is, and carries out what it answers.

Rule: runs on change, coalesced by a timer; the view is kept from run to run and only what changed is built anew.
"""

from corral.allocator.allocator import allocate
from corral.allocator.view import AgentView, Filter, FrameworkView, View, WantView
from corral.master import offers, timers, wants
from corral.master.state import AgentEntry, AgentState, FrameworkEntry, MasterState
from corral.model.constraints import is_counting
from corral.model.framework import Capability
from corral.model.ids import AgentId, FrameworkId
from corral.model.offer import Want
from corral.runtime.core import Effect


def run(state: MasterState, now: float) -> list[Effect]:
    """The allocation timer went off: make the offers that the allocator grants, take back those that block wants."""
    state.allocation_due = False
    frameworks = _frameworks(state)
    waiting = _waiting(state)
    if not waiting and not any(f.coarse_roles for f in frameworks):
        return wants.explain(state, (), now)
    state.allocation_runs += 1
    found = allocate(_view(state, frameworks, waiting), now)
    effects = offers.make_offers(state, found.grants, now)
    blocking = [state.offers[offer_id] for offer_id in found.rescind if offer_id in state.offers]
    effects += offers.rescind(state, blocking, "a want needs its resources")
    if found.more:
        # The rest has its turn after what came in meanwhile; only then is it known what still waits.
        return effects + timers.ask_allocation(state)
    return effects + wants.explain(state, found.explanations, now)


def _view(state: MasterState, frameworks: list[FrameworkView], waiting: list[WantView]) -> View:
    return View(
        agents=_agents(state),
        frameworks=frameworks,
        wants=waiting,
        filters=_filters(state),
        held=list(state.coarse.values()),
        weights=state.weights,
        allocated={role: tally.bundle() for role, tally in state.allocated.items()},
        allocated_by={key: tally.bundle() for key, tally in state.allocated_by.items()},
        siblings=_siblings(state, waiting),
        seed=state.random.getrandbits(32),
        most_grants=state.config.most_grants,
    )


def _agents(state: MasterState) -> list[AgentView]:
    for agent_id in sorted(state.agents_changed):
        agent = state.agents.get(agent_id)
        if agent is None:
            state.views.pop(agent_id, None)
        else:
            state.views[agent_id] = _agent(agent)
    state.agents_changed.clear()
    return list(state.views.values())


def _agent(agent: AgentEntry) -> AgentView:
    silent = agent.state is not AgentState.REACHABLE
    return AgentView(
        id=agent.id,
        hostname=agent.info.hostname,
        total=agent.info.resources,
        free=() if silent else agent.free.bundle(),
        attributes=agent.attributes,
        runtimes=agent.info.runtimes,
        ineligible=str(agent.state) if silent else "",
        tasks=len(agent.tasks),
    )


def _frameworks(state: MasterState) -> list[FrameworkView]:
    return [
        FrameworkView(
            id=f.id, coarse_roles=_coarse_roles(f), gpus=f.info.can(Capability.GPU_RESOURCES)
        )
        for f in state.connected_frameworks()
    ]  # fmt: skip


def _coarse_roles(framework: FrameworkEntry) -> tuple[str, ...]:
    if framework.uses_wants:
        return ()
    return tuple(role for role in framework.info.subscribed_roles if role not in framework.suppressed)


def _waiting(state: MasterState) -> list[WantView]:
    return [
        WantView(want=w.want, framework_id=f.id, missing=w.missing, since_at=w.since_at)
        for f in state.connected_frameworks()
        for w in f.waiting.values()
    ]


def _filters(state: MasterState) -> list[Filter]:
    return [one for f in state.connected_frameworks() for found in f.filters.values() for one in found]


def _siblings(state: MasterState, waiting: list[WantView]) -> dict[tuple[FrameworkId, str], list[AgentId]]:
    found: dict[tuple[FrameworkId, str], list[AgentId]] = {}
    for one in waiting:
        name = one.want.group
        if not name or not _looks_at_siblings(one.want):
            continue
        group = state.frameworks[one.framework_id].groups.get(name)
        if group is not None:
            found[one.framework_id, name] = group.agents()
    return found


def _looks_at_siblings(want: Want) -> bool:
    return want.strategy in ("", "spread") or any(is_counting(c) for c in want.constraints)
