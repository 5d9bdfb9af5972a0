"""The identifiers of the cluster and the one rule for those that users choose.

Source: Mesos v1, "id" validation: not empty, at most 255 bytes, not `.` or `..`, no slash and no control character.
"""

import re
from typing import NewType

from corral.lib.errors import Invalid

AgentId = NewType("AgentId", str)
FrameworkId = NewType("FrameworkId", str)
OfferId = NewType("OfferId", str)
TaskId = NewType("TaskId", str)
ExecutorId = NewType("ExecutorId", str)
ContainerId = NewType("ContainerId", str)
WantId = NewType("WantId", str)
InverseOfferId = NewType("InverseOfferId", str)
Role = NewType("Role", str)


_UNFIT = re.compile(r"[/\\\x00-\x1f\x7f]")


def check_id(value: str, what: str) -> None:
    """Refuse an identifier that could not name a directory.

    Errors: `Invalid` says which rule the id breaks.
    """
    if not value:
        raise Invalid(f"{what} must not be empty")
    if len(value.encode()) > 255:
        raise Invalid(f"{what} {value[:40]!r}… is longer than 255 bytes; shorten it")
    if value in (".", ".."):
        raise Invalid(f"{what} must not be {value!r}")
    if _UNFIT.search(value):
        raise Invalid(f"{what} {value!r} must hold no slash, backslash or control character")


def check_role(role: str) -> None:
    """Refuse a role name that Mesos would refuse.

    Errors: `Invalid` says which rule the name breaks.
    """
    if not role:
        raise Invalid("role must not be empty")
    if role == "*":
        return
    for part in role.split("/"):
        if not part:
            raise Invalid(f"role {role!r} has an empty level; a slash must stand between two names")
        if part in (".", "..", "*"):
            raise Invalid(f"role {role!r} must not have {part!r} as a level")
        if part.startswith("-"):
            raise Invalid(f"role {role!r} must not have a level that starts with a dash")
        if any(c.isspace() or c == "\b" for c in part):
            raise Invalid(f"role {role!r} must hold no white space")
