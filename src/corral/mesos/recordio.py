"""Frames JSON messages on an endless stream, sans I/O: decimal length, newline, that many bytes.

A record may be split over or share network chunks; nothing stands between two records. Source: Mesos v1, RecordIO.
"""

from corral.lib.errors import Invalid

MOST_RECORD_BYTES = 64 << 20
_MOST_DIGITS = 20


def encode(body: bytes) -> bytes:
    """One message as a record."""
    return b"%d\n%b" % (len(body), body)


class RecordReader:
    """Takes bytes as they come and gives whole records.

    Units: `most_bytes` bounds one record, so that a broken peer cannot fill the memory.
    """

    __slots__ = ("_broken", "_buffer", "_most_bytes", "_wanted")

    def __init__(self, most_bytes: int = MOST_RECORD_BYTES) -> None:
        self._buffer = bytearray()
        self._most_bytes = most_bytes
        self._wanted = -1  # the length of the record under way, -1 while its header is incomplete
        self._broken = ""

    def feed(self, data: bytes) -> list[bytes]:
        """The records that `data` completes, in order.

        Errors: `Invalid` when a length is no number or too large; the stream is of no more use and every further call
        says so again.
        """
        if self._broken:
            raise Invalid(self._broken)
        self._buffer += data
        found: list[bytes] = []
        start = 0
        while True:
            if self._wanted < 0:
                end = self._buffer.find(b"\n", start, start + _MOST_DIGITS + 1)
                if end < 0:
                    header = bytes(self._buffer[start : start + _MOST_DIGITS + 1])
                    if header and (len(header) > _MOST_DIGITS or not header.isdigit()):
                        self._break(header)
                    break
                self._wanted = self._length(bytes(self._buffer[start:end]))
                start = end + 1
            if len(self._buffer) - start < self._wanted:
                break
            found.append(bytes(self._buffer[start : start + self._wanted]))
            start += self._wanted
            self._wanted = -1
        if start:
            del self._buffer[:start]
        return found

    @property
    def is_idle(self) -> bool:
        """Whether the stream may end here: no record is under way."""
        return self._wanted < 0 and not self._buffer

    def _length(self, digits: bytes) -> int:
        # int() alone would also take signs, blanks and underscores, which no Mesos peer writes.
        if not digits.isdigit():
            self._break(digits)
        length = int(digits)
        if length > self._most_bytes:
            self._broken = f"record of {length} bytes is larger than {self._most_bytes}; the peer speaks another form"
            raise Invalid(self._broken)
        return length

    def _break(self, found: bytes) -> None:
        self._broken = (
            f"record starts with {found!r}, not with its length in decimal digits and a newline; the peer does not "
            "speak RecordIO"
        )
        raise Invalid(self._broken)
