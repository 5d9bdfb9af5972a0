"""An Engine in memory, behind the interface of the real one, for trying the runtime without Docker.

Commands do what `fake.foresee` says. What an experiment may do to it: take it away and bring it back (`away`), let it
hang (`hangs`), take its images, refuse starts. One contract suite holds it and a real Engine to the same behaviour.
"""

import asyncio
import io
import tarfile
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any

from corral.docker.engine import ExecStream, Json
from corral.docker.fake import SIGKILL, SIGTERM, Fate, foresee
from corral.docker.stream import STDERR, STDOUT, as_seconds, order, write_stamp
from corral.lib.clock import Clock, system_clock
from corral.lib.errors import Conflict, Failed, Invalid, NotFound, Unavailable

_NEVER = "0001-01-01T00:00:00Z"


class _Container:
    def __init__(self, name: str, number: int, body: Json) -> None:
        self.id = f"{number:064x}"
        self.name = name
        self.body = body
        self.fate = foresee([*(body.get("Entrypoint") or ()), *(body.get("Cmd") or ())])
        self.status = "created"
        self.started_at = self.finished_at = _NEVER
        self.code = 0
        self.timers: list[asyncio.TimerHandle] = []
        self.log: list[tuple[int, bytes]] = []
        mode = str((body.get("HostConfig") or {}).get("NetworkMode") or "bridge")
        self.shares = mode.removeprefix("container:") if mode.startswith("container:") else ""
        self.networks = [] if self.shares or mode in ("host", "none") else [mode]
        self.changed = asyncio.Condition()


class FakeEngine:
    """Errors of all calls: as of the real one; `Unavailable` while `away`, and for streams when it goes away."""

    url = "fake://engine"

    def __init__(self, *, clock: Clock = system_clock, images: Sequence[str] = ("busybox:latest",)) -> None:
        self.images = set(images)
        self.registry: set[str] = set()
        """Images that a pull can bring."""
        self.private: dict[str, str] = {}
        """Of these, what a pull has to show."""
        self.shown: list[str] = []
        """What pulls have shown, in their order."""
        self.directories: dict[str, str] = {}
        """Where programs of an image start; of those that are not named it is not said."""
        self.networks: set[str] = {"bridge"}
        """Networks that containers may be connected to."""
        self.start_refusal: str | None = None
        """The words with which every start is refused."""
        self.calls: list[str] = []
        self._clock = clock
        self._containers: dict[str, _Container] = {}
        self._made = 0
        self._ticks = 0
        self._away = False
        self._answers = asyncio.Event()
        self._answers.set()
        self._broken = asyncio.Event()

    def go_away(self) -> None:
        """Refuse all calls and break all streams; containers run on."""
        self._away = True
        self._broken.set()

    def come_back(self) -> None:
        self._away = False
        self._broken = asyncio.Event()

    def hang(self) -> None:
        """Take calls and answer none until `answer`, except that a ping gives up."""
        self._answers.clear()

    def answer(self) -> None:
        self._answers.set()

    async def say(self, container: str, kind: int, line: str) -> None:
        """Let a running container write a line."""
        await self._log(self._get(container), kind, line)

    async def _enter(self, call: str) -> None:
        self.calls.append(call)
        await self._answers.wait()
        if self._away:
            raise Unavailable(f"Docker at {self.url} cannot be reached ({call}): it is away")

    def _get(self, container: str) -> _Container:
        for one in self._containers.values():
            if container in (one.name, one.id):
                return one
        raise NotFound(f"No such container: {container}")

    async def ping(self) -> None:
        if not self._answers.is_set():
            raise Unavailable(f"Docker at {self.url} does not answer within 3 s (ping)")
        await self._enter("ping")

    async def version(self) -> Json:
        await self._enter("version")
        return {"ApiVersion": "1.41", "MinAPIVersion": "1.12", "Version": "0", "Arch": "amd64"}

    async def image_exists(self, image: str) -> bool:
        await self._enter(f"image {image}")
        return image in self.images

    async def pull(self, image: str, auth: str = "") -> None:
        await self._enter(f"pull {image}")
        await asyncio.sleep(0)
        self.shown.append(auth)
        if image in self.private and auth != self.private[image]:
            raise Failed(f"pull access denied for {image}, repository does not exist or may require 'docker login'")
        if image not in self.registry:
            raise Failed(f"manifest for {image} not found: manifest unknown")
        self.images.add(image)

    async def directory_of(self, image: str) -> str:
        await self._enter(f"image {image}")
        if image not in self.images:
            raise NotFound(f"No such image: {image}")
        return self.directories.get(image, "")

    async def load(self, image: str, tar: bytes) -> None:
        await self._enter(f"load {image}")
        if image != image.lower() or " " in image:
            raise Invalid(f"invalid reference format: {image!r}")
        with tarfile.open(fileobj=io.BytesIO(tar)) as read:
            read.getmembers()
        self.images.add(image)

    async def create(self, name: str, body: Json) -> str:
        await self._enter(f"create {name}")
        if body.get("Image") not in self.images:
            raise NotFound(f"No such image: {body.get('Image')}")
        if name in self._containers:
            raise Conflict(f'Conflict. The container name "/{name}" is already in use')
        self._made += 1
        made = self._containers[name] = _Container(name, self._made, body)
        return made.id

    async def connect(self, container: str, network: str) -> None:
        await self._enter(f"connect {container} {network}")
        one = self._get(container)
        if network in one.networks:
            raise Failed(f"endpoint with name {one.name} already exists in network {network}")
        one.networks.append(network)

    async def start(self, container: str) -> None:
        await self._enter(f"start {container}")
        one = self._get(container)
        if one.status == "running":
            return
        self._check_networks(one)
        if self.start_refusal is not None:
            raise Failed(self.start_refusal)
        if one.fate.missing is not None:
            one.status, one.code = "exited", 127
            raise Failed(f'OCI runtime create failed: exec: "{one.fate.missing}": executable file not found in $PATH')
        one.status, one.started_at = "running", self._stamp()
        for kind, text in ((STDOUT, one.fate.out), (STDERR, one.fate.err)):
            for line in text.splitlines(keepends=True):
                await self._log(one, kind, line)
        if one.fate.after_s is not None:
            self._end_later(one, one.fate.after_s, _code_of(one.fate))

    async def inspect(self, container: str) -> Json:
        await self._enter(f"inspect {container}")
        one = self._get(container)
        return {
            "Id": one.id,
            "Name": f"/{one.name}",
            "Config": {"Labels": dict(one.body.get("Labels") or {}), "StopSignal": one.body.get("StopSignal")},
            "HostConfig": one.body.get("HostConfig") or {},
            "NetworkSettings": {"Networks": self._addresses(one)},
            "State": {
                "Status": one.status,
                "Running": one.status == "running",
                "Pid": int(one.id, 16) if one.status == "running" else 0,
                "ExitCode": one.code,
                "StartedAt": one.started_at,
                "FinishedAt": one.finished_at,
            },
        }

    def _check_networks(self, one: _Container) -> None:
        for network in one.networks:
            if network not in self.networks:
                raise NotFound(f"network {network} not found")
        if one.shares and self._get(one.shares).status != "running":
            raise Conflict(f"cannot join network of a non running container: {one.shares}")
        for other in self._containers.values():
            taken = _published(one) & _published(other)
            if other.status == "running" and taken:
                raise Failed(f"Bind for 0.0.0.0:{min(taken)} failed: port is already allocated")

    def _addresses(self, one: _Container) -> Json:
        """An address per network while it runs."""
        number = int(one.id, 16)
        return {
            network: {"IPAddress": f"172.{17 + index}.0.{number}" if one.status == "running" else ""}
            for index, network in enumerate(one.networks)
        }

    async def list_labelled(self, label: str, value: str) -> list[Json]:
        await self._enter("list")
        found = self._containers.values()
        return [{"Id": one.id} for one in found if (one.body.get("Labels") or {}).get(label) == value]

    async def wait(self, container: str, timeout_s: float | None) -> None:
        await self._enter(f"wait {container}")
        one = self._get(container)
        if not await self._or_break(one, lambda: one.status != "running", timeout_s):
            raise Unavailable(f"Docker at {self.url} does not answer within {timeout_s:g} s (wait)")

    async def kill(self, container: str, signal: str) -> None:
        await self._enter(f"kill {container} {signal}")
        one = self._get(container)
        if one.status != "running":
            raise Conflict(f"Container {container} is not running")
        if signal in ("KILL", "SIGKILL"):
            self._end_later(one, 0.0, 128 + SIGKILL)
        elif one.fate.stop_code is not None:
            self._end_later(one, one.fate.stop_s, one.fate.stop_code)
        elif not one.fate.ignores_stop:
            self._end_later(one, 0.0, 128 + SIGTERM)

    async def remove(self, container: str, *, force: bool) -> None:
        await self._enter(f"remove {container}")
        one = self._get(container)
        if one.status == "running":
            if not force:
                raise Conflict(f"You cannot remove a running container {one.id}")
            await self._end(one, 128 + SIGKILL)
        del self._containers[one.name]

    async def logs(
        self, container: str, *, since: str | None = None, tail: int | None = None, follow: bool = False
    ) -> AsyncGenerator[bytes, None]:
        await self._enter(f"logs {container}")
        one = self._get(container)
        at = 0 if tail is None else max(0, len(one.log) - tail)
        while True:
            while at < len(one.log):
                kind, entry = one.log[at]
                at += 1
                if since is None or not _is_before(entry, since):
                    yield bytes((kind, 0, 0, 0)) + len(entry).to_bytes(4, "big") + entry
            if not follow or one.status != "running":
                return
            await self._or_break(one, _has_more(one, at), None)

    async def exec(self, container: str, argv: Sequence[str], *, tty: bool) -> ExecStream:
        await self._enter(f"exec {container}")
        if self._get(container).status != "running":
            raise Conflict(f"Container {container} is not running")
        return _FakeExecStream(foresee(argv))

    async def stats(self, container: str) -> Json:
        await self._enter(f"stats {container}")
        return {"id": self._get(container).id, "memory_stats": {}}

    async def update(self, container: str, changes: Json) -> None:
        await self._enter(f"update {container}")
        self._get(container).body.setdefault("HostConfig", {}).update(changes)

    async def close(self) -> None:
        """Containers run on."""

    def _stamp(self) -> str:
        self._ticks += 1  # no two entries bear the same time
        return write_stamp(self._clock()).decode()[:-4] + f"{self._ticks % 1000:03d}Z"

    async def _log(self, one: _Container, kind: int, line: str) -> None:
        async with one.changed:
            one.log.append((kind, f"{self._stamp()} {line}".encode()))
            one.changed.notify_all()

    def _end_later(self, one: _Container, delay_s: float, code: int) -> None:
        def end() -> None:
            task = loop.create_task(self._end(one, code))
            ends.add(task)
            task.add_done_callback(ends.discard)

        loop = asyncio.get_running_loop()
        ends: set[asyncio.Task[None]] = set()
        one.timers.append(loop.call_later(delay_s, end))

    async def _end(self, one: _Container, code: int) -> None:
        if one.status != "running":
            return
        for timer in one.timers:
            timer.cancel()
        async with one.changed:
            one.status, one.code, one.finished_at = "exited", code, self._stamp()
            one.changed.notify_all()

    async def _or_break(self, one: _Container, done: Callable[[], bool], timeout_s: float | None) -> bool:
        """Wait until it is so. Errors: `Unavailable` when the Engine goes away meanwhile."""

        async def come() -> None:
            async with one.changed:
                await one.changed.wait_for(done)

        waits: list[asyncio.Task[Any]] = [_task(come()), _task(self._broken.wait())]
        try:
            await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if waits[1].done() and not waits[0].done():
                raise Unavailable(f"Docker at {self.url} broke off")
            return waits[0].done()
        finally:
            for task in waits:
                task.cancel()


class _FakeExecStream:
    def __init__(self, fate: Fate) -> None:
        self._fate = fate
        self._left = [(n, t.encode()) for n, t in (("stdout", fate.out), ("stderr", fate.err)) if t]
        self._closed = asyncio.Event()

    async def read(self) -> tuple[str, bytes] | None:
        if self._left:
            return self._left.pop(0)
        if self._fate.after_s is None:
            await self._closed.wait()
        return None

    async def write(self, data: bytes) -> None:
        if not data:
            self._closed.set()

    async def resize(self, rows: int, columns: int) -> None:
        return None

    async def inspect(self) -> Json:
        runs = self._fate.after_s is None and not self._closed.is_set()
        return {"Running": runs, "ExitCode": _code_of(self._fate), "Pid": 0}

    async def close(self) -> None:
        self._closed.set()


def _published(one: _Container) -> set[int]:
    bound = (one.body.get("HostConfig") or {}).get("PortBindings") or {}
    return {int(each["HostPort"]) for bindings in bound.values() for each in bindings}


def _has_more(one: _Container, read: int) -> Callable[[], bool]:
    return lambda: read < len(one.log) or one.status != "running"


def _task(work: Awaitable[Any]) -> "asyncio.Task[Any]":
    return asyncio.ensure_future(work)


def _code_of(fate: Fate) -> int:
    if fate.missing is not None:
        return 127
    return fate.code if fate.code is not None else 128 + fate.signal if fate.signal is not None else 0


def _is_before(entry: bytes, since: str) -> bool:
    return order(as_seconds(entry.partition(b" ")[0].decode())) < order(since)
