"""What frameworks and roles hold in all, of whatever agents: tasks, executors and offers.

Shapes: scalars by name, what is revocable by itself counted apart. What is lent counts as what it is taken from: only
then do sums compare with what there is.
"""

from collections.abc import Iterator

from corral.master import claims
from corral.master.state import MasterState
from corral.model.ids import FrameworkId
from corral.model.ledger import Tally
from corral.model.resources import PLAIN, Resource, Resources

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
