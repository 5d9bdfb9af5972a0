"""Apps on what is reserved for their role through a crash of anybody at many steps: each ends where it may run."""

from functools import lru_cache
from random import Random
from typing import Any

import msgspec
import pytest
from test_fault_services import SETTLE_S, Nth, persist

from corral.frameworks.services import Config, build
from corral.frameworks.services.app_spec import AppSpec, PortDefinition
from corral.frameworks.services.command_spec import AppUpdate, CreateApp, DeleteApp, RestartApp, UpdateApps
from corral.frameworks.services.record_spec import Condition
from corral.lib.errors import NotFound
from corral.model.resources import Identity, Reservation, normal, ports, scalar
from corral.runtime.core import Core
from corral.sdk.scheduler import Session
from corral.sim.cluster import Cluster

ROLE = "public"
EVERY = 2
"""Each so manyth step is crashed at; all of them take twice as long."""
RESERVED = Identity(reservations=(Reservation(role=ROLE, static=True),))
NODE = normal(
    (
        scalar("cpus", 1), scalar("mem", 1024), ports((31000, 31999)), scalar("cpus", 1.5, RESERVED),
        scalar("mem", 1024, RESERVED), msgspec.structs.replace(ports((80, 99)), identity=RESERVED),
    )
)  # fmt: skip


def make_services(random: Random) -> Core:
    framework = build(Config(role=ROLE), random)
    return Session(framework.info, framework.core, random)


def balancer(instances: int) -> AppSpec:
    """One on each node, with a port that is reserved there."""
    return AppSpec(
        id="/lb", cmd="serve", instances=instances, cpus=1.0, mem_mb=64.0, accepted_resource_roles=(ROLE,),
        constraints=(("hostname", "UNIQUE"),), port_definitions=(PortDefinition(port=80),), require_ports=True,
    )  # fmt: skip


def either(instances: int) -> AppSpec:
    return AppSpec(id="/web", cmd="serve", instances=instances, cpus=0.5, mem_mb=64.0)


def change(spec: AppSpec) -> UpdateApps:
    update = AppUpdate(id=spec.id, spec=spec, given=("instances",))
    return UpdateApps(updates=(update,), force=True, single=True)


def found(cluster: Cluster) -> dict[str, Any]:
    """By app how many instances run on what is reserved, and on what is not; and whether more of it is asked for."""
    if not all(process.up for process in cluster.processes):
        return {}
    state = cluster.frameworks["services"].core._core.state  # type: ignore[attr-defined]
    master = cluster.master.core.state  # type: ignore[attr-defined]
    counts: dict[str, list[int]] = {app_id: [0, 0] for app_id in state.apps}
    known = {task_id: entry for agent in master.agents.values() for (_, task_id), entry in agent.tasks.items()}
    for app_id, app in state.apps.items():
        for instance in app.instances.values():
            entry = known.get(f"{instance.id}._app.{instance.incarnation}")
            if entry is not None and instance.condition is Condition.RUNNING and not instance.leaves:
                (reserved,) = {bool(r.identity.reservations) for r in entry.info.resources}
                counts[app_id][0 if reserved else 1] += 1
    framework = master.frameworks.get(state.framework_id)
    return {
        **{app_id: tuple(each) for app_id, each in counts.items()},
        "tasks": len(known) - len(cluster.running()),
        "asks": framework is not None and ROLE not in framework.suppressed,
        "deployments": len(state.deployments),
    }


def settle(cluster: Cluster, *, asks: bool = False, deployments: int = 0, **apps: tuple[int, int]) -> None:
    wanted = {
        **{f"/{name}": each for name, each in apps.items()}, "tasks": 0, "asks": asks, "deployments": deployments
    }  # fmt: skip
    assert cluster.run(SETTLE_S, lambda: found(cluster) == wanted), (found(cluster), wanted)


def live(victim: str | None = None, point: int | None = None) -> Cluster:
    """The life: a balancer that fails once; more of it than there are nodes; all anew; an app on all that is left."""
    cluster = Cluster(5, {"services": make_services}, agents=2, behave=Nth(), node=NODE)
    for process in cluster.processes:
        process.revive = True
    if victim is not None:
        cluster.world.processes[victim].crash_at = point
    cluster.start()
    persist(cluster, CreateApp(spec=balancer(2)))
    cluster.run(3.0)
    settle(cluster, lb=(2, 0))
    persist(cluster, change(balancer(3)))
    settle(cluster, lb=(2, 0), asks=True, deployments=1)
    persist(cluster, change(balancer(1)))
    settle(cluster, lb=(1, 0))
    persist(cluster, RestartApp(id="/lb", force=True))
    settle(cluster, lb=(1, 0))
    persist(cluster, CreateApp(spec=either(8)))
    settle(cluster, lb=(1, 0), web=(4, 4))
    try:
        persist(cluster, DeleteApp(id="/lb"))
    except NotFound:
        assert cluster.frameworks["services"].crashed_at, "it was deleted before the crash"
    settle(cluster, web=(4, 4))
    return cluster


@lru_cache(maxsize=1)
def points() -> dict[str, int]:
    return {process.name: process.points for process in live().processes}


@pytest.mark.parametrize("victim", ["master", "agent1", "services"])
def test_a_crash_leaves_each_where_it_may_run(victim: str) -> None:
    many = points()[victim]
    assert many > 30
    for point in range(1 + len(victim) % EVERY, many + 1, EVERY):
        cluster = live(victim, point)
        assert len(cluster.world.processes[victim].crashed_at) == 1, f"{victim} did not come to step {point}"
