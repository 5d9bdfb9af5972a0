"""A Docker Engine of one's own: starts a private containerd and dockerd when none answers, and ends exactly those.

For `make demo` and for tests, as root on Linux. Everything lies in one directory: data, sockets, logs and the record
of what was started, so that whoever comes after a crash can still end it. The machine's firewall, its default bridge
and its own Docker are left alone: no iptables rule is written (published ports go through docker-proxy, containers on
the bridge reach this machine and each other but nothing beyond), and the bridge and the cgroup have names of their own.

    python -m corral.docker.daemon up DIR      prints the URL for --docker-host
    python -m corral.docker.daemon down DIR
"""

import contextlib
import ctypes
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from corral.docker.image import engine_answers, engine_call, import_busybox, is_static
from corral.lib.errors import CorralError, Failed

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PACKAGES = {
    "dockerd": "docker.io",
    "containerd": "containerd",
    "runc": "runc",
    "ip": "iproute2",
    "busybox": "busybox-static",
}
"""The program that must be found, and the Debian package that brings it."""

CONTAINERD_CONFIG = """version = 2
root = "{root}/containerd"
state = "{root}/run/containerd"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
[grpc]
  address = "{root}/run/containerd.sock"
"""
"""What a private containerd reads. Shapes: everything it makes is below `root`."""
_MNT_DETACH = 2
_libc = ctypes.CDLL(None, use_errno=True)


def find_program(name: str) -> str | None:
    """The absolute path of a program, also where a user's PATH has no `sbin`."""
    return shutil.which(name, path=os.environ.get("PATH", "") + ":" + PATH)


def dockerd_arguments(root: Path, cgroup: str) -> list[str]:
    """How a private dockerd is told to stay below `root` and to leave its containers alone when it ends.

    Shapes: `root` holds `daemon.json`, which keeps the machine's own away, and `run`; `cgroup` as a path in each tree.
    """
    run = root / "run"
    arguments = ["--config-file", root / "daemon.json", "--host", f"unix://{run}/docker.sock"]
    arguments += ["--pidfile", run / "docker.pid", "--data-root", root / "docker", "--exec-root", run / "docker"]
    arguments += ["--containerd", run / "containerd.sock", "--live-restore", "--log-level", "warn"]
    arguments += ["--exec-opt", "native.cgroupdriver=cgroupfs", "--cgroup-parent", cgroup]
    if driver := os.environ.get("CORRAL_STORAGE_DRIVER"):
        arguments += ["--storage-driver", driver]
    return [str(a) for a in arguments]


def missing_packages() -> list[str]:
    """The Debian packages without which no Engine can be started here, sorted."""
    missing = {package for program, package in PACKAGES.items() if find_program(program) is None}
    busybox = find_program("busybox")
    if busybox is not None and not is_static(Path(busybox)):
        missing.add("busybox-static")
    return sorted(missing)


def unmount_below(root: Path) -> None:
    """Take away every mount below a directory, the innermost first."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for point in sorted((p for p in points if p.startswith(f"{root}/")), reverse=True):
        _libc.umount2(point.encode(), _MNT_DETACH)


def install_packages(packages: Sequence[str], say: Any = print) -> None:
    """Install Debian packages as root; their own services are kept from starting.

    Errors: `Failed` with the last words of apt-get.
    """
    if not packages:
        return
    apt = find_program("apt-get")
    if os.geteuid() != 0 or apt is None:
        raise Failed(f"{', '.join(packages)} must be installed; as root run: apt-get install {' '.join(packages)}")
    say(f"installing {' '.join(packages)}")
    # A package's postinst asks this script before it starts a service; 101 means no. Ours go when we are done.
    policy = Path("/usr/sbin/policy-rc.d")
    mine = not policy.exists()
    if mine:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    install = [apt, "-q", "-y", "-o", "DPkg::Lock::Timeout=600", "install", "--no-install-recommends", *packages]
    try:
        done = subprocess.run(install, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            subprocess.run([apt, "-q", "update"], env=environment, capture_output=True, check=False)
            done = subprocess.run(install, env=environment, capture_output=True, text=True, check=False)
    finally:
        if mine:
            policy.unlink(missing_ok=True)
    if done.returncode:
        last = " | ".join((done.stdout + done.stderr).strip().splitlines()[-4:])
        raise Failed(f"apt-get install {' '.join(packages)} ended with {done.returncode}: {last}")


class PrivateEngine:
    """A containerd and a dockerd in one directory, from `start` to `stop`.

    Shapes: without `live_restore` containers end with dockerd, which swarm mode insists on.
    Errors: `Failed` when a program is missing, this is not root, or a daemon ends at once; with its log's last lines.
    """

    def __init__(self, root: Path, *, live_restore: bool = True) -> None:
        self.root = root.absolute()
        self._live_restore = live_restore
        self.socket = self.root / "run" / "docker.sock"
        self.url = f"unix://{self.socket}"
        self._record_path = self.root / "engine.json"
        self._record: dict[str, Any] = {}
        with contextlib.suppress(OSError, ValueError):
            self._record = json.loads(self._record_path.read_text())

    @property
    def name(self) -> str:
        """What its bridge and its cgroup are called; empty before the first start."""
        return str(self._record.get("name", ""))

    def start(self, *, timeout_s: float = 60.0) -> None:
        """Start what does not run and return when the Engine answers."""
        if os.geteuid() != 0:
            raise Failed("a Docker Engine of one's own needs root; run as root or give --docker-host")
        if missing := [name for name in ("dockerd", "containerd", "runc", "ip") if find_program(name) is None]:
            packages = sorted({PACKAGES[name] for name in missing})
            raise Failed(f"{', '.join(missing)} not found; run: apt-get install {' '.join(packages)}")
        if len(str(self.socket)) > 90:
            raise Failed(f"directory {self.root} is too long for a unix socket; choose a shorter one")
        deadline = time.monotonic() + timeout_s
        self.root.mkdir(parents=True, exist_ok=True)
        (self.root / "run").mkdir(mode=0o711, exist_ok=True)
        if not self.name:
            self._save(
                name=f"cr{random.getrandbits(32):08x}",
                owner=_identity(os.getpid()),
                key_was_there=Path("/etc/docker/key.json").exists(),
            )
        try:
            self._raise_bridge()
            if not self.runs("containerd"):
                self._start_containerd()
            self._await("containerd", (self.root / "run" / "containerd.sock").exists, deadline)
            if not self.runs("dockerd"):
                self.start_dockerd()
            self.await_answer(max(0.0, deadline - time.monotonic()))
        except CorralError:
            self.stop()
            raise

    def start_dockerd(self) -> None:
        """Start dockerd alone, for instance after `kill_dockerd`; does not wait for its answer."""
        (self.root / "run" / "docker.pid").unlink(missing_ok=True)  # its pid may be another process by now
        (self.root / "daemon.json").write_text("{}\n")
        arguments = dockerd_arguments(self.root, f"/{self._record['name']}")
        arguments += ["--bridge", self.name, "--iptables=false", "--ip-forward=false", "--ip-masq=false"]
        if not self._live_restore:
            arguments.remove("--live-restore")
        self._spawn("dockerd", arguments)

    def await_answer(self, timeout_s: float = 30.0) -> None:
        """Return when dockerd answers. Errors: `Failed` with the log's last lines when it ends or time is up."""
        self._await("dockerd", lambda: engine_answers(self.url, 2.0), time.monotonic() + timeout_s)

    def kill_dockerd(self, signum: int = signal.SIGKILL) -> None:
        """End dockerd alone; containers run on."""
        self._end("dockerd", signum)

    def signal_dockerd(self, signum: int) -> None:
        """Send a signal such as SIGSTOP or SIGCONT to dockerd."""
        os.kill(self._record["dockerd"]["pid"], signum)

    def kill_containerd(self, signum: int = signal.SIGKILL) -> None:
        self._end("containerd", signum)

    def runs(self, name: str) -> bool:
        identity = self._record.get(name)
        return identity is not None and _identity(identity["pid"]) == identity

    def owner_runs(self) -> bool:
        """Whether the process that first started this Engine is still there."""
        owner = self._record.get("owner")
        return owner is not None and _identity(owner["pid"]) == owner

    def log_tail(self, name: str = "dockerd", lines: int = 6) -> str:
        try:
            text = (self.root / f"{name}.log").read_text(errors="replace")
        except OSError:
            return "no log"
        return " | ".join(text.strip().splitlines()[-lines:]) or "an empty log"

    def stop(self) -> None:
        """End all containers, both daemons and whatever is left of them, and remove the directory. May be repeated."""
        if self.name:
            with contextlib.suppress(ProcessLookupError, KeyError):
                if self.runs("dockerd"):
                    self.signal_dockerd(signal.SIGCONT)
            self._remove_containers()
            self._end("dockerd", signal.SIGTERM)
            self._end_cgroup()
            self._end("containerd", signal.SIGTERM)
            self._end_shims()
            _remove_dead_sockets()
            unmount_below(self.root)
            self._remove_cgroups()
            subprocess.run([find_program("ip") or "ip", "link", "del", self.name], capture_output=True)
            if not self._record.get("key_was_there"):
                Path("/etc/docker/key.json").unlink(missing_ok=True)
        shutil.rmtree(self.root, ignore_errors=True)
        self._record = {}

    def _save(self, **changes: Any) -> None:
        self._record.update(changes)
        fresh = self._record_path.with_suffix(".new")
        fresh.write_text(json.dumps(self._record))
        fresh.rename(self._record_path)

    def _raise_bridge(self) -> None:
        ip, name = find_program("ip") or "ip", self.name
        if Path(f"/sys/class/net/{name}").exists():
            return
        made = subprocess.run([ip, "link", "add", name, "type", "bridge"], capture_output=True, text=True)
        if made.returncode:
            raise Failed(f"no network bridge can be made here: {made.stderr.strip()}; run with the right to do so")
        taken = subprocess.run([ip, "-o", "-4", "addr"], capture_output=True, text=True).stdout
        taken += subprocess.run([ip, "-4", "route"], capture_output=True, text=True).stdout
        nets = [f"172.{second}.{third}" for second in range(30, 32) for third in range(1, 255)]
        random.shuffle(nets)
        net = next(net for net in nets if f" {net}." not in taken)
        subprocess.run([ip, "addr", "add", f"{net}.1/24", "dev", name], check=True, capture_output=True)
        subprocess.run([ip, "link", "set", name, "up"], check=True, capture_output=True)

    def _start_containerd(self) -> None:
        (self.root / "run" / "containerd.sock").unlink(missing_ok=True)
        config = self.root / "containerd.toml"
        config.write_text(CONTAINERD_CONFIG.format(root=self.root))
        self._spawn("containerd", ["--config", str(config), "--log-level", "warn"])

    def _spawn(self, name: str, arguments: list[str]) -> None:
        program = find_program(name)
        if program is None:
            raise Failed(f"{name} not found; run: apt-get install {PACKAGES[name]}")
        # A proxy for the outside world must not stand between dockerd and a registry on this machine.
        environment = {"PATH": PATH, "HOME": "/root", "TMPDIR": "/tmp"}  # noqa: S108 - the daemon's own default
        for key in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
            if value := os.environ.get(key) or os.environ.get(key.lower()):
                environment[key] = value
        with open(self.root / f"{name}.log", "ab") as log:
            process = subprocess.Popen(
                [program, *arguments],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", env=environment, start_new_session=True,
            )  # fmt: skip
        _children[process.pid] = process
        self._save(**{name: _identity(process.pid)})

    def _await(self, name: str, done: Any, deadline: float) -> None:
        while not done():
            if not self.runs(name):
                raise Failed(f"{name} ended at its start: {self.log_tail(name)}")
            if time.monotonic() > deadline:
                raise Failed(f"{name} does not answer in time: {self.log_tail(name)}")
            time.sleep(0.02)

    def _end(self, name: str, signum: int) -> None:
        if not self.runs(name):
            return
        pid = self._record[name]["pid"]
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signum)
        if not self._gone_within(name, 15.0):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            self._gone_within(name, 15.0)

    def _gone_within(self, name: str, timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while self.runs(name):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    def _remove_containers(self) -> None:
        with contextlib.suppress(OSError, Failed, ValueError):
            found = json.loads(engine_call(self.url, "GET", "/containers/json?all=1", timeout_s=5.0))
            for container in found:
                engine_call(self.url, "DELETE", f"/containers/{container['Id']}?force=1&v=1", timeout_s=20.0)

    def _end_cgroup(self) -> None:
        for directory in self._cgroups():
            for inner, _, _ in os.walk(directory):
                with contextlib.suppress(OSError):
                    for pid in Path(inner, "cgroup.procs").read_text().split():
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(int(pid), signal.SIGKILL)

    def _end_shims(self) -> None:
        # A shim outlives a killed containerd; ours are known by the address they were given.
        address = str(self.root / "run" / "containerd.sock").encode()
        deadline = time.monotonic() + 5.0
        while time.monotonic() < deadline:
            mine = [pid for pid, arguments in _command_lines() if address in arguments]
            if not mine:
                return
            for pid in mine:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)

    def _remove_cgroups(self) -> None:
        deadline = time.monotonic() + 5.0
        for directory in self._cgroups():
            while directory.exists() and time.monotonic() < deadline:
                for inner, _, _ in os.walk(directory, topdown=False):
                    with contextlib.suppress(OSError):
                        os.rmdir(inner)
                if directory.exists():
                    time.sleep(0.05)

    def _cgroups(self) -> list[Path]:
        top = Path("/sys/fs/cgroup")
        places = [top, *(p for p in top.iterdir() if p.is_dir())] if top.is_dir() else []
        return [place / self.name for place in places if (place / self.name).is_dir()]


_children: dict[int, subprocess.Popen[bytes]] = {}


def _identity(pid: int) -> dict[str, int] | None:
    """The pid with its start time, so that a reused pid is not taken for the old one; None when it has ended."""
    if pid in _children and _children[pid].poll() is not None:  # reaps our own
        del _children[pid]
        return None
    try:
        rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if rest[0] in "ZX" else {"pid": pid, "start": int(rest[19])}


def _command_lines() -> Iterator[tuple[int, bytes]]:
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                yield int(entry), Path(f"/proc/{entry}/cmdline").read_bytes()


def _remove_dead_sockets() -> None:
    """Remove the sockets that killed shims have left in the one place that containerd keeps them for all."""
    for path in Path("/run/containerd/s").glob("*"):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            if time.time() - path.stat().st_mtime < 5.0:
                continue  # perhaps one that is just coming up
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:  # nobody listens, and nobody can any more
                path.unlink()


def sweep(parent: Path, prefix: str) -> None:
    """End the Engines in `parent` whose starter has died without ending them."""
    for root in parent.glob(f"{prefix}*"):
        engine = PrivateEngine(root)
        if (root / "engine.json").exists() and not engine.owner_runs():
            engine.stop()


def main(arguments: Sequence[str]) -> int:
    if len(arguments) != 2 or arguments[0] not in ("up", "down"):
        print("usage: python -m corral.docker.daemon up|down DIR", file=sys.stderr)
        return 2
    engine = PrivateEngine(Path(arguments[1]))
    try:
        if arguments[0] == "down":
            engine.stop()
            return 0
        engine.start()
        import_busybox(engine.url, ("busybox:latest",))
    except CorralError as error:
        print(f"error: {error.message}", file=sys.stderr)
        return error.exit_code
    print(engine.url)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
