"""Why a job is where it is, and since when what waits does so: nothing waits without a reason. Pure."""

from collections.abc import Iterator

from corral.frameworks.batch.spec import ACTIVE, TERMINAL, JobState
from corral.frameworks.batch.state import Job, Line, Shape, State
from corral.lib.units import format_timestamp
from corral.runtime.core import Effect
from corral.sdk.answers import describe
from corral.sdk.patience import Waiting


def reason_of(state: State, job: Job, now: float) -> str:
    """Why a job is where it is; nothing waits without a reason."""
    run = job.run
    if run is not None and run.state in TERMINAL:
        return run.reason
    if run is not None and run.state in ACTIVE:
        if run.ending or run.evicted:
            return f"it is being ended: {run.ending or 'others need its place'}"
        if run.unreachable_at is not None:
            return f"agent {run.agent_id} is silent since {format_timestamp(run.unreachable_at)}"
        return "" if run.state is JobState.RUNNING else "its agent starts it"
    if job.is_array and job.array is not None and (job.array.ending or job.array.parked):
        return job.array.ending or "as many of its elements run as may"
    return _reason_to_wait(state, job, now)


def _reason_to_wait(state: State, job: Job, now: float) -> str:
    run = job.run
    before = f"; before: {run.reason}" if run is not None and run.reason else ""
    if run is not None and run.ready_at > now:
        return f"its next attempt is made at {format_timestamp(run.ready_at)}{before}"
    owner = state.owner(job.spec.owner)
    if owner.record.paused:
        return f"owner {owner.name} is paused{before}"
    if owner.room <= 0:
        return f"owner {owner.name} has {owner.active} jobs under way and may have {owner.record.max_running}{before}"
    line = job.line or (job.array.parent.line if job.array is not None and job.element is not None else None)
    return reason_of_line(state, line, before)


def reason_of_line(state: State, line: Line | None, before: str) -> str:
    """Why nothing of a line is launched just now. Shapes: `before` is added, of what was before."""
    if not state.connected:
        return f"the framework is not connected to a master{before}"
    if line is None or line.shape.explanation is None:
        return f"it waits for its turn among {state.queued} jobs{before}"
    return f"{describe(line.shape.explanation)}{before}"


# What waits long.


def look(state: State, now: float) -> list[Effect]:
    """Tell of what waits long, and note whether the master says anything of what waits."""
    return state.patience.look(_list_waiting(state), now, slow_s=state.config.slow_start_s, connected=state.connected)


def oldest_s(state: State, now: float) -> float:
    """How long what waits longest has waited, of what could be launched; 0 when nothing does."""
    return max((now - first(line).queued_at for line in _open_lines(state)), default=0.0)


def first(line: Line) -> Job:
    """The next of a line that is asked for; a line is never without one."""
    return next(job for job in line.jobs if job.line is line)


def _open_lines(state: State) -> Iterator[Line]:
    """Those of owners that may have more under way: the others know why they wait."""
    for owner in state.owners.values():
        if owner.room > 0:
            yield from owner.lines.values()


def _list_waiting(state: State) -> Iterator[Waiting]:
    """Every shape that is asked for, as patience looks at it."""
    lines: dict[Shape, list[Line]] = {}
    for line in _open_lines(state):
        lines.setdefault(line.shape, []).append(line)
    for shape, found in lines.items():
        known = state.demands.known(shape.want.id) > 0
        oldest = min((first(line) for line in found), key=lambda job: job.queued_at)
        explained = shape.explanation is not None or not known
        count = sum(line.count for line in found)
        why = reason_of_line(state, oldest.line, "")
        yield Waiting(shape.want.id, oldest.queued_at, count, oldest.id, why, explained)
