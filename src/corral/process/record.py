"""The files by which one run is remembered, and how they are written so that a crash leaves the old or the new.

    STATE_DIR/CONTAINER_ID/run.json   what to run            by the runtime, before the supervisor starts
                           lock       flock held by the supervisor as long as it lives
                           pids.json  who runs                by the supervisor, once the command runs
                           kill.json  until when it may end   by the runtime, then SIGUSR1 to the supervisor
                           exit.json  how it ended            by the supervisor, synced before anybody is told

Only the exit is synced: the other files describe living processes, and a power cut ends those as well. What belongs
to an earlier start of the machine is told by the boot id. Standard library only.
"""

import fcntl
import json
import os
from typing import Any, NotRequired, TypedDict

from corral.lib.contact import Fence


class Cgroup(TypedDict):
    """One directory to make for the task. Shapes: `files` are pairs of a file's name and what to write into it."""

    path: str
    files: list[tuple[str, str]]


class Run(TypedDict):
    """Shapes: `wrap` goes in front of the command when it needs a mount namespace.

    Units: `most_log_bytes` per file, None for no bound.
    """

    container_id: str
    task_id: str
    framework_id: str
    sandbox: str
    argv: list[str]
    environment: list[tuple[str, str]]
    user: str | None
    wrap: list[str]
    cgroups: list[Cgroup]
    most_log_bytes: int | None
    boot_id: str
    hidden: NotRequired[str]
    fence: NotRequired[Fence | None]


class Pids(TypedDict):
    """Shapes: the `_start` of each pid is in clock ticks since boot."""

    supervisor: int
    supervisor_start: int
    pid: int
    pid_start: int
    boot_id: str


class Kill(TypedDict):
    """Units: `deadline` in seconds of the monotonic clock, which all processes of a machine share."""

    deadline: float


class Ended(TypedDict):
    """Shapes: `failed` when the command never ran; otherwise at most one of `code` and `signal`. `fenced` when the
    supervisor ended it by itself.
    """

    code: int | None
    signal: int | None
    oom: bool
    failed: bool
    message: str
    at: float
    fenced: NotRequired[bool]


RUN, PIDS, KILL, EXIT, LOCK = "run.json", "pids.json", "kill.json", "exit.json", "lock"
NEW = ".new"
"""Behind the name of a file that is being written."""


def environment_of(run: Run) -> dict[str, str]:
    """All variables of a run, with those that stand in memory alone. To be asked before the user is changed.

    Errors: `OSError` when that memory was cleared, by a restart of the machine or when the run was removed.
    """
    environment = dict(run["environment"])
    if path := run.get("hidden"):
        with open(path, encoding="utf-8") as file:
            environment.update(json.load(file))
    return environment


def write_record(directory: str, name: str, value: Any, *, durable: bool = False) -> None:
    """Replace one file at once; with `durable` it is on disk when this returns."""
    path = os.path.join(directory, name)
    handle = os.open(path + NEW, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        data = json.dumps(value).encode()
        size = len(data)
        while data:
            data = data[os.write(handle, data) :]
        os.ftruncate(handle, size)  # after, not before: reserved blocks stay ours
        if durable:
            os.fsync(handle)
    finally:
        os.close(handle)
    os.rename(path + NEW, path)
    if durable:
        sync_directory(directory)
        sync_directory(os.path.dirname(directory))


def reserve(directory: str, name: str) -> None:
    """Take the disk space that a later `write_record` of this name needs."""
    handle = os.open(os.path.join(directory, name) + NEW, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(handle, 0, 4096)
    finally:
        os.close(handle)


def sync_directory(path: str) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_record(directory: str, name: str) -> Any:
    """The file's value; None when there is none, or only the torn rest that a power cut leaves of an unsynced one."""
    try:
        with open(os.path.join(directory, name), "rb") as file:
            return json.loads(file.read())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None


def sign_lock(handle: int, pid: int, start: int) -> None:
    """Say in the lock itself who holds it."""
    os.pwrite(handle, json.dumps([pid, start]).encode(), 0)


def read_holder(directory: str) -> tuple[int, int] | None:
    """The pid and start time of who signed the lock last, who may be dead by now."""
    signed = read_record(directory, LOCK)
    return (int(signed[0]), int(signed[1])) if signed else None


def take_lock(directory: str) -> int | None:
    """Hold the run's lock until the returned descriptor is closed; None when another process holds it.

    Shapes: None also when the directory was removed meanwhile, so the lock could not keep anybody out.
    """
    path = os.path.join(directory, LOCK)
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(handle).st_ino == os.stat(path).st_ino:
            os.truncate(handle, 0)
            return handle
    except OSError:
        pass
    os.close(handle)
    return None
