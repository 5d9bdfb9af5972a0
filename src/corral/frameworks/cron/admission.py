"""Whether a definition is taken: one that no agent of the cluster could ever run is refused, and told why.

Rules: a job or a DAG of a shape that nobody knows yet waits a moment for the master's word; without it, or while there
are no agents, it is taken with a notice. What is not to fire, and what asks no more than it did, is not asked about.
Source: as batch's, that what can never run says so when it is submitted.
"""

from collections.abc import Iterable

from corral.frameworks.cron import commands
from corral.frameworks.cron.dags import commands as dag_commands
from corral.frameworks.cron.dags.spec import PutDag
from corral.frameworks.cron.launch import make_want
from corral.frameworks.cron.spec import JobSpec, PutJob
from corral.frameworks.cron.state import Held, State
from corral.lib.errors import CorralError, Unprocessable
from corral.model.offer import Want
from corral.runtime.core import Effect, Note, Refuse
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
        try:
            unknown = _judge(state, each.wants)
            if unknown and now < each.until_at and state.connected:
                state.held.append(each)
                continue
            effects += _put(state, each.ask, each.command, now, UNKNOWN if unknown else "")
        except CorralError as error:
            effects.append(Refuse(each.ask, error))
        state.wants_changed = True
    return effects


def _put(state: State, ask: int, command: PutJob | PutDag, now: float, notice: str = "") -> list[Effect]:
    if isinstance(command, PutJob):
        effects = commands.put(state, ask, command, now, notice)
    else:
        effects = dag_commands.put(state, ask, command, now, notice)
    if notice:
        effects.append(Note("job waits for an agent", notice, "warning", {"job": command.spec.name}))
    return effects


def _wants(state: State, command: PutJob | PutDag) -> dict[str, Want]:
    """What the definition asks for that was not asked for by it before, by the name of its job or step."""
    if command.spec.disabled:
        return {}
    if isinstance(command, PutJob):
        old = state.visible(command.spec.name)
        return _fresh(state, [(command.spec.name, command.spec)], [] if old is None else [old.spec])
    before = state.dags.current(command.spec.name)
    old_specs = [] if before is None else [step.job for step in before.steps]
    return _fresh(state, [(step.name, step.job) for step in command.spec.steps], old_specs)


def _fresh(state: State, asked: Iterable[tuple[str, JobSpec]], before: Iterable[JobSpec]) -> dict[str, Want]:
    known = {make_want(spec, state.config).id for spec in before}
    found: dict[str, Want] = {}
    for name, spec in asked:
        want = make_want(spec, state.config)
        if want.id not in known:
            known.add(want.id)
            found[name] = want
    return found


def _judge(state: State, wants: dict[str, Want]) -> dict[str, Want]:
    """Those of which nobody knows yet. Errors: `Unprocessable` for the first that no agent could ever run."""
    unknown: dict[str, Want] = {}
    for name, want in wants.items():
        if want.id in state.proven:
            continue
        explanation = state.explanations.get(want.id)
        if explanation is not None and explanation.agents and explanation.never:
            what = f"{name!r} is not taken, as {describe(explanation)}"
            raise Unprocessable(f"{what}; ask for less, or submit it disabled or for agents to come with ?check=false")
        unknown[name] = want
    return unknown
