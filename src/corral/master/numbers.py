"""The master's numbers, under Mesos' names: what `/metrics/snapshot` shows and the Prometheus text is made of."""

from collections import Counter
from collections.abc import Mapping

from corral.master import cluster_view, role_tree, watchdog
from corral.master.agent_entry import AgentState
from corral.master.state import MasterState
from corral.model.task import TERMINAL, TaskState

OF_FRAMEWORKS = "master/frameworks/"
"""What the names of numbers begin with that are of one framework."""

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
            cluster_view.agent_row(state, agent)
    found: dict[str, float] = {}
    for name in ("cpus", "disk", "gpus", "mem"):
        for lent in ("", "_revocable"):
            total, used = state.sums["total", name + lent], state.sums["used", name + lent]
            found[f"master/{name}{lent}_total"] = total / 1000
            found[f"master/{name}{lent}_used"] = used / 1000
            found[f"master/{name}{lent}_percent"] = used / total if total else 0.0
    return found
