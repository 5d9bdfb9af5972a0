"""Turns the calling process into a task: its session, cgroup, user, directory and environment, then its command.

Runs between fork and exec in the supervisor's child, and as a program of its own where a namespace must be entered
first (`BOOT`). Standard library only. Source: Mesos v1 CommandInfo; prctl(2), setns(2).
"""

import ctypes
import errno
import fcntl
import json
import os
import pwd
import signal
import sys
import termios
from typing import NoReturn

from corral.process import cgroup, record, tree
from corral.process.record import Run

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
_CLONE_NEWNS = 0x00020000
_CLONE_NEWUSER = 0x10000000

_libc = ctypes.CDLL(None, use_errno=True)


class CannotEnter(Exception):
    """The command cannot be run; the text says why and what to do. `code` is what a shell would exit with."""

    def __init__(self, message: str, code: int = 126) -> None:
        super().__init__(message)
        self.code = code


def boot(function: str, *arguments: str) -> list[str]:
    """The command line that runs one function of this package without any start-up cost of site-packages."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    module, _, name = function.partition(":")
    code = f"import sys; sys.path.append({root!r}); from corral.process.{module} import {name}; {name}(sys.argv[1:])"
    return [sys.executable, "-I", "-S", "-X", "utf8", "-c", code, *arguments]


def set_name(name: str) -> None:
    _libc.prctl(_PR_SET_NAME, name.encode()[:15], 0, 0, 0)


def become_subreaper() -> None:
    """Become the parent of all orphans below, so that nothing a task starts can escape its supervisor."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def enter_cgroups(run: Run) -> None:
    """Join the task's cgroups and be no more protected from the OOM killer than usual."""
    cgroup.join([group["path"] for group in run["cgroups"]])
    try:
        with open("/proc/self/oom_score_adj", "r+") as file:
            if int(file.read()) < 0:
                file.write("0")
    except (OSError, ValueError):
        pass


def become_user(user: str | None) -> None:
    """Take on a user given by name or number, with its groups; None stays as it is.

    Errors: `CannotEnter` when there is no such user or this process may not change.
    """
    if user is None:
        return
    try:
        entry = pwd.getpwuid(int(user)) if user.isdigit() else pwd.getpwnam(user)
    except KeyError:
        raise CannotEnter(f"user {user!r} does not exist on this node; create it or name another") from None
    if os.geteuid() != 0:
        if entry.pw_uid != os.geteuid():
            raise CannotEnter(
                f"task asks for user {user!r} but its agent runs as uid {os.geteuid()} and cannot change users; "
                "run the agent as root or leave the user out"
            )
        return
    os.initgroups(entry.pw_name, entry.pw_gid)
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)


def enter_directory(path: str) -> None:
    try:
        os.chdir(path)
    except OSError as error:
        raise CannotEnter(
            f"sandbox {path} cannot be entered by uid {os.geteuid()}: {error.strerror}; "
            "check the rights of the agent's work directory"
        ) from None


def read_environment(run: Run) -> dict[str, str]:
    """The variables of a run. Errors: `CannotEnter` when some of them are not there any more."""
    try:
        return record.environment_of(run)
    except OSError as error:
        raise CannotEnter(f"the task's secrets are not in memory any more: {error.strerror}", 126) from None


def execute(argv: list[str], environment: dict[str, str]) -> NoReturn:
    """Run the command with default signals and exactly this environment.

    Errors: `CannotEnter` in a user's words.
    """
    os.umask(0o022)
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD, signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
    try:
        os.execvpe(argv[0], argv, environment)  # noqa: S606  no shell: what to run is the user's own choice
    except (OSError, ValueError) as error:
        raise CannotEnter(*_explain(argv[0], environment, error)) from None


def _explain(command: str, environment: dict[str, str], error: Exception) -> tuple[str, int]:
    if isinstance(error, ValueError):
        return f"command {command[:80]!r} or its environment cannot be passed to the kernel: {error}", 126
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.ENOENT, errno.ENOTDIR):
        if "/" in command:
            if os.path.exists(command):
                return f"command {command!r} needs an interpreter that is not on this node; check its first line", 126
            return f"command {command!r} not found; check the path, or fetch it by a URI", 127
        path = environment.get("PATH", os.defpath)
        return f"command {command!r} not found in PATH {path}; install it, or fetch it by a URI", 127
    if number == errno.EACCES:
        return f"command {command!r} may not be executed by uid {os.geteuid()}; make it executable", 126
    if number == errno.ENOEXEC:
        return f"command {command!r} is no program for this machine; a script needs a first line such as #!/bin/sh", 126
    if number == errno.E2BIG:
        return f"arguments and environment of command {command!r} are too long for the kernel; shorten them", 126
    return f"command {command!r} cannot be executed: {error}", 126


def run_wrapped(arguments: list[str]) -> NoReturn:
    """Become the task inside a namespace that is already made; tells its pid or its failure on a descriptor.

    Shapes: `arguments` are the number of the descriptor and the run's directory.
    """
    status = int(arguments[0])
    os.set_inheritable(status, False)
    run: Run = record.read_record(arguments[1], record.RUN)
    try:
        os.setsid()
        environment = read_environment(run)
        tell(status, {"pid": os.getpid()})
        become_user(run["user"])
        enter_directory(run["sandbox"])
        execute(run["argv"], environment)
    except CannotEnter as error:
        tell(status, {"error": str(error)})
    os._exit(127)


def tell(status: int, value: dict[str, object]) -> None:
    os.write(status, json.dumps(value).encode() + b"\n")


def run_beside(arguments: list[str]) -> NoReturn:
    """Run a further command in a task's surroundings.

    Shapes: `arguments` are the run's directory, `tty` or an empty text, and the command.
    """
    directory, tty, argv = arguments[0], arguments[1] == "tty", arguments[2:]
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # meant for the command, it may come before that is run
    run: Run = record.read_record(directory, record.RUN)
    pids: record.Pids = record.read_record(directory, record.PIDS)
    try:
        if tty:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        cgroup.join_if_possible([group["path"] for group in run["cgroups"]])
        if run["wrap"]:
            _enter_namespaces(pids["pid"], pids["pid_start"])
        environment = read_environment(run)
        become_user(run["user"])
        enter_directory(run["sandbox"])
        die_with_parent()
        if tty:
            environment.setdefault("TERM", "xterm")
        execute(argv, environment)
    except CannotEnter as error:
        os.write(2, f"{error}\n".encode())
        os._exit(error.code)


def _enter_namespaces(pid: int, start: int) -> None:
    handle = tree.open_process(pid, start)
    if handle is None:
        raise CannotEnter("the task has ended")
    # As root the mount namespace is enough; else it can only be entered through the user namespace that owns it.
    kinds = _CLONE_NEWNS if os.geteuid() == 0 else _CLONE_NEWNS | _CLONE_NEWUSER
    if _libc.setns(handle, kinds) != 0:
        raise CannotEnter(f"the mounts of the task cannot be entered: {os.strerror(ctypes.get_errno())}")
    os.close(handle)
