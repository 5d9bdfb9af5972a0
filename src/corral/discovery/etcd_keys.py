"""Follows keys of etcd below some prefixes, for templates. What was there last stays known while etcd is away."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from corral.lib.log import get_logger
from corral.store.base import Compacted, Store, StoreFailed

log = get_logger("template")

RETRY_S = 2.0


class KeyFollower:
    """Shapes: `keys` begin with a slash, values are text; `changed` is called when one of them is another one."""

    def __init__(
        self, open_store: Callable[[], Awaitable[Store]], prefixes: Sequence[str], changed: Callable[[], None]
    ) -> None:
        self._open_store = open_store
        self._prefixes = [prefix.lstrip("/") for prefix in prefixes]
        self._changed = changed
        self.keys: dict[str, str] = {}
        self.synced = asyncio.Event()

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            try:
                await self._follow()
            except* (StoreFailed, Compacted) as errors:
                log.warning("keys not followed", why=str(errors.exceptions[0]))
            await asyncio.sleep(RETRY_S)

    async def once(self) -> None:
        """Take in what is there now. Errors: `StoreFailed` when etcd does not answer."""
        store = await self._open_store()
        try:
            await self._read(store)
        finally:
            await store.close()

    async def _follow(self) -> None:
        store = await self._open_store()
        try:
            after = await self._read(store)
            async with asyncio.TaskGroup() as group:
                for prefix in self._prefixes:
                    group.create_task(self._watch(store, prefix, after))
        finally:
            await store.close()

    async def _read(self, store: Store) -> int:
        """Shapes: returns the revision of the newest key, after which changes are to be followed."""
        records = [record for prefix in self._prefixes for record in await store.list(prefix)]
        found = {f"/{r.key}": r.value.decode(errors="replace") for r in records}
        if found != self.keys or not self.synced.is_set():
            self.keys = found
            self.synced.set()
            self._changed()
        return max((r.revision for r in records), default=0)

    async def _watch(self, store: Store, prefix: str, after: int) -> None:
        async for change in store.watch(prefix, after):
            if change.value is None:
                self.keys.pop(f"/{change.key}", None)
            else:
                self.keys[f"/{change.key}"] = change.value.decode(errors="replace")
            self._changed()
