"""Whether a definition is taken: one that no agent of the cluster could ever run is refused, and told why.

Rules: a job or a DAG of a shape that nobody knows yet waits a moment for the master's word; without it, or while there
are no agents, it is taken with a notice. What is not to fire, and what asks no more than it did, is not asked about.
A plan asks the same and says what it hears, and refuses nothing for it.
Source: as batch's, that what can never run says so when it is submitted.
"""

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from corral.frameworks.cron import commands
from corral.frameworks.cron.check import CheckJobs, check_jobs
from corral.frameworks.cron.chronos import ReadJob
from corral.frameworks.cron.dags import commands as dag_commands
from corral.frameworks.cron.dags.spec import PlanDag, PutDag
from corral.frameworks.cron.launch import make_want
from corral.frameworks.cron.spec import JobSpec, PutJob
from corral.frameworks.cron.state import Held, State
from corral.lib.errors import CorralError, Invalid, Unprocessable
from corral.model.ids import WantId
from corral.model.offer import Explanation, Want
from corral.runtime.core import Effect, Note, Refuse, Reply
from corral.sdk.answers import describe

UNKNOWN = "no agent has been seen that could run this; it waits for one when it is due"
HELD = "held"
LOOK_S = 0.25


def put(state: State, ask: int, command: PutJob | PutDag, now: float) -> list[Effect]:
    """Shapes: answers with a notice, empty when there is nothing to say. Errors: `Unprocessable` beside `put`'s own."""
    if not command.check:
        return _put(state, ask, command, now)
    if isinstance(command, PutJob):
        commands.check(state, command, now)
    else:
        dag_commands.check(command.spec, now)
    unknown = _judge(state, _wants(state, command))
    if not unknown:
        return _put(state, ask, command, now)
    if not state.connected:
        return _put(state, ask, command, now, UNKNOWN)
    state.held.append(Held(ask, command, unknown, now + state.config.check_s))
    state.wants_changed = True
    return []


def release(state: State, now: float) -> list[Effect]:
    """Decide what was waiting for what is known now, or has waited long enough."""
    if not state.held:
        return []
    held, state.held = state.held, []
    effects: list[Effect] = []
    for each in held:
        command = each.command
        plans = isinstance(command, (PlanDag, CheckJobs))
        try:
            unknown = _unknown(state, each.wants) if plans else _judge(state, each.wants)
            if unknown and now < each.until_at and state.connected:
                state.held.append(each)
                continue
            if isinstance(command, (PlanDag, CheckJobs)):
                effects.append(Reply(each.ask, _plan(state, command, _wants(state, command), now)))
            else:
                effects += _put(state, each.ask, command, now, UNKNOWN if unknown else "")
        except CorralError as error:
            effects.append(Refuse(each.ask, error))
        state.wants_changed = True
    return effects


def plan(state: State, ask: int, command: PlanDag | CheckJobs, now: float) -> list[Effect]:
    """Tell what would become of a definition. Errors: `Invalid` for a DAG, as putting it."""
    if isinstance(command, PlanDag):
        dag_commands.check(command.spec, now)
    wants = _wants(state, command) if command.check else {}
    unknown = _unknown(state, wants)
    if unknown and state.connected:
        state.held.append(Held(ask, command, unknown, now + state.config.check_s))
        state.wants_changed = True
        return []
    return [Reply(ask, _plan(state, command, wants, now))]


def _plan(state: State, command: PlanDag | CheckJobs, wants: dict[str, Want], now: float) -> Any:
    """Shapes: `never` has the steps that no agent could run, with why; a job's `never` is whether that is so of it."""
    never = {name: describe(found) for name, want in wants.items() if (found := _never(state, want)) is not None}
    unknown = [name for name, want in wants.items() if name not in never and want.id not in state.proven]
    if isinstance(command, PlanDag):
        notice = {"notice": UNKNOWN} if unknown else {}
        return {**dag_commands.plan(state, command, now), "never": never, **notice}
    rows = check_jobs(state, command, now)
    for place, row in enumerate(rows):
        name = str(place)
        row["never"] = name in never
        if row["verdict"] != "refused":
            row["notes"] += [never[name]] if name in never else [UNKNOWN] if name in unknown else []
    return rows


def _put(state: State, ask: int, command: PutJob | PutDag, now: float, notice: str = "") -> list[Effect]:
    if isinstance(command, PutJob):
        effects = commands.put(state, ask, command, now, notice)
    else:
        effects = dag_commands.put(state, ask, command, now, notice)
    if notice:
        effects.append(Note("job waits for an agent", notice, "warning", {"job": command.spec.name}))
    return effects


def _wants(state: State, command: PutJob | PutDag | PlanDag | CheckJobs) -> dict[str, Want]:
    """What the definition asks for that was not asked for by it before, by the name of its job or step.

    Shapes: jobs of a plan, which may share a name, are named by their places.
    """
    if isinstance(command, CheckJobs):
        found: dict[str, Want] = {}
        for place, (_, read) in enumerate(command.jobs):
            # What is wrong with a job is said of it alone.
            with suppress(Invalid):
                found |= _wants_of_job(state, str(place), read.spec) if isinstance(read, ReadJob) else {}
        return found
    if isinstance(command, PutJob):
        return _wants_of_job(state, command.spec.name, command.spec)
    if command.spec.disabled:
        return {}
    before = state.dags.current(command.spec.name)
    old_specs = [] if before is None else [step.job for step in before.steps]
    return _fresh(state, [(step.name, step.job) for step in command.spec.steps], old_specs)


def _wants_of_job(state: State, name: str, spec: JobSpec) -> dict[str, Want]:
    old = state.visible(spec.name)
    return {} if spec.disabled else _fresh(state, [(name, spec)], [] if old is None else [old.spec])


def _fresh(state: State, asked: Iterable[tuple[str, JobSpec]], before: Iterable[JobSpec]) -> dict[str, Want]:
    known = {make_want(spec, state.config).id for spec in before}
    wants = ((name, make_want(spec, state.config)) for name, spec in asked)
    return {name: want for name, want in wants if want.id not in known}


def _judge(state: State, wants: dict[str, Want]) -> dict[str, Want]:
    """Those of which nobody knows yet. Errors: `Unprocessable` for the first that no agent could ever run."""
    for name, want in wants.items():
        explanation = _never(state, want)
        if explanation is not None:
            what = f"{name!r} is not taken, as {describe(explanation)}"
            raise Unprocessable(f"{what}; ask for less, or submit it disabled or for agents to come with ?check=false")
    return _unknown(state, wants)


def _never(state: State, want: Want) -> Explanation | None:
    """Why no agent of the cluster could ever run this; None when one could, or nobody knows."""
    found = None if want.id in state.proven else state.explanations.get(want.id)
    return found if found is not None and found.agents and found.never else None


def _unknown(state: State, wants: dict[str, Want]) -> dict[str, Want]:
    """Those of which nobody knows yet, one of each kind."""
    found: dict[WantId, tuple[str, Want]] = {}
    for name, want in wants.items():
        if want.id not in state.proven and _never(state, want) is None:
            found.setdefault(want.id, (name, want))
    return dict(found.values())
