"""Who is next: which jobs wait where, what is asked of the master for them, and whose turn an offer is.

Rules: priority first, one higher for every ten minutes of waiting up to a bound; within a priority the owner who has
least of what its weight entitles it to; within an owner first come first served. What does not fit anywhere now holds
up nothing else: shapes are asked for side by side.
Source: the batch contract, principles 4 and the rule of priority.
"""

from collections.abc import Iterable

from corral.frameworks.batch.launch import make_want
from corral.frameworks.batch.spec import JobSpec, JobState
from corral.frameworks.batch.state import URGENT, ArrayEntry, Job, Line, OwnerEntry, Shape, State, cost_of, make_element
from corral.model.offer import Want

AGE_S = 600.0
MOST_AGE = 20
LEAST_BLOCKED = 64
"""How many instances are asked for at least of what the cluster has no room for now."""

PORTIONS = 64


def shape_of(state: State, spec: JobSpec, priority: int) -> Shape:
    docker = bool(spec.image or spec.container)
    need = (spec.cpus, spec.mem, spec.disk, spec.gpus, priority, spec.constraints, docker)
    shape = state.shapes_by_need.get(need)
    if shape is None:
        want = make_want(spec, priority, state.config)
        shape = state.shapes.get(want.id)
        if shape is None:
            shape = state.shapes[want.id] = Shape(want, cost_of(spec))
        state.shapes_by_need[need] = shape
    return shape


def drop_idle_shapes(state: State) -> None:
    """Shapes that nothing waits for are forgotten, so that their number stays bounded by what is there."""
    idle = {shape.want.id for shape in state.shapes.values() if not shape.lines}
    wanted = {want_id for held in state.held for want_id in held.shapes}
    idle -= wanted
    state.shapes_by_need = {k: s for k, s in state.shapes_by_need.items() if s.want.id not in idle}
    for want_id in idle:
        del state.shapes[want_id]


def _line(state: State, job: Job) -> Line:
    shape = shape_of(state, job.spec, job.priority)
    line = shape.lines.get(job.spec.owner)
    if line is None:
        owner = state.owner(job.spec.owner)
        line = shape.lines[job.spec.owner] = owner.lines[shape.want.id] = Line(owner, shape)
    return line


def join(state: State, job: Job, *, front: bool = False) -> None:
    """Let a job, or the elements of an array that were never launched, stand in line."""
    assert job.state is JobState.QUEUED
    line = job.line = _line(state, job)
    if front:
        line.jobs.appendleft(job)
    else:
        line.jobs.append(job)
    line.count += _worth(job)
    state.wants_changed = True
    note_urgent(state, line.shape)


def note_urgent(state: State, shape: Shape) -> None:
    """Jobs of this shape may be what others have to make room for."""
    if shape.blocked and shape.want.priority >= URGENT and shape.lines:
        state.urgent = True


def leave(state: State, job: Job, *, for_good: bool = True) -> None:
    """The job can not be launched any more; one that is not gone `for_good` may come back."""
    line, job.line = job.line, None
    if line is None:
        return
    line.count -= _worth(job)
    if not for_good:
        line.jobs.remove(job)
    _tidy(line)
    state.wants_changed = True


def _worth(job: Job) -> int:
    array = job.array
    return array.fresh if array is not None and job.element is None else 1


def _tidy(line: Line) -> None:
    """Let go of a line in which nothing is left that could be launched."""
    if line.count == 0:
        line.jobs.clear()
        line.owner.lines.pop(line.shape.want.id, None)
        line.shape.lines.pop(line.owner.name, None)


def take(state: State, shape: Shape) -> Job | None:
    """The next job of this shape, taken out of its line; None when nobody may have one."""
    line = _neediest(shape)
    if line is None:
        return None
    while True:
        job = line.jobs[0]
        if job.line is not line:
            line.jobs.popleft()
            continue
        array = job.array if job.element is None else None
        if array is None:
            line.jobs.popleft()
            job.line = None
            line.count -= 1
            _tidy(line)
            return job
        return _next_element(state, line, job, array)


def _next_element(state: State, line: Line, job: Job, array: ArrayEntry) -> Job:
    while array.next in array.skipped:
        array.skipped.discard(array.next)
        array.next += 1
    element = array.elements[array.next] = make_element(job, array.next)
    array.next += 1
    line.count -= 1
    array.parked = array.fresh > 0 and array.is_full(more=1)
    if array.fresh == 0 or array.parked:
        line.jobs.popleft()
        job.line = None
        line.count -= array.fresh
    _tidy(line)
    return element


def _neediest(shape: Shape) -> Line | None:
    best: Line | None = None
    least = 0.0
    for line in shape.lines.values():
        owner = line.owner
        if owner.room <= 0:
            continue
        share = owner.cost / owner.record.weight
        if best is None or share < least:
            best, least = line, share
    return best


def unpark(state: State, array: ArrayEntry) -> None:
    """An element has ended: the array may have room for the next."""
    if array.parked and not array.is_full() and not array.ending:
        array.parked = False
        join(state, array.parent, front=True)


# What is asked of the master.


def effective_priority(line: Line, now: float) -> int:
    """The priority of the line's first job, higher for how long it has waited."""
    waited_s = now - next(job for job in line.jobs if job.line is line).queued_at
    return line.shape.want.priority + min(MOST_AGE, int(max(waited_s, 0.0) / AGE_S))


def find_wants(state: State, now: float) -> list[Want]:
    """What to ask for now: as many instances of each shape as fairness and the window admit."""
    free: list[tuple[int, Line]] = []
    blocked: list[tuple[int, Line]] = []
    counts: dict[Shape, int] = {}
    priorities: dict[Shape, int] = {}
    for owner in state.owners.values():
        if not owner.lines or owner.room <= 0:
            continue
        for line in owner.lines.values():
            shape = line.shape
            priority = effective_priority(line, now)
            priorities[shape] = max(priority, priorities.get(shape, priority))
            if shape.never_at is not None:
                counts[shape] = 1
            else:
                (blocked if shape.blocked else free).append((priority, line))
    _share_out(free, state.config.window, counts)
    _share_out(blocked, max(LEAST_BLOCKED, len(state.active) // 8), counts)
    for held in state.held:
        for want_id in held.shapes:
            shape = state.shapes[want_id]
            counts.setdefault(shape, 1)
            priorities.setdefault(shape, shape.want.priority)
    return [
        state.nodes.wish(make_wanted(shape.want, count, priorities[shape]), shape.want.id, now)
        for shape, count in counts.items() if count
    ]  # fmt: skip


def make_wanted(want: Want, count: int, priority: int) -> Want:
    return Want(
        id=want.id, role=want.role, count=count, resources=want.resources, constraints=want.constraints,
        priority=priority, runtime=want.runtime, preempts=False,
    )  # fmt: skip


def _share_out(found: list[tuple[int, Line]], most: int, counts: dict[Shape, int]) -> None:
    """Give instances to lines: the higher priorities first, then portion by portion to whoever has least."""
    levels: dict[int, list[Line]] = {}
    for priority, line in found:
        levels.setdefault(priority, []).append(line)
    rooms: dict[OwnerEntry, int] = {}
    costs: dict[OwnerEntry, float] = {}
    for priority in sorted(levels, reverse=True):
        if most <= 0:
            return
        most -= _share_level(levels[priority], most, counts, rooms, costs)


def _share_level(
    lines: Iterable[Line], most: int, counts: dict[Shape, int], rooms: dict[OwnerEntry, int],
    costs: dict[OwnerEntry, float],
) -> int:  # fmt: skip
    waiting: dict[OwnerEntry, dict[Line, int]] = {}
    for line in lines:
        waiting.setdefault(line.owner, {})[line] = line.count
        rooms.setdefault(line.owner, line.owner.room)
        costs.setdefault(line.owner, line.owner.cost)
    given = 0
    portion = most if len(waiting) == 1 else max(1, most // PORTIONS)
    while waiting and given < most:
        owner = min(waiting, key=lambda o: (costs[o] / o.record.weight, o.name))
        mine = waiting[owner]
        line = min(mine, key=_order)
        count = min(portion, mine[line], rooms[owner], most - given)
        counts[line.shape] = counts.get(line.shape, 0) + count
        given += count
        costs[owner] += count * line.shape.cost
        rooms[owner] -= count
        mine[line] -= count
        if mine[line] <= 0:
            del mine[line]
        if not mine or rooms[owner] <= 0:
            del waiting[owner]
    return given


def _order(line: Line) -> tuple[float, str]:
    first = next(job for job in line.jobs if job.line is line)
    return first.queued_at, line.shape.want.id
