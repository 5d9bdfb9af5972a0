"""Apps in roles of their groups through a crash of anybody at many steps: every one runs in its role at the end."""

from functools import lru_cache
from typing import Any

import pytest
from test_fault_services import SETTLE_S, make_services, persist

from corral.frameworks.services.app_spec import AppSpec
from corral.frameworks.services.command_spec import (
    AppUpdate,
    CreateApp,
    CreateGroup,
    DeleteApp,
    GroupUpdate,
    PatchGroup,
    UpdateApps,
)
from corral.frameworks.services.record_spec import Condition
from corral.lib.errors import NotFound
from corral.sim.cluster import Cluster

EVERY = 2
"""Each so manyth step is crashed at; all of them take twice as long."""


def app(app_id: str, role: str | None = None) -> AppSpec:
    return AppSpec(id=app_id, cmd="serve", instances=2, cpus=0.5, mem_mb=64.0, role=role)


def found(cluster: Cluster) -> dict[str, Any]:
    """By app the roles that its instances run in, and under `framework` those that the master has it in."""
    state = cluster.frameworks["services"].core._core.state  # type: ignore[attr-defined]
    framework = cluster.master.core.state.frameworks.get(state.framework_id)  # type: ignore[attr-defined]
    roles: dict[str, Any] = {
        app_id: sorted(i.role for i in one.instances.values() if i.condition is Condition.RUNNING and not i.leaves)
        for app_id, one in state.apps.items()
    }
    return {
        **roles,
        "framework": framework.info.roles if framework is not None else (),
        "deployments": len(state.deployments),
    }


def settle(cluster: Cluster, roles: tuple[str, ...], **apps: str) -> None:
    wanted = {f"/{name.replace('_', '/')}": [role, role] for name, role in apps.items()}

    def settled() -> bool:
        if not all(process.up for process in cluster.processes):
            return False
        tasks = sum(len(one) for one in wanted.values())
        return len(cluster.running()) == tasks and found(cluster) == {**wanted, "framework": roles, "deployments": 0}

    assert cluster.run(SETTLE_S, settled), found(cluster)


def live(victim: str | None = None, point: int | None = None) -> Cluster:
    """The life: apps of two roles; one group begins to enforce its role; one app moves; the other group goes."""
    cluster = Cluster(7, {"services": make_services}, agents=2)
    for process in cluster.processes:
        process.revive = True
    if victim is not None:
        cluster.world.processes[victim].crash_at = point
    cluster.start()
    persist(cluster, CreateGroup(update=GroupUpdate(id="/ads", enforce_role=True)))
    persist(cluster, CreateApp(spec=app("/ads/a")))
    persist(cluster, CreateApp(spec=app("/dev/a")))
    settle(cluster, ("*", "ads"), ads_a="ads", dev_a="*")
    persist(cluster, PatchGroup(id="/dev", enforce_role=True))
    persist(cluster, CreateApp(spec=app("/dev/b")))
    settle(cluster, ("*", "ads", "dev"), ads_a="ads", dev_a="*", dev_b="dev")
    move = AppUpdate(id="/dev/a", spec=app("/dev/a", "dev"), given=("role",))
    persist(cluster, UpdateApps(updates=(move,), force=True, single=True))
    settle(cluster, ("*", "ads", "dev"), ads_a="ads", dev_a="dev", dev_b="dev")
    try:
        persist(cluster, DeleteApp(id="/ads/a"))
    except NotFound:
        assert cluster.frameworks["services"].crashed_at, "it was deleted before the crash"
    settle(cluster, ("*", "dev"), dev_a="dev", dev_b="dev")
    return cluster


@lru_cache(maxsize=1)
def points() -> dict[str, int]:
    return {process.name: process.points for process in live().processes}


@pytest.mark.parametrize("victim", ["master", "agent1", "services"])
def test_a_crash_loses_no_role(victim: str) -> None:
    many = points()[victim]
    assert many > 30
    for point in range(1 + len(victim) % EVERY, many + 1, EVERY):
        cluster = live(victim, point)
        assert len(cluster.world.processes[victim].crashed_at) == 1, f"{victim} did not come to step {point}"
