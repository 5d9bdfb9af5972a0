"""What the master shows: the native API's JSON values, the snapshot behind Mesos' views, and its numbers.

Everything here is made in the turn that answers, so nobody sees what is not durable, and shares nothing with the state.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from corral.lib.units import write_instant
from corral.master import maintenance, operations, role_tree, role_views, sums, watchdog
from corral.master.agent_entry import AgentEntry, AgentState
from corral.master.entries import FrameworkEntry, TaskEntry
from corral.master.spec import GetCluster, GetExplanations, GetTasks
from corral.master.state import MasterState
from corral.master.trials import Trial, write_explanation
from corral.master.wants import MOST_EXPLAINED
from corral.mesos.snapshot import AgentRow, ClusterSnapshot, ExecutorRow, FrameworkRow
from corral.model.ids import FrameworkId, TaskId
from corral.model.ledger import Tally
from corral.model.maintenance import InverseOffer
from corral.model.offer import Explanation
from corral.model.resources import PLAIN, Resource, ResourceKind, Resources, add, coalesce, normal
from corral.model.task import TERMINAL, Task, TaskState

Json = dict[str, Any]
OF_FRAMEWORKS = "master/frameworks/"
"""What the names of numbers begin with that are of one framework."""

MOST_PREPARED = 150
"""Of how many agents one turn makes what views show."""


# The native API.


def nodes(state: MasterState) -> Json:
    """All agents. Shapes: resources are objects of numbers, ranges and sets are texts."""
    return {"nodes": [_node(state, agent) for agent in state.agents.values()]}


def _node(state: MasterState, agent: AgentEntry) -> Json:
    return {
        "id": agent.id,
        "hostname": agent.info.hostname,
        "state": agent.ineligible or str(agent.state),
        "why": _why(state, agent),
        "url": _url(agent, state.config.scheme),
        "resources": flat(agent.info.resources),
        "used": flat(_used(agent)),
        "offered": flat(_offered(agent)),
        "attributes": dict(agent.attributes),
        "domain": f"{agent.info.domain.region}/{agent.info.domain.zone}" if agent.info.domain is not None else None,
        "tasks": sum(1 for task in agent.tasks.values() if task.holding),
        "runtimes": list(agent.info.runtimes),
    }


def _why(state: MasterState, agent: AgentEntry) -> str:
    match agent.state:
        case AgentState.REACHABLE:
            return _closed_why(agent)
        case AgentState.DISCONNECTED:
            return f"its link broke; unreachable when not back within {state.config.agent_timeout_s:g} s"
        case AgentState.RECOVERED:
            return "not seen since this master started"
        case AgentState.UNREACHABLE:
            return "silent for too long; its tasks may run on"


def _closed_why(agent: AgentEntry) -> str:
    """What an operator has said about a reachable agent."""
    drain = agent.drain
    if drain is not None:
        then = "and will be marked gone then" if drain.mark_gone else "`corral undrain` opens it again after that"
        left = f"its {len(agent.tasks)} tasks are ended; " if agent.draining else "it is empty; "
        return left + then
    if agent.deactivated:
        return "an operator wants nothing new there"
    found = agent.unavailability
    if found is None:
        return ""
    return f"its maintenance {'has begun' if agent.in_window else f'begins at {write_instant(found.start_at)}'}"


def _url(agent: AgentEntry, scheme: str) -> str:
    """By address: the name is the operator's choice, and need not lead anywhere."""
    host = agent.info.ip
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{agent.info.port}"


def _used(agent: AgentEntry) -> Resources:
    held = [task.resources for task in agent.tasks.values() if task.holding]
    return _sum([*held, *(executor.resources for executor in agent.executors.values())])


def _offered(agent: AgentEntry) -> Resources:
    return _sum([entry.resources for entry in agent.offers.values()])


def _sum(bundles: list[Resources]) -> Resources:
    """The bundles as one. Shapes: plain scalars and ranges, nearly all there are, are summed up by name alone."""
    if len(bundles) <= 1:
        return bundles[0] if bundles else ()
    milli: dict[str, int] = {}
    ranges: dict[str, list[tuple[int, int]]] = {}
    for bundle in bundles:
        for r in bundle:
            if r.identity is not PLAIN or r.items:
                return add(*bundles)
            if r.ranges:
                ranges.setdefault(r.name, []).extend(r.ranges)
            else:
                milli[r.name] = milli.get(r.name, 0) + r.milli
    found = [Resource(name=name, milli=n) for name, n in milli.items() if n]
    found += [Resource(name=name, kind=ResourceKind.RANGES, ranges=coalesce(x)) for name, x in ranges.items()]
    return normal(found)


def flat(resources: Resources) -> Json:
    """A bundle as one JSON object: `{"cpus": 4.0, "ports": "[31000-31010]"}`."""
    found: Json = {}
    for r in resources:
        if r.kind is ResourceKind.SCALAR:
            found[r.name] = found.get(r.name, 0.0) + r.milli / 1000
        elif r.kind is ResourceKind.RANGES:
            found[r.name] = "[" + ", ".join(f"{low}-{high}" for low, high in r.ranges) + "]"
        else:
            found[r.name] = "{" + ", ".join(r.items) + "}"
    return found


def frameworks(state: MasterState, now: float) -> Json:
    """All frameworks, the removed ones that are still remembered among them.

    Units: `seconds_since_offer` as `watchdog.waited_s`.
    """
    every = [*state.frameworks.values(), *state.completed.values()]
    return {
        "frameworks": [
            {**_framework(f, removed=f.id in state.completed), "seconds_since_offer": watchdog.waited_s(state, f, now)}
            for f in every
        ]
    }


def _framework(framework: FrameworkEntry, *, removed: bool) -> Json:
    info = framework.info
    counts = Counter(str(task.state) for task in framework.tasks.values())
    return {
        "id": framework.id,
        "name": info.name,
        "user": info.user,
        "roles": list(info.subscribed_roles),
        "principal": framework.principal,
        "state": _standing(framework, removed),
        "failover_timeout_s": info.failover_timeout_s,
        "capabilities": [str(c) for c in info.capabilities],
        "webui_url": info.webui_url,
        "registered_at": framework.registered_at,
        "reregistered_at": framework.reregistered_at,
        "unregistered_at": framework.unregistered_at,
        "suppressed_roles": sorted(framework.suppressed),
        "tasks": dict(counts),
        "offers": len(framework.offers),
        "wants": [
            {"id": w.want.id, "role": w.want.role, "remaining": w.remaining, "offered": w.offered}
            for w in framework.wants.values()
        ],
    }


def _standing(framework: FrameworkEntry, removed: bool) -> str:
    if removed:
        return "removed"
    if framework.connected:
        return "connected"
    return "recovered" if framework.recovered else "disconnected"


def tasks(state: MasterState, asked: GetTasks) -> Json:
    """Tasks that run, are unreachable or ended lately, newest knowledge of each."""
    found: list[TaskEntry] = []
    for framework in [*state.frameworks.values(), *state.completed.values()]:
        if asked.framework in ("", framework.id, framework.info.name):
            found += _choose(framework, asked)
    return {"tasks": [_task(state, entry) for entry in found]}


def _choose(framework: FrameworkEntry, asked: GetTasks) -> Iterable[TaskEntry]:
    if asked.task:
        id = TaskId(asked.task)
        live = framework.tasks.get(id) or framework.unreachable.get(id)
        every = [e for e in framework.completed if e.info.task_id == id] + ([live] if live else [])
    else:
        every = [*framework.tasks.values(), *framework.unreachable.values(), *framework.completed]
    return [e for e in every if asked.agent in ("", e.agent_id) and asked.group in ("", e.group)]


def _task(state: MasterState, entry: TaskEntry) -> Json:
    agent = state.agents.get(entry.agent_id)
    last = entry.last_status
    return {
        "id": entry.info.task_id,
        "name": entry.info.name,
        "group": entry.group,
        "framework": entry.framework_id,
        "role": entry.role,
        "agent": entry.agent_id,
        "hostname": agent.info.hostname if agent is not None else None,
        "agent_url": _url(agent, state.config.scheme) if agent is not None else None,
        "state": str(entry.state),
        "message": last.message if last is not None else None,
        "reason": str(last.reason) if last is not None and last.reason is not None else None,
        "healthy": last.healthy if last is not None else None,
        "at": last.at if last is not None else entry.at,
        "resources": flat(entry.resources),
        "preempted_by": _preempted_by(entry),
    }


def _preempted_by(entry: TaskEntry) -> Json | None:
    """For whom the task has to make room, or had to."""
    found = entry.preempted_by
    if found is None:
        return None
    return {"framework": found.for_framework_id, "role": found.for_role, "want": found.want_id, "why": found.why}


def explanations(state: MasterState, asked: GetExplanations) -> Json:
    """Why wants wait that the last whole allocation left waiting.

    Shapes: what is shown first is looked at now, what comes after MOST_EXPLAINED of them as it was in its last round.
    """
    found: list[Json] = []
    left = MOST_EXPLAINED
    for framework_id, want_id in state.waiting:
        framework = state.frameworks.get(framework_id)
        want = framework.waiting.get(want_id) if framework is not None else None
        if framework is None or want is None:
            continue
        if asked.want not in ("", want_id) or asked.group not in ("", want.want.group):
            continue
        one = framework.explanations.get(want_id)
        if left > 0:
            left -= 1
            one = state.allocator.explain(framework_id, want_id)
        if one is not None:
            found.append(_explanation(framework, one))
    return {"explanations": found}


def _group(framework: FrameworkEntry, one: Explanation) -> str:
    want = framework.wants.get(one.want_id)
    return want.want.group if want is not None else ""


def _explanation(framework: FrameworkEntry, one: Explanation) -> Json:
    return {**write_explanation(one), "group": _group(framework, one), "framework": framework.info.name}


def trial(state: MasterState, now: float) -> Trial:
    """The live state, for a what-if question that is worked out beside the loop."""
    names = {each.id: each.info.name for each in state.frameworks.values()}
    return Trial(view=state.allocator.view(state.allocation_runs), names=names, now=now)


# Mesos' views.


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
        used=_used(agent),
        offered=_offered(agent),
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


# Numbers.


_MESSAGES = {
    "Subscribe": "register_framework",
    "Resubscribe": "reregister_framework",
    "Teardown": "unregister_framework",
    "UpdateFramework": "update_framework",
    "Accept": "launch_tasks",
    "Decline": "decline_offers",
    "Revive": "revive_offers",
    "Suppress": "suppress_offers",
    "Kill": "kill_task",
    "Acknowledge": "status_update_acknowledgement",
    "Reconcile": "reconcile_tasks",
    "Request": "resource_request",
    "Message": "framework_to_executor",
    "registrations": "register_slave",
    "leaves": "unregister_slave",
    "updates": "status_update",
}
"""What is counted, and as what Mesos counts it."""


def metrics(state: MasterState, now: float) -> Mapping[str, float]:
    """The numbers of `/metrics/snapshot`, under Mesos' names."""
    agents = Counter(agent.state for agent in state.agents.values())
    connected = sum(1 for _ in state.connected_frameworks())
    reachable, away = agents[AgentState.REACHABLE], agents[AgentState.DISCONNECTED]
    closed = sum(1 for a in state.agents.values() if a.state is AgentState.REACHABLE and a.deactivated)
    found: dict[str, float] = {
        "master/elected": 1.0,
        "master/epoch": float(state.epoch),
        "master/uptime_secs": now - state.loaded_at,
        "master/slaves_active": reachable - closed,
        "master/slaves_connected": reachable,
        "master/slaves_disconnected": away,
        "master/slaves_inactive": away + closed,
        "master/slaves_draining": len(state.draining),
        "master/slaves_unreachable": agents[AgentState.UNREACHABLE],
        "master/recovered_slaves": agents[AgentState.RECOVERED],
        "master/slave_registrations": state.counts["registrations"] - state.counts["reregistrations"],
        "master/slave_reregistrations": state.counts["reregistrations"],
        "master/slave_removals": state.counts["removals"],
        "master/slave_removals/reason_unregistered": state.counts["leaves"],
        "master/slave_unreachable_scheduled": state.counts["timeouts"],
        "master/frameworks_active": connected,
        "master/frameworks_connected": connected,
        "master/frameworks_disconnected": len(state.frameworks) - connected,
        "master/frameworks_inactive": len(state.frameworks) - connected,
        "master/outstanding_offers": len(state.offers),
        "master/valid_status_updates": state.counts["updates"] - state.counts["strange updates"],
        "master/invalid_status_updates": state.counts["strange updates"],
        "master/frameworks_starving": sum(1 for _ in watchdog.starving(state, now)),
        "master/calls_throttled": state.counts["throttled"],
        "master/calls_dropped": state.counts["dropped_calls"],
        "master/slaves_awaiting_removal": sum(1 for a in state.agents.values() if a.awaits_removal),
        "master/tasks_unreachable": sum(len(f.unreachable) for f in state.frameworks.values()),
        "master/tasks_evicted": state.counts["evictions"],
        "master/waiting_instances": sum(w.missing for f in state.frameworks.values() for w in f.waiting.values()),
        "allocator/mesos/allocation_runs": state.allocation_runs,
    }
    found.update(state.allocation_ms.read("allocator/mesos/allocation_run_ms"))
    found.update({f"master/messages_{name}": state.counts[kind] for kind, name in _MESSAGES.items()})
    for task_state in TaskState:
        if task_state in (TaskState.UNKNOWN, TaskState.UNREACHABLE):
            continue
        count = state.ended[task_state] if task_state in TERMINAL else state.live[task_state]
        found[f"master/{str(task_state).lower().replace('task_', 'tasks_', 1)}"] = count
    for framework in state.connected_frameworks():
        found[f"{OF_FRAMEWORKS}{framework.id}/seconds_since_offer"] = watchdog.waited_s(state, framework, now)
    found.update(_resource_metrics(state))
    found.update(role_metrics(state))
    return {name: float(value) for name, value in found.items()}


def role_metrics(state: MasterState) -> dict[str, float]:
    """The shares and quotas of roles, under Mesos' names: one number for each role and resource."""
    held = role_tree.held(state)
    kept = role_tree.kept(state)
    whole: role_tree.Amounts = Counter({name: n for (kind, name), n in state.sums.items() if kind == "total"})
    found: dict[str, float] = {}
    for role in role_tree.known(state):
        used = held.get(role, Counter()) - kept.get(role, Counter())
        found[f"allocator/mesos/roles/{role}/shares/dominant"] = role_tree.dominant(used, whole)
        settings = state.roles.get(role)
        for kind, promised in (("guarantee", settings.guarantee), ("limit", settings.limit)) if settings else ():
            for name, n in role_tree.amounts(promised).items():
                found[f"allocator/mesos/quota/roles/{role}/resources/{name}/{kind}"] = n / 1000
                found[f"allocator/mesos/quota/roles/{role}/resources/{name}/offered_or_allocated"] = used[name] / 1000
    return found


def _resource_metrics(state: MasterState) -> dict[str, float]:
    for agent in state.agents.values():
        if agent.shown is None:
            agent_row(state, agent)
    found: dict[str, float] = {}
    for name in ("cpus", "disk", "gpus", "mem"):
        for lent in ("", "_revocable"):
            total, used = state.sums["total", name + lent], state.sums["used", name + lent]
            found[f"master/{name}{lent}_total"] = total / 1000
            found[f"master/{name}{lent}_used"] = used / 1000
            found[f"master/{name}{lent}_percent"] = used / total if total else 0.0
    return found
