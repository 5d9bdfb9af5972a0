"""Reads and writes what operators ask of a daemon itself, be it a master or an agent: its files and its log.

Source: Mesos v1, master and agent operator APIs: LIST_FILES, READ_FILE, GET_LOGGING_LEVEL, SET_LOGGING_LEVEL.
"""

import stat
from typing import Protocol

import msgspec

from corral.lib.errors import Invalid
from corral.mesos import wire
from corral.mesos.common import read_seconds, write_seconds
from corral.mesos.pieces import Tree

CALLS = ("LIST_FILES", "READ_FILE", "GET_LOGGING_LEVEL", "SET_LOGGING_LEVEL")


class ListFiles(msgspec.Struct, frozen=True, kw_only=True):
    path: str


class ReadFile(msgspec.Struct, frozen=True, kw_only=True):
    """Units: bytes. Shapes: without `length` as much as one answer may hold."""

    path: str
    offset: int
    length: int | None = None


class GetLoggingLevel(msgspec.Struct, frozen=True):
    pass


class SetLoggingLevel(msgspec.Struct, frozen=True, kw_only=True):
    """Units: for `duration_s` seconds, then the log is as configured again."""

    level: int
    duration_s: float


DaemonCall = ListFiles | ReadFile | GetLoggingLevel | SetLoggingLevel


class WireListFiles(wire.Wire):
    path: str


class WireReadFile(wire.Wire):
    path: str
    offset: int
    length: int | None = None


class WireSetLoggingLevel(wire.Wire):
    level: int
    duration: wire.Nanoseconds


class WireDaemonCall(wire.Wire):
    """The members of such calls, for the envelopes of both APIs."""

    type: str | None = None
    list_files: WireListFiles | None = None
    read_file: WireReadFile | None = None
    set_logging_level: WireSetLoggingLevel | None = None


class Entry(Protocol):
    """A file or directory as it is listed. Shapes: `mode` as `ls -l` writes it. Units: `mtime` float seconds UTC."""

    @property
    def path(self) -> str: ...
    @property
    def nlink(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def mtime(self) -> float: ...
    @property
    def mode(self) -> str: ...
    @property
    def uid(self) -> str: ...
    @property
    def gid(self) -> str: ...


class FileInfo(wire.Wire, kw_only=True):
    path: str
    nlink: int
    size: int
    mtime: wire.Nanoseconds
    mode: int
    uid: str
    gid: str


def read_call(call: WireDaemonCall) -> DaemonCall | None:
    """None when the member that belongs to the type is missing.

    Errors: `Invalid` for numbers that cannot be.
    """
    match call:
        case WireDaemonCall(type="GET_LOGGING_LEVEL"):
            return GetLoggingLevel()
        case WireDaemonCall(type="SET_LOGGING_LEVEL", set_logging_level=WireSetLoggingLevel() as found):
            return check_level(found.level, read_seconds(found.duration))
        case WireDaemonCall(type="LIST_FILES", list_files=WireListFiles() as found):
            return ListFiles(path=found.path)
        case WireDaemonCall(type="READ_FILE", read_file=WireReadFile() as found):
            if found.offset < 0 or (found.length is not None and found.length < 0):
                raise Invalid("field 'read_file': offset and length must be 0 or more")
            return ReadFile(path=found.path, offset=found.offset, length=found.length)
        case _:
            return None


def check_level(level: int, duration_s: float) -> SetLoggingLevel:
    """Errors: `Invalid` for a level or a time below 0."""
    if level < 0:
        raise Invalid(f"logging level {level} is negative; give 0 for as configured, 1 or more for everything")
    if not 0 <= duration_s <= 1e9:
        raise Invalid(f"logging level for {duration_s:g} s: give a time of 0 or more")
    return SetLoggingLevel(level=level, duration_s=duration_s)


def write_files(entries: list[Entry]) -> Tree:
    """The body of LIST_FILES."""
    found = [
        FileInfo(
            path=e.path, nlink=e.nlink, size=e.size, mtime=write_seconds(e.mtime), mode=read_mode(e.mode), uid=e.uid,
            gid=e.gid,
        )
        for e in entries
    ]  # fmt: skip
    return {"file_infos": found} if found else {}


def write_file(data: bytes, size: int) -> Tree:
    """The body of READ_FILE. Units: `size` bytes of the whole file."""
    return {"size": size, "data": data}


def write_level(level: int) -> Tree:
    return {"level": level}


_KINDS = {"-": stat.S_IFREG, "d": stat.S_IFDIR, "l": stat.S_IFLNK, "p": stat.S_IFIFO, "s": stat.S_IFSOCK,
          "c": stat.S_IFCHR, "b": stat.S_IFBLK}  # fmt: skip
_SPECIAL = {3: ("sS", stat.S_ISUID), 6: ("sS", stat.S_ISGID), 9: ("tT", stat.S_ISVTX)}


def read_mode(text: str) -> int:
    """The number behind `-rw-r--r--`."""
    mode = _KINDS.get(text[0], 0)
    for place, letter in enumerate(text[1:10], 1):
        special = _SPECIAL.get(place)
        if special is not None and letter in special[0]:
            mode |= special[1]
            letter = "x" if letter.islower() else "-"
        if letter != "-":
            mode |= 1 << (9 - place)
    return mode
