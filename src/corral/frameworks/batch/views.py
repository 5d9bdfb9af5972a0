"""What the batch API shows: jobs, owners, statistics, metrics. Source: the batch contract, API."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from corral.frameworks.batch.ids import read_id
from corral.frameworks.batch.spec import TERMINAL, Container, JobSpec, JobState, ListJobs, QueryJobs
from corral.frameworks.batch.state import BUCKETS_S, Job, OwnerEntry, State, Waiter, matches
from corral.frameworks.batch.waiting import oldest_s, reason_of
from corral.lib.units import format_timestamp
from corral.sdk.metrics import Counter, Gauge, Histogram, Number

MOST_LOOKED_AT = 20_000
_SAMPLE = 1000


def view_job(state: State, job: Job, now: float) -> dict[str, Any]:
    """The whole record. Shapes: times are ISO 8601 in UTC, null before they are known."""
    run, spec = job.run, job.spec
    found = view_spec(spec)
    found.update(
        id=job.id,
        state=str(shown_state(job)),
        reason=reason_of(state, job, now),
        attempt=0 if run is None else run.attempt,
        exit_code=None if run is None else run.exit_code,
        agent=run.agent_id or None if run is not None else None,
        host=run.hostname or None if run is not None else None,
        agent_url=f"{state.config.scheme}://{run.address}" if run is not None and run.address else None,
        submitted_at=format_timestamp(job.bundle.at),
        started_at=_at(None if run is None else run.started_at),
        finished_at=_at(None if run is None else run.finished_at),
        preemptions=0 if run is None else run.preemptions,
        failures=0 if run is None else run.failures,
        losses=0 if run is None else run.losses,
        token=0 if run is None else run.token,
        priority=job.priority,
        task=f"{job.id}.{run.attempt}" if run is not None and run.attempt else None,
    )
    if job.element is not None:
        found["array_index"] = job.element
    elif job.array is not None:
        found["counts"] = {str(s): job.array.counts[s] for s in JobState if job.array.counts[s]}
    return found


def view_spec(spec: JobSpec) -> dict[str, Any]:
    container = None if spec.container is None else _container(spec.container)
    array = None if spec.array is None else {"count": spec.array.count, "max_running": spec.array.max_running}
    return {
        "owner": spec.owner, "name": spec.name, "command": spec.command, "argv": list(spec.argv),
        "env": spec.env or {}, "image": spec.image, "container": container, "cpus": spec.cpus, "mem": spec.mem,
        "disk": spec.disk, "gpus": spec.gpus, "constraints": [list(c) for c in spec.constraints],
        "fetch": [
            {"uri": f.uri, "output_file": f.output_file, "executable": f.executable, "cache": f.cache,
             "extract": f.extract}
            for f in spec.fetch
        ],
        "user": spec.user, "preemptible": spec.preemptible, "retries": spec.retries, "retry_delay": spec.retry_delay,
        "timeout": spec.timeout, "queue_timeout": spec.queue_timeout, "grace": spec.grace, "array": array,
        "labels": spec.labels or {}, "key": spec.key, "ttl": spec.ttl, "callback": spec.callback,
        "delivery": str(spec.delivery),
    }  # fmt: skip


def _container(container: Container) -> dict[str, Any]:
    return {
        "image": container.image, "network": container.network,
        "volumes": [
            {"container_path": v.container_path, "host_path": v.host_path, "mode": v.mode} for v in container.volumes
        ],
        "parameters": [list(p) for p in container.parameters], "force_pull_image": container.force_pull_image,
    }  # fmt: skip


def _at(at: float | None) -> str | None:
    return None if at is None else format_timestamp(at)


def shown_state(job: Job) -> JobState:
    """An array is running from its first launch to its end."""
    if job.is_array and job.array is not None and job.state not in TERMINAL and job.array.elements:
        return JobState.RUNNING
    return job.state


def query(state: State, command: QueryJobs, now: float) -> dict[str, Any]:
    jobs, missing = [], []
    for job_id in command.ids:
        job = state.find(job_id)
        if job is None:
            missing.append(job_id)
            continue
        found = view_job(state, job, now)
        if command.fields:
            found = {"id": job_id, **{key: found[key] for key in command.fields if key in found}}
        jobs.append(found)
    return {"jobs": jobs, "missing": missing}


def view_waiter(waiter: Waiter) -> dict[str, Any]:
    return {
        "done": [job_id for job_id in dict.fromkeys(waiter.ids) if job_id not in waiter.pending],
        "pending": [job_id for job_id in dict.fromkeys(waiter.ids) if job_id in waiter.pending],
    }


def list_jobs(state: State, command: ListJobs, now: float) -> dict[str, Any]:
    """Newest first. Shapes: a page may be short of `limit` when few of many match; `next_cursor` goes on from it."""
    found: list[dict[str, Any]] = []
    last = ""
    for looked_at, job in enumerate(_backwards(state, command.cursor)):
        if len(found) == command.limit or looked_at >= MOST_LOOKED_AT:
            return {"jobs": found, "next_cursor": last}
        last = job.id
        by_state = not command.state or shown_state(job) == command.state
        if by_state and matches(job, command.owner, command.label, "", command.name):
            found.append(view_job(state, job, now))
    return {"jobs": found, "next_cursor": None}


def _backwards(state: State, cursor: str) -> Iterator[Job]:
    place = read_id(cursor) if cursor else None
    for seq in reversed(state.bundles):
        if place is not None and seq > place[0]:
            continue
        jobs: Iterable[Job | None] = reversed(state.bundles[seq].jobs)
        for job in jobs:
            if job is not None and (place is None or seq < place[0] or job.place < place[1]):
                yield job


def view_owner(state: State, owner: OwnerEntry) -> dict[str, Any]:
    return _view_owner(state, owner, _cost_of_all(state))


def _cost_of_all(state: State) -> float:
    return sum(each.cost for each in state.owners.values())


def _view_owner(state: State, owner: OwnerEntry, total: float) -> dict[str, Any]:
    record = owner.record
    most = state.config.most_queued_owner if record.max_queued is None else record.max_queued
    return {
        "owner": owner.name, "weight": record.weight, "max_running": record.max_running, "max_queued": most,
        "max_queued_set": record.max_queued is not None, "paused": record.paused, "queued": owner.queued,
        "running": owner.active, "share": round(owner.cost / total, 4) if total else 0.0,
    }  # fmt: skip


def view_stats(state: State, now: float) -> dict[str, Any]:
    total, owners = _cost_of_all(state), {}
    for name, owner in sorted(state.owners.items()):
        found = _view_owner(state, owner, total)
        owners[name] = {key: found[key] for key in ("queued", "running", "share", "weight", "paused")}
    return {
        "states": {str(s): state.counts[s] for s in JobState},
        "owners": owners,
        "rates": {
            "submitted": round(state.submitted.per_s(now), 3),
            "started": round(state.started.per_s(now), 3),
            "finished": round(state.finished.per_s(now), 3),
        },
        "totals": {
            "submitted": state.submitted.total, "started": state.started.total, "finished": state.finished.total,
            "preempted": state.evicted, "refused": state.refused,
        },
        "queue_age_s": {**_queue_ages(state, now), "oldest": round(oldest_s(state, now), 3)},
        "limits": {"max_queued": state.config.most_queued, "max_jobs": state.config.most_jobs},
        "avoided": [
            {"hostname": each.hostname, "reason": each.why, "until_at": each.until_at, "want": each.subject}
            for each in state.nodes.avoided(None, now)
        ],
    }  # fmt: skip


def _queue_ages(state: State, now: float) -> dict[str, float]:
    ages: list[float] = []
    lines = [line for owner in state.owners.values() for line in owner.lines.values()]
    for line in lines:
        step = max(1, len(line.jobs) * len(lines) // _SAMPLE)
        ages += [now - job.queued_at for job in islice(line.jobs, 0, None, step) if job.line is line]
    ages.sort()
    pick = {"p50": 0.5, "p99": 0.99}
    return {key: round(max(0.0, ages[int(q * (len(ages) - 1))]), 3) if ages else 0.0 for key, q in pick.items()}


def view_metrics(state: State, now: float) -> list[Number]:
    """What Prometheus is told."""
    by_priority: dict[str, float] = {}
    for shape in sorted(state.shapes.values(), key=lambda each: each.want.priority):
        priority = str(shape.want.priority)
        by_priority[priority] = by_priority.get(priority, 0.0) + shape.count
    return [
        Gauge("corral_batch_jobs", "Jobs and elements by state", {str(s): state.counts[s] for s in JobState}, "state"),
        Gauge("corral_batch_queued", "Jobs that could be launched now", by_priority, "priority"),
        Gauge(
            "corral_batch_oldest_waiting_seconds", "How long the oldest of these has waited", {"": oldest_s(state, now)}
        ),
        Gauge(
            "corral_batch_unheard_seconds", "How long something has waited with neither an offer nor a reason",
            {"": state.patience.unheard_s(now)},
        ),
        Counter("corral_batch_submitted_total", "Jobs that were taken", state.submitted.total),
        Counter("corral_batch_started_total", "Attempts that ran", state.started.total),
        Counter("corral_batch_finished_total", "Jobs that are over", state.finished.total),
        Counter("corral_batch_preemptions_total", "Attempts that were ended for others", state.evicted),
        Counter("corral_batch_refused_total", "Requests that were answered 429", state.refused),
        Gauge("corral_batch_callbacks_waiting", "Final records on their way", {"": len(state.outbox)}),
        Histogram(
            "corral_batch_time_to_start_seconds", "From the queue to the launch", BUCKETS_S,
            tuple(state.start_buckets), state.start_sum,
        ),
    ]  # fmt: skip
