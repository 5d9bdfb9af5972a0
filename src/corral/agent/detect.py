"""Finds out what this node has to give, for an agent that was not told: cpus, mem, disk, ports.

Headroom is left for the node itself: of memory half up to 2 GB and 1 GB above, of disk half up to 10 GB and 5 GB above.
Source: Mesos agent, resource detection. Limits of the agent's own container count, not those of the machine around it.
"""

import os
import shutil
from pathlib import Path

from corral.lib.errors import Invalid
from corral.mesos.agent_resources import read_agent_resources
from corral.model.resources import Resources, normal, ports, scalar

PORTS = (31000, 32000)
_MIB = 1 << 20


def detect_resources(work_dir: str, given: str = "") -> Resources:
    """What the node has, where `given` (the text of `--resources`) does not say otherwise.

    Errors: `Invalid` when the text is not understood or the work directory's disk cannot be looked at.
    """
    told = read_agent_resources(given)
    names = named_in(told)
    found = []
    if "cpus" not in names:
        found.append(scalar("cpus", count_cpus()))
    if "mem" not in names:
        found.append(scalar("mem", leave_mem_mb(measure_memory() // _MIB)))
    if "disk" not in names:
        found.append(scalar("disk", leave_disk_mb(_measure_disk(work_dir) // _MIB)))
    if "ports" not in names:
        found.append(ports(PORTS))
    return normal((*told, *found))


def named_in(told: Resources) -> set[str]:
    """The resources whose amounts were told; a disk of its own says nothing of the root disk."""
    return {r.name for r in told if r.identity.disk is None}


def leave_mem_mb(total_mb: int) -> int:
    """What may be given away of this much memory."""
    return total_mb // 2 if total_mb <= 2048 else total_mb - 1024


def leave_disk_mb(total_mb: int) -> int:
    """What may be given away of this much disk."""
    return total_mb // 2 if total_mb <= 10240 else total_mb - 5120


def count_cpus() -> float:
    """The cores that this process may use, by its affinity and its cgroup's quota, at least a tenth of one."""
    cores = float(len(os.sched_getaffinity(0)))
    for quota in (_quota_v2(), _quota_v1()):
        if quota is not None:
            cores = min(cores, quota)
    return max(0.1, round(cores, 1))


def measure_memory() -> int:
    """Bytes of memory that this process may use, by the machine and by its cgroup."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        limit = _read_number(path)
        if limit is not None and 0 < limit < total:
            total = limit
    return total


def _measure_disk(work_dir: str) -> int:
    path = Path(work_dir)
    while not path.exists() and path != path.parent:
        path = path.parent
    try:
        return shutil.disk_usage(path).total
    except OSError as error:
        raise Invalid(f"the disk of {work_dir} cannot be measured: {error.strerror}; say disk in --resources") from None


def _quota_v2() -> float | None:
    words = _read_text("/sys/fs/cgroup/cpu.max").split()
    return int(words[0]) / int(words[1]) if len(words) == 2 and words[0].isdigit() else None


def _quota_v1() -> float | None:
    quota = _read_number("/sys/fs/cgroup/cpu/cpu.cfs_quota_us")
    period = _read_number("/sys/fs/cgroup/cpu/cpu.cfs_period_us")
    return quota / period if quota is not None and period and quota > 0 else None


def _read_number(path: str) -> int | None:
    text = _read_text(path).strip()
    return int(text) if text.lstrip("-").isdigit() else None


def _read_text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii")
    except (OSError, ValueError):
        return ""
