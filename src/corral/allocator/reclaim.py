"""Takes back what is lent of reservations and guarantees, once those for whom it is would take it.

What is not revocable stays where it is, whoever waits. Offers come back before tasks end.
"""

from collections.abc import Collection
from typing import TYPE_CHECKING

from corral.allocator.bundles import amounts_of, worth_offering
from corral.allocator.coarse import part_for
from corral.allocator.order import Branch, Order
from corral.allocator.view import Eviction
from corral.model.ids import AgentId, OfferId, WantId
from corral.model.resources import PLAIN, add

if TYPE_CHECKING:
    from corral.allocator.allocator import Allocator
    from corral.allocator.entries import HoldEntry


def reclaim(allocator: "Allocator", most: int) -> tuple[list[OfferId], list[Eviction], bool]:
    """What is lent of reservations whose role would take them now: offers to take back and tasks to end.

    Shapes: ends at most `most` tasks; the last is True when more would have to end. What is not revocable stays.
    """
    back: list[OfferId] = []
    ended: list[Eviction] = []
    order: Order | None = None
    for entry in allocator.book.loans():
        hold, agent = entry.hold, entry.agent
        if hold.leaving or (agent.view.ineligible and not agent.view.still_offered):
            continue
        lent = {(r.name, r.identity) for r in hold.resources if r.identity.reservations}
        order = order or Order(allocator)
        there = add(agent.free(), hold.resources)
        if not worth_offering(there):
            continue
        for leaf in order:
            bundle = part_for(allocator, order, leaf, agent, there, True)
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
    order = Order(allocator)
    if not order.keeps:
        return back, ended, False
    # What is on its way back already counts before more is asked for.
    borrowed.sort(key=lambda each: (not each.hold.leaving, each.hold.offer_id is None, -each.hold.since_at))
    for entry in borrowed:
        hold, agent = entry.hold, entry.agent
        # What is free or comes back in a maintenance window is lent again at most.
        if agent.view.ineligible or agent.view.id in kept:
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


def _taker(allocator: "Allocator", order: Order, entry: "HoldEntry") -> Branch | None:
    """The first claimant of a role below its guarantee who would take of what is lent there."""
    hold = entry.hold
    there = add(entry.agent.free(), hold.resources)
    if not worth_offering(there):
        return None
    names = {r.name for r in hold.resources if r.identity == PLAIN}
    for leaf in order:
        if (leaf.framework_id, leaf.name) == (hold.framework_id, hold.role) or not order.owes(leaf):
            continue
        bundle = part_for(allocator, order, leaf, entry.agent, there, True)
        if any(r.name in names and r.identity == PLAIN for r in bundle):
            return leaf
    return None


def _end(allocator: "Allocator", entry: "HoldEntry", leaf: Branch, why: str) -> Eviction:
    """Mark a task as on its way out, for a claimant."""
    assert leaf.framework_id is not None, "claims are of frameworks"
    hold = entry.hold
    allocator.book.mark(hold.key)
    return Eviction(
        key=hold.key, framework_id=hold.framework_id, role=hold.role, agent_id=hold.agent_id,
        want_id=WantId(""), for_framework_id=leaf.framework_id, for_role=leaf.name, why=why,
    )  # fmt: skip
