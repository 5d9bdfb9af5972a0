"""Reads the bodies of corral's own role API.

Shapes: `{"weight": 2, "guarantee": {"cpus": 10}, "limit": {"cpus": 40}, "max_tasks": 100, "priority": 5,
"half_life_s": 3600, "strategy": "binpack"}`, any part of it; null takes away what can be absent.
"""

from typing import Any

import msgspec

from corral.lib.errors import Invalid
from corral.model.operator import SetRole
from corral.model.resources import Resources
from corral.model.role import read_amounts

Amounts = dict[str, float] | msgspec.UnsetType | None


class _Form(msgspec.Struct, forbid_unknown_fields=True):
    weight: float | msgspec.UnsetType = msgspec.UNSET
    guarantee: Amounts = msgspec.UNSET
    limit: Amounts = msgspec.UNSET
    max_tasks: int | msgspec.UnsetType | None = msgspec.UNSET
    priority: int | msgspec.UnsetType = msgspec.UNSET
    half_life_s: float | msgspec.UnsetType | None = msgspec.UNSET
    strategy: str | msgspec.UnsetType = msgspec.UNSET


_decoder = msgspec.json.Decoder(_Form)


def read_set_role(role: str, body: bytes, *, force: bool) -> SetRole:
    """Errors: `Invalid` names the field that is not known or not of its kind."""
    try:
        form = _decoder.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Invalid(
            f"role {role} cannot be set from this body: {error}; "
            f"send a JSON object with any of {', '.join(_Form.__struct_fields__)}"
        ) from None
    given: dict[str, Any] = {name: getattr(form, name) for name in _Form.__struct_fields__}
    given["guarantee"] = _read_amounts(form.guarantee, f"guarantee of role {role}", zeros=False)
    given["limit"] = _read_amounts(form.limit, f"limit of role {role}", zeros=True)
    return SetRole(role=role, force=force, **given)


def _read_amounts(found: Amounts, what: str, *, zeros: bool) -> Resources | msgspec.UnsetType:
    if isinstance(found, msgspec.UnsetType):
        return found
    return read_amounts(found or {}, what, zeros=zeros)
