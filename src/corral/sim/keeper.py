"""A framework as small as one can be: it keeps so many tasks of one shape alive and remembers what it launched.

It is what the simulated cluster and the benchmarks load the kernel with. Rule: a launch is a record before it is a
call, so whatever is lost on the way is found again by reconciliation.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from corral.lib.errors import Conflict
from corral.model import calls, events
from corral.model.ids import AgentId, FrameworkId, TaskId, WantId
from corral.model.offer import Want
from corral.model.resources import Resources, scalar
from corral.model.task import TERMINAL, CommandInfo, TaskInfo, TaskState
from corral.runtime.core import Asked, Effect, Loaded, Note, Persist, Reply, decode_records
from corral.sdk.effects import Call

WANT = WantId("keep")
SHAPE: Resources = (scalar("cpus", 0.5), scalar("mem", 64.0))


class Goal(msgspec.Struct, frozen=True):
    """How many tasks there shall be; `next` numbers the next one."""

    count: int = 0
    next: int = 1


class Kept(msgspec.Struct, frozen=True):
    """A launched task that has not been heard to end."""

    agent_id: AgentId
    state: TaskState = TaskState.STAGING
    killing: bool = False


class Keep(msgspec.Struct, frozen=True, tag=True):
    """Keep this many from now on; answered when it is durable. Errors: `Conflict` below 0."""

    count: int


class Restart(msgspec.Struct, frozen=True, tag=True):
    """End these tasks, to be replaced by new ones."""

    tasks: tuple[TaskId, ...]


class KeeperCore:
    """Shapes: `ended` are the last states of tasks in the order they were heard, since the start of the process."""

    def __init__(self, role: str = "*", resources: Resources = SHAPE) -> None:
        self.goal = Goal()
        self.kept: dict[TaskId, Kept] = {}
        self.ended: dict[TaskId, TaskState] = {}
        self._role = role
        self._resources = resources
        self._framework_id: FrameworkId | None = None
        self._stated: int | None = None

    def handle(self, input: Any, now: float) -> Sequence[Effect]:
        match input:
            case Loaded():
                self.goal = decode_records(input, "goal", Goal).get("", Goal())
                self.kept = {TaskId(k): v for k, v in decode_records(input, "tasks/", Kept).items()}
                return []
            case events.Subscribed():
                self._framework_id = input.framework_id
                self._stated = None
                return [*self._repeat_kills(), *self._state_want()]
            case events.Offers():
                return self._offers(input)
            case events.Update():
                return self._update(input)
            case Asked(ask=ask, command=Keep(count=count)):
                if count < 0:
                    raise Conflict(f"count {count} is below 0; give 0 to end all")
                self.goal = Goal(count, self.goal.next)
                surplus = [t for t, k in self.kept.items() if not k.killing][count:]
                return [Persist("goal", self.goal), Reply(ask, count), *self._kill(surplus), *self._state_want()]
            case Asked(ask=ask, command=Restart(tasks=tasks)):
                found = [t for t in tasks if t in self.kept and not self.kept[t].killing]
                return [Reply(ask, len(found)), *self._kill(found)]
            case _:
                self._stated = None
                return []

    def invariants(self) -> None:
        assert all(kept.state not in TERMINAL for kept in self.kept.values()), "an ended task is kept"

    def live_tasks(self) -> Iterable[calls.ReconcileTask]:
        return [calls.ReconcileTask(task_id=t, agent_id=k.agent_id) for t, k in self.kept.items()]

    def is_live(self, task_id: TaskId) -> bool:
        return task_id in self.kept

    def _missing(self) -> int:
        return max(0, self.goal.count - sum(not kept.killing for kept in self.kept.values()))

    def _state_want(self) -> list[Effect]:
        missing = self._missing()
        if self._framework_id is None or missing == self._stated:
            return []
        self._stated = missing
        want = Want(id=WANT, role=self._role, count=missing, resources=self._resources)
        return [Call(calls.Request(framework_id=self._framework_id, wants=(want,) if missing else ()))]

    def _offers(self, event: events.Offers) -> Sequence[Effect]:
        assert self._framework_id is not None
        effects: list[Effect] = []
        for offer in event.offers:
            if offer.want_id != WANT or not self._missing():
                effects.append(Call(calls.Decline(framework_id=self._framework_id, offer_ids=(offer.id,))))
                continue
            task_id = TaskId(f"keep.{self.goal.next}")
            self.goal = Goal(self.goal.count, self.goal.next + 1)
            self.kept[task_id] = Kept(offer.agent_id)
            info = TaskInfo(
                task_id=task_id, name="keep", agent_id=offer.agent_id, resources=offer.resources,
                command=CommandInfo(value="sleep infinity"),
            )  # fmt: skip
            launch = calls.Accept(
                framework_id=self._framework_id, offer_ids=(offer.id,), operations=(calls.Launch(tasks=(info,)),)
            )
            effects += [Persist(f"tasks/{task_id}", self.kept[task_id]), Persist("goal", self.goal), Call(launch)]
        return [*effects, *self._state_want()]

    def _update(self, event: events.Update) -> Sequence[Effect]:
        status = event.status
        kept = self.kept.get(status.task_id)
        if kept is None:
            # Known to have ended; should it live after all, it has to go, for another has taken its place.
            alive = status.state in (TaskState.STAGING, TaskState.STARTING, TaskState.RUNNING)
            return self._order_kill(status.task_id, status.agent_id) if alive else []
        if status.state not in TERMINAL:
            if kept.killing and status.state is TaskState.RUNNING:
                # The order to end it got lost somewhere: a KILL is best effort.
                return self._order_kill(status.task_id, status.agent_id)
            if kept.state is status.state:
                return []
            self.kept[status.task_id] = msgspec.structs.replace(kept, state=status.state)
            return [Persist(f"tasks/{status.task_id}", self.kept[status.task_id])]
        del self.kept[status.task_id]
        self.ended[status.task_id] = status.state
        facts = {"task": status.task_id, "state": str(status.state)}
        note = Note("task ended", status.message or str(status.state), facts=facts)
        return [Persist(f"tasks/{status.task_id}", None), note, *self._state_want()]

    def _kill(self, tasks: Sequence[TaskId]) -> list[Effect]:
        effects: list[Effect] = []
        for task_id in tasks:
            kept = self.kept[task_id] = msgspec.structs.replace(self.kept[task_id], killing=True)
            effects += [Persist(f"tasks/{task_id}", kept), *self._order_kill(task_id, kept.agent_id)]
        return [*effects, *self._state_want()]

    def _repeat_kills(self) -> list[Effect]:
        return [e for t, k in self.kept.items() if k.killing for e in self._order_kill(t, k.agent_id)]

    def _order_kill(self, task_id: TaskId, agent_id: AgentId | None) -> list[Effect]:
        if self._framework_id is None:
            return []
        return [Call(calls.Kill(framework_id=self._framework_id, task_id=task_id, agent_id=agent_id))]
