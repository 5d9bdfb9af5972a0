"""Keeps the last words of a container that ends while the daemon is away.

A container's shim writes its output into two named pipes that the daemon reads. With the daemon gone it waits in them,
and goes with them when the container ends and nobody has them open any more. So they are held open here from the start,
and never read before the daemon has told that the container has ended and all that it got is copied: what is left in
them then, it has not got and never will. On this machine only, and with the right to look into the shim.
Source: fifo(7), proc(5); by experiment, a daemon that comes back does not read the pipes of containers that have ended.
"""

import contextlib
import os
import stat

_NAMES = ("-stdout", "-stderr")
_PIECE_BYTES = 1 << 16


class OutputPipes:
    """The reading ends of stdout and stderr. Shapes: descriptors, -1 for one that the container does not have."""

    def __init__(self, out: int, err: int) -> None:
        self._files = [out, err]

    def rest(self) -> tuple[bytes, bytes]:
        """What nobody has read. Only for a container that has ended, and of which the daemon has read all it will."""
        return _read_rest(self._files[0]), _read_rest(self._files[1])

    def close(self) -> None:
        for index, file in enumerate(self._files):
            if file >= 0:
                os.close(file)
                self._files[index] = -1


def hold_pipes(pid: int, engine_id: str) -> OutputPipes | None:
    """Hold the pipes of the container whose first process this is; None when they cannot be found here."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            shim = int(file.read().rpartition(b")")[2].split()[1])
        directory = f"/proc/{shim}/fd"
        found = [_open(directory, engine_id, name) for name in _NAMES]
    except (OSError, ValueError, IndexError):
        return None
    return OutputPipes(*found) if max(found) >= 0 else None


def _open(directory: str, engine_id: str, name: str) -> int:
    """Shapes: by the shim's own descriptor, so that it does not matter what its path means here."""
    for entry in os.listdir(directory):
        path = f"{directory}/{entry}"
        with contextlib.suppress(OSError):
            target = os.readlink(path)
            if engine_id in target and target.endswith(name) and stat.S_ISFIFO(os.stat(path).st_mode):
                return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    return -1


def _read_rest(file: int) -> bytes:
    rest = b""
    with contextlib.suppress(OSError):
        while file >= 0 and (piece := os.read(file, _PIECE_BYTES)):
            rest += piece
    return rest
