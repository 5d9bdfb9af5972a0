"""The batch framework: takes jobs in great numbers and sees each through to its end.

`handle` only says which family an input belongs to; `sweep.settle` then sets the timers for what is left to do.
Source: DESIGN, frameworks; the batch contract.
"""

from collections.abc import Iterable, Sequence
from random import Random
from typing import Any

from corral.frameworks.batch import admission, commands, offers, preempt, recovery, sweep, updates, views, waiting
from corral.frameworks.batch.spec import (
    READS,
    Command,
    Config,
    GetJob,
    GetMetrics,
    GetOwner,
    GetStats,
    KillJob,
    KillJobs,
    ListJobs,
    PutOwner,
    QueryJobs,
    SetPriority,
    Submit,
    WaitJobs,
)
from corral.frameworks.batch.state import WAIT, OwnerEntry, State
from corral.lib.errors import NotFound
from corral.model import calls, events
from corral.model.ids import AgentId, TaskId
from corral.runtime.core import Asked, Effect, Loaded, Reply, Tick
from corral.sdk import answers, node_records, notices
from corral.sdk.effects import Notified
from corral.sdk.feed import Followed
from corral.sdk.scheduler import CallFailed, Disconnected

Input = (
    Loaded | Tick | Asked[Command] | Notified | Followed | Disconnected | CallFailed | events.Subscribed
    | events.Offers | events.Rescind | events.InverseOffers | events.Update | events.Message | events.Explanations
    | events.Failure | events.Error | events.Heartbeat
)  # fmt: skip
"""Everything that the loop of this framework may be told; some of it the session around the core answers alone."""


class BatchCore:
    """The deciding half of the batch framework."""

    __slots__ = ("state",)
    reads = READS

    def __init__(self, config: Config, random: Random) -> None:
        self.state = State(config, random)

    def handle(self, input: Any, now: float) -> Sequence[Effect]:
        effects = self._decide(input, now)
        effects += sweep.settle(self.state, now)
        return effects

    def invariants(self) -> None:
        self.state.invariants()

    def live_tasks(self) -> Iterable[calls.ReconcileTask]:
        for task_id, job in self.state.active.items():
            assert job.run is not None
            agent_id = AgentId(job.run.agent_id) if job.run.agent_id else None
            yield calls.ReconcileTask(task_id=task_id, agent_id=agent_id)

    def is_live(self, task_id: TaskId) -> bool:
        return self.state.find_task(task_id) is not None

    def unheard_s(self, now: float) -> float:
        return self.state.patience.unheard_s(now)

    def _decide(self, input: Any, now: float) -> list[Effect]:
        state = self.state
        match input:
            case events.Update():
                return updates.update(state, input, now)
            case events.Offers():
                return [*offers.take_offers(state, input, now), *admission.release(state, now)]
            case Asked():
                return self._command(input.ask, input.command, now)
            case Tick():
                return self._tick(input.name, now)
            case Notified():
                return notices.notified(state.outbox, input)
            case Followed():
                state.followed = input.by_anybody
                return []
            case events.Explanations():
                return [*offers.take_explanations(state, input, now), *admission.release(state, now)]
            case events.Rescind():
                return offers.rescind(state, input)
            case events.InverseOffers():
                return answers.agree(input)
            case events.Subscribed():
                return updates.subscribed(state, input)
            case Disconnected():
                state.disconnect()
                return admission.release(state, now)
            case Loaded():
                return recovery.load(state, input, now)
            case _:
                return []

    def _tick(self, name: str, now: float) -> list[Effect]:
        state = self.state
        match name:
            case sweep.WANTS:
                return offers.say_wants(state, now)
            case sweep.WORK:
                return sweep.work(state, now)
            case sweep.DUE:
                return sweep.look(state, now)
            case sweep.HELD:
                return admission.release(state, now)
            case sweep.PATIENCE:
                return waiting.look(state, now)
            case sweep.PREEMPT:
                return preempt.preempt(state, now)
            case sweep.AGE:
                # What waits grows older, and its priority with it.
                state.wants_changed |= state.queued > 0
                return []
            case node_records.KEEP | node_records.FADE:
                if name == node_records.FADE:
                    # What is avoided no longer has to be told.
                    state.wants_changed |= state.queued > 0
                return state.node_memory.tick(name, now)
            case updates.SWEEP:
                return updates.end_again(state)
        if name.startswith(WAIT):
            return commands.waited(state, name)
        if name.startswith(notices.NOTICE):
            return notices.retry(state.outbox, name.removeprefix(notices.NOTICE))
        return []

    def _command(self, ask: int, command: Command, now: float) -> list[Effect]:
        state = self.state
        match command:
            case Submit():
                return admission.submit(state, ask, command, now)
            case WaitJobs():
                return commands.wait(state, ask, command)
            case KillJob():
                return commands.kill(state, ask, command, now)
            case KillJobs():
                return commands.kill_many(state, ask, command, now)
            case SetPriority():
                return commands.set_priority(state, ask, command, now)
            case PutOwner():
                return commands.put_owner(state, ask, command)
            case _:
                return [Reply(ask, self._view(command, now))]

    def _view(self, command: Command, now: float) -> Any:
        state = self.state
        match command:
            case GetJob():
                return views.view_job(state, commands.need(state, command.id), now)
            case ListJobs():
                return views.list_jobs(state, command, now)
            case QueryJobs():
                return views.query(state, command, now)
            case GetOwner():
                return views.view_owner(state, state.owners.get(command.owner) or OwnerEntry(command.owner))
            case GetStats():
                return views.view_stats(state, now)
            case GetMetrics():
                return views.view_metrics(state, now)
            case _:
                raise NotFound(f"command {type(command).__name__} is not known to the batch framework")
