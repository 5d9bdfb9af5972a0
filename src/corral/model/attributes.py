"""What an agent says of itself, for constraints to match. Source: Mesos agent attributes."""

from enum import StrEnum

import msgspec


class AttributeKind(StrEnum):
    TEXT = "TEXT"
    SCALAR = "SCALAR"
    RANGES = "RANGES"
    SET = "SET"


class Attribute(msgspec.Struct, frozen=True, gc=False, kw_only=True):
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
