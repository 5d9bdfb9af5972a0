"""Runs tasks as containers of a real Docker Engine.

Streams and answers of the Engine are hints; what `inspect` says is the truth, and where the Engine is on this machine
the kernel tells exits by itself. So a daemon that hangs, dies or restarts is waited for and never taken for the end of
a task. Every container is named and labelled, so a restarted agent finds them all. Source: node experiments, crash of
dockerd and containerd.
"""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from corral.docker.containers import (
    LABEL_AGENT,
    LABEL_CONTAINER,
    LABEL_SANDBOX,
    container_name,
    create_body,
    explain_pull,
    explain_start,
    has_ended,
    never_started,
    read_exit,
    read_found,
    read_launched,
)
from corral.docker.engine import Engine, ExecStream, Json
from corral.docker.exits import ProcessWatch, watch_process
from corral.docker.logs import LogFollower
from corral.lib.backoff import grow_delay_s
from corral.lib.errors import Conflict, CorralError, Failed, NotFound, Unavailable
from corral.model.execution import Execution, Exit, Found, Launched
from corral.model.ids import ContainerId

PATIENCE_S = 20.0
"""How long a start or a recovery waits for an Engine that is away, such as one being restarted."""
ALIVE_S = 5.0
"""How often a long call asks whether the Engine still answers at all."""
NOTICE_S = 10.0
"""How long the Engine may take to notice an exit that the kernel has told already."""
UNNOTICED_S = 30.0
"""After this the kernel's word on an exit must do."""
LAST_WORDS_S = 10.0
"""How long an exit is held back until the task's last output is in its sandbox."""
REMOVE_LOGS_S = 60.0

T = TypeVar("T")
Pause = Callable[[float], Awaitable[None]]


class _ImageMissing(Exception):
    pass


class _Run:
    """One container that is known here."""

    __slots__ = ("asked_to_stop", "container_id", "engine_id", "exit", "follower", "gone_at", "stop_signal", "watch")

    def __init__(self, container_id: ContainerId, inspected: Json, watch: ProcessWatch | None) -> None:
        self.container_id = container_id
        self.engine_id = str(inspected.get("Id", ""))
        self.stop_signal = str((inspected.get("Config") or {}).get("StopSignal") or "SIGTERM")
        self.watch = watch
        self.asked_to_stop = False
        self.gone_at: float | None = None
        self.follower: LogFollower | None = None
        self.exit: asyncio.Task[Exit]

    @property
    def name(self) -> str:
        return container_name(self.container_id)


class DockerRuntime:
    """The docker half of an agent. `owner` tells its containers from those of other agents on the same Engine; it must
    be the same after a restart.
    """

    name = "docker"

    def __init__(
        self,
        engine: Engine,
        owner: str,
        *,
        say: Callable[[str], None] = lambda words: None,
        pause: Pause = asyncio.sleep,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.engine = engine
        self.owner = owner
        self._say = say
        self._pause = pause
        self._patience_s = patience_s
        self._local = urlsplit(engine.url).scheme == "unix"
        self._runs: dict[str, _Run] = {}
        self._starting: set[str] = set()
        self._pulls: dict[str, asyncio.Task[None]] = {}
        self._background: set[asyncio.Task[None]] = set()
        # More at once only adds latency: the Engine's own limit lies there. Source: node experiments, 11.
        self._starts = asyncio.Semaphore(2 * (os.cpu_count() or 1))

    async def ready(self) -> str | None:
        try:
            await self.engine.ping()
        except CorralError as error:
            return explain_unready(self.engine.url, error)
        return None

    # Start.

    async def start(self, execution: Execution) -> Launched:
        """Errors: `Failed` with a reason a user understands; nothing of the container is left then."""
        body = create_body(execution, self.owner)
        docker = execution.docker
        assert docker is not None  # create_body has refused it otherwise
        name = container_name(execution.container_id)
        self._starting.add(name)
        try:
            if docker.force_pull_image:
                await self._pull(docker.image)
            try:
                inspected = await self._start_patiently(name, execution, body)
            except _ImageMissing:
                await self._pull(docker.image)
                inspected = await self._start_patiently(name, execution, body)
        except _ImageMissing:
            raise Failed(f"image {docker.image}: pulled, but Docker still does not find it; check its name") from None
        except asyncio.CancelledError:
            self._starting.discard(name)
            self._clear_away(name, doubtful=True)
            raise
        finally:
            self._starting.discard(name)
        self._adopt(execution.container_id, inspected)
        return read_launched(execution.container_id, inspected)

    async def _start_patiently(self, name: str, execution: Execution, body: Json) -> Json:
        deadline = time.monotonic() + self._patience_s
        tries = 0
        async with self._starts:
            while True:
                try:
                    return await self._while_answering(self._start_once(name, execution, body))
                except Unavailable as error:
                    tries += 1
                    if time.monotonic() > deadline:
                        self._starting.discard(name)
                        self._clear_away(name, doubtful=True)
                        raise Failed(
                            f"task {execution.task_id} was not started: {error.message}; see to the Docker daemon"
                        ) from None
                    await self._pause(grow_delay_s(tries, first_s=0.1, factor=2.0, most_s=2.0))

    async def _start_once(self, name: str, execution: Execution, body: Json) -> Json:
        try:
            await self.engine.create(name, body)
        except NotFound as error:
            if "no such image" in error.message.lower():
                raise _ImageMissing from None
            raise explain_start(execution, error) from None
        except Conflict as error:
            # An earlier try of the same start, perhaps by an agent that has died since.
            there = await self._inspect_or_none(name)
            if there is None:
                raise Unavailable(f"container {name} is being removed: {error.message}") from None
            if _labels(there).get(LABEL_CONTAINER) != execution.container_id:
                raise Failed(f"container name {name} is taken by something else; remove that container") from None
            if not never_started(there):
                return there
        except Failed as error:
            raise explain_start(execution, error) from None
        try:
            await self.engine.start(name)
        except Unavailable:
            raise
        except CorralError as error:
            self._starting.discard(name)
            try:
                await self.engine.remove(name, force=True)
            except CorralError:
                self._clear_away(name)
            raise explain_start(execution, error) from None
        return await self.engine.inspect(name)

    async def _pull(self, image: str) -> None:
        """Pull an image once for all who want it at this moment."""
        pull = self._pulls.get(image)
        if pull is None:
            pull = self._pulls[image] = asyncio.create_task(self.engine.pull(image), name=f"pull {image}")
            pull.add_done_callback(lambda _: self._pulls.pop(image, None))
        try:
            await asyncio.shield(pull)
        except CorralError as error:
            raise explain_pull(image, error) from None

    async def _while_answering(self, work: Coroutine[Any, Any, T], every_s: float = ALIVE_S) -> T:
        """Do slow work, but give up as soon as the Engine answers nothing at all.

        Errors: `Unavailable` then; what became of the work is unknown.
        """
        task = asyncio.create_task(work)
        try:
            while True:
                done, _ = await asyncio.wait({task}, timeout=every_s)
                if done:
                    return task.result()
                await self.engine.ping()
        finally:
            if not task.done():
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, CorralError):
                    await task

    def _clear_away(self, name: str, *, doubtful: bool = False) -> None:
        """Remove in the background what a failed start has left; `doubtful` when the Engine may yet bring it about."""

        async def clear() -> None:
            # An Engine that hung when it was asked may create the container after it has first said there is none.
            looks = 2 if doubtful else 1
            tries = 0
            while looks and name not in self._starting:
                try:
                    await self.engine.remove(name, force=True)
                    return
                except NotFound:
                    looks -= 1
                except CorralError:
                    pass
                tries += 1
                if looks:
                    await self._pause(grow_delay_s(tries, first_s=0.5, factor=2.0, most_s=5.0))

        task = asyncio.create_task(clear(), name=f"clear away {name}")
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    # Watch.

    def _adopt(self, container_id: ContainerId, inspected: Json) -> _Run:
        run = self._runs.get(container_id)
        if run is not None:
            return run
        pid = (inspected.get("State") or {}).get("Pid")
        engine_id = str(inspected.get("Id", ""))
        watch = watch_process(pid, engine_id) if self._local and pid and engine_id else None
        run = self._runs[container_id] = _Run(container_id, inspected, watch)
        if sandbox := _labels(inspected).get(LABEL_SANDBOX):
            run.follower = LogFollower(self.engine, run.name, sandbox, say=self._say, pause=self._pause)
        run.exit = asyncio.create_task(self._await_exit(run), name=f"exit of {run.name}")
        run.exit.add_done_callback(_look_at)
        return run

    async def wait(self, container_id: str) -> Exit:
        run = self._runs.get(container_id) or await self._find(container_id)
        try:
            return await asyncio.shield(run.exit)
        except NotFound:
            await self._forget(run)
            raise

    async def _find(self, container_id: str) -> _Run:
        """Errors: `NotFound` when the Engine does not know it or never started it."""
        tries = 0
        while True:
            try:
                inspected = await self.engine.inspect(container_name(container_id))
            except Unavailable:
                tries += 1
                await self._pause(grow_delay_s(tries, first_s=0.1, factor=2.0, most_s=5.0))
                continue
            if never_started(inspected):
                raise NotFound(f"container {container_name(container_id)} was never started")
            return self._adopt(ContainerId(container_id), inspected)

    async def _await_exit(self, run: _Run) -> Exit:
        found = await self._learn_exit(run)
        if run.follower is not None and not await run.follower.finish(LAST_WORDS_S):
            self._say(f"container {run.name} has ended, its last output is still being copied")
        return found

    async def _learn_exit(self, run: _Run) -> Exit:
        tries = 0
        while True:
            if run.watch is not None and run.gone_at is None:
                await run.watch.gone()
                run.gone_at = time.time()
            noticed = True
            try:
                await self.engine.wait(run.name, None if run.watch is None else NOTICE_S)
                inspected = await self.engine.inspect(run.name)
                if has_ended(inspected):
                    return read_exit(run.container_id, inspected, run.watch.oom_kills if run.watch else None)
            except NotFound:
                if run.watch is None:
                    raise
                return self._exit_by_kernel(run, "its container was removed by somebody else")
            except CorralError:
                noticed = False
            if run.gone_at is not None and time.time() - run.gone_at > UNNOTICED_S:
                exit = await self._exit_unnoticed(run)
                if exit is not None:
                    return exit
            tries += 1
            await self._pause(grow_delay_s(tries, first_s=0.05, factor=2.0, most_s=1.0 if noticed else 5.0))

    async def _exit_unnoticed(self, run: _Run) -> Exit | None:
        """The exit of a process that the kernel says is gone and Docker does not; None while there is hope."""
        assert run.watch is not None
        if run.watch.wait_status() is not None:
            return self._exit_by_kernel(run, "Docker was away or blind when it ended")
        if await self._inspect_or_none(run.name) is None:
            return None  # away: it will know the code when it comes back
        # An Engine whose containerd was restarted shows such a container as running for ever.
        return self._exit_by_kernel(run, "Docker did not notice its end; restart the Docker daemon")

    def _exit_by_kernel(self, run: _Run, why: str) -> Exit:
        assert run.watch is not None
        status = run.watch.wait_status()
        killed = status is not None and os.WIFSIGNALED(status)
        return Exit(
            container_id=run.container_id,
            code=os.WEXITSTATUS(status) if status is not None and not killed else None,
            signal=os.WTERMSIG(status) if status is not None and killed else None,
            oom=bool(run.watch.oom_kills) and status != 0,
            message=why,
            at=run.gone_at or time.time(),
        )

    async def _inspect_or_none(self, name: str) -> Json | None:
        with contextlib.suppress(NotFound, Unavailable):
            return await self.engine.inspect(name)
        return None

    # End.

    async def kill(self, container_id: str, grace_s: float) -> None:
        try:
            run = self._runs.get(container_id) or await self._find(container_id)
        except NotFound:
            return
        if grace_s > 0 and not run.exit.done():
            if not run.asked_to_stop:
                run.asked_to_stop = True
                await self._signal(run, run.stop_signal)
            await self._gone_within(run, grace_s)
        if not run.exit.done() and not (run.watch is not None and run.watch.has_gone()):
            await self._signal(run, "SIGKILL")

    async def _gone_within(self, run: _Run, timeout_s: float) -> None:
        waits: set[asyncio.Task[Any]] = {run.exit}
        gone = asyncio.create_task(run.watch.gone()) if run.watch is not None else None
        if gone is not None:
            waits.add(gone)
        try:
            await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if gone is not None:
                gone.cancel()

    async def _signal(self, run: _Run, name: str) -> None:
        """Send a signal through Docker, or past it when it is away."""
        tries = 0
        while not run.exit.done():
            try:
                return await self._while_answering(self.engine.kill(run.name, name), every_s=1.0)
            except (Conflict, NotFound):
                return  # does not run any more
            except CorralError as error:
                if run.watch is not None:
                    with contextlib.suppress(ProcessLookupError):
                        run.watch.send(_signal_number(name))
                    return
                if not isinstance(error, Unavailable):
                    raise
            tries += 1
            await self._pause(grow_delay_s(tries, first_s=0.1, factor=2.0, most_s=5.0))

    async def remove(self, container_id: str) -> None:
        """Errors: `Conflict` while it runs; `Unavailable` when Docker is away for longer than a restart takes."""
        run = self._runs.get(container_id)
        if run is not None and run.exit.done() and run.follower is not None:
            await run.follower.finish(REMOVE_LOGS_S)
        ended = run is not None and run.exit.done()
        name = container_name(container_id)
        deadline = time.monotonic() + self._patience_s
        tries = 0
        while True:
            try:
                # By force only where the kernel knows it has ended while Docker may believe otherwise.
                await self.engine.remove(name, force=ended)
                break
            except NotFound:
                break
            except Conflict as error:
                if "already in progress" in error.message:
                    break
                raise
            except Unavailable:
                if time.monotonic() > deadline:
                    raise
            tries += 1
            await self._pause(grow_delay_s(tries, first_s=0.1, factor=2.0, most_s=2.0))
        if run is not None:
            await self._forget(run)

    async def _forget(self, run: _Run) -> None:
        self._runs.pop(run.container_id, None)
        run.exit.cancel()
        await asyncio.wait({run.exit})
        if run.follower is not None:
            await run.follower.close()
        if run.watch is not None:
            run.watch.close()

    # Find again.

    async def recover(self) -> Sequence[Found]:
        """Errors: `Unavailable` when Docker is away for longer than a restart takes; what runs, runs on."""
        found: list[Found] = []
        for inspected in await self._inspect_all():
            if never_started(inspected):
                # Its start was cut short by the end of an agent; whoever wants it starts it anew.
                self._clear_unstarted(str(inspected.get("Name", "")).lstrip("/"))
                continue
            one = read_found(inspected)
            if one is not None:
                self._adopt(one.container_id, inspected)
                found.append(one)
        return found

    async def _inspect_all(self) -> list[Json]:
        deadline = time.monotonic() + self._patience_s
        tries = 0
        while True:
            try:
                listed = await self.engine.list_labelled(LABEL_AGENT, self.owner)
                found = []
                for entry in listed:
                    with contextlib.suppress(NotFound):
                        found.append(await self.engine.inspect(str(entry["Id"])))
                return found
            except Unavailable:
                if time.monotonic() > deadline:
                    raise
            tries += 1
            await self._pause(grow_delay_s(tries, first_s=0.1, factor=2.0, most_s=2.0))

    def _clear_unstarted(self, name: str) -> None:
        if name and name not in self._starting:
            self._clear_away(name)

    # Reach into.

    def exec(self, container_id: str, argv: Sequence[str], *, tty: bool) -> "DockerExec":
        run = self._runs.get(container_id)
        engine_id = run.engine_id if run is not None and self._local else ""
        return DockerExec(self.engine, container_name(container_id), engine_id, argv, tty=tty)

    async def close(self) -> None:
        for run in list(self._runs.values()):
            await self._forget(run)
        tasks = [*self._background, *self._pulls.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.engine.close()


class DockerExec:
    """A further command in a running container. Leaving it ends the command, which Docker by itself would not do."""

    def __init__(self, engine: Engine, name: str, engine_id: str, argv: Sequence[str], *, tty: bool) -> None:
        self._engine = engine
        self._name = name
        self._engine_id = engine_id
        self._argv = argv
        self._tty = tty
        self._stream: ExecStream | None = None

    async def __aenter__(self) -> "DockerExec":
        """Errors: `NotFound` when there is no such task, `Conflict` when it does not run."""
        self._stream = await self._engine.exec(self._name, self._argv, tty=self._tty)
        return self

    async def __aexit__(self, *_: object) -> None:
        stream = self._opened()
        try:
            with contextlib.suppress(CorralError):
                told = await stream.inspect()
                if told.get("Running"):
                    self._end(int(told.get("Pid") or 0))
                    with contextlib.suppress(CorralError):
                        await stream.write(b"")  # where the process is out of reach, the end of its input must do
        finally:
            await stream.close()

    def _end(self, pid: int) -> None:
        try:
            if not pid or not self._engine_id or self._engine_id not in Path(f"/proc/{pid}/cgroup").read_text():
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
        await self._opened().resize(rows, columns)

    async def exit_code(self) -> int:
        """Wait for the command's end and return its code."""
        delay_s = 0.01
        while (told := await self._opened().inspect()).get("Running"):
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, 1.0)
        return int(told.get("ExitCode") or 0)


def explain_unready(url: str, error: CorralError) -> str:
    """Why no task can be started on this Engine, and what to do about it."""
    path = urlsplit(url).path
    other = "or run tasks without Docker by --runtime process"
    if urlsplit(url).scheme == "unix":
        if not os.path.exists(path):
            return (
                f"Docker is not there: {path} does not exist; install and start it (apt-get install docker.io), "
                f"say where it is with --docker-host, {other}"
            )
        if not os.access(path, os.R_OK | os.W_OK):
            return f"Docker refuses this user at {path}; run as root or join the group docker, {other}"
    if "cannot be reached" in error.message:
        return f"{error.message}; start the Docker daemon (systemctl start docker), {other}"
    return f"{error.message}; restart the Docker daemon (systemctl restart docker), {other}"


def _labels(inspected: Json) -> dict[str, str]:
    return (inspected.get("Config") or {}).get("Labels") or {}


def _signal_number(name: str) -> int:
    if name.isdigit():
        return int(name)
    full = name.upper() if name.upper().startswith("SIG") else f"SIG{name.upper()}"
    return int(getattr(signal, full, signal.SIGTERM))


def _look_at(task: asyncio.Task[Exit]) -> None:
    """Nobody may be waiting; an exception must not be reported as forgotten then."""
    if not task.cancelled():
        task.exception()
