"""Runs further commands inside the containers of tasks, for tools that look into them: nested containers.

Rules: a nested container is the agent's child, not the task's: it ends with its task, and with the agent. One of a
session ends with the session's connection as well. What it writes goes to whoever is attached; a bounded piece of it is
kept for those who attach later.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from signal import SIGKILL

from corral.agent.runtimes import ExecSession
from corral.lib.errors import Conflict, CorralError, NotFound
from corral.model.ids import ContainerId

MOST_KEPT_BYTES = 64 << 10
MOST_ENDED = 256
MOST_UNREAD = 1024

Path = tuple[ContainerId, ...]
Piece = tuple[str, bytes]


class Nested:
    """One further command.

    Shapes: `path` is its id and those around it, the nearest first; `role` that of its task, empty without.
    """

    def __init__(self, path: Path, session: ExecSession, role: str = "") -> None:
        self.path = path
        self.role = role
        self.code: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._session = session
        self._kept: deque[Piece] = deque()
        self._kept_bytes = 0
        self._readers: set[asyncio.Queue[Piece | None]] = set()
        self._killed: int | None = None
        self._work: asyncio.Task[None] | None = None

    @property
    def runs(self) -> bool:
        return not self.code.done()

    async def start(self, window: tuple[int, int] | None) -> None:
        """Errors: `Failed`, `NotFound` or `Conflict` when the command cannot be started."""
        if window is not None:
            await self._session.resize(*window)
        await self._session.__aenter__()
        self._work = asyncio.create_task(self._follow())
        await asyncio.sleep(0)  # ended before its first step, it would never tell its end

    async def _follow(self) -> None:
        code = 128 + SIGKILL
        try:
            async for piece in self._session.output():
                self._keep(piece)
                for reader in self._readers:
                    if reader.qsize() < MOST_UNREAD:
                        reader.put_nowait(piece)
            code = await self._session.exit_code()
        except CorralError:
            pass  # its container has gone, and the command with it
        finally:
            with suppress(CorralError):
                await self._session.__aexit__(None, None, None)
            self.code.set_result(128 + self._killed if self._killed is not None else code)
            for reader in self._readers:
                reader.put_nowait(None)

    def _keep(self, piece: Piece) -> None:
        self._kept.append(piece)
        self._kept_bytes += len(piece[1])
        while self._kept_bytes > MOST_KEPT_BYTES and len(self._kept) > 1:
            self._kept_bytes -= len(self._kept.popleft()[1])

    async def output(self) -> AsyncIterator[Piece]:
        """What it writes, from what is kept on, until it ends."""
        reader: asyncio.Queue[Piece | None] = asyncio.Queue()
        for piece in self._kept:
            reader.put_nowait(piece)
        if not self.runs:
            reader.put_nowait(None)
        self._readers.add(reader)
        try:
            while (piece_or_end := await reader.get()) is not None:
                yield piece_or_end
        finally:
            self._readers.discard(reader)

    async def write(self, data: bytes) -> None:
        await self._session.write(data)

    async def resize(self, rows: int, columns: int) -> None:
        await self._session.resize(rows, columns)

    async def kill(self, signal: int) -> None:
        """Send it a signal; 9 ends it with all that it has started.

        Deviates: one that cannot be reached, with an Engine elsewhere, is ended by any, and that is what is told.
        """
        if not self.runs:
            return
        if signal != SIGKILL:
            with suppress(Conflict):
                await self._session.signal(signal)
                return
        self._end(signal)

    def _end(self, signal: int) -> None:
        if self.runs and self._work is not None:
            self._killed = signal
            self._work.cancel()

    async def close(self) -> None:
        self._end(SIGKILL)
        if self._work is not None:
            with suppress(asyncio.CancelledError):
                await self._work


class NestedContainers:
    """All there are, and the newest of those that have ended."""

    def __init__(self) -> None:
        self._found: dict[Path, Nested] = {}

    def all(self) -> Sequence[Nested]:
        return tuple(self._found.values())

    def get(self, path: Path) -> Nested:
        """Errors: `NotFound`."""
        found = self._found.get(path)
        if found is None:
            raise NotFound(f"Container '{'.'.join(reversed(path))}' cannot be found")
        return found

    async def launch(
        self, path: Path, session: ExecSession, window: tuple[int, int] | None, role: str = ""
    ) -> Nested | None:
        """Start a command; None when there is one of this name already."""
        if path in self._found:
            return None
        nested = self._found[path] = Nested(path, session, role)
        started = False
        try:
            await nested.start(window)
            started = True
        finally:
            if not started:
                del self._found[path]
        self._forget_oldest()
        return nested

    def remove(self, path: Path) -> None:
        """Errors: `NotFound`; `Conflict` while it runs."""
        if self.get(path).runs:
            raise Conflict(f"container {path[0]} still runs; kill it first")
        del self._found[path]

    def forget_in(self, id: ContainerId) -> None:
        """Those that have ended in a container that is no more, whose name another may bear."""
        for path, nested in tuple(self._found.items()):
            if path[-1] == id and not nested.runs:
                del self._found[path]

    def _forget_oldest(self) -> None:
        ended = [path for path, nested in self._found.items() if not nested.runs]
        for path in ended[: max(0, len(ended) - MOST_ENDED)]:
            del self._found[path]

    async def close(self) -> None:
        for nested in self.all():
            await nested.close()
