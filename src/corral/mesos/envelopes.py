"""The envelopes of scheduler calls and events, and the bodies they carry. Source: Mesos v1 scheduler API."""

from corral.mesos import wire
from corral.mesos.offer_constraints import WireOfferConstraints
from corral.mesos.operations import (
    WireGrow,
    WireOperationStatus,
    WireReserve,
    WireShrink,
    WireUnreserve,
    WireVolumes,
)
from corral.mesos.wants import WireExplanation, WireWant


class WireFilters(wire.Wire):
    refuse_seconds: float | None = None


class WireLaunch(wire.Wire):
    task_infos: tuple[wire.TaskInfo, ...] = ()


class WireTaskGroup(wire.Wire):
    tasks: tuple[wire.TaskInfo, ...] = ()


class WireLaunchGroup(wire.Wire):
    executor: wire.ExecutorInfo
    task_group: WireTaskGroup


class WireOperation(wire.Wire):
    type: str | None = None
    id: wire.Id | None = None
    launch: WireLaunch | None = None
    launch_group: WireLaunchGroup | None = None
    reserve: WireReserve | None = None
    unreserve: WireUnreserve | None = None
    create: WireVolumes | None = None
    destroy: WireVolumes | None = None
    grow_volume: WireGrow | None = None
    shrink_volume: WireShrink | None = None


class WireSubscribe(wire.Wire):
    """Also the body of UPDATE_FRAMEWORK, which has the same fields."""

    framework_info: wire.FrameworkInfo
    suppressed_roles: tuple[str, ...] = ()
    offer_constraints: WireOfferConstraints | None = None


class WireAccept(wire.Wire):
    """Also the body of DECLINE, which has no operations."""

    offer_ids: tuple[wire.Id, ...] = ()
    operations: tuple[WireOperation, ...] = ()
    filters: WireFilters | None = None


class WireAnswerInverse(wire.Wire):
    """The body of both answers to inverse offers."""

    inverse_offer_ids: tuple[wire.Id, ...] = ()
    filters: WireFilters | None = None


class WireRoles(wire.Wire):
    roles: tuple[str, ...] = ()


class WireKill(wire.Wire):
    task_id: wire.Id
    agent_id: wire.Id | None = None
    kill_policy: wire.KillPolicy | None = None


class WireShutdown(wire.Wire):
    executor_id: wire.Id
    agent_id: wire.Id


class WireAcknowledge(wire.Wire):
    agent_id: wire.Id
    task_id: wire.Id
    uuid: bytes


class WireReconcileTask(wire.Wire):
    task_id: wire.Id
    agent_id: wire.Id | None = None


class WireReconcile(wire.Wire):
    tasks: tuple[WireReconcileTask, ...] = ()


class WireAcknowledgeOperation(wire.Wire):
    operation_id: wire.Id
    uuid: bytes
    agent_id: wire.Id | None = None


class WireReconcileOperation(wire.Wire):
    operation_id: wire.Id
    agent_id: wire.Id | None = None


class WireReconcileOperations(wire.Wire):
    operations: tuple[WireReconcileOperation, ...] = ()


class WireUpdateOperation(wire.Wire):
    status: WireOperationStatus


class WireMessage(wire.Wire):
    agent_id: wire.Id
    executor_id: wire.Id
    data: bytes


class WireResourceRequest(wire.Wire):
    agent_id: wire.Id | None = None
    resources: tuple[wire.Resource, ...] = ()


class WireRequest(wire.Wire):
    """Shapes: `requests`, Mesos' own, must be well formed and mean nothing; `wants` are corral's extension."""

    requests: tuple[WireResourceRequest, ...] = ()
    wants: tuple[WireWant, ...] | None = None


class WireCall(wire.Wire):
    type: str | None = None
    framework_id: wire.Id | None = None
    subscribe: WireSubscribe | None = None
    accept: WireAccept | None = None
    decline: WireAccept | None = None
    accept_inverse_offers: WireAnswerInverse | None = None
    decline_inverse_offers: WireAnswerInverse | None = None
    revive: WireRoles | None = None
    suppress: WireRoles | None = None
    kill: WireKill | None = None
    shutdown: WireShutdown | None = None
    acknowledge: WireAcknowledge | None = None
    acknowledge_operation_status: WireAcknowledgeOperation | None = None
    reconcile: WireReconcile | None = None
    reconcile_operations: WireReconcileOperations | None = None
    message: WireMessage | None = None
    request: WireRequest | None = None
    update_framework: WireSubscribe | None = None


class WireSubscribed(wire.Wire):
    framework_id: wire.Id
    heartbeat_interval_seconds: float | None = None
    master_info: wire.MasterInfo | None = None


class WireOffers(wire.Wire):
    offers: tuple[wire.Offer, ...] = ()


class WireRescind(wire.Wire):
    offer_id: wire.Id


class WireInverseOffers(wire.Wire):
    inverse_offers: tuple[wire.InverseOffer, ...] = ()


class WireRescindInverse(wire.Wire):
    inverse_offer_id: wire.Id


class WireUpdate(wire.Wire):
    status: wire.TaskStatus


class WireFailure(wire.Wire):
    agent_id: wire.Id | None = None
    executor_id: wire.Id | None = None
    status: int | None = None


class WireError(wire.Wire):
    message: str


class WireExplanations(wire.Wire):
    explanations: tuple[WireExplanation, ...] = ()


class WireEvent(wire.Wire):
    type: str | None = None
    subscribed: WireSubscribed | None = None
    offers: WireOffers | None = None
    rescind: WireRescind | None = None
    inverse_offers: WireInverseOffers | None = None
    rescind_inverse_offer: WireRescindInverse | None = None
    update: WireUpdate | None = None
    update_operation_status: WireUpdateOperation | None = None
    message: WireMessage | None = None
    failure: WireFailure | None = None
    error: WireError | None = None
    explanations: WireExplanations | None = None
