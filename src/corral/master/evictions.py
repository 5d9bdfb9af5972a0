"""Ends tasks that have to make room for others, or to leave their agent, each with its own grace.

Rule: a task is asked once; its room is kept by the allocator for whom it makes room until it has gone.
"""

from collections.abc import Sequence

from corral.allocator.view import Eviction
from corral.master import executors, tasks
from corral.master.agent_entry import AgentEntry
from corral.master.effects import SendOrder
from corral.master.state import MasterState
from corral.model.ids import TaskId
from corral.model.orders import KillTask
from corral.model.task import TERMINAL, Reason
from corral.runtime.core import Effect, Note


def evict(state: MasterState, found: Sequence[Eviction]) -> list[Effect]:
    """Order the end of these tasks and executors. A task that is being killed already, or that nobody owns, is on its
    way out.
    """
    effects: list[Effect] = []
    for one in found:
        agent = state.agents[one.agent_id]
        executor = state.executors.get(one.key)
        if executor is not None:
            executor.preempted_by = one
            effects += [_note(state, one, executor.info.executor_id), *executors.order_end(state, agent, executor)]
            continue
        task_id = TaskId(one.key.removeprefix(f"task/{one.framework_id}/"))
        entry = agent.tasks.get((one.framework_id, task_id))
        if entry is None or entry.orphan or entry.kill is not None:
            continue
        entry.preempted_by = one
        entry.kill = (None,)
        effects.append(_note(state, one, task_id))
        if agent.session is not None:
            effects.append(tasks.order_kill(state, agent, entry, one.why))
    return effects


def _note(state: MasterState, one: Eviction, task_id: str) -> Note:
    """Shapes: `task_id` of a task, or the id of an executor."""
    state.counts["evictions"] += 1
    facts = {
        "task": task_id, "agent": one.agent_id, "framework": one.framework_id, "role": one.role,
        "for_framework": one.for_framework_id, "for_role": one.for_role, "want": one.want_id,
    }  # fmt: skip
    return Note("task evicted", one.why, "info", facts)


DRAIN_WHY = "its agent is drained"


def empty(state: MasterState, agent: AgentEntry) -> list[Effect]:
    """Order the end of all that runs on an agent that is drained, within the grace of the drain.

    Shapes: [] without a link; then the orders are given when the agent is back.
    """
    drain = agent.drain
    if drain is None or agent.session is None:
        return []
    effects: list[Effect] = []
    for entry in agent.tasks.values():
        if entry.state in TERMINAL and not entry.orphan:
            continue
        grace_s = drain.max_grace_s
        if grace_s is not None:
            own_s = entry.info.kill_grace_s
            grace_s = min(grace_s, state.config.default_kill_grace_s if own_s is None else own_s)
        elif entry.kill is not None or entry.orphan:
            continue  # it is on its way out, at its own pace
        if entry.kill is None:
            entry.kill = (grace_s,)
        order = KillTask(
            state.epoch, entry.framework_id, entry.info.task_id, grace_s, DRAIN_WHY, Reason.AGENT_DRAINING
        )  # fmt: skip
        effects.append(SendOrder(agent.session, order))
    return effects
