"""A framework as it introduces itself. Source: Mesos v1 FrameworkInfo."""

from enum import StrEnum

import msgspec

from corral.model.ids import FrameworkId
from corral.model.task import Label


class Capability(StrEnum):
    REVOCABLE_RESOURCES = "REVOCABLE_RESOURCES"
    TASK_KILLING_STATE = "TASK_KILLING_STATE"
    GPU_RESOURCES = "GPU_RESOURCES"
    SHARED_RESOURCES = "SHARED_RESOURCES"
    PARTITION_AWARE = "PARTITION_AWARE"
    MULTI_ROLE = "MULTI_ROLE"
    RESERVATION_REFINEMENT = "RESERVATION_REFINEMENT"
    REGION_AWARE = "REGION_AWARE"


class OfferFilter(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """What a framework thinks worth an offer for a role, instead of what the master thinks.

    Units: thousandths. Shapes: `least` are alternatives, of each of which all amounts must be there; none lets in all.
    """

    role: str
    least: tuple[tuple[tuple[str, int], ...], ...] = ()


class FrameworkInfo(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """Shapes: `roles` is set with MULTI_ROLE, `role` without; `subscribed_roles` reads whichever counts.

    Units: `failover_timeout_s` seconds, 0 removes the framework as soon as its stream breaks.
    """

    user: str
    name: str
    id: FrameworkId | None = None
    failover_timeout_s: float = 0.0
    checkpoint: bool = False
    role: str | None = None
    roles: tuple[str, ...] = ()
    hostname: str | None = None
    principal: str | None = None
    webui_url: str | None = None
    capabilities: tuple[Capability, ...] = ()
    labels: tuple[Label, ...] = ()
    offer_filters: tuple[OfferFilter, ...] = ()

    def can(self, capability: Capability) -> bool:
        return capability in self.capabilities

    @property
    def subscribed_roles(self) -> tuple[str, ...]:
        return self.roles if self.can(Capability.MULTI_ROLE) else (self.role or "*",)
