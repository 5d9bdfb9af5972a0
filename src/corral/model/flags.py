"""The text grammar of `--resources` and `--attributes`. Source: Mesos agent flags.

cpus:8;mem:16384;ports:[31000-32000,33000-33100];bugs:{a,b}
cpus(web):2;mem(web):1024;ports(*):[31000-32000]
rack:r1;zone:west;level:10;keys:[1000-1500]
"""

import re

from corral.lib.errors import Invalid
from corral.model.attributes import Attribute, AttributeKind
from corral.model.ids import check_role
from corral.model.resources import (
    PLAIN,
    Identity,
    Reservation,
    Resource,
    ResourceKind,
    Resources,
    coalesce,
    items,
    normal,
    scalar,
)

_RESOURCES_FORM = "write for example cpus:8;mem:16384;ports:[31000-32000]"
_ATTRIBUTES_FORM = "write for example rack:r1;zone:west;level:10"


def _pairs(text: str, form: str) -> list[tuple[str, str]]:
    found = []
    for piece in filter(None, (p.strip() for p in text.split(";"))):
        name, colon, value = piece.partition(":")
        if not colon or not name.strip() or not value.strip():
            raise Invalid(f"{piece!r} is not NAME:VALUE; {form}")
        found.append((name.strip(), value.strip()))
    return found


def _parse_ranges(value: str, form: str) -> tuple[tuple[int, int], ...]:
    spans = []
    for span in filter(None, (s.strip() for s in value[1:-1].split(","))):
        match = re.fullmatch(r"(\d+)\s*-\s*(\d+)", span)
        if match is None or int(match[1]) > int(match[2]):
            raise Invalid(f"range {span!r} is not LOW-HIGH; {form}")
        spans.append((int(match[1]), int(match[2])))
    return coalesce(spans)


def parse_resources(text: str) -> Resources:
    """Errors: `Invalid` quotes the piece that does not fit the grammar and shows one that does."""
    found: list[Resource] = []
    for given, value in _pairs(text, _RESOURCES_FORM):
        name, identity = _parse_role(given)
        if value.startswith("[") and value.endswith("]"):
            spans = _parse_ranges(value, _RESOURCES_FORM)
            found.append(Resource(name=name, kind=ResourceKind.RANGES, ranges=spans, identity=identity))
        elif value.startswith("{") and value.endswith("}"):
            there = items(name, (v.strip() for v in value[1:-1].split(",") if v.strip())).items
            found.append(Resource(name=name, kind=ResourceKind.SET, items=there, identity=identity))
        else:
            try:
                amount = float(value)
            except ValueError:
                raise Invalid(f"resource {name} has the value {value!r}, not a number; {_RESOURCES_FORM}") from None
            if not 0 <= amount < 1e15:
                raise Invalid(f"resource {name} has the value {value!r}; it must be a finite number of 0 or more")
            found.append(scalar(name, amount, identity))
    return normal(found)


def _parse_role(given: str) -> tuple[str, Identity]:
    """A resource's name and, when a role stands behind it in parentheses, its static reservation."""
    name, parenthesis, rest = given.partition("(")
    if not parenthesis:
        return given, PLAIN
    role = rest.strip().removesuffix(")").strip()
    if not rest.strip().endswith(")") or not name.strip():
        raise Invalid(f"resource {given!r} is not NAME(ROLE); write for example cpus(web):2")
    if role == "*":
        return name.strip(), PLAIN
    check_role(role)
    return name.strip(), Identity(reservations=(Reservation(role=role, static=True),))


def parse_attributes(text: str) -> tuple[Attribute, ...]:
    """Errors: `Invalid` quotes the piece that does not fit the grammar and shows one that does."""
    found: list[Attribute] = []
    for name, value in _pairs(text, _ATTRIBUTES_FORM):
        if value.startswith("[") and value.endswith("]"):
            spans = _parse_ranges(value, _ATTRIBUTES_FORM)
            found.append(Attribute(name=name, kind=AttributeKind.RANGES, ranges=spans))
        elif re.fullmatch(r"-?\d+(\.\d+)?", value):
            found.append(Attribute(name=name, kind=AttributeKind.SCALAR, milli=round(float(value) * 1000)))
        else:
            found.append(Attribute(name=name, text=value))
    return tuple(found)
