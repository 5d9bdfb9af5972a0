"""All that the batch framework has in memory, and what must always hold of it.

A job that only waits is its specification and four references, in a line of its owner's jobs of one shape; what more
there is to say of it is made when it is launched. What a turn costs depends on owners and shapes, never on how many
jobs wait.
"""

import heapq
from collections import Counter, deque
from collections.abc import Iterator
from random import Random
from typing import Any

import msgspec

from corral.frameworks.batch.ids import SALT_BITS, read_id, write_head, write_id, write_number
from corral.frameworks.batch.spec import (
    ACTIVE,
    TERMINAL,
    Bundle,
    Config,
    JobSpec,
    JobState,
    KillOrder,
    Owner,
    Progress,
    Submit,
)
from corral.model.attributes import Attribute
from corral.model.ids import TaskId, WantId
from corral.model.offer import Explanation, Want
from corral.sdk.node_records import NodeMemory
from corral.sdk.notices import Outbox
from corral.sdk.patience import Patience
from corral.sdk.subscription import Subscription
from corral.sdk.tokens import TokenCounter

TOKENS_AT_ONCE = 100_000
MOST_OWNERS = 1000
"""Of so many those that are idle are kept in mind."""
MB_PER_CPU = 4096.0
CPUS_PER_GPU = 16.0
_RATE_S = 60


class BundleEntry:
    """The jobs of one record.

    Shapes: a place is None once its job is forgotten; `left` counts the others, `gone` has the keys of the former's
    records.
    """

    __slots__ = ("at", "digest", "duplicates", "gone", "head", "jobs", "left", "request", "seq", "tail")

    def __init__(self, seq: int, record: Bundle) -> None:
        self.seq = seq
        self.at = record.at
        self.head = write_head(record.at, seq)
        self.tail = write_number(record.salt, SALT_BITS // 5)
        self.request = record.request
        self.digest = record.digest
        self.duplicates = record.duplicates
        self.jobs: list[Job | None] = []
        self.left = 0
        self.gone: list[str] = []


class ArrayEntry:
    """The elements of an array. Shapes: those from `next` on have not been launched yet.

    Of these only the `skipped` ones, which are over without a launch, are in `elements`.
    """

    __slots__ = ("active", "counts", "elements", "ended", "ending", "next", "parent", "parked", "skipped")

    def __init__(self, parent: "Job") -> None:
        self.parent = parent
        self.next = 0
        self.active = 0
        self.ended = 0
        self.parked = False
        self.ending = ""
        self.skipped: set[int] = set()
        self.elements: dict[int, Job] = {}
        self.counts: Counter[JobState] = Counter()

    @property
    def count(self) -> int:
        array = self.parent.spec.array
        assert array is not None
        return array.count

    @property
    def fresh(self) -> int:
        """How many wait for their first launch."""
        return self.count - self.next - len(self.skipped)

    def is_full(self, more: int = 0) -> bool:
        """Whether as many elements are under way as may be, with so many more."""
        array = self.parent.spec.array
        assert array is not None
        return 0 < array.max_running <= self.active + more


class Job:
    """A job, an array, or an element of one. Shapes: `run` None is a job that has only waited so far; `array` is set
    for arrays and their elements, `element` for the latter; `line` where it can be launched at once."""

    __slots__ = ("array", "bundle", "element", "line", "place", "run", "spec")

    def __init__(self, bundle: BundleEntry, place: int, spec: JobSpec, element: int | None = None) -> None:
        self.bundle = bundle
        self.place = place
        self.spec = spec
        self.element = element
        self.run: Progress | None = None
        self.line: Line | None = None
        self.array: ArrayEntry | None = None

    @property
    def id(self) -> str:
        bundle = self.bundle
        found = write_id(bundle.head, self.place, bundle.tail)
        return found if self.element is None else f"{found}[{self.element}]"

    @property
    def state(self) -> JobState:
        return JobState.QUEUED if self.run is None else self.run.state

    @property
    def is_array(self) -> bool:
        return self.array is not None and self.element is None

    @property
    def priority(self) -> int:
        """As it was asked for, or set later for the job or its whole array."""
        if self.run is not None and self.run.priority is not None:
            return self.run.priority
        if self.element is not None and self.array is not None:
            return self.array.parent.priority
        return self.spec.priority

    @property
    def queued_at(self) -> float:
        return self.bundle.at if self.run is None or not self.run.queued_at else self.run.queued_at


class OwnerEntry:
    """An owner at work. Shapes: `queued` jobs wait, `active` are under way and cost `cost` in all."""

    __slots__ = ("active", "cost", "lines", "name", "queued", "record")

    def __init__(self, name: str) -> None:
        self.name = name
        self.record = Owner()
        self.lines: dict[str, Line] = {}
        self.queued = 0
        self.active = 0
        self.cost = 0.0

    @property
    def is_idle(self) -> bool:
        """Whether nothing would be lost of it: it is as one nobody has heard of."""
        return not (self.queued or self.active or self.lines) and self.record == Owner()

    @property
    def room(self) -> int:
        """How many more may be launched."""
        if self.record.paused:
            return 0
        return max(self.record.max_running - self.active, 0) if self.record.max_running else 1 << 30


class Line:
    """One owner's jobs of one shape that can be launched, first come first served; `count` of them with elements.

    Shapes: jobs that have ended meanwhile still stand in it and are passed over.
    """

    __slots__ = ("count", "jobs", "owner", "shape")

    def __init__(self, owner: OwnerEntry, shape: "Shape") -> None:
        self.owner = owner
        self.shape = shape
        self.jobs: deque[Job] = deque()
        self.count = 0


class Shape:
    """What jobs of equal needs ask of the master. Shapes: `want` has the count 0; `proven` when an agent has taken one
    or could; `blocked` while the master says why it waits and offers nothing."""

    __slots__ = ("blocked", "cost", "evicting_until", "explanation", "lines", "never_at", "proven", "want")

    def __init__(self, want: Want, cost: float) -> None:
        self.want = want
        self.cost = cost
        self.lines: dict[str, Line] = {}
        self.explanation: Explanation | None = None
        self.never_at: float | None = None
        self.proven = False
        self.blocked = False
        self.evicting_until = 0.0

    @property
    def count(self) -> int:
        return sum(line.count for line in self.lines.values())


class Waiter:
    """Somebody who waits for jobs to end. Shapes: `pending` are those that have not."""

    __slots__ = ("any", "ask", "ids", "pending")

    def __init__(self, ask: int, ids: tuple[str, ...], pending: set[str], any: bool) -> None:
        self.ask = ask
        self.ids = ids
        self.pending = pending
        self.any = any


class Held(msgspec.Struct, frozen=True):
    """A submission that waits to hear whether its shapes can run anywhere. Units: `until_at` seconds."""

    ask: int
    command: Submit
    shapes: tuple[WantId, ...]
    until_at: float


class Rate:
    """Events of the last minute, second by second."""

    __slots__ = ("_counts", "total")

    def __init__(self) -> None:
        self.total = 0
        self._counts: deque[tuple[int, int]] = deque()

    def add(self, now: float, count: int = 1) -> None:
        self.total += count
        second = int(now)
        if self._counts and self._counts[-1][0] >= second:
            last, before = self._counts[-1]
            self._counts[-1] = (last, before + count)
        else:
            self._counts.append((second, count))
            while self._counts[0][0] <= second - _RATE_S:
                self._counts.popleft()

    def per_s(self, now: float) -> float:
        found = [count for second, count in self._counts if second > now - _RATE_S]
        return sum(found) / _RATE_S


WAIT = "wait/"
"""The timers of those who wait for jobs to end."""

URGENT = 50
"""From this priority on jobs may have others ended."""

BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)


class State(Subscription):
    """Shapes: `active` has the job of each task that is under way; `due` holds when something is to be looked at again:
    `(at, number, what, job)`, entries that no longer count included; `ended` is the same for records that are to be
    forgotten; `trash` are keys to be deleted bit by bit. `nodes` remembers what failed where, `node_memory` what of it
    is written down.
    """

    __slots__ = (
        "active",
        "attributes",
        "bundles",
        "config",
        "counts",
        "due",
        "due_at",
        "due_number",
        "ended",
        "endings",
        "evicted",
        "finished",
        "followed",
        "held",
        "kept",
        "keys",
        "kill_number",
        "kills",
        "last_at",
        "most_owners",
        "node_memory",
        "nodes",
        "outbox",
        "owners",
        "patience",
        "queued",
        "random",
        "refused",
        "requests",
        "seq",
        "shapes",
        "shapes_by_need",
        "start_buckets",
        "start_sum",
        "started",
        "submitted",
        "tokens",
        "trash",
        "urgent",
        "waiters",
        "waiting",
    )  # fmt: skip

    def __init__(self, config: Config, random: Random) -> None:
        super().__init__()
        self.config = config
        self.random = random
        self.followed = False
        self.bundles: dict[int, BundleEntry] = {}
        self.seq = 0
        self.last_at = 0.0
        self.owners: dict[str, OwnerEntry] = {}
        self.most_owners = MOST_OWNERS
        self.shapes: dict[WantId, Shape] = {}
        self.shapes_by_need: dict[Any, Shape] = {}
        self.keys: dict[tuple[str, str], Job] = {}
        self.requests: dict[str, tuple[int, ...]] = {}
        self.active: dict[TaskId, Job] = {}
        self.attributes: dict[str, tuple[str, tuple[Attribute, ...]]] = {}
        self.tokens = TokenCounter(TOKENS_AT_ONCE)
        self.due: list[tuple[float, int, str, Job]] = []
        self.due_number = 0
        self.due_at: float | None = None
        self.ended: list[tuple[float, int, int]] = []
        self.kept = 0
        self.trash: list[str] = []
        self.endings: dict[Job, None] = {}
        self.kills: dict[int, tuple[KillOrder, Iterator[Job]]] = {}
        self.kill_number = 0
        self.held: list[Held] = []
        self.waiters: dict[str, list[Waiter]] = {}
        self.node_memory = NodeMemory()
        self.nodes = self.node_memory.scores
        self.waiting: dict[int, Waiter] = {}
        self.outbox: Outbox = {}
        self.patience = Patience()
        self.queued = 0
        self.counts: Counter[JobState] = Counter()
        self.submitted, self.started, self.finished = Rate(), Rate(), Rate()
        self.evicted = 0
        self.urgent = False
        self.refused = 0
        self.start_buckets = [0] * (len(BUCKETS_S) + 1)
        self.start_sum = 0.0

    # Finding jobs.

    def find(self, job_id: str) -> Job | None:
        """Shapes: an element that was never launched is made for the occasion and not kept."""
        place = read_id(job_id)
        if place is None:
            return None
        seq, index, element = place
        bundle = self.bundles.get(seq)
        if bundle is None or index >= len(bundle.jobs):
            return None
        job = bundle.jobs[index]
        if job is None:
            return None
        if element is None:
            return job if job.id == job_id else None
        if job.array is None or element >= job.array.count:
            return None
        found = job.array.elements.get(element) or make_element(job, element)
        return found if found.id == job_id else None

    def find_task(self, task_id: TaskId) -> Job | None:
        """The job whose present attempt this is."""
        return self.active.get(task_id)

    def owner(self, name: str) -> OwnerEntry:
        found = self.owners.get(name)
        if found is None:
            found = self.owners[name] = OwnerEntry(name)
        return found

    def forget_owners(self) -> None:
        """Let go of idle owners once there are many: each user of a large site may be one, and each is looked at when
        wants are stated."""
        if len(self.owners) > self.most_owners:
            self.owners = {name: owner for name, owner in self.owners.items() if not owner.is_idle}
            self.most_owners = max(MOST_OWNERS, 2 * len(self.owners))

    def all_jobs(self) -> Iterator[Job]:
        """All jobs and launched elements, oldest first; what comes meanwhile is left out."""
        for seq in list(self.bundles):
            bundle = self.bundles.get(seq)
            for job in [] if bundle is None else list(bundle.jobs):
                if job is not None:
                    yield job
                    if job.is_array:
                        assert job.array is not None
                        yield from list(job.array.elements.values())

    def look_again(self, at: float, what: str, job: Job) -> None:
        """Look at a job at that instant. Shapes: `what` is ready, expire, or silent."""
        self.due_number += 1
        heapq.heappush(self.due, (at, self.due_number, what, job))

    # Bundles.

    def add_bundle(self, seq: int, record: Bundle) -> BundleEntry:
        bundle = self.bundles[seq] = BundleEntry(seq, record)
        bundle.jobs = [Job(bundle, place, spec) for place, spec in enumerate(record.jobs)]
        bundle.left = len(bundle.jobs)
        for job in bundle.jobs:
            assert job is not None
            if job.spec.array is not None:
                job.array = ArrayEntry(job)
            if job.spec.key:
                self.keys[job.spec.owner, job.spec.key] = job
        self.last_at = max(self.last_at, record.at)
        return bundle

    def add_request(self, key: str, seqs: tuple[int, ...]) -> None:
        """These bundles are what the request of that key has made; it is known as long as all of them are."""
        self.requests[key] = seqs
        for seq in seqs:
            self.bundles[seq].request = key

    # Laws.

    def invariants(self) -> None:
        active = 0
        queued = 0
        for bundle in self.bundles.values():
            assert bundle.left == sum(job is not None for job in bundle.jobs), f"bundle {bundle.seq} counts wrongly"
            assert bundle.left, f"bundle {bundle.seq} is empty and still there"
        for job in self.all_jobs():
            if job.is_array:
                self._check_array(job)
                queued += 0 if job.array is None else self.fresh(job)
                continue
            queued += job.state is JobState.QUEUED
            if job.state in ACTIVE:
                active += 1
                assert job.run is not None
                found = self.active.get(name_task(job.id, job.run.attempt))
                assert found is job, f"{job.id} is under way and not known as such"
            if job.state in TERMINAL:
                assert job.line is None, f"{job.id} is over and stands in a line"
        assert active == len(self.active), "something under way is no job any more"
        assert queued == self.queued == sum(o.queued for o in self.owners.values()), "queued jobs are counted wrongly"
        for owner in self.owners.values():
            assert owner.active == sum(job.spec.owner == owner.name for job in self.active.values()), (
                f"{owner.name} is off"
            )
        self.tokens.invariants()

    def fresh(self, job: Job) -> int:
        """How many elements of an array wait for their first launch."""
        assert job.array is not None
        return 0 if job.state in TERMINAL or job.array.ending else job.array.fresh

    def _check_array(self, job: Job) -> None:
        array = job.array
        assert array is not None
        states = Counter(each.state for each in array.elements.values())
        assert array.active == sum(states[s] for s in ACTIVE), f"array {job.id} counts its active elements wrongly"
        assert array.ended <= array.count


def name_task(job_id: str, attempt: int) -> TaskId:
    return TaskId(f"{job_id}.{attempt}")


def make_element(job: Job, element: int) -> Job:
    made = Job(job.bundle, job.place, job.spec, element)
    made.array = job.array
    if job.array is not None and element >= job.array.next and job.state in TERMINAL and job.run is not None:
        # It never ran: it shares the end of its array.
        made.run = Progress(state=end_of_fresh(job), reason=job.run.reason, finished_at=job.run.finished_at)
    return made


def end_of_fresh(array: Job) -> JobState:
    """How those elements of an array that is over ended that were never launched."""
    in_vain = array.state is JobState.EXPIRED and array.array is not None and array.array.next == 0
    return JobState.EXPIRED if in_vain else JobState.KILLED


def cost_of(spec: JobSpec) -> float:
    """What a job takes of the cluster, in cpus' worth of its dominant resource."""
    return max(spec.cpus, spec.mem / MB_PER_CPU, spec.gpus * CPUS_PER_GPU, 0.001)


def matches(job: Job, owner: str, label: str, state: str, name: str = "") -> bool:
    """Whether a job is what the filters ask for; empty ones admit all."""
    spec = job.spec
    if (owner and spec.owner != owner) or (state and job.state != state) or (name and spec.name != name):
        return False
    if not label:
        return True
    key, mark, value = label.partition(":")
    found = (spec.labels or {}).get(key)
    return found is not None and (not mark or found == value)
