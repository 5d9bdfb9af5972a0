"""Finds and signals everything that a task has started, with nothing but /proc.

A pid alone is never trusted: it is a process only together with its start time, because the kernel uses pids again.
Standard library only: the supervisor of every task imports this. Source: proc(5), pidfd_open(2).
"""

import os
import signal
from collections.abc import Callable, Iterable
from typing import NamedTuple


class Stat(NamedTuple):
    """Shapes: `start` in clock ticks since boot; `state` one letter, `Z` when the first thread has ended."""

    pid: int
    parent: int
    group: int
    session: int
    start: int
    state: str
    threads: int

    @property
    def dead(self) -> bool:
        """Ended and only waiting for its parent; a first thread that ended before the others is not that."""
        return self.state in "ZX" and self.threads <= 1


def read_stat(pid: int) -> Stat | None:
    """What /proc tells of one process, None when there is none that this one may see.

    Errors: `OSError` when it cannot be told, as without a free descriptor: that must not pass for an end.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            return parse_stat(file.read(4096))
    except (FileNotFoundError, ProcessLookupError, PermissionError, ValueError, IndexError):
        return None


def parse_stat(line: bytes) -> Stat:
    """Read one line of /proc/PID/stat; the name in brackets may itself hold spaces and brackets."""
    pid, _, rest = line.partition(b" (")
    fields = rest[rest.rindex(b")") + 2 :].split()
    return Stat(
        int(pid), int(fields[1]), int(fields[2]), int(fields[3]), int(fields[19]), fields[0].decode(), int(fields[17])
    )


def read_processes() -> dict[int, Stat]:
    """All processes that this one can see, by pid."""
    found = (read_stat(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return {stat.pid: stat for stat in found if stat is not None}


def is_same(pid: int, start: int) -> bool:
    """Whether this pid is still the process that began at `start`, and alive."""
    stat = read_stat(pid)
    return stat is not None and stat.start == start and not stat.dead


def descendants(root: int, processes: dict[int, Stat]) -> list[Stat]:
    """All below `root`, itself left out, parents before children."""
    children: dict[int, list[Stat]] = {}
    for stat in processes.values():
        children.setdefault(stat.parent, []).append(stat)
    found: list[Stat] = []
    queue = [root]
    while queue:
        below = sorted(children.pop(queue.pop(), []))
        found += below
        queue += [stat.pid for stat in below]
    return found


def session_members(session: int, since: int, processes: dict[int, Stat]) -> list[Stat]:
    """Those of a session that cannot be older than its leader was, which began at `since`."""
    return sorted(stat for stat in processes.values() if stat.session == session and stat.start >= since)


def marked(pair: bytes, processes: dict[int, Stat]) -> list[Stat]:
    """Those whose environment holds exactly this `NAME=value`."""
    found = []
    for stat in sorted(processes.values()):
        try:
            with open(f"/proc/{stat.pid}/environ", "rb", buffering=0) as file:
                if pair in file.read(1 << 20).split(b"\0"):
                    found.append(stat)
        except OSError:
            continue
    return found


def open_process(pid: int, start: int) -> int | None:
    """A pidfd of exactly this process, None when it is gone.

    Errors: `OSError` when it cannot be told, as without a free descriptor: that must not pass for an end.
    """
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    same = False
    try:
        same = is_same(pid, start)
    finally:
        if not same:
            os.close(handle)
    return handle if same else None


def send(stat: Stat, number: int) -> bool:
    """Signal exactly this process; False when it is gone."""
    handle = open_process(stat.pid, stat.start)
    if handle is None:
        return False
    try:
        signal.pidfd_send_signal(handle, number)
    except OSError:
        return False
    finally:
        os.close(handle)
    return True


def send_all(targets: Iterable[Stat], number: int) -> int:
    """Signal each; the number of those that were alive."""
    return sum(send(stat, number) for stat in targets)


def kill_until_gone(find: Callable[[], list[Stat]], rounds: int = 50) -> bool:
    """SIGKILL what `find` returns, over and over: a process that forks fast can outrun a single pass.

    Shapes: True when nothing alive was left.
    """
    return any(send_all(find(), signal.SIGKILL) == 0 for _ in range(rounds))
