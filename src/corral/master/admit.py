"""Whether a caller may subscribe a framework, and as whom.

Source: Mesos, authentication of frameworks: the principal that was authenticated is the framework's; if it names one,
that has to be the same.
"""

import msgspec

from corral.lib.errors import Forbidden, Invalid
from corral.model.calls import Subscribe
from corral.model.role import is_within
from corral.net.auth import Caller, CallerKind


def as_caller(call: Subscribe, caller: Caller) -> Subscribe:
    """The call with the caller's name as the framework's principal; as it is where nobody was asked who they are.

    Errors: `Invalid` when the framework names another principal; `Forbidden` for roles that the caller is not bound to.
    """
    if caller.kind is not CallerKind.TOKEN:
        return call
    framework = call.info
    if framework.principal and framework.principal != caller.name:
        raise Invalid(
            f"framework {framework.name!r} names the principal {framework.principal!r}, but its token is of "
            f"{caller.name!r}; leave the principal out, or use a token of that name"
        )
    for role in framework.subscribed_roles if caller.roles else ():
        if not any(is_within(role, own) for own in caller.roles):
            raise Forbidden(
                f"{caller.name} may subscribe in {', '.join(caller.roles)} and the roles below, not in {role!r}; "
                f"use a token with that role"
            )
    return msgspec.structs.replace(call, info=msgspec.structs.replace(framework, principal=caller.name))
