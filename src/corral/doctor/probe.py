"""Finds the facts of the node it runs on. Decides nothing, changes nothing, waits for nobody longer than seconds."""

import asyncio
import ctypes
import email.utils
import http.client
import os
import resource
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from corral.docker.engine import DockerEngine, engine_url
from corral.doctor.facts import (
    CertificateFacts,
    DiskFacts,
    DockerFacts,
    Facts,
    MasterFacts,
    PortFacts,
    UnitFacts,
)
from corral.lib.errors import CorralError, Invalid
from corral.net.access import NO_ACCESS, Access, complete_url, is_loopback
from corral.net.certificates import belongs, describe, read_key
from corral.net.keyring import CA_FILE, IDENTITY_FILE
from corral.net.tls import explain_tls
from corral.process.cgroup import read_hierarchies

PATIENCE_S = 5.0
PROGRAMS = ("bwrap", "iptables", "systemctl")
UNITS = ("corral-agent.service", "corral-master.service", "docker.service", "containerd.service")
TIME_ERROR = 5


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What to look at. Shapes: `listen` as the daemon would be told; `masters` are URLs, asked with `access`."""

    role: str
    work_dir: Path
    listen: str
    masters: tuple[str, ...] = ()
    runtimes: tuple[str, ...] = ("docker", "process")
    docker_host: str = ""
    access: Any = NO_ACCESS
    exposed: bool = False


def find_facts(options: Options) -> Facts:
    """Everything there is to know here."""
    mountinfo = _text("/proc/self/mountinfo")
    cgroup, controllers, cgroup_why = _find_cgroups(mountinfo)
    programs = frozenset(name for name in PROGRAMS if shutil.which(name))
    init = _text("/proc/1/comm").strip()
    agent = options.role == "agent"
    return Facts(
        role=options.role,
        now=time.time(),
        root=os.geteuid() == 0,
        runtimes=options.runtimes,
        kernel=_kernel(os.uname().release),
        pidfd=_has_pidfds(),
        pressure=Path("/proc/pressure").exists(),
        cgroup=cgroup,
        controllers=controllers,
        cgroup_why=cgroup_why,
        init=init or "unknown",
        units=_find_units() if init == "systemd" else {},
        programs=programs,
        bwrap_why=_try_bubblewrap() if agent and "bwrap" in programs else None,
        docker=asyncio.run(_find_docker(options.docker_host)) if agent and "docker" in options.runtimes else None,
        clock_synchronised=_is_clock_synchronised(),
        disks=tuple(_find_disk(path, mountinfo) for path in _directories(options)),
        open_files=_open_files(),
        ports=(_find_port(options.listen),),
        masters=tuple(_find_master(url, options.access) for url in options.masters),
        certificate=_find_certificate(options.work_dir / "trust"),
        exposed=options.exposed,
    )


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _kernel(release: str) -> tuple[int, int]:
    numbers = [int("".join(c for c in part if c.isdigit()) or 0) for part in release.split(".")[:2]]
    return (numbers[0], numbers[1]) if len(numbers) == 2 else (0, 0)


def _has_pidfds() -> bool:
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError:
        return False
    return True


def _find_cgroups(mountinfo: str) -> tuple[str, frozenset[str], str | None]:
    """Which kind, which controllers, and why no cgroup can be made; None when one could."""
    trees = read_hierarchies(mountinfo, _text("/proc/self/cgroup"))
    versions = {tree.version for tree in trees}
    if not versions:
        return "none", frozenset(), None
    kind = {frozenset({1}): "v1", frozenset({2}): "v2"}.get(frozenset(versions), "hybrid")
    controllers: set[str] = set()
    why = None
    for tree in trees:
        if tree.version == 1:
            controllers |= tree.controllers
        else:
            controllers |= set(_text(f"{tree.mount}/cgroup.controllers").split())
        if not os.access(tree.mount, os.W_OK) and not os.access(tree.own, os.W_OK):
            why = why or f"{tree.own} cannot be written"
    return kind, frozenset(controllers), why


def _run(*words: str) -> subprocess.CompletedProcess[str] | None:
    try:
        return subprocess.run(
            words, capture_output=True, text=True, timeout=PATIENCE_S, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired):
        return None


def _find_units() -> dict[str, UnitFacts]:
    found = {}
    for name in UNITS:
        said = _run("systemctl", "show", name, "-p", "LoadState,KillMode,Delegate,Restart")
        if said is None or said.returncode != 0:
            continue
        words = dict(line.partition("=")[::2] for line in said.stdout.splitlines())
        found[name] = UnitFacts(
            loaded=words.get("LoadState") == "loaded",
            kill_mode=words.get("KillMode", ""),
            delegate=words.get("Delegate") == "yes",
            restart=words.get("Restart", ""),
        )
    return found


def _try_bubblewrap() -> str | None:
    said = _run("bwrap", "--unshare-pid", "--unshare-ipc", "--ro-bind", "/", "/", "--proc", "/proc", "true")
    if said is None:
        return "it does not end"
    return None if said.returncode == 0 else " ".join(said.stderr.split())[:200] or f"it ends with {said.returncode}"


async def _find_docker(host: str) -> DockerFacts:
    try:
        url = engine_url(host or None)
        engine = DockerEngine(url)
    except CorralError as error:
        return DockerFacts(why=error.message)
    try:
        async with asyncio.timeout(PATIENCE_S):
            info = await engine.info()
    except TimeoutError:
        return DockerFacts(url=url, why=f"the Engine at {url} does not answer within {PATIENCE_S:g} s")
    except CorralError as error:
        return DockerFacts(url=url, why=error.message)
    finally:
        await engine.close()
    return read_docker(url, info)


def read_docker(url: str, info: dict[str, Any]) -> DockerFacts:
    """The facts in an Engine's `info`."""
    driver = str(info.get("LoggingDriver") or "")
    return DockerFacts(
        url=url,
        version=str(info.get("ServerVersion") or ""),
        live_restore=bool(info.get("LiveRestoreEnabled")),
        swarm=(info.get("Swarm") or {}).get("LocalNodeState") not in (None, "", "inactive"),
        cgroup_driver=str(info.get("CgroupDriver") or ""),
        storage_driver=str(info.get("Driver") or ""),
        log_driver=driver,
        log_limited="max-size" in _text("/etc/docker/daemon.json"),
        containerd=str((info.get("ContainerdCommit") or {}).get("ID") or "")[:12],
    )


def _is_clock_synchronised() -> bool | None:
    """Source: adjtimex(2), whose result is TIME_ERROR while the clock is not synchronised."""
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        state = libc.adjtimex(ctypes.create_string_buffer(512))
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != TIME_ERROR


def _directories(options: Options) -> list[str]:
    found = [str(options.work_dir)]
    if options.role == "agent" and "docker" in options.runtimes and Path("/var/lib/docker").is_dir():
        found.append("/var/lib/docker")
    return found


def _find_disk(path: str, mountinfo: str) -> DiskFacts:
    """Shapes: of a directory that is not there yet, the nearest above it that is."""
    there = Path(path)
    while not there.exists() and there != there.parent:
        there = there.parent
    try:
        stat = os.statvfs(there)
    except OSError:
        return DiskFacts(path=path, writable=False)
    return DiskFacts(
        path=path,
        kind=_file_system(str(there.resolve()), mountinfo),
        free_bytes=stat.f_bavail * stat.f_frsize,
        free_share=stat.f_bavail / stat.f_blocks if stat.f_blocks else 1.0,
        free_files_share=stat.f_favail / stat.f_files if stat.f_files else 1.0,
        writable=os.access(there, os.W_OK | os.X_OK),
    )


def _file_system(path: str, mountinfo: str) -> str:
    best, kind = "", ""
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        mount = before.split(" ")[4].replace("\\040", " ")
        inside = path == mount or path.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= len(best):
            best, kind = mount, after.split(" ")[0]
    return kind


def _open_files() -> int:
    """The hard limit, to which daemons raise themselves."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return 1 << 62 if hard == resource.RLIM_INFINITY else hard


def _find_port(listen: str) -> PortFacts:
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except OSError as error:
            near = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
            holder = "corral" if _is_corral(near, int(port)) else error.strerror or str(error)
            return PortFacts(address=listen, holder=holder)
    return PortFacts(address=listen)


def _is_corral(host: str, port: int) -> bool:
    for secure in (False, True):
        try:
            status, body, _ = _get(host, port, "/health/live", _unverified() if secure else None)
        except (OSError, http.client.HTTPException):
            continue
        if (status == 200 and b'"live"' in body) or b"this port speaks TLS" in body:
            return True
    return False


def _unverified() -> ssl.SSLContext:
    """For asking who is there, and telling nothing."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _get(host: str, port: int, path: str, tls: ssl.SSLContext | None) -> tuple[int, bytes, str]:
    """Status, body and date of one answer."""
    if tls is None:
        connection = http.client.HTTPConnection(host, port, timeout=PATIENCE_S)
    else:
        connection = http.client.HTTPSConnection(host, port, timeout=PATIENCE_S, context=tls)
    try:
        connection.request("GET", path, headers={"Connection": "close"})
        answer = connection.getresponse()
        return answer.status, answer.read(1 << 16), answer.headers.get("Date", "")
    finally:
        connection.close()


def _find_master(url: str, access: Access) -> MasterFacts:
    try:
        url = complete_url(url, access)
        parts = urlsplit(url)
        tls = access.context() if parts.scheme == "https" else None
        port = parts.port or (443 if tls is not None else 80)
        status, _, date = _get(parts.hostname or "", port, "/health/ready", tls)
    except Invalid as error:
        return MasterFacts(url=url, why=error.message)
    except (OSError, http.client.HTTPException) as error:
        return MasterFacts(url=url, why=explain_tls(error, url) or f"does not answer: {error or type(error).__name__}")
    return MasterFacts(url=url, ready=status == 200, ahead_s=_ahead_s(date))


def _ahead_s(date: str) -> float | None:
    """Units: seconds, of a header that tells them whole."""
    try:
        at = email.utils.parsedate_to_datetime(date).timestamp()
    except (TypeError, ValueError):
        return None
    off_s = at + 0.5 - time.time()
    return 0.0 if abs(off_s) < 1.0 else off_s


def _find_certificate(directory: Path) -> CertificateFacts | None:
    path = directory / IDENTITY_FILE
    try:
        if not path.exists():
            return None
        pem, mode = path.read_bytes(), path.stat().st_mode & 0o777
        found = describe(pem)
        whole = belongs(pem, read_key(pem), (directory / CA_FILE).read_bytes())
    except (OSError, Invalid) as error:
        why = error.message if isinstance(error, Invalid) else f"{path} cannot be read: {error.strerror}"
        return CertificateFacts(why=why)
    return CertificateFacts(
        name=found.name,
        kind=found.kind,
        not_before=found.not_before,
        not_after=found.not_after,
        mode=mode,
        why="" if whole else f"{path} was not issued by the authority in {CA_FILE}",
    )


def choose_masters(given: Sequence[str], joined: str) -> tuple[str, ...]:
    """Those that were named, else the one that was joined."""
    named = [part.strip() for text in given for part in text.split(",") if part.strip()]
    return tuple(named) or tuple(url for url in joined.split(",") if url)


def is_exposed(listen: str) -> bool:
    return not is_loopback(listen.rpartition(":")[0].strip("[]"))
