"""Offers to launches, and what waits to the wants that the master knows.

Rule: a launch is one set of records, written before the master hears of it: the run with its task id and fencing token,
the job's progress, its edges. Crashed before, nothing was launched and the firing is still due; crashed after, the run
is there and the master is asked what became of its task. Source: Chronos' contract, sections 2.4 and 7.
"""

from corral.frameworks.cron.keys import run_key
from corral.frameworks.cron.launch import build_task, name_task
from corral.frameworks.cron.outcomes import start_edges
from corral.frameworks.cron.plan import due_now
from corral.frameworks.cron.spec import Cause, Concurrency, Run, RunState
from corral.frameworks.cron.state import BACKFILLED, SCHEDULED, Job, State, replace
from corral.model import calls, events
from corral.model.ids import OfferId, WantId
from corral.model.offer import Filters, Offer, Want
from corral.runtime.core import Effect, Note, Persist
from corral.sdk.answers import COARSE_REFUSE_S, decline
from corral.sdk.effects import Call
from corral.sdk.match import Placement, match

WRITES_PER_LAUNCH = 5
LEAST_SHARE = 64
"""How many instances of a shape are asked for at least, however many shapes there are."""


def take_offers(state: State, event: events.Offers, now: float) -> list[Effect]:
    """Launch on them, as many as one input may write about; the rest is taken next."""
    state.backlog.add(event.offers)
    state.patience.heard()
    for offer in event.offers:
        if offer.want_id is not None:
            state.prove(offer.want_id)
    return work_off(state, now)


def work_off(state: State, now: float) -> list[Effect]:
    if not state.backlog or not state.connected or state.framework_id is None:
        state.backlog.clear()
        return []
    most = max(1, state.config.most_writes // WRITES_PER_LAUNCH)
    offers = state.backlog.take_many(most)
    matched = match(offers, _waiting(state, offers))
    effects: list[Effect] = []
    unused = [offer.id for offer in matched.unused if offer.want_id is not None]
    by_offer: dict[OfferId, list[Placement]] = {}
    for placement in matched.placements:
        by_offer.setdefault(placement.offer.id, []).append(placement)
    for placements in by_offer.values():
        found = _use(state, placements, now)
        effects += found
        if not found:
            unused.append(placements[0].offer.id)
    if unused:
        # What these were shaped to waits no longer: they are free for others at once.
        effects.append(decline(state.framework_id, unused, 0.0))
    coarse = [offer.id for offer in matched.unused if offer.want_id is None]
    if coarse:
        effects.append(decline(state.framework_id, coarse, COARSE_REFUSE_S))
    return effects


def _waiting(state: State, offers: list[Offer]) -> list[Want]:
    """The wants these offers may serve."""
    if any(offer.want_id is None for offer in offers):
        queues = sorted(state.queues.values(), key=lambda q: (-q.want.priority, q.want.id))
    else:
        ids = dict.fromkeys(offer.want_id for offer in offers if offer.want_id is not None)
        queues = [state.queues[want_id] for want_id in ids if want_id in state.queues]
    return [replace(queue.want, count=len(queue.items)) for queue in queues]


def _use(state: State, placements: list[Placement], now: float) -> list[Effect]:
    """Launch on one offer; nothing when nothing waits for it any more."""
    effects: list[Effect] = []
    tasks = []
    for placement in placements:
        launched = _launch_next(state, placement, now)
        if launched is not None:
            run, found = launched
            effects += found
            tasks.append(build_task(state.jobs[run.job].spec, run, placement, state.config))
    if not tasks:
        return []
    assert state.framework_id is not None
    accept = calls.Accept(
        framework_id=state.framework_id,
        offer_ids=(placements[0].offer.id,),
        operations=(calls.Launch(tasks=tuple(tasks)),),
        filters=Filters(refuse_s=0.0),
    )
    return [*effects, Call(accept)]


def _launch_next(state: State, placement: Placement, now: float) -> tuple[Run, list[Effect]] | None:
    """The next of what waits for this shape."""
    while (queue := state.queues.get(placement.want_id)) is not None:
        item = next(iter(queue.items))
        job = state.jobs[item.job]
        state.unqueue(job, item.what)
        state.dirty[job.name] = None
        effects: list[Effect] = []
        run = _begin(state, job, item.what, effects, now)
        if run is not None:
            if placement.offer.want_id is not None:
                state.demands.launched(placement.want_id)
            return _launch(state, job, run, placement, effects, now)
    return None


def _begin(state: State, job: Job, what: str, effects: list[Effect], now: float) -> Run | None:
    """The run that is to be launched; a firing becomes one here. None when there is nothing to do any more."""
    if what == SCHEDULED:
        due = due_now(job, int(now * 1000)).due
        if due is None:
            return None
        left = job.progress.left
        job.progress = replace(job.progress, cursor=due, left=None if left is None else left - 1)
        return _make_run(state, job, due, Cause.SCHEDULE, fired=True)
    if what == BACKFILLED:
        return _begin_backfill(state, job, effects)
    return job.runs.get(what)


def _begin_backfill(state: State, job: Job, effects: list[Effect]) -> Run | None:
    backfill, grid = job.backfill, job.grid
    due = grid.after(backfill.cursor) if grid is not None and backfill is not None else None
    if backfill is None or grid is None or due is None or due >= backfill.end:
        job.backfill = None
        effects.append(Persist(f"backfill/{job.name}", None))
        return None
    following = grid.after(due)
    more = following is not None and following < backfill.end
    job.backfill = replace(backfill, cursor=due) if more else None
    effects.append(Persist(f"backfill/{job.name}", job.backfill))
    return _make_run(state, job, due, Cause.BACKFILL, parameters=backfill.parameters)


def _make_run(
    state: State, job: Job, due: int, cause: Cause, *, parameters: dict[str, str] | None = None, fired: bool = False
) -> Run:
    run_id = state.mint_run_id()
    return Run(
        id=run_id, job=job.name, due=due, cause=cause, round=run_id, queued_at=due / 1000, fired=fired,
        parameters=parameters or {},
    )  # fmt: skip


def _launch(
    state: State, job: Job, run: Run, placement: Placement, effects: list[Effect], now: float
) -> tuple[Run, list[Effect]]:
    offer = placement.offer
    assert job.spec.concurrency is Concurrency.ALLOW or not job.live, f"a second run of {job.name} at once"
    if run.attempt == 0 and run.lost == 0 and job.record.step is None:
        job.progress = replace(job.progress, round=run.round)
        effects.append(Persist(f"progress/{job.name}", job.progress))
        effects += start_edges(job)
    token = state.tokens.take(effects)
    run = replace(
        run, state=RunState.LAUNCHED, token=token, task_id=name_task(run, run.attempt, token, run.arguments),
        agent_id=offer.agent_id, hostname=offer.hostname, address=_address(offer), launched_at=now,
    )  # fmt: skip
    state.place(job, run)
    effects.append(Persist(run_key(run), run))
    facts = {"job": job.name, "task": run.task_id, "agent": offer.agent_id}
    why = f"attempt {run.attempt + 1} of a firing by {run.cause}, due {now - run.due / 1000:.1f} s ago"
    effects.append(Note("task launched", why, facts=facts))
    return run, effects


def _address(offer: Offer) -> str:
    return f"[{offer.ip}]:{offer.port}" if ":" in offer.ip else f"{offer.ip}:{offer.port}"


# Wants.


def say_wants(state: State, now: float) -> list[Effect]:
    """All wants at once, which is how the master learns that one was withdrawn."""
    if not state.connected or state.framework_id is None or not state.wants_changed:
        return []
    state.wants_changed = False
    share = max(LEAST_SHARE, state.config.window // max(1, len(state.queues)))
    wants: dict[WantId, Want] = {}
    for want_id, queue in state.queues.items():
        count = _count(state, want_id, len(queue.items), share)
        wants[want_id] = replace(state.nodes.wish(queue.want, want_id, now), count=count)
    for held in state.held:
        for want in held.wants.values():
            # Asked about alone: nobody has to make room for it.
            wants.setdefault(want.id, replace(want, count=1, preempts=False))
    return state.demands.state(state.framework_id, wants.values())


def _count(state: State, want_id: WantId, waiting: int, share: int) -> int:
    """How many to ask for of what waits. As long as half of the share is still looked for it is not told anew."""
    known = state.demands.known(want_id)
    return known if share // 2 <= known <= waiting else min(waiting, share)


def take_explanations(state: State, event: events.Explanations) -> list[Effect]:
    """Keep why each shape waits; say once when none of the agents could ever take it."""
    effects: list[Effect] = []
    before, state.explanations = state.explanations, {each.want_id: each for each in event.explanations}
    for want_id in before.keys() - state.explanations.keys():
        if (gone := state.queues.get(want_id)) is not None:
            gone.never = False
    for explanation in event.explanations:
        if not explanation.never and explanation.agents:
            state.prove(explanation.want_id)
        queue = state.queues.get(explanation.want_id)
        if queue is None:
            continue
        if explanation.never and not queue.never:
            why = "; ".join(r.detail for r in explanation.refusals) or "no agent could ever fit it"
            jobs = list(dict.fromkeys(item.job for item in queue.items))
            facts = {"job": ", ".join(jobs[:10]), "jobs": len(jobs)}
            effects.append(Note("job can never run", why, "warning", facts))
        queue.never = explanation.never
    return effects
