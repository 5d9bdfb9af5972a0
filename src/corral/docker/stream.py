"""Takes the Engine's log stream apart and knows how far it has been read, so that reading can go on after a gap.

The stream is a row of frames: one byte of kind, three of nothing, four of big-endian length, then one log entry that
begins with its time. Times grow within one kind, not across the two; several entries may bear the same time. So the
place in the stream is, for each kind, the time of the last entry and how many of that time were taken.
Source: Docker Engine API 1.41, "Stream format" of attach, `timestamps` and `since` of logs.
"""

import struct
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from corral.lib.errors import Failed

STDOUT, STDERR = 1, 2
HEAD_BYTES = 8
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
        return as_seconds(stamps[0], back_s=_OVERLAP_S)
    oldest, newest = min(stamps), as_seconds(max(stamps), back_s=_OVERLAP_S)
    return max(as_seconds(oldest), newest, key=order)


def write_stamp(at: float) -> bytes:
    """An instant as the Engine writes it, to the microsecond."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%S.%f}000Z".encode()


def order(seconds: str) -> tuple[int, str]:
    """What makes two values of `since` comparable."""
    whole, _, rest = seconds.partition(".")
    return int(whole), rest


def as_seconds(stamp: str, back_s: int = 0) -> str:
    """A time as the Engine writes it, in the form that `since` takes. Units: `back_s` seconds earlier."""
    # By hand beyond the seconds: a float cannot hold nanoseconds of this century.
    whole, _, rest = stamp.rstrip("Z").partition(".")
    seconds = int(datetime.fromisoformat(whole + "+00:00").timestamp()) - back_s
    return f"{seconds}.{(rest or '0').ljust(9, '0')[:9]}"


class LogReader:
    """Takes bytes as they come and gives the output they hold, without what lies before the position it began at.

    An Engine that turns its log file over while somebody follows may tell older entries once more (seen with 20.10);
    they are known by their time and left out.
    """

    __slots__ = ("_again", "_buffer", "_count", "_stamp")

    def __init__(self, position: Position) -> None:
        self._buffer = bytearray()
        self._stamp = [b"", position.out.stamp.encode(), position.err.stamp.encode()]
        self._count = [0, position.out.count, position.err.count]
        self._again = list(self._count)  # how many entries of the last time may come once more

    def feed(self, data: bytes, now: bytes) -> tuple[bytes, bytes]:
        """The new output in these bytes: stdout, stderr.

        Shapes: `now` is a time as the Engine writes it. Entries older than the last are known ones, unless the last is
        later than `now`: then the clock was set back. Errors: `Failed` when it is no log stream.
        """
        buffer = self._buffer
        buffer += data
        found: tuple[list[bytes], list[bytes], list[bytes]] = ([], [], [])
        stamps, counts, again = self._stamp, self._count, self._again
        at, end = 0, len(buffer)
        unpack = _HEAD.unpack_from
        while end - at >= HEAD_BYTES:
            kind, length = unpack(buffer, at)
            if kind > STDERR:
                raise Failed(f"the Engine's log stream holds a frame of kind {kind}; it speaks another form")
            if end - at - HEAD_BYTES < length:
                break
            entry = bytes(buffer[at + HEAD_BYTES : at + HEAD_BYTES + length])
            at += HEAD_BYTES + length
            stamp, space, content = entry.partition(b" ")
            if not space:
                continue
            last = stamps[kind]
            if stamp == last:
                if again[kind]:
                    again[kind] -= 1
                    continue
                counts[kind] += 1
            elif stamp > last or last > now:
                stamps[kind] = stamp
                counts[kind] = 1
                again[kind] = 0
            else:
                again[kind] = counts[kind]
                continue
            found[kind].append(content)
        if at:
            del buffer[:at]
        return b"".join(found[STDOUT]), b"".join(found[STDERR])

    def place(self, kind: int) -> Place:
        """How far this kind has been read."""
        return Place(self._stamp[kind].decode(), self._count[kind])


def is_whole(position: Position, last: bytes, line_ended: Sequence[bool]) -> bool:
    """Whether a copy at this position holds all of a log whose last entry is the frame `last`, empty for an empty log.

    Shapes: `line_ended` tells, by kind, whether the copy ends at the end of a line. The entries of one long line all
    bear its time, so only a finished line shows that none of them is missing. An uncertain answer is no.
    """
    if not last:
        return True
    kind = last[0]
    stamp, _, content = last[HEAD_BYTES:].partition(b" ")
    place = {STDOUT: position.out, STDERR: position.err}.get(kind)
    return place is not None and place.stamp.encode() == stamp and content.endswith(b"\n") and line_ended[kind]
