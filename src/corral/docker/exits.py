"""Watches the first process of a container from outside of Docker.

The kernel tells an exit at once, whether or not the daemon is up, and counts what it killed for memory per cgroup.
Both are hints on this machine only: with an Engine elsewhere, or in another pid namespace, there is no watch.
Source: pidfd_open(2), ioctl PIDFD_GET_INFO (Linux 6.15), cgroups(7).
"""

import asyncio
import contextlib
import fcntl
import os
import signal
import struct
from pathlib import Path

_PIDFD_GET_INFO = 0xC040FF0B
_PIDFD_INFO_EXIT = 8
_INFO_BYTES = 64


class ProcessWatch:
    """One process, known by a descriptor that no later process can take over."""

    def __init__(self, pid: int, pidfd: int, memory_events: Path | None) -> None:
        self.pid = pid
        self.oom_kills: int | None = None
        self._pidfd = pidfd
        self._memory_events = memory_events
        self._gone = asyncio.Event()
        asyncio.get_running_loop().add_reader(pidfd, self._on_exit)

    async def gone(self) -> None:
        """Return when the process has ended."""
        await self._gone.wait()

    def has_gone(self) -> bool:
        return self._gone.is_set()

    def send(self, signum: int) -> None:
        """Errors: `ProcessLookupError` when it has ended."""
        signal.pidfd_send_signal(self._pidfd, signum)

    def wait_status(self) -> int | None:
        """The status with which it ended, as wait(2) gives it; None where the kernel does not tell."""
        info = bytearray(_INFO_BYTES)
        struct.pack_into("<Q", info, 0, _PIDFD_INFO_EXIT)
        try:
            fcntl.ioctl(self._pidfd, _PIDFD_GET_INFO, info)
        except OSError:
            return None
        (mask,) = struct.unpack_from("<Q", info, 0)
        if not mask & _PIDFD_INFO_EXIT:
            return None
        (status,) = struct.unpack_from("<i", info, _INFO_BYTES - 4)
        return int(status)

    def close(self) -> None:
        if self._pidfd >= 0:
            with contextlib.suppress(RuntimeError):  # the loop may be closed already
                asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    def _on_exit(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        # The cgroup goes a few milliseconds after its last process; now its count is still there.
        self.oom_kills = read_oom_kills(self._memory_events)
        self._gone.set()


def watch_process(pid: int, engine_id: str) -> ProcessWatch | None:
    """Watch the first process of the container, None when it is not one of this machine's processes."""
    try:
        pidfd = os.pidfd_open(pid)
    except (OSError, AttributeError):
        return None
    # Only now is it sure that the pid still is the container's: its cgroup bears the container's name.
    cgroups = _cgroup_paths(pid)
    if not any(engine_id in path for path in cgroups.values()):
        os.close(pidfd)
        return None
    return ProcessWatch(pid, pidfd, _memory_events_file(cgroups))


def _cgroup_paths(pid: int) -> dict[str, str]:
    """Controller (empty for version 2) to path, as this process sees it."""
    found: dict[str, str] = {}
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except OSError:
        return found
    for line in lines:
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            found[controller] = path
    return found


def _memory_events_file(cgroups: dict[str, str]) -> Path | None:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2)
        point = Path(left.split()[4])
        if kind == "cgroup" and "memory" in options.split(",") and "memory" in cgroups:
            return point / cgroups["memory"].lstrip("/") / "memory.oom_control"
        if kind == "cgroup2" and "memory" not in cgroups and "" in cgroups:
            return point / cgroups[""].lstrip("/") / "memory.events"
    return None


def read_oom_kills(file: Path | None) -> int | None:
    """How many processes the kernel killed for this cgroup's memory; None when that cannot be known."""
    if file is None:
        return None
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), None)
