"""Plain Mesos offers: each agent's whole free bundle to the first claimant in fair order that has not refused it.

Agents come in an order that changes with the seed; claimants by share at each level of roles, then the framework with
the smaller one. Source: Mesos' hierarchical allocator (section 17 of its contract).
"""

from bisect import bisect_left, insort
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from corral.allocator.book import CPUS, GPUS, MEM, PORTS, amounts_of
from corral.allocator.strategies import mix
from corral.allocator.view import AgentView, Eviction, FrameworkView
from corral.model.ids import AgentId, FrameworkId, OfferId, WantId
from corral.model.operations import unshared
from corral.model.resources import PLAIN, Resource, ResourceKind, Resources, add, subtract, total_milli

if TYPE_CHECKING:
    from corral.allocator.allocator import Allocator
    from corral.allocator.book import AgentEntry, HoldEntry

DISK = "disk"
LEAST_CPUS_MILLI = 10
LEAST_MEM_MILLI = 32_000


class Claim(NamedTuple):
    """An offer to make. Shapes: `amounts` is what the resources come to; `revocable` of what is lent, because it is
    reserved or kept for others, or held by tasks that do not use it, and may have to be given back at any time.
    """

    framework_id: FrameworkId
    role: str
    agent_id: AgentId
    resources: Resources
    amounts: Mapping[str, int]
    revocable: bool = False


def worth_offering(resources: Resources) -> bool:
    """Mesos' least allocatable bundle: 0.01 cpus or 32 MB."""
    cpus = mem = 0
    for r in resources:
        if r.milli < 0:
            continue  # more is given out than is there, of this kind alone
        if r.name == CPUS:
            cpus += r.milli
        elif r.name == MEM:
            mem += r.milli
    return cpus >= LEAST_CPUS_MILLI or mem >= LEAST_MEM_MILLI


def usable(resources: Resources, role: str, *, refined: bool = False, shared: bool = False) -> Resources:
    """What may be offered to a role: unreserved, or reserved for it or for a role above it; nothing revocable.

    Shapes: `refined` and `shared` let in refined reservations and shared volumes.
    """
    for r in resources:
        if r.identity is not PLAIN or r.milli < 0:
            break
    else:
        return resources
    return tuple(
        r
        for r in resources
        # An agent that has less than it gave out is short of some scalars.
        if r.milli >= 0
        and not r.identity.revocable
        and (refined or len(r.identity.reservations) <= 1)
        and (shared or not r.identity.shared)
        and (not r.identity.reservations or _within(role, r.identity.reservations[-1].role))
    )


def lendable(resources: Resources, role: str) -> Resources:
    """What may be lent to a role of what is reserved for others, and of what tasks hold and do not use.

    Shapes: cpus, memory and the like, nothing that keeps data.
    """
    return tuple(
        r
        for r in resources
        if r.milli > 0
        and r.kind is ResourceKind.SCALAR
        and r.name not in (DISK, GPUS)
        and r.identity.disk is None
        and (r.identity.revocable or (r.identity.reservations and not _within(role, r.identity.reservations[-1].role)))
    )


def sparable(resources: Resources) -> Resources:
    """What may be lent of what is kept for guarantees: of plain resources what keeps no data."""
    return tuple(
        r
        for r in resources
        if r.milli > 0 and r.kind is ResourceKind.SCALAR and r.name not in (DISK, GPUS) and r.identity == PLAIN
    )


def _within(role: str, owner: str) -> bool:
    return role == owner or role.startswith(owner + "/")


_Entry = tuple[bool, int, float, str, str, "_Branch"]
"""A claimant behind what it is ordered by; what comes before it is nobody else's."""


class _Branch:
    """A role with claims at or below it, or (`framework_id` set) a framework of a role.

    Shapes: `order` holds the entries of the branches below, sorted; `scale` is 1 over the weight; each offer counts as
    a task; `charged` are, of a claimant and those above it, the ones of which it matters what they hold, once it is
    known.
    """

    __slots__ = (
        "above", "charged", "entry", "framework_id", "guarantee", "held", "limit", "most_tasks", "name", "order",
        "priority", "scale", "tasks",
    )  # fmt: skip

    def __init__(self, name: str, above: "_Branch | None", framework_id: FrameworkId | None = None) -> None:
        self.name = name
        self.above = above
        self.framework_id = framework_id
        self.held: dict[str, int] = {}
        self.scale = 1.0
        self.priority = 0
        self.guarantee: dict[str, int] = {}
        self.limit: dict[str, int] = {}
        self.tasks = 0
        self.most_tasks: int | None = None
        self.order: list[_Entry] = []
        self.charged: tuple[_Branch, ...] | None = None
        self.entry: _Entry = (True, 0, 0.0, name, framework_id or "", self)

    def settle(self, inverse: dict[str, float]) -> None:
        """Work out the entry anew: below its guarantee first, then priority, then share."""
        share = 0.0
        for name, n in self.held.items():
            part = n * inverse[name]
            if part > share:
                share = part
        owed = bool(self.guarantee) and all(self.held.get(name, 0) < n for name, n in self.guarantee.items())
        self.entry = (not owed, -self.priority, share * self.scale, self.name, self.framework_id or "", self)

    @property
    def owed(self) -> bool:
        return not self.entry[0]

    @property
    def is_bound(self) -> bool:
        """Whether it matters what it holds, though it stands beside no other."""
        return bool(self.guarantee or self.limit) or self.most_tasks is not None


class _Order:
    """All claimants as a tree, kept in fair order while offers are made."""

    def __init__(self, allocator: "Allocator") -> None:
        engine = allocator.engine
        self._allocator = allocator
        self._inverse = {name: 1 / total if total and name != PORTS else 0.0 for name, total in engine.total.items()}
        self._roles: dict[str, _Branch] = {}
        self._owns: dict[str, _Branch] = {}
        self._root = _Branch("", None)
        self._spare = engine.spare
        self.keeps = any(role.guarantee for role in allocator.roles.values())
        self._limits = any(role.limit or role.max_tasks is not None for role in allocator.roles.values())
        # Whether what is kept may be lent to somebody.
        self.lends = self.keeps and any(each.revocable for each in allocator.frameworks.values())
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
                leaf = _Branch(role, above, framework.id)
                leaf.held = self._held.get((role, framework.id), {})
                leaf.settle(self._inverse)
                insort(above.order, leaf.entry)

    def _own(self, name: str) -> _Branch:
        """The branch of a role's own frameworks, which together take part among the roles below it."""
        found = self._owns.get(name)
        if found is None:
            above = self._role(name)
            found = self._owns[name] = _Branch(name, above)
            found.held = self._held_by_role.get(name, {})
            found.settle(self._inverse)
            insort(above.order, found.entry)
        return found

    def _role(self, name: str) -> _Branch:
        found = self._roles.get(name)
        if found is None:
            parent = name.rpartition("/")[0]
            above = self._role(parent) if parent else self._root
            found = self._roles[name] = _Branch(name, above)
            row = self._allocator.engine.find_role(name)
            if row is not None:
                found.held = self._allocator.engine.held(row)
                found.tasks = self._allocator.engine.tasks_held(row)
            settings = self._allocator.roles.get(name)
            if settings is not None:
                found.scale, found.priority = 1 / settings.weight, settings.priority
                found.most_tasks = settings.max_tasks
                found.guarantee, found.limit = amounts_of(settings.guarantee), amounts_of(settings.limit)
            found.settle(self._inverse)
            insort(above.order, found.entry)
        return found

    def first(self) -> _Branch | None:
        """Whoever is furthest below its share."""
        branch = self._root
        while branch.framework_id is None:
            if not branch.order:
                return None
            branch = branch.order[0][-1]
        return branch

    def __iter__(self) -> Iterator[_Branch]:
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

    def owes(self, leaf: _Branch) -> bool:
        """Whether a claimant asks for a role that is below its guarantee."""
        branch = leaf
        while branch.above is not None:
            if branch.owed:
                return True
            branch = branch.above
        return False

    def allowed(self, leaf: _Branch, bundle: Resources, *, lends: bool = False) -> Resources:
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

    def charge(self, leaf: _Branch, amounts: Mapping[str, int], *, lends: bool = False) -> None:
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
            branch.tasks += 1
            held = branch.held
            for name, n in amounts.items():
                held[name] = held.get(name, 0) + n
            branch.settle(self._inverse)
            del order[at]
            insort(order, branch.entry)


def _charged(leaf: _Branch) -> Iterator[_Branch]:
    """A claimant and those above it, without those of which it does not matter what they hold."""
    branch = leaf
    while branch.above is not None:
        if len(branch.above.order) > 1 or branch.is_bound:
            yield branch
        branch = branch.above


def chop(bundle: Resources, most: dict[str, int]) -> Resources:
    """A bundle with no more of each plain scalar than this; what is not positive is left out."""
    found = []
    for r in bundle:
        if r.name in most and r.kind is ResourceKind.SCALAR and r.identity == PLAIN:
            n = min(r.milli, most[r.name])
            if n > 0:
                found.append(Resource(name=r.name, milli=n))
        else:
            found.append(r)
    return tuple(found)


def _may_see(framework: FrameworkView, role: str, view: AgentView) -> bool:
    """Whether coarse offers of an agent are for a framework: it can use GPUs, knows regions, does not exclude it."""
    if (view.remote and not framework.regions) or (not framework.gpus and total_milli(view.total, GPUS) > 0):
        return False
    return (framework.id, role) not in view.barred


def offer_rest(allocator: "Allocator", kept: Collection[AgentId], seed: int) -> Iterator[Claim]:
    """What is free and worth an offer, to claimants in fair order; nothing of agents in `kept`."""
    agents = list(allocator.book.agents.values())
    if not agents:
        return
    order: _Order | None = None
    for at in _mixed(seed, len(agents)):
        agent = agents[at]
        view = agent.view
        if (view.ineligible and not view.still_offered) or view.id in kept:
            continue
        free = agent.free()
        if not worth_offering(free):
            continue
        if order is None:
            order = _Order(allocator)
        lends = has_lendable(free)
        left = free
        while (claim := _claim(allocator, order, agent, free)) is not None:
            yield claim
            if order.lends:
                left = subtract(left, unshared(claim.resources))
            if not lends:
                break
            # What is reserved for others, or for nobody for good, has not been offered to anybody yet.
            rest = subtract(free, unshared(claim.resources))
            free = tuple(r for r in rest if r.identity.reservations or r.identity.revocable)
            if not worth_offering(free):
                break
        if lends and (loan := _lend(allocator, order, agent, free, kept=False)) is not None:
            yield loan
        if order.lends and (loan := _lend(allocator, order, agent, left, kept=True)) is not None:
            yield loan


def _mixed(seed: int, count: int) -> list[int]:
    """The numbers below `count` as if by chance: sorted by what is mixed of each and the seed."""
    numbers = np.arange(count, dtype=np.uint64) + np.uint64(seed * count % (1 << 64))
    found: list[int] = np.argsort(mix(numbers), kind="stable").tolist()
    return found


def has_lendable(resources: Resources) -> bool:
    """Whether some of it is not for everybody: reserved, or revocable."""
    for r in resources:  # noqa: SIM110 - asked of every agent, this takes a third of the time
        if r.identity is not PLAIN and (r.identity.reservations or r.identity.revocable):
            return True
    return False


def _claim(allocator: "Allocator", order: _Order, agent: "AgentEntry", free: Resources) -> Claim | None:
    """The first in fair order who takes of what is free there, charged for it."""
    view = agent.view
    # Whether not every framework may be offered the agent, for which each has to be looked at.
    is_for_some = agent.has_gpus or view.remote or bool(view.barred)
    leaf = order.first()
    bundle = () if leaf is None else _part(allocator, order, leaf, agent, free, is_for_some)
    if not bundle:
        for leaf in order:
            bundle = _part(allocator, order, leaf, agent, free, is_for_some)
            if bundle:
                break
        else:
            return None
    assert leaf is not None, "somebody took it"
    assert leaf.framework_id is not None, "claims are of frameworks"
    amounts = agent.free_amounts() if bundle is agent.free() else amounts_of(bundle)
    order.charge(leaf, amounts)
    return Claim(leaf.framework_id, leaf.name, view.id, bundle, amounts)


def _part(
    allocator: "Allocator", order: _Order, leaf: _Branch, agent: "AgentEntry", free: Resources, is_for_some: bool
) -> Resources:  # fmt: skip
    """What a claimant would be offered of what is free on an agent, which is worth an offer; empty for nothing."""
    assert leaf.framework_id is not None, "claims are of frameworks"
    framework = allocator.frameworks[leaf.framework_id]
    if is_for_some and not _may_see(framework, leaf.name, agent.view):
        return ()
    bundle = usable(free, leaf.name, refined=framework.refined, shared=framework.shared)
    if order.is_bounded:
        bundle = order.allowed(leaf, bundle)
    # What is offered whole has been seen to be worth it.
    if bundle is not free and not worth_offering(bundle):
        return ()
    blocked = allocator.filters.block(leaf.framework_id, leaf.name, agent.view.id, bundle)
    return () if blocked else bundle


def _lend(
    allocator: "Allocator", order: _Order, agent: "AgentEntry", free: Resources, *, kept: bool
) -> Claim | None:  # fmt: skip
    """The first in fair order who takes what is lent, or `kept` for guarantees: none of those for whom it is has just
    taken it.
    """
    sparing = sparable(free) if kept else ()
    if kept and not worth_offering(sparing):
        return None
    for leaf in order:
        assert leaf.framework_id is not None, "claims are of frameworks"
        framework = allocator.frameworks[leaf.framework_id]
        if not framework.revocable or not _may_see(framework, leaf.name, agent.view):
            continue
        bundle = order.allowed(leaf, sparing if kept else lendable(free, leaf.name), lends=kept)
        if not worth_offering(bundle):
            continue
        if allocator.filters.block(leaf.framework_id, leaf.name, agent.view.id, bundle):
            continue
        amounts = amounts_of(bundle)
        order.charge(leaf, amounts, lends=kept)
        return Claim(leaf.framework_id, leaf.name, agent.view.id, bundle, amounts, revocable=True)
    return None


def reclaim(allocator: "Allocator", most: int) -> tuple[list[OfferId], list[Eviction], bool]:
    """What is lent of reservations whose role would take them now: offers to take back and tasks to end.

    Shapes: ends at most `most` tasks; the last is True when more would have to end. What is not revocable stays.
    """
    back: list[OfferId] = []
    ended: list[Eviction] = []
    order: _Order | None = None
    for entry in allocator.book.loans():
        hold, agent = entry.hold, entry.agent
        if hold.leaving or (agent.view.ineligible and not agent.view.still_offered):
            continue
        lent = {(r.name, r.identity) for r in hold.resources if r.identity.reservations}
        order = order or _Order(allocator)
        there = add(agent.free(), hold.resources)
        if not worth_offering(there):
            continue
        for leaf in order:
            bundle = _part(allocator, order, leaf, agent, there, True)
            if not any((r.name, r.identity) in lent for r in bundle):
                continue
            assert leaf.framework_id is not None, "claims are of frameworks"
            if hold.offer_id is not None:
                back.append(hold.offer_id)
                break
            if len(ended) >= most:
                return back, ended, True
            why = f"role {leaf.name} takes back what is reserved for it on agent {agent.view.id}"
            ended.append(_end(allocator, entry, leaf, why))
            break
    return back, ended, False


def reclaim_kept(
    allocator: "Allocator", kept: Collection[AgentId], most: int
) -> tuple[list[OfferId], list[Eviction], bool]:  # fmt: skip
    """What is lent of what is kept for guarantees, as far as a role is still below its own and would take it now.

    Shapes: asked once all that is free has been offered; answers as `reclaim` does; nothing of agents in `kept`. Offers
    come back before tasks end, and of these the youngest end first.
    """
    back: list[OfferId] = []
    ended: list[Eviction] = []
    borrowed = allocator.book.borrowed()
    if not borrowed:
        return back, ended, False
    allocator.book.flush()
    order = _Order(allocator)
    if not order.keeps:
        return back, ended, False
    # What is on its way back already counts before more is asked for.
    borrowed.sort(key=lambda each: (not each.hold.leaving, each.hold.offer_id is None, -each.hold.since_at))
    for entry in borrowed:
        hold, agent = entry.hold, entry.agent
        if (agent.view.ineligible and not agent.view.still_offered) or agent.view.id in kept:
            continue
        leaf = _taker(allocator, order, entry)
        if leaf is None:
            continue
        if hold.offer_id is not None:
            back.append(hold.offer_id)
        elif not hold.leaving:
            if len(ended) >= most:
                return back, ended, True
            why = f"role {leaf.name} takes back what its guarantee keeps on agent {agent.view.id}"
            ended.append(_end(allocator, entry, leaf, why))
        order.charge(leaf, amounts_of(hold.resources))
    return back, ended, False


def _taker(allocator: "Allocator", order: _Order, entry: "HoldEntry") -> _Branch | None:
    """The first claimant of a role below its guarantee who would take of what is lent there."""
    hold = entry.hold
    there = add(entry.agent.free(), hold.resources)
    if not worth_offering(there):
        return None
    names = {r.name for r in hold.resources if r.identity == PLAIN}
    for leaf in order:
        if (leaf.framework_id, leaf.name) == (hold.framework_id, hold.role) or not order.owes(leaf):
            continue
        bundle = _part(allocator, order, leaf, entry.agent, there, True)
        if any(r.name in names and r.identity == PLAIN for r in bundle):
            return leaf
    return None


def _end(allocator: "Allocator", entry: "HoldEntry", leaf: _Branch, why: str) -> Eviction:
    """Mark a task as on its way out, for a claimant."""
    assert leaf.framework_id is not None, "claims are of frameworks"
    hold = entry.hold
    allocator.book.mark(hold.key)
    return Eviction(
        key=hold.key, framework_id=hold.framework_id, role=hold.role, agent_id=hold.agent_id,
        want_id=WantId(""), for_framework_id=leaf.framework_id, for_role=leaf.name, why=why,
    )  # fmt: skip
