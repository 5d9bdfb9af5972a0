"""What the simulated network and election owe to the real ones."""

from itertools import pairwise

import pytest

from corral.master.spec import GetNodes
from corral.runtime import election
from corral.sim import reign
from corral.sim.cluster import Cluster
from corral.sim.network import Link, Network, Weather
from corral.sim.world import World
from corral.store.base import GuardFailed


def talk(seed: int, *, hold: bool = False) -> tuple[list[object], list[str], Network, Link]:
    """Ten messages on a link that breaks with them under way, three on the next one."""
    world = World(seed)
    network = Network(world, Weather(least_s=0.1, most_s=0.2, notice_s=1.0))
    heard: list[object] = []
    ends: list[str] = []
    first = network.open("a", "b")
    assert first is not None
    first.attach("b", heard.append, ends.append)
    for number in range(10):
        first.send("a", number)
    if hold:
        network.hold("a", "b")
    first.break_("cut")
    if hold:
        network.heal("a", "b")
    second = network.open("a", "b")
    assert second is not None
    second.attach("b", heard.append, ends.append)
    for word in "xyz":
        second.send("a", word)
    world.run(5.0)
    return heard, ends, network, first


def test_what_was_under_way_on_a_broken_link_comes_in_part_in_order_and_at_times_after_the_next_links_words() -> None:
    late = lost = 0
    for seed in range(60):
        heard, ends, _, _ = talk(seed)
        numbers = [each for each in heard if isinstance(each, int)]
        assert numbers == list(range(len(numbers))), "the first ones, each once and in order"
        assert [each for each in heard if isinstance(each, str)] == list("xyz")
        assert ends == ["cut"]
        lost += len(numbers) < 10
        late += any(isinstance(a, str) and isinstance(b, int) for a, b in pairwise(heard))
    assert late > 10
    assert lost > 10


def test_what_the_network_held_is_lost_with_its_link() -> None:
    assert talk(1, hold=True)[0] == list("xyz")


def test_nothing_comes_to_a_side_that_has_learned_of_the_break() -> None:
    for seed in range(20):
        world = World(seed)
        network = Network(world, Weather(least_s=0.1, most_s=0.2, notice_s=1.0))
        told: list[str] = []
        link = network.open("a", "b")
        assert link is not None
        link.attach("b", told.append, told.append)
        for _ in range(5):
            link.send("a", "word")
        link.break_("cut")
        world.run(5.0)
        assert told[-1] == "cut"
        assert told.count("cut") == 1


def make_cluster(seed: int = 4) -> Cluster:
    cluster = Cluster(seed, {}, agents=1, masters=3, lease_ttl_s=2.0)
    cluster.start()
    assert cluster.run(5.0, lambda: cluster.master.up)
    return cluster


def test_a_leader_that_the_store_does_not_answer_stops_in_time_and_another_leads() -> None:
    cluster = make_cluster()
    first = cluster.master
    assert cluster.reign is not None
    cluster.reign.cut_off(first.name, 30.0)
    assert cluster.run(10.0, lambda: cluster.master is not first and cluster.master.up)
    assert not first.up


def test_the_store_refuses_what_an_earlier_leader_comes_to_write() -> None:
    cluster = make_cluster()
    first = cluster.master
    assert cluster.reign is not None
    guards = cluster.reign.guards(first)
    first.store.commit_now({"master/x": b"1"}, guards)
    first.freeze(60.0)
    assert cluster.run(20.0, lambda: cluster.master is not first and cluster.master.up)
    with pytest.raises(GuardFailed):
        first.store.commit_now({"master/x": b"2"}, guards)


def test_leaders_stay_as_long_as_all_is_well() -> None:
    cluster = make_cluster()
    first, life = cluster.master, cluster.master.incarnation
    cluster.run(120.0)
    assert cluster.master is first
    assert first.incarnation == life, "lost answers and a faster clock of the store cost nobody the lease"


def test_a_leader_that_trusted_its_lease_for_longer_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reign, "acts_until", lambda asked_at, ttl_s: election.acts_until(asked_at, 5 * ttl_s))
    cluster = make_cluster()
    cluster.run(2.0)
    cluster.master.ask(GetNodes())
    cluster.master.freeze(8.0)
    with pytest.raises(AssertionError, match="leads"):
        cluster.run(30.0)
