"""What the allocator is told and what it answers: plain values, the whole contract of the package.

`Allocator` in `allocator.py` is told agents, roles, frameworks, wants and holds as they come and go, and decides when
it is run. A `View` describes all of that at once: what-if questions and tests build an allocator from one.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum

import msgspec

from corral.allocator.packing import Demand
from corral.model.ids import AgentId, FrameworkId, OfferId, WantId
from corral.model.offer import Want
from corral.model.resources import Resources
from corral.model.role import RoleSettings


class AgentView(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Shapes: `attributes` hold constraint texts; `unready_runtimes` are there but can start nothing now.

    `ineligible` says why the agent takes nothing new (`draining`, `unreachable`...), empty when it does; while
    `still_offered` what is reserved is offered all the same, and the rest is lent. `barred` lists frameworks and roles
    that want no coarse offers of it; of a `remote` one only frameworks with `regions` get them.
    """

    id: AgentId
    hostname: str
    total: Resources
    attributes: Mapping[str, str] = {}
    runtimes: tuple[str, ...] = ()
    unready_runtimes: tuple[str, ...] = ()
    ineligible: str = ""
    still_offered: bool = False
    remote: bool = False
    barred: frozenset[tuple[FrameworkId, str]] = frozenset()


class WantView(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A standing want. Shapes: `missing` instances are neither launched nor out in an offer for it."""

    want: Want
    framework_id: FrameworkId
    missing: int
    since_at: float


class FrameworkView(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Shapes: `coarse_roles` are the roles that take plain offers now (subscribed, not suppressed).

    With `only_reserved` it is offered nothing plainly but what is reserved for them, as what it states wants for is.
    `gpus`, `refined`, `shared` and `revocable` tell whether it can take GPUs, refined reservations, shared volumes, and
    what is reserved for others while they do not ask for it. `least` are by role the amounts in thousandths, any of
    which makes an offer worth it; a role that is missing takes Mesos' least.
    """

    id: FrameworkId
    coarse_roles: tuple[str, ...] = ()
    gpus: bool = False
    regions: bool = False
    refined: bool = False
    shared: bool = False
    revocable: bool = False
    least: Mapping[str, tuple[Mapping[str, int], ...]] = {}
    only_reserved: bool = False


class Filter(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Resources that a framework refused for a role on an agent; offers contained in them are held back until then."""

    framework_id: FrameworkId
    role: str
    agent_id: AgentId
    resources: Resources
    until_at: float


class HoldKind(StrEnum):
    TASK = "task"
    OFFER = "offer"  # a coarse offer that is out, and may be rescinded for a want
    SHAPED = "shaped"  # an offer that is out for a want
    GRANT = "grant"  # decided, the offer is not made yet


class Hold(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What a task or an offer takes from one agent.

    Shapes: `key` is unique; `group` and `tags` tell what counting constraints and affinity look at; `ends_at` is when a
    task with a stated run time will have ended; `devices` are numbers of GPUs, empty lets the allocator say which.
    `leaving` is set once it is on its way out and cannot be evicted again.
    """

    key: str
    framework_id: FrameworkId
    role: str
    agent_id: AgentId
    resources: Resources
    kind: HoldKind = HoldKind.TASK
    want_id: WantId | None = None
    offer_id: OfferId | None = None
    group: str = ""
    tags: tuple[str, ...] = ()
    priority: int = 0
    revocable: bool = False
    since_at: float = 0.0
    ends_at: float | None = None
    devices: tuple[int, ...] = ()
    leaving: bool = False


class Settings(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What operators decide for the whole cluster.

    Shapes: `headroom` is one reserve that all guarantees draw on together; None keeps free whatever any guarantee
    lacks. `evictions_per_minute` bounds how fast work is moved out for other work.
    """

    headroom: Resources | None = None
    evictions_per_minute: int = 60


class View(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Everything an allocator knows.

    Shapes: `seed` changes from run to run (a counter will do); `usual` tells how often demands for GPUs came.
    """

    agents: Sequence[AgentView]
    roles: Mapping[str, RoleSettings] = {}
    frameworks: Sequence[FrameworkView] = ()
    wants: Sequence[WantView] = ()
    holds: Sequence[Hold] = ()
    filters: Sequence[Filter] = ()
    settings: Settings = Settings()
    seed: int = 0
    usual: Sequence[tuple[Demand, int]] = ()


class Grant(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One offer to make. Shapes: with `want_id`, exactly one instance of that want, its ports and GPUs chosen.

    The allocator holds its resources under `key` until that hold is replaced or released.
    """

    key: str
    framework_id: FrameworkId
    role: str
    agent_id: AgentId
    resources: Resources
    want_id: WantId | None = None
    devices: tuple[int, ...] = ()
    revocable: bool = False


class Eviction(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A task that has to make room, with its grace. Shapes: `key` of its hold; `why` names who takes its place."""

    key: str
    framework_id: FrameworkId
    role: str
    agent_id: AgentId
    want_id: WantId
    for_framework_id: FrameworkId
    for_role: str
    why: str


class Allocation(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Shapes: `rescind` offers and `evictions` must come back before the wants they block can be served, in later runs.

    `returned` are those of `rescind` that were lent and go back to those for whom it is kept. With `more` the bound was
    reached: run again at once, for nothing is said yet of what has not had its turn. `due_at` is when to run again even
    if nothing else is told, None when there is no need.
    """

    grants: tuple[Grant, ...] = ()
    rescind: tuple[OfferId, ...] = ()
    returned: tuple[OfferId, ...] = ()
    evictions: tuple[Eviction, ...] = ()
    waiting: tuple[tuple[FrameworkId, WantId], ...] = ()
    more: bool = False
    due_at: float | None = None
