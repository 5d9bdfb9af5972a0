"""Where an instance may go: one vocabulary that every dialect translates into.

A constraint names a field: `@hostname`, or an agent attribute. Counting constraints (`unique`, `max_per`, `group_by`,
`cluster`) look at the siblings: tasks of the same framework whose group label equals the want's group.
Source: Marathon's operators (section 11 of its contract), Swarm's filters.
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
    """Shapes: `values` holds the texts to compare with; `count` is the bound of max-per or the groups of group-by."""

    field: str
    operator: Operator
    values: tuple[str, ...] = ()
    count: int | None = None
    weight: int = 0


_COMPARING = frozenset(
    {Operator.EQUAL, Operator.UNEQUAL, Operator.IN, Operator.MATCH, Operator.MISMATCH, Operator.GLOB}
)
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
        try:
            _compiled(constraint.values[0])
        except re.error as error:
            raise Invalid(f"constraint {text!r} has no valid regular expression: {error}") from None
    if constraint.operator is Operator.MAX_PER and constraint.count is None:
        raise Invalid(f"constraint {text!r} has no count; say how many instances may share a value")
    if constraint.count is not None and constraint.count < 1:
        raise Invalid(f"constraint {text!r} has the count {constraint.count}; it must be 1 or more")


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def allows(
    constraint: Constraint, value: str | None, siblings: Sequence[str | None], groups_known: int, group_size: int
) -> bool:
    """Whether an agent whose field has this value may take one more instance.

    Shapes: `value` None when the agent lacks the field; `siblings` are the field's values where instances already are,
    in the order they were placed; `groups_known` counts the distinct values among all agents; `group_size` is the
    number of instances wanted in all.
    """
    match constraint.operator:
        case Operator.MISMATCH:
            return value is None or _compiled(constraint.values[0]).fullmatch(value) is None
        case Operator.UNEQUAL:
            return value is None or value not in constraint.values
        case _ if value is None:
            return False
        case Operator.EQUAL | Operator.IN:
            return value in constraint.values
        case Operator.MATCH:
            return _compiled(constraint.values[0]).fullmatch(value) is not None
        case Operator.GLOB:
            return any(fnmatchcase(value, pattern) for pattern in constraint.values)
        case Operator.UNIQUE:
            return value not in siblings
        case Operator.MAX_PER:
            return sum(1 for s in siblings if s == value) < (constraint.count or 0)
        case Operator.CLUSTER:
            wanted = constraint.values[0] if constraint.values else next((s for s in siblings if s is not None), value)
            return value == wanted
        case Operator.GROUP_BY:
            return _evens_out(value, Counter(s for s in siblings if s is not None), constraint.count or groups_known,
                              group_size)  # fmt: skip


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
    return " ".join(words)


def field_value(field: str, hostname: str, attributes: Mapping[str, str]) -> str | None:
    """The text an agent has for a constraint's field."""
    return hostname if field == HOSTNAME else attributes.get(field)
