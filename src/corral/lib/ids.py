"""Identifiers made from a random source that the caller hands in, so that a replay makes the same ones."""

import uuid
from random import Random

_VERSION_4 = 0x4 << 76 | 0x2 << 62
_OTHER_BITS = (1 << 128) - 1 - (0xF << 76) - (0x3 << 62)


def _draw(random: Random) -> int:
    # By hand: every task and every update gets one, and `uuid.UUID` takes ten times as long.
    return random.getrandbits(128) & _OTHER_BITS | _VERSION_4


def mint_uuid(random: Random) -> str:
    """A version 4 UUID as text, drawn from `random`."""
    digits = f"{_draw(random):032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def mint_uuid_bytes(random: Random) -> bytes:
    """The 16 raw bytes of a version 4 UUID, drawn from `random`."""
    return _draw(random).to_bytes(16, "big")


def mint_time_uuid(random: Random, now: float) -> str:
    """A version 1 UUID for the instant `now`, with clock sequence and node drawn from `random`."""
    ticks = round(now * 10_000_000) + 0x01B21DD213814000
    node = random.getrandbits(48) | 0x010000000000  # the multicast bit: no network card has this address
    made = uuid.UUID(
        fields=(
            ticks & 0xFFFFFFFF,
            (ticks >> 32) & 0xFFFF,
            ((ticks >> 48) & 0x0FFF) | 0x1000,
            0x80 | random.getrandbits(6),
            random.getrandbits(8),
            node,
        )
    )
    return str(made)
