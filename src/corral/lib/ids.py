"""Identifiers made from a random source that the caller hands in, so that a replay makes the same ones."""

import uuid
from random import Random


def mint_uuid(random: Random) -> str:
    """A version 4 UUID as text, drawn from `random`."""
    return str(uuid.UUID(int=random.getrandbits(128), version=4))


def mint_uuid_bytes(random: Random) -> bytes:
    """The 16 raw bytes of a version 4 UUID, drawn from `random`."""
    return uuid.UUID(int=random.getrandbits(128), version=4).bytes


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
