"""Takes what frameworks want, and tells them why it still waits.

Rule: a framework states all its wants at once and absolutely; its calls are ordered, so a launch accepted earlier is
already reflected in what it states later.
"""

import msgspec

from corral.master import offers, timers
from corral.master.effects import SendEvent
from corral.master.state import FrameworkEntry, MasterState, WantEntry
from corral.master.validate import check_wants
from corral.model import events
from corral.model.calls import Request
from corral.model.ids import FrameworkId, WantId
from corral.model.offer import Explanation
from corral.runtime.core import Effect


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
        effects += offers.rescind(state, list(framework.offers.values()), "the framework has turned to wants")
    before, framework.wants = framework.wants, {}
    framework.waiting.clear()
    for want in call.wants:
        old = before.pop(want.id, None)
        entry = WantEntry(want, framework.id, now)
        framework.wants[want.id] = entry
        if old is not None:
            effects += _restate(state, framework, old, entry)
        framework.settle(entry)
    for old in before.values():
        if old.offered:
            mine = [o for o in framework.offers.values() if o.want is old]
            effects += offers.rescind(state, mine, f"want {old.want.id} was withdrawn")
    framework.explanations = {k: v for k, v in framework.explanations.items() if k in framework.wants}
    return effects + timers.ask_allocation(state)


def _restate(state: MasterState, framework: FrameworkEntry, old: WantEntry, new: WantEntry) -> list[Effect]:
    """Carry over to the new statement of a want what still holds of the old one."""
    if old.remaining > 0:
        new.since_at = old.since_at
    if not old.offered:
        return []
    mine = [o for o in framework.offers.values() if o.want is old]
    same = msgspec.structs.replace(old.want, count=new.want.count, group_size=new.want.group_size) == new.want
    kept = mine[: new.remaining] if same else []
    effects = offers.rescind(state, mine[len(kept) :], f"want {new.want.id} was stated anew")
    for entry in kept:
        entry.want = new
    new.offered = len(kept)
    old.offered = 0
    return effects


def explain(state: MasterState, found: tuple[Explanation, ...], now: float) -> list[Effect]:
    """Keep what the allocator said of the wants that wait, and tell the frameworks for which it has changed."""
    by_framework: dict[FrameworkId, dict[WantId, Explanation]] = {}
    for one in found:
        by_framework.setdefault(one.framework_id, {})[one.want_id] = one
    effects: list[Effect] = []
    for framework in state.connected_frameworks():
        if not framework.uses_wants:
            continue
        framework.explanations = by_framework.get(framework.id, {})
        if framework.explanations or framework.told:
            effects += _tell_explanations(state, framework, now)
    return effects


def _tell_explanations(state: MasterState, framework: FrameworkEntry, now: float) -> list[Effect]:
    """Send them now, or later when the last ones were sent within the second."""
    current = tuple(framework.explanations.values())
    if current == framework.told or framework.stream is None:
        framework.explain_due = False
        return []
    wait_s = framework.explained_at + state.config.explain_s - now
    if wait_s > 0:
        framework.explain_due = True
        return timers.ask_explanations(state, wait_s)
    framework.explain_due = False
    framework.told = current
    framework.explained_at = now
    return [SendEvent(framework.stream, events.Explanations(explanations=current))]


def explain_late(state: MasterState, now: float) -> list[Effect]:
    """The explanation timer went off: send what had to wait."""
    state.explain_due = False
    effects: list[Effect] = []
    for framework in state.connected_frameworks():
        if framework.explain_due:
            effects += _tell_explanations(state, framework, now)
    return effects
