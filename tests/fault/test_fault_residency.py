"""Apps with persistent volumes through a crash of anybody at many steps: data are neither lost nor left behind."""

from functools import lru_cache

import pytest
from test_fault_services import SETTLE_S, Nth, make_services, persist

from corral.frameworks.services.app_spec import AppSpec, Container, PersistentVolume
from corral.frameworks.services.command_spec import AppUpdate, CreateApp, DeleteApp, RestartApp, UpdateApps
from corral.frameworks.services.record_spec import Condition
from corral.lib.errors import NotFound
from corral.model.operations import is_volume, made
from corral.model.resources import normal, ports, scalar
from corral.sim.cluster import Cluster

NODE = normal((scalar("cpus", 4.0), scalar("mem", 4096.0), scalar("disk", 1000.0), ports((31000, 31999))))
EVERY = 17
"""Each so manyth step is crashed at; all of them take minutes."""


def app(instances: int) -> AppSpec:
    volume = PersistentVolume(container_path="data", size_mb=100)
    return AppSpec(
        id="/web", cmd="serve", instances=instances, cpus=0.5, mem_mb=64.0,
        container=Container(kind="MESOS", persistent_volumes=(volume,)),
    )  # fmt: skip


def scale(instances: int) -> UpdateApps:
    return UpdateApps(
        updates=(AppUpdate(id="/web", spec=app(instances), given=("instances",)),), force=True, single=True
    )


def volumes(cluster: Cluster) -> set[str]:
    """All volumes that agents have."""
    agents = [agent.core.state for agent in cluster.agents.values()]  # type: ignore[attr-defined]
    found = {r.identity.disk.persistence_id for one in agents for r in made(one.resources) if is_volume(r)}
    return {name for name in found if name is not None}


def unsettled(cluster: Cluster, count: int) -> str:
    if not all(process.up for process in cluster.processes):
        return "somebody is down"
    state = cluster.frameworks["services"].core._core.state  # type: ignore[attr-defined]
    if "/web" not in state.apps:
        return "the app is lost"
    running = [i for i in state.apps["/web"].instances.values() if i.condition is Condition.RUNNING and not i.leaves]
    if not len(cluster.running()) == len(running) == count:
        return f"{count} wanted, {len(running)} known, {len(cluster.running())} run"
    missing = {v.persistence_id for i in running for v in i.volumes} - volumes(cluster)
    return f"lost {missing}" if missing else f"deployments {sorted(state.deployments)}" if state.deployments else ""


def settle(cluster: Cluster, count: int) -> None:
    assert cluster.run(SETTLE_S, lambda: not unsettled(cluster, count)), unsettled(cluster, count)


def live(victim: str | None = None, point: int | None = None) -> Cluster:
    """The life: create with two, one of which fails; restart; scale down and up again; delete."""
    cluster = Cluster(11, {"services": make_services}, agents=2, behave=Nth(), node=NODE)
    for process in cluster.processes:
        process.revive = True
    if victim is not None:
        cluster.world.processes[victim].crash_at = point
    cluster.start()
    persist(cluster, CreateApp(spec=app(2)))
    cluster.run(5.0)
    settle(cluster, 2)
    kept = volumes(cluster)
    for command, count in ((RestartApp(id="/web", force=True), 2), (scale(1), 1), (scale(2), 2)):
        persist(cluster, command)
        settle(cluster, count)
        if victim is None:
            assert volumes(cluster) == kept, "nobody has lost anything"
    try:
        persist(cluster, DeleteApp(id="/web"))
    except NotFound:
        assert cluster.frameworks["services"].crashed_at, "it was deleted before the crash"
    assert cluster.run(SETTLE_S, lambda: not volumes(cluster)), f"left behind: {volumes(cluster)}"
    return cluster


@lru_cache(maxsize=1)
def points() -> dict[str, int]:
    return {process.name: process.points for process in live().processes}


@pytest.mark.parametrize("victim", ["master", "agent1", "agent2", "services"])
def test_a_crash_loses_no_volume_and_leaves_none_behind(victim: str) -> None:
    many = points()[victim]
    assert many > 30
    for point in range(1 + len(victim) % EVERY, many + 1, EVERY):
        cluster = live(victim, point)
        assert len(cluster.world.processes[victim].crashed_at) == 1, f"{victim} did not come to step {point}"
