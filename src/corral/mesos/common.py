"""Reads and writes the messages that calls, events and views share: labels, frameworks, agents, offers.

`read_x` takes a wire struct and gives the model's noun, `write_x` the reverse; reading what was written gives the same
noun again. An optional enumeration with an unknown name counts as unset, a required one is refused. Source: Mesos v1,
core messages and JSON mapping.
"""

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import TypeVar

from corral.lib.errors import Invalid
from corral.mesos import wire
from corral.mesos.resources import MOST_SCALAR, read_attribute, read_resources, write_attribute, write_resources
from corral.model.agent import AgentInfo
from corral.model.domain import Domain
from corral.model.framework import Capability, FrameworkInfo, OfferFilter
from corral.model.ids import AgentId, ExecutorId, FrameworkId, OfferId, WantId
from corral.model.maintenance import Unavailability
from corral.model.offer import Offer
from corral.model.resources import scalar
from corral.model.task import Label

AGENT_PATH = "/slave(1)"
_NANOS = 1_000_000_000

E = TypeVar("E", bound=StrEnum)


def read_enum(kind: type[E], found: str, at: str) -> E:
    """A required enumeration. Errors: `Invalid` lists the known names."""
    try:
        return kind(found)
    except ValueError:
        raise Invalid(f"field '{at}': {found!r} is none of {', '.join(kind)}") from None


def read_optional_enum(kind: type[E], found: str | None) -> E | None:
    """None also for a name nobody knows."""
    return kind._value2member_map_.get(found)  # type: ignore[return-value]


def read_seconds(found: wire.Nanoseconds) -> float:
    """Units: seconds, the nearest float there is."""
    return found.nanoseconds / _NANOS


def write_seconds(seconds: float) -> wire.Nanoseconds:
    # The whole part is kept apart, so that instants of today keep all the digits they have.
    whole = int(seconds)
    return wire.Nanoseconds(nanoseconds=whole * _NANOS + round((seconds - whole) * _NANOS))


def read_labels(found: wire.Labels | None) -> tuple[Label, ...]:
    return tuple(Label(key=x.key, value=x.value) for x in found.labels) if found is not None else ()


def write_labels(labels: Iterable[Label]) -> wire.Labels | None:
    made = tuple(wire.Label(key=x.key, value=x.value) for x in labels)
    return wire.Labels(labels=made) if made else None


def write_id(value: str | None) -> wire.Id | None:
    return wire.Id(value=value) if value is not None else None


def read_domain(found: wire.DomainInfo | None) -> Domain | None:
    if found is None or found.fault_domain is None:
        return None
    return Domain(region=found.fault_domain.region.name, zone=found.fault_domain.zone.name)


def write_domain(domain: Domain | None) -> wire.DomainInfo | None:
    if domain is None:
        return None
    fault_domain = wire.FaultDomain(region=wire.Named(name=domain.region), zone=wire.Named(name=domain.zone))
    return wire.DomainInfo(fault_domain=fault_domain)


def read_unavailability(found: wire.Unavailability) -> Unavailability:
    duration = found.duration
    return Unavailability(
        start_ns=found.start.nanoseconds, duration_ns=duration.nanoseconds if duration is not None else None
    )  # fmt: skip


def write_unavailability(found: Unavailability) -> wire.Unavailability:
    duration = found.duration_ns
    return wire.Unavailability(
        start=wire.Nanoseconds(nanoseconds=found.start_ns),
        duration=wire.Nanoseconds(nanoseconds=duration) if duration is not None else None,
    )


# Frameworks, agents, offers.


def read_framework_info(found: wire.FrameworkInfo) -> FrameworkInfo:
    """Shapes: an empty id counts as none; capabilities that nobody knows are left out."""
    capabilities = (read_optional_enum(Capability, c.type) for c in found.capabilities)
    return FrameworkInfo(
        user=found.user,
        name=found.name,
        id=FrameworkId(found.id.value) if found.id is not None and found.id.value else None,
        failover_timeout_s=found.failover_timeout or 0.0,
        checkpoint=bool(found.checkpoint),
        role=found.role,
        roles=found.roles,
        hostname=found.hostname,
        principal=found.principal,
        webui_url=found.webui_url,
        capabilities=tuple(c for c in capabilities if c is not None),
        labels=read_labels(found.labels),
        offer_filters=_read_offer_filters(found.offer_filters),
    )


def _read_offer_filters(found: Mapping[str, wire.OfferFilters]) -> tuple[OfferFilter, ...]:
    """Shapes: a role of which nothing is said is left out. Errors: `Invalid` names the amount that is none."""
    filters = []
    for role, one in sorted(found.items()):
        if one.min_allocatable_resources is None:
            continue
        least = []
        for at, each in enumerate(one.min_allocatable_resources.quantities):
            field = f"field 'framework_info.offer_filters.{role}.min_allocatable_resources.quantities[{at}]'"
            for name, amount in each.quantities.items():
                if not 0 < amount.value < MOST_SCALAR:
                    raise Invalid(f"{field}: {amount.value} {name} is not above 0 and below {MOST_SCALAR:.0e}")
            least.append(tuple((name, scalar(name, n.value).milli) for name, n in sorted(each.quantities.items())))
        filters.append(OfferFilter(role=role, least=tuple(least)))
    return tuple(filters)


def _write_offer_filters(found: Sequence[OfferFilter]) -> dict[str, wire.OfferFilters]:
    return {
        one.role: wire.OfferFilters(
            min_allocatable_resources=wire.LeastResources(
                quantities=tuple(
                    wire.Quantities(quantities={name: wire.Scalar(value=n / 1000) for name, n in each})
                    for each in one.least
                )
            )
        )
        for one in found
    }


def write_framework_info(info: FrameworkInfo) -> wire.FrameworkInfo:
    return wire.FrameworkInfo(
        user=info.user,
        name=info.name,
        id=write_id(info.id),
        failover_timeout=float(info.failover_timeout_s),
        checkpoint=info.checkpoint,
        role=info.role,
        roles=info.roles,
        hostname=info.hostname,
        principal=info.principal,
        webui_url=info.webui_url,
        capabilities=tuple(wire.CapabilityInfo(type=c.value) for c in info.capabilities),
        labels=write_labels(info.labels),
        offer_filters=_write_offer_filters(info.offer_filters),
    )


def read_agent_info(found: wire.AgentInfo) -> AgentInfo:
    """Shapes: address and version are not part of the message and keep their defaults."""
    return AgentInfo(
        hostname=found.hostname,
        port=found.port if found.port is not None else 5051,
        resources=read_resources(found.resources, "agent_info.resources"),
        id=AgentId(found.id.value) if found.id is not None else None,
        attributes=tuple(read_attribute(a) for a in found.attributes),
        runtimes=found.runtimes,
        domain=read_domain(found.domain),
    )


def write_agent_info(info: AgentInfo, *, refinement: bool = True, both: bool = True) -> wire.AgentInfo:
    """Shapes: `both` forms of resources are for operators."""
    return wire.AgentInfo(
        id=write_id(info.id),
        hostname=info.hostname,
        port=info.port,
        resources=write_resources(info.resources, refinement=refinement, both=both),
        attributes=tuple(write_attribute(a) for a in info.attributes),
        runtimes=info.runtimes,
        domain=write_domain(info.domain),
    )


def read_offer(found: wire.Offer) -> Offer:
    """Shapes: the role is `*` when the offer names none."""
    address = found.url.address if found.url is not None else None
    role = found.allocation_info.role if found.allocation_info is not None else None
    return Offer(
        id=OfferId(found.id.value),
        framework_id=FrameworkId(found.framework_id.value),
        agent_id=AgentId(found.agent_id.value),
        hostname=found.hostname,
        ip=(address.ip if address is not None else None) or "",
        port=address.port if address is not None else 0,
        role=role or "*",
        resources=read_resources(found.resources, "offer.resources"),
        attributes=tuple(read_attribute(a) for a in found.attributes),
        want_id=WantId(found.want_id) if found.want_id is not None else None,
        executor_ids=tuple(ExecutorId(e.value) for e in found.executor_ids),
        domain=read_domain(found.domain),
        unavailability=read_unavailability(found.unavailability) if found.unavailability is not None else None,
    )


def write_offer(offer: Offer, *, refinement: bool) -> wire.Offer:
    """Every resource repeats the role that it is charged to."""
    return wire.Offer(
        id=wire.Id(value=offer.id),
        framework_id=wire.Id(value=offer.framework_id),
        agent_id=wire.Id(value=offer.agent_id),
        hostname=offer.hostname,
        url=wire.Url(
            scheme="http",
            address=wire.Address(hostname=offer.hostname, ip=offer.ip, port=offer.port),
            path=AGENT_PATH,
        ),
        resources=write_resources(offer.resources, refinement=refinement, allocation=offer.role),
        attributes=tuple(write_attribute(a) for a in offer.attributes),
        executor_ids=tuple(wire.Id(value=e) for e in offer.executor_ids),
        allocation_info=wire.AllocationInfo(role=offer.role),
        want_id=offer.want_id,
        domain=write_domain(offer.domain),
        unavailability=write_unavailability(offer.unavailability) if offer.unavailability is not None else None,
    )
