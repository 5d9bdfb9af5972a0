"""Chooses the cgroups of tasks from what is mounted, and makes, reads, kills and removes them.

Version 1, version 2 and the mixture of both are told apart by the mount table, never by the kernel's version. Tasks
live beside systemd's units, so that stopping the agent's unit does not reach them; elsewhere below the agent's own
cgroup. Standard library only. Source: cgroups(7), cgroup-v2 and cgroup-v1 kernel documentation.
"""

import os
import re
import signal
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from corral.process.record import Cgroup

NAME = "corral"
HOME = "supervisors"
V2 = "cgroup2"
_WANTED = {"cpu", "memory", "name=systemd", V2}
_SYSTEMD_UNIT = re.compile(r"/[^/]+\.(?:slice|scope|service)(?:/|$)")


class Hierarchy(NamedTuple):
    """One mounted tree. Shapes: `own` is this process's directory in it, as an absolute path; `controllers` v1 only."""

    version: int
    mount: str
    own: str
    controllers: frozenset[str] = frozenset()


class Limits(NamedTuple):
    """Units: thousandths of a core as weight and as cap, MB of memory. Shapes: 0 or None sets nothing."""

    cpu_milli: int = 0
    cpu_limit_milli: int | None = None
    mem_mb: int | None = None


def read_hierarchies(mountinfo: str, membership: str) -> list[Hierarchy]:
    """The trees in the texts of /proc/self/mountinfo and /proc/self/cgroup that a task's cgroup is made in.

    Shapes: cpu and memory of v1, the one tree of v2, and systemd's own tracking tree; in order of mounting.
    """
    member = {}
    for line in membership.splitlines():
        _, names, path = line.split(":", 2)
        for name in names.split(",") if names else [V2]:
            member[name] = path
    found: list[Hierarchy] = []
    seen: set[str] = set()
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        root, mount = (_unescape(field) for field in before.split(" ")[3:5])
        offered = {"cgroup": options.split(","), "cgroup2": [V2]}.get(kind, [])
        trees = member.keys() & set(offered)
        if not trees & _WANTED or trees & seen:
            continue
        seen |= trees
        own = member[min(trees)]
        inside = own.removeprefix(root) if root != "/" else own
        path = f"{mount}/{inside.strip('/')}".rstrip("/")
        found.append(Hierarchy(2 if kind == "cgroup2" else 1, mount, path, frozenset(trees - {V2})))
    return found


def choose_parent(hierarchy: Hierarchy, wanted: str | None) -> str:
    """The directory under which all tasks of this node live in this tree.

    Shapes: `wanted` is a path inside every tree, such as `/corral`; None chooses.
    """
    if wanted is not None:
        return f"{hierarchy.mount}/{wanted.strip('/')}"
    inside = hierarchy.own.removeprefix(hierarchy.mount)
    unit = _SYSTEMD_UNIT.search(inside)
    base = inside[: unit.start()] if unit else inside
    return f"{hierarchy.mount}{base.rstrip('/')}/{NAME}"


def limit_files(version: int, controllers: Iterable[str], limits: Limits) -> list[tuple[str, str]]:
    """What to write into which file of a task's cgroup.

    Units: as `Limits`; written in the kernel's own. Shapes: nothing for a controller that is not there.
    """
    files: list[tuple[str, str]] = []
    have = frozenset(controllers)
    shares = max(2, min(262144, limits.cpu_milli * 1024 // 1000))
    quota_us = None if limits.cpu_limit_milli is None else max(1000, limits.cpu_limit_milli * 100)
    mem = None if limits.mem_mb is None else str(limits.mem_mb << 20)
    if "cpu" in have and limits.cpu_milli > 0:
        files.append(("cpu.shares", str(shares)) if version == 1 else ("cpu.weight", str(_weight(shares))))
    if "cpu" in have and quota_us is not None:
        if version == 1:
            files += [("cpu.cfs_period_us", "100000"), ("cpu.cfs_quota_us", str(quota_us))]
        else:
            files.append(("cpu.max", f"{quota_us} 100000"))
    if "memory" in have and mem is not None:
        if version == 1:
            files += [("memory.limit_in_bytes", mem), ("?memory.memsw.limit_in_bytes", mem)]
        else:
            # The whole task goes when one of its processes must: half a task helps nobody.
            files += [("memory.max", mem), ("?memory.swap.max", "0"), ("?memory.oom.group", "1")]
    return files


def _weight(shares: int) -> int:
    """The scale of v2 for a v1 number of shares, with the proportions that Docker and systemd keep."""
    return 1 + (shares - 2) * 9999 // 262142


def _unescape(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), field)


class Trees:
    """The cgroups that tasks of this node can have, found once at the agent's start.

    Shapes: `notes` say what is not possible, why, and what to do about it; `hierarchies` None looks at this machine.
    """

    __slots__ = ("_parents", "notes")

    def __init__(self, wanted: str | None = None, hierarchies: Sequence[Hierarchy] | None = None) -> None:
        self._parents: list[tuple[Hierarchy, str, frozenset[str]]] = []
        self.notes: list[str] = []
        if hierarchies is None:
            with open("/proc/self/mountinfo") as mounts, open("/proc/self/cgroup") as member:
                hierarchies = read_hierarchies(mounts.read(), member.read())
        for hierarchy in hierarchies:
            if hierarchy.controllers == {"name=systemd"} and hierarchy.own == hierarchy.mount:
                continue  # it only tracks units, and this process is in none
            parent = choose_parent(hierarchy, wanted)
            try:
                controllers = _prepare(hierarchy, parent)
            except OSError as error:
                self.notes.append(
                    f"tasks get no cgroup in {hierarchy.mount}: {parent}: {error.strerror}; "
                    "run the agent as root or delegate a cgroup to it"
                )
                continue
            self._parents.append((hierarchy, parent, controllers))
        have = {name for _, _, controllers in self._parents for name in controllers}
        for controller, missed in (("cpu", "cpu weights and caps"), ("memory", "memory limits")):
            if controller not in have:
                self.notes.append(
                    f"{missed} of process tasks are not enforced: no {controller} cgroup can be used here"
                )

    def of_task(self, name: str, limits: Limits) -> list[Cgroup]:
        """What the supervisor makes for one task."""
        return [
            {"path": f"{parent}/{name}", "files": limit_files(hierarchy.version, controllers, limits)}
            for hierarchy, parent, controllers in self._parents
        ]

    def homes(self) -> list[str]:
        """Where supervisors live: neither among the agent's processes nor under a task's limit."""
        return [f"{parent}/{HOME}" for _, parent, _ in self._parents]

    def close(self) -> None:
        """Remove what is empty, so that an agent which ran nothing leaves nothing."""
        remove(path for _, parent, _ in self._parents for path in (f"{parent}/{HOME}", parent))


def _prepare(hierarchy: Hierarchy, parent: str) -> frozenset[str]:
    """Make the parent and the supervisors' home; returns the controllers that its children will have."""
    os.makedirs(f"{parent}/{HOME}", mode=0o755, exist_ok=True)
    if not os.access(f"{parent}/{HOME}/cgroup.procs", os.W_OK):
        raise PermissionError(13, "Permission denied", parent)
    if hierarchy.version == 1:
        return hierarchy.controllers & {"cpu", "memory"}
    steps = parent.removeprefix(hierarchy.mount).strip("/").split("/")
    for depth in range(len(steps) + 1):
        level = "/".join([hierarchy.mount, *steps[:depth]])
        for controller in ("cpu", "memory"):
            _try_write(f"{level}/cgroup.subtree_control", f"+{controller}")
    with open(f"{parent}/cgroup.subtree_control") as file:
        return frozenset(file.read().split()) & {"cpu", "memory"}


def create(cgroups: Sequence[Cgroup]) -> None:
    """Make a task's cgroups and set their limits.

    Errors: `OSError` when a limit cannot be set. Shapes: a file name with `?` in front may be missing.
    """
    for cgroup in cgroups:
        os.makedirs(cgroup["path"], mode=0o755, exist_ok=True)
        for name, value in cgroup["files"]:
            if name.startswith("?"):
                _try_write(f"{cgroup['path']}/{name[1:]}", value)
            else:
                _write(f"{cgroup['path']}/{name}", value)


def widen(cgroups: Sequence[Cgroup]) -> None:
    """Set other limits for what is in these cgroups, none of memory below what it was; what is gone is let be.

    Errors: `OSError` when a limit cannot be set.
    """
    there = [cgroup for cgroup in cgroups if os.path.isdir(cgroup["path"])]
    for cgroup in there:
        for name, value in cgroup["files"]:
            if name.startswith("?"):
                # The limit with swap must never be the smaller one, so it goes first here.
                _try_write(f"{cgroup['path']}/{name[1:]}", value)
    create(there)


def join(paths: Iterable[str]) -> None:
    """Move the calling process."""
    for path in paths:
        _write(f"{path}/cgroup.procs", "0")


def join_if_possible(paths: Iterable[str]) -> None:
    for path in paths:
        _try_write(f"{path}/cgroup.procs", "0")


def pids_in(paths: Iterable[str]) -> list[int]:
    """All processes in these cgroups, sorted."""
    found: set[int] = set()
    for path in paths:
        try:
            with open(f"{path}/cgroup.procs") as file:
                found.update(int(line) for line in file)
        except OSError:
            continue
    return sorted(found)


def kill(paths: Sequence[str]) -> None:
    """SIGKILL to everything in these cgroups: by one write where the kernel can, else one by one."""
    if any(_try_write(f"{path}/cgroup.kill", "1") for path in paths):
        return
    for pid in pids_in(paths):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def oom_kills(paths: Iterable[str]) -> int:
    """How many processes the kernel ended here because the memory limit was reached."""
    total = 0
    for path in paths:
        for name in ("memory.oom_control", "memory.events"):
            try:
                with open(f"{path}/{name}") as file:
                    total += sum(int(line.split()[1]) for line in file if line.startswith("oom_kill "))
            except OSError:
                continue
    return total


def remove(paths: Iterable[str]) -> None:
    """Remove empty cgroups; one that is gone or still has processes is left alone."""
    for path in paths:
        try:
            os.rmdir(path)
        except OSError:
            continue


def _write(path: str, value: str) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(handle, value.encode())
    finally:
        os.close(handle)


def _try_write(path: str, value: str) -> bool:
    try:
        _write(path, value)
    except OSError:
        return False
    return True
