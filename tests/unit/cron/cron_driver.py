"""A cron core with a pretended master beside it."""

from datetime import UTC, datetime
from typing import Any

from pretended_master import START, PretendedMaster

from corral.frameworks.cron import Config, CronCore
from corral.frameworks.cron.chronos import read_job
from corral.frameworks.cron.spec import (
    DeleteJob,
    GetHistory,
    GetJob,
    GetSummary,
    KillRuns,
    PutJob,
    RunJob,
)
from corral.frameworks.cron.state import Job, State
from corral.model.ids import TaskId
from corral.model.task import TaskState


class Cluster(PretendedMaster):
    """Commands and looks of the cron framework."""

    core: CronCore

    def __init__(self, config: Config | None = None, now: float = START) -> None:
        self.config = config or Config()
        super().__init__(lambda random: CronCore(self.config, random), now)

    def put(self, name: str, **fields: Any) -> None:
        body = {"name": name, "command": f"echo {name}", **fields}
        found = read_job(body)
        self.ask(PutJob(spec=found.spec, counters=found.counters, ignored=found.unknown))
        self.settle()

    def run_now(self, name: str, arguments: str = "", **parameters: str) -> None:
        self.ask(RunJob(name=name, arguments=arguments, parameters=parameters))
        self.settle()

    def delete(self, name: str) -> None:
        self.ask(DeleteJob(name=name))
        self.settle()

    def kill(self, name: str) -> None:
        self.ask(KillRuns(name=name))
        self.settle()

    def cycle(self, state: TaskState = TaskState.FINISHED) -> list[str]:
        """Launch what is wanted and let it end; returns the names of the jobs that ran, in order."""
        found = self.start()
        self.finish(*found, state=state) if found else None
        return [job_of(task_id) for task_id in found]

    @property
    def state(self) -> State:
        return self.core.state

    def job_names(self) -> list[str]:
        return [job.name for job in self.state.visible_jobs()]

    def job(self, name: str) -> Job:
        return self.state.jobs[name]

    def show(self, name: str) -> Any:
        return self.ask(GetJob(name=name))

    def summary(self, name: str) -> tuple[str, str]:
        rows = {row["name"]: row for row in self.ask(GetSummary())["jobs"]}
        return rows[name]["status"], rows[name]["state"]

    def history(self, name: str) -> Any:
        return self.ask(GetHistory(name=name))


def job_of(task_id: TaskId) -> str:
    return task_id.split(":")[3]


def due_of(task_id: TaskId) -> str:
    """The due instant in a task's id as text."""
    return datetime.fromtimestamp(int(task_id.split(":")[1]) / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
