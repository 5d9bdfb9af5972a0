"""Ends the tasks that must not outlive their agent's contact with the masters for long.

Rules: contact counts from a sign of life that a master has answered, not from the answer, so nothing that was delayed
on its way makes it look younger than it is. It counts by the steady clock of the node, what the disk has of it is never
younger than it was, and nothing is known of it after a boot. A task with a bound does not start on an order that may be
old: first the master has to answer once more. Tasks without a bound run on for ever.
An agent that is itself stopped or dead ends nothing: whoever supervises such a task counts along, from a file that says
the same.
"""

from corral.agent import executors, tasks
from corral.agent.cutoff_state import CutOffState
from corral.agent.effects import KeepContact, ReadClock, Send
from corral.agent.spec import ClockRead, ContactRecord, Ending, Stage
from corral.agent.state import AgentState, Task
from corral.model.orders import Heard, KillTask, Pong
from corral.model.partition import STOP_AFTER_LABEL
from corral.model.task import Reason, TaskState
from corral.runtime.core import Effect, Loaded, Note, Persist, SetTimer, decode_records

TIMER = "cutoff"
RECORD = "contact"
NEVER = float("-inf")
BEATS_PER_BOUND = 4.0
SAVES_PER_BOUND = 8.0


def load(state: AgentState, loaded: Loaded) -> list[Effect]:
    """Take up what an earlier process knew; its tasks have no other contact to count from."""
    cut = state.cutoff
    record = decode_records(loaded, RECORD, ContactRecord).get("")
    if record is not None:
        cut.boot, cut.contact_at, cut.saved_at = record.boot, record.at, record.at
    cut.tasks = {t.container_id: NEVER for t in state.tasks.values() if t.live and t.stop_after_s is not None}
    return look(state)


def take_on(state: AgentState, task: Task, *, hold: bool) -> list[Effect]:
    """A task was ordered; with a bound it counts from the next look at the clock, and may wait for an answer."""
    if task.stop_after_s is None:
        return []
    state.cutoff.tasks[task.container_id] = None
    if hold:
        state.cutoff.held[task.container_id] = None
    return [ReadClock()]


def look(state: AgentState) -> list[Effect]:
    """Look at the clock if anything counts."""
    return [ReadClock()] if state.cutoff.tasks else []


def read(state: AgentState, input: ClockRead, now: float) -> list[Effect]:
    """Give a sign of life, and end what has been cut off for as long as it may be."""
    cut = state.cutoff
    if cut.boot != input.boot:
        cut.boot, cut.contact_at = input.boot, None
    _prune(state)
    if not cut.tasks:
        return _forget(cut)
    for container_id, since in cut.tasks.items():
        if since is None:
            cut.tasks[container_id] = input.at
    effects: list[Effect] = []
    if state.registered and cut.answers:
        state.spoke_at = now
        effects.append(Send(Pong(input.at)))
    elif state.registered:
        # A master of the release before never says what it got: its silence is found out by the pulse alone.
        effects += _settle_contact(state, input.at, now)
    next_s = min(_bounds(state)) / BEATS_PER_BOUND
    for task in _counting(state):
        left_s = _due_at(cut, task) - input.at
        if left_s <= 0.0:
            effects += _end(state, task, now)
        else:
            next_s = min(next_s, left_s)
    return [*effects, SetTimer(TIMER, max(min(next_s, state.ping_s), 0.01))]


def heard(state: AgentState, order: Heard, now: float) -> list[Effect]:
    """A master has got a sign of life that was given at this instant."""
    return _settle_contact(state, order.at, now) if state.cutoff.tasks else []


def _settle_contact(state: AgentState, at: float, now: float) -> list[Effect]:
    cut = state.cutoff
    cut.contact_at = at if cut.contact_at is None else max(cut.contact_at, at)
    # Before any start that waits for it: a supervisor counts from nothing else.
    effects: list[Effect] = [KeepContact(cut.boot, cut.contact_at)]
    if cut.saved_at is None or cut.contact_at - cut.saved_at >= min(_bounds(state)) / SAVES_PER_BOUND:
        cut.saved_at = cut.contact_at
        effects.append(Persist(RECORD, ContactRecord(cut.boot, cut.contact_at)))
    for container_id in list(cut.held):
        since, task = cut.tasks.get(container_id), state.by_container.get(container_id)
        if task is None or task.stage is not Stage.STAGING:
            del cut.held[container_id]
        elif since is not None and since <= at:
            del cut.held[container_id]
            effects += tasks.advance(state, task, now)
    return effects


def _prune(state: AgentState) -> None:
    cut = state.cutoff
    for container_id in list(cut.tasks):
        task = state.by_container.get(container_id)
        if task is None or not task.live:
            del cut.tasks[container_id]
            cut.held.pop(container_id, None)


def _forget(cut: CutOffState) -> list[Effect]:
    """Nothing counts any more; what counts later begins with a contact of its own."""
    cut.contact_at = None
    saved, cut.saved_at = cut.saved_at, None
    return [] if saved is None else [Persist(RECORD, None)]


def _counting(state: AgentState) -> list[Task]:
    """Those that can be ended now, in a fixed order; what a runtime has not answered for is looked at again."""
    found = [state.by_container[container_id] for container_id in state.cutoff.tasks]
    return sorted((t for t in found if not t.unsettled and t.ending is None), key=lambda t: t.key)


def _bounds(state: AgentState) -> list[float]:
    found = [state.by_container[c].stop_after_s for c in state.cutoff.tasks if c in state.by_container]
    return [s for s in found if s is not None] or [state.ping_s]


def _due_at(cut: CutOffState, task: Task) -> float:
    since = cut.tasks[task.container_id]
    last_at = max(NEVER if since is None else since, NEVER if cut.contact_at is None else cut.contact_at)
    return last_at + (task.stop_after_s or 0.0)


def _end(state: AgentState, task: Task, now: float) -> list[Effect]:
    why = f"no master has answered this agent for {task.stop_after_s:g} s, as long as label {STOP_AFTER_LABEL} allows"
    grace_s = tasks.grace_s(state, task)
    facts = {"task": task.info.task_id, "framework": task.framework_id}
    note = Note("task is ended for its agent is cut off", why, "warning", facts)
    if task.custom:
        order = KillTask(
            state.identity.epoch, task.framework_id, task.info.task_id, grace_s, why, Reason.AGENT_DISCONNECTED
        )
        return [note, *executors.kill(state, order, now)]
    ending = Ending(now + grace_s, TaskState.KILLED, Reason.AGENT_DISCONNECTED, why)
    return [note, *tasks.request_end(state, task, ending, now)]
