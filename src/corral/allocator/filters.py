"""Which refused resources hold an offer back. Source: Mesos v1, DECLINE filters (section 17.3 of its contract)."""

from collections.abc import Iterable, Mapping

from corral.allocator.view import Filter
from corral.model.ids import AgentId, FrameworkId
from corral.model.resources import Resource, Resources, contains, with_allocation


class FilterIndex:
    """The filters in force, by who refused what where."""

    __slots__ = ("_found",)

    def __init__(self, filters: Iterable[Filter], now: float) -> None:
        self._found: dict[tuple[FrameworkId, str], dict[AgentId, list[Resources]]] = {}
        for each in filters:
            if each.until_at > now:
                by_agent = self._found.setdefault((each.framework_id, each.role), {})
                by_agent.setdefault(each.agent_id, []).append(with_allocation(each.resources, None))

    def __bool__(self) -> bool:
        return bool(self._found)

    def refused(self, framework_id: FrameworkId, role: str) -> Mapping[AgentId, list[Resources]]:
        """Per agent the bundles that this framework refused for the role."""
        return self._found.get((framework_id, role), {})

    def block(self, framework_id: FrameworkId, role: str, agent_id: AgentId, resources: Resources) -> bool:
        """Whether an offer of these resources is held back: all of it lies within a refused bundle."""
        refused = self.refused(framework_id, role).get(agent_id)
        return refused is not None and any(contains(bundle, resources) for bundle in refused)


def refuses(refused: Iterable[Resources], scalars: tuple[Resource, ...]) -> bool:
    """Whether an instance of these scalars was refused. Its ports differ from offer to offer and do not count."""
    return any(contains(bundle, scalars) for bundle in refused)
