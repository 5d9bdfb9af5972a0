"""All that the cron framework has in memory, and what must always hold of it.

What waits for resources stands in one queue per shape, so that an offer finds the next run of its shape at once and a
hundred thousand jobs that are due together are a few wants. A firing that a schedule asks for is not a record until it
is launched: it follows from the schedule and the progress, and so cannot be lost.
"""

import heapq
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha1
from random import Random
from typing import TYPE_CHECKING

import msgspec

from corral.frameworks.cron.dags.spec import PlanDag, PutDag
from corral.frameworks.cron.dags.state import Dags
from corral.frameworks.cron.graph import common_root
from corral.frameworks.cron.schedule import Grid, period_s, read_schedule
from corral.frameworks.cron.spec import (
    LIVE,
    RUN_STATES,
    Backfill,
    Config,
    Edges,
    HistoryRecord,
    JobRecord,
    JobSpec,
    Misfire,
    Progress,
    PutJob,
    Run,
    Signal,
)
from corral.model.ids import TaskId, WantId
from corral.model.offer import Explanation, Want
from corral.sdk.node_records import NodeMemory
from corral.sdk.notices import Outbox
from corral.sdk.patience import Patience
from corral.sdk.subscription import Subscription
from corral.sdk.tokens import TokenCounter

if TYPE_CHECKING:
    from corral.frameworks.cron.check import CheckJobs

replace = msgspec.structs.replace

_MOVES = frozenset((old, new) for (old, _), new in RUN_STATES.items())

SCHEDULED = "schedule"
BACKFILLED = "backfill"
MOST_PROVEN = 10_000
SKIP_AFTER_S = 60.0
"""How late a job with `misfire` skip is still started when it names no epsilon."""


class Item(msgspec.Struct, frozen=True):
    """Something that may be launched now. Shapes: `what` is a run's id, `SCHEDULED` or `BACKFILLED`."""

    job: str
    what: str


class Queue:
    """All that waits for resources of one shape, first come first served.

    Shapes: `want` has the count 0; each item has the instant since which it waits; `never` when it was told that no
    agent could run it.
    """

    __slots__ = ("items", "never", "want")

    def __init__(self, want: Want) -> None:
        self.want = want
        # Not a plain dict: taking the first of many again and again would walk over all that were taken before.
        self.items: OrderedDict[Item, float] = OrderedDict()
        self.never = False


class Held(msgspec.Struct, frozen=True):
    """A definition, or the plan of some, that waits to hear whether an agent could run it. Units: `until_at` seconds.

    Shapes: `wants` is what is asked about, by the name of its job or step.
    """

    ask: int
    command: "PutJob | PutDag | PlanDag | CheckJobs"
    wants: dict[str, Want]
    until_at: float


class Job:
    """One job at work: its records, its unfinished runs by id, what of it waits for resources."""

    __slots__ = (
        "_grid", "_most_late", "backfill", "edges", "elements", "history", "items", "progress", "record", "runs",
        "skipped", "wake_at", "want",
    )  # fmt: skip

    def __init__(self, record: JobRecord, progress: Progress) -> None:
        self.record = record
        self.progress = progress
        self.edges = Edges()
        self.runs: dict[str, Run] = {}
        self.backfill: Backfill | None = None
        self.items: dict[str, None] = {}
        self.history: deque[HistoryRecord] = deque()
        self.wake_at: int | None = None
        self.want: Want | None = None
        self.skipped = 0
        self.elements = 0
        self._grid: Grid | None = None
        self._most_late: int | None = None
        self.adopt(record)

    @property
    def spec(self) -> JobSpec:
        return self.record.spec

    @property
    def name(self) -> str:
        return self.record.spec.name

    @property
    def is_hidden(self) -> bool:
        return self.record.leaving or self.record.step is not None

    @property
    def grid(self) -> Grid | None:
        """None for a dependent job."""
        return self._grid

    @property
    def most_late(self) -> int | None:
        """How many milliseconds late an occurrence is still started; None is for ever."""
        return self._most_late

    def adopt(self, record: JobRecord) -> None:
        """Take on a new definition; what was derived from the old one is made anew when it is needed."""
        before, spec = self.record.spec, record.spec
        self.record = record
        self.want = None
        if self._grid is None or (spec.schedule, spec.time_zone) != (before.schedule, before.time_zone):
            self._grid = None if spec.schedule is None else read_schedule(spec.schedule, spec.time_zone)
        self._most_late = None
        if spec.epsilon is not None:
            self._most_late = round(period_s(spec.epsilon) * 1000)
        elif spec.misfire is Misfire.SKIP:
            self._most_late = round(SKIP_AFTER_S * 1000)

    @property
    def live(self) -> list[Run]:
        return [run for run in self.runs.values() if run.state in LIVE]

    @property
    def queued(self) -> list[Run]:
        """Runs that wait to be launched, retries that are still ahead included."""
        return [run for run in self.runs.values() if run.state not in LIVE]

    def is_exhausted(self) -> bool:
        """Whether the last of its scheduled firings is over."""
        scheduled = any(run.fired for run in self.runs.values())
        return self.grid is not None and self.progress.left == 0 and not scheduled


class State(Subscription):
    """Shapes: `dirty` jobs have to be looked at; `heap` holds when to
    look at a job again, with entries that no longer count; `trash` are keys of records to be deleted bit by bit;
    `tasks` finds a run by its present task; `nodes` remembers what failed where, `node_memory` what of it is written
    down; `explanations` is what the master said last of what waits; `proven` are shapes of which an agent has taken
    one, or could; `seen_at` is the instant of the last input.
    """

    __slots__ = (
        "children", "config", "dags", "dirty", "endings", "explanations", "fire_at", "heap", "held", "jobs", "leaving",
        "node_memory", "nodes", "notices", "patience", "proven", "purged", "queues", "random", "roots", "seen_at",
        "signals", "tasks", "tokens", "trash",
    )  # fmt: skip

    def __init__(self, config: Config, random: Random) -> None:
        super().__init__()
        self.config = config
        self.random = random
        self.jobs: dict[str, Job] = {}
        self.dags = Dags()
        self.children: dict[str, set[str]] = {}
        self.roots: dict[str, str | None] = {}
        self.queues: dict[WantId, Queue] = {}
        self.tasks: dict[TaskId, tuple[str, str]] = {}
        self.dirty: OrderedDict[str, None] = OrderedDict()
        self.heap: list[tuple[int, str]] = []
        self.node_memory = NodeMemory()
        self.nodes = self.node_memory.scores
        self.explanations: dict[WantId, Explanation] = {}
        self.patience = Patience()
        self.held: list[Held] = []
        self.proven: set[WantId] = set()
        self.signals: dict[str, Signal] = {}
        self.notices: Outbox = {}
        self.trash: list[str] = []
        self.tokens = TokenCounter()
        self.leaving: dict[str, None] = {}
        self.endings: dict[TaskId, None] = {}
        self.purged = 0
        self.fire_at: int | None = None
        self.seen_at = 0.0

    # Jobs and the graph.

    def visible(self, name: str) -> Job | None:
        """The job, unless it is a DAG's, or deleted and only waits for its children to know."""
        job = self.jobs.get(name)
        return None if job is None or job.is_hidden else job

    def visible_jobs(self) -> list[Job]:
        """By name."""
        return [job for _, job in sorted(self.jobs.items()) if not job.is_hidden]

    def add_job(self, job: Job) -> None:
        self.jobs[job.name] = job
        for parent in job.spec.parents:
            self.children.setdefault(parent, set()).add(job.name)
        self.roots.clear()

    def adopt(self, job: Job, record: JobRecord) -> None:
        """A job's new definition. What waits of it waits in the queue of its new shape from the next look on."""
        self.unqueue_all(job)
        if record.spec.parents == job.spec.parents:
            job.adopt(record)
            return
        self._unlink(job)
        job.adopt(record)
        self.add_job(job)

    def drop_job(self, job: Job) -> None:
        self.unqueue_all(job)
        self._unlink(job)
        for run in job.runs.values():
            self.forget_task(run)
        del self.jobs[job.name]
        self.dirty.pop(job.name, None)
        self.roots.clear()

    def _unlink(self, job: Job) -> None:
        for parent in job.spec.parents:
            children = self.children.get(parent)
            if children is not None:
                children.discard(job.name)
                if not children:
                    del self.children[parent]

    @property
    def parents(self) -> "ParentsView":
        return ParentsView(self.jobs)

    def root_of_parents(self, job: Job) -> str | None:
        """The root that all parents of the job have in common, see `graph`."""
        if job.name not in self.roots:
            self.roots[job.name] = common_root(job.spec.parents, self.parents)
        return self.roots[job.name]

    # Runs.

    def place(self, job: Job, run: Run, *, look: bool = True) -> None:
        """Add the run, or put its new form in the place of the old one; with `look` the job's plan is made anew."""
        old = job.runs.get(run.id)
        assert old is None or old.state is run.state or (old.state, run.state) in _MOVES, f"{run.id}: {old} to {run}"
        if old is not None and old.task_id is not None and old.task_id != run.task_id:
            self.forget_task(old)
        if run.task_id is not None:
            self.tasks[run.task_id] = (job.name, run.id)
            if run.ending:
                self.endings[run.task_id] = None
        job.runs[run.id] = run
        if look:
            self.dirty[job.name] = None

    def drop_run(self, job: Job, run: Run) -> None:
        del job.runs[run.id]
        self.forget_task(run)
        self.dirty[job.name] = None

    def forget_task(self, run: Run) -> None:
        if run.task_id is not None:
            self.tasks.pop(run.task_id, None)
            self.endings.pop(run.task_id, None)

    def find(self, task_id: str) -> tuple[Job, Run] | None:
        """The run whose present launch this task is."""
        found = self.tasks.get(TaskId(task_id))
        if found is None:
            return None
        job = self.jobs[found[0]]
        return job, job.runs[found[1]]

    def mint_run_id(self) -> str:
        return f"{self.random.getrandbits(64):016x}"

    # Queues.

    def prove(self, want_id: WantId) -> None:
        """An agent could run this, or does."""
        if len(self.proven) >= MOST_PROVEN:
            self.proven.clear()
        self.proven.add(want_id)

    def enqueue(self, job: Job, want: Want, what: str, since_at: float) -> None:
        queue = self.queues.get(want.id)
        if queue is None:
            queue = self.queues[want.id] = Queue(want)
        job.want = want
        job.items[what] = None
        queue.items[Item(job.name, what)] = since_at
        self.wants_changed = True

    def unqueue(self, job: Job, what: str) -> None:
        if what not in job.items:
            return
        assert job.want is not None
        queue = self.queues[job.want.id]
        del job.items[what]
        del queue.items[Item(job.name, what)]
        self.wants_changed = True
        if not queue.items:
            del self.queues[job.want.id]

    def unqueue_all(self, job: Job) -> None:
        for what in list(job.items):
            self.unqueue(job, what)

    def wake(self, job: Job, at: int | None) -> None:
        """Look at the job again at this instant, in ms, and at no other."""
        if at != job.wake_at:
            job.wake_at = at
            if at is not None:
                heapq.heappush(self.heap, (at, job.name))
                if len(self.heap) > 2 * len(self.jobs) + 1000:
                    # Entries that no longer count leave by themselves only when their instant has come.
                    self.heap = [(j.wake_at, name) for name, j in self.jobs.items() if j.wake_at is not None]
                    heapq.heapify(self.heap)

    def next_wake(self) -> int | None:
        """When to look at the next job; entries that no longer count are dropped on the way."""
        while self.heap:
            at, name = self.heap[0]
            job = self.jobs.get(name)
            if job is not None and job.wake_at == at:
                return at
            heapq.heappop(self.heap)
        return None

    def touch(self, names: Iterable[str]) -> None:
        for name in names:
            self.dirty[name] = None

    def invariants(self) -> None:
        """Queues and jobs agree, tasks and runs agree, the graph has its edges in both directions and no circle."""
        queued = {Item(name, what) for name, job in self.jobs.items() for what in job.items}
        standing = [item for queue in self.queues.values() for item in queue.items]
        assert set(standing) == queued, "queues and jobs differ"
        assert len(standing) == len(queued), "something waits in two queues"
        tasks = {
            run.task_id: (name, run.id)
            for name, job in self.jobs.items()
            for run in job.runs.values()
            if run.task_id is not None
        }
        assert tasks == self.tasks, "tasks and runs differ"
        children: dict[str, set[str]] = {}
        for name, job in self.jobs.items():
            assert name == job.spec.name, f"job {job.spec.name} is kept under {name}"
            rooted = bool(job.spec.parents) or job.record.step is not None
            assert (job.grid is None) == rooted, f"job {name} has both a schedule and parents, or none"
            for parent in job.spec.parents:
                assert parent in self.jobs, f"parent {parent} of {name} does not exist"
                children.setdefault(parent, set()).add(name)
            for run in job.runs.values():
                assert run.job == name, f"run {run.id} of {run.job} is kept with {name}"
                assert (run.state in LIVE) == (run.task_id is not None), f"run {run.id} is {run.state}: {run.task_id}"
                assert run.token <= self.tokens.last, f"run {run.id} has a token that was never given out"
            for what in job.items:
                if what in job.runs:
                    assert job.runs[what].state not in LIVE, f"run {what} waits and has a task"
            assert len(job.history) <= self.config.most_history, f"history of {name} grows"
        self.dags.invariants()
        assert children == self.children, "children and parents differ"
        ending = {r.task_id for job in self.jobs.values() for r in job.runs.values() if r.task_id and r.ending}
        assert ending == set(self.endings), "endings and runs differ"
        self.tokens.invariants()


class ParentsView(Mapping[str, tuple[str, ...]]):
    """The parents of jobs, looked up where they are."""

    def __init__(self, jobs: dict[str, Job]) -> None:
        self._jobs = jobs

    def __getitem__(self, name: str) -> tuple[str, ...]:
        return self._jobs[name].spec.parents

    def __iter__(self) -> Iterator[str]:
        return iter(self._jobs)

    def __len__(self) -> int:
        return len(self._jobs)


def digest(*parts: object) -> str:
    """A short name for what is equal in all of these."""
    return sha1(msgspec.msgpack.encode(parts), usedforsecurity=False).hexdigest()[:16]
