"""Offers to launches, and what waits to the wants that the master knows.

Rule: a launch is a record before the master hears of it: the attempt's number, its fencing token and its agent.
Crashed before, nothing was launched and the job still waits; crashed after, the master is asked what became of it.
Source: the batch contract, principles 2 to 5.
"""

from corral.frameworks.batch import queue
from corral.frameworks.batch.launch import build_task
from corral.frameworks.batch.outcomes import move
from corral.frameworks.batch.spec import JobEvent, JobState, Progress
from corral.frameworks.batch.state import Job, Shape, State
from corral.model import calls, events
from corral.model.ids import OfferId, WantId
from corral.model.offer import Filters, Offer
from corral.model.task import TaskInfo
from corral.runtime.core import Effect, Note
from corral.sdk.answers import COARSE_REFUSE_S, decline
from corral.sdk.effects import Call

_AT_ONCE = Filters(refuse_s=0.0)
_MOST_AGENTS = 20_000


def take_offers(state: State, event: events.Offers, now: float) -> list[Effect]:
    """Launch on them, as many as one input may write about; the rest is taken next."""
    state.backlog.add(event.offers)
    state.patience.heard()
    return work_off(state, now)


def work_off(state: State, now: float) -> list[Effect]:
    """Shapes: an offer for a want is what a job of its shape needs; one ACCEPT answers those of an agent."""
    if not state.backlog or not state.connected or state.framework_id is None:
        state.backlog.clear()
        return []
    effects: list[Effect] = []
    unused: list[OfferId] = []
    coarse: list[OfferId] = []
    used: dict[str, tuple[list[OfferId], list[TaskInfo]]] = {}
    left = state.config.most_writes - 1
    while state.backlog and left > 0:
        offer = state.backlog.take()
        if offer.want_id is None:
            coarse.append(offer.id)
            continue
        shape = state.shapes.get(offer.want_id)
        job = None if shape is None else _take(state, shape, offer)
        if job is None or shape is None:
            unused.append(offer.id)
            continue
        left -= 1
        offer_ids, tasks = used.setdefault(offer.agent_id, ([], []))
        offer_ids.append(offer.id)
        tasks.append(_launch(state, job, offer, effects, now))
    for offer_ids, tasks in used.values():
        launch = calls.Launch(tasks=tuple(tasks))
        accept = calls.Accept(
            framework_id=state.framework_id, offer_ids=tuple(offer_ids), operations=(launch,), filters=_AT_ONCE
        )
        effects.append(Call(accept))
    if unused:
        # What these were shaped to waits no longer: they are free for others at once.
        effects.append(decline(state.framework_id, unused, 0.0))
        state.wants_changed = True
    if coarse:
        effects.append(decline(state.framework_id, coarse, COARSE_REFUSE_S))
    return effects


def _take(state: State, shape: Shape, offer: Offer) -> Job | None:
    shape.proven, shape.blocked, shape.never_at = True, False, None
    if len(state.attributes) < _MOST_AGENTS:
        state.attributes[offer.agent_id] = (offer.hostname, offer.attributes)
    return queue.take(state, shape) if shape.lines else None


def _launch(state: State, job: Job, offer: Offer, effects: list[Effect], now: float) -> TaskInfo:
    before = job.run
    token = state.tokens.take(effects)
    if before is None:
        run = Progress(
            state=JobState.QUEUED, attempt=1, token=token, agent_id=offer.agent_id, hostname=offer.hostname,
            address=offer.address, queued_at=job.bundle.at, launched_at=now,
        )  # fmt: skip
    else:
        run = Progress(
            state=before.state, attempt=before.attempt + 1, token=token, failures=before.failures,
            losses=before.losses, preemptions=before.preemptions, priority=before.priority, agent_id=offer.agent_id,
            hostname=offer.hostname, address=offer.address,
            queued_at=before.queued_at or job.bundle.at, launched_at=now,
        )  # fmt: skip
    state.demands.launched(offer.want_id or "")
    state.wants_changed = True
    job_id = job.id
    effects += move(state, job, JobEvent.LAUNCH, run, job_id)
    return build_task(job, job_id, run, offer)


# Wants.


def say_wants(state: State, now: float) -> list[Effect]:
    """All wants at once, which is how the master learns that one was withdrawn."""
    if not state.connected or state.framework_id is None or not state.wants_changed:
        return []
    state.wants_changed = False
    if len(state.shapes_by_need) > 2 * state.config.window:
        queue.drop_idle_shapes(state)
    return state.demands.state(state.framework_id, queue.find_wants(state, now))


def take_explanations(state: State, event: events.Explanations, now: float) -> list[Effect]:
    """Keep why each shape waits; say once when none of the agents could ever take it."""
    effects: list[Effect] = []
    named: set[WantId] = set()
    for explanation in event.explanations:
        shape = state.shapes.get(explanation.want_id)
        if shape is None:
            continue
        named.add(explanation.want_id)
        shape.explanation = explanation
        shape.blocked = True
        queue.note_urgent(state, shape)
        if not explanation.never:
            shape.proven = shape.proven or explanation.agents > 0
            shape.never_at = None
        elif shape.never_at is None:
            shape.never_at = now
            shape.proven = False
            if shape.lines:
                facts = {"jobs": shape.count, "want": shape.want.id}
                effects.append(Note("jobs can never run", tell_never(shape), "warning", facts))
    for shape in state.shapes.values():
        if shape.explanation is not None and shape.want.id not in named:
            shape.explanation, shape.blocked, shape.never_at = None, False, None
    state.wants_changed = True
    return effects


def tell_never(shape: Shape) -> str:
    """Why no agent of the cluster could ever run this."""
    explanation = shape.explanation
    if explanation is None or not explanation.refusals:
        return "no agent could ever run it"
    return "; ".join(
        refusal.detail + (f" (agent {refusal.best} comes nearest)" if refusal.best else "")
        for refusal in explanation.refusals
    )


def rescind(state: State, event: events.Rescind) -> list[Effect]:
    state.backlog.drop(event.offer_id)
    state.wants_changed = True
    return []
