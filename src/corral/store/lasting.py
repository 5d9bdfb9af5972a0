"""A store that can be opened anew behind the same object, after it has failed or was away.

Who holds it keeps holding it; what was opened before is closed. It counts as open only once it has taken a write.
"""

import contextlib
from collections.abc import Awaitable, Callable

from corral.store.base import Store, StoreFailed
from corral.store.wrapped import WrappedStore

PROBE = "election/probe"
"""Written and deleted to find out whether the store takes writes; below what no snapshot holds."""
PROBE_BYTES = 65_536

Open = Callable[[], Awaitable[Store]]


class LastingStore(WrappedStore):
    """Shapes: `inner` is the store of this moment, `open` makes another of the same records; `path` names its file."""

    def __init__(self, inner: Store, open: Open) -> None:
        super().__init__(inner)
        self._open = open
        self.path: str = getattr(inner, "path", "")

    async def reopen(self) -> None:
        """Errors: `StoreFailed` while it cannot be opened or written."""
        with contextlib.suppress(StoreFailed):
            await self.inner.close()
        self.inner = await self._open()
        await self.inner.commit({PROBE: bytes(PROBE_BYTES)})
        await self.inner.commit({PROBE: None})
