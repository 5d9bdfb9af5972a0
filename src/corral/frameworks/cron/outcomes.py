"""What follows from the end of an attempt: a retry, or the end of its run, with all that its children hear of it.

Rule: an end is one set of records written together: the run, its history, the job's counters, the edges and runs of the
children. A failed attempt is retried as often as `retries` says, for each firing anew. An attempt whose fate is unknown
is launched again under at-least-once and never under at-most-once, unless it is certain that it was not launched.
Source: Chronos' contract, sections 3 and 4.
"""

from corral.frameworks.cron import notices
from corral.frameworks.cron.dags import steps
from corral.frameworks.cron.graph import hear_success, reset
from corral.frameworks.cron.keys import history_key, run_key
from corral.frameworks.cron.launch import make_want
from corral.frameworks.cron.spec import (
    Cause,
    Concurrency,
    Delivery,
    HistoryRecord,
    Misfire,
    Result,
    Run,
    RunState,
    Signal,
)
from corral.frameworks.cron.state import Job, State, replace
from corral.lib.backoff import grow_delay_s
from corral.runtime.core import Effect, Note, Persist
from corral.sdk.nodes import FAST_S

CHILDREN_AT_ONCE = 16
RELAUNCH_MOST_S = 60.0
MOST_KEPT = 1000
"""How much of a text history keeps."""


def end_attempt(
    state: State,
    job: Job,
    run: Run,
    result: Result,
    message: str,
    now: float,
    *,
    may_retry: bool = True,
    data: bytes | None = None,
    ended_at: float = 0.0,
) -> list[Effect]:
    """The attempt is over; another one follows, or the run is over too.

    Shapes: `data` is what it left as a result. Units: `ended_at` by the clock of its node, 0 when that is not known.
    """
    spec = job.spec
    if run.ending and result is not Result.SUCCESS:
        result, message = Result.KILLED, run.ending
    failed = result in (Result.FAILURE, Result.LOST)
    again = failed and may_retry and run.attempt < spec.retries and not spec.disabled
    blamed = _judge_node(state, job, run, result, message, again=again, ended_at=ended_at or now, now=now)
    effects = _remember(state, job, run, result, message, final=not again, now=now)
    facts = {"job": job.name, "task": run.task_id, "agent": run.agent_id, "result": str(result)}
    if again:
        delay_s = retry_delay_s(state, job, run)
        effects.append(_wait(state, job, run, now, delay_s, attempt=run.attempt + 1, lost=0))
        effects.append(Note("attempt failed", message, "warning", {**facts, "retry_s": delay_s}))
        return [*effects, *blamed]
    state.drop_run(job, run)
    effects.append(Persist(run_key(run), None))
    effects.extend(blamed)
    effects.append(Note("run ended", message, "warning" if failed else "info", facts))
    if job.record.step is not None:
        return [*effects, *steps.ended(state, job, run, result, message, data, now)]
    if result is Result.SUCCESS:
        effects += succeed(state, job, run.round, run.due, now)
    elif failed:
        effects += _fail(state, job, run, message, now)
    return [*effects, *exhaust(state, job, run, now)]


def _judge_node(
    state: State, job: Job, run: Run, result: Result, message: str, *, again: bool, ended_at: float, now: float
) -> list[Effect]:
    """What an end says about its node: the next attempt after a fast failure is made elsewhere if there is room."""
    node = run.hostname
    if not node or result not in (Result.SUCCESS, Result.FAILURE):
        return []
    lived_s = ended_at - run.started_at if run.started_at is not None else 0.0
    if result is Result.SUCCESS:
        state.nodes.last(job.name, node, now)
        return []
    shape = (job.want or make_want(job.spec, state.config)).id
    if lived_s < FAST_S and again:
        state.nodes.shun(shape, node, f"an attempt of job {job.name} failed there: {message}", now)
    if not state.nodes.fail(job.name, node, lived_s, now):
        return []
    (why,) = (a.why for a in state.nodes.avoided(None, now) if a.hostname == node and a.subject is None)
    return [Note("node is avoided", why, "error", {"node": node})]


def exhaust(state: State, job: Job, run: Run, now: float) -> list[Effect]:
    """After a run that has gone: when it was the last of the job's scheduled ones, the job is disabled."""
    if not run.fired or not job.is_exhausted() or job.spec.disabled:
        return []
    return disable(state, job, "its last scheduled firing is over", now)


def retry_delay_s(state: State, job: Job, run: Run) -> float:
    """How long the next attempt after this one waits."""
    spec = job.spec
    first_s = state.config.retry_delay_s if spec.retry_delay_s is None else spec.retry_delay_s
    return grow_delay_s(run.attempt + 1, first_s=first_s, factor=spec.retry_factor, most_s=max(first_s, 86_400.0))


def _wait(state: State, job: Job, run: Run, now: float, delay_s: float, *, attempt: int, lost: int) -> Effect:
    """Put the run back to where it waits for its next launch."""
    run = replace(
        run, state=RunState.WAITING, attempt=attempt, lost=lost, queued_at=now, ready_at=now + delay_s, task_id=None,
        agent_id=None, hostname="", address="", launched_at=None, started_at=None, unreachable_at=None, reported=None,
        elements=0,
    )  # fmt: skip
    state.place(job, run)
    return Persist(run_key(run), run)


def lose(
    state: State, job: Job, run: Run, message: str, now: float, *, surely_unstarted: bool = False,
    surely_begun: bool = False,
) -> list[Effect]:  # fmt: skip
    """Nobody can tell any more what becomes of the task, or it is certain that there never was one.

    Shapes: `surely_begun` says that its agent had started it, though nobody has told that it runs.
    """
    at_most_once = job.spec.delivery is Delivery.AT_MOST_ONCE
    begun = surely_begun or run.started_at is not None
    if run.ending or begun or (at_most_once and not surely_unstarted):
        return end_attempt(state, job, run, Result.LOST, message, now, may_retry=not at_most_once)
    delay_s = grow_delay_s(run.lost, first_s=1.0, factor=2.0, most_s=RELAUNCH_MOST_S)
    facts = {"job": job.name, "task": run.task_id, "agent": run.agent_id, "retry_s": delay_s}
    return [
        _wait(state, job, run, now, delay_s, attempt=run.attempt, lost=run.lost + 1),
        Note("launch is repeated", message or "nobody has seen it start", "warning", facts),
    ]


def displace(state: State, job: Job, run: Run, message: str, now: float) -> list[Effect]:
    """The node of an attempt was emptied: the same attempt is made elsewhere, and nobody is blamed."""
    effects = _remember(state, job, run, Result.KILLED, message, final=False, now=now)
    facts = {"job": job.name, "task": run.task_id, "agent": run.agent_id}
    delay_s = grow_delay_s(run.lost, first_s=1.0, factor=2.0, most_s=RELAUNCH_MOST_S)
    effects.append(_wait(state, job, run, now, delay_s, attempt=run.attempt, lost=run.lost + 1))
    effects.append(Note("attempt is made elsewhere", message, "info", facts))
    return effects


def _remember(
    state: State, job: Job, run: Run, result: Result, message: str, *, final: bool, now: float
) -> list[Effect]:
    if run.task_id is None:
        return []
    entry = HistoryRecord(
        task_id=run.task_id, job=job.name, due=run.due, cause=run.cause, attempt=run.attempt, token=run.token,
        result=result, final=final, ended_at=now, started_at=run.started_at, launched_at=run.launched_at,
        agent_id=run.agent_id or "", hostname=run.hostname, message=message[:MOST_KEPT], elements=run.elements,
        round=run.round, address=run.address, arguments=run.arguments[:MOST_KEPT],
        parameters={name: value[:MOST_KEPT] for name, value in run.parameters.items()},
    )  # fmt: skip
    job.history.append(entry)
    job.elements += run.elements
    while len(job.history) > state.config.most_history:
        state.trash.append(history_key(job.history.popleft()))
    return [Persist(history_key(entry), entry)]


def succeed(state: State, job: Job, round: str, due: int, now: float) -> list[Effect]:
    """The job has done its work, in whatever way: its counters and its children hear of it."""
    recovered = job.progress.errors_since > 0
    failures = job.progress.errors_since
    job.progress = replace(job.progress, successes=job.progress.successes + 1, errors_since=0, success_at=now)
    effects: list[Effect] = [Persist(f"progress/{job.name}", job.progress)]
    if recovered:
        effects += notices.tell(state, job, "recovered", f"it succeeded after {failures} failed run(s)", now)
    return [*effects, *signal(state, job, round, due, now)]


def _fail(state: State, job: Job, run: Run, message: str, now: float) -> list[Effect]:
    progress = job.progress
    job.progress = replace(
        progress, errors=progress.errors + 1, errors_since=progress.errors_since + 1, error_at=now
    )  # fmt: skip
    effects: list[Effect] = [Persist(f"progress/{job.name}", job.progress)]
    text = f"{message or 'it failed'}; attempt {run.attempt + 1} of {job.spec.retries + 1}, task {run.task_id}"
    effects += notices.tell(state, job, "failed", text, now)
    if job.spec.soft_error:
        effects += signal(state, job, run.round, run.due, now)
    most = state.config.disable_after
    if most and job.progress.errors_since >= most and not job.spec.disabled:
        effects += disable(state, job, f"{job.progress.errors_since} runs in a row have failed", now)
    return effects


def disable(state: State, job: Job, why: str, now: float) -> list[Effect]:
    """The job fires no more until somebody enables it."""
    record = replace(job.record, spec=replace(job.spec, disabled=True))
    state.adopt(job, record)
    state.dirty[job.name] = None
    effects: list[Effect] = [Persist(f"job/{job.name}", record), Note("job is disabled", why, facts={"job": job.name})]
    return [*effects, *notices.tell(state, job, "disabled", why, now)]


# Children.


def signal(state: State, job: Job, round: str, due: int, now: float) -> list[Effect]:
    """Tell the children of a success; many of them hear of it bit by bit, from a record that outlives a crash."""
    children = sorted(state.children.get(job.name, ()))
    if len(children) <= CHILDREN_AT_ONCE:
        return [effect for child in children for effect in hear(state, child, job.name, round, now)]
    key = f"{job.name}/{state.mint_run_id()}"
    state.signals[key] = Signal(parent=job.name, round=round, due=due)
    return [Persist(f"signal/{key}", state.signals[key])]


def pass_on(state: State, key: str, now: float) -> list[Effect]:
    """Tell the next few children what they have not heard yet."""
    found = state.signals[key]
    rest = [c for c in sorted(state.children.get(found.parent, ())) if c > found.after]
    effects: list[Effect] = []
    for child in rest[:CHILDREN_AT_ONCE]:
        effects += hear(state, child, found.parent, found.round, now)
    if len(rest) <= CHILDREN_AT_ONCE:
        del state.signals[key]
        effects.append(Persist(f"signal/{key}", None))
    else:
        state.signals[key] = replace(found, after=rest[CHILDREN_AT_ONCE - 1])
        effects.append(Persist(f"signal/{key}", state.signals[key]))
    return effects


def hear(state: State, name: str, parent: str, round: str, now: float) -> list[Effect]:
    """A child hears of its parent's success and fires when that completes its join."""
    job = state.jobs[name]
    if job.record.leaving:
        return []
    by_round = state.root_of_parents(job) is not None
    job.edges, fires = hear_success(job.edges, job.spec.parents, parent, round, by_round)
    effects: list[Effect] = [Persist(f"edge/{name}", job.edges)]
    if fires is None:
        return effects
    if job.spec.disabled:
        return [*effects, Note("firing is passed over", "the job is disabled", "debug", {"job": name})]
    return [*effects, *_promise(state, job, fires, now)]


def _promise(state: State, job: Job, round: str, now: float) -> list[Effect]:
    """A run that is due to its parents; one that still waits takes the newer round on, as two would do the same."""
    if job.spec.concurrency is not Concurrency.ALLOW and job.spec.misfire is not Misfire.ALL:
        for run in job.runs.values():
            if run.state is RunState.QUEUED and run.cause is Cause.PARENTS:
                run = replace(run, round=round)
                state.place(job, run)
                return [Persist(run_key(run), run)]
    run = Run(
        id=state.mint_run_id(), job=job.name, due=int(now * 1000), cause=Cause.PARENTS, round=round, queued_at=now
    )  # fmt: skip
    state.place(job, run)
    return [Persist(run_key(run), run)]


def start_edges(job: Job) -> list[Effect]:
    """The job is started: its edges count anew."""
    if not job.edges.counts:
        return []
    job.edges = reset(job.edges)
    return [Persist(f"edge/{job.name}", job.edges)]
