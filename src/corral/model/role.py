"""What an operator says of a role: how much of the cluster it may claim, and what it must not exceed.

Roles are a tree: `ads/etl` stands below `ads`, and what it holds counts for `ads` too. Source: Mesos v1,
roles and quota.
"""

from collections.abc import Iterator, Mapping
from math import isfinite

import msgspec

from corral.lib.errors import Invalid
from corral.model.resources import Resource, Resources, scalar

MOST_PRIORITY = 1023
LEAST_WEIGHT, MOST_WEIGHT = 1e-6, 1e6
MOST_AMOUNT = 1e12
MOST_TASKS = 1_000_000_000
MOST_HALF_LIFE_S = 1e9


class RoleSettings(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """The record `roles/ROLE` of the master. Units: seconds; amounts as resources have them.

    Shapes: `guarantee` and `limit` are scalars sorted by name, each name once; a limit may be 0, and a name it leaves
    out is unlimited. `priority` 0..1023, the higher the earlier among siblings. `half_life_s` lets past use count for
    the share, None does not. `strategy` is what wants of the role are placed by when they name none. Guarantee, limit
    and `max_tasks` are of the role with all roles below it.
    """

    weight: float = 1.0
    guarantee: Resources = ()
    limit: Resources = ()
    max_tasks: int | None = None
    priority: int = 0
    half_life_s: float | None = None
    strategy: str = ""


class Quota(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """Shapes: as in `RoleSettings`; both empty is no quota."""

    role: str
    guarantee: Resources = ()
    limit: Resources = ()


def parent_of(role: str) -> str:
    """The role above; empty for one at the top."""
    return role.rpartition("/")[0]


def line_of(role: str) -> Iterator[str]:
    """The role itself and those above it, upwards."""
    while role:
        yield role
        role = parent_of(role)


def is_within(role: str, above: str) -> bool:
    """Whether `role` is `above` or stands below it."""
    return role == above or role.startswith(above + "/")


def tree_order(role: str) -> tuple[str, ...]:
    """Sorts roles so that each follows the one above it."""
    return tuple(role.split("/"))


def read_amounts(found: Mapping[str, float], what: str, *, zeros: bool) -> Resources:
    """Named amounts as scalars, sorted; `what` names them in error messages, `zeros` keeps those of 0.

    Errors: `Invalid` for an amount that is below 0, no finite number or absurdly large, or one without a name.
    """
    amounts: list[Resource] = []
    for name, value in sorted(found.items()):
        if not name:
            raise Invalid(f"{what} has an amount without a resource's name; write for example cpus, mem, disk, gpus")
        if not isfinite(value) or not 0 <= value <= MOST_AMOUNT:
            raise Invalid(f"{what} has {value:g} {name}; it must be a number within 0 and {MOST_AMOUNT:.0e}")
        made = scalar(name, value)
        if made.milli or zeros:
            amounts.append(made)
    return tuple(amounts)


def check_settings(role: str, settings: RoleSettings) -> None:
    """Errors: `Invalid` names the number that is out of its range; amounts have been checked where they were read."""
    if not LEAST_WEIGHT <= settings.weight <= MOST_WEIGHT:
        raise Invalid(
            f"role {role} is to weigh {settings.weight:g}; give a number above 0, "
            f"within {LEAST_WEIGHT:g} and {MOST_WEIGHT:.0e}"
        )
    if not 0 <= settings.priority <= MOST_PRIORITY:
        raise Invalid(f"role {role} is to have the priority {settings.priority}; it must be 0 to {MOST_PRIORITY}")
    if settings.max_tasks is not None and not 0 <= settings.max_tasks <= MOST_TASKS:
        raise Invalid(f"role {role} is to run at most {settings.max_tasks} tasks; it must be 0 to {MOST_TASKS}")
    if settings.half_life_s is not None and not 0 < settings.half_life_s <= MOST_HALF_LIFE_S:
        raise Invalid(
            f"role {role} is to have a half-life of {settings.half_life_s:g} s; "
            f"it must be above 0 and at most {MOST_HALF_LIFE_S:.0e}"
        )
