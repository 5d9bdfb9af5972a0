"""The records of the last life made into state again; recovery is nothing but this.

What waited for resources is found again by planning anew. What was launched is reconciled with the master by the
session as soon as it is subscribed. Source: Chronos' contract, section 7.
"""

from collections.abc import Iterable

from corral.frameworks.cron.dags.recovery import find_job, load_definitions, load_runs
from corral.frameworks.cron.firing import PRUNE, PRUNE_S
from corral.frameworks.cron.keys import history_key
from corral.frameworks.cron.spec import (
    LIVE,
    Backfill,
    Cause,
    Edges,
    HistoryRecord,
    JobRecord,
    Progress,
    Purge,
    Run,
    Signal,
)
from corral.frameworks.cron.state import Job, State
from corral.runtime.core import Effect, Loaded, Note, SetTimer, decode_records
from corral.sdk import notices, tokens


def load(state: State, loaded: Loaded, now: float) -> list[Effect]:
    """Errors: `msgspec.ValidationError` when a record is not of its kind; the process must not go on then."""
    progress = decode_records(loaded, "progress/", Progress)
    for purge in decode_records(loaded, "purge", Purge).values():
        state.purged = purge.at
    for reserved in decode_records(loaded, tokens.RECORD, tokens.Tokens).values():
        state.tokens.load(reserved)
    for name, record in decode_records(loaded, "job/", JobRecord).items():
        job = Job(record, progress.get(name, Progress()))
        if record.since_at * 1000 <= state.purged:
            job.skipped = state.purged
        state.add_job(job)
        if record.leaving:
            state.leaving[name] = None
    load_definitions(state, loaded)
    orphans = [f"progress/{name}" for name in progress if name not in state.jobs]
    orphans += _load_runs(state, decode_records(loaded, "run/", Run))
    orphans += _load_history(state, decode_records(loaded, "history/", HistoryRecord))
    for name, edges in decode_records(loaded, "edge/", Edges).items():
        if name in state.jobs:
            state.jobs[name].edges = edges
        else:
            orphans.append(f"edge/{name}")
    for name, backfill in decode_records(loaded, "backfill/", Backfill).items():
        if name in state.jobs:
            state.jobs[name].backfill = backfill
        else:
            orphans.append(f"backfill/{name}")
    state.signals.update(decode_records(loaded, "signal/", Signal))
    waiting = notices.take_up(state.notices, loaded)
    state.trash.extend(orphans)
    state.touch(state.jobs)
    kept = state.node_memory.load(loaded, now)
    effects: list[Effect] = [SetTimer(PRUNE, PRUNE_S), *load_runs(state, now), *waiting, *kept]
    if state.jobs:
        facts = {"jobs": len(state.jobs), "runs": len(state.tasks)}
        effects.append(Note("cron recovered", "records of the last life", facts=facts))
    return effects


def _load_runs(state: State, runs: dict[str, Run]) -> Iterable[str]:
    """Shapes: returns the keys of runs that do not count any more: their job was deleted or their wait purged."""
    for key, run in runs.items():
        job = state.jobs.get(run.job) or find_job(state, run.job)
        purged = run.cause is not Cause.DAG and run.state not in LIVE and run.queued_at * 1000 <= state.purged
        if job is None or job.record.leaving or purged:
            yield f"run/{key}"
        else:
            state.place(job, run)


def _load_history(state: State, entries: dict[str, HistoryRecord]) -> Iterable[str]:
    for key, entry in entries.items():
        job = state.jobs.get(entry.job) or find_job(state, entry.job)
        if job is None:
            yield f"history/{key}"
            continue
        job.history.append(entry)
        job.elements += entry.elements
        if len(job.history) > state.config.most_history:
            yield history_key(job.history.popleft())
