"""Which configs and secrets a task names, told to the session of the agent that was ordered to run it."""

from corral.lib.errors import Forbidden
from corral.master.spec import GetSources
from corral.master.state import MasterState
from corral.model.ids import FrameworkId, TaskId
from corral.model.task import sources_of


def sources(state: MasterState, command: GetSources) -> tuple[str, ...]:
    """Errors: `Forbidden` when this session's agent has no such task."""
    session = state.sessions.get(command.session)
    agent = state.agents.get(session.agent_id) if session is not None and session.agent_id is not None else None
    key = (FrameworkId(command.framework_id), TaskId(command.task_id))
    task = agent.tasks.get(key) if agent is not None else None
    if task is None:
        raise Forbidden(
            f"task {command.task_id} of framework {command.framework_id} is not one that this agent was ordered to run"
        )
    return sources_of(task.info)
