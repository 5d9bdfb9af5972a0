"""Ends one container whose agent has lost the masters for longer than the task may run so, without the agent's help.

One program for each such container, begun before the container is and in a session of its own, so that it lives on when
the agent is stopped, dies or is replaced. It ends the container's first process by the kernel, for which no Docker
daemon has to answer; only as long as nobody has told it that process does it ask the Engine, again and again, to remove
what may be there. Standard library only.

    GUARDS/CONTAINER/guard.json      what to guard           by the runtime, before the container is made
                        lock         flock held by the guard as long as it lives
                        target.json  its first process       by the runtime, once it runs
                        fenced.json  why it was ended        by the guard, before it ends it

Its directory's end is its own. Source: pidfd_open(2); cgroups(7), cgroup.kill.
"""

import os
import select
import signal
import socket
import time
from contextlib import suppress
from typing import TypedDict

from corral.lib.contact import LOOK_S, Fence, Lease
from corral.process import enter, record, tree

GUARD, TARGET, FENCED = "guard.json", "target.json", "fenced.json"
_ENGINE_S = 5.0
_STUBBORN_S = 10.0


class Guarded(TypedDict):
    """Shapes: `engine` is the path of the Engine's socket, empty when it is none of this machine; `container` is known
    to it by this name.
    """

    container: str
    engine: str
    boot_id: str
    fence: Fence


class Target(TypedDict):
    """The container's first process.

    Shapes: `start` in clock ticks since boot; `engine_id` stands in its cgroup's name.
    """

    pid: int
    start: int
    engine_id: str
    stop_signal: int


class Fenced(TypedDict):
    why: str


def main(arguments: list[str]) -> None:
    """Guard what the directory says. Shapes: one argument."""
    (directory,) = arguments
    os.chdir("/")
    enter.set_name("corral-guard")
    lock = record.take_lock(directory)
    guarded: Guarded | None = record.read_record(directory, GUARD)
    if lock is None or guarded is None:
        return  # another one guards it, or there is nothing to guard
    me = tree.read_stat(os.getpid())
    record.sign_lock(lock, os.getpid(), me.start if me else 0)
    Watch(directory, guarded).run()


class Watch:
    """The life of one guard."""

    __slots__ = ("_directory", "_guarded", "_handle", "_lease", "_target")

    def __init__(self, directory: str, guarded: Guarded) -> None:
        self._directory = directory
        self._guarded = guarded
        self._lease = Lease(guarded["fence"], guarded["boot_id"])
        self._target: Target | None = None
        self._handle: int | None = None

    def run(self) -> None:
        """Until the container has ended or is guarded no more."""
        while os.path.exists(os.path.join(self._directory, GUARD)):
            if self._target is None:
                self._find_target()
            if self._target is not None and self._handle is None:
                return
            left_s = self._lease.left_s()
            if left_s <= 0.0 and self._end():
                return
            if self._gone_within(LOOK_S if left_s <= 0.0 else min(LOOK_S, left_s)):
                return

    def _find_target(self) -> None:
        target: Target | None = record.read_record(self._directory, TARGET)
        if target is not None:
            self._target = target
            self._handle = tree.open_process(target["pid"], target["start"])

    def _gone_within(self, for_s: float) -> bool:
        """True when the container's first process has ended; without one it is looked for soon again."""
        if self._handle is None:
            time.sleep(min(for_s, LOOK_S / 4))
            return False
        return bool(select.select([self._handle], [], [], for_s)[0])

    def _end(self) -> bool:
        """True once it has surely ended."""
        mark: Fenced = {"why": self._lease.why()}
        with suppress(OSError):  # without room for it the reason is lost, not the end
            record.write_record(self._directory, FENCED, mark, durable=True)
        if self._target is None or self._handle is None:
            self._remove_by_engine()
            return False
        self._send(self._target["stop_signal"])
        if self._gone_within(self._lease.fence["grace_s"]):
            return True
        until = time.monotonic() + _STUBBORN_S
        while time.monotonic() < until:
            kill_cgroup(self._target["pid"], self._target["engine_id"])
            self._send(signal.SIGKILL)
            if self._gone_within(0.2):
                return True
        return False

    def _send(self, number: int) -> None:
        assert self._handle is not None
        with suppress(OSError):
            signal.pidfd_send_signal(self._handle, number)

    def _remove_by_engine(self) -> None:
        """Take away what may have come up unseen; a daemon that hangs is asked again at the next look."""
        if self._guarded["engine"]:
            with suppress(OSError):
                remove_container(self._guarded["engine"], self._guarded["container"])


def remove_container(engine: str, container: str) -> int:
    """Ask an Engine to end and forget a container at once. Shapes: its answer's status.

    Errors: `OSError` when it does not answer.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_ENGINE_S)
        connection.connect(engine)
        request = f"DELETE /v1.40/containers/{container}?force=1 HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n"
        connection.sendall(request.encode())
        words = connection.recv(4096).split(b" ", 2)
    if len(words) < 2 or not words[1].isdigit():
        raise ConnectionError("the Engine's answer is none")
    return int(words[1])


def kill_cgroup(pid: int, engine_id: str) -> None:
    """SIGKILL to all in the container's cgroup, where the kernel can and the cgroup surely is the container's."""
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8") as file:
            paths = [line.split(":", 2)[2].strip() for line in file if line.startswith("0::")]
    except OSError:
        return
    for path in paths:
        if engine_id and engine_id in path:
            for root in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified"):
                with suppress(OSError), open(f"{root}{path}/cgroup.kill", "w", encoding="ascii") as file:
                    file.write("1")
