"""Real etcd members on loopback, each in a directory of its own, ended by their process ids."""

import json
import signal
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

from tests.own_ports import free_ports

from corral.docker.daemon import find_program, install_packages


def require_etcd() -> str:
    """The server's path; Debian's package is installed when it is missing."""
    return _require("etcd", "etcd-server")


def require_etcdctl() -> str:
    """The command line's path; Debian's package is installed when it is missing."""
    return _require("etcdctl", "etcd-client")


def _require(program: str, package: str) -> str:
    if find_program(program) is None:
        install_packages([package])
    found = find_program(program)
    assert found is not None
    return found


class Member:
    """One etcd process. Shapes: `scheme` is that of its clients."""

    def __init__(self, name: str, directory: Path, port: int, peer_port: int, scheme: str = "http") -> None:
        self.name = name
        self.directory = directory / name
        self.url = f"{scheme}://127.0.0.1:{port}"
        self.peer = f"http://127.0.0.1:{peer_port}"
        self.address = f"127.0.0.1:{port}"
        self.log = directory / f"{name}.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.arguments: list[str] = []

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [require_etcd(), "--name", self.name, "--data-dir", str(self.directory),
                 "--listen-client-urls", self.url, "--advertise-client-urls", self.url,
                 "--listen-peer-urls", self.peer, "--initial-advertise-peer-urls", self.peer, *self.arguments],
                stdout=log, stderr=log, env={"ETCD_UNSUPPORTED_ARCH": "arm64"},
            )  # fmt: skip

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait(10)


class Etcd:
    """A cluster of `size` members. Shapes: `store` is its URL for `--store`."""

    def __init__(
        self, directory: Path, size: int = 1, *, scheme: str = "http", arguments: tuple[str, ...] = ()
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        ports = free_ports(2 * size)
        self.members = [Member(f"m{n}", directory, *ports[2 * n : 2 * n + 2], scheme) for n in range(size)]
        cluster = ",".join(f"{each.name}={each.peer}" for each in self.members)
        for each in self.members:
            each.arguments = ["--initial-cluster", cluster, "--initial-cluster-state", "new", *arguments]

    @property
    def endpoints(self) -> tuple[str, ...]:
        return tuple(each.url for each in self.members)

    @property
    def store(self) -> str:
        return "etcd://" + ",".join(each.address for each in self.members)

    def start(self, *, wait: bool = True) -> None:
        for each in self.members:
            each.start()
        if wait:
            self.wait()

    def wait(self, within_s: float = 30.0) -> None:
        """Until the members have a leader."""
        ends_at = time.monotonic() + within_s
        for each in self.members:
            while not self._healthy(each):
                assert time.monotonic() < ends_at, each.log.read_text()[-2000:]
                time.sleep(0.05)

    @staticmethod
    def _healthy(member: Member) -> bool:
        try:
            ask(member.url, "/v3/kv/range", {"key": "AA==", "count_only": True})
        except (urllib.error.URLError, OSError):
            return False
        return True

    def stop(self) -> None:
        for each in self.members:
            each.kill()


def ask(url: str, path: str, body: dict[str, object]) -> dict[str, object]:
    """One request to the gateway."""
    request = urllib.request.Request(url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=2) as response:
        answer: dict[str, object] = json.load(response)
        return answer
