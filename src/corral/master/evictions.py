"""Ends tasks that have to make room for others, each with its own grace.

Rule: a task is asked once; its room is kept by the allocator for whom it makes room until it has gone.
"""

from collections.abc import Sequence

from corral.allocator.view import Eviction
from corral.master import tasks
from corral.master.state import MasterState
from corral.model.ids import TaskId
from corral.runtime.core import Effect, Note


def evict(state: MasterState, found: Sequence[Eviction]) -> list[Effect]:
    """Order the end of these tasks. One that is being killed already, or that nobody owns, is on its way out."""
    effects: list[Effect] = []
    for one in found:
        agent = state.agents[one.agent_id]
        task_id = TaskId(one.key.removeprefix(f"task/{one.framework_id}/"))
        entry = agent.tasks.get((one.framework_id, task_id))
        if entry is None or entry.orphan or entry.kill is not None:
            continue
        entry.preempted_by = one
        entry.kill = (None,)
        state.counts["evictions"] += 1
        facts = {
            "task": task_id, "agent": one.agent_id, "framework": one.framework_id, "role": one.role,
            "for_framework": one.for_framework_id, "for_role": one.for_role, "want": one.want_id,
        }  # fmt: skip
        effects.append(Note("task evicted", one.why, "info", facts))
        if agent.session is not None:
            effects.append(tasks.order_kill(state, agent, entry, one.why))
    return effects
