"""Starts again, by itself, what ran when the node went down and what its framework wants to run for as long as it may.

Rules: a task is started again when its labels say so, when it ran in an earlier boot of the node, when nobody had asked
for its end, and when no bound says that it must not run without a master. It stays the same task, in a fresh container
and sandbox; its framework hears STARTING with the reason. Every other task of an earlier boot has ended: that is told,
once. No master is needed for any of this.
"""

import msgspec

from corral.agent import tasks, updates
from corral.agent.effects import Remove
from corral.agent.execution import sandbox_path
from corral.agent.spec import Sandbox, Stage
from corral.agent.state import AgentState, Task, task_path
from corral.lib.ids import mint_uuid
from corral.model.boot import starts_after_reboot
from corral.model.execution import Found
from corral.model.ids import AgentId, ContainerId
from corral.model.task import Reason, Source, TaskState
from corral.runtime.core import Effect, Note, Persist


def may_start_again(state: AgentState, task: Task, found: Found | None) -> bool:
    """Whether the task is to be started again. Shapes: `found` is what its runtime holds of it, None for nothing."""
    return (
        state.config.start_after_reboot
        and bool(task.boot)
        and task.boot != state.config.boot_id
        and task.stage in (Stage.STARTING, Stage.RUNNING)
        and task.ending is None
        and task.info.executor is None
        and (found is None or found.exit is not None)
        and starts_after_reboot(task.info)
    )


def start_again(state: AgentState, task: Task, now: float, found: Found | None) -> list[Effect]:
    """The same task once more, from the beginning."""
    how = tasks.describe_exit(found.exit) if found is not None and found.exit is not None else "nothing is left of it"
    why = f"the node was started again while the task ran ({how}), so its agent starts it again"
    effects: list[Effect] = [] if found is None else [Remove(task.runtime, task.container_id)]
    state.ended.append(Sandbox(task.sandbox, task.container_id, now))
    fresh = _renew(state, task)
    problem = tasks.find_problem(state, fresh, state.frameworks[fresh.framework_id])
    state.add(fresh)
    facts = {"task": fresh.info.task_id, "framework": fresh.framework_id, "container": fresh.container_id}
    effects += [Persist(task_path(fresh.key), fresh.record()), Note("task started again", why, facts=facts)]
    if problem is not None:
        to, reason, lack = problem
        told = f"the node was started again while the task ran ({how}); {lack}"
        return [*effects, *tasks.end(state, fresh, to, now, source=Source.AGENT, message=told, reason=reason)]
    effects += updates.enqueue(
        state, fresh, TaskState.STARTING, now, source=Source.AGENT, message=why, reason=Reason.AGENT_RESTARTED
    )
    return [*effects, *tasks.advance(state, fresh, now)]


def _renew(state: AgentState, task: Task) -> Task:
    """The task with a new container and sandbox, and with what is still to be told; taken out of the state."""
    agent_id = state.identity.agent_id or AgentId("")
    container_id = ContainerId(mint_uuid(state.random))
    sandbox = sandbox_path(state.config.work_dir, agent_id, task.framework_id, task.info.task_id, container_id)
    fresh = Task(msgspec.structs.replace(task.record(), container_id=container_id, sandbox=sandbox))
    fresh.pending, fresh.latest, fresh.statuses = task.pending, task.latest, task.statuses
    state.free_ports(task)
    state.deadlines.forget(task.container_id)
    del state.tasks[task.key]
    del state.by_container[task.container_id]
    return fresh
