"""What an app says of Linux itself, `container.linuxInfo`: its system calls and its shared memory.

With an image it is said to the Docker Engine as flags of `docker run`. A command of the node runs under no profile of
system calls, and shares the memory of the node, so that only what says so can be asked for there. Profiles by name are
files that an agent would have, and none of this release does (`absent.py`).
Source: Marathon's contract, section 2, and its page on seccomp.
"""

import re
from collections.abc import Iterator
from typing import Any

from corral.frameworks.services.app_spec import AppSpec, LinuxInfo
from corral.frameworks.services.reader import Reader

PRIVATE, SHARED = "PRIVATE", "SHARE_PARENT"
_PROFILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


def read_linux(outer: Reader) -> LinuxInfo | None:
    reader = outer.object("linuxInfo")
    if reader is None:
        return None
    seccomp, ipc = reader.object("seccomp"), reader.object("ipcInfo")
    unconfined: bool | None = None
    profile: str | None = None
    if seccomp is not None:
        unconfined = seccomp.flag("unconfined", False)
        profile = seccomp.text_or_none("profileName")
        seccomp.done()
    mode, shm_mb = None, None
    if ipc is not None:
        mode = ipc.choice("mode", PRIVATE, (PRIVATE, SHARED))
        shm_mb = ipc.whole("shmSize", 0) if ipc.has("shmSize") else None
        ipc.done()
    reader.done()
    return LinuxInfo(unconfined=unconfined, profile=profile, ipc=mode, shm_mb=shm_mb)


def write_linux(linux: LinuxInfo) -> dict[str, Any]:
    out: dict[str, Any] = {}
    if linux.unconfined is not None:
        out["seccomp"] = {"unconfined": linux.unconfined}
        if linux.profile is not None:
            out["seccomp"]["profileName"] = linux.profile
    if linux.ipc is not None:
        out["ipcInfo"] = {"mode": linux.ipc}
        if linux.shm_mb is not None:
            out["ipcInfo"]["shmSize"] = linux.shm_mb
    return out


def find_linux_faults(spec: AppSpec) -> Iterator[tuple[str, str]]:
    linux = spec.container.linux if spec.container is not None else None
    if linux is None:
        return
    at = "/container/linuxInfo"
    if linux.unconfined and linux.profile is not None:
        yield f"{at}/seccomp", "a profile confines; give either unconfined true or profileName"
    if linux.profile is not None and not _PROFILE.fullmatch(linux.profile):
        yield f"{at}/seccomp/profileName", f"got {linux.profile!r}, must be the name of a file without its directory"
    if spec.image is None and linux.unconfined is False and linux.profile is None:
        yield f"{at}/seccomp", "a command of the node runs unconfined; add an image, or unconfined true"
    if spec.image is None and linux.ipc == PRIVATE:
        yield f"{at}/ipcInfo/mode", f"a command of the node shares its memory; add an image, or take {SHARED}"
    if linux.shm_mb is not None and not 0 < linux.shm_mb < 1 << 24:
        yield f"{at}/ipcInfo/shmSize", f"got {linux.shm_mb}, must be 1 or more, in MiB"
    if linux.shm_mb is not None and linux.ipc == SHARED:
        yield f"{at}/ipcInfo/shmSize", "memory that is shared has the size that the node gives it; leave shmSize out"


def make_linux_parameters(spec: AppSpec) -> tuple[tuple[str, str], ...]:
    """As flags of `docker run`."""
    linux = spec.container.linux if spec.container is not None else None
    if linux is None:
        return ()
    flags = []
    if linux.unconfined:
        flags.append(("security-opt", "seccomp=unconfined"))
    if linux.ipc is not None:
        flags.append(("ipc", "host" if linux.ipc == SHARED else "private"))
    if linux.shm_mb is not None:
        flags.append(("shm-size", f"{linux.shm_mb}m"))
    return tuple(flags)
