"""What the native API shows of the master's agents, frameworks and tasks, and of what waits: JSON values.

Everything here is made in the turn that answers, so nobody sees what is not durable, and shares nothing with the state.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from corral.lib.units import write_instant
from corral.master import sums, watchdog
from corral.master.agent_entry import AgentEntry, AgentState
from corral.master.entries import FrameworkEntry, TaskEntry
from corral.master.spec import GetExplanations, GetTasks
from corral.master.state import MasterState
from corral.master.trials import Trial, write_explanation
from corral.master.wants import MOST_EXPLAINED
from corral.model.ids import TaskId
from corral.model.offer import Explanation
from corral.model.resources import ResourceKind, Resources

Json = dict[str, Any]


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
        "used": flat(sums.used(agent)),
        "offered": flat(sums.offered(agent)),
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
