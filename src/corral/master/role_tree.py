"""What roles hold and wait for, each with all the roles below it; and what that means for shares.

Nothing here changes anything. Shapes: amounts are thousandths by the resource's name; the empty name stands for the
whole cluster. Source: Mesos v1, hierarchical roles, quota and DRF.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping

from corral.master import claims
from corral.master.agent_entry import AgentState
from corral.master.state import MasterState
from corral.model.resources import ResourceKind, Resources
from corral.model.role import RoleSettings, line_of, parent_of, tree_order

Amounts = Counter[str]


def amounts(resources: Resources) -> Amounts:
    """The scalars of a bundle over all identities."""
    found: Amounts = Counter()
    for r in resources:
        if r.kind is ResourceKind.SCALAR:
            found[r.name] += r.milli
    return found


def unreserved(resources: Resources) -> Amounts:
    """The scalars of a bundle that are not reserved for anybody, nor lent of what tasks leave unused."""
    return amounts(tuple(r for r in resources if not r.identity.reservations and not r.identity.revocable))


def known(state: MasterState) -> list[str]:
    """Every role that has settings, members or resources, and the roles above them; each after the one above it."""
    names = {role for role, _ in claims.held(state)} | set(state.reserved)
    names.update(state.roles)
    for framework in state.frameworks.values():
        names.update(framework.info.subscribed_roles)
    return sorted({above for name in names for above in line_of(name)}, key=tree_order)


def held(state: MasterState) -> dict[str, Amounts]:
    """What tasks and offers hold, what is kept for some that are to come, and what is reserved, in use or not."""
    found = _gather((role, Counter(part)) for (role, _), part in claims.held(state).items())
    for role, part in state.reserved.items():
        found.setdefault(role, Counter()).update(part)
    return found


def own(state: MasterState) -> dict[str, Amounts]:
    """As `held`, but of each role without those below it."""
    found: dict[str, Amounts] = {}
    for (role, _), part in claims.held(state).items():
        found.setdefault(role, Counter()).update(part)
    return found


def kept(state: MasterState) -> dict[str, Amounts]:
    """What is kept for gangs that gather, and for wants for which tasks make room."""
    return _gather((role, amounts(part)) for (role, _), part in claims.kept(state).items())


def offered(state: MasterState) -> dict[str, Amounts]:
    """What is out in offers and not reserved."""
    return _gather((entry.offer.role, unreserved(entry.resources)) for entry in state.offers.values())


def _gather(found: Iterable[tuple[str, Amounts]]) -> dict[str, Amounts]:
    whole: dict[str, Amounts] = {}
    for role, part in found:
        for above in line_of(role):
            whole.setdefault(above, Counter()).update(part)
    return whole


def tasks(state: MasterState) -> Counter[str]:
    """How many tasks hold resources."""
    own = Counter(task.role for agent in state.agents.values() for task in agent.tasks.values() if task.holding)
    return _count(own)


def waiting(state: MasterState) -> Counter[str]:
    """How many instances wait in wants."""
    own: Counter[str] = Counter()
    for framework in state.frameworks.values():
        for want in framework.waiting.values():
            own[want.want.role] += want.missing
    return _count(own)


def _count(own: Mapping[str, int]) -> Counter[str]:
    whole: Counter[str] = Counter()
    for role, count in own.items():
        for above in line_of(role):
            whole[above] += count
    return whole


def capacity(state: MasterState) -> Amounts:
    """What the cluster has: an agent that is away for a moment, or not back yet after a restart, counts.

    Deviates: Mesos leaves out agents that a new master still awaits, and refuses guarantees that it took before.
    """
    found: Amounts = Counter()
    for agent in state.agents.values():
        if agent.state is not AgentState.UNREACHABLE:
            found.update(amounts(agent.info.resources))
    return found


def promised(roles: Mapping[str, RoleSettings]) -> dict[str, Amounts]:
    """What must be kept for each role: its own guarantee, or what the roles below it need together if that is more."""
    found: dict[str, Amounts] = {"": Counter()}
    names = {above for role, settings in roles.items() if settings.guarantee for above in line_of(role)}
    for role in sorted(names, key=tree_order, reverse=True):
        needed = found.setdefault(role, Counter())
        if role in roles:
            needed |= amounts(roles[role].guarantee)
        found.setdefault(parent_of(role), Counter()).update(needed)
    return found


def dominant(part: Amounts, whole: Amounts) -> float:
    """The largest fraction of any resource; one that the cluster has none of counts for nothing."""
    return max((part[name] / whole[name] for name in part if whole[name] > 0), default=0.0)


def fair_shares(roles: Collection[str], weights: Mapping[str, float], active: Collection[str]) -> dict[str, float]:
    """The fraction of the cluster that would be each role's if it asked for all that it can get now.

    Shapes: `roles` come each after the one above it. `active` are those which hold or want something themselves;
    only they, and roles with such a one below them, are rivals. A role that has active roles below it and is active
    itself stands among them with weight 1.
    """
    busy = {above for role in active for above in line_of(role)}
    rivals: dict[str, float] = defaultdict(float)
    for role in roles:
        if role in busy:
            rivals[parent_of(role)] += weights.get(role, 1.0)
        if role in active:
            rivals[role] += 1.0
    found: dict[str, float] = {"": 1.0}
    for role in roles:
        weight, above = weights.get(role, 1.0), parent_of(role)
        others = rivals[above] - (weight if role in busy else 0.0)
        found[role] = found[above] * weight / (weight + max(others, 0.0))
    return found
