"""A whole framework: runs a command a few times at once, runs again what fails, and ends when all have finished."""

import asyncio
import sys
from collections.abc import Iterable, Sequence
from random import Random
from typing import Any

from corral.model import calls, events
from corral.model.framework import FrameworkInfo
from corral.model.ids import FrameworkId, TaskId, WantId
from corral.model.offer import Want
from corral.model.resources import scalar
from corral.model.task import TERMINAL, CommandInfo, TaskInfo, TaskState
from corral.runtime.core import Effect, Note, Stop
from corral.sdk.effects import Call
from corral.sdk.framework import Framework, run_framework
from corral.sdk.http import HttpTransport
from corral.sdk.match import Placement, match
from corral.store.memory import MemoryStore


class HelloCore:
    def __init__(self, count: int, command: str) -> None:
        self.id, self.missing, self.launched, self.command = FrameworkId(""), count, 0, command
        self.live: dict[TaskId, calls.ReconcileTask] = {}

    def handle(self, input: Any, now: float) -> Sequence[Effect]:
        match input:
            case events.Subscribed():
                self.id = input.framework_id
                return [self.ask()]
            case events.Offers():
                return [self.launch(placement) for placement in match(input.offers, [self.want()]).placements]
            case events.Explanations():
                return [Note("waiting", refusal.detail) for e in input.explanations for refusal in e.refusals]
            case events.Update(status=status) if status.state in TERMINAL and status.task_id in self.live:
                del self.live[status.task_id]
                if status.state is not TaskState.FINISHED:
                    self.missing += 1
                    return [Note("task failed", status.message or "", "warning"), self.ask()]
                return [Stop("all have finished", code=0)] if not self.live and not self.missing else []
        return []

    def want(self) -> Want:
        resources = (scalar("cpus", 0.1), scalar("mem", 32))
        return Want(id=WantId("hello"), role="*", count=self.missing, resources=resources, runtime="process")

    def ask(self) -> Effect:
        return Call(calls.Request(framework_id=self.id, wants=(self.want(),)))

    def launch(self, placed: Placement) -> Effect:
        self.missing, self.launched = self.missing - 1, self.launched + 1
        id, agent, command = TaskId(f"hello-{self.launched}"), placed.offer.agent_id, CommandInfo(value=self.command)
        self.live[id] = calls.ReconcileTask(task_id=id, agent_id=agent)
        task = TaskInfo(task_id=id, name="hello", agent_id=agent, resources=placed.resources, command=command)
        launch = (calls.Launch(tasks=(task,)),)
        return Call(calls.Accept(framework_id=self.id, offer_ids=(placed.offer.id,), operations=launch))

    def live_tasks(self) -> Iterable[calls.ReconcileTask]:
        return list(self.live.values())

    def is_live(self, task_id: TaskId) -> bool:
        return task_id in self.live

    def invariants(self) -> None:
        assert self.missing >= 0


if __name__ == "__main__":
    core = HelloCore(int(sys.argv[2]), sys.argv[3])
    framework = Framework(info=FrameworkInfo(user="root", name="hello"), core=core, records="hello/")
    sys.exit(asyncio.run(run_framework(framework, HttpTransport(sys.argv[1]), MemoryStore(), random=Random())))
