"""All claimants of coarse offers in fair order: by share at each level of roles, then the smaller framework.

Source: Mesos' hierarchical allocator (section 17 of its contract).
"""

from bisect import bisect_left, insort
from collections.abc import Container, Iterator, Mapping
from typing import TYPE_CHECKING

from corral.allocator.bundles import PORTS, amounts_of, chop, has_picky
from corral.model.ids import AgentId, FrameworkId
from corral.model.resources import Resources

if TYPE_CHECKING:
    from corral.allocator.allocator import Allocator

Entry = tuple[bool, int, float, str, str, "Branch"]
"""A claimant behind what it is ordered by; what comes before it is nobody else's."""


class Branch:
    """A role with claims at or below it, or (`framework_id` set) a framework of a role.

    Shapes: `order` holds the entries of the branches below, sorted; `scale` is 1 over the weight, `share` the dominant
    one without it; each offer counts as a task; `lent` is what of `held` may have to be given back, known where there
    is a guarantee; `charged` are, of a claimant and those above it, the ones of which it matters what they hold, and
    `row` is the claimant's row in the engine, both once they are known. `refused` are the agents of which a claimant
    refuses something.
    """

    __slots__ = (
        "above", "charged", "entry", "framework_id", "guarantee", "held", "lent", "limit", "most_tasks", "name",
        "only_reserved", "order", "priority", "refused", "row", "scale", "share", "tasks",
    )  # fmt: skip

    def __init__(self, name: str, above: "Branch | None", framework_id: FrameworkId | None = None) -> None:
        self.name = name
        self.above = above
        self.framework_id = framework_id
        self.held: dict[str, int] = {}
        self.lent: dict[str, int] = {}
        self.scale = 1.0
        self.share = 0.0
        self.row = -1
        self.refused: Container[AgentId] = ()
        self.only_reserved = False
        self.priority = 0
        self.guarantee: dict[str, int] = {}
        self.limit: dict[str, int] = {}
        self.tasks = 0
        self.most_tasks: int | None = None
        self.order: list[Entry] = []
        self.charged: tuple[Branch, ...] | None = None
        self.entry: Entry = (True, 0, 0.0, name, framework_id or "", self)

    def settle(self, inverse: dict[str, float]) -> None:
        """Work out the entry anew: below its guarantee first, then priority, then share."""
        share = 0.0
        for name, n in self.held.items():
            part = n * inverse[name]
            if part > share:
                share = part
        self.share = share
        self.stand()

    def grow(self, amounts: Mapping[str, int], inverse: dict[str, float], *, lends: bool) -> None:
        """Hold so much more, and one task: only what it takes can have become the dominant share."""
        self.tasks += 1
        held, share = self.held, self.share
        for name, n in amounts.items():
            now = held[name] = held.get(name, 0) + n
            if lends:
                self.lent[name] = self.lent.get(name, 0) + n
            part = now * inverse[name]
            if part > share:
                share = part
        self.share = share
        self.stand()

    def stand(self) -> None:
        """The entry for what it holds now."""
        guarantee, held, lent = self.guarantee, self.held, self.lent
        owed = bool(guarantee) and all(held.get(name, 0) - lent.get(name, 0) < n for name, n in guarantee.items())
        self.entry = (not owed, -self.priority, self.share * self.scale, self.name, self.framework_id or "", self)

    @property
    def owed(self) -> bool:
        return not self.entry[0]

    @property
    def is_bound(self) -> bool:
        """Whether it matters what it holds, though it stands beside no other."""
        return bool(self.guarantee or self.limit) or self.most_tasks is not None


class Order:
    """All claimants as a tree, kept in fair order while offers are made."""

    def __init__(self, allocator: "Allocator") -> None:
        engine = allocator.engine
        self._allocator = allocator
        self._inverse = {name: 1 / total if total and name != PORTS else 0.0 for name, total in engine.total.items()}
        self._roles: dict[str, Branch] = {}
        self._owns: dict[str, Branch] = {}
        self._root = Branch("", None)
        self._spare = engine.spare
        self.keeps = any(role.guarantee for role in allocator.roles.values())
        self._limits = any(role.limit or role.max_tasks is not None for role in allocator.roles.values())
        # Whether what is kept may be lent to somebody.
        self.lends = self.keeps and any(each.revocable for each in allocator.frameworks.values())
        self.is_picky = has_picky(allocator.frameworks.values())
        self.is_bounded = self.keeps or self._limits
        self._held = allocator.claimants.sums()
        self._held_by_role: dict[str, dict[str, int]] = {}
        for (role, _), held in self._held.items():
            there = self._held_by_role.setdefault(role, {})
            for name, n in held.items():
                there[name] = there.get(name, 0) + n
        headroom = allocator.settings.headroom
        self._reserve = None if headroom is None else amounts_of(headroom)
        for framework in allocator.frameworks.values():
            for role in framework.coarse_roles:
                above = self._own(role)
                leaf = Branch(role, above, framework.id)
                leaf.held = self._held.get((role, framework.id), {})
                leaf.only_reserved = framework.only_reserved
                leaf.refused = allocator.filters.agents(framework.id, role)
                leaf.settle(self._inverse)
                insort(above.order, leaf.entry)

    def _own(self, name: str) -> Branch:
        """The branch of a role's own frameworks, which together take part among the roles below it."""
        found = self._owns.get(name)
        if found is None:
            above = self._role(name)
            found = self._owns[name] = Branch(name, above)
            found.held = self._held_by_role.get(name, {})
            found.settle(self._inverse)
            insort(above.order, found.entry)
        return found

    def _role(self, name: str) -> Branch:
        found = self._roles.get(name)
        if found is None:
            parent = name.rpartition("/")[0]
            above = self._role(parent) if parent else self._root
            found = self._roles[name] = Branch(name, above)
            row = self._allocator.engine.find_role(name)
            if row is not None:
                found.held = self._allocator.engine.held(row)
                found.tasks = self._allocator.engine.tasks_held(row)
            settings = self._allocator.roles.get(name)
            if settings is not None:
                found.scale, found.priority = 1 / settings.weight, settings.priority
                found.most_tasks = settings.max_tasks
                found.guarantee, found.limit = amounts_of(settings.guarantee), amounts_of(settings.limit)
                if found.guarantee and row is not None:
                    found.lent = self._allocator.engine.lent(row)
            found.settle(self._inverse)
            insort(above.order, found.entry)
        return found

    def first(self) -> Branch | None:
        """Whoever is furthest below its share."""
        branch = self._root
        while branch.framework_id is None:
            if not branch.order:
                return None
            branch = branch.order[0][-1]
        return branch

    def first_of_plain(self) -> Branch | None:
        """The same of those who take what is not reserved."""
        leaf = self.first()
        if leaf is None or not leaf.only_reserved:
            return leaf
        return next((each for each in self if not each.only_reserved), None)

    def __iter__(self) -> Iterator[Branch]:
        """Claimants, whoever is furthest below its share first."""
        waiting = [iter(self._root.order)]
        while waiting:
            entry = next(waiting[-1], None)
            if entry is None:
                waiting.pop()
                continue
            branch = entry[-1]
            while branch.framework_id is None and len(branch.order) == 1:
                branch = branch.order[0][-1]
            if branch.framework_id is not None:
                yield branch
            else:
                waiting.append(iter(branch.order))

    def is_refused(self, leaf: Branch, agent_id: AgentId, resources: Resources) -> bool:
        """Whether a claimant has refused all of these resources there."""
        if agent_id not in leaf.refused:
            return False
        assert leaf.framework_id is not None, "claimants are frameworks"
        return self._allocator.filters.block(leaf.framework_id, leaf.name, agent_id, resources)

    def owes(self, leaf: Branch) -> bool:
        """Whether a claimant asks for a role that is below its guarantee."""
        branch = leaf
        while branch.above is not None:
            if branch.owed:
                return True
            branch = branch.above
        return False

    def allowed(self, leaf: Branch, bundle: Resources, *, lends: bool = False) -> Resources:
        """As much of a bundle as limits and, unless it is lent, the headroom for guarantees let a claimant have."""
        if not self.is_bounded:
            return bundle
        most: dict[str, int] = {}
        branch, owed = leaf, False
        while branch.above is not None:
            owed = owed or branch.owed
            if branch.most_tasks is not None and branch.tasks >= branch.most_tasks:
                return ()
            for name, n in branch.limit.items():
                most[name] = min(most.get(name, n), n - branch.held.get(name, 0))
            branch = branch.above
        if self.keeps and not owed and not lends:
            for name, n in self._allocator.engine.unmet().items():
                kept = n if self._reserve is None else min(n, self._reserve.get(name, 0))
                most[name] = min(most.get(name, self._spare[name]), self._spare[name] - kept)
        return chop(bundle, most) if most else bundle

    def charge(self, leaf: Branch, amounts: Mapping[str, int], *, lends: bool = False) -> None:
        """Count what a claimant was given, and put it where it belongs now. What is lent is spare as before."""
        if self.keeps and not lends:
            for name, n in amounts.items():
                self._spare[name] = self._spare.get(name, 0) - n
        charged = leaf.charged
        if charged is None:
            charged = leaf.charged = tuple(_charged(leaf))
        for branch in charged:
            assert branch.above is not None, "the root holds nothing"
            order = branch.above.order
            entry = branch.entry
            at = 0 if order[0] is entry else bisect_left(order, entry)
            branch.grow(amounts, self._inverse, lends=lends)
            del order[at]
            insort(order, branch.entry)


def _charged(leaf: Branch) -> Iterator[Branch]:
    """A claimant and those above it, without those of which it does not matter what they hold."""
    branch = leaf
    while branch.above is not None:
        if len(branch.above.order) > 1 or branch.is_bound:
            yield branch
        branch = branch.above
