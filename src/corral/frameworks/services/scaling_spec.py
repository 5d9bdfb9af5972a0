"""Elastic services: what keeps an app's number of instances between its bounds, and what people ask of it."""

from collections import deque
from enum import StrEnum

import msgspec

MEASURE = "measure"
MEASURE_S = 10.0


class Metric(StrEnum):
    """What an app may be scaled by.

    CPU and MEMORY are percentages of what an instance asks for; REQUESTS (a second) and QUEUE are per instance.
    """

    CPU = "cpu"
    MEMORY = "memory"
    REQUESTS = "requests"
    QUEUE = "queue"


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the week with bounds of its own. Units: minutes since midnight UTC; `days` count from Monday, 0."""

    begin: int
    end: int
    days: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 6)
    least: int
    most: int


class Moved(msgspec.Struct, frozen=True, kw_only=True):
    """One change of an app's number of instances. Shapes: `by` is auto, operator or app."""

    at: float
    before: int
    after: int
    by: str
    why: str


class ScalingRecord(msgspec.Struct, frozen=True, kw_only=True):
    """How one app is scaled. Units: seconds. Shapes: `targets` are values per instance that are aimed at."""

    app: str
    least: int
    most: int
    targets: dict[Metric, float] = {}
    windows: tuple[Window, ...] = ()
    up_cooldown_s: float = 60.0
    down_cooldown_s: float = 300.0
    enabled: bool = True
    token: str = ""
    history: tuple[Moved, ...] = ()


class Sample(msgspec.Struct, frozen=True, gc=False):
    """What an instance used. Units: seconds UTC; cores on average since the last sample, None for the first; bytes."""

    at: float
    cpus: float | None
    mem_bytes: int
    cpu_s: float


class Elastic:
    """What is known of usage, for a short while. Shapes: `samples` by instance, `pushed` by app, metric and source with
    their instants; `watched_until` says how long an app is measured that nobody scales."""

    __slots__ = ("measuring", "pushed", "records", "samples", "watched_until")

    def __init__(self) -> None:
        self.records: dict[str, ScalingRecord] = {}
        self.samples: dict[str, deque[Sample]] = {}
        self.pushed: dict[tuple[str, Metric], dict[str, tuple[float, float]]] = {}
        self.watched_until: dict[str, float] = {}
        self.measuring = False

    def forget(self, app_id: str) -> bool:
        """The app is gone, and all that was known of its usage with it; whether it had rules."""
        self.watched_until.pop(app_id, None)
        for key in [key for key in self.pushed if key[0] == app_id]:
            del self.pushed[key]
        return self.records.pop(app_id, None) is not None


# Commands.


class GetUsage(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """What an app and each of its instances use, now and a while back. Shapes: `token` as in `Resize`."""

    id: str
    token: str | None = None


class GetScaling(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    id: str
    token: str | None = None


class SetScaling(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Shapes: `record` None scales the app no more."""

    id: str
    record: ScalingRecord | None


class Resize(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """More instances, or with a negative `by` fewer: these `instances`, if any are named.

    Shapes: `token` is what the app itself shows, None for an operator.
    """

    id: str
    by: int
    instances: tuple[str, ...] = ()
    why: str = ""
    token: str | None = None
    force: bool = False


class Push(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A value of a metric that is measured elsewhere. Shapes: values of several sources are added up."""

    id: str
    metric: Metric
    value: float
    source: str = ""
    token: str | None = None


ScalingCommand = GetUsage | GetScaling | SetScaling | Resize | Push
