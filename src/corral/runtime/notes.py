"""The story that cores tell: a bounded ring of notes with sequence numbers, which many may follow.

Several loops of one process share one ring, so `corral events` shows one story in order.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec

from corral.lib.log import Logger, flush_log
from corral.runtime.core import Note


class NoteLine(msgspec.Struct, frozen=True):
    """A note as it is shown. Shapes: `seq` counts from 1 without gaps. Units: `at` float seconds UTC."""

    seq: int
    at: float
    component: str
    level: str
    what: str
    why: str
    facts: Mapping[str, Any]


class Notes:
    """Keeps the newest `most` notes and writes all of them to the log."""

    __slots__ = ("_followers", "_lines", "_loggers", "_seq")

    def __init__(self, most: int = 4096) -> None:
        self._lines: deque[NoteLine] = deque(maxlen=most)
        self._loggers: dict[str, Logger] = {}
        self._followers: set[asyncio.Event] = set()
        self._seq = 0

    def add(self, component: str, note: Note, at: float) -> None:
        """Write the note; debug notes go to the log alone, they would push the story out of the ring."""
        logger = self._loggers.get(component)
        if logger is None:
            logger = self._loggers[component] = Logger(component)
        logger.write(note.level, note.what, {**note.facts, "why": note.why} if note.why else note.facts, at)
        if note.level == "debug":
            return
        self._seq += 1
        self._lines.append(NoteLine(self._seq, at, component, note.level, note.what, note.why, note.facts))
        for follower in self._followers:
            follower.set()

    def flush(self) -> None:
        """Let the log have what was written."""
        flush_log()

    def since(self, after: int = 0) -> list[NoteLine]:
        """The kept lines whose number is greater than `after`, oldest first."""
        if after <= 0:
            return list(self._lines)
        found: list[NoteLine] = []
        for line in reversed(self._lines):
            if line.seq <= after:
                break
            found.append(line)
        found.reverse()
        return found

    async def follow(self, after: int = 0) -> AsyncIterator[NoteLine]:
        """The kept lines after `after` and then each new one; a reader too slow for the ring sees a gap in `seq`."""
        news = asyncio.Event()
        self._followers.add(news)
        try:
            while True:
                news.clear()
                for line in self.since(after):
                    after = line.seq
                    yield line
                await news.wait()
        finally:
            self._followers.discard(news)
