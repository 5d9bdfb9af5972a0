"""A cluster on a lab: a member of etcd, a master and an agent on each host, and a supervisor as systemd would be one.

Hosts are machines of their own, so everything is reached by their addresses from this machine, which is no part of the
cluster.
"""

import contextlib
import http.client
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from corral.lab.lab import Lab
from corral.lib.errors import CorralError, NotFound

T = TypeVar("T")

ROOT = Path(__file__).parents[3]
CLOCKED = Path(__file__).with_name("clocked.py")
RESOURCES = "cpus:8;mem:4096;disk:4096;ports:[31000-31099]"
PING_S, TIMEOUT_S = 1, 12
DISK_MB = 64
RESTART_S = 0.5
"""How long a daemon that ended stays so, as `RestartSec` in the units."""


def wait_for(look: Callable[[], T], what: str, timeout_s: float = 60.0, pause_s: float = 0.1) -> T:
    """The first true answer. Errors in asking count as none."""
    end, found = time.monotonic() + timeout_s, None
    while True:
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError, KeyError):
            found = look()
            if found:
                return found
        assert time.monotonic() < end, f"waited {timeout_s:g} s for {what}, found {found!r}"
        time.sleep(pause_s)


def call(url: str, method: str, path: str, body: Any = None, timeout_s: float = 5.0) -> tuple[int, Any]:
    """Status and answer of one request; a redirect is not followed."""
    host, _, port = url.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=timeout_s)
    try:
        connection.request(
            method, path, None if body is None else json.dumps(body),
            {} if body is None else {"Content-Type": "application/json"},
        )  # fmt: skip
        response = connection.getresponse()
        text = response.read().decode()
        return response.status, json.loads(text) if text[:1] in ("{", "[") else text
    finally:
        connection.close()


class Cluster:
    """Shapes: `masters` of the hosts run one, `members` run etcd (none: the master keeps its own records).

    `diary` is a directory that tasks write to, on this machine.
    """

    def __init__(self, lab: Lab, hosts: int, *, masters: int, members: int, docker: bool = True) -> None:
        self.lab = lab
        self.docker = docker
        self.names = [f"h{index}" for index in range(1, hosts + 1)]
        self.masters = self.names[:masters]
        self.members = self.names[:members]
        self.ips: dict[str, str] = {}
        self.directory = lab.place.directory.parent / f".{lab.name}-files"
        self.diary = self.directory / "diary"
        self.held: set[tuple[str, str]] = set()
        self._stopping = threading.Event()
        self._supervisor = threading.Thread(target=self._supervise, daemon=True)

    # Coming and going.

    def __enter__(self) -> "Cluster":
        shutil.rmtree(self.directory, ignore_errors=True)
        self.diary.mkdir(parents=True)
        self.diary.chmod(0o777)
        try:
            self._make_disks()
            self.ips = {one["name"]: one["ip"] for one in self.lab.up(len(self.names), docker=self.docker)}
            for name in self.names:
                self.set_clock(name, 0.0)
            for name in self.members:
                self._start_member(name)
            for name in self.masters:
                self._start_master(name)
            for name in self.names:
                self._start_agent(name)
            self._supervisor.start()
            self.wait_whole()
        except BaseException:
            print(self.tell(), file=sys.stderr)
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        if self._supervisor.ident is not None:
            self._supervisor.join(30)
        self.lab.down()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _run(self, host: str, name: str, argv: Sequence[str]) -> None:
        environment = {key: os.environ[key] for key in ("PATH", "HOME", "PYTHONPATH") if key in os.environ}
        environment["PYTHONPATH"] = str(ROOT / "src")
        environment |= {"PYTHONUNBUFFERED": "1", "NO_COLOR": "1", "FAULT_CLOCK": str(self._clock(host))}
        self.lab.run(host, name, argv, environment, str(ROOT))

    def _disk(self, host: str) -> Path:
        return self.lab.place.directory / host / "disk"

    def _start_member(self, host: str) -> None:
        ip = self.ips[host]
        peers = ",".join(f"{name}=http://{self.ips[name]}:2380" for name in self.members)
        self._run(host, "etcd", [
            "etcd", "--name", host, "--data-dir", str(self._disk(host) / "etcd"), "--log-level", "error",
            "--listen-client-urls", f"http://{ip}:2379", "--advertise-client-urls", f"http://{ip}:2379",
            "--listen-peer-urls", f"http://{ip}:2380", "--initial-advertise-peer-urls", f"http://{ip}:2380",
            "--initial-cluster", peers, "--initial-cluster-token", self.lab.name,
        ])  # fmt: skip

    def _start_master(self, host: str) -> None:
        members = ",".join(f"{self.ips[name]}:2379" for name in self.members)
        store = ["--store", f"etcd://{members}"] if members else []
        self._run(host, "master", [
            sys.executable, str(CLOCKED), "master", "--insecure", "--listen", f"{self.ips[host]}:4680", *store,
            "--work-dir", str(self._disk(host) / "master"), "--set", "kernel.compiled=no",
            "--set", f"kernel.ping_s={PING_S}", "--set", f"kernel.agent_timeout_s={TIMEOUT_S}",
        ])  # fmt: skip

    def _start_agent(self, host: str) -> None:
        masters = ",".join(f"{self.ips[name]}:4680" for name in self.masters)
        self._run(host, "agent", [
            sys.executable, str(CLOCKED), "agent", "--insecure", "--listen", f"{self.ips[host]}:4681", "--name", host,
            "--master", masters, "--work-dir", str(self._disk(host) / "agent"), "--resources", RESOURCES,
            "--runtime", "docker,process" if self.docker else "process",
        ])  # fmt: skip

    def _supervise(self) -> None:
        """Start again what has ended and is not held down, a moment later."""
        while not self._stopping.wait(RESTART_S):
            with contextlib.suppress(CorralError, OSError):
                for one in self.lab.status():
                    for daemon, pid in one["daemons"].items() if one["runs"] else ():
                        if pid is None and (one["name"], daemon) not in self.held and not self._stopping.is_set():
                            self.lab.start_again(one["name"], daemon)

    # Hurting.

    @contextlib.contextmanager
    def down(self, host: str, daemon: str) -> Iterator[None]:
        """Kill a daemon and keep it from being started again for a while."""
        self.held.add((host, daemon))
        try:
            with contextlib.suppress(NotFound):
                self.lab.signal(host, daemon)
            yield
        finally:
            self.held.discard((host, daemon))

    @contextlib.contextmanager
    def stopped(self, host: str, daemon: str) -> Iterator[None]:
        """Let a daemon hang for a while."""
        self.lab.signal(host, daemon, signal.SIGSTOP)
        try:
            yield
        finally:
            with contextlib.suppress(CorralError):
                self.lab.signal(host, daemon, signal.SIGCONT)

    @contextlib.contextmanager
    def full_disk(self, host: str, daemon: str) -> Iterator[None]:
        """Leave no byte free on the disk of a daemon."""
        fill = self._disk(host) / daemon / "fill"
        with fill.open("ab", buffering=0) as file:
            for size in (1 << 20, 1 << 12, 1):
                with contextlib.suppress(OSError):
                    while True:
                        file.write(b"x" * size)
        try:
            yield
        finally:
            fill.unlink()

    def _make_disks(self) -> None:
        """A small file system for each daemon that writes: one that can be filled, and outlives its host's power."""
        for host in self.names:
            for daemon in ("master", "agent") if host in self.masters else ("agent",):
                image, directory = self.directory / f"{host}-{daemon}.img", self._disk(host) / daemon
                directory.mkdir(parents=True)
                with image.open("wb") as file:
                    file.truncate(DISK_MB << 20)
                subprocess.run(["mkfs.ext4", "-q", "-m", "0", "-F", str(image)], check=True, timeout=60)
                subprocess.run(["mount", "-o", "loop", str(image), str(directory)], check=True, timeout=60)

    def _clock(self, host: str) -> Path:
        return self.directory / f"clock-{host}"

    def set_clock(self, host: str, offset_s: float) -> None:
        """Let the clock that the daemons of a host read go wrong by so much, from now on."""
        with open(self._clock(host), "r+b" if self._clock(host).exists() else "w+b") as file:
            file.write(struct.pack("<d", offset_s))

    # Asking.

    def ask(self, method: str, path: str, body: Any = None, timeout_s: float = 5.0) -> tuple[int, Any]:
        """One request to whichever master answers it. Errors: `OSError` when none does."""
        status, answer = 503, None
        for name in self.masters:
            try:
                status, answer = call(f"{self.ips[name]}:4680", method, path, body, timeout_s)
            except (OSError, http.client.HTTPException):
                continue
            if status < 300 or 400 <= status < 500:
                return status, answer
        raise ConnectionError(f"no master answers {method} {path}: {status} {answer}")

    def get(self, path: str) -> Any:
        status, answer = self.ask("GET", path)
        if status != 200:
            raise ConnectionError(f"{path} gave {status}: {answer}")
        return answer

    def leader(self) -> str:
        """The host whose master leads."""

        return wait_for(lambda: next(filter(self.leads, self.masters), ""), "a leader")

    def leads(self, host: str) -> bool:
        """Whether the master of this host says that it leads."""
        try:
            return call(f"{self.ips[host]}:4680", "GET", "/health/leader", timeout_s=1.0)[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def nodes(self) -> dict[str, str]:
        """Agents that are known, by name, with their state."""
        return {node["hostname"]: node["state"] for node in self.get("/corral/v1/nodes")["nodes"]}

    def wait_whole(self, timeout_s: float = 60.0) -> None:
        """Return when each member of etcd is healthy, each master ready and each agent there."""

        def look() -> bool:
            for name in self.members:
                if call(f"{self.ips[name]}:2379", "GET", "/health")[1].get("health") != "true":
                    return False
            for name in self.masters:
                if call(f"{self.ips[name]}:4680", "GET", "/health/ready")[0] != 200:
                    return False
            found = self.nodes()
            return all(found.get(name) == "reachable" for name in self.names)

        wait_for(look, f"all daemons on {', '.join(self.names)}", timeout_s)

    def tell(self) -> str:
        """The last words of each daemon, for when something went wrong."""
        found = []
        for host in self.names:
            for daemon in ("etcd", "master", "agent"):
                found += [f"{host} {daemon}: {line}" for line in self.log(host, daemon).splitlines()[-8:]]
        return "\n".join(found)

    def runs(self, host: str, daemon: str) -> bool:
        (found,) = [one for one in self.lab.status() if one["name"] == host]
        return found["daemons"].get(daemon) is not None

    def log(self, host: str, daemon: str) -> str:
        path = self.lab.place.directory / host / "log" / f"{daemon}.log"
        return path.read_text(errors="replace") if path.exists() else ""
