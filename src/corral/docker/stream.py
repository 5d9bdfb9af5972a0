"""Takes the Engine's log stream apart and knows how far it has been read, so that reading can go on after a gap.

The stream is a row of frames: one byte of kind, three of nothing, four of big-endian length, then one log entry that
begins with its time. Times grow within one kind, not across the two; several entries may bear the same time. So the
place in the stream is, for each kind, the time of the last entry and how many of that time were taken.
Source: Docker Engine API 1.41, "Stream format" of attach, `timestamps` and `since` of logs.
"""

import struct
from datetime import datetime

import msgspec

from corral.lib.errors import Failed

STDOUT, STDERR = 1, 2
_HEAD = struct.Struct(">BxxxL")
_OVERLAP_S = 10
"""How much later than an entry of one kind an older one of the other kind may still come."""


class Place(msgspec.Struct, frozen=True):
    """How far one kind has been read. Shapes: `stamp` as the Engine writes it, empty before the first entry."""

    stamp: str = ""
    count: int = 0


class Position(msgspec.Struct, frozen=True):
    """How far the log has been copied. Units: sizes in bytes of the copies."""

    out: Place = Place()
    err: Place = Place()
    out_size: int = 0
    err_size: int = 0


def since_of(position: Position) -> str | None:
    """The `since` parameter with which nothing after `position` is missed; None asks for everything."""
    stamps = [place.stamp for place in (position.out, position.err) if place.stamp]
    if not stamps:
        return None
    if len(stamps) == 1:
        # The other kind has said nothing yet, and its first word may be older than this one's last.
        return _as_seconds(stamps[0], back_s=_OVERLAP_S)
    oldest, newest = min(stamps), _as_seconds(max(stamps), back_s=_OVERLAP_S)
    return max(_as_seconds(oldest), newest, key=_order)


def _order(seconds: str) -> tuple[int, str]:
    whole, _, rest = seconds.partition(".")
    return int(whole), rest


def _as_seconds(stamp: str, back_s: int = 0) -> str:
    # By hand beyond the seconds: a float cannot hold nanoseconds of this century.
    whole, _, rest = stamp.rstrip("Z").partition(".")
    seconds = int(datetime.fromisoformat(whole + "+00:00").timestamp()) - back_s
    return f"{seconds}.{(rest or '0').ljust(9, '0')[:9]}"


class LogReader:
    """Takes bytes as they come and gives the output they hold, without what lies before the position it began at."""

    __slots__ = ("_buffer", "_count", "_resume", "_stamp")

    def __init__(self, position: Position) -> None:
        self._buffer = bytearray()
        self._stamp = [b"", position.out.stamp.encode(), position.err.stamp.encode()]
        self._count = [0, position.out.count, position.err.count]
        # Per kind: the place up to which entries are known already; None once the first new one has come.
        self._resume: list[tuple[bytes, int] | None] = [None]
        self._resume += [(p.stamp.encode(), p.count) if p.stamp else None for p in (position.out, position.err)]

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """The new output in these bytes: stdout, stderr.

        Errors: `Failed` when it is no log stream.
        """
        buffer = self._buffer
        buffer += data
        found: tuple[list[bytes], list[bytes], list[bytes]] = ([], [], [])
        stamps, counts, resume = self._stamp, self._count, self._resume
        at, end = 0, len(buffer)
        unpack = _HEAD.unpack_from
        while end - at >= 8:
            kind, length = unpack(buffer, at)
            if kind > STDERR:
                raise Failed(f"the Engine's log stream holds a frame of kind {kind}; it speaks another form")
            if end - at - 8 < length:
                break
            entry = bytes(buffer[at + 8 : at + 8 + length])
            at += 8 + length
            stamp, space, content = entry.partition(b" ")
            if not space:
                continue
            if resume[kind] is not None and self._is_known(kind, stamp):
                continue
            if stamp == stamps[kind]:
                counts[kind] += 1
            else:
                stamps[kind] = stamp
                counts[kind] = 1
            found[kind].append(content)
        if at:
            del buffer[:at]
        return b"".join(found[STDOUT]), b"".join(found[STDERR])

    def _is_known(self, kind: int, stamp: bytes) -> bool:
        known = self._resume[kind]
        if known is None:
            return False
        last, left = known
        if stamp < last:
            return True
        if stamp == last and left > 0:
            self._resume[kind] = (last, left - 1)
            return True
        self._resume[kind] = None
        return False

    def place(self, kind: int) -> Place:
        """How far this kind has been read."""
        return Place(self._stamp[kind].decode(), self._count[kind])
