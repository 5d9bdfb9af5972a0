"""What an agent says of itself, for constraints to match. Source: Mesos agent attributes."""

import re
from enum import StrEnum
from functools import lru_cache

import msgspec


class AttributeKind(StrEnum):
    TEXT = "TEXT"
    SCALAR = "SCALAR"
    RANGES = "RANGES"
    SET = "SET"


class Attribute(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    name: str
    kind: AttributeKind = AttributeKind.TEXT
    text: str = ""
    milli: int = 0
    ranges: tuple[tuple[int, int], ...] = ()
    items: tuple[str, ...] = ()


def format_value(attribute: Attribute) -> str:
    """The text that constraints compare: scalars with at most three decimals, ranges and sets sorted."""
    match attribute.kind:
        case AttributeKind.TEXT:
            return attribute.text
        case AttributeKind.SCALAR:
            return f"{attribute.milli / 1000:.3f}".rstrip("0").rstrip(".")
        case AttributeKind.RANGES:
            return "[" + ",".join(f"{a}-{b}" for a, b in sorted(attribute.ranges)) + "]"
        case AttributeKind.SET:
            return "{" + ",".join(sorted(attribute.items)) + "}"


_NUMBER = r"-?[0-9]+(?:\.[0-9]+)?"
_IS_NUMBER = re.compile(_NUMBER)
_IS_RANGES = re.compile(r"\[[0-9]+-[0-9]+(?:,[0-9]+-[0-9]+)*\]")


@lru_cache(maxsize=16384)
def read_number(text: str) -> float | None:
    """The number that a text is, None when it is none. Numbers are written with a point and without exponent."""
    return float(text) if _IS_NUMBER.fullmatch(text) else None


@lru_cache(maxsize=16384)
def read_ranges(text: str) -> tuple[tuple[float, float], ...]:
    """The ranges in the text of an attribute of that kind; none in any other text."""
    if not text.startswith("[") or _IS_RANGES.fullmatch(text) is None:
        return ()
    pairs = (each.split("-") for each in text[1:-1].split(","))
    return tuple((float(begin), float(end)) for begin, end in pairs)


@lru_cache(maxsize=16384)
def read_items(text: str) -> tuple[str, ...]:
    """The items in the text of a set; none in any other text. An item with a comma in it counts as several."""
    if len(text) > 2 and text[0] == "{" and text[-1] == "}":
        return tuple(text[1:-1].split(","))
    return ()
