"""The agent's end of its guards: begins them, tells them what to guard, and reads what they did.

A guard that is there already keeps the lock of its directory, so beginning one again is harmless: a restarted agent
does it for everything it finds. Containers go by the names that the Engine knows them by.
"""

import asyncio
import os
import shutil
import subprocess

from corral.lib.clock import read_boot_id
from corral.lib.contact import Lease
from corral.lib.errors import Failed
from corral.model.execution import Bound
from corral.process import enter, record, tree
from corral.process.guard import FENCED, GUARD, TARGET, Fenced, Guarded, Target
from corral.process.runtime import read_fence

_BEGIN_S = 10.0


class Guards:
    """Shapes: `root` is this agent's own directory; `engine` the path of the Engine's socket, empty for none here."""

    def __init__(self, root: str, engine: str) -> None:
        self._root = os.path.abspath(root)
        self._engine = engine
        self._boot_id = read_boot_id()
        self._begun: dict[str, subprocess.Popen[bytes]] = {}

    async def begin(self, container: str, bound: Bound) -> None:
        """Have a container guarded before it is made; when this returns somebody looks.

        Errors: `Failed` when the task may not run any more, or nobody can be had to guard it.
        """
        directory = self._directory(container)
        fence = read_fence(bound)
        assert fence is not None
        self.check(bound)
        guarded: Guarded = {
            "container": container, "engine": self._engine, "boot_id": self._boot_id, "fence": fence,
        }  # fmt: skip
        try:
            os.makedirs(directory, mode=0o700, exist_ok=True)
            record.write_record(directory, GUARD, guarded)
            await self._launch(container, directory)
        except OSError as error:
            raise Failed(f"nobody can be had to guard the task: {error.strerror}: {directory}") from None

    def check(self, bound: Bound) -> None:
        """Errors: `Failed` when a task with this bound may not be started now."""
        fence = read_fence(bound)
        assert fence is not None
        lease = Lease(fence, self._boot_id)
        if lease.left_s() <= 0.0:
            raise Failed(f"{lease.why()}; it is not started")

    def target(self, container: str, pid: int, engine_id: str, stop_signal: int) -> None:
        """Tell the guard what runs. Shapes: nothing happens when it is not guarded."""
        directory = self._directory(container)
        stat = tree.read_stat(pid)
        if stat is None or not os.path.isdir(directory):
            return
        target: Target = {"pid": pid, "start": stat.start, "engine_id": engine_id, "stop_signal": stop_signal}
        try:
            record.write_record(directory, TARGET, target)
        except OSError:
            return  # it asks the Engine then

    async def resume(self, container: str) -> None:
        """See to it that what was guarded still is."""
        directory = self._directory(container)
        guarded: Guarded | None = record.read_record(directory, GUARD)
        if guarded is not None and guarded["boot_id"] == self._boot_id:
            await self._launch(container, directory, may_end=True)

    def why_fenced(self, container: str) -> str:
        """Why its guard has ended it; empty when it has not."""
        fenced: Fenced | None = record.read_record(self._directory(container), FENCED)
        return "" if fenced is None else fenced["why"]

    async def end(self, container: str) -> None:
        """Guard it no more: it has ended and is forgotten."""
        shutil.rmtree(self._directory(container), ignore_errors=True)
        process = self._begun.pop(container, None)
        if process is not None:
            process.poll()
        for other in [key for key, each in self._begun.items() if each.poll() is not None]:
            del self._begun[other]

    async def _launch(self, container: str, directory: str, *, may_end: bool = False) -> None:
        """Shapes: with `may_end` a guard whose container has ended by then has nothing to do, and ends well."""
        if self._held(directory):
            return
        process = await asyncio.to_thread(
            subprocess.Popen, enter.boot("guard:main", directory),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        self._begun[container] = process
        until = asyncio.get_running_loop().time() + _BEGIN_S
        while not self._held(directory):
            if process.poll() is not None and not self._held(directory):
                if may_end and process.returncode == 0:
                    return
                raise ChildProcessError(0, "the guard ended at once")
            if asyncio.get_running_loop().time() > until:
                raise ChildProcessError(0, f"the guard did not begin within {_BEGIN_S:g} s")
            await asyncio.sleep(0.005)

    def _held(self, directory: str) -> bool:
        holder = record.read_holder(directory)
        return holder is not None and tree.is_same(*holder)

    def _directory(self, container: str) -> str:
        return os.path.join(self._root, container.replace("/", "_"))
