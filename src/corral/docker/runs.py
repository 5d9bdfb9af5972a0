"""One container from its start to its last words: how it is stopped and how its end is learned.

The Engine knows the code, the kernel knows the moment. An end that the Engine does not notice, because it is away or
has lost its containerd, is told by the kernel after a while; the word of the Engine goes before that.
"""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from corral.docker.containers import LABEL_SANDBOX, container_name, has_ended, read_exit
from corral.docker.engine import Engine, Json
from corral.docker.exits import ProcessWatch, watch_process
from corral.docker.logs import LogFollower
from corral.docker.pipes import hold_pipes
from corral.lib.backoff import grow_delay_s
from corral.lib.errors import Conflict, CorralError, NotFound, Unavailable
from corral.model.execution import Exit
from corral.model.ids import ContainerId

ALIVE_S = 5.0
"""How often a long call asks whether the Engine still answers at all."""
NOTICE_S = 10.0
"""How long the Engine may take to notice an exit that the kernel has told already."""
UNNOTICED_S = 30.0
"""After this the kernel's word on an exit must do."""
LAST_WORDS_S = 10.0
"""How long an exit is held back until the task's last output is in its sandbox."""
REMOVE_LOGS_S = 60.0
"""How long a removal is held back for the same reason."""

T = TypeVar("T")
Pause = Callable[[float], Awaitable[None]]
Say = Callable[[str], None]


class Run:
    """A container that has been started. `exit` is how it ended, once its output is copied.

    Shapes: `local` when the Engine's processes are this machine's.
    """

    def __init__(
        self, engine: Engine, container_id: ContainerId, inspected: Json, *, local: bool, say: Say, pause: Pause
    ) -> None:
        self.container_id = container_id
        self.engine_id = str(inspected.get("Id", ""))
        self.name = container_name(container_id)
        self._engine = engine
        self._say = say
        self._pause = pause
        config = inspected.get("Config") or {}
        self._stop_signal = str(config.get("StopSignal") or "SIGTERM")
        self._asked_to_stop = False
        self._gone_at: float | None = None
        self._gone_since = 0.0  # the same by a clock that nobody sets
        pid = (inspected.get("State") or {}).get("Pid")
        self._watch: ProcessWatch | None = None
        if local and pid and self.engine_id:
            self._watch = watch_process(pid, self.engine_id)
        self._follower: LogFollower | None = None
        if sandbox := (config.get("Labels") or {}).get(LABEL_SANDBOX):
            pipes = hold_pipes(pid, self.engine_id) if pid and self._watch is not None else None
            self._follower = LogFollower(engine, self.name, sandbox, say=say, pause=pause, pipes=pipes)
        self.exit: asyncio.Task[Exit] = asyncio.create_task(self._await_exit(), name=f"exit of {self.name}")
        self.exit.add_done_callback(_look_at)

    @property
    def is_watched(self) -> bool:
        """Whether its first process is surely this machine's."""
        return self._watch is not None

    @property
    def process(self) -> int | None:
        """The pid of its first process, where that is one of this machine's."""
        return self._watch.pid if self._watch is not None else None

    @property
    def stop_signal(self) -> int:
        return _signal_number(self._stop_signal)

    def has_ended(self) -> bool:
        return self.exit.done()

    async def stop(self, grace_s: float) -> None:
        """The image's stop signal, then SIGKILL after the grace; at once without one. The shortest grace counts."""
        if grace_s > 0 and not self.exit.done():
            if not self._asked_to_stop:
                self._asked_to_stop = True
                await self._send(self._stop_signal)
            await self._gone_within(grace_s)
        if not self.exit.done() and not (self._watch is not None and self._watch.has_gone()):
            await self._send("SIGKILL")

    async def finish_output(self) -> None:
        """Wait, within reason, until the output of an ended container is copied."""
        if self._follower is not None and self.exit.done():
            await self._follower.finish(REMOVE_LOGS_S)

    async def close(self) -> None:
        """Look away. The container is as it was."""
        self.exit.cancel()
        await asyncio.wait({self.exit})
        if self._follower is not None:
            await self._follower.close()
        if self._watch is not None:
            self._watch.close()

    async def _gone_within(self, timeout_s: float) -> None:
        waits: set[asyncio.Task[Any]] = {self.exit}
        gone = asyncio.create_task(self._watch.gone()) if self._watch is not None else None
        if gone is not None:
            waits.add(gone)
        try:
            await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if gone is not None:
                gone.cancel()

    async def _send(self, name: str) -> None:
        """Send a signal through Docker, or past it when it is away."""
        tries = 0
        while not self.exit.done():
            try:
                return await while_answering(self._engine, self._engine.kill(self.name, name), every_s=1.0)
            except (Conflict, NotFound):
                return  # does not run any more
            except CorralError as error:
                if self._watch is not None:
                    with contextlib.suppress(ProcessLookupError):
                        self._watch.send(_signal_number(name))
                    return
                if not isinstance(error, Unavailable):
                    raise
            tries += 1
            await self._pause(grow_delay_s(tries, first_s=0.1, factor=2.0, most_s=5.0))

    async def _await_exit(self) -> Exit:
        found = await self._learn_exit()
        if self._follower is not None and not await self._follower.finish(LAST_WORDS_S):
            self._say(f"container {self.name} has ended, its last output is still being copied")
        return found

    async def _learn_exit(self) -> Exit:
        watch, tries = self._watch, 0
        while True:
            if watch is not None and self._gone_at is None:
                await watch.gone()
                self._gone_at, self._gone_since = time.time(), time.monotonic()
            try:
                await self._engine.wait(self.name, None if watch is None else NOTICE_S)
                inspected = await self._engine.inspect(self.name)
                if has_ended(inspected):
                    return read_exit(self.container_id, inspected, watch.oom_kills if watch is not None else None)
            except NotFound:
                if watch is None:
                    raise
                return self._exit_by_kernel(watch, "its container was removed by somebody else")
            except CorralError:
                pass  # away, hanging or blind: the kernel or a later try will tell
            unnoticed = self._gone_at is not None and time.monotonic() - self._gone_since > UNNOTICED_S
            if watch is not None and unnoticed:
                exit = await self._exit_unnoticed(watch)
                if exit is not None:
                    return exit
            tries += 1
            await self._pause(grow_delay_s(tries, first_s=0.05, factor=2.0, most_s=5.0))

    async def _exit_unnoticed(self, watch: ProcessWatch) -> Exit | None:
        """The exit of a process that the kernel says is gone and Docker does not; None while there is hope."""
        if watch.wait_status() is not None:
            return self._exit_by_kernel(watch, "Docker was away or blind when it ended")
        try:
            await self._engine.inspect(self.name)
        except CorralError:
            return None  # away: it will know the code when it comes back
        # An Engine whose containerd was restarted shows such a container as running for ever.
        return self._exit_by_kernel(watch, "Docker did not notice its end; restart the Docker daemon")

    def _exit_by_kernel(self, watch: ProcessWatch, why: str) -> Exit:
        status = watch.wait_status()
        killed = status is not None and os.WIFSIGNALED(status)
        return Exit(
            container_id=self.container_id,
            code=os.WEXITSTATUS(status) if status is not None and not killed else None,
            signal=os.WTERMSIG(status) if status is not None and killed else None,
            oom=bool(watch.oom_kills) and status != 0,
            message=why,
            at=self._gone_at or time.time(),
        )


async def clear_away(
    remove: Callable[[], Awaitable[None]], pause: Pause, *, looks: int = 1, is_wanted: Callable[[], bool]
) -> None:
    """Try until it is removed, is missing at so many looks, or is wanted again.

    Shapes: two looks where the Engine hung when it was asked for it: it may bring it about after it has first said that
    there is none.
    """
    tries = 0
    while looks and not is_wanted():
        try:
            await remove()
            return
        except NotFound:
            looks -= 1
        except CorralError:
            pass
        tries += 1
        if looks:
            await pause(grow_delay_s(tries, first_s=0.5, factor=2.0, most_s=5.0))


async def while_answering(engine: Engine, work: Coroutine[Any, Any, T], every_s: float = ALIVE_S) -> T:
    """Do slow work, but give up as soon as the Engine answers nothing at all.

    Errors: `Unavailable` then; what became of the work is unknown.
    """
    task = asyncio.create_task(work)
    try:
        while True:
            done, _ = await asyncio.wait({task}, timeout=every_s)
            if done:
                return task.result()
            await engine.ping()
    finally:
        if not task.done():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, CorralError):
                await task


def _signal_number(name: str) -> int:
    if name.isdigit():
        return int(name)
    full = name.upper() if name.upper().startswith("SIG") else f"SIG{name.upper()}"
    return int(getattr(signal, full, signal.SIGTERM))


def _look_at(task: asyncio.Task[Exit]) -> None:
    """Nobody may be waiting; an exception must not be reported as forgotten then."""
    if not task.cancelled():
        task.exception()
