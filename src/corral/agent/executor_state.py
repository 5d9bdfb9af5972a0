"""What the agent knows of one executor: a process that a framework brings, or the agent's own for groups of tasks.

Rule: an executor comes with its first task and holds its resources until it has ended. A custom one is a container and
lives as one; the default one is no process at all, so that nothing of it can fail: each task of a group has its own
container, and the executor is over with the last of them. Source: Mesos v1, executors.
"""

from typing import TYPE_CHECKING

from corral.agent.spec import Ending, ExecutorRecord, ExecutorRun
from corral.agent.staged import Staged
from corral.model.execution import Launched
from corral.model.ids import ExecutorId, FrameworkId, TaskId
from corral.runtime.core import Effect, Persist

if TYPE_CHECKING:
    from corral.agent.execution import Plan
    from corral.agent.state import Task

ExecutorKey = tuple[FrameworkId, ExecutorId]


class Executor(Staged):
    """Shapes: `stream` is its event stream while it listens; `tasks` are those that are not forgotten.

    `unsettled` when it is from the records of an earlier agent process and its runtime has not been heard yet.
    """

    __slots__ = (
        "container_id", "cpu_milli", "ending", "framework_id", "info", "key", "launched", "mem_mb", "plan", "role",
        "runtime", "sandbox", "stream", "subscribed", "tasks", "unsettled",
    )  # fmt: skip

    def __init__(self, record: ExecutorRecord) -> None:
        super().__init__()
        self.key: ExecutorKey = (record.framework_id, record.info.executor_id)
        self.framework_id = record.framework_id
        self.role = record.role
        self.info = record.info
        self.container_id = record.container_id
        self.runtime = record.runtime
        self.sandbox = record.sandbox
        self.launched: Launched | None = None
        self.ending: Ending | None = None
        self.subscribed = False
        self.stream: str | None = None
        self.tasks: dict[TaskId, Task] = {}
        self.plan: Plan | None = None
        self.unsettled = False
        self.cpu_milli = 0
        self.mem_mb: int | None = None

    @property
    def is_default(self) -> bool:
        return self.info.is_default

    @property
    def live_tasks(self) -> list["Task"]:
        return [task for _, task in sorted(self.tasks.items()) if task.live]

    def save(self) -> list[Effect]:
        record = ExecutorRecord(self.framework_id, self.role, self.info, self.container_id, self.runtime, self.sandbox)
        return [Persist(executor_path(self.key), record), self.save_run()]

    def save_run(self) -> Persist:
        run = ExecutorRun(self.stage, self.launched, self.ending, self.subscribed, self.cpu_milli, self.mem_mb)
        return Persist(executor_run_path(self.key), run)

    def erase(self) -> list[Effect]:
        return [Persist(executor_path(self.key), None), Persist(executor_run_path(self.key), None)]

    def take_up(self, run: ExecutorRun) -> None:
        """Go on from where the record says that an earlier process was."""
        self.stage = run.stage
        self.launched = run.launched
        self.ending = run.ending
        self.subscribed = run.subscribed
        self.cpu_milli, self.mem_mb = run.cpu_milli, run.mem_mb
        self.unsettled = not self.is_default


def executor_path(key: ExecutorKey) -> str:
    return f"executors/{key[0]}/{key[1]}"


def executor_run_path(key: ExecutorKey) -> str:
    return f"executor-runs/{key[0]}/{key[1]}"
