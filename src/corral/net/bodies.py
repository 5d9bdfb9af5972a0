"""The bodies of requests: bounded, whole, decoded, and without numbers that nobody could keep."""

import re
import zlib

from aiohttp import web

from corral.lib.errors import Invalid, TooLarge

LEAST_WHOLE, MOST_WHOLE = -(2**63), 2**64 - 1
"""The whole numbers that a record holds: what MessagePack can write."""

_ALL_ZERO = bytes.maketrans(b"123456789", b"000000000")
_LONG = b"0" * 19
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_WHOLE = re.compile(rb"(?<![0-9.eE+-])-?[0-9]{19,}(?![0-9.eE])")


async def read_body(raw: web.BaseRequest, most_bytes: int) -> bytes:
    """The whole body, decoded when it is compressed.

    Errors: `TooLarge` as soon as the bound is passed; `Invalid` when the client stops in the middle, or the body is not
    encoded as it says.
    """
    if raw.content_length is not None and raw.content_length > most_bytes:
        raise TooLarge(f"the body has {raw.content_length} bytes, at most {most_bytes} are taken; send less at once")
    parts: list[bytes] = []
    size = 0
    while chunk := await raw.content.readany():
        size += len(chunk)
        if size > most_bytes:
            raise _too_large(most_bytes)
        parts.append(chunk)
    if raw.content_length is not None and size < raw.content_length:
        raise Invalid(f"the body ends after {size} of {raw.content_length} bytes; send it again")
    return _decode(b"".join(parts), raw.headers.get("Content-Encoding", "").strip().lower(), most_bytes)


def _decode(body: bytes, encoding: str, most_bytes: int) -> bytes:
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise Invalid(f"a body of encoding {encoding} cannot be read; send it as gzip, deflate or as it is")
    # What is called deflate comes with a header or without, as RFC 9110 tells.
    bare = encoding == "deflate" and body[:1] and body[0] & 15 != zlib.DEFLATED
    squeezed = zlib.decompressobj(-15 if bare else 15 if encoding == "deflate" else 31)
    try:
        found = squeezed.decompress(body, most_bytes + 1)
    except zlib.error:
        raise Invalid(f"the body is not encoded as {encoding}, as its headers say; send it as it is") from None
    if len(found) > most_bytes:
        raise _too_large(most_bytes)
    if not squeezed.eof or squeezed.unused_data:
        raise Invalid(f"the body is not one whole {encoding}, as its headers say; send it as it is")
    return found


def _too_large(most_bytes: int) -> TooLarge:
    return TooLarge(f"the body has more than the {most_bytes} bytes that are taken; send less at once")


def check_numbers(body: bytes) -> None:
    """Errors: `Invalid` for JSON, or lines of it, with a whole number of more than 64 bits.

    It could be read and decided upon, but never written: whoever took it would end with the record of it.
    """
    # Nearly no body has so many digits in a row, and this is seen at memory's speed.
    if _LONG not in body.translate(_ALL_ZERO) or body.lstrip()[:1] not in (b"{", b"["):
        return
    for found in _WHOLE.finditer(_STRING.sub(b'""', body)):
        text = found[0].decode()
        if len(text) > 20 or not LEAST_WHOLE <= int(text) <= MOST_WHOLE:
            raise Invalid(f"the number {text[:40]} in the body has more than 64 bits; give a smaller one")
