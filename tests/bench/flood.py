"""A framework that does nothing but run many short tasks, as a batch queue would: one want, one ACCEPT per task.

Every launched task has a record until its last update is in; updates are acknowledged only when that is durable.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from corral.model import calls, events
from corral.model.flags import parse_resources
from corral.model.ids import FrameworkId, TaskId, WantId
from corral.model.offer import Want
from corral.model.task import TERMINAL, CommandInfo, TaskInfo, TaskState
from corral.runtime.core import Asked, Effect, Loaded, Persist, Reply, Tick
from corral.sdk.effects import Call

ROLE = "flood"
SHAPE = parse_resources("cpus:1;mem:256")


class Start(msgspec.Struct, frozen=True, tag=True):
    """Run `count` more tasks."""

    count: int


class ReadProgress(msgspec.Struct, frozen=True, tag=True):
    pass


class Progress(msgspec.Struct, frozen=True):
    launched: int
    running: int
    finished: int
    failed: int


class LaunchRecord(msgspec.Struct, frozen=True):
    task_id: TaskId


class FloodCore:
    """Shapes: `launched`, `running` and so on count all tasks ever."""

    def __init__(self) -> None:
        self.framework_id: FrameworkId | None = None
        self.wanted = 0
        self.launched = 0
        self.running = 0
        self.finished = 0
        self.failed = 0
        self._live: dict[TaskId, calls.ReconcileTask] = {}

    def handle(self, input: Any, now: float) -> Sequence[Effect]:
        match input:
            case events.Offers():
                return self._launch(input)
            case events.Update():
                return self._update(input)
            case events.Subscribed():
                self.framework_id = input.framework_id
                return self._state_wants()
            case Asked(ask, Start(count)):
                self.wanted += count
                return [Reply(ask), *self._state_wants()]
            case Asked(ask, ReadProgress()):
                return [Reply(ask, Progress(self.launched, self.running, self.finished, self.failed))]
            case Loaded() | Tick():
                return []
            case _:
                return []

    def invariants(self) -> None:
        assert self.launched == len(self._live) + self.finished + self.failed

    def live_tasks(self) -> Iterable[calls.ReconcileTask]:
        return self._live.values()

    def is_live(self, task_id: TaskId) -> bool:
        return task_id in self._live

    def _state_wants(self) -> list[Effect]:
        if self.framework_id is None:
            return []
        want = Want(
            id=WantId("flood"), role=ROLE, count=self.wanted - self.launched, resources=SHAPE, strategy="binpack"
        )
        return [Call(calls.Request(framework_id=self.framework_id, wants=(want,)))]

    def _launch(self, event: events.Offers) -> list[Effect]:
        assert self.framework_id is not None
        effects: list[Effect] = []
        for offer in event.offers:
            self.launched += 1
            task_id = TaskId(f"flood.{self.launched}")
            info = TaskInfo(
                task_id=task_id,
                name="flood",
                agent_id=offer.agent_id,
                resources=offer.resources,
                command=CommandInfo(value="true"),
            )
            self._live[task_id] = calls.ReconcileTask(task_id=task_id, agent_id=offer.agent_id)
            accept = calls.Accept(
                framework_id=self.framework_id, offer_ids=(offer.id,), operations=(calls.Launch(tasks=(info,)),)
            )
            effects += (Persist(f"tasks/{task_id}", LaunchRecord(task_id)), Call(accept))
        return effects

    def _update(self, event: events.Update) -> list[Effect]:
        status = event.status
        if status.task_id not in self._live:
            return []
        if status.state is TaskState.RUNNING:
            self.running += 1
        if status.state not in TERMINAL:
            return []
        del self._live[status.task_id]
        if status.state is TaskState.FINISHED:
            self.finished += 1
        else:
            self.failed += 1
        return [Persist(f"tasks/{status.task_id}", None)]
