"""The cgroups of a lab's hosts, in every hierarchy that is mounted; all below one directory of the lab's name."""

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import NamedTuple

from corral.lib.errors import Failed


class Tree(NamedTuple):
    """One mounted hierarchy. Shapes: `controllers` of version 1 only."""

    version: int
    mount: Path
    controllers: frozenset[str]


def read_trees(mountinfo: str) -> list[Tree]:
    """Every hierarchy once. Shapes: the text of /proc/self/mountinfo."""
    found: list[Tree] = []
    seen: set[str] = set()
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        fields, (kind, _, options) = left.split(), right.split(" ", 2)
        if kind in ("cgroup", "cgroup2") and fields[2] not in seen:
            seen.add(fields[2])
            controllers = frozenset(options.split(",")) if kind == "cgroup" else frozenset()
            found.append(Tree(1 if kind == "cgroup" else 2, Path(fields[4]), controllers))
    return found


def trees() -> list[Tree]:
    return read_trees(Path("/proc/self/mountinfo").read_text(encoding="utf-8"))


def make(path: str, mem_mb: int | None = None) -> list[Path]:
    """Make a cgroup in each hierarchy, ready to take processes. Shapes: `path` relative; the directories, in order."""
    made = []
    for tree in trees():
        current = tree.mount
        for part in path.split("/"):
            if tree.version == 2:
                _delegate(current)
            parent, current = current, current / part
            current.mkdir(exist_ok=True)
            if "cpuset" in tree.controllers:
                _fill_cpuset(parent, current)
        if mem_mb is not None:
            name = "memory.max" if tree.version == 2 else "memory.limit_in_bytes"
            if (current / name).exists():
                (current / name).write_text(str(mem_mb << 20))
        made.append(current)
    return made


def _delegate(directory: Path) -> None:
    with contextlib.suppress(OSError):
        for controller in (directory / "cgroup.controllers").read_text().split():
            with contextlib.suppress(OSError):  # one that its processes keep
                (directory / "cgroup.subtree_control").write_text(f"+{controller}")


def _fill_cpuset(parent: Path, child: Path) -> None:
    """A new cpuset of version 1 is empty and takes no process."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        if not (child / name).read_text().strip():
            (child / name).write_text((parent / name).read_text().strip())


def places(path: str) -> list[Path]:
    return [tree.mount / path for tree in trees() if (tree.mount / path).is_dir()]


def pids(path: str) -> set[int]:
    """All processes in a cgroup and below it. Units: pids as this process sees them."""
    found: set[int] = set()
    for place in places(path):
        for directory, _, _ in os.walk(place):
            with contextlib.suppress(OSError):
                found |= {int(pid) for pid in Path(directory, "cgroup.procs").read_text().split()}
    return found - {0}


def end_all(path: str, timeout_s: float = 60.0) -> None:
    """SIGKILL to everything in a cgroup until nothing is left, then remove it. Nothing happens when it is not there.

    Errors: `Failed` when something does not go, such as a process that hangs in the kernel.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        for pid in pids(path):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for place in places(path):
            for directory, _, _ in os.walk(place, topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(directory)
        if not places(path):
            return
        if time.monotonic() > deadline:
            left = ", ".join(map(str, sorted(pids(path)))) or "none"
            raise Failed(f"cgroup {path} does not go: processes {left} are left in it; end them and try again")
        time.sleep(0.02)
