"""What the master remembers, what it is told and what it is asked.

Records lie below the prefix `master/`: `epoch`, `agents/ID`, `gone/ID`, `maintenance`, `frameworks/ID`, `roles/ROLE`,
`removed`, and `weights/ROLE` of older releases. Tasks are not among them: agents tell them anew.
"""

import msgspec

from corral.model.agent import AgentInfo
from corral.model.calls import Call, Subscribe
from corral.model.domain import Domain
from corral.model.framework import FrameworkInfo
from corral.model.ids import AgentId, FrameworkId
from corral.model.maintenance import Drain, Machine, MaintenanceChange, Window
from corral.model.operator import (
    Operate,
    RemoveQuota,
    RemoveRole,
    SetQuota,
    SetRole,
    Teardown,
    UpdateQuota,
    UpdateWeights,
)
from corral.model.orders import Report
from corral.model.rates import RateLimits
from corral.model.resources import Resources
from corral.runtime.core import Asked, Loaded, Tick


class MasterConfig(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Units: seconds.

    Shapes: `offer_timeout_s` None lets coarse offers stand until they are answered; offers for a want come back after
    `want_offer_timeout_s` in any case. `reregister_timeout_s` is how long a new master waits for the agents it
    remembers, `recovery_grace_s` how long at least for its frameworks. `least_refuse_s` bounds from below how soon a
    refused coarse offer is repeated. `session_timeout_s` is how long a link may stay without a registration.
    `version` is what Mesos clients are told, `agent_version` the release whose agents may join, empty for any.
    `most_grants` is how many instances one allocation gives out, so that others have their turn in between.
    `headroom` is what is kept free for guarantees, None keeps all that is not met yet. `evictions_per_minute` bounds
    how many tasks make room for others. `compiled` is `auto`, `yes` or `no`: whether the allocator's engine is machine
    code; `auto` is when it can be; decisions are the same.
    `shutdown_margin_s` is how long beyond the longest kill grace the agents of a removed framework may take to say that
    its tasks have ended. `removal_every_s` is the least time between two agents that become unreachable, 0 for none.
    A framework that asks and gets no offer for `starving_s` is told of. `scheme` is what master and agents speak.
    """

    hostname: str = "127.0.0.1"
    ip: str = "127.0.0.1"
    port: int = 4680
    scheme: str = "http"
    version: str = "1.11.0"
    agent_version: str = ""
    agent_timeout_s: float = 75.0
    ping_s: float = 15.0
    heartbeat_s: float = 15.0
    reregister_timeout_s: float = 600.0
    recovery_grace_s: float = 75.0
    session_timeout_s: float = 30.0
    offer_timeout_s: float | None = None
    want_offer_timeout_s: float = 30.0
    allocation_delay_s: float = 0.002
    most_grants: int = 32
    least_refuse_s: float = 0.2
    explain_s: float = 1.0
    forget_agent_s: float = 14 * 86400.0
    most_completed_frameworks: int = 50
    most_removed_ids: int = 1000
    most_completed_tasks: int = 1000
    most_unreachable_tasks: int = 1000
    most_filters: int = 16
    default_kill_grace_s: float = 3.0
    shutdown_margin_s: float = 30.0
    headroom: Resources | None = None
    evictions_per_minute: int = 60
    compiled: str = "no"
    domain: Domain | None = None
    rate_limits: RateLimits | None = None
    removal_every_s: float = 0.0
    starving_s: float = 300.0


# Records.


class EpochRecord(msgspec.Struct, frozen=True, gc=False):
    """The number of the newest reign; every start adds one."""

    epoch: int


class AgentRecord(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """Shapes: `unreachable_at` is set while the agent is given up for silent, `drain` from a drain's start on."""

    info: AgentInfo
    unreachable_at: float | None = None
    deactivated: bool = False
    drain: Drain | None = None


class GoneRecord(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """An agent that an operator has declared gone."""

    at: float


class MaintenanceRecord(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """The schedule, and which of its machines are down."""

    windows: tuple[Window, ...] = ()
    down: tuple[Machine, ...] = ()


class FrameworkRecord(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """A framework that may come back: with it the failover timeout outlives the master.

    Deviates: Mesos forgets it, and a blip of a framework during a master's failover kills its tasks.
    """

    info: FrameworkInfo
    principal: str | None = None
    registered_at: float = 0.0


class WeightRecord(msgspec.Struct, frozen=True, gc=False):
    """What releases wrote that knew only the weight of a role; read and replaced by `RoleSettings`."""

    weight: float


class RemovedRecord(msgspec.Struct, frozen=True, gc=False):
    """Ids of removed frameworks, oldest first: none of them may subscribe again."""

    ids: tuple[FrameworkId, ...]


# Inputs besides Loaded and Tick.


class AgentOpened(msgspec.Struct, frozen=True, gc=False, tag=True):
    """An agent holds the orders half of a new session."""

    session: str
    peer: str = ""


class AgentReported(msgspec.Struct, frozen=True, gc=False, tag=True):
    """Reports in the order they were sent; the first of a session is `Register`."""

    session: str
    reports: tuple[Report, ...]


class AgentClosed(msgspec.Struct, frozen=True, gc=False, tag=True):
    session: str
    why: str = ""


class SchedulerClosed(msgspec.Struct, frozen=True, gc=False, tag=True):
    """The event stream of a framework broke."""

    stream: str
    why: str = ""


class WatcherClosed(msgspec.Struct, frozen=True, gc=False, tag=True):
    """One who followed the cluster is gone."""

    stream: str


# Commands.


class Attempt(msgspec.Struct, frozen=True, gc=False):
    """Which of its subscriptions this is to a process of a framework: `life` names the process, `number` grows."""

    life: str
    number: int


class SubscribeStream(msgspec.Struct, frozen=True, gc=False, kw_only=True, tag=True):
    """Open the event stream `stream`, whose id the shell has minted.

    Shapes: `given_stream` is the stream id that the request carried, which a SUBSCRIBE must not; `attempt` is None
    of those who do not say it, as of all that speak plain Mesos.
    """

    stream: str
    call: Subscribe
    principal: str | None = None
    given_stream: str | None = None
    attempt: Attempt | None = None


class SchedulerCall(msgspec.Struct, frozen=True, gc=False, kw_only=True, tag=True):
    """Any call but SUBSCRIBE. Shapes: `stream` is the stream id it came with, None when it had none."""

    call: Call
    stream: str | None = None
    principal: str | None = None


class GetNodes(msgspec.Struct, frozen=True, gc=False, tag=True):
    pass


class GetRoles(msgspec.Struct, frozen=True, gc=False, kw_only=True, tag=True):
    """Shapes: with `role`, that one alone. Errors: `NotFound` when nobody knows it."""

    role: str = ""


class GetFrameworks(msgspec.Struct, frozen=True, gc=False, tag=True):
    pass


class GetTasks(msgspec.Struct, frozen=True, gc=False, kw_only=True, tag=True):
    """Shapes: each filter left empty takes all."""

    framework: str = ""
    agent: str = ""
    group: str = ""
    task: str = ""


class GetExplanations(msgspec.Struct, frozen=True, gc=False, kw_only=True, tag=True):
    want: str = ""
    group: str = ""


class GetTrial(msgspec.Struct, frozen=True, gc=False, tag=True):
    """The live state as the allocator knows it, to try things on a copy."""


class GetMetrics(msgspec.Struct, frozen=True, gc=False, tag=True):
    pass


class PrepareViews(msgspec.Struct, frozen=True, gc=False, tag=True):
    """Make some of what views of all agents need, so that no turn has to make much; answered by how much is left."""


class GetSources(msgspec.Struct, frozen=True, gc=False, kw_only=True, tag=True):
    """The configs and secrets that a task names, asked by the agent of this session."""

    session: str
    framework_id: str
    task_id: str


class GetCluster(msgspec.Struct, frozen=True, gc=False, kw_only=True, tag=True):
    """The whole cluster as Mesos' own views show it. Shapes: what is False is left out."""

    tasks: bool = True
    frameworks: bool = True
    agents: bool = True
    roles: bool = True


class WatchCluster(msgspec.Struct, frozen=True, gc=False, tag=True):
    """Tell on this stream, whose id the shell has minted, what happens from now on; answered by the whole cluster."""

    stream: str


Command = (
    SubscribeStream | SchedulerCall | Operate | SetRole | RemoveRole | UpdateWeights | UpdateQuota | SetQuota
    | RemoveQuota | MaintenanceChange | Teardown | GetNodes | GetRoles | GetFrameworks | GetTasks | GetExplanations
    | GetTrial | GetMetrics | GetCluster | GetSources | PrepareViews | WatchCluster
)  # fmt: skip

Input = Loaded | Tick | Asked[Command] | AgentOpened | AgentReported | AgentClosed | SchedulerClosed | WatcherClosed


def agent_key(agent_id: AgentId) -> str:
    return f"agents/{agent_id}"


def gone_key(agent_id: AgentId) -> str:
    return f"gone/{agent_id}"


MAINTENANCE_KEY = "maintenance"


def framework_key(framework_id: FrameworkId) -> str:
    return f"frameworks/{framework_id}"


def role_key(role: str) -> str:
    return f"roles/{role}"


def weight_key(role: str) -> str:
    return f"weights/{role}"
