"""Keeps what a framework holds against nodes, so that the next leader avoids the same ones.

Rules: a node has one record, of bounded size; changes are gathered for a moment, so that a node where all fails costs
one write in `KEEP_S` however much fails there. What was told in that moment is lost with the process: it counts again
when it fails again. Records of what has faded are removed.
"""

from heapq import nlargest

import msgspec

from corral.runtime.core import Effect, Loaded, Persist, SetTimer, decode_records
from corral.sdk.nodes import HALF_LIFE_S, NodeScores

RECORD = "node/"
KEEP = "nodes"
FADE = "nodes-fade"
KEEP_S = 2.0
FADE_S = HALF_LIFE_S
MOST_SUBJECTS = 20
"""How many subjects a record names, of those that failed and of those that shun: the latest."""
MOST_WRITES = 50


class ShunRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A subject avoids the node. Shapes: `times` in a row."""

    times: int
    until_at: float
    why: str


class NodeRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What is held against one node. Shapes: both by subject; `failures` hold what counted at which instant."""

    failures: dict[str, tuple[float, float]] = {}
    shuns: dict[str, ShunRecord] = {}
    bad_at: float | None = None


class NodeMemory:
    """Node scores with what of them is written down. Shapes: `kept` are the records as they stand in the store."""

    __slots__ = ("kept", "scores")

    def __init__(self) -> None:
        self.scores = NodeScores()
        self.kept: dict[str, NodeRecord] = {}

    def load(self, loaded: Loaded, now: float) -> list[Effect]:
        self.kept = decode_records(loaded, RECORD, NodeRecord)
        for hostname, record in self.kept.items():
            failures = ((subject, value, at) for subject, (value, at) in record.failures.items())
            shuns = ((subject, one.times, one.until_at, one.why) for subject, one in record.shuns.items())
            self.scores.restore(hostname, failures, shuns, record.bad_at, now)
        return [SetTimer(FADE, FADE_S)] if self.kept else []

    def settle(self) -> list[Effect]:
        """What is to follow from a turn: changes are written a moment later."""
        return [SetTimer(KEEP, KEEP_S, if_unset=True)] if self.scores.changed else []

    def tick(self, name: str, now: float) -> list[Effect]:
        """`KEEP` writes what has changed; `FADE` looks at all that is kept, of which nobody hears when it fades."""
        if name == FADE:
            self.scores.changed.update(dict.fromkeys(self.kept))
        effects: list[Effect] = []
        while self.scores.changed and len(effects) < MOST_WRITES:
            hostname = next(iter(self.scores.changed))
            self.scores.fade(hostname, now)
            del self.scores.changed[hostname]
            record = self._record(hostname, now)
            if record == self.kept.get(hostname):
                continue
            if record is None:
                del self.kept[hostname]
            else:
                self.kept[hostname] = record
            effects.append(Persist(RECORD + hostname, record))
        if self.kept:
            effects.append(SetTimer(FADE, FADE_S, if_unset=True))
        return effects

    def _record(self, hostname: str, now: float) -> NodeRecord | None:
        failures = nlargest(MOST_SUBJECTS, self.scores.failures(hostname), key=lambda found: (found[2], found[0]))
        shuns = nlargest(MOST_SUBJECTS, self.scores.shuns(hostname), key=lambda found: (found[2], found[0]))
        bad_at = self.scores.bad.get(hostname)
        if not failures and not shuns and bad_at is None:
            return None
        return NodeRecord(
            failures={subject: (value, at) for subject, value, at in sorted(failures)},
            shuns={s: ShunRecord(times=times, until_at=until_at, why=why) for s, times, until_at, why in sorted(shuns)},
            bad_at=bad_at,
        )
