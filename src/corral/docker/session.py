"""Runs a further command inside a container, and sees that it ends with whoever asked for it.

Docker by itself lets such a command run on when its stream is closed. Source: node experiments, web shell.
"""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from corral.docker.engine import Engine, ExecStream, Json
from corral.lib.errors import Conflict, CorralError

BEGIN_S = 5.0
"""How long a command may take from the Engine's yes until its process is known."""


class DockerExec:
    """A further command in a running container. Leaving it ends the command.

    Shapes: `engine_id` is the container's long id where its processes are this machine's, else empty; then the end of
    its input is all that can be sent to the command.
    """

    def __init__(self, engine: Engine, name: str, engine_id: str, argv: Sequence[str], *, tty: bool) -> None:
        self._engine = engine
        self._name = name
        self._engine_id = engine_id
        self._argv = argv
        self._tty = tty
        self._stream: ExecStream | None = None
        self._size: tuple[int, int] | None = None

    async def __aenter__(self) -> "DockerExec":
        """Errors: `NotFound` when there is no such task, `Conflict` when it does not run."""
        self._stream = await self._engine.exec(self._name, self._argv, tty=self._tty)
        if self._size is not None:
            # The Engine takes a size only of what has begun, and by then it may have ended.
            with contextlib.suppress(CorralError):
                await self._stream.resize(*self._size)
        return self

    async def __aexit__(self, *_: object) -> None:
        stream = self._opened()
        try:
            with contextlib.suppress(CorralError):
                told = await self._begun(stream)
                if told.get("Running"):
                    self._end(int(told.get("Pid") or 0))
                    with contextlib.suppress(CorralError):
                        await stream.write(b"")  # where the process is out of reach, the end of its input must do
        finally:
            await stream.close()

    async def _begun(self, stream: ExecStream) -> Json:
        """What the Engine tells once the command runs or has ended: at first it says that it runs and names no pid."""
        until = time.monotonic() + BEGIN_S
        while True:
            told = await stream.inspect()
            known = told.get("Pid") or not self._engine_id if told.get("Running") else told.get("ExitCode") is not None
            if known or time.monotonic() > until:
                return told
            await asyncio.sleep(0.01)

    def _reaches(self, pid: int) -> bool:
        """Whether the command is a process of this machine. Errors: `OSError` when it has ended."""
        return bool(pid and self._engine_id and self._engine_id in Path(f"/proc/{pid}/cgroup").read_text())

    def _end(self, pid: int) -> None:
        try:
            if not self._reaches(pid):
                return
            # It leads a session of its own, and so a group.
            if os.getpgid(pid) == pid:
                os.killpg(pid, signal.SIGHUP)
                os.killpg(pid, signal.SIGKILL)
            else:
                os.kill(pid, signal.SIGKILL)
        except OSError:
            return

    def _opened(self) -> ExecStream:
        if self._stream is None:
            raise Conflict("the exec session has not been entered")
        return self._stream

    async def output(self) -> AsyncIterator[tuple[str, bytes]]:
        stream = self._opened()
        while (piece := await stream.read()) is not None:
            yield piece

    async def write(self, data: bytes) -> None:
        await self._opened().write(data)

    async def resize(self, rows: int, columns: int) -> None:
        self._size = rows, columns
        if self._stream is not None:
            await self._stream.resize(rows, columns)

    async def signal(self, number: int) -> None:
        """Shapes: the Engine ends the command's streams itself when that has ended, whatever it has started."""
        told = await self._begun(self._opened())
        if not told.get("Running"):
            return
        pid = int(told.get("Pid") or 0)
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if not self._reaches(pid):
                raise Conflict(f"the command in container {self._name} is out of reach: its Engine is elsewhere")
            os.kill(pid, number)

    async def exit_code(self) -> int:
        """Wait for the command's end and return its code."""
        delay_s = 0.01
        while (told := await self._opened().inspect()).get("Running") or told.get("ExitCode") is None:
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, 1.0)
        return int(told.get("ExitCode") or 0)
