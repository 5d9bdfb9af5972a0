import uuid
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from corral.lib.ids import mint_time_uuid, mint_uuid, mint_uuid_bytes


def test_ids_follow_the_random_source_that_is_handed_in() -> None:
    assert mint_uuid(Random(7)) == mint_uuid(Random(7))
    assert mint_uuid_bytes(Random(7)) == uuid.UUID(mint_uuid(Random(7))).bytes
    source = Random(7)
    assert len({mint_uuid(source) for _ in range(1000)}) == 1000


def test_ids_are_random_uuids() -> None:
    found = uuid.UUID(mint_uuid(Random(1)))
    assert (found.version, found.variant) == (4, uuid.RFC_4122)


@given(st.integers(0, 2**64))
def test_ids_are_what_the_standard_library_makes_of_the_same_bits(seed: int) -> None:
    expected = uuid.UUID(int=Random(seed).getrandbits(128), version=4)
    assert mint_uuid(Random(seed)) == str(expected)
    assert mint_uuid_bytes(Random(seed)) == expected.bytes


def test_time_ids_carry_the_instant_and_no_network_card() -> None:
    found = uuid.UUID(mint_time_uuid(Random(1), 1_700_000_000.25))
    assert (found.version, found.variant) == (1, uuid.RFC_4122)
    assert (found.time - 0x01B21DD213814000) / 10_000_000 == 1_700_000_000.25
    assert found.node >> 40 & 1, "the multicast bit"


def test_time_ids_of_one_instant_differ() -> None:
    source = Random(1)
    assert len({mint_time_uuid(source, 5.0) for _ in range(100)}) == 100
