"""Lets a daemon be replaced in place: it hands over, ends in order, and becomes the version that is installed.

The process keeps its id, its arguments and its address, so that a service manager sees nothing of it. Before anything
ends, the installed version is asked whether it starts with these very arguments.
"""

import asyncio
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import NoReturn

import msgspec

from corral import __version__
from corral.lib.errors import Conflict
from corral.lib.log import get_logger

log = get_logger("renewal")

CHECK_TIMEOUT_S = 60.0
PACKAGE = "corral"


class ProcessView(msgspec.Struct, frozen=True, kw_only=True):
    """What a daemon says of itself.

    Shapes: `instance` differs after every start, `installed` is empty when the package cannot be found, `leads` is of
    masters alone. Units: `started_at` UTC seconds.
    """

    kind: str
    instance: str
    version: str
    installed: str
    pid: int
    started_at: float
    leads: bool | None = None


class Renewal:
    """One daemon's way to be renewed; as a service it ends, and so the daemon, when it has been asked for.

    Shapes: `arguments` are those that make another such process; `leads` says whether it does, None where that means
    nothing. `fixed` arguments follow them, and keep what was drawn at the start, such as a port.
    """

    name = "renewal"

    def __init__(
        self,
        kind: str,
        instance: str,
        *,
        leads: Callable[[], bool] | None = None,
        arguments: Sequence[str] | None = None,
    ) -> None:
        self.fixed: list[str] = []
        self.wanted = False
        self._kind = kind
        self._instance = instance
        self._leads = leads
        self._arguments = list(sys.orig_argv[1:] if arguments is None else arguments)
        self._started_at = time.time()
        self._leave = asyncio.Event()
        self._checking = asyncio.Lock()

    def view(self) -> ProcessView:
        return ProcessView(
            kind=self._kind,
            instance=self._instance,
            version=__version__,
            installed=installed_version(),
            pid=os.getpid(),
            started_at=self._started_at,
            leads=None if self._leads is None else self._leads(),
        )

    async def renew(self) -> None:
        """Hand over and begin anew, if what is installed can take over.

        Errors: `Conflict` with its own words when it does not start with these arguments.
        """
        async with self._checking:
            if not self.wanted:
                await asyncio.to_thread(self._check)
                self.wanted = True
                log.info("renewing", why=f"asked to; {__version__} runs and {installed_version()} is installed")
                # The answer is written before the server ends.
                asyncio.get_running_loop().call_later(0.1, self._leave.set)

    async def run(self) -> int | None:
        await self._leave.wait()
        return None

    def stop(self) -> None:
        self._leave.set()

    def become(self) -> NoReturn:
        """Replace this process; everything that it held has to be closed."""
        sys.stdout.flush()
        sys.stderr.flush()
        os.execv(sys.executable, [sys.executable, *self._arguments, *self.fixed])  # noqa: S606

    def _check(self) -> None:
        command = [sys.executable, *self._arguments, *self.fixed, "--show-config"]
        try:
            done = subprocess.run(command, capture_output=True, timeout=CHECK_TIMEOUT_S, stdin=subprocess.DEVNULL)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Conflict(f"what is installed cannot be started: {error}; this process goes on") from None
        if done.returncode:
            words = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
            raise Conflict(f"what is installed does not start as this process was: {words[0]}; this process goes on")


def installed_version() -> str:
    try:
        return version(PACKAGE)
    except PackageNotFoundError:
        return ""


def draw_instance() -> str:
    return str(uuid.uuid4())
