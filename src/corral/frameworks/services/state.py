"""All that the services framework has in memory, and what must always hold of it.

Instances are kept in buckets by phase and by whether they run the present definition, so that a plan reads lengths
instead of walking over instances: an update costs the same for an app of one instance and of ten thousand.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from enum import IntEnum
from random import Random
from typing import Any

import msgspec

from corral.frameworks.services.app_spec import AppSpec
from corral.frameworks.services.discovery_spec import Discovery
from corral.frameworks.services.record_spec import (
    AppRecord,
    Condition,
    Deployment,
    EndedPod,
    FailureRecord,
    Goal,
    GroupRecord,
    HistoryRecord,
    Instance,
    OutcomeRecord,
    VersionRecord,
)
from corral.frameworks.services.role_spec import Roles, launch_role
from corral.frameworks.services.scaling_spec import Elastic
from corral.frameworks.services.signal_spec import Telling
from corral.frameworks.services.spec import Config
from corral.frameworks.services.webhook_spec import Webhook
from corral.lib.units import format_timestamp
from corral.model.framework import FrameworkInfo
from corral.model.ids import AgentId, FrameworkId, TaskId, WantId
from corral.model.offer import Explanation, Offer, Refusal, Want
from corral.model.task import TERMINAL
from corral.sdk.node_records import NodeMemory
from corral.sdk.notices import Outbox


class Phase(IntEnum):
    """Where an instance stands, as far as plans care; in the order in which scaling down takes them.

    STOPPED has no task, and keeps its volumes for the next time that one is wanted.
    UNHEALTHY runs and has health checks that do not all pass, or are not known to, or was never ready; RUNNING is
    healthy and ready.
    Deviates: scaling down takes those that are not healthy before those that are.
    """

    SCHEDULED = 0
    UNREACHABLE = 1
    LAUNCHING = 2
    UNHEALTHY = 3
    RUNNING = 4
    INACTIVE = 5
    LEAVING = 6
    STOPPED = 7


_PHASES = {
    Condition.SCHEDULED: Phase.SCHEDULED,
    Condition.PROVISIONED: Phase.LAUNCHING,
    Condition.STAGING: Phase.LAUNCHING,
    Condition.STARTING: Phase.LAUNCHING,
    Condition.KILLING: Phase.LAUNCHING,
    Condition.RUNNING: Phase.RUNNING,
    Condition.UNREACHABLE: Phase.UNREACHABLE,
    Condition.INACTIVE: Phase.INACTIVE,
}

COUNTED = (Phase.SCHEDULED, Phase.UNREACHABLE, Phase.LAUNCHING, Phase.UNHEALTHY, Phase.RUNNING)
"""The phases of instances that count towards the wanted number."""


def phase_of(instance: Instance) -> Phase:
    if instance.goal is Goal.STOPPED and instance.condition is Condition.SCHEDULED:
        return Phase.STOPPED
    if instance.leaves:
        return Phase.LEAVING
    if instance.condition is Condition.RUNNING:
        if instance.checks and instance.healthy is not True:
            return Phase.UNHEALTHY
        if instance.readiness and not instance.ready:
            return Phase.UNHEALTHY
    return _PHASES[instance.condition]


def task_id_of(instance: Instance, container: str = "_app") -> TaskId:
    return TaskId(f"{instance.id}.{container}.{instance.incarnation}")


def task_ids_of(instance: Instance) -> list[TaskId]:
    """All tasks of an instance that are not known to have ended; a pod's has one of each container."""
    if not instance.containers:
        return [task_id_of(instance)]
    return [task_id_of(instance, c.name) for c in instance.containers if c.state not in TERMINAL]


class Delay:
    """The backoff of one definition of an app. Units: `current_s` from `reference_at` on nothing is launched."""

    __slots__ = ("config", "current_s", "reference_at")

    def __init__(self, config: str, current_s: float, reference_at: float) -> None:
        self.config = config
        self.current_s = current_s
        self.reference_at = reference_at

    @property
    def deadline_at(self) -> float:
        return self.reference_at + self.current_s


class App:
    """One app at work: what is wanted, its instances in their buckets, its backoff."""

    __slots__ = (
        "conditions", "delay", "ended", "explanation", "health", "homed", "instances", "outdated", "record", "since_at",
        "template", "turned_away", "up_to_date", "want",
    )  # fmt: skip

    def __init__(self, record: AppRecord, now: float) -> None:
        self.record = record
        self.instances: dict[str, Instance] = {}
        self.up_to_date: tuple[dict[str, Instance], ...] = tuple({} for _ in Phase)
        self.outdated: tuple[dict[str, Instance], ...] = tuple({} for _ in Phase)
        self.conditions: Counter[Condition] = Counter()
        self.health: Counter[bool] = Counter()
        self.homed: dict[str, str] = {}
        """The instances that wait and would rather be started again on the node they failed on, and that node."""
        self.delay: Delay | None = None
        self.since_at = now
        self.explanation: Explanation | None = None
        self.turned_away: dict[AgentId, Refusal] = {}
        """What was in the way where something was offered that is reserved for its role."""
        self.want: Want | None = None
        self.template: object = None
        self.ended: list[EndedPod] = []

    @property
    def spec(self) -> AppSpec:
        return self.record.spec

    def adopt(self, record: AppRecord) -> None:
        """Take on a new wanted state; what was derived from the old one is made anew when it is needed."""
        changed = record.config != self.record.config
        self.record = record
        self.want = None
        self.template = None
        if changed:
            for buckets in (self.up_to_date, self.outdated):
                for bucket in buckets:
                    bucket.clear()
            for instance in self.instances.values():
                self._bucket(instance)[instance.id] = instance

    def _bucket(self, instance: Instance) -> dict[str, Instance]:
        side = self.up_to_date if instance.config == self.record.config else self.outdated
        return side[phase_of(instance)]

    def place(self, instance: Instance) -> None:
        """Add the instance, or put its new form where it belongs now."""
        old = self.instances.get(instance.id)
        if old is not None:
            del self._bucket(old)[old.id]
            self._count(old, -1)
        self.instances[instance.id] = instance
        self._bucket(instance)[instance.id] = instance
        self._count(instance, 1)

    def drop(self, instance_id: str) -> None:
        old = self.instances.pop(instance_id)
        del self._bucket(old)[instance_id]
        self._count(old, -1)

    @property
    def homes(self) -> list[str]:
        """The nodes that waiting instances of the present definition would rather go back to."""
        waiting = self.up_to_date[Phase.SCHEDULED]
        return [home for instance_id, home in self.homed.items() if instance_id in waiting]

    def _count(self, instance: Instance, by: int) -> None:
        if by < 0:
            self.homed.pop(instance.id, None)
        elif instance.home and instance.condition is Condition.SCHEDULED:
            self.homed[instance.id] = instance.home
        self.conditions[instance.condition] += by
        if instance.healthy is not None and instance.condition is Condition.RUNNING:
            self.health[instance.healthy] += by

    def count(self, *phases: Phase) -> int:
        return sum(len(self.up_to_date[p]) + len(self.outdated[p]) for p in phases)

    def in_phase(self, phase: Phase) -> Iterator[Instance]:
        """Outdated ones first."""
        yield from self.outdated[phase].values()
        yield from self.up_to_date[phase].values()

    @property
    def counted(self) -> int:
        return self.count(*COUNTED)

    @property
    def present(self) -> int:
        """How many instances have a task: launched and not heard to have ended."""
        return len(self.instances) - self.count(Phase.SCHEDULED)


class State:
    """Shapes: `locks` maps an app to the deployment that works on it; `done` holds a deployment's finished apps.

    `dirty` apps have to be looked at; `restless` ones may want something else than `wants`, which is what the master
    was told last, less what was launched since. `watched` maps an instance to the instant at which its launch is
    overdue or its kill has to be repeated, `sentenced` one that somebody wants ended to the reason. `explained` apps
    have an explanation why they wait. `heard` gathers events for those who listen, None when nobody does.
    `outcomes` are the deployments that ended last, `progress` is how far each app of a deployment with a deadline got.
    Those are who follows the feed (`followed`) and `webhooks`, what waits for which is in `outbox`.
    `history` holds what each change of the newest root versions replaced, by version; `nodes` remembers what failed
    where, `node_memory` what of it is written down. `signalling` apps are being told of a value that has changed.
    `info` is what the framework subscribes with, `roles` are those it is in. `revived` are the reservations for which
    offers were asked for, `wiped` the sentenced instances that shall lose theirs.
    """

    __slots__ = (
        "apps", "backlog", "config", "connected", "deployments", "dirty", "discovery", "done", "elastic", "explained",
        "failures", "followed", "framework_id", "groups", "heard", "history", "info", "last_version_at", "locks",
        "master", "node_memory", "nodes", "outbox", "outcomes", "progress", "random", "restless", "revived", "roles",
        "sentenced", "service_ports", "signalling", "versions", "wants", "wants_changed", "wants_of", "watched",
        "webhooks", "wiped",
    )  # fmt: skip

    def __init__(self, config: Config, random: Random, info: FrameworkInfo | None = None) -> None:
        self.config = config
        self.info = info or FrameworkInfo(user=config.user, name=config.name, roles=(config.role,))
        self.random = random
        self.framework_id: FrameworkId | None = None
        self.connected = False
        self.master = ""
        self.apps: dict[str, App] = {}
        self.versions: dict[str, dict[str, VersionRecord]] = {}
        self.deployments: dict[str, Deployment] = {}
        self.done: dict[str, set[str]] = {}
        self.locks: dict[str, str] = {}
        self.groups: dict[str, GroupRecord] = {}
        self.history: dict[str, HistoryRecord] = {}
        self.outcomes: dict[str, OutcomeRecord] = {}
        self.progress: dict[str, dict[str, int]] = {}
        self.elastic = Elastic()
        self.failures: dict[str, FailureRecord] = {}
        self.heard: list[tuple[str, dict[str, Any]]] | None = None
        self.followed = False
        self.webhooks: dict[str, Webhook] = {}
        self.outbox: Outbox = {}
        self.service_ports: Counter[int] = Counter()
        self.signalling: dict[str, Telling] = {}
        self.roles = Roles()
        self.revived: set[str] = set()
        self.wiped: set[str] = set()
        self.dirty: dict[str, None] = {}
        self.restless: dict[str, None] = {}
        self.sentenced: dict[str, str] = {}
        self.wants: dict[WantId, Want] = {}
        self.wants_of: dict[str, tuple[WantId, ...]] = {}
        self.wants_changed = False
        self.explained: set[str] = set()
        self.watched: dict[str, float] = {}
        self.backlog: list[Offer] = []
        self.last_version_at = 0
        self.discovery = Discovery()
        self.node_memory = NodeMemory()
        self.nodes = self.node_memory.scores

    @property
    def own_roles(self) -> tuple[str, ...]:
        """The framework's roles, whatever its apps are."""
        return self.config.role, self.config.reserved_role

    def listen(self) -> None:
        """Gather events while there is anybody to be told of them."""
        if not (self.followed or self.webhooks):
            self.heard = None
        elif self.heard is None:
            self.heard = []

    def visible(self, app_id: str) -> App | None:
        """The app, unless it is only waiting for its last instances to end."""
        app = self.apps.get(app_id)
        return None if app is None or app.record.stopping else app

    def visible_apps(self, below: str = "/") -> list[App]:
        """All apps and pods below a group, by id."""
        prefix = below.rstrip("/") + "/"
        return [app for key, app in sorted(self.apps.items()) if key.startswith(prefix) and not app.record.stopping]

    def plain_apps(self, below: str = "/") -> list[App]:
        """All apps below a group that are no pods, by id."""
        return [app for app in self.visible_apps(below) if app.record.spec.pod is None]

    def mint_version(self, now: float) -> str:
        """The instant as text, later than every version before."""
        self.last_version_at = max(round(now * 1000), self.last_version_at + 1)
        return format_timestamp(self.last_version_at / 1000)

    def touch(self, app_ids: Iterable[str]) -> None:
        for app_id in app_ids:
            self.dirty[app_id] = None

    def invariants(self) -> None:
        """Every instance is in its one bucket, every lock has its deployment and the other way round."""
        for key, app in self.apps.items():
            assert key == app.record.spec.id, f"app {app.record.spec.id} is kept under {key}"
            seen: dict[str, Instance] = {}
            for side, up_to_date in ((app.up_to_date, True), (app.outdated, False)):
                for phase, bucket in zip(Phase, side, strict=True):
                    for instance in bucket.values():
                        assert phase_of(instance) is phase, f"{instance.id} is in the bucket of {phase.name}"
                        assert (instance.config == app.record.config) is up_to_date, f"{instance.id} on wrong side"
                        assert instance.app == key, f"{instance.id} belongs to {instance.app}"
                        seen[instance.id] = instance
            assert seen == app.instances, f"buckets of {key} do not hold its instances"
            homes = {i.id: i.home for i in app.instances.values() if i.home and i.condition is Condition.SCHEDULED}
            assert homes == app.homed, f"homes of {key} are lost"
            counted = Counter(i.condition for i in app.instances.values())
            assert counted == +app.conditions, f"conditions of {key} are miscounted"
            running = [i for i in app.instances.values() if i.condition is Condition.RUNNING]
            judged = Counter(i.healthy for i in running if i.healthy is not None)
            assert judged == +app.health, f"health of {key} is miscounted"
            ports = [p for p in app.record.spec.service_ports if p]
            assert all(self.service_ports[p] > 0 for p in ports), f"service ports of {key} are not taken"
        roles = Counter(launch_role(app.spec, self.config) for app in self.apps.values())
        assert roles == self.roles.apps, "roles of apps are miscounted"
        if self.connected:
            assert self.roles.told == self.roles.wanted(self.config.role), "the master has not been told of the roles"
            waits = {role for role in self.roles.waiting if role in self.roles.told}
            assert self.roles.open == waits, "what is reserved is not asked for as apps wait for it"
        asking = Counter(each.role for each in self.roles.asking.values())
        assert asking == self.roles.waiting, "apps that wait for what is reserved are miscounted"
        locked = {app: d.id for d in self.deployments.values() for app in d.apps}
        assert locked == self.locks, "locks and deployments differ"
        assert self.done.keys() == self.deployments.keys(), "deployments and their progress differ"
        for want in self.wants.values():
            assert want.count > 0, f"want {want.id} wants nothing"


def superseded(record: AppRecord) -> VersionRecord:
    """The present version of an app, in the form in which it is kept once it is superseded."""
    return VersionRecord(
        spec=record.spec,
        version=record.version,
        config=record.config,
        scaled_at=record.scaled_at,
        configured_at=record.configured_at,
    )


replace = msgspec.structs.replace
