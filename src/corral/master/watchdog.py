"""Looks after frameworks that ask for resources and get no offer.

Rule: the time counts from the last offer, while the framework asks and holds none; one that asks for nothing, or sits
on offers, waits for nobody. Each such wait is told once.
"""

from collections.abc import Iterator

from corral.allocator.bundles import worth_offering
from corral.master import claims
from corral.master.entries import FrameworkEntry
from corral.master.state import MasterState
from corral.runtime.core import Effect, Note


def asks(state: MasterState, framework: FrameworkEntry) -> bool:
    """Whether an offer would be welcome and none is there."""
    if framework.stream is None or framework.offers:
        return False
    view = state.allocator.frameworks.get(framework.id)
    return bool(framework.waiting) or (view is not None and bool(view.coarse_roles) and not view.only_reserved)


def waited_s(state: MasterState, framework: FrameworkEntry, now: float) -> float:
    """Seconds since the last offer, 0 for a framework that does not wait for one."""
    return max(now - framework.fed_at, 0.0) if asks(state, framework) else 0.0


def starving(state: MasterState, now: float) -> Iterator[FrameworkEntry]:
    return (f for f in state.connected_frameworks() if waited_s(state, f, now) >= state.config.starving_s)


def look(state: MasterState, now: float) -> list[Effect]:
    """Tell of those that have begun to starve since the last look."""
    effects: list[Effect] = []
    for framework in state.connected_frameworks():
        if not asks(state, framework):
            framework.fed_at, framework.starves = now, False
        elif not framework.starves and now - framework.fed_at >= state.config.starving_s:
            framework.starves = True
            facts = {"framework": framework.id, "name": framework.info.name, "seconds": round(now - framework.fed_at)}
            effects.append(Note("framework gets no offers", _why(state, framework), "warning", facts))
    return effects


def feed(framework: FrameworkEntry, now: float) -> None:
    """The framework was made an offer, or has just begun to listen."""
    framework.fed_at, framework.starves = now, False


def _why(state: MasterState, framework: FrameworkEntry) -> str:
    for want_id in framework.waiting:
        found = state.allocator.explain(framework.id, want_id)
        if found is not None:
            reasons = ", ".join(f"{r.reason} on {r.agents}" for r in found.refusals)
            return f"want {want_id} waits for {found.waiting} instances: {reasons or 'its turn has not come'}"
    closed = full = refused = 0
    for agent in state.agents.values():
        if agent.ineligible and not agent.in_window:
            closed += 1
        elif not worth_offering(claims.free(state, agent.id)):
            full += 1
        else:
            refused += 1
    return (
        f"of {len(state.agents)} agents {closed} take nothing new, {full} have nothing free that is worth an offer, "
        f"and {refused} are kept from it by its own filters and constraints, by limits or by guarantees of others"
    )
