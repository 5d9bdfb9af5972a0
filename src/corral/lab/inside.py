"""Enters and makes the namespaces of a lab's host: a program of its own, started by path, standard library only.

    inside.py boot JSON      make the namespaces and mounts of a host, become its first process
    inside.py spawn JSON     start a daemon in a running host
    inside.py exec JSON      run a command in a running host and end as it does

A process that is to outlive its caller is written down, with its start time, before it may go on; one whose caller
died before that ends by itself. So whoever cleans up finds all there is. Source: namespaces(7), setns(2), unshare(2).
"""

import ctypes
import json
import os
import resource
import signal
import socket
import sys
from typing import Any, NoReturn

NEWNS, NEWUTS, NEWIPC, NEWPID, NEWNET = 0x20000, 0x4000000, 0x8000000, 0x20000000, 0x40000000
ENTERED = (("net", NEWNET), ("ipc", NEWIPC), ("uts", NEWUTS), ("pid", NEWPID), ("mnt", NEWNS))
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC = 2, 4, 8, 0x1000, 0x4000
MS_SLAVE, MS_SHARED = 1 << 19, 1 << 20
MNT_DETACH = 2
PR_SET_PDEATHSIG = 1
BOOT_ID = "/proc/sys/kernel/random/boot_id"
FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT, signal.SIGWINCH)

_libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: object) -> None:
    given = [a.encode() if isinstance(a, str) else a for a in arguments]
    if getattr(_libc, name)(*given) == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}{arguments!r}: {os.strerror(number)}")


def _mount(source: str | None, target: str, kind: str | None, flags: int) -> None:
    _call("mount", source, target, kind, ctypes.c_ulong(flags), None)


def _write_down(path: str, pid: int, processes: int) -> None:
    """Shapes: `processes` is the machine's /proc, as the pid is the machine's."""
    with open(os.open(f"{pid}/stat", os.O_RDONLY, dir_fd=processes), "rb") as file:
        start = int(file.read().rpartition(b")")[2].split()[19])
    with open(path + ".new", "w", encoding="ascii") as written:
        written.write(f"{pid} {start}\n")
    os.rename(path + ".new", path)


def _join(cgroups: list[str]) -> None:
    for path in cgroups:
        try:
            with open(f"{path}/cgroup.procs", "w", encoding="ascii") as file:
                file.write(str(os.getpid()))
        except OSError as error:
            raise OSError(error.errno, f"cgroup {path} cannot be joined: {error.strerror}") from None


def _enter(pid: int) -> None:
    handles = [(os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC), flag) for name, flag in ENTERED]
    for handle, flag in handles:
        _call("setns", handle, flag)
    for handle, _ in handles:
        os.close(handle)


def _detach(log: str) -> None:
    """Leave the caller's session and files behind."""
    os.setsid()
    nothing = os.open("/dev/null", os.O_RDWR)
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(nothing, 0)
    os.dup2(out, 1)
    os.dup2(out, 2)


def _fork_written_down(path: str, processes: int) -> int:
    """The child's pipe to its parent in the child, which goes on when it is written down. The parent does not return.

    The parent ends when the child has closed the pipe: with 0 if nothing was said on it, else with what was said.
    """
    go_out, go_in = os.pipe()
    said_out, said_in = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(go_in)
        os.close(said_out)
        if os.read(go_out, 1) != b"g":
            os._exit(1)
        os.close(go_out)
        return said_in
    os.close(go_out)
    os.close(said_in)
    _write_down(path, child, processes)
    os.write(go_in, b"g")
    os.close(go_in)
    words = b""
    while piece := os.read(said_out, 4096):
        words += piece
    if words:
        sys.stderr.write(words.decode(errors="replace"))
    os._exit(1 if words else 0)


def _set_up_mounts(asked: dict[str, Any]) -> None:
    _mount(None, "/", None, MS_REC | MS_SLAVE)  # nothing of the host reaches the machine
    _mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    # A new sysfs shows the host's own network; the machine's cgroups are kept in it. While mounts are still private:
    # taking the helper's mount away would take the cgroups away as well.
    keep = asked["keep"]
    os.makedirs(keep, exist_ok=True)
    _mount("/sys/fs/cgroup", keep, None, MS_BIND | MS_REC)
    _mount("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    _mount(keep, "/sys/fs/cgroup", None, MS_BIND | MS_REC)
    _call("umount2", keep, MNT_DETACH)
    for source, target in asked["binds"]:
        _mount(source, os.path.realpath(target), None, MS_BIND)
    _mount(None, "/", None, MS_REC | MS_SHARED)  # last: Docker's volumes with shared mounts need it


def _set_up_network() -> None:
    # A new namespace takes the machine's setting over; a fresh machine has 0, and only then does dockerd set FORWARD
    # to DROP as it does on a machine of its own.
    for name, value in (("ipv4/ip_forward", "0"), ("ipv6/conf/all/disable_ipv6", "1")):
        try:
            with open(f"/proc/sys/net/{name}", "w", encoding="ascii") as file:
                file.write(value)
        except FileNotFoundError:
            continue


def _reap_for_ever() -> NoReturn:
    """Pid 1 of a host. Signals from inside cannot end it; SIGKILL from outside ends the host."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while True:
        signal.sigwait({signal.SIGCHLD})
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            pass


def boot(asked: dict[str, Any]) -> None:
    """Shapes: `netns`, `name`, `pid_file`, `log`, `cgroups`, `keep` and `binds` of source and target."""
    _join(asked["cgroups"])
    processes = os.open("/proc", os.O_RDONLY | os.O_CLOEXEC)
    handle = os.open(asked["netns"], os.O_RDONLY)
    _call("setns", handle, NEWNET)
    os.close(handle)
    _call("unshare", NEWNS | NEWPID | NEWUTS | NEWIPC)
    pipe = _fork_written_down(asked["pid_file"], processes)
    try:
        os.chdir("/")
        os.umask(0o022)
        socket.sethostname(asked["name"])
        _set_up_mounts(asked)
        _set_up_network()
        _detach(asked["log"])
    except OSError as error:
        os.write(pipe, f"{error.strerror or error}\n".encode())
        os._exit(1)
    os.close(pipe)
    _reap_for_ever()


def spawn(asked: dict[str, Any]) -> None:
    """Shapes: `init` is the host's first process; `argv`, `environment`, `directory`, `log`, `pid_file`, `cgroups`."""
    _join(asked["cgroups"])
    processes = os.open("/proc", os.O_RDONLY | os.O_CLOEXEC)
    _enter(asked["init"])
    pipe = _fork_written_down(asked["pid_file"], processes)
    try:
        os.umask(0o022)
        os.chdir(asked["directory"])
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        _detach(asked["log"])
        os.execvpe(asked["argv"][0], asked["argv"], asked["environment"])  # noqa: S606
    except OSError as error:
        os.write(pipe, f"{asked['argv'][0]}: {error.strerror or error}\n".encode())
        os._exit(127)


def execute(asked: dict[str, Any]) -> None:
    """Shapes: as `spawn`, in the foreground. When this ends in whatever way, the command does."""
    here = os.getcwd()
    _join(asked["cgroups"])
    _enter(asked["init"])
    child = os.fork()
    if child == 0:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        try:
            os.chdir(here if os.path.isdir(here) else "/")
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            os.execvpe(asked["argv"][0], asked["argv"], {**os.environ, **asked["environment"]})  # noqa: S606
        except OSError as error:
            os.write(2, f"corral: {asked['argv'][0]} cannot be run: {error.strerror}\n".encode())
            os._exit(127 if isinstance(error, FileNotFoundError) else 126)
    for number in FORWARDED:
        signal.signal(number, lambda got, _: os.kill(child, got))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to both
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os._exit(code if code >= 0 else 128 - code)


def main(arguments: list[str]) -> None:
    verbs = {"boot": boot, "spawn": spawn, "exec": execute}
    try:
        verbs[arguments[0]](json.loads(arguments[1]))
    except OSError as error:
        sys.stderr.write(f"{error.strerror or error}\n")
        sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
