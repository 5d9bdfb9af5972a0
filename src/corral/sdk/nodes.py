"""Which nodes a framework would rather not use, for what failed there: a score per node that fades by itself.

Rules: what fails soon after its launch counts against its node, what lasts or succeeds counts for it. One subject (an
app, a job) that fails for its own reasons cannot make a node bad for others: it takes three that fail there and none
that does well. A subject may shun a node by itself, each time in a row for longer. Nothing is forbidden:
wishes are stated as soft constraints, so the last node there is is still used. `node_records` keeps it over the end of
the process. Pure: time is given, nothing is random.
"""

from collections.abc import Iterable, Iterator
from math import log2

import msgspec

from corral.model.constraints import HOSTNAME, Constraint, Operator
from corral.model.offer import MOST_CONSTRAINTS, Want

FAST_S = 60.0
"""Who fails later than this after its launch is not held against its node."""
HALF_LIFE_S = 300.0
MOST_PER_SUBJECT = 2.0
STANDS_OUT = 1.5
"""What two failures within minutes come to, for some two minutes."""
BAD = 4.0
GOOD_AGAIN = 2.0
SHUN_S = 300.0
MOST_SHUN_S = 3600.0
HOME_WEIGHT = 10
BAD_WEIGHT = 100
SHUN_WEIGHT = 200


class Avoided(msgspec.Struct, frozen=True, kw_only=True):
    """A node that is used only when nothing else fits, as of now. Shapes: `subject` None when by everybody."""

    hostname: str
    why: str
    until_at: float
    subject: str | None = None


class _Score:
    __slots__ = ("at", "value")

    def __init__(self, value: float, at: float) -> None:
        self.value = value
        self.at = at

    def now(self, now: float) -> float:
        return float(self.value * 0.5 ** (max(0.0, now - self.at) / HALF_LIFE_S))


class _Shun:
    __slots__ = ("times", "until_at", "why")

    def __init__(self, times: int, until_at: float, why: str) -> None:
        self.times = times
        self.until_at = until_at
        self.why = why


class NodeScores:
    """Shapes: `bad` are the nodes that everybody avoids, with the instant since when; `changed` are those of which
    something else is remembered since somebody has last emptied it."""

    __slots__ = ("_failures", "_shunned", "bad", "changed")

    def __init__(self) -> None:
        self._failures: dict[str, dict[str, _Score]] = {}
        self._shunned: dict[str, dict[str, _Shun]] = {}
        self.bad: dict[str, float] = {}
        self.changed: dict[str, None] = {}

    def fail(self, subject: str, hostname: str, lived_s: float, now: float) -> bool:
        """Count a failure; whether everybody avoids the node from now on."""
        if lived_s >= FAST_S or not hostname:
            return False
        scores = self._failures.setdefault(hostname, {})
        before = scores.get(subject)
        value = 1.0 + (before.now(now) if before is not None else 0.0)
        scores[subject] = _Score(min(value, MOST_PER_SUBJECT), now)
        self.changed[hostname] = None
        if hostname in self.bad or self.score(hostname, now) < BAD or len(self._failing(hostname, now)) < 3:
            return False
        self.bad[hostname] = now
        return True

    def last(self, subject: str, hostname: str, now: float) -> None:
        """Something did well there: the node can do it, and for this subject it is as good as any."""
        scores = self._failures.get(hostname)
        if scores is not None:
            self.changed[hostname] = None
            scores.pop(subject, None)
            for each in scores.values():
                each.value, each.at = each.now(now) / 4.0, now
            if not scores:
                del self._failures[hostname]
        self.accept(subject, hostname)
        self._settle(hostname, now)

    def shun(self, subject: str, hostname: str, why: str, now: float) -> float:
        """Let the subject avoid a node; returns until when. Each time soon after the last one it is twice as long."""
        shunned = self._shunned.setdefault(subject, {})
        before = shunned.get(hostname)
        times = 1
        if before is not None and now < before.until_at + _shun_s(before.times):
            times = before.times + 1
        shunned[hostname] = _Shun(times, now + _shun_s(times), why)
        self.changed[hostname] = None
        return shunned[hostname].until_at

    def forget(self, subject: str) -> None:
        """The subject is another one from now on, or is no more."""
        self.changed.update(dict.fromkeys(self._shunned.pop(subject, {})))
        for hostname in [h for h, scores in self._failures.items() if subject in scores]:
            self.changed[hostname] = None
            del self._failures[hostname][subject]
            if not self._failures[hostname]:
                del self._failures[hostname]

    @property
    def is_clean(self) -> bool:
        """Whether nothing is held against any node."""
        return not self._failures and not self._shunned and not self.bad

    def stands_out(self, subject: str, hostname: str, now: float) -> bool:
        """Whether the subject has failed there at least twice of late, and hardly anywhere else."""
        here = self._failures.get(hostname, {}).get(subject)
        if here is None or here.now(now) < STANDS_OUT:
            return False
        others = (scores.get(subject) for host, scores in self._failures.items() if host != hostname)
        return all(other is None or other.now(now) < 1.0 for other in others)

    def score(self, hostname: str, now: float) -> float:
        return sum(each.now(now) for each in self._failures.get(hostname, {}).values())

    def is_avoided(self, subject: str, hostname: str, now: float) -> bool:
        return any(each.hostname == hostname for each in self.avoided(subject, now))

    def avoided(self, subject: str | None, now: float) -> tuple[Avoided, ...]:
        """What the subject avoids and what everybody does, by hostname; None for all that anybody does."""
        found: list[Avoided] = []
        for hostname in sorted(self.bad):
            if self._settle(hostname, now):
                failing = self._failing(hostname, now)
                why = f"{len(failing)} different ones failed there soon after their start: {', '.join(failing[:5])}"
                until_at = now + HALF_LIFE_S * _halvings(self.score(hostname, now) / GOOD_AGAIN)
                found.append(Avoided(hostname=hostname, why=why, until_at=until_at))
        for name in sorted(self._shunned) if subject is None else (subject,):
            for hostname, shun in sorted(self._shunned.get(name, {}).items()):
                if now < shun.until_at:
                    found.append(Avoided(hostname=hostname, why=shun.why, until_at=shun.until_at, subject=name))
        return tuple(found)

    def wish(self, want: Want, subject: str, now: float, homes: Iterable[str] = ()) -> Want:
        """The want with what is wished of its place beside what must hold; `homes` are nodes it would rather use."""
        if not self.bad and not self._shunned and not homes:
            return want
        avoided = self.avoided(subject, now)
        own = tuple(sorted({a.hostname for a in avoided if a.subject is not None}))
        bad = tuple(sorted({a.hostname for a in avoided if a.subject is None}))
        kept = tuple(sorted(set(homes) - {a.hostname for a in avoided}))
        wishes: list[Constraint] = []
        if own:
            wishes.append(Constraint(field=HOSTNAME, operator=Operator.UNEQUAL, values=own, weight=SHUN_WEIGHT))
        if bad:
            wishes.append(Constraint(field=HOSTNAME, operator=Operator.UNEQUAL, values=bad, weight=BAD_WEIGHT))
        if kept:
            wishes.append(Constraint(field=HOSTNAME, operator=Operator.IN, values=kept, weight=HOME_WEIGHT))
        room = MOST_CONSTRAINTS - len(want.constraints)
        return msgspec.structs.replace(want, constraints=(*want.constraints, *wishes[: max(room, 0)]))

    # What is kept of it.

    def failures(self, hostname: str) -> Iterator[tuple[str, float, float]]:
        """By subject what counts against a node, and when it did."""
        for subject, each in self._failures.get(hostname, {}).items():
            yield subject, each.value, each.at

    def shuns(self, hostname: str) -> Iterator[tuple[str, int, float, str]]:
        """By subject that shuns or has shunned the node: how often in a row, until when, and why."""
        for subject, shunned in self._shunned.items():
            if hostname in shunned:
                yield subject, shunned[hostname].times, shunned[hostname].until_at, shunned[hostname].why

    def restore(
        self,
        hostname: str,
        failures: Iterable[tuple[str, float, float]],
        shuns: Iterable[tuple[str, int, float, str]],
        bad_at: float | None,
        now: float,
    ) -> None:
        """Remember again what another process has known; a clock that was ahead makes nothing last longer."""
        for subject, value, at in failures:
            self._failures.setdefault(hostname, {})[subject] = _Score(min(value, MOST_PER_SUBJECT), min(at, now))
        for subject, times, until_at, why in shuns:
            shunned = self._shunned.setdefault(subject, {})
            shunned[hostname] = _Shun(times, min(until_at, now + _shun_s(times)), why)
        if bad_at is not None:
            self.bad[hostname] = min(bad_at, now)
        self.fade(hostname, now)

    def fade(self, hostname: str, now: float) -> None:
        """Forget what does not count any more."""
        self._settle(hostname, now)
        if not self._failures.get(hostname, True):
            del self._failures[hostname]
        for subject, times, until_at, _ in list(self.shuns(hostname)):
            if now >= until_at + _shun_s(times):
                self.accept(subject, hostname)

    def accept(self, subject: str, hostname: str) -> None:
        """The subject shuns the node no more."""
        shunned = self._shunned.get(subject, {})
        if shunned.pop(hostname, None) is not None:
            self.changed[hostname] = None
            if not shunned:
                del self._shunned[subject]

    def _failing(self, hostname: str, now: float) -> list[str]:
        """Who fails there of late, the worst first."""
        scores = self._failures.get(hostname, {})
        found = [(each.now(now), subject) for subject, each in scores.items()]
        return [subject for value, subject in sorted(found, key=lambda f: (-f[0], f[1])) if value >= 0.25]

    def _settle(self, hostname: str, now: float) -> bool:
        """Whether the node is still bad; it is good again well below of where it became bad."""
        if hostname in self.bad and self.score(hostname, now) < GOOD_AGAIN:
            del self.bad[hostname]
        scores = self._failures.get(hostname, {})
        for subject in [s for s, each in scores.items() if each.now(now) < 0.01]:
            del scores[subject]
        return hostname in self.bad


def _shun_s(times: int) -> float:
    return min(SHUN_S * 2.0 ** (times - 1), MOST_SHUN_S) if times < 20 else MOST_SHUN_S


def _halvings(ratio: float) -> float:
    """How often something has to be halved to come to 1."""
    return max(0.0, log2(ratio))
