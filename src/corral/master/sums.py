"""What is held and offered of agents, and by frameworks and roles of whatever agents: tasks, executors and offers.

Shapes of the latter: scalars by name, what is revocable by itself counted apart. What is lent counts as what it is
taken from: only then do sums compare with what there is.
"""

from collections.abc import Iterator

from corral.master import claims
from corral.master.agent_entry import AgentEntry
from corral.master.state import MasterState
from corral.model.ids import FrameworkId
from corral.model.ledger import Tally
from corral.model.resources import PLAIN, Resource, ResourceKind, Resources, add, coalesce, normal

Claimant = tuple[str, FrameworkId]


def by_framework(state: MasterState) -> dict[FrameworkId, Tally]:
    found: dict[FrameworkId, Tally] = {}
    for (_, framework_id), part in _parts(state):
        found.setdefault(framework_id, Tally()).add(part)
    for (_, framework_id), kept in claims.kept(state).items():
        found[framework_id].take(_plain(kept))
    return found


def by_role(state: MasterState) -> dict[str, Tally]:
    """Of each role without those below it."""
    found: dict[str, Tally] = {}
    for (role, _), part in _parts(state):
        found.setdefault(role, Tally()).add(part)
    for (role, _), kept in claims.kept(state).items():
        found[role].take(_plain(kept))
    return found


def _parts(state: MasterState) -> Iterator[tuple[Claimant, Resources]]:
    """The allocator sums up what is plain, what is kept for wants included; the rest is counted where there is any."""
    for claimant, part in claims.held(state).items():
        yield claimant, tuple(Resource(name=name, milli=milli) for name, milli in part.items())
    for agent in state.mixed.values():
        for task in agent.tasks.values():
            if task.holding:
                yield (task.role, task.framework_id), _rest(task.resources)
        for executor in agent.executors.values():
            yield (executor.role, executor.framework_id), _rest(executor.resources)
        for entry in agent.offers.values():
            yield (entry.offer.role, entry.offer.framework_id), _rest(entry.resources)


def _plain(resources: Resources) -> Resources:
    return tuple(r for r in resources if r.identity == PLAIN)


def _rest(resources: Resources) -> Resources:
    return tuple(r for r in resources if r.identity != PLAIN)


# Of one agent.


def used(agent: AgentEntry) -> Resources:
    """What tasks and executors hold of an agent, in the form in which it is held."""
    held = [task.resources for task in agent.tasks.values() if task.holding]
    return _sum([*held, *(executor.resources for executor in agent.executors.values())])


def offered(agent: AgentEntry) -> Resources:
    """What of an agent is out in offers."""
    return _sum([entry.resources for entry in agent.offers.values()])


def _sum(bundles: list[Resources]) -> Resources:
    """The bundles as one. Shapes: plain scalars and ranges, nearly all there are, are summed up by name alone."""
    if len(bundles) <= 1:
        return bundles[0] if bundles else ()
    milli: dict[str, int] = {}
    ranges: dict[str, list[tuple[int, int]]] = {}
    for bundle in bundles:
        for r in bundle:
            if r.identity is not PLAIN or r.items:
                return add(*bundles)
            if r.ranges:
                ranges.setdefault(r.name, []).extend(r.ranges)
            else:
                milli[r.name] = milli.get(r.name, 0) + r.milli
    found = [Resource(name=name, milli=n) for name, n in milli.items() if n]
    found += [Resource(name=name, kind=ResourceKind.RANGES, ranges=coalesce(x)) for name, x in ranges.items()]
    return normal(found)
