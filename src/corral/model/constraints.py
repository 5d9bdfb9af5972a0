"""Where an instance may go: one vocabulary that every dialect translates into.

A constraint names a field: `@hostname`, or an agent attribute. Counting constraints (`unique`, `max-per`, `group-by`,
`cluster`) look at the siblings: tasks of the same framework whose group label equals the want's group. `near` and
`apart` look at tasks by their tags, whosever they are; `spread` fills the values of a field by target shares. With a
weight a constraint is soft: it is broken where nothing else fits, and then the sum of broken weights is the least.

Attributes are compared as their canonical texts. Of a set `{a,b}` each item counts as a value of its own, of ranges
`[1-5,8-9]` each number inside; `range` also reads scalars. Source: Marathon's operators (section 11 of its contract),
Swarm's filters and affinities.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from enum import StrEnum
from fnmatch import fnmatchcase
from functools import lru_cache

import msgspec

from corral.lib.errors import Invalid

HOSTNAME = "@hostname"


class Operator(StrEnum):
    EQUAL = "=="
    UNEQUAL = "!="
    IN = "in"
    MATCH = "regex"
    MISMATCH = "not regex"
    GLOB = "glob"
    UNIQUE = "unique"
    MAX_PER = "max-per"
    GROUP_BY = "group-by"
    CLUSTER = "cluster"
    RANGE = "range"
    NEAR = "near"
    APART = "apart"
    SPREAD = "spread"


class Constraint(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Shapes: `values` holds the texts to compare with; `count` is the bound of max-per or the groups of group-by.

    `weight` 0 must hold, 1 to 1000 is soft. Values of `range` are `10-20`, `5`, `100-` or `-3`; of `near` and `apart`
    tags, any of which will do; of `spread` `zone=60` in percent, plain names for equal parts, `*` for all others.
    """

    field: str
    operator: Operator
    values: tuple[str, ...] = ()
    count: int | None = None
    weight: int = 0


MOST_WEIGHT = 1000
MOST_PATTERN = 512

_COMPARING = frozenset(
    {
        Operator.EQUAL, Operator.UNEQUAL, Operator.IN, Operator.MATCH, Operator.MISMATCH, Operator.GLOB, Operator.RANGE,
        Operator.NEAR, Operator.APART, Operator.SPREAD,
    }
)  # fmt: skip
"""The operators that need a value to compare with."""


def check_constraint(constraint: Constraint) -> None:
    """Refuse a constraint that could not be decided.

    Errors: `Invalid` names the constraint and what it lacks.
    """
    text = describe(constraint)
    if not constraint.field:
        raise Invalid(f"constraint {text!r} names no field; name an agent attribute or {HOSTNAME}")
    if constraint.operator in _COMPARING and not constraint.values:
        raise Invalid(f"constraint {text!r} has no value; {constraint.operator} compares with one")
    if constraint.operator in (Operator.MATCH, Operator.MISMATCH):
        _check_pattern(text, constraint.values[0])
    if constraint.operator is Operator.RANGE:
        for each in constraint.values:
            if _span(each) is None:
                raise Invalid(f"constraint {text!r} has the range {each!r}; write 10-20, 5, 100- or -3")
    if constraint.operator is Operator.SPREAD:
        _check_targets(text, constraint.values)
    if constraint.operator is Operator.MAX_PER and constraint.count is None:
        raise Invalid(f"constraint {text!r} has no count; say how many instances may share a value")
    if constraint.count is not None and constraint.count < 1:
        raise Invalid(f"constraint {text!r} has the count {constraint.count}; it must be 1 or more")
    if not 0 <= constraint.weight <= MOST_WEIGHT:
        raise Invalid(f"constraint {text!r} has the weight {constraint.weight}; it must be within 0 and {MOST_WEIGHT}")


_NESTED = re.compile(r"\((?:[^()\\]|\\.)*[+*}](?:[^()\\]|\\.)*\)[+*{]")
_DEEP = re.compile(r"\)[+*}]?(?:[^()\\]|\\.)*\)[+*{]")


def _check_pattern(text: str, pattern: str) -> None:
    """Patterns run in the loop of the master: none may take long, whatever it is matched with.

    A group that is repeated and repeats something itself is refused, for such patterns can take exponential time.
    """
    if len(pattern) > MOST_PATTERN:
        raise Invalid(
            f"constraint {text[:80]!r} has a pattern of {len(pattern)} characters; {MOST_PATTERN} are the most"
        )
    try:
        _compiled(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise Invalid(f"constraint {text!r} has no valid regular expression: {error}") from None
    plain = re.sub(r"\[(?:[^\]\\]|\\.)*\]", "x", pattern)
    if _NESTED.search(plain) or _DEEP.search(plain):
        raise Invalid(
            f"constraint {text!r} repeats a group that repeats something itself, which can take for ever to match; "
            "write it without the inner or the outer repetition"
        )


def _check_targets(text: str, values: Sequence[str]) -> None:
    total = 0.0
    for each in values:
        name, equals, percent = each.rpartition("=")
        if not equals:
            continue
        try:
            part = float(percent)
        except ValueError:
            part = -1.0
        if not name or not 0 < part <= 100:
            raise Invalid(f"constraint {text!r} has the share {each!r}; write NAME=PERCENT, such as zone-a=60")
        total += part
    if total > 100.0001:
        raise Invalid(f"constraint {text!r} shares out {total:g}%; the shares together are at most 100")


@lru_cache(maxsize=4096)
def _span(text: str) -> tuple[float, float] | None:
    """The bounds of a range as it is written, None when it is none."""
    found = re.fullmatch(r"(-?\d+(?:\.\d+)?)?(-)?(-?\d+(?:\.\d+)?)?", text.strip())
    if found is None or not text.strip():
        return None
    low, dash, high = found.groups()
    if low is not None and dash is None and high is None:
        # `-3` alone reads as everything up to 3, as ports and versions are never below nothing.
        value = float(low)
        return (float("-inf"), -value) if text.strip().startswith("-") else (value, value)
    if dash is None:
        return None
    span = (float(low) if low else float("-inf"), float(high) if high else float("inf"))
    return span if span[0] <= span[1] else None


@lru_cache(maxsize=65536)
def _values_of(text: str) -> tuple[str, ...]:
    """What an attribute's text counts as: itself, and each item of a set."""
    if len(text) > 2 and text.startswith("{") and text.endswith("}"):
        return (text, *(each.strip() for each in text[1:-1].split(",")))
    return (text,)


@lru_cache(maxsize=65536)
def _spans_of(text: str) -> tuple[tuple[float, float], ...]:
    """The numbers an attribute's text holds, as ranges: one for a scalar, none for a text that is no number."""
    if text.startswith("[") and text.endswith("]"):
        found = []
        for part in text[1:-1].split(","):
            low, _, high = part.strip().partition("-")
            try:
                found.append((float(low), float(high or low)))
            except ValueError:
                return ()
        return tuple(found)
    try:
        number = float(text)
    except ValueError:
        return ()
    return ((number, number),) if number == number else ()


def _equals(wanted: str, value: str) -> bool:
    """Whether an attribute is or holds this value."""
    if wanted in _values_of(value):
        return True
    if not value.startswith("["):
        return False
    number = _spans_of(wanted)
    return bool(number) and any(low <= number[0][0] <= high for low, high in _spans_of(value))


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def allows(
    constraint: Constraint, value: str | None, siblings: Sequence[str | None], groups_known: int, group_size: int
) -> bool:
    """Whether an agent whose field has this value may take one more instance.

    Shapes: `value` None when the agent lacks the field; `siblings` are the field's values where instances already are,
    in the order they were placed; `groups_known` counts the distinct values among all agents; `group_size` is the
    number of instances wanted in all. What depends on tasks by their tags is not decided here: it allows all.
    """
    values = constraint.values
    match constraint.operator:
        case Operator.MISMATCH:
            return value is None or not _matches(values[0], value)
        case Operator.UNEQUAL:
            return value is None or not any(_equals(each, value) for each in values)
        case Operator.SPREAD | Operator.APART:
            return True
        case _ if value is None:
            return False
        case Operator.EQUAL | Operator.IN:
            return any(_equals(each, value) for each in values)
        case Operator.MATCH:
            return _matches(values[0], value)
        case Operator.GLOB:
            return any(fnmatchcase(item, pattern) for item in _values_of(value) for pattern in values)
        case Operator.RANGE:
            return any(_overlaps(each, value) for each in values)
        case Operator.UNIQUE:
            return value not in siblings
        case Operator.MAX_PER:
            return sum(1 for s in siblings if s == value) < (constraint.count or 0)
        case Operator.CLUSTER:
            wanted = values[0] if values else next((s for s in siblings if s is not None), value)
            return value == wanted
        case Operator.GROUP_BY:
            return _evens_out(value, Counter(s for s in siblings if s is not None), constraint.count or groups_known,
                              group_size)  # fmt: skip
        case Operator.NEAR:
            return True


def _matches(pattern: str, value: str) -> bool:
    return any(_compiled(pattern).fullmatch(item) is not None for item in _values_of(value))


def _overlaps(wanted: str, value: str) -> bool:
    span = _span(wanted)
    return span is not None and any(low <= span[1] and span[0] <= high for low, high in _spans_of(value))


def _evens_out(value: str, counts: Counter[str], groups: int, group_size: int) -> bool:
    """Whether one more in this group keeps `groups` groups within one of each other. Source: Marathon GROUP_BY."""
    if value not in counts:
        return len(counts) < groups
    share, rest = divmod(group_size, max(groups, 1))
    if counts[value] < share:
        return True
    fuller = sum(1 for n in counts.values() if n > share)
    return counts[value] == share and fuller < rest


def is_counting(constraint: Constraint) -> bool:
    """Whether the answer depends on where the siblings are."""
    return constraint.operator in (Operator.UNIQUE, Operator.MAX_PER, Operator.GROUP_BY, Operator.CLUSTER)


def looks_at_tasks(constraint: Constraint) -> bool:
    """Whether the answer depends on which tasks run where, whosever they are."""
    return constraint.operator in (Operator.NEAR, Operator.APART, Operator.SPREAD)


def describe(constraint: Constraint) -> str:
    """`rack in (a, b)`, `@hostname unique`, `zone max-per 2`."""
    words: list[str] = [constraint.field, str(constraint.operator)]
    if constraint.values:
        words.append(constraint.values[0] if len(constraint.values) == 1 else f"({', '.join(constraint.values)})")
    if constraint.count is not None:
        words.append(str(constraint.count))
    if constraint.weight:
        words.append(f"weight {constraint.weight}")
    return " ".join(words)


def field_value(field: str, hostname: str, attributes: Mapping[str, str]) -> str | None:
    """The text an agent has for a constraint's field."""
    return hostname if field == HOSTNAME else attributes.get(field)
