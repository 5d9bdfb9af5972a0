"""What the batch framework keeps and what it can be told: jobs, how far they came, owners, commands.

A job is one thing that somebody wants run once, an attempt one launch of it. A job with an `array` stands for many
elements, each of which is run like a job of its own. Source: the batch contract, record and rules.
"""

from enum import StrEnum

import msgspec

# What a job asks for. The fields are those of the wire, so that a body is read and a record written in one step.

MOST_TTL_S = 7 * 86_400
MOST_PRIORITY = 100


class Volume(msgspec.Struct, frozen=True, kw_only=True, gc=False, forbid_unknown_fields=True, omit_defaults=True):
    container_path: str
    host_path: str | None = None
    mode: str = "RW"


class Container(msgspec.Struct, frozen=True, kw_only=True, gc=False, forbid_unknown_fields=True, omit_defaults=True):
    """Shapes: `network` is host, bridge, none, or the name of a network of the engine's."""

    image: str
    network: str = "host"
    volumes: tuple[Volume, ...] = ()
    parameters: tuple[tuple[str, str], ...] = ()
    force_pull_image: bool = False


class Fetch(msgspec.Struct, frozen=True, kw_only=True, gc=False, forbid_unknown_fields=True, omit_defaults=True):
    uri: str
    output_file: str = ""
    executable: bool = False
    cache: bool = False
    extract: bool = True


class Array(msgspec.Struct, frozen=True, kw_only=True, gc=False, forbid_unknown_fields=True, omit_defaults=True):
    """So many elements, of which `max_running` are under way at once; 0 bounds nothing."""

    count: int
    max_running: int = 0


class Delivery(StrEnum):
    """What is promised of an attempt whose fate nobody knows: it is launched again, or it is not."""

    AT_LEAST_ONCE = "at-least-once"
    AT_MOST_ONCE = "at-most-once"


class JobSpec(msgspec.Struct, frozen=True, kw_only=True, gc=False, forbid_unknown_fields=True, omit_defaults=True):
    """All that a person can say of a job.

    Units: `mem` and `disk` MiB; the times seconds, 0 being none. Shapes: `command` for a shell or `argv`;
    `constraints` are triples of field, operator and value. `grace` lies between SIGTERM and SIGKILL.
    """

    command: str = ""
    argv: tuple[str, ...] = ()
    owner: str = "default"
    name: str = ""
    env: dict[str, str] | None = None
    image: str = ""
    container: Container | None = None
    cpus: float = 0.1
    mem: float = 64.0
    disk: float = 0.0
    gpus: float = 0.0
    constraints: tuple[tuple[str, str, str], ...] = ()
    fetch: tuple[Fetch, ...] = ()
    user: str = ""
    priority: int = 0
    preemptible: bool = True
    retries: int = 0
    retry_delay: float = 0.0
    timeout: float = 0.0
    queue_timeout: float = 0.0
    grace: float = 10.0
    array: Array | None = None
    labels: dict[str, str] | None = None
    key: str = ""
    ttl: int = 86_400
    callback: str = ""
    delivery: Delivery = Delivery.AT_LEAST_ONCE


class JobState(StrEnum):
    QUEUED = "QUEUED"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    KILLED = "KILLED"
    TIMEOUT = "TIMEOUT"
    EXPIRED = "EXPIRED"


class JobEvent(StrEnum):
    """What moves a job on. AGAIN puts it back: a retry, a lost attempt, one that made room for others."""

    LAUNCH = "launch"
    START = "start"
    AGAIN = "again"
    SUCCEED = "succeed"
    FAIL = "fail"
    KILL = "kill"
    RUN_OUT = "run out"
    EXPIRE = "expire"


JOB_STATES: dict[tuple[JobState, JobEvent], JobState] = {
    (JobState.QUEUED, JobEvent.LAUNCH): JobState.STARTING,
    (JobState.QUEUED, JobEvent.KILL): JobState.KILLED,
    (JobState.QUEUED, JobEvent.EXPIRE): JobState.EXPIRED,
    (JobState.STARTING, JobEvent.START): JobState.RUNNING,
    **{
        (state, event): target
        for state in (JobState.STARTING, JobState.RUNNING)
        for event, target in (
            (JobEvent.AGAIN, JobState.QUEUED),
            (JobEvent.SUCCEED, JobState.SUCCEEDED),
            (JobEvent.FAIL, JobState.FAILED),
            (JobEvent.KILL, JobState.KILLED),
            (JobEvent.RUN_OUT, JobState.TIMEOUT),
        )
    },
}

TERMINAL = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.KILLED, JobState.TIMEOUT, JobState.EXPIRED})
ACTIVE = frozenset({JobState.STARTING, JobState.RUNNING})
"""The states in which a job has a task, or may have one."""


# Records.


class Bundle(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The jobs of one request, or a part of them; an id tells the bundle and the place in it.

    Units: `at` seconds UTC. Shapes: what follows `jobs` is in the first bundle of a request that has a key: `parts`
    is how many bundles it has, `request` the key with the `digest` of what it asked, `duplicates` names the jobs that
    were there already, by their place in the request.
    """

    at: float
    salt: int
    jobs: tuple[JobSpec, ...]
    parts: int = 0
    request: str = ""
    digest: str = ""
    duplicates: dict[int, str] = {}


class Progress(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """How far a job has come; written when it is launched, put back, and over. A job that only waits has none.

    Units: seconds UTC. Shapes: `attempt` counts launches from 1, of which `failures` have used up retries; `losses` and
    `preemptions` did not. `priority` is set when it was changed, `ready_at` when a retry has to wait, `ending` when the
    job is to end, `evicted` when the attempt makes room for others; `address` is where the agent's API is reached.
    """

    state: JobState
    attempt: int = 0
    token: int = 0
    failures: int = 0
    losses: int = 0
    preemptions: int = 0
    priority: int | None = None
    agent_id: str = ""
    hostname: str = ""
    address: str = ""
    queued_at: float = 0.0
    ready_at: float = 0.0
    launched_at: float = 0.0
    started_at: float | None = None
    finished_at: float | None = None
    unreachable_at: float | None = None
    exit_code: int | None = None
    reason: str = ""
    ending: str = ""
    evicted: str = ""


class Owner(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What holds of an owner's jobs. Shapes: `max_running` 0 bounds nothing; `max_queued` None is the server's."""

    weight: float = 1.0
    max_running: int = 0
    max_queued: int | None = None
    paused: bool = False


class KillOrder(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Many jobs are to end; a record until all have heard of it.

    Shapes: either `ids`, or all that match and were submitted before the bundle `before`.
    """

    ids: tuple[str, ...] = ()
    owner: str = ""
    label: str = ""
    state: str = ""
    before: int = 0


# Commands.


class Submit(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Shapes: `key` and `digest` are those of the whole request; `check` has jobs refused that no agent could run."""

    jobs: tuple[JobSpec, ...]
    key: str = ""
    digest: str = ""
    check: bool = True


class GetJob(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    id: str


class ListJobs(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Shapes: empty filters admit all; `label` is `key:value`, or a key alone."""

    state: str = ""
    owner: str = ""
    label: str = ""
    name: str = ""
    limit: int = 100
    cursor: str = ""


class QueryJobs(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Shapes: no `fields` asks for all."""

    ids: tuple[str, ...]
    fields: tuple[str, ...] = ()


class WaitJobs(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Answered when all are over, or `any` one is, or the time is up. Units: seconds."""

    ids: tuple[str, ...]
    timeout: float = 30.0
    any: bool = False


class KillJob(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    id: str


class KillJobs(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    ids: tuple[str, ...] = ()
    owner: str = ""
    label: str = ""
    state: str = ""


class SetPriority(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    id: str
    priority: int


class GetOwner(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    owner: str


class PutOwner(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    owner: str
    record: Owner


class GetStats(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    pass


class GetMetrics(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    pass


Command = (
    Submit | GetJob | ListJobs | QueryJobs | WaitJobs | KillJob | KillJobs | SetPriority | GetOwner | PutOwner
    | GetStats | GetMetrics
)  # fmt: skip

READS = (GetJob, ListJobs, QueryJobs, GetOwner, GetStats, GetMetrics)
"""The commands that change nothing."""


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """How the batch framework works. Units: seconds, MiB.

    Shapes: `most_queued` jobs wait at once, `most_queued_owner` of one owner; `most_kept` ended ones are remembered;
    `window` instances at most are asked of the master at once; `most_writes` bounds the records of one input in bulk
    work, `most_commit_bytes` is what the store takes at once, `bundle` counts the jobs of one record. `cacert` is the
    file of the authority that agents' certificates come from; empty where they speak plain HTTP.
    """

    name: str = "batch"
    user: str = "root"
    role: str = "*"
    address: str = "127.0.0.1:4680"
    scheme: str = "http"
    hostname: str = ""
    cacert: str = ""
    failover_timeout_s: float = 604_800.0
    most_jobs: int = 10_000
    most_array: int = 100_000
    most_queued: int = 1_000_000
    most_queued_owner: int = 200_000
    most_kept: int = 1_000_000
    window: int = 2048
    check_s: float = 3.0
    slow_start_s: float = 300.0
    unreachable_timeout_s: float = 300.0
    kill_retry_s: float = 30.0
    preempt_after_s: float = 5.0
    most_writes: int = 500
    most_commit_bytes: int = 1 << 40
    bundle: int = 500
