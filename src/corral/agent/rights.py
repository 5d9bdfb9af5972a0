"""What a caller that is bound to roles may do with what runs on this agent. Pure.

Acting takes the role: to run commands beside a task, to feed, watch, kill or remove those, to signal it. What is read
of tasks, their logs included, is not told apart by role. Source: docs/operate/security.md.
"""

from corral.lib.errors import Forbidden
from corral.model.role import is_within
from corral.net.auth import Caller


def check_role_of(caller: Caller, role: str, what: str) -> None:
    """Shapes: `role` is that of the task, empty where no role stands behind a container.

    Errors: `Forbidden` names the caller, what it wanted and what it would take.
    """
    if not caller.roles or any(is_within(role, own) for own in caller.roles if role):
        return
    bound = f"{caller.name} is bound to {', '.join(caller.roles)}"
    if not role:
        raise Forbidden(
            f"{bound} and may not {what}: it is of no role; launch a task, or ask with a token that is bound to none"
        )
    raise Forbidden(f"{bound} and the roles below and may not {what}, which is of {role!r}; use a token with that role")
