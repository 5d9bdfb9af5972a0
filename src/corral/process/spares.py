"""Directories of runs that are over, kept for those to come.

Making and deleting six small files for every task costs more than starting it on file systems that look for a fresh
inode past all that were deleted in the last seconds (ext4 without a journal). A spare holds the same files under the
names that `record` writes to first, so nothing in it looks like a run. Standard library only.
"""

import os
import shutil
from contextlib import suppress

from corral.process import record

_PREFIX = ".spare-"
_MOST = 256


class Spares:
    """Shapes: at most `most` directories below `state_dir`; those of an earlier life are not among them."""

    __slots__ = ("_most", "_names", "_number", "_state_dir")

    def __init__(self, state_dir: str, most: int = _MOST) -> None:
        self._state_dir = state_dir
        self._most = most
        self._names: list[str] = []
        self._number = 0

    def make(self, directory: str) -> None:
        """Make the directory of a run out of a spare, or from nothing.

        Errors: `OSError` when it cannot be made, or is there already.
        """
        if self._names:
            with suppress(OSError):
                if not os.path.lexists(directory):
                    os.rename(self._names.pop(), directory)
                    return
        os.mkdir(directory, 0o700)

    def forget(self, directory: str) -> None:
        """The run is over and nobody asks for it any more: its directory is a spare now, or gone.

        Shapes: renamed first, so that one which is interrupted leaves nothing that looks like a run.
        """
        self._number += 1
        rest = os.path.join(self._state_dir, f"{_PREFIX}{os.getpid()}-{self._number}")
        try:
            os.rename(directory, rest)
        except FileNotFoundError:
            return
        except OSError:
            rest = directory
        if rest != directory and len(self._names) < self._most and _clear(rest):
            self._names.append(rest)
        else:
            shutil.rmtree(rest, ignore_errors=True)


def _clear(directory: str) -> bool:
    """Whether nothing is left but files that are written over. What the run was given as variables is not kept."""
    try:
        os.truncate(_set_back(directory, record.RUN), 0)
        for name in (record.PIDS, record.EXIT, record.KILL):
            _set_back(directory, name)
        return set(os.listdir(directory)) <= _LEFT
    except OSError:
        return False


def _set_back(directory: str, name: str) -> str:
    path = os.path.join(directory, name)
    with suppress(FileNotFoundError):
        os.rename(path, path + record.NEW)
    return path + record.NEW


_LEFT = frozenset({record.LOCK, *(name + record.NEW for name in (record.RUN, record.PIDS, record.EXIT, record.KILL))})
