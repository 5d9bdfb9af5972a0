"""The ledger counts exactly as the resource algebra does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.model.ledger import Pool, Tally, charged, stripped
from corral.model.resources import (
    Identity,
    Reservation,
    Resource,
    Resources,
    add,
    contains,
    items,
    normal,
    ports,
    scalar,
    subtract,
    with_allocation,
)

_identities = st.sampled_from(
    [Identity(), Identity(reservations=(Reservation(role="r"),)), Identity(revocable=True)]
)  # fmt: skip


@st.composite
def one_resource(draw: st.DrawFn) -> Resource:
    match draw(st.integers(0, 3)):
        case 0 | 1:
            name = draw(st.sampled_from(["cpus", "mem", "disk"]))
            return scalar(name, draw(st.integers(1, 5000)) / 1000, draw(_identities))
        case 2:
            low = draw(st.integers(1, 60))
            return ports((low, low + draw(st.integers(0, 20))))
        case _:
            return items("bugs", draw(st.sets(st.sampled_from("abcdef"), min_size=1)))


bundles = st.lists(one_resource(), max_size=6).map(normal)


@given(st.lists(bundles, max_size=4))
def test_a_pool_adds_as_the_algebra_does(parts: list[Resources]) -> None:
    pool = Pool()
    for part in parts:
        pool.add(part)
    assert pool.bundle() == add(*parts)
    together = Pool()
    together.add_all(parts)
    assert together.bundle() == pool.bundle()


@given(bundles, st.lists(bundles, max_size=4))
def test_a_pool_gives_many_bundles_at_once_as_one_by_one(have: Resources, parts: list[Resources]) -> None:
    together, one_by_one = Pool(have), Pool(have)
    together.take_all(parts)
    for part in parts:
        one_by_one.take(part, overdraw=True)
    assert together.bundle() == one_by_one.bundle()


@given(bundles, bundles)
def test_a_pool_holds_what_the_algebra_contains_and_takes_it_away_alike(have: Resources, want: Resources) -> None:
    pool = Pool(have)
    assert pool.holds(want) == contains(have, want)
    if pool.holds(want):
        pool.take(want)
        assert pool.bundle() == subtract(have, want)
        pool.add(want)
        assert pool.bundle() == have


@given(bundles)
def test_stripping_undoes_charging(bundle: Resources) -> None:
    assert stripped(charged(bundle, "web")) == bundle
    assert normal(charged(bundle, "web")) == with_allocation(bundle, "web")
    assert stripped(bundle) == bundle


def test_stripping_merges_what_was_split() -> None:
    assert stripped((scalar("mem", 1), scalar("cpus", 1), scalar("cpus", 0.5))) == (
        scalar("cpus", 1.5),
        scalar("mem", 1),
    )
    assert stripped((scalar("cpus", 0),)) == ()


def test_a_pool_never_falls_below_zero() -> None:
    with pytest.raises(ValueError, match="cpus would fall to -1"):
        Pool((scalar("cpus", 1),)).take((scalar("cpus", 2),))


def test_a_pool_says_which_resource_it_lacks() -> None:
    pool = Pool(normal([scalar("cpus", 1), ports((80, 89))]))
    assert pool.lacks((scalar("cpus", 2),)) == scalar("cpus", 2)
    assert pool.lacks((ports((85, 90)),)) == ports((85, 90))
    assert pool.lacks((items("bugs", "a"),)) == items("bugs", "a")
    assert pool.lacks((scalar("cpus", 1), ports((80, 80)))) is None


@given(st.lists(bundles, max_size=4))
def test_a_tally_counts_scalars_by_name(parts: list[Resources]) -> None:
    tally = Tally()
    for part in parts:
        tally.add(part)
    total = {(r.name, r.identity.revocable): r.milli for r in tally.bundle()}
    for name in ("cpus", "mem", "disk"):
        for revocable in (False, True):
            of_kind = [r.milli for part in parts for r in part if r.name == name and r.identity.revocable is revocable]
            assert total.get((name, revocable), 0) == sum(of_kind)
    for part in parts:
        tally.take(part)
    assert tally.bundle() == ()
