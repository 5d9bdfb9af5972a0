"""Decides which steps of a run may begin, which are skipped, and what the run has come to.

Rule: a step is decided once all the steps it comes after are over: it begins when `when` and its conditions hold, else
it is skipped. A run is walked anew from the ends that are recorded, by the very path it took. Pure.
"""

import re
from collections import deque
from collections.abc import Iterable, Mapping, Sequence, Set

import msgspec

from corral.frameworks.cron.dags.spec import Condition, DagSpec, Outcome, Step, Test, When
from corral.frameworks.cron.graph import find_path
from corral.lib import order
from corral.lib.errors import Invalid
from corral.model.patterns import MOST_TEXT

MOST_NAMED = 40
"""Steps that a message names."""


class Fate(msgspec.Struct, frozen=True):
    """What became of a step. Shapes: `value` is its result, of an array a JSON list of its elements' results."""

    outcome: Outcome
    value: str | None = None
    why: str = ""


class Walk:
    """One run on its way. Shapes: `fates` are of the steps that are over, `open` those that have begun and are not."""

    def __init__(self, spec: DagSpec) -> None:
        self.steps = {step.name: step for step in spec.steps}
        self.fates: dict[str, Fate] = {}
        self.open: dict[str, None] = {}
        self._following = following(spec.steps)
        self._waiting = {step.name: len(step.after) for step in spec.steps}
        self._decided: deque[str] = deque(name for name, count in self._waiting.items() if not count)

    @property
    def is_over(self) -> bool:
        return len(self.fates) == len(self.steps)

    def advance(self) -> list[Step]:
        """The steps that begin now, in the order of their definition as far as nothing else orders them."""
        begun = []
        while self._decided:
            step = self.steps[self._decided.popleft()]
            why = self._hindrance(step)
            if why:
                self._end(step.name, Fate(Outcome.SKIPPED, why=why))
            else:
                self.open[step.name] = None
                begun.append(step)
        return begun

    def end(self, name: str, fate: Fate) -> None:
        """A step that had begun is over; `advance` tells what follows."""
        del self.open[name]
        self._end(name, fate)

    def failed(self) -> list[str]:
        """The steps that make the run a failure."""
        bad = (Outcome.FAILED, Outcome.KILLED)
        return [name for name in self.steps if name in self.fates and self.fates[name].outcome in bad]

    def _end(self, name: str, fate: Fate) -> None:
        self.fates[name] = fate
        for follower in self._following.get(name, ()):
            self._waiting[follower] -= 1
            if not self._waiting[follower]:
                self._decided.append(follower)

    def _hindrance(self, step: Step) -> str:
        """Why a step does not begin, now that all before it are over; empty when it does."""
        before = {name: self.fates[name].outcome for name in step.after}
        failed = [name for name, outcome in before.items() if outcome in (Outcome.FAILED, Outcome.KILLED)]
        short = [name for name, outcome in before.items() if outcome is not Outcome.SUCCEEDED]
        match step.when:
            case When.SUCCESS if short:
                return f"step {short[0]} {_verb(before[short[0]])}"
            case When.NO_FAILURE if failed:
                return f"step {failed[0]} {_verb(before[failed[0]])}"
            case When.FAILURE if not failed:
                return "no step before it failed"
        for condition in step.conditions:
            value = self.fates[condition.step].value
            if not holds(condition, value):
                said = "has no result" if value is None else f"has the result {value[:80]!r}"
                if condition.test is Test.MATCHES and value is not None and len(value) > MOST_TEXT:
                    said = f"has a result of {len(value)} characters, of which {MOST_TEXT} are the most to match"
                return f"step {condition.step} {said}, which is not {_wanted(condition)}"
        return ""


def _verb(outcome: Outcome) -> str:
    return {Outcome.FAILED: "failed", Outcome.KILLED: "was killed", Outcome.SKIPPED: "was skipped"}[outcome]


def _wanted(condition: Condition) -> str:
    values = ", ".join(repr(value) for value in condition.values)
    words = {Test.EQUALS: "", Test.DIFFERS: "other than ", Test.IN: "one of ", Test.MATCHES: "of the form "}
    return words[condition.test] + values


def holds(condition: Condition, value: str | None) -> bool:
    """Whether a result is as a condition wants it; a step without one is only other than something.

    Shapes: what is longer than `MOST_TEXT` matches nothing, as the expressions are checked for no more.
    """
    match condition.test:
        case Test.DIFFERS:
            return value != condition.values[0]
        case Test.MATCHES:
            fits = value is not None and len(value) <= MOST_TEXT
            return fits and re.fullmatch(condition.values[0], value or "") is not None
        case _:
            return value in condition.values


def following(steps: Iterable[Step]) -> dict[str, list[str]]:
    """Which steps come right after each step."""
    return order.turn({step.name: step.after for step in steps})


def all_after(spec: DagSpec, name: str) -> set[str]:
    """A step and all that come after it, however far."""
    after = following(spec.steps)
    found, queue = {name}, [name]
    for each in queue:
        for follower in after.get(each, ()):
            if follower not in found:
                found.add(follower)
                queue.append(follower)
    return found


def check_graph(steps: Sequence[Step]) -> None:
    """Errors: `Invalid` names what is missing, or the path by which a step would wait for itself."""
    known: Mapping[str, tuple[str, ...]] = {step.name: step.after for step in steps}
    for step in steps:
        missing = [name for name in step.after if name not in known]
        if missing:
            raise Invalid(f"step {step.name!r} comes after {', '.join(missing)}, which the DAG does not have; add it")
    in_waves = {name for wave in find_waves(steps) for name in wave}
    if len(in_waves) < len(known):
        name = _find_circle(steps, in_waves)
        path = find_path(name, known[name], known)
        raise Invalid(f"step {name!r} would wait for itself: {_show_path(path)}; take out one of these edges")


def _find_circle(steps: Sequence[Step], in_waves: Set[str]) -> str:
    """The first step of a circle. Shapes: what is in no wave is of one or comes after one: going back leads to it."""
    left = {step.name: next((b for b in step.after if b not in in_waves), "") for step in steps}
    seen: dict[str, None] = {}
    name = next(step.name for step in steps if step.name not in in_waves)
    while name not in seen:
        seen[name] = None
        name = left[name]
    circle = {name}
    while (name := left[name]) not in circle:
        circle.add(name)
    return next(step.name for step in steps if step.name in circle)


def _show_path(path: Sequence[str]) -> str:
    """Shapes: of a very long one the middle is left out."""
    if len(path) <= MOST_NAMED:
        return " -> ".join(path)
    half = MOST_NAMED // 2
    return " -> ".join([*path[:half], f"({len(path) - 2 * half} more)", *path[-half:]])


def find_waves(steps: Sequence[Step]) -> list[list[str]]:
    """The steps in the order in which they may begin when none is slow; those that wait for themselves are left out."""
    return order.find_waves({step.name: step.after for step in steps})
