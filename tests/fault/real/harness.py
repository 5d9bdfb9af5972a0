"""Does faults to a real cluster, one after the other, and tells what came of each."""

import time
import traceback
from collections.abc import Callable, Sequence

import msgspec
from tests.fault.real.cluster import Cluster
from tests.fault.real.faults import FAULTS, Fault
from tests.fault.real.scene import Scene

from corral.lab.lab import Lab
from corral.lib.errors import CorralError


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the table. Shapes: `lost` is empty when nothing was. Units: seconds until all was whole again."""

    key: str
    happened: str
    seconds: float
    lost: tuple[str, ...] = ()


def choose(names: Sequence[str], *, masters: int, members: int, docker: bool) -> list[Fault]:
    """The faults of these names, all without any, that such a cluster can have.

    Errors: `ValueError` names one that is not there.
    """
    unknown = sorted(set(names) - {fault.key for fault in FAULTS})
    if unknown:
        raise ValueError(f"no fault is called {unknown[0]}; there are {', '.join(fault.key for fault in FAULTS)}")
    return [
        fault
        for fault in FAULTS
        if (not names or fault.key in names)
        and fault.masters <= masters
        and fault.members <= members
        and (docker or not fault.docker)
    ]


def run(
    lab: Lab,
    names: Sequence[str] = (),
    *,
    hosts: int = 3,
    masters: int = 3,
    members: int = 3,
    docker: bool = True,
    say: Callable[[str], None] = print,
) -> list[Result]:
    """All results, in the order of the faults; the cluster is gone afterwards."""
    chosen = choose(names, masters=masters, members=members, docker=docker)
    found = []
    begun = time.monotonic()
    with Cluster(lab, hosts, masters=masters, members=members, docker=docker) as cluster:
        scene = Scene(cluster)
        try:
            scene.furnish()
            say(f"{hosts} hosts, {masters} masters, {members} etcd members up in {time.monotonic() - begun:.1f} s")
            for fault in chosen:
                result = do(scene, fault)
                found.append(result)
                say(tell(fault, result))
                if result.lost:
                    say(cluster.tell())
        finally:
            scene.writer.stop()
    return found


def do(scene: Scene, fault: Fault) -> Result:
    """One fault. What goes wrong in watching it counts as a loss."""
    try:
        scene.settle()
        outcome = fault.run(scene)
        lost = scene.lost(ended=outcome.ended, again=outcome.again)
    except (AssertionError, CorralError, OSError, KeyError, ValueError) as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        return Result(
            key=fault.key, happened=f"{error} ({where.name})", seconds=time.monotonic() - scene.hurt_at,
            lost=("it did not become whole again",),
        )  # fmt: skip
    return Result(key=fault.key, happened=outcome.happened, seconds=round(outcome.seconds, 1), lost=tuple(lost))


def tell(fault: Fault, result: Result) -> str:
    lost = "; ".join(result.lost) or "nothing"
    return f"{fault.key:18} {result.seconds:6.1f} s  lost: {lost}\n{'':20}{fault.what}: {result.happened}"
