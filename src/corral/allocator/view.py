"""What the allocator looks at and what it answers: plain values, the whole contract of the package.

`allocate(view, now)` in `allocator.py` is a pure function from `View` to `Allocation`.
"""

from collections.abc import Mapping, Sequence

import msgspec

from corral.model.ids import AgentId, FrameworkId, OfferId, WantId
from corral.model.offer import Explanation, Want
from corral.model.resources import Resources


class AgentView(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Shapes: `free` is what is neither used by a task nor out in an offer; `attributes` hold constraint texts.

    `ineligible` says why the agent takes nothing new (`draining`, `unreachable`...), empty when it does.
    """

    id: AgentId
    hostname: str
    total: Resources
    free: Resources
    attributes: Mapping[str, str] = {}
    runtimes: tuple[str, ...] = ()
    ineligible: str = ""
    tasks: int = 0


class WantView(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A standing want. Shapes: `missing` instances are neither launched nor out in an offer for it."""

    want: Want
    framework_id: FrameworkId
    missing: int
    since_at: float


class FrameworkView(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Shapes: `coarse_roles` are the roles that take plain offers now (subscribed, not suppressed)."""

    id: FrameworkId
    coarse_roles: tuple[str, ...] = ()
    gpus: bool = False


class Filter(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Resources that a framework refused for a role on an agent; offers contained in them are held back until then."""

    framework_id: FrameworkId
    role: str
    agent_id: AgentId
    resources: Resources
    until_at: float


class HeldOffer(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A coarse offer that is out, and may be rescinded for a want."""

    id: OfferId
    framework_id: FrameworkId
    role: str
    agent_id: AgentId
    resources: Resources
    made_at: float


class View(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Shapes: `weights` default to 1; `allocated` counts tasks and offers per role and per (role, framework).

    `siblings` maps (framework, group) to the agents of its placed instances, in the order they were placed; an offer
    that is out for the group is as good as placed. `seed` changes from run to run (a counter will do): ports, the order
    of coarse offers and the `random` strategy follow it. `most_grants` bounds what one run gives to wants, 0 does not.
    """

    agents: Sequence[AgentView]
    frameworks: Sequence[FrameworkView] = ()
    wants: Sequence[WantView] = ()
    filters: Sequence[Filter] = ()
    held: Sequence[HeldOffer] = ()
    weights: Mapping[str, float] = {}
    allocated: Mapping[str, Resources] = {}
    allocated_by: Mapping[tuple[str, FrameworkId], Resources] = {}
    siblings: Mapping[tuple[FrameworkId, str], Sequence[AgentId]] = {}
    seed: int = 0
    most_grants: int = 0


class Grant(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One offer to make. Shapes: with `want_id`, exactly one instance of that want, its ports chosen."""

    framework_id: FrameworkId
    role: str
    agent_id: AgentId
    resources: Resources
    want_id: WantId | None = None


class Allocation(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Shapes: `rescind` offers must come back before the wants they block can be served, in the next run.

    With `more` the bound was reached: run again at once, for nothing is said yet of what has not had its turn.
    """

    grants: tuple[Grant, ...] = ()
    rescind: tuple[OfferId, ...] = ()
    explanations: tuple[Explanation, ...] = ()
    more: bool = False
