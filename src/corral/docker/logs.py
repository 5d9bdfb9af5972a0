"""Copies a container's output from the Engine's log into its sandbox, across every break of the stream.

After each piece the place in the log is written beside the copies. Whoever goes on, this agent or the next, cuts the
copies back to what that place says and reads from there: nothing twice, nothing left out, also after kill -9. What the
Engine has not got of a container that ended while the daemon was away is in its pipes, if those are held (`pipes.py`);
whatever its log's bounds drop while no agent reads is lost. The sandbox is writable from inside, so no link in it is
followed.
"""

import asyncio
import contextlib
import os
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from corral.docker.engine import Engine
from corral.docker.pipes import OutputPipes
from corral.docker.stream import STDERR, STDOUT, LogReader, Position, is_whole, since_of, write_stamp
from corral.lib.backoff import grow_delay_s
from corral.lib.clock import Clock, system_clock
from corral.lib.errors import CorralError, NotFound

POSITION_FILE = ".docker-log"
_POSITION_BYTES = 512
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class LogCopy:
    """The two copies in a sandbox and the record of how far they go.

    Errors: `OSError` such as a full disk; the copies then are as the record says once opened again.
    """

    def __init__(self, sandbox: str) -> None:
        directory = Path(sandbox)
        self._files = [-1, -1, -1]
        try:
            self._files[0] = _open_own(directory / POSITION_FILE)
            self._files[STDOUT] = _open_own(directory / "stdout")
            self._files[STDERR] = _open_own(directory / "stderr")
            self.position = self._recall()
        except OSError:
            self.close()
            raise

    def _recall(self) -> Position:
        try:
            found = msgspec.json.decode(os.pread(self._files[0], _POSITION_BYTES, 0).strip(b"\0 \n"), type=Position)
        except (msgspec.DecodeError, UnicodeDecodeError):
            # No record: what is in the files, such as words of the fetcher, stays before the output.
            sizes = (os.fstat(self._files[STDOUT]).st_size, os.fstat(self._files[STDERR]).st_size)
            found = Position(out_size=sizes[0], err_size=sizes[1])
        return msgspec.structs.replace(
            found,
            out_size=_cut_back(self._files[STDOUT], found.out_size),
            err_size=_cut_back(self._files[STDERR], found.err_size),
        )

    def append(self, reader: LogReader, out: bytes, err: bytes) -> None:
        """Add a piece that the reader has just given."""
        _write_whole(self._files[STDOUT], out, self.position.out_size)
        _write_whole(self._files[STDERR], err, self.position.err_size)
        self.position = Position(
            out=reader.place(STDOUT),
            err=reader.place(STDERR),
            out_size=self.position.out_size + len(out),
            err_size=self.position.err_size + len(err),
        )
        self._write_down()

    def append_rest(self, out: bytes, err: bytes) -> None:
        """Add what is in no log of the Engine; the place in that stays."""
        _write_whole(self._files[STDOUT], out, self.position.out_size)
        _write_whole(self._files[STDERR], err, self.position.err_size)
        self.position = msgspec.structs.replace(
            self.position, out_size=self.position.out_size + len(out), err_size=self.position.err_size + len(err)
        )
        self._write_down()

    def _write_down(self) -> None:
        record = msgspec.json.encode(self.position) + b"\n"
        os.pwrite(self._files[0], record.ljust(_POSITION_BYTES), 0)

    def line_ended(self, kind: int) -> bool:
        size = self.position.out_size if kind == STDOUT else self.position.err_size
        return size > 0 and os.pread(self._files[kind], 1, size - 1) == b"\n"

    def close(self) -> None:
        for index, file in enumerate(self._files):
            if file >= 0:
                os.close(file)
                self._files[index] = -1


def _is_gone(sandbox: str) -> bool:
    return not os.path.isdir(sandbox)


def _open_own(path: Path) -> int:
    """A regular file of this name; anything else that bears it is put away first."""
    for _ in range(3):
        try:
            file = os.open(path, _FLAGS, 0o644)
        except OSError:
            if not path.is_symlink() and not path.exists():
                raise
        else:
            found = os.fstat(file)
            if stat.S_ISREG(found.st_mode) and found.st_nlink == 1:
                return file
            os.close(file)
        if path.is_dir() and not path.is_symlink():
            break
        path.unlink(missing_ok=True)
    raise OSError(f"{path} is not a file that output can be written to")


def _cut_back(file: int, size: int) -> int:
    """Take away what lies beyond `size`; gives the size that the file then has."""
    found = os.fstat(file).st_size
    if 0 <= size < found:
        os.ftruncate(file, size)
        return size
    return found


def _write_whole(file: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(file, view, offset)
        view = view[written:]
        offset += written


class LogFollower:
    """Keeps the copies of one container's output up to date until it has ended and all is copied."""

    def __init__(
        self,
        engine: Engine,
        container: str,
        sandbox: str,
        *,
        say: Callable[[str], None] = lambda words: None,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Clock = system_clock,
        pipes: OutputPipes | None = None,
    ) -> None:
        self._engine = engine
        self._container = container
        self._sandbox = sandbox
        self._say = say
        self._pause = pause
        self._clock = clock
        self._pipes = pipes
        self._rest = b"", b""
        self._ended = asyncio.Event()
        self._task = asyncio.create_task(self._run(), name=f"logs of {container}")

    async def finish(self, timeout_s: float) -> bool:
        """The container has ended: wait until its last output is copied. False when that takes longer."""
        self._ended.set()
        done, _ = await asyncio.wait({self._task}, timeout=timeout_s)
        return bool(done)

    async def close(self) -> None:
        """Stop copying; whoever comes next goes on from the same place."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        if self._pipes is not None:
            self._pipes.close()

    async def _run(self) -> None:
        tries = 0
        while True:
            ended = self._ended.is_set()
            try:
                moved = await self._copy(follow=not ended)
                if ended:
                    self._copy_rest()
            except NotFound:
                return
            except (CorralError, OSError) as error:
                if _is_gone(self._sandbox):
                    self._say(f"output of {self._container} is not copied: sandbox {self._sandbox} is gone")
                    return
                tries += 1
                if tries == 1:
                    self._say(f"output of {self._container} waits: {error}")
            else:
                # Only a pass that began after the end is sure to have seen everything.
                if ended:
                    return
                tries = 0 if moved else tries + 1
            if not self._ended.is_set() or tries > 1:
                await self._wait(grow_delay_s(tries, first_s=0.05, factor=2.0, most_s=5.0))

    async def _wait(self, delay_s: float) -> None:
        """Pause, cut short by the container's end."""
        if self._ended.is_set():
            await self._pause(delay_s)
            return
        ended = asyncio.create_task(self._ended.wait())
        pause = asyncio.ensure_future(self._pause(delay_s))
        try:
            await asyncio.wait({ended, pause}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended.cancel()
            pause.cancel()

    async def _copy(self, *, follow: bool) -> bool:
        """One pass over the stream. Returns whether it brought anything."""
        copy = LogCopy(self._sandbox)
        try:
            if not follow and await self._is_whole(copy):
                return False
            reader, moved = LogReader(copy.position), False
            stream = self._engine.logs(self._container, since=since_of(copy.position), follow=follow)
            async with contextlib.aclosing(stream):
                async for chunk in stream:
                    out, err = reader.feed(chunk, write_stamp(self._clock()))
                    if out or err:
                        copy.append(reader, out, err)
                        moved = True
            return moved
        finally:
            copy.close()

    def _copy_rest(self) -> None:
        """The last words that the Engine never got. After its own, and only once: what is read here is gone."""
        if self._pipes is None:
            return
        out, err = self._pipes.rest()
        self._rest = self._rest[0] + out, self._rest[1] + err
        if any(self._rest):
            copy = LogCopy(self._sandbox)
            try:
                copy.append_rest(*self._rest)
                self._rest = b"", b""
            finally:
                copy.close()

    async def _is_whole(self, copy: LogCopy) -> bool:
        # Looking at the last entry alone spares a second reading of what has been copied.
        last = b""
        async with contextlib.aclosing(self._engine.logs(self._container, tail=1)) as stream:
            async for chunk in stream:
                last += chunk
        return is_whole(copy.position, last, (False, copy.line_ended(STDOUT), copy.line_ended(STDERR)))
