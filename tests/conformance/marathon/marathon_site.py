"""Daemons under test and a view of them through the PyPI client."""

import collections
import collections.abc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, TypeVar

# The PyPI client still looks for this name, which Python 3.10 has moved.
collections.Iterable = collections.abc.Iterable  # type: ignore[attr-defined]

from marathon import MarathonClient  # noqa: E402
from tests.own_ports import write_task_ports  # noqa: E402

T = TypeVar("T")
RESOURCES = f"cpus:8;mem:4096;disk:4096;{write_task_ports()}"


class Daemon:
    """A process of corral that says `ready url=...`. Shapes: `log` holds all it wrote."""

    def __init__(self, *arguments: str) -> None:
        self.log: list[str] = []
        self.url = ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "corral.cli.main", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "NO_COLOR": "1"},
        )
        ready = threading.Event()
        assert self.process.stdout is not None
        self._reader = threading.Thread(target=self._read, args=(self.process.stdout, ready), daemon=True)
        self._reader.start()
        if not ready.wait(30) or not self.url:
            self.stop()
            raise RuntimeError(f"corral {arguments[0]} did not get ready:\n" + "\n".join(self.log))

    def _read(self, output: IO[str], ready: threading.Event) -> None:
        for line in output:
            self.log.append(line.rstrip())
            if line.startswith("ready "):
                self.url = next(word for word in line.split() if word.startswith("url=")).removeprefix("url=")
                ready.set()
        ready.set()

    def kill(self) -> None:
        """As if the power of this one process went."""
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(5)
        self._reader.join(5)


class Site:
    """Shapes: `url` serves Marathon's API, `master` the kernel's; they are one in `dev`."""

    def __init__(self, url: str, master: str) -> None:
        self.url = url
        self.master = master
        self.client = MarathonClient(url, timeout=20)

    def wait(self, look: Callable[[], T], what: str, timeout_s: float = 30.0) -> T:
        """The first true answer of `look`."""
        end = time.monotonic() + timeout_s
        while True:
            found = look()
            if found:
                return found
            if time.monotonic() > end:
                raise AssertionError(f"waited {timeout_s:g} s for {what}")
            time.sleep(0.05)

    def wait_running(self, app_id: str, count: int) -> Any:
        """The app once it runs that many tasks and no deployment works on it."""

        def look() -> Any:
            app = self.client.get_app(app_id)
            return app if app.tasks_running == count and not app.deployments and len(app.tasks) == count else None

        return self.wait(look, f"{count} running tasks of {app_id}")

    def remove(self, app_id: str) -> None:
        self.client.delete_app(app_id, force=True)
        self.wait(lambda: not [d for d in self.client.list_deployments() if app_id in d.affected_apps], "the end")


def start_dev(work_dir: Path, *more: str) -> Daemon:
    return Daemon(
        "dev", "--listen", "127.0.0.1:0", "--agent-listen", "127.0.0.1:0", "--work-dir", str(work_dir),
        "--runtime", "process", "--resources", RESOURCES, *more,
    )  # fmt: skip


def start_framework(work_dir: Path, master: str, listen: str = "127.0.0.1:0") -> Daemon:
    return Daemon("framework", "services", "--master", master, "--listen", listen, "--work-dir", str(work_dir))
