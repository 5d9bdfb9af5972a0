"""What a simulation measures while it runs: looks at evenly spaced instants, few enough to plot, and waiting times.

- *allocated*: the part of a resource that tasks hold.
- *fragmentation*: the part of what is free that does no good. Of GPUs, what the usual demands could not use, averaged
  over these demands; of CPUs, what is free on agents where the median demand does not fit. Source: Weng et al., "Beware
  of Fragmentation", USENIX ATC'23, section 4, for the former.
- *share* and *fair share* of a role: its dominant share, and the one that it would have if everything were divided like
  water by weight, each role up to its demand. Source: Ghodsi et al., "Dominant Resource Fairness", NSDI'11.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from corral.allocator.packing import WHOLE
from corral.model.constraints import Constraint, is_counting, looks_at_tasks
from corral.model.resources import ResourceKind
from corral.sim.books import GPUS, Books, may_hold
from corral.sim.workload import Batch

MOST_SHAPES = 24
"""How many different demands stand for all of them; the most frequent ones."""

MOST_ROLES = 16
"""How many roles are followed over time: those that ask the most."""

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


class Waits(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Of the instances that were placed, from arrival to placement. Units: seconds."""

    placed: int
    mean: float = 0.0
    p50: float = 0.0
    p90: float = 0.0
    p99: float = 0.0
    most: float = 0.0


def waits_of(seconds: Sequence[float]) -> Waits:
    """Shapes: percentiles are waiting times that occurred: that of the instance at the rank."""
    if not seconds:
        return Waits(placed=0)
    ordered = sorted(seconds)
    at = [ordered[min(len(ordered) - 1, int(len(ordered) * part))] for part in (0.5, 0.9, 0.99)]
    p50, p90, p99 = (round(each, 3) for each in at)
    mean = round(sum(ordered) / len(ordered), 3)
    return Waits(placed=len(ordered), mean=mean, p50=p50, p90=p90, p99=p99, most=round(ordered[-1], 3))


class RoleSeries(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    share: tuple[float, ...]
    fair: tuple[float, ...]


class Series(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Shapes: all of one length, that of `at`; parts of 1, None where there is nothing free or no GPU."""

    at: tuple[float, ...]
    running: tuple[int, ...]
    waiting: tuple[int, ...]
    allocated: Mapping[str, tuple[float, ...]]
    fragmentation: Mapping[str, tuple[float | None, ...]]
    roles: Mapping[str, RoleSeries]


class Look(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One instant."""

    running: int
    waiting: int
    allocated: Mapping[str, float]
    fragmentation: Mapping[str, float | None]
    shares: Mapping[str, tuple[float, float]]


class Usual(msgspec.Struct, frozen=True, kw_only=True):
    """A demand that stands for many. Shapes: `part` of all that ask GPUs."""

    amounts: Mapping[str, int]
    constraints: tuple[Constraint, ...]
    part: float


def usual_demands(batches: Iterable[Batch]) -> tuple[tuple[Usual, ...], dict[str, int]]:
    """The most frequent demands for GPUs, and the median demand of all instances for CPU and memory."""
    counts: Counter[tuple[tuple[tuple[str, int], ...], tuple[Constraint, ...]]] = Counter()
    for batch in batches:
        amounts = tuple((r.name, r.milli) for r in batch.want.resources if r.kind is ResourceKind.SCALAR)
        fixed = tuple(c for c in batch.want.constraints if not is_counting(c) and not looks_at_tasks(c))
        counts[amounts, fixed] += len(batch.fates)
    gpu = [(shape, n) for shape, n in counts.most_common() if dict(shape[0]).get(GPUS)][:MOST_SHAPES]
    everything = sum(n for _, n in gpu)
    usual = tuple(Usual(amounts=dict(amounts), constraints=fixed, part=n / everything) for (amounts, fixed), n in gpu)
    median = {
        name: _median((dict(amounts).get(name, 0), n) for (amounts, _), n in counts.items()) for name in ("cpus", "mem")
    }
    return usual, median


def _median(values: Iterable[tuple[int, int]]) -> int:
    """Of values that each occur so often; the upper one of two."""
    ordered = sorted(values)
    half, seen = sum(n for _, n in ordered) // 2, 0
    for value, n in ordered:
        seen += n
        if seen > half:
            return value
    return 0


class Fragmentation:
    """How much of what is free does no good, for one workload."""

    def __init__(self, batches: Sequence[Batch]) -> None:
        self._usual, self._median = usual_demands(batches)
        self._masks: dict[tuple[Constraint, ...], Mask] = {}
        self._version = -1

    def measure(self, books: Books) -> dict[str, float | None]:
        if self._version != books.version:
            self._masks.clear()
            self._version = books.version
        return {"cpus": self._of_cpus(books), GPUS: self._of_gpus(books)}

    def _of_cpus(self, books: Books) -> float | None:
        free = books.free.get("cpus")
        if free is None or (everything := int(free[books.open].sum())) <= 0:
            return None
        fits = books.open.copy()
        for name, milli in self._median.items():
            fits &= books.free[name] >= milli if name in books.free else np.full(len(fits), milli == 0)
        return round(1.0 - int(free[fits].sum()) / everything, 6)

    def _of_gpus(self, books: Books) -> float | None:
        if GPUS not in books.free or (everything := int(books.gpus[books.open].sum())) <= 0:
            return None
        wasted = 0.0
        usable: dict[int, npt.NDArray[np.int64]] = {}
        for one in self._usual:
            asked = one.amounts[GPUS]
            if asked not in usable:
                usable[asked] = _usable(books, asked)
            fits = self._mask(books, one.constraints) & (usable[asked] > 0)
            for name, milli in one.amounts.items():
                if name != GPUS:
                    fits = fits & (books.free[name] >= milli if name in books.free else milli == 0)
            wasted += one.part * (everything - int(usable[asked][fits].sum()))
        return round(wasted / everything, 6)

    def _mask(self, books: Books, constraints: tuple[Constraint, ...]) -> Mask:
        found = self._masks.get(constraints)
        if found is None:
            found = books.open.copy()
            for row in books.rows.values():
                if not all(may_hold(c, row.view) for c in constraints):
                    found[row.row] = False
            self._masks[constraints] = found
        return found


def _usable(books: Books, asked: int) -> npt.NDArray[np.int64]:
    """What each agent has free on GPUs that a demand for so much could use."""
    if asked < WHOLE:
        found: npt.NDArray[np.int64] = np.where(books.gpus >= asked, books.gpus, 0).sum(axis=1)
        return found
    whole: npt.NDArray[np.int64] = (books.gpus >= WHOLE).sum(axis=1)
    return np.where(whole * WHOLE >= asked, whole * WHOLE, 0)


class Claim:
    """What a role holds and what it would hold if everything it wants were placed. Units: thousandths by resource."""

    __slots__ = ("held", "waiting")

    def __init__(self) -> None:
        self.held: Counter[str] = Counter()
        self.waiting: Counter[str] = Counter()

    @property
    def wanted(self) -> dict[str, int]:
        return {name: self.held[name] + self.waiting[name] for name in {**self.held, **self.waiting}}


def dominant(amounts: Mapping[str, int], total: Mapping[str, int]) -> float:
    return max((milli / total[name] for name, milli in amounts.items() if total.get(name, 0) > 0), default=0.0)


def fair_shares(
    demands: Mapping[str, Mapping[str, int]], weights: Mapping[str, float], total: Mapping[str, int]
) -> dict[str, float]:
    """The dominant share of each role when all fill evenly by weight, each up to its demand, until resources run out.

    Shapes: `demands` amounts by role; a role of a tree has its parent's weight divided among the siblings that ask.
    """
    names = [name for name, milli in total.items() if milli > 0]
    sizes = np.array([total[name] for name in names], dtype=np.float64)
    asking = {role: amounts for role, amounts in demands.items() if dominant(amounts, total) > 0.0}
    found = dict.fromkeys(demands, 0.0)
    if not asking:
        return found
    roles = list(asking)
    parts = np.array([[asking[role].get(name, 0) for name in names] for role in roles]) / sizes
    goals = parts.max(axis=1)
    slopes = parts / goals[:, None]
    pull = np.array([_pull(role, roles, weights) for role in roles])
    level, left = np.zeros(len(roles)), np.ones(len(names))
    active = np.ones(len(roles), dtype=np.bool_)
    while active.any():
        rates = (pull[active, None] * slopes[active]).sum(axis=0)
        until_empty = min((left[i] / rates[i] for i in range(len(names)) if rates[i] > 0), default=np.inf)
        until_full = ((goals - level)[active] / pull[active]).min()
        step = max(0.0, min(until_empty, until_full))
        level[active] += pull[active] * step
        left -= rates * step
        spent = left <= 1e-12
        active &= (goals - level > 1e-12) & ~(slopes[:, spent] > 0).any(axis=1)
    found.update({role: float(level[i]) for i, role in enumerate(roles)})
    return found


def _pull(role: str, roles: Sequence[str], weights: Mapping[str, float]) -> float:
    """The product of a role's parts among its siblings, level by level; a parent's own demand is one more child."""
    pull, parts = 1.0, role.split("/")
    for depth in range(len(parts) + 1):
        parent = "/".join(parts[:depth])
        level = {_child(each, depth) for each in roles if depth == 0 or each == parent or each.startswith(parent + "/")}
        if depth == len(parts):
            return pull / sum(weights.get(each, 1.0) if each != parent else 1.0 for each in level)
        mine = "/".join(parts[: depth + 1])
        pull *= weights.get(mine, 1.0) / sum(1.0 if each == parent else weights.get(each, 1.0) for each in level)
    return pull


def _child(role: str, depth: int) -> str:
    return "/".join(role.split("/")[: depth + 1])


class Sampler:
    """Keeps looks at evenly spaced instants; when there are too many it drops every other and looks half as often.

    Shapes: between two instants of the simulation nothing changes, so one look serves all that lie between them.
    """

    def __init__(self, start_at: float, step_s: float, most: int) -> None:
        self._looks: list[tuple[float, Look]] = []
        self._start_at = start_at
        self._step_s = max(step_s, 1e-3)
        self._most = max(2, most)
        self._next = 0

    def due(self, now: float) -> bool:
        """Whether a look at what holds until `now` is wanted."""
        return self._start_at + self._next * self._step_s < now

    def add(self, now: float, look: Look) -> None:
        while self.due(now):
            self._looks.append((self._start_at + self._next * self._step_s, look))
            self._next += 1
            if len(self._looks) > self._most:
                self._looks = self._looks[::2]
                self._step_s *= 2
                self._next = len(self._looks)

    def last(self, now: float, look: Look) -> None:
        """The state at the end, whenever that is."""
        self.add(now, look)
        self._looks.append((now, look))

    def series(self, roles: Sequence[str]) -> Series:
        looks = [look for _, look in self._looks]
        names = sorted({name for look in looks for name in look.allocated})
        kinds = sorted({name for look in looks for name in look.fragmentation})
        return Series(
            at=tuple(round(at, 3) for at, _ in self._looks),
            running=tuple(look.running for look in looks),
            waiting=tuple(look.waiting for look in looks),
            allocated={name: tuple(look.allocated.get(name, 0.0) for look in looks) for name in names},
            fragmentation={name: tuple(look.fragmentation.get(name) for look in looks) for name in kinds},
            roles={
                role: RoleSeries(
                    share=tuple(look.shares.get(role, (0.0, 0.0))[0] for look in looks),
                    fair=tuple(look.shares.get(role, (0.0, 0.0))[1] for look in looks),
                )
                for role in roles
            },
        )
