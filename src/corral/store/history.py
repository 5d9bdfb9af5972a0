"""The newest changes of a store held in memory, and those who follow them: what the embedded stores watch with."""

import asyncio
from bisect import bisect_right
from collections import deque
from collections.abc import AsyncIterator, Sequence

from corral.store.base import Change, Compacted, StoreFailed


class History:
    """Remembers about `most` changes; a commit's changes are kept or forgotten together.

    Shapes: `since` is the revision after which everything is remembered.
    """

    __slots__ = ("_changes", "_followers", "_most", "closed", "since")

    def __init__(self, since: int, most: int = 10_000) -> None:
        self.since = since
        self.closed = False
        self._most = most
        self._changes: deque[tuple[int, Sequence[Change]]] = deque()
        self._followers: set[asyncio.Event] = set()

    def add(self, revision: int, changes: Sequence[Change]) -> None:
        self._changes.append((revision, changes))
        while len(self._changes) > self._most:
            self.since = self._changes.popleft()[0]
        for follower in self._followers:
            follower.set()

    def after(self, revision: int) -> list[tuple[int, Sequence[Change]]]:
        """Errors: `Compacted` when some of them are forgotten."""
        if revision < self.since:
            raise Compacted(revision, self.since)
        start = bisect_right(self._changes, revision, key=lambda entry: entry[0])
        return [self._changes[i] for i in range(start, len(self._changes))]

    def close(self) -> None:
        self.closed = True
        for follower in self._followers:
            follower.set()

    async def follow(self, prefix: str, after: int) -> AsyncIterator[Change]:
        """The changes below the prefix, the remembered ones first. Errors: `Compacted`; `StoreFailed` once closed."""
        news = asyncio.Event()
        self._followers.add(news)
        try:
            while True:
                news.clear()
                for revision, changes in self.after(after):
                    after = revision
                    for change in changes:
                        if change.key.startswith(prefix):
                            yield change
                if self.closed:
                    raise StoreFailed("the store was closed while it was being watched")
                await news.wait()
        finally:
            self._followers.discard(news)
