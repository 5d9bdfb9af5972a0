"""Says what would become of job definitions, each with whatever in it means something else here than in Chronos.

Nothing is changed. The definitions are judged together: a parent may stand among them, and what comes after one that is
refused, and is not here already, is refused too. Pure.
"""

import re
from typing import Any

import msgspec

from corral.frameworks.cron.chronos import ReadJob, write_job
from corral.frameworks.cron.graph import Parents, check_parents
from corral.frameworks.cron.launch import read_constraint
from corral.frameworks.cron.schedule import Repeat, fill_start, period_s, read_schedule
from corral.frameworks.cron.spec import JobSpec, Misfire, Progress
from corral.frameworks.cron.state import State
from corral.lib.errors import CorralError
from corral.lib.order import peel, turn

_MOST_NAMED = 5
_MOST_SHOWN = 60
_OFFSET = re.compile(r"(Z|[+-]\d{2}:?\d{2})$")
_MONTHLY = re.compile(r"P\d+[YM]")


class CheckJobs(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Shapes: one for each definition, with its name: what was read, or why it cannot be read.

    With `check` the answer waits to know which of them no agent could ever run.
    """

    jobs: tuple[tuple[str, ReadJob | str], ...]
    check: bool = False


def check_jobs(state: State, command: CheckJobs, now: float) -> list[dict[str, Any]]:
    """Shapes: a row each, in their order: `verdict` is new, changed, same or refused; `notes` are for people."""
    together = {name: read.spec.parents for name, read in command.jobs if isinstance(read, ReadJob)}
    known = {**dict(state.parents), **{name: together.get(name, ()) for name, _ in command.jobs}}
    circular = _find_circular(known)
    rows: dict[str, dict[str, Any]] = {}
    found = []
    for name, read in command.jobs:
        if name and name in rows:
            found.append({"name": name, **_refusal(f"job {name!r} is there twice; leave one of them out")})
            continue
        rows[name] = {"name": name, **_judge(state, known, name in circular, read, now)}
        found.append(rows[name])
    lost = [name for name, row in rows.items() if row["verdict"] == "refused" and state.visible(name) is None]
    children = turn(together)
    for name in lost:
        for child in children.get(name, ()):
            if rows[child]["verdict"] != "refused":
                rows[child] |= _refusal(f"its parent {name} is refused")
                lost += [child] if state.visible(child) is None else []
    return found


def _refusal(why: str) -> dict[str, Any]:
    return {"verdict": "refused", "notes": [why]}


def _find_circular(known: Parents) -> set[str]:
    """The jobs of circles, and those between two of them: of each of these the path is worth looking for."""
    before = {name: {parent for parent in parents if parent in known} for name, parents in known.items()}
    behind = before.keys() - set(peel(before))
    after = {name: {c for c in below if c in behind} for name, below in turn(before).items() if name in behind}
    left = {name: after.get(name, set()) for name in behind}
    return behind - set(peel(left))


def _judge(state: State, known: Parents, in_circle: bool, read: ReadJob | str, now: float) -> dict[str, Any]:
    if isinstance(read, str):
        return _refusal(read)
    spec = read.spec
    try:
        notes = _note(spec, now)
        for constraint in spec.constraints:
            read_constraint(constraint)
        if spec.parents:
            check_parents(spec.name, spec.parents, known, has_children=in_circle)
    except CorralError as error:
        return _refusal(error.message)
    if read.unknown:
        notes.append(f"nobody knows {', '.join(read.unknown[:10])}, which is left out")
    job = state.visible(spec.name)
    same = job is not None and job.spec == msgspec.structs.replace(spec, schedule=job.spec.schedule)
    if job is not None and same and spec.schedule not in (job.spec.schedule, job.record.given):
        same = False
    if job is None and _has_passed(spec, now):
        notes.append("its start has passed, so it runs once as soon as it is here and enabled")
    if job is not None and not same:
        notes = [*_differences(state, job.spec, spec), *notes]
    return {"verdict": "new" if job is None else "same" if same else "changed", "notes": notes}


def _has_passed(spec: JobSpec, now: float) -> bool:
    """Whether a firing is made good at once."""
    if spec.schedule is None or spec.epsilon is not None or spec.misfire is Misfire.SKIP:
        return False
    grid = read_schedule(fill_start(spec.schedule, spec.time_zone, now), spec.time_zone)
    return isinstance(grid, Repeat) and grid.count != 0 and grid.first < int(now * 1000)


def _differences(state: State, old: JobSpec, new: JobSpec) -> list[str]:
    """What would change, field by field as they are shown."""
    was, will = (write_job(each, Progress(), each.schedule or "", state.config) for each in (old, new))
    fields = [field for field in [*was, *(f for f in will if f not in was)] if was.get(field) != will.get(field)]
    found = [f"{field} {_shorten(was.get(field))} -> {_shorten(will.get(field))}" for field in fields[:_MOST_NAMED]]
    return [*found, f"{len(fields) - _MOST_NAMED} more fields change"] if len(fields) > _MOST_NAMED else found


def _shorten(value: Any) -> str:
    text = "none" if value is None else repr(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"


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
