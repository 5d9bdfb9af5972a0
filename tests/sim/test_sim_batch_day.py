"""A day of a large video site's batch cluster: a rush ten times the mean, failing first tries, leaders that die.

Short unless told: `CORRAL_BATCH_JOBS=3000000 CORRAL_BATCH_HOURS=24` is the whole day of iQiyi's talk, 350 jobs a second
at its peak. Memory is bounded by what is open, so only time limits it: about a millisecond of one core for each job.
A failing seed runs alone with `CORRAL_SEED=N`.
"""

import os
from contextlib import suppress
from random import Random

import msgspec
import pytest

from corral.frameworks.batch import Config, build
from corral.frameworks.batch.spec import TERMINAL, Delivery, JobSpec, JobState, Submit
from corral.frameworks.batch.state import State
from corral.lib.errors import Unavailable
from corral.model.execution import Execution
from corral.model.resources import ports, scalar
from corral.runtime.core import Core
from corral.runtime.service import relax_collector
from corral.sdk.scheduler import Session
from corral.sim.cluster import AGENT, Cluster
from corral.sim.containers import Behaviour, Container

SEED = int(os.environ.get("CORRAL_SEED", "1"))
JOBS = int(os.environ.get("CORRAL_BATCH_JOBS", "300"))
HOURS = float(os.environ.get("CORRAL_BATCH_HOURS", "0.75"))
DEATH_EVERY_S = 600.0
PORTION_S = 5.0
KEPT_S = 300
RUSH, RUSH_SHARE = 10.0, 0.03
"""In the rush come ten times as many as in the rest of a day: 3,000,000 are 27 a second and 270, drawn up to 350."""
OLD_S = 1800.0
NODE = (scalar("cpus", 512.0), scalar("mem", 2_000_000.0), ports((31000, 31999)))


if JOBS > 2000:
    pytestmark = pytest.mark.timeout(0)
    relax_collector()


def make_batch(random: Random) -> Core:
    framework = build(Config(unreachable_timeout_s=60.0), random)
    return Session(framework.info, framework.core, random)


class Day:
    """The cluster, the jobs that are not over, and what each job is known to have done.

    Shapes: `starts` and `ends` count containers by the number of the job; `found` the jobs' last states.
    """

    def __init__(self, delivery: Delivery) -> None:
        agent = msgspec.structs.replace(AGENT, gc_delay_s=60.0)
        self.cluster = Cluster(SEED, {"batch": make_batch}, agents=4, behave=self.behave, node=NODE, agent=agent)
        self.cluster.world.check_every = 1 if JOBS <= 2000 else 20_000
        self.cluster.ledger.on_start = self.count
        for process in self.cluster.processes:
            process.revive = True
        self.delivery = delivery
        self.random = Random(SEED)
        self.starts, self.submitted = bytearray(JOBS), 0
        self.open: dict[str, None] = {}
        self.found: dict[JobState, int] = {}
        self.reasons: list[str] = []

    def behave(self, execution: Execution) -> Behaviour:
        """One in twenty fails at its first try. They run for one to seven seconds."""
        number = number_of(execution)
        first = self.starts[number] == 0
        return Behaviour(run_s=1.0 + number % 7, code=1 if first and number % 20 == 0 else 0)

    def count(self, node: str, container: Container) -> None:
        self.starts[number_of(container.execution)] += 1

    @property
    def state(self) -> State:
        state: State = self.cluster.frameworks["batch"].core._core.state  # type: ignore[attr-defined]
        return state

    def submit(self, count: int) -> None:
        numbers = range(self.submitted, self.submitted + count)
        jobs = tuple(
            JobSpec(command=f"work {n}", cpus=0.2, mem=16.0, retries=2, delivery=self.delivery, ttl=KEPT_S)
            for n in numbers
        )
        self.submitted += count
        command = Submit(jobs=jobs, key=f"from {numbers.start}", digest=str(count), check=False)
        while True:
            self.start_ended()
            with suppress(Unavailable):
                self.open.update(dict.fromkeys(self.cluster.ask("batch", command, for_s=5.0).ids))
                return

    def start_ended(self) -> None:
        """As a service manager does: a process that ends, since another seemed to have taken over, comes back."""
        for process in self.cluster.processes:
            if process.exit_code is not None:
                process.start()

    def note_ends(self) -> None:
        if not self.cluster.frameworks["batch"].up:
            return
        for job_id in list(self.open):
            job = self.state.find(job_id)
            assert job is not None, f"job {job_id} was taken and is lost"
            if job.state in TERMINAL:
                del self.open[job_id]
                self.found[job.state] = self.found.get(job.state, 0) + 1
                if job.state is not JobState.SUCCEEDED and job.run is not None:
                    self.reasons.append(job.run.reason)

    def forget_runs(self) -> None:
        """What ended long ago needs no witness: by then its job is over and its record gone."""
        ledger, before = self.cluster.ledger, self.cluster.world.now - OLD_S
        ledger.runs = {
            key: runs
            for key, runs in ledger.runs.items()
            if any(c.runs or (c.ended_at or 0.0) > before for _, c in runs)
        }

    def kill_leader(self, number: int) -> None:
        """Master and framework die together, each at some point of one of their next turns."""
        for name in ("master", "batch"):
            victim = self.cluster.world.processes[name]
            victim.crash_at = victim.points + 1 + (number * 7) % 60


def number_of(execution: Execution) -> int:
    return int(execution.argv[-1].rpartition(" ")[2])


def due(at_s: float, whole_s: float) -> float:
    """How many jobs have come by then: a rush of a 30th of the time has ten times the rate of the rest."""
    rush_s = whole_s * RUSH_SHARE
    begin = whole_s * 0.75
    weight = at_s + (RUSH - 1.0) * min(max(at_s - begin, 0.0), rush_s)
    return JOBS * weight / (whole_s + (RUSH - 1.0) * rush_s)


@pytest.mark.parametrize("delivery", list(Delivery))
def test_a_day_of_batch_jobs_is_done_whole_though_leaders_die_every_ten_minutes(delivery: Delivery) -> None:
    day = Day(delivery)
    cluster, whole_s = day.cluster, HOURS * 3600.0
    cluster.start()
    begun_at, deaths, forgotten_at = cluster.world.now, 0, 0.0
    while (at_s := cluster.world.now - begun_at) < whole_s:
        coming = min(int(due(min(at_s + PORTION_S, whole_s), whole_s)) - day.submitted, 10_000)
        if coming > 0:
            day.submit(coming)
        if at_s >= (deaths + 1) * DEATH_EVERY_S:
            deaths += 1
            day.kill_leader(deaths)
        if at_s >= forgotten_at + OLD_S:
            forgotten_at = at_s
            day.forget_runs()
        day.start_ended()
        cluster.run(PORTION_S)
        day.note_ends()
    day.submit(JOBS - day.submitted) if day.submitted < JOBS else None
    for _ in range(200):
        day.start_ended()
        cluster.run(PORTION_S)
        day.note_ends()
        if not day.open:
            break
    assert not day.open, f"{len(day.open)} jobs do not end"
    assert sum(day.found.values()) == JOBS
    died = min(len(cluster.world.processes[name].crashed_at) for name in ("master", "batch"))
    assert died >= deaths - 1 >= int(HOURS * 6) - 2, f"only {died} deaths"
    tries = [2 if number % 20 == 0 else 1 for number in range(JOBS)]
    if delivery is Delivery.AT_MOST_ONCE:
        # Not even a try is made twice; what nobody knows the fate of is said to be lost.
        assert all(made <= most for made, most in zip(day.starts, tries, strict=True))
        assert all("at most once" in reason for reason in day.reasons), day.reasons[:3]
        assert day.found[JobState.SUCCEEDED] >= JOBS * 0.99
    else:
        assert day.found == {JobState.SUCCEEDED: JOBS}
        assert all(made >= least for made, least in zip(day.starts, tries, strict=True))
