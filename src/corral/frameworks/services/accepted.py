"""On which resources an app runs: on what is for everybody, on what is reserved for its role, or on either.

What is for everybody is wanted of the kernel. What is reserved comes in plain offers, which are asked for while an app
that takes it waits, and the places are chosen here. Nothing with labels is touched: whoever made such a reservation has
something of their own in mind, as instances with volumes do. Without a list it is both, unless the framework is set up
otherwise.
Source: Marathon's contract, sections 2 and 10.

Deviates: one instance runs on the one or the other, as no offer holds both; Marathon also mixes them.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

from corral.frameworks.services.app_spec import AppSpec
from corral.frameworks.services.launch import field_values, make_want
from corral.frameworks.services.record_spec import Condition, Instance
from corral.frameworks.services.role_spec import launch_role, own_role
from corral.frameworks.services.spec import Config
from corral.frameworks.services.state import App, Phase, State, replace
from corral.model import constraints
from corral.model.attributes import format_value
from corral.model.constraints import Constraint
from corral.model.ids import FrameworkId
from corral.model.offer import Explanation, Offer, Refusal, Want
from corral.model.resources import Resource, ResourceKind, Resources, format_milli, subtract, total_milli
from corral.sdk.match import Placement, take

EVERYBODY = "*"


def takes_plain(spec: AppSpec) -> bool:
    """Whether the app runs on what is reserved for nobody."""
    return not spec.accepted_resource_roles or EVERYBODY in spec.accepted_resource_roles


def takes_reserved(spec: AppSpec, config: Config) -> bool:
    """Whether the app runs on what others have reserved for its role; with volumes it reserves for itself."""
    role = own_role(spec, config)
    if spec.volumes or role == EVERYBODY:
        return False
    if not spec.accepted_resource_roles:
        return config.use_reserved
    return not takes_plain(spec) or role in spec.accepted_resource_roles


def find_faults(spec: AppSpec, config: Config) -> Iterator[tuple[str, str]]:
    """Paths and what is wrong there."""
    own = own_role(spec, config)
    at = "/acceptedResourceRoles"
    for role in spec.accepted_resource_roles:
        if role not in (EVERYBODY, own):
            yield at, f"got {role!r}, may hold only * and the app's role {own}"
    if takes_plain(spec):
        return
    if spec.volumes:
        yield at, "an app with persistent volumes reserves for itself of what is reserved for nobody; add *"
    if spec.gpus:
        yield at, "GPUs that are reserved are not offered to apps; add *, or ask for none"
    if any(c[1] in ("NEAR", "APART") for c in spec.constraints if len(c) > 1):
        yield at, "NEAR and APART are kept on what is reserved for nobody alone; add *, or leave them out"


# Who waits.


def count_waiting(state: State, app: App | None) -> int:
    """How many instances could be launched on what is reserved for the app's role, its backoff aside."""
    if app is None or app.record.stopping or not takes_reserved(app.spec, state.config):
        return 0
    if launch_role(app.spec, state.config) in state.roles.refused:
        return 0
    return len(app.up_to_date[Phase.SCHEDULED])


# What there is.


class Part:
    """What is still free of an offer of reserved resources, and on whose node."""

    __slots__ = ("free", "offer", "placed", "texts")

    def __init__(self, offer: Offer) -> None:
        self.offer = offer
        self.free = tuple(r for r in offer.resources if is_open(r, offer.role))
        self.texts = {a.name: format_value(a) for a in offer.attributes}
        self.placed = 0

    def give(self, placement: Placement) -> None:
        self.free = subtract(self.free, placement.resources)
        self.placed += 1


def is_open(resource: Resource, role: str) -> bool:
    """Whether it is reserved for the role, and for any of its apps."""
    identity = resource.identity
    if not identity.reservations or identity.disk is not None or identity.revocable or identity.shared:
        return False
    return identity.reservations[-1].role == role and not any(each.labels for each in identity.reservations)


def find_parts(offers: Sequence[Offer]) -> list[Part]:
    """The plain offers that hold something for any app of their role."""
    parts = [Part(offer) for offer in offers if offer.want_id is None]
    return [part for part in parts if part.free]


# Where one goes.


class Siblings:
    """The instances of an app that constraints count, and how many of them each agent has."""

    __slots__ = ("beside", "found")

    def __init__(self, app: App) -> None:
        self.found = [i for i in app.instances.values() if _counts(i)]
        self.beside = Counter(i.agent_id for i in self.found)

    def add(self, instance: Instance) -> None:
        self.found.append(instance)
        self.beside[instance.agent_id] += 1


def _counts(instance: Instance) -> bool:
    return instance.staged_at is not None and instance.condition not in (Condition.SCHEDULED, Condition.INACTIVE)


def choose(
    state: State, app: App, parts: Sequence[Part], siblings: Siblings, now: float
) -> tuple[Part, Placement] | None:
    """The place of one more instance: on a node that is not avoided, with few of its siblings; None when none fits.

    Shapes: what was in the way of those that were looked at is kept for those who ask why the app waits.
    """
    want = make_want(app, state.config, 1)
    homes = set(app.homed.values())
    avoided = {each.hostname for each in state.nodes.avoided(app.spec.id, now)}

    def rank(part: Part) -> tuple[bool, bool, int]:
        host = part.offer.hostname
        return host in avoided, host not in homes, siblings.beside[part.offer.agent_id]

    for part in sorted((each for each in parts if each.offer.role == want.role), key=rank):
        fault = _find_leave(part.offer, now) or _find_obstacle(want, part, siblings.found, parts)
        placement = take(part.offer, part.free, want) if fault is None else None
        if placement is not None:
            app.turned_away.pop(part.offer.agent_id, None)
            return part, placement
        app.turned_away[part.offer.agent_id] = fault or _find_lack(want, part)
    return None


def _find_leave(offer: Offer, now: float) -> Refusal | None:
    """That the node is out of service; what is reserved there is offered all the same, to who has data on it."""
    if offer.unavailability is None or not offer.unavailability.covers(now):
        return None
    detail = f"{offer.hostname} is in its maintenance window"
    return Refusal(reason="maintenance", detail=detail, agents=1, best=offer.hostname)


def _find_obstacle(want: Want, part: Part, siblings: Sequence[Instance], parts: Sequence[Part]) -> Refusal | None:
    """The constraint that keeps an instance from the node."""
    for each in want.constraints:
        if not each.weight and not _allows(each, want, part, siblings, parts):
            host = part.offer.hostname
            return Refusal(
                reason="constraint", detail=f"{constraints.describe(each)} excludes {host}", agents=1, best=host
            )
    return None


def _allows(
    constraint: Constraint, want: Want, part: Part, siblings: Sequence[Instance], parts: Sequence[Part]
) -> bool:  # fmt: skip
    if constraints.looks_at_tasks(constraint):
        # What other apps run where, only the kernel sees.
        return False
    field = constraint.field
    value = constraints.field_value(field, part.offer.hostname, part.texts)
    if not constraints.is_counting(constraint):
        return constraints.allows(constraint, value, (), 1, want.group_size)
    placed = sorted(siblings, key=lambda i: (i.staged_at or 0.0, i.id))
    values = [field_values(i).get(field) for i in placed]
    offered = (constraints.field_value(field, p.offer.hostname, p.texts) for p in parts)
    known = {each for each in (*values, *offered) if each is not None}
    return constraints.allows(constraint, value, values, len(known), want.group_size)


def _find_lack(want: Want, part: Part) -> Refusal:
    """What of the reserved resources is too little for one instance."""
    host, role = part.offer.hostname, part.offer.role
    for wanted in want.resources:
        there = total_milli(part.free, wanted.name)
        if there < wanted.milli:
            amounts = f"asks {wanted.name} {format_milli(wanted.milli)}, {host} offers {format_milli(there)}"
            return Refusal(
                reason=wanted.name, detail=f"{amounts} of what is reserved for role {role}", agents=1, best=host
            )
    ports = ", ".join(map(str, want.fixed_ports)) or f"{want.ports} of any number"
    detail = f"asks the ports {ports}, which {host} has not among {_ports(part.free)} reserved for role {role}"
    return Refusal(reason="ports", detail=detail, agents=1, best=host)


def _ports(free: Resources) -> str:
    spans = [span for r in free if r.name == "ports" and r.kind is ResourceKind.RANGES for span in r.ranges]
    return ",".join(f"{low}-{high}" for low, high in spans[:5]) or "none"


# Why one waits.


def explain(state: State, app: App) -> Explanation | None:
    """Why the app waits: the kernel's words for what it wants of that, ours where only what is reserved will do."""
    waiting = count_waiting(state, app)
    refusals = list_refusals(state, app)
    if takes_plain(app.spec) or not refusals:
        return app.explanation
    return Explanation(
        want_id=make_want(app, state.config, waiting).id, framework_id=state.framework_id or FrameworkId(""),
        role=launch_role(app.spec, state.config), waiting=waiting, since_at=app.since_at,
        agents=sum(each.agents for each in refusals), refusals=tuple(refusals),
    )  # fmt: skip


def list_refusals(state: State, app: App) -> list[Refusal]:
    """What was in the way of the app on what is reserved for its role, by reason.

    Shapes: that nothing was offered counts as one agent, so that it is seen in sums. Nothing for an app that waits for
    its delay.
    """
    if app.spec.id not in state.roles.asking:
        return []
    found: dict[str, Refusal] = {}
    for each in app.turned_away.values():
        before = found.get(each.reason)
        found[each.reason] = each if before is None else replace(before, agents=before.agents + 1)
    if found or takes_plain(app.spec):
        return list(found.values())
    role = launch_role(app.spec, state.config)
    detail = f"nothing that is free and reserved for role {role} has been offered, and the app takes nothing else"
    return [Refusal(reason="role", detail=detail, agents=1)]
