"""Which refused resources hold an offer back. Source: Mesos v1, DECLINE filters (section 17.3 of its contract)."""

from collections.abc import Collection, Iterable, Iterator
from math import inf

from corral.allocator.view import Filter
from corral.model.ids import AgentId, FrameworkId
from corral.model.resources import PLAIN, Resources, contains, normal, with_allocation


class Filters:
    """The filters in force, by who refused what where."""

    def __init__(self) -> None:
        self._found: dict[tuple[FrameworkId, str], dict[AgentId, list[Filter]]] = {}
        # Nothing ends before.
        self._first_at = inf

    def __iter__(self) -> Iterator[Filter]:
        return (one for by_agent in self._found.values() for each in by_agent.values() for one in each)

    def replace(self, framework_id: FrameworkId, role: str, agent_id: AgentId, filters: Iterable[Filter]) -> bool:
        """Take what a framework refuses of an agent for a role; returns whether that is something else than before."""
        there = self._found.setdefault((framework_id, role), {})
        found = list(filters)
        self._first_at = min(self._first_at, *(each.until_at for each in found), inf)
        if there.get(agent_id, []) == found:
            return False
        if found:
            there[agent_id] = found
        else:
            del there[agent_id]
        if not there:
            del self._found[framework_id, role]
        return True

    def of(self, framework_id: FrameworkId, role: str, agent_id: AgentId) -> list[Filter]:
        """What a framework refuses of an agent for a role, what has ended lately included."""
        return self._found.get((framework_id, role), {}).get(agent_id, [])

    def agents(self, framework_id: FrameworkId, role: str) -> Collection[AgentId]:
        """The agents of which a framework refuses something for a role."""
        return self._found.get((framework_id, role), ())

    def forget(self, framework_id: FrameworkId) -> None:
        for key in [each for each in self._found if each[0] == framework_id]:
            del self._found[key]

    def end(self, now: float) -> set[tuple[FrameworkId, str]]:
        """Drop what is over; returns whose filters were."""
        if now < self._first_at:
            return set()
        ended = {(one.framework_id, one.role, one.agent_id) for one in self if one.until_at <= now}
        for framework_id, role, agent_id in ended:
            kept = [one for one in self.of(framework_id, role, agent_id) if one.until_at > now]
            self.replace(framework_id, role, agent_id, kept)
        self._first_at = min((one.until_at for one in self), default=inf)
        return {(framework_id, role) for framework_id, role, _ in ended}

    def refused_agents(self, framework_id: FrameworkId, role: str, resources: Resources) -> list[AgentId]:
        """The agents of which the framework refused an instance's scalars. Its ports differ and do not count."""
        by_agent = self._found.get((framework_id, role))
        if not by_agent:
            return []
        asked = normal(r for r in resources if r.identity == PLAIN)
        return [
            agent_id
            for agent_id, filters in by_agent.items()
            if any(contains(with_allocation(each.resources, None), asked) for each in filters)
        ]

    def block(self, framework_id: FrameworkId, role: str, agent_id: AgentId, resources: Resources) -> bool:
        """Whether an offer of these resources is held back: all of it lies within a refused bundle."""
        by_agent = self._found.get((framework_id, role))
        if not by_agent or agent_id not in by_agent:
            return False
        return any(contains(with_allocation(one.resources, None), resources) for one in by_agent[agent_id])
