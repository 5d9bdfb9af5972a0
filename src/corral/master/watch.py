"""Lets operators follow the cluster: what it is now, then every change as it happens.

Rule: the snapshot that opens a stream and the events after it belong together; none is missed and none told twice.
Source: Mesos v1 operator API, SUBSCRIBE.
"""

from corral.master import cluster_view, news, timers
from corral.master.agent_entry import AgentEntry
from corral.master.effects import TellWatchers
from corral.master.entries import FrameworkEntry, TaskEntry
from corral.master.spec import GetCluster, WatchCluster
from corral.master.state import MasterState, News
from corral.mesos import watch
from corral.mesos.snapshot import ClusterSnapshot
from corral.runtime.core import Effect, SetTimer


def open_watch(state: MasterState, command: WatchCluster) -> tuple[ClusterSnapshot, list[Effect]]:
    """Whoever watches is told all that happens from this input on."""
    is_first = not state.watchers
    state.watchers[command.stream] = None
    found = cluster_view.cluster(state, GetCluster())
    return found, [SetTimer(timers.WATCH, state.config.heartbeat_s)] if is_first else []


def close_watch(state: MasterState, stream: str) -> list[Effect]:
    state.watchers.pop(stream, None)
    return []


def beat(state: MasterState) -> list[Effect]:
    """The next heartbeat of all streams; none when nobody follows."""
    if not state.watchers:
        return []
    return [TellWatchers(watch.Beat()), SetTimer(timers.WATCH, state.config.heartbeat_s)]


def tell_news(state: MasterState) -> list[Effect]:
    """What was noted down of this input."""
    found, state.news = state.news, []
    return [TellWatchers(_event(state, one)) for one in found]


def _event(state: MasterState, one: News) -> watch.ClusterEvent:
    match one:
        case News(news.TASK_ADDED, TaskEntry() as entry):
            return watch.TaskAdded(entry.shown)
        case News(news.TASK_UPDATED, TaskEntry() as entry, status) if status is not None:
            return watch.TaskUpdated(entry.framework_id, status, entry.state)
        case News(news.AGENT_ADDED, AgentEntry() as agent):
            return watch.AgentAdded(cluster_view.agent_row(state, agent))
        case News(news.AGENT_REMOVED, AgentEntry() as agent):
            return watch.AgentRemoved(agent.id)
        case News(news.FRAMEWORK_ADDED, FrameworkEntry() as framework):
            return watch.FrameworkAdded(cluster_view.framework_row(state, framework))
        case News(news.FRAMEWORK_UPDATED, FrameworkEntry() as framework):
            return watch.FrameworkUpdated(cluster_view.framework_row(state, framework))
        case News(news.FRAMEWORK_REMOVED, FrameworkEntry() as framework):
            return watch.FrameworkRemoved(framework.info)
        case _:
            raise AssertionError(f"no event is called {one.kind}")
