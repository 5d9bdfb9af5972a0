"""One real cluster for all of these tests: `corral dev` with the process runtime, as anybody would start it."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import mesos_client
import pytest
from corral_daemons import end_tasks

RESOURCES = "cpus:4;mem:2048;disk:4096;ports:[31000-31099]"


class Cluster:
    """A running `corral dev`. Shapes: `url` is the master's."""

    def __init__(self, work_dir: Path) -> None:
        self.log: list[str] = []
        command = [
            sys.executable, "-m", "corral.cli.main", "dev", "--listen", "127.0.0.1:0", "--agent-listen", "127.0.0.1:0",
            "--work-dir", str(work_dir), "--runtime", "process", "--resources", RESOURCES,
            "--attributes", "rack:r1;level:2.5", "--set", "kernel.heartbeat_s=1",
        ]  # fmt: skip
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, "NO_COLOR": "1"}
        )
        ready = threading.Event()
        self.url = ""
        assert self.process.stdout is not None
        self._reader = threading.Thread(target=self._read, args=(self.process.stdout, ready), daemon=True)
        self._reader.start()
        if not ready.wait(30) or not self.url:
            self.stop()
            raise RuntimeError("corral dev did not get ready:\n" + "\n".join(self.log))

    def _read(self, output: IO[str], ready: threading.Event) -> None:
        for line in output:
            self.log.append(line.rstrip())
            if line.startswith("ready "):
                self.url = next(word for word in line.split() if word.startswith("url=")).removeprefix("url=")
                ready.set()
        ready.set()

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self._reader.join(5)
        return self.process.wait(5)

    def get(self, path: str) -> mesos_client.Answer:
        return mesos_client.request(self.url, "GET", path)

    def operator(self, kind: str) -> mesos_client.Json:
        """What the master's operator API answers to a read."""
        answer = mesos_client.request(self.url, "POST", "/api/v1", {"type": kind})
        assert answer.status == 200, answer.text
        found: mesos_client.Json = answer.json[kind.lower()]
        return found

    @property
    def agent(self) -> mesos_client.Json:
        """The one agent, as `/slaves` shows it."""
        found: list[mesos_client.Json] = mesos_client.wait_until(
            lambda: self.get("/slaves").json["slaves"], "the agent's registration"
        )
        return found[0]

    @property
    def agent_url(self) -> str:
        row = self.agent
        return f"http://{row['hostname']}:{row['port']}"

    def wait_until_idle(self) -> None:
        """Nothing of an earlier framework is held, so that what returns is not offered in the midst of a test."""

        def idle() -> bool:
            row = self.agent
            return row["used_resources"]["cpus"] == 0 and row["offered_resources"]["cpus"] == 0

        mesos_client.wait_until(idle, "the return of all resources")


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    work_dir = tmp_path_factory.mktemp("corral")
    running = Cluster(work_dir)
    try:
        assert running.agent
        yield running
        log = "\n".join(running.log[-200:])
        assert running.process.poll() is None, f"corral dev ended by itself:\n{log}"
    finally:
        code = running.stop()
        end_tasks(work_dir)
    assert code == 0, f"corral dev ended with {code}:\n" + "\n".join(running.log[-50:])


@pytest.fixture
def info(request: pytest.FixtureRequest) -> mesos_client.Json:
    """A framework that outlives short breaks of its stream, named after the test."""
    return {"user": "root", "name": request.node.name[:60], "failover_timeout": 60.0}


@pytest.fixture
def scheduler(cluster: Cluster, info: mesos_client.Json) -> Iterator[mesos_client.Subscription]:
    """A framework on the idle cluster, torn down with all that it runs."""
    cluster.wait_until_idle()
    with mesos_client.Subscription(cluster.url, info) as opened:
        yield opened.registered()
        opened.call("TEARDOWN")
    cluster.wait_until_idle()
