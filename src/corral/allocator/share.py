"""Who is furthest below its fair share: dominant resource fairness over flat roles.

A share is the largest of allocated/total over the scalar resources, divided by the role's weight. Source: Mesos' DRF
sorter (section 17.2 of its contract); frameworks within a role are compared without weights.
"""

from collections.abc import Iterable, Mapping

from corral.allocator.view import View
from corral.model.ids import FrameworkId
from corral.model.resources import ResourceKind, Resources

Scalars = dict[str, int]


def sum_scalars(bundles: Iterable[Resources]) -> Scalars:
    """Thousandths per name over all identities."""
    found: Scalars = {}
    for bundle in bundles:
        for resource in bundle:
            if resource.kind is ResourceKind.SCALAR:
                found[resource.name] = found.get(resource.name, 0) + resource.milli
    return found


def dominant_share(allocated: Mapping[str, int], total: Mapping[str, int], weight: float = 1.0) -> float:
    """The largest part of any resource that is taken; a resource nobody has counts for nothing."""
    most = 0.0
    for name, milli in allocated.items():
        there = total.get(name, 0)
        if there > 0 and milli / there > most:
            most = milli / there
    return most / weight


class Shares:
    """Running shares of roles and of frameworks in them, as one allocation run charges them.

    Sums over the cluster are made only when a first comparison needs them: with one claimant there is none.
    """

    __slots__ = ("_by_framework", "_by_role", "_framework_counts", "_role_counts", "_total", "_view")

    def __init__(self, view: View) -> None:
        self._view = view
        self._total: Scalars | None = None
        self._by_role: dict[str, Scalars] = {}
        self._by_framework: dict[tuple[str, FrameworkId], Scalars] = {}
        self._role_counts: dict[str, int] = {}
        self._framework_counts: dict[tuple[str, FrameworkId], int] = {}

    @property
    def total(self) -> Scalars:
        """What the cluster has."""
        if self._total is None:
            self._total = sum_scalars(agent.total for agent in self._view.agents)
        return self._total

    def of_role(self, role: str) -> tuple[float, int]:
        """Sorts claimants: the share, then how often this run has given to the role."""
        allocated = self._role(role)
        return dominant_share(allocated, self.total, self._view.weights.get(role, 1.0)), self._role_counts.get(role, 0)

    def of_framework(self, role: str, framework_id: FrameworkId) -> tuple[float, int]:
        """Sorts claimants within a role: the unweighted share, then how often this run has given to the framework."""
        key = (role, framework_id)
        return dominant_share(self._framework(key), self.total), self._framework_counts.get(key, 0)

    def charge(self, role: str, framework_id: FrameworkId, scalars: Mapping[str, int]) -> None:
        key = (role, framework_id)
        for allocated in (self._role(role), self._framework(key)):
            for name, milli in scalars.items():
                allocated[name] = allocated.get(name, 0) + milli
        self._role_counts[role] = self._role_counts.get(role, 0) + 1
        self._framework_counts[key] = self._framework_counts.get(key, 0) + 1

    def _role(self, role: str) -> Scalars:
        found = self._by_role.get(role)
        if found is None:
            found = self._by_role[role] = sum_scalars((self._view.allocated.get(role, ()),))
        return found

    def _framework(self, key: tuple[str, FrameworkId]) -> Scalars:
        found = self._by_framework.get(key)
        if found is None:
            found = self._by_framework[key] = sum_scalars((self._view.allocated_by.get(key, ()),))
        return found
