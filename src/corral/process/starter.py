"""The agent's end of its nursery: asks for supervisors and hears what became of them.

Each message on the socket is whole by itself; its end is the nursery's end. Requests carry no more than a directory, so
nothing is lost with the nursery that is not on disk.
"""

import asyncio
import json
import os
import resource
import socket
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from corral.lib.errors import Failed
from corral.process import enter


class Starter:
    """One nursery and the starts that it has not told of yet. Shapes: `gone` once it has ended."""

    __slots__ = ("_process", "_socket", "_waiting", "gone")

    def __init__(self, homes: Sequence[str], open_files: int | None = None) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                enter.boot("nursery:main", str(theirs.fileno()), *homes),
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),), start_new_session=True,
            )  # fmt: skip
        if open_files is not None:
            # It has not been asked to start anything yet, so all its tasks get this.
            hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            with suppress(ProcessLookupError):
                resource.prlimit(self._process.pid, resource.RLIMIT_NOFILE, (open_files, hard))
        ours.setblocking(False)
        self._socket = ours
        self._waiting: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self.gone = False
        asyncio.get_running_loop().add_reader(ours.fileno(), self._read)

    async def start(self, container_id: str, directory: str) -> dict[str, Any]:
        """Errors: `ConnectionError` when it ended before it told what became of the start."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[dict[str, Any]] = loop.create_future()
        self._waiting[container_id] = answer
        try:
            await self._send(os.fsencode(directory))
            return await answer
        finally:
            self._waiting.pop(container_id, None)

    def give_up(self, container_id: str) -> None:
        answer = self._waiting.get(container_id)
        if answer is not None and not answer.done():
            answer.set_exception(Failed("the start hung and was taken back, as the task was killed"))

    async def _send(self, message: bytes) -> None:
        while not self.gone:
            try:
                self._socket.send(message)
                return
            except BlockingIOError:
                await asyncio.sleep(0.001)  # its queue is full of other starts
            except OSError:
                self._lose()
        raise ConnectionError("the nursery has ended")

    def _read(self) -> None:
        while True:
            try:
                message = self._socket.recv(65536)
            except BlockingIOError:
                return
            except OSError:
                message = b""
            if not message:
                self._lose()
                return
            report = json.loads(message)
            answer = self._waiting.get(report["id"])
            if answer is not None and not answer.done():
                answer.set_result(report)

    def _lose(self) -> None:
        if self.gone:
            return
        self.gone = True
        asyncio.get_running_loop().remove_reader(self._socket.fileno())
        self._socket.close()
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(ConnectionError("the nursery has ended"))
        self._process.poll()

    async def close(self) -> None:
        self._lose()
        await asyncio.to_thread(self._process.wait)
