"""Decides which sandboxes of ended tasks are deleted, and when.

Rule: after a week, or earlier the fuller the disk is: allowed age = delay * (1 - headroom - usage), never negative.
Source: Mesos agent, sandbox garbage collection.
"""

from corral.agent import standalone
from corral.agent.effects import DeleteSandbox, MeasureDisk
from corral.agent.spec import DiskMeasured, Scanned
from corral.agent.state import AgentState
from corral.runtime.core import Effect, Note, SetTimer

TIMER = "gc"
MOST_AT_ONCE = 100
NEXT_BATCH_S = 1.0


def watch(state: AgentState) -> list[Effect]:
    return [SetTimer(TIMER, state.config.gc_check_s)]


def scanned(state: AgentState, input: Scanned, now: float) -> list[Effect]:
    """Sandboxes that an earlier agent process left count from when they were last changed."""
    keep = {sandbox.container_id for sandbox in state.ended}
    keep |= {task.container_id for task in state.tasks.values() if task.live}
    keep |= set(state.executor_containers)
    keep |= {inner for inner, one in state.standalone.by_inner.items() if one.live}
    left = [s for s in input.sandboxes if s.container_id not in keep]
    state.ended.extendleft(sorted(left, key=lambda s: s.at, reverse=True))
    return []


def allowed_age_s(state: AgentState, usage: float) -> float:
    """How old a sandbox may be. Units: `usage` fraction of the disk in use."""
    config = state.config
    return config.gc_delay_s * max(0.0, 1.0 - config.gc_headroom - usage)


def measured(state: AgentState, input: DiskMeasured, now: float) -> list[Effect]:
    """Delete the oldest sandboxes that are past their age, a bounded number at a time."""
    state.disk_usage = input.usage
    age_s = allowed_age_s(state, input.usage)
    effects: list[Effect] = []
    count, ended = 0, state.ended
    while ended and now - ended[0].at >= age_s and count < MOST_AT_ONCE:
        sandbox = ended.popleft()
        why = f"its task ended {now - sandbox.at:.0f} s ago and the disk is {input.usage:.0%} full"
        effects += [DeleteSandbox(sandbox.path, why), *standalone.collected(state, sandbox.container_id)]
        count += 1
    if not effects:
        return watch(state)
    more = bool(ended) and now - ended[0].at >= age_s
    note = Note("sandboxes deleted", f"older than {age_s:.0f} s", facts={"count": count})
    return [*effects, note, SetTimer(TIMER, NEXT_BATCH_S if more else state.config.gc_check_s)]


def check(state: AgentState) -> list[Effect]:
    return [MeasureDisk()]
