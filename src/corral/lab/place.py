"""Where a lab keeps what it is: one directory per lab, one per host in it, and the processes that were started.

DIR/lab.json, DIR/hosts                the lab; the /etc/hosts of its hosts
DIR/h1/host.json                       what the host starts when it boots
DIR/h1/pids/NAME                       a process and its start time; `init` is the host itself
DIR/h1/run, disk, log, docker          its /run, gone with each boot; a disk of its own; logs; images
"""

import contextlib
import fcntl
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from corral.lab.spec import DaemonSpec, HostSpec, LabSpec, host_index
from corral.lib.errors import Failed, NotFound, Unavailable
from corral.process import tree

INIT = "init"
LOCK_S = 120.0


class Place:
    """The files of one lab, which need not be there yet."""

    def __init__(self, root: Path, name: str) -> None:
        self.name = name
        self.directory = root.absolute() / name

    def read(self) -> LabSpec | None:
        with contextlib.suppress(OSError, msgspec.DecodeError):
            return msgspec.json.decode((self.directory / "lab.json").read_bytes(), type=LabSpec)
        return None

    def read_or_fail(self) -> LabSpec:
        """Errors: `NotFound` when there is no such lab."""
        found = self.read()
        if found is None:
            raise NotFound(f"there is no lab {self.name} in {self.directory.parent}; make one with: corral lab up 3")
        return found

    def write(self, lab: LabSpec) -> None:
        _replace(self.directory / "lab.json", msgspec.json.encode(lab))

    def hosts(self) -> "list[HostPlace]":
        """The hosts that were ever made, by number."""
        names = os.listdir(self.directory) if self.directory.is_dir() else []
        indexes = sorted(index for index in map(host_index, names) if index is not None)
        return [HostPlace(self.directory, index) for index in indexes]

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """One at a time. Errors: `Unavailable` when another command works on the lab for long."""
        self.directory.parent.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + LOCK_S
        while True:
            with open(self._lock_path, "w", encoding="ascii") as file:
                if self._take(file.fileno()):
                    yield
                    return
            if time.monotonic() > deadline:
                words = f"lab {self.name} is worked on by another command for {LOCK_S:g} s; wait for it"
                raise Unavailable(words)
            time.sleep(0.05)

    def remove_lock(self) -> None:
        """The lab is no more; only for who holds the lock."""
        self._lock_path.unlink(missing_ok=True)

    @property
    def _lock_path(self) -> Path:
        # Beside the lab and not in it: it must outlive the directory that `down` removes.
        return self.directory.parent / f".{self.name}.lock"

    def _take(self, handle: int) -> bool:
        """Whether the lock is ours, and the file still the one that others would take."""
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return os.fstat(handle).st_ino == os.stat(self._lock_path).st_ino
        except OSError:
            return False


class HostPlace:
    """The files of one host."""

    def __init__(self, lab: Path, index: int) -> None:
        self.index = index
        self.name = f"h{index}"
        self.directory = lab / self.name
        self.run = self.directory / "run"
        self.disk = self.directory / "disk"

    def make(self) -> None:
        for name in ("disk", "log", "pids"):
            (self.directory / name).mkdir(parents=True, exist_ok=True)

    def log(self, name: str) -> Path:
        return self.directory / "log" / f"{name}.log"

    def log_tail(self, name: str, lines: int = 6) -> str:
        try:
            text = self.log(name).read_text(errors="replace")
        except OSError:
            return "no log"
        return " | ".join(text.strip().splitlines()[-lines:]) or "an empty log"

    def read(self) -> HostSpec:
        with contextlib.suppress(OSError, msgspec.DecodeError):
            return msgspec.json.decode((self.directory / "host.json").read_bytes(), type=HostSpec)
        return HostSpec(index=self.index)

    def remember(self, name: str, daemon: DaemonSpec) -> None:
        """Start it with each boot from now on."""
        found = self.read()
        found = msgspec.structs.replace(found, daemons={**found.daemons, name: daemon})
        _replace(self.directory / "host.json", msgspec.json.encode(found))

    def forget(self, name: str) -> bool:
        """Start it with no boot any more; whether it was to be."""
        found = self.read()
        if name not in found.daemons:
            return False
        kept = {key: daemon for key, daemon in found.daemons.items() if key != name}
        _replace(self.directory / "host.json", msgspec.json.encode(msgspec.structs.replace(found, daemons=kept)))
        return True

    def pid_file(self, name: str) -> Path:
        return self.directory / "pids" / name

    def pid(self, name: str) -> int | None:
        """The process of this name, None when it does not run. A host whose end has begun does not run."""
        found = self._written(name)
        if found is None or not tree.is_same(*found):
            return None
        if name == INIT and not os.path.exists(f"/proc/{found[0]}/ns/mnt"):
            return None
        return found[0]

    def _written(self, name: str) -> tuple[int, int] | None:
        with contextlib.suppress(OSError):
            found = re.fullmatch(r"(\d+) (\d+)\n", self.pid_file(name).read_text())
            if found:
                return int(found[1]), int(found[2])
        return None

    def send(self, name: str, number: int) -> None:
        """Errors: `NotFound` when it does not run."""
        pid = self.pid(name)
        if pid is None:
            raise NotFound(f"{name} does not run on {self.name}; corral lab status shows what does")
        os.kill(pid, number)

    def end(self, name: str, number: int = signal.SIGKILL, timeout_s: float = 60.0) -> None:
        """Send a signal and wait for the end. Nothing happens when it does not run."""
        with contextlib.suppress(NotFound, ProcessLookupError):
            self.send(name, number)
        deadline = time.monotonic() + timeout_s
        while self.pid(name) is not None:
            if time.monotonic() > deadline:
                raise Failed(f"{name} of {self.name} does not end within {timeout_s:g} s of signal {number}")
            time.sleep(0.01)


def _replace(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".new")
    fresh.write_bytes(content)
    fresh.rename(path)
