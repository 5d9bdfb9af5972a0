"""What a run of the simulator came to, as it is shown and compared."""

from collections.abc import Mapping, Sequence

import msgspec

from corral.sim.metrics import Claim, Series, Waits, waits_of


class Counts(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """How often it happened. Shapes: `withdrawn` instances waited until nobody wanted them, `lost` ones ended with
    their agent; `runs` of the allocator, `checks` of everything."""

    ended: int
    withdrawn: int
    evicted: int
    lost: int
    runs: int
    checks: int


class RoleResult(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Shapes: `share` and `fair` are means over the time in which work arrived, None for a role not followed."""

    role: str
    instances: int
    waits: Waits
    never_placed: int
    evicted: int
    share: float | None
    fair: float | None


class Result(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What one run came to. Shapes: means are over the time in which work arrived; `never_placed` waited to the end.

    `unfairness` is the part of the cluster by which roles fell short of their fair shares, in the mean.
    """

    policy: str
    instances: int
    waits: Waits
    counts: Counts
    never_placed: int
    first_at: float
    last_arrival_at: float
    last_at: float
    mean_allocated: Mapping[str, float]
    peak_allocated: Mapping[str, float]
    mean_fragmentation: Mapping[str, float | None]
    unfairness: float
    roles: tuple[RoleResult, ...]
    decision_hash: str
    series: Series


class Tally:
    """What became of the instances of a role."""

    __slots__ = ("claim", "evicted", "instances", "waits")

    def __init__(self) -> None:
        self.claim = Claim()
        self.waits: list[float] = []
        self.instances = 0
        self.evicted = 0


def sum_up(
    policy: str,
    tallies: Mapping[str, Tally],
    never_placed: Mapping[str, int],
    series: Series,
    times: tuple[float, float, float],
    counts: Counts,
    decision_hash: str,
) -> Result:
    """Shapes: `times` are those of the first arrival, the last one and the end."""
    first_at, last_arrival_at, last_at = times
    busy = [i for i, at in enumerate(series.at) if at <= last_arrival_at] or [0]
    short = [
        sum(max(0.0, found.fair[i] - found.share[i]) for found in series.roles.values()) for i in range(len(series.at))
    ]
    return Result(
        policy=policy,
        instances=sum(tally.instances for tally in tallies.values()),
        waits=waits_of([wait for tally in tallies.values() for wait in tally.waits]),
        counts=counts,
        never_placed=sum(never_placed.values()),
        first_at=first_at,
        last_arrival_at=last_arrival_at,
        last_at=last_at,
        mean_allocated={name: mean(found, busy) or 0.0 for name, found in series.allocated.items()},
        peak_allocated={name: max(found, default=0.0) for name, found in series.allocated.items()},
        mean_fragmentation={name: mean(found, busy) for name, found in series.fragmentation.items()},
        unfairness=mean(short, busy) or 0.0,
        roles=tuple(
            RoleResult(
                role=role,
                instances=tally.instances,
                waits=waits_of(tally.waits),
                never_placed=never_placed.get(role, 0),
                evicted=tally.evicted,
                share=mean(series.roles[role].share, busy) if role in series.roles else None,
                fair=mean(series.roles[role].fair, busy) if role in series.roles else None,
            )
            for role, tally in sorted(tallies.items())
        ),
        decision_hash=decision_hash,
        series=series,
    )


def mean(values: Sequence[float | None], at: Sequence[int]) -> float | None:
    """Of the known ones among those at these places. Shapes: None when none is known."""
    found = [value for i in at if (value := values[i]) is not None]
    return round(sum(found) / len(found), 6) if found else None
