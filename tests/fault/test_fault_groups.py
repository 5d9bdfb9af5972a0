"""A tree of apps through a crash of the framework at every step: all of it comes, changes and goes, once."""

from random import Random
from typing import Any

from corral.frameworks.services import Config, build
from corral.frameworks.services.app_spec import AppSpec
from corral.frameworks.services.command_spec import CreateGroup, DeleteGroup, GroupUpdate, UpdateGroup
from corral.lib.errors import Conflict, NotFound
from corral.runtime.core import Core
from corral.sdk.feed import Followed
from corral.sdk.scheduler import Session
from corral.sim.cluster import Cluster


def make_services(random: Random) -> Core:
    framework = build(Config(), random)
    return Session(framework.info, framework.core, random)


def app(app_id: str) -> AppSpec:
    return AppSpec(id=app_id, cmd="serve", cpus=0.5, mem_mb=64.0)


SHOP = GroupUpdate(
    id="/shop",
    groups=(
        GroupUpdate(id="/shop/db", apps=(app("/shop/db/mongo"),)),
        GroupUpdate(id="/shop/web", apps=(app("/shop/web/a"), app("/shop/web/b")), dependencies=("/shop/db",)),
    ),
)
SMALLER = GroupUpdate(id="/shop/web", apps=(app("/shop/web/b"), app("/shop/web/c")))


def ask(cluster: Cluster, command: Any) -> None:
    """Ask until it is answered; after a crash, that it is done already is an answer too."""
    try:
        cluster.ask("services", command)
    except (Conflict, NotFound):
        if not cluster.frameworks["services"].crashed_at:
            raise


def state(cluster: Cluster) -> Any:
    return cluster.frameworks["services"].core._core.state  # type: ignore[attr-defined]


def settle(cluster: Cluster, groups: set[str], apps: set[str]) -> None:
    def at_rest() -> bool:
        if not all(process.up for process in cluster.processes):
            return False
        now = state(cluster)
        return not now.deployments and set(now.apps) == apps and len(cluster.running()) == len(apps)

    assert cluster.run(600.0, at_rest), (list(state(cluster).apps), cluster.running(), state(cluster).deployments)
    assert set(state(cluster).groups) == groups


def live(point: int | None = None) -> Cluster:
    """The life: a tree is made, one branch of it changed, all of it deleted; somebody listens."""
    cluster = Cluster(5, {"services": make_services}, agents=1)
    for process in cluster.processes:
        process.revive = True
    if point is not None:
        cluster.world.processes["services"].crash_at = point
    cluster.start()
    cluster.frameworks["services"].tell(Followed(True))
    ask(cluster, CreateGroup(update=SHOP))
    tree = {"/shop", "/shop/db", "/shop/web"}
    settle(cluster, tree, {"/shop/db/mongo", "/shop/web/a", "/shop/web/b"})
    assert state(cluster).groups["/shop/web"].dependencies == ("/shop/db",)
    kept = [t for t in cluster.running() if t.startswith(("shop_db_mongo", "shop_web_b"))]
    ask(cluster, UpdateGroup(update=SMALLER, force=True))
    settle(cluster, tree, {"/shop/db/mongo", "/shop/web/b", "/shop/web/c"})
    assert set(kept) <= set(cluster.running())
    assert state(cluster).groups["/shop/web"].dependencies == ("/shop/db",)
    ask(cluster, DeleteGroup(id="/shop", force=True))
    settle(cluster, set(), set())
    return cluster


def test_a_crash_at_any_step_leaves_no_half_of_a_group() -> None:
    many = live().world.processes["services"].points
    assert many > 20
    for point in range(1, many + 1):
        cluster = live(point)
        assert len(cluster.world.processes["services"].crashed_at) == 1, f"there was no step {point}"
