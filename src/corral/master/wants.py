"""Takes what frameworks want, and tells them why it still waits.

Rule: a framework states all its wants at once and absolutely; its calls are ordered, so a launch accepted earlier is
already reflected in what it states later.
"""

from collections import defaultdict

import msgspec

from corral.master import claims, offers, timers
from corral.master.effects import SendEvent
from corral.master.entries import FrameworkEntry, OfferEntry, WantEntry
from corral.master.state import MasterState
from corral.master.validate import check_wants
from corral.model import events
from corral.model.calls import Request
from corral.model.ids import WantId
from corral.runtime.core import Effect

MOST_EXPLAINED = 32
"""Wants explained in one turn, so that nobody waits long for it."""

_PAUSE_S = 0.05
_SOON_S = 0.001


def request(state: MasterState, framework: FrameworkEntry, call: Request, now: float) -> list[Effect]:
    """Take the framework's wants anew; from now on it gets offers only for them.

    Shapes: `count` is how many are still to be launched, offers that are out included. A want whose shape has changed,
    that asks for less or has been left out gives back the offers made for it. None, the plain Mesos form, is ignored.
    Errors: `Invalid` as `check_wants`.
    """
    if call.wants is None:
        return []
    check_wants(framework, call.wants)
    effects: list[Effect] = []
    if not framework.uses_wants:
        framework.uses_wants = True
        claims.tell_framework(state, framework)
        effects += offers.rescind(state, list(framework.offers.values()), "the framework has turned to wants")
    before, framework.wants = framework.wants, {}
    made = _offers_by_want(framework)
    framework.waiting.clear()
    for want in call.wants:
        old = before.pop(want.id, None)
        entry = WantEntry(want, framework.id, now)
        framework.wants[want.id] = entry
        if old is not None:
            effects += _restate(state, old, entry, made[want.id])
        claims.tell_want(state, framework, entry)
    for old in before.values():
        claims.forget_want(state, framework, old.want.id)
        if old.offered:
            effects += offers.rescind(state, made[old.want.id], f"want {old.want.id} was withdrawn")
    framework.explanations = {k: v for k, v in framework.explanations.items() if k in framework.wants}
    return effects + timers.ask_allocation(state)


def _offers_by_want(framework: FrameworkEntry) -> defaultdict[WantId, list[OfferEntry]]:
    made: defaultdict[WantId, list[OfferEntry]] = defaultdict(list)
    for entry in framework.offers.values():
        if entry.want is not None:
            made[entry.want.want.id].append(entry)
    return made


def _restate(state: MasterState, old: WantEntry, new: WantEntry, mine: list[OfferEntry]) -> list[Effect]:
    """Carry over to the new statement of a want what still holds of the old one. Shapes: `mine` are its offers."""
    if old.remaining > 0:
        new.since_at = old.since_at
    if not old.offered:
        return []
    same = msgspec.structs.replace(old.want, count=new.want.count, group_size=new.want.group_size) == new.want
    kept = mine[: new.remaining] if same else []
    effects = offers.rescind(state, mine[len(kept) :], f"want {new.want.id} was stated anew")
    for entry in kept:
        entry.want = new
    new.offered = len(kept)
    old.offered = 0
    return effects


def ask_explanations(state: MasterState, now: float) -> list[Effect]:
    """An allocation has told what waits: have frameworks told why, each at most once a second."""
    effects: list[Effect] = []
    for framework in state.connected_frameworks():
        news = framework.waiting or framework.told or framework.explanations
        if framework.uses_wants and news and not framework.explain_due:
            framework.explain_due = True
            effects += timers.ask_explanations(state, max(now, _due_at(state, framework)), now)
    return effects


def explain_late(state: MasterState, now: float) -> list[Effect]:
    """The explanation timer went off: look at some wants, and go on later where there are more."""
    state.explain_due_at = None
    effects: list[Effect] = []
    left = MOST_EXPLAINED
    for framework in state.connected_frameworks():
        if framework.explain_due and _due_at(state, framework) <= now + _SOON_S:
            left = _look(state, framework, left)
            if not framework.unexplained:
                effects += _tell(framework, now)
    dues = [max(_due_at(state, f), now + _PAUSE_S) for f in state.connected_frameworks() if f.explain_due]
    return effects + timers.ask_explanations(state, min(dues), now) if dues else effects


def _due_at(state: MasterState, framework: FrameworkEntry) -> float:
    return framework.explained_at + state.config.explain_s


def _look(state: MasterState, framework: FrameworkEntry, most: int) -> int:
    """Explain wants of the framework's round, at most so many; returns how many more may be."""
    if framework.unexplained is None:
        framework.explaining = {}
        framework.unexplained = [want_id for framework_id, want_id in state.waiting if framework_id == framework.id]
        framework.unexplained.reverse()
    while framework.unexplained and most > 0:
        want_id = framework.unexplained.pop()
        if want_id in framework.waiting:
            framework.explaining[want_id] = state.allocator.explain(framework.id, want_id)
            most -= 1
    return most


def _tell(framework: FrameworkEntry, now: float) -> list[Effect]:
    """The round is over: tell the framework if it is another story than before."""
    framework.explain_due, framework.unexplained = False, None
    framework.explained_at = now
    framework.explanations, framework.explaining = framework.explaining, {}
    current = tuple(framework.explanations.values())
    if current == framework.told or framework.stream is None:
        return []
    framework.told = current
    return [SendEvent(framework.stream, events.Explanations(explanations=current))]
