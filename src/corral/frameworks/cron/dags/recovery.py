"""The records of DAGs made into state again. Runs under way are walked anew from what is recorded of them."""

from corral.frameworks.cron.dags.commands import forget_versions, version_key
from corral.frameworks.cron.dags.due import over_at_once
from corral.frameworks.cron.dags.spec import DagProgress, DagRecord, DagRun, DagState, ElementEnd
from corral.frameworks.cron.dags.state import unpack
from corral.frameworks.cron.dags.steps import end_key, need_job, run_record_key, take_up
from corral.frameworks.cron.state import Job, State
from corral.runtime.core import Effect, Loaded, decode_records


def load_definitions(state: State, loaded: Loaded) -> None:
    """What DAGs there are, before anything that is of them. What belongs to a deleted one goes."""
    dags = state.dags
    progress = decode_records(loaded, "dagnow/", DagProgress)
    runs = decode_records(loaded, "dagrun/", DagRun)
    for record in decode_records(loaded, "dag/", DagRecord).values():
        if record.name in progress:
            dags.specs[record.name, record.version] = unpack(record)
        else:
            state.trash.append(version_key(record.name, record.version))
    for name, one in progress.items():
        dags.adopt(dags.specs[name, one.version], one)
        dags.wake(name, 0 if name in dags.grids else None)
    for run in runs.values():
        if (run.dag, run.version) in dags.specs:
            dags.add_run(run)
        else:
            state.trash.append(run_record_key(run))
    for end in decode_records(loaded, "dagend/", ElementEnd).values():
        if end.run in dags.ends:
            dags.ends[end.run].setdefault(end.step, {})[end.index] = end
        else:
            state.trash.append(end_key(end))
    forget_versions(state)


def find_job(state: State, name: str) -> Job | None:
    """The job of a step by its name, made if need be; None when there is no such step any more."""
    dag, _, rest = name.partition("/")
    step, _, version = rest.rpartition("@")
    found = state.dags.find_step(dag, int(version), step) if version.isdecimal() else None
    return None if found is None else need_job(state, dag, int(version), found)


def load_runs(state: State, now: float) -> list[Effect]:
    """Go on with what is under way, and end what still runs of what is over; after the runs of jobs are there."""
    dags = state.dags
    effects: list[Effect] = []
    for runs in dags.runs.values():
        for run in list(runs.values()):
            if run.state is DagState.RUNNING:
                effects += over_at_once(state, take_up(state, run), now)
    for job in state.jobs.values():
        if job.record.step is not None and any(run.round not in dags.works for run in job.runs.values()):
            dags.closing[job.name] = None
    return effects
