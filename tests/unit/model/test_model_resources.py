"""The algebra of resources: exact, canonical, by identity."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from corral.model.resources import (
    Disk,
    Identity,
    Reservation,
    Resource,
    ResourceKind,
    Resources,
    add,
    all_ranges,
    coalesce,
    contains,
    count_range,
    cut_ranges,
    describe,
    format_milli,
    is_empty,
    items,
    join_ranges,
    normal,
    ports,
    scalar,
    subtract,
    total_milli,
    with_allocation,
)

identities = st.sampled_from(
    [
        Identity(),
        Identity(revocable=True),
        Identity(allocation_role="web"),
        Identity(reservations=(Reservation(role="web"),)),
        Identity(disk=Disk(persistence_id="v1", container_path="data")),
    ]
)
spans = st.tuples(st.integers(1, 40), st.integers(0, 8)).map(lambda t: (t[0], t[0] + t[1]))
scalars = st.builds(Resource, name=st.sampled_from(["cpus", "mem"]), milli=st.integers(0, 10_000), identity=identities)
ranges = st.builds(
    lambda found, identity: Resource(name="ports", kind=ResourceKind.RANGES, ranges=coalesce(found), identity=identity),
    st.lists(spans, max_size=4),
    identities,
)
sets = st.builds(
    lambda found, identity: Resource(
        name="zones", kind=ResourceKind.SET, items=tuple(sorted(found)), identity=identity
    ),
    st.sets(st.sampled_from("abcd"), max_size=3),
    identities,
)
loose = st.lists(st.one_of(scalars, ranges, sets), max_size=6)
bundles = loose.map(normal)
scalar_bundles = st.lists(scalars, max_size=6).map(normal)


def numbers(found: tuple[tuple[int, int], ...]) -> set[int]:
    return {n for low, high in found for n in range(low, high + 1)}


@given(loose, st.randoms(use_true_random=False))
def test_the_canonical_form_does_not_depend_on_order(found: list[Resource], random: object) -> None:
    shuffled = list(found)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert normal(found) == normal(shuffled)


@given(bundles)
def test_a_canonical_bundle_is_merged_sorted_without_empties_and_stays_as_it_is(bundle: Resources) -> None:
    assert normal(bundle) == bundle
    assert not any(is_empty(r) for r in bundle)
    assert len({(r.name, r.identity) for r in bundle}) == len(bundle)
    assert [r.name for r in bundle] == sorted(r.name for r in bundle)


@given(bundles, bundles, bundles)
def test_adding_is_commutative_and_associative_with_nothing_as_neutral(
    a: Resources, b: Resources, c: Resources
) -> None:
    assert add(a, b) == add(b, a)
    assert add(add(a, b), c) == add(a, add(b, c)) == add(a, b, c)
    assert add(a, ()) == a


@given(scalar_bundles, scalar_bundles)
def test_subtracting_undoes_adding_of_scalars(a: Resources, b: Resources) -> None:
    assert subtract(add(a, b), b) == a


@given(bundles, bundles)
def test_a_part_taken_out_and_put_back_gives_the_whole(a: Resources, b: Resources) -> None:
    whole = add(a, b)
    assert contains(whole, a)
    assert add(subtract(whole, a), a) == whole


@given(bundles)
def test_everything_less_itself_is_nothing(bundle: Resources) -> None:
    assert subtract(bundle, bundle) == ()


@given(bundles, bundles)
def test_containing_means_that_nothing_is_lacking(have: Resources, want: Resources) -> None:
    by_key = {(r.name, r.identity): r for r in have}
    lacking = False
    for r in want:
        there = by_key.get((r.name, r.identity), Resource(name=r.name, kind=r.kind, identity=r.identity))
        lacking |= (
            r.milli > there.milli
            or not numbers(r.ranges) <= numbers(there.ranges)
            or not set(r.items) <= set(there.items)
        )
    assert contains(have, want) == (not lacking)


@given(bundles, bundles, bundles)
def test_containing_is_transitive_and_reflexive(a: Resources, b: Resources, c: Resources) -> None:
    assert contains(a, a)
    assert contains(a, ())
    assert contains(add(a, b, c), add(a, b))
    if contains(a, b) and contains(b, c):
        assert contains(a, c)


def test_a_lack_shows_as_a_negative_scalar() -> None:
    assert subtract((scalar("cpus", 1),), (scalar("cpus", 2.5),)) == (scalar("cpus", -1.5),)


def test_resources_of_another_identity_do_not_count() -> None:
    reserved = scalar("cpus", 4, Identity(reservations=(Reservation(role="web"),)))
    assert not contains((reserved,), (scalar("cpus", 1),))
    assert total_milli((reserved, scalar("cpus", 1)), "cpus") == 5000


def test_sums_of_tenths_are_exact() -> None:
    assert add(*[(scalar("cpus", 0.1),)] * 10) == (scalar("cpus", 1),)


def test_scalars_keep_three_decimals_and_round_halves_away_from_zero() -> None:
    assert [scalar("cpus", v).milli for v in (0.0004, 0.0005, 1.2345, -0.0005, 0.1 + 0.2)] == [0, 1, 1235, -1, 300]


@given(st.lists(spans, max_size=6))
def test_coalesced_ranges_hold_the_same_numbers_apart_and_in_order(found: list[tuple[int, int]]) -> None:
    merged = coalesce(found)
    assert numbers(merged) == numbers(tuple(found))
    assert all(b[0] > a[1] + 1 for a, b in pairwise(merged))
    assert count_range(merged) == len(numbers(merged))


@given(st.lists(spans, max_size=6).map(coalesce), st.lists(spans, max_size=6).map(coalesce))
def test_cutting_ranges_is_set_difference(
    have: tuple[tuple[int, int], ...], minus: tuple[tuple[int, int], ...]
) -> None:
    left = cut_ranges(have, minus)
    assert numbers(left) == numbers(have) - numbers(minus)
    assert left == coalesce(left)


@given(st.lists(spans, max_size=6).map(coalesce), st.lists(spans, max_size=6).map(coalesce))
def test_joining_ranges_is_set_union(have: tuple[tuple[int, int], ...], more: tuple[tuple[int, int], ...]) -> None:
    assert join_ranges(have, more) == coalesce((*have, *more))


@given(bundles)
def test_charging_to_a_role_and_back_merges_what_then_is_equal(bundle: Resources) -> None:
    charged = with_allocation(bundle, "web")
    assert {r.identity.allocation_role for r in charged} <= {"web"}
    assert with_allocation(charged, None) == with_allocation(bundle, None)
    assert total_milli(charged, "cpus") == total_milli(bundle, "cpus")


def test_ranges_of_all_identities_are_seen_together() -> None:
    reserved = Resource(name="ports", kind=ResourceKind.RANGES, ranges=((5, 6),), identity=Identity(revocable=True))
    assert all_ranges((ports((1, 2), (3, 4)), reserved), "ports") == ((1, 6),)
    assert all_ranges((), "ports") == ()


def test_a_bundle_is_described_in_one_line() -> None:
    bundle = normal(
        [scalar("cpus", 0.5), scalar("mem", 1048576), ports((80, 80), (90, 95)), items("zones", ["b", "a"])]
    )
    assert describe(bundle) == "cpus 0.5, mem 1048576, ports 80,90-95, zones {a,b}"
    assert describe(()) == "nothing"


def test_thousandths_are_written_without_exponents_and_needless_zeros() -> None:
    found = [format_milli(m) for m in (0, 5, 500, 1000, 1230, 1_048_576_000_000, -250, -2000)]
    assert found == ["0", "0.005", "0.5", "1", "1.23", "1048576000", "-0.25", "-2"]
