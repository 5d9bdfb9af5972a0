"""Says what would become of job definitions, each with whatever in it means something else here than in Chronos.

Nothing is changed. The definitions are judged together: a parent may stand among them. Pure.
"""

import re
from typing import Any

import msgspec

from corral.frameworks.cron.chronos import ReadJob
from corral.frameworks.cron.graph import check_parents
from corral.frameworks.cron.launch import read_constraint
from corral.frameworks.cron.schedule import Repeat, fill_start, period_s, read_schedule
from corral.frameworks.cron.spec import JobSpec
from corral.frameworks.cron.state import State
from corral.lib.errors import CorralError

_OFFSET = re.compile(r"(Z|[+-]\d{2}:?\d{2})$")
_MONTHLY = re.compile(r"P\d+[YM]")


class CheckJobs(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Shapes: one for each definition, with its name: what was read, or why it cannot be read.

    With `check` the answer waits to know which of them no agent could ever run.
    """

    jobs: tuple[tuple[str, ReadJob | str], ...]
    check: bool = False


def check_jobs(state: State, command: CheckJobs, now: float) -> list[dict[str, Any]]:
    """Shapes: a row each: `verdict` is new, changed, same or refused; `notes` are for people."""
    together = {name: read.spec.parents for name, read in command.jobs if isinstance(read, ReadJob)}
    known = {**dict(state.parents), **together}
    return [{"name": name, **_judge(state, known, read, now)} for name, read in command.jobs]


def _judge(state: State, known: dict[str, tuple[str, ...]], read: ReadJob | str, now: float) -> dict[str, Any]:
    if isinstance(read, str):
        return {"verdict": "refused", "notes": [read]}
    spec = read.spec
    try:
        notes = _note(spec, now)
        for constraint in spec.constraints:
            read_constraint(constraint)
        if spec.parents:
            check_parents(spec.name, spec.parents, known)
    except CorralError as error:
        return {"verdict": "refused", "notes": [error.message]}
    if read.unknown:
        notes.append(f"nobody knows {', '.join(read.unknown[:10])}, which is left out")
    job = state.visible(spec.name)
    same = job is not None and job.spec == msgspec.structs.replace(spec, schedule=job.spec.schedule)
    if job is not None and same and spec.schedule not in (job.spec.schedule, job.record.given):
        same = False
    return {"verdict": "new" if job is None else "same" if same else "changed", "notes": notes}


def _note(spec: JobSpec, now: float) -> list[str]:
    """Errors: `Invalid` as putting the job would."""
    notes = []
    if spec.epsilon is not None:
        period_s(spec.epsilon)
        notes.append(
            f"an occurrence that is more than {spec.epsilon} late is skipped; leave epsilon out to make it good"
        )
    if spec.schedule is None:
        return notes
    grid = read_schedule(fill_start(spec.schedule, spec.time_zone, now), spec.time_zone)
    if not isinstance(grid, Repeat):
        return notes
    _, start, period = spec.schedule.split("/")
    if start and not spec.time_zone and "T" in start and _OFFSET.search(start) is None:
        notes.append("its start has no offset: it is UTC here and was the server's zone; name one in scheduleTimeZone")
    if _MONTHLY.match(period):
        notes.append("months count from the start as it stands; submit the start that was meant if it has drifted")
    if grid.count == 0:
        notes.append("it has no firing left")
    return notes
