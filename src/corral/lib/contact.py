"""The file in which an agent says when a master last heard of it, read by those who end tasks without the agent.

Law: what is read is never younger than what was written, and nothing is known of another boot. The file is written over
in place, so that a full disk does not make an agent look cut off; a checksum tells a torn reading. It describes running
processes, which a power cut ends as well, so nothing is synced. Standard library only: supervisors import this.
"""

import os
import zlib
from collections.abc import Callable
from typing import TypedDict

from corral.lib.clock import steady_clock

LATER_S = 1.0
"""How long after its bound a task is ended from outside: an agent that works has done it by then, and said why."""

LOOK_S = 1.0
"""How often a bound is looked at, at least: timers stand still while the machine sleeps, the steady clock does not."""

SIZE = 96


class Fence(TypedDict):
    """The bound of one task. Shapes: with `strict` it never counts from its own start, only from a contact.

    Units: seconds; `path` is the agent's contact file.
    """

    path: str
    stop_after_s: float
    grace_s: float
    strict: bool


class ContactFile:
    """The agent's end: it alone writes."""

    def __init__(self, path: str) -> None:
        self.path = path

    def write(self, boot: str, at: float) -> None:
        """Errors: `OSError` when the directory cannot be written; the tasks that count from it end in time then."""
        handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(handle, _encode(boot, at), 0)
        finally:
            os.close(handle)


class Lease:
    """How long a task may still run. Units: `since` by the steady clock, when whoever looks began to."""

    def __init__(
        self, fence: Fence, boot: str, clock: Callable[[], float] = steady_clock, later_s: float = LATER_S
    ) -> None:
        self.fence = fence
        self._boot = boot
        self._clock = clock
        self._later_s = later_s
        self._last_at = float("-inf") if fence["strict"] else clock()

    def left_s(self) -> float:
        """Shapes: 0 or less once it has to end."""
        at = read_contact(self.fence["path"], self._boot)
        if at is not None:
            self._last_at = max(self._last_at, at)
        return self._last_at + self.fence["stop_after_s"] + self._later_s - self._clock()

    def why(self) -> str:
        return f"no master has heard of the agent for {self.fence['stop_after_s']:g} s, as long as the task may run so"


def read_contact(path: str, boot: str) -> float | None:
    """When a master last heard of the agent in this boot; None when that is not known."""
    for _ in range(3):
        try:
            with open(path, "rb", buffering=0) as file:
                data = file.read(SIZE)
        except OSError:
            return None
        found = _decode(data)
        if found is not None:
            return found[1] if found[0] == boot else None
    return None


def _encode(boot: str, at: float) -> bytes:
    words = f"{boot} {at!r} "
    return f"{words}{zlib.crc32(words.encode()):08x}".ljust(SIZE - 1).encode() + b"\n"


def _decode(data: bytes) -> tuple[str, float] | None:
    try:
        boot, at, check = data.decode("ascii").split()
        return (boot, float(at)) if zlib.crc32(f"{boot} {at} ".encode()) == int(check, 16) else None
    except ValueError:
        return None
