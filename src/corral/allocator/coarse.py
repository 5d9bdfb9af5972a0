"""Plain Mesos offers: each agent's whole free bundle to the first claimant in fair order that has not refused it.

Agents come in an order that changes with the seed; roles by weighted share, frameworks within a role by their own.
Source: Mesos' hierarchical allocator (section 17 of its contract).
"""

from collections.abc import Callable, Collection, Iterator

from corral.allocator.filters import FilterIndex
from corral.allocator.nodes import CPUS, GPUS, MEM
from corral.allocator.share import Shares, sum_scalars
from corral.allocator.strategies import mix
from corral.allocator.view import FrameworkView, Grant, View
from corral.model.resources import Resources, total_milli

LEAST_CPUS_MILLI = 10
LEAST_MEM_MILLI = 32_000


def worth_offering(resources: Resources) -> bool:
    """Mesos' least allocatable bundle: 0.01 cpus or 32 MB."""
    return total_milli(resources, CPUS) >= LEAST_CPUS_MILLI or total_milli(resources, MEM) >= LEAST_MEM_MILLI


def usable(resources: Resources, role: str) -> Resources:
    """What may be offered to a role: unreserved, or reserved for it or for a role above it; nothing revocable."""
    return tuple(
        r
        for r in resources
        if not r.identity.revocable and (not r.identity.reservations or _within(role, r.identity.reservations[-1].role))
    )


def _within(role: str, owner: str) -> bool:
    return role == owner or role.startswith(owner + "/")


def offer_rest(
    view: View, rest: Callable[[int], Resources], kept: Collection[int], filters: FilterIndex, shares: Shares
) -> Iterator[Grant]:
    """Shapes: `rest` gives what is free on a row; nothing is offered of rows in `kept`."""
    claimants: dict[str, list[FrameworkView]] = {}
    for framework in view.frameworks:
        for role in framework.coarse_roles:
            claimants.setdefault(role, []).append(framework)
    if not claimants:
        return
    order = _fair_order(claimants, shares)
    for row in sorted(range(len(view.agents)), key=lambda row: mix(view.seed * len(view.agents) + row)):
        agent = view.agents[row]
        if agent.ineligible or row in kept:
            continue
        free = rest(row)
        if not worth_offering(free):
            continue
        has_gpus = total_milli(agent.total, GPUS) > 0
        for role, framework in order:
            bundle = usable(free, role)
            if (
                (framework.gpus or not has_gpus)
                and worth_offering(bundle)
                and not filters.block(framework.id, role, agent.id, bundle)
            ):
                yield Grant(framework_id=framework.id, role=role, agent_id=agent.id, resources=bundle)
                shares.charge(role, framework.id, sum_scalars((bundle,)))
                order = _fair_order(claimants, shares)
                break


def _fair_order(claimants: dict[str, list[FrameworkView]], shares: Shares) -> list[tuple[str, FrameworkView]]:
    if len(claimants) == 1:
        ((role, frameworks),) = claimants.items()
        if len(frameworks) == 1:
            return [(role, frameworks[0])]
    return [
        (role, framework)
        for role in sorted(claimants, key=lambda role: (*shares.of_role(role), role))
        for framework in sorted(claimants[role], key=lambda each: (*shares.of_framework(role, each.id), each.id))
    ]
