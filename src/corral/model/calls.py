"""What a framework says to the master. Source: Mesos v1 scheduler API; `Request.wants` is corral's extension."""

import msgspec

from corral.model.framework import FrameworkInfo
from corral.model.ids import AgentId, ExecutorId, FrameworkId, InverseOfferId, OfferId, TaskId
from corral.model.offer import Filters, Want
from corral.model.offer_constraints import OfferConstraints
from corral.model.operations import ResourceOperation
from corral.model.task import ExecutorInfo, TaskInfo


class Launch(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag="LAUNCH"):
    tasks: tuple[TaskInfo, ...]


class LaunchGroup(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag="LAUNCH_GROUP"):
    executor: ExecutorInfo
    tasks: tuple[TaskInfo, ...]


class Unsupported(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag="UNSUPPORTED"):
    """An operation that is understood but not carried out; `kind` is its wire name."""

    kind: str
    operation_id: str | None = None


Operation = Launch | LaunchGroup | ResourceOperation | Unsupported


class Subscribe(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag="SUBSCRIBE"):
    info: FrameworkInfo
    suppressed_roles: tuple[str, ...] = ()
    offer_constraints: OfferConstraints = ()


class Teardown(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag="TEARDOWN"):
    framework_id: FrameworkId


class Accept(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag="ACCEPT"):
    framework_id: FrameworkId
    offer_ids: tuple[OfferId, ...]
    operations: tuple[Operation, ...] = ()
    filters: Filters = Filters()


class Decline(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag="DECLINE"):
    framework_id: FrameworkId
    offer_ids: tuple[OfferId, ...]
    filters: Filters = Filters()


class AcceptInverseOffers(
    msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag="ACCEPT_INVERSE_OFFERS"
):
    framework_id: FrameworkId
    inverse_offer_ids: tuple[InverseOfferId, ...]
    filters: Filters = Filters()


class DeclineInverseOffers(
    msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag="DECLINE_INVERSE_OFFERS"
):
    framework_id: FrameworkId
    inverse_offer_ids: tuple[InverseOfferId, ...]
    filters: Filters = Filters()


class Revive(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag="REVIVE"):
    """Shapes: no roles means all of the framework's."""

    framework_id: FrameworkId
    roles: tuple[str, ...] = ()


class Suppress(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag="SUPPRESS"):
    framework_id: FrameworkId
    roles: tuple[str, ...] = ()


class Kill(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag="KILL"):
    """Units: `grace_s` seconds between SIGTERM and SIGKILL; None keeps the task's own."""

    framework_id: FrameworkId
    task_id: TaskId
    agent_id: AgentId | None = None
    grace_s: float | None = None


class Shutdown(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag="SHUTDOWN"):
    framework_id: FrameworkId
    executor_id: ExecutorId
    agent_id: AgentId


class Acknowledge(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag="ACKNOWLEDGE"):
    framework_id: FrameworkId
    agent_id: AgentId
    task_id: TaskId
    uuid: bytes


class AcknowledgeOperation(
    msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag="ACKNOWLEDGE_OPERATION_STATUS"
):
    framework_id: FrameworkId
    operation_id: str
    uuid: bytes
    agent_id: AgentId | None = None


class ReconcileOperations(
    msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag="RECONCILE_OPERATIONS"
):
    """Shapes: ids with the agent they are thought to be on, if any; none asks for all."""

    framework_id: FrameworkId
    operations: tuple[tuple[str, AgentId | None], ...] = ()


class ReconcileTask(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    task_id: TaskId
    agent_id: AgentId | None = None


class Reconcile(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag="RECONCILE"):
    """Shapes: no tasks asks for all (implicit reconciliation)."""

    framework_id: FrameworkId
    tasks: tuple[ReconcileTask, ...] = ()


class Message(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag="MESSAGE"):
    framework_id: FrameworkId
    agent_id: AgentId
    executor_id: ExecutorId
    data: bytes


class Request(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag="REQUEST"):
    """States all wants of the framework anew: one left out is withdrawn. None means a plain Mesos REQUEST."""

    framework_id: FrameworkId
    wants: tuple[Want, ...] | None = None


class UpdateFramework(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag="UPDATE_FRAMEWORK"):
    info: FrameworkInfo
    suppressed_roles: tuple[str, ...] = ()
    offer_constraints: OfferConstraints = ()


Call = (
    Subscribe | Teardown | Accept | Decline | AcceptInverseOffers | DeclineInverseOffers | Revive | Suppress | Kill
    | Shutdown | Acknowledge | Reconcile | Message | Request | UpdateFramework | AcknowledgeOperation
    | ReconcileOperations
)  # fmt: skip
