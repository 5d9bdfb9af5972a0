"""Offers, the wants that shape them, and the filters that hold them back.

A want is corral's extension of the Mesos REQUEST call: a framework says what it needs and is offered exactly that.
"""

import msgspec

from corral.lib.errors import Invalid
from corral.model.attributes import Attribute
from corral.model.constraints import Constraint, check_constraint
from corral.model.ids import AgentId, FrameworkId, OfferId, WantId
from corral.model.resources import Resources
from corral.model.tags import MOST_TAGS, find_tag_fault


class Want(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A standing demand for `count` instances of one shape.

    Shapes: `resources` hold scalars of one instance; `ports` counts dynamic ports, `fixed_ports` must be free as they
    are. `group` names the siblings that counting constraints look at and `group_size` how many there shall be in all.
    `strategy` is how an agent is chosen, by name; empty is the role's, else `gpu` where GPUs are asked, else `spread`.
    `runtime` is `docker`, `process`, or empty for either. A `gang` of so
    many instances starts together or not at all, and may keep what it has gathered for `gang_timeout_s`; `run_s` is how
    long an instance runs at most, so that it may use what a gang keeps meanwhile. `revocable` instances run on what is
    lent and may be ended at any time. With `preempts` tasks of lower `priority` of the same role may have to go. `tags`
    are what near and apart constraints of others look at. Units: seconds.
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


LEAST_PRIORITY, MOST_PRIORITY = -512, 511
MOST_CONSTRAINTS = 24
MOST_FIXED_PORTS = 32


def check_want(want: Want) -> None:
    """Refuse numbers that no want may have.

    Errors: `Invalid` names the want and the field.
    """
    name = f"want {want.id}"
    if want.count < 0 or want.ports < 0:
        raise Invalid(f"{name} has a count below 0; ask 0 or more")
    if not LEAST_PRIORITY <= want.priority <= MOST_PRIORITY:
        raise Invalid(f"{name} has the priority {want.priority}; give one within {LEAST_PRIORITY} and {MOST_PRIORITY}")
    if want.gang < 0 or (want.gang > 1 and want.count % want.gang):
        raise Invalid(f"{name} asks {want.count} instances in gangs of {want.gang}; ask whole gangs")
    if not 0 < want.gang_timeout_s < 1e9:
        raise Invalid(f"{name} has gang_timeout_s {want.gang_timeout_s:g}; give seconds above 0")
    if want.run_s is not None and not 0 < want.run_s < 1e9:
        raise Invalid(f"{name} has run_s {want.run_s:g}; give seconds above 0, or leave it out")
    for what, found, most in (
        ("constraints", len(want.constraints), MOST_CONSTRAINTS),
        ("fixed_ports", len(want.fixed_ports), MOST_FIXED_PORTS),
        ("tags", len(want.tags), MOST_TAGS),
    ):
        if found > most:
            raise Invalid(f"{name} has {found} {what}; {most} are the most")
    fault = next(filter(None, map(find_tag_fault, want.tags)), None)
    if fault is not None:
        raise Invalid(f"{name} {fault}")
    if any(not 0 < port < 65536 for port in want.fixed_ports):
        raise Invalid(f"{name} has a fixed port outside of 1 to 65535")
    for constraint in want.constraints:
        check_constraint(constraint)
