"""Runs the allocator and carries out what it decides.

Rule: runs on change, coalesced by a timer; the allocator has been told of every change by then.
"""

from corral.master import evictions, offers, timers, wants
from corral.master.state import MasterState
from corral.runtime.core import Effect


def run(state: MasterState, now: float) -> list[Effect]:
    """The allocation timer went off: make the offers that the allocator grants, take back and end what blocks wants."""
    state.allocation_due = False
    if not _somebody_asks(state):
        state.waiting = ()
        return wants.ask_explanations(state, now)
    state.allocation_runs += 1
    begun = state.stopwatch() if state.stopwatch is not None else 0.0
    found = state.allocator.run(now, state.random.getrandbits(32), state.config.most_grants)
    if state.stopwatch is not None:
        state.allocation_ms.add(state.stopwatch() - begun)
    effects = offers.make_offers(state, found.grants, now)
    back = [state.offers[offer_id] for offer_id in found.rescind if offer_id in state.offers]
    lent = set(found.returned)
    effects += offers.rescind(state, [e for e in back if e.offer.id not in lent], "a want needs its resources")
    effects += offers.rescind(state, [e for e in back if e.offer.id in lent], "those for whom it is kept would take it")
    effects += evictions.evict(state, found.evictions)
    if found.more:
        # The rest has its turn after what came in meanwhile; only then is it known what still waits.
        state.waiting = ()
        return effects + timers.ask_allocation(state)
    state.waiting = found.waiting
    return [*effects, *timers.ask_allocation_at(state, found.due_at, now), *wants.ask_explanations(state, now)]


def _somebody_asks(state: MasterState) -> bool:
    return any(f.waiting for f in state.connected_frameworks()) or any(
        f.coarse_roles for f in state.allocator.frameworks.values()
    )


def run_late(state: MasterState, now: float) -> list[Effect]:
    """An instant has come at which the allocator has to look again though nothing else has changed."""
    state.allocation_due_at = None
    return timers.ask_allocation(state)
