"""Length-prefixed MessagePack frames, sans I/O: four bytes of big-endian length, then that many bytes.

The agent dials the master with two HTTP/1.1 requests of one session: a GET whose chunked answer brings orders down, and
a POST whose chunked body carries reports up. Both hold nothing but these frames.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Generic, TypeVar, get_args

import msgspec

from corral.lib.errors import Invalid

CONTENT_TYPE = "application/x-corral-frames"
ORDERS_PATH = "/corral/v1/agent/orders"
REPORTS_PATH = "/corral/v1/agent/reports"
MOST_FRAME_BYTES = 64 << 20

T = TypeVar("T")

_encoder = msgspec.msgpack.Encoder()


def pack(messages: Iterable[msgspec.Struct]) -> bytes:
    """All messages as frames, ready for one write."""
    out = bytearray()
    for message in messages:
        body = _encoder.encode(message)
        out += len(body).to_bytes(4, "big")
        out += body
    return bytes(out)


@lru_cache
def _learn(kind: Any) -> tuple[msgspec.msgpack.Decoder[Any], frozenset[str]]:
    """Once for all sessions: a new leader opens thousands at the same time."""
    tags = frozenset(str(each.__struct_config__.tag) for each in get_args(kind) or (kind,))
    return msgspec.msgpack.Decoder(kind), tags


class FrameReader(Generic[T]):
    """Takes bytes as they come and gives whole messages of `kind`, a union of tagged structs.

    Shapes: a message of another tag is of a later release and is passed over; `unknown` counts them by tag.
    """

    __slots__ = ("_buffer", "_decoder", "_tags", "unknown")

    def __init__(self, kind: Any) -> None:
        self.unknown: dict[str, int] = {}
        self._decoder, self._tags = _learn(kind)
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[T]:
        """Errors: `Invalid` when a frame is too long or not a message of the kind; the stream is of no more use."""
        self._buffer += data
        found: list[T] = []
        start = 0
        while len(self._buffer) - start >= 4:
            length = int.from_bytes(self._buffer[start : start + 4], "big")
            if length > MOST_FRAME_BYTES:
                raise Invalid(
                    f"frame of {length} bytes is larger than {MOST_FRAME_BYTES}; the peer speaks another form"
                )
            if len(self._buffer) - start - 4 < length:
                break
            body = bytes(self._buffer[start + 4 : start + 4 + length])
            start += 4 + length
            try:
                found.append(self._decoder.decode(body))
            except msgspec.DecodeError as error:
                if self._is_later(body):
                    continue
                raise Invalid(f"frame is no message that this side knows: {error}") from None
        if start:
            del self._buffer[:start]
        return found

    def _is_later(self, body: bytes) -> bool:
        try:
            found = msgspec.msgpack.decode(body)
        except msgspec.DecodeError:
            return False
        if not (isinstance(found, list) and found and isinstance(found[0], str)) or found[0] in self._tags:
            return False
        self.unknown[found[0]] = self.unknown.get(found[0], 0) + 1
        return True
