"""The cluster as Mesos' views show it: rows of agents and frameworks, and snapshots of one moment for the dialect.

Everything here is made in the turn that answers, so nobody sees what is not durable, and shares nothing with the state.
"""

from collections.abc import Iterable, Mapping

from corral.master import maintenance, operations, role_views, sums
from corral.master.agent_entry import AgentEntry, AgentState
from corral.master.entries import FrameworkEntry, TaskEntry
from corral.master.spec import GetCluster
from corral.master.state import MasterState
from corral.mesos.snapshot import AgentRow, ClusterSnapshot, ExecutorRow, FrameworkRow
from corral.model.ids import FrameworkId
from corral.model.ledger import Tally
from corral.model.maintenance import InverseOffer
from corral.model.task import Task

MOST_PREPARED = 150
"""Of how many agents one turn makes what views show."""


def prepare(state: MasterState, most: int = MOST_PREPARED) -> int:
    """Make what views of all agents need, of so many agents. Shapes: returns how many are left."""
    changed = [agent for agent in state.agents.values() if agent.shown is None]
    for agent in changed[:most]:
        agent_row(state, agent)
    return max(len(changed) - most, 0)


def cluster(state: MasterState, asked: GetCluster) -> ClusterSnapshot:
    """Everything of one moment that was asked for, for the dialect to write.

    Shapes: the very same object until something happens to the master.
    """
    found = state.shown.get(asked)
    if found is None:
        found = state.shown[asked] = _cluster(state, asked)
    return found


def _asked(state: MasterState) -> dict[FrameworkId, tuple[InverseOffer, ...]]:
    """The inverse offers that are out, by framework."""
    asked: dict[FrameworkId, tuple[InverseOffer, ...]] = {}
    for id, agent_id in state.inverse_offers.items():
        one = next(e.offer for e in state.agents[agent_id].inverse.values() if e.offer.id == id)
        asked[one.framework_id] = (*asked.get(one.framework_id, ()), one)
    return asked


def _cluster(state: MasterState, asked: GetCluster) -> ClusterSnapshot:
    rows: tuple[FrameworkRow, ...] = ()
    completed: tuple[FrameworkRow, ...] = ()
    if asked.frameworks:
        held, inverse = sums.by_framework(state), _asked(state)
        rows = tuple(_framework_row(f, held, inverse, asked.tasks) for f in state.frameworks.values())
        completed = tuple(_framework_row(f, held, inverse, asked.tasks) for f in state.completed.values())
    return ClusterSnapshot(
        master=state.master_info,
        start_at=state.loaded_at,
        elected_at=state.loaded_at,
        heartbeat_s=state.config.heartbeat_s,
        leader=state.master_info,
        agents=tuple([agent.shown or agent_row(state, agent) for agent in state.agents.values()])
        if asked.agents
        else (),
        frameworks=rows,
        completed_frameworks=completed,
        executors=tuple(
            ExecutorRow(info=e.info, framework_id=e.framework_id, agent_id=e.agent_id, role=e.role)
            for e in state.executors.values()
        ),
        operations=operations.rows(state) if asked.frameworks else (),
        roles=role_views.rows(state) if asked.roles else (),
        flags=_flags(state),
        windows=state.windows,
        machines=maintenance.shown_machines(state),
        down=tuple(state.down),
    )


def _flags(state: MasterState) -> tuple[tuple[str, str], ...]:
    config = state.config
    return (
        ("hostname", config.hostname),
        ("ip", config.ip),
        ("port", str(config.port)),
        ("agent_ping_timeout", f"{config.ping_s:g}secs"),
        ("agent_reregister_timeout", f"{config.reregister_timeout_s:g}secs"),
        ("max_completed_frameworks", str(config.most_completed_frameworks)),
        ("max_completed_tasks_per_framework", str(config.most_completed_tasks)),
    )


def agent_row(state: MasterState, agent: AgentEntry) -> AgentRow:
    """An agent as Mesos' views show it, made anew only when something about it has changed."""
    if agent.shown is None:
        agent.shown = _agent_row(agent)
        state.count(agent, agent.shown)
    return agent.shown


def _agent_row(agent: AgentEntry) -> AgentRow:
    reachable = agent.state is AgentState.REACHABLE
    return AgentRow(
        info=agent.info,
        active=reachable and not agent.deactivated,
        connected=reachable,
        deactivated=agent.deactivated,
        drain=agent.drain,
        recovered=agent.state is AgentState.RECOVERED,
        registered_at=agent.registered_at,
        reregistered_at=agent.reregistered_at,
        unreachable_at=agent.unreachable_at,
        used=sums.used(agent),
        offered=sums.offered(agent),
        orphans=tuple([entry.shown for entry in agent.tasks.values() if entry.orphan]),
    )


def framework_row(state: MasterState, framework: FrameworkEntry) -> FrameworkRow:
    """A framework as Mesos' views show it, without its tasks."""
    return _framework_row(framework, sums.by_framework(state), _asked(state), False)


def _framework_row(
    framework: FrameworkEntry, held: Mapping[FrameworkId, Tally], asked: Mapping[FrameworkId, tuple[InverseOffer, ...]],
    with_tasks: bool,
) -> FrameworkRow:  # fmt: skip
    offered = framework.offered.bundle()
    used = Tally()
    used.add(held[framework.id].bundle() if framework.id in held else ())
    used.take(offered)
    return FrameworkRow(
        info=framework.info,
        active=framework.connected,
        connected=framework.connected,
        recovered=framework.recovered,
        registered_at=framework.registered_at,
        reregistered_at=framework.reregistered_at,
        unregistered_at=framework.unregistered_at,
        tasks=framework.tasks.lend() if with_tasks else (),
        unreachable_tasks=_rows(framework.unreachable.values()) if with_tasks else (),
        completed_tasks=_rows(framework.completed) if with_tasks else (),
        offers=tuple([entry.offer for entry in framework.offers.values()]),
        used=used.bundle(),
        offered=offered,
        offer_constraints=framework.constraints,
        inverse_offers=asked.get(framework.id, ()),
    )


def _rows(entries: Iterable[TaskEntry]) -> tuple[Task, ...]:
    return tuple([entry.shown for entry in entries])
