"""When the coalesced work of the master is due: one named timer each, set only when it is not set yet.

Rule: a change asks for an allocation and returns; what changes within the next milliseconds shares one run.
"""

from corral.master.state import MasterState
from corral.model.ids import FrameworkId
from corral.runtime.core import Effect, SetTimer

AGENTS = "agents"
ALLOCATE = "allocate"
AGAIN = "again"
EXPLAIN = "explain"
FILTERS = "filters"
MAINTENANCE = "maintenance"
OFFERS = "offers"
WATCH = "watch"
HEARTBEAT = "heartbeat/"
FAILOVER = "failover/"
SHUTDOWN = "shutdown/"
SESSION = "session/"
THROTTLE = "throttle/"

MOST_DELAY_S = 3600.0
"""No timer is set for longer; one that goes off early finds nothing to do and is set again."""


def ask_allocation(state: MasterState) -> list[Effect]:
    """Shapes: [] when one is already under way."""
    if state.allocation_due:
        return []
    state.allocation_due = True
    return [SetTimer(ALLOCATE, state.config.allocation_delay_s)]


def ask_allocation_at(state: MasterState, at: float | None, now: float) -> list[Effect]:
    """Allocate again at an instant even if nothing changes until then; None asks nothing."""
    if at is None:
        return []
    if at <= now:
        return ask_allocation(state)
    at = min(at, now + MOST_DELAY_S)
    if state.allocation_due_at is not None and now < state.allocation_due_at <= at:
        return []
    state.allocation_due_at = at
    return [SetTimer(AGAIN, at - now)]


def ask_explanations(state: MasterState, at: float, now: float) -> list[Effect]:
    """Look at the explanations that are due when the first of them is."""
    if state.explain_due_at is not None and state.explain_due_at <= at:
        return []
    state.explain_due_at = at
    return [SetTimer(EXPLAIN, max(at - now, 0.0))]


def ask_expiry(state: MasterState, now: float) -> list[Effect]:
    """Look at the offers again when the oldest one with a time limit has reached it."""
    if not state.expiries:
        return []
    at = min(state.expiries[0][0], now + MOST_DELAY_S)
    if state.offers_due_at is not None and state.offers_due_at <= at:
        return []
    state.offers_due_at = at
    return [SetTimer(OFFERS, max(at - now, 0.0))]


def ask_filters(state: MasterState, now: float) -> list[Effect]:
    """Allocate again when the next filter ends."""
    if not state.filter_heap:
        return []
    at = min(state.filter_heap[0][0], now + MOST_DELAY_S)
    if state.filters_due_at is not None and state.filters_due_at <= at:
        return []
    state.filters_due_at = at
    return [SetTimer(FILTERS, max(at - now, 0.0))]


def heartbeat_timer(stream: str) -> str:
    return HEARTBEAT + stream


def failover_timer(framework_id: FrameworkId) -> str:
    return FAILOVER + framework_id


def shutdown_timer(framework_id: FrameworkId) -> str:
    return SHUTDOWN + framework_id


def throttle_timer(lane: str) -> str:
    return THROTTLE + lane


def session_timer(session: str) -> str:
    return SESSION + session
