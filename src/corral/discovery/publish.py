"""Keeps the registry's keys in etcd, under a lease: when nobody renews it, they vanish.

Several may publish at once: each puts right what it finds missing, so that the end of one takes nothing away. While no
master answers, what was known last stays published. Keys of others below the same prefix are not touched.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from corral.discovery.keys import differences, make_keys, portions
from corral.discovery.registry import Registry
from corral.lib.log import get_logger
from corral.store.base import GuardFailed, LeaseId, Store, StoreFailed

log = get_logger("publish")

GATHER_S = 0.1
RETRY_S = 2.0


class Publisher:
    """Shapes: `open_store` connects anew after a failure; `changed` has to be called when the registry is another one.

    Units: keys outlive this program by at most `ttl_s` seconds.
    """

    def __init__(
        self,
        registry: Callable[[], Registry],
        known: asyncio.Event,
        open_store: Callable[[], Awaitable[Store]],
        *,
        services: str = "services",
        about: str = "apps",
        ttl_s: float = 30.0,
    ) -> None:
        self._registry = registry
        self._known = known
        self._open_store = open_store
        self._prefixes = (services, about)
        self._ttl_s = ttl_s
        self._news = asyncio.Event()
        self._written: dict[str, bytes] = {}
        self.ready = asyncio.Event()

    def changed(self, ids: frozenset[str] = frozenset()) -> None:
        self._news.set()

    async def run(self) -> None:
        """Publish until cancelled."""
        await self._known.wait()
        while True:
            store: Store | None = None
            try:
                store = await self._open_store()
                await self._publish(store)
            except (StoreFailed, GuardFailed) as error:
                log.warning("keys not published", why=str(error))
            finally:
                if store is not None:
                    await store.close()
            await asyncio.sleep(RETRY_S)

    async def _publish(self, store: Store) -> None:
        """Errors: `GuardFailed` when the lease has ended; `StoreFailed` when etcd is away."""
        lease = await store.grant(self._ttl_s)
        await self._repair(store, lease, {})
        while True:
            try:
                async with asyncio.timeout(self._ttl_s / 3):
                    await self._news.wait()
            except TimeoutError:
                await store.keep_alive(lease)
                await self._repair(store, lease, await self._found(store))
                continue
            await asyncio.sleep(GATHER_S)
            await self._repair(store, lease, self._written)

    async def _found(self, store: Store) -> dict[str, bytes]:
        """What stands there of what was written."""
        found: dict[str, bytes] = {}
        for prefix in filter(None, self._prefixes):
            found |= {r.key: r.value for r in await store.list(f"{prefix}/") if r.key in self._written}
        return found

    async def _repair(self, store: Store, lease: LeaseId, there: Mapping[str, bytes]) -> None:
        self._news.clear()
        wanted = make_keys(self._registry(), *self._prefixes)
        stale = {key: value for key, value in self._written.items() if key not in wanted}
        changes = differences({**there, **stale}, wanted)
        for part in portions(changes, store.most_writes, store.most_bytes):
            await store.commit(part, lease=lease)
        if changes:
            log.info("keys published", written=sum(v is not None for v in changes.values()), keys=len(wanted))
        self._written = wanted
        self.ready.set()
