"""Makes room for what is urgent: which jobs are ended so that another can start.

Rules: a job of priority 50 or more that has waited five seconds may have jobs ended that are at least 20 below it and
allow it; the lowest priority goes first, then the youngest; no job is ended for others more than three times.
Source: the batch contract, rule of preemption.
"""

import msgspec

from corral.frameworks.batch.outcomes import job_key
from corral.frameworks.batch.spec import Delivery, JobSpec
from corral.frameworks.batch.state import URGENT, Job, Shape, State
from corral.frameworks.batch.updates import order_end
from corral.model import constraints
from corral.model.attributes import format_value
from corral.runtime.core import Effect, Note, Persist

LEAST_DIFFERENCE = 20
MOST_PREEMPTIONS = 3
AT_ONCE = 16


def preempt(state: State, now: float) -> list[Effect]:
    """Have jobs ended for those that are urgent and have waited long enough."""
    effects: list[Effect] = []
    urgent = [s for s in state.shapes.values() if s.want.priority >= URGENT and s.lines and s.blocked]
    state.urgent = bool(urgent)
    for shape in sorted(urgent, key=lambda s: (-s.want.priority, s.want.id)):
        waiting = _waiting_jobs(state, shape, now)
        coming = sum(1 for job in state.endings if job.run is not None and job.run.evicted == shape.want.id)
        for _ in range(min(AT_ONCE, waiting) - coming):
            victims = _find_victims(state, shape, now)
            if not victims:
                break
            for victim in victims:
                effects += _evict(state, victim, shape)
    return effects


def _waiting_jobs(state: State, shape: Shape, now: float) -> int:
    """How many have waited long enough, of those that could be launched."""
    count = 0
    for line in shape.lines.values():
        if line.owner.room <= 0:
            continue
        for job in line.jobs:
            if job.line is line and now - job.queued_at >= state.config.preempt_after_s:
                count += line.count if job.is_array else 1
            if count >= AT_ONCE:
                return count
    return count


def _find_victims(state: State, shape: Shape, now: float) -> list[Job]:
    """The jobs of one agent that together hold what is needed, those whose end costs least; none when there are none.

    Shapes: what is free on an agent is not known here; jobs are chosen as if nothing were.
    """
    by_agent: dict[str, list[Job]] = {}
    for job in state.active.values():
        if _is_evictable(job, shape) and _suits(state, shape, job):
            assert job.run is not None
            by_agent.setdefault(job.run.agent_id, []).append(job)
    found: list[list[Job]] = []
    for jobs in by_agent.values():
        jobs.sort(key=_worth)
        chosen: list[Job] = []
        for job in jobs:
            chosen.append(job)
            if _frees(chosen, shape):
                found.append(chosen)
                break
    return min(found, key=_price, default=[])


def _price(jobs: list[Job]) -> tuple[int, int, tuple[int, float, str]]:
    return max(job.priority for job in jobs), len(jobs), _worth(jobs[0])


def _worth(job: Job) -> tuple[int, float, str]:
    assert job.run is not None
    return job.priority, -job.run.launched_at, job.id


def _is_evictable(job: Job, shape: Shape) -> bool:
    run = job.run
    return (
        run is not None
        and job.spec.preemptible
        and job.spec.delivery is not Delivery.AT_MOST_ONCE
        and not run.ending
        and not run.evicted
        and run.unreachable_at is None
        and run.preemptions < MOST_PREEMPTIONS
        and job.priority <= shape.want.priority - LEAST_DIFFERENCE
    )


def _suits(state: State, shape: Shape, job: Job) -> bool:
    assert job.run is not None
    hostname, attributes = state.attributes.get(job.run.agent_id, (job.run.hostname, ()))
    texts = {a.name: format_value(a) for a in attributes}
    return all(
        constraints.allows(c, constraints.field_value(c.field, hostname, texts), (), 1, 0)
        for c in shape.want.constraints
    )


def _frees(jobs: list[Job], shape: Shape) -> bool:
    sums = dict.fromkeys(("cpus", "mem", "disk", "gpus"), 0.0)
    for job in jobs:
        spec: JobSpec = job.spec
        for name, value in (("cpus", spec.cpus), ("mem", spec.mem), ("disk", spec.disk), ("gpus", spec.gpus)):
            sums[name] += value
    return all(sums[r.name] * 1000 >= r.milli - 0.5 for r in shape.want.resources)


def _evict(state: State, job: Job, shape: Shape) -> list[Effect]:
    assert job.run is not None
    job.run = msgspec.structs.replace(job.run, evicted=shape.want.id)
    facts = {"job": job.id, "agent": job.run.agent_id, "priority": job.priority}
    why = f"jobs of priority {shape.want.priority} wait for its place"
    return [Persist(job_key(job), job.run), *order_end(state, job), Note("job is ended for others", why, facts=facts)]
