"""What the cron framework shows: jobs, their states, statistics, history, the graph, metrics.

Source: Chronos' contract, sections 1.1 and 6.
"""

import math
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from corral import __version__
from corral.frameworks.cron.chronos import mirror_fetch, write_instant, write_job
from corral.frameworks.cron.commands import need_job, shown_schedule
from corral.frameworks.cron.schedule import list_between, write_moment
from corral.frameworks.cron.spec import (
    Cause,
    FindLog,
    GetHistory,
    GetNext,
    GetStat,
    HistoryRecord,
    Result,
    Run,
    RunState,
    SearchJobs,
)
from corral.frameworks.cron.state import Job, State
from corral.frameworks.cron.waiting import oldest_s, reason_of
from corral.lib.errors import Invalid
from corral.sdk.metrics import Gauge, Number

Json = Any
_QUANTILES = {
    "75thPercentile": 0.75, "95thPercentile": 0.95, "98thPercentile": 0.98, "99thPercentile": 0.99, "median": 0.5,
}  # fmt: skip
MOST_NEXT = 1000
_FAR_MS = 253_000_000_000_000


def view_job(state: State, job: Job) -> dict[str, Json]:
    schedule = "" if job.grid is None else shown_schedule(job)
    return write_job(job.spec, job.progress, schedule, state.config)


def view_jobs(state: State) -> list[dict[str, Json]]:
    return [mirror_fetch(view_job(state, job)) for job in state.visible_jobs()]


def search(state: State, command: SearchJobs) -> list[dict[str, Json]]:
    """Parts of names and commands, in any letter case; both must be there. `any` looks in either, when nothing else
    is asked for or where that does not match."""
    name, text, either = command.name.lower(), command.command.lower(), command.any.lower()

    def matches(job: Job) -> bool:
        own_name, own_text = job.name.lower(), job.spec.command.lower()
        if (name or text) and name in own_name and text in own_text:
            return True
        if either:
            return either in own_name or either in own_text
        return not (name or text)

    found = [job for job in state.visible_jobs() if matches(job)]
    return [mirror_fetch(view_job(state, job)) for job in found[command.offset : command.offset + command.limit]]


def status_of(job: Job) -> str:
    """How it ended last: `fresh` when it never has."""
    good, bad = job.progress.success_at, job.progress.error_at
    if good is None and bad is None:
        return "fresh"
    return "failure" if bad is not None and bad >= (good or 0.0) else "success"


def state_of(job: Job) -> str:
    """`idle`, `queued`, or how many run."""
    live = len(job.live)
    if live:
        return f"{live} running"
    return "queued" if job.queued or job.items else "idle"


def view_summary(state: State, now: float) -> dict[str, Json]:
    return {"jobs": [_summary_row(state, job, now) for job in state.visible_jobs()]}


def _summary_row(state: State, job: Job, now: float) -> dict[str, Json]:
    """Shapes: `why` is there for a job of which something waits."""
    row = {
        "name": job.name,
        "status": status_of(job),
        "state": state_of(job),
        "schedule": "" if job.grid is None else shown_schedule(job),
        "parents": list(job.spec.parents),
        "disabled": job.spec.disabled,
    }
    why = reason_of(state, job, now) if job.runs or job.items else ""
    return {**row, "why": why} if why else row


def view_next(state: State, command: GetNext, now: float) -> dict[str, Json]:
    """The coming occurrences, as far as the count reaches."""
    job = need_job(state, command.name)
    grid = job.grid
    if grid is None:
        raise Invalid(f"job {job.name!r} has parents and no schedule of its own")
    count = max(0, min(command.count, MOST_NEXT))
    if job.progress.left is not None:
        count = min(count, job.progress.left)
    start = int(now * 1000) if command.after is None else command.after
    found = list_between(grid, max(start, job.progress.cursor) + 1, _FAR_MS, count)
    return {
        "name": job.name,
        "disabled": job.spec.disabled,
        "next": [{"at": write_moment(ms, UTC), "local": write_moment(ms, grid.zone)} for ms in found],
    }


# Statistics.


def durations_ms(job: Job) -> list[int]:
    """From when each success was due to its end, as far as history reaches; what a backfill ran was not due anew, and
    is measured from its launch."""
    return [_duration_ms(entry) for entry in job.history if entry.result is Result.SUCCESS]


def _duration_ms(entry: HistoryRecord) -> int:
    if entry.cause is Cause.BACKFILL and entry.launched_at is not None:
        return round((entry.ended_at - entry.launched_at) * 1000)
    return round(entry.ended_at * 1000) - entry.due


def quantile(ordered: Sequence[int], q: float) -> float:
    """Between the two nearest values. Shapes: `ordered` ascends; 0 when it is empty."""
    if not ordered:
        return 0.0
    place = q * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def view_histogram(job: Job) -> dict[str, Json]:
    """Units: milliseconds."""
    ordered = sorted(durations_ms(job))
    shown: dict[str, Json] = {name: quantile(ordered, q) for name, q in _QUANTILES.items()}
    shown["mean"] = sum(ordered) / len(ordered) if ordered else 0.0
    shown["count"] = len(ordered)
    return shown


def view_stats(state: State, which: str) -> list[dict[str, Json]]:
    """One number of every job, slowest first. Units: seconds."""
    if which not in _QUANTILES and which != "mean":
        return []
    found = [{"jobNameLabel": j.name, "time": view_histogram(j)[which] / 1000} for j in state.visible_jobs()]
    return sorted(found, key=lambda one: -one["time"])


def view_stat(state: State, command: GetStat, now: float) -> dict[str, Json]:
    job = need_job(state, command.name)
    rows = [_stat_of_run(run, now) for run in sorted(job.live, key=lambda r: -r.token)]
    rows += [_stat_of_entry(entry) for entry in reversed(job.history)]
    return {"histogram": view_histogram(job), "taskStatHistory": rows[: state.config.shown_history]}


def _stat(
    task_id: str, job: str, agent_id: str, started_at: float | None, ended_at: float | None, status: str, elements: int
) -> dict[str, Json]:
    shown: dict[str, Json] = {
        "taskId": task_id,
        "jobName": job,
        "slaveId": agent_id,
        "startTime": _old_form(started_at),
        "endTime": _old_form(ended_at),
        "status": status,
        "numElementsProcessed": elements,
        "startedAt": write_instant(started_at),
        "endedAt": write_instant(ended_at),
    }
    if started_at is not None and ended_at is not None:
        shown["duration"] = _short(ended_at - started_at)
    return shown


def _stat_of_run(run: Run, now: float) -> dict[str, Json]:
    status = "Idle" if run.state is RunState.LAUNCHED else "Running"
    return _stat(run.task_id or "", run.job, run.agent_id or "", run.started_at, None, status, run.elements)


def _stat_of_entry(entry: HistoryRecord) -> dict[str, Json]:
    status = "Success" if entry.result is Result.SUCCESS else "Fail"
    started_at = entry.started_at or entry.launched_at
    return _stat(entry.task_id, entry.job, entry.agent_id, started_at, entry.ended_at, status, entry.elements)


def _old_form(at: float | None) -> str:
    return "N/A" if at is None else f"{datetime.fromtimestamp(at, UTC):%m/%d/%y %H:%M:%S}"


def _short(seconds: float) -> str:
    """`1h2m3s`."""
    minutes, rest = divmod(max(0, int(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if hours or minutes else "") + f"{rest}s"


def view_history(state: State, command: GetHistory, now: float) -> dict[str, Json]:
    """What runs and what ran, newest first, and why the job waits if it does."""
    job = need_job(state, command.name)
    runs = [_run_row(run) for run in sorted(job.runs.values(), key=lambda r: (-r.token, r.queued_at, r.id))]
    rows = [_history_row(entry) for entry in reversed(job.history)]
    explanation = state.explanations.get(job.want.id) if job.want is not None and job.items else None
    return {
        "name": job.name,
        "unfinished": runs,
        "attempts": rows[: max(0, command.limit)],
        "backfill": None if job.backfill is None else {
            "done_until": write_moment(job.backfill.cursor, UTC), "end": write_moment(job.backfill.end, UTC),
        },
        "waiting": [] if explanation is None else [
            {"reason": r.reason, "detail": r.detail, "agents": r.agents} for r in explanation.refusals
        ],
        "why": reason_of(state, job, now),
    }  # fmt: skip


def _run_row(run: Run) -> dict[str, Json]:
    return {
        "taskId": run.task_id,
        "state": str(run.state),
        "cause": str(run.cause),
        "due": write_moment(run.due, UTC),
        "attempt": run.attempt,
        "token": run.token,
        "host": run.hostname,
        "agent": run.agent_id,
        "startedAt": write_instant(run.started_at),
        "readyAt": write_instant(run.ready_at or None),
        "ending": run.ending,
        "round": run.round,
        "arguments": run.arguments,
        "parameters": run.parameters,
    }


def _history_row(entry: HistoryRecord) -> dict[str, Json]:
    return {
        "taskId": entry.task_id,
        "result": str(entry.result),
        "final": entry.final,
        "cause": str(entry.cause),
        "due": write_moment(entry.due, UTC),
        "attempt": entry.attempt,
        "token": entry.token,
        "host": entry.hostname,
        "agent": entry.agent_id,
        "startedAt": write_instant(entry.started_at or entry.launched_at),
        "endedAt": write_instant(entry.ended_at),
        "message": entry.message,
        "elements": entry.elements,
        "round": entry.round,
        "arguments": entry.arguments,
        "parameters": entry.parameters,
    }


def find_log(state: State, command: FindLog) -> tuple[str, str]:
    """The task and its agent's URL. Errors: `Invalid` when no attempt that is remembered has this task."""
    job = need_job(state, command.name)
    attempts: list[Run | HistoryRecord] = [run for run in job.runs.values() if run.task_id is not None]
    attempts += job.history
    found = [each for each in attempts if command.task_id in ("", each.task_id)]
    if not found:
        what = f"no attempt with the task {command.task_id!r}" if command.task_id else "made no attempt yet"
        raise Invalid(f"job {job.name!r} has {what}; GET job/{job.name}/history lists them")
    newest = max(found, key=lambda each: each.token)
    if not newest.address:
        raise Invalid(f"where task {newest.task_id} ran was not written down; its node is {newest.hostname}")
    return str(newest.task_id), f"{state.config.scheme}://{newest.address}"


# The graph.


def view_csv(state: State) -> str:
    lines = [f"node,{_quoted(j.name)},{status_of(j)},{state_of(j)}" for j in state.visible_jobs()]
    lines += [f"link,{_quoted(parent)},{_quoted(child)}" for parent, child in _links(state)]
    return "".join(line + "\n" for line in lines)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"' if any(c in name for c in ',"\n') else name


def view_dot(state: State) -> str:
    numbers = {job.name: number for number, job in enumerate(state.visible_jobs(), start=1)}
    lines = ["digraph G {"]
    for name, number in numbers.items():
        text = name.replace("\\", "\\\\").replace('"', '\\"')
        lines.append(f'  {number} [label="{text}"];')
    lines += [f"  {numbers[parent]} -> {numbers[child]};" for parent, child in _links(state)]
    return "\n".join([*lines, "}", ""])


def _links(state: State) -> Iterable[tuple[str, str]]:
    shown = {job.name for job in state.visible_jobs()}
    for parent in sorted(state.children):
        for child in sorted(state.children[parent]):
            if parent in shown and child in shown:
                yield parent, child


# Metrics.


def view_metrics(state: State, now: float) -> dict[str, Json]:
    """The layout of Dropwizard."""
    counters: dict[str, Json] = {}
    histograms: dict[str, Json] = {}
    for job in state.visible_jobs():
        counters[f"jobs.run.success.{job.name}"] = {"count": job.progress.successes}
        counters[f"jobs.run.failure.{job.name}"] = {"count": job.progress.errors}
        histograms[f"jobs.run.time.{job.name}"] = _dropwizard(sorted(durations_ms(job)))
    high = sum(len(q.items) for q in state.queues.values() if q.want.priority > 0)
    normal = sum(len(q.items) for q in state.queues.values() if q.want.priority <= 0)
    gauges = {
        "queue.highPriority.size": {"value": high},
        "queue.normal.size": {"value": normal},
        "jobs.count": {"value": sum(not job.is_hidden for job in state.jobs.values())},
        "tasks.live": {"value": len(state.tasks)},
        "notices.waiting": {"value": len(state.notices)},
        "queue.oldest.seconds": {"value": round(oldest_s(state, now), 3)},
        "queue.unheard.seconds": {"value": round(state.patience.unheard_s(now), 3)},
    }
    return {
        "version": __version__, "gauges": gauges, "counters": counters, "histograms": histograms, "meters": {},
        "timers": {},
    }  # fmt: skip


def _dropwizard(ordered: Sequence[int]) -> dict[str, Json]:
    count = len(ordered)
    mean = sum(ordered) / count if count else 0.0
    spread = math.sqrt(sum((v - mean) ** 2 for v in ordered) / count) if count else 0.0
    return {
        "count": count, "max": ordered[-1] if ordered else 0, "mean": mean, "min": ordered[0] if ordered else 0,
        "p50": quantile(ordered, 0.5), "p75": quantile(ordered, 0.75), "p95": quantile(ordered, 0.95),
        "p98": quantile(ordered, 0.98), "p99": quantile(ordered, 0.99), "p999": quantile(ordered, 0.999),
        "stddev": spread,
    }  # fmt: skip


def list_numbers(metrics: dict[str, Json]) -> list[Number]:
    """What Prometheus is told of these."""
    gauges = metrics["gauges"]
    return [Gauge(f"corral_cron_{name}", text, {"": gauges[key]["value"]}) for name, key, text in _PROMETHEUS]


_PROMETHEUS = (
    ("jobs", "jobs.count", "Jobs there are"),
    ("queue_high", "queue.highPriority.size", "Firings of high priority that wait for resources"),
    ("queue_normal", "queue.normal.size", "Firings that wait for resources"),
    ("oldest_waiting_seconds", "queue.oldest.seconds", "How long the oldest of these has waited"),
    ("unheard_seconds", "queue.unheard.seconds", "How long something has waited with neither an offer nor a reason"),
    ("tasks_live", "tasks.live", "Tasks that have not ended"),
    ("notices_waiting", "notices.waiting", "Notices on their way"),
)
