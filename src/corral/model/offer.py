"""Offers, the wants that shape them, and the filters that hold them back.

A want is corral's extension of the Mesos REQUEST call: a framework says what it needs and is offered exactly that.
"""

import msgspec

from corral.model.attributes import Attribute
from corral.model.constraints import Constraint
from corral.model.ids import AgentId, FrameworkId, OfferId, WantId
from corral.model.resources import Resources


class Want(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A standing demand for `count` instances of one shape.

    Shapes: `resources` hold scalars of one instance; `ports` counts dynamic ports, `fixed_ports` must be free as they
    are. `group` names the siblings that counting constraints look at and `group_size` how many there shall be in all.
    `strategy` names how agents are chosen; empty is the role's, else `gpu` where GPUs are asked, else `spread`.
    `runtime` is `docker`, `process`, or empty for either.
    """

    id: WantId
    role: str
    count: int
    resources: Resources
    ports: int = 0
    fixed_ports: tuple[int, ...] = ()
    constraints: tuple[Constraint, ...] = ()
    strategy: str = ""
    priority: int = 0
    group: str = ""
    group_size: int = 0
    runtime: str = ""
    gang: int = 0
    gang_timeout_s: float = 300.0
    run_s: float | None = None
    revocable: bool = False
    preempts: bool = True
    tags: tuple[str, ...] = ()


class Offer(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Resources of one agent for one role; with `want_id`, shaped to one instance of that want."""

    id: OfferId
    framework_id: FrameworkId
    agent_id: AgentId
    hostname: str
    ip: str
    port: int
    role: str
    resources: Resources
    attributes: tuple[Attribute, ...] = ()
    want_id: WantId | None = None


class Filters(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Units: seconds; Mesos' default is 5 even when the caller says nothing."""

    refuse_s: float = 5.0


class Refusal(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One row of an explanation: how many agents cannot take an instance for this reason.

    Shapes: `reason` is a stable word (`cpus`, `mem`, `disk`, `ports`, `constraint`, `runtime`, `limit`, `filtered`,
    `draining`...), `detail` a sentence naming wanted and found, `best` the agent that came nearest, if any.
    """

    reason: str
    detail: str
    agents: int
    best: str | None = None


class Explanation(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Why a want still waits. Shapes: `fits_if` are changes that alone would let one instance fit now."""

    want_id: WantId
    framework_id: FrameworkId
    role: str
    waiting: int
    since_at: float
    agents: int
    refusals: tuple[Refusal, ...] = ()
    fits_if: tuple[str, ...] = ()
    never: bool = False
