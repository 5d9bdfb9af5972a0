"""What of a bundle of resources may be offered to whom: for good, or lent because it is kept for others."""

from collections.abc import Iterable, Mapping

from corral.allocator.view import AgentView, FrameworkView
from corral.model.resources import PLAIN, Resource, ResourceKind, Resources, total_milli

CPUS, MEM, GPUS, DISK, PORTS = "cpus", "mem", "gpus", "disk", "ports"
PORT_UNIT = 1000
LEAST_CPUS_MILLI = 10
LEAST_MEM_MILLI = 32_000


def plain(resources: Resources) -> Resources:
    """What anybody may be given for good: not reserved, not revocable, no volume."""
    return tuple(r for r in resources if r.identity is PLAIN or r.identity == PLAIN)


def amounts_of(resources: Resources) -> dict[str, int]:
    """Plain scalars in thousandths, and `ports` as a count in thousandths."""
    found: dict[str, int] = {}
    for r in resources:
        if not (r.identity is PLAIN or r.identity == PLAIN):
            continue
        if r.kind is ResourceKind.SCALAR:
            found[r.name] = found.get(r.name, 0) + r.milli
        elif r.name == PORTS:
            count = 0
            for low, high in r.ranges:
                count += high - low + 1
            found[PORTS] = found.get(PORTS, 0) + PORT_UNIT * count
    return found


def worth_offering(resources: Resources) -> bool:
    """Mesos' least allocatable bundle: 0.01 cpus or 32 MB."""
    cpus = mem = 0
    for r in resources:
        if r.milli < 0:
            continue  # more is given out than is there, of this kind alone
        if r.name == CPUS:
            cpus += r.milli
        elif r.name == MEM:
            mem += r.milli
    return cpus >= LEAST_CPUS_MILLI or mem >= LEAST_MEM_MILLI


def has_picky(frameworks: Iterable[FrameworkView]) -> bool:
    """Whether somebody says itself what is worth an offer."""
    return any(each.least for each in frameworks)


def suits(framework: FrameworkView, role: str, resources: Resources) -> bool:
    """Whether a bundle is worth an offer to a framework: as it says itself, or else as the master does."""
    least = framework.least.get(role)
    if least is None:
        return worth_offering(resources)
    there: dict[str, int] = {}
    for r in resources:
        if r.milli > 0:
            there[r.name] = there.get(r.name, 0) + r.milli
    if not least:
        return bool(there)
    return any(all(there.get(name, 0) >= n for name, n in each.items()) for each in least)


class Rest:
    """What is free on an agent, and what offers ask of it.

    Shapes: `amounts` of what is plain, in thousandths; `is_for_all` when every role could be offered the whole of it,
    and nothing of it is lent.
    """

    __slots__ = ("amounts", "free", "is_for_all", "is_worth_offering")

    def __init__(self, free: Resources, amounts: Mapping[str, int]) -> None:
        self.free = free
        self.amounts = amounts
        self.is_worth_offering = worth_offering(free)
        self.is_for_all = all(r.identity is PLAIN and r.milli >= 0 for r in free)


def usable(resources: Resources, role: str, *, refined: bool = False, shared: bool = False) -> Resources:
    """What may be offered to a role: unreserved, or reserved for it or for a role above it; nothing revocable.

    Shapes: `refined` and `shared` let in refined reservations and shared volumes.
    """
    for r in resources:
        if r.identity is not PLAIN or r.milli < 0:
            break
    else:
        return resources
    return tuple(
        r
        for r in resources
        # An agent that has less than it gave out is short of some scalars.
        if r.milli >= 0
        and not r.identity.revocable
        and (refined or len(r.identity.reservations) <= 1)
        and (shared or not r.identity.shared)
        and (not r.identity.reservations or _within(role, r.identity.reservations[-1].role))
    )


def lendable(resources: Resources, role: str) -> Resources:
    """What may be lent to a role of what is reserved for others, and of what tasks hold and do not use.

    Shapes: cpus, memory and the like, nothing that keeps data.
    """
    return tuple(
        r
        for r in resources
        if r.milli > 0
        and r.kind is ResourceKind.SCALAR
        and r.name not in (DISK, GPUS)
        and r.identity.disk is None
        and (r.identity.revocable or (r.identity.reservations and not _within(role, r.identity.reservations[-1].role)))
    )


def sparable(resources: Resources) -> Resources:
    """What may be lent of what is kept for guarantees: of plain resources what keeps no data."""
    return tuple(
        r
        for r in resources
        if r.milli > 0 and r.kind is ResourceKind.SCALAR and r.name not in (DISK, GPUS) and r.identity == PLAIN
    )


def _within(role: str, owner: str) -> bool:
    return role == owner or role.startswith(owner + "/")


def has_lendable(resources: Resources) -> bool:
    """Whether some of it is not for everybody: reserved, or revocable."""
    for r in resources:  # noqa: SIM110 - asked of every agent, this takes a third of the time
        if r.identity is not PLAIN and (r.identity.reservations or r.identity.revocable):
            return True
    return False


def chop(bundle: Resources, most: dict[str, int]) -> Resources:
    """A bundle with no more of each plain scalar than this; what is not positive is left out."""
    found = []
    for r in bundle:
        if r.name in most and r.kind is ResourceKind.SCALAR and r.identity == PLAIN:
            n = min(r.milli, most[r.name])
            if n > 0:
                found.append(Resource(name=r.name, milli=n))
        else:
            found.append(r)
    return tuple(found)


def may_see(framework: FrameworkView, role: str, view: AgentView) -> bool:
    """Whether coarse offers of an agent are for a framework: it can use GPUs, knows regions, does not exclude it."""
    if (view.remote and not framework.regions) or (not framework.gpus and total_milli(view.total, GPUS) > 0):
        return False
    return (framework.id, role) not in view.barred
