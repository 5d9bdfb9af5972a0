"""Measures what tasks use, tells the master what may be lent of the rest, and ends work on it under pressure.

Rule: nothing happens unless `oversubscribe` is on. Only processes that are surely of this machine are measured.
Source: `oversubscription.py`, which decides.
"""

from corral.agent import executors, tasks
from corral.agent.effects import MeasureUsage, Send
from corral.agent.oversubscription import (
    STEPS,
    Held,
    Sample,
    choose_victims,
    estimate_slack,
    find_pressed,
    follow,
    latest_use,
    settle_told,
    steady_use,
)
from corral.agent.spec import Stage, UsageMeasured
from corral.agent.state import AgentState, Task
from corral.model.orders import KillTask, Slack
from corral.model.resources import Resource, Resources
from corral.model.task import Reason
from corral.runtime.core import Effect, Note, SetTimer

TIMER = "slack"
EVERY_S = 5.0


def watch(state: AgentState) -> list[Effect]:
    return [SetTimer(TIMER, EVERY_S)] if state.config.oversubscribe else []


def check(state: AgentState) -> list[Effect]:
    """It is time to look at what the tasks use."""
    found = (
        (task.container_id, task.launched.pid)
        for _, task in sorted(state.tasks.items())
        if task.stage is Stage.RUNNING and not task.custom and not task.unsettled and task.launched is not None
    )  # fmt: skip
    return [MeasureUsage(tuple((container_id, pid) for container_id, pid in found if pid is not None))]


def measured(state: AgentState, input: UsageMeasured, now: float) -> list[Effect]:
    """Tell what has changed, and end what is too much."""
    slack, config = state.slack, state.config
    samples = {}
    for one in input.found:
        if one.container_id in state.by_container:
            new = Sample(now, one.cpu_s, one.mem_mb)
            samples[one.container_id] = follow(
                slack.samples.get(one.container_id, ()), new, config.oversubscribe_window_s
            )
    slack.samples = samples
    live = [task for _, task in sorted(state.tasks.items()) if task.live]
    steady = [_hold(task, steady_use(_samples(state, task), config.oversubscribe_window_s)) for task in live]
    lasting = [one for task, one in zip(live, steady, strict=True) if task.stage is Stage.RUNNING]
    told = settle_told(slack.told, estimate_slack(lasting, config.oversubscribe_margin))
    effects: list[Effect] = [SetTimer(TIMER, EVERY_S)]
    if told != slack.told:
        slack.told = told
        effects += tell(state)
    return effects + _relieve(state, live, now)


def tell(state: AgentState) -> list[Effect]:
    """Shapes: [] without a master, which is told when it has registered the agent."""
    return [Send(Slack(_resources(state.slack.told)))] if state.registered else []


def tell_again(state: AgentState) -> list[Effect]:
    """The master has registered the agent, and knows of no slack."""
    return tell(state) if any(state.slack.told.values()) else []


def _resources(amounts: dict[str, int]) -> Resources:
    return tuple(Resource(name=name, milli=n) for name, n in sorted(amounts.items()) if n)


def _samples(state: AgentState, task: Task) -> tuple[Sample, ...]:
    return state.slack.samples.get(task.container_id, ())


def _hold(task: Task, used: dict[str, int] | None) -> Held:
    allocated = dict.fromkeys(STEPS, 0)
    for r in task.info.resources:
        if r.name in allocated:
            allocated[r.name] += r.milli
    borrows = any(r.identity.revocable for r in task.info.resources)
    revocable = borrows or (task.info.claim is not None and task.info.claim.revocable)
    return Held(
        task.container_id, task.started_at or 0.0, allocated, used, revocable, borrows, task.ending is not None
    )  # fmt: skip


def _relieve(state: AgentState, live: list[Task], now: float) -> list[Effect]:
    """End tasks that borrow when too much has been used for too long."""
    slack, config = state.slack, state.config
    held = [_hold(task, latest_use(_samples(state, task))) for task in live]
    total = dict.fromkeys(STEPS, 0)
    for r in state.resources:
        if r.name in total:
            total[r.name] += r.milli
    pressed = find_pressed(held, total, config.oversubscribe_pressure)
    if not pressed:
        slack.pressed_at = None
        return []
    if slack.pressed_at is None:
        slack.pressed_at = now
    if now - slack.pressed_at < config.oversubscribe_pressure_s:
        return []
    short = ", ".join(f"{n / 1000:g} {name}" for name, n in pressed.items())
    why = f"tasks of agent {config.hostname} use {short} above {config.oversubscribe_pressure:.0%} of what it has"
    effects: list[Effect] = []
    for victim in choose_victims(held, pressed):
        task = state.by_container[victim.container_id]
        order = KillTask(
            state.identity.epoch, task.framework_id, task.info.task_id, None, why, Reason.CONTAINER_PREEMPTED
        )  # fmt: skip
        state.counters["preempted"] += 1
        facts = {"task": task.info.task_id, "framework": task.framework_id}
        effects.append(Note("revocable task ended", why, "info", facts))
        effects += executors.kill(state, order, now) if task.custom else tasks.kill(state, order, now)
    if effects:
        slack.pressed_at = None
    return effects
