"""Runs a further command beside a process task: in its directory, cgroup, mounts and user, with its environment.

The command is a child of the agent, not of the task, and ends with whichever goes first: the session, the task, the
agent.
"""

import asyncio
import fcntl
import os
import struct
import termios
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress

from corral.lib.errors import Failed, Invalid
from corral.model.execution import Exit
from corral.process import enter, tree

_CHUNK = 1 << 16


class ProcessExec:
    """One exec session, see `ExecSession` in agent/runtimes.py."""

    def __init__(
        self, find: Callable[[], tuple[str, "asyncio.Future[Exit]"]], argv: Sequence[str], *, tty: bool
    ) -> None:
        if not argv:
            raise Invalid("exec needs a command; name one, for example sh")
        self._find = find
        self._argv = list(argv)
        self._tty = tty
        self._terminal: int | None = None
        self._size: tuple[int, int] | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._start = 0
        self._task_ended: asyncio.Future[Exit] | None = None
        self._ending: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "ProcessExec":
        directory, self._task_ended = self._find()
        command = enter.boot("enter:run_beside", directory, "tty" if self._tty else "", *self._argv)
        try:
            if self._tty:
                await self._start_tty(command)
            else:
                pipe = asyncio.subprocess.PIPE
                self._process = await asyncio.create_subprocess_exec(
                    *command, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True
                )
        except OSError as error:
            raise Failed(f"exec of {self._argv[0]!r} cannot be started: {error.strerror}") from None
        leader = tree.read_stat(self._started().pid)
        self._start = leader.start if leader is not None else 0
        self._task_ended.add_done_callback(self._end)
        return self

    async def _start_tty(self, command: list[str]) -> None:
        ours, theirs = os.openpty()
        if self._size is not None:
            _set_size(ours, *self._size)
        try:
            self._process = await asyncio.create_subprocess_exec(
                *command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
            )
        except OSError:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        os.set_blocking(ours, False)
        self._terminal = ours

    async def __aexit__(self, *_: object) -> None:
        if self._task_ended is not None:
            self._task_ended.remove_done_callback(self._end)
        self._end()
        if self._terminal is not None:
            os.close(self._terminal)
            self._terminal = None
        if self._ending is not None:
            self._ending.cancel()
        if self._process is not None:
            if self._process.stdin is not None:
                self._process.stdin.close()
            await self._process.wait()

    def _end(self, *_: object) -> None:
        """Nothing of the session may stay: a shell's jobs have groups of their own, but its session."""
        process = self._process
        if process is None:
            return
        leader = tree.read_stat(process.pid)
        if leader is not None and leader.start != self._start:
            return  # the pid is used again, which it cannot be as long as its session has members
        tree.kill_until_gone(lambda: tree.session_members(process.pid, self._start, tree.read_processes()))

    def output(self) -> AsyncIterator[tuple[str, bytes]]:
        return self._read_terminal() if self._tty else self._read_pipes()

    async def _read_terminal(self) -> AsyncIterator[tuple[str, bytes]]:
        while self._terminal is not None:
            try:
                data = os.read(self._terminal, _CHUNK)
            except BlockingIOError:
                await _until(self._terminal, writable=False)
                continue
            except OSError:
                return  # EIO: the other end was closed by the last process
            if not data:
                return
            yield "stdout", data

    async def _read_pipes(self) -> AsyncIterator[tuple[str, bytes]]:
        process = self._started()
        assert process.stdout is not None
        assert process.stderr is not None
        readers = {"stdout": process.stdout, "stderr": process.stderr}
        pending = {asyncio.ensure_future(reader.read(_CHUNK)): name for name, reader in readers.items()}
        try:
            while pending:
                done, _ = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    name = pending.pop(task)
                    if data := task.result():
                        pending[asyncio.ensure_future(readers[name].read(_CHUNK))] = name
                        yield name, data
        finally:
            for task in pending:
                task.cancel()

    async def write(self, data: bytes) -> None:
        if self._terminal is not None:
            await self._write_terminal(data or b"\x04")
            return
        stdin = self._started().stdin
        assert stdin is not None
        try:
            if data:
                stdin.write(data)
                await stdin.drain()
            else:
                stdin.close()
        except ConnectionError:
            return  # the command reads no more, or has ended: `output` tells

    async def _write_terminal(self, data: bytes) -> None:
        while data and self._terminal is not None:
            try:
                data = data[os.write(self._terminal, data) :]
            except BlockingIOError:
                await _until(self._terminal, writable=True)
            except OSError:
                return

    async def resize(self, rows: int, columns: int) -> None:
        self._size = rows, columns
        if self._terminal is not None:
            _set_size(self._terminal, rows, columns)

    async def signal(self, number: int) -> None:
        process = self._started()
        with suppress(ProcessLookupError):
            if self._ending is None:
                self._ending = asyncio.create_task(self._end_rest(os.pidfd_open(process.pid)))
            process.send_signal(number)

    async def _end_rest(self, handle: int) -> None:
        """What the command has left behind would keep its output open, and with that its end from being told."""
        try:
            await _until(handle, writable=False)
        finally:
            os.close(handle)
        self._end()

    async def exit_code(self) -> int:
        """Shapes: 128 and the number when a signal ended it, as shells tell it."""
        code = await self._started().wait()
        return code if code >= 0 else 128 - code

    def _started(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise Invalid("exec session is used before it was entered")
        return self._process


def _set_size(terminal: int, rows: int, columns: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


async def _until(handle: int, *, writable: bool) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    add, remove = (loop.add_writer, loop.remove_writer) if writable else (loop.add_reader, loop.remove_reader)
    add(handle, lambda: None if ready.done() else ready.set_result(None))
    try:
        await ready
    finally:
        remove(handle)
