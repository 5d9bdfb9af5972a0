"""What the batch API answers, typed; fields that a later server adds are passed over."""

from typing import Any

import msgspec

TERMINAL = frozenset({"SUCCEEDED", "FAILED", "KILLED", "TIMEOUT", "EXPIRED"})


class Submitted(msgspec.Struct, frozen=True, kw_only=True):
    """Shapes: `index` is the job's place in the request; a `duplicate` was there before, by a key."""

    id: str
    state: str
    index: int
    duplicate: bool = False


class Submission(list[Submitted]):
    """The jobs of a call in their order. Shapes: `notices` say what no agent could run, or nobody knows of yet."""

    def __init__(self) -> None:
        super().__init__()
        self.notices: list[str] = []


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One job as it stands. Shapes: times are ISO 8601 in UTC; `counts` of an array by state."""

    id: str
    state: str
    owner: str = ""
    name: str = ""
    command: str = ""
    argv: list[str] = []
    reason: str = ""
    attempt: int = 0
    exit_code: int | None = None
    priority: int = 0
    agent: str | None = None
    host: str | None = None
    task: str | None = None
    submitted_at: str | None = None
    started_at: str | None = None
    finished_at: str | None = None
    preemptions: int = 0
    failures: int = 0
    losses: int = 0
    token: int = 0
    labels: dict[str, str] = {}
    array_index: int | None = None
    counts: dict[str, int] = {}

    @property
    def is_over(self) -> bool:
        return self.state in TERMINAL

    @property
    def succeeded(self) -> bool:
        return self.state == "SUCCEEDED"


class Waited(msgspec.Struct, frozen=True, kw_only=True):
    """Shapes: jobs that are not known any more count as done."""

    done: list[str]
    pending: list[str]


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    states: dict[str, int]
    owners: dict[str, dict[str, Any]]
    rates: dict[str, float]
    queue_age_s: dict[str, float]
    totals: dict[str, int] = {}


class Owner(msgspec.Struct, frozen=True, kw_only=True):
    """Whose share jobs use. Shapes: `max_running` 0 bounds nothing; `queued` and `running` are what there is now.

    `max_queued` is the server's own bound unless one was set for the owner, as `max_queued_set` says.
    """

    owner: str
    weight: float = 1.0
    max_running: int = 0
    max_queued: int = 0
    max_queued_set: bool = True
    paused: bool = False
    queued: int = 0
    running: int = 0
    share: float = 0.0

    def settings(self) -> dict[str, Any]:
        """What can be changed of it."""
        most = self.max_queued if self.max_queued_set else None
        return {"weight": self.weight, "max_running": self.max_running, "max_queued": most, "paused": self.paused}


class Killed(msgspec.Struct, frozen=True, kw_only=True):
    killed: int


class Page(msgspec.Struct, frozen=True, kw_only=True):
    jobs: list[Job]
    next_cursor: str | None = None


class Queried(msgspec.Struct, frozen=True, kw_only=True):
    jobs: list[Job]
    missing: list[str] = []


class Admitted(msgspec.Struct, frozen=True, kw_only=True):
    jobs: list[Submitted]
    count: int = 0
    duplicates: int = 0
    notices: list[str] = []
