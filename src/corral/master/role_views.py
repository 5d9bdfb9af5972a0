"""What the master shows of roles: the native API's tree, and the rows behind Mesos' views."""

from collections import Counter
from typing import Any

from corral.lib.errors import NotFound
from corral.master import role_tree, sums
from corral.master.role_tree import Amounts
from corral.master.spec import GetRoles
from corral.master.state import MasterState
from corral.mesos.snapshot import RoleRow
from corral.model.ids import FrameworkId
from corral.model.resources import Resource, Resources
from corral.model.role import RoleSettings, parent_of

Json = dict[str, Any]


def roles(state: MasterState, asked: GetRoles) -> Json:
    """All roles in the order of their tree, or the one asked for.

    Shapes: what a role holds, runs and waits for includes the roles below it, except for `allocated` and `offered`.
    `share` is the dominant fraction of the cluster, `fair_share` the one it would get now if it asked for all.
    """
    own = _rows(state)
    tasks, waiting, whole = role_tree.tasks(state), role_tree.waiting(state), role_tree.capacity(state)
    active = {role for role, held in role_tree.own(state).items() if any(held.values())} | _claimants(state)
    fair = role_tree.fair_shares([row.name for row in own], state.weights, active)
    found = [
        {
            **write_settings(row.name, row.settings or RoleSettings()),
            "set": row.settings is not None,
            "share": role_tree.dominant(role_tree.amounts(row.consumed), whole),
            "fair_share": fair[row.name],
            "consumed": _write(row.consumed),
            "allocated": _write(row.allocated),
            "offered": _write(row.offered),
            "tasks": tasks[row.name],
            "waiting": waiting[row.name],
            "frameworks": list(row.frameworks),
        }
        for row in own
    ]
    if not asked.role:
        return {"roles": found}
    for one in found:
        if one["name"] == asked.role:
            return one
    raise NotFound(f"nobody uses role {asked.role} and nothing is set of it; corral role ls lists the roles")


def write_settings(role: str, settings: RoleSettings) -> Json:
    return {
        "name": role,
        "parent": parent_of(role) or None,
        "weight": settings.weight,
        "guarantee": _write(settings.guarantee),
        "limit": _write(settings.limit),
        "max_tasks": settings.max_tasks,
        "priority": settings.priority,
        "half_life_s": settings.half_life_s,
        "strategy": settings.strategy,
    }


def rows(state: MasterState) -> tuple[RoleRow, ...]:
    """Every known role, each after the one above it."""
    return tuple(_rows(state))


def _rows(state: MasterState) -> list[RoleRow]:
    members: dict[str, list[FrameworkId]] = {}
    for framework in state.frameworks.values():
        for role in framework.info.subscribed_roles:
            members.setdefault(role, []).append(framework.id)
    offered = {role: tally.bundle() for role, tally in state.offered.items()}
    held, own = role_tree.held(state), sums.by_role(state)
    return [
        RoleRow(
            name=role,
            settings=state.roles.get(role),
            frameworks=tuple(members.get(role, ())),
            allocated=own[role].bundle() if role in own else (),
            offered=offered.get(role, ()),
            consumed=_bundle(held.get(role, Counter())),
            reserved=_bundle(state.reserved.get(role, Counter())),
        )
        for role in role_tree.known(state)
    ]


def _claimants(state: MasterState) -> set[str]:
    return {w.want.role for f in state.frameworks.values() for w in f.waiting.values()}


def _bundle(found: Amounts) -> Resources:
    return tuple(Resource(name=name, milli=milli) for name, milli in sorted(found.items()) if milli)


def _write(resources: Resources) -> dict[str, float]:
    return {name: milli / 1000 for name, milli in sorted(role_tree.amounts(resources).items())}
