"""Trouble drawn from the world's seed: crashes, cuts and resets at random times, for as long as one likes.

Every trouble heals by itself: a crashed process starts again, a cut ends, so a cluster that is right comes to rest.
"""

from collections.abc import Callable

import msgspec

from corral.sim.cluster import Cluster


class Trouble(msgspec.Struct, frozen=True, kw_only=True):
    """How much of what. Units: one trouble after `every_s` on average; a cut lasts up to `cut_s`.

    The others are weights: how often a crash of any process, a cut between two, a node that is cut off from all, a
    power reset of a node, the test's own `errand`, a crash at one of the next steps of a turn, a direction between two
    in which nothing arrives and nothing breaks, a process that is stopped for up to `freeze_s`, a commit that is lost,
    not acknowledged or slow, and a leader that its store does not answer come relative to each other.
    """

    every_s: float = 3.0
    cut_s: float = 30.0
    crash: float = 4.0
    cut: float = 2.0
    isolate: float = 1.0
    reset: float = 0.5
    errand: float = 3.0
    step: float = 0.0
    hold: float = 0.0
    freeze: float = 0.0
    commit: float = 0.0
    store: float = 0.0
    freeze_s: float = 4.0


def trouble(cluster: Cluster, for_s: float, errand: Callable[[], None], plan: Trouble | None = None) -> None:
    """Live through trouble for so long, then heal everything and bring everything up.

    Errors: whatever a core or an invariant raised, with the seed and the story.
    """
    plan = Trouble() if plan is None else plan
    world, random = cluster.world, cluster.world.random
    end = world.now + for_s
    kinds = ["crash", "cut", "isolate", "reset", "step", "hold", "freeze", "commit", "store", "errand"]
    weights = [getattr(plan, kind) for kind in kinds]
    for process in cluster.processes:
        process.revive = True
    while world.now < end:
        cluster.run(random.expovariate(1.0 / plan.every_s))
        match random.choices(kinds, weights)[0]:
            case "crash":
                random.choice(cluster.processes).crash("by chance")
            case "cut":
                other = random.choice([p for p in cluster.processes if p is not cluster.master])
                _cut(cluster, other.name, cluster.master.name, random.uniform(0.0, plan.cut_s))
            case "isolate":
                name = random.choice(sorted(cluster.agents))
                cluster.disconnect_all(name)
                world.after(random.uniform(0.0, plan.cut_s), cluster.network.heal)
            case "reset":
                cluster.reset_node(random.choice(sorted(cluster.agents)))
            case "step":
                process = random.choice(cluster.processes)
                process.crash_at = process.points + random.randint(1, 40)
            case "hold":
                other = random.choice([p for p in cluster.processes if p is not cluster.master])
                _hold(cluster, other.name, cluster.master.name, random.uniform(0.0, plan.cut_s))
            case "freeze":
                random.choice(cluster.processes).freeze(random.uniform(0.0, plan.freeze_s))
            case "commit":
                random.choice(cluster.processes).commits.append(random.choice(["lost", "unacknowledged", "slow"]))
            case "store":
                if cluster.reign is not None:
                    cluster.reign.cut_off(cluster.master.name, random.uniform(0.0, plan.cut_s))
            case _:
                errand()
    for process in cluster.processes:
        process.crash_at = None
        process.commits.clear()
        process.thaw()
    cluster.network.heal()
    if cluster.reign is not None:
        cluster.reign.heal()
    cluster.run(2 * world.pace.restart_s)
    for process in cluster.processes:
        process.start()


def _hold(cluster: Cluster, a: str, b: str, for_s: float) -> None:
    source, target = (a, b) if cluster.world.random.random() < 0.5 else (b, a)
    cluster.network.hold(source, target)
    cluster.world.after(for_s, lambda: cluster.network.heal(source, target))


def _cut(cluster: Cluster, a: str, b: str, for_s: float) -> None:
    cluster.network.cut(a, b)
    cluster.world.after(for_s, lambda: cluster.network.heal(a, b))
