"""Keeps one file as its template makes it: written whole, only when it differs, checked before, reloaded after.

A check that fails leaves the old file. A reload that fails is tried again, as the file is new and its reader does not
know.
"""

import asyncio
import contextlib
import os
import shlex
from collections.abc import Callable
from pathlib import Path

import msgspec

from corral.discovery.files import write_whole
from corral.lib.errors import CorralError, Failed, Invalid
from corral.lib.log import get_logger

log = get_logger("template")

COMMAND_TIMEOUT_S = 60.0
RETRY_S = 5.0


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Shapes: in `check`, `{src}` stands for the path of the file to be checked; commands are given to a shell.

    Units: changes within `debounce_s` seconds are one, but nothing waits longer than ten times that.
    """

    dest: Path
    check: str = ""
    reload: str = ""
    mode: int | None = None
    debounce_s: float = 0.2


class TemplateFile:
    """Shapes: `make` gives the text as it is to be now; `changed` has to be called when that may be another one."""

    def __init__(self, target: Target, make: Callable[[], str]) -> None:
        self._target = target
        self._make = make
        self._news = asyncio.Event()
        self._unread = False
        self.ready = asyncio.Event()

    def changed(self, ids: frozenset[str] = frozenset()) -> None:
        self._news.set()

    async def run(self) -> None:
        said = ""
        while True:
            await self._news.wait()
            await self._gather()
            try:
                await self.update()
                said = ""
                self.ready.set()
            except (CorralError, OSError) as error:
                words = error.message if isinstance(error, CorralError) else str(error)
                if words != said:
                    log.error("file not in step", path=str(self._target.dest), why=words)
                said = words
                asyncio.get_running_loop().call_later(RETRY_S, self._news.set)

    async def _gather(self) -> None:
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + 10 * self._target.debounce_s
        while self._news.is_set() and loop.time() < ends_at:
            self._news.clear()
            await asyncio.sleep(self._target.debounce_s)
        self._news.clear()

    async def update(self) -> bool:
        """Bring the file in step; returns whether it was written.

        Errors: `Invalid` as the template; `Failed` when a command does; `OSError` when the file cannot be written.
        """
        data = self._make().encode()
        dest = self._target.dest
        try:
            same = dest.read_bytes() == data
        except FileNotFoundError:
            same = False
        if not same:
            await self._check(data)
            write_whole(dest, data, mode=self._target.mode)
            self._unread = True
            log.info("file written", path=str(dest), bytes=len(data))
        if self._unread and self._target.reload:
            await _run("reload", self._target.reload)
        self._unread = False
        return not same

    async def _check(self, data: bytes) -> None:
        if not self._target.check:
            return
        dest = self._target.dest
        candidate = dest.with_name(f".{dest.name}.check{os.getpid()}{dest.suffix}")
        write_whole(candidate, data, mode=0o600)
        try:
            await _run("check", self._target.check.replace("{src}", shlex.quote(str(candidate))))
        finally:
            with contextlib.suppress(FileNotFoundError):
                candidate.unlink()


async def _run(what: str, command: str) -> None:
    process = await asyncio.create_subprocess_exec(
        "/bin/sh", "-c", command,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip
    try:
        async with asyncio.timeout(COMMAND_TIMEOUT_S):
            said, _ = await process.communicate()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        await process.wait()
        raise Failed(f"the {what} command did not end within {COMMAND_TIMEOUT_S:g} s: {command}") from None
    if process.returncode:
        words = " ".join(said.decode(errors="replace").split())[-500:]
        raise Failed(f"the {what} command ended with code {process.returncode}: {command}: {words or 'no words'}")


def read_mode(text: str) -> int | None:
    """A file's mode such as 0644; None for an empty text. Errors: `Invalid` for anything else."""
    if not text:
        return None
    try:
        mode = int(text, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o7777:
        raise Invalid(f"--mode is {text!r}; write it in octal, such as 0644")
    return mode
