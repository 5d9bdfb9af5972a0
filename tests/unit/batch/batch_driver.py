"""A batch core with a pretended master beside it."""

from typing import Any

import msgspec
from pretended_master import START, PretendedMaster

from corral.frameworks.batch import BatchCore, Config
from corral.frameworks.batch.admission import Admitted
from corral.frameworks.batch.dialect import read_submission
from corral.frameworks.batch.spec import GetJob, GetStats, KillJob, KillJobs, ListJobs, Owner, PutOwner
from corral.frameworks.batch.state import State
from corral.model import events
from corral.model.ids import FrameworkId, TaskId
from corral.model.offer import Explanation, Refusal
from corral.net.routes import Request


class Cluster(PretendedMaster):
    """Commands and looks of the batch framework."""

    core: BatchCore

    def __init__(self, config: Config | None = None, now: float = START) -> None:
        self.config = config or Config()
        super().__init__(lambda random: BatchCore(self.config, random), now)

    @property
    def state(self) -> State:
        return self.core.state

    def submit(self, *jobs: dict[str, Any], key: str = "", check: bool = False) -> Admitted:
        """Jobs of `true` unless they say what to run."""
        body = {"jobs": [{"command": "true", **job} if "argv" not in job else job for job in jobs or ({},)]}
        headers = {"idempotency-key": key} if key else {}
        query = {"check": ["true" if check else "false"]}
        request = Request(
            method="POST", path="/v1/batch/jobs", body=msgspec.json.encode(body), headers=headers, query=query
        )
        found: Admitted = self.ask(read_submission(request, self.config.most_jobs, self.config.most_array))
        self.settle()
        return found

    def one(self, **job: Any) -> str:
        return self.submit(job).ids[0]

    def show(self, job_id: str) -> Any:
        return self.ask(GetJob(id=job_id))

    def state_of(self, job_id: str) -> str:
        state: str = self.show(job_id)["state"]
        return state

    def reason(self, job_id: str) -> str:
        reason: str = self.show(job_id)["reason"]
        return reason

    def stats(self) -> Any:
        return self.ask(GetStats())

    def list(self, **filters: Any) -> Any:
        return self.ask(ListJobs(**filters))

    def kill(self, job_id: str) -> Any:
        found = self.ask(KillJob(id=job_id))
        self.settle()
        return found

    def kill_many(self, **filters: Any) -> int:
        found: int = self.ask(KillJobs(**filters))
        self.settle()
        return found

    def set_owner(self, owner: str, **record: Any) -> None:
        self.ask(PutOwner(owner=owner, record=Owner(**record)))
        self.settle()

    def explain(
        self, *, never: bool = False, detail: str = "wants cpus 1, the largest agent has 0.5", least_cpus: float = 0.0
    ) -> None:
        """Say of every want why it waits, or of those that ask for so much."""
        found = tuple(
            Explanation(
                want_id=want_id, framework_id=FrameworkId("F"), role="*", waiting=want.count, since_at=self.now,
                agents=2, refusals=(Refusal(reason="cpus", detail=detail, agents=2, best="host1"),), never=never,
            )
            for want_id, want in self.wants.items()
            if any(one.name == "cpus" and one.milli >= least_cpus * 1000 for one in want.resources)
        )  # fmt: skip
        self.send(events.Explanations(explanations=found))
        self.settle()


def job_of(task_id: TaskId) -> str:
    return task_id.rpartition(".")[0]
