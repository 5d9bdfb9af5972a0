"""Where an instance may go: one vocabulary that every dialect translates into.

A constraint names a field: `@hostname`, or an agent attribute. Counting constraints (`unique`, `max-per`, `group-by`,
`cluster`) look at the siblings: tasks of the same framework whose group is the want's. `near`, `apart` and `spread`
look at tasks too; `near` and `apart` at all that carry one of their tags, whosever they are.

Attributes are compared as text. On a set such as `{gpu,ssd}` a comparison holds for the whole text or for any item; on
ranges such as `[1-5,8-9]` a number equals them when it lies inside. An expression matches no text of more than 256
characters, so that none takes long.
Source: Marathon's operators (section 11 of its contract), Swarm's filters.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from enum import StrEnum
from fnmatch import fnmatchcase
from functools import lru_cache
from math import inf
from typing import assert_never

import msgspec

from corral.lib.errors import Invalid
from corral.model.attributes import read_items, read_number, read_ranges
from corral.model.patterns import MOST_PATTERN, MOST_TEXT, compile_pattern
from corral.model.tags import find_tag_fault

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


class Constraint(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """Shapes: `values` holds the texts to compare with, any of which may match; `count` is the bound of max-per or the
    groups of group-by. A `weight` of 0 must hold; one of 1 to 1000 is broken where nothing else fits, the sum of the
    weights that are broken being as small as can be.

    `values` of range are `10-20`, `5`, `100-` or `-3`, ends included; those of near and apart are tags; those of spread
    are `z1=60`, the percentage that a value of the field shall have, with `*=10` for each that is not named, or plain
    values for equal parts. Spread is never hard: without a weight it has one of its own.
    """

    field: str
    operator: Operator
    values: tuple[str, ...] = ()
    count: int | None = None
    weight: int = 0


MOST_WEIGHT = 1000
MOST_FIELD = 255
MOST_VALUES = 1024
_MOST_TOLD = 600

_VALUED = frozenset(
    {
        Operator.EQUAL, Operator.UNEQUAL, Operator.IN, Operator.MATCH, Operator.MISMATCH, Operator.GLOB, Operator.RANGE,
        Operator.NEAR, Operator.APART, Operator.SPREAD,
    }
)  # fmt: skip
"""The operators that need values."""

_NUMBER = r"-?[0-9]+(?:\.[0-9]+)?"
_SPAN = re.compile(rf"(?P<low>{_NUMBER})?-(?P<high>{_NUMBER})?|(?P<only>[0-9]+(?:\.[0-9]+)?)")
_SHARE = re.compile(r"(?P<name>.+)=(?P<percent>[0-9]{1,3}(?:\.[0-9]{1,6})?)", re.DOTALL)


def check_constraint(constraint: Constraint) -> None:
    """Refuse a constraint that could not be decided.

    Errors: `Invalid` names the constraint and what it lacks.
    """
    fault = _find_fault(constraint)
    if fault is not None:
        text = describe(constraint)
        shown = text if len(text) <= _MOST_TOLD else f"{text[:_MOST_TOLD]}…"
        raise Invalid(f"constraint {shown!r} {fault}")


def _find_fault(constraint: Constraint) -> str | None:
    operator, values, count = constraint.operator, constraint.values, constraint.count
    if not constraint.field:
        return f"names no field; name an agent attribute or {HOSTNAME}"
    if len(constraint.field) > MOST_FIELD:
        return f"names a field of {len(constraint.field)} characters; {MOST_FIELD} are the most"
    if len(values) > MOST_VALUES:
        return f"has {len(values)} values; {MOST_VALUES} are the most"
    longest = max(map(len, values), default=0)
    if longest > MOST_PATTERN:
        return f"has a value of {longest} characters; {MOST_PATTERN} are the most"
    if not 0 <= constraint.weight <= MOST_WEIGHT:
        return f"has the weight {constraint.weight}; give 0 for what must hold, or 1 to {MOST_WEIGHT}"
    if operator in _VALUED and not values:
        return f"has no value; {operator} needs at least one in 'values'"
    if operator is Operator.MAX_PER and count is None:
        return "has no count; say how many instances may share a value"
    if count is not None and count < 1:
        return f"has the count {count}; it must be 1 or more"
    match operator:
        case Operator.MATCH | Operator.MISMATCH:
            return next(filter(None, map(_pattern_fault, values)), None)
        case Operator.RANGE:
            return next(filter(None, map(_span_fault, values)), None)
        case Operator.NEAR | Operator.APART:
            return next(filter(None, map(find_tag_fault, values)), None)
        case Operator.SPREAD:
            return _shares_fault(values)
        case _:
            return None


def _pattern_fault(pattern: str) -> str | None:
    try:
        compile_pattern(pattern)
    except Invalid as error:
        return f"has an expression that {error.message}"
    return None


def _span_fault(text: str) -> str | None:
    span = _read_span(text)
    if span is None:
        return f"has the range {text!r}; write 10-20, 5, 100- for at least or -3 for at most"
    if span[0] > span[1]:
        return f"has the range {text!r}, which ends before it begins"
    return None


@lru_cache(maxsize=4096)
def _read_span(text: str) -> tuple[float, float] | None:
    """Both ends, endless where none is said; None when it is no range."""
    found = _SPAN.fullmatch(text)
    if found is None or text == "-":
        return None
    if found["only"] is not None:
        return float(text), float(text)
    return float(found["low"] or -inf), float(found["high"] or inf)


def _shares_fault(values: Sequence[str]) -> str | None:
    shares = [_SHARE.fullmatch(each) for each in values]
    names = [each if share is None else share["name"] for each, share in zip(values, shares, strict=True)]
    if not all(names) or len(set(names)) < len(names):
        return "names a value twice or not at all; name each once"
    wrong = next((each for each, share in zip(values, shares, strict=True) if share is None and "=" in each), None)
    if wrong is not None:
        return f"has the share {wrong!r}; write a value and its percentage as z1=60"
    given = [share for share in shares if share is not None]
    if given and len(given) < len(shares):
        return "gives some values a percentage and others none; give one to all or to none"
    total = sum(round(float(share["percent"]) * 1000) for share in given)
    if total > 100_000:
        return f"shares out {total / 1000:g} percent; 100 are the most"
    return None


def allows(
    constraint: Constraint, value: str | None, siblings: Sequence[str | None], groups_known: int, group_size: int
) -> bool:
    """Whether an agent whose field has this value may take one more instance.

    Shapes: `value` None when the agent lacks the field; `siblings` are the field's values where instances already are,
    in the order they were placed; `groups_known` counts the distinct values among all agents; `group_size` is the
    number of instances wanted in all. Where the answer depends on other tasks, it is what the agent alone can say:
    False only for `near` on an agent that lacks the field.
    """
    values = constraint.values
    match constraint.operator:
        case Operator.MISMATCH:
            return value is None or not _matches(value, values)
        case Operator.UNEQUAL:
            return value is None or not _equals(value, values)
        case Operator.APART | Operator.SPREAD:
            return True
        case _ if value is None:
            return False
        case Operator.EQUAL | Operator.IN:
            return _equals(value, values)
        case Operator.MATCH:
            return _matches(value, values)
        case Operator.GLOB:
            return any(fnmatchcase(each, pattern) for each in (value, *read_items(value)) for pattern in values)
        case Operator.RANGE:
            return _overlaps(value, values)
        case Operator.UNIQUE:
            return value not in siblings
        case Operator.MAX_PER:
            return sum(1 for s in siblings if s == value) < (constraint.count or 0)
        case Operator.CLUSTER if values:
            return _equals(value, values[:1])
        case Operator.CLUSTER:
            return value == next((s for s in siblings if s is not None), value)
        case Operator.GROUP_BY:
            return _evens_out(value, Counter(s for s in siblings if s is not None), constraint.count or groups_known,
                              group_size)  # fmt: skip
        case Operator.NEAR:
            return True
        case unknown:
            assert_never(unknown)


def _equals(value: str, wanted: Sequence[str]) -> bool:
    if value in wanted or not wanted:
        return value in wanted
    if value.startswith("{"):
        return not set(wanted).isdisjoint(read_items(value))
    if value.startswith("["):
        numbers = [n for n in map(read_number, wanted) if n is not None]
        return any(begin <= n <= end for begin, end in read_ranges(value) for n in numbers)
    return False


def _matches(value: str, patterns: Sequence[str]) -> bool:
    return any(_fullmatch(pattern, each) for pattern in patterns for each in (value, *read_items(value)))


@lru_cache(maxsize=16384)
def _fullmatch(pattern: str, text: str) -> bool:
    return len(text) <= MOST_TEXT and compile_pattern(pattern).fullmatch(text) is not None


def _overlaps(value: str, spans: Sequence[str]) -> bool:
    """Whether a number of the value, or one inside of its ranges, lies in one of the spans."""
    found = list(read_ranges(value))
    found += [(n, n) for n in map(read_number, (value, *read_items(value))) if n is not None]
    for text in spans:
        span = _read_span(text)
        if span is not None and any(begin <= span[1] and span[0] <= end for begin, end in found):
            return True
    return False


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
    """`rack in (a, b)`, `@hostname unique`, `zone max-per 2`, `zone near image:db (weight 10)`."""
    words: list[str] = [constraint.field, str(constraint.operator)]
    if constraint.values:
        words.append(constraint.values[0] if len(constraint.values) == 1 else f"({', '.join(constraint.values)})")
    if constraint.count is not None:
        words.append(str(constraint.count))
    if constraint.weight:
        words.append(f"(weight {constraint.weight})")
    return " ".join(words)


def field_value(field: str, hostname: str, attributes: Mapping[str, str]) -> str | None:
    """The text an agent has for a constraint's field."""
    return hostname if field == HOSTNAME else attributes.get(field)
