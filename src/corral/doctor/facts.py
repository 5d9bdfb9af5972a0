"""What was found on a node, as plain values. None means that it could not be found out, or is not there."""

import msgspec


class DockerFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Shapes: `why` says why the Engine does not answer; the rest is as its `info` says."""

    url: str = ""
    why: str = ""
    version: str = ""
    live_restore: bool = False
    swarm: bool = False
    cgroup_driver: str = ""
    storage_driver: str = ""
    log_driver: str = ""
    log_limited: bool = True
    containerd: str = ""


class UnitFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A unit of systemd. Shapes: `kill_mode` is systemd's word."""

    loaded: bool = False
    kill_mode: str = ""
    delegate: bool = False
    restart: str = ""


class DiskFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Units: bytes; shares are fractions of 1."""

    path: str
    kind: str = ""
    free_bytes: int = 0
    free_share: float = 1.0
    free_files_share: float = 1.0
    writable: bool = True


class PortFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Shapes: `holder` is empty when it is free, `corral` when a corral answers there, else what is known."""

    address: str
    holder: str = ""


class MasterFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Units: `ahead_s` is how far its clock is ahead of this node's."""

    url: str
    why: str = ""
    ready: bool = False
    ahead_s: float | None = None


class CertificateFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Shapes: `why` says why it cannot be used; `mode` are the permission bits of its file."""

    name: str = ""
    kind: str = ""
    not_before: float = 0.0
    not_after: float = 0.0
    mode: int = 0o600
    why: str = ""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """Shapes: `role` is `agent` or `master`; `runtimes` are those that are wanted; `cgroup` is `v2`, `hybrid`, `v1` or
    `none`; `units` by name; `bwrap_why` and `cgroup_why` are None where it works."""

    role: str = "agent"
    now: float = 0.0
    root: bool = True
    runtimes: tuple[str, ...] = ("docker", "process")
    kernel: tuple[int, int] = (0, 0)
    pidfd: bool = True
    pressure: bool = True
    cgroup: str = "v2"
    controllers: frozenset[str] = frozenset({"cpu", "memory"})
    cgroup_why: str | None = None
    init: str = "systemd"
    units: dict[str, UnitFacts] = {}
    programs: frozenset[str] = frozenset()
    bwrap_why: str | None = None
    docker: DockerFacts | None = None
    clock_synchronised: bool | None = None
    disks: tuple[DiskFacts, ...] = ()
    open_files: int = 1 << 20
    ports: tuple[PortFacts, ...] = ()
    masters: tuple[MasterFacts, ...] = ()
    certificate: CertificateFacts | None = None
    exposed: bool = False
