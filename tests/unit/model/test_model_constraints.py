"""The table of operators, Marathon's and corral's own."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.lib.errors import Invalid
from corral.model.constraints import (
    HOSTNAME,
    Constraint,
    Operator,
    allows,
    check_constraint,
    describe,
    field_value,
    is_counting,
)


def rule(operator: Operator, *values: str, count: int | None = None, field: str = "rack") -> Constraint:
    return Constraint(field=field, operator=operator, values=values, count=count)


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
    ],
)
def test_a_constraint_that_could_not_be_decided_is_refused(constraint: Constraint, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        check_constraint(constraint)


@pytest.mark.parametrize(("operator", "values", "value", "allowed"), PLAIN)
def test_what_can_be_decided_is_accepted(
    operator: Operator, values: tuple[str, ...], value: str | None, allowed: bool
) -> None:
    check_constraint(rule(operator, *values))
    check_constraint(rule(Operator.UNIQUE))
    check_constraint(rule(Operator.GROUP_BY, count=3))


def test_constraints_are_described_as_people_would_write_them() -> None:
    assert describe(rule(Operator.EQUAL, "r1")) == "rack == r1"
    assert describe(rule(Operator.IN, "r1", "r2")) == "rack in (r1, r2)"
    assert describe(rule(Operator.UNIQUE, field=HOSTNAME)) == "@hostname unique"
    assert describe(rule(Operator.MAX_PER, count=2)) == "rack max-per 2"


def test_the_hostname_field_is_no_attribute() -> None:
    assert field_value(HOSTNAME, "h1", {"rack": "r1"}) == "h1"
    assert field_value("rack", "h1", {"rack": "r1"}) == "r1"
    assert field_value("zone", "h1", {"rack": "r1"}) is None
