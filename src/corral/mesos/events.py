"""Writes what the master says to frameworks, and reads it for frameworks: the events of the Mesos v1 scheduler API.

Source: Mesos v1 scheduler API, events and offers; EXPLANATIONS is corral's extension.
"""

import ipaddress
from typing import TypeVar

import msgspec

from corral.lib.errors import Invalid
from corral.mesos import wire
from corral.mesos.common import read_domain, read_offer, write_domain, write_id, write_offer
from corral.mesos.envelopes import (
    WireError,
    WireEvent,
    WireExplanations,
    WireFailure,
    WireInverseOffers,
    WireMessage,
    WireOffers,
    WireRescind,
    WireRescindInverse,
    WireSubscribed,
    WireUpdate,
    WireUpdateOperation,
)
from corral.mesos.lenient import LenientDecoder
from corral.mesos.maintenance import read_inverse_offer, write_inverse_offer
from corral.mesos.operations import read_status, write_status
from corral.mesos.tasks import read_task_status, write_task_status
from corral.mesos.wants import read_explanation, write_explanation
from corral.model import events
from corral.model.ids import AgentId, ExecutorId, FrameworkId, InverseOfferId, OfferId

M = TypeVar("M")

MASTER_CAPABILITIES = ("QUOTA_V2",)
"""What a master of corral can do of what masters of Mesos can."""

_events = LenientDecoder(WireEvent, "scheduler::Event")
_encode = msgspec.json.Encoder().encode
_DEFAULT_HEARTBEAT_S = 15.0
_HEARTBEAT = b'{"type":"HEARTBEAT"}'


def write_event(event: events.Event, *, refinement: bool) -> bytes:
    """One event as JSON, without its RecordIO frame.

    Shapes: `refinement` tells whether the framework has the RESERVATION_REFINEMENT capability, which chooses the form
    of resources in offers.
    """
    match event:
        case events.Heartbeat():
            return _HEARTBEAT
        case events.Update(status=status):
            return _encode(WireEvent(type="UPDATE", update=WireUpdate(status=write_task_status(status))))
        case events.Offers(offers=offers):
            made = tuple(write_offer(o, refinement=refinement) for o in offers)
            return _encode(WireEvent(type="OFFERS", offers=WireOffers(offers=made)))
        case events.Subscribed():
            return _encode(WireEvent(type="SUBSCRIBED", subscribed=_write_subscribed(event)))
        case events.Rescind(offer_id=offer_id):
            return _encode(WireEvent(type="RESCIND", rescind=WireRescind(offer_id=wire.Id(value=offer_id))))
        case events.InverseOffers(inverse_offers=found):
            asked = tuple(write_inverse_offer(o) for o in found)
            return _encode(WireEvent(type="INVERSE_OFFERS", inverse_offers=WireInverseOffers(inverse_offers=asked)))
        case events.RescindInverseOffer(inverse_offer_id=id):
            void = WireRescindInverse(inverse_offer_id=wire.Id(value=id))
            return _encode(WireEvent(type="RESCIND_INVERSE_OFFER", rescind_inverse_offer=void))
        case events.UpdateOperation(status=told):
            body = WireUpdateOperation(write_status(told, refinement=refinement))
            return _encode(WireEvent(type="UPDATE_OPERATION_STATUS", update_operation_status=body))
        case events.Message():
            agent_id, executor_id = wire.Id(value=event.agent_id), wire.Id(value=event.executor_id)
            return _encode(WireEvent(type="MESSAGE", message=WireMessage(agent_id, executor_id, event.data)))
        case events.Failure():
            lost = WireFailure(write_id(event.agent_id), write_id(event.executor_id), event.status)
            return _encode(WireEvent(type="FAILURE", failure=lost))
        case events.Error(message=message):
            return _encode(WireEvent(type="ERROR", error=WireError(message=message)))
        case events.Explanations(explanations=explanations):
            rows = tuple(write_explanation(e) for e in explanations)
            return _encode(WireEvent(type="EXPLANATIONS", explanations=WireExplanations(explanations=rows)))


def read_event(body: bytes) -> events.Event:
    """The event that one record of the stream states.

    Shapes: an event of a kind that corral has no use for, such as one of a newer Mesos, is a sign of life and
    nothing more: it is read as a heartbeat.
    Errors: `Invalid` names the field that breaks the event's form.
    """
    found = _events.decode(body)
    match found.type:
        case "SUBSCRIBED":
            return _read_subscribed(_present(found.subscribed, "subscribed"))
        case "OFFERS":
            offers = _present(found.offers, "offers").offers
            return events.Offers(offers=tuple(read_offer(o) for o in offers))
        case "RESCIND":
            return events.Rescind(offer_id=OfferId(_present(found.rescind, "rescind").offer_id.value))
        case "INVERSE_OFFERS":
            asked = _present(found.inverse_offers, "inverse_offers").inverse_offers
            return events.InverseOffers(inverse_offers=tuple(read_inverse_offer(o) for o in asked))
        case "RESCIND_INVERSE_OFFER":
            id = _present(found.rescind_inverse_offer, "rescind_inverse_offer").inverse_offer_id.value
            return events.RescindInverseOffer(inverse_offer_id=InverseOfferId(id))
        case "UPDATE":
            status = _present(found.update, "update").status
            return events.Update(status=read_task_status(status, "update.status"))
        case "UPDATE_OPERATION_STATUS":
            operated = _present(found.update_operation_status, "update_operation_status")
            return events.UpdateOperation(status=read_status(operated.status))
        case "MESSAGE":
            message = _present(found.message, "message")
            return events.Message(
                agent_id=AgentId(message.agent_id.value),
                executor_id=ExecutorId(message.executor_id.value),
                data=message.data,
            )
        case "FAILURE":
            return _read_failure(_present(found.failure, "failure"))
        case "ERROR":
            return events.Error(message=_present(found.error, "error").message)
        case "EXPLANATIONS":
            rows = _present(found.explanations, "explanations").explanations
            return events.Explanations(explanations=tuple(read_explanation(e) for e in rows))
        case _:
            return events.Heartbeat()


def write_master_info(master: events.MasterInfo) -> wire.MasterInfo:
    return wire.MasterInfo(
        id=master.id,
        ip=_address_number(master.ip),
        port=master.port,
        pid=f"master@{master.ip}:{master.port}",
        hostname=master.hostname,
        version=master.version,
        address=wire.Address(hostname=master.hostname, ip=master.ip, port=master.port),
        domain=write_domain(master.domain),
        capabilities=tuple(wire.CapabilityInfo(type=name) for name in MASTER_CAPABILITIES),
    )


def _present(member: M | None, name: str) -> M:
    if member is None:
        raise Invalid(f"Failed to validate scheduler::Event: Expecting '{name}' to be present")
    return member


def _write_subscribed(event: events.Subscribed) -> WireSubscribed:
    return WireSubscribed(
        framework_id=wire.Id(value=event.framework_id),
        heartbeat_interval_seconds=float(event.heartbeat_interval_s),
        master_info=write_master_info(event.master),
    )


def _read_subscribed(found: WireSubscribed) -> events.Subscribed:
    master = found.master_info if found.master_info is not None else wire.MasterInfo(id="")
    address = master.address
    return events.Subscribed(
        framework_id=FrameworkId(found.framework_id.value),
        heartbeat_interval_s=found.heartbeat_interval_seconds or _DEFAULT_HEARTBEAT_S,
        master=events.MasterInfo(
            id=master.id,
            hostname=master.hostname or "",
            ip=(address.ip if address is not None else None) or "",
            port=address.port if address is not None else master.port,
            version=master.version or "",
            domain=read_domain(master.domain),
        ),
    )


def _read_failure(found: WireFailure) -> events.Failure:
    return events.Failure(
        agent_id=AgentId(_present(found.agent_id, "failure.agent_id").value),
        executor_id=ExecutorId(found.executor_id.value) if found.executor_id is not None else None,
        status=found.status,
    )


def _address_number(ip: str) -> int:
    """Deviates: 0 for what is no IPv4 address, since the field cannot hold it; `address` has the text."""
    try:
        return int.from_bytes(ipaddress.IPv4Address(ip).packed, "little")
    except ValueError:
        return 0
