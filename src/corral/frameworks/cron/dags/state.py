"""The DAGs in memory, their runs, and what of these is under way."""

import json
import zlib
from collections import OrderedDict, deque

import msgspec

from corral.frameworks.cron.dags.spec import (
    MOST_ELEMENTS,
    MOST_PACKED_BYTES,
    MOST_TOLD_BYTES,
    MOST_VALUE_BYTES,
    DagProgress,
    DagRecord,
    DagRun,
    DagSpec,
    DagState,
    ElementEnd,
    Outcome,
    Step,
)
from corral.frameworks.cron.dags.walk import Fate, Walk, all_after
from corral.frameworks.cron.schedule import Grid, read_schedule
from corral.lib.errors import Invalid

Ends = dict[str, dict[int, ElementEnd]]
"""What became of the elements of each step, by step and index."""


def pack(spec: DagSpec, version: int, now: float) -> DagRecord:
    """Errors: `Invalid` when the definition is too large to be one record."""
    packed = zlib.compress(msgspec.msgpack.encode(spec), 3)
    if len(packed) > MOST_PACKED_BYTES:
        raise Invalid(
            f"DAG {spec.name!r} takes {len(packed)} bytes to keep, {MOST_PACKED_BYTES} are the most; "
            "make it of fewer or shorter steps, or of arrays"
        )
    return DagRecord(name=spec.name, version=version, packed=packed, since_at=now)


def unpack(record: DagRecord) -> DagSpec:
    return msgspec.msgpack.decode(zlib.decompress(record.packed), type=DagSpec)


class Elements:
    """A step that has begun. Shapes: `items` has a text for each element of an array of items; `live` are those that
    have been begun in this life and are not over; those from `upcoming` on have not been begun."""

    __slots__ = ("count", "ended", "items", "live", "step", "upcoming")

    def __init__(self, step: Step, count: int, items: tuple[str, ...], ended: dict[int, ElementEnd]) -> None:
        self.step = step
        self.count = count
        self.items = items
        self.ended = ended
        self.live: set[int] = set()
        self.upcoming = 0

    def take_next(self) -> int | None:
        """The next element to begin, None while as many run as may, or when none is left."""
        most = self.step.array.most_running if self.step.array is not None else 0
        if most and len(self.live) >= most:
            return None
        while self.upcoming < self.count:
            index = self.upcoming
            self.upcoming += 1
            if index not in self.ended and index not in self.live:
                self.live.add(index)
                return index
        return None

    @property
    def is_over(self) -> bool:
        return len(self.ended) == self.count


class Work:
    """A run under way. Shapes: `begun` are its open steps, `ready` those of them that may have elements to begin,
    `standing` what still counted of elements when the run was taken up: after a resume steps that have yet to open."""

    __slots__ = ("begun", "ready", "run", "spec", "standing", "walk")

    def __init__(self, run: DagRun, spec: DagSpec, standing: Ends) -> None:
        self.run = run
        self.spec = spec
        self.standing = standing
        self.walk = Walk(spec)
        self.begun: dict[str, Elements] = {}
        self.ready: deque[Elements] = deque()


class Dags:
    """Shapes: `works` are the runs under way; `busy` those that have elements to begin, `closing` the jobs whose runs
    have to be ended because their DAG's run is over; `next_at` (ms) is when a schedule is due."""

    __slots__ = (
        "_steps", "busy", "closing", "ends", "grids", "keys", "next_at", "progress", "runs", "specs", "wakes", "works",
    )  # fmt: skip

    def __init__(self) -> None:
        self.specs: dict[tuple[str, int], DagSpec] = {}
        self.progress: dict[str, DagProgress] = {}
        self.grids: dict[str, Grid] = {}
        self.runs: dict[str, dict[str, DagRun]] = {}
        self.ends: dict[str, Ends] = {}
        self.keys: dict[tuple[str, str], str] = {}
        self.works: dict[str, Work] = {}
        self.busy: OrderedDict[str, None] = OrderedDict()
        self.closing: OrderedDict[str, None] = OrderedDict()
        self.wakes: dict[str, int] = {}
        self.next_at: int | None = None
        self._steps: dict[tuple[str, int], dict[str, Step]] = {}

    def find_step(self, name: str, version: int, step: str) -> Step | None:
        if (name, version) not in self.specs:
            self._steps.pop((name, version), None)
            return None
        steps = self._steps.get((name, version))
        if steps is None:
            steps = self._steps[name, version] = {one.name: one for one in self.specs[name, version].steps}
        return steps.get(step)

    def current(self, name: str) -> DagSpec | None:
        progress = self.progress.get(name)
        return None if progress is None else self.specs[name, progress.version]

    def find_run(self, run_id: str) -> DagRun | None:
        for runs in self.runs.values():
            if run_id in runs:
                return runs[run_id]
        return None

    def under_way(self, name: str) -> list[Work]:
        return [work for work in self.works.values() if work.run.dag == name]

    def adopt(self, spec: DagSpec, progress: DagProgress) -> None:
        """A DAG as it is now."""
        self.specs[spec.name, progress.version] = spec
        self.progress[spec.name] = progress
        self.runs.setdefault(spec.name, {})
        self.grids.pop(spec.name, None)
        if spec.schedule is not None:
            self.grids[spec.name] = read_schedule(spec.schedule, spec.time_zone)

    def add_run(self, run: DagRun) -> None:
        self.runs.setdefault(run.dag, {})[run.id] = run
        self.ends.setdefault(run.id, {})
        if run.key:
            self.keys[run.dag, run.key] = run.id

    def drop_run(self, run: DagRun) -> None:
        del self.runs[run.dag][run.id]
        self.ends.pop(run.id, None)
        self.works.pop(run.id, None)
        self.busy.pop(run.id, None)
        self.keys.pop((run.dag, run.key), None)

    def unused_versions(self) -> list[tuple[str, int]]:
        """Versions that are not the newest and of which no run is kept."""
        used = {(run.dag, run.version) for runs in self.runs.values() for run in runs.values()}
        used |= {(name, progress.version) for name, progress in self.progress.items()}
        return [each for each in self.specs if each not in used]

    def standing_ends(self, run: DagRun, spec: DagSpec) -> Ends:
        """What still counts of what became of elements, after all resumes."""
        found = self.ends.get(run.id, {})
        if not run.resumes:
            return {step: dict(ends) for step, ends in found.items()}
        again = [all_after(spec, resume.step) if resume.step else None for resume in run.resumes]

        def stands(end: ElementEnd) -> bool:
            return all(
                end.outcome is Outcome.SUCCEEDED if steps is None else end.step not in steps
                for steps in again[end.resumed :]
            )

        return {step: {i: end for i, end in ends.items() if stands(end)} for step, ends in found.items()}

    def wake(self, name: str, at: int | None) -> None:
        """Look at the DAG's schedule at this instant, in ms."""
        if at is None:
            self.wakes.pop(name, None)
        else:
            self.wakes[name] = at
        self.next_at = min(self.wakes.values(), default=None)

    def invariants(self) -> None:
        """Runs under way are kept, of a known version, and not over; elements end at most once."""
        for name, progress in self.progress.items():
            assert (name, progress.version) in self.specs, f"DAG {name} has no version {progress.version}"
        for run_id, work in self.works.items():
            assert work.run is self.runs[work.run.dag][run_id], f"run {run_id} is kept in two forms"
            assert work.run.state is DagState.RUNNING, f"run {run_id} is under way and {work.run.state}"
            assert set(work.begun) == set(work.walk.open), f"run {run_id} has other steps open than begun"
            for name, elements in work.begun.items():
                assert not elements.live & set(elements.ended), f"an element of {name} runs and is over"
        assert set(self.busy) <= set(self.works), "something is to begin of a run that is over"


def take_walk(dags: Dags, run: DagRun) -> Work:
    """A run walked as far as what is recorded of it goes."""
    spec = dags.specs[run.dag, run.version]
    work = Work(run, spec, dags.standing_ends(run, spec))
    walk_on(work)
    return work


def walk_on(work: Work) -> None:
    """Open all steps that may begin, and end those that are over at once."""
    while begun := work.walk.advance():
        for step in begun:
            _open(work, step, work.standing.get(step.name, {}))


def _open(work: Work, step: Step, ended: dict[int, ElementEnd]) -> None:
    try:
        count, items = _count_elements(work, step)
    except ValueError as error:
        work.walk.end(step.name, Fate(Outcome.FAILED, why=str(error)))
        return
    elements = Elements(step, count, items, ended)
    if elements.is_over:
        work.walk.end(step.name, fate_of(elements))
    else:
        work.begun[step.name] = elements
        work.ready.append(elements)


def _count_elements(work: Work, step: Step) -> tuple[int, tuple[str, ...]]:
    """How many elements a step has, and the item of each.

    Errors: `ValueError` when that cannot be told, or when it would be told too much.
    """
    told = sum(len((work.walk.fates[before].value or "").encode()) for before in step.after)
    if told > MOST_TOLD_BYTES:
        raise ValueError(
            f"the results of the {len(step.after)} steps before it come to {told} bytes, {MOST_TOLD_BYTES} are passed "
            "on; have them leave less, or write to a place that both sides know"
        )
    array = step.array
    if array is None:
        return 1, ()
    if not array.source:
        return (len(array.items) or array.count), array.items
    value = work.walk.fates[array.source].value
    if value is None:
        raise ValueError(f"step {array.source} has no result to make an array of")
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list):
        raise ValueError(
            f"step {array.source} has the result {value[:80]!r}, which is no JSON list to make an array of"
        )
    if len(found) > MOST_ELEMENTS:
        raise ValueError(f"step {array.source} lists {len(found)} items, an array has at most {MOST_ELEMENTS}")
    items = tuple(item if isinstance(item, str) else json.dumps(item) for item in found)
    for at, item in enumerate(items):
        if not can_be_told(item):
            raise ValueError(f"item {at} of the list that step {array.source} has left can be no variable of a task")
    return len(found), items


def can_be_told(text: str) -> bool:
    """Whether a text can be a variable of a task: without NUL, and nothing but whole characters.

    A JSON text may name half of a pair of UTF-16, which no UTF-8 has.
    """
    return "\0" not in text and not any("\ud800" <= char <= "\udfff" for char in text)


def fate_of(elements: Elements) -> Fate:
    """What a step has come to, all its elements being over."""
    ends = [elements.ended[index] for index in range(elements.count)]
    bad = [end for end in ends if end.outcome is not Outcome.SUCCEEDED]
    if bad:
        outcome = Outcome.FAILED if any(end.outcome is Outcome.FAILED for end in bad) else Outcome.KILLED
        many = f"{len(bad)} of {len(ends)} elements: " if elements.step.array is not None else ""
        return Fate(outcome, why=f"{many}{bad[0].why}")
    if not elements.step.job.result:
        return Fate(Outcome.SUCCEEDED)
    if elements.step.array is None:
        return Fate(Outcome.SUCCEEDED, ends[0].value)
    value = json.dumps([end.value for end in ends])
    if len(value) > MOST_VALUE_BYTES:
        why = f"the results of its elements come to {len(value)} bytes, {MOST_VALUE_BYTES} are passed on"
        return Fate(Outcome.FAILED, why=why)
    return Fate(Outcome.SUCCEEDED, value)
