"""Short words for what an allocator is told in tests, and what a master does with its answers."""

from collections.abc import Iterable

import msgspec

from corral.allocator.allocator import Allocator
from corral.allocator.view import AgentView, Allocation, FrameworkView, Hold, HoldKind, WantView
from corral.model.flags import parse_resources
from corral.model.ids import AgentId, FrameworkId, OfferId, WantId
from corral.model.offer import Want
from corral.model.resources import Resources, subtract
from corral.model.role import RoleSettings

SMALL = parse_resources("cpus:1;mem:128")
BOX = "cpus:4;mem:4096;ports:[31000-31009]"


def bundle(resources: str | Resources) -> Resources:
    return parse_resources(resources) if isinstance(resources, str) else resources


def agent(name: str, resources: str | Resources = BOX, **fields: object) -> AgentView:
    given = {"total": bundle(resources), "hostname": name, "runtimes": ("docker", "process"), **fields}
    return AgentView(id=AgentId(name), **given)  # type: ignore[arg-type]


def want(
    name: str,
    count: int = 1,
    resources: str | Resources = SMALL,
    *,
    framework: str = "f",
    role: str = "r",
    since_at: float = 0.0,
    **fields: object,
) -> WantView:
    stated = Want(id=WantId(name), role=role, count=count, resources=bundle(resources), **fields)  # type: ignore[arg-type]
    return WantView(want=stated, framework_id=FrameworkId(framework), missing=count, since_at=since_at)


def role(**fields: object) -> RoleSettings:
    """Settings of a role, amounts as text."""
    given = {
        name: bundle(each) if isinstance(each, str) and name != "strategy" else each for name, each in fields.items()
    }
    return RoleSettings(**given)  # type: ignore[arg-type]


def framework(name: str, *roles: str, gpus: bool = False) -> FrameworkView:
    return FrameworkView(id=FrameworkId(name), coarse_roles=roles or ("*",), gpus=gpus)


def task(
    key: str,
    agent_id: str,
    resources: str | Resources = SMALL,
    *,
    framework: str = "f",
    role: str = "r",
    **fields: object,
) -> Hold:
    return Hold(
        key=key,
        framework_id=FrameworkId(framework),
        role=role,
        agent_id=AgentId(agent_id),
        resources=bundle(resources),
        **fields,  # type: ignore[arg-type]
    )


def offer(name: str, agent_id: str, resources: str | Resources, since_at: float = 0.0, **fields: str) -> Hold:
    """A coarse offer that is out."""
    given = {"framework": "hoarder", "role": "*", **fields}
    return task(
        f"offer/{name}", agent_id, resources, kind=HoldKind.OFFER, offer_id=OfferId(name), since_at=since_at, **given
    )


def taken(there: AgentView, free: str | Resources) -> Hold:
    """What somebody else takes of an agent, so that only this is free."""
    used = subtract(there.total, bundle(free))
    return task(f"taken/{there.id}", there.id, used, framework="somebody", role="elsewhere")


def told(*facts: AgentView | WantView | Hold | FrameworkView, **roles: RoleSettings) -> Allocator:
    """An allocator that was told these facts in this order, after the roles."""
    found = Allocator()
    for name, settings in roles.items():
        found.set_role(name.replace("__", "/"), settings)
    for fact in facts:
        match fact:
            case AgentView():
                found.set_agent(fact)
            case WantView():
                found.set_want(fact)
            case Hold():
                found.hold(fact)
            case FrameworkView():
                found.set_framework(fact)
    return found


def places(allocation: Allocation, want_id: str | None = None) -> list[str]:
    return [g.agent_id for g in allocation.grants if want_id is None or g.want_id == want_id]


def granted(allocation: Allocation) -> list[str | None]:
    return [g.want_id for g in allocation.grants]


def launch(allocator: Allocator, allocation: Allocation) -> list[str]:
    """What a master does with grants of wants: each becomes a task under the key `task/NUMBER`; returns the keys."""
    holds = {each.key: each for each in allocator.view().holds}
    keys = []
    for grant in allocation.grants:
        if grant.want_id is None:
            continue
        key = grant.key.replace("grant/", "task/")
        allocator.hold(msgspec.structs.replace(holds[grant.key], key=key, kind=HoldKind.TASK), instead_of=grant.key)
        keys.append(key)
    return keys


def run(allocator: Allocator, now: float = 0.0, seed: int = 0, most: int = 0) -> Allocation:
    """Decide, launch what was granted, and see that nothing is counted twice or lost."""
    found = allocator.run(now, seed, most)
    launch(allocator, found)
    allocator.invariants()
    return found


def end(allocator: Allocator, keys: Iterable[str]) -> None:
    """These tasks have ended."""
    for key in keys:
        allocator.release(key)
