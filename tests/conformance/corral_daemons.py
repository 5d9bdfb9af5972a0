"""Daemons of corral as real processes, the command line beside them, and how all of it is ended, tasks included."""

import asyncio
import dataclasses
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar
from urllib.parse import urlsplit

from tests.own_ports import write_task_ports

from corral.process.runtime import ProcessRuntime

T = TypeVar("T")

CORRAL = (str(Path(sys.executable).with_name("corral")),)
RESOURCES = f"cpus:4;mem:2048;disk:4096;{write_task_ports()}"
READY_S = 30.0


def clean_environment(**more: str) -> dict[str, str]:
    """This process' environment without what would steer corral."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("CORRAL_") and k != "DOCKER_HOST"}
    return {**kept, "NO_COLOR": "1", "PYTHONUNBUFFERED": "1", **more}


UNCOMPILED = ("--set", "kernel.compiled=no")
"""A master that compiles its engine takes minutes the first time, and decides the same."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a command said. Shapes: `out` and `err` are text."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def run_corral(addr: str, *words: str, stdin: str | bytes = "", timeout_s: float = 30.0, **environment: str) -> Answer:
    """One command against the master at `addr`; it never shows a traceback."""
    given = stdin.encode() if isinstance(stdin, str) else stdin
    ended = subprocess.run(
        [*CORRAL, *words],
        input=given,
        capture_output=True,
        timeout=timeout_s,
        env=clean_environment(**{"CORRAL_ADDR": addr, **environment} if addr else environment),
    )
    answer = Answer(ended.returncode, ended.stdout.decode(errors="replace"), ended.stderr.decode(errors="replace"))
    assert "Traceback" not in answer.err, answer
    return answer


class Daemon:
    """A process of corral. Shapes: `log` holds all lines it wrote, `url` is what it said to serve.

    `inside` is a command in front of it that ends by becoming it.
    """

    def __init__(self, *arguments: str, ready: bool = True, inside: Sequence[str] = (), **environment: str) -> None:
        self.arguments = arguments
        self.log: list[str] = []
        self.url = ""
        self.process = subprocess.Popen(
            [*inside, *CORRAL, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=clean_environment(**environment),
        )
        self._ready = threading.Event()
        assert self.process.stdout is not None
        self._reader = threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True)
        self._reader.start()
        if ready:
            self.wait_ready()

    def _read(self, output: IO[str]) -> None:
        for line in output:
            self.log.append(line.rstrip())
            if line.startswith("ready url="):
                self.url = line.split()[1].removeprefix("url=")
                self._ready.set()
        self._ready.set()

    def wait_ready(self) -> None:
        if not self._ready.wait(READY_S) or not self.url:
            self.stop()
            raise AssertionError(f"corral {' '.join(self.arguments)} did not get ready:\n{self.text}")

    @property
    def text(self) -> str:
        return "\n".join(self.log[-200:])

    def kill(self) -> None:
        """As if the power of this one process went."""
        self.process.kill()
        self.process.wait(10)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it as a person would; its exit code. It never shows a traceback."""
        if self.process.poll() is None:
            self.process.send_signal(number)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
        code = self.process.wait(5)
        self._reader.join(5)
        assert "Traceback" not in "\n".join(self.log), self.text
        return code


class Site:
    """One test's daemons below one directory; leaving it ends them and every task they have started."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.daemons: list[Daemon] = []

    def __enter__(self) -> "Site":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            for daemon in reversed(self.daemons):
                daemon.stop()
        finally:
            end_tasks(self.directory)
            wait_until(lambda: not list(processes_below(self.directory)), "the end of all processes")

    def start(self, *arguments: str, ready: bool = True, inside: Sequence[str] = (), **environment: str) -> Daemon:
        daemon = Daemon(*arguments, ready=ready, inside=inside, **environment)
        self.daemons.append(daemon)
        return daemon

    def dev(self, *more: str, name: str = "dev") -> Daemon:
        return self.start(
            "dev", "--listen", "127.0.0.1:0", "--agent-listen", "127.0.0.1:0",
            "--work-dir", str(self.directory / name), "--runtime", "process", "--resources", RESOURCES, *more,
        )  # fmt: skip

    def master(self, *more: str, listen: str = "127.0.0.1:0") -> Daemon:
        return self.start(
            "master", "--listen", listen, "--work-dir", str(self.directory / "master"),
            "--set", "kernel.ping_s=1", "--set", "kernel.agent_timeout_s=5", *UNCOMPILED, *more,
        )  # fmt: skip

    def agent(self, master: str, *more: str, ready: bool = True, inside: Sequence[str] = ()) -> Daemon:
        return self.start(
            "agent", "--master", master.removeprefix("http://"), "--listen", "127.0.0.1:0",
            "--work-dir", str(self.directory / "agent"), "--runtime", "process", "--resources", RESOURCES, *more,
            ready=ready, inside=inside,
        )  # fmt: skip

    def services(self, master: str, *more: str, listen: str = "127.0.0.1:0") -> Daemon:
        return self.start(
            "framework", "services", "--master", master, "--listen", listen,
            "--work-dir", str(self.directory / "services"), *more,
        )  # fmt: skip


def end_tasks(directory: Path) -> None:
    """End every process task that an agent below `directory` has left, as its restarted agent would."""
    states = [str(path) for path in directory.rglob("processes") if path.is_dir()]
    if states:
        asyncio.run(_end_tasks(states))


async def _end_tasks(states: list[str]) -> None:
    for state in states:
        runtime = ProcessRuntime(state)
        try:
            found = await runtime.recover()
            await asyncio.gather(*(runtime.kill(one.container_id, 0.0) for one in found))
        finally:
            await runtime.close()


def processes_below(directory: Path) -> Iterator[int]:
    """The pids of daemons, supervisors and tasks that work below `directory`."""
    mark = str(directory).encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if mark in (entry / "cmdline").read_bytes() or mark in os.fsencode(os.readlink(entry / "cwd")):
                    yield int(entry.name)
            except OSError:
                continue


def wait_until(look: Callable[[], T], what: str, timeout_s: float = 20.0) -> T:
    """The first true answer of `look`."""
    end = time.monotonic() + timeout_s
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < end, f"waited {timeout_s:g} s for {what}, found {found!r}"
        time.sleep(0.05)


def ask(url: str, method: str, path: str, body: Any = None, timeout_s: float = 15.0) -> tuple[int, Any]:
    """Status and answer, decoded when it is JSON. Shapes: bytes and text go as they are."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=timeout_s)
    try:
        content = body if isinstance(body, (bytes, str, type(None))) else json.dumps(body)
        connection.request(method, path, content, {} if body is None else {"Content-Type": "application/json"})
        response = connection.getresponse()
        text = response.read().decode()
        return response.status, json.loads(text) if text[:1] in ("{", "[") else text
    finally:
        connection.close()


def read_app(url: str, name: str) -> dict[str, Any]:
    status, found = ask(url, "GET", f"/v2/apps/{name}")
    assert status == 200, found
    app: dict[str, Any] = found["app"]
    return app


def wait_running(url: str, name: str, count: int, timeout_s: float = 30.0) -> dict[str, Any]:
    """The app once it runs so many instances and no deployment works on it."""

    def look() -> dict[str, Any] | None:
        app = read_app(url, name)
        whole = app["tasksRunning"] == count and len(app["tasks"]) == count and not app["deployments"]
        return app if whole else None

    found = wait_until(look, f"{count} running instances of {name}", timeout_s)
    assert found is not None
    return found


def active_tasks(url: str, name: str) -> list[dict[str, Any]]:
    """The tasks of an app that the kernel knows to be alive."""
    _, found = ask(url, "GET", f"/corral/v1/tasks?group=/{name}")
    alive = ("TASK_STAGING", "TASK_STARTING", "TASK_RUNNING", "TASK_KILLING")
    return [t for t in found["tasks"] if t["state"] in alive]
