"""Runs tasks as plain processes, each under a supervisor of its own that outlives the agent.

What runs is remembered in files and found again by them; see `record.py` for who writes which, and when.
The agent is told of an end by the kernel (a pidfd), never by asking again and again. Contract: agent/runtimes.py.
"""

import asyncio
import os
import shutil
import signal
import time
from collections.abc import Sequence
from contextlib import suppress

from corral.lib.clock import read_boot_id
from corral.lib.contact import Fence
from corral.lib.errors import Conflict, Failed, NotFound, Unavailable
from corral.model.execution import Bound, Execution, Exit, Found, Launched
from corral.model.ids import ContainerId, FrameworkId, TaskId
from corral.process import cgroup, record, tree
from corral.process.exec import ProcessExec
from corral.process.leftovers import end_leftovers
from corral.process.mounts import prepare_mounts
from corral.process.record import Ended, Kill, Pids, Run
from corral.process.spares import Spares
from corral.process.starter import Starter
from corral.process.supervisor import STOP

_TRIES = 3
_STARTS_AT_ONCE = 4 * (os.cpu_count() or 1)
"""More at once are each slower than so many, as they take memory and processor from one another."""
_START_S = 5.0
"""How long who kills a task waits for its start to end by itself."""
_TIDY_S = 2.0
"""How long a supervisor takes to tidy up once its task's exit is on disk."""
_STUBBORN_S = 15.0
"""How long after the grace the supervisor has to end everything, before the agent itself goes after it."""


class ProcessRuntime:
    """Shapes: `state_dir` is this agent's own directory; `notes` say which limits cannot be kept here and why.

    Units: `most_log_bytes` bounds each output file, by one older part and the present one; None lets them grow.
    `open_files` is the soft limit of descriptors that tasks get; None gives them the agent's own.
    `cgroup_parent` is a path inside every cgroup tree such as `/corral`; None chooses, empty uses no cgroups.
    """

    name = "process"

    def __init__(
        self,
        state_dir: str,
        *,
        cgroup_parent: str | None = None,
        most_log_bytes: int | None = None,
        open_files: int | None = None,
    ) -> None:
        self._state_dir = os.path.abspath(state_dir)
        self._most_log_bytes = most_log_bytes
        self._open_files = open_files
        self._boot_id = read_boot_id()
        self._trees = None if cgroup_parent == "" else cgroup.Trees(cgroup_parent)
        self.notes = tuple(self._trees.notes) if self._trees else ("process tasks run without cgroups, as configured",)
        self._spares = Spares(self._state_dir)
        self._starter: Starter | None = None
        self._room = asyncio.Semaphore(_STARTS_AT_ONCE)
        self._starting: dict[str, asyncio.Task[Launched]] = {}
        self._watched: dict[str, _Watch] = {}
        self._cleaning: set[asyncio.Task[None]] = set()
        os.makedirs(self._state_dir, mode=0o700, exist_ok=True)

    async def ready(self) -> str | None:
        try:
            record.reserve(self._state_dir, ".probe")
            os.unlink(os.path.join(self._state_dir, ".probe.new"))
        except OSError as error:
            where = f"the agent's directory {self._state_dir} cannot be written"
            return f"no process task can be started: {where}: {error.strerror}; free the disk or correct its rights"
        try:
            self._get_starter()
        except Failed as error:
            return error.message
        return None

    # Starting.

    async def start(self, execution: Execution) -> Launched:
        container_id = execution.container_id
        starting = self._starting.get(container_id)
        if starting is None:
            starting = asyncio.get_running_loop().create_task(self._start(execution))
            self._starting[container_id] = starting
            starting.add_done_callback(lambda done: self._note_started(container_id, done))
        # Shielded: a caller that gives up must not leave a half-told start behind.
        return await asyncio.shield(starting)

    def _note_started(self, container_id: str, done: "asyncio.Task[Launched]") -> None:
        self._starting.pop(container_id, None)
        if not done.cancelled():
            done.exception()  # seen here, in case that the caller has given up

    async def _start(self, execution: Execution) -> Launched:
        directory = self._directory(execution.container_id)
        for _ in range(_TRIES):
            found = await self._find_started(execution.container_id, directory)
            if found is not None:
                return found
            try:
                async with self._room:
                    self._write_run(execution, directory)
                    report = await self._get_starter().start(execution.container_id, directory)
            except ConnectionError:
                continue  # the nursery was killed: what it still did is on disk
            if "error" in report:
                self._forget(directory)
                raise Failed(str(report["error"]))
            return Launched(container_id=execution.container_id, pid=int(report["pid"]))
        raise Failed("the process that starts tasks was killed again and again; see the node's log for who does it")

    async def _find_started(self, container_id: ContainerId, directory: str) -> Launched | None:
        """The run of an earlier start; what was never started is cleared away."""
        await self._settle(directory)
        pids: Pids | None = record.read_record(directory, record.PIDS)
        if pids is not None:
            return Launched(container_id=container_id, pid=pids["pid"])
        ended: Ended | None = record.read_record(directory, record.EXIT)
        if ended is not None:
            raise Failed(ended["message"])
        self._forget(directory)
        return None

    def _write_run(self, execution: Execution, directory: str) -> None:
        if execution.docker is not None:
            raise Failed(
                f"task asks for image {execution.docker.image!r}, which plain processes cannot run; use docker"
            )
        if not execution.argv:
            raise Failed("task has no command and no image; give a command")
        if not os.path.isdir(execution.sandbox):
            raise Failed(f"sandbox {execution.sandbox} does not exist; was the agent's work directory removed?")
        limits = cgroup.Limits(execution.cpu_milli, execution.cpu_limit_milli, execution.mem_mb)
        run: Run = {
            "container_id": execution.container_id,
            "task_id": execution.task_id,
            "framework_id": execution.framework_id,
            "sandbox": execution.sandbox,
            "argv": list(execution.argv),
            "environment": list(execution.environment),
            "user": execution.user,
            "wrap": prepare_mounts(execution.sandbox, execution.mounts),
            "cgroups": self._trees.of_task(execution.container_id, limits) if self._trees else [],
            "most_log_bytes": self._most_log_bytes,
            "boot_id": self._boot_id,
            "hidden": execution.hidden_file,
            "fence": read_fence(execution.bound),
        }
        try:
            self._spares.make(directory)
            record.write_record(directory, record.RUN, run)
        except OSError as error:
            self._forget(directory)
            raise Failed(f"the agent's directory {directory} cannot be written: {error.strerror}") from None

    def _get_starter(self) -> Starter:
        if self._starter is None or self._starter.gone:
            try:
                self._starter = Starter(self._trees.homes() if self._trees else [], self._open_files)
            except OSError as error:
                raise Failed(
                    f"no process task can be started: {error.strerror}; raise the limits of the agent"
                ) from None
        return self._starter

    # Ending.

    async def wait(self, container_id: str) -> Exit:
        starting = self._starting.get(container_id)
        if starting is not None:
            await asyncio.wait([starting])
        return await asyncio.shield(self._watch(container_id).ended)

    def _watch(self, container_id: str) -> "_Watch":
        """The one future of this run's end.

        Errors: `NotFound` when there is no such run.
        """
        watch = self._watched.get(container_id)
        if watch is not None:
            return watch
        directory = self._directory(container_id)
        if not os.path.isdir(directory):
            raise NotFound(f"container {container_id} is not known to the process runtime")
        watch = _Watch(container_id, directory, self._supervisor(directory))
        self._watched[container_id] = watch
        if watch.handle is None:
            self._conclude(watch)
        else:
            asyncio.get_running_loop().add_reader(watch.handle, self._conclude, watch)
        return watch

    def _supervisor(self, directory: str) -> int | None:
        """A pidfd of the living supervisor.

        Errors: `Unavailable` when it cannot be told whether it lives.
        """
        try:
            pids: Pids | None = record.read_record(directory, record.PIDS)
            if pids is None or pids["boot_id"] != self._boot_id:
                return None
            return tree.open_process(pids["supervisor"], pids["supervisor_start"])
        except OSError as error:
            raise Unavailable(
                f"tasks cannot be watched: {error.strerror}; raise the agent's limit of open files"
            ) from None

    def _conclude(self, watch: "_Watch") -> None:
        """The supervisor has ended: tell what it wrote, or find out what it left."""
        watch.release()
        if watch.ended.done():
            return
        try:
            ended: Ended | None = record.read_record(watch.directory, record.EXIT)
        except OSError:
            asyncio.get_running_loop().call_later(1.0, self._conclude, watch)
            return
        if ended is not None:
            watch.ended.set_result(_read_exit(watch.container_id, ended))
            return
        task = asyncio.get_running_loop().create_task(self._conclude_lost(watch))
        self._cleaning.add(task)
        task.add_done_callback(self._cleaning.discard)

    async def _conclude_lost(self, watch: "_Watch") -> None:
        ended = await asyncio.to_thread(self._bury, watch.directory)
        if not watch.ended.done():
            watch.ended.set_result(_read_exit(watch.container_id, ended))

    def _bury(self, directory: str) -> Ended:
        """End what a dead supervisor left running and write down that nobody saw the exit."""
        run: Run | None = record.read_record(directory, record.RUN)
        pids: Pids | None = record.read_record(directory, record.PIDS)
        written = pids or run
        rebooted = written is not None and written["boot_id"] != self._boot_id
        if run is not None and not rebooted:
            end_leftovers(run, pids)
        message = (
            "the node was started again while the task ran; nobody saw how it ended"
            if rebooted
            else "the task's supervisor was killed, and the task with it; nobody saw how it ended"
        )
        ended: Ended = {
            "code": None, "signal": None, "oom": False, "failed": False, "message": message, "at": time.time(),
        }  # fmt: skip
        with suppress(OSError):  # else it is found out once more after the next start
            record.write_record(directory, record.EXIT, ended, durable=True)
        return ended

    async def kill(self, container_id: str, grace_s: float) -> None:
        await self._end_start(container_id)
        try:
            watch = self._watch(container_id)
        except NotFound:
            return
        if watch.handle is not None:
            self._order_kill(watch, max(0.0, grace_s))
        done, _ = await asyncio.wait([watch.ended], timeout=max(0.0, grace_s) + _STUBBORN_S)
        if not done and watch.handle is not None:
            # It hangs or was stopped; its own end leads to the rest.
            signal.pidfd_send_signal(watch.handle, signal.SIGKILL)
            await asyncio.wait([watch.ended], timeout=_STUBBORN_S)

    async def resize(self, container_id: str, cpu_milli: int, mem_mb: int | None) -> None:
        with suppress(NotFound):
            if self._watch(container_id).handle is None or self._trees is None:
                return
            groups = self._trees.of_task(container_id, cgroup.Limits(cpu_milli, None, mem_mb))
            try:
                cgroup.widen(groups)
            except OSError as error:
                raise Failed(f"limits of container {container_id} cannot be changed: {error.strerror}") from None

    async def signal(self, container_id: str, number: int) -> None:
        watch = self._watch(container_id)
        pids: Pids | None = record.read_record(watch.directory, record.PIDS)
        handle = (
            tree.open_process(pids["pid"], pids["pid_start"]) if pids is not None and not watch.ended.done() else None
        )
        if handle is None:
            raise NotFound(f"container {container_id} does not run, so that no signal reaches it")
        try:
            signal.pidfd_send_signal(handle, number)
        except ProcessLookupError:
            raise NotFound(f"container {container_id} has just ended") from None
        finally:
            os.close(handle)

    async def _end_start(self, container_id: str) -> None:
        """Let a start under way come to its end, or take it back when it hangs."""
        starting = self._starting.get(container_id)
        if starting is None:
            return
        done, _ = await asyncio.wait([starting], timeout=_START_S)
        if done:
            return
        if self._starter is not None:
            self._starter.give_up(container_id)
        directory = self._directory(container_id)
        holder = record.read_holder(directory)
        handle = tree.open_process(*holder) if holder is not None else None
        if handle is not None:
            signal.pidfd_send_signal(handle, signal.SIGKILL)
            os.close(handle)
        run: Run | None = record.read_record(directory, record.RUN)
        if run is not None:
            await asyncio.to_thread(end_leftovers, run, None)
        # A supervisor that only comes now finds nothing to start.
        self._forget(directory)
        await asyncio.wait([starting], timeout=_START_S)

    def _order_kill(self, watch: "_Watch", grace_s: float) -> None:
        deadline = time.monotonic() + grace_s
        earlier: Kill | None = record.read_record(watch.directory, record.KILL)
        if earlier is not None:
            deadline = min(deadline, earlier["deadline"])
        order: Kill = {"deadline": deadline}
        assert watch.handle is not None
        try:
            record.write_record(watch.directory, record.KILL, order)
        except OSError:
            # Without room for the order the grace cannot be told; a task that must go still goes.
            signal.pidfd_send_signal(watch.handle, signal.SIGTERM)
            return
        try:
            signal.pidfd_send_signal(watch.handle, STOP)
        except ProcessLookupError:
            return

    # Finding again.

    async def recover(self) -> Sequence[Found]:
        found = []
        for name in sorted(os.listdir(self._state_dir)):
            directory = os.path.join(self._state_dir, name)
            if name.startswith("."):
                shutil.rmtree(directory, ignore_errors=True)
                continue
            if name not in self._starting:
                await self._settle(directory)
            run: Run | None = record.read_record(directory, record.RUN)
            if run is None or (not self._has_begun(directory) and name not in self._starting):
                self._forget(directory)
                continue
            found.append(await self._find(run, directory))
        return found

    def _has_begun(self, directory: str) -> bool:
        return any(os.path.exists(os.path.join(directory, name)) for name in (record.PIDS, record.EXIT))

    async def _settle(self, directory: str) -> None:
        """Wait for a supervisor that is just starting; keep one out that has not come yet."""
        for _ in range(500):
            if not os.path.isdir(directory) or self._has_begun(directory):  # noqa: ASYNC240  a look at /, not at a server
                return
            lock = record.take_lock(directory)
            if lock is not None:
                begun = self._has_begun(directory)
                if not begun:
                    self._forget(directory)
                os.close(lock)
                return
            await asyncio.sleep(0.01)

    async def _find(self, run: Run, directory: str) -> Found:
        pids: Pids | None = record.read_record(directory, record.PIDS)
        container_id = ContainerId(run["container_id"])
        watch = self._watch(container_id)
        if watch.handle is None or record.read_record(directory, record.EXIT) is not None:
            # With the exit on disk the supervisor only tidies up.
            await asyncio.wait([watch.ended], timeout=_TIDY_S)
        return Found(
            container_id=container_id,
            task_id=TaskId(run["task_id"]),
            framework_id=FrameworkId(run["framework_id"]),
            launched=Launched(container_id=container_id, pid=pids["pid"]) if pids else None,
            exit=watch.ended.result() if watch.ended.done() else None,
        )

    async def remove(self, container_id: str) -> None:
        try:
            watch = self._watch(container_id)
        except NotFound:
            return
        if watch.handle is not None:
            raise Conflict(f"container {container_id} still runs and cannot be removed; kill it first")
        await asyncio.shield(watch.ended)
        self._watched.pop(container_id, None)
        self._forget(watch.directory)

    def _forget(self, directory: str) -> None:
        self._spares.forget(directory)

    # Beside the task.

    def is_elsewhere(self, container_id: str) -> bool:
        return False

    def exec(self, container_id: str, argv: Sequence[str], *, tty: bool) -> ProcessExec:
        """Errors: on entering, `NotFound` when it does not run; `Conflict` when it has ended."""
        return ProcessExec(lambda: self._running(container_id), argv, tty=tty)

    def _running(self, container_id: str) -> tuple[str, "asyncio.Future[Exit]"]:
        watch = self._watch(container_id)
        if watch.handle is None:
            raise Conflict(f"container {container_id} has ended; nothing can be run in it")
        return watch.directory, watch.ended

    async def close(self) -> None:
        if pending := [*self._starting.values(), *self._cleaning]:
            await asyncio.wait(pending, timeout=_START_S)
        for task in pending:
            task.cancel()
        for watch in self._watched.values():
            watch.release()
            watch.ended.cancel()
        self._watched.clear()
        if self._starter is not None:
            await self._starter.close()
            self._starter = None
        if self._trees is not None:
            self._trees.close()

    def _directory(self, container_id: str) -> str:
        if not container_id or "/" in container_id or container_id.startswith("."):
            raise NotFound(f"container id {container_id!r} cannot name a directory")
        return os.path.join(self._state_dir, container_id)


class _Watch:
    """One run's end. Shapes: `handle` is the living supervisor's pidfd, None once it has ended."""

    __slots__ = ("container_id", "directory", "ended", "handle")

    def __init__(self, container_id: str, directory: str, handle: int | None) -> None:
        self.container_id = ContainerId(container_id)
        self.directory = directory
        self.handle = handle
        self.ended: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()

    def release(self) -> None:
        if self.handle is not None:
            asyncio.get_running_loop().remove_reader(self.handle)
            os.close(self.handle)
            self.handle = None


def read_fence(bound: Bound | None) -> Fence | None:
    if bound is None:
        return None
    return {
        "path": bound.contact, "stop_after_s": bound.stop_after_s, "grace_s": bound.grace_s, "strict": bound.strict,
    }  # fmt: skip


def _read_exit(container_id: str, ended: Ended) -> Exit:
    return Exit(
        container_id=ContainerId(container_id),
        code=ended["code"],
        signal=ended["signal"],
        oom=ended["oom"],
        message=ended["message"],
        at=ended["at"],
        fenced=ended.get("fenced", False),
    )
