"""The network between simulated processes: late, cut, and for single messages also lost, doubled or out of order.

A `Link` is what a TCP connection is: what arrives, arrives once and in order, until it breaks; then an unknown tail is
missing, and each side learns of it at a time of its own. What was under way before may still arrive until then, so it
may come after what is said on the next link, and once more than what is said there again.
"""

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from corral.sim.world import World


class Weather(msgspec.Struct, frozen=True, kw_only=True):
    """Units: seconds between `least_s` and `most_s`; the others are probabilities per message.

    `lose`, `double` and `reorder` act on single messages; on a link only the delay does. `notice_s` is at most how long
    one side of a broken link takes to see it.
    """

    least_s: float = 0.0002
    most_s: float = 0.003
    lose: float = 0.0
    double: float = 0.0
    reorder: float = 0.0
    notice_s: float = 2.0


class Network:
    def __init__(self, world: World, weather: Weather | None = None) -> None:
        self.world = world
        self.weather = Weather() if weather is None else weather
        self._cut: set[frozenset[str]] = set()
        self._held: set[tuple[str, str]] = set()
        self._links: list[Link] = []

    def cut(self, a: str, b: str) -> None:
        """Nothing passes between the two any more; their links break."""
        self.world.tell("network", f"cuts {a} from {b}")
        self._cut.add(frozenset((a, b)))
        for link in list(self._links):
            if {link.a, link.b} == {a, b}:
                link.break_("the network is cut")

    def hold(self, source: str, target: str) -> None:
        """What the one says to the other stays on its way until the network heals, then comes in order."""
        self.world.tell("network", f"holds what {source} says to {target}")
        self._held.add((source, target))

    def heal(self, a: str | None = None, b: str | None = None) -> None:
        """Let everything pass again between the two, or everywhere."""
        self.world.tell("network", f"heals {a or 'all'} {b or ''}".rstrip())
        if a is None or b is None:
            self._cut.clear()
            self._held.clear()
        else:
            self._cut.discard(frozenset((a, b)))
            self._held -= {(a, b), (b, a)}
        for link in list(self._links):
            link.resume()

    def connects(self, a: str, b: str) -> bool:
        return frozenset((a, b)) not in self._cut and not {(a, b), (b, a)} & self._held

    def holds(self, source: str, target: str) -> bool:
        return (source, target) in self._held

    def send(self, source: str, target: str, deliver: Callable[[], None]) -> None:
        """One message by itself: it may come late, never, twice or after a later one."""
        weather, random = self.weather, self.world.random
        copies = 1 + (random.random() < weather.double)
        for _ in range(copies):
            if random.random() < weather.lose:
                continue
            delay_s = self._delay_s()
            if random.random() < weather.reorder:
                delay_s += self.world.draw_s(20 * weather.most_s)
            self.world.after(delay_s, lambda: deliver() if self.connects(source, target) else None)

    def open(self, a: str, b: str) -> "Link | None":
        """A link between two that can reach each other, else None."""
        if not self.connects(a, b):
            return None
        link = Link(self, a, b)
        self._links.append(link)
        return link

    def drop(self, name: str) -> None:
        """Break every link of a process, as its end does; it hears nothing of it any more."""
        for link in list(self._links):
            if name in (link.a, link.b):
                link.detach(name)
                link.break_(f"{name} is gone")

    def _delay_s(self) -> float:
        weather = self.weather
        return weather.least_s + self.world.draw_s(weather.most_s - weather.least_s)


class Link:
    """An ordered connection between `a` and `b`. Give each side `on_message` and `on_broken`; both may stay unset."""

    def __init__(self, network: Network, a: str, b: str) -> None:
        self.a, self.b = a, b
        self.whole = True
        self._closed_by: str | None = None
        self._network = network
        self._last_at = {a: 0.0, b: 0.0}
        self._waiting: dict[str, list[Callable[[], None]]] = {a: [], b: []}
        self._under_way: dict[str, deque[Any]] = {a: deque(), b: deque()}
        self._on_message: dict[str, Callable[[Any], None]] = {}
        self._on_broken: dict[str, Callable[[str], None]] = {}

    def attach(self, side: str, on_message: Callable[[Any], None], on_broken: Callable[[str], None]) -> None:
        """What this side does with messages, and when it learns of the break."""
        self._on_message[side] = on_message
        self._on_broken[side] = on_broken

    def detach(self, side: str) -> None:
        """Tell this side nothing any more."""
        self._on_message.pop(side, None)
        self._on_broken.pop(side, None)

    def send(self, side: str, message: Any) -> None:
        """From `side` to the other; lost when the link breaks first."""
        if not self.whole or side == self._closed_by:
            return
        other = self.b if side == self.a else self.a
        world = self._network.world
        at = max(self._last_at[other], world.now + self._network._delay_s())
        self._last_at[other] = at
        self._under_way[other].append(message)
        world.after(at - world.now, lambda: self._arrive(other, lambda: self._deliver(other)))

    def break_(self, why: str) -> None:
        """Break now: each side learns of it some time later, and hears by then some of what was under way to it."""
        if not self.whole:
            return
        self.whole = False
        self._network._links.remove(self)
        world = self._network.world
        for side in (self.a, self.b):
            notice_s = world.draw_s(self._network.weather.notice_s)
            self._straggle(side, notice_s)
            world.after(notice_s, partial(self._learn, side, why))

    def _straggle(self, side: str, within_s: float) -> None:
        """Let the first few of what was under way arrive late; the network held or lost the rest."""
        under_way, world = self._under_way[side], self._network.world
        other = self.b if side == self.a else self.a
        late = [] if self._network.holds(other, side) else list(under_way)[: world.random.randint(0, len(under_way))]
        under_way.clear()
        for message, delay_s in zip(late, sorted(world.draw_s(within_s) for _ in late), strict=True):
            world.after(delay_s, partial(self._hear, side, message))

    def close(self, side: str, why: str) -> None:
        """End it from one side, in order: the other gets what was sent before, then learns of the end."""
        if not self.whole or self._closed_by is not None:
            return
        self._closed_by = side
        other = self.b if side == self.a else self.a
        self.detach(side)
        world = self._network.world
        at = max(self._last_at[other], world.now + self._network._delay_s())

        def end() -> None:
            if self.whole:
                self.whole = False
                self._network._links.remove(self)
                self._learn(other, why)

        world.after(at - world.now, lambda: self._arrive(other, end))

    def resume(self) -> None:
        """Let what was held come on, in order, unless its direction is held still."""
        world = self._network.world
        for side, waiting in self._waiting.items():
            other = self.b if side == self.a else self.a
            if waiting and not self._network.holds(other, side):
                arrived = tuple(waiting)
                waiting.clear()
                # Whatever is said from now on comes after it.
                at = max(self._last_at[side], world.now + self._network._delay_s())
                self._last_at[side] = at
                for each in arrived:
                    world.after(at - world.now, partial(self._arrive, side, each))

    def _arrive(self, side: str, arrival: Callable[[], None]) -> None:
        other = self.b if side == self.a else self.a
        if self._waiting[side] or self._network.holds(other, side):
            self._waiting[side].append(arrival)
        else:
            arrival()

    def _deliver(self, side: str) -> None:
        if self.whole:
            self._hear(side, self._under_way[side].popleft())

    def _hear(self, side: str, message: Any) -> None:
        if side in self._on_message:
            self._on_message[side](message)

    def _learn(self, side: str, why: str) -> None:
        on_broken = self._on_broken.get(side)
        self.detach(side)
        if on_broken is not None:
            on_broken(why)
