"""What the cron framework keeps and what it can be told: jobs, their progress, runs, edges, history, commands.

A job is what somebody wants done, a firing one occasion to do it, a run what became of that occasion, an attempt one
launch of it. Source: Chronos' contract, sections 1 to 6.
"""

from enum import StrEnum

import msgspec

from corral.model.ids import AgentId, TaskId

# What a job asks for.


class Volume(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    container_path: str
    host_path: str | None = None
    mode: str = "RW"


class Network(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One of a container's networks. Shapes: `ports` are kept as they were written and not acted on."""

    name: str = ""
    protocol: str | None = None
    labels: tuple[tuple[str, str], ...] = ()
    ports: tuple[tuple[tuple[str, str], ...], ...] = ()


class Container(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    image: str
    kind: str = "DOCKER"
    network: str = "HOST"
    network_name: str = ""
    networks: tuple[Network, ...] = ()
    volumes: tuple[Volume, ...] = ()
    parameters: tuple[tuple[str, str], ...] = ()
    force_pull_image: bool = False


class Fetch(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    uri: str
    output_file: str = ""
    executable: bool = False
    cache: bool = False
    extract: bool = True


class Parameter(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A value that each run may be given anew. Shapes: `default` None makes it one that must be given."""

    name: str
    default: str | None = None


class Concurrency(StrEnum):
    """What a firing does while an earlier run of its job is unfinished: run beside it, wait for it, or end it."""

    ALLOW = "allow"
    FORBID = "forbid"
    REPLACE = "replace"


class Misfire(StrEnum):
    """What becomes of occurrences that passed unstarted: forgotten, made good by one run, or each by its own."""

    SKIP = "skip"
    ONCE = "once"
    ALL = "all"


class Delivery(StrEnum):
    """What is promised of an attempt whose fate nobody knows: it is launched again, or it is not."""

    AT_LEAST_ONCE = "at-least-once"
    AT_MOST_ONCE = "at-most-once"


class JobSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The definition of a job, all that a person can say about it.

    Units: `cpus` cores, `mem_mb` and `disk_mb` MiB, `*_s` seconds. Shapes: `schedule` with its start filled in, or
    `parents`, sorted; `epsilon` is a duration as it was written, None when none was. `retry_delay_s` None is the
    server's. `result` names the file of the sandbox in which the step of a DAG leaves its result.
    """

    name: str
    command: str = ""
    shell: bool = True
    arguments: tuple[str, ...] = ()
    schedule: str | None = None
    time_zone: str = ""
    parents: tuple[str, ...] = ()
    epsilon: str | None = None
    is_async: bool = False
    retries: int = 2
    retry_delay_s: float | None = None
    retry_factor: float = 1.0
    owner: str = ""
    owner_name: str = ""
    description: str = ""
    disabled: bool = False
    concurrency: Concurrency = Concurrency.FORBID
    misfire: Misfire = Misfire.ONCE
    delivery: Delivery = Delivery.AT_LEAST_ONCE
    high_priority: bool = False
    soft_error: bool = False
    cpus: float = 0.0
    mem_mb: float = 0.0
    disk_mb: float = 0.0
    most_run_s: int = 0
    executor: str = ""
    executor_flags: str = ""
    task_info_data: str = ""
    user: str = ""
    uris: tuple[str, ...] = ()
    fetch: tuple[Fetch, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    constraints: tuple[tuple[str, str, str], ...] = ()
    container: Container | None = None
    counts_elements: bool = False
    parameters: tuple[Parameter, ...] = ()
    webhook: str = ""
    result: str = ""


# Records. Each is one row under its own key; none grows with the number of jobs.


class StepRef(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The step of a DAG that a job runs the elements of."""

    dag: str
    version: int
    name: str


class JobRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A job as it is wanted now. Shapes: `given` is its schedule as it was submitted, `since_at` when that began to
    count; `leaving` marks a job that was deleted and whose children do not all know it yet; a job of a `step` has
    neither schedule nor parents and is not written down."""

    spec: JobSpec
    given: str = ""
    since_at: float = 0.0
    leaving: bool = False
    step: StepRef | None = None


class Progress(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How far a job has come. Units: `cursor` in ms, other instants in seconds UTC.

    Shapes: every occurrence up to and with `cursor` is dealt with; `left` counts the scheduled firings that remain,
    None without end. `round` is the newest of the job's firings.
    """

    cursor: int = 0
    left: int | None = None
    successes: int = 0
    errors: int = 0
    errors_since: int = 0
    success_at: float | None = None
    error_at: float | None = None
    round: str = ""


class Edges(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a dependent job has heard from its parents, by the parents' names.

    Shapes: `counts` since it was last started; `rounds` are the open rounds, oldest first, each with the parents that
    have succeeded in it.
    """

    counts: dict[str, int] = {}
    rounds: tuple[tuple[str, tuple[str, ...]], ...] = ()


class Cause(StrEnum):
    SCHEDULE = "schedule"
    PARENTS = "parents"
    REQUEST = "request"
    BACKFILL = "backfill"
    DAG = "dag"


class RunState(StrEnum):
    """Where an unfinished run stands. Shapes: WAITING has a retry ahead; REPORTING waits for an asynchronous report."""

    QUEUED = "queued"
    WAITING = "waiting"
    LAUNCHED = "launched"
    RUNNING = "running"
    UNREACHABLE = "unreachable"
    REPORTING = "reporting"


class RunEvent(StrEnum):
    """What moves a run on; what ends it for good needs no state."""

    LAUNCH = "launch"
    START = "start"
    SILENCE = "silence"
    RETURN = "return"
    EXIT = "exit"
    AGAIN = "again"


RUN_STATES: dict[tuple[RunState, RunEvent], RunState] = {
    (RunState.QUEUED, RunEvent.LAUNCH): RunState.LAUNCHED,
    (RunState.WAITING, RunEvent.LAUNCH): RunState.LAUNCHED,
    (RunState.LAUNCHED, RunEvent.START): RunState.RUNNING,
    (RunState.LAUNCHED, RunEvent.SILENCE): RunState.UNREACHABLE,
    (RunState.RUNNING, RunEvent.SILENCE): RunState.UNREACHABLE,
    (RunState.UNREACHABLE, RunEvent.RETURN): RunState.LAUNCHED,
    (RunState.UNREACHABLE, RunEvent.START): RunState.RUNNING,
    (RunState.LAUNCHED, RunEvent.EXIT): RunState.REPORTING,
    (RunState.RUNNING, RunEvent.EXIT): RunState.REPORTING,
    (RunState.UNREACHABLE, RunEvent.EXIT): RunState.REPORTING,
    (RunState.LAUNCHED, RunEvent.AGAIN): RunState.WAITING,
    (RunState.RUNNING, RunEvent.AGAIN): RunState.WAITING,
    (RunState.UNREACHABLE, RunEvent.AGAIN): RunState.WAITING,
    (RunState.REPORTING, RunEvent.AGAIN): RunState.WAITING,
}
"""AGAIN is a retry, or a launch that is repeated because nobody saw it start; EXIT that of an asynchronous job."""


LIVE = frozenset({RunState.LAUNCHED, RunState.RUNNING, RunState.UNREACHABLE, RunState.REPORTING})
"""The states in which a run has a task, or may have one, or its work goes on elsewhere."""


class Run(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of one firing so far; kept from the moment it is promised or launched until it is over.

    Units: `due` in ms, instants in seconds. Shapes: `attempt` counts from 0; `token` is the fencing token of the
    present launch, 0 before the first; `round` names the firing at the root of it; `ending` is why its task was asked
    to end; `reported` is the code of an asynchronous report; `lost` counts launches that nobody has seen start;
    `address` is where the API of its agent is reached. Of an element of a DAG's step, `round` is the DAG's run, `index`
    its place in an array, `values` are variables for it.
    """

    id: str
    job: str
    due: int
    cause: Cause
    round: str
    queued_at: float
    attempt: int = 0
    token: int = 0
    state: RunState = RunState.QUEUED
    arguments: str = ""
    parameters: dict[str, str] = {}
    ready_at: float = 0.0
    task_id: TaskId | None = None
    agent_id: AgentId | None = None
    hostname: str = ""
    launched_at: float | None = None
    started_at: float | None = None
    unreachable_at: float | None = None
    ending: str = ""
    reported: int | None = None
    elements: int = 0
    lost: int = 0
    fired: bool = False
    index: int | None = None
    values: dict[str, str] = {}
    address: str = ""


class Result(StrEnum):
    """How an attempt ended."""

    SUCCESS = "success"
    FAILURE = "failure"
    KILLED = "killed"
    LOST = "lost"


class HistoryRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One attempt that is over. Units as in `Run`. Shapes: `final` when no further attempt followed; `arguments` and
    `parameters` are what the run was given, cut to a length."""

    task_id: str
    job: str
    due: int
    cause: Cause
    attempt: int
    token: int
    result: Result
    final: bool
    ended_at: float
    started_at: float | None = None
    launched_at: float | None = None
    agent_id: str = ""
    hostname: str = ""
    message: str = ""
    elements: int = 0
    round: str = ""
    address: str = ""
    arguments: str = ""
    parameters: dict[str, str] = {}


class Signal(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A success that not all children have heard of yet. Shapes: those up to and with the name `after` have."""

    parent: str
    round: str
    due: int
    after: str = ""


class Backfill(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A range of occurrences that are run once more. Units: ms; `cursor` as in `Progress`, `end` is left out."""

    job: str
    cursor: int
    end: int
    parameters: dict[str, str] = {}


class Purge(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Whatever waited at this instant (ms) is not to be run any more."""

    at: int


# Commands.


class Kind(StrEnum):
    """Which endpoint a definition came by."""

    SCHEDULED = "scheduled"
    DEPENDENT = "dependent"


class Counters(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Counters that a body brings along; None leaves what there is."""

    successes: int | None = None
    errors: int | None = None
    errors_since: int | None = None
    success_at: float | None = None
    error_at: float | None = None


class PutJob(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Create or replace. Shapes: `ignored` are fields of the request that nobody understood.

    With `check` it is refused when no agent of the cluster could ever run it.
    """

    spec: JobSpec
    counters: Counters = Counters()
    ignored: tuple[str, ...] = ()
    check: bool = False


class DeleteJob(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    name: str


class RunJob(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    name: str
    arguments: str = ""
    parameters: dict[str, str] = {}


class MarkSuccess(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    name: str


class KillRuns(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    name: str


class PurgeQueue(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    pass


class ReportTask(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The end of an asynchronous run. Shapes: `code` 0 is success."""

    task_id: str
    code: int


class AddElements(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    name: str
    task_id: str
    count: int


class StartBackfill(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Run every occurrence of a range. Units: ms; `end` is left out."""

    name: str
    start: int
    end: int
    parameters: dict[str, str] = {}


class StopBackfill(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Run nothing more of a job's range; the run that is under way goes on."""

    name: str


class GetJobs(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    pass


class SearchJobs(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    name: str = ""
    command: str = ""
    any: str = ""
    limit: int = 10
    offset: int = 0


class GetSummary(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    pass


class GetJob(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    name: str


class GetNext(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Units: `after` in ms, None is now."""

    name: str
    count: int = 10
    after: int | None = None


class GetStat(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    name: str


class GetStats(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    which: str


class GetHistory(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    name: str
    limit: int = 100


class FindLog(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Where an attempt's output is. Shapes: without `task_id` it is the newest attempt's."""

    name: str
    task_id: str = ""


class GetGraph(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    form: str


class GetMetrics(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    pass


class GetLeader(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    pass


Command = (
    PutJob | DeleteJob | RunJob | MarkSuccess | KillRuns | PurgeQueue | ReportTask | AddElements | StartBackfill
    | StopBackfill | GetJobs | SearchJobs | GetSummary | GetJob | GetNext | GetStat | GetStats | GetHistory | FindLog
    | GetGraph | GetMetrics | GetLeader
)  # fmt: skip


READS = (
    GetJobs, SearchJobs, GetSummary, GetJob, GetNext, GetStat, GetStats, GetHistory, FindLog, GetGraph, GetMetrics,
    GetLeader,
)  # fmt: skip
"""The commands that change nothing."""


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """How the cron framework works. Units: seconds, cores, MiB.

    Shapes: `address` is the `host:port` under which this API is reached; `most_writes` bounds the records that one
    input may touch in bulk work, `window` instances or so are asked of the master at once, as an offer that is not
    used in time goes back; `disable_after` failures in a row disable a job, 0 never does. Pages of `allow_origin` may
    use the API from a browser; `cacert` is the CA of a cluster that speaks TLS, for its agents' logs. `webhook_url` is
    told everything that job owners are told, `slack_url` in the form of Slack and Mattermost; mails go out when
    `mail_from` is set. The password is named by its file, as configurations are written to journals.
    """

    name: str = "cron"
    user: str = "root"
    role: str = "*"
    address: str = "127.0.0.1:4680"
    scheme: str = "http"
    hostname: str = ""
    cluster_name: str = ""
    failover_timeout_s: float = 604800.0
    retry_delay_s: float = 60.0
    disable_after: int = 0
    default_cpus: float = 0.1
    default_mem_mb: float = 128.0
    default_disk_mb: float = 256.0
    unreachable_timeout_s: float = 300.0
    check_s: float = 3.0
    slow_start_s: float = 300.0
    history_s: float = 604800.0
    most_history: int = 200
    shown_history: int = 5
    kill_retry_s: float = 30.0
    most_writes: int = 1000
    window: int = 4096
    most_backfill: int = 10_000
    allow_origin: str = ""
    cacert: str = ""
    webhook_url: str = ""
    slack_url: str = ""
    mail_from: str = ""
    mail_server: str = "127.0.0.1:25"
    mail_user: str = ""
    mail_password_file: str = ""
    mail_security: str = "none"
