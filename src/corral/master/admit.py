"""Whether a caller may do what it asks for, and as whom: by its principal, and by the roles that it is bound to.

Rules: a caller that is bound to roles acts in them and in those below. What a role may claim of the cluster is set
from above: for the roles below one's own, never for one's own. Whoever is bound to no role, or was not asked who they
are, may do all of it. Source: Mesos, authentication of frameworks, where the authenticated principal is the
framework's; its ACLs `register_frameworks`, `reserve_resources`, `create_volumes`, `update_quotas` and
`update_weights`.
"""

from collections.abc import Iterable

import msgspec

from corral.lib.errors import Forbidden, Invalid
from corral.model import calls
from corral.model.calls import Subscribe
from corral.model.framework import FrameworkInfo
from corral.model.operations import Create, Destroy, Grow, Reserve, ResourceOperation, Shrink, Unreserve
from corral.model.operator import (
    Change,
    Operate,
    RemoveQuota,
    RemoveRole,
    SetQuota,
    SetRole,
    Teardown,
    UpdateQuota,
    UpdateWeights,
)
from corral.model.resources import Resources
from corral.model.role import is_within
from corral.net.auth import Caller, CallerKind


def as_caller(call: Subscribe, caller: Caller) -> Subscribe:
    """The call with the caller's name as the framework's principal; as it is where nobody was asked who they are.

    Errors: `Invalid` when the framework names another principal; `Forbidden` for roles that the caller is not bound to.
    """
    if caller.kind is not CallerKind.TOKEN:
        return call
    _check_framework(call.info, caller)
    return msgspec.structs.replace(call, info=msgspec.structs.replace(call.info, principal=caller.name))


def check_call(call: calls.Call, caller: Caller) -> str | None:
    """The principal that any other call of a framework comes from; None where nobody was asked who they are.

    Errors: as `as_caller`; `Forbidden` for what is reserved, or to be reserved, for other roles.
    """
    if caller.kind is not CallerKind.TOKEN:
        return None
    if isinstance(call, calls.UpdateFramework):
        _check_framework(call.info, caller)
    elif isinstance(call, calls.Accept):
        for operation in call.operations:
            match operation:
                case calls.Launch(tasks=tasks) | calls.LaunchGroup(tasks=tasks):
                    for task in tasks:
                        _check_roles(roles_of(task.resources), caller, f"launch {task.task_id}")
                case calls.Unsupported():
                    pass
                case _:
                    check_operation(operation, caller)
    return caller.name


def check_change(command: Change, caller: Caller) -> None:
    """Errors: `Forbidden` names the role that the caller is not bound to."""
    if caller.kind is not CallerKind.TOKEN or not caller.roles:
        return
    match command:
        case Operate(operation=operation):
            check_operation(operation, caller)
        case SetRole(role=role) | RemoveRole(role=role) | RemoveQuota(role=role):
            _check_below([role], caller)
        case UpdateWeights(weights=weights):
            _check_below([role for role, _ in weights], caller)
        case UpdateQuota(quotas=quotas):
            _check_below([quota.role for quota in quotas], caller)
        case SetQuota(quota=quota):
            _check_below([quota.role], caller)
        case Teardown():
            raise Forbidden(f"{_who(caller)} may not end frameworks; take a token without roles")
        case _:
            raise Forbidden(f"{_who(caller)} may not take agents and machines away; take a token without roles")


def check_operation(operation: ResourceOperation, caller: Caller) -> None:
    """Errors: `Forbidden` when it touches what is reserved for a role that the caller is not bound to."""
    match operation:
        case Reserve(resources=resources, source=source):
            _check_roles([*roles_of(resources), *roles_of(source)], caller, "reserve")
        case Unreserve(resources=resources):
            _check_roles(roles_of(resources), caller, "unreserve")
        case Create(volumes=resources) | Destroy(volumes=resources):
            _check_roles(roles_of(resources), caller, "make or destroy a volume")
        case Grow(volume=volume) | Shrink(volume=volume):
            _check_roles(roles_of((volume,)), caller, "resize a volume")


def roles_of(resources: Resources) -> list[str]:
    """The roles that these are reserved for, the last reservation of each, and those that they are allocated to."""
    found = {r.identity.reservations[-1].role for r in resources if r.identity.reservations}
    return sorted(found | {r.identity.allocation_role for r in resources if r.identity.allocation_role})


def _check_framework(framework: FrameworkInfo, caller: Caller) -> None:
    if framework.principal and framework.principal != caller.name:
        raise Invalid(
            f"framework {framework.name!r} names the principal {framework.principal!r}, but its token is of "
            f"{caller.name!r}; leave the principal out, or use a token of that name"
        )
    _check_roles(framework.subscribed_roles, caller, "subscribe")


def _check_roles(roles: Iterable[str], caller: Caller, what: str) -> None:
    for role in roles if caller.roles else ():
        if not any(is_within(role, own) for own in caller.roles):
            raise Forbidden(
                f"{caller.name} may {what} in {', '.join(caller.roles)} and the roles below, not in {role!r}; "
                f"use a token with that role"
            )


def _check_below(roles: Iterable[str], caller: Caller) -> None:
    for role in roles:
        if not any(role != own and is_within(role, own) for own in caller.roles):
            raise Forbidden(
                f"{_who(caller)} and may set what the roles below them claim, not what {role!r} does; "
                f"use a token with a role above it, or one without roles"
            )


def _who(caller: Caller) -> str:
    return f"{caller.name} is bound to {', '.join(caller.roles)}"
