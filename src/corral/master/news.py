"""Notes down what those who follow the cluster are to be told of; `watch.py` tells it when the input is decided.

Rule: nothing is noted while nobody follows, so a call costs nothing then. Source: Mesos v1 operator API, events.
"""

from corral.master.agent_entry import AgentEntry
from corral.master.entries import FrameworkEntry, TaskEntry
from corral.master.state import MasterState, News
from corral.model.task import TaskStatus

TASK_ADDED = "task added"
TASK_UPDATED = "task updated"
AGENT_ADDED = "agent added"
AGENT_REMOVED = "agent removed"
FRAMEWORK_ADDED = "framework added"
FRAMEWORK_UPDATED = "framework updated"
FRAMEWORK_REMOVED = "framework removed"


def add_task(state: MasterState, entry: TaskEntry) -> None:
    if state.watchers:
        state.news.append(News(TASK_ADDED, entry))


def update_task(state: MasterState, entry: TaskEntry, status: TaskStatus) -> None:
    if state.watchers:
        state.news.append(News(TASK_UPDATED, entry, status))


def tell_agent(state: MasterState, agent: AgentEntry, kind: str) -> None:
    if state.watchers:
        state.news.append(News(kind, agent))


def tell_framework(state: MasterState, framework: FrameworkEntry, kind: str) -> None:
    if state.watchers:
        state.news.append(News(kind, framework))
