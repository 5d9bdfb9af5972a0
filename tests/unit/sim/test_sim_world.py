"""Virtual time, processes that die at chosen points, and the network between them."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from corral.lib.errors import Unavailable
from corral.runtime.core import Asked, Effect, Loaded, Persist, Reply, SetTimer, Stop, Tick
from corral.sim.network import Network, Weather
from corral.sim.world import EPOCH_S, Process, World, run_now


class Row(msgspec.Struct, frozen=True):
    n: int


class Say(Effect, frozen=True):
    n: int


class Count:
    """Counts what it is told, in a record, and says each number after it is durable."""

    def __init__(self) -> None:
        self.n = 0

    def handle(self, input: Any, now: float) -> Sequence[Effect]:
        match input:
            case Loaded(records=records):
                self.n = msgspec.msgpack.decode(records[0].value, type=Row).n if records else 0
                return []
            case Tick():
                return [Stop("done", 0)]
            case Asked(ask=ask):
                self.n += 1
                return [Persist("n", Row(self.n)), Say(self.n), Reply(ask, self.n)]
        return []

    def invariants(self) -> None:
        assert self.n < 100, "counted too far"


class Ears:
    def __init__(self, heard: list[int]) -> None:
        self.heard = heard

    def perform(self, effect: Any) -> None:
        self.heard.append(effect.n)

    def flush(self) -> None: ...


def counting(seed: int = 1) -> tuple[World, Process, list[int]]:
    world, heard = World(seed), []
    process = world.add("c", lambda process: (Count(), Ears(heard)))
    return world, process, heard


def test_events_happen_in_the_order_of_their_times_and_then_of_their_planning() -> None:
    world, seen = World(1), []
    for name, at in (("b", 2.0), ("a", 1.0), ("c", 2.0)):
        world.after(at, lambda name=name: seen.append((name, world.now - EPOCH_S)))
    world.run(10.0)
    assert seen == [("a", 1.0), ("b", 2.0), ("c", 2.0)]
    assert world.now == EPOCH_S + 10.0


def test_a_cancelled_alarm_does_not_happen() -> None:
    world, seen = World(1), []
    world.after(1.0, lambda: seen.append(1)).cancel()
    assert not world.step()
    assert seen == []


def test_a_run_ends_when_its_condition_holds() -> None:
    world = World(1)
    world.after(1.0, lambda: None)
    world.after(5.0, lambda: None)
    assert world.run(10.0, lambda: world.now > EPOCH_S)
    assert world.now == EPOCH_S + 1.0
    assert not world.run(1.0, lambda: False)


def test_a_world_that_never_rests_is_an_error() -> None:
    world = World(7)

    def again() -> None:
        world.after(0.0, again)

    again()
    with pytest.raises(RuntimeError, match="seed 7 did not come to rest"):
        world.run(1.0, most_steps=100)


def test_the_same_seed_lives_the_same_life() -> None:
    def life(seed: int) -> list[str]:
        world, process, _ = counting(seed)
        process.start()
        for _ in range(20):
            process.ask("x")
            world.run(world.random.random())
            world.tell("test", f"{world.now} {world.steps}")
        return list(world.story)

    assert life(3) == life(3)
    assert life(3) != life(4)


@pytest.mark.parametrize(
    ("point", "heard", "stored", "answered"),
    [(1, [], 0, False), (2, [], 1, False), (3, [1], 1, False), (4, [1], 1, True), (5, [1], 1, True)],
)
def test_a_process_dies_before_its_commit_after_it_or_after_any_effect(
    point: int, heard: list[int], stored: int, answered: bool
) -> None:
    world, process, said = counting()
    process.start()
    world.run(1.0)
    process.crash_at = process.points + point
    answer = process.ask("x")
    world.run(1.0)
    assert process.up == (point == 5)
    assert said == heard
    found = run_now(process.store.get("n"))
    assert (msgspec.msgpack.decode(found.value, type=Row).n if found else 0) == stored
    assert answer.done
    if answered:
        assert answer.get() == 1
    else:
        with pytest.raises(Unavailable):
            answer.get()


def test_a_process_that_starts_again_remembers_its_records_and_nothing_else() -> None:
    world, process, _ = counting()
    process.start()
    process.ask("x")
    world.run(1.0)
    process.tell_after(5.0, Tick("old"))
    process.crash()
    process.start()
    world.run(10.0)
    assert process.up
    assert process.incarnation == 2
    answer = process.ask("x")
    world.run(1.0)
    assert answer.get() == 2


def test_a_process_that_revives_is_up_again_after_a_while() -> None:
    world, process, _ = counting()
    process.revive = True
    process.start()
    process.crash("here")
    assert not process.up
    world.run(2.0)
    assert process.up
    assert process.crashed_at == ["here"]


def test_what_is_said_to_an_earlier_incarnation_reaches_nobody() -> None:
    world, process, _ = counting()
    process.start()
    tell = process.teller()
    process.crash()
    process.start()
    world.run(1.0)
    tell(Tick("late"))
    world.run(1.0)
    assert process.up


def test_a_broken_invariant_names_the_seed_and_tells_the_story() -> None:
    world, process, _ = counting(9)
    process.start()
    world.run(1.0)
    process.core.n = 200  # type: ignore[attr-defined]
    process.ask("x")
    with pytest.raises(AssertionError, match="counted too far") as caught:
        world.run(1.0)
    assert "seed 9" in caught.value.__notes__[0]
    assert "starts (1)" in caught.value.__notes__[0]


def test_a_shell_that_wants_to_wait_is_refused() -> None:
    class Slow(Ears):
        def perform(self, effect: Any) -> Any:
            return Unavailable("not an awaitable, but not None either")

    world = World(1)
    process = world.add("c", lambda process: (Count(), Slow([])))
    process.start()
    process.ask("x")
    with pytest.raises(TypeError, match="has to plan Say"):
        world.run(1.0)


def test_a_coroutine_that_waits_has_no_place_in_virtual_time() -> None:
    class Forever:
        def __await__(self) -> Any:
            yield

    async def wait() -> None:
        await Forever()

    with pytest.raises(RuntimeError, match="no event loop"):
        run_now(wait())


def test_timers_of_a_dead_process_are_silent() -> None:
    class Timed(Count):
        def handle(self, input: Any, now: float) -> Sequence[Effect]:
            return [SetTimer("t", 1.0)] if isinstance(input, Loaded) else super().handle(input, now)

    world = World(1)
    process = world.add("c", lambda process: (Timed(), Ears([])))
    process.start()
    world.run(0.5)
    process.crash()
    world.run(5.0)
    assert process.exit_code is None


def joined(weather: Weather, seed: int = 1) -> tuple[World, Network]:
    world = World(seed)
    return world, Network(world, weather)


def test_messages_may_be_lost_doubled_and_reordered() -> None:
    world, network = joined(Weather(lose=0.2, double=0.2, reorder=0.2))
    got: list[int] = []
    for n in range(200):
        network.send("a", "b", lambda n=n: got.append(n))
    world.run(10.0)
    assert 0 < len(set(got)) < 200
    assert len(got) > len(set(got))
    assert got != sorted(got)


def test_nothing_passes_a_cut_until_it_heals() -> None:
    world, network = joined(Weather())
    got: list[int] = []
    network.cut("a", "b")
    assert network.open("b", "a") is None
    network.send("a", "b", lambda: got.append(1))
    network.send("a", "c", lambda: got.append(2))
    world.run(1.0)
    network.heal("b", "a")
    network.send("a", "b", lambda: got.append(3))
    world.run(1.0)
    assert got == [2, 3]


@pytest.mark.parametrize("seed", range(20))
def test_a_link_keeps_its_order_and_a_break_loses_only_a_tail(seed: int) -> None:
    world, network = joined(Weather(), seed)
    link = network.open("a", "b")
    assert link is not None
    got: list[int] = []
    broken: list[str] = []
    link.attach("b", got.append, lambda why: broken.append(f"b: {why}"))
    link.attach("a", got.append, lambda why: broken.append(f"a: {why}"))
    for n in range(50):
        link.send("a", n)
        world.run(0.0002)
    network.cut("a", "b")
    link.send("a", 99)
    world.run(10.0)
    assert got == list(range(len(got)))
    assert 0 < len(got) < 50
    assert sorted(broken) == ["a: the network is cut", "b: the network is cut"]


def test_a_link_closed_by_one_side_delivers_what_was_sent_before() -> None:
    world, network = joined(Weather())
    link = network.open("a", "b")
    assert link is not None
    story: list[Any] = []
    link.attach("b", story.append, lambda why: story.append(why))
    link.attach("a", story.append, lambda why: story.append("never"))
    link.send("b", "too late")
    link.send("a", 1)
    link.close("a", "goodbye")
    link.send("a", 2)
    world.run(1.0)
    assert story == [1, "goodbye"]
    assert not link.whole


def test_a_dead_process_hears_nothing_of_its_links_and_its_peer_learns_later() -> None:
    world, network = joined(Weather())
    link = network.open("a", "b")
    assert link is not None
    story: list[str] = []
    link.attach("a", story.append, lambda why: story.append(f"a {why}"))
    link.attach("b", story.append, lambda why: story.append(f"b {why}"))
    network.drop("a")
    world.run(5.0)
    assert story == ["b a is gone"]
