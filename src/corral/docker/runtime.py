"""Runs tasks as containers of a real Docker Engine.

Streams and answers of the Engine are hints; what `inspect` says is the truth, and where the Engine is on this machine
the kernel tells exits by itself. So a daemon that hangs, dies or restarts is waited for and never taken for the end of
a task. Every container is named and labelled, so a restarted agent finds them all. Source: node experiments, crash of
dockerd and containerd.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from signal import Signals
from typing import Protocol
from urllib.parse import urlsplit

import msgspec

from corral.docker.containers import (
    LABEL_AGENT,
    LABEL_CONTAINER,
    LABEL_HOLDER,
    LEAST_MEMORY_MB,
    SANDBOX_INSIDE,
    container_name,
    create_body,
    explain_pull,
    explain_start,
    labels_of,
    never_started,
    read_found,
    read_launched,
)
from corral.docker.engine import Engine, Json
from corral.docker.holders import LOST, Holders
from corral.docker.registry import make_header
from corral.docker.runs import Pause, Run, clear_away, while_answering
from corral.docker.session import DockerExec
from corral.lib.backoff import grow_delay_s
from corral.lib.errors import Conflict, CorralError, Failed, NotFound, Unavailable
from corral.model.execution import Bound, Execution, Exit, Found, Launched
from corral.model.ids import ContainerId

INSPECTS = 8
"""How many containers are asked for at once in a recovery: a restarted agent waits for nothing else."""
PATIENCE_S = 20.0
"""How long a start or a recovery waits for an Engine that is away, such as one being restarted."""


class Guards(Protocol):
    """Who ends a container whose agent is cut off, stopped or dead."""

    async def begin(self, container: str, bound: Bound) -> None: ...
    def check(self, bound: Bound) -> None: ...
    def target(self, container: str, pid: int, engine_id: str, stop_signal: int) -> None: ...
    async def resume(self, container: str) -> None: ...
    def why_fenced(self, container: str) -> str: ...
    async def end(self, container: str) -> None: ...


_MOST_CREDENTIALS = 1 << 20


class _ImageMissing(Exception):
    pass


class DockerRuntime:
    """The docker half of an agent. `owner` tells its containers from those of other agents on the same Engine; it must
    be the same after a restart. Without `guards` nobody but the agent ends a task that is cut off for too long.
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
        guards: Guards | None = None,
    ) -> None:
        self._guards = guards
        self.engine = engine
        self.owner = owner
        self._say = say
        self._pause = pause
        self._patience_s = patience_s
        self._local = urlsplit(engine.url).scheme == "unix"
        self._runs: dict[str, Run] = {}
        self._starting: set[str] = set()
        self._holders = Holders(engine, owner, self._lose, pause)
        self._pulls: dict[tuple[str, str], asyncio.Task[None]] = {}
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
        begun = False
        try:
            if self._guards is not None and execution.bound is not None:
                await self._guards.begin(name, execution.bound)
            if docker.force_pull_image:
                await self._pull(execution)
            try:
                inspected = await self._start_patiently(name, execution, body)
            except _ImageMissing:
                await self._pull(execution)
                inspected = await self._start_patiently(name, execution, body)
            begun = True
        except _ImageMissing:
            raise Failed(f"image {docker.image}: pulled, but Docker still does not find it; check its name") from None
        except asyncio.CancelledError:
            self._starting.discard(name)
            self._clear_away(name, doubtful=True)
            raise
        finally:
            self._starting.discard(name)
            if not begun:
                self._holders.leave(execution.container_id)
            if not begun and self._guards is not None and execution.bound is not None:
                # Guarded until it is sure that nothing of it is there.
                self._clear_away(name, doubtful=True)
        self._adopt(execution.container_id, inspected)
        return self._place(read_launched(execution.container_id, inspected))

    def _place(self, launched: Launched) -> Launched:
        """With the addresses that it shares with others, if it does."""
        shared = self._holders.addresses_of(launched.container_id)
        return msgspec.structs.replace(launched, ip=shared[0][1], more_ips=shared[1:]) if shared else launched

    async def _start_patiently(self, name: str, execution: Execution, body: Json) -> Json:
        deadline = time.monotonic() + self._patience_s
        tries = 0
        async with self._starts:
            while True:
                try:
                    return await while_answering(self.engine, self._start_once(name, execution, body))
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
            if execution.at_home and "WorkingDir" not in body and not await self._says_where(execution):
                body = {**body, "WorkingDir": SANDBOX_INSIDE}
            if execution.shared is not None:
                await self._holders.join(execution.container_id, execution.shared)
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
            if labels_of(there).get(LABEL_CONTAINER) != execution.container_id:
                raise Failed(f"container name {name} is taken by something else; remove that container") from None
            if not never_started(there):
                return there
        except Failed as error:
            raise explain_start(execution, error) from None
        self._check_bound(execution)
        try:
            await self._connect(name, execution)
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

    async def _says_where(self, execution: Execution) -> bool:
        """Whether the image itself says in which directory its programs start."""
        assert execution.docker is not None
        return bool(await self.engine.directory_of(execution.docker.image))

    async def _connect(self, name: str, execution: Execution) -> None:
        """Give the container the networks beside its first, before anything of it runs."""
        if not execution.more_networks:
            return
        # An earlier try of the same start may have done some of it.
        settings = (await self.engine.inspect(name)).get("NetworkSettings") or {}
        there = settings.get("Networks") or {}
        for network in execution.more_networks:
            if network not in there:
                await self.engine.connect(name, network)

    def _check_bound(self, execution: Execution) -> None:
        """Errors: `Failed` when this agent was stopped for so long that the task may run elsewhere by now."""
        if self._guards is None or execution.bound is None:
            return
        self._guards.check(execution.bound)

    async def _unguard(self, name: str) -> None:
        if self._guards is not None and name not in self._starting:
            await self._guards.end(name)

    async def _pull(self, execution: Execution) -> None:
        """Pull an image once for all who want it at this moment with the same credentials."""
        assert execution.docker is not None
        image = execution.docker.image
        # Read at once: between a look into another thread and back, somebody's pull could end and be begun anew.
        key = (image, find_credentials(execution))
        pull = self._pulls.get(key)
        if pull is None:
            pull = self._pulls[key] = asyncio.create_task(self.engine.pull(*key), name=f"pull {image}")
            pull.add_done_callback(lambda _: self._pulls.pop(key, None))
        try:
            await asyncio.shield(pull)
        except CorralError as error:
            raise explain_pull(image, error) from None

    def _clear_away(self, name: str, *, doubtful: bool = False) -> None:
        """Remove in the background what a failed start has left; `doubtful` when the Engine may yet bring it about."""

        async def clear() -> None:
            await clear_away(
                lambda: self.engine.remove(name, force=True), self._pause, looks=2 if doubtful else 1,
                is_wanted=lambda: name in self._starting,
            )  # fmt: skip
            await self._unguard(name)

        task = asyncio.create_task(clear(), name=f"clear away {name}")
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    # Watch.

    def _adopt(self, container_id: ContainerId, inspected: Json) -> Run:
        run = self._runs.get(container_id)
        if run is not None:
            return run
        run = self._runs[container_id] = Run(
            self.engine, container_id, inspected, local=self._local, say=self._say, pause=self._pause
        )
        if self._guards is not None and run.process is not None:
            self._guards.target(run.name, run.process, run.engine_id, run.stop_signal)
        return run

    async def wait(self, container_id: str) -> Exit:
        run = self._runs.get(container_id) or await self._find(container_id)
        try:
            return self._explain(await asyncio.shield(run.exit))
        except NotFound:
            await self._forget(run)
            raise

    def _explain(self, exit: Exit) -> Exit:
        """Say of an end that its guard brought it about, or the loss of its network."""
        if self._holders.was_lost(exit.container_id):
            return msgspec.structs.replace(exit, message=LOST)
        why = self._guards.why_fenced(container_name(exit.container_id)) if self._guards is not None else ""
        return msgspec.structs.replace(exit, fenced=True, message=why) if why else exit

    async def _find(self, container_id: str) -> Run:
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
        await run.stop(grace_s)

    async def _lose(self, container_id: str) -> None:
        """The container has lost its network for good."""
        self._say(f"container {container_name(container_id)} is ended: {LOST}")
        with suppress(CorralError):
            await self.kill(container_id, 0.0)

    async def resize(self, container_id: str, cpu_milli: int, mem_mb: int | None) -> None:
        changes: Json = {"CpuShares": max(2, cpu_milli * 1024 // 1000)}
        if mem_mb is not None:
            memory = max(mem_mb, LEAST_MEMORY_MB) << 20
            changes |= {"Memory": memory, "MemorySwap": memory}
        with suppress(NotFound, Conflict):
            await self.engine.update(container_name(container_id), changes)

    async def signal(self, container_id: str, number: int) -> None:
        try:
            # Those of real time have no name.
            name = Signals(number).name if number in tuple(Signals) else str(number)
            await self.engine.kill(container_name(container_id), name)
        except Conflict:
            raise NotFound(f"container {container_id} does not run, so that no signal reaches it") from None

    async def remove(self, container_id: str) -> None:
        """Errors: `Conflict` while it runs; `Unavailable` when Docker is away for longer than a restart takes."""
        run = self._runs.get(container_id)
        if run is not None:
            await run.finish_output()
        ended = run is not None and run.has_ended()
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
        self._holders.leave(container_id)
        await self._unguard(name)
        if run is not None:
            await self._forget(run)

    async def _forget(self, run: Run) -> None:
        self._runs.pop(run.container_id, None)
        await run.close()

    # Find again.

    async def recover(self) -> Sequence[Found]:
        """Errors: `Unavailable` when Docker is away for longer than a restart takes; what runs, runs on."""
        found: list[Found] = []
        all_there = await self._inspect_all()
        for inspected in all_there:
            if LABEL_HOLDER not in labels_of(inspected) and never_started(inspected):
                # Its start was cut short by the end of an agent; whoever wants it starts it anew.
                self._clear_unstarted(str(inspected.get("Name", "")).lstrip("/"))
        there = [one for one in all_there if LABEL_HOLDER in labels_of(one) or not never_started(one)]
        self._holders.find_again(there)
        for inspected in there:
            one = read_found(inspected)
            if one is not None:
                if self._guards is not None:
                    await self._guards.resume(container_name(one.container_id))
                self._adopt(one.container_id, inspected)
                found.append(self._complete(one))
        return found

    def _complete(self, found: Found) -> Found:
        if found.launched is not None:
            return msgspec.structs.replace(found, launched=self._place(found.launched))
        return found if found.exit is None else msgspec.structs.replace(found, exit=self._explain(found.exit))

    async def _inspect_all(self) -> list[Json]:
        deadline = time.monotonic() + self._patience_s
        tries = 0
        while True:
            try:
                listed = await self.engine.list_labelled(LABEL_AGENT, self.owner)
                return await self._inspect_each([str(entry["Id"]) for entry in listed])
            except Unavailable:
                if time.monotonic() > deadline:
                    raise
            tries += 1
            await self._pause(grow_delay_s(tries, first_s=0.1, factor=2.0, most_s=2.0))

    async def _inspect_each(self, ids: Sequence[str]) -> list[Json]:
        """What the Engine tells of each that is still there, several asked for at once."""
        at_once = asyncio.Semaphore(INSPECTS)

        async def look(engine_id: str) -> Json:
            async with at_once:
                return await self.engine.inspect(engine_id)

        looked = await asyncio.gather(*map(look, ids), return_exceptions=True)
        for one in looked:
            if isinstance(one, BaseException) and not isinstance(one, NotFound):
                raise one
        return [one for one in looked if not isinstance(one, BaseException)]

    def _clear_unstarted(self, name: str) -> None:
        if name and name not in self._starting:
            self._clear_away(name)

    # Reach into.

    def is_elsewhere(self, container_id: str) -> bool:
        run = self._runs.get(container_id)
        return run is not None and not run.is_watched

    def exec(self, container_id: str, argv: Sequence[str], *, tty: bool) -> DockerExec:
        run = self._runs.get(container_id)
        engine_id = run.engine_id if run is not None and self._local else ""
        return DockerExec(self.engine, container_name(container_id), engine_id, argv, tty=tty)

    async def close(self) -> None:
        await self._holders.close()
        for run in list(self._runs.values()):
            await self._forget(run)
        tasks = [*self._background, *self._pulls.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.engine.close()


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


def find_credentials(execution: Execution) -> str:
    """The header to pull the run's image with: from the secret it names, or from what was fetched into its sandbox.

    Source: Mesos' docker containerizer pulls with the sandbox as home, where a `.docker/config.json` may lie.
    """
    assert execution.docker is not None
    image = execution.docker.image
    if execution.registries is not None:
        return make_header(image, execution.registries.reveal(), f"the secret that image {image} names as pullConfig")
    for name in (os.path.join(".docker", "config.json"), ".dockercfg"):
        data = _read_fetched(execution.sandbox, name)
        if data is not None and (header := make_header(image, data, f"{name} in the task's sandbox")):
            return header
    return ""


def _read_fetched(sandbox: str, name: str) -> bytes | None:
    """Nothing when it is not there, or leads out of the sandbox."""
    path = os.path.join(sandbox, name)
    if not sandbox or os.path.realpath(path) != os.path.join(os.path.realpath(sandbox), name):
        return None
    try:
        with open(path, "rb") as file:
            return file.read(_MOST_CREDENTIALS)
    except OSError:
        return None
