"""What may be lent of what tasks hold and do not use, and which work on it ends when that turns out to be too much.

Rules: never more is lent than the slack less the margin; what is not measured counts as fully used; only what
borrows is ever ended. Units: cpus and MB of memory in thousandths, as resources have them; instants are float seconds
UTC. Source: Mesos' resource estimator and QoS controller (section 18 of its contract).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from corral.model.ids import ContainerId

CPUS, MEM = "cpus", "mem"
STEPS: Mapping[str, int] = {CPUS: 100, MEM: 64_000}
"""What is lent is a multiple of these, and grows by two of them at least."""


class Sample(NamedTuple):
    """What one task had used at an instant. Units: seconds of processor time since its start; MB that are resident."""

    at: float
    cpu_s: float
    mem_mb: float


class Held(NamedTuple):
    """One live task. Shapes: `allocated` and `used` by name of resource; `used` is None while it is not measured.

    What is `revocable` lends nothing. It `borrows` when it runs on what others leave unused, and not only on what is
    idle. `ending` when it has been asked to end.
    """

    container_id: ContainerId
    since_at: float
    allocated: Mapping[str, int]
    used: Mapping[str, int] | None = None
    revocable: bool = False
    borrows: bool = False
    ending: bool = False


class SlackState:
    """Shapes: `told` is what the master was last to know; `pressed_at` is since when use has been too much."""

    __slots__ = ("pressed_at", "samples", "told")

    def __init__(self) -> None:
        self.samples: dict[ContainerId, tuple[Sample, ...]] = {}
        self.told: dict[str, int] = dict.fromkeys(STEPS, 0)
        self.pressed_at: float | None = None


def follow(samples: Sequence[Sample], new: Sample, window_s: float) -> tuple[Sample, ...]:
    """Take a sample; what is older than the window goes, but for the newest of that.

    Shapes: processor time that went back is of another process, for which everything starts anew.
    """
    if samples and (new.at <= samples[-1].at or new.cpu_s < samples[-1].cpu_s):
        return (new,)
    first = 0
    while first + 1 < len(samples) and samples[first + 1].at <= new.at - window_s:
        first += 1
    return (*samples[first:], new)


def steady_use(samples: Sequence[Sample], window_s: float) -> dict[str, int] | None:
    """What a task can be relied upon to need: of its mean and its latest use of cpus the higher, its peak of memory.

    Shapes: None until it was followed for a whole window.
    """
    if len(samples) < 2 or samples[-1].at - samples[0].at < window_s:
        return None
    cpus = max(_rate(samples[0], samples[-1]), _rate(samples[-2], samples[-1]))
    return {CPUS: cpus, MEM: max(_milli(each.mem_mb) for each in samples)}


def latest_use(samples: Sequence[Sample]) -> dict[str, int] | None:
    """What a task uses now; None while it was seen less than twice."""
    if len(samples) < 2:
        return None
    return {CPUS: _rate(samples[-2], samples[-1]), MEM: _milli(samples[-1].mem_mb)}


def _rate(before: Sample, after: Sample) -> int:
    return _milli((after.cpu_s - before.cpu_s) / (after.at - before.at))


def _milli(value: float) -> int:
    """Rounded up, but for what floats add."""
    return -int(-value * 1000 // 1) if value >= 1e-9 else 0


def estimate_slack(tasks: Iterable[Held], margin: float) -> dict[str, int]:
    """What may be lent of what these tasks do not use. Units: `margin` is a fraction of what they were allocated.

    Shapes: revocable tasks do not count.
    """
    slack, kept = dict.fromkeys(STEPS, 0), dict.fromkeys(STEPS, 0)
    for task in tasks:
        if task.revocable:
            continue
        for name in STEPS:
            allocated = task.allocated.get(name, 0)
            slack[name] += allocated - (allocated if task.used is None else task.used.get(name, 0))
            kept[name] += allocated
    return {name: max(slack[name] - _share(margin, kept[name]), 0) for name in STEPS}


def settle_told(told: Mapping[str, int], found: Mapping[str, int]) -> dict[str, int]:
    """What is to be told, when `told` was last: less at once, more only when it is two steps more.

    Shapes: never more than what was found.
    """
    settled = {}
    for name, step in STEPS.items():
        before, now = told.get(name, 0), found.get(name, 0)
        same = before <= now < before + 2 * step
        settled[name] = before if same else now // step * step
    return settled


def find_pressed(tasks: Iterable[Held], total: Mapping[str, int], threshold: float) -> dict[str, int]:
    """By how much use is above the threshold, for each resource that is short. Units: `threshold` fraction of `total`.

    Shapes: tasks that borrow and are on their way out do not count any more.
    """
    used = dict.fromkeys(STEPS, 0)
    for task in tasks:
        if not (task.borrows and task.ending):
            for name in STEPS:
                used[name] += _use(task, name)
    most = {name: int(total.get(name, 0) * threshold) for name in STEPS}
    return {name: used[name] - most[name] for name in STEPS if used[name] > most[name]}


def choose_victims(tasks: Iterable[Held], pressed: Mapping[str, int]) -> list[Held]:
    """The tasks that borrow to end, the newest first, until nothing is short; those that use nothing of it stay."""
    lack = dict(pressed)
    victims = []
    candidates = [task for task in tasks if task.revocable and task.borrows and not task.ending]
    for task in sorted(candidates, key=lambda task: (-task.since_at, task.container_id)):
        if not any(n > 0 and _use(task, name) for name, n in lack.items()):
            continue
        victims.append(task)
        for name in lack:
            lack[name] -= _use(task, name)
    return victims


def _use(task: Held, name: str) -> int:
    return task.allocated.get(name, 0) if task.used is None else task.used.get(name, 0)


def _share(fraction: float, n: int) -> int:
    """Rounded up."""
    return -int(-fraction * n // 1)
