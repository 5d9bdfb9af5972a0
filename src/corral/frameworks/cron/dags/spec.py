"""What is kept of DAGs and what can be asked of them: steps that wait for one another, and what became of each run.

A DAG is made of steps, a run is one going through all of them, an element one of the equal parts of a step that is an
array. Each element runs as a run of a job (see `cron/spec.py`), with its retries, its history and its promises.
"""

from enum import StrEnum

import msgspec

from corral.frameworks.cron.spec import Concurrency, JobSpec, Parameter

MOST_STEPS = 10_000
MOST_ELEMENTS = 1_000
MOST_VALUE_BYTES = 64 << 10
"""How much all the results of an array may come to."""
MOST_TOLD_BYTES = 256 << 10
"""How much a step may be told of the results of the steps before it, which is variables of each of its tasks."""
MOST_PACKED_BYTES = 512 << 10


class When(StrEnum):
    """What must have become of the steps that a step comes after: all succeeded, none failed, one failed, anything."""

    SUCCESS = "success"
    NO_FAILURE = "no-failure"
    FAILURE = "failure"
    ALWAYS = "always"


class Test(StrEnum):
    """How a result is compared."""

    EQUALS = "equals"
    DIFFERS = "differs"
    IN = "in"
    MATCHES = "matches"


class Condition(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the result of a step must be. Shapes: one value, any number for IN; a whole match for MATCHES."""

    step: str
    test: Test
    values: tuple[str, ...]


class Array(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Shapes: so many elements, or one for each of `items`, or for each in the JSON list that a step has as its result.

    `most_running` 0 lets all run at once.
    """

    count: int = 0
    items: tuple[str, ...] = ()
    source: str = ""
    most_running: int = 0


class Step(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Shapes: `job` is what each element runs; its `result` names the file that holds the result, empty for none."""

    name: str
    job: JobSpec
    after: tuple[str, ...] = ()
    when: When = When.SUCCESS
    conditions: tuple[Condition, ...] = ()
    array: Array | None = None


class DagSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The definition of a DAG. Shapes: `schedule` None is run on request alone."""

    name: str
    steps: tuple[Step, ...]
    schedule: str | None = None
    time_zone: str = ""
    concurrency: Concurrency = Concurrency.FORBID
    parameters: tuple[Parameter, ...] = ()
    owner: str = ""
    webhook: str = ""
    description: str = ""
    disabled: bool = False


# Records.


class DagRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One version of a DAG, for as long as it is the newest or a run is of it. Shapes: `packed` is a `DagSpec`."""

    name: str
    version: int
    packed: bytes
    since_at: float


class DagProgress(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which version counts and how far its schedule has come. Units: `cursor` ms. Shapes: as in `Progress`."""

    version: int
    cursor: int = 0
    left: int | None = None


class DagState(StrEnum):
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    KILLED = "killed"


class Resume(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Some of a run is done anew: what did not succeed, or a step with all that comes after it."""

    step: str = ""
    at: float


class DagRun(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Units: `due` ms, instants in seconds. Shapes: `key` makes a request that is repeated the same run."""

    id: str
    dag: str
    version: int
    cause: str
    due: int
    started_at: float
    state: DagState = DagState.RUNNING
    parameters: dict[str, str] = {}
    resumes: tuple[Resume, ...] = ()
    ended_at: float | None = None
    why: str = ""
    key: str = ""


class Outcome(StrEnum):
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SKIPPED = "skipped"
    KILLED = "killed"


class ElementEnd(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of an element. Shapes: `value` is its result; `resumed` the number of resumes before it ran."""

    run: str
    step: str
    index: int
    outcome: Outcome
    ended_at: float
    started_at: float | None = None
    value: str | None = None
    why: str = ""
    task_id: str = ""
    attempt: int = 0
    hostname: str = ""
    resumed: int = 0


# Commands.


class PutDag(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Create or replace. What runs goes on as it was defined when it began. Shapes: `check` as in `PutJob`."""

    spec: DagSpec
    check: bool = False


class PlanDag(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """What `PutDag` would do. Shapes: with `check` the answer waits to know which steps no agent could ever run."""

    spec: DagSpec
    check: bool = False


class DeleteDag(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    name: str
    force: bool = False


class StartDag(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    name: str
    parameters: dict[str, str] = {}
    key: str = ""


class ResumeDag(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    run: str
    step: str = ""


class KillDag(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    run: str


class GetDags(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    pass


class GetDag(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    name: str


class GetDagRuns(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    name: str
    limit: int = 100


class GetDagRun(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    run: str


DagCommand = (
    PutDag | PlanDag | DeleteDag | StartDag | ResumeDag | KillDag | GetDags | GetDag | GetDagRuns | GetDagRun
)  # fmt: skip

READS = (GetDags, GetDag, GetDagRuns, GetDagRun)
"""The commands that change nothing."""
