"""Keeps one HAProxy running: checks a configuration before it is taken, reloads without losing a connection.

HAProxy runs in master-worker mode in a session of its own. A reload starts a new worker with the listening sockets of
the old one, which ends what it has begun. What HAProxy's own check refuses is never taken, and what a new worker cannot
start with leaves the old worker at work.
"""

import asyncio
import contextlib
import os
import signal
from pathlib import Path

from corral.discovery.files import write_whole
from corral.discovery.runtime_api import Absent, Processes, processes, talk
from corral.lib.errors import Failed, Unavailable
from corral.lib.log import get_logger

log = get_logger("lb")

CHECK_TIMEOUT_S = 30.0
START_TIMEOUT_S = 15.0
STOP_TIMEOUT_S = 10.0
POLL_S = 0.02


class HaproxyProcess:
    """Shapes: `directory` holds its configuration and sockets; `binary` is what is run."""

    def __init__(self, directory: Path, binary: str) -> None:
        self.config = directory / "haproxy.cfg"
        self.socket = str(directory / "admin.sock")
        self.master = str(directory / "master.sock")
        self._pid_file = directory / "haproxy.pid"
        self._candidate = directory / "haproxy.cfg.new"
        self._binary = binary
        self._process: asyncio.subprocess.Process | None = None
        self.reloads = 0

    async def check(self, text: str) -> str:
        """What HAProxy says against the configuration, empty when nothing.

        Errors: `Failed` when HAProxy cannot be run at all.
        """
        write_whole(self._candidate, text.encode(), mode=0o600)
        try:
            process = await asyncio.create_subprocess_exec(
                self._binary, "-c", "-f", str(self._candidate),
                stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            )  # fmt: skip
        except OSError as error:
            raise Failed(
                f"{self._binary} cannot be run: {error.strerror}; install haproxy or name it with --haproxy"
            ) from None
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                said, _ = await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()
            return f"the check did not end within {CHECK_TIMEOUT_S:g} s"
        finally:
            with contextlib.suppress(FileNotFoundError):
                self._candidate.unlink()
        return "" if process.returncode == 0 else said.decode(errors="replace") or f"exit code {process.returncode}"

    async def find_running(self) -> bool:
        """Whether a HAProxy is at work, which may be that of an earlier life. Errors: `Unavailable` when it hangs."""
        try:
            return bool((await processes(self.master)).workers)
        except Absent:
            return False

    async def apply(self, text: str) -> None:
        """Take a checked configuration: start with it, or reload.

        Errors: `Failed` when no worker starts with it; the one before then still serves, with its configuration.
        """
        before = self.config.read_bytes() if self.config.exists() else b""
        write_whole(self.config, text.encode(), mode=0o600)
        try:
            if await self.find_running():
                await self._reload()
            else:
                await self._start()
        except Failed:
            if before:
                write_whole(self.config, before, mode=0o600)
            raise

    async def _start(self) -> None:
        for path in (self.socket, self.master):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        self._process = await asyncio.create_subprocess_exec(
            self._binary, "-W", "-db", "-f", str(self.config), "-S", f"{self.master},mode,600",
            "-p", str(self._pid_file), stdin=asyncio.subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                while not await self._answers():
                    if self._process.returncode is not None:
                        raise Failed(f"HAProxy ended at once with code {self._process.returncode}; its words are above")
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise Failed(f"HAProxy did not serve within {START_TIMEOUT_S:g} s; its words are above") from None
        log.info("haproxy started", pid=self._process.pid)

    async def _answers(self) -> bool:
        try:
            return bool(await talk(self.socket, "show info")) and bool((await processes(self.master)).workers)
        except Unavailable:
            return False

    async def _reload(self) -> None:
        before = await processes(self.master)
        had = {worker.pid for worker in before.workers}
        os.kill(self._master_pid(), signal.SIGUSR2)
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                while not _began(seen := await self._look(), had):
                    if seen.reloads > before.reloads and seen.failed:
                        raise Failed(
                            "HAProxy cannot start with the new configuration, the old one serves: see its words"
                        )
                    await asyncio.sleep(POLL_S)
                while not await self._answers():  # noqa: ASYNC110
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise Failed("HAProxy has not taken the new configuration, the old one serves: see its words") from None
        self.reloads += 1
        log.info("haproxy reloaded", reloads=self.reloads)

    async def _look(self) -> Processes:
        """What runs; nothing while the master is beginning anew."""
        try:
            return await processes(self.master)
        except Unavailable:
            return Processes()

    def _master_pid(self) -> int:
        if self._process is not None and self._process.returncode is None:
            return self._process.pid
        try:
            return int(self._pid_file.read_text(encoding="ascii").split()[0])
        except (OSError, ValueError, IndexError):
            raise Failed(f"{self._pid_file} does not name the running HAProxy; end it and start again") from None

    async def old_workers(self) -> list[int]:
        return [worker.pid for worker in (await self._look()).workers if worker.old]

    async def stop(self) -> None:
        """Let it end what it has begun, for a while, and then end it."""
        if not await self.find_running():
            return
        pid = self._master_pid()
        os.kill(pid, signal.SIGUSR1)
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                while _exists(pid) and (self._process is None or self._process.returncode is None):  # noqa: ASYNC110
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        if self._process is not None:
            await self._process.wait()


def _began(seen: Processes, had: set[int]) -> bool:
    return any(not worker.old and worker.pid not in had for worker in seen.workers)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
