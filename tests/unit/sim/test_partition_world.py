"""What the simulated world can do to a process and to the network between two."""

from collections.abc import Sequence
from typing import Any

import pytest

from corral.model.operator import SetRole
from corral.runtime.core import Asked, Effect, Loaded, Persist, Reply, SetTimer, Tick, decode_records
from corral.sim.cluster import Cluster
from corral.sim.network import Network, Weather
from corral.sim.world import Process, World


class Counter:
    """Counts its asks on disk, and its ticks in memory."""

    def __init__(self) -> None:
        self.count = 0
        self.ticks = 0

    def handle(self, input: Any, now: float) -> Sequence[Effect]:
        match input:
            case Loaded():
                self.count = decode_records(input, "count", int).get("", 0)
                return [SetTimer("beat", 1.0)]
            case Tick():
                self.ticks += 1
                return [SetTimer("beat", 1.0)]
            case Asked(ask=ask):
                self.count += 1
                return [Persist("count", self.count), Reply(ask, self.count)]
        return []

    def invariants(self) -> None: ...


class Hands:
    def perform(self, effect: Effect) -> None: ...

    def flush(self) -> None: ...


def make() -> tuple[World, Process]:
    world = World(5)
    process = world.add("p", lambda process: (Counter(), Hands()), prefix="p/")
    process.revive = True
    process.start()
    world.run(0.1)
    return world, process


@pytest.mark.parametrize(("trouble", "kept"), [("lost", 0), ("unacknowledged", 1)])
def test_a_commit_of_unknown_outcome_ends_the_process(trouble: str, kept: int) -> None:
    world, process = make()
    process.commits.append(trouble)
    answer = process.ask("count")
    world.run(0.05)
    assert answer.error is not None
    world.run(2.0)
    assert process.incarnation == 2
    assert process.core.count == kept  # type: ignore[attr-defined]


def test_a_slow_commit_is_late_and_holds() -> None:
    world, process = make()
    process.commits.append("slow")
    answer = process.ask("count")
    assert not world.run(0.05, lambda: answer.done)
    assert world.run(5.0, lambda: answer.done)
    assert answer.get() == 1


def test_a_frozen_process_does_nothing_and_goes_on_where_it_was() -> None:
    world, process = make()
    process.freeze(10.0)
    answer = process.ask("count")
    world.run(9.0)
    assert not answer.done
    assert process.core.ticks == 0  # type: ignore[attr-defined]
    world.run(2.0)
    assert answer.get() == 1
    assert process.core.ticks == 1  # type: ignore[attr-defined]


def test_what_is_held_comes_later_and_in_order_and_breaks_nothing() -> None:
    world = World(6)
    network = Network(world, Weather())
    link = network.open("a", "b")
    assert link is not None
    heard: list[int] = []
    broken: list[str] = []
    link.attach("b", heard.append, broken.append)
    link.attach("a", lambda message: None, broken.append)
    network.hold("a", "b")
    for number in range(5):
        link.send("a", number)
    world.run(5.0)
    assert heard == []
    assert network.open("a", "b") is None, "nor does anybody get through anew"
    network.heal("a", "b")
    for number in range(5, 8):
        link.send("a", number)
    world.run(1.0)
    assert heard == list(range(8))
    assert broken == []


def test_of_several_masters_one_leads_and_a_frozen_one_is_followed() -> None:
    cluster = Cluster(4, {}, agents=1, masters=3)
    cluster.start()
    cluster.run(3.0)
    first = cluster.master
    assert [m.up for m in cluster.masters].count(True) == 1
    first.freeze(30.0)
    assert cluster.run(20.0, lambda: cluster.master is not first and cluster.master.up)
    assert first.up, "it does not know yet"
    agent = cluster.agents["agent1"].core
    assert cluster.run(40.0, lambda: agent.state.registered and agent.state.identity.epoch == 2)  # type: ignore[attr-defined]
    assert cluster.run(30.0, lambda: not first.up), "with its next turn it finds that another leads"
    assert set(cluster.world.reigns) <= {1, 2}


def test_a_leader_that_comes_to_write_too_late_is_refused() -> None:
    cluster = Cluster(4, {}, agents=1, masters=2)
    cluster.start()
    cluster.run(3.0)
    first = cluster.master
    answer = first.ask(SetRole(role="ads", weight=2.0))
    first.commits.append("slow")
    assert cluster.run(10.0, lambda: answer.done or not first.up)
    cluster.run(10.0)
    kept = [key for key in first.store._records if "roles/ads" in key]
    assert bool(kept) is (answer.error is None), "it is there if and only if it was acknowledged"
