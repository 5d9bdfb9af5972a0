"""Which form of the allocator's engine a master has: machine code from the start, or once it was compiled aside.

Compiling takes minutes the first time on a node. By `auto` a process of its own does it, at low priority, and fills the
cache; meanwhile the master serves in plain Python. Then it takes the code over between two turns. Decisions are equal.
"""

import asyncio
import dataclasses
import sys
import time
from collections.abc import Sequence

from corral.allocator.engine import Mode
from corral.allocator.start import choose_mode, warm
from corral.lib.log import get_logger
from corral.master.core import MasterCore
from corral.runtime.service import Background, Service
from corral.standalone.config import Config

log = get_logger("master")

COMPILE = (
    sys.executable,
    "-c",
    "import os; os.nice(10); from corral.allocator.start import Mode, warm; warm(Mode.COMPILED)",
)


class Form:
    """Of one process. Shapes: `command` fills the cache, `best` is the form that is taken then."""

    def __init__(self, wanted: str, command: Sequence[str] = COMPILE, best: Mode = Mode.COMPILED) -> None:
        """Errors: `Unavailable` when it shall be compiled and cannot be."""
        found = choose_mode(wanted)
        self._command = command
        self._best = best
        self._core: MasterCore | None = None
        self._is_aside = wanted == "auto" and found is Mode.COMPILED
        self._now = "yes" if found is Mode.COMPILED and not self._is_aside else "no"

    async def warm(self) -> None:
        """Compile what shall be there from the start."""
        if self._now == "yes":
            began_at = time.monotonic()
            log.info("compiling the engine", why="the first time on a node takes minutes, later ones seconds")
            await asyncio.to_thread(warm, self._best)
            log.info("engine compiled", seconds=round(time.monotonic() - began_at, 1))

    @property
    def services(self) -> list[Service]:
        """What works beside the master."""
        return [Background("compiling", self._compile_aside)] if self._is_aside else []

    def of(self, config: Config) -> Config:
        """The configuration of a master that begins to lead now."""
        return dataclasses.replace(config, kernel=dataclasses.replace(config.kernel, compiled=self._now))

    def follow(self, core: MasterCore) -> None:
        """This is the core that decides from now on."""
        self._core = core

    async def _compile_aside(self) -> None:
        began_at = time.monotonic()
        log.info("compiling the engine aside", why="decisions are made in plain Python until it is done")
        why = await self._fill_cache()
        if why is None:
            await asyncio.to_thread(warm, self._best)
            self._now = "yes"
            if self._core is not None:
                self._core.state.allocator.use(self._best)
            log.info("engine compiled", seconds=round(time.monotonic() - began_at, 1))
        else:
            log.warning("engine not compiled", why=why)
        await asyncio.Event().wait()

    async def _fill_cache(self) -> str | None:
        """Returns why it failed, None when it did not."""
        quiet, pipe = asyncio.subprocess.DEVNULL, asyncio.subprocess.PIPE
        try:
            process = await asyncio.create_subprocess_exec(*self._command, stdin=quiet, stdout=quiet, stderr=pipe)
        except OSError as error:
            return f"no process for it can be started: {error.strerror}"
        try:
            _, said = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode == 0:
            return None
        lines = said.decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"the compiling process ended with {process.returncode}"
