"""Sees to it that nothing waits in silence: what waits long is told of, and a master that says nothing is left.

Rules: whatever waits under a want gets an offer or an explanation. What waits for longer than `slow_s` is told once,
with its reason. When something has got neither an offer nor a reason for a while, the master does not know it, or a
framework that was taken over keeps the place: the session subscribes anew. Source: Chronos' contract, section 7.
"""

from collections.abc import Iterable

import msgspec

from corral.runtime.core import Effect, Note

LOOK_S = 15.0
"""How often what waits is looked at."""
MOST_TOLD = 20


class Waiting(msgspec.Struct, frozen=True):
    """What waits under one want.

    Units: `since_at` seconds, of the oldest. Shapes: `count` wait in all, `jobs` names some of them; `explained` when
    the master has said why.
    """

    want_id: str
    since_at: float
    count: int
    jobs: str
    why: str
    explained: bool


class Patience:
    """Shapes: `is_set` while a look is ahead; a framework asks for one whenever something waits."""

    __slots__ = ("_quiet_at", "_told", "is_set")

    def __init__(self) -> None:
        self.is_set = False
        self._told: set[str] = set()
        self._quiet_at: float | None = None

    def heard(self) -> None:
        """The master has offered something, or knows the framework anew."""
        self._quiet_at = None

    def look(self, waiting: Iterable[Waiting], now: float, *, slow_s: float, connected: bool) -> list[Effect]:
        """Tell of what has come to wait long since the last look. Units: `slow_s` seconds."""
        self.is_set = False
        found = list(waiting)
        self._told &= {one.want_id for one in found}
        if not connected or all(one.explained for one in found):
            self._quiet_at = None
        elif self._quiet_at is None:
            self._quiet_at = now
        slow = [one for one in found if now - one.since_at >= slow_s and one.want_id not in self._told]
        slow.sort(key=lambda one: one.since_at)
        self._told.update(one.want_id for one in slow[:MOST_TOLD])
        return [_tell(one, now) for one in slow[:MOST_TOLD]]

    def unheard_s(self, now: float) -> float:
        """Seconds for which something has waited without an offer and without a reason."""
        return 0.0 if self._quiet_at is None else max(0.0, now - self._quiet_at)


def _tell(one: Waiting, now: float) -> Note:
    facts = {"job": one.jobs, "jobs": one.count, "waited_s": round(now - one.since_at), "want": one.want_id}
    return Note("jobs wait long", one.why, "info" if one.explained else "warning", facts)
