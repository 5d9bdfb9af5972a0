"""What the master says to a framework. Source: Mesos v1 scheduler API."""

import msgspec

from corral.model.domain import Domain
from corral.model.ids import AgentId, ExecutorId, FrameworkId, InverseOfferId, OfferId
from corral.model.maintenance import InverseOffer
from corral.model.offer import Explanation, Offer
from corral.model.operations import OperationStatus
from corral.model.task import TaskStatus


class MasterInfo(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    id: str
    hostname: str
    ip: str
    port: int
    version: str
    domain: Domain | None = None


class Subscribed(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag="SUBSCRIBED"):
    framework_id: FrameworkId
    heartbeat_interval_s: float
    master: MasterInfo


class Offers(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag="OFFERS"):
    offers: tuple[Offer, ...]


class Rescind(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag="RESCIND"):
    offer_id: OfferId


class InverseOffers(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag="INVERSE_OFFERS"):
    inverse_offers: tuple[InverseOffer, ...]


class RescindInverseOffer(
    msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag="RESCIND_INVERSE_OFFER"
):
    inverse_offer_id: InverseOfferId


class Update(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag="UPDATE"):
    status: TaskStatus


class UpdateOperation(
    msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag="UPDATE_OPERATION_STATUS"
):
    status: OperationStatus


class Message(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag="MESSAGE"):
    agent_id: AgentId
    executor_id: ExecutorId
    data: bytes


class Explanations(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag="EXPLANATIONS"):
    """Why the framework's wants still wait; corral's extension, sent only to frameworks that stated wants.

    Shapes: the whole list anew each time it changes; a want that is missing waits no longer.
    """

    explanations: tuple[Explanation, ...]


class Failure(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag="FAILURE"):
    """Shapes: without `executor_id` the whole agent is lost; `status` is a raw wait status."""

    agent_id: AgentId
    executor_id: ExecutorId | None = None
    status: int | None = None


class Error(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag="ERROR"):
    """The last event of a stream; the framework is to stop."""

    message: str


class Heartbeat(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag="HEARTBEAT"):
    pass


Event = (
    Subscribed | Offers | Rescind | InverseOffers | RescindInverseOffer | Update | UpdateOperation | Message
    | Explanations | Failure | Error | Heartbeat
)  # fmt: skip
