"""Offers, the wants that shape them, and the filters that hold them back.

A want is corral's extension of the Mesos REQUEST call: a framework says what it needs and is offered exactly that.
"""

import msgspec

from corral.lib.errors import Invalid
from corral.model.attributes import Attribute
from corral.model.constraints import Constraint, check_constraint
from corral.model.domain import Domain
from corral.model.ids import AgentId, ExecutorId, FrameworkId, OfferId, WantId
from corral.model.maintenance import Unavailability
from corral.model.resources import Resource, ResourceKind, Resources
from corral.model.tags import MOST_TAGS, find_tag_fault

LEAST_PRIORITY, MOST_PRIORITY = -512, 511
MOST_CONSTRAINTS = 24
MOST_FIXED_PORTS = 32
MOST_PORT = 65535
MOST_GANG = 10_000
MOST_TIME_S = 1e9


class Want(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """A standing demand for `count` instances of one shape.

    Shapes: `resources` hold scalars of one instance; `ports` counts dynamic ports, `fixed_ports` must be free as they
    are. `group` names the siblings that counting constraints look at and `group_size` how many there shall be in all.
    `strategy` is how an agent is chosen, by name; empty is the role's, else `gpu` where GPUs are asked, else `spread`.
    `runtime` is `docker`, `process`, or empty for either. `priority` orders the wants of a role, -512 to 511, higher
    first.

    `gang` instances start together or not at all, 0 and 1 mean none; `count` is a multiple of it. What a gang that is
    not complete has reserved is kept for `gang_timeout_s`. `run_s` is how long an instance will run, which lets it fill
    the time until a gang starts. `revocable` ones run on what is lent and may be ended for others at any time; one that
    `preempts` may have others of its role ended that have a lower priority. `tags` are what affinity finds them by.

    Units: seconds.
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


def find_want_fault(want: Want) -> tuple[str, str] | None:
    """What no master could serve: the field and what is wrong with it; None when it is well formed."""
    if not LEAST_PRIORITY <= want.priority <= MOST_PRIORITY:
        return "priority", f"{want.priority} is outside of {LEAST_PRIORITY} to {MOST_PRIORITY}"
    if any(ord(c) < 32 for c in want.group):
        return "group", f"{want.group!r} must hold no line breaks and other control characters"
    return (
        _find_resource_fault(want)
        or _find_gang_fault(want)
        or _find_port_fault(want)
        or _find_tags_fault(want)
        or _find_constraint_fault(want)
    )


def _find_resource_fault(want: Want) -> tuple[str, str] | None:
    for each in want.resources:
        if each.name == "gpus" and not is_whole_or_part(each):
            asked = f"{each.milli / 1000:g}"
            return "resources", f"gpus {asked} is more than one and not whole; ask a part of one GPU, or whole ones"
    return None


def is_whole_or_part(gpus: Resource) -> bool:
    """Whether an amount of GPUs is a part of one, or some whole ones."""
    return gpus.kind is ResourceKind.SCALAR and (gpus.milli < 1000 or gpus.milli % 1000 == 0)


def _find_gang_fault(want: Want) -> tuple[str, str] | None:
    if not 0 <= want.gang <= MOST_GANG:
        return "gang", f"{want.gang} is outside of 0 to {MOST_GANG}; give how many start together"
    if want.gang > 1 and want.count % want.gang:
        return "count", f"{want.count} is no multiple of the gang of {want.gang}; ask for whole gangs"
    if not 0 < want.gang_timeout_s <= MOST_TIME_S:
        return "gang_timeout_s", f"{want.gang_timeout_s:g} is not above 0 and at most {MOST_TIME_S:g}; give seconds"
    if want.run_s is not None and not 0 < want.run_s <= MOST_TIME_S:
        return "run_s", f"{want.run_s:g} is not above 0 and at most {MOST_TIME_S:g}; give seconds, or leave it out"
    return None


def _find_port_fault(want: Want) -> tuple[str, str] | None:
    if len(want.fixed_ports) > MOST_FIXED_PORTS:
        return "fixed_ports", f"{len(want.fixed_ports)} ports are given; {MOST_FIXED_PORTS} are the most"
    for port in want.fixed_ports:
        if not 0 < port <= MOST_PORT:
            return "fixed_ports", f"{port} is no port; give one of 1 to {MOST_PORT}"
    if want.ports > MOST_PORT:
        return "ports", f"{want.ports} ports are more than a host has"
    return None


def _find_tags_fault(want: Want) -> tuple[str, str] | None:
    if len(want.tags) > MOST_TAGS:
        return "tags", f"{len(want.tags)} tags are given; {MOST_TAGS} are the most"
    fault = next(filter(None, map(find_tag_fault, want.tags)), None)
    return None if fault is None else ("tags", fault)


def _find_constraint_fault(want: Want) -> tuple[str, str] | None:
    if len(want.constraints) > MOST_CONSTRAINTS:
        return "constraints", f"{len(want.constraints)} are given; {MOST_CONSTRAINTS} are the most"
    for index, each in enumerate(want.constraints):
        try:
            check_constraint(each)
        except Invalid as error:
            return f"constraints[{index}]", error.message
    return None


class Offer(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """Resources of one agent for one role; with `want_id`, shaped to one instance of that want.

    Shapes: `devices` are the numbers of the GPUs that go with it; `executor_ids` are the framework's executors there;
    `unavailability` says when the agent will be taken out of service, None when nobody plans it.
    """

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
    devices: tuple[int, ...] = ()
    executor_ids: tuple[ExecutorId, ...] = ()
    domain: Domain | None = None
    unavailability: Unavailability | None = None

    @property
    def address(self) -> str:
        """Where the agent's API is reached."""
        return f"[{self.ip}]:{self.port}" if ":" in self.ip else f"{self.ip}:{self.port}"


class Filters(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """Units: seconds; Mesos' default is 5 even when the caller says nothing."""

    refuse_s: float = 5.0


class Refusal(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """One row of an explanation: how many agents cannot take an instance for this reason.

    Shapes: `reason` is a stable word (`cpus`, `mem`, `disk`, `ports`, `constraint`, `runtime`, `limit`, `filtered`,
    `draining`...), `detail` a sentence naming wanted and found, `best` the agent that came nearest, if any.
    """

    reason: str
    detail: str
    agents: int
    best: str | None = None


class Explanation(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
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
