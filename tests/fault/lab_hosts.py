"""Labs for tests: named after the process that asks, swept when it is gone, and short ways to look into them."""

import contextlib
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from corral.lab import cgroups
from corral.lab.lab import Lab
from corral.lab.wires import NAMESPACES, here_link

ROOT = Path("/tmp/corral-labs")


def make_lab(letter: str) -> Lab:
    """A lab of this process; those whose process has gone are taken down first."""
    for path in ROOT.glob("[a-z]*"):
        found = re.fullmatch(r"[a-z](\d+)", path.name)
        if found and not Path("/proc", found[1]).exists():
            Lab(path.name, ROOT).down()
    return Lab(f"{letter}{os.getpid()}", ROOT)


def leftovers(name: str) -> list[str]:
    """What on this machine still bears the name of a lab."""
    found = [str(path) for path in NAMESPACES.glob(f"corral-{name}-*")]
    found += [str(path) for path in cgroups.places(f"corral-lab-{name}")]
    found += [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f"{ROOT}/{name}" in line]
    found += [str(path) for path in Path("/sys/class/net").glob(here_link(name))]
    return found + [str(path) for path in ROOT.glob(name)]


def inside(lab: Lab, host: str, *argv: str, timeout_s: float = 30.0) -> subprocess.CompletedProcess[str]:
    return subprocess.run(lab.command(host, argv), capture_output=True, text=True, timeout=timeout_s)


def reaches(lab: Lab, host: str, other: str) -> bool:
    """Whether a host can reach another. Shapes: `other` is a name of the lab's /etc/hosts."""
    return inside(lab, host, "timeout", "0.5", "busybox", "ping", "-c1", other).returncode == 0


def running_lab(letter: str, count: int, *, docker: bool) -> Iterator[Lab]:
    """For fixtures: a lab with hosts, gone afterwards without a trace."""
    lab = make_lab(letter)
    try:
        lab.up(count, docker=docker)
        yield lab
    finally:
        lab.down()
        assert leftovers(lab.name) == []
        with contextlib.suppress(OSError):  # other processes may have labs of theirs
            ROOT.rmdir()
