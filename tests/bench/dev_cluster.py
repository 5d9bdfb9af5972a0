"""`corral dev` as users start it, and the little HTTP that benchmarks need."""

import contextlib
import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

CORRAL = str(Path(sys.executable).with_name("corral"))
READY_TIMEOUT_S = 30.0


class DevCluster:
    """A cluster in one process, from `start` to leaving the block."""

    def __init__(self, directory: Path, *options: str) -> None:
        self._command = [
            CORRAL, "dev", "--listen", "127.0.0.1:0", "--agent-listen", "127.0.0.1:0",
            "--work-dir", str(directory / "work"), "--log-format", "json", *options,
        ]  # fmt: skip
        self._log = directory / "dev.log"
        self.url = ""

    def __enter__(self) -> "DevCluster":
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, stderr=log)
        try:
            self.url = self._read_ready()
        except BaseException:
            self._stop()
            raise
        self._connection = _connect(self.url)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()
        self._stop()

    def _read_ready(self) -> str:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            word, _, rest = line.decode().strip().partition(" ")
            if word == "ready":
                return rest.removeprefix("url=")
        raise AssertionError(f"corral dev ended before it was ready:\n{self._log.read_text()[-2000:]}")

    def _stop(self) -> None:
        self._process.terminate()
        self._process.wait(READY_TIMEOUT_S)

    @property
    def pids(self) -> list[int]:
        """The daemon and all processes below it."""
        return [self._process.pid, *_descendants(self._process.pid)]

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """One request on a connection that is kept. Shapes: status and decoded JSON, None without a body."""
        content = None if body is None else json.dumps(body)
        headers = {} if body is None else {"Content-Type": "application/json"}
        self._connection.request(method, path, content, headers)
        response = self._connection.getresponse()
        text = response.read()
        return response.status, json.loads(text) if text else None

    def expect(self, status: int, method: str, path: str, body: Any = None) -> Any:
        found, answer = self.ask(method, path, body)
        assert found == status, f"{method} {path}: {found} {answer}"
        return answer

    def wait_running(self, app: str, instances: int, timeout_s: float = 120.0) -> None:
        """Return as soon as so many instances run."""
        give_up_at = time.monotonic() + timeout_s
        while True:
            found = self.expect(200, "GET", f"/v2/apps/{app}")["app"]
            if found["tasksRunning"] == instances and found["instances"] == instances:
                return
            assert time.monotonic() < give_up_at, f"{app} has {found['tasksRunning']} of {instances} running"
            time.sleep(0.005)

    def remove(self, app: str, timeout_s: float = 60.0) -> None:
        """Delete the app and return when none of its tasks is left."""
        self.expect(200, "DELETE", f"/v2/apps/{app}?force=true")
        give_up_at = time.monotonic() + timeout_s
        while any(t["appId"] == f"/{app}" for t in self.expect(200, "GET", "/v2/tasks")["tasks"]):
            assert time.monotonic() < give_up_at, f"tasks of {app} do not end"
            time.sleep(0.02)


def _connect(url: str) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    return http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port or 80, timeout=30)


def _descendants(pid: int) -> Iterator[int]:
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            for child in Path(f"/proc/{pid}/task/{task}/children").read_text().split():
                yield int(child)
                yield from _descendants(int(child))


def rss_mb(pids: list[int]) -> float:
    """Resident memory of these processes together; what they share counts for each."""
    found = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    found += int(line.split()[1])
    return found / 1024


def cpu_s(pids: list[int]) -> float:
    """Seconds of processor time these processes have used so far."""
    ticks = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")
