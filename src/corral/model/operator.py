"""What an operator asks of the master about roles, frameworks and what agents reserve; about machines see
`maintenance.py`.

Each command is carried out whole or not at all. Source: Mesos v1 operator API; `SetRole` and `RemoveRole` are corral's
own.
"""

import msgspec

from corral.model.ids import AgentId, FrameworkId
from corral.model.maintenance import MaintenanceChange
from corral.model.operations import ResourceOperation
from corral.model.resources import Resources
from corral.model.role import Quota


class SetRole(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag=True):
    """Change what is said here of a role and leave the rest; the fields are those of `RoleSettings`.

    Shapes: `force` takes a guarantee that the cluster cannot hold, and a limit below what the role uses.
    """

    role: str
    weight: float | msgspec.UnsetType = msgspec.UNSET
    guarantee: Resources | msgspec.UnsetType = msgspec.UNSET
    limit: Resources | msgspec.UnsetType = msgspec.UNSET
    max_tasks: int | msgspec.UnsetType | None = msgspec.UNSET
    priority: int | msgspec.UnsetType = msgspec.UNSET
    half_life_s: float | msgspec.UnsetType | None = msgspec.UNSET
    strategy: str | msgspec.UnsetType = msgspec.UNSET
    force: bool = False


class RemoveRole(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag=True):
    """Forget what was set of a role. Errors: `NotFound` when nothing was."""

    role: str


class UpdateWeights(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag=True):
    """Shapes: pairs of role and weight."""

    weights: tuple[tuple[str, float], ...] = ()


class UpdateQuota(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag=True):
    """Replace the quotas of these roles. Shapes: `force` as in `SetRole`."""

    quotas: tuple[Quota, ...] = ()
    force: bool = False


class SetQuota(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag=True):
    """The older form. Errors: `Invalid` when the role has a quota already."""

    quota: Quota
    force: bool = False


class RemoveQuota(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag=True):
    """Errors: `Invalid` when the role has no quota."""

    role: str


class Operate(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag=True):
    """Carry out an operation on an agent's resources; answered when the agent has it on its disk.

    Errors: `Invalid` for one that breaks a rule; `Conflict` when the agent is away or does not have what it takes.
    """

    agent_id: AgentId
    operation: ResourceOperation
    principal: str | None = None


class Teardown(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag=True):
    """End a framework with all that it runs. Errors: `Invalid` when no such framework is known."""

    framework_id: FrameworkId


Change = (
    Operate | SetRole | RemoveRole | UpdateWeights | UpdateQuota | SetQuota | RemoveQuota | Teardown | MaintenanceChange
)  # fmt: skip
