"""The table of operators, Marathon's and corral's own."""

from collections import Counter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.lib.errors import Invalid
from corral.model.attributes import Attribute, AttributeKind, format_value
from corral.model.constraints import (
    HOSTNAME,
    Constraint,
    Operator,
    allows,
    check_constraint,
    describe,
    field_value,
    is_counting,
    looks_at_tasks,
)


def rule(operator: Operator, *values: str, count: int | None = None, field: str = "rack") -> Constraint:
    return Constraint(field=field, operator=operator, values=values, count=count)


def weighted(constraint: Constraint, weight: int) -> Constraint:
    return msgspec.structs.replace(constraint, weight=weight)


PLAIN = [
    # operator, values, the agent's value, allowed
    (Operator.EQUAL, ("r1",), "r1", True),
    (Operator.EQUAL, ("r1",), "r10", False),
    (Operator.EQUAL, ("r1",), None, False),
    (Operator.UNEQUAL, ("r1",), "r2", True),
    (Operator.UNEQUAL, ("r1",), "r1", False),
    (Operator.UNEQUAL, ("r1",), None, True),
    (Operator.IN, ("r1", "r2"), "r2", True),
    (Operator.IN, ("r1", "r2"), "r3", False),
    (Operator.IN, ("r1", "r2"), None, False),
    (Operator.MATCH, ("rack-[1-3]",), "rack-2", True),
    (Operator.MATCH, ("rack-[1-3]",), "rack-25", False),
    (Operator.MATCH, ("rack",), "my rack", False),
    (Operator.MATCH, (".*",), None, False),
    (Operator.MISMATCH, ("rack-[1-3]",), "rack-2", False),
    (Operator.MISMATCH, ("rack-[1-3]",), "rack-25", True),
    (Operator.MISMATCH, (".*",), None, True),
    (Operator.GLOB, ("web-*", "db?"), "web-1", True),
    (Operator.GLOB, ("web-*", "db?"), "db1", True),
    (Operator.GLOB, ("web-*", "db?"), "DB1", False),
    (Operator.GLOB, ("*",), None, False),
    # Sets: the whole text or any item.
    (Operator.EQUAL, ("ssd",), "{gpu,ssd}", True),
    (Operator.EQUAL, ("{gpu,ssd}",), "{gpu,ssd}", True),
    (Operator.EQUAL, ("gp",), "{gpu,ssd}", False),
    (Operator.EQUAL, ("",), "{}", False),
    (Operator.UNEQUAL, ("ssd",), "{gpu,ssd}", False),
    (Operator.UNEQUAL, ("nvme",), "{gpu,ssd}", True),
    (Operator.IN, ("x", "gpu"), "{gpu,ssd}", True),
    (Operator.IN, ("x", "y"), "{gpu,ssd}", False),
    (Operator.GLOB, ("s?d",), "{gpu,ssd}", True),
    (Operator.GLOB, ("s",), "{gpu,ssd}", False),
    (Operator.MATCH, ("s+d",), "{gpu,ssd}", True),
    (Operator.MATCH, ("no", "g.u"), "{gpu,ssd}", True),
    (Operator.MATCH, (r"\{gpu,.*",), "{gpu,ssd}", True),
    (Operator.MATCH, ("gpu,ssd",), "{gpu,ssd}", False),
    (Operator.MISMATCH, ("s+d",), "{gpu,ssd}", False),
    (Operator.MISMATCH, ("x+",), "{gpu,ssd}", True),
    (Operator.MISMATCH, ("x+", "gpu"), "{gpu,ssd}", False),
    # Ranges: a number inside.
    (Operator.EQUAL, ("5",), "[1-5,8-9]", True),
    (Operator.EQUAL, ("6",), "[1-5,8-9]", False),
    (Operator.EQUAL, ("2.5",), "[1-5,8-9]", True),
    (Operator.EQUAL, ("[1-5,8-9]",), "[1-5,8-9]", True),
    (Operator.EQUAL, ("x",), "[1-5,8-9]", False),
    (Operator.EQUAL, ("1",), "[x]", False),
    (Operator.UNEQUAL, ("9",), "[1-5,8-9]", False),
    (Operator.UNEQUAL, ("7",), "[1-5,8-9]", True),
    (Operator.IN, ("7", "8"), "[1-5,8-9]", True),
    # Numbers.
    (Operator.RANGE, ("10-20",), "10", True),
    (Operator.RANGE, ("10-20",), "20", True),
    (Operator.RANGE, ("10-20",), "20.001", False),
    (Operator.RANGE, ("10-20",), "9.999", False),
    (Operator.RANGE, ("5",), "5", True),
    (Operator.RANGE, ("5",), "5.5", False),
    (Operator.RANGE, ("100-",), "100", True),
    (Operator.RANGE, ("100-",), "99", False),
    (Operator.RANGE, ("-3",), "3", True),
    (Operator.RANGE, ("-3",), "-40", True),
    (Operator.RANGE, ("-3",), "4", False),
    (Operator.RANGE, ("-5--2",), "-3", True),
    (Operator.RANGE, ("-5--2",), "3", False),
    (Operator.RANGE, ("1-2", "7-"), "8", True),
    (Operator.RANGE, ("1-2", "7-"), "5", False),
    (Operator.RANGE, ("6-7",), "[1-5,8-9]", False),
    (Operator.RANGE, ("6-8",), "[1-5,8-9]", True),
    (Operator.RANGE, ("-0.5",), "[1-5,8-9]", False),
    (Operator.RANGE, ("2-4",), "{1,3}", True),
    (Operator.RANGE, ("4-",), "{1,3}", False),
    (Operator.RANGE, ("-",), "3", False),
    (Operator.RANGE, ("0-9",), "r1", False),
    (Operator.RANGE, ("0-9",), "", False),
    (Operator.RANGE, ("0-",), None, False),
]


@pytest.mark.parametrize(("operator", "values", "value", "allowed"), PLAIN)
def test_plain_operators_look_at_the_agent_alone(
    operator: Operator, values: tuple[str, ...], value: str | None, allowed: bool
) -> None:
    constraint = rule(operator, *values)
    assert not is_counting(constraint)
    assert allows(constraint, value, (), 3, 3) is allowed
    assert allows(constraint, value, (value, "r9"), 3, 3) is allowed, "siblings do not matter"


COUNTING = [
    # operator, values, count, the agent's value, where siblings are, allowed
    (Operator.UNIQUE, (), None, "a", (), True),
    (Operator.UNIQUE, (), None, "a", ("b", None), True),
    (Operator.UNIQUE, (), None, "a", ("a",), False),
    (Operator.UNIQUE, (), None, None, (), False),
    (Operator.MAX_PER, (), 2, "a", ("a", "b"), True),
    (Operator.MAX_PER, (), 2, "a", ("a", "b", "a"), False),
    (Operator.MAX_PER, (), 2, None, (), False),
    (Operator.CLUSTER, ("a",), None, "a", ("b",), True),
    (Operator.CLUSTER, ("a",), None, "b", ("b",), False),
    (Operator.CLUSTER, (), None, "b", (), True),
    (Operator.CLUSTER, (), None, "b", ("b", "a"), True),
    (Operator.CLUSTER, (), None, "b", ("a", "b"), False),
    (Operator.CLUSTER, (), None, "b", (None, "b"), True),
    (Operator.CLUSTER, (), None, None, (), False),
    (Operator.GROUP_BY, (), 2, "a", (), True),
    (Operator.GROUP_BY, (), 2, "c", ("a", "b"), False),
    (Operator.GROUP_BY, (), None, "c", ("a", "b"), True),
    (Operator.GROUP_BY, (), 2, None, (), False),
]


@pytest.mark.parametrize(("operator", "values", "count", "value", "siblings", "allowed"), COUNTING)
def test_counting_operators_look_at_the_siblings(
    operator: Operator,
    values: tuple[str, ...],
    count: int | None,
    value: str | None,
    siblings: tuple[str | None, ...],
    allowed: bool,
) -> None:
    constraint = rule(operator, *values, count=count)
    assert is_counting(constraint)
    assert allows(constraint, value, siblings, 3, 4) is allowed


@pytest.mark.parametrize(
    ("counts", "value", "allowed"),
    [
        # Five instances over two groups: one group takes three, the other two.
        ({"a": 1, "b": 1}, "a", True),
        ({"a": 2, "b": 1}, "a", True),
        ({"a": 2, "b": 2}, "a", True),
        ({"a": 3, "b": 1}, "b", True),
        ({"a": 3, "b": 2}, "a", False),
        ({"a": 3, "b": 2}, "b", False),
    ],
)
def test_group_by_fills_each_group_to_its_share_and_gives_the_rest_once_each(
    counts: dict[str, int], value: str, allowed: bool
) -> None:
    siblings = list(Counter(counts).elements())
    assert allows(rule(Operator.GROUP_BY, count=2), value, siblings, 9, 5) is allowed


@given(st.integers(1, 5), st.integers(0, 23), st.randoms(use_true_random=False))
def test_group_by_always_ends_even_whatever_the_order_of_offers(groups: int, size: int, random: object) -> None:
    values = [f"r{i}" for i in range(groups)]
    constraint = rule(Operator.GROUP_BY)
    placed: list[str | None] = []
    while True:
        open_now = [v for v in values if allows(constraint, v, placed, groups, size)]
        if not open_now or len(placed) == size:
            break
        placed.append(random.choice(open_now))  # type: ignore[attr-defined]
    counts = Counter(placed)
    assert len(placed) == size
    assert max(counts.values(), default=0) - min((counts[v] for v in values), default=0) <= 1


@given(st.integers(1, 4), st.lists(st.sampled_from("abc"), max_size=9))
def test_max_per_is_never_exceeded(bound: int, offers: list[str]) -> None:
    placed: list[str | None] = []
    for value in offers:
        if allows(rule(Operator.MAX_PER, count=bound), value, placed, 3, 9):
            placed.append(value)
    assert max(Counter(placed).values(), default=0) <= bound


@pytest.mark.parametrize(
    ("constraint", "words"),
    [
        (rule(Operator.EQUAL, "r1", field=""), "names no field"),
        (rule(Operator.EQUAL), "has no value"),
        (rule(Operator.MATCH), "has no value"),
        (rule(Operator.MATCH, "(("), "regular expression"),
        (rule(Operator.MISMATCH, "*"), "regular expression"),
        (rule(Operator.MAX_PER), "has no count"),
        (rule(Operator.MAX_PER, count=0), "must be 1 or more"),
        (rule(Operator.GROUP_BY, count=-1), "must be 1 or more"),
        (rule(Operator.MATCH, "ok", "(a+)+"), "very long"),
        (rule(Operator.MISMATCH, "x" * 513), "513 characters"),
        (rule(Operator.GLOB, "a", "*a" * 257), "514 characters; 512 are the most"),
        (rule(Operator.IN, *map(str, range(1025))), "1025 values; 1024 are the most"),
        (rule(Operator.UNIQUE, field="f" * 256), "field of 256 characters; 255 are the most"),
        (weighted(rule(Operator.UNIQUE), -1), "weight -1; give 0 for what must hold, or 1 to 1000"),
        (weighted(rule(Operator.UNIQUE), 1001), "weight 1001"),
        (rule(Operator.RANGE), "has no value"),
        (rule(Operator.RANGE, "5", "x-9"), "range 'x-9'; write 10-20, 5"),
        (rule(Operator.RANGE, "-"), "range '-'"),
        (rule(Operator.RANGE, "1e3"), "range '1e3'"),
        (rule(Operator.RANGE, "9-5"), "ends before it begins"),
        (rule(Operator.NEAR), "has no value"),
        (rule(Operator.APART), "has no value"),
        (rule(Operator.NEAR, "task:web", ""), "empty tag"),
        (rule(Operator.APART, "port:80"), "kept for the allocator"),
        (rule(Operator.NEAR, "a\nb"), "control characters"),
        (rule(Operator.SPREAD), "has no value"),
        (rule(Operator.SPREAD, "z1=60", "z2=41"), "shares out 101 percent"),
        (rule(Operator.SPREAD, "z1=60", "z1=10"), "twice"),
        (rule(Operator.SPREAD, "z1", "z1"), "twice"),
        (rule(Operator.SPREAD, "=60"), "percentage as z1=60"),
        (rule(Operator.SPREAD, "z1=much"), "percentage as z1=60"),
        (rule(Operator.SPREAD, "z1=-5"), "percentage as z1=60"),
        (rule(Operator.SPREAD, "z1=60", "z2"), "one to all or to none"),
    ],
)
def test_a_constraint_that_could_not_be_decided_is_refused(constraint: Constraint, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        check_constraint(constraint)


@pytest.mark.parametrize(("operator", "values", "value", "allowed"), PLAIN)
def test_what_can_be_decided_is_accepted(
    operator: Operator, values: tuple[str, ...], value: str | None, allowed: bool
) -> None:
    if values != ("-",):
        check_constraint(rule(operator, *values))
    check_constraint(rule(Operator.UNIQUE))
    check_constraint(rule(Operator.GROUP_BY, count=3))


def test_constraints_are_described_as_people_would_write_them() -> None:
    assert describe(rule(Operator.EQUAL, "r1")) == "rack == r1"
    assert describe(rule(Operator.IN, "r1", "r2")) == "rack in (r1, r2)"
    assert describe(rule(Operator.UNIQUE, field=HOSTNAME)) == "@hostname unique"
    assert describe(rule(Operator.MAX_PER, count=2)) == "rack max-per 2"
    assert describe(rule(Operator.RANGE, "1-5", "9-")) == "rack range (1-5, 9-)"
    assert describe(weighted(rule(Operator.NEAR, "task:db"), 10)) == "rack near task:db (weight 10)"
    assert describe(rule(Operator.SPREAD, "z1=60", "*=10")) == "rack spread (z1=60, *=10)"


def test_the_hostname_field_is_no_attribute() -> None:
    assert field_value(HOSTNAME, "h1", {"rack": "r1"}) == "h1"
    assert field_value("rack", "h1", {"rack": "r1"}) == "r1"
    assert field_value("zone", "h1", {"rack": "r1"}) is None


@pytest.mark.parametrize("operator", [Operator.NEAR, Operator.APART, Operator.SPREAD])
def test_of_what_depends_on_other_tasks_an_agent_alone_says_only_whether_it_has_the_field(operator: Operator) -> None:
    constraint = rule(operator, "task:db")
    assert looks_at_tasks(constraint)
    assert not is_counting(constraint)
    assert allows(constraint, "z1", (), 3, 3)
    assert allows(constraint, None, (), 3, 3) is (operator is not Operator.NEAR)


@pytest.mark.parametrize(
    "values",
    [("z1=60", "z2=40"), ("z1=33.3", "z2=33.3", "*=10"), ("z1", "z2"), ("a=b=100",), ("z1=0",), ("z1=33.333",)],
)
def test_shares_are_percentages_or_equal_parts(values: tuple[str, ...]) -> None:
    check_constraint(rule(Operator.SPREAD, *values))


everything = st.text(alphabet="ab1290.,-[]{}", max_size=9)


@given(
    st.sampled_from(Operator),
    st.lists(everything, min_size=1, max_size=3),
    st.none() | everything,
    st.lists(st.none() | everything, max_size=3),
)
def test_whatever_is_accepted_is_decided(
    operator: Operator, values: list[str], value: str | None, siblings: list[str | None]
) -> None:
    constraint = rule(operator, *values, count=2)
    try:
        check_constraint(constraint)
    except Invalid:
        return
    assert allows(constraint, value, siblings, 2, 5) in (True, False)


@given(st.lists(everything, min_size=1, max_size=3), everything)
def test_unequal_and_mismatch_are_the_opposites_of_equal_and_match(values: list[str], value: str) -> None:
    def answer(operator: Operator) -> bool:
        return allows(rule(operator, *values), value, (), 0, 0)

    assert answer(Operator.UNEQUAL) is not answer(Operator.EQUAL)
    assert answer(Operator.EQUAL) is answer(Operator.IN)
    try:
        check_constraint(rule(Operator.MATCH, *values))
    except Invalid:
        return
    assert answer(Operator.MISMATCH) is not answer(Operator.MATCH)


@given(st.integers(-(10**6), 10**6), st.integers(-(10**6), 10**6), st.integers(-(10**6), 10**6))
def test_range_compares_scalars_as_they_are_written(milli: int, low: int, high: int) -> None:
    def text(n: int) -> str:
        return format_value(Attribute(name="x", kind=AttributeKind.SCALAR, milli=n))

    constraint = rule(Operator.RANGE, f"{text(low)}-{text(high)}")
    assert allows(constraint, text(milli), (), 0, 0) is (low <= milli <= high)


spans = st.tuples(st.integers(0, 60), st.integers(0, 9)).map(lambda p: (p[0], p[0] + p[1]))


@given(st.lists(spans, min_size=1, max_size=4), spans)
def test_range_holds_on_ranges_that_share_a_number_with_it(
    ranges: list[tuple[int, int]], span: tuple[int, int]
) -> None:
    value = format_value(Attribute(name="x", kind=AttributeKind.RANGES, ranges=tuple(ranges)))
    inside = {n for begin, end in ranges for n in range(begin, end + 1)}
    low, high = span
    shared = any(n in inside for n in range(low, high + 1))
    assert allows(rule(Operator.RANGE, f"{low}-{high}"), value, (), 0, 0) is shared
    assert allows(rule(Operator.EQUAL, str(low)), value, (), 0, 0) is (low in inside)


@given(st.sets(st.text(alphabet="abc", min_size=1, max_size=3), min_size=1, max_size=4), st.text(alphabet="abc"))
def test_a_set_equals_each_of_its_items(items: set[str], wanted: str) -> None:
    value = format_value(Attribute(name="x", kind=AttributeKind.SET, items=tuple(items)))
    assert allows(rule(Operator.EQUAL, wanted), value, (), 0, 0) is (wanted in items)


def test_what_is_wrong_with_a_long_constraint_is_told_in_few_words() -> None:
    with pytest.raises(Invalid) as caught:
        check_constraint(rule(Operator.IN, *("v" * 512 for _ in range(1025))))
    assert len(caught.value.message) < 1000
    assert "1025 values" in caught.value.message


def test_an_expression_matches_no_text_that_would_take_it_long() -> None:
    assert allows(rule(Operator.MATCH, "a*"), "a" * 256, (), 1, 1)
    assert not allows(rule(Operator.MATCH, "a*"), "a" * 257, (), 1, 1)
    assert allows(rule(Operator.MISMATCH, "a*"), "a" * 257, (), 1, 1)
    items = ",".join(f"item-{i:03}" for i in range(99))
    assert allows(rule(Operator.MATCH, "item-09[0-9]"), f"{{{items}}}", (), 1, 1), "each item is a text of its own"
