"""What a framework publishes for whoever follows: a bounded ring of events, read by each follower at its own pace.

Nothing is published while nobody follows, and for a while after the last has left the ring is kept, so that one who was
cut off goes on where it was. A follower that takes what it gets too slowly is let go: it holds up nobody and takes no
memory. One that is only outrun by a burst is not slow.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from itertools import islice
from typing import Any

import msgspec

from corral.lib.clock import Clock, system_clock
from corral.lib.errors import Unavailable

MOST_KEPT = 16384
MOST_UNSENT = 1024
MOST_AT_ONCE = 256
PATIENCE_S = 5.0
LINGER_S = 300.0


class Followed(msgspec.Struct, frozen=True, tag="Followed"):
    """An input: from here on somebody follows what the framework publishes, or nobody does any more."""

    by_anybody: bool


class Published(msgspec.Struct, frozen=True, gc=False):
    """Shapes: `seq` counts from 1 without gaps, `data` is one line of JSON."""

    seq: int
    kind: str
    data: bytes


class Feed:
    """The ring and its followers. All methods belong to the thread of the asyncio loop.

    Shapes: `most_kept` events stay for followers that come back, `most_unsent` may wait for one whose last ones took
    longer than `patience_s` to be taken. Units: `linger_s` seconds after the last follower has left, publishing ends.
    """

    def __init__(
        self,
        *,
        clock: Clock = system_clock,
        most_kept: int = MOST_KEPT,
        most_unsent: int = MOST_UNSENT,
        patience_s: float = PATIENCE_S,
        linger_s: float = LINGER_S,
    ) -> None:
        self.seq = 0
        self.most_unsent = most_unsent
        self.patience_s = patience_s
        self._clock = clock
        self._linger_s = linger_s
        self._ring: deque[Published] = deque(maxlen=most_kept)
        self._followers: set[Follower] = set()
        self._tell: Callable[[Any], None] = _nobody
        self._resting: asyncio.TimerHandle | None = None
        self._open = False
        self._closed = False
        self._epoch = ""

    def attach(self, tell: Callable[[Any], None]) -> None:
        """Where `Followed` goes."""
        self._tell = tell

    @property
    def is_followed(self) -> bool:
        return bool(self._followers)

    def publish(self, kind: str, body: Mapping[str, Any]) -> None:
        """Nothing happens while nobody follows."""
        if not self._open:
            return
        self.seq += 1
        self._ring.append(Published(self.seq, kind, msgspec.json.encode(body)))
        for follower in self._followers:
            follower.news.set()

    def follow(self, after: str = "") -> "Follower":
        """Follow from now on, or from after the event whose id is `after` if it is still kept.

        Errors: `Unavailable` when the framework has ended.
        """
        if self._closed:
            raise Unavailable("nothing is published at the moment; follow again when the framework is back", 5.0)
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None
        if not self._open:
            self._open = True
            # Ids of an earlier time must not be taken for those of this one: what lies between was not published.
            self._epoch = f"{round(self._clock() * 1000):x}"
            self._tell(Followed(True))
        found = self._find(after)
        follower = Follower(self, self.seq if found is None else found, lost=after != "" and found is None)
        self._followers.add(follower)
        return follower

    def id_of(self, event: Published) -> str:
        return f"{self._epoch}-{event.seq}"

    @property
    def is_closed(self) -> bool:
        return self._closed

    @property
    def oldest(self) -> int:
        """The number of the oldest event that is kept; the next one's when none is."""
        return self._ring[0].seq if self._ring else self.seq + 1

    def since(self, after: int, most: int = MOST_AT_ONCE) -> list[Published]:
        """The oldest kept events whose number is greater, in order."""
        start = max(after + 1 - self.oldest, 0)
        return list(islice(self._ring, start, start + most))

    def let_go(self, follower: "Follower") -> None:
        """This one follows no longer; once is enough, twice does no harm."""
        if follower not in self._followers:
            return
        self._followers.discard(follower)
        if not self._followers:
            self._resting = asyncio.get_running_loop().call_later(self._linger_s, self._rest)

    def close(self) -> None:
        """The framework ends, and with it all who follow."""
        self._closed = True
        for follower in self._followers:
            follower.news.set()
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None

    def _find(self, event_id: str) -> int | None:
        epoch, _, number = event_id.rpartition("-")
        if epoch != self._epoch or not number.isdecimal() or len(number) > 18:
            return None
        seq = int(number)
        return seq if self.oldest - 1 <= seq <= self.seq else None

    def _rest(self) -> None:
        self._resting = None
        self._open = False
        self._ring.clear()
        self._tell(Followed(False))


class Follower:
    """One who follows. Shapes: `lost` when it wanted to go on after an event that is no longer kept."""

    def __init__(self, feed: Feed, after: int, *, lost: bool) -> None:
        self.news = asyncio.Event()
        self.lost = lost
        self._feed = feed
        self._after = after

    def close(self) -> None:
        self._feed.let_go(self)

    async def batches(self, quiet_s: float) -> AsyncIterator[list[Published]]:
        """Events as they come, many at once when they wait; an empty list after each `quiet_s` seconds without any.

        Ends when the follower is too slow, or has missed what is no longer kept.
        """
        feed, clock = self._feed, asyncio.get_running_loop().time
        while feed.oldest <= self._after + 1:
            self.news.clear()
            found = feed.since(self._after)
            if not found and feed.is_closed:
                return
            if found:
                self._after = found[-1].seq
                given_at = clock()
                yield found
                if clock() - given_at >= feed.patience_s and feed.seq - self._after > feed.most_unsent:
                    return
                continue
            try:
                async with asyncio.timeout(quiet_s):
                    await self.news.wait()
            except TimeoutError:
                yield []


def _nobody(input: Any) -> None:
    """A feed that no framework publishes into."""
