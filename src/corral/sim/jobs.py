"""Cron jobs and batches in a history: what is asked of them, and what must have come of it in the end.

Nothing is lost: each occurrence comes to an end, and what a batch was answered ends in success if it may be repeated.
Nothing is doubled: of an attempt there is one start, and of work that may run at most once no second start while the
first may still run.
"""

from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

import msgspec

from corral.frameworks import batch, cron
from corral.frameworks.batch.spec import TERMINAL, Delivery, JobState, Submit
from corral.frameworks.batch.spec import JobSpec as BatchSpec
from corral.frameworks.cron.chronos import read_job
from corral.frameworks.cron.spec import KillRuns, PutJob, Result, Run, RunJob
from corral.model.execution import Execution
from corral.runtime.core import Core
from corral.sdk.scheduler import Session
from corral.sim.cluster import Cluster
from corral.sim.containers import Behaviour, Container
from corral.sim.world import Answer, run_now

FIRINGS = 3
CRON_JOBS: tuple[dict[str, Any], ...] = (
    {"name": "root", "schedule": f"R{FIRINGS}//PT3S", "retries": 50},
    {"name": "once", "schedule": f"R{FIRINGS}//PT4S", "retries": 2, "delivery": "at-most-once"},
    {"name": "join", "parents": ["root"], "retries": 50, "delivery": "at-most-once"},
)
RETRY_S = 1.0


class CronPart:
    """The cron framework, with a few jobs that fire while everything breaks."""

    name = "cron"

    def __init__(self, cluster: Cluster, random: Random) -> None:
        self._cluster = cluster
        self._random = random
        self._run_of: dict[str, str] = {}

    @staticmethod
    def make(random: Random) -> Core:
        framework = cron.build(cron.Config(retry_delay_s=1.0, unreachable_timeout_s=20.0), random)
        return Session(framework.info, framework.core, random)

    @staticmethod
    def owns(task_id: str) -> bool:
        return task_id.startswith("ct:")

    def behave(self, execution: Execution) -> Behaviour:
        if self._random.random() < 0.05:
            return Behaviour(fails="no such image")
        return Behaviour(run_s=self._random.uniform(0.2, 6.0), code=self._random.choice([0, 0, 0, 1]))

    def begin(self) -> None:
        for fields in CRON_JOBS:
            body = {
                "command": "true", "cpus": 0.2, "mem": 32, "disk": 1, "concurrent": True, "misfirePolicy": "all",
                "delivery": "at-least-once", **fields,
            }  # fmt: skip
            self._cluster.ask(self.name, PutJob(spec=read_job(body).spec))

    def errand(self) -> None:
        commands = (RunJob(name="once"), RunJob(name="root"), KillRuns(name="root"))
        self._cluster.frameworks[self.name].ask(self._random.choice(commands))

    def see_start(self, task_id: str, running: list[Container]) -> None:
        _, due, _, job, *_ = task_id.split(":")
        if job != "once":
            return  # of others two occurrences may fall on one instant
        self._run_of[task_id] = self._find_run(task_id)
        others = [c.execution.task_id for c in running]
        doubled = [
            other
            for other in others
            if other.startswith(f"ct:{due}:") and self._run_of.get(other) == self._run_of[task_id]
        ]
        assert not doubled, f"{task_id} starts while {doubled} run"

    def _find_run(self, task_id: str) -> str:
        """The run whose launch this is, by the records: one that is asked for may be due with a scheduled one.

        Shapes: empty when it is no run's present launch.
        """
        process = self._cluster.frameworks[self.name]
        records = [
            msgspec.msgpack.decode(each.value, type=Run)
            for each in run_now(process.store.list(process.prefix + "run/once/"))
        ]
        return next((run.id for run in records if run.task_id == task_id), "")

    def unsettled(self) -> str:
        for job in self._state.jobs.values():
            if job.runs or job.items:
                return f"{job.name} has {list(job.runs)} and waits for {list(job.items)}"
            if job.grid is not None and not job.spec.disabled:
                return f"{job.name} has {job.progress.left} firings left"
        return ""

    def check(self) -> None:
        state = self._state
        started = [task_id for _, task_id in self._cluster.ledger.runs if self.owns(task_id)]
        tokens = [task_id.rpartition(":")[2] for task_id in started]
        assert len(set(tokens)) == len(tokens), "two launches of cron have one token"
        attempts = Counter((t.rpartition(":")[0], self._run_of[t]) for t in started if ":once:" in t)
        assert not attempts or max(attempts.values()) == 1, f"an attempt of once started twice: {attempts}"
        ended = [e for e in state.jobs["join"].history if e.result is Result.SUCCESS and e.cause == "parents"]
        joined = Counter(e.round for e in ended)
        assert not joined or max(joined.values()) == 1, f"a round joined twice: {joined}"
        for name in ("root", "once"):
            final = [e.due for e in state.jobs[name].history if e.final and e.cause == "schedule"]
            assert len(final) == FIRINGS, f"{len(final)} of {FIRINGS} firings of {name} came to an end"
            assert len(set(final)) == FIRINGS, f"an occurrence of {name} fired twice: {final}"

    @property
    def _state(self) -> Any:
        return self._cluster.frameworks[self.name].core._core.state  # type: ignore[attr-defined]


class BatchPart:
    """The batch framework; whoever submits says it again, by the same key, until it is answered."""

    name = "batch"

    def __init__(self, cluster: Cluster, random: Random) -> None:
        self._cluster = cluster
        self._random = random
        self._submitted = 0
        self._open: set[str] = set()
        self._asked: dict[str, Submit] = {}
        self.ids: dict[str, tuple[str, ...]] = {}

    @staticmethod
    def make(random: Random) -> Core:
        framework = batch.build(batch.Config(unreachable_timeout_s=20.0), random)
        return Session(framework.info, framework.core, random)

    def behave(self, execution: Execution) -> Behaviour:
        return Behaviour(run_s=self._random.uniform(0.2, 8.0), code=self._random.choice([0, 0, 0, 1]))

    def begin(self) -> None:
        self.errand()

    def errand(self) -> None:
        """Submit a few jobs."""
        self._submitted += 1
        key = f"key {self._submitted}"
        delivery = self._random.choice(list(Delivery))
        spec = BatchSpec(command="true", cpus=0.2, mem=16.0, retries=50, delivery=delivery, ttl=7 * 86_400)
        jobs = (spec,) * self._random.randint(1, 4)
        self._asked[key] = Submit(jobs=jobs, key=key, digest=key, check=False)
        self._submit(key)

    def _submit(self, key: str) -> None:
        def answered(answer: Answer) -> None:
            if answer.error is not None:
                self._cluster.world.after(RETRY_S, lambda: self._submit(key))
                return
            before = self.ids.setdefault(key, tuple(answer.value.ids))
            assert before == tuple(answer.value.ids), f"{key} was answered with {before} and {answer.value.ids}"

        self._cluster.frameworks[self.name].ask(self._asked[key], answered)

    def see_start(self, task_id: str, running: list[Container]) -> None:
        job_id = task_id.rpartition(".")[0]
        doubled = [c.execution.task_id for c in running if c.execution.task_id.rpartition(".")[0] == job_id]
        job = self._state.find(job_id) if self._cluster.frameworks[self.name].up else None
        if job is not None and job.spec.delivery is Delivery.AT_MOST_ONCE:
            assert not doubled, f"{task_id} starts while {doubled} run"

    def unsettled(self) -> str:
        if len(self.ids) != len(self._asked):
            return f"{len(self._asked) - len(self.ids)} submissions are not answered"
        waiting = [job.id for job in self._jobs() if job is not None and job.state not in TERMINAL]
        return f"jobs {waiting} have not ended" if waiting else ""

    def check(self) -> None:
        ids = [job_id for found in self.ids.values() for job_id in found]
        wanted = sum(len(asked.jobs) for asked in self._asked.values())
        assert len(set(ids)) == len(ids) == wanted, f"{wanted} jobs were submitted and {len(ids)} are known"
        all_jobs = list(self._state.all_jobs())
        assert len(all_jobs) == wanted, f"{wanted} jobs were submitted and there are {len(all_jobs)}"
        for job in self._jobs():
            assert job is not None, "a job that was answered is not known"
            if job.state is not JobState.SUCCEEDED:
                assert job.spec.delivery is Delivery.AT_MOST_ONCE, f"{job.id} ended as {job.state}"
                assert "at most once" in job.run.reason, f"{job.id} ended as {job.state}: {job.run.reason}"

    def _jobs(self) -> list[Any]:
        return [self._state.find(job_id) for found in self.ids.values() for job_id in found]

    @property
    def _state(self) -> Any:
        return self._cluster.frameworks[self.name].core._core.state  # type: ignore[attr-defined]


Part = CronPart | BatchPart

MAKERS: dict[str, Callable[[Random], Core]] = {"cron": CronPart.make, "batch": BatchPart.make}


def make_part(name: str, cluster: Cluster, random: Random) -> Part:
    return CronPart(cluster, random) if name == "cron" else BatchPart(cluster, random)
