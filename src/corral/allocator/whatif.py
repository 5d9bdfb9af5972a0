"""What would happen if: the allocator's answer on a copy of the live state with something altered.

Nothing of the live allocator is touched. A plan tells where new wants would go, whom they would evict, what roles would
hold then, and what would still wait and why.
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from corral.allocator.allocator import Allocator
from corral.allocator.bundles import amounts_of
from corral.allocator.view import View, WantView
from corral.lib.errors import Invalid, NotFound
from corral.model.constraints import describe
from corral.model.ids import AgentId, FrameworkId, WantId
from corral.model.offer import Explanation, Want, find_want_fault
from corral.model.resources import Resource, Resources, normal, scalar
from corral.model.role import RoleSettings, line_of

MOST_ROUNDS = 20
"""Runs that follow one another while room is being made; each takes back or moves out a part."""

MOST_INSTANCES = 100_000
"""Instances that one question may ask for; each costs as much as in a real run."""

MOST_NEW_AGENTS = 1000
MOST_AMOUNT = 1e12

WORDS = "cpus=2, mem=512, NAME=AMOUNT, count=3, priority=5, revocable=yes, gang=4, role-limit=cpus:8, role-limit=none, "
WORDS += "max-tasks=10, max-tasks=none, guarantee=cpus:2, weight=2, agents=3, without='CONSTRAINT'"


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """So many instances of a want on one agent."""

    want_id: WantId
    agent_id: AgentId
    hostname: str
    count: int


class Moved(msgspec.Struct, frozen=True, kw_only=True):
    """A task that would be evicted."""

    framework_id: FrameworkId
    role: str
    key: str
    hostname: str
    why: str


class RoleEffect(msgspec.Struct, frozen=True, kw_only=True):
    """What a role would hold. Shapes: resources as people write them; `limit` None where there is none."""

    role: str
    resource: str
    before: float
    after: float
    guarantee: float
    limit: float | None


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Shapes: `waiting` explains each want that would not be served whole; empty when all would."""

    placements: tuple[Placement, ...] = ()
    evictions: tuple[Moved, ...] = ()
    roles: tuple[RoleEffect, ...] = ()
    waiting: tuple[Explanation, ...] = ()

    @property
    def fits(self) -> bool:
        return not self.waiting


def plan(view: View, framework_id: FrameworkId, wants: Sequence[Want], now: float) -> Plan:
    """What would become of these wants, beside all that stand already.

    Errors: `Invalid` for wants that the allocator cannot decide, or too many instances.
    """
    _check_count(sum(each.count for each in wants))
    added = [WantView(want=each, framework_id=framework_id, missing=each.count, since_at=now) for each in wants]
    taken = {(framework_id, each.id) for each in wants}
    kept = [each for each in view.wants if (each.framework_id, each.want.id) not in taken]
    return _play(msgspec.structs.replace(view, wants=(*kept, *added)), taken, now)


def explain_if(
    view: View, framework_id: FrameworkId, want_id: WantId, changes: Sequence[tuple[str, str]], now: float
) -> Plan:
    """What would become of a standing want with these changes, given as (name, value).

    Errors: `NotFound` without such a want, `Invalid` for a change that is not understood.
    """
    found = next((e for e in view.wants if (e.framework_id, e.want.id) == (framework_id, want_id)), None)
    if found is None:
        raise NotFound(f"framework {framework_id} has no want {want_id} that waits; name one that does")
    for name, value in changes:
        view, found = _change(view, found, name, value)
    whole = {"count", "gang"} & {name for name, _ in changes}
    fault = find_want_fault(msgspec.structs.replace(found.want, count=found.missing) if whole else found.want)
    if fault is not None:
        raise Invalid(f"with these changes the want would be refused: field '{fault[0]}': {fault[1]}")
    _check_count(found.missing)
    others = [e for e in view.wants if (e.framework_id, e.want.id) != (framework_id, want_id)]
    return _play(msgspec.structs.replace(view, wants=(*others, found)), {(framework_id, want_id)}, now)


def _check_count(count: int) -> None:
    if count > MOST_INSTANCES:
        raise Invalid(f"{count} instances are asked for; give at most {MOST_INSTANCES}")


def _play(view: View, asked: set[tuple[FrameworkId, WantId]], now: float) -> Plan:
    """Run a copy until nothing more comes of it; what is taken back or evicted is gone at once, however much it is."""
    settings = view.settings
    if settings.evictions_per_minute:
        settings = msgspec.structs.replace(settings, evictions_per_minute=MOST_INSTANCES)
    allocator = Allocator.of(msgspec.structs.replace(view, frameworks=(), settings=settings))
    before = _held(allocator)
    counts: dict[tuple[WantId, AgentId], int] = {}
    evicted: list[Moved] = []
    for _ in range(MOST_ROUNDS):
        found = allocator.run(now, view.seed)
        for grant in found.grants:
            if grant.want_id is not None and (grant.framework_id, grant.want_id) in asked:
                key = (grant.want_id, grant.agent_id)
                counts[key] = counts.get(key, 0) + 1
        offers = {e.hold.offer_id: key for key, e in allocator.book.holds.items() if e.hold.offer_id is not None}
        for offer_id in found.rescind:
            allocator.release(offers[offer_id])
        for each in found.evictions:
            if (each.for_framework_id, each.want_id) in asked:
                host = allocator.book.agents[each.agent_id].view.hostname
                evicted.append(
                    Moved(framework_id=each.framework_id, role=each.role, key=each.key, hostname=host, why=each.why)
                )
            allocator.release(each.key)
        if not found.rescind and not found.evictions:
            break
    waiting = [key for key in found.waiting if key in asked]
    return Plan(
        placements=tuple(
            Placement(want_id=want, agent_id=agent, hostname=allocator.book.agents[agent].view.hostname, count=count)
            for (want, agent), count in sorted(counts.items())
        ),
        evictions=tuple(evicted),
        roles=tuple(
            _effects(allocator, before, {e.want.role for e in view.wants if (e.framework_id, e.want.id) in asked})
        ),
        waiting=tuple(allocator.explain(*key) for key in waiting),
    )


def _held(allocator: Allocator) -> dict[str, dict[str, int]]:
    allocator.book.flush()
    found = {}
    for name in {line for each in allocator.lines for line in line_of(each.view.want.role)}:
        row = allocator.engine.find_role(name)
        found[name] = allocator.engine.held(row) if row is not None else {}
    return found


def _effects(
    allocator: Allocator, before: Mapping[str, Mapping[str, int]], roles: Iterable[str]
) -> Iterable[RoleEffect]:
    allocator.book.flush()
    for name in sorted({line for role in roles for line in line_of(role)}):
        row = allocator.engine.find_role(name)
        settings = allocator.roles.get(name, RoleSettings())
        promised, most = amounts_of(settings.guarantee), amounts_of(settings.limit)
        after = allocator.engine.held(row) if row is not None else {}
        for resource, held in after.items():
            was = before.get(name, {}).get(resource, 0)
            if held != was or resource in promised or resource in most:
                yield RoleEffect(
                    role=name, resource=resource, before=was / 1000, after=held / 1000,
                    guarantee=promised.get(resource, 0) / 1000,
                    limit=most[resource] / 1000 if resource in most else None,
                )  # fmt: skip


def _change(view: View, found: WantView, name: str, value: str) -> tuple[View, WantView]:
    want = found.want
    match name:
        case "count":
            count = _whole(name, value)
            return view, msgspec.structs.replace(found, missing=count, want=msgspec.structs.replace(want, count=count))
        case "priority":
            sign = -1 if value.startswith("-") else 1
            return view, _with(found, priority=sign * _whole(name, value.removeprefix("-")))
        case "gang":
            return view, _with(found, gang=_whole(name, value))
        case "revocable":
            if value not in ("yes", "no"):
                raise Invalid(f"revocable={value} is neither yes nor no; give one of them")
            return view, _with(found, revocable=value == "yes")
        case "without":
            left = tuple(each for each in want.constraints if describe(each) != value)
            if len(left) == len(want.constraints):
                names = "; ".join(describe(each) for each in want.constraints) or "none"
                raise Invalid(f"want {want.id} has no constraint {value!r}; it has {names}")
            return view, _with(found, constraints=left)
        case "role-limit" | "max-tasks" | "guarantee" | "weight":
            return _change_role(view, want.role, name, value), found
        case "agents":
            return _more_agents(view, _whole(name, value)), found
        case _:
            known = {r.name for agent in view.agents for r in agent.total}
            if name not in known:
                raise Invalid(f"{name}={value} changes nothing that is known; give {WORDS}")
            rest = tuple(r for r in want.resources if r.name != name)
            return view, _with(found, resources=normal((*rest, scalar(name, _number(name, value)))))


def _with(found: WantView, **changes: object) -> WantView:
    return msgspec.structs.replace(found, want=msgspec.structs.replace(found.want, **changes))


def _change_role(view: View, role: str, name: str, value: str) -> View:
    settings = view.roles.get(role, RoleSettings())
    match name:
        case "role-limit":
            settings = msgspec.structs.replace(settings, limit=_amounts(name, value))
        case "guarantee":
            settings = msgspec.structs.replace(settings, guarantee=_amounts(name, value))
        case "max-tasks":
            settings = msgspec.structs.replace(settings, max_tasks=None if value == "none" else _whole(name, value))
        case _:
            weight = _number(name, value)
            if not weight > 0:
                raise Invalid(f"weight={value} is not above 0; give a number above 0")
            settings = msgspec.structs.replace(settings, weight=weight)
    return msgspec.structs.replace(view, roles={**view.roles, role: settings})


def _more_agents(view: View, count: int) -> View:
    """Agents like the one that has most of everything, empty."""
    if count > MOST_NEW_AGENTS:
        raise Invalid(f"agents={count} are too many to try; give at most {MOST_NEW_AGENTS}")
    if not view.agents:
        raise Invalid("there is no agent to add more like; register one first")
    model = max(view.agents, key=lambda each: sorted(amounts_of(each.total).items()))
    added = [
        msgspec.structs.replace(model, id=AgentId(f"new-{i}"), hostname=f"new-{i}", ineligible="")
        for i in range(1, count + 1)
    ]
    return msgspec.structs.replace(view, agents=(*view.agents, *added))


def _amounts(name: str, value: str) -> Resources:
    """`cpus:8,mem:1024`, with `;` and `=` too as everybody writes them elsewhere, or `none`."""
    if value == "none":
        return ()
    found: list[Resource] = []
    for part in value.replace(";", ",").split(","):
        resource, colon, number = part.replace("=", ":").partition(":")
        if not colon or not resource:
            raise Invalid(f"{name}={value} names no amounts; write for example {name}=cpus:8,mem:1024 or {name}=none")
        found.append(Resource(name=resource.strip(), milli=scalar(resource, _number(name, number)).milli))
    return tuple(found)


def _number(name: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        raise Invalid(f"{name}={value} is no number; give {WORDS}") from None
    if not 0 <= number < MOST_AMOUNT:
        raise Invalid(f"{name}={value} is out of range; give a number of at least 0 and below {MOST_AMOUNT:g}")
    return number


def _whole(name: str, value: str) -> int:
    number = _number(name, value)
    if number != int(number):
        raise Invalid(f"{name}={value} is no whole number; give one of at least 0")
    return int(number)
