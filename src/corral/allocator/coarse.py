"""Plain Mesos offers: each agent's whole free bundle to the first claimant in fair order that has not refused it.

Agents come in an order that changes with the seed. Of one in its maintenance window what is not reserved is lent only.
Source: Mesos' hierarchical allocator (section 17 of its contract).
"""

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from corral.allocator.bundles import (
    amounts_of,
    has_lendable,
    has_picky,
    lendable,
    may_see,
    sparable,
    suits,
    usable,
    worth_offering,
)
from corral.allocator.order import Branch, Order
from corral.allocator.strategies import mix
from corral.model.ids import AgentId
from corral.model.operations import unshared
from corral.model.resources import Resources, subtract

if TYPE_CHECKING:
    from corral.allocator.allocator import Allocator
    from corral.allocator.entries import AgentEntry


class Claim(NamedTuple):
    """An offer to make. Shapes: `amounts` is what the resources come to; `revocable` of what is lent, because it is
    reserved or kept for others, or held by tasks that do not use it, and may have to be given back at any time.
    """

    leaf: Branch
    agent: "AgentEntry"
    resources: Resources
    amounts: Mapping[str, int]
    revocable: bool = False


def offer_rest(allocator: "Allocator", kept: Collection[AgentId], seed: int) -> Iterator[Claim]:
    """What is free and worth an offer, to claimants in fair order; nothing of agents in `kept`."""
    claimants = [each for each in allocator.frameworks.values() if each.coarse_roles]
    if not claimants:
        return
    is_for_plain = not all(each.only_reserved for each in claimants)
    agents = list((allocator.book.agents if is_for_plain else allocator.book.reserving).values())
    if not agents:
        return
    order: Order | None = None
    is_picky = has_picky(allocator.frameworks.values())
    for at in _mixed(seed, len(agents)):
        agent = agents[at]
        view = agent.view
        if (view.ineligible and not view.still_offered) or view.id in kept:
            continue
        rest = agent.rest()
        if not (rest.is_worth_offering or is_picky):
            continue
        free = rest.free
        if order is None:
            order = Order(allocator)
        if rest.is_for_all and not (
            is_picky or order.is_bounded or view.ineligible or agent.has_gpus or view.remote or view.barred
        ):
            # Nearly always: whoever is first takes all, unless it has refused that.
            leaf = order.first_of_plain()
            if leaf is not None and not order.is_refused(leaf, view.id, free):
                order.charge(leaf, rest.amounts)
                yield Claim(leaf, agent, free, rest.amounts)
                continue
        lends = has_lendable(free)
        left = free
        lends_plain = order.lends or bool(view.ineligible)
        if view.ineligible:
            free = _particular(free)
            if not (is_picky or worth_offering(free)):
                free = ()
        while free and (claim := _claim(allocator, order, agent, free)) is not None:
            yield claim
            if lends_plain:
                left = subtract(left, unshared(claim.resources))
            if not lends:
                break
            # What is reserved for others, or for nobody for good, has not been offered to anybody yet.
            free = _particular(subtract(free, unshared(claim.resources)))
            if not (is_picky or worth_offering(free)):
                break
        if lends and (loan := _lend(allocator, order, agent, free, kept=False)) is not None:
            yield loan
        if lends_plain and (loan := _lend(allocator, order, agent, left, kept=True)) is not None:
            yield loan


def _particular(resources: Resources) -> Resources:
    """What is not for everybody."""
    return tuple(r for r in resources if r.identity.reservations or r.identity.revocable)


def _mixed(seed: int, count: int) -> list[int]:
    """The numbers below `count` as if by chance: sorted by what is mixed of each and the seed."""
    numbers = np.arange(count, dtype=np.uint64) + np.uint64(seed * count % (1 << 64))
    found: list[int] = np.argsort(mix(numbers), kind="stable").tolist()
    return found


def _claim(allocator: "Allocator", order: Order, agent: "AgentEntry", free: Resources) -> Claim | None:
    """The first in fair order who takes of what is free there, charged for it."""
    view = agent.view
    # Whether not every framework may be offered the agent, for which each has to be looked at.
    is_for_some = agent.has_gpus or view.remote or bool(view.barred)
    leaf = order.first()
    bundle = () if leaf is None else part_for(allocator, order, leaf, agent, free, is_for_some)
    if not bundle:
        for leaf in order:
            bundle = part_for(allocator, order, leaf, agent, free, is_for_some)
            if bundle:
                break
        else:
            return None
    assert leaf is not None, "somebody took it"
    rest = agent.rest()
    amounts = rest.amounts if bundle is rest.free else amounts_of(bundle)
    order.charge(leaf, amounts)
    return Claim(leaf, agent, bundle, amounts)


def part_for(
    allocator: "Allocator", order: Order, leaf: Branch, agent: "AgentEntry", free: Resources, is_for_some: bool
) -> Resources:  # fmt: skip
    """What a claimant would be offered of what is free on an agent, which is worth an offer; empty for nothing."""
    assert leaf.framework_id is not None, "claims are of frameworks"
    framework = allocator.frameworks[leaf.framework_id]
    if is_for_some and not may_see(framework, leaf.name, agent.view):
        return ()
    bundle = usable(free, leaf.name, refined=framework.refined, shared=framework.shared)
    if framework.only_reserved:
        bundle = tuple(r for r in bundle if r.identity.reservations)
    if order.is_bounded:
        bundle = order.allowed(leaf, bundle)
    # What is offered whole has been seen to be worth it.
    if (bundle is not free or order.is_picky) and not suits(framework, leaf.name, bundle):
        return ()
    return () if order.is_refused(leaf, agent.view.id, bundle) else bundle


def _lend(
    allocator: "Allocator", order: Order, agent: "AgentEntry", free: Resources, *, kept: bool
) -> Claim | None:  # fmt: skip
    """The first in fair order who takes what is lent, or `kept` for guarantees or from new work: none of those for
    whom it is has just taken it.
    """
    sparing = sparable(free) if kept else ()
    if kept and not (order.is_picky or worth_offering(sparing)):
        return None
    for leaf in order:
        assert leaf.framework_id is not None, "claims are of frameworks"
        framework = allocator.frameworks[leaf.framework_id]
        if leaf.only_reserved or not (framework.revocable and may_see(framework, leaf.name, agent.view)):
            continue
        bundle = order.allowed(leaf, sparing if kept else lendable(free, leaf.name), lends=kept)
        if not suits(framework, leaf.name, bundle):
            continue
        if order.is_refused(leaf, agent.view.id, bundle):
            continue
        amounts = amounts_of(bundle)
        order.charge(leaf, amounts, lends=kept)
        return Claim(leaf, agent, bundle, amounts, revocable=True)
    return None
